//! Scripts by the SHA-1 of their text: the texts, and what they may write. Bounded by number and by bytes; the scripts used longest
//! ago are dropped first. A SHA always names the same text, so no entry expires.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sha1::{Digest, Sha1};

use crate::command::{InScript, Table, Verb};

use super::guard::GuardScript;
use super::proof::{self, Argument, Call};
use super::reach::Reach;

/// Maximum number of scripts to remember.
const MAX_SCRIPTS: usize = 4096;
/// Maximum size of all texts together. Above it, texts are dropped, but what they may write is remembered.
const MAX_BYTES: usize = 16 << 20;

/// The id of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sha([u8; 20]);

impl Sha {
    pub(super) fn of(text: &[u8]) -> Sha {
        Sha(Sha1::digest(text).into())
    }

    /// Parses 40 hexadecimal digits, in any case. `None` if this is no id of a script.
    pub(super) fn named(name: &[u8]) -> Option<Sha> {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let mut sha = [0; 20];
        if name.len() != 40 {
            return None;
        }
        for (byte, two) in sha.iter_mut().zip(name.chunks_exact(2)) {
            *byte = u8::try_from(digit(two[0])? << 4 | digit(two[1])?).ok()?;
        }
        Some(Sha(sha))
    }

    pub(super) fn hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The result of parsing a text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Says {
    /// Its first line has the flag `no-writes`.
    NoWrites,
    /// It calls only these commands.
    Calls(Box<[Call]>),
    /// The commands cannot be determined.
    Unclear(&'static str),
}

/// What a script may do.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) reach: Reach,
    /// Whether it may look into strings.
    pub(super) looks: bool,
    /// Whether these are only strings of its keys.
    pub(super) sees_only_its_keys: bool,
    /// See [`super::Judgement`].
    pub(super) guard: Option<Arc<GuardScript>>,
}

/// The verdict on a text that is not known.
const UNJUDGED: Verdict =
    Verdict { reach: Reach::Anything(UNKNOWN), looks: true, sees_only_its_keys: false, guard: None };

#[derive(Debug)]
struct Script {
    says: Says,
    /// The verdict, and the number of the command table that it relies on.
    judged: Option<(u64, Verdict)>,
    text: Option<Arc<[u8]>>,
    used: u64,
}

#[derive(Debug, Default)]
struct Known {
    scripts: HashMap<Sha, Script>,
    /// Total size of the texts.
    bytes: usize,
    clock: u64,
}

#[derive(Debug, Default)]
pub(super) struct Texts(Mutex<Known>);

pub(super) const UNKNOWN: &str = "its text is unknown: it was not loaded through this Shortstop since its start";

impl Texts {
    pub(super) fn learn(&self, text: &[u8]) {
        let sha = Sha::of(text);
        if !self.with(|known| known.scripts.contains_key(&sha)) {
            // Outside of the lock, because the text may be long.
            let says = says(text);
            self.with(|known| known.add(sha, says, text));
        }
    }

    /// What the script may do. `text` is the text, if the caller has it.
    pub(super) fn judge(&self, sha: Sha, text: Option<&[u8]>, table: &Table) -> Verdict {
        let found = self.with(|known| known.judge(sha, table));
        match (found, text) {
            (Some(verdict), _) => verdict,
            (None, None) => UNJUDGED,
            (None, Some(text)) => {
                let says = says(text);
                self.with(|known| {
                    known.add(sha, says, text);
                    known.judge(sha, table).unwrap_or(UNJUDGED)
                })
            }
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        // No operation under this lock can panic half way through a change.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Known {
    fn judge(&mut self, sha: Sha, table: &Table) -> Option<Verdict> {
        self.clock += 1;
        let script = self.scripts.get_mut(&sha)?;
        script.used = self.clock;
        match &script.judged {
            Some((number, verdict)) if *number == table.number() => Some(verdict.clone()),
            _ => {
                let looks = looks(&script.says, table);
                let text = script.text.as_ref().filter(|_| looks);
                let guard = text.map(|text| GuardScript::with_prelude(Arc::clone(text)).into());
                let sees_only_its_keys = sees_only_its_keys(&script.says, table);
                let verdict = Verdict { reach: reach(&script.says, table), looks, sees_only_its_keys, guard };
                script.judged = Some((table.number(), verdict.clone()));
                Some(verdict)
            }
        }
    }

    fn add(&mut self, sha: Sha, says: Says, text: &[u8]) {
        if self.scripts.contains_key(&sha) {
            return;
        }
        if self.scripts.len() >= MAX_SCRIPTS {
            let oldest = self.used_before(4);
            self.scripts.retain(|_, script| script.used > oldest);
            self.bytes = self.scripts.values().filter_map(|script| script.text.as_ref()).map(|text| text.len()).sum();
        }
        let kept = text.len() <= MAX_BYTES / 16;
        if kept && self.bytes + text.len() > MAX_BYTES {
            let oldest = self.used_before(2);
            for script in self.scripts.values_mut().filter(|script| script.used <= oldest) {
                self.bytes -= script.text.take().map_or(0, |text| text.len());
                script.judged = None;
            }
        }
        let kept = kept && self.bytes + text.len() <= MAX_BYTES;
        self.bytes += if kept { text.len() } else { 0 };
        self.clock += 1;
        let text = kept.then(|| text.into());
        self.scripts.insert(sha, Script { says, judged: None, text, used: self.clock });
    }

    /// The value of `used` up to which a script belongs to the oldest `1 / one_in` of all.
    fn used_before(&self, one_in: usize) -> u64 {
        let mut used: Vec<u64> = self.scripts.values().map(|script| script.used).collect();
        let at = used.len() / one_in;
        used.get(at.saturating_sub(1)).copied().map_or(0, |_| *used.select_nth_unstable(at.saturating_sub(1)).1)
    }
}

fn says(text: &[u8]) -> Says {
    let code = match text.strip_prefix(b"#!") {
        None => text,
        Some(_) => {
            let end = memchr::memchr(b'\n', text).unwrap_or(text.len());
            let (line, code) = text.split_at(end);
            match flags(line) {
                Some(flags) if flags.iter().any(|flag| *flag == b"no-writes") => return Says::NoWrites,
                Some(_) => code,
                None => return Says::Unclear("its first line is not understood"),
            }
        }
    };
    match proof::calls(code) {
        Ok(calls) => Says::Calls(calls.into()),
        Err(why) => Says::Unclear(why),
    }
}

/// The flags in a first line `#!lua flags=a,b`. `None` if the line has another form.
fn flags(line: &[u8]) -> Option<Vec<&[u8]>> {
    const FLAGS: [&[u8]; 5] = [b"no-writes", b"allow-oom", b"allow-stale", b"no-cluster", b"allow-cross-slot-keys"];
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
    if words.next() != Some(b"#!lua") {
        return None;
    }
    let mut all = Vec::new();
    for word in words.filter(|word| !word.is_empty()) {
        for flag in word.strip_prefix(b"flags=")?.split(|byte| *byte == b',') {
            all.push(*FLAGS.iter().find(|known| **known == flag)?);
        }
    }
    Some(all)
}

fn reach(says: &Says, table: &Table) -> Reach {
    match says {
        Says::NoWrites => Reach::Nothing,
        Says::Unclear(why) => Reach::Anything(why),
        Says::Calls(calls) => {
            let mut all = Reach::Nothing;
            for call in calls {
                match reach_of_call(call, table) {
                    Reach::Nothing => {}
                    Reach::Declared => all = Reach::Declared,
                    anything => return anything,
                }
            }
            all
        }
    }
}

/// Whether a script may look into strings. One whose calls are not all known may.
fn looks(says: &Says, table: &Table) -> bool {
    match says {
        Says::Calls(calls) => calls.iter().any(|call| match call.arguments.first() {
            Some(Argument::Text(name)) => {
                table.get(name).is_none_or(|row| row.looks_into_strings(call.arguments.len()))
            }
            _ => true,
        }),
        Says::NoWrites | Says::Unclear(_) => true,
    }
}

/// Whether each call that looks into strings names declared keys alone.
fn sees_only_its_keys(says: &Says, table: &Table) -> bool {
    let Says::Calls(calls) = says else { return false };
    calls.iter().all(|call| {
        let Some(Argument::Text(name)) = call.arguments.first() else { return false };
        let Some(row) = table.get(name) else { return false };
        if !row.looks_into_strings(call.arguments.len()) {
            return true;
        }
        let one_key = matches!(call.arguments.get(1), Some(Argument::Key)) && row.has_one_key();
        let rest_are_keys =
            || call.arguments[1..].iter().all(|argument| matches!(argument, Argument::Key | Argument::Keys));
        one_key || (row.verb == Verb::MGet && rest_are_keys())
    })
}

fn reach_of_call(call: &Call, table: &Table) -> Reach {
    let words: Vec<Option<&[u8]>> = call
        .arguments
        .iter()
        .map(|argument| match argument {
            Argument::Text(text) => Some(&**text),
            _ => None,
        })
        .collect();
    match table.in_script(&words, call.open) {
        InScript::Reads => Reach::Nothing,
        InScript::Unknown => Reach::Anything("it calls a command whose written keys do not follow from the text"),
        InScript::Writes { keys, rest } => {
            let is_key = |at: &u32| matches!(call.arguments.get(*at as usize), Some(Argument::Key | Argument::Keys));
            let rest_is_keys = !rest || matches!(call.arguments.last(), Some(Argument::Keys));
            if rest_is_keys && keys.iter().all(is_key) {
                Reach::Declared
            } else {
                Reach::Anything("it writes a key that is not taken from KEYS")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_BYTES, MAX_SCRIPTS, Sha, Texts, flags};
    use crate::command::Table;
    use crate::scripts::Reach;

    #[test]
    fn a_sha_equals_that_of_redis() {
        let sha = Sha::of(b"return 1");
        assert_eq!(sha.hex(), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_eq!(Sha::named(b"E0e1f9fabfc9d4800c877a703b823ac0578ff8dB"), Some(sha));
        for wrong in
            ["", "abc", "e0e1f9fabfc9d4800c877a703b823ac0578ff8dg", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db0"]
        {
            assert_eq!(Sha::named(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn texts_are_bounded_and_those_in_use_stay() {
        let (texts, table) = (Texts::default(), Table::builtin());
        let used = Sha::of(b"return 1");
        texts.learn(b"return 1");
        for number in 0..3 * MAX_SCRIPTS {
            texts.learn(format!("return '{number}'").as_bytes());
            assert_eq!(texts.judge(used, None, &table).reach, Reach::Nothing);
        }
        assert!(texts.0.lock().expect("nobody panicked").scripts.len() <= MAX_SCRIPTS);
        for number in 0..40 {
            let text = [format!("return {number} --").into_bytes(), vec![b'x'; MAX_BYTES / 20]].concat();
            texts.learn(&text);
        }
        let known = texts.0.lock().expect("nobody panicked");
        let bytes: usize =
            known.scripts.values().filter_map(|script| script.text.as_ref()).map(|text| text.len()).sum();
        assert!(known.bytes == bytes && bytes <= MAX_BYTES && bytes > MAX_BYTES / 4, "{bytes}");
    }

    #[test]
    fn flags_are_read_only_from_a_well_formed_first_line() {
        let no_writes = Some(vec![&b"no-writes"[..]]);
        assert_eq!(flags(b"#!lua flags=no-writes"), no_writes);
        assert_eq!(flags(b"#!lua  flags=no-writes \r"), no_writes);
        assert_eq!(flags(b"#!lua flags=allow-oom,no-writes").map(|flags| flags.len()), Some(2));
        assert_eq!(flags(b"#!lua"), Some(Vec::new()));
        for wrong in
            ["#!js flags=no-writes", "#!lua flags=no-write", "#!lua flags=\"no-writes\"", "#!lua name=x", "#!luax"]
        {
            assert_eq!(flags(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
