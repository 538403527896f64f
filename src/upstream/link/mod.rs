//! One pipelined connection to Redis. Requests are appended, and each reply goes, in order, to what waits for it.
//!
//! A shared link (a lane) lives as long as its worker. When its connection breaks, it reconnects with back-off. It repeats what
//! certainly did not run and what only reads, and answers the rest with an error. A read also gets an error if its client wrote
//! something behind it: the repeated read would see that write. A private link (of a session) ends with its connection, because the
//! session's state has ended too. Nothing that may write is ever sent twice.
//!
//! | file | |
//! | --- | --- |
//! | `expected` | the interface to what waits for replies; the bytes of a reply |
//! | `lost` | why Redis cannot answer a request |
//! | `state` | the phases of a link and every transition between them; no I/O |
//! | `handle` | the interface for the rest of Shortstop: check, send, retire, close |
//! | `connect` | opens a connection: finds the server, dials, does the handshake |
//! | `task` | the task behind a link: connects, transfers, backs off |
//! | `transfer` | writes requests and reads replies on one connection |

mod connect;
mod expected;
mod handle;
mod lost;
mod state;
#[cfg(test)]
mod state_tests;
mod task;
mod transfer;

pub use expected::{Expected, Reply, Tap};
pub use handle::{Link, LinkProfile, LinkSettings};
pub use lost::Lost;
