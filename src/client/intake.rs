//! What is done with what a client sends: the states of a client connection, one place per transition. Knows no socket.

use crate::proxy::Next;

/// What is done with what the client sends. Two things stand beside it: while the worker drains, nothing more is read from any client,
/// and while the debugger talks with the client, bytes are passed on as they are (`client_state::connection_state::Mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intake {
    /// Requests are taken.
    Running,
    /// Nothing is taken until all that was asked has been answered.
    Paused,
    /// Nothing is taken any more; the connection ends when all that was asked has been answered.
    Closing,
    /// What comes is thrown away until the client leaves, or something would be said to it.
    Discarding,
}

impl Intake {
    /// A request has been decided.
    pub(super) fn after(self, next: Next) -> Intake {
        match next {
            Next::Go => self,
            Next::Again | Next::Pause => Intake::Paused,
            Next::Close => Intake::Closing,
            Next::Deafen => Intake::Discarding,
        }
    }

    /// All that was asked has been answered.
    pub(super) fn answered(self) -> Intake {
        if self == Intake::Paused { Intake::Running } else { self }
    }

    /// What came is no request, and the client has been told so, unless it is `unheard`.
    pub(super) fn refused(unheard: bool) -> Intake {
        if unheard { Intake::Discarding } else { Intake::Closing }
    }

    /// Whether nothing is taken any more.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Intake::Closing | Intake::Discarding)
    }
}

#[cfg(test)]
mod tests {
    use super::{Intake, Next};

    #[test]
    fn what_is_done_after_a_request() {
        for (next, intake) in [
            (Next::Go, Intake::Running),
            (Next::Again, Intake::Paused),
            (Next::Pause, Intake::Paused),
            (Next::Close, Intake::Closing),
            (Next::Deafen, Intake::Discarding),
        ] {
            assert_eq!(Intake::Running.after(next), intake, "{next:?}");
            assert_eq!(intake.is_over(), matches!(next, Next::Close | Next::Deafen), "{next:?}");
        }
    }

    #[test]
    fn only_a_pause_ends_with_the_answers() {
        assert_eq!(Intake::Running.answered(), Intake::Running);
        assert_eq!(Intake::Paused.answered(), Intake::Running);
        assert_eq!(Intake::Closing.answered(), Intake::Closing);
        assert_eq!(Intake::Discarding.answered(), Intake::Discarding);
    }

    #[test]
    fn a_client_that_hears_nothing_is_not_closed_for_what_it_sent() {
        assert_eq!(Intake::refused(true), Intake::Discarding);
        assert_eq!(Intake::refused(false), Intake::Closing);
    }
}
