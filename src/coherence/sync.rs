//! The primitives that the stripes are built on, so that loom can put its own in their place
//! (`RUSTFLAGS="--cfg shortstop_loom"`; the plain `--cfg loom` would change tokio too).

#[cfg(shortstop_loom)]
pub(super) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(shortstop_loom))]
pub(super) use std::sync::{Mutex, MutexGuard};
