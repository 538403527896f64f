//! Executes a transaction whose commands look into strings: only when all of these strings are plain, so that Redis executes it as a
//! whole or not at all.
//!
//! EXEC is not sent. The session leaves the transaction, watches the strings, looks at them, turns to plain those that are compressed,
//! and sends the transaction again. If a string has changed meanwhile, Redis does not execute it, and it is sent once more; a client
//! that watches keys itself is told so instead.
//!
//! The client's own watches end with the transaction that was left. Another connection watches the same keys from before that until
//! after the session watches them for the last time, so no change is missed.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::client_state::connection_state::Sent;
use crate::client_state::reply_queue::{ReplyQueue, Slot};
use crate::errors;
use crate::exchange::pending::{CallMark, ClientState, InSession, Link, OnReply, Pending, Session};
use crate::exchange::plain::Strings;
use crate::exchange::reply_shape::ReplyShape;
use crate::exchange::transaction::Queued;
use crate::resp::{Chunks, Version, build, split_first};
use tokio::sync::oneshot;

use crate::upstream::{Delay, Expected, Lost, Reply};
use crate::worker_state::ask::{Request, ask, unknown_command};
use crate::worker_state::context::Context;
use crate::worker_state::to_plain::{Made, Nested, Unable, keys_of, make_plain, plain_then_compressed};

/// For how long a transaction is sent again. Other clients may change its strings each time.
const TRIES_FOR: Duration = Duration::from_secs(10);

/// Redis's reply to EXEC after it has refused one of the commands.
const EXECABORT: &[u8] = b"-EXECABORT Transaction discarded because of previous errors.\r\n";

/// A transaction before its EXEC.
pub(crate) struct PlainExec {
    pub(crate) session: Rc<Session>,
    pub(crate) client: Rc<ClientState>,
    pub(crate) queued: Box<Queued>,
    pub(crate) to: Option<(Rc<ReplyQueue>, Slot)>,
    pub(crate) sent: Instant,
    /// Whether the session has left the transaction that the client has sent.
    pub(crate) left: bool,
    /// The strings that cannot be stored plain outside of the transaction.
    pub(crate) nested: Vec<Nested>,
}

/// Executes the transaction. Its reply is handled like that of any EXEC.
pub(crate) fn begin(mut transaction: PlainExec, context: &Context) {
    let Some(context) = context.rc() else {
        return transaction.exec_reply().lose(context, &Lost::from(&errors::GIVEN_UP), false);
    };
    transaction.queued.tries += 1;
    transaction.session.set_executed_by_task(true);
    tokio::task::spawn_local(async move {
        let prepared = if transaction.sent.elapsed() > TRIES_FOR {
            Err(Unable::Refused(context.own_error(&errors::CHANGED_AGAIN)))
        } else {
            transaction.prepare(&context).await
        };
        match prepared {
            Ok(true) => transaction.send(&context),
            Ok(false) => transaction.end(&context, None),
            Err(Unable::Refused(error)) => transaction.end(&context, Some(&error)),
            Err(Unable::Lost(lost)) => transaction.exec_reply().lose(&context, &lost, false),
        }
        context.publish();
    });
}

impl PlainExec {
    /// Watches the strings, and turns them to plain. Returns false if a key that the client watches has changed.
    async fn prepare(&mut self, context: &Rc<Context>) -> Result<bool, Unable> {
        if self.queued.sent.is_too_large {
            return Err(Unable::Refused(context.own_error(&errors::LARGE_TRANSACTION)));
        }
        if self.queued.brings_values {
            return Err(Unable::Refused(context.own_error(&errors::BROUGHT_IN_TRANSACTION)));
        }
        if self.queued.tries == 1 {
            let moves = std::mem::take(&mut self.queued.moves);
            self.queued.looks_into.extend(moves);
            let keys = self.named_keys().map(|(db, key)| (db, &key[..]));
            let turns = context.shared.key_turns.take(keys).await;
            self.queued.turns = turns;
        }
        let watcher = match &self.queued.watched {
            Some(keys) if self.queued.tries == 1 => Some(Watcher::begin(context, &self.session.link, keys).await?),
            _ => None,
        };
        if watcher.as_ref().is_some_and(|watcher| watcher.found_a_change) {
            return Ok(false);
        }
        while self.sent.elapsed() < TRIES_FOR {
            let watched = self.watch(context).await;
            if self.session.refuses_exec() {
                return Err(Unable::Refused(EXECABORT.to_vec()));
            }
            watched?;
            let mut all = Made::default();
            for (db, strings) in &self.queued.looks_into {
                let made = make_plain(context, *db, strings).await?;
                all.converted |= made.converted;
                made.nested.into_iter().for_each(|nested| all.add(nested));
            }
            self.nested = all.nested;
            // Within the transaction these values are plain, and would be taken for compressed ones.
            let decodes = self.queued.shape.iter().any(|shape| *shape != ReplyShape::Nothing);
            if !self.nested.is_empty() && (decodes || !self.queued.selects.is_empty()) {
                return Err(Unable::Refused(context.own_error(&errors::NEVER_PLAIN)));
            }
            if !all.converted {
                // A key that the client watches may have been one of those that were compressed.
                if let Some(watcher) = watcher
                    && watcher.end(context).await?
                {
                    return Ok(false);
                }
                // Alone: behind a MULTI that Redis refuses, the commands would be executed one by one.
                let begun = ask(context, &self.session.link, &[vec![b"MULTI".to_vec()]], false).await?;
                return if begun == b"+OK\r\n" { Ok(true) } else { Err(Unable::Refused(begun)) };
            }
        }
        Err(Unable::Refused(context.own_error(&errors::CHANGED_AGAIN)))
    }

    /// The keys that the commands which look into strings name, with their databases.
    fn named_keys(&self) -> impl Iterator<Item = (u32, &Vec<u8>)> {
        self.queued.looks_into.iter().flat_map(|(db, strings)| strings.named().iter().map(|key| (*db, key)))
    }

    /// Leaves the transaction or the last watches, and watches the keys of the client and of the strings.
    async fn watch(&mut self, context: &Rc<Context>) -> Result<(), Unable> {
        let link = self.session.link.clone();
        let mut keys: Vec<(u32, Vec<u8>)> = self.queued.watched.iter().flatten().cloned().collect();
        keys.extend(self.named_keys().map(|(db, key)| (db, key.clone())));
        let mut requests: Vec<Request> = vec![vec![self.leave().into()]];
        requests.extend(watch_requests(link.db(), keys));
        self.left = true;
        none_refused(&ask(context, &link, &requests, false).await?)?;
        // Which strings a SORT reads is sure only once its list is watched.
        for (db, strings) in &self.queued.looks_into {
            if let Strings::Sorted(..) = strings {
                let keys = keys_of(context, *db, strings).await?.into_iter().map(|key| (*db, key));
                none_refused(&ask(context, &link, &watch_requests(link.db(), keys), false).await?)?;
            }
        }
        Ok(())
    }

    /// The command that ends the transaction, or Shortstop's watches.
    fn leave(&self) -> &'static str {
        if self.left { "UNWATCH" } else { "DISCARD" }
    }

    /// Sends the transaction.
    fn send(mut self, context: &Context) {
        let link = self.session.link.clone();
        if let Err(lost) = link.check() {
            return self.exec_reply().lose(context, &lost, false);
        }
        let mut all = Chunks::default();
        let sent = &self.queued.sent.requests;
        let (before, behind) = plain_then_compressed(&self.nested, &mut all, |wire| {
            sent.iter().for_each(|request| request.append_to(wire));
        });
        let requests = sent.len() + before + behind;
        self.queued.not_the_clients = (before, behind);
        // If Redis refuses a command, it refuses EXEC too. Nobody waits for these replies.
        let on_reply = OnReply::Ask { replies: requests, repeat: false, answer: oneshot::channel().0 };
        context.stats().upstream_commands.add(requests as u64 + 1);
        let long = self.queued.long;
        link.send(Pending { to: None, sent: self.sent, on_reply, call: CallMark::default() }, |wire| {
            all.append_to(wire);
        });
        link.send(self.exec_reply(), |wire| wire.push_slice(b"*1\r\n$4\r\nEXEC\r\n"));
        if long {
            link.may_take(Delay::Long);
        }
    }

    /// The transaction is not executed. The client gets this error, or null because a key has changed that it watches.
    fn end(mut self, context: &Context, error: Option<&[u8]>) {
        let null: &[u8] = if self.session.link.version() == Version::Resp3 { b"_\r\n" } else { b"*-1\r\n" };
        self.session.answered(Sent::Exec, null);
        if self.session.link.check().is_ok() {
            let on_reply = OnReply::session(&self.session, InSession::Sent(Sent::Plain));
            let leave = Pending { to: None, sent: self.sent, on_reply, call: CallMark::default() };
            let name = self.leave().as_bytes();
            self.session.link.send(leave, |wire| wire.push_with(|out| build::request(out, [name].into_iter())));
        }
        mark_end(&self.session, self.to.as_ref(), self.queued.marker.take());
        self.session.set_executed_by_task(false);
        self.queued.guard.end(context, true);
        let on_reply = OnReply::Pass { repeat: false };
        let answer = Pending { to: self.to, sent: self.sent, on_reply, call: CallMark::default() };
        answer.deliver(context, Reply::Borrowed(error.unwrap_or(null)), Instant::now());
    }

    /// What waits for EXEC's reply.
    fn exec_reply(self) -> Pending {
        let on_reply = OnReply::session(&self.session, InSession::Exec { client: self.client, queued: self.queued });
        Pending { to: self.to, sent: self.sent, on_reply, call: CallMark::default() }
    }
}

/// The transaction has ended: the messages of a transaction that unsubscribes come before the reply to a command that does not exist
/// (`proxy::transaction`). `marker` is the slot of that reply.
pub(crate) fn mark_end(session: &Rc<Session>, to: Option<&(Rc<ReplyQueue>, Slot)>, marker: Option<Slot>) {
    let (Some((reply_queue, _)), Some(slot)) = (to, marker) else { return };
    let on_reply = OnReply::session(session, InSession::BehindExec);
    let to = Some((Rc::clone(reply_queue), slot));
    session.link.send(Pending { to, sent: Instant::now(), on_reply, call: CallMark::default() }, unknown_command);
}

/// A connection that watches a client's keys while the client's own connection does not.
struct Watcher {
    link: Link,
    /// A key had changed before.
    found_a_change: bool,
}

impl Watcher {
    /// Watches the keys, and finds out whether one had changed since the client's WATCH.
    async fn begin(context: &Rc<Context>, session: &Link, keys: &[(u32, Vec<u8>)]) -> Result<Watcher, Unable> {
        let mut watcher =
            Watcher { link: context.private_link(&context.own_identity(), 0, Version::Resp2), found_a_change: true };
        // Redis notices that a key has expired when it looks at the key.
        let mut requests = Vec::new();
        for request in watch_requests(0, keys.iter().cloned()) {
            let looked_at =
                (request[0] == b"WATCH").then(|| [vec![b"EXISTS".to_vec()], request[1..].to_vec()].concat());
            requests.push(request);
            requests.extend(looked_at);
        }
        let id = session.id().unwrap_or_default().to_string();
        requests.push([&b"CLIENT"[..], b"LIST", b"ID", id.as_bytes()].map(<[u8]>::to_vec).to_vec());
        let replies = ask(context, &watcher.link, &requests, false).await?;
        none_refused(&replies)?;
        watcher.found_a_change = has_changed(&replies);
        Ok(watcher)
    }

    /// Whether a key has changed since. The session watches the keys again.
    async fn end(&self, context: &Context) -> Result<bool, Unable> {
        let requests: [Request; 2] = [vec![b"MULTI".to_vec()], vec![b"EXEC".to_vec()]];
        let replies = ask(context, &self.link, &requests, false).await?;
        Ok(split_first(&replies).1 != b"*0\r\n")
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.link.retire();
    }
}

/// Whether CLIENT LIST shows a connection on which a watched key has changed. A connection that is not shown has ended.
fn has_changed(list: &[u8]) -> bool {
    let Some(at) = memchr::memmem::find(list, b" flags=") else { return true };
    list[at + 7..].iter().take_while(|byte| **byte != b' ').any(|flag| *flag == b'd')
}

/// WATCH of keys in several databases, on a connection that is in `db` before and after.
fn watch_requests(db: u32, keys: impl IntoIterator<Item = (u32, Vec<u8>)>) -> Vec<Request> {
    let mut databases: BTreeMap<u32, Request> = BTreeMap::new();
    for (db, key) in keys {
        databases.entry(db).or_insert_with(|| vec![b"WATCH".to_vec()]).push(key);
    }
    let select = |db: u32| vec![b"SELECT".to_vec(), db.to_string().into_bytes()];
    let elsewhere = databases.keys().any(|other| *other != db);
    let mut requests: Vec<Request> = Vec::new();
    for (other, watch) in databases {
        if elsewhere {
            requests.push(select(other));
        }
        requests.push(watch);
    }
    requests.extend(elsewhere.then(|| select(db)));
    requests
}

/// Redis has refused none of the requests.
fn none_refused(replies: &[u8]) -> Result<(), Unable> {
    let mut rest = replies;
    while !rest.is_empty() {
        let (reply, others) = split_first(rest);
        if reply.starts_with(b"-") {
            return Err(Unable::Refused(reply.to_vec()));
        }
        rest = others;
    }
    Ok(())
}
