//! The two protocol versions, as far as they differ for a proxy that passes bytes on.

/// The version that a connection uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    /// Every connection begins with this version.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

impl Version {
    /// The version with this number in HELLO.
    pub fn of(number: i64) -> Option<Version> {
        match number {
            2 => Some(Version::Resp2),
            3 => Some(Version::Resp3),
            _ => None,
        }
    }

    /// Its number in HELLO.
    pub fn number(self) -> u8 {
        match self {
            Version::Resp2 => 2,
            Version::Resp3 => 3,
        }
    }

    /// The null reply.
    #[inline]
    pub fn null(self) -> &'static [u8] {
        match self {
            Version::Resp2 => b"$-1\r\n",
            Version::Resp3 => b"_\r\n",
        }
    }
}
