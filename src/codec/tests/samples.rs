//! Values to compress, ways to compress them, and the programs that decompress them.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::codec::{Codec, CompressOptions, MARK, ZSTD_MARK};

pub(super) const ANY_LEN: usize = usize::MAX;
pub(super) const DEFAULT: CompressOptions =
    CompressOptions { codec: Codec::Gzip, level: 3, min_size: 1024, min_saving: 10 };
pub(super) const DEFAULTS: [CompressOptions; 2] =
    [DEFAULT, CompressOptions { codec: Codec::Zstd, level: 1, ..DEFAULT }];

/// Whatever it saves.
pub(super) fn with(codec: Codec, level: u32) -> CompressOptions {
    CompressOptions { codec, level, min_size: 0, min_saving: 0 }
}

pub(super) fn gzip(level: u32) -> CompressOptions {
    with(Codec::Gzip, level)
}

pub(super) fn zstd(level: u32) -> CompressOptions {
    with(Codec::Zstd, level)
}

/// Text of `len` bytes that compresses about as JSON does.
pub(super) fn text(len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 64);
    let mut i = 0u64;
    while out.len() < len {
        i += 1;
        write!(out, r#"{{"t":{},"price":{}}},"#, 1_700_000_000 + i * 60, i * 7919 % 9973)
            .expect("writing to a Vec does not fail");
    }
    out.truncate(len);
    out
}

/// `len` bytes that no compressor makes shorter (xorshift64*).
pub(super) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    let next = || {
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// `tail` behind gzip's mark.
pub(super) fn marked(tail: &[u8]) -> Vec<u8> {
    [&MARK[..], tail].concat()
}

/// `tail` behind zstd's mark.
pub(super) fn zstd_marked(tail: &[u8]) -> Vec<u8> {
    [&ZSTD_MARK[..], tail].concat()
}

/// What a program (`gzip` or `zstd`) decompresses the bytes to.
pub(super) fn decompressed_by(program: &str, compressed: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} is installed: {error}"));
    let mut stdin = child.stdin.take().expect("stdin was piped");
    let compressed = compressed.to_vec();
    // On a thread of its own, because both pipes may be full at once.
    let feeder = std::thread::spawn(move || stdin.write_all(&compressed));
    let done = child.wait_with_output().expect("it runs to its end");
    feeder.join().expect("the feeder does not panic").expect("it reads everything");
    assert!(done.status.success(), "{program}");
    done.stdout
}
