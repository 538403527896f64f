//! Commands that look into strings, or copy and compare them, while values may be compressed: what is sent in their place.

use crate::errors::{self, OwnError};
use crate::proxy::call::{Call, Wire};
use crate::proxy::client::Client;
use crate::proxy::string_guard;

impl Client {
    /// What is sent in the place of a command that looks into a string.
    pub(super) fn guarded(&self, call: Call<'_>) -> Result<Wire, OwnError> {
        // Without a condition DELEX looks at nothing.
        if call.args.len() == 2 && call.row.name.as_ref() == "delex" {
            return Ok(Wire::AsIs);
        }
        let (keys, _) = call.found_keys();
        string_guard::request(&call.row.name, call.args, keys)
            .map(Wire::Instead)
            .ok_or_else(|| errors::TOO_MANY_ARGUMENTS.clone())
    }

    /// What is sent in the place of a SORT that stores or compares strings of other keys.
    pub(super) fn sort_guarded(&self, call: Call<'_>, looks: &[string_guard::Look<'_>]) -> Result<Wire, OwnError> {
        let (keys, _) = call.found_keys();
        string_guard::sort_request(call.args, keys, looks)
            .map(Wire::Instead)
            .ok_or_else(|| errors::TOO_MANY_ARGUMENTS.clone())
    }
}
