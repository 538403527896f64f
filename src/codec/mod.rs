//! The envelope: the form in which Redis stores a value that Shortstop has compressed.
//!
//! An envelope begins with a mark ([`MARKS`]). No value of a client can be mistaken for an envelope: a value that begins with a mark,
//! or with bytes that differ from a mark by up to [`MARK_DAMAGE`] flipped bits, is itself compressed. Checksums cover the value, so a
//! damaged envelope is an error and never yields other bytes.
//!
//! Bytes in, bytes out. Must not know keys, rules or sockets. Allocates nothing before the length is checked.
//!
//! gzip: one standard member (RFC 1952) with the mark in its header, so `gzip -d` decompresses it.
//!
//! ```text
//! offset  0  1f 8b 08 04  00 00 00 00  00 ff    gzip, deflate, FEXTRA; no time, no hints, unknown OS
//!        10  09 00  'S' 's'  05 00              FEXTRA: one subfield "Ss" of 5 bytes    (here MARK ends)
//!        16  01                                 version of the envelope
//!        17  CRC-32 of the deflate stream, little endian
//!        21  deflate stream
//!        -8  CRC-32 of the value, length of the value, both little endian
//! ```
//!
//! zstd: an empty skippable frame and one standard frame (RFC 8878), so `zstd -d` decompresses it.
//!
//! ```text
//! offset  0  53 2a 4d 18  00 00 00 00           a skippable frame without bytes; the 3 is the version of the envelope
//!         8  28 b5 2f fd                        a frame                                  (here ZSTD_MARK ends)
//!        12  its header: with a checksum, with the length of the value, with the identifier of the dictionary if there is one
//!            blocks
//!        -4  the low half of the XXH64 of the value, little endian
//! ```

mod compress;
mod decode;
mod dictionary;
mod error;
mod format;
mod gzip;
mod lua;
mod mark;
mod number;
#[cfg(test)]
mod tests;
mod training;
mod zstd;

pub use compress::{CompressOptions, MAX_LEN, compress, compress_with, most_added, stays_plain};
pub use decode::{declared_len, decode, decode_with, dictionary_of};
pub use dictionary::Dictionary;
pub use error::DecodeError;
pub use format::Codec;
pub use lua::{lua_compress, lua_is_compressed};
pub use mark::{LONGEST_MARK, MARK, MARK_DAMAGE, MARKS, ZSTD_MARK, codec_of, is_compressed};
pub use number::is_number;
pub use training::train;
