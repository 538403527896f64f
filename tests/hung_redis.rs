//! A Redis that keeps its connections open but answers nothing: requests get an error within `timeouts.reply`, L1 serves what it
//! may, and INFO says so. A long wait with a known reason is not a hang.

mod common;

use std::time::{Duration, Instant};

use common::{
    Client, Fault, Redis, Shortstop, Way, assert_our_error, assert_reply, command, pipeline_of, show, wait_until,
};

const SHORT: &str = "workers: 1\ntimeouts: { reply: 1s }\n";

fn assert_hung(got: &[u8], what: &str) {
    assert_our_error(got, what);
    assert!(String::from_utf8_lossy(got).contains("has not answered"), "{what}: {}", show(got));
}

#[test]
fn requests_to_a_hung_redis_get_an_error_and_writes_count_as_unknown() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), SHORT);
    let (mut reader, mut writer, mut other) = (proxy.client(), proxy.client(), proxy.client());
    assert_reply(&writer.cmd("SET k 1"), "+OK\r\n", "Redis answers");
    proxy.warm(&mut reader, "k");
    wire.hold(Way::Down);
    writer.send(&pipeline_of(&["SET a 1", "GET b"]));
    assert_reply(&reader.cmd("GET k"), "$1\r\n1\r\n", "L1 serves what it may");
    proxy.wait_stat("upstream_overdue", |overdue| overdue > 0);
    let lost = writer.reply();
    assert_hung(&lost, "a write");
    assert!(lost.ends_with(b"; the command may have been executed\r\n"), "{}", show(&lost));
    assert_hung(&writer.reply(), "a read behind it");
    assert_eq!((proxy.stat("writes_unknown"), proxy.stat("writes_unknown_given_up")), (1, 1));
    // A client that sends requests before Redis answers again does not wait.
    let start = Instant::now();
    assert_hung(&other.cmd("GET c"), "a later read");
    assert!(start.elapsed() < Duration::from_millis(900), "it failed at once");
    proxy.wait_stat("upstream_overdue", |overdue| overdue == 0);
    wire.release();
    wait_until("Redis answers again", || other.cmd("GET a") == b"$1\r\n1\r\n");
}

#[test]
fn a_private_connection_to_a_hung_redis_ends_with_its_client() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), SHORT);
    let mut client = proxy.client();
    assert_reply(&client.cmd("WATCH k"), "+OK\r\n", "it has a connection of its own");
    wire.hold(Way::Down);
    assert_hung(&client.cmd("GET k"), "a read");
    client.until_closed();
}

#[test]
fn a_redis_that_hangs_at_the_start_gets_the_same_timeout() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    wire.hold(Way::Down);
    let proxy = Shortstop::to(wire.addr(), SHORT);
    let got = proxy.client().cmd("GET k");
    assert_our_error(&got, "no connection is made");
    wire.release();
    wait_until("Redis answers", || proxy.client().cmd("GET k") == b"$-1\r\n");
}

/// Sends `line`, and then a request on another connection, which waits for it.
fn behind(proxy: &Shortstop, slow: &mut Client, line: &[&[u8]]) -> Vec<u8> {
    let mut other = proxy.client();
    assert_reply(&other.cmd("PING"), "+PONG\r\n", "there is a lane");
    slow.send(&command(line));
    std::thread::sleep(Duration::from_millis(100));
    other.cmd("GET k")
}

#[test]
fn long_commands_are_not_a_hang() {
    let redis = Redis::start_with(&["--enable-debug-command", "yes"]);
    // Two workers: one sees only the silence, and not its reason.
    for workers in [1, 2] {
        let proxy = Shortstop::start(&redis, &format!("workers: {workers}\ntimeouts: {{ reply: 1s }}\n"));
        let mut slow = proxy.client();
        let sleep: [&[u8]; 3] = [b"DEBUG", b"SLEEP", b"2.5"];
        assert_reply(&behind(&proxy, &mut slow, &sleep), "$-1\r\n", "behind DEBUG SLEEP");
        assert_reply(&slow.reply(), "+OK\r\n", "DEBUG SLEEP itself");

        // Redis is silent for all clients before it reports that it is busy.
        assert_reply(&redis.client().cmd("CONFIG SET lua-time-limit 2500"), "+OK\r\n", "the limit");
        let mut killer = redis.client();
        slow.send(&command(&[b"EVAL", b"while true do end", b"0"]));
        let mut other = proxy.client();
        other.send(&command(&[b"GET", b"k"]));
        wait_until("the script is ended", || killer.cmd("SCRIPT KILL") == b"+OK\r\n");
        let killed = slow.reply();
        assert!(String::from_utf8_lossy(&killed).contains("killed by user"), "the script itself: {}", show(&killed));
        let behind = other.reply();
        assert!(behind.starts_with(b"-BUSY ") || behind == b"$-1\r\n", "behind a script: {}", show(&behind));

        slow.send(&pipeline_of(&["MULTI", "DEBUG SLEEP 2.5", "EXEC"]));
        assert_reply(&slow.replies(3)[2], "*1\r\n+OK\r\n", "a transaction with a long command");

        let blocked = slow.cmd("BLPOP nothing 2.5");
        assert_reply(&blocked, "*-1\r\n", "a command that blocks");
        assert_reply(&slow.cmd("WAIT 1 2500"), ":0\r\n", "WAIT");

        assert_reply(&slow.cmd("CLIENT PAUSE 2500"), "+OK\r\n", "pause");
        assert_reply(&slow.cmd("GET k"), "$-1\r\n", "behind a pause");
        slow.send(&pipeline_of(&["MULTI", "CLIENT PAUSE 2500", "EXEC", "GET k"]));
        assert_reply(&slow.replies(4)[3], "$-1\r\n", "behind a pause in a transaction");
        assert_eq!(proxy.stat("upstream_reconnects"), 0);
    }
}

#[test]
fn an_ended_pause_is_no_excuse() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), SHORT);
    let mut client = proxy.client();
    assert_reply(&client.cmd("CLIENT PAUSE 600000 WRITE"), "+OK\r\n", "pause");
    assert_reply(&client.cmd("CLIENT UNPAUSE"), "+OK\r\n", "and go on");
    wire.hold(Way::Down);
    assert_hung(&client.cmd("GET k"), "Redis hangs");
}

#[test]
fn without_a_timeout_requests_wait_for_a_hung_redis() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), "workers: 1\ntimeouts: { reply: 0 }\n");
    let mut client = proxy.client();
    assert_reply(&client.cmd("PING"), "+PONG\r\n", "Redis answers");
    wire.hold(Way::Down);
    client.send(&command(&[b"GET", b"k"]));
    proxy.wait_stat("upstream_overdue", |overdue| overdue == 1);
    wire.release();
    assert_reply(&client.reply(), "$-1\r\n", "it is answered in the end");
    proxy.wait_stat("upstream_overdue", |overdue| overdue == 0);
}
