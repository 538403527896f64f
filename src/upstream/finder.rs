//! Looks the upstream's name up, asks the server at each of its addresses for its role, and chooses one. For the control plane only;
//! never on the way of a request.

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::config::{Live, Timeouts, UpstreamUrl};
use crate::resp::{Bulk, ReplyScanner, bulk_of, elements};

use super::endpoint::Server;
use super::login::Login;
use super::own;

/// Which server connections are to lead to.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) server: Server,
    /// None: the server did not say.
    pub(super) is_primary: Option<bool>,
}

/// Looks for the server.
pub(super) struct Finder {
    upstream: UpstreamUrl,
    login: Option<Login>,
    /// `connect` is how long a look-up of the name may take, and each server's answer.
    timeouts: Live<Timeouts>,
    /// A look-up that takes too long goes on for the next call. There is never more than one, as each holds a thread.
    lookup: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

impl Finder {
    pub(super) fn new(upstream: UpstreamUrl, timeouts: Live<Timeouts>) -> Self {
        Finder { login: Login::of(&upstream), upstream, timeouts, lookup: None }
    }

    /// The server that connections should lead to. `current`: the one that they lead to now.
    ///
    /// # Errors
    /// No server can be reached; why.
    ///
    /// # Cancel safety
    /// The look-up goes on, for the next call.
    pub(super) async fn find(&mut self, current: Option<&Server>) -> io::Result<Choice> {
        let named = self.look_up().await;
        // Without an answer from the resolver there is still the server that is known.
        let mut addresses: Vec<(SocketAddr, bool)> = named.iter().flatten().map(|address| (*address, true)).collect();
        if let Some(current) = current
            && !addresses.iter().any(|(address, _)| *address == current.address)
        {
            addresses.push((current.address, false));
        }
        let asked = addresses.iter().map(|(address, named)| async {
            Candidate { address: *address, named: *named, answer: self.ask(*address).await }
        });
        let mut candidates = join_all(asked).await;
        match choose(current, &candidates) {
            Some(at) => {
                let Candidate { address, answer, .. } = candidates.swap_remove(at);
                let Answer { run_id, is_primary } = answer?;
                Ok(Choice { server: Server { address, run_id }, is_primary })
            }
            None => {
                named?;
                let errors = candidates.into_iter().filter_map(|candidate| candidate.answer.err());
                Err(errors.last().unwrap_or_else(|| io::Error::other("its name has no address")))
            }
        }
    }

    async fn look_up(&mut self) -> io::Result<Vec<SocketAddr>> {
        let lookup = self.lookup.get_or_insert_with(|| {
            let (host, port) = (self.upstream.host.clone(), self.upstream.port);
            tokio::spawn(async move { tokio::net::lookup_host((host, port)).await.map(Iterator::collect) })
        });
        let Ok(done) = tokio::time::timeout(self.timeouts.get().connect, lookup).await else {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer from the resolver of host names"));
        };
        self.lookup = None;
        done.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Asks one server. A server that takes the connection and does not tell its role may be busy, or we may not ask.
    async fn ask(&self, address: SocketAddr) -> io::Result<Answer> {
        let limit = self.timeouts.get().connect;
        let connecting = tokio::time::timeout(limit, TcpStream::connect(address));
        let stream = connecting
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"))))?;
        tokio::time::timeout(limit, interview(stream, self.login.as_ref()))
            .await
            .unwrap_or_else(|_| Ok(Answer::default()))
    }
}

/// What a server answers.
#[derive(Debug, Default)]
struct Answer {
    run_id: Option<Box<str>>,
    is_primary: Option<bool>,
}

struct Candidate {
    address: SocketAddr,
    /// Whether the name leads to it now.
    named: bool,
    answer: io::Result<Answer>,
}

/// A primary that the name leads to, the current server first; else the current server while it can be reached; else a server that
/// does not tell its role; else a replica.
fn choose(current: Option<&Server>, candidates: &[Candidate]) -> Option<usize> {
    let is_current = |candidate: &Candidate, answer: &Answer| {
        current.is_some_and(|current| {
            current.address == candidate.address && (answer.run_id.is_none() || answer.run_id == current.run_id)
        })
    };
    let rank = |candidate: &Candidate| {
        let answer = candidate.answer.as_ref().ok()?;
        let is_known = current.is_some_and(|current| current.address == candidate.address);
        Some(match answer.is_primary {
            Some(true) if candidate.named && is_current(candidate, answer) => 0,
            Some(true) if candidate.named => 1,
            _ if is_known => 2,
            None => 3,
            Some(_) => 4,
        })
    };
    let ranked = candidates.iter().enumerate().filter_map(|(at, candidate)| Some((rank(candidate)?, at)));
    ranked.min().map(|(_, at)| at)
}

async fn interview(mut stream: TcpStream, login: Option<&Login>) -> io::Result<Answer> {
    let mut request = Vec::new();
    if let Some(login) = login {
        own::request(&mut request, login.auth());
    }
    own::request(&mut request, [&b"INFO"[..], b"server"].into_iter());
    own::request(&mut request, [&b"ROLE"[..]].into_iter());
    stream.write_all(&request).await?;
    let mut inbox = BytesMut::new();
    if login.is_some() {
        read_reply(&mut stream, &mut inbox).await?;
    }
    let run_id = run_id(&read_reply(&mut stream, &mut inbox).await?);
    // Without an answer to ROLE the run id is still of use.
    let role = read_reply(&mut stream, &mut inbox).await.unwrap_or_default();
    let role = elements(&role).and_then(|mut parts| parts.next()).map(bulk_of);
    let is_primary = match role {
        Some(Bulk::Value(role)) => Some(role == b"master"),
        _ => None,
    };
    Ok(Answer { run_id, is_primary })
}

/// Reads one reply. For handshakes and the like, where nothing else is under way.
pub(super) async fn read_reply(stream: &mut TcpStream, inbox: &mut BytesMut) -> io::Result<BytesMut> {
    let mut scanner = ReplyScanner::default();
    loop {
        match scanner.scan(inbox) {
            Ok(Some(end)) => return Ok(inbox.split_to(end)),
            Ok(None) if stream.read_buf(inbox).await? == 0 => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
            }
            Ok(None) => {}
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

/// The run id in the reply to `INFO server`; none: it is not there.
pub(super) fn run_id(reply: &[u8]) -> Option<Box<str>> {
    let Bulk::Value(text) = bulk_of(reply) else { return None };
    run_id_in(std::str::from_utf8(text).ok()?)
}

/// The run id in the text of `INFO server`.
pub(super) fn run_id_in(info: &str) -> Option<Box<str>> {
    let id = info.lines().find_map(|line| line.strip_prefix("run_id:"))?.trim();
    (!id.is_empty()).then(|| id.into())
}

/// The role in the text of `INFO replication`.
pub(super) fn is_primary_in(info: &str) -> Option<bool> {
    let role = info.lines().find_map(|line| line.strip_prefix("role:"))?.trim();
    Some(role == "master")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{Answer, Candidate, Server, choose, run_id};

    fn server(port: u16, run_id: &str) -> Server {
        Server { address: ([127, 0, 0, 1], port).into(), run_id: Some(run_id.into()) }
    }

    /// `port run_id what`; what it is: `master`, `replica`, `silent` or `gone`, and `unnamed` when the name does not mean it.
    fn candidate(text: &str) -> Candidate {
        let words: Vec<&str> = text.split(' ').collect();
        let port: u16 = words[0].parse().expect("a port");
        let is_primary = match words[2] {
            "master" => Some(true),
            "replica" => Some(false),
            _ => None,
        };
        let run_id = is_primary.map(|_| words[1].into());
        let answer = match words[2] {
            "gone" => Err(io::Error::other("gone")),
            _ => Ok(Answer { run_id, is_primary }),
        };
        Candidate { address: ([127, 0, 0, 1], port).into(), named: words.get(3) != Some(&"unnamed"), answer }
    }

    #[test]
    fn a_primary_that_the_name_leads_to_comes_first() {
        let current = server(1, "a");
        let cases: [(&[&str], Option<usize>); 14] = [
            (&["1 a master"], Some(0)),
            // The same address, another server: also after a restart.
            (&["1 b master"], Some(0)),
            (&["2 b master", "1 a master"], Some(1)),
            (&["2 b master", "1 a replica"], Some(0)),
            // The name has moved, and the old server still runs.
            (&["2 b master", "1 a master unnamed"], Some(0)),
            // It has moved to one that is no master yet.
            (&["2 b replica", "1 a master unnamed"], Some(1)),
            (&["2 b replica", "1 a replica unnamed"], Some(1)),
            // Busy is not gone.
            (&["2 b replica", "1 a silent"], Some(1)),
            (&["2 b silent", "1 a silent unnamed"], Some(1)),
            (&["2 b replica", "1 a gone"], Some(0)),
            (&["2 b silent", "3 c replica", "1 a gone"], Some(0)),
            (&["2 b gone", "1 a gone unnamed"], None),
            (&["2 b gone", "1 a replica unnamed"], Some(1)),
            (&["2 b master", "3 c master", "1 a gone"], Some(0)),
        ];
        for (candidates, expected) in cases {
            let all: Vec<Candidate> = candidates.iter().map(|text| candidate(text)).collect();
            assert_eq!(choose(Some(&current), &all), expected, "{candidates:?}");
        }
        // At the start.
        let all = ["1 a gone", "2 b replica", "3 c silent", "4 d master"].map(candidate);
        assert_eq!(choose(None, &all), Some(3));
        assert_eq!(choose(None, &all[..3]), Some(2));
        assert_eq!(choose(None, &all[..2]), Some(1));
        assert_eq!(choose(None, &all[..1]), None);
    }

    #[test]
    fn the_run_id_is_found_or_not() {
        let info = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let reply = info("# Server\r\nredis_version:7.0.15\r\nrun_id:ab12\r\ntcp_port:1\r\n");
        assert_eq!(run_id(reply.as_bytes()).as_deref(), Some("ab12"));
        for none in [info("# Server\r\n"), info("run_id:\r\n"), "-NOPERM no\r\n".to_owned(), "$-1\r\n".to_owned()] {
            assert_eq!(run_id(none.as_bytes()), None, "{none:?}");
        }
    }
}
