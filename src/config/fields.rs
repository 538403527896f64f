//! Each section of the configuration lists its keys once, for all purposes: [`super::read`] reads them from the file,
//! [`super::print`] writes them, and [`keys`] lists them.
//!
//! To add a key: add a field to the section's struct, its default, a line in its `fields`, its limits in `check`, and its comment
//! in `config.yaml`. To add a section: add a struct that is a [`Section`], and one line in the `fields` of `Config`.

use super::units::{Kind, Wrong};

/// Visits the fields of a section one by one.
pub(super) trait Fields {
    /// A key with a scalar.
    fn value<T>(&mut self, key: &'static str, value: &mut T, kind: Kind<T>);

    /// A key with a scalar that may be left out, which differs from any value.
    fn maybe<T>(&mut self, key: &'static str, value: &mut Option<T>, kind: Kind<T>);

    /// A key with a word, or a list of words.
    fn words<T>(&mut self, key: &'static str, value: &mut T, kind: WordList<T>);

    /// Like `words`, but may be left out.
    fn maybe_words<T>(&mut self, key: &'static str, value: &mut Option<T>, kind: WordList<T>);

    /// A key with a section below it.
    fn section(&mut self, key: &'static str, section: &mut impl Section);

    /// A key with `false`, `true`, or a section below it. `None` if it is left out.
    fn switch<P: Patch>(&mut self, key: &'static str, switch: &mut Option<Switch<P>>);

    /// A key with a list of sections, each of which must have the key `needs`.
    fn list<S: Section + Default>(&mut self, key: &'static str, list: &mut Vec<S>, needs: &'static str);
}

/// A part of the file: `key: value` lines.
pub(super) trait Section {
    /// Passes each field to `fields`, in the order of `config.yaml`.
    fn fields(&mut self, fields: &mut impl Fields);

    /// The section is an item of a list, and stands on this line of its file.
    fn stands_on(&mut self, _line: usize) {}
}

/// `false`, or a set of changes. `true` is an empty set of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Switch<P> {
    /// Typed as `false`.
    Off,
    /// Typed as a mapping, or `true`.
    On(P),
}

/// The section below a switch. A single word may be typed in its place.
pub(super) trait Patch: Section + Clone + Default + PartialEq {
    /// Parses a word that is neither `true` nor `false`.
    fn take_word(&mut self, text: &str) -> Result<(), Wrong>;
}

/// A kind of value that is a word or a list of words.
pub(super) struct WordList<T> {
    /// Parses a single word.
    pub word: fn(&str) -> Result<T, Wrong>,
    /// The value of an empty list.
    pub empty: fn() -> T,
    /// Adds a word of the list.
    pub add: fn(&mut T, &str) -> Result<(), Wrong>,
    /// The word, or the words of the list, to print.
    pub show: fn(&T) -> Result<String, Vec<String>>,
    /// Completes "type …" in the error for any other value.
    pub remedy: &'static str,
}

/// The paths of all keys of a section, such as `l1.max_memory`, without those within lists.
pub(super) fn keys(section: &mut impl Section) -> Vec<String> {
    let mut keys = Keys::default();
    section.fields(&mut keys);
    keys.paths
}

#[derive(Default)]
struct Keys {
    above: String,
    paths: Vec<String>,
}

impl Keys {
    fn add(&mut self, key: &str) {
        self.paths.push(format!("{}{key}", self.above));
    }

    fn below(&mut self, key: &str, section: &mut impl Section) {
        self.add(key);
        let above = format!("{}{key}.", self.above);
        let before = std::mem::replace(&mut self.above, above);
        section.fields(self);
        self.above = before;
    }
}

impl Fields for Keys {
    fn value<T>(&mut self, key: &'static str, _: &mut T, _: Kind<T>) {
        self.add(key);
    }

    fn maybe<T>(&mut self, key: &'static str, _: &mut Option<T>, _: Kind<T>) {
        self.add(key);
    }

    fn words<T>(&mut self, key: &'static str, _: &mut T, _: WordList<T>) {
        self.add(key);
    }

    fn maybe_words<T>(&mut self, key: &'static str, _: &mut Option<T>, _: WordList<T>) {
        self.add(key);
    }

    fn section(&mut self, key: &'static str, section: &mut impl Section) {
        self.below(key, section);
    }

    fn switch<P: Patch>(&mut self, key: &'static str, _: &mut Option<Switch<P>>) {
        self.below(key, &mut P::default());
    }

    fn list<S: Section + Default>(&mut self, key: &'static str, _: &mut Vec<S>, _: &'static str) {
        self.add(key);
    }
}
