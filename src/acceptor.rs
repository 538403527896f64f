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
    let (mut refused, mut failed) = (EveryMinute::default(), EveryMinute::default());
    loop {
        let accepted = tokio::select! {
            accepted = acceptor.accept() => accepted,
            _ = stop.changed() => return,
        };
        match accepted {
            Ok(socket) => front.hand_over(socket, tls.as_ref().map(|tls| tls.borrow().clone()), &mut refused),
            Err(error) => {
                // Most likely there are no file descriptors left. Waiting clients are accepted when others have disconnected.
                if failed.is_due(Instant::now()).is_some() {
                    tracing::warn!(
                        %error,
                        "a client cannot be accepted: clients wait until others disconnect. If there are too many open files, raise \
                         the limit (ulimit -n, LimitNOFILE) or lower limits.max_clients"
                    );
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Interval of log lines about the same event.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// A repeated event, for the log: one line for the first, and then one a minute.
#[derive(Default)]
struct EveryMinute {
    said: Option<Instant>,
    since_said: u64,
}

impl EveryMinute {
    /// Counts one event. Returns how many events to log if a line is due.
    fn is_due(&mut self, now: Instant) -> Option<u64> {
        self.since_said += 1;
        if self.said.is_some_and(|said| now.saturating_duration_since(said) < SAY_AGAIN) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.since_said))
    }
}

impl Front {
    fn hand_over(&self, mut socket: Socket, tls: Option<tls::Server>, refused: &mut EveryMinute) {
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let load = |worker_handle: &WorkerHandle| worker_handle.load.load(Ordering::Relaxed);
        let limit = *self.limit.borrow();
        if self.worker_handles.iter().map(load).sum::<usize>() >= limit {
            self.stats.shared.client_refused("max_clients", "limits.max_clients is reached");
            if let Some(refused) = refused.is_due(Instant::now()) {
                tracing::warn!(
                    refused,
                    limit,
                    "clients are refused: limits.max_clients is reached; raise it, or find out which clients keep \
                     connections open"
                );
            }
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::EveryMinute;

    #[test]
    fn a_repeated_event_is_logged_once_a_minute() {
        let mut failed = EveryMinute::default();
        let start = Instant::now();
        let mut at = |seconds| failed.is_due(start + Duration::from_secs(seconds));
        assert_eq!((at(0), at(1), at(59), at(60), at(61)), (Some(1), None, None, Some(3), None));
    }
}
