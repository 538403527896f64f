//! Scripts and functions: their writes are seen at once, whether declared or not, and scripts that only write declared keys leave
//! the rest of L1 alone.

mod common;

use common::{
    Client, Fault, Nats, Process, Redis, Shortstop, assert_our_error, assert_reply, bulk, command, pipeline_of, show,
    wait_until,
};
use shortstop::command::ScriptBy;
use shortstop::command::Table;
use shortstop::scripts::{Reach, Scripts};

const EAGER: &str = "defaults:\n  cache: { admit_after: 1 }\n";
const RELEASE: &[u8] =
    b"if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";
/// Takes a name as an argument, and builds keys from it.
const MOVE_JOB: &[u8] =
    b"local id = redis.call('incr', KEYS[1] .. 'id') redis.call('hset', KEYS[1] .. id, 'name', ARGV[1]) \
    redis.call('set', KEYS[1] .. 'last', id) return id";
const UNDECLARED: &[u8] = b"return redis.call('set', ARGV[1], ARGV[2])";

fn sha_of(client: &mut Client, text: &[u8]) -> Vec<u8> {
    let reply = client.call(&[b"SCRIPT", b"LOAD", text]);
    reply[5..45].to_vec()
}

fn library(functions: &str) -> Vec<u8> {
    format!("#!lua name=lib\n{functions}").into_bytes()
}

const PUT: &str = "redis.register_function('put', function(keys, args) return redis.call('set', args[1], args[2]) end)";
const LOOK: &str = "redis.register_function{function_name='look', flags={'no-writes'}, \
    callback=function(keys, args) return redis.call('get', args[1]) end}";
const LOOK_AND_WRITE: &str = "redis.register_function{function_name='look', \
    callback=function(keys, args) return redis.call('set', args[1], 'by the function') end}";

/// A write to another key than the declared one.
#[test]
fn a_write_to_a_key_that_is_not_declared_is_seen_at_once() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let (mut reader, mut writer) = (proxy.client(), proxy.client());
    let has_functions = redis.knows("fcall");
    if has_functions {
        assert_reply(&writer.call(&[b"FUNCTION", b"LOAD", &library(PUT)]), "$3\r\nlib\r\n", "loaded");
    }
    let known = sha_of(&mut writer, UNDECLARED);
    let unknown = sha_of(&mut redis.client(), b"return redis.call('SET', ARGV[1], ARGV[2])");
    let cases: &[(&str, &[&[u8]])] = &[
        ("EVAL", &[b"EVAL", UNDECLARED, b"1", b"dummy", b"k"]),
        ("EVAL without keys", &[b"EVAL", UNDECLARED, b"0", b"k"]),
        ("EVALSHA", &[b"EVALSHA", &known, b"1", b"dummy", b"k"]),
        ("EVALSHA of a text that was loaded around the proxy", &[b"EVALSHA", &unknown, b"1", b"dummy", b"k"]),
        ("FCALL", &[b"FCALL", b"put", b"1", b"dummy", b"k"]),
        (
            "EVAL with flags",
            &[b"EVAL", b"#!lua flags=allow-stale\nreturn redis.call('set', ARGV[1], ARGV[2])", b"1", b"dummy", b"k"],
        ),
    ];
    let flushes = proxy.stat("flushes_scripts");
    let mut round = 0;
    for (name, script) in
        cases.iter().filter(|(name, _)| has_functions || !name.contains("F") && !name.contains("flags"))
    {
        for in_multi in [false, true] {
            round += 1;
            let value = format!("new{round}");
            reader.cmd("SET k old");
            assert_reply(&proxy.warm(&mut reader, "k"), "$3\r\nold\r\n", "warm");
            let call = command(&[*script, &[value.as_bytes()]].concat());
            if in_multi {
                let whole = [pipeline_of(&["MULTI", "SET other 1"]), call, pipeline_of(&["EXEC"])].concat();
                writer.pipeline(&whole, 4);
            } else {
                writer.send(&call);
                assert_reply(&writer.reply(), "+OK\r\n", name);
            }
            assert_reply(&reader.cmd("GET k"), bulk(value.as_bytes()), &format!("{name}, in MULTI: {in_multi}"));
            assert_reply(&writer.cmd("GET k"), bulk(value.as_bytes()), name);
        }
    }
    assert_eq!(proxy.stat("flushes_scripts") - flushes, round, "one flush each");
    assert!(proxy.stat("flushes") >= proxy.stat("flushes_scripts"), "a part of all");
}

/// Reads `keys` keys in turn, `rounds` times, with an action between two reads. Returns the share that came from L1.
fn hit_rate(proxy: &Shortstop, rounds: usize, mut between: impl FnMut(usize)) -> f64 {
    const KEYS: usize = 20;
    let mut reader = proxy.client();
    for key in 0..KEYS {
        reader.cmd(&format!("SET key{key} value{key}"));
        proxy.warm(&mut reader, &format!("key{key}"));
    }
    let hits = proxy.stat("l1_hits");
    for round in 0..rounds {
        between(round);
        let key = round % KEYS;
        assert_reply(&reader.cmd(&format!("GET key{key}")), bulk(format!("value{key}").as_bytes()), "the value");
    }
    (proxy.stat("l1_hits") - hits) as f64 / rounds as f64
}

#[test]
fn lock_releases_leave_the_rest_of_l1_alone() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = proxy.client();
    let sha = sha_of(&mut client, RELEASE);
    let alone = hit_rate(&proxy, 400, |_| {});
    let beside = hit_rate(&proxy, 400, |round| {
        client.cmd("SET lock mine NX PX 30000");
        proxy.stat("l1_hits");
        assert_reply(&client.cmd("GET lock"), "$4\r\nmine\r\n", "it is held");
        let released = match round % 3 {
            0 => client.call(&[b"EVAL", RELEASE, b"1", b"lock", b"mine"]),
            1 => client.call(&[b"EVALSHA", &sha, b"1", b"lock", b"mine"]),
            _ => {
                let call = command(&[b"EVALSHA", &sha, b"1", b"lock", b"mine"]);
                let whole = [pipeline_of(&["MULTI"]), call, pipeline_of(&["EXEC"])].concat();
                client.pipeline(&whole, 3).pop().expect("three")[4..].to_vec()
            }
        };
        assert_reply(&released, ":1\r\n", "released");
        assert_reply(&client.cmd("GET lock"), "$-1\r\n", "and seen");
    });
    assert!(beside >= 0.95 * alone && alone > 0.9, "{beside} of {alone}");
    assert_eq!(proxy.stat("flushes_scripts"), 0);
}

#[test]
fn with_patterns_scripts_may_write_matching_keys_and_nothing_is_flushed() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &format!("scripts: [\"bull:*\"]\n{EAGER}"));
    let (mut client, mut other) = (proxy.client(), proxy.client());
    let alone = hit_rate(&proxy, 400, |_| {});
    let beside = hit_rate(&proxy, 400, |round| {
        client.cmd("GET bull:q:last");
        client.cmd("MGET bull:q:last bull:q:last");
        let id = client.call(&[b"EVAL", MOVE_JOB, b"1", b"bull:q:", b"job"]);
        assert_reply(&id, format!(":{}\r\n", round + 1), "moved");
        let expected = bulk((round + 1).to_string().as_bytes());
        for reader in [&mut client, &mut other] {
            assert_reply(&reader.cmd("GET bull:q:last"), &expected, "the last one");
            assert_reply(&reader.cmd("MGET bull:q:last"), [b"*1\r\n", &expected[..]].concat(), "by MGET");
        }
    });
    assert!(beside >= 0.95 * alone && alone > 0.9, "{beside} of {alone}");
    assert_eq!(proxy.stat("flushes_scripts"), 0);
    // A declared key is dropped whatever its name.
    client.cmd("SET k old");
    proxy.warm(&mut other, "k");
    client.call(&[b"EVAL", b"redis.call('set', KEYS[1], 'new') redis.call('set', 'bull:' .. KEYS[1], 1)", b"1", b"k"]);
    assert_reply(&other.cmd("GET k"), "$3\r\nnew\r\n", "declared");
}

#[test]
fn the_setting_is_reloaded() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let (mut reader, mut writer) = (proxy.client(), proxy.client());
    let mut run = |setting: &str, flushes: bool| {
        proxy.reload(&format!("scripts: {setting}\n{EAGER}"));
        wait_until("it is taken up", || {
            let before = proxy.stat("flushes_scripts");
            writer.call(&[b"EVAL", UNDECLARED, b"1", b"dummy", b"mine:k", b"v"]);
            (proxy.stat("flushes_scripts") > before) == flushes
        });
        reader.cmd("SET free old");
        proxy.warm(&mut reader, "free");
        writer.call(&[b"EVAL", UNDECLARED, b"1", b"dummy", b"free", b"new"]);
        reader.cmd("GET free")
    };
    assert_reply(&run("any", true), "$3\r\nnew\r\n", "any");
    assert_reply(&run("declared", false), "$3\r\nold\r\n", "by the user's word");
    assert_reply(&run("any", true), "$3\r\nnew\r\n", "any again");
    assert_reply(&run("[\"mine:*\"]", false), "$3\r\nold\r\n", "by the user's word");
}

#[test]
fn each_shortstop_of_a_fleet_applies_its_own_setting() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let settings = ["any", "declared", "[\"bull:*\"]"];
    let fleet = settings.map(|setting| Shortstop::in_fleet(&redis, &nats, &format!("scripts: {setting}\n{EAGER}")));
    fleet.iter().for_each(|proxy| proxy.wait_stat("peers", |peers| peers == 2));
    let mut clients = fleet.each_ref().map(Shortstop::client);
    for writer in 0..3 {
        redis.client().cmd("SET k first");
        let mut kept = Vec::new();
        for (at, proxy) in fleet.iter().enumerate() {
            kept.push(proxy.settle(&redis, &mut clients[at], "k"));
        }
        let before = fleet.each_ref().map(|proxy| (proxy.stat("flushes_scripts"), proxy.stat("invalidations_applied")));
        for _ in 0..200 {
            clients[writer].send(&command(&[b"EVAL", UNDECLARED, b"1", b"dummy", b"k", b"new"]));
        }
        clients[writer].replies(200);
        for (at, proxy) in fleet.iter().enumerate() {
            if at != writer {
                wait_until("it was heard", || proxy.stat("invalidations_applied") > before[at].1);
            }
            if at == 0 {
                wait_until("the new value is read", || clients[at].cmd("GET k") == b"$3\r\nnew\r\n");
                assert!(proxy.stat("flushes_scripts") > before[at].0, "flushed");
            } else {
                assert_reply(
                    &clients[at].cmd("GET k"),
                    &kept[at],
                    &format!("kept, by the user's word: {}", settings[at]),
                );
                assert_eq!(proxy.stat("flushes_scripts"), before[at].0, "{}", settings[at]);
            }
        }
    }
    assert_eq!(fleet.iter().map(|proxy| proxy.stat("unreadable")).sum::<u64>(), 0);
}

#[test]
fn a_lost_script_quarantines_what_it_may_have_written() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    for (setting, in_doubt) in [("any", ["k", "dummy"]), ("declared", ["dummy", "dummy"])] {
        let proxy = Shortstop::to(wire.addr(), &format!("scripts: {setting}\n{EAGER}"));
        let mut client = proxy.client();
        client.cmd("MSET k old dummy old free old");
        proxy.warm(&mut client, "k");
        wire.lose_reply_to(b"EVAL\r\n", || client.send(&command(&[b"EVAL", UNDECLARED, b"1", b"dummy", b"k", b"new"])));
        assert_our_error(&client.reply(), "lost");
        wait_until("connected again", || client.cmd("PING") == b"+PONG\r\n");
        for key in in_doubt {
            for round in 0..4 {
                redis.client().cmd(&format!("SET {key} {round}"));
                assert_reply(&client.cmd(&format!("GET {key}")), bulk(round.to_string().as_bytes()), setting);
            }
        }
        if setting == "declared" {
            proxy.warm(&mut client, "free");
        }
    }
}

#[test]
fn nothing_is_kept_while_a_script_that_may_write_anything_is_in_flight() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), EAGER);
    let (mut writer, mut reader) = (proxy.client(), proxy.client());
    // Another connection to Redis than the writer's.
    reader.cmd("SELECT 1");
    writer.cmd("SET k old");
    reader.cmd("SET k old");
    proxy.warm(&mut reader, "k");
    wire.hold_replies_to(b"EVAL\r\n");
    let script = b"redis.call('select', 1) return redis.call('set', ARGV[1], ARGV[2])";
    writer.send(&command(&[b"EVAL", script, b"0", b"k", b"new"]));
    wire.wait_caught();
    let mut direct = redis.client();
    direct.cmd("SELECT 1");
    wait_until("it was executed", || direct.cmd("GET k") == b"$3\r\nnew\r\n");
    let hits = proxy.stat("l1_hits");
    for round in 0..4 {
        direct.cmd(&format!("SET k {round}"));
        assert_reply(&reader.cmd("GET k"), bulk(round.to_string().as_bytes()), "from Redis");
    }
    assert_eq!(proxy.stat("l1_hits"), hits, "nothing came from L1");
    wire.release();
    assert_reply(&writer.reply(), "+OK\r\n", "answered");
    assert_reply(&proxy.warm(&mut reader, "k"), "$1\r\n3\r\n", "and kept again");
}

/// Whether a call of `look` leaves L1 unchanged.
fn is_a_read(proxy: &Shortstop, client: &mut Client) -> bool {
    let before = proxy.stat("flushes_scripts");
    client.cmd("FCALL look 0 other");
    proxy.stat("flushes_scripts") == before
}

#[test]
fn a_function_without_writes_is_known_and_a_change_is_noticed() {
    let redis = Redis::start();
    if !redis.knows("fcall") {
        return;
    }
    let nats = Nats::start();
    let one = Shortstop::in_fleet(&redis, &nats, EAGER);
    let other = Shortstop::in_fleet(&redis, &nats, EAGER);
    one.wait_stat("peers", |peers| peers == 1);
    let (mut client, mut there) = (one.client(), other.client());
    let load = |client: &mut Client, functions: &str| {
        let reply = client.call(&[b"FUNCTION", b"LOAD", b"REPLACE", &library(functions)]);
        assert_reply(&reply, "$3\r\nlib\r\n", "loaded");
    };
    let mut direct = redis.client();
    for round in 0..3 {
        load(&mut client, LOOK);
        wait_until("the flag is known", || is_a_read(&one, &mut client));
        wait_until("the flag is known there", || is_a_read(&other, &mut there));
        client.cmd("SET k old");
        wait_until("seen there", || there.cmd("GET k") == b"$3\r\nold\r\n");
        one.warm(&mut client, "k");
        other.warm(&mut there, "k");
        // The function is replaced: through this Shortstop, through the other, directly in Redis.
        match round {
            0 => load(&mut client, LOOK_AND_WRITE),
            1 => load(&mut there, LOOK_AND_WRITE),
            _ => load(&mut direct, LOOK_AND_WRITE),
        }
        assert_reply(&client.cmd("FCALL look 0 k"), "+OK\r\n", "it writes");
        if round == 0 {
            assert_reply(&client.cmd("GET k"), "$15\r\nby the function\r\n", "at once");
        }
        wait_until("the write is seen", || client.cmd("GET k") == b"$15\r\nby the function\r\n");
        wait_until("the write is seen there", || there.cmd("GET k") == b"$15\r\nby the function\r\n");
        assert!(!is_a_read(&one, &mut client), "it may write now");
    }
    let before = one.stat("flushes_scripts");
    client.cmd("FCALL_RO look 0 k");
    client.call(&[b"EVAL_RO", UNDECLARED, b"0", b"k", b"v"]);
    client.call(&[b"EVAL", b"#!lua flags=no-writes\nreturn loadstring(ARGV[1])()", b"0", b"return 1"]);
    assert_eq!(one.stat("flushes_scripts"), before, "these cannot write");
}

/// A function that counted as one that cannot write, and was replaced before the call was executed.
#[test]
fn a_call_whose_function_was_replaced_meanwhile_counts_as_a_write() {
    let redis = Redis::start();
    if !redis.knows("fcall") {
        return;
    }
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), EAGER);
    let (mut caller, mut loader) = (proxy.client(), proxy.client());
    loader.cmd("SELECT 1");
    loader.call(&[b"FUNCTION", b"LOAD", &library(LOOK)]);
    wait_until("the flag is known", || is_a_read(&proxy, &mut caller));
    caller.cmd("SET k old");
    // Over another connection to Redis.
    let mut reader = proxy.client().speaking(3);
    reader.cmd("GET k");
    wire.hold_request(b"FCALL\r\n");
    caller.send(&pipeline_of(&["FCALL look 0 k"]));
    wire.wait_held();
    let replaced = loader.call(&[b"FUNCTION", b"LOAD", b"REPLACE", &library(LOOK_AND_WRITE)]);
    assert_reply(&replaced, "$3\r\nlib\r\n", "replaced");
    assert_reply(&proxy.warm(&mut reader, "k"), "$3\r\nold\r\n", "kept before the call is executed");
    wire.release();
    assert_reply(&caller.reply(), "+OK\r\n", "executed, as a write");
    assert_reply(&reader.cmd("GET k"), "$15\r\nby the function\r\n", "and seen");
}

#[test]
fn the_log_names_each_script_once_and_says_what_to_do() {
    let redis = Redis::start();
    let proxy = Process::start(redis.addr(), EAGER);
    let mut client = proxy.client();
    let sha = String::from_utf8(sha_of(&mut client, UNDECLARED)).expect("hexadecimal");
    for _ in 0..3 {
        client.call(&[b"EVAL", UNDECLARED, b"1", b"secret-key", b"secret-key", b"v"]);
        client.call(&[b"EVALSHA", sha.as_bytes(), b"1", b"secret-key", b"secret-key", b"v"]);
        client.call(&[b"EVAL", RELEASE, b"1", b"secret-key", b"v"]);
        client.cmd("EVALSHA ffffffffffffffffffffffffffffffffffffffff 1 secret-key");
    }
    let lines = |needle: &str| proxy.log().lines().filter(|line| line.contains(needle)).count();
    wait_until("it is logged", || lines("L1 is flushed each time") >= 2);
    assert_eq!(lines(&format!("L1 is flushed each time that script {sha} runs")), 1, "{}", proxy.log());
    assert_eq!(lines("L1 is flushed each time that script ffffffffffffffffffffffffffffffffffffffff"), 1);
    assert_eq!(lines("L1 is flushed each time"), 2, "{}", proxy.log());
    assert_eq!(lines("scripts: declared"), 2, "what to do");
    // One warning for each script that may read strings of keys that it does not declare.
    assert_eq!(
        lines("script ffffffffffffffffffffffffffffffffffffffff may read compressed values"),
        1,
        "{}",
        proxy.log()
    );
    assert_eq!(lines("may read compressed values"), 1, "the texts of the others prove that they do not");
    assert_eq!(lines("compress: false"), 1);
    client.cmd("FCALL_RO secret 1 secret-key");
    client.cmd("FCALL nosuch 1 secret-key");
    if redis.knows("fcall") {
        wait_until("functions, too", || lines("function secret may read compressed values") == 1);
    }
    assert_eq!(lines("secret-key"), 0, "never a key");
    let quiet = Process::start(redis.addr(), "compression: false\n");
    quiet.client().call(&[b"EVAL", b"return 1", b"0"]);
    assert!(!quiet.log().contains("compressed"), "{}", quiet.log());
}

fn proven() -> Vec<&'static str> {
    include_str!("data/proven_scripts.txt").split("====\n").skip(1).map(str::trim_end).collect()
}

/// Keys of every type. The first two are declared.
const SEED: [&str; 8] = [
    "FLUSHALL",
    "SET one mine",
    "SET two 5",
    "SET three mine",
    "RPUSH four a b c",
    "HSET five start 1 end 9 count 2",
    "ZADD six 1 a 2 b",
    "SET mine one",
];
const NAMES: [&str; 8] = ["one", "two", "three", "four", "five", "six", "mine", "k"];

/// The content of each key.
fn contents(client: &mut Client) -> Vec<Vec<u8>> {
    let asks: Vec<String> = NAMES.iter().map(|name| format!("DUMP {name}")).chain(["KEYS *".to_owned()]).collect();
    client.pipeline(&pipeline_of(&asks), asks.len())
}

/// Runs a script and returns the undeclared keys that it changed.
fn undeclared_changes(client: &mut Client, text: &[u8], keys: &[&str; 2], args: &[&[u8]]) -> Vec<String> {
    client.pipeline(&pipeline_of(&SEED), SEED.len());
    let before = contents(client);
    let call = [&[b"EVAL", text, b"2", keys[0].as_bytes(), keys[1].as_bytes()], args].concat();
    client.call(&call);
    let after = contents(client);
    let changed =
        before.iter().zip(&after).zip(NAMES).filter(|((before, after), _)| before != after).map(|(_, name)| name);
    let mut changed: Vec<String> = changed.filter(|name| !keys.contains(name)).map(str::to_owned).collect();
    let names = String::from_utf8_lossy(&after[NAMES.len()]).into_owned();
    let others = names.split("\r\n").filter(|word| !word.is_empty() && !word.starts_with(['*', '$']));
    changed.extend(others.filter(|name| !NAMES.contains(name) && !keys.contains(name)).map(str::to_owned));
    changed
}

/// The proof, checked against Redis itself: a script that passes changes no undeclared key, however its text is mutated.
#[test]
fn no_script_that_passes_changes_a_key_that_it_does_not_declare() {
    const PIECES: [&str; 24] = [
        "KEYS",
        "ARGV",
        "KEYS[1]",
        "KEYS[2]",
        "ARGV[1]",
        "'k'",
        "'three'",
        "redis.call('set', 'k', 1)",
        "redis.call('del', KEYS[2])",
        "redis.call('set', KEYS[1], 'x')",
        "redis.call('rename', KEYS[1], 'k')",
        "unpack(ARGV)",
        "unpack(KEYS)",
        "KEYS[1] = 'k'",
        "local KEYS = ARGV",
        "local r = redis",
        "=",
        ",",
        "..",
        "(",
        ")",
        "'",
        "--",
        " ",
    ];
    let redis = Redis::start();
    let mut client = redis.client();
    let (scripts, table) = (Scripts::default(), Table::builtin());
    let seed = std::env::var("SHORTSTOP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut state: u64 = seed;
    let mut below = |bound: usize| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    let is_proven =
        |text: &str| !matches!(scripts.judge(&table, ScriptBy::Text, text.as_bytes(), false).reach, Reach::Anything(_));
    let arguments: [&[&[u8]]; 3] =
        [&[b"mine", b"60", b"3", b"1"], &[b"k", b"three", b"2", b"9"], &[b"5", b"1", b"3", b"mine"]];
    let keys = [["one", "two"], ["four", "two"], ["five", "six"], ["six", "four"]];
    for text in proven() {
        assert!(is_proven(text), "{text}");
        for (args, keys) in arguments.iter().flat_map(|args| keys.iter().map(move |keys| (args, keys))) {
            assert_eq!(undeclared_changes(&mut client, text.as_bytes(), keys, args), [""; 0], "{text}");
        }
    }
    // A mutation that makes a loop endless would require killing the script.
    let texts: Vec<&str> =
        proven().into_iter().filter(|text| !text.contains("while") && !text.contains("repeat")).collect();
    let (mut passed, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut text = texts[below(texts.len())].to_owned();
        for _ in 0..=below(3) {
            let (from, to) = (below(text.len() + 1), below(12));
            let to = (from + to).min(text.len());
            if !text.is_char_boundary(from) || !text.is_char_boundary(to) {
                continue;
            }
            match below(3) {
                0 => text.replace_range(from..to, ""),
                1 => text.insert_str(from, PIECES[below(PIECES.len())]),
                _ => {
                    let copied = text[from..to].to_owned();
                    let mut at = below(text.len() + 1);
                    while !text.is_char_boundary(at) {
                        at -= 1;
                    }
                    text.insert_str(at, &copied);
                }
            }
        }
        if !is_proven(&text) {
            refused += 1;
            continue;
        }
        passed += 1;
        let (args, keys) = (arguments[below(3)], &keys[below(4)]);
        let changed = undeclared_changes(&mut client, text.as_bytes(), keys, args);
        assert!(changed.is_empty(), "{changed:?} with KEYS {keys:?} and ARGV {}: {text}", show(&args.join(&b' ')));
    }
    println!("{passed} passed, {refused} did not");
    assert!(passed > 500 && refused > 5_000, "{passed} passed, {refused} did not: a run of one kind shows nothing");
}
