//! One HTTP request: a message to a server, and whether it was accepted. The caller sets a time-out.

use std::io;

use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;

use crate::config::{Secret, WebhookUrl};
use crate::net::Stream;
use crate::net::tls;

use super::lookup::Lookup;

/// Where messages go.
#[derive(Clone, Debug)]
pub struct Recipient {
    /// The address.
    pub url: WebhookUrl,
    /// Shown to it as a bearer token.
    pub token: Option<Secret>,
}

/// Why a message was not accepted. No text has the path of the URL or the token in it.
#[derive(Debug, Error)]
pub(super) enum PostError {
    /// There is no connection, or it broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The answer is no HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The token, or what the URL names, cannot be part of a request.
    #[error("{0}")]
    Request(#[from] hyper::http::Error),
    /// There can be no TLS.
    #[error("{0}")]
    Tls(String),
    /// The server does not accept it.
    #[error("it answered {0}")]
    Refused(StatusCode),
}

/// Sends a message. Any answer of success means that it was accepted.
pub(super) async fn post(to: &Recipient, message: &str, lookup: &mut Lookup) -> Result<(), PostError> {
    let url = &to.url;
    let request = Request::post(url.path())
        .header(HOST, url.authority())
        .header(USER_AGENT, concat!("shortstop/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json");
    let request = match &to.token {
        Some(token) => request.header(AUTHORIZATION, format!("Bearer {}", token.expose())),
        None => request,
    };
    let request = request.body(message.to_owned())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(connect(to, lookup).await?)).await?;
    let answered = sender.send_request(request);
    tokio::pin!(answered);
    let answer = tokio::select! {
        answer = &mut answered => answer?,
        // The answer may have come with the end. If not, there is an error in its place.
        _ = connection => answered.await?,
    };
    if answer.status().is_success() { Ok(()) } else { Err(PostError::Refused(answer.status())) }
}

/// A connection to the server, with TLS if the URL says so.
async fn connect(to: &Recipient, lookup: &mut Lookup) -> Result<Stream, PostError> {
    let url = &to.url;
    let addresses = lookup.addresses(url.host(), url.port()).await?;
    let socket = TcpStream::connect(&addresses[..]).await?;
    if !url.has_tls() {
        return Ok(Stream::Tcp(socket));
    }
    // The authorities are read each time: alerts are rare, and a new one counts at once.
    let tls = tls::Client::trusted_by_system("alerts.webhook", url.host());
    let tls = tls.map_err(|finding| PostError::Tls(finding.to_string()))?;
    Ok(tls.handshake(socket).await?)
}
