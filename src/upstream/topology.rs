//! The control plane: reads the server's command table, role and identity.
//!
//! Polls once a second over a connection of its own, never on the path of a client's request. If the server is a replica, another
//! server, or gone, the upstream's name is resolved again, and all connections move to the server that is found.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::Interval;

use crate::command::Table;
use crate::errors;

use super::acl::UserRights;
use super::control::{Control, items, text};
use super::dial::Dialer;
use super::endpoint::{Endpoint, Server, Suspicion, differ};
use super::finder::{Choice, Finder, eviction_in, is_primary_in, run_id_in, used_memory_in};
use super::functions::without_writes;
use super::limits::{self, ServerLimits};
use super::login::{Login, is_about_login};
use super::rights::{Rights, Seen};
use super::status::{OwnRight, UpstreamStatus};

/// Interval of polls.
const EVERY: Duration = Duration::from_secs(1);

/// Interval of questions for the memory that the server uses.
const MEMORY_EVERY: Duration = Duration::from_secs(10);

/// Minimum interval of name resolutions, however many connections fail.
const LOOKUP_PAUSE: Duration = Duration::from_millis(200);

/// What a poll has found.
#[derive(Debug)]
pub enum News {
    /// The server's commands: after each connect, and when their number has changed (a module was loaded).
    Table(Box<Table>),
    /// The server has changed: connections of older epochs must be given up. `done` is dropped when that has happened.
    Leave {
        /// See [`Endpoint`].
        epoch: u64,
        /// The move waits until every copy is dropped.
        done: mpsc::Sender<()>,
    },
    /// Connections now lead to another server, or to the same one after a restart. Contains whether it is a primary, if that is
    /// known.
    Moved(Option<bool>),
    /// Whether the server is a primary.
    Primary(bool),
    /// The server was asked for its role and does not tell.
    RoleNotTold,
    /// Whether the server accepts commands from clients that have not authenticated.
    AcceptsAnonymous {
        /// Whether it does.
        accepts: bool,
        /// When it was asked.
        asked: Instant,
    },
    /// The rights of such clients differ from those at this time.
    AnonymousRights(Instant),
    /// The rights of some user have changed.
    Rights,
    /// The functions that cannot write, if they were asked for.
    Functions {
        /// The number that `wants_functions` returned.
        number: u64,
        /// When the server was asked.
        asked: Instant,
        /// The functions' names.
        no_writes: HashSet<Box<[u8]>>,
    },
    /// What Shortstop may send as each user. `None`: Shortstop's own user may not ask.
    Users(Option<HashMap<Box<[u8]>, UserRights>>),
    /// Redis could not be asked this time.
    Blind,
}

/// What [`watch`] needs.
pub struct Settings {
    /// How to connect.
    pub dialer: Arc<Dialer>,
    /// The name of the connection (CLIENT SETNAME).
    pub name: String,
    /// The login that unauthenticated clients use.
    pub first: Option<Login>,
    /// Receives the server that was found.
    pub endpoint: Arc<Endpoint>,
    /// Receives the server's limits.
    pub limits: Arc<ServerLimits>,
    /// Receives whether the server answers.
    pub status: Arc<UpstreamStatus>,
}

/// Finds the server and watches it, until dropped. `wants_functions` returns the number under which to ask for the functions, or
/// `None` if they are not needed. `wants_rights` returns whether to report users' rights even if they have not changed.
pub async fn watch(
    settings: Settings,
    wants_functions: impl Fn() -> Option<u64>,
    wants_rights: impl Fn() -> bool,
    tell: impl Fn(News),
) {
    let Settings { dialer, name, first, endpoint, limits, status } = settings;
    let mut known = Known {
        endpoint,
        upstream: dialer.upstream().address(),
        finder: Finder::new(Arc::clone(&dialer)),
        found: Instant::now(),
        is_primary: None,
        rights: Rights::new(Arc::clone(&dialer), first),
        limits,
        status,
        answered: false,
        ticks: tokio::time::interval(EVERY),
        confirmed: None,
    };
    known.ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        if let Some(choice) = known.find(&tell).await {
            known.change(choice, &tell).await;
        }
        let mut again = false;
        if let Some(server) = known.endpoint.server() {
            known.answered = false;
            match Control::open(&dialer, &server.address, dialer.limit() + EVERY).await {
                Ok(mut control) => {
                    let ended =
                        look(&mut control, &name, &server, &mut known, &wants_functions, &wants_rights, &tell).await;
                    match ended {
                        Ok(moves_to) => {
                            again = true;
                            if let Some(choice) = moves_to {
                                known.change(choice, &tell).await;
                            }
                        }
                        Err(error) => {
                            tracing::debug!(%error, "the control connection to Redis ended");
                            known.control_ended(&error, &server, &tell).await;
                            tell(News::Blind);
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "no control connection to Redis");
                    known.control_ended(&error, &server, &tell).await;
                    tell(News::Blind);
                }
            }
        }
        match again {
            true => tokio::time::sleep(LOOKUP_PAUSE).await,
            false => known.pause().await,
        }
    }
}

/// What outlives a connection.
struct Known {
    endpoint: Arc<Endpoint>,
    /// The configured upstream, for the log.
    upstream: String,
    finder: Finder,
    /// When the name was last resolved.
    found: Instant,
    /// The role that the server last reported.
    is_primary: Option<bool>,
    rights: Rights,
    limits: Arc<ServerLimits>,
    status: Arc<UpstreamStatus>,
    /// The control connection has completed at least one poll.
    answered: bool,
    ticks: Interval,
    /// When the role was last checked early because a reply said that the server is a replica.
    confirmed: Option<Instant>,
}

impl Known {
    /// Resolves the name. Returns the server that all connections must move to, if it is another one.
    ///
    /// # Cancel safety
    /// Nothing has changed then.
    async fn find(&mut self, tell: &impl Fn(News)) -> Option<Choice> {
        self.endpoint.take_reports();
        self.found = Instant::now();
        let current = self.endpoint.server();
        let found = self.finder.find(current.as_deref()).await;
        match (found, current) {
            (Ok(choice), Some(current)) if choice.server.differs(&current) => return Some(choice),
            (Ok(choice), Some(_)) => {
                if let Some(run_id) = &choice.server.run_id {
                    self.endpoint.learn(run_id);
                }
            }
            (Ok(choice), None) => {
                // Before anything from this server can be kept.
                self.role(choice.is_primary, tell);
                tracing::info!(upstream = self.upstream, address = %choice.server.address, "Redis is found");
                self.endpoint.open(choice.server);
            }
            (Err(error), _) => {
                tracing::debug!(%error, upstream = self.upstream, "no server is found");
                self.status.failed(&self.upstream, &error.to_string(), Instant::now());
                self.endpoint.away(&error.to_string());
            }
        }
        None
    }

    /// Moves all connections to another server. No connection to it is made before the last one to the old server has been given
    /// up.
    async fn change(&mut self, Choice { server, is_primary }: Choice, tell: &impl Fn(News)) {
        let from = self.endpoint.server().map(|server| server.address.to_string());
        let epoch = self.endpoint.close();
        let (done, mut all_done) = mpsc::channel(1);
        tell(News::Leave { epoch, done });
        // Nothing is ever sent: this waits until all senders are dropped.
        let _ = all_done.recv().await;
        let role = match is_primary {
            Some(true) => "master",
            Some(false) => "replica",
            None => "unknown",
        };
        tracing::warn!(
            upstream = self.upstream, from, to = %server.address, role,
            "Redis is now another server: all connections move to it, and L1 is flushed"
        );
        self.status.moved(from.as_deref(), &server.address.to_string());
        self.is_primary = is_primary;
        tell(News::Moved(is_primary));
        self.endpoint.open(server);
    }

    /// The control connection has ended. If it had completed a poll, it may just have been closed: the next attempt will show. A
    /// reply that did not come in time is a failure at once. If Redis refuses Shortstop's login, Shortstop cannot ask for the role,
    /// but clients with a login of their own are served, and whether others are is still looked at.
    async fn control_ended(&mut self, error: &io::Error, server: &Server, tell: &impl Fn(News)) {
        let why = error.to_string();
        if is_about_login(&why) {
            tell(News::RoleNotTold);
            let asked = Instant::now();
            report(&self.rights.look_as_anonymous(&server.address).await, asked, tell);
        }
        if !self.answered || error.kind() == io::ErrorKind::TimedOut {
            self.status.failed(&self.upstream, &why, Instant::now());
        }
    }

    /// The server has reported its role, or not.
    fn role(&mut self, is_primary: Option<bool>, tell: &impl Fn(News)) {
        let Some(is_primary) = is_primary else { return };
        match self.is_primary.replace(is_primary) {
            Some(false) if is_primary => tracing::info!(upstream = self.upstream, "Redis is a primary again"),
            Some(true) | None if !is_primary => tracing::warn!(
                upstream = self.upstream,
                "Redis is a replica: L1 is off, and Shortstop looks for a primary every second. Writes fail until \
                 there is one"
            ),
            _ => {}
        }
        tell(News::Primary(is_primary));
    }

    /// Waits for the next poll: a second, or less if there is trouble.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    async fn pause(&mut self) {
        loop {
            tokio::select! {
                _ = self.ticks.tick() => return,
                () = self.endpoint.reported() => {}
            }
            if self.endpoint.has(Suspicion::Connection) {
                tokio::time::sleep(LOOKUP_PAUSE.saturating_sub(self.found.elapsed())).await;
                return;
            }
            // A script can return such an error at any rate, so an early check happens at most once a second.
            let may_confirm = self.confirmed.is_none_or(|last| last.elapsed() >= EVERY);
            if self.endpoint.has(Suspicion::Replica) && may_confirm {
                self.confirmed = Some(Instant::now());
                return;
            }
        }
    }
}

/// Reports what a poll of the users' rights has found.
fn report(rights: &Seen, asked: Instant, tell: &impl Fn(News)) {
    // In this order: clients accepted before the change differ from those that connect after it.
    if let Some(since) = rights.first_changed_since {
        tell(News::AnonymousRights(since));
    }
    if let Some(accepts) = rights.accepts_anonymous {
        tell(News::AcceptsAnonymous { accepts, asked });
    }
    if rights.changed {
        tell(News::Rights);
    }
}

/// Polls the server until the connection breaks or must be made again. Returns another server to move to, if there is one.
async fn look(
    control: &mut Control,
    name: &str,
    server: &Server,
    known: &mut Known,
    wants_functions: &impl Fn() -> Option<u64>,
    wants_rights: &impl Fn() -> bool,
    tell: &impl Fn(News),
) -> io::Result<Option<Choice>> {
    // Optional, as on the lanes.
    if let Err(error) = control.ask(&["CLIENT", "SETNAME", name]).await
        && error.to_string() == errors::UPSTREAM_IS_ITSELF.text()
    {
        return Err(error);
    }
    // The number of commands in the table that was last reported.
    let mut commands = None;
    // A command that Redis refuses is not sent again on this connection, because Redis logs each refusal.
    let (mut may_info, mut may_role, mut may_command, mut may_ping) = (true, true, true, true);
    known.rights.connected(server.address.clone());
    // The same for the list of functions.
    let mut may_ask_functions = true;
    let mut memory_asked: Option<Instant> = None;
    let server_limits = Arc::clone(&known.limits);
    let mut limits = limits::Watch::new(&server_limits);
    loop {
        let in_trouble = known.endpoint.take_reports();
        let info = if may_info { control.ask_if_allowed(&["INFO", "server"]).await? } else { None };
        may_info = info.is_some();
        let run_id = info.as_ref().and_then(text).and_then(run_id_in);
        let server = known.endpoint.server();
        let expected = server.as_ref().and_then(|server| server.run_id.as_deref());
        if differ(run_id.as_deref(), expected) {
            // This connection leads to a server other than the one the others use.
            return Ok(None);
        }
        if let Some(run_id) = &run_id {
            known.endpoint.learn(run_id);
        }
        let role = if may_role { control.ask_if_allowed(&["ROLE"]).await? } else { None };
        may_role = role.is_some();
        let is_primary = match role {
            Some(role) => items(&role).first().and_then(text).map(|role| role == "master"),
            None if may_info => {
                let info = control.ask_if_allowed(&["INFO", "replication"]).await?;
                info.as_ref().and_then(text).and_then(is_primary_in)
            }
            None => None,
        };
        known.role(is_primary, tell);
        if is_primary.is_none() {
            tell(News::RoleNotTold);
        }
        if (in_trouble || is_primary == Some(false))
            && let Some(choice) = known.find(tell).await
        {
            return Ok(Some(choice));
        }
        // While Redis loads its data it answers the requests above, and refuses those of clients.
        may_ping = may_ping && control.may_ping().await?;
        // Before the table: a module that is loaded in between is noticed at the next poll.
        let count = if may_command { control.ask_unless_refused(&["COMMAND", "COUNT"]).await? } else { None };
        if count.is_some()
            && commands != count
            && let Some(table) = control.ask_unless_refused(&["COMMAND"]).await?
        {
            match Table::from_command(&table) {
                Ok(table) => tell(News::Table(Box::new(table))),
                Err(error) => {
                    tracing::warn!(%error, "the server's command table is not understood; the current one stays in \
                        use")
                }
            }
            commands = count;
        }
        may_command = commands.is_some();
        known.status.may(OwnRight::Command, may_command);
        known.status.may(OwnRight::Info, may_info);
        known.status.may(OwnRight::Role, may_role);
        let asked = Instant::now();
        let rights = known.rights.look(control, wants_rights()).await?;
        report(&rights, asked, tell);
        if rights.users.is_some() || rights.blind {
            tell(News::Users(rights.users));
        }
        if may_ask_functions && let Some(number) = wants_functions() {
            let asked = Instant::now();
            match control.ask_if_allowed(&["FUNCTION", "LIST"]).await? {
                Some(list) => tell(News::Functions { number, asked, no_writes: without_writes(&list) }),
                None => may_ask_functions = false,
            }
        }
        limits.look(control).await?;
        if may_info && memory_asked.is_none_or(|asked| asked.elapsed() >= MEMORY_EVERY) {
            memory_asked = Some(Instant::now());
            let info = control.ask_if_allowed(&["INFO", "memory"]).await?;
            let info = info.as_ref().and_then(text);
            known.status.uses(info.and_then(used_memory_in), info.and_then(eviction_in));
        }
        known.answered = true;
        known.status.answered(&known.upstream, Instant::now());
        tokio::select! {
            () = known.pause() => {}
            // If Redis closes the connection, that is noticed at once, and not at the next poll.
            error = control.ended() => return Err(error),
        }
    }
}
