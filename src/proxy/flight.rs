//! A read that may be kept, and the readers that wait for the same answer.

use std::cell::RefCell;
use std::rc::Rc;

use crate::coherence::Ticket;
use crate::command::Absent;
use crate::near_cache::{Asked, EntryId};
use crate::resp::Version;
use crate::rules::CacheRule;

use super::outlet::{Outlet, Slot};

/// Shared by the request that was sent and by the look-up of later readers of the same worker.
pub struct Flight {
    pub(super) id: EntryId,
    pub(super) asked: Asked,
    pub(super) rule: CacheRule,
    pub(super) absent: Absent,
    pub(super) ticket: RefCell<Option<Ticket>>,
    /// With the protocol in which each asked.
    pub(super) readers: RefCell<Vec<(Rc<Outlet>, Slot, Version)>>,
}

impl Flight {
    /// Whether a reader that comes now may have the answer that is under way.
    pub(super) fn is_live(&self) -> bool {
        self.ticket.borrow().as_ref().is_some_and(Ticket::is_live)
    }
}
