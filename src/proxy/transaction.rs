//! Transactions. Redis queues the commands; their effects are handled, and answered, at EXEC.

use std::rc::Rc;

use smallvec::SmallVec;

use crate::client_state::connection_state::{Reason, Sent};
use crate::coherence::ServePermit;
use crate::command::{Class, ClientSubcommand, Verb};
use crate::errors::OwnError;
use crate::exchange::pending::{CallMark, InSession, OnReply, Pending, Session};
use crate::exchange::plain::Strings;
use crate::exchange::reply_shape::ReplyShape;
use crate::exchange::transaction::Queued;
use crate::proxy::call::{Call, Target, Wire, write_wire};
use crate::proxy::client::{Client, Next, Replies};
use crate::proxy::compress::writes_values;
use crate::proxy::request::Replacements;
use crate::resp::{Version, parse_int};
use crate::upstream::Delay;
use crate::worker_state::ask::unknown_command;
use crate::worker_state::plain_exec::{self, PlainExec};
use crate::worker_state::policy::View;

impl Client {
    /// The commands of the open transaction.
    pub(super) fn queued(&mut self) -> &mut Queued {
        self.queued.get_or_insert_default()
    }

    /// Queues a command. Redis answers QUEUED or an error. The effects of the command are handled at EXEC.
    pub(super) fn queue(&mut self, view: &View, permit: &ServePermit, call: Call<'_>) -> Next {
        let Some(session) = &self.session.clone() else { return self.forward(view, permit, call) };
        match call.row.verb {
            Verb::Discard => {
                if let Err(lost) = session.link.check() {
                    return self.unavailable(&lost);
                }
                // Redis may refuse it, and then the transaction is still open.
                let on_reply = OnReply::session(session, InSession::Sent(Sent::Discard));
                self.send(permit.now, &session.link, on_reply, 0, |wire| call.request.write(wire, Replacements::new()));
                return Next::Pause;
            }
            verb if writes_values(verb, call.args) => return self.write_values(view, permit, call),
            Verb::Select => {
                let db = call.args.get(1).and_then(|db| parse_int(db)).and_then(|db| u32::try_from(db).ok());
                let queued = self.queued();
                // The commands that follow run in another database. Recording their keys per database is not worth the effort, so
                // any key counts as changed.
                queued.guard.add_any();
                queued.selects.extend(db.map(|db| (queued.shape.len(), db)));
                queued.shape.push(ReplyShape::Nothing);
                return self.pass(permit, call, Target::Session(Rc::clone(session)));
            }
            _ => {}
        }
        if call.row.moves_values() {
            let keys = call.keys.places.iter().map(|at| call.args[*at as usize].to_vec()).collect();
            let strings = (self.state.profile.db(), Strings::Of(keys));
            self.queued().moves(strings);
        }
        self.queued().brings_values |= call.row.brings_values();
        let target = Target::Session(Rc::clone(session));
        if let Err(lost) = session.link.check() {
            return self.unavailable(&lost);
        }
        let (on_reply, wire) = match self.prepare(view, permit, call, &target) {
            // The strings are made plain before EXEC.
            Ok((OnReply::Guarded(guarded), _)) => {
                self.queued().looks_into(guarded.strings);
                (guarded.then, Wire::AsIs)
            }
            Ok((on_reply, Wire::Alone(strings))) => {
                let strings = (self.state.profile.db(), Strings::Of(strings));
                self.queued().looks_into(strings);
                (on_reply, Wire::AsIs)
            }
            Ok(prepared) => prepared,
            Err(error) => return self.abort_transaction(permit, session, &error),
        };
        let ids = match on_reply {
            OnReply::Write { .. } | OnReply::Elements { guard: Some(_), .. } => SmallVec::new(),
            _ => self.ids(call),
        };
        let shape = match &on_reply {
            OnReply::Content { shape: shape @ ReplyShape::Look(_), .. } => shape.clone(),
            // A queued HELLO may change the protocol version. EXEC's reply shows which one applied.
            _ => ReplyShape::of(call.row.verb, call.args, Version::Resp3),
        };
        let queued = self.queued();
        queued.read.extend(ids);
        queued.long |= call.row.is_long();
        match on_reply {
            OnReply::Paused(pause) => queued.pauses.push((queued.shape.len(), pause)),
            OnReply::Write { guard, .. } => queued.guard.extend(guard),
            OnReply::Elements { guard: Some(guard), observed, .. } => {
                queued.guard.extend(*guard);
                queued.read.extend(observed);
            }
            _ => {}
        }
        if call.row.verb == Verb::Wait {
            queued.waits.push(queued.shape.len());
        }
        if call.row.verb == Verb::Publish {
            queued.commands.publish.push(queued.shape.len());
        }
        queued.shape.push(shape);
        if matches!(call.row.class_for(call.args), Class::Session | Class::Local)
            && call.row.verb != Verb::Client(ClientSubcommand::Reply)
        {
            // The command may change the connection's state when it is executed.
            session.bind(Reason::Setting);
        }
        let on_reply = OnReply::Queued(Rc::clone(session));
        self.send(permit.now, target.link(), on_reply, u64::MAX, |out| write_wire(out, &call.request, wire));
        Next::Go
    }

    /// Refuses a command in a transaction. Redis must abort the transaction too, so it is sent a command that does not exist.
    pub(super) fn abort_transaction(&mut self, permit: &ServePermit, session: &Session, error: &OwnError) -> Next {
        if let Err(lost) = session.link.check() {
            return self.unavailable(&lost);
        }
        let abort_transaction = OnReply::Pass { repeat: false };
        self.queued().sent.is_aborted = true;
        session.link.send(
            Pending { to: None, sent: permit.now, on_reply: abort_transaction, call: CallMark::default() },
            unknown_command,
        );
        self.refuse_own(error)
    }

    /// MULTI: the transaction is open when Redis accepts the command.
    pub(super) fn multi(&mut self, permit: &ServePermit, call: Call<'_>) -> Next {
        let session = match self.own_session(permit, call) {
            Ok(session) => session,
            Err(next) => return next,
        };
        self.queued = None;
        self.send_in(permit, call, &session, InSession::Sent(Sent::Multi));
        Next::Pause
    }

    pub(super) fn watch(&mut self, permit: &ServePermit, call: Call<'_>) -> Next {
        let session = match self.own_session(permit, call) {
            Ok(session) => session,
            Err(next) => return next,
        };
        if !session.in_transaction() {
            self.watched.clear();
        }
        let db = self.state.profile.db();
        for at in &call.keys.places {
            let key = call.args[*at as usize];
            if !self.watched.iter().any(|(known_db, known)| *known_db == db && known == key) {
                self.watched.push((db, key.to_vec()));
            }
        }
        session.begin_watch();
        self.send_in(permit, call, &session, InSession::Sent(Sent::Watch))
    }

    /// UNWATCH on the client's session.
    pub(super) fn unwatch(&mut self, permit: &ServePermit, call: Call<'_>) -> Next {
        match self.session.clone() {
            Some(session) => self.send_in(permit, call, &session, InSession::Sent(Sent::Unwatch)),
            None => self.pass_to_be_refused(permit, call),
        }
    }

    pub(super) fn exec(&mut self, view: &View, permit: &ServePermit, call: Call<'_>, session: &Rc<Session>) -> Next {
        if let Err(lost) = session.link.check() {
            return self.unavailable(&lost);
        }
        let is_watching = session.is_watching();
        session.begin_exec();
        let mut queued = self.queued.take().unwrap_or_default();
        queued.guard.begin(&self.context, view);
        let mask = queued.guard.mask();
        let subscribes = !queued.commands.subscribed.is_empty();
        let next = if queued.client_commands.is_empty() && !subscribes { Next::Go } else { Next::Pause };
        let (speaks, long) = (queued.speaks, queued.long);
        if !queued.looks_into.is_empty() && !queued.sent.is_aborted {
            queued.watched = is_watching.then(|| std::mem::take(&mut self.watched));
            let slot = self.reply_queue.open(self.is_muted());
            queued.marker = subscribes.then(|| self.reply_queue.open(true));
            self.in_flight |= mask;
            if speaks {
                self.replies = Replies::On;
            }
            plain_exec::begin(
                PlainExec {
                    session: Rc::clone(session),
                    client: Rc::clone(&self.state),
                    queued,
                    to: Some((Rc::clone(&self.reply_queue), slot)),
                    sent: permit.now,
                    left: false,
                    nested: Vec::new(),
                },
                &self.context,
            );
            return Next::Pause;
        }
        let on_reply = OnReply::session(session, InSession::Exec { client: Rc::clone(&self.state), queued });
        self.send(permit.now, &session.link, on_reply, mask, |wire| call.request.write(wire, Replacements::new()));
        if long {
            session.link.may_take(Delay::Long);
        }
        if subscribes {
            self.mark_the_end_of_messages(permit, session);
        }
        if speaks {
            self.replies = Replies::On;
        }
        next
    }

    /// Sends a command that does not exist behind EXEC. Redis from 7.2 and Valkey may send messages of channels that the
    /// transaction unsubscribes from after EXEC's reply, and in RESP2 such messages look like replies. All of them come before the
    /// error to this command, and the client's next command waits for that error.
    fn mark_the_end_of_messages(&self, permit: &ServePermit, session: &Rc<Session>) {
        let slot = self.reply_queue.open(true);
        let on_reply = OnReply::session(session, InSession::BehindExec);
        session.link.send(
            Pending {
                to: Some((Rc::clone(&self.reply_queue), slot)),
                sent: permit.now,
                on_reply,
                call: CallMark::default(),
            },
            unknown_command,
        );
    }
}
