//! One request of a client, in canonical RESP.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::resp::{Args, Chunks, build};

/// A request: its bytes in canonical RESP, and the ranges of its arguments. It has at least one argument.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The whole request.
    pub raw: &'a [u8],
    /// The arguments; the first is the command's name.
    pub ranges: &'a Args,
    /// The same bytes as a shared buffer, if the request is large enough that copying it would cost more.
    pub owned: Option<&'a Bytes>,
}

/// The arguments of a request.
pub(super) type Words<'a> = SmallVec<[&'a [u8]; 8]>;

/// Arguments to replace on the way to Redis: position and new bytes, in ascending order.
pub(super) type Replacements = SmallVec<[(usize, Vec<u8>); 1]>;

impl<'a> Request<'a> {
    /// Argument number `at`. Panics if there is none.
    #[inline]
    pub(super) fn arg(&self, at: usize) -> &'a [u8] {
        &self.raw[self.ranges[at].clone()]
    }

    /// Number of arguments.
    #[inline]
    pub(super) fn argc(&self) -> usize {
        self.ranges.len()
    }

    pub(super) fn words(&self) -> Words<'a> {
        self.ranges.iter().map(|range| &self.raw[range.clone()]).collect()
    }

    /// Appends the request to `wire`, with some arguments replaced.
    pub(super) fn write(&self, wire: &mut Chunks, replacements: Replacements) {
        if replacements.is_empty() {
            return match self.owned {
                Some(bytes) => wire.push_bytes(bytes.clone()),
                None => wire.push_slice(self.raw),
            };
        }
        wire.push_with(|out| build::header(out, b'*', self.argc()));
        let mut replacements = replacements.into_iter().peekable();
        for at in 0..self.argc() {
            match replacements.next_if(|(place, _)| *place == at) {
                Some((_, bytes)) => {
                    wire.push_with(|out| build::header(out, b'$', bytes.len()));
                    wire.push_bytes(Bytes::from(bytes));
                    wire.push_slice(b"\r\n");
                }
                None => wire.push_with(|out| build::bulk(out, self.arg(at))),
            }
        }
    }
}
