//! Asks the workers once a second for what they have noted of the keys that pass.

use std::sync::{Arc, MutexGuard, PoisonError};

use crate::traffic::Batch;

use super::Admin;
use super::following::Following;
use super::key_state::PATIENCE;

impl Admin {
    pub(super) fn following(&self) -> MutexGuard<'_, Following> {
        self.following.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the workers have noted. Call this once a second.
    pub async fn follow(self: &Arc<Self>) {
        let shift = self.following().curve.shift();
        let noted = self.mailboxes.ask_all(Some(PATIENCE), move |context, answers| {
            // If the receiver is gone, the next call counts.
            let _ = answers.send((context.accesses.take(shift), context.trials.borrow_mut().take()));
        });
        let (mut noted, trials): (Vec<_>, Vec<_>) = noted.await.into_iter().unzip();
        noted.push(self.heard.lock().unwrap_or_else(PoisonError::into_inner).take(shift));
        let hits = self.stats.sum(|worker| &worker.l1_hits);
        let reads = hits + self.stats.sum(|worker| &worker.l1_misses);
        let of_rules = self.stats.rules().by_place();
        let of_rules = of_rules.iter().map(|sums| sums.hits + sums.misses + sums.observed).collect();
        let batch = Batch { noted, reads, hits, of_rules };
        let admin = Arc::clone(self);
        // Takes some milliseconds when much happens.
        let taken = tokio::task::spawn_blocking(move || {
            let config = admin.config.get();
            admin.following().take(config, batch, trials.into_iter().flatten().collect());
        });
        if taken.await.is_err() {
            tracing::error!("the estimate of hit rates has failed; it begins anew");
            *self.following() = Following::new(self.config.get());
        }
    }
}
