//! The least of HTTP that a test needs.

#![allow(dead_code, reason = "every test binary compiles its own copy and uses a part of it")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// An answer of the monitor.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The status line and the headers.
    #[allow(dead_code, reason = "not every test reads it")]
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Gets a path.
#[track_caller]
pub fn get(monitor: SocketAddr, path: &str) -> Answer {
    get_with(monitor, path, "")
}

/// Gets a path with more headers, each with its end of line.
#[track_caller]
pub fn get_with(monitor: SocketAddr, path: &str, headers: &str) -> Answer {
    raw(monitor, &format!("GET {path} HTTP/1.1\r\nHost: {monitor}\r\nConnection: close\r\n{headers}\r\n"))
}

/// Asks with another method, more headers, each with its end of line, and a body.
#[track_caller]
#[allow(dead_code, reason = "not every test changes something")]
pub fn send(monitor: SocketAddr, request: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    let head = format!("Host: {monitor}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n");
    raw(monitor, &format!("{request} HTTP/1.1\r\n{head}\r\n{body}"))
}

/// Sends these bytes and takes what comes until the connection ends.
#[track_caller]
pub fn raw(monitor: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(monitor).expect("the monitor accepts");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time");
    stream.write_all(request.as_bytes()).expect("the monitor reads");
    let mut text = Vec::new();
    stream.read_to_end(&mut text).expect("the monitor answers");
    let text = String::from_utf8(text).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text}"));
    let status =
        head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status: {head}"));
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
