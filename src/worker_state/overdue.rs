//! Overdue replies on a worker's connections, and what follows when Redis hangs. The state for all workers together is in
//! [`crate::upstream::Silence`].

use std::time::{Duration, Instant};

use crate::errors;
use crate::exchange::pending::Link;
use crate::metrics::outcome::UnknownWrite;
use crate::upstream::{Lost, OVERDUE};
use crate::worker_state::context::Context;

impl Context {
    /// Checks how long replies have been due, and gives up the connections on which Redis hangs. Call this a few times a second.
    pub fn check_replies(&self, now: Instant) {
        let silence = self.shared.endpoint.silence();
        let links: Vec<_> = self.all_links.borrow().values().cloned().collect();
        if links.iter().any(Link::has_long) {
            silence.excuse(now);
        }
        let excused = silence.excused();
        let limit = self.links.timeouts.get().reply;
        let mut overdue = 0;
        for link in &links {
            let Some(since) = link.owed_since() else { continue };
            let owed = now.saturating_duration_since(since.max(excused));
            overdue += usize::from(owed >= OVERDUE);
            if owed >= limit && !limit.is_zero() {
                let address = self.links.dialer.upstream().address();
                let hung = Lost::from(&errors::hung(address, owed)).because(UnknownWrite::GivenUp);
                link.give_up(self, &hung);
            }
        }
        silence.count(self.overdue.replace(overdue), overdue);
        self.publish();
    }

    /// Redis has accepted CLIENT PAUSE for this long. `None` for CLIENT UNPAUSE.
    pub(crate) fn paused(&self, pause: Option<Duration>) {
        let (silence, now) = (self.shared.endpoint.silence(), Instant::now());
        match pause {
            Some(length) => now.checked_add(length).into_iter().for_each(|end| silence.excuse(end)),
            None => silence.end_excuse(now),
        }
    }
}
