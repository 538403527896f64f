//! PROXY EXPLAIN: the rule of a key, whether L1 answers a GET of it or why not, and what the next GET and SET would do.
//!
//! It only looks: nothing counts as a request or as a use, and Redis is not asked.

use std::sync::Arc;
use std::time::{Instant, UNIX_EPOCH};

use crate::coherence::{Departure, Seen, State};
use crate::config::units::show_size;
use crate::metrics::outcome::{LeftL1, NotKept, NotServed, Outcome};
use crate::near_cache::Question;
use crate::resp::{Bulk, bulk_of};
use crate::rules::CompressRule;
use crate::worker_state::windows::Asker;

use super::Admin;
use super::answer::{Answer, Asked};
use super::key_state::{KeyState, Ruling, remembered};
use super::rules::{cache, compress, millis};
use super::view::View;

/// PROXY EXPLAIN.
pub(super) fn explain(admin: &Arc<Admin>, asked: Asked<'_>) -> Answer {
    let (admin, key, asker) = (Arc::clone(admin), asked.words[0].to_vec(), asked.asker);
    Answer::Later(Box::pin(async move { Ok(explained(&admin, &key, asker).await) }))
}

async fn explained(admin: &Admin, key: &[u8], asker: Asker) -> View {
    let id = Question::get(asker.db, asker.user, key).id();
    let known = remembered(&admin.mailboxes, vec![id], Some(asker.user)).await;
    let ruling = Ruling::of(admin);
    let state =
        KeyState::new(admin, &ruling, (asker.db, key), Some(asker.user), known.first().copied().unwrap_or_default());
    let (mode, mode_reason) = admin.coherence.mode_and_reason(Instant::now());
    let why_not = state.why_not();
    let seen = state.entry();
    let value = seen.map(|seen| bulk_of(seen.entry.reply()));
    let size = match value {
        Some(Bulk::Value(value)) => Some(value.len()),
        Some(_) => None,
        None => state.remembered.unkept.and_then(|read| read.bytes),
    };
    let compressed = seen.and_then(|seen| seen.entry.compressed());
    let stored = seen.and(compressed.map(|(_, size)| size).or(size));
    let codec = stored.map(|_| compressed.map_or("none", |(codec, _)| codec.as_str()));
    let others = state.look.entries.iter().filter(|seen| seen.entry.user() != asker.user).count();
    View::Map(vec![
        ("key", ruling.shown(key)),
        ("database", View::count(asker.db)),
        ("rule", ruling.rule(key)),
        ("cache", View::maybe(state.rule.cache, cache)),
        ("watch", View::Bool(state.rule.watch)),
        ("compress", View::maybe(state.rule.compress, compress)),
        ("mode", View::text(mode.as_str())),
        ("mode_reason", View::text(mode_reason.name())),
        ("in_l1", View::Bool(why_not.is_none())),
        ("why_not", View::maybe(why_not, |(name, _)| View::text(name))),
        ("because", View::maybe(why_not, |(_, text)| View::text(text))),
        ("requests", View::count(state.remembered.times)),
        ("age_ms", View::maybe(seen, |seen| millis(seen.age))),
        ("left_ms", View::maybe(seen, |seen| millis(seen.left))),
        ("size_plain", View::maybe(size, View::count)),
        ("size_stored", View::maybe(stored, View::count)),
        ("codec", View::maybe(codec, View::text)),
        ("replies", View::List(state.entries().filter(|seen| seen.state == State::Good).map(reply).collect())),
        ("replies_of_other_users", View::count(others)),
        ("last_departure", View::maybe(state.look.departure, departure)),
        ("next_get", View::text(next_get(&state, why_not.map(|(name, _)| name)))),
        ("next_set", View::text(next_set(&state, admin.config.get().nats.is_some()))),
    ])
}

/// A reply that L1 has for the key.
fn reply(seen: &Seen) -> View {
    // The request is `*3\r\n$4\r\nHGET\r\n…`: the third line is the command.
    let name = |request: &[u8]| {
        let line = request.split(|byte| *byte == b'\n').nth(2).unwrap_or_default();
        String::from_utf8_lossy(line).trim().to_ascii_uppercase()
    };
    View::Map(vec![
        ("command", View::text(seen.entry.asked().map_or_else(|| "GET".to_owned(), name))),
        ("age_ms", millis(seen.age)),
        ("left_ms", millis(seen.left)),
        ("bytes", View::count(seen.entry.reply().len())),
    ])
}

fn departure(gone: Departure) -> View {
    let over = (gone.why == LeftL1::Invalidated).then_some("nats");
    View::Map(vec![
        ("at", View::count(gone.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())),
        ("why", View::text(gone.why.name())),
        ("by", View::maybe(gone.by, |incarnation| View::text(format!("{incarnation:016x}")))),
        ("over", View::maybe(over, View::text)),
    ])
}

fn next_get(state: &KeyState<'_>, why_not: Option<&str>) -> String {
    let admit_after = state.rule.cache.map_or(0, |cache| cache.admit_after);
    let is = |why: NotServed| why_not == Some(why.name());
    if why_not.is_none() {
        "It is answered from L1.".to_owned()
    } else if is(NotServed::NotServing) || is(NotServed::Rule) || is(NotServed::Scripts) {
        "It goes to Redis, and the reply is not kept.".to_owned()
    } else if is(NotServed::WriteInFlight) || is(NotServed::Quarantined) {
        "It goes to Redis, and the reply is not kept until the write has ended.".to_owned()
    } else if is(NotServed::FetchInFlight) {
        "It waits for the reply to the read that is in flight, or goes to Redis.".to_owned()
    } else if why_not == Some(NotKept::TtlUnknown.name()) {
        "It goes to Redis, and the reply is not kept, because the user may not use PTTL.".to_owned()
    } else if state.admits_next(1) {
        "It goes to Redis with PTTL, and the reply is kept if it fits and nothing writes the key meanwhile.".to_owned()
    } else {
        let request = state.remembered.times + 1;
        format!("It goes to Redis as request {request}; the reply is kept from request {admit_after} on.")
    }
}

fn next_set(state: &KeyState<'_>, has_nats: bool) -> String {
    let replies = state.look.entries.len();
    let dropped = match replies {
        0 => "It drops nothing from L1".to_owned(),
        1 => "It drops 1 reply from L1".to_owned(),
        _ => format!("It drops {replies} replies from L1"),
    };
    let told = match (has_nats, state.rule.watch) {
        (true, true) => "the other instances are told over NATS",
        (true, false) => "the other instances are not told (watch: false)",
        (false, _) => "no other instance is told (no NATS)",
    };
    let stored = match state.rule.compress {
        Some(CompressRule { codec, level, min_size, min_saving }) => {
            let least = show_size(min_size);
            format!("a value of {least} or more is compressed with {codec} {level} if that saves {min_saving}%")
        }
        None => "the value is not compressed".to_owned(),
    };
    format!("{dropped}; {told}; {stored}.")
}
