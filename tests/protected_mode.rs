//! Protected mode: clients from other machines are refused while the port can be used without a password.

mod common;

use std::net::{IpAddr, SocketAddr, UdpSocket};

use common::{Authority, Client, Fault, Process, Redis, Shortstop, Way, assert_reply, wait_until};

/// An address of this machine that is not a loopback address. If there is none, says so on standard error.
fn outer_address() -> Option<IpAddr> {
    // Nothing is sent: the system chooses the address from which it would send.
    let socket = UdpSocket::bind("0.0.0.0:0").expect("any port");
    let address = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()).map(|address| address.ip());
    let address = address.ok().filter(|address| !address.is_loopback() && !address.is_unspecified());
    if address.is_none() {
        common::skipped("this machine has no address but loopback ones, so that protected mode is not tested");
    }
    address
}

/// The reply that a client from another machine gets to a PING.
fn answer(proxy: SocketAddr, from: IpAddr) -> String {
    let mut client = Client::connect((from, proxy.port()).into());
    let _ = client.try_send(b"PING\r\n");
    let reply = client.reply_or_end().unwrap_or_default();
    String::from_utf8(reply).expect("text")
}

const EVERYWHERE: &str = "listen: 0.0.0.0:0\n";

#[test]
fn another_machine_is_refused_while_no_password_is_needed() {
    let Some(outer) = outer_address() else { return };
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, EVERYWHERE);
    let mut client = Client::connect((outer, proxy.addr().port()).into());
    let reply = client.reply();
    assert!(reply.starts_with(b"-DENIED Shortstop is running in protected mode"), "{}", common::show(&reply));
    assert_eq!(client.until_closed(), b"", "it is closed");
    assert_reply(&proxy_on_loopback(&proxy).cmd("PING"), b"+PONG\r\n", "this machine");
    let refused = common::field(&proxy_on_loopback(&proxy).cmd("PROXY INFO"), "proxy_clients_refused");
    assert_eq!(refused.as_deref(), Some("1"));
    // As soon as a password is required, it is accepted.
    redis.client().cmd("CONFIG SET requirepass secret");
    wait_until("the password is noticed", || answer(proxy.addr(), outer).starts_with("-NOAUTH "));
}

fn with_password() -> Redis {
    let redis = Redis::start();
    redis.client().cmd("CONFIG SET requirepass secret");
    redis
}

fn proxy_on_loopback(proxy: &Shortstop) -> Client {
    Client::connect(([127, 0, 0, 1], proxy.addr().port()).into())
}

#[test]
fn protected_mode_can_be_switched_off() {
    let Some(outer) = outer_address() else { return };
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, &format!("{EVERYWHERE}protected_mode: false\n"));
    assert_eq!(answer(proxy.addr(), outer), "+PONG\r\n");
    proxy.reload(EVERYWHERE);
    wait_until("a reload switches it on", || answer(proxy.addr(), outer).starts_with("-DENIED "));
    let process = Process::start_with(redis.addr(), EVERYWHERE, &[("SHORTSTOP_PROTECTED_MODE", "false")], &[]);
    assert_eq!(answer(process.addr(), outer), "+PONG\r\n");
}

#[test]
fn clients_that_act_as_the_user_of_the_url_need_no_password() {
    let Some(outer) = outer_address() else { return };
    let redis = with_password();
    let url = format!("upstream: redis://:secret@{}\n", redis.addr());
    let open = Shortstop::start(&redis, &format!("{EVERYWHERE}{url}clients_without_auth: upstream\n"));
    assert!(answer(open.addr(), outer).starts_with("-DENIED "));
    let closed = Shortstop::start(&redis, &format!("{EVERYWHERE}{url}"));
    assert!(answer(closed.addr(), outer).starts_with("-NOAUTH "));
}

/// Whether Redis requires a password is unknown before it has been reached: until then other machines are refused.
#[test]
fn other_machines_are_refused_until_redis_has_been_asked() {
    let Some(outer) = outer_address() else { return };
    let redis = with_password();
    let wire = Fault::before(redis.addr());
    wire.hold(Way::Down);
    let yaml = format!("{EVERYWHERE}upstream: redis://:secret@{}\ntimeouts: {{ connect: 200ms }}\n", wire.addr());
    let proxy = Shortstop::start(&redis, &yaml);
    let early = answer(proxy.addr(), outer);
    assert!(early.starts_with("-ERR shortstop: protected mode: "), "{early}");
    wire.release();
    wait_until("Redis has been asked", || answer(proxy.addr(), outer).starts_with("-NOAUTH "));
}

#[test]
fn a_client_certificate_counts_like_a_password() {
    let Some(outer) = outer_address() else { return };
    let authority = Authority::new();
    let (shown, mine) = (authority.issue_for(&[&outer.to_string()]), authority.issue_for(&["a client"]));
    let redis = Redis::start();
    let section = format!(
        "tls:\n  listen: 0.0.0.0:0\n  certificate: {}\n  key: {}\n",
        shown.certificate.display(),
        shown.key.display()
    );
    let open = Shortstop::start(&redis, &section);
    let mut client = authority.connector(None).connect((outer, open.tls_addr().port()).into());
    let reply = client.reply();
    assert!(reply.starts_with(b"-DENIED "), "TLS alone keeps nobody out: {}", common::show(&reply));
    assert_eq!(client.until_closed(), b"", "it is closed");
    let closed = Shortstop::start(&redis, &format!("{section}  client_ca: {}\n", authority.file().display()));
    let mut client = authority.connector(Some(&mine)).connect((outer, closed.tls_addr().port()).into());
    assert_reply(&client.cmd("PING"), b"+PONG\r\n", "with a certificate");
}
