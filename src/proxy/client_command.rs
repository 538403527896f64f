//! The CLIENT family, where it is about clients: who they are, who is to go, who is to wait no more.
//!
//! Two know a part of the answer. Redis knows what the client may do and what it said wrong: it is sent the command in a form
//! that does nothing there (about connections that it does not have, with the names that the connection has anyway), and its
//! error is the answer. When it agrees, the proxy does what was asked. In a transaction the same happens, the second half when
//! EXEC is answered. Must not know how a client is shown; see `client_list.rs`.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::coherence::ServePermit;
use crate::command::Flags;
use crate::errors;
use crate::resp::{Bulk, Chunks, Version, build, bulk_of, elements, parse_int};
use crate::upstream::{Lost, Reply};

use crate::client_state::connection_state::Reason;
use crate::client_state::reply_queue::{ReplyQueue, Slot};
use crate::client_state::session::Session;
use crate::exchange::client_list::{Filter, Line, Record, write_line};
use crate::proxy::auth::Greeting;
use crate::proxy::local::is_name;
use crate::proxy::{Call, Client, Next, Replies};
use crate::replies::decode::ReplyShape;
use crate::replies::deliver::{OnReply, Pending};
use crate::worker_state::context::Context;
use crate::worker_state::worker_tasks::{Request, ask};

/// A number that no connection to Redis has.
const NOBODY: &[u8] = b"9223372036854775807";

/// What a client wants, when Redis has nothing against it.
pub(crate) enum Wish {
    /// HELLO or AUTH in a transaction.
    Greet(Box<Greeting>),
    /// CLIENT TRACKING in a transaction, with invalidations for this client.
    Redirect(u64),
    Id,
    GetName,
    SetName(Vec<u8>),
    /// lib-name or lib-ver.
    SetInfo(usize, Vec<u8>),
    Info,
    /// None: Redis knows more options than the proxy.
    List(Option<Filter>),
    /// `only`: the old form, of one address, with another answer.
    Kill {
        filter: Option<Filter>,
        only: bool,
    },
    Unblock {
        id: u64,
        how: Request,
    },
    /// A reply with the number of the client that invalidations go to.
    Redirection,
}

/// What the client is told.
struct Answer {
    bytes: Vec<u8>,
    /// It has ended itself: nothing comes behind this.
    last: bool,
}

impl From<Vec<u8>> for Answer {
    fn from(bytes: Vec<u8>) -> Self {
        Answer { bytes, last: false }
    }
}

/// What a plan is made with.
struct Sender<'a> {
    /// The name that the connection to Redis has, and keeps.
    name: &'a str,
    /// The number that CLIENT LIST asks about.
    number: &'a [u8],
}

/// What is sent to Redis for a command, and what it stands for. None: whatever the command is, Redis knows all of it.
fn plan(sender: &Sender<'_>, name: &str, args: &[&[u8]]) -> Option<(Request, Wish)> {
    let as_it_is = || args.iter().map(|arg| arg.to_vec()).collect::<Request>();
    let words = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect::<Request>();
    // What Redis refuses, whatever its version, in the place of what it might take and put on a connection that others use.
    const REFUSED: &[u8] = b"a b";
    Some(match name {
        "client|id" => (as_it_is(), Wish::Id),
        "client|getname" => (as_it_is(), Wish::GetName),
        "client|setname" => {
            let name = if is_name(args[2]) { sender.name.as_bytes() } else { REFUSED };
            (words(&[args[0], args[1], name]), Wish::SetName(args[2].to_vec()))
        }
        "client|setinfo" => {
            let options = [&b"lib-name"[..], b"lib-ver"];
            let which = options.iter().position(|option| args[2].eq_ignore_ascii_case(option))?;
            let value = if is_name(args[3]) { b"" } else { REFUSED };
            (words(&[args[0], args[1], args[2], value]), Wish::SetInfo(which, args[3].to_vec()))
        }
        "client|info" => (as_it_is(), Wish::Info),
        "client|list" => {
            let options = &args[2..];
            let mut request = words(&args[..2]);
            let kind = matches!(options, [word, _] if word.eq_ignore_ascii_case(b"type"));
            let known = Filter::of(options, false);
            let ids = options.first().is_some_and(|word| word.eq_ignore_ascii_case(b"id"));
            match known {
                // Redis would list all of its own connections.
                Some(_) if options.is_empty() || kind => request.extend(words(&[b"ID", sender.number])),
                _ => {
                    request.extend(replaced(options, sender.number));
                    if !ids && !kind && options.len().is_multiple_of(2) {
                        request.extend(words(&[b"ID", sender.number]));
                    }
                }
            }
            (request, Wish::List(known))
        }
        "client|kill" => match &args[2..] {
            // Nobody can connect from there.
            [address] => (
                words(&[args[0], args[1], b"0.0.0.0:0"]),
                Wish::Kill { filter: Some(Filter::address(address)), only: true },
            ),
            options => {
                // In front, for what is left out; and behind, where it is the last that counts.
                let mut request = words(&[args[0], args[1], b"ID", NOBODY]);
                request.extend(replaced(options, NOBODY));
                if options.len().is_multiple_of(2) {
                    request.extend(words(&[b"ID", NOBODY]));
                }
                (request, Wish::Kill { filter: Filter::of(options, true), only: false })
            }
        },
        "client|unblock" => {
            let id = parse_int(args[2])?;
            let how: Request = args[3..].iter().map(|word| word.to_vec()).collect();
            let mut request = words(&[args[0], args[1], NOBODY]);
            request.extend(how.iter().cloned());
            // No client has a number below 1.
            (request, Wish::Unblock { id: u64::try_from(id).unwrap_or(0), how })
        }
        "client|getredir" | "client|trackinginfo" => (as_it_is(), Wish::Redirection),
        _ => return None,
    })
}

/// Options with the numbers of clients replaced.
fn replaced(options: &[&[u8]], number: &[u8]) -> Request {
    let mut ids = false;
    let words = options.iter().map(|word| {
        let is_id = ids && parse_int(word).is_some_and(|id| id > 0);
        ids = is_id || word.eq_ignore_ascii_case(b"id");
        if is_id { number.to_vec() } else { word.to_vec() }
    });
    words.collect()
}

impl Client {
    /// A command of the CLIENT family with as many arguments as it takes. None: it goes the way of all others.
    pub(crate) fn family(&mut self, permit: &ServePermit, call: Call<'_>) -> Option<Next> {
        let name = match call.args {
            // Sent by libraries at every connect, also before the table of a server that has it is here.
            [_, word, _, _] if word.eq_ignore_ascii_case(b"setinfo") => "client|setinfo",
            _ => call.row.name.as_ref(),
        };
        let session = self.session.clone();
        let in_multi = session.as_ref().is_some_and(|session| session.in_multi());
        // Redis takes nothing of the kind, and says so.
        let is_deaf = self.reply_queue.profile.version() == Version::Resp2
            && session.as_ref().is_some_and(|session| session.is_subscribed());
        let is = |word: &[u8]| call.args.len() == 3 && call.args[2].eq_ignore_ascii_case(word);
        match (name, &session) {
            ("client|reply" | "client|tracking", _) if is_deaf => return None,
            // Newer servers do not take it in a transaction.
            ("client|reply", _) if in_multi && call.row.flags.contains(Flags::NO_MULTI) => return None,
            ("client|reply", Some(session)) if in_multi && (is(b"off") || is(b"skip")) => {
                return Some(self.abort_transaction(permit, session, &errors::REPLY_IN_MULTI));
            }
            ("client|reply", Some(session)) if in_multi => {
                session.queue(|queued| queued.speaks |= is(b"on"));
                return None;
            }
            ("client|reply", _) => return Some(self.client_reply(permit, call)),
            // On a lane it is off.
            ("client|tracking" | "client|no-evict" | "client|no-touch", None) if is(b"off") => {
                return Some(self.pass_where_it_is(permit, call));
            }
            ("client|tracking", _) => return self.tracking(permit, call),
            _ => {}
        }
        if session.as_ref().is_some_and(|session| session.is_acknowledging()) {
            return None;
        }
        let session = session.filter(|_| in_multi);
        // In a transaction Redis shows the client's own line at once: what it says of the transaction holds no longer afterwards.
        let own = session.as_ref().and_then(|session| session.link.id()).map(|id| id.to_string().into_bytes());
        let sender = Sender { name: self.context.connection_name(), number: own.as_deref().unwrap_or(NOBODY) };
        let (request, wish) = plan(&sender, name, call.args)?;
        if let Some(session) = session {
            if let Err(lost) = session.link.check() {
                return Some(self.unavailable(&lost));
            }
            session.queue(|queued| {
                queued.wishes.push((queued.shape.len(), wish));
                queued.shape.push(ReplyShape::Nothing);
            });
            let on_reply = OnReply::Queued(Rc::clone(&session));
            self.send(permit.now, &session.link, on_reply, 0, |wire| write(wire, &request));
            return Some(Next::Go);
        }
        Some(self.wish(permit, &request, wish))
    }

    fn wish(&mut self, permit: &ServePermit, request: &Request, wish: Wish) -> Next {
        // What is shown must be as it was when it was asked for, and what is done be done before the next.
        let next = match wish {
            Wish::Id | Wish::GetName | Wish::SetName(_) | Wish::SetInfo(..) | Wish::Redirection => Next::Go,
            Wish::Greet(_) | Wish::Redirect(_) => Next::Pause,
            Wish::Info | Wish::List(_) | Wish::Kill { .. } | Wish::Unblock { .. } => Next::Pause,
        };
        // A client that connects while Redis is away is served what L1 has.
        let does_without_redis =
            self.session.is_none() && matches!(wish, Wish::Id | Wish::GetName | Wish::SetName(_) | Wish::SetInfo(..));
        let bytes = request.iter().map(|word| word.len() + 32).sum();
        if let Err(next) = self.leave_lane_if_large(permit, bytes, request.len()) {
            return next;
        }
        let target = self.target();
        let lost = target.as_ref().map_or_else(|lost| Some(lost.clone()), |target| target.link().check().err());
        let link = match (target, lost) {
            (Ok(target), None) => target.link().clone(),
            (_, Some(lost)) => {
                if !does_without_redis || lost.is_login_refused() {
                    return self.unavailable(&lost);
                }
                if let Ok(answer) = at_once(&self.context, &self.reply_queue, wish, b"+OK\r\n") {
                    self.answer(&answer.bytes);
                }
                return Next::Go;
            }
            (Err(lost), None) => return self.unavailable(&lost),
        };
        let (reply_queue, slot) = (Rc::clone(&self.reply_queue), self.reply_queue.open(self.is_muted()));
        let on_reply = Box::new(move |context: &Context, reply: Result<Reply<'_>, &Lost>| match reply {
            Ok(reply) => settle_one(context, reply_queue, slot, wish, reply.bytes()),
            Err(lost) if does_without_redis && !lost.is_login_refused() => {
                settle_one(context, reply_queue, slot, wish, b"+OK\r\n");
            }
            Err(lost) => reply_queue.fill(slot, Reply::Owned(error(lost))),
        });
        self.context.stats().upstream_commands.add(1);
        let on_reply = OnReply::Call { replies: 1, repeat: true, on_reply };
        link.send(Pending { to: None, sent: permit.now, on_reply }, |wire| write(wire, request));
        next
    }

    fn client_reply(&mut self, permit: &ServePermit, call: Call<'_>) -> Next {
        match &call.args[2].to_ascii_lowercase()[..] {
            b"on" => {
                self.replies = Replies::On;
                self.answer(b"+OK\r\n");
            }
            b"off" => self.replies = Replies::Off,
            b"skip" if self.replies == Replies::Off => {}
            b"skip" => self.replies = Replies::SkipNext,
            _ => return self.pass_where_it_is(permit, call),
        }
        Next::Go
    }

    /// CLIENT TRACKING on the client's own connection; REDIRECT names a client of the proxy, Redis has to be told its own number.
    fn tracking(&mut self, permit: &ServePermit, call: Call<'_>) -> Option<Next> {
        let (at, target) = redirection(call.args)?;
        let session = match self.enter_session(permit) {
            Ok(Some(session)) => session,
            Ok(None) => return Some(Next::Again),
            Err(lost) => return Some(self.not_done(call.row, &lost)),
        };
        if session.is_acknowledging() {
            return None;
        }
        if let Err(lost) = session.link.check() {
            return Some(self.not_done(call.row, &lost));
        }
        let slot = self.reply_queue.open(self.is_muted());
        self.in_flight = u64::MAX;
        let mut request: Request = call.args.iter().map(|arg| arg.to_vec()).collect();
        let (context, reply_queue) = (Rc::clone(&self.context), Rc::clone(&self.reply_queue));
        // If the client leaves meanwhile, the connection must be nobody else's.
        session.begin_attempt();
        let in_multi = session.in_multi();
        if in_multi {
            // It is done at EXEC, if it is.
            session.bind(Reason::Tracking);
            session.queue(|queued| {
                queued.wishes.push((queued.shape.len(), Wish::Redirect(target)));
                queued.shape.push(ReplyShape::Nothing);
            });
        }
        tokio::task::spawn_local(async move {
            let number = find(&context, target, Purpose::Redirect).await;
            request[at] = number.map_or_else(|| NOBODY.to_vec(), |number| number.to_string().into_bytes());
            let reply = match ask(&context, &session.link, &[request], false).await {
                Ok(reply) => {
                    if in_multi {
                        session.queued(&reply);
                    } else if !reply.starts_with(b"-") {
                        session.bind(Reason::Tracking);
                        session.redirect.set(target);
                    }
                    reply.into()
                }
                Err(lost) => {
                    session.lost();
                    error(&lost)
                }
            };
            session.end_attempt();
            reply_queue.fill(slot, Reply::Owned(reply));
        });
        Some(Next::Pause)
    }
}

fn write(wire: &mut Chunks, request: &Request) {
    wire.push_with(|out| build::request(out, request.iter().map(Vec::as_slice)));
}

fn error(lost: &Lost) -> Bytes {
    let mut out = Vec::new();
    build::error(&mut out, lost.text());
    out.into()
}

/// The place of REDIRECT's number among the arguments of CLIENT TRACKING, and the number; 0: nobody's.
fn redirection(args: &[&[u8]]) -> Option<(usize, u64)> {
    let mut at = 3;
    while at + 1 < args.len() {
        if args[at].eq_ignore_ascii_case(b"redirect") {
            // What is no number Redis refuses.
            return Some((at + 1, parse_int(args[at + 1]).map(|id| u64::try_from(id).unwrap_or(0))?));
        }
        at += if args[at].eq_ignore_ascii_case(b"prefix") { 2 } else { 1 };
    }
    None
}

/// Redis has spoken: the rest is done, and the client told.
fn settle_one(context: &Context, reply_queue: Rc<ReplyQueue>, slot: Slot, wish: Wish, verdict: &[u8]) {
    let fill = move |reply_queue: &ReplyQueue, answer: Answer| {
        reply_queue.fill(slot, Reply::Owned(answer.bytes.into()));
        if answer.last {
            reply_queue.close();
        }
    };
    match at_once(context, &reply_queue, wish, verdict) {
        Ok(answer) => fill(&reply_queue, answer),
        Err(wish) => {
            let Some(context) = context.rc() else { return };
            reply_queue.is_coming(slot);
            tokio::task::spawn_local(async move {
                let answer = later(&context, &reply_queue, wish, &[]).await;
                fill(&reply_queue, answer);
            });
        }
    }
}

/// The reply of EXEC, with Redis's answers to the commands at these places replaced by those of the proxy; handed to `then`.
pub(crate) fn settle_all(
    context: &Context,
    reply_queue: Rc<ReplyQueue>,
    wishes: Vec<(usize, Wish)>,
    reply: &[u8],
    on_reply: impl FnOnce(&Context, Reply<'_>) + 'static,
) {
    let (Some(parts), Some(context)) = (elements(reply), context.rc()) else {
        return on_reply(context, Reply::Borrowed(reply));
    };
    let mut parts: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
    if parts.is_empty() {
        // It was not executed.
        return on_reply(&context, Reply::Borrowed(reply));
    }
    tokio::task::spawn_local(async move {
        let mut out = Vec::new();
        build::header(&mut out, b'*', parts.len());
        let mut last = false;
        for (at, wish) in wishes {
            let Some(part) = parts.get_mut(at).filter(|_| !last) else { break };
            let answer = match at_once(&context, &reply_queue, wish, part) {
                Ok(answer) => answer,
                Err(wish) => later(&context, &reply_queue, wish, part).await,
            };
            *part = answer.bytes;
            if answer.last {
                // Redis, too, writes nothing more to a client that has ended itself.
                last = true;
                parts.truncate(at + 1);
            }
        }
        out.extend(parts.into_iter().flatten());
        on_reply(&context, Reply::Owned(out.into()));
        if last {
            reply_queue.close();
        }
    });
}

/// What can be done with what this worker knows, or the wish that needs others.
fn at_once(context: &Context, reply_queue: &ReplyQueue, wish: Wish, verdict: &[u8]) -> Result<Answer, Wish> {
    let agreed = match &wish {
        Wish::Kill { only: true, .. } if verdict.starts_with(b"-ERR No such client") => true,
        _ => !verdict.starts_with(b"-"),
    };
    if !agreed {
        return Ok(verdict.to_vec().into());
    }
    let (info, profile) = (&reply_queue.info, &reply_queue.profile);
    let mut out = Vec::new();
    match wish {
        Wish::Id => build::integer(&mut out, i64::try_from(info.id).unwrap_or(i64::MAX)),
        Wish::Greet(greeting) => {
            out.extend_from_slice(&greeting.own_number(verdict));
            greeting.apply(context, reply_queue);
        }
        Wish::Redirect(target) => {
            if let Some(session) = info.session() {
                session.redirect.set(target);
            }
            out.extend_from_slice(verdict);
        }
        Wish::GetName if profile.name.borrow().is_empty() => out.extend_from_slice(profile.version().null()),
        Wish::GetName => build::bulk(&mut out, &profile.name.borrow()),
        Wish::SetName(name) => {
            *profile.name.borrow_mut() = name;
            out.extend_from_slice(b"+OK\r\n");
        }
        Wish::SetInfo(which, value) => {
            info.library.borrow_mut()[which] = value;
            out.extend_from_slice(b"+OK\r\n");
        }
        Wish::Info => {
            // It was asked on the connection that the client has, if it has one.
            let line = lines(verdict).and_then(|mut lines| lines.next());
            let own = line.filter(|line| info.session().is_some_and(|session| session.link.id() == line.id()));
            let mut text = Vec::new();
            write_line(&mut text, line.unwrap_or(Line::USUAL), &Record::of(context, reply_queue), own);
            out = as_text(profile.version(), &text);
        }
        Wish::Redirection => out = redirected(verdict, info.session()),
        wish => return Err(wish),
    }
    Ok(out.into())
}

/// What other workers, and Redis, have to be asked for.
async fn later(context: &Rc<Context>, reply_queue: &ReplyQueue, wish: Wish, verdict: &[u8]) -> Answer {
    match wish {
        Wish::List(Some(filter)) => {
            list(context, reply_queue, &filter, verdict).await.unwrap_or_else(|lost| error(&lost).to_vec()).into()
        }
        Wish::Kill { filter: Some(filter), only } => kill(context, reply_queue, filter, only).await,
        Wish::Unblock { id, how } => {
            unblock(context, reply_queue, id, how).await.unwrap_or_else(|lost| error(&lost).to_vec()).into()
        }
        _ => context.own_error(&errors::UNKNOWN_OPTION).into(),
    }
}

/// All clients that are meant, in Redis's form. In `verdict` Redis may have said something of the client that asks.
async fn list(
    context: &Rc<Context>,
    reply_queue: &ReplyQueue,
    filter: &Filter,
    verdict: &[u8],
) -> Result<Vec<u8>, Lost> {
    let all = context.ask_all_workers(|context, answers| drop(answers.send(Record::all(context)))).await;
    let mut clients: Vec<Record> = all.into_iter().flatten().collect();
    clients.retain(|client| filter.admits(client, reply_queue.info.id));
    clients.sort_unstable_by_key(|client| client.id);

    // What Redis knows of their private connections, and how it writes a line.
    let words = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect::<Request>();
    // The lane's own line shows the form: the user may have no right to CLIENT INFO.
    let lane = reply_queue.profile.lane(context)?;
    lane.settled().await;
    let mut sessions = words(&["CLIENT", "LIST", "ID"]);
    sessions.push(lane.id().map_or_else(|| NOBODY.to_vec(), |id| id.to_string().into_bytes()));
    sessions.extend(clients.iter().filter_map(|client| client.session).map(|id| id.to_string().into_bytes()));
    let sessions = ask(context, &lane, &[sessions], true).await?;
    let known = [&sessions[..], verdict].into_iter().filter_map(lines).flatten();
    let own: HashMap<u64, Line<'_>> = known.filter_map(|line| Some((line.id()?, line))).collect();
    // It is the lane that asks: the command in its line shows whether Redis names subcommands. In another line it need not have any.
    let form = lane.id().and_then(|id| own.get(&id)).or_else(|| own.values().next()).copied();

    let mut text = Vec::new();
    let mut write = |client: &Record| {
        let own = client.session.and_then(|session| own.get(&session).copied());
        write_line(&mut text, form.unwrap_or(Line::USUAL), client, own);
    };
    match filter.only_ids() {
        Some(ids) => {
            let numbers = ids.iter().filter_map(|id| u64::try_from(*id).ok());
            let found = numbers.filter_map(|id| clients.binary_search_by_key(&id, |client| client.id).ok());
            found.for_each(|at| write(&clients[at]));
        }
        None => clients.iter().for_each(write),
    }
    Ok(as_text(reply_queue.profile.version(), &text))
}

/// Ends the clients that are meant.
async fn kill(context: &Rc<Context>, reply_queue: &ReplyQueue, filter: Filter, only: bool) -> Answer {
    let (filter, asker) = (Arc::new(filter), reply_queue.info.id);
    let work = move |context: &Rc<Context>, answers: mpsc::UnboundedSender<(u64, bool)>| {
        let (mut count, mut myself) = (0, false);
        for reply_queue in context.clients.borrow().values().filter(|reply_queue| !reply_queue.info.is_killed()) {
            if filter.admits(&Record::of(context, reply_queue), asker) {
                count += 1;
                if reply_queue.info.id == asker {
                    myself = true;
                } else {
                    reply_queue.kill();
                }
            }
        }
        // It is there as long as somebody waits for the answer.
        let _ = answers.send((count, myself));
    };
    let counts = context.ask_all_workers(work).await;
    let count: u64 = counts.iter().map(|(count, _)| count).sum();
    let mut bytes = Vec::new();
    match (only, count) {
        (true, 0) => bytes.extend_from_slice(b"-ERR No such client\r\n"),
        (true, _) => bytes.extend_from_slice(b"+OK\r\n"),
        (false, count) => build::integer(&mut bytes, i64::try_from(count).unwrap_or(i64::MAX)),
    }
    Answer { bytes, last: counts.iter().any(|(_, myself)| *myself) }
}

/// Has Redis unblock the client's private connection, if it has one.
async fn unblock(context: &Rc<Context>, reply_queue: &ReplyQueue, id: u64, how: Request) -> Result<Vec<u8>, Lost> {
    let Some(number) = find(context, id, Purpose::Unblock).await else {
        return Ok(b":0\r\n".to_vec());
    };
    let mut request: Request = vec![b"CLIENT".to_vec(), b"UNBLOCK".to_vec(), number.to_string().into_bytes()];
    request.extend(how);
    let lane = reply_queue.profile.lane(context)?;
    ask(context, &lane, &[request], false).await
}

/// What a client's number in Redis is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Unblock,
    /// Its invalidations are to go there, so there has to be a connection, and it has to stay the client's.
    Redirect,
}

/// The number in Redis of a client's private connection.
async fn find(context: &Rc<Context>, id: u64, purpose: Purpose) -> Option<u64> {
    let work = move |context: &Rc<Context>, answers: mpsc::UnboundedSender<u64>| {
        let reply_queue =
            context.clients.borrow().get(&id).filter(|reply_queue| !reply_queue.info.is_killed()).cloned();
        let Some(reply_queue) = reply_queue else { return };
        if let (Purpose::Unblock, Some(waiter)) = (purpose, &*reply_queue.info.waiter.borrow()) {
            waiter.expose_number().map(|number| answers.send(number));
            return;
        }
        let session = match (reply_queue.info.session(), purpose) {
            (None, Purpose::Redirect) => offer(context, &reply_queue),
            (session, _) => session,
        };
        let Some(session) = session else { return };
        match purpose {
            Purpose::Unblock => session.expose_number(),
            Purpose::Redirect => session.bind(Reason::RedirectTarget),
        }
        if let Some(number) = session.link.id() {
            let _ = answers.send(number);
        } else if purpose == Purpose::Redirect {
            // Its number is known when it stands.
            tokio::task::spawn_local(async move {
                session.link.settled().await;
                session.link.id().map(|number| answers.send(number))
            });
        }
    };
    context.ask_all_workers(work).await.pop()
}

/// A private connection for a client that has none: it takes it when it needs one.
fn offer(context: &Rc<Context>, reply_queue: &Rc<ReplyQueue>) -> Option<Rc<Session>> {
    if !context.try_take_place() {
        return None;
    }
    let profile = &reply_queue.profile;
    let identity = profile.identity();
    let link = context.session(&identity, profile.db(), profile.version());
    let session = Rc::new(Session::new(link, identity, Rc::clone(reply_queue)));
    *reply_queue.info.session.borrow_mut() = Rc::downgrade(&session);
    *reply_queue.info.offered.borrow_mut() = Some(Rc::clone(&session));
    Some(session)
}

/// A reply of CLIENT GETREDIR or TRACKINGINFO, with the number that the proxy has for the client that is meant.
fn redirected(reply: &[u8], session: Option<Rc<Session>>) -> Vec<u8> {
    const FIELD: &[u8] = b"$8\r\nredirect\r\n";
    let at = memchr::memmem::find(reply, FIELD).map_or(0, |at| at + FIELD.len());
    let number = reply[at..].strip_prefix(b":").and_then(|rest| Some(&rest[..memchr::memchr(b'\r', rest)?]));
    match (number, session) {
        (Some(number), Some(session)) if parse_int(number).is_some_and(|number| number > 0) => {
            let rest = &reply[at + 1 + number.len()..];
            [&reply[..=at], session.redirect.get().to_string().as_bytes(), rest].concat()
        }
        _ => reply.to_vec(),
    }
}

/// The lines of a reply to CLIENT LIST or CLIENT INFO.
fn lines(reply: &[u8]) -> Option<impl Iterator<Item = Line<'_>>> {
    match bulk_of(reply) {
        Bulk::Value(text) => Some(Line::all(text)),
        Bulk::Verbatim(text) => Some(Line::all(text.strip_prefix(b"txt:").unwrap_or(text))),
        _ => None,
    }
}

/// A text as Redis replies it.
fn as_text(version: Version, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 32);
    match version {
        Version::Resp2 => build::bulk(&mut out, text),
        Version::Resp3 => {
            build::header(&mut out, b'=', text.len() + 4);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{NOBODY, Sender, plan, redirected, redirection};

    fn sent(line: &str) -> Option<String> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let sub = line.split(' ').nth(1).expect("a subcommand").to_ascii_lowercase();
        let sender = Sender { name: "fleet", number: NOBODY };
        let (request, _) = plan(&sender, &format!("client|{sub}"), &words)?;
        let nobody = std::str::from_utf8(NOBODY).expect("digits");
        let text = request.iter().map(|word| String::from_utf8_lossy(word).replace(nobody, "*")).collect::<Vec<_>>();
        Some(text.join(" "))
    }

    /// The numbers here are the proxy's: to Redis they would mean somebody else.
    #[test]
    fn what_redis_is_sent_means_none_of_its_connections() {
        for (line, expected) in [
            ("CLIENT KILL 1.2.3.4:5", "CLIENT KILL 0.0.0.0:0"),
            ("client kill id 5", "client kill ID * id * ID *"),
            ("CLIENT KILL ID 5 6 7 TYPE normal", "CLIENT KILL ID * ID * * * TYPE normal ID *"),
            ("CLIENT KILL TYPE normal SKIPME no", "CLIENT KILL ID * TYPE normal SKIPME no ID *"),
            // Refused, or no wish: what follows counts.
            ("CLIENT KILL ID 0", "CLIENT KILL ID * ID 0 ID *"),
            ("CLIENT KILL ID x", "CLIENT KILL ID * ID x ID *"),
            // Not in pairs: what follows would change the error.
            ("CLIENT KILL USER a TYPE", "CLIENT KILL ID * USER a TYPE"),
            ("CLIENT KILL NOT-ID 5 ID 6", "CLIENT KILL ID * NOT-ID 5 ID * ID *"),
            ("CLIENT LIST", "CLIENT LIST ID *"),
            ("CLIENT LIST TYPE pubsub", "CLIENT LIST ID *"),
            ("CLIENT LIST TYPE nonsense", "CLIENT LIST TYPE nonsense"),
            ("CLIENT LIST ID 1 2 x", "CLIENT LIST ID * * x"),
            ("CLIENT LIST NAME a", "CLIENT LIST NAME a ID *"),
            ("CLIENT LIST x", "CLIENT LIST x"),
            ("CLIENT UNBLOCK 5 ERROR", "CLIENT UNBLOCK * ERROR"),
            ("CLIENT SETNAME me", "CLIENT SETNAME fleet"),
            ("CLIENT SETNAME a\tb", "CLIENT SETNAME a b"),
            ("CLIENT SETINFO LIB-NAME x", "CLIENT SETINFO LIB-NAME "),
            ("CLIENT SETINFO lib-ver a\tb", "CLIENT SETINFO lib-ver a b"),
            ("CLIENT INFO", "CLIENT INFO"),
        ] {
            assert_eq!(sent(line).as_deref(), Some(expected), "{line}");
        }
        for line in ["CLIENT UNBLOCK x", "CLIENT SETINFO nonsense x", "CLIENT PAUSE 1", "CLIENT HELP"] {
            assert_eq!(sent(line), None, "{line}");
        }
    }

    #[test]
    fn whom_tracking_names() {
        for (line, expected) in [
            ("CLIENT TRACKING ON", None),
            ("CLIENT TRACKING ON REDIRECT", None),
            ("CLIENT TRACKING ON REDIRECT x", None),
            ("CLIENT TRACKING ON REDIRECT 7", Some((4, 7))),
            ("CLIENT TRACKING ON REDIRECT -7", Some((4, 0))),
            ("CLIENT TRACKING ON BCAST PREFIX redirect redirect 7 REDIRECT 8", Some((7, 7))),
            ("CLIENT TRACKING ON BCAST PREFIX redirect PREFIX 7", None),
        ] {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            assert_eq!(redirection(&words), expected, "{line}");
        }
    }

    #[test]
    fn without_a_redirection_nothing_is_replaced() {
        for reply in [&b":-1\r\n"[..], b":0\r\n", b":5\r\n", b"$8\r\nredirect\r\n:5\r\n", b"-ERR x\r\n", b""] {
            assert_eq!(redirected(reply, None), reply);
        }
    }
}
