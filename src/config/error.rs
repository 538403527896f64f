//! Errors of a configuration: where (file, line, key) and what to type. Holds text only, never a secret.

use std::fmt;
use std::path::{Path, PathBuf};

/// An error or a warning. Displays as `config.yaml: line 12: l1.max_memory: '256xb' is not a size; type …`, without the parts that
/// are unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Finding {
    file: Option<PathBuf>,
    line: Option<usize>,
    at: String,
    message: String,
}

impl Finding {
    /// `at` is the key (`l1.max_memory`), the variable or the flag. It may be empty.
    pub fn new(at: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { file: None, line: None, at: at.into(), message: message.to_string() }
    }

    pub(super) fn on_line(self, line: Option<usize>) -> Self {
        Self { line, ..self }
    }

    pub(super) fn in_file(self, file: Option<&Path>) -> Self {
        Self { file: file.map(Path::to_owned), ..self }
    }

    /// The same finding, about this key.
    pub(super) fn below(self, at: String) -> Self {
        Self { at, ..self }
    }

    /// The same finding for a value that came from this variable or flag.
    pub(super) fn set_by(self, name: &str) -> Self {
        Self { at: name.to_owned(), ..self }
    }

    /// Sort key: by file and line; findings without a line come last.
    fn place(&self) -> impl Ord {
        (self.file.is_none(), self.file.as_deref(), self.line.unwrap_or(usize::MAX))
    }

    /// The line in the file, from 1. `None` for the environment, for flags, and for findings without a single line.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// The key as a path (`rules[0].cache.ttl`), or the variable or flag. Empty for the whole file.
    pub fn at(&self) -> &str {
        &self.at
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.at.is_empty() {
            write!(f, "{}: ", self.at)?;
        }
        f.write_str(&self.message)
    }
}

/// A configuration that is refused, with all reasons. Displays one per line; there is at least one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError(Vec<Finding>);

impl ConfigError {
    /// `Ok` if there are no findings. Otherwise all of them, sorted by file and line; those without a line come last.
    pub(super) fn unless_empty(mut findings: Vec<Finding>) -> Result<(), Self> {
        findings.sort_by(|one, other| one.place().cmp(&other.place()));
        if findings.is_empty() { Ok(()) } else { Err(Self(findings)) }
    }

    /// The findings.
    pub fn findings(&self) -> &[Finding] {
        &self.0
    }
}

impl From<Finding> for ConfigError {
    fn from(finding: Finding) -> Self {
        Self(vec![finding])
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{finding}")?;
        }
        Ok(())
    }
}
