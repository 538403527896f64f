//! PROXY FLUSH: drops keys from L1, here or in the whole fleet. Redis is not changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::bus::{Event, MAX_GLOB};

use super::Admin;
use super::answer::{Answer, Asked};
use super::view::View;

/// PROXY FLUSH [pattern] [FLEET].
pub(super) fn flush(admin: &Arc<Admin>, asked: Asked<'_>) -> Answer {
    let is_fleet = |word: &[u8]| word.eq_ignore_ascii_case(b"fleet");
    let (pattern, fleet) = match asked.words {
        [] => (&b"*"[..], false),
        [word] if is_fleet(word) => (&b"*"[..], true),
        [pattern] => (*pattern, false),
        [pattern, word] if is_fleet(word) => (*pattern, true),
        _ => return Answer::Error("ERR PROXY FLUSH takes a pattern, or FLEET, or both in this order".to_owned()),
    };
    let (admin, pattern) = (Arc::clone(admin), pattern.to_vec());
    Answer::Later(Box::pin(async move {
        let flushed = admin.flush(pattern, fleet).await;
        flushed.map(|()| View::Ok).map_err(|why| format!("ERR {why}"))
    }))
}

impl Admin {
    /// Drops every key that matches from L1, and in the fleet if asked for.
    ///
    /// # Errors
    /// Why nothing was dropped, or not in the fleet.
    ///
    /// # Cancel safety
    /// They are dropped, too, if nobody waits for it.
    pub async fn flush(&self, pattern: Vec<u8>, fleet: bool) -> Result<(), String> {
        if pattern.is_empty() || pattern.len() > MAX_GLOB {
            return Err(format!("the pattern must have 1 to {MAX_GLOB} bytes; * is every key"));
        }
        if fleet {
            let outbox = self.outbox.as_ref().ok_or("there is no fleet, because nats names no server")?;
            // A full queue is followed by a flush of everything.
            let _ = outbox.try_send(vec![Event::Forget { glob: pattern.as_slice().into() }]);
        }
        // Looks at all of L1, for which no client should wait.
        let coherence = Arc::clone(&self.coherence);
        let dropped = self.control.spawn_blocking(move || coherence.forget(&pattern, "PROXY FLUSH")).await;
        dropped.map_err(|_| "it failed; the log says why".to_owned())?;
        if fleet && !self.bus.connected.load(Ordering::Relaxed) {
            // They miss the number of this message, too.
            return Err("only this Shortstop has dropped them, because NATS is away; the others drop everything when it is back".to_owned());
        }
        Ok(())
    }
}
