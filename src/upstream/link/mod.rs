//! One pipelined connection to Redis. Requests are appended, and each reply goes, in order, to what expects it.
//!
//! A shared link (a lane) lives as long as its worker. When its connection breaks, it connects again with back-off. It sends again
//! what certainly did not run, and what only reads, and answers the rest with an error. A read is also answered with an error when
//! its client wrote something behind it: repeated, the read would see that write. A private link (of a session) ends with its
//! connection, because the state it was made for has ended too. Nothing that may write is ever sent twice.
//!
//! | file | |
//! | --- | --- |
//! | `expected` | what waits for a reply, as the link sees it; the reply's bytes |
//! | `lost` | why Redis cannot be asked |
//! | `state` | the phases of a link and every transition between them; no I/O |
//! | `handle` | what the rest of the proxy does with a link: check, send, retire, close |
//! | `connect` | makes a connection: finds the server, dials, shakes hands |
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
