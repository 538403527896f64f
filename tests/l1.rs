//! What L1 serves, for how long, and that no write through Shortstop is ever missed.
//!
//! A direct write to Redis shows where a reply came from: a single instance is not notified of it, so an entry of L1 is still
//! served.

mod common;

use std::time::{Duration, Instant};

use common::{Client, Process, Redis, Shortstop, assert_reply, bulk, noise, pipeline_of, prose, wait_until};

/// `admit_after: 1` makes the first GET fill L1, for tests that do not need the second.
const EAGER: &str = "defaults:\n  cache: { admit_after: 1 }\n";

#[test]
fn the_third_get_is_a_hit() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    proxy.wait_mode("single");
    let mut client = proxy.client();
    client.cmd("SET k value");
    for (gets, hits, misses, fills) in [(1, 0, 1, 0), (2, 0, 2, 1), (3, 1, 2, 1), (4, 2, 2, 1)] {
        assert_reply(&client.cmd("GET k"), "$5\r\nvalue\r\n", "get");
        let now = ["l1_hits", "l1_misses", "fills"].map(|name| proxy.stat(name));
        assert_eq!(now, [hits, misses, fills], "hits, misses and fills after {gets} GETs");
    }
    proxy.wait_stat("l1_entries", |entries| entries == 1);
    proxy.wait_stat("l1_bytes", |bytes| bytes >= 6);
}

#[test]
fn other_clients_and_other_workers_share_it() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    proxy.client().cmd("SET k v");
    proxy.warm(&mut proxy.client(), "k");
    redis.client().cmd("SET k around");
    let mut clients: Vec<Client> = (0..8).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_reply(&client.cmd("GET k"), "$1\r\nv\r\n", "from L1");
    }
}

#[test]
fn nothing_is_served_past_its_expiry() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    proxy.wait_mode("single");
    let (mut client, mut direct) = (proxy.client(), redis.client());
    let mut live = Vec::new();
    for i in 0..120 {
        let (key, ttl) = (format!("k{i}"), 40 + i * 5);
        direct.cmd(&format!("SET {key} v PX {ttl}"));
        live.push(key);
    }
    let before = proxy.stat("l1_hits");
    let end = Instant::now() + Duration::from_secs(20);
    while !live.is_empty() {
        assert!(Instant::now() < end, "keys that never expire: {live:?}");
        live.retain(|key| {
            let gone = direct.cmd(&format!("GET {key}")) == b"$-1\r\n";
            let served = client.cmd(&format!("GET {key}"));
            assert!(!gone || served == b"$-1\r\n", "{key} is gone in Redis and still served");
            !gone
        });
    }
    assert!(proxy.stat("l1_hits") > before, "a run without hits shows nothing");
}

#[test]
fn a_shorter_expiry_is_seen_by_the_entry() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = proxy.client();
    for command in [
        "PEXPIRE k 30",
        "EXPIRE k 0",
        "EXPIREAT k 1",
        "PEXPIREAT k 1",
        "GETEX k PX 30",
        "SET k v PX 30",
        "PSETEX k 30 v",
    ] {
        client.cmd("SET k v");
        proxy.warm(&mut client, "k");
        client.cmd(command);
        let mut direct = redis.client();
        wait_until("it expires in Redis", || direct.cmd("GET k") == b"$-1\r\n");
        assert_reply(&client.cmd("GET k"), "$-1\r\n", command);
    }
}

#[test]
fn the_ttl_of_the_rule_bounds_an_entry() {
    let redis = Redis::start();
    for yaml in
        ["defaults:\n  cache: { ttl: 150ms, admit_after: 1 }\n", "max_staleness: 150ms\ndegraded_staleness: 100ms\n"]
    {
        let proxy = Shortstop::start(&redis, yaml);
        let mut client = proxy.client();
        client.cmd("SET k old");
        proxy.warm(&mut client, "k");
        redis.client().cmd("SET k new");
        wait_until("the write around the proxy is seen", || client.cmd("GET k") == b"$3\r\nnew\r\n");
    }
}

#[test]
fn rules_say_which_keys_are_cached() {
    let redis = Redis::start();
    let yaml = r#"
defaults:
  cache: { admit_after: 1 }
rules:
  - match: "session:*"
    cache: false
  - match: "short:[ab]?"
    cache: { ttl: 1ms }
  - match: "small:*"
    cache: { max_value: 10 }
  - match: "*"
"#;
    let proxy = Shortstop::start(&redis, yaml);
    proxy.wait_mode("single");
    let mut client = proxy.client();
    for (key, value, cached) in [
        ("session:1", "v", false),
        ("session", "v", true),
        ("small:a", "0123456789", true),
        ("small:b", "0123456789+", false),
        ("short:c1", "v", true),
        ("other", "v", true),
        ("short:b", "v", true),
    ] {
        client.cmd(&format!("SET {key} {value}"));
        for _ in 0..4 {
            client.cmd(&format!("GET {key}"));
        }
        redis.client().cmd(&format!("SET {key} around"));
        let expected = if cached { value } else { "around" };
        assert_reply(&client.cmd(&format!("GET {key}")), bulk(expected.as_bytes()), key);
    }
    client.cmd("SET short:a1 v");
    client.cmd("GET short:a1");
    redis.client().cmd("SET short:a1 around");
    wait_until("a millisecond has passed", || client.cmd("GET short:a1") == b"$6\r\naround\r\n");
}

#[test]
fn with_l1_off_every_read_goes_to_redis() {
    let redis = Redis::start();
    let off = [
        ("", vec![("CACHE_ENABLED", "false")]),
        ("coherence: off\n", vec![]),
        ("l1: { enabled: false }\n", vec![]),
        ("defaults:\n  cache: false\n", vec![]),
    ];
    for (yaml, environment) in off {
        let proxy = Process::start_with(redis.addr(), yaml, &environment, &[]);
        let mut client = proxy.client();
        for i in 0..6 {
            redis.client().cmd(&format!("SET k {i}"));
            assert_reply(&client.cmd("GET k"), bulk(i.to_string().as_bytes()), "from Redis, every time");
            assert_reply(
                &client.cmd("MGET k none"),
                [&b"*2\r\n"[..], &bulk(i.to_string().as_bytes()), b"$-1\r\n"].concat(),
                "MGET too",
            );
        }
        assert_eq!(proxy.stat("l1_hits"), 0, "{yaml} {environment:?}");
    }
}

#[test]
fn mget_is_all_from_l1_or_all_from_redis() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let (mut client, mut direct) = (proxy.client(), redis.client());
    client.cmd("MSET a 1 b 2 c 3");
    direct.cmd("LPUSH list x");
    proxy.warm(&mut client, "a");
    proxy.warm(&mut client, "b");
    direct.cmd("MSET a 10 b 20 c 30");
    let before = proxy.stat("l1_hits");
    assert_reply(&client.cmd("MGET a b a"), "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n1\r\n", "all in L1");
    assert!(proxy.stat("l1_hits") > before, "that was a hit");
    // A key that is not in L1: values from two moments would be no snapshot.
    assert_reply(&client.cmd("MGET a absent b list"), "*4\r\n$2\r\n10\r\n$-1\r\n$2\r\n20\r\n$-1\r\n", "all from Redis");
    assert_reply(&client.cmd("MGET"), "-ERR wrong number of arguments for 'mget' command\r\n", "arity");
}

#[test]
fn mget_sees_all_writes_before_it() {
    const KEYS: usize = 50;
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let (mut client, mut writer) = (proxy.client(), proxy.client());
    let names: Vec<String> = (0..KEYS).map(|i| format!("k{i}")).collect();
    for round in 0..40 {
        let pairs: String = names.iter().map(|name| format!(" {name} {round}")).collect();
        writer.cmd(&format!("MSET{pairs}"));
        let expected = [format!("*{KEYS}\r\n").into_bytes(), bulk(round.to_string().as_bytes()).repeat(KEYS)].concat();
        for _ in 0..3 {
            assert_reply(&client.cmd(&format!("MGET {}", names.join(" "))), &expected, "one moment");
        }
        for name in names.iter().take(round) {
            client.cmd(&format!("GET {name}"));
        }
    }
}

#[test]
fn a_missing_key_is_remembered_if_a_rule_says_so() {
    let redis = Redis::start();
    let proxy =
        Shortstop::start(&redis, "rules:\n  - match: \"neg:*\"\n    cache: { negative_ttl: 1h, admit_after: 1 }\n");
    proxy.wait_mode("single");
    let mut client = proxy.client();
    assert_reply(&proxy.warm(&mut client, "neg:k"), "$-1\r\n", "a hit that says absent");
    redis.client().cmd("SET neg:k around");
    assert_reply(&client.cmd("GET neg:k"), "$-1\r\n", "still remembered");
    assert_reply(&client.cmd("SET neg:k v"), "+OK\r\n", "a write through the proxy");
    assert_reply(&client.cmd("GET neg:k"), "$1\r\nv\r\n", "is seen at once");
    // Other keys: nothing is remembered by default.
    for _ in 0..5 {
        assert_reply(&client.cmd("GET other"), "$-1\r\n", "absent");
    }
    redis.client().cmd("SET other v");
    assert_reply(&client.cmd("GET other"), "$1\r\nv\r\n", "seen at once");
}

#[test]
fn a_pipeline_reads_its_own_writes() {
    const ROUNDS: usize = 2_000;
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = proxy.client();
    let mut lines = Vec::new();
    let mut expected = Vec::new();
    for i in 0..ROUNDS {
        lines.extend([
            format!("SET k {i}"),
            "GET k".into(),
            "GET k".into(),
            "MGET k k".into(),
            "INCR k".into(),
            "GET k".into(),
        ]);
        let (old, new) = (bulk(i.to_string().as_bytes()), bulk((i + 1).to_string().as_bytes()));
        expected.extend([
            b"+OK\r\n".to_vec(),
            old.clone(),
            old.clone(),
            [b"*2\r\n".to_vec(), old.clone(), old].concat(),
            format!(":{}\r\n", i + 1).into_bytes(),
            new,
        ]);
    }
    let got = client.pipeline(&pipeline_of(&lines), lines.len());
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert_reply(got, expected, &format!("request {i}: {}", lines[i]));
    }
}

#[test]
fn every_client_sees_an_acknowledged_write() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut clients: Vec<Client> = (0..6).map(|_| proxy.client()).collect();
    for round in 0..300 {
        let writer = round % clients.len();
        let value = if round % 3 == 0 { prose(2_000 + round, round as u64) } else { round.to_string().into_bytes() };
        clients[writer].call(&[b"SET", b"k", &value]);
        for client in &mut clients {
            for _ in 0..2 {
                assert_reply(&client.cmd("GET k"), bulk(&value), &format!("round {round}"));
            }
        }
    }
    assert!(proxy.stat("l1_hits") > 300, "a run without hits shows nothing");
}

#[test]
fn flushing_a_database_flushes_l1() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let (mut zero, mut one) = (proxy.client(), proxy.client());
    one.cmd("SELECT 1");
    for (command, from_one, left_in_zero, left_in_one) in [
        ("FLUSHALL", false, "$-1\r\n", "$-1\r\n"),
        ("FLUSHALL ASYNC", true, "$-1\r\n", "$-1\r\n"),
        ("FLUSHDB", false, "$-1\r\n", "$1\r\n1\r\n"),
        ("FLUSHDB SYNC", true, "$1\r\n0\r\n", "$-1\r\n"),
        ("SWAPDB 0 1", false, "$1\r\n1\r\n", "$1\r\n0\r\n"),
        ("SWAPDB 1 0", true, "$1\r\n1\r\n", "$1\r\n0\r\n"),
        ("EVAL redis.call('FLUSHALL') 0", true, "$-1\r\n", "$-1\r\n"),
    ] {
        zero.cmd("SET k 0");
        one.cmd("SET k 1");
        assert_reply(&proxy.warm(&mut zero, "k"), "$1\r\n0\r\n", "database 0");
        assert_reply(&proxy.warm(&mut one, "k"), "$1\r\n1\r\n", "database 1");
        let client = if from_one { &mut one } else { &mut zero };
        client.cmd(command);
        assert_reply(&zero.cmd("GET k"), left_in_zero, &format!("{command}: database 0"));
        assert_reply(&one.cmd("GET k"), left_in_one, &format!("{command}: database 1"));
    }
}

#[test]
fn transactions_and_scripts_are_writes() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let (mut reader, mut writer) = (proxy.client(), proxy.client());
    let put = "function(keys, args) return redis.call('SET', keys[1], args[1]) end";
    let function = format!("#!lua name=lib\nredis.register_function('put', {put})");
    if redis.knows("function") {
        assert!(writer.call(&[b"FUNCTION", b"LOAD", function.as_bytes()]).starts_with(b"$"), "function load");
    }
    let loaded = writer.cmd("SCRIPT LOAD return(redis.call('SET',KEYS[1],ARGV[1]))");
    let sha = String::from_utf8_lossy(&loaded).lines().nth(1).expect("a digest").to_owned();
    let sha = format!("EVALSHA {sha} 1 k 3");
    for (i, lines) in [
        &["MULTI", "SET k 0", "EXEC"][..],
        &["WATCH other", "MULTI", "GET k", "SET k 1", "EXEC"],
        &["EVAL return(redis.call('SET',KEYS[1],ARGV[1])) 1 k 2"],
        &[&sha],
        &["FCALL put 1 k 4"],
        // The key is not declared, so it cannot be known.
        &["EVAL return(redis.call('SET','k','5')) 0"],
        &["MULTI", "EVAL return(redis.call('SET','k','6')) 0", "EXEC"],
        &["SELECT 5", "MULTI", "SELECT 0", "SET k 7", "EXEC", "SELECT 0"],
        &["MULTI", "FLUSHALL", "SET k 8", "EXEC"],
    ]
    .iter()
    .enumerate()
    {
        if lines[0].starts_with("FCALL") && !redis.knows("fcall") {
            continue;
        }
        reader.cmd("SET k before");
        assert_reply(&proxy.warm(&mut reader, "k"), "$6\r\nbefore\r\n", "warm");
        writer.pipeline(&pipeline_of(lines), lines.len());
        assert_reply(&reader.cmd("GET k"), bulk(i.to_string().as_bytes()), &format!("{lines:?}"));
    }
}

#[test]
fn a_transaction_reads_only_from_redis() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = proxy.client();
    client.cmd("SET k old");
    proxy.warm(&mut client, "k");
    redis.client().cmd("SET k new");
    let got = client.pipeline(&pipeline_of(&["MULTI", "GET k", "MGET k", "EXEC"]), 4).concat();
    assert_reply(&got, "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$3\r\nnew\r\n*1\r\n$3\r\nnew\r\n", "queued, and from Redis");
}

#[test]
fn databases_are_apart() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = proxy.client();
    for db in [0, 1, 7] {
        client.cmd(&format!("SELECT {db}"));
        client.cmd(&format!("SET k {db}"));
        proxy.warm(&mut client, "k");
    }
    client.cmd("SELECT 1");
    client.cmd("SET k changed");
    for (db, value) in [(0, "0"), (1, "changed"), (7, "7")] {
        client.cmd(&format!("SELECT {db}"));
        assert_reply(&client.cmd("GET k"), bulk(value.as_bytes()), &format!("database {db}"));
    }
    for (command, db) in [("MOVE k 9", 9), ("COPY k k DB 9 REPLACE", 9)] {
        client.cmd("SELECT 9");
        client.cmd("DEL k");
        client.cmd("SELECT 1");
        client.cmd("SET k travels");
        client.cmd(&format!("SELECT {db}"));
        client.cmd("GET k");
        client.cmd("SELECT 1");
        proxy.warm(&mut client, "k");
        assert_reply(&client.cmd(command), ":1\r\n", command);
        client.cmd(&format!("SELECT {db}"));
        assert_reply(&client.cmd("GET k"), bulk(b"travels"), command);
        client.cmd("SELECT 1");
        assert_reply(&client.cmd("GET k"), redis_get(&redis, 1), command);
    }
}

fn redis_get(redis: &Redis, db: u32) -> Vec<u8> {
    let mut direct = redis.client();
    direct.cmd(&format!("SELECT {db}"));
    direct.cmd("GET k")
}

#[test]
fn errors_and_other_types_are_not_cached() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = proxy.client();
    client.cmd("RPUSH k a");
    for _ in 0..4 {
        assert!(client.cmd("GET k").starts_with(b"-WRONGTYPE"), "a list is no string");
    }
    redis.client().cmd("DEL k");
    redis.client().cmd("SET k v");
    assert_reply(&client.cmd("GET k"), "$1\r\nv\r\n", "seen at once");
}

#[test]
fn entries_and_bytes_are_bounded() {
    let redis = Redis::start();
    for policy in ["tinylfu", "lru"] {
        for (bound, length) in [("max_entries: 50", 10), ("max_memory: 200kb", 10_000)] {
            let proxy =
                Shortstop::start(&redis, &format!("l1: {{ {bound}, policy: {policy}, hot_entries: 16 }}\n{EAGER}"));
            proxy.wait_mode("single");
            let mut client = proxy.client();
            for i in 0..500_u64 {
                let (key, value) = (format!("k{i}"), noise(length, i));
                client.call(&[b"SET", key.as_bytes(), &value]);
                for _ in 0..3 {
                    assert_reply(&client.call(&[b"GET", key.as_bytes()]), bulk(&value), "right, kept or not");
                }
            }
            proxy.wait_stat("l1_entries", |entries| entries <= 50);
            proxy.wait_stat("l1_bytes", |bytes| bytes <= 200 * 1024);
            proxy.wait_stat("l1_evictions", |evictions| evictions > 0);
        }
    }
}

#[test]
fn proxy_flush_drops_everything() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = proxy.client();
    client.cmd("SET k old");
    proxy.warm(&mut client, "k");
    redis.client().cmd("SET k new");
    assert_reply(&client.cmd("GET k"), "$3\r\nold\r\n", "from L1");
    assert_reply(&client.cmd("PROXY FLUSH"), "+OK\r\n", "flush");
    assert_reply(&client.cmd("GET k"), "$3\r\nnew\r\n", "from Redis");
    assert!(client.cmd("PROXY FLUSH far too much").starts_with(b"-ERR wrong number of arguments"), "arity");
}

/// Redis checks whether the client may flush. Requests behind the flush in the same packet wait for that.
#[test]
fn a_read_behind_a_flush_in_one_packet_gets_no_older_entry() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "rules:\n  - match: \"*\"\n    cache: { admit_after: 1, reads: all }\n");
    let mut client = proxy.client();
    let mut direct = redis.client();
    client.cmd("SET other 1");
    for (round, behind) in
        [&["GET k"][..], &["MGET k k"], &["STRLEN k"], &["GET other", "GET k"], &["PROXY HELP", "GET k"]]
            .iter()
            .enumerate()
    {
        let (old, new) = (vec![b'o'; 10 + round], vec![b'n'; 50 + round]);
        client.fill("SET k $1", &[&old]);
        for line in *behind {
            if !line.starts_with("PROXY") {
                proxy.warm_line(&mut client, line);
            }
        }
        direct.fill("SET k $1", &[&new]);
        for flush in ["PROXY FLUSH", "proxy flush"] {
            let lines: Vec<&str> = [flush].iter().chain(*behind).copied().collect();
            let replies = client.pipeline(&pipeline_of(&lines), lines.len());
            assert_reply(&replies[0], "+OK\r\n", flush);
            let expected = match *behind.last().expect("there are some") {
                "STRLEN k" => format!(":{}\r\n", new.len()).into_bytes(),
                "MGET k k" => [&b"*2\r\n"[..], &bulk(&new), &bulk(&new)].concat(),
                _ => bulk(&new),
            };
            assert_reply(replies.last().expect("as many as lines"), &expected, &lines.join(", "));
        }
    }
}

/// A command that flushes L1 also does so for requests behind it in the same packet.
#[test]
fn a_read_behind_a_flushing_command_in_one_packet_sees_its_effect() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = proxy.client();
    for flush in ["FLUSHALL", "FLUSHDB", "SWAPDB 0 5", "EVAL redis.call('DEL','k') 0", "CONFIG SET hz 20"] {
        client.cmd("SET k old");
        proxy.warm(&mut client, "k");
        redis.client().cmd("DEL k");
        let replies = client.pipeline(&pipeline_of(&["GET k", flush, "GET k", "GET k"]), 4);
        assert_reply(&replies[0], "$3\r\nold\r\n", "from L1");
        assert_reply(&replies[2], "$-1\r\n", flush);
        assert_reply(&replies[3], "$-1\r\n", flush);
    }
}

#[test]
fn every_length_is_served_alike() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = proxy.client();
    // Around hot_max_value (1 KiB), offload_above (64 KiB) and max_value (1 MiB).
    for length in [0, 1, 1_000, 1_023, 1_024, 1_025, 65_535, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 3 << 20] {
        for value in [noise(length, 7), prose(length, 7)] {
            client.call(&[b"SET", b"k", &value]);
            for round in 0..4 {
                assert_reply(&client.cmd("GET k"), bulk(&value), &format!("{length} bytes, read {round}"));
            }
        }
    }
}
