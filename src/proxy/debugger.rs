//! Redis's Lua debugger: from EVAL on until the connection ends, what the client and Redis say to each other is passed on as it is.

use std::rc::Rc;

use crate::coherence::ServePermit;
use crate::errors;
use crate::exchange::pending::{InSession, OnReply, Session};
use crate::exchange::write_guard::WriteGuard;
use crate::proxy::call::Call;
use crate::proxy::client::{Client, Next, Replies};
use crate::proxy::request::Replacements;
use crate::upstream::Tap as _;

impl Client {
    /// Whether what the client sends is passed on as it comes, and so is what it gets.
    pub fn is_raw(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_in_raw())
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
}
