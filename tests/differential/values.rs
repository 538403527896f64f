//! Generates the parts of a call: keys, values, numbers, words of a syntax; mostly valid, sometimes odd.

use shortstop::codec::{self, Codec, CompressOptions, MARKS};

use super::chance::Chance;
use super::common::{noise, prose};
use super::docs::Argument;
use super::templates::{FUNCTIONS, LIBRARIES, SCRIPTS};

/// Words of a command.
pub type Args = Vec<Vec<u8>>;

/// Keys by the type of what they usually hold. `t1` and `t2` stay short, for LCS, which takes the product of both.
pub const KEYS: &[(&str, &[&[u8]])] = &[
    ("string", &[b"s1", b"s2", b"s3", b"n1"]),
    ("bitmap", &[b"b1", b"s1"]),
    ("hyperloglog", &[b"p1", b"p2"]),
    ("list", &[b"l1", b"l2"]),
    ("hash", &[b"h1", b"h2"]),
    ("set", &[b"c1", b"c2"]),
    ("sorted-set", &[b"z1", b"z2"]),
    ("stream", &[b"x1", b"x1", b"x2"]),
    ("geo", &[b"g1", b"g2"]),
    ("odd", &[b"", b"k\r\n\0\xff", b"$5\r\n", b"nothing", b"a"]),
];

/// Texts that are no number, and numbers at the limits.
const ODD_NUMBERS: &[&str] = &[
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "99999999999",
    "-99999999999",
    "",
    "abc",
    "1.5",
    "-0",
    "+1",
    "01",
    " 1",
    "1 ",
];

/// A source of values.
pub struct Values {
    /// Where everything is drawn from.
    pub chance: Chance,
    sealing: bool,
    resp3: bool,
    /// Payloads of DUMP, for RESTORE.
    pub payloads: Args,
    /// Payloads of FUNCTION DUMP.
    pub functions: Args,
    /// Hashes of the scripts.
    pub shas: Args,
    lifetimes: usize,
    ids: usize,
}

impl Values {
    /// Without payloads and hashes.
    pub fn new(seed: u64, sealing: bool, resp3: bool) -> Values {
        Values {
            chance: Chance::new(seed),
            sealing,
            resp3,
            payloads: Vec::new(),
            functions: Vec::new(),
            shas: Vec::new(),
            lifetimes: 0,
            ids: 0,
        }
    }

    /// A value for an argument that is no key, by the argument's name.
    pub fn value_of(&mut self, command: &str, group: &str, argument: &Argument) -> Vec<u8> {
        let odd = self.chance.percent(6);
        let text = match (argument.kind.as_str(), argument.name.as_str()) {
            ("integer", "seconds") if odd => self.one_of(&["0", "-1", "9223372036854775807", "abc"]),
            ("integer", "seconds") => self.lifetime(1),
            ("integer", "milliseconds" | "ttl") if odd => self.one_of(&["0", "-1", "9223372036854775807", "abc"]),
            ("integer", "milliseconds" | "ttl") => self.lifetime(1000),
            ("unix-time", "unix-time-milliseconds") => {
                self.one_of(&["99999999999999", "99999999999998", "1", "0", "x"])
            }
            ("unix-time", _) => self.one_of(&["99999999999", "99999999998", "1", "0", "x"]),
            ("double", "timeout") => self.one_of(&["0.004", "0.01", "0.004", "-1", "x"]),
            ("integer", "timeout") => self.one_of(&["5", "-1", "x"]),
            ("integer", "cursor") => self.one_of(&["0", "0", "0", "0", "x"]),
            ("integer", "destination-db" | "db") => self.db(),
            ("integer", "bit") => self.one_of(&["0", "1", "1", "2"]),
            ("integer", "value") if command == "setbit" => self.one_of(&["0", "1", "1", "2"]),
            ("integer", "offset") if odd => self.one_of(&["-1", "99999999999", "9223372036854775807", "abc"]),
            ("integer", "offset") => self.one_of(&["0", "1", "2", "5", "7", "8", "20", "100", "1000"]),
            ("integer", _) if odd => self.one_of(ODD_NUMBERS),
            ("integer", _) => self.one_of(&["0", "1", "1", "2", "2", "3", "5", "10", "-1", "-2"]),
            ("double", "longitude") => self.one_of(&["13.361389", "15.087269", "14", "0", "181"]),
            ("double", "latitude") => self.one_of(&["38.115556", "37.502669", "38", "0", "86"]),
            ("double", "radius" | "width" | "height") => self.one_of(&["200", "500", "50000", "0", "-1", "x"]),
            ("double", "min" | "max") => self.one_of(&["-inf", "+inf", "1", "(1", "2.5", "3", "x"]),
            ("double", _) if odd => self.one_of(&["nan", "x", "", "1e400", "-inf", "+inf"]),
            ("double", _) => self.one_of(&["0", "1", "2", "2.5", "-1.5", "3", "1e10", "0.1", "3.0e3"]),
            ("pattern", _) => self.pattern(),
            (_, "member" | "member1" | "member2") if group == "geo" => self.one_of(&["Palermo", "Catania", "Rom", "x"]),
            (_, "member" | "element" | "member1" | "member2" | "pivot") => return self.member(command),
            (_, "field") => self.one_of(&["f1", "f2", "f3", "1", "f4", ""]),
            (_, "id" | "new_id") if command == "xadd" && self.chance.percent(60) => {
                self.ids += 1;
                format!("{}-{}", 4 + self.ids / 4, self.ids)
            }
            (_, "id" | "last-id" | "new_id" | "max_deleted_entry_id") => self.id(),
            (_, "start" | "end" | "min" | "max" | "stop") if group == "stream" => {
                self.one_of(&["-", "+", "0", "1-1", "(1-1", "2", "3-1", "x"])
            }
            (_, "start" | "end" | "min" | "max" | "stop") => {
                self.one_of(&["-", "+", "[a", "(c", "0", "-1", "1", "2", "(1", "-inf", "+inf"])
            }
            (_, "threshold") => self.one_of(&["3", "1", "0", "2-1", "x"]),
            (_, "min-idle-time") => self.one_of(&["0", "0", "99999999", "x"]),
            (_, "encoding") => self.one_of(&["u8", "i5", "u1", "i16", "u32", "u63", "i64", "u64", "x"]),
            (_, "group" | "groupname") => self.one_of(&["gr1", "gr1", "gr2"]),
            (_, "consumer" | "consumername") => self.one_of(&["co1", "co1", "co2"]),
            (_, "channel" | "shardchannel") => self.one_of(&["ch1", "ch2", "other"]),
            (_, "username") => self.one_of(&["alice", "bob"]),
            (_, "event") => self.one_of(&["command", "fork"]),
            (_, "operation") => self.one_of(&["AND", "OR", "XOR", "NOT", "x"]),
            (_, "type") => self.one_of(&["string", "list", "hash"]),
            (_, "host" | "ip") => "127.0.0.1".to_owned(),
            (_, "value" | "arg" | "message" | "argument") => return self.value(self.may_have_marks(command)),
            _ => self.one_of(&["word", "x", "1"]),
        };
        text.into_bytes()
    }

    /// A line of `data/calls.txt`.
    pub fn template(&mut self, line: &str) -> Args {
        let name = line.split(' ').next().unwrap_or_default();
        let marks = self.may_have_marks(&name.to_ascii_lowercase());
        line.split_ascii_whitespace().map(|word| self.word(word, marks)).collect()
    }

    fn word(&mut self, word: &str, marks: bool) -> Vec<u8> {
        let any = |chance: &mut Chance, from: &Args| from.get(chance.below(from.len().max(1))).cloned();
        match word {
            "_" => Vec::new(),
            "$v" => self.value(marks),
            "$mark" => self.marked(),
            "$short" => prose(self.chance.below(60), self.chance.bits() % 3),
            "$m" => self.member(""),
            "$key" => self.key("any"),
            "$str" => self.key("string"),
            "$list" => self.key("list"),
            "$hash" => self.key("hash"),
            "$set" => self.key("set"),
            "$zset" => self.key("sorted-set"),
            "$stream" => self.key("stream"),
            "$hll" => self.key("hyperloglog"),
            "$n" => self.one_of(&["0", "1", "2", "-1"]).into_bytes(),
            "$db" => self.db().into_bytes(),
            "$id" => self.id().into_bytes(),
            "$secs" => self.lifetime(1).into_bytes(),
            "$ms" => self.lifetime(1000).into_bytes(),
            "$group" => self.one_of(&["gr1", "gr1", "gr2"]).into_bytes(),
            "$consumer" => self.one_of(&["co1", "co2"]).into_bytes(),
            "$pattern" => self.pattern().into_bytes(),
            "$protocol" => (if self.resp3 { b"3" } else { b"2" }).to_vec(),
            "$script" => self.one_of(SCRIPTS).into_bytes(),
            "$library" => self.one_of(LIBRARIES).into_bytes(),
            "$function" => self.one_of(FUNCTIONS).into_bytes(),
            "$sha" => any(&mut self.chance, &self.shas).unwrap_or_default(),
            "$payload" => any(&mut self.chance, &self.payloads).unwrap_or_default(),
            "$functions" => any(&mut self.chance, &self.functions).unwrap_or_default(),
            other => other.as_bytes().to_vec(),
        }
    }

    fn one_of(&mut self, from: &[&str]) -> String {
        (*self.chance.pick(from)).to_owned()
    }

    fn db(&mut self) -> String {
        self.one_of(&["0", "0", "1", "1", "2", "3", "15", "16", "99", "-1", "x", "4294967296"])
    }

    fn id(&mut self) -> String {
        self.one_of(&["0", "0-0", "1-1", "2-1", "3-1", "5", "7-*", "$", "-", "+", "x", "*"])
    }

    fn pattern(&mut self) -> String {
        self.one_of(&["*", "s*", "?1", "[a-l]*", "h[12]", "nothing*", "f?", ""])
    }

    /// Far in the future, all different, and far apart, so that both servers order them alike.
    fn lifetime(&mut self, unit: usize) -> String {
        self.lifetimes += 1;
        ((1_000 + 100 * (self.lifetimes * 7_919 % 10_007)) * unit).to_string()
    }

    /// A key, usually one of the type that the command needs.
    pub fn key(&mut self, group: &str) -> Vec<u8> {
        let any = |chance: &mut Chance| chance.pick(KEYS).1;
        let from = match self.chance.below(100) {
            0..12 => any(&mut self.chance),
            _ => match KEYS.iter().find(|(name, _)| *name == group) {
                Some((_, keys)) => keys,
                None => any(&mut self.chance),
            },
        };
        self.chance.pick(from).to_vec()
    }

    fn member(&mut self, command: &str) -> Vec<u8> {
        match self.chance.below(20) {
            0 => self.value(self.may_have_marks(command)),
            1..6 => self.one_of(&["1", "2", "3", "4", "10"]).into_bytes(),
            _ => self.one_of(&["a", "b", "c", "d", "e"]).into_bytes(),
        }
    }

    /// Whether a value that begins with the mark may be passed to a command. Not if Redis would store it in a string without
    /// Shortstop (see docs/compatibility.md). And not to any string command while compression is off: the value is compressed even
    /// then, and commands on a part of it are refused.
    fn may_have_marks(&self, command: &str) -> bool {
        let strings = ["set", "setex", "psetex", "setnx", "mset", "msetnx", "getset"];
        let unseen = ["append", "setrange", "restore", "eval", "evalsha", "fcall", "bitop"];
        !unseen.contains(&command) && (self.sealing || !strings.contains(&command))
    }

    /// Bytes for a value.
    pub fn value(&mut self, marks: bool) -> Vec<u8> {
        let seed = self.chance.bits() % 1000;
        match self.chance.below(100) {
            0..6 => Vec::new(),
            6..14 => vec![self.chance.below(256) as u8],
            14..26 => self.one_of(&["0", "7", "-3", "41", "9223372036854775807", "123456789"]).into_bytes(),
            26..32 => self.one_of(&["1.5", "-2.25", "3.0e3", "nan"]).into_bytes(),
            32..48 => self.one_of(&["hello", "two words", "f1", "äöü", "s1", "OK"]).into_bytes(),
            48..58 => noise(self.chance.between(1, 120), seed),
            58..80 => prose(self.chance.between(100, 1500), seed),
            80..86 => prose(self.chance.between(1500, 10_000), seed),
            86..90 => [&[0x1f, 0x8b, 8, 0][..], &noise(self.chance.between(0, 60), seed)].concat(),
            90..93 => self.one_of(&["$-1\r\n", "*2\r\n:1\r\n", "+OK\r\n", "-ERR no\r\n", "\r\n"]).into_bytes(),
            93..94 => b"HYLL and more".to_vec(),
            94..99 if marks => self.marked(),
            _ => vec![b'x'; self.chance.between(30, 300)],
        }
    }

    /// Bytes that Shortstop could mistake for a compressed value.
    fn marked(&mut self) -> Vec<u8> {
        let seed = self.chance.bits() % 1000;
        let codec = self.chance.below(2);
        let mark = MARKS[codec];
        // A byte with three flipped bits, and with five: stored like this, the first would be damage and the second data. APPEND or
        // SETRANGE could complete a prefix of the mark.
        let with_other = |xor: u8| [&mark[..9], &[mark[9] ^ xor], &mark[10..], b"and more"].concat();
        match self.chance.below(5) {
            0 => mark.to_vec(),
            1 if seed.is_multiple_of(2) => with_other(0b1010_0100),
            1 => with_other(0b1011_0101),
            2 => [mark, &noise(40, seed)].concat(),
            3 => {
                let codec = [Codec::Gzip, Codec::Zstd][codec];
                let how = CompressOptions { codec, level: 3, min_size: 0, min_saving: 0 };
                codec::compress(&prose(400, seed), Some(&how)).expect("text gets smaller")
            }
            _ => [mark, &prose(900, seed)].concat(),
        }
    }
}
