//! The warm-up that runs or has run last: how far it is, and how it ended.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use crate::history::unix_time;

use super::view::View;

/// The warm-up that runs or has run last.
#[derive(Default)]
pub struct Warmer(Mutex<Option<Job>>);

struct Job {
    progress: Arc<Progress>,
    task: AbortHandle,
}

/// How far a warm-up is.
pub(super) struct Progress {
    /// The pattern, as it is shown.
    pattern: View,
    started: u64,
    since: Instant,
    /// Keys that were found.
    pub(super) scanned: AtomicU64,
    /// Keys that were read.
    pub(super) read: AtomicU64,
    /// Reads that Redis has refused.
    pub(super) refused: AtomicU64,
    ended: Mutex<Option<(End, Duration)>>,
}

/// How it ended.
#[derive(Clone)]
pub(super) enum End {
    /// All keys were read, or as many as were asked for.
    Done,
    /// Somebody has ended it.
    Cancelled,
    /// Why it could not go on.
    Failed(String),
}

impl Warmer {
    fn lock(&self) -> MutexGuard<'_, Option<Job>> {
        // A job is replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a warm-up, if none runs. `spawn` starts it.
    ///
    /// # Errors
    /// One runs.
    pub(super) fn begin(
        &self,
        progress: Progress,
        spawn: impl FnOnce(Arc<Progress>) -> AbortHandle,
    ) -> Result<(), String> {
        let mut job = self.lock();
        if job.as_ref().is_some_and(|job| job.progress.end().is_none()) {
            return Err("a warm-up is running; PROXY WARM CANCEL ends it".to_owned());
        }
        let progress = Arc::new(progress);
        let task = spawn(Arc::clone(&progress));
        *job = Some(Job { progress, task });
        Ok(())
    }

    /// Ends the warm-up that runs, if one does.
    pub fn cancel(&self) {
        if let Some(job) = &*self.lock() {
            job.task.abort();
            job.progress.finish(End::Cancelled);
        }
    }

    /// How far it is.
    pub fn view(&self) -> View {
        match &*self.lock() {
            None => View::Map(vec![("state", View::text("none"))]),
            Some(job) => job.progress.view(),
        }
    }
}

impl Progress {
    pub(super) fn new(pattern: View) -> Self {
        Progress {
            pattern,
            started: unix_time(),
            since: Instant::now(),
            scanned: AtomicU64::new(0),
            read: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            ended: Mutex::new(None),
        }
    }

    fn end(&self) -> Option<(End, Duration)> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It has ended. The first end counts.
    pub(super) fn finish(&self, end: End) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.is_none() {
            let took = self.since.elapsed();
            let (read, seconds) = (self.read.load(Ordering::Relaxed), took.as_secs_f64());
            match &end {
                End::Done => tracing::info!(read, seconds, "the warm-up of L1 is done"),
                End::Cancelled => tracing::info!(read, seconds, "the warm-up of L1 was cancelled"),
                End::Failed(why) => tracing::warn!(read, seconds, why, "the warm-up of L1 has failed"),
            }
            *ended = Some((end, took));
        }
    }

    fn view(&self) -> View {
        let count = |number: &AtomicU64| View::count(number.load(Ordering::Relaxed));
        let end = self.end();
        let (state, why) = match end.as_ref().map(|(end, _)| end) {
            None => ("running", None),
            Some(End::Done) => ("done", None),
            Some(End::Cancelled) => ("cancelled", None),
            Some(End::Failed(why)) => ("failed", Some(why.as_str())),
        };
        let took = end.as_ref().map_or_else(|| self.since.elapsed(), |(_, took)| *took);
        View::Map(vec![
            ("state", View::text(state)),
            ("why", View::maybe(why, View::text)),
            ("pattern", self.pattern.clone()),
            ("started", View::count(self.started)),
            ("took_ms", View::count(took.as_millis())),
            ("scanned", count(&self.scanned)),
            ("read", count(&self.read)),
            ("refused", count(&self.refused)),
        ])
    }
}
