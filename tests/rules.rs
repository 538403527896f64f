//! PROXY RULES: what is counted for each rule is what INFO counts in all, and goes on over a reload where the pattern stays.

mod common;
#[path = "monitor/http.rs"]
mod http;
#[path = "monitor/schema.rs"]
mod schema;

use common::{Client, PATIENCE, Redis, Shortstop, assert_reply, field, noise, pipeline_of, prose, wait_within};
use http::get;
use serde_json::{Value, json};

const YAML: &str = r#"monitor: 127.0.0.1:0
defaults: { cache: { admit_after: 1 } }
rules:
  - { match: "user:*", cache: { reads: [get, mget, lrange] } }
  - { match: "raw:*", cache: false, compress: false }
  - { match: "quote\"d*" }
"#;

fn rules(proxy: &Shortstop) -> Vec<Value> {
    let answer = get(proxy.monitor(), "/api/rules");
    let rules = answer.json();
    let schema = serde_json::from_str(include_str!("../docs/api/rules.schema.json")).expect("JSON");
    let mut wrong = Vec::new();
    schema::check(&schema, &rules, "", &mut wrong);
    assert!(wrong.is_empty(), "{}\n{rules:#}", wrong.join("\n"));
    rules.as_array().expect("a list").clone()
}

/// Requests, hits, misses and writes of the rule with this pattern.
#[track_caller]
fn counts(proxy: &Shortstop, pattern: &str) -> [u64; 4] {
    let rules = rules(proxy);
    let rule = rules.iter().find(|rule| rule["match"] == pattern).unwrap_or_else(|| panic!("{pattern}: {rules:?}"));
    ["requests", "hits", "misses", "writes"].map(|name| rule[name].as_u64().expect("a number"))
}

fn sum(rules: &[Value], name: &str) -> u64 {
    rules.iter().map(|rule| rule[name].as_u64().expect("a number")).sum()
}

#[track_caller]
fn metric(proxy: &Shortstop, sample: &str) -> u64 {
    let text = get(proxy.monitor(), "/metrics").body;
    let found = text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("{sample} is missing:\n{text}"))
}

/// Reads, writes and other requests of every kind, for keys of each rule.
fn load(clients: &mut [Client]) {
    for (number, client) in clients.iter_mut().enumerate() {
        for prefix in ["user", "raw", "quote\"d", "other"] {
            let key = format!("{prefix}:{number}");
            client.call(&[b"SET", key.as_bytes(), &prose(5000, 1)]);
            // Above `offload_above`: compressed on another thread.
            client.call(&[b"SET", format!("{key}:large").as_bytes(), &prose(400_000, 2)]);
            client.cmd(&format!("RPUSH {key}:list a b"));
            let mut reads = vec![format!("GET {key}"), format!("LRANGE {key}:list 0 -1"), format!("GET {key}:none")];
            reads.extend([format!("MGET {key} {key}:large user:0 other:0"), format!("STRLEN {key}")]);
            for _ in 0..3 {
                reads.iter().for_each(|read| drop(client.cmd(read)));
            }
            client.pipeline(&pipeline_of(&vec![format!("GET {key}"); 300]), 300);
            client.cmd("MULTI");
            client.call(&[b"SET", key.as_bytes(), &prose(3000, 3)]);
            client.cmd(&format!("GET {key}"));
            client.cmd("EXEC");
            client.cmd(&format!("DEL {key}:list {key}:none"));
            client.cmd(&format!("EVAL return 1 1 {key}"));
        }
    }
}

#[test]
fn the_sums_over_all_rules_are_those_of_info() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, YAML);
    // Two clients, so that both workers have some of it.
    let mut clients = [proxy.client(), proxy.client()];
    for round in 0..2 {
        load(&mut clients);
        let (rules, info) = (rules(&proxy), clients[0].cmd("PROXY INFO"));
        for (name, total) in [
            ("hits", "l1_hits"),
            ("misses", "l1_misses"),
            ("compressed_values", "compressed_values"),
            ("compressed_bytes_in", "compressed_bytes_in"),
            ("compressed_bytes_out", "compressed_bytes_out"),
            ("compression_saved_bytes", "compression_saved_bytes"),
        ] {
            let told = field(&info, total).and_then(|told| told.parse::<u64>().ok()).expect("a number");
            assert!(told > 0, "{total}: a run without shows nothing");
            assert_eq!(sum(&rules, name), told, "{total}, round {round}: {rules:#?}");
        }
        // Each client asks for 2 + 2 values, 8 keys of MGET, and so on; those that it reads of `user:0` and `other:0` are beside them.
        let keys_per_prefix = 3 * (1 + 1 + 1 + 2 + 1) + 300 + 3 + 2 + 2 + 1;
        let others = 3 * 2 * 4;
        assert_eq!(sum(&rules, "requests"), 2 * (4 * keys_per_prefix + others), "round {round}: {rules:#?}");
        assert_eq!(sum(&rules, "writes"), 2 * 4 * (2 + 1 + 1 + 2 + 1), "round {round}: {rules:#?}");
        assert_eq!(
            (&rules[1]["hits"], &rules[1]["misses"], &rules[1]["hit_rate"]),
            (&json!(0), &json!(0), &Value::Null)
        );
        assert_eq!(rules[1]["compression_saved_bytes"], 0);
        for rule in [&rules[0], &rules[2], &rules[3]] {
            assert!(rule["hit_rate"].as_f64().expect("a ratio") > 0.5, "{rule}");
            assert!(rule["compression_saved_bytes"].as_u64().expect("a number") > 0, "{rule}");
        }
        // The second round shows that all of them begin anew together.
        clients[0].cmd("PROXY STATS RESET");
        assert_eq!(sum(&self::rules(&proxy), "requests"), 0);
    }
    for (label, index) in [("user:*", 0), ("raw:*", 1), ("quote\\\"d*", 2), ("defaults", 3)] {
        let hits = metric(&proxy, &format!("shortstop_rule_hits_total{{rule=\"{label}\"}}"));
        assert_eq!(hits > 0, index != 1, "{label}: Prometheus sees no reset");
        metric(&proxy, &format!("shortstop_rule_misses_total{{rule=\"{label}\"}}"));
        for name in ["compressed_values", "compressed_in_bytes", "compression_saved_bytes"] {
            metric(&proxy, &format!("shortstop_rule_{name}_total{{rule=\"{label}\"}}"));
        }
    }
}

#[test]
fn values_that_stay_plain_are_counted_with_the_reason() {
    let redis = Redis::start();
    let yaml = "monitor: 127.0.0.1:0\nlimits: { max_inflated: 100kb }\nrules: [{ match: 'no:*', compress: false }]\n";
    let proxy = Shortstop::start(&redis, yaml);
    let mut client = proxy.client();
    let (number, hyper) = ("1".repeat(2_000).into_bytes(), [&b"HYLL"[..], &prose(2_000, 1)].concat());
    for round in 1..=2 {
        client.call(&[b"SET", b"k", b"small"]);
        client.call(&[b"SET", b"k", &prose(200_000, 1)]);
        client.call(&[b"MSET", b"k", &number, b"l", &hyper]);
        client.call(&[b"SET", b"k", &noise(2_000, 1)]);
        // Above `offload_above`.
        client.call(&[b"SETEX", b"k", b"100", &noise(90_000, 1)]);
        client.call(&[b"SET", b"no:k", &noise(2_000, 1)]);
        client.call(&[b"SET", b"k", &prose(2_000, 1)]);
        let rules = rules(&proxy);
        let expected = json!({ "small": round, "large": round, "number": 2 * round, "no_saving": 2 * round });
        assert_eq!(rules[1]["compression_skipped"], expected);
        assert_eq!(rules[1]["compressed_values"], round);
        assert_eq!(rules[0]["compression_skipped"], json!({ "small": 0, "large": 0, "number": 0, "no_saving": 0 }));
    }
    assert_eq!(rules(&proxy)[0]["compression_usec"], 0);
    let took = rules(&proxy)[1]["compression_usec"].as_u64().expect("a number");
    assert!(took > 0);
    client.cmd("GET k");
    let info = client.cmd("PROXY INFO compression");
    let told = |name: &str| field(&info, name).and_then(|told| told.parse::<u64>().ok()).expect("a number");
    assert_eq!(told("compression_usec"), took);
    assert!(told("decompression_usec") > 0);
    for (reason, number) in [("small", 2), ("large", 2), ("number", 4), ("no_saving", 4)] {
        assert_eq!(told(&format!("compression_skipped_{reason}")), number, "{reason}");
        let labels = format!("{{rule=\"defaults\",reason=\"{reason}\"}}");
        assert_eq!(metric(&proxy, &format!("shortstop_rule_compression_skipped_total{labels}")), number);
    }
    let seconds = get(proxy.monitor(), "/metrics").body;
    let seconds =
        seconds.lines().find_map(|line| line.strip_prefix("shortstop_compression_seconds_total ")?.parse::<f64>().ok());
    assert!(seconds.is_some_and(|seconds| (seconds * 1e6 - took as f64).abs() < 1.0), "{seconds:?} {took}");
    client.cmd("PROXY STATS RESET");
    assert_eq!(field(&client.cmd("PROXY INFO compression"), "compression_usec").as_deref(), Some("0"));
}

#[test]
fn what_redis_has_compressed_now_is_estimated_by_rule() {
    let redis = Redis::start();
    let yaml =
        "monitor: 127.0.0.1:0\nrules: [{ match: 'gz:*' }, { match: 'zs:*', compress: zstd }, { match: 'no:*' }]\n";
    let proxy = Shortstop::start(&redis, yaml);
    let mut client = proxy.client();
    for at in 0..200 {
        client.call(&[b"SET", format!("no:{at}").as_bytes(), b"small"]);
        client.call(&[b"SET", format!("gz:{at}").as_bytes(), &prose(2_000, at)]);
    }
    client.pipeline(&pipeline_of(&["RPUSH list a", "SELECT 2"]), 2);
    for at in 0..100 {
        client.call(&[b"SET", format!("zs:{at}").as_bytes(), &prose(4_000, at)]);
    }
    assert_eq!(field(&client.cmd("PROXY INFO"), "stored_saved_bytes").as_deref(), Some("-1"));
    assert_eq!(rules(&proxy)[0]["stored"], Value::Null);
    let number = |name: &str| field(&proxy.client().cmd("PROXY INFO"), name).and_then(|told| told.parse::<f64>().ok());
    wait_within(4 * PATIENCE, "the look", || number("stored_saved_bytes").is_some_and(|saved| saved > 0.0));
    let rules = rules(&proxy);
    let stored = |rule: usize, name: &str| rules[rule]["stored"][name].as_f64().expect("a number");
    let near = |number: f64, expected: f64| (number / expected - 1.0).abs() < 0.3;
    assert!(near(stored(0, "values"), 200.0) && near(stored(1, "values"), 100.0), "{rules:#?}");
    assert_eq!((stored(2, "values"), stored(3, "values")), (0.0, 0.0));
    for rule in [0, 1] {
        let written = |name: &str| rules[rule][name].as_f64().expect("a number");
        assert!(near(stored(rule, "bytes"), written("compressed_bytes_out")), "{rules:#?}");
        assert!(near(stored(rule, "saved_bytes"), written("compression_saved_bytes")), "{rules:#?}");
    }
    let (all, by_rule) = (number("stored_saved_bytes"), stored(0, "saved_bytes") + stored(1, "saved_bytes"));
    assert!(all.is_some_and(|all| (all - by_rule).abs() < 10.0), "{all:?} {by_rule}");
    assert!(number("stored_sampled_keys").is_some_and(|sampled| (500.0..510.0).contains(&sampled)));
}

#[test]
fn a_rule_shows_what_it_says_and_redis_cli_sees_the_same() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, YAML);
    let rules = rules(&proxy);
    let shown: Vec<Value> = rules
        .iter()
        .map(|rule| json!([rule["number"], rule["match"], rule["cache"].is_object(), rule["watch"]]))
        .collect();
    assert_eq!(
        shown,
        [
            json!([1, "user:*", true, true]),
            json!([2, "raw:*", false, true]),
            json!([3, "quote\"d*", true, true]),
            json!([null, "defaults", true, true])
        ]
    );
    assert_eq!(rules[0]["cache"]["reads"], json!(["get", "mget", "lrange"]));
    assert_eq!((&rules[1]["compress"], &rules[3]["compress"]["level"]), (&Value::Null, &json!(3)));
    let line = |rule: &Value| rule["line"].as_u64().expect("it stands in a text");
    assert_eq!((line(&rules[1]), &rules[3]["line"]), (line(&rules[0]) + 1, &Value::Null));
    let mut client = proxy.client();
    let reply = client.cmd("PROXY RULES");
    let reply = String::from_utf8_lossy(&reply);
    for name in ["number", "user:*", "defaults", "hit_rate", "compression_saved_bytes"] {
        assert!(reply.contains(name), "{name}: {reply}");
    }
    let refused = client.cmd("PROXY RULES x");
    assert_reply(&refused, "-ERR wrong number of arguments for 'proxy|rules' command\r\n", "");
}

/// Waits until the workers have the rules of the last reload: each answers questions after the orders that came before.
fn all_have_reloaded(proxy: &Shortstop) {
    assert_eq!(get(proxy.monitor(), "/api/hotkeys").status, 200);
}

#[test]
fn a_pattern_that_stays_goes_on_after_a_reload_and_others_begin_anew() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, YAML);
    let mut client = proxy.client();
    client.cmd("SET user:1 v");
    client.cmd("SET raw:1 v");
    proxy.warm(&mut client, "user:1");
    let before = counts(&proxy, "user:*");
    assert_eq!(counts(&proxy, "raw:*"), [1, 0, 0, 1]);
    client.cmd("PROXY STATS RESET");
    client.cmd("GET user:1");
    let metric = |label: &str| metric(&proxy, &format!("shortstop_rule_hits_total{{rule=\"{label}\"}}"));
    let hits = metric("user:*");
    let with =
        |rules: &str| format!("monitor: 127.0.0.1:0\ndefaults: {{ cache: {{ admit_after: 1 }} }}\nrules:\n{rules}");
    let user = "  - { match: \"user:*\", cache: { ttl: 10s } }\n";
    proxy.reload(&with(&format!("  - {{ match: \"new:*\" }}\n  - {{ match: \"raw:*\" }}\n{user}")));
    all_have_reloaded(&proxy);
    assert_eq!(counts(&proxy, "user:*"), [1, 1, 0, 0], "since the reset");
    assert_eq!(metric("user:*"), hits, "Prometheus sees no reset");
    assert_eq!((counts(&proxy, "new:*"), metric("new:*")), ([0; 4], 0));
    client.cmd("SET new:1 v");
    proxy.warm(&mut client, "new:1");
    proxy.warm(&mut client, "user:1");
    assert!(counts(&proxy, "new:*")[1] > 0 && counts(&proxy, "user:*")[1] > 1, "hits count for the new places");
    assert_eq!(counts(&proxy, "raw:*"), [0; 4]);
    // Away and back again.
    proxy.reload(&with("  - { match: \"new:*\" }\n"));
    proxy.reload(&with(user));
    all_have_reloaded(&proxy);
    assert_eq!((counts(&proxy, "user:*"), metric("user:*")), ([0; 4], 0));
    client.cmd("GET user:1");
    assert_eq!(counts(&proxy, "user:*"), [1, 0, 1, 0], "the reset was before it went");
    assert!(before[1] > 0);
}

#[test]
fn of_three_hundred_rules_the_last_are_counted_together() {
    let redis = Redis::start();
    let mut yaml = "monitor: 127.0.0.1:0\ndefaults: { cache: { admit_after: 1 } }\nrules:\n".to_owned();
    (1..=300).for_each(|number| yaml.push_str(&format!("  - {{ match: \"r{number}:*\" }}\n")));
    let proxy = Shortstop::start(&redis, &yaml);
    let mut client = proxy.client();
    for number in (1..=300).chain([1, 254, 255, 300]) {
        client.cmd(&format!("GET r{number}:k"));
    }
    client.cmd("GET k");
    let rules = rules(&proxy);
    assert_eq!(rules.len(), 254 + 2);
    assert_eq!((&rules[254]["match"], &rules[254]["number"]), (&json!("others"), &Value::Null));
    for (pattern, requests) in [("r1:*", 2), ("r2:*", 1), ("r254:*", 2), ("others", 46 + 2), ("defaults", 1)] {
        assert_eq!(counts(&proxy, pattern)[0], requests, "{pattern}");
    }
    assert_eq!(sum(&rules, "misses") + sum(&rules, "hits"), 300 + 4 + 1);
    let text = get(proxy.monitor(), "/metrics").body;
    assert_eq!(text.lines().filter(|line| line.starts_with("shortstop_rule_hits_total{")).count(), 256);
}
