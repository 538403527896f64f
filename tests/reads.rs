//! L1 beyond GET: which reads it answers, for how long, for which users, and that no write is ever missed.
//!
//! As in `l1.rs`, a direct write to Redis shows where a reply came from.

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::{
    Client, Fault, Nats, NatsClient, Redis, Shortstop, assert_reply, bulk, pipeline_of, prose, show, wait_until,
};
use shortstop::reads::Reads;

/// Every read that can be kept is kept at its first request.
const ALL: &str = "defaults:\n  cache: { admit_after: 1, reads: all }\n";

/// A read of the key `K` in the third field, a command that creates the key, and one that changes the reply.
type Case = (&'static str, &'static str, &'static str);

const HASH: &str = "HSET K f 1 g two";
const LIST: &str = "RPUSH K a b c";
const SET: &str = "SADD K 1 2";
const ZSET: &str = "ZADD K 1 a 2 b 3 c";
const GEO: &str = "GEOADD K 13.361389 38.115556 p 15.087269 37.502669 c";
const STREAM: &str = "XADD K 1-1 f v";

const CASES: &[Case] = &[
    ("SET K hello", "STRLEN K", "APPEND K x"),
    ("SET K hello", "GETRANGE K 0 -1", "SETRANGE K 0 J"),
    ("SET K hello", "SUBSTR K 0 2", "SETRANGE K 0 J"),
    ("SET K hello", "GETBIT K 7", "SETBIT K 7 1"),
    ("SET K hello", "BITCOUNT K", "SETBIT K 7 1"),
    ("SET K hello", "BITPOS K 1", "SETBIT K 0 1"),
    ("SET K hello", "BITFIELD_RO K GET u8 0 GET i4 9", "SETBIT K 7 1"),
    (HASH, "HGET K f", "HSET K f 2"),
    (HASH, "HMGET K f none g", "HDEL K g"),
    (HASH, "HGETALL K", "HSET K h 3"),
    (HASH, "HKEYS K", "HSET K h 3"),
    (HASH, "HVALS K", "HINCRBY K f 1"),
    (HASH, "HLEN K", "HSET K h 3"),
    (HASH, "HEXISTS K g", "HDEL K g"),
    (HASH, "HSTRLEN K g", "HSET K g three"),
    (LIST, "LRANGE K 0 -1", "RPUSH K d"),
    (LIST, "LINDEX K 0", "LPUSH K z"),
    (LIST, "LLEN K", "LPOP K"),
    (LIST, "LPOS K c", "LPUSH K z"),
    (LIST, "LPOS K c RANK -1 COUNT 2", "LPUSH K z"),
    (SET, "SMEMBERS K", "SADD K 3"),
    (SET, "SISMEMBER K 2", "SREM K 2"),
    (SET, "SMISMEMBER K 2 9", "SREM K 2"),
    (SET, "SCARD K", "SADD K 3"),
    (ZSET, "ZRANGE K 0 -1 WITHSCORES", "ZADD K 9 a"),
    (ZSET, "ZRANGE K (1 3 BYSCORE LIMIT 0 1", "ZREM K b"),
    (ZSET, "ZRANGEBYSCORE K 2 +inf", "ZADD K 9 d"),
    (ZSET, "ZRANGEBYLEX K - +", "ZADD K 4 d"),
    (ZSET, "ZREVRANGE K 0 0", "ZADD K 9 d"),
    (ZSET, "ZREVRANGEBYSCORE K 3 2 WITHSCORES", "ZREM K b"),
    (ZSET, "ZREVRANGEBYLEX K + -", "ZADD K 4 d"),
    (ZSET, "ZSCORE K a", "ZINCRBY K 1 a"),
    (ZSET, "ZMSCORE K a none", "ZINCRBY K 1 a"),
    (ZSET, "ZCARD K", "ZREM K a"),
    (ZSET, "ZCOUNT K 2 3", "ZREM K b"),
    (ZSET, "ZLEXCOUNT K - +", "ZREM K b"),
    (ZSET, "ZRANK K b", "ZREM K a"),
    (ZSET, "ZREVRANK K b", "ZREM K c"),
    (GEO, "GEOPOS K p none", "GEOADD K 14 38 p"),
    (GEO, "GEODIST K p c km", "GEOADD K 14 38 p"),
    (GEO, "GEOHASH K p none", "GEOADD K 14 38 p"),
    (GEO, "GEOSEARCH K FROMMEMBER p BYRADIUS 200 km ASC", "ZREM K c"),
    (GEO, "GEORADIUS_RO K 15 37 200 km WITHDIST", "ZREM K c"),
    (GEO, "GEORADIUSBYMEMBER_RO K p 200 km WITHCOORD", "ZREM K c"),
    (STREAM, "XRANGE K - +", "XTRIM K MAXLEN 0"),
    (STREAM, "XREVRANGE K + - COUNT 1", "XTRIM K MAXLEN 0"),
    (STREAM, "XLEN K", "XTRIM K MAXLEN 0"),
    ("SET K v", "EXISTS K", "DEL K"),
    ("SET K v", "TYPE K", "COPY list K REPLACE"),
    ("SET K v", "EXPIRETIME K", "EXPIREAT K 33177117420"),
    ("SET K v", "PEXPIRETIME K", "PEXPIREAT K 33177117420123"),
];

/// A line of [`CASES`] with a key of its own.
fn about(key: &str, line: &str) -> String {
    line.replace(" K", &format!(" {key}"))
}

/// The subset of [`CASES`] that the server supports.
fn cases(redis: &Redis) -> Vec<&'static Case> {
    let has = |line: &str| redis.knows(line.split(' ').next().expect("a command"));
    CASES.iter().filter(|(_, read, _)| has(read)).collect()
}

/// A Shortstop whose workers know the server's commands. Until then only reads of strings are kept.
fn started(redis: &Redis, yaml: &str) -> Shortstop {
    let proxy = Shortstop::start(redis, yaml);
    know_the_table(redis, &proxy);
    proxy
}

/// New clients go to the worker with the fewest: of four, some are on each worker.
fn know_the_table(redis: &Redis, proxy: &Shortstop) {
    let mut direct = redis.client();
    direct.cmd("HSET ready f v");
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| drop(proxy.warm_line(client, "HLEN ready")));
    direct.cmd("DEL ready");
    assert_reply(&clients[0].cmd("PROXY FLUSH"), "+OK\r\n", "as if it were new");
}

fn key_of(case: usize) -> String {
    format!("key{case}")
}

#[test]
fn the_cases_cover_everything_that_is_kept() {
    let named: BTreeSet<String> = CASES
        .iter()
        .map(|(_, read, _)| read.split(' ').next().expect("a command").to_ascii_lowercase())
        .chain(["get".to_owned(), "mget".to_owned()])
        .collect();
    let kept: BTreeSet<String> = Reads::ALL.names().map(str::to_owned).collect();
    assert_eq!(named, kept);
}

/// Each in its own protocol: the third request is answered from memory, though Redis has another value by then. A write through
/// Shortstop is seen at once.
#[test]
fn every_repeated_read_is_a_hit_and_sees_the_next_write() {
    let redis = Redis::start_without_ends_of_fields();
    for version in [2, 3] {
        let proxy = started(&redis, "defaults: { cache: { reads: all } }");
        let (mut direct, mut writer) = (redis.client().speaking(version), proxy.client());
        let mut client = proxy.client().speaking(version);
        direct.cmd("FLUSHALL");
        direct.cmd("RPUSH list a");
        for (case, (make, read, change)) in cases(&redis).iter().enumerate() {
            let key = key_of(case);
            let [make, read, change] = [make, read, change].map(|line| about(&key, line));
            assert!(!direct.cmd(&make).starts_with(b"-"), "{make}");
            let expected = direct.cmd(&read);
            assert!(!expected.starts_with(b"-"), "{read}: {}", show(&expected));
            let (hits, misses) = (proxy.stat("l1_hits"), proxy.stat("l1_misses"));
            for ask in 0..3 {
                assert_reply(&client.cmd(&read), &expected, &format!("{read}, ask {ask}"));
            }
            assert_eq!((proxy.stat("l1_hits"), proxy.stat("l1_misses")), (hits + 1, misses + 2), "{read}");
            assert!(!direct.cmd(&change).starts_with(b"-"), "{change}");
            assert!(direct.cmd(&read) != expected, "{change} changes the answer to {read}");
            assert_reply(&client.cmd(&read), &expected, &format!("{read}, from L1"));
            let written = writer.cmd(&change);
            assert!(!written.starts_with(b"-"), "{change}: {}", show(&written));
            assert_reply(&client.cmd(&read), direct.cmd(&read), &format!("{read} after {change}"));
        }
    }
}

/// A RESP3 client's entry does not answer a RESP2 client.
#[test]
fn protocols_are_kept_apart() {
    let redis = Redis::start_without_ends_of_fields();
    let proxy = started(&redis, ALL);
    let mut directs = [redis.client(), redis.client().speaking(3)];
    let mut clients = [proxy.client(), proxy.client().speaking(3)];
    for (case, (make, read, _)) in cases(&redis).iter().enumerate() {
        let key = key_of(case);
        directs[0].cmd(&about(&key, make));
        for ask in 0..4 {
            for (direct, client) in directs.iter_mut().zip(&mut clients) {
                let read = about(&key, read);
                assert_reply(&client.cmd(&read), direct.cmd(&read), &format!("{read}, ask {ask}"));
            }
        }
    }
    assert!(
        proxy.stat("l1_hits") >= 6 * cases(&redis).len() as u64,
        "both are served from L1: {}",
        proxy.stat("l1_hits")
    );
}

/// Other commands, and other calls of those above.
const NEVER: &[(&str, &str)] = &[
    ("SET K v EX 1000", "TTL K"),
    ("SET K v EX 1000", "PTTL K"),
    ("SET K v", "OBJECT ENCODING K"),
    ("SET K v", "OBJECT REFCOUNT K"),
    ("SET K v", "OBJECT IDLETIME K"),
    ("SET K v", "MEMORY USAGE K"),
    ("SET K v", "DUMP K"),
    ("SET K v", "TOUCH K"),
    ("SET K v", "EXISTS K K"),
    ("SET K v", "LCS K K"),
    ("SET K v", "EVAL_RO return(redis.call('GET',KEYS[1])) 1 K"),
    ("SET K v", "FCALL_RO look 1 K"),
    ("SET K v", "SCAN 0"),
    ("SET K v", "KEYS K*"),
    ("SET K v", "RANDOMKEY"),
    ("SET K v", "DBSIZE"),
    ("SET K v", "GETEX K"),
    ("PFADD K a b", "PFCOUNT K"),
    (HASH, "HSCAN K 0"),
    (HASH, "HRANDFIELD K"),
    (SET, "SSCAN K 0"),
    (SET, "SRANDMEMBER K"),
    (SET, "SINTER K"),
    (SET, "SUNION K"),
    (SET, "SDIFF K"),
    (SET, "SINTERCARD 1 K"),
    (SET, "SORT_RO K"),
    (SET, "SORT K"),
    (ZSET, "ZSCAN K 0"),
    (ZSET, "ZRANDMEMBER K"),
    (ZSET, "ZUNION 1 K"),
    (ZSET, "ZINTER 1 K"),
    (ZSET, "ZDIFF 1 K"),
    (STREAM, "XREAD STREAMS K 0"),
    (STREAM, "XINFO STREAM K"),
    (STREAM, "XPENDING K group"),
    // A wrong number of arguments, or a wrong type.
    (HASH, "HGET K"),
    (HASH, "HGETALL K f"),
    (HASH, "STRLEN K"),
    (HASH, "LRANGE K 0 -1"),
    (HASH, "GET K"),
    (LIST, "HGETALL K"),
    (LIST, "LINDEX K one"),
];

#[test]
fn everything_else_always_reaches_redis() {
    let redis = Redis::start_without_ends_of_fields();
    let proxy = started(&redis, ALL);
    let (mut direct, mut client) = (redis.client(), proxy.client());
    let code = "#!lua name=lib\nredis.register_function{function_name='look', flags={'no-writes'}, \
                callback=function(keys) return redis.call('GET', keys[1]) end}";
    if redis.has("FUNCTION") {
        assert!(direct.call(&[b"FUNCTION", b"LOAD", code.as_bytes()]).starts_with(b"$"), "a function");
    }
    for (case, (make, read)) in NEVER.iter().enumerate() {
        if !redis.knows(read.split(' ').next().expect("a command")) {
            continue;
        }
        let key = key_of(case);
        let (make, read) = (about(&key, make), about(&key, read));
        direct.cmd(&make);
        if read.starts_with("XPENDING") {
            direct.cmd(&about(&key, "XGROUP CREATE K group 0"));
        }
        let (hits, fills) = (proxy.stat("l1_hits"), proxy.stat("fills"));
        // Scripts are sent by their SHA-1.
        let sent = read.replace("EVAL_RO", "EVALSHA_RO");
        let calls = calls_of(&redis, &sent);
        for _ in 0..4 {
            client.cmd(&read);
        }
        assert_eq!((proxy.stat("l1_hits"), proxy.stat("fills")), (hits, fills), "{read}");
        if !client.cmd(&read).starts_with(b"-") && !read.starts_with("LCS") {
            assert!(calls_of(&redis, &sent) >= calls + 4, "{read} reaches Redis each time");
        }
    }
}

/// How often Redis has executed a command.
fn calls_of(redis: &Redis, line: &str) -> u64 {
    let mut words = line.split(' ').map(str::to_ascii_lowercase);
    let name = words.next().expect("a command");
    let stats = String::from_utf8_lossy(&redis.client().cmd("INFO commandstats")).into_owned();
    let of = |name: &str| {
        let rest = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")))?;
        rest.split(',').next()?.parse().ok()
    };
    of(&name).or_else(|| of(&format!("{name}|{}", words.next()?))).unwrap_or(0)
}

#[test]
fn a_rule_says_which_replies_are_kept() {
    let redis = Redis::start_without_ends_of_fields();
    let yaml = r#"
defaults:
  cache: { admit_after: 1 }
rules:
  - match: "all:*"
    cache: { reads: all }
  - match: "some:*"
    cache: { reads: [get, hgetall] }
  - match: "lists:*"
    cache: { reads: [lrange] }
  - match: "none:*"
    cache: false
  - match: "ready"
    cache: { reads: all }
"#;
    let proxy = started(&redis, yaml);
    let (mut direct, mut client) = (redis.client(), proxy.client());
    for (key, kept) in [
        ("all:1", &["GET", "HGETALL", "HLEN", "LRANGE", "MGET"][..]),
        ("some:1", &["GET", "HGETALL"]),
        ("lists:1", &["LRANGE"]),
        ("none:1", &[]),
        ("other", &["GET", "MGET"]),
    ] {
        for (make, read, change) in [
            ("SET K v", "GET K", "SET K w"),
            ("SET K v", "MGET K", "SET K w"),
            (HASH, "HGETALL K", "HSET K h 3"),
            (HASH, "HLEN K", "HSET K h 3"),
            (LIST, "LRANGE K 0 -1", "RPUSH K d"),
        ] {
            client.cmd(&format!("DEL {key}"));
            let [make, read, change] = [make, read, change].map(|line| about(key, line));
            direct.cmd(&make);
            // GET fills the entry from which MGET is answered.
            if read.starts_with("MGET") {
                (0..3).for_each(|_| drop(client.cmd(&format!("GET {key}"))));
            }
            let before = client.cmd(&read);
            client.cmd(&read);
            direct.cmd(&change);
            let expected =
                if kept.contains(&read.split(' ').next().expect("a command")) { before } else { direct.cmd(&read) };
            assert_reply(&client.cmd(&read), expected, &read);
        }
    }
    // Other rules take effect at once, and entries of the old rules are dropped.
    direct.cmd("DEL some:1");
    direct.cmd(&about("some:1", HASH));
    proxy.warm_line(&mut client, "HGETALL some:1");
    direct.cmd("HSET some:1 f new");
    proxy.reload("");
    wait_until("the rules are new", || client.cmd("HGETALL some:1") == direct.cmd("HGETALL some:1"));
    (0..4).for_each(|_| drop(client.cmd("HGETALL some:1")));
    direct.cmd("HSET some:1 f newer");
    assert_reply(&client.cmd("HGETALL some:1"), direct.cmd("HGETALL some:1"), "not kept any more");
}

#[test]
fn by_default_only_values_are_kept() {
    let redis = Redis::start_without_ends_of_fields();
    let proxy = Shortstop::start(&redis, "defaults: { cache: { admit_after: 1 } }");
    proxy.wait_mode("single");
    let (mut direct, mut client) = (redis.client(), proxy.client());
    direct.cmd("RPUSH list a");
    for (case, (make, read, change)) in cases(&redis).iter().enumerate() {
        let key = key_of(case);
        direct.cmd(&about(&key, make));
        let read = about(&key, read);
        (0..4).for_each(|_| drop(client.cmd(&read)));
        direct.cmd(&about(&key, change));
        assert_reply(&client.cmd(&read), direct.cmd(&read), &read);
    }
    assert_eq!((proxy.stat("l1_hits"), proxy.stat("l1_misses"), proxy.stat("fills")), (0, 0, 0));
}

/// A field that expires by itself changes the reply, so no reply is kept. Strings have no fields.
#[test]
fn reads_of_hashes_are_not_kept_where_fields_can_expire() {
    let redis = Redis::start();
    if !redis.ends_fields() {
        eprintln!("skipped: fields do not end by themselves on this server");
        return;
    }
    let proxy = Shortstop::start(&redis, ALL);
    let (mut direct, mut client) = (redis.client(), proxy.client());
    direct.cmd("RPUSH list a");
    // Only a worker that has asked the server for its commands keeps it.
    proxy.warm_line(&mut client, "LLEN list");
    for (case, (make, read, change)) in cases(&redis).iter().enumerate() {
        let key = key_of(case);
        let [make, read, change] = [make, read, change].map(|line| about(&key, line));
        direct.cmd(&make);
        let before = client.cmd(&read);
        client.cmd(&read);
        direct.cmd(&change);
        let is_kept = !make.starts_with("HSET")
            && !["EXISTS", "TYPE", "EXPIRETIME", "PEXPIRETIME"].iter().any(|name| read.starts_with(name));
        let expected = if is_kept { before } else { direct.cmd(&read) };
        assert_reply(&client.cmd(&read), expected, &read);
    }
}

/// A command that creates keys, reads of them, and a write that changes some of the replies.
const WRITES: &[(&[&str], &[&str], &[&str])] = {
    const HASHES: &[&str] =
        &["HGETALL k", "HGET k f", "HMGET k f g", "HLEN k", "HKEYS k", "EXISTS k", "TYPE k", "EXPIRETIME k"];
    const LISTS: &[&str] = &["LRANGE k 0 -1", "LINDEX k 0", "LLEN k", "LPOS k a", "EXISTS k", "TYPE k", "EXPIRETIME k"];
    const SETS: &[&str] = &["SMEMBERS k", "SISMEMBER k 1", "SCARD k", "EXISTS k", "TYPE k"];
    const ZSETS: &[&str] = &["ZRANGE k 0 -1 WITHSCORES", "ZSCORE k a", "ZRANK k b", "ZCARD k", "EXISTS k"];
    const STRINGS: &[&str] = &["GET k", "STRLEN k", "GETRANGE k 0 1", "GETBIT k 1", "BITCOUNT k", "EXISTS k", "TYPE k"];
    const STREAMS: &[&str] = &["XRANGE k - +", "XREVRANGE k + -", "XLEN k", "EXISTS k"];
    const A_HASH: &[&str] = &["HSET k f 1 g 2"];
    const A_LIST: &[&str] = &["RPUSH k a b c"];
    const A_SET: &[&str] = &["SADD k 1 2"];
    const A_ZSET: &[&str] = &["ZADD k 1 a 2 b"];
    const A_STRING: &[&str] = &["SET k hello"];
    const A_STREAM: &[&str] = &["XADD k 1-1 f v"];
    &[
        (A_HASH, HASHES, &["HSET k f 2"]),
        (A_HASH, HASHES, &["HDEL k f"]),
        (A_HASH, HASHES, &["HINCRBY k f 5"]),
        (A_HASH, HASHES, &["DEL k"]),
        (A_HASH, HASHES, &["UNLINK k"]),
        (A_HASH, HASHES, &["EXPIRE k 0"]),
        (A_HASH, HASHES, &["EXPIRE k 1000"]),
        (&["HSET k f 1", "EXPIRE k 1000"], HASHES, &["PERSIST k"]),
        (A_HASH, HASHES, &["RENAME k elsewhere"]),
        (&["HSET k f 1", "HSET other f 2 g 3"], HASHES, &["RENAME other k"]),
        (&["HSET k f 1", "HSET other f 2 g 3"], HASHES, &["COPY other k REPLACE"]),
        (A_HASH, HASHES, &["MOVE k 7"]),
        (A_HASH, HASHES, &["SET k a-string"]),
        (A_HASH, HASHES, &["FLUSHALL"]),
        (A_HASH, HASHES, &["FLUSHDB"]),
        (A_HASH, HASHES, &["SWAPDB 0 5"]),
        (A_HASH, HASHES, &["MULTI", "HSET k f 3", "EXEC"]),
        (A_HASH, HASHES, &["WATCH other", "MULTI", "HGETALL k", "HDEL k f", "EXEC"]),
        (A_HASH, HASHES, &["EVAL return(redis.call('HSET',KEYS[1],'f',4)) 1 k"]),
        (A_HASH, HASHES, &["EVAL return(redis.call('HSET','k','f',5)) 0"]),
        (A_HASH, HASHES, &["SELECT 3", "MULTI", "SELECT 0", "HSET k f 6", "EXEC", "SELECT 0"]),
        (A_LIST, LISTS, &["LPUSH k z"]),
        (A_LIST, LISTS, &["LPOP k"]),
        (A_LIST, LISTS, &["LSET k 0 y"]),
        (A_LIST, LISTS, &["LTRIM k 1 -1"]),
        (A_LIST, LISTS, &["LINSERT k BEFORE a x"]),
        (A_LIST, LISTS, &["LREM k 0 a"]),
        (A_LIST, LISTS, &["LMOVE k other LEFT RIGHT"]),
        (&["RPUSH k a", "RPUSH other b"], LISTS, &["RPOPLPUSH other k"]),
        (A_LIST, LISTS, &["BLPOP k 0"]),
        (&["RPUSH k a", "RPUSH other b"], LISTS, &["BLMOVE other k LEFT LEFT 0"]),
        (A_LIST, LISTS, &["LMPOP 2 other k LEFT"]),
        (&["RPUSH k a", "RPUSH other 3 2"], LISTS, &["SORT other STORE k"]),
        (A_SET, SETS, &["SADD k 3"]),
        (A_SET, SETS, &["SPOP k 2"]),
        (A_SET, SETS, &["SMOVE k other 1"]),
        (&["SADD k 1", "SADD other 2 3"], SETS, &["SUNIONSTORE k k other"]),
        (A_ZSET, ZSETS, &["ZADD k 9 a"]),
        (A_ZSET, ZSETS, &["ZINCRBY k 1 a"]),
        (A_ZSET, ZSETS, &["ZPOPMIN k"]),
        (A_ZSET, ZSETS, &["BZPOPMAX k 0"]),
        (A_ZSET, ZSETS, &["ZREMRANGEBYRANK k 0 0"]),
        (&["ZADD k 1 a", "ZADD other 2 b"], ZSETS, &["ZUNIONSTORE k 2 k other"]),
        (&["ZADD k 1 a", "GEOADD other 1 1 p 2 2 q"], ZSETS, &["GEOSEARCHSTORE k other FROMLONLAT 1 1 BYRADIUS 9 km"]),
        (&["ZADD k 1 a", "GEOADD other 1 1 p 2 2 q"], ZSETS, &["GEORADIUS other 1 1 9 km STORE k"]),
        (A_STRING, STRINGS, &["SET k other"]),
        (A_STRING, STRINGS, &["APPEND k x"]),
        (A_STRING, STRINGS, &["SETRANGE k 0 J"]),
        (A_STRING, STRINGS, &["SETBIT k 1 0"]),
        (A_STRING, STRINGS, &["BITFIELD k SET u8 0 1"]),
        (&["SET k hello", "SET other \u{1}"], STRINGS, &["BITOP NOT k other"]),
        (A_STRING, STRINGS, &["GETDEL k"]),
        (A_STRING, STRINGS, &["MSET other 1 k 2"]),
        (A_STRING, STRINGS, &["GETSET k replaced"]),
        (A_STREAM, STREAMS, &["XADD k 2-1 f v"]),
        (A_STREAM, STREAMS, &["XDEL k 1-1"]),
        (A_STREAM, STREAMS, &["XTRIM k MAXLEN 0"]),
    ]
};

#[test]
fn a_write_of_any_kind_is_seen_at_once_by_every_read_of_its_key() {
    let redis = Redis::start_without_ends_of_fields();
    let proxy = started(&redis, ALL);
    // Readers on both workers.
    let mut readers: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    let (mut writer, mut direct) = (proxy.client(), redis.client());
    let absent: Vec<&str> = ["EXPIRETIME", "LMPOP"].into_iter().filter(|name| !redis.knows(name)).collect();
    let is_there = |line: &str| !absent.iter().any(|name| line.starts_with(name));
    for (make, reads, write) in WRITES {
        if !write.iter().all(|line| is_there(line)) {
            continue;
        }
        let reads: Vec<&str> = reads.iter().copied().filter(|line| is_there(line)).collect();
        writer.cmd("FLUSHALL");
        for line in *make {
            assert!(!writer.cmd(line).starts_with(b"-"), "{line}");
        }
        let before: Vec<Vec<u8>> = reads.iter().map(|read| direct.cmd(read)).collect();
        for (read, before) in reads.iter().zip(&before) {
            for reader in &mut readers {
                assert_reply(&reader.cmd(read), before, read);
            }
            let hits = proxy.stat("l1_hits");
            assert_reply(&readers[0].cmd(read), before, read);
            assert_eq!(proxy.stat("l1_hits"), hits + 1, "{read} is answered from L1");
        }
        let replies = writer.pipeline(&pipeline_of(write), write.len());
        assert!(!replies.concat().starts_with(b"-"), "{write:?}: {}", show(&replies.concat()));
        let mut changed = 0;
        for (read, before) in reads.iter().zip(&before) {
            let now = direct.cmd(read);
            changed += usize::from(now != *before);
            for _ in 0..2 {
                for reader in &mut readers {
                    assert_reply(&reader.cmd(read), &now, &format!("{read} after {write:?}"));
                }
            }
        }
        // Without EXPIRETIME nothing shows the new expiry.
        assert!(changed > 0 || !is_there("EXPIRETIME"), "{write:?} changes something");
    }
}

/// It is executed when another client pushes, and that client's reply may arrive first.
#[test]
fn a_blocking_write_is_seen_by_the_client_that_triggered_it() {
    let redis = Redis::start_without_ends_of_fields();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), ALL);
    know_the_table(&redis, &proxy);
    let (mut direct, mut pusher) = (redis.client(), proxy.client());
    pusher.cmd("RPUSH destination first");
    for round in 1..10 {
        assert_reply(&proxy.warm_line(&mut pusher, "LLEN destination"), format!(":{round}\r\n"), "kept");
        let mut waiter = proxy.client();
        wire.hold_replies_to(b"BLMOVE");
        waiter.send(&pipeline_of(&["BLMOVE source destination LEFT RIGHT 0"]));
        wait_until("it waits", || redis.info("blocked_clients") == "1");
        // Nothing is kept from now on, however often it is requested.
        for _ in 0..3 {
            assert_reply(&pusher.cmd("LLEN destination"), format!(":{round}\r\n"), "not yet");
            assert_reply(&pusher.cmd("EXISTS source"), ":0\r\n", "not yet");
        }
        let value = format!("v{round}");
        assert_reply(&pusher.cmd(&format!("RPUSH source {value}")), ":1\r\n", "it is moved on at once");
        // The reply to BLMOVE is held.
        assert_reply(&pusher.cmd("LLEN destination"), format!(":{}\r\n", round + 1), "moved");
        let list = direct.cmd("LRANGE destination 0 -1");
        assert_reply(&pusher.cmd("LRANGE destination 0 -1"), list, "moved");
        assert_reply(&pusher.cmd("EXISTS source"), ":0\r\n", "and gone");
        wire.release();
        assert_reply(&waiter.reply(), bulk(value.as_bytes()), "who waited");
    }
}

#[test]
fn nothing_is_served_past_its_expiry() {
    const READS: [&str; 4] = ["HGETALL", "HLEN", "EXISTS", "TYPE"];
    let redis = Redis::start_without_ends_of_fields();
    let proxy = started(&redis, ALL);
    let (mut client, mut direct) = (proxy.client(), redis.client());
    let mut live = Vec::new();
    for i in 0..60 {
        direct.cmd(&format!("HSET k{i} f v"));
        direct.cmd(&format!("PEXPIRE k{i} {}", 40 + i * 10));
        live.push(i);
    }
    let before = proxy.stat("l1_hits");
    let end = Instant::now() + Duration::from_secs(20);
    while !live.is_empty() {
        assert!(Instant::now() < end, "keys that never expire: {live:?}");
        live.retain(|i| {
            let gone = direct.cmd(&format!("EXISTS k{i}")) == b":0\r\n";
            for (read, absent) in READS.iter().zip(["*0\r\n", ":0\r\n", ":0\r\n", "+none\r\n"]) {
                let served = client.cmd(&format!("{read} k{i}"));
                assert!(
                    !gone || served == absent.as_bytes(),
                    "k{i} is gone in Redis and {read} says {}",
                    show(&served)
                );
            }
            !gone
        });
    }
    assert!(proxy.stat("l1_hits") > before, "a run without hits shows nothing");
}

#[test]
fn the_ttl_of_the_rule_bounds_an_entry() {
    let redis = Redis::start_without_ends_of_fields();
    let proxy = started(&redis, "defaults: { cache: { ttl: 150ms, admit_after: 1, reads: all } }");
    let mut client = proxy.client();
    client.cmd("HSET k f old");
    proxy.warm_line(&mut client, "HGET k f");
    redis.client().cmd("HSET k f new");
    wait_until("the write around the proxy is seen", || client.cmd("HGET k f") == b"$3\r\nnew\r\n");
}

/// The absence of a key is kept like any reply if a rule says so, and not otherwise.
#[test]
fn a_missing_key_is_remembered_if_a_rule_says_so() {
    let redis = Redis::start_without_ends_of_fields();
    let yaml = "defaults: { cache: { admit_after: 1, reads: all } }\n\
                rules: [{ match: 'neg:*', cache: { negative_ttl: 1h } }]";
    for version in [2, 3] {
        let proxy = started(&redis, yaml);
        let (mut direct, mut writer) = (redis.client().speaking(version), proxy.client());
        let mut client = proxy.client().speaking(version);
        direct.cmd("FLUSHALL");
        for (case, (make, read, _)) in cases(&redis).iter().enumerate() {
            for (key, remembered) in [(format!("neg:{case}"), !read.starts_with("BITPOS")), (key_of(case), false)] {
                let (make, read) = (about(&key, make), about(&key, read));
                let absent = direct.cmd(&read);
                let hits = proxy.stat("l1_hits");
                for _ in 0..3 {
                    assert_reply(&client.cmd(&read), &absent, &read);
                }
                assert_eq!(proxy.stat("l1_hits"), hits + if remembered { 2 } else { 0 }, "{read}");
                direct.cmd(&make);
                let present = direct.cmd(&read);
                assert_reply(&client.cmd(&read), if remembered { &absent } else { &present }, &read);
                writer.cmd(&format!("DEL {key}"));
                writer.cmd(&make);
                assert_reply(&client.cmd(&read), &present, &read);
            }
        }
    }
}

#[test]
fn errors_are_never_kept() {
    let redis = Redis::start_without_ends_of_fields();
    let proxy = started(&redis, ALL);
    let (mut direct, mut client) = (redis.client(), proxy.client());
    let hits = proxy.stat("l1_hits");
    for (case, (make, read, _)) in cases(&redis).iter().enumerate().filter(|(_, (make, ..))| !make.starts_with("SET")) {
        let key = key_of(case);
        let (make, read) = (about(&key, make), about(&key, read));
        direct.cmd(&format!("SET {key} a-string"));
        for _ in 0..4 {
            assert!(client.cmd(&read).starts_with(b"-WRONGTYPE"), "{read} of a string");
        }
        direct.cmd(&format!("DEL {key}"));
        direct.cmd(&make);
        assert_reply(&client.cmd(&read), direct.cmd(&read), &format!("{read}, seen at once"));
    }
    assert_eq!(proxy.stat("l1_hits"), hits);
}

#[test]
fn reads_of_a_part_of_a_compressed_value_are_kept_as_redis_would_answer_them() {
    let redis = Redis::start_without_ends_of_fields();
    let proxy = started(&redis, ALL);
    let mut client = proxy.client();
    client.call(&[b"SET", b"k", &prose(5_000, 1)]);
    assert_reply(&proxy.warm_line(&mut client, "STRLEN k"), ":5000\r\n", "of the plain value");
    assert_reply(&proxy.warm_line(&mut client, "GETRANGE k 0 3"), bulk(&prose(5_000, 1)[..4]), "of the plain value");
    client.cmd("SET k short");
    assert_reply(&proxy.warm_line(&mut client, "STRLEN k"), ":5\r\n", "a value that is stored as it came");
    client.call(&[b"SET", b"k", &prose(6_000, 1)]);
    assert_reply(&client.cmd("STRLEN k"), ":6000\r\n", "after the write");
}

#[test]
fn replies_that_are_too_large_are_not_kept() {
    let redis = Redis::start_without_ends_of_fields();
    let proxy = started(&redis, "defaults: { cache: { admit_after: 1, reads: all, max_value: 200 } }");
    let (mut direct, mut client) = (redis.client(), proxy.client());
    for (fields, kept) in [(5, true), (50, false)] {
        let pairs: String = (0..fields).map(|field| format!(" f{field} v")).collect();
        direct.cmd(&format!("HSET k{fields}{pairs}"));
        let before = proxy.stat("l1_hits");
        let expected = direct.cmd(&format!("HGETALL k{fields}"));
        for _ in 0..3 {
            assert_reply(&client.cmd(&format!("HGETALL k{fields}")), &expected, "right, kept or not");
        }
        assert_eq!(proxy.stat("l1_hits") > before, kept, "{fields} fields");
    }
    // A request that is too long for an entry.
    let mut words = vec![b"HMGET".to_vec(), b"k5".to_vec()];
    words.extend((0..9_000).map(|field| format!("f{field}").into_bytes()));
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let hits = proxy.stat("l1_hits");
    let expected = direct.call(&words);
    for _ in 0..3 {
        assert_reply(&client.call(&words), &expected, "a long request");
    }
    assert_eq!(proxy.stat("l1_hits"), hits);
}

/// The hundred fields of one hash, read one by one.
#[test]
fn the_number_of_entries_per_key_is_bounded() {
    const FIELDS: usize = 200;
    let redis = Redis::start_without_ends_of_fields();
    let proxy = started(&redis, ALL);
    let mut client = proxy.client();
    let pairs: String = (0..FIELDS).map(|field| format!(" f{field} v{field}")).collect();
    client.cmd(&format!("HSET k{pairs}"));
    for _ in 0..3 {
        for field in 0..FIELDS {
            let expected = bulk(format!("v{field}").as_bytes());
            assert_reply(&client.cmd(&format!("HGET k f{field}")), expected, "right, kept or not");
        }
    }
    proxy.wait_stat("l1_entries", |entries| entries == 64);
    let hits = proxy.stat("l1_hits");
    for field in FIELDS - 64..FIELDS {
        client.cmd(&format!("HGET k f{field}"));
    }
    assert_eq!(proxy.stat("l1_hits"), hits + 64, "the last ones stay");
    client.cmd("DEL k");
    proxy.wait_stat("l1_entries", |entries| entries == 0);
}

#[test]
fn an_invalidation_from_a_peer_drops_every_read_of_the_key() {
    const READS: [&str; 6] = ["HGETALL k", "HGET k f", "hget k f", "HLEN k", "HVALS k", "EXISTS k"];
    let (redis, nats) = (Redis::start_without_ends_of_fields(), Nats::start());
    let (one, other) = (Shortstop::in_fleet(&redis, &nats, ALL), Shortstop::in_fleet(&redis, &nats, ALL));
    one.wait_stat("peers", |peers| peers == 1);
    other.wait_stat("peers", |peers| peers == 1);
    let (mut reader, mut writer, mut direct) = (one.client(), other.client(), redis.client());
    let mut service = NatsClient::connect(nats.addr());
    for (round, write) in [
        "HSET k f new g 3",
        "DEL k",
        "EVAL redis.call('HSET',KEYS[1],'f','x') 1 k",
        "FLUSHALL",
        "ACL SETUSER x",
        "json",
        "pattern",
    ]
    .iter()
    .enumerate()
    {
        writer.cmd("DEL k");
        writer.cmd(&format!("HSET k f {round}"));
        wait_until("the first write is here", || reader.cmd("HGET k f") == bulk(round.to_string().as_bytes()));
        let kept = READS.map(|read| one.warm_line(&mut reader, read));
        direct.cmd("HSET k around 1");
        assert_reply(&reader.cmd(READS[0]), &kept[0], "the entry stays until somebody tells");
        match *write {
            "json" => service.publish("cache.invalidate", br#"{"action":"invalidate","key":"k"}"#),
            "pattern" => service.publish("cache.invalidate", br#"{"action":"invalidate_pattern","pattern":"k*"}"#),
            line => drop(writer.cmd(line)),
        }
        wait_until(&format!("{write} has crossed"), || reader.cmd(READS[0]) == direct.cmd(READS[0]));
        for read in READS {
            assert_reply(&reader.cmd(read), direct.cmd(read), &format!("{read} after {write}"));
        }
    }
}

/// A read that is never kept shows the effect of a direct write: nothing older is served after it.
#[test]
fn a_reply_that_cannot_be_compared_drops_the_entries_of_its_key() {
    let redis = Redis::start_without_ends_of_fields();
    let proxy = started(&redis, ALL);
    let (mut direct, mut client) = (redis.client(), proxy.client());
    for (make, read, change, look) in [
        (HASH, "HGETALL K", "HSET K f new", "HSCAN K 0"),
        (HASH, "HGETALL K", "HSET K f new", "EVAL_RO return(redis.call('HGET',KEYS[1],'f')) 1 K"),
        (HASH, "HGETALL K", "HSET K f new", "DUMP K"),
        (LIST, "LRANGE K 0 -1", "RPUSH K new", "SORT_RO K ALPHA"),
        (SET, "SCARD K", "SADD K 3", "SINTER K K"),
        (STREAM, "XLEN K", "XADD K 2-1 f v", "XREAD STREAMS K 0"),
        (STREAM, "XLEN K", "XADD K 2-1 f v", "XREAD BLOCK 0 STREAMS K 0"),
        ("SET K v", "EXISTS K", "DEL K", "EXISTS K K"),
        ("SET K v", "STRLEN K", "APPEND K w", "LCS K K"),
    ] {
        if !redis.knows(look.split(' ').next().expect("a command")) {
            continue;
        }
        let [make, read, change, look] = [make, read, change, look].map(|line| about("k", line));
        for in_one_go in [false, true] {
            client.cmd("DEL k");
            client.cmd(&make);
            let kept = proxy.warm_line(&mut client, &read);
            direct.cmd(&change);
            assert_reply(&client.cmd(&read), &kept, "from L1");
            // A read that reveals nothing about the content drops nothing.
            client.cmd("TTL k");
            client.cmd("OBJECT ENCODING k");
            assert_reply(&client.cmd(&read), &kept, "still");
            let then = if in_one_go {
                client.pipeline(&pipeline_of(&[&look, &read]), 2).pop().expect("two replies")
            } else {
                client.cmd(&look);
                client.cmd(&read)
            };
            assert_reply(&then, direct.cmd(&read), &format!("{read} after {look}, in one go: {in_one_go}"));
        }
    }
    // The same question again, in a transaction or behind a read of the same client.
    client.cmd("DEL k");
    client.cmd("HSET k f old");
    proxy.warm_line(&mut client, "HGET k f");
    proxy.warm_line(&mut client, "HGETALL k");
    direct.cmd("HSET k f new");
    let got = client.pipeline(&pipeline_of(&["MULTI", "HGET k f", "EXEC", "HGETALL k"]), 4).concat();
    assert_reply(
        &got,
        "+OK\r\n+QUEUED\r\n*1\r\n$3\r\nnew\r\n*2\r\n$1\r\nf\r\n$3\r\nnew\r\n",
        "a transaction reads Redis",
    );
}

#[test]
fn a_pipeline_reads_its_own_writes() {
    const ROUNDS: usize = 1_000;
    let redis = Redis::start_without_ends_of_fields();
    let proxy = started(&redis, ALL);
    let mut client = proxy.client();
    let mut lines = Vec::new();
    let mut expected = Vec::new();
    for i in 0..ROUNDS {
        lines.extend([format!("HSET k f {i}"), "HGET k f".into(), "HGETALL k".into(), "HGET k f".into()]);
        let value = bulk(i.to_string().as_bytes());
        let all = [&b"*2\r\n$1\r\nf\r\n"[..], &value].concat();
        expected.extend([format!(":{}\r\n", i32::from(i == 0)).into_bytes(), value.clone(), all, value]);
    }
    let got = client.pipeline(&pipeline_of(&lines), lines.len());
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert_reply(got, expected, &format!("request {i}: {}", lines[i]));
    }
}

/// Readers that ask the same at the same time share one reply; readers that ask something else do not.
#[test]
fn concurrent_equal_reads_are_sent_once() {
    let redis = Redis::start_without_ends_of_fields();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), &format!("workers: 1\n{ALL}"));
    know_the_table(&redis, &proxy);
    let (misses, calls) = (proxy.stat("l1_misses"), calls_of(&redis, "HGET"));
    redis.client().cmd("HSET k f 1 g 2");
    let mut first = proxy.client();
    first.cmd("PING");
    wire.hold_replies_to(b"HGET\r\n$1\r\nk\r\n$1\r\nf");
    first.send(&pipeline_of(&["HGET k f"]));
    wire.wait_caught();
    let mut others: Vec<Client> = (0..10).map(|_| proxy.client()).collect();
    for (at, client) in others.iter_mut().enumerate() {
        client.send(&pipeline_of(&[if at % 2 == 0 { "HGET k f" } else { "HGET k g" }]));
    }
    proxy.wait_stat("l1_misses", |now| now == misses + 11);
    wire.release();
    assert_reply(&first.reply(), "$1\r\n1\r\n", "the one that asked");
    for (at, client) in others.iter_mut().enumerate() {
        assert_reply(&client.reply(), if at % 2 == 0 { "$1\r\n1\r\n" } else { "$1\r\n2\r\n" }, "those that waited");
    }
    assert_eq!(calls_of(&redis, "HGET"), calls + 2, "one for each question");
}

/// The races of `coherence.rs`, for replies other than values.
#[test]
fn an_in_flight_read_is_not_kept_after_a_write() {
    let redis = Redis::start_without_ends_of_fields();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), ALL);
    know_the_table(&redis, &proxy);
    // On a private connection, as in a transaction.
    let (mut reader, mut writer, mut direct) = (proxy.client(), proxy.client(), redis.client());
    for round in 0..5 {
        writer.cmd("DEL k");
        writer.cmd("HSET k f old");
        let poisoned = proxy.stat("fills_poisoned");
        writer.pipeline(&pipeline_of(&["MULTI", "HSET k f new"]), 2);
        wire.hold_replies_to(b"HGETALL\r\n$1\r\nk\r\n");
        reader.send(&pipeline_of(&["HGETALL k"]));
        wire.wait_caught();
        direct.cmd("PING");
        assert_reply(&writer.cmd("EXEC"), "*1\r\n:0\r\n", "written meanwhile");
        wire.release();
        assert_reply(&reader.reply(), "*2\r\n$1\r\nf\r\n$3\r\nold\r\n", "the read was first and may say so");
        for _ in 0..3 {
            assert_reply(&reader.cmd("HGETALL k"), "*2\r\n$1\r\nf\r\n$3\r\nnew\r\n", &format!("round {round}"));
        }
        assert!(proxy.stat("fills_poisoned") > poisoned, "round {round}: the fill was poisoned");
    }
}

/// However hot a key is, a user without a right to it gets Redis's error.
#[test]
fn a_user_gets_no_entry_of_another_user() {
    let redis = Redis::start_without_ends_of_fields();
    let proxy = started(&redis, ALL);
    let mut nobody = proxy.client();
    nobody.cmd("ACL SETUSER full on >pw ~* +@all");
    nobody.cmd("ACL SETUSER half on >pw ~a* +@all");
    nobody.cmd("ACL SETUSER blind on >pw ~* +@all -hgetall");
    nobody.cmd("SET b value");
    nobody.cmd("SET a value");
    nobody.cmd("HSET bh f v");
    nobody.cmd("HSET ah f v");
    let reads = ["GET b", "MGET b", "STRLEN b", "EXISTS b", "HGETALL bh", "HGET bh f", "TYPE bh"];
    let mut full = proxy.client();
    assert_reply(&full.cmd("AUTH full pw"), "+OK\r\n", "let in");
    for read in reads {
        for client in [&mut nobody, &mut full] {
            for _ in 0..4 {
                assert!(!client.cmd(read).starts_with(b"-"), "{read}");
            }
        }
    }
    let mut half = proxy.client();
    assert_reply(&half.cmd("AUTH half pw"), "+OK\r\n", "let in");
    let mut direct = redis.client();
    direct.cmd("AUTH half pw");
    let refused = direct.cmd("GET b");
    assert!(refused.starts_with(b"-NOPERM"), "{}", show(&refused));
    for _ in 0..4 {
        for read in reads {
            assert_reply(&half.cmd(read), &refused, read);
        }
        assert_reply(&half.cmd("GET a"), "$5\r\nvalue\r\n", "its own");
        assert_reply(&half.cmd("MGET a b"), &refused, "a mix");
        assert_reply(&half.cmd("HGETALL ah"), "*2\r\n$1\r\nf\r\n$1\r\nv\r\n", "its own");
    }
    // A user without the right to a command is not answered from an entry of another command.
    let mut blind = proxy.client();
    assert_reply(&blind.cmd("AUTH blind pw"), "+OK\r\n", "let in");
    for _ in 0..3 {
        assert!(blind.cmd("HGETALL bh").starts_with(b"-NOPERM"), "not its command");
        assert_reply(&blind.cmd("HGET bh f"), "$1\r\nv\r\n", "its command");
    }
    // A right that is revoked through Shortstop ends at once.
    for (change, read) in [
        ("ACL SETUSER half resetkeys ~c*", "GET a"),
        ("ACL SETUSER half ~a* -hgetall", "HGETALL ah"),
        ("ACL SETUSER half +hgetall resetkeys", "HGETALL ah"),
    ] {
        assert_reply(&nobody.cmd(change), "+OK\r\n", change);
        for _ in 0..3 {
            assert!(half.cmd(read).starts_with(b"-NOPERM"), "{read} after {change}");
        }
    }
}

/// A user's own reads are served from memory like anyone's. Every client sees a write by any client.
#[test]
fn users_have_separate_entries_that_are_dropped_together() {
    let redis = Redis::start_without_ends_of_fields();
    let proxy = started(&redis, ALL);
    let mut nobody = proxy.client();
    nobody.cmd("ACL SETUSER one on >pw ~* +@all");
    nobody.cmd("ACL SETUSER two on >pw ~* +@all");
    let (mut one, mut two, mut writer) = (proxy.client(), proxy.client(), proxy.client());
    assert_reply(&one.cmd("AUTH one pw"), "+OK\r\n", "let in");
    assert_reply(&two.cmd("AUTH two pw"), "+OK\r\n", "let in");
    nobody.cmd("SET k 0");
    nobody.cmd("HSET h f 0");
    for round in 0..20 {
        for client in [&mut nobody, &mut one, &mut two] {
            assert_reply(&proxy.warm(client, "k"), bulk(round.to_string().as_bytes()), "its own entry");
            assert_reply(&proxy.warm_line(client, "HGET h f"), bulk(round.to_string().as_bytes()), "its own entry");
        }
        redis.client().cmd("SET k around");
        for client in [&mut nobody, &mut one, &mut two] {
            assert_reply(&client.cmd("GET k"), bulk(round.to_string().as_bytes()), "from L1");
            assert_reply(
                &client.cmd("MGET k k"),
                [b"*2\r\n", &bulk(round.to_string().as_bytes()).repeat(2)[..]].concat(),
                "MGET, too",
            );
        }
        writer.cmd(&format!("SET k {}", round + 1));
        writer.cmd(&format!("HSET h f {}", round + 1));
        for client in [&mut nobody, &mut one, &mut two] {
            assert_reply(&client.cmd("GET k"), bulk((round + 1).to_string().as_bytes()), "the write");
            assert_reply(&client.cmd("HGET h f"), bulk((round + 1).to_string().as_bytes()), "the write");
        }
    }
}

/// One sequence of reads and writes, sent to a Shortstop that keeps everything and directly to another Redis: the same replies,
/// byte for byte, whichever of several clients asks.
#[test]
fn replies_equal_those_of_redis() {
    const STEPS: usize = 6_000;
    let (redis, reference) = (Redis::start_without_ends_of_fields(), Redis::start_without_ends_of_fields());
    let proxy = started(&redis, "defaults: { cache: { admit_after: 1, reads: all, negative_ttl: 1h } }");
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    clients.extend((0..2).map(|_| proxy.client().speaking(3)));
    let mut direct = [reference.client(), reference.client().speaking(3)];
    for client in clients.iter_mut().chain(&mut direct) {
        client.set_patience(Duration::from_secs(30));
    }
    // Sets of numbers: each server lists words in an order of its own.
    let makes = [
        "SET K hello",
        HASH,
        LIST,
        SET,
        ZSET,
        GEO,
        STREAM,
        "XADD K * f v",
        "DEL K",
        "PEXPIREAT K 33177117420999",
        "PERSIST K",
    ];
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).expect("small")
    };
    let before = proxy.stat("l1_hits");
    let cases = cases(&redis);
    let mut lately = vec!["PING".to_owned(); 8];
    for step in 0..STEPS {
        let (_, read, change) = cases[random(cases.len())];
        let key = format!("k{}", random(5));
        let line = match random(20) {
            0 => about(&key, makes[random(makes.len())]),
            1 | 2 => about(&key, change),
            3..10 => {
                let read = about(&key, read);
                lately[random(8)].clone_from(&read);
                read
            }
            // A recent read, by this or another client.
            _ => lately[random(8)].clone(),
        };
        // Replies that depend on the clock differ.
        if line.contains('*') {
            continue;
        }
        let speaker = random(clients.len());
        let expected = direct[usize::from(speaker >= 4)].cmd(&line);
        assert_reply(&clients[speaker].cmd(&line), expected, &format!("step {step}: {line}"));
    }
    let hits = proxy.stat("l1_hits") - before;
    assert!(hits > 300, "a run without hits shows nothing: {hits}");
}

/// A request is identified by its bytes: another spelling is sent to Redis, and is answered correctly.
#[test]
fn spellings_have_separate_entries() {
    let redis = Redis::start_without_ends_of_fields();
    let proxy = started(&redis, ALL);
    let mut client = proxy.client();
    client.cmd("HSET k f 1 F 2");
    client.cmd("ZADD z 1 a 2 b");
    for _ in 0..3 {
        for (line, expected) in [
            ("HGET k f", "$1\r\n1\r\n"),
            ("HGET k F", "$1\r\n2\r\n"),
            ("hget k f", "$1\r\n1\r\n"),
            ("hGet k F", "$1\r\n2\r\n"),
            ("ZRANGE z 0 -1", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
            ("ZRANGE z 0 -1 REV", "*2\r\n$1\r\nb\r\n$1\r\na\r\n"),
            ("zrange z 0 -1 rev", "*2\r\n$1\r\nb\r\n$1\r\na\r\n"),
        ] {
            assert_reply(&client.cmd(line), expected, line);
        }
        // Typed as a line.
        client.send(b"HGET k f\r\n");
        assert_reply(&client.reply(), "$1\r\n1\r\n", "inline");
    }
}
