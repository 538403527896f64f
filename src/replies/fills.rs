//! Replies that L1 keeps: for how long, and in which form.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::client_state::reply_queue::{ReplyQueue, Slot};
use crate::codec::{self, Codec};
use crate::coherence::Ticket;
use crate::exchange::pending::{CallMark, Flight, OnReply, Pending, Reader};
use crate::exchange::reply_shape::ReplyShape;
use crate::exchange::values::{NO_VALUE, Values, ask_ttl};
use crate::metrics::outcome::NotKept;
use crate::metrics::rules::RulePlace;
use crate::near_cache::{Entry, EntryId, KeyId, Question, in_version, kept_as};
use crate::reads::Absent;
use crate::replies::answers::answer;
use crate::replies::decode::{decode_all, decode_one};
use crate::replies::observed;
use crate::replies::sizes::value_size;
use crate::resp::{Bulk, ReplyScanner, build, bulk_of, elements, parse_int};
use crate::rules::CacheRule;
use crate::traffic::{Kept, Unkept, What};
use crate::upstream::{Lost, Reply};
use crate::worker_state::context::Context;

/// Removes a flight that has ended, so that later readers start their own.
pub(crate) fn forget(context: &Context, flight: &Rc<Flight>) {
    let mut flights = context.flights.borrow_mut();
    if flights.get(&flight.id).is_some_and(|known| Rc::ptr_eq(known, flight)) {
        flights.remove(&flight.id);
    }
}

pub(crate) fn fill(
    context: &Context,
    flight: Rc<Flight>,
    to: Option<(Rc<ReplyQueue>, Slot)>,
    sent: Instant,
    reply: Reply<'_>,
) {
    let Ok(Some(end)) = ReplyScanner::default().scan(reply.bytes()) else {
        unreachable!("the connection hands over complete replies");
    };
    let (read, ttl) = reply.bytes().split_at(end);
    let pttl = pttl(context, flight.asked.question().user(), read, ttl);
    let first = match &reply {
        Reply::Borrowed(bytes) => Reply::Borrowed(&bytes[..end]),
        Reply::Owned(bytes) => Reply::Owned(bytes.slice(..end)),
    };
    let compressed = compressed_as(first.bytes());
    if flight.asked.question().is_get() {
        decode_one(context, first, move |context, reply| land(context, &flight, to, sent, pttl, reply, compressed));
    } else if let Some(look) = flight.look.clone() {
        context.large_strings.note(flight.id.key(), first.bytes().len());
        let shape = ReplyShape::Look(look);
        decode_all(context, first, shape, move |context, reply| land(context, &flight, to, sent, pttl, reply, None));
    } else {
        land(context, &flight, to, sent, pttl, first, None);
    }
}

fn land(
    context: &Context,
    flight: &Rc<Flight>,
    to: Option<(Rc<ReplyQueue>, Slot)>,
    sent: Instant,
    pttl: Option<i64>,
    reply: Reply<'_>,
    compressed: Option<(Codec, usize)>,
) {
    // Remove the flight before any reply is delivered, so that no reader joins a flight that has ended.
    forget(context, flight);
    let question = flight.asked.question();
    let good_for = good_for(&flight.rule, &question, flight.absent, pttl, reply.bytes());
    let readers = flight.readers.take();
    let ticket = flight.ticket.take();
    let serves = !readers.is_empty() && may_serve(context, ticket.as_ref(), sent, good_for.ok());
    let lives = good_for.and_then(|lives| fits(&flight.rule, &question, reply.bytes()).map(|()| lives));
    let place = flight.rule.place;
    keep(context, flight.id, &question, ticket, lives, Read { sent, reply: reply.bytes(), compressed, place });
    let mut late = Vec::new();
    for reader in readers {
        if serves || reader.asked <= sent {
            let reply =
                if question.is_get() { in_version(kept_as(reply.bytes()), reader.version) } else { reply.bytes() };
            reader.reply_queue.fill(reader.slot, Reply::Borrowed(reply));
        } else {
            late.push(reader);
        }
    }
    answer(to, reply);
    if !late.is_empty()
        && let Err((lost, readers)) = flight.ask_again(context, late)
    {
        context.count_lost(&lost);
        readers.into_iter().for_each(|reader| reader.lose(&lost));
    }
}

/// Whether readers that joined the flight may have its reply now.
fn may_serve(context: &Context, ticket: Option<&Ticket>, sent: Instant, good_for: Option<Duration>) -> bool {
    let (Some(ticket), Some(good_for)) = (ticket, good_for) else { return false };
    let permit = context.shared.coherence.permit(Instant::now());
    ticket.may_serve(&permit, sent, sent + good_for.min(context.max_staleness()))
}

/// For how long a reply may be served to other readers, counted from the time of its request. The error says why it may not.
fn good_for(
    rule: &CacheRule,
    question: &Question<'_>,
    absent: Absent,
    pttl: Option<i64>,
    reply: &[u8],
) -> Result<Duration, NotKept> {
    let reply = if question.is_get() { kept_as(reply) } else { reply };
    match bulk_of(reply) {
        Bulk::Value(_) | Bulk::Null => {}
        // GET returns a string or null. Lists and errors are not kept.
        _ if question.is_get() || matches!(reply.first(), Some(b'-' | b'!') | None) => return Err(NotKept::NotAValue),
        _ => {}
    }
    let says_absent = absent.is(reply);
    match pttl.ok_or(NotKept::TtlUnknown)? {
        // GET found no key, but PTTL found one a moment later.
        -1 | 1.. if says_absent && matches!(absent, Absent::Only(_)) => Err(NotKept::Changed),
        -1 => Ok(rule.ttl),
        left @ 1.. => Ok(rule.ttl.min(Duration::from_millis(left.unsigned_abs()))),
        // GET found no key, and neither did PTTL a moment later.
        -2 if says_absent && !rule.negative_ttl.is_zero() => Ok(rule.negative_ttl),
        -2 if says_absent => Err(NotKept::Absent),
        _ => Err(NotKept::Expired),
    }
}

/// Checks that a reply is small enough to be kept.
fn fits(rule: &CacheRule, question: &Question<'_>, reply: &[u8]) -> Result<(), NotKept> {
    let reply = if question.is_get() { kept_as(reply) } else { reply };
    if value_size(reply) <= rule.max_value { Ok(()) } else { Err(NotKept::TooLarge) }
}

/// The reply to a read of this key has passed.
#[inline]
pub(crate) fn reply_passed(context: &Context, id: KeyId, reply: &[u8]) {
    // Without a parse, which would cost more than all else here: `$`, the size, and the value, each with its end of line.
    let size = match reply.iter().take(16).position(|byte| *byte == b'\r') {
        Some(end) if reply[0] == b'$' => reply.len().saturating_sub(end + 4),
        _ => value_size(reply),
    };
    context.value_passed(id, size, false, None);
}

/// Codec and size of the value in a reply of Redis, if it is compressed.
fn compressed_as(reply: &[u8]) -> Option<(Codec, usize)> {
    match bulk_of(reply) {
        Bulk::Value(value) => codec::codec_of(value).map(|codec| (codec, value.len())),
        _ => None,
    }
}

/// A reply that was read from Redis.
struct Read<'a> {
    /// When it was requested.
    sent: Instant,
    /// With its value decompressed.
    reply: &'a [u8],
    /// Codec and size of the value in Redis, if it is compressed there.
    compressed: Option<(Codec, usize)>,
    /// Where its hits are counted.
    place: RulePlace,
}

/// Keeps a reply that was read with a ticket. If it may not be kept, makes sure that L1 holds nothing older.
fn keep(
    context: &Context,
    id: EntryId,
    question: &Question<'_>,
    ticket: Option<Ticket>,
    lives: Result<Duration, NotKept>,
    Read { sent, reply, compressed, place }: Read<'_>,
) {
    let reply = if question.is_get() { kept_as(reply) } else { reply };
    let size = value_size(reply);
    context.value_passed(id.key(), size, false, Some((question.db(), question.key())));
    let kept = lives.and_then(|lives| {
        let ticket = ticket.ok_or(NotKept::Blocked)?;
        let lives = lives.min(context.max_staleness());
        if !ticket.redeem(sent, sent + lives, question, reply, compressed, place) {
            return Err(NotKept::Changed);
        }
        let bytes = Entry::weight_of(question.bytes(), reply.len());
        context.accessed(id, place, || What::Filled(Kept::new(bytes, lives)));
        Ok(())
    });
    if let Err(why) = kept {
        let unkept = Unkept { why, at: sent, bytes: Some(size), user: question.user() };
        context.not_kept(id.key(), unkept);
        context.shared.coherence.observe(id, reply);
    }
}

pub(crate) fn fill_many(
    context: &Context,
    values: Values,
    to: Option<(Rc<ReplyQueue>, Slot)>,
    sent: Instant,
    reply: Reply<'_>,
) {
    let Ok(Some(end)) = ReplyScanner::default().scan(reply.bytes()) else {
        unreachable!("the connection hands over complete replies");
    };
    let mut ttls = Vec::new();
    let user = values.keys.iter().find_map(|key| key.keep.as_ref()).map_or(0, |(_, _, asked)| asked.question().user());
    let (read, mut rest) = reply.bytes().split_at(end);
    while let Ok(Some(length)) = ReplyScanner::default().scan(rest) {
        ttls.push(pttl(context, user, read, &rest[..length]));
        rest = &rest[length..];
        if rest.is_empty() {
            break;
        }
    }
    let array = match &reply {
        Reply::Borrowed(bytes) => Reply::Borrowed(&bytes[..end]),
        Reply::Owned(bytes) => Reply::Owned(bytes.slice(..end)),
    };
    let compressed: Vec<_> = elements(array.bytes()).into_iter().flatten().map(compressed_as).collect();
    decode_all(context, array, ReplyShape::Values, move |context, reply| {
        let mut ttls = ttls.into_iter();
        if let Some(elements) = elements(reply.bytes()) {
            for ((key, element), compressed) in values.keys.into_iter().zip(elements).zip(compressed) {
                match key.keep {
                    Some((ticket, rule, asked)) => {
                        let question = asked.question();
                        let lives = good_for(&rule, &question, NO_VALUE, ttls.next().flatten(), element)
                            .and_then(|lives| fits(&rule, &question, element).map(|()| lives));
                        let read = Read { sent, reply: element, compressed, place: rule.place };
                        keep(context, key.id, &question, Some(ticket), lives, read);
                    }
                    None => {
                        reply_passed(context, key.id.key(), element);
                        context.shared.coherence.observe(key.id, kept_as(element));
                        observed::note(context, key.id, key.observed, element);
                    }
                }
            }
        }
        answer(to, reply);
    });
}

/// The time to live in milliseconds, from the reply to PTTL. `read` is the reply to the read of the same keys.
fn pttl(context: &Context, user: u32, read: &[u8], reply: &[u8]) -> Option<i64> {
    // If the read was refused as well, the user may not use the key, which says nothing about PTTL.
    if reply.starts_with(b"-NOPERM") && !read.starts_with(b"-") {
        context.shared.users.refuse_ttl(user);
    }
    parse_int(reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?)
}

impl Flight {
    /// Sends the request again for readers that need a newer reply. All of them asked before this new request is sent.
    fn ask_again(&self, context: &Context, readers: Vec<Reader>) -> Result<(), (Lost, Vec<Reader>)> {
        if let Err(lost) = self.link.check() {
            return Err((lost, readers));
        }
        let question = self.asked.question();
        let now = Instant::now();
        let flight = Rc::new(Flight {
            id: self.id,
            asked: question.keep(),
            rule: self.rule,
            absent: self.absent,
            ticket: RefCell::new(context.shared.coherence.ticket(self.id, question.db(), now)),
            sent: now,
            link: self.link.clone(),
            look: self.look.clone(),
            readers: RefCell::new(readers),
        });
        context.flights.borrow_mut().insert(self.id, Rc::clone(&flight));
        context.stats().upstream_commands.add(1);
        self.link.send(
            Pending { to: None, sent: now, on_reply: OnReply::Fill(flight), call: CallMark::default() },
            |out| {
                match question.request().filter(|_| self.look.is_none()) {
                    Some(request) => out.push_slice(request),
                    None => out.push_with(|out| build::request(out, [&b"GET"[..], question.key()].into_iter())),
                }
                ask_ttl(out, question.key());
            },
        );
        Ok(())
    }
}
