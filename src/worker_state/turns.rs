//! The queue for private connections when all that a worker may have are in use: the client that has waited longest is next.
//!
//! A client waits for at most `timeouts.connect`. Its request stays in its input buffer meanwhile, so waiting takes no further
//! memory. Each client is in the queue at most once. Must not know what the connection is wanted for.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use crate::errors;
use crate::exchange::pending::ClientState;
use crate::upstream::Lost;

/// Counts a worker's private connections, and holds the clients that wait for one.
#[derive(Default)]
pub struct Turns {
    /// Places in use: connections that clients have, and places that were given to clients but not used yet.
    taken: Cell<usize>,
    line: RefCell<VecDeque<Rc<Turn>>>,
}

/// One client's place in the queue.
pub struct Turn {
    client: Rc<ClientState>,
    until: Instant,
    /// A connection is reserved for the client.
    given: Cell<bool>,
}

/// The result of asking for a place.
#[derive(Debug)]
pub enum Place {
    /// The client has a place, and gives it back with [`Turns::give_back`].
    Taken,
    /// The client must ask again when it is woken.
    Later,
    /// No place became free in time.
    None(Lost),
}

impl Turns {
    /// Takes a place, of which there are `limit`. `turn` is the client's place in the queue, if it already waits. A new wait ends
    /// at `until`.
    pub(crate) fn take(
        &self,
        client: &Rc<ClientState>,
        turn: &mut Option<Rc<Turn>>,
        limit: usize,
        now: Instant,
        until: Instant,
    ) -> Place {
        let Some(waiting) = turn.take() else {
            if self.try_take(limit) {
                return Place::Taken;
            }
            let waiting = Rc::new(Turn { client: Rc::clone(client), until, given: Cell::new(false) });
            self.line.borrow_mut().push_back(Rc::clone(&waiting));
            client.info.in_line.set(true);
            let asleep = Rc::downgrade(&waiting);
            tokio::task::spawn_local(async move {
                tokio::time::sleep_until(until.into()).await;
                if let Some(waiting) = asleep.upgrade() {
                    waiting.client.reply_queue.wake();
                }
            });
            *turn = Some(waiting);
            return Place::Later;
        };
        if waiting.given.get() {
            waiting.client.info.in_line.set(false);
            return Place::Taken;
        }
        if now < waiting.until {
            *turn = Some(waiting);
            return Place::Later;
        }
        self.leave(waiting, limit);
        Place::None(Lost::from(&errors::NO_SESSION))
    }

    /// Takes a place if one is free and no client waits for it.
    pub(crate) fn try_take(&self, limit: usize) -> bool {
        let taken = self.taken.get();
        let is_free = taken < limit && self.line.borrow().is_empty();
        if is_free {
            self.taken.set(taken + 1);
        }
        is_free
    }

    /// A place has become free.
    pub(crate) fn give_back(&self, limit: usize) {
        self.taken.set(self.taken.get() - 1);
        self.next(limit);
    }

    /// The client no longer waits: it has disconnected, or needs no place.
    pub(crate) fn leave(&self, waiting: Rc<Turn>, limit: usize) {
        waiting.client.info.in_line.set(false);
        if waiting.given.get() {
            return self.give_back(limit);
        }
        self.line.borrow_mut().retain(|turn| !Rc::ptr_eq(turn, &waiting));
    }

    /// Gives free places to the clients that have waited longest.
    pub(crate) fn next(&self, limit: usize) {
        while self.taken.get() < limit {
            let Some(first) = self.line.borrow_mut().pop_front() else { return };
            self.taken.set(self.taken.get() + 1);
            first.given.set(true);
            first.client.reply_queue.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::time::Duration;

    use super::{ClientState, Instant, Place, Rc, Turn, Turns};
    use crate::client_state::client_info::ClientInfo;
    use crate::client_state::reply_queue::ReplyQueue;
    use crate::exchange::pending::{Identity, Profile};

    const LONG: Duration = Duration::from_secs(60);

    fn client() -> Rc<ClientState> {
        let profile = Profile::new(Rc::new(Identity::new(None, 0)), 0);
        Rc::new(ClientState::new(ReplyQueue::new(Instant::now(), Rc::default()), profile, ClientInfo::default()))
    }

    /// A client and its place in the queue.
    #[derive(Clone)]
    struct Waiting(Rc<ClientState>, Option<Rc<Turn>>);

    impl Waiting {
        fn new() -> Self {
            Waiting(client(), None)
        }

        fn asks(&mut self, turns: &Turns, limit: usize, now: Instant, until: Instant) -> Place {
            turns.take(&self.0, &mut self.1, limit, now, until)
        }
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn the_client_that_has_waited_longest_is_next() {
        run(async {
            let (turns, now) = (Turns::default(), Instant::now());
            let [mut a, mut b, mut c] = [(); 3].map(|()| Waiting::new());
            assert!(matches!(a.asks(&turns, 1, now, now + LONG), Place::Taken));
            assert!(matches!(b.asks(&turns, 1, now, now + LONG), Place::Later));
            assert!(matches!(c.asks(&turns, 1, now, now + LONG), Place::Later));
            assert!(b.0.info.in_line.get() && c.0.info.in_line.get());
            turns.give_back(1);
            assert!(!turns.try_take(1), "the place is kept for the next in line");
            assert!(matches!(c.asks(&turns, 1, now, now + LONG), Place::Later));
            assert!(matches!(b.asks(&turns, 1, now, now + LONG), Place::Taken));
            assert!(!b.0.info.in_line.get());
            turns.give_back(1);
            assert!(matches!(c.asks(&turns, 1, now, now + LONG), Place::Taken));
        });
    }

    #[test]
    fn a_client_that_leaves_the_queue_passes_its_place_on() {
        run(async {
            let (turns, now) = (Turns::default(), Instant::now());
            let [mut a, mut b, mut c] = [(); 3].map(|()| Waiting::new());
            assert!(matches!(a.asks(&turns, 1, now, now + LONG), Place::Taken));
            assert!(matches!(b.asks(&turns, 1, now, now + LONG), Place::Later));
            assert!(matches!(c.asks(&turns, 1, now, now + LONG), Place::Later));
            turns.give_back(1);
            turns.leave(b.1.take().expect("it waits"), 1);
            assert!(matches!(c.asks(&turns, 1, now, now + LONG), Place::Taken), "the place was kept for b");
        });
    }

    #[test]
    fn a_wait_ends_after_the_timeout() {
        run(async {
            let (turns, now) = (Turns::default(), Instant::now());
            let mut late = Waiting::new();
            assert!(matches!(late.asks(&turns, 0, now, now + LONG), Place::Later));
            assert!(matches!(late.asks(&turns, 0, now + LONG, now + LONG), Place::None(_)));
            assert!(!late.0.info.in_line.get() && late.1.is_none());
        });
    }

    #[test]
    fn a_higher_limit_makes_room() {
        run(async {
            let (turns, now) = (Turns::default(), Instant::now());
            let mut one = Waiting::new();
            assert!(matches!(one.asks(&turns, 0, now, now + LONG), Place::Later));
            turns.next(1);
            assert!(matches!(one.asks(&turns, 1, now, now + LONG), Place::Taken));
        });
    }
}
