//! What happens to a worker's clients when the server, its users or their rights change.

use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::command::Table;
use crate::exchange::pending::Identity;
use crate::upstream::Login;
use crate::worker_state::context::Context;

/// How long to wait after a connection was lost, until it is known whether others were lost with it.
const OTHERS_WERE_LOST: Duration = Duration::from_millis(250);

impl Context {
    /// Replaces the command table. The names of the clients' last commands are kept.
    pub fn set_table(&self, table: Arc<Table>) {
        let before = self.view();
        for client in self.clients.borrow().values() {
            let last = &client.info.last;
            last.set(table.renumbered(last.get(), &before.table));
        }
        self.set_view(|view| view.table = table);
    }

    /// The rights of unauthenticated clients have changed at some time after `since`. Until then such clients had the user number
    /// `was`. Clients that connected after `since` get the new number, because Redis might refuse them as new clients.
    pub fn anonymous_rights_changed(&self, since: Instant, was: u32) {
        for client in self.clients.borrow().values() {
            if client.profile.user() == was && client.info.came_after(since) {
                client.profile.set_identity(self.anonymous());
            }
        }
    }

    /// Redis refused unauthenticated clients at `asked`, as it did at `since`. In between it may have accepted a connection, which stays
    /// accepted: clients that connected meanwhile, and new ones, must not share it.
    pub(crate) fn anonymous_is_locked(&self, since: Instant, asked: Instant) {
        let identity = Rc::clone(&self.anonymous.borrow());
        if identity.login.is_none() && identity.was_accepted_at(asked) {
            self.shared.users.replace_anonymous(identity.user());
            self.anonymous_rights_changed(since, identity.user());
        }
    }

    /// Redis refuses a login from now on. Closes the clients of this login that have no in-flight request, without an error. A
    /// client with an in-flight request is closed when the reply arrives, unless it has re-authenticated by then (AUTH).
    pub(crate) fn refuse(&self, login: &Rc<Login>) {
        for client in self.clients.borrow().values().filter(|client| client.reply_queue.outstanding() == 0) {
            if client.profile.identity().login.as_ref().is_some_and(|known| Rc::ptr_eq(known, login)) {
                client.reply_queue.close();
            }
        }
    }

    /// Redis closed a lane of a login and has accepted the login again. If Redis closed only connections of this user, the user was
    /// deleted and created again (ACL DELUSER, ACL LOAD), or its clients were killed (CLIENT KILL). Then all clients of this user
    /// are closed, on all workers. If connections of other users ended too, Redis or the network was restarted, and no client is
    /// closed.
    pub(crate) fn login_accepted_again(&self, login: &Rc<Login>, closed: Instant) {
        let is_it = |known: &Rc<Identity>| known.login.as_ref().is_some_and(|known| Rc::ptr_eq(known, login));
        let user = self.identities.borrow().iter().filter_map(Weak::upgrade).find(is_it).map(|known| known.user());
        let (Some(user), Some(context)) = (user, self.rc()) else { return };
        tokio::task::spawn_local(async move {
            tokio::time::sleep(OTHERS_WERE_LOST).await;
            let identities: Vec<_> = context.identities.borrow().iter().filter_map(Weak::upgrade).collect();
            let others = identities.iter().filter(|other| other.user() != user);
            let nobody = Rc::clone(&context.anonymous.borrow());
            if others.chain([&nobody]).any(|other| other.was_connected_at(closed)) {
                tracing::info!(
                    "Redis closed the connections of a user and accepts the user again; the user's clients are \
                     closed, as Redis would do"
                );
                context.shared.users.end_number(user);
                context.end_clients_of(vec![user]);
            }
        });
    }

    /// Redis has deleted these users and closed their connections (ACL DELUSER). Their clients are closed on all workers, even if a
    /// user of the same name exists again.
    pub(crate) fn end_users(&self, names: &[Vec<u8>]) {
        let gone = self.shared.users.end(names);
        if !gone.is_empty() {
            self.end_clients_of(gone);
        }
    }

    fn end_clients_of(&self, gone: Vec<u32>) {
        let end = move |context: &Context| {
            for client in context.clients.borrow().values().filter(|client| gone.contains(&client.profile.user())) {
                client.reply_queue.delete_user();
            }
        };
        // On this worker at once: the end of the user's connections may have arrived in the same read.
        end(self);
        self.run_on_all_workers(move |context| end(context));
    }
}
