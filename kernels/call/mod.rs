//! One call of a kernel: pointers, shapes, options.

pub(crate) mod bits;
pub(crate) mod columns;
pub(crate) mod entropies;
pub(crate) mod error;
pub(crate) mod excess;
pub(crate) mod factors;
pub(crate) mod kl;
pub(crate) mod losses;
pub(crate) mod masses;
pub(crate) mod matrix;
pub(crate) mod online;
pub(crate) mod partials;
pub(crate) mod picks;
pub(crate) mod pieces;
pub(crate) mod ragged;
pub(crate) mod routes;
pub(crate) mod row_loss;
pub(crate) mod rows;
pub(crate) mod scores;

use crate::call::factors::Factors;
use crate::call::matrix::{Matrix, MatrixMut};
use crate::call::pieces::Piece;
use crate::call::rows::{Rows, Shapes, over_rows};
use crate::mem::memory::Large;
use crate::num::element::Element;
use crate::num::exp2::Contract;
use crate::num::scale::Scale;

/// The result of a row whose every entry is `-inf` (fully masked).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Masked {
    /// NaN everywhere, as ONNX and PyTorch define it.
    #[default]
    Nan,
    /// Probability 0 everywhere (log-probability `-inf`), as attention kernels want it.
    Zero,
}

/// The result for several elements that are the largest of their row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ties {
    /// Each of `N` gets `1/N`: the limit of softmax as the temperature goes to 0.
    #[default]
    Share,
    /// The first of them gets 1, as ONNX defines Hardmax.
    First,
}

/// The operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `exp(a x_i) / sum_j exp(a x_j)`
    Softmax,
    /// `a x_i - ln(sum_j exp(a x_j))`
    LogSoftmax,
    /// `ln(sum_j exp(a x_j))`, one value per row
    LogSumExp,
    /// `-sum_j p_j ln(p_j)` of the softmax `p`, one value per row
    Entropy,
    /// `1 / (1 + exp(-a x_i))`
    Sigmoid,
    /// `-ln(1 + exp(-a x_i))`
    LogSigmoid,
    /// The largest element of each row has all the mass: softmax at temperature 0.
    Hardmax(Ties),
    /// The logarithm of hardmax with shared ties.
    LogHardmax,
    /// All elements of a row except -inf have the same mass: softmax at infinite temperature.
    Uniform,
    /// The logarithm of [`Op::Uniform`].
    LogUniform,
}

impl Op {
    /// Whether the result of a row is one value.
    #[inline(always)]
    pub fn is_one_value(self) -> bool {
        matches!(self, Self::LogSumExp | Self::Entropy)
    }

    /// The operation itself, or softmax in place of those whose results are not rows.
    #[inline(always)]
    fn of_rows(self) -> Self {
        if self.is_one_value() { Self::Softmax } else { self }
    }
}

/// How a call's output is stored: decided once, from its size, the operation and the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store {
    past: bool,
    prefetch: Prefetch,
    bursts: bool,
}

/// Which memory is prefetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefetch {
    /// None: the hardware prefetches best.
    Nothing,
    /// What is used next, in case the first-level cache does not have it.
    Near,
    /// Cache lines of several pages in turn.
    Pages,
    /// What is used somewhat later, straight ahead.
    Ahead,
}

impl Store {
    /// Into the caches, which have room for the output.
    pub const CACHED: Self = Self { past: false, prefetch: Prefetch::Near, bursts: false };

    /// The way for an output that is `large`, larger than the caches: past them where this CPU
    /// sweeps rows faster so, or for operations that are faster so on `every_cpu`; not if rows are
    /// `short`.
    pub fn of(large: bool, every_cpu: bool, short: bool) -> Self {
        if !large {
            return Self::CACHED;
        }
        match Large::of_this_cpu() {
            Large::Vectors | Large::Bursts if short => Self::CACHED,
            Large::Through => Self { past: every_cpu, prefetch: Prefetch::Nothing, bursts: false },
            Large::Vectors => Self { past: true, prefetch: Prefetch::Pages, bursts: false },
            Large::Bursts => Self { past: true, prefetch: Prefetch::Ahead, bursts: true },
        }
    }

    /// Whether the caches have room for the output.
    pub fn is_cached(self) -> bool {
        self == Self::CACHED
    }

    /// Whether the output is written past the caches, on CPUs that have such stores.
    pub fn is_past(self) -> bool {
        self.past
    }

    /// Whether the output is written in bursts.
    pub fn is_in_bursts(self) -> bool {
        self.bursts
    }

    /// What is prefetched.
    pub(crate) fn prefetch(self) -> Prefetch {
        self.prefetch
    }
}

/// The work of one call: an operation on rows.
#[derive(Debug)]
pub struct Call<'a, T> {
    views: Rows<'a, T, T>,
    op: Op,
    pub(crate) scale: Scale,
    /// In place of the scale.
    factors: Option<Factors<'a>>,
    pub(crate) masked: Masked,
}

over_rows!(Call<'a, T>, T, T);

impl<'a, T: Element> Call<'a, T> {
    /// Reads rows of `x` and writes rows of `y`. Log-sum-exp writes one element a row:
    /// [`Call::logsumexp`]; asked for here, softmax is computed.
    ///
    /// # Errors
    /// The two shapes, if they differ.
    #[inline(always)]
    pub fn new(
        op: Op,
        x: Matrix<'a, T>,
        y: MatrixMut<'a, T>,
        scale: Scale,
        masked: Masked,
    ) -> Result<Self, Shapes> {
        Ok(Self::of_views(Rows::new(x, y)?, op.of_rows(), scale, masked))
    }

    /// Reads and writes rows of `y`, otherwise as [`Call::new`].
    #[inline(always)]
    pub fn in_place(op: Op, y: MatrixMut<'a, T>, scale: Scale, masked: Masked) -> Self {
        Self::of_views(Rows::in_place(y), op.of_rows(), scale, masked)
    }

    /// Writes the log-sum-exp of each row of `x` to one element of `y`.
    ///
    /// # Errors
    /// The two shapes, if `y` does not have one element for each row.
    #[inline(always)]
    pub fn logsumexp(x: Matrix<'a, T>, y: &'a mut [T], scale: Scale) -> Result<Self, Shapes> {
        Ok(Self::of_views(Rows::to_one(x, y)?, Op::LogSumExp, scale, Masked::Nan))
    }

    /// Writes the entropy of the softmax of each row of `x` to one element of `y`.
    ///
    /// # Errors
    /// As [`Call::logsumexp`].
    pub fn entropy(
        x: Matrix<'a, T>,
        y: &'a mut [T],
        scale: Scale,
        masked: Masked,
    ) -> Result<Self, Shapes> {
        Ok(Self::of_views(Rows::to_one(x, y)?, Op::Entropy, scale, masked))
    }

    /// The work of a call with these views.
    #[inline(always)]
    pub(crate) fn of_views(views: Rows<'a, T, T>, op: Op, scale: Scale, masked: Masked) -> Self {
        Call { views, op, scale, factors: None, masked }
    }

    /// Softmax, log-softmax, log-sum-exp or entropy with a factor for each row in place of the
    /// scale. A factor that is out of the range of scales does not count.
    ///
    /// # Errors
    /// The number of rows, if there is not one for each.
    pub fn with_factors(self, factors: Factors<'a>) -> Result<Self, usize> {
        if factors.len() != self.rows {
            return Err(self.rows);
        }
        Ok(Call { factors: Some(factors), ..self })
    }

    /// Whether each row has a factor of its own.
    #[inline(always)]
    pub(crate) fn has_factors(&self) -> bool {
        self.factors.is_some()
    }

    /// The operation.
    #[inline]
    pub fn op(&self) -> Op {
        self.op
    }

    /// The factor of the logits of a row.
    pub fn scale_of(&self, row: usize) -> Scale {
        let own = self.factors.filter(|factors| row < factors.len());
        own.and_then(|factors| factors.scale(row)).unwrap_or(self.scale)
    }

    /// The end of the rows from `first` on that have the same scale, and it: that of the call by
    /// reference, since a copy takes time, or one of their own, for which there is a place.
    #[inline(always)]
    pub(crate) fn run<'s>(
        &'s self,
        first: usize,
        own: &'s mut Option<Scale>,
    ) -> (usize, &'s Scale) {
        match self.factors {
            None => (self.rows, &self.scale),
            Some(factors) => {
                let end = first + factors.alike(first, self.rows);
                (end, own.insert(self.scale_of(first)))
            }
        }
    }

    /// The same rows as a call of their own, without factors; `None` if there are no more rows.
    pub(crate) fn run_alone(&mut self, first: usize) -> Option<Call<'_, T>> {
        if first >= self.rows {
            return None;
        }
        let mut own = None;
        let (end, &scale) = self.run(first, &mut own);
        let (x, y) = self.row(first);
        let views = self.views.at(x, y, end - first);
        Some(Call { views, op: self.op, scale, factors: None, masked: self.masked })
    }

    /// The result of fully masked rows.
    pub fn masked(&self) -> Masked {
        self.masked
    }

    /// The first `at` rows and the others.
    #[must_use]
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        let (first, others) = self.views.split(at);
        let (op, scale, masked) = (self.op, self.scale, self.masked);
        let part = |views: Rows<'a, T, T>, start| {
            let of = start..start + views.rows;
            let factors = self.factors.map(|factors| factors.of(of));
            Call { views, op, scale, factors, masked }
        };
        let at = first.rows;
        (part(first, 0), part(others, at))
    }

    /// A row as one piece, read-only for log-sum-exp; empty if there is no such row.
    pub fn piece(&mut self, row: usize) -> Piece<'_, T> {
        let ((x, y), there) = (self.row(row), row < self.rows);
        let y = if self.op == Op::LogSumExp { std::ptr::null_mut() } else { y };
        // SAFETY: the row is there, or has no elements here.
        unsafe { Piece::from_raw(x, y, if there { self.cols } else { 0 }) }
    }

    /// Sets a row's log-sum-exp; does nothing for other operations.
    pub fn set_logsumexp(&mut self, row: usize, value: T) {
        if self.op == Op::LogSumExp && row < self.rows {
            // SAFETY: the row is there, and has one element to write.
            unsafe { *self.row(row).1 = value };
        }
    }
}

/// Why a row is special: its maximum is not finite, so its result is not computed but written.
pub(crate) enum Special {
    /// The row has a NaN.
    Nan,
    /// The row has +inf and no NaN.
    PlusInf,
    /// Every entry is -inf.
    AllMasked,
}

impl Special {
    /// Classifies the values of a row whose maximum is not finite.
    #[cold]
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Special {
        let mut special = Special::AllMasked;
        for v in values {
            if v.is_nan() {
                return Special::Nan;
            }
            if v == f64::INFINITY {
                special = Special::PlusInf;
            }
        }
        special
    }

    /// Makes this the class of a row with more values. Called by the loops of every kernel: inlined
    /// it took more code than they do.
    #[cold]
    #[inline(never)]
    pub(crate) fn add<E: Contract>(&mut self, values: &[E]) {
        match (&self, Special::of(values.iter().map(|v| v.widen()))) {
            (Special::AllMasked, class) | (Special::PlusInf, class @ Special::Nan) => *self = class,
            _ => {}
        }
    }

    /// The row's log-sum-exp.
    pub(crate) fn value<T: Element>(&self) -> T {
        match self {
            Special::AllMasked => T::NEG_INFINITY,
            Special::PlusInf => T::INFINITY,
            Special::Nan => T::NAN,
        }
    }
}

/// Writes the result of a special row; `nothing` is the value for fully masked rows that are not to
/// be NaN.
///
/// # Safety
/// `y` is valid for writes of `n` elements.
#[cold]
pub(crate) unsafe fn special_row<T: Element>(
    special: &Special,
    y: *mut T,
    n: usize,
    masked: Masked,
    nothing: T,
) {
    let value = match (special, masked) {
        (Special::AllMasked, Masked::Zero) => nothing,
        _ => T::NAN,
    };
    for i in 0..n {
        // SAFETY: i < n.
        unsafe { *y.add(i) = value };
    }
}
