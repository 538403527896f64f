//! Connections to Redis: lanes that many clients share, private ones for sessions, and what is known of the server.
//!
//! A link carries bytes and keeps their order. What a reply means is decided by what waits for it.

mod acl;
mod control;
mod endpoint;
mod finder;
mod functions;
mod handshake;
pub mod instances;
mod limits;
mod link;
mod login;
mod own;
mod queue;
mod rights;
mod silence;
pub mod status;
pub mod topology;

/// What the names of Shortstop's own channels at Redis begin with.
pub const RESERVED: &str = "__shortstop:";

pub use endpoint::{Endpoint, Server, Suspicion};
pub use handshake::OwnRights;
pub use limits::ServerLimits;
pub use link::{Expected, Link, LinkProfile, LinkSettings, Lost, Reply, Tap};
pub use login::{Login, NOAUTH};
pub use own::is_own;
pub use silence::{Delay, OVERDUE, Silence};
