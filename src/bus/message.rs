//! The binary message of the fleet's subject, version 1 (`docs/coherence.md`). Bytes in, values out; no I/O.
//!
//! ```text
//! 0   "Ss"              what this is
//! 2   version           1
//! 3   kind              1 HELLO  2 HEARTBEAT  3 BYE  4 INV  5 QUARANTINE  6 FLUSH  7 QUARANTINE ALL  8 SCRIPT  9 FORGET
//!                       10 PLAIN
//! 4   incarnation  u64  the sender
//! 12  sequence     u64  INV, QUARANTINE, FLUSH, QUARANTINE ALL, SCRIPT, FORGET, PLAIN: its own number; the others: the last one used
//! 20  HEARTBEAT:        connection u64, sent u64, any number of fields: tag u8, length u16, length bytes
//!     SCRIPT:           lost u8: 1 when the script may still be running, else 0
//!     FORGET:           length u16 (≥ 1), a Redis glob of so many bytes
//!     INV, QUARANTINE, PLAIN: one or more groups: database u32, count u32 (≥ 1), count × hash u128
//! ```
//! Fields of a heartbeat: 1 = upstream u64 (a hash of the run id of the sender's Redis), 2 = subscribed u8 (1: the sender is
//! subscribed to the fleet's channel at Redis). Fields are optional. A field with an unknown tag is skipped, and so are extra bytes
//! at the end of a known field. So a later version can add fields without another version number.
//!
//! Integers are big-endian. No bytes may follow a message. Counts are checked against the length before anything is allocated.
//! Anything that is not understood is an error, for which the caller must flush.

use std::sync::Arc;

use thiserror::Error;

const MAGIC: [u8; 2] = *b"Ss";
const VERSION: u8 = 1;
const HEADER: usize = 20;
const GROUP: usize = 8;
const HASH: usize = 16;

/// Maximum size of a message that Shortstop sends, in bytes: 4,000 keys. Well below NATS's usual 1 MB, since a heartbeat waits
/// behind it, and since the client library queues many messages of this size while the connection is stalled.
pub(super) const MAX_BYTES: usize = 64 * 1024;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The sender: random at each start of a Shortstop.
    pub incarnation: u64,
    /// The message's sequence number: see the table in `docs/coherence.md`.
    pub sequence: u64,
    pub body: Body,
}

/// The content of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// The sender has just connected for the first time.
    Hello,
    /// The sender is alive. If the sender receives its own heartbeat, its inbound path works.
    Heartbeat(Probe, About),
    /// The sender ends and writes no more.
    Bye,
    /// Keys were written.
    Invalidate(Vec<Keys>),
    /// Keys whose writes have an unknown outcome.
    Quarantine(Vec<Keys>),
    /// Anything may have changed.
    Flush,
    /// Anything may still change: a write of unknown keys has an unknown outcome.
    QuarantineAll,
    /// A script may have written any key. The receiver's own setting (`scripts`) decides what follows.
    Script {
        /// Its reply was lost: it may still be running.
        lost: bool,
    },
    /// Somebody wants every key dropped that matches this glob.
    Forget(Arc<[u8]>),
    /// Strings that were turned from their compressed form to plain. Their values have not changed.
    Plain(Vec<Keys>),
}

/// What the sender of a heartbeat reads from its echo. Other receivers ignore it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    /// The number of the sender's connection to NATS, counted from its start.
    pub connection: u64,
    /// When it was sent, in nanoseconds of the sender's own clock.
    pub sent: u64,
}

/// What a heartbeat says about its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct About {
    /// A hash of the run id of the sender's Redis. `None`: not known.
    pub upstream: Option<u64>,
    /// The sender is subscribed to the fleet's channel at that Redis.
    pub subscribed: bool,
}

impl About {
    const UPSTREAM: u8 = 1;
    const SUBSCRIBED: u8 = 2;

    fn encode(self, out: &mut Vec<u8>) {
        let mut field = |tag: u8, bytes: &[u8]| {
            out.push(tag);
            out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
            out.extend_from_slice(bytes);
        };
        if let Some(upstream) = self.upstream {
            field(About::UPSTREAM, &upstream.to_be_bytes());
        }
        if self.subscribed {
            field(About::SUBSCRIBED, &[1]);
        }
    }

    /// Maximum number of bytes that [`About::encode`] writes.
    const MAX: usize = 3 + 8 + 3 + 1;
}

/// Hashes of keys of one database. Never empty on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    pub db: u32,
    pub hashes: Vec<u128>,
}

/// Why a message could not be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum DecodeError {
    #[error("not a Shortstop message")]
    Foreign,
    #[error("version {0}; this proxy speaks version 1")]
    Version(u8),
    #[error("unknown kind {0}")]
    Kind(u8),
    #[error("the message ends too early")]
    Truncated,
    #[error("bytes after the end")]
    Trailing,
    #[error("a group of no keys, or an empty glob")]
    Empty,
    #[error("a flag that is neither 0 nor 1")]
    Flag,
}

impl Body {
    /// Whether the message uses up a sequence number.
    pub fn counts(&self) -> bool {
        matches!(
            self,
            Body::Invalidate(_)
                | Body::Quarantine(_)
                | Body::Flush
                | Body::QuarantineAll
                | Body::Script { .. }
                | Body::Forget(_)
                | Body::Plain(_)
        )
    }

    /// The number of keys, or 1 for a flush, for the counters.
    pub fn events(&self) -> u64 {
        match self {
            Body::Invalidate(groups) | Body::Quarantine(groups) | Body::Plain(groups) => {
                groups.iter().map(|keys| keys.hashes.len() as u64).sum()
            }
            Body::Flush | Body::QuarantineAll | Body::Script { .. } | Body::Forget(_) => 1,
            Body::Hello | Body::Heartbeat(..) | Body::Bye => 0,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Body::Hello => 1,
            Body::Heartbeat(..) => 2,
            Body::Bye => 3,
            Body::Invalidate(_) => 4,
            Body::Quarantine(_) => 5,
            Body::Flush => 6,
            Body::QuarantineAll => 7,
            Body::Script { .. } => 8,
            Body::Forget(_) => 9,
            Body::Plain(_) => 10,
        }
    }
}

impl Message {
    /// The message in its wire form. Groups of more than `u32::MAX` keys do not exist: [`split`] bounds them.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + body_len(&self.body));
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        out.push(self.body.kind());
        out.extend_from_slice(&self.incarnation.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        match &self.body {
            Body::Hello | Body::Bye | Body::Flush | Body::QuarantineAll => {}
            Body::Script { lost } => out.push(u8::from(*lost)),
            Body::Forget(glob) => {
                // At most `MAX_GLOB`.
                out.extend_from_slice(&(glob.len() as u16).to_be_bytes());
                out.extend_from_slice(glob);
            }
            Body::Heartbeat(probe, about) => {
                out.extend_from_slice(&probe.connection.to_be_bytes());
                out.extend_from_slice(&probe.sent.to_be_bytes());
                about.encode(&mut out);
            }
            Body::Invalidate(groups) | Body::Quarantine(groups) | Body::Plain(groups) => {
                for keys in groups {
                    out.extend_from_slice(&keys.db.to_be_bytes());
                    out.extend_from_slice(&(keys.hashes.len() as u32).to_be_bytes());
                    for hash in &keys.hashes {
                        out.extend_from_slice(&hash.to_be_bytes());
                    }
                }
            }
        }
        out
    }

    /// Parses a message. It must take up all of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
        let mut rest = Reader(bytes);
        if rest.take::<2>().map_err(|_| DecodeError::Foreign)? != MAGIC {
            return Err(DecodeError::Foreign);
        }
        let [version] = rest.take()?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let [kind] = rest.take()?;
        let incarnation = u64::from_be_bytes(rest.take()?);
        let sequence = u64::from_be_bytes(rest.take()?);
        let body = match kind {
            1 => Body::Hello,
            2 => {
                let connection = u64::from_be_bytes(rest.take()?);
                let sent = u64::from_be_bytes(rest.take()?);
                Body::Heartbeat(Probe { connection, sent }, rest.about()?)
            }
            3 => Body::Bye,
            4 => Body::Invalidate(rest.groups()?),
            5 => Body::Quarantine(rest.groups()?),
            6 => Body::Flush,
            7 => Body::QuarantineAll,
            8 => match rest.take()? {
                [0] => Body::Script { lost: false },
                [1] => Body::Script { lost: true },
                _ => return Err(DecodeError::Flag),
            },
            9 => Body::Forget(rest.glob()?),
            10 => Body::Plain(rest.groups()?),
            other => return Err(DecodeError::Kind(other)),
        };
        if !rest.0.is_empty() {
            return Err(DecodeError::Trailing);
        }
        Ok(Message { incarnation, sequence, body })
    }
}

/// Packs keys into as few lists of groups as fit messages of `max` bytes each. A list holds at least one key, however small `max`
/// is. Keys of one database become one group. The order between databases is not kept, and need not be, because each key is dropped
/// on its own.
pub(super) fn split(keys: impl IntoIterator<Item = (u32, u128)>, max: usize) -> Vec<Vec<Keys>> {
    let mut by_db: Vec<Keys> = Vec::new();
    for (db, hash) in keys {
        // Usually the last one. There are few databases.
        match by_db.iter_mut().rev().find(|keys| keys.db == db) {
            Some(keys) => keys.hashes.push(hash),
            None => by_db.push(Keys { db, hashes: vec![hash] }),
        }
    }
    let mut lists: Vec<Vec<Keys>> = Vec::new();
    let mut list: Vec<Keys> = Vec::new();
    let mut free = max.saturating_sub(HEADER);
    for Keys { db, hashes } in by_db {
        let mut hashes = hashes.as_slice();
        while !hashes.is_empty() {
            let room = free.saturating_sub(GROUP) / HASH;
            if room == 0 && !list.is_empty() {
                lists.push(std::mem::take(&mut list));
                free = max.saturating_sub(HEADER);
                continue;
            }
            let (now, later) = hashes.split_at(room.clamp(1, hashes.len()));
            free = free.saturating_sub(GROUP + now.len() * HASH);
            list.push(Keys { db, hashes: now.to_vec() });
            hashes = later;
        }
    }
    if !list.is_empty() {
        lists.push(list);
    }
    lists
}

fn body_len(body: &Body) -> usize {
    match body {
        Body::Hello | Body::Bye | Body::Flush | Body::QuarantineAll => 0,
        Body::Heartbeat(..) => 16 + About::MAX,
        Body::Script { .. } => 1,
        Body::Forget(glob) => 2 + glob.len(),
        Body::Invalidate(groups) | Body::Quarantine(groups) | Body::Plain(groups) => {
            groups.iter().map(|keys| GROUP + keys.hashes.len() * HASH).sum()
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    /// Parses the fields up to the end.
    fn about(&mut self) -> Result<About, DecodeError> {
        let mut about = About::default();
        while !self.0.is_empty() {
            let [tag] = self.take()?;
            let length = usize::from(u16::from_be_bytes(self.take()?));
            let (bytes, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Truncated)?;
            self.0 = rest;
            let mut bytes = Reader(bytes);
            match tag {
                About::UPSTREAM => about.upstream = Some(u64::from_be_bytes(bytes.take()?)),
                About::SUBSCRIBED => about.subscribed = bytes.take::<1>()? == [1],
                _ => {}
            }
        }
        Ok(about)
    }

    fn glob(&mut self) -> Result<Arc<[u8]>, DecodeError> {
        let length = usize::from(u16::from_be_bytes(self.take()?));
        let (glob, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        if glob.is_empty() { Err(DecodeError::Empty) } else { Ok(glob.into()) }
    }

    fn groups(&mut self) -> Result<Vec<Keys>, DecodeError> {
        let mut groups = Vec::new();
        loop {
            let db = u32::from_be_bytes(self.take()?);
            let count = u32::from_be_bytes(self.take()?) as usize;
            if count == 0 {
                return Err(DecodeError::Empty);
            }
            // Checked by division, so that no count can overflow.
            if count > self.0.len() / HASH {
                return Err(DecodeError::Truncated);
            }
            let (hashes, rest) = self.0.split_at(count * HASH);
            // `as_chunks` leaves no remainder: the length is a multiple of HASH.
            let hashes = hashes.as_chunks::<HASH>().0.iter().map(|hash| u128::from_be_bytes(*hash)).collect();
            groups.push(Keys { db, hashes });
            self.0 = rest;
            if rest.is_empty() {
                return Ok(groups);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::{About, Body, DecodeError, HEADER, Keys, Message, Probe, split};

    fn groups() -> impl Strategy<Value = Vec<Keys>> {
        let keys = (any::<u32>(), vec(any::<u128>(), 1..20)).prop_map(|(db, hashes)| Keys { db, hashes });
        vec(keys, 1..6)
    }

    fn message() -> impl Strategy<Value = Message> {
        let body = prop_oneof![
            Just(Body::Hello),
            (any::<u64>(), any::<u64>(), any::<Option<u64>>(), any::<bool>()).prop_map(
                |(connection, sent, upstream, subscribed)| {
                    Body::Heartbeat(Probe { connection, sent }, About { upstream, subscribed })
                }
            ),
            Just(Body::Bye),
            groups().prop_map(Body::Invalidate),
            groups().prop_map(Body::Quarantine),
            groups().prop_map(Body::Plain),
            Just(Body::Flush),
            Just(Body::QuarantineAll),
            any::<bool>().prop_map(|lost| Body::Script { lost }),
            vec(any::<u8>(), 1..50).prop_map(|glob| Body::Forget(glob.into())),
        ];
        (any::<u64>(), any::<u64>(), body).prop_map(|(incarnation, sequence, body)| Message {
            incarnation,
            sequence,
            body,
        })
    }

    proptest! {
        #[test]
        fn an_encoded_message_is_decoded_again(message in message()) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn a_part_of_a_message_is_refused(message in message(), cut in any::<proptest::sample::Index>()) {
            let bytes = message.encode();
            let part = &bytes[..cut.index(bytes.len())];
            // A cut between two groups or fields leaves a whole, shorter message; nothing else does.
            if let Ok(shorter) = Message::decode(part) {
                prop_assert!(matches!(message.body, Body::Invalidate(_) | Body::Quarantine(_) | Body::Heartbeat(..)));
                prop_assert_eq!(shorter.encode(), part);
            }
        }

        #[test]
        fn bytes_after_the_end_are_refused(message in message(), extra in vec(any::<u8>(), 1..8)) {
            let mut bytes = message.encode();
            bytes.extend(extra);
            // After a heartbeat they may happen to form a field.
            if !matches!(message.body, Body::Heartbeat(..)) {
                prop_assert!(Message::decode(&bytes).is_err());
            }
        }

        #[test]
        fn no_input_makes_the_decoder_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(&bytes);
        }

        #[test]
        fn there_is_one_encoding(message in message(), flips in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4)) {
            let mut bytes = message.encode();
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= value;
            }
            // Unknown fields are skipped.
            if let Ok(read) = Message::decode(&bytes)
                && !matches!(read.body, Body::Heartbeat(..))
            {
                prop_assert_eq!(read.encode(), bytes);
            }
        }

        #[test]
        fn unknown_fields_are_skipped(
            before in vec((3u8.., vec(any::<u8>(), 0..300)), 0..4),
            behind in vec((3u8.., vec(any::<u8>(), 0..300)), 0..4),
            upstream in any::<u64>(),
            longer in vec(any::<u8>(), 0..9),
        ) {
            let heartbeat = |about| Message {
                incarnation: 1,
                sequence: 2,
                body: Body::Heartbeat(Probe { connection: 3, sent: 4 }, about),
            };
            let mut bytes = heartbeat(About::default()).encode();
            let mut field = |tag: u8, content: &[u8]| {
                bytes.push(tag);
                bytes.extend((content.len() as u16).to_be_bytes());
                bytes.extend(content);
            };
            before.iter().for_each(|(tag, content)| field(*tag, content));
            field(1, &[&upstream.to_be_bytes()[..], &longer].concat());
            field(2, &[&[1][..], &longer].concat());
            behind.iter().for_each(|(tag, content)| field(*tag, content));
            let about = About { upstream: Some(upstream), subscribed: true };
            prop_assert_eq!(Message::decode(&bytes), Ok(heartbeat(about)));
        }

        #[test]
        fn splitting_loses_and_adds_nothing(
            keys in vec((0u32..4, any::<u128>()), 0..300),
            max in 0usize..2000,
        ) {
            let mut sent = keys.clone();
            let mut got = Vec::new();
            for list in split(keys, max) {
                let body = Body::Invalidate(list.clone());
                prop_assert!(body.events() >= 1);
                let len = Message { incarnation: 0, sequence: 0, body: body.clone() }.encode().len();
                prop_assert!(len <= max || body.events() == 1, "{} bytes for {} events", len, body.events());
                got.extend(list.into_iter().flat_map(|keys| keys.hashes.into_iter().map(move |hash| (keys.db, hash))));
            }
            sent.sort_unstable();
            got.sort_unstable();
            prop_assert_eq!(got, sent);
        }
    }

    #[test]
    fn the_wire_form_is_fixed() {
        let message = Message {
            incarnation: 0x0102_0304_0506_0708,
            sequence: 9,
            body: Body::Invalidate(vec![Keys { db: 3, hashes: vec![0xff] }]),
        };
        let mut expected = b"Ss\x01\x04\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0\0\0\0\x09\0\0\0\x03\0\0\0\x01".to_vec();
        expected.extend([0; 15]);
        expected.push(0xff);
        assert_eq!(message.encode(), expected);
    }

    #[test]
    fn the_fields_of_a_heartbeat_are_fixed() {
        let about = About { upstream: Some(0x0102_0304_0506_0708), subscribed: true };
        let body = Body::Heartbeat(Probe { connection: 1, sent: 2 }, about);
        let bytes = Message { incarnation: 0, sequence: 0, body }.encode();
        let expected = b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\x01\0\x08\x01\x02\x03\x04\x05\x06\x07\x08\x02\0\x01\x01";
        assert_eq!(bytes[HEADER..], expected[..]);
        // A field that is too short is the sender's fault.
        let mut short = bytes[..HEADER + 16].to_vec();
        short.extend(b"\x01\0\x07\x01\x02\x03\x04\x05\x06\x07");
        assert_eq!(Message::decode(&short), Err(DecodeError::Truncated));
        short.truncate(short.len() - 1);
        assert_eq!(Message::decode(&short), Err(DecodeError::Truncated));
    }

    #[test]
    fn each_fault_has_its_name() {
        let flush = Message { incarnation: 1, sequence: 1, body: Body::Flush }.encode();
        let with = |at: usize, value: u8| {
            let mut bytes = flush.clone();
            bytes[at] = value;
            bytes
        };
        let group = |count: u32, hashes: usize| {
            let mut bytes = with(3, 4);
            bytes.extend([0; 4]);
            bytes.extend(count.to_be_bytes());
            bytes.extend(vec![0; hashes * 16]);
            bytes
        };
        let cases: [(Vec<u8>, DecodeError); 14] = [
            (Vec::new(), DecodeError::Foreign),
            (b"{\"action\":\"invalidate\"}".to_vec(), DecodeError::Foreign),
            (b"Ss".to_vec(), DecodeError::Truncated),
            (with(2, 2), DecodeError::Version(2)),
            (with(3, 0), DecodeError::Kind(0)),
            (with(3, 11), DecodeError::Kind(11)),
            (with(3, 9), DecodeError::Truncated),
            ([with(3, 9), vec![0, 0]].concat(), DecodeError::Empty),
            (with(3, 8), DecodeError::Truncated),
            ([with(3, 8), vec![2]].concat(), DecodeError::Flag),
            (flush[..HEADER - 1].to_vec(), DecodeError::Truncated),
            (group(0, 0), DecodeError::Empty),
            (group(u32::MAX, 3), DecodeError::Truncated),
            (with(3, 4), DecodeError::Truncated),
        ];
        for (bytes, error) in cases {
            assert_eq!(Message::decode(&bytes), Err(error), "{bytes:?}");
        }
    }
}
