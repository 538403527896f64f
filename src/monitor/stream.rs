//! `/api/stream`: a sample a second to each reader, as server-sent events, until Shortstop drains. A reader that does not read gets
//! fewer samples, and nothing is stored for it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{Semaphore, watch};
use tokio::time::MissedTickBehavior;

use crate::admin::Admin;
use crate::admin::view::View;

/// The time between two samples.
const EVERY: Duration = Duration::from_secs(1);

/// Readers at a time. Fewer than the monitor serves, so that the other paths stay within reach.
pub(super) const MOST: usize = 16;

/// The places of readers, and whether Shortstop drains.
#[derive(Clone)]
pub struct Readers {
    places: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl Readers {
    /// None yet. `stop` becomes true when Shortstop begins to drain.
    pub(super) fn new(stop: watch::Receiver<bool>) -> Self {
        Readers { places: Arc::new(Semaphore::new(MOST)), stop }
    }

    /// The stream for one more reader; `None`: all places are taken.
    pub(super) fn join(&self, admin: &Arc<Admin>) -> Option<Response> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let state = (ticks, self.stop.clone(), Arc::clone(admin), place);
        let events = stream::unfold(state, |(mut ticks, mut stop, admin, place)| async move {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stops| *stops) => return None,
                _ = ticks.tick() => {}
            }
            let event = Event::default().event("sample").json_data(sample(&admin));
            Some((event, (ticks, stop, admin, place)))
        });
        Some(Sse::new(events).into_response())
    }
}

/// What is known at this moment: the time, and all sections of INFO.
fn sample(admin: &Admin) -> View {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    View::Map(vec![("at_ms", View::count(at.as_millis())), ("info", admin.info_view(&[]))])
}
