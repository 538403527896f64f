//! A reply in L1, and the question that it answers.

use std::sync::atomic::{AtomicBool, Ordering};

use triomphe::ThinArc;
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::Codec;
use crate::metrics::rules::RulePlace;
use crate::resp::Version;

use super::{EntryId, KeyId};

/// Odd multipliers that separate users and protocols.
const USER: u64 = 0x9e37_79b9_7f4a_7c15;
const PROTOCOL: u64 = 0xc2b2_ae3d_27d4_eb4f;

/// A read: the user, the key, and the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    db: u32,
    user: u32,
    key: &'a [u8],
    /// The protocol, and the exact bytes of the request. `None` for GET, in any spelling and protocol.
    request: Option<(Version, &'a [u8])>,
}

impl<'a> Question<'a> {
    /// Size of the longest request whose reply can be kept: an entry stores the length in 16 bits.
    pub const LONGEST: usize = u16::MAX as usize;

    /// A GET, or this key's part of an MGET. `user` is the user's number.
    #[inline]
    pub fn get(db: u32, user: u32, key: &'a [u8]) -> Self {
        Question { db, user, key, request: None }
    }

    /// Any other read of the key. `None` if the request is too long.
    #[inline]
    pub fn other(db: u32, user: u32, key: &'a [u8], version: Version, request: &'a [u8]) -> Option<Self> {
        (request.len() <= Self::LONGEST).then_some(Question { db, user, key, request: Some((version, request)) })
    }

    /// The database.
    #[inline]
    pub fn db(&self) -> u32 {
        self.db
    }

    /// The user's number.
    #[inline]
    pub fn user(&self) -> u32 {
        self.user
    }

    /// The key.
    #[inline]
    pub fn key(&self) -> &'a [u8] {
        self.key
    }

    /// The exact bytes of the request. `None` for GET.
    #[inline]
    pub fn request(&self) -> Option<&'a [u8]> {
        self.request.map(|(_, request)| request)
    }

    /// Whether the reply is a value. Values are the same in both protocols, except for null.
    #[inline]
    pub fn is_get(&self) -> bool {
        self.request.is_none()
    }

    /// Bytes that an entry keeps of the question.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.request().map_or(0, <[u8]>::len)
    }

    /// The id of the entry that answers the question.
    #[inline(always)]
    pub fn id(&self) -> EntryId {
        let user = u64::from(self.user).wrapping_mul(USER);
        let variant = match self.request {
            None => user,
            Some((version, request)) => {
                let protocol = u64::from(version.number()).wrapping_mul(PROTOCOL);
                user.wrapping_add(protocol).wrapping_add(xxh3_64(request))
            }
        };
        EntryId::new(KeyId::new(self.db, self.key), variant)
    }

    /// A copy that outlives the request.
    pub fn keep(&self) -> Asked {
        Asked {
            db: self.db,
            user: self.user,
            key: self.key.into(),
            request: self.request.map(|(version, request)| (version, request.into())),
        }
    }
}

/// A [`Question`] whose reply is due.
#[derive(Debug)]
pub struct Asked {
    db: u32,
    user: u32,
    key: Box<[u8]>,
    request: Option<(Version, Box<[u8]>)>,
}

impl Asked {
    /// The question.
    pub fn question(&self) -> Question<'_> {
        let request = self.request.as_ref().map(|(version, request)| (*version, &**request));
        Question { db: self.db, user: self.user, key: &self.key, request }
    }
}

/// How long an entry is good. In nanoseconds after the cache's origin, which takes half the size of two `Instant`s.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The generation in which the entry was made (`docs/coherence.md`). Entries of older generations are dead.
    pub generation: u64,
    /// When the entry's request was sent. Its age counts from here.
    pub sent: u64,
    /// The entry is never served from then on (`docs/coherence.md`).
    pub deadline: u64,
}

/// A reply in L1, ready to send. This is a handle and cheap to clone.
///
/// One allocation holds key, request (empty for GET) and reply, so that a hit reads one place in memory.
#[derive(Clone, Debug)]
pub struct Entry(ThinArc<Head, u8>);

/// The fields in front of them.
#[derive(Debug)]
struct Head {
    valid: AtomicBool,
    /// The protocol version as in HELLO. 0 for GET.
    protocol: u8,
    /// Where its hits are counted.
    place: RulePlace,
    request_length: u16,
    db: u32,
    user: u32,
    /// Up to 2 GiB, because that bounds `limits.max_bulk_length`.
    key_length: u32,
    /// Codec and size of the compressed value in Redis.
    codec: Option<Codec>,
    compressed: u32,
    times: Times,
}

impl Entry {
    /// A valid entry. `compressed`: codec and size of the value in Redis, if it is compressed there.
    pub fn new(
        times: Times,
        question: &Question<'_>,
        reply: &[u8],
        compressed: Option<(Codec, usize)>,
        place: RulePlace,
    ) -> Self {
        let (protocol, request) = match question.request {
            Some((version, request)) => (version.number(), request),
            None => (0, &[][..]),
        };
        let head = Head {
            valid: AtomicBool::new(true),
            protocol,
            place,
            request_length: u16::try_from(request.len()).expect("a question is no longer"),
            db: question.db,
            user: question.user,
            key_length: u32::try_from(question.key.len()).expect("a key is an argument, and those are bounded"),
            codec: compressed.map(|(codec, _)| codec),
            compressed: compressed.map_or(0, |(_, size)| u32::try_from(size).unwrap_or(u32::MAX)),
            times,
        };
        Entry(ThinArc::from_header_and_slice(head, &[question.key, request, reply].concat()))
    }

    #[inline]
    fn head(&self) -> &Head {
        &self.0.header.header
    }

    /// How long the entry is good.
    #[inline]
    pub fn times(&self) -> Times {
        self.head().times
    }

    /// The key.
    #[inline]
    pub fn key(&self) -> &[u8] {
        &self.0.slice[..self.head().key_length as usize]
    }

    #[inline]
    fn request(&self) -> &[u8] {
        &self.0.slice[self.head().key_length as usize..self.reply_at()]
    }

    #[inline]
    fn reply_at(&self) -> usize {
        self.head().key_length as usize + usize::from(self.head().request_length)
    }

    /// The whole reply. For GET, in RESP2.
    #[inline]
    pub fn reply(&self) -> &[u8] {
        &self.0.slice[self.reply_at()..]
    }

    /// Where its hits are counted.
    #[inline]
    pub fn place(&self) -> RulePlace {
        self.head().place
    }

    /// The database.
    pub fn db(&self) -> u32 {
        self.head().db
    }

    /// The number of the user who has read it.
    pub fn user(&self) -> u32 {
        self.head().user
    }

    /// The exact bytes of the request that it answers. `None` for GET.
    pub fn asked(&self) -> Option<&[u8]> {
        (self.head().protocol != 0).then(|| self.request())
    }

    /// Codec and size of the value in Redis, if it is compressed there.
    pub fn compressed(&self) -> Option<(Codec, usize)> {
        self.head().codec.map(|codec| (codec, self.head().compressed as usize))
    }

    /// Whether it has not been dropped.
    #[inline]
    pub fn is_valid(&self) -> bool {
        self.head().valid.load(Ordering::Acquire)
    }

    /// Drops it, for every hot set at once and for good.
    pub fn invalidate(&self) {
        self.head().valid.store(false, Ordering::Release);
    }

    /// Whether it answers this question, and not another one with the same id.
    #[inline]
    pub fn answers(&self, question: &Question<'_>) -> bool {
        let head = self.head();
        head.db == question.db
            && head.user == question.user
            && match question.request {
                None => head.protocol == 0 && self.key() == question.key,
                // The request contains the key.
                Some((version, request)) => head.protocol == version.number() && self.request() == request,
            }
    }

    /// Whether both are handles to the same entry.
    pub fn is(&self, other: &Entry) -> bool {
        std::ptr::eq(&self.0.header, &other.0.header)
    }

    /// Size in memory. A rough but sufficient constant covers the bookkeeping around the entry.
    pub fn weight(&self) -> usize {
        self.0.slice.len() + ENTRY_OVERHEAD
    }

    /// The [`Entry::weight`] of a reply with so many bytes to a question with so many bytes ([`Question::bytes`]).
    pub fn weight_of(question: usize, reply: usize) -> usize {
        question + reply + ENTRY_OVERHEAD
    }
}

/// moka's node, the handle's reference count, and the slot in the stripes.
const ENTRY_OVERHEAD: usize = 256;

/// A value of L1 in the client's protocol. Only null differs, which L1 keeps in RESP2.
#[inline]
pub fn in_version(reply: &[u8], version: Version) -> &[u8] {
    if reply == Version::Resp2.null() { version.null() } else { reply }
}

/// The form in which L1 keeps a value: null as in RESP2.
pub fn kept_as(reply: &[u8]) -> &[u8] {
    if reply == Version::Resp3.null() { Version::Resp2.null() } else { reply }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Entry, Question, RulePlace, Times};
    use crate::resp::Version;

    const HGET: &[u8] = b"*3\r\n$4\r\nHGET\r\n$1\r\nk\r\n$1\r\nf\r\n";

    fn other(db: u32, user: u32, version: Version, request: &[u8]) -> Question<'_> {
        Question::other(db, user, b"k", version, request).expect("short")
    }

    /// A user without a right to a key must not get what another user has read, so the hash alone is never trusted.
    #[test]
    fn an_entry_answers_its_own_question_alone() {
        let spelt_otherwise = HGET.to_ascii_lowercase();
        let questions = [
            Question::get(0, 0, b"k"),
            Question::get(0, 0, b"l"),
            Question::get(1, 0, b"k"),
            Question::get(0, 1, b"k"),
            Question::get(0, 2, b"k"),
            other(0, 0, Version::Resp2, HGET),
            other(1, 0, Version::Resp2, HGET),
            other(0, 1, Version::Resp2, HGET),
            other(0, 2, Version::Resp2, HGET),
            other(0, 0, Version::Resp3, HGET),
            other(0, 1, Version::Resp3, HGET),
            other(0, 0, Version::Resp2, &spelt_otherwise),
            other(0, 0, Version::Resp2, b"*2\r\n$7\r\nHGETALL\r\n$1\r\nk\r\n"),
        ];
        let times = Times { generation: 0, sent: 0, deadline: 0 };
        for (at, question) in questions.iter().enumerate() {
            let entry = Entry::new(times, question, b"$1\r\nx\r\n", None, RulePlace::DEFAULTS);
            assert_eq!((entry.key(), entry.reply()), (question.key(), &b"$1\r\nx\r\n"[..]));
            let answered: Vec<usize> = (0..questions.len()).filter(|other| entry.answers(&questions[*other])).collect();
            assert_eq!(answered, [at], "{question:?}");
            assert_eq!(question.keep().question(), *question);
        }
        let ids: HashSet<_> = questions.iter().map(Question::id).collect();
        assert_eq!(ids.len(), questions.len());
    }

    /// Code that drops the entries of a key knows only the key.
    #[test]
    fn all_questions_about_a_key_share_its_key_id() {
        let key = Question::get(0, 0, b"k").id().key();
        for question in
            [Question::get(0, 7, b"k"), other(0, 0, Version::Resp2, HGET), other(0, 7, Version::Resp3, HGET)]
        {
            assert_eq!(question.id().key(), key);
        }
        assert_ne!(Question::get(1, 0, b"k").id().key(), key);
    }

    #[test]
    fn a_request_that_is_too_long_is_not_kept() {
        let request = vec![b'x'; Question::LONGEST + 1];
        assert!(Question::other(0, 0, b"k", Version::Resp2, &request[1..]).is_some());
        assert!(Question::other(0, 0, b"k", Version::Resp2, &request).is_none());
    }
}
