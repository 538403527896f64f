//! SELECT, QUIT and PROXY. Shortstop answers these itself: only it knows the answer, or they would affect other clients on a shared
//! connection.

use std::rc::Rc;

use crate::coherence::ServePermit;
use crate::command::ProxySubcommand;
use crate::errors;
use crate::exchange::pending::{CallMark, FirstSelect, InSession, OnReply, Pending};
use crate::proxy::call::{Call, Target};
use crate::proxy::client::{Client, Next};
use crate::proxy::request::Replacements;
use crate::resp::{build, parse_int};
use crate::upstream::{NOAUTH, Reply};
use crate::worker_state::policy::View;
use crate::worker_state::windows::{Access, Asker};

impl Client {
    pub(super) fn quit(&mut self, permit: &ServePermit) -> Next {
        if self.is_muted() && !self.reply_queue.has_due_replies() {
            return Next::Deafen;
        }
        if let Some(session) = self.session.as_ref().filter(|session| !session.link.is_idle()) {
            session.never_reuse();
        }
        if !self.unsubscribe_first(permit, b"+OK\r\n") {
            self.answer(b"+OK\r\n");
        }
        Next::Close
    }

    /// Redis decides whether the database exists. SELECT goes to the lane, and a second SELECT behind it restores the lane's own
    /// database.
    pub(super) fn select(&mut self, permit: &ServePermit, call: Call<'_>) -> Next {
        let db = parse_int(call.args[1]).and_then(|db| u32::try_from(db).ok());
        if let Err(next) = self.leave_lane_if_large(permit, call.request.raw.len(), call.args.len()) {
            return next;
        }
        let target = match self.target() {
            Ok(target) => target,
            Err(lost) => return self.refuse_not_executed(call.row, &lost),
        };
        let Some(db) = db else {
            return self.pass(permit, call, target);
        };
        match target {
            Target::Session(session) => {
                let link = session.link.clone();
                let on_reply = OnReply::session(&session, InSession::Select { client: Rc::clone(&self.state), db });
                self.send(permit.now, &link, on_reply, u64::MAX, |wire| call.request.write(wire, Replacements::new()));
            }
            Target::Lane(_) if !self.state.profile.identity().may_select.get() => self.first_select(permit, call, db),
            Target::Lane(link) => {
                let back = link.db().to_string();
                self.send(
                    permit.now,
                    &link,
                    OnReply::Select { client: Rc::clone(&self.state), db },
                    u64::MAX,
                    |wire| {
                        call.request.write(wire, Replacements::new());
                        wire.push_with(|out| build::request(out, [&b"SELECT"[..], back.as_bytes()].into_iter()));
                    },
                );
            }
        }
        Next::Pause
    }

    /// The first SELECT of a user goes over a connection that is used for nothing else. On a lane, a second SELECT would have to
    /// restore the lane's database. If the user may not use SELECT, Redis would refuse that one too, and add it to ACL LOG.
    fn first_select(&mut self, permit: &ServePermit, call: Call<'_>, db: u32) {
        let profile = &self.state.profile;
        let identity = profile.identity();
        let link = self.context.single_use_connection(&identity, profile.version());
        let slot = self.reply_queue.open(self.is_muted());
        let select = FirstSelect { client: Rc::clone(&self.state), slot, identity, db };
        self.in_flight = u64::MAX;
        self.context.stats().upstream_commands.add(1);
        let on_reply = OnReply::FirstSelect(Box::new(select));
        let waiting = Pending { to: None, sent: permit.now, on_reply, call: CallMark::default() };
        link.send(waiting, |wire| call.request.write(wire, Replacements::new()));
        link.retire();
    }

    pub(super) fn proxy(
        &mut self,
        view: &View,
        permit: &ServePermit,
        call: Call<'_>,
        subcommand: ProxySubcommand,
    ) -> Next {
        // Redis is not asked: PROXY INFO is needed most while Redis is away.
        let access = self.context.shared.windows.access(subcommand, call.args.len());
        let is_whole = self.context.shared.windows.takes(subcommand, call.args.len());
        if access == Access::Clients && !self.context.shared.users.accepts(self.state.profile.user()) {
            return self.refuse(NOAUTH);
        }
        if access == Access::Configurers && is_whole {
            return self.ask_whether_allowed(permit, call, subcommand);
        }
        if subcommand == ProxySubcommand::Debug && is_whole {
            return self.proxy_debug(view, call);
        }
        let slot = self.reply_queue.open(self.is_muted());
        let reply_queue = Rc::clone(&self.reply_queue);
        let asker = Asker::of(&self.state.profile);
        self.context.ask_windows(subcommand, call.args, asker, move |frame| {
            reply_queue.fill(slot, Reply::Owned(frame.into()));
        });
        Next::Go
    }

    /// PROXY DEBUG PANIC [WORKER]
    fn proxy_debug(&mut self, view: &View, call: Call<'_>) -> Next {
        let is = |at: usize, word: &[u8]| call.args[at].eq_ignore_ascii_case(word);
        let ends_worker = match call.args.len() {
            3 if is(2, b"panic") => false,
            4 if is(2, b"panic") && is(3, b"worker") => true,
            _ => return self.refuse("ERR PROXY DEBUG takes PANIC, or PANIC WORKER"),
        };
        if !view.policy.debug_command {
            return self.refuse_own(&errors::NO_DEBUG);
        }
        if !ends_worker {
            panic!("PROXY DEBUG PANIC was asked for");
        }
        self.context.run_on_all_workers(|_| panic!("PROXY DEBUG PANIC WORKER was asked for"));
        Next::Pause
    }

    /// A subcommand only for users whom Redis allows to change its configuration.
    fn ask_whether_allowed(&mut self, permit: &ServePermit, call: Call<'_>, subcommand: ProxySubcommand) -> Next {
        let target = match self.target() {
            Ok(target) => target,
            Err(lost) => return self.unavailable(&lost),
        };
        let args = call.args.iter().map(|arg| arg.to_vec()).collect();
        let on_reply = OnReply::Proxy { client: Rc::clone(&self.state), subcommand, args };
        self.send(permit.now, target.link(), on_reply, 0, |wire| wire.push_slice(MAY_CONFIGURE));
        // The subcommand is carried out when Redis has answered. Later requests must not be answered before that.
        Next::Pause
    }
}

/// Redis refuses this request to a user who may not change its configuration. It changes nothing: there is no such parameter.
const MAY_CONFIGURE: &[u8] = b"*4\r\n$6\r\nCONFIG\r\n$3\r\nSET\r\n$17\r\nshortstop-may-set\r\n$1\r\n1\r\n";

/// Whether Redis accepts these bytes as a client name.
pub(super) fn is_name(name: &[u8]) -> bool {
    name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}
