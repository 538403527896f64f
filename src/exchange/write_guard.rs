//! The guard of one command that writes: what the command may change. It waits on the upstream side with the reply, so that a client
//! that goes away does not take it down early. How it is raised and lowered is in `worker_state::guards`.

use smallvec::SmallVec;

use crate::bus;
use crate::near_cache::KeyId;

/// A key that is written.
#[derive(Debug)]
pub struct Key {
    pub(crate) id: KeyId,
    /// The key itself, when the fleet is to be told.
    pub(crate) observed: Option<bus::Key>,
}

/// What few commands change. In a box of its own, because every waiting write has room for it.
#[derive(Debug, Default)]
pub struct Rare {
    /// A script may write any key, unless the user says which.
    pub(crate) unproven: bool,
    /// What it may write holds only for the functions of this number.
    pub(crate) relies_on: Option<u64>,
    /// It changes the functions.
    pub(crate) changes_functions: bool,
    /// Users that it deletes.
    pub(crate) deleted: Vec<Vec<u8>>,
}

/// What a command may change.
#[derive(Debug, Default)]
pub struct WriteGuard {
    pub(crate) keys: SmallVec<[Key; 1]>,
    /// Any key may be changed.
    pub(crate) any: bool,
    /// Told whatever the reply says: a part may have been done (EXEC, scripts, several keys).
    pub(crate) always: bool,
    /// It may change what clients may do that have not authenticated.
    pub(crate) first_rights: bool,
    /// It counts as a write under way.
    pub(crate) begun: bool,
    /// The guards are up.
    pub(crate) guarded: bool,
    /// The keys are held, as the command may wait for long.
    pub(crate) held: bool,
    /// It may change any key, and nothing is kept in L1 until it has ended.
    pub(crate) unbounded: bool,
    pub(crate) rare: Option<Box<Rare>>,
}

impl WriteGuard {
    /// One more key; `observed`: the fleet is to be told.
    pub(crate) fn add(&mut self, db: u32, key: &[u8], observed: bool) {
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
            self.keys.iter().fold(0, |mask, key| mask | key.id.in_flight_bit())
        }
    }

    /// Whether a script may have written any key.
    pub(crate) fn is_unproven(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.unproven)
    }
}
