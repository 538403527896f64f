//! Scripts that look first whether strings are compressed, and do nothing if one is: Shortstop's own, which run a command of a client, and
//! those of clients with a prelude.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};

use sha1::{Digest, Sha1};

use crate::codec::{self, LONGEST_MARK};

/// What a script says if a string is compressed. Random, so that no script of a client says so itself.
pub static COMPRESSED: LazyLock<String> = LazyLock::new(|| format!("SHORTSTOP.COMPRESSED {}", token()));

/// What a script says if the user has no right to look whether a string is compressed.
pub static UNSEEN: LazyLock<String> = LazyLock::new(|| format!("SHORTSTOP.UNSEEN {}", token()));

/// What a script says if it has run a command, and the value now looks like a compressed one and could not be put into an envelope.
pub static LOOKS_COMPRESSED: LazyLock<String> = LazyLock::new(|| format!("SHORTSTOP.LOOKS_COMPRESSED {}", token()));

fn token() -> String {
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// A script that looks first, and its SHA-1.
#[derive(Debug)]
pub struct GuardScript {
    /// The text, in which the lines have the numbers that they have in the client's own.
    pub text: Vec<u8>,
    /// The SHA-1 of the text, in hexadecimal.
    pub sha: String,
    /// The client's own script.
    pub own: Option<OwnScript>,
}

/// A client's own script.
#[derive(Debug)]
pub struct OwnScript {
    /// Its text.
    pub text: Arc<[u8]>,
    /// The SHA-1 of its text, in hexadecimal.
    pub sha: String,
}

impl GuardScript {
    /// One of Shortstop's own.
    pub fn new(text: String) -> Self {
        GuardScript { sha: hex(text.as_bytes()), text: text.into(), own: None }
    }

    /// A client's script behind a prelude that looks at KEYS. It defines nothing that the script can see.
    pub(super) fn with_prelude(text: Arc<[u8]>) -> Self {
        // A first line `#!lua …` must stay the first.
        let code = match text.starts_with(b"#!") {
            true => memchr::memchr(b'\n', &text).map_or(text.len(), |end| end + 1),
            false => 0,
        };
        let (first_line, code) = text.split_at(code);
        let all = [first_line, prelude().as_bytes(), code].concat();
        let own = Some(OwnScript { sha: hex(&text), text: Arc::clone(&text) });
        GuardScript { sha: hex(&all), text: all, own }
    }
}

/// In one line, so that the numbers of the lines stay.
fn prelude() -> String {
    let (sealed, last) = (codec::lua_is_compressed(), LONGEST_MARK - 1);
    let (compressed, unseen) = (&*COMPRESSED, &*UNSEEN);
    format!(
        "do {sealed} for i = 1, #KEYS do \
        local head = redis.pcall('GETRANGE', KEYS[i], 0, {last}) \
        if sealed(head) then return redis.error_reply('{compressed}') end \
        if type(head) == 'table' and not string.find(head.err, 'WRONGTYPE', 1, true) then \
        return redis.error_reply('{unseen}') end \
        end end "
    )
}

fn hex(text: &[u8]) -> String {
    Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::GuardScript;

    #[test]
    fn the_lines_of_a_script_keep_their_numbers() {
        for (text, line) in [("return 1\nx", 0), ("#!lua flags=no-writes\nreturn 1\nx", 1), ("#!lua", 0)] {
            let guarded = GuardScript::with_prelude(text.as_bytes().into());
            let with = String::from_utf8(guarded.text).expect("text");
            let (lines, own_lines): (Vec<&str>, Vec<&str>) = (with.split('\n').collect(), text.split('\n').collect());
            assert_eq!(lines.len(), own_lines.len(), "{text}");
            for (number, (with, own)) in lines.iter().zip(own_lines).enumerate() {
                assert!(if number == line { with.ends_with(own) || own == "#!lua" } else { *with == own }, "{text}");
            }
            assert_eq!(guarded.own.expect("a client's").text[..], *text.as_bytes());
        }
    }
}
