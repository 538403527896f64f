//! The tasks outside the workers that watch Redis, the fleet, L1's mode and the latencies, and report what they find.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::admin::warm::Keys;
use crate::bus::{Bus, Event, Notice, connection_name};
use crate::coherence::{Mode, Role};
use crate::config::Config;
use crate::fleet::{Alone, OnBus};
use crate::history::unix_time;
use crate::metrics::outcome::FlushReason;
use crate::metrics::window;
use crate::resp::Version;
use crate::supervisor::End;
use crate::upstream::instances::{self, Fleet};
use crate::upstream::topology::{self, News};
use crate::webhook::{Recipient, Webhook};
use crate::worker::Order;
use crate::worker_state::windows::Asker;

use super::direct_clients::DirectClients;
use super::{App, anonymous, status};

/// Interval of the near cache's housekeeping.
const TIDY: Duration = Duration::from_millis(500);

/// Interval of checks of the mode, which changes with the clock.
const LOOK_AT_MODE: Duration = Duration::from_millis(100);

/// How long a start waits for the hot keys of peers.
const WARM_WITHIN: Duration = Duration::from_secs(60);

/// How soon it is looked at what Redis has compressed, once a compressed value has passed; and how often after that. It costs Redis some
/// two thousand small commands.
const LOOK_AT_STORED: Duration = Duration::from_secs(10);
const LOOK_AT_STORED_AGAIN: Duration = Duration::from_secs(300);

/// Interval of samples of the metrics.
const SAMPLE: Duration = Duration::from_secs(1);

impl App {
    /// The control plane: the polling of the server once a second, and the near cache's housekeeping.
    pub(super) fn start_watch(&self, control: &Runtime, config: &Config, incarnation: u64) {
        let coherence = Arc::clone(&self.shared.coherence);
        let (worker_handles, shared) = (self.worker_handles.clone(), Arc::clone(&self.shared));
        let stats = Arc::clone(&self.shared.stats);
        let (scripts, outbox) = (Arc::clone(&self.shared.scripts), self.shared.outbox.clone());
        let tell = move |news| match news {
            News::Table(table) => {
                let table = Arc::new(*table);
                worker_handles
                    .iter()
                    .for_each(|worker_handle| drop(worker_handle.orders.send(Order::Table(Arc::clone(&table)))));
            }
            News::Leave { epoch, done } => {
                // Until the move is over, nothing is served, and nothing that is read from now on is kept.
                coherence.set_role(Role::Changing);
                for worker_handle in &worker_handles {
                    // A worker that has ended has no connections.
                    let _ = worker_handle.orders.send(Order::Leave { epoch, done: done.clone() });
                }
            }
            News::Moved(is_primary) => {
                stats.shared.upstream_moves.fetch_add(1, Ordering::Relaxed);
                scripts.functions.forget();
                coherence.flush_for(FlushReason::Upstream, "connections lead to another server");
                coherence.set_role(role_of(is_primary));
            }
            News::Functions { number, asked, no_writes } => {
                if scripts.functions.learn(number, asked, no_writes) {
                    // Calls that counted as reads may have written anything, here or at a peer with the same belief.
                    if !scripts.are_trusted() {
                        coherence.flush_for(FlushReason::Scripts, "a function lost its flag no-writes");
                    }
                    let event = Event::Script { lost: false, clear: !scripts.are_trusted() };
                    let _ = outbox.as_ref().is_some_and(|outbox| outbox.try_send(vec![event]));
                }
            }
            News::Primary(is_primary) => coherence.set_role(role_of(Some(is_primary))),
            News::RoleNotTold => coherence.role_is_not_told(),
            News::AcceptsAnonymous { accepts, asked } => {
                let since = shared.users.set_accepts_anonymous(accepts);
                // Between two such polls it may have accepted connections.
                if let (false, Some(since)) = (accepts, since) {
                    worker_handles
                        .iter()
                        .for_each(|handle| drop(handle.orders.send(Order::AnonymousLocked { since, asked })));
                }
            }
            News::AnonymousRights(since) => {
                let was = shared.users.anonymous_rights_changed();
                worker_handles
                    .iter()
                    .for_each(|worker_handle| drop(worker_handle.orders.send(Order::AnonymousRights { since, was })));
            }
            News::Users(users) => shared.users.set_rights(users),
            News::Blind => shared.users.rights_unavailable(),
            News::Rights => coherence.flush("the rights of users have changed"),
        };
        let scripts = Arc::clone(&self.shared.scripts);
        let wants_functions = move || scripts.functions.wanted();
        let settings = topology::Settings {
            dialer: Arc::clone(&self.dialer),
            name: connection_name(&config.fleet, incarnation),
            first: anonymous(config),
            endpoint: Arc::clone(&self.shared.endpoint),
            limits: Arc::clone(&self.shared.server_limits),
            status: Arc::clone(&self.admin.status),
        };
        let users = Arc::clone(&self.shared);
        let wants_rights = move || users.users.wants_rights();
        let watches = topology::watch(settings, wants_functions, wants_rights, tell);
        control.spawn(self.supervisor.watch("the watch over Redis", End::Never, watches));
        let direct_clients = DirectClients::new(Arc::clone(&self.shared.stats), self.config.clone());
        let watched = instances::Settings {
            dialer: Arc::clone(&self.dialer),
            endpoint: Arc::clone(&self.shared.endpoint),
            name: connection_name(&config.fleet, incarnation),
            channel: instances::channel(&config.fleet),
            direct_clients: Box::new(move |number| direct_clients.seen(number, Instant::now())),
        };
        let watches = instances::watch(watched, self.fleet(&config.fleet, incarnation));
        control.spawn(self.supervisor.watch("the watch over the fleet", End::Never, watches));
        let coherence = Arc::clone(&self.shared.coherence);
        control.spawn(self.supervisor.watch("the near cache's housekeeping", End::Never, async move {
            let mut ticks = tokio::time::interval(TIDY);
            loop {
                ticks.tick().await;
                coherence.tidy();
            }
        }));
    }

    /// Starts the timers of what can be shown: the mode and the latencies.
    pub(super) fn start_looking(&self, control: &Runtime) {
        let admin = Arc::clone(&self.admin);
        control.spawn(self.supervisor.watch("the watch over the mode", End::Never, async move {
            let mut ticks = tokio::time::interval(LOOK_AT_MODE);
            loop {
                ticks.tick().await;
                admin.observe_mode(Instant::now());
            }
        }));
        let admin = Arc::clone(&self.admin);
        let notices = self.bus.as_ref().map(Bus::notices);
        let webhook = Arc::new(Webhook::default());
        let posts = (Arc::clone(&webhook), Arc::clone(&self.shared.stats), self.config.clone());
        control.spawn(self.supervisor.watch("the sender of alerts", End::Never, async move {
            let (webhook, stats, config) = posts;
            let recipient = || {
                let alerts = &config.get().alerts;
                let token = alerts.webhook_token.clone();
                alerts.webhook.clone().map(|url| Recipient { url, token })
            };
            webhook.run(recipient, &stats.shared.webhook).await;
        }));
        let stats = Arc::clone(&self.shared.stats);
        control.spawn(self.supervisor.watch("the clock of the history", End::Never, async move {
            let mut ticks = tokio::time::interval(SAMPLE);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                for alert in admin.sample(unix_time()) {
                    let alerts = admin.config.get().alerts.clone();
                    let notice = admin.alert_notice(&alert);
                    if alerts.webhook.is_some() && !webhook.push(notice.clone()) {
                        stats.shared.webhook.dropped();
                    }
                    let (Some(notices), Some(subject)) = (&notices, alerts.subject) else { continue };
                    let payload = notice.into_bytes();
                    if notices.try_send(Notice { subject, payload }).is_err() {
                        crate::seldom!(warn, "an alert was not published: NATS is away, and too many wait already");
                    }
                }
            }
        }));
        if let Some(bus) = &self.bus {
            let tells = status::tell(Arc::clone(&self.admin), bus.status());
            control.spawn(self.supervisor.watch("the teller of summaries", End::Never, tells));
        }
        let admin = Arc::clone(&self.admin);
        control.spawn(self.supervisor.watch("the clock of the curve", End::Never, async move {
            let mut ticks = tokio::time::interval(SAMPLE);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                admin.follow().await;
            }
        }));
        let admin = Arc::clone(&self.admin);
        control.spawn(self.supervisor.watch("the look at what is stored", End::Never, async move {
            let mut next = Instant::now();
            loop {
                tokio::time::sleep(LOOK_AT_STORED).await;
                if Instant::now() < next || !admin.has_seen_compressed() {
                    continue;
                }
                next = Instant::now() + LOOK_AT_STORED_AGAIN;
                if let Err(error) = admin.sample_stored().await {
                    tracing::debug!(%error, "it is not known what is stored compressed");
                }
            }
        }));
        let stats = Arc::clone(&self.shared.stats);
        control.spawn(self.supervisor.watch("the clock of the latencies", End::Never, async move {
            let mut ticks = tokio::time::interval(window::EVERY);
            loop {
                ticks.tick().await;
                stats.note_latencies(Instant::now());
            }
        }));
    }

    /// With `warm: true`, waits until peers have told which of their keys are hot, and reads these into L1.
    pub(super) fn start_warm_up(&self, control: &Runtime, config: &Config) {
        if !config.warm || self.bus.is_none() {
            return;
        }
        let (admin, db) = (Arc::clone(&self.admin), config.upstream.db);
        control.spawn(self.supervisor.watch("the warm-up at the start", End::Allowed, async move {
            let until = Instant::now() + WARM_WITHIN;
            while Instant::now() < until {
                tokio::time::sleep(LOOK_AT_MODE).await;
                let now = Instant::now();
                let here = admin.hot_keys_of_others().into_iter().filter(|(of, _)| *of == db);
                let keys: Vec<Vec<u8>> = here.map(|(_, key)| key).collect();
                if !keys.is_empty() && admin.observe_mode(now).0 == Mode::Live {
                    let asker = Asker { version: Version::Resp2, db, user: 0, sees_values: false };
                    if let Err(why) = admin.warm(Keys::These(keys), None, asker) {
                        tracing::info!(why, "there is no warm-up at the start");
                    }
                    return;
                }
            }
            tracing::info!("there is no warm-up at the start: no other Shortstop has named a hot key");
        }));
    }

    /// The receiver of the instances that Redis shows: the bus, or without one a counter and the log.
    fn fleet(&self, name: &str, incarnation: u64) -> Arc<dyn Fleet> {
        match &self.bus {
            Some(bus) => Arc::new(OnBus { peers: bus.peers(), fleet: name.to_owned() }),
            None => Arc::new(Alone {
                fleet: name.to_owned(),
                incarnation,
                stats: Arc::clone(&self.bus_stats),
                unheard: AtomicU64::new(0),
                subscribed: AtomicBool::new(false),
                others: Mutex::default(),
            }),
        }
    }
}

/// The role of a server, as far as it is known.
fn role_of(is_primary: Option<bool>) -> Role {
    match is_primary {
        Some(true) => Role::Primary,
        Some(false) => Role::Replica,
        None => Role::Unproven,
    }
}
