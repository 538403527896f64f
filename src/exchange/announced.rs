//! A write whose values services want to know, until its reply says whether it took effect.

use std::cell::Cell;
use std::rc::Rc;

use crate::bus::Update;

/// When a write took effect, by its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// If the reply is OK. Nil: a condition was not met.
    Ok,
    /// If the reply is 1.
    One,
    /// If the reply is nil: there was no former value, as the condition wants it.
    Nil,
    /// If the reply is a value: the former one, as the condition wants it.
    Value,
    /// If the reply is no error.
    Anything,
}

impl Effect {
    /// Whether the write took effect.
    pub(crate) fn took(self, reply: &[u8]) -> bool {
        let is_error = matches!(reply.first(), None | Some(b'-' | b'!'));
        let is_nil = matches!(reply, b"$-1\r\n" | b"*-1\r\n" | b"_\r\n");
        match self {
            Effect::Ok => reply == b"+OK\r\n",
            Effect::One => reply == b":1\r\n",
            Effect::Nil => is_nil,
            Effect::Value => !is_error && !is_nil,
            Effect::Anything => !is_error,
        }
    }
}

/// Bytes of values that wait for replies. They are given back when this is dropped.
#[derive(Debug)]
struct Reserved {
    all: Rc<Cell<usize>>,
    bytes: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.all.set(self.all.get() - self.bytes);
    }
}

/// The values that a write announces if it takes effect.
#[derive(Debug)]
pub struct Announced {
    pub(crate) updates: Vec<Update>,
    pub(crate) effect: Effect,
    reserved: Reserved,
}

impl Announced {
    /// None so far. `all`: the bytes of all values of this worker that wait for replies.
    pub(crate) fn new(effect: Effect, all: &Rc<Cell<usize>>) -> Self {
        Announced { updates: Vec::new(), effect, reserved: Reserved { all: Rc::clone(all), bytes: 0 } }
    }

    /// Adds a value. Returns false if more than `most` bytes would wait.
    pub(crate) fn add(&mut self, update: Update, most: usize) -> bool {
        let bytes = update.bytes();
        let all = self.reserved.all.get() + bytes;
        if all <= most {
            self.reserved.all.set(all);
            self.reserved.bytes += bytes;
            self.updates.push(update);
        }
        all <= most
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use bytes::Bytes;

    use super::{Announced, Effect};
    use crate::bus::Update;

    #[test]
    fn a_reply_says_whether_a_write_took_effect() {
        for (reply, took) in [
            (&b"+OK\r\n"[..], [true, false, false, true, true]),
            (b":1\r\n", [false, true, false, true, true]),
            (b":0\r\n", [false, false, false, true, true]),
            (b"$-1\r\n", [false, false, true, false, true]),
            (b"_\r\n", [false, false, true, false, true]),
            (b"$1\r\nv\r\n", [false, false, false, true, true]),
            (b"-ERR no\r\n", [false; 5]),
            (b"!6\r\nERR no\r\n", [false; 5]),
        ] {
            let effects = [Effect::Ok, Effect::One, Effect::Nil, Effect::Value, Effect::Anything];
            assert_eq!(effects.map(|effect| effect.took(reply)), took, "{reply:?}");
        }
    }

    #[test]
    fn values_that_wait_are_bounded_and_given_back() {
        let all = Rc::new(Cell::new(0));
        let update = || Update { key: Box::from(&b"k"[..]), value: Bytes::from_static(&[0; 60]), ttl: None };
        let mut one = Announced::new(Effect::Ok, &all);
        let room = update().bytes() + 60;
        assert!(one.add(update(), room) && !one.add(update(), room));
        assert_eq!((one.updates.len(), all.get()), (1, update().bytes()));
        drop(one);
        assert_eq!(all.get(), 0);
    }
}
