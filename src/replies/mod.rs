//! The reply side: what happens when a reply has come, or when none will come. Must not know the request side (`proxy`).

mod answers;
mod client_command;
mod decode;
mod deliver;
mod fills;
mod guarded;
mod halves;
mod login;
mod observed;
mod proxy_command;
mod session;
mod sizes;
mod transaction;
