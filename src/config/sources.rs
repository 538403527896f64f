//! Merges a configuration from files, the environment and flags, in this order. Remembers where each value comes from, so that all
//! errors are reported at once and with their place.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::Config;
use super::check;
use super::error::{ConfigError, Finding};
use super::print::{self, print};
use super::read;
use super::setting::{Setting, VARIABLES};
use super::tree::{self, Node};
use super::warn;

/// Where the value of a key comes from, if it is not the default.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// A line of a file, or of a text without a name.
    File(Option<PathBuf>, usize),
    /// A variable or a flag.
    Name(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(Some(file), line) => write!(f, "{}, line {line}", file.display()),
            Origin::File(None, line) => write!(f, "line {line}"),
            Origin::Name(name) => f.write_str(name),
        }
    }
}

/// A configuration while it is being merged. A later source beats an earlier one.
#[derive(Debug, Default)]
pub struct Sources {
    config: Config,
    origins: HashMap<String, Origin>,
    wrong: Vec<Finding>,
    /// The keys whose values could not be read.
    unread: Vec<String>,
    warnings: Vec<Finding>,
}

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What the user probably did not mean.
    pub warnings: Vec<Finding>,
    origins: HashMap<String, Origin>,
}

impl Sources {
    /// Adds a file.
    pub fn add_file(&mut self, path: &Path) {
        if let Some(document) = self.document(path) {
            self.add_document(&document, Some(path));
        }
    }

    /// Adds the file in the working directory, if it is meant for this program. A file whose keys are all unknown belongs to
    /// another program: it is ignored, with a warning. Returns whether the file was added.
    pub fn add_file_beside(&mut self, path: &Path) -> bool {
        let Some(document) = self.document(path) else { return true };
        let is_ours = !read::is_of_another_program(&mut Config::default(), &document);
        if is_ours {
            self.add_document(&document, Some(path));
        } else {
            let what = "none of its keys is known: it is taken for the file of another program, and ignored; name it with \
                        --config if it is meant";
            self.warnings.push(Finding::new("", what).in_file(Some(path)));
        }
        is_ours
    }

    /// Adds a text like a file without a name.
    pub fn add_yaml(&mut self, text: &str) {
        match tree::parse(text) {
            Ok(document) => self.add_document(&document, None),
            Err(finding) => self.wrong.push(finding),
        }
    }

    /// Adds a text in place of what this file has.
    pub(super) fn add_text(&mut self, text: &str, path: &Path) {
        match tree::parse(text) {
            Ok(document) => self.add_document(&document, Some(path)),
            Err(finding) => self.wrong.push(finding.in_file(Some(path))),
        }
    }

    fn document(&mut self, path: &Path) -> Option<Node> {
        let read = fs::read_to_string(path).map_err(|error| {
            Finding::new("", format_args!("cannot be read ({error}); type the path of a readable UTF-8 file"))
        });
        let document = read.and_then(|text| tree::parse(&text));
        document.map_err(|finding| self.wrong.push(finding.in_file(Some(path)))).ok()
    }

    fn add_document(&mut self, document: &Node, file: Option<&Path>) {
        let found = read::read(&mut self.config, document);
        self.unread.extend(found.unread);
        self.wrong.extend(found.wrong.into_iter().map(|finding| finding.in_file(file)));
        let file = file.map(Path::to_owned);
        self.origins.extend(found.lines.into_iter().map(|(key, line)| (key, Origin::File(file.clone(), line))));
    }

    /// Adds what the environment sets. `get` is `|name| std::env::var(name).ok()` in the program, and a table in tests.
    ///
    /// A variable that is set but empty counts as not set, because compose files produce such variables. But an empty `NATS_URL` or
    /// `SHORTSTOP_MONITOR` means "none", like the empty key in the file.
    pub fn add_env(&mut self, get: impl Fn(&str) -> Option<String>) {
        for (name, setting) in VARIABLES {
            match get(name) {
                Some(text) if setting.may_be_empty() || !text.is_empty() => self.set(setting, &text, name),
                _ => {}
            }
        }
    }

    /// Adds one setting. `from` is the flag or variable, for messages.
    pub fn set(&mut self, setting: Setting, text: &str, from: &str) {
        match setting.change(&mut self.config, text) {
            Ok(keys) => self.origins.extend(keys.iter().map(|key| ((*key).to_owned(), Origin::Name(from.to_owned())))),
            Err(wrong) => self.wrong.push(Finding::new(from, wrong)),
        }
    }

    /// The configuration, if it is valid. `look` checks the files that it refers to. It may be called for an invalid configuration.
    ///
    /// # Errors
    /// All errors, each with its place and what to type.
    pub fn done(self, look: impl FnOnce(&Config) -> Vec<Finding>) -> Result<Loaded, ConfigError> {
        self.finish(|config| [check::all(config), look(config)].concat())
    }

    /// [`Sources::done`] with this check.
    pub(super) fn finish(mut self, check: impl FnOnce(&Config) -> Vec<Finding>) -> Result<Loaded, ConfigError> {
        // A key whose value could not be read still has its former value, which must not cause further errors.
        let is_read = |at: &str| !self.unread.iter().any(|unread| is_within(at, unread) || is_within(unread, at));
        let checked = check(&self.config).into_iter();
        let checked =
            checked.filter(|finding| is_read(finding.at()) && check::other_side(finding.at()).is_none_or(is_read));
        let checked: Vec<_> = checked.map(|finding| placed(&self.origins, finding)).collect();
        self.wrong.extend(checked);
        ConfigError::unless_empty(self.wrong)?;
        let typed = |key: &str| self.origins.contains_key(key);
        let doubtful = warn::all(&self.config, typed).into_iter().map(|finding| placed(&self.origins, finding));
        self.warnings.extend(doubtful);
        Ok(Loaded { config: self.config, warnings: self.warnings, origins: self.origins })
    }
}

impl Loaded {
    /// The variable or flag that sets a key, if it is not the file.
    pub(super) fn beats_the_file(&self, key: &str) -> Option<String> {
        match self.origins.get(key)? {
            Origin::Name(name) => Some(name.clone()),
            Origin::File(..) => None,
        }
    }

    /// All keys as YAML that can be loaded again, each with the place where it was set. Passwords are shown as `***`.
    pub fn to_yaml(&self) -> String {
        print(&mut self.config.clone(), |key| self.origins.get(key).map(Origin::to_string))
    }
}

/// Whether a path equals `above` or leads to something below it. Nothing is below the whole file.
fn is_within(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || !above.is_empty() && rest.starts_with(['.', '[']))
}

/// Adds a place to the finding: where its key was set, or the key above it, or the key that it contradicts.
fn placed(origins: &HashMap<String, Origin>, finding: Finding) -> Finding {
    let above = std::iter::successors(Some(finding.at()), |key| key.rfind(['.', '[']).map(|end| &key[..end]));
    let keys = [finding.at()].into_iter().chain(check::other_side(finding.at())).chain(above);
    let origin = keys.filter_map(|key| origins.get(key)).next();
    match origin {
        Some(Origin::File(file, line)) => {
            let (file, line) = (file.clone(), *line);
            finding.on_line(Some(line)).in_file(file.as_deref())
        }
        Some(Origin::Name(name)) => finding.set_by(name),
        None => finding,
    }
}

impl Config {
    /// Reads a configuration. Keys that it leaves out keep their defaults.
    ///
    /// # Errors
    /// All errors, each with line, key and what to type: invalid YAML, unknown keys, values that cannot be read, and values that
    /// are not allowed. Other sources may still supply what is missing: [`Config::check`] checks the whole.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        let mut sources = Sources::default();
        sources.add_yaml(text);
        sources.finish(check::fields).map(|loaded| loaded.config)
    }

    /// Checks everything that must hold before Shortstop starts.
    ///
    /// # Errors
    /// Names the keys and what to type. No lines, since the values may not come from a file.
    pub fn check(&self) -> Result<(), ConfigError> {
        ConfigError::unless_empty(check::all(self))
    }

    /// As YAML that can be loaded again, with all keys. Passwords are shown as `***`.
    pub fn to_yaml(&self) -> String {
        print(&mut self.clone(), |_| None)
    }

    /// The list of rules in YAML, one rule a line: what stands behind `rules:`.
    pub(super) fn rules_as_yaml(&self) -> String {
        if self.rules.is_empty() {
            return "[]".to_owned();
        }
        let rules = self.rules.iter().map(|rule| format!("\n  - {}", print::flow(&mut rule.clone())));
        rules.collect()
    }
}
