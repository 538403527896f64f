//! The one place that decides what becomes of a request: answered from L1, passed on a lane, or given a session.
//!
//! A request and a client's state come in; an answer goes to the client's [`ReplyQueue`], or something waits upstream for the reply.
//! No socket is known here, and nothing waits here: what cannot go on yet says so ([`Next`]).

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::client_state::connection_state::Sent;
use crate::client_state::reply_queue::ReplyQueue;
use crate::codec;
use crate::coherence::ServePermit;
use crate::command::{Class, ClientSubcommand, Facts, Keys, Lookup, Row, ScriptBy, StringOp, Verb};
use crate::errors::{self, OwnError};
use crate::exchange::in_flight;
use crate::exchange::pending::{ClientState, InSession, Link, OnReply, Pending, Session};
use crate::exchange::reply_shape::ReplyShape;
use crate::exchange::transaction::Queued;
use crate::exchange::write_guard::WriteGuard;
use crate::near_cache::KeyId;
use crate::proxy::compress::{Offloaded, Outcome, writes_values};
use crate::proxy::request::{Replacements, Request, Words};
use crate::proxy::string_guard;
use crate::resp::{Chunks, Version, build, parse_int};
use crate::upstream::{Delay, Lost};
use crate::worker_state::context::Context;
use crate::worker_state::policy::View;
use crate::worker_state::turns::Turn;

/// Arguments of a request up to which every server takes it: before 7.0 Redis closes the connection at more.
const MOST_ARGUMENTS: usize = 1 << 20;

/// Keys of an MGET up to which its values are kept.
const MGET_KEEPS: usize = 64;

/// What the client's connection does after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Takes the next one.
    Go,
    /// Takes this one again, when all that was asked has been answered.
    Again,
    /// Takes the next one when all that was asked has been answered.
    Pause,
    /// Takes no more, and ends when all that was asked has been answered.
    Close,
    /// Takes no more, and ends when the client does: Redis ends a connection behind its last reply, and there is none.
    Deafen,
}

/// What the client wants to hear (CLIENT REPLY).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replies {
    On,
    Off,
    /// Nothing of the next command.
    SkipNext,
    /// Nothing of this one.
    SkipThis,
}

/// The state of one client.
pub struct Client {
    pub(super) context: Rc<Context>,
    pub(super) reply_queue: Rc<ReplyQueue>,
    pub(super) state: Rc<ClientState>,
    pub(super) id: u64,
    pub(super) replies: Replies,
    pub(super) lookup: Lookup,
    pub(super) session: Option<Rc<Session>>,
    /// What is in the open transaction.
    pub(super) queued: Option<Box<Queued>>,
    /// The client's wait for a private connection, while it waits.
    pub(super) turn: Option<Rc<Turn>>,
    /// Bits of the keys of what has not been answered: a key whose bit is set is not served from L1, so that a reader never
    /// overtakes what it asked before.
    pub(super) in_flight: u64,
    /// The client waits for the answer to another client's request; see `awaits_flight`.
    pub(super) joined: bool,
    pub(super) offloaded: Option<(Offloaded, Rc<RefCell<Option<Outcome>>>)>,
    pub(super) hits: u64,
}

/// Where a request goes.
pub(super) enum Target {
    Lane(Link),
    Session(Rc<Session>),
}

impl Target {
    pub(super) fn link(&self) -> &Link {
        match self {
            Target::Lane(link) => link,
            Target::Session(session) => &session.link,
        }
    }
}

/// What is sent in the place of a request.
pub(super) enum Wire {
    AsIs,
    Instead(Vec<u8>),
}

/// One call: the row, the request, its arguments.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) row: &'a Row,
    pub(super) request: Request<'a>,
    pub(super) args: &'a [&'a [u8]],
    /// See [`Call::keys`].
    pub(super) keys: &'a OnceCell<FoundKeys>,
}

/// Which arguments of a call are keys, and whether these are all that it may touch.
type FoundKeys = (Keys, SmallVec<[u32; 4]>);

impl Call<'_> {
    /// The places of the keys. They are looked for once, when they are first asked for.
    pub(super) fn keys(&self) -> &FoundKeys {
        self.keys.get_or_init(|| {
            let mut places = SmallVec::new();
            let all = self.row.keys(self.args, &mut places);
            (all, places)
        })
    }
}

impl Client {
    /// A client that has just connected.
    pub fn new(context: Rc<Context>, state: Rc<ClientState>) -> Self {
        Client {
            context,
            reply_queue: Rc::clone(&state.reply_queue),
            id: state.info.id,
            state,
            replies: Replies::On,
            lookup: Lookup::default(),
            session: None,
            queued: None,
            turn: None,
            in_flight: 0,
            joined: false,
            offloaded: None,
            hits: 0,
        }
    }

    /// Answers from L1 that [`Client::take_hits`] has not taken yet.
    #[inline]
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// Requests answered from L1 since the last call.
    pub fn take_hits(&mut self) -> u64 {
        std::mem::take(&mut self.hits)
    }

    /// Whether a request waits for its values to be compressed; until it is sent, no other is taken.
    pub fn is_offloaded(&self) -> bool {
        self.offloaded.is_some()
    }

    /// Whether the client waits for something that may never come (BLPOP), so that there is no point in waiting for it.
    pub fn is_blocked(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_blocked()) || self.state.waiter.borrow().is_some()
    }

    /// To be called before requests are handed in, and when replies have come.
    pub fn refresh(&mut self) {
        if self.reply_queue.outstanding() == 0 {
            self.in_flight = 0;
            if self.session.as_ref().is_some_and(|session| session.is_clean()) {
                self.leave_session();
            }
        }
    }

    pub(super) fn leave_session(&mut self) {
        let offered = self.state.offered.take();
        self.queued = None;
        for session in [self.session.take(), offered].into_iter().flatten() {
            self.context.leave(&session);
        }
        self.state.session.take();
    }

    /// Decides.
    pub fn handle(&mut self, view: &View, permit: &ServePermit, request: Request<'_>) -> Next {
        let next = self.decide(view, permit, request);
        if next != Next::Again && !self.is_offloaded() {
            self.end_of_request();
        }
        next
    }

    /// CLIENT REPLY SKIP is for one command.
    pub(super) fn end_of_request(&mut self) {
        self.replies = match self.replies {
            Replies::SkipNext => Replies::SkipThis,
            Replies::SkipThis => Replies::On,
            other => other,
        };
    }

    pub(super) fn decide(&mut self, view: &View, permit: &ServePermit, request: Request<'_>) -> Next {
        if let Some(session) = &self.session
            && (session.is_monitor() || session.is_replication())
        {
            return self.beside_stream(view, permit, &Rc::clone(session), request);
        }
        // The hot path, before anything is looked up that it does not need.
        let named = self.lookup.get(&view.table, request.raw, &request.ranges[0]);
        if let Some(row) = named
            && row.verb == Verb::Get
            && request.argc() == 2
            && self.session.is_none()
        {
            self.state.info.last.set(row.number);
            return self.get(view, permit, request);
        }
        if let Some(row) = named
            && let Some(cacheable) = row.cacheable(request.argc())
            && view.policy.reads.contains(cacheable.read)
            && self.session.is_none()
            && let Some(next) = self.read(view, permit, row, cacheable, request)
        {
            return next;
        }
        if self.awaits_flight() {
            return Next::Again;
        }
        self.leave_lane_if_held_up(permit.now);
        let args: Words<'_> = request.words();
        let row = match named {
            Some(row) if row.subs().is_empty() => row,
            _ => view.table.resolve(&args),
        };
        let keys = OnceCell::new();
        let call = Call { row, request, args: &args, keys: &keys };
        if self.is_own_connection(call) {
            // To be said before anything waits for Redis: it would wait for itself.
            self.refuse_own(&errors::UPSTREAM_IS_ITSELF);
            return Next::Close;
        }
        // To Redis a container's subcommand that does not exist is no command.
        let is_one = row.subs().is_empty() || args.len() == 1;
        self.state.info.last.set(if is_one { row.number } else { 0 });

        self.note_write(row);

        if self.reply_queue.outstanding() == 0 && self.session.as_ref().is_some_and(|session| session.is_clean()) {
            self.leave_session();
        }
        if self.session.is_none()
            && self.state.profile.has_no_login()
            && !self.state.profile.is_let_in()
            && let Some(next) = self.before_auth(permit, call)
        {
            return next;
        }
        if let Verb::Client(subcommand) = row.verb
            && row.arity_ok(args.len())
            && let Some(next) = self.client(permit, call, subcommand)
        {
            return next;
        }
        if let Some(next) = self.in_state(view, permit, call) {
            return next;
        }
        match row.class_for(&args) {
            Class::Refused(why) if row.verb == Verb::Http => {
                crate::seldom!(warn, "a client is closed, as Redis does", client = self.id, why = why.reason());
                Next::Close
            }
            Class::Refused(why) => self.refuse_where_it_is(permit, why),
            _ if !row.arity_ok(args.len()) && row.verb != Verb::Proxy => self.pass_where_it_is(permit, call),
            Class::Local => self.local(view, permit, call),
            Class::Session if self.session.is_none() && row.facts.contains(Facts::LEAVES_NOTHING) => {
                self.alone(permit, call)
            }
            Class::Session | Class::Blocking if row.verb == Verb::Wait && !self.in_multi() => self.wait(permit, call),
            Class::Session | Class::Blocking => match self.enter_session(permit) {
                Ok(Some(session)) => self.with_session(view, permit, call, session),
                Ok(None) => Next::Again,
                Err(lost) => self.not_done(row, &lost),
            },
            Class::Stateless => self.stateless(view, permit, call),
        }
    }

    /// Whether the client gives itself the name that Shortstop's own connections to Redis have.
    fn is_own_connection(&self, call: Call<'_>) -> bool {
        matches!(call.row.verb, Verb::Hello | Verb::Client(_))
            && call.args.contains(&self.context.connection_name().as_bytes())
    }

    /// What goes before all else while a session has state.
    pub(super) fn in_state(&mut self, view: &View, permit: &ServePermit, call: Call<'_>) -> Option<Next> {
        let session = self.session.clone()?;
        match call.row.verb {
            // Ends a transaction even when Redis refuses it for its arguments.
            Verb::Exec if session.in_multi() => Some(self.exec(view, permit, call, &session)),
            Verb::Quit | Verb::Reset => None,
            Verb::Proxy if session.in_multi() => {
                Some(self.abort_transaction(permit, &session, &errors::PROXY_IN_MULTI))
            }
            Verb::Hello | Verb::Auth if session.in_multi() => None,
            _ if session.in_multi() && call.row.class == Class::Local => Some(self.queue(view, permit, call, &session)),
            // In RESP2 a subscribed connection takes only commands of the family; Redis says so to all others.
            Verb::Subscribe
            | Verb::PSubscribe
            | Verb::SSubscribe
            | Verb::Unsubscribe
            | Verb::PUnsubscribe
            | Verb::SUnsubscribe => None,
            // Whether it is subscribed afterwards decides what may be sent, and how.
            _ if session.is_acknowledging() => Some(Next::Again),
            _ if session.is_subscribed() && self.state.profile.version() == Version::Resp2 => {
                Some(self.pass(permit, call, Target::Session(session)))
            }
            // A name that nobody knows may be EVAL's.
            _ if session.debugs() && call.row.arity_ok(call.args.len()) => match call.row.verb {
                Verb::Script(ScriptBy::Text) | Verb::ScriptRo(ScriptBy::Text) => {
                    Some(self.debug(permit, call, session))
                }
                _ if call.row.is_unknown() => Some(self.debug(permit, call, session)),
                _ => None,
            },
            _ => None,
        }
    }

    /// A request that Redis will refuse. It goes to the client's own connection if there is one, where it aborts an open transaction.
    pub(super) fn pass_where_it_is(&mut self, permit: &ServePermit, call: Call<'_>) -> Next {
        if let Err(next) = self.leave_lane_if_large(permit, call.request.raw.len(), call.args.len()) {
            return next;
        }
        match self.target() {
            Ok(target) => self.pass(permit, call, target),
            Err(lost) => self.unavailable(&lost),
        }
    }

    pub(super) fn pass(&mut self, permit: &ServePermit, call: Call<'_>, target: Target) -> Next {
        if let Err(lost) = target.link().check() {
            return self.unavailable(&lost);
        }
        let on_reply = match &target {
            Target::Session(session) if session.in_multi() => OnReply::Queued(Rc::clone(session)),
            // Redis should refuse it. If Redis does not, the command may have left anything on the connection.
            Target::Session(session) if call.row.class != Class::Stateless => {
                OnReply::session(session, InSession::Sent(Sent::Setting))
            }
            _ => OnReply::Pass { repeat: false },
        };
        self.send(permit.now, target.link(), on_reply, u64::MAX, |wire| call.request.write(wire, Replacements::new()));
        Next::Go
    }

    /// Sends a request on the client's private connection as it is.
    pub(super) fn send_in(
        &mut self,
        permit: &ServePermit,
        call: Call<'_>,
        session: &Rc<Session>,
        on_reply: InSession,
    ) -> Next {
        if let Err(lost) = session.link.check() {
            return self.unavailable(&lost);
        }
        let on_reply = OnReply::session(session, on_reply);
        self.send(permit.now, &session.link, on_reply, u64::MAX, |wire| call.request.write(wire, Replacements::new()));
        Next::Go
    }

    /// To be called before a request of this size is sent. A request that could make Redis close the connection gets a private one,
    /// so that it cannot end the requests of other clients.
    #[inline]
    pub(super) fn leave_lane_if_large(
        &mut self,
        permit: &ServePermit,
        bytes: usize,
        arguments: usize,
    ) -> Result<(), Next> {
        let is_small = bytes <= self.context.shared.server_limits.shared() && arguments <= MOST_ARGUMENTS;
        if is_small || self.session.is_some() {
            return Ok(());
        }
        match self.enter_session(permit) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Next::Again),
            Err(lost) => Err(self.unavailable(&lost)),
        }
    }

    /// A script that runs holds up all that is sent behind it on its connection, SCRIPT KILL included. A client that waits for
    /// nothing goes on over another lane, where Redis answers that it is busy.
    pub(super) fn leave_lane_if_held_up(&self, now: Instant) {
        let profile = &self.state.profile;
        if !profile.is_held_up(now) || self.session.is_some() || self.reply_queue.outstanding() > 0 {
            return;
        }
        profile.forget_lane();
        // Another client may have made the other lane already.
        if profile.is_held_up(now) {
            self.context.renew_lane(&profile.identity(), profile.db(), profile.version());
        }
    }

    pub(super) fn in_multi(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.in_multi())
    }

    /// Where a stateless command goes: with the state that the client has, else on the lane.
    pub(super) fn target(&mut self) -> Result<Target, Lost> {
        match &self.session {
            Some(session) => {
                session.link.check()?;
                Ok(Target::Session(Rc::clone(session)))
            }
            None => Ok(Target::Lane(self.context.lane_of(&self.state.profile)?)),
        }
    }

    /// A command that may share a lane.
    pub(super) fn stateless(&mut self, view: &View, permit: &ServePermit, call: Call<'_>) -> Next {
        if let Some(session) = self.session.clone() {
            if session.in_multi() {
                return self.queue(view, permit, call, &session);
            }
            if call.row.verb == Verb::Unwatch {
                return self.send_in(permit, call, &session, InSession::Sent(Sent::Unwatch));
            }
        } else if call.row.verb == Verb::MGet && self.mget_from_l1(view, permit, call.args) {
            return Next::Go;
        }
        self.forward(view, permit, call)
    }

    /// Passes a stateless command on, in the form and with the care that it needs. Not in a transaction.
    pub(super) fn forward(&mut self, view: &View, permit: &ServePermit, call: Call<'_>) -> Next {
        match call.row.verb {
            verb if writes_values(verb, call.args) => self.write_values(view, permit, call),
            _ => {
                if let Err(next) = self.leave_lane_if_large(permit, call.request.raw.len(), call.args.len()) {
                    return next;
                }
                let target = match self.target() {
                    Ok(target) => target,
                    Err(lost) => return self.unavailable(&lost),
                };
                match self.prepare(view, permit, call, &target) {
                    Ok((mut on_reply, wire)) => {
                        let mask = match &mut on_reply {
                            OnReply::Write { guard, .. } => {
                                guard.begin(&self.context, view);
                                guard.mask()
                            }
                            OnReply::Elements { guard: Some(guard), observed, .. } => {
                                guard.begin(&self.context, view);
                                observed.iter().fold(guard.mask(), |mask, id| mask | in_flight::bit(*id))
                            }
                            _ => self.keys_mask(view, call),
                        };
                        let ttls = ttl_requests(&on_reply);
                        self.send(permit.now, target.link(), on_reply, mask, |out| {
                            write_wire(out, &call.request, wire);
                            out.push_slice(&ttls);
                        });
                        if call.row.is_long() {
                            target.link().may_take(Delay::Long);
                        }
                        if matches!(call.row.verb, Verb::Script(_) | Verb::ScriptRo(_)) {
                            target.link().sent_script(permit.now);
                        }
                        Next::Go
                    }
                    Err(error) => self.refuse_own(&error),
                }
            }
        }
    }

    /// What waits for the reply of a command, and what is sent in its place.
    pub(super) fn prepare(
        &self,
        view: &View,
        permit: &ServePermit,
        call: Call<'_>,
        target: &Target,
    ) -> Result<(OnReply, Wire), OwnError> {
        let row = call.row;
        let on_reply = match row.verb {
            Verb::Get => self.value(view, call.args[1]),
            Verb::MGet => {
                let may_keep = matches!(target, Target::Lane(_)) && call.args.len() <= MGET_KEEPS + 1;
                OnReply::Values(Box::new(self.values(view, permit, &call.args[1..], may_keep)))
            }
            Verb::GetDel => OnReply::Write { guard: self.write_guard(view, call), shape: ReplyShape::Values },
            Verb::GetEx if call.args.len() == 2 => self.value(view, call.args[1]),
            Verb::GetEx => OnReply::Write { guard: self.write_guard(view, call), shape: ReplyShape::Values },
            // SET comes here when it looks at the stored string; what it stores must then be comparable, too.
            Verb::Set if codec::is_compressed(call.args[2]) => {
                return Err(errors::COMPARED_WITH_MARK.clone());
            }
            // Also when nothing is compressed now: values that were compressed before are still there.
            Verb::StringOp(_) | Verb::Set => {
                let op = if let Verb::StringOp(op) = row.verb { op } else { StringOp::Other };
                let wire = self.guarded(call, op)?;
                let on_reply = if row.is_write() {
                    let shape = if row.verb == Verb::Set { ReplyShape::Nothing } else { self.reply_shape(call) };
                    OnReply::Write { guard: self.write_guard(view, call), shape }
                } else {
                    self.unkept(view, call)
                };
                return Ok((on_reply, wire));
            }
            Verb::Sort | Verb::SortRo => {
                let looks = string_guard::sort_looks(call.args);
                // Also when nothing is compressed now, as above.
                let wire = if looks.is_empty() { Wire::AsIs } else { self.sort_guarded(call, &looks)? };
                let shape = self.reply_shape(call);
                let observed =
                    if row.is_write() || !self.is_told(view, row) { SmallVec::new() } else { self.ids(call) };
                let guard = row.is_write().then(|| Box::new(self.write_guard(view, call)));
                return Ok((OnReply::Elements { guard, observed, shape }, wire));
            }
            Verb::Script(by) => self.script(view, call, by, false),
            Verb::ScriptRo(by) => self.script(view, call, by, true),
            Verb::ScriptLoad => {
                call.args.get(2).into_iter().for_each(|text| self.context.shared.scripts.learn(text));
                self.unkept(view, call)
            }
            Verb::Client(ClientSubcommand::Pause | ClientSubcommand::Unpause) => OnReply::Paused(pause_of(call)),
            Verb::Info => OnReply::Info { added: self.context.shared.windows.info(&call.args[1..]) },
            _ if row.is_write() => OnReply::Write { guard: self.write_guard(view, call), shape: ReplyShape::Nothing },
            _ => self.unkept(view, call),
        };
        Ok((on_reply, Wire::AsIs))
    }

    /// What is sent in the place of a command that looks into a string.
    pub(super) fn guarded(&self, call: Call<'_>, op: StringOp) -> Result<Wire, OwnError> {
        // Without a condition DELEX looks at nothing.
        if call.args.len() == 2 && op == StringOp::DelEx {
            return Ok(Wire::AsIs);
        }
        string_guard::request(op, call.args, &call.keys().1)
            .map(Wire::Instead)
            .ok_or_else(|| errors::TOO_MANY_ARGUMENTS.clone())
    }

    /// What is sent in the place of a SORT that stores or compares strings of other keys.
    pub(super) fn sort_guarded(&self, call: Call<'_>, looks: &[string_guard::Look<'_>]) -> Result<Wire, OwnError> {
        string_guard::sort_request(call.args, &call.keys().1, looks)
            .map(Wire::Instead)
            .ok_or_else(|| errors::TOO_MANY_ARGUMENTS.clone())
    }

    pub(super) fn ids(&self, call: Call<'_>) -> SmallVec<[KeyId; 1]> {
        call.keys().1.iter().map(|at| KeyId::new(self.state.profile.db(), call.args[*at as usize])).collect()
    }

    pub(super) fn keys_mask(&self, view: &View, call: Call<'_>) -> u64 {
        if !view.policy.caches {
            return 0;
        }
        match call.keys() {
            (Keys::Unknown, _) => u64::MAX,
            (Keys::Known, keys) => keys.iter().fold(0, |mask, at| {
                mask | in_flight::bit(KeyId::new(self.state.profile.db(), call.args[*at as usize]))
            }),
        }
    }

    /// What a command may change.
    pub(super) fn write_guard(&self, view: &View, call: Call<'_>) -> WriteGuard {
        let mut guard = WriteGuard::default();
        let db = self.state.profile.db();
        let (all, keys) = call.keys();
        if *all == Keys::Unknown {
            guard.add_any();
        }
        let is_told = self.context.shared.outbox.is_some();
        let mut add = |db| {
            for at in keys {
                let key = call.args[*at as usize];
                guard.add(db, key, is_told && view.policy.rules.of(key).watch);
            }
        };
        add(db);
        call.row.other_databases(call.args).into_iter().for_each(add);
        if call.row.verb == Verb::Functions {
            guard.changes_functions();
        }
        if keys.is_empty() {
            self.changes_settings(call, &mut guard);
        }
        guard
    }

    /// What a command without keys may change of the server's settings and users.
    pub(super) fn changes_settings(&self, call: Call<'_>, guard: &mut WriteGuard) {
        match call.row.verb {
            Verb::AclDelUser => guard.deletes_users(call.args[2..].iter().copied()),
            Verb::AclSetUser => self.context.shared.users.forget_ttl(call.args.get(2).copied()),
            Verb::AclLoad => self.context.shared.users.forget_ttl(None),
            Verb::ConfigSet => self.context.shared.server_limits.forget(),
            _ => {}
        }
        if changes_first_rights(call) {
            guard.first_rights();
        }
    }

    /// What the reply to a command holds.
    pub(super) fn reply_shape(&self, call: Call<'_>) -> ReplyShape {
        ReplyShape::of(call.row.verb, call.args, self.state.profile.version())
    }

    pub(super) fn send(
        &mut self,
        now: Instant,
        link: &Link,
        on_reply: OnReply,
        mask: u64,
        write: impl FnOnce(&mut Chunks),
    ) {
        let slot = self.reply_queue.open(self.is_muted());
        self.in_flight |= mask;
        self.context.stats().upstream_commands.add(1);
        link.send(Pending { to: Some((Rc::clone(&self.reply_queue), slot)), sent: now, on_reply }, write);
    }

    /// Whether the client does not hear what it is told now (CLIENT REPLY).
    #[inline]
    pub fn is_muted(&self) -> bool {
        matches!(self.replies, Replies::Off | Replies::SkipThis)
    }

    pub(super) fn answer(&self, frame: &[u8]) {
        self.reply_queue.local(frame, self.is_muted());
    }

    pub(super) fn refuse(&self, text: &str) -> Next {
        let mut out = Vec::new();
        build::error(&mut out, text);
        self.answer(&out);
        Next::Go
    }

    /// Refuses in Shortstop's own words.
    pub(super) fn refuse_own(&self, error: &OwnError) -> Next {
        self.context.stats().errors.count(error.side());
        self.refuse(error.text())
    }

    pub(super) fn unavailable(&self, lost: &Lost) -> Next {
        self.context.count_lost(lost);
        self.refuse(lost.text());
        match &self.session {
            _ if lost.is_login_refused() => Next::Close,
            // The state that the client has is gone: it has to connect anew, as if Redis had closed the connection.
            Some(session) if session.link.is_closed() => Next::Close,
            // A part of the transaction would be executed without the rest, or without what it depends on.
            Some(session) if session.in_transaction() => Next::Close,
            _ => Next::Go,
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reply_queue.abandon();
        self.leave_line();
        if let Some(waiter) = self.state.waiter.take() {
            self.context.end_waiter(&waiter, false);
        }
        self.leave_session();
    }
}

/// Whether a command may change what a client may do that has not authenticated.
fn changes_first_rights(call: Call<'_>) -> bool {
    let has = |word: &[u8]| call.args.iter().skip(2).any(|arg| arg.eq_ignore_ascii_case(word));
    match call.row.verb {
        Verb::ConfigSet => has(b"requirepass"),
        Verb::AclSetUser => call.args.get(2) == Some(&&b"default"[..]),
        Verb::AclLoad => true,
        _ => false,
    }
}

pub(super) fn write_wire(out: &mut Chunks, request: &Request<'_>, wire: Wire) {
    match wire {
        Wire::AsIs => request.write(out, Replacements::new()),
        Wire::Instead(bytes) => out.push_bytes(bytes.into()),
    }
}

/// For how long CLIENT PAUSE stops Redis; none: it goes on (CLIENT UNPAUSE).
fn pause_of(call: Call<'_>) -> Option<Duration> {
    let is_pause = call.row.verb == Verb::Client(ClientSubcommand::Pause);
    let millis = call.args.get(2).filter(|_| is_pause)?;
    parse_int(millis).and_then(|millis| u64::try_from(millis).ok()).map(Duration::from_millis)
}

/// The PTTLs that an MGET asks for beside its values.
pub(super) fn ttl_requests(on_reply: &OnReply) -> Vec<u8> {
    let mut out = Vec::new();
    if let OnReply::Values(values) = on_reply {
        for (_, _, asked) in values.keys.iter().filter_map(|key| key.keep.as_ref()) {
            build::request(&mut out, [&b"PTTL"[..], asked.question().key()].into_iter());
        }
    }
    out
}
