//! How far L1 may be trusted, and what that depends on: the role of the server behind.

/// How far L1 may be trusted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is served: switched off, or the upstream is no primary.
    Off,
    /// No feed is configured: by configuration this proxy is the only writer.
    Single,
    /// The bus has proven that it brings every invalidation.
    Live,
    /// The bus has not proven that. Entries are served until they are `degraded_staleness` old.
    Degraded,
}

impl Mode {
    /// As `PROXY INFO` shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Single => "single",
            Mode::Live => "live",
            Mode::Degraded => "degraded",
        }
    }

    /// What it means for reads, for the log.
    pub fn for_reads(self) -> &'static str {
        match self {
            Mode::Off => "nothing is served from L1: every read goes to Redis",
            Mode::Single => {
                "L1 serves for up to max_staleness; writes that do not pass this Shortstop are not noticed before"
            }
            Mode::Live => "L1 serves, and drops what the fleet writes",
            Mode::Degraded => "L1 serves what is younger than degraded_staleness",
        }
    }
}

/// What is known of the role that the upstream has. Nothing is served from a server that is not known to be a primary, unless it may
/// not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Nobody has asked so far. What is read now may be kept, and is served when the role is known.
    Unproven,
    /// All connections are moving to another server.
    Changing,
    /// A replica: nothing is served or kept.
    Replica,
    /// A primary.
    Primary,
    /// It was asked and does not tell. It is taken for a primary.
    NotTold,
}

impl Role {
    pub(super) const ALL: [Role; 5] = [Role::Unproven, Role::Changing, Role::Replica, Role::Primary, Role::NotTold];

    pub(super) fn serves(self) -> bool {
        matches!(self, Role::Primary | Role::NotTold)
    }
}
