//! The server's limits on connections, and what follows for shared connections: one client's request must not make Redis close a
//! connection that carries requests of others.
//!
//! Read with `CONFIG GET`, if Shortstop's own user has that right. All workers share the limits.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::control::{Control, items, text};

/// Neither of the two limits can be set lower than this.
const LEAST: usize = 1 << 20;

/// Bytes reserved for what Shortstop sends around a client's own bytes.
const SPARED: usize = 16 << 10;

/// The server's limits, as far as they are known.
#[derive(Debug)]
pub struct ServerLimits {
    /// `proto-max-bulk-len`. 0: not known.
    bulk_length: AtomicUsize,
    /// Maximum number of in-flight bytes on a shared connection.
    shared: AtomicUsize,
    /// Counts events that may have changed the limits.
    changes: AtomicUsize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        ServerLimits {
            bulk_length: AtomicUsize::new(0),
            shared: AtomicUsize::new(LEAST - SPARED),
            changes: AtomicUsize::new(0),
        }
    }
}

impl ServerLimits {
    /// Maximum size of one argument. `None`: not known.
    pub fn bulk_length(&self) -> Option<usize> {
        Some(self.bulk_length.load(Ordering::Relaxed)).filter(|length| *length > 0)
    }

    /// Maximum number of in-flight bytes on a shared connection, in one request or in several. While the limits are not known, a
    /// size that every server accepts.
    #[inline]
    pub fn shared(&self) -> usize {
        self.shared.load(Ordering::Relaxed)
    }

    /// The limits may have changed.
    pub fn forget(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.bulk_length.store(0, Ordering::Relaxed);
        self.shared.store(LEAST - SPARED, Ordering::Relaxed);
    }

    fn learn(&self, bulk_length: usize, query_buffer: usize) {
        self.bulk_length.store(bulk_length, Ordering::Relaxed);
        self.shared.store(bulk_length.min(query_buffer).saturating_sub(SPARED), Ordering::Relaxed);
    }
}

/// Reads the limits over one control connection.
pub(super) struct Watch<'a> {
    limits: &'a ServerLimits,
    /// The value of `changes` when the limits were last read.
    changes: usize,
    may_ask: bool,
    is_first: bool,
}

impl<'a> Watch<'a> {
    /// For a new control connection, which may lead to another server.
    pub(super) fn new(limits: &'a ServerLimits) -> Self {
        limits.forget();
        Watch { limits, changes: limits.changes.load(Ordering::Relaxed), may_ask: true, is_first: true }
    }

    /// Reads the limits, unless that is known to be refused.
    ///
    /// # Errors
    /// The control connection broke.
    pub(super) async fn look(&mut self, control: &mut Control) -> io::Result<()> {
        if !self.may_ask {
            return Ok(());
        }
        let before = self.limits.changes.load(Ordering::Relaxed);
        let bulk_length = number(setting(control, "proto-max-bulk-len").await?);
        let query_buffer = number(match bulk_length {
            Some(_) => setting(control, "client-query-buffer-limit").await?,
            None => None,
        });
        let (Some(bulk_length), Some(query_buffer)) = (bulk_length, query_buffer) else {
            self.may_ask = false;
            return Ok(());
        };
        if std::mem::take(&mut self.is_first) {
            self.warn(control).await?;
        }
        // A client's CONFIG SET is counted before Redis executes it. So the last values are current only if none was counted since
        // they were requested.
        if before == self.changes && before == self.limits.changes.load(Ordering::Relaxed) {
            self.limits.learn(bulk_length, query_buffer);
        }
        self.changes = before;
        Ok(())
    }

    /// Warns of settings because of which Redis may close shared connections, whatever Shortstop does.
    async fn warn(&self, control: &mut Control) -> io::Result<()> {
        let outputs = setting(control, "client-output-buffer-limit").await?.unwrap_or_default();
        let normal: Vec<&str> = outputs.split(' ').skip_while(|word| *word != "normal").skip(1).take(2).collect();
        if normal.iter().any(|limit| *limit != "0") {
            tracing::warn!(
                "Redis limits the output buffers of clients (client-output-buffer-limit normal): a large reply to \
                 one client may close a connection that others share. Set it to 0; Shortstop has \
                 limits.output_buffer for that"
            );
        }
        let clients = setting(control, "maxmemory-clients").await?;
        if clients.is_some_and(|limit| limit != "0") {
            tracing::warn!(
                "Redis closes the clients that use most memory (maxmemory-clients), and these may be connections \
                 that Shortstop's clients share. Set it to 0"
            );
        }
        Ok(())
    }
}

/// One setting of the server. `None` if the server does not know it or refuses to tell.
async fn setting(control: &mut Control, name: &'static str) -> io::Result<Option<String>> {
    let reply = control.ask_if_allowed(&["CONFIG", "GET", name]).await?;
    Ok(reply.and_then(|pair| text(items(&pair).get(1)?).map(str::to_owned)))
}

fn number(setting: Option<String>) -> Option<usize> {
    setting?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{LEAST, SPARED, ServerLimits};

    #[test]
    fn while_the_limits_are_unknown_the_lowest_are_assumed() {
        let limits = ServerLimits::default();
        assert_eq!((limits.bulk_length(), limits.shared()), (None, LEAST - SPARED));
        limits.learn(512 << 20, 1 << 30);
        assert_eq!((limits.bulk_length(), limits.shared()), (Some(512 << 20), (512 << 20) - SPARED));
        limits.learn(512 << 20, 2 << 20);
        assert_eq!(limits.shared(), (2 << 20) - SPARED);
        limits.forget();
        assert_eq!((limits.bulk_length(), limits.shared()), (None, LEAST - SPARED));
    }
}
