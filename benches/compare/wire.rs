//! What is asked and what must come back: the bytes of every request, built once before the clock starts,
//! and the check that every reply is held against. Knows no socket and no time.
//!
//! Every value carries its key's number, so a reply that belongs to another request does not pass either.

/// Keys in play: `key:00000000` … `key:00009999`.
pub const KEYS: usize = 10_000;
/// Bytes of every value.
pub const VALUE_LEN: usize = 256;

/// A key's number in eight digits: the end of the key, the beginning of its value.
type Tag = [u8; 8];

const GET_HEAD: &[u8] = b"*2\r\n$3\r\nGET\r\n$12\r\nkey:";
const SET_HEAD: &[u8] = b"*3\r\n$3\r\nSET\r\n$12\r\nkey:";
/// Begins a reply to GET, and the value inside a SET.
const BULK_HEAD: &[u8] = b"$256\r\n";
const OK: &[u8] = b"+OK\r\n";
/// What follows the tag in a value, with the line end after it.
const REST_LEN: usize = VALUE_LEN - size_of::<Tag>() + 2;
/// Bytes of a whole reply to GET.
const GET_REPLY_LEN: usize = BULK_HEAD.len() + VALUE_LEN + 2;

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Workload {
    /// `GET key`, every key in turn, in random order of batches.
    Get,
    /// `SET key value` with the value that the key already has, so that GETs can go on being checked.
    Set,
}

impl Workload {
    /// As in the tables.
    pub fn label(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Set => "SET",
        }
    }

    /// Bytes of one request. All are the same length, which the stand-in server relies on.
    pub fn request_len(self) -> usize {
        match self {
            Self::Get => GET_HEAD.len() + size_of::<Tag>() + 2,
            Self::Set => SET_HEAD.len() + size_of::<Tag>() + 2 + GET_REPLY_LEN,
        }
    }

    /// Bytes of one right reply.
    pub fn reply_len(self) -> usize {
        match self {
            Self::Get => GET_REPLY_LEN,
            Self::Set => OK.len(),
        }
    }

    /// Where the key's tag stands in a request.
    pub fn tag_at(self) -> usize {
        match self {
            Self::Get => GET_HEAD.len(),
            Self::Set => SET_HEAD.len(),
        }
    }
}

/// The wording of requests and replies of one workload.
pub struct Wording {
    workload: Workload,
    /// The same for every key, so that comparing it costs no cache miss.
    rest: [u8; REST_LEN],
}

impl Wording {
    /// The values are the same in every run and every process.
    pub fn new(workload: Workload) -> Self {
        let mut random = Random::new(256);
        let mut rest = [0; REST_LEN];
        for byte in &mut rest {
            *byte = b"abcdefghijklmnopqrstuvwxyz012345"[random.below(32)];
        }
        rest[REST_LEN - 2..].copy_from_slice(b"\r\n");
        Self { workload, rest }
    }

    /// Which workload's.
    pub fn workload(&self) -> Workload {
        self.workload
    }

    /// Appends the reply that the key with this tag must get.
    pub fn push_reply(&self, tag: &[u8], out: &mut Vec<u8>) {
        match self.workload {
            Workload::Get => self.push_bulk(tag, out),
            Workload::Set => out.extend_from_slice(OK),
        }
    }

    fn push_bulk(&self, tag: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(BULK_HEAD);
        out.extend_from_slice(tag);
        out.extend_from_slice(&self.rest);
    }

    fn push_request(&self, tag: &Tag, out: &mut Vec<u8>) {
        match self.workload {
            Workload::Get => {
                out.extend_from_slice(GET_HEAD);
                out.extend_from_slice(tag);
                out.extend_from_slice(b"\r\n");
            }
            Workload::Set => {
                out.extend_from_slice(SET_HEAD);
                out.extend_from_slice(tag);
                out.extend_from_slice(b"\r\n");
                self.push_bulk(tag, out);
            }
        }
    }

    /// Whether these bytes, of exactly [`Workload::reply_len`], are the reply that this tag must get: every byte.
    pub fn is_reply(&self, reply: &[u8], tag: &Tag) -> bool {
        match self.workload {
            Workload::Get => {
                let (head, value) = reply.split_at(BULK_HEAD.len());
                let (got, rest) = value.split_at(tag.len());
                head == BULK_HEAD && got == tag && rest == self.rest
            }
            Workload::Set => reply == OK,
        }
    }

    /// Whether a reply that is not complete yet can still become the right one. Without this an error, which is
    /// shorter than a value, would be waited for until the clock ran out.
    pub fn may_become_reply(&self, begun: &[u8], tag: &Tag) -> bool {
        let mut whole = Vec::with_capacity(self.workload.reply_len());
        self.push_reply(tag, &mut whole);
        whole.starts_with(begun)
    }
}

/// One write: as many requests as the pipeline is deep.
pub struct Batch {
    /// The bytes to send.
    pub request: Vec<u8>,
    /// Whose replies must come back, in this order.
    pub tags: Vec<Tag>,
}

/// All the writes of a workload at one depth; together they name every key.
pub struct Batches {
    /// How the replies are checked.
    pub wording: Wording,
    /// Requests in one batch.
    pub depth: usize,
    /// Never empty.
    pub all: Vec<Batch>,
}

impl Batches {
    /// The keys in a shuffled order (the same in every run), cut into batches; the last one is filled up from the
    /// beginning of the order.
    pub fn new(workload: Workload, depth: usize) -> Self {
        let wording = Wording::new(workload);
        let mut random = Random::new(depth as u64);
        let mut order: Vec<usize> = (0..KEYS).collect();
        for last in (1..KEYS).rev() {
            order.swap(last, random.below(last + 1));
        }
        let count = KEYS.div_ceil(depth);
        order.extend_from_within(..count * depth - KEYS);
        let all = order
            .chunks_exact(depth)
            .map(|keys| {
                let tags: Vec<Tag> = keys.iter().map(|&key| tag(key)).collect();
                let mut request = Vec::with_capacity(depth * workload.request_len());
                for tag in &tags {
                    wording.push_request(tag, &mut request);
                }
                Batch { request, tags }
            })
            .collect();
        Self { wording, depth, all }
    }
}

/// `key < KEYS`, so eight digits always hold it.
fn tag(key: usize) -> Tag {
    let mut tag = [b'0'; 8];
    let mut left = key;
    for digit in tag.iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
    tag
}

/// A checker that never fails proves nothing: every way in which a reply can be wrong, before anything is measured.
/// `false` if one of them passed.
pub fn checker_works() -> bool {
    let right = tag(4711);
    [Workload::Get, Workload::Set].into_iter().all(|workload| {
        let wording = Wording::new(workload);
        let mut good = Vec::new();
        wording.push_reply(&right, &mut good);
        let refuses_every_flip = (0..good.len()).all(|at| {
            let mut bad = good.clone();
            bad[at] ^= 1;
            !wording.is_reply(&bad, &right) && !wording.may_become_reply(&bad[..=at], &right)
        });
        let refuses_others = workload == Workload::Set || !wording.is_reply(&good, &tag(4712));
        wording.is_reply(&good, &right)
            && wording.may_become_reply(&good[..good.len() - 1], &right)
            && refuses_every_flip
            && refuses_others
            && !wording.may_become_reply(b"-ERR no", &right)
            && !wording.may_become_reply(b"$-1\r\n", &right)
    })
}

/// xorshift64*: good enough to shuffle, cheap enough for the loop that is measured.
pub struct Random(u64);

impl Random {
    /// Equal seeds give equal sequences.
    pub fn new(seed: u64) -> Self {
        // The state must not be 0.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Evenly (to within 1 in 2³²) from `0..bound`; `bound` is at least 1 and less than 2³².
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((high * bound as u64) >> 32) as usize
    }
}
