//! What to do by the trials of a pattern: a sentence, and the rule to paste.

use std::time::Duration;

use crate::admin::key_state::Ruling;
use crate::config::{CompressPatch, RuleSpec, Switch, rules_as_yaml};

use super::sample::Sample;
use super::trials::{MIN_SAVING, Trial};

/// Without so many values, nothing is suggested.
const FEWEST_VALUES: usize = 5;

/// Among the trials that save as much as the best one but for this part, the fastest is suggested.
const AS_GOOD: f64 = 0.03;

/// Smaller values are never worth it: the mark and the checksums alone take 29 bytes.
const SMALLEST: usize = 64;

/// What to do.
pub(super) struct Suggestion {
    pub(super) what: String,
    /// The lines for `config.yaml`. Empty: none.
    pub(super) lines: String,
}

impl Suggestion {
    pub(super) fn of(ruling: &Ruling, pattern: &[u8], sample: &Sample, trials: &[Trial]) -> Suggestion {
        let values = sample.values.len();
        if values < FEWEST_VALUES {
            let what = format!("Only {values} values were read; {FEWEST_VALUES} are needed to suggest anything.");
            return Suggestion { what, lines: String::new() };
        }
        let bytes: usize = sample.values.iter().map(|(_, value)| value.len()).sum();
        let best = trials.iter().map(|trial| trial.saving(bytes)).fold(0.0, f64::max);
        let good = trials.iter().filter(|trial| trial.saving(bytes) >= best - AS_GOOD);
        let chosen = good.min_by_key(|trial| trial.time()).filter(|_| best * 100.0 >= f64::from(MIN_SAVING));
        let Ok(pattern) = std::str::from_utf8(pattern) else {
            let what = "The pattern is not UTF-8, so that no rule can have it.".to_owned();
            return Suggestion { what, lines: String::new() };
        };
        let mut spec = spec(ruling, pattern, sample);
        let what = match chosen {
            None => {
                spec.compress = Some(Switch::Off);
                format!("Do not compress these values: at best that saves {:.1}%.", best * 100.0)
            }
            Some(trial) => {
                let now = spec.body(&ruling.config.defaults).compress;
                // A power of two, so that it is no artefact of the sample.
                let least = trial.smallest.map_or(now.min_size, |size| 1 << size.max(SMALLEST).ilog2());
                let patch = match spec.compress.take() {
                    Some(Switch::On(patch)) => patch,
                    Some(Switch::Off) | None => CompressPatch::default(),
                };
                spec.compress = Some(Switch::On(CompressPatch {
                    codec: Some(trial.codec),
                    level: Some(trial.level),
                    min_size: Some(now.min_size.min(least)),
                    ..patch
                }));
                let each = trial.time() / u32::try_from(values).unwrap_or(u32::MAX);
                format!(
                    "Compress these values with {} {}: that saves {:.1}%, and takes {:.1} us for each, there and back.",
                    trial.codec,
                    trial.level,
                    trial.saving(bytes) * 100.0,
                    each.max(Duration::from_nanos(100)).as_nanos() as f64 / 1e3
                )
            }
        };
        let is_there = ruling.config.rules.iter().any(|rule| rule.pattern == pattern);
        let place = if is_there {
            "It takes the place of the rule with this pattern"
        } else {
            "It belongs above all rules that match these keys"
        };
        Suggestion { what: format!("{what} {place}."), lines: rules_as_yaml(&[spec]) }
    }
}

/// The rule with this pattern. If there is none: what the keys have now, if that is one rule, under this pattern.
fn spec(ruling: &Ruling, pattern: &str, sample: &Sample) -> RuleSpec {
    let rules = &ruling.config.rules;
    if let Some(spec) = rules.iter().find(|rule| rule.pattern == pattern) {
        return spec.clone();
    }
    let mut of_keys = sample.values.iter().map(|(key, _)| ruling.rules.index_of(key));
    let first = of_keys.next().flatten();
    let known = first.filter(|_| of_keys.all(|index| index == first)).and_then(|index| rules.get(index));
    RuleSpec { pattern: pattern.to_owned(), ..known.cloned().unwrap_or_default() }
}
