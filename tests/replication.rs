//! Clients that read Redis's replication stream: `redis-cli --rdb`, `redis-cli --replica`, and real replicas. They work as without
//! Shortstop.

mod common;

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use common::{Client, PATIENCE, Redis, Shortstop, assert_reply, command, noise, run, show, wait_until};

/// A Redis that starts sending the data set at once.
fn quick() -> Redis {
    Redis::start_with(&["--repl-diskless-sync-delay", "0"])
}

fn redis_cli(proxy: &Shortstop, arguments: &[&str]) -> Command {
    let mut cli = Command::new("redis-cli");
    cli.args(["-h", "127.0.0.1", "-p", &proxy.addr().port().to_string()]).args(arguments);
    cli
}

#[test]
fn redis_cli_saves_the_data_set_in_a_file() {
    let redis = quick();
    let proxy = Shortstop::start(&redis, "defaults:\n  compress: false\n");
    let mut client = proxy.client();
    // More than is passed on at once.
    let value = noise(3 << 20, 1);
    assert_reply(&client.call(&[b"SET", b"a-large-key", &value]), "+OK\r\n", "a large value");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("dump.rdb");
    let saved = run(&mut redis_cli(&proxy, &["--rdb", file.to_str().expect("a path")]), PATIENCE);
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    let dump = std::fs::read(&file).expect("it was written");
    assert!(dump.starts_with(b"REDIS0"), "{}", show(&dump[..20]));
    assert!(dump.windows(value.len()).any(|part| part == value), "the value is in it, whole");
    wait_until("the connection is gone", || proxy.stat("proxy_sessions") == 0);
    assert_reply(&client.cmd("EXISTS a-large-key"), ":1\r\n", "others go on");
}

#[test]
fn redis_cli_shows_what_a_replica_gets() {
    let redis = quick();
    let proxy = Shortstop::start(&redis, "");
    let mut cli = redis_cli(&proxy, &["--replica"]);
    let mut cli = cli.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("redis-cli is installed");
    let (shown, mut out) = (Arc::new(Mutex::new(Vec::new())), cli.stdout.take().expect("it is piped"));
    let reader = Arc::clone(&shown);
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = out.read(&mut bytes) {
            reader.lock().expect("no holder of this lock panics").extend_from_slice(&bytes[..count]);
        }
    });
    let mut client = proxy.client();
    wait_until("a write is shown", || {
        client.cmd("SET shown-to-replicas 1");
        let shown = shown.lock().expect("no holder of this lock panics");
        String::from_utf8_lossy(&shown).contains("shown-to-replicas")
    });
    cli.kill().expect("it runs");
    cli.wait().expect("it ends");
    wait_until("Redis has no replica any more", || redis.info("connected_slaves") == "0");
}

#[test]
fn a_real_replica_follows_through_shortstop() {
    let redis = quick();
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    client.cmd("SET before 1");
    let replica = Redis::start();
    let port = proxy.addr().port();
    assert_reply(&replica.client().cmd(&format!("REPLICAOF 127.0.0.1 {port}")), "+OK\r\n", "it follows");
    wait_until("it has what was there before", || replica.client().cmd("GET before") == b"$1\r\n1\r\n");
    client.cmd("SET behind 2");
    wait_until("it has what came later", || replica.client().cmd("GET behind") == b"$1\r\n2\r\n");
    wait_until("it tells how far it is", || redis.info("slave0").contains("state=online"));
}

#[test]
fn a_client_with_the_stream_cannot_write_unnoticed() {
    let redis = quick();
    let proxy = Shortstop::start(&redis, "");
    let mut stream = proxy.client();
    assert_reply(&stream.cmd("REPLCONF capa eof"), "+OK\r\n", "REPLCONF");
    stream.send(&command(&[b"REPLCONF", b"ACK", b"0"]));
    assert_reply(&stream.cmd("PING"), "+PONG\r\n", "ACK has no answer");
    stream.send(&command(&[b"PSYNC", b"?", b"-1"]));
    wait_until("it is a replica to Redis", || redis.info("connected_slaves") == "1");
    stream.send(&command(&[b"SET", b"k", b"v"]));
    stream.until_closed();
    assert_reply(&redis.client().cmd("EXISTS k"), ":0\r\n", "it was not sent");
    // In a transaction it would be unknown when the stream begins.
    let mut client: Client = proxy.client();
    client.cmd("MULTI");
    let refused = client.cmd("SYNC");
    assert!(refused.starts_with(b"-ERR "), "{}", show(&refused));
    assert!(client.cmd("EXEC").starts_with(b"-EXECABORT"));
}

#[test]
fn a_user_without_the_right_gets_the_error_of_redis() {
    let redis = quick();
    assert_reply(&redis.client().cmd("ACL SETUSER plain on >pw ~* +@all -sync"), "+OK\r\n", "a user");
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    assert_reply(&client.cmd("AUTH plain pw"), "+OK\r\n", "let in");
    let refused = client.cmd("SYNC");
    assert!(refused.starts_with(b"-NOPERM "), "{}", show(&refused));
}
