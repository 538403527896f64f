//! Sockets: addresses, options, and one stream type for TCP, TLS and Unix sockets.
//!
//! Knows bytes and certificates. Must not know Redis, and must not decide which clients are accepted.

mod address;
mod listener;
mod options;
mod stream;
pub mod tls;

pub use address::Address;
pub use listener::{Listener, Socket};
pub use options::{for_client, for_upstream};
pub use stream::Stream;
