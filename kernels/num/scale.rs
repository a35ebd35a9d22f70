//! The factor in `exp(scale * x)`, and the constants that are derived from it once per call.

use crate::num::ln::{LN_C_F32, LN_C_F64, ln_pair};
use crate::num::{two_product, two_sum};

const LOG2_E: (f64, f64) = (std::f64::consts::LOG2_E, f64::from_bits(0x3c77_77d0_ffda_0d24));

const LN_2: (f64, f64) = (std::f64::consts::LN_2, f64::from_bits(0x3c7a_bc9e_3b39_803f));

/// From this `|max * scale * log2(e)|` on, a row's maximum is subtracted from its elements, which
/// is exact for every element that matters.
const HUGE: f64 = 65_536.0;

/// The factor by which inputs are multiplied before the exponential, ready for use.
///
/// `softmax(x)` with scale `a` is `exp(a x_i) / sum_j exp(a x_j)`. A temperature `T` is the scale
/// `1/T`, kept to twice the precision of f64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    hi: f64,
    lo: f64,
    /// `8 * scale * log2(e)` as two f32.
    pub(crate) l8_f32: (f32, f32),
    /// `8 * scale * log2(e)` as two f64.
    pub(crate) l8_f64: (f64, f64),
    inv_l: f64,
}

/// How one row is shifted; it follows from the row's maximum alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shift {
    /// Subtracted from every element first; 0 except in rows of huge magnitude.
    pub(crate) subtract: f64,
    /// `M`: exponentials are scaled by `2^-M`.
    pub(crate) m: i32,
    /// Elements (after the subtraction) below this give exactly 0.
    pub(crate) cut: f64,
}

impl Shift {
    /// Whether the row's maximum must be subtracted from its elements.
    pub(crate) fn is_huge(&self) -> bool {
        self.subtract != 0.0
    }
}

/// The constants of log-softmax: `x` becomes `(x - max) * scale - c`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogShift {
    pub(crate) max: f64,
    pub(crate) scale: (f64, f64),
    /// `ln(sum_j exp(scale * (x_j - max)))`
    pub(crate) c: (f64, f64),
}

/// Above this a maximum may be so far from the least number that the difference overflows: both are
/// halved first, and the scale is doubled.
const FAR: f64 = f64::from_bits((1023 + 969) << 52);

impl LogShift {
    /// The log-sum-exp of the row: `max * scale + c`.
    pub(crate) fn logsumexp(&self) -> f64 {
        let (p, p_lo) = two_product(self.max, self.scale.0);
        // Here c is far below half an ULP, and the exact product or a step towards it would
        // overflow.
        if p.abs() > 1e280 || self.max.abs() > 6e299 {
            return p;
        }
        let (s, s_lo) = two_sum(p, self.c.0 + 0.0);
        s + (s_lo + (p_lo + (self.c.1 + self.max * self.scale.1)))
    }
}

impl LogShift {
    /// Whether `x - max` may overflow although its product with the scale does not.
    #[inline(always)]
    pub(crate) fn is_far(&self) -> bool {
        self.max > FAR
    }

    /// The constants for elements that were halved.
    #[inline(always)]
    pub(crate) fn halved(&self) -> Self {
        let scale = (2.0 * self.scale.0, 2.0 * self.scale.1);
        Self { max: 0.5 * self.max, scale, ..*self }
    }

    /// The log-probability of `x`, `(x - max) * scale - c`, to the precision of f64.
    pub(crate) fn log_prob(&self, x: f64) -> f64 {
        if self.is_far() { self.halved().near_log_prob(0.5 * x) } else { self.near_log_prob(x) }
    }

    /// As [`LogShift::log_prob`] for an element whose difference from the maximum does not
    /// overflow.
    fn near_log_prob(&self, x: f64) -> f64 {
        let (d, d_lo) = two_sum(x, -self.max);
        // Here nothing else counts, and the exact product or a step towards it would overflow.
        if d < -1e280 || d * self.scale.0 < -1e280 {
            return d * self.scale.0;
        }
        let (p, p_lo) = two_product(d, self.scale.0);
        let (s, s_lo) = two_sum(p, -self.c.0);
        s + (s_lo + (p_lo + ((d_lo * self.scale.0 + d * self.scale.1) - self.c.1)))
    }
}

impl Scale {
    /// The smallest and the largest scale that is accepted: `2^-60` and `2^60`. Between them no
    /// constant derived from the scale overflows or loses precision.
    pub const RANGE: (f64, f64) = (1.0 / (1u64 << 60) as f64, (1u64 << 60) as f64);

    /// No scaling.
    pub const ONE: Scale = Scale::from_parts(1.0, 0.0);

    /// The scale `a`, or `None` if it is NaN or outside [`Scale::RANGE`].
    pub const fn new(a: f64) -> Option<Scale> {
        if a >= Self::RANGE.0 && a <= Self::RANGE.1 { Some(Self::from_parts(a, 0.0)) } else { None }
    }

    /// The smallest and the largest temperature that are told apart from others: `2^-100` and
    /// `2^100`. Those outside count as the nearer of the two; pairs of f32 hold both scales to full
    /// precision.
    ///
    /// Smaller ones give what temperature 0 gives, for logits that differ by more than 2^-90 (f32:
    /// 2^-93); larger ones what an infinite one gives, for logits below 2^46 (f32: 2^75).
    pub const TEMPERATURES: (f64, f64) =
        (f64::from_bits((1023 - 100) << 52), f64::from_bits((1023 + 100) << 52));

    /// The scale `1/t`; a `t` outside [`Scale::TEMPERATURES`] is replaced by the nearest end of
    /// that range. `None` if `t` is NaN, infinite or not above 0.
    pub fn from_temperature(t: f64) -> Option<Scale> {
        if !(t > 0.0 && t.is_finite()) {
            return None;
        }
        let t = t.clamp(Self::TEMPERATURES.0, Self::TEMPERATURES.1);
        let hi = 1.0 / t;
        let (p, p_lo) = two_product(hi, t);
        Some(Self::from_parts(hi, ((1.0 - p) - p_lo) / t))
    }

    /// The factor, rounded to f64.
    pub fn get(&self) -> f64 {
        self.hi
    }

    /// The factor as a pair, whose low part is 0 but for temperatures.
    pub fn pair(&self) -> (f64, f64) {
        (self.hi, self.lo)
    }

    const fn from_parts(hi: f64, lo: f64) -> Scale {
        let (p, p_lo) = two_product(hi, LOG2_E.0);
        let tail = p_lo + (hi * LOG2_E.1 + lo * LOG2_E.0);
        let l = p + tail;
        let l_lo = (p - l) + tail;
        let l8_f32_hi = (8.0 * l) as f32;
        Scale {
            hi,
            lo,
            l8_f32: (l8_f32_hi, (8.0 * l - l8_f32_hi as f64) as f32),
            l8_f64: (8.0 * l, 8.0 * l_lo),
            inv_l: 1.0 / l,
        }
    }

    /// The shift of a row with this finite maximum.
    pub(crate) fn shift(&self, max: f64, min_exp: i32) -> Shift {
        let top = max * (self.l8_f64.0 * 0.125);
        // One less than the maximum's own exponent: its e is then in [2, 8), and an element is
        // flushed only if it is below 2^-126 (f64: 2^-1022) of the largest.
        let (subtract, m) =
            if top.abs() < HUGE { (0.0, top.floor() as i32 - 1) } else { (max, -1) };
        Shift { subtract, m, cut: self.cut(m, min_exp) }
    }

    /// Whether a row of `n` elements with these extremes is so wide that low parts of its quotients
    /// may be subnormal.
    ///
    /// Proof for rows within `72 - log2(n)` octaves: `e / s` is above `2^-73`, and the low part of
    /// `1/s` is 0 or at least `2^-53` of it (f64: `2^-300`, as it is a sum of multiples of that).
    /// Together they are above 2^-126.
    #[inline(always)]
    pub(crate) fn is_wide(&self, max: f64, min: f64, n: usize) -> bool {
        let digits = u64::BITS - (n as u64).leading_zeros();
        let narrow = (max - min) * self.l8_f64.0 < 8.0 * (72.0 - f64::from(digits));
        !narrow
    }

    /// The element whose exponential is `2^min_exp` times C after the shift by `m`.
    pub(crate) fn cut(&self, m: i32, min_exp: i32) -> f64 {
        f64::from(m + min_exp) * self.inv_l
    }

    /// The constants of log-softmax, from a row's maximum, its exponential `e_max`, the shift and
    /// the sum.
    ///
    /// `c = ln(sum / e_max)` where the largest element has half of the sum or more: the error of
    /// `e_max` cancels, so that a row of one element gives exactly 0 and a peaked row keeps its
    /// relative precision. Elsewhere `c = ln(sum / C) + M ln(2) - max * scale`, where no single
    /// error matters.
    pub(crate) fn log_shift_f32(&self, max: f64, e_max: f64, shift: &Shift, sum: f64) -> LogShift {
        let c = if sum <= 2.0 * e_max {
            libm::log1p((sum - e_max) / e_max)
        } else {
            let (d, d_lo) = self.of_maximum(max, shift);
            (libm::log(sum) - LN_C_F32) + (d + d_lo)
        };
        self.log_shift(max, (c, 0.0))
    }

    /// As [`Scale::log_shift_f32`] for a row of f64 with the sum `sum.0 + sum.1`; `c` has no error
    /// but that of the sum.
    pub(crate) fn log_shift_f64(
        &self,
        max: f64,
        e_max: f64,
        shift: &Shift,
        sum: (f64, f64),
    ) -> LogShift {
        let c = if sum.0 <= 2.0 * e_max {
            let others = ((sum.0 - e_max) + sum.1) / e_max;
            if others < 0.125 {
                (libm::log1p(others), 0.0)
            } else {
                // The last place of a logarithm counts here.
                let ratio = sum.0 / e_max;
                let (p, p_lo) = two_product(ratio, e_max);
                ln_pair(ratio, (((sum.0 - p) - p_lo) + sum.1) / e_max)
            }
        } else {
            let (ln, ln_lo) = ln_pair(sum.0, sum.1);
            let (ln, error) = two_sum(ln, -LN_C_F64.0);
            let ln_lo = error + (ln_lo - LN_C_F64.1);
            let (d, d_lo) = self.of_maximum(max, shift);
            let (c, c_lo) = two_sum(d, ln);
            let c_lo = c_lo + (d_lo + ln_lo);
            let hi = c + c_lo;
            (hi, (c - hi) + c_lo)
        };
        self.log_shift(max, c)
    }

    /// A `c` of 0 is stored as -0: subtracting it gives +0 for the largest element, whether that
    /// and `max` are 0 or -0.
    fn log_shift(&self, max: f64, c: (f64, f64)) -> LogShift {
        LogShift { max, scale: (self.hi, self.lo), c: (-(0.0 - c.0), c.1) }
    }

    /// `M ln(2) - max * scale` as a pair. In a huge row the exponents are without the maximum
    /// already.
    fn of_maximum(&self, max: f64, shift: &Shift) -> (f64, f64) {
        let m = f64::from(shift.m);
        let (a, a_lo) = two_product(m, LN_2.0);
        let a_lo = a_lo + m * LN_2.1;
        if shift.is_huge() {
            return (a, a_lo);
        }
        let (b, b_lo) = two_product(max, self.hi);
        let (d, d_lo) = two_sum(a, -b);
        (d, d_lo + (a_lo - (b_lo + max * self.lo)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_is_closed_and_nan_is_out() {
        for good in [Scale::RANGE.0, 1.0, Scale::RANGE.1] {
            assert!(
                Scale::new(good).is_some() && Scale::from_temperature(good).is_some(),
                "{good}"
            );
        }
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Scale::new(bad).is_none() && Scale::from_temperature(bad).is_none(), "{bad}");
        }
        let out = [Scale::RANGE.0 / 2.0, Scale::RANGE.1 * 2.0];
        assert!(out.iter().all(|&a| Scale::new(a).is_none()));
        let (least, most) = Scale::TEMPERATURES;
        for (t, nearest) in [(5e-324, least), (1e-31, least), (1e31, most), (f64::MAX, most)] {
            assert_eq!(Scale::from_temperature(t), Scale::from_temperature(nearest));
        }
        assert_ne!(Scale::from_temperature(1e-30), Scale::from_temperature(least));
    }

    #[test]
    fn the_pairs_carry_log2_e_to_twice_the_precision() {
        let s = Scale::ONE;
        assert_eq!(s.l8_f64, (8.0 * LOG2_E.0, 8.0 * LOG2_E.1));
        let sum = f64::from(s.l8_f32.0) + f64::from(s.l8_f32.1);
        assert!((sum / (8.0 * LOG2_E.0) - 1.0).abs() < 2f64.powi(-48), "{sum:e}");
        // 1/3 is not an f64: the pair must have the missing part.
        let third = Scale::from_temperature(3.0).unwrap();
        assert_eq!(third.hi.mul_add(3.0, -1.0), -3.0 * third.lo);
    }
}
