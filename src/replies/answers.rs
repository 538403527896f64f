//! Answers to a client whose reply has come, or never will.

use std::rc::Rc;

use crate::client_state::ending::Ending;
use crate::client_state::reply_queue::{ReplyQueue, Slot};
use crate::exchange::pending::Reader;
use crate::resp::build;
use crate::upstream::{Lost, Reply};

/// Passes a reply on; that of a request of our own goes nowhere.
#[inline]
pub(crate) fn answer(to: Option<(Rc<ReplyQueue>, Slot)>, reply: Reply<'_>) {
    if let Some((reply_queue, slot)) = to {
        reply_queue.fill(slot, reply);
    }
}

/// Answers with the error. Whoever Redis does not let in any more is gone with that.
pub(crate) fn tell_lost(reply_queue: &ReplyQueue, slot: Slot, why: &Lost) {
    let mut out = Vec::new();
    build::error(&mut out, why.text());
    end_lost(reply_queue, slot, &out, why);
}

/// Answers with this error, and closes whom Redis does not let in any more.
pub(crate) fn end_lost(reply_queue: &ReplyQueue, slot: Slot, error: &[u8], why: &Lost) {
    if reply_queue.ending() == Ending::UserDeleted {
        return reply_queue.fill(slot, Reply::Borrowed(b""));
    }
    reply_queue.fill(slot, Reply::Borrowed(error));
    if why.is_login_refused() {
        reply_queue.close();
    }
}

impl Reader {
    /// Tells the reader that there will be no answer.
    pub(crate) fn lose(self, why: &Lost) {
        let mut error = Vec::new();
        build::error(&mut error, why.text());
        end_lost(&self.reply_queue, self.slot, &error, why);
    }
}
