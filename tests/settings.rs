//! The sources of settings: a flag beats the environment, which beats the file, which beats the default. Invalid settings are
//! refused at the start, and some settings change when they are read again.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{
    Nats, PATIENCE, Process, Redis, Shortstop, assert_our_error, assert_reply, bulk, field, prose, run, wait_until,
};

/// Keeps a value at its first request.
const EAGER: &str = "defaults:\n  cache: { admit_after: 1 }\n";

/// Runs the binary until it exits by itself, without the environment of the person who runs the tests.
fn shortstop(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    shortstop_in(Path::new(env!("CARGO_TARGET_TMPDIR")), arguments, environment)
}

fn shortstop_in(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut start = Command::new(env!("CARGO_BIN_EXE_shortstop"));
    for name in ["REDIS_URL", "NATS_URL", "SHORTSTOP_LISTEN", "SHORTSTOP_CONFIG", "CACHE_TTL", "CACHE_MAX_SIZE"] {
        start.env_remove(name);
    }
    run(start.current_dir(directory).args(arguments).envs(environment.iter().copied()), PATIENCE)
}

/// Runs the binary with this config file, and returns its exit code, its standard output and its standard error.
fn with_file(text: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("my.yaml"), text).expect("a config file");
    told(&shortstop_in(directory.path(), &[&["--config", "my.yaml"], arguments].concat(), &[]))
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_file_that_is_shipped_is_accepted() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config.yaml");
    let output = shortstop(&["--config", file, "--check-config"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_invalid_config_is_refused_at_the_start() {
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
fn a_flag_beats_the_environment_which_beats_the_file() {
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

#[test]
fn check_config_names_the_file_and_reports_all_errors() {
    let (code, out, _) = with_file("workers: 3\n", &["--check-config"]);
    assert_eq!((code, out.as_str()), (Some(0), "my.yaml: the configuration is valid\n"));

    let text = "max_stalenes: 5s\nl1:\n  max_memory: lots\nbus:\n  credentials: no/such.creds\n";
    let (code, _, err) = with_file(text, &["--check-config", "--workers", "many"]);
    let lines: Vec<_> = err.lines().collect();
    let expected = [
        "shortstop: my.yaml: line 1: there is no key 'max_stalenes' here (did you mean max_staleness?)",
        "shortstop: my.yaml: line 3: l1.max_memory: 'lots' is not a size",
        "shortstop: my.yaml: line 5: bus.credentials: the credentials file no/such.creds cannot be used: No such file",
        "shortstop: --workers: 'many' is not a whole number",
    ];
    let is_right =
        lines.len() == expected.len() && lines.iter().zip(expected).all(|(line, text)| line.starts_with(text));
    assert!(code == Some(2) && is_right, "{code:?} {err}");

    let (code, _, err) = with_file("rules: [{ match: '*' }, { match: a, cache: 5m }]\n", &["--check-config"]);
    assert_eq!((code, err.lines().count()), (Some(0), 2), "{err}");
    assert!(err.lines().all(|line| line.starts_with("shortstop: warning: my.yaml: line 1: rules[1]")), "{err}");
}

#[test]
fn print_config_can_be_loaded_and_contains_no_password() {
    let text = "upstream: redis://ann:hunter2@localhost/1\nrules:\n- { match: 'a*', cache: 5s }\n";
    let (code, printed, err) = with_file(text, &["--print-config", "--nats", "nats://hunter2@h", "--workers", "3"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(!printed.contains("hunter2"), "{printed}");
    for line in [
        "upstream: redis://ann:***@localhost:6379/1  # my.yaml, line 1\n",
        "nats: nats://***@h  # --nats\n",
        "workers: 3  # --workers\n",
        "  max_memory: 256mb\n",
    ] {
        assert!(printed.contains(line), "{line:?}\n{printed}");
    }
    let without_comments = |text: &str| {
        text.lines().map(|line| line.split("  # ").next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let (code, again, err) = with_file(&printed, &["--print-config"]);
    assert_eq!((code, without_comments(&again)), (Some(0), without_comments(&printed)), "{err}");
}

#[test]
fn the_file_comes_from_a_flag_a_variable_or_the_working_directory() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("a config file");
    let workers = |arguments: &[&str], environment: &[(&str, &str)]| {
        let arguments = [&["--print-config"], arguments].concat();
        let (code, out, err) = told(&shortstop_in(directory.path(), &arguments, environment));
        let line = out.lines().find(|line| line.starts_with("workers: ")).unwrap_or_default().to_owned();
        assert_eq!(code, Some(0), "{err}");
        (line, err)
    };
    write("flag.yaml", "workers: 1\n");
    write("variable.yaml", "workers: 2\n");
    write("config.yaml", "workers: 3\n");
    write("defaults.yaml", "workers: 4\n");
    write("other.yaml", "fleet: blue\n");
    let named = ("SHORTSTOP_CONFIG", "variable.yaml");
    let defaults = ("SHORTSTOP_DEFAULTS", "defaults.yaml");
    for (arguments, environment, expected) in [
        (&["--config", "flag.yaml"][..], &[named][..], "workers: 1  # flag.yaml, line 1"),
        (&[], &[named], "workers: 2  # variable.yaml, line 1"),
        (&[], &[("SHORTSTOP_CONFIG", "")], "workers: 3  # config.yaml, line 1"),
        (&[], &[defaults], "workers: 3  # config.yaml, line 1"),
        (&["--config", "other.yaml"], &[defaults], "workers: 4  # defaults.yaml, line 1"),
        (&["--config", "other.yaml"], &[defaults, ("SHORTSTOP_WORKERS", "5")], "workers: 5  # SHORTSTOP_WORKERS"),
    ] {
        assert_eq!(workers(arguments, environment).0, expected, "{arguments:?} {environment:?}");
    }
    // A file of another program.
    write("config.yaml", "server:\n  port: 80\n");
    let (line, err) = workers(&[], &[]);
    assert_eq!(line, "workers: 0");
    assert!(err.starts_with("shortstop: warning: config.yaml: none of its keys is known"), "{err}");
}

#[test]
fn the_defaults_of_the_image_are_valid_and_beaten_by_a_file() {
    let defaults = concat!(env!("CARGO_MANIFEST_DIR"), "/docker/defaults.yaml");
    let environment = [("SHORTSTOP_DEFAULTS", defaults)];
    let (code, out, err) = told(&shortstop(&["--print-config"], &environment));
    assert!(code == Some(0) && out.starts_with("listen: 0.0.0.0:6380  # "), "{out}{err}");
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("config.yaml"), "listen: 0.0.0.0:7000\n").expect("a config file");
    let (code, out, err) = told(&shortstop_in(directory.path(), &["--print-config"], &environment));
    assert!(code == Some(0) && out.starts_with("listen: 0.0.0.0:7000  # "), "{out}{err}");
}

#[test]
fn max_staleness_changes_while_it_runs() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &format!("max_staleness: 1h\n{EAGER}"));
    let mut client = proxy.client();
    client.cmd("SET k old");
    proxy.warm(&mut client, "k");
    proxy.reload(&format!("max_staleness: 300ms\ndegraded_staleness: 200ms\n{EAGER}"));
    proxy.warm(&mut client, "k");
    redis.client().cmd("SET k new");
    wait_until("the old value is not served for long", || client.cmd("GET k") == b"$3\r\nnew\r\n");
    assert_eq!((proxy.stat("max_staleness_ms"), proxy.stat("degraded_staleness_ms")), (300, 200));
    proxy.reload(&format!("max_staleness: 1h\n{EAGER}"));
    assert_eq!(proxy.settle(&redis, &mut client, "k").len(), b"$3\r\nnew\r\n".len());
}

#[test]
fn l1_changes_its_size_while_it_runs() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = proxy.client();
    let mut fill = || {
        for i in 0..300 {
            client.cmd(&format!("SET k{i} v"));
            client.cmd(&format!("GET k{i}"));
        }
    };
    fill();
    proxy.wait_stat("l1_entries", |entries| entries > 200);
    let sized = |l1: &str| format!("l1: {{ {l1} }}\n{EAGER}");
    proxy.reload(&sized("max_entries: 20, hot_entries: 8, policy: lru"));
    // Entries of the replaced L1 are no longer counted.
    proxy.wait_stat("l1_entries", |entries| entries == 0);
    assert_eq!(proxy.stat("l1_bytes"), 0);
    fill();
    proxy.wait_stat("l1_entries", |entries| (1..=20).contains(&entries));
    assert_eq!(proxy.stat("l1_max_entries"), 20);
    proxy.reload(&sized("max_entries: 1000, max_memory: 1mb"));
    fill();
    proxy.wait_stat("l1_entries", |entries| entries > 200);
    assert_eq!(proxy.stat("l1_max_bytes"), 1 << 20);
}

#[test]
fn l1_is_switched_on_and_off_while_it_runs() {
    let redis = Redis::start();
    for (off, on) in [("l1: { enabled: false }", ""), ("coherence: off", "coherence: auto")] {
        let proxy = Shortstop::start(&redis, &format!("{off}\n{EAGER}"));
        let mut client = proxy.client();
        client.cmd("SET k v");
        assert_eq!(proxy.mode(), "off", "{off}");
        proxy.reload(&format!("{on}\n{EAGER}"));
        proxy.wait_mode("single");
        assert_reply(&proxy.warm(&mut client, "k"), bulk(b"v"), on);
        proxy.reload(&format!("{off}\n{EAGER}"));
        proxy.wait_mode("off");
        redis.client().cmd("SET k new");
        wait_until("nothing is served from L1", || client.cmd("GET k") == bulk(b"new"));
    }
}

#[test]
fn timeouts_change_while_it_runs() {
    let redis = Redis::start();
    let patient = "limits: { max_sessions: 1 }\ntimeouts: { connect: 1h, shutdown: 1h }\n";
    let hasty = "limits: { max_sessions: 1 }\ntimeouts: { connect: 50ms, shutdown: 50ms }\n";
    let mut proxy = Process::start(redis.addr(), &format!("workers: 1\n{patient}"));
    let mut holder = proxy.client();
    holder.send(b"BLPOP l 0\r\n");
    wait_until("it waits", || redis.client().cmd("CLIENT LIST").windows(8).any(|text| text == b"cmd=blpo"));
    proxy.write_config(redis.addr(), &format!("workers: 1\n{hasty}"));
    proxy.signal("HUP");
    wait_until("it is reloaded", || proxy.log().contains("the configuration is reloaded"));
    assert_our_error(&proxy.client().cmd("WATCH k"), "no private connection is free, and it waits no longer");
    proxy.signal("TERM");
    proxy.wait_exit(PATIENCE);
}

#[test]
fn the_level_of_the_log_changes_while_it_runs() {
    let redis = Redis::start();
    let proxy = Process::start(redis.addr(), "log: { level: error }\n");
    proxy.client().cmd("PING");
    assert!(!proxy.log().contains("INFO"), "{}", proxy.log());
    proxy.write_config(redis.addr(), "log: { level: info }\n");
    proxy.signal("HUP");
    wait_until("it tells more", || proxy.log().contains("the configuration is reloaded"));
}

#[test]
fn settings_that_need_a_restart_say_why() {
    let redis = Redis::start();
    let proxy = Process::start(redis.addr(), "fleet: blue\n");
    proxy.write_config(redis.addr(), "fleet: red\nworkers: 3\nrules: [{ match: '*' }, { match: a }]\n");
    proxy.signal("HUP");
    wait_until("it is reloaded", || proxy.log().contains("the configuration is reloaded"));
    let log = proxy.log();
    let line = |key: &str| {
        log.lines().find(|line| line.contains("only after a restart") && line.contains(key)).map(str::to_owned)
    };
    assert!(
        line("key=\"fleet\"").is_some_and(|line| line.contains("connections to Redis and NATS carry the name")),
        "{log}"
    );
    assert!(line("key=\"workers\"").is_some(), "{log}");
    assert!(log.contains("rules[1].match: no key reaches this rule"), "{log}");
    let info = proxy.client().cmd("PROXY INFO proxy");
    assert_eq!(field(&info, "fleet").as_deref(), Some("blue"), "what holds is shown");
}
