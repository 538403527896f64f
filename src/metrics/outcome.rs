//! Outcomes and their names: the log, INFO and every other display of the metrics use the same name for the same outcome.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::errors::Side;

use super::counter::{Counter, Histogram};

/// One of a few named outcomes.
pub trait Outcome: Copy + 'static {
    /// All outcomes, in the order of their declaration.
    const ALL: &'static [Self];

    /// Its name: lower-case words with underscores. A field's name in INFO ends with it.
    fn name(self) -> &'static str;

    /// Its index in [`Outcome::ALL`].
    fn place(self) -> usize;
}

/// Declares an enum of outcomes, with a variant and a name for each.
macro_rules! outcomes {
    ($($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $each:literal])+ $variant:ident = $word:literal,)+ })+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum $name {
                $($(#[doc = $each])+ $variant,)+
            }

            impl Outcome for $name {
                const ALL: &'static [Self] = &[$($name::$variant),+];

                fn name(self) -> &'static str {
                    match self {
                        $($name::$variant => $word,)+
                    }
                }

                fn place(self) -> usize {
                    self as usize
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(self.name())
                }
            }
        )+
    };
}

outcomes! {
    /// Why everything in L1 was dropped.
    FlushReason {
        /// A script or a function that may have written any key, here or at a peer.
        Scripts = "scripts",
        /// A command that may have changed any key (FLUSHALL, FUNCTION LOAD, …), here or at a peer.
        Commands = "commands",
        /// The bus may have lost a message, or a service requested a flush over NATS.
        Bus = "bus",
        /// A connection to Redis was lost, or the server or its role has changed.
        Upstream = "upstream",
        /// Everything else: changed rights, a reload, `PROXY FLUSH`.
        Other = "other",
    }

    /// Why a value that a rule compresses was stored as it came.
    Skipped {
        /// It is smaller than `min_size`.
        Small = "small",
        /// It is larger than `limits.max_inflated`.
        Large = "large",
        /// It is a number or a HyperLogLog, which commands read inside Redis.
        Number = "number",
        /// Compression would not save `min_saving`.
        NoSaving = "no_saving",
    }

    /// Why the reply to a read that a rule keeps was not kept.
    NotKept {
        /// The key was not requested often enough yet (`admit_after`).
        NotAdmitted = "not_admitted",
        /// A write of the key was in flight or had an unknown outcome shortly before, or L1 is off.
        Blocked = "blocked",
        /// The key was written, or L1 was flushed, before the reply arrived.
        Changed = "changed",
        /// The client's user may not use PTTL, so the key's lifetime is unknown.
        TtlUnknown = "ttl_unknown",
        /// The key has expired, or is about to expire.
        Expired = "expired",
        /// The key does not exist, and the rule does not keep that (`negative_ttl`).
        Absent = "absent",
        /// It is larger than `max_value`.
        TooLarge = "too_large",
        /// It is an error, or not a string although GET asked for one.
        NotAValue = "not_a_value",
    }

    /// Why an entry left L1.
    LeftL1 {
        /// A client of this instance wrote the key, or a lost write may have.
        Written = "written",
        /// A peer or a service has said over NATS that the key was written.
        Invalidated = "invalidated",
        /// A reply that L1 does not keep was newer, or may have been.
        Overtaken = "overtaken",
        /// L1 needed the room.
        Evicted = "evicted",
        /// Its time was over.
        Expired = "expired",
        /// All of L1 was dropped, or the keys of a pattern.
        Flushed = "flushed",
    }

    /// Why L1 does not answer a GET of a key, if the last read of the key does not say why.
    NotServed {
        /// L1 serves nothing in its mode.
        NotServing = "not_serving",
        /// The rule of the key does not keep it.
        Rule = "rule",
        /// Scripts may write the key without declaring it (`scripts`).
        Scripts = "scripts",
        /// A write of the key is in flight.
        WriteInFlight = "write_in_flight",
        /// The outcome of a write of the key is unknown, so it is not kept for `max_staleness`.
        Quarantined = "quarantined",
        /// The key is being read from Redis, to be kept.
        FetchInFlight = "fetch_in_flight",
        /// The entry is older than the staleness allowed in this mode.
        Stale = "stale",
        /// No recent read of the key is known.
        NeverRequested = "never_requested",
        /// Nothing else is known.
        Unknown = "unknown",
    }

    /// Why a client was dropped.
    DropReason {
        /// More bytes of replies waited for it than `limits.output_buffer`.
        OutputBuffer = "output_buffer",
        /// More bytes of messages waited for it than `limits.pubsub_buffer` and `limits.pubsub_buffer_soft` allow.
        PubsubBuffer = "pubsub_buffer",
        /// Its request was longer than `limits.query_buffer`.
        QueryBuffer = "query_buffer",
        /// All buffers together exceeded `limits.buffers_total`, and this client's were the largest.
        BuffersTotal = "buffers_total",
        /// It read nothing for `limits.stall_timeout`.
        StallTimeout = "stall_timeout",
        /// It was silent for `limits.idle_timeout`.
        IdleTimeout = "idle_timeout",
        /// The connection to Redis was lost in the middle of a reply.
        ReplyCut = "reply_cut",
    }

    /// Why L1 is in its current mode.
    ModeReason {
        /// `l1.enabled` is false, or `coherence` is off.
        SwitchedOff = "switched_off",
        /// Redis has not been asked yet whether it is a primary.
        RoleUnknown = "role_unknown",
        /// Redis is a replica.
        Replica = "replica",
        /// All connections are moving to another server.
        ServerChanges = "server_changes",
        /// No NATS is configured.
        NoNats = "no_nats",
        /// NATS has brought back a probe within the last second.
        BusProven = "bus_proven",
        /// NATS is not connected, or a peer was lost that may still write.
        BusInDoubt = "bus_in_doubt",
        /// NATS has brought back no probe for a second.
        BusSilent = "bus_silent",
    }

    /// Why the outcome of a write is unknown.
    UnknownWrite {
        /// The connection to Redis was lost before the reply.
        ConnectionLost = "connection_lost",
        /// All connections were given up because another server took Redis's place.
        ServerChanged = "server_changed",
        /// Shortstop gave the connection up.
        GivenUp = "given_up",
    }

    /// Commands that do similar work, for their latency. Commands that may block are in none.
    Family {
        /// They only read.
        Read = "read",
        /// They may change keys.
        Write = "write",
        /// Scripts and functions.
        Script = "script",
        /// All others.
        Other = "other",
    }

    /// What happened, in the journal.
    EventKind {
        /// Shortstop has started.
        Started = "started",
        /// Shortstop shuts down.
        Stopping = "stopping",
        /// The configuration was read again.
        Reloaded = "reloaded",
        /// Settings were changed by CONFIG SET.
        Configured = "configured",
        /// The configuration was read again and refused.
        ReloadRefused = "reload_refused",
        /// Counters begin anew in INFO.
        StatsReset = "stats_reset",
        /// L1's mode has changed.
        Mode = "mode",
        /// L1 was flushed.
        Flush = "flush",
        /// Redis answers and accepts Shortstop's login.
        UpstreamUp = "upstream_up",
        /// Redis does not answer.
        UpstreamDown = "upstream_down",
        /// Redis refuses Shortstop's login.
        LoginRefused = "login_refused",
        /// Replies from Redis are overdue.
        UpstreamOverdue = "upstream_overdue",
        /// No reply from Redis is overdue any more.
        UpstreamInTime = "upstream_in_time",
        /// All connections move to another server.
        UpstreamMoved = "upstream_moved",
        /// Redis has become a primary or a replica.
        Role = "role",
        /// NATS is connected, and has brought back a probe.
        NatsConnected = "nats_connected",
        /// The connection to NATS was lost.
        NatsLost = "nats_lost",
        /// A peer was heard for the first time, or again.
        PeerFound = "peer_found",
        /// A peer is silent.
        PeerLost = "peer_lost",
        /// A peer has ended.
        PeerGone = "peer_gone",
        /// Redis shows an instance of the fleet whose messages do not arrive.
        PeerUnheard = "peer_unheard",
        /// Such an instance is heard now, or gone from Redis.
        PeerHeard = "peer_heard",
        /// A compressed value has come from Redis although compression is off.
        CompressedMet = "compressed_met",
        /// A client's connection was refused.
        ClientRefused = "client_refused",
        /// A client was dropped, because of a full buffer for example.
        ClientDropped = "client_dropped",
        /// Serving a client panicked.
        ClientPanicked = "client_panicked",
        /// A worker or another part has ended without which Shortstop cannot run.
        Failed = "failed",
    }
}

impl Outcome for Side {
    const ALL: &'static [Self] = &[Side::Client, Side::Upstream, Side::Us];

    fn name(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Upstream => "upstream",
            Side::Us => "us",
        }
    }

    fn place(self) -> usize {
        self as usize
    }
}

impl DropReason {
    /// The text for the log: it names the limit as in the configuration.
    pub fn text(self) -> &'static str {
        match self {
            DropReason::OutputBuffer => "limits.output_buffer",
            DropReason::PubsubBuffer => "limits.pubsub_buffer",
            DropReason::QueryBuffer => "limits.query_buffer",
            DropReason::BuffersTotal => "limits.buffers_total",
            DropReason::StallTimeout => "limits.stall_timeout",
            DropReason::IdleTimeout => "limits.idle_timeout",
            DropReason::ReplyCut => "the connection to Redis was lost in the middle of its reply",
        }
    }
}

/// Counts each outcome. Written by one thread.
#[derive(Debug)]
pub struct Tally<O>(Box<[Counter]>, PhantomData<O>);

impl<O: Outcome> Default for Tally<O> {
    fn default() -> Self {
        Tally(O::ALL.iter().map(|_| Counter::default()).collect(), PhantomData)
    }
}

impl<O: Outcome> Tally<O> {
    /// Counts one. Only the thread that owns the slot may call this.
    #[inline]
    pub fn count(&self, outcome: O) {
        self.0[outcome.place()].add(1);
    }

    /// The count of this outcome.
    pub fn get(&self, outcome: O) -> u64 {
        self.0[outcome.place()].get()
    }
}

/// The durations of each outcome. Written by one thread.
#[derive(Debug)]
pub struct Durations<O>(Box<[Histogram]>, PhantomData<O>);

impl<O: Outcome> Default for Durations<O> {
    fn default() -> Self {
        Durations(O::ALL.iter().map(|_| Histogram::default()).collect(), PhantomData)
    }
}

impl<O: Outcome> Durations<O> {
    /// Counts one. Only the thread that owns the slot may call this.
    #[inline]
    pub fn record(&self, outcome: O, duration: Duration) {
        self.0[outcome.place()].record(duration, 1);
    }

    /// The durations of this outcome.
    pub fn get(&self, outcome: O) -> &Histogram {
        &self.0[outcome.place()]
    }
}

/// Counts each outcome. Written by any thread.
#[derive(Debug)]
pub struct SharedTally<O>(Box<[AtomicU64]>, PhantomData<O>);

impl<O: Outcome> Default for SharedTally<O> {
    fn default() -> Self {
        SharedTally(O::ALL.iter().map(|_| AtomicU64::default()).collect(), PhantomData)
    }
}

impl<O: Outcome> SharedTally<O> {
    /// Counts one.
    pub fn count(&self, outcome: O) {
        self.0[outcome.place()].fetch_add(1, Ordering::Relaxed);
    }

    /// The count of this outcome.
    pub fn get(&self, outcome: O) -> u64 {
        self.0[outcome.place()].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        DropReason, EventKind, Family, FlushReason, LeftL1, ModeReason, NotKept, NotServed, Outcome, SharedTally, Side,
        Skipped, Tally, UnknownWrite,
    };

    fn names<O: Outcome>() -> Vec<&'static str> {
        O::ALL.iter().enumerate().for_each(|(at, outcome)| assert_eq!(outcome.place(), at));
        O::ALL.iter().map(|outcome| outcome.name()).collect()
    }

    #[test]
    fn each_outcome_has_a_name_that_is_the_end_of_a_field() {
        let kinds = [
            names::<FlushReason>(),
            names::<NotKept>(),
            names::<Skipped>(),
            names::<LeftL1>(),
            names::<NotServed>(),
            names::<DropReason>(),
            names::<UnknownWrite>(),
            names::<Side>(),
            names::<ModeReason>(),
            names::<EventKind>(),
            names::<Family>(),
        ];
        for mut names in kinds {
            let is_word = |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(names.iter().all(|name| !name.is_empty() && is_word(name)), "{names:?}");
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "two outcomes have one name");
        }
    }

    #[test]
    fn outcomes_are_counted_each_by_itself() {
        let (one, all) = (Tally::<NotKept>::default(), SharedTally::<FlushReason>::default());
        one.count(NotKept::Changed);
        one.count(NotKept::Changed);
        all.count(FlushReason::Bus);
        assert_eq!((one.get(NotKept::Changed), one.get(NotKept::Absent)), (2, 0));
        assert_eq!((all.get(FlushReason::Bus), all.get(FlushReason::Other)), (1, 0));
    }
}
