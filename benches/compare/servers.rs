//! Starts what is compared, each pinned to the servers' core, and stops it again: every process is killed by its own
//! id when its handle is dropped, whatever the reason, and by the kernel if this process is killed itself. Each rival
//! gets the settings that served it best here.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::machine::{self, Cores, Processes};
use crate::plain::Plain;
use crate::secure::Trust;
use crate::wire::Workload;

/// From the start of a process to its first answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a server is not there.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Not on the path, nor in sbin.
    #[error("{0} is not installed")]
    Missing(&'static str),
    /// The process could not be started, or a file for it not written.
    #[error("{name}: {error}")]
    Io {
        /// Which.
        name: &'static str,
        /// The system's word.
        error: std::io::Error,
    },
    /// It ended, or gave no answer within [`PATIENCE`].
    #[error("{name} did not come up ({why}); it said:\n{said}")]
    NotUp {
        /// Which.
        name: &'static str,
        /// What was seen.
        why: String,
        /// The end of its log.
        said: String,
    },
}

/// A column of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Redis without anything in front.
    Redis,
    /// twemproxy, Debian's `nutcracker`, with the buffers that it has by default.
    Twemproxy,
    /// The same with small buffers.
    TwemproxySmallBuffers,
    /// HAProxy, plain TCP.
    Haproxy,
    /// Shortstop with everything on as by default.
    Shortstop,
    /// The same with `CACHE_ENABLED=false`.
    ShortstopL1Off,
    /// The default with a NATS server, so that every SET is published.
    ShortstopNats,
    /// Redis, with TLS.
    RedisTls,
    /// Shortstop as by default, with TLS for its clients.
    ShortstopTls,
    /// [`crate::floor`] for one workload.
    Floor(Workload),
    /// [`crate::stand_in`] for one workload.
    StandIn(Workload),
}

impl Kind {
    /// What is compared, in the order of the tables.
    pub const ALL: [Self; 11] = [
        Self::Redis,
        Self::Twemproxy,
        Self::TwemproxySmallBuffers,
        Self::Haproxy,
        Self::Shortstop,
        Self::ShortstopL1Off,
        Self::ShortstopNats,
        Self::RedisTls,
        Self::ShortstopTls,
        Self::Floor(Workload::Get),
        Self::Floor(Workload::Set),
    ];

    /// For `--only`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Twemproxy => "twemproxy",
            Self::TwemproxySmallBuffers => "twemproxy-small",
            Self::Haproxy => "haproxy",
            Self::Shortstop => "shortstop-default",
            Self::ShortstopL1Off => "shortstop-l1-off",
            Self::ShortstopNats => "shortstop-nats",
            Self::RedisTls => "tls-redis",
            Self::ShortstopTls => "tls-shortstop",
            Self::Floor(_) => "floor",
            Self::StandIn(_) => "stand-in",
        }
    }

    /// For the tables.
    pub fn label(self) -> &'static str {
        match self {
            Self::Redis => "Redis direct",
            Self::Twemproxy => "twemproxy",
            Self::TwemproxySmallBuffers => "twemproxy, buffers of 4 KiB (-m 4096)",
            Self::Haproxy => "HAProxy (TCP)",
            Self::Shortstop => "Shortstop",
            Self::ShortstopL1Off => "Shortstop, L1 off",
            Self::ShortstopNats => "Shortstop + NATS (watched SETs published)",
            Self::RedisTls => "Redis direct, TLS",
            Self::ShortstopTls => "Shortstop, TLS for clients",
            Self::Floor(_) => "the floor: a proxy that does no thinking",
            Self::StandIn(_) => "a server that does no work",
        }
    }

    /// Whether it is in front of the Redis.
    pub fn is_proxy(self) -> bool {
        !matches!(self, Self::Redis | Self::RedisTls | Self::StandIn(_))
    }

    /// Whether it answers `PROXY INFO`.
    pub fn is_shortstop(self) -> bool {
        matches!(self, Self::Shortstop | Self::ShortstopL1Off | Self::ShortstopNats | Self::ShortstopTls)
    }

    /// Whether its GETs are to come from L1.
    pub fn has_l1(self) -> bool {
        matches!(self, Self::Shortstop | Self::ShortstopNats | Self::ShortstopTls)
    }
}

/// A process that ends with this handle.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it is gone already. No grace: none of them holds anything worth keeping.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running server, together with what only it needs.
pub struct Server {
    /// Which.
    pub kind: Kind,
    /// Where clients go that have no TLS.
    pub addr: SocketAddr,
    /// Where the load goes, if it has TLS.
    pub tls: Option<SocketAddr>,
    process: Process,
    /// The NATS server, where there is one.
    nats: Option<Process>,
}

impl Server {
    /// All that work when this is asked, `redis` being the one behind it.
    pub fn processes(&self, redis: &Server) -> Processes {
        Processes {
            front: self.process.0.id(),
            redis: self.kind.is_proxy().then(|| redis.process.0.id()),
            nats: self.nats.as_ref().map(|process| process.0.id()),
        }
    }

    /// Resident memory in bytes, if the process is there.
    pub fn resident_bytes(&self) -> Option<u64> {
        machine::resident_bytes(self.process.0.id())
    }
}

/// Starts servers. Needs no more than a folder for their files.
pub struct Starter<'a> {
    /// For configuration files and logs; removed by its owner.
    pub folder: &'a Path,
    /// The certificate of those with TLS.
    pub trust: &'a Trust,
    /// Where servers run.
    pub cores: Cores,
}

impl Starter<'_> {
    /// Starts one and waits for its first answer. `redis` is where proxies find theirs; not used for [`Kind::Redis`].
    ///
    /// # Errors
    /// When the program is missing or does not come up; nothing it started is left behind.
    pub fn start(&self, kind: Kind, redis: SocketAddr) -> Result<Server, ServerError> {
        let server = match kind {
            Kind::Redis | Kind::RedisTls => self.redis(kind)?,
            Kind::Twemproxy | Kind::TwemproxySmallBuffers => self.twemproxy(kind, redis)?,
            Kind::Haproxy => self.haproxy(redis)?,
            Kind::Shortstop | Kind::ShortstopL1Off | Kind::ShortstopTls => self.shortstop(kind, redis, None)?,
            Kind::ShortstopNats => {
                let (nats, addr) = self.nats()?;
                self.shortstop(kind, redis, Some((nats, addr)))?
            }
            // They know no PING; the line that tells their address is their first answer.
            Kind::Floor(workload) => {
                return self.this_program(kind, &["--floor", workload.label(), "--upstream", &redis.to_string()]);
            }
            Kind::StandIn(workload) => return self.this_program(kind, &["--stand-in", workload.label()]),
        };
        self.wait_for_answer(server)
    }

    fn redis(&self, kind: Kind) -> Result<Server, ServerError> {
        let name = kind.name();
        let port = free_port(name)?;
        let mut command = self.command(name, program("redis-server")?);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(self.folder);
        let mut tls = None;
        if kind == Kind::RedisTls {
            let port = free_port(name)?;
            tls = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            command.args(["--tls-port", &port.to_string(), "--tls-auth-clients", "no", "--tls-cert-file"]);
            command.arg(&self.trust.certificate).arg("--tls-key-file").arg(&self.trust.key);
            command.arg("--tls-ca-cert-file").arg(&self.trust.certificate);
        }
        Ok(Server { tls, ..self.spawn(kind, command, port)? })
    }

    /// One server, so the cheapest distribution; no ejection; connected before the first request; more than one
    /// connection to it only costs. Of 512 bytes to 64 KiB, buffers of 4 KiB cost it least CPU time per request at
    /// pipeline 16 (a GET 2.2 µs instead of 3.9 with its default of 16 KiB, a SET 2.3 instead of 2.9): after each request
    /// that it finds in a buffer, it copies what follows into another one.
    fn twemproxy(&self, kind: Kind, redis: SocketAddr) -> Result<Server, ServerError> {
        let (port, stats_port) = (free_port("twemproxy")?, free_port("twemproxy")?);
        let config = self.write(
            kind.name(),
            &format!("{}.yml", kind.name()),
            &format!(
                "bench:\n  listen: 127.0.0.1:{port}\n  redis: true\n  hash: fnv1a_64\n  distribution: modula\n  \
                 preconnect: true\n  auto_eject_hosts: false\n  backlog: 1024\n  server_connections: 1\n  servers:\n   - {redis}:1\n"
            ),
        )?;
        let mut command = self.command(kind.name(), program("nutcracker")?);
        if kind == Kind::TwemproxySmallBuffers {
            command.args(["-m", "4096"]);
        }
        command.args(["-v", "0", "-a", "127.0.0.1", "-i", "3600000", "-s", &stats_port.to_string(), "-c"]).arg(config);
        self.spawn(kind, command, port)
    }

    /// One thread, no log, no checks, no splicing. Other sizes of buffers and run queues made no difference.
    fn haproxy(&self, redis: SocketAddr) -> Result<Server, ServerError> {
        let port = free_port("haproxy")?;
        let config = self.write(
            "haproxy",
            "haproxy.cfg",
            &format!(
                "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 10m\n  \
                 timeout server 10m\n  retries 0\nlisten bench\n  bind 127.0.0.1:{port} backlog 1024\n  server redis {redis}\n"
            ),
        )?;
        let mut command = self.command("haproxy", program("haproxy")?);
        command.args(["-db", "-q", "-f"]).arg(config);
        self.spawn(Kind::Haproxy, command, port)
    }

    fn nats(&self) -> Result<(Process, SocketAddr), ServerError> {
        let port = free_port("nats-server")?;
        let mut command = self.command("nats-server", program("nats-server")?);
        command.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
        let process = start("nats-server", command)?;
        Ok((process, SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
    }

    /// Everything as by default but where it listens and what it is in front of, and one worker for the one core.
    fn shortstop(
        &self,
        kind: Kind,
        redis: SocketAddr,
        nats: Option<(Process, SocketAddr)>,
    ) -> Result<Server, ServerError> {
        let mut config = format!("listen: 127.0.0.1:0\nupstream: redis://{redis}\nworkers: 1\n");
        let mut tls = None;
        if kind == Kind::ShortstopTls {
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(kind.name())?));
            tls = Some(addr);
            let (certificate, key) = (self.trust.certificate.display(), self.trust.key.display());
            config.push_str(&format!("tls:\n  listen: {addr}\n  certificate: {certificate}\n  key: {key}\n"));
        }
        if let Some((_, addr)) = &nats {
            config.push_str(&format!("nats: nats://{addr}\n"));
        }
        let file = self.write(kind.name(), &format!("{}.yaml", kind.name()), &config)?;
        let mut command = self.command(kind.name(), PathBuf::from(env!("CARGO_BIN_EXE_shortstop")));
        command.arg("--config").arg(file);
        if kind == Kind::ShortstopL1Off {
            command.env("CACHE_ENABLED", "false");
        }
        let (process, addr) = self.spawn_that_tells(kind.name(), command)?;
        Ok(Server { kind, addr, tls, process, nats: nats.map(|(process, _)| process) })
    }

    fn this_program(&self, kind: Kind, options: &[&str]) -> Result<Server, ServerError> {
        let this = std::env::current_exe().map_err(|error| ServerError::Io { name: kind.name(), error })?;
        let mut command = self.command(kind.name(), this);
        command.arg("--bench").args(options);
        let (process, addr) = self.spawn_that_tells(kind.name(), command)?;
        Ok(Server { kind, addr, tls: None, process, nats: None })
    }

    /// A command on the servers' core, with an empty environment (nobody's `REDIS_URL` gets in), its output in a log.
    fn command(&self, name: &str, program: PathBuf) -> Command {
        let mut words: Vec<PathBuf> = Vec::new();
        // Without setpriv a kill -9 of this process would leave the servers behind; with it the kernel ends them.
        if let Some(setpriv) = machine::find_program("setpriv") {
            words.extend([setpriv, "--pdeathsig".into(), "KILL".into()]);
        }
        let taskset = machine::find_program("taskset").unwrap_or_else(|| "taskset".into());
        words.extend([taskset, "-c".into(), self.cores.server.to_string().into(), program]);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(std::env::var("PATH").map(|path| ("PATH", path)));
        let log = std::fs::File::options().create(true).append(true).open(self.log(name));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.map_or_else(|_| Stdio::null(), Stdio::from));
        command
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    fn write(&self, name: &'static str, file: &str, text: &str) -> Result<PathBuf, ServerError> {
        let path = self.folder.join(file);
        std::fs::write(&path, text).map_err(|error| ServerError::Io { name, error })?;
        Ok(path)
    }

    fn spawn(&self, kind: Kind, command: Command, port: u16) -> Result<Server, ServerError> {
        let process = start(kind.name(), command)?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Server { kind, addr, tls: None, process, nats: None })
    }

    /// For programs that choose their port and print `… listening on ADDRESS` first.
    fn spawn_that_tells(&self, name: &'static str, mut command: Command) -> Result<(Process, SocketAddr), ServerError> {
        command.stdout(Stdio::piped());
        let mut process = start(name, command)?;
        let (sender, receiver) = mpsc::channel();
        if let Some(stdout) = process.0.stdout.take() {
            // Reads to the end, so that the process can never block on what it prints; ends with the process.
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        let line = receiver.recv_timeout(PATIENCE);
        let addr = line.as_deref().ok().and_then(|line| line.rsplit_once(' ')).and_then(|(_, addr)| addr.parse().ok());
        match addr {
            Some(addr) => Ok((process, addr)),
            None => Err(self.not_up(name, format!("its first line should name its address: {line:?}"))),
        }
    }

    fn wait_for_answer(&self, mut server: Server) -> Result<Server, ServerError> {
        let name = server.kind.name();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = Plain::connect(server.addr).and_then(|mut plain| plain.ask(&["PING"]));
            match answer {
                Ok(_) => return Ok(server),
                Err(error) if Instant::now() > deadline => return Err(self.not_up(name, error.to_string())),
                Err(_) => {}
            }
            if let Ok(Some(status)) = server.process.0.try_wait() {
                return Err(self.not_up(name, status.to_string()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn not_up(&self, name: &'static str, why: String) -> ServerError {
        let log = std::fs::read_to_string(self.log(name)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        ServerError::NotUp { name, why, said: lines[lines.len().saturating_sub(15)..].join("\n") }
    }
}

fn start(name: &'static str, mut command: Command) -> Result<Process, ServerError> {
    command.spawn().map(Process).map_err(|error| ServerError::Io { name, error })
}

fn program(name: &'static str) -> Result<PathBuf, ServerError> {
    machine::find_program(name).ok_or(ServerError::Missing(name))
}

/// Free at this moment; the time until the server takes it is short, and a clash shows as a server that is not up.
fn free_port(name: &'static str) -> Result<u16, ServerError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|addr| addr.port())
        .map_err(|error| ServerError::Io { name, error })
}

/// What is installed, as each program names its version; absent ones are left out.
pub fn versions() -> Vec<String> {
    let ask = |name: &'static str, flag: &str, label: &str, after: &str| {
        let output = Command::new(machine::find_program(name)?).arg(flag).output().ok()?;
        // nutcracker answers on stderr.
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let version = text.split_once(after)?.1.split_whitespace().next()?.trim_start_matches('v');
        Some(format!("{label} {version}"))
    };
    [
        Some(format!("Shortstop {}", env!("CARGO_PKG_VERSION"))),
        ask("redis-server", "--version", "Redis", "v="),
        ask("nutcracker", "-V", "twemproxy", "nutcracker-"),
        ask("haproxy", "-v", "HAProxy", "version "),
        ask("nats-server", "--version", "nats-server", "nats-server: "),
    ]
    .into_iter()
    .flatten()
    .collect()
}
