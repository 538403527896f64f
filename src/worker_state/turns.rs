//! Who gets the next private connection when all that a worker may have are in use: the client that has waited longest.
//!
//! A client waits for at most `timeouts.connect`, with its request untaken, so that it holds no memory beyond what it has sent.
//! Each client stands in the line at most once. Must not know what the connection is wanted for.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use crate::errors;
use crate::upstream::Lost;

use crate::client_state::reply_queue::ReplyQueue;
use crate::worker_state::context::Context;

/// The private connections of a worker, counted, and the clients that wait for one.
#[derive(Default)]
pub(crate) struct Turns {
    /// Places that are taken: by connections that clients have, and by places that were given to clients and not used so far.
    taken: Cell<usize>,
    line: RefCell<VecDeque<Rc<Turn>>>,
}

/// One client's wait.
pub(crate) struct Turn {
    reply_queue: Rc<ReplyQueue>,
    until: Instant,
    /// A place is kept for the client.
    given: Cell<bool>,
}

/// What a client that wants a place is told.
#[derive(Debug)]
pub(crate) enum Place {
    /// The client has one, and gives it back with [`Context::give_back`].
    Taken,
    /// It has to ask again when it is woken.
    Later,
    /// There was none in time.
    None(Lost),
}

impl Context {
    /// A place for a private connection. `turn` is the client's own wait, if it waits already.
    pub(crate) fn take_place(&self, reply_queue: &Rc<ReplyQueue>, turn: &mut Option<Rc<Turn>>, now: Instant) -> Place {
        let turns = &self.turns;
        let Some(waiting) = turn.take() else {
            if turns.line.borrow().is_empty() && self.try_take_place() {
                return Place::Taken;
            }
            let until = now + self.connect_timeout();
            let waiting = Rc::new(Turn { reply_queue: Rc::clone(reply_queue), until, given: Cell::new(false) });
            turns.line.borrow_mut().push_back(Rc::clone(&waiting));
            reply_queue.info.in_line.set(true);
            let asleep = Rc::downgrade(&waiting);
            tokio::task::spawn_local(async move {
                tokio::time::sleep_until(until.into()).await;
                if let Some(waiting) = asleep.upgrade() {
                    waiting.reply_queue.wake();
                }
            });
            *turn = Some(waiting);
            return Place::Later;
        };
        if waiting.given.get() {
            waiting.reply_queue.info.in_line.set(false);
            return Place::Taken;
        }
        if now < waiting.until {
            *turn = Some(waiting);
            return Place::Later;
        }
        self.leave_line(waiting);
        Place::None(Lost::from(&errors::NO_SESSION))
    }

    /// A place, if one is free and nobody waits for it.
    pub(crate) fn try_take_place(&self) -> bool {
        let taken = self.turns.taken.get();
        let is_free = taken < self.view().policy.limits.max_sessions && self.turns.line.borrow().is_empty();
        if is_free {
            self.turns.taken.set(taken + 1);
        }
        is_free
    }

    /// A place is free again.
    pub(crate) fn give_back(&self) {
        self.turns.taken.set(self.turns.taken.get() - 1);
        self.next_turns();
    }

    /// The client does not wait any more: it has gone, or needs no place.
    pub(crate) fn leave_line(&self, waiting: Rc<Turn>) {
        waiting.reply_queue.info.in_line.set(false);
        if waiting.given.get() {
            return self.give_back();
        }
        self.turns.line.borrow_mut().retain(|turn| !Rc::ptr_eq(turn, &waiting));
    }

    /// Gives free places to those who have waited longest.
    pub(crate) fn next_turns(&self) {
        let limit = self.view().policy.limits.max_sessions;
        let turns = &self.turns;
        while turns.taken.get() < limit {
            let Some(first) = turns.line.borrow_mut().pop_front() else { return };
            turns.taken.set(turns.taken.get() + 1);
            first.given.set(true);
            first.reply_queue.wake();
        }
    }
}
