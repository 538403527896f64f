//! zstd beside gzip: each rule has its codec and level, and every Shortstop reads what any other has stored.
//!
//! The stored value is read directly from Redis, and decompressed with the programs that users have: `zstd`, `gzip`, `zcat`, Python.

mod common;

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use shortstop::codec::{Codec, MARK, MARKS, ZSTD_MARK, codec_of};

use common::{
    Client, Redis, Shortstop, assert_our_error, assert_reply, bulk, noise, pipeline_of, prose, python, run, said, show,
    wait_until,
};

/// Nothing from L1: every read goes to Redis, so every read decompresses an envelope.
const ZSTD: &str = "defaults: { cache: false, compress: zstd }\n";

fn stored(redis: &Redis, key: &str) -> Vec<u8> {
    let reply = redis.client().cmd(&format!("GET {key}"));
    let head = reply.windows(2).position(|pair| pair == b"\r\n").expect("a bulk string") + 2;
    assert!(reply.len() > head, "{key} is not there");
    reply[head..reply.len() - 2].to_vec()
}

/// What a program writes that gets a file with these bytes as its last argument.
fn opened_by(program: &mut Command, bytes: &[u8], ending: &str) -> Vec<u8> {
    let mut file = tempfile::Builder::new().suffix(ending).tempfile().expect("a temporary file");
    file.write_all(bytes).expect("room for it");
    let output = run(program.arg(file.path()), Duration::from_secs(60));
    assert!(output.status.success(), "{program:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[track_caller]
fn assert_zstd(redis: &Redis, key: &str, value: &[u8]) {
    let stored = stored(redis, key);
    assert!(stored.starts_with(&ZSTD_MARK), "{key} is stored as {}", show(&stored));
    assert!(opened_by(Command::new("zstd").arg("-dc"), &stored, ".zst") == value, "zstd -d opens {key}");
}

#[test]
fn every_storing_command_compresses_with_zstd() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, ZSTD);
    let mut client = proxy.client();
    let (v, w) = (&prose(4_000, 1)[..], &prose(300_000, 2)[..]);
    for (line, expected) in [
        ("SET k $1 EX 100", "+OK\r\n"),
        ("SET k $1 PX 100000 GET", "$-1\r\n"),
        ("SETEX k 100 $1", "+OK\r\n"),
        ("PSETEX k 100000 $1", "+OK\r\n"),
        ("SETNX k $1", ":1\r\n"),
        ("MSET k $1 k2 $2", "+OK\r\n"),
        ("MSETNX k $1 k2 $2", ":1\r\n"),
        ("GETSET k $1", "$-1\r\n"),
        ("MSETEX 2 k $1 k2 $2 EX 100", ":1\r\n"),
    ] {
        if line.starts_with("MSETEX") && !redis.knows("msetex") {
            continue;
        }
        client.cmd("DEL k k2");
        assert_reply(&client.fill(line, &[v, w]), expected, line);
        assert_zstd(&redis, "k", v);
        assert_reply(&client.cmd("GET k"), bulk(v), line);
        if line.contains("k2") {
            assert_zstd(&redis, "k2", w);
            assert_reply(&client.cmd("MGET k2 none k"), [b"*3\r\n", &bulk(w)[..], b"$-1\r\n", &bulk(v)].concat(), line);
        }
    }
    let requests = [common::filled("SET k $1", &[w]), pipeline_of(&["GET k", "GETSET k small"])].concat();
    let transaction = [pipeline_of(&["MULTI"]), requests, pipeline_of(&["EXEC"])].concat();
    let got = client.pipeline(&transaction, 5);
    assert_reply(&got[4], [b"*3\r\n+OK\r\n", &bulk(w)[..], &bulk(w)].concat(), "EXEC");
    assert!(proxy.stat("zstd_values") >= 10 && proxy.stat("zstd_values") == proxy.stat("compressed_values"));
    assert!(proxy.stat("compression_saved_bytes") > 10 * 1_000, "and worth it");
}

#[test]
fn python_and_zcat_open_what_is_stored_as_gzip() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    for value in [prose(2_000, 1), prose(500_000, 2), [&MARK[..], &noise(200_000, 3)].concat()] {
        client.call(&[b"SET", b"k", &value]);
        let stored = stored(&redis, "k");
        assert_eq!(codec_of(&stored), Some(Codec::Gzip));
        assert!(opened_by(&mut Command::new("zcat"), &stored, ".gz") == value, "zcat");
        let program = "import gzip, sys; sys.stdout.buffer.write(gzip.decompress(open(sys.argv[1], 'rb').read()))";
        assert!(opened_by(Command::new(python()).args(["-c", program]), &stored, ".gz") == value, "Python");
    }
}

#[test]
fn each_rule_has_its_codec_and_level() {
    let redis = Redis::start();
    let proxy = Shortstop::start(
        &redis,
        r#"
defaults: { cache: { admit_after: 1 }, compress: { level: 9 } }
rules:
  - { match: "z:*", compress: zstd }
  - { match: "small:*", compress: { codec: zstd, level: 19, min_size: 100 } }
  - { match: "g:*", compress: { codec: gzip } }
  - { match: "raw:*", compress: false }
"#,
    );
    let mut client = proxy.client();
    let value = prose(5_000, 1);
    for (key, codec, level) in [
        ("z:1", "zstd", "1"),
        ("small:1", "zstd", "19"),
        ("g:1", "gzip", "9"),
        ("k", "gzip", "9"),
        ("raw:1", "none", ""),
    ] {
        client.call(&[b"SET", key.as_bytes(), &value]);
        let form = stored(&redis, key);
        assert_eq!(codec_of(&form).map_or("none", Codec::as_str), codec, "{key}");
        // L1 keeps the reply, and remembers how it is stored.
        wait_until("it is in L1", || {
            client.cmd(&format!("GET {key}"));
            said(&client.cmd(&format!("PROXY EXPLAIN {key}")), "why_not") == "nil"
        });
        let reply = client.cmd(&format!("PROXY EXPLAIN {key}"));
        let stored_as = String::from_utf8_lossy(&reply).rfind("size_stored").expect("it tells");
        assert_eq!(said(&reply[stored_as..], "codec"), codec, "{key}");
        assert_eq!(said(&reply, "size_stored"), form.len().to_string(), "{key}");
        if codec != "none" {
            assert_eq!((said(&reply, "codec"), said(&reply, "level")), (codec.into(), level.into()), "{key}");
            let next_set = said(&reply, "next_set");
            assert!(next_set.contains(&format!("is compressed with {codec} {level} if")), "{next_set}");
        }
    }
    let smaller = stored(&redis, "small:1").len() < stored(&redis, "z:1").len();
    assert!(smaller, "level 19 is smaller than level 1");
    let rules = String::from_utf8_lossy(&client.cmd("PROXY RULES")).into_owned();
    assert!(rules.contains("zstd") && rules.contains("gzip"), "{rules}");
    client.call(&[b"SET", b"small:2", &prose(200, 2)]);
    assert_zstd(&redis, "small:2", &prose(200, 2));
}

/// Any Shortstop reads what any other has stored, whatever its own rules say.
#[test]
fn shortstops_with_different_codecs_and_levels_work_on_the_same_keys() {
    let redis = Redis::start();
    let cached = "cache: { admit_after: 1 }";
    let proxies = [
        format!("defaults: {{ {cached} }}"),
        format!("defaults: {{ {cached}, compress: {{ level: 1, min_size: 1, min_saving: 0% }} }}"),
        format!("defaults: {{ {cached}, compress: zstd }}"),
        format!("defaults: {{ {cached}, compress: {{ codec: zstd, level: 19, min_size: 1, min_saving: 0% }} }}"),
        format!("defaults: {{ {cached}, compress: false }}"),
        "compression: false".to_owned(),
    ]
    .map(|yaml| Shortstop::start(&redis, &format!("max_staleness: 1ms\ndegraded_staleness: 1ms\n{yaml}\n")));
    let mut clients: Vec<Client> = proxies.iter().map(Shortstop::client).collect();
    let mut values: [Option<Vec<u8>>; 3] = [None, None, None];
    let mut random = noise(40_000, 77).into_iter();
    let mut byte = || usize::from(random.next().expect("enough of them"));
    let reply = |value: &Option<Vec<u8>>| value.as_ref().map_or(b"$-1\r\n".to_vec(), |value| bulk(value));
    let mut codecs = [0; 3];
    for step in 0..1_500 {
        let (at, who) = (byte() % 3, byte() % 6);
        let key = format!("k{at}");
        let (text, random) = (prose(byte() * 40, step), noise(byte() * 4, step));
        let new = match byte() % 6 {
            0 => text,
            1 => random,
            // What looks like a value that is stored compressed, and what is one.
            2 => [MARKS[byte() % 2], &text].concat(),
            3 => [&MARKS[byte() % 2][..byte() % 12], &random].concat(),
            4 if values[at].is_some() => stored(&redis, &key),
            _ => prose(1_024 + byte(), step),
        };
        let (client, context) = (&mut clients[who], format!("step {step}, client {who}, {key}"));
        match byte() % 7 {
            0 => assert_reply(&client.fill(&format!("GETSET {key} $1"), &[&new]), reply(&values[at]), &context),
            1 => assert_reply(&client.fill(&format!("SET {key} $1 GET"), &[&new]), reply(&values[at]), &context),
            2 => {
                assert_reply(&client.cmd(&format!("GETDEL {key}")), reply(&values[at]), &context);
                values[at] = None;
                continue;
            }
            _ => drop(client.fill(&format!("SET {key} $1"), &[&new])),
        }
        values[at] = Some(new);
        codecs[codec_of(&stored(&redis, &key)).map_or(2, |codec| codec as usize)] += 1;
        let [a, b] = [byte() % 6, byte() % 6];
        assert_reply(&clients[who].cmd(&format!("GET {key}")), reply(&values[at]), &context);
        let all = values.iter().map(reply).collect::<Vec<_>>().concat();
        for other in [a, b] {
            // Without a bus, another Shortstop may serve an entry for `max_staleness`.
            wait_until(&context, || clients[other].cmd("MGET k0 k1 k2") == [b"*3\r\n", &all[..]].concat());
            assert_reply(&clients[other].cmd(&format!("GET {key}")), reply(&values[at]), &context);
        }
    }
    assert!(codecs.iter().all(|count| *count > 100), "gzip, zstd, uncompressed: {codecs:?}");
    for proxy in &proxies {
        assert_eq!(proxy.stat("damaged_values"), 0);
    }
}

/// The commands that return a value or store one in its place.
const READS: [&str; 7] = [
    "GET k",
    "GETEX k PERSIST",
    "GETDEL k",
    "GETSET k new",
    "SET k new GET",
    "SORT l BY nosort GET k*",
    "GETEX k EX 9",
];

#[test]
fn a_damaged_zstd_envelope_is_an_error_and_never_other_bytes() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &format!("limits: {{ max_inflated: 100kb }}\n{ZSTD}"));
    let (mut client, mut direct) = (proxy.client(), redis.client());
    let value = prose(2_000, 10);
    client.call(&[b"SET", b"k", &value]);
    direct.cmd("RPUSH l 1");
    let good = stored(&redis, "k");
    let version = |version: u8| [&[0x50 | version][..], &good[1..]].concat();
    let lying = {
        // The length has two bytes here, and is 256 less than the value's.
        assert_eq!(good[12] >> 6, 1);
        [&good[..13], &u16::MAX.to_le_bytes(), &good[15..]].concat()
    };
    let larger = {
        // Larger than max_inflated: intact, and still refused.
        let other = Shortstop::start(&redis, ZSTD);
        other.client().call(&[b"SET", b"other", &prose(150_000, 10)]);
        stored(&redis, "other")
    };
    let mut damaged = vec![
        ("version 2", version(2)),
        ("version 4", version(4)),
        ("cut in its checksum", good[..good.len() - 3].to_vec()),
        ("cut in its data", good[..good.len() / 2].to_vec()),
        ("cut behind its mark", good[..12].to_vec()),
        ("bytes behind it", [&good[..], b"x"].concat()),
        ("a second one", good.repeat(2)),
        ("a skippable frame behind it", [&good[..], &good[..8]].concat()),
        ("a length that lies", lying),
        ("more than is allowed", larger),
        ("two flipped bits of its mark", [b"\x52\x2a\x4d\x19", &good[4..]].concat()),
    ];
    let flipped = |bit: usize| {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        bad
    };
    damaged.extend((0..good.len() * 8).step_by(97).map(|bit| ("a flipped bit", flipped(bit))));
    for (what, bytes) in damaged {
        let is_unchanged = |got: &[u8]| what == "a flipped bit" && got == bulk(&value);
        for line in READS {
            direct.call(&[b"MSET", b"k", &bytes, b"k1", &bytes]);
            let got = client.cmd(line);
            if !is_unchanged(&got) {
                assert_our_error(&got, &format!("{what}: {line}"));
            }
        }
        direct.call(&[b"MSET", b"k", &bytes, b"fine", b"here"]);
        for lines in [&["MGET fine k"][..], &["MULTI", "GET k", "GET fine", "EXEC"]] {
            let got = client.pipeline(&pipeline_of(lines), lines.len()).concat();
            let is_error = got.windows(16).any(|window| window == b"-ERR shortstop: ");
            assert!(is_error || got.windows(value.len()).any(|window| window == value), "{what}: {}", show(&got));
            assert!(!got.windows(12).any(|window| window == &bytes[..12]), "{what}: raw bytes: {}", show(&got));
        }
        assert_reply(&client.cmd("GET fine"), "$4\r\nhere\r\n", "another key");
    }
    let said = String::from_utf8_lossy(&{
        direct.call(&[b"SET", b"k", &version(2)]);
        client.cmd("GET k")
    })
    .into_owned();
    assert!(said.contains("the envelope has version 2, which this Shortstop does not support"), "{said}");
}

#[test]
fn large_values_keep_their_order_at_every_level() {
    let redis = Redis::start();
    let proxy = Shortstop::start(
        &redis,
        "defaults: { cache: false, compress: zstd }\nrules: [{ match: 'high*', compress: { level: 19 } }]\n",
    );
    let mut client = proxy.client();
    let values: Vec<Vec<u8>> = (0..4).map(|seed| prose(700_000 + 1_000 * seed as usize, seed)).collect();
    let mut requests = Vec::new();
    for value in &values {
        requests.extend(common::filled("SET high $1", &[value]));
        requests.extend(common::filled("SET k $1", &[value]));
        requests.extend(pipeline_of(&["GET high", "GET k", "ECHO small"]));
    }
    let got = client.pipeline(&requests, values.len() * 5);
    for (value, got) in values.iter().zip(got.chunks(5)) {
        assert_eq!([&got[0][..], &got[1], &got[4]], [&b"+OK\r\n"[..], b"+OK\r\n", b"$5\r\nsmall\r\n"]);
        assert_reply(&got[2], bulk(value), "level 19");
        assert_reply(&got[3], bulk(value), "level 1");
    }
    assert_zstd(&redis, "high", &values[3]);
    proxy.wait_stat("buffers_offloaded_bytes", |bytes| bytes == 0);
}
