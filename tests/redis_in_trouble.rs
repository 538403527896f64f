//! Redis answers but has a problem: it is slow, loads its data, runs a script for too long, or cannot write to its disk. Requests that
//! it still serves work, and PROXY INFO, PROXY HEALTH and the log show the actual problem and no other.

mod common;

use common::{Client, Fault, Process, Redis, Way, assert_reply, command, field, show, wait_until, wait_within};

/// Much longer than the longest pause between two polls of Redis, because machines under load are slow.
const LONG: std::time::Duration = std::time::Duration::from_secs(40);

fn text(client: &mut Client, name: &str) -> String {
    let info = client.cmd("PROXY INFO");
    field(&info, name).unwrap_or_else(|| panic!("PROXY INFO has no {name}: {}", show(&info)))
}

fn log_level(level: &str) -> String {
    format!("log:\n  level: info,{level}\n")
}

/// The ids of the connections whose last command was this one, and of those that are called something with `shortstop`.
fn connections(direct: &mut Client, last: &str) -> Vec<String> {
    let list = direct.cmd("CLIENT LIST");
    let list = String::from_utf8_lossy(&list).into_owned();
    let lines = list.lines().filter(|line| line.contains(&format!(" cmd={last} ")));
    lines.filter_map(|line| line.strip_prefix("id=")?.split(' ').next().map(str::to_owned)).collect()
}

/// Once, after a late reply, Shortstop's own connection took each reply for the reply to the next request. A replica then counted as
/// a server that hides its role, and L1 served stale values.
#[test]
fn a_late_reply_is_not_taken_for_the_reply_to_the_next_request() {
    let primary = Redis::start();
    let (host, port) = (primary.addr().ip().to_string(), primary.addr().port().to_string());
    let replica = Redis::start_with(&["--replicaof", &host, &port]);
    let wire = Fault::before(replica.addr());
    wire.hold_replies_to(b"\r\ncLIENT\r\n$7\r\nSETNAME\r\n");
    let proxy = Process::start(wire.addr(), "timeouts: { connect: 500ms }\n");
    wire.wait_caught();
    let mut direct = replica.client();
    let held = connections(&mut direct, "client|setname");
    assert!(!held.is_empty());
    wait_until("nothing more is expected of these connections, or more is asked on one", || {
        let now = connections(&mut direct, "client|setname");
        held.iter().all(|id| !now.contains(id))
    });
    wire.release();
    wait_until("Redis is asked", || text(&mut proxy.client(), "upstream_up") == "1");
    assert_reply(&proxy.client().cmd("PROXY HEALTH ready"), "-NOTREADY Redis is a replica\r\n", "what the server said");
    assert_eq!(text(&mut proxy.client(), "mode_reason"), "replica");
    assert!(!proxy.log().contains("is not understood"), "{}", proxy.log());
}

#[test]
fn a_silent_redis_is_reported_at_the_first_unanswered_request() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let yaml = log_level("shortstop::upstream::topology=debug") + "timeouts: { connect: 500ms }\n";
    let proxy = Process::start(wire.addr(), &yaml);
    wait_until("Redis answers", || text(&mut proxy.client(), "upstream_up") == "1");
    wire.hold(Way::Down);
    wait_until("the log has it", || proxy.log().contains("Redis does not answer: "));
    assert_eq!(proxy.log().matches("the control connection to Redis ended").count(), 1, "{}", proxy.log());
    assert_eq!(text(&mut proxy.client(), "upstream_up"), "0");
}

#[test]
fn a_loading_redis_is_not_up() {
    let slowly = ["--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024"];
    let mut redis = Redis::start_with(&[&slowly[..], &["--enable-debug-command", "yes"]].concat());
    assert_reply(&redis.client().cmd("DEBUG POPULATE 10000 key 200"), "+OK\r\n", "much to load");
    assert_reply(&redis.client().cmd("SAVE"), "+OK\r\n", "it is on disk");
    let proxy = Process::start(redis.addr(), "");
    wait_until("Redis answers", || text(&mut proxy.client(), "upstream_up") == "1");
    redis.kill();
    redis.restart();
    assert!(redis.client().cmd("GET k").starts_with(b"-LOADING "), "it takes long");
    wait_until("it is seen", || text(&mut proxy.client(), "upstream_last_error").starts_with("LOADING "));
    assert_eq!(text(&mut proxy.client(), "upstream_up"), "0");
    let health = proxy.client().cmd("PROXY HEALTH ready");
    assert!(health.starts_with(b"+OK, but Redis does not answer: LOADING "), "{}", show(&health));
}

/// While Redis cannot write to its disk it refuses PING too, so once no connection was opened.
#[test]
fn reads_work_while_redis_cannot_write_to_its_disk() {
    let disk = tempfile::tempdir().expect("a temporary directory");
    let place = disk.path().to_str().expect("a text").to_owned();
    let redis = Redis::start_with(&["--save", "3600 1", "--dir", &place]);
    let mut direct = redis.client();
    assert_reply(&direct.cmd("SET k v"), "+OK\r\n", "all is well");
    drop(disk);
    direct.cmd("BGSAVE");
    wait_until("the disk is gone", || direct.cmd("SET k v").starts_with(b"-MISCONF "));
    let proxy = Process::start(redis.addr(), "");
    assert_reply(&proxy.client().cmd("GET k"), "$1\r\nv\r\n", "a read");
    assert!(proxy.client().cmd("SET k w").starts_with(b"-MISCONF "), "a write gets Redis's own error");
    wait_until("Redis answers", || text(&mut proxy.client(), "upstream_up") == "1");
}

/// Once, a busy Redis was taken for one whose user has no right to watch the fleet, until that connection ended.
#[test]
fn a_long_script_does_not_hide_the_fleet() {
    let redis = Redis::start();
    assert_reply(&redis.client().cmd("CONFIG SET lua-time-limit 1"), "+OK\r\n", "it is busy soon");
    let seer = Process::start(redis.addr(), &log_level("shortstop::upstream::instances=debug"));
    wait_until("the fleet is watched", || redis.client().cmd("PUBSUB CHANNELS *instances").starts_with(b"*1"));
    let mut runner = redis.client();
    runner.send(&command(&[b"EVAL", b"while true do end", b"0"]));
    wait_until("the watch has asked a Redis that is busy", || {
        let log = seer.log();
        log.contains("no connection to watch the fleet") || log.contains("has no right to")
    });
    wait_until("it is seen", || text(&mut seer.client(), "upstream_last_error").starts_with("BUSY "));
    assert_reply(&redis.client().cmd("SCRIPT KILL"), "+OK\r\n", "the script ends");
    runner.reply();
    assert!(!seer.log().contains("has no right to"), "{}", seer.log());
    let _other = Process::start(redis.addr(), "");
    wait_within(LONG, "another one is noticed", || {
        seer.log().contains("another Shortstop of this fleet is connected to Redis")
    });
}
