//! The alerts: samples of the metrics are judged by `rules`, over a window, with hysteresis and a minimum of traffic.
//!
//! The clock is that of the samples. Must not send anything: who calls [`Alerts::judge`] is told what has changed.

mod rules;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::history::sample::Sample;

use rules::{COUNT, Judge, LASTS, RULES, Rule};

/// Seconds of samples that are remembered: the longest window.
const LONGEST: usize = 300;

/// Alerts that are remembered after they have cleared.
const PAST: usize = 100;

/// An alert that fires, or has fired.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub text: &'static str,
    /// When it began to fire, in seconds of Unix time.
    pub since: u64,
    /// When it cleared. `None`: it fires.
    pub cleared: Option<u64>,
    /// The number that was judged last. `None`: the alert is not about a number.
    pub value: Option<f64>,
    /// The threshold at that time.
    pub limit: Option<f64>,
}

/// The alerts that fire now, and the last ones that fired.
#[derive(Debug, Default)]
pub struct Alerts(Mutex<State>);

/// An alert that has cleared, as a note for the next start.
#[derive(Deserialize, Serialize)]
struct Note<'a> {
    /// Counted over all starts.
    number: u64,
    name: &'a str,
    since: u64,
    cleared: u64,
    value: Option<f64>,
    limit: Option<f64>,
}

#[derive(Debug, Default)]
struct State {
    /// Samples of a second each, the oldest first.
    samples: VecDeque<Sample>,
    firing: [Option<Alert>; COUNT],
    /// The oldest first.
    past: VecDeque<Alert>,
    /// Number of the next note.
    notes: u64,
}

impl Alerts {
    /// With the alerts that had cleared before the start, from their notes.
    pub fn from_notes(notes: &[String]) -> Alerts {
        let mut notes: Vec<Note<'_>> = notes.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
        notes.sort_by_key(|note| note.number);
        let mut state = State { notes: notes.last().map_or(0, |last| last.number.wrapping_add(1)), ..State::default() };
        for Note { name, since, cleared, value, limit, .. } in notes {
            // There may be no such alert any more.
            if let Some(rule) = RULES.iter().find(|rule| rule.name == name) {
                let cleared = Some(cleared);
                state.past.push_back(Alert { name: rule.name, text: rule.text, since, cleared, value, limit });
            }
        }
        Alerts(Mutex::new(state))
    }

    /// The note of an alert that has cleared, and its number. `None`: it fires.
    pub fn note(&self, alert: &Alert) -> Option<(u64, String)> {
        let Alert { name, since, value, limit, .. } = *alert;
        let cleared = alert.cleared?;
        let mut state = self.state();
        let number = state.notes;
        state.notes = number.wrapping_add(1);
        let note = Note { number, name, since, cleared, value, limit };
        serde_json::to_string(&note).ok().map(|text| (number, text))
    }

    /// Judges with one more sample of a second, and returns the alerts that begin to fire or clear with it.
    pub fn judge(&self, sample: &Sample, config: &Config) -> Vec<Alert> {
        self.state().step(sample, config)
    }

    /// The alerts that fire.
    pub fn firing(&self) -> Vec<Alert> {
        self.state().firing.iter().flatten().cloned().collect()
    }

    /// Those that fire as bits, each at the place of its rule.
    pub fn bits(&self) -> u64 {
        let state = self.state();
        let firing = state.firing.iter().enumerate().filter(|(_, alert)| alert.is_some());
        firing.map(|(place, _)| 1 << place).sum()
    }

    /// The last alerts that have cleared, the newest first.
    pub fn past(&self) -> Vec<Alert> {
        self.state().past.iter().rev().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a rule says of the samples.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Judgement {
    fires: bool,
    value: Option<f64>,
    limit: Option<f64>,
}

impl State {
    fn step(&mut self, sample: &Sample, config: &Config) -> Vec<Alert> {
        let now = sample.at;
        // After the clock was set back, or the process stood still, older samples say nothing of now.
        self.samples.retain(|earlier| earlier.at <= now && earlier.at + LONGEST as u64 > now);
        self.samples.push_back(*sample);
        while self.samples.len() > LONGEST {
            self.samples.pop_front();
        }
        let samples = self.samples.make_contiguous();
        let mut changes = Vec::new();
        for (rule, firing) in RULES.iter().zip(&mut self.firing) {
            let begins = samples.partition_point(|earlier| earlier.at + rule.window as u64 <= now);
            let Judgement { fires, value, limit } = judge(rule, &samples[begins..], config, firing.is_some());
            match firing {
                Some(alert) if fires => (alert.value, alert.limit) = (value, limit),
                Some(_) => {
                    if let Some(alert) = firing.take() {
                        let cleared = Alert { cleared: Some(now), value: value.or(alert.value), ..alert };
                        self.past.push_back(cleared.clone());
                        changes.push(cleared);
                    }
                }
                None if fires => {
                    let alert = Alert { name: rule.name, text: rule.text, since: now, cleared: None, value, limit };
                    changes.push(alert.clone());
                    *firing = Some(alert);
                }
                None => {}
            }
        }
        while self.past.len() > PAST {
            self.past.pop_front();
        }
        changes
    }
}

/// Judges the samples of a rule's window. An alert that fires goes on until the number is better than its threshold by a twentieth, or there
/// is too little traffic to know; or until its trouble has been gone for the whole window.
fn judge(rule: &Rule, samples: &[Sample], config: &Config, is_firing: bool) -> Judgement {
    match rule.judge {
        Judge::Trouble(trouble) => {
            let is_there = |sample: &Sample| sample.has(trouble);
            let recent = &samples[samples.len().saturating_sub(LASTS)..];
            let begins = recent.len() == LASTS && recent.iter().all(is_there);
            Judgement { fires: begins || (is_firing && samples.iter().any(is_there)), value: None, limit: None }
        }
        Judge::Number { value, limit, is_min, traffic } => {
            let limit = limit(config);
            let Some((value, events)) = value(samples) else {
                return Judgement { fires: false, value: None, limit: Some(limit) };
            };
            // A young window says nothing of a rate: after a start L1 is empty.
            let is_known = match is_firing {
                true => events * 2 >= traffic,
                false => events >= traffic && samples.len() * 10 >= rule.window * 9,
            };
            let bound = match (is_firing, is_min) {
                (false, _) => limit,
                (true, true) => (limit * 1.05).min((1.0 + limit) / 2.0),
                (true, false) => limit * 0.95,
            };
            let is_bad = if is_min { value < bound } else { value > bound };
            Judgement { fires: is_known && is_bad, value: Some(value), limit: Some(limit) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Alerts, PAST};
    use crate::config::Config;
    use crate::history::sample::{Sample, Trouble};

    /// Alerts, and a clock that only the test moves.
    #[derive(Default)]
    struct Bench {
        alerts: Alerts,
        now: u64,
    }

    impl Bench {
        /// So many seconds with this sample each. Returns what fired (+) and cleared (-), with the second.
        fn run(&mut self, seconds: u64, sample: Sample) -> Vec<String> {
            let config = Config::default();
            let mut out = Vec::new();
            for _ in 0..seconds {
                self.now += 1;
                for alert in self.alerts.judge(&Sample { at: self.now, span_ms: 1000, ..sample }, &config) {
                    let sign = if alert.cleared.is_some() { '-' } else { '+' };
                    out.push(format!("{sign}{}@{}", alert.name, self.now));
                }
            }
            out
        }
    }

    fn reads(hits: u64, misses: u64) -> Sample {
        Sample { hits, misses, ..Sample::default() }
    }

    fn none() -> Vec<String> {
        Vec::new()
    }

    #[test]
    fn a_low_hit_rate_fires_after_its_window_and_clears_with_hysteresis() {
        let mut bench = Bench::default();
        assert_eq!(bench.run(269, reads(1, 9)), none(), "the window is young");
        assert_eq!(bench.run(10, reads(1, 9)), ["+hit_rate@270"]);
        let firing = bench.alerts.firing();
        assert_eq!((firing[0].value, firing[0].limit, firing[0].since), (Some(0.1), Some(0.7), 270));
        assert_eq!(bench.alerts.bits(), 1);
        // 0.71 is above the threshold, and not by enough.
        assert_eq!(bench.run(600, reads(71, 29)), none());
        let cleared = bench.run(300, reads(80, 20));
        assert_eq!(cleared.len(), 1);
        assert!(cleared[0].starts_with("-hit_rate@"));
        assert_eq!(bench.run(600, reads(71, 29)), none(), "it does not come back above the threshold");
        let past = &bench.alerts.past()[0];
        assert!(past.since == 270 && past.cleared.is_some_and(|cleared| cleared > 879), "{past:?}");
    }

    #[test]
    fn without_traffic_a_rate_is_not_judged() {
        let mut bench = Bench::default();
        assert_eq!(bench.run(600, Sample::default()), none());
        for _ in 0..20 {
            let few = [bench.run(1, reads(0, 9)), bench.run(29, Sample::default())].concat();
            assert_eq!(few, none(), "fewer than a hundred reads in the window");
        }
    }

    #[test]
    fn errors_and_slow_reads_fire_each_by_itself_and_clear_when_the_traffic_ends() {
        let mut bench = Bench::default();
        let sample = Sample { commands: 100, errors: 6, miss_count: 10, read_p99_ns: 90_000_000, ..Sample::default() };
        assert_eq!(bench.run(60, sample), ["+error_rate@54"]);
        let sample = Sample { read_p99_ns: 500_000_000, errors: 0, ..sample };
        let changes = bench.run(60, sample);
        let names: Vec<&str> = changes.iter().filter_map(|change| change.split('@').next()).collect();
        assert_eq!(names, ["+response_time", "-error_rate"]);
        assert_eq!(bench.run(70, Sample::default()).len(), 1, "nobody asks any more");
        assert!(bench.alerts.firing().is_empty());
    }

    #[test]
    fn memory_and_buffers_are_judged_without_traffic() {
        let mut bench = Bench::default();
        let full = Sample {
            memory_bytes: 81,
            memory_max_bytes: 100,
            buffers_bytes: 9,
            buffers_max_bytes: 10,
            ..Sample::default()
        };
        assert_eq!(bench.run(9, full), ["+memory_usage@9", "+buffers_usage@9"]);
        assert_eq!(bench.run(60, Sample { memory_bytes: 79, ..full }), none(), "not by enough");
        assert_eq!(bench.run(20, Sample { memory_bytes: 70, ..full }).len(), 1);
    }

    #[test]
    fn a_trouble_must_last_and_must_be_gone_for_the_window() {
        let mut bench = Bench::default();
        let mut down = Sample::default();
        down.add(Trouble::UpstreamDown);
        assert_eq!(bench.run(4, down), none());
        assert_eq!(bench.run(1, Sample::default()), none());
        assert_eq!(bench.run(5, down), ["+upstream_down@10"]);
        // It comes and goes: one alert.
        for _ in 0..5 {
            assert_eq!([bench.run(9, Sample::default()), bench.run(1, down)].concat(), none());
        }
        assert_eq!(bench.run(20, Sample::default()), ["-upstream_down@70"]);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_fire_or_clear_anything_by_itself() {
        let mut bench = Bench::default();
        let mut down = Sample::default();
        down.add(Trouble::PasswordRefused);
        bench.now = 1_000_000;
        assert_eq!(bench.run(5, down).len(), 1);
        bench.now = 1000;
        assert_eq!(bench.run(5, down), none());
        assert_eq!(bench.alerts.firing().len(), 1);
    }

    #[test]
    fn what_has_cleared_is_known_after_a_restart() {
        let mut bench = Bench::default();
        let mut down = Sample::default();
        down.add(Trouble::UpstreamDown);
        let mut notes = Vec::new();
        for _ in 0..3 {
            bench.run(5, down);
            bench.run(10, Sample::default());
            let last = bench.alerts.past()[0].clone();
            let (number, text) = bench.alerts.note(&last).expect("it has cleared");
            assert!(number == notes.len() as u64 && text.len() <= 240, "{text}");
            notes.push(text);
        }
        let before = bench.alerts.past();
        notes.extend(["nonsense".to_owned(), notes[0].replace("upstream_down", "of_another_version")]);
        notes.reverse();
        let after = Alerts::from_notes(&notes);
        assert_eq!(after.past(), before);
        assert_eq!(after.note(&before[0]).map(|(number, _)| number), Some(3));
    }

    #[test]
    fn late_invalidations_fire_while_something_is_served() {
        let mut bench = Bench::default();
        let after = |seconds: Option<u64>| {
            let mut sample = Sample::default();
            sample.set_unproven(seconds.map(Duration::from_secs));
            sample
        };
        assert_eq!(bench.run(30, after(Some(60))), none(), "max_staleness");
        assert_eq!(bench.run(10, after(None)), none(), "L1 serves nothing");
        assert_eq!(bench.run(10, after(Some(61))), ["+stale_beyond_bound@41"]);
        let firing = &bench.alerts.firing()[0];
        assert_eq!((firing.value, firing.limit), (Some(61.0), Some(60.0)));
        assert_eq!(bench.run(10, after(Some(0))).len(), 1);
    }

    #[test]
    fn the_past_is_bounded() {
        let mut bench = Bench::default();
        let mut down = Sample::default();
        down.add(Trouble::UpstreamDown);
        for _ in 0..PAST + 5 {
            bench.run(5, down);
            bench.run(10, Sample::default());
        }
        assert_eq!(bench.alerts.past().len(), PAST);
    }
}
