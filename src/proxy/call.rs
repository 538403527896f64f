//! One call of a command: its row, its arguments, its target, and the bytes to send.

use std::cell::Cell;
use std::rc::Rc;

use smallvec::SmallVec;

use crate::command::{Keys, Row};
use crate::exchange::pending::{Link, Session};
use crate::exchange::script_request::ScriptRequest;
use crate::metrics::rules::RulePlace;
use crate::proxy::request::{Replacements, Request};
use crate::resp::{Chunks, build};
use crate::rules::Rule;
use crate::worker_state::policy::View;

/// The connection that a request goes to.
pub(super) enum Target {
    /// A connection that clients share.
    Lane(Link),
    /// The client's private connection.
    Session(Rc<Session>),
}

impl Target {
    pub(super) fn link(&self) -> &Link {
        match self {
            Target::Lane(link) => link,
            Target::Session(session) => &session.link,
        }
    }
}

/// The bytes to send for a request.
pub(super) enum Wire {
    /// The request itself.
    AsIs,
    /// GET of the request's key.
    Get,
    /// A script that runs the command if no string is compressed.
    Script(ScriptRequest),
    /// The request itself, on a connection of its own, when these strings are plain.
    Alone(Vec<Vec<u8>>),
}

/// One call: the command's row, the request, and its arguments.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) row: &'a Row,
    pub(super) request: Request<'a>,
    pub(super) args: &'a [&'a [u8]],
    /// Its keys, located once.
    pub(super) keys: &'a FoundKeys,
}

impl<'a> Call<'a> {
    /// The rule of the key that is this argument.
    pub(super) fn rule(&self, view: &'a View, key_at: usize) -> &'a Rule {
        let rule = view.policy.rules.of(self.args[key_at]);
        if self.keys.places.len() == 1 {
            self.keys.only_rule.set(Some(rule.place));
        }
        rule
    }

    /// Counts the call for the rule of each of its keys. L1 has not answered it.
    pub(super) fn count(&self, view: &View) {
        let count = |place| {
            let counters = view.rule_counts.at(place);
            counters.passed.add(1);
            if self.row.is_write() {
                counters.writes.add(1);
            }
        };
        match self.keys.only_rule.get() {
            Some(place) => count(place),
            None => {
                let keys = self.keys.places.iter().filter_map(|at| self.args.get(*at as usize));
                keys.for_each(|key| count(view.policy.rules.of(key).place));
            }
        }
    }
}

/// Where the keys of a call are.
pub(super) struct FoundKeys {
    /// Whether the call can touch other keys too.
    pub(super) all: Keys,
    /// Which arguments are keys.
    pub(super) places: SmallVec<[u32; 4]>,
    /// Where the only key's requests are counted, once its rule was looked up.
    only_rule: Cell<Option<RulePlace>>,
}

impl FoundKeys {
    /// Locates the keys of a call. `args` is the whole call.
    #[inline]
    pub(super) fn of(row: &Row, args: &[&[u8]]) -> Self {
        let mut places = SmallVec::new();
        let all = row.keys(args, &mut places);
        FoundKeys { all, places, only_rule: Cell::default() }
    }
}

/// Appends a request, or what is sent in its place.
pub(super) fn write_wire(out: &mut Chunks, request: &Request<'_>, wire: Wire) {
    match wire {
        Wire::AsIs | Wire::Alone(_) => request.write(out, Replacements::new()),
        Wire::Get => out.push_with(|out| build::request(out, [&b"GET"[..], request.arg(1)].into_iter())),
        Wire::Script(script) => script.write(out),
    }
}
