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
pub mod logins;
pub mod mailboxes;
pub mod named_connections;
pub mod offload;
pub mod offload_memory;
pub mod overdue;
pub mod own_answers;
pub mod policy;
mod slow_calls;
pub mod turns;
pub mod windows;
pub mod worker_tasks;
