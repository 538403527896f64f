//! A blocking client that sends bytes and reads exactly one reply, as raw bytes.
//!
//! It parses RESP2 and RESP3 just far enough to find where a reply ends. It never decodes, so that tests compare the bytes on the
//! wire.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tokio_rustls::rustls::{ClientConnection, StreamOwned};

use super::PATIENCE;

/// One connection. Replies are read in order. A reply that does not arrive in time causes a panic.
pub struct Client {
    stream: Stream,
    /// Bytes received. Those before `taken` have been returned.
    buffer: Vec<u8>,
    taken: usize,
}

/// The transport of a client.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn set_limits(&self, read: Duration, write: Duration) -> std::io::Result<()> {
        match self {
            Stream::Unix(socket) => {
                socket.set_read_timeout(Some(read))?;
                socket.set_write_timeout(Some(write))
            }
            Stream::Tcp(socket) => {
                socket.set_read_timeout(Some(read))?;
                socket.set_write_timeout(Some(write))
            }
            Stream::Tls(tls) => {
                tls.sock.set_read_timeout(Some(read))?;
                tls.sock.set_write_timeout(Some(write))
            }
        }
    }

    fn tcp(&mut self) -> &mut TcpStream {
        match self {
            Stream::Tcp(socket) => socket,
            Stream::Tls(tls) => &mut tls.sock,
            Stream::Unix(_) => panic!("this is for TCP"),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Stream::Tcp(socket) => socket.write_all(bytes),
            Stream::Unix(socket) => socket.write_all(bytes),
            Stream::Tls(tls) => {
                tls.write_all(bytes)?;
                tls.flush()
            }
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Stream::Tcp(socket) => socket.read(bytes),
            Stream::Unix(socket) => socket.read(bytes),
            Stream::Tls(tls) => tls.read(bytes),
        }
    }
}

impl Client {
    /// Connects, with [`PATIENCE`] as the timeout of every read and write.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Client {
        Client::try_connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    /// Connects. Returns an error if it fails.
    pub fn try_connect(address: SocketAddr) -> std::io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream: Stream::Tcp(stream), buffer: Vec::new(), taken: 0 })
    }

    /// Connects to a Unix socket, with [`PATIENCE`] as the timeout of every read and write.
    #[track_caller]
    pub fn connect_unix(path: &Path) -> Client {
        let stream = UnixStream::connect(path).unwrap_or_else(|error| panic!("connect to {}: {error}", path.display()));
        let stream = Stream::Unix(stream);
        stream.set_limits(PATIENCE, PATIENCE).expect("a limit above zero");
        Client { stream, buffer: Vec::new(), taken: 0 }
    }

    /// Uses an established TLS connection.
    pub fn over(stream: StreamOwned<ClientConnection, TcpStream>) -> Client {
        Client { stream: Stream::Tls(Box::new(stream)), buffer: Vec::new(), taken: 0 }
    }

    /// The same connection, switched to this protocol version.
    #[track_caller]
    pub fn speaking(mut self, version: u8) -> Client {
        let reply = self.cmd(&format!("HELLO {version}"));
        assert!(!reply.starts_with(b"-"), "HELLO {version}: {}", show(&reply));
        self
    }

    /// Changes the timeout of every read and write.
    pub fn set_patience(&mut self, limit: Duration) {
        self.stream.set_limits(limit, limit).expect("a limit above zero");
    }

    /// Sends the bytes unchanged.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap_or_else(|error| panic!("send: {error}"));
    }

    /// Sends the bytes. Returns an error if it fails.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends one command and reads its reply.
    #[track_caller]
    pub fn call(&mut self, arguments: &[&[u8]]) -> Vec<u8> {
        self.send(&command(arguments));
        self.reply()
    }

    /// [`Client::call`] for a command without blanks or binary data in its arguments: `"SET k v"`.
    #[track_caller]
    pub fn cmd(&mut self, line: &str) -> Vec<u8> {
        self.send(&command(&words(line)));
        self.reply()
    }

    /// [`Client::cmd`] with values in place of `$1`, `$2`, …: `"SET k $1 EX 100"`.
    #[track_caller]
    pub fn fill(&mut self, line: &str, values: &[&[u8]]) -> Vec<u8> {
        self.send(&filled(line, values));
        self.reply()
    }

    /// The next reply, complete and raw.
    #[track_caller]
    pub fn reply(&mut self) -> Vec<u8> {
        match self.try_reply() {
            Ok(Some(reply)) => reply,
            Ok(None) => panic!("connection closed where a reply was due; left over: {}", show(self.rest())),
            Err(error) => panic!("no reply: {error}; so far: {}", show(self.rest())),
        }
    }

    /// The next reply. `None` if the connection ended before it was complete.
    pub fn try_reply(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(length) = reply_length(self.rest()) {
                let reply = self.rest()[..length].to_vec();
                self.taken += length;
                if self.taken == self.buffer.len() {
                    self.buffer.clear();
                    self.taken = 0;
                }
                return Ok(Some(reply));
            }
            if self.receive()? == 0 {
                return Ok(None);
            }
        }
    }

    /// The next reply, or `None` if the connection has ended instead. Panics if neither happens.
    #[track_caller]
    pub fn reply_or_end(&mut self) -> Option<Vec<u8>> {
        match self.try_reply() {
            Ok(reply) => reply,
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => None,
            Err(error) => panic!("neither a reply nor the end: {error}"),
        }
    }

    /// The next `count` replies.
    #[track_caller]
    pub fn replies(&mut self, count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|_| self.reply()).collect()
    }

    /// Sends `bytes`, which cause `count` replies, and reads the replies meanwhile: neither side can block the other, however much
    /// data there is.
    #[track_caller]
    pub fn pipeline(&mut self, bytes: &[u8], count: usize) -> Vec<Vec<u8>> {
        let mut writer = self.stream.tcp().try_clone().expect("the socket is open");
        std::thread::scope(|scope| {
            let sent = scope.spawn(move || writer.write_all(bytes));
            let replies = self.replies(count);
            sent.join().expect("the writer does not panic").expect("the pipeline is sent");
            replies
        })
    }

    /// Everything that arrives until the other side closes. A reset counts as a close.
    #[track_caller]
    pub fn until_closed(&mut self) -> Vec<u8> {
        loop {
            match self.receive() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => break,
                Err(error) => panic!("not closed: {error}; so far: {}", show(self.rest())),
            }
        }
        let rest = self.rest().to_vec();
        self.buffer.clear();
        self.taken = 0;
        rest
    }

    /// Panics if a complete reply has arrived or arrives within `wait`, or if the connection is closed.
    #[track_caller]
    pub fn assert_silent(&mut self, wait: Duration) {
        self.stream.set_limits(wait, PATIENCE).expect("a limit above zero");
        match self.try_reply() {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("silence expected, got {error}"),
            Ok(None) => panic!("silence expected, got the end"),
            Ok(Some(reply)) => panic!("silence expected, got {}", show(&reply)),
        }
        self.stream.set_limits(PATIENCE, PATIENCE).expect("a limit above zero");
    }

    /// Ends the output. Replies can still be read. With TLS, only a close_notify is sent.
    pub fn half_close(&mut self) {
        match &mut self.stream {
            Stream::Tcp(socket) => socket.shutdown(Shutdown::Write).expect("the socket is open"),
            Stream::Unix(socket) => socket.shutdown(Shutdown::Write).expect("the socket is open"),
            Stream::Tls(tls) => {
                tls.conn.send_close_notify();
                tls.flush().expect("the socket is open");
            }
        }
    }

    /// The socket itself, for everything that the methods above do not cover.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.stream.tcp()
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    fn receive(&mut self) -> std::io::Result<usize> {
        let start = self.buffer.len();
        // Large enough that a reply of 100 MB does not take thousands of reads.
        self.buffer.resize(start + 256 * 1024, 0);
        let outcome = self.stream.read(&mut self.buffer[start..]);
        self.buffer.truncate(start + outcome.as_ref().map_or(0, |read| *read));
        outcome
    }
}

/// A command in RESP: an array of bulk strings.
pub fn command(arguments: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        out.extend_from_slice(&bulk(argument));
    }
    out
}

/// A bulk string in RESP, as in GET's reply.
pub fn bulk(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 32);
    out.extend_from_slice(format!("${}\r\n", value.len()).as_bytes());
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
    out
}

/// The commands of all lines, concatenated.
pub fn pipeline_of<L: AsRef<str>>(lines: &[L]) -> Vec<u8> {
    lines.iter().flat_map(|line| command(&words(line.as_ref()))).collect()
}

/// Bytes in readable form, truncated after 300.
pub fn show(bytes: &[u8]) -> String {
    let head = bytes[..bytes.len().min(300)].escape_ascii();
    match bytes.len() {
        0..=300 => format!("\"{head}\""),
        length => format!("\"{head}\"… ({length} bytes)"),
    }
}

/// A command in which `$1`, `$2`, … stand for arbitrary bytes.
pub fn filled(line: &str, values: &[&[u8]]) -> Vec<u8> {
    let value = |word: &str| word.strip_prefix('$').and_then(|number| values.get(number.parse::<usize>().ok()? - 1));
    let arguments: Vec<&[u8]> =
        line.split_ascii_whitespace().map(|word| value(word).copied().unwrap_or(word.as_bytes())).collect();
    command(&arguments)
}

fn words(line: &str) -> Vec<&[u8]> {
    line.split_ascii_whitespace().map(str::as_bytes).collect()
}

/// Size of the first reply in `bytes`. `None` if it is incomplete.
fn reply_length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let head = line + 2;
    let count = || -> i64 {
        let text = std::str::from_utf8(&bytes[1..line]).expect("a length is text");
        text.parse().unwrap_or_else(|_| panic!("a length is a number: {}", show(bytes)))
    };
    match bytes[0] {
        b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => Some(head),
        b'$' | b'=' | b'!' => match count() {
            ..0 => Some(head),
            length => {
                let whole = head + usize::try_from(length).expect("not negative") + 2;
                (bytes.len() >= whole).then_some(whole)
            }
        },
        b'*' | b'~' | b'>' => elements(bytes, head, count()),
        b'%' => elements(bytes, head, count() * 2),
        // An attribute belongs to the reply that follows it.
        b'|' => elements(bytes, head, count() * 2 + 1),
        _ => panic!("not a reply: {}", show(bytes)),
    }
}

fn elements(bytes: &[u8], head: usize, count: i64) -> Option<usize> {
    let mut at = head;
    for _ in 0..count.max(0) {
        at += reply_length(&bytes[at..])?;
    }
    Some(at)
}
