//! Replies on their way to the client: which parts of them are values, and how those that are compressed are opened, here or, if they
//! are large, elsewhere.

use bytes::Bytes;

use crate::codec;
use crate::command::Verb;
use crate::errors::{self, Side};
use crate::resp::{Bulk, Version, build, bulk_of, elements};
use crate::upstream::{RESERVED, Reply};

use crate::proxy::bitfield;
use crate::worker_state::context::Context;

/// What of a reply is a value, which may be compressed. Nothing else is opened, whatever it looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReplyShape {
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

impl ReplyShape {
    /// What the reply to a call holds.
    pub(crate) fn of(verb: Verb, name: &str, args: &[&[u8]], version: Version) -> ReplyShape {
        let has = |word: &[u8]| args.iter().skip(3).any(|arg| arg.eq_ignore_ascii_case(word));
        match verb {
            Verb::Get | Verb::MGet | Verb::GetSet | Verb::GetDel | Verb::GetEx => ReplyShape::Values,
            Verb::Set if has(b"get") => ReplyShape::Values,
            Verb::Sort | Verb::SortRo => ReplyShape::sorted(args),
            Verb::StringOp if matches!(name, "lcs" | "stralgo") && version == Version::Resp3 && has(b"idx") => {
                ReplyShape::Map
            }
            Verb::StringOp if bitfield::is_wide(name, args) => ReplyShape::Halves,
            _ if name == "pubsub|channels" => ReplyShape::Channels,
            _ => ReplyShape::Nothing,
        }
    }

    /// `SORT key [BY pattern] [LIMIT offset count] [GET pattern …] …`: an element for each GET, in rows; without any, the
    /// elements of the list itself, which are not compressed.
    fn sorted(args: &[&[u8]]) -> ReplyShape {
        let columns: Vec<bool> =
            sort_options(args).filter(SortOption::gets).map(|option| option.gets_a_string()).collect();
        if columns.contains(&true) { ReplyShape::Columns(columns.into()) } else { ReplyShape::Nothing }
    }

    fn decode(&self, reply: &[u8], limit: usize) -> Decoded {
        match (self, reply.first()) {
            (ReplyShape::Values, Some(b'$')) => decode_value(reply, limit),
            (ReplyShape::Values, Some(b'*')) => decode_elements(reply, |_| true, limit),
            (ReplyShape::Columns(columns), Some(b'*')) => {
                decode_elements(reply, |at| columns[at % columns.len()], limit)
            }
            (ReplyShape::Map, _) if reply.starts_with(b"*4\r\n") => Decoded::as_it_is([b"%2", &reply[2..]].concat()),
            (ReplyShape::Halves, _) => Decoded::as_it_is(bitfield::put_together(reply)),
            (ReplyShape::Channels, _) => Decoded::as_it_is(without_own_channels(reply)),
            _ => Decoded::as_it_is(reply.to_vec()),
        }
    }

    fn is_to_be_looked_at(&self, reply: &[u8]) -> bool {
        match self {
            ReplyShape::Nothing => false,
            ReplyShape::Map | ReplyShape::Halves => true,
            ReplyShape::Channels => elements(reply).is_some_and(|mut all| all.any(is_own_channel)),
            ReplyShape::Values | ReplyShape::Columns(_) => {
                let is_compressed = |reply| matches!(bulk_of(reply), Bulk::Value(value) if codec::is_compressed(value));
                is_compressed(reply) || elements(reply).is_some_and(|mut all| all.any(is_compressed))
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
pub(crate) struct SortOption<'a, 'b> {
    pub(crate) words: &'b [&'a [u8]],
}

impl SortOption<'_, '_> {
    fn is(&self, name: &[u8]) -> bool {
        self.words[0].eq_ignore_ascii_case(name)
    }

    pub(crate) fn gets(&self) -> bool {
        self.is(b"get") && self.words.len() > 1
    }

    pub(crate) fn gets_a_string(&self) -> bool {
        self.gets() && names_a_string(self.words[1])
    }

    pub(crate) fn is_by_a_string(&self) -> bool {
        self.is(b"by") && self.words.len() > 1 && names_a_string(self.words[1])
    }

    pub(crate) fn is_alpha(&self) -> bool {
        self.is(b"alpha")
    }

    pub(crate) fn stores(&self) -> bool {
        self.is(b"store") && self.words.len() > 1
    }
}

/// The options of `SORT key [BY pattern] [LIMIT offset count] [GET pattern …] [ASC|DESC] [ALPHA] [STORE key]`.
pub(crate) fn sort_options<'a, 'b>(args: &'b [&'a [u8]]) -> impl Iterator<Item = SortOption<'a, 'b>> {
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

/// Opens a reply that is one value, if it is compressed, and hands it to `then`: at once, or later if it is large.
pub(crate) fn decode_one(context: &Context, reply: Reply<'_>, on_reply: impl FnOnce(&Context, Reply<'_>) + 'static) {
    let compressed = matches!(bulk_of(reply.bytes()), Bulk::Value(value) if codec::is_compressed(value));
    if !compressed {
        return on_reply(context, reply);
    }
    decode_with(context, reply, decode_value, on_reply);
}

/// Opens what a reply holds, and hands the whole to `then`.
pub(crate) fn decode_all(
    context: &Context,
    reply: Reply<'_>,
    shape: ReplyShape,
    on_reply: impl FnOnce(&Context, Reply<'_>) + 'static,
) {
    if !shape.is_to_be_looked_at(reply.bytes()) {
        return on_reply(context, reply);
    }
    decode_with(context, reply, move |reply, limit| shape.decode(reply, limit), on_reply);
}

/// Opens what the elements of EXEC's reply hold, and hands the whole to `then`.
pub(crate) fn decode_each(
    context: &Context,
    reply: Reply<'_>,
    shape: Vec<ReplyShape>,
    on_reply: impl FnOnce(&Context, Reply<'_>) + 'static,
) {
    if !any_is_to_be_looked_at(&shape, reply.bytes()) {
        return on_reply(context, reply);
    }
    let decode = move |reply: &[u8], limit: usize| {
        let Some(elements) = elements(reply) else { return Decoded::as_it_is(reply.to_vec()) };
        let mut all = Decoded::as_it_is(Vec::with_capacity(reply.len() * 2));
        let elements: Vec<&[u8]> = elements.collect();
        build::header(&mut all.reply, b'*', elements.len());
        for (element, shape) in elements.into_iter().zip(shape.iter().chain(std::iter::repeat(&ReplyShape::Nothing))) {
            // The limit is for all together: a reply cannot be made of more than its client may be owed.
            all.add(shape.decode(element, limit.saturating_sub(all.reply.len())));
        }
        all
    };
    decode_with(context, reply, decode, on_reply);
}

/// Whether any element of EXEC's reply is to be looked at.
fn any_is_to_be_looked_at(shape: &[ReplyShape], reply: &[u8]) -> bool {
    shape.iter().any(|shape| *shape != ReplyShape::Nothing)
        && elements(reply).is_some_and(|all| shape.iter().zip(all).any(|(shape, one)| shape.is_to_be_looked_at(one)))
}

/// A reply with its values opened, and what was counted meanwhile.
struct Decoded {
    reply: Vec<u8>,
    decoded: u64,
    damaged: u64,
}

impl Decoded {
    fn as_it_is(reply: Vec<u8>) -> Self {
        Decoded { reply, decoded: 0, damaged: 0 }
    }

    fn add(&mut self, part: Decoded) {
        self.reply.extend_from_slice(&part.reply);
        self.decoded += part.decoded;
        self.damaged += part.damaged;
    }
}

fn decode_with(
    context: &Context,
    reply: Reply<'_>,
    decode: impl FnOnce(&[u8], usize) -> Decoded + Send + 'static,
    on_reply: impl FnOnce(&Context, Reply<'_>) + 'static,
) {
    let view = context.view();
    let limit = view.policy.limits.max_inflated;
    let declared_by = |reply: &[u8]| match bulk_of(reply) {
        Bulk::Value(value) if codec::is_compressed(value) => codec::declared_len(value).unwrap_or(0).min(limit),
        _ => 0,
    };
    let declared = elements(reply.bytes())
        .map_or_else(|| declared_by(reply.bytes()), |all| all.map(declared_by).fold(0, usize::saturating_add));
    let count = |context: &Context, decoded: &Decoded| {
        context.stats().opened_values.add(decoded.decoded);
        context.stats().damaged_values.add(decoded.damaged);
        if decoded.damaged > 0 {
            context.stats().count_error(Side::Upstream);
        }
    };
    if reply.bytes().len().max(declared) <= view.policy.offload_above {
        let decoded = decode(reply.bytes(), limit);
        count(context, &decoded);
        return on_reply(context, Reply::Borrowed(&decoded.reply));
    }
    let reply = reply.to_bytes();
    context.offload_to_control(
        move || decode(&reply, limit),
        move |context, decoded| {
            let decoded =
                decoded.unwrap_or_else(|| Decoded { reply: errors::NOT_DECOMPRESSED.frame(), decoded: 0, damaged: 1 });
            count(context, &decoded);
            on_reply(context, Reply::Owned(Bytes::from(decoded.reply)));
        },
    );
}

fn decode_value(reply: &[u8], limit: usize) -> Decoded {
    let Bulk::Value(compressed) = bulk_of(reply) else {
        return Decoded::as_it_is(reply.to_vec());
    };
    if !codec::is_compressed(compressed) {
        return Decoded::as_it_is(reply.to_vec());
    }
    let mut out = Vec::new();
    match codec::decode(compressed, limit) {
        Ok(value) => {
            out.reserve_exact(value.len() + 32);
            build::bulk(&mut out, &value);
            Decoded { reply: out, decoded: 1, damaged: 0 }
        }
        Err(error) => Decoded { reply: errors::damaged(error).frame(), decoded: 0, damaged: 1 },
    }
}

/// An array whose elements are values where `is_value` says so.
fn decode_elements(reply: &[u8], is_value: impl Fn(usize) -> bool, limit: usize) -> Decoded {
    let Some(elements) = elements(reply) else { return Decoded::as_it_is(reply.to_vec()) };
    let elements: Vec<&[u8]> = elements.collect();
    let mut all = Decoded::as_it_is(Vec::with_capacity(reply.len() * 2));
    build::header(&mut all.reply, b'*', elements.len());
    for (at, element) in elements.into_iter().enumerate() {
        if is_value(at) {
            all.add(decode_value(element, limit.saturating_sub(all.reply.len())));
        } else {
            all.reply.extend_from_slice(element);
        }
    }
    // A client takes an error among values for one of them, and some never look: the whole is refused.
    if all.damaged > 0 {
        all.reply = errors::DAMAGED_AMONG.frame();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{ReplyShape, Verb, Version, build, codec};

    fn sort(line: &str) -> ReplyShape {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        ReplyShape::of(Verb::Sort, "sort", &args, Version::Resp2)
    }

    #[test]
    fn of_what_sort_answers_only_strings_that_get_names_are_values() {
        let columns = |columns: &[bool]| ReplyShape::Columns(columns.into());
        assert_eq!(sort("SORT l"), ReplyShape::Nothing);
        assert_eq!(sort("SORT l GET # GET h*->f"), ReplyShape::Nothing);
        assert_eq!(
            sort("SORT l BY get LIMIT get 1 get w* ASC Get # GET h*->f GET w*->"),
            columns(&[true, false, false, true])
        );
        assert_eq!(sort("SORT l GET"), ReplyShape::Nothing);
    }

    #[test]
    fn columns_are_opened_and_others_stay() {
        let bulk = |value: &[u8]| {
            let mut out = Vec::new();
            build::bulk(&mut out, value);
            out
        };
        let value = [&codec::MARK[..], b"and more"].concat();
        let compressed = bulk(&codec::compress(&value, None).expect("it begins with the mark"));
        let reply = [b"*4\r\n", &compressed[..], &compressed, &compressed, b"$-1\r\n"].concat();
        let decoded = ReplyShape::Columns(Box::new([true, false])).decode(&reply, 1 << 20);
        assert_eq!((decoded.decoded, decoded.damaged), (2, 0));
        assert_eq!(decoded.reply, [b"*4\r\n", &bulk(&value)[..], &compressed, &bulk(&value), b"$-1\r\n"].concat());
    }
}
