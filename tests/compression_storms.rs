//! Several clients change the same strings at once through two Shortstops, which compress them again and again, each in its own way.
//! Nothing may be lost, doubled or refused.

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{Client, Redis, Shortstop, assert_reply, pipeline_of, show};
use shortstop::resp::{Bulk, bulk_of};

const WRITERS: usize = 4;
const WRITES: usize = 1_000;

/// Of the string with counters.
const SIZE: usize = 100 + WRITERS * WRITES;

const APPEND: &[u8] = b"return redis.call('APPEND', KEYS[1], ARGV[1])";
const LIBRARY: &[u8] = b"#!lua name=storm\nredis.register_function('add', function(keys, args) \
    return redis.call('APPEND', keys[1], args[1]) end)";

/// Ends the others when its test ends, also when it fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Two Shortstops that compress every value, in front of one Redis.
fn two(redis: &Redis) -> [Shortstop; 2] {
    ["gzip, level: 1", "zstd, level: 3"].map(|codec| {
        let yaml = format!(
            "workers: 2\nplain_for: 0s\ndefaults: {{ compress: {{ codec: {codec}, min_size: 1b, min_saving: 0% }} }}\n"
        );
        Shortstop::start(redis, &yaml)
    })
}

fn compressible() -> Vec<u8> {
    [&b"x".repeat(1_500)[..], b";"].concat()
}

fn value_of(reply: &[u8]) -> Vec<u8> {
    match bulk_of(reply) {
        Bulk::Value(value) => value.to_vec(),
        _ => panic!("no value: {}", show(reply)),
    }
}

/// Appends a token in one of the ways that clients have.
fn append(client: &mut Client, way: usize, token: &str) {
    let replies = match way % 4 {
        0 => vec![client.cmd(&format!("APPEND k {token}"))],
        1 => vec![client.call(&[b"EVAL", APPEND, b"1", b"k", token.as_bytes()])],
        2 => client.pipeline(&pipeline_of(&["MULTI", &format!("APPEND k {token}"), "EXEC"]), 3),
        _ => vec![client.cmd(&format!("FCALL add 1 k {token}"))],
    };
    let last = replies.last().expect("a reply");
    assert!(last.starts_with(b":") || last.starts_with(b"*1\r\n:"), "{}", show(&replies.concat()));
}

#[test]
fn each_token_is_appended_once_while_others_compress_the_string_again() {
    let redis = Redis::start();
    let ways = if redis.knows("fcall") { 4 } else { 3 };
    if ways == 4 {
        redis.client().call(&[b"FUNCTION", b"LOAD", LIBRARY]);
    }
    let proxies = two(&redis);
    proxies[0].client().call(&[b"SET", b"k", &compressible()]);
    let done = AtomicBool::new(false);
    let mut all = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let mut client = proxies[writer % 2].client().speaking(2 + (writer / 2) as u8);
                scope.spawn(move || {
                    (0..WRITES).for_each(|write| append(&mut client, write % ways, &format!("<{writer}:{write}>")));
                })
            })
            .collect();
        let taker = scope.spawn(|| {
            let mut clients = [proxies[0].client(), proxies[1].client()];
            let mut taken = Vec::new();
            for round in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let client = &mut clients[round % 2];
                let reply = client.call(&[b"GETSET", b"k", &compressible()]);
                taken.extend(value_of(&reply));
                (0..10).for_each(|_| drop(client.cmd("GET k")));
            }
            taken
        });
        let ends = Done(&done);
        writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
        drop(ends);
        taker.join().expect("the taker")
    });
    all.extend(value_of(&proxies[1].client().cmd("GET k")));
    let text = String::from_utf8(all).expect("text");
    let mut tokens: HashMap<&str, usize> = HashMap::new();
    for token in text.split(['<', '>']).filter(|part| part.contains(':')) {
        *tokens.entry(token).or_default() += 1;
    }
    for writer in 0..WRITERS {
        for write in 0..WRITES {
            assert_eq!(tokens.get(&*format!("{writer}:{write}")), Some(&1), "{writer}:{write}");
        }
    }
    assert!(proxies.iter().map(|proxy| proxy.stat("converted_values")).sum::<u64>() > 10, "it was compressed again");
}

#[test]
fn counters_and_bytes_in_a_string_survive_while_others_compress_it_again() {
    let redis = Redis::start();
    let proxies = two(&redis);
    proxies[0].client().call(&[b"SET", b"k", &b"\0".repeat(SIZE), b"EX", b"1000"]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let mut client = proxies[writer % 2].client();
                scope.spawn(move || {
                    for write in 0..WRITES {
                        let counted = client.cmd("BITFIELD k INCRBY u32 #0 1");
                        assert!(counted.starts_with(b"*1\r\n:"), "{}", show(&counted));
                        let at = 100 + writer * WRITES + write;
                        assert_reply(&client.cmd(&format!("SETRANGE k {at} w")), format!(":{SIZE}\r\n"), "a byte");
                    }
                })
            })
            .collect();
        // Reads the value and writes it back, compressed, if nobody has changed it meanwhile.
        let sealer = scope.spawn(|| {
            let mut clients = [proxies[0].client(), proxies[1].client()];
            for round in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let client = &mut clients[round % 2];
                client.cmd("WATCH k");
                let value = value_of(&client.cmd("GET k"));
                client.cmd("MULTI");
                client.call(&[b"SET", b"k", &value, b"KEEPTTL"]);
                client.cmd("EXEC");
            }
        });
        let ends = Done(&done);
        writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
        drop(ends);
        sealer.join().expect("the sealer");
    });
    let mut client = proxies[1].client();
    let count = WRITERS * WRITES;
    assert_reply(&client.cmd("BITFIELD_RO k GET u32 #0"), format!("*1\r\n:{count}\r\n"), "each counted once");
    let value = value_of(&client.cmd("GET k"));
    assert!(value[100..100 + count].iter().all(|byte| *byte == b'w') && value.len() == SIZE);
    let ttl: i64 = show(&client.cmd("TTL k"))[2..].split('\\').next().and_then(|ttl| ttl.parse().ok()).expect("a TTL");
    assert!((1..=1_000).contains(&ttl), "the TTL stays: {ttl}");
    assert!(proxies.iter().map(|proxy| proxy.stat("converted_values")).sum::<u64>() > 0, "it was compressed");
}
