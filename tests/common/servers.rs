//! Real `redis-server` and `nats-server` processes on free loopback ports. `REDIS_SERVER` names another program to run instead of
//! `redis-server`: an older or newer version, or Valkey.
//!
//! Each has a directory of its own. It counts as started when it answers with its own identity, so that another process on the same
//! port is never mistaken for it. It is killed by pid on drop, and can be killed and restarted on the same port.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use super::{Client, PATIENCE, field, pipeline_of, run, skipped};

/// Ports are below 32,768, where no operating system allocates local ports of outgoing connections: a server that is down for a
/// moment finds its port free again.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// A loopback address on which no process listens now.
pub fn free_address() -> SocketAddr {
    const LOWEST: u16 = 11_000;
    const COUNT: u16 = 21_000;
    let start = u16::try_from(std::process::id() * 97 % u32::from(COUNT)).expect("below COUNT");
    loop {
        let step = NEXT_PORT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = LOWEST + (start + step) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// A `redis-server` for one test.
pub struct Redis {
    server: Server,
}

/// Commands that set an expiry for a field of a hash.
const END_FIELDS: [&str; 6] = ["HEXPIRE", "HEXPIREAT", "HPEXPIRE", "HPEXPIREAT", "HGETEX", "HSETEX"];

impl Redis {
    /// Starts one without persistence.
    pub fn start() -> Redis {
        Redis::start_with(&[])
    }

    /// Starts one with further arguments of `redis-server`.
    pub fn start_with(arguments: &[&str]) -> Redis {
        Redis { server: Server::start(Kind::Redis, arguments) }
    }

    /// Starts one without the commands that set an expiry for a field of a hash (Redis 7.4, Valkey 9 and later): with these
    /// commands, reads of hashes are not kept.
    pub fn start_without_ends_of_fields() -> Redis {
        let plain = Redis::start();
        let end_fields = END_FIELDS.iter().filter(|name| plain.has(name));
        let without: Vec<&str> = end_fields.flat_map(|name| ["--rename-command", *name, ""]).collect();
        if without.is_empty() { plain } else { Redis::start_with(&without) }
    }

    /// Whether redis-server was built with TLS. Only a server named in `REDIS_SERVER` may lack TLS, which is reported on standard error.
    #[track_caller]
    pub fn has_tls() -> bool {
        let program = Kind::Redis.program();
        // Without a certificate it exits at once, and says why.
        let mut start = Command::new(&program);
        start.args(["--port", "0", "--tls-port", &free_address().port().to_string()]).stdin(Stdio::null());
        let output = run(&mut start, PATIENCE);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let has_tls = misses_a_certificate(&said);
        if !has_tls {
            let last = said.trim_end().lines().next_back().unwrap_or_default();
            let why = format!("{} was built without TLS: {last}", program.display());
            assert!(std::env::var_os("REDIS_SERVER").is_some(), "{why}");
            skipped(&why);
        }
        has_tls
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.server.address
    }

    /// `redis://host:port`
    pub fn url(&self) -> String {
        format!("redis://{}", self.server.address)
    }

    /// A direct client.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.server.address)
    }

    /// A value of `INFO`.
    #[track_caller]
    pub fn info(&self, name: &str) -> String {
        let info = self.client().cmd("INFO everything");
        field(&info, name).unwrap_or_else(|| panic!("INFO has no {name}"))
    }

    /// Whether it has this command. Older servers lack some, newer ones have more.
    #[track_caller]
    pub fn has(&self, command: &str) -> bool {
        self.client().cmd(&format!("COMMAND INFO {command}")) != b"*1\r\n$-1\r\n"
    }

    /// Whether a field of a hash can expire.
    #[track_caller]
    pub fn ends_fields(&self) -> bool {
        END_FIELDS.iter().any(|name| self.has(name))
    }

    /// Whether it has this command. If not, says so on standard error.
    #[track_caller]
    pub fn knows(&self, command: &str) -> bool {
        let known = self.has(command);
        if !known {
            eprintln!("skipped: this server has no {}", command.to_ascii_uppercase());
        }
        known
    }

    /// The major version. Valkey 8 and 9 report 7 in Redis's field, and count as 7 here.
    #[track_caller]
    pub fn major(&self) -> u32 {
        let version = self.info("redis_version");
        version.split('.').next().and_then(|major| major.parse().ok()).expect("a version begins with a number")
    }

    /// Whether it sends no reply to a failed login while an older reply is in its buffers: Redis from 7.2 and Valkey before 9 do
    /// so.
    #[track_caller]
    pub fn loses_errors_of_auth(&self) -> bool {
        let mut client = self.client();
        client.send(&pipeline_of(&["PING", "AUTH nobody wrong", "ECHO last"]));
        client.reply();
        !client.reply().starts_with(b"-WRONGPASS")
    }

    /// Number of its connections, without the one that asks.
    pub fn connections(&self) -> usize {
        self.info("connected_clients").parse::<usize>().expect("a count") - 1
    }

    /// Kills it at once (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again on the same port, after [`Redis::kill`].
    pub fn restart(&mut self) {
        self.server.restart();
    }

    /// [`Redis::restart`] with other arguments.
    pub fn restart_with(&mut self, arguments: &[&str]) {
        self.server.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self.server.restart();
    }

    /// Sends a signal by name: `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        self.server.signal(name);
    }
}

/// A `nats-server` for one test.
pub struct Nats {
    server: Server,
}

impl Nats {
    /// Starts one with a port and no other option.
    pub fn start() -> Nats {
        Nats { server: Server::start(Kind::Nats, &[]) }
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.server.address
    }

    /// `nats://host:port`
    pub fn url(&self) -> String {
        format!("nats://{}", self.server.address)
    }

    /// Kills it at once (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again on the same port, after [`Nats::kill`].
    pub fn restart(&mut self) {
        self.server.restart();
    }

    /// Sends a signal by name: `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        self.server.signal(name);
    }
}

/// Whether this is what a `redis-server` says that is to listen for TLS and has only no certificate.
pub fn misses_a_certificate(said: &str) -> bool {
    said.contains("tls-cert-file")
}

/// Sends a signal by name to a process that this test started.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status();
    assert!(sent.expect("sh is there").success(), "kill -{name} {pid}");
}

#[derive(Clone, Copy)]
enum Kind {
    Redis,
    Nats,
}

impl Kind {
    fn program(self) -> PathBuf {
        match self {
            Kind::Redis => std::env::var_os("REDIS_SERVER").map_or_else(|| "redis-server".into(), PathBuf::from),
            Kind::Nats => "nats-server".into(),
        }
    }
}

struct Server {
    kind: Kind,
    address: SocketAddr,
    arguments: Vec<String>,
    directory: tempfile::TempDir,
    /// `None` while it is killed.
    child: Option<Child>,
}

impl Server {
    fn start(kind: Kind, arguments: &[&str]) -> Server {
        let mut server = Server {
            kind,
            address: free_address(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            directory: tempfile::tempdir().expect("a temporary directory"),
            child: None,
        };
        // Another process may take the port between the check and the start: then try the next one.
        for _ in 0..20 {
            if server.try_start() {
                return server;
            }
            server.address = free_address();
        }
        panic!("{} does not start: is it installed? see `make test`", server.program().display());
    }

    fn restart(&mut self) {
        assert!(self.child.is_none(), "restart is for a server that was killed");
        let end = Instant::now() + PATIENCE;
        while !self.try_start() {
            assert!(Instant::now() < end, "{} does not come back on {}", self.program().display(), self.address);
        }
    }

    fn program(&self) -> PathBuf {
        self.kind.program()
    }

    fn name(&self) -> String {
        format!("test-{}-{}", std::process::id(), self.address.port())
    }

    fn try_start(&mut self) -> bool {
        let mut start = Command::new(self.program());
        let port = self.address.port().to_string();
        match self.kind {
            Kind::Redis => start
                .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"])
                .arg("--dir")
                .arg(self.directory.path()),
            Kind::Nats => start.args(["-a", "127.0.0.1", "-p", &port, "-n", &self.name()]),
        };
        let child =
            start.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child =
            child.unwrap_or_else(|error| panic!("{}: {error}; `make test` installs it", self.program().display()));
        let pid = child.id();
        self.child = Some(child);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if self.answers(pid) {
                return true;
            }
            let ended = self.child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|status| status.is_some()));
            if ended {
                break;
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        self.kill();
        false
    }

    /// Whether the process with this pid, and no other, answers at the address.
    fn answers(&self, pid: u32) -> bool {
        match self.kind {
            Kind::Redis => {
                let Ok(mut client) = Client::try_connect(self.address) else { return false };
                if client.try_send(b"INFO server\r\n").is_err() {
                    return false;
                }
                let Ok(Some(reply)) = client.try_reply() else { return false };
                field(&reply, "process_id") == Some(pid.to_string())
            }
            Kind::Nats => {
                let Ok(stream) = TcpStream::connect(self.address) else { return false };
                let mut line = String::new();
                let read = BufReader::new(stream).read_line(&mut line);
                read.is_ok() && line.contains(&format!("\"{}\"", self.name()))
            }
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child of ours can be killed");
            child.wait().expect("a child of ours can be waited for");
        }
    }

    fn signal(&self, name: &str) {
        signal(self.child.as_ref().expect("it runs").id(), name);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            // A failure here cannot be handled, and a panic in a drop would hide the first one.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
