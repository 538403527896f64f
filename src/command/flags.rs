//! Properties of a command that are one bit each: from the server ([`Flags`]), and decided here ([`Facts`]).

use bitflags::bitflags;

bitflags! {
    /// The server's flags. A flag that is not listed here does not matter to Shortstop.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// May change data.
        const WRITE = 1;
        /// Only reads data.
        const READONLY = 1 << 1;
        /// May block the connection until an event happens.
        const BLOCKING = 1 << 2;
        /// First, last and step do not find all keys.
        const MOVABLE_KEYS = 1 << 3;
        /// Not allowed in scripts.
        const NO_SCRIPT = 1 << 4;
        /// Pub/sub.
        const PUBSUB = 1 << 5;
        /// An administrative command.
        const ADMIN = 1 << 6;
        /// Refused by Redis when its memory is full.
        const DENYOOM = 1 << 7;
        /// Answered while the data set is loading.
        const LOADING = 1 << 8;
        /// Answered by a replica that has lost its primary.
        const STALE = 1 << 9;
        /// Answered before AUTH.
        const NO_AUTH = 1 << 10;
        /// Answered while Redis is busy with a script.
        const ALLOW_BUSY = 1 << 11;
        /// Not allowed in MULTI.
        const NO_MULTI = 1 << 12;
        /// Constant or logarithmic time.
        const FAST = 1 << 13;
        /// ACL category `@connection`: about the connection itself.
        const CONNECTION = 1 << 14;
        /// ACL category `@transaction`.
        const TRANSACTION = 1 << 15;
        /// It comes from a module.
        const MODULE = 1 << 16;
    }
}

bitflags! {
    /// Properties of a command in addition to the server's flags, its class and its verb.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Facts: u32 {
        /// Leaves the connection's state unchanged. It needs a private connection only because it must not wait behind other
        /// requests.
        const LEAVES_NOTHING = 1;
        /// Redis first checks whether it is enabled, and only then whether there is a login.
        const NEEDS_ENABLING = 1 << 1;
        /// A read whose reply reveals something about the content of its keys, not only about their TTL or encoding.
        const REVEALS = 1 << 2;
        /// A read other than GET and MGET whose reply may reveal something about the content of a string.
        const REVEALS_STRINGS = 1 << 3;
        /// Changes nothing when a script calls it, though it is not flagged read-only.
        const CHANGES_NOTHING_IN_SCRIPTS = 1 << 4;
        /// Writes its declared keys, though it is not flagged as a write.
        const WRITES_UNFLAGGED = 1 << 5;
        /// Redis may execute it for long, and serves no other client meanwhile: it runs code, or walks through the whole data set.
        const LONG = 1 << 6;
    }
}
