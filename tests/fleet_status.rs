//! PROXY FLEET and /api/fleet: real Shortstops tell each other of themselves over NATS. One ends, one is killed, one has another rule, and
//! somebody publishes nonsense.

mod common;
#[path = "monitor/http.rs"]
mod http;
#[path = "monitor/schema.rs"]
mod schema;

use std::time::Duration;

use common::{Nats, NatsClient, Process, Redis, Shortstop, field, wait_until, wait_within};
use http::get;
use serde_json::Value;

/// With a monitor.
const SHOWN: &str = "monitor: 127.0.0.1:0\ndefaults: { cache: { admit_after: 1 } }\n";

/// The same settings for the fleet.
const PLAIN: &str = "defaults: { cache: { admit_after: 1 } }\n";

const STATUS: &str = "shortstop.v1.default.status";

/// The longest time until a killed instance is shown as lost.
const LOST: Duration = Duration::from_secs(60);

#[track_caller]
fn fleet(proxy: &Shortstop) -> Value {
    let fleet = get(proxy.monitor(), "/api/fleet").json();
    let schema = serde_json::from_str(include_str!("../docs/api/fleet.schema.json")).expect("JSON");
    let mut wrong = Vec::new();
    schema::check(&schema, &fleet, "", &mut wrong);
    assert!(wrong.is_empty(), "{}\n{fleet:#}", wrong.join("\n"));
    fleet
}

fn instances(fleet: &Value) -> &Vec<Value> {
    fleet["instances"].as_array().expect("a list")
}

fn member(redis: &Redis, nats: &Nats, yaml: &str) -> Process {
    Process::start(redis.addr(), &format!("nats: {}\n{yaml}", nats.url()))
}

fn incarnation(process: &Process) -> String {
    field(&process.client().cmd("PROXY INFO Proxy"), "incarnation").expect("it is in INFO")
}

/// What is shown of an instance.
fn of<'a>(fleet: &'a Value, incarnation: &str) -> Option<&'a Value> {
    instances(fleet).iter().find(|instance| instance["instance"] == incarnation)
}

#[test]
fn each_instance_shows_all_of_them() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let one = Shortstop::in_fleet(&redis, &nats, SHOWN);
    let other = Shortstop::in_fleet(&redis, &nats, SHOWN);
    let mut clients = [one.client(), other.client()];
    clients[1].cmd("SET k v");
    for proxy in [&one, &other] {
        wait_until("both are shown, and are live", || {
            let fleet = fleet(proxy);
            instances(&fleet).len() == 2 && instances(&fleet).iter().all(|instance| instance["mode"] == "live")
        });
    }
    wait_until("a hit counts in the sums of the other one", || {
        clients[1].cmd("GET k");
        fleet(&one)["together"]["hit_rate"].as_f64().is_some_and(|rate| rate > 0.0)
    });
    let fleet = fleet(&one);
    let [own, others] = &instances(&fleet)[..] else { panic!("{fleet}") };
    assert_eq!((&own["is_self"], &own["last_heard_ms"]), (&true.into(), &0.into()));
    assert_eq!((&others["is_self"], &others["is_lost"]), (&false.into(), &false.into()));
    assert_eq!(others["address"], other.addr().to_string());
    assert!(own["nats_round_trip_usec"].as_u64().is_some_and(|usec| usec > 0), "{own}");
    assert_eq!(own["settings_digest"], others["settings_digest"]);
    assert_eq!((&fleet["differs"], &fleet["note"]), (&Value::Array(Vec::new()), &Value::Null));
    assert_eq!(fleet["together"]["instances"], 2);
    assert!(fleet["together"]["clients"].as_u64().is_some_and(|clients| clients >= 2), "{fleet}");
    let reply = String::from_utf8(one.client().cmd("PROXY FLEET")).expect("text");
    assert!(reply.contains("settings_digest") && reply.contains(&other.addr().to_string()), "{reply}");
}

#[test]
fn who_ends_is_gone_who_is_killed_is_lost_and_who_differs_is_named() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let one = Shortstop::in_fleet(&redis, &nats, SHOWN);
    let mut ends = member(&redis, &nats, PLAIN);
    let mut killed = member(&redis, &nats, &format!("{PLAIN}rules: [{{ match: 'secret:*', watch: false }}]\n"));
    let [ending, dying] = [&ends, &killed].map(incarnation);
    wait_until("all are shown", || instances(&fleet(&one)).len() == 3);
    let shown = fleet(&one);
    let differs = shown["differs"].as_array().expect("a list");
    assert_eq!(differs.len(), 1, "{shown:#}");
    assert_eq!(differs[0]["setting"], "rules[0]");
    let groups = differs[0]["groups"].as_array().expect("a list");
    assert!(groups.len() == 2 && groups.contains(&Value::from(vec![dying.clone()])), "{shown:#}");
    assert!(!shown.to_string().contains("secret:"), "no value is shown");

    ends.signal("TERM");
    ends.wait_exit(LOST);
    wait_until("who ends is gone at once", || of(&fleet(&one), &ending).is_none());
    killed.signal("KILL");
    killed.wait_exit(LOST);
    wait_within(LOST, "who was killed is lost", || {
        of(&fleet(&one), &dying).expect("it is still shown")["is_lost"] == true
    });
    let together = &fleet(&one)["together"];
    assert_eq!((&together["instances"], &together["instances_lost"]), (&1.into(), &1.into()));
}

#[test]
fn nonsense_on_the_subject_is_counted_and_changes_nothing_else() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let one = Shortstop::in_fleet(&redis, &nats, SHOWN);
    let mut client = one.client();
    client.cmd("SET k v");
    one.settle(&redis, &mut client, "k");
    let flushes = one.stat("flushes");
    let own = instances(&fleet(&one))[0]["instance"].as_str().expect("a text").to_owned();
    let mut service = NatsClient::connect(nats.addr());
    let hostile = [
        "nonsense".to_owned(),
        "[".repeat(20_000),
        format!("{{\"x\":\"{}\"}}", "x".repeat(100_000)),
        r#"{"instance":"00000000000000ab","version":7,"mode":"live"}"#.to_owned(),
        r#"{"instance":"00000000000000ab","version":"1","mode":"live","clients":-1}"#.to_owned(),
    ];
    for message in &hostile {
        service.publish(STATUS, message.as_bytes());
    }
    // It claims to be this instance, which knows better.
    service.publish(STATUS, format!(r#"{{"instance":"{own}","version":"forged","mode":"off"}}"#).as_bytes());
    service.publish(STATUS, br#"{"instance":"00000000000000ab","version":"9","mode":"live","new":[1]}"#);
    one.wait_stat("summaries_bad", |bad| bad == hostile.len() as u64);
    wait_until("one of a later version is shown", || of(&fleet(&one), "00000000000000ab").is_some());
    let shown = fleet(&one);
    assert_eq!(instances(&shown).len(), 2, "{shown:#}");
    assert_eq!(instances(&shown)[0]["mode"], "live");
    assert_eq!((one.stat("flushes"), one.stat("unreadable"), one.mode().as_str()), (flushes, 0, "live"));
    assert_eq!(client.cmd("GET k"), common::bulk(b"v"), "it is still in L1");
}

#[test]
fn without_nats_an_instance_shows_itself_alone_and_says_so() {
    let redis = Redis::start();
    let one = Shortstop::start(&redis, SHOWN);
    let fleet = fleet(&one);
    assert_eq!((instances(&fleet).len(), &fleet["nats_configured"]), (1, &false.into()));
    assert!(fleet["note"].as_str().is_some_and(|note| note.contains("no NATS is configured")), "{fleet}");
}

/// The hot keys in the summaries of an instance that reads one key, until `enough`.
fn hot_keys(yaml: &str, enough: impl Fn(&Value) -> bool) -> Value {
    let (redis, nats) = (Redis::start(), Nats::start());
    let mut service = NatsClient::connect(nats.addr());
    service.subscribe(STATUS);
    let one = Shortstop::in_fleet(&redis, &nats, yaml);
    let mut client = one.client();
    loop {
        (0..50).for_each(|_| drop(client.cmd("GET hot")));
        let message: Value = serde_json::from_slice(&service.next()).expect("JSON");
        if enough(&message) {
            return message["hot_keys"].clone();
        }
    }
}

#[test]
fn summaries_name_hot_keys_unless_keys_are_redacted() {
    let hot = hot_keys(PLAIN, |message| message["hot_keys"].as_array().is_some_and(|keys| !keys.is_empty()));
    assert_eq!(hot, serde_json::json!([{ "db": 0, "key": "hot" }]));
    // By then there has been a second look for hot keys.
    let long_enough = |message: &Value| message["uptime_seconds"].as_u64().is_some_and(|up| up > 10);
    assert_eq!(hot_keys(&format!("{PLAIN}redact_keys: true\n"), long_enough), serde_json::json!([]));
}
