//! Decodes replies: finds the values in a reply and decompresses those that are compressed. Large ones are decompressed on another
//! thread.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::codec;
use crate::errors::{self, Side};
use crate::exchange::reply_shape::ReplyShape;
use crate::replies::halves::join_halves;
use crate::resp::{Bulk, build, bulk_of, elements};
use crate::strings::Look;
use crate::upstream::{RESERVED, Reply};
use crate::worker_state::context::Context;

impl ReplyShape {
    fn decode(&self, reply: &[u8], limit: usize) -> Decoded {
        match (self, reply.first()) {
            (ReplyShape::Values, Some(b'$')) => decode_value(reply, limit),
            (ReplyShape::Values, Some(b'*')) => decode_elements(reply, |_| true, limit),
            (ReplyShape::Columns(columns), Some(b'*')) => {
                decode_elements(reply, |at| columns[at % columns.len()], limit)
            }
            (ReplyShape::Map, _) if reply.starts_with(b"*4\r\n") => Decoded::as_it_is([b"%2", &reply[2..]].concat()),
            (ReplyShape::Halves, _) => Decoded::as_it_is(join_halves(reply)),
            (ReplyShape::Look(look), Some(b'$' | b'_')) => decode_and_look(reply, look, limit),
            (ReplyShape::Channels, _) => Decoded::as_it_is(without_own_channels(reply)),
            _ => Decoded::as_it_is(reply.to_vec()),
        }
    }

    fn needs_decoding(&self, reply: &[u8]) -> bool {
        match self {
            ReplyShape::Nothing => false,
            ReplyShape::Map | ReplyShape::Halves | ReplyShape::Look(_) => true,
            ReplyShape::Channels => elements(reply).is_some_and(|mut all| all.any(is_own_channel)),
            ReplyShape::Values | ReplyShape::Columns(_) => {
                let is_compressed = |reply| matches!(bulk_of(reply), Bulk::Value(value) if codec::is_compressed(value));
                is_compressed(reply) || elements(reply).is_some_and(|mut all| all.any(is_compressed))
            }
        }
    }
}

/// Whether a name in a reply is one of Shortstop's own channels.
fn is_own_channel(name: &[u8]) -> bool {
    matches!(bulk_of(name), Bulk::Value(name) if name.starts_with(RESERVED.as_bytes()))
}

/// An array of channel names without Shortstop's own, to which no client has subscribed.
fn without_own_channels(reply: &[u8]) -> Vec<u8> {
    let Some(all) = elements(reply) else { return reply.to_vec() };
    let others: Vec<&[u8]> = all.filter(|name| !is_own_channel(name)).collect();
    let mut out = Vec::with_capacity(reply.len());
    build::header(&mut out, b'*', others.len());
    others.iter().for_each(|name| out.extend_from_slice(name));
    out
}

/// Decodes a reply that is one value, and passes it to `on_reply`: at once, or later if it is large.
pub(crate) fn decode_one(context: &Context, reply: Reply<'_>, on_reply: impl FnOnce(&Context, Reply<'_>) + 'static) {
    let compressed = matches!(bulk_of(reply.bytes()), Bulk::Value(value) if codec::is_compressed(value));
    if !compressed {
        return on_reply(context, reply);
    }
    decode_with(context, reply, decode_value, on_reply);
}

/// Decodes the values in a reply, and passes the whole reply to `on_reply`.
pub(crate) fn decode_all(
    context: &Context,
    reply: Reply<'_>,
    shape: ReplyShape,
    on_reply: impl FnOnce(&Context, Reply<'_>) + 'static,
) {
    if !shape.needs_decoding(reply.bytes()) {
        return on_reply(context, reply);
    }
    decode_with(context, reply, move |reply, limit| shape.decode(reply, limit), on_reply);
}

/// Decodes the values in the elements of EXEC's reply, and passes the whole reply to `on_reply`.
pub(crate) fn decode_each(
    context: &Context,
    reply: Reply<'_>,
    shape: Vec<ReplyShape>,
    on_reply: impl FnOnce(&Context, Reply<'_>) + 'static,
) {
    if !any_needs_decoding(&shape, reply.bytes()) {
        return on_reply(context, reply);
    }
    let decode = move |reply: &[u8], limit: usize| {
        let Some(elements) = elements(reply) else { return Decoded::as_it_is(reply.to_vec()) };
        let mut all = Decoded::as_it_is(Vec::with_capacity(reply.len() * 2));
        let elements: Vec<&[u8]> = elements.collect();
        build::header(&mut all.reply, b'*', elements.len());
        for (element, shape) in elements.into_iter().zip(shape.iter().chain(std::iter::repeat(&ReplyShape::Nothing))) {
            // The limit is for all elements together: one reply must not be larger than what may be due to a client.
            all.add(shape.decode(element, limit.saturating_sub(all.reply.len())));
        }
        all
    };
    decode_with(context, reply, decode, on_reply);
}

/// Whether any element of EXEC's reply may contain values to decode.
fn any_needs_decoding(shape: &[ReplyShape], reply: &[u8]) -> bool {
    shape.iter().any(|shape| *shape != ReplyShape::Nothing)
        && elements(reply).is_some_and(|all| shape.iter().zip(all).any(|(shape, one)| shape.needs_decoding(one)))
}

/// A reply with its values decoded, and the counts for the metrics.
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
    let count = |context: &Context, decoded: &Decoded, took: Duration| {
        if decoded.decoded + decoded.damaged > 0 {
            context.stats().decode_nanos.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            context.met_compressed();
        }
        context.stats().opened_values.add(decoded.decoded);
        context.stats().damaged_values.add(decoded.damaged);
        if decoded.damaged > 0 {
            context.stats().errors.count(Side::Upstream);
        }
    };
    if reply.bytes().len().max(declared) <= view.policy.offload_above {
        let began = Instant::now();
        let decoded = decode(reply.bytes(), limit);
        count(context, &decoded, began.elapsed());
        return on_reply(context, Reply::Borrowed(&decoded.reply));
    }
    let reply = reply.to_bytes();
    // The value, and its copy inside the reply.
    let bytes = reply.len().saturating_add(declared.saturating_mul(2));
    context.offload(
        bytes,
        move || {
            let began = Instant::now();
            (decode(&reply, limit), began.elapsed())
        },
        move |context, done| {
            let failed = || Decoded { reply: errors::NOT_DECOMPRESSED.frame(), decoded: 0, damaged: 1 };
            let (decoded, took) = done.unwrap_or_else(|| (failed(), Duration::ZERO));
            count(context, &decoded, took);
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

/// Decodes a reply that is one value, and makes the reply of the command that asked something of the value.
fn decode_and_look(reply: &[u8], look: &Look, limit: usize) -> Decoded {
    match bulk_of(reply) {
        Bulk::Value(value) if !codec::is_compressed(value) => Decoded::as_it_is(look.answer(Some(value))),
        Bulk::Null => Decoded::as_it_is(look.answer(None)),
        _ => {
            let decoded = decode_value(reply, limit);
            match bulk_of(&decoded.reply) {
                Bulk::Value(value) => Decoded { reply: look.answer(Some(value)), ..decoded },
                _ => decoded,
            }
        }
    }
}

/// Decodes those elements of an array for which `is_value` is true.
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
    // A client would take an error between values for one of the values, and some clients never check. So the whole reply is
    // refused.
    if all.damaged > 0 {
        all.reply = errors::DAMAGED_AMONG.frame();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{ReplyShape, build, codec};

    #[test]
    fn only_value_columns_are_decoded() {
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
