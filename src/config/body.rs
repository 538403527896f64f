//! What happens to a key: `defaults`, and a rule's changes to them. Data and the merge only; `rules` matches keys.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::codec::Codec;
use crate::reads::Reads;

use super::fields::{Fields, Patch, Section, Switch};
use super::reads::READS;
use super::sections::words;
use super::units::{self, PERCENT, SIZE, SWITCH, TEXT, TIME, Wrong, count, parsed};

/// What happens to the keys that a rule matches: the `defaults` of the file, or a rule after the merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleBody {
    /// Keep values in L1.
    pub cache: CacheBody,
    /// Publish writes to the fleet.
    pub watch: bool,
    /// Publish written values to services.
    pub announce_values: bool,
    /// Compress values on their way to Redis.
    pub compress: CompressBody,
    /// Neither keep nor compress values, and measure what that would do.
    pub observe: bool,
}

impl Default for RuleBody {
    fn default() -> Self {
        Self {
            cache: CacheBody::default(),
            watch: true,
            announce_values: false,
            compress: CompressBody::default(),
            observe: false,
        }
    }
}

/// How values are kept in L1. The numbers are kept while it is off, for a rule that switches it on again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheBody {
    /// False: keep nothing. Typed as `cache: false`.
    pub on: bool,
    /// Longest time to keep a value; `max_staleness` bounds it further.
    pub ttl: Duration,
    /// Bytes of the largest value to keep.
    pub max_value: usize,
    /// Keep a value at this request for its key, counted from 1.
    pub admit_after: u32,
    /// How long to remember that a key does not exist. Zero: not at all.
    pub negative_ttl: Duration,
    /// Commands whose replies are kept. Not empty, and MGET only together with GET.
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

/// How values are compressed. The numbers are kept while it is off, as in [`CacheBody`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressBody {
    /// False: store values as they come. Typed as `compress: false`.
    pub on: bool,
    /// The format.
    pub codec: Codec,
    /// One of the codec's levels, from fast to small.
    pub level: u32,
    /// Size of the smallest value to try.
    pub min_size: usize,
    /// Percentage of its size that a value must save. Otherwise it is stored uncompressed.
    pub min_saving: u8,
}

impl Default for CompressBody {
    fn default() -> Self {
        Self { on: true, codec: Codec::Gzip, level: Codec::Gzip.default_level(), min_size: 1 << 10, min_saving: 10 }
    }
}

words!(Codec, "a codec", "gzip or zstd", "gzip" => Gzip, "zstd" => Zstd);

/// One entry of `rules`: a pattern and what it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSpec {
    /// A Redis glob pattern.
    pub pattern: String,
    /// Changes to `defaults.cache`.
    pub cache: Option<Switch<CachePatch>>,
    /// In place of `defaults.watch`.
    pub watch: Option<bool>,
    /// In place of `defaults.announce_values`.
    pub announce_values: Option<bool>,
    /// Changes to `defaults.compress`.
    pub compress: Option<Switch<CompressPatch>>,
    /// In place of `defaults.observe`.
    pub observe: Option<bool>,
    /// Where it stands in the file.
    pub line: Line,
}

/// A line of a file, if it is known. Two rules that say the same are equal wherever they stand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line(pub Option<usize>);

impl PartialEq for Line {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Line {}

impl RuleSpec {
    /// The rule in full: its own fields, and those of `defaults` where it has none.
    pub fn body(&self, defaults: &RuleBody) -> RuleBody {
        RuleBody {
            cache: self.cache.as_ref().map_or_else(|| defaults.cache.clone(), |switch| switch.cache(&defaults.cache)),
            watch: self.watch.unwrap_or(defaults.watch),
            announce_values: self.announce_values.unwrap_or(defaults.announce_values),
            compress: match &self.compress {
                Some(switch) => switch.compress(&defaults.compress),
                None => defaults.compress.clone(),
            },
            observe: self.observe.unwrap_or(defaults.observe),
        }
    }
}

/// A rule's changes for L1. `None`: as in the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of CacheBody")]
pub struct CachePatch {
    pub ttl: Option<Duration>,
    pub max_value: Option<usize>,
    pub admit_after: Option<u32>,
    pub negative_ttl: Option<Duration>,
    pub reads: Option<Reads>,
}

/// A rule's changes for compression. `None`: as in the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of CompressBody")]
pub struct CompressPatch {
    pub codec: Option<Codec>,
    pub level: Option<u32>,
    pub min_size: Option<usize>,
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

impl CompressPatch {
    /// In the defaults, a level that was there before belongs to the codec that was there before.
    fn forget_level_of(&mut self, before: Option<Codec>) {
        if before.is_some() && before != self.codec {
            self.level = None;
        }
    }
}

impl Switch<CompressPatch> {
    fn compress(&self, base: &CompressBody) -> CompressBody {
        match self {
            Self::Off => CompressBody { on: false, ..base.clone() },
            Self::On(patch) => {
                let codec = patch.codec.unwrap_or(base.codec);
                // A level says nothing for another codec.
                let inherited = if codec == base.codec { base.level } else { codec.default_level() };
                CompressBody {
                    on: true,
                    codec,
                    level: patch.level.unwrap_or(inherited),
                    min_size: patch.min_size.unwrap_or(base.min_size),
                    min_saving: patch.min_saving.unwrap_or(base.min_saving),
                }
            }
        }
    }
}

impl From<&CacheBody> for Switch<CachePatch> {
    fn from(body: &CacheBody) -> Self {
        if !body.on {
            return Self::Off;
        }
        Self::On(CachePatch {
            ttl: Some(body.ttl),
            max_value: Some(body.max_value),
            admit_after: Some(body.admit_after),
            negative_ttl: Some(body.negative_ttl),
            reads: Some(body.reads),
        })
    }
}

impl From<&CompressBody> for Switch<CompressPatch> {
    fn from(body: &CompressBody) -> Self {
        if !body.on {
            return Self::Off;
        }
        Self::On(CompressPatch {
            codec: Some(body.codec),
            level: Some(body.level),
            min_size: Some(body.min_size),
            min_saving: Some(body.min_saving),
        })
    }
}

impl Patch for CachePatch {
    /// `cache: 5m` sets `ttl`.
    fn take_word(&mut self, text: &str) -> Result<(), Wrong> {
        let remedy = "true, false, a time (5m), or `key: value` lines below it";
        let ttl = units::time(text).map_err(|_| Wrong::not(text, "a switch or a time", remedy))?;
        self.ttl = Some(ttl);
        Ok(())
    }
}

impl Patch for CompressPatch {
    /// `compress: zstd` sets `codec`.
    fn take_word(&mut self, text: &str) -> Result<(), Wrong> {
        let remedy = "true, false, gzip, zstd, or `key: value` lines below it";
        let codec = text.parse().map_err(|_| Wrong::not(text, "a switch or a codec", remedy))?;
        let before = self.codec.replace(codec);
        self.forget_level_of(before);
        Ok(())
    }
}

impl Section for RuleBody {
    fn fields(&mut self, fields: &mut impl Fields) {
        let Self { cache, watch, announce_values, compress, observe } = self;
        let mut switch = Some(Switch::from(&*cache));
        fields.switch("cache", &mut switch);
        *cache = switch.map_or_else(|| cache.clone(), |switch| switch.cache(cache));
        fields.value("watch", watch, SWITCH);
        fields.value("announce_values", announce_values, SWITCH);
        let mut switch = Some(Switch::from(&*compress));
        fields.switch("compress", &mut switch);
        *compress = switch.map_or_else(|| compress.clone(), |switch| switch.compress(compress));
        fields.value("observe", observe, SWITCH);
    }
}

impl Section for RuleSpec {
    fn fields(&mut self, fields: &mut impl Fields) {
        let Self { pattern, cache, watch, announce_values, compress, observe, line: _ } = self;
        fields.value("match", pattern, TEXT);
        fields.switch("cache", cache);
        fields.maybe("watch", watch, SWITCH);
        fields.maybe("announce_values", announce_values, SWITCH);
        fields.switch("compress", compress);
        fields.maybe("observe", observe, SWITCH);
    }

    fn stands_on(&mut self, line: usize) {
        self.line = Line(Some(line));
    }
}

impl Section for CachePatch {
    fn fields(&mut self, fields: &mut impl Fields) {
        let Self { ttl, max_value, admit_after, negative_ttl, reads } = self;
        fields.maybe("ttl", ttl, TIME);
        fields.maybe("max_value", max_value, SIZE);
        fields.maybe("admit_after", admit_after, count());
        fields.maybe("negative_ttl", negative_ttl, TIME);
        fields.maybe_words("reads", reads, READS);
    }
}

impl Section for CompressPatch {
    fn fields(&mut self, fields: &mut impl Fields) {
        let before = self.codec;
        fields.maybe("codec", &mut self.codec, parsed());
        self.forget_level_of(before);
        let Self { codec: _, level, min_size, min_saving } = self;
        fields.maybe("level", level, count());
        fields.maybe("min_size", min_size, SIZE);
        fields.maybe("min_saving", min_saving, PERCENT);
    }
}

#[cfg(test)]
mod tests {
    use super::{CacheBody, Codec, CompressBody, Duration, RuleBody, RuleSpec};
    use crate::config::Config;

    fn spec(text: &str) -> RuleSpec {
        let config = Config::from_yaml(&format!("rules: [{text}]")).unwrap_or_else(|error| panic!("{text}: {error}"));
        config.rules.into_iter().next().expect("a rule")
    }

    #[test]
    fn a_rule_takes_what_it_leaves_out_from_the_defaults() {
        let defaults = RuleBody {
            cache: CacheBody { ttl: Duration::from_secs(7), admit_after: 5, ..CacheBody::default() },
            watch: false,
            announce_values: true,
            compress: CompressBody { level: 9, ..CompressBody::default() },
            observe: true,
        };
        assert_eq!(spec("{match: a}").body(&defaults), defaults);
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
        let defaults = Config::from_yaml("defaults: {cache: off, compress: no}").expect("a body").defaults;
        assert_eq!((defaults.cache.on, defaults.compress.on), (false, false));
        let on = spec("{match: a, cache: {ttl: 2s}, compress: {}}").body(&defaults);
        assert_eq!(on.cache, CacheBody { ttl: Duration::from_secs(2), ..CacheBody::default() });
        assert_eq!(on.compress, CompressBody::default());
        assert!(!spec("{match: a}").body(&defaults).cache.on);
    }

    #[test]
    fn a_level_is_inherited_with_its_codec_only() {
        let level = |defaults: &str, rule: &str| {
            let defaults = Config::from_yaml(&format!("defaults: {{compress: {defaults}}}")).expect("a body").defaults;
            spec(&format!("{{match: a, compress: {rule}}}")).body(&defaults).compress.level
        };
        assert_eq!(level("{level: 9}", "{codec: gzip}"), 9);
        assert_eq!(level("{level: 9}", "{codec: zstd}"), 1);
        assert_eq!(level("{level: 19, codec: zstd}", "{min_size: 5}"), 19);
        assert_eq!(level("{level: 19, codec: zstd}", "gzip"), 3);
        assert_eq!(level("{level: 19, codec: zstd}", "{codec: gzip, level: 7}"), 7);
        assert_eq!(level("{codec: zstd}", "true"), 1);
        assert_eq!(level("{codec: zstd, level: 3}", "true"), 3);
    }

    #[test]
    fn one_word_says_enough() {
        let defaults = RuleBody::default();
        let body = spec("{match: a, cache: 5m, compress: gzip}").body(&defaults);
        assert_eq!(body.cache, CacheBody { ttl: Duration::from_secs(300), ..CacheBody::default() });
        assert_eq!(body.compress, CompressBody::default());
        let zstd = CompressBody { codec: Codec::Zstd, level: 1, ..CompressBody::default() };
        assert_eq!(spec("{match: a, compress: zstd}").body(&defaults).compress, zstd);
        let defaults = Config::from_yaml("defaults: { cache: 5m, compress: zstd }").expect("a body").defaults;
        assert_eq!(defaults.compress, zstd);
        assert_eq!(defaults.cache, CacheBody { ttl: Duration::from_secs(300), ..CacheBody::default() });
    }
}
