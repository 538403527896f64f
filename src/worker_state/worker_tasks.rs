//! What one worker asks all of them: who is connected there, and what is to become of them.
//!
//! A task runs on each worker's own thread between two of its tasks, on what that worker owns; answers come back over a
//! channel. Nobody waits for a worker that has ended: its tasks are dropped, and with them their way back. Never for what
//! happens often.

use std::fmt;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::errors;
use crate::resp::build;
use crate::upstream::{Link, Lost, Reply};

use crate::replies::deliver::{OnReply, Pending};
use crate::worker_state::context::Context;

/// The words of a request of our own.
pub(crate) type Request = Vec<Vec<u8>>;

type Work = dyn FnOnce(&Rc<Context>) + Send;

/// What a worker is asked to do.
pub struct WorkerTask(Box<Work>);

impl WorkerTask {
    /// Runs it on the worker whose belongings these are.
    pub fn run(self, context: &Rc<Context>) {
        (self.0)(context);
    }
}

impl fmt::Debug for WorkerTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Errand")
    }
}

/// Takes a task to one worker; one that has ended drops it. Must not keep a worker from ending.
pub type Mailbox = Box<dyn Fn(WorkerTask) + Send + Sync>;

/// The ways to all workers.
#[derive(Default)]
pub struct Mailboxes(OnceLock<Vec<Mailbox>>);

impl Mailboxes {
    /// To be called once, before any client is served.
    pub fn open(&self, mailboxes: Vec<Mailbox>) {
        // Who calls it twice keeps the first.
        let _ = self.0.set(mailboxes);
    }
}

impl Context {
    /// Has `work` done on every worker, this one included, some time soon.
    pub(crate) fn run_on_all_workers(&self, work: impl Fn(&Rc<Context>) + Clone + Send + 'static) {
        for mailbox in self.shared.mailboxes.0.get().into_iter().flatten() {
            let work = work.clone();
            mailbox(WorkerTask(Box::new(move |context| work(context))));
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
        for mailbox in self.shared.mailboxes.0.get().into_iter().flatten() {
            let (work, answers) = (work.clone(), answers.clone());
            mailbox(WorkerTask(Box::new(move |context| work(context, answers))));
        }
        drop(answers);
        let mut all = Vec::new();
        while let Some(answer) = gathered.recv().await {
            all.push(answer);
        }
        all
    }
}

/// Asks Redis, and gives the replies in one piece. `repeat`: it may be asked again when the connection broke.
///
/// # Errors
/// Redis is away, or the connection broke.
pub(crate) async fn ask(
    context: &Context,
    link: &Link<Pending>,
    requests: &[Request],
    repeat: bool,
) -> Result<Vec<u8>, Lost> {
    link.check()?;
    let (answer, answered) = oneshot::channel();
    let on_reply = Box::new(|_: &Context, reply: Result<Reply<'_>, &Lost>| {
        // Who does not wait any more needs no answer.
        let _ = answer.send(reply.map(|reply| reply.bytes().to_vec()).map_err(Lost::clone));
    });
    let on_reply = OnReply::Call { replies: requests.len(), repeat, on_reply };
    context.stats().upstream_commands.add(requests.len() as u64);
    link.send(Pending { to: None, sent: Instant::now(), on_reply }, |wire| {
        for words in requests {
            wire.push_with(|out| build::request(out, words.iter().map(Vec::as_slice)));
        }
    });
    answered.await.unwrap_or_else(|_| Err(Lost::from(&errors::GIVEN_UP)))
}
