//! MULTI and what follows: commands are queued at Redis, and what they do is done, and answered, at EXEC.

use std::rc::Rc;
use std::time::Instant;

use crate::coherence::Permit;
use crate::command::{Class, Verb};
use crate::near_cache::KeyId;
use crate::resp::{Chunks, Version, elements, parse_int};
use crate::upstream::Reply;

use super::clients::{self, Wish};
use super::connection_state::{Reason, Sent};
use super::context::{Context, View};
use super::opening::{Holds, open_each};
use super::outlet::{Outlet, Slot};
use super::private::InSession;
use super::request::Replacements;
use super::session::Session;
use super::wait::{unproven, waits_for_replicas};
use super::waiting::{Then, Waiting, answer, split_first};
use super::weave::{Commands, Doubt, Woven};
use super::writes::writes_values;
use super::written::Written;
use super::{Call, Client, Next, Replies, Target, write_wire};

/// What is in a transaction.
#[derive(Default)]
pub(super) struct Queued {
    pub(super) written: Written,
    /// Per command.
    pub(super) holds: Vec<Holds>,
    /// Each SELECT: its place and its database.
    pub(super) selects: Vec<(usize, u32)>,
    /// What tells replies from what stands among them.
    pub(super) commands: Commands,
    /// What has come of EXEC's reply, if there may be more in it than elements.
    pub(super) woven: Option<Box<Woven>>,
    /// Keys that are read: what L1 holds of them may be older than what EXEC tells.
    pub(super) read: Vec<KeyId>,
    /// Each command of the CLIENT family that is not Redis's alone: its place and what it stands for.
    pub(super) wishes: Vec<(usize, Wish)>,
    /// Places of WAIT and WAITAOF.
    pub(super) waits: Vec<usize>,
    /// CLIENT REPLY ON is among them.
    pub(super) speaks: bool,
}

impl Client {
    /// A command in a transaction: Redis answers QUEUED, or why not; what it does is done at EXEC.
    pub(super) fn queue(&mut self, view: &View, permit: &Permit, call: Call<'_>, session: &Rc<Session>) -> Next {
        match call.row.verb {
            Verb::Discard => {
                if let Err(lost) = session.link.check() {
                    return self.unavailable(&lost);
                }
                // Redis may refuse it, and then the transaction is still there.
                let then = Then::session(session, InSession::Sent(Sent::Discard));
                self.send(permit.now, &session.link, then, 0, |wire| call.request.write(wire, Replacements::new()));
                return Next::Pause;
            }
            verb if writes_values(verb, call.args) => return self.write_values(view, permit, call),
            Verb::Select => {
                let db = call.args.get(1).and_then(|db| parse_int(db)).and_then(|db| u32::try_from(db).ok());
                session.queue(|queued| {
                    // What follows is in another database: which keys it changes is not worth keeping apart.
                    queued.written.add_any();
                    queued.selects.extend(db.map(|db| (queued.holds.len(), db)));
                    queued.holds.push(Holds::Nothing);
                });
                return self.pass(permit, call, Target::Session(Rc::clone(session)));
            }
            _ => {}
        }
        let target = Target::Session(Rc::clone(session));
        if let Err(lost) = session.link.check() {
            return self.unavailable(&lost);
        }
        let (then, wire) = match self.prepare(view, permit, call, &target) {
            Ok(prepared) => prepared,
            Err(text) => return self.spoil(permit, session, &text),
        };
        session.queue(|queued| {
            match then {
                Then::Write { written, .. } => queued.written.extend(written),
                Then::Elements { written: Some(written), told, .. } => {
                    queued.written.extend(*written);
                    queued.read.extend(told);
                }
                _ => queued.read.extend(self.ids(call)),
            }
            if waits_for_replicas(call.row, call.args[0]) {
                queued.waits.push(queued.holds.len());
            }
            if matches!(call.row.name.as_ref(), "publish" | "spublish") {
                queued.commands.publish.push(queued.holds.len());
            }
            // HELLO may be among them: EXEC's reply tells what was spoken.
            queued.holds.push(Holds::of(call.row.verb, &call.row.name, call.args, Version::Resp3));
        });
        if matches!(call.row.class_for(call.args), Class::Session | Class::Local)
            && call.row.name.as_ref() != "client|reply"
        {
            // It may leave something on the connection when it is executed.
            session.bind(Reason::Setting);
        }
        let then = Then::Queued(Rc::clone(session));
        self.send(permit.now, target.link(), then, u64::MAX, |out| write_wire(out, &call.request, wire));
        Next::Go
    }

    /// Refuses a command in a transaction. Redis has to know that the transaction is spoilt: it is sent a command that does not
    /// exist.
    pub(super) fn spoil(&mut self, permit: &Permit, session: &Session, text: &str) -> Next {
        if let Err(lost) = session.link.check() {
            return self.unavailable(&lost);
        }
        let spoil = Then::Pass { repeat: false };
        session.link.send(Waiting { to: None, sent: permit.now, then: spoil }, no_command);
        self.refuse(text)
    }

    pub(super) fn exec(&mut self, view: &View, permit: &Permit, call: Call<'_>, session: &Rc<Session>) -> Next {
        if let Err(lost) = session.link.check() {
            return self.unavailable(&lost);
        }
        let mut queued = session.take_multi();
        queued.written.begin(&self.context, view);
        let mask = queued.written.mask();
        let subscribes = !queued.commands.subscribed.is_empty();
        let next = if queued.wishes.is_empty() && !subscribes { Next::Go } else { Next::Pause };
        let speaks = queued.speaks;
        let then = Then::session(session, InSession::Exec(queued));
        self.send(permit.now, &session.link, then, mask, |wire| call.request.write(wire, Replacements::new()));
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
    fn mark_the_end_of_messages(&self, permit: &Permit, session: &Rc<Session>) {
        let slot = self.outlet.open(true);
        let then = Then::session(session, InSession::BehindExec);
        session.link.send(Waiting { to: Some((Rc::clone(&self.outlet), slot)), sent: permit.now, then }, no_command);
    }
}

/// A command that does not exist: every server refuses it to every user.
fn no_command(wire: &mut Chunks) {
    wire.push_slice(b"*1\r\n$14\r\nSHORTSTOP.FAIL\r\n");
}

/// Finds the replies among what has come of EXEC's. `false`: more is to come.
fn tell_apart(session: &Rc<Session>, queued: &mut Queued, come: &[u8]) -> Result<bool, Doubt> {
    let mut rest = come;
    if queued.woven.is_none() {
        let mixes = session.may_push() || !queued.commands.subscribed.is_empty();
        let count = elements(come).filter(|_| mixes && come.starts_with(b"*")).map_or(0, Iterator::count);
        // None: it was not executed.
        if count == 0 || count != queued.holds.len() {
            return Ok(true);
        }
        queued.woven = Some(Box::new(Woven::of(count)));
        rest = &come[memchr::memchr(b'\n', come).map_or(0, |end| end + 1)..];
    }
    let Some(woven) = &mut queued.woven else { return Ok(true) };
    while !rest.is_empty() {
        let (frame, others) = split_first(rest);
        woven.add(session, &queued.commands, frame)?;
        rest = others;
    }
    let whole = woven.missing() == 0;
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

const IN_DOUBT: &[u8] =
    b"-ERR shortstop: a message came among the replies of EXEC and could not be told from them; the \
                           transaction was executed\r\n";

/// EXEC's reply is here, or some of it.
pub(super) fn ended(
    context: &Context,
    session: Rc<Session>,
    mut queued: Queued,
    to: Option<(Rc<Outlet>, Slot)>,
    sent: Instant,
    reply: Reply<'_>,
) -> Option<Waiting> {
    let failed = reply.bytes().first() == Some(&b'-');
    let told_apart = tell_apart(&session, &mut queued, reply.bytes());
    if matches!(told_apart, Ok(false)) {
        let then = Then::session(&session, InSession::Exec(queued));
        return Some(Waiting { to, sent, then });
    }
    let Queued { mut written, mut holds, selects, woven, read, wishes, waits, commands, .. } = queued;
    session.set_behind_exec(!commands.subscribed.is_empty());
    written.always();
    if told_apart.is_err() {
        written.end(context, failed);
        answer(to, Reply::Borrowed(IN_DOUBT));
        session.give_up();
        return None;
    }
    if let (Some(woven), Some((outlet, slot))) = (&woven, &to)
        && outlet.is_muted(*slot)
    {
        outlet.push(woven.pushed());
    }
    let reply = woven.as_ref().map_or(reply, |woven| Reply::Owned(woven.reply().into()));
    session.answered(Sent::Exec, reply.bytes());
    let count = elements(reply.bytes()).map_or(0, Iterator::count);
    if count > 0 && count != holds.len() {
        // It is not known which element answers which command, nor what the commands have left on the connection.
        session.give_up();
    }
    let reply = if waits.is_empty() { reply } else { Reply::Owned(without_replicas(reply.bytes(), &waits).into()) };
    let answer = move |to, reply: Reply<'_>| match &woven {
        Some(woven) => answer(to, Reply::Owned(woven.back(reply.bytes()).into())),
        None => answer(to, reply),
    };
    written.end(context, failed);
    read.iter().for_each(|id| context.shared.coherence.poison(*id));
    let element = |at| elements(reply.bytes()).and_then(|mut all| all.nth(at));
    let mut version = session.link.version();
    let mut greetings = wishes.iter().filter_map(|(at, wish)| match wish {
        Wish::Greet(greeting) => Some((*at, greeting)),
        _ => None,
    });
    let mut greeting = greetings.next();
    for (at, holds) in holds.iter_mut().enumerate() {
        if let Some((_, agreed)) = greeting.take_if(|(place, _)| *place == at) {
            if element(at).is_some_and(|element| !element.starts_with(b"-")) {
                // Before anything else can come that is said in another protocol; the client learns of it with the reply.
                session.greeted(agreed);
                version = agreed.version.unwrap_or(version);
            }
            greeting = greetings.next();
        }
        if *holds == Holds::Map && version == Version::Resp2 {
            *holds = Holds::Nothing;
        }
    }
    for (at, db) in selects {
        if let Some(element) = element(at) {
            session.selected(db, element);
        }
    }
    match &to {
        Some((outlet, slot)) if !wishes.is_empty() => {
            let outlet = Rc::clone(outlet);
            if outlet.pushed.get() {
                // Also when it is only since this reply that something may be pushed.
                outlet.is_coming(*slot);
            }
            clients::settle_all(context, outlet, wishes, reply.bytes(), move |context, reply| {
                open_each(context, reply, holds, move |_, reply| answer(to, reply));
            });
        }
        _ => open_each(context, reply, holds, move |_, reply| answer(to, reply)),
    }
    None
}
