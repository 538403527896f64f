//! Decides what may be served from L1 and what may be kept there: generations, leases, guards and tickets.
//!
//! The rules are those of `docs/coherence.md`: a value read before an invalidation is never served after it, and any doubt ends in
//! a flush. No I/O and no clock: the caller passes the time.

pub mod mode_history;
mod stripes;
#[cfg(test)]
mod stripes_tests;

/// The locks of the stripes; `tests/loom.rs` replaces them.
mod sync {
    pub(super) use std::sync::{Mutex, MutexGuard};
}

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};

use crate::config::{self, Config};
use crate::glob::Glob;
use crate::metrics::outcome::{FlushReason, ModeReason};
use crate::metrics::slots::Stats;
use crate::near_cache::{Entry, EntryId, KeyId, NearCache, Question, Times, hash_key};

use stripes::Stripes;

/// Enough stripes that two keys in use at once rarely share one (a guard keeps all keys of its stripe from being filled), and few
/// enough that their locks stay in a core's own cache: each write takes a lock twice.
const STRIPES: usize = 1 << 14;

/// How far L1 may be trusted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is served: L1 is switched off, or the upstream is no primary.
    Off,
    /// No feed is configured: this Shortstop is configured as the only writer.
    Single,
    /// The bus has proven that it delivers every invalidation.
    Live,
    /// The bus has not proven that it delivers every invalidation. Entries are served until they are `degraded_staleness` old.
    Degraded,
}

impl Mode {
    /// The name that `PROXY INFO` shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Single => "single",
            Mode::Live => "live",
            Mode::Degraded => "degraded",
        }
    }

    /// What the mode means for reads, for the log.
    pub fn for_reads(self) -> &'static str {
        match self {
            Mode::Off => "nothing is served from L1: every read goes to Redis",
            Mode::Single => {
                "L1 serves entries for up to max_staleness; writes that bypass this Shortstop are not noticed before"
            }
            Mode::Live => "L1 serves, and drops keys that the fleet writes",
            Mode::Degraded => "L1 serves entries younger than degraded_staleness",
        }
    }
}

/// What is known of the upstream's role. Nothing is served from a server that is not known to be a primary, unless the server
/// refuses to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Redis has not been asked yet. Entries read now may be kept, and are served once the role is known.
    Unproven,
    /// All connections are moving to another server.
    Changing,
    /// A replica: nothing is served or kept.
    Replica,
    /// A primary.
    Primary,
    /// Redis was asked and does not tell. It counts as a primary.
    NotTold,
}

impl Role {
    const ALL: [Role; 5] = [Role::Unproven, Role::Changing, Role::Replica, Role::Primary, Role::NotTold];

    fn serves(self) -> bool {
        matches!(self, Role::Primary | Role::NotTold)
    }
}

/// The state that all workers share.
#[derive(Debug)]
pub struct Coherence {
    cache: ArcSwap<NearCache>,
    /// Caches that were replaced, until they are empty.
    replaced: Mutex<Vec<Arc<NearCache>>>,
    stripes: Arc<Stripes<Entry>>,
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

    /// Keeps the reply to the ticket's question, if the ticket is still valid. Returns whether it was.
    pub fn redeem(self, sent: Instant, deadline: Instant, question: &Question<'_>, reply: &[u8]) -> bool {
        let shared = &self.coherence;
        let times = Times { generation: self.generation, sent: shared.nanos(sent), deadline: shared.nanos(deadline) };
        let entry = Entry::new(times, question, reply);
        let current = || shared.generation() == self.generation;
        let Some(dropped) = shared.stripes.land(self.id, self.number, &entry, current) else {
            return false;
        };
        shared.stats.shared.entries.fetch_add(1, Ordering::Relaxed);
        shared.stats.shared.entry_bytes.fetch_add(entry.weight() as u64, Ordering::Relaxed);
        // Outside of the lock, because moka may call back into the stripes. An entry that was dropped in between is already marked
        // dead, and is never served.
        shared.cache.load().insert(self.id, entry);
        shared.let_go(dropped);
        shared.stats.shared.fills.fetch_add(1, Ordering::Relaxed);
        true
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.coherence.stripes.close_flight(self.id, self.number);
    }
}

/// The right to serve from L1. Made once for everything that was read from a client at once, and again after a request that flushes
/// L1 ([`Coherence::is_current`]).
#[derive(Clone, Copy, Debug)]
pub struct ServePermit {
    /// The time that deadlines are compared with.
    pub now: Instant,
    generation: u64,
    /// `now` in nanoseconds after the origin, like the times of entries.
    nanos: u64,
    /// An entry's request must have been sent after this. `None`: nothing is served.
    sent_after: Option<u64>,
}

impl ServePermit {
    /// Whether any entry may be served.
    pub fn serves(&self) -> bool {
        self.sent_after.is_some()
    }

    /// Whether this entry may be served.
    #[inline]
    pub fn allows(&self, entry: &Entry) -> bool {
        entry.is_valid() && self.allows_times(entry.times())
    }

    #[inline]
    fn allows_times(&self, times: Times) -> bool {
        times.generation == self.generation
            && self.nanos < times.deadline
            && self.sent_after.is_some_and(|oldest| times.sent >= oldest)
    }
}

impl Coherence {
    /// An empty cache, in mode `single`, or in mode `degraded` until the bus has proven that it delivers.
    pub fn new(config: &Config, stats: Arc<Stats>) -> Self {
        let origin = Instant::now();
        let stripes = Arc::new(Stripes::new(STRIPES));
        let cache = new_cache(&config.l1, origin, &stripes, &stats);
        Coherence {
            cache: ArcSwap::from_pointee(cache),
            replaced: Mutex::default(),
            stripes,
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

    /// Uses another configuration from now on. `old` is the previous one. If the bounds change, L1 starts again, empty.
    pub fn configure(&self, old: &Config, new: &Config) {
        self.max_staleness.store(count_nanos(new.max_staleness), Ordering::Relaxed);
        self.degraded_staleness.store(count_nanos(new.degraded_staleness), Ordering::Relaxed);
        let bounds = |l1: &config::L1| (l1.max_memory, l1.max_entries, l1.policy);
        if bounds(&old.l1) != bounds(&new.l1) {
            let cache = new_cache(&new.l1, self.origin, &self.stripes, &self.stats);
            let before = self.cache.swap(Arc::new(cache));
            self.replaced().push(before);
        }
        self.switched_on.store(is_on(new), Ordering::Release);
        self.flush("the configuration was reloaded");
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
        self.let_go(self.stripes.begin(key));
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
        self.quarantine(key, now);
        self.stripes.end(key);
    }

    /// Like [`Coherence::begin_write`], for a write that may block. Only this key is not kept meanwhile.
    pub fn hold(&self, key: KeyId) {
        self.let_go(self.stripes.hold(key));
    }

    /// The reply to a write that may have blocked has arrived.
    pub fn release(&self, key: KeyId) {
        self.stripes.release(key);
    }

    /// Keeps nothing of this key for `max_staleness`.
    pub fn quarantine(&self, key: KeyId, now: Instant) {
        self.let_go(self.stripes.quarantine(key, now + self.max_staleness()));
    }

    /// Drops everything, and keeps nothing for `max_staleness`, because a write that may change any key may still run. `why` is for
    /// the log.
    pub fn quarantine_all(&self, now: Instant, reason: FlushReason, why: &str) {
        let until = self.nanos(now + self.max_staleness());
        self.quarantined_until.fetch_max(until, Ordering::AcqRel);
        self.flush_for(reason, why);
    }

    /// The key may have changed: drops its entries, and invalidates its tickets.
    pub fn poison(&self, key: KeyId) {
        self.let_go(self.stripes.poison(key));
    }

    #[inline]
    fn let_go(&self, dropped: impl AsRef<[EntryId]>) {
        dropped.as_ref().iter().for_each(|id| self.cache.load().remove(*id));
    }

    /// Like [`Coherence::poison`], in every database.
    pub fn poison_everywhere(&self, key: &[u8]) {
        let hash = hash_key(key);
        for db in 0..=self.highest_db.load(Ordering::Relaxed) {
            self.poison(KeyId::from_hash(db, hash));
        }
    }

    /// Like [`Coherence::poison`], for all keys that match.
    pub fn poison_matching(&self, glob: &Glob) {
        self.let_go(self.stripes.poison_where(|entry| glob.matches(entry.key())));
    }

    /// Call this before delivering a reply that was read without a ticket. Nothing older may be served after it.
    pub fn observe(&self, id: EntryId, reply: &[u8]) {
        self.let_go(self.stripes.compare(id, |entry| entry.reply() == reply));
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
fn new_cache(bounds: &config::L1, origin: Instant, stripes: &Arc<Stripes<Entry>>, stats: &Arc<Stats>) -> NearCache {
    let (stripes, stats) = (Arc::clone(stripes), Arc::clone(stats));
    NearCache::new(bounds, origin, move |id: &EntryId, entry: &Entry, by_policy: bool| {
        stripes.forget(*id, entry);
        stats.shared.entries.fetch_sub(1, Ordering::Relaxed);
        stats.shared.entry_bytes.fetch_sub(entry.weight() as u64, Ordering::Relaxed);
        if by_policy {
            stats.shared.evictions.fetch_add(1, Ordering::Relaxed);
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::{Duration, Instant};

    use super::{Coherence, Mode, ModeReason, Role};
    use crate::config::Config;
    use crate::metrics::outcome::FlushReason;
    use crate::metrics::slots::Stats;
    use crate::near_cache::{Entry, Question};

    const SECOND: Duration = Duration::from_secs(1);

    fn coherence(yaml: &str) -> Arc<Coherence> {
        let config = Config::from_yaml(yaml).unwrap_or_else(|error| panic!("{error}"));
        let coherence = Arc::new(Coherence::new(&config, Arc::new(Stats::new(1))));
        coherence.set_role(Role::Primary);
        coherence
    }

    fn fill(coherence: &Arc<Coherence>, now: Instant, lives: Duration) -> Option<Entry> {
        fill_as(coherence, &question(0), now, lives, b"$1\r\nv\r\n")
    }

    fn fill_as(
        coherence: &Arc<Coherence>,
        question: &Question<'_>,
        now: Instant,
        lives: Duration,
        reply: &[u8],
    ) -> Option<Entry> {
        let ticket = coherence.ticket(question.id(), 0, now)?;
        ticket.redeem(now, now + lives, question, reply);
        coherence.cache().get(question.id())
    }

    /// GET k, by a user.
    fn question(user: u32) -> Question<'static> {
        Question::get(0, user, b"k")
    }

    #[test]
    fn another_configuration_takes_effect_at_once() {
        let config = |yaml: &str| Config::from_yaml(yaml).unwrap_or_else(|error| panic!("{error}"));
        let (long, short) = (config("max_staleness: 60s"), config("max_staleness: 5s\nl1: { max_entries: 7 }"));
        let stats = Arc::new(Stats::new(1));
        let coherence = Arc::new(Coherence::new(&long, Arc::clone(&stats)));
        coherence.set_role(Role::Primary);
        let now = Instant::now();
        let old = fill(&coherence, now, 60 * SECOND).expect("kept");
        coherence.cache().tidy();
        coherence.configure(&long, &short);
        assert!(!coherence.permit(now).allows(&old), "L1 was flushed");
        assert!(coherence.cache().get(question(0).id()).is_none(), "and is another one");
        let held = coherence.replaced()[0].clone();
        let new = fill(&coherence, now, 60 * SECOND).expect("kept");
        coherence.tidy();
        assert_eq!(coherence.replaced().len(), 1, "somebody may still put something in");
        drop(held);
        // moka removes entries older than the flush, and its clock advances in steps.
        while !coherence.replaced().is_empty() {
            std::thread::yield_now();
            coherence.tidy();
        }
        assert_eq!(stats.shared.entries.load(Ordering::Relaxed), 1, "the old one is not counted any more");
        assert!(coherence.permit(now + 5 * SECOND - Duration::from_nanos(1)).allows(&new));
        assert!(!coherence.permit(now + 5 * SECOND).allows(&new), "the new bound");
        coherence.configure(&short, &config("l1: { enabled: false }"));
        assert_eq!((coherence.mode(now), coherence.max_staleness()), (Mode::Off, 60 * SECOND));
    }

    #[test]
    fn a_permit_is_current_until_something_flushes() {
        let coherence = coherence("nats: nats://127.0.0.1:1");
        let now = Instant::now();
        let flushes: [&dyn Fn(); 5] = [
            &|| coherence.flush("a test"),
            &|| coherence.doubt(true),
            &|| coherence.set_role(Role::Replica),
            &|| coherence.lease(now + SECOND, now),
            &|| coherence.quarantine_all(now, FlushReason::Other, "a test"),
        ];
        for (at, flush) in flushes.iter().enumerate() {
            let permit = coherence.permit(now);
            assert!(coherence.is_current(&permit));
            flush();
            assert!(!coherence.is_current(&permit), "{at}");
        }
    }

    #[test]
    fn a_single_instance_serves_until_the_deadline() {
        let coherence = coherence("max_staleness: 60s");
        let now = Instant::now();
        assert_eq!(coherence.mode(now), Mode::Single);
        let entry = fill(&coherence, now, 5 * SECOND).expect("kept");
        assert!(coherence.permit(now + 4 * SECOND).allows(&entry));
        assert!(!coherence.permit(now + 5 * SECOND).allows(&entry));
    }

    #[test]
    fn a_flush_drops_every_entry_at_once() {
        let coherence = coherence("");
        let now = Instant::now();
        let entry = fill(&coherence, now, 5 * SECOND).expect("kept");
        coherence.flush("test");
        assert!(entry.is_valid() && !coherence.permit(now).allows(&entry));
    }

    #[test]
    fn a_lost_write_of_unknown_keys_quarantines_everything() {
        let coherence = coherence("max_staleness: 10s");
        let now = Instant::now();
        let entry = fill(&coherence, now, 5 * SECOND).expect("kept");
        let ticket = coherence.ticket(question(0).id(), 0, now).expect("a ticket");
        coherence.quarantine_all(now, FlushReason::Other, "test");
        assert!(!coherence.permit(now).allows(&entry) && !ticket.is_live());
        assert!(coherence.ticket(question(0).id(), 0, now + 9 * SECOND).is_none());
        assert!(coherence.ticket(question(0).id(), 0, now + 10 * SECOND).is_some());
    }

    #[test]
    fn entries_are_served_only_under_a_lease() {
        let coherence = coherence("nats: nats://127.0.0.1:4222");
        let now = Instant::now();
        assert_eq!(coherence.mode(now), Mode::Degraded);
        coherence.lease(now + SECOND, now);
        assert_eq!(coherence.mode(now), Mode::Live);
        let entry = fill(&coherence, now, 60 * SECOND).expect("kept");
        assert!(coherence.permit(now + SECOND / 2).allows(&entry));
        // The process was frozen for an hour: the lease has long expired, and with it the right to serve.
        assert_eq!(coherence.mode(now + SECOND), Mode::Degraded);
        assert!(!coherence.permit(now + SECOND).allows(&entry));
        // The lease is back. Entries kept before the gap are dead.
        coherence.lease(now + 3 * SECOND, now + 2 * SECOND);
        assert!(!coherence.permit(now + 2 * SECOND).allows(&entry));
    }

    #[test]
    fn a_doubt_degrades_and_flushes() {
        let coherence = coherence("nats: nats://127.0.0.1:4222");
        let now = Instant::now();
        coherence.lease(now + SECOND, now);
        let generation = coherence.generation();
        coherence.doubt(true);
        assert_eq!((coherence.mode(now), coherence.generation()), (Mode::Degraded, generation + 1));
        coherence.doubt(false);
        assert_eq!((coherence.mode(now), coherence.generation()), (Mode::Live, generation + 2));
    }

    #[test]
    fn nothing_is_served_or_kept_from_a_replica() {
        let coherence = coherence("");
        let now = Instant::now();
        let entry = fill(&coherence, now, 60 * SECOND).expect("kept");
        coherence.set_role(Role::Replica);
        assert!(!coherence.permit(now).allows(&entry));
        assert!(fill(&coherence, now, 60 * SECOND).is_none());
    }

    #[test]
    fn nothing_is_served_before_redis_has_been_asked_for_its_role() {
        let config = Config::from_yaml("").unwrap_or_else(|error| panic!("{error}"));
        let start = || Arc::new(Coherence::new(&config, Arc::new(Stats::new(1))));
        let now = Instant::now();
        let reason = |coherence: &Coherence| coherence.mode_and_reason(now);
        for proof in [Some(Role::Primary), None] {
            let coherence = start();
            assert_eq!(reason(&coherence), (Mode::Off, ModeReason::RoleUnknown));
            let entry = fill(&coherence, now, 60 * SECOND).expect("kept for later");
            assert!(!coherence.permit(now).allows(&entry));
            match proof {
                Some(role) => coherence.set_role(role),
                None => coherence.role_is_not_told(),
            }
            assert!(coherence.permit(now).allows(&entry), "{proof:?}");
            assert_eq!(reason(&coherence), (Mode::Single, ModeReason::NoNats));
        }
        // The server was a replica all the time.
        let coherence = start();
        let entry = fill(&coherence, now, 60 * SECOND).expect("kept for later");
        coherence.set_role(Role::Replica);
        coherence.role_is_not_told();
        assert_eq!(reason(&coherence), (Mode::Off, ModeReason::Replica));
        coherence.set_role(Role::Primary);
        assert!(!coherence.permit(now).allows(&entry));
    }

    #[test]
    fn a_lost_ticket_leaves_nothing_behind() {
        let coherence = coherence("");
        let id = question(0).id();
        let ticket = coherence.ticket(id, 0, Instant::now()).expect("a ticket");
        assert!(ticket.is_live());
        let number = ticket.number;
        drop(ticket);
        assert!(!coherence.stripes.is_live(id, number));
    }

    #[test]
    fn a_newer_value_in_another_reply_drops_the_entry() {
        let coherence = coherence("");
        let now = Instant::now();
        let entry = fill(&coherence, now, 60 * SECOND).expect("kept");
        coherence.observe(question(0).id(), b"$1\r\nv\r\n");
        assert!(entry.is_valid());
        coherence.observe(question(0).id(), b"$1\r\nw\r\n");
        assert!(!entry.is_valid() && coherence.cache().get(question(0).id()).is_none());
    }
}
