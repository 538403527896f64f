//! Commands that write values: sealed on their way, here or, if they are large, where nobody waits for it.

use std::cell::RefCell;
use std::rc::Rc;

use crate::coherence::Permit;
use crate::command::Verb;

use super::context::View;
use super::request::{Replacements, Request};
use super::seal::{self, Candidates, Parked, Sealed};
use super::waiting::Then;
use super::{Call, Client, Next, Target};

/// What came of sealing elsewhere; none: it panicked.
pub(super) type Outcome = Option<(Replacements, Sealed)>;

impl Client {
    /// SET and its kin: seals what is worth it, here or elsewhere, and sends.
    pub(super) fn write_values(&mut self, view: &View, permit: &Permit, call: Call<'_>) -> Next {
        let candidates = seal::candidates(call.row.verb, &call.request, &view.policy);
        if let Some(text) = &candidates.refused {
            return self.refuse_where_it_is(permit, text);
        }
        if candidates.bytes > view.policy.offload_above {
            return self.park(call.request, candidates);
        }
        let (replacements, sealed) = seal::seal(call.request.raw, call.request.ranges, &candidates);
        self.send_values(view, permit, call, replacements, &sealed)
    }

    /// Refuses a command; one in a transaction spoils the transaction.
    fn refuse_where_it_is(&mut self, permit: &Permit, text: &str) -> Next {
        match self.session.clone().filter(|session| session.in_multi()) {
            Some(session) => self.spoil(permit, &session, text),
            None => self.refuse(text),
        }
    }

    fn send_values(
        &mut self,
        view: &View,
        permit: &Permit,
        call: Call<'_>,
        replacements: Replacements,
        sealed: &Sealed,
    ) -> Next {
        if let Some(text) = self.outgrown(call.request, &replacements) {
            return self.refuse_where_it_is(permit, &text);
        }
        if let Err(next) = self.leave_lane_if_large(permit, bytes_of(call.request, &replacements), call.args.len()) {
            return next;
        }
        let target = match self.target() {
            Ok(target) => target,
            Err(lost) => return self.unavailable(&lost),
        };
        if sealed.values > 0 {
            let stats = self.context.stats();
            stats.compressed_values.add(sealed.values);
            stats.compressed_bytes_in.add(sealed.bytes_in);
            stats.compressed_bytes_out.add(sealed.bytes_out);
        }
        let mut written = self.written(view, call);
        let mask = written.mask();
        let then = if let Target::Session(session) = &target
            && session.in_multi()
        {
            session.queue(|queued| {
                queued.written.extend(written);
                queued.holds.push(self.holds(call));
            });
            Then::Queued(Rc::clone(session))
        } else {
            written.begin(&self.context, view);
            Then::Write { written, holds: self.holds(call) }
        };
        self.send(permit.now, target.link(), then, mask, |wire| call.request.write(wire, replacements));
        Next::Go
    }

    /// Why a request cannot be sent: Redis would take a value as the client sent it, but not the longer form to be stored.
    fn outgrown(&self, request: Request<'_>, replacements: &Replacements) -> Option<String> {
        if replacements.is_empty() {
            return None;
        }
        let most = self.context.shared.server_limits.bulk_length()?;
        let mut all = replacements.iter();
        let (_, envelope) = all.find(|(at, envelope)| envelope.len() > most && request.arg(*at).len() <= most)?;
        Some(format!(
            "ERR shortstop: the value looks like one that is stored compressed, and has to be stored in {} bytes, which is above \
             Redis's proto-max-bulk-len of {most}; raise it, or store less",
            envelope.len()
        ))
    }

    /// Has large values sealed where nobody waits for it. The client takes no other request until then.
    fn park(&mut self, request: Request<'_>, candidates: Candidates) -> Next {
        let raw = request.owned.cloned().unwrap_or_else(|| bytes::Bytes::copy_from_slice(request.raw));
        let parked = Parked { raw: raw.clone(), ranges: request.ranges.clone() };
        let outcome: Rc<RefCell<Option<Outcome>>> = Rc::default();
        let ranges = request.ranges.clone();
        let (there, outlet) = (Rc::clone(&outcome), Rc::clone(&self.outlet));
        self.context.elsewhere(
            move || seal::seal(&raw, &ranges, &candidates),
            move |_, sealed| {
                *there.borrow_mut() = Some(sealed);
                outlet.wake();
            },
        );
        self.parked = Some((parked, outcome));
        Next::Go
    }

    /// Sends the request whose values have been sealed; none: it cannot be sent now.
    pub fn unpark(&mut self, view: &View, permit: &Permit) -> Option<Next> {
        let (parked, outcome) = self.parked.as_ref()?;
        let bytes = match outcome.borrow().as_ref()? {
            Some((replacements, _)) => bytes_of(parked.request(), replacements),
            None => 0,
        };
        let arguments = parked.ranges.len();
        // Decided here, because a parked request cannot be taken again: it stays parked until the replies that are due have come.
        match self.leave_lane_if_large(permit, bytes, arguments) {
            Ok(()) => {}
            Err(Next::Again) => return None,
            Err(next) => {
                self.parked = None;
                self.end_of_request();
                return Some(next);
            }
        }
        let (parked, outcome) = self.parked.take()?;
        let outcome = outcome.take()?;
        let Some((replacements, sealed)) = outcome else {
            let text = "ERR shortstop: the value could not be compressed; it was not stored";
            let next = match self.session.clone().filter(|session| session.in_multi()) {
                Some(session) => self.spoil(permit, &session, text),
                None => self.refuse(text),
            };
            self.end_of_request();
            return Some(next);
        };
        let request = parked.request();
        let args = request.words();
        let call = Call { row: view.table.resolve(&args), request, args: &args };
        let next = self.send_values(view, permit, call, replacements, &sealed);
        self.end_of_request();
        Some(next)
    }
}

/// Bytes of a request in which some arguments are replaced.
fn bytes_of(request: Request<'_>, replacements: &Replacements) -> usize {
    let (added, gone) = replacements
        .iter()
        .fold((0, 0), |(added, gone), (at, bytes)| (added + bytes.len(), gone + request.arg(*at).len()));
    request.raw.len() + added - gone
}

/// Whether the command's values are sealed on their way, and that is all there is to see to.
pub(super) fn writes_values(verb: Verb, args: &[&[u8]]) -> bool {
    match verb {
        Verb::SetEx | Verb::PSetEx | Verb::SetNx | Verb::MSet | Verb::MSetNx | Verb::MSetEx | Verb::GetSet => true,
        Verb::Set => !seal::compares(args),
        _ => false,
    }
}
