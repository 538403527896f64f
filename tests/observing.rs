//! What people on call can see: whether Redis answers and accepts Shortstop's login, the mode of L1 and its reason, and why values
//! were not kept, clients dropped or L1 flushed. In INFO, in the log, and in PROXY HEALTH.

mod common;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use common::{
    Client, Fault, Nats, PATIENCE, Process, Redis, Shortstop, assert_reply, field, noise, run, show, wait_until,
};

const EAGER: &str = "defaults:\n  cache: { admit_after: 1 }\n";

/// A text field of PROXY INFO.
fn text(client: &mut Client, name: &str) -> String {
    let info = client.cmd("PROXY INFO");
    field(&info, name).unwrap_or_else(|| panic!("PROXY INFO has no {name}: {}", show(&info)))
}

/// The exit code of `--health`, and its output.
fn health(proxy: SocketAddr, asked: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shortstop"));
    command.args(["--listen", &proxy.to_string(), "--health"]).args(asked);
    let output = run(&mut command, PATIENCE);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), said)
}

fn lines_with(process: &Process, what: &str) -> usize {
    process.log().lines().filter(|line| line.contains(what)).count()
}

#[test]
fn a_wrong_or_missing_password_is_logged_at_once_and_is_not_ready() {
    for (login, error) in [(":wrong@", "WRONGPASS"), ("", "NOAUTH")] {
        let redis = Redis::start();
        redis.client().cmd("CONFIG SET requirepass secret");
        let proxy = Process::start(redis.addr(), &format!("upstream: redis://{login}{}\n", redis.addr()));
        wait_until("the log has it", || lines_with(&proxy, "refuses Shortstop's login") > 0);
        let log = proxy.log();
        let line = log.lines().find(|line| line.contains("refuses Shortstop's login")).expect("it is there");
        assert!(line.contains("ERROR") && line.contains(error) && line.contains("REDIS_URL"), "{line}");
        // PROXY HEALTH needs no login. An authenticated client sees more.
        let ready = proxy.client().cmd("PROXY HEALTH ready");
        let why = format!("Redis refuses Shortstop's login: {error} ");
        assert!(ready.starts_with(format!("-NOTREADY {why}").as_bytes()), "{}", show(&ready));
        assert!(proxy.client().cmd("PROXY HEALTH").starts_with(format!("+OK, but {why}").as_bytes()), "alive");
        assert!(!health(proxy.addr(), &["ready"]).0 && health(proxy.addr(), &[]).0);
        let mut client = proxy.client();
        assert_reply(&client.cmd("AUTH secret"), "+OK\r\n", "a login of its own");
        assert_eq!(text(&mut client, "upstream_up"), "0");
        // A client that Redis accepts is served from L1 all the same.
        wait_until("the role may not be asked", || text(&mut client, "mode") == "single");
        assert!(text(&mut client, "upstream_last_error").contains(error));
        assert!(text(&mut client, "upstream_last_error_age_ms").parse::<i64>().is_ok_and(|age| age >= 0));
        // Whatever clients do: there is one line per process, not per connection.
        for _ in 0..20 {
            proxy.client().cmd("GET k");
        }
        assert_eq!(lines_with(&proxy, "refuses Shortstop's login"), 1, "{login}");
        // The password becomes the one in the URL.
        let mut direct = redis.client();
        direct.cmd("AUTH secret");
        let password: &[u8] = if login.is_empty() { b"" } else { b"wrong" };
        assert_reply(&direct.fill("CONFIG SET requirepass $1", &[password]), "+OK\r\n", "changed");
        wait_until("it is ready", || proxy.client().cmd("PROXY HEALTH ready") == b"+OK\r\n");
        wait_until("the log has the end", || lines_with(&proxy, "Redis answers again") == 1);
        assert_eq!(
            lines_with(&proxy, "the user in the upstream URL has no right"),
            0,
            "no user is to blame: {}",
            proxy.log()
        );
        assert_eq!(text(&mut client, "upstream_up"), "1");
        // A refused login says nothing about rights.
        assert_eq!(
            lines_with(&proxy, "has no right to SUBSCRIBE") + lines_with(&proxy, "has no right to CLIENT LIST"),
            0,
            "{login}"
        );
    }
}

#[test]
fn redis_away_is_shown_and_leaves_it_alive_and_ready() {
    let mut redis = Redis::start();
    let proxy = Process::start(redis.addr(), EAGER);
    wait_until("it is ready", || proxy.client().cmd("PROXY HEALTH ready") == b"+OK\r\n");
    let mut client = proxy.client();
    assert_eq!(
        (text(&mut client, "upstream_up"), text(&mut client, "upstream_last_error")),
        ("1".into(), String::new())
    );
    assert_eq!(text(&mut client, "upstream_last_error_age_ms"), "-1");
    redis.kill();
    wait_until("it is seen", || text(&mut client, "upstream_up") == "0");
    assert!(text(&mut client, "upstream_last_error").contains("refused"));
    let ready = client.cmd("PROXY HEALTH ready");
    assert!(ready.starts_with(b"+OK, but Redis does not answer: Connection refused"), "it was once: {}", show(&ready));
    for asked in [&[][..], &["live"], &["ready"]] {
        let (healthy, said) = health(proxy.addr(), asked);
        assert!(healthy && said.contains("Redis does not answer"), "{asked:?}: {said}");
    }
    wait_until("the log has it", || lines_with(&proxy, "Redis does not answer: ") == 1);
    redis.restart();
    wait_until("it is back", || text(&mut client, "upstream_up") == "1");
    wait_until("the log has the end", || {
        proxy.log().lines().any(|line| line.contains("answers again") && line.contains("away="))
    });
    assert_reply(&client.cmd("PROXY HEALTH ready"), "+OK\r\n", "as before");
    // One line for each connection that was lost, and none for the attempts to make it again.
    assert!(lines_with(&proxy, "a connection to Redis was lost") > 0);
    assert_eq!(lines_with(&proxy, "there is no connection to Redis"), 0, "{}", proxy.log());
    assert_eq!(text(&mut client, "last_flush_reason"), "upstream");
    assert!(!text(&mut client, "last_flush_why").is_empty());
    assert!(text(&mut client, "last_flush_age_ms").parse::<i64>().is_ok_and(|age| age >= 0));
}

#[test]
fn health_reveals_nothing_but_reasons() {
    let nowhere = Redis::start();
    let address = nowhere.addr();
    drop(nowhere);
    let proxy = Shortstop::to(address, "");
    let mut client = proxy.client();
    assert!(client.cmd("PROXY HEALTH live").starts_with(b"+OK"), "the process answers");
    assert!(client.cmd("proxy health READY").starts_with(b"-NOTREADY "), "Redis never did");
    for wrong in ["PROXY HEALTH dead", "PROXY HEALTH live now"] {
        assert!(client.cmd(wrong).starts_with(b"-ERR "), "{wrong}");
    }
    assert!(String::from_utf8_lossy(&client.cmd("PROXY HELP")).contains("HEALTH [live|ready]"));

    let primary = Redis::start();
    let (host, port) = (primary.addr().ip().to_string(), primary.addr().port().to_string());
    let replica = Redis::start_with(&["--replicaof", &host, &port]);
    let proxy = Shortstop::start(&replica, "");
    wait_until("it is seen", || proxy.client().cmd("PROXY HEALTH ready") == b"-NOTREADY Redis is a replica\r\n");
    assert_eq!(text(&mut proxy.client(), "mode_reason"), "replica");
    replica.client().cmd("REPLICAOF NO ONE");
    wait_until("it is ready", || proxy.client().cmd("PROXY HEALTH ready") == b"+OK\r\n");
}

#[test]
fn a_missing_right_is_named_with_its_consequence() {
    let redis = Redis::start();
    redis.client().cmd("ACL SETUSER own on >pw ~* &* +@all -role -command -info");
    let proxy = Process::start(redis.addr(), &format!("upstream: redis://own:pw@{}\n{EAGER}", redis.addr()));
    let mut client = proxy.client();
    wait_until("all are seen", || text(&mut client, "upstream_missing_rights") == "role,command,info");
    for (right, cost) in [("ROLE", "a replica"), ("COMMAND", "private connection"), ("INFO", "another server")] {
        let what = format!("no right to {right}: ");
        wait_until(&format!("the log has {right}"), || lines_with(&proxy, &what) == 1);
        let log = proxy.log();
        let line = log.lines().find(|line| line.contains(&what)).expect("it is there");
        assert!(line.contains("WARN") && line.contains(cost), "{line}");
    }
    // It works without them.
    wait_until("Redis has answered", || text(&mut client, "upstream_up") == "1");
    assert_eq!(text(&mut client, "mode"), "single");
    client.cmd("SET k v");
    common::warm(proxy.addr(), &mut client, b"k");
    redis.client().cmd("ACL SETUSER own +role +command +info");
    redis.client().cmd("CLIENT KILL TYPE normal SKIPME yes");
    wait_until("they are there", || text(&mut proxy.client(), "upstream_missing_rights").is_empty());
}

#[test]
fn without_role_info_shows_a_replica() {
    let primary = Redis::start();
    let (host, port) = (primary.addr().ip().to_string(), primary.addr().port().to_string());
    let replica = Redis::start_with(&["--replicaof", &host, &port]);
    replica.client().cmd("ACL SETUSER own on >pw ~* &* +@all -role");
    let proxy = Shortstop::start(&replica, &format!("upstream: redis://own:pw@{}\n", replica.addr()));
    wait_until("it is seen", || text(&mut proxy.client(), "mode_reason") == "replica");
    assert_eq!(proxy.mode(), "off");
}

#[test]
fn each_change_of_the_mode_is_one_line_with_its_reason() {
    let (redis, mut nats) = (Redis::start(), Nats::start());
    let proxy = Process::start(redis.addr(), &format!("nats: {}\n", nats.url()));
    let mut client = proxy.client();
    wait_until("live", || text(&mut client, "mode") == "live");
    assert_eq!(text(&mut client, "mode_reason"), "bus_proven");
    let since: u64 = text(&mut client, "mode_since").parse().expect("seconds");
    assert!(since > 1_700_000_000, "Unix time: {since}");
    nats.kill();
    wait_until("degraded", || text(&mut client, "mode") == "degraded");
    assert!(["bus_in_doubt", "bus_silent"].contains(&text(&mut client, "mode_reason").as_str()));
    assert_eq!(text(&mut client, "last_flush_reason"), "bus");
    nats.restart();
    wait_until("live", || text(&mut client, "mode") == "live");
    let changed = |from: &str| {
        let log = proxy.log();
        let lines: Vec<String> = log
            .lines()
            .filter(|line| line.contains("mode has changed") && line.contains(&format!("from=\"{from}\"")))
            .map(str::to_owned)
            .collect();
        lines
    };
    wait_until("both lines", || changed("live").len() == 1 && !changed("degraded").is_empty());
    let line = changed("live").remove(0);
    assert!(line.contains("INFO") && line.contains("lasted=") && line.contains("degraded_staleness"), "{line}");
}

#[test]
fn refused_clients_are_one_line_with_the_reason() {
    let redis = Redis::start();
    let proxy = Process::start(redis.addr(), "limits: { max_clients: 3 }\n");
    let mut clients: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| assert_reply(&client.cmd("PING"), "+PONG\r\n", "one of three"));
    for _ in 0..15 {
        assert_reply(&proxy.client().reply(), "-ERR max number of clients reached\r\n", "one too many");
    }
    // A full Shortstop is alive.
    assert!(health(proxy.addr(), &["live"]).0 && !health(proxy.addr(), &["ready"]).0);
    wait_until("the log has it", || lines_with(&proxy, "limits.max_clients") == 1);
    assert_eq!(lines_with(&proxy, "clients are refused"), 1);
}

#[test]
fn an_upstream_that_leads_back_is_refused() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = held.local_addr().expect("it is bound");
    drop(held);
    // The upstream is the listener itself.
    for listen in [address.to_string(), format!("0.0.0.0:{}", address.port())] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shortstop"));
        command.args(["--listen", &listen, "--upstream", &format!("redis://localhost:{}", address.port())]);
        let output = run(&mut command, PATIENCE);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("this Shortstop itself listens"), "{said}");
    }
    // Through a path that cannot be found at the start: found with the first connection, instead of a hang.
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Process::start(wire.addr(), "");
    let mut client = proxy.client();
    assert_reply(&client.cmd("SET k v"), "+OK\r\n", "Redis is behind the wire");
    wire.lead_to(proxy.addr());
    wire.cut();
    let mut reply = Vec::new();
    wait_until("it is found", || {
        reply = proxy.client().cmd("GET k");
        reply.starts_with(b"-ERR shortstop: the upstream of this Shortstop leads to this Shortstop itself")
    });
    wait_until("the log says it", || lines_with(&proxy, "leads to this Shortstop itself") > 0);
    wire.lead_to(redis.addr());
    wire.cut();
    wait_until("it is back", || proxy.client().cmd("GET k") == b"$1\r\nv\r\n");
}

#[test]
fn repeated_reads_are_counted() {
    let redis = Redis::start();
    redis.client().cmd("SET k v");
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), "workers: 1\n");
    let mut client = proxy.client();
    client.cmd("PING");
    assert_eq!(proxy.stat("upstream_repeats"), 0);
    wire.lose_reply_to(b"k\r\n", || client.send(b"GET k\r\n"));
    assert_reply(&client.reply(), "$1\r\nv\r\n", "asked again");
    assert_eq!(proxy.stat("upstream_repeats"), 1);
}

#[test]
fn outcomes_are_counted_by_reason() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let yaml = "workers: 1\ndefaults:\n  cache: { admit_after: 2, max_value: 1kb, negative_ttl: 0s }\n\
                limits: { query_buffer: 64kb }\n";
    let proxy = Shortstop::to(wire.addr(), yaml);
    proxy.wait_mode("single");
    let mut client = proxy.client();
    let value = noise(2_000, 1);
    client.call(&[b"SET", b"large", &value]);
    client.cmd("RPUSH list a");
    for (key, reason) in [("large", "too_large"), ("missing", "absent"), ("list", "not_a_value")] {
        client.cmd(&format!("GET {key}"));
        client.cmd(&format!("GET {key}"));
        assert_eq!(proxy.stat(&format!("not_kept_{reason}")), 1, "{key}");
    }
    assert_eq!(proxy.stat("not_kept_not_admitted"), 3, "the first question for each");
    assert_eq!(proxy.stat("proxy_errors_client"), 0);
    client.cmd("PROXY DEBUG PANIC");
    assert_eq!(proxy.stat("proxy_errors_client"), 1, "it is not allowed");
    wire.lose_reply_to(b"counter", || client.send(b"INCR counter\r\n"));
    let reply = client.reply();
    assert!(reply.starts_with(b"-ERR shortstop: "), "{}", show(&reply));
    assert_eq!((proxy.stat("writes_unknown"), proxy.stat("writes_unknown_connection_lost")), (1, 1));
    assert_eq!(proxy.stat("proxy_errors_upstream"), 1);
    let mut greedy = proxy.client();
    greedy.send(b"*2\r\n$3\r\nGET\r\n$1000000\r\n");
    greedy.send(&noise(200_000, 2));
    proxy.wait_stat("proxy_clients_dropped_query_buffer", |count| count == 1);
    assert_eq!(proxy.stat("proxy_clients_dropped"), 1);
}

#[test]
fn the_log_shows_the_address_of_a_dropped_client() {
    let redis = Redis::start();
    let proxy = Process::start(redis.addr(), "limits: { idle_timeout: 50ms }\n");
    let mut client = proxy.client();
    let address = client.stream().local_addr().expect("it is connected").to_string();
    client.until_closed();
    wait_until("the log has it", || {
        proxy.log().lines().any(|line| line.contains("a client was dropped") && line.contains(&address))
    });
}

#[test]
fn the_log_shows_the_address_of_an_unreachable_nats() {
    let (redis, gone) = (Redis::start(), common::free_address());
    let proxy = Process::start(redis.addr(), &format!("nats: nats://user:secret@{gone}\n"));
    wait_until("the log has it", || lines_with(&proxy, "nats: there is no connection") > 0);
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains("nats: there is no connection")).expect("it is there");
    assert!(line.contains(&gone.to_string()) && !line.contains("secret"), "{line}");
}

/// A limit that is too low is logged at the start, not only when clients cannot be accepted.
#[test]
fn too_few_file_descriptors_are_logged_at_the_start() {
    let script = "ulimit -n 64; exec \"$0\" --listen 127.0.0.1:0 --upstream redis://127.0.0.1:1";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_shortstop")]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("there is a shell");
    let log = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut lines = log.lines().map_while(Result::ok);
    let is_said = lines.by_ref().take_while(|line| !line.contains(" ready ")).any(|line| {
        line.contains("limit of file descriptors is below limits.max_clients") && line.contains("files=64")
    });
    child.kill().expect("a child of ours can be killed");
    child.wait().expect("a child of ours can be waited for");
    assert!(is_said);
}

/// Open connections continue to work, so only the log shows it. Once, the log had no such line after a warning about a right.
#[test]
fn a_changed_password_is_logged_with_the_next_connection() {
    let redis = Redis::start();
    redis.client().cmd("ACL SETUSER own on >pw ~* &* +@all -info");
    let proxy = Process::start(redis.addr(), &format!("upstream: redis://own:pw@{}\n", redis.addr()));
    let mut first = proxy.client();
    assert_reply(&first.cmd("WATCH k"), "+OK\r\n", "it has a connection of its own");
    wait_until("a right is missing", || lines_with(&proxy, "has no right to INFO") > 0);
    wait_until("a connection stands that was made before", || text(&mut first, "upstream_up") == "1");
    redis.client().cmd("ACL SETUSER own resetpass >other");
    // For another database it needs Shortstop's own user, also when the right to INFO is known to be missing.
    let mut second = proxy.client();
    assert_reply(&second.cmd("SELECT 1"), "+OK\r\n", "another database");
    assert_reply(&second.cmd("WATCH k"), "+OK\r\n", "a new connection");
    wait_until("the log has it", || lines_with(&proxy, "Redis refuses the login of the user in the upstream URL") > 0);
    assert_eq!(text(&mut second, "upstream_up"), "1", "the connection that stands goes on");
}
