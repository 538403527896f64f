//! The summaries of the fleet's instances: what each tells of itself, for people and for warming, and which ones were heard.
//!
//! They are sent on a subject of their own, on which messages may be lost or forged. So they are only shown: no decision about L1 depends
//! on them. Bytes in, values out; no I/O.

mod message;
mod settings;
mod summary;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use message::Message;
pub use message::{MAX_BYTES, Unusable, farewell};
pub use settings::{digest, hashes};
pub use summary::{HotKeyName, MAX_HOT_KEYS, Summary, hit_rate};

/// Interval of summaries.
pub const EVERY: Duration = Duration::from_secs(3);

/// An instance of which nothing has been heard for this long counts as lost: three summaries and a bit.
pub const LOST_AFTER: Duration = Duration::from_secs(10);

/// An instance of which nothing has been heard for this long is shown no longer.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// Maximum number of other instances to remember.
const MOST: usize = 256;

/// The last summary of an instance.
#[derive(Clone, Debug)]
pub struct Heard {
    /// What it said.
    pub summary: Arc<Summary>,
    /// When it arrived.
    pub at: Instant,
}

impl Heard {
    /// Whether nothing has been heard of it for [`LOST_AFTER`].
    pub fn is_lost(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= LOST_AFTER
    }
}

/// The last summaries of the other instances.
#[derive(Debug)]
pub struct Summaries {
    own: u64,
    heard: Mutex<BTreeMap<u64, Heard>>,
}

impl Summaries {
    /// None heard so far. `own`: the incarnation of this instance, whose messages count for nothing.
    pub fn new(own: u64) -> Self {
        Summaries { own, heard: Mutex::default() }
    }

    /// Takes a message that has arrived.
    ///
    /// # Errors
    /// Why it counts for nothing.
    pub fn hear(&self, now: Instant, bytes: &[u8]) -> Result<(), Unusable> {
        let message = Message::read(bytes)?;
        let mut heard = self.heard();
        heard.retain(|_, heard| now.saturating_duration_since(heard.at) < FORGOTTEN_AFTER);
        match message {
            Message::Farewell(instance) => drop(heard.remove(&instance)),
            Message::Summary(summary) if summary.instance == self.own => {}
            Message::Summary(summary) => {
                let instance = summary.instance;
                if heard.len() >= MOST && !heard.contains_key(&instance) {
                    // Who is lost makes room. Others do not, so that forged messages displace nobody who is heard.
                    let longest = heard.iter().min_by_key(|(_, heard)| heard.at);
                    let gone = longest.filter(|(_, heard)| heard.is_lost(now)).map(|(instance, _)| *instance);
                    heard.remove(&gone.ok_or(Unusable::TooMany)?);
                }
                heard.insert(instance, Heard { summary: Arc::new(*summary), at: now });
            }
        }
        Ok(())
    }

    /// The other instances, by their incarnations. Those of which nothing has been heard for long are left out.
    pub fn others(&self, now: Instant) -> Vec<Heard> {
        let mut heard = self.heard();
        heard.retain(|_, heard| now.saturating_duration_since(heard.at) < FORGOTTEN_AFTER);
        heard.values().cloned().collect()
    }

    /// The hottest keys of the other instances that are heard: each with its database, and once. The hottest of each come first.
    pub fn hot_keys(&self, now: Instant) -> Vec<(u32, Vec<u8>)> {
        let others: Vec<Heard> = self.others(now).into_iter().filter(|heard| !heard.is_lost(now)).collect();
        let mut seen = HashSet::new();
        let by_rank =
            (0..MAX_HOT_KEYS).flat_map(|rank| others.iter().filter_map(move |heard| heard.summary.hot_keys.get(rank)));
        by_rank.filter_map(HotKeyName::key).filter(|key| seen.insert(key.clone())).collect()
    }

    fn heard(&self) -> MutexGuard<'_, BTreeMap<u64, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{FORGOTTEN_AFTER, HotKeyName, LOST_AFTER, MOST, Summaries, Summary, Unusable, farewell};

    fn summary(instance: u64, hot: &[&[u8]]) -> Vec<u8> {
        let hot_keys = hot.iter().map(|key| HotKeyName::new(0, key)).collect();
        Summary { instance, version: "1".to_owned(), mode: "live".to_owned(), hot_keys, ..Summary::default() }.encode()
    }

    fn shown(summaries: &Summaries, now: Instant) -> Vec<(u64, bool)> {
        summaries.others(now).iter().map(|heard| (heard.summary.instance, heard.is_lost(now))).collect()
    }

    #[test]
    fn a_silent_instance_is_lost_and_then_forgotten() {
        let (summaries, start) = (Summaries::new(1), Instant::now());
        for instance in [1, 2, 3] {
            summaries.hear(start, &summary(instance, &[])).expect("good");
        }
        assert_eq!(shown(&summaries, start), [(2, false), (3, false)], "without itself");
        let later = start + LOST_AFTER;
        summaries.hear(later, &summary(3, &[])).expect("good");
        assert_eq!(shown(&summaries, later), [(2, true), (3, false)]);
        assert_eq!(shown(&summaries, start + FORGOTTEN_AFTER), [(3, true)]);
    }

    #[test]
    fn an_instance_that_says_farewell_is_gone_at_once() {
        let (summaries, now) = (Summaries::new(1), Instant::now());
        summaries.hear(now, &summary(2, &[])).expect("good");
        summaries.hear(now, &farewell(2)).expect("good");
        assert!(summaries.others(now).is_empty());
    }

    #[test]
    fn forged_instances_are_bounded_and_displace_nobody() {
        let (summaries, start) = (Summaries::new(1), Instant::now());
        for instance in 2..2 + MOST as u64 {
            summaries.hear(start, &summary(instance, &[])).expect("there is room");
        }
        let soon = start + Duration::from_secs(1);
        assert!(matches!(summaries.hear(soon, &summary(9999, &[])), Err(Unusable::TooMany)));
        summaries.hear(soon, &summary(2, &[])).expect("it is known");
        let later = start + LOST_AFTER;
        summaries.hear(later, &summary(9999, &[])).expect("a lost one makes room");
        let all = shown(&summaries, later);
        assert!(all.len() == MOST && all.contains(&(2, false)) && all.contains(&(9999, false)));
    }

    #[test]
    fn hot_keys_of_all_come_by_their_rank_and_once() {
        let (summaries, now) = (Summaries::new(1), Instant::now());
        summaries.hear(now, &summary(2, &[b"a", b"b", b"\xff"])).expect("good");
        summaries.hear(now, &summary(3, &[b"b", b"c"])).expect("good");
        let keys: Vec<Vec<u8>> = summaries.hot_keys(now).into_iter().map(|(_, key)| key).collect();
        assert_eq!(keys, [&b"a"[..], b"b", b"c", b"\xff"]);
        assert!(summaries.hot_keys(now + LOST_AFTER).is_empty());
    }
}
