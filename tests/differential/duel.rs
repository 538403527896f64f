//! Sends the same steps to two servers, and compares their replies.
//!
//! The tried server goes first. A call that it refuses with one of Shortstop's own errors is not sent to the other, and if chance
//! decides what is stored (SPOP, the ids of XADD *), the other is sent the result. So both always contain the same data.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use shortstop::command::Table;
use smallvec::SmallVec;

use super::common::{Client, Redis};
use super::docs;
use super::frame::Frame;
use super::past::Past;
use super::side::{Call, Replies, Side, Step, is_missing};
use super::tables;

/// How a reply of the tried server is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// By the table.
    Compared,
    /// It was refused.
    Refused,
    /// The other must return this.
    Other(Vec<u8>),
}

/// Counts for one command.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Answers compared.
    pub compared: usize,
    /// Those that are no errors.
    pub answered: usize,
    /// Refused by Shortstop.
    pub refused: usize,
}

/// Two servers.
pub struct Duel {
    tried: Side,
    reference: Side,
    /// Values are compressed.
    pub sealing: bool,
    /// All connections speak RESP3.
    pub resp3: bool,
    table: Table,
    containers: BTreeSet<String>,
    past: Past,
    /// Appears in each report.
    pub title: String,
    /// By command.
    pub counts: BTreeMap<String, Count>,
}

impl Duel {
    /// `tried`, whose Redis is `redis`, is compared with `reference`.
    pub fn new(tried: SocketAddr, redis: &Redis, reference: &Redis, resp3: bool, sealing: bool) -> Duel {
        let table = Table::builtin();
        let docs = docs::of(&mut reference.client());
        let containers = docs.iter().filter_map(|doc| Some(doc.name.split_once('|')?.0.to_owned())).collect();
        Duel {
            tried: Side::new(tried, redis.addr(), resp3),
            reference: Side::new(reference.addr(), reference.addr(), resp3),
            sealing,
            resp3,
            table,
            containers,
            past: Past::default(),
            title: String::new(),
            counts: BTreeMap::new(),
        }
    }

    /// All connections are closed.
    pub fn hang_up(&mut self) {
        self.tried.hang_up();
        self.reference.hang_up();
        self.past.clear();
    }

    /// Whether both contain the same data at the end: all keys, and everything that Redis's digests cover. Strings are read,
    /// because the tried server may store them in another form.
    pub fn holds_the_same(&mut self) -> Result<(), String> {
        for db in ["0", "1", "2", "3", "15"] {
            self.run(&[Step::new(0, vec![Call::of(&format!("SELECT {db}")), Call::of("KEYS *")])])?;
            let keys = Frame::of(&self.reference.client(0).cmd("KEYS *")).and_then(|mut frame| frame.parts().cloned());
            let keys = keys.into_iter().flatten().filter_map(|key| key.text().map(<[u8]>::to_vec));
            let about =
                |key: Vec<u8>| [&b"GET"[..], b"TYPE", b"TTL"].map(|name| Call::new(vec![name.to_vec(), key.clone()]));
            self.run(&[Step::new(0, keys.flat_map(about).chain([Call::of("PING")]).collect())])?;
        }
        if self.sealing {
            return Ok(());
        }
        let [tried, reference] =
            [&self.tried, &self.reference].map(|side| Client::connect(side.redis()).cmd("DEBUG DIGEST"));
        (tried == reference).then_some(()).ok_or_else(|| format!("{}: the digests of the data differ", self.title))
    }

    /// Neither contains a key.
    pub fn clear(&mut self) {
        for side in [&mut self.tried, &mut self.reference] {
            assert_eq!(side.client(0).cmd("FLUSHALL"), b"+OK\r\n", "{}", self.title);
        }
    }

    /// Answers compared so far.
    pub fn compared(&self) -> usize {
        self.counts.values().map(|count| count.compared).sum()
    }

    /// Calls that were refused so far.
    pub fn refused(&self) -> usize {
        self.counts.values().map(|count| count.refused).sum()
    }

    /// Runs steps that leave no transaction open, and compares the replies.
    ///
    /// # Errors
    /// The difference, with the calls that led to it.
    pub fn run(&mut self, steps: &[Step]) -> Result<(), String> {
        let got = self.tried.run(steps);
        let (steps, verdicts) = self.mirror(steps, &got);
        let expected = self.reference.run(&steps);
        self.compare(&steps, &verdicts, &got, &expected)?;
        let left = [("Shortstop", self.tried.nothing_is_left()), ("Redis", self.reference.nothing_is_left())];
        for (name, left) in left {
            if let Err(what) = left {
                return Err(format!("{}: {name}: {what}\n{}", self.title, self.past.history(&[])));
            }
        }
        Ok(())
    }

    /// `name`, or `container|sub`.
    fn name(&self, call: &Call) -> String {
        let lower = |at: usize| call.args.get(at).map(|arg| String::from_utf8_lossy(arg).to_ascii_lowercase());
        let Some(name) = lower(0) else { return "(nothing)".to_owned() };
        match lower(1) {
            Some(sub) if self.containers.contains(&name) => format!("{name}|{sub}"),
            _ => name,
        }
    }

    /// The steps for the reference, and what to compare. Slots of EXEC have the verdicts of their calls.
    fn mirror(&self, steps: &[Step], got: &[Vec<Replies>]) -> (Vec<Step>, Vec<Vec<Verdict>>) {
        let mut steps = steps.to_vec();
        let mut verdicts: Vec<Vec<Verdict>> =
            steps.iter().map(|step| vec![Verdict::Compared; step.calls.len()]).collect();
        let mut queues: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        for at in 0..steps.len() {
            for call in 0..steps[at].calls.len() {
                let connection = steps[at].connection;
                let name = self.name(&steps[at].calls[call]);
                let reply = got[at][call].first().map_or(&b""[..], Vec::as_slice);
                let queue = queues.get_mut(&connection);
                if tables::is_refusal(&name, reply, self.sealing) {
                    verdicts[at][call] = Verdict::Refused;
                    // In a transaction it must abort the transaction.
                    steps[at].calls[call] = Call::of(if queue.is_some() { "NOSUCHCOMMAND" } else { "PING" });
                    continue;
                }
                match (name.as_str(), queue) {
                    ("multi", None) if reply == b"+OK\r\n" => drop(queues.insert(connection, Vec::new())),
                    ("discard" | "reset", Some(_)) => drop(queues.remove(&connection)),
                    ("exec", Some(_)) => {
                        let queue = queues.remove(&connection).unwrap_or_default();
                        if self.sealing && matches!(reply, b"*-1\r\n" | b"_\r\n") {
                            // Also if only the form of a watched value has changed: compressed, and turned to plain for a command
                            // of this transaction.
                            verdicts[at][call] = Verdict::Refused;
                            steps[at].calls[call] = Call::of("DISCARD");
                            continue;
                        }
                        let elements = Frame::of(reply).and_then(|mut frame| frame.parts().cloned());
                        for ((at, call), element) in queue.into_iter().zip(elements.unwrap_or_default()) {
                            let name = self.name(&steps[at].calls[call]);
                            if tables::is_refusal(&name, &element.bytes(), self.sealing) {
                                verdicts[at][call] = Verdict::Refused;
                                steps[at].calls[call] = Call::of("PING");
                            }
                        }
                    }
                    (_, Some(queue)) if reply == b"+QUEUED\r\n" => queue.push((at, call)),
                    (_, Some(_)) => {}
                    ("spop", None) => {
                        if let Some((args, expected)) = removed(&steps[at].calls[call].args, reply) {
                            steps[at].calls[call] = Call::new(args);
                            verdicts[at][call] = Verdict::Other(expected);
                        }
                    }
                    ("xadd", None) => {
                        if let Some(Frame::Bulk(_, Some(id))) = Frame::of(reply)
                            && let Some(args) = with_id(&steps[at].calls[call].args, id)
                        {
                            steps[at].calls[call] = Call::new(args);
                        }
                    }
                    _ => {}
                }
            }
        }
        (steps, verdicts)
    }

    fn compare(
        &mut self,
        steps: &[Step],
        verdicts: &[Vec<Verdict>],
        got: &[Vec<Replies>],
        expected: &[Vec<Replies>],
    ) -> Result<(), String> {
        let mut queues: BTreeMap<usize, Vec<(String, bool)>> = BTreeMap::new();
        for (at, step) in steps.iter().enumerate() {
            for (index, call) in step.calls.iter().enumerate() {
                let (got, expected, verdict) = (&got[at][index], &expected[at][index], &verdicts[at][index]);
                let name = self.name(call);
                self.past.add(step.connection, &call.args, self.keys(call), expected);
                let first = expected.first().map_or(&b""[..], Vec::as_slice);
                let slots = match name.as_str() {
                    "exec" | "discard" | "reset" => queues.remove(&step.connection),
                    "multi" if first == b"+OK\r\n" => {
                        queues.insert(step.connection, Vec::new());
                        None
                    }
                    _ => None,
                };
                let equal = match queues.get_mut(&step.connection).filter(|_| first == b"+QUEUED\r\n") {
                    Some(queue) => {
                        queue.push((name, *verdict == Verdict::Refused));
                        got == expected || *verdict == Verdict::Refused
                    }
                    None if name == "exec" => {
                        self.count(&name, first);
                        let slots = slots.unwrap_or_default();
                        got.len() == expected.len()
                            && got.iter().zip(expected).all(|(got, expected)| self.exec_holds(&slots, got, expected))
                    }
                    None => self.holds(&name, call, verdict, got, expected),
                };
                // A reply that the reference had to give must be there.
                let all_came = expected.iter().all(|reply| !is_missing(reply));
                if !equal || !all_came {
                    return Err(format!("{}: {}", self.title, self.past.report(step, index, got, expected)));
                }
            }
        }
        Ok(())
    }

    fn holds(&mut self, name: &str, call: &Call, verdict: &Verdict, got: &Replies, expected: &Replies) -> bool {
        let first = expected.first().map_or(&b""[..], Vec::as_slice);
        match verdict {
            Verdict::Refused => {
                self.counts.entry(name.to_owned()).or_default().refused += 1;
                return got.len() == 1;
            }
            Verdict::Other(other) => {
                self.count("spop", first);
                return expected.concat() == *other;
            }
            Verdict::Compared => self.count(name, first),
        }
        if name.ends_with("unsubscribe") && call.args.len() == 1 {
            return acknowledged(got) == acknowledged(expected);
        }
        let how = tables::how(name, self.sealing);
        got.len() == expected.len() && got.iter().zip(expected).all(|(got, expected)| how.holds(got, expected))
    }

    /// The replies in EXEC's, each compared by the rule of its own command.
    fn exec_holds(&mut self, slots: &[(String, bool)], got: &[u8], expected: &[u8]) -> bool {
        if got == expected && slots.iter().all(|(_, refused)| !refused) {
            let parts = Frame::of(expected).and_then(|mut frame| frame.parts().cloned()).unwrap_or_default();
            for ((name, _), part) in slots.iter().zip(parts) {
                self.count(name, if matches!(part, Frame::Line(b'-', _)) { b"-" } else { b"+" });
            }
            return true;
        }
        let parts = |reply| Frame::of(reply).and_then(|mut frame| frame.parts().cloned());
        let (Some(one), Some(other)) = (parts(got), parts(expected)) else { return got == expected };
        let kinds_are_equal = got.first() == expected.first();
        kinds_are_equal
            && one.len() == slots.len()
            && other.len() == slots.len()
            && slots.iter().zip(one).zip(other).all(|(((name, refused), got), expected)| {
                if !refused {
                    self.count(name, if matches!(expected, Frame::Line(b'-', _)) { b"-" } else { b"+" });
                }
                *refused || tables::how(name, self.sealing).holds_for(got, expected)
            })
    }

    fn count(&mut self, name: &str, reply: &[u8]) {
        let count = self.counts.entry(name.to_owned()).or_default();
        count.compared += 1;
        count.answered += usize::from(!reply.starts_with(b"-"));
    }

    fn keys(&self, call: &Call) -> Vec<Vec<u8>> {
        let args: Vec<&[u8]> = call.args.iter().map(Vec::as_slice).collect();
        if args.is_empty() {
            return Vec::new();
        }
        let mut keys = SmallVec::new();
        self.table.resolve(&args).keys(&args, &mut keys);
        keys.iter().map(|at| args[*at as usize].to_vec()).collect()
    }
}

/// SREM of what SPOP removed, and its reply.
fn removed(args: &[Vec<u8>], reply: &[u8]) -> Option<(Vec<Vec<u8>>, Vec<u8>)> {
    let taken: Vec<Vec<u8>> = match Frame::of(reply)? {
        Frame::Bulk(_, Some(one)) => vec![one],
        Frame::Many(_, Some(parts)) => parts.iter().filter_map(|part| part.text().map(<[u8]>::to_vec)).collect(),
        _ => return None,
    };
    if taken.is_empty() {
        return None;
    }
    let expected = format!(":{}\r\n", taken.len()).into_bytes();
    Some(([vec![b"SREM".to_vec(), args[1].clone()], taken].concat(), expected))
}

/// The names that an UNSUBSCRIBE of everything returned, which are in a hash table's order, and the rest in their order.
fn acknowledged(replies: &Replies) -> (Vec<Option<Frame>>, Vec<Option<Frame>>) {
    let mut names = Vec::new();
    let mut rest: Vec<_> = replies.iter().map(|reply| Frame::of(reply)).collect();
    for frame in rest.iter_mut().flatten() {
        if let Some([_, name, _]) = frame.parts().map(Vec::as_mut_slice) {
            names.push(Some(name.clone()));
            name.blank();
        }
    }
    names.sort();
    (names, rest)
}

/// XADD with the generated id in place of the star.
fn with_id(args: &[Vec<u8>], id: Vec<u8>) -> Option<Vec<Vec<u8>>> {
    // A star may also be a value after an explicit id.
    let place = args.iter().position(|arg| arg == b"*" || arg.ends_with(b"-*") || *arg == id)?;
    let mut args = args.to_vec();
    (args[place] == b"*").then(|| args[place] = id)?;
    Some(args)
}
