//! Resolves the upstream's name, asks the server at each address for its role, and chooses one. For the control plane only; never
//! on the path of a client's request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::Target;
use crate::net::Address;
use crate::net::tls::NO_TLS;
use crate::resp::{Bulk, bulk_of, elements};

use super::dial::{Dialed, Dialer};
use super::endpoint::Server;
use super::status::Eviction;

/// The server that connections should lead to.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) server: Server,
    /// `None`: the server did not tell.
    pub(super) is_primary: Option<bool>,
}

/// Looks for the server.
pub(super) struct Finder {
    dialer: Arc<Dialer>,
    /// A slow resolution continues for the next call. There is never more than one, because each occupies a thread.
    lookup: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

impl Finder {
    pub(super) fn new(dialer: Arc<Dialer>) -> Self {
        Finder { dialer, lookup: None }
    }

    /// The server that connections should lead to. `current` is the server that they lead to now.
    ///
    /// # Errors
    /// No server can be reached. The error says why.
    ///
    /// # Cancel safety
    /// The resolution continues, for the next call.
    pub(super) async fn find(&mut self, current: Option<&Server>) -> io::Result<Choice> {
        let named = self.look_up().await;
        // If the resolver does not reply, the current server is still a candidate.
        let mut addresses: Vec<(Address, bool)> =
            named.iter().flatten().map(|address| (address.clone(), true)).collect();
        if let Some(current) = current
            && !addresses.iter().any(|(address, _)| *address == current.address)
        {
            addresses.push((current.address.clone(), false));
        }
        let dialer = &self.dialer;
        let asked = addresses.into_iter().map(|(address, named)| async move {
            let answer = ask(dialer, &address).await;
            Candidate { address, named, answer }
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

    async fn look_up(&mut self) -> io::Result<Vec<Address>> {
        let (host, port) = match &self.dialer.upstream().target {
            Target::Tcp { host, port } | Target::Tls { host, port } => (host, *port),
            Target::Unix(path) => return Ok(vec![path.clone().into()]),
        };
        let lookup = self.lookup.get_or_insert_with(|| {
            let host = host.clone();
            tokio::spawn(async move { tokio::net::lookup_host((host, port)).await.map(Iterator::collect) })
        });
        let Ok(done) = timeout(self.dialer.limit(), lookup).await else {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer from the resolver of host names"));
        };
        self.lookup = None;
        let addresses = done.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        Ok(addresses.into_iter().map(Address::from).collect())
    }
}

/// Asks one server. A server that accepts the connection but does not tell its role may be busy, or may refuse to tell.
async fn ask(dialer: &Dialer, address: &Address) -> io::Result<Answer> {
    let dialed = dialer.dial(address).await?;
    match timeout(dialer.limit(), interview(dialed, dialer)).await {
        Ok(answer) => answer,
        Err(_) if dialer.is_without_tls(address).await => Err(io::Error::new(io::ErrorKind::InvalidData, NO_TLS)),
        Err(_) => Ok(Answer::default()),
    }
}

/// What a server replied.
#[derive(Debug, Default)]
struct Answer {
    run_id: Option<Box<str>>,
    is_primary: Option<bool>,
}

struct Candidate {
    address: Address,
    /// Whether the name resolves to it now.
    named: bool,
    answer: io::Result<Answer>,
}

/// In this order: a primary to which the name resolves, the current server first; the current server while it can be reached; a
/// server that does not tell its role; a replica.
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

async fn interview(dialed: Dialed<'_>, dialer: &Dialer) -> io::Result<Answer> {
    let mut connection = dialed.greet().await?;
    let login = dialer.login();
    let mut requests = vec![vec![&b"INFO"[..], b"server"], vec![b"ROLE"]];
    let begins = usize::from(login.is_some());
    if let Some(login) = &login {
        requests.insert(0, login.auth().collect());
    }
    let replies = match connection.ask_all(&requests).await {
        Ok(replies) => replies,
        // Even without a reply to ROLE, the run id is useful.
        Err(unanswered) if unanswered.replies.len() > begins => unanswered.replies,
        Err(unanswered) => return Err(unanswered.error),
    };
    let role = replies.get(begins + 1).and_then(|role| elements(role)?.next());
    let is_primary = match role.map(bulk_of) {
        Some(Bulk::Value(role)) => Some(role == b"master"),
        _ => None,
    };
    Ok(Answer { run_id: run_id(&replies[begins]), is_primary })
}

/// The run id in the reply to `INFO server`, if there is one.
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

/// What is evicted, in the text of `INFO memory`.
pub(super) fn eviction_in(info: &str) -> Option<Eviction> {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    Some(Eviction {
        policy: field("maxmemory_policy")?.to_owned(),
        max_memory: field("maxmemory")?.parse().ok()?,
        used_memory: used_memory_in(info)?,
    })
}

/// The used memory in the text of `INFO memory`.
pub(super) fn used_memory_in(info: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix("used_memory:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{Ipv4Addr, SocketAddr};

    use super::{Address, Answer, Candidate, Server, choose, run_id};

    fn address(port: u16) -> Address {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()
    }

    fn server(port: u16, run_id: &str) -> Server {
        Server { address: address(port), run_id: Some(run_id.into()) }
    }

    /// `port run_id what`, where `what` is `master`, `replica`, `silent` or `gone`. `unnamed` means that the name does not resolve
    /// to it.
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
        Candidate { address: address(port), named: words.get(3) != Some(&"unnamed"), answer }
    }

    #[test]
    fn a_primary_that_the_name_leads_to_comes_first() {
        let current = server(1, "a");
        let cases: [(&[&str], Option<usize>); 14] = [
            (&["1 a master"], Some(0)),
            // The same address but another server, for example after a restart.
            (&["1 b master"], Some(0)),
            (&["2 b master", "1 a master"], Some(1)),
            (&["2 b master", "1 a replica"], Some(0)),
            // The name resolves to another server, and the old one still runs.
            (&["2 b master", "1 a master unnamed"], Some(0)),
            // The name resolves to a server that is no primary yet.
            (&["2 b replica", "1 a master unnamed"], Some(1)),
            (&["2 b replica", "1 a replica unnamed"], Some(1)),
            // A busy server is not gone.
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
