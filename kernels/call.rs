//! One call of a kernel: pointers, shapes, options.

use crate::element::Element;
use crate::matrix::{Matrix, MatrixMut};
use crate::scale::Scale;

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
    pub(crate) stream: bool,
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
            stream: false,
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
            stream: false,
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
            stream: false,
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
            stream: false,
            borrowed: std::marker::PhantomData,
        })
    }

    /// Writes the output past the caches, if `yes`: for outputs that would not fit them. Without effect in place, where the
    /// lines to be written are in the cache already.
    #[must_use]
    pub fn streaming(mut self, yes: bool) -> Self {
        self.stream = yes && self.x != self.y.cast_const();
        self
    }
}
