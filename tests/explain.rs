//! PROXY EXPLAIN tells the rule of a key, whether L1 answers or why not, and changes nothing by asking.

mod common;
#[path = "monitor/http.rs"]
mod http;

use common::{Client, Fault, Nats, Redis, Shortstop, assert_reply, said, show, wait_until};
use http::get;
use serde_json::Value;

fn explain(client: &mut Client, key: &str) -> Vec<u8> {
    client.cmd(&format!("PROXY EXPLAIN {key}"))
}

#[track_caller]
fn assert_why(client: &mut Client, key: &str, why: &str) -> Vec<u8> {
    let reply = explain(client, key);
    assert_eq!(said(&reply, "why_not"), why, "{}", show(&reply));
    assert_eq!(said(&reply, "in_l1"), if why == "nil" { "1" } else { "0" });
    reply
}

/// Started, and serving from L1: before Redis has told its role, `why_not` is `not_serving` for every key.
fn serving(redis: &Redis, yaml: &str) -> Shortstop {
    let proxy = Shortstop::start(redis, yaml);
    proxy.wait_mode("single");
    proxy
}

const RULES: &str = r#"workers: 1
defaults: { cache: { admit_after: 3 } }
rules:
  - match: "raw:*"
    cache: false
    watch: false
    compress: false
  - match: "small:*"
    cache: { max_value: 10b, admit_after: 1 }
"#;

#[test]
fn it_follows_a_key_and_counts_nothing() {
    let redis = Redis::start();
    let proxy = serving(&redis, RULES);
    let mut client = proxy.client();
    let value = common::prose(5_000, 1);
    client.call(&[b"SET", b"k", &value]);
    let reply = assert_why(&mut client, "k", "never_requested");
    assert_eq!([said(&reply, "match"), said(&reply, "number"), said(&reply, "line")], ["defaults", "nil", "nil"]);
    assert_eq!((said(&reply, "admit_after"), said(&reply, "requests")), ("3".into(), "0".into()));
    assert_eq!(said(&reply, "next_get"), "It goes to Redis as request 1; the reply is kept from request 3 on.");
    for request in 1..=2 {
        client.cmd("GET k");
        // Asked often: a look that counted would admit the key.
        for _ in 0..5 {
            let reply = assert_why(&mut client, "k", "not_admitted");
            assert_eq!(said(&reply, "requests"), request.to_string());
        }
    }
    assert!(said(&explain(&mut client, "k"), "next_get").starts_with("It goes to Redis with PTTL"));
    client.cmd("GET k");
    let hits = proxy.stat("l1_hits");
    let reply = assert_why(&mut client, "k", "nil");
    assert_eq!(said(&reply, "next_get"), "It is answered from L1.");
    assert_eq!((said(&reply, "codec"), said(&reply, "size_plain")), ("gzip".into(), "5000".into()));
    let stored: usize = said(&reply, "size_stored").parse().expect("a number");
    assert_reply(&redis.client().cmd("STRLEN k"), format!(":{stored}\r\n"), "its size in Redis");
    assert_eq!((said(&reply, "command"), said(&reply, "replies_of_other_users")), ("GET".into(), "0".into()));
    assert!(said(&reply, "next_set").starts_with("It drops 1 reply from L1; no other instance is told (no NATS);"));
    assert_eq!(proxy.stat("l1_hits"), hits, "a look is no hit");
    // Another database has other keys.
    client.cmd("SELECT 1");
    assert_why(&mut client, "k", "never_requested");
    client.cmd("SELECT 0");
    client.cmd("SET k 2");
    let reply = assert_why(&mut client, "k", "written");
    assert_eq!((said(&reply, "why"), said(&reply, "by")), ("written".into(), "nil".into()));
    client.cmd("GET k");
    assert_why(&mut client, "k", "nil");
    client.cmd("PROXY FLUSH");
    wait_until("the flush is seen", || said(&explain(&mut client, "k"), "why_not") == "flushed");
}

#[test]
fn it_names_the_rule_and_why_a_reply_was_not_kept() {
    let redis = Redis::start();
    let proxy = serving(&redis, RULES);
    let mut client = proxy.client();
    let reply = assert_why(&mut client, "raw:1", "rule");
    assert_eq!([said(&reply, "match"), said(&reply, "number")], ["raw:*", "1"]);
    // Behind the lines that the harness adds.
    let line: usize = said(&reply, "line").parse().expect("a line");
    let other: usize = said(&explain(&mut client, "small:1"), "line").parse().expect("a line");
    assert_eq!(other, line + 4);
    assert_eq!([said(&reply, "cache"), said(&reply, "watch"), said(&reply, "compress")], ["nil", "0", "nil"]);
    assert!(said(&reply, "next_set").ends_with("the value is not compressed."));
    client.cmd("SET small:1 01234567890");
    client.cmd("GET small:1");
    let reply = assert_why(&mut client, "small:1", "too_large");
    assert_eq!(said(&reply, "size_plain"), "11");
    client.cmd("GET small:2");
    assert_why(&mut client, "small:2", "absent");
    client.cmd("LPUSH small:3 x");
    client.cmd("GET small:3");
    assert_why(&mut client, "small:3", "not_a_value");
}

#[test]
fn a_write_in_flight_is_seen() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), "workers: 1\ndefaults: { cache: { admit_after: 1 } }\n");
    let (mut writer, mut other) = (proxy.client(), proxy.client());
    writer.cmd("SET k 1");
    proxy.warm(&mut other, "k");
    wire.hold_replies_to(b"held");
    writer.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\nheld\r\n");
    wire.wait_held();
    let reply = assert_why(&mut other, "k", "write_in_flight");
    assert!(said(&reply, "next_get").contains("not kept until the write has ended"));
    wire.release();
    assert_reply(&writer.reply(), "+OK\r\n", "the write");
    assert_why(&mut other, "k", "written");
}

#[test]
fn an_entry_is_its_users_and_a_user_without_pttl_is_told() {
    let redis = Redis::start();
    let mut direct = redis.client();
    direct.cmd("ACL SETUSER one on >pw ~* +@all");
    direct.cmd("ACL SETUSER odd on >pw ~* +@all -pttl");
    let proxy = Shortstop::start(&redis, "workers: 1\ndefaults: { cache: { admit_after: 1 } }\n");
    let [mut one, mut odd, mut free] = [proxy.client(), proxy.client(), proxy.client()];
    one.cmd("AUTH one pw");
    odd.cmd("AUTH odd pw");
    one.cmd("SET k 1");
    proxy.warm(&mut one, "k");
    assert_why(&mut one, "k", "nil");
    let reply = assert_why(&mut free, "k", "never_requested");
    assert_eq!(said(&reply, "replies_of_other_users"), "1");
    wait_until("the rights are known", || {
        odd.cmd("GET k");
        said(&explain(&mut odd, "k"), "why_not") == "ttl_unknown"
    });
}

#[test]
fn the_instance_that_wrote_a_key_is_named() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let eager = "workers: 1\ndefaults: { cache: { admit_after: 1 } }\n";
    let (one, other) = (Shortstop::in_fleet(&redis, &nats, eager), Shortstop::in_fleet(&redis, &nats, eager));
    one.wait_stat("peers", |peers| peers == 1);
    other.wait_stat("peers", |peers| peers == 1);
    let (mut reader, mut writer) = (one.client(), other.client());
    writer.cmd("SET k 1");
    one.settle(&redis, &mut reader, "k");
    writer.cmd("SET k 2");
    wait_until("the write has crossed", || said(&explain(&mut reader, "k"), "why_not") == "invalidated");
    let reply = explain(&mut reader, "k");
    let incarnation = common::field(&writer.cmd("PROXY INFO proxy"), "incarnation").expect("it is in INFO");
    assert_eq!([said(&reply, "why"), said(&reply, "by"), said(&reply, "over")], ["invalidated", &incarnation, "nats"]);
    assert!(said(&reply, "next_set").contains("the other instances are told over NATS"));
}

#[test]
fn json_says_the_same_and_shows_no_key_when_told_so() {
    let redis = Redis::start();
    let yaml = "monitor: 127.0.0.1:0\nworkers: 2\nredact_keys: true\ndefaults: { cache: { admit_after: 1 } }\n";
    let proxy = Shortstop::start(&redis, yaml);
    let mut client = proxy.client();
    client.cmd("SET secret:1 v");
    proxy.warm(&mut client, "secret:1");
    let answer = get(proxy.monitor(), "/api/explain?key=secret:1");
    assert!(answer.head.contains("application/json"), "{}", answer.head);
    let json = answer.json();
    assert_eq!((json["in_l1"].clone(), json["why_not"].clone()), (Value::Bool(true), Value::Null), "{}", answer.body);
    assert_eq!((json["rule"]["match"].clone(), json["rule"]["line"].clone()), ("defaults".into(), Value::Null));
    assert_eq!((json["key"].clone(), json["size_stored"].clone()), ("(redacted)".into(), 1.into()));
    let reply = explain(&mut client, "secret:1");
    assert!(!answer.body.contains("secret") && !String::from_utf8_lossy(&reply).contains("secret"));
    assert_eq!(get(proxy.monitor(), "/api/explain").status, 400);
}
