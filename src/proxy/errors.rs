//! Errors that the request side returns, and whether they close the client's connection.

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

    /// Refuses with one of Shortstop's own errors.
    pub(super) fn refuse_own(&self, error: &OwnError) -> Next {
        self.context.stats().errors.count(error.side());
        self.refuse(error.text())
    }

    pub(super) fn unavailable(&self, lost: &Lost) -> Next {
        self.context.count_lost(lost);
        self.refuse(lost.text());
        match &self.session {
            _ if lost.is_login_refused() => Next::Close,
            // The client's state on that connection is lost. Close, as Redis would have done.
            Some(session) if session.link.is_closed() => Next::Close,
            // Otherwise the rest of the transaction would run without this command, or without the keys that it watches.
            Some(session) if session.in_transaction() => Next::Close,
            _ => Next::Go,
        }
    }

    /// Refuses a command. In a transaction this aborts the transaction.
    pub(super) fn refuse_or_abort(&mut self, permit: &ServePermit, error: &OwnError) -> Next {
        match self.session.clone().filter(|session| session.in_multi()) {
            Some(session) => self.abort_transaction(permit, &session, error),
            None => self.refuse_own(error),
        }
    }

    /// Returns an error for a command that could not be executed. If later commands depend on it, the client is closed, so that
    /// none of them is executed.
    pub(super) fn refuse_not_executed(&self, row: &Row, lost: &Lost) -> Next {
        let next = self.unavailable(lost);
        if changes_what_follows(row) { Next::Close } else { next }
    }
}

/// Whether later commands mean something else when this one is not executed: they would run outside the transaction, in another
/// database, as another user, or in another protocol.
fn changes_what_follows(row: &Row) -> bool {
    match row.verb {
        Verb::Select | Verb::Hello | Verb::Auth => true,
        Verb::XRead | Verb::XReadGroup => false,
        _ => row.class == Class::Session && !row.facts.contains(Facts::LEAVES_NOTHING),
    }
}
