//! One request of a client, in the form in which it may be passed on.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::resp::{Args, Chunks, build};

/// A request: canonical RESP and where its arguments are. There is at least one.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// All of it.
    pub raw: &'a [u8],
    /// The arguments, the command's name first.
    pub ranges: &'a Args,
    /// The same bytes, when they are worth passing on without a copy.
    pub owned: Option<&'a Bytes>,
}

/// The arguments of a request.
pub(super) type Words<'a> = SmallVec<[&'a [u8]; 8]>;

/// Arguments that go to Redis in another form: place and bytes, in the order of the places.
pub(super) type Replacements = SmallVec<[(usize, Vec<u8>); 1]>;

impl<'a> Request<'a> {
    /// An argument that is there.
    #[inline]
    pub(super) fn arg(&self, at: usize) -> &'a [u8] {
        &self.raw[self.ranges[at].clone()]
    }

    /// How many there are.
    #[inline]
    pub(super) fn argc(&self) -> usize {
        self.ranges.len()
    }

    pub(super) fn words(&self) -> Words<'a> {
        self.ranges.iter().map(|range| &self.raw[range.clone()]).collect()
    }

    /// Passes it on, with some arguments replaced.
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
