//! What is done with a reply that has come, or never will. Must not know the request side (`proxy`).

mod answers;
mod client_command;
mod decode;
mod deliver;
mod fills;
mod halves;
mod login;
mod proxy_command;
mod session;
mod transaction;
