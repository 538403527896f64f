//! The history: samples of the metrics over the last week, in memory, and in a file under `data_dir`.
//!
//! A `sample` has a fixed size. The `sampler` makes samples from the snapshot of the metrics. The `rings` keep one every ten seconds for a
//! day and one every minute for a week. The `file` keeps them over a restart, and notes of `alerts`. Must not decide anything: `alerts`
//! judges samples.

mod file;
mod rings;
pub mod sample;
pub mod sampler;

use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use file::{HistoryFile, Records, Write};
pub use rings::Resolution;
use rings::Rings;
use sample::Sample;
use sampler::{Latest, Sampler};

use crate::metrics::metric::Sources;

/// How long to wait at the end for a disk that does not take the last samples.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// The time of the system, in seconds of Unix time.
pub fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The samples of this Shortstop.
#[derive(Debug, Default)]
pub struct History {
    rings: Mutex<Rings>,
    sampler: Mutex<Sampler>,
    writer: Mutex<Option<Writer>>,
    /// The notes that the file had.
    notes: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Writer {
    writes: std::sync::mpsc::SyncSender<Write>,
    thread: std::thread::JoinHandle<()>,
}

impl History {
    /// In memory only.
    pub fn in_memory() -> History {
        History::default()
    }

    /// With the samples of the file in this directory, which also keeps all later ones. Logs why if there can be no such file: then the
    /// history is in memory only.
    pub fn open(directory: &Path, now: u64) -> History {
        let history = History::default();
        match history.read(directory, now) {
            Ok(writer) => *history.writer() = Some(writer),
            Err(error) => {
                tracing::warn!(directory = %directory.display(), %error, "the history is in memory only: its file in data_dir cannot be used");
            }
        }
        history
    }

    fn read(&self, directory: &Path, now: u64) -> io::Result<Writer> {
        let (file, Records { samples, notes }) = HistoryFile::open(directory)?;
        self.rings().load(samples, now);
        *self.notes.lock().unwrap_or_else(PoisonError::into_inner) = notes;
        let (writes, queue) = std::sync::mpsc::sync_channel(file::QUEUE);
        let thread =
            std::thread::Builder::new().name("shortstop-history".to_owned()).spawn(move || file.run(&queue))?;
        Ok(Writer { writes, thread })
    }

    /// Takes the sample of the last second, and those of ten seconds and of a minute if they are due. `now` is in seconds of Unix time.
    /// Call this once a second. `judge` gets the sample of the second and returns the alerts that fire, as bits.
    pub fn take(&self, sources: &Sources<'_>, now: u64, judge: impl FnOnce(&Sample) -> u64) {
        let Latest { mut second, kept } = {
            let mut sampler = self.sampler.lock().unwrap_or_else(PoisonError::into_inner);
            sampler.take(sources, now)
        };
        second.alerts = judge(&second);
        for (resolution, mut sample) in kept {
            sample.alerts = second.alerts;
            self.keep(resolution, sample);
        }
        self.rings().latest = Some(second);
    }

    /// Keeps a sample, here and in the file.
    fn keep(&self, resolution: Resolution, sample: Sample) {
        self.rings().push(resolution, sample);
        self.write(Write::sample(resolution, &sample));
    }

    /// Keeps a note over a restart, if there is a file. It takes the place of the note whose number is smaller by a hundred. A note of more
    /// than 240 bytes is not kept.
    pub fn keep_note(&self, number: u64, text: &str) {
        if let Some(write) = Write::note(number, text) {
            self.write(write);
        }
    }

    /// The notes that were in the file at the start, in no order.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, write: Write) {
        if let Some(writer) = &*self.writer() {
            // If the disk is so slow that the queue is full, the file lacks this record.
            let _ = writer.writes.try_send(write);
        }
    }

    /// The sample of the last second.
    pub fn latest(&self) -> Option<Sample> {
        self.rings().latest
    }

    /// The samples that ended after `from` and no later than `to`, the oldest first: those of ten seconds if they reach back to `from`, else
    /// those of a minute.
    pub fn range(&self, from: u64, to: u64) -> (Resolution, Vec<Sample>) {
        self.rings().range(from, to)
    }

    /// Writes what is queued, and frees the file for another Shortstop.
    pub fn close(&self) {
        let Some(Writer { writes, thread }) = self.writer().take() else { return };
        drop(writes);
        let limit = Instant::now() + LAST_WRITES;
        while !thread.is_finished() && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.close();
    }
}
