//! Builds a few frames by hand, where a frame type would only cost time: bulk strings, errors, requests.

use std::io::Write as _;

/// `$len\r\n…\r\n`.
pub fn bulk(out: &mut Vec<u8>, value: &[u8]) {
    header(out, b'$', value.len());
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// `*n\r\n`, `$n\r\n` and similar headers.
pub fn header(out: &mut Vec<u8>, kind: u8, count: usize) {
    out.push(kind);
    write!(out, "{count}\r\n").expect("writing to memory does not fail");
}

/// `:n\r\n`.
pub fn integer(out: &mut Vec<u8>, value: i64) {
    write!(out, ":{value}\r\n").expect("writing to memory does not fail");
}

/// A simple error. `text` begins with its code (`ERR …`). Line breaks become spaces, as in Redis.
pub fn error(out: &mut Vec<u8>, text: &str) {
    line(out, b'-', text);
}

/// A status, as `+OK`; line breaks become spaces.
pub fn status(out: &mut Vec<u8>, text: &str) {
    line(out, b'+', text);
}

fn line(out: &mut Vec<u8>, kind: u8, text: &str) {
    out.push(kind);
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

/// A request as an array of bulk strings, the form that every client sends.
pub fn request<'a>(out: &mut Vec<u8>, args: impl ExactSizeIterator<Item = &'a [u8]>) {
    header(out, b'*', args.len());
    for arg in args {
        bulk(out, arg);
    }
}
