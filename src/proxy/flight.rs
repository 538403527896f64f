//! A GET that may be kept, and the readers that wait for the same value.

use std::cell::RefCell;
use std::rc::Rc;

use crate::coherence::Ticket;
use crate::near_cache::KeyId;
use crate::rules::CacheRule;

use super::outlet::{Outlet, Slot};

/// Shared by the request that was sent and by the look-up of later readers of the same worker.
pub struct Flight {
    pub(super) id: KeyId,
    pub(super) db: u32,
    pub(super) key: Box<[u8]>,
    pub(super) rule: CacheRule,
    pub(super) ticket: RefCell<Option<Ticket>>,
    pub(super) readers: RefCell<Vec<(Rc<Outlet>, Slot)>>,
}

impl Flight {
    /// Whether a reader that comes now may have the value that is under way.
    pub(super) fn is_live(&self) -> bool {
        self.ticket.borrow().as_ref().is_some_and(Ticket::is_live)
    }
}
