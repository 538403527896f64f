//! The last calls that a worker sent to Redis, as far as the slow log shows them. The bytes of a request are dropped once they are sent,
//! and only its reply shows that it was slow; so each call leaves a clipped copy in a ring of fixed size. A call that L1 answers leaves
//! none.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use crate::command::Row;
use crate::exchange::pending::CallMark;
use crate::metrics::slow_log::SlowRequest;
use crate::worker_state::context::Context;

/// Bytes of the ring. At 100 bytes a call it holds the last ten thousand calls.
const RING: usize = 1 << 20;

/// How many arguments are shown, as in Redis.
const MOST_ARGUMENTS: usize = 32;

/// How many bytes of an argument are shown, as in Redis.
const LONGEST: usize = 128;

/// Of the replies that arrive at once, this many at most are logged: while Redis hangs, all requests behind the slow one are slow, too.
const AT_ONCE: u32 = 16;

/// Commands with a secret among their arguments.
const SECRETIVE: [&str; 5] = ["auth", "hello", "migrate", "acl|setuser", "config|set"];

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
struct Known {
    client: u64,
    row: u32,
    arguments: Vec<Vec<u8>>,
}

impl Calls {
    /// Adds a call. Returns its place, which is never 0.
    fn add(&mut self, client: u64, row: u32, args: &[&[u8]]) -> u64 {
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
    fn get(&self, place: u64) -> Option<Known> {
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

impl Context {
    /// Notes a call that is about to be sent, for its latency and the slow log. Not for those that may block.
    pub(crate) fn note_call<'a>(&self, client: u64, row: &Row, args: &[&'a [u8]]) -> CallMark {
        let Some(family) = row.family() else { return CallMark::default() };
        let place = match self.slower_than.get() {
            Some(_) => self.calls.borrow_mut().add(client, row.number, args),
            None => 0,
        };
        CallMark { place, family: Some(family), written: 0 }
    }

    /// The reply to a request has been handed on. It came at `came`, and was asked for at `asked`.
    #[inline]
    pub(crate) fn answered(&self, call: CallMark, asked: Instant, came: Instant) {
        let Some(family) = call.family else { return };
        let took = came.saturating_duration_since(asked);
        self.stats().families.record(family, took);
        if self.slower_than.get().is_some_and(|limit| took >= limit) {
            self.was_slow(call, asked, came);
        }
    }

    #[cold]
    fn was_slow(&self, call: CallMark, asked: Instant, came: Instant) {
        let (last, before) = self.slow_at_once.get();
        let count = if last == Some(came) { before + 1 } else { 1 };
        self.slow_at_once.set((Some(came), count));
        if count > AT_ONCE {
            return;
        }
        let took = asked.elapsed();
        let written = asked + Duration::from_micros(call.written.into());
        let known = self.calls.borrow().get(call.place);
        let view = self.view();
        let command = known.as_ref().and_then(|known| view.table.name_of(known.row)).unwrap_or_default().to_owned();
        let client = known.as_ref().and_then(|known| self.clients.borrow().get(&known.client).map(Rc::clone));
        let mut arguments = known.map(|known| known.arguments).unwrap_or_default();
        if SECRETIVE.contains(&&*command) {
            let shown = 1 + usize::from(command.contains('|'));
            arguments.iter_mut().skip(shown).for_each(|argument| *argument = b"(redacted)".to_vec());
        }
        let address = client.as_ref().and_then(|client| client.info.addr.as_ref()).map(ToString::to_string);
        let request = SlowRequest {
            date: SystemTime::now(),
            took,
            upstream: came.saturating_duration_since(written).min(took),
            command,
            arguments,
            address: address.unwrap_or_default(),
            name: client.map(|client| client.profile.name.borrow().clone()).unwrap_or_default(),
        };
        self.shared.stats.shared.slow_log.add(request, view.policy.slowlog.max_len);
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
