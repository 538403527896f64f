//! Where settings come from: a flag beats the environment, which beats the file, which beats the
//! default; and what cannot be is refused at start.

mod common;

use std::process::{Command, Output};

use common::{Nats, PATIENCE, Process, Redis, assert_reply, bulk, prose, run, wait_until};

/// Runs the binary until it ends by itself, without what the person who runs the tests has set.
fn shortstop(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut start = Command::new(env!("CARGO_BIN_EXE_shortstop"));
    for name in ["REDIS_URL", "NATS_URL", "SHORTSTOP_LISTEN", "CACHE_TTL", "CACHE_MAX_SIZE"] {
        start.env_remove(name);
    }
    run(start.args(arguments).envs(environment.iter().copied()), PATIENCE)
}

#[test]
fn the_file_that_is_shipped_is_accepted() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config.yaml");
    let output = shortstop(&["--config", file, "--check-config"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_config_that_cannot_be_is_refused_at_start() {
    let redis = Redis::start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
    let address = taken.local_addr().expect("it is bound");
    for (arguments, file) in [
        (vec!["--check-config"], "listen: nowhere\n".to_owned()),
        (vec![], "max_staleness: 5 bananas\n".to_owned()),
        (vec![], format!("listen: {address}\nupstream: {}\n", redis.url())),
    ] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("config.yaml");
        std::fs::write(&path, &file).expect("a config file");
        let path = path.to_str().expect("a temporary path is text");
        let output = shortstop(&[&["--config", path], &arguments[..]].concat(), &[]);
        assert_ne!(output.status.code(), Some(0), "{file}");
        let said = String::from_utf8_lossy(&output.stderr);
        let named = ["listen", "max_staleness", &address.to_string()].iter().any(|word| said.contains(word));
        assert!(named, "{file} is refused without a reason that names it: {said}");
    }
}

#[test]
fn the_environment_is_checked_too() {
    for (name, value) in [
        ("CACHE_TTL", "soon"),
        ("CACHE_MAX_SIZE", "-1"),
        ("CACHE_ENABLED", "perhaps"),
        ("REDIS_URL", "http://x"),
        ("SHORTSTOP_LISTEN", "nowhere"),
    ] {
        let output = shortstop(&["--check-config"], &[(name, value)]);
        assert_ne!(output.status.code(), Some(0), "{name}={value}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(name), "{name}={value} is refused without naming it: {said}");
    }
}

#[test]
fn a_secret_is_not_shown() {
    let output = shortstop(&["--check-config"], &[("REDIS_URL", "redis://user:hunter2@127.0.0.1:1/nonsense")]);
    let said = [&output.stdout[..], &output.stderr].concat();
    assert!(!String::from_utf8_lossy(&said).contains("hunter2"), "a password in {}", String::from_utf8_lossy(&said));
}

#[test]
fn a_flag_beats_the_environment_and_that_the_file() {
    let (by_file, by_environment, by_flag) = (Redis::start(), Redis::start(), Redis::start());
    for (redis, name) in [(&by_file, "file"), (&by_environment, "environment"), (&by_flag, "flag")] {
        redis.client().cmd(&format!("SET who {name}"));
    }
    let (environment, flag) = (by_environment.url(), by_flag.url());
    for (variables, flags, expected) in [
        (&[][..], &[][..], "file"),
        (&[("REDIS_URL", environment.as_str())], &[], "environment"),
        (&[], &["--upstream", flag.as_str()], "flag"),
        (&[("REDIS_URL", environment.as_str())], &["--upstream", flag.as_str()], "flag"),
    ] {
        let proxy = Process::start_with(by_file.addr(), "", variables, flags);
        assert_reply(&proxy.client().cmd("GET who"), bulk(expected.as_bytes()), &format!("{variables:?} {flags:?}"));
    }
}

#[test]
fn the_variables_of_the_seed_are_understood() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let url = nats.url();
    let value = prose(10_000, 1);

    let proxy = Process::start_with(redis.addr(), "", &[("CACHE_COMPRESSION_ENABLED", "false")], &[]);
    proxy.client().call(&[b"SET", b"k", &value]);
    assert_reply(&redis.client().cmd("GET k"), bulk(&value), "CACHE_COMPRESSION_ENABLED=false");

    // In milliseconds, since a second is long for a test.
    let proxy = Process::start_with(redis.addr(), "", &[("CACHE_TTL", "100ms")], &[]);
    let mut client = proxy.client();
    client.cmd("SET k old");
    common::warm(proxy.addr(), &mut client, b"k");
    redis.client().cmd("SET k new");
    wait_until("CACHE_TTL is over", || client.cmd("GET k") == b"$3\r\nnew\r\n");

    let proxy = Process::start_with(redis.addr(), "", &[("CACHE_MAX_SIZE", "20")], &[]);
    let mut client = proxy.client();
    for i in 0..300 {
        client.cmd(&format!("SET k{i} v"));
        (0..3).for_each(|_| drop(client.cmd(&format!("GET k{i}"))));
    }
    wait_until("CACHE_MAX_SIZE=20", || proxy.stat("l1_entries") <= 20);

    let proxy = Process::start_with(redis.addr(), "", &[("NATS_URL", &url)], &[]);
    wait_until("NATS_URL", || proxy.stat("nats_connected") == 1);
    let variables =
        [("NATS_URL", url.as_str()), ("CACHE_DISTRIBUTED_ENABLED", "false"), ("CACHE_MONITORING_ENABLED", "false")];
    let proxy = Process::start_with(redis.addr(), "", &variables, &[]);
    wait_until("CACHE_DISTRIBUTED_ENABLED=false", || {
        String::from_utf8_lossy(&proxy.client().cmd("PROXY INFO")).contains("mode:single")
    });
    assert_eq!(proxy.stat("nats_connected"), 0, "CACHE_DISTRIBUTED_ENABLED=false");
}
