//! PROXY ADVICE: what should be changed, by what was measured, with the lines for `config.yaml`. There is no advice without a minimum of
//! traffic.

mod keys;
mod l1;
mod observe;
mod piece;
mod redis;
mod rules;

use std::sync::Arc;
use std::time::Instant;

use crate::config::Config;
use crate::metrics::rules::{OWN, RulePlace, RuleSums};
use crate::rules::{Rule, Rules};
use crate::traffic::{Estimate, OfRule, Tried};

use super::Admin;
use super::answer::{Answer, Asked};
use super::traffic::hottest_keys;
use super::view::View;

use observe::Observed;
use piece::{Advice, Place};

/// How many of the hottest keys are looked at.
const MOST_KEYS: usize = 1000;

/// PROXY ADVICE.
pub(super) fn advice(admin: &Arc<Admin>, _: Asked<'_>) -> Answer {
    let admin = Arc::clone(admin);
    Answer::Later(Box::pin(async move { Ok(found_out(&admin).await) }))
}

async fn found_out(admin: &Admin) -> View {
    let hot = hottest_keys(admin, MOST_KEYS).await;
    let config = admin.config.get();
    let compiled = Rules::compile(&config);
    let totals = admin.stats.rules_since_reset();
    let sums = totals.by_place();
    let of_place = |place: RulePlace| -> (OfRule, Tried) {
        let following = admin.following();
        (following.curve.of_rule(place), following.savings.of(place))
    };
    let estimate = admin.following().curve.estimate();
    let eviction = admin.status.seen(Instant::now()).eviction;
    let mut found = Found::default();
    found.add(l1::advice(&estimate, &config.l1, admin.memory));
    found.add(rules::unused(&config, &sums));
    let mut observed = Vec::new();
    for (place, rule) in places(&config, &compiled) {
        let own: &RuleSums = &sums[rule.place.number()];
        let (cached, compressed) = of_place(rule.place);
        found.advice.extend(rules::incompressible(&config, place, rule, own));
        found.advice.extend(rules::short_ttl(&config, place, rule, &cached));
        found.advice.extend(rules::wasted(&config, place, rule, &cached));
        let Some(observe) = rule.observe else { continue };
        let seen = Observed {
            place,
            sums: *own,
            cached: observe.cache.map(|_| cached),
            compressed: observe.compress.map(|_| compressed),
        };
        found.add(seen.advice(&config));
        observed.push(seen.view());
    }
    found.add(keys::uncached(&config, &compiled, &hot, |key| {
        let sums = &sums[compiled.of(key).place.number()];
        sums.writes as f64 / sums.requests.max(1) as f64
    }));
    found.advice.extend(redis::eviction(eviction.as_ref(), &estimate, &config));
    View::Map(vec![
        ("curve", curve(&estimate, &config)),
        ("observed", View::List(observed)),
        ("advice", View::List(found.advice.into_iter().map(Advice::view).collect())),
        ("not_yet", View::List(found.not_yet.into_iter().map(View::Text).collect())),
    ])
}

/// The rules that are counted each for itself, and the defaults.
fn places<'a>(config: &'a Config, rules: &'a Rules) -> impl Iterator<Item = (Place<'a>, &'a Rule)> {
    let own = config.rules.iter().take(OWN).enumerate().map(|(index, spec)| Place::Rule(index, spec));
    own.zip(rules.all()).chain(rules.all().last().map(|rule| (Place::Defaults, rule)))
}

/// What was found out.
#[derive(Default)]
struct Found {
    advice: Vec<Advice>,
    /// What cannot be said so far, and why.
    not_yet: Vec<String>,
}

impl Found {
    fn add(&mut self, result: Result<Option<Advice>, String>) {
        match result {
            Ok(advice) => self.advice.extend(advice),
            Err(why) => self.not_yet.push(why),
        }
    }
}

fn curve(estimate: &Estimate, config: &Config) -> View {
    let ratio = |number: f64| View::Float((number * 1e4).round() / 1e4);
    let points = estimate.points.iter().map(|point| {
        View::Map(vec![
            ("max_memory", View::count(point.max_memory)),
            ("max_entries", View::count(point.max_entries)),
            ("is_configured", View::Bool(point.max_memory == config.l1.max_memory)),
            ("hit_rate", ratio(point.hit_rate)),
            ("error", ratio(point.error)),
            ("entries", View::count(point.entries)),
            ("bytes", View::count(point.bytes)),
        ])
    });
    View::Map(vec![
        ("reads", View::count(estimate.reads as u64)),
        ("hit_rate", View::maybe(estimate.measured, ratio)),
        ("samples", View::count(estimate.samples)),
        ("one_in", View::count(estimate.one_in)),
        ("sizes", View::List(points.collect())),
    ])
}
