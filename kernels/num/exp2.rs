//! The arithmetic contract: constants of the exact shift, for `f32` and `f64`.
//!
//! Every kernel and the scalar reference compute, for one element `x` of a row,
//!
//! ```text
//! L8   = 8 * scale * log2(e), as a pair L8hi + L8lo         (see `Scale`)
//! t    = fma(x, L8hi, MAGIC)      its low bits hold n = round(8 x scale log2(e)) = 8k + j
//! n    = t - MAGIC                exact
//! r    = fma(x, L8hi, -n); r = fma(x, L8lo, r)              |r| <= 1/2 and a bit
//! s    = TABLE[j] * 2^(k - M)     put together in the integer unit, exact
//! u    = r * POLY(r)              2^(r/8) - 1, |u| < 0.046
//! e    = fma(s, u, s), or 0 when x < cut
//! ```
//!
//! `M` is an integer near the row's largest `x * scale * log2(e)` ([`Scale::shift`]), so no
//! rounding happens in the shift. `e` is `C * exp(scale * x) * 2^-M`, with one
//! constant `C` for all elements, which the quotient removes.
//!
//! Why a table of eight: the largest errors of a polynomial over a whole octave are the rounding of
//! `r` (0.35 u, u = half an ULP at 1) and of its last steps (0.3 u). Over an eighth of an octave
//! all of them shrink eightfold or more, and the same number of instructions buys an `e` whose
//! error is its own final rounding and little else. Two such errors (numerator and denominator) and
//! the rounding of the quotient stay below 3 ULP for certain, which the single polynomial does not.
//! `docs/accuracy.md` has the argument.

use crate::num::scale::{LogShift, Scale, Shift};
use crate::num::{two_product, two_sum};

/// A row's sum: a value and a correction. Rows of f32 are summed in plain f64, and `lo` is 0; in
/// shards of half types `lo` is the sum for probabilities, beside the one for logarithms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum {
    pub(crate) hi: f64,
    pub(crate) lo: f64,
}

impl Sum {
    pub(crate) const ZERO: Sum = Sum { hi: 0.0, lo: 0.0 };

    /// The sum times a power of two.
    #[inline(always)]
    pub(crate) fn times(self, power: f64) -> Sum {
        Sum { hi: self.hi * power, lo: self.lo * power }
    }
}

/// The arithmetic of one floating-point type: its constants, and the scalar steps that are done
/// once per block or row.
pub(crate) trait Contract: Copy + 'static {
    /// The integer type of the same width.
    type Bits: Copy;
    /// `1.5 * 2^(mantissa bits)`: adding it rounds to an integer, ties to even.
    const MAGIC: Self;
    /// Left shift of the integer in the low bits of `t` that puts its multiple of 8 into the
    /// exponent field.
    const SHIFT: u32;
    /// `C * 2^(j/8)`, as bits, minus `j << SHIFT`, so that adding `n << SHIFT` gives
    /// the bits of `C * 2^(n/8)`.
    const TABLE: [Self::Bits; 8];
    /// Coefficients of `(2^(r/8) - 1) / r`, constant term first.
    const POLY: &'static [Self];
    /// The least `k - M` that is not flushed to zero: `e` is still a normal number there.
    const MIN_EXP: i32;

    /// 0, -1, -2 and so on, one for each lane of a vector, and [`NUMBERS`] in all: the lanes from
    /// the `n`th on are below `1 - n`.
    fn lanes() -> &'static [Self];
    /// The least finite number.
    const LEAST: f64;
    /// `8 * scale * log2(e)` as a pair.
    fn l8(scale: &Scale) -> (Self, Self);
    /// `scale` as a pair.
    fn scale(scale: &Scale) -> (Self, Self);
    fn widen(self) -> f64;
    /// Rounds to the nearest.
    fn narrow(x: f64) -> Self;
    /// The sum so far plus the sum of the next block.
    fn sum_add(total: Sum, block: Sum) -> Sum;
    /// `1 / sum` as a pair.
    fn reciprocal(sum: Sum) -> (Self, Self);
    /// A number as a pair; the low part of a number that is not finite is 0.
    fn pair(x: f64) -> (Self, Self);
    /// `C`: the exponential that is computed for 0.
    fn one_times_c() -> f64;
    /// The constants of log-softmax: see [`Scale::log_shift_f32`].
    fn log_shift(scale: &Scale, max: f64, e_max: f64, shift: &Shift, sum: Sum) -> LogShift;
}

/// [`Contract::POLY`] of f32 for probabilities of f16 and bf16: minimax of `1 + r * POLY(r)` for a
/// multiple of `2^(r/8)`, which the quotient removes; the relative error is 2^-18.2 for `|r| <=
/// 1/2`. These types leave out the low half of L8, and their sums and quotients are plain f32
/// (`isa/short.rs`).
pub(crate) const SHORT_POLY: &[f32] = &[f32::from_bits(0x3db1_7cbe), f32::from_bits(0x3b75_f68b)];

/// Adds the lanes of a block's sum as a binary tree: lane i and lane i + half, again and again.
#[inline(always)]
pub(crate) fn fold_f32(mut lanes: [f64; LANES_F32]) -> Sum {
    let mut half = LANES_F32 / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    Sum { hi: lanes[0], lo: 0.0 }
}

/// As [`fold_f32`] for the double-double lanes of f64 rows.
#[inline(always)]
pub(crate) fn fold_f64(hi: [f64; LANES_F64], lo: [f64; LANES_F64]) -> Sum {
    let mut lanes: [Sum; LANES_F64] = std::array::from_fn(|i| Sum { hi: hi[i], lo: lo[i] });
    let mut half = LANES_F64 / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = f64::sum_add(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Lanes of a row's sum, for vectors of any width: element `i` of a block is added to lane `i %
/// LANES` (f32: in f64; f64: in double-double).
pub(crate) const LANES_F32: usize = 16;

/// As [`LANES_F32`], for rows of f64.
pub(crate) const LANES_F64: usize = 8;

/// How many of [`Contract::lanes`] there are: as many as elements in the longest tiny row.
pub(crate) const NUMBERS: usize = 64;

/// Rows whose sums are folded together, where there are many short rows.
pub(crate) const ROWS_AT_ONCE: usize = 8;

/// Elements of a block. A row's sum is the sum of its blocks, added in order. The number is fixed
/// because it defines the bits of a result: a long row may be cut between blocks and spread over
/// threads.
pub const BLOCK: usize = 4096;

const fn table_f32(entries: [u32; 8]) -> [u32; 8] {
    let mut out = entries;
    let mut j = 0;
    while j < 8 {
        out[j] = out[j].wrapping_sub((j as u32) << 20);
        j += 1;
    }
    out
}

const fn table_f64(entries: [u64; 8]) -> [u64; 8] {
    let mut out = entries;
    let mut j = 0;
    while j < 8 {
        out[j] = out[j].wrapping_sub((j as u64) << 49);
        j += 1;
    }
    out
}

impl Contract for f32 {
    type Bits = u32;
    const MAGIC: f32 = 12_582_912.0;
    const SHIFT: u32 = 20;
    const TABLE: [u32; 8] = table_f32([
        0x3f8b_3a3e,
        0x3f97_d424,
        0x3fa5_9202,
        0x3fb4_8e45,
        0x3fc4_e5be,
        0x3fd6_b7da,
        0x3fea_26de,
        0x3fff_5829,
    ]);
    // Minimax of r * POLY(r) for 2^(r/8) - 1, relative to 2^(r/8), |r| <= 0.52 (Lawson's iteration
    // with 60 digits): the error is 0.0017 u before and 0.004 u after rounding to f32.
    const POLY: &'static [f32] = &[
        f32::from_bits(0x3db1_7218),
        f32::from_bits(0x3b75_fdf0),
        f32::from_bits(0x38e3_5fa6),
        f32::from_bits(0x361d_944b),
    ];
    const MIN_EXP: i32 = -126;
    const LEAST: f64 = -f32::MAX as f64;

    #[inline(always)]
    fn lanes() -> &'static [f32] {
        const {
            let mut lanes = [0.0; NUMBERS];
            let mut i = 0;
            while i < lanes.len() {
                lanes[i] = -(i as f32);
                i += 1;
            }
            &{ lanes }
        }
    }
    #[inline(always)]
    fn l8(scale: &Scale) -> (f32, f32) {
        scale.l8_f32
    }
    #[inline(always)]
    fn scale(scale: &Scale) -> (f32, f32) {
        let (hi, lo) = scale.pair();
        (hi as f32, ((hi - f64::from(hi as f32)) + lo) as f32)
    }
    #[inline(always)]
    fn widen(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn narrow(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn sum_add(total: Sum, block: Sum) -> Sum {
        Sum { hi: total.hi + block.hi, lo: total.lo + block.lo }
    }
    #[inline(always)]
    fn reciprocal(sum: Sum) -> (f32, f32) {
        let inverse = 1.0 / sum.hi;
        let hi = inverse as f32;
        (hi, (inverse - f64::from(hi)) as f32)
    }
    #[inline(always)]
    fn pair(x: f64) -> (f32, f32) {
        let hi = x as f32;
        let lo = x - f64::from(hi);
        (hi, if lo.is_finite() { lo as f32 } else { 0.0 })
    }
    #[inline(always)]
    fn one_times_c() -> f64 {
        f32::from_bits(Self::TABLE[0]).into()
    }
    #[inline]
    fn log_shift(scale: &Scale, max: f64, e_max: f64, shift: &Shift, sum: Sum) -> LogShift {
        scale.log_shift_f32(max, e_max, shift, sum.hi)
    }
}

// More digits than f64 holds, as they were computed.
#[allow(clippy::excessive_precision)]
impl Contract for f64 {
    type Bits = u64;
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    const SHIFT: u32 = 49;
    const TABLE: [u64; 8] = table_f64([
        0x3ff1_4b3c_a320_f715,
        0x3ff2_dbef_9ff8_3ca1,
        0x3ff4_90e6_cddb_b1a4,
        0x3ff6_6d6a_7752_dfb9,
        0x3ff8_750e_f46c_90ad,
        0x3ffa_abbb_8ce3_6145,
        0x3ffd_15b1_f9bf_2471,
        0x3fff_b796_94e2_69b6,
    ]);
    // As above, for |r| <= 0.5005: the error is 0.0255 u, u = 2^-53.
    const POLY: &'static [f64] = &[
        0.086_643_397_569_993_164_773_313_3,
        0.003_753_539_171_236_175_799_857_4,
        0.000_108_406_462_235_941_855_537_57,
        0.000_002_348_176_046_163_584_686_43,
        4.069_079_052_538_370_618_43e-8,
        5.876_359_549_406_508_088_279e-10,
        7.272_645_014_302_940_371_924e-12,
    ];
    const MIN_EXP: i32 = -1022;
    const LEAST: f64 = f64::MIN;

    #[inline(always)]
    fn lanes() -> &'static [f64] {
        const {
            let mut lanes = [0.0; NUMBERS];
            let mut i = 0;
            while i < lanes.len() {
                lanes[i] = -(i as f64);
                i += 1;
            }
            &{ lanes }
        }
    }
    #[inline(always)]
    fn l8(scale: &Scale) -> (f64, f64) {
        scale.l8_f64
    }
    #[inline(always)]
    fn scale(scale: &Scale) -> (f64, f64) {
        scale.pair()
    }
    #[inline(always)]
    fn widen(self) -> f64 {
        self
    }
    #[inline(always)]
    fn narrow(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn sum_add(total: Sum, block: Sum) -> Sum {
        let (s, e) = two_sum(total.hi, block.hi);
        let e = e + (total.lo + block.lo);
        let hi = s + e;
        Sum { hi, lo: e - (hi - s) }
    }
    #[inline(always)]
    fn reciprocal(sum: Sum) -> (f64, f64) {
        let hi = 1.0 / sum.hi;
        let (p, p_lo) = two_product(hi, sum.hi);
        (hi, (((1.0 - p) - p_lo) - hi * sum.lo) * hi)
    }
    #[inline(always)]
    fn pair(x: f64) -> (f64, f64) {
        (x, 0.0)
    }
    #[inline(always)]
    fn one_times_c() -> f64 {
        f64::from_bits(Self::TABLE[0])
    }
    #[inline]
    fn log_shift(scale: &Scale, max: f64, e_max: f64, shift: &Shift, sum: Sum) -> LogShift {
        scale.log_shift_f64(max, e_max, shift, (sum.hi, sum.lo))
    }
}

/// `C 2^power` of f64 for `|power| < 1000`, with a relative error of at most 2^-51. Scalar, done
/// once a row.
pub(crate) fn power_of_two(power: f64) -> f64 {
    let t = 8.0 * power + f64::MAGIC;
    let r = 8.0 * power - (t - f64::MAGIC);
    let entry = f64::TABLE[(t.to_bits() & 7) as usize];
    let s = f64::from_bits(entry.wrapping_add(t.to_bits() << f64::SHIFT));
    let q = f64::POLY.iter().rev().fold(0.0, |q, c| q * r + c);
    s + s * (q * r)
}

/// The most lanes that a vector has.
pub const MOST_LANES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two() {
        let c = power_of_two(0.0);
        for i in -40_000..40_000 {
            let power = f64::from(i) / 9_999.0;
            let error = power_of_two(power) / (c * libm::exp2(power)) - 1.0;
            assert!(error.abs() < 2f64.powi(-51), "2^{power}: {error:e} off");
        }
        assert_eq!(power_of_two(-900.0), c * 2f64.powi(-900));
    }
}
