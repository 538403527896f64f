//! The interface between a link and what waits for its replies. The link does not know what a reply means.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::upstream::login::Login;

use super::lost::Lost;

/// What waits for a reply.
pub trait Expected: Sized + 'static {
    /// The value that is passed back with each reply.
    type Context: 'static;

    /// Number of replies that it takes, delivered in one piece. At least 1.
    fn replies(&self) -> usize;

    /// Whether it may be repeated after the connection broke, because it only reads.
    fn may_repeat(&self) -> bool;

    /// When it was requested.
    fn asked(&self) -> Instant;

    /// All of its request has been sent, at a time that [`Expected::moment`] gave.
    fn written(&mut self, at: u32);

    /// This moment for [`Expected::written`]. Taken once for all requests that are sent together.
    fn moment(context: &Self::Context) -> u32;

    /// The clients that get the reply, each by a unique number.
    fn askers(&self) -> SmallVec<[usize; 1]>;

    /// Handles the reply. A returned value waits for more replies.
    fn deliver(self, context: &Self::Context, reply: Reply<'_>, now: Instant) -> Option<Self>;

    /// Whether the reply, of which this is the beginning, is delivered in parts as it arrives.
    fn takes_parts(&self, beginning: &[u8]) -> bool;

    /// Whether a RESP3 push may be its reply or a part of it.
    fn takes_push(&self) -> bool;

    /// Handles a part of the reply. [`Expected::deliver`] gets the last one. From now on the request may not be repeated.
    fn deliver_part(self, context: &Self::Context, part: Bytes) -> Self;

    /// The reply will never arrive. `ran`: the request may have run all the same.
    fn lose(self, context: &Self::Context, why: &Lost, ran: bool);

    /// Everything that was read at once has been delivered.
    fn settled(context: &Self::Context);

    /// This many reads are repeated, because their connection was lost.
    fn repeated(context: &Self::Context, reads: u64);

    /// There is a connection again after one was lost. `served`: Redis had sent more than errors on the lost one, so L1 or clients
    /// may have data that came over it.
    fn reconnected(context: &Self::Context, served: bool);

    /// Redis closed a lane of this login at time `closed`, and has accepted the login again.
    fn accepted_again(context: &Self::Context, login: &Rc<Login>, closed: Instant);

    /// Redis refuses this login from now on.
    fn login_refused(context: &Self::Context, login: &Rc<Login>);
}

/// A reply's bytes.
#[derive(Debug)]
pub enum Reply<'a> {
    /// In the connection's buffer.
    Borrowed(&'a [u8]),
    /// A large reply, to be passed on without a copy.
    Owned(Bytes),
}

impl Reply<'_> {
    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Reply::Borrowed(bytes) => bytes,
            Reply::Owned(bytes) => bytes,
        }
    }

    /// The bytes as an owned buffer.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Reply::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Reply::Owned(bytes) => bytes.clone(),
        }
    }
}

/// Sees the frames of a private connection before they count as replies: a message of a subscription is no reply.
pub trait Tap {
    /// Whether a frame that begins with this byte may be for the tap.
    fn wants(&self, first: u8) -> bool;

    /// Takes the frame if it is no reply. Returns whether it was taken.
    fn take(&self, frame: &[u8]) -> bool;

    /// The connection has ended.
    fn ended(&self);

    /// Whether the connection no longer speaks RESP: its bytes are passed on as they arrive.
    fn is_raw(&self) -> bool;

    /// Bytes of a raw connection.
    fn pass(&self, bytes: &[u8]);

    /// Whether the tap can take no more bytes of a raw connection. When there is room again, its owner wakes the link
    /// ([`super::Link::wake`]).
    fn is_full(&self) -> bool;

    /// All bytes for a raw connection have been sent.
    fn sent(&self);
}
