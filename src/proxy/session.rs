//! The client's private connection: entered when a command needs one, and what is sent on it. Blocking commands, and whatever leaves
//! something behind; transactions, subscriptions, MONITOR and the debugger have files of their own.

use std::rc::Rc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::client_state::connection_state::{Reason, Sent};
use crate::coherence::ServePermit;
use crate::command::{ClientSubcommand, Facts, Verb};
use crate::exchange::pending::{InSession, Link, OnReply, Pending, Session};
use crate::exchange::write_guard::WriteGuard;
use crate::proxy::call::Call;
use crate::proxy::client::{Client, Next};
use crate::proxy::request::Replacements;
use crate::resp::build;
use crate::upstream::{Delay, Lost};
use crate::worker_state::policy::View;
use crate::worker_state::turns::Place;

impl Client {
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

    /// The client's own connection, entered if need be, to send a command on.
    pub(super) fn own_session(&mut self, permit: &ServePermit, call: Call<'_>) -> Result<Rc<Session>, Next> {
        let session = match self.enter_session(permit) {
            Ok(Some(session)) => session,
            Ok(None) => return Err(Next::Again),
            Err(lost) => return Err(self.not_done(call.row, &lost)),
        };
        match session.link.check() {
            Ok(()) => Ok(session),
            Err(lost) => Err(self.not_done(call.row, &lost)),
        }
    }

    /// A command that may wait for long.
    pub(super) fn blocking(&mut self, view: &View, permit: &ServePermit, call: Call<'_>) -> Next {
        let session = match self.own_session(permit, call) {
            Ok(session) => session,
            Err(next) => return next,
        };
        let mut guard = if call.row.is_write() { self.write_guard(view, call) } else { WriteGuard::default() };
        guard.begin_blocking(&self.context);
        let observed = if self.is_told(view, call.row) { self.ids(call) } else { SmallVec::new() };
        session.block();
        let next = self.send_in(permit, call, &session, InSession::Blocked { guard, observed });
        session.link.may_take(Delay::Blocks);
        next
    }

    /// A command that may leave something on its connection, or must not wait behind others.
    pub(super) fn setting(&mut self, permit: &ServePermit, call: Call<'_>) -> Next {
        let session = match self.own_session(permit, call) {
            Ok(session) => session,
            Err(next) => return next,
        };
        let leaves_nothing = call.row.facts.contains(Facts::LEAVES_NOTHING);
        let on_reply = match call.row.verb {
            _ if leaves_nothing => InSession::Sent(Sent::Plain),
            Verb::ScriptDebug => InSession::ScriptDebug(!call.args[2].eq_ignore_ascii_case(b"no")),
            _ if call.row.is_unknown() => {
                // Nobody knows it: if Redis does, it may have changed anything.
                let mut guard = WriteGuard::default();
                guard.add_any();
                InSession::Unknown(guard)
            }
            Verb::Debug => {
                // Redis pushes before it replies, or behind the reply (Redis from 7.2, Valkey). What is answered here waits for both.
                session.bind(Reason::Setting);
                InSession::Sent(Sent::Plain)
            }
            _ => InSession::Sent(Sent::Setting),
        };
        self.send_in(permit, call, &session, on_reply);
        if call.row.is_long() {
            session.link.may_take(Delay::Long);
        }
        if leaves_nothing { Next::Go } else { Next::Pause }
    }
}
