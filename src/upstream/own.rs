//! Marks Shortstop's own commands, so that they can be removed where Redis shows them to a client (MONITOR): their names are
//! written `iNFO`. To Redis that is the same command, and no client spells it like that.
//!
//! Only for Shortstop's own requests: handshakes and the control plane.

use crate::resp::build;

/// The name in Shortstop's spelling.
pub(super) fn mark(name: &[u8]) -> Vec<u8> {
    let mut name = name.to_ascii_uppercase();
    if let Some(first) = name.first_mut() {
        first.make_ascii_lowercase();
    }
    name
}

/// A request of Shortstop's own.
pub(super) fn request<'a>(out: &mut Vec<u8>, words: impl ExactSizeIterator<Item = &'a [u8]>) {
    build::header(out, b'*', words.len());
    for (at, word) in words.enumerate() {
        if at == 0 {
            build::bulk(out, &mark(word));
        } else {
            build::bulk(out, word);
        }
    }
}

/// Whether a line of MONITOR (`+1700000000.123456 [0 127.0.0.1:50000] "iNFO" "server"`) shows a command of this or another
/// Shortstop's own.
pub fn is_own(line: &[u8]) -> bool {
    let name = memchr::memmem::find(line, b"] \"").map(|at| &line[at + 3..]);
    let Some(([first, rest @ ..], _)) = name.and_then(|name| Some(name.split_at(memchr::memchr(b'"', name)?))) else {
        return false;
    };
    first.is_ascii_lowercase() && !rest.is_empty() && rest.iter().all(u8::is_ascii_uppercase)
}

#[cfg(test)]
mod tests {
    use super::{is_own, mark, request};

    #[test]
    fn own_commands_are_recognised() {
        assert_eq!((mark(b"INFO"), mark(b"client"), mark(b"")), (b"iNFO".to_vec(), b"cLIENT".to_vec(), vec![]));
        let mut out = Vec::new();
        request(&mut out, [&b"INFO"[..], b"server"].into_iter());
        assert_eq!(out, b"*2\r\n$4\r\niNFO\r\n$6\r\nserver\r\n");
        for (name, own) in [
            ("\"iNFO\" \"server\"", true),
            ("\"pING\"", true),
            ("\"INFO\" \"iNFO\"", false),
            ("\"info\"", false),
            ("\"Info\"", false),
            ("\"i\"", false),
            ("\"\"", false),
            ("", false),
        ] {
            let line = format!("+1700000000.123456 [0 127.0.0.1:50000] {name}\r\n");
            assert_eq!(is_own(line.as_bytes()), own, "{line}");
        }
        assert!(!is_own(b"+OK\r\n"));
    }
}
