//! A piece of advice, and the rules that it is about.

use crate::admin::view::View;
use crate::config::RuleSpec;

/// Without so many reads, nothing is said about them.
pub(super) const FEWEST_READS: u64 = 5_000;

/// What should be changed, and why.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Advice {
    /// What it is about, in a word.
    pub(super) about: &'static str,
    /// What to do, as a sentence.
    pub(super) what: String,
    /// The numbers that say so.
    pub(super) why: String,
    /// The lines for `config.yaml`. Empty: the change is to be made elsewhere.
    pub(super) lines: String,
}

impl Advice {
    pub(super) fn view(self) -> View {
        let Advice { about, what, why, lines } = self;
        View::Map(vec![
            ("about", View::text(about)),
            ("what", View::Text(what)),
            ("why", View::Text(why)),
            ("lines", View::Text(lines)),
        ])
    }
}

/// A rule of the configuration with its index, or the defaults.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    Rule(usize, &'a RuleSpec),
    Defaults,
}

impl Place<'_> {
    pub(super) fn index(&self) -> Option<usize> {
        match self {
            Place::Rule(index, _) => Some(*index),
            Place::Defaults => None,
        }
    }

    /// Its pattern.
    pub(super) fn name(&self) -> &str {
        match self {
            Place::Rule(_, spec) => &spec.pattern,
            Place::Defaults => "defaults",
        }
    }
}

/// A part as a percentage.
pub(super) fn percent(part: f64) -> String {
    format!("{:.1}%", part * 100.0)
}
