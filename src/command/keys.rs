//! Finds the keys of a call: by key specs as in Redis 7 (<https://redis.io/docs/latest/develop/reference/key-specs/>), and by code
//! of our own for the few commands whose specs are incomplete (SORT, MIGRATE, GEORADIUS … STORE).
//!
//! Must never find too few keys in a call that Redis would execute. In a call that Redis refuses, it may find too many.

use smallvec::SmallVec;

/// The result of [`super::Row::keys`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Keys {
    /// All keys that the call may touch, possibly none.
    Known,
    /// Any key may be touched. The list contains those that were found.
    Unknown,
}

/// Where a spec starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Begin {
    /// At this argument.
    Index(i32),
    /// After the first argument that equals this word. A negative `from` counts from the end, and searches backwards.
    Keyword { word: Box<str>, from: i32 },
    /// The server cannot say.
    Unknown,
}

/// How many arguments from there are keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Find {
    /// Up to `last`, counted from the first key, or from the call's end if negative. With `limit` above 1, only that fraction of
    /// the rest (XREAD: half of it).
    Range { last: i32, step: i32, limit: i32 },
    /// As many as the argument at `at` says, starting at `first`. Both are counted from the spec's start.
    Count { at: i32, first: i32, step: i32 },
    /// The server cannot say.
    Unknown,
}

/// One key spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spec {
    /// RW, OW or RM: the keys it finds are changed.
    pub changes: bool,
    /// It finds only some of the keys.
    pub incomplete: bool,
    pub begin: Begin,
    pub find: Find,
}

impl Spec {
    fn is_known(&self) -> bool {
        !self.incomplete && self.begin != Begin::Unknown && self.find != Find::Unknown
    }

    fn is_plain_range(&self) -> bool {
        matches!((&self.begin, &self.find), (Begin::Index(_), Find::Range { .. }))
    }

    /// Whether the keys have fixed positions, whatever the arguments are. `None`: no. `Some(None)`: yes, and there are no others.
    /// `Some(Some(step))`: yes, from there to the end of the call.
    pub(super) fn fixed_range(&self) -> Option<Option<i32>> {
        match (&self.begin, &self.find) {
            (Begin::Index(1..), Find::Range { last: 0.., step: 1.., .. }) if !self.incomplete => Some(None),
            (Begin::Index(1..), Find::Range { last: -1, step: step @ 1.., limit: 0 | 1 }) if !self.incomplete => {
                Some(Some(*step))
            }
            _ => None,
        }
    }

    /// Adds the keys. `Unknown` if the call does not say how many there are.
    pub(super) fn find(&self, args: &[&[u8]], out: &mut SmallVec<[u32; 4]>) -> Keys {
        let argc = args.len() as i64;
        let start = match &self.begin {
            Begin::Index(index) => i64::from(*index),
            Begin::Keyword { word, from } => match after_keyword(args, word.as_bytes(), *from) {
                Some(start) => start,
                None => return Keys::Known,
            },
            Begin::Unknown => return Keys::Unknown,
        };
        let (first, last, step) = match self.find {
            Find::Range { last, step, limit } => {
                let end = match last {
                    0.. => start + i64::from(last),
                    _ if limit > 1 => start + (argc - start).max(0) / i64::from(limit) + i64::from(last),
                    _ => argc + i64::from(last),
                };
                (start, end, i64::from(step))
            }
            Find::Count { at, first, step } => {
                let Some(count) = usize::try_from(start + i64::from(at)).ok().and_then(|at| args.get(at)) else {
                    return Keys::Known;
                };
                let Some(count) = number(count) else {
                    return Keys::Unknown;
                };
                let first = start + i64::from(first);
                let step = i64::from(step);
                (first, first.saturating_add((count - 1).saturating_mul(step)), step)
            }
            Find::Unknown => return Keys::Unknown,
        };
        if first <= 0 || step <= 0 {
            return Keys::Unknown;
        }
        let mut at = first;
        while at <= last && at < argc {
            // Bounded by argc, which the scanner bounds far below 2^32.
            let Ok(index) = u32::try_from(at) else { return Keys::Unknown };
            out.push(index);
            at += step;
        }
        Keys::Known
    }
}

/// The index after the keyword.
fn after_keyword(args: &[&[u8]], word: &[u8], from: i32) -> Option<i64> {
    let found = if from >= 0 {
        let from = usize::try_from(from).ok()?;
        args.iter().skip(from).position(|arg| arg.eq_ignore_ascii_case(word)).map(|at| at + from)?
    } else {
        let end = args.len().checked_sub(usize::try_from(from.unsigned_abs()).ok()?)?;
        args.get(..=end)?.iter().rposition(|arg| arg.eq_ignore_ascii_case(word))?
    };
    i64::try_from(found).ok().map(|at| at + 1)
}

/// A count as Redis parses it, slightly more leniently. A number that is too large counts as very many.
fn number(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    digits.iter().try_fold(0_i64, |sum, digit| {
        digit.is_ascii_digit().then(|| sum.saturating_mul(10).saturating_add(i64::from(digit - b'0')))
    })
}

/// How the keys of a command are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finder {
    /// The command has no keys.
    None,
    /// It is not known how.
    Unknown,
    /// One key, at this index: most commands.
    At(u32),
    /// All of these specs.
    Specs(Box<[Spec]>),
    /// These specs, and there may be more keys.
    Partial(Box<[Spec]>),
    /// SORT: the key and that of STORE.
    Sort,
    /// XREAD and XREADGROUP: the first half of the arguments after STREAMS. A group or a consumer may also be called STREAMS, so
    /// the options before it are parsed one by one. A call with an unknown option is left to the server's specs.
    Streams(Box<Finder>),
    /// MIGRATE: the key, or all arguments after KEYS.
    Migrate,
    /// GEORADIUS and GEORADIUSBYMEMBER: the key, and those of STORE and STOREDIST. Options start at this index.
    GeoRadius(usize),
    /// DEBUG: a few subcommands touch no key, the others may do anything.
    Debug,
}

impl Finder {
    /// From the key specs of Redis 7. `movable`: the server says that first, last and step do not find all keys.
    pub(super) fn from_specs(specs: Vec<Spec>, movable: bool) -> Finder {
        // Specs that equal first, last and step, on a command whose keys move: a module that finds its keys by its own code.
        let hidden = movable && specs.iter().all(Spec::is_plain_range);
        match &specs[..] {
            [] if hidden => Finder::Unknown,
            [] => Finder::None,
            [
                Spec {
                    incomplete: false,
                    begin: Begin::Index(at @ 1..),
                    find: Find::Range { last: 0, step: 1.., .. },
                    ..
                },
            ] if !hidden => Finder::At(at.unsigned_abs()),
            _ if !hidden && specs.iter().all(Spec::is_known) => Finder::Specs(specs.into_boxed_slice()),
            _ => Finder::Partial(specs.into_boxed_slice()),
        }
    }

    /// From the three numbers that older servers provide. All 0: no keys.
    pub(super) fn from_range(first: i32, last: i32, step: i32) -> Finder {
        if first == 0 {
            return Finder::None;
        }
        // A negative last counts from the call's end in both formats. A positive one is an index here and a distance in specs.
        let distance = if last < 0 { Some(last) } else { last.checked_sub(first).filter(|distance| *distance >= 0) };
        match distance {
            Some(last) if first > 0 && step > 0 => {
                let find = Find::Range { last, step, limit: 0 };
                Finder::from_specs(
                    vec![Spec { changes: false, incomplete: false, begin: Begin::Index(first), find }],
                    false,
                )
            }
            _ => Finder::Unknown,
        }
    }

    /// The position of the first key in every call, and whether all later arguments are keys too. `None` if it is not that simple.
    pub(super) fn fixed_place(&self) -> Option<(usize, bool)> {
        match self {
            Finder::At(at) => Some((*at as usize, false)),
            Finder::Specs(specs) => match &specs[..] {
                [
                    Spec {
                        begin: Begin::Index(at @ 1..), find: Find::Range { last: -1, step: 1, limit: 0 | 1 }, ..
                    },
                ] => Some((at.unsigned_abs() as usize, true)),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn find(&self, args: &[&[u8]], out: &mut SmallVec<[u32; 4]>) -> Keys {
        match self {
            Finder::None => Keys::Known,
            Finder::Unknown => Keys::Unknown,
            Finder::At(at) => {
                push(args, *at as usize, out);
                Keys::Known
            }
            Finder::Specs(specs) => find_all(specs, args, out),
            Finder::Partial(specs) => {
                find_all(specs, args, out);
                Keys::Unknown
            }
            Finder::Streams(otherwise) => {
                let Some(streams) = streams(args) else { return otherwise.find(args, out) };
                streams.for_each(|at| push(args, at, out));
                Keys::Known
            }
            Finder::Sort => {
                push(args, 1, out);
                option_keys(args, 2, SORT_OPTIONS, out);
                Keys::Known
            }
            Finder::Migrate => {
                migrate_keys(args, out);
                Keys::Known
            }
            Finder::GeoRadius(options) => {
                push(args, 1, out);
                option_keys(args, *options, GEORADIUS_OPTIONS, out);
                Keys::Known
            }
            Finder::Debug => match args.get(1) {
                Some(name) if READ_ONLY_DEBUG.iter().any(|word| name.eq_ignore_ascii_case(word)) => Keys::Known,
                _ => Keys::Unknown,
            },
        }
    }
}

/// The finder for a command whose key specs are missing or insufficient. Otherwise the given one.
pub(super) fn special(name: &str, finder: Finder) -> Finder {
    match name {
        "sort" => Finder::Sort,
        "xread" | "xreadgroup" => Finder::Streams(Box::new(finder)),
        // Its unknown spec stands for the keys that BY and GET patterns read. A read may ignore those.
        "sort_ro" => Finder::from_range(1, 1, 1),
        "migrate" => Finder::Migrate,
        "georadius" => Finder::GeoRadius(6),
        "georadiusbymember" => Finder::GeoRadius(5),
        "debug" => Finder::Debug,
        // Redis 6 only, so the built-in table provides no spec: STRALGO LCS KEYS a b.
        "stralgo" => Finder::Specs(Box::new([Spec {
            changes: false,
            incomplete: false,
            begin: Begin::Keyword { word: "KEYS".into(), from: 1 },
            find: Find::Range { last: 1, step: 1, limit: 0 },
        }])),
        _ => finder,
    }
}

/// Whether this DEBUG makes Redis send a push.
pub(super) fn pushes(args: &[&[u8]]) -> bool {
    matches!(args, [_, protocol, push] if protocol.eq_ignore_ascii_case(b"protocol") && push.eq_ignore_ascii_case(b"push"))
}

/// Whether an XREAD or XREADGROUP call blocks. Values of the options before STREAMS are skipped, so that a group called BLOCK does
/// not count.
pub(super) fn blocks(args: &[&[u8]]) -> bool {
    let mut rest = args.iter().skip(1);
    while let Some(arg) = rest.next() {
        if arg.eq_ignore_ascii_case(b"BLOCK") {
            return true;
        } else if arg.eq_ignore_ascii_case(b"STREAMS") {
            return false;
        } else if arg.eq_ignore_ascii_case(b"COUNT") {
            rest.next();
        } else if arg.eq_ignore_ascii_case(b"GROUP") {
            rest.nth(1);
        }
    }
    false
}

/// The positions of the keys of an XREAD or XREADGROUP. `None` if the call is not understood.
fn streams(args: &[&[u8]]) -> Option<std::ops::Range<usize>> {
    let mut at = 1;
    loop {
        let is = |word: &str| args.get(at).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
        at += match () {
            () if is("STREAMS") => break,
            () if is("GROUP") => 3,
            () if is("COUNT") || is("BLOCK") || is("CLAIM") => 2,
            () if is("NOACK") => 1,
            () => return None,
        };
    }
    let rest = args.len() - at - 1;
    (rest > 0 && rest.is_multiple_of(2)).then(|| at + 1..at + 1 + rest / 2)
}

/// DEBUG subcommands that change no key. The others load, flush, fill or drop the data set, or may do so in a newer server.
const READ_ONLY_DEBUG: &[&[u8]] = &[
    b"HELP",
    b"SLEEP",
    b"OBJECT",
    b"PROTOCOL",
    b"JMAP",
    b"SDSLEN",
    b"LISTPACK",
    b"ZIPLIST",
    b"HTSTATS",
    b"HTSTATS-KEY",
];

/// The word of an option, and what follows it.
type OptionWord = (&'static [u8], Follows);

/// What follows an option's word.
#[derive(Clone, Copy)]
enum Follows {
    /// One key.
    Key,
    /// This many values.
    Values(usize),
}

const SORT_OPTIONS: &[OptionWord] = &[
    (b"STORE", Follows::Key),
    (b"LIMIT", Follows::Values(2)),
    (b"BY", Follows::Values(1)),
    (b"GET", Follows::Values(1)),
];

const GEORADIUS_OPTIONS: &[OptionWord] =
    &[(b"STORE", Follows::Key), (b"STOREDIST", Follows::Key), (b"COUNT", Follows::Values(1))];

/// Keys among options that come in any order. If an option is repeated, Redis uses the last; both are reported.
fn option_keys(args: &[&[u8]], from: usize, words: &[OptionWord], out: &mut SmallVec<[u32; 4]>) {
    let mut at = from;
    while let Some(arg) = args.get(at) {
        match words.iter().find(|(word, _)| arg.eq_ignore_ascii_case(word)) {
            Some((_, Follows::Key)) => {
                push(args, at + 1, out);
                at += 1;
            }
            Some((_, Follows::Values(values))) => at += values,
            None => {}
        }
        at += 1;
    }
}

/// MIGRATE host port key|"" db timeout [COPY] [REPLACE] [AUTH password | AUTH2 user password] [KEYS key …]. KEYS counts only with
/// an empty key argument. With another one Redis refuses the call.
fn migrate_keys(args: &[&[u8]], out: &mut SmallVec<[u32; 4]>) {
    if args.get(3).is_some_and(|key| !key.is_empty()) {
        return push(args, 3, out);
    }
    let mut at = 6;
    while let Some(arg) = args.get(at) {
        if arg.eq_ignore_ascii_case(b"KEYS") {
            return (at + 1..args.len()).for_each(|key| push(args, key, out));
        }
        at += match arg {
            _ if arg.eq_ignore_ascii_case(b"AUTH") => 2,
            _ if arg.eq_ignore_ascii_case(b"AUTH2") => 3,
            _ => 1,
        };
    }
    // The empty key itself.
    push(args, 3, out);
}

fn find_all(specs: &[Spec], args: &[&[u8]], out: &mut SmallVec<[u32; 4]>) -> Keys {
    let mut all = Keys::Known;
    for spec in specs {
        if spec.find(args, out) == Keys::Unknown {
            all = Keys::Unknown;
        }
    }
    all
}

fn push(args: &[&[u8]], at: usize, out: &mut SmallVec<[u32; 4]>) {
    if at < args.len()
        && let Ok(at) = u32::try_from(at)
    {
        out.push(at);
    }
}
