//! Commands that read, change, copy or compare strings, while values may be compressed: the bytes to send in their place.
//!
//! A command that reads a part of a small string becomes a GET, and its reply is made from the value. Any other runs in a script that
//! looks first (`string_guard`).

use crate::codec;
use crate::command::StringOp;
use crate::errors::{self, OwnError};
use crate::exchange::pending::{Guarded, OnReply};
use crate::exchange::plain::Strings;
use crate::exchange::reply_shape::ReplyShape;
use crate::exchange::script_request::ScriptRequest;
use crate::near_cache::KeyId;
use crate::proxy::call::{Call, Target, Wire};
use crate::proxy::client::Client;
use crate::proxy::reply_shape::sort_options;
use crate::proxy::string_guard::{self, Access};
use crate::strings::Look;
use crate::worker_state::policy::View;

impl Client {
    /// What waits for the reply to a command on strings, and the bytes to send.
    pub(super) fn string_op(
        &self,
        view: &View,
        call: Call<'_>,
        op: StringOp,
        target: &Target,
    ) -> Result<(OnReply, Wire), OwnError> {
        let db = self.state.profile.db();
        let is_open = !view.policy.may_be_compressed();
        if is_open && call.row.is_write() && call.args.iter().any(|arg| codec::is_compressed(arg)) {
            return Err(errors::MARK_WHILE_OFF.clone());
        }
        if !is_open && let Some(look) = self.look(op, call.args) {
            let shape = ReplyShape::Look(Box::new(look));
            return Ok((OnReply::Content { keys: self.ids(call), shape }, Wire::Get));
        }
        let then = if call.row.is_write() {
            OnReply::Write { guard: self.write_guard(view, call), shape: self.reply_shape(call) }
        } else {
            self.unkept(view, call)
        };
        // Without a condition DELEX does not read the value.
        if is_open || (call.args.len() == 2 && op == StringOp::DelEx) {
            return Ok((then, Wire::AsIs));
        }
        let request = string_guard::request(op, call.args, &call.keys.places, access(view, call))
            .ok_or_else(|| errors::TOO_MANY_ARGUMENTS.clone())?;
        // BITOP overwrites its first key.
        let read = &call.keys.places[usize::from(op == StringOp::BitOp).min(call.keys.places.len())..];
        let strings = Strings::Of(read.iter().map(|at| call.args[*at as usize].to_vec()).collect());
        let look = Look::accepted(op, call.args);
        Ok(self.guarded(request, target, (db, strings), look, then))
    }

    /// What waits for a script that runs only if these strings are plain, and the script. `then` handles the reply of what it runs. With
    /// `look`, the reply may be made from the string.
    pub(super) fn guarded(
        &self,
        request: ScriptRequest,
        target: &Target,
        strings: (u32, Strings),
        look: Option<Look>,
        then: OnReply,
    ) -> (OnReply, Wire) {
        let wire = Wire::Script(request.clone());
        let (identity, link) = (self.state.profile.identity(), target.link().clone());
        (OnReply::Guarded(Box::new(Guarded { request, identity, link, strings, look, then, sent: 1 })), wire)
    }

    /// What a command asks of a string, if Shortstop may fetch the string and answer from it: it is small, as far as is known.
    pub(super) fn look(&self, op: StringOp, args: &[&[u8]]) -> Option<Look> {
        let look = Look::of(op, args)?;
        let is_large = || self.context.large_strings.has(KeyId::new(self.state.profile.db(), args[1]));
        (self.may_look() && !is_large()).then_some(look)
    }

    fn may_look(&self) -> bool {
        self.state.profile.identity().rights(&self.context.shared.users).looks
    }

    /// What waits for the reply to a SORT, and the bytes to send.
    pub(super) fn sort(&self, view: &View, call: Call<'_>, target: &Target) -> Result<(OnReply, Wire), OwnError> {
        let observed = if call.row.is_write() || !self.reveals_content(view, call.row) {
            Default::default()
        } else {
            self.ids(call)
        };
        let guard = call.row.is_write().then(|| Box::new(self.write_guard(view, call)));
        let then = OnReply::Elements { guard, observed, shape: self.reply_shape(call) };
        let checks = string_guard::sort_checks(call.args);
        if checks.is_empty() || !view.policy.may_be_compressed() {
            return Ok((then, Wire::AsIs));
        }
        let request = string_guard::sort_request(call.args, &call.keys.places, &checks, access(view, call))
            .ok_or_else(|| errors::TOO_MANY_ARGUMENTS.clone())?;
        let patterns = sort_options(call.args).filter(|option| option.gets_a_string() || option.is_by_a_string());
        let patterns = patterns.map(|option| option.words[1].to_vec()).collect();
        let strings = (self.state.profile.db(), Strings::Sorted(call.args[1].to_vec(), patterns));
        Ok(self.guarded(request, target, strings, None, then))
    }
}

fn access(view: &View, call: Call<'_>) -> Access {
    match call.row.is_write() {
        true => Access::Writes,
        false => Access::Reads { ro: !view.table.resolve(&[b"EVALSHA_RO"]).is_unknown() },
    }
}
