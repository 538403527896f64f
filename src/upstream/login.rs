//! Who a connection is to Redis.

use std::fmt;

/// A name and a password. Kept only as long as a connection needs them, never printed.
#[derive(PartialEq, Eq)]
pub struct Login {
    /// None: the default user.
    pub user: Option<Box<[u8]>>,
    /// As it is sent.
    pub password: Box<[u8]>,
}

impl Login {
    /// The user's name, as Redis knows it.
    pub fn user(&self) -> &[u8] {
        self.user.as_deref().unwrap_or(b"default")
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(***)")
    }
}
