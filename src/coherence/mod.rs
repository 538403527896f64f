//! Decides what may be served from L1 and what may be kept there: generations, leases, guards and tickets.
//!
//! The rules are those of `docs/coherence.md`: a value read before an invalidation is never served after it, and any doubt ends in
//! a flush. No I/O and no clock: the caller passes the time.

mod departures;
mod look;
mod mode;
pub mod mode_history;
mod permit;
mod stripes;
#[cfg(test)]
mod stripes_tests;
#[cfg(test)]
mod tests;

/// The locks of the stripes; `tests/loom.rs` replaces them.
mod sync {
    pub(super) use std::sync::{Mutex, MutexGuard};
}

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};

use crate::codec::Codec;
use crate::config::{self, Config};
use crate::glob::Glob;
use crate::metrics::outcome::{EventKind, FlushReason, LeftL1, ModeReason, Outcome};
use crate::metrics::rules::RulePlace;
use crate::metrics::slots::Stats;
use crate::near_cache::{Entry, EntryId, Gone, KeyId, NearCache, Question, Times, hash_key};

use departures::Departures;
use stripes::Stripes;

pub use departures::Departure;
pub use look::{Look, Seen, State};
pub use mode::{Mode, Role};
pub use permit::ServePermit;

/// Enough stripes that two keys in use at once rarely share one (a guard keeps all keys of its stripe from being filled), and few
/// enough that their locks stay in a core's own cache: each write takes a lock twice.
const STRIPES: usize = 1 << 14;

/// The state that all workers share.
#[derive(Debug)]
pub struct Coherence {
    cache: ArcSwap<NearCache>,
    /// Caches that were replaced, until they are empty.
    replaced: Mutex<Vec<Arc<NearCache>>>,
    stripes: Arc<Stripes<Entry>>,
    /// Why entries left.
    departures: Arc<Departures>,
    stats: Arc<Stats>,
    generation: AtomicU64,
    next_flight: AtomicU64,
    /// Microseconds after `origin` until which the bus may be trusted.
    lease_until: AtomicU64,
    /// Nanoseconds after `origin` until which nothing is kept. Set before the generation is raised.
    quarantined_until: AtomicU64,
    /// In-flight writes that may change any key. Nothing is kept meanwhile. Set before the generation is raised.
    unbounded_writes: AtomicUsize,
    origin: Instant,
    has_bus: bool,
    switched_on: AtomicBool,
    doubtful: AtomicBool,
    /// A [`Role`].
    role: AtomicU8,
    /// In nanoseconds.
    max_staleness: AtomicU64,
    degraded_staleness: AtomicU64,
    /// The highest database of which anything was kept, for messages that name a key but no database.
    highest_db: AtomicU32,
}

/// The right to keep one reply. Taken before the request is sent, and valid until the key may have changed.
#[derive(Debug)]
pub struct Ticket {
    coherence: Arc<Coherence>,
    id: EntryId,
    number: u64,
    generation: u64,
}

impl Ticket {
    /// Whether the key cannot have changed so far.
    pub fn is_live(&self) -> bool {
        self.coherence.stripes.is_live(self.id, self.number) && self.generation == self.coherence.generation()
    }

    /// Whether a reply may go to a reader that did not send the request, by the rules for an entry of L1. The request was sent at
    /// `sent`, and the reply is good until `deadline`.
    pub fn may_serve(&self, permit: &ServePermit, sent: Instant, deadline: Instant) -> bool {
        let shared = &self.coherence;
        let times = Times { generation: self.generation, sent: shared.nanos(sent), deadline: shared.nanos(deadline) };
        permit.allows_times(times) && shared.stripes.is_live(self.id, self.number)
    }

    /// Keeps the reply to the ticket's question, if the ticket is still valid. Returns whether it was. `compressed`: codec and
    /// size of the value in Redis, if it is compressed there. `place`: where its hits are counted.
    pub fn redeem(
        self,
        sent: Instant,
        deadline: Instant,
        question: &Question<'_>,
        reply: &[u8],
        compressed: Option<(Codec, usize)>,
        place: RulePlace,
    ) -> bool {
        let shared = &self.coherence;
        let times = Times { generation: self.generation, sent: shared.nanos(sent), deadline: shared.nanos(deadline) };
        let entry = Entry::new(times, question, reply, compressed, place);
        let current = || shared.generation() == self.generation;
        let Some(dropped) = shared.stripes.land(self.id, self.number, &entry, current) else {
            return false;
        };
        shared.stats.shared.entries.fetch_add(1, Ordering::Relaxed);
        shared.stats.shared.entry_bytes.fetch_add(entry.weight() as u64, Ordering::Relaxed);
        // Outside of the lock, because moka may call back into the stripes. An entry that was dropped in between is already marked
        // dead, and is never served.
        shared.cache.load().insert(self.id, entry);
        shared.let_go(dropped, LeftL1::Overtaken, None);
        shared.stats.shared.fills.fetch_add(1, Ordering::Relaxed);
        true
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.coherence.stripes.close_flight(self.id, self.number);
    }
}

impl Coherence {
    /// An empty cache, in mode `single`, or in mode `degraded` until the bus has proven that it delivers.
    pub fn new(config: &Config, stats: Arc<Stats>) -> Self {
        let origin = Instant::now();
        let stripes = Arc::new(Stripes::new(STRIPES));
        let departures = Arc::new(Departures::default());
        let cache = new_cache(&config.l1, origin, &stripes, &departures, &stats);
        Coherence {
            cache: ArcSwap::from_pointee(cache),
            replaced: Mutex::default(),
            stripes,
            departures,
            stats,
            generation: AtomicU64::new(0),
            next_flight: AtomicU64::new(0),
            lease_until: AtomicU64::new(0),
            quarantined_until: AtomicU64::new(0),
            unbounded_writes: AtomicUsize::new(0),
            origin,
            has_bus: config.nats.is_some(),
            switched_on: AtomicBool::new(is_on(config)),
            doubtful: AtomicBool::new(false),
            role: AtomicU8::new(Role::Unproven as u8),
            max_staleness: AtomicU64::new(count_nanos(config.max_staleness)),
            degraded_staleness: AtomicU64::new(count_nanos(config.degraded_staleness)),
            highest_db: AtomicU32::new(0),
        }
    }

    /// Uses another configuration from now on. `old` is the previous one. `empties`: L1 starts again, empty, as it must if its bounds
    /// change.
    pub fn configure(&self, old: &Config, new: &Config, empties: bool) {
        self.max_staleness.store(count_nanos(new.max_staleness), Ordering::Relaxed);
        self.degraded_staleness.store(count_nanos(new.degraded_staleness), Ordering::Relaxed);
        let bounds = |l1: &config::L1| (l1.max_memory, l1.max_entries, l1.policy);
        if bounds(&old.l1) != bounds(&new.l1) {
            let cache = new_cache(&new.l1, self.origin, &self.stripes, &self.departures, &self.stats);
            let before = self.cache.swap(Arc::new(cache));
            self.replaced().push(before);
        }
        self.switched_on.store(is_on(new), Ordering::Release);
        if empties {
            self.flush("the configuration has changed");
        }
    }

    /// The near cache, for lookups.
    pub fn cache(&self) -> Guard<Arc<NearCache>> {
        self.cache.load()
    }

    /// Runs the near cache's pending maintenance. Call this now and then.
    pub fn tidy(&self) {
        self.cache.load().tidy();
        self.replaced().retain(|cache| {
            // Checked first: if this is the last handle, no other code can insert an entry any more.
            let is_last = Arc::strong_count(cache) == 1;
            // Each entry must be removed individually: it is counted, and the stripes have a handle to it.
            cache.clear();
            cache.tidy();
            !(is_last && cache.is_empty())
        });
    }

    fn replaced(&self) -> MutexGuard<'_, Vec<Arc<NearCache>>> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The generation. Entries of older ones are dead.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// How far L1 may be trusted.
    pub fn mode(&self, now: Instant) -> Mode {
        self.mode_and_reason(now).0
    }

    /// How far L1 may be trusted, and why.
    #[inline]
    pub fn mode_and_reason(&self, now: Instant) -> (Mode, ModeReason) {
        let role = self.role();
        if !self.switched_on.load(Ordering::Acquire) {
            (Mode::Off, ModeReason::SwitchedOff)
        } else if !role.serves() {
            let why = match role {
                Role::Changing => ModeReason::ServerChanges,
                Role::Replica => ModeReason::Replica,
                _ => ModeReason::RoleUnknown,
            };
            (Mode::Off, why)
        } else if !self.has_bus {
            (Mode::Single, ModeReason::NoNats)
        } else if self.doubtful.load(Ordering::Acquire) {
            (Mode::Degraded, ModeReason::BusInDoubt)
        } else if self.micros(now) >= self.lease_until.load(Ordering::Acquire) {
            (Mode::Degraded, ModeReason::BusSilent)
        } else {
            (Mode::Live, ModeReason::BusProven)
        }
    }

    /// What is known of the upstream's role.
    #[inline]
    pub fn role(&self) -> Role {
        Role::ALL[usize::from(self.role.load(Ordering::Acquire))]
    }

    /// The right to serve from L1 at this time.
    pub fn permit(&self, now: Instant) -> ServePermit {
        let longest = match self.mode(now) {
            Mode::Off => None,
            Mode::Single | Mode::Live => Some(self.max_staleness.load(Ordering::Relaxed)),
            Mode::Degraded => Some(self.degraded_staleness.load(Ordering::Relaxed)).filter(|longest| *longest > 0),
        };
        let nanos = self.nanos(now);
        let sent_after = longest.map(|longest| (nanos + 1).saturating_sub(longest));
        ServePermit { now, generation: self.generation(), nanos, sent_after }
    }

    /// Whether nothing has flushed L1 since the permit was made. A change of the mode flushes L1 too. Does not read the clock.
    #[inline]
    pub fn is_current(&self, permit: &ServePermit) -> bool {
        permit.generation == self.generation()
    }

    /// The maximum age of an entry, whatever a rule says.
    pub fn max_staleness(&self) -> Duration {
        Duration::from_nanos(self.max_staleness.load(Ordering::Relaxed))
    }

    /// Time since the lease was renewed, at least. `None` without a bus or before the first lease.
    pub fn lease_age(&self, now: Instant) -> Option<Duration> {
        let until = self.lease_until.load(Ordering::Acquire);
        (self.has_bus && until > 0)
            .then(|| Duration::from_micros((self.micros(now) + LEASE.as_micros() as u64).saturating_sub(until)))
    }

    /// A ticket for a fetch that is about to be sent. `None` while a write of the key is in flight, or while nothing may be kept.
    pub fn ticket(self: &Arc<Self>, id: EntryId, db: u32, now: Instant) -> Option<Ticket> {
        if !self.switched_on.load(Ordering::Acquire) || matches!(self.role(), Role::Replica | Role::Changing) {
            return None;
        }
        // Before the request is sent, so that a message that names no database also reaches this flight.
        self.highest_db.fetch_max(db, Ordering::Relaxed);
        // Read the generation first. A quarantine or a write of any key that the checks below miss ends this generation.
        let generation = self.generation();
        if self.unbounded_writes.load(Ordering::Acquire) > 0 {
            return None;
        }
        if self.nanos(now) < self.quarantined_until.load(Ordering::Acquire) {
            return None;
        }
        let number = self.next_flight.fetch_add(1, Ordering::Relaxed);
        self.stripes.open_flight(id, number, now).then(|| Ticket {
            coherence: Arc::clone(self),
            id,
            number,
            generation,
        })
    }

    /// Call this before sending a write.
    pub fn begin_write(&self, key: KeyId) {
        self.let_go(self.stripes.begin(key), LeftL1::Written, None);
    }

    /// The reply to the write has arrived.
    pub fn end_write(&self, key: KeyId) {
        self.stripes.end(key);
    }

    /// Call this before sending a write that may change any key. Drops everything, and keeps nothing until
    /// [`Coherence::end_unbounded_write`].
    pub fn begin_unbounded_write(&self, reason: FlushReason, why: &str) {
        self.unbounded_writes.fetch_add(1, Ordering::AcqRel);
        self.flush_for(reason, why);
    }

    /// The write's reply has arrived, or its loss has been handled.
    pub fn end_unbounded_write(&self) {
        self.unbounded_writes.fetch_sub(1, Ordering::AcqRel);
    }

    /// The write's reply will never arrive. It is unknown whether and when the write runs.
    pub fn lose_write(&self, key: KeyId, now: Instant) {
        self.quarantine(key, now, LeftL1::Written);
        self.stripes.end(key);
    }

    /// Like [`Coherence::begin_write`], for a write that may block. Only this key is not kept meanwhile.
    pub fn hold(&self, key: KeyId) {
        self.let_go(self.stripes.hold(key), LeftL1::Written, None);
    }

    /// The reply to a write that may have blocked has arrived.
    pub fn release(&self, key: KeyId) {
        self.stripes.release(key);
    }

    /// Keeps nothing of this key for `max_staleness`.
    pub fn quarantine(&self, key: KeyId, now: Instant, why: LeftL1) {
        self.let_go(self.stripes.quarantine(key, now + self.max_staleness()), why, None);
    }

    /// Drops everything, and keeps nothing for `max_staleness`, because a write that may change any key may still run. `why` is for
    /// the log.
    pub fn quarantine_all(&self, now: Instant, reason: FlushReason, why: &str) {
        let until = self.nanos(now + self.max_staleness());
        self.quarantined_until.fetch_max(until, Ordering::AcqRel);
        self.flush_for(reason, why);
    }

    /// The key may have changed: drops its entries, and invalidates its tickets.
    pub fn poison(&self, key: KeyId, why: LeftL1) {
        self.let_go(self.stripes.poison(key), why, None);
    }

    /// Another instance of this incarnation has written the key: like [`Coherence::poison`].
    pub fn invalidate(&self, key: KeyId, by: u64) {
        self.let_go(self.stripes.poison(key), LeftL1::Invalidated, Some(by));
    }

    #[inline]
    fn let_go(&self, dropped: impl AsRef<[EntryId]>, why: LeftL1, by: Option<u64>) {
        for id in dropped.as_ref() {
            self.departures.note(id.key(), why, by);
            self.cache.load().remove(*id);
        }
    }

    /// A message has said that the key may have changed: like [`Coherence::poison`], in every database.
    pub fn poison_everywhere(&self, key: &[u8]) {
        self.everywhere(key).for_each(|key| self.poison(key, LeftL1::Invalidated));
    }

    /// The key in every database of which anything was kept.
    pub fn everywhere(&self, key: &[u8]) -> impl Iterator<Item = KeyId> + use<> {
        let hash = hash_key(key);
        (0..=self.highest_db.load(Ordering::Relaxed)).map(move |db| KeyId::from_hash(db, hash))
    }

    /// These keys may have changed: like [`Coherence::poison`], for all keys that match.
    pub fn poison_matching(&self, glob: &Glob, why: LeftL1) {
        self.let_go(self.stripes.poison_where(|entry| glob.matches(entry.key())), why, None);
    }

    /// Somebody wants these keys dropped, whether or not they have changed. `why` is for the log.
    pub fn forget(&self, glob: &[u8], why: &str) {
        match glob {
            b"*" => self.flush(why),
            glob => {
                self.poison_matching(&Glob::new(glob), LeftL1::Flushed);
                let journal = &self.stats.shared.journal;
                journal.note_for(
                    EventKind::Flush,
                    FlushReason::Other.name(),
                    format_args!("{why}, of keys that match a pattern"),
                );
            }
        }
    }

    /// Call this before delivering a reply that was read without a ticket. Nothing older may be served after it.
    pub fn observe(&self, id: EntryId, reply: &[u8]) {
        self.let_go(self.stripes.compare(id, |entry| entry.reply() == reply), LeftL1::Overtaken, None);
    }

    /// Drops everything, in constant time. `why` is for the log.
    pub fn flush(&self, why: &str) {
        self.flush_for(FlushReason::Other, why);
    }

    /// [`Coherence::flush`], counted under a reason.
    pub fn flush_for(&self, reason: FlushReason, why: &str) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.stats.shared.flushed(reason, why);
        self.cache.load().clear();
        crate::seldom!(debug, "L1 flushed", why);
    }

    /// The bus has proven that it delivered everything up to `until` − 1 s.
    pub fn lease(&self, until: Instant, now: Instant) {
        let lost = self.micros(now) >= self.lease_until.load(Ordering::Acquire);
        if lost {
            self.flush_for(FlushReason::Bus, "the bus is live");
        }
        self.lease_until.fetch_max(self.micros(until), Ordering::AcqRel);
    }

    /// Sets whether the bus is in doubt, whatever the lease says.
    pub fn doubt(&self, doubtful: bool) {
        if self.doubtful.swap(doubtful, Ordering::AcqRel) != doubtful {
            let why = if doubtful { "the bus is in doubt" } else { "the bus is trusted again" };
            self.flush_for(FlushReason::Bus, why);
        }
    }

    /// Sets what is known of the upstream's role. Nothing is served or kept from a replica.
    pub fn set_role(&self, role: Role) {
        let before = Role::ALL[usize::from(self.role.swap(role as u8, Ordering::AcqRel))];
        if before != role && matches!(role, Role::Primary | Role::Replica) {
            self.stats.shared.journal.note(EventKind::Role, role.name());
        }
        // What was read before the first answer came from the server that has now answered.
        let is_first_proof = before == Role::Unproven && role.serves();
        if before.serves() != role.serves() && !is_first_proof {
            self.flush_for(FlushReason::Upstream, "the upstream's role changed");
        }
    }

    /// The server was asked for its role and does not tell. If it has not told before, it counts as a primary.
    pub fn role_is_not_told(&self) {
        let (unproven, not_told) = (Role::Unproven as u8, Role::NotTold as u8);
        // If something else is known, that counts.
        let _ = self.role.compare_exchange(unproven, not_told, Ordering::AcqRel, Ordering::Acquire);
    }

    /// What L1 has of a key. Changes nothing: no entry counts as used.
    pub fn look(&self, key: KeyId, now: Instant) -> Look {
        let permit = self.permit(now);
        let found = self.stripes.look(key, now);
        let everything = self.quarantined_until.load(Ordering::Acquire).saturating_sub(permit.nanos);
        let everything = Some(Duration::from_nanos(everything)).filter(|left| !left.is_zero());
        Look {
            entries: found.entries.into_iter().map(|entry| Seen::of(entry, &permit)).collect(),
            written: found.written || self.unbounded_writes.load(Ordering::Acquire) > 0,
            quarantined: found.quarantined.map(|until| until.saturating_duration_since(now)).max(everything),
            fetched: found.fetched,
            departure: self.departures.last(key),
        }
    }

    /// In nanoseconds after the origin, like the times of entries.
    fn nanos(&self, at: Instant) -> u64 {
        count_nanos(at.saturating_duration_since(self.origin))
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_micros()).unwrap_or(u64::MAX)
    }
}

/// How long a lease lasts, counted from when the probe that came back was sent (`docs/coherence.md`).
pub const LEASE: Duration = Duration::from_secs(1);

/// Whether a configuration lets L1 serve anything.
fn is_on(config: &Config) -> bool {
    config.l1.enabled && config.coherence != config::Coherence::Off
}

fn count_nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// An empty near cache. Entries that leave it also leave the stripes and the counters.
fn new_cache(
    bounds: &config::L1,
    origin: Instant,
    stripes: &Arc<Stripes<Entry>>,
    departures: &Arc<Departures>,
    stats: &Arc<Stats>,
) -> NearCache {
    let (stripes, departures, stats) = (Arc::clone(stripes), Arc::clone(departures), Arc::clone(stats));
    NearCache::new(bounds, origin, move |id: &EntryId, entry: &Entry, cause: Gone| {
        let was_good = stripes.forget(*id, entry);
        stats.shared.entries.fetch_sub(1, Ordering::Relaxed);
        stats.shared.entry_bytes.fetch_sub(entry.weight() as u64, Ordering::Relaxed);
        if cause == Gone::Evicted {
            stats.shared.evictions.fetch_add(1, Ordering::Relaxed);
        }
        if was_good {
            let why = match cause {
                Gone::Evicted => LeftL1::Evicted,
                Gone::Expired => LeftL1::Expired,
                // Whatever else drops an entry takes it out of the stripes first.
                Gone::Removed => LeftL1::Flushed,
            };
            departures.note(id.key(), why, None);
        }
    })
}
