//! A client of Shortstop inside of Shortstop: it has the user and the database of another client, and is served like any other.

use std::os::unix::net::UnixStream as StdStream;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_bytes;
use redis_protocol::resp2::types::BytesFrame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::resp::{Bulk, ReplyScanner, build, bulk_of, parse_int};
use crate::worker;
use crate::worker_state::context::Mailboxes;

use super::key_state::PATIENCE;

/// Keys that Redis looks at in one SCAN.
pub(super) const SCANNED: &[u8] = b"500";

/// What a GET gives.
pub(super) enum Got {
    Value(Bytes),
    /// There is no such key.
    Nothing,
    /// An error.
    Refused,
    /// More than was asked for.
    TooLarge,
}

/// A connection to the client's task on a worker.
pub(super) struct InnerClient {
    stream: UnixStream,
    buffer: BytesMut,
}

impl InnerClient {
    /// A client with this user, on a worker that serves a client with this user; user 0: as a client that has just connected. `warms`:
    /// what it reads is kept in L1 at once.
    ///
    /// # Errors
    /// No worker serves such a client any more.
    pub(super) async fn open(mailboxes: &Mailboxes, user: u32, db: u32, warms: bool) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("the system gives no socket: {error}");
        let (ours, theirs) = StdStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        theirs.set_nonblocking(true).map_err(failed)?;
        // The first worker that knows the user takes it.
        let theirs = Arc::new(Mutex::new(Some(theirs)));
        let served = mailboxes.ask_all(Some(PATIENCE), move |context, answers| {
            let socket = || theirs.lock().unwrap_or_else(PoisonError::into_inner).take();
            let served = worker::serve_inside(context, user, db, warms, socket);
            // If the receiver is gone, nobody waits.
            let _ = answers.send(served);
        });
        if !served.await.contains(&true) {
            return Err("no client of this user is connected any more".to_owned());
        }
        let stream = UnixStream::from_std(ours).map_err(failed)?;
        Ok(InnerClient { stream, buffer: BytesMut::new() })
    }

    /// Asks for keys with SCAN. Returns the next cursor and the keys.
    ///
    /// # Errors
    /// Redis refuses it, or the connection has ended.
    pub(super) async fn scan(&mut self, words: &[&[u8]]) -> Result<(Vec<u8>, Vec<Vec<u8>>), String> {
        let mut request = Vec::new();
        build::request(&mut request, words.iter().copied());
        self.send(&request).await?;
        let reply = self.reply().await?;
        match decode_bytes(&reply.freeze()) {
            Ok(Some((BytesFrame::Error(text), _))) => Err(text.to_string()),
            Ok(Some((BytesFrame::Array(parts), _))) => match &parts[..] {
                [BytesFrame::BulkString(cursor), BytesFrame::Array(keys)] => {
                    let keys = keys.iter().filter_map(|key| match key {
                        BytesFrame::BulkString(key) => Some(key.to_vec()),
                        _ => None,
                    });
                    Ok((cursor.to_vec(), keys.collect()))
                }
                _ => Err("Redis's reply to SCAN is not understood".to_owned()),
            },
            _ => Err("Redis's reply to SCAN is not understood".to_owned()),
        }
    }

    /// Gets these keys, and throws the values away. Returns how many were refused.
    ///
    /// # Errors
    /// The connection has ended.
    pub(super) async fn get_all(&mut self, keys: &[Vec<u8>]) -> Result<u64, String> {
        self.ask_for(keys).await?;
        let mut refused = 0;
        for _ in keys {
            let reply = self.reply().await?;
            refused += u64::from(reply.starts_with(b"-"));
        }
        Ok(refused)
    }

    /// Gets these keys. A value of more than `most` bytes is thrown away as it comes.
    ///
    /// # Errors
    /// The connection has ended.
    pub(super) async fn get_each(&mut self, keys: &[Vec<u8>], most: usize) -> Result<Vec<Got>, String> {
        self.ask_for(keys).await?;
        let mut all = Vec::with_capacity(keys.len());
        for _ in keys {
            all.push(self.value(most).await?);
        }
        Ok(all)
    }

    async fn ask_for(&mut self, keys: &[Vec<u8>]) -> Result<(), String> {
        let mut requests = Vec::new();
        for key in keys {
            build::request(&mut requests, [&b"GET"[..], key].into_iter());
        }
        self.send(&requests).await
    }

    /// The next reply, to a GET.
    async fn value(&mut self, most: usize) -> Result<Got, String> {
        let line = loop {
            match memchr::memchr(b'\r', &self.buffer) {
                Some(end) => break &self.buffer[..end],
                None => self.read().await?,
            }
        };
        let length = line.strip_prefix(b"$").and_then(parse_int).and_then(|length| usize::try_from(length).ok());
        if let Some(length) = length.filter(|length| *length > most) {
            let mut left = line.len() + 2 + length + 2;
            loop {
                let here = left.min(self.buffer.len());
                self.buffer.advance(here);
                left -= here;
                if left == 0 {
                    return Ok(Got::TooLarge);
                }
                self.read().await?;
            }
        }
        let reply = self.reply().await?;
        Ok(match bulk_of(&reply) {
            Bulk::Value(value) => Got::Value(Bytes::copy_from_slice(value)),
            Bulk::Null => Got::Nothing,
            _ => Got::Refused,
        })
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).await.map_err(ended)
    }

    /// The next reply.
    async fn reply(&mut self) -> Result<BytesMut, String> {
        let mut scanner = ReplyScanner::default();
        loop {
            if let Some(end) = scanner.scan(&self.buffer).map_err(|why| why.to_string())? {
                return Ok(self.buffer.split_to(end));
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), String> {
        match self.stream.read_buf(&mut self.buffer).await.map_err(ended)? {
            0 => Err(ended("")),
            _ => Ok(()),
        }
    }
}

fn ended(_: impl std::fmt::Display) -> String {
    "its connection was closed: Shortstop shuts down, or CLIENT KILL".to_owned()
}
