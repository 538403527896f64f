//! The second half of a CLIENT command: Redis has accepted it, and Shortstop carries it out and answers. What other workers know is
//! requested from them.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::errors;
use crate::exchange::client_command::{ClientCommand, UNUSED_ID};
use crate::exchange::client_list::{Filter, Line, Record, write_line};
use crate::exchange::pending::{AskedClientCommand, ClientState, Session};
use crate::resp::{Bulk, Version, build, bulk_of, elements, parse_int};
use crate::upstream::{Lost, Reply};
use crate::worker_state::ask::{Request, ask};
use crate::worker_state::context::Context;
use crate::worker_state::named_connections::{Purpose, find};
use crate::worker_state::own_answers;

/// The answer to the client.
struct Answer {
    bytes: Vec<u8>,
    /// The client has closed itself: no answer follows this one.
    last: bool,
}

impl From<Vec<u8>> for Answer {
    fn from(bytes: Vec<u8>) -> Self {
        Answer { bytes, last: false }
    }
}

/// Redis has replied, or is away: carries out the command and answers the client.
pub(crate) fn answered(context: &Context, asked: AskedClientCommand, reply: Result<Reply<'_>, &Lost>) {
    let AskedClientCommand { client, slot, command, without_redis } = asked;
    let verdict = match &reply {
        Ok(reply) => reply.bytes(),
        Err(lost) if without_redis && !lost.is_login_refused() => AGREED,
        Err(lost) => return client.reply_queue.fill(slot, Reply::Owned(error(lost))),
    };
    let fill = move |client: &ClientState, answer: Answer| {
        client.reply_queue.fill(slot, Reply::Owned(answer.bytes.into()));
        if answer.last {
            client.reply_queue.close();
        }
    };
    match answer_locally(context, &client, command, verdict) {
        Ok(answer) => fill(&client, answer),
        Err(command) => {
            let Some(context) = context.rc() else { return };
            client.reply_queue.is_coming(slot);
            tokio::task::spawn_local(async move {
                let answer = answer_by_asking(&context, &client, command, &[]).await;
                fill(&client, answer);
            });
        }
    }
}

/// The reply with which Redis accepts a command.
const AGREED: &[u8] = b"+OK\r\n";

/// Replaces Redis's answers to these commands in EXEC's reply with Shortstop's, and passes the reply to `on_reply`. `commands` has
/// the position of each command.
pub(crate) fn replace_in_exec_reply(
    context: &Context,
    client: Rc<ClientState>,
    commands: Vec<(usize, ClientCommand)>,
    reply: &[u8],
    on_reply: impl FnOnce(&Context, Reply<'_>) + 'static,
) {
    let (Some(parts), Some(context)) = (elements(reply), context.rc()) else {
        return on_reply(context, Reply::Borrowed(reply));
    };
    let mut parts: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
    if parts.is_empty() {
        // The transaction was not executed.
        return on_reply(&context, Reply::Borrowed(reply));
    }
    tokio::task::spawn_local(async move {
        let mut out = Vec::new();
        build::header(&mut out, b'*', parts.len());
        let mut last = false;
        for (at, command) in commands {
            let Some(part) = parts.get_mut(at).filter(|_| !last) else { break };
            let answer = match answer_locally(&context, &client, command, part) {
                Ok(answer) => answer,
                Err(command) => answer_by_asking(&context, &client, command, part).await,
            };
            *part = answer.bytes;
            if answer.last {
                // Redis writes nothing more to a client that has closed itself. Neither does Shortstop.
                last = true;
                parts.truncate(at + 1);
            }
        }
        out.extend(parts.into_iter().flatten());
        on_reply(&context, Reply::Owned(out.into()));
        if last {
            client.reply_queue.close();
        }
    });
}

/// Answers from what this worker knows. Returns the command if other workers or Redis must be asked.
fn answer_locally(
    context: &Context,
    client: &ClientState,
    command: ClientCommand,
    verdict: &[u8],
) -> Result<Answer, ClientCommand> {
    let agreed = match &command {
        ClientCommand::Kill { only: true, .. } if verdict.starts_with(b"-ERR No such client") => true,
        _ => !verdict.starts_with(b"-"),
    };
    if !agreed {
        return Ok(verdict.to_vec().into());
    }
    let mut out = Vec::new();
    match command {
        ClientCommand::Greet(greeting) => {
            out.extend_from_slice(&greeting.with_own_id(verdict));
            greeting.apply(context, client);
        }
        ClientCommand::Redirect(target) => {
            if let Some(session) = client.session() {
                session.redirect.set(target);
            }
            out.extend_from_slice(verdict);
        }
        ClientCommand::Info => {
            // If the client has a session, Redis was asked there, and its answer contains the session's line.
            let line = lines(verdict).and_then(|mut lines| lines.next());
            let own = line.filter(|line| client.session().is_some_and(|session| session.link.id() == line.id()));
            let mut text = Vec::new();
            write_line(&mut text, line.unwrap_or(Line::USUAL), &record(context, client), own);
            out = as_text(client.profile.version(), &text);
        }
        ClientCommand::Redirection => out = redirected(verdict, client.session()),
        command => out = own_answers::answer(client, command)?,
    }
    Ok(out.into())
}

/// Answers a command for which other workers or Redis must be asked.
async fn answer_by_asking(
    context: &Rc<Context>,
    client: &ClientState,
    command: ClientCommand,
    verdict: &[u8],
) -> Answer {
    match command {
        ClientCommand::List(Some(filter)) => {
            list(context, client, &filter, verdict).await.unwrap_or_else(|lost| error(&lost).to_vec()).into()
        }
        ClientCommand::Kill { filter: Some(filter), only } => kill(context, client, filter, only).await,
        ClientCommand::Unblock { id, how } => {
            unblock(context, client, id, how).await.unwrap_or_else(|lost| error(&lost).to_vec()).into()
        }
        _ => context.own_error(&errors::UNKNOWN_OPTION).into(),
    }
}

/// The record of a client of this worker.
fn record(context: &Context, client: &ClientState) -> Record {
    Record::of(client, context.worker, context.view().table.name_of(client.info.last.get()))
}

/// The records of all clients of this worker.
fn records(context: &Context) -> Vec<Record> {
    let clients = context.clients.borrow();
    clients.values().filter(|client| !client.info.is_killed()).map(|client| record(context, client)).collect()
}

/// The lines of all clients that the filter selects, in Redis's format. `verdict` may contain Redis's line about the client that
/// asks.
async fn list(context: &Rc<Context>, client: &ClientState, filter: &Filter, verdict: &[u8]) -> Result<Vec<u8>, Lost> {
    let all = context.ask_all_workers(|context, answers| drop(answers.send(records(context)))).await;
    let mut clients: Vec<Record> = all.into_iter().flatten().collect();
    let asker = client.info.id;
    clients.retain(|client| filter.admits(client, asker));
    clients.sort_unstable_by_key(|client| client.id);

    // Redis knows the state of the sessions, and the format of a line.
    let words = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect::<Request>();
    // The lane's own line shows the format. CLIENT INFO would need a right that the user may not have.
    let lane = context.lane_of(&client.profile)?;
    lane.settled().await;
    let mut sessions = words(&["CLIENT", "LIST", "ID"]);
    sessions.push(lane.id().map_or_else(|| UNUSED_ID.to_vec(), |id| id.to_string().into_bytes()));
    sessions.extend(clients.iter().filter_map(|client| client.session).map(|id| id.to_string().into_bytes()));
    let sessions = ask(context, &lane, &[sessions], true).await?;
    let known = [&sessions[..], verdict].into_iter().filter_map(lines).flatten();
    let own: HashMap<u64, Line<'_>> = known.filter_map(|line| Some((line.id()?, line))).collect();
    // The command in the lane's own line shows whether Redis names subcommands, because the lane asked. Lines of other connections
    // may show a command without subcommands.
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
    Ok(as_text(client.profile.version(), &text))
}

/// Closes the clients that the filter selects.
async fn kill(context: &Rc<Context>, client: &ClientState, filter: Filter, only: bool) -> Answer {
    let (filter, asker) = (Arc::new(filter), client.info.id);
    let work = move |context: &Rc<Context>, answers: mpsc::UnboundedSender<(u64, bool)>| {
        let (mut count, mut myself) = (0, false);
        for client in context.clients.borrow().values().filter(|client| !client.info.is_killed()) {
            if filter.admits(&record(context, client), asker) {
                count += 1;
                if client.info.id == asker {
                    myself = true;
                } else {
                    client.kill();
                }
            }
        }
        // The receiver exists as long as this function waits for the answers.
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

/// Has Redis unblock the client's session, if it has one.
async fn unblock(context: &Rc<Context>, client: &ClientState, id: u64, how: Request) -> Result<Vec<u8>, Lost> {
    let Some(number) = find(context, id, Purpose::Unblock).await else {
        return Ok(b":0\r\n".to_vec());
    };
    let mut request: Request = vec![b"CLIENT".to_vec(), b"UNBLOCK".to_vec(), number.to_string().into_bytes()];
    request.extend(how);
    let lane = context.lane_of(&client.profile)?;
    ask(context, &lane, &[request], false).await
}

/// A reply of CLIENT GETREDIR or TRACKINGINFO with Shortstop's client id in place of Redis's.
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

/// A text in the form of a Redis reply.
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

fn error(lost: &Lost) -> Bytes {
    let mut out = Vec::new();
    build::error(&mut out, lost.text());
    out.into()
}

#[cfg(test)]
mod tests {
    use super::redirected;

    #[test]
    fn without_a_redirection_nothing_is_replaced() {
        for reply in [&b":-1\r\n"[..], b":0\r\n", b":5\r\n", b"$8\r\nredirect\r\n:5\r\n", b"-ERR x\r\n", b""] {
            assert_eq!(redirected(reply, None), reply);
        }
    }
}
