//! Replies on their way to the client: which parts of them are values, and how those that are compressed are decompressed: here, or on another thread
//! if they are large.

use bytes::Bytes;

use crate::codec;
use crate::errors::{self, Side};
use crate::exchange::reply_shape::ReplyShape;
use crate::replies::halves::put_together;
use crate::resp::{Bulk, build, bulk_of, elements};
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
            (ReplyShape::Halves, _) => Decoded::as_it_is(put_together(reply)),
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

/// Decompresses a reply that is one value, if it is compressed, and hands it to `then`: at once, or later if it is large.
pub(crate) fn decode_one(context: &Context, reply: Reply<'_>, then: impl FnOnce(&Context, Reply<'_>) + 'static) {
    let compressed = matches!(bulk_of(reply.bytes()), Bulk::Value(value) if codec::is_compressed(value));
    if !compressed {
        return then(context, reply);
    }
    decode_with(context, reply, decode_value, then);
}

/// Decompresses what a reply holds, and hands the whole to `then`.
pub(crate) fn decode_all(
    context: &Context,
    reply: Reply<'_>,
    shape: ReplyShape,
    then: impl FnOnce(&Context, Reply<'_>) + 'static,
) {
    if !shape.is_to_be_looked_at(reply.bytes()) {
        return then(context, reply);
    }
    decode_with(context, reply, move |reply, limit| shape.decode(reply, limit), then);
}

/// Decompresses what the elements of EXEC's reply hold, and hands the whole to `then`.
pub(crate) fn decode_each(
    context: &Context,
    reply: Reply<'_>,
    shape: Vec<ReplyShape>,
    then: impl FnOnce(&Context, Reply<'_>) + 'static,
) {
    if !any_is_to_be_looked_at(&shape, reply.bytes()) {
        return then(context, reply);
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
    decode_with(context, reply, decode, then);
}

/// Whether any element of EXEC's reply is to be looked at.
fn any_is_to_be_looked_at(shape: &[ReplyShape], reply: &[u8]) -> bool {
    shape.iter().any(|shape| *shape != ReplyShape::Nothing)
        && elements(reply).is_some_and(|all| shape.iter().zip(all).any(|(shape, one)| shape.is_to_be_looked_at(one)))
}

/// A reply with its values decompressed, and what was counted meanwhile.
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
    then: impl FnOnce(&Context, Reply<'_>) + 'static,
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
            context.stats().errors.count(Side::Upstream);
        }
    };
    if reply.bytes().len().max(declared) <= view.policy.offload_above {
        let decoded = decode(reply.bytes(), limit);
        count(context, &decoded);
        return then(context, Reply::Borrowed(&decoded.reply));
    }
    let reply = reply.to_bytes();
    // The value, and the reply that it becomes a part of.
    let bytes = reply.len().saturating_add(declared.saturating_mul(2));
    context.offload(
        bytes,
        move || decode(&reply, limit),
        move |context, decoded| {
            let decoded =
                decoded.unwrap_or_else(|| Decoded { reply: errors::NOT_DECOMPRESSED.frame(), decoded: 0, damaged: 1 });
            count(context, &decoded);
            then(context, Reply::Owned(Bytes::from(decoded.reply)));
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
    use super::{ReplyShape, build, codec};

    #[test]
    fn columns_are_decompressed_and_others_stay() {
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
