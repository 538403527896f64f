//! The functions of the server that cannot write (`no-writes`), as `FUNCTION LIST` told a moment ago.
//!
//! A library may be replaced by any client of Redis at any time. So an answer counts only for [`GOOD_FOR`] after Redis was asked, not
//! while a change of the functions is under way through this proxy, and not after the proxy has heard of a change. A call that relied
//! on an answer has to check, when its reply is here, whether the functions are still those of its [`Functions::number`].

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::reach::Reach;

/// How long an answer counts after it was asked for. Redis is asked once a second.
const GOOD_FOR: Duration = Duration::from_secs(3);
/// How long to wait for the first answer before the log says that Redis gives none.
const PATIENCE: Duration = Duration::from_secs(5);
pub(super) const STALE: &str = "whether it has the flag no-writes is not known at this moment";
/// Most functions that are remembered. With more, each counts as one that may write.
const MAX_FUNCTIONS: usize = 65_536;

/// What is known of the functions.
#[derive(Debug, Default)]
pub struct Functions {
    /// Changes when something may have happened to them.
    number: AtomicU64,
    /// Commands under way that change them.
    changing: AtomicUsize,
    /// A function was called.
    wanted: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The names of those that cannot write. Kept also when `good` is over, to see what has changed.
    no_writes: HashSet<Box<[u8]>>,
    /// For which number they hold, and until when.
    good: Option<(u64, Instant)>,
    /// Since when a function has been called without an answer from the server; none: there was no call, or there is an answer.
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
                false => (Reach::Anything("it does not have the flag no-writes"), None),
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

    /// The number for [`Functions::learn`] when the server is asked now; none: no function was called, so it need not be asked.
    pub fn wanted(&self) -> Option<u64> {
        self.wanted.load(Ordering::Relaxed).then(|| self.number())
    }

    /// The server's answer: these functions cannot write. `asked` is when it was asked, and `number` what [`Functions::wanted`] gave
    /// then. Returns whether a function that could not write before now may: its calls may have written anything meanwhile.
    pub fn learn(&self, number: u64, asked: Instant, mut no_writes: HashSet<Box<[u8]>>) -> bool {
        if no_writes.len() > MAX_FUNCTIONS {
            no_writes.clear();
        }
        let mut known = self.known();
        let lost = known.no_writes.iter().any(|name| !no_writes.contains(name));
        if lost {
            // Calls that rely on the old functions look at the number.
            self.forget();
        }
        known.no_writes = no_writes;
        known.untold_since = None;
        // An answer to a question under another number may be from before a change.
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
