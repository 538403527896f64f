//! What waits for a reply, as data. `replies` handles the replies, `proxy` sends the requests.

pub mod announced;
pub mod client_command;
pub mod client_list;
pub mod exec_demux;
pub mod greeting;
pub mod observed;
pub mod pending;
pub mod plain;
pub mod reply_shape;
pub mod script_request;
pub mod transaction;
pub mod values;
pub mod write_guard;

#[cfg(test)]
mod tests;
