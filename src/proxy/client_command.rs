//! CLIENT subcommands about clients: identify them, list them, kill them, unblock them.
//!
//! Redis and Shortstop each know a part of the answer. Redis knows what the client is allowed to do, and whether the arguments are
//! valid. So Redis receives the command in a form that has no effect there: with client ids that no connection has, or with the
//! name that the connection already has. If Redis returns an error, that error is the answer. If it accepts, Shortstop does what
//! was asked (`replies::client_command`). In a transaction the second half happens when EXEC is answered.

use std::rc::Rc;

use bytes::Bytes;

use crate::client_state::connection_state::Reason;
use crate::coherence::ServePermit;
use crate::command::{ClientSubcommand, Flags};
use crate::errors;
use crate::exchange::client_command::{ClientCommand, UNUSED_ID};
use crate::exchange::client_list::Filter;
use crate::exchange::pending::{AskedClientCommand, CallMark, OnReply, Pending};
use crate::proxy::call::Call;
use crate::proxy::client::{Client, Next, Replies};
use crate::proxy::local::is_name;
use crate::resp::{Chunks, Version, build, parse_int};
use crate::upstream::{Lost, Reply};
use crate::worker_state::ask::{Request, ask};
use crate::worker_state::named_connections::{Purpose, find};
use crate::worker_state::own_answers;

/// The client's data that a plan needs.
struct Sender<'a> {
    /// The name of the connection to Redis. It does not change.
    name: &'a str,
    /// The client id to put into CLIENT LIST.
    number: &'a [u8],
}

/// The request to send to Redis, and what it stands for. `None` if Redis can answer the command alone.
fn plan(sender: &Sender<'_>, subcommand: ClientSubcommand, args: &[&[u8]]) -> Option<(Request, ClientCommand)> {
    let as_it_is = || args.iter().map(|arg| arg.to_vec()).collect::<Request>();
    let words = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect::<Request>();
    // A value that every version of Redis refuses. It replaces a value that Redis might accept and set on a shared connection.
    const REFUSED: &[u8] = b"a b";
    Some(match subcommand {
        ClientSubcommand::Id => (as_it_is(), ClientCommand::Id),
        ClientSubcommand::GetName => (as_it_is(), ClientCommand::GetName),
        ClientSubcommand::SetName => {
            let name = if is_name(args[2]) { sender.name.as_bytes() } else { REFUSED };
            (words(&[args[0], args[1], name]), ClientCommand::SetName(args[2].to_vec()))
        }
        ClientSubcommand::SetInfo => {
            let options = [&b"lib-name"[..], b"lib-ver"];
            let which = options.iter().position(|option| args[2].eq_ignore_ascii_case(option))?;
            let value = if is_name(args[3]) { b"" } else { REFUSED };
            (words(&[args[0], args[1], args[2], value]), ClientCommand::SetInfo(which, args[3].to_vec()))
        }
        ClientSubcommand::Info => (as_it_is(), ClientCommand::Info),
        ClientSubcommand::List => {
            let options = &args[2..];
            let mut request = words(&args[..2]);
            let kind = matches!(options, [word, _] if word.eq_ignore_ascii_case(b"type"));
            let known = Filter::of(options, false);
            let ids = options.first().is_some_and(|word| word.eq_ignore_ascii_case(b"id"));
            match known {
                // Without an id Redis would list all of its own connections.
                Some(_) if options.is_empty() || kind => request.extend(words(&[b"ID", sender.number])),
                _ => {
                    request.extend(replaced(options, sender.number));
                    if !ids && !kind && options.len().is_multiple_of(2) {
                        request.extend(words(&[b"ID", sender.number]));
                    }
                }
            }
            (request, ClientCommand::List(known))
        }
        ClientSubcommand::Kill => match &args[2..] {
            // No client can connect from this address.
            [address] => (
                words(&[args[0], args[1], b"0.0.0.0:0"]),
                ClientCommand::Kill { filter: Some(Filter::address(address)), only: true },
            ),
            options => {
                // The first ID covers a call without one. The last ID counts, so it also stands at the end.
                let mut request = words(&[args[0], args[1], b"ID", UNUSED_ID]);
                request.extend(replaced(options, UNUSED_ID));
                if options.len().is_multiple_of(2) {
                    request.extend(words(&[b"ID", UNUSED_ID]));
                }
                (request, ClientCommand::Kill { filter: Filter::of(options, true), only: false })
            }
        },
        ClientSubcommand::Unblock => {
            let id = parse_int(args[2])?;
            let how: Request = args[3..].iter().map(|word| word.to_vec()).collect();
            let mut request = words(&[args[0], args[1], UNUSED_ID]);
            request.extend(how.iter().cloned());
            // No client has an id below 1.
            (request, ClientCommand::Unblock { id: u64::try_from(id).unwrap_or(0), how })
        }
        ClientSubcommand::Redirection => (as_it_is(), ClientCommand::Redirection),
        _ => return None,
    })
}

/// Options with the client ids replaced.
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
    /// CLIENT with a valid number of arguments. `None` if the command is handled like any other.
    pub(super) fn client(
        &mut self,
        permit: &ServePermit,
        call: Call<'_>,
        subcommand: ClientSubcommand,
    ) -> Option<Next> {
        let session = self.session.clone();
        let in_multi = session.as_ref().is_some_and(|session| session.in_multi());
        // Redis refuses all of these on a subscribed RESP2 connection.
        let is_subscribed_resp2 = self.state.profile.version() == Version::Resp2
            && session.as_ref().is_some_and(|session| session.is_subscribed());
        let is = |word: &[u8]| call.args.len() == 3 && call.args[2].eq_ignore_ascii_case(word);
        match (subcommand, &session) {
            (ClientSubcommand::Reply | ClientSubcommand::Tracking, _) if is_subscribed_resp2 => return None,
            // Newer servers refuse it in a transaction.
            (ClientSubcommand::Reply, _) if in_multi && call.row.flags.contains(Flags::NO_MULTI) => return None,
            (ClientSubcommand::Reply, Some(session)) if in_multi && (is(b"off") || is(b"skip")) => {
                return Some(self.abort_transaction(permit, session, &errors::REPLY_IN_MULTI));
            }
            (ClientSubcommand::Reply, Some(session)) if in_multi => {
                self.queued().speaks |= is(b"on");
                return None;
            }
            (ClientSubcommand::Reply, _) => return Some(self.client_reply(permit, call)),
            // On a lane, tracking is always off.
            (ClientSubcommand::Tracking | ClientSubcommand::Switch, None) if is(b"off") => {
                return Some(self.pass_to_be_refused(permit, call));
            }
            (ClientSubcommand::Tracking, _) => return self.tracking(permit, call),
            _ => {}
        }
        if session.as_ref().is_some_and(|session| session.is_acknowledging()) {
            return None;
        }
        let session = session.filter(|_| in_multi);
        // In a transaction, ask Redis for the client's own line at once: its fields about the transaction no longer hold
        // afterwards.
        let own = session.as_ref().and_then(|session| session.link.id()).map(|id| id.to_string().into_bytes());
        let sender = Sender { name: self.context.connection_name(), number: own.as_deref().unwrap_or(UNUSED_ID) };
        let (request, command) = plan(&sender, subcommand, call.args)?;
        if let Some(session) = session {
            if let Err(lost) = session.link.check() {
                return Some(self.unavailable(&lost));
            }
            self.queued().push_client_command(command);
            let on_reply = OnReply::Queued(Rc::clone(&session));
            self.send(permit.now, &session.link, on_reply, 0, |wire| write(wire, &request));
            return Some(Next::Go);
        }
        Some(self.client_command(permit, &request, command))
    }

    fn client_command(&mut self, permit: &ServePermit, request: &Request, command: ClientCommand) -> Next {
        // The state that is shown must be the state at the time of the request, and an action must be done before the next request.
        let next = match command {
            ClientCommand::Id
            | ClientCommand::GetName
            | ClientCommand::SetName(_)
            | ClientCommand::SetInfo(..)
            | ClientCommand::Redirection => Next::Go,
            ClientCommand::Greet(_) | ClientCommand::Redirect(_) => Next::Pause,
            ClientCommand::Info
            | ClientCommand::List(_)
            | ClientCommand::Kill { .. }
            | ClientCommand::Unblock { .. } => Next::Pause,
        };
        // A client that connects while Redis is away is still served from L1.
        let without_redis = self.session.is_none()
            && matches!(
                command,
                ClientCommand::Id | ClientCommand::GetName | ClientCommand::SetName(_) | ClientCommand::SetInfo(..)
            );
        let bytes = request.iter().map(|word| word.len() + 32).sum();
        if let Err(next) = self.leave_lane_if_large(permit, bytes, request.len()) {
            return next;
        }
        let target = self.target();
        let lost = target.as_ref().map_or_else(|lost| Some(lost.clone()), |target| target.link().check().err());
        let link = match (target, lost) {
            (Ok(target), None) => target.link().clone(),
            (_, Some(lost)) => {
                if !without_redis || lost.is_login_refused() {
                    return self.unavailable(&lost);
                }
                if let Ok(answer) = own_answers::answer(&self.state, command) {
                    self.answer(&answer);
                }
                return Next::Go;
            }
            (Err(lost), None) => return self.unavailable(&lost),
        };
        let (client, slot) = (Rc::clone(&self.state), self.reply_queue.open(self.is_muted()));
        let asked = AskedClientCommand { client, slot, command, without_redis };
        self.context.stats().upstream_commands.add(1);
        let on_reply = OnReply::ClientCommand(Box::new(asked));
        link.send(Pending { to: None, sent: permit.now, on_reply, call: CallMark::default() }, |wire| {
            write(wire, request)
        });
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
            _ => return self.pass_to_be_refused(permit, call),
        }
        Next::Go
    }

    /// CLIENT TRACKING on the client's session. REDIRECT names a client id of Shortstop, and Redis must receive the id that it
    /// knows for that client.
    fn tracking(&mut self, permit: &ServePermit, call: Call<'_>) -> Option<Next> {
        let (at, target) = redirection(call.args)?;
        let session = match self.enter_session(permit) {
            Ok(Some(session)) => session,
            Ok(None) => return Some(Next::Again),
            Err(lost) => return Some(self.refuse_not_executed(call.row, &lost)),
        };
        if session.is_acknowledging() {
            return None;
        }
        if let Err(lost) = session.link.check() {
            return Some(self.refuse_not_executed(call.row, &lost));
        }
        let slot = self.reply_queue.open(self.is_muted());
        self.in_flight = u64::MAX;
        let mut request: Request = call.args.iter().map(|arg| arg.to_vec()).collect();
        let (context, reply_queue) = (Rc::clone(&self.context), Rc::clone(&self.reply_queue));
        // If the client disconnects meanwhile, no other client may get this connection.
        session.begin_attempt();
        let in_multi = session.in_multi();
        if in_multi {
            // Redis executes it at EXEC.
            session.bind(Reason::Tracking);
            self.queued().push_client_command(ClientCommand::Redirect(target));
        }
        tokio::task::spawn_local(async move {
            let number = find(&context, target, Purpose::Redirect).await;
            request[at] = number.map_or_else(|| UNUSED_ID.to_vec(), |number| number.to_string().into_bytes());
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

/// Where REDIRECT's client id is among the arguments of CLIENT TRACKING, and the id. 0 stands for an id that no client has.
fn redirection(args: &[&[u8]]) -> Option<(usize, u64)> {
    let mut at = 3;
    while at + 1 < args.len() {
        if args[at].eq_ignore_ascii_case(b"redirect") {
            // Redis refuses an id that is not a number.
            return Some((at + 1, parse_int(args[at + 1]).map(|id| u64::try_from(id).unwrap_or(0))?));
        }
        at += if args[at].eq_ignore_ascii_case(b"prefix") { 2 } else { 1 };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Sender, UNUSED_ID, plan, redirection};
    use crate::command::{Table, Verb};

    fn sent(line: &str) -> Option<String> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let table = Table::builtin();
        let Verb::Client(subcommand) = table.resolve(&words).verb else { panic!("not CLIENT: {line}") };
        let sender = Sender { name: "fleet", number: UNUSED_ID };
        let (request, _) = plan(&sender, subcommand, &words)?;
        let nobody = std::str::from_utf8(UNUSED_ID).expect("digits");
        let text = request.iter().map(|word| String::from_utf8_lossy(word).replace(nobody, "*")).collect::<Vec<_>>();
        Some(text.join(" "))
    }

    /// Client ids in the request are Shortstop's. In Redis the same ids would name other connections.
    #[test]
    fn redis_never_receives_the_id_of_one_of_its_connections() {
        for (line, expected) in [
            ("CLIENT KILL 1.2.3.4:5", "CLIENT KILL 0.0.0.0:0"),
            ("client kill id 5", "client kill ID * id * ID *"),
            ("CLIENT KILL ID 5 6 7 TYPE normal", "CLIENT KILL ID * ID * * * TYPE normal ID *"),
            ("CLIENT KILL TYPE normal SKIPME no", "CLIENT KILL ID * TYPE normal SKIPME no ID *"),
            // An ID that Redis refuses stays in place, so that Redis reports it.
            ("CLIENT KILL ID 0", "CLIENT KILL ID * ID 0 ID *"),
            ("CLIENT KILL ID x", "CLIENT KILL ID * ID x ID *"),
            // The options do not come in pairs. Appended options would change the error.
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
    fn redirect_target_of_client_tracking() {
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
}
