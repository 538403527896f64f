//! PROXY HOTKEYS and BIGKEYS: the keys that are requested most and the largest values, as they pass.

mod common;
#[path = "monitor/http.rs"]
mod http;
#[path = "monitor/schema.rs"]
mod schema;

use common::{Redis, Shortstop, assert_reply, pipeline_of, wait_until};
use http::get;
use serde_json::Value;

const YAML: &str = r#"monitor: 127.0.0.1:0
defaults: { cache: { admit_after: 1 } }
rules:
  - { match: "raw:*", cache: false }
"#;

/// The keys that a path shows.
#[track_caller]
fn keys(proxy: &Shortstop, path: &str) -> Vec<Value> {
    let answer = get(proxy.monitor(), path);
    assert!(answer.head.contains("application/json"), "{}", answer.head);
    if path.starts_with("/api/hotkeys") {
        let schema = serde_json::from_str(include_str!("../docs/api/hotkeys.schema.json")).expect("JSON");
        let mut wrong = Vec::new();
        schema::check(&schema, &answer.json(), "", &mut wrong);
        assert!(wrong.is_empty(), "{}: {}", wrong.join("\n"), answer.body);
    }
    answer.json()["keys"].as_array().unwrap_or_else(|| panic!("no keys: {}", answer.body)).clone()
}

/// How many requests one round of the load has.
const ROUND: usize = 3000;

/// The number of each request's key, of 1000 keys: their shares are as 1, 1/2, 1/3, … in each round.
fn zipf(rounds: usize) -> Vec<usize> {
    let sum: f64 = (1..=1000).map(|rank| 1.0 / f64::from(rank)).sum();
    let up_to: Vec<f64> = (1..=1000)
        .scan(0.0, |so_far, rank| {
            *so_far += 1.0 / f64::from(rank) / sum;
            Some(*so_far)
        })
        .collect();
    // A step that visits each place of the round once, so that a key's requests are spread over it.
    let place = |at: usize| (at * 7919 % ROUND) as f64 / ROUND as f64;
    (0..rounds * ROUND).map(|at| up_to.partition_point(|share| *share <= place(at)).min(999)).collect()
}

#[test]
fn keys_above_one_percent_are_found_with_their_share() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, YAML);
    // Two clients, so that both workers have some of it.
    let mut clients = [proxy.client(), proxy.client()];
    let asked = zipf(4);
    for (turn, numbers) in asked.chunks(100).enumerate() {
        let lines: Vec<String> = numbers.iter().map(|number| format!("GET key:{number}")).collect();
        clients[turn % 2].pipeline(&pipeline_of(&lines), lines.len());
    }
    let found = keys(&proxy, "/api/hotkeys?n=100");
    let mut checked = 0;
    for number in 0..1000 {
        let share = asked.iter().filter(|other| **other == number).count() as f64 / asked.len() as f64;
        if share < 0.01 {
            continue;
        }
        let name = format!("key:{number}");
        let hot =
            found.iter().find(|hot| hot["key"] == *name).unwrap_or_else(|| panic!("{name} is missing: {found:?}"));
        let told = hot["share"].as_f64().expect("a share");
        assert!((told - share).abs() <= share / 5.0, "{name}: {told}, not {share}");
        checked += 1;
    }
    assert!(checked >= 10, "{checked}");
    let shares: Vec<f64> = found.iter().map(|hot| hot["share"].as_f64().expect("a share")).collect();
    assert!(shares.is_sorted_by(|one, other| one >= other), "the hottest first: {shares:?}");
}

#[test]
fn a_hot_key_shows_its_rule_and_why_it_is_not_in_l1() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &format!("{YAML}workers: 1\n"));
    let mut client = proxy.client();
    client.cmd("SET k value");
    client.cmd("SET raw:1 value");
    client.pipeline(&pipeline_of(&vec!["GET k"; 2000]), 2000);
    client.pipeline(&pipeline_of(&vec!["GET raw:1"; 500]), 500);
    client.cmd("SELECT 2");
    client.pipeline(&pipeline_of(&vec!["MGET k other"; 100]), 100);
    let found = keys(&proxy, "/api/hotkeys");
    let of = |db: u64, key: &str| {
        let found = found.iter().find(|hot| hot["key"] == key && hot["database"] == db);
        found.unwrap_or_else(|| panic!("{key} of {db} is missing"))
    };
    let (hot, raw) = (of(0, "k"), of(0, "raw:1"));
    assert_eq!((&hot["in_l1"], &hot["why_not"], &hot["size"]), (&Value::Bool(true), &Value::Null, &5.into()));
    assert_eq!(
        (&raw["in_l1"], &raw["why_not"], &raw["rule"]["number"]),
        (&Value::Bool(false), &"rule".into(), &1.into())
    );
    let number = |hot: &Value, name: &str| hot[name].as_f64().expect("a number");
    let ratio = number(hot, "hits_per_second") / number(hot, "requests_per_second");
    assert!(ratio > 0.5 && number(raw, "hits_per_second") == 0.0, "{hot} {raw}");
    assert!(number(of(2, "other"), "share") > 0.0);
}

/// Redis works on this for 20 ms.
const SLOW: &str = "local function now() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end \
                    local start = now() while now() - start < 20000 do end return 1";

#[test]
fn a_key_has_its_share_of_bytes_and_of_upstream_time() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &format!("{YAML}workers: 1\n"));
    let mut client = proxy.client();
    let share = |found: &[Value], key: &str, name: &str| {
        let found = found.iter().find(|hot| hot["key"] == key).unwrap_or_else(|| panic!("{key}: {found:?}"));
        found[name].as_f64().expect("a share")
    };
    // Read from Redis, read from L1, written: about 20 kB each time. And many small requests, and a few that take long.
    let value = common::noise(20_000, 1);
    client.call(&[b"SET", b"raw:read", &value]);
    client.call(&[b"SET", b"hit", &value]);
    client.cmd("SET tiny x");
    for _ in 0..100 {
        client.cmd("GET raw:read");
        client.cmd("GET hit");
        client.call(&[b"SET", b"written", &value]);
        client.pipeline(&pipeline_of(&vec!["GET tiny"; 20]), 20);
    }
    for _ in 0..40 {
        client.call(&[b"EVAL", SLOW.as_bytes(), b"1", b"slow"]);
    }
    let found = keys(&proxy, "/api/hotkeys");
    for key in ["raw:read", "hit", "written"] {
        let told = share(&found, key, "share_of_bytes");
        assert!((told - 1.0 / 3.0).abs() < 1.0 / 3.0 / 5.0, "{key}: {told}: {found:#?}");
    }
    assert!(share(&found, "tiny", "share") > 0.5 && share(&found, "tiny", "share_of_bytes") < 0.05);
    assert!(
        share(&found, "slow", "share") < 0.05 && share(&found, "slow", "share_of_upstream_time") > 0.5,
        "{found:#?}"
    );
    assert!(share(&found, "hit", "share_of_upstream_time") < 0.05, "{found:#?}");
    let sum = |name: &str| found.iter().map(|hot| hot[name].as_f64().expect("a share")).sum::<f64>();
    for name in ["share", "share_of_bytes", "share_of_upstream_time"] {
        assert!((sum(name) - 1.0).abs() < 0.01, "{name}: {found:#?}");
    }
}

#[test]
fn the_largest_values_are_those_that_were_written_and_read() {
    let redis = Redis::start();
    let mut direct = redis.client();
    direct.call(&[b"SET", b"raw:read", &common::noise(300_000, 1)]);
    direct.call(&[b"SET", b"read", &common::noise(20_000, 1)]);
    let proxy = Shortstop::start(&redis, YAML);
    let mut client = proxy.client();
    client.call(&[b"SET", b"written", &common::prose(40_000, 1)]);
    client.cmd("GET read");
    for number in 0..200 {
        client.call(&[b"SET", format!("small:{number}").as_bytes(), b"x"]);
    }
    // The reply does not know its key: the second request names it. It is not kept, so both replies pass.
    wait_until("a value that no rule keeps is named", || {
        client.cmd("GET raw:read");
        keys(&proxy, "/api/bigkeys?n=1")[0]["key"] == "raw:read"
    });
    let found = keys(&proxy, "/api/bigkeys?n=3");
    let shown: Vec<_> =
        found.iter().map(|big| (big["key"].clone(), big["bytes"].clone(), big["seen"].clone())).collect();
    assert_eq!(
        shown,
        [("raw:read", 300_000, "read"), ("written", 40_000, "write"), ("read", 20_000, "read")]
            .map(|(key, bytes, seen)| (Value::from(key), Value::from(bytes), Value::from(seen)))
    );
}

#[test]
fn arguments_are_checked_and_keys_are_redacted() {
    let redis = Redis::start();
    redis.client().cmd("ACL SETUSER few on >pw ~* +get");
    let proxy = Shortstop::start(&redis, &format!("{YAML}redact_keys: true\n"));
    let mut client = proxy.client();
    client.cmd("SET secret:1 value");
    client.cmd("GET secret:1");
    for (command, path) in [("HOTKEYS", "/api/hotkeys"), ("BIGKEYS", "/api/bigkeys")] {
        for wrong in ["0", "-1", "x"] {
            let refused = client.cmd(&format!("PROXY {command} {wrong}"));
            assert_reply(&refused, "-ERR value is out of range, must be positive\r\n", wrong);
            assert_eq!(get(proxy.monitor(), &format!("{path}?n={wrong}")).status, 400);
        }
        let answer = get(proxy.monitor(), path);
        assert!(answer.body.contains("(redacted)") && !answer.body.contains("secret"), "{}", answer.body);
        let shown = client.cmd(&format!("PROXY {command}"));
        let shown = String::from_utf8_lossy(&shown);
        assert!(shown.contains("(redacted)") && !shown.contains("secret"), "{shown}");
        let mut few = proxy.client();
        few.cmd("AUTH few pw");
        let refused = few.cmd(&format!("PROXY {command}"));
        assert!(refused.starts_with(b"-NOPERM"), "{}", common::show(&refused));
    }
}
