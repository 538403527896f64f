//! PROXY EVENTS: what happened, when, why, and how long the former state lasted.

mod common;
#[path = "monitor/http.rs"]
mod http;

use common::{Client, Nats, Redis, Shortstop, wait_until};
use http::get;
use serde_json::Value;

const ANYWHERE: &str = "monitor: 127.0.0.1:0\n";

/// All events, the newest first.
fn events(proxy: &Shortstop) -> Vec<Value> {
    let events = get(proxy.monitor(), "/api/events?n=1000").json();
    events.as_array().expect("a list").clone()
}

/// The newest event of a kind that is `right`.
fn find(proxy: &Shortstop, kind: &str, right: impl Fn(&Value) -> bool) -> Option<Value> {
    events(proxy).into_iter().find(|event| event["event"] == kind && right(event))
}

/// Waits for an event of a kind that is `right`.
#[track_caller]
fn await_event(proxy: &Shortstop, kind: &str, right: impl Fn(&Value) -> bool) -> Value {
    wait_until(&format!("an event {kind}"), || find(proxy, kind, &right).is_some());
    find(proxy, kind, right).expect("it was there")
}

fn any(_: &Value) -> bool {
    true
}

#[test]
fn the_absence_of_redis_is_told_with_its_length() {
    let mut redis = Redis::start();
    let proxy = Shortstop::start(&redis, ANYWHERE);
    let started = await_event(&proxy, "started", any);
    assert!(started["why"].as_str().expect("a text").contains(&proxy.addr().to_string()), "{started}");
    await_event(&proxy, "upstream_up", any);
    let role = await_event(&proxy, "role", any);
    assert_eq!(role["why"], "primary");
    let mode = await_event(&proxy, "mode", any);
    assert_eq!((mode["reason"].as_str(), mode["lasted_ms"].is_u64()), (Some("no_nats"), true), "{mode}");
    redis.kill();
    let down = await_event(&proxy, "upstream_down", any);
    assert!(down["why"].as_str().expect("a text").contains(&redis.addr().to_string()), "{down}");
    redis.restart();
    let up = await_event(&proxy, "upstream_up", |up| up["id"].as_u64() > down["id"].as_u64());
    let time = |event: &Value| humantime::parse_rfc3339(event["time"].as_str().expect("a time")).expect("a time");
    let between = time(&up).duration_since(time(&down)).expect("it was later");
    let lasted = up["lasted_ms"].as_u64().expect("a number");
    assert!(between.as_millis().abs_diff(u128::from(lasted)) < 100, "{between:?} {lasted}");
}

#[test]
fn several_flushes_at_once_are_one_event() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, ANYWHERE);
    let mut client = proxy.client();
    client.pipeline(&common::pipeline_of(&["PROXY FLUSH"; 20]), 20);
    let by_hand = |event: &Value| event["reason"] == "other" && event["why"] == "PROXY FLUSH";
    let flush = await_event(&proxy, "flush", by_hand);
    assert!(flush["count"].as_u64().expect("a number") > 1, "{flush}");
    let each = events(&proxy).into_iter().filter(by_hand).map(|event| event["count"].as_u64().expect("a number"));
    assert_eq!(each.sum::<u64>(), 20);
}

#[test]
fn a_reload_tells_what_has_changed() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, ANYWHERE);
    proxy.reload(&format!("{ANYWHERE}max_staleness: 5s\nl1: {{ max_entries: 7 }}\n"));
    let reloaded = await_event(&proxy, "reloaded", any);
    assert_eq!(reloaded["why"], "l1.max_entries: 100000 -> 7, max_staleness: 1m -> 5s");
}

#[test]
fn nats_and_peers_come_and_go() {
    let (redis, mut nats) = (Redis::start(), Nats::start());
    let proxy = Shortstop::in_fleet(&redis, &nats, ANYWHERE);
    await_event(&proxy, "nats_connected", any);
    let other = Shortstop::in_fleet(&redis, &nats, "");
    let found = await_event(&proxy, "peer_found", any);
    drop(other);
    let peer =
        |event: &Value| event["why"].as_str().expect("a text").starts_with(found["why"].as_str().expect("a text"));
    let gone = |kind| find(&proxy, kind, peer);
    wait_until("the peer is lost or gone", || gone("peer_gone").or(gone("peer_lost")).is_some());
    nats.kill();
    let lost = await_event(&proxy, "nats_lost", any);
    assert!(lost["lasted_ms"].is_u64(), "{lost}");
    await_event(&proxy, "mode", |mode| mode["reason"] == "bus_in_doubt");
}

#[test]
fn refused_and_dropped_clients_are_told() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &format!("{ANYWHERE}limits: {{ max_clients: 1, query_buffer: 1mb }}\n"));
    let mut first = proxy.client();
    first.cmd("PING");
    Client::connect(proxy.addr()).until_closed();
    let refused = await_event(&proxy, "client_refused", any);
    assert_eq!(refused["reason"], "max_clients");
    let _ = first.try_send(&[b"*1\r\n$2000000\r\n".to_vec(), vec![b'x'; 2_000_000]].concat());
    let dropped = await_event(&proxy, "client_dropped", any);
    assert_eq!(dropped["reason"], "query_buffer");
    assert!(dropped["why"].as_str().expect("a text").contains("limits.query_buffer"), "{dropped}");
}

#[test]
fn redis_cli_and_http_show_the_same_events() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, ANYWHERE);
    await_event(&proxy, "upstream_up", any);
    let mut client = proxy.client();
    let told = String::from_utf8(client.cmd("PROXY EVENTS 1000")).expect("text");
    for event in events(&proxy) {
        let time = event["time"].as_str().expect("a time");
        assert!(told.contains(time), "{told} has no {event}");
    }
    assert_eq!(client.cmd("PROXY EVENTS 0"), b"*0\r\n");
    assert!(client.cmd("PROXY EVENTS 1").starts_with(b"*1\r\n*16\r\n$2\r\nid\r\n"));
    for wrong in ["PROXY EVENTS -1", "PROXY EVENTS x"] {
        assert_eq!(client.cmd(wrong), b"-ERR count must be a number, 0 or more\r\n", "{wrong}");
    }
    assert!(client.cmd("PROXY EVENTS 1 2").starts_with(b"-ERR wrong number of arguments"));
    assert_eq!(get(proxy.monitor(), "/api/events").json().as_array().map(Vec::is_empty), Some(false));
    assert_eq!(get(proxy.monitor(), "/api/events?n=x").status, 400);
}
