//! Work in the background that goes through many keys: the run that is under way or was the last one, how far it is, and how it ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use crate::history::unix_time;

use super::view::View;

/// What a run counts.
pub trait Counts: Send + Sync + 'static {
    /// Why a second run does not begin.
    const RUNS: &'static str;

    /// What was counted so far, by name.
    fn fields(&self) -> Vec<(&'static str, View)>;

    /// Logs the end of the run.
    fn log(&self, end: &End, seconds: f64);
}

/// How a run ended.
#[derive(Clone)]
pub enum End {
    /// All is done.
    Done,
    /// Somebody has ended it.
    Cancelled,
    /// Why it could not go on.
    Failed(String),
}

/// The run that is under way or was the last one.
pub struct Background<C>(Mutex<Option<Job<C>>>);

struct Job<C> {
    run: Arc<Run<C>>,
    task: AbortHandle,
}

/// A run, and how far it is.
pub struct Run<C> {
    /// The pattern, as it is shown.
    pattern: View,
    started: u64,
    since: Instant,
    /// What is counted.
    pub counts: C,
    ended: Mutex<Option<(End, Duration)>>,
}

impl<C> Default for Background<C> {
    fn default() -> Self {
        Background(Mutex::new(None))
    }
}

impl<C: Counts> Background<C> {
    fn lock(&self) -> MutexGuard<'_, Option<Job<C>>> {
        // A job is replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a run, if none is under way. `spawn` starts it.
    ///
    /// # Errors
    /// One is under way.
    pub(super) fn begin(&self, run: Run<C>, spawn: impl FnOnce(Arc<Run<C>>) -> AbortHandle) -> Result<(), String> {
        let mut job = self.lock();
        if job.as_ref().is_some_and(|job| job.run.end().is_none()) {
            return Err(C::RUNS.to_owned());
        }
        let run = Arc::new(run);
        let task = spawn(Arc::clone(&run));
        *job = Some(Job { run, task });
        Ok(())
    }

    /// Ends the run that is under way, if one is.
    pub fn cancel(&self) {
        if let Some(job) = &*self.lock() {
            job.task.abort();
            job.run.finish(End::Cancelled);
        }
    }

    /// How far it is.
    pub fn view(&self) -> View {
        match &*self.lock() {
            None => View::Map(vec![("state", View::text("none"))]),
            Some(job) => job.run.view(),
        }
    }
}

impl<C: Counts> Run<C> {
    pub(super) fn new(pattern: View, counts: C) -> Self {
        Run { pattern, started: unix_time(), since: Instant::now(), counts, ended: Mutex::new(None) }
    }

    fn end(&self) -> Option<(End, Duration)> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It has ended. The first end counts.
    pub(super) fn finish(&self, end: End) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.is_none() {
            let took = self.since.elapsed();
            self.counts.log(&end, took.as_secs_f64());
            *ended = Some((end, took));
        }
    }

    fn view(&self) -> View {
        let end = self.end();
        let (state, why) = match end.as_ref().map(|(end, _)| end) {
            None => ("running", None),
            Some(End::Done) => ("done", None),
            Some(End::Cancelled) => ("cancelled", None),
            Some(End::Failed(why)) => ("failed", Some(why.as_str())),
        };
        let took = end.as_ref().map_or_else(|| self.since.elapsed(), |(_, took)| *took);
        let mut fields = vec![
            ("state", View::text(state)),
            ("why", View::maybe(why, View::text)),
            ("pattern", self.pattern.clone()),
            ("started", View::count(self.started)),
            ("took_ms", View::count(took.as_millis())),
        ];
        fields.extend(self.counts.fields());
        View::Map(fields)
    }
}
