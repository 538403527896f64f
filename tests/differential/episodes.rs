//! Puts calls together as clients do: pipelines, transactions, watched keys, subscriptions, a pop that waits.
//!
//! An episode leaves no transaction and no subscription behind.

use super::calls::Maker;
use super::side::{Call, Due, Step};

/// Connections of the one client that all this is.
const CONNECTIONS: usize = 3;

/// One episode.
pub fn episode(maker: &mut Maker, resp3: bool) -> Vec<Step> {
    match maker.values.chance.below(100) {
        0..46 => pipeline(maker),
        46..66 => reads(maker),
        66..80 => transaction(maker),
        80..86 => watched(maker),
        86..92 => subscription(maker, resp3),
        92..97 => waiting_pop(maker),
        _ => reset(maker, resp3),
    }
}

fn line(maker: &mut Maker, line: &str) -> Call {
    Call::new(maker.values.template(line))
}

fn two(maker: &mut Maker) -> (usize, usize) {
    let one = maker.values.chance.below(CONNECTIONS);
    (one, (one + 1 + maker.values.chance.below(CONNECTIONS - 1)) % CONNECTIONS)
}

/// One to fifty calls in one write; shallow ones are commoner.
fn pipeline(maker: &mut Maker) -> Vec<Step> {
    let most = *maker.values.chance.pick(&[1, 4, 16, 50]);
    let depth = maker.values.chance.between(1, most);
    let calls = (0..depth).map(|_| Call::new(maker.call())).collect();
    vec![Step::new(maker.values.chance.below(CONNECTIONS), calls)]
}

/// Reads one after the other, so that L1 may answer, with a write here and there that must be seen. In any database.
fn reads(maker: &mut Maker) -> Vec<Step> {
    let group = *maker.values.chance.pick(&["string", "string", "bitmap", "hyperloglog"]);
    let keys = [maker.values.key(group), maker.values.key(group)];
    let select = |db: &str| {
        (0..CONNECTIONS).map(|connection| Step::new(connection, vec![Call::of(&format!("SELECT {db}"))])).collect()
    };
    let db = *maker.values.chance.pick(&["0", "0", "1", "2"]);
    let mut steps: Vec<Step> = select(db);
    for _ in 0..maker.values.chance.between(8, 20) {
        let key = maker.values.chance.pick(&keys).clone();
        let call = match maker.values.chance.below(20) {
            0..12 => vec![b"GET".to_vec(), key],
            12..15 => vec![b"MGET".to_vec(), keys[0].clone(), keys[1].clone()],
            15..17 => {
                let value = maker.values.value(false);
                vec![b"SET".to_vec(), key, value]
            }
            17 => maker.queued_call(),
            _ => maker.call_about(group, &key),
        };
        steps.push(Step::new(maker.values.chance.below(CONNECTIONS), vec![Call::new(call)]));
    }
    steps.extend(select("0"));
    steps
}

/// In one write, or in several.
fn transaction(maker: &mut Maker) -> Vec<Step> {
    let connection = maker.values.chance.below(CONNECTIONS);
    let mut calls = Vec::new();
    if maker.values.chance.percent(30) {
        calls.push(line(maker, "WATCH $key"));
    }
    calls.push(Call::of("MULTI"));
    for _ in 0..maker.values.chance.below(10) {
        let call = match maker.values.chance.below(40) {
            0 => Call::of("MULTI"),
            1 => line(maker, "WATCH $key"),
            2 => Call::of("UNWATCH"),
            3 => Call::of("PING"),
            _ => Call::new(maker.queued_call()),
        };
        calls.push(call);
    }
    calls.push(Call::of(if maker.values.chance.percent(90) { "EXEC" } else { "DISCARD" }));
    if maker.values.chance.percent(20) {
        calls.push(Call::new(maker.queued_call()));
    }
    cut(maker, connection, calls)
}

/// Another connection may write between WATCH and EXEC.
fn watched(maker: &mut Maker) -> Vec<Step> {
    let (one, other) = two(maker);
    let key = maker.values.key("string");
    let watch = Call::new(vec![b"WATCH".to_vec(), key.clone()]);
    let get = || Call::new(vec![b"GET".to_vec(), key.clone()]);
    let value = maker.values.value(false);
    let set = Call::new(vec![b"SET".to_vec(), key.clone(), value]);
    let between = if maker.values.chance.percent(60) { set.clone() } else { Call::new(maker.queued_call()) };
    let mut transaction = vec![Call::of("MULTI"), get(), set];
    transaction.push(Call::new(maker.queued_call()));
    transaction.push(Call::of("EXEC"));
    transaction.push(get());
    let mut steps = vec![Step::new(one, vec![get(), watch, get()]), Step::new(other, vec![get(), between, get()])];
    steps.extend(cut(maker, one, transaction));
    steps
}

fn cut(maker: &mut Maker, connection: usize, calls: Vec<Call>) -> Vec<Step> {
    if maker.values.chance.percent(50) {
        return vec![Step::new(connection, calls)];
    }
    calls.into_iter().map(|call| Step::new(connection, vec![call])).collect()
}

/// Channels and patterns, messages, commands between them, and the way back.
fn subscription(maker: &mut Maker, resp3: bool) -> Vec<Step> {
    let (listener, speaker) = two(maker);
    let call = |line: &str, replies| {
        let Call { args, .. } = Call::of(line);
        Call::with(args, Due::Replies(replies))
    };
    let heard = |replies| Step::new(listener, vec![Call::silence(Due::Replies(replies))]);
    let mut steps = vec![Step::new(
        listener,
        vec![call("SUBSCRIBE ch1 ch2", 2), call("PSUBSCRIBE ch* x?", 2), call("SSUBSCRIBE sh1", 1), call("PING", 1)],
    )];
    for _ in 0..maker.values.chance.between(1, 4) {
        // Two of them match: the channel and the pattern.
        let published = line(maker, "PUBLISH ch1 $v");
        let sharded = line(maker, "SPUBLISH sh1 $v");
        steps.push(Step::new(speaker, vec![published, sharded, Call::of("PUBLISH nobody x")]));
        steps.push(heard(3));
    }
    let beside = if resp3 { Call::new(maker.hot_call()) } else { Call::of("GET s1") };
    steps.push(Step::new(listener, vec![beside, call("PING hello", 1)]));
    let mut calls = vec![call("UNSUBSCRIBE ch1 nothing", 2)];
    if maker.values.chance.percent(50) {
        calls.extend([call("UNSUBSCRIBE", 1), call("PUNSUBSCRIBE", 2), call("SUNSUBSCRIBE", 1)]);
    } else {
        calls.extend([call("SUNSUBSCRIBE sh1", 1), call("PUNSUBSCRIBE x? ch*", 2), call("UNSUBSCRIBE ch2 ch2", 2)]);
    }
    calls.push(Call::new(maker.hot_call()));
    calls.push(call("UNSUBSCRIBE", 1));
    steps.push(Step::new(listener, calls));
    steps
}

/// A pop of what is not there yet; what stands behind it in the pipeline waits too.
fn waiting_pop(maker: &mut Maker) -> Vec<Step> {
    let (waiter, pusher) = two(maker);
    let (pop, push) = *maker.values.chance.pick(&[
        ("BLPOP q1 q2 9", "RPUSH q2 $v"),
        ("BRPOP q1 9", "LPUSH q1 $v"),
        ("BLMOVE q1 q3 LEFT RIGHT 9", "RPUSH q1 $v"),
        ("BRPOPLPUSH q1 q3 9", "RPUSH q1 $v"),
        ("BLMPOP 9 2 q1 q2 LEFT", "RPUSH q1 $v"),
        ("BZPOPMIN q1 9", "ZADD q1 1 $v"),
        ("BZPOPMAX q2 q1 9", "ZADD q1 1.5 $v"),
        ("BZMPOP 9 1 q1 MAX", "ZADD q1 1 $v"),
        ("XREAD BLOCK 9000 STREAMS q1 $", "XADD q1 1-1 f $v"),
    ]);
    let silent = |line: &str| {
        let Call { args, bytes, .. } = Call::of(line);
        Call { args, bytes, due: Due::Replies(0) }
    };
    vec![
        Step::new(pusher, vec![Call::of("SELECT 0"), Call::of("DEL q1 q2 q3")]),
        Step::new(waiter, vec![Call::of("SELECT 0"), silent(pop), silent("GET s1"), silent("INCR n1")]).until_blocked(),
        Step::new(pusher, vec![line(maker, push)]),
        Step::new(waiter, vec![Call::silence(Due::Replies(3))]),
        Step::new(pusher, vec![Call::of("DEL q1 q2 q3")]),
    ]
}

/// RESET ends RESP3, too.
fn reset(maker: &mut Maker, resp3: bool) -> Vec<Step> {
    let connection = maker.values.chance.below(CONNECTIONS);
    let mut calls = vec![line(maker, "SELECT $db"), line(maker, "WATCH $key"), Call::of("RESET")];
    calls.extend(resp3.then(|| Call::of("HELLO 3")));
    calls.push(Call::new(maker.queued_call()));
    vec![Step::new(connection, calls)]
}
