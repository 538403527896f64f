//! The latency of requests to Redis by family of commands, and the slow log. Measured where a reply from Redis has been handed on, so that
//! a request that L1 answers does not pay for it.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use crate::command::Row;
use crate::exchange::pending::CallMark;
use crate::metrics::slow_log::SlowRequest;
use crate::resp::Args;
use crate::worker_state::context::Context;

/// Of the replies that arrive at once, this many at most are logged: while Redis hangs, all requests behind the slow one are slow, too.
const AT_ONCE: u32 = 16;

/// Commands with a secret among their arguments.
const SECRETIVE: [&str; 5] = ["auth", "hello", "migrate", "acl|setuser", "config|set"];

impl Context {
    /// Notes a call that is about to be sent, for its latency and the slow log. Not for those that may block.
    #[inline]
    pub(crate) fn note_call(&self, client: u64, row: &Row, raw: &[u8], args: &Args) -> CallMark {
        match row.family() {
            None => CallMark::default(),
            family => CallMark { family, ..self.note_read(client, row, raw, args) },
        }
    }

    /// [`Context::note_call`] for a read whose latency counts as that of a miss.
    #[inline(always)]
    pub(crate) fn note_read(&self, client: u64, row: &Row, raw: &[u8], args: &Args) -> CallMark {
        let is_logged = self.slower_than.get().is_some();
        let place = if is_logged { self.calls.borrow_mut().add(client, row.number, raw, args) } else { 0 };
        CallMark { place, ..CallMark::default() }
    }

    /// The time from a request to its reply. Requests that were read together have one time, and so have replies.
    #[inline]
    pub(crate) fn took(&self, asked: Instant, came: Instant) -> Duration {
        let (last_asked, last_came, took) = self.last_took.get();
        if (last_asked, last_came) == (asked, came) {
            return took;
        }
        let took = came.saturating_duration_since(asked);
        self.last_took.set((asked, came, took));
        took
    }

    /// A time in microseconds. Begins again after more than an hour.
    pub(crate) fn micros(&self, time: Instant) -> u32 {
        time.saturating_duration_since(self.shared.stats.started).as_micros() as u32
    }

    /// The reply to a read that L1 could have answered has come.
    #[inline]
    pub(crate) fn missed(&self, asked: Instant, came: Instant) {
        self.stats().miss.record(self.took(asked, came), 1);
    }

    /// The reply to a request has been handed on. It came at `came`, and was asked for at `asked`.
    #[inline]
    pub(crate) fn answered(&self, call: CallMark, asked: Instant, came: Instant) {
        if call.family.is_none() && call.place == 0 {
            return;
        }
        let took = self.took(asked, came);
        if let Some(family) = call.family {
            self.stats().families.record(family, took);
        }
        if call.place != 0 && self.slower_than.get().is_some_and(|limit| took >= limit) {
            self.was_slow(call, asked, came);
        }
    }

    /// The reply to a request that is counted in the worker's hot keys has been handed on.
    #[cold]
    pub(crate) fn sample_answered(&self, call: CallMark, bytes: usize, asked: Instant, came: Instant) {
        self.hot_keys.borrow_mut().answered(call.sample, bytes, self.upstream_part(call, asked, came));
    }

    /// The part of the time between a request and its reply that was spent upstream. All of it, if it is not known when the request was
    /// sent.
    fn upstream_part(&self, call: CallMark, asked: Instant, came: Instant) -> Duration {
        let took = came.saturating_duration_since(asked);
        match call.written {
            0 => took,
            written => took.min(Duration::from_micros(self.micros(came).wrapping_sub(written).into())),
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
        let known = self.calls.borrow().get(call.place);
        let view = self.view();
        let command = known.as_ref().and_then(|known| view.table.name_of(known.row)).unwrap_or_default().to_owned();
        let client = known.as_ref().and_then(|known| self.clients.borrow().get(&known.client).map(Rc::clone));
        let mut arguments = known.map(|known| known.arguments).unwrap_or_default();
        // PROXY CONFIG SET may have one, too.
        let is_proxy = command.split('|').next() == Some("proxy");
        if is_proxy || SECRETIVE.contains(&&*command) {
            let shown = 1 + usize::from(is_proxy || command.contains('|'));
            arguments.iter_mut().skip(shown).for_each(|argument| *argument = b"(redacted)".to_vec());
        }
        let address = client.as_ref().and_then(|client| client.info.addr.as_ref()).map(ToString::to_string);
        let request = SlowRequest {
            date: SystemTime::now(),
            took,
            upstream: self.upstream_part(call, asked, came),
            command,
            arguments,
            address: address.unwrap_or_default(),
            name: client.map(|client| client.profile.name.borrow().clone()).unwrap_or_default(),
        };
        self.shared.stats.shared.slow_log.add(request, view.policy.slowlog.max_len);
    }
}
