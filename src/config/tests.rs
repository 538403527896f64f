//! Tests that `config.yaml` equals the defaults, and which errors mistakes produce.

use std::path::Path;
use std::time::Duration;

use super::{CONFIG_VARIABLE, Config, DEFAULTS_VARIABLE, MonitorAddress, Policy, Setting, Sources};

/// The shipped file, from which users start.
const SHIPPED: &str = include_str!("../../config.yaml");

#[test]
fn the_shipped_file_is_the_default() {
    let config = Config::from_yaml(SHIPPED).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config, Config::default());
    assert_eq!(config.check(), Ok(()));
}

/// Each line that sets a key in the shipped file, with its path: `(index of the line, "limits.max_clients")`.
fn shipped_keys() -> Vec<(usize, String)> {
    let mut above: Vec<(usize, &str)> = Vec::new();
    let mut keys = Vec::new();
    for (index, line) in SHIPPED.lines().enumerate() {
        let text = line.trim_start();
        let Some((key, value)) = text.split_once(':').filter(|_| !text.starts_with('#')) else {
            continue;
        };
        let indent = line.len() - text.len();
        above.retain(|(outer, _)| *outer < indent);
        above.push((indent, key));
        if !value.trim().is_empty() {
            keys.push((index, above.iter().map(|(_, key)| *key).collect::<Vec<_>>().join(".")));
        }
    }
    keys
}

#[test]
fn the_shipped_file_has_every_key() {
    let mut known = super::fields::keys(&mut Config::default());
    known.retain(|key| !known_sections().iter().any(|section| section == key));
    let typed: Vec<_> = shipped_keys().into_iter().map(|(_, path)| path).collect();
    assert_eq!(typed, known);
}

/// The keys that have others below them.
fn known_sections() -> Vec<String> {
    let keys = super::fields::keys(&mut Config::default());
    let above = |key: &String| Some(key.rsplit_once('.')?.0.to_owned());
    let mut sections: Vec<_> = keys.iter().filter_map(above).collect();
    sections.dedup();
    sections
}

#[test]
fn every_key_is_commented_with_an_example() {
    let lines: Vec<&str> = SHIPPED.lines().collect();
    for (index, path) in shipped_keys() {
        let comment: Vec<&str> = lines[..index]
            .iter()
            .rev()
            .map(|line| line.trim_start())
            .take_while(|line| line.starts_with('#'))
            .collect();
        assert!(!comment.is_empty(), "{path} has no comment");
        let only_value = path == "defaults.compress.codec";
        assert!(only_value || comment.iter().any(|line| line.contains("example:")), "{path} has no example");
    }
}

/// The file says "example: x" for each key. If x were not accepted there, the example would teach a mistake.
#[test]
fn every_example_is_accepted() {
    let lines: Vec<&str> = SHIPPED.lines().collect();
    for (index, path) in shipped_keys() {
        let comment = lines[..index].iter().rev().take_while(|line| line.trim_start().starts_with('#'));
        let Some(example) = comment.filter_map(|line| line.split_once("example: ")).map(|(_, example)| example).next()
        else {
            continue;
        };
        let mut changed: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let (key, _) = lines[index].split_once(':').expect("a line that sets a key");
        changed[index] = format!("{key}: {example}");
        let config = Config::from_yaml(&changed.join("\n")).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_ne!(config, Config::default(), "{path}: the example is the default");
    }
}

#[test]
fn the_example_rules_are_accepted() {
    let (_, commented) = SHIPPED.split_once("# rules:\n").expect("example rules");
    let rules = commented.lines().map_while(|line| line.strip_prefix('#')).collect::<Vec<_>>().join("\n");
    let config = Config::from_yaml(&format!("rules:\n{rules}")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.rules.len(), 3);
}

/// Every variable in the comments exists, and every existing variable is in the comments.
#[test]
fn the_variables_are_documented() {
    let variables = super::setting::VARIABLES.iter().map(|(name, _)| *name);
    let mut known: Vec<_> = variables.chain([CONFIG_VARIABLE, DEFAULTS_VARIABLE]).map(str::to_owned).collect();
    let mut named: Vec<String> = SHIPPED
        .split(|c: char| !(c.is_ascii_uppercase() || c == '_'))
        .filter(|word| word.contains('_') && word.len() > 4)
        .map(str::to_owned)
        .collect();
    known.sort();
    named.sort();
    named.dedup();
    assert_eq!(named, known);
}

#[test]
fn an_empty_file_is_the_default() {
    for text in ["", "\n", "# nothing\n", "---\n", "---\n# nothing\n", "{}", "l1:\nlimits:\n", "defaults:\n  cache:\n"]
    {
        let config = Config::from_yaml(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(config, Config::default(), "{text:?}");
    }
}

#[test]
fn omitted_keys_keep_their_default() {
    let config = Config::from_yaml("l1: { policy: lru }\ndefaults: { cache: { ttl: 5s } }").expect("good");
    let mut expected = Config::default();
    expected.l1.policy = Policy::Lru;
    expected.defaults.cache.ttl = Duration::from_secs(5);
    assert_eq!(config, expected);
}

#[test]
fn several_spellings_mean_none() {
    for nothing in ["\"\"", "''", "", "~", "null"] {
        let text = format!("nats: {nothing}\nmonitor: {nothing}\nbus:\n  credentials: {nothing}\n");
        let expected = Config { monitor: MonitorAddress::Off, ..Config::default() };
        assert_eq!(Config::from_yaml(&text), Ok(expected), "{text}");
    }
}

#[test]
fn mistakes_name_line_key_and_remedy() {
    // text, the message in full
    let table = [
        (
            "\nl1:\n  max_memory: 256xb\n",
            "line 3: l1.max_memory: '256xb' is not a size; type a number with kb, mb or gb, for example 256mb",
        ),
        (
            "max_staleness: 60",
            "line 1: max_staleness: '60' is not a time; type a unit as well: 60s, or another of ms, s, m, h",
        ),
        (
            "# c\ndefaults:\n  compress: { level: 3,\n    min_saving: 10 }",
            "line 4: defaults.compress.min_saving: '10' is not a percentage; type a number from 0% to 100% with its sign, for example 10%",
        ),
        (
            "rules:\n- match: a\n- match: b\n  cache: { ttl: 2 }",
            "line 4: rules[1].cache.ttl: '2' is not a time; type a unit as well: 2s, or another of ms, s, m, h",
        ),
        (
            "rules:\n- match: b\n  cache: maybe",
            "line 3: rules[0].cache: 'maybe' is not a switch or a time; type true, false, a time (5m),",
        ),
        ("rules:\n- match: b\n  watch: 2", "line 3: rules[0].watch: '2' is not a switch; type true or false"),
        ("workers: -1", "line 1: workers: '-1' is not a whole number; type digits only, for example 1000"),
        ("l1:\n  policy: lfu", "line 2: l1.policy: 'lfu' is not an eviction policy; type tinylfu or lru"),
        ("coherence: always", "line 1: coherence: 'always' is not a coherence mode; type auto, nats or off"),
        ("log: { format: xml }", "line 1: log.format: 'xml' is not a log format; type text or json"),
        (
            "defaults: { compress: { codec: lz4 } }",
            "line 1: defaults.compress.codec: 'lz4' is not a codec; type gzip or zstd",
        ),
        (
            "defaults:\n  cache:\n    reads: [get, ttl]",
            "line 3: defaults.cache.reads[1]: 'ttl' is not a command whose reply L1 can keep; type all, or a list of: get, mget,",
        ),
        (
            "rules:\n- match: a\n  cache: { reads: [HGETS] }",
            "line 3: rules[0].cache.reads[0]: 'HGETS' is not a command whose reply L1 can keep (did you mean hget?); type all",
        ),
        (
            "defaults: { cache: { reads: hset } }",
            "line 1: defaults.cache.reads: 'hset' is not a command whose reply L1 can keep (did you mean hget?); type all,",
        ),
        (
            "defaults: { cache: { reads: } }\nrules: [{ match: a, cache: { reads: { get: 1 } } }]",
            "line 2: rules[0].cache.reads: this does not fit here; type all, or a list of commands,",
        ),
        (
            "rules:\n- match: a\n  cache: { reads: [] }",
            "line 3: rules[0].cache.reads: an empty list keeps nothing; type cache: false, or [get, mget]",
        ),
        (
            "defaults:\n  cache:\n    reads: [mget, hgetall]",
            "line 3: defaults.cache.reads: mget needs get; type get as well: [get, mget]",
        ),
        // Shape.
        (
            "\n\nmax_memory: 1mb",
            "line 3: there is no key 'max_memory' here (did you mean l1.max_memory?); type one of listen, tls,",
        ),
        ("log:\n  level: info\n  colour: red", "line 3: log: there is no key 'colour' here; type one of level, format"),
        (
            "rules:\n- match: a\n  cach: false",
            "line 3: rules[0]: there is no key 'cach' here (did you mean cache?); type one of match, cache, watch, announce_values, compress",
        ),
        (
            "rules:\n- match: a\n  cache: { tll: 1s }",
            "line 3: rules[0].cache: there is no key 'tll' here; type one of ttl,",
        ),
        (
            "rules:\n- match: a\n- cache: false",
            "line 3: rules[1]: the key 'match' is missing; type match: and its value",
        ),
        ("listen: 127.0.0.1:1\nlisten: 127.0.0.1:2", "line 2: the key 'listen' is there twice; type it once"),
        (
            "l1:\n  policy: lru\n  enabled: true\n  policy: lru",
            "line 4: l1: the key 'policy' is there twice; type it once",
        ),
        ("l1: 5", "line 1: l1: this does not fit here; type `key: value` lines below it"),
        ("rules: 5", "line 1: rules: this does not fit here; type a list: `- match:"),
        ("l1:\n  enabled: [true]", "line 2: l1.enabled: this does not fit here; type a single value"),
        ("listen", "line 1: this does not fit here; type `key: value` lines, a space after the colon"),
        ("a: b: c", "line 1: this is not YAML"),
        ("l1:\n\tenabled: true", "line 2: this is not YAML"),
        // Meaning.
        ("\ncoherence: tracking", "line 2: coherence: this version has no tracking feed; type auto or nats"),
        ("coherence: both", "line 1: coherence: this version has no tracking feed; type auto or nats"),
        ("\nmax_staleness: 0s", "line 2: max_staleness: 0 is too small; type 1ms or more"),
        (
            "max_staleness: 10s\ndegraded_staleness: 1m",
            "line 2: degraded_staleness: 1m is longer than max_staleness; type 10s or less",
        ),
        ("\nmax_staleness: 500ms", "line 2: degraded_staleness: 1s is longer than max_staleness; type 500ms or less"),
        (
            "timeouts: { backoff_min: 5s,\n  backoff_max: 1s }",
            "line 2: timeouts.backoff_max: 1s is shorter than backoff_min; type 5s or more",
        ),
        (
            "timeouts:\n  backoff_min: 5s",
            "line 2: timeouts.backoff_max: 2s is shorter than backoff_min; type 5s or more",
        ),
        ("timeouts:\n  reply: 500ms", "line 2: timeouts.reply: 500ms is too small; type 1s or more"),
        (
            "fleet: a.b",
            "line 1: fleet: 'a.b' is not a name that can be part of a NATS subject; type 1 to 64 \
            letters,",
        ),
        ("fleet: ''", "line 1: fleet: '' is not a name"),
        ("log: { level: verbose }", "line 1: log.level: 'verbose' is not a log level; type off, error,"),
        ("log: { level: 'info,shortstop=loud' }", "line 1: log.level: 'info,shortstop=loud' is not a log level"),
        (
            "bus:\n  json_subject: cache.*",
            "line 2: bus.json_subject: 'cache.*' is not a NATS subject without wildcards; type words",
        ),
        ("bus:\n  json_subject: shortstop.v1.x", "line 2: bus.json_subject: subjects that begin with shortstop. are"),
        ("l1:\n  max_entries: 0", "line 2: l1.max_entries: 0 is too small; type 1 or more"),
        ("l1:\n  max_memory: 1", "line 2: l1.max_memory: 1 is too small; type 1kb or more"),
        ("limits:\n  max_bulk_length: 4gb", "line 2: limits.max_bulk_length: 4gb is too large; type 2gb or less"),
        ("limits:\n  buffers_total: 1023kb", "line 2: limits.buffers_total: 1023kb is too small; type 1mb or more"),
        ("limits:\n  buffers_total: 0%", "line 2: limits.buffers_total: 0% is too small; type 1% or more"),
        ("limits:\n  buffers_total: 101%", "line 2: limits.buffers_total: '101%' is not a percentage; type"),
        ("limits:\n  buffers_total: much", "line 2: limits.buffers_total: 'much' is not an amount of memory; type"),
        ("limits:\n  stall_timeout: 0", "line 2: limits.stall_timeout: 0 is too small; type 1ms or more"),
        ("workers: 5000", "line 1: workers: 5000 is too large; type 1024 or less"),
        ("defaults:\n  cache:\n    ttl: 0s", "line 3: defaults.cache.ttl: 0 is too small; type 1ms or more"),
        (
            "rules:\n- match: a\n- match: b\n  cache:\n    admit_after: 0",
            "line 5: rules[1].cache.admit_after: 0 is too small; type 1 or more",
        ),
        (
            "rules:\n- match: a\n  compress: { level: 10 }",
            "line 3: rules[0].compress.level: gzip has no level 10; type a number from 1 (fast) to 9 (small)",
        ),
        (
            "defaults: { compress: zstd }\nrules:\n- match: a\n  compress: { level: 20 }",
            "line 4: rules[0].compress.level: zstd has no level 20; type a number from 1 (fast) to 19 (small)",
        ),
        (
            "defaults:\n  compress: { level: 0, codec: zstd }",
            "line 2: defaults.compress.level: zstd has no level 0; type a number from 1",
        ),
        (
            "rules:\n- match: a\n  compress: { min_saving: 100% }",
            "line 3: rules[0].compress.min_saving: no value can be",
        ),
        ("rules:\n- match: ''", "line 2: rules[0].match: an empty pattern matches only the empty key; type \"*\""),
    ];
    for (text, expected) in table {
        let message = Config::from_yaml(text).expect_err(text).to_string();
        assert!(message.starts_with(expected), "{text:?}\n  {message}\n  {expected}");
        assert!(!message.contains('\n'), "one mistake is told once: {message}");
        assert!(message.contains("; type "), "{message}");
    }
}

#[test]
fn secrets_reach_neither_debug_nor_errors() {
    let config = Config::from_yaml("upstream: redis://ann:hunter2@h\nnats: nats://ann:hunter2@h").expect("good");
    let shown = format!("{config:?} {config:#?}");
    assert!(!shown.contains("hunter2") && shown.contains("***"), "{shown}");

    let bad = [
        "upstream redis://:hunter2@h",
        "upstream:redis://:hunter2@h",
        "upstream: redis://hunter2@h",
        "upstream: [redis://:hunter2@h]",
        "upstream: {redis://:hunter2@h: 1}",
        "upstream: redis://:hunter2@h: 1",
        "upstream: \"redis://:hunter2@h",
        "nats: http://:hunter2@h",
        "l1: redis://:hunter2@h",
        "rules: redis://:hunter2@h",
        "redis://:hunter2@h: upstream",
        "? redis://:hunter2@h",
    ];
    for text in bad {
        let error = Config::from_yaml(text).expect_err(text);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}: {error}");
    }
}

/// The errors, one per line.
fn refused(sources: Sources) -> Vec<String> {
    let error = sources.done(|_| Vec::new()).expect_err("it is not sound");
    error.findings().iter().map(ToString::to_string).collect()
}

#[track_caller]
fn assert_reported(told: &[String], expected: &[&str]) {
    let is_right = told.len() == expected.len() && told.iter().zip(expected).all(|(told, text)| told.starts_with(text));
    assert!(is_right, "{told:#?} is not {expected:#?}");
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("config.yaml");
    let text = "\
listen: nowhere
listen: 127.0.0.1:1
max_stalenes: 5s
coherence: nats
l1:
  policy: tiny
  max_memory: 1
timeouts: { backoff_min: 5s, backoff_max: soon }
workers: 5
rules:
- match: a
  cache: { ttl: 5 }
- cache: { reads: [get, ttl, type, hgett] }
";
    std::fs::write(&path, text).expect("a config file");
    let mut sources = Sources::default();
    sources.add_file(&path);
    sources.add_env(|name| match name {
        "CACHE_TTL" => Some("soon".to_owned()),
        "CACHE_MAX_SIZE" => Some("0".to_owned()),
        _ => None,
    });
    sources.set(Setting::Workers, "5000", "--workers");
    sources.set(Setting::Log, "wran", "--log");
    let file = path.display();
    let told = refused(sources);
    let expected = [
        "line 1: listen: 'nowhere' is not an address",
        "line 2: the key 'listen' is there twice",
        "line 3: there is no key 'max_stalenes' here (did you mean max_staleness?)",
        "line 4: coherence: this needs NATS",
        "line 6: l1.policy: 'tiny' is not an eviction policy (did you mean tinylfu?)",
        "line 7: l1.max_memory: 1 is too small",
        // Its value could not be read, so it is not compared with backoff_min.
        "line 8: timeouts.backoff_max: 'soon' is not a time",
        "line 12: rules[0].cache.ttl: '5' is not a time; type a unit as well: 5s",
        "line 13: rules[1].cache.reads[1]: 'ttl' is not a command",
        "line 13: rules[1].cache.reads[3]: 'hgett' is not a command whose reply L1 can keep (did you mean hget?)",
        "line 13: rules[1]: the key 'match' is missing",
    ];
    let in_file: Vec<_> = expected.iter().map(|text| format!("{file}: {text}")).collect();
    let elsewhere = [
        "CACHE_TTL: 'soon' is not a time",
        "--log: 'wran' is not a log level (did you mean warn?)",
        "--workers: 5000 is too large; type 1024 or less",
        "CACHE_MAX_SIZE: 0 is too small",
    ];
    // Findings without a line come last, in no particular order.
    let mut told = told;
    told[expected.len()..].sort();
    let mut elsewhere = elsewhere.map(str::to_owned);
    elsewhere.sort();
    let expected: Vec<_> = in_file.iter().chain(&elsewhere).map(String::as_str).collect();
    assert_reported(&told, &expected);
}

#[test]
fn the_usual_spellings_are_accepted() {
    let typed = "\
upstream: valkey://h
nats: NATS://h
coherence: Auto
l1: { max_memory: 256 MB, max_entries: 1_000, policy: LRU }
max_staleness: 1.5m
degraded_staleness: 500 ms
scripts: Declared
defaults: { cache: 5m, compress: gzip }
rules:
- { match: a, cache: { reads: [GET, HGet] } }
- { match: b, cache: { reads: ALL } }
- { match: c, cache: OFF, compress: No }
";
    let meant = "\
upstream: redis://h:6379/0
nats: nats://h
coherence: auto
l1: { max_memory: 256mb, max_entries: 1000, policy: lru }
max_staleness: 90s
degraded_staleness: 500ms
scripts: declared
defaults: { cache: { ttl: 5m }, compress: { codec: gzip } }
rules:
- { match: a, cache: { reads: [get, hget] } }
- { match: b, cache: { reads: all } }
- { match: c, cache: false, compress: false }
";
    assert_eq!(Config::from_yaml(typed), Config::from_yaml(meant));
    assert!(Config::from_yaml(meant).is_ok());
}

#[test]
fn the_whole_is_checked_when_all_sources_are_in() {
    Config::from_yaml("coherence: nats").expect("a server may still come from the environment");
    let sources = || {
        let mut sources = Sources::default();
        sources.add_yaml("coherence: nats\nworkers: 5000");
        sources
    };
    assert_reported(&refused(sources()), &["line 1: coherence: this needs NATS", "line 2: workers: 5000 is too large"]);
    let mut both = sources();
    both.set(Setting::Nats, "nats://nats:4222", "--nats");
    both.set(Setting::Workers, "5", "--workers");
    assert!(both.done(|_| Vec::new()).is_ok(), "the flags beat the file");
}

#[test]
fn a_file_is_named_in_its_errors() {
    let mut sources = Sources::default();
    sources.add_file(Path::new("no/such/file.yaml"));
    assert_reported(&refused(sources), &["no/such/file.yaml: cannot be read ("]);
}

#[test]
fn a_file_of_another_program_is_ignored() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("config.yaml");
    let beside = |text: &str| {
        std::fs::write(&path, text).expect("a config file");
        let mut sources = Sources::default();
        let is_ours = sources.add_file_beside(&path);
        (is_ours, sources.done(|_| Vec::new()))
    };
    let (is_ours, loaded) = beside("server: { port: 80 }\ndatabase: x\n");
    let loaded = loaded.expect("it is ignored");
    assert!(!is_ours && loaded.config == Config::default());
    assert!(loaded.warnings[0].to_string().contains("config.yaml: none of its keys is known"), "{:?}", loaded.warnings);
    for (text, error) in [
        ("server: { port: 80 }\nlisten: 127.0.0.1:1\n", "there is no key 'server' here"),
        ("upstream redis://:hunter2@h", "this does not fit here"),
        ("a: b: c", "this is not YAML"),
    ] {
        let (is_ours, loaded) = beside(text);
        let told = loaded.expect_err(text).to_string();
        assert!(told.contains(error) && !told.contains("hunter2") && (is_ours || text == "a: b: c"), "{text}: {told}");
    }
    for text in ["", "# nothing\n", "workers: 3"] {
        let (is_ours, loaded) = beside(text);
        assert!(is_ours && loaded.is_ok_and(|loaded| loaded.warnings.is_empty()), "{text}");
    }
}

#[test]
fn the_printed_configuration_can_be_loaded_again() {
    let full = "\
upstream: redis://ann:***@h:1/2
nats: nats://***@h:1,tls://i
fleet: blue-1
monitor: '[::1]:8083'
log: { level: 'info,shortstop::bus=debug', format: json }
bus: { credentials: '/a b/c.creds' }
limits: { buffers_total: 1gb }
scripts: ['bull:*', '']
defaults: { cache: { reads: all, negative_ttl: 1ms }, watch: no }
rules:
- match: \"a: # 'x'\"
- { match: b, cache: 5m, watch: yes }
- { match: c, cache: false, compress: { level: 9 } }
- { match: d, cache: true, compress: true }
";
    let full = full.replace(", ''", "");
    for text in ["", SHIPPED, &full, "defaults: { cache: false, compress: false }"] {
        let config = Config::from_yaml(text).unwrap_or_else(|error| panic!("{error}"));
        let printed = config.to_yaml();
        assert_eq!(
            Config::from_yaml(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}")),
            config,
            "{printed}"
        );
    }
}

#[test]
fn the_printed_configuration_names_origins_and_no_password() {
    let mut sources = Sources::default();
    sources.add_yaml("upstream: redis://ann:hunter2@h\nl1:\n  max_entries: 5");
    sources.set(Setting::Nats, "nats://ann:hunter2@h", "NATS_URL");
    let printed = sources.done(|_| Vec::new()).expect("sound").to_yaml();
    for line in [
        "upstream: redis://ann:***@h:6379/0  # line 1",
        "  max_entries: 5  # line 3",
        "nats: nats://***@h  # NATS_URL",
        "workers: 0\n",
    ] {
        assert!(printed.contains(line), "{line}\n{printed}");
    }
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(Config::from_yaml(&printed).is_ok());
}
