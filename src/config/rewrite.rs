//! Writes what was changed at run time into the file of the configuration, and leaves its comments and everything else as it is.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;
use std::str::FromStr;

use tempfile::NamedTempFile;
use yaml_edit::{Document, Mapping, Sequence, YamlNode};

use super::change::rule_key;
use super::error::Finding;
use super::loader::Loader;
use super::print::{self, values};
use super::{Config, ConfigError};

/// Why a file was not rewritten.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// There is none.
    #[error(
        "there is no file to write: name one with --config, or put config.yaml into the folder where Shortstop starts"
    )]
    NoFile,
    /// What the file says now is refused.
    #[error("the file is refused as it is now, so it is not changed: {0}")]
    Refused(#[from] ConfigError),
    /// Another source beats the file.
    #[error("{key} is set by {by}, which beats the file: set it there")]
    Beaten {
        /// The key.
        key: String,
        /// A variable or a flag.
        by: String,
    },
    /// The editor does not understand the file, or would change more than it should.
    #[error("{file} would lose something else, such as a comment, so it is not changed: edit it by hand ({keys})")]
    TooHard {
        /// The file.
        file: String,
        /// What is to be set.
        keys: String,
    },
    /// The file cannot be read or written.
    #[error("{file} cannot be written ({error}): make it writable, and its folder, too")]
    File {
        /// The file.
        file: String,
        /// What the system says.
        error: io::Error,
    },
}

impl Loader {
    /// Writes the values that are in force into the file, where they differ from what the file gives. Settings that wait for a restart
    /// are left as the file has them. Returns the keys that were written. `look` checks the files that a configuration refers to.
    ///
    /// # Errors
    /// Nothing has been written, and why.
    pub fn rewrite(
        &self,
        in_force: &Config,
        look: impl Fn(&Config) -> Vec<Finding>,
    ) -> Result<Vec<String>, RewriteError> {
        let (loaded, file) = self.load(&look)?;
        let file = file.ok_or(RewriteError::NoFile)?;
        let failed = |error| RewriteError::File { file: file.display().to_string(), error };
        // In force are the old values of those that wait for a restart.
        let (target, _) = loaded.config.reloaded(in_force);
        let changes = changes(&loaded.config, &target);
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        for key in changes.keys() {
            if let Some(by) = loaded.beats_the_file(key) {
                return Err(RewriteError::Beaten { key: key.clone(), by });
            }
        }
        let text = fs::read_to_string(&file).map_err(failed)?;
        let keys: Vec<String> = changes.keys().cloned().collect();
        let written = edit(&text, &changes)
            .filter(|new| self.load_text(new, &look).is_ok_and(|loaded| loaded.config == target))
            .filter(|new| comments(new) == comments(&text))
            .ok_or_else(|| RewriteError::TooHard { file: file.display().to_string(), keys: keys.join(", ") })?;
        replace(&file, &written).map_err(failed)?;
        Ok(keys)
    }
}

/// The keys that differ in `new`, each with its value in YAML: the smallest parts that can be replaced.
fn changes(old: &Config, new: &Config) -> BTreeMap<String, String> {
    let [before, after] = [old, new].map(|config| BTreeMap::from_iter(values(&mut config.clone())));
    let is_rule = |key: &str| key == "rules" || key.starts_with("rules[");
    let differs = |key: &String, value: &String| before.get(key) != Some(value);
    let mut changes: BTreeMap<String, String> = after.clone();
    changes.retain(|key, value| !is_rule(key) && differs(key, value));
    let mut rules = BTreeMap::new();
    let is_alike = old.rules.len() == new.rules.len()
        && old.rules.iter().zip(&new.rules).enumerate().all(|(number, (had, has))| {
            let [had, has] = [had, has].map(|rule| print::entries(&mut rule.clone()));
            for (key, value) in has.iter().filter(|entry| !had.contains(entry)) {
                let at = format!("rules[{number}].{key}");
                let is_below =
                    |key: &&String| key.strip_prefix(&at).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
                if before.keys().filter(is_below).all(|key| after.contains_key(key)) {
                    let below = after.iter().filter(|(key, value)| is_below(key) && differs(key, value));
                    rules.extend(below.map(|(key, value)| (key.clone(), value.clone())));
                } else {
                    rules.insert(at, value.clone());
                }
            }
            // A key of a rule cannot be taken out.
            had.iter().all(|(key, _)| has.iter().any(|(other, _)| other == key))
        });
    match is_alike {
        true => changes.extend(rules),
        false => {
            changes.insert("rules".to_owned(), new.rules_as_yaml());
        }
    }
    changes
}

/// The text with these values. `None`: it cannot be edited.
fn edit(text: &str, changes: &BTreeMap<String, String>) -> Option<String> {
    let mut text = text.to_owned();
    for (key, value) in changes {
        text = set(&text, key, value)?;
    }
    Some(text)
}

fn set(text: &str, key: &str, value: &str) -> Option<String> {
    let (document, path) = match Document::from_str(text) {
        Ok(document) => (document, path(key)),
        // Nothing but comments.
        Err(_) => {
            let added = set("", key, value)?;
            let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            return Some(format!("{text}{end}{added}"));
        }
    };
    let (mut at, mut path) = (document.as_mapping(), &path[..]);
    // As far as there is a mapping.
    while let [Step::Key(first), rest @ ..] = path
        && !rest.is_empty()
    {
        let Some(mapping) = at.as_ref() else { break };
        let (below, further) = match rest {
            [Step::Index(index), further @ ..] => (item(mapping, first, *index), further),
            _ => (mapping.get_mapping(first.as_str()), rest),
        };
        match below {
            Some(below) => (at, path) = (Some(below), further),
            None => break,
        }
    }
    let [Step::Key(first), rest @ ..] = path else { return None };
    let mut new = value.to_owned();
    for step in rest.iter().rev() {
        let Step::Key(key) = step else { return None };
        new = format!("{{{key}: {new}}}");
    }
    let new = node(&new)?;
    match at {
        Some(mapping) => mapping.set(first.as_str(), new),
        None => {
            document.set(first.as_str(), new);
        }
    }
    Some(document.to_string())
}

/// A value as the editor takes it.
fn node(yaml: &str) -> Option<YamlNode> {
    let space = if yaml.starts_with('\n') { "" } else { " " };
    Document::from_str(&format!("value:{space}{yaml}\n")).ok()?.as_mapping()?.get("value")
}

fn item(mapping: &Mapping, list: &str, index: usize) -> Option<Mapping> {
    let list: Sequence = mapping.get_sequence(list)?;
    list.get(index)?.as_mapping().cloned()
}

enum Step {
    Key(String),
    Index(usize),
}

/// The steps to a key.
fn path(key: &str) -> Vec<Step> {
    let keys = |text: &str| text.split('.').map(|key| Step::Key(key.to_owned())).collect::<Vec<_>>();
    match rule_key(key) {
        Some((number, below)) => {
            let mut steps = vec![Step::Key("rules".to_owned()), Step::Index(number)];
            steps.extend(keys(below));
            steps
        }
        None => keys(key),
    }
}

/// Puts a new file in place of the old one, with its permissions and its owner, so that nobody ever reads half of it.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    // A link stays a link.
    let file = fs::canonicalize(file)?;
    let old = fs::metadata(&file)?;
    if old.permissions().readonly() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is read-only"));
    }
    // The new file could be written where the old one cannot be.
    OpenOptions::new().write(true).open(&file)?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    // For the owner alone until it has the permissions of the old one. It is removed if a step fails.
    let mut new = NamedTempFile::new_in(folder)?;
    let is_owned_alike = |new: &fs::Metadata| (new.uid(), new.gid()) == (old.uid(), old.gid());
    if !is_owned_alike(&new.as_file().metadata()?) {
        fchown(new.as_file(), Some(old.uid()), Some(old.gid()))?;
    }
    new.as_file().set_permissions(old.permissions())?;
    new.write_all(text.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(&file)?;
    Ok(())
}

/// The comments of a text, as far as they can be told from the rest without parsing it.
fn comments(text: &str) -> Vec<&str> {
    let comment = |line: &'_ str| {
        let begins = line.char_indices().find(|(at, letter)| {
            let before = &line[..*at];
            let is_quoted = ['"', '\''].iter().any(|quote| before.matches(*quote).count() % 2 == 1);
            *letter == '#' && !is_quoted && before.chars().next_back().is_none_or(char::is_whitespace)
        });
        begins.map(|(at, _)| at)
    };
    let mut all: Vec<&str> = text.lines().filter_map(|line| comment(line).map(|at| line[at..].trim_end())).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::{changes, comments, edit};
    use crate::config::Config;

    fn config(yaml: &str) -> Config {
        Config::from_yaml(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
    }

    /// The text after these keys were set in the configuration that it gives.
    #[track_caller]
    fn rewritten(text: &str, keys: &[(&str, &str)]) -> String {
        let old = config(text);
        let mut new = old.clone();
        for (key, value) in keys {
            new.set(key, value).unwrap_or_else(|error| panic!("{key}: {error}"));
        }
        let written = edit(text, &changes(&old, &new)).unwrap_or_else(|| panic!("cannot be edited: {text}"));
        assert_eq!(config(&written), new, "{written}");
        written
    }

    #[test]
    fn only_the_value_changes() {
        let text = "# top\nmax_staleness: 5s   # five\nl1:\n  # bytes\n  max_memory: 1mb # one\n\n# rules\nrules:\n  \
                    - match: 'a*' # the as\n    cache: { ttl: 5s }\n  # and b\n  - match: b\n    watch: false\n# end\n";
        assert_eq!(
            rewritten(text, &[("max_staleness", "10s")]),
            text.replace("max_staleness: 5s", "max_staleness: 10s")
        );
        assert_eq!(rewritten(text, &[("l1.max_memory", "2gb")]), text.replace("max_memory: 1mb", "max_memory: 2gb"));
        assert_eq!(
            rewritten(text, &[("rules[0].cache.ttl", "7s"), ("rules[1].watch", "true")]),
            text.replace("ttl: 5s", "ttl: 7s").replace("watch: false", "watch: true")
        );
    }

    #[test]
    fn a_key_that_is_not_in_the_file_is_added() {
        let text = "# top\nmax_staleness: 5s\nl1:\n  max_memory: 1mb\n# end\n";
        assert_eq!(
            rewritten(text, &[("l1.max_entries", "7")]),
            "# top\nmax_staleness: 5s\nl1:\n  max_memory: 1mb\n  max_entries: 7\n# end\n"
        );
        assert!(rewritten(text, &[("alerts.hit_rate_min", "50%")]).starts_with(text.trim_end()));
        for text in
            ["", "# only comments\n", "# only comments", "l1:\n", "l1: { max_memory: 1mb }\n", "compression: false"]
        {
            let written = rewritten(text, &[("l1.max_entries", "7"), ("defaults.cache.ttl", "3s")]);
            assert!(written.contains("7") && text.split('#').skip(1).all(|comment| written.contains(comment.trim())));
        }
    }

    #[test]
    fn a_rule_that_gets_a_key_keeps_its_comments() {
        let text = "rules:\n  # prices: never\n  - match: \"price:*\" # ticket 17\n  - match: \"*\" # all\n";
        let written = rewritten(text, &[("rules[1].cache.ttl", "4s"), ("rules[0].watch", "false")]);
        assert_eq!(comments(&written), comments(text), "{written}");
        let text = "rules:\n  # sessions\n  - match: \"session:*\"\n    cache: false # always\n  - match: b # two\n    cache: 5m\n";
        for (key, value) in [("rules[0].cache.ttl", "5s"), ("rules[1].cache", "false"), ("rules[0].cache", "true")] {
            let written = rewritten(text, &[(key, value)]);
            assert_eq!(comments(&written), comments(text), "{written}");
        }
    }

    #[test]
    fn comments_are_told_from_the_rest() {
        let text = "# one\na: 1 # two\nb: 'x # no' #three\nc: a#b\nd: \"# no\"\n";
        assert_eq!(comments(text), ["# one", "# two", "#three"]);
    }

    #[test]
    fn another_codec_takes_its_own_level_along() {
        let text = "# top\ndefaults:\n  compress:\n    level: 7 # small\nrules:\n  - match: a # one\n    compress: { codec: gzip, level: 9 }\n";
        let written = rewritten(text, &[("rules[0].compress.codec", "zstd")]);
        assert_eq!(written, text.replace("{ codec: gzip, level: 9 }", "{ codec: zstd }"));
        let written = rewritten(text, &[("defaults.compress.codec", "zstd")]);
        assert!(written.contains("level: 1 # small") && written.contains("codec: zstd"), "{written}");
    }

    #[test]
    fn new_rules_replace_the_list() {
        let text = "# top\nrules:\n  - match: a # one\n# end\nmax_staleness: 5s # five\n";
        let rules = "[{match: 'x y:*', cache: {ttl: 1s, reads: [get, mget]}}, {match: '*', watch: false}]";
        let written = rewritten(text, &[("rules", rules)]);
        assert!(written.starts_with("# top\nrules:") && written.contains("max_staleness: 5s # five"), "{written}");
        assert_eq!(rewritten("rules: [{ match: a }]\n", &[("rules", "[]")]).trim(), "rules: []");
    }

    #[test]
    fn the_file_with_all_keys_can_be_rewritten() {
        let text = include_str!("../../config.yaml");
        let keys = [("l1.max_memory", "1gb"), ("nats", "nats://h:1"), ("scripts", "[a, b]"), ("rules", "[{match: x}]")];
        let written = rewritten(text, &keys);
        assert_eq!(comments(&written), comments(text));
        assert_eq!(written.lines().filter(|line| !text.contains(*line)).count(), 4, "{written}");
    }
}
