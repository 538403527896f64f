//! Frames that are built by hand, because a frame type would only cost: bulk strings, errors, requests.

use std::io::Write as _;

/// `$len\r\n…\r\n`.
pub fn bulk(out: &mut Vec<u8>, value: &[u8]) {
    header(out, b'$', value.len());
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// `*n\r\n`, `$n\r\n` and the like.
pub fn header(out: &mut Vec<u8>, kind: u8, count: usize) {
    out.push(kind);
    write!(out, "{count}\r\n").expect("writing to memory does not fail");
}

/// `:n\r\n`.
pub fn integer(out: &mut Vec<u8>, value: i64) {
    write!(out, ":{value}\r\n").expect("writing to memory does not fail");
}

/// A simple error. `text` begins with its code (`ERR …`); line breaks become spaces, as Redis does.
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

/// A request in the form that every client sends: an array of bulk strings.
pub fn request<'a>(out: &mut Vec<u8>, args: impl ExactSizeIterator<Item = &'a [u8]>) {
    header(out, b'*', args.len());
    for arg in args {
        bulk(out, arg);
    }
}
