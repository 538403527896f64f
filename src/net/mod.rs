//! Sockets: where they lead, what they are set to, and one stream over TCP, TLS and Unix sockets alike.
//!
//! Knows bytes and certificates. Must not know Redis, and must not decide who is let in.

mod address;
mod listener;
mod options;
mod stream;
pub mod tls;

pub use address::Address;
pub use listener::{Listener, Socket};
pub use options::{for_client, for_upstream};
pub use stream::Stream;
