//! Whether it lives, and whether it is ready: PROXY HEALTH, `/livez` and `/readyz`.

use std::sync::Arc;
use std::time::Instant;

use crate::coherence::Role;
use crate::resp::build;

use super::Admin;
use super::subcommands::{Answer, Asked};

/// PROXY HEALTH. Anybody may ask: it tells no more than reasons.
pub(super) fn health(admin: &Arc<Admin>, asked: Asked<'_>) -> Answer {
    match asked.words.first().map(|word| word.to_ascii_lowercase()).as_deref() {
        None | Some(b"live") => Answer::Frame(admin.health(&[])),
        Some(b"ready") => Answer::Frame(admin.health(&admin.unready())),
        Some(_) => Answer::Error("ERR PROXY HEALTH takes live or ready".to_owned()),
    }
}

impl Admin {
    /// What keeps it from being ready; nothing: it is. A process that is about to end takes no new connection, and so is not asked.
    pub fn unready(&self) -> Vec<&'static str> {
        let role = self.coherence.role();
        let reasons = [
            (!self.status.seen(Instant::now()).accepted, "Redis has not accepted the login of Shortstop so far"),
            (role == Role::Replica, "Redis is a replica"),
        ];
        reasons.into_iter().filter_map(|(holds, reason)| holds.then_some(reason)).collect()
    }

    /// The answer, with what speaks against the state that was asked for.
    fn health(&self, reasons: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        if !reasons.is_empty() {
            build::error(&mut out, &format!("NOTREADY {}", reasons.join("; ")));
        } else if self.status.seen(Instant::now()).up {
            out.extend_from_slice(b"+OK\r\n");
        } else {
            out.extend_from_slice(b"+OK, but Redis does not answer\r\n");
        }
        out
    }
}
