//! A piece of advice.

use crate::admin::view::View;

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

/// A part as a percentage.
pub(super) fn percent(part: f64) -> String {
    format!("{:.1}%", part * 100.0)
}
