//! One call of a kernel: pointers, shapes, options.

pub(crate) mod columns;
pub(crate) mod error;
pub(crate) mod losses;
pub(crate) mod masses;
pub(crate) mod matrix;
pub(crate) mod partials;
pub(crate) mod picks;
pub(crate) mod pieces;
pub(crate) mod row_loss;
pub(crate) mod rows;
pub(crate) mod scores;

use crate::call::matrix::{Matrix, MatrixMut};
use crate::call::pieces::Piece;
use crate::call::rows::{Rows, Shapes, over_rows};
use crate::mem::memory::Large;
use crate::num::element::Element;
use crate::num::scale::Scale;

/// What a row becomes whose every entry is `-inf` (fully masked).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Masked {
    /// NaN everywhere, as ONNX and PyTorch define it.
    #[default]
    Nan,
    /// Probability 0 everywhere (log-probability `-inf`), as attention kernels want it.
    Zero,
}

/// What becomes of several elements that are the largest of their row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ties {
    /// Each of `N` gets `1/N`: what softmax tends to as the temperature goes to 0.
    #[default]
    Share,
    /// The first of them gets 1, as ONNX defines Hardmax.
    First,
}

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `exp(a x_i) / sum_j exp(a x_j)`
    Softmax,
    /// `a x_i - ln(sum_j exp(a x_j))`
    LogSoftmax,
    /// `ln(sum_j exp(a x_j))`, one value per row
    LogSumExp,
    /// `1 / (1 + exp(-a x_i))`
    Sigmoid,
    /// `-ln(1 + exp(-a x_i))`
    LogSigmoid,
    /// The largest element of each row, or each of them, has all the mass: softmax at temperature
    /// 0.
    Hardmax(Ties),
    /// The logarithm of hardmax with shared ties.
    LogHardmax,
    /// All elements of a row but -inf have the same mass: softmax at infinite temperature.
    Uniform,
    /// The logarithm of that.
    LogUniform,
}

impl Op {
    /// The same, but softmax in the place of log-sum-exp, which is not from rows to rows.
    #[inline(always)]
    fn of_rows(self) -> Self {
        if self == Self::LogSumExp { Self::Softmax } else { self }
    }
}

/// How a call's output is stored: decided once, by its size, the operation and the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store {
    past: bool,
    asks: Asks,
    bursts: bool,
}

/// Which memory is asked for before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// None, where the hardware does it best.
    Nothing,
    /// What is used next, in case the first-level cache lacks it.
    Near,
    /// Lines of several pages in turn.
    Pages,
    /// What is used somewhat later.
    Ahead,
}

impl Store {
    /// Into the caches, which hold it.
    pub const CACHED: Self = Self { past: false, asks: Asks::Near, bursts: false };

    /// Of an output that is `large`, larger than the caches: past them if this CPU is faster so
    /// with rows, or for operations for which that is so on `every_cpu`.
    pub fn of(large: bool, every_cpu: bool) -> Self {
        if !large {
            return Self::CACHED;
        }
        match Large::of_this_cpu() {
            Large::Through => Self { past: every_cpu, asks: Asks::Nothing, bursts: false },
            Large::Vectors => Self { past: true, asks: Asks::Pages, bursts: false },
            Large::Bursts => Self { past: true, asks: Asks::Ahead, bursts: true },
        }
    }

    /// Whether the caches hold the output.
    pub fn is_cached(self) -> bool {
        self == Self::CACHED
    }

    /// Whether it is written past the caches, by CPUs that have such stores.
    pub fn is_past(self) -> bool {
        self.past
    }

    /// Whether it is written in bursts.
    pub fn is_in_bursts(self) -> bool {
        self.bursts
    }

    /// What is asked for.
    pub(crate) fn asks(self) -> Asks {
        self.asks
    }
}

/// The work of one call: an operation on rows.
#[derive(Debug)]
pub struct Call<'a, T> {
    views: Rows<'a, T, T>,
    op: Op,
    pub(crate) scale: Scale,
    pub(crate) masked: Masked,
}

over_rows!(Call<'a, T>, T, T);

impl<'a, T: Element> Call<'a, T> {
    /// Rows of `x` to rows of `y`. Log-sum-exp, which writes one element a row, has a function of
    /// its own: [`Call::logsumexp`]. Asked for here, softmax is computed.
    ///
    /// # Errors
    /// The shapes, if they differ.
    #[inline(always)]
    pub fn new(
        op: Op,
        x: Matrix<'a, T>,
        y: MatrixMut<'a, T>,
        scale: Scale,
        masked: Masked,
    ) -> Result<Self, Shapes> {
        Ok(Call { views: Rows::new(x, y)?, op: op.of_rows(), scale, masked })
    }

    /// Rows of `y` to themselves, as [`Call::new`].
    #[inline(always)]
    pub fn in_place(op: Op, y: MatrixMut<'a, T>, scale: Scale, masked: Masked) -> Self {
        Call { views: Rows::in_place(y), op: op.of_rows(), scale, masked }
    }

    /// The log-sum-exps of rows of `x`, one element each of `y`.
    ///
    /// # Errors
    /// The shapes, if `y` has not one element for each row.
    #[inline(always)]
    pub fn logsumexp(x: Matrix<'a, T>, y: &'a mut [T], scale: Scale) -> Result<Self, Shapes> {
        let (op, masked) = (Op::LogSumExp, Masked::Nan);
        Ok(Call { views: Rows::to_one(x, y)?, op, scale, masked })
    }

    /// What is computed.
    #[inline]
    pub fn op(&self) -> Op {
        self.op
    }

    /// What the logits are multiplied by.
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// What fully masked rows become.
    pub fn masked(&self) -> Masked {
        self.masked
    }

    /// The first `at` rows and the others.
    #[must_use]
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        let (first, others) = self.views.split(at);
        let (op, scale, masked) = (self.op, self.scale, self.masked);
        (Call { views: first, op, scale, masked }, Call { views: others, op, scale, masked })
    }

    /// A row, as one piece, of which nothing is written if it has one result; empty if there is
    /// none of that number.
    pub fn piece(&mut self, row: usize) -> Piece<'_, T> {
        let ((x, y), there) = (self.row(row), row < self.rows);
        let y = if self.op == Op::LogSumExp { std::ptr::null_mut() } else { y };
        // SAFETY: the row is there, or has no elements here.
        unsafe { Piece::from_raw(x, y, if there { self.cols } else { 0 }) }
    }

    /// Sets a row's log-sum-exp; of another operation, nothing.
    pub fn set_logsumexp(&mut self, row: usize, value: T) {
        if self.op == Op::LogSumExp && row < self.rows {
            // SAFETY: the row is there, and has one element to write.
            unsafe { *self.row(row).1 = value };
        }
    }
}

/// What a row without a finite maximum is.
pub(crate) enum Special {
    /// It has a NaN.
    Nan,
    /// It has +inf and no NaN.
    PlusInf,
    /// Every entry is -inf.
    AllMasked,
}

impl Special {
    /// Of a row whose maximum is not finite.
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

    /// The row's log-sum-exp.
    pub(crate) fn value<T: Element>(&self) -> T {
        match self {
            Special::AllMasked => T::NEG_INFINITY,
            Special::PlusInf => T::INFINITY,
            Special::Nan => T::NAN,
        }
    }
}

/// Writes the result of a special row; `nothing` is what it is if fully masked rows are not NaN.
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
