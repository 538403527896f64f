//! A Redis client as small as it can be: one connection, requests in one write, replies in order.
//! It must not know what it talks to.

use std::io;

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_bytes_mut;
use redis_protocol::resp2::types::{BytesFrame, Resp2Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection, or it was lost.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Nobody listens at the address.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// As given on the command line.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// What came back is no RESP2.
    #[error("not a RESP reply: {0}")]
    Protocol(String),
    /// An error reply where a value was needed.
    #[error("{0}")]
    Refused(String),
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    received: BytesMut,
    waiting: usize,
    request: Vec<u8>,
}

impl Client {
    /// Connects to `host:port`.
    pub async fn connect(address: &str) -> Result<Self, ClientError> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|source| ClientError::Connect { address: address.to_owned(), source })?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: BytesMut::new(), waiting: 0, request: Vec::new() })
    }

    /// Adds a request to those that [`Client::replies`] sends.
    pub fn push(&mut self, arguments: &[&[u8]]) {
        self.request.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
        for argument in arguments {
            self.request.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            self.request.extend_from_slice(argument);
            self.request.extend_from_slice(b"\r\n");
        }
        self.waiting += 1;
    }

    /// Sends what was pushed and returns one reply for each, in order.
    pub async fn replies(&mut self) -> Result<Vec<BytesFrame>, ClientError> {
        self.stream.write_all(&self.request).await?;
        self.request.clear();
        let mut replies = Vec::with_capacity(self.waiting);
        while self.waiting > 0 {
            replies.push(self.next().await?);
            self.waiting -= 1;
        }
        Ok(replies)
    }

    /// One request, one reply.
    pub async fn ask(&mut self, arguments: &[&[u8]]) -> Result<BytesFrame, ClientError> {
        self.push(arguments);
        self.stream.write_all(&self.request).await?;
        self.request.clear();
        self.waiting = 0;
        self.next().await
    }

    /// One request whose reply must be a value: `None` is Redis's null.
    pub async fn value(&mut self, arguments: &[&[u8]]) -> Result<Option<Bytes>, ClientError> {
        match self.ask(arguments).await? {
            BytesFrame::BulkString(value) | BytesFrame::SimpleString(value) => Ok(Some(value)),
            BytesFrame::Null => Ok(None),
            BytesFrame::Error(text) => Err(ClientError::Refused(text.to_string())),
            other => Err(ClientError::Protocol(format!("a value was expected, not {:?}", other.kind()))),
        }
    }

    async fn next(&mut self) -> Result<BytesFrame, ClientError> {
        loop {
            let decoded =
                decode_bytes_mut(&mut self.received).map_err(|error| ClientError::Protocol(error.to_string()))?;
            if let Some((frame, _, _)) = decoded {
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}
