//! Publishes a worker's events to the fleet.

use crate::bus::Event;
use crate::exchange::announced::Announced;
use crate::worker_state::context::Context;

impl Context {
    /// Queues an event. It is published together with others from the same read.
    pub(crate) fn queue_event(&self, event: Event) {
        if self.shared.outbox.is_some() {
            self.events.borrow_mut().push(event);
        }
    }

    /// Publishes that a script may have written any key. Several in the same read become one event. `lost`: it may still be
    /// running.
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

    /// Announces the values of a write, if its reply says that it took effect.
    pub(crate) fn announce(&self, announced: Announced, reply: &[u8]) {
        if let (Some(updates), true) = (&self.shared.updates, announced.effect.took(reply)) {
            announced.updates.into_iter().for_each(|update| updates.send(update));
        }
    }

    /// Passes the queued events to the bus.
    pub(crate) fn publish(&self) {
        let mut events = self.events.borrow_mut();
        if let (Some(outbox), false) = (&self.shared.outbox, events.is_empty()) {
            // A full queue is handled by the outbox: a flush replaces what was dropped.
            let _ = outbox.try_send(std::mem::take(&mut events));
        }
    }
}
