//! Generates calls: plausible ones, from the server's own grammar or from a template, and invalid ones.

use super::docs::{Argument, Doc};
use super::tables::{DIFFERENCES, Difference, NOT_GENERATED, What};
use super::templates;
use super::values::{Args, KEYS, Values};

/// Replaces an argument, or follows the last. No number above zero, because it could be a timeout or a TTL.
const JUNK: &[&[u8]] =
    &[b"", b"junk", b"-1", b"NX", b"COUNT", b"STREAMS", b"WITHSCORES", b"\r\n", b"*1\r\n$4\r\nPING\r\n", b"\xff\0"];

/// Not mutated at random: they could block forever, or reply without end.
const UNCHANGED: &[&str] = &[
    "blmove",
    "blmpop",
    "blpop",
    "brpop",
    "brpoplpush",
    "bzmpop",
    "bzpopmax",
    "bzpopmin",
    "xread",
    "xreadgroup",
    "migrate",
    "srandmember",
    "hrandfield",
    "zrandmember",
    "scan",
    "sscan",
    "zscan",
    "lcs",
    "swapdb",
    "hello",
    "config|set",
    "pfdebug",
];

/// A generator of calls.
pub struct Maker {
    /// For keys, values and all other parts of a call.
    pub values: Values,
    docs: Vec<Doc>,
    /// By index in `docs`. 0: not generated.
    weights: Vec<usize>,
    hot: Vec<&'static str>,
    sealing: bool,
}

/// The state of a call during its generation.
#[derive(Default)]
struct Building {
    args: Args,
    /// Position of `numkeys`.
    numkeys: Option<usize>,
    /// Keys since then.
    keys: usize,
}

impl Maker {
    /// From the server's own documentation.
    pub fn new(seed: u64, docs: Vec<Doc>, sealing: bool, resp3: bool) -> Maker {
        let weights = docs.iter().map(weight).collect();
        Maker { values: Values::new(seed, sealing, resp3), docs, weights, hot: templates::below("(hot)"), sealing }
    }

    /// The commands that it generates.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        self.docs.iter().zip(&self.weights).filter(|(_, weight)| **weight > 0).map(|(doc, _)| doc.name.as_str())
    }

    /// One call.
    pub fn call(&mut self) -> Args {
        match self.values.chance.below(100) {
            0..35 => self.hot_call(),
            35..38 => self.unknown(),
            _ => {
                let at = self.values.chance.weighted(&self.weights);
                self.command(at)
            }
        }
    }

    /// A call on a string.
    pub fn hot_call(&mut self) -> Args {
        let line = *self.values.chance.pick(&self.hot);
        self.values.template(line)
    }

    /// A call that may be in a transaction: its result is the same on both servers.
    pub fn queued_call(&mut self) -> Args {
        loop {
            let call = self.call();
            let by_chance = call[0].eq_ignore_ascii_case(b"spop")
                || call[0].eq_ignore_ascii_case(b"xadd") && call.iter().any(|arg| arg == b"*");
            if !by_chance {
                return call;
            }
        }
    }

    /// A call of a command for keys of this type, on this key if possible.
    pub fn call_about(&mut self, group: &str, key: &[u8]) -> Args {
        let fits = |doc: &Doc| doc.group == group || doc.group == "generic";
        let weights = self.docs.iter().zip(&self.weights).map(|(doc, weight)| if fits(doc) { *weight } else { 0 });
        let weights: Vec<usize> = weights.collect();
        let at = self.values.chance.weighted(&weights);
        let mut call = self.command(at);
        if let Some(first) = call.get_mut(1).filter(|arg| KEYS.iter().any(|(_, keys)| keys.contains(&arg.as_slice()))) {
            *first = key.to_vec();
        }
        call
    }

    fn unknown(&mut self) -> Args {
        let lines = [
            "NOSUCHCOMMAND",
            "NOSUCHCOMMAND $v $key",
            "nosuch|command x",
            "CONFIG NOSUCH",
            "CLIENT NOSUCH $v",
            "OBJECT NOSUCH $key",
            "XINFO NOSUCH",
            "SCRIPT NOSUCH x",
            "FUNCTION NOSUCH",
            "MEMORY NOSUCH",
            "ACL NOSUCH",
            "COMMAND NOSUCH",
            "PUBSUB NOSUCH",
            "XGROUP NOSUCH $stream",
            "CONFIG",
            "CLIENT",
            "OBJECT",
            "_",
        ];
        let line = *self.values.chance.pick(&lines);
        self.values.template(line)
    }

    /// Each command this many times, in the order of their names: the input of [`Maker::command`].
    pub fn each(&self, times: usize) -> Vec<usize> {
        let all = || self.weights.iter().enumerate().filter(|(_, weight)| **weight > 0).map(|(at, _)| at);
        (0..times).flat_map(|_| all()).collect()
    }

    /// According to the grammar, except for calls that cannot be compared on Redis 8.6: an `XADD … IDMP`, because the other server
    /// is sent the generated id, which would be another call; a `SET … GET IFDEQ`, which has two replies if the digest is invalid.
    fn comparable(&mut self, at: usize) -> Args {
        loop {
            let args = self.by_grammar(at);
            let has = |words: [&str; 2]| args.iter().any(|arg| words.iter().any(|word| arg == word.as_bytes()));
            let cannot = match self.docs[at].name.as_str() {
                "xadd" => has(["IDMP", "IDMPAUTO"]),
                "set" => has(["GET", "GET"]) && has(["IFDEQ", "IFDNE"]),
                _ => false,
            };
            if !cannot {
                return args;
            }
        }
    }

    /// A call of one command.
    pub fn command(&mut self, at: usize) -> Args {
        let name = self.docs[at].name.clone();
        let mut lines = templates::below(&format!("[{name}]"));
        if !self.sealing {
            lines.extend(templates::below(&format!("[{name}, raw]")));
        }
        let mut args = if lines.is_empty() {
            self.comparable(at)
        } else {
            let line = *self.values.chance.pick(&lines);
            self.values.template(line)
        };
        if !UNCHANGED.contains(&name.as_str()) && self.values.chance.percent(7) {
            self.spoil(&mut args, self.docs[at].arity);
        }
        if self.values.chance.percent(10) {
            args[0].iter_mut().for_each(|byte| {
                if self.values.chance.percent(50) {
                    *byte ^= u8::from(byte.is_ascii_alphabetic()) << 5;
                }
            });
        }
        args
    }

    /// Makes a call invalid, or at least unusual.
    fn spoil(&mut self, args: &mut Args, arity: i64) {
        match self.values.chance.below(3) {
            0 => args.truncate(self.values.chance.between(1, (arity.unsigned_abs() as usize).max(2) - 1)),
            1 => args.push(self.values.chance.pick(JUNK).to_vec()),
            _ if args.len() > 1 => {
                let at = self.values.chance.between(1, args.len() - 1);
                args[at] = self.values.chance.pick(JUNK).to_vec();
            }
            _ => {}
        }
    }

    fn by_grammar(&mut self, at: usize) -> Args {
        let doc = &self.docs[at];
        let (name, group) = (doc.name.clone(), doc.group.clone());
        let words = name.split('|').map(|word| word.to_ascii_uppercase().into_bytes()).collect();
        let mut building = Building { args: words, ..Building::default() };
        // Taken out and put back, so that it can be read while everything else changes.
        let arguments = std::mem::take(&mut self.docs[at].arguments);
        self.arguments(&name, &group, &arguments, &mut building);
        self.docs[at].arguments = arguments;
        if let Some(place) = building.numkeys
            && self.values.chance.percent(93)
        {
            building.args[place] = building.keys.to_string().into_bytes();
        }
        building.args
    }

    fn arguments(&mut self, command: &str, group: &str, arguments: &[Argument], building: &mut Building) {
        for argument in arguments {
            if !argument.optional || self.values.chance.percent(30) {
                self.argument(command, group, argument, building);
            }
        }
    }

    /// An argument that is not left out.
    fn argument(&mut self, command: &str, group: &str, argument: &Argument, building: &mut Building) {
        let times = match argument.name.as_str() {
            // As many as there are keys.
            "weight" | "id" if building.keys > 0 && argument.multiple => building.keys,
            _ if argument.multiple => [1, 1, 2, 3][self.values.chance.below(4)],
            _ => 1,
        };
        for time in 0..times {
            if let Some(token) = argument.token.as_ref().filter(|_| time == 0 || argument.multiple_token) {
                building.args.push(token.as_bytes().to_vec());
            }
            match argument.kind.as_str() {
                "pure-token" => {}
                "oneof" => {
                    let one = self.values.chance.pick(&argument.arguments);
                    self.argument(command, group, one, building);
                }
                "block" => self.arguments(command, group, &argument.arguments, building),
                "key" => {
                    building.keys += 1;
                    let key = self.values.key(group);
                    building.args.push(key);
                }
                _ => {
                    if argument.name == "numkeys" {
                        (building.numkeys, building.keys) = (Some(building.args.len()), 0);
                    }
                    let value = self.values.value_of(command, group, argument);
                    building.args.push(value);
                }
            }
        }
    }
}

/// How often a command is generated.
fn weight(doc: &Doc) -> usize {
    let not_sent = |one: &&Difference| matches!(one.what, What::NotSent) && one.command == doc.name;
    if DIFFERENCES.iter().any(|one| not_sent(&one)) || NOT_GENERATED.iter().any(|(name, _)| *name == doc.name) {
        return 0;
    }
    match (doc.name.as_str(), doc.group.as_str()) {
        ("flushall" | "flushdb" | "swapdb" | "lcs" | "command" | "command|docs" | "pfdebug" | "migrate", _) => 1,
        ("select" | "rename" | "renamenx" | "copy" | "move", _) => 3,
        (_, "cluster" | "server" | "connection") => 2,
        (_, "scripting" | "pubsub" | "transactions") => 4,
        _ => 12,
    }
}
