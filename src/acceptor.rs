//! Accepts clients and hands each to the worker that has the fewest.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::sync::{mpsc, watch};

use crate::metrics::slots::Stats;
use crate::worker::Order;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// A worker as the acceptor sees it.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    /// Where orders go.
    pub orders: mpsc::UnboundedSender<Order>,
    /// Clients that it has.
    pub load: Arc<AtomicUsize>,
}

/// Binds the address that clients connect to.
///
/// # Errors
/// When it cannot be bound: in use, not of this machine, not allowed.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart does not wait for the old connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Accepts until `stop` changes.
pub async fn run(
    listener: TcpListener,
    worker_handles: Vec<WorkerHandle>,
    limit: watch::Receiver<usize>,
    stats: Arc<Stats>,
    mut stop: watch::Receiver<bool>,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "no client can be accepted");
            return;
        }
    };
    let mut refused = Refused::default();
    // Numbers in the order in which clients came, as Redis gives them, whichever worker serves them.
    let mut number = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => return,
        };
        match accepted.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => {
                number += 1;
                hand_over(stream, number, &worker_handles, *limit.borrow(), &stats, &mut refused);
            }
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

fn hand_over(
    mut stream: TcpStream,
    number: u64,
    worker_handles: &[WorkerHandle],
    limit: usize,
    stats: &Stats,
    refused: &mut Refused,
) {
    let load = |worker_handle: &WorkerHandle| worker_handle.load.load(Ordering::Relaxed);
    if worker_handles.iter().map(load).sum::<usize>() >= limit {
        stats.shared.clients_refused.fetch_add(1, Ordering::Relaxed);
        refused.one(limit, Instant::now());
        // As Redis says it; whether it arrives is the client's luck.
        let _ = stream.write_all(b"-ERR max number of clients reached\r\n");
        return;
    }
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(300)).with_interval(Duration::from_secs(100));
    if let Err(error) = socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive)) {
        crate::seldom!(debug, "a client was gone before it was served", %error);
        return;
    }
    let Some(worker_handle) = worker_handles.iter().min_by_key(|worker_handle| load(worker_handle)) else { return };
    worker_handle.load.fetch_add(1, Ordering::Relaxed);
    // An error means that the worker has ended: the client sees its connection close.
    let _ = worker_handle.orders.send(Order::Client(stream, number));
}
