//! What is wrong with a configuration: where (file, line, key) and what to type. Holds text only, never a secret.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong or doubtful. Displays as `config.yaml: line 12: l1.max_memory: '256xb' is not a size; type …`,
/// leaving out what is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    file: Option<PathBuf>,
    line: Option<usize>,
    at: String,
    message: String,
}

impl Finding {
    /// `at` is the key (`l1.max_memory`), variable or flag; may be empty.
    pub fn new(at: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { file: None, line: None, at: at.into(), message: message.to_string() }
    }

    pub(super) fn on_line(self, line: Option<usize>) -> Self {
        Self { line, ..self }
    }

    pub(super) fn in_file(self, file: Option<&Path>) -> Self {
        Self { file: file.map(Path::to_owned), ..self }
    }

    /// The same about a value that came from this variable or flag.
    pub(super) fn set_by(self, name: &str) -> Self {
        Self { at: name.to_owned(), ..self }
    }

    /// Sorts by file and line, and puts last what has none.
    fn place(&self) -> impl Ord {
        (self.file.is_none(), self.file.as_deref(), self.line.unwrap_or(usize::MAX))
    }

    /// The line in the file, from 1; none for the environment, flags, and what no single line is to blame for.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// The key as a path (`rules[0].cache.ttl`), or the variable or flag; empty when the whole file is meant.
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

/// A configuration that is refused, for all of these reasons. Displays one a line; there is at least one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError(Vec<Finding>);

impl ConfigError {
    /// Good, or everything that is wrong: by file and line, then what has none.
    pub(super) fn unless_empty(mut findings: Vec<Finding>) -> Result<(), Self> {
        findings.sort_by(|one, other| one.place().cmp(&other.place()));
        if findings.is_empty() { Ok(()) } else { Err(Self(findings)) }
    }

    /// What is wrong.
    pub fn findings(&self) -> &[Finding] {
        &self.0
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
