//! Metrics: what is counted and measured, under which name. INFO and every later display are made from these.
//!
//! Other modules count in their `slots`, under the names of an `outcome` where there is one. The `table` states the name, unit and
//! meaning of each metric, and how it is read. A `snapshot` contains the values of one moment. Must not decide anything, and no
//! decision depends on it.

pub mod counter;
pub mod journal;
pub mod metric;
pub mod outcome;
pub mod rules;
pub mod slots;
pub mod slow_log;
pub mod snapshot;
pub mod stored;
mod table;
pub mod window;
