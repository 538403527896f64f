//! A client of Shortstop inside of Shortstop: it has the user and the database of another client, and is served like any other.

use std::os::unix::net::UnixStream as StdStream;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use redis_protocol::resp2::decode::decode_bytes;
use redis_protocol::resp2::types::BytesFrame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::resp::{ReplyScanner, build};
use crate::worker;
use crate::worker_state::context::Mailboxes;

use super::key_state::PATIENCE;

/// A connection to the client's task on a worker.
pub(super) struct InnerClient {
    stream: UnixStream,
    buffer: BytesMut,
}

impl InnerClient {
    /// A client with this user, on a worker that serves a client with this user; user 0: as a client that has just connected.
    ///
    /// # Errors
    /// No worker serves such a client any more.
    pub(super) async fn open(mailboxes: &Mailboxes, user: u32, db: u32) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("the system gives no socket: {error}");
        let (ours, theirs) = StdStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        theirs.set_nonblocking(true).map_err(failed)?;
        // The first worker that knows the user takes it.
        let theirs = Arc::new(Mutex::new(Some(theirs)));
        let served = mailboxes.ask_all(Some(PATIENCE), move |context, answers| {
            let socket = || theirs.lock().unwrap_or_else(PoisonError::into_inner).take();
            let served = worker::serve_inside(context, user, db, socket);
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
        let mut requests = Vec::new();
        for key in keys {
            build::request(&mut requests, [&b"GET"[..], key].into_iter());
        }
        self.send(&requests).await?;
        let mut refused = 0;
        for _ in keys {
            let reply = self.reply().await?;
            refused += u64::from(reply.starts_with(b"-"));
        }
        Ok(refused)
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
            if self.stream.read_buf(&mut self.buffer).await.map_err(ended)? == 0 {
                return Err(ended(""));
            }
        }
    }
}

fn ended(_: impl std::fmt::Display) -> String {
    "its connection was closed: Shortstop shuts down, or CLIENT KILL".to_owned()
}
