//! Chooses the connection for a request, and sends the request.

use std::rc::Rc;
use std::time::Instant;

use crate::client_state::connection_state::Sent;
use crate::coherence::ServePermit;
use crate::command::Class;
use crate::exchange::pending::{CallMark, InSession, Link, OnReply, Pending, Session};
use crate::proxy::call::{Call, Target};
use crate::proxy::client::{Client, Next};
use crate::proxy::request::Replacements;
use crate::resp::Chunks;
use crate::upstream::Lost;

/// Maximum number of arguments that every server accepts. Redis before 7.0 closes the connection at more.
const MOST_ARGUMENTS: usize = 1 << 20;

impl Client {
    /// Passes on a request that Redis will refuse. It goes to the client's session if there is one: there it aborts an open
    /// transaction.
    pub(super) fn pass_to_be_refused(&mut self, permit: &ServePermit, call: Call<'_>) -> Next {
        if let Err(next) = self.leave_lane_if_large(permit, call.request.raw.len(), call.args.len()) {
            return next;
        }
        match self.target() {
            Ok(target) => self.pass(permit, call, target),
            Err(lost) => self.unavailable(&lost),
        }
    }

    pub(super) fn pass(&mut self, permit: &ServePermit, call: Call<'_>, target: Target) -> Next {
        if let Err(lost) = target.link().check() {
            return self.unavailable(&lost);
        }
        let on_reply = match &target {
            Target::Session(session) if session.in_multi() => OnReply::Queued(Rc::clone(session)),
            // Redis should refuse it. If Redis executes it instead, the command may have changed the connection's state in any way.
            Target::Session(session) if call.row.class != Class::Stateless => {
                OnReply::session(session, InSession::Sent(Sent::Setting))
            }
            _ => OnReply::Pass { repeat: false },
        };
        self.send(permit.now, target.link(), on_reply, u64::MAX, |wire| call.request.write(wire, Replacements::new()));
        Next::Go
    }

    /// Sends a request unchanged on the client's session.
    pub(super) fn send_in(
        &mut self,
        permit: &ServePermit,
        call: Call<'_>,
        session: &Rc<Session>,
        on_reply: InSession,
    ) -> Next {
        if let Err(lost) = session.link.check() {
            return self.unavailable(&lost);
        }
        let on_reply = OnReply::session(session, on_reply);
        self.send(permit.now, &session.link, on_reply, u64::MAX, |wire| call.request.write(wire, Replacements::new()));
        Next::Go
    }

    /// Call this before sending a request of this size. If the request is so large that Redis might close the connection, the
    /// client gets a session first, so that requests of other clients are not lost.
    #[inline]
    pub(super) fn leave_lane_if_large(
        &mut self,
        permit: &ServePermit,
        bytes: usize,
        arguments: usize,
    ) -> Result<(), Next> {
        let is_small = bytes <= self.context.shared.server_limits.shared() && arguments <= MOST_ARGUMENTS;
        if is_small || self.session.is_some() {
            return Ok(());
        }
        match self.enter_session(permit) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Next::Again),
            Err(lost) => Err(self.unavailable(&lost)),
        }
    }

    /// A running script blocks everything that is sent behind it on the same connection, SCRIPT KILL included. A client without
    /// in-flight requests moves to another lane, where Redis answers that it is busy.
    #[inline]
    pub(super) fn leave_lane_if_held_up(&self, now: Instant) {
        let profile = &self.state.profile;
        if self.session.is_some() || self.reply_queue.outstanding() > 0 || !profile.is_held_up(now) {
            return;
        }
        profile.forget_lane();
        // Another client may already have opened the new lane.
        if profile.is_held_up(now) {
            self.context.renew_lane(&profile.identity(), profile.db(), profile.version());
        }
    }

    pub(super) fn in_multi(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.in_multi())
    }

    /// The connection for a stateless command: the client's session if it has one, else its lane.
    pub(super) fn target(&mut self) -> Result<Target, Lost> {
        match &self.session {
            Some(session) => {
                session.link.check()?;
                Ok(Target::Session(Rc::clone(session)))
            }
            None => Ok(Target::Lane(self.context.lane_of(&self.state.profile)?)),
        }
    }

    pub(super) fn send(
        &mut self,
        now: Instant,
        link: &Link,
        on_reply: OnReply,
        mask: u64,
        write: impl FnOnce(&mut Chunks),
    ) {
        let slot = self.reply_queue.open(self.is_muted());
        self.in_flight |= mask;
        self.context.stats().upstream_commands.add(1);
        let mut call = CallMark { sample: std::mem::take(&mut self.sample), ..self.call };
        if on_reply.is_miss() {
            call.family = None;
        }
        let pending = Pending { to: Some((Rc::clone(&self.reply_queue), slot)), sent: now, on_reply, call };
        if !self.in_multi() {
            return link.send(pending, write);
        }
        let view = self.context.view();
        if !view.policy.may_be_compressed() {
            return link.send(pending, write);
        }
        // The whole transaction may have to be sent again.
        let mut request = Chunks::default();
        write(&mut request);
        link.send(pending, |out| request.append_to(out));
        self.queued().sent.note(request, view.policy.limits.query_buffer);
    }
}
