//! What happens to a key: `defaults`, and a rule's changes to them. Data and the merge only; matching keys is `rules`.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::reads::Reads;

use super::sections::words;
use super::units::{self, Wrong};
use super::yaml;

/// What happens to the keys that a rule matches: `defaults` of the file, and each rule after the merge.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "`key: value` lines below it")]
pub struct RuleBody {
    /// Keep values in L1.
    pub cache: CacheBody,
    /// Tell the fleet about writes.
    #[serde(deserialize_with = "yaml::switch")]
    pub watch: bool,
    /// Compress values on their way to Redis.
    pub compress: CompressBody,
}

impl Default for RuleBody {
    fn default() -> Self {
        Self { cache: CacheBody::default(), watch: true, compress: CompressBody::default() }
    }
}

/// How values are kept in L1. The numbers stay when it is off: a rule that switches it on again takes them up.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Switch<CachePatch>")]
pub struct CacheBody {
    /// False: keep nothing. Typed as `cache: false`.
    pub on: bool,
    /// Longest time to keep a value; `max_staleness` bounds it further.
    pub ttl: Duration,
    /// Bytes of the largest value to keep.
    pub max_value: usize,
    /// The request for a key, counted from 1, with which its value is kept.
    pub admit_after: u32,
    /// How long to remember that a key is absent; zero: not at all.
    pub negative_ttl: Duration,
    /// Commands whose replies are kept. Not empty, and MGET not without GET.
    pub reads: Reads,
}

impl Default for CacheBody {
    fn default() -> Self {
        Self {
            on: true,
            ttl: Duration::from_secs(3600),
            max_value: 1 << 20,
            admit_after: 2,
            negative_ttl: Duration::ZERO,
            reads: Reads::default(),
        }
    }
}

/// How values are compressed. The numbers stay when it is off, as with [`CacheBody`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Switch<CompressPatch>")]
pub struct CompressBody {
    /// False: store values as they come. Typed as `compress: false`.
    pub on: bool,
    /// The format.
    pub codec: Codec,
    /// 1 (fast) to 9 (small).
    pub level: u32,
    /// Bytes of the smallest value to try.
    pub min_size: usize,
    /// Percent of a value's length that compressing has to save; else the value is stored as it came.
    pub min_saving: u8,
}

impl Default for CompressBody {
    fn default() -> Self {
        Self { on: true, codec: Codec::Gzip, level: 3, min_size: 1 << 10, min_saving: 10 }
    }
}

/// The format of a compressed value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// RFC 1952.
    #[default]
    Gzip,
}
words!(Codec, "a codec", "gzip", "gzip" => Gzip);

/// One entry of `rules`: a pattern and what it changes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "`match: \"pattern\"` and what the rule changes")]
pub struct RuleSpec {
    /// A Redis glob pattern.
    #[serde(rename = "match", deserialize_with = "yaml::text")]
    pub pattern: String,
    /// Changes to `defaults.cache`.
    #[serde(default)]
    pub cache: Option<Switch<CachePatch>>,
    /// In place of `defaults.watch`.
    #[serde(default, deserialize_with = "yaml::some::switch")]
    pub watch: Option<bool>,
    /// Changes to `defaults.compress`.
    #[serde(default)]
    pub compress: Option<Switch<CompressPatch>>,
}

impl RuleSpec {
    /// The rule in full: its own fields, and those of `defaults` where it has none.
    pub fn body(&self, defaults: &RuleBody) -> RuleBody {
        RuleBody {
            cache: self.cache.as_ref().map_or_else(|| defaults.cache.clone(), |switch| switch.cache(&defaults.cache)),
            watch: self.watch.unwrap_or(defaults.watch),
            compress: match &self.compress {
                Some(switch) => switch.compress(&defaults.compress),
                None => defaults.compress.clone(),
            },
        }
    }
}

/// `false`, or what is to be changed; `true` changes nothing but switches on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Switch<P> {
    /// Typed as `false`.
    Off,
    /// Typed as a mapping, or `true`.
    On(P),
}

/// What a rule says about L1; `None`: as in the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields of CacheBody")]
pub struct CachePatch {
    #[serde(deserialize_with = "yaml::some::time")]
    pub ttl: Option<Duration>,
    #[serde(deserialize_with = "yaml::some::size")]
    pub max_value: Option<usize>,
    #[serde(deserialize_with = "yaml::some::number")]
    pub admit_after: Option<u32>,
    #[serde(deserialize_with = "yaml::some::time")]
    pub negative_ttl: Option<Duration>,
    pub reads: Option<Reads>,
}

/// What a rule says about compressing; `None`: as in the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields of CompressBody")]
pub struct CompressPatch {
    #[serde(deserialize_with = "yaml::some::parsed")]
    pub codec: Option<Codec>,
    #[serde(deserialize_with = "yaml::some::number")]
    pub level: Option<u32>,
    #[serde(deserialize_with = "yaml::some::size")]
    pub min_size: Option<usize>,
    #[serde(deserialize_with = "yaml::some::percent")]
    pub min_saving: Option<u8>,
}

impl Switch<CachePatch> {
    fn cache(&self, base: &CacheBody) -> CacheBody {
        match self {
            Self::Off => CacheBody { on: false, ..base.clone() },
            Self::On(patch) => CacheBody {
                on: true,
                ttl: patch.ttl.unwrap_or(base.ttl),
                max_value: patch.max_value.unwrap_or(base.max_value),
                admit_after: patch.admit_after.unwrap_or(base.admit_after),
                negative_ttl: patch.negative_ttl.unwrap_or(base.negative_ttl),
                reads: patch.reads.unwrap_or(base.reads),
            },
        }
    }
}

impl Switch<CompressPatch> {
    fn compress(&self, base: &CompressBody) -> CompressBody {
        match self {
            Self::Off => CompressBody { on: false, ..base.clone() },
            Self::On(patch) => CompressBody {
                on: true,
                codec: patch.codec.unwrap_or(base.codec),
                level: patch.level.unwrap_or(base.level),
                min_size: patch.min_size.unwrap_or(base.min_size),
                min_saving: patch.min_saving.unwrap_or(base.min_saving),
            },
        }
    }
}

impl From<Switch<CachePatch>> for CacheBody {
    fn from(switch: Switch<CachePatch>) -> Self {
        switch.cache(&Self::default())
    }
}

impl From<Switch<CompressPatch>> for CompressBody {
    fn from(switch: Switch<CompressPatch>) -> Self {
        switch.compress(&Self::default())
    }
}

impl<'de, P: Deserialize<'de> + Default> Deserialize<'de> for Switch<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SwitchVisitor(PhantomData))
    }
}

struct SwitchVisitor<P>(PhantomData<P>);

impl<'de, P: Deserialize<'de> + Default> Visitor<'de> for SwitchVisitor<P> {
    type Value = Switch<P>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("false, true, or `key: value` lines below it")
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<Self::Value, E> {
        Ok(if on { Switch::On(P::default()) } else { Switch::Off })
    }

    /// Words that YAML 1.2 does not take for booleans, people do.
    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        units::switch(text).map_err(E::custom).and_then(|on| self.visit_bool(on))
    }

    /// The key with nothing below it, or with all lines below it commented out.
    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        self.visit_bool(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        P::deserialize(MapAccessDeserializer::new(map)).map(Switch::On)
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml;
    use super::{CacheBody, CompressBody, Duration, RuleBody, RuleSpec};

    fn spec(text: &str) -> RuleSpec {
        yaml::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_rule_takes_what_it_leaves_out_from_the_defaults() {
        let defaults = RuleBody {
            cache: CacheBody { ttl: Duration::from_secs(7), admit_after: 5, ..CacheBody::default() },
            watch: false,
            compress: CompressBody { level: 9, ..CompressBody::default() },
        };
        assert_eq!(spec("match: a").body(&defaults), defaults);
        assert_eq!(
            spec("{match: a, cache: , watch: true, compress: true}").body(&defaults),
            RuleBody { watch: true, ..defaults.clone() }
        );

        let body = spec("{match: a, cache: {ttl: 2s}, compress: false}").body(&defaults);
        assert_eq!(body.cache, CacheBody { ttl: Duration::from_secs(2), ..defaults.cache.clone() });
        assert!(!body.watch);
        assert_eq!(body.compress, CompressBody { on: false, ..defaults.compress.clone() });
    }

    #[test]
    fn a_rule_switches_on_what_the_defaults_switch_off() {
        let defaults: RuleBody = yaml::parse("{cache: off, compress: no}").expect("a body");
        assert_eq!((defaults.cache.on, defaults.compress.on), (false, false));
        let on = spec("{match: a, cache: {ttl: 2s}, compress: {}}").body(&defaults);
        assert_eq!(on.cache, CacheBody { ttl: Duration::from_secs(2), ..CacheBody::default() });
        assert_eq!(on.compress, CompressBody::default());
        assert!(!spec("match: a").body(&defaults).cache.on);
    }
}
