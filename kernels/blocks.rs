//! Huge rows: one row in pieces, each of whole blocks, that any number of threads may do in any order.
//!
//! A piece is read once for its sums, with a shift guessed from the row's first elements, and once more to be finished. Between the
//! two, the sums of all blocks are added in order, so that the result has the same bits whatever the pieces were.

use std::marker::PhantomData;

use crate::call::Masked;
use crate::element::Element;
use crate::exp2::{BLOCK, Contract, Sum};
use crate::guess::Guess;
use crate::memory;
use crate::pipeline::{Again, Kept, Log, Reduced, Task, sweep_alone};
use crate::rows::{
    Exact, Exp, Finish, Forget, Guessed, Keep, Keeps, Odd, Plain, finish_row, odd_row,
};
use crate::scale::{Scale, Shift};
use crate::shards::{MergedPartials, Partial};
use crate::table::Op;
use crate::vector::{Io, Vector};

/// A piece of a row to be read, and of another to be written; or of one row to be read and overwritten.
#[derive(Debug)]
pub struct Piece<'a, T> {
    x: *const T,
    y: *mut T,
    n: usize,
    borrowed: PhantomData<&'a mut T>,
}

// SAFETY: a piece is what it was made of, a &[T] and a &mut [T] (or only the latter), which are Send for such T.
unsafe impl<T: Send + Sync> Send for Piece<'_, T> {}

impl<'a, T: Element> Piece<'a, T> {
    /// From `x` to `y`, which must be as long; what is too long is left alone.
    pub fn new(x: &'a [T], y: &'a mut [T]) -> Self {
        let n = x.len().min(y.len());
        Self { x: x.as_ptr(), y: y.as_mut_ptr(), n, borrowed: PhantomData }
    }

    /// `y` to itself.
    pub fn in_place(y: &'a mut [T]) -> Self {
        // One pointer: another, made of the slice before it, would not be valid any more.
        let (n, y) = (y.len(), y.as_mut_ptr());
        Self { x: y, y, n, borrowed: PhantomData }
    }

    /// `x`, of which nothing but its log-sum-exp is wanted.
    pub fn read(x: &'a [T]) -> Self {
        Self { x: x.as_ptr(), y: std::ptr::null_mut(), n: x.len(), borrowed: PhantomData }
    }

    /// Elements.
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

    /// Its elements.
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

    /// The same piece, for a while.
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

impl BlockSum {
    /// Of nothing.
    pub const ZERO: Self = Self(Sum::ZERO);

    /// How many blocks a row of `n` elements has.
    pub fn count(n: usize) -> usize {
        n.div_ceil(BLOCK)
    }
}

/// How a row is shifted.
#[derive(Clone, Copy, Debug)]
pub struct RowShift {
    /// `None` if the shift is the row's own.
    guess: Option<Guess>,
    shift: Shift,
    /// The row's largest element, where it is known.
    max: f64,
}

impl RowShift {
    /// By a maximum.
    pub(crate) fn own(shift: Shift, max: f64) -> Self {
        Self { guess: None, shift, max }
    }

    pub(crate) fn shift(&self) -> &Shift {
        &self.shift
    }

    pub(crate) fn is_huge(&self) -> bool {
        self.shift.is_huge()
    }

    /// Elements from here on count.
    pub(crate) fn cut<E: Contract>(&self) -> f64 {
        E::narrow(self.shift.cut).widen()
    }

    /// The power of two that turns sums by this guess into sums by `own`; `None` where the guess
    /// was not good for a row whose smallest element, but for those that were dropped, is `least`.
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
    /// Those of nothing.
    pub const NONE: Self = Self { max: f64::NEG_INFINITY, min: f64::INFINITY };

    /// Those of two pieces.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        // A NaN that is ignored here shows in the sums.
        Self { max: self.max.max(other.max), min: self.min.min(other.min) }
    }
}

/// A row whose sum is known.
#[derive(Clone, Copy, Debug)]
pub struct Whole {
    max: f64,
    own: Shift,
    used: Shift,
    factor: f64,
    sum: Sum,
    /// [`Scale::is_wide`]; true where the smallest element is not known.
    wide: bool,
}

impl Whole {
    /// Summed by the row's own shift.
    pub(crate) fn by_own(max: f64, own: Shift, sum: Sum) -> Self {
        Self { max, own, used: own, factor: 1.0, sum, wide: true }
    }

    /// The maximum, the own shift, and the sum by it.
    pub(crate) fn parts(&self) -> (f64, Shift, (f64, f64)) {
        let sum = self.sum.times(self.factor);
        (self.max, self.own, (sum.hi, sum.lo))
    }
}

/// What the sums of a row's pieces come to.
#[derive(Clone, Copy, Debug)]
pub enum Merged {
    /// The row can be finished.
    Whole(Whole),
    /// The guess was wrong: its pieces are to be summed again.
    Again(RowShift),
    /// It has a NaN or +inf, or nothing but -inf: [`Pieces::odd`](crate::Pieces::odd) knows what becomes of it.
    Odd,
}

/// How pieces are done.
#[derive(Clone, Copy, Debug, Default)]
pub struct PieceOptions {
    /// The exponentials wait in the output between the two readings. Only for types computed in themselves, and
    /// not in place.
    pub keep: bool,
    /// The output is written past the caches.
    pub stream: bool,
}

impl PieceOptions {
    /// The options without those that this piece cannot have: keeping needs an output of the
    /// arithmetic type.
    pub(crate) fn checked<T: Element>(self, piece: &Piece<T>) -> Self {
        let separate = !piece.y.is_null() && piece.x != piece.y.cast_const();
        Self { keep: self.keep && T::IS_ARITHMETIC && separate, stream: self.stream && separate }
    }
}

/// The entry points of a kernel for pieces of rows.
#[derive(Debug)]
pub struct PieceOps<T: 'static> {
    pub(crate) first: fn(&Piece<T>, &Scale) -> RowShift,
    /// The options are [`PieceOptions::checked`], as those of `finish`, which is for pieces with an
    /// output.
    pub(crate) sum:
        unsafe fn(&mut Piece<T>, &Scale, &RowShift, PieceOptions, &mut [BlockSum]) -> Extremes,
    pub(crate) merge: fn(&Scale, &RowShift, Extremes, &[BlockSum]) -> Merged,
    pub(crate) finish: unsafe fn(&mut Piece<T>, Op, &Scale, &Whole, PieceOptions),
    pub(crate) logsumexp: fn(&Scale, &Whole) -> T,
    pub(crate) partials: fn(&Self, &[T], &Scale, Option<f64>, &mut [Partial]),
    pub(crate) merge_partials: fn(&Scale, &[Partial]) -> MergedPartials,
}

/// How many of a row's first elements its shift is guessed from.
const SAMPLE: usize = 256;

/// The guess for a row that starts with these elements.
pub(crate) fn first<E: Contract, T: Element>(row: &Piece<T>, scale: &Scale) -> RowShift {
    let sample = row.elements().take(SAMPLE).map(T::to_f64);
    let max = sample.filter(|v| v.is_finite()).fold(f64::NEG_INFINITY, f64::max);
    let own = scale.shift(max, E::MIN_EXP);
    let guess =
        if own.is_huge() { Guess::first::<E>(scale) } else { Guess::like::<E>(&own, scale) };
    RowShift { guess: Some(guess), shift: guess.shift(), max }
}

/// Sums the blocks of a piece.
///
/// # Safety
/// The piece's pointers are valid as it says; `options.keep` only if `T` is the arithmetic type and `y` is not `x`.
#[inline(always)]
pub(crate) unsafe fn sum<S, T>(
    simd: S,
    piece: &mut Piece<T>,
    scale: &Scale,
    shift: &RowShift,
    options: PieceOptions,
    sums: &mut [BlockSum],
) -> Extremes
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let exp = Exp::new(simd, scale, &shift.shift);
    let plain = Plain::of(options.stream);
    let mut extremes = Extremes::NONE;
    for (i, sum) in sums.iter_mut().enumerate().take(BlockSum::count(piece.n)) {
        let start = i * BLOCK;
        let n = BLOCK.min(piece.n - start);
        // SAFETY: start + n <= piece.n; what is kept is the output.
        let found = unsafe {
            let (x, kept) = (piece.x.add(start), piece.y.wrapping_add(start).cast());
            let keep = const { T::IS_ARITHMETIC } && options.keep;
            // A second reading, after a guess that did not serve, is rare.
            match (shift.guess.is_some(), keep) {
                (true, true) => sweep_alone::<S, T, _, Guessed<Keep, true, false, false>>(
                    &exp, x, kept, n, &plain,
                ),
                (true, false) => sweep_alone::<S, T, _, Guessed<Forget, true, false, true>>(
                    &exp, x, kept, n, &plain,
                ),
                (false, true) => sweep_alone::<S, T, _, Exact<Keep>>(&exp, x, kept, n, &plain),
                (false, false) => sweep_alone::<S, T, _, Exact<Forget>>(&exp, x, kept, n, &plain),
            }
        };
        *sum = BlockSum(found.sum);
        extremes = extremes.and(Extremes { max: found.max.widen(), min: found.min.widen() });
    }
    extremes
}

/// Adds the sums of a row's blocks and judges its shift.
pub(crate) fn merge<E: Contract>(
    scale: &Scale,
    shift: &RowShift,
    extremes: Extremes,
    sums: &[BlockSum],
) -> Merged {
    let mut blocks = sums.iter().map(|sum| sum.0);
    let Some(first) = blocks.next() else { return Merged::Odd };
    let sum = blocks.fold(first, E::sum_add);
    let (max, own, factor, wide) = match shift.guess {
        None => (shift.max, shift.shift, 1.0, true),
        Some(_) => {
            let max = extremes.max;
            if !max.is_finite() {
                return Merged::Odd;
            }
            let own = RowShift::own(scale.shift(max, E::MIN_EXP), max);
            let Some(factor) = shift.factor::<E>(&own, extremes.min) else {
                return Merged::Again(own);
            };
            (max, own.shift, factor, scale.is_wide(max, extremes.min, sums.len() * BLOCK))
        }
    };
    if sum.hi.is_nan() {
        return Merged::Odd;
    }
    Merged::Whole(Whole { max, own, used: shift.shift, factor, sum, wide })
}

/// Finishes a piece of a row that is summed.
///
/// # Safety
/// As [`sum`], by the same options.
#[inline(always)]
pub(crate) unsafe fn finish<S, T>(
    simd: S,
    piece: &mut Piece<T>,
    op: Op,
    scale: &Scale,
    whole: &Whole,
    options: PieceOptions,
) where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    // SAFETY: as this function's.
    unsafe {
        match (op, const { T::IS_ARITHMETIC } && options.keep) {
            (Op::Softmax, true) => {
                finish_by::<S, T, Kept>(simd, piece, scale, whole, options.stream)
            }
            (Op::Softmax, false) => {
                finish_by::<S, T, Again>(simd, piece, scale, whole, options.stream);
            }
            (Op::LogSoftmax, _) => {
                finish_by::<S, T, Log>(simd, piece, scale, whole, options.stream)
            }
            _ => {}
        }
    }
}

/// As [`finish`].
///
/// # Safety
/// As [`finish`].
#[inline(always)]
unsafe fn finish_by<S, T, K>(
    simd: S,
    piece: &mut Piece<T>,
    scale: &Scale,
    whole: &Whole,
    stream: bool,
) where
    S: Io<T> + Io<K::From> + Io<<S as Vector>::E>,
    T: Element,
    K: Task<S, T>,
{
    let last = K::last(scale, &reduced(simd, scale, whole));
    let from = K::from(piece.x, piece.y.cast_const().cast());
    let mut finish = Finish::new(from, piece.y, piece.n, last);
    finish.input = !K::Keeps::KEEP && memory::asks(stream);
    // SAFETY: as this function's.
    unsafe {
        if S::STREAMS && stream && memory::streams() {
            finish_row::<S, T, K::From, true>(simd, &finish);
            simd.fence();
        } else {
            finish_row::<S, T, K::From, false>(simd, &finish);
        }
    }
}

/// The log-sum-exp of a row.
#[inline(always)]
pub(crate) fn logsumexp<S: Vector, T: Element>(simd: S, scale: &Scale, whole: &Whole) -> T {
    T::from_f64(reduced(simd, scale, whole).log_shift(scale).logsumexp())
}

#[inline(always)]
fn reduced<S: Vector>(simd: S, scale: &Scale, whole: &Whole) -> Reduced<S> {
    let exp = Exp::new(simd, scale, &whole.used);
    let Whole { max, own, sum, factor, wide, .. } = *whole;
    Reduced { max, own, sum, factor, wide, exp }
}

/// What is made of an odd row, which is written to it, or, of log-sum-exp, given back.
pub(crate) fn odd<T: Element>(piece: &mut Piece<T>, op: Op, masked: Masked) -> T {
    let odd = Odd::of(piece.elements().map(T::to_f64));
    write_odd(piece, &odd, op, masked)
}

/// As [`odd`], of a row of which that is known.
pub(crate) fn write_odd<T: Element>(piece: &mut Piece<T>, odd: &Odd, op: Op, masked: Masked) -> T {
    if op == Op::LogSumExp || piece.is_read_only() {
        return odd.value();
    }
    let nothing = if op == Op::Softmax { T::ZERO } else { T::NEG_INFINITY };
    // SAFETY: the piece has n elements to write.
    unsafe { odd_row(odd, piece.y, piece.n, masked, nothing) };
    nothing
}
