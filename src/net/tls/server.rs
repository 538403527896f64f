//! TLS for clients: which certificate Shortstop presents, and which certificates clients must present.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::{TlsAcceptor, TlsStream};

use crate::config::Finding;
use crate::net::stream::Stream;

use super::pem::{authorities, certificates, private_key, provider, wrong};

/// Shortstop's certificate, and whether clients must present one.
#[derive(Clone, Debug)]
pub struct Server {
    config: Arc<ServerConfig>,
}

impl Server {
    /// Reads the files. With `client_ca`, clients must present a certificate of this authority.
    ///
    /// # Errors
    /// A file cannot be read, has the wrong content, or the key does not belong to the certificate.
    pub fn load(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Server, Finding> {
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| not_usable(&error))?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let roots = Arc::new(authorities("tls.client_ca", file)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                let verifier = verifier.map_err(|error| {
                    wrong(
                        "tls.client_ca",
                        error.to_string(),
                        "the path of a PEM file with the certificate of an authority",
                    )
                })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let (chain, key) = (certificates("tls.certificate", certificate)?, private_key("tls.key", key)?);
        let config = builder.with_single_cert(chain, key).map_err(|error| not_usable(&error))?;
        Ok(Server { config: Arc::new(config) })
    }

    /// Does the handshake with a client. Waits as long as the client takes.
    ///
    /// # Errors
    /// The client does not speak TLS, refuses the certificate, or has not presented an accepted one.
    pub async fn accept(&self, socket: TcpStream) -> io::Result<Stream> {
        let accepted = TlsAcceptor::from(Arc::clone(&self.config)).accept(socket).await?;
        Ok(Stream::Tls(Box::new(TlsStream::Server(accepted))))
    }
}

fn not_usable(error: &tokio_rustls::rustls::Error) -> Finding {
    let remedy = "a certificate and the key that belongs to it";
    wrong("tls.certificate", format!("it cannot be used with tls.key ({error})"), remedy)
}
