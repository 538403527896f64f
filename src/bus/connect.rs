//! The options of the NATS client: servers and login from the URL, limits, reconnecting. Checks what can be checked without a
//! connection, so that a wrong setting fails at the start. Does not connect.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};
use thiserror::Error;
use tracing::{debug, info, warn};

use crate::config::{NatsLogin, NatsUrl};

use super::log_limit::LogLimit;
use super::settings::{Settings, connection_name};
use super::watch::Shared;

/// Interval of NATS pings, which detect a dead connection: three unanswered pings close it.
const PING: Duration = Duration::from_secs(2);
/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(2);
/// Back-off between attempts: doubles from the first value to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Maximum number of commands queued in the library. With `message::MAX_BYTES` this bounds the memory of a stalled connection to 16
/// MB.
const COMMANDS: usize = 256;
/// Maximum number of messages received but not yet taken, per subject.
const WAITING: usize = 65_536;

/// Why the bus could not be started. No text contains the URL, because it may contain a password.
#[derive(Debug, Error)]
pub enum BusError {
    /// The URL cannot be used.
    #[error("the host of the NATS URL cannot be used; type nats://host:port")]
    Url,
    /// The fleet's name or the JSON subject cannot be a NATS subject.
    #[error("{0:?} is not a usable subject: no spaces, no wildcards, no empty part between dots")]
    Subject(String),
    /// The credentials file cannot be used.
    #[error("the credentials file {path} cannot be used: {error}")]
    Credentials {
        /// The file, as configured.
        path: PathBuf,
        /// What is wrong with it.
        error: io::Error,
    },
}

/// The servers in the library's form, without logins: the library would ignore the user in a URL, and would log it at debug level.
pub(super) fn servers(nats: &NatsUrl) -> Result<Vec<ServerAddr>, BusError> {
    nats.servers().map(|server| server.parse().map_err(|_| BusError::Url)).collect()
}

pub(super) fn subject(name: String) -> Result<String, BusError> {
    let bad = |token: &str| {
        token.is_empty() || token.contains(|c: char| c.is_whitespace() || c.is_control() || "*>".contains(c))
    };
    if name.split('.').any(bad) { Err(BusError::Subject(name)) } else { Ok(name) }
}

pub(super) fn options(settings: &Settings, shared: &Arc<Shared>) -> Result<ConnectOptions, BusError> {
    let on_event = Arc::clone(shared);
    let on_delay = Arc::clone(shared);
    let limit = Arc::new(LogLimit::default());
    let servers: Arc<str> = settings.nats.servers().collect::<Vec<_>>().join(",").into();
    let options = ConnectOptions::new()
        .name(connection_name(&settings.fleet, settings.incarnation))
        .retry_on_initial_connect()
        .connection_timeout(CONNECT)
        .ping_interval(PING)
        .client_capacity(COMMANDS)
        .subscription_capacity(WAITING)
        .reconnect_delay_callback(move |attempt| {
            if on_delay.ended.load(Ordering::Relaxed) {
                // The library notices only while connected that its client is gone. After that, only a sleeping task is left of it
                // until the runtime ends.
                return Duration::from_secs(u64::from(u32::MAX));
            }
            let doublings = u32::try_from(attempt).unwrap_or(u32::MAX).saturating_sub(1).min(16);
            (BACKOFF.0 * (1 << doublings)).min(BACKOFF.1)
        })
        .event_callback(move |event| {
            let (shared, limit, servers) = (Arc::clone(&on_event), Arc::clone(&limit), Arc::clone(&servers));
            async move { noted(&event, &shared, &limit, &servers) }
        });
    let options = match settings.nats.login() {
        Some(NatsLogin::Password { user, password }) => {
            options.user_and_password(user.clone(), password.expose().to_owned())
        }
        Some(NatsLogin::Token(token)) => options.token(token.expose().to_owned()),
        None => options,
    };
    match &settings.credentials {
        Some(path) => with_credentials(options, path),
        None => Ok(options),
    }
}

fn with_credentials(options: ConnectOptions, path: &Path) -> Result<ConnectOptions, BusError> {
    std::fs::read_to_string(path)
        .and_then(|text| options.credentials(&text))
        .map_err(|error| BusError::Credentials { path: path.to_owned(), error })
}

/// Checks that a credentials file can be used.
///
/// # Errors
/// It cannot be read, or contains no credentials.
pub fn check_credentials(path: &Path) -> Result<(), BusError> {
    with_credentials(ConnectOptions::new(), path).map(drop)
}

/// Logs an event of the library, and records dropped messages. Events can be lost, so correctness must not depend on them.
fn noted(event: &async_nats::Event, shared: &Shared, limit: &LogLimit, servers: &str) {
    match event {
        async_nats::Event::Connected => info!(servers, "nats: connected"),
        async_nats::Event::Disconnected => warn!(servers, "nats: disconnected"),
        async_nats::Event::ClientError(async_nats::ClientError::Other(why)) => {
            if let Some(times) = limit.allow() {
                warn!(
                    times,
                    servers,
                    why,
                    "nats: there is no connection: writes are not published to other Shortstops. Shortstop keeps trying"
                );
            }
        }
        async_nats::Event::SlowConsumer(_) => {
            shared.overflowed.store(true, Ordering::Relaxed);
            if let Some(times) = limit.allow() {
                warn!(times, "nats: messages arrived faster than they could be handled");
            }
        }
        // The bus has stopped, and the last handle of the library's client is dropped.
        async_nats::Event::Closed => debug!("nats: closed"),
        other => {
            if let Some(times) = limit.allow() {
                warn!(times, "nats: {other}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{servers, subject};

    #[test]
    fn the_library_gets_no_login() {
        let nats = "nats://b,tls://us%40er:hunter2@a.b_c:4223,[::1]:1".parse().expect("good");
        let found: Vec<_> = servers(&nats).expect("good").iter().map(|server| server.as_url_str().to_owned()).collect();
        assert_eq!(found, ["nats://b", "tls://a.b_c:4223", "nats://[::1]:1"]);
    }

    #[test]
    fn subjects() {
        assert!(subject("shortstop.v1.default".into()).is_ok());
        for bad in ["", "a..b", "a.", "a b", "a.*", "a.>", "a\r\nb"] {
            assert!(subject(bad.into()).is_err(), "{bad}");
        }
    }
}
