//! Writes: which keys a command may change, and the compression of values. Large values are compressed on another thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use crate::codec;
use crate::codec::{Codec, codec_of};
use crate::coherence::ServePermit;
use crate::command::{Keys, Verb};
use crate::errors::{self, OwnError};
use crate::exchange::pending::OnReply;
use crate::exchange::write_guard::{Key, WriteGuard};
use crate::metrics::outcome::Skipped;
use crate::proxy::call::{Call, FoundKeys, Target};
use crate::proxy::client::{Client, Next};
use crate::proxy::compress::{self, Candidates, Compressed, Offloaded, Outcome, Tried};
use crate::proxy::request::{Replacements, Request};
use crate::resp::Chunks;
use crate::rules::Rule;
use crate::worker_state::policy::View;

impl Client {
    /// What a command may change: keys, functions, users and settings.
    pub(super) fn write_guard(&self, view: &View, call: Call<'_>) -> WriteGuard {
        let mut guard = WriteGuard::default();
        let db = self.state.profile.db();
        let keys = &call.keys.places;
        if call.keys.all == Keys::Unknown {
            guard.add_any();
        }
        let publishes = self.context.shared.outbox.is_some();
        let others = call.row.other_databases(call.args);
        for at in keys {
            let key = call.args[*at as usize];
            let is_published = publishes && call.rule(view, *at as usize).watch;
            guard.add(db, key, is_published);
            others.iter().for_each(|db| guard.add(*db, key, is_published));
        }
        if call.row.verb == Verb::Functions {
            guard.changes_functions();
        }
        if keys.is_empty() {
            self.changes_settings(call, &mut guard);
        }
        guard
    }

    /// Records what a command without keys may change of the server's settings and users.
    pub(super) fn changes_settings(&self, call: Call<'_>, guard: &mut WriteGuard) {
        match call.row.verb {
            Verb::AclDelUser => guard.deletes_users(call.args[2..].iter().copied()),
            Verb::AclSetUser => self.context.shared.users.forget_ttl(call.args.get(2).copied()),
            Verb::AclLoad => self.context.shared.users.forget_ttl(None),
            Verb::ConfigSet => self.context.shared.server_limits.forget(),
            _ => {}
        }
        if may_change_anonymous_rights(call) {
            guard.changes_anonymous_rights();
        }
    }

    /// The guard of a command that writes values, and the values that are worth compressing. The rule of each key is looked up once, and
    /// only if it is needed.
    fn look_at_values(&self, view: &View, call: Call<'_>) -> (WriteGuard, Candidates) {
        let policy = &view.policy;
        let db = self.state.profile.db();
        let publishes = self.context.shared.outbox.is_some();
        let (mut guard, mut candidates) = (WriteGuard::default(), Candidates::default());
        let mut announced = None;
        if call.keys.all == Keys::Unknown {
            guard.add_any();
        }
        for at in &call.keys.places {
            let key_at = *at as usize;
            let value_at = compress::value_at(call.row.verb, key_at);
            let (key, value) = (call.args[key_at], call.args.get(value_at));
            let is_above = |least: usize| value.is_some_and(|value| value.len() >= least);
            let may_be =
                policy.compresses_from.is_some_and(is_above) || policy.would_compress_from.is_some_and(is_above);
            let rule = (publishes || may_be || policy.compresses_from.is_some()).then(|| call.rule(view, key_at));
            guard.add(db, key, publishes && rule.is_some_and(|rule| rule.watch));
            // Redis refuses a key without a value.
            if let Some(value) = value {
                if let Some(written) = guard.keys.last() {
                    self.context.value_passed(written.id, value.len(), true, Some((db, key)));
                }
                // A string that was turned to plain stays plain for a while.
                let stays = |key: &Key| self.context.shared.plain_keys.has(key.id, Instant::now(), policy.plain_for);
                let how = rule
                    .and_then(|rule| rule.compress.as_ref())
                    .filter(|how| value.len() < how.min_size || !guard.keys.last().is_some_and(stays));
                candidates.look(value_at, value, how, policy.limits.max_inflated);
                // Escaped it would be a compressed value, which commands on strings then do not expect.
                if !policy.may_be_compressed() && codec::is_compressed(value) {
                    candidates.refused = Some(errors::MARK_WHILE_OFF.clone());
                }
                if policy.announces && rule.is_some_and(|rule| rule.announce_values) {
                    self.announce(&mut announced, call, key, value);
                }
                if let Some(rule) = rule {
                    self.try_compression(view, rule, value);
                }
            }
        }
        if let Some(announced) = announced {
            guard.announces(announced);
        }
        (guard, candidates)
    }

    /// Counts a value that is compressed if that saves enough. If that is only observed, sets it aside to be compressed elsewhere.
    fn try_compression(&self, view: &View, rule: &Rule, value: &[u8]) {
        let Some(how) = rule.compress.as_ref().or(rule.would_compress()) else { return };
        let skipped = if value.len() < how.min_size {
            Skipped::Small
        } else if value.len() > view.policy.limits.max_inflated {
            Skipped::Large
        } else {
            view.rule_counts.at(rule.place).bytes_tried.add(value.len() as u64);
            if rule.compress.is_none() {
                self.context.trials.borrow_mut().offer(rule.place, *how, value);
            }
            return;
        };
        if rule.compress.is_some() {
            self.skip(view, rule, skipped);
        }
    }

    /// Counts a value that a rule compresses and that is stored as it came.
    fn skip(&self, view: &View, rule: &Rule, why: Skipped) {
        self.context.stats().compression_skipped.count(why);
        view.rule_counts.at(rule.place).skip(why);
    }

    /// SET and other commands that write values: compresses the values, here or on another thread, and sends the request.
    pub(super) fn write_values(&mut self, view: &View, permit: &ServePermit, call: Call<'_>) -> Next {
        let (guard, candidates) = self.look_at_values(view, call);
        if let Some(error) = &candidates.refused {
            return self.refuse_or_abort(permit, error);
        }
        if candidates.bytes > view.policy.offload_above {
            return self.offload(call.request, guard, candidates);
        }
        let compressed = compress::compress(call.request.raw, call.request.ranges, &candidates);
        self.send_values(view, permit, call, guard, compressed)
    }

    fn send_values(
        &mut self,
        view: &View,
        permit: &ServePermit,
        call: Call<'_>,
        mut guard: WriteGuard,
        compressed: Compressed,
    ) -> Next {
        let Compressed { replacements, tried } = compressed;
        if let Some(error) = self.outgrown(call.request, &replacements) {
            return self.refuse_or_abort(permit, &error);
        }
        if let Err(next) = self.leave_lane_if_large(permit, bytes_of(call.request, &replacements), call.args.len()) {
            return next;
        }
        let target = match self.target() {
            Ok(target) => target,
            Err(lost) => return self.unavailable(&lost),
        };
        for (at, envelope) in &replacements {
            self.count_compressed(view, call, *at, envelope);
        }
        for tried in &tried {
            self.count_tried(view, call, tried);
        }
        let mask = guard.mask();
        let on_reply = if let Target::Session(session) = &target
            && session.in_multi()
        {
            let shape = self.reply_shape(call);
            let queued = self.queued();
            queued.guard.extend(guard);
            queued.shape.push(shape);
            OnReply::Queued(Rc::clone(session))
        } else {
            guard.begin(&self.context, view);
            OnReply::Write { guard, shape: self.reply_shape(call) }
        };
        let in_multi = matches!(on_reply, OnReply::Queued(_)) && !replacements.is_empty();
        let is_escape = |(at, _): &(usize, Vec<u8>)| codec::is_compressed(call.args[*at]);
        let escapes: Replacements = replacements.iter().filter(|one| in_multi && is_escape(one)).cloned().collect();
        self.send(permit.now, target.link(), on_reply, mask, |wire| call.request.write(wire, replacements));
        if in_multi {
            let mut plain = Chunks::default();
            call.request.write(&mut plain, escapes);
            self.queued().sent.plain(plain);
        }
        Next::Go
    }

    /// Counts a value that a rule compresses.
    fn count_tried(&self, view: &View, call: Call<'_>, tried: &Tried) {
        let rule = call.rule(view, tried.at - compress::value_at(call.row.verb, 0));
        let nanos = u64::try_from(tried.took.as_nanos()).unwrap_or(u64::MAX);
        self.context.stats().compress_nanos.add(nanos);
        view.rule_counts.at(rule.place).compress_nanos.add(nanos);
        if let Some(why) = tried.skipped {
            self.skip(view, rule, why);
        }
    }

    /// Counts a value, the argument `value_at`, that was compressed to this envelope.
    fn count_compressed(&self, view: &View, call: Call<'_>, value_at: usize, envelope: &[u8]) {
        let (bytes_in, bytes_out) = (call.args[value_at].len(), envelope.len());
        let stats = self.context.stats();
        stats.compressed_values.add(1);
        stats.zstd_values.add(u64::from(codec_of(envelope) == Some(Codec::Zstd)));
        stats.compressed_bytes_in.add(bytes_in as u64);
        stats.compressed_bytes_out.add(bytes_out as u64);
        let rule = call.rule(view, value_at - compress::value_at(call.row.verb, 0));
        let counters = view.rule_counts.at(rule.place);
        counters.compressed.add(1);
        counters.bytes_in.add(bytes_in as u64);
        counters.bytes_out.add(bytes_out as u64);
    }

    /// Why a request cannot be sent: Redis would accept a value as the client sent it, but not in the longer form in which it would
    /// be stored.
    fn outgrown(&self, request: Request<'_>, replacements: &Replacements) -> Option<OwnError> {
        if replacements.is_empty() {
            return None;
        }
        let most = self.context.shared.server_limits.bulk_length()?;
        let mut all = replacements.iter();
        let (_, envelope) = all.find(|(at, envelope)| envelope.len() > most && request.arg(*at).len() <= most)?;
        Some(errors::too_long_for_redis(envelope.len(), most))
    }

    /// Compresses large values on another thread. Until then the client takes no other request.
    fn offload(&mut self, request: Request<'_>, guard: WriteGuard, candidates: Candidates) -> Next {
        let raw = request.owned.cloned().unwrap_or_else(|| bytes::Bytes::copy_from_slice(request.raw));
        let offloaded = Offloaded { raw: raw.clone(), ranges: request.ranges.clone(), guard };
        let outcome: Rc<RefCell<Option<Outcome>>> = Rc::default();
        let ranges = request.ranges.clone();
        let (there, reply_queue) = (Rc::clone(&outcome), Rc::clone(&self.reply_queue));
        // The request, the largest size its values can reach, and the compressor.
        let bytes = raw.len().saturating_mul(2).saturating_add(candidates.memory);
        self.context.offload(
            bytes,
            move || compress::compress(&raw, &ranges, &candidates),
            move |_, compressed| {
                *there.borrow_mut() = Some(compressed);
                reply_queue.wake();
            },
        );
        self.offloaded = Some((offloaded, outcome));
        Next::Go
    }

    /// Sends the request whose values have been compressed. `None` if it cannot be sent yet.
    pub fn resume_offloaded(&mut self, view: &View, permit: &ServePermit) -> Option<Next> {
        let (offloaded, outcome) = self.offloaded.as_ref()?;
        let bytes = match outcome.borrow().as_ref()? {
            Some(compressed) => bytes_of(offloaded.request(), &compressed.replacements),
            None => 0,
        };
        let arguments = offloaded.ranges.len();
        // An offloaded request cannot be taken again, so this is decided here: the request stays offloaded until the due replies
        // have come.
        match self.leave_lane_if_large(permit, bytes, arguments) {
            Ok(()) => {}
            Err(Next::Again) => return None,
            Err(next) => {
                self.offloaded = None;
                self.end_of_offloaded();
                return Some(next);
            }
        }
        let (offloaded, outcome) = self.offloaded.take()?;
        let outcome = outcome.take()?;
        let Some(compressed) = outcome else {
            let next = self.refuse_or_abort(permit, &errors::NOT_COMPRESSED);
            self.end_of_offloaded();
            return Some(next);
        };
        let Offloaded { raw, ranges, guard } = offloaded;
        let request = Request { raw: &raw, ranges: &ranges, owned: Some(&raw) };
        let args = request.words();
        let row = view.table.resolve(&args);
        let call = Call { row, request, args: &args, keys: &FoundKeys::of(row, &args) };
        let next = self.send_values(view, permit, call, guard, compressed);
        self.end_of_offloaded();
        Some(next)
    }

    fn end_of_offloaded(&mut self) {
        self.sample = 0;
        self.end_of_request();
    }
}

/// Size of a request with some arguments replaced.
fn bytes_of(request: Request<'_>, replacements: &Replacements) -> usize {
    let (added, gone) = replacements
        .iter()
        .fold((0, 0), |(added, gone), (at, bytes)| (added + bytes.len(), gone + request.arg(*at).len()));
    request.raw.len() + added - gone
}

/// Whether a command may change what unauthenticated clients are allowed to do.
fn may_change_anonymous_rights(call: Call<'_>) -> bool {
    let has = |word: &[u8]| call.args.iter().skip(2).any(|arg| arg.eq_ignore_ascii_case(word));
    match call.row.verb {
        Verb::ConfigSet => has(b"requirepass"),
        Verb::AclSetUser => call.args.get(2) == Some(&&b"default"[..]),
        Verb::AclLoad => true,
        _ => false,
    }
}
