//! Many clients at once: every value read is complete, not older than the last acknowledged write, and never goes back in time.
//! `coherence.rs` forces each race; here chance produces many.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Done, Redis, Shortstop, noise, pipeline_of, prose, show};

const EAGER: &str = "defaults:\n  cache: { admit_after: 1 }\n";

/// `number` and a filler whose length and kind depend on it: uncompressed, compressed, and compressed on another thread.
fn version(key: usize, number: u64) -> Vec<u8> {
    let head = format!("{key}:{number}:");
    let filler = match number % 7 {
        0 => prose(3_000, number),
        3 => noise(1_500, number),
        5 => prose(80_000, number),
        _ => Vec::new(),
    };
    [head.as_bytes(), &filler].concat()
}

fn number_of(key: usize, reply: &[u8]) -> u64 {
    let head = reply.windows(2).position(|pair| pair == b"\r\n").expect("a bulk string") + 2;
    let value = &reply[head..reply.len() - 2];
    let mut parts = value.splitn(3, |byte| *byte == b':');
    let mut number = || parts.next().and_then(|part| std::str::from_utf8(part).ok()?.parse::<u64>().ok());
    let (of_key, number) = (number(), number());
    assert_eq!(of_key, Some(key as u64), "another key's value: {}", show(value));
    let number = number.unwrap_or_else(|| panic!("no version: {}", show(value)));
    assert!(value == version(key, number), "version {number} is not whole: {}", show(value));
    number
}

#[test]
fn versions_never_go_back() {
    const KEYS: usize = 4;
    const READERS: usize = 6;
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    proxy.wait_mode("single");
    let acknowledged: [AtomicU64; KEYS] = std::array::from_fn(|_| AtomicU64::new(0));
    let done = AtomicBool::new(false);
    for key in 0..KEYS {
        proxy.client().call(&[b"SET", format!("v{key}").as_bytes(), &version(key, 0)]);
    }
    std::thread::scope(|scope| {
        for reader in 0..READERS {
            let (proxy, acknowledged, done) = (&proxy, &acknowledged, &done);
            scope.spawn(move || {
                let mut client = proxy.client();
                let mut seen = [0; KEYS];
                while !done.load(Ordering::Relaxed) {
                    for key in 0..KEYS {
                        let least = acknowledged[key].load(Ordering::SeqCst).max(seen[key]);
                        let replies = if reader % 2 == 0 {
                            vec![client.cmd(&format!("GET v{key}"))]
                        } else {
                            client.pipeline(&pipeline_of(&vec![format!("GET v{key}"); 8]), 8)
                        };
                        for reply in replies {
                            let number = number_of(key, &reply);
                            assert!(
                                number >= least.max(seen[key]),
                                "reader {reader}, key {key}: {number} after {}",
                                least.max(seen[key])
                            );
                            seen[key] = number;
                        }
                    }
                }
            });
        }
        let _done = Done(&done);
        let writers: Vec<_> = (0..KEYS)
            .map(|key| {
                let (proxy, acknowledged) = (&proxy, &acknowledged);
                scope.spawn(move || {
                    let mut client = proxy.client();
                    let name = format!("v{key}");
                    let end = Instant::now() + Duration::from_secs(4);
                    let mut number = 0;
                    while Instant::now() < end {
                        number += 1;
                        let value = version(key, number);
                        match number % 5 {
                            // In the same pipeline it reads its own write.
                            0 => {
                                let bytes = [
                                    common::filled("SET $1 $2", &[name.as_bytes(), &value]),
                                    pipeline_of(&[format!("GET {name}")]),
                                ]
                                .concat();
                                let replies = client.pipeline(&bytes, 2);
                                assert!(number_of(key, &replies[1]) == number, "its own write, pipelined");
                            }
                            1 => drop(client.fill("MSET $1 $2", &[name.as_bytes(), &value])),
                            _ => drop(client.fill("SET $1 $2", &[name.as_bytes(), &value])),
                        }
                        acknowledged[key].store(number, Ordering::SeqCst);
                        for _ in 0..number % 40 {
                            assert_eq!(number_of(key, &client.cmd(&format!("GET {name}"))), number, "its own write");
                        }
                    }
                    number
                })
            })
            .collect();
        let written: u64 = writers.into_iter().map(|writer| writer.join().expect("a writer")).sum();
        assert!(written > 100, "only {written} versions were written");
    });
    for counter in ["l1_hits", "fills", "fills_poisoned"] {
        assert!(proxy.stat(counter) > 0, "{counter} stayed 0: the run did not test it");
    }
}

#[test]
fn every_read_is_a_prefix_of_the_appended_value() {
    const WRITERS: usize = 4;
    const EACH: usize = 150;
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "defaults:\n  cache: { admit_after: 1 }\n  compress: false\n");
    proxy.wait_mode("single");
    let done = AtomicBool::new(false);
    let chains: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (proxy, done) = (&proxy, &done);
                scope.spawn(move || {
                    let mut client = proxy.client();
                    let mut longest = Vec::new();
                    while !done.load(Ordering::Relaxed) {
                        let reply = client.cmd("GET chain");
                        if reply == b"$-1\r\n" {
                            assert!(longest.is_empty(), "it was there and is gone");
                            continue;
                        }
                        let head = reply.windows(2).position(|pair| pair == b"\r\n").expect("a bulk string") + 2;
                        let value = reply[head..reply.len() - 2].to_vec();
                        assert!(value.starts_with(&longest), "a value that went back or aside");
                        longest = value;
                    }
                    longest
                })
            })
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let proxy = &proxy;
                scope.spawn(move || {
                    let mut client = proxy.client();
                    for i in 0..EACH {
                        let item = format!("{writer}.{i},");
                        client.cmd(&format!("APPEND chain {item}"));
                        let read = client.cmd("GET chain");
                        assert!(String::from_utf8_lossy(&read).contains(&item), "its own {item} is missing");
                    }
                })
            })
            .collect();
        let all_done = Done(&done);
        writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
        drop(all_done);
        readers.into_iter().map(|reader| reader.join().expect("a reader")).collect()
    });
    let last = redis.client().cmd("GET chain");
    for chain in chains {
        assert!(last.windows(chain.len().max(1)).next().is_some(), "not longer than the last");
        let head = last.windows(2).position(|pair| pair == b"\r\n").expect("a bulk string") + 2;
        assert!(last[head..].starts_with(&chain), "each value read is a prefix of the last");
    }
    assert!(proxy.stat("fills") > 0, "a run without fills shows nothing");
}
