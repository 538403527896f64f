//! MULTI and what follows: commands are queued at Redis, and what they do is done, and answered, at EXEC.

use std::rc::Rc;
use std::time::Instant;

use crate::coherence::ServePermit;
use crate::command::{Class, Verb};
use crate::errors::{self, OwnError};
use crate::near_cache::KeyId;
use crate::resp::{Chunks, Version, elements, parse_int};
use crate::upstream::Reply;

use crate::client_state::connection_state::{Reason, Sent};
use crate::client_state::reply_queue::{ReplyQueue, Slot};
use crate::client_state::session::Session;
use crate::exchange::exec_demux::{Commands, Doubt, ExecDemux};
use crate::exchange::write_guard::WriteGuard;
use crate::proxy::client_command::{self, Wish};
use crate::proxy::private::InSession;
use crate::proxy::request::Replacements;
use crate::proxy::wait::{unproven, waits_for_replicas};
use crate::proxy::write::writes_values;
use crate::proxy::{Call, Client, Next, Replies, Target, write_wire};
use crate::replies::decode::{ReplyShape, decode_each};
use crate::replies::deliver::{OnReply, Pending, answer, split_first};
use crate::worker_state::context::{Context, View};

/// What is in a transaction.
#[derive(Default)]
pub(crate) struct Queued {
    pub(crate) guard: WriteGuard,
    /// Per command.
    pub(crate) shape: Vec<ReplyShape>,
    /// Each SELECT: its place and its database.
    pub(crate) selects: Vec<(usize, u32)>,
    /// What tells replies from what stands among them.
    pub(crate) commands: Commands,
    /// What has come of EXEC's reply, if there may be more in it than elements.
    pub(crate) demux: Option<Box<ExecDemux>>,
    /// Keys that are read: what L1 holds of them may be older than what EXEC tells.
    pub(crate) read: Vec<KeyId>,
    /// Each command of the CLIENT family that is not Redis's alone: its place and what it stands for.
    pub(crate) wishes: Vec<(usize, Wish)>,
    /// Places of WAIT and WAITAOF.
    pub(crate) waits: Vec<usize>,
    /// CLIENT REPLY ON is among them.
    pub(crate) speaks: bool,
}

impl Client {
    /// A command in a transaction: Redis answers QUEUED, or why not; what it does is done at EXEC.
    pub(crate) fn queue(&mut self, view: &View, permit: &ServePermit, call: Call<'_>, session: &Rc<Session>) -> Next {
        match call.row.verb {
            Verb::Discard => {
                if let Err(lost) = session.link.check() {
                    return self.unavailable(&lost);
                }
                // Redis may refuse it, and then the transaction is still there.
                let on_reply = OnReply::session(session, InSession::Sent(Sent::Discard));
                self.send(permit.now, &session.link, on_reply, 0, |wire| call.request.write(wire, Replacements::new()));
                return Next::Pause;
            }
            verb if writes_values(verb, call.args) => return self.write_values(view, permit, call),
            Verb::Select => {
                let db = call.args.get(1).and_then(|db| parse_int(db)).and_then(|db| u32::try_from(db).ok());
                session.queue(|queued| {
                    // What follows is in another database: which keys it changes is not worth keeping apart.
                    queued.guard.add_any();
                    queued.selects.extend(db.map(|db| (queued.shape.len(), db)));
                    queued.shape.push(ReplyShape::Nothing);
                });
                return self.pass(permit, call, Target::Session(Rc::clone(session)));
            }
            _ => {}
        }
        let target = Target::Session(Rc::clone(session));
        if let Err(lost) = session.link.check() {
            return self.unavailable(&lost);
        }
        let (on_reply, wire) = match self.prepare(view, permit, call, &target) {
            Ok(prepared) => prepared,
            Err(text) => return self.abort_transaction(permit, session, &text),
        };
        session.queue(|queued| {
            match on_reply {
                OnReply::Write { guard, .. } => queued.guard.extend(guard),
                OnReply::Elements { guard: Some(guard), observed, .. } => {
                    queued.guard.extend(*guard);
                    queued.read.extend(observed);
                }
                _ => queued.read.extend(self.ids(call)),
            }
            if waits_for_replicas(call.row, call.args[0]) {
                queued.waits.push(queued.shape.len());
            }
            if matches!(call.row.name.as_ref(), "publish" | "spublish") {
                queued.commands.publish.push(queued.shape.len());
            }
            // HELLO may be among them: EXEC's reply tells what was spoken.
            queued.shape.push(ReplyShape::of(call.row.verb, &call.row.name, call.args, Version::Resp3));
        });
        if matches!(call.row.class_for(call.args), Class::Session | Class::Local)
            && call.row.name.as_ref() != "client|reply"
        {
            // It may leave something on the connection when it is executed.
            session.bind(Reason::Setting);
        }
        let on_reply = OnReply::Queued(Rc::clone(session));
        self.send(permit.now, target.link(), on_reply, u64::MAX, |out| write_wire(out, &call.request, wire));
        Next::Go
    }

    /// Refuses a command in a transaction. Redis has to know that the transaction is spoilt: it is sent a command that does not
    /// exist.
    pub(crate) fn abort_transaction(&mut self, permit: &ServePermit, session: &Session, error: &OwnError) -> Next {
        if let Err(lost) = session.link.check() {
            return self.unavailable(&lost);
        }
        let abort_transaction = OnReply::Pass { repeat: false };
        session.link.send(Pending { to: None, sent: permit.now, on_reply: abort_transaction }, no_command);
        self.refuse_own(error)
    }

    pub(crate) fn exec(&mut self, view: &View, permit: &ServePermit, call: Call<'_>, session: &Rc<Session>) -> Next {
        if let Err(lost) = session.link.check() {
            return self.unavailable(&lost);
        }
        let mut queued = session.take_multi();
        queued.guard.begin(&self.context, view);
        let mask = queued.guard.mask();
        let subscribes = !queued.commands.subscribed.is_empty();
        let next = if queued.wishes.is_empty() && !subscribes { Next::Go } else { Next::Pause };
        let speaks = queued.speaks;
        let on_reply = OnReply::session(session, InSession::Exec(queued));
        self.send(permit.now, &session.link, on_reply, mask, |wire| call.request.write(wire, Replacements::new()));
        if subscribes {
            self.mark_the_end_of_messages(permit, session);
        }
        if speaks {
            self.replies = Replies::On;
        }
        next
    }

    /// Sends a command that does not exist behind EXEC. Messages of channels that the transaction leaves may come behind EXEC's reply
    /// (Redis from 7.2, Valkey), and in RESP2 they look like replies; but they come before the error, and the client's next
    /// command waits for it.
    fn mark_the_end_of_messages(&self, permit: &ServePermit, session: &Rc<Session>) {
        let slot = self.reply_queue.open(true);
        let on_reply = OnReply::session(session, InSession::BehindExec);
        session
            .link
            .send(Pending { to: Some((Rc::clone(&self.reply_queue), slot)), sent: permit.now, on_reply }, no_command);
    }
}

/// A command that does not exist: every server refuses it to every user.
fn no_command(wire: &mut Chunks) {
    wire.push_slice(b"*1\r\n$14\r\nSHORTSTOP.FAIL\r\n");
}

/// Finds the replies among what has come of EXEC's. `false`: more is to come.
fn tell_apart(session: &Rc<Session>, queued: &mut Queued, come: &[u8]) -> Result<bool, Doubt> {
    let mut rest = come;
    if queued.demux.is_none() {
        let mixes = session.may_push() || !queued.commands.subscribed.is_empty();
        let count = elements(come).filter(|_| mixes && come.starts_with(b"*")).map_or(0, Iterator::count);
        // None: it was not executed.
        if count == 0 || count != queued.shape.len() {
            return Ok(true);
        }
        queued.demux = Some(Box::new(ExecDemux::of(count)));
        rest = &come[memchr::memchr(b'\n', come).map_or(0, |end| end + 1)..];
    }
    let Some(demux) = &mut queued.demux else { return Ok(true) };
    while !rest.is_empty() {
        let (frame, others) = split_first(rest);
        demux.add(session, &queued.commands, frame)?;
        rest = others;
    }
    let whole = demux.missing() == 0;
    session.set_in_exec(!whole);
    Ok(whole)
}

/// EXEC's reply in which WAIT and WAITAOF, at these places, confirm nothing: Redis answers for the last write of the connection,
/// which need not be the client's.
fn without_replicas(reply: &[u8], waits: &[usize]) -> Vec<u8> {
    let Some(parts) = elements(reply) else { return reply.to_vec() };
    let mut out = reply[..memchr::memchr(b'\n', reply).map_or(0, |end| end + 1)].to_vec();
    for (at, part) in parts.enumerate() {
        out.extend_from_slice(if waits.contains(&at) { unproven(part) } else { part });
    }
    out
}

/// EXEC's reply is here, or some of it.
pub(crate) fn ended(
    context: &Context,
    session: Rc<Session>,
    mut queued: Queued,
    to: Option<(Rc<ReplyQueue>, Slot)>,
    sent: Instant,
    reply: Reply<'_>,
) -> Option<Pending> {
    let failed = reply.bytes().first() == Some(&b'-');
    let told_apart = tell_apart(&session, &mut queued, reply.bytes());
    if matches!(told_apart, Ok(false)) {
        let on_reply = OnReply::session(&session, InSession::Exec(queued));
        return Some(Pending { to, sent, on_reply });
    }
    let Queued { mut guard, mut shape, selects, demux, read, wishes, waits, commands, .. } = queued;
    session.set_behind_exec(!commands.subscribed.is_empty());
    guard.always();
    if told_apart.is_err() {
        guard.end(context, failed);
        answer(to, Reply::Borrowed(&context.own_error(&errors::EXEC_IN_DOUBT)));
        session.give_up();
        return None;
    }
    if let (Some(demux), Some((reply_queue, slot))) = (&demux, &to)
        && reply_queue.is_muted(*slot)
    {
        reply_queue.push(demux.pushed());
    }
    let reply = demux.as_ref().map_or(reply, |demux| Reply::Owned(demux.reply().into()));
    session.answered(Sent::Exec, reply.bytes());
    let count = elements(reply.bytes()).map_or(0, Iterator::count);
    if count > 0 && count != shape.len() {
        // It is not known which element answers which command, nor what the commands have left on the connection.
        session.give_up();
    }
    let reply = if waits.is_empty() { reply } else { Reply::Owned(without_replicas(reply.bytes(), &waits).into()) };
    let answer = move |to, reply: Reply<'_>| match &demux {
        Some(demux) => answer(to, Reply::Owned(demux.back(reply.bytes()).into())),
        None => answer(to, reply),
    };
    guard.end(context, failed);
    read.iter().for_each(|id| context.shared.coherence.poison(*id));
    let element = |at| elements(reply.bytes()).and_then(|mut all| all.nth(at));
    let mut version = session.link.version();
    let mut greetings = wishes.iter().filter_map(|(at, wish)| match wish {
        Wish::Greet(greeting) => Some((*at, greeting)),
        _ => None,
    });
    let mut greeting = greetings.next();
    for (at, shape) in shape.iter_mut().enumerate() {
        if let Some((_, agreed)) = greeting.take_if(|(place, _)| *place == at) {
            if element(at).is_some_and(|element| !element.starts_with(b"-")) {
                // Before anything else can come that is said in another protocol; the client learns of it with the reply.
                session.greeted(agreed);
                version = agreed.version.unwrap_or(version);
            }
            greeting = greetings.next();
        }
        if *shape == ReplyShape::Map && version == Version::Resp2 {
            *shape = ReplyShape::Nothing;
        }
    }
    for (at, db) in selects {
        if let Some(element) = element(at) {
            session.selected(db, element);
        }
    }
    match &to {
        Some((reply_queue, slot)) if !wishes.is_empty() => {
            let reply_queue = Rc::clone(reply_queue);
            if reply_queue.pushed.get() {
                // Also when it is only since this reply that something may be pushed.
                reply_queue.is_coming(*slot);
            }
            client_command::settle_all(context, reply_queue, wishes, reply.bytes(), move |context, reply| {
                decode_each(context, reply, shape, move |_, reply| answer(to, reply));
            });
        }
        _ => decode_each(context, reply, shape, move |_, reply| answer(to, reply)),
    }
    None
}
