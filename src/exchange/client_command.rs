//! CLIENT commands, and HELLO and AUTH in a transaction: what Shortstop has to do when Redis accepts the command.

use crate::exchange::client_list::Filter;
use crate::exchange::greeting::Greeting;

/// A client id that no connection to Redis has.
pub(crate) const UNUSED_ID: &[u8] = b"9223372036854775807";

/// What Shortstop does when Redis accepts the command.
pub enum ClientCommand {
    /// HELLO or AUTH in a transaction.
    Greet(Box<Greeting>),
    /// CLIENT TRACKING in a transaction, with invalidations redirected to the client with this id.
    Redirect(u64),
    Id,
    GetName,
    SetName(Vec<u8>),
    /// The index of lib-name or lib-ver in [`ClientInfo::library`], and the new text.
    SetInfo(usize, Vec<u8>),
    Info,
    /// `None` if the filter uses an option that Shortstop does not know.
    List(Option<Filter>),
    /// `only` is set for the old form with one address, whose answer differs.
    Kill {
        filter: Option<Filter>,
        only: bool,
    },
    Unblock {
        id: u64,
        how: Vec<Vec<u8>>,
    },
    /// A reply that contains the client id to which invalidations go.
    Redirection,
}
