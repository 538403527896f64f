//! The documentation is true: its commands run, its configurations are accepted, its tables are complete, its links work. No test
//! can say whether it is well written.

mod common;
#[path = "documentation/markdown.rs"]
mod markdown;
#[path = "documentation/shell.rs"]
mod shell;
#[path = "documentation/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use common::{Authority, Issued, PATIENCE, Redis, Shortstop, run};
use markdown::{Document, ROOT, code_of, documents};
use serde_yaml::Value;
use shell::Shell;
use source::{all_sentences, sentences, warnings};

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(out.pop(), "{} leads out of the project", path.display()),
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

#[test]
fn every_link_works() {
    let documents = documents();
    let mut broken = Vec::new();
    for document in &documents {
        for (line, target) in document.links() {
            if target.starts_with("https://") || target.starts_with("http://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').map_or((&*target, None), |(file, anchor)| (file, Some(anchor)));
            let path = match file {
                "" => document.path.clone(),
                _ => plain(&document.path.parent().expect("it is a file").join(file)),
            };
            let is_there = Path::new(ROOT).join(&path).exists();
            let has_anchor = anchor.is_none_or(|anchor| {
                let other = documents.iter().find(|other| other.path == path);
                other.is_some_and(|other| other.anchors().iter().any(|known| known == anchor))
            });
            if !is_there || !has_anchor {
                broken.push(format!("{}:{line}: {target}", document.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Files named in code, such as `src/lib.rs`, exist.
#[test]
fn every_file_that_is_named_exists() {
    let top = ["src", "tests", "docs", "benches", "scripts", "docker", "demo", "fuzz"];
    let mut missing = Vec::new();
    // The changelog names files that no longer exist.
    for document in documents().iter().filter(|document| !document.path.ends_with("CHANGELOG.md")) {
        for (line, code) in document.code() {
            let word = code.split(' ').next().unwrap_or_default();
            let is_path = word.split_once('/').is_some_and(|(first, rest)| top.contains(&first) && !rest.is_empty());
            if is_path && !word.contains(['*', '<', '…']) && !Path::new(ROOT).join(word).exists() {
                missing.push(format!("{}:{line}: {word}", document.path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_shell_block_runs() {
    let mut blocks_run = 0;
    for document in documents() {
        let blocks: Vec<_> = document.blocks().into_iter().filter(|block| block.info == "sh").collect();
        if blocks.is_empty() {
            continue;
        }
        let shell = Shell::start();
        for block in &blocks {
            shell.run(&document.path, block);
        }
        blocks_run += blocks.len();
        if document.path.ends_with("nats.md") {
            let proxy = shell.proxy();
            common::wait_until("the message in nats.md is heard", || proxy.stat("json_received") == 1);
            assert_eq!(proxy.stat("json_bad"), 0, "the message in nats.md is understood");
        }
    }
    assert!(blocks_run > 5, "{blocks_run}");
}

/// Runs `--check-config` on a configuration. The files that the documentation names in /etc/shortstop are there for it.
fn check_config(at: &str, config: &str) {
    let authority = Authority::new();
    let Issued { certificate, key } = authority.issue();
    let files = [("cert", certificate), ("key", key), ("clients", authority.file()), ("ca", authority.file())];
    let config = files.iter().fold(config.to_owned(), |config, (name, file)| {
        config.replace(&format!("/etc/shortstop/{name}.pem"), file.to_str().expect("a text"))
    });
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), config).expect("it is ours");
    let mut start = Command::new(env!("CARGO_BIN_EXE_shortstop"));
    for name in ["REDIS_URL", "NATS_URL", "SHORTSTOP_LISTEN"] {
        start.env_remove(name);
    }
    let output = run(start.arg("--config").arg(file.path()).arg("--check-config"), PATIENCE);
    assert!(output.status.success(), "{at}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_configuration_is_accepted() {
    let mut checked = 0;
    for document in documents() {
        for block in document.blocks().iter().filter(|block| block.info.starts_with("yaml")) {
            let at = format!("{}:{}", document.path.display(), block.line);
            if block.info == "yaml config" {
                check_config(&at, &block.text);
                checked += 1;
                continue;
            }
            for part in serde_yaml::Deserializer::from_str(&block.text) {
                let value: Value =
                    serde::Deserialize::deserialize(part).unwrap_or_else(|error| panic!("{at}: {error}"));
                if let Some(config) = value.get("data").and_then(|data| data.get("config.yaml")) {
                    check_config(&at, config.as_str().expect("a text"));
                    checked += 1;
                }
            }
        }
    }
    assert!(checked >= 3, "{checked}");
}

/// One JSON value in each `json` block, so that services can start from it.
#[test]
fn every_json_block_is_json() {
    for document in documents() {
        for block in document.blocks().iter().filter(|block| block.info == "json") {
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(&block.text);
            assert!(parsed.is_ok(), "{}:{}: {parsed:?}", document.path.display(), block.line);
        }
    }
}

#[test]
fn the_configuration_in_the_readme_has_at_most_fifteen_lines() {
    let blocks = Document::read("README.md").blocks();
    let block = blocks.iter().find(|block| block.info == "yaml config").expect("it is there");
    assert!(block.text.lines().count() <= 15, "{}", block.text);
}

/// The names in the first cells of the tables whose first row begins with `title`, section by section.
fn named(document: &Document, title: &str) -> BTreeSet<(String, String)> {
    let rows = document.rows();
    let rows = rows.iter().filter(|row| row.title == title);
    let pairs: Vec<_> = rows
        .map(|row| {
            let name = code_of(&row.cells[0]).unwrap_or_else(|| panic!("{:?} is no name", row.cells[0]));
            (row.section.clone(), name.to_owned())
        })
        .collect();
    let set: BTreeSet<_> = pairs.iter().cloned().collect();
    assert_eq!(set.len(), pairs.len(), "a name stands there twice: {pairs:?}");
    set
}

#[test]
fn metrics_names_every_field_of_proxy_info_and_no_other() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    let info = String::from_utf8(proxy.client().cmd("PROXY INFO")).expect("text");
    let mut shown = BTreeSet::new();
    let mut section = "";
    for line in info.lines().skip(1) {
        match (line.strip_prefix("# "), line.split_once(':')) {
            (Some(title), _) => section = title,
            (None, Some((field, _))) => {
                shown.insert((section.to_owned(), field.to_owned()));
            }
            (None, None) => {}
        }
    }
    let mut named = named(&Document::read("docs/metrics.md"), "field");
    named.retain(|(section, _)| section != "Watch these first");
    let missing: Vec<_> = shown.difference(&named).collect();
    let gone: Vec<_> = named.difference(&shown).collect();
    assert!(missing.is_empty() && gone.is_empty(), "docs/metrics.md: without {missing:?}; no longer there: {gone:?}");
}

#[test]
fn metrics_advises_on_fields_that_exist() {
    let document = Document::read("docs/metrics.md");
    let named: BTreeSet<_> = named(&document, "field").into_iter().collect();
    let (first, all): (Vec<_>, Vec<_>) = named.into_iter().partition(|(section, _)| section == "Watch these first");
    assert!(!first.is_empty());
    for (_, name) in first {
        assert!(all.iter().any(|(_, other)| *other == name), "{name} is watched and does not exist");
    }
}

/// The keys of a configuration, such as `limits.max_clients`, with their values.
fn leaves(at: &str, value: &Value, out: &mut Vec<(String, Value)>) {
    match value {
        Value::Mapping(map) => {
            for (key, value) in map {
                let key = key.as_str().expect("keys are texts");
                leaves(&if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }, value, out);
            }
        }
        other => out.push((at.to_owned(), other.clone())),
    }
}

#[test]
fn configuration_names_every_key_with_its_default_and_no_other() {
    let shipped: Value = serde_yaml::from_str(include_str!("../config.yaml")).expect("it is YAML");
    let mut keys = Vec::new();
    leaves("", &shipped, &mut keys);
    let document = Document::read("docs/configuration.md");
    let rows = document.rows();
    let rows: Vec<_> = rows.iter().filter(|row| row.title == "key").collect();
    let mut wrong = Vec::new();
    for (key, default) in &keys {
        let found: Vec<_> = rows.iter().filter(|row| code_of(&row.cells[0]) == Some(&**key)).collect();
        let [row] = found[..] else {
            wrong.push(format!("{key} stands in {} places", found.len()));
            continue;
        };
        let text = code_of(&row.cells[1]).unwrap_or_else(|| panic!("{key}: {:?} is no default", row.cells[1]));
        let value: Value = serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{key}: {text}: {error}"));
        if value != *default || row.cells[2].len() < 10 {
            wrong.push(format!("{key} has another default ({default:?}), or no meaning"));
        }
    }
    for row in rows {
        let key = code_of(&row.cells[0]).unwrap_or_else(|| panic!("{:?} is no key", row.cells[0]));
        if !keys.iter().any(|(known, _)| known == key) {
            wrong.push(format!("there is no key {key}"));
        }
    }
    assert!(wrong.is_empty(), "docs/configuration.md: {}", wrong.join("\n"));
}

#[test]
fn configuration_names_every_flag_and_variable_and_no_other() {
    let mut start = Command::new(env!("CARGO_BIN_EXE_shortstop"));
    let help = run(start.arg("--help"), PATIENCE);
    let help = String::from_utf8(help.stdout).expect("text");
    let flags: BTreeSet<_> = help
        .lines()
        .filter_map(|line| line.trim_start().split(' ').find(|word| word.starts_with("--")))
        .map(str::to_owned)
        .collect();
    let variables: BTreeSet<_> = include_str!("../config.yaml")
        .split(|one: char| !(one.is_ascii_uppercase() || one == '_'))
        .filter(|word| word.contains('_') && word.len() > 4)
        .map(str::to_owned)
        .collect();
    let document = Document::read("docs/configuration.md");
    let rows = document.rows();
    let rows: Vec<_> = rows.iter().filter(|row| row.title == "flag").collect();
    assert!(!rows.is_empty());
    let of = |cell: usize| -> BTreeSet<String> {
        let cells = rows.iter().map(|row| row.cells[cell].as_str());
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
    };
    let bare = |flags: BTreeSet<String>| -> BTreeSet<String> {
        flags.iter().map(|flag| flag.split([' ', '=', '[']).next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(bare(of(0)), bare(flags), "flags in docs/configuration.md, and those of --help");
    assert_eq!(of(1), variables, "variables in docs/configuration.md, and those in config.yaml");
}

/// The walks in docs/architecture.md name functions that exist.
#[test]
fn architecture_names_functions_that_exist() {
    let document = Document::read("docs/architecture.md");
    let rows = document.rows();
    let rows: Vec<_> = rows.iter().filter(|row| row.title == "file").collect();
    assert!(rows.len() > 20);
    let mut missing = Vec::new();
    for row in rows {
        let file = code_of(&row.cells[0]).unwrap_or_else(|| panic!("{:?} is no file", row.cells[0]));
        let source = std::fs::read_to_string(Path::new(ROOT).join(file)).unwrap_or_default();
        for function in row.cells[1].split('`').skip(1).step_by(2) {
            if !["(", "<"].iter().any(|behind| source.contains(&format!("fn {function}{behind}"))) {
                missing.push(format!("docs/architecture.md: {file} has no function {function}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// Compares the quotations in a table with the expected sentences: each quotation begins a sentence, and each sentence begins with
/// a quotation.
fn compare_quotations(quoted: &[&str], sentences: &[String], must_stand_there: &[String]) {
    let begins = |sentence: &str, quoted: &str| sentence.starts_with(quoted.trim_end_matches('…').trim_end());
    let gone = quoted.iter().filter(|quoted| !sentences.iter().any(|sentence| begins(sentence, quoted)));
    let missing = must_stand_there.iter().filter(|sentence| !quoted.iter().any(|quoted| begins(sentence, quoted)));
    let wrong: Vec<_> = gone
        .map(|quoted| format!("nothing in src/ says {quoted:?}"))
        .chain(missing.map(|sentence| format!("without {sentence:?}")))
        .collect();
    assert!(wrong.is_empty(), "docs/operations.md:\n{}", wrong.join("\n"));
}

#[test]
fn operations_has_every_warning_of_the_log() {
    let document = Document::read("docs/operations.md");
    let rows = document.rows();
    let quoted: Vec<_> =
        rows.iter().filter(|row| row.title == "level").filter_map(|row| code_of(&row.cells[1])).collect();
    let warnings = warnings();
    assert!(warnings.len() > 20, "{warnings:?}");
    let mut all = all_sentences();
    // Of one word.
    all.push("ready".to_owned());
    compare_quotations(&quoted, &all, &warnings);
}

#[test]
fn operations_has_every_error_text() {
    let document = Document::read("docs/operations.md");
    let rows = document.rows();
    let quoted: Vec<_> =
        rows.iter().filter(|row| row.title == "error").filter_map(|row| code_of(&row.cells[0])).collect();
    let strip =
        |text: String| text.trim_start_matches("ERR shortstop: ").trim_start_matches("NOPERM shortstop: ").to_owned();
    let texts: Vec<_> = sentences("src/errors.rs").into_iter().map(strip).filter(|text| !text.is_empty()).collect();
    assert!(texts.len() > 20, "{texts:?}");
    // The text that follows the error of a write is explained above the tables.
    let alone: Vec<_> = texts.iter().filter(|text| !text.starts_with(';')).cloned().collect();
    compare_quotations(&quoted, &texts, &alone);
}
