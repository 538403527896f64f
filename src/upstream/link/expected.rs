//! What waits for a reply, as a link sees it, and the bytes that it gets. The link does not know what a reply means.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::upstream::login::Login;

use super::lost::Lost;

/// What waits for a reply.
pub trait Expected: Sized + 'static {
    /// What is handed back with each reply.
    type Context: 'static;

    /// How many replies in a row it takes, handed over as one piece. At least 1.
    fn replies(&self) -> usize;

    /// Whether it may be sent again after the connection broke: it only reads.
    fn may_repeat(&self) -> bool;

    /// When it was asked for.
    fn asked(&self) -> Instant;

    /// The clients that get the reply, each by a number of its own.
    fn askers(&self) -> SmallVec<[usize; 1]>;

    /// The reply is here. What is handed back waits for more.
    fn deliver(self, context: &Self::Context, reply: Reply<'_>, now: Instant) -> Option<Self>;

    /// Whether the reply, of which this is the beginning, is taken in parts as it comes.
    fn takes_parts(&self, beginning: &[u8]) -> bool;

    /// Whether a push of RESP3 may be its reply, or a part of it.
    fn takes_push(&self) -> bool;

    /// A part of the reply, the first or another; [`Expected::deliver`] gets the last. From now on it may not be repeated.
    fn deliver_part(self, context: &Self::Context, part: Bytes) -> Self;

    /// The reply will never come. `ran`: the request may have run all the same.
    fn lose(self, context: &Self::Context, why: &Lost, ran: bool);

    /// All that was read in one go has been delivered.
    fn settled(context: &Self::Context);

    /// So many reads are sent again, because their connection was lost.
    fn repeated(context: &Self::Context, reads: u64);

    /// A connection stands again after one was lost. `served`: Redis had answered on the lost one with more than errors, so that L1
    /// or clients may have what came over it.
    fn reconnected(context: &Self::Context, served: bool);

    /// Redis closed a lane of this login at that time, and has accepted the login again.
    fn accepted_again(context: &Self::Context, login: &Rc<Login>, closed: Instant);

    /// Redis does not accept this login any more.
    fn login_refused(context: &Self::Context, login: &Rc<Login>);
}

/// A reply's bytes.
#[derive(Debug)]
pub enum Reply<'a> {
    /// In the connection's buffer.
    Borrowed(&'a [u8]),
    /// A large one, to be passed on without a copy.
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

    /// The bytes, to be kept.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Reply::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Reply::Owned(bytes) => bytes.clone(),
        }
    }
}

/// Sees the frames of a private connection before they are taken for replies: a message of a subscription is no reply.
pub trait Tap {
    /// Whether a frame that begins with this byte may be for the tap.
    fn wants(&self, first: u8) -> bool;

    /// Whether the frame was no reply, and has been taken.
    fn take(&self, frame: &[u8]) -> bool;

    /// The connection has ended.
    fn ended(&self);

    /// Whether the connection does not speak RESP from now on: its bytes are passed on as they come.
    fn is_raw(&self) -> bool;

    /// Bytes of a raw connection.
    fn pass(&self, bytes: &[u8]);

    /// Whether nothing more of a raw connection can be taken. When there is room again, the tap's owner wakes the link
    /// ([`super::Link::wake`]).
    fn is_full(&self) -> bool;

    /// All that was to be sent on a raw connection has been sent.
    fn sent(&self);
}
