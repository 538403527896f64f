//! Who gets the next private connection when all that a worker may have are in use: the client that has waited longest.
//!
//! A client waits for at most `timeouts.connect`, with its request untaken, so that it holds no memory beyond what it has sent.
//! Each client stands in the line at most once. Must not know what the connection is wanted for.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use crate::errors;
use crate::exchange::pending::ClientState;
use crate::upstream::Lost;

/// The private connections of a worker, counted, and the clients that wait for one.
#[derive(Default)]
pub struct Turns {
    /// Places that are taken: by connections that clients have, and by places that were given to clients and not used so far.
    taken: Cell<usize>,
    line: RefCell<VecDeque<Rc<Turn>>>,
}

/// One client's wait.
pub struct Turn {
    client: Rc<ClientState>,
    until: Instant,
    /// A place is kept for the client.
    given: Cell<bool>,
}

/// What a client that wants a place is told.
#[derive(Debug)]
pub enum Place {
    /// The client has one, and gives it back with [`Turns::give_back`].
    Taken,
    /// It has to ask again when it is woken.
    Later,
    /// There was none in time.
    None(Lost),
}

impl Turns {
    /// A place for a private connection, of which there are `limit`. `turn` is the client's own wait, if it waits already; a new
    /// one ends at `until`.
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

    /// A place, if one is free and nobody waits for it.
    pub(crate) fn try_take(&self, limit: usize) -> bool {
        let taken = self.taken.get();
        let is_free = taken < limit && self.line.borrow().is_empty();
        if is_free {
            self.taken.set(taken + 1);
        }
        is_free
    }

    /// A place is free again.
    pub(crate) fn give_back(&self, limit: usize) {
        self.taken.set(self.taken.get() - 1);
        self.next(limit);
    }

    /// The client does not wait any more: it has gone, or needs no place.
    pub(crate) fn leave(&self, waiting: Rc<Turn>, limit: usize) {
        waiting.client.info.in_line.set(false);
        if waiting.given.get() {
            return self.give_back(limit);
        }
        self.line.borrow_mut().retain(|turn| !Rc::ptr_eq(turn, &waiting));
    }

    /// Gives free places to those who have waited longest.
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

    /// A client and its wait.
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
    fn who_has_waited_longest_is_next() {
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
    fn whoever_leaves_the_line_gives_its_place_on() {
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
    fn nobody_waits_for_ever() {
        run(async {
            let (turns, now) = (Turns::default(), Instant::now());
            let mut late = Waiting::new();
            assert!(matches!(late.asks(&turns, 0, now, now + LONG), Place::Later));
            assert!(matches!(late.asks(&turns, 0, now + LONG, now + LONG), Place::None(_)));
            assert!(!late.0.info.in_line.get() && late.1.is_none());
        });
    }

    #[test]
    fn a_higher_limit_makes_places() {
        run(async {
            let (turns, now) = (Turns::default(), Instant::now());
            let mut one = Waiting::new();
            assert!(matches!(one.asks(&turns, 0, now, now + LONG), Place::Later));
            turns.next(1);
            assert!(matches!(one.asks(&turns, 1, now, now + LONG), Place::Taken));
        });
    }
}
