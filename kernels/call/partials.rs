//! A row in shards that may lie anywhere: each block comes to a few numbers, from which whoever has
//! those of all blocks gets the row's sum, with the bits that the row in one place would have.
//!
//! A block is summed by a shift of its own, its maximum's. Sums of different shifts differ by
//! powers of two, so bringing them to the row's shift is exact, and they are added in order. That
//! is all unless the row's maximum is so far above a block's that the row flushes some of what the
//! block did not, or is huge: then the blocks are summed again, by the row's maximum.

use crate::call::Special;
use crate::call::pieces::{BlockSum, Extremes, Piece, RowShift, Whole, first};
use crate::mem::fpenv::in_default_environment;
use crate::num::element::Element;
use crate::num::exp2::{BLOCK, Contract, Sum};
use crate::num::scale::Scale;

/// What a block of a row, [`BLOCK`] elements or its last few, comes to. In memory it is the four
/// numbers of [`Partial::to_array`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Partial {
    /// The block's largest element, or the row's, if that gave the shift. NaN if the block has one.
    max: f64,
    /// No element that counts in the sum is smaller; infinite if the row's maximum gave the shift.
    least: f64,
    /// The sum of the exponentials, scaled by the power of two that `max` gives; 0 if they were not
    /// summed.
    sum: f64,
    /// What the sum lacks, in f64 rows; the sum for probabilities, in f16 and bf16 rows.
    rest: f64,
}

impl Partial {
    /// That of a block of nothing but -inf.
    pub const NOTHING: Self =
        Self { max: f64::NEG_INFINITY, least: f64::NEG_INFINITY, sum: 0.0, rest: 0.0 };

    /// How many partials a shard of `n` elements has.
    pub const fn count(n: usize) -> usize {
        n.div_ceil(BLOCK)
    }

    /// As four numbers, to be sent.
    pub const fn to_array(self) -> [f64; 4] {
        [self.max, self.least, self.sum, self.rest]
    }

    /// From the four numbers that [`Partial::to_array`] gave.
    pub const fn from_array([max, least, sum, rest]: [f64; 4]) -> Self {
        Self { max, least, sum, rest }
    }

    /// As two numbers, the shift and the sum, for partials of f32. (Those of other types would lose
    /// bits.)
    pub fn to_pair(self) -> [u64; 2] {
        let [max, least] = in_default_environment(|| [self.max as f32, self.least as f32]);
        let shift = u64::from(max.to_bits()) | u64::from(least.to_bits()) << 32;
        [shift, self.sum.to_bits()]
    }

    /// From the two numbers that [`Partial::to_pair`] gave.
    pub fn from_pair([shift, sum]: [u64; 2]) -> Self {
        let wide = |bits: u32| f64::from(f32::from_bits(bits));
        let [max, least] =
            in_default_environment(|| [wide(shift as u32), wide((shift >> 32) as u32)]);
        Self { max, least, sum: f64::from_bits(sum), rest: 0.0 }
    }

    /// Of a block that is not summed.
    fn unsummed(max: f64) -> Self {
        let max = max + 0.0;
        Self { max, least: max, sum: 0.0, rest: 0.0 }
    }

    /// Which zero is the larger one depends on the kernel, and in a block with NaN which of its
    /// elements are: there is one of each.
    fn new(max: f64, least: f64, sum: Sum) -> Self {
        if sum.hi.is_nan() {
            return Self::unsummed(f64::NAN);
        }
        Self { max: max + 0.0, least: least + 0.0, sum: sum.hi, rest: sum.lo }
    }
}

/// What the partials of a row come to.
#[derive(Clone, Copy, Debug)]
pub enum MergedPartials {
    /// The row can be finished.
    Whole(Whole),
    /// The blocks are to be summed again by this, the row's largest element.
    Again(f64),
    /// The row has a NaN.
    Nan,
    /// It has +inf and no NaN.
    PlusInf,
    /// It has nothing but -inf.
    AllMasked,
}

impl MergedPartials {
    /// As the partial of a row of one block: merged again, alone, it comes to the same. `None` if
    /// the blocks are to be summed again.
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

/// What sums the blocks of a piece by a shift.
pub(crate) type Summing<'a, T> = dyn Fn(&mut Piece<T>, &RowShift, &mut [BlockSum]) -> Extremes + 'a;

/// The partials of a shard that starts at a multiple of [`BLOCK`], by the row's maximum where it is
/// known.
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
        // Of a block whose sum does not tell: what is special about it, if anything is.
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

/// Octaves between a block's shift and the row's up to which the low half of the sum stays a normal
/// number.
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
