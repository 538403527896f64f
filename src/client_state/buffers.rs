//! Reusable buffers: an idle client holds none, and a busy client does not allocate. Also counts the bytes in the buffers of all
//! clients.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Maximum number of spare buffers.
const MOST: usize = 64;

/// Maximum total size of the spare buffers.
const MOST_BYTES: usize = 8 << 20;

/// A worker's spare buffers.
#[derive(Debug, Default)]
pub struct Buffers {
    spare: RefCell<Vec<Vec<u8>>>,
    bytes: Cell<usize>,
}

impl Buffers {
    /// An empty buffer. It already has memory if a spare one exists.
    #[inline]
    pub fn take(&self) -> Vec<u8> {
        let buffer = self.spare.borrow_mut().pop().unwrap_or_default();
        self.bytes.set(self.bytes.get() - buffer.capacity());
        buffer
    }

    /// Takes a buffer back.
    #[inline]
    pub fn give(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        let bytes = self.bytes.get() + buffer.capacity();
        if spare.len() < MOST && bytes <= MOST_BYTES {
            buffer.clear();
            self.bytes.set(bytes);
            spare.push(buffer);
        }
    }
}

/// A worker updates the count that all workers share when its own count has changed by this many bytes.
const STEP: usize = 64 << 10;

/// A client with fewer bytes in its buffers is always served.
pub const ALWAYS_SERVED: usize = 1 << 20;

/// One client may hold this many times the free space.
const SHARE: usize = 8;

/// The byte counts that all workers share.
#[derive(Debug, Default)]
pub struct AllBuffers {
    /// Bytes in clients' buffers, as last published by each worker.
    bytes: AtomicU64,
    /// Bytes of memory that offloaded compression and decompression takes.
    offloaded: AtomicU64,
    /// `limits.buffers_total` in bytes.
    max: AtomicU64,
}

impl AllBuffers {
    /// Bytes in clients' buffers, as last published by each worker.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// `limits.buffers_total` in bytes.
    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// Bytes of memory that offloaded compression and decompression takes.
    pub fn offloaded(&self) -> u64 {
        self.offloaded.load(Ordering::Relaxed)
    }

    /// Counts offloaded work that begins.
    pub fn add_offloaded(&self, bytes: usize) {
        self.offloaded.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts offloaded work that has ended.
    pub fn remove_offloaded(&self, bytes: usize) {
        self.offloaded.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// Changes the bound.
    pub fn set_max(&self, bytes: usize) {
        self.max.store(bytes as u64, Ordering::Relaxed);
    }
}

/// Bytes in the buffers of clients: a worker's own count, and an estimate for all workers. A change is a plain store. The shared
/// count is written once for many changes.
pub struct Held {
    mine: Cell<usize>,
    /// The part of this worker's count that was published.
    observed: Cell<usize>,
    all: Arc<AllBuffers>,
}

impl Held {
    pub(crate) fn new(all: Arc<AllBuffers>) -> Self {
        Held { mine: Cell::new(0), observed: Cell::new(0), all }
    }

    /// A client held `before` bytes, and holds `now`.
    #[inline]
    pub fn change(&self, before: usize, now: usize) {
        self.mine.set(self.mine.get() + now - before);
        if self.mine.get().abs_diff(self.observed.get()) >= STEP {
            self.publish();
        }
    }

    /// Publishes this worker's count, even if it has changed little.
    pub fn publish(&self) {
        let (mine, observed) = (self.mine.get(), self.observed.replace(self.mine.get()));
        if mine != observed {
            // The difference wraps around if the count has shrunk. The sum wraps back.
            self.all.bytes.fetch_add((mine as u64).wrapping_sub(observed as u64), Ordering::Relaxed);
        }
    }

    /// Bytes in the buffers of all clients. This worker's part is exact.
    pub fn all(&self) -> usize {
        let observed = self.all.bytes() as usize;
        // Other workers may have released more than they have published.
        (observed + self.mine.get()).saturating_sub(self.observed.get())
    }

    /// Whether a client must wait that holds `own` bytes, of which `counted` are in the count of all. `most` is the bound of that
    /// count.
    ///
    /// Each client may hold a multiple of the free space. So the clients that hold most stop first, and a single large client
    /// leaves room for others (Choudhury and Hahne, "Dynamic queue length thresholds", 1998).
    pub fn must_wait(&self, own: usize, counted: usize, most: usize) -> bool {
        own >= ALWAYS_SERVED && {
            let all = (self.all() + self.all.offloaded() as usize + own).saturating_sub(counted);
            own >= most.saturating_sub(all).saturating_mul(SHARE)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{ALWAYS_SERVED, AllBuffers, Held, STEP};

    const MB: usize = 1 << 20;

    #[test]
    fn the_shared_count_is_written_in_steps() {
        let all = Arc::new(AllBuffers::default());
        let [one, two] = [(); 2].map(|()| Held::new(Arc::clone(&all)));
        let shared = || all.bytes() as usize;
        one.change(0, STEP - 1);
        assert_eq!((shared(), one.all(), two.all()), (0, STEP - 1, 0));
        one.change(5, 6);
        two.change(0, 7);
        assert_eq!((shared(), one.all(), two.all()), (STEP, STEP, STEP + 7));
        one.change(STEP, 1);
        assert_eq!((shared(), one.all(), two.all()), (STEP, 1, STEP + 7));
        one.change(1, 0);
        assert_eq!((shared(), one.all(), two.all()), (0, 0, 7));
        two.publish();
        assert_eq!((shared(), one.all(), two.all()), (7, 7, 7));
        two.change(7, 0);
        two.publish();
        assert_eq!((shared(), one.all(), two.all()), (0, 0, 0));
    }

    #[test]
    fn the_largest_clients_stop_first_and_small_ones_never() {
        let held = Held::new(Arc::default());
        let most = 100 * MB;
        // One client alone.
        held.change(0, 88 * MB);
        assert!(!held.must_wait(88 * MB, 88 * MB, most));
        held.change(88 * MB, 89 * MB);
        assert!(held.must_wait(89 * MB, 89 * MB, most));
        // Bytes that arrived since the last count.
        assert!(held.must_wait(89 * MB, 88 * MB, most) && !held.must_wait(87 * MB, 89 * MB, most));
        // Together with other clients.
        for (own, stopped) in [(10 * MB, false), (87 * MB, false), (88 * MB, true), (90 * MB, true)] {
            assert_eq!(held.must_wait(own, own, most), stopped, "{own}");
        }
        // At the bound, and above it.
        for all in [100 * MB, 200 * MB] {
            held.change(89 * MB, all);
            assert!(held.must_wait(ALWAYS_SERVED, ALWAYS_SERVED, most), "{all}");
            assert!(!held.must_wait(ALWAYS_SERVED - 1, 0, most), "{all}");
            held.change(all, 89 * MB);
        }
    }
}
