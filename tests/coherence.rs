//! A value read before a write is never served after it: races, made deterministic.
//!
//! The wire between Shortstop and Redis is held or cut at the worst moment.

mod common;

use std::time::Duration;

use common::{
    Client, Fault, Nats, Redis, Shortstop, assert_our_error, assert_reply, bulk, pipeline_of, show, wait_until,
};

const EAGER: &str = "defaults:\n  cache: { admit_after: 1 }\n";

/// Two clients of one Shortstop whose requests reach Redis over different connections.
///
/// New connections go to the worker with the fewest, so of a handful two are on different workers. The test finds them by holding
/// the request of one.
fn apart(proxy: &Shortstop, wire: &Fault) -> (Client, Client) {
    let mut one = proxy.client();
    wire.hold_replies_to(b"where-am-i");
    one.send(&pipeline_of(&["ECHO where-am-i"]));
    wire.wait_caught();
    for _ in 0..8 {
        let mut other = proxy.client();
        other.set_patience(Duration::from_millis(500));
        other.send(&pipeline_of(&["ECHO here-i-am"]));
        if other.try_reply().is_ok_and(|reply| reply.is_some()) {
            wire.release();
            one.reply();
            other.set_patience(common::PATIENCE);
            return (one, other);
        }
    }
    panic!("eight clients, and all on one connection to Redis");
}

#[test]
fn an_in_flight_read_is_not_kept_after_a_write() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), EAGER);
    proxy.wait_mode("single");
    let (mut reader, mut writer) = apart(&proxy, &wire);
    for (round, write) in [
        "SET k new",
        "MSET k new",
        "EVAL return(redis.call('SET',KEYS[1],'new')) 1 k",
        "GETSET k new",
        "COPY source k REPLACE",
        "DEL k",
    ]
    .iter()
    .enumerate()
    {
        let key_state = if *write == "DEL k" { b"$-1\r\n".to_vec() } else { bulk(b"new") };
        redis.client().cmd("SET source new");
        writer.cmd("SET k old");
        let poisoned = proxy.stat("fills_poisoned");
        // The read has a ticket and its reply is in flight …
        wire.hold_replies_to(b"GET\r\n$1\r\nk\r\n");
        reader.send(&pipeline_of(&["GET k"]));
        wire.wait_caught();
        // Redis executes what its socket has received before it accepts a later connection.
        redis.client().cmd("PING");
        // … when the write arrives, is executed and acknowledged over another connection.
        writer.cmd(write);
        assert_reply(&redis.client().cmd("GET k"), &key_state, "it was executed");
        wire.release();
        assert_reply(&reader.reply(), "$3\r\nold\r\n", "the read was first and may say so");
        for _ in 0..3 {
            assert_reply(
                &reader.cmd("GET k"),
                &key_state,
                &format!("round {round}: the old value was kept after {write}"),
            );
            assert_reply(&writer.cmd("GET k"), &key_state, &format!("round {round}: the writer reads {write}"));
        }
        assert!(proxy.stat("fills_poisoned") > poisoned, "round {round}: the fill was poisoned");
    }
}

#[test]
fn a_flush_invalidates_in_flight_reads() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), EAGER);
    proxy.wait_mode("single");
    let (mut reader, mut writer) = apart(&proxy, &wire);
    for flush in ["FLUSHALL", "FLUSHDB", "SWAPDB 0 5", "EVAL redis.call('DEL','k') 0"] {
        writer.cmd("FLUSHALL");
        writer.cmd("SET k old");
        wire.hold_replies_to(b"GET\r\n$1\r\nk\r\n");
        reader.send(&pipeline_of(&["GET k"]));
        wire.wait_caught();
        redis.client().cmd("PING");
        writer.cmd(flush);
        wire.release();
        assert_reply(&reader.reply(), "$3\r\nold\r\n", "the read was first");
        assert_reply(&reader.cmd("GET k"), "$-1\r\n", flush);
    }
}

#[test]
fn a_peers_write_invalidates_in_flight_reads() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let wire = Fault::before(redis.addr());
    let near = Shortstop::to(wire.addr(), &format!("nats: {}\n{EAGER}", nats.url()));
    let far = Shortstop::in_fleet(&redis, &nats, EAGER);
    near.wait_mode("live");
    near.wait_stat("peers", |peers| peers == 1);
    far.wait_stat("peers", |peers| peers == 1);
    let (mut reader, mut writer) = (near.client(), far.client());
    for _ in 0..10 {
        let known = near.stat("invalidations_applied");
        writer.cmd("SET k old");
        wait_until("the peer's write is known", || near.stat("invalidations_applied") > known);
        let known = near.stat("invalidations_applied");
        wire.hold_replies_to(b"GET\r\n$1\r\nk\r\n");
        reader.send(&pipeline_of(&["GET k"]));
        wire.wait_caught();
        redis.client().cmd("PING");
        writer.cmd("SET k new");
        wait_until("its invalidation has passed the held reply", || near.stat("invalidations_applied") > known);
        wire.release();
        assert_reply(&reader.reply(), "$3\r\nold\r\n", "the read was first");
        assert_reply(&reader.cmd("GET k"), "$3\r\nnew\r\n", "the old value was not kept");
    }
    assert!(near.stat("fills_poisoned") > 0, "a run in which nothing was poisoned shows nothing");
}

#[test]
fn an_in_flight_write_blocks_fills_until_its_reply() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), EAGER);
    proxy.wait_mode("single");
    let (mut reader, mut writer) = apart(&proxy, &wire);
    writer.cmd("SET k old");
    proxy.warm(&mut reader, "k");
    wire.hold_replies_to(b"SET\r\n$1\r\nk\r\n$3\r\nnew");
    writer.send(&pipeline_of(&["SET k new"]));
    wire.wait_caught();
    // It may or may not have been executed: L1 must not serve or keep the key.
    wait_until("Redis has it", || redis.client().cmd("GET k") == b"$3\r\nnew\r\n");
    let hits = proxy.stat("l1_hits");
    for i in 0..5 {
        redis.client().cmd(&format!("SET k {i}"));
        assert_reply(&reader.cmd("GET k"), bulk(i.to_string().as_bytes()), "from Redis");
    }
    assert_eq!(proxy.stat("l1_hits"), hits, "nothing was served from L1");
    wire.release();
    assert_reply(&writer.reply(), "+OK\r\n", "the write");
    assert_reply(&proxy.warm(&mut reader, "k"), "$1\r\n4\r\n", "and cached again");
}

#[test]
fn a_write_whose_client_has_gone_keeps_its_guard() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), EAGER);
    proxy.wait_mode("single");
    let (mut reader, mut writer) = apart(&proxy, &wire);
    writer.cmd("SET k old");
    proxy.warm(&mut reader, "k");
    // Redis is stopped: the request waits in its socket's buffer, and the writer disconnects.
    redis.signal("STOP");
    wire.hold_replies_to(b"SET\r\n$1\r\nk\r\n$3\r\nnew");
    writer.send(&pipeline_of(&["SET k new"]));
    wire.wait_caught();
    wire.release();
    let before = proxy.stat("l1_hits");
    // With a reset: a half-closed connection would still get its reply.
    socket2::SockRef::from(&*writer.stream()).set_linger(Some(Duration::ZERO)).expect("the socket is open");
    drop(writer);
    wait_until("the proxy has seen it go", || proxy.stat("proxy_clients") <= 2);
    reader.send(&pipeline_of(&["GET k"]));
    redis.signal("CONT");
    let first = reader.reply();
    assert!(first == b"$3\r\nold\r\n" || first == b"$3\r\nnew\r\n", "{}", show(&first));
    wait_until("the write was executed", || redis.client().cmd("GET k") == b"$3\r\nnew\r\n");
    assert_reply(&reader.cmd("GET k"), "$3\r\nnew\r\n", "and is seen");
    assert_eq!(proxy.stat("l1_hits"), before, "nothing came from L1 meanwhile");
}

#[test]
fn a_lost_write_is_an_error_and_its_key_is_quarantined() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), EAGER);
    proxy.wait_mode("single");
    let mut client = proxy.client();
    for (i, (line, key, value)) in [
        ("SET k new", "k", "new"),
        ("INCR n", "n", "1"),
        ("MSET k new n 5", "n", "5"),
        ("EVAL return(redis.call('SET',KEYS[1],'new')) 1 k", "k", "new"),
    ]
    .into_iter()
    .enumerate()
    {
        redis.client().cmd("MSET k old n 0");
        wire.lose_reply_to(format!("{}\r\n", line.split(' ').next().expect("a name")).as_bytes(), || {
            client.send(&pipeline_of(&[line, "PING"]))
        });
        let reply = client.reply();
        assert_our_error(&reply, line);
        let text = String::from_utf8_lossy(&reply).to_lowercase();
        assert!(text.contains("may have"), "the error says that it may have happened: {text}");
        // A later request on the same connection is answered too, one way or the other.
        client.reply();
        // A write is never sent twice.
        assert_reply(
            &redis.client().cmd(&format!("GET {key}")),
            bulk(value.as_bytes()),
            &format!("{line} was executed once"),
        );
        // The key is not filled: a direct write to Redis is visible at once, every time.
        wait_until("connected again", || client.cmd("SET other 1") == b"+OK\r\n");
        for round in 0..5 {
            redis.client().cmd(&format!("SET {key} {i}.{round}"));
            assert_reply(
                &client.cmd(&format!("GET {key}")),
                bulk(format!("{i}.{round}").as_bytes()),
                &format!("{line}: in quarantine"),
            );
        }
    }
    // Other keys are not affected.
    client.cmd("SET free 1");
    proxy.warm(&mut client, "free");
}

#[test]
fn a_lost_transaction_quarantines_all_its_keys() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), EAGER);
    proxy.wait_mode("single");
    let (mut client, mut reader) = (proxy.client(), proxy.client());
    reader.cmd("MSET a old b old");
    proxy.warm(&mut reader, "a");
    proxy.warm(&mut reader, "b");
    client.pipeline(&pipeline_of(&["MULTI", "SET a new", "SET b new"]), 3);
    wire.lose_reply_to(b"EXEC\r\n", || client.send(&pipeline_of(&["EXEC"])));
    assert_our_error(&client.reply(), "EXEC");
    for key in ["a", "b"] {
        wait_until("read from Redis", || reader.cmd(&format!("GET {key}")) == b"$3\r\nnew\r\n");
        for round in 0..4 {
            redis.client().cmd(&format!("SET {key} {round}"));
            assert_reply(&reader.cmd(&format!("GET {key}")), bulk(round.to_string().as_bytes()), "in quarantine");
        }
    }
}

#[test]
fn the_quarantine_reaches_the_peers() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let wire = Fault::before(redis.addr());
    let near = Shortstop::to(wire.addr(), &format!("nats: {}\n{EAGER}", nats.url()));
    let far = Shortstop::in_fleet(&redis, &nats, EAGER);
    near.wait_mode("live");
    near.wait_stat("peers", |peers| peers == 1);
    let (mut writer, mut reader) = (near.client(), far.client());
    reader.cmd("SET k old");
    far.warm(&mut reader, "k");
    wire.lose_reply_to(b"SET\r\n$1\r\nk", || writer.send(&pipeline_of(&["SET k new"])));
    assert_our_error(&writer.reply(), "the write is lost");
    wait_until("the peer has dropped its entry", || reader.cmd("GET k") == b"$3\r\nnew\r\n");
    for round in 0..4 {
        redis.client().cmd(&format!("SET k {round}"));
        assert_reply(&reader.cmd("GET k"), bulk(round.to_string().as_bytes()), "and keeps none");
    }
}

/// Anything may have been written or may still be written: a script that names no keys.
#[test]
fn a_lost_write_of_any_key_quarantines_all_keys_here_and_at_the_peers() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let wire = Fault::before(redis.addr());
    let near = Shortstop::to(wire.addr(), &format!("nats: {}\nmax_staleness: 3s\n{EAGER}", nats.url()));
    let far = Shortstop::in_fleet(&redis, &nats, &format!("max_staleness: 3s\n{EAGER}"));
    near.wait_mode("live");
    near.wait_stat("peers", |peers| peers == 1);
    let (mut writer, mut there) = (near.client(), far.client());
    there.cmd("SET k old");
    far.warm(&mut there, "k");
    wire.lose_reply_to(b"EVAL\r\n", || writer.send(&pipeline_of(&["EVAL return(redis.call('SET','k','new')) 0"])));
    assert_our_error(&writer.reply(), "the script is lost");
    wait_until("the peer has dropped its entry", || there.cmd("GET k") == b"$3\r\nnew\r\n");
    wait_until("connected again", || writer.cmd("GET k") == b"$3\r\nnew\r\n");
    let begun = std::time::Instant::now();
    for round in 0.. {
        redis.client().cmd(&format!("SET k {round}"));
        let written = bulk(round.to_string().as_bytes());
        let replies = [&mut writer, &mut there].map(|reader| reader.cmd("GET k"));
        // On a slow machine the quarantine may end meanwhile.
        if round > 3 || begun.elapsed() > Duration::from_secs(2) {
            break;
        }
        replies.iter().for_each(|reply| assert_reply(reply, &written, "nothing is kept"));
    }
    // It ends.
    near.warm(&mut writer, "k");
    far.warm(&mut there, "k");
}

#[test]
fn the_deadline_counts_from_before_the_request() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), EAGER);
    proxy.wait_mode("single");
    let mut client = proxy.client();
    redis.client().cmd("SET k v PX 300");
    wire.hold_replies_to(b"GET\r\n$1\r\nk\r\n");
    client.send(&pipeline_of(&["GET k"]));
    wire.wait_caught();
    let mut direct = redis.client();
    wait_until("it has expired in Redis", || direct.cmd("GET k") == b"$-1\r\n");
    wire.release();
    client.reply();
    // The deadline counts from before the request was sent, not from the reply.
    assert_reply(&client.cmd("GET k"), "$-1\r\n", "no longer served");
}
