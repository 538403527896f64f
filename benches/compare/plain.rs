//! One blocking connection for everything that is not measured: loading the keys, warming L1, asking `PROXY INFO`.
//! Understands simple strings, errors, integers and bulk strings; that is all these commands answer with.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::wire::Batches;

/// For one reply.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why it did not work.
#[derive(Debug, thiserror::Error)]
pub enum PlainError {
    /// Connecting, sending, or waiting for [`PATIENCE`].
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// An error reply or one of another shape than expected.
    #[error("{request}: answered {got}")]
    Unexpected {
        /// What was asked.
        request: String,
        /// What came.
        got: String,
    },
}

/// A connection.
pub struct Plain {
    stream: BufReader<TcpStream>,
}

impl Plain {
    /// # Errors
    /// When nobody listens there.
    pub fn connect(addr: SocketAddr) -> Result<Self, PlainError> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The text of one reply, without its type and length.
    ///
    /// # Errors
    /// Also when the reply is an error.
    pub fn ask(&mut self, arguments: &[&str]) -> Result<String, PlainError> {
        let mut request = format!("*{}\r\n", arguments.len());
        for argument in arguments {
            request.push_str(&format!("${}\r\n{argument}\r\n", argument.len()));
        }
        self.stream.get_mut().write_all(request.as_bytes())?;

        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let line = line.trim_end();
        let unexpected =
            || PlainError::Unexpected { request: arguments.join(" "), got: line.escape_debug().to_string() };
        match line.split_at_checked(1) {
            Some(("+" | ":", text)) => Ok(text.to_owned()),
            Some(("$", length)) => {
                let length: usize = length.parse().map_err(|_| unexpected())?;
                let mut text = vec![0; length + 2];
                self.stream.read_exact(&mut text)?;
                text.truncate(length);
                Ok(String::from_utf8_lossy(&text).into_owned())
            }
            _ => Err(unexpected()),
        }
    }

    /// Sends every batch once, one after the other, and checks every reply.
    ///
    /// # Errors
    /// Also at the first wrong reply.
    pub fn walk(&mut self, batches: &Batches) -> Result<(), PlainError> {
        let mut reply = vec![0; batches.wording.workload().reply_len()];
        for batch in &batches.all {
            self.stream.get_mut().write_all(&batch.request)?;
            for tag in &batch.tags {
                self.stream.read_exact(&mut reply)?;
                if !batches.wording.is_reply(&reply, tag) {
                    return Err(PlainError::Unexpected {
                        request: format!("{} of key {}", batches.wording.workload().label(), tag.escape_ascii()),
                        got: reply[..reply.len().min(80)].escape_ascii().to_string(),
                    });
                }
            }
        }
        Ok(())
    }

    /// `PROXY INFO`, field by field.
    ///
    /// # Errors
    /// When there is no such command.
    pub fn proxy_info(&mut self) -> Result<HashMap<String, String>, PlainError> {
        let text = self.ask(&["PROXY", "INFO"])?;
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Ok(fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }
}
