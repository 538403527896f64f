//! The curve of hit rates: fed from the samples of the workers.

use std::sync::{Arc, MutexGuard, PoisonError};

use crate::traffic::{Batch, Curve};

use super::Admin;
use super::key_state::PATIENCE;

impl Admin {
    /// The curve.
    pub(super) fn curve(&self) -> MutexGuard<'_, Curve> {
        self.curve.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the workers have noted into the curve. Call this once a second.
    pub async fn follow_curve(self: &Arc<Self>) {
        let shift = self.curve().shift();
        let noted = self.mailboxes.ask_all(Some(PATIENCE), move |context, answers| {
            // If the receiver is gone, the next call counts.
            let _ = answers.send(context.accesses.take(shift));
        });
        let mut noted = noted.await;
        noted.push(self.heard.lock().unwrap_or_else(PoisonError::into_inner).take(shift));
        let hits = self.stats.sum(|worker| &worker.l1_hits);
        let reads = hits + self.stats.sum(|worker| &worker.l1_misses);
        let admin = Arc::clone(self);
        // Takes some milliseconds when much happens.
        let taken = tokio::task::spawn_blocking(move || {
            let bounds = admin.config.get().l1.clone();
            let mut curve = admin.curve();
            curve.configure(&bounds);
            curve.take(Batch { noted, reads, hits });
        });
        if taken.await.is_err() {
            tracing::error!("the curve of hit rates has failed; it begins anew");
            *self.curve() = Curve::new(&self.config.get().l1);
        }
    }
}
