//! The page: the files that it is made from, and the page itself in a real browser.

#[path = "monitor/browser.rs"]
mod browser;
mod common;
#[path = "monitor/http.rs"]
mod http;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use browser::Browser;
use common::{Process, Redis, Shortstop, free_address, skipped, wait_until};
use http::get;
use serde_json::Value;
use sha2::{Digest, Sha256};

const MONITOR: &str = "monitor: 127.0.0.1:0\ndefaults: { cache: { admit_after: 1 } }\n";

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

/// A browser that shows the page. `None`: there is no browser.
fn browser() -> Option<Browser> {
    let browser = Browser::start();
    if browser.is_none() {
        skipped("no chromium, so the page is not tested in a browser: `make test` installs it where it can");
    }
    browser
}

const IS_LIVE: &str = "document.querySelector('#link').className === 'good'";

#[test]
fn in_a_browser_the_page_loads_updates_and_survives_a_restart() {
    let Some(mut browser) = browser() else { return };
    let redis = Redis::start();
    let (listen, monitor) = (free_address(), free_address());
    let yaml = format!("listen: {listen}\nmonitor: {monitor}\ndefaults: {{ cache: {{ admit_after: 1 }} }}\n");
    let proxy = Process::start(redis.addr(), &yaml);
    browser.go(&format!("http://{monitor}/"));
    browser.wait("live", IS_LIVE);
    browser.wait("the mode", "document.querySelector('#mode').textContent === 'single'");
    let port = listen.port();
    let try_it = format!("document.querySelector('#try').textContent.includes('redis-cli -p {port} GET hello')");
    browser.wait("what a first visitor can type", &try_it);
    browser.wait("the charts", "document.querySelectorAll('#charts canvas').length === 6");
    browser.wait("all numbers", "document.querySelectorAll('#all tbody tr').length > 50");
    for part in ["fleet", "hot", "big", "rules", "events", "slow", "alerts-part", "explain"] {
        browser.wait(part, &format!("!document.querySelector('#{part}').hidden"));
    }

    let mut client = proxy.client();
    client.cmd("SET k v");
    wait_until("a hit", || {
        client.cmd("GET k");
        proxy.stat("l1_hits") > 0
    });
    browser.wait("the hits", "Number(document.querySelector('#saved-all').textContent) > 0");
    browser.wait("no advice for a first visitor", "document.querySelector('#welcome').hidden");
    assert_eq!(browser.errors(), Vec::<String>::new());

    drop(proxy);
    browser.wait("that Shortstop is away", "document.querySelector('#link').className === 'bad'");
    let _again = Process::start(redis.addr(), &yaml);
    browser.wait("live again", IS_LIVE);
    browser.wait("the numbers of the new process", "document.querySelector('#saved-all').textContent === '0'");
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
    for (token, then) in [("wrong", "document.querySelector('#login').open"), ("s3cret", IS_LIVE)] {
        browser.wait("it asks", "document.querySelector('#login').open");
        browser.give_token(token);
        browser.wait(token, then);
    }
    assert_eq!(browser.evaluate("document.querySelector('#login').open"), Value::Bool(false));
    assert_eq!(browser.evaluate("localStorage.length + document.cookie.length"), 0, "the token stays in the tab");
}

/// The alert fires because of a threshold, so a better threshold, set on the page, clears it.
#[test]
fn in_a_browser_an_alert_fires_and_the_token_is_asked_for_once() {
    let Some(mut browser) = browser() else { return };
    let redis = Redis::start();
    let alerts = "monitor_token: s3cret\nalerts: { memory_usage_max: 0.0001% }\n";
    let proxy = Shortstop::start(&redis, &format!("{MONITOR}{alerts}"));
    browser.go(&format!("http://{}/", proxy.monitor()));
    browser.wait("the alert", "document.querySelector('#alerts')?.textContent.includes('memory usage')");
    let set = |name: &str, value: &str| {
        format!(
            "{{ const input = document.querySelector('#threshold-{name}'); input.value = '{value}'; \
             input.form.querySelector('button').click() }}"
        )
    };
    let told = |text: &str| format!("document.querySelector('#threshold-done').textContent.includes('{text}')");
    browser.evaluate(&set("memory_usage_max", "90%"));
    browser.wait("it asks", "document.querySelector('#login').open");
    browser.evaluate("document.querySelector('#login [formnovalidate]').click()");
    browser.wait("nothing without the token", &told("Nothing was changed"));
    browser.evaluate(&set("memory_usage_max", "90%"));
    browser.wait("it asks again", "document.querySelector('#login').open");
    browser.give_token("s3cret");
    browser.wait("it is done", &told("memory usage max is now 90%"));
    browser.evaluate(&set("hit_rate_min", "lots"));
    browser.wait("what is wrong, and no question for the token", &told("is not a part of a whole"));
    browser.wait("no alert", "document.querySelector('#alerts').children.length === 0");
}

#[test]
fn in_a_browser_a_change_without_a_token_in_the_configuration_says_what_to_set() {
    let Some(mut browser) = browser() else { return };
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, MONITOR);
    browser.go(&format!("http://{}/", proxy.monitor()));
    browser.wait("thresholds", "document.querySelector('#threshold-hit_rate_min') !== null");
    browser.evaluate("document.querySelector('#threshold-hit_rate_min').form.querySelector('button').click()");
    browser.wait("what to set", "document.querySelector('#threshold-done').textContent.includes('Set monitor_token')");
    assert_eq!(browser.errors(), Vec::<String>::new());
}

#[test]
fn in_a_browser_settings_change_and_keys_are_dropped_and_read() {
    let Some(mut browser) = browser() else { return };
    let (redis, monitor) = (Redis::start(), free_address());
    let proxy = Process::start(redis.addr(), &format!("monitor: {monitor}\nmonitor_token: s3cret\n"));
    proxy.client().cmd("SET user:1 v");
    browser.go(&format!("http://{monitor}/"));
    browser.wait("the settings", "document.querySelectorAll('#settings-table tbody tr').length > 50");
    browser.evaluate(
        "document.querySelector('#setting-key').value = 'max_staleness'; \
         document.querySelector('#setting-value').value = '20s'; document.querySelector('#setting button').click()",
    );
    browser.wait("it asks", "document.querySelector('#login').open");
    browser.give_token("s3cret");
    let shows = |place: &str, text: &str| format!("document.querySelector('{place}').textContent.includes('{text}')");
    browser.wait("what has changed", &shows("#settings-answer", "max_staleness: 1m -> 20s"));
    browser.wait("the new value", &shows("#settings-table", "max_staleness20s"));
    browser.evaluate("document.querySelectorAll('#settings-buttons button')[1].click()");
    browser.wait("what is written", &shows("#settings-done", "Written: max_staleness"));
    let file = fs::read_to_string(proxy.config_file()).expect("it is there");
    assert!(file.contains("max_staleness: 20s"), "{file}");
    browser.evaluate("document.querySelector('#flush button').click()");
    browser.wait("that keys were dropped", &shows("#flush-done", "Everything was dropped from L1."));
    browser.evaluate(
        "document.querySelector('#warm-pattern').value = 'user:*'; document.querySelector('#warm button').click()",
    );
    browser.wait("that keys were read", &shows("#warm-state", "user:*: done"));
    assert_eq!(browser.errors(), Vec::<String>::new());
}

#[test]
fn in_a_browser_the_time_range_changes_the_charts() {
    let Some(mut browser) = browser() else { return };
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, MONITOR);
    browser.go(&format!("http://{}/", proxy.monitor()));
    for (label, seconds) in [("15 min", 900), ("5 min, live", 300), ("7 d", 604_800), ("1 h", 3600)] {
        let press = format!(
            "[...document.querySelectorAll('#ranges button')].find((each) => each.textContent === '{label}')?.click()"
        );
        browser.wait("the buttons", "document.querySelectorAll('#ranges button').length === 6");
        browser.evaluate(&press);
        // From the history: the first sample comes after ten seconds.
        let shows = format!(
            "(({{ range, points }}) => range === '{seconds}' && Number(points) > 0)(document.querySelector('#charts').dataset)"
        );
        browser.wait(label, &shows);
        let pressed =
            "[...document.querySelectorAll('#ranges [aria-pressed=true]')].map((each) => each.textContent).join()";
        assert_eq!(browser.evaluate(pressed), label);
    }
    assert_eq!(browser.errors(), Vec::<String>::new());
}

#[test]
fn in_a_browser_a_hot_key_leads_to_its_explanation() {
    let Some(mut browser) = browser() else { return };
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, MONITOR);
    let mut client = proxy.client();
    client.cmd("SET user:1 v");
    browser.go(&format!("http://{}/", proxy.monitor()));
    wait_until("the key is hot", || {
        (0..50).for_each(|_| drop(client.cmd("GET user:1")));
        browser.evaluate("document.querySelector('#hot-keys button')?.textContent") == "user:1"
    });
    browser.evaluate("document.querySelector('#hot-keys button').click()");
    let says = |text: &str| format!("document.querySelector('#explanation').textContent.includes('{text}')");
    browser.wait("that it is kept", &says("L1 answers it now."));
    browser.evaluate(
        "document.querySelector('#key').value = 'nobody'; document.querySelector('#explain-form button').click()",
    );
    browser.wait("why another is not", &says("L1 does not answer it: never requested."));
    assert_eq!(browser.errors(), Vec::<String>::new());
}

/// On a phone nothing is cut off: the page is not wider than the screen, in both themes.
#[test]
fn in_a_browser_the_page_fits_a_phone() {
    let Some(mut browser) = browser() else { return };
    let redis = Redis::start();
    let rule = format!("{MONITOR}rules: [{{ match: '{}*', cache: {{ ttl: 5s }} }}]\n", "long:".repeat(20));
    let proxy = Shortstop::start(&redis, &rule);
    let key = "long:".repeat(20);
    proxy.client().cmd(&format!("SET {key} v"));
    browser.phone();
    browser.go(&format!("http://{}/", proxy.monitor()));
    browser.wait("the charts", "document.querySelectorAll('#charts canvas').length === 6");
    browser.wait("a large value", "document.querySelectorAll('#big-keys td').length > 0");
    browser.evaluate(&format!(
        "document.querySelector('#key').value = '{key}'; document.querySelector('#explain-form button').click(); \
         for (const part of document.querySelectorAll('details')) part.open = true"
    ));
    browser.wait("the explanation", "document.querySelectorAll('#explanation dd').length > 0");
    let ground = "getComputedStyle(document.body).backgroundColor";
    let mut grounds = Vec::new();
    for theme in ["light", "dark"] {
        browser.theme(theme);
        browser.wait("the page fits", "document.documentElement.scrollWidth <= window.innerWidth");
        grounds.push(browser.evaluate(ground));
    }
    assert_ne!(grounds[0], grounds[1], "each theme has its colours");
}
