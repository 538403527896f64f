//! What `make demo` shows: market data flowing through two Shortstops that share one Redis and one NATS,
//! a line each second about both, and every few seconds one invalidation on its way from one to the other,
//! timed. It speaks plain RESP and knows nothing of Shortstop but its address and `PROXY INFO`.
//!
//! It must not be taken for a benchmark: its load is paced, and it shares the machine with all it talks to.

mod client;
mod crossing;
mod market;
mod report;
mod traffic;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use client::Client;
use report::{Report, Side};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

/// Two Shortstops at work, in the terminal.
#[derive(Parser)]
struct Args {
    /// The first Shortstop, host:port.
    #[arg(long)]
    a: String,
    /// The second Shortstop, host:port; the same Redis and NATS behind it.
    #[arg(long)]
    b: String,
    /// Stop after so many seconds; without it: at Ctrl-C.
    #[arg(long)]
    seconds: Option<u64>,
    /// Reads per second, over both.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    reads_per_second: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<ExitCode, client::ClientError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let started = Instant::now();
    traffic::fill(&mut Client::connect(&args.a).await?).await?;

    let sides = [Side::new("A", &args.a), Side::new("B", &args.b)];
    let mut tasks = tokio::task::JoinSet::new();
    for (seed, side) in (1..).zip(&sides) {
        let paced = traffic::Pace { reads_per_second: args.reads_per_second / 2, writes_per_second: WRITES_PER_SECOND };
        traffic::start(&mut tasks, side.address.clone(), Arc::clone(&side.traffic), paced, seed);
    }

    let (crossed, mut crossings) = tokio::sync::mpsc::channel(16);
    tasks.spawn(crossing::repeat(args.a.clone(), args.b.clone(), crossed));

    let mut report = Report::new(sides, started);
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    tick.tick().await;
    // Without --seconds the timer is set so far ahead that it does not matter.
    let limit = tokio::time::sleep(args.seconds.map_or(Duration::from_secs(u32::MAX.into()), Duration::from_secs));
    tokio::pin!(limit);
    loop {
        tokio::select! {
            _ = tick.tick() => report.second().await,
            Some(crossing) = crossings.recv() => report.crossing(crossing),
            () = &mut limit => break,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    tasks.shutdown().await;
    Ok(report.end())
}

/// Writes per second through each of the two.
const WRITES_PER_SECOND: u64 = 40;
