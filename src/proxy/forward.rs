//! Forwards a stateless command to Redis: which bytes are sent, and what waits for the reply.

use std::time::Duration;

use smallvec::SmallVec;

use crate::codec;
use crate::coherence::ServePermit;
use crate::command::{ClientSubcommand, StringOp, Verb};
use crate::errors::{self, OwnError};
use crate::exchange::pending::OnReply;
use crate::exchange::reply_shape::ReplyShape;
use crate::exchange::write_guard::WriteGuard;
use crate::proxy::call::{Call, Target, Wire, write_wire};
use crate::proxy::client::{Client, Next};
use crate::proxy::string_guard;
use crate::resp::{build, parse_int};
use crate::upstream::Delay;
use crate::worker_state::policy::View;

/// An MGET with more keys than this is not kept in L1.
const MGET_KEEPS: usize = 64;

impl Client {
    /// Forwards a stateless command outside of a transaction.
    pub(super) fn forward(&mut self, view: &View, permit: &ServePermit, call: Call<'_>) -> Next {
        if let Err(next) = self.leave_lane_if_large(permit, call.request.raw.len(), call.args.len()) {
            return next;
        }
        let target = match self.target() {
            Ok(target) => target,
            Err(lost) => return self.unavailable(&lost),
        };
        let (mut on_reply, wire) = match self.prepare(view, permit, call, &target) {
            Ok(prepared) => prepared,
            Err(error) => return self.refuse_own(&error),
        };
        let mask = match &mut on_reply {
            OnReply::Write { guard, .. } => {
                guard.begin(&self.context, view);
                guard.mask()
            }
            OnReply::Elements { guard: Some(guard), observed, .. } => {
                guard.begin(&self.context, view);
                observed.iter().fold(guard.mask(), |mask, id| mask | id.in_flight_bit())
            }
            _ => self.keys_mask(view, call),
        };
        let ttls = ttl_requests(&on_reply);
        self.send(permit.now, target.link(), on_reply, mask, |out| {
            write_wire(out, &call.request, wire);
            out.push_slice(&ttls);
        });
        if call.row.is_long() {
            target.link().may_take(Delay::Long);
        }
        if matches!(call.row.verb, Verb::Script(_) | Verb::ScriptRo(_)) {
            target.link().sent_script(permit.now);
        }
        Next::Go
    }

    /// What waits for the reply of a command, and the bytes to send.
    pub(super) fn prepare(
        &self,
        view: &View,
        permit: &ServePermit,
        call: Call<'_>,
        target: &Target,
    ) -> Result<(OnReply, Wire), OwnError> {
        let row = call.row;
        let on_reply = match row.verb {
            Verb::Get => self.value(view, call.args[1]),
            Verb::MGet => {
                let may_keep = matches!(target, Target::Lane(_)) && call.args.len() <= MGET_KEEPS + 1;
                OnReply::Values(Box::new(self.values(view, permit, call, may_keep)))
            }
            Verb::GetDel => OnReply::Write { guard: self.write_guard(view, call), shape: ReplyShape::Values },
            Verb::GetEx if call.args.len() == 2 => self.value(view, call.args[1]),
            Verb::GetEx => OnReply::Write { guard: self.write_guard(view, call), shape: ReplyShape::Values },
            // A SET with a condition compares the stored string. The value that it stores must be comparable later, so it must not
            // look compressed.
            Verb::Set if codec::is_compressed(call.args[2]) => {
                return Err(errors::COMPARED_WITH_MARK.clone());
            }
            Verb::StringOp(_) | Verb::Set => {
                let op = if let Verb::StringOp(op) = row.verb { op } else { StringOp::Other };
                let wire = self.guarded(view, call, op)?;
                let on_reply = if row.is_write() {
                    let shape = if row.verb == Verb::Set { ReplyShape::Nothing } else { self.reply_shape(call) };
                    OnReply::Write { guard: self.write_guard(view, call), shape }
                } else {
                    self.unkept(view, call)
                };
                return Ok((on_reply, wire));
            }
            Verb::Sort | Verb::SortRo => {
                let checks = string_guard::sort_checks(call.args);
                let unguarded = checks.is_empty() || !view.policy.may_be_compressed();
                let wire = if unguarded { Wire::AsIs } else { self.sort_guarded(call, &checks)? };
                let shape = self.reply_shape(call);
                let observed =
                    if row.is_write() || !self.reveals_content(view, row) { SmallVec::new() } else { self.ids(call) };
                let guard = row.is_write().then(|| Box::new(self.write_guard(view, call)));
                return Ok((OnReply::Elements { guard, observed, shape }, wire));
            }
            Verb::Script(by) => self.script(view, call, by, false),
            Verb::ScriptRo(by) => self.script(view, call, by, true),
            Verb::ScriptLoad => {
                call.args.get(2).into_iter().for_each(|text| self.context.shared.scripts.learn(text));
                self.unkept(view, call)
            }
            Verb::Client(ClientSubcommand::Pause | ClientSubcommand::Unpause) => OnReply::Paused(pause_of(call)),
            // Counters begin anew if Redis agrees, also in a transaction.
            Verb::ConfigResetStat => {
                let mut guard = WriteGuard::default();
                guard.resets_stats();
                OnReply::Write { guard, shape: ReplyShape::Nothing }
            }
            Verb::Info => OnReply::Info { added: self.context.shared.windows.info(&call.args[1..]) },
            _ if row.is_write() => OnReply::Write { guard: self.write_guard(view, call), shape: ReplyShape::Nothing },
            _ => self.unkept(view, call),
        };
        Ok((on_reply, Wire::AsIs))
    }

    pub(super) fn reply_shape(&self, call: Call<'_>) -> ReplyShape {
        ReplyShape::of(call.row.verb, call.args, self.state.profile.version())
    }
}

/// The duration of CLIENT PAUSE. `None` for CLIENT UNPAUSE.
fn pause_of(call: Call<'_>) -> Option<Duration> {
    let is_pause = call.row.verb == Verb::Client(ClientSubcommand::Pause);
    let millis = call.args.get(2).filter(|_| is_pause)?;
    parse_int(millis).and_then(|millis| u64::try_from(millis).ok()).map(Duration::from_millis)
}

/// The PTTL requests that follow an MGET whose values may be kept.
pub(super) fn ttl_requests(on_reply: &OnReply) -> Vec<u8> {
    let mut out = Vec::new();
    if let OnReply::Values(values) = on_reply {
        for (_, _, asked) in values.keys.iter().filter_map(|key| key.keep.as_ref()) {
            build::request(&mut out, [&b"PTTL"[..], asked.question().key()].into_iter());
        }
    }
    out
}
