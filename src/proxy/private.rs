//! Commands that need a connection of their own, and what their replies change of it: blocking ones, subscriptions, MONITOR, the Lua
//! debugger, and whatever leaves something behind. Transactions have a file of their own.

use std::rc::Rc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::coherence::ServePermit;
use crate::command::{Class, Row, Verb};
use crate::errors;
use crate::near_cache::KeyId;
use crate::resp::build;
use crate::upstream::{Link, Lost, Reply};

use crate::client_state::connection_state::{Kind, Reason, Sent};
use crate::client_state::reply_queue::{ReplyQueue, Slot};
use crate::client_state::session::Session;
use crate::exchange::exec_demux::Subscribed;
use crate::exchange::write_guard::WriteGuard;
use crate::proxy::auth::Greeting;
use crate::proxy::request::{Replacements, Request};
use crate::proxy::transaction::{self, Queued};
use crate::proxy::wait::waits_for_replicas;
use crate::proxy::{Call, Client, Next, Replies, Target};
use crate::replies::decode::ReplyShape;
use crate::replies::deliver::{Callback, OnReply, Pending, answer};
use crate::worker_state::context::{Context, View};
use crate::worker_state::turns::Place;

/// What a reply changes of a session.
pub(crate) enum InSession {
    /// A command that begins or ends state, or leaves nothing.
    Sent(Sent),
    /// EXEC: what was queued is done, or nothing of it.
    Exec(Queued),
    /// A command that nobody knows: what it may change, and leave on the connection.
    Unknown(WriteGuard),
    /// Shortstop's own command behind an EXEC: the messages of the transaction have come.
    BehindExec,
    /// The client's SELECT of this database.
    Select(u32),
    /// Shortstop's own SELECT of this database, on a connection that was made in advance.
    Move(u32),
    /// HELLO or AUTH.
    Greet(Greeting),
    /// SCRIPT DEBUG: whether the next script is to be run by the debugger.
    ScriptDebug(bool),
    /// A script that is run by the debugger, unless Redis refuses it: it may change anything, until the connection ends.
    Debugged(WriteGuard),
    /// The debugger talks; there are no replies any more, and Redis ends the connection.
    Raw(WriteGuard),
    /// MONITOR.
    Monitor,
    /// A command of the SUBSCRIBE family: so many acknowledgements are due. `muted`: an error would not be told.
    Acknowledge { kind: Kind, left: usize, muted: bool },
    /// May wait for long. What it changes, and what it tells of, as [`OnReply::Content`] does.
    Blocked { guard: WriteGuard, observed: SmallVec<[KeyId; 1]> },
}

impl Client {
    /// Whether what the client sends is passed on as it comes, and so is what it gets.
    pub fn is_raw(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_in_raw())
    }

    /// Passes bytes on. Tells how many were taken; the client is woken when there is room for more.
    pub fn pass_raw(&self, bytes: &[u8]) -> usize {
        self.session.as_ref().map_or(0, |session| session.pass_on(bytes))
    }

    /// The client sends nothing more.
    pub fn finish_raw(&self) {
        if let Some(session) = &self.session {
            session.link.finish();
        }
    }

    /// The client has taken some of what it got.
    pub fn raw_was_taken(&self) {
        if let Some(session) = &self.session {
            session.link.wake();
        }
    }

    /// A script that Redis's debugger runs. It talks with the client until it ends the connection, and no reply tells what is
    /// written meanwhile.
    pub(crate) fn debug(&mut self, permit: &ServePermit, call: Call<'_>, session: Rc<Session>) -> Next {
        if session.in_multi() {
            return self.abort_transaction(permit, &session, &errors::DEBUGGER_IN_MULTI);
        }
        if call.row.name.is_empty() {
            return self.refuse_own(&errors::UNKNOWN_TO_DEBUGGER);
        }
        if self.reply_queue.outstanding() > 0 {
            return Next::Again;
        }
        if let Err(lost) = session.link.check() {
            return self.unavailable(&lost);
        }
        let mut guard = WriteGuard::default();
        guard.begin_debugged(&self.context);
        // The debugger is not muted (CLIENT REPLY OFF).
        let replies = std::mem::replace(&mut self.replies, Replies::On);
        let link = session.link.clone();
        let on_reply = OnReply::session(&session, InSession::Debugged(guard));
        self.send(permit.now, &link, on_reply, u64::MAX, |wire| call.request.write(wire, Replacements::new()));
        self.replies = replies;
        Next::Pause
    }

    /// The client's session. None: older replies are still due, and the order of execution would not be kept; or all private
    /// connections are in use, and the client waits for one.
    ///
    /// # Errors
    /// Redis is away, or there was no private connection in time.
    pub(crate) fn enter_session(&mut self, permit: &ServePermit) -> Result<Option<Rc<Session>>, Lost> {
        if let Some(session) = &self.session {
            return Ok(Some(Rc::clone(session)));
        }
        if self.reply_queue.outstanding() > 0 {
            return Ok(None);
        }
        // When Redis is known to be away, say so at once instead of finding out with another connection.
        let profile = &self.reply_queue.profile;
        if let Err(lost) = profile.lane(&self.context)
            && !lost.may_pass()
        {
            self.leave_line();
            return Err(lost);
        }
        let identity = profile.identity();
        if let Some(session) = self.reply_queue.info.offered.take() {
            if !session.fits(&identity, profile.version()) {
                session.end(&self.context);
            } else if session.link.db() == profile.db() {
                self.session = Some(Rc::clone(&session));
                return Ok(Some(session));
            } else if session.link.check().is_ok() {
                self.move_offered(session);
                return Ok(None);
            } else {
                session.end(&self.context);
            }
        }
        match self.context.take_place(&self.reply_queue, &mut self.turn, permit.now) {
            Place::Taken => {}
            Place::Later => return Ok(None),
            Place::None(lost) => return Err(lost),
        }
        let profile = &self.reply_queue.profile;
        let link = self.context.session(&identity, profile.db(), profile.version());
        let session = Rc::new(Session::new(link, identity, Rc::clone(&self.reply_queue)));
        *self.reply_queue.info.session.borrow_mut() = Rc::downgrade(&session);
        self.session = Some(Rc::clone(&session));
        Ok(Some(session))
    }

    /// A command that leaves nothing on its connection and must not wait behind others (SCRIPT KILL): it gets a connection of its
    /// own, which is closed after it. The connection selects no database: Redis refuses SELECT while a script runs.
    pub(crate) fn alone(&mut self, permit: &ServePermit, call: Call<'_>) -> Next {
        if self.reply_queue.outstanding() > 0 {
            return Next::Again;
        }
        let profile = &self.reply_queue.profile;
        // When Redis is known to be away, say so at once. Busy with a script it is there all the same.
        if let Err(lost) = profile.lane(&self.context)
            && !lost.is_busy()
        {
            return self.unavailable(&lost);
        }
        let link = self.context.connection_for_one(&profile.identity(), profile.version());
        if call.row.name.as_ref() == "shutdown" {
            self.shut_down(permit, call, &link);
        } else {
            let on_reply = OnReply::Pass { repeat: false };
            self.send(permit.now, &link, on_reply, u64::MAX, |wire| call.request.write(wire, Replacements::new()));
        }
        link.retire();
        Next::Pause
    }

    /// Asks Redis to end. If Redis does, the client's connection ends without an answer, as it would at Redis.
    fn shut_down(&mut self, permit: &ServePermit, call: Call<'_>, link: &Link<Pending>) {
        let (reply_queue, slot) = (Rc::clone(&self.reply_queue), self.reply_queue.open(self.is_muted()));
        let on_reply: Callback = Box::new(move |_, reply| match reply {
            Ok(reply) => reply_queue.fill(slot, reply),
            Err(_) => {
                reply_queue.fill(slot, Reply::Borrowed(b""));
                reply_queue.close();
            }
        });
        self.in_flight = u64::MAX;
        self.context.stats().upstream_commands.add(1);
        let on_reply = OnReply::Call { replies: 1, repeat: false, on_reply };
        link.send(Pending { to: None, sent: permit.now, on_reply }, |wire| {
            call.request.write(wire, Replacements::new())
        });
    }

    /// The client does not wait for a private connection any more.
    pub(crate) fn leave_line(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.context.leave_line(turn);
        }
    }

    /// Answers that Shortstop could not have a command executed. When that changes what the commands behind it mean, the client is
    /// closed, so that none of these is executed.
    pub(crate) fn not_done(&self, row: &Row, lost: &Lost) -> Next {
        let next = self.unavailable(lost);
        if changes_what_follows(row) { Next::Close } else { next }
    }

    /// Puts a connection that was made in advance into the database that the client is in by now. Nothing is sent on it before Redis
    /// has agreed. If Redis does not, the client gets another one.
    fn move_offered(&mut self, session: Rc<Session>) {
        let db = self.reply_queue.profile.db();
        // The client hears nothing of it; what it has asked waits.
        let slot = self.reply_queue.open(true);
        let on_reply = OnReply::session(&session, InSession::Move(db));
        self.context.stats().upstream_commands.add(1);
        let waiting = Pending { to: Some((Rc::clone(&self.reply_queue), slot)), sent: Instant::now(), on_reply };
        session.link.send(waiting, |wire| {
            wire.push_with(|out| build::request(out, [&b"SELECT"[..], db.to_string().as_bytes()].into_iter()));
        });
        *self.reply_queue.info.offered.borrow_mut() = Some(session);
    }

    /// A command that needs a connection of its own.
    pub(crate) fn with_session(
        &mut self,
        view: &View,
        permit: &ServePermit,
        call: Call<'_>,
        session: Rc<Session>,
    ) -> Next {
        if let Err(lost) = session.link.check() {
            return self.not_done(call.row, &lost);
        }
        let verb = call.row.verb;
        let subscription = match verb {
            Verb::Subscribe | Verb::Unsubscribe => Some(Kind::Channel),
            Verb::PSubscribe | Verb::PUnsubscribe => Some(Kind::Pattern),
            Verb::SSubscribe | Verb::SUnsubscribe => Some(Kind::Shard),
            _ => None,
        };
        if let Some(kind) = subscription {
            return self.subscribe(permit, call, &session, kind);
        }
        if session.in_multi() {
            return match verb {
                // Refused by Redis, and the transaction goes on.
                Verb::Multi | Verb::Watch => self.pass(permit, call, Target::Session(session)),
                _ => self.queue(view, permit, call, &session),
            };
        }
        let own = |on_reply| OnReply::session(&session, on_reply);
        let (on_reply, next) = match verb {
            Verb::Multi => (own(InSession::Sent(Sent::Multi)), Next::Pause),
            Verb::Watch => {
                session.begin_watch();
                (own(InSession::Sent(Sent::Watch)), Next::Go)
            }
            Verb::Monitor => (own(InSession::Monitor), Next::Pause),
            Verb::Blocking | Verb::XRead | Verb::XReadGroup => {
                let mut guard = if call.row.is_write() { self.write_guard(view, call) } else { WriteGuard::default() };
                guard.begin_blocking(&self.context);
                let observed = if self.is_told(view, call.row) { self.ids(call) } else { SmallVec::new() };
                session.block();
                (own(InSession::Blocked { guard, observed }), Next::Go)
            }
            _ if leaves_nothing(call.row) => (own(InSession::Sent(Sent::Plain)), Next::Go),
            _ if call.row.name.as_ref() == "script|debug" => {
                (own(InSession::ScriptDebug(!call.args[2].eq_ignore_ascii_case(b"no"))), Next::Pause)
            }
            _ if call.row.name.is_empty() => {
                // Nobody knows it: if Redis does, it may have changed anything.
                let mut guard = WriteGuard::default();
                guard.add_any();
                (own(InSession::Unknown(guard)), Next::Pause)
            }
            Verb::Debug => {
                // Redis pushes before it replies, or behind the reply (Redis from 7.2, Valkey). What is answered here waits for both.
                session.bind(Reason::Setting);
                (own(InSession::Sent(Sent::Plain)), Next::Pause)
            }
            _ => (own(InSession::Sent(Sent::Setting)), Next::Pause),
        };
        self.send(permit.now, &session.link, on_reply, u64::MAX, |wire| call.request.write(wire, Replacements::new()));
        next
    }

    fn subscribe(&mut self, permit: &ServePermit, call: Call<'_>, session: &Rc<Session>, kind: Kind) -> Next {
        let named = call.args.len() - 1;
        if session.in_multi() {
            // Redis from 7.2 and Valkey send messages of the transaction behind EXEC's reply, also those of channels that it leaves.
            session.bind(Reason::Setting);
            session.queue(|queued| {
                let (at, word) = (queued.shape.len(), call.row.name.clone());
                queued.commands.subscribed.push(Subscribed { at, kind, word, named });
                queued.shape.push(ReplyShape::Nothing);
            });
            return self.pass(permit, call, Target::Session(Rc::clone(session)));
        }
        if (!session.is_subscribed() || named == 0) && self.reply_queue.outstanding() > 0 {
            return Next::Again;
        }
        // Without names: everything, and one acknowledgement even for nothing.
        let left = if named > 0 { named } else { session.subscriptions(kind).max(1) };
        session.begin_acknowledging();
        // Acknowledgements are not muted, as messages are not (CLIENT REPLY OFF).
        let muted = self.is_muted();
        let replies = std::mem::replace(&mut self.replies, Replies::On);
        let on_reply = OnReply::session(session, InSession::Acknowledge { kind, left, muted });
        self.send(permit.now, &session.link, on_reply, u64::MAX, |wire| call.request.write(wire, Replacements::new()));
        self.replies = replies;
        Next::Go
    }

    /// The connection is a stream: what the client says is passed on, and what comes is passed back.
    pub(crate) fn beside_monitor(
        &mut self,
        view: &View,
        permit: &ServePermit,
        session: &Rc<Session>,
        request: Request<'_>,
    ) -> Next {
        let name = request.arg(0);
        if name.eq_ignore_ascii_case(b"quit") {
            self.answer(b"+OK\r\n");
            return Next::Close;
        }
        if name.eq_ignore_ascii_case(b"reset") {
            return self.reset(permit);
        }
        if session.link.check().is_err() {
            return Next::Close;
        }
        // Nobody would see the reply, and do what has to be done with it.
        let row = view.table.resolve(&request.words());
        let is_ours = matches!(row.verb, Verb::Client | Verb::Hello | Verb::Auth) || waits_for_replicas(row, name);
        if row.is_write() || is_ours {
            return self.refuse_own(&errors::BESIDE_MONITOR);
        }
        session.link.send_unanswered(request.raw);
        Next::Go
    }
}

/// Whether what the client sends behind a command means something else when the command is not executed: it would be executed
/// outside of the transaction, in another database, as another user, or in another protocol.
fn changes_what_follows(row: &Row) -> bool {
    match row.verb {
        Verb::Select | Verb::Hello | Verb::Auth => true,
        Verb::XRead | Verb::XReadGroup => false,
        _ => row.class == Class::Session && !leaves_nothing(row),
    }
}

/// Commands that leave nothing on a connection. They need one of their own only because they must not wait behind others.
pub(crate) fn leaves_nothing(row: &Row) -> bool {
    matches!(row.name.as_ref(), "script|kill" | "function|kill" | "function|stats" | "shutdown" | "client|unpause")
}

pub(crate) fn in_session(
    context: &Context,
    session: Rc<Session>,
    on_reply: InSession,
    to: Option<(Rc<ReplyQueue>, Slot)>,
    sent: Instant,
    reply: Reply<'_>,
) -> Option<Pending> {
    let failed = reply.bytes().first() == Some(&b'-');
    match on_reply {
        InSession::Sent(sent) => {
            session.answered(sent, reply.bytes());
            // If the answer bound the connection, Redis may push messages on it from now on.
            session.listen_if_bound();
        }
        InSession::Exec(queued) => return transaction::ended(context, session, queued, to, sent, reply),
        InSession::BehindExec => session.set_behind_exec(false),
        InSession::Unknown(guard) => {
            if !reply.bytes().starts_with(b"-ERR unknown command") {
                session.bind(Reason::Setting);
                guard.end(context, failed);
            }
        }
        InSession::Select(db) => {
            session.selected(db, reply.bytes());
        }
        InSession::Move(db) => {
            if !session.moved(db, reply.bytes()) {
                session.bind(Reason::Unproven);
            }
        }
        InSession::Greet(greeting) => {
            if !failed {
                if !greeting.is_understood {
                    // Redis agreed to what Shortstop does not understand: a newer server.
                    session.bind(Reason::Login);
                }
                session.greeted(&greeting);
                let reply = greeting.own_number(reply.bytes());
                if let Some((reply_queue, slot)) = to {
                    greeting.apply(context, &reply_queue);
                    reply_queue.fill(slot, Reply::Owned(reply));
                }
                return None;
            }
        }
        InSession::ScriptDebug(debugs) => {
            if !failed {
                session.bind(Reason::Setting);
                session.set_debugs(debugs);
            }
        }
        InSession::Debugged(guard) => {
            if !failed {
                session.begin_raw();
                answer(to, reply);
                let on_reply = OnReply::session(&session, InSession::Raw(guard));
                return Some(Pending { to: None, sent, on_reply });
            }
            guard.end(context, failed);
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
            if let (Some((reply_queue, slot)), true) = (&to, left > 0) {
                reply_queue.fill_part(*slot, Reply::Borrowed(reply.bytes()));
                let on_reply = OnReply::session(&session, InSession::Acknowledge { kind, left, muted });
                return Some(Pending { to, sent, on_reply });
            }
            if failed && muted {
                answer(to, Reply::Borrowed(b""));
                return None;
            }
        }
        InSession::Blocked { guard, observed } => {
            session.unblocked();
            session.answered(Sent::Plain, reply.bytes());
            guard.end(context, failed);
            observed.iter().for_each(|id| context.shared.coherence.poison(*id));
        }
    }
    answer(to, reply);
    None
}
