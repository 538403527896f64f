//! The host name of Redis moves to another server while the old one lives on, as in a failover of managed Redis.
//!
//! To Shortstop, a moved name looks like an address where new connections reach another server while old ones stay. The fault proxy
//! plays that part.

mod common;

use std::time::Instant;

use common::{
    Client, Fault, PATIENCE, Process, Redis, Shortstop, assert_our_error, assert_reply, field, pipeline_of, show,
    wait_until, wait_within,
};

const EAGER: &str = "defaults:\n  cache: { admit_after: 1 }\n";

/// A primary and its replica, in sync.
fn pair() -> (Redis, Redis) {
    let quick = ["--repl-diskless-sync-delay", "0"];
    let (one, two) = (Redis::start_with(&quick), Redis::start_with(&quick));
    follow(&two, &one);
    (one, two)
}

/// Makes a server the replica of another, and waits until it is in sync.
fn follow(replica: &Redis, master: &Redis) {
    let address = master.addr();
    let line = format!("REPLICAOF {} {}", address.ip(), address.port());
    assert_reply(&replica.client().cmd(&line), "+OK\r\n", "replicaof");
    wait_until("the replica is in step", || replica.info("master_link_status") == "up");
}

/// What managed Redis does: the replica is promoted, the name moves, and the old primary becomes its replica.
fn fail_over(wire: &Fault, from: &Redis, to: &Redis) {
    assert_reply(&to.client().cmd("REPLICAOF NO ONE"), "+OK\r\n", "promoted");
    wire.lead_to(to.addr());
    follow(from, to);
}

fn run_id(info: &[u8]) -> String {
    field(info, "run_id").unwrap_or_else(|| panic!("no run_id in {}", show(info)))
}

/// The server that a client's requests reach, on the shared connection and in a transaction.
fn servers_of(client: &mut Client) -> (String, String) {
    let lane = run_id(&client.cmd("INFO server"));
    client.cmd("MULTI");
    client.cmd("INFO server");
    (lane, run_id(&client.cmd("EXEC")))
}

#[test]
fn every_connection_follows_a_failover() {
    let (old, new) = pair();
    let wire = Fault::before(old.addr());
    let proxy = Shortstop::to(wire.addr(), EAGER);
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    clients[0].cmd("SET k old");
    proxy.warm(&mut clients[0], "k");
    // A connection of each kind: lanes of two protocols and databases, an auth link, private ones.
    clients[1].cmd("HELLO 3");
    clients[1].cmd("SELECT 3");
    clients[1].cmd("SET k3 old");
    clients[2].cmd("AUTH nobody wrong");
    let mut in_transaction = proxy.client();
    in_transaction.cmd("MULTI");
    let mut subscriber = proxy.client();
    subscriber.cmd("SUBSCRIBE c");
    let mut blocked = proxy.client();
    blocked.send(&pipeline_of(&["BLPOP q 0"]));
    wait_until("it waits", || old.info("blocked_clients") == "1");

    fail_over(&wire, &old, &new);
    new.client().cmd("SET k new");
    let begun = Instant::now();
    wait_within(PATIENCE, "a write succeeds", || clients[0].cmd("SET w 0") == b"+OK\r\n");
    assert!(begun.elapsed() < PATIENCE);
    for round in 0..200 {
        let client = &mut clients[round % 4];
        assert_reply(&client.cmd(&format!("SET w{} {round}", round % 7)), "+OK\r\n", "from then on all do");
    }
    assert_reply(&clients[0].cmd("GET k"), "$3\r\nnew\r\n", "nothing of the old server is served");
    let id = new.info("run_id");
    for client in &mut clients {
        assert_eq!(servers_of(client), (id.clone(), id.clone()));
    }
    assert_eq!(servers_of(&mut proxy.client()), (id.clone(), id));
    // Clients with state on the old server are closed.
    for (client, what) in [(&mut in_transaction, "in a transaction"), (&mut subscriber, "a subscriber")] {
        assert_reply(&client.until_closed(), "", what);
    }
    assert!(blocked.reply().starts_with(b"-UNBLOCKED"), "in the old server's own words");
    // All others are the clients of the old server itself.
    wait_until("no connection is left on the old server", || {
        let list = old.client().cmd("CLIENT LIST TYPE normal");
        !String::from_utf8_lossy(&list).contains("name=shortstop")
    });
    assert_eq!(proxy.stat("upstream_moves"), 1);
    wait_until("L1 works again", || proxy.mode() == "single");
    proxy.warm(&mut clients[0], "k");
}

#[test]
fn repeated_failovers_are_followed() {
    let (one, two) = pair();
    let wire = Fault::before(one.addr());
    let proxy = Shortstop::to(wire.addr(), EAGER);
    let mut client = proxy.client();
    client.cmd("SET k 0");
    let mut servers = [&one, &two];
    for round in 1..=4 {
        proxy.warm(&mut client, "k");
        fail_over(&wire, servers[0], servers[1]);
        servers.swap(0, 1);
        servers[0].client().cmd(&format!("SET k {round}"));
        wait_until("writes succeed", || client.cmd("SET w x") == b"+OK\r\n");
        assert_reply(&client.cmd("GET k"), format!("$1\r\n{round}\r\n"), "of the master");
        let id = servers[0].info("run_id");
        assert_eq!(servers_of(&mut proxy.client()), (id.clone(), id));
    }
    assert_eq!(proxy.stat("upstream_moves"), 4);
}

#[test]
fn a_new_connection_never_leads_to_another_server_than_the_old_ones() {
    // The old one remains a primary, so that only the run id of a new connection shows the change.
    let (old, new) = (Redis::start(), Redis::start());
    let wire = Fault::before(old.addr());
    let proxy = Shortstop::to(wire.addr(), "workers: 4\n");
    let mut clients: Vec<Client> = (0..8).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| drop(client.cmd("SET k v")));
    wire.lead_to(new.addr());
    let id = new.info("run_id");
    // The first private connection finds a server other than that of the lanes: all of them move there, and MULTI waits for that.
    let mut first = proxy.client();
    assert_eq!(first.pipeline(&pipeline_of(&["MULTI", "SET x 1", "EXEC"]), 3)[2], b"*1\r\n+OK\r\n");
    for client in &mut clients {
        assert_reply(&client.cmd("GET x"), "$1\r\n1\r\n", "the lanes are where the transaction was");
        assert_eq!(servers_of(client), (id.clone(), id.clone()));
    }
}

#[test]
fn no_value_of_the_old_server_is_served_while_there_is_no_connection_to_the_new_one() {
    let (old, new) = (Redis::start(), Redis::start());
    let wire = Fault::before(old.addr());
    let proxy = Shortstop::to(wire.addr(), "workers: 1\ndefaults:\n  cache: { admit_after: 1 }\n");
    let mut client = proxy.client();
    client.cmd("SET k old");
    proxy.warm(&mut client, "k");
    new.client().cmd("SET k new");
    // The servers at the address are asked for their role, but none of Shortstop's own connections completes its handshake.
    wire.hold_replies_to(b"SETNAME");
    wire.lead_to(new.addr());
    old.client().cmd("CLIENT KILL TYPE normal");
    wait_until("it is seen that it is another server", || proxy.stat("upstream_moves") == 1);
    client.send(&pipeline_of(&["GET k"]));
    proxy.stat("l1_hits");
    wire.release();
    assert_reply(&client.reply(), "$3\r\nnew\r\n", "of the new server");
}

#[test]
fn an_in_flight_reply_is_not_kept_and_an_in_flight_write_has_an_unknown_outcome() {
    let (old, new) = pair();
    let wire = Fault::before(old.addr());
    let proxy = Shortstop::to(wire.addr(), "workers: 1\ndefaults:\n  cache: { admit_after: 1 }\n");
    let (mut reader, mut writer) = (proxy.client(), proxy.client());
    writer.cmd("SET k old");
    writer.cmd("INCR n");
    // The old server executes both, and its replies are held.
    wire.hold_replies_to(b"\r\nk\r\n");
    reader.send(&pipeline_of(&["GET k"]));
    wire.wait_caught();
    writer.send(&pipeline_of(&["INCR n"]));
    wait_until("it is executed", || old.client().cmd("GET n") == b"$1\r\n2\r\n");
    wait_until("and replicated", || new.client().cmd("GET n") == b"$1\r\n2\r\n");
    new.client().cmd("REPLICAOF NO ONE");
    new.client().cmd("SET k new");
    wire.lead_to(new.addr());
    follow(&old, &new);
    let unknown = writer.reply();
    assert_our_error(&unknown, "its outcome is not known");
    assert!(String::from_utf8_lossy(&unknown).contains("may have been executed"), "{}", show(&unknown));
    wire.release();
    assert_reply(&reader.reply(), "$3\r\nnew\r\n", "the read is asked of the new server");
    assert_reply(&reader.cmd("GET k"), "$3\r\nnew\r\n", "and what the old one said is nowhere");
    assert_eq!(proxy.stat("writes_unknown"), 1);
    assert_reply(&new.client().cmd("GET n"), "$1\r\n2\r\n", "not sent twice");
}

#[test]
fn a_primary_that_hangs_is_left_for_another() {
    let (old, new) = pair();
    let wire = Fault::before(old.addr());
    let proxy = Shortstop::to(wire.addr(), "timeouts: { connect: 300ms }\n");
    let mut client = proxy.client();
    client.cmd("SET k v");
    wait_until("it is replicated", || new.client().cmd("GET k") == b"$1\r\nv\r\n");
    // Its connections stay open, but nothing arrives over them.
    old.signal("STOP");
    client.send(&pipeline_of(&["GET k"]));
    assert_reply(&new.client().cmd("REPLICAOF NO ONE"), "+OK\r\n", "promoted");
    wire.lead_to(new.addr());
    assert_reply(&client.reply(), "$1\r\nv\r\n", "the read is repeated there");
    assert_reply(&client.cmd("SET k w"), "+OK\r\n", "a write");
    assert_reply(&new.client().cmd("GET k"), "$1\r\nw\r\n", "of the new server");
    assert_eq!(proxy.stat("upstream_moves"), 1);
}

#[test]
fn a_restart_counts_as_another_server() {
    let mut redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = proxy.client();
    client.cmd("SET k v");
    proxy.warm(&mut client, "k");
    redis.kill();
    redis.restart();
    wait_until("it is noticed", || proxy.stat("upstream_moves") == 1);
    wait_until("writes succeed", || client.cmd("SET other v") == b"+OK\r\n");
    assert_reply(&client.cmd("GET k"), "$-1\r\n", "it kept nothing on disk");
    let id = redis.info("run_id");
    assert_eq!(servers_of(&mut client), (id.clone(), id.clone()));
    let info = client.cmd("PROXY INFO upstream");
    assert_eq!(field(&info, "upstream_run_id"), Some(id));
    assert_eq!(field(&info, "upstream_address"), Some(redis.addr().to_string()));
}

#[test]
fn a_lone_replica_is_used_and_one_line_says_so() {
    let (master, replica) = pair();
    let proxy = Process::start(replica.addr(), EAGER);
    let mode = |proxy: &Process| field(&proxy.client().cmd("PROXY INFO"), "mode").expect("a mode");
    wait_until("it is known", || mode(&proxy) == "off");
    master.client().cmd("SET k v");
    let mut client = proxy.client();
    wait_until("reads are passed on", || client.cmd("GET k") == b"$1\r\nv\r\n");
    let looks = replica.info("total_connections_received").parse::<u64>().expect("a count");
    wait_until("a master is looked for", || {
        assert!(client.cmd("SET k w").starts_with(b"-READONLY"));
        replica.info("total_connections_received").parse::<u64>().expect("a count") > looks + 20
    });
    assert_reply(&client.cmd("PING"), "+PONG\r\n", "the client stays");
    assert_eq!(proxy.log().matches("is a replica").count(), 1, "{}", proxy.log());
    replica.client().cmd("REPLICAOF NO ONE");
    wait_until("it is a master now", || mode(&proxy) == "single");
    assert_reply(&client.cmd("SET k w"), "+OK\r\n", "the same connection");
    assert_eq!(proxy.stat("upstream_moves"), 0);
    assert_eq!(proxy.log().matches("is a primary again").count(), 1, "{}", proxy.log());
}

#[test]
fn a_script_that_returns_readonly_moves_no_connection() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = proxy.client();
    client.cmd("SET k v");
    proxy.warm(&mut client, "k");
    let calls = |command: &str| {
        let stats = redis.info(&format!("cmdstat_{command}"));
        stats.strip_prefix("calls=").and_then(|rest| rest.split(',').next()?.parse::<u64>().ok()).expect("calls=")
    };
    let (looks, connections) = (calls("role"), redis.info("total_connections_received"));
    let begun = Instant::now();
    let script: [&[u8]; 4] = [b"EVAL_RO", b"return redis.error_reply('READONLY not true')", b"1", b"other"];
    for _ in 0..3_000 {
        assert!(client.call(&script).starts_with(b"-READONLY not true"));
    }
    // Once a second by the timer, and once more a second for these.
    let bound = 2 * (begun.elapsed().as_secs() + 2);
    assert!(calls("role") - looks <= bound, "{} looks, at most {bound} expected", calls("role") - looks);
    // Each INFO of this test is a connection.
    let more = redis.info("total_connections_received").parse::<u64>().expect("a count")
        - connections.parse::<u64>().expect("a count");
    assert!(more <= 8, "{more} new connections");
    assert_eq!(proxy.stat("upstream_moves"), 0);
    let hits = proxy.stat("l1_hits");
    client.cmd("GET k");
    assert_eq!(proxy.stat("l1_hits"), hits + 1, "L1 was not emptied");
}

#[test]
fn a_host_name_is_resolved() {
    let redis = Redis::start();
    let port = redis.addr().port();
    let proxy = Process::start(redis.addr(), &format!("upstream: redis://localhost:{port}\n"));
    let mut client = proxy.client();
    assert_reply(&client.cmd("SET k v"), "+OK\r\n", "by its name");
    let info = client.cmd("PROXY INFO upstream");
    assert_eq!(field(&info, "upstream_address"), Some(redis.addr().to_string()));

    let nowhere = Process::start(redis.addr(), &format!("upstream: redis://no-such-host.invalid:{port}\n"));
    let mut client = nowhere.client();
    let refused = client.cmd("SET k v");
    assert_our_error(&refused, "no such name");
    assert!(String::from_utf8_lossy(&refused).contains("no-such-host.invalid"), "{}", show(&refused));
}
