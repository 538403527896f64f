//! If the log or standard output cannot be written, Shortstop still serves its clients and exits when told to. The rate of lines
//! that clients can cause is bounded.

mod common;

use std::fs::File;
use std::io::{Write, pipe};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use common::{Client, PATIENCE, Process, Redis, assert_reply, pipeline_of, run, signal, wait_until};

const BREAKABLE: &str = "enable_debug_command: true\n";

/// A request for which the client is closed, with a line in the log.
fn post(proxy: SocketAddr) {
    let mut browser = Client::connect(proxy);
    browser.send(b"POST / HTTP/1.1\r\n\r\n");
    assert_reply(&browser.until_closed(), "", "closed, as Redis would do");
}

/// Clients cause lines of all kinds, including panics. Others are served, and the shutdown works.
fn serves(mut proxy: Process, how: &str) {
    let mut other = proxy.client();
    for round in 0..5 {
        post(proxy.addr());
        let mut breaks = proxy.client();
        breaks.send(&pipeline_of(&["PROXY DEBUG PANIC"]));
        breaks.until_closed();
        assert_reply(&other.cmd(&format!("SET k {round}")), "+OK\r\n", how);
        assert_reply(&other.cmd("GET k"), format!("$1\r\n{round}\r\n"), how);
    }
    wait_until("the panics are counted", || proxy.stat("panics") == 5);
    assert!(proxy.is_running(), "{how}");
    proxy.signal("TERM");
    assert_eq!(proxy.wait_exit(PATIENCE).code(), Some(0), "{how}");
}

#[test]
fn a_log_whose_reader_is_gone_ends_nothing() {
    let redis = Redis::start();
    let (reader, writer) = pipe().expect("a pipe");
    let proxy = Process::start_logging_to(writer, redis.addr(), BREAKABLE);
    drop(reader);
    post(proxy.addr());
    wait_until("lines are dropped, and counted", || proxy.stat("log_lines_dropped") > 0);
    serves(proxy, "the reader is gone");
}

#[test]
fn a_log_on_a_full_disk_ends_nothing() {
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        eprintln!("skipped: this system has no /dev/full");
        return;
    };
    let redis = Redis::start();
    let proxy = Process::start_logging_to(full, redis.addr(), BREAKABLE);
    wait_until("lines are dropped, and counted", || proxy.stat("log_lines_dropped") > 0);
    serves(proxy, "the disk is full");
}

#[test]
fn an_unread_log_holds_no_client_up() {
    let redis = Redis::start();
    let (reader, mut writer) = pipe().expect("a pipe");
    // As much as a pipe accepts at most; on Linux that is everything.
    writer.write_all(&[b'x'; 64 << 10]).expect("there is room");
    let proxy = Process::start_logging_to(writer, redis.addr(), BREAKABLE);
    serves(proxy, "nobody reads");
    drop(reader);
}

#[test]
fn the_last_lines_are_written() {
    let redis = Redis::start();
    let mut proxy = Process::start(redis.addr(), "");
    proxy.signal("TERM");
    assert_eq!(proxy.wait_exit(PATIENCE).code(), Some(0));
    wait_until("the last line is there", || proxy.log().contains("shutting down"));
}

#[test]
fn a_panic_is_in_the_log() {
    let redis = Redis::start();
    for (format, begins) in [("text", "ERROR thread 'shortstop-worker-"), ("json", "{\"fields\":{\"message\":\"thread")]
    {
        let proxy = Process::start(redis.addr(), &format!("{BREAKABLE}log: {{ format: {format} }}\n"));
        let mut breaks = proxy.client();
        breaks.send(&pipeline_of(&["PROXY DEBUG PANIC"]));
        breaks.until_closed();
        wait_until("where, and what of", || {
            let log = proxy.log();
            log.lines().any(|line| line.starts_with(begins) && line.contains("PROXY DEBUG PANIC was asked for"))
                && log.contains("serving a client panicked")
        });
    }
}

#[test]
fn lines_that_clients_cause_are_bounded_and_counted() {
    const CLIENTS: usize = 300;
    let redis = Redis::start();
    let proxy = Process::start(redis.addr(), "");
    for _ in 0..CLIENTS {
        post(proxy.addr());
    }
    let logged = |log: &str| log.matches("a client is closed, as Redis would do client=").count();
    let left_out = |log: &str| -> usize {
        let lines = log.lines().filter(|line| line.contains("more lines of this kind were suppressed"));
        let counts = lines.filter_map(|line| line.split("lines=").nth(1)?.split(' ').next()?.parse::<usize>().ok());
        counts.sum()
    };
    wait_until("each is in the log, or counted there", || {
        let log = proxy.log();
        logged(&log) + left_out(&log) == CLIENTS
    });
    assert!(left_out(&proxy.log()) > 0, "bounded: {}", proxy.log());
}

/// A standard output that accepts nothing.
fn unwritable() -> Vec<(&'static str, Stdio)> {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    let full = File::options().write(true).open("/dev/full").ok();
    full.map(|full| ("full", full.into())).into_iter().chain([("closed", writer.into())]).collect()
}

#[test]
fn a_standard_output_that_cannot_be_written_causes_no_panic() {
    let directory = tempfile::tempdir().expect("a directory");
    for flag in ["--help", "--version", "--check-config"] {
        for (how, stdout) in unwritable() {
            let mut command = Command::new(env!("CARGO_BIN_EXE_shortstop"));
            let child = command.arg(flag).current_dir(directory.path()).stdout(stdout).stderr(Stdio::piped());
            let mut child = child.spawn().expect("it was built");
            let mut status = None;
            wait_until(&format!("{flag} ends"), || {
                status = child.try_wait().expect("a child of ours");
                status.is_some()
            });
            assert_eq!(status.and_then(|status| status.code()), Some(0), "{flag}, {how}");
        }
    }
    // An error goes to standard error, which may be closed.
    let mut wrong = Command::new("sh");
    wrong.arg("-c").arg(format!("{} --listen nowhere 2>/dev/full", env!("CARGO_BIN_EXE_shortstop")));
    assert_eq!(run(&mut wrong, PATIENCE).status.code(), Some(2));
}

#[test]
fn the_start_does_not_need_a_standard_output() {
    let redis = Redis::start();
    for (how, stdout) in unwritable() {
        // The port cannot be printed, so it is chosen here.
        let address = {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.local_addr().expect("it is bound")
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_shortstop"));
        command.args(["--listen", &address.to_string(), "--upstream", &redis.url(), "--nats", ""]);
        let mut child = command.stdout(stdout).stderr(Stdio::null()).spawn().expect("it was built");
        wait_until("it serves", || {
            assert!(child.try_wait().expect("a child of ours").is_none(), "{how}: it has ended");
            Client::try_connect(address).is_ok_and(|mut client| client.cmd("PING") == b"+PONG\r\n")
        });
        // It did not exit meanwhile, nor does it now with a panic.
        signal(child.id(), "TERM");
        let mut status = None;
        wait_until("it ends", || {
            status = child.try_wait().expect("a child of ours");
            status.is_some()
        });
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{how}");
    }
}
