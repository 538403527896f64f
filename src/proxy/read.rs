//! Reads other than GET: whether L1 may answer them, and whether their reply shows that an entry of L1 is out of date.

use smallvec::SmallVec;

use crate::coherence::ServePermit;
use crate::command::{Cacheable, Facts, Keys, Row, Verb};
use crate::exchange::pending::OnReply;
use crate::exchange::reply_shape::ReplyShape;
use crate::exchange::values::{NO_VALUE, ValueKey, Values};
use crate::metrics::outcome::NotKept;
use crate::metrics::rules::RulePlace;
use crate::near_cache::{EntryId, KeyId, Question, in_version};
use crate::proxy::call::Call;
use crate::proxy::client::{Client, Next};
use crate::proxy::get::{Keeping, rule_for};
use crate::proxy::request::Request;
use crate::reads::Reads;
use crate::resp::build;
use crate::rules::CacheRule;
use crate::traffic::What;
use crate::worker_state::policy::View;

/// An MGET with more keys than this does not look into L1.
const MGET_FROM_L1: usize = 1024;

impl Client {
    /// A read of one key, other than GET, of a client without a session. `None` if the rule of the key does not keep it.
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
        if self.in_flight & id.key().in_flight_bit() == 0
            && let Some(place) = self.look_up(permit, id, &question, |reply| self.answer(reply))
        {
            self.hit(view, place);
            return Some(Next::Go);
        }
        let rule = view.policy.rules.of(question.key());
        let kept = rule.keeps(cacheable.read)?;
        let look = match row.verb {
            Verb::StringOp(op) if view.policy.may_be_compressed() => Some(Box::new(self.look(op, &request.words())?)),
            _ => None,
        };
        let keeping = Keeping { rule: kept, absent: cacheable.absent };
        Some(self.fetch(view, permit, row, question, id, (rule, Some(keeping)), request, look))
    }

    /// The question that this request asks. `None` if the request is too long.
    fn question_of<'a>(&self, cacheable: Cacheable, request: Request<'a>) -> Option<Question<'a>> {
        let profile = &self.state.profile;
        Question::other(profile.db(), profile.user(), request.arg(cacheable.key), profile.version(), request.raw)
    }

    /// Answers an MGET from L1 if L1 holds all its values at the same moment. Values from different moments would be no snapshot.
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
        let mut places: SmallVec<[RulePlace; 16]> = SmallVec::new();
        let all = ids.iter().zip(keys).all(|(id, key)| {
            self.in_flight & id.key().in_flight_bit() == 0
                && self
                    .look_up(permit, *id, &self.question(key), |reply| {
                        out.extend_from_slice(in_version(reply, version));
                    })
                    .map(|place| places.push(place))
                    .is_some()
        });
        // An early value may have been invalidated while later ones were copied, so all are checked again. Values too large for the
        // hot set fail this check, and the MGET goes to Redis.
        let still = all && {
            let mut hot_set = self.context.hot.borrow_mut();
            ids.iter().zip(keys).all(|(id, key)| {
                hot_set.get(*id).is_some_and(|hot| permit.allows(hot.entry) && hot.entry.answers(&self.question(key)))
            })
        };
        if still {
            self.reply_queue.local(&out, self.is_muted());
            places.into_iter().for_each(|place| self.hit(view, place));
        }
        self.context.buffers.give(out);
        still
    }

    /// The keys of an MGET that goes to Redis.
    pub(super) fn values(&self, view: &View, permit: &ServePermit, call: Call<'_>, may_keep: bool) -> Values {
        let may_keep = may_keep && view.policy.caches && self.state.profile.may_ttl(&self.context.shared.users);
        let wants_ids = view.policy.caches || view.policy.would_keep.contains(Reads::MGET);
        let ids = (1..call.args.len()).filter(|_| wants_ids).map(|at| {
            let key = call.args[at];
            let question = self.question(key);
            let id = question.id();
            self.context.key_asked(id.key(), question.db(), key);
            let rule = call.rule(view, at);
            let observed = self.observed(view, &question, (rule, Reads::MGET, NO_VALUE));
            let rule = rule.keeps(Reads::MGET);
            if let Some(rule) = rule.filter(|_| self.session.is_none()) {
                self.context.stats().l1_misses.add(1);
                view.rule_counts.at(rule.place).misses.add(1);
                self.context.accessed(id, rule.place, || What::Miss);
            }
            let asked = |rule: &CacheRule| self.context.admission.borrow_mut().asked(id, rule.admit_after);
            let admitted =
                rule.copied().filter(|rule| may_keep && self.keeps_if(permit, id, asked(rule), NotKept::NotAdmitted));
            let ticket = admitted.and_then(|_| self.context.shared.coherence.ticket(id, question.db(), permit.now));
            self.keeps_if(permit, id, admitted.is_none() || ticket.is_some(), NotKept::Blocked);
            ValueKey { id, observed, keep: ticket.zip(admitted).map(|(ticket, rule)| (ticket, rule, question.keep())) }
        });
        Values { keys: ids.collect() }
    }

    /// What waits for a value that is not kept.
    pub(super) fn value(&self, view: &View, key: &[u8]) -> OnReply {
        OnReply::Value { id: view.policy.caches.then(|| self.question(key).id()), observed: None }
    }

    /// What waits for any other read that is not kept. Its reply may show that an entry of L1 is out of date.
    pub(super) fn unkept(&self, view: &View, call: Call<'_>) -> OnReply {
        let row = call.row;
        let shape = self.reply_shape(call);
        if shape != ReplyShape::Halves
            && let Some(cacheable) = row.cacheable(call.args.len())
            && let Some(question) = self.question_of(cacheable, call.request)
        {
            let rule = view.policy.rules.of(question.key());
            let observed = self.observed(view, &question, (rule, cacheable.read, cacheable.absent));
            if observed.is_some() || rule.keeps(cacheable.read).is_some() {
                return OnReply::Read { id: question.id(), observed };
            }
        }
        if shape == ReplyShape::Nothing && !self.reveals_content(view, row) {
            return OnReply::Pass { repeat: row.retry_safe() };
        }
        OnReply::Content { keys: self.ids(call), shape }
    }

    /// Whether a read's reply may reveal that an entry of L1 is out of date. While L1 keeps only values, few commands do.
    pub(super) fn reveals_content(&self, view: &View, row: &Row) -> bool {
        let values_alone = Reads::default().contains(view.policy.reads);
        view.policy.caches
            && row.facts.contains(Facts::REVEALS)
            && (!values_alone || row.facts.contains(Facts::REVEALS_STRINGS))
    }

    pub(super) fn ids(&self, call: Call<'_>) -> SmallVec<[KeyId; 1]> {
        call.keys.places.iter().map(|at| KeyId::new(self.state.profile.db(), call.args[*at as usize])).collect()
    }

    pub(super) fn keys_mask(&self, view: &View, call: Call<'_>) -> u64 {
        if !view.policy.caches {
            return 0;
        }
        match call.keys.all {
            Keys::Unknown => u64::MAX,
            Keys::Known => call.keys.places.iter().fold(0, |mask, at| {
                mask | KeyId::new(self.state.profile.db(), call.args[*at as usize]).in_flight_bit()
            }),
        }
    }
}
