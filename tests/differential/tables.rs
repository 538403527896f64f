//! Known differences, and why: first between any two Redis servers, then because of Shortstop.
//!
//! A fault of Shortstop must not be listed here.

use super::frame::Frame;
use super::how::How;

/// A command whose reply differs between two Redis servers that were sent the same: by the seed of their hash tables, by the clock,
/// by chance, or because it is about the process. `container|*`: every subcommand without a row of its own.
pub const UNSTABLE: &[(&str, How, &str)] = &[
    ("keys", How::AnyOrder, "hash table"),
    ("smembers", How::AnyOrder, "hash table"),
    ("sinter", How::AnyOrder, "hash table"),
    ("sunion", How::AnyOrder, "hash table"),
    ("sdiff", How::AnyOrder, "hash table"),
    ("scan", How::After(scanned), "hash table"),
    ("sscan", How::After(scanned), "hash table"),
    ("zscan", How::After(scanned_pairs), "hash table, after SORT has created one"),
    ("pubsub|channels", How::AnyOrder, "hash table"),
    ("pubsub|shardchannels", How::AnyOrder, "hash table"),
    ("acl|cat", How::AnyOrder, "hash table"),
    ("config|get", How::AnyOrderOfPairs, "hash table"),
    ("command", How::AnyOrderDeep, "hash table"),
    ("command|docs", How::AnyOrderDeep, "hash table"),
    ("command|info", How::AnyOrderDeep, "hash table"),
    ("command|list", How::AnyOrder, "hash table"),
    ("function|list", How::AnyOrderDeep, "hash table"),
    ("function|dump", How::Type, "hash table"),
    ("dump", How::After(dumped), "hash table in a set, clock in a stream"),
    ("randomkey", How::Shape, "chance"),
    ("srandmember", How::Shape, "chance"),
    ("hrandfield", How::Shape, "chance"),
    ("zrandmember", How::Shape, "chance"),
    ("acl|genpass", How::Shape, "chance"),
    ("lolwut", How::Type, "chance"),
    ("ttl", How::Near(10), "clock"),
    ("expiretime", How::Near(10), "clock"),
    ("pttl", How::Near(10_000), "clock"),
    ("pexpiretime", How::Near(10_000), "clock"),
    ("time", How::Shape, "clock"),
    ("lastsave", How::Near(60), "clock"),
    ("object|idletime", How::Shape, "clock"),
    ("xpending", How::After(idle_times), "clock"),
    ("xinfo|consumers", How::After(idle_fields), "clock"),
    ("xinfo|stream", How::After(moments), "clock"),
    ("info", How::Type, "the process"),
    ("memory|usage", How::Shape, "the allocator"),
    ("memory|doctor", How::Type, "the allocator"),
    ("memory|malloc-stats", How::Type, "the allocator"),
    ("memory|stats", How::Type, "the allocator"),
    ("latency|histogram", How::Type, "counts the commands that the test sends before it begins"),
    ("acl|log", How::Type, "clock"),
    ("client|id", How::Shape, "the process"),
    ("client|info", How::Type, "the process"),
    ("client|list", How::Type, "the process"),
    ("hello", How::After(hello), "the id of the connection"),
];

/// A difference in Shortstop's reply, or a refusal.
pub struct Difference {
    /// `name` or `container|sub`.
    pub command: &'static str,
    /// How the difference is handled.
    pub what: What,
    /// Only while values are compressed.
    pub sealed_only: bool,
    /// The reason. docs/compatibility.md has it too.
    pub why: &'static str,
}

/// How a difference is handled.
#[derive(Clone, Copy)]
pub enum What {
    /// The reply may be one of Shortstop's own errors with one of these texts. Redis is then not sent the command.
    Refused(&'static [&'static str]),
    /// This much is compared.
    Compared(How),
    /// Only calls that do not show the difference are sent.
    SentInPart,
    /// The command is not sent.
    NotSent,
}

const fn compared(command: &'static str, how: How, sealed_only: bool, why: &'static str) -> Difference {
    Difference { command, what: What::Compared(how), sealed_only, why }
}

const fn in_part(command: &'static str, why: &'static str) -> Difference {
    Difference { command, what: What::SentInPart, sealed_only: false, why }
}

const fn not_sent(command: &'static str, why: &'static str) -> Difference {
    Difference { command, what: What::NotSent, sealed_only: false, why }
}

/// The beginning of Shortstop's own errors.
pub const OURS: &[u8] = b"-ERR shortstop: ";

const UNDECLARED: &str = "reads the values of keys that it does not declare as they are stored";
const STORED: &str = "is about the stored bytes, which may be compressed";
const REPLICATION: &str = "replication does not pass through a proxy";
const OTHER_CONNECTION: &str = "is about Shortstop's connections to Redis";

/// Every difference. docs/compatibility.md names each in "What differs from Redis", which a test checks.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        command: "hello",
        what: What::Refused(&["this server may not reply to a login in a transaction; send it before MULTI"]),
        sealed_only: false,
        why: "newer servers omit the reply to a failed login from EXEC's reply",
    },
    compared("memory|usage", How::Shape, true, STORED),
    compared("dump", How::Type, true, STORED),
    compared("object|encoding", How::After(encoding), true, STORED),
    compared("info", How::Type, false, "Shortstop's sections follow Redis's own"),
    compared("client|id", How::Shape, false, "the id is Shortstop's"),
    compared("client|info", How::Type, false, OTHER_CONNECTION),
    compared("client|list", How::Type, false, OTHER_CONNECTION),
    compared("hello", How::After(hello), false, "the id is that of Shortstop's connection to Redis"),
    in_part("publish", "counts a subscriber that has just disconnected"),
    in_part("pubsub", "counts a subscriber that has just disconnected"),
    in_part("client|kill", OTHER_CONNECTION),
    in_part("script|debug", "Redis refuses it in a pipeline, which it cannot see through a proxy"),
    not_sent("debug|object", STORED),
    in_part("slowlog", "requests that L1 answers are missing there"),
    in_part("monitor", "requests that L1 answers are missing there"),
    in_part("object|freq", "a request that L1 answers is no use of the key"),
    in_part("eval", UNDECLARED),
    in_part("evalsha", UNDECLARED),
    in_part("fcall", UNDECLARED),
    not_sent("cluster|syncslots", REPLICATION),
    not_sent("proxy", "answered by Shortstop; Redis does not know it"),
];

/// Commands that are not generated from their grammar, and why. Those marked with a star are in the hand-written scenes.
pub const NOT_GENERATED: &[(&str, &str)] = &[
    ("auth", "* changes the client's user"),
    ("acl|load", "needs an ACL file"),
    ("acl|save", "needs an ACL file"),
    ("asking", "* changes the connection's state"),
    ("bgrewriteaof", "the answer depends on whether the last one has ended"),
    ("bgsave", "the answer depends on whether the last one has ended"),
    ("client|kill", "* would end Shortstop's own connections"),
    ("client|no-evict", "* changes the connection's state"),
    ("client|no-touch", "changes the connection's state"),
    ("client|pause", "* stops every client"),
    ("client|reply", "* decides whether there are replies at all"),
    ("client|setinfo", "changes the connection's state"),
    ("client|tracking", "* changes the connection's state"),
    ("client|unblock", "* takes the id of a connection"),
    ("client|unpause", "* stops every client"),
    ("debug", "* for developers of Redis"),
    ("discard", "* in transactions of the generated part too"),
    ("exec", "* in transactions of the generated part too"),
    ("failover", "* changes the role of the server"),
    ("module|load", "loads a library"),
    ("module|loadex", "loads a library"),
    ("module|unload", "unloads a library"),
    ("monitor", "shows the connections of the server; tests/sessions.rs has it"),
    ("multi", "* in transactions of the generated part too"),
    ("pfselftest", "takes seconds and is about the server's own code"),
    ("psubscribe", "* in subscriptions of the generated part too"),
    ("psync", "turns the connection into a replication link; tests/replication.rs has it"),
    ("punsubscribe", "* in subscriptions of the generated part too"),
    ("quit", "* ends the connection"),
    ("readonly", "* changes the connection's state"),
    ("readwrite", "* changes the connection's state"),
    ("replconf", "belongs to a replication link; tests/replication.rs has it"),
    ("replicaof", "* changes the role of the server"),
    ("reset", "* in the generated part, on its own"),
    ("save", "* writes a file"),
    ("script|debug", "* the debugger would run the next EVAL"),
    ("shutdown", "* ends the server"),
    ("slaveof", "* changes the role of the server"),
    ("ssubscribe", "* in subscriptions of the generated part too"),
    ("subscribe", "* in subscriptions of the generated part too"),
    ("sunsubscribe", "* in subscriptions of the generated part too"),
    ("sync", "turns the connection into a replication link; tests/replication.rs has it"),
    ("unsubscribe", "* in subscriptions of the generated part too"),
    ("wait", "* waits for replicas"),
];

/// Commands that always fail on a server like this, so that only their errors are compared. v*: vector sets, whose grammar does not
/// describe their arguments well enough.
pub const ERRORS_ONLY: &[&str] = &[
    "cluster|*",
    "client|caching",
    "config|rewrite",
    "object|freq",
    "script|kill",
    "function|kill",
    "latency|graph",
    "hotkeys|start",
    "trimslots",
    "xidmprecord",
    "v*",
];

/// How a command's replies are compared.
pub fn how(name: &str, sealing: bool) -> How {
    let difference = DIFFERENCES.iter().find_map(|difference| match difference.what {
        What::Compared(how) if difference.command == name && (sealing || !difference.sealed_only) => Some(how),
        _ => None,
    });
    let unstable = || UNSTABLE.iter().find(|(command, _, _)| *command == name).map(|(_, how, _)| *how);
    difference.or_else(unstable).unwrap_or(How::Same)
}

/// Whether a reply is a refusal that the command may get.
pub fn is_refusal(name: &str, reply: &[u8], sealing: bool) -> bool {
    let Some(text) = reply.strip_prefix(OURS).and_then(|text| text.strip_suffix(b"\r\n")) else { return false };
    DIFFERENCES.iter().any(|difference| match difference.what {
        What::Refused(texts) if difference.command == name && (sealing || !difference.sealed_only) => {
            texts.iter().any(|one| one.as_bytes() == text)
        }
        _ => false,
    })
}

fn scanned(reply: &mut Frame) {
    if let Some([_, found]) = reply.parts().map(Vec::as_mut_slice) {
        found.sort();
    }
}

fn scanned_pairs(reply: &mut Frame) {
    if let Some([_, found]) = reply.parts().map(Vec::as_mut_slice) {
        found.sort_pairs();
    }
}

/// The first byte is the type: 2 is a set in a hash table, the others are streams with consumers.
fn dumped(reply: &mut Frame) {
    if reply.text().is_some_and(|payload| matches!(payload.first(), Some(2 | 15 | 19 | 21))) {
        reply.blank();
    }
}

/// `id, consumer, idle, deliveries` of XPENDING's long form.
fn idle_times(reply: &mut Frame) {
    for entry in reply.parts().into_iter().flatten() {
        if let Some([_, _, idle @ Frame::Line(b':', _), _]) = entry.parts().map(Vec::as_mut_slice) {
            idle.blank();
        }
    }
}

fn idle_fields(reply: &mut Frame) {
    for consumer in reply.parts().into_iter().flatten() {
        let fields = consumer.parts().into_iter().flat_map(|parts| parts.chunks_exact_mut(2));
        for pair in fields {
            if matches!(pair[0].text(), Some(b"idle" | b"inactive")) {
                pair[1].blank();
            }
        }
    }
}

/// Times of day in milliseconds, wherever they are.
fn moments(reply: &mut Frame) {
    if reply.integer().is_some_and(|number| number > 1_600_000_000_000) {
        reply.blank();
    }
    reply.parts().into_iter().flatten().for_each(moments);
}

fn encoding(reply: &mut Frame) {
    if let Frame::Bulk(b'$', Some(name)) = reply
        && name == b"embstr"
    {
        *name = b"raw".to_vec();
    }
}

fn hello(reply: &mut Frame) {
    let fields = reply.parts().into_iter().flat_map(|parts| parts.chunks_exact_mut(2));
    for pair in fields {
        if pair[0].text() == Some(b"id") {
            pair[1].blank();
        }
    }
}
