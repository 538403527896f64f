//! Errors that the request side gives, and what they end.

use crate::coherence::ServePermit;
use crate::command::{Class, Facts, Row, Verb};
use crate::errors::OwnError;
use crate::proxy::client::{Client, Next};
use crate::resp::build;
use crate::upstream::Lost;

impl Client {
    pub(super) fn refuse(&self, text: &str) -> Next {
        let mut out = Vec::new();
        build::error(&mut out, text);
        self.answer(&out);
        Next::Go
    }

    /// Refuses in Shortstop's own words.
    pub(super) fn refuse_own(&self, error: &OwnError) -> Next {
        self.context.stats().errors.count(error.side());
        self.refuse(error.text())
    }

    pub(super) fn unavailable(&self, lost: &Lost) -> Next {
        self.context.count_lost(lost);
        self.refuse(lost.text());
        match &self.session {
            _ if lost.is_login_refused() => Next::Close,
            // The state that the client has is gone: it has to connect anew, as if Redis had closed the connection.
            Some(session) if session.link.is_closed() => Next::Close,
            // A part of the transaction would be executed without the rest, or without what it depends on.
            Some(session) if session.in_transaction() => Next::Close,
            _ => Next::Go,
        }
    }

    /// Refuses a command; one in a transaction aborts the transaction.
    pub(super) fn refuse_where_it_is(&mut self, permit: &ServePermit, error: &OwnError) -> Next {
        match self.session.clone().filter(|session| session.in_multi()) {
            Some(session) => self.abort_transaction(permit, &session, error),
            None => self.refuse_own(error),
        }
    }

    /// Answers that Shortstop could not have a command executed. When that changes what the commands behind it mean, the client is
    /// closed, so that none of these is executed.
    pub(super) fn not_done(&self, row: &Row, lost: &Lost) -> Next {
        let next = self.unavailable(lost);
        if changes_what_follows(row) { Next::Close } else { next }
    }
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
