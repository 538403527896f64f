//! What `docker/` has for Prometheus and Grafana: each query of the dashboard and of the alert rules asks for metrics and labels that a
//! running Shortstop has, each alert is shown firing and is in docs/monitor.md, and Prometheus's own checker accepts rules and metrics.

mod common;
#[path = "monitor/http.rs"]
mod http;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Nats, PATIENCE, Redis, Shortstop, has_program, run, skipped, wait_until};
use http::{get, get_with};
use serde_json::Value;

const MONITOR: &str = "monitor: 127.0.0.1:0\ndefaults: { cache: { admit_after: 1 } }\n";

fn docker(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker").join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(docker(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The alert rules: each alert and its query.
fn alerts() -> Vec<(String, String)> {
    let rules: Value = serde_yaml::from_str(&read("prometheus/alerts.yml")).expect("it is YAML");
    let groups = rules["groups"].as_array().expect("groups");
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    rules.map(|rule| (text(&rule["alert"]), text(&rule["expr"]))).collect()
}

/// The queries of the dashboard: the panel and the query. Grafana's variables have a value.
fn queries_of_the_dashboard() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("grafana/dashboards/shortstop.json")).expect("it is JSON");
    let mut out = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().expect("a query").to_owned();
            let query = [("$__rate_interval", "1m"), ("$__range", "1h"), ("$job", ".*"), ("$instance", ".*")]
                .iter()
                .fold(query, |query, (variable, value)| query.replace(variable, value));
            assert!(!query.contains('$'), "{query}");
            out.push((panel["title"].as_str().expect("a title").to_owned(), query));
        }
    }
    assert!(out.len() > 20, "{out:?}");
    out
}

fn queries() -> Vec<(String, String)> {
    let mut all = queries_of_the_dashboard();
    all.extend(alerts());
    all
}

/// The samples that `/metrics` gives: their names, each with its labels.
fn samples(text: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut out: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().expect("a name");
        let labels = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(labels, _)| labels);
        out.entry(name).or_default().extend(labels.split(',').filter_map(|label| Some(label.split_once('=')?.0)));
    }
    out
}

/// The words of a query outside of its texts, each with what stands directly behind it.
fn words(query: &str) -> Vec<(&str, &str)> {
    let mut out = Vec::new();
    for (place, plain) in query.split('"').enumerate() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let mut rest = plain;
        while let Some(start) = rest.find(is_word).filter(|_| place % 2 == 0) {
            let length = rest[start..].find(|c| !is_word(c)).unwrap_or(rest.len() - start);
            let (word, behind) = rest[start..].split_at(length);
            out.push((word, behind.trim_start()));
            rest = behind;
        }
    }
    out
}

#[test]
fn every_query_asks_for_metrics_and_labels_that_exist() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let proxy = Shortstop::in_fleet(&redis, &nats, MONITOR);
    let text = get(proxy.monitor(), "/metrics").body;
    let samples = samples(&text);
    let mut wrong = Vec::new();
    for (place, query) in queries() {
        let words = words(&query);
        // What Prometheus adds to every sample, and what it makes itself.
        let mut labels = BTreeSet::from(["job", "instance"]);
        for (name, _) in &words {
            match samples.get(name) {
                Some(known) => labels.extend(known),
                None if *name == "ALERTS" => labels.extend(["alertname", "alertstate"]),
                None if name.starts_with("shortstop_") => wrong.push(format!("{place}: there is no {name}")),
                None => {}
            }
        }
        let compared = words.iter().filter(|(_, behind)| ["=", "!="].iter().any(|sign| behind.starts_with(sign)));
        let compared = compared.filter(|(_, behind)| !behind.starts_with("==")).map(|(label, _)| *label);
        let grouped = ["by (", "without ("].iter().flat_map(|word| query.split(word).skip(1));
        let grouped = grouped.flat_map(|rest| rest.split(')').next().expect("a part").split(',')).map(str::trim);
        for label in compared.chain(grouped).filter(|label| !labels.contains(label)) {
            wrong.push(format!("{place}: no metric there has the label {label}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_alert_is_shown_firing() {
    let tests: Value = serde_yaml::from_str(&read("prometheus/alerts.test.yml")).expect("it is YAML");
    let tests = tests["tests"].as_array().expect("tests");
    let shown: BTreeSet<&str> = tests
        .iter()
        .flat_map(|test| test["alert_rule_test"].as_array().expect("alerts"))
        .filter(|alert| alert["exp_alerts"].as_array().is_some_and(|expected| !expected.is_empty()))
        .filter_map(|alert| alert["alertname"].as_str())
        .collect();
    let alerts = alerts();
    assert_eq!(shown, alerts.iter().map(|(alert, _)| &**alert).collect());
    let page = fs::read_to_string(docker("../docs/monitor.md")).expect("it is there");
    let told = page.lines().filter_map(|line| line.strip_prefix("| `Shortstop")?.split('`').next());
    let told: BTreeSet<String> = told.map(|name| format!("Shortstop{name}")).collect();
    assert_eq!(told, alerts.into_iter().map(|(alert, _)| alert).collect());
}

/// Prometheus's own checker; none: the tests that need it are skipped.
fn promtool(arguments: &[&str]) -> Option<Command> {
    if !has_program("promtool") {
        skipped(
            "promtool is missing, so Prometheus's rules and metrics are not checked: `make test` installs it where it can",
        );
        return None;
    }
    let mut command = Command::new("promtool");
    command.args(arguments);
    Some(command)
}

#[track_caller]
fn accepts(mut command: Command) {
    let output = run(&mut command, PATIENCE);
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{out}\n{err}");
}

#[test]
fn prometheus_accepts_its_settings_and_each_alert_fires_as_shown() {
    for (arguments, file) in [(["check", "config"], "prometheus.yml"), (["test", "rules"], "alerts.test.yml")] {
        let Some(mut command) = promtool(&arguments) else { return };
        command.current_dir(docker("prometheus")).arg(file);
        accepts(command);
    }
}

#[test]
fn prometheus_understands_the_queries_of_the_dashboard() {
    let rules: Vec<Value> = queries_of_the_dashboard()
        .iter()
        .enumerate()
        .map(|(number, (_, query))| serde_json::json!({ "record": format!("query:{number}"), "expr": query }))
        .collect();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let groups = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    fs::write(file.path(), groups.to_string()).expect("it is ours");
    let Some(mut command) = promtool(&["check", "rules"]) else { return };
    command.arg(file.path());
    accepts(command);
}

#[test]
fn prometheus_accepts_the_metrics_in_both_formats() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, MONITOR);
    let mut client = proxy.client();
    client.cmd("SET k v");
    wait_until("a hit", || {
        client.cmd("GET k");
        proxy.stat("l1_hits") > 0
    });
    for accept in ["text/plain", "application/openmetrics-text"] {
        let metrics = get_with(proxy.monitor(), "/metrics", &format!("Accept: {accept}\r\n")).body;
        // The checker reads the older format alone, which names a counter as its samples are named.
        let metrics = match accept {
            "text/plain" => metrics,
            _ => counters_with_their_ending(&metrics),
        };
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), metrics).expect("it is ours");
        let Some(mut command) = promtool(&["check", "metrics"]) else { return };
        command.stdin(Stdio::from(fs::File::open(file.path()).expect("it is ours")));
        accepts(command);
    }
}

/// OpenMetrics with `_total` also in the lines that describe a counter.
fn counters_with_their_ending(text: &str) -> String {
    let counters: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let describe = |line: &str| {
        let mut words = line.splitn(4, ' ');
        let (hash, what, name) = (words.next()?, words.next()?, words.next()?);
        counters.contains(name).then(|| format!("{hash} {what} {name}_total {}", words.next().unwrap_or_default()))
    };
    text.lines().map(|line| describe(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}
