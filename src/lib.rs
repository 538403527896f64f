//! Shortstop: a Redis-protocol caching proxy.
//!
//! Applications connect to Shortstop instead of Redis. Hot reads are answered from memory, values are compressed on their way to
//! Redis, and writes are published to the other Shortstops of a fleet over NATS.
//!
//! ```text
//! clients ──RESP──▶ worker 0 ─┐                      ┌─▶ Redis
//!                   worker 1 ─┼── lanes, sessions ───┘
//!                   …         │
//!                   shared: near cache, guards, rules, metrics
//!                   control: NATS bus · topology · reload · signals
//! ```
//!
//! One thread per core serves clients. What a worker owns (connections, lanes, hot set, counters) it shares with no other thread.
//! Where it needs to know the clients of others (CLIENT LIST), it asks the other workers. A small runtime beside the workers does
//! everything that is not a request.
//!
//! # The house, from the ground up
//!
//! A module uses only modules that this table lists before it: from the ground up, and in a row from left to right. There are no
//! import circles between files. `make check` proves both (`tests/structure.rs`).
//!
//! | floor | modules | |
//! | --- | --- | --- |
//! | 0 words | [`resp`], [`reads`], [`glob`], [`codec`], [`config`], [`errors`], [`metrics`] | bytes in, values out; no I/O |
//! | | [`log`], [`supervisor`], [`machine`], [`pace`] | the writer of the log; the watch over threads and tasks that must not end; the available memory; the pace of work in the background |
//! | 1 tables | [`command`], [`rules`], [`strings`] | pure |
//! | | [`history`], [`alerts`] | samples of the metrics over the last week, and what in them needs a person |
//! | | [`summaries`] | what the instances of a fleet tell of themselves |
//! | 2 memory | [`near_cache`], [`coherence`], [`scripts`] | shared state; what may be served and kept, what scripts may write |
//! | | [`traffic`] | what has passed through a worker, for those who ask |
//! | 3 wires | [`net`] | sockets: TCP, TLS, Unix |
//! | | [`upstream`], [`bus`], [`webhook`] | the connections to Redis, to NATS, and to who wants alerts |
//! | | [`decompress`] | turns stored values back to plain |
//! | 4 state | `client_state` | the state of one client: reply queue, profile, client info, session |
//! | | `exchange` | what waits for a reply, as data |
//! | | `worker_state` | what one worker owns, what all workers share |
//! | 5 decision | `proxy` | the request side: handles requests |
//! | | `replies` | the reply side: handles replies. It and `proxy` do not know each other |
//! | 6 sockets | `client`, `arrival`, `worker`, `acceptor` | read requests, handle them, write replies in order |
//! | 7 windows | [`admin`], [`monitor`] | show the state of the rest, and own nothing: the PROXY command, and HTTP |
//! | 8 wiring | [`listeners`], [`fleet`], [`app`] | the listeners; the instances that Redis shows; build, run, reload, drain |
//!
//! # The life of a GET
//!
//! `client::Connection::take` finds the request in the bytes read → `proxy::dispatch` → `proxy::get` looks into the worker's hot
//! set, then into the near cache → `coherence::ServePermit::allows` → the stored reply goes to the `client_state::reply_queue` →
//! one write for all requests of the read. On a miss: a `coherence::Ticket` → `upstream::Link`, `GET` and `PTTL` in one write, and
//! an `exchange::pending` that waits → `replies::fills` decodes the value, keeps it if the ticket is still valid, and fills the
//! slot in the reply queue.

mod acceptor;
pub mod admin;
pub mod alerts;
pub mod app;
mod arrival;
pub mod bus;
mod client;
mod client_state;
pub mod codec;
pub mod coherence;
pub mod command;
pub mod config;
pub mod decompress;
pub mod errors;
mod exchange;
pub mod fleet;
pub mod glob;
pub mod history;
pub mod listeners;
pub mod log;
pub mod machine;
pub mod metrics;
pub mod monitor;
pub mod near_cache;
pub mod net;
pub mod pace;
mod proxy;
pub mod reads;
mod replies;
pub mod resp;
pub mod rules;
pub mod scripts;
pub mod strings;
pub mod summaries;
pub mod supervisor;
pub mod traffic;
pub mod upstream;
pub mod webhook;
mod worker;
mod worker_state;
