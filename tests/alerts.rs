//! Alerts fire and clear where people look: in PROXY ALERTS, in INFO, in JSON, in the log and on NATS. When they do is tested beside the
//! rules, with a clock of its own.

mod common;
#[path = "monitor/http.rs"]
mod http;

use std::time::Duration;

use common::{Nats, Process, Redis, Shortstop, field, wait_until, wait_within};
use futures_util::StreamExt;
use http::{get, raw};
use serde_json::Value;

/// The longest time until an alert has fired or cleared.
const CHANGES: Duration = Duration::from_secs(60);

const WITH_TOKEN: &str = "monitor: 127.0.0.1:0\nmonitor_token: s3cret\n";

/// The names of the alerts that fire.
fn names(proxy: &Shortstop) -> String {
    field(&proxy.client().cmd("PROXY INFO Proxy"), "alerts_firing_names").expect("it is in INFO")
}

#[test]
fn redis_being_down_fires_and_clears() {
    let mut redis = Redis::start();
    let proxy = Shortstop::start(&redis, WITH_TOKEN);
    proxy.wait_stat("upstream_up", |up| up == 1);
    redis.kill();
    wait_within(CHANGES, "the alert fires", || names(&proxy).contains("upstream_down"));
    let alerts = get(proxy.monitor(), "/api/alerts").json();
    let fires = alerts["firing"].as_array().expect("a list").iter().find(|alert| alert["alert"] == "upstream_down");
    let fires = fires.unwrap_or_else(|| panic!("{alerts}"));
    assert_eq!((&fires["state"], &fires["cleared"]), (&Value::from("firing"), &Value::Null));
    assert!(fires["since"].as_u64().is_some_and(|since| since > 1_700_000_000));
    redis.restart();
    wait_within(CHANGES, "the alert clears", || !names(&proxy).contains("upstream_down"));
    let past = get(proxy.monitor(), "/api/alerts").json()["past"][0].clone();
    assert_eq!(past["state"], "cleared", "{past}");
    let report = get(proxy.monitor(), "/api/report?hours=1").json();
    assert!(report["alerts"].as_array().is_some_and(|alerts| !alerts.is_empty()), "{report}");
}

#[test]
fn a_threshold_changes_while_it_runs() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, WITH_TOKEN);
    let mut client = proxy.client();
    assert_eq!(client.cmd("PROXY ALERTS SET memory_usage_max 0.0001%"), b"+OK\r\n");
    wait_within(CHANGES, "the alert fires", || names(&proxy).contains("memory_usage"));
    for wrong in ["PROXY ALERTS SET memory 1", "PROXY ALERTS SET memory_usage_max 2", "PROXY ALERTS SET hit_rate_min"] {
        assert!(client.cmd(wrong).starts_with(b"-ERR "), "{wrong}");
    }
    let put = |header: &str, body: &str| {
        let length = body.len();
        raw(
            proxy.monitor(),
            &format!(
                "PUT /api/alerts HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}Content-Length: {length}\r\n\r\n{body}"
            ),
        )
    };
    let body = r#"{"memory_usage_max": 1, "response_time_max": 0.05}"#;
    assert_eq!(put("", body).status, 401);
    let token = "Authorization: Bearer s3cret\r\n";
    assert_eq!(put(token, r#"{"hit_rate_min": 0.1, "hit_rate_max": 1}"#).status, 400);
    assert_eq!(put(token, "[]").status, 400);
    let changed = put(token, body).json();
    let thresholds = &changed["thresholds"];
    assert_eq!((&thresholds["memory_usage_max"], &thresholds["response_time_max"]), (&1.0.into(), &0.05.into()));
    assert_eq!(thresholds["hit_rate_min"], 0.7, "all or none");
    wait_within(CHANGES, "the alert clears", || !names(&proxy).contains("memory_usage"));
}

#[test]
fn who_may_not_configure_redis_may_not_change_a_threshold() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    redis.client().cmd("ACL SETUSER reader on nopass ~* +@all -config");
    let mut client = proxy.client();
    client.cmd("AUTH reader x");
    assert!(client.cmd("PROXY ALERTS SET hit_rate_min 0.1").starts_with(b"-NOPERM"));
    assert!(client.cmd("PROXY ALERTS").starts_with(b"*"));
}

#[test]
fn a_bus_that_is_away_for_longer_than_the_staleness_fires() {
    let (redis, mut nats) = (Redis::start(), Nats::start());
    let proxy = Shortstop::in_fleet(&redis, &nats, &format!("{WITH_TOKEN}max_staleness: 2s\n"));
    let metrics = get(proxy.monitor(), "/metrics").body;
    let count = metrics.lines().find_map(|line| line.strip_prefix("shortstop_invalidation_duration_seconds_count "));
    assert!(count.is_some_and(|count| count != "0"), "{metrics}");
    assert!(!names(&proxy).contains("stale_beyond_bound"));
    nats.kill();
    wait_within(CHANGES, "the alert fires", || names(&proxy).contains("stale_beyond_bound"));
    let alerts = get(proxy.monitor(), "/api/alerts").json();
    let fires =
        alerts["firing"].as_array().expect("a list").iter().find(|alert| alert["alert"] == "stale_beyond_bound");
    let fires = fires.unwrap_or_else(|| panic!("{alerts}"));
    assert!(fires["threshold"] == 2.0 && fires["value"].as_f64() > Some(2.0), "{fires}");
    nats.restart();
    wait_within(CHANGES, "the alert clears", || !names(&proxy).contains("stale_beyond_bound"));
}

#[test]
fn past_alerts_survive_a_kill() {
    let redis = Redis::start();
    let directory = tempfile::tempdir().expect("a directory");
    let yaml = format!("data_dir: {}\nalerts: {{ memory_usage_max: 0 }}\n", directory.path().display());
    let process = Process::start(redis.addr(), &yaml);
    let firing = || field(&process.client().cmd("PROXY INFO Proxy"), "alerts_firing_names").expect("it is in INFO");
    wait_within(CHANGES, "the alert fires", || firing().contains("memory_usage"));
    process.client().cmd("PROXY ALERTS SET memory_usage_max 100%");
    let file = directory.path().join("history.ring");
    wait_within(CHANGES, "the alert that has cleared is in the file", || {
        std::fs::read(&file).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains("memory_usage"))
    });
    process.signal("KILL");
    drop(process);
    let again = Shortstop::start(&redis, &format!("{WITH_TOKEN}data_dir: {}\n", directory.path().display()));
    let past = get(again.monitor(), "/api/alerts").json()["past"][0].clone();
    assert_eq!((&past["alert"], &past["state"]), (&"memory_usage".into(), &"cleared".into()), "{past}");
    assert!(past["since"].as_u64().is_some_and(|since| since > 1_700_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_published_and_logged() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let reader = async_nats::connect(nats.url()).await.expect("NATS runs");
    let mut notices = reader.subscribe("cache.alerts").await.expect("a subscription");
    reader.flush().await.expect("NATS answers");
    let yaml = format!("nats: {}\nalerts: {{ memory_usage_max: 0 }}\n", nats.url());
    let process = tokio::task::block_in_place(|| Process::start(redis.addr(), &yaml));
    let message = tokio::time::timeout(CHANGES, notices.next()).await.expect("in time").expect("a message");
    let notice: Value = serde_json::from_slice(&message.payload).expect("JSON");
    assert_eq!(
        (&notice["alert"], &notice["state"], &notice["fleet"]),
        (&"memory_usage".into(), &"firing".into(), &"default".into())
    );
    // Another thread reads the log.
    tokio::task::block_in_place(|| {
        wait_until("the alert is logged", || {
            process.log().contains("an alert fires: this process takes more of the available memory")
        });
    });
}
