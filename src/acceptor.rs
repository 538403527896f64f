//! Accepts clients and hands each to the worker that has the fewest. Says nothing to them but that there are too many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::arrival::Arrival;
use crate::metrics::slots::Stats;
use crate::net::{Listener, Socket, tls};
use crate::worker::Order;

/// A worker as the acceptor sees it.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    /// Where orders go.
    pub orders: mpsc::UnboundedSender<Order>,
    /// Clients that it has.
    pub load: Arc<AtomicUsize>,
}

/// What the acceptors of all listeners share.
#[derive(Clone)]
pub struct Front {
    /// The workers.
    pub worker_handles: Vec<WorkerHandle>,
    /// How many clients there may be.
    pub limit: watch::Receiver<usize>,
    /// Where refused clients are counted.
    pub stats: Arc<Stats>,
    /// Clients accepted so far. They are numbered in the order in which they came, as Redis does it, whichever worker serves them.
    pub number: Arc<AtomicU64>,
}

/// Accepts until `stop` changes. `tls`: what clients of this listener are shown; none: they come without TLS.
pub async fn run(
    listener: Listener,
    tls: Option<watch::Receiver<tls::Server>>,
    front: Front,
    mut stop: watch::Receiver<bool>,
) {
    let acceptor = match listener.open() {
        Ok(acceptor) => acceptor,
        Err(error) => {
            tracing::error!(%error, "no client can be accepted");
            return;
        }
    };
    let mut refused = Refused::default();
    loop {
        let accepted = tokio::select! {
            accepted = acceptor.accept() => accepted,
            _ = stop.changed() => return,
        };
        match accepted {
            Ok(socket) => front.hand_over(socket, tls.as_ref().map(|tls| tls.borrow().clone()), &mut refused),
            Err(error) => {
                // Most likely no file descriptors are left: clients that wait are accepted when others have gone.
                crate::seldom!(warn, "a client cannot be accepted", %error);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Between two lines about clients that are refused.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Clients that were refused, for the log: one line at the first, and one a minute while it goes on.
#[derive(Default)]
struct Refused {
    said: Option<Instant>,
    since_said: u64,
}

impl Refused {
    fn one(&mut self, limit: usize, now: Instant) {
        self.since_said += 1;
        if self.said.is_none_or(|said| now.saturating_duration_since(said) >= SAY_AGAIN) {
            self.said = Some(now);
            let clients = std::mem::take(&mut self.since_said);
            tracing::warn!(
                clients,
                limit,
                "clients are refused: as many are connected as limits.max_clients allows; raise it, or see to who keeps connections open"
            );
        }
    }
}

impl Front {
    fn hand_over(&self, mut socket: Socket, tls: Option<tls::Server>, refused: &mut Refused) {
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let load = |worker_handle: &WorkerHandle| worker_handle.load.load(Ordering::Relaxed);
        let limit = *self.limit.borrow();
        if self.worker_handles.iter().map(load).sum::<usize>() >= limit {
            self.stats.shared.clients_refused.fetch_add(1, Ordering::Relaxed);
            refused.one(limit, Instant::now());
            if tls.is_none() {
                socket.say(b"-ERR max number of clients reached\r\n");
            }
            return;
        }
        let Some(worker_handle) = self.worker_handles.iter().min_by_key(|worker_handle| load(worker_handle)) else {
            return;
        };
        worker_handle.load.fetch_add(1, Ordering::Relaxed);
        // An error means that the worker has ended: the client sees its connection close.
        let _ = worker_handle.orders.send(Order::Client(Arrival { socket, tls, number }));
    }
}
