//! Connections on which Redis stops answering request by request: its Lua debugger talks with the client, and the session only
//! passes bytes on. Whatever happens to the client, Redis stays usable and L1 stays coherent.
//!
//! `differential.rs` compares the debugger's output. These tests are about how such a connection ends.

mod common;

use std::time::Duration;

use common::{Client, Process, Redis, Shortstop, assert_reply, command, pipeline_of, wait_until};

const EAGER: &str = "defaults:\n  cache: { admit_after: 1 }\n";

const STOPPED: &str = "stop reason = step over";

/// A debugger stopped before the first line of the script.
fn stopped(mut client: Client, mode: &str, script: &str) -> Client {
    assert_reply(&client.cmd(&format!("SCRIPT DEBUG {mode}")), "+OK\r\n", "agreed");
    let said = client.call(&[b"EVAL", script.as_bytes(), b"0"]);
    assert!(String::from_utf8_lossy(&said).contains(STOPPED), "{}", common::show(&said));
    client
}

#[test]
fn l1_stays_coherent_when_a_client_leaves_the_debugger() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut other = proxy.client();
    for round in 0..5 {
        other.cmd("SET k old");
        assert_reply(&proxy.warm(&mut other, "k"), "$3\r\nold\r\n", "in L1");
        let script = format!("redis.call('SET', 'k', 'new{round}') return 1");
        drop(stopped(proxy.client(), "SYNC", &script));
        // Redis runs the script to its end if the client is gone.
        wait_until("what the script wrote is read", || {
            other.cmd("GET k") == format!("$4\r\nnew{round}\r\n").as_bytes()
        });
        assert_reply(&other.cmd("GET k"), format!("$4\r\nnew{round}\r\n"), "and stays");
    }
}

#[test]
fn a_client_that_leaves_before_the_debugger_speaks_frees_redis() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut other = proxy.client();
    for round in 0..20 {
        let mut client = proxy.client();
        assert_reply(&client.cmd("SCRIPT DEBUG SYNC"), "+OK\r\n", "agreed");
        client.send(&command(&[b"EVAL", format!("redis.call('SET', 'k', {round}) return 1").as_bytes(), b"0"]));
        drop(client);
        wait_until("the script has run", || {
            other.cmd("GET k") == format!("${}\r\n{round}\r\n", round.to_string().len()).as_bytes()
        });
    }
}

#[test]
fn a_debugger_session_leaves_no_connection_behind() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    proxy.client().cmd("SET k v");
    wait_until("all are there", || redis.connections() >= 3);
    let before = (redis.connections(), proxy.stat("proxy_sessions"));
    for mode in ["YES", "SYNC"].repeat(5) {
        let mut client = stopped(proxy.client(), mode, "return 1");
        client.send(&pipeline_of(&["continue"]));
        assert_reply(&client.until_closed(), "*1\r\n+<endsession>\r\n:1\r\n", "to its end");
        // Left in the middle.
        drop(stopped(proxy.client(), mode, "return 1"));
    }
    // Shortstop's own connections may have appeared meanwhile. A leak would leave ten.
    wait_until("nothing is left", || redis.connections() <= before.0 + 5 && proxy.stat("proxy_sessions") <= before.1);
    assert_eq!(proxy.stat("writes_unknown"), 0, "every end was seen");
}

#[test]
fn a_client_that_half_closes_still_gets_the_rest() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let [through, direct] = [proxy.client(), redis.client()].map(|client| {
        let mut client = stopped(client, "SYNC", "redis.debug('x') return 7");
        client.half_close();
        client.until_closed()
    });
    assert!(direct.ends_with(b"+<endsession>\r\n:7\r\n"), "{}", common::show(&direct));
    assert_reply(&through, direct, "the rest");
}

#[test]
fn a_debugger_client_that_does_not_read_is_bounded_and_dropped() {
    let redis = Redis::start();
    let yaml = "limits: { output_buffer: 4mb, stall_timeout: 500ms }\n";
    let proxy = Process::start(redis.addr(), yaml);
    let mut other = proxy.client();
    let script = "for i = 1, 400 do redis.debug(string.rep('x', 100000)) end return 1";
    let mut client = stopped(proxy.client(), "SYNC", script);
    let before = proxy.resident_bytes();
    client.send(&pipeline_of(&["continue"]));
    let mut most = 0;
    wait_until("it is dropped", || {
        most = most.max(proxy.resident_bytes().unwrap_or(0));
        proxy.stat("proxy_clients_dropped") == 1
    });
    if let Some(before) = before {
        let grown = most.saturating_sub(before);
        assert!(grown < 16 << 20, "grew by {} MB for a client that does not read", grown >> 20);
    }
    wait_until("Redis is free", || other.cmd("PING") == b"+PONG\r\n");
}

#[test]
fn a_slow_debugger_client_gets_everything() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "limits: { output_buffer: 1mb }\n");
    let mut client =
        stopped(proxy.client(), "YES", "for i = 1, 50000 do redis.debug(string.rep('x', 200)) end return 1");
    client.send(&pipeline_of(&["continue"]));
    // Longer than it takes to fill every buffer on the path; less than Redis waits for its client (5 s).
    std::thread::sleep(Duration::from_millis(300));
    let all = client.until_closed();
    assert!(all.starts_with(b"*50001\r\n"), "{}", common::show(&all));
    assert_eq!(all.iter().filter(|byte| **byte == b'\n').count(), 1 + 50_001 + 1, "all lines, and the reply");
    assert!(all.ends_with(b"+<endsession>\r\n:1\r\n"), "to the end");
}

#[test]
fn a_silent_debugger_client_is_dropped_like_any_idle_client() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "limits: { idle_timeout: 300ms }\n");
    let mut client = stopped(proxy.client(), "SYNC", "return 1");
    assert_reply(&client.until_closed(), "", "dropped");
    assert_reply(&proxy.client().cmd("PING"), "+PONG\r\n", "Redis is free");
}

#[test]
fn an_open_debugger_does_not_delay_the_shutdown() {
    let redis = Redis::start();
    let mut proxy = Process::start(redis.addr(), "timeouts: { shutdown: 10m }\n");
    let mut client = stopped(proxy.client(), "SYNC", "redis.call('SET', 'k', 'v') return 1");
    proxy.signal("TERM");
    client.until_closed();
    assert_eq!(proxy.wait_exit(common::PATIENCE).code(), Some(0), "{}", proxy.log());
    assert_reply(&redis.client().cmd("GET k"), "$1\r\nv\r\n", "the script ran to its end");
}

#[test]
fn a_debugger_can_be_killed() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    let id = String::from_utf8_lossy(&client.cmd("CLIENT ID")).trim_matches([':', '\r', '\n']).to_owned();
    let mut client = stopped(client, "YES", "return 1");
    assert_reply(&proxy.client().cmd(&format!("CLIENT KILL ID {id}")), ":1\r\n", "killed");
    assert_reply(&client.until_closed(), "", "gone");
}

#[test]
fn the_debugger_ends_when_redis_dies() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = stopped(proxy.client(), "SYNC", "return 1");
    drop(redis);
    assert_reply(&client.until_closed(), "", "gone");
}

#[test]
fn commands_that_could_start_the_debugger_unnoticed_are_refused() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    client.cmd("SCRIPT DEBUG SYNC");
    common::assert_our_error(&client.cmd("NOSUCH x"), "a name that nobody knows");
    client.cmd("MULTI");
    common::assert_our_error(&client.call(&[b"EVAL", b"return 1", b"0"]), "in a transaction");
    assert!(client.cmd("EXEC").starts_with(b"-EXECABORT"), "which is spoilt");
    client.cmd("SCRIPT DEBUG NO");
    assert_reply(&client.cmd("NOSUCH x"), redis.client().cmd("NOSUCH x"), "as usual again");
    assert_reply(&client.call(&[b"EVAL", b"return 1", b"0"]), ":1\r\n", "as usual again");
}
