//! Runs the `sh` blocks of a document as a reader would, with the ports of the test's own servers. Programs that would install,
//! build or start something are replaced by stand-ins that check their arguments.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::common::{Nats, PATIENCE, Process, Redis, free_address, run};
use super::markdown::{Block, ROOT};

/// `PROXY` is the port of Shortstop, `BUS` that of NATS.
const STAND_INS: &[(&str, &str)] = &[
    // An error of Redis's is a failure.
    ("redis-cli", r#"exec "$REAL_REDIS_CLI" -e "$@""#),
    // A configuration that would not start is a failure. `--health` asks the Shortstop that is there.
    (
        "shortstop",
        r#"case " $* " in
  *" --health "*) exec "$REAL_SHORTSTOP" --listen "127.0.0.1:$PROXY" "$@" ;;
  *" --check-config "* | *" decompress "*) exec "$REAL_SHORTSTOP" "$@" ;;
  *) exec "$REAL_SHORTSTOP" "$@" --check-config ;;
esac"#,
    ),
    // The target exists.
    ("make", r#"exec "$REAL_MAKE" -n "$@" >/dev/null"#),
    // What is installed from is here.
    (
        "cargo",
        r#"[ "$1" = install ] || { echo "no stand-in for cargo $1"; exit 1; }
while [ $# -gt 0 ] && [ "$1" != --path ]; do shift; done
[ -f "$2/Cargo.toml" ]"#,
    ),
    // What is built from is here.
    (
        "docker",
        r#"while [ $# -gt 0 ]; do
  if [ "$1" = -f ]; then [ -f "$2" ] || exit 1; fi
  shift
done"#,
    ),
    // Publishes, in NATS's own protocol.
    (
        "nats",
        r#"[ "$1" = pub ] || { echo "no stand-in for nats $1"; exit 1; }
exec 3<>"/dev/tcp/127.0.0.1/$BUS"
printf 'CONNECT {"verbose":false}\r\nPUB %s %d\r\n%s\r\nPING\r\n' "$2" "${#3}" "$3" >&3
while read -r line <&3; do case $line in PONG*) exit 0 ;; -ERR*) echo "$line"; exit 1 ;; esac; done"#,
    ),
];

/// A Shortstop with its servers, and a folder with the stand-ins.
pub struct Shell {
    proxy: Process,
    monitor: SocketAddr,
    redis: Redis,
    nats: Nats,
    programs: tempfile::TempDir,
}

impl Shell {
    /// Starts them.
    pub fn start() -> Shell {
        let (redis, nats) = (Redis::start(), Nats::start());
        // One worker, so that each redis-cli is served by the one that the last was served by.
        let monitor = free_address();
        let config = format!("workers: 1\nnats: {}\nmonitor: {monitor}\n", nats.url());
        let proxy = Process::start(redis.addr(), &config);
        super::common::wait_until("NATS is proven", || {
            super::common::field(&proxy.client().cmd("PROXY INFO"), "mode").as_deref() == Some("live")
        });
        let programs = tempfile::tempdir().expect("a temporary directory");
        for (name, body) in STAND_INS {
            let path = programs.path().join(name);
            let mut file = std::fs::File::create(&path).expect("the directory is ours");
            write!(file, "#!/usr/bin/env bash\n{body}\n").expect("the file is ours");
            file.set_permissions(std::fs::Permissions::from_mode(0o755)).expect("the file is ours");
        }
        Shell { proxy, monitor, redis, nats, programs }
    }

    /// The Shortstop that the blocks speak to.
    pub fn proxy(&self) -> &Process {
        &self.proxy
    }

    /// Runs a block; panics when a command in it fails, or does not print what its comment says (`# l1_hits:1`).
    pub fn run(&self, path: &Path, block: &Block) {
        let at = format!("{}:{}", path.display(), block.line);
        let port = |address: SocketAddr| address.port().to_string();
        let text = block.text.replace("6380", &port(self.proxy.addr())).replace("6379", &port(self.redis.addr()));
        let text = text.replace("8083", &port(self.monitor));
        let search = std::env::var("PATH").unwrap_or_default();
        let mut start = Command::new("bash");
        for name in ["REDIS_URL", "NATS_URL", "MAKEFLAGS", "MAKELEVEL"] {
            start.env_remove(name);
        }
        start.args(["-eu", "-o", "pipefail", "-c", &text]).current_dir(ROOT);
        start.env("PATH", format!("{}:{search}", self.programs.path().display()));
        start.env("REAL_SHORTSTOP", env!("CARGO_BIN_EXE_shortstop"));
        start.env("REAL_REDIS_CLI", found_in(&search, "redis-cli")).env("REAL_MAKE", found_in(&search, "make"));
        start.env("PROXY", port(self.proxy.addr())).env("BUS", port(self.nats.addr()));
        let output = run(&mut start, 3 * PATIENCE);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let wrong = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{at}: {}\n{said}{wrong}", output.status);
        for line in text.lines() {
            let comment = line.rsplit_once("# ").map(|(_, comment)| comment.trim());
            if let Some(field) = comment.filter(|comment| comment.contains(':') && !comment.contains(' ')) {
                assert!(said.contains(field), "{at}: {line}\nprints no {field}:\n{said}");
            }
        }
    }
}

/// Where a program is, in a list of folders as in `PATH`.
fn found_in(search: &str, program: &str) -> String {
    let paths = search.split(':').map(|folder| Path::new(folder).join(program));
    let found = paths.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{program} is not installed")).display().to_string()
}
