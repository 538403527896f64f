//! The request side: decides what happens to each request. L1 answers it, or it goes to a lane or a session.
//!
//! Input is a request and the client's state. Output is an answer in the client's reply queue, or a pending request upstream. This
//! module uses no socket and never waits: a request that cannot proceed yet returns a [`Next`] that says so. Must not know how
//! replies are handled (`replies`).

mod announce;
mod auth;
mod bitfield;
mod call;
mod client;
mod client_command;
mod compress;
mod connection;
mod debugger;
mod dispatch;
mod errors;
mod forward;
mod get;
mod local;
mod monitor;
mod pubsub;
mod read;
mod replication;
mod reply_shape;
mod request;
mod scripts;
mod session;
mod string_guard;
mod string_op;
mod transaction;
mod unauthenticated;
mod wait;
mod write;

pub use client::{Client, Next};
pub use request::Request;
