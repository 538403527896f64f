//! The wire format: where a request ends, where a reply ends, and the few frames that are built by hand.
//!
//! Pure functions of bytes. Nothing here knows what a command means. Frames whose content matters are parsed by the redis-protocol
//! crate, with which the tests also compare the results.

pub mod build;
mod chunks;
mod inline;
mod int;
mod prefix;
mod reply;
mod request;
mod version;

pub use chunks::Chunks;
pub use int::parse_int;
pub use prefix::Prefix;
pub use reply::{BrokenReply, Bulk, ReplyScanner, bulk_of, elements, split_first};
pub use request::{Args, ProtocolError, Scan, ScanLimits, Scanner};
pub use version::Version;
