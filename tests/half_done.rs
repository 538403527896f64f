//! No command is executed under a wrong assumption: if Shortstop cannot execute a command on which later ones depend, the client
//! gets an error and is closed, and no later command is executed. A command that needs a private connection first waits for one, up
//! to `timeouts.connect`.

mod common;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{
    Client, Fault, PATIENCE, Process, Redis, Shortstop, Way, assert_our_error, assert_reply, noise, pipeline_of, run,
    show, wait_until,
};

/// One worker with one private connection.
const ONE: &str = "workers: 1\nlimits: { max_sessions: 1 }\ntimeouts: { connect: 300ms }\n";

/// The same, but clients wait for the private connection longer than a test takes.
const ONE_PATIENT: &str = "workers: 1\nlimits: { max_sessions: 1 }\ntimeouts: { connect: 5m }\n";

/// A client that holds the only private connection.
fn holder(proxy: &Shortstop) -> Client {
    let mut holder = proxy.client();
    assert_reply(&holder.cmd("WATCH held"), "+OK\r\n", "it has the only private connection");
    holder
}

/// Sends `lines`, and returns when they wait to be taken.
fn send_and_settle(client: &mut Client, bystander: &mut Client, lines: &[&str]) {
    client.send(&pipeline_of(lines));
    wait_until("what was sent waits", || line_of(client, bystander).is_some_and(|line| !line.contains(" qbuf=0 ")));
}

/// The line of a client in CLIENT LIST.
fn line_of(client: &mut Client, bystander: &mut Client) -> Option<String> {
    let address = client.stream().local_addr().expect("it is connected").to_string();
    let list = bystander.cmd("CLIENT LIST");
    let list = String::from_utf8_lossy(&list).into_owned();
    list.lines().find(|line| line.contains(&format!(" addr={address} "))).map(str::to_owned)
}

#[test]
fn at_the_limit_a_transaction_waits_for_a_private_connection() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, ONE_PATIENT);
    let mut holder = holder(&proxy);
    let (mut waiting, mut bystander) = (proxy.client(), proxy.client());
    let lines = ["SET before 1", "MULTI", "INCR n", "EXEC", "SET behind 1", "WATCH n", "GET n"];
    send_and_settle(&mut waiting, &mut bystander, &lines);
    assert_reply(&waiting.reply(), "+OK\r\n", "what needs no private connection is answered");
    waiting.assert_silent(Duration::from_millis(30));
    assert_reply(&bystander.cmd("EXISTS behind n"), ":0\r\n", "nothing behind MULTI was executed");
    assert_reply(&holder.cmd("UNWATCH"), "+OK\r\n", "the connection is free");
    let got = waiting.replies(6).concat();
    assert_reply(&got, "+OK\r\n+QUEUED\r\n*1\r\n:1\r\n+OK\r\n+OK\r\n$1\r\n1\r\n", "the transaction was executed");
}

#[test]
fn after_a_timeout_the_client_gets_an_error_and_no_later_command_is_executed() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, ONE);
    let _holder = holder(&proxy);
    for lines in [
        &["MULTI", "SET a 1", "INCR b", "EXEC", "SET c 1"][..],
        &["MULTI", "SET a 1", "DISCARD"],
        &["WATCH k", "MULTI", "SET a 1", "EXEC"],
        &["SUBSCRIBE c", "SET a 1"],
        &["MONITOR", "SET a 1"],
        &["CLIENT TRACKING ON", "SET a 1"],
        &["CLIENT TRACKING ON REDIRECT 1", "SET a 1"],
        &["SCRIPT DEBUG YES", "SET a 1"],
        &["NO.SUCH.COMMAND", "SET a 1"],
    ] {
        let mut client = proxy.client();
        let start = Instant::now();
        client.send(&pipeline_of(lines));
        assert_our_error(&client.reply(), lines[0]);
        assert!(start.elapsed() >= Duration::from_millis(290), "{} waits for a connection", lines[0]);
        assert_reply(&client.until_closed(), "", lines[0]);
        assert_reply(&redis.client().cmd("DBSIZE"), ":0\r\n", lines[0]);
    }
    // A command on which no later one depends fails alone.
    let mut client = proxy.client();
    for line in ["BLPOP l 0", "XREAD BLOCK 0 STREAMS s $"] {
        assert_our_error(&client.cmd(line), line);
        assert_reply(&client.cmd("PING"), "+PONG\r\n", line);
    }
}

#[test]
fn the_longest_waiting_clients_are_served_first() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, ONE_PATIENT);
    let mut holder = holder(&proxy);
    let mut bystander = proxy.client();
    let mut clients: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let push = format!("RPUSH order {number}");
        send_and_settle(client, &mut bystander, &["MULTI", &push, "EXEC"]);
    }
    // One leaves the queue.
    let line = line_of(&mut clients[3], &mut bystander).expect("it is listed");
    let id = line.trim_start_matches("id=").split(' ').next().expect("it has a number").to_owned();
    assert_reply(&bystander.cmd(&format!("CLIENT KILL ID {id}")), ":1\r\n", "one is ended");
    clients[3].until_closed();
    // New clients queue behind those that wait.
    let mut last = proxy.client();
    send_and_settle(&mut last, &mut bystander, &["MULTI", "RPUSH order last", "EXEC"]);
    assert_reply(&holder.cmd("UNWATCH"), "+OK\r\n", "the connection is free");
    for number in [0, 1, 2, 4] {
        assert!(clients[number].replies(3)[2].starts_with(b"*1\r\n:"), "client {number} had its turn");
    }
    assert!(last.replies(3)[2].starts_with(b"*1\r\n:"), "the last one, too");
    let order = redis.client().cmd("LRANGE order 0 -1");
    assert_reply(&order, "*5\r\n$1\r\n0\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n4\r\n$4\r\nlast\r\n", "in their order");
    wait_until("all places are free again", || proxy.stat("proxy_sessions") == 0);
}

#[test]
fn a_client_that_leaves_the_queue_does_not_keep_its_place() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, ONE_PATIENT);
    let mut holder = holder(&proxy);
    let (mut gone, mut stays, mut bystander) = (proxy.client(), proxy.client(), proxy.client());
    send_and_settle(&mut gone, &mut bystander, &["WATCH k"]);
    send_and_settle(&mut stays, &mut bystander, &["WATCH k"]);
    drop(gone);
    assert_reply(&holder.cmd("UNWATCH"), "+OK\r\n", "the connection is free");
    assert_reply(&stays.reply(), "+OK\r\n", "whoever is still there gets it");
}

#[test]
fn a_reload_with_more_private_connections_serves_waiting_clients() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, ONE_PATIENT);
    let _holder = holder(&proxy);
    let (mut waiting, mut bystander) = (proxy.client(), proxy.client());
    send_and_settle(&mut waiting, &mut bystander, &["WATCH k"]);
    proxy.reload("workers: 1\nlimits: { max_sessions: 2 }\ntimeouts: { connect: 5m }\n");
    assert_reply(&waiting.reply(), "+OK\r\n", "there is room for two now");
}

#[test]
fn a_waiting_client_is_not_idle() {
    let redis = Redis::start();
    let limits = "limits: { max_sessions: 1, idle_timeout: 300ms }\ntimeouts: { connect: 900ms }\n";
    let proxy = Shortstop::start(&redis, &format!("workers: 1\n{limits}"));
    let mut holder = proxy.client();
    holder.send(&pipeline_of(&["BLPOP l 0"]));
    wait_until("it is blocked", || redis.info("blocked_clients") == "1");
    let mut waiting = proxy.client();
    waiting.send(&pipeline_of(&["MULTI", "EXEC"]));
    assert_our_error(&waiting.reply(), "it waited for longer than a client may be idle");
}

#[test]
fn waiting_clients_are_answered_before_shortstop_ends() {
    let redis = Redis::start();
    let mut proxy = Process::start(redis.addr(), ONE_PATIENT);
    let mut holder = proxy.client();
    assert_reply(&holder.cmd("WATCH held"), "+OK\r\n", "it has the only private connection");
    let (mut waiting, mut bystander) = (proxy.client(), proxy.client());
    send_and_settle(&mut waiting, &mut bystander, &["MULTI", "SET k v", "EXEC"]);
    proxy.signal("TERM");
    // The client with the connection sends nothing more, so it is closed, and the other gets its turn.
    assert_reply(&waiting.replies(3).concat(), "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n", "what was asked is done");
    assert!(proxy.wait_exit(PATIENCE).success(), "{}", proxy.log());
}

/// Sets Redis's `maxclients` so that it accepts no more connections than it has.
fn take_no_more(direct: &mut Client) {
    let info = direct.cmd("INFO clients");
    let connected = common::field(&info, "connected_clients").expect("INFO has it");
    assert_reply(&direct.cmd(&format!("CONFIG SET maxclients {connected}")), "+OK\r\n", "no more connections");
}

#[test]
fn at_maxclients_of_redis_a_transaction_waits() {
    let redis = Redis::start();
    let mut direct = redis.client();
    let proxy = Shortstop::start(&redis, "workers: 1\ntimeouts: { connect: 5m }\n");
    let mut client = proxy.client();
    assert_reply(&client.cmd("SET a 1"), "+OK\r\n", "connected");
    wait_until("Shortstop has all its connections", || proxy.mode() == "single");
    take_no_more(&mut direct);
    client.send(&pipeline_of(&["MULTI", "INCR a", "EXEC"]));
    client.assert_silent(Duration::from_millis(200));
    assert_reply(&direct.cmd("CONFIG SET maxclients 1000"), "+OK\r\n", "there is room");
    assert_reply(&client.replies(3).concat(), "+OK\r\n+QUEUED\r\n*1\r\n:2\r\n", "executed");

    // Nor can a lane be opened for its protocol.
    let mut third = proxy.client();
    assert_reply(&third.cmd("PING"), "+PONG\r\n", "connected");
    take_no_more(&mut direct);
    assert!(third.cmd("HELLO 3").starts_with(b"%"), "another protocol");
    third.send(&pipeline_of(&["MULTI", "INCR a", "EXEC"]));
    third.assert_silent(Duration::from_millis(200));
    assert_reply(&direct.cmd("CONFIG SET maxclients 1000"), "+OK\r\n", "there is room");
    assert_reply(&third.replies(3).concat(), "+OK\r\n+QUEUED\r\n*1\r\n:3\r\n", "executed");
    assert_reply(&direct.cmd("SET a 2"), "+OK\r\n", "as before");

    let brief = Shortstop::start(&redis, "workers: 1\ntimeouts: { connect: 300ms }\n");
    let mut client = brief.client();
    assert_reply(&client.cmd("SET a 1"), "+OK\r\n", "connected");
    wait_until("Shortstop has all its connections", || brief.mode() == "single");
    take_no_more(&mut direct);
    let start = Instant::now();
    client.send(&pipeline_of(&["MULTI", "INCR a", "EXEC", "SET b 1"]));
    let rest = client.until_closed();
    assert!(start.elapsed() >= Duration::from_millis(290), "it waits");
    assert!(rest.starts_with(b"-"), "an error: {}", show(&rest));
    assert_reply(&direct.cmd("MGET a b"), "*2\r\n$1\r\n1\r\n$-1\r\n", "nothing was executed");
}

#[test]
fn a_failed_command_on_which_later_ones_depend_closes_the_connection() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), "workers: 1\n");
    let mut bystander = proxy.client();
    assert_reply(&bystander.cmd("PING"), "+PONG\r\n", "connected");
    wire.refuse(true);
    wire.cut();
    wait_until("Redis is away", || bystander.cmd("PING").starts_with(b"-ERR shortstop: Redis at"));
    for line in ["SELECT 3", "AUTH default x", "AUTH x", "HELLO 3", "HELLO 2 AUTH default x", "MULTI", "WATCH k"] {
        let mut client = proxy.client();
        // At the first attempt Shortstop may not have noticed yet that the auth link is lost.
        client.send(&pipeline_of(&[line]));
        assert_our_error(&client.reply(), line);
        assert_reply(&client.until_closed(), "", line);
    }
    // No later command depends on these.
    for line in ["GET k", "SET k v", "BLPOP l 1"] {
        assert_our_error(&bystander.cmd(line), line);
    }
    wire.refuse(false);
    wait_until("Redis is back", || bystander.cmd("PING") == b"+PONG\r\n");
}

#[test]
fn commands_behind_a_lost_select_or_login_are_not_executed() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), "workers: 1\n");
    redis.client().cmd("ACL SETUSER writer on >secret ~* &* +@all");
    for (line, part) in [
        ("SELECT 3", &b"$1\r\n3\r\n"[..]),
        ("HELLO 3", b"HELLO\r\n$1\r\n3"),
        ("AUTH writer secret", b"writer"),
        ("HELLO 3 AUTH writer secret", b"writer"),
    ] {
        wait_until("connected", || proxy.client().cmd("PING") == b"+PONG\r\n");
        wait_until("logins are tried", || proxy.client().cmd("AUTH nobody wrong").starts_with(b"-WRONGPASS"));
        let mut client = proxy.client();
        wire.hold_replies_to(part);
        client.send(&pipeline_of(&[line, "SET k v", "GET k"]));
        wire.wait_caught();
        // It is not tried again, or fails again.
        wire.refuse(true);
        wire.cut_caught();
        assert_our_error(&client.reply(), line);
        wire.release();
        wire.refuse(false);
        assert_reply(&client.until_closed(), "", line);
        assert_reply(&redis.client().cmd("EXISTS k"), ":0\r\n", line);
    }
}

#[test]
fn commands_behind_a_lost_transaction_are_not_executed() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), "workers: 1\n");
    for (at, lines) in [
        ("MULTI", &["MULTI", "SET a 1", "EXEC", "SET b 1"][..]),
        ("x-marks-it", &["MULTI", "ECHO x-marks-it", "SET a 1", "EXEC", "SET b 1"]),
        ("x-marks-it", &["WATCH x-marks-it", "MULTI", "SET a 1", "EXEC", "SET b 1"]),
    ] {
        wait_until("connected", || proxy.client().cmd("PING") == b"+PONG\r\n");
        let mut client = proxy.client();
        // The request itself is held, and everything that follows on its connection.
        wire.hold_request(at.as_bytes());
        client.send(&pipeline_of(lines));
        wire.wait_held();
        wire.cut_caught();
        wire.release();
        let rest = client.until_closed();
        assert!(rest.windows(15).any(|part| part == b"-ERR shortstop:"), "{lines:?}: {}", show(&rest));
        assert_reply(&redis.client().cmd("EXISTS a b"), ":0\r\n", &format!("{lines:?}"));
    }
}

/// A command is not sent because too many bytes wait already: the transaction would be executed without it.
#[test]
fn a_transaction_with_a_refused_command_is_not_executed() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy =
        Shortstop::to(wire.addr(), "workers: 1\nlimits: { upstream_pending: 1kb }\ndefaults: { compress: false }");
    let mut client = proxy.client();
    assert_reply(&client.cmd("MULTI"), "+OK\r\n", "begun");
    wire.hold(Way::Down);
    let large = noise(4_000, 1);
    let set = common::filled("SET a $1", &[&large]);
    client.send(&[&set[..], &pipeline_of(&["SET b 1"])].concat());
    // The second one is refused at once. Its reply waits behind the first.
    wait_until("both were taken", || {
        let list = proxy.client().cmd("PROXY INFO upstream");
        common::field(&list, "upstream_errors").is_some_and(|errors| errors != "0")
    });
    wire.release();
    assert_reply(&client.reply(), "+QUEUED\r\n", "the first");
    assert_our_error(&client.reply(), "the second");
    let _ = client.try_send(&pipeline_of(&["EXEC"]));
    assert_reply(&client.until_closed(), "", "the client is closed");
    assert_reply(&redis.client().cmd("EXISTS a b"), ":0\r\n", "nothing was executed");
}

/// A money transfer, as an application writes it with redis-py, which retries when the connection ends.
#[test]
fn a_transfer_of_redis_py_is_done_once_or_not_at_all() {
    let redis = Redis::start();
    let proxy = Process::start(redis.addr(), ONE);
    redis.client().cmd("MSET from 100 to 0");
    let mut holder = proxy.client();
    assert_reply(&holder.cmd("WATCH held"), "+OK\r\n", "it has the only private connection");
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let python =
        std::env::var_os("SHORTSTOP_TEST_PYTHON").map_or_else(|| root.join("target/venv/bin/python"), PathBuf::from);
    let script = root.join("tests/clients/transfer.py");
    let transfer = |attempts: &str| {
        let mut start = Command::new(&python);
        let output = run(start.arg(&script).arg(format!("redis://{}", proxy.addr())).arg(attempts), 6 * PATIENCE);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(transfer("3"), "failed", "there is no private connection");
    assert_reply(&redis.client().cmd("MGET from to"), "*2\r\n$3\r\n100\r\n$1\r\n0\r\n", "nothing was done");
    drop(holder);
    assert_eq!(transfer("3"), "done", "now there is one");
    assert_reply(&redis.client().cmd("MGET from to"), "*2\r\n$2\r\n90\r\n$2\r\n10\r\n", "done once");
}
