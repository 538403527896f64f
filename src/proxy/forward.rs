//! Forwards a stateless command to Redis: which bytes are sent, and what waits for the reply.

use std::rc::Rc;
use std::time::Duration;

use crate::coherence::ServePermit;
use crate::command::{ClientSubcommand, StringOp, Verb};
use crate::errors::OwnError;
use crate::exchange::pending::OnReply;
use crate::exchange::plain::Strings;
use crate::exchange::reply_shape::ReplyShape;
use crate::exchange::write_guard::WriteGuard;
use crate::proxy::call::{Call, Target, Wire, write_wire};
use crate::proxy::client::{Client, Next};
use crate::proxy::request::Replacements;
use crate::resp::{Chunks, build, parse_int};
use crate::upstream::Delay;
use crate::worker_state::plain_run::{self, PlainRun};
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
        // On a connection of its own: earlier requests come first.
        if matches!(wire, Wire::Alone(_)) && self.reply_queue.outstanding() > 0 {
            return Next::Again;
        }
        let on_own_reply = match &mut on_reply {
            OnReply::Guarded(guarded) => &mut guarded.then,
            other => other,
        };
        let mask = match on_own_reply {
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
        if let Wire::Alone(strings) = wire {
            self.run_plain(permit, call, strings, on_reply, mask);
            return Next::Pause;
        }
        let ttls = ttl_requests(&on_reply);
        // If a string turns out to be compressed, the command runs later, and so must what the client sends next.
        let next = if matches!(on_reply, OnReply::Guarded(_)) { Next::Pause } else { Next::Go };
        self.send(permit.now, target.link(), on_reply, mask, |out| {
            write_wire(out, &call.request, wire);
            out.push_slice(&ttls);
        });
        if call.row.is_long() {
            target.link().may_take(Delay::Long);
        }
        if call.row.is_script() {
            target.link().sent_script(permit.now);
        }
        next
    }

    /// Runs a command only when its strings are plain.
    fn run_plain(&mut self, permit: &ServePermit, call: Call<'_>, strings: Vec<Vec<u8>>, then: OnReply, mask: u64) {
        let slot = self.reply_queue.open(self.is_muted());
        self.in_flight |= mask;
        let mut request = Chunks::default();
        call.request.write(&mut request, Replacements::new());
        let profile = &self.state.profile;
        let run = PlainRun {
            identity: profile.identity(),
            db: profile.db(),
            version: profile.version(),
            strings: Strings::Of(strings),
            request,
            then,
            to: Some((Rc::clone(&self.reply_queue), slot)),
            sent: permit.now,
            is_script: true,
        };
        plain_run::begin(run, &self.context);
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
            // Also when compression is off: values compressed earlier may still be stored.
            Verb::StringOp(op) => return self.string_op(view, call, op, target),
            // With a condition, SET compares the stored string.
            Verb::Set => return self.string_op(view, call, StringOp::Other, target),
            Verb::Sort | Verb::SortRo => return self.sort(view, call, target),
            Verb::Script(by) => return Ok(self.script(view, call, (by, false), target)),
            Verb::ScriptRo(by) => return Ok(self.script(view, call, (by, true), target)),
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
