//! Commands that need a connection of their own, and what is sent on it: blocking ones, subscriptions, MONITOR, the Lua
//! debugger, and whatever leaves something behind. Transactions have a file of their own.

use std::rc::Rc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::client_state::connection_state::{Kind, Reason, Sent};
use crate::coherence::ServePermit;
use crate::command::{Class, ClientSubcommand, Facts, Row, Verb};
use crate::errors;
use crate::exchange::exec_demux::Subscribed;
use crate::exchange::pending::{InSession, Link, OnReply, Pending, Session};
use crate::exchange::reply_shape::ReplyShape;
use crate::exchange::write_guard::WriteGuard;
use crate::proxy::client::{Call, Client, Next, Replies, Target};
use crate::proxy::request::{Replacements, Request};
use crate::resp::build;
use crate::upstream::{Delay, Lost, Tap as _};
use crate::worker_state::policy::View;
use crate::worker_state::turns::Place;

impl Client {
    /// Whether what the client sends is passed on as it comes, and so is what it gets.
    pub fn is_raw(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_in_raw())
    }

    /// Whether messages of channels may come for the client.
    pub fn is_subscribed(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_subscribed())
    }

    /// Whether what the client gets is passed on as it comes.
    pub fn gets_raw(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_raw())
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
    pub(super) fn debug(&mut self, permit: &ServePermit, call: Call<'_>, session: Rc<Session>) -> Next {
        if session.in_multi() {
            return self.abort_transaction(permit, &session, &errors::DEBUGGER_IN_MULTI);
        }
        if call.row.is_unknown() {
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
    pub(super) fn enter_session(&mut self, permit: &ServePermit) -> Result<Option<Rc<Session>>, Lost> {
        if let Some(session) = &self.session {
            return Ok(Some(Rc::clone(session)));
        }
        if self.reply_queue.outstanding() > 0 {
            return Ok(None);
        }
        // When Redis is known to be away, say so at once instead of finding out with another connection.
        let profile = &self.state.profile;
        if let Err(lost) = self.context.lane_of(profile)
            && !lost.may_pass()
        {
            self.leave_line();
            return Err(lost);
        }
        let identity = profile.identity();
        if let Some(session) = self.state.offered.take() {
            if !session.fits(&identity, profile.version()) {
                self.context.leave(&session);
            } else if session.link.db() == profile.db() {
                self.session = Some(Rc::clone(&session));
                return Ok(Some(session));
            } else if session.link.check().is_ok() {
                self.move_offered(session);
                return Ok(None);
            } else {
                self.context.leave(&session);
            }
        }
        match self.context.take_place(&self.state, &mut self.turn, permit.now) {
            Place::Taken => {}
            Place::Later => return Ok(None),
            Place::None(lost) => return Err(lost),
        }
        let profile = &self.state.profile;
        let link = self.context.session(&identity, profile.db(), profile.version());
        let session = Rc::new(Session::new(link, identity, Rc::clone(&self.reply_queue)));
        *self.state.session.borrow_mut() = Rc::downgrade(&session);
        self.session = Some(Rc::clone(&session));
        Ok(Some(session))
    }

    /// A command that leaves nothing on its connection and must not wait behind others (SCRIPT KILL): it gets a connection of its
    /// own, which is closed after it. The connection selects no database: Redis refuses SELECT while a script runs.
    pub(super) fn alone(&mut self, permit: &ServePermit, call: Call<'_>) -> Next {
        if self.reply_queue.outstanding() > 0 {
            return Next::Again;
        }
        let profile = &self.state.profile;
        // When Redis is known to be away, say so at once. Busy with a script it is there all the same.
        if let Err(lost) = self.context.lane_of(profile)
            && !lost.is_busy()
        {
            return self.unavailable(&lost);
        }
        let link = self.context.connection_for_one(&profile.identity(), profile.version());
        if call.row.verb == Verb::Shutdown {
            self.shut_down(permit, call, &link);
        } else {
            let on_reply = match call.row.verb {
                Verb::Client(ClientSubcommand::Unpause) => OnReply::Paused(None),
                _ => OnReply::Pass { repeat: false },
            };
            self.send(permit.now, &link, on_reply, u64::MAX, |wire| call.request.write(wire, Replacements::new()));
        }
        if call.row.is_long() {
            link.may_take(Delay::Long);
        }
        link.retire();
        Next::Pause
    }

    /// Asks Redis to end. If Redis does, the client's connection ends without an answer, as it would at Redis.
    fn shut_down(&mut self, permit: &ServePermit, call: Call<'_>, link: &Link) {
        let (reply_queue, slot) = (Rc::clone(&self.reply_queue), self.reply_queue.open(self.is_muted()));
        self.in_flight = u64::MAX;
        self.context.stats().upstream_commands.add(1);
        let on_reply = OnReply::ShutDown { reply_queue, slot };
        link.send(Pending { to: None, sent: permit.now, on_reply }, |wire| {
            call.request.write(wire, Replacements::new())
        });
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
        let db = self.state.profile.db();
        // The client hears nothing of it; what it has asked waits.
        let slot = self.reply_queue.open(true);
        let on_reply = OnReply::session(&session, InSession::Move(db));
        self.context.stats().upstream_commands.add(1);
        let waiting = Pending { to: Some((Rc::clone(&self.reply_queue), slot)), sent: Instant::now(), on_reply };
        session.link.send(waiting, |wire| {
            wire.push_with(|out| build::request(out, [&b"SELECT"[..], db.to_string().as_bytes()].into_iter()));
        });
        *self.state.offered.borrow_mut() = Some(session);
    }

    /// A command that needs a connection of its own.
    pub(super) fn with_session(
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
        if verb == Verb::Sync {
            return self.replicate(permit, call, &session);
        }
        if verb == Verb::ReplConf && !session.in_multi() && call.args.get(1).is_some_and(|option| is_unanswered(option))
        {
            // Redis does nothing and says nothing, since the connection is no replica.
            return Next::Go;
        }
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
            Verb::Multi => {
                self.queued = None;
                (own(InSession::Sent(Sent::Multi)), Next::Pause)
            }
            Verb::Watch => {
                session.begin_watch();
                (own(InSession::Sent(Sent::Watch)), Next::Go)
            }
            Verb::Monitor => (own(InSession::Monitor), Next::Pause),
            Verb::Blocking | Verb::Wait | Verb::XRead | Verb::XReadGroup => {
                let mut guard = if call.row.is_write() { self.write_guard(view, call) } else { WriteGuard::default() };
                guard.begin_blocking(&self.context);
                let observed = if self.is_told(view, call.row) { self.ids(call) } else { SmallVec::new() };
                session.block();
                (own(InSession::Blocked { guard, observed }), Next::Go)
            }
            _ if call.row.facts.contains(Facts::LEAVES_NOTHING) => (own(InSession::Sent(Sent::Plain)), Next::Go),
            Verb::ScriptDebug => (own(InSession::ScriptDebug(!call.args[2].eq_ignore_ascii_case(b"no"))), Next::Pause),
            _ if call.row.is_unknown() => {
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
        match verb {
            Verb::Blocking | Verb::XRead | Verb::XReadGroup => session.link.may_take(Delay::Blocks),
            _ if call.row.is_long() => session.link.may_take(Delay::Long),
            _ => {}
        }
        next
    }

    fn subscribe(&mut self, permit: &ServePermit, call: Call<'_>, session: &Rc<Session>, kind: Kind) -> Next {
        let named = call.args.len() - 1;
        if session.in_multi() {
            // Redis from 7.2 and Valkey send messages of the transaction behind EXEC's reply, also those of channels that it leaves.
            session.bind(Reason::Setting);
            let queued = self.queued();
            let (at, word) = (queued.shape.len(), call.row.name.clone());
            queued.commands.subscribed.push(Subscribed { at, kind, word, named });
            queued.shape.push(ReplyShape::Nothing);
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

    /// SYNC or PSYNC: from now on Redis talks to the client as to a replica, and what the client says has no answer.
    fn replicate(&mut self, permit: &ServePermit, call: Call<'_>, session: &Rc<Session>) -> Next {
        if session.in_multi() {
            return self.abort_transaction(permit, session, &errors::SYNC_IN_MULTI);
        }
        if self.reply_queue.outstanding() > 0 {
            return Next::Again;
        }
        session.begin_replication();
        session.link.send_unanswered(call.request.raw);
        self.context.stats().upstream_commands.add(1);
        Next::Go
    }

    /// What a client with the replication stream says. A command that Shortstop does not see executed could change what L1 holds.
    fn beside_replication(&self, view: &View, session: &Session, request: Request<'_>) -> Next {
        let row = view.table.resolve(&request.words());
        if !matches!(row.verb, Verb::Sync | Verb::ReplConf) || session.link.check().is_err() {
            return Next::Close;
        }
        session.link.send_unanswered(request.raw);
        Next::Go
    }

    /// The connection is a stream: what the client says is passed on, and what comes is passed back.
    pub(super) fn beside_stream(
        &mut self,
        view: &View,
        permit: &ServePermit,
        session: &Rc<Session>,
        request: Request<'_>,
    ) -> Next {
        if session.is_replication() {
            return self.beside_replication(view, session, request);
        }
        let row = view.table.resolve(&request.words());
        match row.verb {
            Verb::Quit => {
                self.answer(b"+OK\r\n");
                return Next::Close;
            }
            Verb::Reset => return self.reset(permit),
            _ => {}
        }
        if session.link.check().is_err() {
            return Next::Close;
        }
        // Nobody would see the reply, and do what has to be done with it.
        let is_ours = matches!(row.verb, Verb::Client(_) | Verb::Hello | Verb::Auth | Verb::Wait);
        if row.is_write() || is_ours {
            return self.refuse_own(&errors::BESIDE_MONITOR);
        }
        session.link.send_unanswered(request.raw);
        Next::Go
    }
}

/// Whether Redis gives no reply to REPLCONF with this option.
fn is_unanswered(option: &[u8]) -> bool {
    [&b"ack"[..], b"getack"].iter().any(|word| option.eq_ignore_ascii_case(word))
}

/// Whether what the client sends behind a command means something else when the command is not executed: it would be executed
/// outside of the transaction, in another database, as another user, or in another protocol.
fn changes_what_follows(row: &Row) -> bool {
    match row.verb {
        Verb::Select | Verb::Hello | Verb::Auth => true,
        Verb::XRead | Verb::XReadGroup => false,
        _ => row.class == Class::Session && !row.facts.contains(Facts::LEAVES_NOTHING),
    }
}
