//! Clients that have not authenticated, on a Redis that requires a password: their replies, and that they affect no other client.

mod common;

use common::{Client, Fault, Redis, Shortstop, Way, assert_reply, command, field, pipeline_of, show, wait_until};

const NOAUTH: &str = "-NOAUTH Authentication required.\r\n";
const TOO_MANY: &str = "-ERR Protocol error: unauthenticated multibulk length\r\n";
const TOO_LONG: &str = "-ERR Protocol error: unauthenticated bulk length\r\n";
const ADMITS_AT_ONCE: &str = "workers: 1\ndefaults: { cache: { admit_after: 1 } }";

/// A Redis that requires a password.
fn locked() -> Redis {
    let redis = Redis::start();
    assert_reply(&redis.client().cmd("CONFIG SET requirepass secret"), "+OK\r\n", "locked");
    redis
}

fn administrator(address: std::net::SocketAddr) -> Client {
    let mut client = Client::connect(address);
    assert_reply(&client.cmd("AUTH secret"), "+OK\r\n", "the password");
    client
}

/// A number of PROXY INFO, which needs a login here.
fn stat(admin: &mut Client, name: &str) -> u64 {
    let info = admin.cmd("PROXY INFO");
    field(&info, name).and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {}", show(&info)))
}

/// Reads `k` until the reply comes from L1.
fn warm(admin: &mut Client) {
    wait_until("k is served from L1", || {
        let before = stat(admin, "l1_hits");
        admin.cmd("GET k");
        stat(admin, "l1_hits") > before
    });
}

/// This server's reply to an unknown command from an unauthenticated client.
fn unknown(redis: &Redis) -> String {
    String::from_utf8(redis.client().cmd("NOSUCH")).expect("text")
}

/// Each is sent by a client of its own: the request, and the reply. `None` for one of Shortstop's own errors.
fn mischief(redis: &Redis) -> Vec<(&'static str, Vec<u8>, Option<String>)> {
    let long = vec![b'x'; 20_000];
    let eleven = |name: &'static str| {
        let mut words = vec![name.as_bytes()];
        words.extend([&b"k"[..]; 11]);
        command(&words)
    };
    vec![
        ("MGET of 11 keys", eleven("MGET"), Some(NOAUTH.to_owned())),
        ("60 GETs", pipeline_of(&["GET k"; 60]), Some(NOAUTH.repeat(60))),
        ("SET of 20 KB", command(&[b"SET", b"k", &long]), Some(NOAUTH.to_owned())),
        ("GET of a key of 20 KB", command(&[b"GET", &long]), Some(NOAUTH.to_owned())),
        ("60 commands that do not exist", pipeline_of(&["NOSUCH"; 60]), Some(unknown(redis).repeat(60))),
        ("one of 12 words", eleven("NOSUCH"), Some(TOO_MANY.to_owned())),
        ("one of 20 KB", command(&[b"NOSUCH", &long]), Some(TOO_LONG.to_owned())),
        ("the name itself of 20 KB", command(&[&long]), Some(TOO_LONG.to_owned())),
        ("GET of 11 keys, which is wrong", eleven("GET"), Some(TOO_MANY.to_owned())),
        ("a password of 20 KB", command(&[b"AUTH", &long]), Some(TOO_LONG.to_owned())),
        ("HELLO of 12 words", eleven("HELLO"), Some(TOO_MANY.to_owned())),
        ("HELLO with a password of 20 KB", command(&[b"HELLO", b"2", b"AUTH", b"u", &long]), Some(TOO_LONG.to_owned())),
        ("60 HELLOs", pipeline_of(&["HELLO 3"; 60]), None),
        ("a transaction", pipeline_of(&["MULTI", "SET k x", "DISCARD"]), Some(NOAUTH.repeat(3))),
        ("blocking and subscribing", pipeline_of(&["BLPOP l 0", "SUBSCRIBE c", "MONITOR"]), Some(NOAUTH.repeat(3))),
    ]
}

#[test]
fn a_client_without_the_password_leaves_l1_as_it_was() {
    let redis = locked();
    let proxy = Shortstop::start(&redis, ADMITS_AT_ONCE);
    let (mut admin, mut direct) = (administrator(proxy.addr()), administrator(redis.addr()));
    assert_reply(&admin.cmd("SET k v"), "+OK\r\n", "written");
    warm(&mut admin);
    direct.cmd("SET k around");
    let counts = ["flushes", "upstream_reconnects", "writes_unknown"];
    let before = counts.map(|name| stat(&mut admin, name));
    for round in 0..3 {
        for (what, sent, heard) in mischief(&redis) {
            let mut client = proxy.client();
            client.send(&sent);
            client.half_close();
            let got = client.until_closed();
            match heard {
                Some(heard) => assert_reply(&got, heard, &format!("{what}, round {round}")),
                None => assert!(got.starts_with(b"-NOAUTH HELLO must be called"), "{what}: {}", show(&got)),
            }
        }
        assert_reply(&admin.cmd("GET k"), "$1\r\nv\r\n", "still from L1");
    }
    assert_eq!(counts.map(|name| stat(&mut admin, name)), before, "{counts:?}");
}

/// The same before Shortstop knows that Redis requires a password: a request waits for the end of the handshake.
#[test]
fn requests_before_the_first_handshake_are_not_sent_to_redis() {
    let redis = locked();
    for (what, sent, heard) in mischief(&redis) {
        let Some(heard) = heard else { continue };
        let wire = Fault::before(redis.addr());
        wire.hold(Way::Down);
        let proxy = Shortstop::to(wire.addr(), ADMITS_AT_ONCE);
        let (mut early, mut neighbour) = (proxy.client(), proxy.client());
        early.send(&sent);
        neighbour.send(&pipeline_of(&["GET k", "NOSUCH"]));
        wire.release();
        early.half_close();
        assert_reply(&early.until_closed(), heard, what);
        let neighbours = neighbour.replies(2).concat();
        assert_reply(&neighbours, format!("{NOAUTH}{}", unknown(&redis)), what);
        let mut admin = administrator(proxy.addr());
        assert_eq!(stat(&mut admin, "upstream_reconnects"), 0, "{what}");
    }
}

/// Requests that were in flight when the connection broke, and are repeated on a new connection that Redis no longer accepts
/// without a login.
#[test]
fn repeats_on_a_connection_without_a_login_are_refused() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), ADMITS_AT_ONCE);
    let (mut client, mut neighbour) = (proxy.client(), proxy.client());
    assert_reply(&neighbour.cmd("GET k"), "$-1\r\n", "let in");
    wire.hold_replies_to(b"MGET");
    client.send(&pipeline_of(&["MGET 1 2 3 4 5 6 7 8 9 10 11"]));
    wire.wait_caught();
    neighbour.send(&pipeline_of(&["GET k"]));
    redis.client().cmd("CONFIG SET requirepass secret");
    wire.release();
    let _ = client.reply();
    let _ = neighbour.reply();
    wire.hold_replies_to(b"MGET");
    client.send(&pipeline_of(&["MGET 1 2 3 4 5 6 7 8 9 10 11"]));
    wire.wait_caught();
    wire.cut();
    wire.release();
    assert_reply(&client.reply(), NOAUTH, "repeated, and refused");
    assert_reply(&client.cmd("MGET 1 2 3 4 5 6 7 8 9 10 11"), NOAUTH, "so is the next");
    let mut admin = administrator(proxy.addr());
    assert_eq!(stat(&mut admin, "upstream_reconnects"), 1, "the cut, and nothing else");
}

#[test]
fn two_clients_without_the_password_do_not_disturb_each_other() {
    let redis = locked();
    let proxy = Shortstop::start(&redis, ADMITS_AT_ONCE);
    let mut neighbour = proxy.client();
    for (what, sent, _) in mischief(&redis) {
        let mut client = proxy.client();
        client.send(&sent);
        let lines = ["NOSUCH a b", "GET", "PING", "CLIENT NOSUCH", "AUTH wrong"];
        let expected = redis.client().pipeline(&pipeline_of(&lines[..4]), 4);
        let got = neighbour.pipeline(&pipeline_of(&lines), lines.len());
        for ((line, got), expected) in lines.iter().zip(&got).zip(&expected) {
            assert_reply(got, expected, &format!("{line} beside {what}"));
        }
        assert!(got[4].starts_with(b"-WRONGPASS"), "a login beside {what}: {}", show(&got[4]));
    }
}

/// The precedence of Redis's errors.
#[test]
fn errors_are_those_of_redis() {
    let (reference, redis) = (locked(), locked());
    let proxy = Shortstop::start(&redis, "");
    let lines = [
        "NOSUCH a",
        "GET",
        "GET k",
        "get K",
        "SET k",
        "SET k v",
        "CLIENT",
        "CLIENT NOSUCH",
        "CLIENT ID",
        "CLIENT REPLY OFF",
        "CLIENT KILL",
        "CONFIG",
        "CONFIG GET",
        "CONFIG GET port",
        "COMMAND",
        "COMMAND COUNT",
        "XGROUP",
        "XGROUP NOSUCH",
        "PING",
        "ECHO",
        "MULTI",
        "EXEC",
        "DISCARD",
        "WATCH",
        "WATCH k",
        "UNWATCH",
        "SUBSCRIBE",
        "SUBSCRIBE c",
        "UNSUBSCRIBE",
        "MONITOR",
        "BLPOP l 0",
        "WAIT 0 0",
        "EVAL",
        "EVAL x 0",
        "SELECT",
        "SELECT x",
        "SELECT 1",
        "HELLO",
        "HELLO 3",
        "HELLO 9",
        "AUTH",
        "AUTH a b c",
        "AUTH wrong",
        "RESET",
        "RESET x",
        "INFO",
        "SHUTDOWN x y z",
        "SCRIPT KILL",
        "ASKING",
        "READONLY",
        "ROLE",
        "OBJECT HELP",
        "DEBUG x",
        "MODULE LIST",
        "MODULE LOAD x",
        "GET a b c d e f g h i",
        "RESET",
        "GET k",
        "QUIT",
    ];
    let (mut direct, mut through) = (reference.client(), proxy.client());
    for line in lines {
        assert_reply(&through.cmd(line), direct.cmd(line), line);
    }
}

#[test]
fn a_password_that_is_set_and_removed_is_followed() {
    let redis = locked();
    let proxy = Shortstop::start(&redis, ADMITS_AT_ONCE);
    let mut direct = administrator(redis.addr());
    let mut early = proxy.client();
    let write = "MSET 1 1 2 2 3 3 4 4 5 5 6 6";
    for _ in 0..2 {
        assert_reply(&early.cmd(write), NOAUTH, "locked");
        direct.fill("CONFIG SET requirepass $1", &[b""]);
        wait_until("who is there is let in, as in Redis", || early.cmd(write) == b"+OK\r\n");
        assert_reply(&proxy.client().cmd(write), "+OK\r\n", "and so is who comes");
        direct.cmd("CONFIG SET requirepass secret");
        wait_until("who comes is not let in any more", || proxy.client().cmd(write) == NOAUTH.as_bytes());
        early = proxy.client();
    }
}

/// Redis keeps a connection accepted that was made while no password was set. It must not serve clients that come later, also when
/// nobody has seen the time without a password.
#[test]
fn a_password_that_is_gone_for_a_moment_lets_nobody_in_later() {
    let redis = locked();
    let proxy = Shortstop::start(&redis, ADMITS_AT_ONCE);
    let mut direct = administrator(redis.addr());
    let write = "MSET 1 1 2 2 3 3 4 4 5 5 6 6";
    for _ in 0..3 {
        wait_until("it is locked", || proxy.client().cmd(write) == NOAUTH.as_bytes());
        direct.fill("CONFIG SET requirepass $1", &[b""]);
        let mut early = proxy.client();
        wait_until("the gap is used", || early.cmd(write) == b"+OK\r\n");
        direct.cmd("CONFIG SET requirepass secret");
    }
    wait_until("who comes is not let in", || proxy.client().cmd(write) == NOAUTH.as_bytes());
}

#[test]
fn proxy_commands_need_the_password() {
    let redis = locked();
    let proxy = Shortstop::start(&redis, "enable_debug_command: true");
    let mut client = proxy.client();
    for line in ["PROXY DEBUG PANIC", "PROXY DEBUG PANIC", "PROXY FLUSH", "PROXY debug"] {
        assert_reply(&client.cmd(line), NOAUTH, line);
    }
    wait_until("it is known that Redis wants a password", || client.cmd("PROXY INFO") == NOAUTH.as_bytes());
    assert!(client.cmd("PROXY HELP").starts_with(b"*"), "what can be asked is no secret");
    let mut admin = administrator(proxy.addr());
    assert_eq!(stat(&mut admin, "panics"), 0);
    assert!(admin.cmd("PROXY FLUSH").starts_with(b"+OK"), "who may");
}
