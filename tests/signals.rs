//! Shutdown and reload: signals, and dropping the App.

mod common;

use common::{Client, Fault, Nats, Process, Redis, Shortstop, assert_reply, pipeline_of, wait_until, wait_within};

const EAGER: &str = "defaults:\n  cache: { admit_after: 1 }\n";

#[test]
fn sigterm_answers_pending_requests_and_exits() {
    for signal in ["TERM", "INT"] {
        let redis = Redis::start();
        let wire = Fault::before(redis.addr());
        let mut proxy = Process::start(wire.addr(), "timeouts: { shutdown: 30s }\n");
        let (mut busy, mut idle) = (proxy.client(), proxy.client());
        busy.cmd("SET k v");
        idle.cmd("PING");
        wire.hold_replies_to(b"ECHO\r\n");
        busy.send(&pipeline_of(&["GET k", "ECHO asked", "INCR n"]));
        wire.wait_caught();
        proxy.signal(signal);
        wait_until("nobody new is let in", || Client::try_connect(proxy.addr()).is_err());
        assert!(proxy.is_running(), "a reply is still due");
        wire.release();
        assert_reply(&busy.replies(3).concat(), "$1\r\nv\r\n$5\r\nasked\r\n:1\r\n", "answered");
        assert_reply(&busy.until_closed(), "", "and closed");
        assert_reply(&idle.until_closed(), "", "the idle one too");
        let status = proxy.wait_exit(common::PATIENCE);
        assert_eq!(status.code(), Some(0), "all was answered: {}", proxy.log());
    }
}

#[test]
fn a_clean_shutdown_logs_no_warning() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let mut proxy = Process::start(redis.addr(), &format!("nats: {}\n", nats.url()));
    wait_until("NATS is connected", || proxy.log().contains("nats: connected"));
    proxy.signal("TERM");
    assert_eq!(proxy.wait_exit(common::PATIENCE).code(), Some(0));
    wait_until("the whole log is read", || proxy.log_has_ended());
    assert!(!proxy.log().contains(" WARN "), "{}", proxy.log());
}

#[test]
fn sigterm_has_a_timeout() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    for (limit, second) in [("300ms", false), ("10m", true)] {
        let mut proxy = Process::start(wire.addr(), &format!("timeouts: {{ shutdown: {limit} }}\n"));
        let mut stuck = proxy.client();
        stuck.cmd("SET k v");
        wire.hold_replies_to(b"ECHO\r\n");
        stuck.send(&pipeline_of(&["ECHO never"]));
        wire.wait_caught();
        proxy.signal("TERM");
        if second {
            wait_until("nobody new is let in", || Client::try_connect(proxy.addr()).is_err());
            assert!(proxy.is_running(), "a reply is still due");
            proxy.signal("TERM");
        }
        proxy.wait_exit(common::PATIENCE);
        wire.release();
    }
}

#[test]
fn clients_without_pending_requests_do_not_delay_the_shutdown() {
    let redis = Redis::start();
    let mut proxy = Process::start(redis.addr(), "timeouts: { shutdown: 10m }\n");
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    // No reply is due to any of them, however long they stay.
    clients[0].cmd("SUBSCRIBE c");
    clients[1].cmd("MULTI");
    clients[2].cmd("MONITOR");
    clients[3].send(b"*2\r\n$3\r\nGET\r\n$1");
    wait_until("all are known", || redis.client().cmd("PUBSUB NUMSUB c").ends_with(b":1\r\n"));
    proxy.signal("TERM");
    proxy.wait_exit(common::PATIENCE);
}

#[test]
fn sighup_reloads_and_a_bad_file_is_refused() {
    let redis = Redis::start();
    let proxy = Process::start(redis.addr(), EAGER);
    let mut client = proxy.client();
    client.cmd("SET k old");
    common::warm(proxy.addr(), &mut client, b"k");
    let cached = |client: &mut Client, round: usize| {
        client.cmd("SET k inside");
        (0..3).for_each(|_| drop(client.cmd("GET k")));
        redis.client().cmd(&format!("SET k around{round}"));
        client.cmd("GET k") == b"$6\r\ninside\r\n"
    };
    assert!(cached(&mut client, 0), "cached at first");
    for (round, bad) in
        ["defaults:\n  cache: { ttl: 5 parsecs }\n", "no_such_setting: 1\n", "rules: 7\n", "listen: [\n"]
            .iter()
            .enumerate()
    {
        let before = proxy.log().len();
        proxy.write_config(redis.addr(), bad);
        proxy.signal("HUP");
        wait_until("the log says why", || {
            let log = proxy.log();
            let new = &log[before..];
            new.contains("ERROR") || new.contains("WARN")
        });
        assert!(cached(&mut client, round), "the old one stays after {bad:?}");
    }
    let mut round = 10;
    proxy.write_config(
        redis.addr(),
        r#"
limits: { max_bulk_length: 1mb }
timeouts: { shutdown: 7s }
defaults:
  cache: { admit_after: 1 }
  compress: false
rules:
  - match: "k"
    cache: false
  - match: "*"
"#,
    );
    proxy.signal("HUP");
    // New clients are served under the new limits.
    wait_until("it is reloaded", || proxy.log().contains("the configuration is reloaded"));
    wait_until("the new rules hold", || {
        round += 1;
        !cached(&mut client, round)
    });
    assert_reply(&client.cmd("PING"), "+PONG\r\n", "the same connection");
    // The limits too.
    let mut large = proxy.client();
    large.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048577\r\n");
    assert_reply(&large.until_closed(), "-ERR Protocol error: invalid bulk length\r\n", "the new limit");
}

#[test]
fn a_reload_in_process_changes_the_rules_for_connected_clients() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = proxy.client();
    client.cmd("SET k old");
    proxy.warm(&mut client, "k");
    proxy.reload("defaults:\n  cache: false\n");
    redis.client().cmd("SET k new");
    wait_until("nothing is served from L1 any more", || client.cmd("GET k") == b"$3\r\nnew\r\n");
    redis.client().cmd("SET k newer");
    assert_reply(&client.cmd("GET k"), "$5\r\nnewer\r\n", "nor kept");
    proxy.reload(EAGER);
    wait_until("and then it is again", || {
        let before = proxy.stat("l1_hits");
        client.cmd("GET k");
        proxy.stat("l1_hits") > before
    });
}

#[test]
fn dropping_it_ends_everything() {
    let redis = Redis::start();
    let before = redis.connections();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    client.cmd("SET k v");
    let address = proxy.addr();
    drop(proxy);
    assert_reply(&client.until_closed(), "", "closed");
    assert!(Client::try_connect(address).is_err(), "nobody listens");
    wait_within(common::PATIENCE, "nothing is left in Redis", || redis.connections() <= before);
}
