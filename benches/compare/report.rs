//! Turns what was measured into the page that is printed and kept: medians, ratios within a round, the targets and
//! whether they are met. Pure: samples in, text out.

use std::time::Duration;

use crate::load::Sample;
use crate::servers::Kind;
use crate::wire::Workload;

/// One cell of one round.
pub struct Cell {
    /// From 0.
    pub round: usize,
    /// Against what.
    pub kind: Kind,
    /// What was asked.
    pub workload: Workload,
    /// Requests per write.
    pub depth: usize,
    /// What it gave.
    pub sample: Sample,
}

/// All that a run found.
#[derive(Default)]
pub struct Results {
    /// Lines for the head: date, machine, versions, settings.
    pub head: Vec<String>,
    /// Depths in the order of the columns.
    pub depths: Vec<usize>,
    /// In the order of measuring.
    pub cells: Vec<Cell>,
    /// Bytes per idle connection.
    pub idle: Vec<(Kind, f64)>,
    /// What the reader must know before trusting a figure: missing rivals, a busy machine, GETs that missed L1.
    pub remarks: Vec<String>,
}

/// Of one ratio, over the rounds.
struct Spread {
    median: f64,
    lowest: f64,
    highest: f64,
}

/// What a ratio is made of: more is better.
type Yardstick = fn(&Sample) -> Option<f64>;

fn rate(sample: &Sample) -> Option<f64> {
    Some(sample.rate)
}

/// Requests per nanosecond of CPU time, everybody's who had a part in them.
fn thrift(sample: &Sample) -> Option<f64> {
    sample.cost.map(|cost| cost.total().recip()).filter(|value| value.is_finite())
}

/// A ratio that the product must reach.
struct Target {
    what: &'static str,
    ours: Kind,
    workload: Workload,
    rival: Kind,
    depth: usize,
    at_least: f64,
}

impl Target {
    /// Only what goes through to Redis has a floor.
    fn floor(&self) -> Option<Kind> {
        (self.rival != Kind::Redis).then_some(Kind::Floor(self.workload))
    }

    fn wanted(&self) -> String {
        format!("≥ {:.1} × {}", self.at_least, self.rival.label())
    }

    fn name(&self) -> String {
        format!("{}, pipeline {}", self.what, self.depth)
    }
}

const TARGETS: [Target; 7] = [
    target("GET from L1", Kind::Shortstop, Workload::Get, Kind::Redis, 1, 1.0),
    target("GET from L1", Kind::Shortstop, Workload::Get, Kind::Redis, 16, 1.3),
    target("GET from L1", Kind::Shortstop, Workload::Get, Kind::Redis, 64, 1.8),
    target("SET through", Kind::Shortstop, Workload::Set, Kind::Twemproxy, 16, 2.0),
    target("SET through", Kind::Shortstop, Workload::Set, Kind::Haproxy, 16, 1.3),
    target("GET through, L1 off", Kind::ShortstopL1Off, Workload::Get, Kind::Twemproxy, 16, 3.0),
    target("GET through, L1 off", Kind::ShortstopL1Off, Workload::Get, Kind::Haproxy, 16, 1.3),
];
/// Bytes of resident memory.
const IDLE_AT_MOST: f64 = 8192.0;

const fn target(
    what: &'static str,
    ours: Kind,
    workload: Workload,
    rival: Kind,
    depth: usize,
    at_least: f64,
) -> Target {
    Target { what, ours, workload, rival, depth, at_least }
}

impl Results {
    /// The page, in Markdown that also reads well in a terminal.
    pub fn page(&self) -> String {
        let mut page =
            String::from("# How fast: the last full run\n\nWritten by `make bench`; an edit here is lost.\n\n");
        for line in &self.head {
            page.push_str(&format!("- {line}\n"));
        }
        if !self.remarks.is_empty() {
            page.push_str("\n## Beware\n\n");
            for remark in &self.remarks {
                page.push_str(&format!("- {remark}\n"));
            }
        }
        page.push_str(
            "\n## Targets\n\nA ratio is the median of the ratios within each round; lowest and highest in brackets. The floor is a \
             proxy that passes bytes on without looking at them, over one connection to the same Redis: where its ratio is \
             below what is wanted, the kernel's sockets and the Redis behind hardly leave a proxy the room to get there on \
             this machine.\n\n",
        );
        page.push_str(&self.targets());
        page.push_str(
            "\n## A second yardstick: the same targets by CPU time\n\nCPU time per request of the rival and the Redis \
             behind it ÷ that of Shortstop and the Redis behind it; more is better. Other work on the machine takes \
             away from rates, but much less is charged to a process that is not running. What counts is the table \
             above.\n\n",
        );
        page.push_str(&self.targets_by_cost());
        for workload in [Workload::Get, Workload::Set] {
            page.push_str(&format!(
                "\n## {}: thousands per second (× Redis direct in the same round)\n\n",
                workload.label()
            ));
            page.push_str(&self.by_depth(workload, Self::rate_text));
        }
        page.push_str(
            "\n## CPU time per request, ns: in all (proxy user + system / Redis user + system)\n\nWith NATS, the NATS server is \
             third. The sum is exact; what is user and what is system is sampled by the kernel. What the kernel does to \
             receive over loopback is charged to the sender, so the generator's part is not in it.\n\n",
        );
        for workload in [Workload::Get, Workload::Set] {
            page.push_str(&self.by_depth(workload, Self::cost_text));
            page.push('\n');
        }
        page.push_str("## Shortstop against each: ratios of requests per second\n\n");
        page.push_str(&self.against_each());
        for workload in [Workload::Get, Workload::Set] {
            page.push_str(&format!(
                "\n## {}: from the write of a batch to its last reply, p50 / p99 in µs\n\n",
                workload.label()
            ));
            page.push_str(&self.by_depth(workload, Self::latency_text));
        }
        page.push_str(
            "\n## How busy: the servers' core / the generator's core, in %\n\nWhere the second is near 100 and the first \
             is not, the figure is the generator's, not the server's. The line of the server that does no work is the \
             generator's own ceiling.\n\n",
        );
        for workload in [Workload::Get, Workload::Set] {
            page.push_str(&self.by_depth(workload, Self::busy_text));
            page.push('\n');
        }
        page.push_str("## Resident memory per idle connection\n\n");
        let rows = self.idle.iter().map(|(kind, bytes)| vec![kind.label().into(), kibibytes(*bytes)]).collect();
        page.push_str(&table(&["server", "KiB"], rows));
        page
    }

    /// `None` when a target could not be looked at, else whether all are met.
    pub fn all_met(&self) -> Option<bool> {
        let ratios = TARGETS.iter().map(|target| self.met(target));
        let idle = self.idle_of(Kind::Shortstop).map(|bytes| bytes <= IDLE_AT_MOST);
        ratios.chain([idle]).collect::<Option<Vec<bool>>>().map(|all| all.into_iter().all(|met| met))
    }

    fn met(&self, target: &Target) -> Option<bool> {
        let spread = self.of_target(target, target.ours, rate)?;
        Some(spread.median >= target.at_least)
    }

    /// The ratio that a target is about, with this one in our place.
    fn of_target(&self, target: &Target, ours: Kind, by: Yardstick) -> Option<Spread> {
        self.ratio(ours, target.rival, target.workload, target.depth, by)
    }

    fn floor_text(&self, target: &Target, by: Yardstick) -> String {
        let spread = target.floor().and_then(|floor| self.of_target(target, floor, by));
        spread.map_or_else(|| "–".into(), |of| format!("{:.2}", of.median))
    }

    fn idle_of(&self, kind: Kind) -> Option<f64> {
        self.idle.iter().find(|(of, _)| *of == kind).map(|(_, bytes)| *bytes)
    }

    fn targets(&self) -> String {
        let mut rows: Vec<Vec<String>> = TARGETS
            .iter()
            .map(|target| {
                vec![
                    target.name(),
                    target.wanted(),
                    spread_text(self.of_target(target, target.ours, rate)),
                    self.floor_text(target, rate),
                    verdict(self.met(target)),
                ]
            })
            .collect();
        let idle = self.idle_of(Kind::Shortstop);
        rows.push(vec![
            "resident memory per idle connection".into(),
            format!("≤ {} KiB", kibibytes(IDLE_AT_MOST)),
            idle.map_or_else(|| "not measured".into(), |bytes| format!("{} KiB", kibibytes(bytes))),
            "–".into(),
            verdict(idle.map(|bytes| bytes <= IDLE_AT_MOST)),
        ]);
        table(&["what", "wanted", "measured", "the floor", "met"], rows)
    }

    fn targets_by_cost(&self) -> String {
        let rows = TARGETS
            .iter()
            .map(|target| {
                vec![
                    target.name(),
                    target.wanted(),
                    spread_text(self.of_target(target, target.ours, thrift)),
                    self.floor_text(target, thrift),
                ]
            })
            .collect();
        table(&["what", "wanted by rate", "by CPU time", "the floor"], rows)
    }

    fn against_each(&self) -> String {
        let rivals = &[Kind::Redis, Kind::Twemproxy, Kind::TwemproxySmallBuffers, Kind::Haproxy][..];
        let rows = [
            ("GET from L1", Kind::Shortstop, Workload::Get, rivals),
            ("GET from L1, with NATS", Kind::ShortstopNats, Workload::Get, rivals),
            ("GET through, L1 off", Kind::ShortstopL1Off, Workload::Get, rivals),
            ("SET through", Kind::Shortstop, Workload::Set, rivals),
            ("SET through and published on NATS", Kind::ShortstopNats, Workload::Set, rivals),
            // The cost of TLS: Shortstop's beside Redis's own.
            ("GET from L1, TLS", Kind::ShortstopTls, Workload::Get, &[Kind::RedisTls, Kind::Shortstop]),
            ("SET through, TLS", Kind::ShortstopTls, Workload::Set, &[Kind::RedisTls, Kind::Shortstop]),
            ("GET from Redis, TLS", Kind::RedisTls, Workload::Get, &[Kind::Redis]),
            ("SET to Redis, TLS", Kind::RedisTls, Workload::Set, &[Kind::Redis]),
        ];
        let mut lines = Vec::new();
        for (what, ours, workload, rivals) in rows {
            for &rival in rivals {
                let ratios: Vec<Option<Spread>> =
                    self.depths.iter().map(|&depth| self.ratio(ours, rival, workload, depth, rate)).collect();
                if ratios.iter().any(Option::is_some) {
                    let mut line = vec![format!("{what} ÷ {}", rival.label())];
                    line.extend(
                        ratios
                            .iter()
                            .map(|ratio| ratio.as_ref().map_or_else(|| "–".into(), |of| format!("{:.2}", of.median))),
                    );
                    lines.push(line);
                }
            }
        }
        self.table_by_depth("", lines)
    }

    fn by_depth(&self, workload: Workload, text: fn(&Self, Kind, Workload, usize) -> Option<String>) -> String {
        let mut lines = Vec::new();
        for kind in Kind::ALL.into_iter().chain([Kind::StandIn(workload)]) {
            let texts: Vec<Option<String>> =
                self.depths.iter().map(|&depth| text(self, kind, workload, depth)).collect();
            if texts.iter().any(Option::is_some) {
                let mut line = vec![kind.label().to_owned()];
                line.extend(texts.into_iter().map(|text| text.unwrap_or_else(|| "–".into())));
                lines.push(line);
            }
        }
        self.table_by_depth(workload.label(), lines)
    }

    fn table_by_depth(&self, corner: &str, lines: Vec<Vec<String>>) -> String {
        let names: Vec<String> = self.depths.iter().map(|depth| format!("pipeline {depth}")).collect();
        let mut head = vec![corner];
        head.extend(names.iter().map(String::as_str));
        table(&head, lines)
    }

    fn rate_text(&self, kind: Kind, workload: Workload, depth: usize) -> Option<String> {
        let rate_of = self.median_of(kind, workload, depth, rate)?;
        // The stand-in is looked at once, at the end: no neighbour in time to be held against.
        let beside_redis = !matches!(kind, Kind::StandIn(_));
        let ratio = beside_redis.then(|| self.ratio(kind, Kind::Redis, workload, depth, rate)).flatten();
        let ratio = ratio.map_or_else(String::new, |of| format!(" ({:.2})", of.median));
        Some(format!("{:.0}{ratio}", rate_of / 1e3))
    }

    fn cost_text(&self, kind: Kind, workload: Workload, depth: usize) -> Option<String> {
        let median = |of: Yardstick| self.median_of(kind, workload, depth, of);
        let parts: [(Yardstick, Yardstick); 3] = [
            (|sample| Some(sample.cost?.front.user), |sample| Some(sample.cost?.front.system)),
            (|sample| Some(sample.cost?.redis?.user), |sample| Some(sample.cost?.redis?.system)),
            (|sample| Some(sample.cost?.nats?.user), |sample| Some(sample.cost?.nats?.system)),
        ];
        let parts: Vec<String> = parts
            .into_iter()
            .filter_map(|(user, system)| Some(format!("{:.0} + {:.0}", median(user)?, median(system)?)))
            .collect();
        let all = median(|sample| Some(sample.cost?.total()))?;
        Some(format!("{all:.0} ({})", parts.join(" / ")))
    }

    fn latency_text(&self, kind: Kind, workload: Workload, depth: usize) -> Option<String> {
        let p50 = self.median_of(kind, workload, depth, |sample| Some(micros(sample.p50)))?;
        let p99 = self.median_of(kind, workload, depth, |sample| Some(micros(sample.p99)))?;
        Some(format!("{p50:.0} / {p99:.0}"))
    }

    fn busy_text(&self, kind: Kind, workload: Workload, depth: usize) -> Option<String> {
        let server = self.median_of(kind, workload, depth, |sample| Some(sample.server_busy))?;
        let generator = self.median_of(kind, workload, depth, |sample| Some(sample.generator_busy))?;
        Some(format!("{:.0} / {:.0}", server * 100.0, generator * 100.0))
    }

    fn samples(&self, kind: Kind, workload: Workload, depth: usize) -> impl Iterator<Item = &Cell> {
        let here = move |cell: &&Cell| cell.kind == kind && cell.workload == workload && cell.depth == depth;
        self.cells.iter().filter(here)
    }

    fn median_of(&self, kind: Kind, workload: Workload, depth: usize, of: Yardstick) -> Option<f64> {
        median(self.samples(kind, workload, depth).filter_map(|cell| of(&cell.sample)).collect())
    }

    /// Only within a round: the machine's speed drifts by a quarter from minute to minute, and a round has both sides
    /// next to each other.
    fn ratio(&self, ours: Kind, rival: Kind, workload: Workload, depth: usize, by: Yardstick) -> Option<Spread> {
        let ratios: Vec<f64> = self
            .samples(ours, workload, depth)
            .filter_map(|cell| {
                let beside = self.samples(rival, workload, depth).find(|other| other.round == cell.round)?;
                Some(by(&cell.sample)? / by(&beside.sample)?)
            })
            .collect();
        Some(Spread {
            lowest: ratios.iter().copied().reduce(f64::min)?,
            highest: ratios.iter().copied().reduce(f64::max)?,
            median: median(ratios)?,
        })
    }
}

fn spread_text(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "not measured".into(), |of| format!("{:.2} ({:.2}–{:.2})", of.median, of.lowest, of.highest))
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 { Some(upper) } else { Some((values[middle - 1] + upper) / 2.0) }
}

fn verdict(met: Option<bool>) -> String {
    match met {
        Some(true) => "yes",
        Some(false) => "**no**",
        None => "–",
    }
    .into()
}

fn kibibytes(bytes: f64) -> String {
    format!("{:.1}", bytes / 1024.0)
}

/// A Markdown table with its columns padded, the first to the left, the others to the right.
fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(column, name)| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([name.chars().count(), 3]).max().unwrap_or(3)
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .enumerate()
            .map(
                |(column, (cell, &width))| {
                    if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        format!("| {} |\n", padded.join(" | "))
    };
    let rule: Vec<String> = widths
        .iter()
        .enumerate()
        .map(|(column, &width)| if column == 0 { "-".repeat(width) } else { format!("{}:", "-".repeat(width - 1)) })
        .collect();
    let mut text = line(&mut head.iter().copied());
    text.push_str(&line(&mut rule.iter().map(String::as_str)));
    for row in &rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}
