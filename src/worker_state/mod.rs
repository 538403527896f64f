//! What one worker owns and what all workers share. The request side (`proxy`) and the reply side (`replies`) use it, and do not
//! know each other.

pub mod ask;
pub mod ask_windows;
pub(crate) mod calls;
pub mod clients;
pub mod connections;
pub mod context;
pub mod events;
pub mod guards;
pub mod key_turns;
pub mod large_strings;
pub mod logins;
pub mod mailboxes;
pub mod named_connections;
pub mod offload;
pub mod offload_memory;
pub mod overdue;
pub mod own_answers;
pub(crate) mod plain_exec;
pub mod plain_keys;
pub(crate) mod plain_run;
pub mod policy;
pub(crate) mod script_texts;
mod slow_calls;
pub(crate) mod to_plain;
pub mod turns;
pub mod windows;
pub mod worker_tasks;
