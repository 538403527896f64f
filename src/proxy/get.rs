//! Reads of one key that L1 may answer: answered from L1, joined to a fetch that is under way, or fetched from Redis and kept.
//!
//! An entry answers only the same question, byte for byte, and from the same user. No client is served a value that was read for
//! another user.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use smallvec::smallvec;

use crate::coherence::ServePermit;
use crate::command::Row;
use crate::exchange::observed::Observed;
use crate::exchange::pending::{Flight, OnReply, Reader};
use crate::exchange::reply_shape::ReplyShape;
use crate::exchange::values::{NO_VALUE, ask_ttl};
use crate::metrics::outcome::NotKept;
use crate::metrics::rules::RulePlace;
use crate::near_cache::{EntryId, Question, in_version};
use crate::proxy::call::Target;
use crate::proxy::client::{Client, Next};
use crate::proxy::request::{Replacements, Request};
use crate::reads::{Absent, Reads};
use crate::resp::build;
use crate::rules::{CacheRule, Rule};
use crate::strings::Look;
use crate::traffic::{Unkept, What};
use crate::worker_state::policy::View;

/// How to keep the reply of a fetch.
pub(super) struct Keeping<'a> {
    pub(super) rule: &'a CacheRule,
    pub(super) absent: Absent,
}

impl Client {
    /// GET of a client without a session.
    #[inline]
    pub(super) fn get(&mut self, view: &View, permit: &ServePermit, row: &Row, request: Request<'_>) -> Next {
        let question = self.question(request.arg(1));
        let id = question.id();
        if view.policy.caches && self.in_flight & id.key().in_flight_bit() == 0 {
            let muted = self.is_muted();
            let version = self.state.profile.version();
            let found = self.look_up(permit, id, &question, |reply| {
                self.reply_queue.local(in_version(reply, version), muted);
            });
            if let Some(place) = found {
                self.hit(view, place);
                return Next::Go;
            }
        }
        let rule = view.policy.rules.of(question.key());
        let keeping = rule.keeps(Reads::GET).map(|rule| Keeping { rule, absent: NO_VALUE });
        self.fetch(view, permit, row, question, id, (rule, keeping), request, None)
    }

    /// Fetches a reply from Redis, joined with other clients' equal requests, and keeps it once the key was requested often enough.
    #[expect(clippy::too_many_arguments, reason = "one question, in the parts that its two askers have at hand")]
    pub(super) fn fetch(
        &mut self,
        view: &View,
        permit: &ServePermit,
        row: &Row,
        question: Question<'_>,
        id: EntryId,
        (rule, keeping): (&Rule, Option<Keeping<'_>>),
        request: Request<'_>,
        look: Option<Box<Look>>,
    ) -> Next {
        if self.awaits_flight() {
            return Next::Again;
        }
        self.leave_lane_if_held_up(permit.now);
        if self.state.profile.has_no_login()
            && !self.state.profile.is_accepted()
            && let Some(next) = self.read_before_auth()
        {
            return next;
        }
        if let Err(next) = self.leave_lane_if_large(permit, request.raw.len(), request.argc()) {
            return next;
        }
        let target = match self.target() {
            Ok(target) => target,
            Err(lost) => return self.unavailable(&lost),
        };
        self.call = self.context.note_read(self.id, row, request.raw, request.ranges);
        // Only replies from a lane are kept.
        let keeping = keeping.filter(|_| matches!(target, Target::Lane(_)));
        self.context.key_asked(id.key(), question.db(), question.key());
        let link = target.link();
        let mask = id.key().in_flight_bit();
        let counters = view.rule_counts.at(rule.place);
        counters.passed.add(1);
        if keeping.is_some() {
            self.context.stats().l1_misses.add(1);
            counters.misses.add(1);
            self.context.accessed(id, rule.place, || What::Miss);
        }
        // If the user has no right to PTTL, Redis would refuse it and add an entry to ACL LOG.
        let may_ttl = || self.state.profile.may_ttl(&self.context.shared.users);
        let keeping = keeping.filter(|_| self.keeps_if(permit, id, may_ttl(), NotKept::TtlUnknown));
        let admits = |rule: &CacheRule| {
            self.state.info.is_warming || self.context.admission.borrow_mut().asked(id, rule.admit_after)
        };
        let keeping = keeping.filter(|keeping| self.keeps_if(permit, id, admits(keeping.rule), NotKept::NotAdmitted));
        if let Some(Keeping { rule, absent }) = keeping {
            if self.reply_queue.outstanding() == 0 && permit.serves() && self.join(permit, id, &question, mask) {
                return Next::Go;
            }
            if let Some(ticket) = self.context.shared.coherence.ticket(id, question.db(), permit.now) {
                let flight = Rc::new(Flight {
                    id,
                    asked: question.keep(),
                    rule: *rule,
                    absent,
                    ticket: RefCell::new(Some(ticket)),
                    sent: permit.now,
                    link: link.clone(),
                    look: look.clone(),
                    readers: RefCell::default(),
                });
                self.context.flights.borrow_mut().insert(id, Rc::clone(&flight));
                self.send(permit.now, link, OnReply::Fill(flight), mask, |out| {
                    match look {
                        Some(_) => out.push_with(|out| build::request(out, [&b"GET"[..], question.key()].into_iter())),
                        None => request.write(out, Replacements::new()),
                    }
                    ask_ttl(out, question.key());
                });
                return Next::Go;
            }
            self.keeps_if(permit, id, false, NotKept::Blocked);
        }
        let on_reply = match (question.is_get(), &look) {
            (true, _) => {
                let observed = self.observed(view, &question, (rule, Reads::GET, NO_VALUE));
                let is_needed = view.policy.caches || observed.is_some();
                OnReply::Value { id: is_needed.then_some(id), observed }
            }
            (false, Some(look)) => {
                OnReply::Content { keys: smallvec![id.key()], shape: ReplyShape::Look(look.clone()) }
            }
            (false, None) => OnReply::Read { id, observed: None },
        };
        self.send(permit.now, link, on_reply, mask, |out| match look {
            Some(_) => out.push_with(|out| build::request(out, [&b"GET"[..], question.key()].into_iter())),
            None => request.write(out, Replacements::new()),
        });
        Next::Go
    }

    /// Returns `may`. If it is false, counts `why` as the reason why the reply is not kept.
    #[inline]
    pub(super) fn keeps_if(&self, permit: &ServePermit, id: EntryId, may: bool, why: NotKept) -> bool {
        if !may {
            let user = self.state.profile.user();
            self.context.not_kept(id.key(), Unkept { why, at: permit.now, bytes: None, user });
        }
        may
    }

    /// Counts a read that is only observed. Returns what L1 would do with its reply, if the read is to be noted.
    pub(super) fn observed(
        &self,
        view: &View,
        question: &Question<'_>,
        (rule, read, absent): (&Rule, Reads, Absent),
    ) -> Option<Box<Observed>> {
        let cache = rule.would_keep(read)?;
        // Only replies from a lane are kept.
        if self.session.is_some() {
            return None;
        }
        view.rule_counts.at(rule.place).observed.add(1);
        let id = question.id();
        let permit =
            self.context.accesses.has(id.key()).then(|| self.context.shared.coherence.permit(Instant::now()))?;
        if !self.context.accesses.notes_observed(&permit, id) {
            return None;
        }
        let longest = self.context.max_staleness();
        let is_admitted = self.context.admission.borrow_mut().asked(id, cache.admit_after);
        Some(Box::new(Observed {
            place: rule.place,
            life: is_admitted.then_some(cache.ttl.min(longest)),
            negative_life: cache.negative_ttl.min(longest),
            max_value: cache.max_value,
            absent,
            question: question.bytes(),
        }))
    }

    /// The question that a GET of this client asks.
    #[inline]
    pub(super) fn question<'a>(&self, key: &'a [u8]) -> Question<'a> {
        Question::get(self.state.profile.db(), self.state.profile.user(), key)
    }

    /// Counts a hit. `place` is the entry's.
    #[inline]
    pub(super) fn hit(&mut self, view: &View, place: RulePlace) {
        self.hits += 1;
        view.rule_counts.at(place).hits.add(1);
    }

    /// Passes the stored reply to `found`, if it may be served. Returns where the hit is counted.
    #[inline]
    pub(super) fn look_up(
        &self,
        permit: &ServePermit,
        id: EntryId,
        question: &Question<'_>,
        found: impl FnOnce(&[u8]),
    ) -> Option<RulePlace> {
        // A reload may replace the near cache, so `coherence.cache()` is not free. A hit in the hot set does not need it.
        let cache = || self.context.shared.coherence.cache();
        let mut hot_set = self.context.hot.borrow_mut();
        if let Some(hot) = hot_set.get(id) {
            if permit.allows(hot.entry) && hot.entry.answers(question) {
                found(hot.entry.reply());
                if hot.touch {
                    cache().get(id);
                }
                if self.context.accesses.has(id.key()) {
                    self.context.accesses.note_hit(permit, id, hot.entry);
                }
                return Some(hot.entry.place());
            }
            hot_set.remove(id);
        }
        match cache().get(id) {
            Some(entry) if permit.allows(&entry) && entry.answers(question) => {
                found(entry.reply());
                if self.context.accesses.has(id.key()) {
                    self.context.accesses.note_hit(permit, id, &entry);
                }
                hot_set.put(id, &entry);
                Some(entry.place())
            }
            _ => None,
        }
    }

    /// Joins a fetch that is under way, if its reply may be served to this client. The client must have no in-flight request: the
    /// fetch was sent before the client's last request.
    pub(super) fn join(&mut self, permit: &ServePermit, id: EntryId, question: &Question<'_>, mask: u64) -> bool {
        let max_staleness = self.context.max_staleness();
        let flights = self.context.flights.borrow();
        let good =
            |flight: &&Rc<Flight>| flight.asked.question() == *question && flight.may_be_joined(permit, max_staleness);
        let Some(flight) = flights.get(&id).filter(good) else { return false };
        let reader = Reader {
            reply_queue: Rc::clone(&self.reply_queue),
            slot: self.reply_queue.open(self.is_muted()),
            version: self.state.profile.version(),
            asked: permit.now,
        };
        flight.readers.borrow_mut().push(reader);
        self.in_flight |= mask;
        self.joined = true;
        true
    }

    /// Whether the client waits for the reply to another client's fetch. Until that reply comes, the client's next request is not
    /// sent. If the reply comes too late to be served, the read is sent again, and it must be executed before the client's next
    /// request.
    pub(super) fn awaits_flight(&mut self) -> bool {
        self.joined = self.joined && self.reply_queue.outstanding() > 0;
        self.joined
    }
}

/// The rule by which replies to this read are kept. `None` if they are not kept.
pub(super) fn rule_for<'a>(view: &'a View, key: &[u8], read: Reads) -> Option<&'a CacheRule> {
    view.policy.rules.of(key).keeps(read)
}
