//! What happens to a key: the first rule of `config.yaml` whose pattern matches, otherwise the defaults.
//!
//! Compiled once per configuration, and shared read-only. Looked up when an entry is made or a value is written, never on a hit.

use std::time::Duration;

use crate::codec::Codec;
use crate::config::{Coherence, Compression, Config, RuleBody, Scripts};
use crate::glob::Glob;
use crate::metrics::rules::{OWN, Patterns, RulePlace};
use crate::reads::Reads;

/// The compiled rules of one configuration.
#[derive(Clone, Debug)]
pub struct Rules {
    /// In the file's order.
    ordered: Vec<(Glob, Both)>,
    /// For keys that match no rule.
    otherwise: Both,
    /// Keys that scripts may write without declaring them (`scripts` in the configuration). They are never kept in L1.
    of_scripts: Box<[Glob]>,
    /// Of the rules that are counted each for itself.
    patterns: Patterns,
}

/// A rule as configured, and the same rule without caching, for keys that scripts may write without declaring them.
#[derive(Clone, Debug)]
struct Both {
    rule: Rule,
    never_kept: Rule,
}

impl Both {
    fn new(rule: Rule) -> Self {
        let observe = rule.observe.map(|observe| Observe { cache: None, ..observe });
        Both { never_kept: Rule { cache: None, observe, ..rule.clone() }, rule }
    }
}

/// What happens to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// How to keep its value in L1. `None`: it is not kept.
    pub cache: Option<CacheRule>,
    /// Publish writes to the fleet.
    pub watch: bool,
    /// Publish written values to services.
    pub announce_values: bool,
    /// How to compress its value. `None`: it is not compressed.
    pub compress: Option<CompressRule>,
    /// What it would do if it did not only observe: then nothing is kept or compressed. `None`: it does what it says.
    pub observe: Option<Observe>,
    /// Where its requests are counted.
    pub place: RulePlace,
}

/// What a rule would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observe {
    /// As in a [`Rule`].
    pub cache: Option<CacheRule>,
    /// As in a [`Rule`].
    pub compress: Option<CompressRule>,
}

impl Rule {
    /// How the replies to a read would be kept. `None`: they would not, or they are.
    pub fn would_keep(&self, read: Reads) -> Option<&CacheRule> {
        self.observe.as_ref()?.cache.as_ref().filter(|rule| rule.reads.contains(read))
    }

    /// How values would be compressed. `None`: they would not, or they are.
    pub fn would_compress(&self) -> Option<&CompressRule> {
        self.observe.as_ref()?.compress.as_ref()
    }

    /// How to keep the replies to a read. `None`: they are not kept.
    pub fn keeps(&self, read: Reads) -> Option<&CacheRule> {
        self.cache.as_ref().filter(|rule| rule.reads.contains(read))
    }
}

/// How to keep a value in L1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheRule {
    /// Maximum time to keep it. PTTL and `max_staleness` bound it further (`docs/coherence.md`).
    pub ttl: Duration,
    /// Maximum size of a value to keep.
    pub max_value: usize,
    /// Keep a value at this request for its key, counted from 1.
    pub admit_after: u32,
    /// How long to remember that the key does not exist. Zero: not at all.
    pub negative_ttl: Duration,
    /// Commands whose replies are kept.
    pub reads: Reads,
    /// As in the [`Rule`].
    pub place: RulePlace,
}

/// How to compress a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressRule {
    /// The format.
    pub codec: Codec,
    /// One of its levels.
    pub level: u32,
    /// Minimum size of a value to try.
    pub min_size: usize,
    /// Percentage of its size that a value must save.
    pub min_saving: u8,
}

impl Rules {
    /// Cannot fail, provided that [`Config::check`] passed.
    pub fn compile(config: &Config) -> Self {
        let caching = config.l1.enabled && config.coherence != Coherence::Off;
        let rule = |body: &RuleBody, place| {
            let cache = (caching && body.cache.on).then_some(CacheRule {
                ttl: body.cache.ttl,
                max_value: body.cache.max_value,
                admit_after: body.cache.admit_after,
                negative_ttl: body.cache.negative_ttl,
                reads: body.cache.reads,
                place,
            });
            let compresses = config.compression == Compression::On && body.compress.on;
            let compress = compresses.then_some(CompressRule {
                codec: body.compress.codec,
                level: body.compress.level,
                min_size: body.compress.min_size,
                min_saving: body.compress.min_saving,
            });
            let observes = config.observe || body.observe;
            Rule {
                cache: cache.filter(|_| !observes),
                watch: body.watch,
                announce_values: body.announce_values,
                compress: compress.filter(|_| !observes),
                observe: observes.then_some(Observe { cache, compress }),
                place,
            }
        };
        let ordered = config.rules.iter().enumerate().map(|(index, spec)| {
            let rule = rule(&spec.body(&config.defaults), RulePlace::of(index));
            (Glob::new(spec.pattern.as_bytes()), Both::new(rule))
        });
        let of_scripts = match &config.scripts {
            Scripts::Matching(patterns) => patterns.iter().map(|pattern| Glob::new(pattern.as_bytes())).collect(),
            Scripts::Any | Scripts::Declared => Box::default(),
        };
        Self {
            ordered: ordered.collect(),
            otherwise: Both::new(rule(&config.defaults, RulePlace::DEFAULTS)),
            of_scripts,
            patterns: config.rules.iter().take(OWN).map(|spec| Box::from(spec.pattern.as_str())).collect(),
        }
    }

    /// The rule for `key`.
    pub fn of(&self, key: &[u8]) -> &Rule {
        let found = self.ordered.iter().find(|(glob, _)| glob.matches(key));
        let both = found.map_or(&self.otherwise, |(_, both)| both);
        if self.is_of_scripts(key) { &both.never_kept } else { &both.rule }
    }

    /// The index of the rule for `key` in the configuration. `None` if it is the defaults.
    pub fn index_of(&self, key: &[u8]) -> Option<usize> {
        self.ordered.iter().position(|(glob, _)| glob.matches(key))
    }

    /// The patterns of the rules that are counted each for itself.
    pub fn patterns(&self) -> &Patterns {
        &self.patterns
    }

    /// Whether scripts may write `key` without declaring it, so that it is never kept.
    pub fn is_of_scripts(&self, key: &[u8]) -> bool {
        self.of_scripts.iter().any(|glob| glob.matches(key))
    }

    /// Size of the smallest value of any key that may be compressed. `None` if no value is compressed.
    pub fn compresses_from(&self) -> Option<usize> {
        self.all().filter_map(|rule| rule.compress.as_ref()).map(|rule| rule.min_size).min()
    }

    /// The same for values that would be compressed.
    pub fn would_compress_from(&self) -> Option<usize> {
        self.all().filter_map(Rule::would_compress).map(|rule| rule.min_size).min()
    }

    /// Commands whose replies would be kept for at least one key.
    pub fn would_keep(&self) -> Reads {
        let caching = self.all().filter_map(|rule| rule.observe?.cache);
        caching.fold(Reads::NONE, |all, rule| all | rule.reads)
    }

    /// Whether any key may be kept in L1.
    pub fn caches_anything(&self) -> bool {
        self.any(|rule| rule.cache.is_some())
    }

    /// Commands whose replies are kept for at least one key.
    pub fn reads(&self) -> Reads {
        self.caching().fold(Reads::NONE, |all, rule| all | rule.reads)
    }

    /// Whether entries of GET may answer an MGET, for every key that is kept at all.
    pub fn mget_everywhere(&self) -> bool {
        self.caching().all(|rule| rule.reads.contains(Reads::MGET))
    }

    /// Whether writes to any key are published to the fleet.
    pub fn watches_anything(&self) -> bool {
        self.any(|rule| rule.watch)
    }

    /// Whether values of any key are published to services.
    pub fn announces_anything(&self) -> bool {
        self.any(|rule| rule.announce_values)
    }

    fn any(&self, asked: impl Fn(&Rule) -> bool) -> bool {
        self.all().any(asked)
    }

    fn caching(&self) -> impl Iterator<Item = CacheRule> {
        self.all().filter_map(|rule| rule.cache)
    }

    /// All rules in their order, and at last the defaults.
    pub fn all(&self) -> impl Iterator<Item = &Rule> {
        self.ordered.iter().map(|(_, both)| &both.rule).chain([&self.otherwise.rule])
    }
}

#[cfg(test)]
mod tests {
    use super::{CacheRule, Codec, CompressRule, Config, Duration, Reads, Rule, RulePlace, Rules};

    fn rules(yaml: &str) -> Rules {
        let config = Config::from_yaml(yaml).unwrap_or_else(|error| panic!("{error}"));
        Rules::compile(&config)
    }

    #[test]
    fn first_match_wins_and_defaults_are_last() {
        let rules = rules(
            r#"
defaults: { cache: { ttl: 10s }, watch: false }
rules:
  - { match: "session:*", cache: false }
  - { match: "order[a-f]:*", cache: { ttl: 2s }, watch: true }
  - { match: "order*", compress: false }
"#,
        );
        let look = |key: &[u8]| {
            let rule = rules.of(key);
            (rule.cache.map(|cache| cache.ttl.as_secs()), rule.watch, rule.compress.is_some())
        };
        assert_eq!(look(b"session:1"), (None, false, true));
        assert_eq!(look(b"ordera:\xff"), (Some(2), true, true));
        assert_eq!(look(b"orderz:1"), (Some(10), false, false));
        assert_eq!(look(b"sessio"), (Some(10), false, true));
        assert_eq!(look(b""), (Some(10), false, true));
    }

    #[test]
    fn defaults_alone() {
        let rules = rules("");
        let expected = Rule {
            cache: Some(CacheRule {
                ttl: Duration::from_secs(3600),
                max_value: 1 << 20,
                admit_after: 2,
                negative_ttl: Duration::ZERO,
                reads: Reads::GET | Reads::MGET,
                place: RulePlace::DEFAULTS,
            }),
            watch: true,
            announce_values: false,
            compress: Some(CompressRule { codec: Codec::Gzip, level: 3, min_size: 1024, min_saving: 10 }),
            observe: None,
            place: RulePlace::DEFAULTS,
        };
        assert_eq!(rules.of(b"any"), &expected);
    }

    #[test]
    fn a_rule_says_which_replies_are_kept() {
        let rules = rules(
            r#"
defaults: { cache: { reads: [get, hgetall] } }
rules:
  - { match: "a:*", cache: { reads: all } }
  - { match: "b:*", cache: { reads: [get, mget, zrange] } }
  - { match: "c:*", cache: { ttl: 1s } }
  - { match: "d:*", cache: false }
"#,
        );
        let reads = |key: &[u8]| {
            rules.of(key).cache.map(|rule| rule.reads.names().collect::<Vec<_>>().join(" ")).unwrap_or_default()
        };
        assert_eq!(reads(b"a:1").split(' ').count(), 51);
        assert_eq!(reads(b"b:1"), "get mget zrange");
        assert_eq!([reads(b"c:1"), reads(b"else")], ["get hgetall", "get hgetall"]);
        assert_eq!(reads(b"d:1"), "");
        assert_eq!(rules.reads(), Reads::ALL);
        assert!(!rules.mget_everywhere());
    }

    #[test]
    fn keys_that_scripts_may_write_undeclared_are_never_kept() {
        let rules = rules(
            r#"
scripts: ["bull:*", "cache:?"]
rules:
  - { match: "bull:a*", cache: { ttl: 2s }, watch: false, compress: false }
"#,
        );
        let look = |key: &[u8]| {
            let rule = rules.of(key);
            (rule.cache.is_some(), rule.watch, rule.compress.is_some())
        };
        assert_eq!(look(b"bull:a1"), (false, false, false));
        assert_eq!(look(b"bull:b1"), (false, true, true));
        assert_eq!(look(b"cache:1"), (false, true, true));
        assert_eq!(look(b"cache:10"), (true, true, true));
        assert_eq!(look(b"bul"), (true, true, true));
        assert!(rules.caches_anything() && rules.mget_everywhere());
    }

    #[test]
    fn what_is_observed_is_neither_kept_nor_compressed() {
        let yaml = "scripts: ['bull:*']\nrules: [{ match: 'a:*', observe: true, cache: 5s }, { match: 'bull:*', observe: true }]";
        let some = rules(yaml);
        let all = rules(&format!("observe: true\n{yaml}"));
        for (rules, key, observes, would_keep) in [
            (&some, &b"a:1"[..], true, true),
            (&some, b"bull:1", true, false),
            (&some, b"b", false, false),
            (&all, b"b", true, true),
        ] {
            let rule = rules.of(key);
            let is_left = rule.cache.is_none() && rule.compress.is_none();
            assert_eq!((rule.observe.is_some(), is_left && rule.watch), (observes, observes), "{key:?}");
            assert_eq!(rule.would_keep(Reads::GET).is_some(), would_keep, "{key:?}");
            assert_eq!(rule.would_compress().is_some(), observes, "{key:?}");
        }
        assert_eq!(some.of(b"a:1").would_keep(Reads::MGET).map(|rule| rule.ttl), Some(Duration::from_secs(5)));
        assert!(!all.caches_anything() && all.compresses_from().is_none() && all.watches_anything());
        assert_eq!((all.would_keep(), all.would_compress_from()), (Reads::default(), Some(1024)));
        let off = rules("observe: true\nl1: { enabled: false }\ncompression: false");
        assert_eq!((off.would_keep(), off.would_compress_from()), (Reads::NONE, None));
    }

    #[test]
    fn main_switches_overrule_every_rule() {
        // yaml, caches, watches, compresses
        let table = [
            ("{}", true, true, true),
            ("l1: { enabled: false }", false, true, true),
            ("coherence: off", false, true, true),
            ("compression: false", true, true, false),
            ("defaults: { cache: false, watch: false, compress: false }", false, false, false),
            (
                "defaults: { cache: false, watch: false, compress: false }\nrules: [{ match: a, cache: true }]",
                true,
                false,
                false,
            ),
            (
                "defaults: { cache: false, watch: false, compress: false }\nrules: [{ match: a, watch: true }]",
                false,
                true,
                false,
            ),
            ("defaults: { compress: false }\nrules: [{ match: a, compress: { level: 9 } }]", true, true, true),
            ("l1: { enabled: false }\nrules: [{ match: a, cache: { ttl: 1s } }]", false, true, true),
        ];
        for (yaml, caches, watches, seals) in table {
            let rules = rules(yaml);
            assert_eq!(rules.reads(), if caches { Reads::default() } else { Reads::NONE }, "{yaml}");
            assert!(rules.mget_everywhere());
            let found = (rules.caches_anything(), rules.watches_anything(), rules.compresses_from().is_some());
            assert_eq!(found, (caches, watches, seals), "{yaml}");
        }
    }
}
