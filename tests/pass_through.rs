//! Every command reaches Redis and its reply comes back byte for byte, in order.
//!
//! No expectation is written down: the same bytes go directly to another Redis, and both replies are compared.

mod common;

use common::{Client, PATIENCE, Redis, Shortstop, assert_reply, bulk, command, noise, pipeline_of, show};

/// The lines of `data/commands.txt`.
fn commands() -> Vec<&'static str> {
    let lines = include_str!("data/commands.txt").lines();
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

#[test]
fn replies_equal_those_of_redis() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "");
    for version in [2, 3] {
        let (mut direct, mut through) = (reference.client().speaking(version), proxy.client().speaking(version));
        direct.cmd("FLUSHALL");
        through.cmd("FLUSHALL");
        for line in commands() {
            assert_reply(&through.cmd(line), direct.cmd(line), &format!("RESP{version}: {line}"));
        }
    }
}

#[test]
fn replies_equal_those_of_redis_in_one_pipeline() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "");
    let lines = commands();
    let bytes = pipeline_of(&lines);
    for version in [2, 3] {
        reference.client().cmd("FLUSHALL");
        proxy.client().cmd("FLUSHALL");
        let expected = reference.client().speaking(version).pipeline(&bytes, lines.len());
        let got = proxy.client().speaking(version).pipeline(&bytes, lines.len());
        for ((line, got), expected) in lines.iter().zip(got).zip(expected) {
            assert_reply(&got, expected, &format!("RESP{version}: {line}"));
        }
    }
}

#[test]
fn replies_that_differ_each_time_have_the_right_shape() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    client.cmd("SET only 1");
    for (line, start) in [
        ("TIME", "*2\r\n$10\r\n"),
        ("RANDOMKEY", "$4\r\nonly\r\n"),
        ("KEYS *", "*1\r\n$4\r\nonly\r\n"),
        ("LASTSAVE", ":"),
        ("ROLE", "*3\r\n$6\r\nmaster\r\n"),
        ("CLIENT ID", ":"),
        ("CLIENT LIST", "$"),
        ("CLIENT INFO", "$"),
        ("COMMAND", "*"),
        ("INFO", "$"),
        ("MEMORY STATS", "*"),
        ("MEMORY DOCTOR", "$"),
        ("OBJECT FREQ only", "-ERR"),
        ("OBJECT IDLETIME only", ":"),
        ("CONFIG GET *", "*"),
        ("ACL LIST", "*1"),
        ("SLOWLOG GET", "*"),
        ("LATENCY LATEST", "*"),
        ("LOLWUT", "$"),
        ("SCAN 0", "*2\r\n$1\r\n0\r\n"),
        ("DUMP only", "$"),
        ("CLUSTER NODES", "-ERR"),
        ("SAVE", "+OK"),
        ("BGREWRITEAOF", "+"),
        ("XINFO HELP", "*"),
        ("CLIENT GETNAME", "$-1\r\n"),
    ] {
        let got = client.cmd(line);
        assert!(got.starts_with(start.as_bytes()), "{line}: {} does not begin with {start:?}", show(&got));
    }
}

#[test]
fn a_pipeline_of_ten_thousand_keeps_its_order() {
    const ROUNDS: usize = 1_000;
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "");
    // Hits, misses, writes, errors, large and small replies, database changes and transactions, so that immediate replies must wait
    // for others.
    let lines: Vec<String> = (0..ROUNDS)
        .flat_map(|i| {
            let session = if i % 50 == 0 {
                ["MULTI".into(), format!("INCR tx:{i}"), "EXEC".into()]
            } else {
                ["PING".into(), format!("ECHO {i}"), "GET".into()]
            };
            let select =
                if i % 100 == 99 { format!("SELECT {}", (i / 100) % 3) } else { format!("STRLEN k:{}", i % 5) };
            let rest = [
                format!("GET k:{}", i % 7),
                format!("SET k:{} {i}", i % 7),
                format!("GET k:{}", i % 7),
                format!("MGET k:0 k:1 none k:{}", i % 7),
                format!("LPUSH list:{} {i}", i % 3),
                select,
            ];
            session.into_iter().chain(rest).chain([format!("GET stable:{}", i % 3)])
        })
        .collect();
    assert_eq!(lines.len(), 10 * ROUNDS);
    let bytes = pipeline_of(&lines);
    let expected = reference.client().pipeline(&bytes, lines.len());
    let got = proxy.client().pipeline(&bytes, lines.len());
    for (i, ((line, got), expected)) in lines.iter().zip(&got).zip(&expected).enumerate() {
        assert_reply(got, expected, &format!("request {i}: {line}"));
    }
}

#[test]
fn inline_commands_are_understood() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "");
    let (mut direct, mut through) = (reference.client(), proxy.client());
    // Valkey from 8.1 on loses this byte, which is no text in any encoding, at the start of a word.
    direct.send(b"ECHO \xff.\r\n");
    let loses_bytes = direct.reply() != bulk(b"\xff.");
    for line in [
        &b"PING\r\n"[..],
        b"PING\n",
        b"  PING  \r\n",
        b"\r\n\r\nPING\r\n",
        b"ping \"hello world\"\r\n",
        b"SET k \"a b\"\r\n",
        b"GET k\r\n",
        b"set k 'single \\' quoted'\r\n",
        b"GET k\n",
        b"SET k \"\\x00\\xff\\n\\r\\t\\b\\a\\\\\\\"\"\r\n",
        b"GET k\r\n",
        b"SET k \"\"\r\n",
        b"GET k\r\n",
        b"SET\tk\tv\r\n",
        b"GET k\r\n",
        b"NOSUCH a b\r\n",
        b"GET\r\n",
        b"ECHO \xff\xfe\r\n",
        b"ECHO a\"b\r\nPING\r\n",
        b"MULTI\r\nINCR n\r\nEXEC\r\n",
    ] {
        if loses_bytes && line.contains(&0xff) {
            eprintln!("skipped: this server does not echo {}", show(line));
            continue;
        }
        // A command behind it shows where the replies end, whether there are none, one or three.
        let probe = command(&[b"ECHO", b"that was all"]);
        let bytes = [line, &probe].concat();
        let mut answers = [&mut direct, &mut through].map(|client: &mut Client| {
            client.send(&bytes);
            let mut got = Vec::new();
            while !got.ends_with(b"that was all\r\n") {
                match client.try_reply().expect("a reply or the end") {
                    Some(reply) => got.extend(reply),
                    None => break,
                }
            }
            got
        });
        let expected = std::mem::take(&mut answers[0]);
        assert_reply(&answers[1], &expected, &show(line));
        if !expected.ends_with(b"that was all\r\n") {
            (direct, through) = (reference.client(), proxy.client());
        }
    }
}

#[test]
fn select_gives_each_client_its_own_database() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut clients: Vec<Client> = (0..16).map(|_| proxy.client()).collect();
    for (db, client) in clients.iter_mut().enumerate() {
        assert_reply(&client.cmd(&format!("SELECT {db}")), "+OK\r\n", "select");
        client.send(&pipeline_of(&[format!("SET who {db}")]));
    }
    for (db, client) in clients.iter_mut().enumerate() {
        assert_reply(&client.reply(), "+OK\r\n", "set");
        for _ in 0..4 {
            assert_reply(&client.cmd("GET who"), bulk(db.to_string().as_bytes()), "each reads its own");
        }
        // A refused SELECT leaves the database unchanged.
        assert_reply(&client.cmd("SELECT 99"), "-ERR DB index is out of range\r\n", "invalid");
        assert_reply(&client.cmd("GET who"), bulk(db.to_string().as_bytes()), "still its own");
    }
    assert_reply(&proxy.client().cmd("GET who"), "$1\r\n0\r\n", "a new client is in database 0");
}

#[test]
fn select_in_a_pipeline_takes_effect_at_its_position() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let lines = [
        "SET k 0",
        "SELECT 1",
        "SET k 1",
        "SELECT 2",
        "SET k 2",
        "SELECT 77",
        "GET k",
        "SELECT 0",
        "GET k",
        "SELECT 1",
        "GET k",
        "SELECT 2",
        "GET k",
    ];
    let got = proxy.client().pipeline(&pipeline_of(&lines), lines.len()).concat();
    let expected = Redis::start().client().pipeline(&pipeline_of(&lines), lines.len()).concat();
    assert_reply(&got, expected, "replies");
}

#[test]
fn a_database_in_the_url_is_the_first_one() {
    let redis = Redis::start();
    let upstream = format!("upstream: redis://{}/5\n", redis.addr());
    let proxy = Shortstop::start(&redis, &upstream);
    assert_reply(&proxy.client().cmd("SET k v"), "+OK\r\n", "set");
    let mut direct = redis.client();
    direct.cmd("SELECT 5");
    assert_reply(&direct.cmd("GET k"), "$1\r\nv\r\n", "it went to database 5");
}

#[test]
fn keys_and_values_are_any_bytes() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let (mut client, mut direct) = (proxy.client(), redis.client());
    let every: Vec<u8> = (0..=255).collect();
    for key in [&b""[..], b"\0", b"\r\n", b"\xff\xfe", b" ", b"$3\r\nabc\r\n", b"*1\r\n", &every, &noise(70_000, 1)] {
        for value in [
            &b""[..],
            b"\0",
            b"x",
            b"\r\n",
            b"\r\n\r\n",
            b"$-1\r\n",
            b"-ERR no\r\n",
            b"*-1\r\n",
            &every,
            &noise(3_000, 2),
        ] {
            assert_reply(&client.call(&[b"SET", key, value]), "+OK\r\n", "set");
            for round in 0..4 {
                assert_reply(&client.call(&[b"GET", key]), bulk(value), &format!("get {round} of {}", show(key)));
            }
            assert_reply(
                &client.call(&[b"MGET", key, key]),
                [&b"*2\r\n"[..], &bulk(value), &bulk(value)].concat(),
                "mget",
            );
        }
        assert_reply(&direct.call(&[b"EXISTS", key]), ":1\r\n", "the key itself is stored");
    }
}

#[test]
fn values_of_any_length_are_returned() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "defaults:\n  compress: false\n");
    let mut client = proxy.client();
    for length in
        [0, 1, 2, 1_023, 1_024, 1_025, 16_383, 16_384, 65_535, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 5_000_000]
    {
        let value = noise(length, 3);
        assert_reply(&client.call(&[b"SET", b"k", &value]), "+OK\r\n", "set");
        for _ in 0..4 {
            assert_reply(&client.call(&[b"GET", b"k"]), bulk(&value), &format!("{length} bytes"));
        }
    }
}

#[test]
fn a_value_of_100_mb_goes_through() {
    const LENGTH: usize = 100 * 1024 * 1024;
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "defaults:\n  compress: false\n");
    let (mut client, mut other) = (proxy.client(), proxy.client());
    client.set_patience(6 * PATIENCE);
    let value = noise(LENGTH, 4);
    assert_reply(&client.call(&[b"SET", b"large", &value]), "+OK\r\n", "set");
    assert_reply(&redis.client().cmd("STRLEN large"), format!(":{LENGTH}\r\n"), "all of it is in Redis");
    for _ in 0..2 {
        client.send(&pipeline_of(&["GET large", "PING"]));
        // Another client is served meanwhile.
        assert_reply(&other.cmd("PING"), "+PONG\r\n", "another client");
        assert_reply(&client.reply(), bulk(&value), "100 MB");
        assert_reply(&client.reply(), "+PONG\r\n", "what follows it");
    }
}

#[test]
fn a_client_that_half_closes_still_gets_its_replies() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "");
    let bytes = pipeline_of(&["SET k v", "GET k", "INCR n", "PING"]);
    let [expected, got] = [reference.client(), proxy.client()].map(|mut client| {
        client.send(&bytes);
        client.half_close();
        client.until_closed()
    });
    assert_reply(&got, expected, "printf … | nc");
}

#[test]
fn a_request_may_arrive_byte_by_byte() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    for byte in pipeline_of(&["SET key value", "GET key", "MULTI", "GET key", "EXEC", "PING"]) {
        client.send(&[byte]);
    }
    client.send(b"PING inline\r\n");
    let got = client.replies(7).concat();
    assert_reply(
        &got,
        "+OK\r\n$5\r\nvalue\r\n+OK\r\n+QUEUED\r\n*1\r\n$5\r\nvalue\r\n+PONG\r\n$6\r\ninline\r\n",
        "replies",
    );
}

#[test]
fn quit_answers_and_closes() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    client.send(&pipeline_of(&["SET k v", "QUIT", "SET k never"]));
    assert_reply(&client.until_closed(), "+OK\r\n+OK\r\n", "replies up to QUIT");
    assert_reply(&redis.client().cmd("GET k"), "$1\r\nv\r\n", "nothing behind QUIT is executed");
}
