//! Tests of the test tools, with real servers.

mod common;

use std::time::Duration;

use common::{
    Client, Fault, Nats, NatsClient, Redis, Way, assert_reply, bulk, filled, misses_a_certificate, noise, pipeline_of,
    prose, wait_until,
};

#[test]
fn redis_is_killed_and_comes_back_on_its_port() {
    let mut redis = Redis::start();
    let other = Redis::start();
    assert_ne!(redis.addr(), other.addr(), "each has a port of its own");
    assert_reply(&redis.client().cmd("SET k v"), "+OK\r\n", "set");
    let mut client = redis.client();
    redis.kill();
    assert_reply(&client.until_closed(), "", "its clients are gone");
    assert!(Client::try_connect(redis.addr()).is_err(), "nobody listens");
    redis.restart();
    assert_reply(&redis.client().cmd("GET k"), "$-1\r\n", "it keeps nothing");
    assert_eq!(redis.connections(), 0, "and has nobody");
    let kept = Redis::start_with(&["--databases", "3"]);
    assert_reply(&kept.client().cmd("SELECT 3"), "-ERR DB index is out of range\r\n", "arguments are passed on");
}

/// Each line is what that server said.
#[test]
fn a_server_without_tls_is_told_from_one_without_a_certificate() {
    for (said, with) in [
        ("# No tls-cert-file configured!\n# Failed to configure TLS. Check logs for more info.", true),
        // Redis 6.2.14
        (">>> 'tls-port \"17999\"'\nBad directive or wrong number of arguments", false),
        // Redis 8.2.3 and 8.6.2, Valkey 8.1.8 and 9.1.2
        ("# Missing implement of connection type tls\n# Failed finding TLS support.", false),
    ] {
        assert_eq!(misses_a_certificate(said), with, "{said}");
    }
    // The server in the path has TLS, or this fails.
    assert!(Redis::has_tls() || std::env::var_os("REDIS_SERVER").is_some());
}

#[test]
fn nats_carries_messages_and_comes_back() {
    let mut nats = Nats::start();
    for round in 0..2 {
        let (mut listener, mut speaker) = (NatsClient::connect(nats.addr()), NatsClient::connect(nats.addr()));
        listener.subscribe("a.b");
        for payload in [&b""[..], b"hello", b"\r\nMSG\r\n", &noise(10_000, round)] {
            speaker.publish("a.other", b"not for us");
            speaker.publish("a.b", payload);
            assert_eq!(listener.next(), payload);
        }
        assert!(listener.next_within(Duration::from_millis(20)).is_none(), "nothing else");
        nats.kill();
        assert!(listener.next_within(common::PATIENCE).is_none(), "the end");
        nats.restart();
    }
}

#[test]
fn the_end_of_each_reply_is_found() {
    let redis = Redis::start();
    let mut client = redis.client();
    let lines = [
        "HELLO 3",
        "SET k v",
        "GET k",
        "GET none",
        "HSET h a 1",
        "HGETALL h",
        "SMEMBERS none",
        "ZADD z 1.5 m",
        "ZSCORE z m",
        "LRANGE none 0 -1",
        "NOSUCH",
        "CLIENT TRACKING ON",
        "MULTI",
        "GET k",
        "EXEC",
        "HELLO 2",
        "HGETALL h",
    ];
    let replies = client.pipeline(&pipeline_of(&lines), lines.len());
    let first: Vec<u8> = replies.iter().map(|reply| reply[0]).collect();
    // Map, status, string, null, number, map, set, number, double, array, error, …
    assert_eq!(first.escape_ascii().to_string(), "%+$_:%~:,*-+++***");
    assert_reply(&client.fill("ECHO $1", &[b"two words"]), bulk(b"two words"), "values in place");
    assert_eq!(filled("SET $1 $2 EX $3", &[b"a", b"b"]), filled("SET a b EX $3", &[]));
}

#[test]
fn a_wire_counts_holds_releases_and_cuts() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let mut client = Client::connect(wire.addr());
    assert_reply(&client.cmd("PING"), "+PONG\r\n", "carried");
    assert_eq!((wire.bytes(Way::Up), wire.bytes(Way::Down), wire.connections()), (14, 7, 1));
    for way in [Way::Up, Way::Down] {
        wire.hold(way);
        client.send(&pipeline_of(&["INCR n"]));
        client.assert_silent(Duration::from_millis(30));
        let executed = redis.client().cmd("EXISTS n") == b":1\r\n";
        assert_eq!(executed, way == Way::Down, "requests held never arrive, replies held did their work");
        wire.release();
        assert!(client.reply().starts_with(b":"), "released");
        redis.client().cmd("DEL n");
    }
    wire.cut();
    assert_reply(&client.until_closed(), "", "cut");
    wait_until("the server sees it too", || redis.connections() == 0);
    assert_reply(&Client::connect(wire.addr()).cmd("PING"), "+PONG\r\n", "new ones are carried");
    wire.refuse(true);
    assert_reply(&Client::connect(wire.addr()).until_closed(), "", "or not");
    // Large transfers in both directions at once.
    wire.refuse(false);
    let mut client = Client::connect(wire.addr());
    let value = noise(20_000_000, 1);
    client.call(&[b"SET", b"k", &value]);
    assert_reply(&client.cmd("GET k"), bulk(&value), "whole");
}

#[test]
fn a_wire_holds_the_replies_to_one_request() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let (mut one, mut other) = (Client::connect(wire.addr()), Client::connect(wire.addr()));
    wire.hold_replies_to(b"INCR\r\n$1\r\nn\r\n");
    // In two pieces, so that it must be found across them.
    one.send(b"*2\r\n$4\r\nINC");
    assert_reply(&other.cmd("PING"), "+PONG\r\n", "the other connection");
    one.send(b"R\r\n$1\r\nn\r\n");
    wire.wait_caught();
    wait_until("it was executed", || redis.client().cmd("GET n") == b"$1\r\n1\r\n");
    one.assert_silent(Duration::from_millis(30));
    assert_reply(&other.cmd("PING"), "+PONG\r\n", "the other connection goes on");
    wire.release();
    assert_reply(&one.reply(), ":1\r\n", "released");
    wire.hold_replies_to(b"INCR\r\n");
    one.send(&pipeline_of(&["INCR n"]));
    wire.wait_caught();
    wire.cut_caught();
    assert_reply(&one.until_closed(), "", "cut with its reply");
    assert_reply(&other.cmd("GET n"), "$1\r\n2\r\n", "executed all the same");
}

#[test]
fn generated_values_have_the_promised_properties() {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(3));
        std::io::Write::write_all(&mut encoder, bytes).expect("memory takes it");
        encoder.finish().expect("memory takes it").len()
    };
    for length in [0, 1, 1_000, 100_000] {
        assert_eq!((noise(length, 1).len(), prose(length, 1).len()), (length, length));
        assert!(noise(length, 1) == noise(length, 1), "the same each time");
    }
    assert!(gzip(&noise(10_000, 1)) >= 10_000, "noise cannot be compressed");
    assert!(gzip(&prose(1_024, 1)) < 512, "prose can");
}
