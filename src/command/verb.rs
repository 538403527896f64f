//! Where a command may run, and how it is treated. Definitions only: `decisions.rs` assigns them to commands.

use crate::errors::OwnError;

/// Where a command may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// On a lane: one reply, no change of the connection's state, and the same reply on any connection.
    Stateless,
    /// On a private connection: it changes the connection's state, or does not return exactly one reply, or must not queue behind
    /// other requests (SCRIPT KILL behind the script).
    Session,
    /// On a private connection: it may block the connection.
    Blocking,
    /// Shortstop handles and answers it. It may ask Redis.
    Local,
    /// Never sent. The error says why and what to do instead.
    Refused(&'static OwnError),
}

/// How a command is treated. Most are [`Verb::Plain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// GET.
    Get,
    /// MGET.
    MGet,
    /// SET, with or without GET.
    Set,
    /// SETEX.
    SetEx,
    /// PSETEX.
    PSetEx,
    /// SETNX.
    SetNx,
    /// MSET.
    MSet,
    /// MSETNX.
    MSetNx,
    /// MSETEX: a count, then keys and values.
    MSetEx,
    /// GETSET.
    GetSet,
    /// GETDEL.
    GetDel,
    /// GETEX.
    GetEx,
    /// Reads or changes a part of a string: needs the client's bytes in Redis, not an envelope.
    StringOp(StringOp),
    /// SORT: reads keys that its arguments only describe, and may store.
    Sort,
    /// SORT_RO: reads keys that its arguments only describe.
    SortRo,
    /// FLUSHALL.
    FlushAll,
    /// FLUSHDB.
    FlushDb,
    /// SWAPDB.
    SwapDb,
    /// MOVE: the key changes in two databases.
    Move,
    /// COPY: with DB the second key is in another database.
    Copy,
    /// MIGRATE.
    Migrate,
    /// EVAL, EVALSHA, FCALL.
    Script(ScriptBy),
    /// EVAL_RO, EVALSHA_RO, FCALL_RO.
    ScriptRo(ScriptBy),
    /// SCRIPT LOAD: loads a text that EVALSHA may run.
    ScriptLoad,
    /// SCRIPT DEBUG: the debugger runs the next EVAL on the connection.
    ScriptDebug,
    /// FUNCTION LOAD and others that change the server's functions.
    Functions,
    /// MULTI.
    Multi,
    /// EXEC.
    Exec,
    /// DISCARD.
    Discard,
    /// WATCH.
    Watch,
    /// UNWATCH.
    Unwatch,
    /// SUBSCRIBE: one reply per channel.
    Subscribe,
    /// PSUBSCRIBE: one reply per pattern.
    PSubscribe,
    /// SSUBSCRIBE: one reply per channel.
    SSubscribe,
    /// UNSUBSCRIBE: one reply per channel, even without a subscription.
    Unsubscribe,
    /// PUNSUBSCRIBE: one reply per pattern, even without a subscription.
    PUnsubscribe,
    /// SUNSUBSCRIBE: one reply per channel, even without a subscription.
    SUnsubscribe,
    /// MONITOR.
    Monitor,
    /// PUBLISH and SPUBLISH.
    Publish,
    /// PUBSUB CHANNELS.
    PubSubChannels,
    /// May block with any arguments, such as BLPOP.
    Blocking,
    /// WAIT and WAITAOF: wait until replicas, or the disk, have the client's writes.
    Wait,
    /// XREAD: blocks only with BLOCK, see [`super::Row::class_for`].
    XRead,
    /// XREADGROUP: blocks only with BLOCK, see [`super::Row::class_for`].
    XReadGroup,
    /// SELECT.
    Select,
    /// QUIT.
    Quit,
    /// RESET.
    Reset,
    /// HELLO.
    Hello,
    /// AUTH.
    Auth,
    /// CLIENT and its subcommands.
    Client(ClientSubcommand),
    /// ACL SETUSER.
    AclSetUser,
    /// ACL DELUSER.
    AclDelUser,
    /// ACL LOAD.
    AclLoad,
    /// CONFIG SET.
    ConfigSet,
    /// CONFIG RESETSTAT.
    ConfigResetStat,
    /// INFO.
    Info,
    /// PROXY, Shortstop's own command, and its subcommands.
    Proxy(ProxySubcommand),
    /// ASKING: valid for the next command on the same connection.
    Asking,
    /// READONLY: the connection may read from a cluster's replica.
    ReadOnly,
    /// READWRITE: ends READONLY.
    ReadWrite,
    /// SYNC and PSYNC: the replication stream follows, and no reply.
    Sync,
    /// REPLCONF: a replica's report about itself. Some options have no reply.
    ReplConf,
    /// SHUTDOWN: no reply if it succeeds.
    Shutdown,
    /// DEBUG.
    Debug,
    /// The beginning of an HTTP request (POST, Host:): Redis closes the connection.
    Http,
    /// Nothing special.
    Plain,
}

/// Commands on strings, as far as they differ in how compressed values are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StringOp {
    /// APPEND.
    Append,
    /// SETRANGE.
    SetRange,
    /// STRLEN.
    StrLen,
    /// GETRANGE and SUBSTR.
    GetRange,
    /// GETBIT.
    GetBit,
    /// BITCOUNT.
    BitCount,
    /// BITPOS.
    BitPos,
    /// BITOP: it only writes its first key.
    BitOp,
    /// BITFIELD.
    BitField,
    /// BITFIELD_RO.
    BitFieldRo,
    /// LCS, and STRALGO of Redis 6.
    Lcs,
    /// DELEX: reads the string only if it has a condition.
    DelEx,
    /// Any other.
    Other,
}

/// How a script is named in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScriptBy {
    /// Its text (EVAL).
    Text,
    /// The SHA-1 of its text (EVALSHA).
    Sha,
    /// The name of a function (FCALL).
    Function,
}

/// Subcommands of CLIENT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientSubcommand {
    /// CLIENT ID.
    Id,
    /// CLIENT INFO.
    Info,
    /// CLIENT LIST.
    List,
    /// CLIENT KILL.
    Kill,
    /// CLIENT UNBLOCK.
    Unblock,
    /// CLIENT SETNAME.
    SetName,
    /// CLIENT GETNAME.
    GetName,
    /// CLIENT SETINFO.
    SetInfo,
    /// CLIENT REPLY.
    Reply,
    /// CLIENT TRACKING.
    Tracking,
    /// CLIENT GETREDIR and CLIENT TRACKINGINFO: their replies contain another client's id.
    Redirection,
    /// CLIENT NO-EVICT and CLIENT NO-TOUCH.
    Switch,
    /// CLIENT PAUSE: Redis answers no client for a time.
    Pause,
    /// CLIENT UNPAUSE.
    Unpause,
    /// CLIENT itself, and any other subcommand.
    Other,
}

/// Declares the subcommands of PROXY: variant and name, once.
macro_rules! proxy_subcommands {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Subcommands of PROXY.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProxySubcommand {
            $($(#[doc = $doc])+ $variant,)+
            /// PROXY itself, and what is no subcommand.
            Other,
        }

        impl ProxySubcommand {
            /// All of them, without [`ProxySubcommand::Other`].
            pub const ALL: &[ProxySubcommand] = &[$(ProxySubcommand::$variant),+];

            /// The name of its row in the table, in small letters.
            pub(super) fn full_name(self) -> &'static str {
                match self {
                    $(ProxySubcommand::$variant => concat!("proxy|", $name),)+
                    ProxySubcommand::Other => "proxy",
                }
            }

            /// Its name in small letters.
            pub fn name(self) -> &'static str {
                match self {
                    $(ProxySubcommand::$variant => $name,)+
                    ProxySubcommand::Other => "",
                }
            }
        }
    };
}

proxy_subcommands! {
    /// PROXY INFO.
    Info = "info",
    /// PROXY HEALTH.
    Health = "health",
    /// PROXY HOTKEYS.
    HotKeys = "hotkeys",
    /// PROXY BIGKEYS.
    BigKeys = "bigkeys",
    /// PROXY RULES.
    Rules = "rules",
    /// PROXY EVENTS.
    Events = "events",
    /// PROXY SLOWLOG.
    SlowLog = "slowlog",
    /// PROXY WARM.
    Warm = "warm",
    /// PROXY COMPRESS.
    Compress = "compress",
    /// PROXY DECOMPRESS.
    Decompress = "decompress",
    /// PROXY CONFIG.
    Config = "config",
    /// PROXY STATS.
    Stats = "stats",
    /// PROXY EXPLAIN.
    Explain = "explain",
    /// PROXY FLUSH.
    Flush = "flush",
    /// PROXY REPORT.
    Report = "report",
    /// PROXY ALERTS.
    Alerts = "alerts",
    /// PROXY FLEET.
    Fleet = "fleet",
    /// PROXY ADVICE.
    Advice = "advice",
    /// PROXY DEBUG.
    Debug = "debug",
    /// PROXY HELP.
    Help = "help",
}
