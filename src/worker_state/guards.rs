//! Raises write guards before a command is sent, and lowers them when its reply has arrived or will never arrive
//! (`docs/coherence.md`).

use std::time::Instant;

use crate::bus::{self, Event};
use crate::exchange::write_guard::{Key, WriteGuard};
use crate::metrics::outcome::{FlushReason, LeftL1, UnknownWrite};
use crate::worker_state::context::Context;
use crate::worker_state::policy::View;

const ANY_COMMAND: &str = "a command that may change any key";
const ANY_SCRIPT: &str = "a script that may write any key";

impl WriteGuard {
    /// Call this before sending the command.
    pub(crate) fn begin(&mut self, context: &Context, view: &View) {
        let coherence = &context.shared.coherence;
        self.begun = true;
        context.writes.set(context.writes.get() + 1);
        if self.rare.as_ref().is_some_and(|rare| rare.changes_functions) {
            context.shared.scripts.functions.begin_change();
        }
        self.recheck_functions(context);
        if let Some((reason, why)) = self.may_change_any_key(context) {
            self.unbounded = true;
            coherence.begin_unbounded_write(reason, why);
        }
        // Without caching there are no tickets and no entries here. Events are published all the same.
        if view.policy.caches {
            self.guarded = true;
            self.keys.iter().for_each(|key| coherence.begin_write(key.id));
        }
        if view.policy.caches || !view.policy.would_keep.is_empty() {
            self.keys.iter().for_each(|key| context.key_written(key.id));
        }
    }

    /// Call this before sending a script that the debugger runs: until the person at the debugger ends it, it may change any key.
    pub(crate) fn begin_debugged(&mut self, context: &Context) {
        self.any = true;
        self.begun = true;
        context.writes.set(context.writes.get() + 1);
        context.shared.coherence.flush_for(FlushReason::Scripts, "a script runs in the debugger");
    }

    /// A function that could not write when the call was judged may have been replaced meanwhile.
    fn recheck_functions(&mut self, context: &Context) {
        if let Some(rare) = &mut self.rare
            && rare.relies_on.is_some_and(|number| number != context.shared.scripts.functions.number())
        {
            rare.unproven = true;
        }
    }

    /// Whether any key may be changed, under the current configuration. The only place where that is decided.
    fn may_change_any_key(&self, context: &Context) -> Option<(FlushReason, &'static str)> {
        if self.any {
            Some((FlushReason::Commands, ANY_COMMAND))
        } else if self.is_unproven() && !context.shared.scripts.are_trusted() {
            Some((FlushReason::Scripts, ANY_SCRIPT))
        } else {
            None
        }
    }

    /// Call this before sending a command that may block. It is executed when another client writes, and the reply to that write
    /// may arrive first. So the command's keys are not kept until it has ended. It takes no write guard, because that would block
    /// whole stripes.
    pub(crate) fn begin_blocking(&mut self, context: &Context) {
        self.held = true;
        for key in &self.keys {
            context.shared.coherence.hold(key.id);
            context.key_written(key.id);
        }
    }

    /// The reply has arrived. `failed`: it is an error.
    pub(crate) fn end(mut self, context: &Context, failed: bool) {
        self.count_down(context);
        self.recheck_functions(context);
        let coherence = &context.shared.coherence;
        if self.changes_anonymous_rights && !failed {
            context.shared.users.anonymous_rights_changed();
        }
        if let (Some(rare), false) = (&self.rare, failed) {
            context.end_users(&rare.deleted);
            if rare.resets_stats {
                context.shared.windows.reset_stats();
            }
        }
        for key in &self.keys {
            if self.guarded {
                coherence.end_write(key.id);
            } else if self.held {
                coherence.release(key.id);
            } else {
                coherence.poison(key.id, LeftL1::Written);
            }
        }
        if self.unbounded {
            coherence.end_unbounded_write();
        } else if let Some((reason, why)) = self.may_change_any_key(context) {
            coherence.flush_for(reason, why);
        }
        if self.any {
            context.queue_event(Event::Flush);
        } else if self.is_unproven() {
            context.publish_script(false);
        }
        if !failed || self.always || self.any {
            self.queue_event(context, |hash, key| Event::Invalidate { hash, key });
        }
    }

    /// The reply will never arrive. `unknown`: the command may have run or may still run, and why the outcome is unknown. `None`:
    /// it did not run.
    pub(crate) fn lose(mut self, context: &Context, unknown: Option<UnknownWrite>) {
        let ran = unknown.is_some();
        self.count_down(context);
        self.recheck_functions(context);
        let coherence = &context.shared.coherence;
        let now = Instant::now();
        for key in &self.keys {
            if self.held {
                coherence.release(key.id);
            }
            match (self.guarded, ran) {
                (true, true) => coherence.lose_write(key.id, now),
                (true, false) => coherence.end_write(key.id),
                (false, true) => coherence.quarantine(key.id, now, LeftL1::Written),
                (false, false) => {}
            }
        }
        let Some(unknown) = unknown else {
            if self.unbounded {
                coherence.end_unbounded_write();
            }
            return;
        };
        context.stats().writes_unknown.count(unknown);
        if self.changes_anonymous_rights {
            context.shared.users.anonymous_rights_changed();
        }
        if let Some((reason, why)) = self.may_change_any_key(context) {
            coherence.quarantine_all(now, reason, &format!("{why} was lost"));
        }
        if self.unbounded {
            coherence.end_unbounded_write();
        }
        if self.any {
            context.queue_event(Event::QuarantineAll);
        } else if self.is_unproven() {
            context.publish_script(true);
        }
        self.queue_event(context, |hash, key| Event::Quarantine { hash, key });
    }

    fn count_down(&self, context: &Context) {
        if self.begun {
            context.writes.set(context.writes.get() - 1);
            if self.rare.as_ref().is_some_and(|rare| rare.changes_functions) {
                context.shared.scripts.functions.end_change();
            }
        }
    }

    fn queue_event(self, context: &Context, event: impl Fn(u128, bus::Key) -> Event) {
        if context.shared.outbox.is_none() {
            return;
        }
        for Key { id, observed } in self.keys {
            if let Some(key) = observed {
                context.queue_event(event(id.hash(key.db()), key));
            }
        }
    }
}
