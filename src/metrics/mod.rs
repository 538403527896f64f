//! What is counted and measured, and how each number is called: the one place that INFO, and every later display, is made from.
//!
//! Parts count in their `slots`, by the names of an `outcome` where there is one. The `table` says of each metric what it is called, in
//! which unit it is, what it means, and how it is read. A `snapshot` has the values of one moment. Must not decide anything, and nothing
//! decides by it.

pub mod counter;
pub mod metric;
pub mod outcome;
pub mod slots;
pub mod snapshot;
mod table;
pub mod window;
