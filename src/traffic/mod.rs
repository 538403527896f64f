//! What passes through a worker, for those who ask: why the last read of a key was not kept. Each worker owns its own tables, which are
//! of fixed size. No decision depends on them.

mod unkept;

pub use unkept::{Unkept, UnkeptReads};
