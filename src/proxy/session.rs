//! The client's session (private connection): when a client enters one, and what is sent on it. This file handles blocking commands
//! and other commands that change the connection's state. Transactions, subscriptions, MONITOR and the debugger have files of their
//! own.

use std::rc::Rc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::client_state::connection_state::{Reason, Sent};
use crate::coherence::ServePermit;
use crate::command::{ClientSubcommand, Facts, Verb};
use crate::exchange::pending::{CallMark, InSession, Link, OnReply, Pending, Session};
use crate::exchange::write_guard::WriteGuard;
use crate::proxy::call::Call;
use crate::proxy::client::{Client, Next};
use crate::proxy::request::Replacements;
use crate::resp::build;
use crate::upstream::{Delay, Lost};
use crate::worker_state::policy::View;
use crate::worker_state::turns::Place;

impl Client {
    /// The client's session. `None` if the client must wait: earlier replies are due, and the order of execution must not change,
    /// or all sessions are in use.
    ///
    /// # Errors
    /// Redis is away, or no session became free in time.
    pub(super) fn enter_session(&mut self, permit: &ServePermit) -> Result<Option<Rc<Session>>, Lost> {
        if let Some(session) = &self.session {
            return Ok(Some(Rc::clone(session)));
        }
        if self.reply_queue.outstanding() > 0 {
            return Ok(None);
        }
        // If Redis is known to be away, say so at once instead of trying another connection.
        let profile = &self.state.profile;
        if let Err(lost) = self.context.lane_of(profile)
            && !lost.may_pass()
        {
            self.cancel_turn();
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
                self.select_on_offered(session);
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

    /// A command that leaves the connection's state unchanged and must not wait behind others (SCRIPT KILL). It gets a connection
    /// of its own, which is closed after the reply. That connection does not SELECT a database, because Redis refuses SELECT while
    /// a script runs.
    pub(super) fn on_single_use_connection(&mut self, permit: &ServePermit, call: Call<'_>) -> Next {
        if self.reply_queue.outstanding() > 0 {
            return Next::Again;
        }
        let profile = &self.state.profile;
        // If Redis is known to be away, say so at once. A Redis that is busy with a script is not away.
        if let Err(lost) = self.context.lane_of(profile)
            && !lost.is_busy()
        {
            return self.unavailable(&lost);
        }
        let link = self.context.single_use_connection(&profile.identity(), profile.version());
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

    /// Sends SHUTDOWN. If Redis shuts down, the client's connection closes without a reply, as with Redis itself.
    fn shut_down(&mut self, permit: &ServePermit, call: Call<'_>, link: &Link) {
        let (reply_queue, slot) = (Rc::clone(&self.reply_queue), self.reply_queue.open(self.is_muted()));
        self.in_flight = u64::MAX;
        self.context.stats().upstream_commands.add(1);
        let on_reply = OnReply::ShutDown { reply_queue, slot };
        link.send(Pending { to: None, sent: permit.now, on_reply, call: CallMark::default() }, |wire| {
            call.request.write(wire, Replacements::new())
        });
    }

    /// Gives up the client's place in the queue for a session.
    pub(super) fn cancel_turn(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.context.cancel_turn(turn);
        }
    }

    /// Selects the client's current database on a connection that was made in advance. Nothing else is sent on it before Redis has
    /// accepted the SELECT. If Redis refuses, the client gets another connection.
    fn select_on_offered(&mut self, session: Rc<Session>) {
        let db = self.state.profile.db();
        // The client gets no reply to this SELECT. The slot holds back its later requests.
        let slot = self.reply_queue.open(true);
        let on_reply = OnReply::session(&session, InSession::Move(db));
        self.context.stats().upstream_commands.add(1);
        let waiting = Pending {
            to: Some((Rc::clone(&self.reply_queue), slot)),
            sent: Instant::now(),
            on_reply,
            call: CallMark::default(),
        };
        session.link.send(waiting, |wire| {
            wire.push_with(|out| build::request(out, [&b"SELECT"[..], db.to_string().as_bytes()].into_iter()));
        });
        *self.state.offered.borrow_mut() = Some(session);
    }

    /// The client's session, ready to send on.
    pub(super) fn own_session(&mut self, permit: &ServePermit, call: Call<'_>) -> Result<Rc<Session>, Next> {
        let session = match self.enter_session(permit) {
            Ok(Some(session)) => session,
            Ok(None) => return Err(Next::Again),
            Err(lost) => return Err(self.refuse_not_executed(call.row, &lost)),
        };
        match session.link.check() {
            Ok(()) => Ok(session),
            Err(lost) => Err(self.refuse_not_executed(call.row, &lost)),
        }
    }

    /// A command that may block.
    pub(super) fn blocking(&mut self, view: &View, permit: &ServePermit, call: Call<'_>) -> Next {
        let session = match self.own_session(permit, call) {
            Ok(session) => session,
            Err(next) => return next,
        };
        let mut guard = if call.row.is_write() { self.write_guard(view, call) } else { WriteGuard::default() };
        guard.begin_blocking(&self.context);
        let observed = if self.reveals_content(view, call.row) { self.ids(call) } else { SmallVec::new() };
        session.block();
        let next = self.send_in(permit, call, &session, InSession::Blocked { guard, observed });
        session.link.may_take(Delay::Blocks);
        next
    }

    /// A command that may change the connection's state, or must not wait behind others.
    pub(super) fn stateful(&mut self, permit: &ServePermit, call: Call<'_>) -> Next {
        let session = match self.own_session(permit, call) {
            Ok(session) => session,
            Err(next) => return next,
        };
        let leaves_nothing = call.row.facts.contains(Facts::LEAVES_NOTHING);
        let on_reply = match call.row.verb {
            _ if leaves_nothing => InSession::Sent(Sent::Plain),
            Verb::ScriptDebug => InSession::ScriptDebug(!call.args[2].eq_ignore_ascii_case(b"no")),
            _ if call.row.is_unknown() => {
                // The command is unknown. If Redis knows it, it may have changed any key.
                let mut guard = WriteGuard::default();
                guard.add_any();
                InSession::Unknown(guard)
            }
            Verb::Debug => {
                // Redis sends push messages before the reply or after it (Redis from 7.2, Valkey). Later answers wait for both.
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
