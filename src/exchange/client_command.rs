//! Commands of the CLIENT family, and HELLO and AUTH in a transaction: what Shortstop has to do when Redis has nothing against it.

use crate::exchange::client_list::Filter;
use crate::exchange::greeting::Greeting;

/// A number that no connection to Redis has.
pub(crate) const NOBODY: &[u8] = b"9223372036854775807";

/// What is to be done, when Redis has nothing against it.
pub enum ClientCommand {
    /// HELLO or AUTH in a transaction.
    Greet(Box<Greeting>),
    /// CLIENT TRACKING in a transaction, with invalidations for this client.
    Redirect(u64),
    Id,
    GetName,
    SetName(Vec<u8>),
    /// lib-name or lib-ver.
    SetInfo(usize, Vec<u8>),
    Info,
    /// None: Redis knows more options than the proxy.
    List(Option<Filter>),
    /// `only`: the old form, of one address, with another answer.
    Kill {
        filter: Option<Filter>,
        only: bool,
    },
    Unblock {
        id: u64,
        how: Vec<Vec<u8>>,
    },
    /// A reply with the number of the client that invalidations go to.
    Redirection,
}
