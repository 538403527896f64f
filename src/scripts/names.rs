//! How scripts are called in the log, and which have been named there.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Scripts that are named at most: a client may make as many as it likes.
const MAX_NAMED: usize = 256;
/// Bytes of a name that are shown.
const MAX_SHOWN: usize = 100;

/// By what a script is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// EVAL: by its text.
    Text,
    /// EVALSHA: by the SHA-1 of its text.
    Sha,
    /// FCALL: by its name.
    Function,
}

/// A script, as the log names it. Never a key, and never a text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// SHA-1 of the text, in hexadecimal.
    Script(String),
    /// The name of a function.
    Function(String),
}

impl Name {
    /// A name that a client has chosen.
    pub(super) fn unusual(kind: Kind, name: &[u8]) -> Name {
        let shown = name[..name.len().min(MAX_SHOWN)].escape_ascii().to_string();
        if kind == Kind::Function { Name::Function(shown) } else { Name::Script(shown) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Script(sha) => write!(f, "script {sha}"),
            Name::Function(name) => write!(f, "function {name}"),
        }
    }
}

/// What has been named.
#[derive(Debug, Default)]
pub(super) struct Named {
    known: Mutex<HashSet<Name>>,
    kinds: [AtomicBool; 3],
}

impl Named {
    pub(super) fn is_new(&self, name: &Name) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.len() < MAX_NAMED && !known.contains(name) && known.insert(name.clone())
    }

    pub(super) fn is_first(&self, kind: Kind) -> bool {
        let seen = &self.kinds[kind as usize];
        // A look first: each script comes here.
        !seen.load(Ordering::Relaxed) && !seen.swap(true, Ordering::Relaxed)
    }
}
