//! Handles the reply to each pending request: passes it on, decodes it, keeps it in L1, or publishes the change.
//!
//! Runs on the upstream side. A client that has disconnected changes nothing about what must happen to guards and tickets.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::client_state::reply_queue::ReplyQueue;
use crate::codec;
use crate::errors;
use crate::exchange::pending::{CallMark, InSession, OnReply, Pending};
use crate::exchange::reply_shape::ReplyShape;
use crate::metrics::outcome::{DropReason, Family, FlushReason, LeftL1};
use crate::near_cache::kept_as;
use crate::replies::answers::{answer, fail_with_error};
use crate::replies::client_command;
use crate::replies::decode::{decode_all, decode_one};
use crate::replies::fills::{fill, fill_many, forget, reply_passed};
use crate::replies::guarded;
use crate::replies::login;
use crate::replies::observed;
use crate::replies::proxy_command;
use crate::replies::session::in_session;
use crate::resp::{Bulk, build, bulk_of, parse_int, split_first};
use crate::upstream::{Expected, Login, Lost, Reply, Suspicion};
use crate::worker_state::context::Context;
use crate::worker_state::logins::next_login;

impl Expected for Pending {
    type Context = Context;

    #[inline]
    fn replies(&self) -> usize {
        match &self.on_reply {
            OnReply::Fill(_) | OnReply::Select { .. } | OnReply::Greet { back: true, .. } => 2,
            OnReply::Ask { replies, .. } => *replies,
            OnReply::Session { on_reply, .. } => match &**on_reply {
                InSession::Exec { queued, .. } => queued.demux.as_ref().map_or(1, |demux| demux.missing()),
                _ => 1,
            },
            OnReply::Values(values) => 1 + values.keys.iter().filter(|key| key.keep.is_some()).count(),
            _ => 1,
        }
    }

    fn may_repeat(&self) -> bool {
        match &self.on_reply {
            OnReply::Pass { repeat } | OnReply::Ask { repeat, .. } => *repeat,
            OnReply::Value { .. }
            | OnReply::Read { .. }
            | OnReply::Fill(_)
            | OnReply::Values(_)
            | OnReply::Content { .. }
            | OnReply::Info { .. } => true,
            // Repeating a login has no further effect.
            OnReply::Greet { .. } | OnReply::Proxy { .. } | OnReply::ClientCommand(_) => true,
            OnReply::Elements { guard, .. } => guard.is_none(),
            // A script that only reads.
            OnReply::Guarded(guarded) => match &guarded.then {
                OnReply::Write { .. } => false,
                OnReply::Elements { guard, .. } => guard.is_none(),
                _ => true,
            },
            OnReply::Rest
            | OnReply::Paused(_)
            | OnReply::Write { .. }
            | OnReply::Select { .. }
            | OnReply::FirstSelect(_) => false,
            OnReply::Queued(_) | OnReply::Session { .. } => false,
            OnReply::ShutDown { .. } | OnReply::Unsubscribed { .. } => false,
        }
    }

    fn asked(&self) -> Instant {
        self.sent
    }

    #[inline]
    fn written(&mut self, at: u32) {
        self.call.written = at;
    }

    #[inline]
    fn moment(context: &Context) -> u32 {
        // Only the slow log wants it.
        if context.slower_than.get().is_some() { context.micros(Instant::now()) } else { 0 }
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
        let (call, asked, bytes) = (self.call, self.sent, reply.bytes().len());
        let mut more = self.act(context, reply, now);
        match &mut more {
            Some(pending) => pending.call = call,
            None => context.answered(call, asked, now),
        }
        if call.sample != 0 {
            context.sample_answered(call, bytes, asked, now);
        }
        if let (Some((reply_queue, slot)), None) = (to, &more) {
            reply_queue.is_coming(slot);
        }
        more
    }

    fn takes_parts(&self, beginning: &[u8]) -> bool {
        match &self.on_reply {
            OnReply::Pass { .. } | OnReply::Read { .. } | OnReply::Rest => true,
            OnReply::Content { shape, .. } => *shape == ReplyShape::Nothing,
            // A compressed value is decoded in one piece.
            OnReply::Value { .. } => match value_begun(beginning) {
                Some(value) => value.len() >= codec::LONGEST_MARK && !codec::is_compressed(value),
                None => false,
            },
            _ => false,
        }
    }

    fn takes_push(&self) -> bool {
        match &self.on_reply {
            OnReply::Session { on_reply, .. } => {
                matches!(**on_reply, InSession::Acknowledge { .. } | InSession::Exec { .. })
            }
            _ => false,
        }
    }

    fn deliver_part(self, context: &Context, part: Bytes) -> Pending {
        // It does not count as a miss.
        let family = self.call.family.or(self.on_reply.is_miss().then_some(Family::Read));
        match &self.on_reply {
            // A reply passed in parts is not compared with what L1 holds.
            OnReply::Value { id: Some(id), observed } | OnReply::Read { id, observed } => {
                if let Some(bytes) = announced(&part) {
                    context.value_passed(id.key(), bytes, false, None);
                    observed::note_size(context, *id, observed.as_deref(), bytes);
                }
                context.shared.coherence.poison(id.key(), LeftL1::Overtaken);
            }
            OnReply::Content { keys, .. } => {
                keys.iter().for_each(|id| context.shared.coherence.poison(*id, LeftL1::Overtaken))
            }
            _ => {}
        }
        if self.call.sample != 0 {
            context.hot_keys.borrow_mut().answered(self.call.sample, part.len(), Duration::ZERO);
        }
        if let Some((reply_queue, slot)) = &self.to {
            reply_queue.fill_part(*slot, Reply::Owned(part));
        }
        Pending { on_reply: OnReply::Rest, call: CallMark { family, ..self.call }, ..self }
    }

    fn lose(self, context: &Context, why: &Lost, ran: bool) {
        if let OnReply::Guarded(guarded) = self.on_reply {
            return Pending { on_reply: guarded.then, ..self }.lose(context, why, ran);
        }
        if let OnReply::Rest = self.on_reply {
            // The client would take an error message for the rest of the reply.
            if let Some((reply_queue, slot)) = self.to
                && !reply_queue.close_if_muted(slot)
            {
                reply_queue.drop_for(DropReason::ReplyCut);
            }
            return;
        }
        let mut text = why.text().to_owned();
        let is_greeting = matches!(self.on_reply, OnReply::Greet { .. });
        // Later requests in the pipeline are meant for another database, another user, or another protocol.
        let ends = is_greeting || matches!(self.on_reply, OnReply::Select { .. });
        let guard = match self.on_reply {
            OnReply::Ask { .. }
            | OnReply::ClientCommand(_)
            | OnReply::FirstSelect(_)
            | OnReply::ShutDown { .. }
            | OnReply::Unsubscribed { .. } => {
                context.count_lost(why);
                return answer_reply_or_loss(context, self.on_reply, Err(why));
            }
            OnReply::Write { guard, .. } => Some(guard),
            OnReply::Elements { guard, .. } => guard.map(|guard| *guard),
            OnReply::Session { session, on_reply } => {
                session.lost();
                match *on_reply {
                    // If the script continues, Redis serves no other client until it has ended. So nothing that is read after this flush
                    // can be older than the script's writes.
                    InSession::Raw(guard) => return guard.end(context, false),
                    InSession::Exec { queued, .. } => Some(queued.guard),
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
            guard.lose(context, ran.then_some(why.write_is_unknown()));
            if ran {
                text.push_str(errors::MAY_HAVE_RUN);
            }
        }
        context.count_lost(why);
        let mut out = Vec::new();
        build::error(&mut out, &text);
        if let Some((reply_queue, slot)) = self.to {
            fail_with_error(&reply_queue, slot, &out, why);
            if ends {
                reply_queue.close();
            }
        }
        if is_greeting {
            next_login(context);
        }
    }

    fn settled(context: &Context) {
        context.publish();
    }

    fn repeated(context: &Context, reads: u64) {
        context.stats().upstream_repeats.add(reads);
    }

    fn reconnected(context: &Context, served: bool) {
        context.stats().upstream_reconnects.add(1);
        if served {
            context.losses.set(context.losses.get() + 1);
            // It may be another server, or the same server with other data. A connection that was lost after it gave only errors is
            // no reason to flush: the entries of L1 came over other connections, and these are lost too when the server goes away.
            context.shared.coherence.flush_for(FlushReason::Upstream, "an upstream connection was lost");
        }
    }

    fn accepted_again(context: &Context, login: &Rc<Login>, closed: Instant) {
        context.login_accepted_again(login, closed);
    }

    fn login_refused(context: &Context, login: &Rc<Login>) {
        context.refuse(login);
    }
}

impl Pending {
    /// Handles the reply. Returns what waits for further replies, if anything does.
    // Inlined, because the call would copy the pending request once more.
    #[inline(always)]
    fn act(self, context: &Context, reply: Reply<'_>, now: Instant) -> Option<Pending> {
        let failed = reply.bytes().first() == Some(&b'-');
        if failed && is_from_a_replica(reply.bytes()) {
            context.shared.endpoint.report(Suspicion::Replica);
        }
        if failed && explains_silence(reply.bytes()) {
            context.shared.endpoint.silence().excuse(now);
        }
        let Pending { to, sent, on_reply, .. } = self;
        match on_reply {
            OnReply::Pass { .. } | OnReply::Rest => answer(to, reply),
            OnReply::Queued(session) => {
                if !session.queued(reply.bytes()) {
                    // The command may have been executed, and no guard covers its keys.
                    context.shared.coherence.flush("a private connection was in an unexpected state");
                }
                answer(to, reply);
            }
            OnReply::Value { id, observed } => {
                context.missed(sent, now);
                decode_one(context, reply, move |context, reply| {
                    if let Some(id) = id {
                        reply_passed(context, id.key(), reply.bytes());
                        context.shared.coherence.observe(id, kept_as(reply.bytes()));
                        observed::note(context, id, observed, reply.bytes());
                    }
                    answer(to, reply);
                });
            }
            OnReply::Read { id, observed } => {
                context.missed(sent, now);
                reply_passed(context, id.key(), reply.bytes());
                context.shared.coherence.observe(id, reply.bytes());
                observed::note(context, id, observed, reply.bytes());
                answer(to, reply);
            }
            OnReply::Fill(flight) => {
                context.missed(sent, now);
                fill(context, flight, to, sent, reply);
            }
            OnReply::Values(values) => {
                context.missed(sent, now);
                fill_many(context, *values, to, sent, reply);
            }
            OnReply::Content { keys, shape } => {
                if let (ReplyShape::Look(_), [key]) = (&shape, &keys[..]) {
                    context.large_strings.note(*key, reply.bytes().len());
                }
                keys.iter().for_each(|id| context.shared.coherence.poison(*id, LeftL1::Overtaken));
                decode_all(context, reply, shape, move |_, reply| answer(to, reply));
            }
            OnReply::Guarded(guarded) => return guarded::answered(context, *guarded, to, sent, reply, now),
            OnReply::Write { mut guard, shape } => {
                let announced = guard.take_announced();
                guard.end(context, failed);
                if let Some(announced) = announced {
                    context.announce(announced, reply.bytes());
                }
                decode_all(context, reply, shape, move |_, reply| answer(to, reply));
            }
            OnReply::Elements { guard, observed, shape } => {
                if let Some(guard) = guard {
                    guard.end(context, failed);
                }
                observed.iter().for_each(|id| context.shared.coherence.poison(*id, LeftL1::Overtaken));
                decode_all(context, reply, shape, move |_, reply| answer(to, reply));
            }
            OnReply::Select { client, db } => login::selected(context, &client, to, db, reply.bytes()),
            OnReply::Greet { client, greeting, back } => {
                let (first, rest) = if back { split_first(reply.bytes()) } else { (reply.bytes(), &[][..]) };
                let back = back.then_some(rest);
                if let Some((_, slot)) = to {
                    login::greeted(context, &client, slot, greeting.map(|greeting| *greeting), first, back);
                }
                next_login(context);
            }
            OnReply::Proxy { client, subcommand, args } => {
                proxy_command::answered(context, &client, subcommand, &args, to, reply.bytes());
            }
            OnReply::Paused(pause) => {
                if !failed {
                    context.paused(pause);
                }
                answer(to, reply);
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
            OnReply::Ask { .. }
            | OnReply::ClientCommand(_)
            | OnReply::FirstSelect(_)
            | OnReply::ShutDown { .. }
            | OnReply::Unsubscribed { .. } => answer_reply_or_loss(context, on_reply, Ok(reply)),
            OnReply::Session { session, on_reply } => return in_session(context, session, *on_reply, to, sent, reply),
        }
        None
    }
}

/// Handles requests whose handling is the same whether Redis has replied or not.
fn answer_reply_or_loss(context: &Context, on_reply: OnReply, reply: Result<Reply<'_>, &Lost>) {
    match on_reply {
        // If the receiver is gone, no answer is needed.
        OnReply::Ask { answer, .. } => {
            let _ = answer.send(reply.map(|reply| reply.bytes().to_vec()).map_err(Lost::clone));
        }
        OnReply::ClientCommand(asked) => client_command::answered(context, *asked, reply),
        OnReply::FirstSelect(select) => login::first_selected(*select, reply),
        OnReply::ShutDown { reply_queue, slot } => match reply {
            Ok(reply) => reply_queue.fill(slot, reply),
            Err(_) => {
                reply_queue.fill(slot, Reply::Borrowed(b""));
                reply_queue.close();
            }
        },
        OnReply::Unsubscribed { reply_queue, slot, answer } => reply_queue.fill(slot, Reply::Borrowed(answer)),
        _ => unreachable!("all others need the reply, or lose a guard"),
    }
}

/// Whether the server says that it serves no requests for now.
fn explains_silence(error: &[u8]) -> bool {
    error.starts_with(b"-BUSY ") || error.starts_with(b"-LOADING ")
}

/// Whether the server says that it is a replica, or has become one. A script can return the same error.
fn is_from_a_replica(error: &[u8]) -> bool {
    [&b"-READONLY"[..], b"-MASTERDOWN", b"-UNBLOCKED force"].iter().any(|begin| error.starts_with(begin))
}

/// The size of the value whose reply begins like this.
fn announced(beginning: &[u8]) -> Option<usize> {
    let end = memchr::memchr(b'\r', beginning)?;
    parse_int(beginning[..end].strip_prefix(b"$")?)?.try_into().ok()
}

/// The beginning of the value in a bulk string that has only arrived in part.
fn value_begun(beginning: &[u8]) -> Option<&[u8]> {
    let end = memchr::memchr(b'\n', beginning)?;
    beginning.starts_with(b"$").then(|| &beginning[end + 1..])
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Instant;

    use smallvec::SmallVec;
    use tokio::sync::oneshot;

    use super::{CallMark, Expected, OnReply, Pending, ReplyQueue, ReplyShape};
    use crate::exchange::write_guard::WriteGuard;
    use crate::near_cache::{EntryId, KeyId};

    fn pending(on_reply: OnReply) -> Pending {
        Pending { to: None, sent: Instant::now(), on_reply, call: CallMark::default() }
    }

    fn id() -> EntryId {
        EntryId::new(KeyId::new(0, b"k"), 0)
    }

    #[test]
    fn only_reads_may_be_repeated() {
        let ask = |repeat| OnReply::Ask { replies: 3, repeat, answer: oneshot::channel().0 };
        let write = || OnReply::Write { guard: WriteGuard::default(), shape: ReplyShape::Nothing };
        let elements = |guard: Option<Box<WriteGuard>>| OnReply::Elements {
            guard,
            observed: SmallVec::new(),
            shape: ReplyShape::Nothing,
        };
        let reply_queue = Rc::new(ReplyQueue::new(Instant::now(), Rc::default()));
        let slot = reply_queue.open(false);
        let shut_down = OnReply::ShutDown { reply_queue: Rc::clone(&reply_queue), slot };
        for (what, on_reply, replies, repeat) in [
            ("pass", OnReply::Pass { repeat: false }, 1, false),
            ("pass a read", OnReply::Pass { repeat: true }, 1, true),
            ("the rest", OnReply::Rest, 1, false),
            ("value", OnReply::Value { id: Some(id()), observed: None }, 1, true),
            ("read", OnReply::Read { id: id(), observed: None }, 1, true),
            ("write", write(), 1, false),
            ("sort", elements(None), 1, true),
            ("sort and store", elements(Some(Box::default())), 1, false),
            ("info", OnReply::Info { added: String::new() }, 1, true),
            ("a question", ask(true), 3, true),
            ("a question that writes", ask(false), 3, false),
            ("shutdown", shut_down, 1, false),
        ] {
            let pending = pending(on_reply);
            assert_eq!((pending.replies(), pending.may_repeat()), (replies, repeat), "{what}");
        }
    }

    #[test]
    fn only_unchanged_replies_are_passed_in_parts() {
        let plain = b"$200000\r\nplain, as the client wrote it";
        let compressed = crate::codec::MARKS.map(|mark| [b"$200000\r\n", mark, b"more"].concat());
        let value = || pending(OnReply::Value { id: None, observed: None });
        assert!(value().takes_parts(plain) && compressed.iter().all(|begun| !value().takes_parts(begun)));
        assert!(!value().takes_parts(b"$200000\r\n"), "it is not known yet");
        assert!(pending(OnReply::Pass { repeat: true }).takes_parts(&compressed[0]));
        let content = |shape| pending(OnReply::Content { keys: SmallVec::new(), shape });
        assert!(content(ReplyShape::Nothing).takes_parts(plain) && !content(ReplyShape::Values).takes_parts(plain));
    }

    #[test]
    fn askers_are_the_client_and_the_readers_that_joined() {
        let reply_queue = Rc::new(ReplyQueue::new(Instant::now(), Rc::default()));
        let slot = reply_queue.open(false);
        let pending = Pending { to: Some((Rc::clone(&reply_queue), slot)), ..pending(OnReply::Pass { repeat: true }) };
        assert_eq!(pending.askers()[..], [Rc::as_ptr(&reply_queue).addr()]);
    }
}
