//! Makes a dictionary of samples, if one pays.

use zstd_safe::train_from_buffer;

use super::compress::{CompressOptions, compress_with};
use super::dictionary::Dictionary;
use super::format::Codec;

/// Sizes that are tried. Which one is best depends on the values: on candles of 1 KB, values take a tenth less with the smallest than
/// with the largest. Still larger ones were never better.
const SIZES: [usize; 3] = [2 << 10, 4 << 10, 16 << 10];

/// A dictionary pays if with it values take less than this percentage of what they take without.
const PAYS: usize = 90;

/// The best dictionary for values like these, at one level. `None` if none pays: the judges are samples of which the dictionary knows
/// nothing, every fourth one.
///
/// The same samples give the same dictionary. It takes some tenths of a second for a megabyte of samples.
pub fn train<T: AsRef<[u8]>>(samples: &[T], level: u32) -> Option<Dictionary> {
    let how = CompressOptions { codec: Codec::Zstd, level, min_size: 0, min_saving: 0 };
    let samples = samples.iter().map(AsRef::as_ref).enumerate();
    let (judges, known): (Vec<_>, Vec<_>) = samples.partition(|(at, _)| at % 4 == 3);
    let known: Vec<&[u8]> = known.into_iter().map(|(_, value)| value).collect();
    let stored = |dictionary: Option<&Dictionary>| -> usize {
        let size = |value: &[u8]| compress_with(value, Some(&how), dictionary).map_or(value.len(), |it| it.len());
        judges.iter().map(|(_, value)| size(value)).sum()
    };
    let trained = SIZES.iter().filter_map(|most| Dictionary::new(&train_one(&known, *most)?, level));
    let (best, dictionary) = trained.map(|it| (stored(Some(&it)), it)).min_by_key(|(stored, _)| *stored)?;
    (best * 100 < stored(None) * PAYS).then_some(dictionary)
}

/// The bytes of a dictionary of at most this size. `None` if there are too few samples, or they have nothing in common.
pub(super) fn train_one(samples: &[&[u8]], most: usize) -> Option<Vec<u8>> {
    let sizes: Vec<usize> = samples.iter().map(|sample| sample.len()).collect();
    let mut bytes = Vec::with_capacity(most);
    train_from_buffer(&mut bytes, &samples.concat(), &sizes).ok()?;
    Some(bytes)
}
