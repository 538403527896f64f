//! What has to be known of a command, or of one call of it, beyond what its row says.

use crate::command::{Row, Verb};
use crate::proxy::call::Call;
use crate::proxy::compress;

/// Commands that leave nothing on a connection. They need one of their own only because they must not wait behind others.
pub(super) fn leaves_nothing(row: &Row) -> bool {
    matches!(row.name.as_ref(), "script|kill" | "function|kill" | "function|stats" | "shutdown" | "client|unpause")
}

/// Whether it is WAIT or WAITAOF. The server's table may not be here yet.
pub(super) fn waits_for_replicas(row: &Row, name: &[u8]) -> bool {
    let is_unknown = || row.name.is_empty() && name.eq_ignore_ascii_case(b"waitaof");
    matches!(row.name.as_ref(), "wait" | "waitaof") || is_unknown()
}

/// Whether a command may change what a client may do that has not authenticated.
pub(super) fn changes_first_rights(call: Call<'_>) -> bool {
    let has = |word: &[u8]| call.args.iter().skip(2).any(|arg| arg.eq_ignore_ascii_case(word));
    match call.row.name.as_ref() {
        "config|set" => has(b"requirepass"),
        "acl|setuser" => call.args.get(2) == Some(&&b"default"[..]),
        "acl|load" => true,
        _ => false,
    }
}

/// Whether the command's values are compressed on their way, and that is all there is to see to.
pub(super) fn writes_values(verb: Verb, args: &[&[u8]]) -> bool {
    match verb {
        Verb::SetEx | Verb::PSetEx | Verb::SetNx | Verb::MSet | Verb::MSetNx | Verb::MSetEx | Verb::GetSet => true,
        Verb::Set => !compress::compares(args),
        _ => false,
    }
}
