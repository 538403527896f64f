//! The configuration as YAML that can be loaded again. Passwords are printed as `***`.

use super::body::RuleSpec;
use super::fields::{Fields, Patch, Section, Switch, WordList};
use super::units::Kind;

/// All keys of a section with their values. `origin` returns where the value of a path comes from, for a comment beside it.
pub(super) fn print(section: &mut impl Section, origin: impl Fn(&str) -> Option<String>) -> String {
    let mut printer = Printer::new(&origin);
    section.fields(&mut printer);
    printer.text
}

/// The paths of all keys of a section that have a value, each with its value as it is printed.
pub(super) fn values(section: &mut impl Section) -> Vec<(String, String)> {
    let mut printer = Printer::new(&|_| None);
    section.fields(&mut printer);
    printer.values
}

/// A section on one line, as a mapping in braces.
pub(super) fn flow(section: &mut impl Section) -> String {
    let entries: Vec<String> = entries(section).into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
    format!("{{ {} }}", entries.join(", "))
}

/// The keys of a section that have a value, each with its value on one line.
pub(super) fn entries(section: &mut impl Section) -> Vec<(&'static str, String)> {
    let mut flow = Flow(Vec::new());
    section.fields(&mut flow);
    flow.0
}

/// The keys with their values.
struct Flow(Vec<(&'static str, String)>);

impl Fields for Flow {
    fn value<T>(&mut self, key: &'static str, value: &mut T, kind: Kind<T>) {
        self.0.push((key, scalar(&(kind.show)(value))));
    }

    fn maybe<T>(&mut self, key: &'static str, value: &mut Option<T>, kind: Kind<T>) {
        if let Some(value) = value {
            self.value(key, value, kind);
        }
    }

    fn words<T>(&mut self, key: &'static str, value: &mut T, kind: WordList<T>) {
        self.0.push((key, words(value, &kind)));
    }

    fn maybe_words<T>(&mut self, key: &'static str, value: &mut Option<T>, kind: WordList<T>) {
        if let Some(value) = value {
            self.words(key, value, kind);
        }
    }

    fn section(&mut self, key: &'static str, section: &mut impl Section) {
        self.0.push((key, flow(section)));
    }

    fn switch<P: Patch>(&mut self, key: &'static str, switch: &mut Option<Switch<P>>) {
        match switch {
            None => {}
            Some(Switch::Off) => self.0.push((key, "false".to_owned())),
            Some(Switch::On(patch)) if *patch == P::default() => self.0.push((key, "true".to_owned())),
            Some(Switch::On(patch)) => self.section(key, patch),
        }
    }

    fn list<S: Section + Default>(&mut self, key: &'static str, list: &mut Vec<S>, _: &'static str) {
        let items: Vec<String> = list.iter_mut().map(flow).collect();
        self.0.push((key, format!("[{}]", items.join(", "))));
    }
}

/// A word, or the list of words in brackets.
fn words<T>(value: &T, kind: &WordList<T>) -> String {
    match (kind.show)(value) {
        Ok(word) => scalar(&word),
        Err(list) => format!("[{}]", list.iter().map(|word| scalar(word)).collect::<Vec<_>>().join(", ")),
    }
}

/// The section `rules` with these rules.
pub fn rules_as_yaml(rules: &[RuleSpec]) -> String {
    struct Rules(Vec<RuleSpec>);

    impl Section for Rules {
        fn fields(&mut self, fields: &mut impl Fields) {
            fields.list("rules", &mut self.0, "match");
        }
    }

    print(&mut Rules(rules.to_vec()), |_| None)
}

struct Printer<'a> {
    text: String,
    /// The paths and values of the lines.
    values: Vec<(String, String)>,
    indent: usize,
    /// The next line begins an item of a list.
    dash: bool,
    path: String,
    origin: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Printer<'a> {
    fn new(origin: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Printer { text: String::new(), values: Vec::new(), indent: 0, dash: false, path: String::new(), origin }
    }

    fn line(&mut self, key: &str, value: &str) {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        let indent = "  ".repeat(self.indent - usize::from(self.dash));
        let dash = if std::mem::take(&mut self.dash) { "- " } else { "" };
        let space = if value.is_empty() { "" } else { " " };
        let origin = (self.origin)(&path).map(|origin| format!("  # {origin}")).unwrap_or_default();
        self.text.push_str(&format!("{indent}{dash}{key}:{space}{value}{origin}\n"));
        if !value.is_empty() {
            self.values.push((path, value.to_owned()));
        }
    }

    fn below(&mut self, key: &str, section: &mut impl Section) {
        let before = self.path.clone();
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(key);
        self.indent += 1;
        section.fields(self);
        self.indent -= 1;
        self.path = before;
    }
}

impl Fields for Printer<'_> {
    fn value<T>(&mut self, key: &'static str, value: &mut T, kind: Kind<T>) {
        self.line(key, &scalar(&(kind.show)(value)));
    }

    fn maybe<T>(&mut self, key: &'static str, value: &mut Option<T>, kind: Kind<T>) {
        if let Some(value) = value {
            self.value(key, value, kind);
        }
    }

    fn words<T>(&mut self, key: &'static str, value: &mut T, kind: WordList<T>) {
        self.line(key, &words(value, &kind));
    }

    fn maybe_words<T>(&mut self, key: &'static str, value: &mut Option<T>, kind: WordList<T>) {
        if let Some(value) = value {
            self.words(key, value, kind);
        }
    }

    fn section(&mut self, key: &'static str, section: &mut impl Section) {
        self.line(key, "");
        self.below(key, section);
    }

    fn switch<P: Patch>(&mut self, key: &'static str, switch: &mut Option<Switch<P>>) {
        match switch {
            None => {}
            Some(Switch::Off) => self.line(key, "false"),
            Some(Switch::On(patch)) if *patch == P::default() => self.line(key, "true"),
            Some(Switch::On(patch)) => self.section(key, patch),
        }
    }

    fn list<S: Section + Default>(&mut self, key: &'static str, list: &mut Vec<S>, _: &'static str) {
        if list.is_empty() {
            return self.line(key, "[]");
        }
        self.line(key, "");
        for (index, section) in list.iter_mut().enumerate() {
            self.indent += 1;
            self.dash = true;
            self.below(&format!("{key}[{index}]"), section);
            self.indent -= 1;
        }
    }
}

/// A scalar, in quotes unless it is certainly plain.
fn scalar(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:%=@*".contains(&byte);
    let is_plain = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(plain)
        && !text.ends_with(':')
        && !text.eq_ignore_ascii_case("null");
    // JSON strings are also YAML strings.
    if is_plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::scalar;
    use crate::config::tree::{Value, parse};

    #[test]
    fn a_scalar_is_read_as_it_was() {
        for text in [
            "",
            "a",
            "1kb",
            "null",
            "~",
            "user:*",
            "a b",
            "a: b",
            "a #b",
            "[a]",
            "\"",
            "\\",
            "\n",
            "é",
            "redis://h:1/0",
            "a:",
            "-",
            "***",
            "\u{7f}\u{1}",
        ] {
            let node =
                parse(&format!("k: {}  # comment", scalar(text))).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            let Value::Map(map) = node.value else { panic!("{text:?}") };
            assert!(matches!(&map[0].1.value, Value::Scalar(read) if read == text), "{text:?}");
        }
    }
}
