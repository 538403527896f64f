//! PROXY HOTKEYS and PROXY BIGKEYS: what the workers have seen passing, put together. Redis is not asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, UNIX_EPOCH};

use crate::near_cache::{KeyId, Question};
use crate::resp::{Bulk, bulk_of, parse_int};
use crate::traffic::{BigKey, Cost, HotKey, Hottest};

use super::Admin;
use super::answer::{Answer, Asked};
use super::key_state::{KeyState, PATIENCE, Remembered, Ruling, remembered};
use super::view::View;

/// How many keys are shown if nobody says otherwise, and at most.
const USUAL: usize = 10;
const MOST: usize = 1000;

/// The number of keys that was asked for.
fn number(words: &[&[u8]]) -> Result<usize, String> {
    let Some(word) = words.first() else { return Ok(USUAL) };
    let number = parse_int(word).and_then(|number| usize::try_from(number).ok()).filter(|number| *number > 0);
    number.map(|number| number.min(MOST)).ok_or_else(|| "ERR value is out of range, must be positive".to_owned())
}

/// PROXY HOTKEYS.
pub(super) fn hot_keys(admin: &Arc<Admin>, asked: Asked<'_>) -> Answer {
    let admin = Arc::clone(admin);
    match number(asked.words) {
        Ok(number) => Answer::Later(Box::pin(async move { Ok(hottest(&admin, number).await) })),
        Err(text) => Answer::Error(text),
    }
}

/// PROXY BIGKEYS.
pub(super) fn big_keys(admin: &Arc<Admin>, asked: Asked<'_>) -> Answer {
    let admin = Arc::clone(admin);
    match number(asked.words) {
        Ok(number) => Answer::Later(Box::pin(async move { Ok(biggest(&admin, number).await) })),
        Err(text) => Answer::Error(text),
    }
}

/// The keys that are requested most, the hottest first, and the requests for any key.
pub(super) async fn hottest_keys(admin: &Admin, number: usize) -> Hottest {
    let all = admin.mailboxes.ask_all(Some(PATIENCE), |context, answers| {
        // If the receiver is gone, no answer is needed.
        let _ = answers.send(context.hot_keys.borrow_mut().hottest(Instant::now()));
    });
    let (mut requests, mut cost) = (0.0, Cost::default());
    // By the whole id: two keys with one hash are not told apart anywhere here.
    let mut keys: HashMap<KeyId, HotKey> = HashMap::new();
    for worker in all.await {
        requests += worker.requests;
        cost.bytes += worker.cost.bytes;
        cost.upstream += worker.cost.upstream;
        for key in worker.keys {
            keys.entry(key.id)
                .and_modify(|known| {
                    known.requests += key.requests;
                    known.hits += key.hits;
                    known.cost.bytes += key.cost.bytes;
                    known.cost.upstream += key.cost.upstream;
                })
                .or_insert(key);
        }
    }
    let mut keys: Vec<HotKey> = keys.into_values().collect();
    keys.sort_unstable_by(|one, other| other.requests.total_cmp(&one.requests));
    keys.truncate(number);
    Hottest { requests, cost, keys }
}

async fn hottest(admin: &Admin, number: usize) -> View {
    let Hottest { requests, cost, keys } = hottest_keys(admin, number).await;
    let ids = keys.iter().map(|key| Question::get(key.db, 0, &key.key).id()).collect();
    let known = remembered(&admin.mailboxes, ids, None).await;
    let ruling = Ruling::of(admin);
    let show = |(key, known): (&HotKey, Remembered)| {
        let mut fields = shown(&ruling, key.db, &key.key, key.is_whole);
        fields.extend([
            ("requests_per_second", rounded(key.requests)),
            ("hits_per_second", rounded(key.hits)),
            ("share", share(key.requests, requests)),
            ("share_of_bytes", share(key.cost.bytes, cost.bytes)),
            ("share_of_upstream_time", share(key.cost.upstream, cost.upstream)),
        ]);
        fields.extend(place_in_l1(admin, &ruling, (key.db, &key.key), known, key.is_whole));
        View::Map(fields)
    };
    let shown = keys.iter().zip(known).map(show).collect();
    View::Map(vec![("requests_per_second", rounded(requests)), ("keys", View::List(shown))])
}

async fn biggest(admin: &Admin, number: usize) -> View {
    let all = admin.mailboxes.ask_all(Some(PATIENCE), |context, answers| {
        // If the receiver is gone, no answer is needed.
        let _ = answers.send(context.big_keys.borrow().all().cloned().collect::<Vec<_>>());
    });
    let mut keys: HashMap<KeyId, BigKey> = HashMap::new();
    for key in all.await.into_iter().flatten() {
        // What passed last counts.
        if keys.get(&key.id).is_none_or(|known| known.at <= key.at) {
            keys.insert(key.id, key);
        }
    }
    let mut keys: Vec<BigKey> = keys.into_values().collect();
    keys.sort_unstable_by_key(|key| std::cmp::Reverse(key.bytes));
    keys.truncate(number);
    let named = keys.iter().filter_map(|key| key.named.as_ref());
    let ids = named.map(|(db, key)| Question::get(*db, 0, key).id()).collect();
    let known = remembered(&admin.mailboxes, ids, None).await;
    let ruling = Ruling::of(admin);
    let show = |(big, known): (&BigKey, Remembered)| {
        let (db, key) = big.named.as_ref()?;
        let mut fields = shown(&ruling, *db, key, true);
        fields.extend([
            ("bytes", View::count(big.bytes)),
            ("seen", View::text(if big.written { "write" } else { "read" })),
            ("seen_at", View::count(big.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())),
        ]);
        fields.extend(place_in_l1(admin, &ruling, (*db, key), known, true));
        Some(View::Map(fields))
    };
    View::Map(vec![("keys", View::List(keys.iter().zip(known).filter_map(show).collect()))])
}

/// The key and its database.
fn shown(ruling: &Ruling, db: u32, key: &[u8], is_whole: bool) -> Vec<(&'static str, View)> {
    vec![("key", ruling.shown(key)), ("is_whole", View::Bool(is_whole)), ("database", View::count(db))]
}

/// The rule of a key, its size, and whether L1 answers any user. Only the beginning of a long key may be known, and then nothing else.
fn place_in_l1(
    admin: &Admin,
    ruling: &Ruling,
    (db, key): (u32, &[u8]),
    known: Remembered,
    is_whole: bool,
) -> [(&'static str, View); 4] {
    if !is_whole {
        return [("rule", View::Nil), ("size", View::Nil), ("in_l1", View::Nil), ("why_not", View::Nil)];
    }
    let state = KeyState::new(admin, ruling, (db, key), None, known);
    let why_not = state.why_not().map(|(name, _)| name);
    let size = match state.entry().map(|seen| (bulk_of(seen.entry.reply()), seen.entry.reply().len())) {
        Some((Bulk::Value(value), _)) => Some(value.len()),
        Some((Bulk::Null, _)) => Some(0),
        Some((_, bytes)) => Some(bytes),
        None => known.unkept.and_then(|read| read.bytes),
    };
    [
        ("rule", ruling.rule(key)),
        ("size", View::maybe(size, View::count)),
        ("in_l1", View::Bool(why_not.is_none())),
        ("why_not", View::maybe(why_not, View::text)),
    ]
}

/// A part of a whole. Nothing is no part of nothing.
fn share(part: f64, whole: f64) -> View {
    rounded(if whole > 0.0 { part / whole } else { 0.0 })
}

/// With four digits behind the point: what more of them say is noise.
fn rounded(number: f64) -> View {
    View::Float((number * 1e4).round() / 1e4)
}
