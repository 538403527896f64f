//! `compression`: whether values are compressed, and whether stored values may be. Parsing only; `worker_state::policy` decides.

use std::fmt;
use std::str::FromStr;

use super::units::{self, Wrong};

/// What the configuration says about compressed values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Values are compressed as the rules say. Stored values may be compressed.
    #[default]
    On,
    /// No value is compressed. Stored values may be.
    Read,
    /// No value is compressed, and by the user's word no stored value is.
    Off,
}

/// `true` and `false` are what this key took before it had three words: with `false`, stored values may still be compressed.
/// So programs that turn YAML's `off` into `false` also end with the careful one.
impl FromStr for Compression {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        match text.to_ascii_lowercase().as_str() {
            "read" => Ok(Self::Read),
            "off" => Ok(Self::Off),
            _ => units::switch(text).map(Self::of_switch).map_err(|_| {
                let remedy =
                    "on, read (values are decompressed and never compressed) or off (no stored value is compressed)";
                units::no_such_word(text, "a mode of compression", &["on", "read", "off"], remedy)
            }),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Compression {
    /// The mode that a switch means.
    pub(super) fn of_switch(on: bool) -> Self {
        if on { Self::On } else { Self::Read }
    }

    /// The word for the mode.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Read => "read",
            Self::Off => "off",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Compression::{Off, On, Read};
    use crate::config::{Config, Setting, Sources};

    #[test]
    fn three_words_and_the_switches_of_old() {
        let typed = |text: &str| Config::from_yaml(&format!("compression: {text}")).map(|config| config.compression);
        for (text, mode) in [
            ("on", On),
            ("true", On),
            ("yes", On),
            ("read", Read),
            ("false", Read),
            ("no", Read),
            ("0", Read),
            ("off", Off),
            ("OFF", Off),
        ] {
            assert_eq!(typed(text), Ok(mode), "{text}");
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        for wrong in ["reed", "gzip", "[off]", "''"] {
            assert!(typed(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Config::default().compression, On);
    }

    #[test]
    fn the_variable_is_a_switch_that_never_means_off() {
        let set = |text: &str| {
            let mut sources = Sources::default();
            sources.set(Setting::CompressionEnabled, text, "CACHE_COMPRESSION_ENABLED");
            sources.done(|_| Vec::new()).map(|loaded| loaded.config.compression)
        };
        for (text, mode) in [("true", On), ("on", On), ("false", Read), ("off", Read), ("0", Read), ("read", Read)] {
            assert_eq!(set(text).ok(), Some(mode), "{text}");
        }
        assert!(set("maybe").is_err());
    }
}
