//! Clients that do not read, read slowly, or vanish: their memory is bounded, and other clients are not affected.

mod common;

use std::io::Read;
use std::time::Duration;

use common::{Fault, Process, Redis, Shortstop, Way, assert_reply, bulk, command, noise, pipeline_of, wait_until};

const EAGER: &str = "defaults:\n  cache: { admit_after: 1 }\n";

#[test]
fn a_client_that_does_not_read_is_bounded_and_dropped() {
    const VALUE: usize = 1024 * 1024;
    const REQUESTS: usize = 1_000;
    let redis = Redis::start();
    // The value is in L1, so that only the client itself slows anything down.
    let yaml = format!("limits: {{ output_buffer: 8mb, stall_timeout: 500ms }}\nl1: {{ max_memory: 64mb }}\n{EAGER}");
    let proxy = Process::start(redis.addr(), &yaml);
    let mut other = proxy.client();
    other.call(&[b"SET", b"big", &noise(VALUE - 100, 1)]);
    other.cmd("GET big");
    let before = proxy.resident_bytes();
    for source in ["big", "list"] {
        // From L1, and from Redis: a quarter of the size there, since Redis must buffer all of it.
        let line = if source == "big" { "GET big".to_owned() } else { "LRANGE list 0 0".to_owned() };
        redis.client().call(&[b"RPUSH", b"list", &noise(VALUE / 4, 2)]);
        let mut deaf = proxy.client();
        // So that it counts as a client from now on, until it is dropped.
        deaf.cmd("PING");
        let requests = pipeline_of(&vec![line; REQUESTS]);
        // Shortstop stops reading from it if it does not read its replies: then this may not all fit.
        deaf.set_patience(Duration::from_millis(300));
        let _ = deaf.try_send(&requests);
        let mut most = 0;
        wait_until("it is dropped", || {
            assert_reply(&other.cmd("PING"), "+PONG\r\n", "others go on");
            most = most.max(proxy.resident_bytes().unwrap_or(0));
            // Its own connection, and the one that asks.
            proxy.stat("proxy_clients") <= 2
        });
        if let Some(before) = before {
            let grown = most.saturating_sub(before);
            assert!(grown < 200 << 20, "grew by {} MB for a client that does not read", grown >> 20);
        }
        let mut left = Vec::new();
        deaf.stream().set_read_timeout(Some(common::PATIENCE)).expect("a limit above zero");
        // A connection with unread replies ends with a reset.
        let _ = deaf.stream().read_to_end(&mut left);
        // No more than the sockets' buffers hold.
        assert!(left.len() < 64 << 20, "{} bytes were still delivered", left.len());
    }
    assert_reply(&other.cmd("SET k v"), "+OK\r\n", "others go on");
}

#[test]
fn a_slow_reader_gets_everything() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "limits: { output_buffer: 1mb }\ndefaults:\n  compress: false\n");
    let mut client = proxy.client();
    let value = noise(300_000, 3);
    client.call(&[b"SET", b"k", &value]);
    let requests = pipeline_of(&vec!["GET k"; 100]);
    let mut sender = client.stream().try_clone().expect("the socket is open");
    std::thread::scope(|scope| {
        scope.spawn(move || std::io::Write::write_all(&mut sender, &requests).expect("all is taken in the end"));
        for i in 0..100 {
            if i % 10 == 0 {
                // Slow, but not stopped: this sleep is the event under test, not a wait for one.
                std::thread::sleep(Duration::from_millis(20));
            }
            assert_reply(&client.reply(), bulk(&value), "in order and whole");
        }
    });
}

#[test]
fn replies_are_complete_after_a_partial_write() {
    // A client that reads little at a time through a small window: the rest of a batch must follow, unbroken, before the next one.
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = proxy.client();
    let value = noise(7_777, 5);
    client.call(&[b"SET", b"k", &value]);
    proxy.warm(&mut client, "k");
    let requests = command(&[b"GET", b"k"]).repeat(3_000);
    let mut sender = client.stream().try_clone().expect("the socket is open");
    std::thread::scope(|scope| {
        scope.spawn(move || std::io::Write::write_all(&mut sender, &requests).expect("all is taken"));
        for _ in 0..3_000 {
            assert_reply(&client.reply(), bulk(&value), "whole");
        }
    });
}

#[test]
fn a_large_reply_is_passed_on_while_it_arrives() {
    const MEGABYTE: usize = 1 << 20;
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let mut direct = redis.client();
    let element = noise(MEGABYTE, 6);
    direct.call(&[b"SET", b"value", &element.repeat(32)]);
    for _ in 0..32 {
        direct.call(&[b"RPUSH", b"list", &element]);
    }
    let (nothing, others, all) = ("cache: false", "cache: { reads: [get, hlen] }", "cache: { reads: all }");
    for (keeps, line) in
        [(nothing, "LRANGE list 0 -1"), (others, "LRANGE list 0 -1"), (all, "LRANGE list 0 -1"), (nothing, "GET value")]
    {
        let proxy = Shortstop::to(wire.addr(), &format!("defaults: {{ {keeps} }}"));
        let expected = direct.cmd(line);
        // Redis has not sent its last bytes when the client has the first.
        let mut client = proxy.client();
        wire.hold_after(Way::Down, 8 * MEGABYTE as u64);
        client.send(&pipeline_of(&[line, "PING"]));
        let mut got = vec![0; 4 * MEGABYTE];
        client.stream().read_exact(&mut got).expect("the beginning");
        wire.release();
        let mut rest = vec![0; expected.len() - got.len()];
        client.stream().read_exact(&mut rest).expect("the rest");
        got.extend(rest);
        assert!(got == expected, "{line}: byte for byte");
        assert_reply(&client.reply(), "+PONG\r\n", "behind it");

        // The connection to Redis breaks in the middle: nothing may be sent that could count as the rest.
        let mut client = proxy.client();
        wire.hold_after(Way::Down, 8 * MEGABYTE as u64);
        client.send(&pipeline_of(&[line]));
        let mut got = vec![0; 4 * MEGABYTE];
        client.stream().read_exact(&mut got).expect("the beginning");
        wire.cut();
        // A reset is an end, too.
        let _ = client.stream().read_to_end(&mut got);
        assert!(got.len() < expected.len() && expected.starts_with(&got), "{line}: a beginning, and no more");
        wire.release();
        wait_until("Redis is back", || proxy.client().cmd("PING") == b"+PONG\r\n");
    }
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut steady = proxy.client();
    steady.call(&[b"SET", b"big", &noise(200_000, 4)]);
    let before = proxy.stat("proxy_clients");
    for round in 0..100 {
        let mut client = proxy.client();
        match round % 5 {
            0 => client.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk"),
            1 => client.send(&pipeline_of(&vec!["GET big"; 20])),
            2 => client.send(&pipeline_of(&["MULTI", "SET k half", "GET big"])),
            3 => client.send(&pipeline_of(&["BLPOP q 0"])),
            _ => {}
        }
        drop(client);
        assert_reply(&steady.cmd(&format!("ECHO {round}")), bulk(round.to_string().as_bytes()), "the steady one");
    }
    wait_until("all are gone", || proxy.stat("proxy_clients") <= before);
    wait_until("in Redis too", || redis.info("blocked_clients") == "0");
    assert_reply(&steady.cmd("EXISTS k"), ":0\r\n", "nothing half done was done");
}
