//! The last calls that a worker sent to Redis, as far as the slow log shows them. The bytes of a request are dropped once they are sent,
//! and only its reply shows that it was slow; so each call leaves a clipped copy in a ring of fixed size. A call that L1 answers leaves
//! none.

/// Bytes of the ring. At 100 bytes a call it holds the last ten thousand calls.
const RING: usize = 1 << 20;

/// How many arguments are shown, as in Redis.
const MOST_ARGUMENTS: usize = 32;

/// How many bytes of an argument are shown, as in Redis.
const LONGEST: usize = 128;

/// The ring.
#[derive(Debug, Default)]
pub struct Calls {
    /// Allocated when it is first needed.
    ring: Vec<u8>,
    /// Bytes written so far, with those that were skipped at the end of the ring.
    written: u64,
    /// The entry that is being written.
    entry: Vec<u8>,
}

/// A call in the ring.
pub(crate) struct Known {
    pub(crate) client: u64,
    pub(crate) row: u32,
    pub(crate) arguments: Vec<Vec<u8>>,
}

impl Calls {
    /// Adds a call. Returns its place, which is never 0.
    pub(crate) fn add(&mut self, client: u64, row: u32, args: &[&[u8]]) -> u64 {
        let entry = &mut self.entry;
        entry.clear();
        entry.extend_from_slice(&client.to_le_bytes());
        entry.extend_from_slice(&row.to_le_bytes());
        entry.extend_from_slice(&(args.len() as u32).to_le_bytes());
        for arg in args.iter().take(MOST_ARGUMENTS) {
            entry.extend_from_slice(&(arg.len() as u32).to_le_bytes());
            entry.extend_from_slice(&arg[..arg.len().min(LONGEST)]);
        }
        if self.ring.is_empty() {
            self.ring = vec![0; RING];
        }
        let room = RING - (self.written % RING as u64) as usize;
        if entry.len() > room {
            self.written += room as u64;
        }
        let at = (self.written % RING as u64) as usize;
        self.ring[at..at + entry.len()].copy_from_slice(entry);
        let place = self.written;
        self.written += entry.len() as u64;
        place + 1
    }

    /// The call at this place, unless newer ones stand there.
    pub(crate) fn get(&self, place: u64) -> Option<Known> {
        let place = place.checked_sub(1)?;
        if self.written - place > RING as u64 {
            return None;
        }
        let mut bytes = self.ring.get((place % RING as u64) as usize..)?;
        let mut take = |length: usize| {
            let taken;
            (taken, bytes) = bytes.split_at_checked(length)?;
            Some(taken)
        };
        let client = u64::from_le_bytes(take(8)?.try_into().ok()?);
        let row = u32::from_le_bytes(take(4)?.try_into().ok()?);
        let argc = u32::from_le_bytes(take(4)?.try_into().ok()?) as usize;
        let mut arguments = Vec::new();
        for at in 0..argc.min(MOST_ARGUMENTS) {
            let length = u32::from_le_bytes(take(4)?.try_into().ok()?) as usize;
            let mut argument = take(length.min(LONGEST))?.to_vec();
            if at == MOST_ARGUMENTS - 1 && argc > MOST_ARGUMENTS {
                argument = format!("... ({} more arguments)", argc - at).into_bytes();
            } else if length > LONGEST {
                argument.extend_from_slice(format!("... ({} more bytes)", length - LONGEST).as_bytes());
            }
            arguments.push(argument);
        }
        Some(Known { client, row, arguments })
    }
}

#[cfg(test)]
mod tests {
    use super::{Calls, RING};

    #[test]
    fn a_call_is_clipped_as_redis_clips_it() {
        let mut calls = Calls::default();
        let long = vec![b'x'; 1000];
        let place = calls.add(7, 3, &[b"SET", b"k", &long]);
        let many: Vec<&[u8]> = vec![b"a"; 40];
        let other = calls.add(8, 4, &many);
        let known = calls.get(place).expect("it is there");
        assert_eq!((known.client, known.row, known.arguments.len()), (7, 3, 3));
        assert_eq!(known.arguments[2], [&long[..128], b"... (872 more bytes)"].concat());
        let known = calls.get(other).expect("it is there");
        assert_eq!((known.arguments.len(), &*known.arguments[31]), (32, &b"... (9 more arguments)"[..]));
    }

    #[test]
    fn an_overwritten_call_is_not_taken_for_another() {
        let mut calls = Calls::default();
        let places: Vec<(u64, Vec<u8>)> = (0..RING / 100)
            .map(|number| {
                let key = format!("{number:0200}").into_bytes();
                (calls.add(number as u64, 1, &[b"GET", &key]), key)
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
