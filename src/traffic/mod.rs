//! What passes through a worker, for those who ask: the keys that are requested most, the largest values, and why the last read of a key
//! was not kept. Each worker owns its own tables, which are of fixed size. No decision depends on them.

mod accesses;
mod big_keys;
mod curve;
mod hot_keys;
mod miniature;
mod trials;
mod unkept;

pub use accesses::{Access, Accesses, Kept, Noted, What};
pub use big_keys::{BigKey, BigKeys};
pub use curve::{Batch, Curve, Estimate, OfRule, Point};
pub use hot_keys::{Cost, HotKey, HotKeys, Hottest, Requested};
pub use trials::{Savings, Trial, Trials, Tried};
pub use unkept::{Unkept, UnkeptReads};
