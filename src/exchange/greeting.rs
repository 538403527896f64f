//! What HELLO or AUTH makes of a client. Must not know whether Redis has agreed.

use crate::resp::Version;
use crate::upstream::Login;

/// What HELLO or AUTH makes of a client when Redis agrees.
#[derive(Debug, Default)]
pub struct Greeting {
    pub(crate) login: Option<Login>,
    pub(crate) version: Option<Version>,
    pub(crate) name: Option<Vec<u8>>,
    /// The client's number, which stands in HELLO's reply in the place of the connection's.
    pub(crate) client: u64,
    /// Redis does all of it or, with an error, nothing. If not, only Redis knows: it may perform an AUTH and then refuse what stands
    /// behind it.
    pub(crate) is_understood: bool,
}
