//! What is said of a command in one bit each: by the server ([`Flags`]), and by this proxy ([`Facts`]).

use bitflags::bitflags;

bitflags! {
    /// What the server says about a command; a flag that is not listed here has no consequence for a proxy.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// May change data.
        const WRITE = 1;
        /// Only reads data.
        const READONLY = 1 << 1;
        /// May block the connection until something happens.
        const BLOCKING = 1 << 2;
        /// First, last and step do not find all keys.
        const MOVABLE_KEYS = 1 << 3;
        /// Not allowed in scripts.
        const NO_SCRIPT = 1 << 4;
        /// Pub/sub.
        const PUBSUB = 1 << 5;
        /// Administration.
        const ADMIN = 1 << 6;
        /// Refused by Redis when its memory is full.
        const DENYOOM = 1 << 7;
        /// Answered while the data set is loading.
        const LOADING = 1 << 8;
        /// Answered by a replica that has lost its master.
        const STALE = 1 << 9;
        /// Answered before AUTH.
        const NO_AUTH = 1 << 10;
        /// Answered while a script runs for too long.
        const ALLOW_BUSY = 1 << 11;
        /// Not allowed in MULTI.
        const NO_MULTI = 1 << 12;
        /// Constant or logarithmic time.
        const FAST = 1 << 13;
        /// ACL category `@connection`: about the connection itself.
        const CONNECTION = 1 << 14;
        /// ACL category `@transaction`.
        const TRANSACTION = 1 << 15;
        /// It came with a module.
        const MODULE = 1 << 16;
    }
}

bitflags! {
    /// What is true of a command, beside what the server says, its class and its verb.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Facts: u32 {
        /// Leaves nothing on a connection, and needs one of its own only because it must not wait behind others.
        const LEAVES_NOTHING = 1;
        /// Redis refuses it first for not being enabled, and only then for a missing login.
        const NEEDS_ENABLING = 1 << 1;
        /// A read that says something of what its keys hold, and not only of their time or place.
        const TELLS = 1 << 2;
        /// A read that may say something of what a string holds, beside GET and MGET.
        const TELLS_OF_STRINGS = 1 << 3;
        /// Changes nothing when a script calls it, though it is not flagged read-only.
        const CHANGES_NOTHING_IN_SCRIPTS = 1 << 4;
        /// Writes the keys that it declares, though it is not flagged as a write.
        const WRITES_UNFLAGGED = 1 << 5;
        /// Redis may execute it for long, and serves nobody else meanwhile: it runs code, or goes through all of the data set.
        const LONG = 1 << 6;
    }
}
