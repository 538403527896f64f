//! EXEC's reply: the transaction was executed as a whole, or not at all.

use std::rc::Rc;
use std::time::Instant;

use crate::client_state::connection_state::{ExecReply, Sent};
use crate::client_state::reply_queue::{ReplyQueue, Slot};
use crate::errors;
use crate::exchange::client_command::ClientCommand;
use crate::exchange::exec_demux::{Doubt, ExecDemux};
use crate::exchange::pending::{CallMark, ClientState, InSession, OnReply, Pending, Session};
use crate::exchange::reply_shape::ReplyShape;
use crate::exchange::transaction::Queued;
use crate::metrics::outcome::LeftL1;
use crate::replies::answers::answer;
use crate::replies::client_command::replace_in_exec_reply;
use crate::replies::decode::decode_each;
use crate::resp::{Version, build, elements, split_first};
use crate::upstream::Reply;
use crate::worker_state::context::Context;
use crate::worker_state::plain_exec::{self, PlainExec};

/// Collects the frames of EXEC's reply, with push messages among them. Returns false if frames are still missing.
fn collect_frames(session: &Rc<Session>, queued: &mut Queued, come: &[u8]) -> Result<bool, Doubt> {
    let mut rest = come;
    if queued.demux.is_none() {
        let mixes = session.may_push() || !queued.commands.subscribed.is_empty();
        let count = elements(come).filter(|_| mixes && come.starts_with(b"*")).map_or(0, Iterator::count);
        // `None`: the transaction was not executed.
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
    session.set_exec_reply(if whole { ExecReply::None } else { ExecReply::Due });
    Ok(whole)
}

/// EXEC's reply with WAIT and WAITAOF, at these positions, replaced by an answer that confirms no replica. Redis answers for the
/// last write of the connection, which may not be the client's.
fn without_replicas(reply: &[u8], waits: &[usize]) -> Vec<u8> {
    let Some(parts) = elements(reply) else { return reply.to_vec() };
    let mut out = reply[..memchr::memchr(b'\n', reply).map_or(0, |end| end + 1)].to_vec();
    for (at, part) in parts.enumerate() {
        out.extend_from_slice(if waits.contains(&at) { unproven(part) } else { part });
    }
    out
}

/// Whether Redis has not executed the transaction because a watched key has changed.
fn is_null(reply: &[u8]) -> bool {
    matches!(reply, b"*-1\r\n" | b"$-1\r\n" | b"_\r\n")
}

/// EXEC's reply without the elements of Shortstop's own commands: so many are first, and so many are last.
fn without_own(reply: Reply<'_>, (first, last): (usize, usize)) -> Reply<'_> {
    let kept = |all: Vec<&[u8]>| {
        let count = all.len().checked_sub(first + last)?;
        let mut out = Vec::new();
        build::header(&mut out, b'*', count);
        all[first..first + count].iter().for_each(|element| out.extend_from_slice(element));
        Some(out)
    };
    let has_own = first + last > 0;
    let kept = elements(reply.bytes()).filter(|_| has_own).and_then(|all| kept(all.collect()));
    kept.map_or(reply, |kept| Reply::Owned(kept.into()))
}

/// All or a part of EXEC's reply has arrived.
pub(crate) fn ended(
    context: &Context,
    client: Rc<ClientState>,
    session: Rc<Session>,
    mut queued: Box<Queued>,
    to: Option<(Rc<ReplyQueue>, Slot)>,
    sent: Instant,
    reply: Reply<'_>,
) -> Option<Pending> {
    if queued.tries > 0 && queued.watched.is_none() && is_null(reply.bytes()) {
        // One of the strings has changed that Shortstop alone watches.
        plain_exec::begin(PlainExec { session, client, queued, to, sent, left: true, nested: Vec::new() }, context);
        return None;
    }
    if queued.tries > 0 {
        session.set_executed_by_task(false);
        plain_exec::mark_end(&session, to.as_ref(), queued.marker.take());
    }
    let reply = without_own(reply, queued.not_the_clients);
    let failed = reply.bytes().first() == Some(&b'-');
    let told_apart = collect_frames(&session, &mut queued, reply.bytes());
    if matches!(told_apart, Ok(false)) {
        let on_reply = OnReply::session(&session, InSession::Exec { client, queued });
        return Some(Pending { to, sent, on_reply, call: CallMark::default() });
    }
    let Queued { mut guard, mut shape, selects, demux, read, client_commands, waits, commands, pauses, .. } = *queued;
    session.set_exec_reply(match commands.subscribed.is_empty() {
        true => ExecReply::None,
        false => ExecReply::MessagesDue,
    });
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
        // It is unknown which element answers which command, and what the commands changed on the connection.
        session.give_up();
    }
    let reply = if waits.is_empty() { reply } else { Reply::Owned(without_replicas(reply.bytes(), &waits).into()) };
    let answer = move |to, reply: Reply<'_>| match &demux {
        Some(demux) => answer(to, Reply::Owned(demux.back(reply.bytes()).into())),
        None => answer(to, reply),
    };
    guard.end(context, failed);
    read.iter().for_each(|id| context.shared.coherence.poison(*id, LeftL1::Overtaken));
    let element = |at| elements(reply.bytes()).and_then(|mut all| all.nth(at));
    let mut version = session.link.version();
    let mut greetings = client_commands.iter().filter_map(|(at, command)| match command {
        ClientCommand::Greet(greeting) => Some((*at, greeting)),
        _ => None,
    });
    let mut greeting = greetings.next();
    for (at, shape) in shape.iter_mut().enumerate() {
        if let Some((_, agreed)) = greeting.take_if(|(place, _)| *place == at) {
            if element(at).is_some_and(|element| !element.starts_with(b"-")) {
                // Apply it before any message can arrive in the new protocol. The client learns of it from the reply.
                session.greeted(agreed.login.is_some(), agreed.version);
                version = agreed.version.unwrap_or(version);
            }
            greeting = greetings.next();
        }
        if *shape == ReplyShape::Map && version == Version::Resp2 {
            *shape = ReplyShape::Nothing;
        }
    }
    for (at, pause) in pauses {
        if element(at) == Some(&b"+OK\r\n"[..]) {
            context.paused(pause);
        }
    }
    for (at, db) in selects {
        if element(at).is_some_and(|element| session.moved(db, element)) {
            client.profile.set_db(db);
        }
    }
    match &to {
        Some((reply_queue, slot)) if !client_commands.is_empty() => {
            if reply_queue.pushed.get() {
                // Also if push messages are possible only since this reply.
                reply_queue.is_coming(*slot);
            }
            replace_in_exec_reply(context, client, client_commands, reply.bytes(), move |context, reply| {
                decode_each(context, reply, shape, move |_, reply| answer(to, reply));
            });
        }
        _ => decode_each(context, reply, shape, move |_, reply| answer(to, reply)),
    }
    None
}

/// The reply to WAIT or WAITAOF in a transaction, in place of Redis's own.
fn unproven(reply: &[u8]) -> &[u8] {
    match reply.first() {
        Some(b':') => b":0\r\n",
        Some(b'*') => b"*2\r\n:0\r\n:0\r\n",
        _ => reply,
    }
}

#[cfg(test)]
mod tests {
    use super::unproven;

    #[test]
    fn wait_in_a_transaction_confirms_no_replica() {
        for (said, observed) in [
            (&b":2\r\n"[..], &b":0\r\n"[..]),
            (b"*2\r\n:1\r\n:2\r\n", b"*2\r\n:0\r\n:0\r\n"),
            (b"-ERR x\r\n", b"-ERR x\r\n"),
        ] {
            assert_eq!(unproven(said), observed);
        }
    }
}
