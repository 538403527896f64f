//! Redis dies, hangs or loses a connection: every request still gets exactly one reply, L1 continues to serve, and everything
//! recovers without a restart.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{
    Client, Done, Fault, Process, Redis, Shortstop, Way, assert_our_error, assert_reply, bulk, command, noise,
    pipeline_of, show, wait_until,
};

const EAGER: &str = "defaults:\n  cache: { admit_after: 1 }\n";

/// A request that is refused at once is answered within this time. A timeout would take longer.
const FAST: Duration = Duration::from_secs(2);

#[test]
fn redis_killed_and_restarted_under_load() {
    const CLIENTS: u64 = 8;
    const DEPTH: usize = 50;
    let mut redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let done = AtomicBool::new(false);
    let [right, refused] = [AtomicU64::new(0), AtomicU64::new(0)];
    std::thread::scope(|scope| {
        for id in 0..CLIENTS {
            let (proxy, done, right, refused) = (&proxy, &done, &right, &refused);
            scope.spawn(move || {
                let mut client = proxy.client();
                let mut round = 0;
                while !done.load(Ordering::Relaxed) {
                    round += 1;
                    // ECHO identifies its request, so that a missing, duplicate or misplaced reply shows at once.
                    let lines: Vec<String> = (0..DEPTH)
                        .map(|i| match i % 5 {
                            0 => format!("SET k{id} {round}"),
                            1 => format!("GET k{id}"),
                            2 => format!("INCR n{id}"),
                            _ => format!("ECHO {id}.{round}.{i}"),
                        })
                        .collect();
                    let replies = client.pipeline(&pipeline_of(&lines), DEPTH);
                    for (i, (line, reply)) in lines.iter().zip(&replies).enumerate() {
                        if reply.starts_with(b"-") {
                            // A Redis that loads its data returns LOADING. All other errors are Shortstop's.
                            assert!(
                                reply.starts_with(b"-LOADING") || reply.starts_with(b"-ERR shortstop: "),
                                "{line}: {}",
                                show(reply)
                            );
                            refused.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        right.fetch_add(1, Ordering::Relaxed);
                        match i % 5 {
                            0 => assert_reply(reply, "+OK\r\n", line),
                            1 => assert!(reply.starts_with(b"$"), "{line}: {}", show(reply)),
                            2 => assert!(reply.starts_with(b":"), "{line}: {}", show(reply)),
                            _ => assert_reply(reply, bulk(format!("{id}.{round}.{i}").as_bytes()), line),
                        }
                    }
                }
            });
        }
        let _done = Done(&done);
        for _ in 0..3 {
            let (answered, failed) = (right.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
            wait_until("requests are answered", || right.load(Ordering::Relaxed) > answered + 2_000);
            redis.kill();
            wait_until("requests are refused", || refused.load(Ordering::Relaxed) > failed + 200);
            redis.restart();
        }
        let answered = right.load(Ordering::Relaxed);
        wait_until("all goes on", || right.load(Ordering::Relaxed) > answered + 2_000);
    });
    assert!(proxy.stat("upstream_reconnects") > 0, "counted");
    assert!(proxy.stat("upstream_errors") > 0, "counted");
    assert_reply(&proxy.client().cmd("PING"), "+PONG\r\n", "afterwards");
}

#[test]
fn hits_are_served_while_redis_is_away_and_the_rest_fails_fast() {
    let mut redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = proxy.client();
    client.cmd("SET k v");
    client.cmd("SET cold v");
    proxy.warm(&mut client, "k");
    redis.kill();
    for _ in 0..200 {
        assert_reply(&client.cmd("GET k"), "$1\r\nv\r\n", "a hit");
    }
    for line in [
        "GET cold",
        "SET k w",
        "MGET k cold",
        "PING",
        "ECHO x",
        "MULTI",
        "SUBSCRIBE c",
        "BLPOP q 0",
        "WATCH k",
        "SELECT 3",
        "EVAL return(1) 0",
        "FLUSHALL",
        "NOSUCH",
    ] {
        let start = Instant::now();
        let mut client = proxy.client();
        let reply = client.cmd(line);
        // Commands that need no Redis may be answered without it. No reply may claim that a command was executed.
        let harmless = matches!(line, "PING" | "ECHO x" | "SELECT 3" | "MULTI" | "NOSUCH");
        if !harmless || reply.starts_with(b"-ERR shortstop") {
            assert_our_error(&reply, line);
        }
        assert!(start.elapsed() < FAST, "{line} took {:?}", start.elapsed());
        drop(client);
    }
    // A whole pipeline, in order, with the hits served.
    client.cmd("GET k");
    let mixed = client.pipeline(&pipeline_of(&["GET cold", "GET cold2", "SET a 1", "INCR n"]), 4);
    for reply in &mixed {
        assert_our_error(reply, "pipelined");
    }
    redis.restart();
    wait_until("it recovers by itself", || client.cmd("SET k again") == b"+OK\r\n");
    for line in ["GET k", "MGET k"] {
        assert!(client.cmd(line).ends_with(b"$5\r\nagain\r\n"), "{line}");
    }
    for line in ["MULTI", "EXEC", "SUBSCRIBE c"] {
        assert!(!client.cmd(line).starts_with(b"-"), "{line}");
    }
}

/// CONFIG SET timeout reaches Redis, and affects Redis's own connections.
#[test]
fn a_timeout_of_redis_closes_no_client() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "workers: 1\n");
    let mut client = proxy.client();
    client.cmd("SET k v");
    assert_reply(&client.cmd("CONFIG SET timeout 1"), "+OK\r\n", "passed on");
    wait_until("Redis closes the shared connection, which is idle", || proxy.stat("upstream_reconnects") > 0);
    assert_reply(&client.cmd("GET k"), "$1\r\nv\r\n", "the client is still there");
}

#[test]
fn shortstop_may_start_before_redis() {
    let mut redis = Redis::start();
    redis.kill();
    let proxy = Process::start(redis.addr(), "");
    let mut client = proxy.client();
    assert_our_error(&client.cmd("SET k v"), "nobody there");
    redis.restart();
    wait_until("it finds it", || client.cmd("SET k v") == b"+OK\r\n");
    assert_reply(&client.cmd("GET k"), "$1\r\nv\r\n", "get");
}

#[test]
fn sessions_end_with_their_connection() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), "");
    for (before, after) in [
        (&["MULTI", "SET k v"][..], &["EXEC"][..]),
        (&["WATCH k"], &["MULTI", "SET k v", "EXEC"]),
        (&["SUBSCRIBE c"], &["PING"]),
    ] {
        let mut client = proxy.client();
        client.pipeline(&pipeline_of(before), before.len());
        wire.cut();
        // The session's state is gone: an error, or the connection is closed, but never a reply that says that the command was
        // executed.
        let _ = client.try_send(&pipeline_of(after));
        let last = after.iter().map_while(|_| client.reply_or_end()).last().unwrap_or_default();
        assert!(!last.starts_with(b"*"), "{before:?}, {after:?}: {}", show(&last));
        wait_until("others go on", || proxy.client().cmd("EXISTS k") == b":0\r\n");
    }
    // A blocked client gets an error or is closed, instead of waiting forever.
    let mut blocked = proxy.client();
    blocked.send(&pipeline_of(&["BLPOP q 0"]));
    wait_until("it is blocked", || redis.info("blocked_clients") == "1");
    wire.cut();
    let rest = blocked.reply_or_end();
    assert!(rest.as_ref().is_none_or(|rest| rest.starts_with(b"-ERR shortstop: ")), "told or let go: {rest:?}");
}

#[test]
fn a_read_in_flight_is_repeated_and_a_write_is_not() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), "defaults:\n  cache: false\n");
    let mut client = proxy.client();
    client.cmd("SET k v");
    for line in ["GET k", "MGET k", "EXISTS k"] {
        let expected = redis.client().cmd(line);
        wire.lose_reply_to(&pipeline_of(&[line])[4..], || client.send(&pipeline_of(&[line])));
        assert_reply(&client.reply(), expected, &format!("{line} was asked again"));
    }
    wire.lose_reply_to(b"INCR\r\n", || client.send(&pipeline_of(&["INCR n", "INCR n", "INCR n"])));
    for reply in client.replies(3) {
        assert_our_error(&reply, "INCR");
    }
    wait_until("connected again", || client.cmd("PING") == b"+PONG\r\n");
    let n = redis.client().cmd("GET n");
    assert!(
        n == b"$1\r\n1\r\n" || n == b"$1\r\n2\r\n" || n == b"$1\r\n3\r\n",
        "three were sent, once each: {}",
        show(&n)
    );
}

/// If it were repeated, it would return the value that was written after it.
#[test]
fn a_read_is_not_repeated_when_its_client_wrote_behind_it() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), "workers: 1\ndefaults: { cache: { admit_after: 1 } }");
    let (mut client, mut other) = (proxy.client(), proxy.client());
    client.cmd("SET k old");
    let misses = proxy.stat("l1_misses");
    wire.hold_replies_to(b"GET\r\n");
    client.send(&pipeline_of(&["GET k"]));
    wire.wait_caught();
    // Waits for the reply to the client's read.
    other.send(&pipeline_of(&["GET k"]));
    proxy.wait_stat("l1_misses", |now| now == misses + 2);
    client.send(&pipeline_of(&["GETDEL k"]));
    wait_until("it is deleted", || redis.client().cmd("EXISTS k") == b":0\r\n");
    wire.cut_caught();
    wire.release();
    assert_our_error(&client.reply(), "GET");
    let deleted = client.reply();
    assert_our_error(&deleted, "GETDEL");
    assert!(deleted.ends_with(b"may have been executed\r\n"), "{}", show(&deleted));
    let reply = other.reply();
    assert!(reply == b"$-1\r\n" || reply.starts_with(b"-ERR shortstop: "), "one who wrote nothing: {}", show(&reply));
}

/// Redis refuses a request by its first line, and closes the connection while the rest is still being sent.
#[test]
fn a_request_that_redis_refuses_early_gets_its_reply() {
    let redis = Redis::start_with(&["--proto-max-bulk-len", "1mb"]);
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), "workers: 1\ndefaults: { compress: false }");
    let (mut client, mut other) = (proxy.client(), proxy.client());
    assert_reply(&client.cmd("SET small v"), "+OK\r\n", "the lane stands");
    // It gets a private connection, which Redis closes.
    let ended = wire.ended();
    // More than all sockets on the path can buffer, so that Shortstop still has most of it when the reply arrives.
    let large = noise(64 << 20, 1);
    wire.hold_after(Way::Up, 2 << 10);
    client.send(&command(&[b"SET", b"large", &large]));
    wait_until("Redis ends the connection", || wire.ended() > ended);
    wire.release();
    let reply = client.reply();
    assert_our_error(&reply, "refused");
    assert!(reply.ends_with(b": ERR Protocol error: invalid bulk length\r\n"), "in Redis's words: {}", show(&reply));
    assert_reply(&client.cmd("ECHO next"), "$4\r\nnext\r\n", "one reply each, in order");
    assert_reply(&other.cmd("GET small"), "$1\r\nv\r\n", "the others go on");
    assert_reply(&other.cmd("EXISTS large"), ":0\r\n", "it was not stored");
    assert_eq!(proxy.stat("panics"), 0, "nothing broke");
}

#[test]
fn a_redis_that_accepts_but_never_replies_does_not_hold_up_hits() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), EAGER);
    let (mut one, mut other) = (proxy.client(), proxy.client());
    one.cmd("SET k v");
    proxy.warm(&mut one, "k");
    wire.hold(Way::Down);
    other.send(&pipeline_of(&["GET cold"]));
    for _ in 0..100 {
        assert_reply(&one.cmd("GET k"), "$1\r\nv\r\n", "a hit");
    }
    wire.release();
    assert_reply(&other.reply(), "$-1\r\n", "and the miss is answered in the end");
}

#[test]
fn a_panic_closes_its_connection_and_no_other() {
    let redis = Redis::start();
    let mut proxy = Process::start(redis.addr(), &format!("enable_debug_command: true\nworkers: 1\n{EAGER}"));
    let mut others: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    others[0].cmd("SET k v");
    others[1].cmd("MULTI");
    others[2].cmd("SUBSCRIBE c");
    for _ in 0..3 {
        let mut client = proxy.client();
        client.send(&pipeline_of(&["PING", "PROXY DEBUG PANIC", "PING"]));
        let seen = client.until_closed();
        assert!(b"+PONG\r\n".starts_with(&seen[..]), "closed: {}", show(&seen));
        for _ in 0..4 {
            assert_reply(&others[0].cmd("GET k"), "$1\r\nv\r\n", "a client of the same worker");
        }
    }
    assert_reply(&others[1].cmd("EXEC"), "*0\r\n", "a transaction");
    others[0].cmd("PUBLISH c hello");
    assert_reply(&others[2].reply(), "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n", "a subscriber");
    assert!(proxy.is_running(), "and the process goes on");
    // Without the setting there is no such command.
    let safe = Process::start(redis.addr(), "");
    assert_our_error(&safe.client().cmd("PROXY DEBUG PANIC"), "not allowed");
}

/// A command that needs a new connection waits as with Redis itself, however short the connect timeout is.
#[test]
fn a_redis_that_is_paused_is_waited_for() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "workers: 1\ntimeouts: { connect: 50ms }");
    let (mut watcher, mut other, mut direct) = (proxy.client(), proxy.client(), redis.client());
    redis.client().cmd("ACL SETUSER u on >pw ~* +@all");
    assert_reply(&other.cmd("SET k v"), "+OK\r\n", "the lane stands");
    let start = Instant::now();
    assert_reply(&direct.cmd("CLIENT PAUSE 1000 ALL"), "+OK\r\n", "paused");
    watcher.send(&pipeline_of(&["WATCH k", "GET k"]));
    other.send(&pipeline_of(&["AUTH u pw", "GET k", "ACL WHOAMI"]));
    direct.send(&pipeline_of(&["GET k"]));
    assert_reply(&watcher.replies(2).concat(), "+OK\r\n$1\r\nv\r\n", "a connection of its own");
    assert_reply(&other.replies(3).concat(), "+OK\r\n$1\r\nv\r\n$1\r\nu\r\n", "a login, and its lane");
    assert_reply(&direct.reply(), "$1\r\nv\r\n", "and so does Redis");
    assert!(start.elapsed() >= Duration::from_millis(1000), "it was paused: {:?}", start.elapsed());
}

#[test]
fn a_connection_to_a_paused_redis_ends_with_its_client() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), "workers: 1");
    let mut client = proxy.client();
    assert_reply(&client.cmd("SET k v"), "+OK\r\n", "the lane stands");
    redis.client().cmd("CLIENT PAUSE 600000 ALL");
    let before = proxy.stat("upstream_connections");
    client.send(&pipeline_of(&["BLPOP q 0"]));
    proxy.wait_stat("upstream_connections", |now| now == before + 1);
    drop(client);
    proxy.wait_stat("upstream_connections", |now| now == before);
}

#[test]
fn a_process_without_a_worker_exits_with_an_error() {
    let redis = Redis::start();
    let mut proxy = Process::start(redis.addr(), "workers: 2\nenable_debug_command: true\n");
    let mut client = proxy.client();
    assert_reply(&client.cmd("PING"), "+PONG\r\n", "it serves");
    client.send(&pipeline_of(&["PROXY DEBUG PANIC WORKER"]));
    let status = proxy.wait_exit(common::PATIENCE);
    assert_eq!(status.code(), Some(1), "{}", proxy.log());
    assert!(proxy.log().contains("shortstop-worker-"), "the log names it: {}", proxy.log());
    assert!(proxy.log().contains("has panicked: exiting at once"), "{}", proxy.log());
}
