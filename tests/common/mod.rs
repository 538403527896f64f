//! The base of the integration tests: real servers on free loopback ports, Shortstop in this process or as a process of its own, a
//! raw RESP client, and a fault proxy.
//!
//! Everything here is blocking and uses Shortstop only through its sockets, flags and config file. No port is fixed, and every
//! process that is started is killed, by pid, on drop.
#![allow(dead_code, unused_imports, reason = "every test binary compiles its own copy and uses a part of it")]

mod certificates;
mod client;
mod fault;
mod nats;
mod process;
mod servers;
mod shortstop;

pub use certificates::{Authority, Connector, Issued};
pub use client::{Client, bulk, command, filled, pipeline_of, show};
pub use fault::{Fault, Way};
pub use nats::NatsClient;
pub use process::{Process, run};
pub use servers::{Nats, Redis, free_address, misses_a_certificate, signal};
pub use shortstop::Shortstop;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// On drop, even during a panic, signals the threads of a scope to end. Otherwise they would keep the scope, and so the test, from
/// ending.
pub struct Done<'a>(pub &'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The Python interpreter with redis-py.
#[track_caller]
pub fn python() -> std::path::PathBuf {
    let root = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let named = std::env::var_os("SHORTSTOP_TEST_PYTHON").map(std::path::PathBuf::from);
    let python = named.unwrap_or_else(|| root.join("target/venv/bin/python"));
    assert!(python.exists(), "{} is missing: `make test` sets it up, with redis-py in it", python.display());
    python
}

/// Reports that a test, or a part of one, is skipped, and why. Bypasses the test harness, which hides the output of passing tests.
pub fn skipped(why: &str) {
    // Fails only if there is no standard error.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Whether there is such a program. For those that the tests can do without.
pub fn has_program(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()))
}

/// The longest time that any single event may take. Far above what a loaded machine needs, so that only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Calls `done` repeatedly until it returns true. Panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, done: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, done);
}

/// [`wait_until`] with another timeout.
#[track_caller]
pub fn wait_within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Panics unless `got` is `expected`, and shows both in readable form.
#[track_caller]
pub fn assert_reply(got: &[u8], expected: impl AsRef<[u8]>, context: &str) {
    let expected = expected.as_ref();
    assert!(got == expected, "{context}\n       got {}\n  expected {}", show(got), show(expected));
}

/// Panics unless `got` is one of Shortstop's own errors.
#[track_caller]
pub fn assert_our_error(got: &[u8], context: &str) {
    assert!(got.starts_with(b"-ERR shortstop: "), "{context}: expected an error of Shortstop's own, got {}", show(got));
}

/// The value of `name:value` in a text in the format of INFO.
pub fn field(info: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(info);
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(|value| value.trim_end().to_owned())
}

/// A field of a reply in RESP2 that is an array of names and values, as text. The first one of that name.
#[track_caller]
pub fn said(reply: &[u8], name: &str) -> String {
    let text = String::from_utf8_lossy(reply);
    let rest = text.split_once(&format!("\r\n{name}\r\n")).unwrap_or_else(|| panic!("no {name}: {}", show(reply))).1;
    let mut lines = rest.split("\r\n");
    match lines.next().expect("a value") {
        "$-1" => "nil".to_owned(),
        first if first.starts_with('$') => lines.next().expect("a value").to_owned(),
        first => first.trim_start_matches(':').to_owned(),
    }
}

/// A number of `PROXY INFO`, requested over a connection of its own.
#[track_caller]
pub fn stat(proxy: SocketAddr, name: &str) -> u64 {
    let info = Client::connect(proxy).cmd("PROXY INFO");
    let value = field(&info, name).unwrap_or_else(|| panic!("PROXY INFO has no {name}: {}", show(&info)));
    value.parse().unwrap_or_else(|_| panic!("PROXY INFO: {name} is no whole number: {value}"))
}

/// Reads `key` until the reply came from L1, and returns that reply.
///
/// Admission, a mode that is not ready yet and a fill that was invalidated may each take a round. The caller need not know about
/// them.
#[track_caller]
pub fn warm(proxy: SocketAddr, client: &mut Client, key: &[u8]) -> Vec<u8> {
    warm_request(proxy, client, &[b"GET", key])
}

/// [`warm`] with any read in place of GET.
#[track_caller]
pub fn warm_request(proxy: SocketAddr, client: &mut Client, request: &[&[u8]]) -> Vec<u8> {
    let mut reply = Vec::new();
    wait_until(&format!("{} is served from L1", show(&request.join(&b' '))), || {
        let before = stat(proxy, "l1_hits");
        reply = client.call(request);
        stat(proxy, "l1_hits") > before
    });
    reply
}

/// Deterministic bytes that no compressor can make smaller.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        // xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators".
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        out.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    out.truncate(length);
    out
}

/// JSON-like text of exactly `length` bytes that compresses well.
pub fn prose(length: usize, seed: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 64);
    let mut row = seed;
    while out.len() < length {
        let line = format!("{{\"symbol\":\"BTCUSDT\",\"seed\":{seed},\"row\":{row},\"open\":\"64123.50\"}},");
        out.extend_from_slice(line.as_bytes());
        row += 1;
    }
    out.truncate(length);
    out
}
