//! A NATS client that publishes and subscribes, over the text protocol.
//!
//! It plays a service that is not a Shortstop. One client either publishes or listens: while it waits for the reply to a publish it
//! discards messages. Source: the NATS documentation, "NATS Protocol".

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::PATIENCE;

/// One connection, subscribed to the subjects passed to [`NatsClient::subscribe`].
pub struct NatsClient {
    reader: BufReader<TcpStream>,
    subscriptions: u32,
}

impl NatsClient {
    /// Connects and waits until the server has answered.
    pub fn connect(address: SocketAddr) -> NatsClient {
        let stream = TcpStream::connect(address).expect("nats-server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit above zero");
        let mut client = NatsClient { reader: BufReader::new(stream), subscriptions: 0 };
        assert!(client.line().starts_with("INFO "), "the server greets first");
        client.write(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n");
        client.round_trip();
        client
    }

    /// Subscribes and waits until the server knows it.
    pub fn subscribe(&mut self, subject: &str) {
        self.subscriptions += 1;
        self.write(format!("SUB {subject} {}\r\n", self.subscriptions).as_bytes());
        self.round_trip();
    }

    /// Publishes and waits until the server has it.
    pub fn publish(&mut self, subject: &str, payload: &[u8]) {
        self.write(format!("PUB {subject} {}\r\n", payload.len()).as_bytes());
        self.write(payload);
        self.write(b"\r\n");
        self.round_trip();
    }

    /// The payload of the next message. Panics if none arrives in time.
    #[track_caller]
    pub fn next(&mut self) -> Vec<u8> {
        self.next_within(PATIENCE).expect("a message on NATS")
    }

    /// The payload of the next message, or `None` if none arrives within `wait`.
    pub fn next_within(&mut self, wait: Duration) -> Option<Vec<u8>> {
        self.reader.get_ref().set_read_timeout(Some(wait)).expect("a limit above zero");
        let message = loop {
            let mut line = String::new();
            match self.reader.read_line(&mut line) {
                Ok(0) | Err(_) => break None,
                Ok(_) if line.starts_with("PING") => self.write(b"PONG\r\n"),
                Ok(_) if line.starts_with("MSG ") => {
                    let length = line.trim_end().rsplit(' ').next().and_then(|word| word.parse::<usize>().ok());
                    let mut payload = vec![0; length.expect("MSG ends in a length") + 2];
                    self.reader.read_exact(&mut payload).expect("the payload follows");
                    payload.truncate(payload.len() - 2);
                    break Some(payload);
                }
                Ok(_) => {}
            }
        };
        self.reader.get_ref().set_read_timeout(Some(PATIENCE)).expect("a limit above zero");
        message
    }

    fn round_trip(&mut self) {
        self.write(b"PING\r\n");
        loop {
            let line = self.line();
            match line.trim_end() {
                "PONG" => return,
                "PING" => self.write(b"PONG\r\n"),
                other => assert!(!other.starts_with("-ERR"), "nats-server: {other}"),
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("nats-server answers");
        line
    }

    fn write(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("nats-server reads");
    }
}
