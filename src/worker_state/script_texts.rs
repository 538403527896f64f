//! Which scripts Redis knows by their SHA-1. Asked with Shortstop's own login, because a client's user may have no right to ask.

use std::rc::Rc;

use crate::resp::{Version, elements};
use crate::worker_state::ask::{Request, ask};
use crate::worker_state::context::Context;
use crate::worker_state::to_plain::Unable;

/// Whether Redis knows this script.
///
/// # Errors
/// See [`Unable`].
pub(crate) async fn known_to_redis(context: &Rc<Context>, sha: &str) -> Result<bool, Unable> {
    let reply = own_ask(context, vec![b"sCRIPT".to_vec(), b"EXISTS".to_vec(), sha.as_bytes().to_vec()]).await?;
    Ok(elements(&reply).and_then(|mut all| all.next()) == Some(b":1\r\n"))
}

/// Lets Redis know a script.
///
/// # Errors
/// See [`Unable`]: a text that does not compile is refused, too.
pub(crate) async fn load(context: &Rc<Context>, text: &[u8]) -> Result<(), Unable> {
    own_ask(context, vec![b"sCRIPT".to_vec(), b"LOAD".to_vec(), text.to_vec()]).await.map(drop)
}

async fn own_ask(context: &Rc<Context>, request: Request) -> Result<Vec<u8>, Unable> {
    let lane = context.lane(&context.own_identity(), context.first_db(), Version::Resp2);
    let reply = ask(context, &lane, &[request], true).await?;
    if reply.starts_with(b"-") { Err(Unable::Refused(reply)) } else { Ok(reply) }
}
