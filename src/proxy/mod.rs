//! The request side: decides what becomes of a request. It is answered from L1, passed on a lane, or given a session.
//!
//! A request and a client's state come in; an answer goes to the client's reply queue, or something waits upstream for the reply. No
//! socket is known here, and nothing waits here: what cannot go on yet says so ([`Next`]). Must not know what is done with a reply
//! (`replies`).

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
