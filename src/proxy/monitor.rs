//! Clients whose connection is a stream, beside which few commands are allowed. MONITOR starts here, replication in `replication`.

use std::rc::Rc;

use crate::coherence::ServePermit;
use crate::command::Verb;
use crate::errors;
use crate::exchange::pending::{InSession, Session};
use crate::proxy::call::Call;
use crate::proxy::client::{Client, Next};
use crate::proxy::request::Request;
use crate::worker_state::policy::View;

impl Client {
    /// MONITOR: the connection becomes a stream when Redis accepts the command.
    pub(super) fn monitor(&mut self, permit: &ServePermit, call: Call<'_>) -> Next {
        let session = match self.own_session(permit, call) {
            Ok(session) => session,
            Err(next) => return next,
        };
        self.send_in(permit, call, &session, InSession::Monitor);
        Next::Pause
    }

    /// Handles a request on a connection in stream mode.
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
        // The stream hides the reply, so what must follow the reply could not be done.
        let is_ours = matches!(row.verb, Verb::Client(_) | Verb::Hello | Verb::Auth | Verb::Wait);
        if row.is_write() || is_ours {
            return self.refuse_own(&errors::BESIDE_MONITOR);
        }
        session.link.send_unanswered(request.raw);
        Next::Go
    }
}
