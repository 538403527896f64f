//! The formats that compress, and their levels.

use std::ops::RangeInclusive;

/// The format of a compressed value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// RFC 1952.
    #[default]
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Codec {
    /// Its levels, from fast to small.
    ///
    /// zstd's own levels go to 22. Those above 19 need hundreds of megabytes of memory, and save something only on values of many
    /// megabytes.
    pub fn levels(self) -> RangeInclusive<u32> {
        match self {
            Self::Gzip => 1..=9,
            Self::Zstd => 1..=19,
        }
    }

    /// The nearest level that the codec has.
    pub fn nearest(self, level: u32) -> u32 {
        level.clamp(*self.levels().start(), *self.levels().end())
    }

    /// The level from which on a higher one costs more than it saves on JSON of some kilobytes (`docs/benchmarks.md`).
    pub fn default_level(self) -> u32 {
        match self {
            Self::Gzip => 3,
            Self::Zstd => 1,
        }
    }
}
