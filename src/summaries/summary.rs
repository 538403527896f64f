//! What an instance tells of itself.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Maximum number of hot keys in a summary.
pub const MAX_HOT_KEYS: usize = 32;

/// Maximum number of settings and of alerts in a summary.
const MAX_SETTINGS: usize = 128;
const MAX_ALERTS: usize = 64;

/// Longest text, in bytes.
const MAX_TEXT: usize = 256;

/// The state of an instance at one moment. Fields that a message lacks are 0 or empty, except for the first ones, which it must have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Its incarnation.
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub instance: u64,
    /// Its version.
    pub version: String,
    /// How far its L1 is trusted.
    pub mode: String,
    /// Why.
    #[serde(default)]
    pub mode_reason: String,
    /// Since when, in seconds of Unix time by its own clock.
    #[serde(default)]
    pub mode_since: u64,
    /// The name of its machine.
    #[serde(default)]
    pub host: String,
    /// Where its clients connect.
    #[serde(default)]
    pub address: String,
    /// Seconds since its start.
    #[serde(default)]
    pub uptime_seconds: u64,
    /// Per second, in the last ten seconds: reads that L1 answered.
    #[serde(default)]
    pub hits_per_second: f64,
    /// Reads that Redis answered although a rule allows keeping them.
    #[serde(default)]
    pub misses_per_second: f64,
    /// Requests of clients.
    #[serde(default)]
    pub requests_per_second: f64,
    /// Clients connected.
    #[serde(default)]
    pub clients: u64,
    /// Memory that the entries of L1 take.
    #[serde(default)]
    pub l1_bytes: u64,
    /// Its bound.
    #[serde(default)]
    pub l1_max_bytes: u64,
    /// Entries in L1.
    #[serde(default)]
    pub l1_entries: u64,
    /// Microseconds from handing the last heartbeat to NATS until it had come back, and everything before it had been applied.
    #[serde(default)]
    pub round_trip_usec: Option<u64>,
    /// Time since the last heartbeat that came back was sent.
    #[serde(default)]
    pub lease_age_ms: Option<u64>,
    /// Other instances that it knows, and those of them that it has lost.
    #[serde(default)]
    pub peers: u64,
    /// See `peers`.
    #[serde(default)]
    pub peers_lost: u64,
    /// Messages of others that it missed, as gaps in their numbers.
    #[serde(default)]
    pub gaps: u64,
    /// Events that it could not publish.
    #[serde(default)]
    pub dropped: u64,
    /// The names of the alerts that fire.
    #[serde(default)]
    pub alerts: Vec<String>,
    /// A hash of each setting that should be the same in the whole fleet.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// The keys that are requested most, the hottest first.
    #[serde(default)]
    pub hot_keys: Vec<HotKeyName>,
}

/// The name of a hot key: a text, or base64 if it is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HotKeyName {
    /// The database.
    pub db: u32,
    /// The key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
}

impl HotKeyName {
    /// The name of a key of a database.
    pub fn new(db: u32, key: &[u8]) -> Self {
        let text = std::str::from_utf8(key).ok().map(str::to_owned);
        let key_base64 = text.is_none().then(|| STANDARD.encode(key));
        HotKeyName { db, key: text, key_base64 }
    }

    /// The database and the key. `None`: it names none.
    pub fn key(&self) -> Option<(u32, Vec<u8>)> {
        let key = match (&self.key, &self.key_base64) {
            (Some(key), _) => key.as_bytes().to_vec(),
            (None, Some(text)) => STANDARD.decode(text).ok()?,
            (None, None) => return None,
        };
        Some((self.db, key))
    }

    fn is_sound(&self) -> bool {
        let fits = |text: &Option<String>| text.as_ref().is_none_or(|text| text.len() <= MAX_TEXT);
        fits(&self.key) && fits(&self.key_base64) && self.key().is_some()
    }
}

impl Summary {
    /// As a message.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and finite numbers only: there is nothing in it that JSON cannot hold")
    }

    /// Hits among hits and misses of the last ten seconds. `None`: there were none.
    pub fn hit_rate(&self) -> Option<f64> {
        hit_rate(self.hits_per_second, self.misses_per_second)
    }

    /// Whether it is within the bounds of what an instance may say.
    pub(super) fn is_sound(&self) -> bool {
        let texts = [&self.version, &self.mode, &self.mode_reason, &self.host, &self.address];
        let rates = [self.hits_per_second, self.misses_per_second, self.requests_per_second];
        texts.into_iter().chain(&self.alerts).all(|text| is_plain(text))
            && rates.iter().all(|rate| (0.0..1e12).contains(rate))
            && self.alerts.len() <= MAX_ALERTS
            && self.settings.len() <= MAX_SETTINGS
            && self.settings.iter().all(|(name, hash)| is_plain(name) && is_plain(hash))
            && self.hot_keys.len() <= MAX_HOT_KEYS
            && self.hot_keys.iter().all(HotKeyName::is_sound)
    }
}

/// Hits among hits and misses. `None`: there were none.
pub fn hit_rate(hits: f64, misses: f64) -> Option<f64> {
    (hits + misses > 0.0).then(|| hits / (hits + misses))
}

/// Short, and without control characters: it is shown in terminals.
fn is_plain(text: &str) -> bool {
    text.len() <= MAX_TEXT && !text.contains(char::is_control)
}

pub(super) fn to_hex<S: Serializer>(instance: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&format!("{instance:016x}"))
}

pub(super) fn from_hex<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u64::from_str_radix(&text, 16).ok().filter(|_| is_hex);
    number.ok_or_else(|| de::Error::custom("not an incarnation"))
}
