//! CLIENT commands that need neither Redis nor other workers, once Redis has accepted them.

use crate::exchange::client_command::ClientCommand;
use crate::exchange::pending::ClientState;
use crate::resp::build;

/// Carries out the command and returns the answer. Returns the command if it needs more.
pub(crate) fn answer(client: &ClientState, command: ClientCommand) -> Result<Vec<u8>, ClientCommand> {
    let (info, profile) = (&client.info, &client.profile);
    let mut out = Vec::new();
    match command {
        ClientCommand::Id => build::integer(&mut out, i64::try_from(info.id).unwrap_or(i64::MAX)),
        ClientCommand::GetName if profile.name.borrow().is_empty() => out.extend_from_slice(profile.version().null()),
        ClientCommand::GetName => build::bulk(&mut out, &profile.name.borrow()),
        ClientCommand::SetName(name) => {
            *profile.name.borrow_mut() = name;
            out.extend_from_slice(b"+OK\r\n");
        }
        ClientCommand::SetInfo(which, value) => {
            info.library.borrow_mut()[which] = value;
            out.extend_from_slice(b"+OK\r\n");
        }
        command => return Err(command),
    }
    Ok(out)
}
