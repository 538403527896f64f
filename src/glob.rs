//! Redis's glob patterns on bytes, as in `stringmatchlen` of Redis's `util.c`, compiled once.
//!
//! `*` any bytes, `?` one byte, `[abc]` `[a-z]` `[^a]` one byte of a set, `\x` the byte x itself. Every pattern is valid: an
//! unclosed `[` ends with the pattern, and a final `\` stands for itself. A match takes at most pattern × key steps, since
//! backtracking goes only to the last `*`.
//!
//! Two differences, in cases where Redis is inconsistent. A pattern of stars alone matches the empty key (`stringmatchlen` does not
//! match it, but `KEYS` and `SCAN` never call it for `*`). Bytes above 127 are ordered as unsigned in ranges (in Redis this depends
//! on the platform's `char`).

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Shape);

/// Common patterns have a faster form.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    All,
    Literal(Box<[u8]>),
    Prefix(Box<[u8]>),
    Steps(Box<[Step]>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// `*`, never two in a row.
    Many,
    /// `?`
    One,
    Byte(u8),
    Set(Box<Set>),
}

/// 256 bits, one per byte value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Set([u64; 4]);

impl Set {
    fn add(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] & 1 << (byte & 63) != 0
    }

    fn invert(&mut self) {
        self.0 = self.0.map(|bits| !bits);
    }
}

impl Glob {
    /// Compiles a pattern. Every pattern is valid.
    pub fn new(pattern: &[u8]) -> Self {
        let steps = compile(pattern);
        let (last, before) = match steps.split_last() {
            Some((last, before)) => (Some(last), before),
            None => (None, &[][..]),
        };
        Self(match (last, bytes(before)) {
            (None, _) => Shape::Literal(Box::default()),
            (Some(Step::Many), Some(prefix)) if prefix.is_empty() => Shape::All,
            (Some(Step::Many), Some(prefix)) => Shape::Prefix(prefix),
            (Some(Step::Byte(_)), Some(_)) => Shape::Literal(bytes(&steps).unwrap_or_default()),
            _ => Shape::Steps(steps.into()),
        })
    }

    /// Whether the whole of `key` matches.
    pub fn matches(&self, key: &[u8]) -> bool {
        match &self.0 {
            Shape::All => true,
            Shape::Literal(literal) => key == &**literal,
            Shape::Prefix(prefix) => key.starts_with(prefix),
            Shape::Steps(steps) => walk(steps, key),
        }
    }
}

/// The steps as plain bytes, if they contain nothing else.
fn bytes(steps: &[Step]) -> Option<Box<[u8]>> {
    steps.iter().map(|step| if let Step::Byte(byte) = step { Some(*byte) } else { None }).collect()
}

fn compile(mut rest: &[u8]) -> Vec<Step> {
    let mut steps = Vec::new();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'*' if steps.last() == Some(&Step::Many) => {}
            b'*' => steps.push(Step::Many),
            b'?' => steps.push(Step::One),
            b'[' => {
                let (set, after) = compile_set(rest);
                rest = after;
                steps.push(Step::Set(Box::new(set)));
            }
            b'\\' => match rest.split_first() {
                Some((&escaped, after)) => {
                    rest = after;
                    steps.push(Step::Byte(escaped));
                }
                None => steps.push(Step::Byte(b'\\')),
            },
            byte => steps.push(Step::Byte(byte)),
        }
    }
    steps
}

/// Parses a set after its `[`. Returns the set and what follows its `]`. The order of the cases is Redis's: a range takes a `]` as
/// its end, and an escaped byte starts no range.
fn compile_set(pattern: &[u8]) -> (Set, &[u8]) {
    let mut set = Set([0; 4]);
    let (inverted, mut rest) = match pattern {
        [b'^', after @ ..] => (true, after),
        _ => (false, pattern),
    };
    loop {
        rest = match rest {
            [] => break,
            [b'\\', escaped, after @ ..] => {
                set.add(*escaped);
                after
            }
            [b']', after @ ..] => {
                rest = after;
                break;
            }
            [start, b'-', end, after @ ..] => {
                (*start.min(end)..=*start.max(end)).for_each(|byte| set.add(byte));
                after
            }
            [byte, after @ ..] => {
                set.add(*byte);
                after
            }
        };
    }
    if inverted {
        set.invert();
    }
    (set, rest)
}

/// Greedy with one backtracking point: if a step after the last `*` fails, that `*` takes one more byte. Earlier ones need not:
/// whatever they could give up, the last one can take.
fn walk(steps: &[Step], key: &[u8]) -> bool {
    let (mut step, mut at) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while at < key.len() {
        let fits = match steps.get(step) {
            Some(Step::Many) => {
                back = Some((step + 1, at));
                step += 1;
                continue;
            }
            Some(Step::One) => true,
            Some(Step::Byte(byte)) => *byte == key[at],
            Some(Step::Set(set)) => set.has(key[at]),
            None => false,
        };
        if fits {
            step += 1;
            at += 1;
        } else if let Some((after_star, taken)) = back {
            back = Some((after_star, taken + 1));
            (step, at) = (after_star, taken + 1);
        } else {
            return false;
        }
    }
    matches!(&steps[step..], [] | [Step::Many])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};
    use proptest::sample::select;
    use proptest::{collection, strategy::Just};

    use super::{Glob, Shape};

    /// The reference: follows `stringmatchlen` step by step, recursive and slow, with the two differences above.
    fn reference(mut pattern: &[u8], mut key: &[u8]) -> bool {
        if key.is_empty() {
            return pattern.iter().all(|byte| *byte == b'*');
        }
        while !pattern.is_empty() && !key.is_empty() {
            match pattern[0] {
                b'*' => {
                    while pattern.get(1) == Some(&b'*') {
                        pattern = &pattern[1..];
                    }
                    return pattern.len() == 1 || (0..key.len()).any(|from| reference(&pattern[1..], &key[from..]));
                }
                b'?' => key = &key[1..],
                b'[' => {
                    pattern = &pattern[1..];
                    let not = pattern.first() == Some(&b'^');
                    if not {
                        pattern = &pattern[1..];
                    }
                    let mut found = false;
                    loop {
                        if pattern.len() >= 2 && pattern[0] == b'\\' {
                            pattern = &pattern[1..];
                            found |= pattern[0] == key[0];
                        } else if pattern.first() == Some(&b']') {
                            pattern = &pattern[1..];
                            break;
                        } else if pattern.is_empty() {
                            break;
                        } else if pattern.len() >= 3 && pattern[1] == b'-' {
                            let (start, end) = (pattern[0].min(pattern[2]), pattern[0].max(pattern[2]));
                            pattern = &pattern[2..];
                            found |= start <= key[0] && key[0] <= end;
                        } else {
                            found |= pattern[0] == key[0];
                        }
                        pattern = &pattern[1..];
                    }
                    if found == not {
                        return false;
                    }
                    key = &key[1..];
                    if key.is_empty() {
                        while pattern.first() == Some(&b'*') {
                            pattern = &pattern[1..];
                        }
                    }
                    continue;
                }
                byte => {
                    let mut wanted = byte;
                    if byte == b'\\' && pattern.len() >= 2 {
                        pattern = &pattern[1..];
                        wanted = pattern[0];
                    }
                    if wanted != key[0] {
                        return false;
                    }
                    key = &key[1..];
                }
            }
            pattern = &pattern[1..];
            if key.is_empty() {
                while pattern.first() == Some(&b'*') {
                    pattern = &pattern[1..];
                }
            }
        }
        pattern.is_empty() && key.is_empty()
    }

    #[test]
    fn table() {
        let table: &[(&str, &[&str], &[&str])] = &[
            ("*", &["", "a", "a:b"], &[]),
            ("***", &["", "a"], &[]),
            ("", &[""], &["a"]),
            ("abc", &["abc"], &["", "ab", "abcd", "ABC"]),
            ("a*", &["a", "ab", "a:b:c"], &["", "b", "ba"]),
            ("*a", &["a", "ba", "aaa"], &["", "ab"]),
            ("a*b*c", &["abc", "axbxc", "abbcc", "abcbc"], &["ab", "acb", "abcd"]),
            ("a?c", &["abc", "a?c"], &["ac", "abbc"]),
            ("?", &["a"], &["", "ab"]),
            ("h[ae]llo", &["hallo", "hello"], &["hillo", "hllo"]),
            ("h[^e]llo", &["hallo", "h^llo"], &["hello"]),
            ("h[a-c]", &["ha", "hb", "hc"], &["hd", "h-", "h"]),
            ("h[c-a]", &["ha", "hb", "hc"], &["hd"]),
            (r"\*", &["*"], &["a", r"\*"]),
            (r"a\", &[r"a\"], &["a"]),
            (r"\abc", &["abc"], &[r"\abc"]),
            (r"a\*", &["a*"], &["ab", "a"]),
            (r"[\]]", &["]"], &[r"\"]),
            (r"[\^a]", &["^", "a"], &["b"]),
            ("[]a]", &[], &["]", "a", "]a]"]),
            ("[^]", &["a", "]"], &["", "ab"]),
            ("[", &[], &["[", ""]),
            ("[abc", &["a", "b", "c"], &["[abc", "d"]),
            ("[a-", &["a", "-"], &["b"]),
            // The range takes the bracket: a to ], and the set ends with the pattern.
            ("[a-]", &["a", "]", "^"], &["-", "b"]),
            (r"[\a-z]", &["a", "-", "z"], &["b"]),
            ("user:[0-9]*:name", &["user:1:name", "user:12:name"], &["user:x:name", "user::name"]),
        ];
        for (pattern, yes, no) in table {
            let glob = Glob::new(pattern.as_bytes());
            for (keys, expected) in [(yes, true), (no, false)] {
                for key in *keys {
                    assert_eq!(glob.matches(key.as_bytes()), expected, "{pattern} {key}");
                    assert_eq!(reference(pattern.as_bytes(), key.as_bytes()), expected, "reference: {pattern} {key}");
                }
            }
        }
    }

    #[test]
    fn common_shapes_take_the_short_way() {
        let table = [
            ("*", Shape::All),
            ("**", Shape::All),
            ("", Shape::Literal(Box::default())),
            (r"a\*b", Shape::Literal(b"a*b"[..].into())),
            ("a:*", Shape::Prefix(b"a:"[..].into())),
        ];
        for (pattern, shape) in table {
            assert_eq!(Glob::new(pattern.as_bytes()).0, shape, "{pattern}");
        }
    }

    #[test]
    fn abusive_patterns_end() {
        let glob = Glob::new("a*".repeat(200).as_bytes());
        let mut key = vec![b'a'; 20_000];
        assert!(glob.matches(&key));
        let glob = Glob::new(format!("{}b", "a*".repeat(200)).as_bytes());
        assert!(!glob.matches(&key));
        key.push(b'b');
        assert!(glob.matches(&key));
    }

    /// Special bytes and a few others, so that patterns and keys often match.
    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![8 => select(b"abc*?[]^-\\".as_slice()), 1 => any::<u8>(), 1 => Just(b'*')]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn equals_the_reference(pattern in collection::vec(byte(), 0..12), key in collection::vec(byte(), 0..10)) {
            prop_assert_eq!(Glob::new(&pattern).matches(&key), reference(&pattern, &key));
        }

        #[test]
        fn a_key_matches_itself_escaped(key in collection::vec(any::<u8>(), 0..40)) {
            let pattern: Vec<u8> = key.iter().flat_map(|byte| [b'\\', *byte]).collect();
            prop_assert_eq!(Glob::new(&pattern).matches(&key), true);
        }
    }
}
