//! Replies on their way to the client: which parts of them are values, and how those that are sealed are opened, here or, if they
//! are large, elsewhere.

use bytes::Bytes;

use crate::command::Verb;
use crate::envelope;
use crate::resp::{Bulk, Version, build, bulk_of, elements};
use crate::upstream::{RESERVED, Reply};

use super::bitfield;
use super::context::Context;

/// What of a reply is a value, which may be sealed. Nothing else is opened, whatever it looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    Nothing,
    /// It is a value, or each of its elements is.
    Values,
    /// Its elements are rows of so many columns (SORT … GET): which of these are values.
    Columns(Box<[bool]>),
    /// No value; but a script made an array of what is a map (LCS … IDX in RESP3).
    Map,
    /// No value; but a script answered with integers in two halves (BITFIELD).
    Halves,
    /// Names of channels. Shortstop's own are left out (PUBSUB CHANNELS).
    Channels,
}

impl Holds {
    /// What the reply to a call holds.
    pub(super) fn of(verb: Verb, name: &str, args: &[&[u8]], version: Version) -> Holds {
        let has = |word: &[u8]| args.iter().skip(3).any(|arg| arg.eq_ignore_ascii_case(word));
        match verb {
            Verb::Get | Verb::MGet | Verb::GetSet | Verb::GetDel | Verb::GetEx => Holds::Values,
            Verb::Set if has(b"get") => Holds::Values,
            Verb::Sort | Verb::SortRo => Holds::sorted(args),
            Verb::Peek if matches!(name, "lcs" | "stralgo") && version == Version::Resp3 && has(b"idx") => Holds::Map,
            Verb::Peek if bitfield::is_wide(name, args) => Holds::Halves,
            _ if name == "pubsub|channels" => Holds::Channels,
            _ => Holds::Nothing,
        }
    }

    /// `SORT key [BY pattern] [LIMIT offset count] [GET pattern …] …`: an element for each GET, in rows; without any, the
    /// elements of the list itself, which are not compressed.
    fn sorted(args: &[&[u8]]) -> Holds {
        let columns: Vec<bool> =
            sort_options(args).filter(SortOption::gets).map(|option| option.gets_a_string()).collect();
        if columns.contains(&true) { Holds::Columns(columns.into()) } else { Holds::Nothing }
    }

    fn open(&self, reply: &[u8], limit: usize) -> Opened {
        match (self, reply.first()) {
            (Holds::Values, Some(b'$')) => open_value(reply, limit),
            (Holds::Values, Some(b'*')) => open_elements(reply, |_| true, limit),
            (Holds::Columns(columns), Some(b'*')) => open_elements(reply, |at| columns[at % columns.len()], limit),
            (Holds::Map, _) if reply.starts_with(b"*4\r\n") => Opened::as_it_is([b"%2", &reply[2..]].concat()),
            (Holds::Halves, _) => Opened::as_it_is(bitfield::put_together(reply)),
            (Holds::Channels, _) => Opened::as_it_is(without_own_channels(reply)),
            _ => Opened::as_it_is(reply.to_vec()),
        }
    }

    fn is_to_be_looked_at(&self, reply: &[u8]) -> bool {
        match self {
            Holds::Nothing => false,
            Holds::Map | Holds::Halves => true,
            Holds::Channels => elements(reply).is_some_and(|mut all| all.any(is_own_channel)),
            Holds::Values | Holds::Columns(_) => {
                let is_sealed = |reply| matches!(bulk_of(reply), Bulk::Value(value) if envelope::is_sealed(value));
                is_sealed(reply) || elements(reply).is_some_and(|mut all| all.any(is_sealed))
            }
        }
    }
}

/// Whether a name in a reply is that of a channel of Shortstop's own.
fn is_own_channel(name: &[u8]) -> bool {
    matches!(bulk_of(name), Bulk::Value(name) if name.starts_with(RESERVED.as_bytes()))
}

/// An array of names of channels without those of Shortstop's own, which no client has subscribed to.
fn without_own_channels(reply: &[u8]) -> Vec<u8> {
    let Some(all) = elements(reply) else { return reply.to_vec() };
    let others: Vec<&[u8]> = all.filter(|name| !is_own_channel(name)).collect();
    let mut out = Vec::with_capacity(reply.len());
    build::header(&mut out, b'*', others.len());
    others.iter().for_each(|name| out.extend_from_slice(name));
    out
}

/// An option of SORT with what belongs to it.
pub(super) struct SortOption<'a, 'b> {
    pub(super) words: &'b [&'a [u8]],
}

impl SortOption<'_, '_> {
    fn is(&self, name: &[u8]) -> bool {
        self.words[0].eq_ignore_ascii_case(name)
    }

    pub(super) fn gets(&self) -> bool {
        self.is(b"get") && self.words.len() > 1
    }

    pub(super) fn gets_a_string(&self) -> bool {
        self.gets() && names_a_string(self.words[1])
    }

    pub(super) fn is_by_a_string(&self) -> bool {
        self.is(b"by") && self.words.len() > 1 && names_a_string(self.words[1])
    }

    pub(super) fn is_alpha(&self) -> bool {
        self.is(b"alpha")
    }

    pub(super) fn stores(&self) -> bool {
        self.is(b"store") && self.words.len() > 1
    }
}

/// The options of `SORT key [BY pattern] [LIMIT offset count] [GET pattern …] [ASC|DESC] [ALPHA] [STORE key]`.
pub(super) fn sort_options<'a, 'b>(args: &'b [&'a [u8]]) -> impl Iterator<Item = SortOption<'a, 'b>> {
    let mut rest = args.get(2..).unwrap_or_default();
    std::iter::from_fn(move || {
        let word = rest.first()?;
        let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
        let takes = if is(b"limit") { 2 } else { usize::from(is(b"by") || is(b"get") || is(b"store")) };
        let (words, after) = rest.split_at(rest.len().min(takes + 1));
        rest = after;
        Some(SortOption { words })
    })
}

/// Whether a pattern of SORT names strings: not the element itself (`#`), no fields of hashes (`key*->field`).
fn names_a_string(pattern: &[u8]) -> bool {
    let Some(star) = memchr::memchr(b'*', pattern) else { return false };
    let field = memchr::memmem::find(&pattern[star + 1..], b"->").map(|at| star + 1 + at + 2);
    field.is_none_or(|field| field == pattern.len())
}

/// Opens a reply that is one value, if it is sealed, and hands it to `then`: at once, or later if it is large.
pub(super) fn open_one(context: &Context, reply: Reply<'_>, then: impl FnOnce(&Context, Reply<'_>) + 'static) {
    let sealed = matches!(bulk_of(reply.bytes()), Bulk::Value(value) if envelope::is_sealed(value));
    if !sealed {
        return then(context, reply);
    }
    open_with(context, reply, open_value, then);
}

/// Opens what a reply holds, and hands the whole to `then`.
pub(super) fn open_all(
    context: &Context,
    reply: Reply<'_>,
    holds: Holds,
    then: impl FnOnce(&Context, Reply<'_>) + 'static,
) {
    if !holds.is_to_be_looked_at(reply.bytes()) {
        return then(context, reply);
    }
    open_with(context, reply, move |reply, limit| holds.open(reply, limit), then);
}

/// Opens what the elements of EXEC's reply hold, and hands the whole to `then`.
pub(super) fn open_each(
    context: &Context,
    reply: Reply<'_>,
    holds: Vec<Holds>,
    then: impl FnOnce(&Context, Reply<'_>) + 'static,
) {
    if !any_is_to_be_looked_at(&holds, reply.bytes()) {
        return then(context, reply);
    }
    let open = move |reply: &[u8], limit: usize| {
        let Some(elements) = elements(reply) else { return Opened::as_it_is(reply.to_vec()) };
        let mut all = Opened::as_it_is(Vec::with_capacity(reply.len() * 2));
        let elements: Vec<&[u8]> = elements.collect();
        build::header(&mut all.reply, b'*', elements.len());
        for (element, holds) in elements.into_iter().zip(holds.iter().chain(std::iter::repeat(&Holds::Nothing))) {
            // The limit is for all together: a reply cannot be made of more than its client may be owed.
            all.add(holds.open(element, limit.saturating_sub(all.reply.len())));
        }
        all
    };
    open_with(context, reply, open, then);
}

/// Whether any element of EXEC's reply is to be looked at.
fn any_is_to_be_looked_at(holds: &[Holds], reply: &[u8]) -> bool {
    holds.iter().any(|holds| *holds != Holds::Nothing)
        && elements(reply).is_some_and(|all| holds.iter().zip(all).any(|(holds, one)| holds.is_to_be_looked_at(one)))
}

/// A reply with its values opened, and what was counted meanwhile.
struct Opened {
    reply: Vec<u8>,
    opened: u64,
    damaged: u64,
}

impl Opened {
    fn as_it_is(reply: Vec<u8>) -> Self {
        Opened { reply, opened: 0, damaged: 0 }
    }

    fn add(&mut self, part: Opened) {
        self.reply.extend_from_slice(&part.reply);
        self.opened += part.opened;
        self.damaged += part.damaged;
    }
}

fn open_with(
    context: &Context,
    reply: Reply<'_>,
    open: impl FnOnce(&[u8], usize) -> Opened + Send + 'static,
    then: impl FnOnce(&Context, Reply<'_>) + 'static,
) {
    let view = context.view();
    let limit = view.policy.limits.max_inflated;
    let declared_by = |reply: &[u8]| match bulk_of(reply) {
        Bulk::Value(value) if envelope::is_sealed(value) => envelope::declared_len(value).unwrap_or(0).min(limit),
        _ => 0,
    };
    let declared = elements(reply.bytes())
        .map_or_else(|| declared_by(reply.bytes()), |all| all.map(declared_by).fold(0, usize::saturating_add));
    let count = |context: &Context, opened: &Opened| {
        context.stats().opened_values.add(opened.opened);
        context.stats().damaged_values.add(opened.damaged);
    };
    if reply.bytes().len().max(declared) <= view.policy.offload_above {
        let opened = open(reply.bytes(), limit);
        count(context, &opened);
        return then(context, Reply::Borrowed(&opened.reply));
    }
    let reply = reply.to_bytes();
    context.elsewhere(
        move || open(&reply, limit),
        move |context, opened| {
            let opened = opened.unwrap_or_else(|| Opened { reply: DAMAGED.to_vec(), opened: 0, damaged: 1 });
            count(context, &opened);
            then(context, Reply::Owned(Bytes::from(opened.reply)));
        },
    );
}

const DAMAGED: &[u8] = b"-ERR shortstop: the value could not be opened\r\n";

fn open_value(reply: &[u8], limit: usize) -> Opened {
    let Bulk::Value(sealed) = bulk_of(reply) else {
        return Opened::as_it_is(reply.to_vec());
    };
    if !envelope::is_sealed(sealed) {
        return Opened::as_it_is(reply.to_vec());
    }
    let mut out = Vec::new();
    match envelope::open(sealed, limit) {
        Ok(value) => {
            out.reserve_exact(value.len() + 32);
            build::bulk(&mut out, &value);
            Opened { reply: out, opened: 1, damaged: 0 }
        }
        Err(error) => {
            build::error(
                &mut out,
                &format!(
                    "ERR shortstop: the compressed value stored at this key cannot be opened: {error}; SET or DEL the key"
                ),
            );
            Opened { reply: out, opened: 0, damaged: 1 }
        }
    }
}

/// An array whose elements are values where `is_value` says so.
fn open_elements(reply: &[u8], is_value: impl Fn(usize) -> bool, limit: usize) -> Opened {
    let Some(elements) = elements(reply) else { return Opened::as_it_is(reply.to_vec()) };
    let elements: Vec<&[u8]> = elements.collect();
    let mut all = Opened::as_it_is(Vec::with_capacity(reply.len() * 2));
    build::header(&mut all.reply, b'*', elements.len());
    for (at, element) in elements.into_iter().enumerate() {
        if is_value(at) {
            all.add(open_value(element, limit.saturating_sub(all.reply.len())));
        } else {
            all.reply.extend_from_slice(element);
        }
    }
    // A client takes an error among values for one of them, and some never look: the whole is refused.
    if all.damaged > 0 {
        all.reply.clear();
        build::error(
            &mut all.reply,
            "ERR shortstop: a compressed value among these keys cannot be opened, or all together are larger than \
             limits.max_inflated; ask for each with GET to see",
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{Holds, Verb, Version, build, envelope};

    fn sort(line: &str) -> Holds {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        Holds::of(Verb::Sort, "sort", &args, Version::Resp2)
    }

    #[test]
    fn of_what_sort_answers_only_strings_that_get_names_are_values() {
        let columns = |columns: &[bool]| Holds::Columns(columns.into());
        assert_eq!(sort("SORT l"), Holds::Nothing);
        assert_eq!(sort("SORT l GET # GET h*->f"), Holds::Nothing);
        assert_eq!(
            sort("SORT l BY get LIMIT get 1 get w* ASC Get # GET h*->f GET w*->"),
            columns(&[true, false, false, true])
        );
        assert_eq!(sort("SORT l GET"), Holds::Nothing);
    }

    #[test]
    fn columns_are_opened_and_others_stay() {
        let bulk = |value: &[u8]| {
            let mut out = Vec::new();
            build::bulk(&mut out, value);
            out
        };
        let value = [&envelope::MARK[..], b"and more"].concat();
        let sealed = bulk(&envelope::seal(&value, None).expect("it begins with the mark"));
        let reply = [b"*4\r\n", &sealed[..], &sealed, &sealed, b"$-1\r\n"].concat();
        let opened = Holds::Columns(Box::new([true, false])).open(&reply, 1 << 20);
        assert_eq!((opened.opened, opened.damaged), (2, 0));
        assert_eq!(opened.reply, [b"*4\r\n", &bulk(&value)[..], &sealed, &bulk(&value), b"$-1\r\n"].concat());
    }
}
