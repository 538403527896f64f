//! Values are stored in Redis as standard gzip and returned as the client stored them.
//!
//! The stored value is read directly from Redis, and decompressed with the system's own `gzip`.

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use shortstop::codec::MARK;

use common::{
    Client, PATIENCE, Process, Redis, Shortstop, assert_our_error, assert_reply, bulk, field, filled, noise,
    pipeline_of, prose, show, wait_until, wait_within, warm_request,
};

/// Nothing from L1: every read goes to Redis, so every read decompresses an envelope.
const UNCACHED: &str = "defaults:\n  cache: false\n";

/// gzip, deflate, and the flag for an extra field (RFC 1952, 2.3).
const GZIP_WITH_EXTRA: &[u8] = &[0x1f, 0x8b, 8, 4];

fn stored(redis: &Redis, key: &str) -> Vec<u8> {
    let reply = redis.client().cmd(&format!("GET {key}"));
    let head = reply.windows(2).position(|pair| pair == b"\r\n").expect("a bulk string") + 2;
    assert!(reply.len() > head, "{key} is not there");
    reply[head..reply.len() - 2].to_vec()
}

/// The text that gzip decompresses it to. `None` if it refuses.
fn gunzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new("gzip")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("gzip is there");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = bytes.to_vec();
    // Concurrently with the read, so that neither pipe can fill up. If gzip refuses, it closes the pipe early.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("gzip ends");
    writer.join().expect("the writer does not panic");
    output.status.success().then_some(output.stdout)
}

#[track_caller]
fn assert_compressed(redis: &Redis, key: &str, value: &[u8]) {
    let stored = stored(redis, key);
    assert!(stored.starts_with(GZIP_WITH_EXTRA), "{key} is stored as {}", show(&stored));
    assert_eq!(&stored[12..14], b"Ss", "the subfield that is Shortstop's mark");
    assert!(gunzip(&stored).is_some_and(|opened| opened == value), "gzip -d opens {key}");
}

#[test]
fn every_storing_command_compresses() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, UNCACHED);
    let mut client = proxy.client();
    let (v, w) = (&prose(4_000, 1)[..], &prose(5_000, 2)[..]);
    let cases = [
        ("SET k $1", "+OK\r\n"),
        ("SET k $1 EX 100", "+OK\r\n"),
        ("SET k $1 NX", "+OK\r\n"),
        ("SET k $1 PX 100000 GET", "$-1\r\n"),
        ("SETEX k 100 $1", "+OK\r\n"),
        ("PSETEX k 100000 $1", "+OK\r\n"),
        ("SETNX k $1", ":1\r\n"),
        ("MSET k $1 k2 $2", "+OK\r\n"),
        ("MSETNX k $1 k2 $2", ":1\r\n"),
        ("GETSET k $1", "$-1\r\n"),
        ("set k $1 keepttl", "+OK\r\n"),
        ("MSETEX 2 k $1 k2 $2 EX 100", ":1\r\n"),
    ];
    for (line, expected) in cases {
        if line.starts_with("MSETEX") && !redis.knows("msetex") {
            continue;
        }
        client.cmd("DEL k k2");
        assert_reply(&client.fill(line, &[v, w]), expected, line);
        assert_compressed(&redis, "k", v);
        assert_reply(&client.cmd("GET k"), bulk(v), line);
        if line.contains("k2") {
            assert_compressed(&redis, "k2", w);
            assert_reply(&client.cmd("GET k2"), bulk(w), "the second one");
        }
    }
    assert!(proxy.stat("compressed_values") >= 13, "counted");
    assert!(proxy.stat("compression_saved_bytes") > 13 * 1_000, "and worth it");
}

#[test]
fn every_reading_command_decompresses() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, UNCACHED);
    let mut client = proxy.client();
    let (v, w) = (&prose(4_000, 3)[..], &prose(3_000, 4)[..]);
    let cases = [
        ("GET k", bulk(v)),
        ("MGET k none raw k", [&b"*4\r\n"[..], &bulk(v), b"$-1\r\n", &bulk(b"small"), &bulk(v)].concat()),
        ("GETSET k $2", bulk(v)),
        ("GETSET k small", bulk(v)),
        ("GETDEL k", bulk(v)),
        ("GETEX k", bulk(v)),
        ("GETEX k EX 100", bulk(v)),
        ("SET k $2 GET", bulk(v)),
        ("SET k small GET", bulk(v)),
        ("SET k $2 XX GET EX 100", bulk(v)),
        ("get k", bulk(v)),
    ];
    for (line, expected) in cases {
        client.fill("MSET k $1 raw small", &[v]);
        assert_compressed(&redis, "k", v);
        assert_reply(&client.fill(line, &[v, w]), expected, line);
    }
}

#[test]
fn transactions_compress_and_decompress() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    let (v, w) = (&prose(4_000, 5)[..], &prose(100_000, 6)[..]);
    let lines = [
        "MULTI",
        "SET k $1",
        "GET k",
        "GETSET k $2",
        "MGET k none",
        "LPUSH list $1",
        "LINDEX list 0",
        "GETDEL k",
        "SET k $1",
        "EXEC",
        "GET k",
    ];
    let requests: Vec<u8> = lines.iter().flat_map(|line| filled(line, &[v, w])).collect();
    let got = client.pipeline(&requests, lines.len());
    let expected = [
        &b"*8\r\n+OK\r\n"[..],
        &bulk(v),
        &bulk(v),
        b"*2\r\n",
        &bulk(w),
        b"$-1\r\n:1\r\n",
        &bulk(v),
        &bulk(w),
        b"+OK\r\n",
    ]
    .concat();
    assert_reply(&got[9], expected, "EXEC");
    assert_reply(&got[10], bulk(v), "afterwards");
    assert_compressed(&redis, "k", v);
}

#[test]
fn values_that_do_not_shrink_are_stored_uncompressed() {
    let redis = Redis::start();
    let yaml = r#"
rules:
  - match: "raw:*"
    compress: false
  - match: "tiny:*"
    compress: { min_size: 10 }
  - match: "greedy:*"
    compress: { min_saving: 99% }
"#;
    let proxy = Shortstop::start(&redis, yaml);
    let mut client = proxy.client();
    for (key, value, sealed) in [
        ("small", prose(1_023, 7), false),
        ("enough", prose(1_024, 7), true),
        ("noise", noise(50_000, 7), false),
        ("raw:k", prose(50_000, 7), false),
        ("tiny:k", vec![b'a'; 300], true),
        ("greedy:k", prose(3_000, 7), false),
        ("huge", prose(2_000_000, 7), true),
        ("empty", Vec::new(), false),
    ] {
        for _ in 0..2 {
            client.call(&[b"SET", key.as_bytes(), &value]);
            if sealed {
                assert_compressed(&redis, key, &value);
            } else {
                assert_reply(&redis.client().cmd(&format!("GET {key}")), bulk(&value), &format!("{key} is raw"));
            }
            for _ in 0..4 {
                assert_reply(&client.cmd(&format!("GET {key}")), bulk(&value), key);
            }
        }
    }
}

#[test]
fn with_compression_off_values_are_still_decompressed() {
    let redis = Redis::start();
    let value = prose(5_000, 8);
    Shortstop::start(&redis, "").client().call(&[b"SET", b"k", &value]);
    assert_compressed(&redis, "k", &value);
    for yaml in ["compression: false\n", "defaults:\n  compress: false\n"] {
        let proxy = Shortstop::start(&redis, yaml);
        let mut client = proxy.client();
        for _ in 0..4 {
            assert_reply(&client.cmd("GET k"), bulk(&value), "what is sealed is opened");
        }
        client.call(&[b"SET", b"other", &value]);
        assert_reply(&redis.client().cmd("GET other"), bulk(&value), "and nothing is sealed");
    }
}

/// Commands on strings, and what Redis answers when `k` is a plain value of 4,000 bytes and `l` a list of one 1.
const ON_STRINGS: [(&str, &str); 6] = [
    ("STRLEN k", ":4000\r\n"),
    ("SETRANGE k 10 x", ":4000\r\n"),
    ("APPEND k x", ":4001\r\n"),
    ("BITFIELD k SET u8 0 0", "*1\r\n"),
    ("BITOP NOT dest k", ":4001\r\n"),
    ("SORT l BY nosort GET k* STORE dest", ":1\r\n"),
];

#[test]
fn with_compression_off_commands_on_strings_go_to_redis_as_they_are() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "compression: on\n");
    let mut client = proxy.client();
    client.cmd("RPUSH l 1");
    let scripts =
        || ["cmdstat_eval", "cmdstat_evalsha"].map(|name| field(&redis.client().cmd("INFO commandstats"), name));
    // The mode changes while it runs.
    for mode in ["read", "off", "on", "off"] {
        let set = client.cmd(&format!("PROXY CONFIG SET compression {mode}"));
        assert!(!set.starts_with(b"-"), "{}", show(&set));
        assert_eq!(field(&client.cmd("PROXY INFO compression"), "compression_mode").as_deref(), Some(mode));
        // Not compressible, so that no mode refuses a command.
        client.call(&[b"SET", b"k", &noise(4_000, 3)]);
        let before = scripts();
        for (line, expected) in ON_STRINGS {
            let got = client.cmd(line);
            assert!(got.starts_with(expected.as_bytes()), "{mode}: {line}: {}", show(&got));
        }
        let got = client.pipeline(&pipeline_of(&["MULTI", "APPEND k x", "EXEC"]), 3);
        assert_reply(&got[2], "*1\r\n:4002\r\n", mode);
        assert_eq!(scripts() == before, mode == "off", "{mode}: no script runs");
    }
}

#[test]
fn the_first_compressed_value_that_should_not_be_there_ends_off_until_the_restart() {
    let redis = Redis::start();
    let value = prose(4_000, 9);
    Shortstop::start(&redis, "").client().call(&[b"SET", b"k", &value]);
    let reads: [&[&str]; 4] = [&["GET k"], &["MGET other k"], &["GETEX k PERSIST"], &["MULTI", "GET k", "EXEC"]];
    for lines in reads {
        let proxy =
            Process::start(redis.addr(), "compression: off\ndefaults: { cache: { reads: all, admit_after: 1 } }\n");
        let mut client = proxy.client();
        // What a false word costs: the length of the compressed bytes, also from L1.
        assert_ne!(warm_request(proxy.addr(), &mut client, &[b"STRLEN", b"k"]), b":4000\r\n");
        assert_eq!(proxy.stat("compressed_while_off"), 0);
        let got = client.pipeline(&pipeline_of(lines), lines.len()).concat();
        assert!(got.windows(value.len()).any(|window| window == value), "{lines:?}: it is decompressed");
        assert_eq!(proxy.stat("compressed_while_off"), 1, "{lines:?}");
        for set in [false, true] {
            if set {
                client.cmd("PROXY CONFIG SET compression off");
            }
            assert_eq!(field(&client.cmd("PROXY INFO"), "compression_mode").as_deref(), Some("read"), "{lines:?}");
            assert_reply(&client.cmd("STRLEN k"), ":4000\r\n", "as with read");
            assert_reply(&client.cmd("GETRANGE k 0 3"), bulk(&value[..4]), "as with read");
        }
        assert_reply(&client.cmd("GET k"), bulk(&value), "nothing was changed");
        let events = client.cmd("PROXY EVENTS");
        assert!(events.windows(14).any(|window| window == b"compressed_met"), "{}", show(&events));
        let log = proxy.log();
        assert_eq!(log.matches("Redis has a compressed value although compression is off").count(), 1, "{log}");
    }
}

#[test]
fn with_compression_off_no_client_stores_what_looks_compressed() {
    let redis = Redis::start();
    Shortstop::start(&redis, "").client().call(&[b"SET", b"k", &prose(4_000, 9)]);
    let envelope = stored(&redis, "k");
    let proxy = Shortstop::start(&redis, "compression: off\n");
    let mut client = proxy.client();
    client.cmd("DEL k");
    for value in [&envelope[..], &MARK] {
        for line in ["SET k $1", "MSET a 1 k $1", "GETSET k $1", "SETEX k 10 $1", "APPEND k $1", "SETRANGE k 0 $1"] {
            assert_our_error(&client.fill(line, &[value]), line);
            let transaction = [pipeline_of(&["MULTI"]), filled(line, &[value]), pipeline_of(&["EXEC"])].concat();
            let last = client.pipeline(&transaction, 3).pop().expect("three replies");
            let is_refused = last.starts_with(b"-EXECABORT") || last.starts_with(b"*1\r\n-ERR shortstop: ");
            assert!(is_refused, "MULTI, {line}: {}", show(&last));
            assert_reply(&client.cmd("EXISTS k a"), ":0\r\n", line);
        }
    }
    // Gzip of others is not meant.
    let foreign = stored_by_gzip(&prose(4_000, 9));
    client.fill("SET k $1", &[&foreign]);
    assert_reply(&client.cmd("GET k"), bulk(&foreign), "a client's own gzip");
    assert_eq!(proxy.stat("compressed_while_off"), 0);
}

#[test]
fn clients_that_use_redis_directly_are_counted_and_named_once() {
    const WARNING: &str = "clients are connected to Redis directly while values are compressed";
    let redis = Redis::start();
    let mut direct = redis.client();
    direct.cmd("CLIENT SETNAME app");
    direct.cmd("ACL SETUSER bob on >pw ~* +get +multi");
    let (on, read) = (Process::start(redis.addr(), ""), Process::start(redis.addr(), "compression: read\n"));
    // The connections of a user with few rights have a name too.
    let mut bob = on.client();
    bob.pipeline(&pipeline_of(&["AUTH bob pw", "GET k", "MULTI"]), 3);
    let number = |proxy: &Process| field(&proxy.client().cmd("PROXY INFO compression"), "direct_clients");
    for proxy in [&on, &read] {
        // A list every ten seconds, in which connections of the last second do not count.
        wait_within(PATIENCE * 4, "it is counted", || number(proxy).as_deref() == Some("1"));
    }
    wait_until("the warning", || on.log().contains(WARNING));
    assert!(!read.log().contains(WARNING), "nothing is compressed");
    // It goes with the client.
    drop(direct);
    wait_within(PATIENCE * 4, "it is gone", || number(&on).as_deref() == Some("0"));
    let log = on.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(WARNING)).collect();
    assert!(lines.len() == 1 && lines[0].contains("number=1") && lines[0].contains("compression: read"), "{lines:?}");
}

#[test]
fn a_client_may_store_envelopes() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    client.call(&[b"SET", b"k", &prose(4_000, 9)]);
    let envelope = stored(&redis, "k");
    let foreign = stored_by_gzip(&prose(4_000, 9));
    // The envelope itself, prefixes of it, bytes behind it, and a client's own gzip file.
    let mut values = vec![envelope.clone(), [&envelope[..], b"more"].concat(), foreign];
    values.extend((1..40).map(|length| envelope[..length].to_vec()));
    for (yaml, allowed) in
        [("", true), ("compression: false\n", false), ("rules:\n  - match: \"*\"\n    compress: false\n", false)]
    {
        let proxy = Shortstop::start(&redis, yaml);
        let mut client = proxy.client();
        for value in &values {
            for line in ["SET mine $1", "MSET a 1 mine $1", "GETSET mine $1"] {
                client.fill(line, &[value]);
                for _ in 0..4 {
                    assert_reply(
                        &client.cmd("GET mine"),
                        bulk(value),
                        &format!("{yaml:?} (sealing allowed: {allowed})"),
                    );
                }
            }
        }
    }
}

/// A value that a client made with a gzip library: the same format, without the mark.
fn stored_by_gzip(value: &[u8]) -> Vec<u8> {
    let mut encoder =
        flate2::GzBuilder::new().extra(b"Xx\x01\x00z".to_vec()).write(Vec::new(), flate2::Compression::default());
    encoder.write_all(value).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

#[test]
fn a_damaged_envelope_is_an_error_and_never_raw_bytes() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "limits: { max_inflated: 100kb }\n");
    let (mut client, mut direct) = (proxy.client(), redis.client());
    client.call(&[b"SET", b"k", &prose(4_000, 10)]);
    let good = stored(&redis, "k");
    let end = good.len();
    let flipped = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        bad
    };
    let larger = {
        // Larger than max_inflated: intact, and still refused.
        let other = Shortstop::start(&redis, "");
        other.client().call(&[b"SET", b"k", &prose(150_000, 10)]);
        stored(&redis, "k")
    };
    let lying = [&good[..end - 4], &u32::MAX.to_le_bytes()].concat();
    let damaged = [
        ("a bit of the data", flipped(end / 2)),
        ("a bit of the checksum", flipped(end - 6)),
        ("a bit of the length", flipped(end - 4)),
        ("cut in the trailer", good[..end - 3].to_vec()),
        ("cut in the data", good[..end / 2].to_vec()),
        ("cut behind the mark", good[..40].to_vec()),
        ("bytes behind it", [&good[..], b"x"].concat()),
        ("a second member", good.repeat(2)),
        ("a length that lies", lying),
        ("more than is allowed", larger),
    ];
    for (what, bytes) in damaged {
        for line in ["GET k", "GETEX k PERSIST", "GETDEL k", "GETSET k new", "SET k new GET"] {
            assert_reply(&direct.fill("SET k $1", &[&bytes]), "+OK\r\n", "damage");
            client.cmd("PROXY FLUSH");
            for _ in 0..if line == "GET k" { 4 } else { 1 } {
                assert_our_error(&client.cmd(line), &format!("{what}: {line}"));
            }
        }
        direct.fill("SET k $1", &[&bytes]);
        direct.cmd("SET fine here");
        for lines in [&["MGET fine k"][..], &["MULTI", "GET k", "GET fine", "EXEC"]] {
            let got = client.pipeline(&pipeline_of(lines), lines.len()).concat();
            assert!(got.windows(16).any(|window| window == b"-ERR shortstop: "), "{what}: {lines:?}: {}", show(&got));
            assert!(
                !got.windows(20).any(|window| window == &bytes[..20]),
                "{what}: raw bytes came through: {}",
                show(&got)
            );
        }
        // Other keys are not affected.
        assert_reply(&client.cmd("GET fine"), "$4\r\nhere\r\n", "another key");
        assert_reply(&client.cmd("SET k healed"), "+OK\r\n", "and it can be written anew");
        assert_reply(&client.cmd("GET k"), "$6\r\nhealed\r\n", "healed");
    }
}

/// Commands that read or change a part of a string, on the key `k`.
const PEEKS: &[&str] = &[
    "APPEND k x",
    "STRLEN k",
    "GETRANGE k 0 9",
    "SUBSTR k 0 9",
    "SETRANGE k 3 x",
    "GETBIT k 9",
    "SETBIT k 9 1",
    "BITCOUNT k",
    "BITCOUNT k 0 5",
    "BITPOS k 1",
    "BITFIELD k GET u8 0",
    "BITFIELD k SET u8 0 65",
    "BITFIELD_RO k GET u8 0",
    "BITOP NOT dest k",
    "BITOP AND dest other k",
    "LCS k other",
    "LCS other k LEN",
    // Redis 6, Redis 8.4, Valkey 9.
    "STRALGO LCS KEYS k other",
    "DELEX k IFEQ other",
    "DIGEST k",
    "DELIFEQ k other",
];

/// The subset that this server has.
fn peeks(redis: &Redis) -> impl Iterator<Item = &'static str> {
    PEEKS.iter().copied().filter(|line| redis.knows(line.split(' ').next().expect("a name")))
}

#[test]
fn commands_on_a_part_of_a_compressed_string_answer_as_redis_does() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "plain_for: 0s\n");
    let value = prose(4_000, 11);
    for version in [2, 3] {
        let (mut direct, mut through) = (reference.client().speaking(version), proxy.client().speaking(version));
        for line in peeks(&redis) {
            for in_multi in [false, true] {
                let lines = if in_multi { vec!["MULTI", line, "EXEC"] } else { vec![line] };
                let [expected, got] = [&mut direct, &mut through].map(|client| {
                    client.cmd("DEL dest");
                    client.call(&[b"MSET", b"k", &value, b"other", b"small"]);
                    client.cmd("EXPIRE k 1000");
                    let replies = client.pipeline(&pipeline_of(&lines), lines.len());
                    let after = ["GET k", "GET other", "GET dest", "TTL k"].map(|line| client.cmd(line));
                    [replies.concat(), after.concat()].concat()
                });
                assert_reply(&got, &expected, &format!("RESP{version}: {lines:?}"));
            }
        }
        // Redis's own error: an envelope is no number either.
        for line in ["INCR k", "INCRBYFLOAT k 1"] {
            through.call(&[b"SET", b"k", &value]);
            assert!(through.cmd(line).starts_with(b"-ERR "), "{line}");
            assert_reply(&through.cmd("GET k"), bulk(&value), line);
            assert_compressed(&redis, "k", &value);
        }
    }
}

/// It copies and compares strings inside Redis.
#[test]
fn sort_stores_and_compares_strings_as_redis_does() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "plain_for: 0s\n");
    let value = prose(4_000, 12);
    for version in [2, 3] {
        let (mut direct, mut through) = (reference.client().speaking(version), proxy.client().speaking(version));
        for client in [&mut direct, &mut through] {
            client.cmd("FLUSHALL");
            client.cmd("MSET w1 one w2 two w4 four");
            client.cmd("HSET h1 f x");
            client.call(&[b"HSET", b"h2", b"f", &MARK]);
            client.cmd("RPUSH l 3 1 2");
            client.call(&[b"RPUSH", b"m", &MARK]);
            client.cmd("RPUSH d before");
        }
        for line in [
            "SORT l GET w* STORE d",
            "SORT l GET # GET w* GET h*->f LIMIT 0 2 DESC STORE d",
            "sort l by nosort get w* store d",
            "SORT m BY nosort GET # GET w* STORE d",
            "SORT l BY w* ALPHA GET w* STORE d",
            "SORT l BY h*->f ALPHA STORE d",
            "SORT l BY w* ALPHA",
            "SORT_RO l LIMIT 0 2 ALPHA DESC BY w* GET # GET w*",
            "SORT none GET w* STORE d",
            "SORT l GET w* STORE l",
            "SORT w1 GET w* STORE d",
            "SORT l GET w* STORE",
            "SORT l GET w* STORE d WHAT",
            "SORT l BY STORE GET w*",
        ] {
            let lines =
                ["DEL d", line, "LRANGE d 0 -1", "MULTI", "DEL d", line, "EXEC", "LRANGE d 0 -1", "LRANGE l 0 -1"];
            let [expected, got] = [&mut direct, &mut through].map(|client| client.pipeline(&pipeline_of(&lines), 9));
            assert_reply(&got.concat(), expected.concat(), &format!("RESP{version}: {line}"));
            for client in [&mut direct, &mut through] {
                client.pipeline(&pipeline_of(&["DEL l", "RPUSH l 3 1 2"]), 2);
            }
        }
        for line in [
            "SORT l GET w* GET # STORE d",
            "SORT l GET w* LIMIT 0 1 STORE d",
            "SORT l BY w* ALPHA GET w* STORE d",
            "SORT l BY w* ALPHA LIMIT 0 1",
            "SORT l BY w* LIMIT 5 1",
        ] {
            for lines in [vec![line, "LRANGE d 0 -1"], vec!["MULTI", line, "EXEC", "LRANGE d 0 -1"]] {
                let [expected, got] = [&mut direct, &mut through].map(|client| {
                    client.call(&[b"SET", b"w2", &value]);
                    client.pipeline(&pipeline_of(&lines), lines.len()).concat()
                });
                assert_reply(&got, &expected, &format!("RESP{version}: {lines:?}"));
            }
        }
    }
}

/// Valkey 8.1, Redis 8.4: a SET that compares the stored value with an argument.
#[test]
fn a_set_that_compares_uses_the_value_that_the_client_stored() {
    let (reference, redis) = (Redis::start(), Redis::start());
    reference.client().cmd("SET k old");
    if reference.client().cmd("SET k new IFEQ old") != b"+OK\r\n" {
        eprintln!("skipped: this server's SET does not compare");
        return;
    }
    let proxy = Shortstop::start(&redis, "");
    let (small, large, other) = (&b"small"[..], &prose(4_000, 31)[..], &prose(5_000, 32)[..]);
    for version in [2, 3] {
        let (mut direct, mut through) = (reference.client().speaking(version), proxy.client().speaking(version));
        // No value; uncompressed before and after, with the old value and without; each also in a transaction.
        for (before, line) in [
            (None, "SET k $1 IFEQ $2"),
            (None, "SET k $1 GET IFEQ $2"),
            (Some(small), "SET k $2 IFEQ $1"),
            (Some(small), "SET k $2 IFEQ $1 GET"),
            (Some(small), "set k $1 ifeq $2 get"),
            (Some(small), "SET k $2 EX 100 IFEQ $1"),
            (Some(small), "SET k $1 IFEQ"),
            (Some(small), "SET k $2 IFNE $1"),
            (Some(small), "SET k $2 IFDEQ $1"),
        ] {
            let values = [small, large];
            let transaction =
                [&pipeline_of(&["MULTI"]), &filled(line, &values)[..], &pipeline_of(&["EXEC", "GET k"])].concat();
            for (bytes, count) in [([filled(line, &values), pipeline_of(&["GET k"])].concat(), 2), (transaction, 4)] {
                let [expected, got] = [&mut direct, &mut through].map(|client| {
                    client.cmd("DEL k");
                    if let Some(before) = before {
                        client.call(&[b"SET", b"k", before]);
                    }
                    client.cmd("GET k");
                    client.pipeline(&bytes, count).concat()
                });
                assert_reply(&got, expected, &format!("RESP{version}: {line}"));
            }
        }
    }
    // A compressed value cannot be compared, and stays unchanged.
    let mut client = proxy.client();
    client.call(&[b"SET", b"k", large]);
    assert_our_error(&client.fill("SET k $2 IFEQ $1", &[large, other]), "compressed");
    assert_reply(&client.cmd("GET k"), bulk(large), "as it was");
    // Nor is a value stored that would be decompressed when it is read.
    client.cmd("SET k small");
    let mark = stored_by(&redis, &mut client, large);
    assert_our_error(&client.fill("SET k $1 IFEQ small", &[&mark]), "looks compressed");
    assert_reply(&client.cmd("GET k"), "$5\r\nsmall\r\n", "as it was");
}

/// What Redis stores when a client stores this.
fn stored_by(redis: &Redis, client: &mut Client, value: &[u8]) -> Vec<u8> {
    client.call(&[b"SET", b"somewhere", value]);
    assert_compressed(redis, "somewhere", value);
    stored(redis, "somewhere")
}

#[test]
fn commands_on_a_part_of_an_uncompressed_string_are_exact() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "");
    let (mut direct, mut through) = (reference.client(), proxy.client());
    for value in [b"".to_vec(), b"small".to_vec(), noise(9_000, 12), noise(200_000, 13)] {
        for line in peeks(&redis) {
            for client in [&mut direct, &mut through] {
                client.call(&[b"MSET", b"k", &value, b"other", b"small"]);
                client.cmd("GET k");
            }
            // LCS of large values takes Redis long, and tests nothing of Shortstop.
            if line.contains("LCS") && value.len() > 100 {
                continue;
            }
            for round in 0..3 {
                assert_reply(&through.cmd(line), direct.cmd(line), &format!("{line}, time {round}"));
                for key in ["k", "dest"] {
                    assert_reply(
                        &through.cmd(&format!("GET {key}")),
                        direct.cmd(&format!("GET {key}")),
                        &format!("{line}, time {round}: {key}"),
                    );
                }
            }
        }
    }
    for lines in [
        &["DEL k", "APPEND k a", "APPEND k b", "STRLEN k", "GET k"][..],
        &["DEL k", "SETRANGE k 5 x", "STRLEN k"],
        &["DEL k", "LPUSH k a", "STRLEN k", "APPEND k x"],
        &["DEL k", "STRLEN k", "GETRANGE k 0 -1"],
        &["SET k 1", "INCRBYFLOAT k 0.5", "GET k"],
        &["APPEND k", "STRLEN", "SETBIT k x 1", "BITFIELD k BOGUS", "BITCOUNT k 0"],
    ] {
        let bytes = pipeline_of(lines);
        let (expected, got) = (direct.pipeline(&bytes, lines.len()), through.pipeline(&bytes, lines.len()));
        assert_reply(&got.concat(), expected.concat(), &format!("{lines:?}"));
    }
}

#[test]
fn a_hyperloglog_stays_what_it_is() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "rules:\n  - match: \"*\"\n    compress: { min_size: 1 }\n");
    let (mut direct, mut through) = (reference.client(), proxy.client());
    for client in [&mut direct, &mut through] {
        for i in 0..2_000 {
            client.cmd(&format!("PFADD hll {i}"));
        }
    }
    let expected = direct.cmd("PFCOUNT hll");
    assert_reply(&through.cmd("PFCOUNT hll"), &expected, "counted");
    let value = stored(&redis, "hll");
    assert_reply(&through.cmd("GET hll"), bulk(&value), "read as bytes");
    // Saved and restored, as by a backup.
    through.call(&[b"SET", b"copy", &value]);
    assert_reply(&through.cmd("PFCOUNT copy"), expected, "and still one");
}

#[test]
fn replies_with_large_values_keep_their_order() {
    const ROUNDS: usize = 12;
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    let mut requests = Vec::new();
    let mut expected = Vec::new();
    for i in 0..ROUNDS {
        // Compressed and decompressed on another thread, while other requests are answered at once.
        let large = prose(1_000_000 + i, i as u64);
        let echo = i.to_string();
        let (large_reply, echo_reply) = (bulk(&large), bulk(echo.as_bytes()));
        for (line, reply) in [
            ("SET big $1", b"+OK\r\n".to_vec()),
            ("GET big", large_reply.clone()),
            ("PING", b"+PONG\r\n".to_vec()),
            ("ECHO $2", echo_reply.clone()),
            ("SET small $2", b"+OK\r\n".to_vec()),
            ("GET small", echo_reply.clone()),
            ("MGET big small", [&b"*2\r\n"[..], &large_reply, &echo_reply].concat()),
            ("SET big tiny", b"+OK\r\n".to_vec()),
            ("GET big", bulk(b"tiny")),
            ("MULTI", b"+OK\r\n".to_vec()),
            ("SET big $1", b"+QUEUED\r\n".to_vec()),
            ("GET big", b"+QUEUED\r\n".to_vec()),
            ("EXEC", [&b"*2\r\n+OK\r\n"[..], &large_reply].concat()),
            ("GETSET big $1", large_reply.clone()),
            ("SELECT 0", b"+OK\r\n".to_vec()),
        ] {
            requests.extend(filled(line, &[&large, echo.as_bytes()]));
            expected.push(reply);
        }
    }
    let got = client.pipeline(&requests, expected.len());
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert_reply(got, expected, &format!("request {} of round {}", i % 15, i / 15));
    }
}

#[test]
fn writes_of_large_values_keep_their_order() {
    // Two clients write to one key in turn. Redis must execute the writes in the order in which they were acknowledged, however
    // long the compression of each took.
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let (mut one, mut other): (Client, Client) = (proxy.client(), proxy.client());
    for i in 0..10_u64 {
        let large = prose(3_000_000, i);
        assert_reply(&one.call(&[b"SET", b"k", &large]), "+OK\r\n", "large");
        assert_reply(&other.cmd("GET k"), bulk(&large), "seen by the other");
        assert_reply(&other.cmd("SET k small"), "+OK\r\n", "small");
        assert_reply(&one.cmd("GET k"), "$5\r\nsmall\r\n", "seen by the first");
    }
}

#[test]
fn a_100_mb_value_is_compressed_and_decompressed() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    client.set_patience(6 * PATIENCE);
    // Cheap to compress even without optimisation; its length is what matters here.
    let value = prose(64 * 1024, 14).repeat(1_600);
    assert_reply(&client.call(&[b"SET", b"k", &value]), "+OK\r\n", "set");
    let length = String::from_utf8_lossy(&redis.client().cmd("STRLEN k"))
        .trim_matches([':', '\r', '\n'])
        .parse::<usize>()
        .expect("a length");
    assert!(length < value.len() / 2, "{length} bytes in Redis");
    assert_reply(&client.cmd("GET k"), bulk(&value), "get");
}
