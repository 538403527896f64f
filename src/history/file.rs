//! The history's file: a header and two rings of records of a fixed size. Each record has a checksum, and its time says where it stands, so
//! that a write which is cut short costs one sample. Must never hinder anything but the history.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::Receiver;

use xxhash_rust::xxh3::xxh3_64;

use super::rings::Resolution;
use super::sample::Sample;

/// The name of the file in `data_dir`.
const NAME: &str = "history.ring";

/// The name that a file gets which is not of this version.
const ASIDE: &str = "history.ring.old";

/// Version 1. Another number or order of fields is another version.
const MAGIC: [u8; 16] = *b"shortstop-hist\x00\x01";

/// Bytes of a record and of the header.
const RECORD: usize = 256;

/// Samples that wait for the disk.
pub(super) const QUEUE: usize = 64;

const _: () = assert!(8 + Sample::FIELDS * 8 <= RECORD, "a sample fits into a record");

/// A sample for the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    pub(super) resolution: Resolution,
    pub(super) sample: Sample,
}

/// The file, which no other process uses.
#[derive(Debug)]
pub(super) struct HistoryFile(File);

impl HistoryFile {
    /// Opens the file in a directory, or makes it, and reads all samples whose checksum is right.
    pub(super) fn open(directory: &Path) -> io::Result<(HistoryFile, Vec<(Resolution, Sample)>)> {
        fs::create_dir_all(directory)?;
        let path = directory.join(NAME);
        let mut file = opened(&path)?;
        let mut bytes = Vec::new();
        // A file of this version is no longer than this.
        (&file)
            .take(place(Resolution::Minute, 0) + Resolution::Minute.slots() * RECORD as u64)
            .read_to_end(&mut bytes)?;
        if !bytes.is_empty() && !bytes.starts_with(&header()) {
            let aside = directory.join(ASIDE);
            fs::rename(&path, &aside)?;
            tracing::warn!(file = %path.display(), to = %aside.display(), "the history begins anew: its file is not of this version, and was set aside");
            file = opened(&path)?;
            bytes.clear();
        }
        if bytes.is_empty() {
            file.write_all_at(&header(), 0)?;
        }
        let (records, lost) = records(&bytes);
        if lost > 0 {
            tracing::warn!(file = %path.display(), lost, "samples of the history are damaged and left out");
        }
        Ok((HistoryFile(file), records))
    }

    /// Writes samples until the sender is gone. Logs the first write of each row of failures.
    pub(super) fn run(self, queue: &Receiver<Write>) {
        let mut fails = false;
        for write in queue {
            let number = write.sample.at / write.resolution.seconds() % write.resolution.slots();
            match self.0.write_all_at(&encode(&write.sample), place(write.resolution, number)) {
                Ok(()) => fails = false,
                Err(error) => {
                    if !std::mem::replace(&mut fails, true) {
                        tracing::warn!(%error, "the history's file cannot be written; samples are in memory only until it can");
                    }
                }
            }
        }
    }
}

/// The file, locked.
fn opened(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::other("another Shortstop uses it; give each Shortstop a data_dir of its own"))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn header() -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
    bytes[MAGIC.len()..][..8].copy_from_slice(&(Sample::FIELDS as u64).to_le_bytes());
    bytes
}

/// Where the record with this number stands.
fn place(resolution: Resolution, number: u64) -> u64 {
    let before = match resolution {
        Resolution::TenSeconds => 0,
        Resolution::Minute => Resolution::TenSeconds.slots(),
    };
    (1 + before + number) * RECORD as u64
}

fn encode(sample: &Sample) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    for (word, place) in sample.to_words().iter().zip(bytes[8..].chunks_exact_mut(8)) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    let sum = xxh3_64(&bytes[8..]);
    bytes[..8].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// `None`: the checksum is wrong.
fn decode(record: &[u8]) -> Option<Sample> {
    let word = |at: usize| record.get(at * 8..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    if record.len() != RECORD || word(0)? != xxh3_64(&record[8..]) {
        return None;
    }
    let mut words = [0; Sample::FIELDS];
    for (at, place) in words.iter_mut().enumerate() {
        *place = word(at + 1)?;
    }
    Some(Sample::from_words(words))
}

/// The samples of a file, and how many are damaged. A record of zeros was never written.
fn records(bytes: &[u8]) -> (Vec<(Resolution, Sample)>, u64) {
    let (mut samples, mut lost) = (Vec::new(), 0);
    for resolution in Resolution::ALL {
        let begins = usize::try_from(place(resolution, 0)).unwrap_or(usize::MAX);
        let ends = begins + usize::try_from(resolution.slots()).unwrap_or(0) * RECORD;
        let ring = bytes.get(begins.min(bytes.len())..ends.min(bytes.len())).unwrap_or_default();
        for record in ring.chunks(RECORD).filter(|record| record.iter().any(|byte| *byte != 0)) {
            match decode(record) {
                Some(sample) => samples.push((resolution, sample)),
                None => lost += 1,
            }
        }
    }
    (samples, lost)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::sync_channel;

    use super::{ASIDE, HistoryFile, NAME, RECORD, Resolution, Sample, Write, place};

    const START: u64 = 1_700_000_000;

    fn sample(at: u64) -> Sample {
        Sample { at, hits: at / 10, clients: 3, ..Sample::default() }
    }

    /// Writes samples of ten seconds and closes the file.
    fn write(directory: &std::path::Path, count: u64) {
        let (file, _) = HistoryFile::open(directory).expect("it can be opened");
        let (writes, queue) = sync_channel(1 << 15);
        for number in 0..count {
            let (resolution, sample) = (Resolution::TenSeconds, sample(START + number * 10));
            writes.send(Write { resolution, sample }).expect("there is room");
        }
        writes.send(Write { resolution: Resolution::Minute, sample: sample(START) }).expect("there is room");
        drop(writes);
        file.run(&queue);
    }

    fn read(directory: &std::path::Path) -> Vec<(Resolution, Sample)> {
        HistoryFile::open(directory).expect("it can be opened").1
    }

    #[test]
    fn samples_are_read_as_they_were_written() {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), 3);
        let mut samples = read(directory.path());
        samples.sort_by_key(|(resolution, sample)| (resolution.seconds(), sample.at));
        let tens = (0..3).map(|number| (Resolution::TenSeconds, sample(START + number * 10)));
        let all: Vec<_> = tens.chain([(Resolution::Minute, sample(START))]).collect();
        assert_eq!(samples, all);
    }

    #[test]
    fn two_days_take_no_more_room_than_one() {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), 2 * Resolution::TenSeconds.slots());
        let length = fs::metadata(directory.path().join(NAME)).expect("it is there").len();
        assert!(length <= place(Resolution::Minute, Resolution::Minute.slots()), "{length}");
        let samples = read(directory.path());
        assert_eq!(samples.len() as u64, Resolution::TenSeconds.slots() + 1);
        assert!(samples[..samples.len() - 1].iter().all(|(_, sample)| sample.at >= START + 24 * 3600));
    }

    #[test]
    fn a_damaged_or_torn_record_costs_one_sample() {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), 3);
        let path = directory.path().join(NAME);
        let mut bytes = fs::read(&path).expect("it is there");
        let number = START / 10 % Resolution::TenSeconds.slots();
        let at = usize::try_from(place(Resolution::TenSeconds, number)).expect("it fits");
        bytes[at + RECORD + 20] ^= 1;
        fs::write(&path, &bytes).expect("it is ours");
        assert_eq!(read(directory.path()).len(), 3);
        // The file ends in the middle of the last record.
        bytes.truncate(at + 2 * RECORD + 100);
        fs::write(&path, &bytes).expect("it is ours");
        let left: Vec<u64> = read(directory.path()).iter().map(|(_, sample)| sample.at).collect();
        assert_eq!(left, [START]);
    }

    #[test]
    fn a_file_of_another_version_is_set_aside() {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), 3);
        let path = directory.path().join(NAME);
        let mut bytes = fs::read(&path).expect("it is there");
        bytes[15] = 9;
        fs::write(&path, &bytes).expect("it is ours");
        assert!(read(directory.path()).is_empty());
        assert_eq!(fs::read(directory.path().join(ASIDE)).expect("it was kept"), bytes);
        write(directory.path(), 1);
        assert_eq!(read(directory.path()).len(), 2);
    }

    #[test]
    fn two_shortstops_do_not_share_a_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let _first = HistoryFile::open(directory.path()).expect("it can be opened");
        let error = HistoryFile::open(directory.path()).expect_err("it is in use").to_string();
        assert!(error.contains("a data_dir of its own"), "{error}");
    }
}
