//! Hot keys that L1 does not keep.

use std::collections::HashMap;

use crate::config::units::show_time;
use crate::config::{CachePatch, Coherence, Config, RuleSpec, Switch, rules_as_yaml};
use crate::resp::parse_int;
use crate::rules::Rules;
use crate::traffic::{HotKey, Hottest};

use super::piece::{Advice, percent};

/// A second needs so many requests, and a group of keys this part of them.
const FEWEST_PER_SECOND: f64 = 50.0;
const WORTH: f64 = 0.05;

/// The rule whose requests are writes in more than this part is left alone.
const MOST_WRITES: f64 = 0.3;

/// A pattern of hot keys that no rule keeps, if it is worth one. `writes` is the part of the requests for a key's rule that writes.
pub(super) fn uncached(
    config: &Config,
    rules: &Rules,
    hot: &Hottest,
    writes: impl Fn(&[u8]) -> f64,
) -> Result<Option<Advice>, String> {
    if !config.l1.enabled || config.coherence == Coherence::Off || config.redact_keys {
        return Ok(None);
    }
    if hot.requests < FEWEST_PER_SECOND {
        return Err(format!(
            "Keys worth caching: not enough traffic in the last seconds ({:.0} requests a second; {FEWEST_PER_SECOND} are needed).",
            hot.requests
        ));
    }
    let is_left_out = |key: &&HotKey| {
        let rule = rules.of(&key.key);
        rule.cache.is_none()
            && rule.observe.is_none()
            && !rules.is_of_scripts(&key.key)
            && writes(&key.key) <= MOST_WRITES
    };
    let mut groups: HashMap<&[u8], (f64, usize)> = HashMap::new();
    for key in hot.keys.iter().filter(is_left_out) {
        if let Some(prefix) = prefix(&key.key) {
            let (requests, keys) = groups.entry(prefix).or_default();
            *requests += key.requests;
            *keys += 1;
        }
    }
    let Some((prefix, (requests, keys))) = groups.into_iter().max_by(|one, other| one.1.0.total_cmp(&other.1.0)) else {
        return Ok(None);
    };
    let share = requests / hot.requests;
    let Some(pattern) = pattern(prefix).filter(|_| share >= WORTH) else { return Ok(None) };
    let mut rules = config.rules.clone();
    let cache = Some(Switch::On(CachePatch::default()));
    match rules.iter_mut().find(|spec| spec.pattern == pattern) {
        Some(spec) => spec.cache = cache,
        None => rules.insert(0, RuleSpec { pattern: pattern.clone(), cache, ..RuleSpec::default() }),
    }
    Ok(Some(Advice {
        about: "uncached_keys",
        what: format!("Keep {pattern} in L1, if its values may be {} old.", show_time(config.max_staleness)),
        why: format!(
            "{keys} hot keys of this kind get {} of all requests ({requests:.0} a second), hardly any of them writes, and their rule \
             keeps none.",
            percent(share)
        ),
        lines: rules_as_yaml(&rules),
    }))
}

/// A key up to its first colon. Names that are only a number say nothing.
fn prefix(key: &[u8]) -> Option<&[u8]> {
    let end = key.iter().position(|byte| *byte == b':')?;
    let prefix = &key[..end];
    (!prefix.is_empty() && parse_int(prefix).is_none()).then_some(prefix)
}

/// The pattern of all keys with a prefix.
fn pattern(prefix: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(prefix).ok().filter(|text| text.chars().all(|one| !one.is_control()))?;
    let escaped: String =
        text.chars().flat_map(|one| ["*?[]\\^".contains(one).then_some('\\'), Some(one)]).flatten().collect();
    Some(format!("{escaped}:*"))
}

#[cfg(test)]
mod tests {
    use super::{pattern, prefix};
    use crate::glob::Glob;

    #[test]
    fn a_pattern_matches_the_keys_with_its_prefix_alone() {
        assert_eq!(
            (prefix(b"user:1:name"), prefix(b"17:x"), prefix(b":x"), prefix(b"x")),
            (Some(&b"user"[..]), None, None, None)
        );
        assert_eq!(pattern(b"user").as_deref(), Some("user:*"));
        let odd = pattern(b"a*[b]").expect("text");
        assert!(Glob::new(odd.as_bytes()).matches(b"a*[b]:1") && !Glob::new(odd.as_bytes()).matches(b"axb:1"));
        assert_eq!(pattern(b"\xff"), None);
    }
}
