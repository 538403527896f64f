//! Reads the configuration from the file. Finds all errors at once: a value that cannot be read is reported, and its key keeps its
//! former value.
//!
//! A text that may contain a secret is not quoted: in `upstream redis://:password@host`, where the colon is missing, the whole line
//! is one scalar.

use std::collections::HashMap;
use std::fmt::Display;

use super::error::Finding;
use super::fields::{Fields, Patch, Section, Switch, WordList, keys};
use super::tree::{Key, Node, Value};
use super::units::{self, Kind, Wrong};

/// The result of reading a file.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The errors.
    pub wrong: Vec<Finding>,
    /// The line of each key in the file, by its path.
    pub lines: HashMap<String, usize>,
    /// The paths of keys whose values could not be read.
    pub unread: Vec<String>,
}

/// Reads everything in `document` into `section`.
pub(super) fn read(section: &mut impl Section, document: &Node) -> Found {
    let everywhere = keys(section);
    let mut found = Found::default();
    let mut reader = Reader { path: "", entries: &[], known: Vec::new(), everywhere: &everywhere, found: &mut found };
    reader.below("", document, section, "`key: value` lines, a space after the colon");
    found
}

/// Whether a document belongs to another program: it has keys, and none of them is a key of the section.
pub(super) fn is_of_another_program(section: &mut impl Section, document: &Node) -> bool {
    let known = keys(section);
    match &document.value {
        Value::Map(map) => !map.is_empty() && !map.iter().any(|(key, _)| known.contains(&key.text)),
        _ => false,
    }
}

struct Reader<'a> {
    /// The path of the section. Empty for the whole file.
    path: &'a str,
    entries: &'a [(Key, Node)],
    /// The keys that the section has asked for.
    known: Vec<&'static str>,
    /// The paths of all keys that a file can have.
    everywhere: &'a [String],
    found: &'a mut Found,
}

impl<'a> Reader<'a> {
    /// Reports that the value of `at` cannot be read.
    fn wrong(&mut self, at: &str, line: usize, what: impl Display) {
        self.note(at, line, what);
        self.found.unread.push(at.to_owned());
    }

    /// Reports an error at `at` that is not about a value.
    fn note(&mut self, at: &str, line: usize, what: impl Display) {
        self.found.wrong.push(Finding::new(at, what).on_line(Some(line)));
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The node of a key and its path, if the file has the key.
    fn entry(&mut self, key: &'static str) -> Option<(&'a Node, String)> {
        self.known.push(key);
        let entries = self.entries;
        let mut nodes = entries.iter().filter(|(known, _)| known.text == key);
        let (first, node) = nodes.next()?;
        for (second, _) in nodes {
            self.note(self.path, second.line, format_args!("the key '{key}' is there twice; type it once"));
        }
        let path = self.path_of(key);
        self.found.lines.insert(path.clone(), first.line);
        Some((node, path))
    }

    /// Reads a section from a node, which should be a mapping.
    fn below(&mut self, path: &str, node: &'a Node, section: &mut impl Section, remedy: &str) {
        let entries: &[_] = match &node.value {
            Value::Map(map) => map,
            // A key with nothing below it, or with all lines below it commented out.
            Value::Nothing(_) => &[],
            Value::Scalar(_) | Value::List(_) => {
                self.wrong(path, node.line, misfit(remedy));
                return;
            }
        };
        let mut reader =
            Reader { path, entries, known: Vec::new(), everywhere: self.everywhere, found: &mut *self.found };
        section.fields(&mut reader);
        reader.unknown_keys();
    }

    fn unknown_keys(&mut self) {
        let entries = self.entries;
        for (key, _) in entries {
            if !self.known.contains(&key.text.as_str()) {
                let what = self.unknown(&key.text);
                self.note(self.path, key.line, what);
            }
        }
    }

    fn unknown(&self, key: &str) -> String {
        // It may be a URL with a password, if the colon and space after the key are missing.
        if key.is_empty() || key.contains(['/', '@']) {
            return format!("there is no such key here; type {}", one_of(&self.known));
        }
        let shown: String = key.chars().take(60).flat_map(char::escape_debug).collect();
        let elsewhere = self.everywhere.iter().find(|path| path.rsplit('.').next() == Some(key));
        let close = units::closest(key, self.known.iter().copied()).map(str::to_owned);
        let meant = elsewhere.cloned().or(close).map(|path| format!(" (did you mean {path}?)")).unwrap_or_default();
        format!("there is no key '{shown}' here{meant}; type {}", one_of(&self.known))
    }

    /// The text of a scalar, exactly as typed. `remedy` completes "type …" for any other node.
    fn text(&mut self, path: &str, node: &'a Node, remedy: &str) -> Option<&'a str> {
        match &node.value {
            Value::Scalar(text) | Value::Nothing(text) => Some(text),
            Value::List(_) | Value::Map(_) => {
                self.wrong(path, node.line, misfit(remedy));
                None
            }
        }
    }

    fn scalar<T>(&mut self, key: &'static str, kind: &Kind<T>) -> Option<T> {
        let (node, path) = self.entry(key)?;
        let text = self.text(&path, node, "a single value")?;
        self.noted(&path, node.line, (kind.parse)(text))
    }

    fn noted<T>(&mut self, path: &str, line: usize, result: Result<T, Wrong>) -> Option<T> {
        result.map_err(|what| self.wrong(path, line, what)).ok()
    }
}

impl Fields for Reader<'_> {
    fn value<T>(&mut self, key: &'static str, value: &mut T, kind: Kind<T>) {
        if let Some(typed) = self.scalar(key, &kind) {
            *value = typed;
        }
    }

    fn maybe<T>(&mut self, key: &'static str, value: &mut Option<T>, kind: Kind<T>) {
        if let Some(typed) = self.scalar(key, &kind) {
            *value = Some(typed);
        }
    }

    fn words<T>(&mut self, key: &'static str, value: &mut T, kind: WordList<T>) {
        let mut typed = None;
        self.maybe_words(key, &mut typed, kind);
        if let Some(typed) = typed {
            *value = typed;
        }
    }

    fn maybe_words<T>(&mut self, key: &'static str, value: &mut Option<T>, kind: WordList<T>) {
        let Some((node, path)) = self.entry(key) else { return };
        match &node.value {
            Value::Scalar(text) => {
                if let Some(typed) = self.noted(&path, node.line, (kind.word)(text)) {
                    *value = Some(typed);
                }
            }
            Value::List(list) => {
                let mut typed = (kind.empty)();
                for (index, node) in list.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    if let Some(text) = self.text(&path, node, "a single word") {
                        self.noted(&path, node.line, (kind.add)(&mut typed, text));
                    }
                }
                *value = Some(typed);
            }
            // The same as a key that is left out.
            Value::Nothing(_) => {}
            Value::Map(_) => self.wrong(&path, node.line, misfit(kind.remedy)),
        }
    }

    fn section(&mut self, key: &'static str, section: &mut impl Section) {
        if let Some((node, path)) = self.entry(key) {
            self.below(&path, node, section, "`key: value` lines below it");
        }
    }

    fn switch<P: Patch>(&mut self, key: &'static str, switch: &mut Option<Switch<P>>) {
        let Some((node, path)) = self.entry(key) else { return };
        let mut patch = match switch.take() {
            Some(Switch::On(patch)) => patch,
            Some(Switch::Off) | None => P::default(),
        };
        match &node.value {
            Value::Scalar(text) => match units::switch(text) {
                Ok(on) => *switch = Some(if on { Switch::On(patch) } else { Switch::Off }),
                // A value that is no switch may be the short form of a section.
                Err(_) => {
                    *switch = Some(
                        self.noted(&path, node.line, patch.take_word(text)).map_or(Switch::Off, |()| Switch::On(patch)),
                    )
                }
            },
            Value::Nothing(_) | Value::Map(_) => {
                self.below(&path, node, &mut patch, "");
                *switch = Some(Switch::On(patch));
            }
            Value::List(_) => {
                self.wrong(&path, node.line, misfit("false, true, or `key: value` lines below it"));
                *switch = Some(Switch::On(patch));
            }
        }
    }

    fn list<S: Section + Default>(&mut self, key: &'static str, list: &mut Vec<S>, needs: &'static str) {
        let Some((node, path)) = self.entry(key) else { return };
        let nodes: &[Node] = match &node.value {
            Value::List(nodes) => nodes,
            Value::Nothing(_) => &[],
            Value::Scalar(_) | Value::Map(_) => {
                self.wrong(&path, node.line, misfit(&format!("a list: `- {needs}: \"pattern\"` lines, or []")));
                return;
            }
        };
        list.clear();
        for (index, node) in nodes.iter().enumerate() {
            let path = format!("{path}[{index}]");
            self.found.lines.insert(path.clone(), node.line);
            let mut section = S::default();
            section.stands_on(node.line);
            self.below(&path, node, &mut section, &format!("`{needs}: \"pattern\"` and what the rule changes"));
            list.push(section);
            let is_there = match &node.value {
                Value::Map(map) => map.iter().any(|(key, _)| key.text == needs),
                Value::Nothing(_) => false,
                // The item as a whole is wrong.
                Value::Scalar(_) | Value::List(_) => true,
            };
            if !is_there {
                self.note(&path, node.line, format_args!("the key '{needs}' is missing; type {needs}: and its value"));
                self.found.unread.push(format!("{path}.{needs}"));
            }
        }
    }
}

/// A list or a mapping stands where neither is expected, or one of them is expected and missing.
fn misfit(remedy: &str) -> String {
    format!("this does not fit here; type {remedy}")
}

fn one_of(keys: &[&str]) -> String {
    match keys {
        [one] => (*one).to_owned(),
        keys => format!("one of {}", keys.join(", ")),
    }
}
