//! The names of scripts in the log, and the set of scripts that the log has already named.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::command::ScriptBy;

/// Maximum number of scripts to name. A client can send any number of scripts.
const MAX_NAMED: usize = 256;
/// Maximum length of a name in the log, in bytes.
const MAX_SHOWN: usize = 100;

/// A script's name in the log. Never shows a key or a script's text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// SHA-1 of the text, in hexadecimal.
    Script(String),
    /// The name of a function.
    Function(String),
}

impl Name {
    /// A name that a client has chosen, shortened and escaped.
    pub(super) fn unusual(by: ScriptBy, name: &[u8]) -> Name {
        let shown = name[..name.len().min(MAX_SHOWN)].escape_ascii().to_string();
        if by == ScriptBy::Function { Name::Function(shown) } else { Name::Script(shown) }
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

/// The scripts that the log has already named.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Scripts that were seen, each with whether the log has named it.
    known: Mutex<HashMap<Name, bool>>,
}

impl Named {
    /// Whether the log should name a script now: once, and if it is not to be named `at_once`, the second time that it is seen.
    pub(super) fn is_due(&self, name: &Name, at_once: bool) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(name) == Some(&true) {
            return false;
        }
        let has_room = known.len() < MAX_NAMED;
        match known.entry(name.clone()) {
            Entry::Occupied(mut named) => !named.insert(true),
            Entry::Vacant(new) if has_room => *new.insert(at_once),
            Entry::Vacant(_) => false,
        }
    }
}
