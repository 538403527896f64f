//! What is known of the server behind: its command table, its role, its identity, and who else is connected to it.
//!
//! Asked once a second over a connection of its own, by typed commands through fred; never on the way of a request.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::types::Value;
use fred::types::config::{Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, ServerConfig};
use redis_protocol::resp2::types::BytesFrame;

use crate::command::Table;
use crate::config::{Timeouts, UpstreamUrl};

use super::control::{ask, ask_if_allowed};
use super::functions::without_writes;
use super::login::Login;
use super::rights::Rights;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// What has been learnt.
#[derive(Debug)]
pub enum News {
    /// The server's commands: after each connect, and when there are more or fewer than before (a module was loaded).
    Table(Box<Table>),
    /// Another server than before answers at the address, or the same after a restart.
    Restarted,
    /// Whether the server is a primary.
    Primary(bool),
    /// The names of the connections that the server has; only when asked for.
    Connections(Vec<String>),
    /// Whether the server lets a client do anything that has not authenticated.
    LetsIn(bool),
    /// What such a client may is another thing than it was at this time.
    FirstRights(Instant),
    /// Some user may do another thing than before.
    Rights,
    /// The functions that cannot write; only when asked for.
    Functions {
        /// What they were asked for under.
        number: u64,
        /// When the server was asked.
        asked: Instant,
        /// Their names.
        no_writes: HashSet<Box<[u8]>>,
    },
}

/// Looks after the server until it is dropped. `first` is who a client is that has not authenticated; `wants_connections` says
/// whether somebody wants to know who is connected, `wants_functions` under which number somebody wants to know the functions.
pub async fn watch(
    upstream: UpstreamUrl,
    timeouts: Timeouts,
    name: String,
    first: Option<Login>,
    wants_connections: impl Fn() -> bool,
    wants_functions: impl Fn() -> Option<u64>,
    tell: impl Fn(News),
) {
    let config = Config {
        fail_fast: true,
        username: upstream.user.clone(),
        password: upstream.password.as_ref().map(|password| password.expose().to_owned()),
        server: ServerConfig::new_centralized(upstream.host.clone(), upstream.port),
        ..Config::default()
    };
    let performance =
        PerformanceConfig { default_command_timeout: timeouts.connect + EVERY, ..PerformanceConfig::default() };
    let connection = ConnectionConfig {
        connection_timeout: timeouts.connect,
        // What may have run is not sent again behind our back.
        max_command_attempts: 1,
        ..ConnectionConfig::default()
    };
    let mut known = Known { server: None, rights: Rights::new(upstream, timeouts, first) };
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // A client for as long as a connection lasts: reconnecting is done here, where nothing is in flight.
        let client =
            Client::new(config.clone(), Some(performance.clone()), Some(connection.clone()), None::<ReconnectPolicy>);
        let connected = client.init().await;
        match connected {
            Ok(mut task) => {
                tokio::select! {
                    ended = look(&client, &name, &mut known, &mut ticks, &wants_connections, &wants_functions, &tell) => {
                        if let Err(error) = ended {
                            tracing::debug!(%error, "the control connection to Redis ended");
                        }
                    }
                    // What is asked after the connection has ended would wait for its time-out.
                    _ = &mut task => tracing::debug!("Redis closed the control connection"),
                }
                task.abort();
            }
            Err(error) => tracing::debug!(%error, "no control connection to Redis"),
        }
        let _ = client.quit().await;
        ticks.tick().await;
    }
}

/// What outlives a connection.
struct Known {
    /// The server's `run_id`.
    server: Option<String>,
    rights: Rights,
}

async fn look(
    client: &Client,
    name: &str,
    known: &mut Known,
    ticks: &mut tokio::time::Interval,
    wants_connections: &impl Fn() -> bool,
    wants_functions: &impl Fn() -> Option<u64>,
    tell: &impl Fn(News),
) -> Result<(), Error> {
    // A courtesy, as on the lanes.
    let _ = ask(client, "CLIENT", &["SETNAME", name]).await;
    // How many there are in the table that was told last.
    let mut commands = None;
    // Whether the connection's user may ask for them; a refusal is logged by the server, so it is asked for once.
    let mut may_ask_functions = true;
    known.rights.connected();
    loop {
        // Before the table: what is loaded between the two is noticed the next time.
        let count = ask(client, "COMMAND", &["COUNT"]).await?.as_i64();
        if commands != Some(count) {
            let table = ask(client, "COMMAND", &[]).await?;
            match Table::from_command(&frame(table)) {
                Ok(table) => tell(News::Table(Box::new(table))),
                Err(error) => {
                    tracing::warn!(%error, "the command table of the server is not understood; the one in use stays")
                }
            }
            commands = Some(count);
        }
        let info = ask(client, "INFO", &["server"]).await?.into_string().unwrap_or_default();
        let identity = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().trim().to_owned();
        if known.server.as_deref() != Some(&identity) && known.server.replace(identity).is_some() {
            tell(News::Restarted);
        }
        let is_primary = match ask(client, "ROLE", &[]).await? {
            Value::Array(parts) => parts.first().and_then(Value::as_str).is_some_and(|role| role == "master"),
            _ => false,
        };
        tell(News::Primary(is_primary));
        let rights = known.rights.look(client).await?;
        // In this order: who was let in before is another client than those that are not.
        rights.first_changed_since.into_iter().for_each(|since| tell(News::FirstRights(since)));
        rights.lets_in.into_iter().for_each(|lets_in| tell(News::LetsIn(lets_in)));
        if rights.changed {
            tell(News::Rights);
        }
        if may_ask_functions && let Some(number) = wants_functions() {
            let asked = Instant::now();
            match ask_if_allowed(client, "FUNCTION", &["LIST"]).await? {
                Some(list) => tell(News::Functions { number, asked, no_writes: without_writes(list) }),
                None => may_ask_functions = false,
            }
        }
        if wants_connections() {
            let list = ask(client, "CLIENT", &["LIST"]).await?.into_string().unwrap_or_default();
            let names = list.split_whitespace().filter_map(|field| field.strip_prefix("name="));
            tell(News::Connections(names.map(str::to_owned).collect()));
        }
        ticks.tick().await;
    }
}

/// The frame that a value was, as far as `COMMAND` has use for the difference.
fn frame(value: Value) -> BytesFrame {
    match value {
        Value::Integer(number) => BytesFrame::Integer(number),
        Value::Array(items) => BytesFrame::Array(items.into_iter().map(frame).collect()),
        Value::Null => BytesFrame::Null,
        other => other.into_bytes().map_or(BytesFrame::Null, BytesFrame::BulkString),
    }
}
