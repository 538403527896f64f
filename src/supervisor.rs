//! Watches the named threads and tasks that Shortstop cannot do without. If one ends that should not, Shortstop has failed: the
//! caller is told, and ends the process. Must not know what they do. Restarts none of them: a worker that is gone took its clients
//! and its guards along, and only a new process is in a known state.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::watch;

/// Whether the end of a task is a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It must not end by itself.
    Never,
    /// It may end when it has nothing more to do. Only a panic is a failure.
    Allowed,
}

/// What has ended and should not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} {how}")]
pub struct Failure {
    name: Arc<str>,
    how: &'static str,
}

/// The watch over one Shortstop.
#[derive(Clone, Debug, Default)]
pub struct Supervisor(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Names of the threads and tasks that run.
    running: Mutex<Vec<Arc<str>>>,
    /// Shortstop is shutting down, so nothing that ends now has failed.
    stopping: AtomicBool,
    failed: watch::Sender<Option<Failure>>,
}

impl Supervisor {
    /// Watches a task. If it is dropped before its end, it was cancelled, which is no failure.
    pub fn watch<T: Future>(&self, name: &str, end: End, task: T) -> impl Future<Output = T::Output> + use<T> {
        let watched = self.enter(name, end);
        async move {
            let output = task.await;
            watched.ends();
            output
        }
    }

    /// Starts a watched thread.
    ///
    /// # Errors
    /// The system provides no thread.
    pub fn thread(&self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
        let watched = self.enter(name, End::Never);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            run();
            watched.ends();
        })
    }

    /// Shortstop is shutting down: from now on nothing that ends has failed.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    /// Names of the threads and tasks that have not ended.
    pub fn running(&self) -> Vec<Arc<str>> {
        self.0.running().clone()
    }

    /// Waits until something has ended that should not have.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn failed(&self) -> Failure {
        let mut failures = self.0.failed.subscribe();
        loop {
            if let Some(failure) = failures.borrow_and_update().clone() {
                return failure;
            }
            // The sender is borrowed, so it cannot be dropped meanwhile.
            let _ = failures.changed().await;
        }
    }

    fn enter(&self, name: &str, end: End) -> Watched {
        let name: Arc<str> = name.into();
        self.0.running().push(Arc::clone(&name));
        Watched { inner: Arc::clone(&self.0), name, end, has_ended: false }
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, Vec<Arc<str>>> {
        // No operation under this lock can leave the list half changed.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports on drop how it ended. Logs nothing: if logging panicked during an unwinding, the process would abort without a message.
struct Watched {
    inner: Arc<Inner>,
    name: Arc<str>,
    end: End,
    has_ended: bool,
}

impl Watched {
    /// It has ended, and was not cancelled.
    fn ends(mut self) {
        self.has_ended = true;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut running = self.inner.running();
        if let Some(at) = running.iter().position(|name| Arc::ptr_eq(name, &self.name)) {
            running.swap_remove(at);
        }
        drop(running);
        let how = match (std::thread::panicking(), self.has_ended) {
            (true, _) => "has panicked",
            (false, true) if self.end == End::Never => "has ended",
            (false, _) => return,
        };
        if !self.inner.stopping.load(Ordering::Acquire) {
            self.inner.failed.send_modify(|failed| {
                failed.get_or_insert(Failure { name: Arc::clone(&self.name), how });
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::{End, Supervisor};

    fn names(supervisor: &Supervisor) -> Vec<String> {
        supervisor.running().iter().map(|name| name.to_string()).collect()
    }

    #[tokio::test]
    async fn a_task_that_panics_is_named() {
        let supervisor = Supervisor::default();
        let panics = supervisor.watch("one that panics", End::Allowed, async { panic!("as this test wants it") });
        assert_eq!(names(&supervisor), ["one that panics"]);
        let task: tokio::task::JoinHandle<()> = tokio::spawn(panics);
        assert_eq!(supervisor.failed().await.to_string(), "one that panics has panicked");
        assert!(task.await.is_err() && names(&supervisor).is_empty());
    }

    #[tokio::test]
    async fn the_end_of_a_task_is_a_failure_where_it_should_not_end() {
        let supervisor = Supervisor::default();
        supervisor.watch("one that may end", End::Allowed, async {}).await;
        // A task that is cancelled.
        drop(supervisor.watch("one that never ends", End::Never, std::future::pending::<()>()));
        assert!(supervisor.failed().now_or_never().is_none());
        supervisor.watch("one that should not end", End::Never, async {}).await;
        assert_eq!(supervisor.failed().await.to_string(), "one that should not end has ended");
    }

    #[test]
    fn a_thread_that_panics_is_named_and_one_that_ends_after_stop_is_not() {
        let supervisor = Supervisor::default();
        let thread = supervisor.thread("a thread", || panic!("as this test wants it")).expect("a thread");
        assert!(thread.join().is_err());
        let failure = supervisor.failed().now_or_never().expect("it has failed");
        assert_eq!(failure.to_string(), "a thread has panicked");

        let supervisor = Supervisor::default();
        supervisor.stop();
        supervisor.thread("a thread", || ()).expect("a thread").join().expect("it ends");
        assert!(supervisor.failed().now_or_never().is_none());
    }
}
