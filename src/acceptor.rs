//! Accepts clients and passes each to the worker with the fewest. Sends clients nothing except that there are too many.

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
    /// The worker's queue of orders.
    pub orders: mpsc::UnboundedSender<Order>,
    /// The worker's number of clients.
    pub load: Arc<AtomicUsize>,
}

/// What the acceptors of all listeners share.
#[derive(Clone)]
pub struct Front {
    /// The workers.
    pub worker_handles: Vec<WorkerHandle>,
    /// Maximum number of clients.
    pub limit: watch::Receiver<usize>,
    /// Counts refused clients.
    pub stats: Arc<Stats>,
    /// Clients accepted so far. Client ids count in the order of arrival, as in Redis, whichever worker serves the client.
    pub number: Arc<AtomicU64>,
}

/// Accepts until `stop` changes. `tls` is the certificate for this listener's clients. `None`: they connect without TLS.
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
                // Most likely there are no file descriptors left. Waiting clients are accepted when others have disconnected.
                crate::seldom!(warn, "a client cannot be accepted", %error);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Interval of log lines about refused clients.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Clients that were refused, for the log: one line for the first, and then one a minute.
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
                "clients are refused: limits.max_clients is reached; raise it, or find out which clients keep \
                 connections open"
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
        // An error means that the worker has ended. The client sees its connection close.
        let _ = worker_handle.orders.send(Order::Client(Arrival { socket, tls, number }));
    }
}
