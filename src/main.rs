//! The binary: flags, log, signals, exit code. All other code is in the library.

use std::ffi::OsStr;
use std::fmt::Display;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use shortstop::app::{self, App, Surroundings};
use shortstop::config::{Config, Loaded, Loader, LogFormat, Setting, UpstreamTls};
use shortstop::decompress::command::{self, Options};
use shortstop::listeners::Addresses;
use shortstop::log::Log;
use shortstop::net::{Stream, tls};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, reload};

/// How long the process waits at its end for the last lines of the log.
const LAST_LINES: Duration = Duration::from_millis(500);

/// A caching proxy for Redis: hot reads from memory, values compressed in Redis, invalidations over NATS.
///
/// A flag beats the environment, the environment beats the file, the file beats the default. SIGHUP reads the file again. SIGTERM
/// and Ctrl-C answer pending requests and exit; a second one exits at once.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Flags {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration file; without it, ./config.yaml if there is one [env: SHORTSTOP_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address for clients [default: 127.0.0.1:6380] [env: SHORTSTOP_LISTEN]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// The Redis server [default: redis://127.0.0.1:6379] [env: REDIS_URL]
    #[arg(long, global = true, value_name = "URL")]
    upstream: Option<String>,
    /// The NATS server for invalidations; empty: a single instance [env: NATS_URL]
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// The address of the monitor; empty: off [default: 127.0.0.1:8083] [env: SHORTSTOP_MONITOR]
    #[arg(long, value_name = "HOST:PORT")]
    monitor: Option<String>,
    /// Threads that serve clients; 0: one per core [env: SHORTSTOP_WORKERS]
    #[arg(long, value_name = "COUNT")]
    workers: Option<String>,
    /// The log level: error, warn, info, debug, trace, or target=level pairs [env: SHORTSTOP_LOG]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Check the configuration and the files that it refers to, print all errors, and exit
    #[arg(long)]
    check_config: bool,
    /// Print the configuration in force, with defaults and without passwords, and exit
    #[arg(long)]
    print_config: bool,
    /// Ask the Shortstop that listens here for its health, and exit with 0 or 1. live: it answers; ready: it can serve [default:
    /// live]
    #[arg(long, value_name = "live|ready", num_args = 0..=1, default_missing_value = "live")]
    health: Option<Health>,
}

/// What to do instead of serving clients.
#[derive(Clone, clap::Subcommand)]
enum Command {
    /// Turn all compressed values in Redis back to plain, before Shortstop is removed. Needs no running Shortstop. It may be stopped at any
    /// time, and run again. Ends with 0 if no compressed value is left.
    Decompress {
        /// The keys: a Redis glob pattern
        #[arg(long, value_name = "PATTERN", default_value = "*")]
        pattern: String,
        /// The database; without it, all that have keys
        #[arg(long, value_name = "NUMBER")]
        db: Option<u32>,
        /// Values per second, at most
        #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
        rate: usize,
    },
}

/// The state that `--health` asks for.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Health {
    /// Whether the process answers.
    Live,
    /// Whether it can serve.
    Ready,
}

impl Flags {
    /// Reads the configuration from flags, environment and file.
    fn loader(&self) -> Loader {
        let flags = [
            (Setting::Listen, &self.listen, "--listen"),
            (Setting::Upstream, &self.upstream, "--upstream"),
            (Setting::Nats, &self.nats, "--nats"),
            (Setting::Monitor, &self.monitor, "--monitor"),
            (Setting::Workers, &self.workers, "--workers"),
            (Setting::Log, &self.log, "--log"),
        ];
        let flags = flags.into_iter().filter_map(|(setting, value, flag)| Some((setting, value.clone()?, flag)));
        Loader { file: self.config.clone(), flags: flags.collect(), env: |name| std::env::var(name).ok() }
    }

    /// Uses the address of the Shortstop that runs as process 1 or below it, as in a container: a health check is a process of its
    /// own, and does not know the flags of the serving process.
    fn or_flags_of_process_1(self) -> Flags {
        if self.config.is_some() || self.listen.is_some() {
            return self;
        }
        let serving = fs::read("/proc/1/cmdline").ok().and_then(|line| flags_in(&line));
        match serving {
            Some(Flags { config, listen, .. }) => Flags { config, listen, ..self },
            None => self,
        }
    }
}

/// The flags in a command line from /proc, if it is Shortstop's. The words of an init program may precede it.
fn flags_in(line: &[u8]) -> Option<Flags> {
    let words = line.split(|byte| *byte == 0).map(OsStr::from_bytes);
    let mut words = words.skip_while(|word| Path::new(word).file_name() != Some(OsStr::new("shortstop"))).peekable();
    words.peek()?;
    Flags::try_parse_from(words.filter(|word| !word.is_empty())).ok()
}

fn main() -> ExitCode {
    let mut flags = Flags::parse();
    if flags.health.is_some() {
        flags = flags.or_flags_of_process_1();
    }
    let (loaded, file) = match flags.loader().load(app::check_files) {
        Ok(loaded) => loaded,
        Err(error) => {
            error.findings().iter().for_each(complain);
            return ExitCode::from(2);
        }
    };
    if flags.check_config || flags.print_config {
        loaded.warnings.iter().for_each(|finding| complain(format_args!("warning: {finding}")));
        let text = match (flags.print_config, file) {
            (true, _) => loaded.to_yaml(),
            (false, Some(file)) => format!("{}: the configuration is valid\n", file.display()),
            (false, None) => "the configuration is valid; no file was read\n".to_owned(),
        };
        // The exit code says whether it is valid.
        let _ = write!(io::stdout(), "{text}");
        return ExitCode::SUCCESS;
    }
    let Loaded { config, warnings, .. } = loaded;
    if let Some(asked) = flags.health {
        return health(&config, asked);
    }
    if let Some(Command::Decompress { pattern, db, rate }) = flags.command {
        return command::decompress(&config, &Options { pattern, db, rate });
    }
    let log = match start_log(&config) {
        Ok(log) => log,
        Err(error) => {
            complain(format_args!("the log cannot be written: {error}"));
            return ExitCode::FAILURE;
        }
    };
    warnings.iter().for_each(|finding| tracing::warn!("in the configuration: {finding}"));
    let Logging { out, set_level } = log;
    let surroundings = Surroundings { loader: Some(flags.loader()), set_log_level: set_level };
    let code = run(config, surroundings, &out);
    out.flush(LAST_LINES);
    code
}

/// Writes to standard error why the program does not run. If that fails, nothing else changes.
fn complain(what: impl Display) {
    let _ = writeln!(io::stderr(), "shortstop: {what}");
}

/// The log of this process.
struct Logging {
    out: Log,
    /// Changes `log.level`.
    set_level: Box<dyn Fn(&str) + Send + Sync>,
}

fn start_log(config: &Config) -> io::Result<Logging> {
    let out = Log::to_stderr()?;
    let (level, handle) = reload::Layer::new(filter(&config.log.level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(out.clone())
        // The subscriber would print its own errors on standard error, and panic if that fails.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal());
    let lines = match config.log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(level).with(lines).init();
    out.write_panics(config.log.format == LogFormat::Json);
    // It fails only if there is no subscriber any more.
    let set_level = move |level: &str| drop(handle.reload(filter(level)));
    Ok(Logging { out, set_level: Box::new(set_level) })
}

/// The client libraries log each of their events. The bus and the lanes log those that matter.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::new(format!("async_nats=off,{level}"))
}

fn run(config: Config, surroundings: Surroundings, log: &Log) -> ExitCode {
    // 10,000 clients need more file descriptors than the usual limit.
    let clients = config.limits.max_clients as u64;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) if files <= clients => tracing::warn!(
            files,
            clients,
            "the limit of file descriptors is below limits.max_clients: clients above it will have to wait. Raise it (ulimit -n, \
             LimitNOFILE), or lower limits.max_clients"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of file descriptors cannot be raised"),
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let listening = runtime.and_then(|runtime| {
        let signals = runtime.block_on(async { Signals::new() })?;
        Ok((runtime, signals))
    });
    let (runtime, mut signals) = match listening {
        Ok(listening) => listening,
        Err(error) => {
            complain(format_args!("cannot wait for signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let upstream = config.upstream.to_string();
    let app = match App::start_in(config, surroundings) {
        Ok(app) => app,
        Err(error) => {
            complain(error);
            return ExitCode::FAILURE;
        }
    };
    let addresses = app.addresses().clone();
    tracing::info!(listen = %addresses, %upstream, "ready");
    // Standard output may be closed or not read.
    let announcing = std::thread::Builder::new().spawn(move || announce(&addresses));
    drop(announcing);
    let failure = runtime.block_on(async {
        tokio::select! {
            () = signals.wait_for_exit(|| app.reload()) => None,
            failure = app.failed() => Some(failure),
        }
    });
    if let Some(failure) = failure {
        tracing::error!("{failure}: exiting at once, because clients would wait for it for ever");
        // What it shared with other threads may be in any state.
        std::mem::forget(app);
        return ExitCode::FAILURE;
    }
    tracing::info!("shutting down: pending requests are answered; a second signal exits at once");
    let last = log.clone();
    std::thread::spawn(move || {
        runtime.block_on(signals.wait_for_exit(|| ()));
        last.flush(LAST_LINES);
        std::process::exit(1);
    });
    if app.shutdown() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The signals to wait for, registered once for the whole run, so that none is missed in between.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for SIGTERM or Ctrl-C. Calls `reload` for each SIGHUP until then.
    async fn wait_for_exit(&mut self, reload: impl Fn()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => reload(),
            }
        }
    }
}

/// Prints on standard output where clients can connect.
fn announce(addresses: &Addresses) {
    let mut out = io::stdout();
    if let Some(address) = addresses.plain {
        let _ = writeln!(out, "shortstop listening on {address}");
    }
    if let Some(address) = addresses.tls {
        let _ = writeln!(out, "shortstop listening with TLS on {address}");
    }
    if let Some(path) = &addresses.unix {
        let _ = writeln!(out, "shortstop listening on {path}");
    }
}

/// Asks the Shortstop with this configuration whether it is alive or ready.
fn health(config: &Config, asked: Health) -> ExitCode {
    let patience = Duration::from_secs(2);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = runtime.and_then(|runtime| {
        let answer = runtime.block_on(async { tokio::time::timeout(patience, ask(config, asked)).await });
        answer
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {patience:?}"))))
    });
    // A full Shortstop serves its clients, and a restart would not help.
    let is_full = |line: &str| matches!(asked, Health::Live) && line.starts_with("-ERR max number of clients");
    match answer {
        Ok(line) if line.starts_with("+OK") || is_full(&line) => {
            // The exit code says the same.
            let _ = writeln!(io::stdout(), "{}", &line[1..]);
            ExitCode::SUCCESS
        }
        Ok(line) => {
            complain(format_args!("Shortstop answers {line:?}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(format_args!("Shortstop does not answer: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn ask(config: &Config, asked: Health) -> io::Result<String> {
    let mut stream = connect(config).await?;
    stream
        .write_all(match asked {
            Health::Live => b"PROXY HEALTH live\r\n",
            Health::Ready => b"PROXY HEALTH ready\r\n",
        })
        .await?;
    stream.flush().await?;
    let mut line = String::new();
    BufReader::new(stream).take(4096).read_line(&mut line).await?;
    Ok(line.trim_end().to_owned())
}

/// Connects to a listener of this configuration.
async fn connect(config: &Config) -> io::Result<Stream> {
    match (config.listen, &config.listen_unix, config.tls.listen) {
        (Some(address), ..) => TcpStream::connect(reachable(address)).await.map(Stream::Tcp),
        (None, Some(path), _) => UnixStream::connect(path).await.map(Stream::Unix),
        (None, None, Some(address)) => {
            // It asks itself, so the certificate need not be verified. If clients must present a certificate, the only one at hand
            // may not be accepted.
            let shown = config.tls.client_ca.is_some();
            let tls = UpstreamTls {
                insecure: true,
                certificate: config.tls.certificate.clone().filter(|_| shown),
                key: config.tls.key.clone().filter(|_| shown),
                ..UpstreamTls::default()
            };
            let address = reachable(address);
            let client = tls::Client::load(&tls, &address.ip().to_string()).map_err(io::Error::other)?;
            client.connect(TcpStream::connect(address).await?).await
        }
        (None, None, None) => Err(io::Error::other("it listens nowhere")),
    }
}

/// An address through which a listener at this address can be reached.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::{Path, flags_in};

    #[test]
    fn the_flags_of_a_command_line_are_found() {
        let file = |line: &str| flags_in(line.replace(' ', "\0").as_bytes()).map(|flags| (flags.listen, flags.config));
        let address = || Some("0.0.0.0:7000".to_owned());
        for (line, expected) in [
            ("/usr/local/bin/shortstop", Some((None, None))),
            ("/usr/local/bin/shortstop --listen 0.0.0.0:7000", Some((address(), None))),
            ("shortstop --listen=0.0.0.0:7000 --workers 2 ", Some((address(), None))),
            (
                "/sbin/docker-init -- /usr/local/bin/shortstop --config /c.yaml",
                Some((None, Some(Path::new("/c.yaml").to_owned()))),
            ),
            ("/sbin/init splash", None),
            ("", None),
            ("shortstop --no-such-flag", None),
        ] {
            assert_eq!(file(line), expected, "{line}");
        }
    }
}
