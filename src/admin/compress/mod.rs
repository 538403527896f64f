//! PROXY COMPRESS TRY: what each codec and level would save and cost, measured on a sample of the values of a pattern. Stores nothing.

mod sample;
mod suggestion;
mod trials;

use std::sync::Arc;

use bytes::Bytes;

use crate::resp::parse_int;
use crate::worker_state::windows::Asker;

use super::Admin;
use super::answer::{Answer, Asked};
use super::key_state::Ruling;
use super::view::View;

use sample::Sample;
use suggestion::Suggestion;
use trials::Trial;

/// How many values are read if not told otherwise, and at most.
const VALUES: usize = 100;
const MOST_VALUES: usize = 10_000;

/// PROXY COMPRESS TRY pattern [COUNT n].
pub(super) fn compress(admin: &Arc<Admin>, asked: Asked<'_>) -> Answer {
    let wrong = || Answer::Error("ERR PROXY COMPRESS takes TRY, a pattern, and COUNT with a number".to_owned());
    let (pattern, count) = match asked.words {
        [word, rest @ ..] if word.eq_ignore_ascii_case(b"try") => match rest {
            [pattern] => (pattern, None),
            [pattern, word, count] if word.eq_ignore_ascii_case(b"count") => (pattern, Some(parse_int(count))),
            _ => return wrong(),
        },
        _ => return wrong(),
    };
    let count = match count.map(|count| usize::try_from(count?).ok().filter(|count| *count > 0)) {
        None => None,
        Some(Some(count)) => Some(count),
        Some(None) => return Answer::Error("ERR COUNT must be a number, 1 or more".to_owned()),
    };
    let (admin, asker, pattern) = (Arc::clone(admin), asked.asker, pattern.to_vec());
    Answer::Later(Box::pin(async move {
        let tried = admin.try_compression(pattern, count, asker).await;
        tried.map_err(|why| format!("ERR {why}"))
    }))
}

impl Admin {
    /// Compresses a sample of the values whose keys match, as the asker's user reads them. `count`: so many values.
    ///
    /// # Errors
    /// Another trial runs, or Redis refuses SCAN.
    pub async fn try_compression(
        self: &Arc<Self>,
        pattern: Vec<u8>,
        count: Option<usize>,
        asker: Asker,
    ) -> Result<View, String> {
        // One at a time, because it takes memory and the time of a core.
        let _one = self.trying.try_lock().map_err(|_| "another trial runs; try again when it has ended".to_owned())?;
        let sample = Sample::read(self, &pattern, count.unwrap_or(VALUES).min(MOST_VALUES), asker).await?;
        let values: Vec<Bytes> = sample.values.iter().map(|(_, value)| value.clone()).collect();
        let tried = self.control.spawn_blocking(move || Trial::all(&values)).await;
        let trials = tried.map_err(|_| "the trial has failed, which is a fault of Shortstop".to_owned())?;
        let ruling = Ruling::of(self);
        let suggestion = Suggestion::of(&ruling, &pattern, &sample, &trials);
        let bytes: usize = sample.values.iter().map(|(_, value)| value.len()).sum();
        Ok(View::Map(vec![
            ("pattern", ruling.shown(&pattern)),
            ("scanned", View::count(sample.scanned)),
            ("is_all", View::Bool(sample.is_all)),
            ("values", View::count(sample.values.len())),
            ("bytes", View::count(bytes)),
            ("refused", View::count(sample.refused)),
            ("too_large", View::count(sample.too_large)),
            ("trials", View::List(trials.iter().map(|trial| trial.view(sample.values.len(), bytes)).collect())),
            ("what", View::Text(suggestion.what)),
            ("lines", View::Text(suggestion.lines)),
        ]))
    }
}
