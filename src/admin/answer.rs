//! A call of a subcommand of PROXY, and its answer.

use std::future::Future;
use std::pin::Pin;

use crate::worker_state::windows::Asker;

use super::view::View;

/// What a subcommand has to say.
pub enum Answer {
    /// A whole RESP reply, which has no JSON form.
    Frame(Vec<u8>),
    /// What it shows.
    View(View),
    /// What it shows, when it has been found out.
    Later(Pin<Box<dyn Future<Output = Result<View, String>> + Send>>),
    /// Why it cannot, as an error's text with its code.
    Error(String),
}

/// A subcommand that was asked for.
pub struct Asked<'a> {
    /// The words behind its name.
    pub words: &'a [&'a [u8]],
    /// Who asks.
    pub asker: Asker,
}
