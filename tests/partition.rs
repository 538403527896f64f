//! A silent partition between Shortstop and Redis: no packet arrives any more, and no error is reported.
//!
//! Redis runs in a network namespace of its own, at the other end of a virtual cable that the test pulls. That needs `unshare`,
//! `ip` and the right to create namespaces; otherwise the test says that it cannot run. `src/net/options.rs` tests the socket
//! options themselves.

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Client, PATIENCE, Shortstop, assert_our_error, assert_reply, pipeline_of, run, wait_until};

/// Set if the test runs inside its namespace.
const INSIDE: &str = "SHORTSTOP_TEST_NAMESPACE";
const NEAR: &str = "10.77.0.1/24";
const FAR: &str = "10.77.0.2/24";

#[test]
fn a_silent_partition_ends_within_ten_seconds() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let namespace = ["--map-root-user", "--net"];
    let possible = Command::new("unshare").args(namespace).args(["ip", "link", "add", "type", "veth"]).output();
    if !possible.as_ref().is_ok_and(|output| output.status.success()) {
        common::skipped(&format!(
            "no network namespace can be made here, so that no partition is tested: {possible:?}"
        ));
        return;
    }
    let this = std::env::current_exe().expect("it runs");
    let mut again = Command::new("unshare");
    again.args(namespace).arg(this).args(["--exact", "a_silent_partition_ends_within_ten_seconds", "--nocapture"]);
    let output = run(again.env(INSIDE, "1").stdin(Stdio::null()), 12 * PATIENCE);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Redis at the other end of the cable.
struct FarRedis(Child);

impl FarRedis {
    fn start() -> FarRedis {
        let mut start = Command::new("unshare");
        start.args(["--net", "redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]);
        let far = FarRedis(start.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it was there before"));
        let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).ok();
        wait_until("it has a namespace of its own", || {
            let own = namespace(&far.0.id().to_string());
            own.is_some() && own != namespace("self")
        });
        let pid = far.0.id().to_string();
        ip(&["link", "set", "lo", "up"]);
        ip(&["link", "add", "near", "type", "veth", "peer", "name", "far", "netns", &pid]);
        ip(&["addr", "add", NEAR, "dev", "near"]);
        ip(&["link", "set", "near", "up"]);
        far.ip(&["addr", "add", FAR, "dev", "far"]);
        far.ip(&["link", "set", "far", "up"]);
        far
    }

    fn addr(&self) -> SocketAddr {
        (IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2)), 6379).into()
    }

    fn ip(&self, words: &[&str]) {
        let pid = self.0.id().to_string();
        command("nsenter", &[&["--target", &pid, "--net", "ip"], words].concat());
    }
}

impl Drop for FarRedis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ip(words: &[&str]) {
    command("ip", words);
}

fn command(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).output().expect("it was there before");
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn inside() {
    let redis = FarRedis::start();
    wait_until("Redis answers", || Client::try_connect(redis.addr()).is_ok());
    let proxy = Shortstop::to(redis.addr(), "");
    let (mut client, mut idle, mut blocked) = (proxy.client(), proxy.client(), proxy.client());
    assert_reply(&client.cmd("SET k v"), b"+OK\r\n", "it works");
    idle.send(&pipeline_of(&["SUBSCRIBE c"]));
    idle.reply();
    // Its request has arrived, and no bytes are in flight while it waits.
    blocked.send(&pipeline_of(&["BLPOP none 0"]));
    wait_until("Redis has got it", || {
        let info = Client::connect(redis.addr()).cmd("INFO clients");
        common::field(&info, "blocked_clients").as_deref() == Some("1")
    });

    redis.ip(&["link", "set", "far", "down"]);
    let began = Instant::now();
    // Long enough for a slow machine, and far from what keep-alive alone would take.
    let limit = Duration::from_secs(15);
    [&mut client, &mut idle, &mut blocked].into_iter().for_each(|client| client.set_patience(limit));
    client.send(&pipeline_of(&["GET other"]));
    assert_our_error(&client.reply(), "a request that is under way");
    assert_our_error(&blocked.reply(), "a request that has arrived");
    idle.until_closed();
    assert!(began.elapsed() < limit, "{:?}", began.elapsed());

    redis.ip(&["link", "set", "far", "up"]);
    wait_until("it goes on", || client.cmd("GET k") == b"$1\r\nv\r\n");
}
