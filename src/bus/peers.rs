//! The other Shortstops of the fleet, and whether their messages arrive here: a state machine without I/O and without a clock of
//! its own (`docs/coherence.md`). Any doubt ends in a flush, never in a guess.
//!
//! Two things are separate. The *lease* says that everything the NATS server routed before an instant has been applied here; the
//! echo of this Shortstop's own heartbeat proves it. *Doubtful* says that the lease is not enough: there is no connection to NATS,
//! or a peer has fallen silent and may still be writing, or Redis shows an instance whose messages do not arrive.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::coherence::LEASE;

use super::message::{About, Body, Message, Probe};

/// Interval of heartbeats.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(200);
/// A peer from which nothing has arrived for this long counts as lost: seven heartbeats.
const SILENCE: Duration = Duration::from_millis(1500);
/// How long an instance may be connected to Redis before one of its messages must have arrived. At its start it connects to both
/// Redis and NATS.
const GRACE: Duration = Duration::from_millis(400);
/// An instance is gone when Redis has not shown it this many times in a row …
const GONE_LOOKS: u32 = 3;
/// … over at least this time, which is longer than a reconnect to Redis takes (the longest pause and the timeout, both 2 s by
/// default).
const GONE_AFTER: Duration = Duration::from_secs(5);
/// How long a peer may report a Redis other than ours: after a restart of Redis, one of the two notices first.
const OTHER_UPSTREAM: Duration = Duration::from_secs(5);
/// Maximum number of peers to remember. Only forged messages can exceed it. At this number the bus is in doubt.
const MAX_PEERS: usize = 1024;

/// What happened.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input<'a> {
    /// A message arrived on the fleet's subject. It may be this Shortstop's own.
    Received(&'a Message),
    /// Bytes arrived that are no message of this version.
    Unreadable,
    /// The client library dropped messages before they were taken.
    Overflow,
    /// The connection to NATS: `None` if there is none, else its number, counted from the start. May be repeated.
    Connection(Option<u64>),
    /// These instances of the fleet have a connection to Redis. This Shortstop is among them.
    Shown(&'a BTreeSet<u64>),
    /// Redis is asked over a new connection. Other instances may have to reconnect too, so the count of absences starts again.
    AskedAnew,
    /// A hash of the run id of this Shortstop's Redis. `None`: not known. May be repeated.
    Upstream(Option<u64>),
    /// Time has passed.
    Tick,
}

/// What must be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Apply the events of the message that arrived.
    Apply,
    /// Drop everything.
    Flush(Doubt),
    /// The lease now ends at this instant, which is never earlier than the previous one.
    Lease(Instant),
    /// Whether the bus is in doubt has changed.
    Doubtful(bool),
    /// This Shortstop's own BYE came back: everything it sent has been routed.
    Ended,
}

/// Why everything must be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// There is a gap in a peer's sequence numbers.
    Gap,
    /// A peer's sequence numbers went back: one of the messages was not its own.
    Backwards,
    /// A peer had sent messages before the first one that arrived here.
    NewPeer,
    /// A peer fell silent.
    Silent,
    /// Redis shows an instance whose messages do not arrive.
    Unheard,
    /// A message could not be understood.
    Unreadable,
    /// Messages were lost on this side.
    Overflow,
    /// The path from NATS works (again). Messages sent before were missed.
    Connected,
}

impl Doubt {
    /// Whether a peer's sequence numbers show that something was lost.
    pub fn is_gap(self) -> bool {
        matches!(self, Doubt::Gap | Doubt::Backwards)
    }

    /// For the log and the cache's counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Doubt::Gap => "bus: a message of a peer is missing",
            Doubt::Backwards => "bus: a peer's sequence numbers went back",
            Doubt::NewPeer => "bus: a peer had sent messages before the first one that arrived",
            Doubt::Silent => "bus: a peer fell silent",
            Doubt::Unheard => "bus: an instance that Redis shows is not heard",
            Doubt::Unreadable => "bus: a message could not be understood",
            Doubt::Overflow => "bus: messages arrived faster than they could be handled",
            Doubt::Connected => "bus: connected",
        }
    }
}

/// The state.
#[derive(Debug)]
pub(super) struct Peers {
    own: u64,
    /// Zero of [`Probe::sent`].
    origin: Instant,
    peers: HashMap<u64, Peer>,
    /// The `peers` that have been silent for too long.
    lost: BTreeSet<u64>,
    /// Instances that Redis shows or recently showed, and that are not among `peers`.
    unheard: BTreeMap<u64, Unheard>,
    /// A hash of the run id of this Shortstop's Redis.
    upstream: Option<u64>,
    /// No peer can count as silent before this instant. Saves a walk over all peers at each tick.
    next_silence: Option<Instant>,
    connection: Option<u64>,
    /// A probe has come back on this connection.
    proven: bool,
    lease: Option<Instant>,
    doubtful: bool,
}

#[derive(Debug)]
struct Peer {
    /// The last sequence number received.
    sequence: u64,
    heard: Instant,
    about: About,
    /// Since when the peer has reported a Redis other than ours.
    other_upstream_since: Option<Instant>,
    /// Used while the peer is lost.
    absence: Absence,
}

#[derive(Debug)]
struct Unheard {
    first_shown: Instant,
    /// One of its messages should have arrived by now.
    confirmed: bool,
    absence: Absence,
}

/// How often in a row, and since when, Redis has not shown an instance.
#[derive(Debug, Default)]
struct Absence {
    looks: u32,
    since: Option<Instant>,
}

impl Absence {
    /// Counts one list of Redis. Returns whether the instance is gone.
    fn look(&mut self, now: Instant, is_shown: bool) -> bool {
        if is_shown {
            *self = Absence::default();
            return false;
        }
        self.looks += 1;
        let since = *self.since.get_or_insert(now);
        self.looks >= GONE_LOOKS && now >= since + GONE_AFTER
    }
}

impl Peers {
    /// Not connected, no peers, in doubt. `origin` is the zero of the clock in [`Probe::sent`].
    pub fn new(own: u64, origin: Instant) -> Self {
        Peers {
            own,
            origin,
            peers: HashMap::new(),
            lost: BTreeSet::new(),
            unheard: BTreeMap::new(),
            upstream: None,
            next_silence: None,
            connection: None,
            proven: false,
            lease: None,
            doubtful: true,
        }
    }

    /// Number of known peers, including lost ones.
    pub fn count(&self) -> usize {
        self.peers.len()
    }

    /// The known peers, including lost ones.
    pub fn known(&self) -> impl Iterator<Item = u64> {
        self.peers.keys().copied()
    }

    /// Whether a message of this incarnation comes from another Shortstop.
    pub fn is_peer(&self, incarnation: u64) -> bool {
        incarnation != self.own
    }

    /// Peers that are silent and did not send BYE.
    pub fn lost(&self) -> &BTreeSet<u64> {
        &self.lost
    }

    /// Instances that Redis shows, and of which no message has arrived although there was time for one.
    pub fn unheard(&self) -> BTreeSet<u64> {
        self.unheard.iter().filter(|(_, unheard)| unheard.confirmed).map(|(incarnation, _)| *incarnation).collect()
    }

    /// Peers that have reported a Redis other than ours for some time.
    pub fn other_upstream(&self, now: Instant) -> BTreeSet<u64> {
        let long = |peer: &Peer| peer.other_upstream_since.is_some_and(|since| now >= since + OTHER_UPSTREAM);
        self.peers.iter().filter(|(_, peer)| long(peer)).map(|(incarnation, _)| *incarnation).collect()
    }

    /// Number of peers that are not silent and report a subscription to the fleet's channel at our Redis.
    pub fn subscribers(&self) -> u64 {
        let here = |incarnation, peer: &Peer| {
            peer.about.subscribed && peer.other_upstream_since.is_none() && !self.lost.contains(incarnation)
        };
        self.peers.iter().filter(|(incarnation, peer)| here(incarnation, peer)).count() as u64
    }

    /// Whether Redis shows an instance of which no message has arrived, and which still has time to send one.
    pub fn is_unsure(&self) -> bool {
        self.unheard.values().any(|unheard| !unheard.confirmed)
    }

    /// Whether CLIENT LIST is needed now.
    pub fn needs_list(&self) -> bool {
        !self.lost.is_empty() || !self.unheard.is_empty()
    }

    /// Whether it is connected, and a probe has come back on this connection.
    pub fn proven(&self) -> bool {
        self.proven
    }

    /// One step. Adds what must be done to `out`.
    pub fn step(&mut self, now: Instant, input: Input<'_>, out: &mut Vec<Action>) {
        match input {
            Input::Received(message) if message.incarnation == self.own => self.echo(now, message, out),
            Input::Received(message) => self.hear(now, message, out),
            Input::Unreadable => out.push(Action::Flush(Doubt::Unreadable)),
            Input::Overflow => out.push(Action::Flush(Doubt::Overflow)),
            Input::Connection(connection) => {
                if self.connection != connection {
                    self.connection = connection;
                    self.proven = false;
                }
            }
            Input::Shown(shown) => self.shown(now, shown, out),
            Input::AskedAnew => {
                self.peers.values_mut().for_each(|peer| peer.absence = Absence::default());
                self.unheard.values_mut().for_each(|unheard| unheard.absence = Absence::default());
            }
            Input::Upstream(upstream) => self.upstream = upstream,
            Input::Tick => self.tick(now, out),
        }
        let unheard = self.unheard.values().any(|unheard| unheard.confirmed);
        let doubtful = !self.proven || !self.lost.is_empty() || unheard || self.peers.len() >= MAX_PEERS;
        if self.doubtful != doubtful {
            self.doubtful = doubtful;
            out.push(Action::Doubtful(doubtful));
        }
    }

    fn echo(&mut self, now: Instant, message: &Message, out: &mut Vec<Action>) {
        match message.body {
            Body::Heartbeat(probe, _) => self.prove(now, probe, out),
            Body::Bye => out.push(Action::Ended),
            // This Shortstop has already applied its own events.
            Body::Hello
            | Body::Invalidate(_)
            | Body::Quarantine(_)
            | Body::Flush
            | Body::QuarantineAll
            | Body::Script { .. }
            | Body::Forget(_)
            | Body::Plain(_) => {}
        }
    }

    fn prove(&mut self, now: Instant, probe: Probe, out: &mut Vec<Action>) {
        // A probe that waited in a buffer while the connection was replaced proves nothing: what was routed between the two
        // connections did not arrive.
        if self.connection != Some(probe.connection) {
            return;
        }
        let Some(sent) = self.origin.checked_add(Duration::from_nanos(probe.sent)) else {
            return;
        };
        if sent > now {
            return;
        }
        if !self.proven {
            self.proven = true;
            out.push(Action::Flush(Doubt::Connected));
        }
        let lease = sent + LEASE;
        if self.lease.is_none_or(|before| before < lease) {
            self.lease = Some(lease);
            out.push(Action::Lease(lease));
        }
    }

    fn hear(&mut self, now: Instant, message: &Message, out: &mut Vec<Action>) {
        let Message { incarnation, sequence, ref body } = *message;
        if let Some(peer) = self.peers.get_mut(&incarnation) {
            peer.heard = now;
            if self.lost.remove(&incarnation) {
                peer.absence = Absence::default();
                self.next_silence = earlier(self.next_silence, now + SILENCE);
            }
            let expected = if body.counts() { peer.sequence.saturating_add(1) } else { peer.sequence };
            if sequence > expected {
                out.push(Action::Flush(Doubt::Gap));
                peer.sequence = sequence;
            } else if body.counts() {
                // Older messages are applied too. At worst that drops too much.
                peer.sequence = peer.sequence.max(sequence);
            } else if sequence < expected {
                // NATS keeps the order of one publisher, so one of the numbers was forged. Continuing from the forged one would
                // hide real gaps.
                out.push(Action::Flush(Doubt::Backwards));
                peer.sequence = sequence;
            }
        } else {
            // Sequence number 0 in a HELLO: the peer has sent no event yet, so nothing was missed.
            if !(matches!(body, Body::Hello) && sequence == 0) {
                out.push(Action::Flush(Doubt::NewPeer));
            }
            self.unheard.remove(&incarnation);
            if self.peers.len() < MAX_PEERS {
                let peer = Peer {
                    sequence,
                    heard: now,
                    about: About::default(),
                    other_upstream_since: None,
                    absence: Absence::default(),
                };
                self.peers.insert(incarnation, peer);
                self.next_silence = earlier(self.next_silence, now + SILENCE);
            }
        }
        if body.counts() {
            out.push(Action::Apply);
        }
        match body {
            Body::Bye => drop(self.peers.remove(&incarnation)),
            Body::Heartbeat(_, about) => self.about(now, incarnation, *about),
            _ => {}
        }
    }

    fn about(&mut self, now: Instant, incarnation: u64, about: About) {
        let Some(peer) = self.peers.get_mut(&incarnation) else { return };
        let differs = self.upstream.zip(about.upstream).is_some_and(|(ours, theirs)| ours != theirs);
        peer.about = about;
        peer.other_upstream_since = differs.then(|| peer.other_upstream_since.unwrap_or(now));
    }

    fn shown(&mut self, now: Instant, shown: &BTreeSet<u64>, out: &mut Vec<Action>) {
        let peers = &mut self.peers;
        self.lost.retain(|lost| {
            let gone = peers.get_mut(lost).is_none_or(|peer| peer.absence.look(now, shown.contains(lost)));
            if gone {
                peers.remove(lost);
            }
            !gone
        });
        self.unheard.retain(|incarnation, unheard| {
            let is_shown = shown.contains(incarnation);
            if unheard.confirmed { !unheard.absence.look(now, is_shown) } else { is_shown }
        });
        if !self.proven {
            // Nothing arrives here now, so silence proves nothing about the peers.
            self.unheard.retain(|_, unheard| unheard.confirmed);
            return;
        }
        let mut found = false;
        for &incarnation in shown {
            let is_new = incarnation != self.own && !self.peers.contains_key(&incarnation);
            if !is_new || (self.unheard.len() >= MAX_PEERS && !self.unheard.contains_key(&incarnation)) {
                continue;
            }
            let unheard = self.unheard.entry(incarnation).or_insert_with(|| Unheard {
                first_shown: now,
                confirmed: false,
                absence: Absence::default(),
            });
            if !unheard.confirmed && now >= unheard.first_shown + GRACE {
                unheard.confirmed = true;
                found = true;
            }
        }
        if found {
            out.push(Action::Flush(Doubt::Unheard));
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.next_silence.is_none_or(|next| now < next) {
            return;
        }
        let mut silent = false;
        self.next_silence = None;
        for (&incarnation, peer) in &self.peers {
            let silence = peer.heard + SILENCE;
            if silence > now {
                self.next_silence = earlier(self.next_silence, silence);
            } else {
                silent |= self.lost.insert(incarnation);
            }
        }
        if silent {
            out.push(Action::Flush(Doubt::Silent));
        }
    }
}

fn earlier(one: Option<Instant>, other: Instant) -> Option<Instant> {
    Some(one.map_or(other, |one| one.min(other)))
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
