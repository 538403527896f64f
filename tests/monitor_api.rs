//! The paths under /api: each is listed and described, and its answers are as its schema says. Who may ask, and under which name.

mod common;
#[path = "monitor/http.rs"]
mod http;
#[path = "monitor/schema.rs"]
mod schema;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Process, Redis, Shortstop, free_address, wait_within};
use http::{get, get_with, raw, send};
use serde_json::{Value, json};

const MONITOR: &str = "monitor: 127.0.0.1:0\n";
const TOKEN: &str = "Authorization: Bearer s3cret\r\n";

/// The longest time until there is something to show: a sample of the history comes every ten seconds.
const CONTENT: Duration = Duration::from_secs(60);

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// The schema that the answers of a path have.
fn schema_of(path: &str) -> String {
    match path.strip_prefix("/api/") {
        None => "paths".to_owned(),
        Some("config/reload") => "config-change".to_owned(),
        Some(name) => name.replace('/', "-"),
    }
}

/// Schemas, and which of them have been satisfied.
#[derive(Default)]
struct Schemas(BTreeSet<String>);

impl Schemas {
    #[track_caller]
    fn satisfied(&mut self, name: &str, value: &Value) {
        let path = docs().join(format!("api/{name}.schema.json"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let schema = serde_json::from_str(&text).expect("JSON");
        let mut wrong = Vec::new();
        schema::check(&schema, value, "", &mut wrong);
        assert!(wrong.is_empty(), "{name}: {}\n{value:#}", wrong.join("\n"));
        self.0.insert(name.to_owned());
    }

    /// What a path gives, as soon as there is something at this place in it.
    #[track_caller]
    fn satisfied_by(&mut self, monitor: SocketAddr, path: &str, place: &str) -> Value {
        let is_full = |value: Option<&Value>| match value {
            Some(Value::Array(list)) => !list.is_empty(),
            value => value.is_some_and(|value| !value.is_null()),
        };
        let mut value = Value::Null;
        wait_within(CONTENT, &format!("{path} shows something at {place}"), || {
            value = get(monitor, path).json();
            is_full(value.pointer(place))
        });
        self.satisfied(&schema_of(path.split('?').next().unwrap_or_default()), &value);
        value
    }
}

#[test]
fn answers_are_as_their_schemas_say() {
    let (redis, monitor) = (Redis::start(), free_address());
    let yaml = "monitor_token: s3cret\nslowlog: { slower_than: 0ms, max_len: 10 }\nalerts: { memory_usage_max: 0.0001% }\n\
                rules: [{ match: 'user:*', cache: { admit_after: 1 } }]\n";
    let proxy = Process::start(redis.addr(), &format!("monitor: {monitor}\n{yaml}"));
    let mut client = proxy.client();
    let text = "x".repeat(5000);
    client.cmd(&format!("SET user:1 {text}"));
    client.call(&[b"SET", b"user:\xff", b"no text"]);
    wait_within(CONTENT, "a hit", || {
        client.cmd("GET user:1");
        proxy.stat("l1_hits") > 0
    });
    let mut schemas = Schemas::default();
    schemas.satisfied_by(monitor, "/api", "/paths");
    schemas.satisfied_by(monitor, "/api/info", "/L1");
    schemas.satisfied("info", &get(monitor, "/api/info?section=L1").json());
    schemas.satisfied_by(monitor, "/api/fields", "");
    schemas.satisfied_by(monitor, "/api/alerts", "/firing");
    schemas.satisfied_by(monitor, "/api/dashboard", "/performance_history");
    schemas.satisfied_by(monitor, "/api/history", "/times");
    schemas.satisfied_by(monitor, "/api/report?hours=1", "/from");
    schemas.satisfied_by(monitor, "/api/rules", "");
    schemas.satisfied_by(monitor, "/api/fleet", "/instances");
    schemas.satisfied_by(monitor, "/api/events", "");
    schemas.satisfied_by(monitor, "/api/slowlog", "");
    schemas.satisfied_by(monitor, "/api/bigkeys?n=5", "/keys");
    wait_within(CONTENT, "a hot key", || {
        client.cmd("GET user:1");
        client.call(&[b"GET", b"user:\xff"]);
        get(monitor, "/api/hotkeys").json()["keys"].as_array().is_some_and(|keys| keys.len() > 1)
    });
    schemas.satisfied_by(monitor, "/api/hotkeys", "/keys");
    schemas.satisfied_by(monitor, "/api/explain?key=user:1", "/replies");
    client.cmd("SET user:1 y");
    schemas.satisfied_by(monitor, "/api/explain?key=user:1", "/last_departure/why");
    schemas.satisfied_by(monitor, "/api/explain?key=nobody", "/because");
    let stream = get_sample(monitor);
    schemas.satisfied("stream", &stream);
    schemas.satisfied("info", &stream["info"]);
    let alerts = send(monitor, "PUT /api/alerts", TOKEN, r#"{"hit_rate_min": "60%"}"#).json();
    schemas.satisfied("alerts", &alerts);
    schemas.satisfied_by(monitor, "/api/config", "/max_staleness");
    for (request, body, schema) in [
        ("PATCH /api/config", r#"{"max_staleness": "9s", "alerts.memory_usage_max": 0.9}"#, "config-change"),
        ("POST /api/config/rewrite", "", "config-rewrite"),
        ("POST /api/config/reload", "", "config-change"),
        ("POST /api/flush?pattern=user:*", "", "flush"),
        ("POST /api/warm?pattern=user:*", "", "warm"),
        ("POST /api/compress?pattern=user:*", "", "compress"),
        ("POST /api/decompress?pattern=user:*", "", "decompress"),
    ] {
        schemas.satisfied(schema, &send(monitor, request, TOKEN, body).json());
    }
    schemas.satisfied_by(monitor, "/api/warm", "/took_ms");
    schemas.satisfied("error", &get(monitor, "/api/nothing").json());
    // The other paths that can be read, as they are.
    for path in listed(monitor) {
        let schema = schema_of(&path);
        if !schemas.0.contains(&schema) {
            schemas.satisfied(&schema, &get(monitor, &path).json());
        }
    }
    assert_eq!(schemas.0, all_schemas(), "each is used");
}

/// The paths that the monitor lists.
fn listed(monitor: SocketAddr) -> BTreeSet<String> {
    serde_json::from_value(get(monitor, "/api").json()["paths"].clone()).expect("texts")
}

/// The names of the files in docs/api.
fn all_schemas() -> BTreeSet<String> {
    let files = fs::read_dir(docs().join("api")).expect("it is there");
    let names = files.map(|file| file.expect("a file").file_name().into_string().expect("a text"));
    names.filter_map(|name| name.strip_suffix(".schema.json").map(str::to_owned)).collect()
}

/// The first sample of the stream.
fn get_sample(monitor: SocketAddr) -> Value {
    use std::io::{BufRead, BufReader, Write};
    let mut stream = std::net::TcpStream::connect(monitor).expect("the monitor accepts");
    stream.set_read_timeout(Some(CONTENT)).expect("a time");
    write!(stream, "GET /api/stream HTTP/1.1\r\nHost: {monitor}\r\n\r\n").expect("the monitor reads");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("the stream goes on"));
    let data = lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned)).expect("a sample");
    serde_json::from_str(&data).expect("JSON")
}

/// The paths under /api in the table of docs/monitor.md.
fn documented() -> BTreeSet<String> {
    let text = fs::read_to_string(docs().join("monitor.md")).expect("it is there");
    let cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next().map(str::to_owned));
    let paths = cells.flat_map(|cell| cell.split('`').map(str::to_owned).collect::<Vec<_>>());
    paths
        .filter(|path| path.starts_with("/api"))
        .map(|path| path.split('?').next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn each_path_is_listed_and_described_and_has_a_schema() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, MONITOR);
    assert_eq!(get(proxy.monitor(), "/api").json()["has_token"], json!(false));
    let listed = listed(proxy.monitor());
    let mut documented = documented();
    assert!(documented.remove("/api"), "it is described, too");
    assert_eq!(listed, documented);
    let schemas = all_schemas();
    let without: Vec<_> = listed.iter().filter(|path| !schemas.contains(&schema_of(path))).collect();
    assert!(without.is_empty(), "{without:?}");
    for path in listed {
        assert_ne!(send(proxy.monitor(), &format!("HEAD {path}?key=k"), "", "").status, 404, "{path}");
    }
}

/// A field that stands twice in an object of JSON is lost to the reader.
#[test]
fn each_field_is_explained_and_stands_once() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, MONITOR);
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let fields = get(proxy.monitor(), "/api/fields").json();
    let fields = fields.as_array().expect("a list");
    let explained: BTreeSet<(String, String)> =
        fields.iter().map(|field| (text(&field["section"]), text(&field["name"]))).collect();
    assert_eq!(explained.len(), fields.len(), "none stands twice");
    let info = get(proxy.monitor(), "/api/info").json();
    let sections = info.as_object().expect("sections").iter();
    let shown = sections.flat_map(|(section, fields)| {
        fields.as_object().expect("fields").keys().map(|name| (section.clone(), name.clone())).collect::<Vec<_>>()
    });
    assert_eq!(shown.collect::<BTreeSet<_>>(), explained);
}

/// A web site whose name leads to this address must not read through a visitor's browser.
#[test]
fn a_name_that_is_not_known_is_refused() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &format!("{MONITOR}monitor_hosts: [Cache.Internal]\n"));
    let ask = |path: &str, host: &str| {
        raw(proxy.monitor(), &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    };
    for host in ["127.0.0.1", "localhost:8083", "[::1]:80", "cache.internal", "CACHE.internal:8083"] {
        assert_eq!(ask("/api/info", host).status, 200, "{host}");
    }
    for path in ["/", "/page/page.js", "/api", "/api/info", "/api/explain?key=k", "/nothing"] {
        let refused = ask(path, "rebound.example:8083");
        assert_eq!(refused.status, 421, "{path}");
        assert!(refused.json()["error"].as_str().is_some_and(|error| error.contains("monitor_hosts")), "{path}");
    }
    for path in ["/livez", "/metrics"] {
        assert_eq!(ask(path, "shortstop-1:8083").status, 200, "{path}: probes and Prometheus ask under any name");
    }
    assert_ne!(ask("/readyz", "shortstop-1:8083").status, 421);
}

/// A form on another web site can send a POST, but no header of its own; and a script there asks first whether it may.
#[test]
fn another_web_site_cannot_change_anything() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &format!("{MONITOR}monitor_token: s3cret\n"));
    let monitor = proxy.monitor();
    let form = "Origin: http://evil.example\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let changes = [
        "PUT /api/alerts",
        "PATCH /api/config",
        "POST /api/config/reload",
        "POST /api/config/rewrite",
        "POST /api/flush?fleet=true",
        "POST /api/warm?pattern=*",
        "DELETE /api/warm",
        "POST /api/compress?pattern=*",
        "POST /api/decompress?pattern=*",
        "DELETE /api/decompress",
    ];
    for request in changes {
        let refused = send(monitor, request, form, "hit_rate_min=0");
        assert_eq!(refused.status, 401, "{request}: {}", refused.body);
        assert_eq!(send(monitor, request, &format!("{form}Cookie: token=s3cret\r\n"), "").status, 401, "{request}");
        let path = request.split(' ').nth(1).expect("a path");
        let asks = "Origin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n\
                    Access-Control-Request-Headers: authorization\r\n";
        let asked = send(monitor, &format!("OPTIONS {path}"), asks, "");
        assert_eq!(asked.status, 405, "{path}");
        assert!(!asked.head.to_ascii_lowercase().contains("access-control-allow"), "{}", asked.head);
    }
    let read = get_with(monitor, "/api/info", "Origin: http://evil.example\r\n");
    assert!(!read.head.to_ascii_lowercase().contains("access-control-allow"), "{}", read.head);
}
