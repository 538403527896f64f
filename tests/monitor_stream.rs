//! `/api/stream`: a sample a second to each reader, and none more than may be.

mod common;
#[path = "monitor/http.rs"]
mod http;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use common::{Fault, PATIENCE, Process, Redis, Shortstop, command, free_address};
use http::{get, get_with};
use serde_json::Value;

const MONITOR: &str = "monitor: 127.0.0.1:0\n";

/// A reader of `/api/stream`.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn open(monitor: SocketAddr) -> Stream {
        let mut stream = TcpStream::connect(monitor).expect("the monitor accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        write!(stream, "GET /api/stream HTTP/1.1\r\nHost: {monitor}\r\nConnection: close\r\n\r\n")
            .expect("the monitor reads");
        Stream(BufReader::new(stream))
    }

    /// The next line; `None`: the stream has ended.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.0.read_line(&mut line).expect("the stream goes on or ends");
        (length > 0).then(|| line.trim_end().to_owned())
    }

    /// The next sample; `None`: the stream has ended.
    fn sample(&mut self) -> Option<Value> {
        loop {
            if let Some(data) = self.line()?.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).expect("JSON"));
            }
        }
    }
}

#[test]
fn the_stream_shows_what_changes() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, MONITOR);
    let mut stream = Stream::open(proxy.monitor());
    let first = stream.sample().expect("a sample");
    proxy.client().cmd("GET k");
    let commands = |sample: &Value| sample["info"]["ProxyClients"]["proxy_commands"].as_u64().expect("a number");
    let later = std::iter::from_fn(|| stream.sample()).find(|later| commands(later) > commands(&first));
    let later = later.expect("the stream goes on");
    assert!(later["at_ms"].as_u64() > first["at_ms"].as_u64());
}

#[test]
fn no_more_readers_of_the_stream_than_there_are_places() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, MONITOR);
    let mut readers: Vec<Stream> = (0..16).map(|_| Stream::open(proxy.monitor())).collect();
    readers.iter_mut().for_each(|reader| assert!(reader.sample().is_some()));
    let refused = get(proxy.monitor(), "/api/stream");
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.json()["error"].is_string());
    assert_eq!(get(proxy.monitor(), "/api/info").status, 200, "the other paths have their own places");
    readers.pop();
    common::wait_until("the place of a reader that has left is free", || {
        Stream::open(proxy.monitor()).line().is_some_and(|status| status.contains("200"))
    });
}

/// A reader of the stream is told at once, and not only when the last client has its reply.
#[test]
fn the_stream_ends_when_shortstop_drains() {
    let redis = Redis::start();
    let fault = Fault::before(redis.addr());
    let monitor = free_address();
    let mut proxy = Process::start(fault.addr(), &format!("monitor: {monitor}\n"));
    let mut stream = Stream::open(monitor);
    assert!(stream.sample().is_some());
    let mut client = proxy.client();
    fault.hold_replies_to(b"waited-for");
    client.send(&command(&[b"GET", b"waited-for"]));
    fault.wait_caught();
    proxy.signal("TERM");
    while stream.sample().is_some() {}
    assert!(proxy.is_running(), "it waits for the reply: {}", proxy.log());
    fault.release();
    assert_eq!(client.reply(), b"$-1\r\n");
    assert!(proxy.wait_exit(PATIENCE).success(), "{}", proxy.log());
}

#[test]
fn the_stream_needs_the_token_where_reading_does_and_the_page_does_not() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &format!("{MONITOR}monitor_token: s3cret\nmonitor_auth: all\n"));
    assert_eq!(get(proxy.monitor(), "/api/stream").status, 401);
    assert_eq!(get(proxy.monitor(), "/api/fields").status, 401);
    assert_eq!(get_with(proxy.monitor(), "/api/fields", "Authorization: Bearer s3cret\r\n").status, 200);
    assert_eq!(get(proxy.monitor(), "/").status, 200, "it asks for the token");
}
