//! Buffers that are empty now: whoever gathers bytes takes one and gives it back, so that an idle client holds none and a busy one
//! does not allocate.

use std::cell::{Cell, RefCell};

/// How many are kept.
const MOST: usize = 64;

/// Bytes of all of them.
const MOST_BYTES: usize = 8 << 20;

/// A worker's spare buffers.
#[derive(Debug, Default)]
pub struct Buffers {
    spare: RefCell<Vec<Vec<u8>>>,
    bytes: Cell<usize>,
}

impl Buffers {
    /// An empty buffer, with memory if one is spare.
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
