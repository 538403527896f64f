//! PROXY DECOMPRESS: turns stored values back to plain, in the background, as Shortstop's own user. Clients see no difference.

use std::sync::Arc;

use crate::config::Compression;
use crate::decompress::{Counts, run as run_all};
use crate::upstream::plain::Plain;
use crate::worker_state::windows::Asker;

use super::Admin;
use super::answer::{Answer, Asked};
use super::background::{End, Run};
use super::runs::OfDatabase;
use super::view::View;

/// PROXY DECOMPRESS [pattern | CANCEL].
pub(super) fn decompress(admin: &Arc<Admin>, asked: Asked<'_>) -> Answer {
    let started = match asked.words {
        [word] if word.eq_ignore_ascii_case(b"cancel") => {
            admin.decompressor.cancel();
            Ok(())
        }
        [pattern] => admin.decompress(pattern.to_vec(), asked.asker),
        _ => Ok(()),
    };
    match started {
        Ok(()) => Answer::View(admin.decompressor.view()),
        Err(why) => Answer::Error(format!("ERR {why}")),
    }
}

impl Admin {
    /// Begins to turn the values whose keys match to plain, in the asker's database.
    ///
    /// # Errors
    /// A run is under way, or Redis is not known.
    pub fn decompress(self: &Arc<Self>, pattern: Vec<u8>, asker: Asker) -> Result<(), String> {
        let config = self.config.get();
        let server = self.endpoint.server().ok_or("Redis has not been reached yet")?;
        let shown = if config.redact_keys { View::text("(redacted)") } else { View::Bytes(pattern.clone()) };
        let of_database = OfDatabase {
            db: asker.db,
            redacts: config.redact_keys,
            compresses: config.compression == Compression::On,
            counts: Counts::default(),
        };
        let admin = Arc::clone(self);
        self.decompressor.begin(Run::new(shown, of_database), move |run| {
            let control = admin.control.clone();
            let job = async move {
                let done = async {
                    let most = admin.config.get().limits.max_inflated;
                    let mut redis = Plain::open(&admin.dialer, &server.address, most).await?;
                    redis.refuse_shortstop().await?;
                    redis.select(run.counts.db).await?;
                    let rate = || admin.config.get().warm_rate;
                    run_all(&mut redis, &pattern, rate, &run.counts.counts).await
                };
                let end = done.await.map_or_else(|error| End::Failed(error.to_string()), |()| End::Done);
                run.finish(end);
            };
            control.spawn(job).abort_handle()
        })
    }
}
