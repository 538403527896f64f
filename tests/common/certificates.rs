//! Certificates for tests: an authority and the certificates it issues, as PEM files, and a client that trusts the authority.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Client, PATIENCE};

/// An authority that issues certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
    issued: AtomicUsize,
}

/// A certificate and its key.
pub struct Issued {
    /// PEM file of the certificate.
    pub certificate: PathBuf,
    /// PEM file of the key.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority, which no system trusts.
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of the tests");
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).expect("it is ours");
        Authority { issuer, directory, issued: AtomicUsize::new(0) }
    }

    /// PEM file of its own certificate.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A certificate for 127.0.0.1 and localhost.
    pub fn issue(&self) -> Issued {
        self.issue_for(&["127.0.0.1", "localhost"])
    }

    /// A certificate for these names.
    pub fn issue_for(&self, names: &[&str]) -> Issued {
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, format!("number {number}"));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let path = |what: &str| self.directory.path().join(format!("{number}-{what}.pem"));
        std::fs::write(path("cert"), certificate.pem()).expect("it is ours");
        std::fs::write(path("key"), key.serialize_pem()).expect("it is ours");
        Issued { certificate: path("cert"), key: path("key") }
    }

    /// A client that trusts this authority. `shown` is the client's own certificate.
    pub fn connector(&self, shown: Option<&Issued>) -> Connector {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a sound certificate");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder =
            builder.with_safe_default_protocol_versions().expect("ring has them").with_root_certificates(roots);
        let config = match shown {
            None => builder.with_no_client_auth(),
            Some(Issued { certificate, key }) => {
                let key = PrivateKeyDer::from_pem_file(key).expect("a key");
                builder.with_client_auth_cert(vec![read(certificate)], key).expect("they belong together")
            }
        };
        Connector(Arc::new(config))
    }
}

impl Issued {
    /// Whether this is the certificate that the server presented.
    pub fn is(&self, shown: &[u8]) -> bool {
        read(&self.certificate).as_ref() == shown
    }
}

fn read(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).expect("a certificate")
}

/// Connects with TLS.
#[derive(Clone)]
pub struct Connector(Arc<ClientConfig>);

impl Connector {
    /// A client after the handshake, with the certificate that the server presented.
    pub fn try_connect(&self, address: SocketAddr) -> std::io::Result<(Client, Vec<u8>)> {
        let name = ServerName::from(address.ip());
        let connection = ClientConnection::new(Arc::clone(&self.0), name).map_err(std::io::Error::other)?;
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_nodelay(true)?;
        let mut stream = StreamOwned::new(connection, socket);
        stream.sock.set_read_timeout(Some(PATIENCE))?;
        stream.sock.set_write_timeout(Some(PATIENCE))?;
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let shown = stream.conn.peer_certificates().and_then(|all| all.first()).map(|first| first.to_vec());
        Ok((Client::over(stream), shown.unwrap_or_default()))
    }

    /// A client, after the handshake.
    #[track_caller]
    pub fn connect(&self, address: SocketAddr) -> Client {
        self.try_connect(address).unwrap_or_else(|error| panic!("TLS to {address}: {error}")).0
    }
}
