//! Turns of commands that must watch a key: one after the other, so that those of one Shortstop do not make each other's WATCH fail.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::near_cache::KeyId;

/// Number of turns. Keys with the same turn wait for each other.
const TURNS: usize = 256;

/// The turns, shared by all workers.
#[derive(Debug)]
pub struct KeyTurns(Vec<Arc<Mutex<()>>>);

impl Default for KeyTurns {
    fn default() -> Self {
        KeyTurns((0..TURNS).map(|_| Arc::default()).collect())
    }
}

impl KeyTurns {
    /// Waits for the turns of these keys, and takes them until they are dropped. Always in the same order, so that nobody waits for ever.
    pub(crate) async fn take(&self, keys: impl Iterator<Item = (u32, &[u8])>) -> Vec<OwnedMutexGuard<()>> {
        let turns: BTreeSet<usize> = keys.map(|(db, key)| KeyId::new(db, key).bits() as usize % TURNS).collect();
        let mut taken = Vec::with_capacity(turns.len());
        for turn in turns {
            taken.push(Arc::clone(&self.0[turn]).lock_owned().await);
        }
        taken
    }
}
