//! MONITOR through Shortstop does not show Shortstop's own commands.

mod common;

use common::{Redis, Shortstop, assert_reply, show, wait_until};

#[test]
fn monitor_leaves_out_handshakes_and_the_control_plane() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "workers: 1\n");
    // MONITOR in Redis shows all of it, including the control connections that poll every second.
    let mut direct = redis.client();
    assert_reply(&direct.cmd("MONITOR"), "+OK\r\n", "monitor");
    let mut watcher = proxy.client();
    assert_reply(&watcher.cmd("MONITOR"), "+OK\r\n", "monitor");
    let mut own = Vec::new();
    wait_until("the control plane has asked", || {
        own.push(String::from_utf8_lossy(&direct.reply()).into_owned());
        ["\"iNFO\"", "\"rOLE\"", "\"cOMMAND\""].iter().all(|name| own.iter().any(|line| line.contains(name)))
    });
    // A lane in another database is opened, and a private connection.
    let mut client = proxy.client();
    client.cmd("SELECT 3");
    client.cmd("SET before 1");
    client.cmd("WATCH k");
    client.cmd("UNWATCH");
    client.cmd("SET last 1");
    let mut lines = Vec::new();
    wait_until("the last command is shown", || {
        lines.push(String::from_utf8_lossy(&watcher.reply()).into_owned());
        lines.last().is_some_and(|line| line.contains("\"last\""))
    });
    let names = ["\"SELECT\"", "\"SET\" \"before\"", "\"WATCH\"", "\"UNWATCH\"", "\"SET\" \"last\""];
    for line in &lines {
        assert!(names.iter().any(|name| line.contains(name)), "of Shortstop's own: {}", show(line.as_bytes()));
    }
    for name in &names[1..] {
        assert!(lines.iter().any(|line| line.contains(name)), "{name} is missing: {lines:?}");
    }
}
