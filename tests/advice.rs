//! PROXY ADVICE: what is measured is right, each kind of advice appears, and its lines take effect.

mod common;
#[path = "monitor/http.rs"]
mod http;
#[path = "monitor/schema.rs"]
mod schema;

use std::path::Path;

use common::{Client, Redis, Shortstop, assert_reply, pipeline_of, wait_until};
use http::get;
use serde_json::Value;

/// The answer of `/api/advice`, which its schema describes.
#[track_caller]
fn advice(proxy: &Shortstop) -> Value {
    let answer = get(proxy.monitor(), "/api/advice").json();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api/advice.schema.json");
    let schema = serde_json::from_str(&std::fs::read_to_string(path).expect("the schema")).expect("it is JSON");
    let mut wrong = Vec::new();
    schema::check(&schema, &answer, "", &mut wrong);
    assert!(wrong.is_empty(), "{}\n{answer}", wrong.join("\n"));
    answer
}

/// Waits until the curve has taken what was noted, so that the samples of the workers have room again.
fn wait_for_the_curve(proxy: &Shortstop) {
    let samples = || advice(proxy)["curve"]["samples"].as_u64();
    let before = samples();
    wait_until("the curve has grown", || samples() > before);
}

/// The advice about something, once it is given while there is this traffic.
#[track_caller]
fn advice_about(proxy: &Shortstop, about: &str, mut traffic: impl FnMut()) -> Value {
    let mut found = Value::Null;
    wait_until(&format!("advice about {about}"), || {
        traffic();
        let all = advice(proxy);
        let mut all = all["advice"].as_array().expect("a list").iter();
        found = all.find(|advice| advice["about"] == *about).cloned().unwrap_or_default();
        !found.is_null()
    });
    found
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name}: {value}"))
}

/// Sends these lines, and waits for the replies.
fn send(client: &mut Client, lines: &[String]) {
    for lines in lines.chunks(100) {
        client.pipeline(&pipeline_of(lines), lines.len());
    }
}

/// Reads of these keys in turn, so often.
fn reads(keys: usize, times: usize) -> Vec<String> {
    (0..times).flat_map(|_| 0..keys).map(|key| format!("GET key:{key}")).collect()
}

#[test]
fn an_l1_that_is_too_small_is_told_the_size_that_it_needs() {
    let redis = Redis::start();
    let small = "monitor: 127.0.0.1:0\nworkers: 1\ndefaults: { cache: { admit_after: 1 } }\n";
    let proxy = Shortstop::start(&redis, &format!("{small}l1: {{ max_memory: 1mb, max_entries: 500 }}\n"));
    let first = advice(&proxy);
    assert!(first["not_yet"].to_string().contains("not enough traffic yet"), "{first}");
    let mut client = proxy.client();
    send(&mut client, &(0..1500).map(|key| format!("SET key:{key} value")).collect::<Vec<_>>());
    let found = advice_about(&proxy, "l1_size", || {
        send(&mut client, &reads(1500, 1));
        wait_for_the_curve(&proxy);
    });
    let lines = text(&found, "lines").to_owned();
    assert!(lines.contains("max_entries: 2000"), "{found}");
    let before = advice(&proxy);
    let of = |answer: &Value, entries: u64| {
        let sizes = answer["curve"]["sizes"].as_array().expect("sizes");
        let size = sizes.iter().find(|size| size["max_entries"] == entries);
        size.unwrap_or_else(|| panic!("no {entries}: {answer}"))["hit_rate"].as_f64().expect("a rate")
    };
    assert!(before["curve"]["hit_rate"].as_f64() < Some(0.5) && of(&before, 2000) > 0.7, "{before}");
    // With the lines, what was estimated happens.
    proxy.reload(&format!("{small}{lines}"));
    send(&mut client, &reads(1500, 2));
    let (hits, misses) = (proxy.stat("l1_hits"), proxy.stat("l1_misses"));
    send(&mut client, &reads(1500, 2));
    assert_eq!((proxy.stat("l1_hits") - hits, proxy.stat("l1_misses") - misses), (3000, 0));
    wait_until("the advice is followed", || {
        send(&mut client, &reads(1500, 4));
        let all = advice(&proxy);
        all["curve"]["reads"].as_u64() > Some(12_000) && all["advice"].as_array().is_some_and(Vec::is_empty)
    });
}

#[test]
fn only_who_may_configure_is_advised_and_arguments_are_checked() {
    let redis = Redis::start();
    redis.client().cmd("ACL SETUSER few on >pw ~* +get");
    let proxy = Shortstop::start(&redis, "monitor: 127.0.0.1:0\n");
    let mut client = proxy.client();
    let wrong = client.cmd("PROXY ADVICE now");
    assert_reply(&wrong, "-ERR wrong number of arguments for 'proxy|advice' command\r\n", "an argument");
    assert!(client.cmd("PROXY ADVICE").starts_with(b"*6\r\n$5\r\ncurve\r\n"));
    client.cmd("AUTH few pw");
    assert!(client.cmd("PROXY ADVICE").starts_with(b"-NOPERM"));
}
