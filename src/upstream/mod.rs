//! Connections to Redis: lanes, which many clients share, and private connections for sessions. Also what is known of the server.
//!
//! A link carries bytes and keeps their order. The pending request decides what a reply means.

mod acl;
mod control;
mod dial;
mod direct_clients;
mod endpoint;
mod finder;
mod functions;
mod handshake;
pub mod instances;
mod limits;
mod link;
mod login;
mod own;
pub mod plain;
mod queue;
mod rights;
pub mod sampled;
mod silence;
pub mod status;
pub mod topology;

/// Prefix of the channels that Shortstop uses for itself in Redis.
pub const RESERVED: &str = "__shortstop:";

/// Prefix of the names of all connections of Shortstops to Redis.
pub const OWN_NAMES: &str = "shortstop:";

pub use acl::UserRights;
pub use dial::{Dialer, check_files};
pub use endpoint::{Endpoint, Server, Suspicion};
pub use handshake::OwnRights;
pub use limits::ServerLimits;
pub use link::{Expected, Link, LinkProfile, LinkSettings, Lost, Reply, Tap};
pub use login::{Login, NOAUTH};
pub use own::is_own;
pub use silence::{Delay, OVERDUE, Silence};
