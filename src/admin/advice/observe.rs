//! What the rules would do that only observe.

use crate::config::{Config, rules_as_yaml};
use crate::metrics::rules::RuleSums;
use crate::traffic::{OfRule, Tried};

use crate::admin::view::View;

use super::piece::{Advice, FEWEST_READS, Place, percent};

/// Without so many values that were compressed on trial, nothing is said.
const FEWEST_VALUES: u64 = 20;

/// A part that is worth a change.
const WORTH: f64 = 0.05;

/// A rule that only observes, and what was measured.
pub(super) struct Observed<'a> {
    pub(super) place: Place<'a>,
    /// What was counted.
    pub(super) sums: RuleSums,
    /// What L1 would do.
    pub(super) cached: Option<OfRule>,
    /// What compression would do.
    pub(super) compressed: Option<Tried>,
}

impl Observed<'_> {
    fn hits(&self) -> u64 {
        self.cached.map_or(0, |cached| (self.sums.observed as f64 * cached.hit_rate) as u64)
    }

    /// The part of the bytes that compression would save.
    fn saving(&self) -> Option<f64> {
        self.compressed.filter(|tried| tried.bytes > 0).map(|tried| tried.saved as f64 / tried.bytes as f64)
    }

    fn saved_bytes(&self) -> Option<u64> {
        self.saving().map(|saving| (self.sums.tried_bytes as f64 * saving) as u64)
    }

    pub(super) fn view(&self) -> View {
        let ratio = |number: f64| View::Float((number * 1e4).round() / 1e4);
        let cached = self.cached.filter(|cached| cached.reads > 0.0);
        View::Map(vec![
            ("number", View::maybe(self.place.index(), |index| View::count(index + 1))),
            ("match", View::text(self.place.name())),
            ("reads", View::count(self.sums.observed)),
            ("hits", View::count(self.hits())),
            ("hit_rate", View::maybe(cached, |cached| ratio(cached.hit_rate))),
            ("entries", View::maybe(cached, |cached| View::count(cached.entries))),
            ("bytes", View::maybe(cached, |cached| View::count(cached.bytes))),
            ("compressible_bytes", View::count(self.sums.tried_bytes)),
            ("saved_bytes", View::maybe(self.saved_bytes(), View::count)),
        ])
    }

    /// Whether it should be switched on. The error says what is missing.
    pub(super) fn advice(&self, config: &Config) -> Result<Option<Advice>, String> {
        let name = self.place.name();
        let values = self.compressed.map_or(0, |tried| tried.values);
        if self.sums.observed < FEWEST_READS && values < FEWEST_VALUES {
            return Err(format!(
                "What {name} would do: not enough traffic yet ({} reads and {values} values that were compressed on trial; \
                 {FEWEST_READS} or {FEWEST_VALUES} are needed).",
                self.sums.observed
            ));
        }
        let cached = self.cached.filter(|cached| self.sums.observed >= FEWEST_READS && cached.hit_rate >= WORTH);
        let saving = self.saving().filter(|saving| values >= FEWEST_VALUES && *saving >= WORTH);
        let mut why = Vec::new();
        if let Some(OfRule { hit_rate, entries, bytes, .. }) = cached {
            let (hits, kb) = (self.hits(), bytes >> 10);
            why.push(format!(
                "L1 would answer {} of {} reads, so {hits} fewer reads for Redis, with {entries} entries in {kb} kb.",
                percent(hit_rate),
                self.sums.observed
            ));
        }
        if let (Some(saving), Some(saved)) = (saving, self.saved_bytes()) {
            why.push(format!(
                "Compression would save {} of the written values, {saved} bytes so far.",
                percent(saving)
            ));
        }
        if why.is_empty() {
            return Ok(None);
        }
        let what = format!("Switch on what is only observed: {name}.");
        Ok(Some(Advice { about: "observe", what, why: why.join(" "), lines: self.lines(config) }))
    }

    fn lines(&self, config: &Config) -> String {
        if config.observe {
            return "observe: false\n".to_owned();
        }
        match self.place {
            Place::Defaults => "defaults:\n  observe: false\n".to_owned(),
            Place::Rule(changed, _) => {
                let mut rules = config.rules.clone();
                rules[changed].observe = None;
                if config.defaults.observe {
                    rules[changed].observe = Some(false);
                }
                rules_as_yaml(&rules)
            }
        }
    }
}
