//! An L1 hit allocates nothing.
//!
//! Counts every allocation of this process. Shortstop runs in the process with one worker, and the client below reads and writes
//! through preallocated buffers. This test is alone in its binary, so that nothing else runs meanwhile.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{Redis, Shortstop, bulk, command};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call is passed to `System` unchanged, with the same layout and pointer, so the guarantees of `System` and the
// duties of its callers also hold here. The counter is an atomic: it neither allocates nor unwinds.
#[expect(unsafe_code, reason = "the trait that makes allocations countable is an unsafe one")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's guarantee about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's guarantee about `layout` is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: `pointer` came from `System` with this `layout`, like all pointers of this allocator.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this `layout`, like all pointers of this allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const HITS_PER_ROUND: usize = 1_000;
const ROUNDS: usize = 10;

/// Allocations that the rest of the process may make during all rounds of 1,000 hits together. The polls of Redis run now and then
/// on other threads, and one poll needs some dozens; the small copies of L1 for the curve of hit rates need some hundreds every few seconds.
/// One allocation per hit would be 10,000.
const BACKGROUND: u64 = 2_000;

#[test]
fn a_hit_allocates_nothing() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "workers: 1\ndefaults: { cache: { reads: all } }\n");
    // One value in the worker's hot set, and one above its largest size: in the near cache only.
    let (small, large) = (common::noise(256, 1), common::noise(20_000, 1));
    for (what, write, read, expected) in [
        ("small", &[&b"SET"[..], b"small", &small] as &[&[u8]], &[&b"GET"[..], b"small"] as &[&[u8]], bulk(&small)),
        ("large", &[b"SET", b"large", &large], &[b"GET", b"large"], bulk(&large)),
        // Not of hashes: they are not kept on servers whose fields can expire.
        ("element", &[b"RPUSH", b"list", &small], &[b"LINDEX", b"list", b"0"], bulk(&small)),
        (
            "list",
            &[b"RPUSH", b"all", b"f", &large],
            &[b"LRANGE", b"all", b"0", b"-1"],
            [&b"*2\r\n$1\r\nf\r\n"[..], &bulk(&large)].concat(),
        ),
    ] {
        let mut client = proxy.client();
        client.call(write);
        common::warm_request(proxy.addr(), &mut client, read);
        drop(client);
        let mut stream = TcpStream::connect(proxy.addr()).expect("it listens");
        stream.set_nodelay(true).expect("the socket is open");
        stream.set_read_timeout(Some(common::PATIENCE)).expect("a limit above zero");
        for depth in [1, 16] {
            let request = command(read).repeat(depth);
            let expected = expected.repeat(depth);
            let mut answer = vec![0; expected.len()];
            let mut ask = |times: usize| {
                for _ in 0..times {
                    stream.write_all(&request).expect("it reads");
                    stream.read_exact(&mut answer).expect("it answers");
                    assert!(answer == expected, "the right value");
                }
            };
            // Buffers grow to their size, and lazy values are initialised.
            ask(HITS_PER_ROUND);
            let hits = proxy.stat("l1_hits");
            let mut per_round = [0; ROUNDS];
            for growth in &mut per_round {
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                ask(HITS_PER_ROUND / depth);
                *growth = ALLOCATIONS.load(Ordering::Relaxed) - before;
            }
            let asked = (ROUNDS * (HITS_PER_ROUND / depth) * depth) as u64;
            assert_eq!(proxy.stat("l1_hits"), hits + asked, "every one was a hit");
            let context = format!("{what}, pipeline {depth}: allocations in {ROUNDS} rounds: {per_round:?}");
            // Rounds in which nothing ran in the background show the hits alone.
            assert!(per_round.contains(&0), "{context}");
            assert!(per_round.iter().sum::<u64>() <= BACKGROUND, "{context}");
        }
    }
}
