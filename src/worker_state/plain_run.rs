//! Runs a command that looks into strings on a connection of its own: only when all of these strings are plain. For scripts of clients,
//! and for users who may not use scripts.
//!
//! The connection watches the strings. If one is compressed, it becomes plain first. The command runs in a transaction, which Redis does
//! not execute if a string has changed since. Then everything is done again: the command has not run.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::client_state::reply_queue::{ReplyQueue, Slot};
use crate::errors;
use crate::exchange::pending::{CallMark, Identity, Link, OnReply, Pending};
use crate::exchange::plain::Strings;
use crate::resp::{Chunks, Version, build, elements, parse_int, split_first};
use crate::upstream::{Delay, Expected, Login, Lost, Reply};
use crate::worker_state::ask::{Request, ask, ask_written};
use crate::worker_state::context::Context;
use crate::worker_state::to_plain::{Unable, keys_of, make_plain, plain_then_compressed};

/// For how long a command is sent again. Other clients may change its strings each time.
const TRIES_FOR: Duration = Duration::from_secs(10);

/// A command that has not run yet.
pub(crate) struct PlainRun {
    /// Who runs it, in which database and protocol.
    pub(crate) identity: Rc<Identity>,
    pub(crate) db: u32,
    pub(crate) version: Version,
    pub(crate) strings: Strings,
    /// The command itself.
    pub(crate) request: Chunks,
    /// How its reply is handled.
    pub(crate) then: OnReply,
    pub(crate) to: Option<(Rc<ReplyQueue>, Slot)>,
    pub(crate) sent: Instant,
    /// Whether it is a script, which uses the rights of its user inside Redis.
    pub(crate) is_script: bool,
}

/// What has come of a command.
enum Outcome {
    /// Its reply.
    Answered(Vec<u8>),
    /// The connection broke. It may have run.
    Lost(Lost),
}

/// Runs the command.
pub(crate) fn begin(run: PlainRun, context: &Context) {
    let Some(context) = context.rc() else {
        return run.pending().lose(context, &Lost::from(&errors::GIVEN_UP), false);
    };
    tokio::task::spawn_local(async move {
        match run.outcome(&context).await {
            Ok(Outcome::Answered(reply)) => run.finish(&context, &reply),
            Ok(Outcome::Lost(lost)) => run.pending().lose(&context, &lost, true),
            Err(Unable::Refused(error)) => run.finish(&context, &error),
            Err(Unable::Lost(lost)) => run.pending().lose(&context, &lost, false),
        }
        context.publish();
    });
}

impl PlainRun {
    async fn outcome(&self, context: &Rc<Context>) -> Result<Outcome, Unable> {
        let _turns = context.shared.key_turns.take(self.strings.named().iter().map(|key| (self.db, &key[..]))).await;
        let _place = context.plain_runs.acquire().await;
        match self.run_as(context, &self.identity).await {
            Err(Unable::Refused(error)) if !self.is_script && error.starts_with(b"-NOPERM ") => {
                self.with_own_login(context, error).await
            }
            outcome => outcome,
        }
    }

    /// The user has no right to WATCH or a transaction: Shortstop's own login runs the command, if Redis says that the user may.
    async fn with_own_login(&self, context: &Rc<Context>, refused: Vec<u8>) -> Result<Outcome, Unable> {
        let own = context.own_identity();
        let link = context.private_link(&own, self.db, Version::Resp2);
        let user = self.identity.login.as_deref().map_or(&b"default"[..], Login::user);
        let mut request = Vec::new();
        self.request.copy_to(&mut request);
        let Some(end) = memchr::memchr(b'\n', &request) else { return Err(Unable::Refused(refused)) };
        let arguments = parse_int(&request[1..end - 1]).unwrap_or_default() as usize;
        let asked = ask_written(context, &link, (1, true, Delay::None), |wire| {
            wire.push_with(|out| {
                build::header(out, b'*', arguments + 3);
                [&b"ACL"[..], b"DRYRUN", user].iter().for_each(|word| build::bulk(out, word));
            });
            wire.push_slice(&request[end + 1..]);
        });
        let answer = asked.await?;
        link.retire();
        match answer.first() {
            Some(b'+') => self.run_as(context, &own).await,
            // Redis's own words are in its refusal.
            Some(b'$') => {
                let link = context.private_link(&self.identity, self.db, self.version);
                let asked = ask_written(context, &link, (1, false, Delay::None), |wire| self.request.append_to(wire));
                let answer = asked.await;
                link.retire();
                Ok(Outcome::Answered(answer?))
            }
            _ => Err(Unable::Refused(refused)),
        }
    }

    async fn run_as(&self, context: &Rc<Context>, identity: &Rc<Identity>) -> Result<Outcome, Unable> {
        let link = identity.take_spare(self.db, self.version);
        let link = link.unwrap_or_else(|| context.private_link(identity, self.db, self.version));
        let outcome = self.tried(context, &link).await;
        let clean = matches!(outcome, Ok(Outcome::Answered(_))) && !link.is_closed();
        let one_too_many = if clean { identity.keep_spare(link) } else { Some(link) };
        one_too_many.iter().for_each(Link::retire);
        outcome
    }

    async fn tried(&self, context: &Rc<Context>, link: &Link) -> Result<Outcome, Unable> {
        while self.sent.elapsed() < TRIES_FOR {
            self.watch(context, link).await?;
            let made = make_plain(context, self.db, &self.strings).await?;
            if made.converted {
                // A string is no longer as it was watched.
                ask(context, link, &[vec![b"UNWATCH".to_vec()]], false).await?;
                continue;
            }
            let mut wire = Chunks::default();
            let (before, behind) = plain_then_compressed(&made.nested, &mut wire, |wire| self.request.append_to(wire));
            // Alone: behind a MULTI that Redis refuses, the command would be executed whatever has changed.
            let begun = ask(context, link, &[vec![b"MULTI".to_vec()]], false).await?;
            if begun != b"+OK\r\n" {
                return Err(Unable::Refused(begun));
            }
            let requests = before + behind + 2;
            let written = ask_written(context, link, (requests, false, Delay::Long), |all| {
                wire.append_to(all);
                all.push_slice(b"*1\r\n$4\r\nEXEC\r\n");
            });
            let replies = match written.await {
                Ok(replies) => replies,
                Err(lost) => return Ok(Outcome::Lost(lost)),
            };
            // Redis's reason is in the first error. EXEC only says that there was one.
            let (mut reply, mut rest) = split_first(&replies);
            let mut refusal = None;
            for _ in 1..requests {
                if reply.starts_with(b"-") {
                    refusal.get_or_insert_with(|| reply.to_vec());
                }
                (reply, rest) = split_first(rest);
            }
            if let Some(executed) = elements(reply) {
                match executed.into_iter().nth(before) {
                    Some(reply) => return Ok(Outcome::Answered(reply.to_vec())),
                    // A string has changed.
                    None => continue,
                }
            }
            if reply == b"_\r\n" {
                continue;
            }
            return Err(Unable::Refused(refusal.unwrap_or_else(|| reply.to_vec())));
        }
        Err(Unable::Refused(context.own_error(&errors::CHANGED_AGAIN)))
    }

    /// Watches the strings.
    async fn watch(&self, context: &Rc<Context>, link: &Link) -> Result<(), Unable> {
        let watch = |keys: Vec<Vec<u8>>| -> Request { [vec![b"WATCH".to_vec()], keys].concat() };
        let keys = match &self.strings {
            Strings::Of(keys) => keys.clone(),
            Strings::Sorted(list, _) => {
                watched(&ask(context, link, &[watch(vec![list.clone()])], false).await?)?;
                // Which strings a SORT reads is sure once its list is watched.
                keys_of(context, self.db, &self.strings).await?
            }
        };
        if keys.is_empty() {
            return Ok(());
        }
        watched(&ask(context, link, &[watch(keys)], false).await?)
    }

    fn pending(self) -> Pending {
        Pending { to: self.to, sent: self.sent, on_reply: self.then, call: CallMark::default() }
    }

    fn finish(self, context: &Context, reply: &[u8]) {
        self.pending().deliver(context, Reply::Borrowed(reply), Instant::now());
    }
}

/// Redis has accepted WATCH.
fn watched(reply: &[u8]) -> Result<(), Unable> {
    if reply == b"+OK\r\n" { Ok(()) } else { Err(Unable::Refused(reply.to_vec())) }
}
