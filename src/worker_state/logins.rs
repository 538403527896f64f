//! Logins that wait for an auth link.
//!
//! Each auth link carries one login at a time, after all earlier replies have arrived. Redis from 7.2 on sends no reply to a failed
//! login while an older reply waits in its buffers (Valkey from 9 on does), so the next reply would be taken for the login's.

use crate::exchange::pending::QueuedLogin;
use crate::resp::build;
use crate::upstream::Reply;
use crate::worker_state::context::Context;

/// Starts waiting logins, as many as there are free auth links.
pub(crate) fn next_login(context: &Context) {
    // A login that is taken from the queue is always tried, so it never needs two links.
    while !context.queued_logins.borrow().is_empty() {
        let Some(auth_link) = context.rc().and_then(|context| context.free_auth_link()) else { return };
        let Some(QueuedLogin { words, pending }) = context.queued_logins.borrow_mut().pop_front() else { return };
        let Err(lost) = auth_link.check() else {
            let words = words.iter().map(Vec::as_slice);
            auth_link.send(pending, |wire| wire.push_with(|out| build::request(out, words)));
            continue;
        };
        context.count_lost(&lost);
        if let Some((reply_queue, slot)) = pending.to {
            let mut out = Vec::new();
            build::error(&mut out, lost.text());
            reply_queue.fill(slot, Reply::Borrowed(&out));
            // Later requests in the pipeline are meant for another user or another protocol.
            reply_queue.close();
        }
    }
}
