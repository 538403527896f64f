//! What the server's table does not tell and somebody had to decide, one row per command or per container
//! (`config|*`: all subcommands that have no row of their own, newer ones included).
//!
//! A command that is not here is an ordinary one: it reads or writes the keys that its flags and key specs say, or
//! blocks because it is flagged so, and `tests/command_table.rs` fails when a server has one that fits neither.
//! Must not look at arguments.

use super::Class::{self, Blocking, Local, Refused, Session, Stateless};
use super::Verb;
use super::absent::Absent;
use crate::errors::{self, OwnError};

/// What a call may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touch {
    /// As flags and key specs say; not flagged read-only and no keys to be found: anything.
    AsFlagged,
    /// No key, unless flags or key specs say so: a missing read-only flag means nothing here.
    Nothing,
    /// The keys that can be found, whatever the flags say.
    Declared,
    /// Any key.
    Anything,
}

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decision {
    name: &'static str,
    pub class: Class,
    pub verb: Verb,
    pub touch: Touch,
    /// Changes nothing at all, though it is not flagged read-only, and tells the same on each connection.
    pub repeatable: bool,
}

/// Commands that no server lists, with their arity.
pub(super) const OURS: &[(&str, i32)] = &[
    ("proxy", -1),
    // Redis closes the connection on these (a browser or a cross-site form speaks HTTP to it); a lane must not see them.
    ("post", -1),
    ("host:", -1),
];

/// The decision on a lower-case name, `container|subcommand` for a subcommand.
pub(super) fn of(name: &str) -> Option<&'static Decision> {
    let exact = DECISIONS.iter().find(|decision| decision.name == name);
    exact.or_else(|| {
        let (container, _) = name.split_once('|')?;
        DECISIONS.iter().find(|decision| decision.name.strip_suffix("|*") == Some(container))
    })
}

const fn row(name: &'static str, class: Class, verb: Verb, touch: Touch) -> Decision {
    Decision { name, class, verb, touch, repeatable: false }
}

/// An ordinary command that the proxy treats in a way of its own.
const fn verb(name: &'static str, verb: Verb) -> Decision {
    row(name, Stateless, verb, Touch::AsFlagged)
}

/// Passes on a lane and changes no key.
const fn plain(name: &'static str) -> Decision {
    row(name, Stateless, Verb::Plain, Touch::Nothing)
}

/// As `plain`, and may be sent twice.
const fn question(name: &'static str, verb: Verb) -> Decision {
    Decision { name, class: Stateless, verb, touch: Touch::Nothing, repeatable: true }
}

/// Passes on a lane; what it does to the data set is not said in its arguments.
const fn any_key(name: &'static str, verb: Verb) -> Decision {
    row(name, Stateless, verb, Touch::Anything)
}

/// Needs a connection of its own and changes no key by itself.
const fn session(name: &'static str, verb: Verb) -> Decision {
    row(name, Session, verb, Touch::Nothing)
}

/// The proxy answers.
const fn local(name: &'static str, verb: Verb) -> Decision {
    row(name, Local, verb, Touch::Nothing)
}

const fn refused(name: &'static str, why: &'static OwnError) -> Decision {
    row(name, Refused(why), Verb::Plain, Touch::Nothing)
}

const DECISIONS: &[Decision] = &[
    // Strings: the values that may travel in an envelope, and what looks into them.
    verb("get", Verb::Get),
    verb("mget", Verb::MGet),
    verb("set", Verb::Set),
    verb("setex", Verb::SetEx),
    verb("psetex", Verb::PSetEx),
    verb("setnx", Verb::SetNx),
    verb("mset", Verb::MSet),
    verb("msetnx", Verb::MSetNx),
    verb("msetex", Verb::MSetEx),
    verb("getset", Verb::GetSet),
    verb("getdel", Verb::GetDel),
    verb("getex", Verb::GetEx),
    verb("append", Verb::StringOp),
    verb("strlen", Verb::StringOp),
    verb("getrange", Verb::StringOp),
    verb("substr", Verb::StringOp),
    verb("setrange", Verb::StringOp),
    verb("getbit", Verb::StringOp),
    verb("setbit", Verb::StringOp),
    verb("bitcount", Verb::StringOp),
    verb("bitpos", Verb::StringOp),
    verb("bitfield", Verb::StringOp),
    verb("bitfield_ro", Verb::StringOp),
    verb("bitop", Verb::StringOp),
    verb("lcs", Verb::StringOp),
    // Redis 6's LCS; compare-and-delete of Redis 8.4 and of Valkey 9; Redis 8.4's digest of a string. (INCRBYFLOAT needs no look:
    // an envelope is no number, and Redis says so.)
    verb("stralgo", Verb::StringOp),
    verb("delex", Verb::StringOp),
    verb("delifeq", Verb::StringOp),
    verb("digest", Verb::StringOp),
    // PFCOUNT writes the count that it computed into the string, and is flagged read-only.
    row("pfcount", Stateless, Verb::Plain, Touch::Declared),
    plain("pfselftest"),
    // For administrators, and a write of its key as flagged.
    verb("pfdebug", Verb::Plain),
    // Keys in other places than their arguments, or in other databases.
    verb("sort", Verb::Sort),
    verb("sort_ro", Verb::SortRo),
    verb("move", Verb::Move),
    verb("copy", Verb::Copy),
    verb("migrate", Verb::Migrate),
    any_key("flushall", Verb::FlushAll),
    any_key("flushdb", Verb::FlushDb),
    any_key("swapdb", Verb::SwapDb),
    // Scripts. The _RO forms are flagged read-only, and Redis enforces that. For the others the rows here find the declared keys.
    // What else a script may write is not in the arguments: `scripts` judges that.
    row("eval", Stateless, Verb::Script, Touch::Declared),
    row("evalsha", Stateless, Verb::Script, Touch::Declared),
    row("fcall", Stateless, Verb::Script, Touch::Declared),
    verb("eval_ro", Verb::Script),
    verb("evalsha_ro", Verb::Script),
    verb("fcall_ro", Verb::Script),
    plain("script"),
    plain("script|*"),
    row("script|load", Stateless, Verb::ScriptLoad, Touch::Nothing),
    question("script|exists", Verb::Plain),
    // The next EVAL on this connection is run by the debugger, which then talks on it.
    session("script|debug", Verb::Plain),
    // On the connection that runs the script Redis reads nothing until the script ends, so what is to stop it, or to
    // ask about it, must come on another.
    session("script|kill", Verb::Plain),
    plain("function"),
    plain("function|*"),
    // These may replace a function while it is called, here or through another Shortstop that does not know yet.
    any_key("function|load", Verb::Functions),
    any_key("function|delete", Verb::Functions),
    any_key("function|flush", Verb::Functions),
    any_key("function|restore", Verb::Functions),
    session("function|kill", Verb::Plain),
    session("function|stats", Verb::Plain),
    // Transactions. EXEC, DISCARD and UNWATCH are harmless without the state that they end (Redis answers with an error
    // or OK); with it the client is in a session already.
    session("multi", Verb::Multi),
    row("exec", Stateless, Verb::Exec, Touch::Nothing),
    row("discard", Stateless, Verb::Discard, Touch::Nothing),
    session("watch", Verb::Watch),
    row("unwatch", Stateless, Verb::Unwatch, Touch::Nothing),
    // Pub/sub. The un-forms give one reply per channel even when nothing is subscribed, which no lane can count.
    session("subscribe", Verb::Subscribe),
    session("psubscribe", Verb::PSubscribe),
    session("ssubscribe", Verb::SSubscribe),
    session("unsubscribe", Verb::Unsubscribe),
    session("punsubscribe", Verb::PUnsubscribe),
    session("sunsubscribe", Verb::SUnsubscribe),
    plain("publish"),
    plain("spublish"),
    question("pubsub", Verb::Plain),
    question("pubsub|*", Verb::Plain),
    session("monitor", Verb::Monitor),
    // Streams: blocking only with BLOCK.
    row("xread", Blocking, Verb::XRead, Touch::AsFlagged),
    row("xreadgroup", Blocking, Verb::XReadGroup, Touch::AsFlagged),
    // Not flagged as blocking, and block.
    row("wait", Blocking, Verb::Blocking, Touch::Nothing),
    row("waitaof", Blocking, Verb::Blocking, Touch::Nothing),
    // The connection itself.
    question("ping", Verb::Plain),
    question("echo", Verb::Plain),
    local("select", Verb::Select),
    local("quit", Verb::Quit),
    local("reset", Verb::Reset),
    local("hello", Verb::Hello),
    local("auth", Verb::Auth),
    session("asking", Verb::Asking),
    session("readonly", Verb::ReadOnly),
    session("readwrite", Verb::ReadWrite),
    // CLIENT. Who is connected to the proxy, only the proxy knows; Redis is asked whether the client may know. Subcommands of newer
    // servers are taken for something about the connection, also while the table of such a server is not here yet.
    session("client", Verb::Client),
    session("client|*", Verb::Client),
    local("client|id", Verb::Client),
    local("client|info", Verb::Client),
    local("client|list", Verb::Client),
    local("client|kill", Verb::Client),
    local("client|unblock", Verb::Client),
    local("client|setname", Verb::Client),
    local("client|getname", Verb::Client),
    local("client|setinfo", Verb::Client),
    local("client|reply", Verb::Client),
    // The client's number that is in their replies, or arguments, is the proxy's.
    local("client|getredir", Verb::Client),
    local("client|trackinginfo", Verb::Client),
    session("client|tracking", Verb::Client),
    row("client|help", Stateless, Verb::Client, Touch::Nothing),
    // PAUSE is for all connections. UNPAUSE must not queue on a lane behind a write that is paused.
    row("client|pause", Stateless, Verb::Client, Touch::Nothing),
    session("client|unpause", Verb::Client),
    // Without tracking, which puts a client in a session, it says so on any connection.
    row("client|caching", Stateless, Verb::Client, Touch::Nothing),
    // The server.
    question("info", Verb::Info),
    question("time", Verb::Plain),
    question("role", Verb::Plain),
    question("lastsave", Verb::Plain),
    question("command", Verb::Plain),
    question("command|*", Verb::Plain),
    // What a user may read is decided anew: what was kept for it may be none of its business any more.
    plain("acl"),
    plain("acl|*"),
    any_key("acl|setuser", Verb::Plain),
    any_key("acl|deluser", Verb::Plain),
    any_key("acl|load", Verb::Plain),
    plain("config"),
    plain("config|*"),
    question("config|get", Verb::Plain),
    // requirepass and its like.
    any_key("config|set", Verb::Plain),
    plain("latency"),
    plain("latency|*"),
    plain("memory"),
    plain("memory|*"),
    plain("module"),
    plain("module|*"),
    // A module may do anything when it is loaded.
    any_key("module|load", Verb::Plain),
    any_key("module|loadex", Verb::Plain),
    // Commands of modules. The key in their specs is an index or a library, and they change or delete keys that no argument names.
    any_key("ft.add", Verb::Plain),
    any_key("ft.safeadd", Verb::Plain),
    any_key("ft.addhash", Verb::Plain),
    any_key("ft.del", Verb::Plain),
    any_key("ft.drop", Verb::Plain),
    any_key("_ft.dropifx", Verb::Plain),
    any_key("ft.dropindex", Verb::Plain),
    any_key("_ft.dropindexifx", Verb::Plain),
    any_key("tfcall", Verb::Plain),
    any_key("tfcallasync", Verb::Plain),
    any_key("rg.pyexecute", Verb::Plain),
    any_key("rg.trigger", Verb::Plain),
    plain("slowlog"),
    plain("slowlog|*"),
    plain("commandlog"),
    plain("commandlog|*"),
    plain("hotkeys"),
    plain("hotkeys|*"),
    plain("object"),
    plain("object|help"),
    plain("xgroup"),
    plain("xgroup|help"),
    plain("xinfo"),
    plain("xinfo|help"),
    plain("save"),
    plain("bgsave"),
    plain("bgrewriteaof"),
    // SHUTDOWN ABORT must overtake a SHUTDOWN that waits for replicas, and a script that runs away.
    session("shutdown", Verb::Shutdown),
    // DEBUG SLEEP stops the whole server, so a connection of its own would win nothing. RELOAD, LOADAOF, POPULATE,
    // FLUSHALL and the like change every key.
    row("debug", Stateless, Verb::Debug, Touch::Declared),
    // The data set becomes another server's.
    any_key("replicaof", Verb::Plain),
    any_key("slaveof", Verb::Plain),
    any_key("failover", Verb::Plain),
    plain("cluster"),
    plain("cluster|*"),
    question("cluster|info", Verb::Plain),
    question("cluster|nodes", Verb::Plain),
    question("cluster|shards", Verb::Plain),
    question("cluster|slots", Verb::Plain),
    question("cluster|keyslot", Verb::Plain),
    any_key("cluster|failover", Verb::Plain),
    any_key("cluster|replicate", Verb::Plain),
    any_key("cluster|reset", Verb::Plain),
    any_key("cluster|flushslots", Verb::Plain),
    any_key("cluster|flushslot", Verb::Plain),
    any_key("cluster|delslots", Verb::Plain),
    any_key("cluster|delslotsrange", Verb::Plain),
    any_key("cluster|setslot", Verb::Plain),
    any_key("cluster|migration", Verb::Plain),
    any_key("cluster|migrateslots", Verb::Plain),
    // Drops what is in slots that went elsewhere.
    any_key("trimslots", Verb::Plain),
    // These turn the connection into a replication link.
    refused("sync", &errors::REPLICATION),
    refused("psync", &errors::REPLICATION),
    refused("replconf", &errors::REPLICATION),
    refused("cluster|syncslots", &errors::REPLICATION),
    refused("post", &errors::SPEAKS_HTTP),
    refused("host:", &errors::SPEAKS_HTTP),
    local("proxy", Verb::Proxy),
];

/// What kind of key a read is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// A string, which has no parts that could end by themselves.
    String,
    Hash,
    Other,
    /// Whatever is there.
    Any,
}

/// A read whose reply L1 may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CacheableRead {
    name: &'static str,
    pub of: Of,
    pub absent: Absent,
}

/// The decision on a lower-case name; none: its reply is never kept. GET and MGET are not here: what is kept of them is a
/// value, not a reply.
pub(super) fn cacheable(name: &str) -> Option<&'static CacheableRead> {
    CACHEABLE.iter().find(|known| known.name == name)
}

const fn keep(name: &'static str, of: Of, absent: Absent) -> CacheableRead {
    CacheableRead { name, of, absent }
}

/// Reads of one key that say the same until the key changes. Left out on purpose: what depends on the time (TTL, PTTL, XPENDING),
/// on chance (SRANDMEMBER, HRANDFIELD, ZRANDMEMBER), on a cursor that may come back otherwise (the SCAN family), on how a value is
/// stored or used (OBJECT, MEMORY, DUMP, TOUCH, XINFO), on other keys (SORT_RO, LCS, SINTER and its like), on code (EVAL_RO,
/// FCALL_RO), and PFCOUNT, which writes.
const CACHEABLE: &[CacheableRead] = &[
    keep("strlen", Of::String, Absent::Zero),
    keep("getrange", Of::String, Absent::Is(b"$0\r\n\r\n")),
    keep("substr", Of::String, Absent::Is(b"$0\r\n\r\n")),
    keep("getbit", Of::String, Absent::Zero),
    keep("bitcount", Of::String, Absent::Zero),
    keep("bitpos", Of::String, Absent::Varies),
    keep("bitfield_ro", Of::String, Absent::Zero),
    keep("hget", Of::Hash, Absent::Nothing),
    keep("hmget", Of::Hash, Absent::Nothing),
    keep("hgetall", Of::Hash, Absent::Nothing),
    keep("hkeys", Of::Hash, Absent::Nothing),
    keep("hvals", Of::Hash, Absent::Nothing),
    keep("hlen", Of::Hash, Absent::Zero),
    keep("hexists", Of::Hash, Absent::Zero),
    keep("hstrlen", Of::Hash, Absent::Zero),
    keep("lrange", Of::Other, Absent::Nothing),
    keep("lindex", Of::Other, Absent::Nothing),
    keep("llen", Of::Other, Absent::Zero),
    keep("lpos", Of::Other, Absent::Nothing),
    keep("smembers", Of::Other, Absent::Nothing),
    keep("sismember", Of::Other, Absent::Zero),
    keep("smismember", Of::Other, Absent::Zero),
    keep("scard", Of::Other, Absent::Zero),
    keep("zrange", Of::Other, Absent::Nothing),
    keep("zrangebyscore", Of::Other, Absent::Nothing),
    keep("zrangebylex", Of::Other, Absent::Nothing),
    keep("zrevrange", Of::Other, Absent::Nothing),
    keep("zrevrangebyscore", Of::Other, Absent::Nothing),
    keep("zrevrangebylex", Of::Other, Absent::Nothing),
    keep("zscore", Of::Other, Absent::Nothing),
    keep("zmscore", Of::Other, Absent::Nothing),
    keep("zcard", Of::Other, Absent::Zero),
    keep("zcount", Of::Other, Absent::Zero),
    keep("zlexcount", Of::Other, Absent::Zero),
    keep("zrank", Of::Other, Absent::Nothing),
    keep("zrevrank", Of::Other, Absent::Nothing),
    keep("geopos", Of::Other, Absent::Nothing),
    keep("geodist", Of::Other, Absent::Nothing),
    keep("geohash", Of::Other, Absent::Nothing),
    keep("geosearch", Of::Other, Absent::Nothing),
    keep("georadius_ro", Of::Other, Absent::Nothing),
    keep("georadiusbymember_ro", Of::Other, Absent::Nothing),
    keep("xrange", Of::Other, Absent::Nothing),
    keep("xrevrange", Of::Other, Absent::Nothing),
    keep("xlen", Of::Other, Absent::Zero),
    keep("exists", Of::Any, Absent::Only(b":0\r\n")),
    keep("type", Of::Any, Absent::Only(b"+none\r\n")),
    keep("expiretime", Of::Any, Absent::Only(b":-2\r\n")),
    keep("pexpiretime", Of::Any, Absent::Only(b":-2\r\n")),
];

/// Reads that say nothing of what a key holds, so that nothing kept can be older than what they say.
const SILENT: &[&str] = &["ttl", "pttl", "touch", "object", "memory"];

/// Whether a read of this name says something of what its keys hold.
pub(super) fn tells(name: &str) -> bool {
    let command = name.split_once('|').map_or(name, |(container, _)| container);
    !SILENT.contains(&command)
}
