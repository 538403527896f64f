//! What is known of one client, in parts that do not know each other: the replies that are due to it, who it is to Redis, what
//! `CLIENT LIST` tells of it, and its private connection. Must not know what a command means.

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
