//! Unix sockets: for Shortstop's clients, and to Redis.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Client, PATIENCE, Process, Redis, Shortstop, assert_reply, bulk, field, noise, pipeline_of, run};
use shortstop::app::App;
use shortstop::config::Config;

fn listening_at(path: &Path) -> String {
    format!("listen_unix: {}\n", path.display())
}

#[test]
fn clients_connect_over_a_unix_socket() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("shortstop.sock");
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &listening_at(&path));
    let mut client = Client::connect_unix(&path);
    assert_reply(&client.cmd("SET k v"), b"+OK\r\n", "a write");
    assert_reply(&proxy.warm(&mut client, "k"), bulk(b"v"), "from L1");
    let large = noise(3 << 20, 7);
    assert_reply(&client.call(&[b"SET", b"large", &large]), b"+OK\r\n", "a large request");
    assert_reply(&client.cmd("GET large"), bulk(&large), "a large reply");
    client.send(&pipeline_of(&["MULTI", "INCR n", "EXEC"]));
    assert_reply(&client.replies(3)[2], b"*1\r\n:1\r\n", "a transaction");
    // In Redis's notation.
    let info = String::from_utf8_lossy(&client.cmd("CLIENT INFO")).into_owned();
    let at = path.display();
    assert!(info.contains(&format!(" addr={at}:0 laddr={at}:0 ")), "{info}");
    client.send(&pipeline_of(&["ECHO last"]));
    client.half_close();
    assert_reply(&client.until_closed(), bulk(b"last"), "half closed");
}

#[test]
fn a_unix_socket_alone_is_enough_and_is_removed_at_the_end() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("s");
    // What a killed process leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a free name"));
    let redis = Redis::start();
    let yaml = format!("listen: \"\"\nupstream: {}\nworkers: 1\n{}", redis.url(), listening_at(&path));
    let start = || App::start(Config::from_yaml(&yaml).expect("sound"));
    let app = start().expect("a stale socket is no reason not to start");
    let mut client = Client::connect_unix(&path);
    let info = client.cmd("PROXY INFO proxy");
    assert_eq!(field(&info, "listen"), Some(format!("unix://{}", path.display())));
    let second = start().map(drop).expect_err("somebody listens there").to_string();
    assert!(second.contains("listen_unix") && second.contains("another process"), "{second}");
    assert_reply(&client.cmd("PING"), b"+PONG\r\n", "the first goes on");
    assert!(app.shutdown());
    assert!(!path.exists(), "the socket goes with the proxy");
}

#[test]
fn nothing_to_listen_on_is_an_error() {
    let error = Config::from_yaml("listen: \"\"").expect("readable").check().expect_err("nowhere").to_string();
    assert!(error.contains("listen: there is no address for clients; type an address"), "{error}");
}

#[test]
fn redis_behind_a_unix_socket() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("redis.sock");
    let mut redis = Redis::start_with(&["--unixsocket", path.to_str().expect("text")]);
    let proxy = Shortstop::start(&redis, &format!("upstream: unix://{}?db=3\n", path.display()));
    let mut client = proxy.client();
    assert_reply(&client.cmd("SET k v"), b"+OK\r\n", "a write");
    assert_reply(&redis.client().fill("SELECT 3", &[]), b"+OK\r\n", "database 3");
    assert!(String::from_utf8_lossy(&redis.client().cmd("INFO keyspace")).contains("db3:keys=1"));
    assert_reply(&proxy.warm(&mut client, "k"), bulk(b"v"), "from L1");
    client.send(&pipeline_of(&["MULTI", "INCR n", "EXEC"]));
    assert_reply(&client.replies(3)[2], b"*1\r\n:1\r\n", "a transaction");
    let list = String::from_utf8(redis.client().cmd("CLIENT LIST")).expect("text");
    let ours: Vec<&str> = list.lines().filter(|line| line.contains("name=shortstop:")).collect();
    assert!(ours.len() >= 3 && ours.iter().all(|line| line.contains("redis.sock:0")), "{list}");
    redis.kill();
    common::wait_until("the loss is noticed", || client.cmd("GET other").starts_with(b"-ERR shortstop: "));
    redis.restart();
    common::wait_until("it comes back", || client.cmd("SET k w") == b"+OK\r\n");
}

#[test]
fn redis_cli_and_redis_py_over_a_unix_socket() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("shortstop.sock");
    let redis = Redis::start();
    let _proxy = Shortstop::start(&redis, &listening_at(&path));
    let mut cli = Command::new("redis-cli");
    let output = run(cli.arg("-s").arg(&path).args(["SET", "k", "v"]).stdin(Stdio::null()), PATIENCE);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "OK\n");
    let script = "import sys, redis\nprint(redis.Redis.from_url(f'unix://{sys.argv[1]}?db=0').get('k'))";
    let mut python = Command::new(common::python());
    let output = run(python.args(["-c", script]).arg(&path).stdin(Stdio::null()), 3 * PATIENCE);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "b'v'\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_process_says_where_it_listens_and_health_asks_there() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("s");
    let redis = Redis::start();
    let mut process = Process::start(redis.addr(), &listening_at(&path));
    common::wait_until("it listens", || path.exists());
    let health = |path: &Path| {
        let mut start = Command::new(env!("CARGO_BIN_EXE_shortstop"));
        let file = directory.path().join("health.yaml");
        std::fs::write(&file, format!("listen: \"\"\n{}", listening_at(path))).expect("it is ours");
        let output = run(start.arg("--config").arg(file).arg("--health").stdin(Stdio::null()), PATIENCE);
        output.status.success()
    };
    assert!(health(&path));
    assert!(!health(&directory.path().join("nobody")));
    assert_reply(&Client::connect_unix(&path).call(&[b"PING"]), b"+PONG\r\n", "it answers");
    process.signal("TERM");
    assert!(process.wait_exit(PATIENCE + Duration::from_secs(10)).success());
    assert!(!path.exists(), "SIGTERM removes the socket");
}
