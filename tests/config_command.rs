//! PROXY CONFIG, and the same over HTTP: settings are shown and changed while Shortstop runs, and written into the file.

mod common;
#[path = "monitor/http.rs"]
mod http;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::{Client, Process, Redis, Shortstop, assert_reply, show, wait_until, warm};
use http::{Answer, get, raw};
use serde_json::json;

/// The value of a setting in force.
#[track_caller]
fn setting(client: &mut Client, key: &str) -> String {
    let reply = client.cmd(&format!("PROXY CONFIG GET {key}"));
    let text = String::from_utf8_lossy(&reply).into_owned();
    let mut lines = text.split("\r\n");
    assert_eq!((lines.next(), lines.nth(1)), (Some("*2"), Some(key)), "{text}");
    lines.nth(1).unwrap_or_default().to_owned()
}

#[track_caller]
fn assert_refused(client: &mut Client, words: &[&str], why: &str) {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    let reply = client.call(&[&[&b"PROXY"[..], b"CONFIG"], &words[..]].concat());
    let text = String::from_utf8_lossy(&reply);
    assert!(text.starts_with("-ERR ") && text.contains(why), "{text}");
}

#[test]
fn settings_are_shown_by_pattern_and_without_secrets() {
    let redis = Redis::start();
    let proxy = Shortstop::start(
        &redis,
        "monitor: 127.0.0.1:0\nmonitor_token: s3cret\nmax_staleness: 9s\nrules: [{ match: 'a b:*', cache: { ttl: 5s } }]\n",
    );
    let mut client = proxy.client();
    assert_eq!(setting(&mut client, "max_staleness"), "9s");
    assert_eq!(setting(&mut client, "rules[0].match"), "a b:*");
    assert_eq!(setting(&mut client, "monitor_token"), "***");
    assert_eq!(setting(&mut client, "nats"), "");
    assert_reply(&client.cmd("PROXY CONFIG GET no.such.key"), "*0\r\n", "as CONFIG GET of Redis");
    let mut modern = proxy.client().speaking(3);
    let reply = modern.cmd("PROXY CONFIG GET l1.max_mem* max_staleness");
    assert_reply(&reply, "%2\r\n$13\r\nmax_staleness\r\n$2\r\n9s\r\n$13\r\nl1.max_memory\r\n$5\r\n256mb\r\n", "a map");
    let all = get(proxy.monitor(), "/api/config").json();
    assert_eq!((&all["rules[0].cache.ttl"], &all["monitor_token"]), (&"5s".into(), &"***".into()));
    assert_eq!(get(proxy.monitor(), "/api/config?pattern=max_*").json(), json!({"max_staleness": "9s"}));
}

#[test]
fn a_new_rule_holds_from_the_reply_on() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "defaults: { cache: { admit_after: 1 } }\n");
    let mut client = proxy.client();
    client.cmd("SET user:1 one");
    warm(proxy.addr(), &mut client, b"user:1");
    let reply = client.call(&[b"PROXY", b"CONFIG", b"SET", b"rules", b"[{match: 'user:*', cache: false}]"]);
    let text = show(&reply);
    assert!(text.contains("rules[0].match: not set -> \\\"user:*\\\"") || text.contains("rules[0].match"), "{text}");
    assert!(text.contains("l1_emptied\\r\\n:1"), "{text}");
    let hits = proxy.stat("l1_hits");
    for _ in 0..3 {
        // Another client, which another worker may serve.
        assert_reply(&proxy.client().cmd("GET user:1"), "$3\r\none\r\n", "it has the value");
    }
    assert_eq!(proxy.stat("l1_hits"), hits, "no rule keeps it");
    client.cmd("PROXY CONFIG SET rules[0].cache true");
    client.cmd("GET user:1");
    client.cmd("GET user:1");
    assert!(proxy.stat("l1_hits") > hits, "a rule keeps it again");
}

#[test]
fn what_has_nothing_to_do_with_l1_leaves_it_alone() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    client.cmd("SET k v");
    warm(proxy.addr(), &mut client, b"k");
    let hits = proxy.stat("l1_hits");
    let reply = client.cmd("PROXY CONFIG SET slowlog.max_len 5 alerts.hit_rate_min 50% limits.max_clients 77");
    assert!(show(&reply).contains("l1_emptied\\r\\n:0"), "{}", show(&reply));
    client.cmd("GET k");
    assert_eq!(proxy.stat("l1_hits"), hits + 1);
    // A new size of L1 empties it, and says so.
    let reply = client.cmd("PROXY CONFIG SET l1.max_memory 1mb");
    assert!(show(&reply).contains("l1_emptied\\r\\n:1"), "{}", show(&reply));
    client.cmd("GET k");
    assert_eq!((proxy.stat("l1_hits"), proxy.stat("l1_max_bytes")), (hits + 1, 1 << 20));
    let events = client.cmd("PROXY EVENTS 10");
    assert!(show(&events).contains("configured") && show(&events).contains("l1.max_memory: 256mb -> 1mb"));
}

#[test]
fn all_settings_of_a_call_change_or_none() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    for (words, why) in [
        (&["SET", "max_staleness", "7s", "l1.max_memory", "big"][..], "l1.max_memory: 'big' is not a size"),
        (&["SET", "max_staleness", "7s", "no.such", "1"], "there is no key 'no' here"),
        (&["SET", "max_staleness", "7s", "degraded_staleness", "8s"], "degraded_staleness"),
        (&["SET", "max_staleness", "7s", "listen", "127.0.0.1:1"], "listen takes effect only at a restart"),
        (&["SET", "max_staleness", "7s", "monitor_token", "x"], "monitor_token is a secret"),
        (&["SET", "max_staleness", "7s", "monitor_token_file", "/no/such/file"], "monitor_token_file"),
        (&["SET", "max_staleness", "7s", "scripts"], "takes GET and patterns, SET and keys"),
        (&["SET", "max_staleness", "7s", "rules[0].watch", "false"], "there is no such rule"),
        (&["GET"], "takes GET and patterns"),
        (&["RELOAD", "now"], "REWRITE, or RELOAD"),
        (&["REWRITE"], "comes from no file"),
        (&["RELOAD"], "comes from no file"),
    ] {
        assert_refused(&mut client, words, why);
        assert_eq!(setting(&mut client, "max_staleness"), "1m", "{words:?}");
    }
    redis.client().cmd("ACL SETUSER reader on >pw ~* +@all -config");
    let mut reader = proxy.client();
    reader.cmd("AUTH reader pw");
    for line in ["PROXY CONFIG GET *", "PROXY CONFIG SET max_staleness 7s", "PROXY CONFIG RELOAD"] {
        assert!(reader.cmd(line).starts_with(b"-NOPERM"), "{line}");
    }
}

#[test]
fn what_was_changed_is_written_into_the_file() {
    let redis = Redis::start();
    let proxy = Process::start(redis.addr(), "");
    let file = proxy.config_file();
    let before = fs::read_to_string(&file).expect("a file");
    let text = format!(
        "# ours\n{before}max_staleness: 30s  # half a minute\nrules:\n  # users\n  - match: 'user:*'\n    watch: false\n"
    );
    fs::write(&file, &text).expect("written");
    let mut client = proxy.client();
    client.cmd("PROXY CONFIG RELOAD");
    assert_eq!(setting(&mut client, "max_staleness"), "30s");
    // Nothing has changed: nothing is written.
    assert_reply(&client.cmd("PROXY CONFIG REWRITE"), "*2\r\n$7\r\nwritten\r\n*0\r\n", "nothing");
    client.cmd("PROXY CONFIG SET max_staleness 20s rules[0].watch true l1.max_entries 7");
    let reply = client.cmd("PROXY CONFIG REWRITE");
    assert!(show(&reply).contains("l1.max_entries") && show(&reply).contains("rules[0].watch"), "{}", show(&reply));
    let written = fs::read_to_string(&file).expect("a file");
    let expected = text.replace("30s  # half", "20s  # half").replace("watch: false", "watch: true");
    assert!(written.starts_with(expected.trim_end()) && written.contains("max_entries: 7"), "{written}");
    // What is in the file is in force after it is read again, and an undone change is gone.
    client.cmd("PROXY CONFIG SET max_staleness 5s");
    client.cmd("PROXY CONFIG RELOAD");
    assert_eq!(
        (setting(&mut client, "max_staleness"), setting(&mut client, "l1.max_entries")),
        ("20s".into(), "7".into())
    );
    // A file that is refused leaves everything as it is.
    fs::write(&file, "max_staleness: soon\n").expect("written");
    assert_refused(&mut client, &["RELOAD"], "'soon' is not a time");
    assert_refused(&mut client, &["REWRITE"], "the file is refused as it is now");
    assert_eq!(fs::read_to_string(&file).expect("a file"), "max_staleness: soon\n");
    assert_eq!(setting(&mut client, "max_staleness"), "20s");
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let redis = Redis::start();
    let proxy = Process::start_with(redis.addr(), "", &[("CACHE_MAX_SIZE", "50")], &[]);
    let file = proxy.config_file();
    let mut client = proxy.client();
    // The environment beats the file: the change would be gone after a restart.
    client.cmd("PROXY CONFIG SET l1.max_entries 60");
    assert_refused(&mut client, &["REWRITE"], "l1.max_entries is set by CACHE_MAX_SIZE, which beats the file");
    client.cmd("PROXY CONFIG SET l1.max_entries 50 max_staleness 20s");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).expect("it is ours");
    let before = fs::read_to_string(&file).expect("a file");
    assert_refused(&mut client, &["REWRITE"], &format!("{} cannot be written", file.display()));
    assert_eq!(fs::read_to_string(&file).expect("a file"), before);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("it is ours");
    client.cmd("PROXY CONFIG REWRITE");
    assert!(fs::read_to_string(&file).expect("a file").contains("max_staleness: 20s"));
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o640, "its permissions stay");
}

#[test]
fn settings_change_over_http_with_the_token() {
    let redis = Redis::start();
    let proxy = Process::start(redis.addr(), "monitor: 127.0.0.1:0\nmonitor_token: s3cret\n");
    wait_until("the log names the monitor", || proxy.log().contains("the monitor is at"));
    let log = proxy.log();
    let monitor = log.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("a URL");
    let monitor = monitor.parse().expect("an address");
    let send = |method: &str, path: &str, header: &str, body: &str| -> Answer {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {monitor}\r\nConnection: close\r\n{header}Content-Length: {length}\r\n"
        );
        raw(monitor, &format!("{head}\r\n{body}"))
    };
    let token = "Authorization: Bearer s3cret\r\n";
    let body =
        r#"{"max_staleness": "7s", "rules": [{"match": "user:*", "cache": {"ttl": "5s"}}], "l1.max_entries": 9}"#;
    for (method, path) in [("PATCH", "/api/config"), ("POST", "/api/config/reload"), ("POST", "/api/config/rewrite")] {
        assert_eq!(send(method, path, "", body).status, 401, "{path}");
    }
    assert_eq!(send("PATCH", "/api/config", token, "[]").status, 400);
    let refused = send("PATCH", "/api/config", token, r#"{"max_staleness": "soon"}"#);
    assert_eq!((refused.status, refused.json()["error"].as_str().is_some_and(|why| why.contains("soon"))), (400, true));
    let changed = send("PATCH", "/api/config", token, body).json();
    assert_eq!(changed["l1_emptied"], true, "{changed}");
    assert_eq!(get(monitor, "/api/config?pattern=rules*").json()["rules[0].cache.ttl"], "5s");
    let written = send("POST", "/api/config/rewrite", token, "").json();
    assert_eq!(written["written"], json!(["l1.max_entries", "max_staleness", "rules"]));
    assert_eq!(send("POST", "/api/config/reload", token, "").json()["changed"], json!([]));
    assert_eq!(get(monitor, "/api/config?pattern=l1.max_entries").json(), json!({"l1.max_entries": "9"}));
}
