//! Long rows in pieces: a piece, the shift of its row, and the merged sums of the row's blocks.

use std::marker::PhantomData;

use crate::call::{Masked, Op, Special, Store, special_row};
use crate::num::element::{Element, Plain};
use crate::num::exp2::{BLOCK, Contract, Sum};
use crate::num::guess::Guess;
use crate::num::scale::{Scale, Shift};

/// A piece of a row to read, and of the row to write; or of one row that is overwritten.
#[derive(Debug)]
pub struct Piece<'a, T> {
    pub(crate) x: *const T,
    pub(crate) y: *mut T,
    pub(crate) n: usize,
    borrowed: PhantomData<&'a mut T>,
}

// SAFETY: a piece is what it was made of, a &[T] and a &mut [T] (or only the latter), which are
// Send for such T.
unsafe impl<T: Send + Sync> Send for Piece<'_, T> {}

impl<'a, T: Element> Piece<'a, T> {
    /// A piece that is read from `x` and written to `y`; elements that only one of them has are
    /// left alone.
    pub fn new(x: &'a [T], y: &'a mut [T]) -> Self {
        let n = x.len().min(y.len());
        Self { x: x.as_ptr(), y: y.as_mut_ptr(), n, borrowed: PhantomData }
    }

    /// A piece that is read from and written to `y`.
    pub fn in_place(y: &'a mut [T]) -> Self {
        // One pointer: a second one, made of the slice again, would invalidate the first.
        let (n, y) = (y.len(), y.as_mut_ptr());
        Self { x: y, y, n, borrowed: PhantomData }
    }

    /// A piece of `n` elements at `x`, written to `y`, or read-only if `y` is null.
    ///
    /// # Safety
    /// The elements may be borrowed for `'a`, those at `y` to be written; `x` and `y` are equal, or
    /// what they point to is disjoint.
    pub(crate) unsafe fn from_raw(x: *const T, y: *mut T, n: usize) -> Self {
        Self { x, y, n, borrowed: PhantomData }
    }

    /// A piece that is only read, for log-sum-exp.
    pub fn read(x: &'a [T]) -> Self {
        Self { x: x.as_ptr(), y: std::ptr::null_mut(), n: x.len(), borrowed: PhantomData }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether there is no output.
    pub(crate) fn is_read_only(&self) -> bool {
        self.y.is_null()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// The elements.
    pub(crate) fn elements(&self) -> impl Iterator<Item = T> {
        // SAFETY: the piece has n elements to read.
        (0..self.n).map(|i| unsafe { *self.x.add(i) })
    }

    /// Writes an element.
    pub(crate) fn set(&mut self, i: usize, value: T) {
        if i < self.n && !self.is_read_only() {
            // SAFETY: the piece has n elements to write.
            unsafe { *self.y.add(i) = value };
        }
    }

    /// The same piece for a shorter lifetime.
    pub fn reborrow(&mut self) -> Piece<'_, T> {
        Piece { x: self.x, y: self.y, n: self.n, borrowed: PhantomData }
    }

    /// The first `blocks` blocks, and the rest.
    pub fn split_blocks(self, blocks: usize) -> (Self, Self) {
        let at = blocks.saturating_mul(BLOCK).min(self.n);
        let piece = |from: usize, n| Piece {
            x: self.x.wrapping_add(from),
            y: if self.is_read_only() { self.y } else { self.y.wrapping_add(from) },
            n,
            borrowed: PhantomData,
        };
        (piece(0, at), piece(at, self.n - at))
    }
}

/// The sum of a block's exponentials.
#[derive(Clone, Copy, Debug)]
pub struct BlockSum(pub(crate) Sum);

// SAFETY: two numbers.
unsafe impl Plain for BlockSum {}

impl BlockSum {
    /// The sum of no elements.
    pub const ZERO: Self = Self(Sum::ZERO);

    /// Number of blocks of a row of `n` elements.
    pub fn count(n: usize) -> usize {
        n.div_ceil(BLOCK)
    }
}

/// How a row is shifted.
#[derive(Clone, Copy, Debug)]
pub struct RowShift {
    /// The guess behind the shift; `None` if it is the row's own.
    pub(crate) guess: Option<Guess>,
    pub(crate) shift: Shift,
    /// The row's largest element, where known.
    pub(crate) max: f64,
}

impl RowShift {
    /// The shift of a row with the maximum `max`.
    pub(crate) fn own(shift: Shift, max: f64) -> Self {
        Self { guess: None, shift, max }
    }

    pub(crate) fn shift(&self) -> &Shift {
        &self.shift
    }

    pub(crate) fn is_huge(&self) -> bool {
        self.shift.is_huge()
    }

    /// The least element that is not flushed.
    pub(crate) fn cut<E: Contract>(&self) -> f64 {
        E::narrow(self.shift.cut).widen()
    }

    /// The power of two that turns sums by this guess into sums by `own`. `None` if the guess was
    /// not good for a row whose smallest element that was not dropped is `least`.
    pub(crate) fn factor<E: Contract>(&self, own: &Self, least: f64) -> Option<f64> {
        let good = |guess: &Guess| {
            guess.is_near(&own.shift) && guess.is_low_enough::<E>(&own.shift, least)
        };
        self.guess.filter(good).map(|guess| guess.factor(&own.shift))
    }
}

/// The extremes of a piece.
#[derive(Clone, Copy, Debug)]
pub struct Extremes {
    pub(crate) max: f64,
    pub(crate) min: f64,
}

impl Extremes {
    /// The extremes of no elements.
    pub const NONE: Self = Self { max: f64::NEG_INFINITY, min: f64::INFINITY };

    /// The extremes of two pieces together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        // `max` and `min` ignore a NaN, but the sums show it.
        Self { max: self.max.max(other.max), min: self.min.min(other.min) }
    }
}

/// A row whose sum is known.
#[derive(Clone, Copy, Debug)]
pub struct Whole {
    pub(crate) max: f64,
    pub(crate) own: Shift,
    pub(crate) used: Shift,
    pub(crate) factor: f64,
    pub(crate) sum: Sum,
    /// [`Scale::is_wide`]; true if the smallest element is not known.
    pub(crate) wide: bool,
}

impl Whole {
    /// A row that was summed by its own shift.
    pub(crate) fn by_own(max: f64, own: Shift, sum: Sum) -> Self {
        Self { max, own, used: own, factor: 1.0, sum, wide: true }
    }

    /// The same row with the sum for probabilities, for shards of half types.
    pub(crate) fn of_probs(&self) -> Self {
        Self { sum: Sum { hi: self.sum.lo, lo: 0.0 }, ..*self }
    }

    /// The maximum, the row's own shift, and the sum by that shift.
    pub(crate) fn parts(&self) -> (f64, Shift, (f64, f64)) {
        let sum = self.sum.times(self.factor);
        (self.max, self.own, (sum.hi, sum.lo))
    }
}

/// The result of merging the sums of a row's pieces.
#[derive(Clone, Copy, Debug)]
pub enum Merged {
    /// The row can be finished.
    Whole(Whole),
    /// The guess was wrong: the pieces have to be summed again, by this shift.
    Again(RowShift),
    /// The row is special: [`Pieces::special`](crate::Pieces::special) writes its result.
    Special,
}

/// How pieces are computed.
#[derive(Clone, Copy, Debug)]
pub struct PieceOptions {
    /// Keep exponentials in the output between the two passes. Only for types that are their own
    /// arithmetic type, and not in place.
    pub keep: bool,
    /// How the output is stored.
    pub store: Store,
}

impl Default for PieceOptions {
    fn default() -> Self {
        Self { keep: false, store: Store::CACHED }
    }
}

impl PieceOptions {
    /// The options that this piece can have: keeping needs an output of the arithmetic type.
    pub(crate) fn checked<T: Element>(self, piece: &Piece<T>) -> Self {
        let separate = !piece.y.is_null() && piece.x != piece.y.cast_const();
        Self {
            keep: self.keep && T::IS_ARITHMETIC && separate,
            store: if separate { self.store } else { Store::CACHED },
        }
    }
}

/// Number of a row's first elements from which its shift is guessed.
const SAMPLE: usize = 256;

/// The guess for a row that starts with this piece.
pub(crate) fn first<E: Contract, T: Element>(row: &Piece<T>, scale: &Scale) -> RowShift {
    let sample = row.elements().take(SAMPLE).map(T::to_f64);
    let max = sample.filter(|v| v.is_finite()).fold(f64::NEG_INFINITY, f64::max);
    let own = scale.shift(max, E::MIN_EXP);
    let guess =
        if own.is_huge() { Guess::first::<E>(scale) } else { Guess::like::<E>(&own, scale) };
    RowShift { guess: Some(guess), shift: guess.shift(), max }
}

/// Adds the sums of a row's blocks and judges its shift.
pub(crate) fn merge<E: Contract>(
    scale: &Scale,
    shift: &RowShift,
    extremes: Extremes,
    sums: &[BlockSum],
) -> Merged {
    let mut blocks = sums.iter().map(|sum| sum.0);
    let Some(first) = blocks.next() else { return Merged::Special };
    let sum = blocks.fold(first, E::sum_add);
    let (max, own, factor, wide) = match shift.guess {
        None => (shift.max, shift.shift, 1.0, true),
        Some(_) => {
            let max = extremes.max;
            if !max.is_finite() {
                return Merged::Special;
            }
            let own = RowShift::own(scale.shift(max, E::MIN_EXP), max);
            let Some(factor) = shift.factor::<E>(&own, extremes.min) else {
                return Merged::Again(own);
            };
            (max, own.shift, factor, scale.is_wide(max, extremes.min, sums.len() * BLOCK))
        }
    };
    if sum.hi.is_nan() {
        return Merged::Special;
    }
    Merged::Whole(Whole { max, own, used: shift.shift, factor, sum, wide })
}

/// Writes the result of a special row, or, for log-sum-exp, returns it.
pub(crate) fn special<T: Element>(piece: &mut Piece<T>, op: Op, masked: Masked) -> T {
    let special = Special::of(piece.elements().map(T::to_f64));
    write_special(piece, &special, op, masked)
}

/// As [`special`] for a row that was classified before.
pub(crate) fn write_special<T: Element>(
    piece: &mut Piece<T>,
    special: &Special,
    op: Op,
    masked: Masked,
) -> T {
    if op == Op::LogSumExp || piece.is_read_only() {
        return special.value();
    }
    let nothing = if op == Op::Softmax { T::ZERO } else { T::NEG_INFINITY };
    // SAFETY: the piece has n elements to write.
    unsafe { special_row(special, piece.y, piece.n, masked, nothing) };
    nothing
}
