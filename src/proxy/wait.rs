//! WAIT and WAITAOF: how many replicas have received the client's writes.
//!
//! Redis answers for the last write of the connection that asks, but a client's writes went over shared lanes. So Shortstop asks on
//! a connection of its own, as its own user. All of the client's writes have been answered by then, so ROLE's replication offset
//! covers them. ROLE also shows the offset of each replica. If too few replicas have reached that offset, Shortstop sends WAIT.
//! Before it, SPUBLISH to a channel without subscribers goes into the replication stream, so that the connection's last write is
//! later than those of the client. Redis before 7.0 has no SPUBLISH; there any command has that effect. Whether the client may use
//! WAIT is checked as the client's user, with arguments that do not block.
//!
//! Shortstop confirms only what it can prove. It proves nothing across a lost connection, since the next one may lead to another
//! server, and nothing in a transaction. A waiting client takes a place of the private connections ([`Context::take_place`]).

use std::rc::Rc;

use crate::client_state::client_info::Covered;
use crate::coherence::ServePermit;
use crate::command::{Class, Flags, Row, Verb};
use crate::errors;
use crate::exchange::pending::{ClientState, Link, Waiter};
use crate::proxy::call::Call;
use crate::proxy::client::{Client, Next};
use crate::resp::{Version, build, elements, parse_int, split_first};
use crate::upstream::{Delay, Lost, Reply};
use crate::worker_state::ask::{Request, ask, ask_with};
use crate::worker_state::context::Context;
use crate::worker_state::turns::Place;

/// No client subscribes to this channel. No pattern matches it, because it is a shard channel.
const CHANNEL: &[u8] = b"__shortstop:wait";

/// Written for WAITAOF, because a published message does not go into the append-only file. The key expires after a millisecond.
const KEY: &[u8] = b"__shortstop:wait";

/// Whether a command may go into the replication stream.
fn may_be_logged(row: &Row) -> bool {
    let about_connection = row.flags.intersects(Flags::CONNECTION | Flags::TRANSACTION);
    let is_not = row.retry_safe() || about_connection || row.class == Class::Local || row.is_client();
    !is_not && row.verb != Verb::Wait
}

impl Client {
    /// Call this before handling a request. If the command may write, WAIT must not confirm before replicas have that write.
    pub(super) fn note_write(&self, row: &Row) {
        let covered = &self.state.info.covered;
        if !matches!(covered.get(), Covered::WriteGuard { .. }) && may_be_logged(row) {
            covered.set(Covered::WriteGuard { losses: self.context.losses.get() });
        }
    }

    /// WAIT or WAITAOF outside of a transaction.
    pub(super) fn wait(&mut self, permit: &ServePermit, call: Call<'_>) -> Next {
        if self.reply_queue.outstanding() > 0 {
            return Next::Again;
        }
        let numbers: Option<Vec<i64>> = call.args[1..].iter().map(|arg| parse_int(arg)).collect();
        let Some(numbers) = numbers.filter(|numbers| matches!(numbers.len(), 2 | 3)) else {
            // Redis refuses it.
            return self.pass_to_be_refused(permit, call);
        };
        let target = match self.target() {
            Ok(target) => target,
            Err(lost) => {
                self.cancel_turn();
                return self.unavailable(&lost);
            }
        };
        match self.context.take_place(&self.state, &mut self.turn, permit.now) {
            Place::Taken => {}
            Place::Later => return Next::Again,
            Place::None(lost) => return self.unavailable(&lost),
        }
        let identity = self.context.own_identity();
        let link = self.context.session(&identity, 0, Version::Resp2);
        let waiter = Rc::new(Waiter::new(identity, link));
        *self.state.waiter.borrow_mut() = Some(Rc::clone(&waiter));
        let slot = self.reply_queue.open(self.is_muted());
        let question = Question {
            request: call.args.iter().map(|arg| arg.to_vec()).collect(),
            // The last number is the timeout.
            wanted: (numbers.len() == 2).then(|| numbers[0]),
        };
        let (context, client, target) = (Rc::clone(&self.context), Rc::clone(&self.state), target.link().clone());
        tokio::task::spawn_local(async move {
            let reply = answer(&context, &client, &target, &waiter.link, question).await;
            // `None`: the client has disconnected, and its connection was closed.
            if client.waiter.take().is_some() {
                context.end_waiter(&waiter, true);
            }
            client.reply_queue.fill(slot, Reply::Owned(reply.unwrap_or_else(|lost| error(lost.text())).into()));
        });
        Next::Pause
    }
}

/// A client's WAIT or WAITAOF.
struct Question {
    request: Request,
    /// The number of replicas that the client wants. `None` for WAITAOF, which asks for writes on disk.
    wanted: Option<i64>,
}

impl Question {
    /// The same request with arguments that do not block.
    fn without_waiting(&self) -> Request {
        let mut request = self.request.clone();
        let last = request.len() - 1;
        for (at, number) in request[1..last].iter_mut().enumerate() {
            // A number below 0 does not block either, if Redis accepts it at all. For WAITAOF's first number Redis accepts only 0
            // and 1.
            let is_refused = self.wanted.is_none() && at == 0 && parse_int(number).is_some_and(|number| number > 1);
            if !number.starts_with(b"-") && !is_refused {
                *number = b"0".to_vec();
            }
        }
        request
    }
}

async fn answer(
    context: &Context,
    client: &ClientState,
    target: &Link,
    own: &Link,
    question: Question,
) -> Result<Vec<u8>, Lost> {
    let (check, role) = ([question.without_waiting()], [vec![b"ROLE".to_vec()]]);
    let (allowed, role) = tokio::join!(ask(context, target, &check, true), ask(context, own, &role, false));
    let (allowed, role) = (allowed?, role?);
    if allowed.starts_with(b"-ERR unknown command") {
        // The client's arguments are part of that error.
        return ask(context, target, &[question.request], true).await;
    }
    if allowed.starts_with(b"-") {
        return Ok(allowed);
    }
    let Some(role) = Role::of(&role) else { return Ok(no_proof(context, &role)) };
    let covered = &client.info.covered;
    let now = context.losses.get();
    let offset = match covered.get() {
        Covered::Nothing => 0,
        Covered::WriteGuard { losses } if losses == now => role.offset,
        Covered::Offset { offset, losses } if losses == now => offset,
        Covered::WriteGuard { .. } | Covered::Offset { .. } => {
            // Return the error once: later writes of the client can be proven again.
            covered.set(Covered::Nothing);
            return Ok(context.own_error(&errors::WRITES_NOT_PROVEN));
        }
    };
    if offset > 0 {
        covered.set(Covered::Offset { offset, losses: now });
    }
    if let Some(wanted) = question.wanted
        && role.count(offset) >= wanted
    {
        return Ok(integer(role.count(offset)));
    }
    let words = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect::<Request>();
    // A server without SPUBLISH is so old that PING has the same effect. The key is deleted at once, because DBSIZE counts it even
    // after it has expired.
    let marks = match question.wanted {
        Some(_) => [words(&[b"SPUBLISH", CHANNEL, b""]), words(&[b"PING"])],
        None => [words(&[b"SET", KEY, b"", b"PX", b"1"]), words(&[b"DEL", KEY])],
    };
    let [mark, second_mark] = marks;
    let requests = [mark, second_mark, question.request, words(&[b"ROLE"])];
    let replies = ask_with(context, own, &requests, false, Delay::Blocks).await?;
    let (first, rest) = split_first(&replies);
    let (second, rest) = split_first(rest);
    let (waited, role) = split_first(rest);
    let marked = if first.starts_with(b"-ERR unknown command") { second } else { first };
    if marked.starts_with(b"-") {
        return Ok(no_proof(context, marked));
    }
    let count = waited.strip_prefix(b":").and_then(|number| number.strip_suffix(b"\r\n")).and_then(parse_int);
    match (count, question.wanted, Role::of(role)) {
        // The timeout has passed. Replicas that have all of the client's writes count, even if they lack later writes of others.
        (Some(count), Some(wanted), Some(role)) if count < wanted => Ok(integer(count.max(role.count(offset)))),
        _ => Ok(waited.to_vec()),
    }
}

/// What ROLE reports of a primary.
struct Role {
    /// The primary's replication offset.
    offset: i64,
    /// The offset of each connected replica.
    replicas: Vec<i64>,
}

impl Role {
    fn of(reply: &[u8]) -> Option<Role> {
        let number = |bytes: &[u8]| parse_int(bytes.strip_prefix(b":")?.strip_suffix(b"\r\n")?);
        let text = |bytes: &[u8]| match crate::resp::bulk_of(bytes) {
            crate::resp::Bulk::Value(text) => parse_int(text),
            _ => None,
        };
        let mut parts = elements(reply)?;
        if parts.next()? != b"$6\r\nmaster\r\n" {
            return None;
        }
        let offset = number(parts.next()?)?;
        let replicas =
            elements(parts.next()?)?.map(|replica| text(elements(replica)?.nth(2)?)).collect::<Option<_>>()?;
        Some(Role { offset, replicas })
    }

    fn count(&self, offset: i64) -> i64 {
        i64::try_from(self.replicas.iter().filter(|replica| **replica >= offset).count()).unwrap_or(i64::MAX)
    }
}

/// `why` is Redis's error.
fn no_proof(context: &Context, why: &[u8]) -> Vec<u8> {
    let why = String::from_utf8_lossy(why.strip_prefix(b"-").unwrap_or(why)).trim_end().to_owned();
    context.own_error(&errors::replicas_not_known(why))
}

fn error(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    build::error(&mut out, text);
    out
}

fn integer(number: i64) -> Vec<u8> {
    let mut out = Vec::new();
    build::integer(&mut out, number);
    out
}

#[cfg(test)]
mod tests {
    use super::{Question, Request, Role};

    #[test]
    fn role_is_parsed() {
        let role = |reply: &[u8]| Role::of(reply).map(|role| (role.offset, role.replicas));
        let two = b"*3\r\n$6\r\nmaster\r\n:30\r\n*2\r\n*3\r\n$1\r\nh\r\n$1\r\n1\r\n$2\r\n30\r\n*3\r\n$1\r\nh\r\n$1\r\n2\r\n$1\r\n9\r\n";
        assert_eq!(role(two), Some((30, vec![30, 9])));
        assert_eq!(role(b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"), Some((0, vec![])));
        for no_master in
            [&b"*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:1\r\n$9\r\nconnected\r\n:30\r\n"[..], b"-NOPERM x\r\n", b""]
        {
            assert_eq!(role(no_master), None);
        }
    }

    #[test]
    fn the_permission_check_does_not_block() {
        let check = |line: &str| {
            let request: Request = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            let wanted = (request.len() == 3).then_some(2);
            let check = Question { request, wanted }.without_waiting();
            String::from_utf8_lossy(&check.join(&b' ')).into_owned()
        };
        assert_eq!(check("WAIT 2 0"), "WAIT 0 0");
        assert_eq!(check("wait -1 -5"), "wait -1 -5");
        assert_eq!(check("WAITAOF 1 2 500"), "WAITAOF 0 0 500");
        assert_eq!(check("WAITAOF 5 2 -1"), "WAITAOF 5 0 -1");
    }
}
