//! The login of a connection to Redis.

use std::fmt;

use crate::config::UpstreamUrl;

/// A name and a password. Kept only as long as a connection needs them, and never printed.
#[derive(PartialEq, Eq)]
pub struct Login {
    /// `None`: the default user.
    pub user: Option<Box<[u8]>>,
    /// In the form in which it is sent.
    pub password: Box<[u8]>,
}

impl Login {
    /// The login in `redis://user:password@…`.
    pub fn of(url: &UpstreamUrl) -> Option<Login> {
        let password = url.password.as_ref()?;
        let user = url.user.as_ref().map(|user| user.as_bytes().into());
        Some(Login { user, password: password.expose().as_bytes().into() })
    }

    /// The user's name in Redis.
    pub fn user(&self) -> &[u8] {
        self.user.as_deref().unwrap_or(b"default")
    }

    /// The arguments of AUTH.
    pub(super) fn auth(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let words: Vec<&[u8]> =
            [Some(&b"AUTH"[..]), self.user.as_deref(), Some(&self.password)].into_iter().flatten().collect();
        words.into_iter()
    }
}

/// Redis's reply to a client that must authenticate first.
pub const NOAUTH: &str = "NOAUTH Authentication required.";

/// Whether Redis refuses a request only because a script or function is running.
pub(super) fn is_busy(error: &[u8]) -> bool {
    error.starts_with(b"BUSY ")
}

/// Whether Redis refuses writes because it cannot write to its disk. It refuses PING, too, but answers reads.
pub(super) fn is_about_disk(error: &[u8]) -> bool {
    error.starts_with(b"MISCONF ")
}

/// Whether Redis refuses a connection because of `maxclients`.
pub(super) fn is_too_many(error: &str) -> bool {
    error.starts_with("ERR max number of clients")
}

/// Whether Redis refuses this login, rather than every connection (too many clients, protected mode).
pub(super) fn is_about_login(text: &str) -> bool {
    let kinds = ["WRONGPASS", "NOAUTH", "NOPERM", "ERR AUTH", "ERR invalid password", "ERR invalid username"];
    kinds.iter().any(|kind| text.starts_with(kind))
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(***)")
    }
}
