//! Finds the private connection of a client that another client refers to by its client id (CLIENT UNBLOCK, CLIENT TRACKING …
//! REDIRECT), on whichever worker it is.

use std::rc::Rc;

use tokio::sync::mpsc;

use crate::client_state::connection_state::Reason;
use crate::exchange::pending::{ClientState, Session};
use crate::worker_state::context::Context;

/// What the connection's id in Redis is needed for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Unblock,
    /// Invalidations are redirected there. So the connection must exist, and it must stay the client's.
    Redirect,
}

/// The id in Redis of a client's private connection.
pub(crate) async fn find(context: &Rc<Context>, id: u64, purpose: Purpose) -> Option<u64> {
    let work = move |context: &Rc<Context>, answers: mpsc::UnboundedSender<u64>| {
        let client = context.clients.borrow().get(&id).filter(|client| !client.info.is_killed()).cloned();
        let Some(client) = client else { return };
        if let (Purpose::Unblock, Some(waiter)) = (purpose, &*client.waiter.borrow()) {
            waiter.expose_id().map(|number| answers.send(number));
            return;
        }
        let session = match (client.session(), purpose) {
            (None, Purpose::Redirect) => offer(context, &client),
            (session, _) => session,
        };
        let Some(session) = session else { return };
        match purpose {
            Purpose::Unblock => session.expose_id(),
            Purpose::Redirect => session.bind(Reason::RedirectTarget),
        }
        if let Some(number) = session.link.id() {
            let _ = answers.send(number);
        } else if purpose == Purpose::Redirect {
            // The id is known once the connection is established.
            tokio::task::spawn_local(async move {
                session.link.settled().await;
                session.link.id().map(|number| answers.send(number))
            });
        }
    };
    context.ask_all_workers(work).await.pop()
}

/// Opens a private connection for a client that has none. The client takes it when it needs one.
fn offer(context: &Rc<Context>, client: &ClientState) -> Option<Rc<Session>> {
    if !context.turns.try_take(context.max_sessions()) {
        return None;
    }
    let profile = &client.profile;
    let identity = profile.identity();
    let link = context.session(&identity, profile.db(), profile.version());
    let session = Rc::new(Session::new(link, identity, Rc::clone(&client.reply_queue)));
    *client.session.borrow_mut() = Rc::downgrade(&session);
    *client.offered.borrow_mut() = Some(Rc::clone(&session));
    Some(session)
}
