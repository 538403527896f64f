//! Commands that look into strings answer on compressed values as Redis does, outside of transactions and in them.

mod common;

use common::{Client, Nats, Redis, Shortstop, assert_reply, prose, show, wait_until};

/// Every value is compressed, however small.
const EAGER: &str = "workers: 1\nplain_for: 0s\ndefaults: { compress: { min_size: 1b, min_saving: 1% } }\n";

/// A client of Shortstop, one of the Redis behind it, and one of a plain Redis.
struct Beside {
    behind: Redis,
    other: Redis,
    proxy: Shortstop,
    client: Client,
    stored: Client,
    plain: Client,
}

impl Beside {
    fn start(yaml: &str) -> Beside {
        let (behind, other) = (Redis::start(), Redis::start());
        let proxy = Shortstop::start(&behind, yaml);
        let (client, stored, plain) = (proxy.client(), behind.client(), other.client());
        let mut beside = Beside { behind, other, proxy, client, stored, plain };
        wait_until("Shortstop knows the rights of users", || {
            beside.client.call(&[b"SET", b"probe", &value()]);
            let before = beside.proxy.stat("converted_values");
            beside.client.cmd("GETBIT probe 10000000");
            beside.proxy.stat("converted_values") == before
        });
        beside.client.cmd("DEL probe");
        beside
    }

    /// Sends a command to both and compares the replies. `$v` is a compressible value.
    #[track_caller]
    fn same(&mut self, line: &str) -> Vec<u8> {
        let value = value();
        let words: Vec<Vec<u8>> =
            line.split(' ').map(|word| if word == "$v" { value.clone() } else { word.as_bytes().to_vec() }).collect();
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let (got, expected) = (self.client.call(&words), self.plain.call(&words));
        assert_reply(&got, &expected, line);
        got
    }

    /// Whether Redis stores the value of a key compressed.
    fn is_compressed(&mut self, key: &str) -> bool {
        self.stored.cmd(&format!("GET {key}")) != self.plain.cmd(&format!("GET {key}"))
    }
}

fn value() -> Vec<u8> {
    prose(3_000, 7)
}

const READS: [&str; 22] = [
    "STRLEN k",
    "GETRANGE k 0 -1",
    "GETRANGE k 10 20",
    "GETRANGE k -5 -1",
    "SUBSTR k 2990 4000",
    "GETBIT k 7",
    "GETBIT k 23999",
    "GETBIT k 24001",
    "GETBIT k 4000000000",
    "GETBIT k x",
    "BITCOUNT k",
    "BITCOUNT k 5 30",
    "BITCOUNT k 5 30 BIT",
    "BITCOUNT k 5",
    "BITPOS k 0",
    "BITPOS k 1 100",
    "BITPOS k 1 -3 -1",
    "BITPOS k 1 5 30 BIT",
    "BITFIELD_RO k GET u8 0 GET i64 100 GET u63 23990 GET i5 #3",
    "BITFIELD_RO k GET i65 0",
    "LCS k l LEN",
    "LCS k l IDX MINMATCHLEN 40",
];

#[test]
fn reads_answer_as_redis_does_and_leave_the_value_compressed() {
    let mut beside = Beside::start(EAGER);
    beside.same("SET k $v");
    beside.same("SET l $v");
    for line in READS {
        beside.same(line);
        // The others are answered from the value. These compare two values, or Redis alone knows their arguments.
        let converts = line.starts_with("LCS") || line.contains("BIT ") || line.ends_with(" BIT");
        if !converts {
            assert!(beside.is_compressed("k"), "{line}");
        }
        beside.same("SET k $v");
    }
    for line in READS {
        let missing = line.replace(" k", " none");
        beside.same(&missing);
        beside.same("RPUSH list x");
        beside.same(&line.replace(" k", " list"));
    }
}

#[test]
fn writes_change_the_value_and_keep_its_ttl() {
    let mut beside = Beside::start(EAGER);
    for line in [
        "APPEND k tail",
        "SETRANGE k 5 xyz",
        "SETRANGE k 4000 far",
        "SETBIT k 7 1",
        "SETBIT k 40000 1",
        "BITFIELD k SET u8 0 255 GET u8 8 INCRBY i5 100 1",
        "BITFIELD k SET u63 3 1234567890123456789 GET i64 0 OVERFLOW FAIL INCRBY u2 102 1",
        "BITOP NOT d k",
        "BITOP AND d k l",
        "BITOP XOR k k l",
        "INCR k",
        "INCRBYFLOAT k 1.5",
        "PFADD k x",
        "GETSET k $v",
        "GETEX k EX 1000",
        "GETDEL k",
        "SET k other XX GET",
        "SET k $v KEEPTTL",
        "COPY k c",
        "RENAME k r",
    ] {
        beside.same("FLUSHALL");
        beside.same("SET k $v EX 1000");
        beside.same("SET l $v");
        assert!(beside.is_compressed("k"));
        beside.same(line);
        for key in ["k", "l", "d", "c", "r"] {
            beside.same(&format!("GET {key}"));
            beside.same(&format!("TTL {key}"));
            beside.same(&format!("STRLEN {key}"));
        }
    }
}

#[test]
fn a_pipeline_is_executed_in_its_order() {
    let mut beside = Beside::start(EAGER);
    beside.same("SET k $v");
    let lines = ["APPEND k a", "GET k", "APPEND k b", "STRLEN k", "SET k 1", "APPEND k c", "GETRANGE k 0 -1", "DEL k"];
    let bytes = common::pipeline_of(&lines);
    let (got, expected) = (beside.client.pipeline(&bytes, lines.len()), beside.plain.pipeline(&bytes, lines.len()));
    for ((line, got), expected) in lines.iter().zip(got).zip(expected) {
        assert_reply(&got, &expected, line);
    }
}

#[test]
fn sort_stores_and_compares_plain_strings() {
    let mut beside = Beside::start(EAGER);
    for number in 1..=5 {
        beside.same(&format!("RPUSH list {number}"));
        beside.same(&format!("SET w_{number} {}$", 9 - number));
        let value = prose(1_000 + number, number as u64);
        for client in [&mut beside.client, &mut beside.plain] {
            client.call(&[b"SET", format!("v_{number}").as_bytes(), &value]);
        }
    }
    for line in [
        "SORT list BY v_* ALPHA",
        "SORT list BY v_* ALPHA DESC GET # GET v_*",
        "SORT list GET v_* STORE d",
        "LRANGE d 0 -1",
    ] {
        beside.same(line);
    }
}

#[test]
fn a_transaction_is_executed_as_by_redis() {
    let mut beside = Beside::start(EAGER);
    beside.same("SET k $v EX 1000");
    beside.same("SET other $v");
    for line in [
        "MULTI",
        "SET new $v",
        "APPEND k tail",
        "STRLEN k",
        "GETRANGE k 0 20",
        "SETBIT new 1 1",
        "GET k",
        "INCR k",
        "SELECT 1",
        "APPEND k x",
        "EXEC",
        "STRLEN k",
        "SELECT 0",
        "GET k",
        "TTL k",
        "GET new",
    ] {
        beside.same(line);
    }
    // A client that watches other keys is not disturbed.
    beside.same("SET k $v");
    for line in ["WATCH other", "MULTI", "APPEND other x", "STRLEN k", "EXEC"] {
        beside.client.cmd(line);
    }
    beside.same("SET other $v");
    beside.same("SET k small");
    for line in ["WATCH other", "MULTI", "APPEND k x", "EXEC", "GET k"] {
        beside.same(line);
    }
}

#[test]
fn a_watched_key_that_changed_aborts_the_transaction() {
    let mut beside = Beside::start(EAGER);
    beside.same("SET k small");
    beside.same("SET other $v");
    for line in ["WATCH other", "MULTI", "APPEND k x"] {
        beside.same(line);
    }
    // Another client writes the watched key before EXEC.
    for client in [beside.stored.cmd("SET other 2"), beside.other.client().cmd("SET other 2")] {
        assert_reply(&client, "+OK\r\n", "the other client");
    }
    beside.same("EXEC");
    beside.same("GET k");
    // A watched key that expires before EXEC.
    beside.same("SET other 1 PX 1");
    for line in ["WATCH other", "MULTI", "APPEND k x"] {
        beside.same(line);
    }
    wait_until("it has expired in both", || {
        beside.stored.cmd("EXISTS other") == b":0\r\n" && beside.other.client().cmd("EXISTS other") == b":0\r\n"
    });
    beside.same("EXEC");
    beside.same("GET k");
}

#[test]
fn bytes_that_look_compressed_come_back_as_they_were_put_together() {
    let mut beside = Beside::start(EAGER);
    let mark = shortstop::codec::MARK;
    let forged = [&mark[..], &[1, 2, 3, 4, 5], &[b'x'; 70_000]].concat();
    let both = |beside: &mut Beside, words: &[&[u8]]| {
        let (got, expected) = (beside.client.call(words), beside.plain.call(words));
        assert_reply(&got, &expected, &show(words[0]));
    };
    both(&mut beside, &[b"APPEND", b"a", &forged]);
    both(&mut beside, &[b"SETRANGE", b"s", b"0", &forged]);
    both(&mut beside, &[b"SET", b"rest", &forged[1..]]);
    both(&mut beside, &[b"SETRANGE", b"rest2", b"1", &forged[1..]]);
    both(&mut beside, &[b"SETRANGE", b"rest2", b"0", &forged[..1]]);
    let inverted: Vec<u8> = forged.iter().map(|byte| !byte).collect();
    both(&mut beside, &[b"SET", b"inverted", &inverted]);
    both(&mut beside, &[b"BITOP", b"NOT", b"b", b"inverted"]);
    for key in [&b"a"[..], b"s", b"rest2", b"b"] {
        both(&mut beside, &[b"GET", key]);
        both(&mut beside, &[b"STRLEN", key]);
        both(&mut beside, &[b"GETRANGE", key, b"0", b"30"]);
    }
}

#[test]
fn a_user_with_few_rights_gets_what_redis_gives_that_user() {
    let mut beside = Beside::start(EAGER);
    for client in [&mut beside.stored, &mut beside.plain] {
        client.cmd("ACL SETUSER few on >pw ~k* +strlen +append +getrange -get");
        client.cmd("ACL SETUSER scripts on >pw ~k* +@scripting +append +getrange");
        client.cmd("ACL SETUSER all on >pw ~k* +@all");
    }
    beside.same("SET k $v");
    beside.same("SET other $v");
    let mut check = |user: &str, lines: &[&str]| {
        beside.same(&format!("AUTH {user} pw"));
        for line in lines {
            beside.same(line);
        }
    };
    check("all", &["STRLEN k", "STRLEN other", "APPEND k x", "APPEND other x", "GETRANGE k 2990 -1"]);
    check(
        "scripts",
        &[
            "APPEND k x",
            "APPEND other x",
            "STRLEN k",
            "GET k",
            "SETBIT k 1 1",
            "EVAL return(1) 1 k",
            "EVAL return(1) 1 o",
        ],
    );
    check(
        "few",
        &["STRLEN k", "STRLEN other", "GET k", "APPEND k x", "APPEND other x", "GETBIT k 1", "GETRANGE k 2990 -1"],
    );
}

#[test]
fn large_strings_are_not_fetched_whole() {
    let mut beside = Beside::start(EAGER);
    let large = common::noise(1 << 20, 1);
    for client in [&mut beside.client, &mut beside.plain] {
        client.call(&[b"SET", b"k", &large]);
    }
    beside.same("STRLEN k");
    let sent = |beside: &Beside| beside.behind.info("total_net_output_bytes").parse::<u64>().expect("a number");
    let before = sent(&beside);
    for _ in 0..5 {
        beside.same("GETBIT k 77777");
        beside.same("GETRANGE k 5 9");
    }
    assert!(sent(&beside) - before < 500_000);
}

/// Scripts as programs use them: values are read, decoded, compared and extended inside Redis.
const SCRIPTS: [&str; 6] = [
    "return redis.call('GET', KEYS[1])",
    "return #redis.call('GET', KEYS[1]) .. ':' .. redis.call('STRLEN', KEYS[1])",
    "redis.call('APPEND', KEYS[1], ARGV[1]) return redis.call('GETRANGE', KEYS[1], 0, -1)",
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0",
    "return cjson.decode('[' .. string.sub(redis.call('GET', KEYS[1]), 1, 56) .. ']')[1].symbol",
    "return redis.error_reply('no')",
];

#[test]
fn scripts_read_declared_keys_as_the_client_wrote_them() {
    let mut beside = Beside::start(EAGER);
    for script in SCRIPTS {
        beside.same("SET k $v EX 1000");
        assert!(beside.is_compressed("k"));
        let sha = beside.plain.call(&[b"SCRIPT", b"LOAD", script.as_bytes()]);
        let sha = show(&sha);
        for client in [&mut beside.client, &mut beside.plain] {
            client.cmd("SCRIPT FLUSH");
        }
        let sha = sha.trim_matches('"').split("\\r\\n").nth(1).expect("a SHA").to_owned();
        beside.same(&format!("EVALSHA {sha} 1 k $v"));
        for name in [&b"EVAL"[..], b"EVAL_RO"] {
            let words: [&[u8]; 5] = [name, script.as_bytes(), b"1", b"k", &value()];
            let (got, expected) = (beside.client.call(&words), beside.plain.call(&words));
            assert_reply(&got, &expected, script);
        }
        beside.same("SET k $v EX 1000");
        beside.same(&format!("EVALSHA {sha} 1 k $v"));
        for line in ["GET k", "TTL k", "MULTI", "SET k $v", &format!("EVALSHA {sha} 1 k $v"), "GET k", "EXEC"] {
            beside.same(line);
        }
    }
}

#[test]
fn functions_read_declared_keys_as_the_client_wrote_them() {
    let mut beside = Beside::start(EAGER);
    let library = b"#!lua name=lib\nredis.register_function('grow', function(keys, args) \
        redis.call('APPEND', keys[1], args[1]) return redis.call('GET', keys[1]) end)";
    for client in [&mut beside.client, &mut beside.plain] {
        client.call(&[b"FUNCTION", b"LOAD", library]);
    }
    beside.same("SET k $v");
    for line in ["FCALL grow 1 k x", "STRLEN k", "FCALL_RO grow 1 k x", "FCALL none 1 k", "FCALL grow 1"] {
        beside.same(line);
    }
}

#[test]
fn a_string_that_was_turned_to_plain_is_not_compressed_again_soon_in_the_whole_fleet() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let yaml = EAGER.replace("plain_for: 0s", "plain_for: 1h");
    let [one, other] = [(); 2].map(|()| Shortstop::in_fleet(&redis, &nats, &yaml));
    one.wait_stat("peers", |peers| peers == 1);
    let (mut client, mut elsewhere) = (one.client(), other.client());
    let is_compressed = |key: &str| redis.client().cmd(&format!("STRLEN {key}")) != b":3000\r\n";
    for key in [&b"k"[..], b"never"] {
        client.call(&[b"SET", key, &value()]);
    }
    assert!(is_compressed("k"));
    client.cmd("SETBIT k 1 1");
    client.call(&[b"SET", b"k", &value()]);
    assert!(!is_compressed("k"), "here at once");
    wait_until("the peer knows it", || {
        elsewhere.call(&[b"SET", b"k", &value()]);
        !is_compressed("k")
    });
    elsewhere.call(&[b"SET", b"never", &value()]);
    assert!(is_compressed("never"));
}

#[test]
fn a_pipeline_with_scripts_is_executed_in_its_order() {
    let mut beside = Beside::start(EAGER);
    beside.same("SET k $v");
    let script = "return redis.call('APPEND',KEYS[1],ARGV[1])";
    let lines = ["SET k 1", &format!("EVAL {} 1 k 2", script.replace(' ', "")), "GET k"];
    let bytes = common::pipeline_of(&lines);
    let (got, expected) = (beside.client.pipeline(&bytes, 3), beside.plain.pipeline(&bytes, 3));
    assert_eq!(got, expected);
}
