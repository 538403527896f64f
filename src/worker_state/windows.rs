//! How a worker asks the windows of the house, which stand above this floor, for the answer to PROXY and for INFO's sections.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::command::ProxySubcommand;
use crate::exchange::pending::Profile;
use crate::resp::Version;

/// Who may use a subcommand of PROXY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Also who has not logged in.
    Anybody,
    /// Whom Redis lets in.
    Clients,
    /// Whom Redis allows CONFIG SET.
    Configurers,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The protocol of the reply.
    pub version: Version,
    /// The database that the client has selected.
    pub db: u32,
    /// The number of the client's user in L1.
    pub user: u32,
    /// May see the values of others, as far as somebody may who may use the subcommand.
    pub sees_values: bool,
}

impl Asker {
    /// A client.
    pub(crate) fn of(profile: &Profile) -> Self {
        Asker { version: profile.version(), db: profile.db(), user: profile.user(), sees_values: true }
    }
}

/// The answer to PROXY, a whole frame.
pub enum ProxyAnswer {
    /// Here it is.
    Now(Vec<u8>),
    /// It has to be found out. Does not run on a worker.
    Later(Pin<Box<dyn Future<Output = Vec<u8>> + Send>>),
}

/// Answers the PROXY command and adds to INFO.
pub trait Windows: Send + Sync {
    /// Who may use a subcommand of PROXY.
    fn access(&self, subcommand: ProxySubcommand, argc: usize) -> Access;

    /// Whether a call has the right number of arguments, PROXY and the subcommand included. If not, the answer is an error.
    fn takes(&self, subcommand: ProxySubcommand, argc: usize) -> bool;

    /// The answer to `PROXY …`. Whether the client may use it has been seen to.
    fn proxy(self: Arc<Self>, subcommand: ProxySubcommand, args: &[&[u8]], asker: Asker) -> ProxyAnswer;

    /// Counters begin anew in INFO.
    fn reset_stats(&self);

    /// What `INFO [section …]` shows beside Redis's own sections.
    fn info(&self, sections: &[&[u8]]) -> String;
}
