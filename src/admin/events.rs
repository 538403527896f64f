//! PROXY EVENTS: the last entries of the journal.

use std::sync::Arc;

use crate::metrics::journal::Event;
use crate::metrics::outcome::Outcome;
use crate::resp::parse_int;

use super::Admin;
use super::answer::{Answer, Asked};
use super::view::View;

/// Number of events that are shown if nobody says how many.
const USUAL: usize = 20;

/// PROXY EVENTS.
pub(super) fn events(admin: &Arc<Admin>, asked: Asked<'_>) -> Answer {
    let count = match asked.words.first() {
        None => USUAL,
        Some(word) => match parse_int(word).map(usize::try_from) {
            Some(Ok(count)) => count,
            _ => return Answer::Error("ERR count must be a number, 0 or more".to_owned()),
        },
    };
    Answer::View(View::List(admin.stats.shared.journal.last(count).iter().map(view).collect()))
}

fn view(event: &Event) -> View {
    View::Map(vec![
        ("id", View::count(event.id)),
        ("time", View::text(humantime::format_rfc3339_millis(event.date).to_string())),
        ("event", View::text(event.kind.name())),
        ("reason", View::maybe(Some(event.reason).filter(|reason| !reason.is_empty()), View::text)),
        ("why", View::text(event.why.as_str())),
        ("lasted_ms", View::maybe(event.lasted, |lasted| View::count(lasted.as_millis()))),
        ("count", View::count(event.count)),
        ("span_ms", View::count(event.span.as_millis())),
    ])
}
