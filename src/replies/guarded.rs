//! Replies of the scripts that guard commands on strings. If a string was compressed, the script has done nothing: the command is
//! answered from the fetched value, or it runs again once the string is plain.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::client_state::reply_queue::{ReplyQueue, Slot};
use crate::errors;
use crate::exchange::pending::{CallMark, Guarded, OnReply, Pending};
use crate::exchange::plain::Strings;
use crate::exchange::reply_shape::ReplyShape;
use crate::resp::{Chunks, build};
use crate::scripts::{COMPRESSED, UNSEEN};
use crate::strings::Look;
use crate::upstream::{Delay, Expected, Lost, Reply};
use crate::worker_state::context::Context;
use crate::worker_state::plain_run::{self, PlainRun};
use crate::worker_state::script_texts::{known_to_redis, load};
use crate::worker_state::to_plain::{Unable, make_plain};

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
        error if is_about_text(error) => waiting.find_text(context, error.to_vec()),
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

/// Whether Redis says that it does not have the script, or cannot compile it. A script can return the same errors.
fn is_about_text(error: &[u8]) -> bool {
    error.starts_with(b"-NOSCRIPT ") || error.starts_with(b"-ERR Error compiling script")
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
        let is_noperm = error.starts_with(b"-NOPERM ");
        match &self.guarded.request.script.own {
            // A client's script may have run before it met such an error itself. No script calls EVALSHA.
            Some(_) => is_noperm && has(b"'evalsha"),
            None => is_noperm || has(b"The user executing the script can't run this command"),
        }
    }

    /// An error of a client's script, in which the script has the SHA-1 of its own text.
    fn with_own_sha(&self, error: &[u8]) -> Vec<u8> {
        let script = &self.guarded.request.script;
        let (Some(own), Some(at)) = (&script.own, memchr::memmem::find(error, script.sha.as_bytes())) else {
            return error.to_vec();
        };
        [&error[..at], own.sha.as_bytes(), &error[at + own.sha.len()..]].concat()
    }

    /// Redis does not have the script, or could not compile it, unless the script itself has said so.
    fn find_text(self, context: &Context, error: Vec<u8>) {
        let Some(context) = context.rc() else { return self.lose(context, &Lost::from(&errors::GIVEN_UP)) };
        tokio::task::spawn_local(async move {
            self.with_text(&context, &error).await;
            context.publish();
        });
    }

    async fn with_text(self, context: &Rc<Context>, error: &[u8]) {
        let script = Arc::clone(&self.guarded.request.script);
        let Some(own) = &script.own else { return self.send(context, true) };
        let exist = match known_to_redis(context, [&script.sha, &own.sha]).await {
            Ok(exist) => exist,
            Err(lost) => return self.lose(context, &lost),
        };
        match exist {
            // The script has run.
            [true, _] => self.fail(context, error),
            // A text that Redis compiles only as it is, or not at all.
            _ if !error.starts_with(b"-NOSCRIPT ") => self.run_alone(context),
            [false, true] => self.send(context, true),
            [false, false] if self.guarded.request.has_own_text() => {
                // EVAL lets Redis know the script by its SHA-1.
                if let Err(lost) = load(context, &own.text).await {
                    return self.lose(context, &lost);
                }
                self.send(context, true);
            }
            [false, false] => self.fail(context, error),
        }
    }

    /// Sends the script again, by its SHA or with its text.
    fn send(mut self, context: &Context, with_text: bool) {
        let link = self.guarded.link.clone();
        if let Err(lost) = link.check() {
            return self.lose(context, &lost);
        }
        self.guarded.sent += 1;
        let request = self.guarded.request.clone();
        let on_reply = OnReply::Guarded(Box::new(self.guarded));
        context.stats().upstream_commands.add(1);
        link.send(Pending { to: self.to, sent: self.sent, on_reply, call: CallMark::default() }, |wire| {
            request.write(wire, with_text);
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
        if !self.guarded.request.write_command(&mut request) {
            let error = context.own_error(&errors::NEEDS_SCRIPTS);
            return self.fail(context, &error);
        }
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

    /// Fetches the value, and answers from it.
    fn fetch(self, context: &Context, look: Look) {
        let link = self.guarded.link.clone();
        if let Err(lost) = link.check() {
            return self.lose(context, &lost);
        }
        let Strings::Of(keys) = self.guarded.strings.1 else { unreachable!("a look has one key") };
        let key = keys.into_iter().next().unwrap_or_default();
        let keys = match self.guarded.then {
            OnReply::Content { keys, .. } => keys,
            _ => SmallVec::new(),
        };
        let on_reply = OnReply::Content { keys, shape: ReplyShape::Look(Box::new(look)) };
        context.stats().upstream_commands.add(1);
        link.send(Pending { to: self.to, sent: self.sent, on_reply, call: CallMark::default() }, |wire| {
            wire.push_with(|out| build::request(out, [&b"GET"[..], &key].into_iter()));
        });
    }

    /// Turns the strings to plain, and sends the script again.
    async fn make_plain(self, context: &Rc<Context>) {
        let (db, strings) = &self.guarded.strings;
        match make_plain(context, *db, strings).await {
            Ok(made) if !made.nested.is_empty() => self.run_alone(context),
            Ok(_) => self.send(context, false),
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
