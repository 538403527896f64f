//! How far L1 may be trusted, and the role of the upstream, on which this depends.

/// How far L1 may be trusted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is served: L1 is switched off, or the upstream is no primary.
    Off,
    /// No feed is configured: this Shortstop is configured as the only writer.
    Single,
    /// The bus has proven that it delivers every invalidation.
    Live,
    /// The bus has not proven that it delivers every invalidation. Entries are served until they are `degraded_staleness` old.
    Degraded,
}

impl Mode {
    /// The name that `PROXY INFO` shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Single => "single",
            Mode::Live => "live",
            Mode::Degraded => "degraded",
        }
    }

    /// What the mode means for reads, for the log.
    pub fn for_reads(self) -> &'static str {
        match self {
            Mode::Off => "nothing is served from L1: every read goes to Redis",
            Mode::Single => {
                "L1 serves entries for up to max_staleness; writes that bypass this Shortstop are not noticed before"
            }
            Mode::Live => "L1 serves, and drops keys that the fleet writes",
            Mode::Degraded => "L1 serves entries younger than degraded_staleness",
        }
    }
}

/// What is known of the upstream's role. Nothing is served from a server that is not known to be a primary, unless the server
/// refuses to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Redis has not been asked yet. Entries read now may be kept, and are served once the role is known.
    Unproven,
    /// All connections are moving to another server.
    Changing,
    /// A replica: nothing is served or kept.
    Replica,
    /// A primary.
    Primary,
    /// Redis was asked and does not tell. It counts as a primary.
    NotTold,
}

impl Role {
    pub(super) const ALL: [Role; 5] = [Role::Unproven, Role::Changing, Role::Replica, Role::Primary, Role::NotTold];

    /// What it is called in the journal.
    pub(super) fn name(self) -> &'static str {
        match self {
            Role::Unproven => "unknown",
            Role::Changing => "changing",
            Role::Replica => "replica",
            Role::Primary => "primary",
            Role::NotTold => "not told",
        }
    }

    pub(super) fn serves(self) -> bool {
        matches!(self, Role::Primary | Role::NotTold)
    }
}
