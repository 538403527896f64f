//! Clients that send far more than they read: nobody waits for anybody else, and memory is bounded for each client and for all.

mod common;

use std::io::Read;

use common::{Client, Redis, Shortstop, assert_reply, bulk, command, noise};

const REQUESTS: usize = 120_000;

/// A key of 40 bytes.
fn key(number: usize) -> Vec<u8> {
    format!("{number:040}").into_bytes()
}

/// Reads exactly as much as is expected, and compares.
fn assert_reads(client: &mut Client, expected: &[u8], what: &str) {
    let mut got = vec![0; expected.len()];
    client.stream().read_exact(&mut got).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(got == expected, "{what}: every reply, in order");
}

#[test]
fn a_pipeline_that_is_written_whole_before_a_reply_is_read_completes() {
    const KEYS: usize = 1_000;
    let redis = Redis::start();
    // One key is read from L1, one group from Redis each time, and one group is absent.
    let yaml = "workers: 1\ndefaults: { cache: false, compress: false }\n\
                rules:\n  - match: \"hot\"\n    cache: { admit_after: 1 }\n";
    let proxy = Shortstop::start(&redis, yaml);
    let mut neighbour = proxy.client();
    let value = noise(200, 1);
    for number in 0..KEYS {
        neighbour.call(&[b"SET", &key(number), &value]);
    }
    neighbour.call(&[b"SET", b"hot", &value]);
    proxy.warm(&mut neighbour, "hot");

    let get = |number: usize| command(&[b"GET", &key(number)]);
    let hits = command(&[b"GET", b"hot"]).repeat(REQUESTS);
    let reads: Vec<u8> = (0..REQUESTS).flat_map(|number| get(number % KEYS)).collect();
    let absent: Vec<u8> = (0..REQUESTS).flat_map(|number| get(KEYS + number)).collect();
    let writes: Vec<u8> = (0..REQUESTS).flat_map(|number| command(&[b"SET", &key(number % KEYS), &value])).collect();
    let mixed: Vec<u8> =
        (0..REQUESTS / 2).flat_map(|number| [command(&[b"GET", b"hot"]), get(number % KEYS)].concat()).collect();
    for (what, requests, expected) in [
        ("hits", hits, bulk(&value).repeat(REQUESTS)),
        ("reads", reads, bulk(&value).repeat(REQUESTS)),
        ("absent keys", absent, b"$-1\r\n".repeat(REQUESTS)),
        ("writes", writes, b"+OK\r\n".repeat(REQUESTS)),
        ("hits and reads", mixed, bulk(&value).repeat(REQUESTS)),
    ] {
        let mut client = proxy.client();
        let (sent, is_sent) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                client.send(&requests);
                // The receiver lives to the end of the scope.
                let _ = sent.send(());
                client
            });
            // Until all is sent, and once more with the replies waiting.
            while is_sent.try_recv().is_err() && !writer.is_finished() {
                assert_reply(&neighbour.cmd("GET hot"), bulk(&value), "a neighbour is served from L1");
                assert_reply(&neighbour.cmd("ECHO x"), bulk(b"x"), "a neighbour is served by Redis");
            }
            let mut client = writer.join().unwrap_or_else(|_| panic!("{what}: the pipeline is not taken"));
            assert_reply(&neighbour.cmd("ECHO y"), bulk(b"y"), "a neighbour is served by Redis");
            assert_reads(&mut client, &expected, what);
            assert_reply(&client.cmd("ECHO z"), bulk(b"z"), "the client goes on");
        });
    }
}
