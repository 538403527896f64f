//! Questions of the control plane, over a connection of its own. Never on the way of a request.

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};

use super::own;

/// One command and its reply; an error reply is an error.
pub(super) async fn ask(client: &Client, command: &'static str, args: &[&str]) -> Result<Value, Error> {
    let args: Vec<Value> = args.iter().map(|arg| Value::from(*arg)).collect();
    let command = String::from_utf8_lossy(&own::mark(command.as_bytes())).into_owned();
    client.custom(CustomCommand::new(command, ClusterHash::FirstKey, false), args).await
}

/// [`ask`]; none: the connection's user may not. That nobody is let in without a login remains an error.
pub(super) async fn ask_unless_refused(
    client: &Client,
    command: &'static str,
    args: &[&str],
) -> Result<Option<Value>, Error> {
    match ask(client, command, args).await {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.details().starts_with("NOPERM ") => Ok(None),
        Err(error) => Err(error),
    }
}

/// [`ask`]; none: the connection's user may not, or the server has no such command.
pub(super) async fn ask_if_allowed(
    client: &Client,
    command: &'static str,
    args: &[&str],
) -> Result<Option<Value>, Error> {
    match ask(client, command, args).await {
        Ok(value) => Ok(Some(value)),
        Err(error) if ["NOPERM ", "NOAUTH ", "ERR "].iter().any(|code| error.details().starts_with(code)) => Ok(None),
        Err(error) => Err(error),
    }
}
