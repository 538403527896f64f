//! The raw table: the content of a server's `COMMAND` reply, and the compact text format of `builtin.tsv`.
//!
//! Only parses and writes it. `row.rs` and `decisions.rs` decide what a row means.

use std::fmt::Write as _;

use redis_protocol::resp2::types::BytesFrame;

use super::flags::Flags;
use super::keys::{Begin, Find, Spec};

/// Far more commands than any server has, but small enough to bound a broken reply. `Table` relies on it being below 65,535.
const MAX_ROWS: usize = 16_384;

/// Why a `COMMAND` reply could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// An error reply or something that is not a list.
    #[error("the reply to COMMAND is not a list of commands")]
    NotAList,
    /// Too many rows.
    #[error("the reply to COMMAND lists {0} commands, more than {MAX_ROWS}")]
    TooMany(usize),
    /// A row that does not have the documented format.
    #[error("row {row} of the reply to COMMAND: {what} is missing or of another type")]
    Row {
        /// Counted from 0, or the line of the built-in table. A subcommand counts as its container.
        row: usize,
        /// The part that was expected.
        what: &'static str,
    },
}

/// One command as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Lower case.
    pub name: Box<str>,
    pub arity: i32,
    pub flags: Flags,
    pub first: i32,
    pub last: i32,
    pub step: i32,
    /// `None` if the server is too old to have any.
    pub specs: Option<Vec<Spec>>,
    pub subs: Vec<Entry>,
}

impl Entry {
    /// A command without keys, of which only name and arity are known.
    pub(super) fn bare(name: &str, arity: i32) -> Entry {
        Entry {
            name: name.into(),
            arity,
            flags: Flags::empty(),
            first: 0,
            last: 0,
            step: 0,
            specs: Some(Vec::new()),
            subs: Vec::new(),
        }
    }

    /// Fills in what an old server does not say, from a newer server's row of the same name.
    pub(super) fn borrow_from(&mut self, known: &Entry) {
        // Redis 6 finds the key of XGROUP and OBJECT by the container's own numbers, which Redis 7 no longer has.
        let says_more = known.specs.as_ref().is_some_and(|specs| !specs.is_empty());
        if says_more || self.first == 0 {
            self.specs = known.specs.clone();
        }
        if self.subs.is_empty() {
            self.subs = known.subs.clone();
        }
    }
}

/// Parses the reply of `COMMAND` (RESP2).
pub(super) fn from_reply(reply: &BytesFrame) -> Result<Vec<Entry>, TableError> {
    let BytesFrame::Array(rows) = reply else {
        return Err(TableError::NotAList);
    };
    if rows.len() > MAX_ROWS {
        return Err(TableError::TooMany(rows.len()));
    }
    rows.iter()
        .enumerate()
        // A null stands for a command that was removed while the server built its reply.
        .filter(|(_, frame)| **frame != BytesFrame::Null)
        .map(|(row, frame)| command(frame, true).map_err(|what| TableError::Row { row, what }))
        .collect()
}

fn command(frame: &BytesFrame, with_subs: bool) -> Result<Entry, &'static str> {
    let fields = list(Some(frame), "the row")?;
    let mut entry = Entry {
        name: text(fields.first(), "the name")?.to_ascii_lowercase().into(),
        arity: number(fields.get(1), "the arity")?,
        flags: Flags::empty(),
        first: number(fields.get(3), "the first key")?,
        last: number(fields.get(4), "the last key")?,
        step: number(fields.get(5), "the key step")?,
        specs: None,
        subs: Vec::new(),
    };
    for flag in list(fields.get(2), "the flags")? {
        entry.flags |= flag_named(text(Some(flag), "a flag")?);
    }
    // Since Redis 6: ACL categories. Since Redis 7: tips, key specs, subcommands.
    if fields.len() > 6 {
        for category in list(fields.get(6), "the ACL categories")? {
            entry.flags |= flag_named(text(Some(category), "an ACL category")?);
        }
    }
    if fields.len() > 8 {
        let specs = list(fields.get(8), "the key specs")?.iter().map(spec);
        // A spec may be marked as not a key, such as the channel of SPUBLISH.
        entry.specs = Some(specs.filter_map(Result::transpose).collect::<Result<_, _>>()?);
    }
    if with_subs && fields.len() > 9 {
        entry.subs =
            list(fields.get(9), "the subcommands")?.iter().map(|sub| command(sub, false)).collect::<Result<_, _>>()?;
        let container = entry.name.clone();
        for sub in &mut entry.subs {
            // Redis names them "config|get". A server that names them "get" is accepted too.
            if !sub.name.contains('|') {
                sub.name = format!("{container}|{}", sub.name).into();
            }
        }
    }
    Ok(entry)
}

fn spec(frame: &BytesFrame) -> Result<Option<Spec>, &'static str> {
    let mut spec = Spec { changes: false, incomplete: false, begin: Begin::Unknown, find: Find::Unknown };
    for (name, value) in pairs(frame, "a key spec")? {
        match name {
            "flags" => {
                for flag in list(Some(value), "the key spec's flags")? {
                    match text(Some(flag), "a key spec's flag")? {
                        "not_key" => return Ok(None),
                        "RW" | "OW" | "RM" => spec.changes = true,
                        "incomplete" => spec.incomplete = true,
                        _ => {}
                    }
                }
            }
            "begin_search" => spec.begin = begin(value)?,
            "find_keys" => spec.find = find(value)?,
            _ => {}
        }
    }
    Ok(Some(spec))
}

fn begin(frame: &BytesFrame) -> Result<Begin, &'static str> {
    let (kind, fields) = kind_and_fields(frame)?;
    Ok(match kind {
        "index" => Begin::Index(field(&fields, "index")?),
        "keyword" => Begin::Keyword {
            word: text(fields.iter().find(|(name, _)| *name == "keyword").map(|(_, value)| *value), "keyword")?.into(),
            from: field(&fields, "startfrom")?,
        },
        _ => Begin::Unknown,
    })
}

fn find(frame: &BytesFrame) -> Result<Find, &'static str> {
    let (kind, fields) = kind_and_fields(frame)?;
    Ok(match kind {
        "range" => Find::Range {
            last: field(&fields, "lastkey")?,
            step: field(&fields, "keystep")?,
            limit: field(&fields, "limit")?,
        },
        "keynum" => Find::Count {
            at: field(&fields, "keynumidx")?,
            first: field(&fields, "firstkey")?,
            step: field(&fields, "keystep")?,
        },
        _ => Find::Unknown,
    })
}

/// RESP2's form of a map.
type Pairs<'a> = Vec<(&'a str, &'a BytesFrame)>;

/// `type`, and the pairs under `spec`.
fn kind_and_fields(frame: &BytesFrame) -> Result<(&str, Pairs<'_>), &'static str> {
    let mut kind = Err("a key spec's type");
    let mut fields = Vec::new();
    for (name, value) in pairs(frame, "a part of a key spec")? {
        match name {
            "type" => kind = text(Some(value), "a key spec's type"),
            "spec" => fields = pairs(value, "a key spec's numbers")?,
            _ => {}
        }
    }
    Ok((kind?, fields))
}

fn field(fields: &[(&str, &BytesFrame)], name: &'static str) -> Result<i32, &'static str> {
    number(fields.iter().find(|(field, _)| *field == name).map(|(_, value)| *value), name)
}

fn pairs<'a>(frame: &'a BytesFrame, what: &'static str) -> Result<Pairs<'a>, &'static str> {
    list(Some(frame), what)?
        .chunks_exact(2)
        .map(|pair| match pair {
            [name, value] => Ok((text(Some(name), what)?, value)),
            _ => Err(what),
        })
        .collect()
}

fn list<'a>(frame: Option<&'a BytesFrame>, what: &'static str) -> Result<&'a [BytesFrame], &'static str> {
    match frame {
        Some(BytesFrame::Array(items)) => Ok(items),
        _ => Err(what),
    }
}

fn text<'a>(frame: Option<&'a BytesFrame>, what: &'static str) -> Result<&'a str, &'static str> {
    match frame {
        Some(BytesFrame::SimpleString(text) | BytesFrame::BulkString(text)) => {
            std::str::from_utf8(text).map_err(|_| what)
        }
        _ => Err(what),
    }
}

fn number(frame: Option<&BytesFrame>, what: &'static str) -> Result<i32, &'static str> {
    match frame {
        Some(BytesFrame::Integer(number)) => i32::try_from(*number).map_err(|_| what),
        _ => Err(what),
    }
}

/// The server's words: flags and (with `@`) ACL categories.
const FLAG_NAMES: &[(&str, Flags)] = &[
    ("write", Flags::WRITE),
    ("readonly", Flags::READONLY),
    ("blocking", Flags::BLOCKING),
    ("movablekeys", Flags::MOVABLE_KEYS),
    ("noscript", Flags::NO_SCRIPT),
    ("pubsub", Flags::PUBSUB),
    ("admin", Flags::ADMIN),
    ("denyoom", Flags::DENYOOM),
    ("loading", Flags::LOADING),
    ("stale", Flags::STALE),
    ("no_auth", Flags::NO_AUTH),
    ("allow_busy", Flags::ALLOW_BUSY),
    ("no_multi", Flags::NO_MULTI),
    ("fast", Flags::FAST),
    ("module", Flags::MODULE),
    ("@blocking", Flags::BLOCKING),
    ("@pubsub", Flags::PUBSUB),
    ("@connection", Flags::CONNECTION),
    ("@transaction", Flags::TRANSACTION),
];

fn flag_named(name: &str) -> Flags {
    FLAG_NAMES.iter().find(|(word, _)| *word == name).map_or(Flags::empty(), |(_, flag)| *flag)
}

/// One line per command, sorted by name, with subcommands after their container. `#` begins a comment.
///
/// A key spec is `[w][?]begin:find`. `w`: the keys are changed. `?`: there are more keys. `begin` is `i1` (an index) or
/// `kSTREAMS,4` (after a word, searched from there). `find` is `r-1,1,2` (a range: last, step, limit), `n0,1,1` (a count: its
/// position, first key, step) or `x` (unknown). `-` is an empty column.
pub(super) fn to_lines(entries: &[Entry], title: &str) -> String {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut out = format!("# {title}\n# name\tarity\tflags\tfirst,last,step\tkey specs\n");
    for entry in sorted {
        line(entry, &mut out);
        let mut subs: Vec<&Entry> = entry.subs.iter().collect();
        subs.sort_by(|a, b| a.name.cmp(&b.name));
        for sub in subs {
            line(sub, &mut out);
        }
    }
    out
}

fn line(entry: &Entry, out: &mut String) {
    let Entry { name, arity, flags, first, last, step, specs, subs: _ } = entry;
    // If two words mean the same flag, the first is written.
    let mut seen = Flags::empty();
    let mut words = Vec::new();
    for (word, flag) in FLAG_NAMES.iter().filter(|(_, flag)| flags.contains(*flag)) {
        if !seen.contains(*flag) {
            words.push(*word);
            seen |= *flag;
        }
    }
    let specs = specs.as_deref().unwrap_or_default().iter().map(spec_to_text).collect::<Vec<_>>();
    let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let words = dash(words.join(","));
    let specs = dash(specs.join(" "));
    writeln!(out, "{name}\t{arity}\t{words}\t{first},{last},{step}\t{specs}").expect("a String takes everything");
}

fn spec_to_text(spec: &Spec) -> String {
    let begin = match &spec.begin {
        Begin::Index(index) => format!("i{index}"),
        Begin::Keyword { word, from } => format!("k{word},{from}"),
        Begin::Unknown => "x".to_owned(),
    };
    let find = match spec.find {
        Find::Range { last, step, limit } => format!("r{last},{step},{limit}"),
        Find::Count { at, first, step } => format!("n{at},{first},{step}"),
        Find::Unknown => "x".to_owned(),
    };
    format!("{}{}{begin}:{find}", if spec.changes { "w" } else { "" }, if spec.incomplete { "?" } else { "" })
}

/// Parses the output of [`to_lines`].
pub(super) fn from_lines(text: &str) -> Result<Vec<Entry>, TableError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
    let entries = lines.map(|(row, line)| from_line(line).ok_or(TableError::Row { row, what: "a column" }));
    Ok(nested(entries.collect::<Result<Vec<_>, _>>()?))
}

/// Puts subcommands into the container that stands before them.
pub(super) fn nested(entries: impl IntoIterator<Item = Entry>) -> Vec<Entry> {
    let mut all: Vec<Entry> = Vec::new();
    for entry in entries {
        match all.last_mut() {
            Some(container) if entry.name.split_once('|').is_some_and(|(name, _)| *name == *container.name) => {
                container.subs.push(entry);
            }
            _ => all.push(entry),
        }
    }
    all
}

fn from_line(line: &str) -> Option<Entry> {
    let [name, arity, flags, range, specs] = exactly(line.split('\t'))?;
    let [first, last, step] = numbers(range)?;
    let words = flags.split(',').filter(|word| *word != "-");
    Some(Entry {
        name: name.into(),
        arity: arity.parse().ok()?,
        flags: words.map(flag_named).fold(Flags::empty(), Flags::union),
        first,
        last,
        step,
        specs: Some(specs.split(' ').filter(|spec| *spec != "-").map(spec_from_text).collect::<Option<_>>()?),
        subs: Vec::new(),
    })
}

fn spec_from_text(text: &str) -> Option<Spec> {
    let (changes, text) = text.strip_prefix('w').map_or((false, text), |rest| (true, rest));
    let (incomplete, text) = text.strip_prefix('?').map_or((false, text), |rest| (true, rest));
    let (begin, find) = text.split_once(':')?;
    let begin = match begin.split_at_checked(1)? {
        ("i", index) => Begin::Index(index.parse().ok()?),
        ("k", rest) => {
            let (word, from) = rest.split_once(',')?;
            Begin::Keyword { word: word.into(), from: from.parse().ok()? }
        }
        ("x", "") => Begin::Unknown,
        _ => return None,
    };
    let find = match find.split_at_checked(1)? {
        ("r", rest) => {
            let [last, step, limit] = numbers(rest)?;
            Find::Range { last, step, limit }
        }
        ("n", rest) => {
            let [at, first, step] = numbers(rest)?;
            Find::Count { at, first, step }
        }
        ("x", "") => Find::Unknown,
        _ => return None,
    };
    Some(Spec { changes, incomplete, begin, find })
}

fn numbers(text: &str) -> Option<[i32; 3]> {
    let [a, b, c] = exactly(text.split(','))?;
    Some([a.parse().ok()?, b.parse().ok()?, c.parse().ok()?])
}

/// The items, if there are exactly as many as wanted.
fn exactly<'a, const N: usize>(items: impl Iterator<Item = &'a str>) -> Option<[&'a str; N]> {
    let items: Vec<&str> = items.collect();
    items.try_into().ok()
}
