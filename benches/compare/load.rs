//! The load generator: one thread, one epoll, non-blocking sockets. Each connection has one batch under way; when all
//! its replies are in and right, the next one is sent. Requests are built beforehand, and no memory is allocated
//! while the clock runs, so that the generator costs less than any server it measures.
//!
//! A reply that is wrong in any byte ends the run: a fast wrong answer is not a figure.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::histogram::Histogram;
use crate::machine::{Cores, Cost, Moment, Processes};
use crate::secure::{Trust, Wire};
use crate::wire::{Batches, Random};

/// A server that answers nobody for this long is taken for hung.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the interrupt flag is looked at when nothing arrives.
const TICK: Duration = Duration::from_millis(50);
/// Bytes taken from a socket at once: more than a batch of 64 values.
const READ_AT_ONCE: usize = 64 * 1024;

/// Why a cell could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
    /// The reply is not the one that was due.
    #[error("wrong reply to {request}: got {got}")]
    WrongReply {
        /// The request, escaped.
        request: String,
        /// The reply, escaped and cut.
        got: String,
    },
    /// Bytes arrived that nobody had asked for.
    #[error("{0} bytes more than were asked for")]
    TooMuch(usize),
    /// The server closed a connection.
    #[error("the server closed a connection")]
    Closed,
    /// Nothing arrived for [`PATIENCE`] on any connection that waited.
    #[error("no reply for {PATIENCE:?}")]
    Hung,
    /// A socket or the poll failed.
    #[error("socket: {0}")]
    Io(#[from] std::io::Error),
}

/// How long and how wide.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Connections at once.
    pub connections: usize,
    /// Load that is not counted.
    pub warm_up: Duration,
    /// Load that is.
    pub measure: Duration,
}

/// What one cell gave.
#[derive(Clone, Copy)]
pub struct Sample {
    /// Replies per second.
    pub rate: f64,
    /// From the write of a batch to its last reply, median.
    pub p50: Duration,
    /// The same, 99th percentile.
    pub p99: Duration,
    /// Replies in all, warm-up included.
    pub replies: u64,
    /// Share of the time in which the servers' core was busy, 0 to 1.
    pub server_busy: f64,
    /// Share of the time that the generator itself worked.
    pub generator_busy: f64,
    /// Share of the time in which the generator was ready to run and other work had its core.
    pub disturbed: f64,
    /// CPU time per request, if the kernel tells.
    pub cost: Option<Processes<Cost>>,
}

/// What is loaded.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// Where.
    pub addr: SocketAddr,
    /// None: without TLS.
    pub trust: Option<&'a Trust>,
    /// Whose CPU time counts.
    pub processes: Processes,
    /// Where it runs and where this does.
    pub cores: Cores,
}

/// Loads a server and measures it. Every request sent has been answered when this returns `Ok`.
///
/// # Errors
/// See [`LoadError`]; the connections are closed in every case.
pub fn run(subject: Subject<'_>, plan: Plan, batches: &Batches, stop: &AtomicBool) -> Result<Sample, LoadError> {
    let mut generator = Generator::connect(subject, plan.connections, batches)?;
    let began = Instant::now();
    generator.send_to_all(began)?;

    generator.work_until(began + plan.warm_up, stop)?;
    let warm = generator.take_counts();
    let before = Moment::now(subject.processes);
    let measured_from = Instant::now();
    generator.work_until(measured_from + plan.measure, stop)?;
    let elapsed = measured_from.elapsed();
    let after = Moment::now(subject.processes);
    let counted = generator.take_counts();

    generator.drain(stop)?;
    let rest = generator.take_counts();
    let between = after.since(&before, subject.cores, counted.replies);
    Ok(Sample {
        rate: counted.replies as f64 / elapsed.as_secs_f64(),
        p50: counted.latency.percentile(0.5),
        p99: counted.latency.percentile(0.99),
        replies: warm.replies + counted.replies + rest.replies,
        server_busy: between.server_busy,
        generator_busy: between.own.ran.as_secs_f64() / elapsed.as_secs_f64(),
        disturbed: between.own.kept_waiting.as_secs_f64() / elapsed.as_secs_f64(),
        cost: between.cost,
    })
}

struct Counts {
    replies: u64,
    latency: Histogram,
}

impl Counts {
    fn new() -> Self {
        Self { replies: 0, latency: Histogram::new() }
    }
}

struct Connection {
    stream: Wire,
    /// Index of the batch under way.
    batch: usize,
    /// Bytes of it that the socket has taken.
    written: usize,
    /// Replies to it that are in and right.
    answered: usize,
    sent_at: Instant,
    /// The beginning of a reply whose end has not arrived; shorter than one reply.
    begun: Vec<u8>,
    waiting: bool,
}

struct Generator<'a> {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    batches: &'a Batches,
    random: Random,
    /// Shared by all connections, so that it stays in the processor's cache.
    buffer: Vec<u8>,
    counts: Counts,
    /// `false`: answers are taken, nothing new is sent.
    sending: bool,
    last_reply: Instant,
}

impl<'a> Generator<'a> {
    fn connect(subject: Subject<'_>, count: usize, batches: &'a Batches) -> Result<Self, LoadError> {
        let poll = Poll::new()?;
        let now = Instant::now();
        let mut connections = Vec::with_capacity(count);
        for index in 0..count {
            let mut stream = Wire::connect(subject.addr, subject.trust)?;
            stream.register(poll.registry(), Token(index))?;
            connections.push(Connection {
                stream,
                batch: 0,
                written: 0,
                answered: 0,
                sent_at: now,
                begun: Vec::with_capacity(batches.wording.workload().reply_len()),
                waiting: false,
            });
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(count),
            connections,
            batches,
            random: Random::new(count as u64),
            buffer: vec![0; READ_AT_ONCE],
            counts: Counts::new(),
            sending: true,
            last_reply: now,
        })
    }

    fn take_counts(&mut self) -> Counts {
        std::mem::replace(&mut self.counts, Counts::new())
    }

    fn send_to_all(&mut self, now: Instant) -> Result<(), LoadError> {
        (0..self.connections.len()).try_for_each(|index| self.send_next(index, now))
    }

    fn work_until(&mut self, end: Instant, stop: &AtomicBool) -> Result<(), LoadError> {
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            self.turn(TICK.min(end - now), now, stop)?;
        }
    }

    fn drain(&mut self, stop: &AtomicBool) -> Result<(), LoadError> {
        self.sending = false;
        while self.connections.iter().any(|connection| connection.waiting) {
            self.turn(TICK, Instant::now(), stop)?;
        }
        Ok(())
    }

    /// One wait for the sockets, and all that it brought.
    fn turn(&mut self, timeout: Duration, now: Instant, stop: &AtomicBool) -> Result<(), LoadError> {
        if stop.load(Ordering::Relaxed) {
            return Err(LoadError::Interrupted);
        }
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        if self.events.is_empty() {
            return if now.duration_since(self.last_reply) > PATIENCE { Err(LoadError::Hung) } else { Ok(()) };
        }
        self.last_reply = now;
        // The events are taken out while they are worked through, so that `self` is free.
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let index = event.token().0;
            if event.is_writable() {
                self.write(index)?;
            }
            if event.is_readable() {
                self.read(index)?;
            }
        }
        self.events = events;
        Ok(())
    }

    fn send_next(&mut self, index: usize, now: Instant) -> Result<(), LoadError> {
        let connection = &mut self.connections[index];
        connection.batch = self.random.below(self.batches.all.len());
        connection.written = 0;
        connection.answered = 0;
        connection.sent_at = now;
        connection.waiting = true;
        self.write(index)
    }

    /// Hands the socket what it takes; the poll tells when it takes more.
    fn write(&mut self, index: usize) -> Result<(), LoadError> {
        let connection = &mut self.connections[index];
        if !connection.waiting {
            return Ok(());
        }
        connection.stream.push()?;
        let request = &self.batches.all[connection.batch].request;
        while connection.written < request.len() {
            match connection.stream.write(&request[connection.written..]) {
                Ok(count) => connection.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes what has arrived, checks it, and sends the next batch when this one is done.
    fn read(&mut self, index: usize) -> Result<(), LoadError> {
        loop {
            let connection = &mut self.connections[index];
            let kept = connection.begun.len();
            self.buffer[..kept].copy_from_slice(&connection.begun);
            let got = match connection.stream.read(&mut self.buffer[kept..]) {
                Ok(0) => return Err(LoadError::Closed),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let fresh = check(connection, self.batches, &self.buffer[..kept + got])?;
            self.counts.replies += fresh;
            if connection.answered == self.batches.depth {
                connection.waiting = false;
                let now = Instant::now();
                self.counts.latency.add(now.duration_since(connection.sent_at));
                return if self.sending { self.send_next(index, now) } else { Ok(()) };
            }
            // A short read has emptied the socket, and what comes later is a new event: no second read for nothing.
            if got < self.buffer.len() - kept && connection.stream.short_reads_tell() {
                return Ok(());
            }
        }
    }
}

/// Holds the bytes against the replies that are due, in order, and keeps the beginning of an incomplete one.
/// Returns how many replies were completed.
fn check(connection: &mut Connection, batches: &Batches, bytes: &[u8]) -> Result<u64, LoadError> {
    let batch = &batches.all[connection.batch];
    let due = if connection.waiting { &batch.tags[connection.answered..] } else { &[] };
    let replies = bytes.chunks_exact(batches.wording.workload().reply_len());
    let begun = replies.remainder();
    let mut fresh = 0;
    for reply in replies {
        let Some(tag) = due.get(fresh) else {
            return Err(LoadError::TooMuch(bytes.len()));
        };
        if !batches.wording.is_reply(reply, tag) {
            return Err(wrong(batches, connection, fresh, reply));
        }
        fresh += 1;
    }
    if !begun.is_empty() {
        let Some(tag) = due.get(fresh) else {
            return Err(LoadError::TooMuch(begun.len()));
        };
        if !batches.wording.may_become_reply(begun, tag) {
            return Err(wrong(batches, connection, fresh, begun));
        }
    }
    connection.begun.clear();
    connection.begun.extend_from_slice(begun);
    connection.answered += fresh;
    Ok(fresh as u64)
}

/// `fresh` counts from the replies that were in before.
fn wrong(batches: &Batches, connection: &Connection, fresh: usize, got: &[u8]) -> LoadError {
    let length = batches.wording.workload().request_len();
    let from = (connection.answered + fresh) * length;
    let request = &batches.all[connection.batch].request[from..from + length];
    LoadError::WrongReply { request: excerpt(request), got: excerpt(got) }
}

fn excerpt(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(80)].escape_ascii().to_string()
}
