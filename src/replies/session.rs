//! Replies on a client's session, and how they change the session's state. EXEC's reply is in `transaction`.

use std::rc::Rc;
use std::time::Instant;

use crate::client_state::connection_state::{ExecReply, Reason, Sent};
use crate::client_state::reply_queue::{ReplyQueue, Slot};
use crate::exchange::pending::{CallMark, InSession, OnReply, Pending, Session};
use crate::metrics::outcome::LeftL1;
use crate::replies::answers::answer;
use crate::replies::transaction;
use crate::upstream::Reply;
use crate::worker_state::context::Context;

/// Handles the reply. Returns what waits for further replies, if anything does.
pub(crate) fn in_session(
    context: &Context,
    session: Rc<Session>,
    on_reply: InSession,
    to: Option<(Rc<ReplyQueue>, Slot)>,
    sent: Instant,
    reply: Reply<'_>,
) -> Option<Pending> {
    let failed = reply.bytes().first() == Some(&b'-');
    match on_reply {
        InSession::Sent(sent) => {
            session.answered(sent, reply.bytes());
            // If the reply bound the connection to its client, Redis may send push messages on it from now on.
            session.listen_if_bound();
        }
        InSession::Exec { client, queued } => {
            return transaction::ended(context, client, session, queued, to, sent, reply);
        }
        InSession::BehindExec => session.set_exec_reply(ExecReply::None),
        InSession::Unknown(guard) => {
            if !reply.bytes().starts_with(b"-ERR unknown command") {
                session.bind(Reason::Setting);
                guard.end(context, failed);
            }
        }
        InSession::Select { client, db } => {
            if session.moved(db, reply.bytes()) {
                client.profile.set_db(db);
            }
        }
        InSession::Move(db) => {
            if !session.moved(db, reply.bytes()) {
                session.bind(Reason::Unproven);
            }
        }
        InSession::Greet { client, greeting } => {
            if !failed {
                if !greeting.is_understood {
                    // Redis accepted a call that Shortstop does not understand: the server is newer.
                    session.bind(Reason::Login);
                }
                session.greeted(greeting.login.is_some(), greeting.version);
                let reply = greeting.with_own_id(reply.bytes());
                if let Some((reply_queue, slot)) = to {
                    greeting.apply(context, &client);
                    reply_queue.fill(slot, Reply::Owned(reply));
                }
                return None;
            }
        }
        InSession::ScriptDebug(debugs) => {
            if !failed {
                session.bind(Reason::Setting);
                session.set_debugs(debugs);
            }
        }
        InSession::Debugged(guard) => {
            if !failed {
                session.begin_raw();
                answer(to, reply);
                let on_reply = OnReply::session(&session, InSession::Raw(guard));
                return Some(Pending { to: None, sent, on_reply, call: CallMark::default() });
            }
            guard.end(context, failed);
        }
        InSession::Raw(_) => unreachable!("a raw connection has no replies"),
        InSession::Monitor => {
            if !failed {
                session.begin_monitor();
            }
        }
        InSession::Acknowledge { kind, left, muted } => {
            // An error is the only reply to the whole command.
            let left = if failed { 0 } else { left - 1 };
            session.acknowledged(kind, reply.bytes(), left == 0);
            if let (Some((reply_queue, slot)), true) = (&to, left > 0) {
                reply_queue.fill_part(*slot, Reply::Borrowed(reply.bytes()));
                let on_reply = OnReply::session(&session, InSession::Acknowledge { kind, left, muted });
                return Some(Pending { to, sent, on_reply, call: CallMark::default() });
            }
            if failed && muted {
                answer(to, Reply::Borrowed(b""));
                return None;
            }
        }
        InSession::Blocked { guard, observed } => {
            session.unblocked();
            session.answered(Sent::Plain, reply.bytes());
            guard.end(context, failed);
            observed.iter().for_each(|id| context.shared.coherence.poison(*id, LeftL1::Overtaken));
        }
    }
    answer(to, reply);
    None
}
