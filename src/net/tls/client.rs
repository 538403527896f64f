//! TLS to servers: how Redis's certificate is verified, and which certificate Shortstop presents.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_rustls::{TlsConnector, TlsStream};

use crate::config::{Finding, UpstreamTls};
use crate::net::stream::Stream;

use super::pem::{authorities, certificates, private_key, provider, wrong};

/// The error for a server that answers without TLS.
pub const NO_TLS: &str = "it does not speak TLS; for a server without TLS the URL begins with redis://";

/// The configuration of TLS connections to Redis.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Client {
    /// Reads the files. `host` is the host in the URL. The server's certificate must be for that name, unless `server_name` is set.
    ///
    /// # Errors
    /// A file cannot be read, has the wrong content, or the key does not belong to the certificate.
    pub fn load(tls: &UpstreamTls, host: &str) -> Result<Client, Finding> {
        let name = tls.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|_| {
            let what = format!("'{name}' cannot be the name in a certificate");
            wrong("upstream_tls.server_name", what, "a host name or an IP address")
        })?;
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| not_usable(&error))?;
        let builder = if tls.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        } else {
            builder.with_root_certificates(match &tls.ca {
                Some(file) => authorities("upstream_tls.ca", file)?,
                None => platform_roots().map_err(|why| {
                    let what = format!("it is not set, and {why}");
                    wrong("upstream_tls.ca", what, "the path of a PEM file with the certificate of an authority")
                })?,
            })
        };
        let config = match (&tls.certificate, &tls.key) {
            (Some(certificate), Some(key)) => {
                let chain = certificates("upstream_tls.certificate", certificate)?;
                let key = private_key("upstream_tls.key", key)?;
                builder.with_client_auth_cert(chain, key).map_err(|error| not_usable(&error))?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(Client { config: Arc::new(config), name })
    }

    /// For a server that must have a certificate of an authority that the system trusts. `key` is the setting that names `host`.
    ///
    /// # Errors
    /// The system trusts no authority, or the host cannot be the name in a certificate.
    pub fn trusted_by_system(key: &'static str, host: &str) -> Result<Client, Finding> {
        let unusable = |what: String| wrong(key, what, "http://, or the name of a host with a certificate");
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| unusable(format!("'{host}' cannot be the name in a certificate")))?;
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| unusable(error.to_string()))?;
        let config = builder.with_root_certificates(platform_roots().map_err(unusable)?).with_no_client_auth();
        Ok(Client { config: Arc::new(config), name })
    }

    /// Does the handshake with Redis. Waits as long as the server takes, because Redis may be busy.
    ///
    /// # Errors
    /// The server does not speak TLS, has the wrong certificate, or refuses Shortstop's. The text says what to do.
    pub async fn connect(&self, socket: TcpStream) -> io::Result<Stream> {
        self.handshake(socket).await.map_err(explain)
    }

    /// Does the handshake with a server.
    ///
    /// # Errors
    /// Those of TLS.
    pub async fn handshake(&self, socket: TcpStream) -> io::Result<Stream> {
        let tls = TlsConnector::from(Arc::clone(&self.config)).connect(self.name.clone(), socket).await?;
        Ok(Stream::Tls(Box::new(TlsStream::Client(tls))))
    }
}

/// Adds to a TLS error what to do about it. Returns all other errors unchanged.
pub fn explain(error: io::Error) -> io::Error {
    let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) else { return error };
    let hint = match cause {
        rustls::Error::InvalidMessage(_) => NO_TLS,
        // A bad signature: the authority has the same name as a known one.
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate is from an unknown authority; name the authority's certificate in upstream_tls.ca"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "its certificate is for another name; if that name is right, put it into upstream_tls.server_name",
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired; give Redis a new one"
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure) => {
            "it may require a certificate; name one in upstream_tls.certificate and upstream_tls.key"
        }
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{hint} ({cause})"))
}

/// The authorities that the operating system trusts, or why there are none.
fn platform_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!("the system has no trusted authorities{why}"));
    }
    Ok(roots)
}

fn not_usable(error: &rustls::Error) -> Finding {
    let remedy = "a certificate and the key that belongs to it";
    wrong("upstream_tls.certificate", format!("it cannot be used with upstream_tls.key ({error})"), remedy)
}

/// Accepts any certificate (`insecure`). The server must still have its private key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
