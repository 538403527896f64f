//! The order of things: start all servers, load the keys, measure cell after cell so that neighbours in time are
//! neighbours in the table, then the generator's ceiling and the idle connections. Knows what must be true before a
//! cell means something (L1 warm, NATS live) and after it (the GETs were hits).

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::idle;
use crate::load::{self, LoadError, Plan, Sample, Subject};
use crate::machine::{self, CoreTimes, Cores, MachineError, Processes};
use crate::plain::{Plain, PlainError};
use crate::report::{Cell, Results};
use crate::secure::Trust;
use crate::servers::{self, Kind, Server, ServerError, Starter};
use crate::wire::{Batches, KEYS, VALUE_LEN, Workload};

/// Requests per write.
const DEPTHS: [usize; 3] = [1, 16, 64];
/// How deep the connection writes that loads and warms.
const WALK_DEPTH: usize = 100;
/// Over all keys before GETs from L1: the second request admits, the others are to spare.
const WARM_WALKS: usize = 4;
/// A share of the servers' core that others take before anything runs; above it the page says so.
const BUSY_ALREADY: f64 = 0.1;
/// A share of a cell's time in which the generator was kept waiting; cells above it are counted on the page.
const DISTURBED: f64 = 0.05;
/// For how long other work is looked for.
const LOOK: Duration = Duration::from_millis(500);
/// How long the generator's ceiling is looked at.
const CEILING: Plan =
    Plan { connections: 50, warm_up: Duration::from_millis(300), measure: Duration::from_millis(700) };
/// Cells of L1 with fewer hits than this have measured something else.
const HITS_AT_LEAST: f64 = 0.99;
/// From the start of Shortstop to its first proof that NATS delivers.
const LIVE_WITHIN: Duration = Duration::from_secs(10);

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// [`crate::wire::checker_works`] said no.
    #[error("the checker of replies lets wrong ones pass")]
    Checker,
    /// A name after `--only`.
    #[error("--only {0}: no such server (see --help)")]
    NoSuchServer(String),
    /// No two cores, no pinning.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A server that is installed did not come up.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Loading, warming, asking for counters, idle connections.
    #[error("{name}: {error}")]
    Plain {
        /// Which server.
        name: &'static str,
        /// What happened.
        error: PlainError,
    },
    /// A cell.
    #[error("{name}, {workload}, pipeline {depth}: {error}")]
    Load {
        /// Which server.
        name: &'static str,
        /// What was asked.
        workload: &'static str,
        /// Requests per write.
        depth: usize,
        /// What happened.
        error: LoadError,
    },
    /// Configuration files and logs have nowhere to go.
    #[error("a temporary folder: {0}")]
    Folder(std::io::Error),
}

/// A run under way. Dropping it stops every server.
pub struct Run<'a> {
    starter: Starter<'a>,
    plan: Plan,
    rounds: usize,
    stop: Arc<AtomicBool>,
    /// Everyone's upstream, whether it is itself compared or not.
    redis: Server,
    compare_redis: bool,
    /// All others that are compared.
    proxies: Vec<Server>,
    results: Results,
}

impl<'a> Run<'a> {
    /// Starts the servers and loads the keys. A rival that is not installed is left out, loudly.
    ///
    /// # Errors
    /// When Redis or Shortstop is missing, or when anything installed does not come up.
    pub fn start(
        kinds: &[Kind],
        plan: Plan,
        rounds: usize,
        cores: Cores,
        folder: &'a Path,
        trust: &'a Trust,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, RunError> {
        let mut results = Results { head: head(plan, rounds), depths: DEPTHS.to_vec(), ..Results::default() };
        let before = CoreTimes::now();
        std::thread::sleep(LOOK);
        let busy = CoreTimes::now().busy_since(&before, cores.server);
        if busy > BUSY_ALREADY {
            let text = format!("Other work took {:.0} % of the servers' core before the start.", busy * 100.0);
            remark(&mut results, text);
        }

        let starter = Starter { folder, trust, cores };
        let redis = starter.start(Kind::Redis, nowhere())?;
        load_keys(&redis)?;
        let mut proxies = Vec::new();
        for &kind in kinds.iter().filter(|kind| **kind != Kind::Redis) {
            match starter.start(kind, redis.addr) {
                Ok(server) => {
                    if kind == Kind::RedisTls {
                        load_keys(&server)?;
                    }
                    proxies.push(server);
                }
                Err(ServerError::Missing(program)) => {
                    remark(
                        &mut results,
                        format!("MISSING: {program} is not installed, so {} is left out.", kind.label()),
                    );
                }
                Err(error) => return Err(error.into()),
            }
        }
        let compare_redis = kinds.contains(&Kind::Redis);
        Ok(Self { starter, plan, rounds, stop, redis, compare_redis, proxies, results })
    }

    /// Measures everything.
    ///
    /// # Errors
    /// At the first wrong reply, hung or dead server, or signal.
    pub fn finish(mut self) -> Result<Results, RunError> {
        for server in self.proxies.iter().filter(|server| server.kind == Kind::ShortstopNats) {
            wait_until_live(server, &mut self.results)?;
        }
        for round in 0..self.rounds {
            for depth in DEPTHS {
                for workload in [Workload::Get, Workload::Set] {
                    self.side_by_side(round, workload, depth)?;
                }
            }
        }
        self.ceiling()?;
        self.idle_connections()?;
        let disturbed = self.results.cells.iter().filter(|cell| cell.sample.disturbed > DISTURBED).count();
        if disturbed > 0 {
            let text =
                format!("Other work had the generator's core in {disturbed} of {} cells.", self.results.cells.len());
            remark(&mut self.results, text);
        }
        Ok(self.results)
    }

    /// One cell for each server, right after each other. Each round begins with another server, so that none always
    /// follows the same one.
    fn side_by_side(&mut self, round: usize, workload: Workload, depth: usize) -> Result<(), RunError> {
        let batches = Batches::new(workload, depth);
        let redis = self.compare_redis.then_some(&self.redis);
        let measured = |server: &&Server| is_measured(server.kind, workload, depth);
        let mut servers: Vec<&Server> = redis.into_iter().chain(&self.proxies).filter(measured).collect();
        let first = round % servers.len().max(1);
        servers.rotate_left(first);
        for server in servers {
            let before = prepare(server, workload)?;
            let sample = self.measure(server, self.plan, &batches)?;
            eprintln!(
                "round {}/{}  {} pipeline {depth:<2}  {:<17} {:>6.0} k/s  p50 {:>6.0} µs  p99 {:>6.0} µs  cpu {:>6.0} ns{}",
                round + 1,
                self.rounds,
                workload.label(),
                server.kind.name(),
                sample.rate / 1e3,
                sample.p50.as_secs_f64() * 1e6,
                sample.p99.as_secs_f64() * 1e6,
                sample.cost.map_or(f64::NAN, Processes::total),
                if sample.disturbed > DISTURBED { "  (disturbed)" } else { "" },
            );
            look_back(server, workload, depth, &before, &sample, &mut self.results)?;
            self.results.cells.push(Cell { round, kind: server.kind, workload, depth, sample });
        }
        Ok(())
    }

    fn measure(&self, server: &Server, plan: Plan, batches: &Batches) -> Result<Sample, RunError> {
        let subject = Subject {
            addr: server.tls.unwrap_or(server.addr),
            trust: server.tls.map(|_| self.starter.trust),
            processes: server.processes(&self.redis),
            cores: self.starter.cores,
        };
        load::run(subject, plan, batches, &self.stop).map_err(|error| RunError::Load {
            name: server.kind.name(),
            workload: batches.wording.workload().label(),
            depth: batches.depth,
            error,
        })
    }

    /// The generator against a server that does no work, once and briefly: a rough figure says enough.
    fn ceiling(&mut self) -> Result<(), RunError> {
        for workload in [Workload::Get, Workload::Set] {
            let kind = Kind::StandIn(workload);
            let server = self.starter.start(kind, nowhere())?;
            for depth in DEPTHS {
                let batches = Batches::new(workload, depth);
                let sample = self.measure(&server, CEILING, &batches)?;
                self.results.cells.push(Cell { round: 0, kind, workload, depth, sample });
            }
        }
        Ok(())
    }

    /// In processes of their own: one that has been under load has memory to spare, which would hide the growth.
    fn idle_connections(&mut self) -> Result<(), RunError> {
        let redis = self.compare_redis.then_some(Kind::Redis);
        let kinds = redis.into_iter().chain(self.proxies.iter().map(|server| server.kind));
        let whole = [Kind::Redis, Kind::Twemproxy, Kind::Haproxy, Kind::Shortstop];
        for kind in kinds.filter(|kind| whole.contains(kind)) {
            eprintln!("idle connections: {}", kind.label());
            let server = self.starter.start(kind, self.redis.addr)?;
            if kind == Kind::Redis {
                load_keys(&server)?;
            }
            let bytes = idle::bytes_per_connection(&server).map_err(named(kind))?;
            self.results.idle.extend(bytes.map(|bytes| (kind, bytes)));
        }
        Ok(())
    }
}

/// Fills L1 where the cell is about it (entries of an earlier cell may be about to reach their deadline, and SETs have
/// dropped them), and returns the counters as they stand before the cell.
fn prepare(server: &Server, workload: Workload) -> Result<HashMap<String, String>, RunError> {
    if !server.kind.is_shortstop() {
        return Ok(HashMap::new());
    }
    let warm = |plain: &mut Plain| {
        if server.kind.has_l1() && workload == Workload::Get {
            plain.ask(&["PROXY", "FLUSH"])?;
            let every_key = Batches::new(Workload::Get, WALK_DEPTH);
            for _ in 0..WARM_WALKS {
                plain.walk(&every_key)?;
            }
        }
        plain.proxy_info()
    };
    Plain::connect(server.addr).and_then(|mut plain| warm(&mut plain)).map_err(named(server.kind))
}

/// Whether the cell measured what its row says: hits where L1 is on, none where it is off, messages where there is NATS.
fn look_back(
    server: &Server,
    workload: Workload,
    depth: usize,
    before: &HashMap<String, String>,
    sample: &Sample,
    results: &mut Results,
) -> Result<(), RunError> {
    if !server.kind.is_shortstop() {
        return Ok(());
    }
    let after = Plain::connect(server.addr).and_then(|mut plain| plain.proxy_info()).map_err(named(server.kind))?;
    let counter = |fields: &HashMap<String, String>, name: &str| fields.get(name)?.parse::<u64>().ok();
    let share = |name: &str| {
        let grown = counter(&after, name)?.saturating_sub(counter(before, name)?);
        Some(grown as f64 / sample.replies.max(1) as f64)
    };
    let (name, wanted) = match workload {
        Workload::Get if server.kind.has_l1() => ("l1_hits", HITS_AT_LEAST..=f64::MAX),
        Workload::Get => ("l1_hits", 0.0..=0.0),
        Workload::Set if server.kind == Kind::ShortstopNats => {
            ("invalidations_published", f64::MIN_POSITIVE..=f64::MAX)
        }
        Workload::Set => return Ok(()),
    };
    let cell = format!("{}, {}, pipeline {depth}", server.kind.label(), workload.label());
    match share(name) {
        Some(share) if wanted.contains(&share) => {}
        Some(share) => {
            remark(results, format!("{cell}: {name} grew by {share:.3} per request: not what the row says."))
        }
        None => remark(results, format!("{cell}: PROXY INFO has no {name}, so the row is unchecked.")),
    }
    Ok(())
}

/// What is left out keeps the run to about six minutes: with L1 off a SET goes the same way as with it on; what is there for
/// information is looked at where most targets are.
fn is_measured(kind: Kind, workload: Workload, depth: usize) -> bool {
    match kind {
        Kind::ShortstopL1Off => workload == Workload::Get,
        Kind::ShortstopNats => workload == Workload::Set || depth == 16,
        Kind::TwemproxySmallBuffers => depth == 16,
        Kind::RedisTls | Kind::ShortstopTls => depth <= 16,
        Kind::Floor(only) => workload == only && depth == 16,
        _ => true,
    }
}

/// Until then it would serve nothing from L1.
fn wait_until_live(server: &Server, results: &mut Results) -> Result<(), RunError> {
    let mut plain = Plain::connect(server.addr).map_err(named(server.kind))?;
    let deadline = Instant::now() + LIVE_WITHIN;
    loop {
        let info = plain.proxy_info().map_err(named(server.kind))?;
        let mode = info.get("mode").map_or("", String::as_str);
        if mode == "live" {
            return Ok(());
        }
        if Instant::now() > deadline {
            remark(results, format!("{} stays in mode {mode:?} instead of live.", server.kind.label()));
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn load_keys(redis: &Server) -> Result<(), RunError> {
    let every_key = Batches::new(Workload::Set, WALK_DEPTH);
    Plain::connect(redis.addr).and_then(|mut plain| plain.walk(&every_key)).map_err(named(redis.kind))
}

fn named(kind: Kind) -> impl Fn(PlainError) -> RunError {
    move |error| RunError::Plain { name: kind.name(), error }
}

/// The upstream of servers that have none.
fn nowhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Into the page, and at once to whoever is watching. Once only, though a cell may say it in every round.
fn remark(results: &mut Results, text: String) {
    if !results.remarks.contains(&text) {
        eprintln!("!!! {text}");
        results.remarks.push(text);
    }
}

fn head(plan: Plan, rounds: usize) -> Vec<String> {
    vec![
        format!("{} (UTC), {}", machine::today(), machine::description()),
        servers::versions().join(", "),
        format!(
            "{} connections, {KEYS} keys, values of {VALUE_LEN} bytes; interleaved rounds: {rounds}, per cell {} s of warm-up and {} s \
             measured; medians",
            plan.connections,
            plan.warm_up.as_secs_f64(),
            plan.measure.as_secs_f64(),
        ),
        "all servers on one core (a proxy shares it with the Redis behind it), the load generator on another".into(),
    ]
}
