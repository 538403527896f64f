//! Which scripts Redis knows by their SHA-1. Asked with Shortstop's own login, because a client's user may have no right to ask.

use std::rc::Rc;

use crate::resp::{Version, elements};
use crate::upstream::Lost;
use crate::worker_state::ask::{Request, ask};
use crate::worker_state::context::Context;

/// Whether Redis knows these scripts.
///
/// # Errors
/// Redis is away.
pub(crate) async fn known_to_redis(context: &Rc<Context>, shas: [&str; 2]) -> Result<[bool; 2], Lost> {
    let names = [b"sCRIPT".to_vec(), b"EXISTS".to_vec()].into_iter();
    let request: Request = names.chain(shas.iter().map(|sha| sha.as_bytes().to_vec())).collect();
    let reply = own_ask(context, request).await?;
    let mut known = elements(&reply).into_iter().flatten().map(|one| one == b":1\r\n");
    Ok([known.next().unwrap_or(false), known.next().unwrap_or(false)])
}

/// Lets Redis know a script.
///
/// # Errors
/// Redis is away. An error of Redis itself is none: then EVALSHA is answered with NOSCRIPT later, as after SCRIPT FLUSH.
pub(crate) async fn load(context: &Rc<Context>, text: &[u8]) -> Result<(), Lost> {
    own_ask(context, vec![b"sCRIPT".to_vec(), b"LOAD".to_vec(), text.to_vec()]).await.map(drop)
}

async fn own_ask(context: &Rc<Context>, request: Request) -> Result<Vec<u8>, Lost> {
    let lane = context.lane(&context.own_identity(), context.first_db(), Version::Resp2);
    ask(context, &lane, &[request], true).await
}
