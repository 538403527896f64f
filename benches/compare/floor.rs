//! The floor: a proxy that does no thinking. It passes bytes on and counts them; it knows from [`crate::wire`] how long
//! every request and every reply is, so it parses nothing, looks nothing up, keeps no limit and allocates nothing per
//! request. One epoll, one pipelined connection to Redis, one write per client and batch.
//!
//! What it costs is what the kernel's sockets and the Redis behind cost; no proxy that shares one connection between
//! clients can be much cheaper on the same machine. So its ratios tell which targets can be reached at all.
//! Runs as a second process of this program, on the servers' core. It is for the comparison alone: a request of
//! any other length would break it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Events, Poll, Token};

use crate::front::{self, LISTENER};
use crate::wire::Workload;

const UPSTREAM: Token = Token(usize::MAX - 1);
/// Bytes taken from a socket at once: a few batches of 16.
const READ_AT_ONCE: usize = 64 * 1024;

/// Serves until it is killed or Redis is gone. Prints where it listens.
///
/// # Errors
/// When Redis, the listener or the poll fails.
pub fn serve(workload: Workload, redis: SocketAddr) -> std::io::Result<()> {
    let mut poll = Poll::new()?;
    let upstream = std::net::TcpStream::connect(redis)?;
    upstream.set_nodelay(true)?;
    upstream.set_nonblocking(true)?;
    let mut floor = Floor {
        request_len: workload.request_len(),
        reply_len: workload.reply_len(),
        clients: Vec::new(),
        upstream: TcpStream::from_std(upstream),
        requests: Queue::default(),
        replies: Queue::default(),
        due: VecDeque::new(),
    };
    front::register(poll.registry(), &mut floor.upstream, UPSTREAM)?;
    let listener = front::listen(&poll, "floor")?;
    let mut events = Events::with_capacity(256);
    loop {
        front::wait(&mut poll, &mut events)?;
        for event in &events {
            match event.token() {
                LISTENER => front::accept_all(&listener, poll.registry(), floor.clients.len(), |stream| {
                    floor.clients.push(Some(Client { stream, begun: Vec::new(), out: Vec::new() }));
                })?,
                UPSTREAM => floor.hand_out()?,
                Token(index) => floor.serve(index),
            }
        }
        // Once per turn, so that Redis finds the requests of many clients together.
        let sent = front::send(&mut floor.upstream, floor.requests.bytes())?;
        floor.requests.drop_front(sent);
    }
}

struct Floor {
    request_len: usize,
    reply_len: usize,
    clients: Vec<Option<Client>>,
    upstream: TcpStream,
    /// Whole requests that Redis's socket has not taken yet.
    requests: Queue,
    /// Replies that are not handed out yet: less than the batch that is due next.
    replies: Queue,
    /// Who gets how many bytes of what Redis answers, in this order.
    due: VecDeque<Due>,
}

#[derive(Clone, Copy)]
struct Due {
    client: usize,
    bytes: usize,
}

struct Client {
    stream: TcpStream,
    /// The beginning of a request whose end has not arrived: requests of two clients must not mix.
    begun: Vec<u8>,
    /// Replies that the socket has not taken yet.
    out: Vec<u8>,
}

impl Floor {
    /// Moves on what a client has sent, and sends it what it would not take before. A client that is gone is forgotten.
    fn serve(&mut self, index: usize) {
        let flushed =
            self.take(index).is_ok() && self.clients[index].as_mut().is_some_and(|client| client.flush().is_ok());
        if !flushed {
            self.clients[index] = None;
        }
    }

    /// What a client has sent, to the end of the queue for Redis.
    fn take(&mut self, index: usize) -> std::io::Result<()> {
        let Some(client) = &mut self.clients[index] else {
            return Ok(());
        };
        loop {
            let kept = client.begun.len();
            let room = self.requests.room(kept + READ_AT_ONCE);
            room[..kept].copy_from_slice(&client.begun);
            let got = match client.stream.read(&mut room[kept..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let count = (kept + got) / self.request_len;
            let whole = count * self.request_len;
            client.begun.clear();
            client.begun.extend_from_slice(&room[whole..kept + got]);
            self.requests.add(whole);
            if count > 0 {
                self.due.push_back(Due { client: index, bytes: count * self.reply_len });
            }
            if got < READ_AT_ONCE {
                return Ok(());
            }
        }
    }

    /// What Redis has answered, to those it is for, as soon as all that one of them is waiting for is there.
    fn hand_out(&mut self) -> std::io::Result<()> {
        loop {
            let room = self.replies.room(READ_AT_ONCE);
            let got = match self.upstream.read(room) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.replies.add(got);
            while let Some(&Due { client, bytes }) = self.due.front()
                && let Some(replies) = self.replies.bytes().get(..bytes)
            {
                if let Some(client) = &mut self.clients[client] {
                    client.deliver(replies);
                }
                self.replies.drop_front(bytes);
                self.due.pop_front();
            }
            if got < READ_AT_ONCE {
                return Ok(());
            }
        }
    }
}

impl Client {
    /// A connection that is broken shows it to its next read, too.
    fn deliver(&mut self, replies: &[u8]) {
        let sent = if self.out.is_empty() { front::send(&mut self.stream, replies).unwrap_or(0) } else { 0 };
        self.out.extend_from_slice(&replies[sent..]);
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let sent = front::send(&mut self.stream, &self.out)?;
        self.out.drain(..sent);
        Ok(())
    }
}

/// Bytes in order, in a buffer that is read into directly.
#[derive(Default)]
struct Queue {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Queue {
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// At least `wanted` bytes behind the last; [`Queue::add`] says how many of them were filled.
    fn room(&mut self, wanted: usize) -> &mut [u8] {
        if self.buffer.len() - self.end < wanted {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            let length = self.buffer.len().max(self.end + wanted);
            self.buffer.resize(length, 0);
        }
        &mut self.buffer[self.end..self.end + wanted]
    }

    fn add(&mut self, count: usize) {
        self.end += count;
    }

    fn drop_front(&mut self, count: usize) {
        self.start += count;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }
}
