//! A client whose connection is a stream: little may be sent beside it. MONITOR begins here, replication in `replication`.

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
    /// MONITOR: the connection is a stream when Redis has agreed.
    pub(super) fn monitor(&mut self, permit: &ServePermit, call: Call<'_>) -> Next {
        let session = match self.own_session(permit, call) {
            Ok(session) => session,
            Err(next) => return next,
        };
        self.send_in(permit, call, &session, InSession::Monitor);
        Next::Pause
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
