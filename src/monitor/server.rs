//! Accepts the monitor's readers: so many at a time, and none for longer than a request's head may take. Knows no path.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tower_service::Service;

use super::routes::{State, router};

/// Readers connected at a time; more wait in the system's queue.
const MOST: usize = 128;

/// How long the head of a request may take to come, the first and every other.
const HEAD: Duration = Duration::from_secs(10);

/// How long a reader may take no byte of an answer.
const UNREAD: Duration = Duration::from_secs(10);

/// How long one connection may last. A reader of the stream connects again.
const LONGEST: Duration = Duration::from_secs(3600);

/// Serves until the runtime ends.
pub(super) async fn run(listener: TcpListener, state: State) {
    let places = Arc::new(Semaphore::new(MOST));
    let router = router(state);
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                crate::seldom!(warn, "the monitor cannot accept a reader", %error);
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let router = router.clone();
        tokio::spawn(async move {
            let serve = hyper::service::service_fn(move |request: Request<Incoming>| router.clone().call(request));
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(UNREAD));
            let stream = Box::pin(stream);
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(64 << 10)
                .serve_connection(TokioIo::new(stream), serve);
            // A reader that goes away or speaks no HTTP is no news.
            let _ = tokio::time::timeout(LONGEST, connection).await;
            drop(place);
        });
    }
}
