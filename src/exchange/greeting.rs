//! How HELLO or AUTH changes a client's state. Must not know whether Redis has accepted the command.

use crate::resp::Version;
use crate::upstream::Login;

/// How HELLO or AUTH changes a client's state if Redis accepts it.
#[derive(Debug, Default)]
pub struct Greeting {
    pub(crate) login: Option<Login>,
    pub(crate) version: Option<Version>,
    pub(crate) name: Option<Vec<u8>>,
    /// The client id, which replaces the connection's id in HELLO's reply.
    pub(crate) client: u64,
    /// Redis carries out the whole command, or nothing and returns an error. If this is false, only Redis knows: it may carry out
    /// an AUTH and then refuse the rest.
    pub(crate) is_understood: bool,
}
