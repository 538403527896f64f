//! What the workers ask: PROXY, and the sections of INFO.

use std::sync::Arc;

use crate::command::ProxySubcommand;
use crate::worker_state::windows::{Access, Asker, ProxyAnswer, Windows};

use super::{Admin, info, subcommands};

impl Windows for Admin {
    fn access(&self, subcommand: ProxySubcommand, argc: usize) -> Access {
        subcommands::access(subcommand, argc)
    }

    fn takes(&self, subcommand: ProxySubcommand, argc: usize) -> bool {
        subcommands::takes(subcommand, argc)
    }

    fn proxy(self: Arc<Self>, subcommand: ProxySubcommand, args: &[&[u8]], asker: Asker) -> ProxyAnswer {
        subcommands::reply(&self, subcommand, args, asker)
    }

    fn reset_stats(&self) {
        Admin::reset_stats(self);
    }

    fn info(&self, sections: &[&[u8]]) -> String {
        info::text(self, sections)
    }
}
