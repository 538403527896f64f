//! What happens to the bytes that a client sends: the states of a client connection, one place per transition. Knows no socket.

use crate::proxy::Next;

/// What happens to the bytes that a client sends. Two further conditions are independent of this: while the worker drains, nothing
/// more is read from any client, and while the debugger talks with the client, bytes are passed on unchanged
/// (`client_state::connection_state::Mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intake {
    /// Requests are taken.
    Running,
    /// No requests are taken until every earlier request is answered.
    Paused,
    /// No more requests are taken. The connection closes once every earlier request is answered.
    Closing,
    /// Input is discarded until the client disconnects, or until the next reply would be sent to it.
    Discarding,
}

impl Intake {
    /// A request has been handled.
    pub(super) fn after(self, next: Next) -> Intake {
        match next {
            Next::Go => self,
            Next::Again | Next::Pause => Intake::Paused,
            Next::Close => Intake::Closing,
            Next::Deafen => Intake::Discarding,
        }
    }

    /// Every earlier request is answered.
    pub(super) fn answered(self) -> Intake {
        if self == Intake::Paused { Intake::Running } else { self }
    }

    /// The input is no request. The client has been sent an error, unless it is `unheard`.
    pub(super) fn refused(unheard: bool) -> Intake {
        if unheard { Intake::Discarding } else { Intake::Closing }
    }

    /// Whether no more requests are taken.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Intake::Closing | Intake::Discarding)
    }
}

#[cfg(test)]
mod tests {
    use super::{Intake, Next};

    #[test]
    fn transitions_after_a_request() {
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
    fn only_a_pause_ends_once_all_is_answered() {
        assert_eq!(Intake::Running.answered(), Intake::Running);
        assert_eq!(Intake::Paused.answered(), Intake::Running);
        assert_eq!(Intake::Closing.answered(), Intake::Closing);
        assert_eq!(Intake::Discarding.answered(), Intake::Discarding);
    }

    #[test]
    fn a_muted_client_is_not_closed_for_invalid_input() {
        assert_eq!(Intake::refused(true), Intake::Discarding);
        assert_eq!(Intake::refused(false), Intake::Closing);
    }
}
