//! Invalid input: Shortstop answers like Redis, and other clients are not affected.
//!
//! The expectation is Redis's own reply to the same bytes, requested at the same time.

mod common;

use common::{Client, PATIENCE, Redis, Shortstop, assert_reply, bulk, command, noise, pipeline_of, show};

/// How Redis reacts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// It replies, possibly with nothing, and the connection stays open.
    GoesOn,
    /// It sends an error, if any, and closes.
    Closes,
    /// It waits for more input.
    Waits,
}

use Then::{Closes, GoesOn, Waits};

const INPUTS: &[(Then, &[u8])] = &[
    // Counts of arguments.
    (GoesOn, b"*0\r\n"),
    (GoesOn, b"*-1\r\n"),
    (GoesOn, b"*-100\r\n"),
    (GoesOn, b"\r\n\r\n"),
    (Closes, b"*abc\r\n"),
    (Closes, b"*\r\n"),
    (Closes, b"*1x\r\n"),
    (Closes, b"* 1\r\n"),
    (Closes, b"*+1\r\n"),
    (Closes, b"*01\r\n$4\r\nPING\r\n"),
    (Closes, b"*1.5\r\n"),
    (Closes, b"*2147483648\r\n"),
    (Closes, b"*9223372036854775807\r\n"),
    (Closes, b"*9223372036854775808\r\n"),
    (Closes, b"*-9223372036854775809\r\n"),
    (Closes, b"*99999999999999999999999999999999\r\n"),
    // Lengths.
    (Closes, b"*1\r\n$-1\r\n"),
    (Closes, b"*1\r\n$abc\r\n"),
    (Closes, b"*1\r\n$\r\n"),
    (Closes, b"*1\r\n$4x\r\nPING\r\n"),
    (Closes, b"*1\r\n$ 4\r\nPING\r\n"),
    (Closes, b"*1\r\n$04\r\nPING\r\n"),
    (Closes, b"*1\r\n$+4\r\nPING\r\n"),
    (Closes, b"*1\r\n$536870913\r\n"),
    (Closes, b"*1\r\n$4294967296\r\n"),
    (Closes, b"*1\r\n$9223372036854775807\r\n"),
    (Closes, b"*1\r\n$-9223372036854775808\r\n"),
    (Closes, b"*2\r\n$3\r\nGET\r\n$-1\r\n"),
    (Closes, b"*2\r\n$3\r\nGET\r\n$99999999999999999999\r\n"),
    // Other types, nested.
    (Closes, b"*1\r\n:1\r\n"),
    (Closes, b"*1\r\n+PING\r\n"),
    (Closes, b"*1\r\n-ERR\r\n"),
    (Closes, b"*1\r\n*1\r\n$4\r\nPING\r\n"),
    (Closes, b"*2\r\n$3\r\nGET\r\n*1\r\n$1\r\nk\r\n"),
    (Closes, b"*1\r\n\r\n"),
    (Closes, b"*1\r\nPING\r\n"),
    (Closes, b"*1\r\n%1\r\n"),
    (Closes, b"*1\r\n_\r\n"),
    // Behind a valid request, which is answered first.
    (Closes, b"*1\r\n$4\r\nPING\r\n*abc\r\n"),
    (Closes, b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n*1\r\n$-5\r\n*1\r\n$4\r\nPING\r\n"),
    (Closes, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n:1\r\n"),
    // A value that is longer than announced: Redis takes the two bytes after it for the line end.
    (Closes, b"*2\r\n$4\r\nECHO\r\n$2\r\nhello\r\n*x\r\n"),
    (GoesOn, b"*2\r\n$4\r\nECHO\r\n$2\r\nhiXX"),
    // Truncated.
    (Waits, b"*"),
    (Waits, b"*1"),
    (Waits, b"*1\r"),
    (Waits, b"*1\r\n"),
    (Waits, b"*1\r\n$"),
    (Waits, b"*1\r\n$4"),
    (Waits, b"*1\r\n$4\r\n"),
    (Waits, b"*1\r\n$4\r\nPI"),
    (Waits, b"*1\r\n$4\r\nPING"),
    (Waits, b"*1\r\n$4\r\nPING\r"),
    (Waits, b"*2\r\n$3\r\nGET\r\n"),
    (Waits, b"*1048576\r\n"),
    (Waits, b"*1\r\n$536870912\r\n"),
    (Waits, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nabc"),
    (Waits, b"PING"),
    (Waits, b"PING\r"),
    (Waits, b"SET k \"half"),
    // Inline.
    (Closes, b"SET k \"unbalanced\r\n"),
    (Closes, b"SET k 'unbalanced\r\n"),
    (Closes, b"SET k \"a\"b\r\n"),
    (Closes, b"PING\r\nSET k \"unbalanced\r\n"),
    (GoesOn, b"NOSUCH thing at all\r\n"),
    (GoesOn, b"\xff\xfe\x01\x02\r\n"),
    (GoesOn, b"$4\r\n"),
    (GoesOn, b"+OK\r\n"),
    (GoesOn, b"-ERR\r\n"),
    (GoesOn, b":5\r\n"),
    (Closes, b"{\"json\": true}\r\n"),
    // Other protocols on this port.
    (Closes, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"),
    (Closes, b"POST / HTTP/1.1\r\n"),
    (Closes, b"Host: localhost\r\n"),
    (GoesOn, b"GET / HTTP/1.1\r\n"),
    (Closes, b"*1\r\n$5\r\nHost:\r\n"),
    (Closes, b"*2\r\n$4\r\npost\r\n$1\r\n/\r\n"),
    // Unknown commands.
    (GoesOn, b"*1\r\n$0\r\n\r\n"),
    (GoesOn, b"*2\r\n$0\r\n\r\n$1\r\na\r\n"),
    (GoesOn, b"*1\r\n$6\r\nNOSUCH\r\n"),
    (GoesOn, b"*1\r\n$7\r\nNO\r\nSUC\r\n"),
    (GoesOn, b"*2\r\n$4\r\nNO\0X\r\n$3\r\n\xff\r\n\r\n"),
    (GoesOn, b"*4\r\n$6\r\nNOSUCH\r\n$1\r\n'\r\n$2\r\n\r\n\r\n$0\r\n\r\n"),
    (GoesOn, b"*1\r\n$3\r\nGET\r\n"),
    (GoesOn, b"*3\r\n$3\r\nGET\r\n$1\r\na\r\n$1\r\nb\r\n"),
    (GoesOn, b"*2\r\n$6\r\nOBJECT\r\n$6\r\nNOSUCH\r\n"),
    (GoesOn, b"*3\r\n$6\r\nCONFIG\r\n$3\r\nG\r\n\r\n$1\r\na\r\n"),
];

/// Input that Valkey parses differently: from 8.1 on it loses the byte 0xff, from 9 on it checks the two bytes after an argument
/// and accepts a quote in the middle of an inline word.
fn is_read_otherwise(redis: &Redis, input: &[u8]) -> bool {
    let mut client = redis.client();
    let otherwise = if input.starts_with(b"\xff") {
        client.send(b"ECHO \xff.\r\n");
        client.reply() != bulk(b"\xff.")
    } else if input.windows(2).any(|two| two == b"XX") || input.windows(5).any(|five| five == b"hello") {
        client.send(b"*2\r\n$4\r\nECHO\r\n$2\r\nhiXX");
        client.reply() != bulk(b"hi")
    } else if !input.starts_with(b"*") && input.contains(&b'"') {
        client.send(b"ECHO \"a\"b\r\n");
        client.reply() == bulk(b"ab")
    } else {
        false
    };
    if otherwise {
        eprintln!("skipped: this server reads {} otherwise", show(input));
    }
    otherwise
}

/// Sends the input and returns everything received: up to the reply to a command behind it, or to the end.
fn answer(mut client: Client, then: Then, input: &[u8]) -> Vec<u8> {
    client.send(input);
    match then {
        GoesOn => {
            client.send(&command(&[b"ECHO", b"still here"]));
            let mut all = Vec::new();
            while !all.ends_with(b"still here\r\n") {
                all.extend(client.reply());
            }
            all
        }
        Closes => client.until_closed(),
        // Neither side sends anything, so wait for the end.
        Waits => {
            client.half_close();
            client.until_closed()
        }
    }
}

#[test]
fn malformed_input_gets_the_reply_of_redis() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "");
    let mut bystander = proxy.client();
    for (then, input) in INPUTS {
        if is_read_otherwise(&reference, input) {
            continue;
        }
        let expected = answer(reference.client(), *then, input);
        let got = answer(proxy.client(), *then, input);
        assert_reply(&got, expected, &format!("{then:?}: {}", show(input)));
        assert_reply(&bystander.cmd("PING"), "+PONG\r\n", &format!("another client, after {}", show(input)));
    }
}

#[test]
fn malformed_input_may_arrive_in_pieces() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "");
    for (then, input) in INPUTS.iter().filter(|(then, _)| *then == Closes) {
        if is_read_otherwise(&reference, input) {
            continue;
        }
        // In one piece, as Redis reads it: in several pieces Redis may see less before it closes.
        let expected = answer(reference.client(), *then, input);
        let mut client = proxy.client();
        for byte in *input {
            if client.try_send(&[*byte]).is_err() {
                break;
            }
        }
        let got = client.until_closed();
        // A reset may discard the reply: the rest of the input arrived after the close.
        assert!(
            expected.starts_with(&got),
            "{}\n       got {}\n  expected {}",
            show(input),
            show(&got),
            show(&expected)
        );
    }
}

#[test]
fn a_tls_hello_is_no_command() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    // A record of a real client: TLS 1.0 record header, ClientHello of 1.2, random, no session, two
    // cipher suites, no compression. RFC 5246, 7.4.1.2.
    let mut hello = b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03".to_vec();
    hello.extend(noise(32, 1));
    hello.extend(b"\x00\x00\x04\x13\x01\x13\x02\x01\x00\x00\x00");
    // Redis's treatment of a NUL byte is accidental (it counts as the end of the input), so this only requires an end: silence or
    // an error, and then the connection is closed.
    let mut bystander = proxy.client();
    for bytes in [&hello[..], &[&hello[..], b"\r\n"].concat(), b"*1\r\n\x00\r\n", b"GET\x00k\r\n", &[0; 10_000]] {
        let mut client = proxy.client();
        client.send(bytes);
        client.half_close();
        let got = client.until_closed();
        assert!(got.is_empty() || got.starts_with(b"-ERR "), "{}: {}", show(bytes), show(&got));
        assert_reply(&bystander.cmd("PING"), "+PONG\r\n", "another client");
    }
}

#[test]
fn an_http_request_closes_the_connection() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    client.send(b"GET / HTTP/1.1\r\nHost: localhost:6380\r\nUser-Agent: curl/8.0\r\nAccept: */*\r\n\r\n");
    // Redis closes at "Host:"; whether its answer to the line before is sent depends on timing.
    let got = client.until_closed();
    let text = "-ERR wrong number of arguments for 'get' command\r\n";
    assert!(text.as_bytes().starts_with(&got), "{}", show(&got));
}

#[test]
fn a_hundred_thousand_arguments() {
    const COUNT: usize = 100_000;
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "");
    let words: Vec<String> = (0..COUNT).map(|i| format!("k{i}")).collect();
    let all = words.join(" ");
    let (mut direct, mut through) = (reference.client(), proxy.client());
    for line in [
        format!("MSET {all}"),
        format!("MGET {all}"),
        format!("EXISTS {all}"),
        format!("GET {all}"),
        format!("NOSUCH {all}"),
        format!("DEL {all}"),
        format!("RPUSH list {all}"),
        format!("LRANGE list 0 -1 {all}"),
        format!("EVAL return(#KEYS) {COUNT} {all}"),
    ] {
        let expected = direct.cmd(&line);
        assert_reply(&through.cmd(&line), expected, &line[..20.min(line.len())]);
    }
    assert_reply(&through.cmd("LLEN list"), format!(":{COUNT}\r\n"), "all of them arrived");
}

#[test]
fn inline_requests_are_bounded() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "");
    // The maximum length, then one byte more than Redis buffers without seeing the end of the line.
    let fits = [b"ECHO ", &b"x".repeat(60_000)[..], b"\r\n"].concat();
    let expected = answer(reference.client(), GoesOn, &fits);
    assert_reply(&answer(proxy.client(), GoesOn, &fits), expected, "60,000 bytes");
    let too_long = b"x".repeat(64 * 1024 + 1);
    let mut client = proxy.client();
    client.send(&too_long);
    assert_reply(&client.until_closed(), "-ERR Protocol error: too big inline request\r\n", "without an end");
    for (start, text) in [(&b"*"[..], "too big mbulk count string"), (b"*1\r\n$", "too big bulk count string")] {
        let mut client = proxy.client();
        client.send(&[start, &b"1".repeat(64 * 1024 + 1)].concat());
        assert_reply(&client.until_closed(), format!("-ERR Protocol error: {text}\r\n"), "a number without an end");
    }
}

#[test]
fn configured_limits_hold_exactly_at_their_bounds() {
    let redis = Redis::start();
    let proxy =
        Shortstop::start(&redis, "limits: { max_bulk_length: 1kb, max_arguments: 10, max_inline_length: 100 }\n");
    let mut client = proxy.client();
    assert_reply(&client.call(&[b"SET", b"k", &[b'v'; 1_024]]), "+OK\r\n", "exactly as long as may be");
    assert_reply(&client.cmd("DEL 1 2 3 4 5 6 7 8 9"), ":0\r\n", "exactly as many as may be");
    client.send(&[&b"PING "[..], &[b'x'; 90], b"\r\n"].concat());
    assert_reply(&client.reply(), [&b"$90\r\n"[..], &[b'x'; 90], b"\r\n"].concat(), "inline");
    for (input, text) in [
        (&b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1025\r\n"[..], "invalid bulk length"),
        (b"*11\r\n", "invalid multibulk length"),
        (&[b'x'; 101], "too big inline request"),
    ] {
        let mut client = proxy.client();
        client.send(input);
        assert_reply(&client.until_closed(), format!("-ERR Protocol error: {text}\r\n"), &show(input));
    }
}

#[test]
fn clients_above_max_clients_are_refused() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "limits: { max_clients: 5 }\n");
    let mut clients: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_reply(&client.cmd("PING"), "+PONG\r\n", "let in");
    }
    assert_reply(&proxy.client().until_closed(), "-ERR max number of clients reached\r\n", "one too many");
    assert_reply(&clients[0].cmd("PING"), "+PONG\r\n", "those inside");
    clients.pop();
    common::wait_until("there is room again", || {
        let mut next = proxy.client();
        next.try_send(&pipeline_of(&["PING"])).is_ok()
            && next.try_reply().is_ok_and(|reply| reply.is_some_and(|reply| reply == b"+PONG\r\n"))
    });
}

#[test]
fn idle_clients_are_closed() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "limits: { idle_timeout: 400ms }\n");
    // A client that waits for the first answer of Redis would be idle meanwhile.
    proxy.wait_mode("single");
    let (mut idle, mut listening, mut blocked) = (proxy.client(), proxy.client(), proxy.client());
    idle.cmd("PING");
    listening.cmd("SUBSCRIBE c");
    blocked.send(&pipeline_of(&["BLPOP q 0"]));
    assert_reply(&idle.until_closed(), "", "closed without a word, as Redis does");
    // A client that waits is not idle.
    let mut other = proxy.client();
    assert_reply(&other.cmd("PUBLISH c hello"), ":1\r\n", "still subscribed");
    assert_reply(&listening.reply(), "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n", "heard");
    assert_reply(&other.cmd("RPUSH q v"), ":1\r\n", "push");
    assert_reply(&blocked.reply(), "*2\r\n$1\r\nq\r\n$1\r\nv\r\n", "still blocked until now");
}

#[test]
fn private_connections_are_bounded() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "workers: 1\nlimits: { max_sessions: 2 }\ntimeouts: { connect: 100ms }\n");
    let mut clients: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
    assert_reply(&clients[0].cmd("MULTI"), "+OK\r\n", "the first");
    assert_reply(&clients[1].cmd("SUBSCRIBE c"), "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", "the second");
    common::assert_our_error(&clients[2].cmd("WATCH k"), "one too many");
    assert_reply(&clients[2].until_closed(), "", "a transaction behind it would be unguarded");
    assert_reply(&clients[0].cmd("EXEC"), "*0\r\n", "one is given back");
    common::wait_until("there is room again", || proxy.client().cmd("WATCH k") == b"+OK\r\n");
}

#[test]
fn bytes_that_wait_for_redis_are_bounded() {
    const REQUESTS: usize = 120;
    let redis = Redis::start();
    let wire = common::Fault::before(redis.addr());
    let proxy =
        Shortstop::to(wire.addr(), "workers: 1\nlimits: { upstream_pending: 1mb }\ndefaults:\n  compress: false\n");
    let mut client = proxy.client();
    client.cmd("PING");
    wire.hold(common::Way::Up);
    let requests: Vec<u8> = (0..REQUESTS)
        .flat_map(|i| common::filled("SET $1 $2", &[format!("k{i}").as_bytes(), &noise(500_000, i as u64)]))
        .collect();
    // Refused, not delayed: the requests are taken although nothing moves upstream.
    client.send(&requests);
    wire.release();
    client.set_patience(3 * PATIENCE);
    let replies = client.replies(REQUESTS);
    let stored = replies.iter().filter(|reply| *reply == b"+OK\r\n").count();
    for reply in replies.iter().filter(|reply| *reply != b"+OK\r\n") {
        common::assert_our_error(reply, "refused");
    }
    assert!(stored < REQUESTS, "60 MB were let through a bound of 1 MB");
    assert_reply(&redis.client().cmd("DBSIZE"), format!(":{stored}\r\n"), "what was refused was not done");
}

#[test]
fn random_bytes_affect_no_other_client() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "limits: { max_bulk_length: 1mb }\n");
    let mut bystander = proxy.client();
    for seed in 0..300_u64 {
        let mut bytes = noise(1 + (seed as usize * 37) % 3_000, seed + 1);
        match seed % 4 {
            // Almost valid requests, damaged in one place.
            0 => {
                bytes = pipeline_of(&["SET k v", "MGET a b c", "GET k", "MULTI", "EXEC"]);
                let at = (seed as usize * 13) % bytes.len();
                bytes[at] ^= 1 << (seed % 8);
            }
            1 => bytes.iter_mut().for_each(|byte| *byte = b"*$:+-0123456789\r\nGETSPING"[usize::from(*byte) % 25]),
            2 => bytes.splice(0..0, *b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$900\r\n").for_each(drop),
            _ => {}
        }
        let mut client = proxy.client();
        let _ = client.try_send(&bytes);
        client.half_close();
        // Whether or not there is a reply, the connection ends.
        client.until_closed();
        assert_reply(&bystander.cmd("PING"), "+PONG\r\n", &format!("another client, seed {seed}"));
    }
}
