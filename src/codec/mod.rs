//! The envelope: how a value lies in Redis when Shortstop has compressed it.
//!
//! An envelope is one standard gzip member (RFC 1952) whose header carries [`MARK`], so `gzip -d` opens it and nothing
//! that a client stores can be mistaken for it: a value that begins with the mark, or with something that up to
//! [`MARK_DAMAGE`] flipped bits make of the mark, is itself compressed. After the mark come a version byte and a CRC-32 of the
//! deflate stream; the trailer gives the CRC-32 and the length of the value. Together they cover every bit, so a damaged
//! envelope is an error, never other bytes.
//!
//! Bytes in, bytes out. It must not know keys, rules or sockets, and it allocates nothing before the length is checked.
//!
//! ```text
//! offset  0  1f 8b 08 04  00 00 00 00  00 ff    gzip, deflate, FEXTRA; no time, no hints, unknown OS
//!        10  09 00  'S' 's'  05 00              FEXTRA: one subfield "Ss" of 5 bytes    (here MARK ends)
//!        16  01                                 version of the envelope
//!        17  CRC-32 of the deflate stream, little endian
//!        21  deflate stream
//!        -8  CRC-32 of the value, length of the value, both little endian
//! ```

mod compress;
mod decode;
mod envelope;
mod number;
#[cfg(test)]
mod tests;

pub use compress::{CompressOptions, MAX_LEN, compress, most_added};
pub use decode::decode;
pub use envelope::{DecodeError, MARK, MARK_DAMAGE, declared_len, is_compressed};
pub use number::is_number;
