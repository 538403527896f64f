//! What waits for a reply, as data. What is to be done with the reply is in `replies`; what is sent, in `proxy`.

pub mod client_list;
pub mod exec_demux;
pub mod write_guard;
