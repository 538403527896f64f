//! Finds the address of a host. The system's lookup blocks a thread, perhaps for long, and cannot be cancelled; so there is one at a time.

use std::io;
use std::net::SocketAddr;

use tokio::net::lookup_host;
use tokio::task::JoinHandle;

/// A lookup that runs, and what was asked for.
type Running = ((String, u16), JoinHandle<io::Result<Vec<SocketAddr>>>);

/// The lookup that runs, if there is one.
#[derive(Debug, Default)]
pub(super) struct Lookup(Option<Running>);

impl Lookup {
    /// The addresses of a host, the best first.
    ///
    /// # Cancel safety
    /// If dropped before it is ready, the next call waits for the same lookup.
    pub(super) async fn addresses(&mut self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let wanted = (host.to_owned(), port);
        if let Some((_, other)) = self.0.as_mut().filter(|(of, _)| *of != wanted) {
            // For another host, which was configured before. Its outcome does not matter.
            let _ = other.await;
            self.0 = None;
        }
        let (_, lookup) = self.0.get_or_insert_with(|| {
            let of = wanted.clone();
            (wanted, tokio::spawn(async move { Ok(lookup_host(of).await?.collect()) }))
        });
        let found = lookup.await.map_err(io::Error::other);
        self.0 = None;
        found?
    }
}
