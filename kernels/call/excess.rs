//! Probabilities as integers, for draws from the excess of one row of probabilities over another.
//!
//! ```text
//! units(p)     = p in units of 2^-52, rounded to nearest, ties to even; 2^52 for p above 1
//! excess(p, q) = max(units(p) - units(q), 0)
//! ```
//!
//! They are integers, so that their sums have one value, in any order, and so has a draw by them.

/// The units of probability 1.
pub const CERTAIN: u64 = 1 << 52;

/// The largest number that counts as a probability: sums of rounded ones are above 1.
const MOST: f64 = 1.0 + 1.0 / 1024.0;

/// Whether a number is a probability: not NaN, not below 0, above 1 by rounding at most.
#[inline(always)]
#[allow(clippy::manual_range_contains)] // it has a branch
pub fn is_prob(p: f64) -> bool {
    (p >= 0.0) & (p <= MOST)
}

/// The units of a probability; any number for what [`is_prob`] refuses.
#[inline(always)]
pub fn prob_units(p: f64) -> u64 {
    let p = if p < 1.0 { p } else { 1.0 };
    // From 1 to 2 numbers are multiples of 2^-52, and their bits count these.
    (1.0 + p).to_bits().wrapping_sub(1f64.to_bits())
}

/// The units by which `p` is above `q`.
#[inline(always)]
pub fn excess(p: f64, q: f64) -> u64 {
    (prob_units(p) as i64).wrapping_sub(prob_units(q) as i64).max(0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_rounded_to_nearest() {
        let unit = f64::EPSILON;
        for (p, units) in [
            (0.0, 0),
            (-0.0, 0),
            (unit, 1),
            (unit / 2.0, 0),
            (unit * 1.5, 2),
            (unit * 0.75, 1),
            (0.25, CERTAIN / 4),
            (1.0, CERTAIN),
            (1.0 + f64::from(f32::EPSILON), CERTAIN),
        ] {
            assert!(is_prob(p));
            assert_eq!(prob_units(p), units, "{p}");
            assert_eq!((excess(p, 0.0), excess(0.0, p)), (units, 0), "{p}");
        }
        let bad = [f64::NAN, -f64::NAN, -1e-300, 1.001, f64::INFINITY, f64::NEG_INFINITY];
        assert!(!bad.into_iter().any(is_prob));
    }
}
