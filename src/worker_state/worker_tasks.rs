//! Tasks that one worker runs on all workers.
//!
//! A task runs on each worker's own thread, between two of its tasks, with what that worker owns. Answers come back over a channel.
//! Nothing waits for a worker that has ended: its tasks are dropped, and their senders with them. Not for frequent events.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::worker_state::context::{Context, Mailboxes, WorkerTask};

impl Context {
    /// Runs `work` on every worker, including this one, some time soon.
    pub(crate) fn run_on_all_workers(&self, work: impl Fn(&Rc<Context>) + Clone + Send + 'static) {
        for mailbox in self.shared.mailboxes.all() {
            let work = work.clone();
            mailbox(WorkerTask::new(move |context| work(context)));
        }
    }

    /// Runs `work` on every worker, including this one, and returns their answers in no particular order. A worker answers by
    /// sending, which it may do later.
    pub(crate) async fn ask_all_workers<T: Send + 'static>(
        &self,
        work: impl Fn(&Rc<Context>, mpsc::UnboundedSender<T>) + Clone + Send + 'static,
    ) -> Vec<T> {
        self.shared.mailboxes.ask_all(None, work).await
    }
}

impl Mailboxes {
    /// Runs `work` on every worker, and returns the answers that come within `limit`, in no particular order. A worker answers by
    /// sending, which it may do later.
    pub(crate) async fn ask_all<T: Send + 'static>(
        &self,
        limit: Option<Duration>,
        work: impl Fn(&Rc<Context>, mpsc::UnboundedSender<T>) + Clone + Send + 'static,
    ) -> Vec<T> {
        // Holds at most one answer per worker.
        let (answers, mut gathered) = mpsc::unbounded_channel();
        for mailbox in self.all() {
            let (work, answers) = (work.clone(), answers.clone());
            mailbox(WorkerTask::new(move |context| work(context, answers)));
        }
        // Else the loop below would wait for this sender.
        drop((work, answers));
        let mut all = Vec::new();
        let gather = async {
            while let Some(answer) = gathered.recv().await {
                all.push(answer);
            }
        };
        match limit {
            // What came in time counts.
            Some(limit) => drop(timeout(limit, gather).await),
            None => gather.await,
        }
        all
    }
}
