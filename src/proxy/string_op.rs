//! Commands that read, change, copy or compare strings, while values may be compressed: the bytes to send in their place.

use crate::codec;
use crate::command::StringOp;
use crate::errors::{self, OwnError};
use crate::proxy::call::{Call, Wire};
use crate::proxy::client::Client;
use crate::proxy::string_guard;
use crate::worker_state::policy::View;

impl Client {
    /// The bytes to send for a command on strings.
    pub(super) fn guarded(&self, view: &View, call: Call<'_>, op: StringOp) -> Result<Wire, OwnError> {
        // A command that would write the mark is guarded in any case.
        if !view.policy.may_be_compressed() && !call.args.iter().any(|arg| codec::is_compressed(arg)) {
            return Ok(Wire::AsIs);
        }
        // Without a condition DELEX does not read the value.
        if call.args.len() == 2 && op == StringOp::DelEx {
            return Ok(Wire::AsIs);
        }
        string_guard::request(op, call.args, &call.keys.places)
            .map(Wire::Instead)
            .ok_or_else(|| errors::TOO_MANY_ARGUMENTS.clone())
    }

    /// The bytes to send for a SORT that stores or compares strings of other keys.
    pub(super) fn sort_guarded(&self, call: Call<'_>, checks: &[string_guard::Check<'_>]) -> Result<Wire, OwnError> {
        string_guard::sort_request(call.args, &call.keys.places, checks)
            .map(Wire::Instead)
            .ok_or_else(|| errors::TOO_MANY_ARGUMENTS.clone())
    }
}
