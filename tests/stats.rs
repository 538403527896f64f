//! What Shortstop reports about itself: PROXY INFO, PROXY HELP, and INFO with its sections added.

mod common;

use common::{Nats, Redis, Shortstop, assert_reply, field, pipeline_of, prose, show, stat, wait_until};

/// Sections and fields on which other programs rely: they must not disappear.
const FIELDS: &[(&str, &[&str])] = &[
    (
        "ProxyClients",
        &["proxy_clients", "proxy_clients_dropped", "proxy_commands", "buffers_bytes", "buffers_max_bytes"],
    ),
    ("L1", &["l1_hits", "l1_misses", "l1_entries", "l1_bytes", "l1_evictions", "hit_rate"]),
    ("Compression", &["compressed_values", "compression_saved_bytes", "compression_ratio"]),
    (
        "Invalidation",
        &[
            "invalidations_published",
            "invalidations_received",
            "invalidations_applied",
            "nats_connected",
            "peers",
            "gaps",
            "flushes",
            "flushes_scripts",
            "flushes_commands",
            "flushes_bus",
            "flushes_upstream",
            "flushes_other",
        ],
    ),
    ("Upstream", &["upstream_commands", "upstream_errors", "upstream_reconnects"]),
    ("Coherence", &["mode", "lease_age_ms", "fills", "fills_poisoned"]),
    ("Latency", &["hit_p50_usec", "hit_p99_usec", "miss_p50_usec", "miss_p99_usec"]),
];

/// The names of the sections, in order. Panics if a line is not in the format of INFO.
#[track_caller]
fn sections(info: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(info).expect("INFO is text");
    let body = text.split_once("\r\n").expect("a bulk string").1;
    assert!(!body.replace("\r\n", "").contains(['\r', '\n']), "lines end in CR LF: {}", show(info));
    let mut names = Vec::new();
    for line in body.split("\r\n").filter(|line| !line.is_empty()) {
        match line.strip_prefix("# ") {
            Some(name) => names.push(name.to_owned()),
            None => assert!(
                line.split_once(':').is_some_and(|(name, _)| !name.is_empty() && !name.contains(' ')),
                "not name:value: {line:?}"
            ),
        }
    }
    names
}

#[test]
fn proxy_info_has_every_section_and_field() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let info = proxy.client().cmd("PROXY INFO");
    assert!(info.starts_with(b"$"), "a bulk string: {}", show(&info));
    let names = sections(&info);
    for name in ["Proxy"].iter().chain(FIELDS.iter().map(|(name, _)| name)) {
        assert_eq!(names.iter().filter(|each| each == name).count(), 1, "{name} once in {names:?}");
    }
    for (section, fields) in FIELDS {
        // In any case, like Redis's section names, and nothing but the requested sections.
        for asked in [section.to_lowercase(), section.to_uppercase()] {
            let info = proxy.client().cmd(&format!("PROXY INFO {asked}"));
            assert_eq!(sections(&info), [*section], "PROXY INFO {asked}");
            for name in *fields {
                assert!(
                    field(&info, name).is_some_and(|value| !value.is_empty()),
                    "{section} has no {name}: {}",
                    show(&info)
                );
            }
        }
    }
}

#[test]
fn info_is_that_of_redis_with_sections_added() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    for line in ["INFO", "INFO everything", "INFO all", "INFO default"] {
        let names = sections(&client.cmd(line));
        for name in ["Server", "Memory", "Keyspace", "L1", "Compression", "Coherence"] {
            let count = names.iter().filter(|each| *each == name).count();
            assert!(count == 1 || (name == "Keyspace" && count == 0), "{line}: {name} {count} times in {names:?}");
        }
        assert!(field(&client.cmd(line), "redis_version").is_some(), "{line}");
        assert!(field(&client.cmd(line), "l1_hits").is_some(), "{line}");
    }
    for line in ["INFO keyspace", "INFO server", "INFO nosuchsection", "INFO memory"] {
        let names = sections(&client.cmd(line));
        assert_eq!(names, sections(&redis.client().cmd(line)), "{line}: what was asked for and no more");
    }
    assert_eq!(sections(&client.cmd("INFO l1")), ["L1"], "a section of ours");
    assert_eq!(sections(&client.cmd("info Latency")), ["Latency"], "in any case");
    if redis.major() >= 7 {
        let both = sections(&client.cmd("INFO l1 server"));
        assert!(both.contains(&"L1".to_owned()) && both.contains(&"Server".to_owned()), "{both:?}");
    } else {
        eprintln!("skipped: this server's INFO takes one section");
    }
    // In its position in a pipeline and in a transaction.
    let got = client.pipeline(&pipeline_of(&["SET k v", "INFO", "GET k"]), 3);
    assert_reply(&got[2], "$1\r\nv\r\n", "what follows");
    let got = client.pipeline(&pipeline_of(&["MULTI", "INFO server", "GET k", "EXEC"]), 4);
    assert!(got[3].starts_with(b"*2\r\n$") && got[3].ends_with(b"$1\r\nv\r\n"), "{}", show(&got[3]));
}

#[test]
fn counters_count_what_happened() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    proxy.wait_mode("single");
    let mut client = proxy.client();
    let value = prose(10_000, 1);
    client.call(&[b"SET", b"big", &value]);
    assert_eq!(proxy.stat("compressed_values"), 1);
    assert!(
        (2_000..10_000).contains(&proxy.stat("compression_saved_bytes")),
        "saved {}",
        proxy.stat("compression_saved_bytes")
    );
    let gets = pipeline_of(&vec!["GET big"; 100]);
    client.cmd("GET big");
    client.cmd("GET big");
    client.pipeline(&gets, 100);
    assert_eq!((proxy.stat("l1_hits"), proxy.stat("l1_misses")), (100, 2));
    let rate: f64 = field(&client.cmd("PROXY INFO l1"), "hit_rate")
        .and_then(|rate| rate.trim_end_matches('%').parse().ok())
        .expect("hit_rate is a number");
    assert!((0.9..=100.0).contains(&rate), "100 of 102: {rate}");
    let before = proxy.stat("upstream_commands");
    for i in 0..50 {
        client.cmd(&format!("SET k{i} v"));
    }
    assert!(proxy.stat("upstream_commands") >= before + 50, "each went to Redis");
    for name in ["hit_p50_usec", "hit_p99_usec", "miss_p50_usec", "miss_p99_usec"] {
        let text = field(&client.cmd("PROXY INFO latency"), name).expect("it is there");
        assert!(text.parse::<f64>().is_ok_and(|usec| (0.0..10_000_000.0).contains(&usec)), "{name}: {text}");
    }
    let flushes = proxy.stat("flushes");
    client.cmd("FLUSHALL");
    assert!(proxy.stat("flushes") > flushes, "a flush is counted");
}

#[test]
fn clients_are_counted() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let clients: Vec<_> = (0..9).map(|_| proxy.client()).collect();
    // And the one that asks.
    proxy.wait_stat("proxy_clients", |count| count == 10);
    drop(clients);
    proxy.wait_stat("proxy_clients", |count| count == 1);
}

#[test]
fn the_mode_is_shown() {
    let redis = Redis::start();
    Shortstop::start(&redis, "").wait_mode("single");
    Shortstop::start(&redis, "coherence: off\n").wait_mode("off");
    let nats = Nats::start();
    let proxy = Shortstop::in_fleet(&redis, &nats, "");
    wait_until("the lease is renewed all the time", || stat(proxy.addr(), "lease_age_ms") < 1_000);
    assert_eq!(proxy.stat("nats_connected"), 1);
}

#[test]
fn proxy_help_lists_the_commands() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    let help = client.cmd("PROXY HELP");
    assert!(help.starts_with(b"*"), "an array, as other HELPs: {}", show(&help));
    let text = String::from_utf8_lossy(&help);
    for name in ["INFO", "FLUSH", "HELP"] {
        assert!(text.contains(name), "{name} is missing: {text}");
    }
    for line in ["PROXY", "PROXY NOSUCH", "PROXY HELP me", "PROXY DEBUG", "PROXY DEBUG NOSUCH"] {
        assert!(client.cmd(line).starts_with(b"-ERR "), "{line}");
    }
    assert_reply(
        &client.cmd("PROXY NOSUCH"),
        "-ERR unknown subcommand 'NOSUCH'. Try PROXY HELP.\r\n",
        "as Redis says it",
    );
    assert!(client.cmd("proxy info").starts_with(b"$"), "in any case");
    for line in ["PROXY HELP me", "PROXY FLUSH a FLEET b", "PROXY HEALTH live now"] {
        let name = line.split(' ').nth(1).expect("two words").to_lowercase();
        let expected = format!("-ERR wrong number of arguments for 'proxy|{name}' command\r\n");
        assert_reply(&client.cmd(line), expected, line);
    }
    let list = proxy.client().cmd("CLIENT LIST");
    assert!(
        String::from_utf8_lossy(&list).contains(" cmd=proxy|health "),
        "its subcommands have names: {}",
        show(&list)
    );
    // It is an ordinary request in a pipeline, answered in its position.
    let got = client.pipeline(&pipeline_of(&["SET k 1", "PROXY INFO", "INCR k", "PROXY NOSUCH", "GET k"]), 5);
    assert_reply(&[&got[0][..], &got[2], &got[4]].concat(), "+OK\r\n:2\r\n$1\r\n2\r\n", "order");
}
