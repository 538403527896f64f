//! Redis closes a connection whose input exceeds a limit. That must not happen to a shared connection, because other clients'
//! requests would be lost.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use shortstop::codec::MARK;

use common::{
    Client, Done, PATIENCE, Redis, Shortstop, assert_our_error, assert_reply, bulk, command, filled, noise,
    pipeline_of, show, wait_until,
};

const MB: usize = 1 << 20;

/// Runs an action while another client writes without a pause, and checks that all of its writes were executed, and that no shared
/// connection was lost.
fn beside_a_neighbour(proxy: &Shortstop, what: impl FnOnce()) {
    let mut neighbour = proxy.client();
    neighbour.cmd("SET neighbour 1");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let batch = pipeline_of(&["SET neighbour 2"; 50]);
            while !done.load(Ordering::Relaxed) {
                let replies = neighbour.pipeline(&batch, 50);
                if let Some(bad) = replies.iter().find(|reply| *reply != b"+OK\r\n") {
                    panic!("the neighbour is told {}", show(bad));
                }
            }
        });
        {
            let _done = Done(&done);
            what();
        }
        writing.join().expect("the neighbour's writes are done");
    });
    // Answered over the current connection.
    assert_reply(&proxy.client().cmd("SET neighbour 3"), "+OK\r\n", "afterwards");
    assert_eq!(proxy.stat("upstream_reconnects"), 0, "no shared connection was lost");
}

/// Waits until Shortstop knows the server's limits: the error for a value says why it is refused.
fn wait_known(client: &mut Client, value: &[u8]) {
    wait_until("the limits are known", || {
        let reply = client.call(&[b"SET", b"known", value]);
        assert!(reply.starts_with(b"-ERR"), "{}", show(&reply));
        String::from_utf8_lossy(&reply).contains("proto-max-bulk-len of 1048576")
    });
}

#[test]
fn a_value_whose_stored_form_is_too_long_for_redis_is_refused() {
    let redis = Redis::start_with(&["--proto-max-bulk-len", "1mb"]);
    let proxy = Shortstop::start(&redis, "workers: 1\n");
    // Redis would accept the value, but not in the form in which it must be stored.
    let value = [&MARK[..], &noise(MB - 10 - 16, 1)].concat();
    let fits = [&MARK[..], &noise(MB - 1_000 - 16, 1)].concat();
    let mut client = proxy.client();
    beside_a_neighbour(&proxy, || {
        // Also before the limits are known.
        for _ in 0..3 {
            assert!(client.call(&[b"SET", b"k", &value]).starts_with(b"-ERR "), "refused");
        }
        wait_known(&mut client, &value);
        for line in
            ["SET k $1", "SETEX k 100 $1", "SETNX k $1", "MSET other 1 k $1", "MSETNX k $1 other 1", "GETSET k $1"]
        {
            assert_our_error(&client.fill(line, &[&value]), line);
            let transaction = [pipeline_of(&["MULTI"]), filled(line, &[&value]), pipeline_of(&["EXEC"])].concat();
            let got = client.pipeline(&transaction, 3);
            assert_our_error(&got[1], line);
            assert!(got[2].starts_with(b"-EXECABORT"), "MULTI, {line}: {}", show(&got[2]));
        }
        assert_reply(&client.cmd("EXISTS k other"), ":0\r\n", "nothing was stored");
        assert_reply(&client.call(&[b"SET", b"k", &fits]), "+OK\r\n", "what fits");
        assert_reply(&client.cmd("GET k"), bulk(&fits), "is read again");
    });
}

/// Each path on which a request reaches Redis.
#[test]
fn a_request_that_redis_refuses_loses_no_other_request() {
    let redis = Redis::start_with(&["--proto-max-bulk-len", "1mb"]);
    let proxy = Shortstop::start(&redis, "workers: 1\ndefaults: { cache: { reads: all, admit_after: 1 } }\n");
    let large = noise(2 * MB, 2);
    let mut client = proxy.client();
    client.cmd("SET small v");
    wait_known(&mut client, &[&MARK[..], &noise(MB - 26, 1)].concat());
    beside_a_neighbour(&proxy, || {
        for line in [
            "SET k $1",
            "MSET a 1 k $1",
            "APPEND k $1",
            "SET k $1 GET",
            "GET $1",
            "MGET small $1",
            "EXISTS $1",
            "STRLEN $1",
            "HGET $1 f",
            "GETRANGE small 0 $1",
            "RPUSH l $1",
            "PUBLISH c $1",
            "ECHO $1",
            "EVAL return(#ARGV[1]) 0 $1",
            "SORT l BY $1",
            "NOSUCH $1",
            "GET small $1",
            "SELECT $1",
            "CLIENT SETNAME $1",
            "CLIENT LIST ID $1",
            "HELLO 3 AUTH default $1",
            "AUTH default $1",
        ] {
            let mut client = proxy.client();
            client.send(&filled(line, &[&large]));
            // A direct client of Redis would be closed, too.
            if let Some(reply) = client.reply_or_end() {
                assert!(reply.starts_with(b"-ERR "), "{line}: {}", show(&reply));
                client.send(&pipeline_of(&["GET small"]));
                let next = client.reply_or_end();
                let goes_on = |next: &Vec<u8>| *next == bulk(b"v") || next.starts_with(b"-ERR shortstop: ");
                assert!(next.as_ref().is_none_or(goes_on), "{line}: it goes on, or is closed: {next:?}");
            }
        }
        // Not one argument, but all together: Redis accepts that.
        let parts: Vec<Vec<u8>> = (0..300).map(|i| noise(10_000, i)).collect();
        let mut words = vec![&b"RPUSH"[..], b"list"];
        words.extend(parts.iter().map(Vec::as_slice));
        assert_reply(&client.call(&words), ":300\r\n", "3 MB in one request");
    });
}

#[test]
fn a_request_that_fills_the_query_buffer_loses_no_other_request() {
    let redis = Redis::start_with(&["--client-query-buffer-limit", "1mb"]);
    let proxy = Shortstop::start(&redis, "workers: 1\n");
    let large = noise(3 * MB, 3);
    beside_a_neighbour(&proxy, || {
        for line in ["SET k $1", "RPUSH l $1", "GET $1", "MSET a 1 k $1"] {
            let mut client = proxy.client();
            client.send(&filled(line, &[&large]));
            // Redis closes the connection without an error.
            let reply = client.reply_or_end();
            assert!(reply.is_none_or(|reply| reply.starts_with(b"-ERR ")), "{line}");
        }
        let mut client = proxy.client();
        assert_reply(&client.cmd("EXISTS k l a"), ":0\r\n", "nothing was done");
    });
}

/// While writes are paused, Redis buffers them. Together they must not exceed its buffer limit.
#[test]
fn requests_during_a_pause_stay_below_the_query_buffer_limit() {
    let redis = Redis::start_with(&["--client-query-buffer-limit", "1mb"]);
    let proxy = Shortstop::start(&redis, "workers: 1\ndefaults: { compress: false }\n");
    let mut clients: Vec<Client> = (0..12).map(|_| proxy.client()).collect();
    let values: Vec<Vec<u8>> = (0..12).map(|i| noise(300_000, i)).collect();
    clients.iter_mut().for_each(|client| drop(client.cmd("PING")));
    let mut direct = redis.client();
    direct.cmd("CLIENT PAUSE 60000 WRITE");
    for (at, (client, value)) in clients.iter_mut().zip(&values).enumerate() {
        client.send(&command(&[b"SET", format!("k{at}").as_bytes(), value]));
    }
    // The maximum has arrived, or the connection is lost.
    wait_until("Redis has read what it may", || {
        let list = direct.cmd("CLIENT LIST");
        let list = String::from_utf8_lossy(&list);
        let waits = |line: &str| {
            line.split(' ')
                .find_map(|field| field.strip_prefix("qbuf="))
                .and_then(|bytes| bytes.parse().ok())
                .unwrap_or(0)
        };
        let most = list.lines().filter(|line| line.contains(" name=shortstop")).map(waits).max();
        most.is_some_and(|most: usize| most > 600_000) || proxy.stat("upstream_reconnects") > 0
    });
    direct.cmd("CLIENT UNPAUSE");
    for (at, (client, value)) in clients.iter_mut().zip(&values).enumerate() {
        assert_reply(&client.reply(), "+OK\r\n", &format!("client {at}"));
        assert_reply(&client.cmd(&format!("GET k{at}")), bulk(value), "stored");
    }
    assert_eq!(proxy.stat("upstream_reconnects"), 0, "the connection stands");
}

/// If Shortstop's own user may not ask, and right after a CONFIG SET.
#[test]
fn unknown_limits_count_as_the_lowest() {
    let redis = Redis::start_with(&["--proto-max-bulk-len", "1mb"]);
    redis.client().cmd("ACL SETUSER proxy on >secret ~* &* +@all -config");
    let upstream = format!("workers: 1\nupstream: redis://proxy:secret@{}\n", redis.addr());
    let proxy = Shortstop::start(&redis, &upstream);
    let large = noise(MB + 1, 4);
    let marked = [&MARK[..], &noise(MB - 26, 1)].concat();
    beside_a_neighbour(&proxy, || {
        for value in [&large, &marked] {
            let mut client = proxy.client();
            client.send(&command(&[b"SET", b"k", value]));
            let reply = client.reply_or_end();
            assert!(reply.is_none_or(|reply| reply.starts_with(b"-ERR ")));
        }
    });
    // It is not requested repeatedly.
    let denials = String::from_utf8_lossy(&redis.client().cmd("ACL LOG")).matches("config").count();
    assert!(denials <= 2, "{denials} denials");

    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "workers: 1\n");
    let mut client = proxy.client();
    for _ in 0..5 {
        assert_reply(&client.cmd("CONFIG SET proto-max-bulk-len 100mb"), "+OK\r\n", "higher");
        assert_reply(&client.call(&[b"SET", b"k", &large]), "+OK\r\n", "taken");
        beside_a_neighbour(&proxy, || {
            let mut client = proxy.client();
            client.send(&pipeline_of(&["CONFIG SET proto-max-bulk-len 1mb"]));
            client.send(&command(&[b"SET", b"k", &large]));
            assert_reply(&client.reply(), "+OK\r\n", "lower");
            let reply = client.reply_or_end();
            assert!(reply.is_none_or(|reply| reply.starts_with(b"-ERR ")));
        });
    }
}

/// While the limits are unknown, a large request goes over a private connection. The order of the requests is kept.
#[test]
fn large_requests_keep_their_order() {
    let redis = Redis::start();
    redis.client().cmd("ACL SETUSER proxy on >secret ~* &* +@all -config");
    for (name, yaml) in [("raw", "defaults: { compress: false }\n"), ("sealed elsewhere", "offload_above: 1kb\n")] {
        let upstream = format!("workers: 1\nupstream: redis://proxy:secret@{}\n{yaml}", redis.addr());
        let proxy = Shortstop::start(&redis, &upstream);
        let mut client = proxy.client();
        client.set_patience(3 * PATIENCE);
        let (mut requests, mut expected) = (Vec::new(), Vec::new());
        for i in 0..6_u64 {
            let large = noise(MB + 100_000, i);
            let echo = i.to_string();
            for (line, reply) in [
                ("SET big $1", b"+OK\r\n".to_vec()),
                ("GET big", bulk(&large)),
                ("SET small $2", b"+OK\r\n".to_vec()),
                ("GET small", bulk(echo.as_bytes())),
                ("MSET big $2 other $1", b"+OK\r\n".to_vec()),
                ("MGET big other", [&b"*2\r\n"[..], &bulk(echo.as_bytes()), &bulk(&large)].concat()),
                ("MULTI", b"+OK\r\n".to_vec()),
                ("GETSET big $1", b"+QUEUED\r\n".to_vec()),
                ("EXEC", [&b"*1\r\n"[..], &bulk(echo.as_bytes())].concat()),
                ("GETSET big $2", bulk(&large)),
                ("PING", b"+PONG\r\n".to_vec()),
            ] {
                requests.extend(filled(line, &[&large, echo.as_bytes()]));
                expected.push(reply);
            }
        }
        let got = client.pipeline(&requests, expected.len());
        for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert_reply(got, expected, &format!("{name}: request {} of round {}", at % 11, at / 11));
        }
        // And the client is served from L1 again.
        proxy.warm(&mut client, "small");
        assert_eq!(proxy.stat("proxy_sessions"), 0, "the private connection was given back");
    }
}
