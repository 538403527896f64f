//! The last calls that a worker sent to Redis, as far as the slow log shows them. The bytes of a request are dropped once they are sent,
//! and only its reply shows that it was slow; so each call leaves a copy in a ring of fixed size. A call that L1 answers leaves none.

use crate::resp::{Args, Scan, ScanLimits, Scanner};

/// Bytes of the ring. At 100 bytes a call it holds the last eight thousand calls.
const RING: usize = 1 << 20;

/// Entries begin at multiples of this, so that a place fits into 32 bits.
const STEP: usize = 16;

/// A call of up to so many bytes is copied as it is, which costs little more than to keep nothing. A longer one is clipped first.
const COPIED: usize = 512;

/// How many arguments are shown, as in Redis.
const MOST_ARGUMENTS: usize = 32;

/// How many bytes of an argument are shown, as in Redis.
const LONGEST: usize = 128;

/// In front of each entry: the client, the row, and the size of what follows, with [`CLIPPED`].
const HEAD: usize = 16;

/// The bit of the size that says that the call was clipped.
const CLIPPED: u32 = 1 << 31;

/// The ring.
#[derive(Debug, Default)]
pub struct Calls {
    /// Allocated when it is first needed.
    ring: Vec<u8>,
    /// Bytes written so far, with those that were skipped at the end of the ring.
    written: u64,
}

/// A call in the ring.
pub(crate) struct Known {
    pub(crate) client: u64,
    pub(crate) row: u32,
    pub(crate) arguments: Vec<Vec<u8>>,
}

impl Calls {
    /// Adds a call: its bytes, and where its arguments are in them. Returns its place, which is not 0.
    pub(crate) fn add(&mut self, client: u64, row: u32, raw: &[u8], args: &Args) -> u32 {
        if raw.len() <= COPIED {
            return self.put(client, row, raw, 0);
        }
        let mut clipped = Vec::new();
        clipped.extend_from_slice(&(args.len() as u32).to_le_bytes());
        for arg in args.iter().take(MOST_ARGUMENTS).map(|range| &raw[range.clone()]) {
            clipped.extend_from_slice(&(arg.len() as u32).to_le_bytes());
            clipped.extend_from_slice(&arg[..arg.len().min(LONGEST)]);
        }
        self.put(client, row, &clipped, CLIPPED)
    }

    #[inline]
    fn put(&mut self, client: u64, row: u32, bytes: &[u8], flag: u32) -> u32 {
        if self.ring.is_empty() {
            self.ring = vec![0; RING];
        }
        let length = HEAD + bytes.len();
        let mut at = (self.written % RING as u64) as usize;
        if length > RING - at {
            self.written += (RING - at) as u64;
            at = 0;
        }
        let (head, rest) = self.ring[at..at + length].split_at_mut(HEAD);
        head[..8].copy_from_slice(&client.to_le_bytes());
        head[8..12].copy_from_slice(&row.to_le_bytes());
        head[12..].copy_from_slice(&(bytes.len() as u32 | flag).to_le_bytes());
        rest.copy_from_slice(bytes);
        let place = (self.written / STEP as u64) as u32;
        self.written += length.next_multiple_of(STEP) as u64;
        // A call in so many thousand millions has no place.
        place.wrapping_add(1)
    }

    /// The call at this place, unless newer ones stand there.
    pub(crate) fn get(&self, place: u32) -> Option<Known> {
        let place = place.checked_sub(1)?;
        let since = ((self.written / STEP as u64) as u32).wrapping_sub(place) as usize;
        if since > RING / STEP {
            return None;
        }
        let mut bytes = self.ring.get(place as usize * STEP % RING..)?;
        let client = u64::from_le_bytes(take(&mut bytes, 8)?.try_into().ok()?);
        let row = number(&mut bytes)?;
        let length = number(&mut bytes)?;
        let bytes = take(&mut bytes, (length & !CLIPPED) as usize)?;
        let (argc, arguments) = if length & CLIPPED == 0 { whole(bytes)? } else { clipped(bytes)? };
        let shown = arguments.into_iter().enumerate().map(|(at, (length, argument))| {
            if at == MOST_ARGUMENTS - 1 && argc > MOST_ARGUMENTS {
                format!("... ({} more arguments)", argc - at).into_bytes()
            } else if length > argument.len() {
                [argument, format!("... ({} more bytes)", length - argument.len()).as_bytes()].concat()
            } else {
                argument.to_vec()
            }
        });
        Some(Known { client, row, arguments: shown.collect() })
    }
}

/// How many arguments a call has, and of those that are shown the size and the beginning.
type Shown<'a> = (usize, Vec<(usize, &'a [u8])>);

/// From a request as the client sent it.
fn whole(raw: &[u8]) -> Option<Shown<'_>> {
    let limits = ScanLimits { bulk_length: COPIED, arguments: COPIED, line_length: COPIED };
    let mut scanner = Scanner::default();
    let Ok(Scan::Request { .. }) = scanner.scan(raw, &limits) else { return None };
    let shown = scanner.args.iter().take(MOST_ARGUMENTS).map(|range| &raw[range.clone()]);
    Some((scanner.args.len(), shown.map(|arg| (arg.len(), &arg[..arg.len().min(LONGEST)])).collect()))
}

/// From a request that was clipped when it was added.
fn clipped(mut bytes: &[u8]) -> Option<Shown<'_>> {
    let argc = number(&mut bytes)? as usize;
    let mut shown = Vec::new();
    for _ in 0..argc.min(MOST_ARGUMENTS) {
        let length = number(&mut bytes)? as usize;
        shown.push((length, take(&mut bytes, length.min(LONGEST))?));
    }
    Some((argc, shown))
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn number(bytes: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take(bytes, 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{Args, Calls, RING};
    use crate::resp::build;

    fn request(words: &[&[u8]]) -> (Vec<u8>, Args) {
        let mut raw = Vec::new();
        build::request(&mut raw, words.iter().copied());
        let mut at = raw.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        let ranges = words.iter().map(|word| {
            let from = at + format!("${}\r\n", word.len()).len();
            at = from + word.len() + 2;
            from..from + word.len()
        });
        let ranges = ranges.collect();
        (raw, ranges)
    }

    fn add(calls: &mut Calls, client: u64, row: u32, words: &[&[u8]]) -> u32 {
        let (raw, args) = request(words);
        calls.add(client, row, &raw, &args)
    }

    /// Short requests are copied, long ones are clipped first: both are shown in the same way.
    #[test]
    fn a_call_is_clipped_as_redis_clips_it() {
        let mut calls = Calls::default();
        for (client, long) in [(7, 200), (8, 1000)] {
            let place = add(&mut calls, client, 3, &[b"SET", b"k", &vec![b'x'; long], b"EX", b"9"]);
            let many = add(&mut calls, client, 4, &vec![&b"a"[..]; long / 5]);
            let known = calls.get(place).expect("it is there");
            assert_eq!((known.client, known.row, known.arguments.len()), (client, 3, 5));
            let clipped = [&[b'x'; 128][..], format!("... ({} more bytes)", long - 128).as_bytes()].concat();
            assert_eq!((&known.arguments[2], &*known.arguments[4]), (&clipped, &b"9"[..]));
            let known = calls.get(many).expect("it is there");
            let last = format!("... ({} more arguments)", long / 5 - 31);
            assert_eq!((known.row, known.arguments.len(), &*known.arguments[31]), (4, 32, last.as_bytes()));
        }
    }

    #[test]
    fn an_overwritten_call_is_not_taken_for_another() {
        let mut calls = Calls::default();
        let places: Vec<(u32, Vec<u8>)> = (0..RING / 100)
            .map(|number| {
                let key = format!("{number:0200}").into_bytes();
                (add(&mut calls, number as u64, 1, &[b"GET", &key]), key)
            })
            .collect();
        assert!(calls.get(0).is_none() && calls.get(places[0].0).is_none());
        for (number, (place, key)) in places.iter().enumerate() {
            if let Some(known) = calls.get(*place) {
                assert_eq!((known.client, &known.arguments[1][..128]), (number as u64, &key[..128]));
            }
        }
        assert!(calls.get(places[places.len() - 1].0).is_some());
    }
}
