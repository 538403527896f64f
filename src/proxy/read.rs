//! Reads that L1 may answer: found there, waited for with others, or asked of Redis and kept.
//!
//! What is found is compared with the question to the byte, the user included: nobody is served what was read for another.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::coherence::ServePermit;
use crate::command::{Cacheable, Facts, Row, Verb};
use crate::exchange::in_flight;
use crate::exchange::pending::{Flight, OnReply, Reader};
use crate::exchange::reply_shape::ReplyShape;
use crate::exchange::values::{NO_VALUE, ValueKey, Values, ask_ttl, in_version};
use crate::metrics::outcome::NotKept;
use crate::near_cache::{EntryId, Question};
use crate::proxy::client::{Call, Client, Next, Target, Wire, write_wire};
use crate::proxy::request::{Replacements, Request};
use crate::reads::{Absent, Reads};
use crate::resp::build;
use crate::rules::CacheRule;
use crate::worker_state::policy::View;

/// Keys of an MGET up to which L1 is asked.
const MGET_FROM_L1: usize = 1024;

/// How to keep what is asked of Redis.
struct Keeping {
    rule: CacheRule,
    absent: Absent,
}

impl Client {
    /// GET of a client without a session.
    #[inline]
    pub(super) fn get(&mut self, view: &View, permit: &ServePermit, request: Request<'_>) -> Next {
        let question = self.question(request.arg(1));
        let id = question.id();
        if view.policy.caches && self.in_flight & in_flight::bit(id.key()) == 0 {
            let muted = self.is_muted();
            let version = self.state.profile.version();
            let found = self.look_up(permit, id, &question, |reply| {
                self.reply_queue.local(in_version(reply, version), muted);
            });
            if found {
                self.hits += 1;
                return Next::Go;
            }
        }
        let rule = view.policy.caches.then(|| rule_for(view, question.key(), Reads::GET)).flatten();
        let keeping = rule.map(|rule| Keeping { rule, absent: NO_VALUE });
        self.fetch(view, permit, question, id, keeping, request, Wire::AsIs)
    }

    /// A read of one key, other than GET, of a client without a session; none: the rule of its key does not keep it.
    pub(super) fn read(
        &mut self,
        view: &View,
        permit: &ServePermit,
        row: &Row,
        cacheable: Cacheable,
        request: Request<'_>,
    ) -> Option<Next> {
        let question = self.question_of(cacheable, request)?;
        let id = question.id();
        if self.in_flight & in_flight::bit(id.key()) == 0
            && self.look_up(permit, id, &question, |reply| self.answer(reply))
        {
            self.hits += 1;
            return Some(Next::Go);
        }
        let rule = rule_for(view, question.key(), cacheable.read)?;
        let wire = match row.verb {
            Verb::StringOp(op) => {
                let args = request.words();
                let keys = OnceCell::new();
                let call = Call { row, request, args: &args, keys: &keys };
                if self.reply_shape(call) == ReplyShape::Halves {
                    // Its reply comes in halves (`bitfield`), and is not kept.
                    return None;
                }
                match self.guarded(call, op) {
                    Ok(wire) => wire,
                    Err(error) => return Some(self.refuse_own(&error)),
                }
            }
            _ => Wire::AsIs,
        };
        let keeping = Keeping { rule, absent: cacheable.absent };
        Some(self.fetch(view, permit, question, id, Some(keeping), request, wire))
    }

    /// Asks Redis, together with whoever asks the same, and has the answer kept if it was asked for often enough.
    #[expect(clippy::too_many_arguments, reason = "one question, in the parts that its two askers have at hand")]
    fn fetch(
        &mut self,
        view: &View,
        permit: &ServePermit,
        question: Question<'_>,
        id: EntryId,
        keeping: Option<Keeping>,
        request: Request<'_>,
        wire: Wire,
    ) -> Next {
        if self.awaits_flight() {
            return Next::Again;
        }
        self.leave_lane_if_held_up(permit.now);
        if self.state.profile.has_no_login()
            && !self.state.profile.is_let_in()
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
        // Only what is asked on a lane is kept.
        let keeping = keeping.filter(|_| matches!(target, Target::Lane(_)));
        let link = target.link();
        let mask = in_flight::bit(id.key());
        if keeping.is_some() {
            self.context.stats().l1_misses.add(1);
        }
        // Redis would refuse a PTTL of a user without that right, and log it (ACL LOG).
        let may_ttl = || self.state.profile.may_ttl(&self.context.shared.users);
        let keeping = keeping.filter(|_| self.keeps_if(may_ttl(), NotKept::TtlUnknown));
        let admits = |rule: &CacheRule| self.context.admission.borrow_mut().asked(id, rule.admit_after);
        let keeping = keeping.filter(|keeping| self.keeps_if(admits(&keeping.rule), NotKept::NotAdmitted));
        if let Some(Keeping { rule, absent }) = keeping {
            if self.reply_queue.outstanding() == 0 && permit.serves() && self.join(permit, id, &question, mask) {
                return Next::Go;
            }
            if let Some(ticket) = self.context.shared.coherence.ticket(id, question.db(), permit.now) {
                let instead = match wire {
                    Wire::AsIs => None,
                    Wire::Instead(bytes) => Some(Bytes::from(bytes)),
                };
                let flight = Rc::new(Flight {
                    id,
                    asked: question.keep(),
                    rule,
                    absent,
                    ticket: RefCell::new(Some(ticket)),
                    sent: permit.now,
                    link: link.clone(),
                    instead: instead.clone(),
                    readers: RefCell::default(),
                });
                self.context.flights.borrow_mut().insert(id, Rc::clone(&flight));
                self.send(permit.now, link, OnReply::Fill(flight), mask, |out| {
                    match instead {
                        Some(bytes) => out.push_bytes(bytes),
                        None => request.write(out, Replacements::new()),
                    }
                    ask_ttl(out, question.key());
                });
                return Next::Go;
            }
            self.keeps_if(false, NotKept::Blocked);
        }
        let on_reply = match question.is_get() {
            true => OnReply::Value { id: view.policy.caches.then_some(id) },
            false => OnReply::Read { id },
        };
        self.send(permit.now, link, on_reply, mask, |out| write_wire(out, &request, wire));
        Next::Go
    }

    /// Whether a reply may be kept as far as this goes; if not, `why` is counted.
    fn keeps_if(&self, may: bool, why: NotKept) -> bool {
        if !may {
            self.context.stats().not_kept.count(why);
        }
        may
    }

    /// The client's question for a value.
    #[inline]
    fn question<'a>(&self, key: &'a [u8]) -> Question<'a> {
        Question::get(self.state.profile.db(), self.state.profile.user(), key)
    }

    /// The client's question in any other words; none: in too many.
    fn question_of<'a>(&self, cacheable: Cacheable, request: Request<'a>) -> Option<Question<'a>> {
        let profile = &self.state.profile;
        Question::other(profile.db(), profile.user(), request.arg(cacheable.key), profile.version(), request.raw)
    }

    /// Hands the stored reply to `found`, if it may be served.
    #[inline]
    fn look_up(&self, permit: &ServePermit, id: EntryId, question: &Question<'_>, found: impl FnOnce(&[u8])) -> bool {
        let cache = self.context.shared.coherence.cache();
        let mut hot_set = self.context.hot.borrow_mut();
        if let Some(hot) = hot_set.get(id) {
            if permit.allows(hot.entry) && hot.entry.answers(question) {
                found(hot.entry.reply());
                if hot.touch {
                    cache.get(id);
                }
                return true;
            }
            hot_set.remove(id);
        }
        match cache.get(id) {
            Some(entry) if permit.allows(&entry) && entry.answers(question) => {
                found(entry.reply());
                hot_set.put(id, &entry);
                true
            }
            _ => false,
        }
    }

    /// Waits for an answer that is under way, if it may be served to this client. Only a reader that waits for nothing else may:
    /// the fetch was sent before what it asked last.
    fn join(&mut self, permit: &ServePermit, id: EntryId, question: &Question<'_>, mask: u64) -> bool {
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

    /// Whether the client waits for the answer to another client's request. Its next request is not sent before that answer: if the
    /// answer comes too late to be served, the question is sent again, and must not see what the client asked after it.
    pub(super) fn awaits_flight(&mut self) -> bool {
        self.joined = self.joined && self.reply_queue.outstanding() > 0;
        self.joined
    }

    /// All values of an MGET, if all of them are in L1 at one time: a mix would be no snapshot.
    pub(super) fn mget_from_l1(&mut self, view: &View, permit: &ServePermit, args: &[&[u8]]) -> bool {
        let keys = &args[1..];
        let policy = &view.policy;
        if !policy.reads.contains(Reads::MGET) || keys.len() > MGET_FROM_L1 {
            return false;
        }
        if !policy.mget_everywhere && !keys.iter().all(|key| rule_for(view, key, Reads::MGET).is_some()) {
            return false;
        }
        let version = self.state.profile.version();
        let mut out = self.context.buffers.take();
        build::header(&mut out, b'*', keys.len());
        let ids: SmallVec<[EntryId; 16]> = keys.iter().map(|key| self.question(key).id()).collect();
        let all = ids.iter().zip(keys).all(|(id, key)| {
            self.in_flight & in_flight::bit(id.key()) == 0
                && self.look_up(permit, *id, &self.question(key), |reply| {
                    out.extend_from_slice(in_version(reply, version));
                })
        });
        // What was good when it was copied may have been dropped before the last was: all must be good still. (What is too large
        // for the hot set is not found again, and the whole goes to Redis.)
        let still = all && {
            let mut hot_set = self.context.hot.borrow_mut();
            ids.iter().zip(keys).all(|(id, key)| {
                hot_set.get(*id).is_some_and(|hot| permit.allows(hot.entry) && hot.entry.answers(&self.question(key)))
            })
        };
        if still {
            self.reply_queue.local(&out, self.is_muted());
            self.hits += keys.len() as u64;
        }
        self.context.buffers.give(out);
        still
    }

    /// The keys of an MGET that goes to Redis.
    pub(super) fn values(&self, view: &View, permit: &ServePermit, keys: &[&[u8]], may_keep: bool) -> Values {
        let may_keep = may_keep && view.policy.caches && self.state.profile.may_ttl(&self.context.shared.users);
        let ids = keys.iter().filter(|_| view.policy.caches).map(|key| {
            let question = self.question(key);
            let id = question.id();
            let rule = rule_for(view, key, Reads::MGET);
            if rule.is_some() && self.session.is_none() {
                self.context.stats().l1_misses.add(1);
            }
            let asked = |rule: &CacheRule| self.context.admission.borrow_mut().asked(id, rule.admit_after);
            let admitted = rule.filter(|rule| may_keep && self.keeps_if(asked(rule), NotKept::NotAdmitted));
            let ticket = admitted.and_then(|_| self.context.shared.coherence.ticket(id, question.db(), permit.now));
            self.keeps_if(admitted.is_none() || ticket.is_some(), NotKept::Blocked);
            ValueKey { id, keep: ticket.zip(admitted).map(|(ticket, rule)| (ticket, rule, question.keep())) }
        });
        Values { keys: ids.collect() }
    }

    /// A value that is asked of Redis and not kept.
    pub(super) fn value(&self, view: &View, key: &[u8]) -> OnReply {
        OnReply::Value { id: view.policy.caches.then(|| self.question(key).id()) }
    }

    /// Any other read that is asked of Redis and not kept: what L1 has must not be older than what it tells.
    pub(super) fn unkept(&self, view: &View, call: Call<'_>) -> OnReply {
        let row = call.row;
        let shape = self.reply_shape(call);
        if shape != ReplyShape::Halves
            && let Some(cacheable) = row.cacheable(call.args.len())
            && let Some(question) = self.question_of(cacheable, call.request)
            && rule_for(view, question.key(), cacheable.read).is_some()
        {
            return OnReply::Read { id: question.id() };
        }
        if shape == ReplyShape::Nothing && !self.is_told(view, row) {
            return OnReply::Pass { repeat: row.retry_safe() };
        }
        OnReply::Content { keys: self.ids(call), shape }
    }

    /// Whether a read tells something of what L1 may have of its keys: while only values are kept, that are few.
    pub(super) fn is_told(&self, view: &View, row: &Row) -> bool {
        let values_alone = Reads::default().contains(view.policy.reads);
        view.policy.caches
            && row.facts.contains(Facts::TELLS)
            && (!values_alone || row.facts.contains(Facts::TELLS_OF_STRINGS))
    }
}

fn rule_for(view: &View, key: &[u8], read: Reads) -> Option<CacheRule> {
    view.policy.rules.of(key).cache.filter(|rule| rule.reads.contains(read))
}
