//! The history's file: a header, two rings of samples and one of notes, in records of a fixed size. Each record has a checksum, and its time
//! or number says where it stands, so that a write which is cut short costs one record. Must never hinder anything but the history.

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

/// Version 1. Another order of fields is another version. A file whose samples have fewer fields is one of an earlier Shortstop: those
/// that were added since are zero.
const MAGIC: [u8; 16] = *b"shortstop-hist\x00\x01";

/// Bytes of a record and of the header.
const RECORD: usize = 256;

/// Samples that wait for the disk.
pub(super) const QUEUE: usize = 64;

const _: () = assert!(8 + Sample::FIELDS * 8 <= RECORD, "a sample fits into a record");

/// Number of notes that are kept.
pub(super) const NOTES: u64 = 100;

/// A record for the file, and its place there.
#[derive(Clone, Debug)]
pub(super) struct Write {
    record: [u8; RECORD],
    place: u64,
}

impl Write {
    /// A sample.
    pub(super) fn sample(resolution: Resolution, sample: &Sample) -> Write {
        let number = sample.at / resolution.seconds() % resolution.slots();
        Write { record: encode(sample), place: place(resolution, number) }
    }

    /// A text, and its number. `None`: it is too long.
    pub(super) fn note(number: u64, text: &str) -> Option<Write> {
        Some(Write { record: encode_note(text)?, place: place_of_note(number) })
    }
}

/// What a file has.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) samples: Vec<(Resolution, Sample)>,
    /// In the order of their places.
    pub(super) notes: Vec<String>,
}

/// The file, which no other process uses.
#[derive(Debug)]
pub(super) struct HistoryFile(File);

impl HistoryFile {
    /// Opens the file in a directory, or makes it, and reads all records whose checksum is right.
    pub(super) fn open(directory: &Path) -> io::Result<(HistoryFile, Records)> {
        fs::create_dir_all(directory)?;
        let path = directory.join(NAME);
        let mut file = opened(&path)?;
        let mut bytes = Vec::new();
        // A file of this version is no longer than this.
        (&file).take(place_of_note(0) + NOTES * RECORD as u64).read_to_end(&mut bytes)?;
        if !bytes.is_empty() && !is_readable(&bytes) {
            let aside = directory.join(ASIDE);
            fs::rename(&path, &aside)?;
            tracing::warn!(file = %path.display(), to = %aside.display(), "the history begins anew: its file is not of this version, and was set aside");
            file = opened(&path)?;
            bytes.clear();
        }
        if !bytes.starts_with(&header()) {
            file.write_all_at(&header(), 0)?;
        }
        let (records, lost) = records(&bytes);
        if lost > 0 {
            tracing::warn!(file = %path.display(), lost, "records of the history are damaged and left out");
        }
        Ok((HistoryFile(file), records))
    }

    /// Writes samples until the sender is gone. Logs the first write of each row of failures.
    pub(super) fn run(self, queue: &Receiver<Write>) {
        let mut fails = false;
        for write in queue {
            match self.0.write_all_at(&write.record, write.place) {
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

/// Whether the file is of this version, or of an earlier Shortstop.
fn is_readable(bytes: &[u8]) -> bool {
    let fields = bytes.get(MAGIC.len()..).and_then(|rest| rest.first_chunk()).map(|fields| u64::from_le_bytes(*fields));
    bytes.starts_with(&MAGIC) && fields.is_some_and(|fields| (1..=Sample::FIELDS as u64).contains(&fields))
}

/// Where the record with this number stands.
fn place(resolution: Resolution, number: u64) -> u64 {
    let before = match resolution {
        Resolution::TenSeconds => 0,
        Resolution::Minute => Resolution::TenSeconds.slots(),
    };
    (1 + before + number) * RECORD as u64
}

/// Where the note with this number stands.
fn place_of_note(number: u64) -> u64 {
    place(Resolution::Minute, Resolution::Minute.slots() + number % NOTES)
}

fn encode(sample: &Sample) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    for (word, place) in sample.to_words().iter().zip(bytes[8..].chunks_exact_mut(8)) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    sealed(bytes)
}

/// `None`: it is too long.
fn encode_note(text: &str) -> Option<[u8; RECORD]> {
    let mut bytes = [0; RECORD];
    bytes[8..16].copy_from_slice(&(text.len() as u64).to_le_bytes());
    bytes[16..].get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    Some(sealed(bytes))
}

/// With its checksum in front.
fn sealed(mut bytes: [u8; RECORD]) -> [u8; RECORD] {
    let sum = xxh3_64(&bytes[8..]);
    bytes[..8].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn is_sound(record: &[u8]) -> bool {
    record.len() == RECORD && record[..8] == xxh3_64(&record[8..]).to_le_bytes()
}

/// `None`: the checksum is wrong, or it is no text.
fn decode_note(record: &[u8]) -> Option<String> {
    let length = record.get(8..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))?;
    let text = record.get(16..)?.get(..usize::try_from(length).ok()?)?;
    std::str::from_utf8(text).ok().filter(|_| is_sound(record)).map(str::to_owned)
}

/// `None`: the checksum is wrong.
fn decode(record: &[u8]) -> Option<Sample> {
    let word = |at: usize| record.get(at * 8..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    if !is_sound(record) {
        return None;
    }
    let mut words = [0; Sample::FIELDS];
    for (at, place) in words.iter_mut().enumerate() {
        *place = word(at + 1)?;
    }
    Some(Sample::from_words(words))
}

/// The records of a file, and how many are damaged. A record of zeros was never written.
fn records(bytes: &[u8]) -> (Records, u64) {
    let (mut records, mut lost) = (Records::default(), 0);
    let ring = |begins: u64, slots: u64| {
        let [begins, slots] = [begins, slots].map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        let ends = begins + slots * RECORD;
        let ring = bytes.get(begins.min(bytes.len())..ends.min(bytes.len())).unwrap_or_default();
        ring.chunks(RECORD).filter(|record| record.iter().any(|byte| *byte != 0))
    };
    for resolution in Resolution::ALL {
        for record in ring(place(resolution, 0), resolution.slots()) {
            match decode(record) {
                Some(sample) => records.samples.push((resolution, sample)),
                None => lost += 1,
            }
        }
    }
    for record in ring(place_of_note(0), NOTES) {
        match decode_note(record) {
            Some(text) => records.notes.push(text),
            None => lost += 1,
        }
    }
    (records, lost)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::sync_channel;

    use super::{ASIDE, HistoryFile, NAME, NOTES, RECORD, Resolution, Sample, Write, place};

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
            writes.send(Write::sample(resolution, &sample)).expect("there is room");
        }
        writes.send(Write::sample(Resolution::Minute, &sample(START))).expect("there is room");
        drop(writes);
        file.run(&queue);
    }

    fn read(directory: &std::path::Path) -> Vec<(Resolution, Sample)> {
        HistoryFile::open(directory).expect("it can be opened").1.samples
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
    fn the_samples_of_an_earlier_shortstop_are_read() {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), 3);
        let path = directory.path().join(NAME);
        let mut bytes = fs::read(&path).expect("it is there");
        bytes[16] -= 1;
        fs::write(&path, &bytes).expect("it is ours");
        assert_eq!(read(directory.path()).len(), 4);
        assert_eq!(fs::read(&path).expect("it is there")[16], bytes[16] + 1, "it is of this version now");
    }

    #[test]
    fn notes_are_bounded_and_a_torn_one_costs_itself() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, _) = HistoryFile::open(directory.path()).expect("it can be opened");
        let (writes, queue) = sync_channel(1 << 10);
        for number in 0..NOTES + 2 {
            writes.send(Write::note(number, &format!("note {number}")).expect("it fits")).expect("there is room");
        }
        assert!(Write::note(5, &"x".repeat(240)).is_some() && Write::note(5, &"x".repeat(241)).is_none());
        drop(writes);
        file.run(&queue);
        let notes = || HistoryFile::open(directory.path()).expect("it can be opened").1.notes;
        let all = notes();
        assert_eq!((all.len() as u64, &*all[0], &*all[1], &*all[2]), (NOTES, "note 100", "note 101", "note 2"));
        let path = directory.path().join(NAME);
        let mut bytes = fs::read(&path).expect("it is there");
        bytes.truncate(bytes.len() - RECORD + 20);
        fs::write(&path, &bytes).expect("it is ours");
        assert_eq!(notes(), all[..all.len() - 1]);
    }

    #[test]
    fn two_shortstops_do_not_share_a_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let _first = HistoryFile::open(directory.path()).expect("it can be opened");
        let error = HistoryFile::open(directory.path()).expect_err("it is in use").to_string();
        assert!(error.contains("a data_dir of its own"), "{error}");
    }
}
