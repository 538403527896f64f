//! While a script or function runs for too long, Redis answers few commands. Commands that end it must get through, for every user.

mod common;

use std::time::{Duration, Instant};

use common::{Client, Redis, Shortstop, assert_reply, pipeline_of, show, wait_until};

/// Users, and how a client logs in as one. The second may only end what runs.
const LOGINS: &[&[&str]] = &[&[], &["AUTH free pw"], &["AUTH narrow pw"]];

/// A Redis that reports busy as early as possible.
fn impatient() -> Redis {
    let redis = Redis::start();
    let mut direct = redis.client();
    for line in [
        "CONFIG SET lua-time-limit 1",
        "ACL SETUSER free on >pw ~* +@all",
        "ACL SETUSER narrow on >pw +script|kill +function|kill +function|stats +select",
    ] {
        assert_reply(&direct.cmd(line), "+OK\r\n", line);
    }
    redis
}

fn wait_busy(redis: &Redis) {
    wait_until("Redis is busy", || redis.client().cmd("PING").starts_with(b"-BUSY "));
}

fn never_ends(client: &mut Client) {
    client.send(&common::command(&[b"EVAL", b"while true do end", b"0"]));
}

#[test]
fn a_script_is_killed_by_every_user_in_every_database() {
    let redis = impatient();
    let proxy = Shortstop::start(&redis, "");
    for through in [false, true] {
        for login in LOGINS {
            for db in [0, 3] {
                for comes_late in [false, true] {
                    let what = format!("{login:?} in {db}, late: {comes_late}, through the proxy: {through}");
                    let mut runner = if through { proxy.client() } else { redis.client() };
                    assert_reply(&runner.cmd("PING"), "+PONG\r\n", &what);
                    let mut killer = proxy.client();
                    if comes_late && db == 0 {
                        never_ends(&mut runner);
                        wait_busy(&redis);
                    }
                    login.iter().for_each(|line| assert_reply(&killer.cmd(line), "+OK\r\n", &what));
                    if db > 0 {
                        assert_reply(&killer.cmd(&format!("SELECT {db}")), "+OK\r\n", &what);
                    }
                    if !(comes_late && db == 0) {
                        never_ends(&mut runner);
                        wait_busy(&redis);
                    }
                    assert_reply(&killer.cmd("SCRIPT KILL"), "+OK\r\n", &what);
                    let ended = runner.reply();
                    assert!(
                        String::from_utf8_lossy(&ended).contains("Script killed by user"),
                        "{what}: {}",
                        show(&ended)
                    );
                    let nothing = killer.cmd("SCRIPT KILL");
                    assert!(nothing.starts_with(b"-NOTBUSY"), "{what}: {}", show(&nothing));
                }
            }
        }
    }
}

#[test]
fn a_function_can_be_inspected_and_killed() {
    let redis = impatient();
    if !redis.knows("function") {
        return;
    }
    let code = "#!lua name=l\nredis.register_function{function_name='f', callback=function() while true do end end}";
    let loaded = redis.client().call(&[b"FUNCTION", b"LOAD", code.as_bytes()]);
    assert_reply(&loaded, "$1\r\nl\r\n", "loaded");
    let proxy = Shortstop::start(&redis, "");
    for login in LOGINS {
        let (mut runner, mut killer) = (proxy.client(), proxy.client());
        login.iter().for_each(|line| assert_reply(&killer.cmd(line), "+OK\r\n", line));
        assert_reply(&killer.cmd("SELECT 5"), "+OK\r\n", "another database");
        runner.send(&pipeline_of(&["FCALL f 0"]));
        wait_busy(&redis);
        let stats = killer.cmd("FUNCTION STATS");
        assert!(String::from_utf8_lossy(&stats).contains("duration_ms"), "{}", show(&stats));
        assert_reply(&killer.cmd("FUNCTION KILL"), "+OK\r\n", "killed");
        assert!(runner.reply().starts_with(b"-ERR "), "it has ended");
    }
}

/// A connection for which Redis has not selected the database must not be used in another one.
#[test]
fn commands_that_need_a_database_are_refused_while_redis_is_busy() {
    let redis = impatient();
    // Valkey from 9.1 accepts SELECT and WATCH while it is busy, so a private connection can be opened.
    let takes_select = show(&redis.client().cmd("COMMAND INFO SELECT")).contains("allow_busy");
    let proxy = Shortstop::start(&redis, "workers: 1");
    let (mut runner, mut client, mut late) = (redis.client(), proxy.client(), proxy.client());
    let mut waiters = [proxy.client(), proxy.client()];
    let [first, second] = &mut waiters;
    for client in [&mut client, &mut late, first, second] {
        assert_reply(&client.cmd("SELECT 4"), "+OK\r\n", "another database");
    }
    never_ends(&mut runner);
    wait_busy(&redis);
    for line in ["GET k", "SET k v"] {
        let got = client.cmd(line);
        assert!(got.starts_with(b"-BUSY "), "{line}: {}", show(&got));
    }
    // Without a private connection, commands behind WATCH are not executed: the client is closed.
    for (line, waiter) in ["WATCH k", "BLPOP l 1"].iter().zip(&mut waiters) {
        waiter.send(&pipeline_of(&[line]));
        let got = waiter.reply();
        let is_taken = takes_select && *line == "WATCH k" && got == b"+OK\r\n";
        assert!(is_taken || got.starts_with(b"-BUSY "), "{line}: {}", show(&got));
    }
    assert_reply(&late.cmd("SCRIPT KILL"), "+OK\r\n", "killed");
    runner.reply();
    wait_until("it goes on", || client.cmd("SET k v") == b"+OK\r\n");
    let got = client.pipeline(&pipeline_of(&["MULTI", "SET k w", "EXEC"]), 3).concat();
    assert_reply(&got, "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n", "a transaction");
    assert_reply(
        &redis.client().pipeline(&pipeline_of(&["SELECT 4", "GET k"]), 2)[1],
        "$1\r\nw\r\n",
        "in its database",
    );
    assert_reply(&redis.client().cmd("GET k"), "$-1\r\n", "and in no other");
}

/// Client libraries send several commands before their user's first command.
#[test]
fn commands_at_connect_do_not_wait_for_the_script() {
    let redis = impatient();
    let proxy = Shortstop::start(&redis, "workers: 1");
    for line in [
        "PING",
        "HELLO 3",
        "CLIENT SETINFO LIB-NAME x",
        "CLIENT SETNAME n",
        "CLIENT ID",
        "INFO server",
        "GET k",
        "SET k v",
    ] {
        let mut runner = proxy.client();
        assert_reply(&runner.cmd("PING"), "+PONG\r\n", "it shares a connection with the others");
        never_ends(&mut runner);
        wait_busy(&redis);
        // Before that a script counts as one that ends soon.
        let start = Instant::now();
        wait_until("the script runs for long", || start.elapsed() > Duration::from_millis(150));
        let mut killer = proxy.client();
        let first = killer.cmd(line);
        assert!(first.first().is_some_and(|first| b"+-:%$".contains(first)), "{line}: {}", show(&first));
        assert_reply(&killer.cmd("SCRIPT KILL"), "+OK\r\n", line);
        assert!(show(&runner.reply()).contains("Script killed by user"), "{line}");
        assert_reply(&runner.cmd("SET k v"), "+OK\r\n", "it goes on");
    }
}

#[test]
fn a_busy_server_is_shut_down() {
    let redis = impatient();
    let proxy = Shortstop::start(&redis, "");
    let (mut runner, mut client) = (redis.client(), proxy.client());
    assert_reply(&client.cmd("SELECT 2"), "+OK\r\n", "another database");
    never_ends(&mut runner);
    wait_busy(&redis);
    client.send(&pipeline_of(&["SHUTDOWN NOSAVE"]));
    wait_until("it is gone", || Client::try_connect(redis.addr()).is_err());
    assert_reply(&client.until_closed(), "", "the client is closed without a word, as by Redis");
}
