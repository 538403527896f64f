//! PROXY WARM: reads keys into L1, in the background, no faster than `warm_rate` allows. It reads as a client of its own, with the user and
//! the database of whoever asks, so every rule of coherence and every right holds as for other clients.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::pace::{Pace, TOGETHER};
use crate::resp::parse_int;
use crate::worker_state::windows::Asker;

use super::Admin;
use super::answer::{Answer, Asked};
use super::background::{End, Run};
use super::inner_client::{InnerClient, SCANNED};
use super::key_state::Ruling;
use super::runs::Warmed;
use super::view::View;

/// The keys to read.
pub enum Keys {
    /// All keys of the asker's database that match.
    Matching(Vec<u8>),
    /// These.
    These(Vec<Vec<u8>>),
}

/// PROXY WARM [pattern [COUNT n] | CANCEL].
pub(super) fn warm(admin: &Arc<Admin>, asked: Asked<'_>) -> Answer {
    let started = match asked.words {
        [] => Ok(()),
        [word] if word.eq_ignore_ascii_case(b"cancel") => {
            admin.warmer.cancel();
            Ok(())
        }
        [pattern] => admin.warm(Keys::Matching(pattern.to_vec()), None, asked.asker),
        [pattern, word, count] if word.eq_ignore_ascii_case(b"count") => match parse_int(count).map(u64::try_from) {
            Some(Ok(count @ 1..)) => admin.warm(Keys::Matching(pattern.to_vec()), Some(count), asked.asker),
            _ => Err("COUNT must be a number, 1 or more".to_owned()),
        },
        _ => {
            Err("PROXY WARM takes a pattern, COUNT and a number; or CANCEL; or nothing, to show how far it is"
                .to_owned())
        }
    };
    match started {
        Ok(()) => Answer::View(admin.warmer.view()),
        Err(why) => Answer::Error(format!("ERR {why}")),
    }
}

impl Admin {
    /// Begins to read keys into L1, as the asker's user. `most`: so many at most; if not given, as many as L1 may hold.
    ///
    /// # Errors
    /// A warm-up is running, or L1 keeps nothing.
    pub fn warm(self: &Arc<Self>, keys: Keys, most: Option<u64>, asker: Asker) -> Result<(), String> {
        let config = self.config.get();
        if !Ruling::of(self).rules.caches_anything() {
            return Err("nothing is kept in L1: no rule caches, or L1 is switched off".to_owned());
        }
        let most = most.unwrap_or(config.l1.max_entries as u64);
        let pattern = match &keys {
            Keys::Matching(_) if config.redact_keys => View::text("(redacted)"),
            Keys::Matching(pattern) => View::Bytes(pattern.clone()),
            Keys::These(_) => View::Nil,
        };
        let admin = Arc::clone(self);
        self.warmer.begin(Run::new(pattern, Warmed::default()), move |run| {
            let control = admin.control.clone();
            let job = async move {
                let end = read_all(&admin, keys, most, asker, &run.counts).await;
                run.finish(end.map_or_else(End::Failed, |()| End::Done));
            };
            control.spawn(job).abort_handle()
        })
    }
}

async fn read_all(admin: &Admin, keys: Keys, most: u64, asker: Asker, progress: &Warmed) -> Result<(), String> {
    let mut client = InnerClient::open(&admin.mailboxes, asker.user, asker.db, true).await?;
    let mut reader = Reader::new(admin, most, progress);
    match keys {
        Keys::These(keys) => {
            progress.scanned.fetch_add(keys.len() as u64, Ordering::Relaxed);
            reader.read(&mut client, keys).await?;
        }
        Keys::Matching(pattern) => {
            let mut cursor = b"0".to_vec();
            loop {
                reader.pace.wait(admin.config.get().warm_rate).await;
                let (next, keys) =
                    client.scan(&[b"SCAN", &cursor, b"MATCH", &pattern, b"COUNT", SCANNED, b"TYPE", b"string"]).await?;
                progress.scanned.fetch_add(keys.len() as u64, Ordering::Relaxed);
                reader.read(&mut client, keys).await?;
                if next == b"0" || reader.left == 0 {
                    break;
                }
                cursor = next;
            }
        }
    }
    Ok(())
}

/// Reads keys in small groups, at the rate that is allowed.
struct Reader<'a> {
    admin: &'a Admin,
    progress: &'a Warmed,
    left: u64,
    pace: Pace,
}

impl<'a> Reader<'a> {
    fn new(admin: &'a Admin, most: u64, progress: &'a Warmed) -> Self {
        Reader { admin, progress, left: most, pace: Pace::default() }
    }

    /// Reads those that a rule keeps.
    async fn read(&mut self, client: &mut InnerClient, mut keys: Vec<Vec<u8>>) -> Result<(), String> {
        let ruling = Ruling::of(self.admin);
        keys.retain(|key| ruling.keeps_get(key));
        keys.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        for keys in keys.chunks(TOGETHER) {
            self.pace.wait(self.admin.config.get().warm_rate).await;
            let refused = client.get_all(keys).await?;
            self.left -= keys.len() as u64;
            self.progress.read.fetch_add(keys.len() as u64, Ordering::Relaxed);
            self.progress.refused.fetch_add(refused, Ordering::Relaxed);
        }
        Ok(())
    }
}
