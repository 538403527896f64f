//! The history survives what happens to the process and to its file: a kill, a damaged file, a full disk.

mod common;
#[path = "monitor/http.rs"]
mod http;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Process, Redis, Shortstop, wait_until, wait_within};
use http::get;

/// The longest time to the first sample that is kept.
const FIRST: Duration = Duration::from_secs(30);

fn yaml(directory: &Path) -> String {
    format!("monitor: 127.0.0.1:0\ndata_dir: {}\n", directory.display())
}

/// The address of the monitor, which the log tells.
#[track_caller]
fn monitor(process: &Process) -> SocketAddr {
    let mut address = None;
    wait_until("the log names the monitor", || {
        let log = process.log();
        let found = log.split_once("the monitor is at http://").and_then(|(_, rest)| rest.split_once('/'));
        address = found.map(|(address, _)| address.parse().expect("an address"));
        address.is_some()
    });
    address.expect("it was found")
}

/// The times of the samples that are kept.
#[track_caller]
fn times(monitor: SocketAddr) -> Vec<u64> {
    let history = get(monitor, "/api/history").json();
    let times = history["times"].as_array().expect("a list");
    times.iter().map(|time| time.as_u64().expect("a time")).collect()
}

#[test]
fn samples_survive_a_kill_and_a_damaged_file() {
    let redis = Redis::start();
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::start(redis.addr(), &yaml(directory.path()));
    let address = monitor(&process);
    let mut kept = Vec::new();
    wait_within(FIRST, "a sample is kept", || {
        kept = times(address);
        !kept.is_empty()
    });
    let file = directory.path().join("history.ring");
    wait_until("the sample is in the file", || std::fs::metadata(&file).is_ok_and(|file| file.len() > 512));
    process.signal("KILL");
    drop(process);
    let process = Process::start(redis.addr(), &yaml(directory.path()));
    assert!(times(monitor(&process)).starts_with(&kept), "{kept:?}");
    drop(process);

    std::fs::write(&file, b"nothing that Shortstop has written").expect("it is ours");
    let process = Process::start(redis.addr(), &yaml(directory.path()));
    assert!(!times(monitor(&process)).starts_with(&kept));
    assert!(process.log().contains("was set aside"), "{}", process.log());
    assert!(directory.path().join("history.ring.old").exists());
}

#[test]
fn a_full_disk_costs_nothing_but_the_history_in_the_file() {
    let redis = Redis::start();
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("config.yaml");
    let text = format!("listen: 127.0.0.1:0\nupstream: redis://{}\n{}", redis.addr(), yaml(directory.path()));
    std::fs::write(&config, text).expect("it is ours");
    // A file may not grow beyond this many blocks of 512 bytes, which is enough for the header and one sample.
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" --config \"$1\"";
    let mut child = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_shortstop")])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    let log = Arc::new(Mutex::new(String::new()));
    let (lines, stderr) = (Arc::clone(&log), child.stderr.take().expect("it is piped"));
    std::thread::spawn(move || {
        BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| {
            lines.lock().expect("no holder panics").push_str(&line);
        });
    });
    let read = || log.lock().expect("no holder panics").clone();
    wait_within(FIRST, "the log tells that the file cannot be written", || {
        read().contains("the history's file cannot be written")
    });
    let text = read();
    let (_, rest) = text.split_once("the monitor is at http://").expect("the monitor runs");
    let address: SocketAddr = rest.split_once('/').expect("an address").0.parse().expect("an address");
    assert!(!times(address).is_empty(), "the history is in memory");
    assert_eq!(get(address, "/api/info?section=Upstream").json()["Upstream"]["upstream_up"], 1);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

#[test]
fn a_data_dir_that_is_in_use_leaves_the_history_in_memory() {
    let redis = Redis::start();
    let directory = tempfile::tempdir().expect("a directory");
    let first = Shortstop::start(&redis, &yaml(directory.path()));
    let second = Process::start(redis.addr(), &yaml(directory.path()));
    wait_until("the log tells", || second.log().contains("another Shortstop uses it"));
    drop(first);
    let _third = Shortstop::start(&redis, &yaml(directory.path()));
    let fourth = Process::start(redis.addr(), &yaml(directory.path()));
    wait_until("the third has the file again", || fourth.log().contains("another Shortstop uses it"));
}

#[test]
fn a_range_of_the_history_is_asked_for_in_numbers() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "monitor: 127.0.0.1:0\n");
    let history = get(proxy.monitor(), "/api/history?from=1000&to=8200&points=10").json();
    assert_eq!((&history["from"], &history["to"], &history["step_seconds"]), (&1000.into(), &8200.into(), &720.into()));
    assert_eq!(history["series"]["hit_rate"], serde_json::json!([]));
    assert_eq!(get(proxy.monitor(), "/api/history?from=yesterday").status, 400);
}

#[test]
fn a_report_tells_what_the_clients_got() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "monitor: 127.0.0.1:0\n");
    let mut client = proxy.client();
    client.cmd("SET k v");
    proxy.warm(&mut client, "k");
    wait_within(FIRST, "the history has a hit", || {
        get(proxy.monitor(), "/api/report").json()["round_trips_saved"].as_u64().is_some_and(|hits| hits > 0)
    });
    let report = get(proxy.monitor(), "/api/report?hours=1").json();
    for name in ["hit_rate", "hit_p50_usec", "hit_p99_usec", "hit_p999_usec", "miss_p50_usec", "proxy_memory_bytes"] {
        for field in ["average", "best", "worst"] {
            assert!(report[name][field].as_f64().is_some_and(|value| value > 0.0), "{name} {field}: {report}");
        }
    }
    wait_within(FIRST, "Redis tells its memory", || {
        let report = get(proxy.monitor(), "/api/report?hours=1").json();
        report["upstream_used_memory_bytes"]["current"].as_f64().is_some_and(|bytes| bytes > 100_000.0)
    });
    let told = client.cmd("PROXY REPORT 1");
    assert!(told.starts_with(b"*") && told.windows(8).any(|word| word == b"hit_rate"), "a reply with the same names");
    for words in ["PROXY REPORT 0", "PROXY REPORT 169", "PROXY REPORT all"] {
        let told = client.cmd(words);
        assert_eq!(told, b"-ERR hours must be a whole number from 1 to 168\r\n", "{words}");
    }
    assert_eq!(get(proxy.monitor(), "/api/report?hours=0").status, 400);

    let dashboard = get(proxy.monitor(), "/api/dashboard").json();
    let keys = |at: &str| {
        let fields = dashboard[at].as_object().unwrap_or_else(|| panic!("{at}: {dashboard}"));
        fields.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(keys("current_metrics"), ["current_hit_rate", "current_memory_usage", "current_response_time"]);
    assert_eq!(keys("average_metrics"), ["avg_hit_rate", "avg_memory_usage", "avg_response_time"]);
    assert_eq!(keys("system_metrics"), ["connected_clients", "total_commands_processed", "used_memory"]);
    assert!(dashboard["recent_alerts"].is_array());
    let history = dashboard["performance_history"].as_array().expect("a list");
    assert!(history.iter().all(|sample| sample["timestamp"].is_u64() && sample["memory_usage"].is_f64()));
    assert!(dashboard["system_metrics"]["used_memory"].as_u64().is_some_and(|bytes| bytes > 100_000));
}
