//! Bytes on their way to a socket: small pieces are gathered, large ones are passed on without a copy.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

/// From this size on a piece is kept as it is. Below it, a copy is cheaper than another slice to write.
const LARGE: usize = 16 << 10;

/// Capacity for closed chunks that an empty queue keeps.
const KEPT: usize = 16;

/// A queue of bytes.
#[derive(Debug, Default)]
pub struct Chunks {
    /// Closed chunks, the oldest first.
    closed: VecDeque<Bytes>,
    /// The chunk that gathers small pieces. It is newer than all closed chunks.
    open: Vec<u8>,
    /// Bytes of `open` that have been dropped. Zero unless `closed` is empty.
    gone: usize,
    len: usize,
}

impl Chunks {
    /// An empty queue that gathers in `buffer`. The buffer's contents are dropped and its capacity is kept.
    pub fn with_buffer(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Chunks { open: buffer, ..Chunks::default() }
    }

    /// Bytes queued.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is queued.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory allocated for gathering.
    pub fn capacity(&self) -> usize {
        self.open.capacity()
    }

    /// Appends a copy.
    #[inline]
    pub fn push_slice(&mut self, bytes: &[u8]) {
        self.open.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Appends what `write` writes.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.open.len();
        write(&mut self.open);
        self.len += self.open.len() - before;
    }

    /// Appends without a copy if that is worth it.
    pub fn push_bytes(&mut self, bytes: Bytes) {
        if bytes.len() < LARGE {
            return self.push_slice(&bytes);
        }
        self.close();
        self.len += bytes.len();
        self.closed.push_back(bytes);
    }

    /// Fills `slices` with the bytes from `skip` on. Returns how many slices were filled.
    pub fn slices<'a>(&'a self, mut skip: usize, slices: &mut [IoSlice<'a>]) -> usize {
        let parts = self.closed.iter().map(|chunk| &chunk[..]).chain([&self.open[self.gone..]]);
        let mut used = 0;
        for part in parts {
            if used == slices.len() {
                break;
            }
            if skip >= part.len() {
                skip -= part.len();
                continue;
            }
            slices[used] = IoSlice::new(&part[skip..]);
            skip = 0;
            used += 1;
        }
        used
    }

    /// Appends a copy of `length` bytes, from `skip` on, to another queue. That many bytes must be queued.
    #[inline]
    pub fn copy(&self, skip: usize, length: usize, to: &mut Chunks) {
        if self.closed.is_empty() {
            let from = self.gone + skip;
            return to.push_slice(&self.open[from..from + length]);
        }
        let (mut at, end) = (skip, skip + length);
        while at < end {
            let mut slice = [IoSlice::new(&[])];
            self.slices(at, &mut slice);
            let part = &slice[0][..slice[0].len().min(end - at)];
            to.push_slice(part);
            at += part.len();
        }
    }

    /// Appends all bytes to another queue, large pieces without a copy.
    pub fn append_to(&self, to: &mut Chunks) {
        let closed = self.closed.iter().cloned();
        closed.for_each(|chunk| to.push_bytes(chunk));
        to.push_slice(&self.open[self.gone..]);
    }

    /// Appends a copy of all bytes.
    pub fn copy_to(&self, to: &mut Vec<u8>) {
        self.closed.iter().for_each(|chunk| to.extend_from_slice(chunk));
        to.extend_from_slice(&self.open[self.gone..]);
    }

    /// Drops the oldest `count` bytes. That many bytes must be queued.
    #[inline]
    pub fn advance(&mut self, mut count: usize) {
        debug_assert!(count <= self.len);
        self.len -= count;
        while let Some(front) = self.closed.front_mut() {
            if count < front.len() {
                let _ = front.split_to(count);
                return;
            }
            count -= front.len();
            self.closed.pop_front();
        }
        self.gone += count;
        if self.gone == self.open.len() {
            self.open.clear();
            self.gone = 0;
        } else if self.gone >= LARGE && self.gone * 2 > self.open.len() {
            // Each byte is moved at most once per halving. So a queue that is never empty does not grow without bound.
            self.open.drain(..self.gone);
            self.gone = 0;
        }
    }

    /// Removes the gathering buffer, for use elsewhere. Only if the queue is empty.
    pub fn take_buffer(&mut self) -> Option<Vec<u8>> {
        if self.is_empty() && self.closed.capacity() > KEPT {
            self.closed = VecDeque::new();
        }
        (self.is_empty() && self.open.capacity() > 0).then(|| std::mem::take(&mut self.open))
    }

    /// Releases the memory that an empty queue holds for gathering, if it is more than `most` bytes.
    #[inline]
    pub fn give_back(&mut self, most: usize) {
        if self.is_empty() && self.open.capacity() > most {
            self.open = Vec::new();
        }
        if self.is_empty() && self.closed.capacity() > KEPT {
            self.closed = VecDeque::new();
        }
    }

    /// Closes the gathered chunk if it has at least `least` bytes, and releases the memory that it does not need.
    #[inline]
    pub fn close_from(&mut self, least: usize) {
        if self.open.len() - self.gone >= least {
            self.open.shrink_to_fit();
            self.close();
        }
    }

    fn close(&mut self) {
        if self.open.len() > self.gone {
            let mut chunk = Bytes::from(std::mem::take(&mut self.open));
            let _ = chunk.split_to(self.gone);
            self.closed.push_back(chunk);
        }
        self.open.clear();
        self.gone = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use bytes::Bytes;
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

    use super::Chunks;

    fn contents(chunks: &Chunks, skip: usize) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let used = chunks.slices(skip, &mut slices);
        slices[..used].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    proptest! {
        #[test]
        fn behaves_as_one_queue(steps in proptest::collection::vec(
            (0..4u8, (0..40_000usize).prop_map(|n| n), any::<u8>()), 0..24,
        )) {
            let mut chunks = Chunks::default();
            let mut model: Vec<u8> = Vec::new();
            for (kind, size, fill) in steps {
                match kind {
                    0 => { chunks.push_slice(&vec![fill; size]); model.extend(vec![fill; size]); }
                    1 => { chunks.push_bytes(Bytes::from(vec![fill; size])); model.extend(vec![fill; size]); }
                    2 => chunks.close_from(size),
                    _ => { let n = size.min(model.len()); chunks.advance(n); model.drain(..n); }
                }
                prop_assert_eq!(chunks.len(), model.len());
                let skip = usize::from(fill).min(model.len());
                prop_assert_eq!(&contents(&chunks, skip)[..], &model[skip..]);
            }
        }
    }
}
