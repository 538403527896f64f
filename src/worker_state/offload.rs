//! Work that would hold up everybody else on a worker: values that are large are compressed and decompressed on threads that serve
//! nobody. How much of it there is at a time, `limits.buffers_total` bounds together with the buffers of the clients: a value of
//! 512 KB may need 1 GB of memory before its client has seen a byte of it.
//!
//! Work that does not fit waits, the oldest first, until clients have read their replies or other work has ended. Small work never
//! waits; work that can never fit is done alone. Must not know what the work is.

use std::sync::Arc;
use std::time::Duration;

use crate::client_state::buffers::ALWAYS_SERVED;
use crate::worker_state::context::Context;
use crate::worker_state::offload_memory::Taken;

/// Between two looks whether there is room by now. Clients that read tell nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl Context {
    /// Does `work`, which takes so many bytes of memory, on a thread that serves nobody, and `on_reply` here; `on_reply` gets none if
    /// the work panicked.
    pub(crate) fn offload<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
        on_reply: impl FnOnce(&Context, Option<T>) + 'static,
    ) {
        let Some(context) = self.rc() else { return };
        tokio::task::spawn_local(async move {
            let taken = match bytes < ALWAYS_SERVED {
                true => context.take_memory(bytes),
                false => context.wait_for_memory(bytes).await,
            };
            let done = context.shared.control.spawn_blocking(work).await.ok();
            on_reply(&context, done);
            drop(taken);
            context.publish();
        });
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
