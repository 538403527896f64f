//! How the NATS client is set up: servers and login from the URL, limits, reconnecting. Checks what can be known without a connection,
//! so that a wrong setting fails at the start. Does not connect.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};
use thiserror::Error;
use tracing::{info, warn};

use super::log_limit::LogLimit;
use super::settings::{Settings, connection_name};
use super::watch::Shared;

/// How often NATS is pinged, to notice a dead connection: three unanswered pings close it.
const PING: Duration = Duration::from_secs(2);
/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(2);
/// Back-off between attempts: doubles from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Commands queued in the library; with `message::MAX_BYTES` this bounds what a stalled link holds to 16 MB.
const COMMANDS: usize = 256;
/// Messages received and not yet taken, for each subject.
const WAITING: usize = 65_536;

/// Why the bus could not be started. No text holds the URL: it may contain a password.
#[derive(Debug, Error)]
pub enum BusError {
    /// The URL cannot be used.
    #[error("nats: expected nats://[user:pass@]host[:port] or tls://…, several separated by commas ({0})")]
    Url(String),
    /// The fleet's name or the JSON subject cannot be a NATS subject.
    #[error("nats: {0:?} is not a usable subject: no spaces, no wildcards, no empty part between dots")]
    Subject(String),
    /// The credentials file cannot be used.
    #[error("nats: credentials file {path}: {error}")]
    Credentials {
        /// The file, as configured.
        path: PathBuf,
        /// What is wrong with it.
        error: io::Error,
    },
}

/// The servers, and what to log in with. The library would not use the user in a URL, and would show it in its
/// log at debug level: so it is taken out. The first one found is used for all servers.
pub(super) fn servers(urls: &str) -> Result<(Vec<ServerAddr>, Option<Login>), BusError> {
    let unreadable = || BusError::Url("it cannot be read".into());
    let mut login = None;
    let mut servers = Vec::new();
    for url in urls.split(',') {
        let server: ServerAddr = url.trim().parse().map_err(|_| unreadable())?;
        if server.host().is_empty() {
            return Err(BusError::Url("no host".into()));
        }
        if !matches!(server.scheme(), "nats" | "tls") {
            return Err(BusError::Url(format!("not {}", server.scheme())));
        }
        login = login.or(Login::of(&server).ok_or_else(unreadable)?);
        let mut url = server.into_inner();
        // Both can fail only without a host.
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| unreadable())?;
        servers.push(ServerAddr::from_url(url).map_err(|_| unreadable())?);
    }
    Ok((servers, login))
}

/// What stands before the `@` of a URL.
pub(super) enum Login {
    Password {
        user: String,
        password: String,
    },
    /// A user without a password, as other NATS clients take it.
    Token(String),
}

impl Login {
    /// `None`: it is not percent-encoded correctly.
    fn of(server: &ServerAddr) -> Option<Option<Login>> {
        let user = server.username().map(unescape);
        let password = server.password().map(unescape);
        match (user, password) {
            (None, None) => Some(None),
            (Some(token), None) => Some(Some(Login::Token(token?))),
            (user, Some(password)) => {
                Some(Some(Login::Password { user: user.unwrap_or(Some(String::new()))?, password: password? }))
            }
        }
    }
}

/// `%40` becomes `@` (RFC 3986 §2.1); the rest stays.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push((high * 16 + low) as u8);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

pub(super) fn subject(name: String) -> Result<String, BusError> {
    let bad = |token: &str| {
        token.is_empty() || token.contains(|c: char| c.is_whitespace() || c.is_control() || "*>".contains(c))
    };
    if name.split('.').any(bad) { Err(BusError::Subject(name)) } else { Ok(name) }
}

pub(super) fn options(
    settings: &Settings,
    login: Option<Login>,
    shared: &Arc<Shared>,
) -> Result<ConnectOptions, BusError> {
    let on_event = Arc::clone(shared);
    let on_delay = Arc::clone(shared);
    let limit = Arc::new(LogLimit::default());
    let options = ConnectOptions::new()
        .name(connection_name(&settings.fleet, settings.incarnation))
        .retry_on_initial_connect()
        .connection_timeout(CONNECT)
        .ping_interval(PING)
        .client_capacity(COMMANDS)
        .subscription_capacity(WAITING)
        .reconnect_delay_callback(move |attempt| {
            if on_delay.ended.load(Ordering::Relaxed) {
                // The library notices that its client is gone only while connected. A sleeping task is all that
                // is left of it until the runtime ends.
                return Duration::from_secs(u64::from(u32::MAX));
            }
            let doublings = u32::try_from(attempt).unwrap_or(u32::MAX).saturating_sub(1).min(16);
            (BACKOFF.0 * (1 << doublings)).min(BACKOFF.1)
        })
        .event_callback(move |event| {
            let (shared, limit) = (Arc::clone(&on_event), Arc::clone(&limit));
            async move { noted(&event, &shared, &limit) }
        });
    let options = match login {
        Some(Login::Password { user, password }) => options.user_and_password(user, password),
        Some(Login::Token(token)) => options.token(token),
        None => options,
    };
    let Some(path) = &settings.credentials else {
        return Ok(options);
    };
    std::fs::read_to_string(path)
        .and_then(|text| options.credentials(&text))
        .map_err(|error| BusError::Credentials { path: path.clone(), error })
}

/// Logs an event of the library, and notes dropped messages. Events can be lost, so nothing that must be right may depend on them.
fn noted(event: &async_nats::Event, shared: &Shared, limit: &LogLimit) {
    match event {
        async_nats::Event::Connected => info!("nats: connected"),
        async_nats::Event::Disconnected => warn!("nats: disconnected"),
        async_nats::Event::SlowConsumer(_) => {
            shared.overflowed.store(true, Ordering::Relaxed);
            if let Some(times) = limit.allow() {
                warn!(times, "nats: messages came faster than they could be taken");
            }
        }
        other => {
            if let Some(times) = limit.allow() {
                warn!(times, "nats: {other}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BusError, Login, servers, subject};

    #[test]
    fn urls() {
        for good in
            ["nats://127.0.0.1:4222", "tls://nats.example", "nats://[::1]", "localhost:4222", "nats://a, nats://b"]
        {
            assert!(servers(good).is_ok_and(|(_, login)| login.is_none()), "{good}");
        }
        for bad in ["", "redis://host", "ws://host", "nats://", "nats://a,", "nats://a:%4@host"] {
            assert!(matches!(servers(bad), Err(BusError::Url(_))), "{bad}");
        }
    }

    #[test]
    fn logins_are_taken_out_of_the_url() {
        let (found, login) = servers("nats://b,nats://us%40er:hunt%2Fer2@a:4223").expect("good");
        assert_eq!(found[1].as_url_str(), "nats://a:4223");
        let Some(Login::Password { user, password }) = login else { panic!("not found") };
        assert_eq!((user.as_str(), password.as_str()), ("us@er", "hunt/er2"));
        let (found, login) = servers("nats://secret@a").expect("good");
        assert_eq!(found[0].as_url_str(), "nats://a");
        assert!(matches!(login, Some(Login::Token(token)) if token == "secret"));
        let Err(error) = servers("nats://user:hunter2@host:port") else { panic!("a port that is no number") };
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn subjects() {
        assert!(subject("shortstop.v1.default".into()).is_ok());
        for bad in ["", "a..b", "a.", "a b", "a.*", "a.>", "a\r\nb"] {
            assert!(subject(bad.into()).is_err(), "{bad}");
        }
    }
}
