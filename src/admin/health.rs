//! Whether it lives, and whether it is ready: PROXY HEALTH, `/livez` and `/readyz`.

use std::sync::Arc;
use std::time::Instant;

use crate::coherence::Role;
use crate::resp::build;

use super::Admin;
use super::answer::{Answer, Asked};

/// PROXY HEALTH.
pub(super) fn health(admin: &Arc<Admin>, asked: Asked<'_>) -> Answer {
    match asked.words.first().map(|word| word.to_ascii_lowercase()).as_deref() {
        None | Some(b"live") => Answer::Frame(admin.health(&[])),
        Some(b"ready") => Answer::Frame(admin.health(&admin.unready())),
        Some(_) => Answer::Error("ERR PROXY HEALTH takes live or ready".to_owned()),
    }
}

impl Admin {
    /// The reasons why it is not ready; empty if it is. A process that is about to end accepts no new connection, so it cannot be
    /// asked.
    pub fn unready(&self) -> Vec<String> {
        let upstream = self.status.seen(Instant::now());
        let is_replica = self.coherence.role() == Role::Replica;
        let reasons =
            [(!upstream.accepted).then(|| upstream.trouble()), is_replica.then(|| "Redis is a replica".to_owned())];
        reasons.into_iter().flatten().collect()
    }

    /// The reply to `PROXY HEALTH`, with the reasons against the state that was asked for. It needs no login, so it tells nothing
    /// else.
    fn health(&self, reasons: &[String]) -> Vec<u8> {
        let mut out = Vec::new();
        let upstream = self.status.seen(Instant::now());
        if !reasons.is_empty() {
            build::error(&mut out, &format!("NOTREADY {}", reasons.join("; ")));
        } else if upstream.up {
            build::status(&mut out, "OK");
        } else {
            build::status(&mut out, &format!("OK, but {}", upstream.trouble()));
        }
        out
    }
}
