//! A YAML document as a tree in which each node knows its line. Knows YAML, and nothing of Shortstop's keys.
//!
//! The text comes from a user: its depth and the size of its aliases are bounded, and no error quotes it.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::error::Finding;

/// Maximum nesting of lists and mappings.
const MAX_DEPTH: usize = 32;
/// Maximum number of nodes in a document, with those that its aliases repeat.
const MAX_NODES: usize = 100_000;

/// A value, and the line (from 1) on which it begins.
#[derive(Clone, Debug)]
pub struct Node {
    /// The line, from 1.
    pub line: usize,
    /// The value.
    pub value: Value,
}

/// The value of a node.
#[derive(Clone, Debug)]
pub enum Value {
    /// The text of a scalar as typed, without quotes.
    Scalar(String),
    /// No value, or `~` or `null` without quotes.
    Nothing(String),
    /// `- item` lines, or `[item, …]`.
    List(Vec<Node>),
    /// `key: value` lines, or `{key: value, …}`, in their order. A key that is no scalar has no text.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub struct Key {
    /// The line, from 1.
    pub line: usize,
    /// As typed, without quotes. Empty if the key is a list or a mapping.
    pub text: String,
}

/// Parses a text that contains one document. An empty text is an empty mapping.
///
/// # Errors
/// It is not YAML, contains more than one document, or is too deep or too large.
pub fn parse(text: &str) -> Result<Node, Finding> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| wrong(error.marker().line(), error.info()))?;
        let line = span.start.line();
        builder.take(event, line).map_err(|what| wrong(line, what))?;
    }
    Ok(builder.root.unwrap_or(Node { line: 1, value: Value::Map(Vec::new()) }))
}

/// The parser's own messages are fixed and quote at most one character.
fn wrong(line: usize, what: &str) -> Finding {
    let message = format!("this is not YAML that can be read ({what}); type `key: value` lines, indented with spaces");
    Finding::new("", message).on_line(Some(line))
}

#[derive(Default)]
struct Builder {
    /// The open lists and mappings, the innermost last.
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    documents: usize,
    root: Option<Node>,
}

struct Open {
    line: usize,
    anchor: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    /// The key is kept here until its value has been parsed.
    Map(Vec<(Key, Node)>, Option<Key>),
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), &'static str> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err("a second document begins");
                }
            }
            Event::Scalar(text, style, anchor, _) => {
                let is_nothing = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let text = text.into_owned();
                let value = if is_nothing { Value::Nothing(text) } else { Value::Scalar(text) };
                self.add(Node { line, value }, anchor)?;
            }
            Event::SequenceStart(anchor, _) => self.open(line, anchor, Kind::List(Vec::new()))?,
            Event::MappingStart(anchor, _) => self.open(line, anchor, Kind::Map(Vec::new(), None))?,
            Event::SequenceEnd | Event::MappingEnd => {
                let Open { line, anchor, kind } = self.open.pop().ok_or("an end without a beginning")?;
                let value = match kind {
                    Kind::List(list) => Value::List(list),
                    Kind::Map(map, _) => Value::Map(map),
                };
                self.add(Node { line, value }, anchor)?;
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned().ok_or("an alias within what it stands for")?;
                self.nodes += size(&node);
                self.add(Node { line, ..node }, 0)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn open(&mut self, line: usize, anchor: usize, kind: Kind) -> Result<(), &'static str> {
        if self.open.len() == MAX_DEPTH {
            return Err("lists and mappings are nested too deeply");
        }
        self.open.push(Open { line, anchor, kind });
        Ok(())
    }

    /// Adds a complete node. `anchor` is its number for aliases. 0: none.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), &'static str> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err("it is too long");
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(Kind::List(list)) => list.push(node),
            Some(Kind::Map(map, key)) => match key.take() {
                Some(key) => map.push((key, node)),
                None => {
                    let text = match node.value {
                        Value::Scalar(text) | Value::Nothing(text) => text,
                        Value::List(_) | Value::Map(_) => String::new(),
                    };
                    *key = Some(Key { line: node.line, text });
                }
            },
        }
        Ok(())
    }
}

/// Number of nodes in it.
fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Scalar(_) | Value::Nothing(_) => 0,
        Value::List(list) => list.iter().map(size).sum(),
        Value::Map(map) => map.iter().map(|(_, node)| 1 + size(node)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Node, Value, parse};

    /// A node with its lines: `1{a@1: 1=x}`.
    fn show(node: &Node) -> String {
        let line = node.line;
        match &node.value {
            Value::Scalar(text) => format!("{line}={text}"),
            Value::Nothing(_) => format!("{line}~"),
            Value::List(list) => format!("{line}[{}]", list.iter().map(show).collect::<Vec<_>>().join(", ")),
            Value::Map(map) => {
                let map: Vec<_> =
                    map.iter().map(|(key, node)| format!("{}@{}: {}", key.text, key.line, show(node))).collect();
                format!("{line}{{{}}}", map.join(", "))
            }
        }
    }

    #[test]
    fn every_node_knows_its_line() {
        for (text, expected) in [
            ("", "1{}"),
            ("# nothing\n", "1{}"),
            ("a: 1\nb:\n  c: '2'\n", "1{a@1: 1=1, b@2: 3{c@3: 3=2}}"),
            ("b:\n  d: { e: 3,\n    f: 4 }", "1{b@1: 2{d@2: 2{e@2: 2=3, f@3: 3=4}}}"),
            ("list:\n- x: 1\n- [y]\n-\n", "1{list@1: 2[2{x@2: 2=1}, 3[3=y], 4~]}"),
            ("a: ~\nb: 'null'\nc: null", "1{a@1: 1~, b@2: 2=null, c@3: 3~}"),
            ("a: &x { k: 1 }\nb: *x", "1{a@1: 1{k@1: 1=1}, b@2: 2{k@1: 1=1}}"),
            ("{[a]: 1}", "1{@1: 1=1}"),
        ] {
            let node = parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            assert_eq!(show(&node), expected, "{text:?}");
        }
    }

    #[test]
    fn deep_or_large_documents_are_refused() {
        let deep = "[".repeat(100_000);
        let laughs = (1..12).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
            let above = level - 1;
            format!("{text}a{level}: &a{level} [{}]\n", vec![format!("*a{above}"); 10].join(", "))
        });
        for text in [&deep, &laughs, "a: 1\n---\nb: 2", "a: &x [*x]", "a: *x"] {
            assert!(parse(text).is_err(), "{:.40}", text);
        }
    }
}
