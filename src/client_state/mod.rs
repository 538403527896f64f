//! The state of one client, in parts that do not know each other: its reply queue, its profile towards Redis, its fields in `CLIENT
//! LIST`, and its session. Must not know what a command means.

pub mod buffers;
pub mod client;
pub mod client_info;
pub mod connection_state;
pub mod ending;
pub mod identity;
pub mod profile;
pub mod reply_queue;
pub mod session;
pub mod users;
pub mod waiter;
