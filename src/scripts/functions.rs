//! The server's functions that cannot write (`no-writes`), according to the last `FUNCTION LIST`.
//!
//! Any client of Redis may replace a library at any time. So the list is trusted only for [`GOOD_FOR`] after Redis was asked, not
//! while a command that changes functions is in flight through this Shortstop, and not after Shortstop has learned of a change. A
//! call that relied on the list must check, when its reply arrives, whether [`Functions::number`] is still the same.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::reach::Reach;

/// How long the list is trusted, counted from the request. Redis is asked once a second.
const GOOD_FOR: Duration = Duration::from_secs(3);
/// How long to wait for the first list before the log says that Redis provides none.
const PATIENCE: Duration = Duration::from_secs(5);
pub(super) const STALE: &str = "it is not known now whether it has the flag no-writes";
/// Maximum number of functions to remember. With more, every function counts as one that may write.
const MAX_FUNCTIONS: usize = 65_536;

/// What is known of the functions.
#[derive(Debug, Default)]
pub struct Functions {
    /// Changes whenever the functions may have changed.
    number: AtomicU64,
    /// In-flight commands that change functions.
    changing: AtomicUsize,
    /// A function was called.
    wanted: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The functions that cannot write. Kept after `good` has expired, to find out what has changed.
    no_writes: HashSet<Box<[u8]>>,
    /// The number for which the list is valid, and until when.
    good: Option<(u64, Instant)>,
    /// Since when functions are called without a list from the server. `None` if there was no call, or there is a list.
    untold_since: Option<Instant>,
}

impl Functions {
    /// The current generation number of the functions.
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

    /// Call this before sending a command that changes functions.
    pub fn begin_change(&self) {
        self.changing.fetch_add(1, Ordering::AcqRel);
        self.forget();
    }

    /// The reply to such a command has arrived, or will never arrive.
    pub fn end_change(&self) {
        self.forget();
        self.changing.fetch_sub(1, Ordering::AcqRel);
    }

    /// The functions may have changed.
    pub fn forget(&self) {
        self.number.fetch_add(1, Ordering::AcqRel);
    }

    /// The number to pass to [`Functions::learn`] if the server is asked now. `None` if no function was called, so that it need not
    /// be asked.
    pub fn wanted(&self) -> Option<u64> {
        self.wanted.load(Ordering::Relaxed).then(|| self.number())
    }

    /// The server's list: these functions cannot write. `asked` is when the server was asked, and `number` is what
    /// [`Functions::wanted`] returned then. Returns whether a function that could not write before may write now. Its calls may
    /// have written anything meanwhile.
    pub fn learn(&self, number: u64, asked: Instant, mut no_writes: HashSet<Box<[u8]>>) -> bool {
        if no_writes.len() > MAX_FUNCTIONS {
            no_writes.clear();
        }
        let mut known = self.known();
        let lost = known.no_writes.iter().any(|name| !no_writes.contains(name));
        if lost {
            // Calls that rely on the old functions check the number.
            self.forget();
        }
        known.no_writes = no_writes;
        known.untold_since = None;
        // If the number has changed since the request, the list may be from before the change.
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
    fn the_list_counts_while_it_is_fresh_and_unchanged() {
        let functions = Functions::default();
        assert_eq!(functions.wanted(), None, "nobody has called one");
        assert!(!nothing(&functions, "f"));
        let number = functions.wanted().expect("somebody has");
        assert!(!learn(&functions, number, Instant::now(), &["f"]));
        assert!(nothing(&functions, "f") && !nothing(&functions, "F") && !nothing(&functions, "g"));

        functions.begin_change();
        assert!(!nothing(&functions, "f"));
        // Requested before the change was executed.
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
    fn a_function_that_may_write_now_is_reported() {
        let functions = Functions::default();
        assert!(!learn(&functions, functions.number(), Instant::now(), &["f", "g"]));
        let (_, number) = functions.judge(b"f");
        assert!(learn(&functions, functions.number(), Instant::now(), &["g"]));
        assert_ne!(number, Some(functions.number()), "who relied on it sees that");
        assert!(!nothing(&functions, "g"), "asked again first");
        assert!(!learn(&functions, functions.number(), Instant::now(), &["g", "h"]) && nothing(&functions, "h"));
    }
}
