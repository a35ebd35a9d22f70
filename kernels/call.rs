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

/// How a call moves through memory. It changes no bit of any result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// The output is written past the caches, which it would not fit. Without effect on work in place.
    pub stream: bool,
    /// Exponentials are computed twice rather than kept: the row does not fit the cache near the core.
    pub recompute: bool,
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
    pub(crate) path: Path,
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
            path: Path::default(),
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
            path: Path::default(),
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
            path: Path::default(),
            borrowed: std::marker::PhantomData,
        })
    }

    /// Chooses how memory is used; by default for matrices that the caches hold.
    #[must_use]
    pub fn by(mut self, path: Path) -> Self {
        // In place, the lines to be written are in the cache already.
        self.path = Path { stream: path.stream && self.x != self.y.cast_const(), ..path };
        self
    }
}
