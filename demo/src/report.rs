//! What the terminal shows: a line each second, made of the demo's own counts and of `PROXY INFO`, a line for
//! each crossing, and a summary. It must not disturb the load: one `PROXY INFO` per second and Shortstop.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::crossing::Crossing;
use crate::market::SHOWN;
use crate::traffic::Traffic;

/// The heading comes again after so many lines.
const HEADING_EVERY: u64 = 15;

/// One Shortstop, as the report sees it.
pub struct Side {
    name: &'static str,
    /// host:port.
    pub address: String,
    /// What the load counts.
    pub traffic: Arc<Traffic>,
    status: Option<Client>,
    before: Info,
    reads_before: u64,
    errors_before: u64,
}

impl Side {
    /// Nothing is connected yet.
    pub fn new(name: &'static str, address: &str) -> Self {
        Self {
            name,
            address: address.to_owned(),
            traffic: Arc::default(),
            status: None,
            before: Info::default(),
            reads_before: 0,
            errors_before: 0,
        }
    }

    /// `PROXY INFO`; empty when there is no answer. The connection is made again at the next second.
    async fn info(&mut self) -> Info {
        let mut client = match self.status.take() {
            Some(client) => client,
            None => match Client::connect(&self.address).await {
                Ok(client) => client,
                Err(_) => return Info::default(),
            },
        };
        match client.value(&[b"PROXY", b"INFO"]).await {
            Ok(Some(text)) => {
                self.status = Some(client);
                Info::parse(&String::from_utf8_lossy(&text))
            }
            _ => Info::default(),
        }
    }

    /// The last second.
    async fn second(&mut self) -> Row {
        let now = self.info().await;
        let reads = self.traffic.reads.load(Ordering::Relaxed);
        let errors = self.traffic.errors.load(Ordering::Relaxed);
        let row = Row {
            reads: reads - self.reads_before,
            hit_rate: share(now.since(&self.before, "l1_hits"), now.since(&self.before, "l1_misses")),
            saved: now.number("compression_saved_bytes"),
            published: now.since(&self.before, "invalidations_published"),
            received: now.since(&self.before, "invalidations_received"),
            mode: now.0.get("mode").cloned(),
            errors: errors - self.errors_before,
        };
        self.reads_before = reads;
        self.errors_before = errors;
        if !now.0.is_empty() {
            self.before = now;
        }
        row
    }
}

struct Row {
    reads: u64,
    hit_rate: Option<f64>,
    saved: Option<u64>,
    published: Option<u64>,
    received: Option<u64>,
    mode: Option<String>,
    errors: u64,
}

/// The fields of an INFO reply: `name:value` lines, `#` lines apart.
#[derive(Default)]
struct Info(HashMap<String, String>);

impl Info {
    fn parse(text: &str) -> Self {
        Self(
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
        )
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.parse().ok()
    }

    /// How much a counter grew; from 0 when the Shortstop was restarted between.
    fn since(&self, before: &Self, name: &str) -> Option<u64> {
        let now = self.number(name)?;
        let then = before.number(name).unwrap_or(0);
        Some(now.checked_sub(then).unwrap_or(now))
    }
}

/// Everything that was shown, for the summary.
pub struct Report {
    sides: [Side; 2],
    started: Instant,
    lines: u64,
    seen: Vec<Duration>,
    failed: u64,
    backwards: usize,
}

impl Report {
    /// `started`: since when the counters run.
    pub fn new(sides: [Side; 2], started: Instant) -> Self {
        Self { sides, started, lines: 0, seen: Vec::new(), failed: 0, backwards: 0 }
    }

    /// Prints one line about the last second.
    pub async fn second(&mut self) {
        let [a, b] = &mut self.sides;
        let (row_a, row_b) = tokio::join!(a.second(), b.second());
        if self.lines.is_multiple_of(HEADING_EVERY) {
            println!("        ┌────── reads/s ─────┬───── hit rate ────┬─ saved by ──┬── invalidations/s ──────┐");
            println!("      s │        A         B │      A         B  │ compression │ A sent/rcvd  B sent/rcvd │");
        }
        self.lines += 1;
        let saved = row_a.saved.zip(row_b.saved).map(|(a, b)| a + b);
        println!(
            "  {:>5} │ {:>8}  {:>8} │ {:>7}   {:>7} │ {:>11} │ {:>5}/{:<5}  {:>5}/{:<5}  │{}{}",
            self.started.elapsed().as_secs(),
            row_a.reads,
            row_b.reads,
            percent(row_a.hit_rate),
            percent(row_b.hit_rate),
            saved.map_or_else(|| "?".to_owned(), size),
            unknown(row_a.published),
            unknown(row_a.received),
            unknown(row_b.published),
            unknown(row_b.received),
            remark(a, &row_a),
            remark(b, &row_b),
        );
    }

    /// Prints one crossing.
    pub fn crossing(&mut self, crossing: Crossing) {
        match crossing {
            Crossing::Seen { from_a, version, written, seen, backwards } => {
                let (from, to) = if from_a { ("A", "B") } else { ("B", "A") };
                println!(
                    "  {from} ─▶ {to} │ {SHOWN} v{version} written on {from} (answered after {}), new on {to} after {}",
                    millis(written),
                    millis(seen)
                );
                if backwards > 0 {
                    println!("         │ WRONG: {backwards} reads on {to} after that gave an older value");
                }
                self.seen.push(seen);
                self.backwards += backwards;
            }
            Crossing::Failed(why) => {
                println!("  A ╳ B  │ no crossing shown: {why}");
                self.failed += 1;
            }
        }
    }

    /// Prints the summary. Fails when a client saw time run backwards.
    pub fn end(&mut self) -> ExitCode {
        println!();
        for side in &self.sides {
            let hits = side.before.number("l1_hits");
            let misses = side.before.number("l1_misses");
            println!(
                "{}: {} reads, {} of them from memory, {} saved by compression, {} errors",
                side.name,
                side.traffic.reads.load(Ordering::Relaxed),
                percent(share(hits, misses)),
                side.before.number("compression_saved_bytes").map_or_else(|| "?".to_owned(), size),
                side.traffic.errors.load(Ordering::Relaxed),
            );
        }
        self.seen.sort_unstable();
        if let (Some(median), Some(longest)) = (self.seen.get(self.seen.len() / 2), self.seen.last()) {
            println!(
                "{} invalidations shown crossing over: median {}, longest {}; {} not shown; {} reads went back in time",
                self.seen.len(),
                millis(*median),
                millis(*longest),
                self.failed,
                self.backwards,
            );
        }
        if self.backwards > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// What is out of the ordinary.
fn remark(side: &Side, row: &Row) -> String {
    let mut remark = String::new();
    match row.mode.as_deref() {
        Some("live") => {}
        Some(mode) => remark.push_str(&format!(" {}: {mode}", side.name)),
        None => remark.push_str(&format!(" {}: no PROXY INFO", side.name)),
    }
    if row.errors > 0 {
        let last = side.traffic.take_error().unwrap_or_default();
        remark.push_str(&format!(" {}: {} errors ({last})", side.name, row.errors));
    }
    remark
}

fn share(part: Option<u64>, rest: Option<u64>) -> Option<f64> {
    let (part, rest) = (part?, rest?);
    let all = part + rest;
    (all > 0).then(|| part as f64 / all as f64)
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "?".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

fn unknown(number: Option<u64>) -> String {
    number.map_or_else(|| "?".to_owned(), |number| number.to_string())
}

fn millis(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MB", bytes as f64 / 1_048_576.0),
    }
}
