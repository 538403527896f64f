//! Several Shortstops on one Redis and one NATS, with services that are not Shortstops.

mod common;

use std::time::Duration;

use common::{Nats, NatsClient, Redis, Shortstop, assert_reply, bulk, pipeline_of, wait_until, wait_within};
use serde_json::Value;

const EAGER: &str = "defaults:\n  cache: { admit_after: 1 }\n";

fn two(redis: &Redis, nats: &Nats, yaml: &str) -> (Shortstop, Shortstop) {
    let pair = (Shortstop::in_fleet(redis, nats, yaml), Shortstop::in_fleet(redis, nats, yaml));
    pair.0.wait_stat("peers", |peers| peers == 1);
    pair.1.wait_stat("peers", |peers| peers == 1);
    pair
}

#[test]
fn an_invalidation_crosses() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let (one, other) = two(&redis, &nats, EAGER);
    let (mut reader, mut writer) = (one.client(), other.client());
    for (i, line) in [
        "SET k $1",
        "MSET x 1 k $1",
        "GETSET k $1",
        "EVAL return(redis.call('SET',KEYS[1],ARGV[1])) 1 k $1",
        "SETEX k 1000 $1",
        "SET k $1 GET",
    ]
    .iter()
    .enumerate()
    {
        writer.cmd("SET k old");
        // The entry stays in L1, so what follows is caused by the invalidation.
        one.settle(&redis, &mut reader, "k");
        let value = i.to_string();
        writer.fill(line, &[value.as_bytes()]);
        wait_until("the write has crossed", || reader.cmd("GET k") == bulk(value.as_bytes()));
    }
    assert!(other.stat("invalidations_published") >= 6, "published");
    assert!(one.stat("invalidations_received") >= 6, "received");
    assert!(one.stat("invalidations_applied") >= 6, "applied");
    assert_eq!(one.stat("gaps") + other.stat("gaps"), 0, "nothing was lost");
    assert_eq!((one.stat("nats_connected"), other.stat("nats_connected")), (1, 1), "connected");
}

#[test]
fn a_flush_of_a_database_crosses() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let (one, other) = two(&redis, &nats, EAGER);
    let (mut reader, mut writer) = (one.client(), other.client());
    for (line, left) in [
        ("FLUSHALL", &b"$-1\r\n"[..]),
        ("FLUSHDB", b"$-1\r\n"),
        ("SWAPDB 0 1", b"$-1\r\n"),
        ("EVAL redis.call('SET','k','new') 0", b"$3\r\nnew\r\n"),
    ] {
        writer.cmd("FLUSHALL");
        writer.cmd("SET k old");
        wait_until("the first write is seen", || reader.cmd("GET k") == b"$3\r\nold\r\n");
        one.warm(&mut reader, "k");
        writer.cmd(line);
        wait_until(&format!("{line} has crossed"), || reader.cmd("GET k") == left);
    }
}

#[test]
fn a_transaction_crosses_key_by_key() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let (one, other) = two(&redis, &nats, EAGER);
    let (mut reader, mut writer) = (one.client(), other.client());
    reader.cmd("MSET a 0 b 0");
    one.warm(&mut reader, "a");
    one.warm(&mut reader, "b");
    writer.pipeline(&pipeline_of(&["MULTI", "SET a 1", "INCR b", "EXEC"]), 4);
    for key in ["a", "b"] {
        wait_until("it has crossed", || reader.cmd(&format!("GET {key}")) == b"$1\r\n1\r\n");
    }
}

#[test]
fn keys_that_are_not_watched_are_not_published() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let (one, other) = two(
        &redis,
        &nats,
        "defaults:\n  cache: { admit_after: 1 }\nrules:\n  - match: \"local:*\"\n    watch: false\n  - match: \"*\"\n",
    );
    let (mut reader, mut writer) = (one.client(), other.client());
    reader.cmd("MSET local:k 1 k 1");
    one.warm(&mut reader, "local:k");
    one.warm(&mut reader, "k");
    writer.cmd("SET local:k 2");
    writer.cmd("SET k 2");
    wait_until("the watched one has crossed", || reader.cmd("GET k") == b"$1\r\n2\r\n");
    assert_reply(&reader.cmd("GET local:k"), "$1\r\n1\r\n", "the other one has not");
    assert_reply(&writer.cmd("GET local:k"), "$1\r\n2\r\n", "but at home it is right");
}

#[test]
fn fleets_of_different_names_do_not_hear_each_other() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let one = Shortstop::in_fleet(&redis, &nats, &format!("fleet: blue\nbus: {{ json: false }}\n{EAGER}"));
    let (mut reader, same) =
        (one.client(), Shortstop::in_fleet(&redis, &nats, &format!("fleet: blue\nbus: {{ json: false }}\n{EAGER}")));
    let other = Shortstop::in_fleet(&redis, &nats, &format!("fleet: green\nbus: {{ json: false }}\n{EAGER}"));
    one.wait_stat("peers", |peers| peers == 1);
    same.wait_stat("peers", |peers| peers == 1);
    assert_eq!(other.stat("peers"), 0, "alone in its fleet");
    reader.cmd("MSET k 1 sign 1");
    one.warm(&mut reader, "k");
    one.warm(&mut reader, "sign");
    other.client().cmd("SET k 2");
    same.client().cmd("SET sign 2");
    wait_until("one's own fleet is heard", || reader.cmd("GET sign") == b"$1\r\n2\r\n");
    assert_reply(&reader.cmd("GET k"), "$1\r\n1\r\n", "the other one is not");
}

#[test]
fn many_writes_cross_without_a_gap() {
    const KEYS: usize = 5_000;
    let (redis, nats) = (Redis::start(), Nats::start());
    let (one, other) = two(&redis, &nats, EAGER);
    let (mut reader, mut writer) = (one.client(), other.client());
    let names: Vec<String> = (0..KEYS).map(|i| format!("GET k{i}")).collect();
    let gets = pipeline_of(&names);
    for round in ["1", "2", "3"] {
        let sets: Vec<String> = (0..KEYS).map(|i| format!("SET k{i} {round}")).collect();
        writer.pipeline(&pipeline_of(&sets), KEYS);
        wait_until("every one of them has crossed", || {
            reader.pipeline(&gets, KEYS).iter().all(|reply| *reply == bulk(round.as_bytes()))
        });
        let again = reader.pipeline(&gets, KEYS);
        assert!(again.iter().all(|reply| *reply == bulk(round.as_bytes())), "also from L1");
    }
    assert_eq!(one.stat("gaps"), 0, "nothing was lost");
    assert!(one.stat("l1_hits") > 0, "a run without hits shows nothing");
}

#[test]
fn without_nats_shortstop_runs_alone_and_says_so() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    proxy.wait_mode("single");
    assert_eq!((proxy.stat("nats_connected"), proxy.stat("peers")), (0, 0), "nobody there");
}

#[test]
fn nats_may_come_later() {
    let redis = Redis::start();
    let mut nats = Nats::start();
    nats.kill();
    let proxy = Shortstop::start(&redis, &format!("nats: {}\n{EAGER}", nats.url()));
    let mut client = proxy.client();
    assert_reply(&client.cmd("SET k v"), "+OK\r\n", "serves at once");
    assert_reply(&client.cmd("GET k"), "$1\r\nv\r\n", "serves at once");
    assert_ne!(proxy.mode(), "live", "without NATS nothing is proven");
    nats.restart();
    proxy.wait_mode("live");
    assert_eq!(proxy.stat("nats_connected"), 1, "connected");
}

#[test]
fn nats_killed_and_restarted() {
    let redis = Redis::start();
    let mut nats = Nats::start();
    let (one, other) = two(&redis, &nats, "degraded_staleness: 100ms\ndefaults:\n  cache: { admit_after: 1 }\n");
    let (mut reader, mut writer) = (one.client(), other.client());
    for round in 0..2 {
        writer.cmd(&format!("SET k before{round}"));
        wait_until("seen", || reader.cmd("GET k") == bulk(format!("before{round}").as_bytes()));
        one.warm(&mut reader, "k");
        nats.kill();
        one.wait_mode("degraded");
        other.wait_mode("degraded");
        // Both continue. The other sees a write at one within degraded_staleness.
        assert_reply(&writer.cmd(&format!("SET k during{round}")), "+OK\r\n", "a write");
        wait_until("seen without NATS", || reader.cmd("GET k") == bulk(format!("during{round}").as_bytes()));
        assert_eq!(one.stat("nats_connected"), 0, "and it says so");
        nats.restart();
        for proxy in [&one, &other] {
            proxy.wait_mode("live");
            proxy.wait_stat("peers", |peers| peers == 1);
        }
        one.settle(&redis, &mut reader, "k");
        writer.cmd(&format!("SET k after{round}"));
        wait_until("an invalidation crosses again", || reader.cmd("GET k") == bulk(format!("after{round}").as_bytes()));
    }
    assert!(one.stat("flushes") > 0, "a feed that was lost ends in a flush");
}

#[test]
fn a_nats_that_hangs_is_noticed() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let (one, other) = two(&redis, &nats, "degraded_staleness: 100ms\ndefaults:\n  cache: { admit_after: 1 }\n");
    let (mut reader, mut writer) = (one.client(), other.client());
    writer.cmd("SET k before");
    wait_until("seen", || reader.cmd("GET k") == b"$6\r\nbefore\r\n");
    one.warm(&mut reader, "k");
    // The connection stays open; only the echo of Shortstop's own heartbeat is missing.
    nats.signal("STOP");
    writer.cmd("SET k during");
    wait_until("seen although nothing was heard", || reader.cmd("GET k") == b"$6\r\nduring\r\n");
    one.wait_mode("degraded");
    nats.signal("CONT");
    one.wait_mode("live");
    other.wait_mode("live");
}

#[test]
fn a_peer_that_leaves_is_forgotten() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let (one, other) = two(&redis, &nats, EAGER);
    // No BYE: the others wait for it until Redis has not shown it for some time.
    drop(other);
    wait_within(Duration::from_secs(40), "it is let go", || one.stat("peers") == 0);
    one.wait_mode("live");
    let again = Shortstop::in_fleet(&redis, &nats, EAGER);
    one.wait_stat("peers", |peers| peers == 1);
    one.wait_mode("live");
    drop(again);
}

#[test]
fn garbage_on_the_subject_only_causes_flushes() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let proxy = Shortstop::in_fleet(&redis, &nats, EAGER);
    let (mut client, mut stranger) = (proxy.client(), NatsClient::connect(nats.addr()));
    for payload in
        [&b""[..], b"\0", b"hello", &[0xff; 3_000], &[1; 40], &common::noise(500, 1), b"{\"action\":\"clear\"}"]
    {
        client.cmd("SET k old");
        proxy.warm(&mut client, "k");
        redis.client().cmd("SET k new");
        stranger.publish("shortstop.v1.default", payload);
        // A message that is not understood may have been an invalidation.
        wait_until("a doubt ends in a flush", || client.cmd("GET k") == b"$3\r\nnew\r\n");
        proxy.wait_mode("live");
    }
}

#[test]
fn a_service_can_invalidate_in_json() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let proxy = Shortstop::in_fleet(&redis, &nats, EAGER);
    let (mut client, mut service) = (proxy.client(), NatsClient::connect(nats.addr()));
    for (message, drops, keeps) in [
        (r#"{"action":"invalidate","key":"user:1","timestamp":"2024-01-01T00:00:00Z"}"#, "user:1", Some("user:2")),
        (r#"{"action":"invalidate","key":"user:1"}"#, "user:1", Some("user:2")),
        (
            r#"{"action":"invalidate","key":"user:1","instance":"another-service","more":[1,{}]}"#,
            "user:1",
            Some("user:2"),
        ),
        (r#"{"action":"invalidate","key_base64":"dXNlcjox"}"#, "user:1", Some("user:2")),
        (r#"{"action":"invalidate_pattern","pattern":"user:*"}"#, "user:1", None),
        (r#"{"action":"invalidate_pattern","key":"user:?"}"#, "user:2", None),
        (r#"{"action":"clear"}"#, "user:1", None),
    ] {
        client.cmd("MSET user:1 old user:2 old");
        proxy.warm(&mut client, "user:1");
        proxy.warm(&mut client, "user:2");
        redis.client().cmd("MSET user:1 new user:2 new");
        service.publish("cache.invalidate", message.as_bytes());
        wait_until(message, || client.cmd(&format!("GET {drops}")) == b"$3\r\nnew\r\n");
        if let Some(keeps) = keeps {
            assert_reply(&client.cmd(&format!("GET {keeps}")), "$3\r\nold\r\n", "only what was named");
        }
    }
}

#[test]
fn bad_json_does_no_harm() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let proxy = Shortstop::in_fleet(&redis, &nats, EAGER);
    let (mut client, mut service) = (proxy.client(), NatsClient::connect(nats.addr()));
    client.cmd("MSET k old last old");
    proxy.warm(&mut client, "k");
    proxy.warm(&mut client, "last");
    redis.client().cmd("MSET k new last new");
    let deep = "[".repeat(20_000);
    for message in [
        "",
        "{",
        "null",
        "[]",
        "7",
        "\u{fffd}",
        r#"{"action":"invalidate"}"#,
        r#"{"action":7,"key":"k"}"#,
        r#"{"action":"explode","key":"k"}"#,
        r#"{"action":"invalidate","key":["k"]}"#,
        r#"{"action":"invalidate","key_base64":"***"}"#,
        &deep,
    ] {
        service.publish("cache.invalidate", message.as_bytes());
    }
    service.publish("cache.invalidate", br#"{"action":"invalidate","key":"last"}"#);
    wait_until("what comes after it is heard", || client.cmd("GET last") == b"$3\r\nnew\r\n");
    assert_reply(&client.cmd("GET k"), "$3\r\nold\r\n", "nothing was dropped for it");
}

#[test]
fn writes_are_published_to_services_in_json() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let proxy =
        Shortstop::in_fleet(&redis, &nats, "rules:\n  - match: \"private:*\"\n    watch: false\n  - match: \"*\"\n");
    let mut service = NatsClient::connect(nats.addr());
    service.subscribe("cache.invalidate");
    let mut client = proxy.client();
    client.cmd("SET private:k v");
    client.cmd("GET absent");
    for (line, key) in [("SET k v", "k"), ("DEL k", "k"), ("HSET user:1 f v", "user:1"), ("SET k v2", "k")] {
        client.cmd(line);
        let message: Value = serde_json::from_slice(&service.next()).expect("JSON");
        assert_eq!(message["action"], "invalidate", "{line}");
        assert_eq!(message["key"], key, "{line}");
        let time = message["timestamp"].as_str().expect("a timestamp");
        assert!(time.len() >= 20 && time.as_bytes()[10] == b'T', "RFC 3339: {time}");
        assert!(message["instance"].as_str().is_some_and(|instance| !instance.is_empty()), "whose it is: {message}");
    }
    client.call(&[b"SET", b"\xff\x00", b"v"]);
    let message: Value = serde_json::from_slice(&service.next()).expect("JSON");
    assert_eq!(message["key_base64"], "/wA=", "a key that is no text");
    assert!(service.next_within(Duration::from_millis(100)).is_none(), "and nothing else");
}

#[test]
fn json_can_be_switched_off_or_moved() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let silent = Shortstop::in_fleet(&redis, &nats, "bus: { json: false }\n");
    let moved =
        Shortstop::in_fleet(&redis, &nats, &format!("fleet: other\nbus: {{ json_subject: team.cache }}\n{EAGER}"));
    let mut usual = NatsClient::connect(nats.addr());
    usual.subscribe("cache.invalidate");
    let mut own = NatsClient::connect(nats.addr());
    own.subscribe("team.cache");
    silent.client().cmd("SET silent v");
    let mut client = moved.client();
    client.cmd("SET k v");
    let message: Value = serde_json::from_slice(&own.next()).expect("JSON");
    assert_eq!(message["key"], "k");
    assert!(usual.next_within(Duration::from_millis(100)).is_none(), "nothing on the usual subject");
    moved.warm(&mut client, "k");
    redis.client().cmd("SET k new");
    NatsClient::connect(nats.addr()).publish("team.cache", br#"{"action":"invalidate","key":"k"}"#);
    wait_until("heard on the subject of its own", || client.cmd("GET k") == b"$3\r\nnew\r\n");
}
