//! The ways from one worker to all of them. `C`: what a worker owns.

use std::fmt;
use std::rc::Rc;
use std::sync::OnceLock;

type Work<C> = dyn FnOnce(&Rc<C>) + Send;

/// What a worker is asked to do.
pub struct WorkerTask<C>(Box<Work<C>>);

impl<C> WorkerTask<C> {
    /// Of this work.
    pub(crate) fn new(work: impl FnOnce(&Rc<C>) + Send + 'static) -> Self {
        WorkerTask(Box::new(work))
    }

    /// Runs it on the worker whose belongings these are.
    pub fn run(self, context: &Rc<C>) {
        (self.0)(context);
    }
}

impl<C> fmt::Debug for WorkerTask<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkerTask")
    }
}

/// Takes a task to one worker; one that has ended drops it. Must not keep a worker from ending.
pub type Mailbox<C> = Box<dyn Fn(WorkerTask<C>) + Send + Sync>;

/// The ways to all workers.
pub struct Mailboxes<C>(OnceLock<Vec<Mailbox<C>>>);

impl<C> Default for Mailboxes<C> {
    fn default() -> Self {
        Mailboxes(OnceLock::new())
    }
}

impl<C> Mailboxes<C> {
    /// To be called once, before any client is served.
    pub fn open(&self, mailboxes: Vec<Mailbox<C>>) {
        // Who calls it twice keeps the first.
        let _ = self.0.set(mailboxes);
    }

    /// All of them; none before they are open.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Mailbox<C>> {
        self.0.get().into_iter().flatten()
    }
}
