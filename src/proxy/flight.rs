//! A read that may be kept, and the readers that wait for the same answer.
//!
//! A reader that joins did not send the request, so the answer may be older than the reader's question. The reader gets the answer
//! only where L1 would serve it as a hit, both when the reader joins and when the answer is here. Otherwise the reader's question
//! is sent on its own. Answers are delivered in `fills`.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;

use crate::coherence::{ServePermit, Ticket};
use crate::command::Absent;
use crate::near_cache::{Asked, EntryId};
use crate::resp::{Chunks, Version, build};
use crate::rules::CacheRule;
use crate::upstream::{Link, Lost};

use crate::client_state::reply_queue::{ReplyQueue, Slot};
use crate::replies::deliver::{OnReply, Pending};
use crate::worker_state::context::Context;

/// Shared by the request that was sent and by the look-up of later readers of the same worker.
pub struct Flight {
    pub(crate) id: EntryId,
    pub(crate) asked: Asked,
    pub(crate) rule: CacheRule,
    pub(crate) absent: Absent,
    pub(crate) ticket: RefCell<Option<Ticket>>,
    /// When the request was sent, by a clock that was read before.
    pub(crate) sent: Instant,
    /// Where the request was sent.
    pub(crate) link: Link<Pending>,
    /// What was sent in the place of the request.
    pub(crate) instead: Option<Bytes>,
    pub(crate) readers: RefCell<Vec<Reader>>,
}

/// A client that waits for the answer to a request that another client sent.
pub(crate) struct Reader {
    pub(crate) reply_queue: Rc<ReplyQueue>,
    pub(crate) slot: Slot,
    /// The protocol in which the reader asked.
    pub(crate) version: Version,
    /// When the reader asked.
    pub(crate) asked: Instant,
}

impl Flight {
    /// Whether a reader with this permit may wait for the answer, as far as can be told before the answer is here.
    pub(crate) fn may_be_joined(&self, context: &Context, permit: &ServePermit) -> bool {
        let deadline = self.sent + self.rule.ttl.min(context.max_staleness());
        self.ticket.borrow().as_ref().is_some_and(|ticket| ticket.may_serve(permit, self.sent, deadline))
    }

    /// Sends the request again, for readers that the answer is too old for. All of them asked before it is sent now.
    pub(crate) fn ask_again(&self, context: &Context, readers: Vec<Reader>) -> Result<(), (Lost, Vec<Reader>)> {
        if let Err(lost) = self.link.check() {
            return Err((lost, readers));
        }
        let question = self.asked.question();
        let now = Instant::now();
        let flight = Rc::new(Flight {
            id: self.id,
            asked: question.keep(),
            rule: self.rule,
            absent: self.absent,
            ticket: RefCell::new(context.shared.coherence.ticket(self.id, question.db(), now)),
            sent: now,
            link: self.link.clone(),
            instead: self.instead.clone(),
            readers: RefCell::new(readers),
        });
        context.flights.borrow_mut().insert(self.id, Rc::clone(&flight));
        context.stats().upstream_commands.add(1);
        self.link.send(Pending { to: None, sent: now, on_reply: OnReply::Fill(flight) }, |out| {
            match (&self.instead, question.request()) {
                (Some(bytes), _) => out.push_bytes(bytes.clone()),
                (None, Some(request)) => out.push_slice(request),
                (None, None) => out.push_with(|out| build::request(out, [&b"GET"[..], question.key()].into_iter())),
            }
            ask_ttl(out, question.key());
        });
        Ok(())
    }
}

/// What goes behind a read whose answer is to be kept.
pub(crate) fn ask_ttl(out: &mut Chunks, key: &[u8]) {
    out.push_with(|out| build::request(out, [&b"PTTL"[..], key].into_iter()));
}
