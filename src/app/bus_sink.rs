//! The changes to L1 that the bus orders. The bus decides; this only carries out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::bus::Sink;
use crate::coherence::Coherence;
use crate::glob::Glob;
use crate::metrics::outcome::{FlushReason, LeftL1};
use crate::near_cache::KeyId;
use crate::scripts::Scripts;
use crate::summaries::Summaries;
use crate::traffic::Accesses;
use crate::worker_state::plain_keys::PlainKeys;

/// Carries out the bus's orders on L1.
pub(super) struct BusSink {
    pub(super) coherence: Arc<Coherence>,
    pub(super) scripts: Arc<Scripts>,
    pub(super) plain_keys: Arc<PlainKeys>,
    pub(super) summaries: Arc<Summaries>,
    /// The sample of the keys that others write.
    pub(super) heard: Arc<Mutex<Accesses>>,
}

impl BusSink {
    fn note_written(&self, key: KeyId) {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.has(key) {
            heard.note_written(&self.coherence.permit(Instant::now()), key);
        }
    }
}

impl Sink for BusSink {
    fn invalidate(&self, db: u32, hash: u128, from: u64) {
        let key = KeyId::from_hash(db, hash);
        self.coherence.invalidate(key, from);
        self.note_written(key);
    }

    fn invalidate_key(&self, key: &[u8]) {
        self.coherence.poison_everywhere(key);
        self.coherence.everywhere(key).for_each(|key| self.note_written(key));
    }

    fn quarantine(&self, db: u32, hash: u128) {
        let key = KeyId::from_hash(db, hash);
        self.coherence.quarantine(key, Instant::now(), LeftL1::Invalidated);
        self.note_written(key);
    }

    fn quarantine_all(&self) {
        self.scripts.functions.forget();
        let why = "bus: a peer lost a command that may change any key";
        self.coherence.quarantine_all(Instant::now(), FlushReason::Commands, why);
    }

    fn flush(&self, why: &'static str) {
        self.coherence.flush_for(FlushReason::Bus, why);
    }

    fn script(&self, lost: bool) {
        match (self.scripts.are_trusted(), lost) {
            (true, _) => {}
            (false, true) => {
                let why = "bus: a peer lost a script that may write any key";
                self.coherence.quarantine_all(Instant::now(), FlushReason::Scripts, why);
            }
            (false, false) => {
                self.coherence.flush_for(FlushReason::Scripts, "bus: a peer ran a script that may write any key");
            }
        }
    }

    fn changed(&self) {
        // It may have been FUNCTION LOAD.
        self.scripts.functions.forget();
        self.coherence.flush_for(FlushReason::Commands, "bus: a peer ran a command that may change any key");
    }

    fn invalidate_pattern(&self, glob: &[u8]) {
        self.coherence.poison_matching(&Glob::new(glob), LeftL1::Invalidated);
    }

    fn forget(&self, glob: &[u8]) {
        // Looks at all of L1. The messages behind this one, and our own heartbeat, must not wait for it.
        let (coherence, glob) = (Arc::clone(&self.coherence), glob.to_vec());
        tokio::task::spawn_blocking(move || coherence.forget(&glob, "bus: PROXY FLUSH at a peer"));
    }

    fn plain(&self, db: u32, hash: u128) {
        self.plain_keys.note(KeyId::from_hash(db, hash), Instant::now());
    }

    fn lease(&self, until: Instant) {
        self.coherence.lease(until, Instant::now());
    }

    fn set_doubtful(&self, doubtful: bool) {
        self.coherence.doubt(doubtful);
    }

    fn status(&self, message: &[u8]) -> bool {
        match self.summaries.hear(Instant::now(), message) {
            Ok(()) => true,
            Err(why) => {
                tracing::debug!(%why, "a summary was ignored");
                false
            }
        }
    }
}
