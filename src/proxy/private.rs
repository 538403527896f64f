//! Commands that need a connection of their own, and what their replies change of it: blocking ones, subscriptions, MONITOR, the Lua
//! debugger, and whatever leaves something behind. Transactions have a file of their own.

use std::rc::Rc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::coherence::Permit;
use crate::command::{Class, Row, Verb};
use crate::near_cache::KeyId;
use crate::resp::build;
use crate::upstream::{Link, Lost, Reply};

use super::connection_state::{Kind, Reason, Sent};
use super::context::{Context, View};
use super::login::Greeting;
use super::opening::Holds;
use super::outlet::{Outlet, Slot};
use super::request::{Replacements, Request};
use super::session::Session;
use super::transaction::{self, Queued};
use super::turns::Place;
use super::wait::waits_for_replicas;
use super::waiting::{Called, Then, Waiting, answer};
use super::weave::Subscribed;
use super::written::Written;
use super::{Call, Client, Next, Replies, Target};

/// What a reply changes of a session.
pub(super) enum InSession {
    /// A command that begins or ends state, or leaves nothing.
    Sent(Sent),
    /// EXEC: what was queued is done, or nothing of it.
    Exec(Queued),
    /// A command that nobody knows: what it may change, and leave on the connection.
    Unknown(Written),
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
    Debugged(Written),
    /// The debugger talks; there are no replies any more, and Redis ends the connection.
    Raw(Written),
    /// MONITOR.
    Monitor,
    /// A command of the SUBSCRIBE family: so many acknowledgements are due. `muted`: an error would not be told.
    Acknowledge { kind: Kind, left: usize, muted: bool },
    /// May wait for long. What it changes, and what it tells of, as [`Then::Content`] does.
    Blocked { written: Written, told: SmallVec<[KeyId; 1]> },
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
    pub(super) fn debug(&mut self, permit: &Permit, call: Call<'_>, session: Rc<Session>) -> Next {
        if session.in_multi() {
            let text = "ERR shortstop: what the debugger says in a transaction cannot be told from replies; send EVAL outside \
                        of MULTI, or SCRIPT DEBUG NO before it";
            return self.spoil(permit, &session, text);
        }
        if call.row.name.is_empty() {
            return self.refuse(
                "ERR shortstop: this command is not in the server's COMMAND table, and could start the debugger; send \
                 SCRIPT DEBUG NO before it",
            );
        }
        if self.outlet.outstanding() > 0 {
            return Next::Again;
        }
        if let Err(lost) = session.link.check() {
            return self.unavailable(&lost);
        }
        let mut written = Written::default();
        written.begin_debugged(&self.context);
        // The debugger is not muted (CLIENT REPLY OFF).
        let replies = std::mem::replace(&mut self.replies, Replies::On);
        let link = session.link.clone();
        let then = Then::session(&session, InSession::Debugged(written));
        self.send(permit.now, &link, then, u64::MAX, |wire| call.request.write(wire, Replacements::new()));
        self.replies = replies;
        Next::Pause
    }

    /// The client's session. None: older replies are still due, and the order of execution would not be kept; or all private
    /// connections are in use, and the client waits for one.
    ///
    /// # Errors
    /// Redis is away, or there was no private connection in time.
    pub(super) fn enter_session(&mut self, permit: &Permit) -> Result<Option<Rc<Session>>, Lost> {
        if let Some(session) = &self.session {
            return Ok(Some(Rc::clone(session)));
        }
        if self.outlet.outstanding() > 0 {
            return Ok(None);
        }
        // When Redis is known to be away, say so at once instead of finding out with another connection.
        let profile = &self.outlet.profile;
        if let Err(lost) = profile.lane(&self.context)
            && !lost.may_pass()
        {
            self.leave_line();
            return Err(lost);
        }
        let identity = profile.identity();
        if let Some(session) = self.outlet.entry.offered.take() {
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
        match self.context.take_place(&self.outlet, &mut self.turn, permit.now) {
            Place::Taken => {}
            Place::Later => return Ok(None),
            Place::None(lost) => return Err(lost),
        }
        let profile = &self.outlet.profile;
        let link = self.context.session(&identity, profile.db(), profile.version());
        let session = Rc::new(Session::new(link, identity, Rc::clone(&self.outlet)));
        *self.outlet.entry.session.borrow_mut() = Rc::downgrade(&session);
        self.session = Some(Rc::clone(&session));
        Ok(Some(session))
    }

    /// A command that leaves nothing on its connection and must not wait behind others (SCRIPT KILL): it gets a connection of its
    /// own, which is closed after it. The connection selects no database: Redis refuses SELECT while a script runs.
    pub(super) fn alone(&mut self, permit: &Permit, call: Call<'_>) -> Next {
        if self.outlet.outstanding() > 0 {
            return Next::Again;
        }
        let profile = &self.outlet.profile;
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
            let then = Then::Pass { repeat: false };
            self.send(permit.now, &link, then, u64::MAX, |wire| call.request.write(wire, Replacements::new()));
        }
        link.retire();
        Next::Pause
    }

    /// Asks Redis to end. If Redis does, the client's connection ends without an answer, as it would at Redis.
    fn shut_down(&mut self, permit: &Permit, call: Call<'_>, link: &Link<Waiting>) {
        let (outlet, slot) = (Rc::clone(&self.outlet), self.outlet.open(self.is_muted()));
        let then: Called = Box::new(move |_, reply| match reply {
            Ok(reply) => outlet.fill(slot, reply),
            Err(_) => {
                outlet.fill(slot, Reply::Borrowed(b""));
                outlet.close();
            }
        });
        self.ahead = u64::MAX;
        self.context.stats().upstream_commands.add(1);
        let then = Then::Call { replies: 1, repeat: false, then };
        link.send(Waiting { to: None, sent: permit.now, then }, |wire| call.request.write(wire, Replacements::new()));
    }

    /// The client does not wait for a private connection any more.
    pub(super) fn leave_line(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.context.leave_line(turn);
        }
    }

    /// Answers that Shortstop could not have a command executed. When that changes what the commands behind it mean, the client is
    /// closed, so that none of these is executed.
    pub(super) fn not_done(&self, row: &Row, lost: &Lost) -> Next {
        let next = self.unavailable(lost);
        if changes_what_follows(row) { Next::Close } else { next }
    }

    /// Puts a connection that was made in advance into the database that the client is in by now. Nothing is sent on it before Redis
    /// has agreed. If Redis does not, the client gets another one.
    fn move_offered(&mut self, session: Rc<Session>) {
        let db = self.outlet.profile.db();
        // The client hears nothing of it; what it has asked waits.
        let slot = self.outlet.open(true);
        let then = Then::session(&session, InSession::Move(db));
        self.context.stats().upstream_commands.add(1);
        let waiting = Waiting { to: Some((Rc::clone(&self.outlet), slot)), sent: Instant::now(), then };
        session.link.send(waiting, |wire| {
            wire.push_with(|out| build::request(out, [&b"SELECT"[..], db.to_string().as_bytes()].into_iter()));
        });
        *self.outlet.entry.offered.borrow_mut() = Some(session);
    }

    /// A command that needs a connection of its own.
    pub(super) fn with_session(&mut self, view: &View, permit: &Permit, call: Call<'_>, session: Rc<Session>) -> Next {
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
        let own = |then| Then::session(&session, then);
        let (then, next) = match verb {
            Verb::Multi => (own(InSession::Sent(Sent::Multi)), Next::Pause),
            Verb::Watch => {
                session.begin_watch();
                (own(InSession::Sent(Sent::Watch)), Next::Go)
            }
            Verb::Monitor => (own(InSession::Monitor), Next::Pause),
            Verb::Blocking | Verb::XRead | Verb::XReadGroup => {
                let mut written = if call.row.is_write() { self.written(view, call) } else { Written::default() };
                written.begin_blocking(&self.context);
                let told = if self.is_told(view, call.row) { self.ids(call) } else { SmallVec::new() };
                session.block();
                (own(InSession::Blocked { written, told }), Next::Go)
            }
            _ if leaves_nothing(call.row) => (own(InSession::Sent(Sent::Plain)), Next::Go),
            _ if call.row.name.as_ref() == "script|debug" => {
                (own(InSession::ScriptDebug(!call.args[2].eq_ignore_ascii_case(b"no"))), Next::Pause)
            }
            _ if call.row.name.is_empty() => {
                // Nobody knows it: if Redis does, it may have changed anything.
                let mut written = Written::default();
                written.add_any();
                (own(InSession::Unknown(written)), Next::Pause)
            }
            Verb::Debug => {
                // Redis pushes before it replies, or behind the reply (Redis from 7.2, Valkey). What is answered here waits for both.
                session.bind(Reason::Setting);
                (own(InSession::Sent(Sent::Plain)), Next::Pause)
            }
            _ => (own(InSession::Sent(Sent::Setting)), Next::Pause),
        };
        self.send(permit.now, &session.link, then, u64::MAX, |wire| call.request.write(wire, Replacements::new()));
        next
    }

    fn subscribe(&mut self, permit: &Permit, call: Call<'_>, session: &Rc<Session>, kind: Kind) -> Next {
        let named = call.args.len() - 1;
        if session.in_multi() {
            // Redis from 7.2 and Valkey send messages of the transaction behind EXEC's reply, also those of channels that it leaves.
            session.bind(Reason::Setting);
            session.queue(|queued| {
                let (at, word) = (queued.holds.len(), call.row.name.clone());
                queued.commands.subscribed.push(Subscribed { at, kind, word, named });
                queued.holds.push(Holds::Nothing);
            });
            return self.pass(permit, call, Target::Session(Rc::clone(session)));
        }
        if (!session.is_subscribed() || named == 0) && self.outlet.outstanding() > 0 {
            return Next::Again;
        }
        // Without names: everything, and one acknowledgement even for nothing.
        let left = if named > 0 { named } else { session.subscriptions(kind).max(1) };
        session.begin_acknowledging();
        // Acknowledgements are not muted, as messages are not (CLIENT REPLY OFF).
        let muted = self.is_muted();
        let replies = std::mem::replace(&mut self.replies, Replies::On);
        let then = Then::session(session, InSession::Acknowledge { kind, left, muted });
        self.send(permit.now, &session.link, then, u64::MAX, |wire| call.request.write(wire, Replacements::new()));
        self.replies = replies;
        Next::Go
    }

    /// The connection is a stream: what the client says is passed on, and what comes is passed back.
    pub(super) fn beside_monitor(
        &mut self,
        view: &View,
        permit: &Permit,
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
            return self.refuse("ERR shortstop: not beside MONITOR; use another connection, or RESET");
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
pub(super) fn leaves_nothing(row: &Row) -> bool {
    matches!(row.name.as_ref(), "script|kill" | "function|kill" | "function|stats" | "shutdown" | "client|unpause")
}

pub(super) fn in_session(
    context: &Context,
    session: Rc<Session>,
    then: InSession,
    to: Option<(Rc<Outlet>, Slot)>,
    sent: Instant,
    reply: Reply<'_>,
) -> Option<Waiting> {
    let failed = reply.bytes().first() == Some(&b'-');
    match then {
        InSession::Sent(sent) => {
            session.answered(sent, reply.bytes());
            // If the answer bound the connection, Redis may push messages on it from now on.
            session.listen_if_bound();
        }
        InSession::Exec(queued) => return transaction::ended(context, session, queued, to, sent, reply),
        InSession::BehindExec => session.set_behind_exec(false),
        InSession::Unknown(written) => {
            if !reply.bytes().starts_with(b"-ERR unknown command") {
                session.bind(Reason::Setting);
                written.end(context, failed);
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
                if let Some((outlet, slot)) = to {
                    greeting.apply(context, &outlet);
                    outlet.fill(slot, Reply::Owned(reply));
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
            session.answered(Sent::Plain, reply.bytes());
            written.end(context, failed);
            told.iter().for_each(|id| context.shared.coherence.poison(*id));
        }
    }
    answer(to, reply);
    None
}
