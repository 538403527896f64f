//! Third-party clients: redis-cli and redis-py.

mod common;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{PATIENCE, Process, Redis, Shortstop, run};

/// Runs `redis-cli` with these arguments and optional `input`, and returns its output.
fn redis_cli(address: SocketAddr, arguments: &[&str], input: Option<&str>) -> String {
    let mut start = Command::new("redis-cli");
    start.args(["-h", "127.0.0.1", "-p", &address.port().to_string()]).args(arguments);
    let stdin = input.map_or_else(Stdio::null, |text| {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("it is ours");
        Stdio::from(std::fs::File::open(file.path()).expect("it was just written"))
    });
    let output = run(start.stdin(stdin), 3 * PATIENCE);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "redis-cli {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn redis_cli_one_command_at_a_time() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "");
    for arguments in [
        &["SET", "k", "a value"][..],
        &["GET", "k"],
        &["GET", "absent"],
        &["-n", "3", "SET", "k", "in three"],
        &["-n", "3", "GET", "k"],
        &["MGET", "k", "absent"],
        &["INCR", "n"],
        &["INCR", "k"],
        &["--no-raw", "LRANGE", "none", "0", "-1"],
        &["--no-raw", "HSET", "h", "a", "1", "b", "2"],
        &["--no-raw", "HGETALL", "h"],
        &["--csv", "MGET", "k", "n"],
        &["-r", "3", "INCR", "n"],
        &["EVAL", "return {1,'two',{3}}", "0"],
        &["NOSUCH"],
        &["GET"],
        &["--raw", "ECHO", "x\ny"],
        &["OBJECT", "ENCODING", "n"],
        &["CONFIG", "GET", "maxmemory"],
        &["DBSIZE"],
    ] {
        assert_eq!(
            redis_cli(proxy.addr(), arguments, None),
            redis_cli(reference.addr(), arguments, None),
            "redis-cli {arguments:?}"
        );
    }
}

#[test]
fn redis_cli_reading_commands() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "");
    let script = [
        "SET k 1",
        "GET k",
        "MULTI",
        "INCR k",
        "GET k",
        "EXEC",
        "SELECT 2",
        "GET k",
        "SET k two",
        "SELECT 0",
        "GET k",
        "BLPOP none 0.01",
        "WATCH k",
        "UNWATCH",
        "HELP nothing",
        "PING",
    ]
    .join("\n");
    assert_eq!(redis_cli(proxy.addr(), &[], Some(&script)), redis_cli(reference.addr(), &[], Some(&script)));
}

#[test]
fn redis_cli_pipes_and_scans() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let commands: String = (0..20_000).map(|i| format!("SET key:{i} value:{i}\r\n")).collect();
    let said = redis_cli(proxy.addr(), &["--pipe"], Some(&commands));
    assert!(said.contains("errors: 0, replies: 20000"), "{said}");
    assert_eq!(redis_cli(proxy.addr(), &["DBSIZE"], None), "20000\n");
    let keys = redis_cli(proxy.addr(), &["--scan", "--pattern", "key:1*"], None);
    assert_eq!(keys.lines().count(), 11_111, "keys that begin with 1");
    redis_cli(proxy.addr(), &["--bigkeys"], None);
}

#[test]
fn redis_cli_shows_what_the_proxy_does() {
    let redis = Redis::start();
    let proxy = Process::start(redis.addr(), "");
    redis_cli(proxy.addr(), &["-r", "20", "GET", "k"], None);
    let said = redis_cli(proxy.addr(), &["PROXY", "INFO"], None);
    for section in [
        "# Proxy",
        "# ProxyClients",
        "# L1",
        "# Compression",
        "# Invalidation",
        "# Upstream",
        "# Coherence",
        "# Latency",
    ] {
        assert!(said.contains(section), "{section} is missing: {said}");
    }
    let help = redis_cli(proxy.addr(), &["PROXY", "HELP"], None);
    assert!(help.contains("INFO") && help.contains("FLUSH"), "{help}");
}

#[test]
fn redis_py_notices_nothing() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let python = common::python();
    let redis = Redis::start();
    // Everything is compressed except the key for APPEND and GETRANGE, which are refused on compressed values.
    let all_compressed = r#"
workers: 1
defaults:
  cache: { admit_after: 1 }
  compress: { min_size: 1 }
rules:
  - match: "s"
    compress: false
  - match: "*"
"#;
    for yaml in ["", all_compressed] {
        let proxy = Shortstop::start(&redis, yaml);
        let script = root.join("tests/clients/redis_py.py");
        let url = format!("redis://{}", proxy.addr());
        let output = run(Command::new(&python).arg(script).arg(url).stdin(Stdio::null()), 6 * PATIENCE);
        let said = [&output.stdout[..], &output.stderr].concat();
        assert!(output.status.success(), "redis-py:\n{}", String::from_utf8_lossy(&said));
    }
}
