//! Puts the parts together: builds, runs, reloads, drains. A value, not a process: two may run side by side.

mod bus_sink;
mod direct_clients;
mod settings;
mod status;
mod watches;

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use crate::acceptor::{self, Front, WorkerHandle};
use crate::admin::Admin;
use crate::admin::background::Background;
use crate::admin::following::Following;
use crate::admin::settings::{Changed, Settings};
use crate::alerts::Alerts;
use crate::bus::{self, Bus, BusError, connection_name, random_incarnation};
use crate::client_state::users::Users;
use crate::coherence::Coherence;
use crate::coherence::mode_history::ModeHistory;
use crate::command::Table;
use crate::config::{ClientsWithoutAuth, Config, ConfigError, Live, Target, Timeouts, UpstreamUrl};
use crate::history::{History, unix_time};
use crate::listeners::{self, Addresses, ListenError};
use crate::machine;
use crate::metrics::journal::Journal;
use crate::metrics::outcome::EventKind;
use crate::metrics::slots::{BusStats, Stats};
use crate::monitor::{self, Monitor, MonitorError};
use crate::net::Address;
use crate::scripts::Scripts;
use crate::summaries::{self, Summaries};
use crate::supervisor::{End, Failure, Supervisor};
use crate::traffic::Accesses;
use crate::upstream::status::UpstreamStatus;
use crate::upstream::{Dialer, Endpoint, LinkSettings, Login, OwnRights, ServerLimits};
use crate::worker::{self, Order, Setup};
use crate::worker_state::context::{Mailbox, Mailboxes, Shared};
use crate::worker_state::key_turns::KeyTurns;
use crate::worker_state::plain_keys::PlainKeys;
use crate::worker_state::policy::View;
use crate::worker_state::windows::Windows;

use bus_sink::BusSink;
use settings::{RunningSettings, new_policy};

pub use settings::{Surroundings, check_files};

/// Prefix of the names of the workers' threads.
const WORKER: &str = "shortstop-worker-";

/// How long to wait for a thread to end.
const ABANDON: Duration = Duration::from_secs(5);

/// Why Shortstop cannot start, or cannot use another configuration.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The address for clients.
    #[error("{0}")]
    Listen(#[from] ListenError),
    /// The address of the monitor.
    #[error("{0}")]
    Monitor(#[from] MonitorError),
    /// Clients of Shortstop would be sent back to it.
    #[error(
        "`upstream` leads to {address}, where this Shortstop itself listens; name the address of Redis in `upstream` (REDIS_URL), or \
             listen elsewhere with --listen"
    )]
    Itself {
        /// The address on which it listens.
        address: Address,
    },
    /// The bus's URL, subject or credentials.
    #[error("nats: {0}")]
    Bus(#[from] BusError),
    /// Threads.
    #[error("the system provides no thread: {0}")]
    Thread(#[source] io::Error),
}

/// A running Shortstop. It ends at once when dropped.
pub struct App {
    addresses: Addresses,
    shared: Arc<Shared>,
    dialer: Arc<Dialer>,
    settings: Arc<RunningSettings>,
    admin: Arc<Admin>,
    monitor: Option<Monitor>,
    bus: Option<Bus>,
    bus_stats: Arc<BusStats>,
    worker_handles: Vec<WorkerHandle>,
    threads: Vec<JoinHandle<()>>,
    supervisor: Supervisor,
    stop: watch::Sender<bool>,
    control: Option<Runtime>,
    /// The current configuration.
    config: Live<Arc<Config>>,
    timeouts: Live<Timeouts>,
}

impl App {
    /// Starts Shortstop with a configuration, and returns when clients can connect. Blocks briefly, so do not call it from an
    /// asynchronous task.
    ///
    /// # Errors
    /// What prevents the start. Redis or NATS being away does not.
    pub fn start(config: Config) -> Result<App, StartError> {
        App::start_in(config, Surroundings::default())
    }

    /// [`App::start`], with a configuration that can be read again.
    ///
    /// # Errors
    /// As above.
    pub fn start_in(config: Config, surroundings: Surroundings) -> Result<App, StartError> {
        config.check()?;
        let timeouts = Live::new(config.timeouts);
        let dialer =
            Dialer::new(config.upstream.clone(), &config.upstream_tls, timeouts.clone()).map_err(ConfigError::from)?;
        let server = listeners::server(&config.tls).map_err(ConfigError::from)?;
        let (listeners, addresses) = listeners::bind(&config)?;
        let monitor = monitor::bind(config.monitor)?;
        for address in [addresses.plain, addresses.tls].into_iter().flatten() {
            if leads_to(&config.upstream, address) {
                return Err(StartError::Itself { address: address.into() });
            }
        }
        if let (Target::Unix(path), Some(Address::Unix(listen))) = (&config.upstream.target, &addresses.unix)
            && **listen == **path
        {
            return Err(StartError::Itself { address: path.clone().into() });
        }
        let control = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(4)
            .thread_name("shortstop-control")
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let workers = match config.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let incarnation = random_incarnation();
        let stats = Arc::new(Stats::new(workers));
        let coherence = Arc::new(Coherence::new(&config, Arc::clone(&stats)));
        let journal = Arc::clone(&stats.shared.journal);
        let bus_stats = Arc::new(BusStats { journal: Arc::clone(&journal), ..BusStats::default() });
        let scripts = Arc::new(Scripts::default());
        scripts.set_trusted(config.scripts.are_trusted());
        let summaries = Arc::new(Summaries::new(incarnation));
        let heard: Arc<Mutex<Accesses>> = Arc::default();
        let plain_keys = Arc::new(PlainKeys::new(Instant::now()));
        let sink = BusSink {
            coherence: Arc::clone(&coherence),
            scripts: Arc::clone(&scripts),
            plain_keys: Arc::clone(&plain_keys),
            summaries: Arc::clone(&summaries),
            heard: Arc::clone(&heard),
        };
        let supervisor = Supervisor::default();
        let bus = start_bus(&config, incarnation, &control, &supervisor, sink, &bus_stats)?;
        let endpoint = Arc::new(Endpoint::new(Arc::clone(&journal)));
        let in_force = Live::new(Arc::new(config.clone()));
        let (buffers, status) = (Arc::default(), Arc::new(UpstreamStatus::new(Arc::clone(&journal))));
        let samples = match &config.data_dir {
            Some(directory) => History::open(directory, unix_time()),
            None => History::in_memory(),
        };
        let mailboxes = Arc::new(Mailboxes::default());
        let admin = Arc::new(Admin {
            stats: Arc::clone(&stats),
            endpoint: Arc::clone(&endpoint),
            coherence: Arc::clone(&coherence),
            bus: Arc::clone(&bus_stats),
            status: Arc::clone(&status),
            history: ModeHistory::default(),
            alerts: Alerts::from_notes(&samples.take_notes()),
            samples,
            memory: machine::memory() as u64,
            buffers: Arc::clone(&buffers),
            listen: addresses.to_string(),
            config: in_force.clone(),
            settings: OnceLock::new(),
            outbox: bus.as_ref().map(Bus::outbox),
            control: control.handle().clone(),
            warmer: Background::default(),
            decompressor: Background::default(),
            dialer: Arc::clone(&dialer),
            trying: tokio::sync::Mutex::default(),
            incarnation,
            mailboxes: Arc::clone(&mailboxes),
            summaries,
            following: Mutex::new(Following::new(in_force.get())),
            heard,
        });
        // The journal tells each later mode.
        admin.observe_mode(Instant::now());
        let shared = Arc::new(Shared {
            coherence,
            stats,
            endpoint,
            outbox: bus.as_ref().map(Bus::outbox),
            updates: bus.as_ref().and_then(Bus::updates),
            windows: Arc::clone(&admin) as Arc<dyn Windows>,
            buffers,
            control: control.handle().clone(),
            offload: Arc::default(),
            users: Users::new(config.upstream.password.is_none()),
            mailboxes,
            scripts,
            key_turns: KeyTurns::default(),
            plain_keys,
            client_ids: Arc::default(),
            server_limits: Arc::new(ServerLimits::default()),
        });
        let view = View {
            policy: new_policy(&config, &shared),
            table: Arc::new(Table::until_asked()),
            rule_counts: Arc::default(),
        };
        let (client_limit, limit) = watch::channel(config.limits.max_clients);
        let (stop, stopped) = watch::channel(false);
        let settings = Arc::new(RunningSettings {
            surroundings,
            shared: Arc::clone(&shared),
            dialer: Arc::clone(&dialer),
            server: server.map(|server| watch::channel(server).0),
            client_limit,
            config: in_force.clone(),
            timeouts: timeouts.clone(),
            changing: Mutex::default(),
        });
        let weak: Weak<dyn Settings> = Arc::<RunningSettings>::downgrade(&settings);
        // It is set here only.
        let _ = admin.settings.set(weak);
        let mut app = App {
            addresses,
            shared,
            dialer,
            settings,
            admin,
            monitor: None,
            bus,
            bus_stats,
            worker_handles: Vec::new(),
            threads: Vec::new(),
            supervisor,
            stop,
            control: Some(control),
            config: in_force,
            timeouts,
        };
        for number in 0..workers {
            app.start_worker(number, &config, &view, incarnation).map_err(StartError::Thread)?;
        }
        let version = env!("CARGO_PKG_VERSION");
        journal.note(
            EventKind::Started,
            format_args!("version {version}, workers: {workers}, listens on {}", app.addresses),
        );
        app.shared.mailboxes.open(app.worker_handles.iter().map(post).collect());
        if let Some(control) = &app.control {
            app.start_watch(control, &config, incarnation);
            app.start_looking(control);
            app.start_warm_up(control, &config);
            let stats = Arc::clone(&app.shared.stats);
            let front = Front {
                worker_handles: app.worker_handles.clone(),
                limit,
                stats,
                number: Arc::clone(&app.shared.client_ids),
            };
            for (listener, has_tls) in listeners {
                let tls = app.settings.server.as_ref().filter(|_| has_tls).map(watch::Sender::subscribe);
                let accepts = acceptor::run(listener, tls, front.clone(), stopped.clone());
                control.spawn(app.supervisor.watch("the acceptor", End::Never, accepts));
            }
        }
        if let Some(listener) = monitor {
            let admin = Arc::clone(&app.admin);
            app.monitor = Some(
                Monitor::start(listener, admin, app.config.clone(), app.stop.subscribe())
                    .map_err(StartError::Thread)?,
            );
        }
        Ok(app)
    }

    fn start_worker(&mut self, number: usize, config: &Config, view: &View, incarnation: u64) -> io::Result<()> {
        let (orders, receiver) = mpsc::unbounded_channel();
        let load = Arc::new(AtomicUsize::new(0));
        let setup = Setup {
            number,
            shared: Arc::clone(&self.shared),
            view: view.clone(),
            links: LinkSettings {
                dialer: Arc::clone(&self.dialer),
                endpoint: Arc::clone(&self.shared.endpoint),
                timeouts: self.timeouts.clone(),
                name: connection_name(&config.fleet, incarnation),
                pending_limit: Cell::new(config.limits.upstream_pending),
                server_limits: Arc::clone(&self.shared.server_limits),
                own_rights: OwnRights::default(),
            },
            anonymous: anonymous(config),
            load: Arc::clone(&load),
        };
        let name = format!("{WORKER}{number}");
        let thread = self.supervisor.thread(&name, move || worker::run(setup, receiver))?;
        self.threads.push(thread);
        self.worker_handles.push(WorkerHandle { orders, load });
        Ok(())
    }

    /// Waits until something has ended that Shortstop cannot do without: a worker, the acceptor, a watch. The process should then
    /// end at once. In-flight requests may be lost, and the fleet assumes so.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn failed(&self) -> Failure {
        let failure = self.supervisor.failed().await;
        self.journal().note(EventKind::Failed, &failure);
        failure
    }

    fn journal(&self) -> &Journal {
        &self.shared.stats.shared.journal
    }

    /// The addresses for clients.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The address of the monitor. `None` if there is none.
    pub fn monitor(&self) -> Option<SocketAddr> {
        self.monitor.as_ref().map(Monitor::address)
    }

    /// Uses another configuration from now on. Existing connections keep the certificates with which they began.
    ///
    /// # Errors
    /// The configuration is invalid, or a certificate cannot be used. The old configuration stays.
    pub fn reload_from(&self, config: &Config) -> Result<Changed, ConfigError> {
        self.settings.reload_from(config)
    }

    /// Reads the configuration again. What comes of it is in the log.
    pub fn reload(&self) {
        // The log has the error.
        let _ = self.settings.reload();
    }

    /// Stops accepting, answers pending requests, publishes what is queued, and ends, within `timeouts.shutdown`. Returns whether
    /// everything was answered.
    pub fn shutdown(mut self) -> bool {
        let limit = Instant::now() + self.timeouts.get().shutdown;
        self.journal().note(EventKind::Stopping, "pending requests are answered");
        self.supervisor.stop();
        self.stop.send_replace(true);
        for worker_handle in &self.worker_handles {
            let _ = worker_handle.orders.send(Order::Drain);
        }
        while !self.threads.iter().all(JoinHandle::is_finished) && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(5));
        }
        let left: usize =
            self.worker_handles.iter().map(|worker_handle| worker_handle.load.load(Ordering::Relaxed)).sum();
        if left > 0 {
            tracing::warn!(clients = left, limit = ?self.timeouts.get().shutdown, "exiting with clients that were \
                not answered");
        }
        let unfinished = self.supervisor.running();
        let unfinished: Vec<&str> =
            unfinished.iter().map(|name| &**name).filter(|name| name.starts_with(WORKER)).collect();
        if !unfinished.is_empty() {
            tracing::warn!("these did not finish in time: {}", unfinished.join(", "));
        }
        // If a worker has not ended, a write may still be in flight. Then no BYE is sent, so that the peers watch for it.
        let settled = self.threads.iter().all(JoinHandle::is_finished);
        if let (Some(bus), Some(control), true) = (self.bus.take(), &self.control, settled) {
            control.block_on(bus.shutdown());
        }
        left == 0
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.supervisor.stop();
        self.stop.send_replace(true);
        // Without a worker handle a worker ends at its next order.
        self.worker_handles.clear();
        self.monitor = None;
        self.bus = None;
        self.admin.samples.close();
        if let Some(control) = self.control.take() {
            // The acceptor and the watch hold worker handles too.
            control.shutdown_timeout(Duration::from_secs(1));
        }
        // A worker that hangs must not keep the process from ending.
        let limit = Instant::now() + ABANDON;
        while !self.threads.iter().all(JoinHandle::is_finished) && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(1));
        }
        let still = self.supervisor.running();
        if !still.is_empty() {
            tracing::warn!("these do not end and are abandoned: {}", still.join(", "));
        }
        for thread in self.threads.drain(..).filter(JoinHandle::is_finished) {
            let _ = thread.join();
        }
    }
}

/// Whether an upstream leads to this listener. Resolves the upstream's name only if the port is the same. Other loops, through
/// another address or a forwarder, are found when the first connection arrives.
fn leads_to(upstream: &UpstreamUrl, listen: SocketAddr) -> bool {
    let is_here = |address: IpAddr| match listen.ip() {
        // Only an address of this machine can be bound.
        any if any.is_unspecified() => UdpSocket::bind((address, 0)).is_ok(),
        one => address == one,
    };
    let (host, port) = match &upstream.target {
        Target::Tcp { host, port } | Target::Tls { host, port } => (host.as_str(), *port),
        Target::Unix(_) => return false,
    };
    port == listen.port()
        && (host, port).to_socket_addrs().is_ok_and(|mut addresses| addresses.any(|address| is_here(address.ip())))
}

/// The mailbox of a worker. It must not keep the worker from ending with its last worker handle.
fn post(worker_handle: &WorkerHandle) -> Mailbox {
    let orders = worker_handle.orders.downgrade();
    Box::new(move |task| {
        if let Some(orders) = orders.upgrade() {
            // A worker that has ended has no clients.
            let _ = orders.send(Order::WorkerTask(task));
        }
    })
}

/// The login that unauthenticated clients use in Redis.
fn anonymous(config: &Config) -> Option<Login> {
    match config.clients_without_auth {
        ClientsWithoutAuth::Upstream => Login::of(&config.upstream),
        ClientsWithoutAuth::Nobody => None,
    }
}

fn start_bus(
    config: &Config,
    incarnation: u64,
    control: &Runtime,
    supervisor: &Supervisor,
    sink: BusSink,
    stats: &Arc<BusStats>,
) -> Result<Option<Bus>, BusError> {
    let Some(nats) = &config.nats else {
        tracing::info!("no NATS is configured: this is a single instance, and its writes are not published");
        return Ok(None);
    };
    let mut settings = bus::Settings::new(nats.clone(), config.fleet.clone(), incarnation);
    settings.json = config.bus.json.then(|| config.bus.json_subject.clone());
    settings.updates = config.bus.json.then(|| config.bus.update_subject.clone());
    settings.credentials.clone_from(&config.bus.credentials);
    settings.supervisor = supervisor.clone();
    settings.farewell = summaries::farewell(incarnation);
    bus::start(control.handle(), settings, Arc::new(sink), Arc::clone(stats)).map(Some)
}
