//! Shortstop as a process of its own: the binary, with a config file and an environment.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use super::shortstop::config_text;
use super::{Client, servers, stat, wait_within};

/// A running binary. Killed on drop.
pub struct Process {
    child: Child,
    address: SocketAddr,
    directory: tempfile::TempDir,
    log: Arc<Mutex<String>>,
    // Kept open: a process whose standard output is closed may fail when it writes to it.
    _stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts the binary in front of `upstream` and waits for the line with its address.
    #[track_caller]
    pub fn start(upstream: SocketAddr, yaml: &str) -> Process {
        Process::start_with(upstream, yaml, &[], &[])
    }

    /// [`Process::start`] with environment variables and flags.
    #[track_caller]
    pub fn start_with(upstream: SocketAddr, yaml: &str, environment: &[(&str, &str)], flags: &[&str]) -> Process {
        Process::spawn(upstream, yaml, environment, flags, Stdio::piped())
    }

    /// [`Process::start`] with its log going elsewhere than to [`Process::log`].
    #[track_caller]
    pub fn start_logging_to(stderr: impl Into<Stdio>, upstream: SocketAddr, yaml: &str) -> Process {
        Process::spawn(upstream, yaml, &[], &[], stderr.into())
    }

    #[track_caller]
    fn spawn(upstream: SocketAddr, yaml: &str, environment: &[(&str, &str)], flags: &[&str], stderr: Stdio) -> Process {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("config.yaml");
        std::fs::write(&file, config_text(upstream, yaml)).expect("a config file");
        let mut start = Command::new(env!("CARGO_BIN_EXE_shortstop"));
        start.arg("--config").arg(&file).args(flags);
        // The environment of the person who runs the tests must not matter.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["SHORTSTOP_", "CACHE_", "REDIS_", "NATS_"].iter().any(|prefix| text.starts_with(prefix)) {
                start.env_remove(name);
            }
        }
        start.envs(environment.iter().copied());
        start.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = start.spawn().expect("the binary was built by cargo");
        // It contains a handle of the log's destination.
        drop(start);
        let log = Arc::new(Mutex::new(String::new()));
        if let Some(stderr) = child.stderr.take() {
            let lines = Arc::clone(&log);
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let mut log = lines.lock().expect("no holder of this lock panics");
                    log.push_str(&line);
                    log.push('\n');
                }
            });
        }
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        // This also returns if the process ends.
        stdout.read_line(&mut line).expect("its standard output is text");
        let address = line.trim_end().strip_prefix("shortstop listening on ").and_then(|word| word.parse().ok());
        let Some(address) = address else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("not started: {line:?}\n{}", log.lock().expect("no holder of this lock panics"));
        };
        Process { child, address, directory, log, _stdout: stdout }
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client of Shortstop.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// A number of `PROXY INFO`.
    #[track_caller]
    pub fn stat(&self, name: &str) -> u64 {
        stat(self.address, name)
    }

    /// The config file it was started with.
    pub fn config_file(&self) -> PathBuf {
        self.directory.path().join("config.yaml")
    }

    /// Rewrites the config file, as a person would before SIGHUP.
    pub fn write_config(&self, upstream: SocketAddr, yaml: &str) {
        std::fs::write(self.config_file(), config_text(upstream, yaml)).expect("the directory is ours");
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no holder of this lock panics").clone()
    }

    /// Whether the log is complete: the process has exited, and its whole output has been read.
    pub fn log_has_ended(&self) -> bool {
        // Until then, the thread that reads the output holds a second handle.
        Arc::strong_count(&self.log) == 1
    }

    /// Sends a signal by name: `TERM`, `HUP`, …
    pub fn signal(&self, name: &str) {
        servers::signal(self.pid(), name);
    }

    /// Waits until it has exited by itself.
    #[track_caller]
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        wait_within(limit, "the process ends", || {
            status = self.child.try_wait().expect("a child of ours");
            status.is_some()
        });
        status.expect("it ended")
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }

    /// The memory that it uses, in bytes (`VmRSS`). `None` if the system does not tell.
    pub fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        let kilobytes: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some(kilobytes * 1024)
    }
}

/// Runs a program that exits by itself. Kills it if it does not within `limit`.
#[track_caller]
pub fn run(command: &mut Command, limit: Duration) -> Output {
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|error| panic!("{program}: {error}: `make test` sets everything up"));
    let pid = child.id();
    let (done, outcome) = mpsc::channel();
    // After a timeout the receiver is gone.
    std::thread::spawn(move || drop(done.send(child.wait_with_output())));
    match outcome.recv_timeout(limit) {
        Ok(output) => output.expect("a child of ours can be waited for"),
        Err(_) => {
            servers::signal(pid, "KILL");
            panic!("{program} does not end within {limit:?}");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A failure here cannot be handled, and a panic in a drop would hide the first one.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
