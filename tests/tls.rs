//! TLS: Shortstop's clients, and Shortstop as a client of a real Redis with TLS.

mod common;

use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{
    Authority, Client, Connector, Issued, PATIENCE, Process, Redis, Shortstop, assert_reply, bulk, command, field,
    noise, pipeline_of, run, stat, wait_until,
};
use shortstop::app::App;
use shortstop::config::Config;

/// A Redis with a TLS port and a plain port.
struct TlsRedis {
    redis: Redis,
    tls: SocketAddr,
}

impl TlsRedis {
    /// `None` if [`Redis::has_tls`] is `false`. With `client_ca`, clients must present a certificate.
    fn start(authority: &Authority, shown: &Issued, client_ca: bool) -> Option<TlsRedis> {
        if !Redis::has_tls() {
            return None;
        }
        let tls = common::free_address();
        let path = |path: &PathBuf| path.to_str().expect("text").to_owned();
        let redis = Redis::start_with(&[
            "--tls-port",
            &tls.port().to_string(),
            "--tls-cert-file",
            &path(&shown.certificate),
            "--tls-key-file",
            &path(&shown.key),
            "--tls-ca-cert-file",
            &path(&authority.file()),
            "--tls-auth-clients",
            if client_ca { "yes" } else { "no" },
        ]);
        Some(TlsRedis { redis, tls })
    }

    fn url(&self) -> String {
        format!("rediss://{}", self.tls)
    }
}

/// The section `tls` with this certificate. With `client_ca`, clients must present one, too.
fn tls_section(shown: &Issued, client_ca: Option<&Authority>) -> String {
    let ca = client_ca.map(|ca| format!("\n  client_ca: {}", ca.file().display())).unwrap_or_default();
    let (certificate, key) = (shown.certificate.display(), shown.key.display());
    format!("tls:\n  listen: 127.0.0.1:0\n  certificate: {certificate}\n  key: {key}{ca}\n")
}

fn same_as_plain(plain: &mut Client, tls: &mut Client, request: &[u8]) {
    plain.send(request);
    tls.send(request);
    assert_eq!(plain.reply(), tls.reply(), "{}", common::show(request));
}

#[test]
fn a_tls_client_gets_the_same_replies_as_a_plain_one() {
    let authority = Authority::new();
    let shown = authority.issue();
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &tls_section(&shown, None));
    let (plain, tls) = (proxy.client(), authority.connector(None).connect(proxy.tls_addr()));
    let (mut plain, mut tls) = (plain.speaking(3), tls.speaking(3));
    for line in ["SET k v", "GET k", "GET k", "GET k", "MGET k none", "STRLEN k", "PING", "HGETALL none"] {
        same_as_plain(&mut plain, &mut tls, &pipeline_of(&[line]));
    }
    assert_reply(&proxy.warm(&mut tls, "k"), bulk(b"v"), "from L1 over TLS");
    let large = noise(3 << 20, 7);
    assert_reply(&tls.call(&[b"SET", b"large", &large]), b"+OK\r\n", "a large request");
    assert_reply(&tls.cmd("GET large"), bulk(&large), "a large reply");
    let info = String::from_utf8_lossy(&tls.cmd("CLIENT INFO")).into_owned();
    assert!(info.contains(" addr=127.0.0.1:") && info.contains(&format!(" laddr={} ", proxy.tls_addr())), "{info}");
}

#[test]
fn sessions_work_over_tls() {
    let authority = Authority::new();
    let shown = authority.issue();
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &tls_section(&shown, None));
    let connector = authority.connector(None);
    let (mut one, mut other) = (connector.connect(proxy.tls_addr()), connector.connect(proxy.tls_addr()));
    assert_reply(&one.cmd("SUBSCRIBE c"), b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", "subscribed");
    assert_reply(&other.cmd("PUBLISH c hello"), b":1\r\n", "heard");
    assert_reply(&one.reply(), b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n", "the message");
    let transaction = ["MULTI", "SET t 1", "INCR t", "EXEC"];
    other.send(&pipeline_of(&transaction));
    let replies = other.replies(4);
    assert_reply(&replies[3], b"*2\r\n+OK\r\n:2\r\n", "a transaction");
}

/// A client that sends and does not read: Shortstop buffers its replies, and stops reading from it. Nothing is lost when it reads.
#[test]
fn a_tls_client_that_reads_late_gets_everything() {
    let authority = Authority::new();
    let shown = authority.issue();
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &tls_section(&shown, None));
    let mut client = authority.connector(None).connect(proxy.tls_addr());
    let value = noise(1 << 20, 3);
    client.call(&[b"SET", b"large", &value]);
    // Far more than all buffers on the path hold.
    let count = 64;
    client.send(&pipeline_of(&vec!["GET large"; count]));
    wait_until("Shortstop holds replies that the client does not take", || {
        stat(proxy.addr(), "buffers_bytes") > 1 << 20
    });
    for round in 0..count {
        assert_reply(&client.reply(), bulk(&value), &format!("reply {round}"));
    }
    assert_reply(&client.cmd("PING"), b"+PONG\r\n", "it goes on");
}

#[test]
fn a_tls_client_that_neither_sends_nor_reads_is_dropped() {
    let authority = Authority::new();
    let shown = authority.issue();
    let redis = Redis::start();
    let yaml = format!("{}limits: {{ stall_timeout: 300ms }}\n", tls_section(&shown, None));
    let proxy = Shortstop::start(&redis, &yaml);
    let mut client = authority.connector(None).connect(proxy.tls_addr());
    client.call(&[b"SET", b"large", &noise(1 << 20, 3)]);
    client.send(&pipeline_of(&vec!["GET large"; 64]));
    proxy.wait_stat("proxy_clients_dropped", |count| count == 1);
}

/// As with TCP: a client that half-closes gets its pending replies, and then the end.
#[test]
fn a_half_closed_tls_client_gets_its_replies() {
    let authority = Authority::new();
    let shown = authority.issue();
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &tls_section(&shown, None));
    let connector = authority.connector(None);
    let requests = pipeline_of(&["SET h 1", "GET h", "ECHO last"]);
    let expected = b"+OK\r\n$1\r\n1\r\n$4\r\nlast\r\n";

    let mut polite = connector.connect(proxy.tls_addr());
    polite.send(&requests);
    polite.half_close();
    assert_reply(&polite.until_closed(), expected, "after a close_notify");

    let mut rude = connector.connect(proxy.tls_addr());
    rude.send(&requests);
    rude.stream().shutdown(Shutdown::Write).expect("the socket is open");
    assert_reply(&rude.until_closed(), expected, "after the end of the TCP connection without a close_notify");

    // The end is announced, not a truncation: rustls reports an end without close_notify as an error.
    let mut quit = connector.connect(proxy.tls_addr());
    quit.send(&pipeline_of(&["QUIT"]));
    assert_reply(&quit.until_closed(), b"+OK\r\n", "QUIT");
    proxy.wait_stat("proxy_clients", |count| count == 1);
}

#[test]
fn with_client_ca_clients_must_present_a_certificate() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let shown = authority.issue();
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &tls_section(&shown, Some(&authority)));
    let mine = authority.issue_for(&["a client"]);
    let mut client = authority.connector(Some(&mine)).connect(proxy.tls_addr());
    assert_reply(&client.cmd("PING"), b"+PONG\r\n", "with a certificate");
    // In TLS 1.3 the client has completed its handshake when the server refuses it.
    let refused = |connector: &Connector, what: &str| {
        let Ok((mut client, _)) = connector.try_connect(proxy.tls_addr()) else { return };
        let answer = client.try_send(&command(&[b"PING"])).and_then(|()| client.try_reply());
        assert!(matches!(answer, Err(_) | Ok(None)), "{what}");
    };
    refused(&authority.connector(None), "without a certificate");
    refused(&authority.connector(Some(&stranger.issue())), "with the certificate of another authority");
    proxy.wait_stat("proxy_clients_refused", |count| count == 2);
}

#[test]
fn a_reload_changes_the_certificate_and_keeps_the_connections() {
    let authority = Authority::new();
    let (old, new) = (authority.issue(), authority.issue());
    let redis = Redis::start();
    // The files keep their names, as with certbot.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let used = Issued { certificate: directory.path().join("c.pem"), key: directory.path().join("k.pem") };
    let put = |issued: &Issued| {
        std::fs::copy(&issued.certificate, &used.certificate).expect("it is ours");
        std::fs::copy(&issued.key, &used.key).expect("it is ours");
    };
    put(&old);
    let yaml = tls_section(&used, None).replace("127.0.0.1:0", &common::free_address().to_string());
    let process = Process::start(redis.addr(), &yaml);
    let tls: SocketAddr =
        yaml.lines().find_map(|line| line.trim().strip_prefix("listen: ")?.parse().ok()).expect("there");
    let connector = authority.connector(None);
    let shown = || connector.try_connect(tls).expect("TLS").1;
    let (mut client, first) = connector.try_connect(tls).expect("TLS");
    assert!(old.is(&first), "the first certificate");
    client.send(&pipeline_of(&["SUBSCRIBE c"]));
    client.reply();

    put(&new);
    process.signal("HUP");
    wait_until("new connections get the new certificate", || new.is(&shown()));
    redis.client().cmd("PUBLISH c hello");
    assert_reply(&client.reply(), b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n", "the old connection goes on");

    std::fs::write(&used.key, "no key").expect("it is ours");
    process.signal("HUP");
    wait_until("the log says what is wrong", || process.log().contains("tls.key: "));
    assert!(new.is(&shown()), "the certificate that can be used stays");
}

#[test]
fn without_a_plain_port_there_is_only_tls() {
    let authority = Authority::new();
    let shown = authority.issue();
    let redis = Redis::start();
    let yaml = format!("listen: \"\"\nupstream: {}\nworkers: 1\n{}", redis.url(), tls_section(&shown, None));
    let app = App::start(Config::from_yaml(&yaml).expect("sound")).expect("it starts");
    assert_eq!(app.addresses().plain, None);
    let address = app.addresses().tls.expect("TLS");
    let mut client = authority.connector(None).connect(address);
    assert_reply(&client.cmd("PING"), b"+PONG\r\n", "over TLS");
    let info = client.cmd("PROXY INFO proxy");
    assert_eq!(field(&info, "listen"), Some(format!("tls://{address}")));
    // A client that speaks RESP there gets no reply, and is dropped.
    let mut plain = Client::connect(address);
    let _ = plain.try_send(&command(&[b"PING"]));
    assert!(!plain.until_closed().starts_with(b"+PONG"));
}

#[test]
fn errors_of_certificates_are_reported_at_the_start() {
    let authority = Authority::new();
    let (one, other) = (authority.issue(), authority.issue());
    let start = |yaml: String| {
        let yaml = format!("listen: 127.0.0.1:0\nworkers: 1\n{yaml}");
        let started = Config::from_yaml(&yaml).map_err(|error| error.to_string());
        started.and_then(|config| App::start(config).map(drop).map_err(|error| error.to_string()))
    };
    let error = |yaml: String| start(yaml).expect_err("it must not start");
    let missing = Issued { certificate: "/nowhere/c.pem".into(), key: one.key.clone() };
    let mixed = Issued { certificate: one.certificate.clone(), key: other.key.clone() };
    let swapped = Issued { certificate: one.key.clone(), key: one.certificate.clone() };
    for (yaml, at, hint) in [
        (tls_section(&missing, None), "tls.certificate: /nowhere/c.pem", "PEM file"),
        (tls_section(&mixed, None), "tls.certificate", "the key that belongs to it"),
        (tls_section(&swapped, None), "tls.certificate", "has no certificate"),
        ("tls: { listen: 127.0.0.1:0 }".to_owned(), "tls.certificate", "type the path"),
        ("tls: { key: k.pem }".to_owned(), "tls.listen", "type an address"),
        ("upstream: rediss://h\nupstream_tls: { ca: /nowhere/ca.pem }".to_owned(), "upstream_tls.ca", "PEM file"),
        ("upstream: rediss://h\nupstream_tls: { key: k.pem }".to_owned(), "upstream_tls.certificate", "go together"),
        (
            "upstream: rediss://h\nupstream_tls: { server_name: \"a b\" }".to_owned(),
            "upstream_tls.server_name",
            "a host name",
        ),
    ] {
        let error = error(yaml);
        assert!(error.contains(at) && error.contains(hint), "{error}");
    }
}

#[test]
fn redis_with_tls_is_used_for_everything() {
    let authority = Authority::new();
    let shown = authority.issue();
    let Some(redis) = TlsRedis::start(&authority, &shown, false) else { return };
    let ca = authority.file();
    let yaml = format!("upstream: {}\nupstream_tls:\n  ca: {}\n", redis.url(), ca.display());
    let proxy = Shortstop::start(&redis.redis, &yaml);
    let mut client = proxy.client();
    assert_reply(&client.cmd("SET k v"), b"+OK\r\n", "a write");
    assert_reply(&proxy.warm(&mut client, "k"), bulk(b"v"), "a read from L1");
    let value = noise(4 << 20, 5);
    assert_reply(&client.call(&[b"SET", b"large", &value]), b"+OK\r\n", "a large request");
    assert_reply(&client.cmd("GET large"), bulk(&value), "a large reply");
    // A session, a login on an auth link, and a blocking command.
    assert_reply(&client.cmd("ACL SETUSER ann on >pw ~* +@all"), b"+OK\r\n", "a user");
    assert_reply(&client.cmd("AUTH ann pw"), b"+OK\r\n", "a login");
    client.send(&pipeline_of(&["MULTI", "INCR n", "EXEC"]));
    assert_reply(&client.replies(3)[2], b"*1\r\n:1\r\n", "a transaction");
    client.send(&pipeline_of(&["BLPOP list 10"]));
    proxy.client().cmd("RPUSH list x");
    assert_reply(&client.reply(), b"*2\r\n$4\r\nlist\r\n$1\r\nx\r\n", "a blocking command");
    // No connection of Shortstop's uses Redis's plain port: all of them, including the control plane's, use TLS.
    let list = String::from_utf8(redis.redis.client().cmd("CLIENT LIST")).expect("text");
    let ours: Vec<&str> = list.lines().filter(|line| line.contains("name=shortstop:")).collect();
    let port = format!("laddr={} ", redis.tls);
    assert!(ours.len() >= 3 && ours.iter().all(|line| line.contains(&port)), "{list}");
}

#[test]
fn a_redis_that_requires_a_certificate_gets_one() {
    let authority = Authority::new();
    let (shown, mine) = (authority.issue(), authority.issue_for(&["a client"]));
    let Some(redis) = TlsRedis::start(&authority, &shown, true) else { return };
    let ca = authority.file();
    let section = format!("upstream: {}\nupstream_tls:\n  ca: {}\n", redis.url(), ca.display());
    let without = Shortstop::start(&redis.redis, &section);
    let reply = without.client().cmd("PING");
    assert!(reply.starts_with(b"-ERR shortstop: Redis at "), "{}", common::show(&reply));
    // What Redis says before it closes the connection may be lost with it.
    wait_until("the error says what to do", || {
        String::from_utf8_lossy(&without.client().cmd("PING")).contains("name one in upstream_tls.certificate")
    });
    let (certificate, key) = (mine.certificate.display(), mine.key.display());
    let with = Shortstop::start(&redis.redis, &format!("{section}  certificate: {certificate}\n  key: {key}\n"));
    assert_reply(&with.client().cmd("PING"), b"+PONG\r\n", "with a certificate");
}

/// A wrong server is not accepted as Redis, and the error says what to do.
#[test]
fn only_the_right_server_is_accepted_as_redis() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let shown = authority.issue_for(&["redis.internal"]);
    let Some(redis) = TlsRedis::start(&authority, &shown, false) else { return };
    let answer = |section: &str| {
        let proxy = Shortstop::start(&redis.redis, &format!("upstream: {}\nupstream_tls:\n{section}", redis.url()));
        String::from_utf8_lossy(&proxy.client().cmd("PING")).into_owned()
    };
    let (ca, other) = (authority.file(), stranger.file());
    let unknown = answer(&format!("  ca: {}\n  server_name: redis.internal\n", other.display()));
    assert!(unknown.starts_with("-ERR shortstop: ") && unknown.contains("upstream_tls.ca"), "{unknown}");
    let name = answer(&format!("  ca: {}\n", ca.display()));
    assert!(name.starts_with("-ERR shortstop: ") && name.contains("upstream_tls.server_name"), "{name}");
    let named = answer(&format!("  ca: {}\n  server_name: redis.internal\n", ca.display()));
    assert_eq!(named, "+PONG\r\n");
    assert_eq!(answer("  insecure: true\n"), "+PONG\r\n");

    let plain = format!("upstream: rediss://{}\nupstream_tls: {{ insecure: true }}\n", redis.redis.addr());
    let proxy = Shortstop::start(&redis.redis, &plain);
    let reply = String::from_utf8_lossy(&proxy.client().cmd("PING")).into_owned();
    assert!(reply.contains("does not speak TLS"), "{reply}");
}

#[test]
fn an_insecure_upstream_causes_a_warning() {
    let redis = Redis::start();
    let yaml = format!("upstream: rediss://{}\nupstream_tls: {{ insecure: true }}\n", redis.addr());
    let insecure = Process::start(redis.addr(), &yaml);
    wait_until("a warning", || insecure.log().contains("WARN") && insecure.log().contains("upstream_tls.insecure"));
    let unused = Process::start(redis.addr(), "upstream_tls: { server_name: h }\n");
    wait_until("a warning", || unused.log().contains("the connection to Redis has no TLS"));
}

/// A busy Redis does not complete the TLS handshake. Shortstop waits for it as without TLS, and does not give up after
/// `timeouts.connect`.
#[test]
fn a_busy_redis_with_tls_is_not_given_up() {
    let authority = Authority::new();
    let shown = authority.issue();
    let Some(redis) = TlsRedis::start(&authority, &shown, false) else { return };
    let ca = authority.file();
    let yaml =
        format!("upstream: {}\nupstream_tls:\n  ca: {}\ntimeouts: {{ connect: 100ms }}\n", redis.url(), ca.display());
    let proxy = Shortstop::start(&redis.redis, &yaml);
    assert_reply(&proxy.client().cmd("PING"), b"+PONG\r\n", "it works");
    redis.redis.signal("STOP");
    // A private connection must be opened now.
    let mut client = proxy.client();
    client.send(&pipeline_of(&["BLPOP none 1"]));
    client.assert_silent(Duration::from_millis(500));
    redis.redis.signal("CONT");
    assert_reply(&client.reply(), b"*-1\r\n", "answered once Redis is there again");
}

#[test]
fn redis_cli_over_tls() {
    let authority = Authority::new();
    let (shown, mine) = (authority.issue(), authority.issue_for(&["a client"]));
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &tls_section(&shown, Some(&authority)));
    let cli = |arguments: &[&str]| {
        let mut start = Command::new("redis-cli");
        start.args(["-h", "127.0.0.1", "-p", &proxy.tls_addr().port().to_string(), "--tls", "--cacert"]);
        start.arg(authority.file()).arg("--cert").arg(&mine.certificate).arg("--key").arg(&mine.key);
        let output = run(start.args(arguments).stdin(Stdio::null()), 3 * PATIENCE);
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let first = cli(&["SET", "k", "a value"]);
    if first.contains("Unrecognized option") {
        common::skipped("this redis-cli was built without TLS");
        return;
    }
    assert_eq!(first, "OK\n");
    assert_eq!(cli(&["GET", "k"]), "a value\n");
    assert_eq!(cli(&["-3", "HSET", "h", "a", "1"]), "1\n");
    let latency = cli(&["-r", "3", "-i", "0", "PING"]);
    assert_eq!(latency, "PONG\nPONG\nPONG\n");
}

#[test]
fn redis_py_over_tls() {
    let authority = Authority::new();
    let (shown, mine) = (authority.issue(), authority.issue_for(&["a client"]));
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &tls_section(&shown, Some(&authority)));
    let script = r#"
import sys, redis
port, ca, cert, key = sys.argv[1:]
for protocol in (2, 3):
    r = redis.Redis(host="127.0.0.1", port=int(port), ssl=True, ssl_ca_certs=ca, ssl_certfile=cert, ssl_keyfile=key,
                    protocol=protocol)
    value = bytes(range(256)) * 10000
    assert r.set("py", value)
    assert r.get("py") == value and r.get("py") == value
    with r.pipeline() as pipe:
        assert pipe.incr("n").get("py").execute()[1] == value
    with r.pubsub() as p:
        p.subscribe("c")
        assert p.get_message(timeout=5)["type"] == "subscribe"
        r.publish("c", "x")
        assert p.get_message(timeout=5)["data"] == b"x"
    r.close()
print("fine")
"#;
    let python = common::python();
    let mut start = Command::new(python);
    start.args(["-c", script, &proxy.tls_addr().port().to_string()]);
    start.arg(authority.file()).arg(&mine.certificate).arg(&mine.key);
    let output = run(start.stdin(Stdio::null()), 3 * PATIENCE);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "fine\n", "{}", String::from_utf8_lossy(&output.stderr));
}

/// Node's own TLS, without a Redis library: `make compat` tests libraries.
#[test]
fn node_over_tls() {
    let authority = Authority::new();
    let shown = authority.issue();
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &tls_section(&shown, None));
    let script = r#"
const [port, ca] = process.argv.slice(1);
const socket = require("tls").connect({ host: "127.0.0.1", port, ca: require("fs").readFileSync(ca) });
socket.on("data", (bytes) => process.stdout.write(bytes));
socket.on("error", (error) => { console.error(error); process.exit(1); });
socket.on("secureConnect", () => socket.end("SET node 1\r\nGET node\r\nQUIT\r\n"));
"#;
    let mut start = Command::new("node");
    start.args(["-e", script, &proxy.tls_addr().port().to_string()]).arg(authority.file()).stdin(Stdio::null());
    if let Err(error) = Command::new("node").arg("--version").output() {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        common::skipped("node is not installed, so that its TLS is not tested");
        return;
    }
    let output = run(&mut start, 3 * PATIENCE);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, "+OK\r\n$1\r\n1\r\n+OK\r\n", "{}", String::from_utf8_lossy(&output.stderr));
}
