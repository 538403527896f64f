//! The envelope: the form in which Redis stores a value that Shortstop has compressed.
//!
//! An envelope is one standard gzip member (RFC 1952) whose header contains [`MARK`], so `gzip -d` decompresses it. No value of a
//! client can be mistaken for an envelope: a value that begins with the mark, or with bytes that differ from it by up to
//! [`MARK_DAMAGE`] flipped bits, is itself compressed. After the mark come a version byte and a CRC-32 of the deflate stream. The
//! trailer contains the CRC-32 and the length of the value. Together they cover every bit, so a damaged envelope is an error and
//! never yields other bytes.
//!
//! Bytes in, bytes out. Must not know keys, rules or sockets. Allocates nothing before the length is checked.
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
