//! Has the windows of the house answer PROXY, on this worker or, if the answer takes time, elsewhere.

use std::rc::Rc;
use std::sync::Arc;

use crate::command::ProxySubcommand;
use crate::errors;
use crate::worker_state::context::Context;
use crate::worker_state::windows::{Asker, ProxyAnswer};

impl Context {
    /// Has PROXY answered.
    pub(crate) fn ask_windows(
        self: &Rc<Self>,
        subcommand: ProxySubcommand,
        args: &[&[u8]],
        asker: Asker,
        answer: impl FnOnce(Vec<u8>) + 'static,
    ) {
        match Arc::clone(&self.shared.windows).proxy(subcommand, args, asker) {
            ProxyAnswer::Now(frame) => answer(frame),
            ProxyAnswer::Later(frame) => {
                let found_out = self.shared.control.spawn(frame);
                let context = Rc::clone(self);
                tokio::task::spawn_local(async move {
                    answer(found_out.await.unwrap_or_else(|_| context.own_error(&errors::PROXY_FAILED)));
                });
            }
        }
    }
}
