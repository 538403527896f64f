//! SYNC, PSYNC and REPLCONF: a client that acts as a replica of Redis.

use crate::coherence::ServePermit;
use crate::command::Verb;
use crate::errors;
use crate::exchange::pending::Session;
use crate::proxy::call::Call;
use crate::proxy::client::{Client, Next};
use crate::proxy::request::Request;
use crate::worker_state::policy::View;

impl Client {
    /// SYNC or PSYNC: Redis now sends the replication stream, and requests of the client have no reply.
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
            return self.stateful(permit, call);
        }
        match self.own_session(permit, call) {
            // The connection is not a replica's, so Redis ignores the option and sends no reply.
            Ok(_) => Next::Go,
            Err(next) => next,
        }
    }

    /// A request on a replication stream. Shortstop sees no reply, so it refuses commands that could change what L1 holds.
    pub(super) fn beside_replication(&self, view: &View, session: &Session, request: Request<'_>) -> Next {
        let row = view.table.resolve(&request.words());
        if !matches!(row.verb, Verb::Sync | Verb::ReplConf) || session.link.check().is_err() {
            return Next::Close;
        }
        session.link.send_unanswered(request.raw);
        Next::Go
    }
}

/// Whether Redis sends no reply to REPLCONF with this option.
fn is_unanswered(option: &[u8]) -> bool {
    [&b"ack"[..], b"getack"].iter().any(|word| option.eq_ignore_ascii_case(word))
}
