//! What a connection costs while it does nothing: resident memory of a fresh process before and after many clients
//! have connected and asked for one key each. Memory that the kernel holds for the sockets is not in it.

use std::time::Duration;

use crate::plain::{Plain, PlainError};
use crate::servers::Server;

/// Idle clients.
pub const CONNECTIONS: usize = 2_000;
/// For a server that gives memory back a little later.
const SETTLE: Duration = Duration::from_secs(1);
/// Exists, as all keys of the comparison do.
const KEY: &str = "key:00000001";

/// Bytes per idle connection; `None` when the system does not tell. Checks that every connection still works afterwards.
///
/// # Errors
/// When a connection is refused, or does not answer before or after.
pub fn bytes_per_connection(server: &Server) -> Result<Option<f64>, PlainError> {
    // What the first requests build (the entry in L1, the upstream connection, tables) belongs to no idle client.
    let mut first = Plain::connect(server.addr)?;
    for _ in 0..10 {
        first.ask(&["GET", KEY])?;
    }
    std::thread::sleep(SETTLE);
    let before = server.resident_bytes();
    let mut clients = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let mut client = Plain::connect(server.addr)?;
        client.ask(&["GET", KEY])?;
        clients.push(client);
    }
    std::thread::sleep(SETTLE);
    let after = server.resident_bytes();
    for client in &mut clients {
        client.ask(&["GET", KEY])?;
    }
    let grown = before.zip(after).map(|(before, after)| after.saturating_sub(before));
    Ok(grown.map(|bytes| bytes as f64 / CONNECTIONS as f64))
}
