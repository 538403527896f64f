//! Turns stored values back to plain, for commands that look into strings inside Redis.
//!
//! Uses Shortstop's own login, because the client's user may have no right to write. Each value is replaced in one step with the
//! check that nobody has changed it (WATCH), and keeps its TTL. L1 and the other instances hold the plain value in any case, so they
//! are told nothing.
//!
//! The names of these requests have an unusual case, so that MONITOR does not show them (`upstream::own`).
//!
//! A value that looks like a compressed one itself is never stored plain: it could not be told from an envelope. For a command that looks
//! into such a value, [`plain_then_compressed`] makes it plain and puts it back into an envelope within one transaction.

use std::rc::Rc;
use std::time::Instant;

use crate::bus::{self, Event};
use crate::codec;
use crate::errors;
use crate::exchange::pending::Link;
use crate::exchange::plain::Strings;
use crate::near_cache::KeyId;
use crate::resp::{Bulk, Chunks, Version, build, bulk_of, elements, split_first};
use crate::upstream::Lost;
use crate::worker_state::ask::{Request, ask};
use crate::worker_state::context::Context;

/// Number of keys that are looked at with one write.
const AT_ONCE: usize = 128;

/// A value could not be turned to plain.
pub(crate) enum Unable {
    /// Redis is away.
    Lost(Lost),
    /// The reply for the client: Redis's error, or one of Shortstop's own.
    Refused(Vec<u8>),
}

impl From<Lost> for Unable {
    fn from(lost: Lost) -> Self {
        Unable::Lost(lost)
    }
}

/// What was done with strings.
#[derive(Default)]
pub(crate) struct Made {
    /// One of them was compressed, and is plain now.
    pub(crate) converted: bool,
    /// Those that cannot be stored plain: their values look like compressed ones.
    pub(crate) nested: Vec<Nested>,
}

impl Made {
    /// Adds a string, once.
    pub(crate) fn add(&mut self, nested: Nested) {
        if self.nested.iter().all(|known| known.key != nested.key) {
            self.nested.push(nested);
        }
    }
}

/// A string that is stored compressed because its value looks like a compressed one.
pub(crate) struct Nested {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// Turns those of the strings to plain that are compressed.
///
/// # Errors
/// See [`Unable`]. Some of the strings may be plain then.
pub(crate) async fn make_plain(context: &Rc<Context>, db: u32, strings: &Strings) -> Result<Made, Unable> {
    let _turn = context.conversions.acquire().await;
    let link = context.own_connection(db);
    let made = async {
        let keys = keys_on(context, &link, strings).await?;
        make_all_plain(context, &link, &keys).await
    };
    let made = made.await;
    context.end_own_connection(link, made.is_ok());
    made
}

/// Appends the requests of a transaction between MULTI and EXEC: first those that store the values plain, then what `write` writes, and
/// the one that puts into envelopes again what looks like one. Returns how many requests are before and behind.
pub(crate) fn plain_then_compressed(
    nested: &[Nested],
    wire: &mut Chunks,
    write: impl FnOnce(&mut Chunks),
) -> (usize, usize) {
    for Nested { key, value } in nested {
        wire.push_with(|out| build::request(out, [&b"SET"[..], key, value, b"KEEPTTL"].into_iter()));
    }
    write(wire);
    if nested.is_empty() {
        return (0, 0);
    }
    let script =
        format!("{} {} for i = 1, #KEYS do seal(KEYS[i]) end", codec::lua_is_compressed(), codec::lua_compress());
    let count = nested.len().to_string();
    let head = [&b"EVAL"[..], script.as_bytes(), count.as_bytes()];
    let words: Vec<&[u8]> = head.into_iter().chain(nested.iter().map(|nested| &nested.key[..])).collect();
    wire.push_with(|out| build::request(out, words.into_iter()));
    (nested.len(), 1)
}

/// The keys of the strings.
///
/// # Errors
/// See [`Unable`].
pub(crate) async fn keys_of(context: &Rc<Context>, db: u32, strings: &Strings) -> Result<Vec<Vec<u8>>, Unable> {
    if let Strings::Of(keys) = strings {
        return Ok(keys.clone());
    }
    let link = context.own_connection(db);
    let keys = keys_on(context, &link, strings).await;
    context.end_own_connection(link, keys.is_ok());
    keys
}

async fn keys_on(context: &Context, link: &Link, strings: &Strings) -> Result<Vec<Vec<u8>>, Unable> {
    let (list, patterns) = match strings {
        Strings::Of(keys) => return Ok(keys.clone()),
        Strings::Sorted(list, patterns) => (list, patterns),
    };
    let request = [&b"sORT"[..], list, b"BY", b"nosort", b"GET", b"#"].map(<[u8]>::to_vec).to_vec();
    let reply = ask(context, link, &[request], true).await?;
    if reply.starts_with(b"-NOPERM") {
        return Err(refused(context, &reply));
    }
    // Any other error is the client's to see, when its SORT runs.
    let all: Vec<&[u8]> = elements(&reply).map(Iterator::collect).unwrap_or_default();
    let all: Vec<&[u8]> = all.into_iter().filter_map(value_of).collect();
    Ok(patterns.iter().flat_map(|pattern| all.iter().map(|element| substituted(pattern, element))).collect())
}

/// The key that a pattern of SORT names for an element.
fn substituted(pattern: &[u8], element: &[u8]) -> Vec<u8> {
    let star = memchr::memchr(b'*', pattern).unwrap_or(pattern.len());
    [&pattern[..star], element, pattern.get(star + 1..).unwrap_or_default()].concat()
}

async fn make_all_plain(context: &Context, link: &Link, keys: &[Vec<u8>]) -> Result<Made, Unable> {
    let mut made = Made::default();
    for keys in keys.chunks(AT_ONCE) {
        let looks: Vec<Request> = keys.iter().map(|key| look_at(key)).collect();
        let replies = ask(context, link, &looks, true).await?;
        let mut rest = &replies[..];
        for key in keys {
            let (head, others) = split_first(rest);
            rest = others;
            if looked(context, head)?.is_some_and(codec::is_compressed) {
                match make_one_plain(context, link, key).await? {
                    None => made.converted = true,
                    Some(value) => made.add(Nested { key: key.clone(), value }),
                }
            }
        }
    }
    Ok(made)
}

/// Returns the value if it cannot be stored plain.
async fn make_one_plain(context: &Context, link: &Link, key: &[u8]) -> Result<Option<Vec<u8>>, Unable> {
    loop {
        let look: [Request; 2] = [vec![b"wATCH".to_vec(), key.to_vec()], vec![b"gET".to_vec(), key.to_vec()]];
        let replies = ask(context, link, &look, false).await?;
        let (watched, stored) = split_first(&replies);
        if watched != b"+OK\r\n" {
            return Err(refused(context, watched));
        }
        let unwatch = [vec![b"uNWATCH".to_vec()]];
        let Some(stored) = looked(context, stored)?.filter(|stored| codec::is_compressed(stored)) else {
            // Somebody else has been quicker.
            ask(context, link, &unwatch, false).await?;
            return Ok(None);
        };
        let value = decoded(context, stored.to_vec()).await?;
        if codec::is_compressed(&value) {
            ask(context, link, &unwatch, false).await?;
            return Ok(Some(value));
        }
        // Alone: behind a MULTI that Redis refuses, SET would be executed whatever has changed.
        let begun = ask(context, link, &[vec![b"mULTI".to_vec()]], false).await?;
        if begun != b"+OK\r\n" {
            return Err(refused(context, &begun));
        }
        let set = vec![b"sET".to_vec(), key.to_vec(), value, b"KEEPTTL".to_vec()];
        let replies = ask(context, link, &[set, vec![b"eXEC".to_vec()]], false).await?;
        let (queued, executed) = split_first(&replies);
        if queued.starts_with(b"-") {
            return Err(refused(context, queued));
        }
        match elements(executed).and_then(|mut all| all.next()) {
            Some(b"+OK\r\n") => {
                context.stats().converted_values.add(1);
                note_plain(context, link.db(), key);
                return Ok(None);
            }
            Some(error) => return Err(refused(context, error)),
            // The value has changed meanwhile.
            None => continue,
        }
    }
}

/// Neither this Shortstop nor its peers compress the string again soon.
fn note_plain(context: &Context, db: u32, key: &[u8]) {
    let id = KeyId::new(db, key);
    context.shared.plain_keys.note(id, Instant::now());
    if context.shared.outbox.is_some() {
        context.queue_event(Event::Plain { hash: id.hash(db), key: bus::Key::new(db, key) });
    }
}

/// The string in a reply. `None` if there is none, or something else is stored there.
fn looked<'a>(context: &Context, reply: &'a [u8]) -> Result<Option<&'a [u8]>, Unable> {
    match reply.first() {
        Some(b'-') if !reply.starts_with(b"-WRONGTYPE") => Err(refused(context, reply)),
        _ => Ok(value_of(reply)),
    }
}

/// Redis has refused a request of Shortstop's own user. The client gets Redis's error, unless it is about that user's rights.
fn refused(context: &Context, error: &[u8]) -> Unable {
    match error.starts_with(b"-NOPERM") {
        true => Unable::Refused(context.own_error(&errors::no_right_to_convert(error))),
        false => Unable::Refused(error.to_vec()),
    }
}

/// A request for the beginning of a string.
fn look_at(key: &[u8]) -> Request {
    let last = (codec::LONGEST_MARK - 1).to_string();
    vec![b"gETRANGE".to_vec(), key.to_vec(), b"0".to_vec(), last.into()]
}

/// The plain value of an envelope.
async fn decoded(context: &Context, stored: Vec<u8>) -> Result<Vec<u8>, Unable> {
    let view = context.view();
    let most = view.policy.limits.max_inflated;
    let declared = codec::declared_len(&stored).unwrap_or(0).min(most);
    let _memory = context.memory_for(stored.len().saturating_add(declared)).await;
    let decoded = if stored.len().max(declared) <= view.policy.offload_above {
        codec::decode(&stored, most)
    } else {
        let decoding = context.shared.control.spawn_blocking(move || codec::decode(&stored, most));
        decoding.await.map_err(|_| Unable::Refused(context.own_error(&errors::NOT_DECOMPRESSED)))?
    };
    decoded.map_err(|error| {
        context.stats().damaged_values.add(1);
        Unable::Refused(context.own_error(&errors::damaged(error)))
    })
}

fn value_of(reply: &[u8]) -> Option<&[u8]> {
    match bulk_of(reply) {
        Bulk::Value(value) => Some(value),
        _ => None,
    }
}

impl Context {
    /// A connection with Shortstop's own login.
    fn own_connection(self: &Rc<Self>, db: u32) -> Link {
        let identity = self.own_identity();
        identity.take_spare(db, Version::Resp2).unwrap_or_else(|| self.private_link(&identity, db, Version::Resp2))
    }

    /// Takes it back. `clean`: nothing is watched on it.
    fn end_own_connection(&self, link: Link, clean: bool) {
        let one_too_many = if clean && !link.is_closed() { self.own_identity().keep_spare(link) } else { Some(link) };
        one_too_many.iter().for_each(Link::retire);
    }
}

#[cfg(test)]
mod tests {
    use super::substituted;

    #[test]
    fn the_first_star_of_a_pattern_stands_for_the_element() {
        for (pattern, key) in [(&b"w_*"[..], &b"w_7"[..]), (b"a*b*", b"a7b*"), (b"*", b"7")] {
            assert_eq!(substituted(pattern, b"7"), key);
        }
    }
}
