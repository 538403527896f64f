//! The SUBSCRIBE family. Redis sends one acknowledgement per channel.

use std::rc::Rc;

use crate::client_state::connection_state::{Kind, Reason};
use crate::coherence::ServePermit;
use crate::exchange::exec_demux::Subscribed;
use crate::exchange::pending::{CallMark, InSession, OnReply, Pending};
use crate::exchange::reply_shape::ReplyShape;
use crate::proxy::call::{Call, Target};
use crate::proxy::client::{Client, Next, Replies};
use crate::proxy::request::Replacements;

impl Client {
    /// Whether the client may receive messages from channels.
    pub fn is_subscribed(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_subscribed())
    }

    /// A command of the SUBSCRIBE family, for channels, patterns or shard channels.
    pub(super) fn subscribe(&mut self, permit: &ServePermit, call: Call<'_>, kind: Kind) -> Next {
        let session = match self.own_session(permit, call) {
            Ok(session) => session,
            Err(next) => return next,
        };
        let named = call.args.len() - 1;
        if session.in_multi() {
            // Redis from 7.2 and Valkey send the transaction's messages after EXEC's reply, also messages of channels that it
            // unsubscribes from.
            session.bind(Reason::Setting);
            let queued = self.queued();
            let (at, word) = (queued.shape.len(), call.row.name.clone());
            queued.commands.subscribed.push(Subscribed { at, kind, word, named });
            queued.shape.push(ReplyShape::Nothing);
            return self.pass(permit, call, Target::Session(session));
        }
        if (!session.is_subscribed() || named == 0) && self.reply_queue.outstanding() > 0 {
            return Next::Again;
        }
        // Without channel names the command means all channels. Redis sends at least one acknowledgement.
        let left = if named > 0 { named } else { session.subscriptions(kind).max(1) };
        session.begin_acknowledging();
        // CLIENT REPLY OFF does not mute acknowledgements and messages.
        let muted = self.is_muted();
        let replies = std::mem::replace(&mut self.replies, Replies::On);
        let on_reply = OnReply::session(&session, InSession::Acknowledge { kind, left, muted });
        self.send(permit.now, &session.link, on_reply, u64::MAX, |wire| call.request.write(wire, Replacements::new()));
        self.replies = replies;
        Next::Go
    }

    /// Ends the client's subscriptions, and gives `answer` once Redis has confirmed. Other clients then no longer count this client
    /// as a subscriber. Returns false if the client is not subscribed.
    pub(super) fn unsubscribe_first(&mut self, permit: &ServePermit, answer: &'static [u8]) -> bool {
        let session = self.session.as_ref().filter(|session| session.is_subscribed() && !session.is_monitor());
        let Some(session) = session.filter(|session| session.link.check().is_ok()) else { return false };
        let (reply_queue, slot) = (Rc::clone(&self.reply_queue), self.reply_queue.open(self.is_muted()));
        // The connection is closed in any case. RESET changes its user to the default user, so no other client may get it.
        session.never_reuse();
        self.context.stats().upstream_commands.add(1);
        let on_reply = OnReply::Unsubscribed { reply_queue, slot, answer };
        session.link.send(Pending { to: None, sent: permit.now, on_reply, call: CallMark::default() }, |wire| {
            wire.push_slice(b"*1\r\n$5\r\nRESET\r\n")
        });
        true
    }
}
