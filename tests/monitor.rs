//! The monitor over HTTP: what it shows is what PROXY INFO shows, it asks for the token, and it answers while Redis does not.

mod common;
#[path = "monitor/http.rs"]
mod http;

use std::net::TcpListener;

use common::{Redis, Shortstop, field, wait_until};
use http::{get, get_with, raw};
use serde_json::Value;
use shortstop::app::App;
use shortstop::config::Config;

const ANYWHERE: &str = "monitor: 127.0.0.1:0\n";

#[test]
fn info_as_json_has_the_fields_of_info() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, ANYWHERE);
    let mut client = proxy.client();
    for _ in 0..5 {
        client.cmd("GET k");
    }
    let all = get(proxy.monitor(), "/api/info").json();
    let sections: Vec<&String> = all.as_object().expect("sections").keys().collect();
    assert_eq!(
        sections,
        ["Coherence", "Compression", "Invalidation", "L1", "Latency", "Proxy", "ProxyClients", "Upstream"]
    );
    let info = client.cmd("PROXY INFO");
    for name in ["l1_max_bytes", "fills", "workers"] {
        let told = field(&info, name).expect("it is in INFO");
        let found = all.as_object().expect("sections").values().find_map(|section| section.get(name)).expect(name);
        assert_eq!(found.to_string(), told, "{name}");
    }
    assert_eq!(all["Coherence"]["lease_age_ms"], Value::Null, "not known");
    let some = get(proxy.monitor(), "/api/info?section=l1,Latency").json();
    assert_eq!(some.as_object().expect("sections").keys().collect::<Vec<_>>(), ["L1", "Latency"]);
}

#[test]
fn both_formats_of_metrics_have_every_number() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &format!("{ANYWHERE}defaults: {{ cache: {{ admit_after: 1 }} }}\n"));
    let mut client = proxy.client();
    client.cmd("SET k v");
    client.cmd("GET k");
    wait_until("a hit", || {
        client.cmd("GET k");
        proxy.stat("l1_hits") > 0
    });
    let plain = get(proxy.monitor(), "/metrics");
    assert!(plain.head.contains("text/plain; version=0.0.4"), "{}", plain.head);
    let value = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("{name} is missing:\n{text}"));
        line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")
    };
    assert!(value(&plain.body, "shortstop_l1_hits_total") >= 1.0);
    assert!(value(&plain.body, "shortstop_hit_duration_seconds_count") >= 1.0);
    assert!(value(&plain.body, "shortstop_hit_duration_seconds_sum") > 0.0);
    assert_eq!(value(&plain.body, "shortstop_max_staleness_seconds"), 60.0);
    assert!(plain.body.contains("# TYPE shortstop_l1_hits_total counter"), "{}", plain.body);
    assert!(plain.body.contains("shortstop_flushes_total{reason=\"scripts\"} 0"), "{}", plain.body);
    assert!(plain.body.contains("shortstop_mode{mode=\"single\",reason=\"no_nats\"} 1"), "{}", plain.body);
    let open = get_with(proxy.monitor(), "/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n");
    assert!(open.head.contains("application/openmetrics-text") && open.body.ends_with("# EOF\n"), "{}", open.body);
    assert!(open.body.contains("# TYPE shortstop_l1_hits counter"), "{}", open.body);
    let [address, upstream] = [proxy.addr(), redis.addr()].map(|address| address.to_string());
    assert!(!plain.body.contains(&address) && !plain.body.contains(&upstream), "an address is no label");
}

#[test]
fn it_answers_while_redis_does_not() {
    let mut redis = Redis::start();
    let proxy = Shortstop::start(&redis, ANYWHERE);
    wait_until("it is ready", || get(proxy.monitor(), "/readyz").status == 200);
    redis.kill();
    proxy.wait_stat("upstream_up", |up| up == 0);
    assert_eq!(get(proxy.monitor(), "/livez").status, 200);
    assert_eq!(get(proxy.monitor(), "/readyz").status, 200, "Redis being away later is no reason");
    assert_eq!(get(proxy.monitor(), "/api/info?section=Upstream").json()["Upstream"]["upstream_up"], 0);
    assert_eq!(get(proxy.monitor(), "/metrics").status, 200);
}

#[test]
fn it_says_why_it_is_not_ready() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it is bound");
    let proxy = Shortstop::to(nobody, ANYWHERE);
    let ready = || get(proxy.monitor(), "/readyz");
    wait_until("it says that Redis does not answer", || {
        ready().json()["reasons"][0].to_string().contains("Redis does not answer")
    });
    assert_eq!((ready().status, ready().json()["ready"].clone()), (503, Value::Bool(false)));
}

#[test]
fn reading_may_need_the_token() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &format!("{ANYWHERE}monitor_token: s3cret\nmonitor_auth: all\n"));
    for path in ["/metrics", "/api/info"] {
        assert_eq!(get(proxy.monitor(), path).status, 401, "{path}");
        assert_eq!(get_with(proxy.monitor(), path, "Authorization: Bearer s3cret\r\n").status, 200, "{path}");
    }
    assert_eq!(get(proxy.monitor(), "/livez").status, 200);
}

#[test]
fn a_wrong_request_gets_an_error_as_json() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, ANYWHERE);
    for (request, status) in [
        ("GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        ("GET /api/nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        ("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 405),
    ] {
        let answer = raw(proxy.monitor(), request);
        assert_eq!(answer.status, status, "{request}");
        assert!(answer.json()["error"].is_string(), "{}", answer.body);
    }
    assert_eq!(raw(proxy.monitor(), "nonsense\r\n\r\n").status, 400);
}

#[test]
fn readers_that_send_nothing_leave_room_for_others() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, ANYWHERE);
    // Fewer than may be connected: each would otherwise have to be waited for.
    let _silent: Vec<_> =
        (0..100).map(|_| std::net::TcpStream::connect(proxy.monitor()).expect("it accepts")).collect();
    assert_eq!(get(proxy.monitor(), "/livez").status, 200);
    proxy.client().cmd("PING");
}

#[test]
fn a_named_address_that_is_taken_is_an_error() {
    let redis = Redis::start();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("it is bound");
    let yaml = format!("listen: 127.0.0.1:0\nupstream: redis://{}\nmonitor: {address}\n", redis.addr());
    let config = Config::from_yaml(&yaml).unwrap_or_else(|error| panic!("{error}"));
    let error = App::start(config).err().expect("it does not start").to_string();
    assert!(error.starts_with(&format!("cannot listen on {address}:")) && error.contains("for monitor"), "{error}");
}
