//! Alerts reach alerts.webhook, whatever its server does at first: it refuses, hangs, and then accepts. Also with TLS.

mod common;

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::{Authority, Issued, Process, Redis, Shortstop, wait_within};
use serde_json::Value;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// The longest time until an alert has fired and was accepted.
const ARRIVES: Duration = Duration::from_secs(90);

/// Fires as soon as an alert can.
const FIRES: &str = "alerts:\n  memory_usage_max: 0\n";

/// What a server does with a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Refuses,
    Hangs,
    Accepts,
}

/// A request as it came: head and body.
type Request = (String, String);

/// A server that does this with its first connections, and accepts all others. With a certificate it speaks TLS.
fn server(does: &'static [Does], certificate: Option<Issued>) -> (SocketAddr, Receiver<(Does, Request)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let tls = certificate.map(|issued| {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("ring has them").with_no_client_auth();
        let chain = vec![CertificateDer::from_pem_file(issued.certificate).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_file(issued.key).expect("a key");
        Arc::new(builder.with_single_cert(chain, key).expect("they belong together"))
    });
    let mut does = does.iter().copied();
    let (seen, requests) = channel();
    std::thread::spawn(move || {
        let mut hanging = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let does = does.next().unwrap_or(Does::Accepts);
            let request = match &tls {
                None => answer(&mut stream, does),
                Some(tls) => {
                    let tls = ServerConnection::new(Arc::clone(tls)).expect("a sound configuration");
                    answer(&mut StreamOwned::new(tls, stream.try_clone().expect("a handle")), does)
                }
            };
            if does == Does::Hangs {
                hanging.push(stream);
            }
            let Some(request) = request else { continue };
            if seen.send((does, request)).is_err() {
                return;
            }
        }
    });
    (address, requests)
}

/// Reads a request and answers it. `None`: the client has gone before.
fn answer(stream: &mut (impl Read + Write), does: Does) -> Option<Request> {
    let mut reader = BufReader::new(&mut *stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        reader.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    reader.read_exact(&mut body).ok()?;
    let status = match does {
        Does::Refuses => "503 Service Unavailable",
        Does::Hangs => return Some((head, String::from_utf8(body).expect("text"))),
        Does::Accepts => "204 No Content",
    };
    // The client may have gone.
    let _ = write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n\r\n");
    let _ = stream.flush();
    Some((head, String::from_utf8(body).expect("text")))
}

#[test]
fn an_alert_is_posted_again_until_it_is_accepted() {
    let redis = Redis::start();
    let (address, requests) = server(&[Does::Refuses, Does::Hangs], None);
    let yaml = format!("{FIRES}  webhook: http://{address}/hooks/s3cret?x=1\n  webhook_token: t0ken\n");
    let proxy = Shortstop::start(&redis, &yaml);
    let mut client = proxy.client();
    let next = || requests.recv_timeout(ARRIVES).expect("a request");
    let (first, second, third) = (next(), next(), next());
    assert_eq!([first.0, second.0, third.0], [Does::Refuses, Does::Hangs, Does::Accepts]);
    let (head, body) = &first.1;
    assert!(head.starts_with("post /hooks/s3cret?x=1 http/1.1\r\n"), "{head}");
    for line in ["content-type: application/json", "authorization: bearer t0ken", &format!("host: {address}")] {
        assert!(head.contains(line), "{head}");
    }
    let notice: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!((&notice["alert"], &notice["state"]), (&"memory_usage".into(), &"firing".into()));
    assert!([&second, &third].iter().all(|(_, (_, later))| later == body), "it is the same alert");
    proxy.wait_stat("webhook_sent", |sent| sent == 1);
    assert_eq!((proxy.stat("webhook_failed"), proxy.stat("webhook_dropped")), (2, 0));
    client.cmd("PROXY ALERTS SET memory_usage_max 100%");
    let notice: Value = serde_json::from_str(&next().1.1).expect("JSON");
    assert_eq!((&notice["alert"], &notice["state"]), (&"memory_usage".into(), &"cleared".into()));
}

#[test]
fn a_server_that_hangs_delays_no_shutdown_and_its_path_is_no_news() {
    let redis = Redis::start();
    let (address, requests) = server(&[Does::Refuses, Does::Hangs, Does::Hangs, Does::Hangs, Does::Hangs], None);
    let mut process = Process::start(redis.addr(), &format!("{FIRES}  webhook: http://{address}/hooks/s3cret\n"));
    for does in [Does::Refuses, Does::Hangs] {
        assert_eq!(requests.recv_timeout(ARRIVES).expect("a request").0, does);
    }
    assert_eq!(process.client().cmd("PING"), b"+PONG\r\n");
    process.signal("TERM");
    assert!(process.wait_exit(Duration::from_secs(30)).success());
    let log = process.log();
    assert!(log.contains("an alert was not accepted by alerts.webhook") && log.contains("503"), "{log}");
    assert!(!log.contains("s3cret"), "{log}");
}

#[test]
fn with_tls_the_server_must_have_a_certificate_of_a_known_authority() {
    let redis = Redis::start();
    let authority = Authority::new();
    let other = Authority::new();
    for (roots, accepts) in [(authority.file(), true), (other.file(), false)] {
        let roots = roots.to_str().expect("a text");
        let (address, requests) = server(&[], Some(authority.issue()));
        let yaml = format!("{FIRES}  webhook: https://localhost:{}/\n", address.port());
        let process = Process::start_with(redis.addr(), &yaml, &[("SSL_CERT_FILE", roots)], &[]);
        if accepts {
            let (_, (head, _)) = requests.recv_timeout(ARRIVES).expect("a request");
            assert!(head.starts_with("post / http/1.1\r\n") && !head.contains("authorization"), "{head}");
        } else {
            wait_within(ARRIVES, "an attempt fails", || process.stat("webhook_failed") > 0);
            assert!(requests.try_recv().is_err(), "nothing was sent");
        }
    }
}
