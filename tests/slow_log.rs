//! PROXY SLOWLOG: requests to Redis that took long, and where the time went. STATS RESET: INFO's counters begin anew.

mod common;
#[path = "monitor/http.rs"]
mod http;

use common::{Client, Redis, Shortstop, show};
use http::{get, get_with};
use serde_json::{Value, json};

const ALL: &str = "monitor: 127.0.0.1:0\nmonitor_token: s3cret\nslowlog: { slower_than: 0ms, max_len: 128 }\n";

/// Redis works on this for 30 ms.
const SLOW: &str = "local function now() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end \
                    local start = now() while now() - start < 30000 do end return 1";

/// The slow log, the newest first.
fn slow_log(proxy: &Shortstop) -> Vec<Value> {
    get_with(proxy.monitor(), "/api/slowlog?n=-1", "Authorization: Bearer s3cret\r\n")
        .json()
        .as_array()
        .expect("a list")
        .clone()
}

/// The newest entry of a command.
#[track_caller]
fn entry(proxy: &Shortstop, command: &str) -> Value {
    let found = slow_log(proxy).into_iter().find(|entry| entry["command"][0] == command);
    found.unwrap_or_else(|| panic!("{command} is not in the slow log"))
}

fn latency(proxy: &Shortstop, name: &str) -> f64 {
    get(proxy.monitor(), "/api/info?section=Latency").json()["Latency"][name].as_f64().expect("a number")
}

fn metric(proxy: &Shortstop, name: &str) -> f64 {
    let text = get(proxy.monitor(), "/metrics").body;
    let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("{name} is missing:\n{text}"));
    line.rsplit(' ').next().expect("a value").parse().expect("a number")
}

#[test]
fn values_are_shown_to_those_who_have_the_token() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, ALL);
    proxy.client().cmd("SET session:1 t0ken EX 10");
    let whole = json!(["SET", "session:1", "t0ken", "EX", "10"]);
    assert_eq!(entry(&proxy, "SET")["command"], whole);
    let anybody = get(proxy.monitor(), "/api/slowlog?n=1").json();
    let hidden = "(redacted)";
    assert_eq!(anybody[0]["command"], json!(["SET", "session:1", hidden, hidden, hidden]));
}

/// Reading needs no token, so it must change nothing.
#[test]
fn the_path_of_the_slow_log_only_shows_it() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, ALL);
    proxy.client().cmd("SET k v");
    entry(&proxy, "SET");
    for word in ["reset", "RESET", "len", "get"] {
        assert_eq!(get(proxy.monitor(), &format!("/api/slowlog?n={word}")).status, 400, "{word}");
    }
    entry(&proxy, "SET");
}

#[test]
fn a_slow_request_tells_who_asked_and_where_the_time_went() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "monitor: 127.0.0.1:0\nmonitor_token: s3cret\nslowlog: { max_len: 128 }\n");
    let mut client = proxy.client();
    client.cmd("CLIENT SETNAME ann");
    assert_eq!(client.call(&[b"EVAL", SLOW.as_bytes(), b"0"]), b":1\r\n");
    let entry = entry(&proxy, "EVAL");
    let number = |name: &str| entry[name].as_u64().expect("a number");
    // When the request was sent is noted a moment later.
    assert!(number("took_usec") >= 30_000 && number("upstream_usec") >= 15_000, "{entry}");
    assert_eq!(number("took_usec"), number("upstream_usec") + number("here_usec"), "{entry}");
    let clipped = format!("{}... ({} more bytes)", &SLOW[..128], SLOW.len() - 128);
    assert_eq!(entry["command"], json!(["EVAL", clipped, "0"]));
    assert_eq!(
        (&entry["name"], &entry["address"]),
        (&json!("ann"), &json!(client.stream().local_addr().expect("it is connected").to_string()))
    );
    let told = show_all(&client.cmd("PROXY SLOWLOG GET 1"));
    assert!(told.starts_with("*1\r\n*8\r\n:") && told.contains("$4\r\nEVAL\r\n"), "{told}");
    assert!(metric(&proxy, "shortstop_script_duration_seconds_sum") >= 0.03);
    assert!(latency(&proxy, "script_p99_usec") >= 30_000.0);
}

fn show_all(reply: &[u8]) -> String {
    String::from_utf8_lossy(reply).into_owned()
}

#[test]
fn a_hit_and_a_command_that_blocks_are_not_logged() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &format!("{ALL}defaults: {{ cache: {{ admit_after: 1 }} }}\n"));
    let mut client = proxy.client();
    client.cmd("SET k v");
    proxy.warm(&mut client, "k");
    client.cmd("PROXY SLOWLOG RESET");
    client.cmd("BLPOP none 0.01");
    client.cmd("GET k");
    client.cmd("MGET k k");
    client.cmd("PING");
    let commands: Vec<Value> = slow_log(&proxy).iter().map(|entry| entry["command"][0].clone()).collect();
    assert!(commands.contains(&json!("PING")), "{commands:?}");
    assert!(!["GET", "MGET", "BLPOP"].iter().any(|name| commands.contains(&json!(name))), "{commands:?}");
}

#[test]
fn secrets_are_not_shown_and_keys_only_if_they_may_be() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, ALL);
    let mut client = proxy.client();
    client.cmd("ACL SETUSER ann >s3cret");
    client.cmd("SET key value");
    assert_eq!(entry(&proxy, "ACL")["command"], json!(["ACL", "SETUSER", "(redacted)", "(redacted)"]));
    assert_eq!(entry(&proxy, "SET")["command"], json!(["SET", "key", "value"]));
    proxy.reload(&format!("{ALL}redact_keys: true\n"));
    assert_eq!(entry(&proxy, "SET")["command"], json!(["SET", "(redacted)", "(redacted)"]));
}

#[test]
fn the_slow_log_is_bounded_and_only_for_those_who_may_configure() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &ALL.replace("128", "3"));
    let mut client = proxy.client();
    for _ in 0..5 {
        client.cmd("SET k v");
    }
    assert_eq!(client.cmd("PROXY SLOWLOG LEN"), b":3\r\n");
    assert_eq!(slow_log(&proxy).len(), 3);
    for (line, answer) in [
        ("PROXY SLOWLOG GET -2", "-ERR count should be greater than or equal to -1\r\n"),
        ("PROXY SLOWLOG CLEAR", "-ERR count should be greater than or equal to -1\r\n"),
        ("PROXY SLOWLOG LEN 3", "-ERR PROXY SLOWLOG takes GET [count], LEN or RESET\r\n"),
        ("PROXY SLOWLOG RESET", "+OK\r\n"),
    ] {
        assert_eq!(show_all(&client.cmd(line)), answer, "{line}");
    }
    redis.client().cmd("ACL SETUSER bob on >pw ~* +@all -config|set");
    let mut bob = Client::connect(proxy.addr());
    bob.cmd("AUTH bob pw");
    for line in ["PROXY SLOWLOG GET", "PROXY SLOWLOG RESET", "PROXY STATS RESET"] {
        let answer = bob.cmd(line);
        assert!(answer.starts_with(b"-NOPERM"), "{line}: {}", show(&answer));
    }
}

#[test]
fn no_slow_log_is_kept_if_it_may_have_no_entry() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &ALL.replace("128", "0"));
    proxy.client().cmd("SET k v");
    assert_eq!(slow_log(&proxy), Vec::<Value>::new());
}

/// Some hits, misses and writes.
fn traffic(proxy: &Shortstop, client: &mut Client) {
    client.cmd("SET k v");
    proxy.warm(client, "k");
    client.cmd("GET k");
}

/// Whether the counters have begun anew, and those for Prometheus have not.
#[track_caller]
fn assert_reset(proxy: &Shortstop, how: &str) {
    let info = get(proxy.monitor(), "/api/info?section=L1,Latency,Coherence").json();
    assert_eq!((&info["L1"]["l1_hits"], &info["L1"]["hit_rate"]), (&json!(0), &json!(0.0)), "{how}: {info}");
    assert_eq!(info["Latency"]["hit_p99_usec"], json!(0.0), "{how}: {info}");
    assert!(info["L1"]["l1_entries"].as_u64() > Some(0), "{how}: it is no counter: {info}");
    assert!(metric(proxy, "shortstop_l1_hits_total") >= 1.0, "{how}");
    assert!(metric(proxy, "shortstop_hit_duration_seconds_count") >= 1.0, "{how}");
}

#[test]
fn counters_begin_anew_when_redis_s_do() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "monitor: 127.0.0.1:0\ndefaults: { cache: { admit_after: 1 } }\n");
    let mut client = proxy.client();
    for how in ["PROXY STATS RESET", "CONFIG RESETSTAT"] {
        traffic(&proxy, &mut client);
        assert!(proxy.stat("l1_hits") > 0);
        assert_eq!(client.cmd(how), b"+OK\r\n", "{how}");
        assert_reset(&proxy, how);
    }
    traffic(&proxy, &mut client);
    assert!(proxy.stat("l1_hits") > 0, "they count again");
    assert_eq!(client.cmd("MULTI"), b"+OK\r\n");
    assert_eq!(client.cmd("CONFIG RESETSTAT"), b"+QUEUED\r\n");
    assert!(proxy.stat("l1_hits") > 0, "not before EXEC");
    assert_eq!(client.cmd("EXEC"), b"*1\r\n+OK\r\n");
    assert_reset(&proxy, "a transaction");
    let events = get(proxy.monitor(), "/api/events?n=1000").json();
    let resets = events.as_array().expect("a list").iter().filter(|event| event["event"] == "stats_reset");
    assert_eq!(resets.count(), 3);
}

#[test]
fn a_user_without_the_right_resets_nothing() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "monitor: 127.0.0.1:0\ndefaults: { cache: { admit_after: 1 } }\n");
    let mut client = proxy.client();
    traffic(&proxy, &mut client);
    redis.client().cmd("ACL SETUSER bob on >pw ~* +@all -config|resetstat");
    let mut bob = Client::connect(proxy.addr());
    bob.cmd("AUTH bob pw");
    assert!(bob.cmd("CONFIG RESETSTAT").starts_with(b"-NOPERM"));
    assert!(proxy.stat("l1_hits") > 0);
    assert!(client.cmd("PROXY STATS CLEAR").starts_with(b"-ERR PROXY STATS takes RESET"));
}

#[test]
fn each_family_of_commands_has_its_latency() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "monitor: 127.0.0.1:0\n");
    let mut client = proxy.client();
    let counts = || {
        ["read", "write", "script", "other"]
            .map(|family| metric(&proxy, &format!("shortstop_{family}_duration_seconds_count")))
    };
    let mut before = counts();
    for (line, at) in [("GET k", 0), ("HGETALL h", 0), ("MGET a b", 0), ("SET k v", 1), ("DEL k", 1), ("PING", 3)] {
        client.cmd(line);
        before[at] += 1.0;
        assert_eq!(counts(), before, "{line}");
    }
    client.call(&[b"EVAL", b"return 1", b"0"]);
    before[2] += 1.0;
    assert_eq!(counts(), before);
    client.cmd("BLPOP none 0.01");
    assert_eq!(counts(), before, "it waits for others, so its time says nothing");
    assert!(latency(&proxy, "write_p50_usec") > 0.0);
}
