//! Replies of the scripts that guard commands on strings. If a string was compressed, the script has done nothing: the command is
//! answered from the fetched value, or it runs again once the string is plain.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use smallvec::smallvec;

use crate::client_state::reply_queue::{ReplyQueue, Slot};
use crate::errors;
use crate::exchange::pending::{CallMark, Guarded, OnReply, Pending};
use crate::exchange::plain::Strings;
use crate::exchange::reply_shape::ReplyShape;
use crate::near_cache::KeyId;
use crate::resp::{Chunks, Version, build};
use crate::scripts::{COMPRESSED, GuardScript, LOOKS_COMPRESSED, UNSEEN};
use crate::strings::Look;
use crate::upstream::{Delay, Expected, Lost, Reply};
use crate::worker_state::context::Context;
use crate::worker_state::plain_run::{self, PlainRun};
use crate::worker_state::script_texts::{known_to_redis, load};
use crate::worker_state::to_plain::{Unable, make_plain};

/// Redis does not know a script.
const NOSCRIPT: &[u8] = b"-NOSCRIPT No matching script. Please use EVAL.\r\n";

/// How often a script is loaded for one command: others may remove it each time (SCRIPT FLUSH).
const MOST_LOADS: u32 = 8;

/// How often a command is sent. Other clients may compress the string again each time.
const MOST_TRIES: u32 = 64;

/// Handles the reply. Returns what waits for further replies, if anything does.
pub(crate) fn answered(
    context: &Context,
    guarded: Guarded,
    to: Option<(Rc<ReplyQueue>, Slot)>,
    sent: Instant,
    reply: Reply<'_>,
    now: Instant,
) -> Option<Pending> {
    let waiting = Waiting { guarded, to, sent };
    match reply.bytes() {
        error if !error.starts_with(b"-") => return waiting.command().deliver(context, reply, now),
        error if says(error, &COMPRESSED) => waiting.remedy(context),
        // The user may not use scripts, or may not look into the string.
        error if says(error, &UNSEEN) || waiting.is_not_allowed(error) => waiting.run_alone(context),
        error if says(error, &LOOKS_COMPRESSED) => {
            let error = context.own_error(&errors::LOOKS_COMPRESSED_NOW);
            waiting.fail(context, &error);
        }
        NOSCRIPT => waiting.find_text(context, NOSCRIPT.to_vec()),
        error => {
            let error = waiting.with_own_sha(error);
            return waiting.command().deliver(context, Reply::Borrowed(&error), now);
        }
    }
    None
}

/// Whether a reply is this error of a script. Some servers put an error code before it.
fn says(reply: &[u8], error: &str) -> bool {
    let Some(text) = reply.strip_prefix(b"-") else { return false };
    text.strip_prefix(b"ERR ").unwrap_or(text).starts_with(error.as_bytes())
}

/// A command that has not run yet.
struct Waiting {
    guarded: Guarded,
    to: Option<(Rc<ReplyQueue>, Slot)>,
    sent: Instant,
}

impl Waiting {
    /// What waits for the command's own reply.
    fn command(self) -> Pending {
        Pending { to: self.to, sent: self.sent, on_reply: self.guarded.then, call: CallMark::default() }
    }

    fn fail(self, context: &Context, error: &[u8]) {
        self.command().deliver(context, Reply::Borrowed(error), Instant::now());
    }

    fn lose(self, context: &Context, lost: &Lost) {
        self.command().lose(context, lost, false);
    }

    /// Whether the user may not run the script, or may not run the command in it. Nothing has run.
    fn is_not_allowed(&self, error: &[u8]) -> bool {
        let has = |text: &[u8]| memchr::memmem::find(error, text).is_some();
        let is_refusal = error.starts_with(b"-NOPERM ") || has(b"The user executing the script can't run this command");
        // A client's script may have run before it met such an error itself.
        is_refusal && self.guarded.request.script.own.is_none()
    }

    /// An error of a client's script, in which the script has the SHA-1 of its own text.
    fn with_own_sha(&self, error: &[u8]) -> Vec<u8> {
        let script = &self.guarded.request.script;
        let (Some(own), Some(at)) = (&script.own, memchr::memmem::find(error, script.sha.as_bytes())) else {
            return error.to_vec();
        };
        [&error[..at], own.sha.as_bytes(), &error[at + own.sha.len()..]].concat()
    }

    /// Redis does not know the script. No script can call another, so this one has not run.
    fn find_text(self, context: &Context, error: Vec<u8>) {
        if self.guarded.sent > MOST_LOADS {
            return self.fail(context, &error);
        }
        let Some(context) = context.rc() else { return self.lose(context, &Lost::from(&errors::GIVEN_UP)) };
        tokio::task::spawn_local(async move {
            self.load_and_send(&context, &error).await;
            context.publish();
        });
    }

    async fn load_and_send(self, context: &Rc<Context>, error: &[u8]) {
        let script = Arc::clone(&self.guarded.request.script);
        match self.load(context, &script).await {
            Ok(true) => self.send(context),
            Ok(false) => self.fail(context, error),
            // Redis compiles the text only as it is, or not at all, or Shortstop's own user has no right.
            Err(Unable::Refused(_)) => self.run_alone(context),
            Err(Unable::Lost(lost)) => self.lose(context, &lost),
        }
    }

    /// Lets Redis know the script, and the client's own if the client has sent its text, as EVAL does. Returns false if Redis does not
    /// know the script that the client has named.
    async fn load(&self, context: &Rc<Context>, script: &GuardScript) -> Result<bool, Unable> {
        if let Some(own) = &script.own {
            if self.guarded.request.has_own_text() {
                load(context, &own.text).await?;
            } else if !known_to_redis(context, &own.sha).await? {
                return Ok(false);
            }
        }
        load(context, &script.text).await?;
        Ok(true)
    }

    /// Sends the script again.
    fn send(mut self, context: &Context) {
        let link = self.guarded.link.clone();
        if let Err(lost) = link.check() {
            return self.lose(context, &lost);
        }
        self.guarded.sent += 1;
        let request = self.guarded.request.clone();
        let on_reply = OnReply::Guarded(Box::new(self.guarded));
        context.stats().upstream_commands.add(1);
        link.send(Pending { to: self.to, sent: self.sent, on_reply, call: CallMark::default() }, |wire| {
            request.write(wire);
        });
        if request.script.own.is_some() {
            link.may_take(Delay::Long);
            link.sent_script(Instant::now());
        }
    }

    /// A string is compressed.
    fn remedy(mut self, context: &Context) {
        if self.guarded.sent > MOST_TRIES {
            let error = context.own_error(&errors::COMPRESSED_AGAIN);
            return self.fail(context, &error);
        }
        if let Some(look) = self.guarded.look.take() {
            return self.fetch(context, look);
        }
        let Some(context) = context.rc() else { return self.lose(context, &Lost::from(&errors::GIVEN_UP)) };
        tokio::task::spawn_local(async move {
            self.make_plain(&context).await;
            context.publish();
        });
    }

    /// Runs the command without a script.
    fn run_alone(self, context: &Context) {
        let mut request = Chunks::default();
        self.guarded.request.write_command(&mut request);
        let is_script = self.guarded.request.script.own.is_some();
        let Guarded { link, identity, strings: (db, strings), then, .. } = self.guarded;
        let run = PlainRun {
            identity,
            db,
            version: link.version(),
            strings,
            request,
            then,
            to: self.to,
            sent: self.sent,
            is_script,
        };
        plain_run::begin(run, context);
    }

    /// Fetches the value, and answers from it. The command has shown that the user has the right to it.
    fn fetch(self, context: &Context, look: Look) {
        let Some(context) = context.rc() else { return self.lose(context, &Lost::from(&errors::GIVEN_UP)) };
        let (db, Strings::Of(keys)) = self.guarded.strings else { unreachable!("a look has one key") };
        let lane = context.lane(&context.own_identity(), db, Version::Resp2);
        if let Err(lost) = lane.check() {
            let command =
                Pending { to: self.to, sent: self.sent, on_reply: self.guarded.then, call: CallMark::default() };
            return command.lose(&context, &lost, false);
        }
        let key = keys.into_iter().next().unwrap_or_default();
        let on_reply =
            OnReply::Content { keys: smallvec![KeyId::new(db, &key)], shape: ReplyShape::Look(Box::new(look)) };
        context.stats().upstream_commands.add(1);
        lane.send(Pending { to: self.to, sent: self.sent, on_reply, call: CallMark::default() }, |wire| {
            wire.push_with(|out| build::request(out, [&b"GET"[..], &key].into_iter()));
        });
    }

    /// Turns the strings to plain, and sends the script again.
    async fn make_plain(self, context: &Rc<Context>) {
        let (db, strings) = &self.guarded.strings;
        match make_plain(context, *db, strings).await {
            Ok(made) if !made.nested.is_empty() => self.run_alone(context),
            Ok(_) => self.send(context),
            Err(Unable::Refused(error)) => self.fail(context, &error),
            Err(Unable::Lost(lost)) => self.lose(context, &lost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::says;

    #[test]
    fn a_scripts_error_is_known_with_and_without_a_code() {
        for (reply, is) in
            [("-X 1\r\n", true), ("-ERR X 1\r\n", true), ("-ERR no X 1\r\n", false), ("$3\r\nX 1\r\n", false)]
        {
            assert_eq!(says(reply.as_bytes(), "X 1"), is, "{reply}");
        }
    }
}
