//! Commands that need a private connection get one, in order, and give it back.
//!
//! Where both can answer, the expectation is another Redis's reply to the same bytes.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Client, Done, Fault, Redis, Shortstop, Way, assert_reply, bulk, command, pipeline_of, show, wait_until};

/// Sequences in which a client moves from the lane to a session and back.
const SCENES: &[(&str, &[&str])] = &[
    ("a transaction", &["SET a 1", "MULTI", "INCR a", "GET a", "EXEC", "GET a"]),
    ("an empty transaction", &["MULTI", "EXEC", "PING"]),
    ("a transaction given up", &["SET a 1", "MULTI", "SET a 2", "DISCARD", "GET a", "EXEC"]),
    ("an unknown command in it", &["MULTI", "SET a 1", "NOSUCH x", "SET b 2", "EXEC", "GET a", "PING"]),
    ("a wrong arity in it", &["MULTI", "GET", "EXEC", "MULTI", "GET a", "EXEC"]),
    ("a failure at run time", &["SET s x", "MULTI", "INCR s", "SET t 1", "LPUSH s 1", "EXEC", "GET t"]),
    ("MULTI in MULTI", &["MULTI", "MULTI", "SET a 1", "EXEC", "GET a"]),
    ("WATCH in MULTI", &["MULTI", "WATCH a", "SET a 1", "EXEC"]),
    ("EXEC and DISCARD without MULTI", &["EXEC", "DISCARD", "UNWATCH", "PING"]),
    ("WATCH untouched", &["SET a 1", "WATCH a", "GET a", "MULTI", "INCR a", "EXEC", "GET a"]),
    ("WATCH touched by itself", &["WATCH a", "SET a 1", "MULTI", "SET a 2", "EXEC", "GET a"]),
    ("UNWATCH", &["WATCH a", "SET a 1", "UNWATCH", "MULTI", "SET a 2", "EXEC", "GET a"]),
    ("WATCH ended by DISCARD", &["WATCH a", "MULTI", "DISCARD", "SET a 5", "MULTI", "GET a", "EXEC"]),
    ("SELECT in a transaction", &["SET a 0", "MULTI", "SELECT 1", "SET a 1", "EXEC", "GET a", "SELECT 0", "GET a"]),
    ("a failed SELECT in a transaction", &["SET a 0", "MULTI", "SELECT 77", "SET a 1", "EXEC", "GET a"]),
    ("a SELECT given up", &["SET a 0", "MULTI", "SELECT 1", "DISCARD", "GET a"]),
    (
        "databases and sessions",
        &["SELECT 3", "SET a 3", "MULTI", "GET a", "EXEC", "SELECT 0", "GET a", "MULTI", "GET a", "EXEC"],
    ),
    (
        "blocking pops with something to pop",
        &[
            "RPUSH l a b c",
            "BLPOP l 0",
            "BRPOP none l 0",
            "LLEN l",
            "BLMOVE l m LEFT RIGHT 0",
            "BRPOPLPUSH m l 0",
            "BLMPOP 0 1 l LEFT",
            "LLEN l",
        ],
    ),
    ("blocking pops in a transaction", &["MULTI", "BLPOP none 0", "BRPOP none 0", "EXEC", "PING"]),
    ("a blocking pop that times out", &["SET a 1", "BLPOP none 0.05", "GET a", "BZPOPMIN none 0.01", "PING"]),
    ("a blocking pop gone wrong", &["SET s x", "BLPOP s 1", "BLPOP s notanumber", "BLPOP s -1", "GET s"]),
    (
        "reading a stream that has nothing",
        &["XADD st 1-1 f v", "XREAD BLOCK 20 STREAMS st 1-1", "XREAD STREAMS st 0", "PING"],
    ),
    ("WAIT", &["SET a 1", "WAIT 0 10", "GET a"]),
    (
        "subscribing and leaving",
        &["SET a 1", "SUBSCRIBE c d", "PING", "PING hey", "UNSUBSCRIBE c", "UNSUBSCRIBE d", "GET a", "PING"],
    ),
    ("leaving all at once", &["SUBSCRIBE c", "PSUBSCRIBE p*", "UNSUBSCRIBE", "PUNSUBSCRIBE", "GET a"]),
    ("leaving what was never joined", &["UNSUBSCRIBE", "PUNSUBSCRIBE x", "UNSUBSCRIBE a b", "GET a"]),
    (
        "what is forbidden while subscribed",
        &["SUBSCRIBE c", "GET a", "MULTI", "SUBSCRIBE", "NOSUCH", "DISCARD", "UNSUBSCRIBE", "GET a"],
    ),
    ("sharded channels", &["SSUBSCRIBE c", "SUNSUBSCRIBE c", "GET a"]),
    ("subscribing in a transaction", &["MULTI", "SUBSCRIBE c", "EXEC", "UNSUBSCRIBE", "GET a"]),
    (
        "working while subscribed, which RESP3 allows",
        &[
            "SUBSCRIBE c",
            "SET a 1",
            "GET a",
            "MGET a b",
            "HSET h f v",
            "HGETALL h",
            "MULTI",
            "GET a",
            "EXEC",
            "PUBLISH c m",
            "UNSUBSCRIBE c",
        ],
    ),
    (
        "RESET from everywhere",
        &[
            "SET a 1",
            "SELECT 2",
            "MULTI",
            "RESET",
            "GET a",
            "SUBSCRIBE c",
            "RESET",
            "GET a",
            "WATCH a",
            "RESET",
            "MULTI",
            "EXEC",
        ],
    ),
    ("a script in a transaction", &["SET a 1", "MULTI", "EVAL return(redis.call('INCR','a')) 0", "EXEC", "GET a"]),
    (
        "FLUSHALL in a transaction",
        &["SET a 1", "GET a", "GET a", "GET a", "MULTI", "FLUSHALL", "SET b 1", "EXEC", "GET a", "GET b"],
    ),
];

/// All replies to `lines`. A command behind them shows where they end: the SUBSCRIBE family sends one reply per channel.
fn answers(mut client: Client, lines: &[&str]) -> Vec<u8> {
    client.send(&pipeline_of(lines));
    client.send(&command(&[b"ECHO", b"the end of it"]));
    let mut all = Vec::new();
    while !all.ends_with(b"the end of it\r\n") {
        all.extend(client.reply());
    }
    all
}

/// As with Redis: an idle client with watched keys learns at once that they are no longer watched.
#[test]
fn an_idle_client_whose_private_connection_ends_is_closed() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "workers: 1");
    for (version, line) in [(2, "WATCH k"), (3, "WATCH k"), (2, "MULTI")] {
        let mut client = proxy.client();
        client.cmd(&format!("HELLO {version}"));
        client.cmd(line);
        let mut direct = redis.client();
        let list = direct.cmd("CLIENT LIST");
        let list = String::from_utf8_lossy(&list);
        // Redis shows a subcommand after a bar.
        let command = format!("cmd={}", line.split(' ').next().expect("a command").to_lowercase());
        let found = list.lines().find(|found| found.contains(&command)).expect("its connection is there");
        let id = found.split(' ').next().and_then(|id| id.strip_prefix("id=")).expect("its number");
        assert_reply(&direct.cmd(&format!("CLIENT KILL ID {id}")), ":1\r\n", line);
        assert_reply(&client.until_closed(), "", line);
    }
}

#[test]
fn scenes_in_one_pipeline_answer_as_redis_does() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    for ((name, lines), version) in SCENES.iter().flat_map(|scene| [(scene, 2), (scene, 3)]) {
        redis.client().cmd("FLUSHALL");
        let expected = answers(redis.client().speaking(version), lines);
        redis.client().cmd("FLUSHALL");
        proxy.client().cmd("PROXY FLUSH");
        let got = answers(proxy.client().speaking(version), lines);
        assert_reply(&got, expected, &format!("{name}, RESP{version}"));
    }
}

#[test]
fn scenes_step_by_step_answer_as_redis_does() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "");
    for ((name, lines), version) in SCENES.iter().flat_map(|scene| [(scene, 2), (scene, 3)]) {
        reference.client().cmd("FLUSHALL");
        proxy.client().cmd("FLUSHALL");
        let (mut direct, mut through) = (reference.client().speaking(version), proxy.client().speaking(version));
        for line in *lines {
            // One reply of each, then further replies of the command: SUBSCRIBE, once per channel.
            let count = match line.split(' ').collect::<Vec<_>>()[..] {
                ["SUBSCRIBE" | "PSUBSCRIBE" | "UNSUBSCRIBE" | "PUNSUBSCRIBE", _, ref more @ ..] => 1 + more.len(),
                _ => 1,
            };
            direct.send(&pipeline_of(&[line]));
            through.send(&pipeline_of(&[line]));
            let inside_multi = *name == "subscribing in a transaction" && *line == "SUBSCRIBE c";
            for _ in 0..if inside_multi { 1 } else { count } {
                let expected = direct.reply();
                assert_reply(&through.reply(), &expected, &format!("{name}, RESP{version}: {line}"));
                // An error is the only reply to the whole command (-NOSUB of Valkey 8.0).
                if expected.starts_with(b"-") {
                    break;
                }
            }
        }
    }
}

#[test]
fn another_client_can_break_a_watch() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let (mut one, mut other) = (proxy.client(), proxy.client());
    for (write, expected) in [("SET a 2", "*-1\r\n"), ("DEL a", "*-1\r\n"), ("SET unrelated 1", "*1\r\n+OK\r\n")] {
        other.cmd("SET a 1");
        assert_reply(&one.cmd("WATCH a"), "+OK\r\n", "watch");
        one.cmd("GET a");
        other.cmd(write);
        assert_reply(&one.pipeline(&pipeline_of(&["MULTI", "SET a mine", "EXEC"]), 3)[2], expected, write);
    }
}

#[test]
fn watch_sees_redis_and_not_l1() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    client.cmd("SET k old");
    assert_reply(&proxy.warm(&mut client, "k"), "$3\r\nold\r\n", "cached");
    // Directly in Redis, so that L1 may be stale.
    redis.client().cmd("SET k new");
    assert_reply(&client.cmd("GET k"), "$3\r\nold\r\n", "the entry is still served");
    let got = client.pipeline(&pipeline_of(&["WATCH k", "GET k", "MGET k", "MULTI", "GET k", "EXEC"]), 6).concat();
    assert_reply(
        &got,
        "+OK\r\n$3\r\nnew\r\n*1\r\n$3\r\nnew\r\n+OK\r\n+QUEUED\r\n*1\r\n$3\r\nnew\r\n",
        "inside WATCH and MULTI",
    );
}

#[test]
fn counting_with_watch_loses_nothing() {
    const CLIENTS: usize = 8;
    const EACH: usize = 25;
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    proxy.client().cmd("SET n 0");
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = proxy.client();
                for _ in 0..EACH {
                    loop {
                        client.cmd("WATCH n");
                        let now = client.cmd("GET n");
                        let text = String::from_utf8_lossy(&now);
                        let value: u64 = text.lines().nth(1).and_then(|line| line.parse().ok()).expect("a number");
                        let set = format!("SET n {}", value + 1);
                        if client.pipeline(&pipeline_of(&["MULTI", &set, "EXEC"]), 3)[2] != b"*-1\r\n" {
                            break;
                        }
                    }
                }
            });
        }
    });
    assert_reply(&proxy.client().cmd("GET n"), bulk((CLIENTS * EACH).to_string().as_bytes()), "every increment counts");
}

#[test]
fn messages_reach_every_subscriber() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let (mut by_name, mut by_pattern, mut publisher) = (proxy.client(), proxy.client(), proxy.client());
    assert_reply(&by_name.cmd("SUBSCRIBE news"), "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n", "subscribe");
    assert_reply(&by_pattern.cmd("PSUBSCRIBE n*"), "*3\r\n$10\r\npsubscribe\r\n$2\r\nn*\r\n:1\r\n", "psubscribe");
    for i in 0..200 {
        // Also a payload that looks worth compressing: messages are never changed.
        let payload = format!("{i}:").repeat(i * 10 + 1);
        assert_reply(&publisher.call(&[b"PUBLISH", b"news", payload.as_bytes()]), ":2\r\n", "both heard it");
        let message = [&b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n"[..], &bulk(payload.as_bytes())].concat();
        assert_reply(&by_name.reply(), message, "message");
        let pmessage = [&b"*4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n"[..], &bulk(payload.as_bytes())].concat();
        assert_reply(&by_pattern.reply(), pmessage, "pmessage");
    }
    assert_reply(&by_name.cmd("UNSUBSCRIBE news"), "*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:0\r\n", "unsubscribe");
    assert_reply(&publisher.cmd("PUBLISH news x"), ":1\r\n", "only one is left");
    assert_reply(&by_name.cmd("ECHO back"), "$4\r\nback\r\n", "and may speak again");
}

#[test]
fn a_push_wakes_a_blocked_pop() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let (mut blocked, mut pusher) = (proxy.client(), proxy.client());
    for (wait, push, expected) in [
        ("BLPOP q 0", "RPUSH q v", "*2\r\n$1\r\nq\r\n$1\r\nv\r\n"),
        ("BRPOP none q 0", "RPUSH q w", "*2\r\n$1\r\nq\r\n$1\r\nw\r\n"),
        ("BLMOVE q r LEFT LEFT 0", "LPUSH q x", "$1\r\nx\r\n"),
        ("BZPOPMIN z 0", "ZADD z 1 m", "*3\r\n$1\r\nz\r\n$1\r\nm\r\n$1\r\n1\r\n"),
        (
            "XREAD BLOCK 0 STREAMS st $",
            "XADD st 1-1 f v",
            "*1\r\n*2\r\n$2\r\nst\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n",
        ),
    ] {
        // Commands behind the blocking one in the pipeline wait for it.
        blocked.send(&pipeline_of(&[wait, "PING"]));
        wait_until("Redis counts one blocked client", || redis.info("blocked_clients") == "1");
        // No other client is held up.
        assert!(pusher.cmd(push).starts_with(b":") || push.starts_with("XADD"), "{push}");
        assert_reply(&blocked.reply(), expected, wait);
        assert_reply(&blocked.reply(), "+PONG\r\n", "what follows");
    }
}

#[test]
fn a_client_that_disconnects_while_blocked_pops_nothing() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut blocked = proxy.client();
    blocked.send(&pipeline_of(&["BLPOP q 0"]));
    wait_until("it is blocked", || redis.info("blocked_clients") == "1");
    drop(blocked);
    wait_until("it is blocked no more", || redis.info("blocked_clients") == "0");
    let mut other = proxy.client();
    assert_reply(&other.cmd("RPUSH q v"), ":1\r\n", "push");
    assert_reply(&other.cmd("LPOP q"), "$1\r\nv\r\n", "the element is still there");
}

#[test]
fn a_client_that_quits_behind_a_pop_and_disconnects_is_no_longer_blocked() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut blocked = proxy.client();
    blocked.send(&pipeline_of(&["BLPOP q 0", "GET a", "QUIT"]));
    wait_until("it is blocked", || redis.info("blocked_clients") == "1");
    drop(blocked);
    wait_until("it is blocked no more", || redis.info("blocked_clients") == "0");
    proxy.wait_stat("proxy_sessions", |sessions| sessions == 0);
}

#[test]
fn a_client_that_disconnects_in_a_transaction_changes_nothing() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    client.cmd("SET a 1");
    let got = client.pipeline(&pipeline_of(&["MULTI", "SET a 2"]), 2).concat();
    assert_reply(&got, "+OK\r\n+QUEUED\r\n", "queued");
    let in_transaction = || String::from_utf8_lossy(&redis.client().cmd("CLIENT LIST")).contains(" multi=1 ");
    assert!(in_transaction());
    drop(client);
    wait_until("its connection is closed", || !in_transaction());
    assert_reply(&proxy.client().cmd("GET a"), "$1\r\n1\r\n", "nothing was executed");
}

#[test]
fn monitor_shows_what_goes_on() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let (mut watcher, mut client) = (proxy.client(), proxy.client());
    assert_reply(&watcher.cmd("MONITOR"), "+OK\r\n", "monitor");
    client.cmd("SET seen-by-monitor 1");
    wait_until("the command is shown", || {
        let line = watcher.reply();
        assert!(line.starts_with(b"+"), "{}", show(&line));
        String::from_utf8_lossy(&line).contains("\"SET\" \"seen-by-monitor\" \"1\"")
    });
    watcher.send(&pipeline_of(&["QUIT"]));
    watcher.until_closed();
    assert_reply(&client.cmd("PING"), "+PONG\r\n", "others");
}

#[test]
fn upstream_connections_come_and_go() {
    const CLIENTS: usize = 60;
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_reply(&client.cmd("SET k v"), "+OK\r\n", "set");
    }
    let shared = redis.connections();
    assert!(shared < CLIENTS / 2, "{CLIENTS} clients share lanes, yet Redis sees {shared} connections");
    for client in &mut clients {
        client.cmd("WATCH k");
        client.cmd("MULTI");
    }
    wait_until("each has a connection of its own", || redis.connections() >= shared + CLIENTS);
    for client in &mut clients {
        assert_reply(&client.cmd("EXEC"), "*0\r\n", "exec");
    }
    wait_until("all are given back", || redis.connections() <= shared + CLIENTS / 4);
    // And those of clients that just disconnect.
    clients.iter_mut().take(CLIENTS / 2).for_each(|client| drop(client.cmd("SUBSCRIBE c")));
    clients.iter_mut().skip(CLIENTS / 2).for_each(|client| drop(client.cmd("MULTI")));
    wait_until("sessions again", || redis.connections() >= shared + CLIENTS - CLIENTS / 4);
    drop(clients);
    wait_until("nothing is left behind", || redis.connections() <= shared + CLIENTS / 4);
}

#[test]
fn a_session_is_clean_for_its_next_owner() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "workers: 1\n");
    for round in 0..20 {
        let mut first = proxy.client();
        let left = [
            ["SELECT 4", "WATCH a"],
            ["MULTI", "SET a leaked"],
            ["SUBSCRIBE c", "PSUBSCRIBE p*"],
            ["CLIENT SETNAME x", "MULTI"],
        ][round % 4];
        first.pipeline(&pipeline_of(&left), 2);
        drop(first);
        let mut second = proxy.client();
        let got = second.pipeline(&pipeline_of(&["MULTI", "SET a 1", "GET a", "EXEC", "CLIENT GETNAME"]), 5).concat();
        assert_reply(&got, "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n$1\r\n1\r\n$-1\r\n", "a fresh client");
        assert_reply(&redis.client().cmd("GET a"), "$1\r\n1\r\n", "in database 0");
    }
}

#[test]
fn each_client_has_its_own_name() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let (mut one, mut other) = (proxy.client(), proxy.client());
    assert_reply(&one.cmd("CLIENT SETNAME one"), "+OK\r\n", "setname");
    assert_reply(&other.cmd("CLIENT GETNAME"), "$-1\r\n", "the other has none");
    assert_reply(&other.cmd("CLIENT SETNAME other"), "+OK\r\n", "setname");
    one.cmd("SET k v");
    assert_reply(&one.cmd("CLIENT GETNAME"), "$3\r\none\r\n", "kept");
    assert_reply(&one.cmd("MULTI"), "+OK\r\n", "multi");
    one.cmd("CLIENT GETNAME");
    assert_reply(&one.cmd("EXEC"), "*1\r\n$3\r\none\r\n", "in its session too");
}

#[test]
fn client_reply_off_mutes_only_its_client() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let (mut quiet, mut other) = (proxy.client(), proxy.client());
    quiet.send(&pipeline_of(&["CLIENT REPLY OFF", "SET k v", "GET k"]));
    wait_until("it was executed all the same", || other.cmd("GET k") == b"$1\r\nv\r\n");
    quiet.assert_silent(Duration::from_millis(50));
    quiet.send(&pipeline_of(&["CLIENT REPLY ON"]));
    assert_reply(&quiet.reply(), "+OK\r\n", "back on");
    quiet.send(&pipeline_of(&["CLIENT REPLY SKIP", "GET k", "PING"]));
    assert_reply(&quiet.reply(), "+PONG\r\n", "one was left out");
    assert_reply(&other.cmd("PING"), "+PONG\r\n", "the other one");
}

#[test]
fn a_muted_quit_discards_further_input() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "limits: { idle_timeout: 1s }\n");
    let end = b"*1\r\n$x\r\n".to_vec();
    let ways = [
        pipeline_of(&["CLIENT REPLY OFF", "QUIT"]),
        pipeline_of(&["CLIENT REPLY SKIP", "QUIT"]),
        pipeline_of(&["CLIENT REPLY OFF", "SET k v", "QUIT"]),
        [pipeline_of(&["CLIENT REPLY OFF"]), end].concat(),
    ];
    for way in &ways {
        for (name, mut client) in [("Redis", redis.client()), ("Shortstop", proxy.client())] {
            client.send(way);
            client.send(&pipeline_of(&["SET never 1", "PING"]));
            client.assert_silent(Duration::from_millis(100));
            client.half_close();
            assert_reply(&client.until_closed(), "", name);
        }
    }
    let mut forgotten = proxy.client();
    forgotten.send(&ways[0]);
    assert_reply(&forgotten.until_closed(), "", "dropped when it is idle for too long");
    assert_reply(&proxy.client().cmd("EXISTS never"), ":0\r\n", "nothing behind QUIT was done");
    // As in Redis 7.0: such a connection ends when the next reply would be sent.
    let mut subscriber = proxy.client().speaking(3);
    subscriber.cmd("SUBSCRIBE c");
    subscriber.send(&pipeline_of(&["CLIENT REPLY OFF", "QUIT"]));
    let mut publisher = redis.client();
    wait_until("it ends", || publisher.cmd("PUBLISH c m") == b":0\r\n");
    let rest = subscriber.until_closed();
    // A message may have arrived before QUIT.
    assert!(rest.is_empty() || rest.starts_with(b">3\r\n$7\r\nmessage"), "{}", show(&rest));
}

#[test]
fn a_redirection_in_a_transaction_takes_effect_at_exec() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let (listener, mut client, mut writer) = (proxy.client(), proxy.client(), redis.client());
    let mut listener = listener.speaking(3);
    let id = String::from_utf8_lossy(&listener.cmd("CLIENT ID")).trim_matches([':', '\r', '\n']).to_owned();
    let lines = [
        "MULTI".to_owned(),
        "CLIENT GETREDIR".to_owned(),
        format!("CLIENT TRACKING ON REDIRECT {id}"),
        "CLIENT GETREDIR".to_owned(),
        "CLIENT TRACKING ON REDIRECT 999999".to_owned(),
        "CLIENT TRACKING ON REDIRECT x".to_owned(),
        "GET k".to_owned(),
    ];
    client.pipeline(&pipeline_of(&lines), lines.len());
    let expected = format!(
        "*6\r\n:-1\r\n+OK\r\n:{id}\r\n-ERR The client ID you want redirect to does not exist\r\n\
         -ERR value is not an integer or out of range\r\n$-1\r\n"
    );
    assert_reply(&client.cmd("EXEC"), expected, "exec");
    assert_reply(&client.cmd("CLIENT GETREDIR"), format!(":{id}\r\n"), "it holds");
    writer.cmd("SET k v");
    assert_reply(&listener.reply(), ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n", "invalidated");
}

/// Redis 7.0 sends it in EXEC's reply, later servers after it, when HELLO 2 is already in force.
#[test]
fn a_message_of_a_transaction_that_ends_in_resp2_is_passed_on() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client().speaking(3);
    client.cmd("SET k v");
    client.cmd("SUBSCRIBE c");
    let lines = ["MULTI", "PUBLISH c x", "HELLO 2", "UNSUBSCRIBE c"].map(str::to_owned);
    client.pipeline(&pipeline_of(&lines), lines.len());
    client.send(&pipeline_of(&["EXEC", "ECHO end", "GET k"]));
    let mut all = Vec::new();
    while !all.ends_with(b"$3\r\nend\r\n") {
        all.extend(client.reply());
    }
    let message = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n";
    assert!(all.windows(message.len()).any(|part| part == message), "{}", show(&all));
    assert_reply(&client.reply(), "$1\r\nv\r\n", "the replies behind it are in their places");
}

#[test]
fn an_invalidation_does_not_overtake_the_value() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "offload_above: 1kb\n");
    let long = common::prose(20_000, 1);
    let mut through = proxy.client().speaking(3);
    assert_reply(&through.cmd("CLIENT TRACKING ON"), "+OK\r\n", "tracking");
    let news = |key: &str| format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n${}\r\n{key}\r\n", key.len()).into_bytes();
    for round in 0..50 {
        // Each is decompressed on another thread, which takes time.
        let key = format!("k{round}");
        proxy.client().call(&[b"SET", key.as_bytes(), &long]);
        assert!(redis.client().cmd(&format!("STRLEN {key}")) != b":20000\r\n", "it is stored compressed");
        let lines = [format!("GET {key}"), format!("SET {key} short"), format!("GET {key}")];
        let expected = [bulk(&long), b"+OK\r\n".to_vec(), news(&key), b"$5\r\nshort\r\n".to_vec()].concat();
        assert_reply(&through.pipeline(&pipeline_of(&lines), 4).concat(), expected, "the value, then that it is old");

        let lines = ["MULTI".to_owned(), format!("SET {key} other"), "CLIENT GETNAME".to_owned(), "EXEC".to_owned()];
        let expected = [&b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n_\r\n"[..], &news(&key)].concat();
        assert_reply(&through.pipeline(&pipeline_of(&lines), 5).concat(), expected, "the same of EXEC");
    }
}

#[test]
fn many_sessions_and_lanes_at_once_keep_their_order() {
    const CLIENTS: usize = 12;
    const ROUNDS: usize = 60;
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    std::thread::scope(|scope| {
        for id in 0..CLIENTS {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut client = proxy.client();
                let mut lines = Vec::new();
                let mut expected = Vec::new();
                for i in 0..ROUNDS {
                    lines.extend([
                        format!("SET mine:{id} {i}"),
                        format!("GET mine:{id}"),
                        "MULTI".into(),
                        format!("APPEND mine:{id} x"),
                        format!("GET mine:{id}"),
                        "EXEC".into(),
                        format!("RPUSH q:{id} {i}"),
                        format!("BLPOP q:{id} 0"),
                        format!("ECHO {id}.{i}"),
                    ]);
                    let value = i.to_string();
                    let longer = format!("{value}x");
                    expected.extend([
                        b"+OK\r\n".to_vec(),
                        bulk(value.as_bytes()),
                        b"+OK\r\n+QUEUED\r\n+QUEUED\r\n".to_vec(),
                    ]);
                    expected.extend([
                        format!("*2\r\n:{}\r\n", longer.len()).into_bytes(),
                        bulk(longer.as_bytes()),
                        b":1\r\n*2\r\n".to_vec(),
                    ]);
                    expected.extend([
                        bulk(format!("q:{id}").as_bytes()),
                        bulk(value.as_bytes()),
                        bulk(format!("{id}.{i}").as_bytes()),
                    ]);
                }
                let got = client.pipeline(&pipeline_of(&lines), lines.len()).concat();
                assert_reply(&got, expected.concat(), &format!("client {id}"));
            });
        }
    });
}

/// A RESP3 subscriber that is closed while a write is in flight: messages continue to arrive until the write has its reply, and
/// none of them is its reply.
#[test]
fn a_message_is_not_taken_for_the_reply_to_a_departed_subscribers_write() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), "workers: 1\ndefaults: { cache: { admit_after: 1 } }");
    let (mut other, mut direct) = (proxy.client(), redis.client());
    assert_reply(&other.cmd("SET k old"), "+OK\r\n", "before");
    let mut leaver = proxy.client().speaking(3);
    let id = leaver.cmd("CLIENT ID");
    let id = String::from_utf8_lossy(&id[1..id.len() - 2]).into_owned();
    leaver.cmd("SUBSCRIBE c");
    wire.hold_request(b"held-back");
    leaver.send(&pipeline_of(&["SET k held-back"]));
    wire.wait_held();
    assert_reply(&other.cmd(&format!("CLIENT KILL ID {id}")), ":1\r\n", "it is ended");
    leaver.until_closed();
    let before = wire.bytes(Way::Down);
    let message = vec![b'm'; 4096];
    assert_reply(&direct.call(&[b"PUBLISH", b"c", &message]), ":1\r\n", "its connection to Redis is still there");
    wait_until("the message comes", || wire.bytes(Way::Down) >= before + 4096);
    for _ in 0..100 {
        assert_reply(&other.cmd("GET k"), "$3\r\nold\r\n", "before the write");
    }
    wire.release();
    wait_until("the write is done", || direct.cmd("GET k") == b"$9\r\nheld-back\r\n");
    // If the message had counted as the reply, L1 would have kept the old value, where it stays for long.
    wait_until("and seen", || other.cmd("GET k") == b"$9\r\nheld-back\r\n");
    wait_until("its connection ends", || direct.cmd("PUBLISH c again") == b":0\r\n");
}

#[test]
fn after_reset_no_message_comes() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "workers: 1");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _done = Done(&done);
        scope.spawn(|| {
            let mut direct = redis.client();
            let many = pipeline_of(&["PUBLISH c message"; 16]);
            while !done.load(Ordering::Relaxed) {
                direct.pipeline(&many, 16);
            }
        });
        let mut client = proxy.client();
        for round in 0..200 {
            client.cmd("HELLO 3");
            client.send(&pipeline_of(&["SUBSCRIBE c"]));
            while !client.reply().starts_with(b">3\r\n$7\r\nmessage") {}
            client.send(&pipeline_of(&["RESET", "PING"]));
            while client.reply() != b"+RESET\r\n" {}
            assert_reply(&client.reply(), "+PONG\r\n", &format!("round {round}"));
        }
    });
}
