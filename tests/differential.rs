//! Shortstop is transparent: the same steps go to one Redis directly and to another one through Shortstop, with L1, compression and
//! watching on for all keys, and every reply is compared byte for byte.
//!
//! Calls are generated from the server's own grammar (`COMMAND DOCS`) with a seed: `DIFFERENTIAL_SEED` sets another seed,
//! `DIFFERENTIAL_STEPS` another number of replies. Scenes are in `data/scenes.txt`. `differential/tables.rs` lists what may differ,
//! and why.

mod common;

#[path = "differential/calls.rs"]
mod calls;
#[path = "differential/chance.rs"]
mod chance;
#[path = "differential/docs.rs"]
mod docs;
#[path = "differential/duel.rs"]
mod duel;
#[path = "differential/episodes.rs"]
mod episodes;
#[path = "differential/frame.rs"]
mod frame;
#[path = "differential/how.rs"]
mod how;
#[path = "differential/past.rs"]
mod past;
#[path = "differential/reach.rs"]
mod reach;
#[path = "differential/scenes.rs"]
mod scenes;
#[path = "differential/side.rs"]
mod side;
#[path = "differential/tables.rs"]
mod tables;
#[path = "differential/templates.rs"]
mod templates;
#[path = "differential/values.rs"]
mod values;

use std::collections::BTreeSet;
use std::time::Instant;

use calls::Maker;
use common::{Client, Nats, Redis, Shortstop};
use duel::Duel;
use frame::Frame;
use scenes::Scene;
use shortstop::command::{Flags, Table};
use side::{Call, Step};
use tables::{DIFFERENCES, ERRORS_ONLY, NOT_GENERATED, What};
use templates::{LIBRARIES, SCRIPTS};

/// Minimum number of replies that a generated run compares.
const ANSWERS: usize = 20_000;

/// Everything is kept in L1 at the first request, including missing keys. Everything is compressed that shrinks by a byte, partly
/// on another thread, and partly with zstd.
const SEALING: &str = "defaults:
  cache: { admit_after: 1, negative_ttl: 60s }
  watch: true
  compress: { min_size: 1, min_saving: 0% }
rules: [{ match: '*[02468acegikmoqsuwy]', compress: zstd }]
offload_above: 2kb
plain_for: 0s
";

/// The same without compression.
const NOT_SEALING: &str = "compression: false
defaults:
  cache: { admit_after: 1, negative_ttl: 60s }
  watch: true
";

/// Whether the server is older than `COMMAND DOCS` and most of the scenes. Reported on standard error, because nothing is tested
/// then.
fn is_too_old() -> bool {
    let version = Redis::start().info("redis_version");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let is_old = major.is_some_and(|major| major < 7);
    if is_old {
        eprintln!("not compared: redis-server is {version}, and this test needs 7.0");
    }
    is_old
}

/// A server whose replies depend only on its input: no hash tables where a list is possible, no expiry by itself, no slow log.
fn server() -> Redis {
    let settings = [
        ["--enable-debug-command", "yes"],
        ["--slowlog-log-slower-than", "-1"],
        ["--hash-max-listpack-entries", "1000000"],
        ["--hash-max-listpack-value", "10000000"],
        ["--zset-max-listpack-entries", "1000000"],
        ["--zset-max-listpack-value", "10000000"],
    ];
    let redis = Redis::start_with(settings.as_flattened());
    assert_eq!(redis.client().cmd("DEBUG SET-ACTIVE-EXPIRE 0"), b"+OK\r\n");
    redis
}

fn number_of(variable: &str, otherwise: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// Arguments for RESTORE and EVALSHA, made by the server itself.
fn prepare(maker: &mut Maker, client: &mut Client) {
    let value = |reply: &[u8]| Frame::of(reply).and_then(|frame| frame.text().map(<[u8]>::to_vec)).expect("a value");
    for line in [
        "SET k word",
        "SET k 12345",
        "RPUSH l a b 3",
        "HSET h f1 1 f2 two",
        "ZADD z 1 a 2.5 b",
        "SADD c 1 2 3",
        "XADD x 1-1 f v",
    ] {
        client.cmd(line);
        let key = line.split(' ').nth(1).expect("it has a key");
        maker.values.payloads.push(value(&client.cmd(&format!("DUMP {key}"))));
    }
    for script in SCRIPTS {
        maker.values.shas.push(value(&client.call(&[b"SCRIPT", b"LOAD", script.as_bytes()])));
    }
    client.call(&[b"FUNCTION", b"LOAD", LIBRARIES[0].as_bytes()]);
    maker.values.functions.push(value(&client.cmd("FUNCTION DUMP")));
    for line in ["FUNCTION FLUSH", "SCRIPT FLUSH", "FLUSHALL", "CONFIG RESETSTAT"] {
        client.cmd(line);
    }
}

#[track_caller]
fn run(duel: &mut Duel, steps: &[Step]) {
    duel.run(steps).unwrap_or_else(|what| panic!("{what}"));
}

/// All keys have their usual content, and all connections are in the first database.
fn seed(duel: &mut Duel, maker: &mut Maker) {
    let calls = templates::below("(seeding)").iter().map(|line| Call::new(maker.values.template(line))).collect();
    let back = (0..3).map(|connection| Step::new(connection, vec![Call::of("SELECT 0")]));
    let steps: Vec<Step> = back.chain([Step::new(0, calls)]).collect();
    run(duel, &steps);
}

/// Every command a few times, then random ones, until enough replies are compared.
fn generated(mut duel: Duel, reference: &Redis, answers: usize) {
    let seed_of_all = number_of("DIFFERENTIAL_SEED", 1);
    let answers = number_of("DIFFERENTIAL_STEPS", answers as u64) as usize;
    let started = Instant::now();
    let mut client = reference.client();
    let mut maker = Maker::new(seed_of_all, docs::of(&mut client), duel.sealing, duel.resp3);
    prepare(&mut maker, &mut client);
    duel.title = format!("DIFFERENTIAL_SEED={seed_of_all}, RESP{}", if duel.resp3 { 3 } else { 2 });

    for chunk in maker.each(4).chunks(20) {
        seed(&mut duel, &mut maker);
        let calls = chunk.iter().map(|at| Call::new(maker.command(*at))).collect();
        run(&mut duel, &[Step::new(0, calls)]);
    }
    for episode in 0.. {
        if duel.compared() >= answers {
            break;
        }
        if episode % 40 == 0 {
            seed(&mut duel, &mut maker);
        }
        let steps = episodes::episode(&mut maker, duel.resp3);
        run(&mut duel, &steps);
    }
    duel.holds_the_same().unwrap_or_else(|what| panic!("{what}"));

    let count = |name: &str| duel.counts.get(name).copied().unwrap_or_default();
    let missed: Vec<&str> = maker.commands().filter(|name| count(name).compared + count(name).refused == 0).collect();
    assert!(missed.is_empty(), "never compared: {missed:?}");
    let always_fails = |name: &str| {
        ERRORS_ONLY.iter().any(|one| *one == name || one.strip_suffix('*').is_some_and(|start| name.starts_with(start)))
    };
    let only_errors: Vec<&str> =
        maker.commands().filter(|name| count(name).answered == 0 && !always_fails(name)).collect();
    println!(
        "{}: {} answers of {} commands compared, {} refused, {:.1?}; errors only, by chance, from {only_errors:?}",
        duel.title,
        duel.compared(),
        maker.commands().count(),
        duel.refused(),
        started.elapsed(),
    );
    // A few by chance. More would mean that calls are no longer plausible.
    assert!(only_errors.len() <= 15, "never answered but with an error: {only_errors:?}");
}

/// Calls whose keys are at unusual positions, or in another database.
const FAR_REACHING: &[&str] = &[
    "SORT l1 ALPHA BY nosort STORE far",
    "SORT l1 ALPHA STORE far STORE farther",
    "SORT l1 BY STORE ALPHA GET # STORE far",
    "GEORADIUS g1 15 37 900 km STORE far",
    "GEORADIUS g1 15 37 900 km STOREDIST far COUNT 1 STORE farther",
    "GEORADIUSBYMEMBER g1 Palermo 900 km STOREDIST far",
    "GEOSEARCHSTORE far g1 FROMMEMBER Palermo BYRADIUS 900 km",
    "COPY s1 far DB 3",
    "COPY s1 s2 REPLACE DB 3",
    "COPY db far DB 3",
    "COPY s1 db DB 3 REPLACE",
    "COPY s1 db REPLACE",
    "COPY s1 far DB 3 DB 4",
    "COPY s1 far DB 3 REPLACE DB 0",
    "MOVE s1 3",
    "RENAME s1 far",
    "XAUTOCLAIM x1 gr1 far 0 0",
    "XCLAIM x1 gr1 far 0 1-1",
    "XGROUP CREATE far group $ MKSTREAM",
    "XREADGROUP GROUP gr1 co2 STREAMS x1 >",
    "BITOP NOT far s1",
    "PFMERGE far p1 p2",
    "PFCOUNT p1",
    "ZRANGESTORE far z1 0 -1",
    "LMPOP 2 nothing l1 LEFT COUNT 9",
    "MSETNX far 1 farther 2",
];

/// A row that names too few keys would keep outdated entries in L1.
#[test]
fn no_command_changes_a_key_that_the_table_does_not_name() {
    if is_too_old() {
        return;
    }
    let (redis, target) = (server(), Redis::start());
    let mut client = redis.client();
    let frame = redis_protocol::resp2::decode::decode_bytes(&client.cmd("COMMAND").into());
    let (frame, _) = frame.expect("RESP2").expect("whole");
    let table = Table::from_command(&frame).expect("the reply of a server");
    let mut maker = Maker::new(number_of("DIFFERENTIAL_SEED", 1), docs::of(&mut client), false, false);
    prepare(&mut maker, &mut client);
    let migrations = ["l1 0 500", "_ 0 500 KEYS s1 s2", "s3 0 500 COPY REPLACE", "_ 0 500 COPY KEYS z1"]
        .map(|rest| format!("MIGRATE {} {} {rest}", target.addr().ip(), target.addr().port()));
    let fixed = FAR_REACHING.iter().copied().chain(migrations.iter().map(String::as_str));
    let words = |line: &str| -> Vec<Vec<u8>> {
        line.split(' ').map(|word| if word == "_" { Vec::new() } else { word.as_bytes().to_vec() }).collect()
    };
    let mut calls: Vec<Vec<Vec<u8>>> = fixed.map(words).collect();
    calls.extend(maker.each(15).into_iter().map(|at| maker.command(at)));
    let (mut checked, mut with_effect) = (0, BTreeSet::new());
    for (at, call) in calls.iter().enumerate() {
        let args: Vec<&[u8]> = call.iter().map(Vec::as_slice).collect();
        let Some(named) = reach::named(&table, &args) else { continue };
        if at % 8 == 0 || at < FAR_REACHING.len() + migrations.len() {
            client.cmd("FLUSHALL");
            let lines = templates::below("(seeding)");
            let seeding: Vec<u8> =
                lines.iter().flat_map(|line| common::command(&refs(&maker.values.template(line)))).collect();
            client.pipeline(&seeding, lines.len());
            client.cmd("SET db itself");
        }
        let (reply, changed) = reach::effect(&mut client, &args);
        let whole = common::show(&args.join(&b' '));
        for (db, key) in &changed {
            assert!(
                named.contains(&(*db, key.clone())),
                "{whole} answered {} and changed {} in database {db}",
                common::show(&reply),
                common::show(key)
            );
        }
        if at < FAR_REACHING.len() + migrations.len() {
            // A digest does not cover the groups of a stream.
            let shows_nothing = args[0].starts_with(b"X") || args[0] == b"MIGRATE" && args.contains(&&b"COPY"[..]);
            let is_refused = reply.starts_with(b"-ERR syntax");
            assert!(shows_nothing || is_refused || !changed.is_empty(), "{whole}: {}", common::show(&reply));
        }
        if !changed.is_empty() {
            with_effect.insert(table.resolve(&args).name.to_string());
        }
        checked += 1;
    }
    println!("{checked} calls, {} commands changed something", with_effect.len());
    let writers: Vec<&str> = table
        .rows()
        .flat_map(|row| std::iter::once(row).chain(row.subs()))
        .filter(|row| row.flags.contains(Flags::WRITE) && row.is_write() && row.subs().is_empty())
        .map(|row| row.name.as_ref())
        .collect();
    let idle: Vec<&str> = writers.iter().copied().filter(|name| !with_effect.contains(*name)).collect();
    println!("never changed anything: {idle:?}");
    assert!(idle.len() <= writers.len() / 4, "a run in which little is changed shows little: {idle:?}");
}

fn refs(call: &[Vec<u8>]) -> Vec<&[u8]> {
    call.iter().map(Vec::as_slice).collect()
}

/// Scenes in which Valkey 9 parses a request differently from Redis and Shortstop.
const READ_OTHERWISE: [&str; 2] = ["a quote in the middle of a word", "a bulk is not looked at behind its length"];

fn reads_otherwise(redis: &Redis) -> bool {
    let mut client = redis.client();
    client.send(b"ECHO \"a\"b\r\n");
    client.reply() == b"$2\r\nab\r\n"
}

/// Each scene step by step, and in one write if one connection is enough.
fn played(mut duel: Duel, reference: &Redis, scenes: &[Scene]) {
    let mut failed = Vec::new();
    let loses_errors = reference.loses_errors_of_auth();
    let reads_otherwise = reads_otherwise(reference);
    for scene in scenes {
        if reads_otherwise && READ_OTHERWISE.contains(&scene.name) {
            eprintln!("not compared: this server reads {} otherwise", scene.name);
            continue;
        }
        for (how, steps) in [("step by step", Some(scene.steps())), ("in one write", scene.in_one_write())] {
            let Some(steps) = steps else { continue };
            if how == "in one write" && loses_errors && scene.has_a_wrong_login() {
                eprintln!("not compared in one write: this server does not answer every login in {}", scene.name);
                continue;
            }
            duel.hang_up();
            duel.title = format!("{}, {how}", scene.name);
            duel.clear();
            failed.extend(duel.run(&steps).err());
        }
    }
    assert!(failed.is_empty(), "{} scenes failed\n\n{}", failed.len(), failed.join("\n"));
    // If a server does not always reply to a login in a transaction, Shortstop refuses it; the other Redis is sent an unknown
    // command in its place.
    let logins =
        if reference.has("waitaof") { duel.counts.get("nosuchcommand").map_or(0, |count| count.refused) } else { 0 };
    // EXEC of a client whose watched key has changed, while values are compressed.
    let aborted = duel.counts.get("discard").map_or(0, |count| count.refused);
    assert_eq!(duel.refused(), logins + aborted, "no other call in a scene may be refused");
    println!("{} answers compared in {} scenes", duel.compared(), scenes.len());
}

fn scenes_for(resp3: bool) -> Vec<Scene> {
    let special = scenes::below(if resp3 { "RESP3" } else { "RESP2" });
    scenes::below("both").into_iter().chain(special).collect()
}

/// A Shortstop in front of a Redis, and another Redis to compare with.
struct Field {
    reference: Redis,
    redis: Redis,
    _nats: Nats,
    proxy: Shortstop,
    sealing: bool,
}

impl Field {
    fn new(sealing: bool) -> Field {
        let (reference, redis, nats) = (server(), server(), Nats::start());
        let proxy = Shortstop::in_fleet(&redis, &nats, if sealing { SEALING } else { NOT_SEALING });
        Field { reference, redis, _nats: nats, proxy, sealing }
    }

    fn duel(&self, resp3: bool) -> Duel {
        Duel::new(self.proxy.addr(), &self.redis, &self.reference, resp3, self.sealing)
    }

    fn played(&self, resp3: bool, scenes: &[Scene]) {
        played(self.duel(resp3), &self.reference, scenes);
    }

    /// A generated run. Checks that it exercised what it is for.
    fn generated(&self, resp3: bool) {
        generated(self.duel(resp3), &self.reference, ANSWERS);
        let sealed = ["compressed_values", "zstd_values", "opened_values"];
        let always = ["l1_hits", "l1_misses", "fills", "invalidations_published", "flushes"];
        for name in always.iter().chain(sealed.iter().filter(|_| self.sealing)) {
            let count = self.proxy.stat(name);
            print!("{name} {count}  ");
            assert!(count > 0, "{name} is 0: the run did not test it");
        }
        println!();
    }
}

/// The tables of unstable replies are correct, and the harness itself makes no difference.
#[test]
fn two_servers_without_shortstop_agree() {
    if is_too_old() {
        return;
    }
    for resp3 in [false, true] {
        let (reference, other) = (server(), server());
        let duel = || Duel::new(other.addr(), &other, &reference, resp3, false);
        generated(duel(), &reference, ANSWERS / 2);
        played(duel(), &reference, &scenes_for(resp3));
        played(duel(), &reference, &scenes::below("handshake"));
    }
}

#[test]
fn generated_calls_answer_as_redis_does_while_values_are_compressed() {
    if is_too_old() {
        return;
    }
    Field::new(true).generated(false);
}

#[test]
fn generated_calls_answer_as_redis_does_while_nothing_is_compressed() {
    if is_too_old() {
        return;
    }
    Field::new(false).generated(false);
}

#[test]
fn generated_calls_answer_as_redis_does_in_resp3_while_values_are_compressed() {
    if is_too_old() {
        return;
    }
    Field::new(true).generated(true);
}

#[test]
fn generated_calls_answer_as_redis_does_in_resp3_while_nothing_is_compressed() {
    if is_too_old() {
        return;
    }
    Field::new(false).generated(true);
}

#[test]
fn scenes_answer_as_redis_does() {
    if is_too_old() {
        return;
    }
    for sealing in [true, false] {
        Field::new(sealing).played(false, &scenes_for(false));
    }
}

#[test]
fn scenes_answer_as_redis_does_in_resp3() {
    if is_too_old() {
        return;
    }
    for sealing in [true, false] {
        Field::new(sealing).played(true, &scenes_for(true));
    }
}

#[test]
fn handshakes_answer_as_redis_does() {
    if is_too_old() {
        return;
    }
    for sealing in [true, false] {
        Field::new(sealing).played(false, &scenes::below("handshake"));
    }
}

#[test]
fn every_command_is_generated_or_named_with_a_reason() {
    if is_too_old() {
        return;
    }
    let redis = server();
    let docs = docs::of(&mut redis.client());
    let all: Vec<String> = docs.iter().map(|doc| doc.name.clone()).collect();
    let maker = Maker::new(0, docs, true, false);
    let made: BTreeSet<&str> = maker.commands().collect();
    let not_sent = |name: &str| DIFFERENCES.iter().any(|one| one.command == name && matches!(one.what, What::NotSent));
    let reason = |name: &str| NOT_GENERATED.iter().find(|(one, _)| *one == name).map(|(_, why)| *why);
    let in_scenes: BTreeSet<String> = ["both", "RESP2", "RESP3"]
        .iter()
        .flat_map(|title| scenes::below(title))
        .flat_map(|scene| scene.commands())
        .collect();
    let mut nowhere = Vec::new();
    for name in &all {
        match reason(name) {
            Some(why) if why.starts_with('*') => assert!(in_scenes.contains(name), "{name} is in no scene"),
            Some(_) => nowhere.push(name),
            None => assert!(made.contains(name.as_str()) || not_sent(name), "{name} is neither made nor named"),
        }
    }
    println!("{} commands, {} generated; sent nowhere: {nowhere:?}", all.len(), made.len());
}

#[test]
fn every_difference_is_in_the_documentation() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/compatibility.md");
    let document = std::fs::read_to_string(document).expect("the page is there");
    let (_, section) = document.split_once("\n## What differs from Redis\n").expect("the section is there");
    let section = section.split("\n## ").next().unwrap_or_default();
    let words: Vec<&str> = section.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').collect();
    for difference in DIFFERENCES {
        let name = difference.command.to_ascii_uppercase();
        let name: Vec<&str> = name.split('|').collect();
        let is_there = words.windows(name.len()).any(|words| words == name);
        assert!(is_there, "docs/compatibility.md does not say that {} differs: {}", name.join(" "), difference.why);
    }
}
