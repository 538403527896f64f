//! What each codec and level makes of the same values, and how long it takes. Bytes in, numbers out.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::admin::view::View;
use crate::codec::{self, Codec, CompressOptions};

/// What is tried: one row of the answer each. From a value of one byte on, and if a tenth is saved.
const ROWS: &[(Codec, u32)] =
    &[(Codec::Gzip, 1), (Codec::Gzip, 3), (Codec::Gzip, 6), (Codec::Zstd, 1), (Codec::Zstd, 3), (Codec::Zstd, 9)];

/// Percentage of its size that a value must save.
pub(super) const MIN_SAVING: u8 = 10;

/// What a codec and a level have made of the values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial {
    pub(super) codec: Codec,
    pub(super) level: u32,
    /// Number of values that would be stored compressed.
    pub(super) compressed: usize,
    /// Bytes of all values as they would be stored.
    pub(super) stored_bytes: usize,
    /// Size of the smallest value that would be stored compressed.
    pub(super) smallest: Option<usize>,
    /// Time for all values.
    compress: Duration,
    /// Time for those that would be stored compressed.
    decode: Duration,
}

impl Trial {
    /// One for each codec and level.
    pub(super) fn all(values: &[Bytes]) -> Vec<Trial> {
        ROWS.iter().map(|(codec, level)| Trial::of(*codec, *level, values)).collect()
    }

    fn of(codec: Codec, level: u32, values: &[Bytes]) -> Trial {
        let how = CompressOptions { codec, level, min_size: 1, min_saving: MIN_SAVING };
        // The first use of a level allocates the compressor, later ones do not.
        if let Some(first) = values.first() {
            codec::compress(first, Some(&how));
        }
        let mut trial = Trial {
            codec,
            level,
            compressed: 0,
            stored_bytes: 0,
            smallest: None,
            compress: Duration::ZERO,
            decode: Duration::ZERO,
        };
        for value in values {
            let began = Instant::now();
            let envelope = codec::compress(value, Some(&how));
            trial.compress += began.elapsed();
            trial.stored_bytes += envelope.as_ref().map_or(value.len(), Vec::len);
            if let Some(envelope) = envelope {
                let began = Instant::now();
                // It is the envelope of this value, so it cannot fail.
                let _ = codec::decode(&envelope, value.len());
                trial.decode += began.elapsed();
                trial.compressed += 1;
                trial.smallest = Some(trial.smallest.map_or(value.len(), |least| least.min(value.len())));
            }
        }
        trial
    }

    /// The part of so many bytes that it saves. Below 0 if values that look compressed grow.
    pub(super) fn saving(&self, bytes: usize) -> f64 {
        if bytes == 0 { 0.0 } else { 1.0 - self.stored_bytes as f64 / bytes as f64 }
    }

    /// Time for all values, there and back.
    pub(super) fn time(&self) -> Duration {
        self.compress + self.decode
    }

    /// As it is shown, for so many values with so many bytes.
    pub(super) fn view(&self, values: usize, bytes: usize) -> View {
        let micros = |time: Duration, values: usize| {
            let nanos = (values > 0).then(|| time.as_nanos() as f64 / values as f64);
            View::maybe(nanos, |nanos| View::Float((nanos / 100.0).round() / 10.0))
        };
        View::Map(vec![
            ("codec", View::text(self.codec.as_str())),
            ("level", View::count(self.level)),
            ("compressed", View::count(self.compressed)),
            ("stored_bytes", View::count(self.stored_bytes)),
            ("saved_percent", View::Float((self.saving(bytes) * 1e3).round() / 10.0)),
            ("compress_usec", micros(self.compress, values)),
            ("decode_usec", micros(self.decode, self.compressed)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{ROWS, Trial};

    #[test]
    fn each_row_is_what_the_codec_really_does() {
        let text = Bytes::from(b"{\"price\": 1.5, \"side\": \"buy\"}".repeat(40));
        let random: Vec<u8> =
            (0..500_u32).map(|at| (at.wrapping_mul(at).wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let values = [text.clone(), Bytes::from(random), Bytes::from_static(b"12345")];
        let trials = Trial::all(&values);
        assert_eq!(trials.len(), ROWS.len());
        for trial in trials {
            assert_eq!((trial.compressed, trial.smallest), (1, Some(text.len())), "{trial:?}");
            assert!(trial.stored_bytes > 505 && trial.stored_bytes < 505 + text.len() / 2, "{trial:?}");
            assert!(trial.saving(505 + text.len()) > 0.3, "{trial:?}");
        }
        for trial in Trial::all(&[]) {
            assert_eq!((trial.compressed, trial.stored_bytes, trial.saving(0)), (0, 0, 0.0), "{trial:?}");
        }
    }
}
