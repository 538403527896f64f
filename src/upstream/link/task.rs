//! The task behind a link: connects, transfers requests and replies until the connection ends, and reconnects with back-off.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::errors;
use crate::upstream::endpoint::Suspicion;
use crate::upstream::handshake::NotTaken;
use crate::upstream::login::NOAUTH;

use super::expected::Expected;
use super::handle::{Inner, Link};
use super::lost::Lost;
use super::transfer::{CLOSED, transfer};

/// What the log says about the missing connection. A later line must say more.
#[derive(PartialEq, PartialOrd)]
enum Logged {
    Nothing,
    /// The connection was lost or given up, or Redis cannot be reached.
    Unreachable,
    /// The error with which the server refuses the connection.
    Said,
}

impl<E: Expected> Link<E> {
    /// The link's task. Returns when the link is closed.
    pub async fn drive(self, context: Rc<E::Context>) {
        let inner = &*self.0;
        let endpoint = &inner.settings.endpoint;
        // A reload may change them between two attempts.
        let timeouts = || inner.settings.timeouts.get();
        let mut backoff = timeouts().backoff_min;
        let (mut was_up, mut was_left) = (false, false);
        let mut logged = Logged::Nothing;
        let until = Instant::now() + timeouts().connect;
        let mut closed = None;
        loop {
            let connected = tokio::select! {
                connected = inner.connect() => connected,
                () = inner.given_up() => return,
            };
            match connected {
                // No other task runs between the end of the await and here.
                Ok((_, epoch)) if epoch != endpoint.epoch() => {}
                Ok((stream, epoch)) => {
                    if was_up {
                        inner.reconnected(&context, was_left, closed.take());
                    }
                    (was_up, was_left) = (true, false);
                    if !inner.established(&context, epoch) {
                        return;
                    }
                    let since = Instant::now();
                    let Some(why) = transfer(inner, stream, &context).await else {
                        if self.is_closed() {
                            return;
                        }
                        was_left = !inner.state.borrow().is_down();
                        logged = if was_left { Logged::Nothing } else { Logged::Unreachable };
                        backoff = timeouts().backoff_min;
                        continue;
                    };
                    let now = Instant::now();
                    closed = Some(now).filter(|now| why == CLOSED && inner.state.borrow().is_close_unexplained(*now));
                    inner.connection_lost(&context, &why);
                    logged = Logged::Unreachable;
                    if self.is_closed() {
                        return;
                    }
                    if since.elapsed() > timeouts().backoff_max {
                        backoff = timeouts().backoff_min;
                    } else {
                        // A connection that ends soon must not be reopened at full speed.
                        inner.pause(backoff, epoch).await;
                        backoff = (backoff * 2).min(timeouts().backoff_max);
                    }
                }
                Err(not_taken) if !inner.is_shared() && not_taken.may_pass() && Instant::now() < until => {
                    // Other clients use all available connections. One of them may end in time.
                    tokio::select! {
                        () = tokio::time::sleep(backoff.min(until.saturating_duration_since(Instant::now()))) => {}
                        () = inner.given_up() => return,
                    }
                    backoff = (backoff * 2).min(timeouts().backoff_max);
                }
                Err(not_taken) => {
                    // Before the clients get the error, so that the next attempt finds another server.
                    endpoint.report(Suspicion::Connection);
                    let epoch = endpoint.epoch();
                    let what = if let NotTaken::Said { .. } = not_taken { Logged::Said } else { Logged::Unreachable };
                    let lost = inner.lost(not_taken);
                    if what > logged && !self.is_closed() {
                        logged = what;
                        crate::seldom!(warn, "there is no connection to Redis", why = lost.text());
                    }
                    inner.attempt_failed(&context, lost);
                    if self.is_closed() {
                        return;
                    }
                    inner.pause(backoff, epoch).await;
                    backoff = (backoff * 2).min(timeouts().backoff_max);
                }
            }
        }
    }
}

impl<E: Expected> Inner<E> {
    fn is_shared(&self) -> bool {
        self.state.borrow().is_shared()
    }

    /// There is a connection again. `was_left`: the last one was given up, not lost. `closed`: when Redis closed it.
    fn reconnected(&self, context: &E::Context, was_left: bool, closed: Option<Instant>) {
        if !was_left {
            crate::seldom!(info, "Redis is back", shared = self.is_shared());
        }
        let served = self.state.borrow_mut().take_served();
        E::reconnected(context, served && !self.for_logins.get());
        if let (Some(login), Some(closed)) = (&self.login, closed) {
            E::accepted_again(context, login, closed);
        }
    }

    /// The connection is established. Returns false if the link is closed.
    fn established(&self, context: &E::Context, epoch: u64) -> bool {
        let refused = {
            let mut state = self.state.borrow_mut();
            let takes_logins_only = state.is_locked() && state.is_shared() && !self.for_logins.get();
            state.established(Instant::now(), epoch, takes_logins_only)
        };
        match refused {
            Some(refused) if refused.is_empty() => true,
            Some(refused) => {
                self.lose(context, refused.into_iter().map(|expected| (expected, false)), &Lost::said(NOAUTH, false));
                true
            }
            None => false,
        }
    }

    /// The connection has ended.
    fn connection_lost(&self, context: &E::Context, why: &str) {
        let address = self.settings.dialer.upstream().address();
        let (shared, raw, unanswered) = {
            let state = self.state.borrow();
            (state.is_shared(), state.is_raw(), state.queue.len())
        };
        if raw {
            // Redis ends the debugger's connection like this.
            crate::seldom!(debug, "a connection to Redis has ended", why);
        } else {
            crate::seldom!(warn, "a connection to Redis was lost", shared, unanswered, address, why);
            self.settings.endpoint.report(Suspicion::Connection);
        }
        let lost = Lost::from(&errors::lost(&address, why));
        self.end_connection(context, &lost);
    }

    /// Why there is no connection.
    fn lost(&self, not_taken: NotTaken) -> Lost {
        let address = self.settings.dialer.upstream().address();
        match not_taken {
            NotTaken::Io(error) => Lost::from(&errors::unreachable(address, error)),
            NotTaken::Away(why) => Lost::from(&errors::unreachable(address, why)),
            NotTaken::Said { text, login } => Lost::said(&text, login),
        }
    }

    /// An attempt failed: pending requests get an error, and new ones are refused.
    fn attempt_failed(&self, context: &E::Context, lost: Lost) {
        if let (Some(login), true) = (&self.login, lost.is_login_refused()) {
            E::login_refused(context, login);
        }
        let gone = {
            let mut state = self.state.borrow_mut();
            if state.is_closed() {
                return;
            }
            state.attempt_failed(&lost)
        };
        // It was never sent, or was left over when the last connection broke.
        self.lose(context, gone.into_iter().map(|expected| (expected, false)), &lost);
    }

    /// Waits before the next attempt, but not beyond the end of the epoch.
    async fn pause(&self, backoff: Duration, epoch: u64) {
        let passed = self.settings.endpoint.passed(epoch);
        // Whichever comes first.
        let _ = tokio::time::timeout(backoff, passed).await;
    }

    /// Waits until the link is closed while it connects.
    async fn given_up(&self) {
        poll_fn(|task: &mut Context<'_>| {
            let mut state = self.state.borrow_mut();
            state.wake_with(task.waker());
            if state.close_if_done() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
