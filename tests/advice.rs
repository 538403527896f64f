//! PROXY ADVICE: what is measured is right, each kind of advice appears, and its lines take effect.

mod common;
#[path = "monitor/http.rs"]
mod http;
#[path = "monitor/schema.rs"]
mod schema;

use std::path::Path;

use common::{Client, Nats, Redis, Shortstop, assert_reply, pipeline_of, wait_until};
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
    for _ in 0..30 {
        traffic();
        let all = advice(proxy);
        let mut all = all["advice"].as_array().expect("a list").iter();
        if let Some(found) = all.find(|advice| advice["about"] == *about) {
            return found.clone();
        }
        wait_for_the_curve(proxy);
    }
    panic!("no advice about {about}: {}", advice(proxy));
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

/// A Shortstop that keeps at once, with these settings beside.
fn start(redis: &Redis, yaml: &str) -> Shortstop {
    Shortstop::start(redis, &format!("{BASE}{yaml}"))
}

const BASE: &str = "monitor: 127.0.0.1:0\nworkers: 1\ndefaults: { cache: { admit_after: 1 } }\n";

/// What `PROXY RULES` shows of a rule.
#[track_caller]
fn rule(proxy: &Shortstop, name: &str) -> Value {
    let rules = get(proxy.monitor(), "/api/rules").json();
    rules.as_array().expect("rules").iter().find(|rule| rule["match"] == *name).cloned().unwrap_or_default()
}

#[test]
fn what_is_observed_is_only_measured_and_the_lines_switch_it_on() {
    let redis = Redis::start();
    let mut direct = redis.client();
    let prose = common::prose(3000, 1);
    let before = start(&redis, "");
    before.client().call(&[b"SET", b"seen:compressed", &prose]);
    assert!(direct.cmd("STRLEN seen:compressed") != b":3000\r\n", "it is compressed");
    let rules = "rules:\n  - { match: \"seen:*\", observe: true }\n  - { match: \"kept:*\" }\n";
    let proxy = start(&redis, rules);
    let mut client = proxy.client();
    assert_reply(&client.cmd("GET seen:compressed"), common::bulk(&prose), "it is decompressed");
    for number in 0..100 {
        client.call(&[b"SET", format!("seen:{number}").as_bytes(), &prose]);
    }
    assert_reply(&direct.cmd("GET seen:7"), common::bulk(&prose), "it is stored as it came");
    let reads: Vec<String> = (0..100).map(|number| format!("GET seen:{number}")).collect();
    let found = advice_about(&proxy, "observe", || (0..20).for_each(|_| send(&mut client, &reads)));
    wait_until("its size is known", || {
        send(&mut client, &reads);
        advice(&proxy)["observed"][0]["entries"].as_u64() >= Some(95)
    });
    assert_eq!((proxy.stat("l1_hits"), proxy.stat("l1_misses"), proxy.stat("l1_entries")), (0, 0, 0));
    assert_eq!(proxy.stat("compressed_values"), 0);
    direct.cmd("SET seen:7 elsewhere");
    assert_reply(&client.cmd("GET seen:7"), common::bulk(b"elsewhere"), "Redis answers");
    let all = advice(&proxy);
    let observed = all["observed"].as_array().expect("a list");
    assert_eq!((observed.len(), &observed[0]["match"]), (1, &"seen:*".into()), "{all}");
    let number = |name: &str| observed[0][name].as_f64().unwrap_or_else(|| panic!("no {name}: {all}"));
    assert!(number("hit_rate") > 0.9 && number("hits") > 0.9 * number("reads") && number("reads") >= 5000.0, "{all}");
    assert!((95.0..=105.0).contains(&number("entries")) && number("bytes") > 300_000.0, "{all}");
    assert_eq!(number("compressible_bytes"), 300_000.0);
    assert!(number("saved_bytes") > 30_000.0 && number("saved_bytes") < 300_000.0, "{all}");
    proxy.reload(&format!("{BASE}{}", text(&found, "lines")));
    send(&mut client, &reads);
    send(&mut client, &reads);
    assert!(proxy.stat("l1_hits") >= 100, "what was estimated happens");
    client.call(&[b"SET", b"seen:8", &prose]);
    assert_eq!(proxy.stat("compressed_values"), 1);
}

#[test]
fn reads_of_absent_keys_and_after_writes_are_no_hits_of_what_is_observed() {
    let redis = Redis::start();
    let proxy = start(&redis, "observe: true\n");
    let mut client = proxy.client();
    let mut lines: Vec<String> = (0..100).map(|number| format!("GET absent:{number}")).collect();
    lines.extend(
        (0..100).flat_map(|number| [format!("SET w:{number} v"), format!("GET w:{number}"), format!("GET w:{number}")]),
    );
    for _ in 0..4 {
        send(&mut client, &lines);
        send(&mut client, &lines);
        wait_for_the_curve(&proxy);
    }
    let all = advice(&proxy);
    let rate = all["observed"][0]["hit_rate"].as_f64().expect("a rate");
    // Of three reads one is the second one after a write.
    assert!((rate - 1.0 / 3.0).abs() < 0.07, "{all}");
}

#[test]
fn writes_of_what_is_observed_are_published() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let keeps = Shortstop::in_fleet(&redis, &nats, "defaults: { cache: { admit_after: 1 } }\n");
    let observes = Shortstop::in_fleet(&redis, &nats, "observe: true\n");
    let (mut reader, mut writer) = (keeps.client(), observes.client());
    writer.cmd("SET k first");
    keeps.settle(&redis, &mut reader, "k");
    writer.cmd("SET k second");
    wait_until("the write is seen", || reader.cmd("GET k") == common::bulk(b"second"));
    keeps.wait_stat("invalidations_received", |received| received > 0);
}

#[test]
fn rules_that_match_nothing_are_named() {
    let redis = Redis::start();
    let proxy = start(&redis, "rules:\n  - { match: \"never:*\", cache: 2s }\n  - { match: \"k:*\", cache: 5s }\n");
    let mut client = proxy.client();
    let reads: Vec<String> = (0..5000).map(|number| format!("GET k:{}", number % 10)).collect();
    let found = advice_about(&proxy, "unused_rule", || send(&mut client, &reads));
    assert!(text(&found, "what").contains("never:*") && !text(&found, "what").contains("k:*"), "{found}");
    proxy.reload(&format!("{BASE}{}", text(&found, "lines")));
    assert_eq!((rule(&proxy, "never:*"), &rule(&proxy, "k:*")["cache"]["ttl_ms"]), (Value::Null, &5000.into()));
}

#[test]
fn a_ttl_below_the_time_between_reads_is_named() {
    let redis = Redis::start();
    let proxy = start(&redis, "rules:\n  - { match: \"k:*\", cache: { ttl: 200ms } }\n");
    let mut client = proxy.client();
    send(&mut client, &(0..800).map(|number| format!("SET k:{number} v")).collect::<Vec<_>>());
    // Each key is read twice, and then again about a second later.
    let reads: Vec<String> = (0..800).flat_map(|number| [number, number]).map(|key| format!("GET k:{key}")).collect();
    let found = advice_about(&proxy, "short_ttl", || send(&mut client, &reads));
    assert!(text(&found, "what").contains("k:*"), "{found}");
    proxy.reload(&format!("{BASE}{}", text(&found, "lines")));
    assert!(rule(&proxy, "k:*")["cache"]["ttl_ms"].as_u64() >= Some(1000), "{found}");
}

#[test]
fn memory_for_what_is_never_read_again_is_named() {
    let redis = Redis::start();
    let proxy = start(&redis, "rules:\n  - { match: \"once:*\", cache: true }\n");
    let mut direct = redis.client();
    let value = common::prose(800, 1);
    let mut number = 0;
    let mut client = proxy.client();
    let found = advice_about(&proxy, "wasted_memory", || {
        let keys: Vec<String> = (number..number + 1500).map(|key| format!("once:{key}")).collect();
        number += 1500;
        keys.iter().for_each(|key| drop(direct.call(&[b"SET", key.as_bytes(), &value])));
        send(&mut client, &keys.iter().map(|key| format!("GET {key}")).collect::<Vec<_>>());
    });
    assert!(text(&found, "what").contains("once:*"), "{found}");
    proxy.reload(&format!("{BASE}{}", text(&found, "lines")));
    assert_eq!(rule(&proxy, "once:*")["cache"], Value::Null);
}

#[test]
fn compression_that_does_not_save_is_named() {
    let redis = Redis::start();
    let proxy = start(&redis, "rules:\n  - { match: \"photo:*\" }\n");
    let mut client = proxy.client();
    for number in 0..60 {
        client.call(&[b"SET", format!("photo:{number}").as_bytes(), &common::noise(20_000, number)]);
        client.call(&[b"SET", format!("text:{number}").as_bytes(), &common::prose(20_000, number)]);
    }
    let found = advice_about(&proxy, "compression", || {});
    assert!(text(&found, "what").contains("photo:*"), "{found}");
    proxy.reload(&format!("{BASE}{}", text(&found, "lines")));
    assert_eq!(rule(&proxy, "photo:*")["compress"], Value::Null);
    assert!(rule(&proxy, "defaults")["compress"].is_object());
}

#[test]
fn hot_keys_that_are_not_kept_are_named_unless_keys_are_redacted() {
    let redis = Redis::start();
    let rules = "rules:\n  - { match: \"*\", cache: false }\n";
    let proxy = start(&redis, rules);
    let mut client = proxy.client();
    let lines: Vec<String> = (0..1000).map(|number| format!("GET hot:{}", number % 10)).collect();
    let found = advice_about(&proxy, "uncached_keys", || send(&mut client, &lines));
    assert!(text(&found, "what").contains("hot:*"), "{found}");
    proxy.reload(&format!("{BASE}{rules}redact_keys: true\n"));
    send(&mut client, &lines);
    assert!(!advice(&proxy).to_string().contains("hot:"), "keys are not shown");
    proxy.reload(&format!("{BASE}{}", text(&found, "lines")));
    client.cmd("SET hot:1 v");
    proxy.warm(&mut client, "hot:1");
    client.cmd("GET cold:1");
    assert_eq!(rule(&proxy, "*")["cache"], Value::Null);
}

#[test]
fn an_eviction_policy_that_sees_no_hits_is_named() {
    let redis = Redis::start();
    let mut direct = redis.client();
    direct.cmd("CONFIG SET maxmemory 1gb");
    direct.cmd("CONFIG SET maxmemory-policy allkeys-lru");
    let proxy = start(&redis, "");
    let mut client = proxy.client();
    client.cmd("SET k v");
    let found = advice_about(&proxy, "eviction", || send(&mut client, &vec!["GET k".to_owned(); 3000]));
    assert!(text(&found, "what").contains("allkeys-lru"), "{found}");
    proxy.reload(&format!("{BASE}{}", text(&found, "lines")));
    assert_eq!(proxy.stat("max_staleness_ms"), 10_000);
    assert!(!advice(&proxy)["advice"].to_string().contains("eviction"));
}

#[test]
fn only_who_may_configure_is_advised_and_arguments_are_checked() {
    let redis = Redis::start();
    redis.client().cmd("ACL SETUSER few on >pw ~* +get");
    let proxy = Shortstop::start(&redis, "monitor: 127.0.0.1:0\n");
    let mut client = proxy.client();
    let wrong = client.cmd("PROXY ADVICE now");
    assert_reply(&wrong, "-ERR wrong number of arguments for 'proxy|advice' command\r\n", "an argument");
    assert!(client.cmd("PROXY ADVICE").starts_with(b"*8\r\n$5\r\ncurve\r\n"));
    client.cmd("AUTH few pw");
    assert!(client.cmd("PROXY ADVICE").starts_with(b"-NOPERM"));
}
