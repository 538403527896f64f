//! WAIT and WAITAOF confirm the client's own writes, whatever connection they went over. Tested with a real replica, which is
//! stopped and continued. `REDIS_SERVER` names the server, as in all tests.

mod common;

use std::time::{Duration, Instant};

use common::{Client, Fault, Redis, Shortstop, assert_our_error, assert_reply, pipeline_of, wait_until};

/// A primary and its replica, which is connected.
struct Pair {
    primary: Redis,
    replica: Redis,
}

impl Pair {
    fn start(arguments: &[&str]) -> Pair {
        let fast = ["--repl-diskless-sync-delay", "0"];
        let (primary, replica) = (Redis::start_with(&[arguments, &fast].concat()), Redis::start_with(arguments));
        let pair = Pair { primary, replica };
        let port = pair.primary.addr().port();
        assert_reply(&pair.replica.client().cmd(&format!("REPLICAOF 127.0.0.1 {port}")), "+OK\r\n", "replicaof");
        pair.settle();
        pair
    }

    /// Waits until the replica has everything.
    fn settle(&self) {
        let mut direct = self.primary.client();
        wait_until("the replica is there", || {
            direct.cmd("SET settled 1");
            direct.cmd("WAIT 1 100") == b":1\r\n"
        });
    }

    fn stop_replica(&self) {
        self.replica.signal("STOP");
    }

    fn go_on(&self) {
        self.replica.signal("CONT");
        self.settle();
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // A stopped replica would not handle the signal that ends it before the test's directory is removed.
        self.replica.signal("CONT");
    }
}

/// The reply of WAIT, and how long it took.
fn timed(client: &mut Client, line: &str) -> (Vec<u8>, Duration) {
    let start = Instant::now();
    let reply = client.cmd(line);
    (reply, start.elapsed())
}

const TIMEOUT: Duration = Duration::from_millis(300);

#[track_caller]
fn assert_in_vain(client: &mut Client, context: &str) {
    let (reply, took) = timed(client, "WAIT 1 300");
    assert_reply(&reply, ":0\r\n", context);
    assert!(took >= TIMEOUT - Duration::from_millis(10), "{context}: after {took:?}");
}

#[test]
fn wait_confirms_exactly_the_writes_on_the_replica() {
    let pair = Pair::start(&[]);
    let proxy = Shortstop::start(&pair.primary, "workers: 1\n");
    // Each path that a write may take.
    let ways: [&[&str]; 9] = [
        &["SET a 2"],
        &["MULTI", "SET a 2", "EXEC"],
        &["WATCH b", "SET a 2"],
        &["WATCH b", "SET a 2", "UNWATCH"],
        &["SELECT 3", "SET a 2", "SELECT 0"],
        &["HELLO 3", "SET a 2", "HELLO 2"],
        &["SET a 2", "WATCH b"],
        &["SET a 2", "GET a", "MULTI", "EXEC"],
        &["EVAL return(redis.call('SET','a','2')) 0"],
    ];
    for way in ways {
        let context = way.join("; ");
        let mut client = proxy.client();
        assert_reply(&client.cmd("WAIT 1 0"), ":1\r\n", "it has written nothing: the replica has all of it");
        client.pipeline(&pipeline_of(way), way.len());
        assert_reply(&client.cmd("WAIT 1 0"), ":1\r\n", &format!("{context}: the replica follows"));
        pair.stop_replica();
        let (reply, _) = timed(&mut client, "WAIT 1 0");
        assert_reply(&reply, ":1\r\n", &format!("{context}: what was confirmed is still there"));
        client.pipeline(&pipeline_of(way), way.len());
        assert_in_vain(&mut client, &context);
        // Other clients may have written before, which does no harm.
        assert_reply(&proxy.client().cmd("WAIT 1 0"), ":1\r\n", "whoever wrote nothing has nothing to wait for");
        pair.go_on();
        let (reply, took) = timed(&mut client, "WAIT 1 60000");
        assert_reply(&reply, ":1\r\n", &format!("{context}: the replica goes on"));
        assert!(took < Duration::from_secs(10), "{context}: {took:?}");
    }
    assert_reply(&proxy.client().cmd("WAIT 5 50"), ":1\r\n", "as many as there are");
    wait_until("no connection is left in use", || proxy.stat("proxy_sessions") == 0);
}

#[test]
fn wait_in_the_pipeline_of_its_writes() {
    let pair = Pair::start(&[]);
    let proxy = Shortstop::start(&pair.primary, "workers: 1\n");
    for _ in 0..3 {
        let got = proxy.client().pipeline(&pipeline_of(&["SET a 1", "WAIT 1 0", "GET a"]), 3).concat();
        assert_reply(&got, "+OK\r\n:1\r\n$1\r\n1\r\n", "the replica follows");
        pair.stop_replica();
        let start = Instant::now();
        let got = proxy.client().pipeline(&pipeline_of(&["SET a 2", "WAIT 1 300", "SET a 3", "GET a"]), 4).concat();
        assert_reply(&got, "+OK\r\n:0\r\n+OK\r\n$1\r\n3\r\n", "the replica stands");
        assert!(start.elapsed() >= TIMEOUT - Duration::from_millis(10));
        pair.go_on();
    }
}

#[test]
fn wait_in_a_transaction_confirms_nothing() {
    let pair = Pair::start(&[]);
    let proxy = Shortstop::start(&pair.primary, "workers: 1\n");
    let mut client = proxy.client();
    pair.stop_replica();
    client.cmd("SET a 2");
    let got = client.pipeline(&pipeline_of(&["MULTI", "WAIT 1 500", "ECHO x", "WAIT x y", "EXEC"]), 5).pop();
    let expected = "*3\r\n:0\r\n$1\r\nx\r\n-ERR value is not an integer or out of range\r\n";
    assert_reply(&got.expect("five replies"), expected, "exec");
    if pair.primary.knows("waitaof") {
        let got = client.pipeline(&pipeline_of(&["MULTI", "WAITAOF 0 1 500", "EXEC"]), 3).pop();
        assert_reply(&got.expect("three replies"), "*1\r\n*2\r\n:0\r\n:0\r\n", "exec");
    }
}

#[test]
fn waitaof_confirms_writes_on_disk() {
    let pair = Pair::start(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    if !pair.primary.knows("waitaof") {
        return;
    }
    let proxy = Shortstop::start(&pair.primary, "workers: 1\n");
    let mut client = proxy.client();
    client.cmd("SET a 1");
    assert_reply(&client.cmd("WAITAOF 1 1 0"), "*2\r\n:1\r\n:1\r\n", "both have it on disk");
    pair.stop_replica();
    client.cmd("SET a 2");
    let (reply, took) = timed(&mut client, "WAITAOF 0 1 300");
    assert!(reply.ends_with(b"\r\n:0\r\n"), "not on the replica: {}", common::show(&reply));
    assert!(took >= TIMEOUT - Duration::from_millis(10), "after {took:?}");
    assert_reply(&client.cmd("WAITAOF 1 0 0"), "*2\r\n:1\r\n:0\r\n", "it is here");
    pair.go_on();
    assert_reply(&client.cmd("WAITAOF 1 1 0"), "*2\r\n:1\r\n:1\r\n", "the replica goes on");
}

/// Without a replica Redis keeps no replication backlog, and a published message does not advance the offset.
#[test]
fn without_a_replica_waitaof_confirms_only_writes_on_disk() {
    let redis = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "no"]);
    if !redis.knows("waitaof") {
        return;
    }
    let proxy = Shortstop::start(&redis, "workers: 1\n");
    let mut client = proxy.client();
    client.cmd("SET a 1");
    let (reply, took) = timed(&mut client, "WAITAOF 1 0 300");
    assert_reply(&reply, "*2\r\n:0\r\n:0\r\n", "nobody has synced it");
    assert!(took >= TIMEOUT - Duration::from_millis(10), "after {took:?}");
    assert_reply(&redis.client().cmd("CONFIG SET appendfsync always"), "+OK\r\n", "from now on");
    client.cmd("SET a 2");
    assert_reply(&client.cmd("WAITAOF 1 0 0"), "*2\r\n:1\r\n:0\r\n", "it is on disk");
}

#[test]
fn errors_of_wait_are_those_of_redis() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "workers: 1\n");
    for line in [
        "WAIT x 1",
        "WAIT 1 x",
        "WAIT 1 -1",
        "WAIT 1",
        "WAIT 1 2 3",
        "WAITAOF 0 0 -1",
        "WAITAOF 2 0 1",
        "WAITAOF 5 2 -1",
        "WAITAOF 2 -2 5",
        "WAITAOF -1 -2 5",
        "WAITAOF 1 0 1",
        "WAITAOF",
        "WAITAOF 1",
    ] {
        assert_reply(&proxy.client().cmd(line), redis.client().cmd(line), line);
    }
    assert_reply(&proxy.client().cmd("WAIT 0 0"), ":0\r\n", "no replica");
    assert_reply(&proxy.client().cmd("WAIT 1 10"), ":0\r\n", "none comes");
}

#[test]
fn wait_needs_the_right_to_it() {
    let redis = Redis::start();
    redis.client().cmd("ACL SETUSER lim on >pl ~* &* +@all -wait");
    redis.client().cmd("ACL SETUSER may on >pm ~* resetchannels -@all +wait +set");
    let proxy = Shortstop::start(&redis, "workers: 1\n");
    let mut client = proxy.client();
    client.cmd("AUTH lim pl");
    let refused = client.cmd("WAIT 1 10");
    assert!(refused.starts_with(b"-NOPERM"), "{}", common::show(&refused));
    client.cmd("AUTH may pm");
    client.cmd("SET a 1");
    redis.client().cmd("ACL LOG RESET");
    assert_reply(&client.cmd("WAIT 1 10"), ":0\r\n", "no more than that right is needed");
    assert_reply(&redis.client().cmd("ACL LOG"), "*0\r\n", "and nothing was tried that the user may not do");

    // What Shortstop has no right to ask is not confirmed.
    let spublish = if redis.has("spublish") { "-spublish" } else { "-ping" };
    redis.client().cmd(&format!("ACL SETUSER us on >pw ~* resetchannels +@all {spublish}"));
    let upstream = format!("upstream: redis://us:pw@{}\nworkers: 1\n", redis.addr());
    let restricted = Shortstop::start(&redis, &upstream);
    let mut client = restricted.client();
    client.cmd("SET a 1");
    assert_our_error(&client.cmd("WAIT 1 10"), "not proven");
    assert_reply(&client.cmd("WAIT 0 10"), ":0\r\n", "nothing to prove");
}

#[test]
fn a_client_that_waits_for_a_replica_can_be_unblocked_and_can_disconnect() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "workers: 1\nlimits: { max_sessions: 1 }\n");
    let (mut waiting, mut other) = (proxy.client(), proxy.client());
    let id = waiting.cmd("CLIENT ID");
    let id = String::from_utf8_lossy(&id[1..id.len() - 2]).into_owned();
    for (how, expected) in
        [("TIMEOUT", &b":0\r\n"[..]), ("ERROR", b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n")]
    {
        waiting.send(&pipeline_of(&["SET a 1", "WAIT 1 0", "PING"]));
        wait_until("it waits", || redis.info("blocked_clients") == "1");
        assert_reply(&other.cmd(&format!("CLIENT UNBLOCK {id} {how}")), ":1\r\n", how);
        assert_reply(&waiting.reply(), "+OK\r\n", "what came before");
        assert_reply(&waiting.reply(), expected, how);
        assert_reply(&waiting.reply(), "+PONG\r\n", "what comes behind");
    }
    waiting.send(&pipeline_of(&["WAIT 1 0"]));
    wait_until("it waits", || redis.info("blocked_clients") == "1");
    drop(waiting);
    wait_until("it waits no more", || redis.info("blocked_clients") == "0");
    assert_reply(&other.pipeline(&pipeline_of(&["MULTI", "EXEC"]), 2).concat(), "+OK\r\n*0\r\n", "its place is free");
}

#[test]
fn writes_before_a_lost_connection_are_not_confirmed() {
    let pair = Pair::start(&[]);
    let wire = Fault::before(pair.primary.addr());
    let proxy = Shortstop::to(wire.addr(), "workers: 1\n");
    let (mut client, mut other) = (proxy.client(), proxy.client());
    assert_reply(&client.cmd("SET a 1"), "+OK\r\n", "written");
    wire.cut();
    wait_until("connected again", || other.cmd("PING") == b"+PONG\r\n");
    assert_our_error(&client.cmd("WAIT 1 0"), "behind the new connection may be another server");
    assert_reply(&client.cmd("SET a 2"), "+OK\r\n", "written");
    assert_reply(&client.cmd("WAIT 1 0"), ":1\r\n", "known again");
}
