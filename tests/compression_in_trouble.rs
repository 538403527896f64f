//! Commands on compressed strings when rights are missing, clients leave, memory is short, or a transaction is unusual: what Redis would
//! do happens once, or not at all.

mod common;

use common::{Client, Redis, Shortstop, assert_reply, pipeline_of, prose, show, wait_until};

const EAGER: &str = "workers: 1\nplain_for: 0s\ndefaults: { compress: { min_size: 1b, min_saving: 1% } }\n";

fn value() -> Vec<u8> {
    prose(3_000, 7)
}

/// A client for which Shortstop knows the rights of users.
fn client(proxy: &Shortstop) -> Client {
    let mut client = proxy.client();
    wait_until("Shortstop knows the rights of users", || {
        client.call(&[b"SET", b"probe", &value()]);
        client.cmd("EVAL return(redis.call('STRLEN',KEYS[1])) 1 probe") == b":3000\r\n"
    });
    client.cmd("DEL probe");
    client
}

#[test]
fn a_transaction_that_is_too_long_to_be_sent_again_is_refused_as_a_whole() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &format!("{EAGER}limits: {{ query_buffer: 1mb }}\n"));
    let mut client = proxy.client();
    client.call(&[b"SET", b"k", &value()]);
    client.cmd("MULTI");
    let large = common::noise(300_000, 1);
    for _ in 0..5 {
        client.call(&[b"SET", b"other", &large]);
    }
    assert_reply(&client.cmd("APPEND k x"), "+QUEUED\r\n", "queued");
    assert!(client.cmd("EXEC").starts_with(b"-ERR shortstop: this transaction is longer"));
    assert_reply(&client.cmd("STRLEN k"), ":3000\r\n", "not executed");
    assert_reply(&client.cmd("EXISTS other"), ":0\r\n", "no part of it");
    assert_reply(&client.pipeline(&pipeline_of(&["MULTI", "APPEND k x", "EXEC"]), 3)[2], "*1\r\n:3001\r\n", "the next");
}

#[test]
fn a_transaction_is_executed_though_its_client_has_gone() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    for round in 0..20 {
        let key = format!("k{round}");
        proxy.client().call(&[b"SET", key.as_bytes(), &value()]);
        let mut client = proxy.client();
        client.send(&pipeline_of(&["MULTI", &format!("APPEND {key} x"), "EXEC"]));
        drop(client);
        wait_until("it is executed", || redis.client().cmd(&format!("STRLEN {key}")) == b":3001\r\n");
    }
}

#[test]
fn a_command_that_redis_refused_aborts_the_transaction_also_when_it_is_sent_again() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = proxy.client();
    client.call(&[b"SET", b"k", &value()]);
    let mut direct = redis.client();
    client.cmd("MULTI");
    direct.cmd("CONFIG SET maxmemory 1");
    assert!(client.cmd("SET other 1").starts_with(b"-OOM"));
    direct.cmd("CONFIG SET maxmemory 0");
    client.cmd("STRLEN k");
    client.cmd("APPEND k x");
    assert!(client.cmd("EXEC").starts_with(b"-EXECABORT"));
    assert_reply(&client.cmd("STRLEN k"), ":3000\r\n", "not executed");
}

#[test]
fn a_conversion_above_maxmemory_is_redis_own_error() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = client(&proxy);
    client.call(&[b"SET", b"k", &value()]);
    let mut direct = redis.client();
    direct.cmd("CONFIG SET maxmemory 1");
    for line in ["APPEND k x", "EVAL return(redis.call('STRLEN',KEYS[1])) 1 k"] {
        let reply = client.cmd(line);
        assert!(reply.starts_with(b"-OOM command not allowed"), "{line}: {}", show(&reply));
    }
    assert_reply(&client.cmd("STRLEN k"), ":3000\r\n", "a read needs no memory");
    direct.cmd("CONFIG SET maxmemory 0");
    assert_reply(&client.cmd("APPEND k x"), ":3001\r\n", "later");
}

#[test]
fn shortstops_own_user_without_rights_is_named_and_nothing_is_guessed() {
    let redis = Redis::start();
    let mut direct = redis.client();
    Shortstop::start(&redis, EAGER).client().call(&[b"SET", b"k", &value()]);
    direct.cmd("ACL SETUSER own on >pw ~* &* +@all -getrange");
    direct.cmd("ACL SETUSER other on >pw ~* &* +@all");
    direct.call(&[
        b"FUNCTION",
        b"LOAD",
        b"#!lua name=lib\nredis.register_function('len', function(keys) \
        return redis.call('STRLEN', keys[1]) end)",
    ]);
    let proxy = Shortstop::start(&redis, &format!("upstream: redis://own:pw@{}\n{EAGER}", redis.addr()));
    let mut client = proxy.client();
    client.cmd("AUTH other pw");
    let mut lines = vec!["APPEND k x"];
    if redis.knows("fcall") {
        lines.push("FCALL len 1 k");
    }
    for line in lines {
        let reply = client.cmd(line);
        assert!(
            reply.starts_with(b"-ERR shortstop: the value may be compressed, and Redis refuses"),
            "{line}: {}",
            show(&reply)
        );
    }
}

#[test]
fn a_user_without_the_right_to_a_transaction_runs_nothing_unwatched() {
    let redis = Redis::start();
    if !redis.knows("fcall") {
        return;
    }
    let mut direct = redis.client();
    direct.cmd("ACL SETUSER few on >pw ~* &* +@all -multi");
    direct.call(&[
        b"FUNCTION",
        b"LOAD",
        b"#!lua name=lib\nredis.register_function('add', function(keys) \
        return redis.call('APPEND', keys[1], 'x') end)",
    ]);
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = proxy.client();
    client.cmd("AUTH few pw");
    client.cmd("SET k 1");
    let reply = client.cmd("FCALL add 1 k");
    assert!(reply.starts_with(b"-NOPERM") && show(&reply).contains("multi"), "{}", show(&reply));
    assert_reply(&client.cmd("GET k"), "$1\r\n1\r\n", "it has not run");
}

#[test]
fn a_transaction_that_unsubscribes_or_asks_for_replies_goes_on() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = proxy.client().speaking(3);
    client.call(&[b"SET", b"k", &value()]);
    for length in 3_001..3_004 {
        let replies = client.pipeline(&pipeline_of(&["MULTI", "APPEND k x", "EXEC"]), 3);
        assert_reply(&replies[2], format!("*1\r\n:{length}\r\n"), "as before");
        client.send(&pipeline_of(&["MULTI", "UNSUBSCRIBE", "INCR n", "EXEC", "PING"]));
        let mut all = Vec::new();
        while !all.ends_with(b"+PONG\r\n") {
            all.extend(client.reply());
        }
    }
    client.send(&pipeline_of(&["MULTI", "UNSUBSCRIBE", "APPEND k x", "EXEC", "PING"]));
    let mut all = Vec::new();
    while !all.ends_with(b"+PONG\r\n") {
        all.extend(client.reply());
    }
    assert!(show(&all).contains(":3004"), "{}", show(&all));
    assert_reply(
        &client.pipeline(&pipeline_of(&["MULTI", "APPEND k x", "EXEC"]), 3)[2],
        "*1\r\n:3005\r\n",
        "as before",
    );
    client.send(&pipeline_of(&["CLIENT REPLY OFF", "MULTI", "APPEND k x", "CLIENT REPLY ON", "EXEC", "PING"]));
    let mut all = Vec::new();
    while !all.ends_with(b"+PONG\r\n") {
        all.extend(client.reply());
    }
    assert_reply(&client.cmd("STRLEN k"), ":3006\r\n", "executed");
}

#[test]
fn a_command_that_fails_leaves_a_compressed_value_as_it_is() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, EAGER);
    let mut through = client(&proxy);
    let mut direct = reference.client();
    for line in ["BITOP NOT d a b", "BITOP AND d l", "SETRANGE d -1 x", "BITFIELD d SET u8 x 1", "BITFIELD d GET u60 x"]
    {
        let [expected, got] = [&mut direct, &mut through].map(|client| {
            client.call(&[b"SET", b"d", &value()]);
            client.pipeline(&pipeline_of(&["DEL l", "RPUSH l x", line, "STRLEN d", "GET d"]), 5).concat()
        });
        assert_reply(&got, &expected, line);
    }
}

#[test]
fn values_that_move_within_a_transaction_are_plain_there() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, EAGER);
    let mut through = client(&proxy);
    let mut direct = reference.client();
    for lines in [
        ["RENAME x y", "APPEND y tail", "GET y"],
        ["COPY x y", "SETRANGE y 1500 q", "GET y"],
        ["COPY x y", "EVAL return(#redis.call('GET',KEYS[1])) 1 y", "GET y"],
        ["RENAMENX x y", "BITPOS y 1", "GET y"],
    ] {
        let all = [&["DEL y", "MULTI"][..], &lines, &["EXEC", "GET y"]].concat();
        let [expected, got] = [&mut direct, &mut through].map(|client| {
            client.call(&[b"SET", b"x", &value()]);
            client.pipeline(&pipeline_of(&all), all.len()).concat()
        });
        assert_reply(&got, &expected, &format!("{lines:?}"));
    }
    through.call(&[b"SET", b"x", &value()]);
    let replies = through.pipeline(&pipeline_of(&["MULTI", "SWAPDB 0 3", "APPEND x tail", "EXEC", "STRLEN x"]), 5);
    assert!(replies[3].starts_with(b"-ERR shortstop: this transaction brings values"), "{}", show(&replies.concat()));
    assert_reply(&replies[4], ":3000\r\n", "not executed");
}

#[test]
fn a_script_whose_error_looks_like_one_of_redis_runs_once() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = client(&proxy);
    for (number, error) in
        ["NOPERM no 'evalsha'", "NOSCRIPT x", "ERR Error compiling script x", "SHORTSTOP.COMPRESSED x"]
            .iter()
            .enumerate()
    {
        let script =
            format!("redis.call('INCR', KEYS[1]) redis.call('GET', KEYS[2]) return redis.error_reply([[{error}]])");
        let key = format!("n{number}");
        let reply = client.call(&[b"EVAL", script.as_bytes(), b"2", key.as_bytes(), b"k"]);
        assert_reply(&reply, format!("-{error}\r\n"), error);
        assert_reply(&client.cmd(&format!("GET {key}")), "$1\r\n1\r\n", error);
    }
}

#[test]
fn texts_that_many_clients_send_at_once_run_once_each() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut first = client(&proxy);
    first.cmd("DEL n");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let mut client = proxy.client();
            scope.spawn(move || {
                for number in 0..40 {
                    let script = format!("local n = {number} return redis.call('APPEND', KEYS[1], 'x')");
                    let reply = client.call(&[b"EVAL", script.as_bytes(), b"1", b"n"]);
                    assert!(reply.starts_with(b":"), "{}", show(&reply));
                }
            });
        }
    });
    assert_reply(&first.cmd("STRLEN n"), ":320\r\n", "each once");
}
