//! Where a command may run, and how the proxy treats it. Words only: which command is which is decided in `decisions.rs`.

use crate::errors::OwnError;

/// Where a command may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// On a shared lane: one reply, no state left behind on the connection, the same answer on any connection.
    Stateless,
    /// On a connection of the client's own: it leaves state there, or gives not exactly one reply, or must not queue
    /// behind others (SCRIPT KILL behind the script).
    Session,
    /// On a connection of the client's own: it may hold the connection until something happens.
    Blocking,
    /// The proxy acts and answers; it may ask Redis for that.
    Local,
    /// Never sent; the error says why and what to do instead.
    Refused(&'static OwnError),
}

/// How the proxy treats a command; most are [`Verb::Plain`].
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
    /// Looks into a string or changes a part of it: needs the client's bytes in Redis, not an envelope.
    StringOp(StringOp),
    /// SORT: reads keys that its arguments only describe; may store.
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
    /// SCRIPT LOAD: names a text that EVALSHA may run.
    ScriptLoad,
    /// SCRIPT DEBUG: the next EVAL on the connection is run by the debugger.
    ScriptDebug,
    /// FUNCTION LOAD and others that change which functions there are, and what they may do.
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
    /// UNSUBSCRIBE: one reply per channel, also when nothing was subscribed.
    Unsubscribe,
    /// PUNSUBSCRIBE: one reply per pattern, also when nothing was subscribed.
    PUnsubscribe,
    /// SUNSUBSCRIBE: one reply per channel, also when nothing was subscribed.
    SUnsubscribe,
    /// MONITOR.
    Monitor,
    /// PUBLISH and SPUBLISH.
    Publish,
    /// PUBSUB CHANNELS.
    PubSubChannels,
    /// Always may block: BLPOP and the like.
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
    /// INFO.
    Info,
    /// PROXY, our own, and its subcommands.
    Proxy(ProxySubcommand),
    /// ASKING: valid for the next command on the same connection.
    Asking,
    /// READONLY: the connection may read from a cluster's replica.
    ReadOnly,
    /// READWRITE: ends READONLY.
    ReadWrite,
    /// SYNC and PSYNC: what comes behind them is the replication stream, and no reply.
    Sync,
    /// REPLCONF: what a replica says of itself. Some of it has no reply.
    ReplConf,
    /// SHUTDOWN: no reply when it succeeds.
    Shutdown,
    /// DEBUG.
    Debug,
    /// The beginning of an HTTP request (POST, Host:): Redis closes the connection.
    Http,
    /// Nothing special.
    Plain,
}

/// Commands on strings, as far as they differ in what has to be done when values may be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StringOp {
    /// APPEND.
    Append,
    /// SETRANGE.
    SetRange,
    /// BITOP: its first key is only written.
    BitOp,
    /// BITFIELD.
    BitField,
    /// BITFIELD_RO.
    BitFieldRo,
    /// LCS, and STRALGO of Redis 6.
    Lcs,
    /// DELEX: looks at the string only with a condition.
    DelEx,
    /// Any other.
    Other,
}

/// By what a script is called.
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
    /// CLIENT GETREDIR and CLIENT TRACKINGINFO: their replies name another client.
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

/// Subcommands of PROXY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxySubcommand {
    /// PROXY INFO.
    Info,
    /// PROXY HEALTH.
    Health,
    /// PROXY FLUSH.
    Flush,
    /// PROXY DEBUG.
    Debug,
    /// PROXY HELP.
    Help,
    /// PROXY itself, and what is no subcommand.
    Other,
}
