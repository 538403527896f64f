//! The binary: flags, log, signals, exit code. Everything else is in the library.

use std::fmt::Display;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use shortstop::app::App;
use shortstop::config::{Config, ConfigError, LogFormat, Setting};
use shortstop::log::Log;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// How long the process waits at its end for the last lines of the log.
const LAST_LINES: Duration = Duration::from_millis(500);

/// A Redis-protocol caching proxy: hot GETs from memory, values compressed on the way to Redis, invalidations over NATS.
///
/// A flag beats the environment, the environment beats the file, the file beats the default. SIGHUP reads the file again;
/// SIGTERM and Ctrl-C answer what was asked and leave; a second one leaves at once.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Flags {
    /// The configuration file; without it, ./config.yaml if there is one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where clients connect [default: 127.0.0.1:6380] [env: SHORTSTOP_LISTEN]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// The Redis behind [default: redis://127.0.0.1:6379] [env: REDIS_URL]
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// The NATS server for invalidations; empty: a single instance [env: NATS_URL]
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// The monitor's address; empty: off; this version has no monitor yet [env: SHORTSTOP_MONITOR]
    #[arg(long, value_name = "HOST:PORT")]
    monitor: Option<String>,
    /// Threads that serve clients; 0: one per core [env: SHORTSTOP_WORKERS]
    #[arg(long, value_name = "COUNT")]
    workers: Option<String>,
    /// What goes to the log: error, warn, info, debug, trace, or target=level pairs [env: SHORTSTOP_LOG]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Check the configuration, say what is wrong, and leave
    #[arg(long)]
    check_config: bool,
    /// Ask the Shortstop that listens here how it is, and leave with 0 or 1. live: it answers; ready: it can serve [default: live]
    #[arg(long, value_name = "live|ready", num_args = 0..=1, default_missing_value = "live")]
    health: Option<Health>,
}

/// What is asked by `--health`.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Health {
    /// Whether the process answers.
    Live,
    /// Whether it can serve.
    Ready,
}

impl Flags {
    fn config(&self) -> Result<Config, ConfigError> {
        let beside = PathBuf::from("config.yaml");
        let mut config = match &self.config {
            Some(path) => Config::load(path)?,
            None if beside.exists() => Config::load(beside)?,
            None => Config::default(),
        };
        config.apply_env(|name| std::env::var(name).ok())?;
        let flags = [
            (Setting::Listen, &self.listen, "--listen"),
            (Setting::Upstream, &self.upstream, "--upstream"),
            (Setting::Nats, &self.nats, "--nats"),
            (Setting::Monitor, &self.monitor, "--monitor"),
            (Setting::Workers, &self.workers, "--workers"),
            (Setting::Log, &self.log, "--log"),
        ];
        for (setting, value, flag) in flags {
            if let Some(value) = value {
                config.set(setting, value, flag)?;
            }
        }
        config.check()?;
        Ok(config)
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let config = match flags.config() {
        Ok(config) => config,
        Err(error) => {
            complain(error);
            return ExitCode::from(2);
        }
    };
    if flags.check_config {
        // The exit code says the same.
        let _ = writeln!(io::stdout(), "the configuration is sound");
        return ExitCode::SUCCESS;
    }
    if let Some(asked) = flags.health {
        return health(config.listen, asked);
    }
    let log = match start_log(&config) {
        Ok(log) => log,
        Err(error) => {
            complain(format_args!("the log cannot be written: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = run(&flags, config, &log);
    log.flush(LAST_LINES);
    code
}

/// Writes to standard error why the program does not run. If that cannot be written, nothing else changes.
fn complain(what: impl Display) {
    let _ = writeln!(io::stderr(), "shortstop: {what}");
}

fn start_log(config: &Config) -> io::Result<Log> {
    let out = Log::to_stderr()?;
    // The client libraries log each of their events; what matters of them is logged by the bus and the lanes.
    let filter = EnvFilter::new(format!("async_nats=warn,fred=error,{}", config.log.level));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(out.clone())
        // The subscriber would print its own errors on standard error, and panic if that fails.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal());
    match config.log.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    out.write_panics(config.log.format == LogFormat::Json);
    Ok(out)
}

fn run(flags: &Flags, config: Config, log: &Log) -> ExitCode {
    // 10,000 clients want more file descriptors than the usual limit.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of file descriptors cannot be raised");
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
    let app = match App::start(config) {
        Ok(app) => app,
        Err(error) => {
            complain(error);
            return ExitCode::FAILURE;
        }
    };
    let address = app.addr();
    // Whoever started it may have closed its standard output, or may not read it.
    let announcing = std::thread::Builder::new().spawn(move || {
        let _ = writeln!(io::stdout(), "shortstop listening on {address}");
    });
    drop(announcing);
    tracing::info!(listen = %app.addr(), %upstream, "ready");
    let failure = runtime.block_on(async {
        tokio::select! {
            () = signals.told_to_leave(|| reload(flags, &app)) => None,
            failure = app.failed() => Some(failure),
        }
    });
    if let Some(failure) = failure {
        tracing::error!("{failure}: leaving at once, because clients would wait for it for ever");
        // What it shared with others may be in any state.
        std::mem::forget(app);
        return ExitCode::FAILURE;
    }
    tracing::info!("leaving: answering what was asked; a second signal leaves at once");
    let last = log.clone();
    std::thread::spawn(move || {
        runtime.block_on(signals.told_to_leave(|| ()));
        last.flush(LAST_LINES);
        std::process::exit(1);
    });
    if app.shutdown() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The signals that are listened to, from one end of the program to the other: none between two of these is missed.
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

    /// SIGTERM or Ctrl-C; calls `reload` for each SIGHUP until then.
    async fn told_to_leave(&mut self, reload: impl Fn()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => reload(),
            }
        }
    }
}

fn reload(flags: &Flags, app: &App) {
    match flags.config().and_then(|config| app.reload(&config)) {
        Ok(()) => tracing::info!("rules and limits are reloaded"),
        Err(error) => tracing::error!("the configuration is refused, the old one stays: {error}"),
    }
}

/// Asks the proxy at this address whether it is alive, or ready.
fn health(listen: SocketAddr, asked: Health) -> ExitCode {
    let mut address = listen;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    let patience = Duration::from_secs(2);
    let answer = TcpStream::connect_timeout(&address, patience).and_then(|mut stream| {
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(match asked {
            Health::Live => b"PROXY HEALTH live\r\n",
            Health::Ready => b"PROXY HEALTH ready\r\n",
        })?;
        let mut line = String::new();
        BufReader::new(stream).take(4096).read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    });
    // With all its clients connected it serves these, and a restart would not help.
    let is_full = |line: &str| matches!(asked, Health::Live) && line.starts_with("-ERR max number of clients");
    match answer {
        Ok(line) if line.starts_with("+OK") || is_full(&line) => {
            // The exit code says the same.
            let _ = writeln!(io::stdout(), "{}", &line[1..]);
            ExitCode::SUCCESS
        }
        Ok(line) => {
            complain(format_args!("{address} answers {line:?}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(format_args!("{address} does not answer: {error}"));
            ExitCode::FAILURE
        }
    }
}
