//! The ways from one worker to all workers. `C` is what a worker owns.

use std::fmt;
use std::rc::Rc;
use std::sync::OnceLock;

type Work<C> = dyn FnOnce(&Rc<C>) + Send;

/// A task for a worker.
pub struct WorkerTask<C>(Box<Work<C>>);

impl<C> WorkerTask<C> {
    /// A task that does this work.
    pub(crate) fn new(work: impl FnOnce(&Rc<C>) + Send + 'static) -> Self {
        WorkerTask(Box::new(work))
    }

    /// Runs the task on the worker that owns `context`.
    pub fn run(self, context: &Rc<C>) {
        (self.0)(context);
    }
}

impl<C> fmt::Debug for WorkerTask<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkerTask")
    }
}

/// Delivers tasks to one worker. A worker that has ended drops them. Must not keep a worker from ending.
pub type Mailbox<C> = Box<dyn Fn(WorkerTask<C>) + Send + Sync>;

/// The mailboxes of all workers.
pub struct Mailboxes<C>(OnceLock<Vec<Mailbox<C>>>);

impl<C> Default for Mailboxes<C> {
    fn default() -> Self {
        Mailboxes(OnceLock::new())
    }
}

impl<C> Mailboxes<C> {
    /// Call this once, before any client is served.
    pub fn open(&self, mailboxes: Vec<Mailbox<C>>) {
        // A second call changes nothing.
        let _ = self.0.set(mailboxes);
    }

    /// All mailboxes. There are none before `open`.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Mailbox<C>> {
        self.0.get().into_iter().flatten()
    }
}
