//! SYNC, PSYNC and REPLCONF: a client that Redis talks to as to a replica.

use crate::coherence::ServePermit;
use crate::command::Verb;
use crate::errors;
use crate::exchange::pending::Session;
use crate::proxy::call::Call;
use crate::proxy::client::{Client, Next};
use crate::proxy::request::Request;
use crate::worker_state::policy::View;

impl Client {
    /// SYNC or PSYNC: from now on Redis talks to the client as to a replica, and what the client says has no answer.
    pub(super) fn replicate(&mut self, permit: &ServePermit, call: Call<'_>) -> Next {
        let session = match self.own_session(permit, call) {
            Ok(session) => session,
            Err(next) => return next,
        };
        if session.in_multi() {
            return self.abort_transaction(permit, &session, &errors::SYNC_IN_MULTI);
        }
        if self.reply_queue.outstanding() > 0 {
            return Next::Again;
        }
        session.begin_replication();
        session.link.send_unanswered(call.request.raw);
        self.context.stats().upstream_commands.add(1);
        Next::Go
    }

    /// REPLCONF outside of a transaction.
    pub(super) fn replconf(&mut self, permit: &ServePermit, call: Call<'_>) -> Next {
        if !call.args.get(1).is_some_and(|option| is_unanswered(option)) {
            return self.setting(permit, call);
        }
        match self.own_session(permit, call) {
            // Redis does nothing and says nothing, since the connection is no replica.
            Ok(_) => Next::Go,
            Err(next) => next,
        }
    }

    /// What a client with the replication stream says. A command that Shortstop does not see executed could change what L1 holds.
    pub(super) fn beside_replication(&self, view: &View, session: &Session, request: Request<'_>) -> Next {
        let row = view.table.resolve(&request.words());
        if !matches!(row.verb, Verb::Sync | Verb::ReplConf) || session.link.check().is_err() {
            return Next::Close;
        }
        session.link.send_unanswered(request.raw);
        Next::Go
    }
}

/// Whether Redis gives no reply to REPLCONF with this option.
fn is_unanswered(option: &[u8]) -> bool {
    [&b"ack"[..], b"getack"].iter().any(|word| option.eq_ignore_ascii_case(word))
}
