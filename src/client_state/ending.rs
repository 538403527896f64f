//! Whether a client's connection goes on, and how it ends: the states, and every transition between them.

use crate::metrics::outcome::DropReason;

/// Whether a client's connection goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// It goes on.
    #[default]
    None,
    /// It ends once the due replies are written.
    Closing,
    /// As `Closing`. The client's user was deleted, so the client gets no errors about requests that were lost with the user's
    /// connections.
    UserDeleted,
    /// It ends now, for this reason.
    Dropped(DropReason),
}

impl Ending {
    /// The connection is to end with the due replies.
    #[must_use]
    pub(super) fn close(self) -> Ending {
        if self == Ending::None { Ending::Closing } else { self }
    }

    /// The client's user was deleted.
    #[must_use]
    pub(super) fn delete_user(self) -> Ending {
        if matches!(self, Ending::Dropped(_)) { self } else { Ending::UserDeleted }
    }

    /// The connection is to end now. The first reason counts.
    #[must_use]
    pub(super) fn drop_for(self, why: DropReason) -> Ending {
        if matches!(self, Ending::Dropped(_)) { self } else { Ending::Dropped(why) }
    }

    /// Why it ends now; none: it does not.
    pub fn dropped(self) -> Option<DropReason> {
        if let Ending::Dropped(why) = self { Some(why) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::{DropReason, Ending};

    #[test]
    fn what_ends_sooner_holds() {
        let dropped = Ending::Dropped(DropReason::StallTimeout);
        for (from, close, delete_user) in [
            (Ending::None, Ending::Closing, Ending::UserDeleted),
            (Ending::Closing, Ending::Closing, Ending::UserDeleted),
            (Ending::UserDeleted, Ending::UserDeleted, Ending::UserDeleted),
            (dropped, dropped, dropped),
        ] {
            assert_eq!((from.close(), from.delete_user()), (close, delete_user), "{from:?}");
            assert!(from.drop_for(DropReason::IdleTimeout).dropped().is_some(), "{from:?}");
        }
        assert_eq!(dropped.drop_for(DropReason::IdleTimeout), dropped, "the first reason counts");
        assert_eq!(Ending::Closing.dropped(), None);
    }
}
