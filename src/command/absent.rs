//! What a reply says when there is no such key.

use crate::resp::{Bulk, bulk_of, elements};

/// A reply to a read of a key that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Null, an empty aggregate, or an array of nulls.
    Nothing,
    /// 0, or an array of zeros.
    Zero,
    /// These bytes.
    Is(&'static [u8]),
    /// These bytes, which are never said of a key that exists.
    Only(&'static [u8]),
    /// It depends on the arguments, and existing keys can give the same.
    Varies,
}

impl Absent {
    /// Whether a complete reply is what is said of a key that does not exist (and of some that do, too).
    #[must_use]
    pub fn is(self, reply: &[u8]) -> bool {
        let all = |wanted: fn(&[u8]) -> bool| elements(reply).is_some_and(|mut all| all.all(wanted));
        let is_null = |reply: &[u8]| bulk_of(reply) == Bulk::Null;
        match self {
            Absent::Nothing => is_null(reply) || reply == b"%0\r\n" || all(is_null),
            Absent::Zero => reply == b":0\r\n" || all(|one| one == b":0\r\n"),
            Absent::Is(text) | Absent::Only(text) => reply == text,
            Absent::Varies => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Absent;

    #[test]
    fn what_is_said_of_a_key_that_does_not_exist() {
        let nothing: &[&[u8]] = &[
            b"$-1\r\n",
            b"*-1\r\n",
            b"_\r\n",
            b"*0\r\n",
            b"~0\r\n",
            b"%0\r\n",
            b"*2\r\n$-1\r\n*-1\r\n",
            b"*1\r\n_\r\n",
        ];
        let zero: &[&[u8]] = &[b":0\r\n", b"*2\r\n:0\r\n:0\r\n"];
        let others: &[&[u8]] = &[
            b"$0\r\n\r\n",
            b":1\r\n",
            b"-ERR x\r\n",
            b"*1\r\n$1\r\n0\r\n",
            b"*2\r\n:0\r\n:1\r\n",
            b"*2\r\n$-1\r\n:0\r\n",
            b"%1\r\n+a\r\n_\r\n",
            b"+none\r\n",
        ];
        for reply in nothing {
            assert!(Absent::Nothing.is(reply), "{}", reply.escape_ascii());
        }
        for reply in zero {
            assert!(Absent::Zero.is(reply) && !Absent::Nothing.is(reply), "{}", reply.escape_ascii());
        }
        for reply in others {
            assert!(!Absent::Zero.is(reply) && !Absent::Nothing.is(reply), "{}", reply.escape_ascii());
            assert!(!Absent::Varies.is(reply));
            assert_eq!(Absent::Only(b"+none\r\n").is(reply), *reply == b"+none\r\n");
        }
    }
}
