//! Times: interleaved rounds, medians, spreads, outliers.

use std::time::Instant;

/// The mean seconds of a call.
pub fn seconds(calls: u64, mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..calls).for_each(|_| call());
    start.elapsed().as_secs_f64() / calls.max(1) as f64
}

/// Times `count` items in turn, round after round, so that whatever slows the machine for a while
/// slows all of them. `time(i)` returns the seconds of item `i`, or `None` to stop. Returns the
/// times of each; after a stop, some have one less.
pub fn interleaved(
    rounds: usize,
    count: usize,
    mut time: impl FnMut(usize) -> Option<f64>,
) -> Vec<Vec<f64>> {
    let mut times = vec![Vec::with_capacity(rounds); count];
    for _ in 0..rounds {
        for (i, times_of_i) in times.iter_mut().enumerate() {
            let Some(seconds) = time(i) else { return times };
            times_of_i.push(seconds);
        }
    }
    times
}

/// Statistics of times.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// The middle time, or the mean of the two in the middle.
    pub median: f64,
    /// The difference of the quartiles, as a share of the median.
    pub spread: f64,
    /// Indices of times that exceed the upper quartile by more than 1.5 times the difference of the
    /// quartiles (Tukey), and the median by 2%.
    pub outliers: Vec<usize>,
}

impl Statistics {
    /// The statistics, or `None` without times.
    pub fn of(times: &[f64]) -> Option<Self> {
        if times.is_empty() {
            return None;
        }
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        let quantile = |q: f64| {
            let at = q * (sorted.len() - 1) as f64;
            let (below, above) = (sorted[at as usize], sorted[at.ceil() as usize]);
            below + (above - below) * at.fract()
        };
        let (median, upper) = (quantile(0.5), quantile(0.75));
        let between = upper - quantile(0.25);
        let fence = (upper + 1.5 * between).max(1.02 * median);
        let outliers = (0..times.len()).filter(|&i| times[i] > fence).collect();
        Some(Self { median, spread: between / median, outliers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_outliers() {
        assert_eq!(Statistics::of(&[]), None);
        let one = Statistics::of(&[2.0]).expect("there is a time");
        assert_eq!((one.median, one.spread, one.outliers), (2.0, 0.0, vec![]));
        let some = Statistics::of(&[1.0, 5.0, 1.0, 1.01, 0.99, 1.0]).expect("there are times");
        assert_eq!((some.median, some.outliers), (1.0, vec![1]));
        assert!(some.spread < 0.02);
        let two = Statistics::of(&[1.0, 3.0]).expect("there are times");
        assert_eq!((two.median, two.spread), (2.0, 0.5));
    }

    #[test]
    fn rounds_are_interleaved_and_can_be_stopped() {
        let mut order = Vec::new();
        let times = interleaved(2, 3, |i| {
            order.push(i);
            (order.len() < 6).then_some(i as f64)
        });
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
        assert_eq!(times, [vec![0.0, 0.0], vec![1.0, 1.0], vec![2.0]]);
    }
}
