//! PROXY ADVICE: what should be changed, by what was measured, with the lines for `config.yaml`. There is no advice without a minimum of
//! traffic.

mod l1;
mod piece;

use std::sync::Arc;

use crate::config::Config;
use crate::traffic::Estimate;

use super::Admin;
use super::answer::{Answer, Asked};
use super::view::View;

use piece::Advice;

/// PROXY ADVICE.
pub(super) fn advice(admin: &Arc<Admin>, _: Asked<'_>) -> Answer {
    let config = admin.config.get();
    let estimate = admin.curve().estimate();
    let mut found = Found::default();
    found.add(l1::advice(&estimate, &config.l1, admin.memory));
    Answer::View(View::Map(vec![
        ("curve", curve(&estimate, &config)),
        ("advice", View::List(found.advice.into_iter().map(Advice::view).collect())),
        ("not_yet", View::List(found.not_yet.into_iter().map(View::Text).collect())),
    ]))
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
        ("hit_rate", ratio(estimate.measured)),
        ("samples", View::count(estimate.samples)),
        ("one_in", View::count(estimate.one_in)),
        ("sizes", View::List(points.collect())),
    ])
}
