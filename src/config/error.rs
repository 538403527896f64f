//! What is wrong with a configuration: where (file, line, key) and what to type. Holds text only, never a secret.

use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A configuration that is refused. Displays as `config.yaml: line 12: l1.max_memory: '256mib' is not a size; type …`,
/// leaving out what is not known.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub struct ConfigError {
    file: Option<PathBuf>,
    line: Option<usize>,
    at: String,
    message: String,
}

impl ConfigError {
    /// `at` is the key (`l1.max_memory`), variable or flag; may be empty.
    pub(super) fn new(at: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { file: None, line: None, at: at.into(), message: message.to_string() }
    }

    pub(super) fn with_line(self, line: Option<usize>) -> Self {
        Self { line, ..self }
    }

    pub(super) fn with_file(self, file: &Path) -> Self {
        Self { file: Some(file.to_owned()), ..self }
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

impl fmt::Display for ConfigError {
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
