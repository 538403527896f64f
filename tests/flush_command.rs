//! PROXY FLUSH drops all keys or those that match, here or in the whole fleet, and Redis keeps them.

mod common;
#[path = "monitor/http.rs"]
mod http;

use common::{Client, Nats, Redis, Shortstop, assert_reply, bulk, wait_until, warm};
use http::raw;

/// Whether L1 answers a GET of the key.
fn is_kept(proxy: &Shortstop, key: &str) -> bool {
    let reply = proxy.client().cmd(&format!("PROXY EXPLAIN {key}"));
    let text = String::from_utf8_lossy(&reply).into_owned();
    text.contains("\r\nin_l1\r\n:1\r\n")
}

/// Sets and reads these keys until L1 has them.
fn fill(proxy: &Shortstop, client: &mut Client, keys: &[&str]) {
    for key in keys {
        client.cmd(&format!("SET {key} v"));
        warm(proxy.addr(), client, key.as_bytes());
    }
}

#[test]
fn a_pattern_drops_what_it_matches() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    fill(&proxy, &mut client, &["user:1", "user:2", "order:1"]);
    let hits = proxy.stat("l1_hits");
    assert_reply(&client.cmd("PROXY FLUSH user:*"), "+OK\r\n", "done");
    assert_eq!(["user:1", "user:2", "order:1"].map(|key| is_kept(&proxy, key)), [false, false, true]);
    assert_reply(&client.cmd("GET user:1"), bulk(b"v"), "Redis has it");
    assert_eq!(proxy.stat("l1_hits"), hits);
    client.cmd("GET order:1");
    assert_eq!(proxy.stat("l1_hits"), hits + 1, "another key is still a hit");
    assert_reply(&client.cmd("PROXY FLUSH"), "+OK\r\n", "done");
    assert!(!is_kept(&proxy, "order:1"));
    for wrong in ["PROXY FLUSH a b", "PROXY FLUSH FLEET", "PROXY FLUSH a FLEET"] {
        assert!(client.cmd(wrong).starts_with(b"-ERR "), "{wrong}");
    }
    let longest = "x".repeat(4096);
    assert_reply(&client.call(&[b"PROXY", b"FLUSH", longest.as_bytes()]), "+OK\r\n", "as long as may be");
    for wrong in [String::new(), format!("{longest}x")] {
        assert!(client.call(&[b"PROXY", b"FLUSH", wrong.as_bytes()]).starts_with(b"-ERR the pattern must have"));
    }
}

#[test]
fn the_fleet_drops_them_too() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let one = Shortstop::in_fleet(&redis, &nats, "monitor: 127.0.0.1:0\nmonitor_token: s3cret\n");
    let other = Shortstop::in_fleet(&redis, &nats, "");
    for proxy in [&one, &other] {
        proxy.wait_mode("live");
        wait_until("it knows the other", || proxy.stat("peers") == 1);
    }
    let mut clients = [one.client(), other.client()];
    fill(&one, &mut clients[0], &["user:1", "user:2", "order:1"]);
    for key in ["user:1", "user:2", "order:1"] {
        warm(other.addr(), &mut clients[1], key.as_bytes());
    }
    assert_reply(&clients[0].cmd("PROXY FLUSH user:1"), "+OK\r\n", "only here");
    assert_reply(&clients[0].cmd("PROXY FLUSH user:2 fleet"), "+OK\r\n", "in the fleet");
    wait_until("the peer has dropped it", || !is_kept(&other, "user:2"));
    assert!(!is_kept(&one, "user:1") && is_kept(&other, "user:1") && is_kept(&other, "order:1"));
    let send = |path: &str, header: &str| {
        raw(
            one.monitor(),
            &format!(
                "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{header}Content-Length: 0\r\n\r\n"
            ),
        )
    };
    assert_eq!(send("/api/flush?fleet=true", "").status, 401);
    assert_eq!(send("/api/flush?fleet=perhaps", "Authorization: Bearer s3cret\r\n").status, 400);
    assert_eq!(send("/api/flush?fleet=true", "Authorization: Bearer s3cret\r\n").body, "\"OK\"");
    wait_until("the peer has dropped everything", || !is_kept(&other, "user:1") && !is_kept(&other, "order:1"));
    assert!(!is_kept(&one, "order:1"));
}
