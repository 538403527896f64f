//! The guard of one command that writes: raised before it is sent, lowered when its reply is here (COHERENCE §3).
//!
//! It waits on the upstream side with the reply, so that a client that goes away does not take it down early.

use std::time::Instant;

use smallvec::SmallVec;

use crate::bus::{self, Event};
use crate::near_cache::KeyId;
use crate::stats::FlushReason;

use crate::worker_state::context::{Context, View};

/// A key that is written.
#[derive(Debug)]
struct Key {
    id: KeyId,
    /// The key itself, when the fleet is to be told.
    observed: Option<bus::Key>,
}

/// What few commands change. In a box of its own, because every waiting write has room for it.
#[derive(Debug, Default)]
struct Rare {
    /// A script may write any key, unless the user says which.
    unproven: bool,
    /// What it may write holds only for the functions of this number.
    relies_on: Option<u64>,
    /// It changes the functions.
    changes_functions: bool,
    /// Users that it deletes.
    deleted: Vec<Vec<u8>>,
}

/// What a command may change.
#[derive(Debug, Default)]
pub(crate) struct WriteGuard {
    keys: SmallVec<[Key; 1]>,
    /// Any key may be changed.
    any: bool,
    /// Told whatever the reply says: a part may have been done (EXEC, scripts, several keys).
    always: bool,
    /// It may change what clients may do that have not authenticated.
    first_rights: bool,
    /// It counts as a write under way.
    begun: bool,
    /// The guards are up.
    guarded: bool,
    /// The keys are held, as the command may wait for long.
    held: bool,
    /// It may change any key, and nothing is kept in L1 until it has ended.
    unbounded: bool,
    rare: Option<Box<Rare>>,
}

const ANY_COMMAND: &str = "a command that may change any key";
const ANY_SCRIPT: &str = "a script that may write any key";

impl WriteGuard {
    /// One more key.
    pub(crate) fn add(&mut self, context: &Context, view: &View, db: u32, key: &[u8]) {
        let observed = context.shared.outbox.is_some() && view.policy.rules.of(key).watch;
        self.always |= !self.keys.is_empty();
        self.keys.push(Key { id: KeyId::new(db, key), observed: observed.then(|| bus::Key::new(db, key)) });
    }

    /// Any key.
    pub(crate) fn add_any(&mut self) {
        self.any = true;
    }

    /// Any key, by a script or a function, unless the configuration says which keys these write.
    pub(crate) fn add_unproven(&mut self) {
        self.rare().unproven = true;
    }

    /// It writes only its keys as long as the functions of the server are those of this number.
    pub(crate) fn relies_on(&mut self, number: u64) {
        self.rare().relies_on = Some(number);
    }

    /// It changes the functions of the server.
    pub(crate) fn changes_functions(&mut self) {
        self.rare().changes_functions = true;
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Told whatever the reply says.
    pub(crate) fn always(&mut self) {
        self.always = true;
    }

    /// What a client may do that has not authenticated.
    pub(crate) fn first_rights(&mut self) {
        self.first_rights = true;
    }

    /// Users that are deleted.
    pub(crate) fn deletes_users<'a>(&mut self, names: impl Iterator<Item = &'a [u8]>) {
        // Redis refuses to delete this one.
        let names = names.filter(|name| *name != b"default").map(<[u8]>::to_vec);
        self.rare().deleted.extend(names);
    }

    /// What another command changes too.
    pub(crate) fn extend(&mut self, other: WriteGuard) {
        self.any |= other.any;
        self.first_rights |= other.first_rights;
        self.always = true;
        self.keys.extend(other.keys);
        if let Some(rare) = other.rare {
            let all = self.rare();
            all.unproven |= rare.unproven;
            all.changes_functions |= rare.changes_functions;
            // The oldest: any change since then counts.
            all.relies_on = all.relies_on.into_iter().chain(rare.relies_on).min();
            all.deleted.extend(rare.deleted);
        }
    }

    /// Bits of the keys, for a reader to see whether it must queue behind.
    pub(crate) fn mask(&self) -> u64 {
        if self.any || self.is_unproven() {
            u64::MAX
        } else {
            self.keys.iter().fold(0, |mask, key| mask | crate::proxy::in_flight_bit(key.id))
        }
    }

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

    fn is_unproven(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.unproven)
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
        } else if self.is_unproven() && !context.view().policy.trusts_scripts {
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

    /// The reply will never come. `ran`: the command may have run, or may yet.
    pub(crate) fn lose(mut self, context: &Context, ran: bool) {
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
        if !ran {
            if self.unbounded {
                coherence.end_unbounded_write();
            }
            return;
        }
        context.stats().writes_unknown.add(1);
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
