//! Logins that wait for an auth link.
//!
//! On each of them logins are tried one at a time, when the answers to all that came before are here: from 7.2 on Redis says nothing to a login
//! that fails while an older reply waits in its buffers (Valkey since 9 does), and the next reply would be taken for its answer.

use crate::exchange::pending::QueuedLogin;
use crate::resp::build;
use crate::upstream::Reply;
use crate::worker_state::context::Context;

/// Tries the logins that wait, as many at a time as there may be.
pub(crate) fn next_login(context: &Context) {
    // Whoever takes one out tries it, so that none is waited for twice.
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
            // What follows in the pipeline is meant for another user, or another protocol.
            reply_queue.close();
        }
    }
}
