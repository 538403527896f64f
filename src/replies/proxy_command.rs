//! A subcommand of PROXY that only those may use whom Redis allows CONFIG SET: Redis was asked, and has answered.

use std::rc::Rc;

use crate::client_state::reply_queue::{ReplyQueue, Slot};
use crate::command::ProxySubcommand;
use crate::errors;
use crate::exchange::pending::ClientState;
use crate::replies::answers::answer;
use crate::upstream::Reply;
use crate::worker_state::context::Context;
use crate::worker_state::windows::Asker;

/// Does what is asked for, if Redis allows it.
pub(super) fn answered(
    context: &Context,
    client: &ClientState,
    subcommand: ProxySubcommand,
    args: &[Vec<u8>],
    to: Option<(Rc<ReplyQueue>, Slot)>,
    reply: &[u8],
) {
    if !is_allowed(reply) {
        return answer(to, Reply::Borrowed(&context.own_error(&errors::NOT_ALLOWED)));
    }
    let Some(context) = context.rc() else { return };
    let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
    context.ask_windows(subcommand, &args, Asker::of(&client.profile), |frame| answer(to, Reply::Owned(frame.into())));
}

/// Whether Redis has looked at the parameter, which does not exist: the user may CONFIG SET. A user without that right gets NOPERM, and
/// where CONFIG has another name nobody may.
fn is_allowed(reply: &[u8]) -> bool {
    let begins = |text: &[u8]| reply.get(..text.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(text));
    begins(b"-ERR ") && !begins(b"-ERR unknown command")
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn only_an_error_about_the_parameter_is_a_permission() {
        assert!(is_allowed(b"-ERR Unknown option or number of arguments for CONFIG SET - 'x'\r\n"), "Redis 7");
        assert!(is_allowed(b"-ERR Unsupported CONFIG parameter: x\r\n"), "Redis 6.2");
        for refused in [
            &b"-NOPERM this user has no permissions to run the 'config|set' command\r\n"[..],
            b"-NOAUTH Authentication required.\r\n",
            b"-ERR unknown command 'CONFIG', with args beginning with: 'SET' 'x' \r\n",
            b"-LOADING Redis is loading the dataset in memory\r\n",
            b"+OK\r\n",
        ] {
            assert!(!is_allowed(refused), "{}", String::from_utf8_lossy(refused));
        }
    }
}
