//! `shortstop decompress`: leaves no compressed value in Redis, without a running Shortstop. Says how far it is, and what is left.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::{Config, Live};
use crate::upstream::Dialer;
use crate::upstream::plain::{self, Plain};

use super::run::{Counts, run};

/// Interval of lines about the progress.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// What to do.
pub struct Options {
    /// A Redis glob pattern of the keys.
    pub pattern: String,
    /// In which database. `None`: in all that have keys.
    pub db: Option<u32>,
    /// Values per second at most.
    pub rate: usize,
}

/// Turns the values to plain in the Redis of this configuration.
pub fn decompress(config: &Config, options: &Options) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let counts = Counts::default();
    let began = Instant::now();
    let done = runtime.and_then(|runtime| runtime.block_on(run_all(config, options, &counts)));
    say(summary(&counts, began.elapsed()));
    match done {
        Err(error) => {
            say(format_args!("it could not go on: {error}. It may be run again"));
            ExitCode::FAILURE
        }
        Ok(()) if counts.left() > 0 => {
            for key in counts.left_keys() {
                say(format_args!("still compressed: {}", key.escape_ascii()));
            }
            ExitCode::FAILURE
        }
        Ok(()) => ExitCode::SUCCESS,
    }
}

async fn run_all(config: &Config, options: &Options, counts: &Counts) -> io::Result<()> {
    let dialer = Dialer::new(config.upstream.clone(), &config.upstream_tls, Live::new(config.timeouts));
    let dialer: Arc<Dialer> = dialer.map_err(io::Error::other)?;
    let address = plain::find(&dialer).await?;
    let mut redis = Plain::open(&dialer, &address, config.limits.max_inflated).await?;
    redis.refuse_shortstop().await?;
    let databases = match options.db {
        Some(db) => vec![db],
        None => redis.databases().await?.into_iter().map(|(db, _)| db).collect(),
    };
    let told = async {
        let mut ticks = tokio::time::interval(TELL_EVERY);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let [scanned, done] = [&counts.scanned, &counts.decompressed].map(|count| count.load(Ordering::Relaxed));
            say(format_args!("{scanned} keys looked at, {done} values turned to plain"));
        }
    };
    let all = async {
        for db in databases {
            redis.select(db).await?;
            run(&mut redis, options.pattern.as_bytes(), || options.rate, counts).await?;
        }
        Ok(())
    };
    tokio::select! {
        done = all => done,
        () = told => Ok(()),
        _ = tokio::signal::ctrl_c() => Err(io::Error::other("it was stopped")),
    }
}

fn summary(counts: &Counts, took: Duration) -> String {
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let mut text = format!(
        "{} keys of strings looked at, {} values turned to plain ({} -> {} bytes) in {:.1} s",
        of(&counts.scanned),
        of(&counts.decompressed),
        of(&counts.bytes_before),
        of(&counts.bytes_after),
        took.as_secs_f64()
    );
    for (count, why) in [
        (&counts.look_compressed, "stay, because their plain form begins like a compressed value"),
        (&counts.damaged, "stay, because they cannot be decompressed"),
        (&counts.changing, "stay, because they changed at each attempt: run it again"),
        (&counts.refused, "stay, because the user has no right to them"),
    ] {
        if of(count) > 0 {
            text.push_str(&format!("; {} {why}", of(count)));
        }
    }
    text
}

/// Writes a line on standard error. If that fails, nothing else changes.
fn say(what: impl Display) {
    let _ = writeln!(io::stderr(), "shortstop: {what}");
}
