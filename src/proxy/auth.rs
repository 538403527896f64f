//! HELLO, AUTH and RESET: the client's user, protocol version and name.
//!
//! Redis decides. Shortstop tries a login on one of the worker's auth links, which are used for nothing else. After a successful
//! login the client's requests go to the lanes of that user. No name or password is logged.

use std::rc::Rc;

use crate::client_state::connection_state::Reason;
use crate::coherence::ServePermit;
use crate::errors;
use crate::exchange::client_command::ClientCommand;
use crate::exchange::greeting::Greeting;
use crate::exchange::pending::{CallMark, InSession, OnReply, Pending, QueuedLogin, Session};
use crate::proxy::call::Call;
use crate::proxy::client::{Client, Next, Replies};
use crate::proxy::local::is_name;
use crate::proxy::request::Replacements;
use crate::proxy::unauthenticated::is_small;
use crate::resp::{Version, build, parse_int};
use crate::upstream::Login;
use crate::worker_state::logins::next_login;
use crate::worker_state::policy::View;

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
                // Only one AUTH is understood: of two, Redis may perform the first and refuse the second.
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
}

impl Client {
    /// HELLO in any form. Redis receives the fleet's name in place of the client's, because lanes and sessions keep the fleet's
    /// name.
    pub(super) fn hello(&mut self, view: &View, permit: &ServePermit, call: Call<'_>) -> Next {
        if let Some(next) = self.refuse_long_login(call) {
            return next;
        }
        let greeting = Greeting { client: self.id, ..Greeting::of_hello(call.args) };
        let fleet_name = self.context.connection_name().as_bytes().to_vec();
        let mut replacements = Replacements::new();
        if greeting.is_understood {
            let names = call.args.windows(2).enumerate().skip(2);
            let names = names.filter(|(_, two)| two[0].eq_ignore_ascii_case(b"setname"));
            replacements.extend(names.map(|(at, _)| (at + 1, fleet_name.clone())));
        }
        if self.session.is_some() || !greeting.is_understood {
            // Redis checks the version first, so a HELLO that consists of the version alone is either done or refused as a whole.
            let may_do_a_part = !greeting.is_understood && call.args.len() > 2;
            return self.greet_in_session(view, permit, call, greeting, replacements, may_do_a_part);
        }
        if greeting.login.is_some() {
            return self.on_auth_link(permit, call, Some(greeting), replacements);
        }
        // HELLO goes to the lane. A second HELLO behind it restores the lane's own protocol version.
        let link = match self.context.lane_of(&self.state.profile) {
            Ok(link) => link,
            Err(lost) => return self.refuse_not_executed(call.row, &lost),
        };
        let back = greeting.version.map(|_| link.version().number().to_string());
        let on_reply =
            OnReply::Greet { client: Rc::clone(&self.state), greeting: Some(Box::new(greeting)), back: back.is_some() };
        self.send(permit.now, &link, on_reply, u64::MAX, |wire| {
            call.request.write(wire, replacements);
            if let Some(back) = &back {
                wire.push_with(|out| build::request(out, [&b"HELLO"[..], back.as_bytes()].into_iter()));
            }
        });
        Next::Pause
    }

    /// Refuses a login that is too long for an auth link, which logins of other clients share.
    fn refuse_long_login(&self, call: Call<'_>) -> Option<Next> {
        let is_long = call.request.raw.len() > self.context.shared.server_limits.shared();
        (self.session.is_none() && is_long).then(|| self.refuse_own(&errors::LONG_LOGIN))
    }

    /// AUTH in any form.
    pub(super) fn auth(&mut self, view: &View, permit: &ServePermit, call: Call<'_>) -> Next {
        if let Some(next) = self.refuse_long_login(call) {
            return next;
        }
        let greeting = Greeting::of_auth(call.args);
        if self.session.is_some() || !greeting.is_understood {
            // Redis refuses an AUTH with a wrong number of arguments before it does anything.
            return self.greet_in_session(view, permit, call, greeting, Replacements::new(), false);
        }
        self.on_auth_link(permit, call, Some(greeting), Replacements::new())
    }

    /// HELLO or AUTH on the client's session. A call that Shortstop does not understand always goes there: Redis may change the
    /// user or the protocol, and then the change concerns this client alone. If Redis may carry out a part of a call that it
    /// refuses, the client keeps this session until it disconnects.
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
            Err(lost) => return self.refuse_not_executed(call.row, &lost),
        };
        if is_new && self.state.profile.has_no_login() {
            // Redis answers HELLO and AUTH also on a connection that has not authenticated. No other client may reuse such a
            // connection.
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
            return self.refuse_not_executed(call.row, &lost);
        }
        if may_do_a_part {
            session.bind(Reason::Login);
        }
        let on_reply = OnReply::session(&session, InSession::Greet { client: Rc::clone(&self.state), greeting });
        self.send(permit.now, &session.link, on_reply, u64::MAX, |wire| call.request.write(wire, replacements));
        Next::Pause
    }

    /// HELLO or AUTH in a transaction. Redis executes it at EXEC, and EXEC's reply contains the result.
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
            return self.refuse_not_executed(call.row, &lost);
        }
        let has_login = greeting.login.is_some() || !greeting.is_understood;
        // Servers that know WAITAOF omit the reply to a failed login when other replies are due before it. In EXEC's reply, all
        // later elements would then shift by one.
        if has_login && view.table.get(b"waitaof").is_some() {
            return self.abort_transaction(permit, session, &errors::LOGIN_IN_MULTI);
        }
        if !greeting.is_understood {
            // Redis may carry out a part of it before it refuses the rest.
            session.bind(Reason::Login);
        }
        self.queued().push_client_command(ClientCommand::Greet(Box::new(greeting)));
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
            // A request that is still unanswered may create the user's login.
            return Next::Again;
        }
        let auth_link = self.context.auth_link();
        if let Err(lost) = auth_link.check() {
            return self.refuse_not_executed(call.row, &lost);
        }
        if !is_small(call.args) {
            if auth_link.is_connecting() {
                return self.wait_for(&auth_link);
            }
            if auth_link.locked_for().is_some() {
                // Redis would close the connection, and a login of another client with it.
                return self.refuse_own(&errors::LARGE_LOGIN);
            }
        }
        let mut words: Vec<Vec<u8>> = call.args.iter().map(|arg| arg.to_vec()).collect();
        replacements.into_iter().for_each(|(at, word)| words[at] = word);
        let on_reply = OnReply::Greet { client: Rc::clone(&self.state), greeting: greeting.map(Box::new), back: false };
        let slot = self.reply_queue.open(self.is_muted());
        self.context.stats().upstream_commands.add(1);
        let pending = Pending {
            to: Some((Rc::clone(&self.reply_queue), slot)),
            sent: permit.now,
            on_reply,
            call: CallMark::default(),
        };
        self.context.queued_logins.borrow_mut().push_back(QueuedLogin { words, pending });
        next_login(&self.context);
        Next::Pause
    }

    /// Puts the client into the state of a new connection. It keeps its client id.
    pub(super) fn reset(&mut self, permit: &ServePermit) -> Next {
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
        self.context.reset(&self.state.profile);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::{Greeting, Version};

    fn words(line: &str) -> Vec<&[u8]> {
        line.split(' ').map(str::as_bytes).collect()
    }

    #[test]
    fn commands_that_redis_executes_completely_or_not_at_all() {
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
}
