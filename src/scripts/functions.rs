//! The functions of the server that cannot write (`no-writes`), as `FUNCTION LIST` told a moment ago.
//!
//! A library may be replaced by anybody at any time. So what is known counts for [`GOOD_FOR`] after it was asked, not while a change
//! of the functions is under way through this proxy, and not after one was heard of. A call that relied on it has to look, when its
//! reply is here, whether the functions are still those of its [`Functions::number`].

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Reach;

/// After it was asked for: it is asked for once a second.
const GOOD_FOR: Duration = Duration::from_secs(3);
/// How long to wait for the first answer before saying that there is none.
const PATIENCE: Duration = Duration::from_secs(5);
pub(super) const STALE: &str = "whether it has the flag no-writes is not known at this moment";
/// Functions that are remembered.
const MAX_FUNCTIONS: usize = 65_536;

/// What is known of the functions.
#[derive(Debug, Default)]
pub struct Functions {
    /// Changes when something may have happened to them.
    number: AtomicU64,
    /// Commands under way that change them.
    changing: AtomicUsize,
    /// Somebody calls functions.
    wanted: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The names of those that cannot write; kept also when they do not count, to see what has changed.
    no_writes: HashSet<Box<[u8]>>,
    /// The number that they had, and until when they count.
    good: Option<(u64, Instant)>,
    /// When they were wanted first; none: not yet, or the server has told them since.
    untold_since: Option<Instant>,
}

impl Functions {
    /// The number of the functions as they are.
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// What a function may write, and the number for which that holds.
    pub(super) fn judge(&self, name: &[u8]) -> (Reach, Option<u64>) {
        const UNTOLD: &str =
            "Redis does not tell whether it has the flag no-writes (the user of REDIS_URL needs FUNCTION LIST)";
        let mut known = self.known();
        if !self.wanted.swap(true, Ordering::Relaxed) {
            known.untold_since = Some(Instant::now());
        }
        if known.untold_since.is_some_and(|since| since.elapsed() > PATIENCE) {
            return (Reach::Anything(UNTOLD), None);
        }
        let number = self.number();
        if self.changing.load(Ordering::Acquire) > 0 {
            return (Reach::Anything(STALE), None);
        }
        match known.good {
            Some((good, until)) if good == number && Instant::now() < until => match known.no_writes.contains(name) {
                true => (Reach::Nothing, Some(number)),
                false => (Reach::Anything("it has not the flag no-writes"), None),
            },
            _ => (Reach::Anything(STALE), None),
        }
    }

    /// A command that changes them is about to be sent.
    pub fn begin_change(&self) {
        self.changing.fetch_add(1, Ordering::AcqRel);
        self.forget();
    }

    /// Its reply is here, or will never come.
    pub fn end_change(&self) {
        self.forget();
        self.changing.fetch_sub(1, Ordering::AcqRel);
    }

    /// Something may have happened to them.
    pub fn forget(&self) {
        self.number.fetch_add(1, Ordering::AcqRel);
    }

    /// The number to ask the server under; none: nobody wants to know.
    pub fn wanted(&self) -> Option<u64> {
        self.wanted.load(Ordering::Relaxed).then(|| self.number())
    }

    /// The server was asked at this time, under this number: these cannot write. Tells whether one that could not write before may
    /// now: calls of it may have written anything meanwhile.
    pub fn learn(&self, number: u64, asked: Instant, mut no_writes: HashSet<Box<[u8]>>) -> bool {
        if no_writes.len() > MAX_FUNCTIONS {
            no_writes.clear();
        }
        let mut known = self.known();
        let lost = known.no_writes.iter().any(|name| !no_writes.contains(name));
        if lost {
            // Who relies on the old ones looks at the number.
            self.forget();
        }
        known.no_writes = no_writes;
        known.untold_since = None;
        // What was asked under another number may be of before the change.
        known.good = (!lost && self.number() == number).then(|| (number, asked + GOOD_FOR));
        lost
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Functions;
    use crate::scripts::Reach;

    fn nothing(functions: &Functions, name: &str) -> bool {
        functions.judge(name.as_bytes()).0 == Reach::Nothing
    }

    fn learn(functions: &Functions, number: u64, asked: Instant, names: &[&str]) -> bool {
        functions.learn(number, asked, names.iter().map(|name| name.as_bytes().into()).collect())
    }

    #[test]
    fn what_is_known_counts_while_it_is_fresh_and_nothing_has_changed() {
        let functions = Functions::default();
        assert_eq!(functions.wanted(), None, "nobody has called one");
        assert!(!nothing(&functions, "f"));
        let number = functions.wanted().expect("somebody has");
        assert!(!learn(&functions, number, Instant::now(), &["f"]));
        assert!(nothing(&functions, "f") && !nothing(&functions, "F") && !nothing(&functions, "g"));

        functions.begin_change();
        assert!(!nothing(&functions, "f"));
        // Asked before the change was executed.
        assert!(!learn(&functions, functions.number(), Instant::now(), &["f"]));
        assert!(!nothing(&functions, "f"), "it is under way");
        functions.end_change();
        assert!(!nothing(&functions, "f"), "it has not been asked again");
        let stale = functions.number();
        functions.forget();
        assert!(!learn(&functions, stale, Instant::now(), &["f"]) && !nothing(&functions, "f"));
        assert!(!learn(&functions, functions.number(), Instant::now(), &["f"]) && nothing(&functions, "f"));

        let long_ago = Instant::now().checked_sub(Duration::from_secs(4)).expect("the machine runs for longer");
        assert!(!learn(&functions, functions.number(), long_ago, &["f"]) && !nothing(&functions, "f"));
    }

    #[test]
    fn a_function_that_may_write_now_is_told() {
        let functions = Functions::default();
        assert!(!learn(&functions, functions.number(), Instant::now(), &["f", "g"]));
        let (_, number) = functions.judge(b"f");
        assert!(learn(&functions, functions.number(), Instant::now(), &["g"]));
        assert_ne!(number, Some(functions.number()), "who relied on it sees that");
        assert!(!nothing(&functions, "g"), "asked again first");
        assert!(!learn(&functions, functions.number(), Instant::now(), &["g", "h"]) && nothing(&functions, "h"));
    }
}
