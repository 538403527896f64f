//! The queue between the workers and the bus: bounded in entries, never blocks, and loses nothing silently.
//!
//! Events that do not fit are dropped. One [`Event::Flush`], or one [`Event::QuarantineAll`], stands for all of them, so that the
//! peers drop everything instead of missing something. This file must not know what happens to the events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::event::{Batch, Event};

/// An event with a key of up to this many bytes counts as one entry. A longer key counts as several.
const KEY_BYTES_PER_ENTRY: usize = 256;

/// Maximum number of batches taken at once. It only bounds the size of the receiver's buffer.
const TAKE: usize = 1024;

/// The workers' end of the queue. Cloning is cheap; each worker has its own.
#[derive(Clone, Debug)]
pub struct Outbox {
    sender: mpsc::UnboundedSender<Batch>,
    shared: Arc<Shared>,
}

/// The bus's end of the queue.
#[derive(Debug)]
pub(super) struct Inlet {
    receiver: mpsc::UnboundedReceiver<Batch>,
    shared: Arc<Shared>,
    taken: Vec<Batch>,
}

#[derive(Debug)]
struct Shared {
    /// Number of entries queued. The channel itself is unbounded; this bounds it.
    pending: AtomicUsize,
    limit: usize,
    overflowed: AtomicBool,
    /// The events that did not fit included a quarantine.
    doubtful: AtomicBool,
    lost: AtomicUsize,
}

/// A queue that holds up to `limit` entries.
pub(super) fn queue(limit: usize) -> (Outbox, Inlet) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        pending: AtomicUsize::new(0),
        limit,
        overflowed: AtomicBool::new(false),
        doubtful: AtomicBool::new(false),
        lost: AtomicUsize::new(0),
    });
    let inlet = Inlet { receiver, shared: Arc::clone(&shared), taken: Vec::new() };
    (Outbox { sender, shared }, inlet)
}

fn weight(batch: &[Event]) -> usize {
    batch
        .iter()
        .map(|event| match event {
            Event::Invalidate { key, .. } | Event::Quarantine { key, .. } | Event::Plain { key, .. } => {
                1 + key.bytes().len() / KEY_BYTES_PER_ENTRY
            }
            Event::Forget { glob } => 1 + glob.len() / KEY_BYTES_PER_ENTRY,
            Event::Flush | Event::QuarantineAll | Event::Script { .. } => 1,
        })
        .sum()
}

impl Outbox {
    /// Queues a batch. Never blocks, and needs no runtime. An event counts as one entry, and one more for every 256 bytes of its
    /// key.
    ///
    /// Returns false if the queue is full or the bus has ended. If it is full, the batch is dropped, and one flush or quarantine
    /// stands for everything dropped until the bus has caught up. The caller has nothing left to do.
    pub fn try_send(&self, batch: Batch) -> bool {
        if batch.is_empty() {
            return true;
        }
        let weight = weight(&batch);
        let before = self.shared.pending.fetch_add(weight, Ordering::Relaxed);
        if before.saturating_add(weight) > self.shared.limit {
            self.shared.pending.fetch_sub(weight, Ordering::Relaxed);
            self.shared.lost.fetch_add(batch.len(), Ordering::Relaxed);
            let is_doubtful = |event: &Event| {
                matches!(event, Event::Quarantine { .. } | Event::QuarantineAll | Event::Script { lost: true, .. })
            };
            if batch.iter().any(is_doubtful) {
                self.shared.doubtful.store(true, Ordering::Release);
            }
            if !self.shared.overflowed.swap(true, Ordering::AcqRel) {
                // An empty batch wakes the bus even if it has just drained the queue. At most one is queued.
                let _ = self.sender.send(Batch::new());
            }
            return false;
        }
        self.sender.send(batch).is_ok()
    }
}

impl Inlet {
    /// Waits for events and moves everything queued to the end of `out`. Returns the number of events lost to a full queue since
    /// the last call; the event that stands for them is in `out`. `None`: every [`Outbox`] is gone and nothing is left.
    ///
    /// # Cancel safety
    /// If dropped before it is ready, nothing has been taken.
    pub(super) async fn drain(&mut self, out: &mut Vec<Event>) -> Option<u64> {
        if self.receiver.recv_many(&mut self.taken, TAKE).await == 0 {
            return None;
        }
        Some(self.settle(out))
    }

    /// [`Inlet::drain`] without waiting.
    pub(super) fn drain_now(&mut self, out: &mut Vec<Event>) -> u64 {
        while let Ok(batch) = self.receiver.try_recv() {
            self.taken.push(batch);
        }
        self.settle(out)
    }

    fn settle(&mut self, out: &mut Vec<Event>) -> u64 {
        let mut freed = 0;
        for batch in self.taken.drain(..) {
            freed += weight(&batch);
            out.extend(batch);
        }
        self.shared.pending.fetch_sub(freed, Ordering::Relaxed);
        if !self.shared.overflowed.swap(false, Ordering::AcqRel) {
            return 0;
        }
        let doubtful = self.shared.doubtful.swap(false, Ordering::AcqRel);
        out.push(if doubtful { Event::QuarantineAll } else { Event::Flush });
        self.shared.lost.swap(0, Ordering::Relaxed) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::{Inlet, queue};
    use crate::bus::{Event, Key};

    fn key(hash: u128) -> Event {
        Event::Invalidate { hash, key: Key::new(0, b"k") }
    }

    fn now(inlet: &mut Inlet) -> (Vec<Event>, u64) {
        let mut out = Vec::new();
        let lost = inlet.drain_now(&mut out);
        (out, lost)
    }

    #[test]
    fn order_is_kept() {
        let (outbox, mut inlet) = queue(10);
        assert!(outbox.try_send(vec![key(1), key(2)]));
        assert!(outbox.clone().try_send(vec![key(3)]));
        assert_eq!(now(&mut inlet), (vec![key(1), key(2), key(3)], 0));
    }

    #[test]
    fn overflow_becomes_one_flush() {
        let (outbox, mut inlet) = queue(2);
        assert!(outbox.try_send(vec![key(1), key(2)]));
        for hash in 3..100 {
            assert!(!outbox.try_send(vec![key(hash)]));
        }
        assert_eq!(now(&mut inlet), (vec![key(1), key(2), Event::Flush], 97));
        assert!(outbox.try_send(vec![key(5), key(6)]), "the room is there again");
        assert_eq!(now(&mut inlet), (vec![key(5), key(6)], 0));
    }

    #[test]
    fn an_overflow_with_a_quarantine_becomes_a_quarantine_of_everything() {
        let (outbox, mut inlet) = queue(1);
        for batch in [vec![key(1)], vec![Event::Quarantine { hash: 2, key: Key::new(0, b"k") }], vec![key(3)]] {
            outbox.try_send(batch);
        }
        assert_eq!(now(&mut inlet), (vec![key(1), Event::QuarantineAll], 2));
        outbox.try_send(vec![key(1), key(2)]);
        assert_eq!(now(&mut inlet), (vec![Event::Flush], 2));
    }

    #[test]
    fn a_batch_larger_than_the_queue_becomes_a_flush() {
        let (outbox, mut inlet) = queue(2);
        assert!(!outbox.try_send(vec![key(1), key(2), key(3)]));
        assert_eq!(now(&mut inlet), (vec![Event::Flush], 3));
    }

    #[test]
    fn long_keys_count_for_more() {
        let (outbox, _inlet) = queue(4);
        let long = Event::Invalidate { hash: 1, key: Key::new(0, &[b'k'; 1024]) };
        assert!(!outbox.try_send(vec![long]));
    }

    /// The bus may have drained the queue between a worker's check of the bound and its setting of the flag. The wake-up must come
    /// all the same.
    #[tokio::test]
    async fn an_overflow_wakes_a_sleeping_bus() {
        let (outbox, mut inlet) = queue(0);
        let waiting = tokio::spawn(async move {
            let mut out = Vec::new();
            let lost = inlet.drain(&mut out).await;
            (out, lost)
        });
        tokio::task::yield_now().await;
        assert!(!outbox.try_send(vec![key(1)]));
        assert_eq!(waiting.await.expect("the task does not panic"), (vec![Event::Flush], Some(1)));
    }

    #[tokio::test]
    async fn drain_reports_the_end() {
        let (outbox, mut inlet) = queue(4);
        outbox.try_send(vec![key(1)]);
        drop(outbox);
        let mut out = Vec::new();
        assert_eq!(inlet.drain(&mut out).await, Some(0));
        assert_eq!(out, [key(1)]);
        assert_eq!(inlet.drain(&mut out).await, None);
    }

    #[test]
    fn an_outbox_without_a_bus_returns_false() {
        let (outbox, inlet) = queue(4);
        drop(inlet);
        assert!(!outbox.try_send(vec![key(1)]));
    }
}
