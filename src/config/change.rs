//! Changes single keys of a configuration by their paths (`l1.max_memory`, `rules[0].cache.ttl`), as the file would set them, and shows
//! them.

use super::Config;
use super::body::Line;
use super::error::{ConfigError, Finding};
use super::fields::Section;
use super::print::values;
use super::read;
use super::tree::{self, Key, Node, Value};

impl Config {
    /// All keys by their paths, each with its value as it may be typed. Secrets are `***`.
    pub fn keys(&self) -> Vec<(String, String)> {
        let plain = |yaml: String| match tree::parse(&yaml).map(|node| node.value) {
            Ok(Value::Scalar(text) | Value::Nothing(text)) => text,
            _ => yaml,
        };
        // They are printed as if they were not set, so that nobody loads *** as a token.
        let is_secret = |key: &str| self.hidden().any(|hidden| hidden == key);
        let all = values(&mut self.clone()).into_iter().map(|(key, value)| {
            let shown = if is_secret(&key) { "***".to_owned() } else { plain(value) };
            (key, shown)
        });
        all.collect()
    }

    /// Sets a key. The value is what the file would have behind the colon; what begins like a list or a mapping of YAML is read as one.
    /// Only this key is checked: see [`Config::check`].
    ///
    /// # Errors
    /// There is no such key, or the value does not fit it. The configuration may have changed in part.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        // A pattern may begin with a bracket, too, so what fits as it is typed is meant so.
        let mut typed = self.clone();
        let as_typed = typed.apply(key, Value::Scalar(value.to_owned()));
        if as_typed.is_ok() {
            *self = typed;
            return Ok(());
        }
        let trimmed = value.trim_start();
        let is_yaml = trimmed.starts_with(['[', '{']) || trimmed.starts_with("- ") || value.trim().contains('\n');
        if !is_yaml {
            return as_typed;
        }
        let node = tree::parse(value).map_err(|finding| Finding::new(key, finding))?;
        self.apply(key, node.value)
    }

    fn apply(&mut self, key: &str, value: Value) -> Result<(), ConfigError> {
        let found = match rule_key(key) {
            Some((number, below)) => {
                let rules = self.rules.len();
                let Some(rule) = self.rules.get_mut(number) else {
                    let what = format!("there is no such rule; the first is rules[0], and there are {rules}");
                    return Err(Finding::new(key, what).into());
                };
                apply(rule, below, value, &key[..key.len() - below.len() - 1])
            }
            None => {
                let found = apply(self, key, value, "");
                if key == "rules" {
                    // They stand in no file.
                    self.rules.iter_mut().for_each(|rule| rule.line = Line(None));
                }
                found
            }
        };
        ConfigError::unless_empty(found)
    }
}

/// `rules[2].cache.ttl` as 2 and `cache.ttl`.
pub(super) fn rule_key(key: &str) -> Option<(usize, &str)> {
    let (number, below) = key.strip_prefix("rules[")?.split_once("].")?;
    Some((number.parse().ok()?, below))
}

/// Reads the value into the key of a section. Returns what is wrong, with the path `above` before the key.
fn apply(section: &mut impl Section, key: &str, value: Value, above: &str) -> Vec<Finding> {
    let document = key.rsplit('.').fold(value, |value, part| {
        let key = Key { line: 1, text: part.to_owned() };
        Value::Map(vec![(key, Node { line: 1, value })])
    });
    let found = read::read(section, &Node { line: 1, value: document });
    let place = |finding: Finding| match (above, finding.at()) {
        ("", _) => finding,
        (_, "") => finding.below(above.to_owned()),
        (_, at) => {
            let at = format!("{above}.{at}");
            finding.below(at)
        }
    };
    found.wrong.into_iter().map(|finding| place(finding.on_line(None))).collect()
}

#[cfg(test)]
mod tests {
    use super::Config;

    fn config(yaml: &str) -> Config {
        Config::from_yaml(yaml).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_key_is_set_as_the_file_would_set_it() {
        let start = "rules: [{ match: 'a*', cache: { ttl: 5s } }, { match: b, watch: false }]";
        for (key, value, yaml) in [
            ("l1.max_memory", "1gb", "l1: { max_memory: 1gb }"),
            ("nats", "", ""),
            ("max_staleness", "10s", "max_staleness: 10s"),
            ("defaults.cache", "false", "defaults: { cache: false }"),
            ("defaults.cache.ttl", "3s", "defaults: { cache: { ttl: 3s } }"),
            ("scripts", "[\"bull:*\", x]", "scripts: [\"bull:*\", x]"),
            ("scripts", "declared", "scripts: declared"),
        ] {
            let mut changed = config(start);
            changed.set(key, value).unwrap_or_else(|error| panic!("{key}: {error}"));
            assert_eq!(changed, config(&format!("{start}\n{yaml}")), "{key}");
        }
        let mut changed = config(start);
        changed.set("rules[0].cache.ttl", "9s").expect("a key of a rule");
        changed.set("rules[1].watch", "true").expect("a key of a rule");
        changed.set("rules[1].match", "[ab]*").expect("no list of YAML");
        assert_eq!(changed.rules[1].pattern, "[ab]*");
        changed.set("rules[1].match", "*").expect("no alias of YAML");
        assert_eq!(changed, config("rules: [{ match: 'a*', cache: { ttl: 9s } }, { match: '*', watch: true }]"));
        changed.set("rules", "[{match: 'c:*', cache: false}]").expect("a list");
        assert_eq!(changed, config("rules: [{match: 'c:*', cache: false}]"));
        assert_eq!(changed.rules[0].line.0, None, "it stands in no file");
        changed.set("rules", "- match: d\n- match: e\n  compress: false\n").expect("lines");
        assert_eq!(changed, config("rules: [{match: d}, {match: e, compress: false}]"));
    }

    #[test]
    fn what_cannot_be_set_is_named() {
        for (key, value, error) in [
            ("l1.max_memery", "1gb", "l1: there is no key 'max_memery' here (did you mean max_memory?)"),
            ("l1.max_memory", "big", "l1.max_memory: 'big' is not a size"),
            ("l1", "5", "l1: this does not fit here"),
            ("", "5", "there is no such key here"),
            ("rules[0].cache.ttl", "x", "rules[0].cache.ttl: 'x' is not a time"),
            ("rules[0].cash", "x", "rules[0]: there is no key 'cash' here"),
            ("rules[1].watch", "true", "rules[1].watch: there is no such rule; the first is rules[0], and there are 1"),
            ("rules", "[{", "rules: "),
        ] {
            let refused = config("rules: [{ match: a }]").set(key, value).expect_err(key).to_string();
            assert!(refused.starts_with(error), "{key}: {refused}");
        }
    }

    #[test]
    fn every_key_can_be_set_to_the_value_that_it_shows() {
        let typical = config(
            "rules: [{ match: 'a b:*', cache: { ttl: 5s, reads: [get, hgetall] } }, { match: '#', watch: false, compress: false }]\n\
             scripts: ['x:*', y]\nnats: nats://h:4222",
        );
        let mut again = typical.clone();
        for (key, value) in typical.keys() {
            again.set(&key, &value).unwrap_or_else(|error| panic!("{key}: {value}: {error}"));
        }
        assert_eq!(again, typical);
    }
}
