//! Finds the Shortstops of the fleet that are connected to Redis, over a connection of its own.
//!
//! Each Shortstop subscribes to the fleet's channel, to which nothing is published. The number of subscribers, requested twice a
//! second, shows cheaply whether there may be a Shortstop that the bus does not hear. If so, and every ten seconds, CLIENT LIST
//! shows the connections, whose names contain the instances. While Redis is away nothing is reported.
//!
//! The connection speaks RESP3, so that it can send requests while it is subscribed. The bus decides which instances are missing.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::timeout;

use crate::resp::{Bulk, bulk_of, elements, parse_int};

use super::RESERVED;
use super::dial::{self, Dialer, silent};
use super::direct_clients;
use super::endpoint::{Endpoint, Server, differ};
use super::finder::run_id_in;

/// Interval of counting the subscribers, and of reconnecting. An instance is noticed within three intervals: its subscription, the
/// count, and a second check.
pub const EVERY: Duration = Duration::from_millis(500);
/// Interval of CLIENT LIST while an instance is lost or unheard.
const LIST_AGAIN: Duration = Duration::from_secs(1);
/// Interval of CLIENT LIST in any case: this Shortstop may have no right to the number of subscribers, or others no right to
/// subscribe.
const LIST_EVERY: Duration = Duration::from_secs(10);
/// After this many lists in a row that do not explain the number of subscribers, the next list follows after [`LIST_EVERY`].
const UNEXPLAINED: u32 = 5;

/// Whether CLIENT LIST is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// All instances are known.
    No,
    /// There are more or fewer subscribers than known instances.
    Count,
    /// An instance is lost or unheard.
    List,
    /// A new instance may be unheard.
    ListNow,
}

/// A connection in Redis's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// Its address, as Redis sees it.
    pub address: String,
}

/// Receives what Redis shows. Called from a task, so an implementation must not block.
pub trait Fleet: Send + Sync + 'static {
    /// There is a new connection to Redis. `run_id` is the server's, if it tells. `subscribed`: this Shortstop is subscribed.
    fn connected(&self, run_id: Option<&str>, subscribed: bool);
    /// The connection has ended, and the subscription with it.
    fn disconnected(&self);
    /// Whether CLIENT LIST is needed, with this number of subscribers. `None`: the number is not known.
    fn needs(&self, subscribers: Option<u64>) -> Need;
    /// All connections in Redis's list.
    fn shown(&self, connections: Vec<Shown>);
}

/// What [`watch`] needs.
pub struct Settings {
    /// How to connect.
    pub dialer: Arc<Dialer>,
    /// The server to connect to.
    pub endpoint: Arc<Endpoint>,
    /// The name of the connection.
    pub name: String,
    /// The fleet's channel.
    pub channel: String,
    /// Receives the number of clients that use Redis directly. `None`: Redis does not tell. Called from a task, so it must not block.
    pub direct_clients: Box<dyn Fn(Option<u64>) + Send + Sync>,
}

/// The channel of a fleet.
pub fn channel(fleet: &str) -> String {
    format!("{RESERVED}{fleet}:instances")
}

/// Asks Redis which instances are connected, until dropped.
pub async fn watch(settings: Settings, fleet: Arc<dyn Fleet>) {
    let mut warned = Warned::default();
    loop {
        // Waits while there is no server. Other code reports if none was ever found.
        if let Ok((epoch, server)) = settings.endpoint.target().await {
            tokio::select! {
                ended = look_at(&server, &settings, &*fleet, &mut warned) => {
                    let Err(error) = ended;
                    tracing::debug!(%error, "no connection to watch the fleet at Redis");
                }
                () = settings.endpoint.passed(epoch) => {}
            }
            fleet.disconnected();
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn look_at(
    server: &Server,
    settings: &Settings,
    fleet: &dyn Fleet,
    warned: &mut Warned,
) -> io::Result<Infallible> {
    let mut connection = Connection::open(server, settings).await?;
    fleet.connected(connection.run_id.as_deref(), connection.subscribed);
    connection.look(settings, fleet, warned).await
}

/// Which warnings were logged: each is logged once.
#[derive(Default)]
struct Warned {
    count: bool,
    list: bool,
}

impl Warned {
    fn about_count(&mut self, channel: &str) {
        if !std::mem::replace(&mut self.count, true) {
            tracing::warn!(
                "the user in the upstream URL has no right to SUBSCRIBE to {channel} or PUBSUB NUMSUB: a Shortstop \
                 of this fleet that is not heard on NATS is noticed within {} s instead of 1.5 s. Grant these \
                 rights (+subscribe +pubsub &__shortstop:*)",
                LIST_EVERY.as_secs()
            );
        }
    }

    fn about_list(&mut self) {
        if !std::mem::replace(&mut self.list, true) {
            tracing::warn!(
                "the user in the upstream URL has no right to CLIENT LIST or CLIENT SETNAME: a Shortstop of this \
                 fleet that is not heard on NATS is not noticed, and one that fell silent keeps this one degraded \
                 until it is back. Grant +client"
            );
        }
    }
}

struct Connection {
    connection: dial::Connection,
    limit: Duration,
    run_id: Option<Box<str>>,
    subscribed: bool,
}

impl Connection {
    async fn open(server: &Server, settings: &Settings) -> io::Result<Connection> {
        let Settings { dialer, name, channel, .. } = settings;
        let dialed = dialer.dial(&server.address).await?;
        let limit = dialer.limit() + EVERY;
        let connection = timeout(limit, dialed.greet()).await.unwrap_or_else(|_| Err(silent(limit)))?;
        let mut connection = Connection { connection, limit, run_id: None, subscribed: false };
        if let Some(login) = dialer.login() {
            let reply = connection.ask(login.auth().collect()).await?;
            if reply.first() == Some(&b'-') {
                return Err(io::Error::other("Redis refuses the password in the upstream URL"));
            }
        }
        let speaks_3 = connection.ask_words(&["HELLO", "3"]).await?.first() != Some(&b'-');
        // Redis may refuse this. Then the list below shows no names, and `look` no longer requests it.
        if connection.ask_words(&["CLIENT", "SETNAME", name]).await?.starts_with(b"-NOAUTH") {
            return Err(io::Error::other("Redis requires a password, and the upstream URL has none"));
        }
        let info = connection.ask_words(&["INFO", "server"]).await?;
        connection.run_id = text(&info).and_then(run_id_in);
        if differ(connection.run_id.as_deref(), server.run_id.as_deref()) {
            return Err(io::Error::other("another server answers at its address"));
        }
        if speaks_3 {
            connection.subscribed = connection.subscribe(channel).await?;
        }
        Ok(connection)
    }

    async fn look(&mut self, settings: &Settings, fleet: &dyn Fleet, warned: &mut Warned) -> io::Result<Infallible> {
        let mut may_count = self.subscribed;
        let mut may_list = true;
        let mut listed: Option<Instant> = None;
        // Number of lists in a row that did not explain this number of subscribers.
        let mut unexplained = (None, 0);
        loop {
            let mut count = None;
            if may_count {
                count = subscribers(&self.ask_words(&["PUBSUB", "NUMSUB", &settings.channel]).await?);
                may_count = count.is_some();
            }
            if !may_count {
                warned.about_count(&settings.channel);
            }
            let need = fleet.needs(count);
            if need != Need::Count || unexplained.0 != count {
                unexplained = (count, 0);
            }
            let now = Instant::now();
            let due = |every| listed.is_none_or(|last| now >= last + every);
            let wanted = match need {
                Need::No => false,
                Need::Count => unexplained.1 < UNEXPLAINED,
                Need::List => due(LIST_AGAIN),
                Need::ListNow => true,
            };
            if may_list && (wanted || due(LIST_EVERY)) {
                unexplained.1 += 1;
                listed = Some(now);
                let reply = self.ask_words(&["CLIENT", "LIST"]).await?;
                let list = text(&reply).unwrap_or_default();
                let connections: Vec<Shown> = list.lines().filter_map(connection_of).collect();
                // If this connection does not appear under its name, those of others do not either.
                may_list = connections.iter().any(|connection| connection.name == settings.name);
                if may_list {
                    (settings.direct_clients)(Some(direct_clients::count(list)));
                    fleet.shown(connections);
                } else {
                    (settings.direct_clients)(None);
                    warned.about_list();
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn ask_words(&mut self, words: &[&str]) -> io::Result<Bytes> {
        self.ask(words.iter().map(|word| word.as_bytes()).collect()).await
    }

    /// Sends one command and returns its reply, which may be that the user lacks the right.
    ///
    /// # Errors
    /// The connection has failed, or Redis refuses the command for now.
    async fn ask(&mut self, request: dial::Request<'_>) -> io::Result<Bytes> {
        let asked = timeout(self.limit, self.connection.ask(request)).await;
        lasting(asked.unwrap_or_else(|_| Err(silent(self.limit)))?)
    }

    /// Subscribes. Returns whether Redis allows it.
    async fn subscribe(&mut self, channel: &str) -> io::Result<bool> {
        let subscribing = async {
            self.connection.send(&[vec![b"SUBSCRIBE", channel.as_bytes()]]).await?;
            // A push, or an error.
            Ok(lasting(self.connection.frame().await?)?.first() == Some(&b'>'))
        };
        timeout(self.limit, subscribing).await.unwrap_or_else(|_| Err(silent(self.limit)))
    }
}

/// Passes a reply that would be the same the next time: data, or the error that the user lacks the right.
///
/// # Errors
/// Redis refuses the command for now: it runs a script, loads its data, or requires a login.
fn lasting(reply: Bytes) -> io::Result<Bytes> {
    match reply.strip_prefix(b"-") {
        Some(error) if !["NOPERM ", "ERR "].iter().any(|code| error.starts_with(code.as_bytes())) => {
            Err(io::Error::other(String::from_utf8_lossy(error).trim_end().to_owned()))
        }
        _ => Ok(reply),
    }
}

/// The text in a reply to INFO or CLIENT LIST.
fn text(reply: &[u8]) -> Option<&str> {
    match bulk_of(reply) {
        Bulk::Value(text) => std::str::from_utf8(text).ok(),
        // The format, "txt:", precedes the text.
        Bulk::Verbatim(text) => std::str::from_utf8(text.get(4..)?).ok(),
        _ => None,
    }
}

/// The number in the reply to PUBSUB NUMSUB of one channel.
fn subscribers(reply: &[u8]) -> Option<u64> {
    let count = elements(reply)?.nth(1)?;
    parse_int(count.strip_prefix(b":")?.strip_suffix(b"\r\n")?).and_then(|count| u64::try_from(count).ok())
}

/// A line of CLIENT LIST.
fn connection_of(line: &str) -> Option<Shown> {
    let field = |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    let name = field("name").filter(|name| !name.is_empty())?;
    Some(Shown { name: name.to_owned(), address: field("addr").unwrap_or_default().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::{Shown, connection_of, subscribers, text};

    #[test]
    fn replies_of_both_protocols_are_read() {
        assert_eq!(text(b"$3\r\nabc\r\n"), Some("abc"));
        assert_eq!(text(b"=7\r\ntxt:abc\r\n"), Some("abc"));
        for not_text in [&b"-NOPERM\r\n"[..], b"=1\r\nt\r\n", b"$-1\r\n", b"$1\r\n\xff\r\n"] {
            assert_eq!(text(not_text), None);
        }
        assert_eq!(subscribers(b"*2\r\n$1\r\nc\r\n:3\r\n"), Some(3));
        for not_a_count in [&b"-NOPERM\r\n"[..], b"*0\r\n", b"*2\r\n$1\r\nc\r\n:-3\r\n"] {
            assert_eq!(subscribers(not_a_count), None);
        }
    }

    #[test]
    fn connections_with_a_name_are_listed() {
        let line =
            "id=7 addr=127.0.0.1:40000 laddr=127.0.0.1:6379 fd=9 name=shortstop:blue:00000000000000ab age=3 db=0";
        let shown = Shown { name: "shortstop:blue:00000000000000ab".into(), address: "127.0.0.1:40000".into() };
        assert_eq!(connection_of(line), Some(shown));
        assert_eq!(connection_of("id=7 addr=127.0.0.1:40000 name= age=3"), None);
        assert_eq!(connection_of(""), None);
    }
}
