//! What one worker owns and what all workers share: below the request side (`proxy`) and the reply side (`replies`), which use it
//! and do not know each other.

pub mod context;
pub mod turns;
pub mod worker_tasks;
