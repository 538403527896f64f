//! Calls that are made from a line, read from `data/calls.txt`, which says what its lines mean.

const TEXT: &str = include_str!("../data/calls.txt");

/// Scripts that EVALSHA knows once they are loaded.
pub const SCRIPTS: &[&str] = &[
    "return {KEYS[1], ARGV[1]}",
    "return 7",
    "return redis.pcall('get', KEYS[1])",
    "local length = redis.pcall('append', KEYS[1], 'x') return {length, redis.pcall('getrange', KEYS[1], -3, -1)}",
    "return redis.call('strlen', KEYS[1])",
];

/// Libraries for FUNCTION LOAD: one function each, that the order of a hash table is of no matter.
pub const LIBRARIES: &[&str] = &[
    "#!lua name=one\nredis.register_function('first', function(keys, args) return {keys, args} end)",
    "#!lua name=two\nredis.register_function{function_name='second', callback=function(keys, args) return #args end, \
     flags={'no-writes'}}",
];

/// What the libraries define.
pub const FUNCTIONS: &[&str] = &["first", "second"];

/// The lines below a heading; none: there is no such heading.
pub fn below(heading: &str) -> Vec<&'static str> {
    let mut lines = TEXT.lines().skip_while(|line| *line != heading).skip(1);
    let heads = |line: &str| line.is_empty() || line.starts_with(['[', '(']);
    std::iter::from_fn(|| lines.next().filter(|line| !heads(line))).collect()
}
