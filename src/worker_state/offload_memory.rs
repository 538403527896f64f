//! The memory that offloaded work takes, counted for all workers together. Must not know what the work is, nor a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Mutex, MutexGuard};

use crate::client_state::buffers::{ALWAYS_SERVED, AllBuffers};

/// The state that all workers share.
#[derive(Debug, Default)]
pub struct Offload {
    /// Held by the work that waits for room next.
    turn: Mutex<()>,
    /// Number of large pieces of work that run now.
    large: AtomicUsize,
}

/// Memory that a piece of work takes, released on drop.
pub(crate) struct Taken {
    offload: Arc<Offload>,
    buffers: Arc<AllBuffers>,
    bytes: usize,
}

impl Offload {
    /// Waits until this work is the next to wait for room.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Whether large work runs now.
    pub(crate) fn is_large(&self) -> bool {
        self.large.load(Ordering::Relaxed) > 0
    }
}

impl Taken {
    /// Takes this much memory.
    pub(crate) fn new(offload: &Arc<Offload>, buffers: &Arc<AllBuffers>, bytes: usize) -> Self {
        buffers.add_offloaded(bytes);
        if bytes >= ALWAYS_SERVED {
            offload.large.fetch_add(1, Ordering::Relaxed);
        }
        Taken { offload: Arc::clone(offload), buffers: Arc::clone(buffers), bytes }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.buffers.remove_offloaded(self.bytes);
        if self.bytes >= ALWAYS_SERVED {
            self.offload.large.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
