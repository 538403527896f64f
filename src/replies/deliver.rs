//! What waits on an upstream connection for a reply, and what becomes of the reply: passed on, opened, kept, told.
//!
//! Runs on the upstream side: a client that has gone away changes nothing of what must happen to guards and tickets.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::codec;
use crate::errors;
use crate::near_cache::{EntryId, KeyId};
use crate::resp::{Bulk, ReplyScanner, build, bulk_of};
use crate::stats::FlushReason;
use crate::upstream::{Expected, Login, Lost, Reply, Suspicion};

use crate::client_state::reply_queue::{ReplyQueue, Slot};
use crate::client_state::session::Session;
use crate::exchange::write_guard::WriteGuard;
use crate::proxy::auth::{self, Greeting};
use crate::proxy::flight::{Flight, Reader};
use crate::proxy::private::{InSession, in_session};
use crate::replies::decode::{ReplyShape, decode_all, decode_one};
use crate::replies::fills::{Values, fill, fill_many, forget, kept_as};
use crate::worker_state::context::Context;

/// A request that was sent, and whose reply is due.
pub struct Pending {
    /// Whose; the reply of a request of our own goes nowhere.
    pub(crate) to: Option<(Rc<ReplyQueue>, Slot)>,
    /// When it was sent.
    pub(crate) sent: Instant,
    pub(crate) on_reply: OnReply,
}

/// What happens to the reply.
pub(crate) enum OnReply {
    /// Passed on as it is.
    Pass { repeat: bool },
    /// As `Pass`, and a part of it has been passed on.
    Rest,
    /// GET that is not kept; no id: nothing is kept at all.
    Value { id: Option<EntryId> },
    /// Another read that could be kept, and is not this time.
    Read { id: EntryId },
    /// GET or another read, and PTTL, to be kept.
    Fill(Rc<Flight>),
    /// MGET, and PTTL for each key that may be kept.
    Values(Box<Values>),
    /// A read that tells something of what these keys hold, in a way that cannot be compared with what L1 has of them.
    Content { keys: SmallVec<[KeyId; 1]>, shape: ReplyShape },
    /// A write.
    Write { guard: WriteGuard, shape: ReplyShape },
    /// SORT … GET: values of other keys among the elements. What it writes, or else what it tells of, as [`OnReply::Content`] does.
    Elements { guard: Option<Box<WriteGuard>>, observed: SmallVec<[KeyId; 1]>, shape: ReplyShape },
    /// SELECT, and SELECT back.
    Select { db: u32 },
    /// HELLO or AUTH, and with `back` HELLO back. None: Redis will refuse it.
    Greet { greeting: Option<Box<Greeting>>, back: bool },
    /// Whether the client may configure Redis, and so have this done by the PROXY command.
    Proxy { args: Vec<Vec<u8>> },
    /// INFO, with the sections that are added.
    Info { added: String },
    /// Handed to whoever asked.
    Call { replies: usize, repeat: bool, on_reply: Callback },
    /// A command in a transaction: Redis says that it is queued, or why not.
    Queued(Rc<Session>),
    /// The first command that needs a connection of its own, or one that leaves something on it.
    Session { session: Rc<Session>, on_reply: Box<InSession> },
}

/// Gets so many replies in one piece, or why there are none.
pub(crate) type Callback = Box<dyn FnOnce(&Context, Result<Reply<'_>, &Lost>)>;

impl OnReply {
    /// Rare and large, so that it is not what makes all others large.
    pub(crate) fn session(session: &Rc<Session>, on_reply: InSession) -> OnReply {
        OnReply::Session { session: Rc::clone(session), on_reply: Box::new(on_reply) }
    }
}

impl Expected for Pending {
    type Context = Context;

    #[inline]
    fn replies(&self) -> usize {
        match &self.on_reply {
            OnReply::Fill(_) | OnReply::Select { .. } | OnReply::Greet { back: true, .. } => 2,
            OnReply::Call { replies, .. } => *replies,
            OnReply::Session { on_reply, .. } => match &**on_reply {
                InSession::Exec(queued) => queued.demux.as_ref().map_or(1, |demux| demux.missing()),
                _ => 1,
            },
            OnReply::Values(values) => 1 + values.keys.iter().filter(|key| key.keep.is_some()).count(),
            _ => 1,
        }
    }

    fn may_repeat(&self) -> bool {
        match &self.on_reply {
            OnReply::Pass { repeat } | OnReply::Call { repeat, .. } => *repeat,
            OnReply::Value { .. }
            | OnReply::Read { .. }
            | OnReply::Fill(_)
            | OnReply::Values(_)
            | OnReply::Content { .. }
            | OnReply::Info { .. } => true,
            // A login that is tried twice changes nothing more.
            OnReply::Greet { .. } | OnReply::Proxy { .. } => true,
            OnReply::Elements { guard, .. } => guard.is_none(),
            OnReply::Rest | OnReply::Write { .. } | OnReply::Select { .. } => false,
            OnReply::Queued(_) | OnReply::Session { .. } => false,
        }
    }

    fn askers(&self) -> SmallVec<[usize; 1]> {
        let number = |reply_queue: &Rc<ReplyQueue>| Rc::as_ptr(reply_queue).addr();
        let mut askers: SmallVec<[usize; 1]> = self.to.iter().map(|(reply_queue, _)| number(reply_queue)).collect();
        if let OnReply::Fill(flight) = &self.on_reply {
            askers.extend(flight.readers.borrow().iter().map(|reader| number(&reader.reply_queue)));
        }
        askers
    }

    fn deliver(self, context: &Context, reply: Reply<'_>, now: Instant) -> Option<Pending> {
        let to = self.to.as_ref().filter(|(reply_queue, _)| reply_queue.pushed.get()).cloned();
        let more = self.act(context, reply, now);
        if let (Some((reply_queue, slot)), None) = (to, &more) {
            reply_queue.is_coming(slot);
        }
        more
    }

    fn takes_parts(&self, beginning: &[u8]) -> bool {
        match &self.on_reply {
            OnReply::Pass { .. } | OnReply::Read { .. } | OnReply::Rest => true,
            OnReply::Content { shape, .. } => *shape == ReplyShape::Nothing,
            // What is compressed is opened in one piece.
            OnReply::Value { .. } => match value_begun(beginning) {
                Some(value) => value.len() >= codec::MARK.len() && !codec::is_compressed(value),
                None => false,
            },
            _ => false,
        }
    }

    fn takes_push(&self) -> bool {
        match &self.on_reply {
            OnReply::Session { on_reply, .. } => {
                matches!(**on_reply, InSession::Acknowledge { .. } | InSession::Exec(_))
            }
            _ => false,
        }
    }

    fn deliver_part(self, context: &Context, part: Bytes) -> Pending {
        match &self.on_reply {
            // It is not compared with what L1 has.
            OnReply::Value { id: Some(id) } | OnReply::Read { id } => context.shared.coherence.poison(id.key()),
            OnReply::Content { keys, .. } => keys.iter().for_each(|id| context.shared.coherence.poison(*id)),
            _ => {}
        }
        if let Some((reply_queue, slot)) = &self.to {
            reply_queue.fill_part(*slot, Reply::Owned(part));
        }
        Pending { on_reply: OnReply::Rest, ..self }
    }

    fn lose(self, context: &Context, why: &Lost, ran: bool) {
        if let OnReply::Rest = self.on_reply {
            // Nothing that the client would not take for the rest of the reply can be said.
            if let Some((reply_queue, slot)) = self.to
                && !reply_queue.skip(slot)
            {
                reply_queue.dropped.set(Some("the connection to Redis was lost in the midst of its reply"));
                reply_queue.wake();
            }
            return;
        }
        let mut text = why.text().to_owned();
        let is_greeting = matches!(self.on_reply, OnReply::Greet { .. });
        // What follows in the pipeline is meant for another database, another user, or another protocol.
        let ends = is_greeting || matches!(self.on_reply, OnReply::Select { .. });
        let guard = match self.on_reply {
            OnReply::Call { on_reply, .. } => {
                context.count_lost(why);
                return on_reply(context, Err(why));
            }
            OnReply::Write { guard, .. } => Some(guard),
            OnReply::Elements { guard, .. } => guard.map(|guard| *guard),
            OnReply::Session { session, on_reply } => {
                session.lost();
                match *on_reply {
                    // If the script goes on, Redis serves nobody else until it has ended: what is kept before then is of before
                    // this.
                    InSession::Raw(guard) => return guard.end(context, false),
                    InSession::Exec(queued) => Some(queued.guard),
                    InSession::Blocked { guard, .. } | InSession::Unknown(guard) | InSession::Debugged(guard) => {
                        Some(guard)
                    }
                    _ => None,
                }
            }
            OnReply::Fill(flight) => {
                forget(context, &flight);
                flight.readers.take().into_iter().for_each(|reader| reader.lose(why));
                None
            }
            _ => None,
        };
        if let Some(guard) = guard {
            guard.lose(context, ran);
            if ran {
                text.push_str(errors::MAY_HAVE_RUN);
            }
        }
        context.count_lost(why);
        let mut out = Vec::new();
        build::error(&mut out, &text);
        if let Some((reply_queue, slot)) = self.to {
            end_lost(&reply_queue, slot, &out, why);
            if ends {
                reply_queue.close();
            }
        }
        if is_greeting {
            auth::next_login(context);
        }
    }

    fn settled(context: &Context) {
        context.publish();
    }

    fn reconnected(context: &Context, served: bool) {
        context.stats().upstream_reconnects.add(1);
        if served {
            context.losses.set(context.losses.get() + 1);
            // It may be another server, or the same with other data. A lost connection that only gave errors is no reason to flush:
            // what L1 has came over other connections, and these are lost, too, when the server goes.
            context.shared.coherence.flush_for(FlushReason::Upstream, "an upstream connection was lost");
        }
    }

    fn let_in_again(context: &Context, login: &Rc<Login>, closed: Instant) {
        context.let_in_again(login, closed);
    }

    fn login_refused(context: &Context, login: &Rc<Login>) {
        context.refuse(login);
    }
}

impl Pending {
    /// Does what is to be done with the reply, and hands back what waits for more.
    fn act(self, context: &Context, reply: Reply<'_>, now: Instant) -> Option<Pending> {
        let failed = reply.bytes().first() == Some(&b'-');
        if failed && tells_of_a_replica(reply.bytes()) {
            context.shared.endpoint.report(Suspicion::Replica);
        }
        let Pending { to, sent, on_reply } = self;
        match on_reply {
            OnReply::Pass { .. } | OnReply::Rest => answer(to, reply),
            OnReply::Queued(session) => {
                if !session.queued(reply.bytes()) {
                    // It may have been executed, and its keys were not noted as written.
                    context
                        .shared
                        .coherence
                        .flush("a private connection was not in the state that it was taken to be in");
                }
                answer(to, reply);
            }
            OnReply::Value { id } => {
                context.stats().miss.record(now.saturating_duration_since(sent), 1);
                decode_one(context, reply, move |context, reply| {
                    if let Some(id) = id {
                        context.shared.coherence.observe(id, kept_as(reply.bytes()));
                    }
                    answer(to, reply);
                });
            }
            OnReply::Read { id } => {
                context.stats().miss.record(now.saturating_duration_since(sent), 1);
                context.shared.coherence.observe(id, reply.bytes());
                answer(to, reply);
            }
            OnReply::Fill(flight) => {
                context.stats().miss.record(now.saturating_duration_since(sent), 1);
                fill(context, flight, to, sent, reply);
            }
            OnReply::Values(values) => {
                context.stats().miss.record(now.saturating_duration_since(sent), 1);
                fill_many(context, *values, to, sent, reply);
            }
            OnReply::Content { keys, shape } => {
                keys.iter().for_each(|id| context.shared.coherence.poison(*id));
                decode_all(context, reply, shape, move |_, reply| answer(to, reply));
            }
            OnReply::Write { guard, shape } => {
                guard.end(context, failed);
                decode_all(context, reply, shape, move |_, reply| answer(to, reply));
            }
            OnReply::Elements { guard, observed, shape } => {
                if let Some(guard) = guard {
                    guard.end(context, failed);
                }
                observed.iter().for_each(|id| context.shared.coherence.poison(*id));
                decode_all(context, reply, shape, move |_, reply| answer(to, reply));
            }
            OnReply::Select { db } => select(context, to, db, reply.bytes()),
            OnReply::Greet { greeting, back } => {
                let (first, rest) = if back { split_first(reply.bytes()) } else { (reply.bytes(), &[][..]) };
                let back = back.then_some(rest);
                if let Some((reply_queue, slot)) = to {
                    auth::greeted(context, &reply_queue, slot, greeting.map(|greeting| *greeting), first, back);
                }
                auth::next_login(context);
            }
            OnReply::Proxy { .. } if failed => answer(to, Reply::Borrowed(&context.own_error(&errors::NOT_ALLOWED))),
            OnReply::Proxy { args } => {
                let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                answer(to, Reply::Owned(context.shared.windows.proxy(&args).into()));
            }
            OnReply::Info { added } => {
                let (kind, text) = match (reply.bytes().first(), bulk_of(reply.bytes())) {
                    (Some(b'='), Bulk::Verbatim(text)) => (b'=', text),
                    (_, Bulk::Value(text)) => (b'$', text),
                    _ => {
                        answer(to, reply);
                        return None;
                    }
                };
                let mut out = Vec::new();
                build::header(&mut out, kind, text.len() + added.len());
                out.extend_from_slice(text);
                out.extend_from_slice(added.as_bytes());
                out.extend_from_slice(b"\r\n");
                answer(to, Reply::Owned(out.into()));
            }
            OnReply::Call { on_reply, .. } => on_reply(context, Ok(reply)),
            OnReply::Session { session, on_reply } => return in_session(context, session, *on_reply, to, sent, reply),
        }
        None
    }
}

#[inline]
pub(crate) fn answer(to: Option<(Rc<ReplyQueue>, Slot)>, reply: Reply<'_>) {
    if let Some((reply_queue, slot)) = to {
        reply_queue.fill(slot, reply);
    }
}

/// Whether the server says that it is a replica, or became one. A script can say the same.
fn tells_of_a_replica(error: &[u8]) -> bool {
    [&b"-READONLY"[..], b"-MASTERDOWN", b"-UNBLOCKED force"].iter().any(|begin| error.starts_with(begin))
}

/// Answers with the error. Whoever Redis does not let in any more is gone with that.
pub(crate) fn tell_lost(reply_queue: &ReplyQueue, slot: Slot, why: &Lost) {
    let mut out = Vec::new();
    build::error(&mut out, why.text());
    end_lost(reply_queue, slot, &out, why);
}

fn end_lost(reply_queue: &ReplyQueue, slot: Slot, error: &[u8], why: &Lost) {
    if reply_queue.user_ended.get() {
        return reply_queue.fill(slot, Reply::Borrowed(b""));
    }
    reply_queue.fill(slot, Reply::Borrowed(error));
    if why.is_login_refused() {
        reply_queue.close();
    }
}

impl Reader {
    /// Tells the reader that there will be no answer.
    pub(crate) fn lose(self, why: &Lost) {
        let mut error = Vec::new();
        build::error(&mut error, why.text());
        end_lost(&self.reply_queue, self.slot, &error, why);
    }
}

/// The beginning of a bulk string of which not all has come.
fn value_begun(beginning: &[u8]) -> Option<&[u8]> {
    let end = memchr::memchr(b'\n', beginning)?;
    beginning.starts_with(b"$").then(|| &beginning[end + 1..])
}

/// The first of several replies, and the others.
pub(crate) fn split_first(replies: &[u8]) -> (&[u8], &[u8]) {
    let Ok(Some(end)) = ReplyScanner::default().scan(replies) else {
        unreachable!("the connection hands over complete replies");
    };
    replies.split_at(end)
}

fn select(context: &Context, to: Option<(Rc<ReplyQueue>, Slot)>, db: u32, replies: &[u8]) {
    let (first, back) = split_first(replies);
    let Some((reply_queue, slot)) = to else { return };
    let (identity, before, version) =
        (reply_queue.profile.identity(), reply_queue.profile.db(), reply_queue.profile.version());
    if first == b"+OK\r\n" {
        reply_queue.profile.set_db(db);
    }
    reply_queue.fill(slot, Reply::Borrowed(first));
    if first.starts_with(b"-NO") {
        // The right was taken away: the next SELECT goes over a connection of its own again.
        identity.may_select.set(false);
    }
    if first == b"+OK\r\n" && back != b"+OK\r\n" {
        // The lane is in no known database any more.
        context.drop_lane(&identity, before, version);
    }
}
