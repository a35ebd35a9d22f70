//! A row in shards that may lie anywhere. Each block is summed to a few numbers, a partial. From
//! the partials of all blocks anyone can compute the row's sum, with the bits that the row in one
//! place would have.
//!
//! A block is summed by the shift of its own maximum. Sums of different shifts differ by powers of
//! two, so bringing them to the row's shift is exact, and they are added in order. The blocks are
//! summed again, by the row's maximum, in two cases: the row's maximum is so far above a block's
//! that the row flushes elements that the block did not, or the row is huge.

use crate::call::Special;
use crate::call::pieces::{BlockSum, Extremes, Piece, RowShift, Whole, first};
use crate::mem::fpenv::in_default_environment;
use crate::num::element::{Element, Plain};
use crate::num::exp2::{BLOCK, Contract, Sum};
use crate::num::scale::Scale;

/// The sum of one block: [`BLOCK`] elements of a row, or its last few. In memory it is the four
/// numbers of [`Partial::to_array`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Partial {
    /// The block's largest element, or the row's if that gave the shift. NaN if the block has one.
    max: f64,
    /// A lower bound of the elements that count in the sum; infinite if the row's maximum gave the
    /// shift.
    least: f64,
    /// The sum of the exponentials, scaled by the power of two that `max` gives; 0 if there is no
    /// sum.
    sum: f64,
    /// The correction of the sum in f64 rows; the sum for probabilities in f16 and bf16 rows.
    rest: f64,
}

// SAFETY: four numbers.
unsafe impl Plain for Partial {}

impl Partial {
    /// The partial of a block of nothing but -inf.
    pub const NOTHING: Self =
        Self { max: f64::NEG_INFINITY, least: f64::NEG_INFINITY, sum: 0.0, rest: 0.0 };

    /// Number of partials of a shard of `n` elements.
    pub const fn count(n: usize) -> usize {
        n.div_ceil(BLOCK)
    }

    /// Four numbers, to be sent.
    pub const fn to_array(self) -> [f64; 4] {
        [self.max, self.least, self.sum, self.rest]
    }

    /// The partial from the four numbers of [`Partial::to_array`].
    pub const fn from_array([max, least, sum, rest]: [f64; 4]) -> Self {
        Self { max, least, sum, rest }
    }

    /// Two numbers, the shift and the sum, for partials of f32. (Those of other types would lose
    /// bits.)
    pub fn to_pair(self) -> [u64; 2] {
        let [max, least] = in_default_environment(|| [self.max as f32, self.least as f32]);
        let shift = u64::from(max.to_bits()) | u64::from(least.to_bits()) << 32;
        [shift, self.sum.to_bits()]
    }

    /// The partial from the two numbers of [`Partial::to_pair`].
    pub fn from_pair([shift, sum]: [u64; 2]) -> Self {
        let wide = |bits: u32| f64::from(f32::from_bits(bits));
        let [max, least] =
            in_default_environment(|| [wide(shift as u32), wide((shift >> 32) as u32)]);
        Self { max, least, sum: f64::from_bits(sum), rest: 0.0 }
    }

    /// The partial of a block that is not summed.
    fn unsummed(max: f64) -> Self {
        let max = max + 0.0;
        Self { max, least: max, sum: 0.0, rest: 0.0 }
    }

    /// A partial with +0 for either zero, and with the same numbers for every block with a NaN:
    /// kernels differ in which zero is the larger, and in the extremes beside a NaN.
    fn new(max: f64, least: f64, sum: Sum) -> Self {
        if sum.hi.is_nan() {
            return Self::unsummed(f64::NAN);
        }
        Self { max: max + 0.0, least: least + 0.0, sum: sum.hi, rest: sum.lo }
    }
}

/// The result of merging the partials of a row.
#[derive(Clone, Copy, Debug)]
pub enum MergedPartials {
    /// The row can be finished.
    Whole(Whole),
    /// The blocks have to be summed again by this, the row's largest element.
    Again(f64),
    /// The row has a NaN.
    Nan,
    /// The row has +inf and no NaN.
    PlusInf,
    /// The row has nothing but -inf.
    AllMasked,
}

impl MergedPartials {
    /// The partial of this row as one block: merged again, alone, it gives the same. `None` if the
    /// blocks have to be summed again.
    pub fn to_partial(&self) -> Option<Partial> {
        in_default_environment(|| match self {
            Self::Whole(whole) => {
                let (max, _, (hi, lo)) = whole.parts();
                Some(Partial::new(max, f64::INFINITY, Sum { hi, lo }))
            }
            Self::Again(_) => None,
            Self::Nan => Some(Partial::unsummed(f64::NAN)),
            Self::PlusInf => Some(Partial::unsummed(f64::INFINITY)),
            Self::AllMasked => Some(Partial::NOTHING),
        })
    }
}

/// Sums a block by a shift; NaN if the block has one.
fn block_sum<T: Element>(sum: &Summing<T>, block: &[T], shift: &RowShift) -> (Sum, f64, f64) {
    let mut sums = [BlockSum::ZERO];
    let found = sum(&mut Piece::read(block), shift, &mut sums);
    (sums[0].0, found.max, found.min)
}

/// A function that sums the blocks of a piece by a shift.
pub(crate) type Summing<'a, T> = dyn Fn(&mut Piece<T>, &RowShift, &mut [BlockSum]) -> Extremes + 'a;

/// Computes the partials of a shard that starts at a multiple of [`BLOCK`], by the row's maximum if
/// it is known.
pub(crate) fn partials<E: Contract, T: Element>(
    sum_by: &Summing<T>,
    x: &[T],
    scale: &Scale,
    row_max: Option<f64>,
    partials: &mut [Partial],
) {
    let by = |max| RowShift::own(scale.shift(max, E::MIN_EXP), max);
    let shift = row_max.map_or_else(|| first::<E, T>(&Piece::read(x), scale), by);
    for (block, partial) in x.chunks(BLOCK).zip(partials) {
        let (sum, max, least) = block_sum(sum_by, block, &shift);
        // A block without a finite maximum may be special, which its sum does not tell.
        let or_special = |partial| match Special::of(block.iter().map(|x| x.to_f64())) {
            Special::AllMasked => partial,
            Special::PlusInf => Partial::unsummed(f64::INFINITY),
            Special::Nan => Partial::unsummed(f64::NAN),
        };
        *partial = if let Some(max) = row_max {
            Partial::new(max, f64::INFINITY, sum)
        } else if !max.is_finite() {
            or_special(Partial::NOTHING)
        } else {
            let own = by(max);
            if own.is_huge() {
                or_special(Partial::unsummed(max))
            } else if let Some(factor) = shift.factor::<E>(&own, least) {
                Partial::new(max, least, sum.times(factor))
            } else {
                let sum = block_sum(sum_by, block, &own).0;
                Partial::new(max, own.cut::<E>(), sum)
            }
        };
    }
}

/// The most octaves between a block's shift and the row's: up to here the low half of the sum stays
/// a normal number.
const FAR: i32 = 900;

/// Adds the partials of all the blocks of a row, in order.
pub(crate) fn merge<E: Contract>(scale: &Scale, partials: &[Partial]) -> MergedPartials {
    if partials.iter().any(|p| p.max.is_nan() || p.sum.is_nan()) {
        return MergedPartials::Nan;
    }
    let max = partials.iter().map(|p| p.max).fold(f64::NEG_INFINITY, f64::max);
    if max == f64::INFINITY {
        return MergedPartials::PlusInf;
    }
    if max == f64::NEG_INFINITY {
        return MergedPartials::AllMasked;
    }
    let own = scale.shift(max, E::MIN_EXP);
    let cut = RowShift::own(own, max).cut::<E>();
    let mut total: Option<Sum> = None;
    for p in partials {
        let of_block = scale.shift(p.max, E::MIN_EXP);
        let sum = if p.max == f64::NEG_INFINITY {
            Sum::ZERO
        } else if p.least == f64::INFINITY && p.max == max {
            Sum { hi: p.sum, lo: p.rest }
        } else if own.is_huge() {
            return MergedPartials::Again(max);
        } else if p.max < cut {
            Sum::ZERO
        } else if p.sum == 0.0 || p.least < cut || own.m - of_block.m > FAR {
            return MergedPartials::Again(max);
        } else {
            let power = f64::from_bits(((1023 + of_block.m - own.m) as u64) << 52);
            Sum { hi: p.sum, lo: p.rest }.times(power)
        };
        total = Some(total.map_or(sum, |total| E::sum_add(total, sum)));
    }
    MergedPartials::Whole(Whole::by_own(max, own, total.unwrap_or(Sum::ZERO)))
}
