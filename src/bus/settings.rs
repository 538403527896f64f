//! The settings of the bus, and the names of the fleet's connections at Redis.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;

use crate::config::NatsUrl;
use crate::supervisor::Supervisor;
use crate::upstream::OWN_NAMES;

/// Default bound of the queue, in entries (see [`super::Outbox::try_send`]).
pub const DEFAULT_QUEUE: usize = 1 << 18;

/// The settings of [`super::start`]. `Debug` shows no password.
#[derive(Clone)]
pub struct Settings {
    /// The servers and the login.
    pub nats: NatsUrl,
    /// Name of the fleet: one NATS subject token. The subject is `shortstop.v1.<fleet>`.
    pub fleet: String,
    /// The subject of the JSON contract. `None`: nothing is published or received there.
    pub json: Option<String>,
    /// The subject on which values are announced, and on which services announce theirs. `None`: neither.
    pub updates: Option<String>,
    /// NATS credentials file (JWT and NKey seed).
    pub credentials: Option<PathBuf>,
    /// Identifies one start of one process: random (see [`random_incarnation`]). The names of its Redis connections contain it
    /// ([`connection_name`]), so that peers can see whether a lost Shortstop may still be writing.
    pub incarnation: u64,
    /// Published on the status subject when the bus ends in order.
    pub farewell: Vec<u8>,
    /// Bound of the [`super::Outbox`] and of the JSON queue behind it, in entries.
    pub queue: usize,
    /// Learns when a task of the bus has panicked.
    pub supervisor: Supervisor,
}

impl Settings {
    /// Settings with no JSON, no credentials and the default queue.
    pub fn new(nats: NatsUrl, fleet: impl Into<String>, incarnation: u64) -> Self {
        Settings {
            nats,
            fleet: fleet.into(),
            json: None,
            updates: None,
            credentials: None,
            incarnation,
            farewell: Vec::new(),
            queue: DEFAULT_QUEUE,
            supervisor: Supervisor::default(),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("fleet", &self.fleet)
            .field("json", &self.json)
            .field("incarnation", &format_args!("{:016x}", self.incarnation))
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// A number for [`Settings::incarnation`], from the operating system's randomness through the standard library's hash keys. It must
/// be unique, not secret.
pub fn random_incarnation() -> u64 {
    RandomState::new().hash_one((std::process::id(), std::thread::current().id()))
}

/// The name of an incarnation's connections (CLIENT SETNAME). The fleet's name contains no colon.
pub fn connection_name(fleet: &str, incarnation: u64) -> String {
    format!("{OWN_NAMES}{fleet}:{incarnation:016x}")
}

/// The incarnation in a [`connection_name`]. `None` if the name does not belong to this fleet.
pub fn incarnation_of(fleet: &str, name: &str) -> Option<u64> {
    let number = name.strip_prefix(OWN_NAMES)?.strip_prefix(fleet)?.strip_prefix(':')?;
    let incarnation = u64::from_str_radix(number, 16).ok()?;
    (connection_name(fleet, incarnation) == name).then_some(incarnation)
}

#[cfg(test)]
mod tests {
    use super::{connection_name, incarnation_of, random_incarnation};

    #[test]
    fn incarnations_differ() {
        assert_ne!(random_incarnation(), random_incarnation());
    }

    #[test]
    fn names_have_a_fixed_width() {
        assert_eq!(connection_name("blue", 0xab), "shortstop:blue:00000000000000ab");
    }

    #[test]
    fn names_are_read_back() {
        assert_eq!(incarnation_of("blue", &connection_name("blue", 0xab)), Some(0xab));
        for other in [
            "shortstop:green:00000000000000ab",
            "shortstop:blue",
            "shortstop:blue:",
            "shortstop:blue:ab",
            "shortstop:blue:00000000000000aB",
            "shortstop:blue:+0000000000000ab",
            "shortstop:bluer:00000000000000ab",
            "shortstop:00000000000000ab",
            "",
        ] {
            assert_eq!(incarnation_of("blue", other), None, "{other}");
        }
    }
}
