//! Every command that Redis flags as a write drops the entry of the key it names, whatever the reply is.
//!
//! The table is checked against the server's own COMMAND: a write that is in neither list fails.

mod common;

use std::collections::BTreeSet;

use common::{Client, Redis, Shortstop, assert_reply, bulk, pipeline_of, show};

/// A write on the string key `k`, which is in L1 at that time. Some succeed, some are refused by Redis for the type or the
/// arguments. All must drop it.
const WRITES: &[&str] = &[
    "SET k 2",
    "SETEX k 100 2",
    "PSETEX k 100000 2",
    "SETNX k 2",
    "MSET a 1 k 2",
    "MSETNX a 1 k 2",
    "GETSET k 2",
    "GETDEL k",
    "GETEX k EX 100",
    "APPEND k 2",
    "SETRANGE k 0 2",
    "SETBIT k 7 1",
    "BITFIELD k SET u8 0 65",
    "BITOP AND k k k",
    "INCR k",
    "INCRBY k 2",
    "INCRBYFLOAT k 0.5",
    "DECR k",
    "DECRBY k 2",
    "DEL k",
    "UNLINK a k",
    "EXPIRE k 0",
    "PEXPIRE k 0",
    "EXPIREAT k 1",
    "PEXPIREAT k 1",
    "PERSIST k",
    "RENAME k renamed",
    "RENAME source k",
    "RENAMENX source k",
    "COPY source k REPLACE",
    "MOVE k 9",
    "SORT list BY nosort STORE k",
    "PFADD k x",
    "PFMERGE k hll",
    "PFDEBUG ENCODING k",
    "LPUSH k x",
    "RPUSH k x",
    "LPUSHX k x",
    "RPUSHX k x",
    "LPOP k",
    "RPOP k",
    "LSET k 0 x",
    "LINSERT k BEFORE a b",
    "LREM k 0 a",
    "LTRIM k 0 1",
    "RPOPLPUSH k list",
    "LMOVE list k LEFT LEFT",
    "LMPOP 1 k LEFT",
    "BLPOP k 0.01",
    "BRPOP k 0.01",
    "BRPOPLPUSH k list 0.01",
    "BLMOVE list k LEFT LEFT 0.01",
    "BLMPOP 0.01 1 k LEFT",
    "HSET k a b",
    "HSETNX k a b",
    "HMSET k a b",
    "HDEL k a",
    "HINCRBY k a 1",
    "HINCRBYFLOAT k a 1",
    "SADD k a",
    "SREM k a",
    "SMOVE set k 1",
    "SPOP k",
    "SINTERSTORE k set set2",
    "SUNIONSTORE k set set2",
    "SDIFFSTORE k set set2",
    "ZADD k 1 a",
    "ZINCRBY k 1 a",
    "ZREM k a",
    "ZREMRANGEBYSCORE k 0 1",
    "ZREMRANGEBYRANK k 0 1",
    "ZREMRANGEBYLEX k - +",
    "ZUNIONSTORE k 1 zset",
    "ZINTERSTORE k 1 zset",
    "ZDIFFSTORE k 1 zset",
    "ZRANGESTORE k zset 0 1",
    "ZPOPMIN k",
    "ZPOPMAX k",
    "ZMPOP 1 k MIN",
    "BZPOPMIN k 0.01",
    "BZPOPMAX k 0.01",
    "BZMPOP 0.01 1 k MIN",
    "GEOADD k 1 1 a",
    "GEORADIUS geo 15 37 900 km STORE k",
    "GEORADIUSBYMEMBER geo Palermo 900 km STORE k",
    "GEOSEARCHSTORE k geo FROMMEMBER Palermo BYRADIUS 900 km",
    "XADD k * a b",
    "XDEL k 1-1",
    "XTRIM k MAXLEN 0",
    "XSETID k 1-1",
    "XACK k g 1-1",
    "XCLAIM k g c 0 1-1",
    "XAUTOCLAIM k g c 0 0",
    "XGROUP CREATE k g $",
    "XGROUP SETID k g 0",
    "XGROUP DESTROY k g",
    "XGROUP CREATECONSUMER k g c",
    "XGROUP DELCONSUMER k g c",
    "XREADGROUP GROUP g c STREAMS k >",
    "RESTORE k 0 notadump",
    "RESTORE-ASKING k 0 notadump",
    "FLUSHDB",
    "FLUSHALL",
    "SWAPDB 0 1",
    "MIGRATE 127.0.0.1 1 k 0 10 COPY REPLACE",
    "FUNCTION FLUSH",
    "FUNCTION DELETE none",
    "FUNCTION LOAD bad",
    "FUNCTION RESTORE bad",
    // Not flagged as writes, but they can change a string.
    "EVAL return(redis.call('SET',KEYS[1],'2')) 1 k",
    "EVALSHA ffffffffffffffffffffffffffffffffffffffff 1 k",
    "FCALL none 1 k",
    "PFCOUNT k",
    // Commands of newer servers.
    "SET k 2 IFEQ 1",
    "SET k 2 IFNE 9 GET",
    "MSETEX 2 a 1 k 2",
    "DELEX k",
    "DELEX k IFEQ 1",
    "DELIFEQ k 1",
    "HEXPIRE k 100 FIELDS 1 a",
    "HPEXPIRE k 100 FIELDS 1 a",
    "HEXPIREAT k 1 FIELDS 1 a",
    "HPEXPIREAT k 1 FIELDS 1 a",
    "HPERSIST k FIELDS 1 a",
    "HSETEX k FIELDS 1 a b",
    "HGETEX k EX 100 FIELDS 1 a",
    "HGETDEL k FIELDS 1 a",
    "XDELEX k IDS 1 1-1",
    "XACKDEL k g IDS 1 1-1",
    "XCFGSET k IDMP-DURATION 100",
    "XIDMPRECORD k p i 1-1",
    "VADD k VALUES 2 1 1 a",
    "VREM k a",
    "VSETATTR k a {}",
    "CLUSTER FLUSHSLOT 1",
    "TRIMSLOTS RANGES 1 0 5",
];

/// Writes of the server that name no key.
const KEYLESS: &[&str] = &["function|flush", "function|delete", "function|load", "function|restore"];

#[test]
fn every_write_of_the_table_drops_the_entry() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "defaults:\n  cache: { admit_after: 1 }\n");
    proxy.wait_mode("single");
    let (mut reader, mut writer, mut direct) = (proxy.client(), proxy.client(), redis.client());
    for line in WRITES {
        let names = names_of(line);
        // Redis 6 has no names of subcommands.
        if !redis.knows(if names[0] == "cluster" { &names[1] } else { &names[0] }) {
            continue;
        }
        direct.cmd("FLUSHALL");
        direct.pipeline(
            &pipeline_of(&[
                "SET source from",
                "RPUSH list 1 2",
                "PFADD hll x",
                "SADD set 1 2",
                "SADD set2 2 3",
                "ZADD zset 1 a",
                "GEOADD geo 13.361389 38.115556 Palermo",
            ]),
            7,
        );
        reader.cmd("SET k 1");
        proxy.warm(&mut reader, "k");
        let hits = proxy.stat("l1_hits");
        let reply = writer.cmd(line);
        // The value that Redis has now, and not from L1.
        let (got, expected) = (reader.cmd("GET k"), direct.cmd("GET k"));
        let context = format!("{line} answered {}", show(&reply));
        assert_reply(&got, &expected, &context);
        if !KEYLESS.contains(&names[1].as_str()) {
            assert_eq!(proxy.stat("l1_hits"), hits, "GET was served from L1 although {context}");
        }
        // And it is cached again, with the current value.
        if expected.starts_with(b"$") && expected != b"$-1\r\n" {
            assert_reply(&proxy.warm(&mut reader, "k"), &expected, &context);
        }
    }
}

#[test]
fn the_table_names_every_write_of_this_server() {
    let redis = Redis::start();
    let named: BTreeSet<String> = WRITES.iter().flat_map(|line| names_of(line)).collect();
    let missing: Vec<String> =
        writes_of(&mut redis.client()).into_iter().filter(|name| !named.contains(name)).collect();
    assert!(missing.is_empty(), "writes without a row in WRITES: {missing:?}");
}

#[test]
fn a_write_that_does_not_name_the_key_leaves_it() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "defaults:\n  cache: { admit_after: 1 }\n");
    let (mut reader, mut writer) = (proxy.client(), proxy.client());
    reader.cmd("SET k 1");
    proxy.warm(&mut reader, "k");
    redis.client().cmd("SET k around");
    for line in [
        "SET other 1",
        "DEL kk K",
        "MSET a k b k",
        "LPUSH list k",
        "EVAL return(1) 1 other",
        "SORT list BY nosort STORE dest",
        "XADD stream * k k",
        "ZUNIONSTORE dest 1 zset",
        "BITOP NOT dest other",
        "GET other",
    ] {
        writer.cmd(line);
        assert_reply(&reader.cmd("GET k"), bulk(b"1"), line);
    }
}

/// `"XGROUP CREATE k"` → `["xgroup", "xgroup|create"]`.
fn names_of(line: &str) -> [String; 2] {
    let line = line.to_ascii_lowercase();
    let mut words = line.split(' ');
    let name = words.next().expect("a line has words").to_owned();
    let sub = format!("{name}|{}", words.next().unwrap_or_default());
    [name, sub]
}

/// The names of all commands, and subcommands, that the server flags as writes.
///
/// A row of COMMAND is a name, an arity (`:n`), then the flags (`*n` and n simple strings). This sequence of lines occurs nowhere
/// else in the reply.
fn writes_of(client: &mut Client) -> Vec<String> {
    let table = String::from_utf8(client.cmd("COMMAND")).expect("the table is text");
    let lines: Vec<&str> = table.split("\r\n").collect();
    let mut names = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(at, _)| *at > 0) {
        let flags = lines.get(at + 1).and_then(|next| next.strip_prefix('*')?.parse::<usize>().ok());
        let (Some(count), true) = (flags, line.starts_with(':')) else { continue };
        if lines[at + 2..].iter().take(count).any(|flag| *flag == "+write") {
            names.push(lines[at - 1].to_ascii_lowercase());
        }
    }
    assert!(names.len() > 80, "COMMAND gave {} writes", names.len());
    names
}
