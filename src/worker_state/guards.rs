//! Write guards at work: raised before a command is sent, lowered when its reply is here or will never come (`docs/coherence.md`).

use std::time::Instant;

use crate::bus::{self, Event};
use crate::exchange::write_guard::{Key, WriteGuard};
use crate::metrics::outcome::{FlushReason, UnknownWrite};
use crate::worker_state::context::Context;
use crate::worker_state::policy::View;

const ANY_COMMAND: &str = "a command that may change any key";
const ANY_SCRIPT: &str = "a script that may write any key";

impl WriteGuard {
    /// Before the command is sent.
    pub(crate) fn begin(&mut self, context: &Context, view: &View) {
        let coherence = &context.shared.coherence;
        self.begun = true;
        context.writes.set(context.writes.get() + 1);
        if self.rare.as_ref().is_some_and(|rare| rare.changes_functions) {
            context.shared.scripts.functions.begin_change();
        }
        self.look_at_functions(context);
        if let Some((reason, why)) = self.reaches_all(context) {
            self.unbounded = true;
            coherence.begin_unbounded_write(reason, why);
        }
        // Without caching no ticket is out and no entry is in, here: the fleet is told all the same.
        if view.policy.caches {
            self.guarded = true;
            self.keys.iter().for_each(|key| coherence.begin_write(key.id));
        }
    }

    /// Before a script is sent that the debugger runs: until the person at the debugger ends it, it may change any key.
    pub(crate) fn begin_debugged(&mut self, context: &Context) {
        self.any = true;
        self.begun = true;
        context.writes.set(context.writes.get() + 1);
        context.shared.coherence.flush_for(FlushReason::Scripts, "a script in the debugger");
    }

    /// A function that could not write when it was looked up may be another one by now.
    fn look_at_functions(&mut self, context: &Context) {
        if let Some(rare) = &mut self.rare
            && rare.relies_on.is_some_and(|number| number != context.shared.scripts.functions.number())
        {
            rare.unproven = true;
        }
    }

    /// Whether any key may be changed, by the configuration as it is now. The one place where that is decided.
    fn reaches_all(&self, context: &Context) -> Option<(FlushReason, &'static str)> {
        if self.any {
            Some((FlushReason::Commands, ANY_COMMAND))
        } else if self.is_unproven() && !context.shared.scripts.are_trusted() {
            Some((FlushReason::Scripts, ANY_SCRIPT))
        } else {
            None
        }
    }

    /// Before a command that may wait for long is sent. It is executed when somebody else writes, and that one's answer may be
    /// here first: nothing of its keys is kept until it has ended. No guard, or nothing of their stripes would be.
    pub(crate) fn begin_blocking(&mut self, context: &Context) {
        self.held = true;
        self.keys.iter().for_each(|key| context.shared.coherence.hold(key.id));
    }

    /// The reply is here, and it is an error or not.
    pub(crate) fn end(mut self, context: &Context, failed: bool) {
        self.count_down(context);
        self.look_at_functions(context);
        let coherence = &context.shared.coherence;
        if self.first_rights && !failed {
            context.shared.users.first_rights_changed();
        }
        if let (Some(rare), false) = (&self.rare, failed) {
            context.end_users(&rare.deleted);
        }
        for key in &self.keys {
            if self.guarded {
                coherence.end_write(key.id);
            } else if self.held {
                coherence.release(key.id);
            } else {
                coherence.poison(key.id);
            }
        }
        if self.unbounded {
            coherence.end_unbounded_write();
        } else if let Some((reason, why)) = self.reaches_all(context) {
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

    /// The reply will never come. `unknown`: the command may have run, or may yet, and why nobody knows; none: it did not.
    pub(crate) fn lose(mut self, context: &Context, unknown: Option<UnknownWrite>) {
        let ran = unknown.is_some();
        self.count_down(context);
        self.look_at_functions(context);
        let coherence = &context.shared.coherence;
        let now = Instant::now();
        for key in &self.keys {
            if self.held {
                coherence.release(key.id);
            }
            match (self.guarded, ran) {
                (true, true) => coherence.lose_write(key.id, now),
                (true, false) => coherence.end_write(key.id),
                (false, true) => coherence.quarantine(key.id, now),
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
        if self.first_rights {
            context.shared.users.first_rights_changed();
        }
        if let Some((reason, why)) = self.reaches_all(context) {
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
