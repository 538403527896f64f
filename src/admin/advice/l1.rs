//! The size of L1, from the curve of hit rates.

use crate::config::{self, units::show_size};
use crate::traffic::{Estimate, Point};

use super::piece::{Advice, FEWEST_READS, percent};

/// Without so many accesses in the sample nothing is said.
const FEWEST_SAMPLES: u64 = 1_000;

/// A hit rate that is worth a change of the size.
const WORTH: f64 = 0.02;

/// Memory that is worth a change of the size.
const WORTH_BYTES: u64 = 16 << 20;

/// What to do about the size of L1. `memory` is what the process may take. The error says what is missing.
pub(super) fn advice(estimate: &Estimate, l1: &config::L1, memory: u64) -> Result<Option<Advice>, String> {
    let Estimate { reads, samples, .. } = *estimate;
    if !l1.enabled {
        return Ok(None);
    }
    if reads < FEWEST_READS as f64 || samples < FEWEST_SAMPLES {
        return Err(format!(
            "The size of L1: not enough traffic yet ({reads:.0} reads that may be kept, {samples} of them or of the writes in the \
             sample; {FEWEST_READS} and {FEWEST_SAMPLES} are needed)."
        ));
    }
    let found = estimate.points.iter().find(|point| point.max_memory == l1.max_memory).copied();
    // It may be too small in the sample, so that only larger sizes are estimated.
    let measured = estimate.measured.map(|hit_rate| Point {
        max_memory: l1.max_memory,
        max_entries: l1.max_entries,
        entries: 0,
        bytes: 0,
        hit_rate,
        error: 0.0,
    });
    let Some(now) = found.or(measured) else {
        return Err("The size of L1: the sample has too few keys.".to_owned());
    };
    let fits = |point: &&Point| point.bytes <= memory / 2;
    let Some(best) = estimate.points.iter().filter(fits).map(|point| point.hit_rate).reduce(f64::max) else {
        return Ok(None);
    };
    // The knee: a larger one hits hardly more often.
    let Some(knee) = estimate.points.iter().filter(fits).find(|point| point.hit_rate >= best - WORTH / 2.0) else {
        return Ok(None);
    };
    let gains = knee.hit_rate - now.hit_rate;
    let measured = estimate.measured.map(|rate| format!("; {} have hit in fact", percent(rate))).unwrap_or_default();
    let rates = format!(
        "{} of the reads would hit with this size, {} with the present one (± {}){measured}. From {reads:.0} reads, with one in {} \
         keys in the sample.",
        percent(knee.hit_rate),
        percent(now.hit_rate),
        percent(knee.error.max(now.error)),
        estimate.one_in,
    );
    let (entries, bytes) = (knee.entries, knee.bytes >> 10);
    let lines =
        format!("l1:\n  max_memory: {}\n  max_entries: {}\n", show_size(round_up(knee.max_memory)), knee.max_entries);
    if knee.max_memory > now.max_memory && gains > WORTH.max(knee.error + now.error) {
        let what = format!("Give L1 more room: it would hold about {entries} entries in {bytes} kb.");
        return Ok(Some(Advice { about: "l1_size", what, why: rates, lines }));
    }
    let saves = now.bytes.saturating_sub(knee.bytes);
    if knee.max_memory < now.max_memory && -gains < WORTH && saves >= WORTH_BYTES {
        let what = format!("A smaller L1 hits about as often, and takes {} mb less.", saves >> 20);
        return Ok(Some(Advice { about: "l1_size", what, why: rates, lines }));
    }
    Ok(None)
}

/// To a size that reads well.
fn round_up(bytes: usize) -> usize {
    if bytes >= 64 << 20 { bytes.next_multiple_of(1 << 20) } else { bytes.next_multiple_of(1 << 10) }
}

#[cfg(test)]
mod tests {
    use super::{Estimate, Point, advice};
    use crate::config::{Config, L1};

    const MB: usize = 1 << 20;

    /// Hit rates of sizes that double, the third of which is the present one.
    fn estimate(rates: &[f64]) -> Estimate {
        let points = rates.iter().enumerate().map(|(place, rate)| Point {
            max_memory: (64 << place) * MB,
            max_entries: 1000 << place,
            entries: 1000 << place,
            bytes: ((32 << place) * MB) as u64,
            hit_rate: *rate,
            error: 0.005,
        });
        Estimate { reads: 20_000.0, measured: Some(0.5), one_in: 4, samples: 5000, points: points.collect() }
    }

    fn l1() -> L1 {
        L1 { max_memory: 256 * MB, max_entries: 4000, ..L1::default() }
    }

    fn lines(rates: &[f64]) -> Option<(usize, usize)> {
        let advice = advice(&estimate(rates), &l1(), 1 << 40).expect("enough traffic")?;
        let config = Config::from_yaml(&advice.lines).unwrap_or_else(|error| panic!("{error}\n{}", advice.lines));
        Some((config.l1.max_memory / MB, config.l1.max_entries))
    }

    #[test]
    fn the_knee_of_the_curve_is_recommended() {
        assert_eq!(lines(&[0.2, 0.3, 0.4, 0.6, 0.8, 0.805]), Some((1024, 16_000)), "more");
        assert_eq!(lines(&[0.2, 0.796, 0.8, 0.8, 0.8, 0.8]), Some((128, 2000)), "less");
        assert_eq!(lines(&[0.2, 0.5, 0.795, 0.8, 0.8, 0.8]), None, "it is right");
        assert_eq!(lines(&[0.2, 0.5, 0.78, 0.785, 0.79, 0.795]), None, "within the error");
    }

    #[test]
    fn no_size_is_recommended_that_the_machine_does_not_have() {
        let found = advice(&estimate(&[0.2, 0.3, 0.4, 0.6, 0.8, 0.9]), &l1(), (600 * MB) as u64).expect("enough");
        assert!(found.expect("more").lines.contains("max_memory: 512mb"));
    }

    #[test]
    fn without_traffic_nothing_is_said() {
        let few = Estimate { reads: 4_000.0, ..estimate(&[0.2, 0.3, 0.4, 0.6, 0.8]) };
        let why = advice(&few, &l1(), 1 << 40).expect_err("too few");
        assert!(why.contains("not enough traffic yet (4000 reads"), "{why}");
        let off = L1 { enabled: false, ..l1() };
        assert_eq!(advice(&few, &off, 1 << 40), Ok(None));
    }
}
