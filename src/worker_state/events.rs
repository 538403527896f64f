//! What a worker tells the fleet.

use crate::bus::Event;
use crate::worker_state::context::Context;

impl Context {
    /// Tells the fleet, together with what else came in the same read.
    pub(crate) fn queue_event(&self, event: Event) {
        if self.shared.outbox.is_some() {
            self.events.borrow_mut().push(event);
        }
    }

    /// Tells the fleet that a script may have written anything; many in the same read are one. `lost`: it may still be running.
    pub(crate) fn publish_script(&self, lost: bool) {
        if self.shared.outbox.is_none() {
            return;
        }
        let event = Event::Script { lost, clear: !self.shared.scripts.are_trusted() };
        let mut events = self.events.borrow_mut();
        if !events.contains(&event) {
            events.push(event);
        }
    }

    /// Hands what is to be told to the bus.
    pub(crate) fn publish(&self) {
        let mut events = self.events.borrow_mut();
        if let (Some(outbox), false) = (&self.shared.outbox, events.is_empty()) {
            // A full queue answers for itself: a flush takes the place of what was dropped.
            let _ = outbox.try_send(std::mem::take(&mut events));
        }
    }
}
