//! The calls so far, and the report of a difference: the minimum that a person needs to understand it.

use std::fmt::Write as _;

use super::common::show;
use super::side::{Replies, Step};

/// Commands on the same keys that are shown.
const ON_KEYS: usize = 15;

/// Commands that are shown whatever their keys.
const OF_ALL: usize = 12;

/// One call that was answered.
struct Entry {
    connection: usize,
    args: Vec<Vec<u8>>,
    keys: Vec<Vec<u8>>,
    reply: String,
}

/// All calls, oldest first.
#[derive(Default)]
pub struct Past(Vec<Entry>);

impl Past {
    /// One more.
    pub fn add(&mut self, connection: usize, args: &[Vec<u8>], keys: Vec<Vec<u8>>, expected: &Replies) {
        let reply = expected.iter().map(|reply| show(reply)).collect::<Vec<_>>().join(" ");
        self.0.push(Entry { connection, args: args.to_vec(), keys, reply });
    }

    /// Another run begins.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// What differs in the call that was added last, and what came before it.
    pub fn report(&self, step: &Step, index: usize, got: &Replies, expected: &Replies) -> String {
        let Some(last) = self.0.last() else { return String::new() };
        let mut text = format!("answer {} differs\n", self.0.len());
        let all = |replies: &Replies| replies.iter().map(|reply| shown(reply)).collect::<Vec<_>>().join(" ");
        let lines = [
            ("command", words(&last.args)),
            ("connection", format!("{}, call {} of {} in one write", last.connection, index + 1, step.calls.len())),
            ("Redis", all(expected)),
            ("Shortstop", all(got)),
        ];
        for (name, line) in lines {
            let _ = writeln!(text, "  {name:10} {line}");
        }
        let (one, other) = (got.concat(), expected.concat());
        if let Some(first) = one.iter().zip(&other).position(|(one, other)| one != other) {
            let _ = writeln!(text, "  first difference at byte {first}");
        }
        let mut keys = last.keys.clone();
        if last.args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"exec")) {
            let queued = self.0.iter().rev().filter(|entry| entry.connection == last.connection).skip(1);
            let is_multi = |entry: &&Entry| entry.args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"multi"));
            keys = queued.take_while(|entry| !is_multi(entry)).flat_map(|entry| entry.keys.clone()).collect();
        }
        text + &self.history(&keys)
    }

    /// The last commands on these keys (without any: of the same family on the same connection), and the last of all;
    /// oldest first.
    pub fn history(&self, keys: &[Vec<u8>]) -> String {
        let all = || self.0.iter().enumerate().rev();
        let on_keys = all().filter(|(_, entry)| match self.0.last() {
            Some(last) if keys.is_empty() => entry.connection == last.connection && is_family(entry, last),
            _ => entry.keys.iter().any(|key| keys.contains(key)),
        });
        let mut on_keys: Vec<String> = on_keys.take(ON_KEYS).map(line).collect();
        let mut last: Vec<String> = all().take(OF_ALL).map(line).collect();
        on_keys.reverse();
        last.reverse();
        format!(
            "the last commands on the same keys, or of the same family:\n{}the last commands:\n{}",
            on_keys.concat(),
            last.concat()
        )
    }
}

/// The same command, or one that may change what it answers whatever it is.
fn is_family(entry: &Entry, of: &Entry) -> bool {
    let name = |entry: &Entry| entry.args.first().map(|name| name.to_ascii_lowercase());
    name(entry) == name(of) || name(entry).is_some_and(|name| [&b"reset"[..], b"hello", b"auth"].contains(&&name[..]))
}

fn line((at, entry): (usize, &Entry)) -> String {
    format!("  {:>6} c{} {} -> {}\n", at + 1, entry.connection, words(&entry.args), entry.reply)
}

fn words(args: &[Vec<u8>]) -> String {
    if args.is_empty() {
        return "(nothing)".to_owned();
    }
    args.iter().map(|arg| show(arg)).collect::<Vec<_>>().join(" ")
}

fn shown(reply: &[u8]) -> String {
    let head = reply[..reply.len().min(1500)].escape_ascii();
    format!("\"{head}\" ({} bytes)", reply.len())
}
