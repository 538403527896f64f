//! Offloaded work: large values are compressed and decompressed on other threads, so that they do not hold up the other clients of
//! a worker. `limits.buffers_total` bounds the memory of offloaded work together with the buffers of clients: a value of 512 KB may
//! need 1 GB of memory before its client has received a byte of it.
//!
//! Work that does not fit waits, the oldest first, until clients have read their replies or other work has ended. Small work never
//! waits. Work that can never fit runs alone. Must not know what the work is.

use std::sync::Arc;
use std::time::Duration;

use crate::client_state::buffers::ALWAYS_SERVED;
use crate::worker_state::context::Context;
use crate::worker_state::offload_memory::Taken;

/// Interval between checks for room. Clients that read do not signal it.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl Context {
    /// Runs `work`, which takes this much memory, on another thread, and then `on_reply` here. `on_reply` receives `None` if the
    /// work panicked.
    pub(crate) fn offload<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
        on_reply: impl FnOnce(&Context, Option<T>) + 'static,
    ) {
        let Some(context) = self.rc() else { return };
        tokio::task::spawn_local(async move {
            let taken = context.memory_for(bytes).await;
            let done = context.shared.control.spawn_blocking(work).await.ok();
            on_reply(&context, done);
            drop(taken);
            context.publish();
        });
    }

    /// Takes this much memory for offloaded work, and waits until there is room. It is released on drop.
    pub(crate) async fn memory_for(&self, bytes: usize) -> Taken {
        match bytes < ALWAYS_SERVED {
            true => self.take_memory(bytes),
            false => self.wait_for_memory(bytes).await,
        }
    }

    async fn wait_for_memory(&self, bytes: usize) -> Taken {
        let offload = Arc::clone(&self.shared.offload);
        let _turn = offload.turn().await;
        while !self.has_room(bytes) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.take_memory(bytes)
    }

    fn has_room(&self, bytes: usize) -> bool {
        let most = self.view().policy.buffers_total;
        let buffers = self.held.all();
        let offloaded = self.shared.buffers.offloaded() as usize;
        let is_alone = !self.shared.offload.is_large() && buffers <= most / 2;
        is_alone || buffers.saturating_add(offloaded).saturating_add(bytes) <= most
    }

    fn take_memory(&self, bytes: usize) -> Taken {
        Taken::new(&self.shared.offload, &self.shared.buffers, bytes)
    }
}
