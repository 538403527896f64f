//! What one worker asks all of them: who is connected there, and what is to become of them.
//!
//! A task runs on each worker's own thread between two of its tasks, on what that worker owns; answers come back over a
//! channel. Nobody waits for a worker that has ended: its tasks are dropped, and with them their way back. Never for what
//! happens often.

use std::rc::Rc;

use tokio::sync::mpsc;

use crate::worker_state::context::{Context, WorkerTask};

impl Context {
    /// Has `work` done on every worker, this one included, some time soon.
    pub(crate) fn run_on_all_workers(&self, work: impl Fn(&Rc<Context>) + Clone + Send + 'static) {
        for mailbox in self.shared.mailboxes.all() {
            let work = work.clone();
            mailbox(WorkerTask::new(move |context| work(context)));
        }
    }

    /// Has `work` done on every worker, this one included, and gives what they answered, in no order. A worker answers by what
    /// it sends; it may do so later.
    pub(crate) async fn ask_all_workers<T: Send + 'static>(
        &self,
        work: impl Fn(&Rc<Context>, mpsc::UnboundedSender<T>) + Clone + Send + 'static,
    ) -> Vec<T> {
        // Holds as many answers as there are workers.
        let (answers, mut gathered) = mpsc::unbounded_channel();
        for mailbox in self.shared.mailboxes.all() {
            let (work, answers) = (work.clone(), answers.clone());
            mailbox(WorkerTask::new(move |context| work(context, answers)));
        }
        drop(answers);
        let mut all = Vec::new();
        while let Some(answer) = gathered.recv().await {
            all.push(answer);
        }
        all
    }
}
