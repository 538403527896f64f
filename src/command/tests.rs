//! Tests of the command table: the properties of each command, and that strange calls and replies do no harm.

use std::collections::BTreeSet;

use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use redis_protocol::resp2::types::BytesFrame;
use smallvec::SmallVec;

use super::cacheable::Ends;
use super::table::BUILTIN;
use super::{
    Class, ClientSubcommand, Facts, Flags, Keys, ProxySubcommand, Row, ScriptBy, StringOp, Table, TableError, Verb,
    entry,
};
use crate::reads::Reads;

fn all_rows(table: &Table) -> impl Iterator<Item = &Row> {
    table.rows().flat_map(|row| std::iter::once(row).chain(row.subs()))
}

fn names(table: &Table, wanted: impl Fn(&Row) -> bool) -> Vec<&str> {
    let found: BTreeSet<&str> = all_rows(table).filter(|row| wanted(row)).map(|row| &*row.name).collect();
    found.into_iter().collect()
}

fn words(text: &str) -> Vec<&str> {
    text.split_ascii_whitespace().collect()
}

fn call(line: &str) -> Vec<&[u8]> {
    line.split(' ').map(str::as_bytes).collect()
}

fn keys<'a>(table: &Table, line: &'a str) -> (Keys, Vec<&'a str>) {
    let mut found = SmallVec::new();
    let known = table.resolve(&call(line)).keys(&call(line), &mut found);
    let words: Vec<&str> = line.split(' ').collect();
    (known, found.iter().map(|at| words[*at as usize]).collect())
}

/// A table of rows in the format of `builtin.tsv`.
fn table_of(lines: &str) -> Table {
    let entries = entry::from_lines(lines).expect("well formed");
    let ends = Ends::of(&entries);
    Table::build(entries, ends)
}

fn known<'a>(keys: &[&'a str]) -> (Keys, Vec<&'a str>) {
    (Keys::Known, keys.to_vec())
}

#[test]
fn every_name_is_found_in_any_case() {
    let table = Table::builtin();
    for row in table.rows() {
        let lower = row.name.as_bytes();
        let upper = lower.to_ascii_uppercase();
        let mixed: Vec<u8> =
            lower.iter().zip(&upper).enumerate().map(|(at, (l, u))| if at % 2 == 0 { *u } else { *l }).collect();
        for name in [lower, &upper, &mixed] {
            assert_eq!(table.get(name).map(|found| &found.name), Some(&row.name));
        }
        for sub in row.subs() {
            let own = &sub.name[row.name.len() + 1..];
            assert_eq!(row.sub(own.to_ascii_uppercase().as_bytes()).map(|found| &found.name), Some(&sub.name));
            assert_eq!(table.resolve(&[lower, own.as_bytes()]).name, sub.name);
        }
    }
}

#[test]
fn other_names_are_not_found() {
    let table = Table::builtin();
    // The last two differ from GET and PING only in the bit that the hash folds.
    let others: [&[u8]; 9] =
        [b"", b"g", b"gett", b"ge", b"config|get", &[b'a'; 5000], b"\xff\xfe", b"G\x05T", b"P\x09NG"];
    for name in others {
        assert!(table.get(name).is_none(), "{}", name.escape_ascii());
    }
    let row = table.resolve(&[b"nobody.knows"]);
    assert!(row.is_write() && !row.retry_safe() && row.class == Class::Session && row.arity_ok(1));
    assert_eq!(keys(&table, "nobody.knows a"), (Keys::Unknown, vec![]));
    assert!(table.resolve(&[]).is_write());
}

proptest! {
    #[test]
    fn a_look_up_is_a_comparison(name in "[a-zA-Z|]{0,12}") {
        let table = Table::builtin();
        let lower = name.to_ascii_lowercase();
        prop_assert_eq!(table.get(name.as_bytes()).is_some(), table.rows().any(|row| *row.name == *lower));
    }

    #[test]
    fn a_strange_call_gives_indices_within_it(name in 0_usize..300, args in proptest::collection::vec("[0-9]{0,20}|[a-z]{0,3}|STORE|STREAMS|KEYS|-1|\\+2", 0..9)) {
        let table = Table::builtin();
        let rows: Vec<&Row> = all_rows(&table).collect();
        let row = rows[name % rows.len()];
        let args: Vec<&[u8]> = args.iter().map(String::as_bytes).collect();
        let mut found = SmallVec::new();
        row.keys(&args, &mut found);
        let _ = row.class_for(&args);
        prop_assert_eq!(found.iter().find(|at| **at as usize >= args.len()), None);
    }

    #[test]
    fn a_strange_reply_is_refused_or_read(reply in strange_frame()) {
        if let Ok(table) = Table::from_command(&reply) {
            prop_assert_eq!(table.get(b"proxy").map(|row| row.verb), Some(Verb::Proxy(ProxySubcommand::Other)));
        }
    }
}

/// Frames that resemble a row of COMMAND.
fn strange_frame() -> impl Strategy<Value = BytesFrame> {
    let word = proptest::sample::select(words(
        "get flags RW begin_search find_keys type index range spec lastkey keystep write",
    ));
    let leaf = prop_oneof![
        Just(BytesFrame::Null),
        any::<i64>().prop_map(BytesFrame::Integer),
        (-3_i64..9).prop_map(BytesFrame::Integer),
        word.prop_map(|word| BytesFrame::BulkString(word.into())),
    ];
    leaf.prop_recursive(6, 200, 10, |inner| proptest::collection::vec(inner, 0..11).prop_map(BytesFrame::Array))
}

#[test]
fn classes_of_all_commands() {
    let table = Table::builtin();
    assert_eq!(
        names(&table, |row| row.class == Class::Session),
        words(
            "asking client client|no-evict client|tracking client|unpause function|kill function|stats monitor multi \
             psubscribe psync punsubscribe readonly readwrite replconf script|debug script|kill shutdown ssubscribe \
             subscribe sunsubscribe sync unsubscribe watch"
        )
    );
    assert_eq!(
        names(&table, |row| row.class == Class::Blocking),
        words("blmove blmpop blpop brpop brpoplpush bzmpop bzpopmax bzpopmin wait xread xreadgroup")
    );
    assert_eq!(
        names(&table, |row| row.class == Class::Local && !row.name.starts_with("proxy|")),
        words(
            "auth client|getname client|getredir client|id client|info client|kill client|list client|reply \
             client|setname client|trackinginfo client|unblock hello proxy quit reset select"
        )
    );
    assert_eq!(names(&table, |row| matches!(row.class, Class::Refused(_))), words("host: post"));
}

#[test]
fn facts_of_all_commands() {
    let table = Table::builtin();
    let of = |fact: Facts| names(&table, |row| row.facts.contains(fact));
    assert_eq!(of(Facts::LEAVES_NOTHING), words("client|unpause function|kill function|stats script|kill shutdown"));
    assert_eq!(
        of(Facts::NEEDS_ENABLING),
        words("debug module module|help module|list module|load module|loadex module|unload")
    );
    assert_eq!(
        of(Facts::REVEALS_STRINGS),
        words(
            "append bitcount bitfield bitfield_ro bitop bitpos dump eval eval_ro evalsha evalsha_ro fcall fcall_ro getbit getrange \
             lcs setbit setrange strlen substr"
        )
    );
    assert_eq!(of(Facts::CHANGES_NOTHING_IN_SCRIPTS), words("echo ping publish spublish time"));
    assert_eq!(of(Facts::WRITES_UNFLAGGED), words("pfcount"));
    let reads = names(&table, |row| row.flags.contains(Flags::READONLY) && !row.is_write());
    let silent = words("memory|usage object|encoding object|freq object|idletime object|refcount pttl touch ttl");
    assert_eq!(of(Facts::REVEALS), reads.into_iter().filter(|name| !silent.contains(name)).collect::<Vec<_>>());
}

#[test]
fn commands_of_newer_servers_that_libraries_send_at_once_are_known_before_the_server_is_asked() {
    let table = Table::until_asked();
    let verb = |line: &str| table.resolve(&call(line)).verb;
    assert_eq!(verb("WAITAOF 1 0 0"), Verb::Wait);
    assert_eq!(verb("client SetInfo lib-name x"), Verb::Client(ClientSubcommand::SetInfo));
    assert_eq!(verb("client setinfo lib-name"), Verb::Client(ClientSubcommand::Other));
    assert_eq!(verb("client unheard-of lib-name x"), Verb::Client(ClientSubcommand::Other));
    for (line, unknown) in [("WAITAOF 1 0 0", true), ("client setinfo lib-name x", false), ("nobody.knows", true)] {
        let row = table.resolve(&call(line));
        assert_eq!((row.is_unknown(), row.is_write(), row.number), (unknown, unknown, 0), "{line}");
        assert_eq!(row.class, Class::Session, "{line}");
    }
}

#[test]
fn verbs_of_all_commands() {
    let table = Table::builtin();
    let of = |verb: Verb| names(&table, |row| row.verb == verb);
    assert_eq!(
        names(&table, |row| matches!(row.verb, Verb::StringOp(_))),
        words("append bitcount bitfield bitfield_ro bitop bitpos getbit getrange lcs setbit setrange strlen substr")
    );
    assert_eq!(names(&table, |row| matches!(row.verb, Verb::Script(_))), words("eval evalsha fcall"));
    assert_eq!(names(&table, |row| matches!(row.verb, Verb::ScriptRo(_))), words("eval_ro evalsha_ro fcall_ro"));
    assert_eq!(names(&table, Row::is_client).len(), 17);
    assert_eq!(of(Verb::Http), words("host: post"));
    assert_eq!(of(Verb::Publish), words("publish spublish"));
    assert_eq!(of(Verb::Blocking), words("blmove blmpop blpop brpop brpoplpush bzmpop bzpopmax bzpopmin"));
    for (verb, name) in [
        (Verb::Get, "get"),
        (Verb::StringOp(StringOp::Append), "append"),
        (Verb::StringOp(StringOp::SetRange), "setrange"),
        (Verb::StringOp(StringOp::BitOp), "bitop"),
        (Verb::StringOp(StringOp::BitField), "bitfield"),
        (Verb::StringOp(StringOp::BitFieldRo), "bitfield_ro"),
        (Verb::StringOp(StringOp::Lcs), "lcs"),
        (Verb::Script(ScriptBy::Text), "eval"),
        (Verb::Script(ScriptBy::Sha), "evalsha"),
        (Verb::Script(ScriptBy::Function), "fcall"),
        (Verb::ScriptRo(ScriptBy::Text), "eval_ro"),
        (Verb::ScriptRo(ScriptBy::Sha), "evalsha_ro"),
        (Verb::ScriptRo(ScriptBy::Function), "fcall_ro"),
        (Verb::ScriptDebug, "script|debug"),
        (Verb::Wait, "wait"),
        (Verb::PubSubChannels, "pubsub|channels"),
        (Verb::AclSetUser, "acl|setuser"),
        (Verb::AclDelUser, "acl|deluser"),
        (Verb::AclLoad, "acl|load"),
        (Verb::ConfigSet, "config|set"),
        (Verb::Client(ClientSubcommand::Id), "client|id"),
        (Verb::Client(ClientSubcommand::Info), "client|info"),
        (Verb::Client(ClientSubcommand::List), "client|list"),
        (Verb::Client(ClientSubcommand::Kill), "client|kill"),
        (Verb::Client(ClientSubcommand::Unblock), "client|unblock"),
        (Verb::Client(ClientSubcommand::SetName), "client|setname"),
        (Verb::Client(ClientSubcommand::GetName), "client|getname"),
        (Verb::Client(ClientSubcommand::Reply), "client|reply"),
        (Verb::Client(ClientSubcommand::Tracking), "client|tracking"),
        (Verb::Client(ClientSubcommand::Switch), "client|no-evict"),
        (Verb::MGet, "mget"),
        (Verb::Set, "set"),
        (Verb::SetEx, "setex"),
        (Verb::PSetEx, "psetex"),
        (Verb::SetNx, "setnx"),
        (Verb::MSet, "mset"),
        (Verb::MSetNx, "msetnx"),
        (Verb::GetSet, "getset"),
        (Verb::GetDel, "getdel"),
        (Verb::GetEx, "getex"),
        (Verb::Sort, "sort"),
        (Verb::SortRo, "sort_ro"),
        (Verb::FlushAll, "flushall"),
        (Verb::FlushDb, "flushdb"),
        (Verb::SwapDb, "swapdb"),
        (Verb::Move, "move"),
        (Verb::Copy, "copy"),
        (Verb::Migrate, "migrate"),
        (Verb::Multi, "multi"),
        (Verb::Exec, "exec"),
        (Verb::Discard, "discard"),
        (Verb::Watch, "watch"),
        (Verb::Unwatch, "unwatch"),
        (Verb::Subscribe, "subscribe"),
        (Verb::PSubscribe, "psubscribe"),
        (Verb::SSubscribe, "ssubscribe"),
        (Verb::Unsubscribe, "unsubscribe"),
        (Verb::PUnsubscribe, "punsubscribe"),
        (Verb::SUnsubscribe, "sunsubscribe"),
        (Verb::Monitor, "monitor"),
        (Verb::XRead, "xread"),
        (Verb::XReadGroup, "xreadgroup"),
        (Verb::Select, "select"),
        (Verb::Quit, "quit"),
        (Verb::Reset, "reset"),
        (Verb::Hello, "hello"),
        (Verb::Auth, "auth"),
        (Verb::Info, "info"),
        (Verb::Proxy(ProxySubcommand::Other), "proxy"),
        (Verb::Asking, "asking"),
        (Verb::ReadOnly, "readonly"),
        (Verb::ReadWrite, "readwrite"),
        (Verb::Shutdown, "shutdown"),
        (Verb::Debug, "debug"),
    ] {
        assert_eq!(of(verb), [name]);
    }
}

/// As in `docs/coherence.md`: the server's flags, with corrections.
#[test]
fn writes_are_the_flagged_commands_and_the_corrections() {
    let table = Table::builtin();
    let unflagged = names(&table, |row| row.is_write() && !row.flags.contains(Flags::WRITE));
    assert_eq!(
        unflagged,
        words(
            "acl|deluser acl|load acl|setuser cluster|delslots cluster|delslotsrange cluster|failover \
             cluster|flushslots cluster|replicate cluster|reset cluster|setslot config|set debug eval evalsha failover \
             fcall module|load module|loadex pfcount replicaof slaveof"
        )
    );
    assert!(all_rows(&table).all(|row| row.is_write() || !row.flags.contains(Flags::WRITE)));
    let any_key = names(&table, |row| {
        let mut found = SmallVec::new();
        let args = call("name a b c d e f");
        row.flags.contains(Flags::WRITE) && row.keys(&args, &mut found) == Keys::Unknown && found.is_empty()
    });
    assert_eq!(
        any_key,
        words(
            "blmpop bzmpop flushall flushdb function|delete function|flush function|load function|restore lmpop swapdb zmpop"
        ),
        "the mpops: a count that is none"
    );
}

#[test]
fn only_commands_that_change_nothing_are_repeated() {
    let table = Table::builtin();
    for row in all_rows(&table).filter(|row| row.retry_safe()) {
        assert!(!row.is_write() && !row.flags.contains(Flags::WRITE), "{}", row.name);
    }
    let asked = names(&table, |row| row.retry_safe() && !row.flags.contains(Flags::READONLY));
    assert_eq!(
        asked,
        words(
            "cluster|info cluster|keyslot cluster|nodes cluster|shards cluster|slots command command|count \
             command|docs command|getkeys command|getkeysandflags command|help command|info command|list \
             config|get echo info lastsave ping pubsub pubsub|channels pubsub|help pubsub|numpat pubsub|numsub \
             pubsub|shardchannels pubsub|shardnumsub role script|exists time"
        )
    );
    let held_back = names(&table, |row| row.flags.contains(Flags::READONLY) && !row.retry_safe());
    assert_eq!(held_back, ["pfcount"]);
}

#[test]
fn keys_of_calls() {
    let table = Table::builtin();
    for (line, keys_of_it) in [
        ("GET k", known(&["k"])),
        ("MSET a 1 b 2", known(&["a", "b"])),
        ("XREAD BLOCK 0 STREAMS a b 0 0", known(&["a", "b"])),
        ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", known(&["d", "a", "b"])),
        ("BLPOP a b 0", known(&["a", "b"])),
        ("OBJECT FREQ k", known(&["k"])),
        ("MEMORY USAGE k SAMPLES 5", known(&["k"])),
        ("EVAL s 1 a b", known(&["a"])),
        ("SORT a BY w_* GET STORE LIMIT 0 1 STORE d", known(&["a", "d"])),
        ("SORT_RO a BY w_*", known(&["a"])),
        ("GEORADIUS a 1 2 3 m STORE d STOREDIST e", known(&["a", "d", "e"])),
        ("GEORADIUSBYMEMBER a STORE 3 m STOREDIST STORE STORE d", known(&["a", "STORE", "d"])),
        ("MIGRATE h 1  0 9 AUTH KEYS KEYS a b", known(&["a", "b"])),
        ("SPUBLISH c m", known(&[])),
        ("DBSIZE", known(&[])),
        ("CONFIG GET a", known(&[])),
        ("ACL GETUSER a", known(&[])),
        // `scripts` decides what else it writes.
        ("EVAL s 0", known(&[])),
        ("DEBUG SLEEP 0", known(&[])),
        // Cannot be known.
        ("MODULE LOAD m.so", (Keys::Unknown, vec![])),
        ("FUNCTION FLUSH", (Keys::Unknown, vec![])),
        ("EVAL s x a", (Keys::Unknown, vec![])),
        ("FLUSHALL", (Keys::Unknown, vec![])),
        ("DEBUG RELOAD", (Keys::Unknown, vec![])),
        ("CONFIG SET a b", (Keys::Unknown, vec![])),
        ("ACL SETUSER a on", (Keys::Unknown, vec![])),
        // A read-only script cannot write, whatever it declares.
        ("EVAL_RO s 0", known(&[])),
        // Redis refuses these.
        ("EVAL s 99999999999999999999 a b", known(&["a", "b"])),
        ("GET", known(&[])),
        ("MSET a 1 b", known(&["a", "b"])),
    ] {
        assert_eq!(keys(&table, line), keys_of_it, "{line}");
    }
}

/// Rights: a user may have lost the right to entries that were kept for it.
#[test]
fn changes_of_rights_may_change_any_key_and_queries_of_rights_may_not() {
    let table = Table::builtin();
    let any_key = names(&table, |row| {
        let about = row.name.starts_with("acl") || row.name.starts_with("config");
        let mut keys = SmallVec::new();
        about && row.is_write() && row.keys(&[b"x"], &mut keys) == Keys::Unknown
    });
    assert_eq!(any_key, words("acl|deluser acl|load acl|setuser config|set"));
    let harmless = names(&table, |row| row.name.starts_with("acl") && !row.is_write());
    assert_eq!(
        harmless,
        words("acl acl|cat acl|dryrun acl|genpass acl|getuser acl|help acl|list acl|log acl|save acl|users acl|whoami")
    );
}

/// The reads that a rule may name are exactly those that the table keeps.
#[test]
fn kept_reads_are_those_that_rules_may_name() {
    let table = Table::builtin();
    assert_eq!(table.cacheable() | Reads::GET | Reads::MGET, Reads::ALL);
    let cacheable = names(&table, |row| row.cacheable.is_some());
    assert_eq!(cacheable.len(), Reads::ALL.names().count() - 2);
    for row in table.rows().filter(|row| row.cacheable.is_some()) {
        assert!(
            row.flags.contains(Flags::READONLY) && row.retry_safe() && row.class == Class::Stateless,
            "{}",
            row.name
        );
        assert!(
            row.facts.contains(Facts::REVEALS) && row.cacheable.is_some_and(|cacheable| cacheable.key == 1),
            "{}",
            row.name
        );
    }
    let never = names(&table, |row| row.flags.contains(Flags::READONLY) && row.cacheable.is_none());
    assert_eq!(
        never,
        words(
            "dbsize dump eval_ro evalsha_ro fcall_ro get hrandfield hscan keys lcs lolwut memory|usage mget \
             object|encoding object|freq object|idletime object|refcount pfcount pttl randomkey scan sdiff sinter \
             sintercard sort_ro srandmember sscan sunion touch ttl xinfo|consumers xinfo|groups xinfo|stream xpending \
             xread zdiff zinter zintercard zrandmember zscan zunion"
        )
    );
    assert_eq!(
        names(&table, |row| row.flags.contains(Flags::READONLY) && !row.facts.contains(Facts::REVEALS)),
        words("memory|usage object|encoding object|freq object|idletime object|refcount pfcount pttl touch ttl")
    );
}

#[test]
fn calls_about_one_key_are_kept() {
    let table = Table::builtin();
    let is_kept = |line: &str| table.resolve(&call(line)).cacheable(call(line).len()).is_some();
    for line in
        ["HGET k f", "HGETALL k", "EXISTS k", "LRANGE k 0 -1", "BITCOUNT k", "GEOSEARCH k FROMMEMBER m BYBOX 1 1 m ASC"]
    {
        assert!(is_kept(line), "{line}");
    }
    // Other keys, no key, or a number of arguments that Redis refuses.
    for line in ["EXISTS a b", "EXISTS", "HGET k", "HGETALL k f", "TYPE", "GET k", "MGET k", "TTL k", "SINTER a"] {
        assert!(!is_kept(line), "{line}");
    }
}

/// A field expires without a write, and the key's TTL does not show it. With the last field the key disappears.
#[test]
fn keys_with_parts_that_may_expire_are_not_kept() {
    let hashes = "hget hmget hgetall hkeys hvals hlen hexists hstrlen exists type expiretime pexpiretime";
    let of = |text: &str| words(text).iter().fold(Reads::NONE, |all, name| all | Reads::named(name).expect(name));
    for (command, lost) in [
        ("hexpire\t-6\twrite,denyoom,fast\t1,1,1\twi1:r0,1,0", of(hashes)),
        ("hpexpire\t-6\twrite,denyoom,fast\t1,1,1\twi1:r0,1,0", of(hashes)),
        ("hgetex\t-5\twrite,fast\t1,1,1\twi1:r0,1,0", of(hashes)),
        ("hexpiretime\t-5\treadonly,fast\t1,1,1\ti1:r0,1,0", Reads::NONE),
    ] {
        let table = table_of(&format!("{}{command}\n", BUILTIN));
        assert_eq!(Table::builtin().cacheable().without(lost), table.cacheable(), "{command}");
    }
    let strings = of("strlen getrange substr getbit bitcount bitpos bitfield_ro");
    let member = "expiremember\t-4\twrite,fast\t1,1,1\twi1:r0,1,0";
    assert_eq!(table_of(&format!("{}{member}\n", BUILTIN)).cacheable(), strings);
    assert_eq!(Table::until_asked().cacheable(), strings);
}

/// The name alone is not enough: the server must say that it is a read, and of which key.
#[test]
fn a_command_with_a_known_name_that_is_not_a_plain_read_is_not_kept() {
    let cacheable = |line: &str| table_of(line).cacheable();
    assert_eq!(cacheable("hget\t3\treadonly,fast\t1,1,1\ti1:r0,1,0"), Reads::named("hget").expect("a read"));
    for line in [
        "hget\t3\twrite,fast\t1,1,1\twi1:r0,1,0",
        "hget\t3\tfast\t1,1,1\ti1:r0,1,0",
        "hget\t3\treadonly,blocking\t1,1,1\ti1:r0,1,0",
        "hget\t3\treadonly,movablekeys\t1,1,1\ti1:r0,1,0",
        "hget\t-3\treadonly\t1,-1,1\ti1:r-2,1,0",
        "hget\t3\treadonly\t0,0,0\t-",
    ] {
        assert_eq!(cacheable(line), Reads::NONE, "{line}");
    }
    assert!(Reads::named("ttl").is_none());
}

#[test]
fn arguments_decide_where_it_may_run() {
    let table = Table::builtin();
    for (line, class) in [
        ("XREAD STREAMS a 0", Class::Stateless),
        ("XREAD COUNT 2 BLOCK 0 STREAMS a 0", Class::Blocking),
        ("XREAD STREAMS BLOCK 0", Class::Stateless),
        ("XREADGROUP GROUP BLOCK BLOCK COUNT 1 STREAMS a >", Class::Stateless),
        ("XREADGROUP GROUP g c NOACK block 5 STREAMS a >", Class::Blocking),
        ("BLPOP a 0", Class::Blocking),
        ("CLIENT PAUSE 1", Class::Stateless),
        ("DEBUG PROTOCOL string", Class::Stateless),
        ("debug protocol PUSH", Class::Session),
    ] {
        assert_eq!(table.resolve(&call(line)).class_for(&call(line)), class, "{line}");
    }
}

#[test]
fn arity_counts_the_name() {
    let table = Table::builtin();
    let ok = |line: &str| table.resolve(&call(line)).arity_ok(call(line).len());
    assert!(ok("GET k") && ok("MGET a b") && ok("CONFIG SET a b") && ok("PROXY HELP") && ok("PROXY INFO L1"));
    assert!(!ok("GET") && !ok("GET a b") && !ok("MGET") && !ok("CONFIG SET a") && !ok("PROXY"));
}

fn reply(rows: &str) -> BytesFrame {
    BytesFrame::Array(rows.lines().filter(|line| !line.trim().is_empty()).map(row_of_62).collect())
}

/// `name arity first last step flag…` as in Redis 6.2's reply. Categories are flags with `@`.
fn row_of_62(line: &str) -> BytesFrame {
    let [name, arity, first, last, step, flags @ ..] = &words(line)[..] else { panic!("{line}") };
    let int = |text: &str| BytesFrame::Integer(text.parse().expect("a number"));
    let list = |category: bool| {
        let words = flags.iter().filter(|flag| flag.starts_with('@') == category);
        BytesFrame::Array(words.map(|flag| BytesFrame::SimpleString((*flag).to_owned().into())).collect())
    };
    BytesFrame::Array(vec![
        BytesFrame::BulkString((*name).to_owned().into()),
        int(arity),
        list(false),
        int(first),
        int(last),
        int(step),
        list(true),
    ])
}

#[test]
fn an_old_server_borrows_specs_and_subcommands() {
    let reply = reply(
        "eval -3 0 0 0 noscript movablekeys
         config -2 0 0 0 admin noscript
         xgroup -2 2 2 1 write denyoom
         object -2 2 2 1 readonly random
         stralgo -2 0 0 0 readonly movablekeys
         brpoplpush 4 1 2 1 write blocking
         pfcount -2 1 -1 1 readonly
         post -1 0 0 0 readonly",
    );
    let table = Table::from_command(&reply).expect("the shape of 6.2");
    assert_eq!(table.rows().len(), 8 + 3, "with PROXY, HOST: and QUIT, and one POST");
    assert!(table.get(b"quit").is_some_and(|quit| quit.verb == Verb::Quit), "it is answered, and not listed");
    assert_eq!(keys(&table, "EVAL s 2 a b c"), known(&["a", "b"]));
    assert_eq!(keys(&table, "STRALGO LCS KEYS a b IDX"), known(&["a", "b"]));
    assert_eq!(keys(&table, "XGROUP CREATE k g $"), known(&["k"]));
    assert_eq!(keys(&table, "XGROUP WHATEVER k"), known(&["k"]));
    assert_eq!(keys(&table, "BRPOPLPUSH a b 0"), known(&["a", "b"]));
    assert!(table.resolve(&call("PFCOUNT a")).is_write() && table.resolve(&call("XGROUP CREATE k g $")).is_write());
    assert!(!table.resolve(&call("CONFIG GET a")).is_write() && !table.resolve(&call("OBJECT FREQ a")).is_write());
    assert!(table.get(b"get").is_none(), "only what the server has");
}

#[test]
fn unknown_commands_are_read_with_care() {
    let reply = reply(
        "mod.get 2 1 1 1 readonly
         mod.count 1 0 0 0 readonly
         mod.set -3 1 1 1 write denyoom
         mod.touch 2 1 1 1 fast
         mod.all 1 0 0 0 fast
         mod.wipe 1 0 0 0 write
         mod.find -2 0 0 0 readonly movablekeys
         mod.own -2 1 1 1 write movablekeys
         mod.wait -2 1 1 1 write noscript blocking
         mod.pop -2 1 1 1 write @blocking
         mod.name 2 0 0 0 fast @connection
         mod.listen -2 0 0 0 pubsub",
    );
    let table = Table::from_command(&reply).expect("the shape of 6.2");
    let any_key = (Keys::Unknown, vec![]);
    for (line, class, write, keys_of_it) in [
        ("MOD.GET a", Class::Stateless, false, known(&["a"])),
        ("MOD.COUNT", Class::Stateless, false, known(&[])),
        ("MOD.SET a 1", Class::Stateless, true, known(&["a"])),
        ("MOD.TOUCH a", Class::Stateless, true, known(&["a"])),
        ("MOD.ALL", Class::Stateless, true, any_key.clone()),
        ("MOD.WIPE", Class::Stateless, true, any_key.clone()),
        ("MOD.FIND x a", Class::Stateless, false, any_key.clone()),
        ("MOD.OWN x a", Class::Stateless, true, any_key.clone()),
        ("MOD.WAIT a", Class::Blocking, true, known(&["a"])),
        ("MOD.POP a", Class::Blocking, true, known(&["a"])),
        ("MOD.NAME a", Class::Session, true, any_key.clone()),
        ("MOD.LISTEN a", Class::Session, true, any_key.clone()),
    ] {
        let row = table.resolve(&call(line));
        assert_eq!((row.class_for(&call(line)), row.is_write()), (class, write), "{line}");
        assert_eq!(keys(&table, line), keys_of_it, "{line}");
        assert_eq!(row.retry_safe(), !write, "{line}");
        assert!(!row.decided_by_name());
    }
}

/// Redis 7 generates a key spec from first, last and step for every module command, even if the module finds its keys by its own
/// code, which `movablekeys` shows.
#[test]
fn a_modules_plain_spec_is_not_trusted_when_its_keys_move() {
    let line = "mod.own\t-2\twrite,movablekeys\t1,1,1\twi1:r0,1,0";
    let table = table_of(line);
    assert_eq!(keys(&table, "MOD.OWN a b"), (Keys::Unknown, vec!["a"]));
}

/// The key that its specs name is an index. The keys that it deletes are in no argument.
#[test]
fn a_module_command_that_deletes_unnamed_keys_may_change_anything() {
    for name in ["ft.dropindex", "_ft.dropindexifx", "ft.add", "ft.del"] {
        let table = table_of(&format!("{name}\t-2\twrite,module\t1,1,1\twi1:r0,1,0"));
        assert_eq!(keys(&table, &format!("{name} a b")).0, Keys::Unknown, "{name}");
    }
}

#[test]
fn copy_and_move_write_in_every_database_that_they_name() {
    let table = Table::builtin();
    for (line, dbs) in [
        ("MOVE k 3", &[3][..]),
        ("MOVE k x", &[]),
        ("COPY a b", &[]),
        ("COPY a b DB 3", &[3]),
        ("COPY a b REPLACE db 3", &[3]),
        ("COPY db 5 DB 3", &[3]),
        ("COPY a db DB 3 REPLACE", &[3]),
        ("COPY a b DB 3 DB 4", &[3, 4]),
        ("COPY a b DB", &[]),
        ("GET k", &[]),
    ] {
        assert_eq!(table.resolve(&call(line)).other_databases(&call(line)).as_slice(), dbs, "{line}");
    }
}

/// Those generated specs also say that the keys are changed, whatever the command's flags say.
#[test]
fn a_modules_read_is_no_write() {
    let lines = "core.get\t2\treadonly\t1,1,1\twi1:r0,1,0\nmod.get\t2\treadonly,module\t1,1,1\twi1:r0,1,0\n\
                 mod.set\t3\twrite,module\t1,1,1\twi1:r0,1,0\nmod.x\t3\tmodule\t1,1,1\twi1:r0,1,0";
    let table = table_of(lines);
    let writes = names(&table, |row| row.is_write());
    assert_eq!(writes, ["core.get", "mod.set", "mod.x"]);
    assert!(table.resolve(&call("MOD.GET a")).retry_safe());
    assert_eq!(keys(&table, "MOD.GET a"), known(&["a"]));
}

/// Commands of Redis 8 and Valkey 9, as these servers describe them.
#[test]
fn strings_of_newer_servers() {
    let lines = "delex\t-2\twrite,fast\t1,1,1\twi1:r0,1,0\ndelifeq\t3\twrite,fast\t1,1,1\twi1:r0,1,0\n\
                 digest\t2\treadonly,fast\t1,1,1\ti1:r0,1,0\nmsetex\t-4\twrite,movablekeys,denyoom\t0,0,0\twi1:n0,1,2\n\
                 trimslots\t-5\twrite\t0,0,0\t-";
    let table = table_of(lines);
    assert_eq!(names(&table, |row| matches!(row.verb, Verb::StringOp(_))), ["delex", "delifeq", "digest"]);
    assert_eq!(names(&table, |row| row.verb == Verb::MSetEx), ["msetex"]);
    assert_eq!(keys(&table, "MSETEX 2 a 1 b 2 EX 10"), known(&["a", "b"]));
    assert_eq!(keys(&table, "TRIMSLOTS RANGES 1 0 5"), (Keys::Unknown, vec![]));
}

#[test]
fn newer_subcommands_follow_their_container() {
    let lines = "client\t-2\t-\t0,0,0\t-\nclient|capa\t-3\t@connection\t0,0,0\t-\nclient|setinfo\t4\t@connection\t0,0,0\t-\n\
                 config\t-2\t-\t0,0,0\t-\nconfig|new\t2\t-\t0,0,0\t-\nwaitaof\t4\t-\t0,0,0\t-";
    let table = table_of(lines);
    let class_and_write = |line: &str| {
        let row = table.resolve(&call(line));
        (row.class, row.is_write())
    };
    assert_eq!(class_and_write("CLIENT CAPA redirect"), (Class::Session, false));
    assert_eq!(class_and_write("CLIENT SETINFO LIB-NAME x"), (Class::Local, false));
    // It may be a subcommand of a newer server.
    assert_eq!(class_and_write("CLIENT NONSENSE"), (Class::Session, false));
    assert_eq!(class_and_write("CONFIG NEW"), (Class::Stateless, false));
    assert_eq!(class_and_write("WAITAOF 1 0 0"), (Class::Blocking, false));
}

#[test]
fn other_replies_are_refused() {
    let error = BytesFrame::Error("NOAUTH Authentication required.".into());
    assert_eq!(Table::from_command(&error).err(), Some(TableError::NotAList));
    let many = BytesFrame::Array(vec![BytesFrame::Null; 20_000]);
    assert_eq!(Table::from_command(&many).err(), Some(TableError::TooMany(20_000)));
    let short =
        BytesFrame::Array(vec![BytesFrame::Null, BytesFrame::Array(vec![BytesFrame::BulkString("get".into())])]);
    assert_eq!(Table::from_command(&short).err(), Some(TableError::Row { row: 1, what: "the arity" }));
}

#[test]
fn the_text_form_keeps_everything() {
    let title = BUILTIN.lines().next().expect("a title").trim_start_matches("# ");
    let entries = entry::from_lines(BUILTIN).expect("well formed");
    assert_eq!(entry::to_lines(&entries, title), BUILTIN);
    for line in
        ["get", "get\t2\t-\t1,1\t-", "get\tx\t-\t1,1,1\t-", "get\t2\t-\t1,1,1\ti1", "get\t2\t-\t1,1,1\tq1:r0,1,0"]
    {
        let refused = TableError::Row { row: 1, what: "a column" };
        assert_eq!(entry::from_lines(&format!("# title\n{line}\n")), Err(refused), "{line}");
    }
}
