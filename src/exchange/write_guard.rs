//! The write guard of one command: what the command may change. It waits on the upstream side with the reply, so that a client that
//! disconnects does not lower the guard early. `worker_state::guards` raises and lowers it.

use smallvec::SmallVec;

use crate::bus;
use crate::exchange::announced::Announced;
use crate::near_cache::KeyId;

/// A key that the command writes.
#[derive(Debug)]
pub struct Key {
    pub(crate) id: KeyId,
    /// The key itself, if the change is published to the fleet.
    pub(crate) observed: Option<bus::Key>,
}

/// What only few commands change. Boxed, because every pending write has room for it.
#[derive(Debug, Default)]
pub struct Rare {
    /// A script may write any key, unless the configuration says which keys scripts write.
    pub(crate) unproven: bool,
    /// The keys are complete only for the server's functions at this generation number.
    pub(crate) relies_on: Option<u64>,
    /// The command changes the server's functions.
    pub(crate) changes_functions: bool,
    /// The command resets the statistics.
    pub(crate) resets_stats: bool,
    /// The users that the command deletes.
    pub(crate) deleted: Vec<Vec<u8>>,
    /// The values that the command announces, unless it is a part of a transaction.
    pub(crate) announced: Option<Announced>,
}

/// What a command may change.
#[derive(Debug, Default)]
pub struct WriteGuard {
    pub(crate) keys: SmallVec<[Key; 1]>,
    /// Any key may be changed.
    pub(crate) any: bool,
    /// Publish the change whatever the reply is, because a part may have been done (EXEC, scripts, several keys).
    pub(crate) always: bool,
    /// The command may change what unauthenticated clients are allowed to do.
    pub(crate) changes_anonymous_rights: bool,
    /// The command counts as an in-flight write.
    pub(crate) begun: bool,
    /// The guards are raised.
    pub(crate) guarded: bool,
    /// The keys' guards are held until the reply, because the command may block.
    pub(crate) held: bool,
    /// The command may change any key, and L1 keeps nothing until it has ended.
    pub(crate) unbounded: bool,
    pub(crate) rare: Option<Box<Rare>>,
}

impl WriteGuard {
    /// Adds a key. With `observed`, the change is published to the fleet.
    pub(crate) fn add(&mut self, db: u32, key: &[u8], observed: bool) {
        self.always |= !self.keys.is_empty();
        self.keys.push(Key { id: KeyId::new(db, key), observed: observed.then(|| bus::Key::new(db, key)) });
    }

    /// Any key may change.
    pub(crate) fn add_any(&mut self) {
        self.any = true;
    }

    /// Any key may change through a script or a function, unless the configuration says which keys these write.
    pub(crate) fn add_unproven(&mut self) {
        self.rare().unproven = true;
    }

    /// The command writes only its keys as long as the server's functions have this generation number.
    pub(crate) fn relies_on(&mut self, number: u64) {
        self.rare().relies_on = Some(number);
    }

    /// The command changes the server's functions.
    pub(crate) fn changes_functions(&mut self) {
        self.rare().changes_functions = true;
    }

    /// The command resets the statistics.
    pub(crate) fn resets_stats(&mut self) {
        self.rare().resets_stats = true;
    }

    /// The command announces these values if it takes effect.
    pub(crate) fn announces(&mut self, announced: Announced) {
        self.rare().announced = Some(announced);
    }

    /// The values that the command announces. Only once.
    pub(crate) fn take_announced(&mut self) -> Option<Announced> {
        self.rare.as_mut()?.announced.take()
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Publish the change whatever the reply is.
    pub(crate) fn always(&mut self) {
        self.always = true;
    }

    /// The command changes what unauthenticated clients may do.
    pub(crate) fn changes_anonymous_rights(&mut self) {
        self.changes_anonymous_rights = true;
    }

    /// The command deletes these users.
    pub(crate) fn deletes_users<'a>(&mut self, names: impl Iterator<Item = &'a [u8]>) {
        // Redis refuses to delete the default user.
        let names = names.filter(|name| *name != b"default").map(<[u8]>::to_vec);
        self.rare().deleted.extend(names);
    }

    /// Adds what another command changes, without the values that it announces.
    pub(crate) fn extend(&mut self, other: WriteGuard) {
        self.any |= other.any;
        self.changes_anonymous_rights |= other.changes_anonymous_rights;
        self.always = true;
        self.keys.extend(other.keys);
        if let Some(rare) = other.rare {
            let all = self.rare();
            all.unproven |= rare.unproven;
            all.changes_functions |= rare.changes_functions;
            all.resets_stats |= rare.resets_stats;
            // The oldest number: any later change of the functions counts.
            all.relies_on = all.relies_on.into_iter().chain(rare.relies_on).min();
            all.deleted.extend(rare.deleted);
        }
    }

    /// In-flight mask of the keys: it shows a reader whether it must wait behind this write.
    pub(crate) fn mask(&self) -> u64 {
        if self.any || self.is_unproven() {
            u64::MAX
        } else {
            self.keys.iter().fold(0, |mask, key| mask | key.id.in_flight_bit())
        }
    }

    /// Whether a script may have written any key.
    pub(crate) fn is_unproven(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.unproven)
    }
}
