//! The one server to which all connections of this Shortstop lead.
//!
//! A host name may get another address, and another server may take over an address. So no connection resolves the name itself. The
//! control plane does that ([`super::finder`]) and stores the server here. The epoch counts the changes. Every connection dials the
//! server of the current epoch and checks by run id, where possible, that it has reached that server. It is given up when the epoch
//! has passed. Between two servers there is a time without any: the next server is stored here only after all connections to the
//! last one have been given up. No I/O here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use crate::metrics::journal::Journal;
use crate::net::Address;

use super::silence::Silence;

/// A server: one Redis process at one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its address.
    pub address: Address,
    /// Its `run_id`, which Redis chooses at each start. `None`: not known.
    pub run_id: Option<Box<str>>,
}

impl Server {
    /// Whether both are known to be different.
    pub fn differs(&self, other: &Server) -> bool {
        self.address != other.address || differ(self.run_id.as_deref(), other.run_id.as_deref())
    }
}

/// Whether two run ids belong to different servers. False if one of them is not known.
pub(super) fn differ(one: Option<&str>, other: Option<&str>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}

/// Why the control plane should look at the server earlier than planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// A connection was lost or refused, or reached another server.
    Connection,
    /// A reply says that the server is a replica. A script can return the same error.
    Replica,
}

#[derive(Clone, Debug)]
enum Whereabouts {
    /// Not known yet, or connections to the last server are being given up.
    Unknown,
    /// No server has ever been found, for this reason.
    Away(Arc<str>),
    At(Arc<Server>),
}

#[derive(Clone, Debug)]
struct State {
    epoch: u64,
    server: Whereabouts,
}

/// The server to which all connections lead, and the epoch, which counts the changes.
#[derive(Debug)]
pub struct Endpoint {
    state: watch::Sender<State>,
    connection: AtomicBool,
    replica: AtomicBool,
    reported: Notify,
    silence: Silence,
}

impl Default for Endpoint {
    fn default() -> Self {
        Endpoint::new(Arc::default())
    }
}

impl Endpoint {
    /// No server is known so far. Overdue replies go into the journal.
    pub fn new(journal: Arc<Journal>) -> Self {
        Endpoint {
            state: watch::Sender::new(State { epoch: 0, server: Whereabouts::Unknown }),
            connection: AtomicBool::new(false),
            replica: AtomicBool::new(false),
            reported: Notify::new(),
            silence: Silence::new(journal),
        }
    }

    /// How many times the server has changed.
    pub fn epoch(&self) -> u64 {
        self.state.borrow().epoch
    }

    /// The current server, if there is one.
    pub fn server(&self) -> Option<Arc<Server>> {
        match &self.state.borrow().server {
            Whereabouts::At(server) => Some(Arc::clone(server)),
            Whereabouts::Unknown | Whereabouts::Away(_) => None,
        }
    }

    /// The server to dial, and its epoch. Waits while there is none.
    ///
    /// # Errors
    /// No server was ever found. The text says why.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn target(&self) -> Result<(u64, Arc<Server>), Arc<str>> {
        let mut changes = self.state.subscribe();
        // The sender is borrowed, so it cannot be dropped meanwhile.
        let state =
            changes.wait_for(|state| !matches!(state.server, Whereabouts::Unknown)).await.map(|state| state.clone());
        match state {
            Ok(State { epoch, server: Whereabouts::At(server) }) => Ok((epoch, server)),
            Ok(State { server: Whereabouts::Away(why), .. }) => Err(why),
            Ok(State { server: Whereabouts::Unknown, .. }) | Err(_) => Err("the proxy ends".into()),
        }
    }

    /// Waits until this epoch has passed.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn passed(&self, epoch: u64) {
        let mut changes = self.state.subscribe();
        let _ = changes.wait_for(|state| state.epoch != epoch).await;
    }

    /// How long replies from the server have been overdue.
    pub fn silence(&self) -> &Silence {
        &self.silence
    }

    /// Asks the control plane to check the server at once.
    pub fn report(&self, trouble: Suspicion) {
        let flag = match trouble {
            Suspicion::Connection => &self.connection,
            Suspicion::Replica => &self.replica,
        };
        // If the flag was set before, the control plane has been woken already.
        if !flag.load(Ordering::Relaxed) && !flag.swap(true, Ordering::AcqRel) {
            self.reported.notify_one();
        }
    }

    /// Waits for a report. Returns at once if there is one already.
    pub(super) async fn reported(&self) {
        self.reported.notified().await;
    }

    /// Whether this was reported and not taken yet.
    pub(super) fn has(&self, trouble: Suspicion) -> bool {
        match trouble {
            Suspicion::Connection => self.connection.load(Ordering::Acquire),
            Suspicion::Replica => self.replica.load(Ordering::Acquire),
        }
    }

    /// Takes all reports. Returns whether one was about a connection.
    pub(super) fn take_reports(&self) -> bool {
        self.replica.store(false, Ordering::Release);
        self.connection.swap(false, Ordering::AcqRel)
    }

    /// Stops new connections. Returns the new epoch.
    pub(super) fn close(&self) -> u64 {
        self.state.send_modify(|state| *state = State { epoch: state.epoch + 1, server: Whereabouts::Unknown });
        // An excuse of the last server does not count for the next one.
        self.silence.end_excuse(Instant::now());
        self.epoch()
    }

    /// Connections lead to this server from now on. Call this only at the start, or after all connections of older epochs have been
    /// given up.
    pub(super) fn open(&self, server: Server) {
        self.state.send_modify(|state| {
            // Links that wait between two attempts try again at once.
            state.epoch += u64::from(matches!(state.server, Whereabouts::Away(_)));
            state.server = Whereabouts::At(Arc::new(server));
        });
    }

    /// Stores the run id of the current server.
    pub(super) fn learn(&self, run_id: &str) {
        self.state.send_if_modified(|state| match &state.server {
            Whereabouts::At(server) if server.run_id.is_none() => {
                state.server =
                    Whereabouts::At(Arc::new(Server { address: server.address.clone(), run_id: Some(run_id.into()) }));
                true
            }
            _ => false,
        });
    }

    /// No server has been found so far.
    pub(super) fn away(&self, why: &str) {
        self.state.send_if_modified(|state| match &state.server {
            Whereabouts::Unknown if state.epoch == 0 => {
                state.server = Whereabouts::Away(why.into());
                true
            }
            Whereabouts::Away(known) if &**known != why => {
                state.server = Whereabouts::Away(why.into());
                true
            }
            _ => false,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use futures_util::FutureExt;

    use super::{Endpoint, Server, Suspicion};

    fn server(port: u16, run_id: Option<&str>) -> Server {
        Server { address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into(), run_id: run_id.map(Into::into) }
    }

    /// The epoch and the port to dial, if there is a server now.
    fn target(endpoint: &Endpoint) -> Option<Result<(u64, u16), String>> {
        let target = endpoint.target().now_or_never()?;
        let port = |at: &Server| at.address.ip().expect("an IP address").port();
        Some(target.map(|(epoch, at)| (epoch, port(&at))).map_err(|why| why.to_string()))
    }

    #[test]
    fn servers_differ_by_address_and_by_run_id() {
        let known = server(1, Some("a"));
        assert!(!known.differs(&known));
        assert!(known.differs(&server(2, Some("a"))));
        assert!(known.differs(&server(1, Some("b"))));
        assert!(!known.differs(&server(1, None)) && !server(1, None).differs(&known));
    }

    #[test]
    fn no_connection_is_dialed_between_two_servers() {
        let endpoint = Endpoint::default();
        assert_eq!(target(&endpoint), None);
        endpoint.open(server(1, None));
        assert_eq!(target(&endpoint), Some(Ok((0, 1))));
        assert!(endpoint.passed(0).now_or_never().is_none());
        assert_eq!(endpoint.close(), 1);
        assert!(endpoint.passed(0).now_or_never().is_some());
        endpoint.away("of no interest: there was one");
        assert_eq!(target(&endpoint), None);
        endpoint.open(server(2, None));
        endpoint.away("of no interest: there is one");
        assert_eq!(target(&endpoint), Some(Ok((1, 2))));
    }

    #[test]
    fn a_wait_for_the_first_server_ends_with_the_reason_and_then_with_the_server() {
        let endpoint = Endpoint::default();
        endpoint.away("refused");
        assert_eq!(target(&endpoint), Some(Err("refused".to_owned())));
        endpoint.open(server(1, None));
        assert!(endpoint.passed(0).now_or_never().is_some());
        assert_eq!(target(&endpoint), Some(Ok((1, 1))));
    }

    #[test]
    fn a_server_whose_run_id_becomes_known_later_is_the_same() {
        let endpoint = Endpoint::default();
        endpoint.open(server(1, None));
        endpoint.learn("a");
        endpoint.learn("b");
        assert_eq!(endpoint.server().as_deref(), Some(&server(1, Some("a"))));
        assert_eq!(endpoint.epoch(), 0);
    }

    #[test]
    fn many_reports_wake_once() {
        let endpoint = Endpoint::default();
        (0..1000).for_each(|_| endpoint.report(Suspicion::Replica));
        assert!(endpoint.reported().now_or_never().is_some());
        endpoint.report(Suspicion::Replica);
        assert!(endpoint.reported().now_or_never().is_none());
        assert!(endpoint.has(Suspicion::Replica) && !endpoint.take_reports() && !endpoint.has(Suspicion::Replica));
        endpoint.report(Suspicion::Connection);
        assert!(endpoint.reported().now_or_never().is_some() && endpoint.take_reports());
    }
}
