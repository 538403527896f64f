//! CLIENT: the clients of Shortstop, in the format of its Redis server.
//!
//! Replies that both sides can give are compared with those of another Redis. The tests do not know which fields a version has.

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use common::{Client, Process, Redis, Shortstop, assert_reply, bulk, command, pipeline_of, show, wait_until};

/// A text reply of either protocol.
fn text(reply: &[u8]) -> String {
    let whole = std::str::from_utf8(reply).expect("text");
    let (head, rest) = whole.split_once("\r\n").expect("a reply has a line");
    let rest = rest.strip_suffix("\r\n").unwrap_or_else(|| panic!("no text: {}", show(reply)));
    match head.as_bytes()[0] {
        b'$' => rest.to_owned(),
        b'=' => rest.strip_prefix("txt:").expect("a text").to_owned(),
        _ => panic!("no text: {}", show(reply)),
    }
}

/// Names and values of a line, in their order.
fn fields(line: &str) -> Vec<(&str, &str)> {
    line.split(' ').map(|field| field.split_once('=').unwrap_or_else(|| panic!("{line}"))).collect()
}

/// The lines of CLIENT LIST, by name of the client (CLIENT SETNAME).
fn by_name(list: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let owned = |line: &str| -> BTreeMap<String, String> {
        fields(line).into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    list.lines().map(owned).map(|line| (line["name"].clone(), line)).collect()
}

fn id(client: &mut Client) -> u64 {
    number(&client.cmd("CLIENT ID"))
}

fn number(reply: &[u8]) -> u64 {
    let digits = std::str::from_utf8(reply).ok().and_then(|text| text.strip_prefix(':')?.trim_end().parse().ok());
    digits.unwrap_or_else(|| panic!("no number: {}", show(reply)))
}

fn address(client: &mut Client) -> SocketAddr {
    client.stream().local_addr().expect("connected")
}

fn named(proxy: &Shortstop, name: &str) -> Client {
    let mut client = proxy.client();
    assert_reply(&client.cmd(&format!("CLIENT SETNAME {name}")), "+OK\r\n", "setname");
    client
}

/// Ids of Shortstop's connections to Redis, which have a name. Those of the test may not have closed yet.
fn connections(redis: &Redis) -> Vec<String> {
    let list = text(&redis.client().cmd("CLIENT LIST"));
    let lines = list.lines().filter(|line| line.contains(" name=shortstop:"));
    lines.map(|line| fields(line)[0].1.to_owned()).collect()
}

#[test]
fn lines_have_the_fields_of_the_server_in_its_order() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    for hello in [None, Some("HELLO 3")] {
        let (mut direct, mut through) = (redis.client(), proxy.client());
        // Clients of the first round may still be listed.
        let name = if hello.is_some() { "me-in-3" } else { "me" };
        for client in [&mut direct, &mut through] {
            hello.map(|hello| client.cmd(hello));
            client.cmd(&format!("CLIENT SETNAME {name}"));
            client.cmd("SELECT 3");
        }
        for line in ["CLIENT INFO", "CLIENT LIST TYPE normal", "CLIENT LIST"] {
            let (expected, got) = (direct.cmd(line), through.cmd(line));
            assert_eq!(got[0], expected[0], "the type of the reply");
            let (expected, got) = (text(&expected), text(&got));
            assert!(got.ends_with('\n') && !got.ends_with("\n\n"), "{got:?}");
            let named = format!(" name={name} ");
            let mine = |list: &'_ str| list.lines().find(|line| line.contains(&named)).map(str::to_owned);
            let (expected, got) = (mine(&expected).expect("itself"), mine(&got).expect("itself"));
            let (expected, got) = (fields(&expected), fields(&got));
            let names = |all: &[(&str, &str)]| all.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
            assert_eq!(names(&got), names(&expected), "{line}");
            for ((name, expected), (_, got)) in expected.iter().zip(&got) {
                let known = [
                    "id",
                    "addr",
                    "laddr",
                    "fd",
                    "age",
                    "idle",
                    "qbuf",
                    "qbuf-free",
                    "argv-mem",
                    "rbs",
                    "rbp",
                    "io-thread",
                ];
                let memory = ["tot-mem", "tot-net-in", "tot-net-out", "tot-cmds"];
                if !known.contains(name) && !memory.contains(name) {
                    assert_eq!(got, expected, "{name} of {line}");
                }
            }
            let value = |name| got.iter().find(|(field, _)| *field == name).expect("the field").1.to_owned();
            assert_eq!(value("addr"), address(&mut through).to_string());
            assert_eq!(value("laddr"), proxy.addr().to_string());
            assert_eq!(value("id"), id(&mut through).to_string());
        }
    }
}

#[test]
fn the_list_has_the_clients_of_all_workers_in_the_order_of_their_ids() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "workers: 3\n");
    let mut clients: Vec<Client> = (0..12).map(|i| named(&proxy, &format!("c{i}"))).collect();
    let ids: Vec<u64> = clients.iter_mut().map(id).collect();
    let lines: Vec<String> = ids.iter().enumerate().map(|(i, id)| format!("{id} c{i}")).collect();
    let shown = |list: &str| -> Vec<String> {
        let pairs = list.lines().map(fields);
        pairs.map(|fields| format!("{} {}", fields[0].1, fields[4].1)).collect()
    };
    for client in &mut clients {
        assert_eq!(shown(&text(&client.cmd("CLIENT LIST"))), lines);
    }
    let some = format!("CLIENT LIST ID {} 4711 {} {}", ids[7], ids[2], ids[7]);
    let expected = [lines[7].clone(), lines[2].clone(), lines[7].clone()];
    assert_eq!(shown(&text(&clients[0].cmd(&some))), expected, "as asked for");
    clients[5].cmd("SUBSCRIBE c");
    assert_eq!(shown(&text(&clients[0].cmd("CLIENT LIST TYPE pubsub"))), [lines[5].clone()]);
    let normal = text(&clients[0].cmd("CLIENT LIST TYPE NORMAL"));
    assert_eq!(shown(&normal).len(), 11);
    assert_reply(&clients[0].cmd("CLIENT LIST TYPE replica"), "$0\r\n\r\n", "none");
    let gone = clients.remove(3);
    drop(gone);
    wait_until("who has gone is not shown", || shown(&text(&clients[0].cmd("CLIENT LIST"))).len() == 11);
}

/// What the client of this name sends, and what is waited for.
const STATES: &[(&str, &[&str])] = &[
    ("idle", &[]),
    ("reader", &["GET a"]),
    ("looker", &["STRLEN a"]),
    ("nonsense", &["NOSUCH x"]),
    ("container", &["CONFIG GET port"]),
    ("selected", &["SELECT 5", "SET a 1"]),
    ("multi", &["MULTI", "SET a 1", "GET a"]),
    ("empty-multi", &["MULTI"]),
    ("watching", &["WATCH a b"]),
    ("dirty", &["WATCH touched"]),
    ("subscribed", &["SUBSCRIBE c"]),
    ("patterns", &["PSUBSCRIBE p*"]),
    ("sharded", &["SSUBSCRIBE s"]),
    ("resp3", &["HELLO 3", "PING"]),
    ("resp3-subscribed", &["HELLO 3", "SUBSCRIBE c"]),
    ("tracking", &["CLIENT TRACKING ON"]),
    ("tracking-all", &["CLIENT TRACKING ON BCAST NOLOOP"]),
    ("protected", &["CLIENT NO-EVICT ON"]),
    ("monitor", &["MONITOR"]),
    ("blocked", &[]),
];

#[test]
fn the_state_of_a_client_is_shown_as_by_redis() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "");
    let own_command = |mut client: Client| {
        let info = text(&client.cmd("CLIENT INFO"));
        info.split(' ').find(|field| field.starts_with("cmd=")).map(str::to_owned)
    };
    let expected = own_command(reference.client());
    let is_known = || own_command(proxy.client()) == expected;
    wait_until("Redis has told its subcommands", is_known);
    let shown = |address: SocketAddr, behind: &Redis| {
        let mut clients: Vec<Client> = Vec::new();
        for (name, lines) in STATES {
            let mut client = Client::connect(address);
            client.cmd(&format!("CLIENT SETNAME {name}"));
            lines.iter().for_each(|line| drop(client.cmd(line)));
            if *name == "blocked" {
                client.send(&pipeline_of(&["BLPOP nothing 0"]));
                wait_until("it is blocked", || behind.info("blocked_clients") == "1");
            }
            clients.push(client);
        }
        let mut asker = Client::connect(address);
        asker.cmd("SET touched 1");
        by_name(&text(&asker.cmd("CLIENT LIST")))
    };
    let (expected, got) = (shown(reference.addr(), &reference), shown(proxy.addr(), &redis));
    for (name, _) in STATES {
        for field in ["flags", "db", "sub", "psub", "ssub", "multi", "watch", "cmd", "user", "redir", "resp", "events"]
        {
            assert_eq!(got[*name].get(field), expected[*name].get(field), "{field} of {name}");
        }
    }
}

#[test]
fn wrong_forms_get_the_error_of_redis() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let others = connections(&redis);
    let lines = [
        "CLIENT",
        "CLIENT NOSUCH",
        "CLIENT ID x",
        "CLIENT INFO x",
        "CLIENT LIST x",
        "CLIENT LIST x y",
        "CLIENT LIST TYPE",
        "CLIENT LIST TYPE nonsense",
        "CLIENT LIST ID",
        "CLIENT LIST ID x",
        "CLIENT LIST ID 1 x",
        "CLIENT LIST ID 1 ID 2",
        "CLIENT KILL",
        "CLIENT KILL nobody",
        "CLIENT KILL 127.0.0.1:1",
        "CLIENT KILL ID",
        "CLIENT KILL ID x",
        "CLIENT KILL ID 0",
        "CLIENT KILL ID -1",
        "CLIENT KILL ID 4711",
        "CLIENT KILL ID 4711 SKIPME",
        "CLIENT KILL ID 4711 SKIPME maybe",
        "CLIENT KILL ID 4711 TYPE",
        "CLIENT KILL ID 4711 USER",
        "CLIENT KILL TYPE nonsense",
        "CLIENT KILL TYPE normal ID x",
        "CLIENT KILL USER nobody",
        "CLIENT KILL ADDR 127.0.0.1:1",
        "CLIENT KILL LADDR 127.0.0.1:1",
        "CLIENT KILL MAXAGE 100000",
        "CLIENT KILL MAXAGE x",
        "CLIENT KILL NONSENSE 1",
        "CLIENT UNBLOCK",
        "CLIENT UNBLOCK x",
        "CLIENT UNBLOCK 4711",
        "CLIENT UNBLOCK 0",
        "CLIENT UNBLOCK -1 ERROR",
        "CLIENT UNBLOCK 4711 TIMEOUT",
        "CLIENT UNBLOCK 4711 NONSENSE",
        "CLIENT UNBLOCK x NONSENSE",
        "CLIENT UNBLOCK 4711 ERROR x",
        "CLIENT TRACKING",
        "CLIENT TRACKING nonsense",
        "CLIENT TRACKING OFF",
        "CLIENT TRACKING OFF NONSENSE",
        "CLIENT TRACKING ON REDIRECT",
        "CLIENT TRACKING ON REDIRECT x",
        "CLIENT TRACKING ON REDIRECT 0",
        "CLIENT TRACKING ON REDIRECT 4711",
        "CLIENT TRACKING ON PREFIX redirect REDIRECT 4711",
        "CLIENT TRACKING ON PREFIX a",
        "CLIENT GETREDIR",
        "CLIENT TRACKINGINFO",
        "CLIENT CACHING YES",
        "CLIENT NO-EVICT",
        "CLIENT NO-EVICT OFF",
        "CLIENT NO-EVICT nonsense",
        "CLIENT NO-TOUCH nonsense",
        "CLIENT SETNAME",
        "CLIENT SETINFO",
        "CLIENT SETINFO lib-name",
        "CLIENT SETINFO nonsense x",
        "CLIENT SETINFO lib-Name a\u{1}b",
        "CLIENT REPLY",
        "CLIENT REPLY nonsense",
        "CLIENT PAUSE x",
        "CLIENT PAUSE -1",
        "CLIENT PAUSE 1 NONSENSE",
        "CLIENT HELP",
    ];
    for inside in [false, true] {
        for line in lines {
            if line == "CLIENT KILL ID 0" && redis.major() < 7 {
                eprintln!("skipped: for this server {line} means everybody");
                continue;
            }
            let all = if inside { vec!["MULTI", line, "PING", "EXEC"] } else { vec![line] };
            let (mut direct, mut through) = (redis.client(), proxy.client());
            for step in all {
                let got = through.cmd(step);
                let ours = inside && got.starts_with(b"-ERR shortstop: CLIENT TRACKING with REDIRECT");
                if ours {
                    break;
                }
                assert_reply(&got, direct.cmd(step), &format!("{line}, in a transaction: {inside}"));
            }
            let name = [&b"CLIENT"[..], b"SETNAME", b"with a blank"];
            assert_reply(&through.call(&name), direct.call(&name), "a name");
        }
    }
    assert!(others.iter().all(|one| connections(&redis).contains(one)), "no connection to Redis was ended");
}

#[test]
fn kill_closes_exactly_the_selected_clients() {
    let redis = Redis::start();
    redis.client().cmd("ACL SETUSER alice on >secret ~* &* +@all");
    let proxy = Shortstop::start(&redis, "");
    let mut asker = named(&proxy, "asker");
    let lanes = connections(&redis);
    let start = || {
        let mut clients: Vec<Client> = (0..6).map(|i| named(&proxy, &format!("c{i}"))).collect();
        assert_reply(&clients[1].cmd("AUTH alice secret"), "+OK\r\n", "auth");
        clients[2].cmd("SUBSCRIBE c");
        clients
    };
    for (kill, expected, gone) in [
        ("ID $id3", ":1\r\n", &[3][..]),
        ("ADDR $addr4", ":1\r\n", &[4]),
        ("$addr4", "+OK\r\n", &[4]),
        ("USER alice", ":1\r\n", &[1]),
        ("TYPE pubsub", ":1\r\n", &[2]),
        ("TYPE pubsub ID $id3", ":0\r\n", &[]),
        ("ID $id3 ADDR $addr3 TYPE normal USER default LADDR $laddr SKIPME yes", ":1\r\n", &[3]),
        ("ID $id4 ID $id3", ":1\r\n", &[3]),
        ("LADDR $laddr", ":6\r\n", &[0, 1, 2, 3, 4, 5]),
        ("TYPE normal", ":5\r\n", &[0, 1, 3, 4, 5]),
        ("TYPE master", ":0\r\n", &[]),
        ("SKIPME yes", ":6\r\n", &[0, 1, 2, 3, 4, 5]),
    ] {
        let mut clients = start();
        let mut line = kill.replace("$laddr", &proxy.addr().to_string());
        for (i, client) in clients.iter_mut().enumerate() {
            line = line.replace(&format!("$addr{i}"), &address(client).to_string());
            if line.contains(&format!("$id{i}")) {
                line = line.replace(&format!("$id{i}"), &id(client).to_string());
            }
        }
        assert_reply(&asker.cmd(&format!("CLIENT KILL {line}")), expected, &line);
        for (i, client) in clients.iter_mut().enumerate() {
            if gone.contains(&i) {
                assert!(client.until_closed().is_empty(), "{line}: client {i} is told nothing");
            } else {
                assert!(!client.cmd("PING").is_empty(), "{line}: client {i} is served");
            }
        }
        drop(clients);
        wait_until("all have gone", || text(&asker.cmd("CLIENT LIST")).lines().count() == 1);
    }
    assert!(lanes.iter().all(|lane| connections(&redis).contains(lane)), "no connection to Redis was ended");
}

#[test]
fn a_client_that_kills_itself_gets_its_reply_and_later_commands_are_not_executed() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let other = named(&proxy, "other");
    for (line, expected) in [
        ("CLIENT KILL $addr", "+OK\r\n"),
        ("CLIENT KILL ID $id SKIPME no", ":1\r\n"),
        ("MULTI;CLIENT KILL ID $id SKIPME no;SET a 1;EXEC", "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n"),
        ("CLIENT REPLY OFF;CLIENT KILL ID $id SKIPME no", ""),
    ] {
        let mut client = proxy.client();
        let line =
            line.replace("$addr", &address(&mut client).to_string()).replace("$id", &id(&mut client).to_string());
        let lines: Vec<&str> = line.split(';').chain(["SET behind 1"]).collect();
        client.send(&pipeline_of(&lines));
        assert_reply(&client.until_closed(), expected, &line);
    }
    assert_reply(&proxy.client().cmd("EXISTS behind"), ":0\r\n", "what came behind");
    let mut client = proxy.client();
    let own = id(&mut client);
    assert_reply(&client.cmd(&format!("CLIENT KILL ID {own}")), ":0\r\n", "not by accident");
    drop(other);
}

#[test]
fn a_killed_clients_connection_to_redis_ends_too() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    // All lanes that will exist.
    let mut first: Vec<Client> = (0..8).map(|_| proxy.client()).collect();
    for client in &mut first {
        client.pipeline(&pipeline_of(&["PING", "HELLO 3", "PING"]), 3);
    }
    drop(first);
    let mut asker = named(&proxy, "asker");
    wait_until("it is alone", || text(&asker.cmd("CLIENT LIST")).lines().count() == 1);
    // Two lanes per worker, and the connection that polls Redis.
    wait_until("all are there", || connections(&redis).len() >= 5);
    let before = connections(&redis).len();
    let mut clients = Vec::new();
    for lines in [
        &["SUBSCRIBE c"][..],
        &["MULTI", "SET a killed"],
        &["WATCH a"],
        &["MONITOR"],
        &["HELLO 3", "CLIENT TRACKING ON"],
        &["CLIENT NO-EVICT ON"],
    ] {
        let mut client = named(&proxy, "doomed");
        lines.iter().for_each(|line| drop(client.cmd(line)));
        clients.push(client);
    }
    for _ in 0..4 {
        let mut client = named(&proxy, "blocked");
        client.send(&pipeline_of(&["BLPOP q 0"]));
        clients.push(client);
    }
    wait_until("they wait", || redis.info("blocked_clients") == "4");
    // Redis 6 has no NO-EVICT, so this client needs no connection.
    assert!(connections(&redis).len() >= before + if redis.major() >= 7 { 10 } else { 9 });
    assert_reply(&asker.cmd("CLIENT KILL SKIPME yes"), ":10\r\n", "all of them");
    clients.iter_mut().for_each(|client| drop(client.until_closed()));
    wait_until("Redis has let go of them", || {
        redis.info("blocked_clients") == "0" && connections(&redis).len() <= before
    });
    assert_reply(&asker.cmd("RPUSH q v"), ":1\r\n", "push");
    assert_reply(&asker.cmd("LPOP q"), "$1\r\nv\r\n", "nobody took it");
    assert_reply(&asker.cmd("EXISTS a"), ":0\r\n", "nothing was executed");
}

#[test]
fn a_blocked_client_is_unblocked_by_its_id() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut asker = proxy.client();
    let mut clients: Vec<Client> = (0..6).map(|_| proxy.client()).collect();
    let ids: Vec<u64> = clients.iter_mut().map(id).collect();
    for (how, expected) in
        [("", "*-1\r\n"), (" TIMEOUT", "*-1\r\n"), (" ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n")]
    {
        for inside in [false, true] {
            clients.iter_mut().for_each(|client| client.send(&pipeline_of(&["BLPOP none 0", "PING"])));
            wait_until("they wait", || redis.info("blocked_clients") == "6");
            for (client, id) in clients.iter_mut().zip(&ids) {
                let line = format!("CLIENT UNBLOCK {id}{how}");
                if inside {
                    let got = asker.pipeline(&pipeline_of(&["MULTI", &line, "EXEC"]), 3).concat();
                    assert_reply(&got, "+OK\r\n+QUEUED\r\n*1\r\n:1\r\n", &line);
                } else {
                    assert_reply(&asker.cmd(&line), ":1\r\n", &line);
                }
                assert_reply(&client.reply(), expected, &line);
                assert_reply(&client.reply(), "+PONG\r\n", "what came behind");
                assert_reply(&asker.cmd(&line), ":0\r\n", "it waits no more");
            }
        }
    }
    clients.iter_mut().for_each(|client| drop(client.cmd("SUBSCRIBE c")));
    assert_reply(&asker.cmd(&format!("CLIENT UNBLOCK {}", ids[0])), ":0\r\n", "a subscription is no wait");
}

/// The message with which Redis tells a RESP2 client that a key was invalidated.
fn invalidation(key: &str) -> Vec<u8> {
    [&b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n*1\r\n"[..], &bulk(key.as_bytes())].concat()
}

#[test]
fn invalidations_go_to_the_client_that_redirect_names() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut writer = proxy.client();
    for subscribed_first in [true, false] {
        for round in 0..4 {
            let key = format!("k:{subscribed_first}:{round}");
            let (mut listener, mut reader) = (proxy.client(), proxy.client());
            let target = id(&mut listener);
            let subscribe = |listener: &mut Client| {
                let expected = "*3\r\n$9\r\nsubscribe\r\n$20\r\n__redis__:invalidate\r\n:1\r\n";
                assert_reply(&listener.cmd("SUBSCRIBE __redis__:invalidate"), expected, "subscribe");
            };
            if subscribed_first {
                subscribe(&mut listener);
            }
            // It may be in another database by then.
            let line = format!("CLIENT TRACKING ON REDIRECT {target}");
            assert_reply(&reader.cmd(&line), "+OK\r\n", "tracking");
            if !subscribed_first {
                assert_reply(&listener.cmd("SELECT 2"), "+OK\r\n", "select");
                assert_reply(&listener.cmd("SET here 2"), "+OK\r\n", "a lane serves it still");
                subscribe(&mut listener);
            }
            assert_reply(&reader.cmd("CLIENT GETREDIR"), format!(":{target}\r\n"), "getredir");
            let info = reader.cmd("CLIENT TRACKINGINFO");
            let expected = format!(
                "*6\r\n$5\r\nflags\r\n*1\r\n$2\r\non\r\n$8\r\nredirect\r\n:{target}\r\n$8\r\nprefixes\r\n*0\r\n"
            );
            assert_reply(&info, expected, "trackinginfo");
            // In Redis 6 it is the last field.
            let own = text(&reader.cmd("CLIENT INFO")).replace('\n', " ");
            assert!(own.contains(&format!(" redir={target} ")) && own.contains(" flags=t "), "{own}");
            let listed = text(&writer.cmd("CLIENT LIST")).replace('\n', " ");
            assert!(listed.contains(&format!(" redir={target} ")), "{listed}");
            let got = reader.pipeline(&pipeline_of(&["MULTI", "CLIENT GETREDIR", "EXEC"]), 3).concat();
            assert_reply(&got, format!("+OK\r\n+QUEUED\r\n*1\r\n:{target}\r\n"), "in a transaction");

            writer.cmd(&format!("SET {key} 1"));
            assert_reply(&reader.cmd(&format!("GET {key}")), "$1\r\n1\r\n", "read");
            writer.cmd(&format!("SET {key} 2"));
            assert_reply(&listener.reply(), invalidation(&key), "told");
            if !subscribed_first {
                listener.cmd("UNSUBSCRIBE");
                assert_reply(&listener.cmd("GET here"), "$1\r\n2\r\n", "in the database that it had selected");
            }
        }
    }
}

#[test]
fn a_broken_redirection_is_reported_with_the_id_of_shortstop() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let (mut listener, mut reader, mut writer) = (proxy.client(), proxy.client(), proxy.client());
    let target = id(&mut listener);
    listener.cmd("SUBSCRIBE __redis__:invalidate");
    reader.cmd("HELLO 3");
    assert_reply(&reader.cmd(&format!("CLIENT TRACKING ON REDIRECT {target}")), "+OK\r\n", "tracking");
    writer.cmd("SET k 1");
    reader.cmd("GET k");
    drop(listener);
    wait_until("the listener has gone", || text(&writer.cmd("CLIENT LIST")).lines().count() == 2);
    let gone = format!("CLIENT LIST ID {target}");
    assert_reply(&writer.cmd(&gone), "$0\r\n\r\n", "gone");
    wait_until("Redis has let go of it", || {
        redis.client().cmd("PUBSUB NUMSUB __redis__:invalidate").ends_with(b":0\r\n")
    });
    writer.cmd("SET k 2");
    let expected = format!(">2\r\n$21\r\ntracking-redir-broken\r\n:{target}\r\n");
    assert_reply(&reader.reply(), expected, "told");
    assert!(text(&reader.cmd("CLIENT INFO")).contains(" flags=tR "));
}

#[test]
fn in_a_transaction_the_answers_are_those_of_shortstop_too() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let (mut client, mut victim) = (named(&proxy, "asker"), named(&proxy, "victim"));
    let (own, other) = (id(&mut client), id(&mut victim));
    let lines = [
        "MULTI",
        "CLIENT ID",
        "CLIENT GETNAME",
        "CLIENT SETNAME other",
        "CLIENT GETNAME",
        "SET a 1",
        "CLIENT INFO",
        "CLIENT LIST",
        &format!("CLIENT KILL ID {other}"),
        &format!("CLIENT LIST ID {other}"),
        "GET a",
        "EXEC",
    ];
    let got = client.pipeline(&pipeline_of(&lines), lines.len());
    assert!(got[1..11].iter().all(|reply| reply == b"+QUEUED\r\n"));
    let all = String::from_utf8(got[11].clone()).expect("text");
    assert!(all.starts_with(&format!("*10\r\n:{own}\r\n$5\r\nasker\r\n+OK\r\n$5\r\nother\r\n+OK\r\n$")), "{all}");
    assert!(all.ends_with("\n\r\n:1\r\n$0\r\n\r\n$1\r\n1\r\n"), "{all}");
    let lines: Vec<&str> = all.lines().filter(|line| line.starts_with("id=")).collect();
    // CLIENT INFO, and two lines of CLIENT LIST.
    assert_eq!(lines.len(), 3, "{all}");
    for line in &lines[..2] {
        let fields: BTreeMap<&str, &str> = fields(line).into_iter().collect();
        let shown = ["id", "name", "flags", "multi", "cmd"].map(|field| fields[field].to_owned());
        assert_eq!(shown, [own.to_string().as_str(), "other", "x", "10", "exec"]);
    }
    assert!(victim.until_closed().is_empty());
    assert_reply(&client.cmd("CLIENT GETNAME"), "$5\r\nother\r\n", "kept");

    // Not executed, so nothing happens.
    let mut victim = proxy.client();
    let other = id(&mut victim);
    let kill = format!("CLIENT KILL ID {other}");
    for end in [&["DISCARD"][..], &["NOSUCH", "EXEC"]] {
        let lines: Vec<&str> = ["MULTI", "CLIENT SETNAME never", &kill].iter().chain(end).copied().collect();
        client.pipeline(&pipeline_of(&lines), lines.len());
        assert_reply(&client.cmd("CLIENT GETNAME"), "$5\r\nother\r\n", "the name");
        assert_reply(&victim.cmd("PING"), "+PONG\r\n", "the other client");
    }
    client.cmd("WATCH a");
    proxy.client().cmd("SET a 2");
    let got = client.pipeline(&pipeline_of(&["MULTI", "CLIENT SETNAME never", &kill, "EXEC"]), 4).concat();
    assert_reply(&got, "+OK\r\n+QUEUED\r\n+QUEUED\r\n*-1\r\n", "the key was touched");
    assert_reply(&victim.cmd("PING"), "+PONG\r\n", "the other client");
}

#[test]
fn many_commands_of_the_family_in_one_transaction() {
    const COUNT: usize = 5000;
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    let own = id(&mut client);
    let lines: Vec<&str> = ["MULTI"].into_iter().chain((0..COUNT).map(|_| "CLIENT ID")).chain(["EXEC"]).collect();
    let got = client.pipeline(&pipeline_of(&lines), lines.len());
    let expected = format!("*{COUNT}\r\n{}", format!(":{own}\r\n").repeat(COUNT));
    assert_reply(&got[COUNT + 1], expected, "each");
}

/// Pipelines with CLIENT REPLY. An ECHO that may or may not be answered follows each.
const QUIET: &[&[&str]] = &[
    &["CLIENT REPLY OFF", "PING", "CLIENT REPLY ON", "PING"],
    &["CLIENT REPLY SKIP", "PING", "ECHO a"],
    &["CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "PING", "ECHO a"],
    &["CLIENT REPLY SKIP", "CLIENT REPLY ON", "ECHO a"],
    &["CLIENT REPLY SKIP", "CLIENT REPLY OFF", "ECHO a", "CLIENT REPLY ON", "ECHO b"],
    &["CLIENT REPLY OFF", "CLIENT REPLY SKIP", "CLIENT REPLY ON", "ECHO b", "ECHO c"],
    &["CLIENT REPLY SKIP", "NOSUCH", "ECHO b"],
    &["CLIENT REPLY SKIP", "GET", "ECHO b"],
    &["CLIENT REPLY SKIP", "CLIENT ID", "CLIENT GETNAME"],
    &["CLIENT REPLY SKIP", "CLIENT LIST", "CLIENT GETNAME"],
    &["CLIENT REPLY OFF", "CLIENT KILL ID 4711", "CLIENT REPLY nonsense", "CLIENT REPLY ON"],
    &["CLIENT REPLY nonsense", "CLIENT REPLY"],
    &["CLIENT REPLY SKIP", "MULTI", "PING", "EXEC"],
    &["CLIENT REPLY OFF", "MULTI", "SET a 1", "EXEC", "CLIENT REPLY ON", "GET a"],
    &["MULTI", "CLIENT REPLY ON", "PING", "EXEC", "PING"],
    &["MULTI", "CLIENT REPLY nonsense", "PING", "EXEC", "PING"],
    &["CLIENT REPLY OFF", "RESET", "PING"],
    &["CLIENT REPLY SKIP", "RESET", "PING", "PING"],
    &["CLIENT REPLY OFF", "SUBSCRIBE a", "UNSUBSCRIBE a", "CLIENT REPLY ON"],
    &["CLIENT REPLY SKIP", "SUBSCRIBE a b", "PING", "UNSUBSCRIBE a", "UNSUBSCRIBE b"],
    &["CLIENT REPLY SKIP", "SUBSCRIBE", "PING"],
    &["SUBSCRIBE a", "CLIENT REPLY OFF", "CLIENT ID", "CLIENT LIST", "UNSUBSCRIBE a"],
    &["CLIENT REPLY SKIP", "BLPOP none 0.01", "PING"],
];

#[test]
fn client_reply_works_as_in_redis() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    for lines in QUIET {
        let heard = |mut client: Client| {
            client.send(&[pipeline_of(lines), command(&[b"ECHO", b"the end of it"])].concat());
            let mut all = Vec::new();
            while !all.ends_with(b"the end of it\r\n") {
                all.extend(client.reply());
            }
            all
        };
        assert_reply(&heard(proxy.client()), heard(redis.client()), &lines.join("; "));
    }
    // Messages are no replies.
    let (mut quiet, mut publisher) = (proxy.client(), proxy.client());
    quiet.send(&pipeline_of(&["CLIENT REPLY OFF", "SUBSCRIBE c"]));
    assert_reply(&quiet.reply(), "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", "acknowledged");
    assert_reply(&publisher.cmd("PUBLISH c hi"), ":1\r\n", "publish");
    assert_reply(&quiet.reply(), "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n", "message");
}

#[test]
fn a_reply_of_exec_is_not_truncated() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    for mode in ["OFF", "SKIP"] {
        let mut client = proxy.client();
        let lines = ["MULTI", &format!("CLIENT REPLY {mode}"), "SET a 1", "EXEC", "EXISTS a"];
        let got = client.pipeline(&pipeline_of(&lines), 5);
        assert!(got[1].starts_with(b"-ERR"), "{}", show(&got[1]));
        assert!(got[3].starts_with(b"-EXECABORT"), "{}", show(&got[3]));
        assert_reply(&got[4], ":0\r\n", "nothing was done");
    }
}

#[test]
fn the_library_is_shown_where_the_server_shows_it() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let (mut direct, mut through) = (redis.client(), proxy.client());
    for line in [
        "CLIENT SETINFO LIB-NAME jedis",
        "CLIENT SETINFO lib-ver 1.2.3",
        "CLIENT SETINFO lib-ver",
        "CLIENT SETINFO lib-size 3",
        "CLIENT SETINFO lib-Ver a\tb",
    ] {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        assert_reply(&through.call(&words), direct.call(&words), line);
    }
    let shown = |client: &mut Client| {
        let info = text(&client.cmd("CLIENT INFO"));
        let all = fields(info.trim_end());
        all.iter().filter(|(name, _)| name.starts_with("lib")).map(|(_, value)| value.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(shown(&mut through), shown(&mut direct));
    // RESET keeps it: the library is the same.
    through.cmd("RESET");
    assert_eq!(shown(&mut through), shown(&mut direct));
    assert_eq!(shown(&mut proxy.client()), shown(&mut redis.client()), "nobody else's");
}

#[test]
fn a_user_without_the_right_gets_the_error_of_redis_and_nothing_happens() {
    let redis = Redis::start();
    if redis.client().cmd("ACL SETUSER alice on >secret ~* &* +@all -@admin -client|setname") != b"+OK\r\n" {
        eprintln!("skipped: this server cannot take away a subcommand alone");
        return;
    }
    let proxy = Shortstop::start(&redis, "");
    let (mut direct, mut through, mut other) = (redis.client(), proxy.client(), proxy.client());
    let victim = id(&mut other);
    for line in [
        "AUTH alice secret".to_owned(),
        "CLIENT LIST".to_owned(),
        "CLIENT LIST ID 1".to_owned(),
        format!("CLIENT KILL ID {victim}"),
        format!("CLIENT KILL {}", address(&mut other)),
        "CLIENT KILL TYPE normal".to_owned(),
        format!("CLIENT UNBLOCK {victim}"),
        "CLIENT SETNAME x".to_owned(),
        "CLIENT GETNAME".to_owned(),
        "CLIENT NO-EVICT ON".to_owned(),
    ] {
        assert_reply(&through.cmd(&line), direct.cmd(&line), &line);
    }
    assert!(text(&through.cmd("CLIENT INFO")).contains(" user=alice "));
    assert_reply(&other.cmd("PING"), "+PONG\r\n", "the other client");
}

#[test]
fn unpause_overtakes_paused_writes() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "workers: 1\n");
    let (mut writer, mut client) = (proxy.client(), proxy.client());
    writer.cmd("SET a 0");
    assert_reply(&client.cmd("CLIENT PAUSE 60000 WRITE"), "+OK\r\n", "pause");
    writer.send(&pipeline_of(&["SET a 1"]));
    wait_until("Redis holds the write", || redis.info("blocked_clients") != "0");
    assert_reply(&client.cmd("CLIENT UNPAUSE"), "+OK\r\n", "unpause");
    assert_reply(&writer.reply(), "+OK\r\n", "the write");
}

#[test]
fn a_client_can_introduce_itself_while_redis_is_away() {
    let mut redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let mut first = proxy.client();
    first.cmd("SET k v");
    proxy.warm(&mut first, "k");
    redis.kill();
    wait_until("the proxy has noticed", || first.cmd("SET x 1").starts_with(b"-ERR shortstop"));
    let mut client = proxy.client();
    assert_reply(&client.cmd("CLIENT SETNAME late"), "+OK\r\n", "setname");
    assert_reply(&client.cmd("CLIENT GETNAME"), "$4\r\nlate\r\n", "getname");
    assert!(id(&mut client) > 0);
    assert!(client.cmd("CLIENT LIST").starts_with(b"-ERR shortstop"), "Redis cannot be asked whether it may");
}

#[test]
fn concurrent_lists_and_kills_do_not_deadlock() {
    const THREADS: usize = 6;
    const ROUNDS: usize = 40;
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "workers: 3\n");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut client = named(proxy, &format!("thread{thread}"));
                for round in 0..ROUNDS {
                    let name = format!("victim{thread}.{round}");
                    let mut victim = named(proxy, &name);
                    if round % 3 == 0 {
                        victim.cmd("SUBSCRIBE c");
                    }
                    let list = by_name(&text(&client.cmd("CLIENT LIST")));
                    let number = &list[&name]["id"];
                    assert_reply(&client.cmd(&format!("CLIENT KILL ID {number}")), ":1\r\n", &name);
                    victim.until_closed();
                    let list = text(&client.cmd("CLIENT LIST"));
                    assert!(!list.contains(&format!(" name={name} ")), "{list}");
                }
            });
        }
    });
    let mut last = proxy.client();
    wait_until("all have gone", || text(&last.cmd("CLIENT LIST")).lines().count() == 1);
}

#[test]
fn shutdown_does_not_wait_for_a_list() {
    let redis = Redis::start();
    for graceful in [true, false] {
        let mut process = graceful.then(|| Process::start(redis.addr(), "workers: 3\ntimeouts: { shutdown: 10m }\n"));
        let within = (!graceful).then(|| Shortstop::start(&redis, "workers: 3\n"));
        let address = process.as_ref().map_or_else(|| within.as_ref().expect("one of them").addr(), Process::addr);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                let mut client = Client::connect(address);
                client.cmd("CLIENT LIST");
                scope.spawn(move || {
                    let list = pipeline_of(&["CLIENT LIST"]);
                    while client.try_send(&list).is_ok() && client.reply_or_end().is_some() {}
                });
            }
            drop(within);
            if let Some(process) = &mut process {
                process.signal("TERM");
                assert_eq!(process.wait_exit(common::PATIENCE).code(), Some(0), "{}", process.log());
            }
        });
    }
}

#[test]
fn the_last_command_is_shown_if_it_was_answered_from_memory() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let (mut reader, mut asker) = (named(&proxy, "reader"), named(&proxy, "asker"));
    asker.cmd("SET k v");
    proxy.warm(&mut reader, "k");
    reader.cmd("ECHO x");
    reader.cmd("GET k");
    let list = by_name(&text(&asker.cmd("CLIENT LIST")));
    // Redis 6 does not show the subcommand.
    let listing = if redis.major() >= 7 { "client|list" } else { "client" };
    assert_eq!((list["reader"]["cmd"].as_str(), list["asker"]["cmd"].as_str()), ("get", listing));
}
