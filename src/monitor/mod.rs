//! The monitor: metrics for Prometheus, and what the PROXY command shows as JSON, over HTTP.
//!
//! Has threads and bounds of its own, so that slow, many or hostile readers take nothing from the clients of Redis. Shows what `admin`
//! shows, under the same names; must not know how a number comes about.

mod auth;
mod host;
mod page;
mod prometheus;
mod routes;
mod server;
mod stream;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::admin::Admin;
use crate::config::{Config, Finding, Live, MonitorAddress};

use stream::Readers;

pub use routes::State;

/// Threads that serve readers, beside those that serve clients of Redis.
const THREADS: usize = 1;

/// The monitor cannot listen where it was told to.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}: {error}; type another address for monitor, or stop what listens there; an empty one means no monitor"
)]
pub struct MonitorError {
    address: SocketAddr,
    error: io::Error,
}

/// A monitor that runs. Dropped, it ends.
pub struct Monitor {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

/// What is wrong with the files that the monitor needs.
pub fn check_files(config: &Config) -> Option<Finding> {
    auth::Token::of(config).err()
}

/// Binds the monitor's address; none: there is no monitor, or nobody has named an address and the usual one is taken.
///
/// # Errors
/// The address was named, and cannot be bound.
pub fn bind(monitor: MonitorAddress) -> Result<Option<TcpListener>, MonitorError> {
    let Some(address) = monitor.address() else { return Ok(None) };
    match TcpListener::bind(address) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if monitor == MonitorAddress::Auto => {
            tracing::warn!(%address, %error, "there is no monitor: its usual address cannot be used; name another with --monitor");
            Ok(None)
        }
        Err(error) => Err(MonitorError { address, error }),
    }
}

impl Monitor {
    /// Serves readers. Their streams end when `stop` becomes true.
    ///
    /// # Errors
    /// The system gives no thread, or takes the socket back.
    pub fn start(
        listener: TcpListener,
        admin: Arc<Admin>,
        config: Live<Arc<Config>>,
        stop: watch::Receiver<bool>,
    ) -> io::Result<Monitor> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(1)
            .thread_name("shortstop-monitor")
            .enable_all()
            .build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        runtime.spawn(server::run(listener, State { admin, config, readers: Readers::new(stop) }));
        tracing::info!("the monitor is at http://{address}/");
        Ok(Monitor { address, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Readers are not waited for: they ask again.
            runtime.shutdown_background();
        }
    }
}
