//! Warnings: configurations that are valid but probably not meant.

use super::error::Finding;
use super::fields::Switch;
use super::units::{show_size, show_time};
use super::{CachePatch, Config};

/// All warnings. `typed` returns whether a key was set.
pub(super) fn all(config: &Config, typed: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut doubtful = unreachable_rules(config);
    let defaults = &config.defaults.cache;
    // The default means "as long as max_staleness allows".
    if defaults.ttl != Config::default().defaults.cache.ttl {
        let patch = CachePatch { ttl: Some(defaults.ttl), ..CachePatch::default() };
        bounds_without_effect(&mut doubtful, config, "defaults.cache", &patch);
    }
    let patch = CachePatch {
        negative_ttl: Some(defaults.negative_ttl),
        max_value: Some(defaults.max_value).filter(|_| typed("defaults.cache.max_value")),
        ..CachePatch::default()
    };
    bounds_without_effect(&mut doubtful, config, "defaults.cache", &patch);
    for (index, rule) in config.rules.iter().enumerate() {
        if let Some(Switch::On(patch)) = &rule.cache {
            bounds_without_effect(&mut doubtful, config, &format!("rules[{index}].cache"), patch);
        }
    }
    doubtful
}

/// Bounds that have no effect because another bound is tighter.
fn bounds_without_effect(doubtful: &mut Vec<Finding>, config: &Config, at: &str, cache: &CachePatch) {
    let max = config.max_staleness;
    for (key, time) in [("ttl", cache.ttl), ("negative_ttl", cache.negative_ttl)] {
        if let Some(time) = time.filter(|time| *time > max) {
            let [time, max] = [time, max].map(show_time);
            let what = format!("{time} is never reached: max_staleness ends every entry after {max}");
            doubtful.push(Finding::new(format!("{at}.{key}"), what));
        }
    }
    if let Some(size) = cache.max_value.filter(|size| *size > config.l1.max_memory) {
        let [size, memory] = [size, config.l1.max_memory].map(show_size);
        let what = format!("a value of {size} is never kept: l1.max_memory is {memory}");
        doubtful.push(Finding::new(format!("{at}.max_value"), what));
    }
}

/// Rules that match no key, because an earlier rule matches all of their keys.
fn unreachable_rules(config: &Config) -> Vec<Finding> {
    let rules = &config.rules;
    let behind = |(index, pattern): (usize, &str)| {
        let first = rules[..index].iter().find(|rule| covers(&rule.pattern, pattern))?;
        let what = format!(
            "no key reaches this rule: every key that it matches matches the rule \"{}\" above it, and the first match wins",
            first.pattern
        );
        Some(Finding::new(format!("rules[{index}].match"), what))
    };
    rules.iter().map(|rule| rule.pattern.as_str()).enumerate().filter_map(behind).collect()
}

/// Whether `pattern` certainly matches everything that `other` matches: both are the same, or `pattern` is a text and a star, and
/// `other` begins with that text.
fn covers(pattern: &str, other: &str) -> bool {
    let is_special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\');
    let start = pattern.trim_end_matches('*');
    let is_prefix = start.len() < pattern.len() && !start.contains(is_special);
    pattern == other || is_prefix && other.starts_with(start)
}

#[cfg(test)]
mod tests {
    use super::covers;
    use crate::config::Sources;

    #[test]
    fn patterns_that_cover_others() {
        for (pattern, other, expected) in [
            ("*", "a", true),
            ("**", "a*", true),
            ("a:*", "a:b*", true),
            ("a:*", "a:*", true),
            ("a:*", "a", false),
            ("a:*", "[a]:b", false),
            ("a:*", "*", false),
            ("a", "a", true),
            ("a?", "ab", false),
            ("a\\*", "a\\*", true),
            ("a\\*", "a\\*b", false),
        ] {
            assert_eq!(covers(pattern, other), expected, "{pattern} {other}");
        }
    }

    #[test]
    fn warnings_name_their_line() {
        for (text, expected) in [
            (
                "rules:\n- match: a*\n- match: '*'\n- match: b",
                &["line 4: rules[2].match: no key reaches this rule"][..],
            ),
            ("rules:\n- match: a*\n- match: ab\n- match: b", &["line 3: rules[1].match: no key reaches this rule"]),
            (
                "rules:\n- match: a\n  cache: 5m",
                &["line 3: rules[0].cache.ttl: 5m is never reached: max_staleness ends"],
            ),
            ("rules:\n- match: a\n  cache: { ttl: 1m }", &[]),
            (
                "max_staleness: 5s\ndefaults:\n  cache: { ttl: 6s,\n    negative_ttl: 7s }",
                &["line 3: defaults.cache.ttl: 6s is never", "line 4: defaults.cache.negative_ttl: 7s is never"],
            ),
            ("defaults: { cache: { ttl: 1h } }", &[]),
            ("defaults:\n  cache: 5m", &["line 2: defaults.cache.ttl: 5m is never"]),
            ("max_staleness: 5s", &[]),
            (
                "l1: { max_memory: 1mb }\nrules:\n- match: a\n  cache: { max_value: 2mb }",
                &["line 4: rules[0].cache.max_value: a value of 2mb is never kept: l1.max_memory is 1mb"],
            ),
        ] {
            let mut sources = Sources::default();
            sources.add_yaml(text);
            let found: Vec<_> =
                sources.done(|_| Vec::new()).expect(text).warnings.iter().map(ToString::to_string).collect();
            let is_right = found.len() == expected.len()
                && found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected));
            assert!(is_right, "{text:?}: {found:#?}");
        }
    }
}
