//! Shortstop: a Redis-protocol caching proxy.
//!
//! Clients that speak to Redis are pointed at it. Hot reads are answered from memory, values travel to Redis compressed, and
//! writes tell the other Shortstops of a fleet over NATS.
//!
//! ```text
//! clients ──RESP──▶ worker 0 ─┐                      ┌─▶ Redis
//!                   worker 1 ─┼── lanes, sessions ───┘
//!                   …         │
//!                   shared: near cache, guards, rules, metrics
//!                   control: NATS bus · topology · reload · signals
//! ```
//!
//! One thread per core serves clients; what it owns (connections, lanes, hot set, counters) it shares with nobody; who is
//! connected elsewhere (CLIENT LIST) it asks the others. A small runtime beside them does all that is not a request.
//!
//! # The house, from the ground up
//!
//! A module uses only what this table lists before it: the floors from the ground up, a row from left to right. Below that no file
//! imports itself over others. `make check` proves both (`tests/structure.rs`).
//!
//! | floor | modules | |
//! | --- | --- | --- |
//! | 0 words | [`resp`], [`reads`], [`glob`], [`config`], [`errors`], [`metrics`] | bytes in, values out; no I/O |
//! | | [`log`], [`supervisor`] | where the log's lines go; which threads and tasks must not end |
//! | 1 tables | [`command`], [`rules`], [`codec`] | pure |
//! | 2 memory | [`near_cache`], [`coherence`], [`scripts`] | shared state; what may be served and kept, what scripts may write |
//! | 3 wires | [`net`] | sockets: TCP, TLS, Unix |
//! | | [`upstream`], [`bus`] | one kind of connection each |
//! | 4 state | `client_state` | what is known of one client: reply queue, profile, client info, session |
//! | | `exchange` | what waits for a reply, as data |
//! | | `worker_state` | what one worker owns, what all workers share |
//! | 5 decision | `proxy` | the request side: what becomes of a request |
//! | | `replies` | the reply side: what is done with a reply. It and `proxy` do not know each other |
//! | 6 sockets | `client`, `arrival`, `worker`, `acceptor` | read, decide, write in order |
//! | 7 windows | [`admin`], [`monitor`] | show the rest, own nothing: the PROXY command, and HTTP |
//! | 8 wiring | [`machine`], [`listeners`], [`fleet`], [`app`] | how much memory there is; what clients connect to; what Redis shows of the fleet; build, run, reload, drain |
//!
//! # The life of a GET
//!
//! `client::Connection::take` finds the request in what was read → `proxy::dispatch` → `proxy::get` asks the worker's hot set, then
//! the near cache → `coherence::ServePermit::allows` → the stored reply goes to the `client_state::reply_queue` → one write for all
//! that was read. On a miss: a `coherence::Ticket` → `upstream::Link`, `GET` and `PTTL` in one write, and an `exchange::pending` that
//! waits → `replies::fills` decodes the value, keeps it if the ticket still stands, and fills the slot in the reply queue.

mod acceptor;
pub mod admin;
pub mod app;
mod arrival;
pub mod bus;
mod client;
mod client_state;
pub mod codec;
pub mod coherence;
pub mod command;
pub mod config;
pub mod errors;
mod exchange;
pub mod fleet;
pub mod glob;
pub mod listeners;
pub mod log;
pub mod machine;
pub mod metrics;
pub mod monitor;
pub mod near_cache;
pub mod net;
mod proxy;
pub mod reads;
mod replies;
pub mod resp;
pub mod rules;
pub mod scripts;
pub mod supervisor;
pub mod upstream;
mod worker;
mod worker_state;
