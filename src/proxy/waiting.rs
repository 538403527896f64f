//! What waits on an upstream connection for a reply, and what becomes of the reply: passed on, opened, kept, told.
//!
//! Runs on the upstream side: a client that has gone away changes nothing of what must happen to guards and tickets.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::envelope;
use crate::near_cache::{EntryId, KeyId};
use crate::resp::{Bulk, ReplyScanner, build, bulk_of};
use crate::stats::FlushReason;
use crate::upstream::{Expected, Login, Lost, Reply, Trouble};

use super::context::Context;
use super::fills::{Values, fill, fill_many, forget, kept_as};
use super::flight::{Flight, Reader};
use super::login::{self, Greeting};
use super::opening::{Holds, open_all, open_one};
use super::outlet::{Outlet, Slot};
use super::private::{InSession, in_session};
use super::session::Session;
use super::written::Written;

/// A request that was sent, and whose reply is due.
pub struct Waiting {
    /// Whose; the reply of a request of our own goes nowhere.
    pub(super) to: Option<(Rc<Outlet>, Slot)>,
    /// When it was sent.
    pub(super) sent: Instant,
    pub(super) then: Then,
}

/// What happens to the reply.
pub(super) enum Then {
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
    Content { keys: SmallVec<[KeyId; 1]>, holds: Holds },
    /// A write.
    Write { written: Written, holds: Holds },
    /// SORT … GET: values of other keys among the elements. What it writes, or else what it tells of, as [`Then::Content`] does.
    Elements { written: Option<Box<Written>>, told: SmallVec<[KeyId; 1]>, holds: Holds },
    /// SELECT, and SELECT back.
    Select { db: u32 },
    /// HELLO or AUTH, and with `back` HELLO back. None: Redis will refuse it.
    Greet { greeting: Option<Box<Greeting>>, back: bool },
    /// Whether the client may configure Redis, and so have this done by the PROXY command.
    Proxy { args: Vec<Vec<u8>> },
    /// INFO, with the sections that are added.
    Info { added: String },
    /// Handed to whoever asked.
    Call { replies: usize, repeat: bool, then: Called },
    /// A command in a transaction: Redis says that it is queued, or why not.
    Queued(Rc<Session>),
    /// The first command that needs a connection of its own, or one that leaves something on it.
    Session { session: Rc<Session>, then: Box<InSession> },
}

/// Gets so many replies in one piece, or why there are none.
pub(super) type Called = Box<dyn FnOnce(&Context, Result<Reply<'_>, &Lost>)>;

impl Then {
    /// Rare and large, so that it is not what makes all others large.
    pub(super) fn session(session: &Rc<Session>, then: InSession) -> Then {
        Then::Session { session: Rc::clone(session), then: Box::new(then) }
    }
}

impl Expected for Waiting {
    type Context = Context;

    #[inline]
    fn replies(&self) -> usize {
        match &self.then {
            Then::Fill(_) | Then::Select { .. } | Then::Greet { back: true, .. } => 2,
            Then::Call { replies, .. } => *replies,
            Then::Session { then, .. } => match &**then {
                InSession::Exec(queued) => queued.woven.as_ref().map_or(1, |woven| woven.missing()),
                _ => 1,
            },
            Then::Values(values) => 1 + values.keys.iter().filter(|key| key.keep.is_some()).count(),
            _ => 1,
        }
    }

    fn may_repeat(&self) -> bool {
        match &self.then {
            Then::Pass { repeat } | Then::Call { repeat, .. } => *repeat,
            Then::Value { .. }
            | Then::Read { .. }
            | Then::Fill(_)
            | Then::Values(_)
            | Then::Content { .. }
            | Then::Info { .. } => true,
            // A login that is tried twice changes nothing more.
            Then::Greet { .. } | Then::Proxy { .. } => true,
            Then::Elements { written, .. } => written.is_none(),
            Then::Rest | Then::Write { .. } | Then::Select { .. } => false,
            Then::Queued(_) | Then::Session { .. } => false,
        }
    }

    fn askers(&self) -> SmallVec<[usize; 1]> {
        let number = |outlet: &Rc<Outlet>| Rc::as_ptr(outlet).addr();
        let mut askers: SmallVec<[usize; 1]> = self.to.iter().map(|(outlet, _)| number(outlet)).collect();
        if let Then::Fill(flight) = &self.then {
            askers.extend(flight.readers.borrow().iter().map(|reader| number(&reader.outlet)));
        }
        askers
    }

    fn deliver(self, context: &Context, reply: Reply<'_>, now: Instant) -> Option<Waiting> {
        let to = self.to.as_ref().filter(|(outlet, _)| outlet.pushed.get()).cloned();
        let more = self.act(context, reply, now);
        if let (Some((outlet, slot)), None) = (to, &more) {
            outlet.is_coming(slot);
        }
        more
    }

    fn takes_parts(&self, beginning: &[u8]) -> bool {
        match &self.then {
            Then::Pass { .. } | Then::Read { .. } | Then::Rest => true,
            Then::Content { holds, .. } => *holds == Holds::Nothing,
            // What is sealed is opened in one piece.
            Then::Value { .. } => match value_begun(beginning) {
                Some(value) => value.len() >= envelope::MARK.len() && !envelope::is_sealed(value),
                None => false,
            },
            _ => false,
        }
    }

    fn takes_push(&self) -> bool {
        match &self.then {
            Then::Session { then, .. } => matches!(**then, InSession::Acknowledge { .. } | InSession::Exec(_)),
            _ => false,
        }
    }

    fn deliver_part(self, context: &Context, part: Bytes) -> Waiting {
        match &self.then {
            // It is not compared with what L1 has.
            Then::Value { id: Some(id) } | Then::Read { id } => context.shared.coherence.poison(id.key()),
            Then::Content { keys, .. } => keys.iter().for_each(|id| context.shared.coherence.poison(*id)),
            _ => {}
        }
        if let Some((outlet, slot)) = &self.to {
            outlet.fill_part(*slot, Reply::Owned(part));
        }
        Waiting { then: Then::Rest, ..self }
    }

    fn lose(self, context: &Context, why: &Lost, ran: bool) {
        if let Then::Rest = self.then {
            // Nothing that the client would not take for the rest of the reply can be said.
            if let Some((outlet, slot)) = self.to
                && !outlet.skip(slot)
            {
                outlet.dropped.set(Some("the connection to Redis was lost in the midst of its reply"));
                outlet.wake();
            }
            return;
        }
        let mut text = why.text().to_owned();
        let is_greeting = matches!(self.then, Then::Greet { .. });
        // What follows in the pipeline is meant for another database, another user, or another protocol.
        let ends = is_greeting || matches!(self.then, Then::Select { .. });
        let written = match self.then {
            Then::Call { then, .. } => {
                context.stats().upstream_errors.add(1);
                return then(context, Err(why));
            }
            Then::Write { written, .. } => Some(written),
            Then::Elements { written, .. } => written.map(|written| *written),
            Then::Session { session, then } => {
                session.lost();
                match *then {
                    // If the script goes on, Redis serves nobody else until it has ended: what is kept before then is of before
                    // this.
                    InSession::Raw(written) => return written.end(context, false),
                    InSession::Exec(queued) => Some(queued.written),
                    InSession::Blocked { written, .. } | InSession::Unknown(written) | InSession::Debugged(written) => {
                        Some(written)
                    }
                    _ => None,
                }
            }
            Then::Fill(flight) => {
                forget(context, &flight);
                flight.readers.take().into_iter().for_each(|reader| reader.lose(why));
                None
            }
            _ => None,
        };
        if let Some(written) = written {
            written.lose(context, ran);
            if ran {
                text.push_str("; the command may have been executed");
            }
        }
        context.stats().upstream_errors.add(1);
        let mut out = Vec::new();
        build::error(&mut out, &text);
        if let Some((outlet, slot)) = self.to {
            end_lost(&outlet, slot, &out, why);
            if ends {
                outlet.close();
            }
        }
        if is_greeting {
            login::next_at_the_door(context);
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

impl Waiting {
    /// Does what is to be done with the reply, and hands back what waits for more.
    fn act(self, context: &Context, reply: Reply<'_>, now: Instant) -> Option<Waiting> {
        let failed = reply.bytes().first() == Some(&b'-');
        if failed && tells_of_a_replica(reply.bytes()) {
            context.shared.endpoint.report(Trouble::Replica);
        }
        let Waiting { to, sent, then } = self;
        match then {
            Then::Pass { .. } | Then::Rest => answer(to, reply),
            Then::Queued(session) => {
                if !session.queued(reply.bytes()) {
                    // It may have been executed, and its keys were not noted as written.
                    context
                        .shared
                        .coherence
                        .flush("a private connection was not in the state that it was taken to be in");
                }
                answer(to, reply);
            }
            Then::Value { id } => {
                context.stats().miss.record(now.saturating_duration_since(sent), 1);
                open_one(context, reply, move |context, reply| {
                    if let Some(id) = id {
                        context.shared.coherence.observe(id, kept_as(reply.bytes()));
                    }
                    answer(to, reply);
                });
            }
            Then::Read { id } => {
                context.stats().miss.record(now.saturating_duration_since(sent), 1);
                context.shared.coherence.observe(id, reply.bytes());
                answer(to, reply);
            }
            Then::Fill(flight) => {
                context.stats().miss.record(now.saturating_duration_since(sent), 1);
                fill(context, flight, to, sent, reply);
            }
            Then::Values(values) => {
                context.stats().miss.record(now.saturating_duration_since(sent), 1);
                fill_many(context, *values, to, sent, reply);
            }
            Then::Content { keys, holds } => {
                keys.iter().for_each(|id| context.shared.coherence.poison(*id));
                open_all(context, reply, holds, move |_, reply| answer(to, reply));
            }
            Then::Write { written, holds } => {
                written.end(context, failed);
                open_all(context, reply, holds, move |_, reply| answer(to, reply));
            }
            Then::Elements { written, told, holds } => {
                if let Some(written) = written {
                    written.end(context, failed);
                }
                told.iter().for_each(|id| context.shared.coherence.poison(*id));
                open_all(context, reply, holds, move |_, reply| answer(to, reply));
            }
            Then::Select { db } => select(context, to, db, reply.bytes()),
            Then::Greet { greeting, back } => {
                let (first, rest) = if back { split_first(reply.bytes()) } else { (reply.bytes(), &[][..]) };
                let back = back.then_some(rest);
                if let Some((outlet, slot)) = to {
                    login::greeted(context, &outlet, slot, greeting.map(|greeting| *greeting), first, back);
                }
                login::next_at_the_door(context);
            }
            Then::Proxy { .. } if failed => answer(to, Reply::Borrowed(NOT_ALLOWED)),
            Then::Proxy { args } => {
                let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                answer(to, Reply::Owned(context.shared.windows.proxy(&args).into()));
            }
            Then::Info { added } => {
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
            Then::Call { then, .. } => then(context, Ok(reply)),
            Then::Session { session, then } => return in_session(context, session, *then, to, sent, reply),
        }
        None
    }
}

#[inline]
pub(super) fn answer(to: Option<(Rc<Outlet>, Slot)>, reply: Reply<'_>) {
    if let Some((outlet, slot)) = to {
        outlet.fill(slot, reply);
    }
}

/// Whether the server says that it is a replica, or became one. A script can say the same.
fn tells_of_a_replica(error: &[u8]) -> bool {
    [&b"-READONLY"[..], b"-MASTERDOWN", b"-UNBLOCKED force"].iter().any(|begin| error.starts_with(begin))
}

/// Answers with the error. Whoever Redis does not let in any more is gone with that.
pub(super) fn tell_lost(outlet: &Outlet, slot: Slot, why: &Lost) {
    let mut out = Vec::new();
    build::error(&mut out, why.text());
    end_lost(outlet, slot, &out, why);
}

fn end_lost(outlet: &Outlet, slot: Slot, error: &[u8], why: &Lost) {
    if outlet.user_ended.get() {
        return outlet.fill(slot, Reply::Borrowed(b""));
    }
    outlet.fill(slot, Reply::Borrowed(error));
    if why.is_login_refused() {
        outlet.close();
    }
}

impl Reader {
    /// Tells the reader that there will be no answer.
    pub(super) fn lose(self, why: &Lost) {
        let mut error = Vec::new();
        build::error(&mut error, why.text());
        end_lost(&self.outlet, self.slot, &error, why);
    }
}

/// The beginning of a bulk string of which not all has come.
fn value_begun(beginning: &[u8]) -> Option<&[u8]> {
    let end = memchr::memchr(b'\n', beginning)?;
    beginning.starts_with(b"$").then(|| &beginning[end + 1..])
}

const NOT_ALLOWED: &[u8] = b"-NOPERM shortstop: this is for users whom Redis allows CONFIG\r\n";

/// The first of several replies, and the others.
pub(super) fn split_first(replies: &[u8]) -> (&[u8], &[u8]) {
    let Ok(Some(end)) = ReplyScanner::default().scan(replies) else {
        unreachable!("the connection hands over complete replies");
    };
    replies.split_at(end)
}

fn select(context: &Context, to: Option<(Rc<Outlet>, Slot)>, db: u32, replies: &[u8]) {
    let (first, back) = split_first(replies);
    let Some((outlet, slot)) = to else { return };
    let (identity, before, version) = (outlet.profile.identity(), outlet.profile.db(), outlet.profile.version());
    if first == b"+OK\r\n" {
        outlet.profile.set_db(db);
    }
    outlet.fill(slot, Reply::Borrowed(first));
    if first.starts_with(b"-NO") {
        // The right was taken away: the next SELECT goes over a connection of its own again.
        identity.may_select.set(false);
    }
    if first == b"+OK\r\n" && back != b"+OK\r\n" {
        // The lane is in no known database any more.
        context.drop_lane(&identity, before, version);
    }
}
