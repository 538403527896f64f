//! The page and what it is made from: the stream, the meaning of the fields, the schemas of the answers, and the page itself in a real
//! browser.

#[path = "monitor/browser.rs"]
mod browser;
mod common;
#[path = "monitor/http.rs"]
mod http;
#[path = "monitor/schema.rs"]
mod schema;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use browser::Browser;
use common::{Fault, PATIENCE, Process, Redis, Shortstop, command, free_address, skipped, wait_within};
use http::{get, get_with};
use serde_json::Value;
use sha2::{Digest, Sha256};

const MONITOR: &str = "monitor: 127.0.0.1:0\ndefaults: { cache: { admit_after: 1 } }\n";

/// A reader of `/api/stream`.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn open(monitor: SocketAddr) -> Stream {
        let mut stream = TcpStream::connect(monitor).expect("the monitor accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        write!(stream, "GET /api/stream HTTP/1.1\r\nHost: {monitor}\r\nConnection: close\r\n\r\n")
            .expect("the monitor reads");
        Stream(BufReader::new(stream))
    }

    /// The next line; `None`: the stream has ended.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.0.read_line(&mut line).expect("the stream goes on or ends");
        (length > 0).then(|| line.trim_end().to_owned())
    }

    /// The next sample; `None`: the stream has ended.
    fn sample(&mut self) -> Option<Value> {
        loop {
            if let Some(data) = self.line()?.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).expect("JSON"));
            }
        }
    }
}

#[track_caller]
fn satisfies(schema: &str, value: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/api/{schema}.schema.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let schema = serde_json::from_str(&text).expect("JSON");
    let mut wrong = Vec::new();
    schema::check(&schema, value, "", &mut wrong);
    assert!(wrong.is_empty(), "{}\n{value:#}", wrong.join("\n"));
}

#[test]
fn answers_are_as_their_schemas_say() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, MONITOR);
    let (info, fields) = (get(proxy.monitor(), "/api/info").json(), get(proxy.monitor(), "/api/fields").json());
    let sample = Stream::open(proxy.monitor()).sample().expect("a sample");
    satisfies("info", &info);
    satisfies("info", &sample["info"]);
    satisfies("info", &get(proxy.monitor(), "/api/info?section=L1").json());
    satisfies("fields", &fields);
    satisfies("stream", &sample);
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

#[test]
fn the_stream_shows_what_changes() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, MONITOR);
    let mut stream = Stream::open(proxy.monitor());
    let first = stream.sample().expect("a sample");
    proxy.client().cmd("GET k");
    let commands = |sample: &Value| sample["info"]["ProxyClients"]["proxy_commands"].as_u64().expect("a number");
    let later = std::iter::from_fn(|| stream.sample()).find(|later| commands(later) > commands(&first));
    let later = later.expect("the stream goes on");
    assert!(later["at_ms"].as_u64() > first["at_ms"].as_u64());
}

#[test]
fn no_more_readers_of_the_stream_than_there_are_places() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, MONITOR);
    let mut readers: Vec<Stream> = (0..16).map(|_| Stream::open(proxy.monitor())).collect();
    readers.iter_mut().for_each(|reader| assert!(reader.sample().is_some()));
    let refused = get(proxy.monitor(), "/api/stream");
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.json()["error"].is_string());
    assert_eq!(get(proxy.monitor(), "/api/info").status, 200, "the other paths have their own places");
    readers.pop();
    common::wait_until("the place of a reader that has left is free", || {
        Stream::open(proxy.monitor()).line().is_some_and(|status| status.contains("200"))
    });
}

/// A reader of the stream is told at once, and not only when the last client has its reply.
#[test]
fn the_stream_ends_when_shortstop_drains() {
    let redis = Redis::start();
    let fault = Fault::before(redis.addr());
    let monitor = free_address();
    let mut proxy = Process::start(fault.addr(), &format!("monitor: {monitor}\n"));
    let mut stream = Stream::open(monitor);
    assert!(stream.sample().is_some());
    let mut client = proxy.client();
    fault.hold_replies_to(b"waited-for");
    client.send(&command(&[b"GET", b"waited-for"]));
    fault.wait_caught();
    proxy.signal("TERM");
    while stream.sample().is_some() {}
    assert!(proxy.is_running(), "it waits for the reply: {}", proxy.log());
    fault.release();
    assert_eq!(client.reply(), b"$-1\r\n");
    assert!(proxy.wait_exit(PATIENCE).success(), "{}", proxy.log());
}

#[test]
fn the_stream_needs_the_token_where_reading_does_and_the_page_does_not() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &format!("{MONITOR}monitor_token: s3cret\nmonitor_auth: all\n"));
    assert_eq!(get(proxy.monitor(), "/api/stream").status, 401);
    assert_eq!(get(proxy.monitor(), "/api/fields").status, 401);
    assert_eq!(get_with(proxy.monitor(), "/api/fields", "Authorization: Bearer s3cret\r\n").status, 200);
    assert_eq!(get(proxy.monitor(), "/").status, 200, "it asks for the token");
}

/// What a page names, so that it is loaded.
fn named(text: &str) -> Vec<&str> {
    let places = ["src=\"", "href=\"", "from '"];
    let found = places.iter().flat_map(|place| text.split(place).skip(1));
    found.filter_map(|rest| rest.split(['"', '\'']).next()).collect()
}

#[test]
fn the_page_asks_for_nothing_from_elsewhere() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, MONITOR);
    let page = get(proxy.monitor(), "/");
    let policy = page.head.lines().find_map(|line| line.strip_prefix("content-security-policy: "));
    let policy = policy.unwrap_or_else(|| panic!("no policy: {}", page.head));
    assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"), "{policy}");
    for name in named(&page.body).into_iter().filter(|name| !name.starts_with(['#', '?']) && !name.starts_with("data:"))
    {
        assert!(name.starts_with('/'), "{name}");
        assert_eq!(get(proxy.monitor(), name).status, 200, "{name}");
    }
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/monitor/page");
    for file in fs::read_dir(scripts).expect("it is there").map(|file| file.expect("a file").path()) {
        if file.extension().is_some_and(|ending| ending == "js") {
            let text = fs::read_to_string(&file).expect("a text");
            for name in named(&text) {
                assert!(name.starts_with("./"), "{}: {name}", file.display());
                assert_eq!(get(proxy.monitor(), &format!("/page/{}", &name[2..])).status, 200, "{name}");
            }
        }
    }
}

#[test]
fn vendored_files_are_unchanged() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/monitor/page/vendor");
    let sums = fs::read_to_string(folder.join("SHA256SUMS")).expect("it is there");
    let mut told = BTreeSet::from(["SHA256SUMS".to_owned(), "README.md".to_owned()]);
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").expect("a checksum and a name");
        let content = fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, sum, "{name}");
        told.insert(name.to_owned());
    }
    let files = fs::read_dir(folder).expect("it is there");
    let files = files.map(|file| file.expect("a file").file_name().into_string().expect("a text"));
    assert_eq!(files.collect::<BTreeSet<_>>(), told, "each file has a checksum");
}

/// How long a browser may take for one step. It starts many processes.
const BROWSER: Duration = Duration::from_secs(60);

fn browser() -> Option<Browser> {
    let browser = Browser::start();
    if browser.is_none() {
        skipped("no chromium, so the page is not tested in a browser: `make test` installs it where it can");
    }
    browser
}

#[test]
fn in_a_browser_the_page_loads_updates_and_survives_a_restart() {
    let Some(mut browser) = browser() else { return };
    let redis = Redis::start();
    let (listen, monitor) = (free_address(), free_address());
    let yaml = format!("listen: {listen}\nmonitor: {monitor}\ndefaults: {{ cache: {{ admit_after: 1 }} }}\n");
    let proxy = Process::start(redis.addr(), &yaml);
    browser.go(&format!("http://{monitor}/"));
    let shows = |browser: &mut Browser, what: &str, script: &str| {
        wait_within(BROWSER, what, || browser.evaluate(script) == Value::Bool(true));
    };
    shows(&mut browser, "live", "document.querySelector('#link').className === 'good'");
    shows(&mut browser, "the mode", "document.querySelector('#mode').textContent === 'single'");
    let port = listen.port();
    shows(
        &mut browser,
        "what a first visitor can type",
        &format!("document.querySelector('#try').textContent.includes('redis-cli -p {port} GET hello')"),
    );
    shows(&mut browser, "the charts", "document.querySelectorAll('#charts canvas').length === 4");
    shows(&mut browser, "all numbers", "document.querySelectorAll('#all tbody tr').length > 50");

    let mut client = proxy.client();
    client.cmd("SET k v");
    wait_within(BROWSER, "a hit", || {
        client.cmd("GET k");
        proxy.stat("l1_hits") > 0
    });
    shows(&mut browser, "the hits", "Number(document.querySelector('#saved-all').textContent) > 0");
    shows(&mut browser, "no advice for a first visitor", "document.querySelector('#welcome').hidden");
    assert_eq!(browser.errors(), Vec::<String>::new());

    drop(proxy);
    shows(&mut browser, "that Shortstop is away", "document.querySelector('#link').className === 'bad'");
    let _again = Process::start(redis.addr(), &yaml);
    shows(&mut browser, "live again", "document.querySelector('#link').className === 'good'");
    shows(&mut browser, "the numbers of the new process", "document.querySelector('#saved-all').textContent === '0'");
    let errors = browser.errors();
    // The browser itself tells that nobody answered meanwhile.
    let wrong: Vec<_> = errors.iter().filter(|error| !error.contains("net::ERR_")).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn in_a_browser_the_page_asks_for_the_token() {
    let Some(mut browser) = browser() else { return };
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &format!("{MONITOR}monitor_token: s3cret\nmonitor_auth: all\n"));
    browser.go(&format!("http://{}/", proxy.monitor()));
    wait_within(BROWSER, "it asks", || {
        browser.evaluate("!document.querySelector('#login').hidden") == Value::Bool(true)
    });
    browser
        .evaluate("document.querySelector('#token').value = 's3cret'; document.querySelector('#login button').click()");
    let live = "document.querySelector('#link').className === 'good' && document.querySelector('#login').hidden";
    wait_within(BROWSER, "it shows", || browser.evaluate(live) == Value::Bool(true));
}

/// On a phone nothing is cut off: the page is not wider than the screen, in both themes.
#[test]
fn in_a_browser_the_page_fits_a_phone() {
    let Some(mut browser) = browser() else { return };
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, MONITOR);
    browser.phone();
    browser.go(&format!("http://{}/", proxy.monitor()));
    let drawn = "document.querySelectorAll('#charts canvas').length === 4";
    wait_within(BROWSER, "the charts", || browser.evaluate(drawn) == Value::Bool(true));
    let ground = "getComputedStyle(document.body).backgroundColor";
    let mut grounds = Vec::new();
    for theme in ["light", "dark"] {
        browser.theme(theme);
        let fits = "document.documentElement.scrollWidth <= window.innerWidth";
        wait_within(BROWSER, "the page fits", || browser.evaluate(fits) == Value::Bool(true));
        grounds.push(browser.evaluate(ground));
    }
    assert_ne!(grounds[0], grounds[1], "each theme has its colours");
}
