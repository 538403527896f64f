//! HELLO, AUTH and RESET: who the client is, and what it speaks.
//!
//! Redis decides. A login is tried on the worker's auth link, a connection that is used for nothing else; then the client's
//! requests go to the lanes of that identity. No name or password is logged.
//!
//! Logins are tried one at a time, when the answers to all that came before are here: from 7.2 on Redis says nothing to a login
//! that fails while an older reply waits in its buffers (Valkey since 9 does), and the next reply would be taken for its answer.

use std::rc::Rc;

use bytes::Bytes;

use crate::coherence::ServePermit;
use crate::errors;
use crate::resp::{Version, build, parse_int};
use crate::upstream::{Login, Lost, Reply};

use crate::client_state::connection_state::Reason;
use crate::client_state::reply_queue::{ReplyQueue, Slot};
use crate::client_state::session::Session;
use crate::proxy::client_command::Wish;
use crate::proxy::local::is_name;
use crate::proxy::private::InSession;
use crate::proxy::request::Replacements;
use crate::proxy::unauthenticated::is_small;
use crate::proxy::{Call, Client, Next, Replies};
use crate::replies::decode::ReplyShape;
use crate::replies::deliver::{OnReply, Pending};
use crate::worker_state::context::{Context, View};

/// What HELLO or AUTH makes of a client when Redis agrees.
#[derive(Debug, Default)]
pub(crate) struct Greeting {
    pub(crate) login: Option<Login>,
    pub(crate) version: Option<Version>,
    name: Option<Vec<u8>>,
    /// The client's number, which stands in HELLO's reply in the place of the connection's.
    client: u64,
    /// Redis does all of it or, with an error, nothing. If not, only Redis knows: it may perform an AUTH and then refuse what stands
    /// behind it.
    pub(crate) is_understood: bool,
}

/// A login whose turn on the auth link has not come.
pub(crate) struct QueuedLogin {
    words: Vec<Vec<u8>>,
    pending: Pending,
}

impl Greeting {
    /// `HELLO [version [AUTH user password] [SETNAME name] …]`
    fn of_hello(args: &[&[u8]]) -> Greeting {
        let mut greeting = Greeting { is_understood: true, ..Greeting::default() };
        let Some(version) = args.get(1) else { return greeting };
        greeting.version = parse_int(version).and_then(Version::of);
        greeting.is_understood = greeting.version.is_some();
        let mut rest = args.get(2..).unwrap_or_default();
        while greeting.is_understood && !rest.is_empty() {
            rest = match rest {
                // Only one: of two, Redis may perform the first and refuse the second.
                [word, user, password, rest @ ..] if word.eq_ignore_ascii_case(b"auth") && greeting.login.is_none() => {
                    greeting.login = Some(Login { user: Some((*user).into()), password: (*password).into() });
                    rest
                }
                [word, name, rest @ ..] if word.eq_ignore_ascii_case(b"setname") && is_name(name) => {
                    greeting.name = Some(name.to_vec());
                    rest
                }
                _ => {
                    greeting = Greeting { version: greeting.version, ..Greeting::default() };
                    rest
                }
            }
        }
        greeting
    }

    /// `AUTH [user] password`
    fn of_auth(args: &[&[u8]]) -> Greeting {
        let login = match args {
            [_, password] => Some(Login { user: None, password: (*password).into() }),
            [_, user, password] => Some(Login { user: Some((*user).into()), password: (*password).into() }),
            _ => None,
        };
        Greeting { is_understood: login.is_some(), login, ..Greeting::default() }
    }

    /// Redis has agreed.
    pub(crate) fn apply(self, context: &Context, reply_queue: &ReplyQueue) {
        let profile = &reply_queue.profile;
        let has_login = self.login.is_some();
        if let Some(login) = self.login {
            profile.set_identity(context.identity(login));
        }
        if let Some(version) = self.version {
            profile.set_version(version);
        }
        if let Some(name) = self.name {
            *profile.name.borrow_mut() = name;
        }
        if has_login && let Some(context) = context.rc() {
            // Redis ends the connections of a user that it deletes. A client that has asked nothing yet has to be seen to end, too.
            drop(profile.lane(&context));
        }
    }

    /// HELLO's reply with the client's own number.
    pub(crate) fn own_number(&self, reply: &[u8]) -> Bytes {
        const FIELD: &[u8] = b"$2\r\nid\r\n:";
        let found = memchr::memmem::find(reply, FIELD).map(|at| at + FIELD.len());
        let Some((start, length)) = found.and_then(|at| Some((at, memchr::memchr(b'\r', &reply[at..])?))) else {
            return Bytes::copy_from_slice(reply);
        };
        [&reply[..start], self.client.to_string().as_bytes(), &reply[start + length..]].concat().into()
    }
}

impl Client {
    /// HELLO in any form. On the way to Redis the name is the fleet's: the connections keep it.
    pub(crate) fn hello(&mut self, view: &View, permit: &ServePermit, call: Call<'_>) -> Next {
        let greeting = Greeting { client: self.id, ..Greeting::of_hello(call.args) };
        let fleet_name = self.context.connection_name().as_bytes().to_vec();
        let mut replacements = Replacements::new();
        if greeting.is_understood {
            let names = call.args.windows(2).enumerate().skip(2);
            let names = names.filter(|(_, two)| two[0].eq_ignore_ascii_case(b"setname"));
            replacements.extend(names.map(|(at, _)| (at + 1, fleet_name.clone())));
        }
        if self.session.is_some() || !greeting.is_understood {
            // A version that Redis does not know is refused before anything else is looked at.
            let may_do_a_part = !greeting.is_understood && call.args.len() > 2;
            return self.greet_in_session(view, permit, call, greeting, replacements, may_do_a_part);
        }
        if greeting.login.is_some() {
            return self.on_auth_link(permit, call, Some(greeting), replacements);
        }
        // The lane is asked, and goes back at once to what it speaks.
        let link = match self.reply_queue.profile.lane(&self.context) {
            Ok(link) => link,
            Err(lost) => return self.not_done(call.row, &lost),
        };
        let back = greeting.version.map(|_| link.version().number().to_string());
        let on_reply = OnReply::Greet { greeting: Some(Box::new(greeting)), back: back.is_some() };
        self.send(permit.now, &link, on_reply, u64::MAX, |wire| {
            call.request.write(wire, replacements);
            if let Some(back) = &back {
                wire.push_with(|out| build::request(out, [&b"HELLO"[..], back.as_bytes()].into_iter()));
            }
        });
        Next::Pause
    }

    /// AUTH in any form.
    pub(crate) fn auth(&mut self, view: &View, permit: &ServePermit, call: Call<'_>) -> Next {
        let greeting = Greeting::of_auth(call.args);
        if self.session.is_some() || !greeting.is_understood {
            // Redis refuses an AUTH with a wrong number of words before it does anything.
            return self.greet_in_session(view, permit, call, greeting, Replacements::new(), false);
        }
        self.on_auth_link(permit, call, Some(greeting), Replacements::new())
    }

    /// HELLO or AUTH on the client's own connection. What is not understood always goes there, so that the client has the user and
    /// protocol that Redis gives it. If Redis may do a part of what it refuses, the connection stays with the client until it ends.
    fn greet_in_session(
        &mut self,
        view: &View,
        permit: &ServePermit,
        call: Call<'_>,
        greeting: Greeting,
        replacements: Replacements,
        may_do_a_part: bool,
    ) -> Next {
        let has_login = greeting.login.is_some() || !greeting.is_understood;
        let is_new = self.session.is_none();
        let session = match self.enter_session(permit) {
            Ok(Some(session)) => session,
            Ok(None) => return Next::Again,
            Err(lost) => return self.not_done(call.row, &lost),
        };
        if is_new && self.reply_queue.profile.has_no_login() {
            // Redis answers HELLO and AUTH also on a connection that may do nothing else. No other client can use such a connection.
            session.link.use_for_logins();
            session.never_reuse();
        }
        if session.in_multi() {
            return self.queue_greeting(view, permit, call, &session, greeting, replacements);
        }
        if has_login && self.reply_queue.outstanding() > 0 {
            return Next::Again;
        }
        if let Err(lost) = session.link.check() {
            return self.not_done(call.row, &lost);
        }
        if may_do_a_part {
            session.bind(Reason::Login);
        }
        let on_reply = OnReply::session(&session, InSession::Greet(greeting));
        self.send(permit.now, &session.link, on_reply, u64::MAX, |wire| call.request.write(wire, replacements));
        Next::Pause
    }

    /// HELLO or AUTH in a transaction: they are done at EXEC, whose reply tells what became of them.
    fn queue_greeting(
        &mut self,
        view: &View,
        permit: &ServePermit,
        call: Call<'_>,
        session: &Rc<Session>,
        greeting: Greeting,
        replacements: Replacements,
    ) -> Next {
        if let Err(lost) = session.link.check() {
            return self.not_done(call.row, &lost);
        }
        let has_login = greeting.login.is_some() || !greeting.is_understood;
        // Servers of the age of WAITAOF leave the answer to a login that fails out when replies are due before it (see above): in
        // that of EXEC all others would shift.
        if has_login && view.table.get(b"waitaof").is_some() {
            return self.abort_transaction(permit, session, &errors::LOGIN_IN_MULTI);
        }
        if !greeting.is_understood {
            // Redis may do a part of it before it refuses the rest.
            session.bind(Reason::Login);
        }
        session.queue(|queued| {
            queued.wishes.push((queued.shape.len(), Wish::Greet(Box::new(greeting))));
            queued.shape.push(ReplyShape::Nothing);
        });
        let on_reply = OnReply::Queued(Rc::clone(session));
        self.send(permit.now, &session.link, on_reply, u64::MAX, |wire| call.request.write(wire, replacements));
        Next::Go
    }

    fn on_auth_link(
        &mut self,
        permit: &ServePermit,
        call: Call<'_>,
        greeting: Option<Greeting>,
        replacements: Replacements,
    ) -> Next {
        if self.reply_queue.outstanding() > 0 {
            // What was asked before may have made the login.
            return Next::Again;
        }
        let auth_link = self.context.auth_link();
        if let Err(lost) = auth_link.check() {
            return self.not_done(call.row, &lost);
        }
        if !is_small(call.args) {
            if auth_link.is_connecting() {
                return self.wait_for(&auth_link);
            }
            if auth_link.locked_for().is_some() {
                // Redis would close the connection, and with it the login of somebody else.
                return self.refuse_own(&errors::LARGE_LOGIN);
            }
        }
        let mut words: Vec<Vec<u8>> = call.args.iter().map(|arg| arg.to_vec()).collect();
        replacements.into_iter().for_each(|(at, word)| words[at] = word);
        let on_reply = OnReply::Greet { greeting: greeting.map(Box::new), back: false };
        let slot = self.reply_queue.open(self.is_muted());
        self.context.stats().upstream_commands.add(1);
        let pending = Pending { to: Some((Rc::clone(&self.reply_queue), slot)), sent: permit.now, on_reply };
        self.context.queued_logins.borrow_mut().push_back(QueuedLogin { words, pending });
        next_login(&self.context);
        Next::Pause
    }

    /// As a new connection, but for its number.
    pub(crate) fn reset(&mut self, permit: &ServePermit) -> Next {
        if self.reply_queue.outstanding() > 0 {
            return Next::Again;
        }
        if self.replies == Replies::Off {
            self.replies = Replies::On;
        }
        let next = if self.unsubscribe_first(permit, b"+RESET\r\n") {
            Next::Pause
        } else {
            self.answer(b"+RESET\r\n");
            Next::Go
        };
        self.leave_session();
        self.context.reset(&self.reply_queue.profile);
        next
    }

    /// Gives `answer` when Redis says that the client is subscribed to nothing any more, so that whoever hears of it counts it no
    /// longer. `false`: it was subscribed to nothing.
    pub(crate) fn unsubscribe_first(&mut self, permit: &ServePermit, answer: &'static [u8]) -> bool {
        let session = self.session.as_ref().filter(|session| session.is_subscribed() && !session.is_monitor());
        let Some(session) = session.filter(|session| session.link.check().is_ok()) else { return false };
        let (reply_queue, slot) = (Rc::clone(&self.reply_queue), self.reply_queue.open(self.is_muted()));
        // Whatever Redis says, the connection is closed. RESET makes it the default user's, so no client of this user may get it.
        session.never_reuse();
        let on_reply =
            Box::new(move |_: &Context, _: Result<Reply<'_>, &Lost>| reply_queue.fill(slot, Reply::Borrowed(answer)));
        self.context.stats().upstream_commands.add(1);
        let on_reply = OnReply::Call { replies: 1, repeat: false, on_reply };
        session
            .link
            .send(Pending { to: None, sent: permit.now, on_reply }, |wire| wire.push_slice(b"*1\r\n$5\r\nRESET\r\n"));
        true
    }
}

/// Lets the next login in, if none is being tried.
pub(crate) fn next_login(context: &Context) {
    // Whoever takes one out tries it, so that none is waited for twice.
    while !context.queued_logins.borrow().is_empty() {
        let Some(auth_link) = context.rc().map(|context| context.auth_link()) else { return };
        if !auth_link.is_idle() {
            return;
        }
        let Some(QueuedLogin { words, pending }) = context.queued_logins.borrow_mut().pop_front() else { return };
        let Err(lost) = auth_link.check() else {
            let words = words.iter().map(Vec::as_slice);
            return auth_link.send(pending, |wire| wire.push_with(|out| build::request(out, words)));
        };
        context.count_lost(&lost);
        if let Some((reply_queue, slot)) = pending.to {
            let mut out = Vec::new();
            build::error(&mut out, lost.text());
            reply_queue.fill(slot, Reply::Borrowed(&out));
            // What follows in the pipeline is meant for another user, or another protocol.
            reply_queue.close();
        }
    }
}

/// The answer to a HELLO or AUTH that was asked on a connection that others use; `back` is what brought the connection back.
pub(crate) fn greeted(
    context: &Context,
    reply_queue: &ReplyQueue,
    slot: Slot,
    greeting: Option<Greeting>,
    reply: &[u8],
    back: Option<&[u8]>,
) {
    let profile = &reply_queue.profile;
    let (identity, db, version) = (profile.identity(), profile.db(), profile.version());
    let agreed = !reply.starts_with(b"-");
    match greeting {
        Some(greeting) if agreed => {
            let reply = greeting.own_number(reply);
            greeting.apply(context, reply_queue);
            reply_queue.fill(slot, Reply::Owned(reply));
        }
        _ => reply_queue.fill(slot, Reply::Borrowed(reply)),
    }
    if agreed && back.is_some_and(|back| back.starts_with(b"-")) {
        // The lane speaks another protocol than it should.
        context.drop_lane(&identity, db, version);
    }
}

#[cfg(test)]
mod tests {
    use super::{Greeting, Version};

    fn words(line: &str) -> Vec<&[u8]> {
        line.split(' ').map(str::as_bytes).collect()
    }

    #[test]
    fn what_redis_does_as_a_whole_or_not_at_all() {
        let all = Greeting::of_hello(&words("HELLO 3 setname me AUTH user pass"));
        assert!(all.is_understood);
        assert_eq!((all.version, all.name.as_deref()), (Some(Version::Resp3), Some(&b"me"[..])));
        assert_eq!(all.login.map(|login| login.user().to_vec()), Some(b"user".to_vec()));
        let none = Greeting::of_hello(&words("HELLO"));
        assert!(none.is_understood && none.version.is_none());
        for wrong in [
            "HELLO 4",
            "HELLO x",
            "HELLO 4 AUTH u p",
            "HELLO 3 AUTH u",
            "HELLO 3 AUTH u p X",
            "HELLO 3 AUTH u p AUTH u p",
            "HELLO 3 AUTH u p SETNAME",
            "HELLO 3 AUTH u p SETNAME a\nb",
            "HELLO 3 SETNAME",
            "HELLO 3 SETNAME a\nb",
            "HELLO 3 X",
        ] {
            let greeting = Greeting::of_hello(&words(wrong));
            assert!(!greeting.is_understood && greeting.login.is_none(), "{wrong}");
        }
        for (line, understood) in [("AUTH p", true), ("AUTH u p", true), ("AUTH", false), ("AUTH u p x", false)] {
            assert_eq!(Greeting::of_auth(&words(line)).is_understood, understood, "{line}");
        }
    }

    #[test]
    fn the_number_in_the_reply_is_the_clients() {
        let greeting = Greeting { client: 7, ..Greeting::default() };
        let reply = b"%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:4711\r\n";
        assert_eq!(&greeting.own_number(reply)[..], b"%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:7\r\n");
        assert_eq!(&greeting.own_number(b"+OK\r\n")[..], b"+OK\r\n");
    }
}
