//! The command table compared with the server it was made from: the built-in rows, the keys of generated calls, and that no command
//! which may share a lane changes the lane's state.
//!
//! `SHORTSTOP_REGENERATE=1` rewrites `src/command/builtin.tsv` from the redis-server in the path.

mod common;

use bytes::Bytes;
use common::{Client, Redis, assert_reply, command, show};
use redis_protocol::resp2::decode::decode_bytes;
use redis_protocol::resp2::types::BytesFrame;
use shortstop::command::{Class, Flags, Keys, Row, Table};
use smallvec::SmallVec;

const BUILTIN: &str = include_str!("../src/command/builtin.tsv");

/// The version that `builtin.tsv` was made from.
const BUILTIN_VERSION: &str = "7.0.15";

/// Commands that may touch keys that they do not name.
const ANY_KEY: &[&str] = &[
    "acl|deluser",
    "acl|load",
    "acl|setuser",
    "cluster|delslots",
    "cluster|delslotsrange",
    "cluster|failover",
    "cluster|flushslots",
    "cluster|replicate",
    "cluster|reset",
    "cluster|setslot",
    "config|set",
    "debug",
    "failover",
    "flushall",
    "flushdb",
    "function|delete",
    "function|flush",
    "function|load",
    "function|restore",
    "module|load",
    "module|loadex",
    "replicaof",
    "slaveof",
    "swapdb",
    // Of newer servers.
    "cluster|flushslot",
    "cluster|migrateslots",
    "cluster|migration",
    "trimslots",
];

fn frame(reply: Vec<u8>) -> BytesFrame {
    let reply = Bytes::from(reply);
    let (frame, used) = decode_bytes(&reply).expect("RESP2").expect("whole");
    assert_eq!(used, reply.len());
    frame
}

fn table_of(redis: &Redis) -> Table {
    Table::from_command(&frame(redis.client().cmd("COMMAND"))).expect("the reply of a server")
}

/// Commands and subcommands, without those that no server lists.
fn all_rows(table: &Table) -> Vec<&Row> {
    let commands = table.rows().filter(|row| !["proxy", "post", "host:"].contains(&&*row.name));
    commands.flat_map(|row| std::iter::once(row).chain(row.subs())).collect()
}

#[test]
fn the_builtin_table_is_what_this_server_says() {
    let redis = Redis::start();
    let version = redis.info("redis_version");
    let reply = frame(redis.client().cmd("COMMAND"));
    let title = format!("Commands of Redis {version}. Made by: SHORTSTOP_REGENERATE=1 cargo test --test command_table");
    let text = Table::reply_to_tsv(&reply, &title).expect("the reply of a server");
    if std::env::var_os("SHORTSTOP_REGENERATE").is_some() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/command/builtin.tsv");
        return std::fs::write(file, text).expect("the source tree can be written");
    }
    if version != BUILTIN_VERSION {
        // Another server's table differs. The other tests in this file hold for each server.
        eprintln!("not compared: redis-server is {version}, the built-in table is of {BUILTIN_VERSION}");
        return;
    }
    assert_eq!(text, BUILTIN);

    let (server, builtin) = (Table::from_command(&reply).expect("the same reply"), Table::builtin());
    let (mut server, mut builtin) = (all_rows(&server), all_rows(&builtin));
    server.sort_by(|a, b| a.name.cmp(&b.name));
    builtin.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(server.len(), 240 + 126, "commands and subcommands of {BUILTIN_VERSION}");
    for (server, builtin) in server.iter().zip(&builtin) {
        // A container is compared by its own fields. The order of its subcommands is the server's.
        if server.subs().is_empty() {
            assert_eq!(server, builtin);
        }
        let of =
            |row: &Row| (row.name.clone(), row.arity, row.flags, row.class, row.verb, row.is_write(), row.subs().len());
        assert_eq!(of(server), of(builtin));
    }
}

/// The rule of `decisions.rs`: a command that is not named there is an ordinary reader or writer of keys that can be found, or is
/// flagged as blocking.
#[test]
fn every_row_has_a_deliberate_class() {
    let redis = Redis::start();
    let table = table_of(&redis);
    let mut undecided = Vec::new();
    for row in all_rows(&table).into_iter().filter(|row| !row.decided_by_name()) {
        let special = Flags::PUBSUB | Flags::ADMIN | Flags::CONNECTION | Flags::TRANSACTION | Flags::NO_MULTI;
        // Two or more of everything, so that counts and pairs match.
        let call: Vec<&[u8]> = std::iter::once(row.name.as_bytes()).chain([b"2".as_slice(); 12]).collect();
        let mut keys = SmallVec::new();
        let known = row.keys(&call, &mut keys) == Keys::Known;
        let reader = row.flags.contains(Flags::READONLY) && !row.is_write() && known;
        let writer =
            row.flags.contains(Flags::WRITE) && row.is_write() && known && (!keys.is_empty() || takes_keyword(row));
        let ordinary = (reader || writer) && !row.flags.intersects(special);
        // Commands of unknown modules must be treated as writes of any key.
        let careful = row.is_write() && !known;
        if !(ordinary || row.flags.contains(Flags::MODULE) && careful) {
            undecided.push(&row.name);
        }
        if ordinary {
            let wanted = if row.flags.contains(Flags::BLOCKING) { Class::Blocking } else { Class::Stateless };
            assert_eq!(row.class, wanted, "{}", row.name);
        }
    }
    assert!(undecided.is_empty(), "no decision on {undecided:?}: name them in src/command/decisions.rs");
}

/// Keys behind a word that the call above does not contain.
fn takes_keyword(row: &Row) -> bool {
    row.flags.contains(Flags::MOVABLE_KEYS)
}

#[test]
fn keys_are_those_that_the_server_finds() {
    let redis = Redis::start();
    let table = table_of(&redis);
    let mut client = redis.client();
    let is_old = redis.major() < 7;
    let (mut compared, mut commands_with_keys) = (0_usize, 0_usize);
    for row in all_rows(&table).into_iter().filter(|row| row.subs().is_empty()) {
        let calls = sample_calls(row);
        let asks: Vec<u8> = calls.iter().flat_map(|call| ask_for_keys(call)).collect();
        let mut some = false;
        for (call, reply) in calls.iter().zip(client.pipeline(&asks, calls.len())) {
            let Some(expected) = keys_of_reply(&reply) else { continue };
            let args: Vec<&[u8]> = call.iter().map(Vec::as_slice).collect();
            // Redis 6 takes a password KEYS for the option in COMMAND GETKEYS, though not in MIGRATE itself.
            let is_mistaken = is_old && args[0] == b"MIGRATE" && args.iter().any(|arg| arg.starts_with(b"AUTH"));
            if declares_too_many(&args) || is_never_run(&args) || is_mistaken {
                continue;
            }
            let mut found = SmallVec::new();
            let row = table.resolve(&args);
            let known = row.keys(&args, &mut found);
            let mut found: Vec<&[u8]> = found.iter().map(|at| args[*at as usize]).collect();
            found.sort_unstable();
            let whole = show(&args.join(&b' '));
            assert_eq!(found, expected, "{}: {whole}", row.name);
            // A script's count may be no number. `scripts` decides what it writes besides its keys.
            let is_odd = is_script(&args) && expected.is_empty();
            if !is_odd && !row.flags.contains(Flags::MODULE) {
                assert_eq!(known == Keys::Unknown, ANY_KEY.contains(&&*row.name), "{whole}");
            }
            some |= !expected.is_empty();
            compared += 1;
        }
        commands_with_keys += usize::from(some);
    }
    println!("{compared} calls compared, {commands_with_keys} commands with keys");
    assert!(
        commands_with_keys >= if is_old { 175 } else { 185 },
        "only {commands_with_keys} commands had a call with keys"
    );
    assert!(compared > 20_000, "only {compared} calls");
}

/// A script with more keys than arguments: it is refused when executed, COMMAND GETKEYS only says "no keys", and the table names
/// the existing ones.
fn declares_too_many(args: &[&[u8]]) -> bool {
    let count = || std::str::from_utf8(args[2]).ok()?.parse::<usize>().ok();
    is_script(args) && args.len() > 2 && count().is_some_and(|count| count > args.len() - 3)
}

/// A call that every server refuses for its syntax, and in which some servers find keys other than those of a valid call: an
/// XREADGROUP without a group (Redis 6.2), and STORE in place of GEORADIUS's unit (Valkey 9).
fn is_never_run(args: &[&[u8]]) -> bool {
    let is = |at: usize, word: &str| args.get(at).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
    let stores = |at: usize| is(at, "STORE") || is(at, "STOREDIST");
    (is(0, "xreadgroup") && !is(1, "GROUP"))
        || (is(0, "georadius") && stores(5))
        || (is(0, "georadiusbymember") && stores(4))
}

fn is_script(args: &[&[u8]]) -> bool {
    let name = args[0].to_ascii_lowercase();
    name.starts_with(b"eval") || name.starts_with(b"fcall")
}

/// Calls of different lengths, made of unique words, with a number or a syntax word at each position.
fn sample_calls(row: &Row) -> Vec<Vec<Vec<u8>>> {
    const WORDS: &[&str] = &[
        "0",
        "1",
        "2",
        "3",
        "",
        "STREAMS",
        "STORE",
        "STOREDIST",
        "KEYS",
        "COUNT",
        "LIMIT",
        "BY",
        "GET",
        "AUTH",
        "AUTH2",
    ];
    let name: Vec<Vec<u8>> = row.name.split('|').map(|part| part.as_bytes().to_vec()).collect();
    let least = row.arity.unsigned_abs() as usize;
    let longest = if row.arity < 0 { least + 4 } else { least };
    let mut calls = Vec::new();
    for argc in least.max(name.len())..=longest {
        let mut call = name.clone();
        call.extend((call.len()..argc).map(|at| format!("word{at}").into_bytes()));
        calls.push(call.clone());
        for at in name.len()..argc {
            for word in WORDS {
                let mut with_word = call.clone();
                with_word[at] = word.as_bytes().to_vec();
                calls.push(with_word);
            }
        }
    }
    let more = match &*row.name {
        "migrate" => [
            "MIGRATE h 1 _ 0 9 KEYS a b c",
            "MIGRATE h 1 _ 0 9 COPY REPLACE AUTH KEYS KEYS a b",
            "MIGRATE h 1 _ 0 9 AUTH2 KEYS KEYS KEYS a",
            "MIGRATE h 1 k 0 9 COPY",
        ]
        .as_slice(),
        "sort" => &["SORT k BY STORE GET STORE LIMIT STORE 2 ASC STORE d", "SORT k GET # GET STORE STORE d ALPHA"],
        "georadius" => &["GEORADIUS STORE 1 2 3 m COUNT 2 ANY STORE d", "GEORADIUS k 1 2 3 m WITHDIST STOREDIST d ASC"],
        "georadiusbymember" => &["GEORADIUSBYMEMBER k STORE 3 m ASC STORE d"],
        "xreadgroup" => &["XREADGROUP GROUP STREAMS STREAMS COUNT 2 BLOCK 0 NOACK STREAMS a b c 1 2 3"],
        "xread" => &["XREAD COUNT 2 BLOCK 0 STREAMS STREAMS b 1 2", "XREAD STREAMS a 1"],
        "eval" => &["EVAL s 3 a b c d e", "EVAL s +1 a b"],
        "zunionstore" => &["ZUNIONSTORE d 2 a b WEIGHTS 2 3 AGGREGATE MAX"],
        "mset" => &["MSET a 1 b 2 c 3"],
        "bitop" => &["BITOP AND d a b c"],
        "copy" => &["COPY a b DB 3 REPLACE"],
        _ => &[],
    };
    // `_` stands for an empty argument.
    let word = |word: &str| if word == "_" { Vec::new() } else { word.as_bytes().to_vec() };
    calls.extend(more.iter().map(|line| line.split(' ').map(word).collect()));
    calls
}

fn ask_for_keys(call: &[Vec<u8>]) -> Vec<u8> {
    let mut args: Vec<&[u8]> = vec![b"COMMAND", b"GETKEYS"];
    args.extend(call.iter().map(Vec::as_slice));
    command(&args)
}

/// Sorted. `None` if the server says that the call's syntax is wrong.
fn keys_of_reply(reply: &[u8]) -> Option<Vec<Vec<u8>>> {
    if reply.starts_with(b"-ERR The command has no key arguments") {
        return Some(Vec::new());
    }
    let BytesFrame::Array(keys) = frame(reply.to_vec()) else {
        // The last one: a call of only a name is too short for COMMAND GETKEYS itself.
        let wrong: [&[u8]; 3] =
            [b"-ERR Invalid number of arguments", b"-ERR Invalid arguments", b"-ERR wrong number of arguments for"];
        assert!(wrong.iter().any(|text| reply.starts_with(text)), "{}", show(reply));
        return None;
    };
    let text = |key: BytesFrame| match key {
        BytesFrame::BulkString(key) => key.to_vec(),
        other => panic!("a key is a bulk string, not {other:?}"),
    };
    let mut keys: Vec<Vec<u8>> = keys.into_iter().map(text).collect();
    keys.sort_unstable();
    Some(keys)
}

/// The condition for sharing a lane: exactly one reply, and the connection's state is unchanged.
#[test]
fn a_stateless_command_leaves_nothing_on_its_connection() {
    let redis = Redis::start();
    let table = table_of(&redis);
    let mut client = redis.client();
    let before = connection_state(&mut client);
    let mut calls = 0;
    for row in all_rows(&table) {
        for call in sample_calls(row) {
            let args: Vec<&[u8]> = call.iter().map(Vec::as_slice).collect();
            if table.resolve(&args).class_for(&args) != Class::Stateless || harmful(&args) {
                continue;
            }
            calls += 1;
            client.send(&[command(&args), command(&[b"ECHO", b"behind it"])].concat());
            let whole = show(&args.join(&b' '));
            client.reply();
            assert_eq!(show(&client.reply()), show(b"$9\r\nbehind it\r\n"), "one reply: {whole}");
        }
        assert_eq!(connection_state(&mut client), before, "{}", row.name);
    }
    println!("{calls} calls");
    assert!(calls > 10_000);
}

/// Commands that would stop or disconnect the server, or fail only after a wait.
fn harmful(args: &[&[u8]]) -> bool {
    let name = args[0].to_ascii_lowercase();
    ["migrate", "debug", "client", "replicaof", "slaveof"].contains(&String::from_utf8_lossy(&name).as_ref())
        && !args
            .get(1)
            .is_some_and(|sub| [b"list".as_slice(), b"help", b"getredir", b"trackinginfo", b"caching"].contains(sub))
}

/// The part of CLIENT INFO that a command could change.
fn connection_state(client: &mut Client) -> Vec<String> {
    let info = String::from_utf8(client.cmd("CLIENT INFO")).expect("text");
    let fields = ["id", "name", "flags", "db", "sub", "psub", "ssub", "multi", "user", "redir", "resp"];
    let of = |field: &str| {
        let mut words = info.split_ascii_whitespace();
        words.find_map(|word| word.strip_prefix(field)?.strip_prefix('=')).map(|value| format!("{field}={value}"))
    };
    fields.iter().filter_map(|field| of(field)).collect()
}

/// The reasons for two decisions that look odd.
#[test]
fn commands_that_would_break_a_lane_do_not_use_one() {
    let redis = Redis::start();
    let table = table_of(&redis);
    // Two replies to one command, without any subscription.
    assert_eq!(table.resolve(&[b"UNSUBSCRIBE"]).class, Class::Session);
    let mut client = redis.client();
    client.send(&command(&[b"UNSUBSCRIBE", b"a", b"b"]));
    // Valkey 8.0 replies once that nothing is subscribed.
    if !client.reply().starts_with(b"-NOSUB ") {
        client.reply();
    }
    assert_reply(&client.cmd("PING"), "+PONG\r\n", "that was all");
    // HTTP on a lane would close the lane for all its clients.
    for line in [b"POST".as_slice(), b"Host:"] {
        assert!(matches!(table.resolve(&[line]).class, Class::Refused(_)));
        let mut client = redis.client();
        client.send(&command(&[line, b"x"]));
        assert!(client.until_closed().is_empty());
    }
}
