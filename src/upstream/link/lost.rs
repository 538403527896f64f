//! Why Redis cannot answer a request.

use std::rc::Rc;

use crate::errors::{OwnError, Side};
use crate::metrics::outcome::UnknownWrite;
use crate::upstream::login::{is_busy, is_too_many};

/// Why Redis cannot answer a request, with the error that the client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The error, with its code.
    text: Rc<str>,
    side: Side,
    unknown: UnknownWrite,
    login_refused: bool,
}

impl From<&OwnError> for Lost {
    fn from(error: &OwnError) -> Self {
        Lost {
            text: error.text().into(),
            side: error.side(),
            unknown: UnknownWrite::ConnectionLost,
            login_refused: false,
        }
    }
}

impl Lost {
    /// The error, with its code, with which Redis refused the connection.
    pub(super) fn said(text: &str, login_refused: bool) -> Self {
        Lost { text: text.into(), side: Side::Upstream, unknown: UnknownWrite::ConnectionLost, login_refused }
    }

    /// The error, with its code.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Which side the error counts for.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The same error, for connections that are given up for this reason.
    pub fn because(self, unknown: UnknownWrite) -> Self {
        Lost { unknown, ..self }
    }

    /// Why the outcome of an in-flight write is unknown.
    pub fn write_is_unknown(&self) -> UnknownWrite {
        self.unknown
    }

    /// Whether Redis is there but serves no requests while a script runs.
    pub fn is_busy(&self) -> bool {
        is_busy(self.text.as_bytes())
    }

    /// Whether another attempt may soon succeed: Redis has too many connections.
    pub fn may_pass(&self) -> bool {
        is_too_many(&self.text)
    }

    /// Whether Redis refused the connection's login. Then every client with that login must be closed.
    pub fn is_login_refused(&self) -> bool {
        self.login_refused
    }
}
