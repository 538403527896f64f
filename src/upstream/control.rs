//! Questions of the control plane, over a connection of its own. Never on the way of a request.

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};

/// One command and its reply; an error reply is an error.
pub(super) async fn ask(client: &Client, command: &'static str, args: &[&str]) -> Result<Value, Error> {
    let args: Vec<Value> = args.iter().map(|arg| Value::from(*arg)).collect();
    client.custom(CustomCommand::new_static(command, ClusterHash::FirstKey, false), args).await
}
