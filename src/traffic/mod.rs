//! What passes through a worker, for those who ask: the keys that are requested most, the largest values, and why the last read of a key
//! was not kept. Each worker owns its own tables, which are of fixed size. No decision depends on them.

mod big_keys;
mod hot_keys;
mod unkept;

pub use big_keys::{BigKey, BigKeys};
pub use hot_keys::{HotKey, HotKeys, Hottest, Requested};
pub use unkept::{Unkept, UnkeptReads};
