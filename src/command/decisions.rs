//! Properties of commands that the server's table does not contain, decided by hand. One row per command or container (`config|*`
//! stands for all subcommands without a row of their own, including those of newer servers).
//!
//! A command without a row is an ordinary one: it reads or writes the keys that its flags and key specs name, or blocks because it
//! is flagged so. `tests/command_table.rs` fails if a server has a command for which neither holds. Knows names only, no arguments.

use crate::errors::{self, OwnError};

use super::flags::Facts;
use super::verb::Class::{self, Blocking, Local, Refused, Session, Stateless};
use super::verb::{ClientSubcommand, ProxySubcommand, ScriptBy, StringOp, Verb};

/// What a call may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touch {
    /// As the flags and key specs say. Without a read-only flag and without keys: any key.
    AsFlagged,
    /// No key, unless flags or key specs say so. A missing read-only flag does not matter.
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
    /// Changes nothing, though it is not flagged read-only, and returns the same reply on each connection.
    pub repeatable: bool,
}

/// Commands that no server lists, with their arity, beside the subcommands of PROXY, which stand behind it.
pub(super) const OURS: &[(&str, i32)] = &[
    // Redis closes the connection on these, because a browser or a cross-site form sent HTTP. They must not reach a lane.
    ("post", -1),
    ("host:", -1),
    ("proxy", -2),
];

/// The decision for a lower-case name. The name of a subcommand is `container|subcommand`.
pub(super) fn of(name: &str) -> Option<Decision> {
    let proxy = ProxySubcommand::ALL.iter().find(|subcommand| subcommand.full_name() == name);
    let exact = || DECISIONS.iter().find(|decision| decision.name == name);
    let of_container = || {
        let (container, _) = name.split_once('|')?;
        DECISIONS.iter().find(|decision| decision.name.strip_suffix("|*") == Some(container))
    };
    match proxy {
        Some(subcommand) => Some(local(subcommand.full_name(), Verb::Proxy(*subcommand))),
        None => exact().or_else(of_container).copied(),
    }
}

const fn row(name: &'static str, class: Class, verb: Verb, touch: Touch) -> Decision {
    Decision { name, class, verb, touch, repeatable: false }
}

/// An ordinary command that needs special treatment.
const fn verb(name: &'static str, verb: Verb) -> Decision {
    row(name, Stateless, verb, Touch::AsFlagged)
}

/// Goes over a lane and changes no key.
const fn plain(name: &'static str) -> Decision {
    row(name, Stateless, Verb::Plain, Touch::Nothing)
}

/// Like `plain`, and may be repeated.
const fn question(name: &'static str, verb: Verb) -> Decision {
    Decision { name, class: Stateless, verb, touch: Touch::Nothing, repeatable: true }
}

/// Goes over a lane. Its arguments do not say which keys it changes.
const fn any_key(name: &'static str, verb: Verb) -> Decision {
    row(name, Stateless, verb, Touch::Anything)
}

/// Needs a private connection and changes no key by itself.
const fn session(name: &'static str, verb: Verb) -> Decision {
    row(name, Session, verb, Touch::Nothing)
}

/// Shortstop answers it.
const fn local(name: &'static str, verb: Verb) -> Decision {
    row(name, Local, verb, Touch::Nothing)
}

const fn refused(name: &'static str, why: &'static OwnError) -> Decision {
    row(name, Refused(why), Verb::Plain, Touch::Nothing)
}

const DECISIONS: &[Decision] = &[
    // Strings: commands whose values may be compressed, and commands that read or change parts of strings.
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
    verb("append", Verb::StringOp(StringOp::Append)),
    verb("strlen", Verb::StringOp(StringOp::StrLen)),
    verb("getrange", Verb::StringOp(StringOp::GetRange)),
    verb("substr", Verb::StringOp(StringOp::GetRange)),
    verb("setrange", Verb::StringOp(StringOp::SetRange)),
    verb("getbit", Verb::StringOp(StringOp::GetBit)),
    verb("setbit", Verb::StringOp(StringOp::Other)),
    verb("bitcount", Verb::StringOp(StringOp::BitCount)),
    verb("bitpos", Verb::StringOp(StringOp::BitPos)),
    verb("bitfield", Verb::StringOp(StringOp::BitField)),
    verb("bitfield_ro", Verb::StringOp(StringOp::BitFieldRo)),
    verb("bitop", Verb::StringOp(StringOp::BitOp)),
    verb("lcs", Verb::StringOp(StringOp::Lcs)),
    // LCS of Redis 6; compare-and-delete of Redis 8.4 and of Valkey 9; the digest of a string in Redis 8.4. INCRBYFLOAT is not
    // among them: a compressed value is not a number, and Redis refuses it.
    verb("stralgo", Verb::StringOp(StringOp::Lcs)),
    verb("delex", Verb::StringOp(StringOp::DelEx)),
    verb("delifeq", Verb::StringOp(StringOp::Other)),
    verb("digest", Verb::StringOp(StringOp::Other)),
    // PFCOUNT is flagged read-only, but caches the count in the string.
    row("pfcount", Stateless, Verb::Plain, Touch::Declared),
    plain("pfselftest"),
    // An administrator's command. Writes its key, as it is flagged.
    verb("pfdebug", Verb::Plain),
    // Their keys are not all among the arguments, or are in other databases.
    verb("sort", Verb::Sort),
    verb("sort_ro", Verb::SortRo),
    verb("move", Verb::Move),
    verb("copy", Verb::Copy),
    verb("migrate", Verb::Migrate),
    any_key("flushall", Verb::FlushAll),
    any_key("flushdb", Verb::FlushDb),
    any_key("swapdb", Verb::SwapDb),
    // Scripts. The _RO forms are flagged read-only, and Redis enforces that. For the others the rows here find the declared keys.
    // `scripts` decides what else a script may write, because the arguments do not show it.
    row("eval", Stateless, Verb::Script(ScriptBy::Text), Touch::Declared),
    row("evalsha", Stateless, Verb::Script(ScriptBy::Sha), Touch::Declared),
    row("fcall", Stateless, Verb::Script(ScriptBy::Function), Touch::Declared),
    verb("eval_ro", Verb::ScriptRo(ScriptBy::Text)),
    verb("evalsha_ro", Verb::ScriptRo(ScriptBy::Sha)),
    verb("fcall_ro", Verb::ScriptRo(ScriptBy::Function)),
    plain("script"),
    plain("script|*"),
    row("script|load", Stateless, Verb::ScriptLoad, Touch::Nothing),
    question("script|exists", Verb::Plain),
    // The debugger runs the next EVAL on this connection, and then uses the connection itself.
    session("script|debug", Verb::ScriptDebug),
    // While a script runs, Redis reads nothing from the script's connection. A command that stops the script, or asks about it,
    // needs another connection.
    session("script|kill", Verb::Plain),
    plain("function"),
    plain("function|*"),
    // These may replace a function while it is called, here or through another Shortstop that does not know of the change yet.
    any_key("function|load", Verb::Functions),
    any_key("function|delete", Verb::Functions),
    any_key("function|flush", Verb::Functions),
    any_key("function|restore", Verb::Functions),
    session("function|kill", Verb::Plain),
    session("function|stats", Verb::Plain),
    // Transactions. EXEC, DISCARD and UNWATCH may go over a lane when there is nothing to end: Redis answers with an error or OK. A
    // client in a transaction already has a session.
    session("multi", Verb::Multi),
    row("exec", Stateless, Verb::Exec, Touch::Nothing),
    row("discard", Stateless, Verb::Discard, Touch::Nothing),
    session("watch", Verb::Watch),
    row("unwatch", Stateless, Verb::Unwatch, Touch::Nothing),
    // Pub/sub. Unsubscribing returns one reply per channel, even without a subscription. A lane expects one reply per request.
    session("subscribe", Verb::Subscribe),
    session("psubscribe", Verb::PSubscribe),
    session("ssubscribe", Verb::SSubscribe),
    session("unsubscribe", Verb::Unsubscribe),
    session("punsubscribe", Verb::PUnsubscribe),
    session("sunsubscribe", Verb::SUnsubscribe),
    row("publish", Stateless, Verb::Publish, Touch::Nothing),
    row("spublish", Stateless, Verb::Publish, Touch::Nothing),
    question("pubsub", Verb::Plain),
    question("pubsub|*", Verb::Plain),
    question("pubsub|channels", Verb::PubSubChannels),
    session("monitor", Verb::Monitor),
    // Streams: blocking only with BLOCK.
    row("xread", Blocking, Verb::XRead, Touch::AsFlagged),
    row("xreadgroup", Blocking, Verb::XReadGroup, Touch::AsFlagged),
    // They block, but are not flagged as blocking.
    row("wait", Blocking, Verb::Wait, Touch::Nothing),
    row("waitaof", Blocking, Verb::Wait, Touch::Nothing),
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
    // CLIENT. Only Shortstop knows its clients. Redis is asked whether the client may use the command. An unknown subcommand of a
    // newer server is assumed to be about the connection.
    session("client", Verb::Client(ClientSubcommand::Other)),
    session("client|*", Verb::Client(ClientSubcommand::Other)),
    local("client|id", Verb::Client(ClientSubcommand::Id)),
    local("client|info", Verb::Client(ClientSubcommand::Info)),
    local("client|list", Verb::Client(ClientSubcommand::List)),
    local("client|kill", Verb::Client(ClientSubcommand::Kill)),
    local("client|unblock", Verb::Client(ClientSubcommand::Unblock)),
    local("client|setname", Verb::Client(ClientSubcommand::SetName)),
    local("client|getname", Verb::Client(ClientSubcommand::GetName)),
    local("client|setinfo", Verb::Client(ClientSubcommand::SetInfo)),
    local("client|reply", Verb::Client(ClientSubcommand::Reply)),
    // The client id in their replies or arguments is Shortstop's.
    local("client|getredir", Verb::Client(ClientSubcommand::Redirection)),
    local("client|trackinginfo", Verb::Client(ClientSubcommand::Redirection)),
    session("client|no-evict", Verb::Client(ClientSubcommand::Switch)),
    session("client|no-touch", Verb::Client(ClientSubcommand::Switch)),
    session("client|tracking", Verb::Client(ClientSubcommand::Tracking)),
    row("client|help", Stateless, Verb::Client(ClientSubcommand::Other), Touch::Nothing),
    // PAUSE affects all connections. UNPAUSE must not queue on a lane behind a paused write.
    row("client|pause", Stateless, Verb::Client(ClientSubcommand::Pause), Touch::Nothing),
    session("client|unpause", Verb::Client(ClientSubcommand::Unpause)),
    // Tracking puts a client in a session. Without tracking, the reply is the same error on any connection.
    row("client|caching", Stateless, Verb::Client(ClientSubcommand::Other), Touch::Nothing),
    // The server.
    question("info", Verb::Info),
    question("time", Verb::Plain),
    question("role", Verb::Plain),
    question("lastsave", Verb::Plain),
    question("command", Verb::Plain),
    question("command|*", Verb::Plain),
    // They change users' rights: L1 may hold entries that a user may no longer read.
    plain("acl"),
    plain("acl|*"),
    any_key("acl|setuser", Verb::AclSetUser),
    any_key("acl|deluser", Verb::AclDelUser),
    any_key("acl|load", Verb::AclLoad),
    plain("config"),
    plain("config|*"),
    question("config|get", Verb::Plain),
    row("config|resetstat", Stateless, Verb::ConfigResetStat, Touch::Nothing),
    // It may set requirepass, for example.
    any_key("config|set", Verb::ConfigSet),
    plain("latency"),
    plain("latency|*"),
    plain("memory"),
    plain("memory|*"),
    plain("module"),
    plain("module|*"),
    // Loading a module may change anything.
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
    // SHUTDOWN ABORT must overtake a SHUTDOWN that waits for replicas, or a script that does not end.
    session("shutdown", Verb::Shutdown),
    // DEBUG SLEEP stops the whole server, so a private connection would not help. RELOAD, LOADAOF, POPULATE, FLUSHALL and similar
    // subcommands change every key.
    row("debug", Stateless, Verb::Debug, Touch::Declared),
    // They replace the data set with another server's.
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
    // Drops the keys of slots that moved to another server.
    any_key("trimslots", Verb::Plain),
    // They turn the connection into a replication link.
    session("sync", Verb::Sync),
    session("psync", Verb::Sync),
    session("replconf", Verb::ReplConf),
    refused("cluster|syncslots", &errors::REPLICATION),
    row("post", Refused(&errors::SPEAKS_HTTP), Verb::Http, Touch::Nothing),
    row("host:", Refused(&errors::SPEAKS_HTTP), Verb::Http, Touch::Nothing),
    local("proxy", Verb::Proxy(ProxySubcommand::Other)),
];

/// Facts of commands by name. `container|*` stands for all subcommands.
const FACTS: &[(Facts, &[&str])] = &[
    (Facts::LEAVES_NOTHING, &["script|kill", "function|kill", "function|stats", "shutdown", "client|unpause"]),
    (Facts::NEEDS_ENABLING, &["debug", "module", "module|*"]),
    (Facts::REVEALS_STRINGS, &["dump"]),
    (Facts::WRITES_UNFLAGGED, &["pfcount"]),
    (Facts::CHANGES_NOTHING_IN_SCRIPTS, &["echo", "ping", "publish", "spublish", "time"]),
    (
        Facts::LONG,
        &[
            "debug",
            "flushall",
            "flushdb",
            "function|load",
            "function|restore",
            "keys",
            "migrate",
            "module|load",
            "module|loadex",
            "pfselftest",
            "save",
            "shutdown",
            "sort",
            "sort_ro",
        ],
    ),
];

/// Reads that reveal nothing about the content of a key, so their reply cannot show that an entry is out of date.
const SILENT: &[&str] = &["ttl", "pttl", "touch", "object", "object|*", "memory", "memory|*"];

/// The facts of the command with this name. `reads`: it only reads.
pub(super) fn facts(name: &str, reads: bool, verb: Verb) -> Facts {
    let container = name.split_once('|').map(|(container, _)| container);
    let is_among = |names: &[&str]| {
        names.iter().any(|known| *known == name || container.is_some() && known.strip_suffix("|*") == container)
    };
    let mut facts: Facts = FACTS.iter().filter(|(_, names)| is_among(names)).map(|(fact, _)| *fact).collect();
    if matches!(verb, Verb::StringOp(_) | Verb::Script(_) | Verb::ScriptRo(_)) {
        facts |= Facts::REVEALS_STRINGS;
    }
    if matches!(verb, Verb::Script(_) | Verb::ScriptRo(_)) {
        facts |= Facts::LONG;
    }
    facts.set(Facts::REVEALS, reads && !is_among(SILENT));
    facts
}
