//! One call of a kernel: pointers, shapes, options.

pub(crate) mod columns;
pub(crate) mod losses;
pub(crate) mod masses;
pub(crate) mod matrix;
pub(crate) mod partials;
pub(crate) mod picks;
pub(crate) mod pieces;
pub(crate) mod row_loss;
pub(crate) mod scores;

use crate::call::matrix::{Matrix, MatrixMut};
use crate::mem::memory::streams;
use crate::num::element::Element;
use crate::num::scale::Scale;

/// What a row becomes whose every entry is `-inf` (fully masked).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Masked {
    /// NaN everywhere, as ONNX and PyTorch define it.
    #[default]
    Nan,
    /// Probability 0 everywhere (log-probability `-inf`), as attention kernels want it.
    Zero,
}

/// What becomes of several elements that are the largest of their row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// How a call's output is stored: decided once, by its size, the operation and the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store {
    past: bool,
    asks: bool,
}

impl Store {
    /// Into the caches, which hold it. Memory is asked for before it is used.
    pub const CACHED: Self = Self { past: false, asks: true };

    /// Of an output that is `large`, larger than the caches: past them if this CPU is faster so
    /// with rows, or for operations for which that is so on `every_cpu`.
    pub fn of(large: bool, every_cpu: bool) -> Self {
        if !large {
            return Self::CACHED;
        }
        let streams = streams();
        Self { past: streams || every_cpu, asks: streams }
    }

    /// Whether the caches hold the output.
    pub fn is_cached(self) -> bool {
        self == Self::CACHED
    }

    /// Whether it is written past the caches, by CPUs that have such stores.
    pub fn is_past(self) -> bool {
        self.past
    }

    /// Whether software asks for memory before it is used.
    pub(crate) fn asks(self) -> bool {
        self.asks
    }
}

/// The work of one call. Safe code makes one only from views that were checked ([`Call::new`],
/// [`Call::in_place`], [`Call::per_row`]); it borrows what it points to.
#[derive(Debug)]
pub struct Call<'a, T> {
    /// Row `i` starts at `x + i * x_stride`; each has `cols` elements, valid for reads.
    pub(crate) x: *const T,
    pub(crate) x_stride: usize,
    /// Row `i` starts at `y + i * y_stride`; each is valid for writes of `cols` elements
    /// (log-sum-exp: of one). Either disjoint from `x`, or the very same rows.
    pub(crate) y: *mut T,
    pub(crate) y_stride: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) scale: Scale,
    pub(crate) masked: Masked,
    /// The output is written past the caches.
    pub(crate) store: Store,
    borrowed: std::marker::PhantomData<&'a mut T>,
}

impl<'a, T: Element> Call<'a, T> {
    /// Rows of `x` to rows of `y`. `None` if the shapes differ.
    pub fn new(
        x: Matrix<'a, T>,
        mut y: MatrixMut<'a, T>,
        scale: Scale,
        masked: Masked,
    ) -> Option<Self> {
        (x.rows() == y.rows() && x.cols() == y.cols()).then(|| Call {
            x: x.as_ptr(),
            x_stride: x.stride(),
            y: y.as_mut_ptr(),
            y_stride: y.stride(),
            rows: x.rows(),
            cols: x.cols(),
            scale,
            masked,
            store: Store::CACHED,
            borrowed: std::marker::PhantomData,
        })
    }

    /// Rows of `y` to themselves.
    pub fn in_place(mut y: MatrixMut<'a, T>, scale: Scale, masked: Masked) -> Self {
        let p = y.as_mut_ptr();
        Call {
            x: p,
            x_stride: y.stride(),
            y: p,
            y_stride: y.stride(),
            rows: y.rows(),
            cols: y.cols(),
            scale,
            masked,
            store: Store::CACHED,
            borrowed: std::marker::PhantomData,
        }
    }

    /// One row to itself.
    pub(crate) fn of_row(row: &'a mut [T], scale: Scale, masked: Masked) -> Self {
        let (p, cols) = (row.as_mut_ptr(), row.len());
        Call {
            x: p,
            x_stride: cols,
            y: p,
            y_stride: cols,
            rows: 1,
            cols,
            scale,
            masked,
            store: Store::CACHED,
            borrowed: std::marker::PhantomData,
        }
    }

    /// Rows of `x` to one element each of `y`. `None` if `y` has not one element per row.
    pub fn per_row(x: Matrix<'a, T>, y: &'a mut [T], scale: Scale) -> Option<Self> {
        (x.rows() == y.len()).then(|| Call {
            x: x.as_ptr(),
            x_stride: x.stride(),
            y: y.as_mut_ptr(),
            y_stride: 1,
            rows: x.rows(),
            cols: x.cols(),
            scale,
            masked: Masked::Nan,
            store: Store::CACHED,
            borrowed: std::marker::PhantomData,
        })
    }

    /// Stores the output like that; in place into the caches.
    #[must_use]
    pub fn storing(mut self, store: Store) -> Self {
        self.store = if self.x != self.y.cast_const() { store } else { Store::CACHED };
        self
    }
}

/// What a row without a finite maximum is.
pub(crate) enum Odd {
    /// It has a NaN.
    Nan,
    /// It has +inf and no NaN.
    PlusInf,
    /// Every entry is -inf.
    AllMasked,
}

impl Odd {
    /// Of a row whose maximum is not finite.
    #[cold]
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Odd {
        let mut odd = Odd::AllMasked;
        for v in values {
            if v.is_nan() {
                return Odd::Nan;
            }
            if v == f64::INFINITY {
                odd = Odd::PlusInf;
            }
        }
        odd
    }

    /// The row's log-sum-exp.
    pub(crate) fn value<T: Element>(&self) -> T {
        match self {
            Odd::AllMasked => T::NEG_INFINITY,
            Odd::PlusInf => T::INFINITY,
            Odd::Nan => T::NAN,
        }
    }
}

/// Writes the result of an odd row; `nothing` is what it is if fully masked rows are not NaN.
///
/// # Safety
/// `y` is valid for writes of `n` elements.
#[cold]
pub(crate) unsafe fn odd_row<T: Element>(
    odd: &Odd,
    y: *mut T,
    n: usize,
    masked: Masked,
    nothing: T,
) {
    let value = match (odd, masked) {
        (Odd::AllMasked, Masked::Zero) => nothing,
        _ => T::NAN,
    };
    for i in 0..n {
        // SAFETY: i < n.
        unsafe { *y.add(i) = value };
    }
}
