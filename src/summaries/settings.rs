//! Hashes of the settings that should be the same in a fleet, so that instances can be compared without telling what is set.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use crate::config::Config;

/// Rules from this one on have one hash together, so that the number of hashes is bounded.
const RULES: usize = 64;

/// A hash of each setting, by its key. Each of the first rules is one setting.
pub fn hashes(config: &Config) -> BTreeMap<String, String> {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    // Without rules there is one line that says so.
    for (path, value) in config.fleet_settings().into_iter().filter(|(path, _)| path != "rules") {
        let text = texts.entry(setting(&path)).or_default();
        text.push_str(&format!("{path}: {value}\n"));
    }
    texts.into_iter().map(|(name, text)| (name, hash(&text))).collect()
}

/// One hash for all of them.
pub fn digest(hashes: &BTreeMap<String, String>) -> String {
    hash(&hashes.iter().map(|(name, hash)| format!("{name}: {hash}\n")).collect::<String>())
}

fn hash(text: &str) -> String {
    format!("{:016x}", xxh3_64(text.as_bytes()))
}

/// The setting to which a path belongs: `rules[3]` for `rules[3].cache.ttl`.
fn setting(path: &str) -> String {
    let Some((number, _)) = path.strip_prefix("rules[").and_then(|rest| rest.split_once(']')) else {
        return path.to_owned();
    };
    match number.parse::<usize>() {
        Ok(number) if number < RULES => format!("rules[{number}]"),
        _ => format!("rules[{RULES}] and later"),
    }
}

#[cfg(test)]
mod tests {
    use super::{RULES, hashes};
    use crate::config::Config;

    fn differs(one: &str, other: &str) -> Vec<String> {
        let [one, other] =
            [one, other].map(|yaml| hashes(&Config::from_yaml(yaml).unwrap_or_else(|error| panic!("{error}"))));
        let names = one.keys().chain(other.keys()).cloned().collect::<std::collections::BTreeSet<_>>();
        names.into_iter().filter(|name| one.get(name) != other.get(name)).collect()
    }

    #[test]
    fn what_should_be_the_same_is_compared_by_setting() {
        let rule =
            |ttl: &str| format!("rules: [{{ match: a, watch: false }}, {{ match: b, cache: {{ ttl: {ttl} }} }}]");
        assert_eq!(differs(&rule("2s"), &rule("3s")), ["rules[1]"]);
        assert_eq!(differs("max_staleness: 5s", "scripts: declared"), ["max_staleness", "scripts"]);
        assert_eq!(differs("defaults: { cache: { ttl: 1s } }", ""), ["defaults.cache.ttl"]);
    }

    #[test]
    fn what_may_differ_is_not_compared() {
        let other = "listen: 127.0.0.1:1\nworkers: 3\nmonitor_token: x\nlog: { level: debug }\nl1: { max_memory: 1gb }\nupstream: redis://:secret@h:1\nalerts: { hit_rate_min: 0.1 }";
        assert_eq!(differs("", other), [""; 0]);
    }

    #[test]
    fn the_number_of_hashes_is_bounded() {
        let many = format!("rules: [{}]", "{ match: a },".repeat(10 * RULES));
        let config = Config::from_yaml(&many).unwrap_or_else(|error| panic!("{error}"));
        assert!(hashes(&config).len() < 2 * RULES);
    }
}
