//! Hand-written scenes, read from `data/scenes.txt`, which says what its lines mean.

use shortstop::codec::{self, Codec, CompressOptions, MARK};

use super::common::prose;
use super::side::{Call, Due, Step};

const TEXT: &str = include_str!("../data/scenes.txt");

/// What a client does, and what it is called.
#[derive(Clone)]
pub struct Scene {
    /// In the report.
    pub name: &'static str,
    lines: Vec<&'static str>,
}

/// The scenes below one of the titles: `both`, `handshake`, `RESP2`, `RESP3`, `faults`.
pub fn below(title: &str) -> Vec<Scene> {
    let mut scenes: Vec<Scene> = Vec::new();
    let mut current = "";
    for line in TEXT.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(title) = line.strip_prefix("== ") {
            current = title;
        } else if current == title {
            match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                Some(name) => scenes.push(Scene { name, lines: Vec::new() }),
                None => scenes.last_mut().expect("a name comes first").lines.extend(line.split("; ")),
            }
        }
    }
    assert!(!scenes.is_empty(), "data/scenes.txt has nothing below {title}");
    scenes
}

impl Scene {
    /// Line by line.
    pub fn steps(&self) -> Vec<Step> {
        self.lines.iter().map(|line| step(line)).collect()
    }

    /// All in one write, if no line needs another connection, an event or the end.
    pub fn in_one_write(&self) -> Option<Vec<Step>> {
        let steps = self.steps();
        let fits = |step: &Step| {
            let call = &step.calls[0];
            step.connection == 0 && !step.blocks() && call.due != Due::End && !call.bytes.is_empty()
        };
        let calls = steps.iter().flat_map(|step| step.calls.clone()).collect();
        (steps.len() > 1 && steps.iter().all(fits)).then(|| vec![Step::new(0, calls)])
    }

    /// Whether somebody is refused by a password, which not every server tells when more was sent.
    pub fn has_a_wrong_login(&self) -> bool {
        self.lines.iter().any(|line| ["AUTH nobody", "AUTH alice wrong"].iter().any(|login| line.contains(login)))
    }

    /// The first words of its lines, and the first two of each.
    pub fn commands(&self) -> Vec<String> {
        let calls = self.steps().into_iter().flat_map(|step| step.calls);
        let words = |call: &Call| String::from_utf8_lossy(&call.args.join(&b'|')).to_ascii_lowercase();
        let two = |words: String| words.split('|').take(2).collect::<Vec<_>>().join("|");
        let all: Vec<String> = calls.map(|call| two(words(&call))).collect();
        let one = all.iter().filter_map(|words| words.split('|').next().map(str::to_owned));
        one.chain(all.clone()).collect()
    }
}

fn step(line: &str) -> Step {
    let (connection, line) = match line.as_bytes() {
        [letter @ b'a'..=b'z', b':', b' ', ..] => (usize::from(letter - b'a'), &line[3..]),
        _ => (0, line),
    };
    let (text, due) = match line.rsplit_once("=> ") {
        Some((text, due)) => (text.trim_end_matches(' '), due),
        None => (line, "1"),
    };
    match due {
        "end" => Step::new(connection, vec![call(text, Due::End)]),
        "blocked" => Step::new(connection, vec![call(text, Due::Replies(0))]).until_blocked(),
        count => {
            let count = count.parse().unwrap_or_else(|_| panic!("a count, `end` or `blocked`: {line}"));
            Step::new(connection, vec![call(text, Due::Replies(count))])
        }
    }
}

fn call(text: &str, due: Due) -> Call {
    if let Some(raw) = text.strip_prefix("raw ") {
        let bytes = unescaped(raw);
        return Call { args: vec![bytes.clone()], bytes, due };
    }
    if text.is_empty() {
        return Call::silence(due);
    }
    Call::with(text.split(' ').map(word).collect(), due)
}

fn unescaped(text: &str) -> Vec<u8> {
    let marks = [("\\r", "\r"), ("\\n", "\n"), ("\\t", "\t")];
    let parts =
        text.split("\\\\").map(|part| marks.iter().fold(part.to_owned(), |part, (from, to)| part.replace(from, to)));
    parts.collect::<Vec<_>>().join("\\").into_bytes()
}

/// Values that a line cannot hold.
fn word(word: &str) -> Vec<u8> {
    match word {
        "_" => Vec::new(),
        "LONG" => prose(700, 1),
        "OTHER" => prose(900, 2),
        "MARK" => MARK.to_vec(),
        "MARKED" => [&MARK[..], b"and more"].concat(),
        "SEALED" => {
            let how = CompressOptions { codec: Codec::Gzip, level: 3, min_size: 0, min_saving: 0 };
            codec::compress(&prose(500, 3), Some(&how)).expect("text gets smaller")
        }
        other => other.as_bytes().to_vec(),
    }
}
