//! Replies to HELLO, AUTH and SELECT: they change the client's user, protocol version and database.

use std::rc::Rc;

use bytes::Bytes;

use crate::client_state::reply_queue::{ReplyQueue, Slot};
use crate::exchange::greeting::Greeting;
use crate::exchange::pending::{ClientState, FirstSelect};
use crate::replies::answers::fail_with_lost;
use crate::resp::split_first;
use crate::upstream::{Lost, Reply};
use crate::worker_state::context::Context;

impl Greeting {
    /// Redis has accepted the HELLO or AUTH: changes the client's state.
    pub(crate) fn apply(self, context: &Context, client: &ClientState) {
        let profile = &client.profile;
        let has_login = self.login.is_some();
        if let Some(login) = self.login {
            profile.set_identity(context.identity(login));
        }
        if let Some(version) = self.version {
            profile.set_version(version);
        }
        if let Some(name) = self.name {
            *profile.name.borrow_mut() = name;
        }
        if has_login && let Some(context) = context.rc() {
            // Redis closes the connections of a user that is deleted. Open a lane now, so that this is noticed even if the client
            // never sends a request.
            drop(context.lane_of(profile));
        }
    }

    /// HELLO's reply with the client's own id.
    pub(crate) fn with_own_id(&self, reply: &[u8]) -> Bytes {
        const FIELD: &[u8] = b"$2\r\nid\r\n:";
        let found = memchr::memmem::find(reply, FIELD).map(|at| at + FIELD.len());
        let Some((start, length)) = found.and_then(|at| Some((at, memchr::memchr(b'\r', &reply[at..])?))) else {
            return Bytes::copy_from_slice(reply);
        };
        [&reply[..start], self.client.to_string().as_bytes(), &reply[start + length..]].concat().into()
    }
}

/// The reply to a HELLO or AUTH on a shared connection. `back` is the reply to the HELLO that restores the connection's protocol
/// version.
pub(crate) fn greeted(
    context: &Context,
    client: &ClientState,
    slot: Slot,
    greeting: Option<Greeting>,
    reply: &[u8],
    back: Option<&[u8]>,
) {
    let (profile, reply_queue) = (&client.profile, &client.reply_queue);
    let (identity, db, version) = (profile.identity(), profile.db(), profile.version());
    let agreed = !reply.starts_with(b"-");
    match greeting {
        Some(greeting) if agreed => {
            let reply = greeting.with_own_id(reply);
            greeting.apply(context, client);
            reply_queue.fill(slot, Reply::Owned(reply));
        }
        _ => reply_queue.fill(slot, Reply::Borrowed(reply)),
    }
    if agreed && back.is_some_and(|back| back.starts_with(b"-")) {
        // The lane now uses the wrong protocol version.
        context.drop_lane(&identity, db, version);
    }
}

/// The reply to a SELECT on a lane, and to the SELECT that restores the lane's database.
pub(crate) fn selected(
    context: &Context,
    client: &ClientState,
    to: Option<(Rc<ReplyQueue>, Slot)>,
    db: u32,
    replies: &[u8],
) {
    let (first, back) = split_first(replies);
    let Some((reply_queue, slot)) = to else { return };
    let (identity, before, version) = (client.profile.identity(), client.profile.db(), client.profile.version());
    if first == b"+OK\r\n" {
        client.profile.set_db(db);
    }
    reply_queue.fill(slot, Reply::Borrowed(first));
    if first.starts_with(b"-NO") {
        // The right to SELECT was taken away: the next SELECT goes over a connection of its own again.
        identity.may_select.set(false);
    }
    if first == b"+OK\r\n" && back != b"+OK\r\n" {
        // The lane's database is no longer known.
        context.drop_lane(&identity, before, version);
    }
}

/// The reply to the first SELECT of an identity, on a connection of its own.
pub(crate) fn first_selected(select: FirstSelect, reply: Result<Reply<'_>, &Lost>) {
    let FirstSelect { client, slot, identity, db } = select;
    match reply {
        Ok(reply) => {
            identity.may_select.set(reply.bytes() == b"+OK\r\n");
            if reply.bytes() == b"+OK\r\n" {
                client.profile.set_db(db);
            }
            client.reply_queue.fill(slot, reply);
        }
        Err(lost) => {
            fail_with_lost(&client.reply_queue, slot, lost);
            // Later requests in the pipeline are meant for the other database.
            client.reply_queue.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Greeting;

    #[test]
    fn the_id_in_the_reply_is_the_clients() {
        let greeting = Greeting { client: 7, ..Greeting::default() };
        let reply = b"%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:4711\r\n";
        assert_eq!(&greeting.with_own_id(reply)[..], b"%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:7\r\n");
        assert_eq!(&greeting.with_own_id(b"+OK\r\n")[..], b"+OK\r\n");
    }
}
