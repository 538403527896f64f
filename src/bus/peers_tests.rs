//! Tests of the peers' state machine, with a clock that only the test moves.

use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, proptest};

use std::collections::BTreeSet;

use super::{Action, Doubt, GONE_AFTER, GRACE, Input, LEASE, MAX_PEERS, Peers, SILENCE};
use crate::bus::message::{About, Body, Keys, Message, Probe};

const OWN: u64 = 1;
const PEER: u64 = 2;

/// The state machine, and a clock that only the test moves.
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
        self.step(Input::Received(&Message { incarnation, sequence, body }))
    }

    fn echo(&mut self, connection: u64, sent_millis: u64) -> Vec<Action> {
        self.hear(OWN, 0, Body::Heartbeat(Probe { connection, sent: sent_millis * 1_000_000 }, About::default()))
    }

    /// Redis shows these instances and this Shortstop.
    fn shown(&mut self, others: &[u64]) -> Vec<Action> {
        let shown: BTreeSet<u64> = others.iter().copied().chain([OWN]).collect();
        self.step(Input::Shown(&shown))
    }

    /// The same several times, a second apart.
    fn shown_for(&mut self, looks: u32, others: &[u64]) -> Vec<Action> {
        let mut all = Vec::new();
        for _ in 0..looks {
            self.now += Duration::from_secs(1);
            all.extend(self.shown(others));
        }
        all
    }

    fn lease(&self, sent_millis: u64) -> Action {
        Action::Lease(self.start + Duration::from_millis(sent_millis) + LEASE)
    }
}

fn beat() -> Body {
    beat_of(About::default())
}

fn beat_of(about: About) -> Body {
    Body::Heartbeat(Probe { connection: 9, sent: 9 }, about)
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
fn a_gap_causes_one_flush() {
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
fn a_peer_that_was_running_before_causes_a_flush() {
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
fn an_unreadable_message_causes_a_flush() {
    let mut bench = Bench::live();
    assert_eq!(bench.step(Input::Unreadable), [Action::Flush(Doubt::Unreadable)]);
    assert_eq!(bench.step(Input::Overflow), [Action::Flush(Doubt::Overflow)]);
}

#[test]
fn a_silent_peer_causes_a_flush_and_a_doubt_until_it_is_back() {
    let mut bench = Bench::live();
    bench.hear(PEER, 0, Body::Hello);
    assert_eq!(bench.pass(1499), []);
    assert_eq!(bench.pass(1), [Action::Flush(Doubt::Silent), Action::Doubtful(true)]);
    assert_eq!(bench.pass(10_000), []);
    assert!(bench.peers.lost().contains(&PEER));
    assert_eq!(bench.hear(PEER, 0, beat()), [Action::Doubtful(false)]);
    assert_eq!(bench.pass(1499), []);
    assert_eq!(bench.pass(1), [Action::Flush(Doubt::Silent), Action::Doubtful(true)]);
}

#[test]
fn a_lost_peer_that_wrote_meanwhile_causes_a_flush_before_the_doubt_ends() {
    let mut bench = Bench::live();
    bench.hear(PEER, 0, Body::Hello);
    bench.pass(1500);
    assert_eq!(bench.hear(PEER, 4, beat()), [GAP, Action::Doubtful(false)]);
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
fn a_lost_peer_is_forgotten_when_it_says_bye() {
    let mut bench = Bench::live();
    bench.hear(PEER, 0, Body::Hello);
    bench.pass(1500);
    assert_eq!(bench.hear(PEER, 0, Body::Bye), [Action::Doubtful(false)]);
}

/// Number of lists of Redis, a second apart, after which an absent instance is gone.
const UNTIL_GONE: u32 = GONE_AFTER.as_secs() as u32 + 1;

#[test]
fn a_lost_peer_is_forgotten_when_redis_has_not_shown_it_for_long() {
    let mut bench = Bench::live();
    bench.hear(2, 0, Body::Hello);
    bench.hear(3, 0, Body::Hello);
    assert_eq!(bench.pass(1500), [Action::Flush(Doubt::Silent), Action::Doubtful(true)]);
    assert_eq!(bench.shown_for(UNTIL_GONE, &[3]), [], "the other one is still lost");
    assert_eq!(bench.peers.count(), 1);
    assert_eq!(bench.shown_for(UNTIL_GONE - 1, &[]), []);
    assert_eq!(bench.shown_for(1, &[]), [Action::Doubtful(false)]);
    assert_eq!(bench.hear(2, 0, beat()), [NEW], "should it come back, it is unknown");
}

#[test]
fn a_peer_is_not_forgotten_for_scattered_absences() {
    let mut bench = Bench::live();
    bench.hear(PEER, 0, Body::Hello);
    bench.pass(1500);
    for _ in 0..3 {
        assert_eq!(bench.shown_for(UNTIL_GONE - 1, &[]), []);
        assert_eq!(bench.shown_for(1, &[PEER]), []);
    }
    // Nor for many absences at once, or few over a long time.
    (0..20).for_each(|_| assert_eq!(bench.shown(&[]), []));
    bench.shown(&[PEER]);
    bench.shown_for(1, &[]);
    bench.now += 2 * GONE_AFTER;
    assert_eq!(bench.shown(&[]), []);
    // Nor for absences before Redis was lost, because the peer may have lost it too.
    bench.step(Input::AskedAnew);
    assert_eq!(bench.shown_for(UNTIL_GONE - 1, &[]), []);
    assert_eq!(bench.peers.count(), 1);
}

#[test]
fn a_peer_whose_messages_arrive_is_not_forgotten_whatever_redis_shows() {
    let mut bench = Bench::live();
    bench.hear(PEER, 0, Body::Hello);
    for _ in 0..2 * UNTIL_GONE {
        bench.now += Duration::from_secs(1);
        bench.hear(PEER, 0, beat());
        assert_eq!(bench.shown(&[]), []);
    }
    assert_eq!(bench.peers.count(), 1);
}

#[test]
fn an_instance_that_redis_shows_raises_doubt_until_its_messages_arrive() {
    let mut bench = Bench::live();
    assert_eq!(bench.shown(&[PEER]), [], "it may have just started");
    assert!(bench.peers.needs_list());
    bench.now += GRACE;
    assert_eq!(bench.shown(&[PEER]), [Action::Flush(Doubt::Unheard), Action::Doubtful(true)]);
    assert_eq!(bench.peers.unheard(), BTreeSet::from([PEER]));
    assert_eq!(bench.shown_for(10, &[PEER]), []);
    assert_eq!(bench.hear(PEER, 3, beat()), [NEW, Action::Doubtful(false)]);
    assert_eq!(bench.shown(&[PEER]), []);
    assert!(bench.peers.unheard().is_empty() && !bench.peers.needs_list());
}

#[test]
fn an_unheard_instance_raises_doubt_until_it_is_gone() {
    let mut bench = Bench::live();
    bench.shown(&[2, 3]);
    assert_eq!(bench.shown_for(1, &[2, 3]), [Action::Flush(Doubt::Unheard), Action::Doubtful(true)]);
    assert_eq!(bench.shown_for(UNTIL_GONE - 1, &[3]), [], "it may be connecting again");
    assert_eq!(bench.shown_for(1, &[2, 3]), []);
    assert_eq!(bench.shown_for(UNTIL_GONE, &[3]), []);
    assert_eq!(bench.peers.unheard(), BTreeSet::from([3]));
    assert_eq!(bench.shown_for(UNTIL_GONE, &[]), [Action::Doubtful(false)]);
}

#[test]
fn an_instance_that_starts_or_ends_raises_no_doubt() {
    let mut bench = Bench::live();
    // It connects to Redis first.
    bench.shown(&[PEER]);
    assert_eq!(bench.hear(PEER, 0, Body::Hello), []);
    assert_eq!(bench.shown_for(2, &[PEER]), []);
    // It leaves NATS first.
    assert_eq!(bench.hear(PEER, 0, Body::Bye), []);
    assert_eq!(bench.shown(&[PEER]), []);
    assert_eq!(bench.shown_for(2, &[]), []);
    assert!(!bench.peers.needs_list());
}

#[test]
fn a_shortstop_that_receives_nothing_counts_no_peer_as_lost() {
    let mut bench = Bench::new();
    bench.step(Input::Connection(Some(1)));
    assert_eq!(bench.shown_for(5, &[PEER]), []);
    bench.echo(1, 0);
    assert_eq!(bench.shown(&[PEER]), [], "there has to be time for a heartbeat");
    assert_eq!(bench.hear(PEER, 1, beat()), [NEW]);
    assert_eq!(bench.shown_for(5, &[PEER]), []);
    // A known instance stays known while the bus is away.
    bench.step(Input::Connection(None));
    bench.shown_for(5, &[PEER, 3]);
    assert!(bench.peers.unheard().is_empty());
}

#[test]
fn a_peer_that_was_forgotten_and_comes_back_to_redis_is_noticed() {
    let mut bench = Bench::live();
    bench.hear(PEER, 0, Body::Hello);
    bench.pass(1500);
    assert_eq!(bench.shown_for(UNTIL_GONE, &[]), [Action::Doubtful(false)]);
    assert_eq!(bench.shown_for(1, &[PEER]), []);
    assert_eq!(bench.shown_for(1, &[PEER]), [Action::Flush(Doubt::Unheard), Action::Doubtful(true)]);
}

#[test]
fn subscribers_are_live_peers_that_report_a_subscription_at_our_redis() {
    let mut bench = Bench::live();
    bench.step(Input::Upstream(Some(7)));
    for (peer, upstream, subscribed) in [(2, Some(7), true), (3, None, true), (4, Some(7), false), (5, Some(8), true)] {
        bench.hear(peer, 0, Body::Hello);
        bench.hear(peer, 0, beat_of(About { upstream, subscribed }));
    }
    assert_eq!(bench.peers.subscribers(), 2);
    bench.now += Duration::from_secs(1);
    bench.hear(2, 0, beat_of(About { upstream: Some(7), subscribed: true }));
    bench.pass(600);
    assert_eq!(bench.peers.subscribers(), 1, "the others are silent");
}

#[test]
fn a_peer_with_another_redis_is_reported_when_it_lasts() {
    let mut bench = Bench::live();
    let says = |bench: &mut Bench, upstream| {
        bench.now += Duration::from_secs(1);
        bench.hear(PEER, 0, beat_of(About { upstream, subscribed: true }));
        bench.peers.other_upstream(bench.now)
    };
    bench.hear(PEER, 0, Body::Hello);
    assert!(says(&mut bench, Some(8)).is_empty(), "ours is not known");
    bench.step(Input::Upstream(Some(7)));
    for _ in 0..5 {
        assert!(says(&mut bench, Some(8)).is_empty());
    }
    assert_eq!(says(&mut bench, Some(8)), BTreeSet::from([PEER]));
    assert!(says(&mut bench, Some(7)).is_empty(), "it has found out");
    assert!(says(&mut bench, None).is_empty(), "it does not say");
}

#[test]
fn silence_counts_from_the_last_message() {
    let mut bench = Bench::live();
    bench.hear(2, 0, Body::Hello);
    bench.pass(1000);
    bench.hear(3, 0, Body::Hello);
    assert_eq!(bench.pass(500), [Action::Flush(Doubt::Silent), Action::Doubtful(true)]);
    assert_eq!(bench.peers.lost().iter().copied().collect::<Vec<_>>(), [2]);
    assert_eq!(bench.pass(1000), [Action::Flush(Doubt::Silent)], "the second one, while in trouble");
}

#[test]
fn the_lease_counts_from_when_the_probe_was_sent() {
    let mut bench = Bench::new();
    assert_eq!(bench.step(Input::Connection(Some(1))), [], "a connection alone proves nothing");
    bench.now += Duration::from_millis(300);
    let first = bench.echo(1, 100);
    assert_eq!(first, [Action::Flush(Doubt::Connected), bench.lease(100), Action::Doubtful(false)]);
    bench.now += Duration::from_millis(300);
    assert_eq!(bench.echo(1, 500), [bench.lease(500)]);
    assert_eq!(bench.echo(1, 300), [], "never back");
}

#[test]
fn a_probe_of_another_connection_proves_nothing() {
    let mut bench = Bench::live();
    bench.now += Duration::from_millis(500);
    assert_eq!(bench.step(Input::Connection(None)), [Action::Doubtful(true)]);
    assert_eq!(bench.echo(1, 400), []);
    assert_eq!(bench.step(Input::Connection(Some(2))), []);
    assert_eq!(bench.echo(1, 400), [], "it waited in a buffer while messages were lost");
    assert_eq!(bench.echo(2, 450), [Action::Flush(Doubt::Connected), bench.lease(450), Action::Doubtful(false)]);
}

#[test]
fn an_unnoticed_new_connection_raises_doubt() {
    let mut bench = Bench::live();
    assert_eq!(bench.step(Input::Connection(Some(2))), [Action::Doubtful(true)]);
}

#[test]
fn a_probe_from_the_future_is_forged() {
    let mut bench = Bench::live();
    assert_eq!(bench.echo(1, 1), []);
    assert_eq!(bench.hear(OWN, 0, Body::Heartbeat(Probe { connection: 1, sent: u64::MAX }, About::default())), []);
}

#[test]
fn peers_are_missed_while_not_connected_and_waited_for_after() {
    let mut bench = Bench::live();
    bench.hear(PEER, 0, Body::Hello);
    bench.step(Input::Connection(None));
    assert_eq!(bench.pass(1500), [Action::Flush(Doubt::Silent)]);
    bench.step(Input::Connection(Some(2)));
    assert_eq!(bench.echo(2, 1500), [Action::Flush(Doubt::Connected), bench.lease(1500)], "still in trouble");
    assert_eq!(bench.hear(PEER, 2, beat()), [GAP, Action::Doubtful(false)]);
}

#[test]
fn own_messages_change_nothing() {
    let mut bench = Bench::live();
    for body in [Body::Hello, keys(), Body::Flush] {
        assert_eq!(bench.hear(OWN, 5, body), []);
    }
    assert_eq!(bench.hear(OWN, 5, Body::Bye), [Action::Ended]);
    assert_eq!(bench.peers.count(), 0);
}

#[test]
fn forged_peers_take_no_memory() {
    let mut bench = Bench::live();
    let mut troubled = 0;
    for incarnation in 10..10 + 2 * MAX_PEERS as u64 {
        troubled += bench.hear(incarnation, 0, Body::Hello).iter().filter(|a| **a == Action::Doubtful(true)).count();
    }
    assert_eq!((bench.peers.count(), troubled), (MAX_PEERS, 1));
    bench.pass(SILENCE.as_millis() as u64);
    let last = 9 + MAX_PEERS as u64;
    assert_eq!(bench.shown_for(UNTIL_GONE, &[last]), []);
    assert_eq!(bench.peers.count(), 1);
    assert_eq!(bench.shown_for(UNTIL_GONE, &[]), [Action::Doubtful(false)]);
    // Nor do forged names of connections.
    let forged: Vec<u64> = (10..10 + 2 * MAX_PEERS as u64).collect();
    bench.shown_for(2, &forged);
    assert_eq!(bench.peers.unheard().len(), MAX_PEERS);
}

proptest! {
    /// The law behind the sequence numbers: whatever is lost, each event of a peer is applied, or followed by a flush no later than
    /// the next heartbeat that arrives.
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

    /// Doubt is reported on changes only, leases never go back, and nothing panics.
    #[test]
    fn any_order_of_inputs_keeps_the_laws(
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
                6 => bench.shown(&[who, number]),
                _ => bench.step(Input::Tick),
            };
            for action in actions {
                match action {
                    Action::Doubtful(now) => {
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
            prop_assert!((bench.peers.lost().is_empty() && bench.peers.unheard().is_empty()) || trouble);
        }
    }
}
