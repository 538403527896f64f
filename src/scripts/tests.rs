//! Scripts as found in applications, and what each may write.

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_oneof, proptest};

use super::{Reach, Scripts};
use crate::command::{ScriptBy, Table};

#[test]
fn a_text_with_more_names_than_lua_allows_is_not_searched() {
    let locals = (0..300).map(|name| format!("a{name}")).collect::<Vec<_>>().join(",");
    assert!(matches!(reach(&format!("local {locals} return 1")), Reach::Anything(_)));
    let assigned = (0..300).map(|name| format!("local a{name} a{name}=1")).collect::<Vec<_>>();
    let blocks = assigned.iter().map(|text| format!("do {text} end")).collect::<Vec<_>>().join(" ");
    assert!(matches!(reach(&blocks), Reach::Anything(_)));
    assert_eq!(reach(&"do local a a=1 end ".repeat(300)), Reach::Nothing);
}

fn reach(text: &str) -> Reach {
    Scripts::default().judge(&Table::builtin(), ScriptBy::Text, text.as_bytes(), false).reach
}

/// Locks, rate limiters and similar scripts: they take the keys that they write from KEYS.
fn proven() -> Vec<&'static str> {
    include_str!("../../tests/data/proven_scripts.txt").split("====\n").skip(1).map(str::trim_end).collect()
}

const READS: &[&str] = &[
    "return 1",
    "",
    "return redis.call('get', ARGV[1])",
    "return redis.call('mget', 'a', 'b', unpack(ARGV))",
    "#!lua flags=no-writes\nreturn loadstring(ARGV[1])()",
    "local t = {} t.x, t['y'] = 1, 2 function t.f(self, ...) return select('#', ...) end return t.f(t, redis.call('publish', ARGV[1], #KEYS[1]))",
    "return {redis.call('TIME'), redis.pcall('keys', '*'), redis.sha1hex('x')}",
];

/// Scripts that write keys that they do not declare, or might do so.
const UNPROVEN: &[&str] = &[
    // Computed keys: django-cacheops, BullMQ, RQ.
    "redis.call('set', ARGV[1], 'new')",
    "redis.call('set', 'k', 'new')",
    "local key = KEYS[1] .. ':members' redis.call('sadd', key, ARGV[1])",
    "redis.call('sadd', KEYS[1] .. ARGV[1], 1)",
    "local rcall = redis.call rcall('lpush', KEYS[1], ARGV[1])",
    "local prefix = ARGV[1] for _, part in ipairs(cjson.decode(ARGV[2])) do redis.call('sadd', prefix .. part, KEYS[1]) end",
    "for _, id in ipairs(redis.call('zrange', KEYS[1], 0, -1)) do redis.call('del', id) end",
    "local jobs = redis.call('lrange', KEYS[1], 0, -1) redis.call('del', unpack(jobs))",
    "redis.call('del', KEYS[1], unpack(ARGV))",
    "redis.call('del', KEYS[1], ...)",
    // A method of a string, which another script may have replaced before Redis 7.0.
    "local x = ('a'):foo() return redis.call('get', KEYS[1])",
    "return ARGV[1] . redis.call('set', 'undeclared', 1)",
    // Other names for redis, call and KEYS, or ways around them.
    "local r = redis r.call('set', KEYS[1], 1)",
    "redis['call']('set', 'x', 1)",
    "redis . call { 'set', 'x' }",
    "redis.call 'flushall'",
    "return pcall(redis.call, 'set', 'x', 1)",
    "local t = {redis} t[1].call('set', 'x', 1)",
    "_G['redis'].call('set', 'x', 1)",
    "_G.redis.call('set', 'x', 1)",
    "getfenv(0).redis.call('set', 'x', 1)",
    "setfenv(1, {})",
    "return loadstring('return redis')().call('set', 'x', 1)",
    "load(ARGV[1])()",
    "rawset(KEYS, 1, 'x') redis.call('set', KEYS[1], 1)",
    "server.call('set', 'x', 1)",
    "helper(KEYS[1])",
    "debug.getregistry()",
    "local redis = {call = function() end} redis.call('get', KEYS[1])",
    "local function f(redis) return redis.call('get', KEYS[1]) end",
    "for redis in pairs({}) do end",
    "redis.call = function() end",
    "redis.setresp = nil",
    "string.format = nil",
    "x = 1",
    "function f() end",
    "function string.f() end",
    "do local helper = 1 end helper()",
    // KEYS no longer holds the caller's keys.
    "KEYS[1] = 'x' redis.call('set', KEYS[1], 1)",
    "KEYS = {'x'} redis.call('set', KEYS[1], 1)",
    "local a a, KEYS[1] = 1, 'x' redis.call('set', KEYS[1], 1)",
    "KEYS[1], KEYS[2] = KEYS[2], KEYS[1]",
    "table.insert(KEYS, 1, 'x') redis.call('set', KEYS[1], 1)",
    "local k = KEYS k[1] = 'x' redis.call('set', KEYS[1], 1)",
    "local f, k = ipairs(KEYS) k[1] = 'x' redis.call('set', KEYS[1], 1)",
    "local KEYS = {'x'} redis.call('set', KEYS[1], 1)",
    "local function f(KEYS) redis.call('set', KEYS[1], 1) end f({'x'})",
    "for KEYS in pairs({}) do end",
    "local key = KEYS[1] key = 'x' redis.call('set', key, 1)",
    "local key = KEYS[1] local function f() redis.call('set', key, 1) end key = 'x' f()",
    "local key = KEYS[1] do local key = 'x' redis.call('set', key, 1) end",
    "local key = KEYS[1] for key = 1, 2 do redis.call('set', key, 1) end",
    "local key = (KEYS[1]) redis.call('set', key, 1)",
    "local a, key = KEYS[1] redis.call('set', key, 1)",
    "local key = KEYS[1] and 'x' redis.call('set', key, 1)",
    "local key = not KEYS[1] redis.call('set', key, 1)",
    "for key, _ in pairs(KEYS) do redis.call('set', key, 1) end",
    "local ipairs = function() end for i, key in ipairs(KEYS) do redis.call('del', key) end",
    "local unpack = function() return 'x' end return redis.call('del', unpack(KEYS))",
    "return redis.call('del', unpack(KEYS, 2))",
    "redis.call('set', KEYS, 1)",
    "redis.call('set', (KEYS[1]), 1)",
    "redis.call('set', KEYS[1]:sub(1), 1)",
    "redis.call('set', #KEYS[1], 1)",
    // Commands whose keys cannot be determined, or that write further keys.
    "redis.call(ARGV[1], KEYS[1])",
    "redis.call('s' .. 'et', KEYS[1], 1)",
    "redis.call('\\115et', KEYS[1], 1)",
    "redis.call([[set]], KEYS[1], 1)",
    "redis.call('nosuch', KEYS[1])",
    "redis.call('select', 1) redis.call('set', KEYS[1], 1)",
    "redis.call('flushall')",
    "redis.call('swapdb', 0, 1)",
    "redis.call('move', KEYS[1], 1)",
    "redis.call('copy', KEYS[1], KEYS[2], 'DB', 1)",
    "redis.call('sort', KEYS[1], 'store', KEYS[2])",
    "redis.call('sort', KEYS[1], ARGV[1], ARGV[2])",
    "redis.call('georadius', KEYS[1], 0, 0, 1, 'm', ARGV[1], ARGV[2])",
    "redis.call('zunionstore', KEYS[1], 1, KEYS[2])",
    "redis.call('eval', ARGV[1], 0)",
    "redis.call('rename', KEYS[1], ARGV[1])",
    "redis.call('rename', ARGV[1], KEYS[1])",
    "redis.call('mset', KEYS[1], 1, 'x', 2)",
    "redis.call('mset', KEYS[1], unpack(KEYS))",
    "redis.call('bitop', 'and', 'x', KEYS[1])",
    "redis.call('xgroup', ARGV[1], KEYS[1])",
    "redis.call('script', 'flush')",
    "redis.call('pfcount', 'x')",
    "redis.call(unpack(ARGV))",
    "redis.call()",
    "redis.set_repl(redis.REPL_NONE)",
    // Texts that Lua refuses, or that Redis would split.
    "return 1 end redis.call('set', 'x', 1) do",
    "redis.call('set', KEYS[1], 1",
    "return 1 return 2",
    "local x = 'a\nb'",
    "--[[ redis.call('set', KEYS[1], 1)",
    "goto x",
    "\x1bLuaQ",
    "#!lua flags=no-write\nreturn 1",
    "#!js flags=no-writes\nreturn 1",
];

#[test]
fn locks_and_rate_limiters_write_what_they_declare() {
    for text in proven() {
        assert_eq!(reach(text), Reach::Declared, "{text}");
    }
    for text in READS {
        assert_eq!(reach(text), Reach::Nothing, "{text}");
    }
}

#[test]
fn a_script_without_proof_may_write_anything() {
    for text in UNPROVEN {
        assert!(matches!(reach(text), Reach::Anything(_)), "{text}: {:?}", reach(text));
    }
    let deep = format!("return {}1{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(matches!(reach(&deep[..60_000]), Reach::Anything(_)), "too deep");
    assert!(matches!(reach(&"-".repeat(65 << 10)), Reach::Anything(_)), "too long");
    let many = "redis.call('get', 'x') ".repeat(300);
    assert!(matches!(reach(&many), Reach::Anything(_)), "too many calls");
}

#[test]
fn a_sha_is_as_good_as_the_text_that_was_seen() {
    let (scripts, table) = (Scripts::default(), Table::builtin());
    let judge = |kind, subject: &str, read_only| scripts.judge(&table, kind, subject.as_bytes(), read_only);
    let text = "return redis.call('set', KEYS[1], 1)";
    let sha = super::Sha::of(text.as_bytes()).hex();
    assert!(matches!(judge(ScriptBy::Sha, &sha, false).reach, Reach::Anything(_)), "nobody has said what it is");
    assert_eq!(judge(ScriptBy::Sha, &sha, true).reach, Reach::Nothing, "EVALSHA_RO");
    scripts.learn(text.as_bytes());
    assert_eq!(judge(ScriptBy::Sha, &sha.to_uppercase(), false).reach, Reach::Declared);
    assert_eq!(judge(ScriptBy::Sha, "abc", false).reach, Reach::Nothing, "Redis has no such script");
    let unproven = "return redis.call('set', 'k', 1)";
    assert!(matches!(judge(ScriptBy::Text, unproven, false).reach, Reach::Anything(_)));
    let judgement = judge(ScriptBy::Sha, &super::Sha::of(unproven.as_bytes()).hex(), false);
    assert!(matches!(judgement.reach, Reach::Anything(_)));
    assert!(scripts.is_to_be_named(&judgement) && !scripts.is_to_be_named(&judgement));
}

/// A client that sends EVALSHA first, and the text only if Redis does not have the script, is no reason for a warning.
#[test]
fn an_unknown_text_is_named_the_second_time() {
    let (scripts, table) = (Scripts::default(), Table::builtin());
    let text = "return redis.call('set', 'k', 1)";
    let sha = super::Sha::of(text.as_bytes()).hex();
    let unknown = || scripts.judge(&table, ScriptBy::Sha, sha.as_bytes(), false);
    assert!(!scripts.is_to_be_named(&unknown()));
    assert!(scripts.is_to_be_named(&unknown()) && !scripts.is_to_be_named(&unknown()));
    let other = "return redis.call('set', 'l', 1)";
    let other_sha = super::Sha::of(other.as_bytes()).hex();
    assert!(!scripts.is_to_be_named(&scripts.judge(&table, ScriptBy::Sha, other_sha.as_bytes(), false)));
    scripts.learn(other.as_bytes());
    assert!(
        scripts.is_to_be_named(&scripts.judge(&table, ScriptBy::Sha, other_sha.as_bytes(), false)),
        "it is known now"
    );
}

/// Pieces of scripts. Random combinations of them often look almost like a script.
fn pieces() -> impl Strategy<Value = String> {
    const PIECES: [&str; 40] = [
        "redis",
        ".",
        "call",
        "pcall",
        "(",
        ")",
        "'set'",
        "'get'",
        "'del'",
        ",",
        "KEYS",
        "[",
        "1",
        "]",
        "ARGV",
        "local",
        "x",
        "=",
        "if",
        "then",
        "end",
        "for",
        "in",
        "do",
        "function",
        "return",
        "#",
        "..",
        "...",
        "unpack",
        "--",
        "\n",
        "[[",
        "]]",
        "{",
        "}",
        ":",
        "'",
        "\\",
        "redis.call('set', KEYS[1], 1)",
    ];
    vec(prop_oneof![(0..PIECES.len()).prop_map(|at| PIECES[at].to_owned()), Just(" ".to_owned())], 0..40)
        .prop_map(|all| all.join(" "))
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(bytes in vec(any::<u8>(), 0..300), text in pieces()) {
        let (scripts, table) = (Scripts::default(), Table::builtin());
        for text in [&bytes[..], text.as_bytes()] {
            scripts.judge(&table, ScriptBy::Text, text, false);
            scripts.judge(&table, ScriptBy::Sha, text, false);
            scripts.judge(&table, ScriptBy::Function, text, false);
        }
    }

    #[test]
    fn a_script_that_writes_a_literal_key_is_never_proven(at in any::<proptest::sample::Index>(), cut in any::<proptest::sample::Index>()) {
        let all = proven();
        let text = all[at.index(all.len())];
        let mut cut = cut.index(text.len() + 1);
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        let spoilt = format!("{} redis.call('set', 'undeclared', 1) {}", &text[..cut], &text[cut..]);
        // Inside a comment or a string it is no name.
        let inside = text[..cut].contains("--") || text[..cut].contains("[[") || text[..cut].matches(['\'', '"']).count() % 2 == 1;
        prop_assert!(inside || reach(&spoilt) != Reach::Declared, "{}", spoilt);
    }
}
