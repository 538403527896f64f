//! Fills a client's slot with a reply, or with an error if no reply will come.

use std::rc::Rc;

use crate::client_state::ending::Ending;
use crate::client_state::reply_queue::{ReplyQueue, Slot};
use crate::exchange::pending::Reader;
use crate::resp::build;
use crate::upstream::{Lost, Reply};

/// Passes a reply on. The reply to a request of Shortstop's own goes to no client.
#[inline]
pub(crate) fn answer(to: Option<(Rc<ReplyQueue>, Slot)>, reply: Reply<'_>) {
    if let Some((reply_queue, slot)) = to {
        reply_queue.fill(slot, reply);
    }
}

/// Answers with the error. If Redis refuses the client's login, the client is closed as well.
pub(crate) fn fail_with_lost(reply_queue: &ReplyQueue, slot: Slot, why: &Lost) {
    let mut out = Vec::new();
    build::error(&mut out, why.text());
    fail_with_error(reply_queue, slot, &out, why);
}

/// Answers with this error. If Redis refuses the client's login, the client is closed as well.
pub(crate) fn fail_with_error(reply_queue: &ReplyQueue, slot: Slot, error: &[u8], why: &Lost) {
    if reply_queue.ending() == Ending::UserDeleted {
        return reply_queue.fill(slot, Reply::Borrowed(b""));
    }
    reply_queue.fill(slot, Reply::Borrowed(error));
    if why.is_login_refused() {
        reply_queue.close();
    }
}

impl Reader {
    /// Answers the reader with an error.
    pub(crate) fn lose(self, why: &Lost) {
        let mut error = Vec::new();
        build::error(&mut error, why.text());
        fail_with_error(&self.reply_queue, self.slot, &error, why);
    }
}
