//! What a script or a function may write: nothing, the keys that it declares, or any key.
//!
//! The only place where that is decided. A script counts as one that may write any key unless it cannot write (its `no-writes`
//! flag), or its text proves that it writes declared keys only. This module does not flush anything and does no I/O; the write
//! guard acts on the verdict. All tables are bounded and shared by all workers. Each call of a script takes a lock; no other
//! command does.

mod functions;
mod guard;
mod lua;
mod names;
mod proof;
mod reach;
mod texts;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::command::{ScriptBy, Table};

pub use functions::Functions;
pub use guard::{COMPRESSED, GuardScript, LOOKS_COMPRESSED, OwnScript, UNSEEN};
pub use names::Name;
pub use reach::Reach;

use names::Named;
use texts::{Sha, Texts, Verdict};

/// The verdict on a script that is about to run.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// What the script may write.
    pub reach: Reach,
    /// The script's name in the log.
    pub name: Name,
    /// Whether it may look into strings, which may be compressed.
    pub looks: bool,
    /// Whether it is proven that it looks into no other strings than those of its keys.
    pub sees_only_its_keys: bool,
    /// The same script behind a prelude that looks whether its keys are compressed, if its text is known.
    pub guard: Option<Arc<GuardScript>>,
    /// For a function: `reach` holds only for this generation of the functions, see [`Functions::number`].
    pub functions: Option<u64>,
}

impl Judgement {
    /// Whether the verdict will probably change soon, once Redis has been asked.
    fn is_passing(&self) -> bool {
        self.reach == Reach::Anything(functions::STALE)
    }

    /// Whether it is EVALSHA of an unknown text. Many clients send it first, and the text when Redis answers that it has no such
    /// script.
    fn is_of_unknown_text(&self) -> bool {
        self.reach == Reach::Anything(texts::UNKNOWN)
    }
}

/// What is known about scripts, shared by all workers.
#[derive(Debug, Default)]
pub struct Scripts {
    texts: Texts,
    /// The server's functions.
    pub functions: Functions,
    named: Named,
    named_beside_compression: Named,
    /// Whether the configuration says which keys scripts write.
    trusted: AtomicBool,
}

impl Scripts {
    /// Remembers a text that EVALSHA may run.
    pub fn learn(&self, text: &[u8]) {
        self.texts.learn(text);
    }

    /// What a call of EVAL, EVALSHA or FCALL, or of one of their read-only forms, may write. `subject` is the text, the SHA or the
    /// function's name. `read_only` marks the read-only forms, which cannot write.
    pub fn judge(&self, table: &Table, by: ScriptBy, subject: &[u8], read_only: bool) -> Judgement {
        let of_text = |sha: Sha, text| {
            let Verdict { reach, looks, sees_only_its_keys, guard } = self.texts.judge(sha, text, table);
            Judgement { reach, name: Name::Script(sha.hex()), looks, sees_only_its_keys, guard, functions: None }
        };
        let mut judgement = match by {
            ScriptBy::Text => of_text(Sha::of(subject), Some(subject)),
            ScriptBy::Sha => match Sha::named(subject) {
                Some(sha) => of_text(sha, None),
                None => {
                    // Redis knows no script with such a name.
                    let (reach, name) = (Reach::Nothing, Name::unusual(by, subject));
                    Judgement { reach, name, looks: false, sees_only_its_keys: true, guard: None, functions: None }
                }
            },
            ScriptBy::Function => {
                let (reach, functions) = if read_only { (Reach::Nothing, None) } else { self.functions.judge(subject) };
                let name = Name::unusual(by, subject);
                Judgement { reach, name, looks: true, sees_only_its_keys: false, guard: None, functions }
            }
        };
        if read_only {
            judgement.reach = Reach::Nothing;
        }
        judgement
    }

    /// Whether the log should name this script, because it may write any key: once, and not for a verdict that may be about to change.
    pub fn is_to_be_named(&self, judgement: &Judgement) -> bool {
        !judgement.is_passing() && self.named.is_due(&judgement.name, !judgement.is_of_unknown_text())
    }

    /// Whether the log should say of this script that it may read compressed values: once.
    pub fn may_read_compressed(&self, judgement: &Judgement) -> bool {
        self.named_beside_compression.is_due(&judgement.name, !judgement.is_of_unknown_text())
    }

    /// Sets whether the configuration says which keys scripts write (`scripts`).
    pub fn set_trusted(&self, trusted: bool) {
        self.trusted.store(trusted, Ordering::Release);
    }

    /// Whether the configuration says which keys scripts write. Then a script that ran at a peer causes no flush.
    pub fn are_trusted(&self) -> bool {
        self.trusted.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
