//! What is known of the other proxies, and whether this one hears them: a state machine without I/O and without
//! a clock of its own (COHERENCE §5–6). Every doubt ends in a flush, never in a guess.
//!
//! Two things are kept apart. The *lease* says that all that the server routed before an instant has been applied
//! here; the echo of my own heartbeat proves it. *Trouble* says that this is not enough: not connected, or a peer
//! fell silent, which may still be writing and cannot tell.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::message::{Body, Message, Probe};

/// How often a heartbeat is sent.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(200);
/// How long an echoed heartbeat is worth something, counted from when it was sent.
const LEASE: Duration = Duration::from_secs(1);
/// How long a peer may say nothing before it counts as lost: seven heartbeats.
const SILENCE: Duration = Duration::from_millis(1500);
/// Peers remembered. More can only be forged; while there are as many, the bus is in trouble.
const MAX_PEERS: usize = 1024;

/// What happened.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input<'a> {
    /// A message came in on the fleet's subject, this proxy's own included.
    Heard(&'a Message),
    /// Something came in that is no message of this version.
    Unreadable,
    /// The client library dropped messages before we could take them.
    Overflow,
    /// The connection to NATS: `None` = there is none, else its how-manieth it is. May be repeated.
    Connection(Option<u64>),
    /// Redis shows no connection of this peer any more: if it is lost, it cannot be writing.
    Gone(u64),
    /// Time has passed.
    Tick,
}

/// What has to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Apply the events of the message that was heard.
    Apply,
    /// Drop everything.
    Flush(Doubt),
    /// The inbound path is good until then. Never earlier than the one before.
    Lease(Instant),
    /// Trouble began, or is over.
    Trouble(bool),
    /// My own BYE came back: whatever I sent has been routed.
    Ended,
}

/// Why everything has to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// A peer's numbers have a hole.
    Gap,
    /// A peer's numbers went back: one of the numbers heard was not its own.
    Backwards,
    /// A peer was there before we knew it.
    NewPeer,
    /// A peer fell silent.
    Silent,
    /// A message could not be understood.
    Unreadable,
    /// Messages were lost on this side.
    Overflow,
    /// The path to NATS is there (again): what passed before was not heard.
    Connected,
}

impl Doubt {
    /// Whether a peer's numbers show that something was lost.
    pub fn is_gap(self) -> bool {
        matches!(self, Doubt::Gap | Doubt::Backwards)
    }

    /// For the log and the cache's counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Doubt::Gap => "bus: a message of a peer is missing",
            Doubt::Backwards => "bus: a peer's numbers went back",
            Doubt::NewPeer => "bus: a peer that was running before it was heard of",
            Doubt::Silent => "bus: a peer fell silent",
            Doubt::Unreadable => "bus: a message could not be understood",
            Doubt::Overflow => "bus: messages came faster than they could be taken",
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
    /// Those of `peers` that are silent for too long.
    lost: BTreeSet<u64>,
    /// No peer can fall silent before this instant; spares a walk over all peers at each tick.
    next_silence: Option<Instant>,
    connection: Option<u64>,
    /// A probe has come back on this connection.
    proven: bool,
    lease: Option<Instant>,
    doubtful: bool,
}

#[derive(Debug)]
struct Peer {
    /// The last number heard of.
    sequence: u64,
    heard: Instant,
}

impl Peers {
    /// Not connected, no peers, in trouble. `origin` is the zero of the clock of [`Probe::sent`].
    pub fn new(own: u64, origin: Instant) -> Self {
        Peers {
            own,
            origin,
            peers: HashMap::new(),
            lost: BTreeSet::new(),
            next_silence: None,
            connection: None,
            proven: false,
            lease: None,
            doubtful: true,
        }
    }

    /// Peers known, lost ones included.
    pub fn count(&self) -> usize {
        self.peers.len()
    }

    /// Whether a message of this incarnation comes from someone else.
    pub fn is_peer(&self, incarnation: u64) -> bool {
        incarnation != self.own
    }

    /// Peers that are silent and did not say BYE.
    pub fn lost(&self) -> &BTreeSet<u64> {
        &self.lost
    }

    /// Connected, and a probe has come back on this connection.
    pub fn proven(&self) -> bool {
        self.proven
    }

    /// One step. What has to be done is added to `out`.
    pub fn step(&mut self, now: Instant, input: Input<'_>, out: &mut Vec<Action>) {
        match input {
            Input::Heard(message) if message.incarnation == self.own => self.echo(now, message, out),
            Input::Heard(message) => self.hear(now, message, out),
            Input::Unreadable => out.push(Action::Flush(Doubt::Unreadable)),
            Input::Overflow => out.push(Action::Flush(Doubt::Overflow)),
            Input::Connection(connection) => {
                if self.connection != connection {
                    self.connection = connection;
                    self.proven = false;
                }
            }
            Input::Gone(incarnation) => {
                if self.lost.remove(&incarnation) {
                    self.peers.remove(&incarnation);
                }
            }
            Input::Tick => self.tick(now, out),
        }
        let doubtful = !self.proven || !self.lost.is_empty() || self.peers.len() >= MAX_PEERS;
        if self.doubtful != doubtful {
            self.doubtful = doubtful;
            out.push(Action::Trouble(doubtful));
        }
    }

    fn echo(&mut self, now: Instant, message: &Message, out: &mut Vec<Action>) {
        match message.body {
            Body::Heartbeat(probe) => self.prove(now, probe, out),
            Body::Bye => out.push(Action::Ended),
            // What I published I have done.
            Body::Hello
            | Body::Invalidate(_)
            | Body::Quarantine(_)
            | Body::Flush
            | Body::QuarantineAll
            | Body::Script { .. } => {}
        }
    }

    fn prove(&mut self, now: Instant, probe: Probe, out: &mut Vec<Action>) {
        // A probe that waited in a buffer while the connection was replaced proves nothing: what was routed
        // between the two connections was not heard.
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
                self.next_silence = earlier(self.next_silence, now + SILENCE);
            }
            let expected = if body.counts() { peer.sequence.saturating_add(1) } else { peer.sequence };
            if sequence > expected {
                out.push(Action::Flush(Doubt::Gap));
                peer.sequence = sequence;
            } else if body.counts() {
                // Older ones are applied too, which is harmless.
                peer.sequence = peer.sequence.max(sequence);
            } else if sequence < expected {
                // NATS keeps the order of one publisher, so a number in between was forged. Going on from the
                // forged one would hide the real holes.
                out.push(Action::Flush(Doubt::Backwards));
                peer.sequence = sequence;
            }
        } else {
            // Number 0 in a HELLO: it has not had anything to say yet, so nothing was missed.
            if !(matches!(body, Body::Hello) && sequence == 0) {
                out.push(Action::Flush(Doubt::NewPeer));
            }
            if self.peers.len() < MAX_PEERS {
                self.peers.insert(incarnation, Peer { sequence, heard: now });
                self.next_silence = earlier(self.next_silence, now + SILENCE);
            }
        }
        if body.counts() {
            out.push(Action::Apply);
        }
        if matches!(body, Body::Bye) {
            self.peers.remove(&incarnation);
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
mod tests {
    use std::time::{Duration, Instant};

    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert, proptest};

    use super::{Action, Doubt, Input, LEASE, MAX_PEERS, Peers, SILENCE};
    use crate::bus::message::{Body, Keys, Message, Probe};

    const OWN: u64 = 1;
    const PEER: u64 = 2;

    /// The machine with a clock that moves only when told.
    struct Bench {
        peers: Peers,
        start: Instant,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let start = Instant::now();
            Bench { peers: Peers::new(OWN, start), start, now: start }
        }

        /// Connected, and a first probe has come back.
        fn live() -> Self {
            let mut bench = Bench::new();
            bench.step(Input::Connection(Some(1)));
            bench.echo(1, 0);
            bench
        }

        fn step(&mut self, input: Input<'_>) -> Vec<Action> {
            let mut out = Vec::new();
            self.peers.step(self.now, input, &mut out);
            out
        }

        fn pass(&mut self, millis: u64) -> Vec<Action> {
            self.now += Duration::from_millis(millis);
            self.step(Input::Tick)
        }

        fn hear(&mut self, incarnation: u64, sequence: u64, body: Body) -> Vec<Action> {
            self.step(Input::Heard(&Message { incarnation, sequence, body }))
        }

        fn echo(&mut self, connection: u64, sent_millis: u64) -> Vec<Action> {
            self.hear(OWN, 0, Body::Heartbeat(Probe { connection, sent: sent_millis * 1_000_000 }))
        }

        fn lease(&self, sent_millis: u64) -> Action {
            Action::Lease(self.start + Duration::from_millis(sent_millis) + LEASE)
        }
    }

    fn beat() -> Body {
        Body::Heartbeat(Probe { connection: 9, sent: 9 })
    }

    fn keys() -> Body {
        Body::Invalidate(vec![Keys { db: 0, hashes: vec![7] }])
    }

    const GAP: Action = Action::Flush(Doubt::Gap);
    const NEW: Action = Action::Flush(Doubt::NewPeer);

    #[test]
    fn the_next_number_is_applied_and_nothing_else() {
        let mut bench = Bench::live();
        assert_eq!(bench.hear(PEER, 0, Body::Hello), []);
        assert_eq!(bench.hear(PEER, 1, keys()), [Action::Apply]);
        assert_eq!(bench.hear(PEER, 2, Body::Quarantine(Vec::new())), [Action::Apply]);
        assert_eq!(bench.hear(PEER, 3, Body::Flush), [Action::Apply]);
        assert_eq!(bench.hear(PEER, 3, beat()), []);
        assert_eq!(bench.peers.count(), 1);
    }

    #[test]
    fn an_older_number_is_applied() {
        let mut bench = Bench::live();
        bench.hear(PEER, 0, Body::Hello);
        bench.hear(PEER, 1, keys());
        bench.hear(PEER, 2, keys());
        assert_eq!(bench.hear(PEER, 1, keys()), [Action::Apply]);
        assert_eq!(bench.hear(PEER, 3, keys()), [Action::Apply], "and does not turn the count back");
    }

    #[test]
    fn a_hole_is_a_flush_and_only_once() {
        let mut bench = Bench::live();
        bench.hear(PEER, 0, Body::Hello);
        assert_eq!(bench.hear(PEER, 2, keys()), [GAP, Action::Apply]);
        assert_eq!(bench.hear(PEER, 3, keys()), [Action::Apply]);
    }

    #[test]
    fn the_loss_of_the_last_message_shows_in_the_heartbeat() {
        let mut bench = Bench::live();
        bench.hear(PEER, 0, Body::Hello);
        assert_eq!(bench.hear(PEER, 1, beat()), [GAP]);
        assert_eq!(bench.hear(PEER, 1, beat()), []);
        assert_eq!(bench.hear(PEER, 2, Body::Bye), [GAP]);
    }

    #[test]
    fn each_peer_has_its_own_numbers() {
        let mut bench = Bench::live();
        bench.hear(2, 0, Body::Hello);
        bench.hear(3, 0, Body::Hello);
        assert_eq!(bench.hear(2, 1, keys()), [Action::Apply]);
        assert_eq!(bench.hear(3, 1, keys()), [Action::Apply]);
        assert_eq!(bench.hear(3, 3, keys()), [GAP, Action::Apply]);
        assert_eq!(bench.hear(2, 2, keys()), [Action::Apply]);
    }

    #[test]
    fn a_peer_that_was_there_before_is_a_flush() {
        for (body, then) in [
            (beat(), vec![NEW]),
            (keys(), vec![NEW, Action::Apply]),
            (Body::Flush, vec![NEW, Action::Apply]),
            (Body::Hello, vec![NEW]),
        ] {
            let mut bench = Bench::live();
            assert_eq!(bench.hear(PEER, 5, body), then);
            assert_eq!(bench.hear(PEER, 6, keys()), [Action::Apply]);
        }
        let mut bench = Bench::live();
        assert_eq!(bench.hear(PEER, 5, Body::Bye), [NEW]);
        assert_eq!(bench.peers.count(), 0);
    }

    #[test]
    fn a_forged_number_is_noticed_at_the_next_heartbeat() {
        let mut bench = Bench::live();
        bench.hear(PEER, 0, Body::Hello);
        assert_eq!(bench.hear(PEER, u64::MAX, keys()), [GAP, Action::Apply]);
        assert_eq!(bench.hear(PEER, 1, keys()), [Action::Apply]);
        assert_eq!(bench.hear(PEER, 1, beat()), [Action::Flush(Doubt::Backwards)]);
        assert_eq!(bench.hear(PEER, 3, keys()), [GAP, Action::Apply], "holes are seen again");
    }

    #[test]
    fn what_cannot_be_read_is_a_flush() {
        let mut bench = Bench::live();
        assert_eq!(bench.step(Input::Unreadable), [Action::Flush(Doubt::Unreadable)]);
        assert_eq!(bench.step(Input::Overflow), [Action::Flush(Doubt::Overflow)]);
    }

    #[test]
    fn a_silent_peer_is_a_flush_and_trouble_until_it_is_back() {
        let mut bench = Bench::live();
        bench.hear(PEER, 0, Body::Hello);
        assert_eq!(bench.pass(1499), []);
        assert_eq!(bench.pass(1), [Action::Flush(Doubt::Silent), Action::Trouble(true)]);
        assert_eq!(bench.pass(10_000), []);
        assert!(bench.peers.lost().contains(&PEER));
        assert_eq!(bench.hear(PEER, 0, beat()), [Action::Trouble(false)]);
        assert_eq!(bench.pass(1499), []);
        assert_eq!(bench.pass(1), [Action::Flush(Doubt::Silent), Action::Trouble(true)]);
    }

    #[test]
    fn a_lost_peer_that_wrote_meanwhile_is_flushed_before_trouble_ends() {
        let mut bench = Bench::live();
        bench.hear(PEER, 0, Body::Hello);
        bench.pass(1500);
        assert_eq!(bench.hear(PEER, 4, beat()), [GAP, Action::Trouble(false)]);
    }

    #[test]
    fn a_peer_that_says_bye_is_not_missed() {
        let mut bench = Bench::live();
        bench.hear(PEER, 0, Body::Hello);
        assert_eq!(bench.hear(PEER, 0, Body::Bye), []);
        assert_eq!(bench.peers.count(), 0);
        assert_eq!(bench.pass(10_000), []);
    }

    #[test]
    fn a_lost_peer_is_done_with_when_it_says_bye() {
        let mut bench = Bench::live();
        bench.hear(PEER, 0, Body::Hello);
        bench.pass(1500);
        assert_eq!(bench.hear(PEER, 0, Body::Bye), [Action::Trouble(false)]);
    }

    #[test]
    fn a_lost_peer_is_done_with_when_redis_has_forgotten_it() {
        let mut bench = Bench::live();
        bench.hear(2, 0, Body::Hello);
        bench.hear(3, 0, Body::Hello);
        assert_eq!(bench.pass(1500), [Action::Flush(Doubt::Silent), Action::Trouble(true)]);
        assert_eq!(bench.step(Input::Gone(2)), [], "the other one is still lost");
        assert_eq!(bench.step(Input::Gone(3)), [Action::Trouble(false)]);
        assert_eq!(bench.hear(2, 0, beat()), [NEW], "should it come back, it is unknown");
    }

    #[test]
    fn a_peer_that_lives_cannot_be_forgotten() {
        let mut bench = Bench::live();
        bench.hear(PEER, 0, Body::Hello);
        assert_eq!(bench.step(Input::Gone(PEER)), []);
        assert_eq!(bench.step(Input::Gone(77)), []);
        assert_eq!(bench.peers.count(), 1);
    }

    #[test]
    fn silence_counts_from_the_last_word() {
        let mut bench = Bench::live();
        bench.hear(2, 0, Body::Hello);
        bench.pass(1000);
        bench.hear(3, 0, Body::Hello);
        assert_eq!(bench.pass(500), [Action::Flush(Doubt::Silent), Action::Trouble(true)]);
        assert_eq!(bench.peers.lost().iter().copied().collect::<Vec<_>>(), [2]);
        assert_eq!(bench.pass(1000), [Action::Flush(Doubt::Silent)], "the second one, while in trouble");
    }

    #[test]
    fn the_lease_counts_from_when_the_probe_was_sent() {
        let mut bench = Bench::new();
        assert_eq!(bench.step(Input::Connection(Some(1))), [], "a connection alone proves nothing");
        bench.now += Duration::from_millis(300);
        let first = bench.echo(1, 100);
        assert_eq!(first, [Action::Flush(Doubt::Connected), bench.lease(100), Action::Trouble(false)]);
        bench.now += Duration::from_millis(300);
        assert_eq!(bench.echo(1, 500), [bench.lease(500)]);
        assert_eq!(bench.echo(1, 300), [], "never back");
    }

    #[test]
    fn a_probe_of_another_connection_proves_nothing() {
        let mut bench = Bench::live();
        bench.now += Duration::from_millis(500);
        assert_eq!(bench.step(Input::Connection(None)), [Action::Trouble(true)]);
        assert_eq!(bench.echo(1, 400), []);
        assert_eq!(bench.step(Input::Connection(Some(2))), []);
        assert_eq!(bench.echo(1, 400), [], "it waited in a buffer while messages were lost");
        assert_eq!(bench.echo(2, 450), [Action::Flush(Doubt::Connected), bench.lease(450), Action::Trouble(false)]);
    }

    #[test]
    fn a_connection_replaced_unseen_is_trouble() {
        let mut bench = Bench::live();
        assert_eq!(bench.step(Input::Connection(Some(2))), [Action::Trouble(true)]);
    }

    #[test]
    fn a_probe_from_the_future_is_forged() {
        let mut bench = Bench::live();
        assert_eq!(bench.echo(1, 1), []);
        assert_eq!(bench.hear(OWN, 0, Body::Heartbeat(Probe { connection: 1, sent: u64::MAX })), []);
    }

    #[test]
    fn peers_are_missed_while_not_connected_and_waited_for_after() {
        let mut bench = Bench::live();
        bench.hear(PEER, 0, Body::Hello);
        bench.step(Input::Connection(None));
        assert_eq!(bench.pass(1500), [Action::Flush(Doubt::Silent)]);
        bench.step(Input::Connection(Some(2)));
        assert_eq!(bench.echo(2, 1500), [Action::Flush(Doubt::Connected), bench.lease(1500)], "still in trouble");
        assert_eq!(bench.hear(PEER, 2, beat()), [GAP, Action::Trouble(false)]);
    }

    #[test]
    fn my_own_words_change_nothing_here() {
        let mut bench = Bench::live();
        for body in [Body::Hello, keys(), Body::Flush] {
            assert_eq!(bench.hear(OWN, 5, body), []);
        }
        assert_eq!(bench.hear(OWN, 5, Body::Bye), [Action::Ended]);
        assert_eq!(bench.peers.count(), 0);
    }

    #[test]
    fn forged_peers_cost_speed_and_not_memory() {
        let mut bench = Bench::live();
        let mut troubled = 0;
        for incarnation in 10..10 + 2 * MAX_PEERS as u64 {
            troubled += bench.hear(incarnation, 0, Body::Hello).iter().filter(|a| **a == Action::Trouble(true)).count();
        }
        assert_eq!((bench.peers.count(), troubled), (MAX_PEERS, 1));
        bench.pass(SILENCE.as_millis() as u64);
        for incarnation in 10..10 + MAX_PEERS as u64 - 1 {
            assert_eq!(bench.step(Input::Gone(incarnation)), []);
        }
        assert_eq!(bench.step(Input::Gone(9 + MAX_PEERS as u64)), [Action::Trouble(false)]);
    }

    proptest! {
        /// The law behind the numbers: whatever is lost, each event of a peer is applied, or followed by a
        /// flush no later than the next heartbeat that arrives.
        #[test]
        fn nothing_is_lost_without_a_flush(
            arrives in vec(any::<bool>(), 0..40),
            beats in vec(any::<bool>(), 40),
        ) {
            let mut bench = Bench::live();
            bench.hear(PEER, 0, Body::Hello);
            let mut missing = false;
            let mut sequence = 0;
            for (arrived, beat_after) in arrives.into_iter().zip(beats) {
                sequence += 1;
                if arrived {
                    let actions = bench.hear(PEER, sequence, keys());
                    prop_assert!(actions.contains(&Action::Apply));
                    missing &= !actions.contains(&GAP);
                    prop_assert!(!missing);
                } else {
                    missing = true;
                }
                if beat_after {
                    missing &= !bench.hear(PEER, sequence, beat()).contains(&GAP);
                    prop_assert!(!missing);
                }
            }
        }

        /// Trouble is told on changes only, leases never go back, and nothing panics.
        #[test]
        fn any_order_of_anything(
            steps in vec((0u8..8, 0u64..4, 0u64..6, 0u64..800), 0..200),
        ) {
            let mut bench = Bench::new();
            let mut trouble = true;
            let mut lease = None;
            for (what, who, number, millis) in steps {
                bench.now += Duration::from_millis(millis);
                let actions = match what {
                    0 => bench.hear(who, number, Body::Hello),
                    1 => bench.hear(who, number, Body::Bye),
                    2 => bench.hear(who, number, keys()),
                    3 => bench.hear(who, number, beat()),
                    4 => bench.echo(who, number * 1000),
                    5 => bench.step(Input::Connection(number.checked_sub(3))),
                    6 => bench.step(Input::Gone(who)),
                    _ => bench.step(Input::Tick),
                };
                for action in actions {
                    match action {
                        Action::Trouble(now) => {
                            prop_assert!(now != trouble);
                            trouble = now;
                        }
                        Action::Lease(until) => {
                            prop_assert!(lease.is_none_or(|before| before < until));
                            prop_assert!(until <= bench.now + LEASE);
                            lease = Some(until);
                        }
                        Action::Apply | Action::Flush(_) | Action::Ended => {}
                    }
                }
                prop_assert!(bench.peers.lost().is_empty() || trouble);
            }
        }
    }
}
