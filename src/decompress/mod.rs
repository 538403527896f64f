//! Turns all compressed values whose keys match a pattern back to plain: for `PROXY DECOMPRESS`, and for `shortstop decompress` without a
//! running Shortstop. It may be stopped at any time, and begun again.

pub mod command;
mod run;

pub use run::{Counts, run};
