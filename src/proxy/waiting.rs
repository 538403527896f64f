//! What waits on an upstream connection for a reply, and what becomes of the reply: passed on, opened, kept, told.
//!
//! Runs on the upstream side: a client that has gone away changes nothing of what must happen to guards and tickets.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::coherence::Ticket;
use crate::command::Absent;
use crate::envelope;
use crate::near_cache::{Asked, EntryId, KeyId, Question};
use crate::resp::{Bulk, ReplyScanner, Version, build, bulk_of, elements, parse_int};
use crate::rules::CacheRule;
use crate::upstream::{Expected, Login, Lost, Reply};

use super::clients::{self, Wish};
use super::context::Context;
use super::flight::Flight;
use super::login::{self, Greeting};
use super::opening::{Holds, open_all, open_each, open_one};
use super::outlet::{Outlet, Slot};
use super::session::{Kind as Subscription, Session};
use super::weave::{Commands, Doubt, Woven};
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
    /// Something may be pushed before the reply, and belongs to it (DEBUG PROTOCOL push).
    Pushed,
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
    /// The first command that needs a connection of its own, or one that leaves something on it.
    Session { session: Rc<Session>, then: Box<InSession> },
}

/// Gets so many replies in one piece, or why there are none.
pub(super) type Called = Box<dyn FnOnce(&Context, Result<Reply<'_>, &Lost>)>;

/// What a reply changes of a session.
pub(super) enum InSession {
    /// MULTI.
    Multi,
    /// EXEC: what was queued is done, or nothing of it.
    Exec(Queued),
    /// The connection belongs to the client from now on, unless this is refused.
    Pin,
    /// A command that nobody knows: what it may change, and leave on the connection.
    Unknown(Written),
    /// A SELECT of this database.
    Select(u32),
    /// HELLO or AUTH.
    Greet(Greeting),
    /// SCRIPT DEBUG: whether the next script is to be run by the debugger.
    ScriptDebug(bool),
    /// A script that is run by the debugger, unless Redis refuses it: it may change anything, until the connection ends.
    Debugged(Written),
    /// The debugger talks; there are no replies any more, and Redis ends the connection.
    Raw(Written),
    /// MONITOR.
    Monitor,
    /// A command of the SUBSCRIBE family: so many acknowledgements are due. `muted`: an error would not be told.
    Acknowledge { kind: Subscription, left: usize, muted: bool },
    /// May wait for long. What it changes, and what it tells of, as [`Then::Content`] does.
    Blocked { written: Written, told: SmallVec<[KeyId; 1]> },
}

/// What is in a transaction.
#[derive(Default)]
pub(super) struct Queued {
    pub(super) written: Written,
    /// Per command.
    pub(super) holds: Vec<Holds>,
    /// Each SELECT: its place and its database.
    pub(super) selects: Vec<(usize, u32)>,
    /// What tells replies from what stands among them.
    pub(super) commands: Commands,
    /// What has come of EXEC's reply, if there may be more in it than elements.
    pub(super) woven: Option<Box<Woven>>,
    /// DEBUG PROTOCOL push is among them.
    pub(super) pushes: bool,
    /// Keys that are read: what L1 holds of them may be older than what EXEC tells.
    pub(super) read: Vec<KeyId>,
    /// Each command of the CLIENT family that is not Redis's alone: its place and what it stands for.
    pub(super) wishes: Vec<(usize, Wish)>,
    /// CLIENT REPLY ON is among them.
    pub(super) speaks: bool,
}

/// The keys of an MGET.
pub(super) struct Values {
    pub(super) keys: Vec<ValueKey>,
}

pub(super) struct ValueKey {
    pub(super) id: EntryId,
    pub(super) keep: Option<(Ticket, CacheRule, Asked)>,
}

/// What GET says when there is no such key, as L1 keeps it.
pub(super) const NO_VALUE: Absent = Absent::Only(b"$-1\r\n");

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
            Then::Rest | Then::Pushed | Then::Write { .. } | Then::Select { .. } | Then::Session { .. } => false,
        }
    }

    fn askers(&self) -> SmallVec<[usize; 1]> {
        let number = |outlet: &Rc<Outlet>| Rc::as_ptr(outlet).addr();
        let mut askers: SmallVec<[usize; 1]> = self.to.iter().map(|(outlet, _)| number(outlet)).collect();
        if let Then::Fill(flight) = &self.then {
            askers.extend(flight.readers.borrow().iter().map(|(outlet, ..)| number(outlet)));
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
                let mut out = Vec::new();
                build::error(&mut out, &text);
                for (outlet, slot, _) in flight.readers.take() {
                    outlet.fill(slot, Reply::Borrowed(&out));
                }
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
        answer(self.to, Reply::Borrowed(&out));
        if is_greeting {
            login::next_at_the_door(context);
        }
    }

    fn settled(context: &Context) {
        context.publish();
    }

    fn reconnected(context: &Context) {
        context.stats().upstream_reconnects.add(1);
        // It may be another server, or the same with other data.
        context.shared.coherence.flush("an upstream connection was lost");
    }

    fn login_refused(context: &Context, login: &Rc<Login>, why: &Lost) {
        context.refuse(login, why);
    }
}

impl Waiting {
    /// Does what is to be done with the reply, and hands back what waits for more.
    fn act(self, context: &Context, reply: Reply<'_>, now: Instant) -> Option<Waiting> {
        let failed = reply.bytes().first() == Some(&b'-');
        let Waiting { to, sent, then } = self;
        match then {
            Then::Pass { .. } | Then::Rest => answer(to, reply),
            Then::Pushed if reply.bytes().starts_with(b">") => {
                match &to {
                    // What is pushed is heard all the same (CLIENT REPLY OFF).
                    Some((outlet, slot)) if outlet.is_muted(*slot) => outlet.push(reply.bytes()),
                    Some((outlet, slot)) => outlet.fill_part(*slot, reply),
                    None => {}
                }
                return Some(Waiting { to, sent, then });
            }
            Then::Pushed => answer(to, reply),
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
fn answer(to: Option<(Rc<Outlet>, Slot)>, reply: Reply<'_>) {
    if let Some((outlet, slot)) = to {
        outlet.fill(slot, reply);
    }
}

/// The beginning of a bulk string of which not all has come.
fn value_begun(beginning: &[u8]) -> Option<&[u8]> {
    let end = memchr::memchr(b'\n', beginning)?;
    beginning.starts_with(b"$").then(|| &beginning[end + 1..])
}

/// The flight has ended: later readers make their own.
fn forget(context: &Context, flight: &Rc<Flight>) {
    let mut flights = context.flights.borrow_mut();
    if flights.get(&flight.id).is_some_and(|known| Rc::ptr_eq(known, flight)) {
        flights.remove(&flight.id);
    }
}

fn fill(context: &Context, flight: Rc<Flight>, to: Option<(Rc<Outlet>, Slot)>, sent: Instant, reply: Reply<'_>) {
    let Ok(Some(end)) = ReplyScanner::default().scan(reply.bytes()) else {
        unreachable!("the connection hands over complete replies");
    };
    let pttl = pttl(&reply.bytes()[end..]);
    let first = match &reply {
        Reply::Borrowed(bytes) => Reply::Borrowed(&bytes[..end]),
        Reply::Owned(bytes) => Reply::Owned(bytes.slice(..end)),
    };
    if flight.asked.question().is_get() {
        open_one(context, first, move |context, reply| land(context, &flight, to, sent, pttl, reply));
    } else {
        land(context, &flight, to, sent, pttl, first);
    }
}

fn land(
    context: &Context,
    flight: &Rc<Flight>,
    to: Option<(Rc<Outlet>, Slot)>,
    sent: Instant,
    pttl: Option<i64>,
    reply: Reply<'_>,
) {
    // Out of the map before anything is delivered: nobody joins what is over.
    forget(context, flight);
    let question = flight.asked.question();
    let lives = lives(&flight.rule, &question, flight.absent, pttl, reply.bytes());
    keep(context, flight.id, &question, flight.ticket.take().zip(lives), sent, reply.bytes());
    for (outlet, slot, version) in flight.readers.take() {
        let reply = if question.is_get() { in_version(kept_as(reply.bytes()), version) } else { reply.bytes() };
        outlet.fill(slot, Reply::Borrowed(reply));
    }
    answer(to, reply);
}

/// How long a reply may be kept; none: not at all.
fn lives(
    rule: &CacheRule,
    question: &Question<'_>,
    absent: Absent,
    pttl: Option<i64>,
    reply: &[u8],
) -> Option<Duration> {
    let reply = if question.is_get() { kept_as(reply) } else { reply };
    let size = match bulk_of(reply) {
        Bulk::Value(value) => value.len(),
        Bulk::Null => 0,
        // A list is no string, and an error is no answer.
        _ if question.is_get() || matches!(reply.first(), Some(b'-' | b'!') | None) => return None,
        _ => reply.len(),
    };
    let says_absent = absent.is(reply);
    match pttl? {
        // Absent, and there a moment later.
        -1 | 1.. if says_absent && matches!(absent, Absent::Only(_)) => None,
        -1 => Some(rule.ttl),
        left @ 1.. => Some(rule.ttl.min(Duration::from_millis(left.unsigned_abs()))),
        // Absent, and so it was a moment later.
        -2 if says_absent && !rule.negative_ttl.is_zero() => Some(rule.negative_ttl),
        _ => None,
    }
    .filter(|_| size <= rule.max_value)
}

/// Keeps a reply that was read with a ticket, or, if it may not be kept, sees to it that nothing older is.
fn keep(
    context: &Context,
    id: EntryId,
    question: &Question<'_>,
    lives: Option<(Ticket, Duration)>,
    sent: Instant,
    reply: &[u8],
) {
    let reply = if question.is_get() { kept_as(reply) } else { reply };
    let kept = lives
        .is_some_and(|(ticket, lives)| ticket.redeem(sent, sent + lives.min(context.max_staleness()), question, reply));
    if !kept {
        context.shared.coherence.observe(id, reply);
    }
}

/// A value of L1 in a client's protocol. It is the same in both; that there is none is kept as RESP2 says it.
#[inline]
pub(super) fn in_version(reply: &[u8], version: Version) -> &[u8] {
    if reply == Version::Resp2.null() { version.null() } else { reply }
}

/// As L1 keeps it: that there is no value, in the words of RESP2.
fn kept_as(reply: &[u8]) -> &[u8] {
    if reply == Version::Resp3.null() { Version::Resp2.null() } else { reply }
}

fn fill_many(context: &Context, values: Values, to: Option<(Rc<Outlet>, Slot)>, sent: Instant, reply: Reply<'_>) {
    let Ok(Some(end)) = ReplyScanner::default().scan(reply.bytes()) else {
        unreachable!("the connection hands over complete replies");
    };
    let mut ttls = Vec::new();
    let mut rest = &reply.bytes()[end..];
    while let Ok(Some(length)) = ReplyScanner::default().scan(rest) {
        ttls.push(pttl(&rest[..length]));
        rest = &rest[length..];
        if rest.is_empty() {
            break;
        }
    }
    let array = match &reply {
        Reply::Borrowed(bytes) => Reply::Borrowed(&bytes[..end]),
        Reply::Owned(bytes) => Reply::Owned(bytes.slice(..end)),
    };
    open_all(context, array, Holds::Values, move |context, reply| {
        let mut ttls = ttls.into_iter();
        if let Some(elements) = elements(reply.bytes()) {
            for (key, element) in values.keys.into_iter().zip(elements) {
                match key.keep {
                    Some((ticket, rule, asked)) => {
                        let question = asked.question();
                        let lives = lives(&rule, &question, NO_VALUE, ttls.next().flatten(), element);
                        keep(context, key.id, &question, lives.map(|lives| (ticket, lives)), sent, element);
                    }
                    None => context.shared.coherence.observe(key.id, kept_as(element)),
                }
            }
        }
        answer(to, reply);
    });
}

fn pttl(reply: &[u8]) -> Option<i64> {
    parse_int(reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?)
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
    if first == b"+OK\r\n" && back != b"+OK\r\n" {
        // The lane is in no known database any more.
        context.drop_lane(&identity, before, version);
    }
}

const IN_DOUBT: &[u8] =
    b"-ERR shortstop: a message came among the replies of EXEC and could not be told from them; the \
                           transaction was executed\r\n";

/// Finds the replies among what has come of EXEC's. `false`: more is to come.
fn tell_apart(session: &Rc<Session>, queued: &mut Queued, come: &[u8]) -> Result<bool, Doubt> {
    let mut rest = come;
    if queued.woven.is_none() {
        let mixes = queued.pushes || session.may_push() || !queued.commands.subscribed.is_empty();
        let count = elements(come).filter(|_| mixes && come.starts_with(b"*")).map_or(0, Iterator::count);
        // None: it was not executed.
        if count == 0 || count != queued.holds.len() {
            return Ok(true);
        }
        queued.woven = Some(Box::new(Woven::of(count)));
        rest = &come[memchr::memchr(b'\n', come).map_or(0, |end| end + 1)..];
    }
    let Some(woven) = &mut queued.woven else { return Ok(true) };
    while !rest.is_empty() {
        let (frame, others) = split_first(rest);
        woven.add(session, &queued.commands, frame)?;
        rest = others;
    }
    let whole = woven.missing() == 0;
    session.set_in_exec(!whole);
    Ok(whole)
}

fn in_session(
    context: &Context,
    session: Rc<Session>,
    then: InSession,
    to: Option<(Rc<Outlet>, Slot)>,
    sent: Instant,
    reply: Reply<'_>,
) -> Option<Waiting> {
    let failed = reply.bytes().first() == Some(&b'-');
    match then {
        InSession::Multi => {
            if reply.bytes() == b"+OK\r\n" {
                session.begin_multi();
            }
        }
        InSession::Exec(mut queued) => {
            let told_apart = tell_apart(&session, &mut queued, reply.bytes());
            if matches!(told_apart, Ok(false)) {
                let then = Then::session(&session, InSession::Exec(queued));
                return Some(Waiting { to, sent, then });
            }
            let Queued { mut written, mut holds, selects, woven, read, wishes, .. } = queued;
            written.always();
            if told_apart.is_err() {
                written.end(context, failed);
                answer(to, Reply::Borrowed(IN_DOUBT));
                session.give_up();
                return None;
            }
            if let (Some(woven), Some((outlet, slot))) = (&woven, &to)
                && outlet.is_muted(*slot)
            {
                outlet.push(woven.pushed());
            }
            let reply = woven.as_ref().map_or(reply, |woven| Reply::Owned(woven.reply().into()));
            let answer = move |to, reply: Reply<'_>| match &woven {
                Some(woven) => answer(to, Reply::Owned(woven.back(reply.bytes()).into())),
                None => answer(to, reply),
            };
            written.end(context, failed);
            read.iter().for_each(|id| context.shared.coherence.poison(*id));
            let element = |at| elements(reply.bytes()).and_then(|mut all| all.nth(at));
            let mut version = session.link.version();
            let mut greetings = wishes.iter().filter_map(|(at, wish)| match wish {
                Wish::Greet(greeting) => Some((*at, greeting)),
                _ => None,
            });
            let mut greeting = greetings.next();
            for (at, holds) in holds.iter_mut().enumerate() {
                if let Some((_, agreed)) = greeting.take_if(|(place, _)| *place == at) {
                    if element(at).is_some_and(|element| !element.starts_with(b"-")) {
                        // Before anything else can come that is said in another protocol; the client learns of it with the reply.
                        session.greeted(agreed);
                        version = agreed.version.unwrap_or(version);
                    }
                    greeting = greetings.next();
                }
                if *holds == Holds::Map && version == Version::Resp2 {
                    *holds = Holds::Nothing;
                }
            }
            for (at, db) in selects {
                if element(at) == Some(b"+OK\r\n") {
                    session.selected(db);
                }
            }
            match &to {
                Some((outlet, _)) if !wishes.is_empty() => {
                    let outlet = Rc::clone(outlet);
                    clients::settle_all(context, outlet, wishes, reply.bytes(), move |context, reply| {
                        open_each(context, reply, holds, move |_, reply| answer(to, reply));
                    });
                }
                _ => open_each(context, reply, holds, move |_, reply| answer(to, reply)),
            }
            return None;
        }
        InSession::Pin => {
            if !failed {
                session.pin();
            }
        }
        InSession::Unknown(written) => {
            if !reply.bytes().starts_with(b"-ERR unknown command") {
                session.pin();
                written.end(context, failed);
            }
        }
        InSession::Select(db) => {
            if !failed {
                session.selected(db);
            }
        }
        InSession::Greet(greeting) => {
            if !failed {
                session.greeted(&greeting);
                let reply = greeting.own_number(reply.bytes());
                if let Some((outlet, slot)) = to {
                    greeting.apply(context, &outlet);
                    outlet.fill(slot, Reply::Owned(reply));
                }
                return None;
            }
        }
        InSession::ScriptDebug(debugs) => {
            if !failed {
                session.pin();
                session.set_debugs(debugs);
            }
        }
        InSession::Debugged(written) => {
            if !failed {
                session.begin_raw();
                answer(to, reply);
                let then = Then::session(&session, InSession::Raw(written));
                return Some(Waiting { to: None, sent, then });
            }
            written.end(context, failed);
        }
        InSession::Raw(_) => unreachable!("a raw connection has no replies"),
        InSession::Monitor => {
            if !failed {
                session.begin_monitor();
            }
        }
        InSession::Acknowledge { kind, left, muted } => {
            // An error answers the whole command.
            let left = if failed { 0 } else { left - 1 };
            session.acknowledged(kind, reply.bytes(), left == 0);
            if let (Some((outlet, slot)), true) = (&to, left > 0) {
                outlet.fill_part(*slot, Reply::Borrowed(reply.bytes()));
                let then = Then::session(&session, InSession::Acknowledge { kind, left, muted });
                return Some(Waiting { to, sent, then });
            }
            if failed && muted {
                answer(to, Reply::Borrowed(b""));
                return None;
            }
        }
        InSession::Blocked { written, told } => {
            session.unblocked();
            written.end(context, failed);
            told.iter().for_each(|id| context.shared.coherence.poison(*id));
        }
    }
    answer(to, reply);
    None
}
