//! One of the two servers: connections, and the steps that are sent over them.
//!
//! Replies are kept as raw bytes. Nothing here judges them. A missing reply is represented by a text that no reply equals.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;

use super::common::{Client, bulk, command, field, show, wait_until};

/// How many replies a call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// So many.
    Replies(usize),
    /// Whatever comes until the connection is closed.
    End,
}

/// Bytes that are sent at once and have their own replies. Without bytes: something arrives without a request.
#[derive(Clone, Debug)]
pub struct Call {
    /// The words, for the tables and the report.
    pub args: Vec<Vec<u8>>,
    /// What goes over the wire.
    pub bytes: Vec<u8>,
    /// What comes back.
    pub due: Due,
}

impl Call {
    /// An ordinary command with one reply.
    pub fn new(args: Vec<Vec<u8>>) -> Call {
        Call::with(args, Due::Replies(1))
    }

    /// A command with another number of replies.
    pub fn with(args: Vec<Vec<u8>>, due: Due) -> Call {
        let words: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        Call { bytes: command(&words), args, due }
    }

    /// Nothing is sent, and something arrives.
    pub fn silence(due: Due) -> Call {
        Call { args: Vec::new(), bytes: Vec::new(), due }
    }

    /// A command of plain words.
    pub fn of(line: &str) -> Call {
        Call::new(line.split_ascii_whitespace().map(|word| word.as_bytes().to_vec()).collect())
    }
}

/// Calls in one write on one connection; all is answered before the next step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Which connection.
    pub connection: usize,
    /// What is sent.
    pub calls: Vec<Call>,
    /// Whether the next step waits until the server reports a blocked client.
    blocks: bool,
}

impl Step {
    /// One step.
    pub fn new(connection: usize, calls: Vec<Call>) -> Step {
        Step { connection, calls, blocks: false }
    }

    /// Whether it does.
    pub fn blocks(&self) -> bool {
        self.blocks
    }

    /// It leaves its connection in a blocking command.
    pub fn until_blocked(self) -> Step {
        Step { blocks: true, ..self }
    }
}

/// The replies of one call.
pub type Replies = Vec<Vec<u8>>;

/// A server, and the connections to it.
pub struct Side {
    address: SocketAddr,
    /// The server itself.
    redis: SocketAddr,
    resp3: bool,
    clients: BTreeMap<usize, Client>,
    nonce: usize,
}

impl Side {
    /// At `address`, which is `redis` itself or what stands before it.
    pub fn new(address: SocketAddr, redis: SocketAddr, resp3: bool) -> Side {
        Side { address, redis, resp3, clients: BTreeMap::new(), nonce: 0 }
    }

    /// The server itself.
    pub fn redis(&self) -> SocketAddr {
        self.redis
    }

    /// All connections are closed.
    pub fn hang_up(&mut self) {
        self.clients.clear();
    }

    /// A connection; opened when it is first asked for.
    pub fn client(&mut self, connection: usize) -> &mut Client {
        let (address, resp3) = (self.address, self.resp3);
        self.clients.entry(connection).or_insert_with(|| {
            let mut client = Client::connect(address);
            if resp3 {
                let hello = client.cmd("HELLO 3");
                assert!(hello.starts_with(b"%"), "HELLO 3: {}", show(&hello));
            }
            client
        })
    }

    /// Sends each step and reads its replies.
    pub fn run(&mut self, steps: &[Step]) -> Vec<Vec<Replies>> {
        steps.iter().map(|step| self.step(step)).collect()
    }

    fn step(&mut self, step: &Step) -> Vec<Replies> {
        let bytes: Vec<u8> = step.calls.iter().flat_map(|call| call.bytes.iter().copied()).collect();
        let client = self.client(step.connection);
        let mut writer = client.stream().try_clone().expect("the socket is open");
        let mut closed = false;
        // A thread of its own for data that may not fit into the buffers on the path.
        let replies = std::thread::scope(|scope| {
            if bytes.len() > 32 << 10 {
                scope.spawn(move || drop(std::io::Write::write_all(&mut writer, &bytes)));
            } else {
                // If it fails, there are no replies either, and that is reported.
                drop(client.try_send(&bytes));
            }
            step.calls.iter().map(|call| replies(client, call.due, &mut closed)).collect()
        });
        if closed {
            self.clients.remove(&step.connection);
        }
        if step.blocks {
            let mut asks = Client::connect(self.redis);
            wait_until("a client is blocked", || {
                field(&asks.cmd("INFO clients"), "blocked_clients").as_deref() == Some("1")
            });
        }
        replies
    }

    /// A PING on every connection: nothing may precede its reply.
    pub fn nothing_is_left(&mut self) -> Result<(), String> {
        self.nonce += 1;
        let nonce = format!("the-end-{}", self.nonce);
        for (connection, client) in &mut self.clients {
            drop(client.try_send(&command(&[b"PING", nonce.as_bytes()])));
            let mut closed = false;
            let reply = replies(client, Due::Replies(1), &mut closed).concat();
            if !reply.ends_with(&bulk(nonce.as_bytes())) {
                return Err(format!("connection {connection}: in the place of a PING's answer {}", show(&reply)));
            }
        }
        Ok(())
    }
}

/// A missing reply is represented by a text that no reply equals.
fn replies(client: &mut Client, due: Due, closed: &mut bool) -> Replies {
    let count = match due {
        _ if *closed => return vec![format!("the connection is closed{MISSING}").into_bytes()],
        Due::Replies(count) => count,
        Due::End => {
            *closed = true;
            return vec![until_closed(client)];
        }
    };
    let mut all = Vec::new();
    for _ in 0..count {
        match client.try_reply() {
            Ok(Some(reply)) => all.push(reply),
            outcome => {
                *closed = true;
                let why = outcome.err().map_or("closed".to_owned(), |error| error.to_string());
                all.push(format!("nothing: {why}{MISSING}").into_bytes());
                break;
            }
        }
    }
    all
}

/// Whether it stands for a reply that did not come.
pub fn is_missing(reply: &[u8]) -> bool {
    reply.ends_with(MISSING.as_bytes())
}

const MISSING: &str = " (this is no reply)";

fn until_closed(client: &mut Client) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        match client.try_reply() {
            Ok(Some(reply)) => all.extend(reply),
            // With what is no complete reply.
            Ok(None) => return [all, client.until_closed()].concat(),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return all,
            Err(error) => return [&all[..], format!("not closed: {error}{MISSING}").as_bytes()].concat(),
        }
    }
}
