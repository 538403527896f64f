//! `make bench`: Redis, twemproxy, HAProxy and Shortstop side by side in one run, every server on one core and the load
//! generator on another, in interleaved rounds. Prints a page and, after a full run, keeps it in `benches/RESULTS.md`.
//! Says what is reached and what is missed; a wrong reply anywhere fails the run.
//!
//! A proxy shares its core with the Redis behind it, so "through" is the cost of both; what of it each took is shown as
//! CPU time per request. What it does not measure: several cores, networks, values that are compressed, and
//! allocations.
//!
//! This file holds the options and the exit codes; [`run`] the order of things.

mod floor;
mod front;
mod histogram;
mod idle;
mod load;
mod machine;
mod plain;
mod report;
mod run;
mod secure;
mod servers;
mod stand_in;
mod wire;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;

use crate::load::{LoadError, Plan};
use crate::machine::Cores;
use crate::report::Results;
use crate::run::{Run, RunError};
use crate::secure::Trust;
use crate::servers::Kind;
use crate::wire::Workload;

const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/RESULTS.md");
/// Fewer do not make a median; a run with fewer is not kept.
const ROUNDS: usize = 3;
const FULL: Plan = Plan { connections: 50, warm_up: Duration::from_secs(1), measure: Duration::from_secs(2) };
const QUICK: Plan = Plan { connections: 50, warm_up: Duration::from_millis(300), measure: Duration::from_millis(700) };

/// Compares Shortstop with Redis direct, twemproxy and HAProxy.
#[derive(Parser)]
#[command(name = "compare")]
struct Options {
    /// One short round (less than a minute) for a first look; nothing is kept.
    #[arg(long)]
    quick: bool,
    /// Only servers whose name begins with one of these: redis, twemproxy, twemproxy-small, haproxy,
    /// shortstop-default, shortstop-l1-off, shortstop-nats, tls-redis, tls-shortstop, floor; nothing is kept.
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    only: Vec<String>,
    /// Rounds over all servers; with fewer than 3 nothing is kept.
    #[arg(long, default_value_t = ROUNDS, value_name = "N")]
    rounds: usize,
    /// Exit with 2 when a target is missed or could not be looked at.
    #[arg(long)]
    strict: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the server that does no work.
    #[arg(long, hide = true, ignore_case = true)]
    stand_in: Option<Workload>,
    /// Be the proxy that does no thinking.
    #[arg(long, hide = true, ignore_case = true, requires = "upstream")]
    floor: Option<Workload>,
    /// The Redis behind the floor.
    #[arg(long, hide = true)]
    upstream: Option<SocketAddr>,
    /// `cargo bench <filter>`.
    #[arg(hide = true)]
    filters: Vec<String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(served) = serve(&options) {
        return served.map_or_else(
            |error| {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            },
            |()| ExitCode::SUCCESS,
        );
    }
    // `cargo test --all-targets` starts every bench without `--bench`: minutes of load are not what it wants.
    if !options.bench {
        eprintln!("nothing measured: start it with `make bench` or `cargo bench --bench compare`");
        return ExitCode::SUCCESS;
    }
    if !options.filters.is_empty() && !options.filters.iter().any(|filter| "compare".contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    match compare(&options) {
        Ok(results) => finish(&options, &results),
        Err(RunError::Load { error: LoadError::Interrupted, .. }) => {
            eprintln!("interrupted: all servers are stopped, nothing is kept");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The servers that this program can be itself; `None` when it is to measure.
fn serve(options: &Options) -> Option<std::io::Result<()>> {
    match (options.stand_in, options.floor.zip(options.upstream)) {
        (Some(workload), _) => Some(stand_in::serve(workload)),
        (None, Some((workload, redis))) => Some(floor::serve(workload, redis)),
        (None, None) => None,
    }
}

/// The whole run. All servers are stopped when it returns.
fn compare(options: &Options) -> Result<Results, RunError> {
    if !wire::checker_works() {
        return Err(RunError::Checker);
    }
    // Starts this program again unless it is pinned already.
    let cores = Cores::pinned()?;
    let unknown = |name: &&String| !Kind::ALL.iter().any(|kind| kind.name().starts_with(name.as_str()));
    if let Some(name) = options.only.iter().find(unknown) {
        return Err(RunError::NoSuchServer(name.clone()));
    }
    let chosen =
        |kind: &Kind| options.only.is_empty() || options.only.iter().any(|name| kind.name().starts_with(name.as_str()));
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(chosen).collect();
    let folder = tempfile::tempdir().map_err(RunError::Folder)?;
    let trust = Trust::new(folder.path()).map_err(RunError::Folder)?;
    let (plan, rounds) = if options.quick { (QUICK, 1) } else { (FULL, options.rounds.max(1)) };
    Run::start(&kinds, plan, rounds, cores, folder.path(), &trust, stop_on_signal())?.finish()
}

fn finish(options: &Options, results: &Results) -> ExitCode {
    let page = results.page();
    println!("\n{page}");
    if options.quick || !options.only.is_empty() || options.rounds < ROUNDS {
        eprintln!("(not a full run: benches/RESULTS.md stays as it is)");
    } else if let Err(error) = std::fs::write(RESULTS, page) {
        eprintln!("error: benches/RESULTS.md: {error}");
        return ExitCode::FAILURE;
    } else {
        eprintln!("kept in benches/RESULTS.md");
    }
    if options.strict && results.all_met() != Some(true) { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

/// A flag that Ctrl-C or SIGTERM sets, so that the run ends by way of its destructors, which stop the servers.
fn stop_on_signal() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        // Without the two, a signal ends this process at once, and the kernel ends the servers with it (setpriv).
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
            let Ok(mut terminate) = terminate else { return };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            flag.store(true, Ordering::Relaxed);
        });
    });
    stop
}
