//! State that a client leaves on its private connection never reaches the next client.
//!
//! One worker, so that the next client of the same user gets the last one's connection if it was kept.

mod common;

use common::{Client, Fault, Redis, Shortstop, assert_reply, bulk, pipeline_of, show, wait_until};

/// The users and their rights. `lim` may use keys that begin with r: or a:, and only channels like `c`.
const USERS: &[&str] = &[
    "ACL SETUSER admin on >pa ~* &* +@all",
    "ACL SETUSER lim on >pl ~r:* ~a:* &* +@all",
    "ACL SETUSER ua on >pa ~* &* +@all",
    "ACL SETUSER deaf on >pd ~* resetchannels +@all",
    "ACL SETUSER stays on >ps ~* &* +@all -discard",
    "ACL SETUSER watches on >pw ~* &* +@all -unwatch",
    "SET secret s3cret",
];

const LOGINS: &[&str] = &["admin pa", "lim pl", "ua pa", "deaf pd", "stays ps", "watches pw"];

/// A Redis with these users, and a Shortstop with one worker in front of it. One client per user stays connected, because a user's
/// connections close with its last client.
fn start() -> (Redis, Shortstop, Vec<Client>) {
    let redis = Redis::start();
    let mut direct = redis.client();
    for line in USERS {
        assert_reply(&direct.cmd(line), "+OK\r\n", line);
    }
    let proxy = Shortstop::start(&redis, "workers: 1");
    let staying = LOGINS.iter().map(|login| client(&proxy, login, 0, 2)).collect();
    (redis, proxy, staying)
}

/// A client in this state, on a lane.
fn client(proxy: &Shortstop, login: &str, db: u32, version: u8) -> Client {
    let mut client = proxy.client();
    if !login.is_empty() {
        assert_reply(&client.cmd(&format!("AUTH {login}")), "+OK\r\n", login);
    }
    assert_reply(&client.cmd(&format!("SELECT {db}")), "+OK\r\n", "select");
    client.speaking(version)
}

/// The user in a login.
fn user(login: &str) -> &str {
    login.split(' ').next().filter(|user| !user.is_empty()).unwrap_or("default")
}

/// Takes every spare connection that a client in this state could get, and checks its state.
fn assert_nothing_is_left(proxy: &Shortstop, redis: &Redis, login: &str, db: u32, version: u8, context: &str) {
    proxy.wait_stat("proxy_sessions", |sessions| sessions == 0);
    let context = format!("{context}; next: login {login:?}, db {db}, RESP{version}");
    // As many as a worker keeps, all at once.
    let mut clients: Vec<Client> = (0..4).map(|_| client(proxy, login, db, version)).collect();
    let mut direct = redis.client();
    assert_reply(&direct.cmd(&format!("SELECT {db}")), "+OK\r\n", "select");
    direct.cmd("HSET r:hash f v");
    for (at, client) in clients.iter_mut().enumerate() {
        assert_reply(&client.cmd("MULTI"), "+OK\r\n", &format!("{context}: MULTI"));
        for line in ["ACL WHOAMI".to_owned(), format!("SET r:here {at}"), "HGETALL r:hash".to_owned()] {
            assert_reply(&client.cmd(&line), "+QUEUED\r\n", &format!("{context}: {line}"));
        }
    }
    for (at, client) in clients.iter_mut().enumerate() {
        let hash = if version == 3 { "%1\r\n" } else { "*2\r\n" };
        let whoami = bulk(user(login).as_bytes());
        let expected = [&b"*3\r\n"[..], &whoami, b"+OK\r\n", hash.as_bytes(), b"$1\r\nf\r\n$1\r\nv\r\n"].concat();
        assert_reply(&client.cmd("EXEC"), expected, &format!("{context}: EXEC"));
        assert_reply(&direct.cmd("GET r:here"), bulk(at.to_string().as_bytes()), &format!("{context}: its database"));
    }
    assert_reply(&direct.cmd("PUBLISH c m"), ":0\r\n", &format!("{context}: nobody is subscribed"));
}

#[test]
fn a_subscriber_that_unsubscribes_and_quits_in_one_piece_leaves_nothing() {
    let (redis, proxy, _staying) = start();
    for (kind, channel) in [("", "c"), ("P", "c*"), ("S", "c")] {
        for (login, db, version) in [("", 3, 2), ("", 3, 3), ("lim pl", 3, 3), ("lim pl", 0, 2)] {
            for all in [false, true] {
                let context = format!("{kind}UNSUBSCRIBE, all: {all}, login {login:?}, db {db}, RESP{version}");
                let mut subscriber = client(&proxy, login, db, version);
                subscriber.cmd(&format!("{kind}SUBSCRIBE {channel}"));
                let leave = format!("{kind}UNSUBSCRIBE {}", if all { "" } else { channel });
                subscriber.send(&pipeline_of(&[&leave, "QUIT"]));
                let rest = subscriber.until_closed();
                assert!(rest.ends_with(b"+OK\r\n"), "{context}: {}", show(&rest));
                assert_nothing_is_left(&proxy, &redis, login, db, version, &context);
            }
        }
    }
}

#[test]
fn a_refused_subscriber_that_quits_in_one_piece_leaves_nothing() {
    let (redis, proxy, _staying) = start();
    for version in [2, 3] {
        for line in ["SUBSCRIBE c", "PSUBSCRIBE c*", "SSUBSCRIBE c"] {
            for ending in ["QUIT", "RESET"] {
                let context = format!("{line}, {ending}, RESP{version}");
                let mut refused = client(&proxy, "deaf pd", 3, version);
                refused.send(&pipeline_of(&[line, ending]));
                let reply = refused.reply();
                assert!(reply.starts_with(b"-NOPERM"), "{context}: {}", show(&reply));
                refused.reply();
                drop(refused);
                assert_nothing_is_left(&proxy, &redis, "deaf pd", 3, version, &context);
                // A user that may not subscribe is not subscribed as another one.
                let mut next = client(&proxy, "deaf pd", 3, version);
                let reply = next.cmd(line);
                assert!(reply.starts_with(b"-NOPERM"), "{context}: {}", show(&reply));
            }
        }
    }
}

#[test]
fn a_login_executed_by_a_refused_command_reaches_no_other_client() {
    let (redis, proxy, _staying) = start();
    let partial = [
        "HELLO 3 AUTH admin pa AUTH lim wrong",
        "HELLO 2 AUTH admin pa AUTH lim wrong",
        "HELLO 3 AUTH admin pa FOO",
        "HELLO 2 AUTH admin pa FOO",
        "HELLO 2 AUTH admin pa SETNAME a\u{1}b",
        "HELLO 2 AUTH admin pa SETNAME",
    ];
    let loses_errors = redis.loses_errors_of_auth();
    for line in partial {
        for before in [&["WATCH a:k"][..], &["MULTI"], &[]] {
            if loses_errors && before == ["MULTI"] {
                continue;
            }
            for version in [2, 3] {
                let context = format!("{before:?}, {line}, RESP{version}");
                let mut first = client(&proxy, "lim pl", 0, version);
                for line in before {
                    assert_reply(&first.cmd(line), "+OK\r\n", &context);
                }
                first.cmd(line);
                first.cmd(if before == ["MULTI"] { "EXEC" } else { "UNWATCH" });
                drop(first);
                assert_nothing_is_left(&proxy, &redis, "lim pl", 0, version, &context);
                let mut next = client(&proxy, "lim pl", 0, version);
                assert_reply(&next.cmd("MULTI"), "+OK\r\n", &context);
                assert_reply(&next.cmd("ACL WHOAMI"), "+QUEUED\r\n", &context);
                let reply = next.cmd("GET secret");
                assert!(reply.starts_with(b"-NOPERM"), "{context}: {}", show(&reply));
                assert!(next.cmd("EXEC").starts_with(b"-EXECABORT"), "{context}");
            }
        }
    }
}

/// Which part of a refused HELLO a server executes depends on its version: the client's state is what Redis made of it.
#[test]
fn after_a_partially_executed_hello_the_client_has_the_state_that_redis_gave_it() {
    let (redis, proxy, _staying) = start();
    // On these servers Shortstop refuses a login in a transaction.
    let refuses = redis.has("waitaof");
    for line in [
        "HELLO 3 AUTH ua pa FOO",
        "HELLO 3 FOO",
        "HELLO 9 AUTH ua pa",
        "HELLO 3 AUTH ua",
        "HELLO 3 AUTH ua pa AUTH lim pl",
        "HELLO 3 AUTH ua pa AUTH lim wrong",
        "HELLO 3 AUTH lim wrong AUTH ua pa",
        "HELLO 2 AUTH ua pa SETNAME a\u{1}b",
        "AUTH a b c",
    ] {
        for inside in [false, true] {
            if refuses && inside {
                continue;
            }
            let (mut through, mut direct) = (client(&proxy, "lim pl", 0, 2), redis.client());
            assert_reply(&direct.cmd("AUTH lim pl"), "+OK\r\n", "auth");
            let steps = if inside { vec!["MULTI", line, "EXEC"] } else { vec![line] };
            for step in steps.into_iter().chain(["ACL WHOAMI", "GET secret", "HGETALL r:none"]) {
                let (got, expected) = (through.cmd(step), direct.cmd(step));
                if expected.windows(6).any(|part| part == b"server") {
                    assert!(got.windows(6).any(|part| part == b"server"), "{line}: {step}: {}", show(&got));
                } else {
                    assert_reply(&got, expected, &format!("{line}, inside MULTI: {inside}: {step}"));
                }
            }
            // And it stays so until the connection closes.
            assert_reply(&through.cmd("ACL WHOAMI"), direct.cmd("ACL WHOAMI"), line);
            assert_reply(&through.cmd("RESET"), "+RESET\r\n", line);
            assert_reply(&through.cmd("ACL WHOAMI"), bulk(b"default"), line);
        }
    }
}

#[test]
fn a_transaction_without_the_right_to_discard_stays_with_its_client() {
    let (redis, proxy, _staying) = start();
    for (discard, error) in [("DISCARD", "-NOPERM"), ("DISCARD x", "-ERR wrong number")] {
        let login = if error == "-NOPERM" { "stays ps" } else { "" };
        for piped in [false, true] {
            let mut first = client(&proxy, login, 0, 2);
            let lines = ["MULTI", discard, "SET r:k 1", "EXEC"];
            let replies = match piped {
                true => first.pipeline(&pipeline_of(&lines), 4),
                false => lines.iter().map(|line| first.cmd(line)).collect(),
            };
            assert_reply(&replies[0], "+OK\r\n", "multi");
            assert!(replies[1].starts_with(error.as_bytes()), "{}", show(&replies[1]));
            assert_reply(&replies[2], "+QUEUED\r\n", "the transaction is still there");
            assert!(replies[3].starts_with(b"-EXECABORT"), "{}", show(&replies[3]));

            let mut first = client(&proxy, login, 0, 2);
            assert_reply(&first.cmd("MULTI"), "+OK\r\n", "multi");
            assert!(first.cmd(discard).starts_with(error.as_bytes()), "refused");
            drop(first);
            proxy.wait_stat("proxy_sessions", |sessions| sessions == 0);
            let mut next = client(&proxy, login, 0, 2);
            assert_reply(&next.cmd("BLPOP r:none 0.1"), "*-1\r\n", &format!("{discard}: the next client's pop"));
            assert_nothing_is_left(&proxy, &redis, login, 0, 2, discard);
        }
    }
}

#[test]
fn watched_keys_without_the_right_to_unwatch_stay_with_their_client() {
    let (redis, proxy, _staying) = start();
    let mut direct = redis.client();
    for round in 0..4 {
        let mut first = client(&proxy, "watches pw", 0, 2);
        assert_reply(&first.cmd("WATCH r:k"), "+OK\r\n", "watch");
        let reply = first.cmd("UNWATCH");
        assert!(reply.starts_with(b"-NOPERM"), "{}", show(&reply));
        if round % 2 == 0 {
            drop(first);
            proxy.wait_stat("proxy_sessions", |sessions| sessions == 0);
        } else {
            // It still watches.
            direct.cmd("INCR r:k");
            assert_reply(&first.cmd("MULTI"), "+OK\r\n", "multi");
            assert_reply(&first.cmd("EXEC"), "*-1\r\n", "what it watched has changed");
            continue;
        }
        direct.cmd("INCR r:k");
        let mut next = client(&proxy, "watches pw", 0, 2);
        assert_reply(&next.cmd("MULTI"), "+OK\r\n", "multi");
        assert_reply(&next.cmd("EXEC"), "*0\r\n", "the next client watches nothing");
    }
    // A refused WATCH watches nothing, so another client may use its connection.
    let mut refused = client(&proxy, "lim pl", 0, 2);
    assert!(refused.cmd("WATCH secret").starts_with(b"-NOPERM"), "refused");
    assert!(refused.cmd("PING").starts_with(b"+PONG"), "ping");
    proxy.wait_stat("proxy_sessions", |sessions| sessions == 0);
}

/// A client's id.
fn id(client: &mut Client) -> u64 {
    let reply = client.cmd("CLIENT ID");
    String::from_utf8_lossy(&reply).trim_start_matches(':').trim_end().parse().expect("a number")
}

#[test]
fn a_connection_that_others_redirect_to_is_not_reused() {
    let (redis, proxy, _staying) = start();
    let mut direct = redis.client();
    for round in 0..40 {
        let key = format!("r:{round}");
        let (mut a, mut b) = (client(&proxy, "", 0, 3), client(&proxy, "", 0, 3));
        let target = id(&mut a);
        a.send(&pipeline_of(&["CLIENT TRACKING ON REDIRECT 987654321"]));
        b.send(&pipeline_of(&[format!("CLIENT TRACKING ON REDIRECT {target}")]));
        let refused = a.reply();
        assert!(refused.starts_with(b"-ERR"), "{}", show(&refused));
        assert_reply(&b.reply(), "+OK\r\n", "redirected");
        // A client whose connection has no state goes back to the lane with this command.
        assert_reply(&a.cmd("PING"), "+PONG\r\n", "ping");
        let mut next = client(&proxy, "", 0, 3);
        assert_reply(&next.cmd("WATCH r:other"), "+OK\r\n", "takes a private connection");
        b.cmd(&format!("GET {key}"));
        direct.cmd(&format!("SET {key} 1"));
        let invalidated = a.reply();
        assert!(invalidated.starts_with(b">2\r\n$10\r\ninvalidate"), "{}", show(&invalidated));
        assert_reply(&next.cmd("PING"), "+PONG\r\n", &format!("round {round}: the next client hears nothing of it"));
        assert_reply(&next.cmd("PING"), "+PONG\r\n", &format!("round {round}: nor later"));
        drop((a, b, next));
    }
}

#[test]
fn a_client_with_state_may_still_quit() {
    let (redis, proxy, _staying) = start();
    for (lines, replies) in [
        (&["SUBSCRIBE c"][..], 1),
        (&["MULTI", "SET r:k 1"], 2),
        (&["WATCH r:k"], 1),
        (&["CLIENT TRACKING ON"], 1),
        (&["MULTI", "SUBSCRIBE c", "SELECT 3", "EXEC"], 4),
        (&["WATCH r:k", "SELECT 3", "HELLO 3"], 3),
    ] {
        for ending in ["QUIT", "RESET", ""] {
            for piped in [false, true] {
                let context = format!("{lines:?}, {ending:?}, piped: {piped}");
                let mut first = client(&proxy, "", 0, 3);
                let mut bytes = pipeline_of(lines);
                if !ending.is_empty() {
                    bytes.extend(pipeline_of(&[ending]));
                }
                if piped {
                    first.send(&bytes);
                } else {
                    lines.iter().for_each(|line| first.send(&pipeline_of(&[*line])));
                    first.replies(replies);
                    first.send(&bytes[pipeline_of(lines).len()..]);
                }
                if ending == "QUIT" {
                    first.until_closed();
                }
                if ending == "RESET" {
                    wait_until("the answer to RESET", || first.reply() == b"+RESET\r\n");
                    assert_reply(&first.cmd("ACL WHOAMI"), bulk(b"default"), &context);
                }
                drop(first);
                for (db, version) in [(0, 2), (0, 3), (3, 2), (3, 3)] {
                    assert_nothing_is_left(&proxy, &redis, "", db, version, &context);
                }
            }
        }
    }
}

#[test]
fn an_unexpected_push_is_not_taken_for_a_reply() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), "workers: 1");
    let mut client = client(&proxy, "", 0, 3);
    assert_reply(&client.cmd("WATCH r:k"), "+OK\r\n", "it has a private connection");
    wire.hold_replies_to(b"$6\r\nr:mine\r\n");
    client.send(&pipeline_of(&["GET r:mine"]));
    wire.wait_caught();
    wire.say(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$8\r\nr:others\r\n");
    let error = client.reply();
    assert!(error.starts_with(b"-ERR shortstop: the connection to Redis"), "{}", show(&error));
    wire.release();
    assert_reply(&client.until_closed(), "", "its state is gone, and so is the client");
}

#[test]
fn a_spare_connection_that_sends_anything_is_closed() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), "workers: 1");
    for version in [2, 3] {
        let mut first = client(&proxy, "", 0, version);
        let got = first.pipeline(&pipeline_of(&["MULTI", "PING", "EXEC"]), 3).concat();
        assert_reply(&got, "+OK\r\n+QUEUED\r\n*1\r\n+PONG\r\n", "its connection is a spare now");
        proxy.wait_stat("proxy_sessions", |sessions| sessions == 0);
        let before = wire.connections();
        wire.say(b"+OK\r\n");
        wait_until("the connections that spoke are closed", || wire.connections() < before);
        let mut next = client(&proxy, "", 0, version);
        wait_until("Redis is back", || next.cmd("PING") == b"+PONG\r\n");
        let got = next.pipeline(&pipeline_of(&["MULTI", "ECHO x", "EXEC"]), 3).concat();
        assert_reply(&got, "+OK\r\n+QUEUED\r\n*1\r\n$1\r\nx\r\n", "each answer is its own");
        // The unexpected bytes may have counted as the reply to a poll of users' rights. The next poll corrects that.
        wait_until("rights are known again", || proxy.client().cmd("PROXY INFO").starts_with(b"$"));
    }
}
