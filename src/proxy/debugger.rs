//! Redis's Lua debugger. From EVAL until the connection closes, the bytes between client and Redis are passed on unchanged.

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
    /// Whether bytes pass unchanged in both directions.
    pub fn is_raw(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_in_raw())
    }

    /// Whether bytes from Redis pass to the client unchanged.
    pub fn gets_raw(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_raw())
    }

    /// Passes bytes to Redis. Returns how many were taken. The client is woken when there is room for more.
    pub fn pass_raw(&self, bytes: &[u8]) -> usize {
        self.session.as_ref().map_or(0, |session| session.pass_on(bytes))
    }

    /// The client has closed its sending side.
    pub fn finish_raw(&self) {
        if let Some(session) = &self.session {
            session.link.finish();
        }
    }

    /// The client has read some of the bytes from Redis.
    pub fn raw_was_taken(&self) {
        if let Some(session) = &self.session {
            session.link.wake();
        }
    }

    /// Starts a script in Redis's debugger. The debugger talks with the client until it closes the connection, and no reply shows
    /// what the script writes.
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
        // CLIENT REPLY OFF does not mute the debugger.
        let replies = std::mem::replace(&mut self.replies, Replies::On);
        let link = session.link.clone();
        let on_reply = OnReply::session(&session, InSession::Debugged(guard));
        self.send(permit.now, &link, on_reply, u64::MAX, |wire| call.request.write(wire, Replacements::new()));
        self.replies = replies;
        Next::Pause
    }
}
