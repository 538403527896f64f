//! The dispatcher: a checklist that reads from top to bottom, with one match at its end. Each arm has a file of its own.

use std::rc::Rc;

use smallvec::SmallVec;

use crate::client_state::connection_state::Kind;
use crate::coherence::ServePermit;
use crate::command::{Class, Facts, Row, ScriptBy, Verb};
use crate::errors;
use crate::near_cache::KeyId;
use crate::proxy::call::{Call, FoundKeys, Target};
use crate::proxy::client::{Client, Next};
use crate::proxy::compress::writes_values;
use crate::proxy::request::{Request, Words};
use crate::resp::Version;
use crate::traffic::Requested;
use crate::worker_state::policy::View;

impl Client {
    /// Handles a request. Returns what the client's connection does next.
    pub fn handle(&mut self, view: &View, permit: &ServePermit, request: Request<'_>) -> Next {
        let counted = self.context.is_counted();
        if counted {
            self.begin_counted();
        }
        // In one place, so that it is inlined.
        let next = self.decide(view, permit, request);
        if counted {
            self.end_counted(view, permit, request, next);
        } else if next == Next::Again {
            self.context.left_out.update(|left_out| left_out.wrapping_add(1));
        }
        if next != Next::Again && !self.is_offloaded() {
            self.end_of_request();
        }
        next
    }

    /// The next request is counted in the worker's hot keys.
    #[cold]
    fn begin_counted(&mut self) {
        self.sample = self.context.hot_keys.borrow().next_sample();
        self.before_counted = (self.hits, self.reply_queue.len());
    }

    /// The request was handled.
    #[cold]
    #[inline(never)]
    fn end_counted(&mut self, view: &View, permit: &ServePermit, request: Request<'_>, next: Next) {
        if next == Next::Again {
            self.context.left_out.set(0);
        } else {
            let (hits, ready) = self.before_counted;
            let hit = self.hits > hits;
            let bytes = if hit { self.reply_queue.len().saturating_sub(ready) } else { 0 };
            self.count_keys(view, permit, request, hit, bytes);
        }
        if !self.is_offloaded() {
            self.sample = 0;
        }
    }

    /// Counts the request in the worker's hot keys. `bytes`: of a reply from L1.
    fn count_keys(&mut self, view: &View, permit: &ServePermit, request: Request<'_>, hit: bool, bytes: usize) {
        let args = request.words();
        let named = self.lookup.get(&view.table, request.raw, &request.ranges[0]);
        let row = row_of(view, named, &args);
        let found = FoundKeys::of(row, &args);
        let db = self.state.profile.db();
        let keys: SmallVec<[&[u8]; 8]> = found.places.iter().filter_map(|at| args.get(*at as usize)).copied().collect();
        let size = |words: &[&[u8]]| words.iter().map(|word| word.len()).sum::<usize>();
        // The values of a write are what stands beside its name and its keys.
        let values = if row.is_write() { size(&args[1..]).saturating_sub(size(&keys)) } else { 0 };
        let keys = keys.iter().map(|key| Requested { id: KeyId::new(db, key), db, key, hit });
        self.context.left_out.set(self.context.hot_keys.borrow_mut().count(permit.now, keys, bytes + values));
    }

    /// Handles requests that L1 may answer. All others go to [`Client::dispatch`], which is a separate function so that a hit does
    /// not pay for its large stack frame.
    #[inline]
    fn decide(&mut self, view: &View, permit: &ServePermit, request: Request<'_>) -> Next {
        // A connection in stream mode (MONITOR, replication) takes no requests.
        if let Some(session) = &self.session
            && (session.is_monitor() || session.is_replication())
        {
            return self.beside_stream(view, permit, &Rc::clone(session), request);
        }

        // Reads that L1 may answer come first, so that a hit looks nothing else up.
        let named = self.lookup.get(&view.table, request.raw, &request.ranges[0]);
        if let Some(row) = named
            && row.verb == Verb::Get
            && request.argc() == 2
            && self.session.is_none()
        {
            self.state.info.last.set(row.number);
            return self.get(view, permit, row, request);
        }
        if let Some(row) = named
            && let Some(cacheable) = row.cacheable(request.argc())
            && view.policy.reads.contains(cacheable.read)
            && self.session.is_none()
            && let Some(next) = self.read(view, permit, row, cacheable, request)
        {
            return next;
        }
        self.dispatch(view, permit, request, named)
    }

    /// The checklist. `named` is the row of the command's name, if the command is known.
    #[inline(never)]
    fn dispatch(&mut self, view: &View, permit: &ServePermit, request: Request<'_>, named: Option<&Row>) -> Next {
        // Earlier requests come first.
        if self.awaits_flight() {
            return Next::Again;
        }
        self.leave_lane_if_held_up(permit.now);

        // Find the row of the command or subcommand.
        let args: Words<'_> = request.words();
        let row = row_of(view, named, &args);
        let call = Call { row, request, args: &args, keys: &FoundKeys::of(row, &args) };
        if self.uses_shortstops_name(call) {
            // Refuse before anything waits for Redis: Shortstop would wait for itself.
            self.refuse_own(&errors::UPSTREAM_IS_ITSELF);
            return Next::Close;
        }
        let hits = self.hits;
        let next = self.follow_checklist(view, permit, call);
        if next != Next::Again && self.hits == hits {
            call.count(view);
        }
        next
    }

    /// The checklist, once the command's row is known.
    #[inline]
    fn follow_checklist(&mut self, view: &View, permit: &ServePermit, call: Call<'_>) -> Next {
        let Call { row, args, .. } = call;
        // Redis counts an unknown subcommand as no command.
        let is_one = row.subs().is_empty() || args.len() == 1;
        self.state.info.last.set(if is_one { row.number } else { 0 });
        self.note_write(row);

        // The session holds no state any more: give it back.
        if self.reply_queue.outstanding() == 0 && self.session.as_ref().is_some_and(|session| session.is_clean()) {
            self.leave_session();
        }

        // Redis requires a login that this client does not have.
        if self.session.is_none()
            && self.state.profile.has_no_login()
            && !self.state.profile.is_accepted()
            && let Some(next) = self.before_auth(permit, call)
        {
            return next;
        }

        // CLIENT subcommands about clients.
        if let Verb::Client(subcommand) = row.verb
            && row.arity_ok(args.len())
            && let Some(next) = self.client(permit, call, subcommand)
        {
            return next;
        }

        // L1 may answer MGET. What L1 answers is not measured here.
        let is_mget = row.verb == Verb::MGet && self.session.is_none();
        if !is_mget {
            self.call = self.context.note_call(self.id, row, call.request.raw, call.request.ranges);
        }

        // Requests that the session's state decides.
        if let Some(next) = self.in_state(view, permit, call) {
            return next;
        }

        // Requests that the command decides.
        match (row.class_for(args), row.verb) {
            (Class::Refused(why), Verb::Http) => {
                crate::seldom!(warn, "a client is closed, as Redis would do", client = self.id, why = why.reason());
                Next::Close
            }
            (Class::Refused(why), _) => self.refuse_or_abort(permit, why),
            // Redis refuses it.
            (_, verb) if !row.arity_ok(args.len()) && !matches!(verb, Verb::Proxy(_)) => {
                self.pass_to_be_refused(permit, call)
            }

            (Class::Local, Verb::Select) => self.select(permit, call),
            (Class::Local, Verb::Quit) => self.quit(permit),
            (Class::Local, Verb::Reset) => self.reset(permit),
            (Class::Local, Verb::Hello) => self.hello(view, permit, call),
            (Class::Local, Verb::Auth) => self.auth(view, permit, call),
            (Class::Local, Verb::Proxy(subcommand)) => self.proxy(view, permit, call, subcommand),
            (Class::Local, _) => self.pass_to_be_refused(permit, call),

            (Class::Session, _) if self.session.is_none() && row.facts.contains(Facts::LEAVES_NOTHING) => {
                self.on_single_use_connection(permit, call)
            }
            (Class::Session | Class::Blocking, Verb::Wait) if !self.in_multi() => self.wait(permit, call),
            (Class::Session | Class::Blocking, Verb::Sync) => self.replicate(permit, call),
            (Class::Session | Class::Blocking, Verb::ReplConf) if !self.in_multi() => self.replconf(permit, call),
            (Class::Session | Class::Blocking, Verb::Subscribe | Verb::Unsubscribe) => {
                self.subscribe(permit, call, Kind::Channel)
            }
            (Class::Session | Class::Blocking, Verb::PSubscribe | Verb::PUnsubscribe) => {
                self.subscribe(permit, call, Kind::Pattern)
            }
            (Class::Session | Class::Blocking, Verb::SSubscribe | Verb::SUnsubscribe) => {
                self.subscribe(permit, call, Kind::Shard)
            }

            // Redis refuses it, and the transaction stays open.
            (_, Verb::Multi | Verb::Watch) if self.in_multi() => self.pass_to_be_refused(permit, call),
            _ if self.in_multi() => self.queue(view, permit, call),

            (Class::Session | Class::Blocking, Verb::Multi) => self.multi(permit, call),
            (Class::Session | Class::Blocking, Verb::Watch) => self.watch(permit, call),
            (Class::Session | Class::Blocking, Verb::Monitor) => self.monitor(permit, call),
            (Class::Session | Class::Blocking, Verb::Blocking | Verb::Wait | Verb::XRead | Verb::XReadGroup) => {
                self.blocking(view, permit, call)
            }
            (Class::Session | Class::Blocking, _) => self.stateful(permit, call),

            (Class::Stateless, Verb::Unwatch) if self.session.is_some() => self.unwatch(permit, call),
            (Class::Stateless, Verb::MGet) if is_mget => {
                if self.mget_from_l1(view, permit, args) {
                    return Next::Go;
                }
                self.call = self.context.note_call(self.id, row, call.request.raw, call.request.ranges);
                self.forward(view, permit, call)
            }
            (Class::Stateless, verb) if writes_values(verb, args) => self.write_values(view, permit, call),
            (Class::Stateless, _) => self.forward(view, permit, call),
        }
    }

    /// Whether the client uses the name of Shortstop's own connections to Redis.
    fn uses_shortstops_name(&self, call: Call<'_>) -> bool {
        matches!(call.row.verb, Verb::Hello | Verb::Client(_))
            && call.args.contains(&self.context.connection_name().as_bytes())
    }

    /// Requests that are handled in a special way because of the session's state.
    fn in_state(&mut self, view: &View, permit: &ServePermit, call: Call<'_>) -> Option<Next> {
        let session = self.session.clone()?;
        match call.row.verb {
            // EXEC ends the transaction even when Redis refuses its arguments.
            Verb::Exec if session.in_multi() => Some(self.exec(view, permit, call, &session)),
            Verb::Quit | Verb::Reset => None,
            Verb::Proxy(_) if session.in_multi() => {
                Some(self.abort_transaction(permit, &session, &errors::PROXY_IN_MULTI))
            }
            Verb::Hello | Verb::Auth if session.in_multi() => None,
            _ if session.in_multi() && call.row.class == Class::Local => Some(self.queue(view, permit, call)),
            // In RESP2 a subscribed connection accepts only the SUBSCRIBE family and a few others. Redis refuses the rest.
            Verb::Subscribe
            | Verb::PSubscribe
            | Verb::SSubscribe
            | Verb::Unsubscribe
            | Verb::PUnsubscribe
            | Verb::SUnsubscribe => None,
            // Until the acknowledgement is here, it is not known whether the client is subscribed.
            _ if session.is_acknowledging() => Some(Next::Again),
            _ if session.is_subscribed() && self.state.profile.version() == Version::Resp2 => {
                Some(self.pass(permit, call, Target::Session(session)))
            }
            // An unknown command may be EVAL under another name.
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
}

/// The row of a command or subcommand. `named` is the row of the command's name, if it is known.
#[inline]
fn row_of<'a>(view: &'a View, named: Option<&'a Row>, args: &[&[u8]]) -> &'a Row {
    match named {
        Some(row) if row.subs().is_empty() => row,
        _ => view.table.resolve(args),
    }
}
