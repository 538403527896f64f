//! The guard of one command that writes: raised before it is sent, lowered when its reply is here (COHERENCE §3).
//!
//! It waits on the upstream side with the reply, so that a client that goes away does not take it down early.

use std::time::Instant;

use smallvec::SmallVec;

use crate::bus::{self, Event};
use crate::near_cache::KeyId;

use super::context::{Context, View};

/// A key that is written.
#[derive(Debug)]
struct Key {
    id: KeyId,
    /// The key itself, when the fleet is to be told.
    told: Option<bus::Key>,
}

/// What a command may change.
#[derive(Debug, Default)]
pub(super) struct Written {
    keys: SmallVec<[Key; 1]>,
    /// Any key may be changed.
    any: bool,
    /// Told whatever the reply says: a part may have been done (EXEC, scripts, several keys).
    always: bool,
    /// What may be done without authentication is another thing then.
    first_rights: bool,
    /// Users that are no more then. Boxed: it is rare, and every command that waits has room for it.
    deleted: Option<Box<Vec<Vec<u8>>>>,
    /// It counts as a write under way.
    begun: bool,
    /// The guards are up.
    guarded: bool,
    /// The keys are held, as the command may wait for long.
    held: bool,
}

impl Written {
    /// One more key.
    pub(super) fn add(&mut self, context: &Context, view: &View, db: u32, key: &[u8]) {
        let told = context.shared.outbox.is_some() && view.policy.rules.of(key).watch;
        self.always |= !self.keys.is_empty();
        self.keys.push(Key { id: KeyId::new(db, key), told: told.then(|| bus::Key::new(db, key)) });
    }

    /// Any key.
    pub(super) fn add_any(&mut self) {
        self.any = true;
    }

    /// Told whatever the reply says.
    pub(super) fn always(&mut self) {
        self.always = true;
    }

    /// What a client may do that has not authenticated.
    pub(super) fn first_rights(&mut self) {
        self.first_rights = true;
    }

    /// Users that are deleted.
    pub(super) fn deletes_users<'a>(&mut self, names: impl Iterator<Item = &'a [u8]>) {
        // Redis refuses to delete this one.
        let names = names.filter(|name| *name != b"default").map(<[u8]>::to_vec);
        self.deleted.get_or_insert_default().extend(names);
    }

    /// What another command changes too.
    pub(super) fn extend(&mut self, other: Written) {
        self.any |= other.any;
        self.first_rights |= other.first_rights;
        if let Some(users) = other.deleted {
            self.deleted.get_or_insert_default().extend(*users);
        }
        self.always = true;
        self.keys.extend(other.keys);
    }

    /// Bits of the keys, for a reader to see whether it must queue behind.
    pub(super) fn mask(&self) -> u64 {
        if self.any { u64::MAX } else { self.keys.iter().fold(0, |mask, key| mask | super::mask_of(key.id)) }
    }

    /// Before the command is sent.
    pub(super) fn begin(&mut self, context: &Context, view: &View) {
        let coherence = &context.shared.coherence;
        self.begun = true;
        context.writes.set(context.writes.get() + 1);
        if self.any {
            coherence.flush("a command that may change any key");
        }
        // Without caching no ticket is out and no entry is in, here: the fleet is told all the same.
        if view.policy.caches {
            self.guarded = true;
            self.keys.iter().for_each(|key| coherence.begin_write(key.id));
        }
    }

    /// Before a command that may wait for long is sent. It is executed when somebody else writes, and that one's answer may be
    /// here first: nothing of its keys is kept until it has ended. No guard, or nothing of their stripes would be.
    pub(super) fn begin_blocking(&mut self, context: &Context) {
        self.held = true;
        self.keys.iter().for_each(|key| context.shared.coherence.hold(key.id));
    }

    /// The reply is here, and it is an error or not.
    pub(super) fn end(self, context: &Context, failed: bool) {
        self.count_down(context);
        let coherence = &context.shared.coherence;
        if self.first_rights && !failed {
            context.shared.users.first_rights_changed();
        }
        if let (Some(users), false) = (&self.deleted, failed) {
            context.end_users(users);
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
        if self.any {
            coherence.flush("a command that may change any key");
        }
        if self.any {
            context.tell(Event::Flush);
        }
        if !failed || self.always || self.any {
            self.tell(context, |hash, key| Event::Invalidate { hash, key });
        }
    }

    /// The reply will never come. `ran`: the command may have run, or may yet.
    pub(super) fn lose(self, context: &Context, ran: bool) {
        self.count_down(context);
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
            return;
        }
        context.stats().writes_unknown.add(1);
        if self.first_rights {
            context.shared.users.first_rights_changed();
        }
        if self.any {
            coherence.quarantine_all(now, "a command that may change any key was lost");
            context.tell(Event::QuarantineAll);
        }
        self.tell(context, |hash, key| Event::Quarantine { hash, key });
    }

    fn count_down(&self, context: &Context) {
        if self.begun {
            context.writes.set(context.writes.get() - 1);
        }
    }

    fn tell(self, context: &Context, event: impl Fn(u128, bus::Key) -> Event) {
        if context.shared.outbox.is_none() {
            return;
        }
        for Key { id, told } in self.keys {
            if let Some(key) = told {
                context.tell(event(id.hash(key.db()), key));
            }
        }
    }
}
