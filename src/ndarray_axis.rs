//! Operations along an axis of views of the crate `ndarray`, with any memory layout.
//!
//! A view with gaps cannot be made a slice: the elements in the gaps may belong to another view. So
//! only parts without gaps, with the same order of axes in input and output, are processed in
//! place: the whole view, or parts of it along the outer axes. Everything else is copied a tile at
//! a time.

use std::cmp::Reverse;

use ndarray::{ArrayBase, ArrayView, ArrayViewMut, Axis, Dimension, RawData, RemoveAxis};
use softmax_kernels::{Element, MaskData, Op as Work, Plain, part_of, with_room};

use crate::axis::{Logits, OfRows, check_tokens, index_of, labels_of_rows, probs_of_rows};
use crate::changed::{MASK, of_any_type};
use crate::lanes::{TOGETHER, View, between, in_place, is_tile};
use crate::loss::with_losses;
use crate::{CrossEntropy, Error, Hardmax, LogProbs, Shape, Size, Softmax, Threads, TopK};

/// The least number of elements without gaps that gets a call of its own.
const RUN: usize = 512;

/// Where two arrays have different orders of axes, this many elements are copied at a time, so that
/// both sides stay in the first-level cache.
const BLOCK: usize = 256;

/// The largest distance of neighbours, in elements, at which a cache line is used completely once
/// it is loaded.
const NEAR: isize = 4;

/// Operations along an axis of `ndarray`'s views (feature `ndarray`), with any number of dimensions
/// and any layout: C order, Fortran order, permuted, reversed, sliced with steps; the input may be
/// broadcast. They give the same bits as [`Softmax::softmax`] of every lane. What lies between the
/// elements of the views is neither read nor written.
///
/// Views without gaps whose axes have the same order in memory, in any order, are processed in
/// place, as by [`Softmax::softmax_axis`]; so are parts of some hundred elements without gaps (long
/// rows with padding between them). Everything else is copied a tile at a time, into scratch
/// memory: half a mebibyte, or the size of a lane, or, if neighbouring lanes share cache lines, 16
/// of them, but not more than 32 MiB.
impl Softmax<'_> {
    /// The softmax of `x` along an axis, into `y`. Error: as [`Softmax::softmax`].
    ///
    /// ```
    /// use ndarray::{Array2, array, s};
    /// use softmax::Softmax;
    ///
    /// let logits = array![[1.0f32, 5.0, f32::NEG_INFINITY], [1.0, 5.0, 0.0]];
    /// let mut probs = Array2::zeros((2, 3));
    /// Softmax::new().softmax_array(logits.view(), probs.view_mut(), 0)?;
    /// assert_eq!(probs, array![[0.5, 0.5, 0.0], [0.5, 0.5, 1.0]]);
    ///
    /// // Any layout: the transposed, without its last row, into every other column.
    /// let mut wide = Array2::zeros((2, 4));
    /// let x = logits.t().slice_move(s![..2, ..]);
    /// Softmax::new().softmax_array(x, wide.slice_mut(s![.., ..;2]), -1)?;
    /// assert_eq!(wide, array![[0.5, 0.0, 0.5, 0.0], [0.5, 0.0, 0.5, 0.0]]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ, [`Error::Axis`] if there is no such axis (negative
    /// ones count from the end), [`Error::Memory`], or a kernel that cannot run.
    pub fn softmax_array<T: Element, D: Dimension>(
        &self,
        x: ArrayView<T, D>,
        y: ArrayViewMut<T, D>,
        axis: isize,
    ) -> Result<(), Error> {
        self.array(Work::Softmax, Some(x), y, axis)
    }

    /// [`Softmax::softmax_array`] in place. The same bits.
    ///
    /// ```
    /// use ndarray::ArcArray;
    ///
    /// let mut weights = ArcArray::from_elem((4, 2, 3), 0.5f64);
    /// softmax::Softmax::new().softmax_array_in_place(weights.view_mut(), 0)?;
    /// assert!(weights.iter().all(|w| *w == 0.25));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Softmax::softmax_array`].
    pub fn softmax_array_in_place<T: Element, D: Dimension>(
        &self,
        y: ArrayViewMut<T, D>,
        axis: isize,
    ) -> Result<(), Error> {
        self.array(Work::Softmax, None, y, axis)
    }

    /// The log-softmax of `x` along an axis, into `y`. Error: as [`Softmax::log_softmax`].
    ///
    /// ```
    /// use std::f64::consts::LN_2;
    ///
    /// // Every row of two is the same one.
    /// let logits = ndarray::array![3.0, 3.0];
    /// let mut logs = ndarray::Array2::zeros((4, 2));
    /// let x = logits.broadcast((4, 2)).unwrap();
    /// softmax::Softmax::new().log_softmax_array(x, logs.view_mut(), -1)?;
    /// assert!(logs.iter().all(|l| *l == -LN_2));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Softmax::softmax_array`].
    pub fn log_softmax_array<T: Element, D: Dimension>(
        &self,
        x: ArrayView<T, D>,
        y: ArrayViewMut<T, D>,
        axis: isize,
    ) -> Result<(), Error> {
        self.array(Work::LogSoftmax, Some(x), y, axis)
    }

    /// [`Softmax::log_softmax_array`] in place. The same bits.
    ///
    /// # Errors
    /// As [`Softmax::softmax_array`].
    ///
    /// ```
    /// let mut x = ndarray::array![[1.0f64, 5.0], [1.0, 5.0]];
    /// softmax::Softmax::new().log_softmax_array_in_place(x.view_mut(), 0)?;
    /// assert!(x.iter().all(|x| *x == -std::f64::consts::LN_2));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn log_softmax_array_in_place<T: Element, D: Dimension>(
        &self,
        y: ArrayViewMut<T, D>,
        axis: isize,
    ) -> Result<(), Error> {
        self.array(Work::LogSoftmax, None, y, axis)
    }

    fn array<T: Element, D: Dimension>(
        &self,
        op: Work,
        mut x: Option<ArrayView<T, D>>,
        mut y: ArrayViewMut<T, D>,
        axis: isize,
    ) -> Result<(), Error> {
        let index = index_of(axis, y.ndim())?;
        let len = y.len_of(Axis(index));
        let Some(mask) = self.mask_of_each(len)? else {
            return self.arrays(op, Arrays::new(x, y, axis)?);
        };
        if let Some(x) = &x {
            check("output", x.shape(), y.shape(), index, Some(len))?;
        }
        of_any_type!(mask, m => {
            let mut mask = mask_like(m, y.raw_dim())?;
            let last = y.ndim() - 1;
            x.iter_mut().for_each(|x| x.swap_axes(index, last));
            y.swap_axes(index, last);
            mask.swap_axes(index, last);
            self.masked_lanes(op, len, between(x, y), mask)
        })
    }

    fn arrays<T: Element, D: Dimension>(
        &self,
        op: Work,
        arrays: Arrays<T, D>,
    ) -> Result<(), Error> {
        if arrays.is_dense() {
            return self.dense(op, arrays);
        }
        let (lanes, in_place) = (arrays.lanes(), arrays.x.is_none());
        let shape = Shape::new(lanes, arrays.len_of(arrays.axis)).in_place_if(in_place);
        let plan = self.exec.plan_work::<T>(op, shape)?;
        if lanes < plan.threads() {
            // There are few and long lanes: threads share each of them.
            return self.scattered(op, arrays);
        }
        let serial = self.exec.threads(Threads::Serial);
        let one = if plan.threads() > 1 { self.exec(serial) } else { *self };
        let run = |arrays: Arrays<T, D>| one.scattered(op, arrays);
        self.exec
            .crew()
            .share(plan.threads, plan.parts, arrays, &Arrays::split, &run, &|a, b| a.and(b))
    }

    /// Splits arrays until each is dense, or small enough to be copied.
    fn scattered<T: Element, D: Dimension>(
        &self,
        op: Work,
        arrays: Arrays<T, D>,
    ) -> Result<(), Error> {
        if arrays.is_dense() {
            self.dense(op, arrays)
        } else if arrays.is_tile() {
            self.copied(op, arrays)
        } else {
            let (a, b) = arrays.split(1, 2);
            self.scattered(op, a)?;
            self.scattered(op, b)
        }
    }

    /// Processes dense arrays in place.
    fn dense<T: Element, D: Dimension>(
        &self,
        op: Work,
        Arrays { x, y, axis }: Arrays<T, D>,
    ) -> Result<(), Error> {
        let (shape, axis) = (y.raw_dim(), axis as isize);
        let (y, shape) = (y.into_slice().unwrap_or_default(), shape.slice());
        match (op, x) {
            (Work::LogSoftmax, None) => self.log_softmax_axis_in_place(y, shape, axis),
            (_, None) => self.softmax_axis_in_place(y, shape, axis),
            (op, Some(x)) => {
                let x = x.to_slice().unwrap_or_default();
                match op {
                    Work::LogSoftmax => self.log_softmax_axis(x, y, shape, axis),
                    _ => self.softmax_axis(x, y, shape, axis),
                }
            }
        }
    }

    /// Processes a copy without gaps. Its axes keep their order, while lanes (src/lanes.rs) are
    /// turned to rows, which softmax does not need: it has kernels for columns.
    fn copied<T: Element, D: Dimension>(
        &self,
        op: Work,
        Arrays { x, mut y, axis }: Arrays<T, D>,
    ) -> Result<(), Error> {
        let (n, len) = (y.len(), y.len_of(Axis(axis)));
        let done = with_room(n, |tile: &mut [T]| {
            let tile = ArrayViewMut::from_shape(y.raw_dim(), tile);
            let mut tile = tile.map_err(|_| Error::memory(len))?;
            copy(x.unwrap_or(y.view()), tile.view_mut());
            self.dense(op, Arrays { x: None, y: tile.view_mut(), axis })?;
            copy(tile.view(), y.view_mut());
            Ok(())
        });
        done.unwrap_or(Err(Error::memory(len)))
    }
}

macro_rules! array_view {
    ($array:ident, $write:expr) => {
        /// The lanes are along the last axis.
        impl<T: Plain + Send + Sync + 'static, D: Dimension> View for $array<'_, T, D> {
            type Item = T;

            fn lanes_along(&self, dim: usize) -> Option<usize> {
                (dim + 1 < self.ndim()).then(|| self.len_of(Axis(dim)))
            }

            fn elements(&self) -> usize {
                self.len()
            }

            fn split(self, dim: usize, at: usize) -> (Self, Self) {
                self.split_at(Axis(dim), at)
            }

            fn read(&mut self, rows: &mut [T]) {
                if let Ok(rows) = ArrayViewMut::from_shape(self.raw_dim(), rows) {
                    copy(self.view(), rows);
                }
            }

            fn write(&mut self, rows: &[T]) {
                $write(self, rows);
            }
        }
    };
}

array_view!(ArrayView, |_, _| ());
array_view!(ArrayViewMut, |to: &mut ArrayViewMut<T, D>, rows| {
    if let Ok(rows) = ArrayView::from_shape(to.raw_dim(), rows) {
        copy(rows, to.view_mut());
    }
});

/// Moves the axis of `x` to the end, and the others with the largest strides to the front; reports
/// each swap of axes.
fn arrange<S: RawData, D: Dimension>(
    x: &mut ArrayBase<S, D>,
    axis: usize,
    mut others: impl FnMut(usize, usize),
) {
    let mut swap = |x: &mut ArrayBase<S, D>, a, b| {
        x.swap_axes(a, b);
        others(a, b);
    };
    let last = x.ndim().saturating_sub(1);
    swap(x, axis, last);
    for to in 0..last {
        let size = |i: &usize| (x.len_of(Axis(*i)) == 1, x.strides()[*i].unsigned_abs());
        let from = (to..last).max_by_key(size).unwrap_or(to);
        swap(x, from, to);
    }
}

/// Checks that a tensor has the shape of the input, except for `k` elements along the axis, or
/// without the axis if `k` is `None`.
fn check(
    what: &'static str,
    x: &[usize],
    y: &[usize],
    axis: usize,
    k: Option<usize>,
) -> Result<(), Error> {
    let mut wanted = x.iter().enumerate().filter_map(|(i, &n)| if i == axis { k } else { Some(n) });
    if wanted.clone().eq(y.iter().copied()) {
        return Ok(());
    }
    Err(Error::shape(what, Size::Tensor(wanted.by_ref().collect()), Size::Tensor(y.into())))
}

/// Log-sum-exp and entropy along an axis of views of any layout. Views in C order are processed as
/// by [`Softmax::logsumexp_axis`]; otherwise some lanes at a time are copied into scratch memory.
impl Softmax<'_> {
    /// [`Softmax::logsumexp`] along an axis of `x`, into `y`, which lacks that axis.
    ///
    /// ```
    /// use ndarray::{Array1, array};
    /// let x = array![[1.0f64, 5.0, f64::NEG_INFINITY], [1.0, 5.0, 0.0]];
    /// let mut y = Array1::zeros(2);
    /// softmax::Softmax::new().logsumexp_array(x.slice(ndarray::s![.., ..2;-1]), y.view_mut(), 1)?;
    /// # let ln = |x: f64| x.ln();
    /// assert_eq!(y.mapv(|y: f64| y.round()), array![5.0, 5.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Softmax::softmax_array`].
    pub fn logsumexp_array<T: Element, D: Dimension>(
        &self,
        x: ArrayView<T, D>,
        y: ArrayViewMut<T, D::Smaller>,
        axis: isize,
    ) -> Result<(), Error>
    where
        D::Smaller: Dimension<Larger = D>,
    {
        self.array_to_one(Work::LogSumExp, x, y, axis)
    }

    /// [`Softmax::entropy`] along an axis of `x`, into `y`, which lacks that axis.
    ///
    /// ```
    /// use ndarray::{Array1, array};
    /// let x = array![[1.0f64, 5.0, 9.0], [1.0, 1.0, 9.0]];
    /// let mut y = Array1::zeros(2);
    /// softmax::Softmax::new().entropy_array(x.slice(ndarray::s![.., ..1]).t(), y.view_mut(), 1)
    ///     .expect_err("one lane of two, not two of one");
    /// softmax::Softmax::new().entropy_array(x.slice(ndarray::s![.., ..2;-1]), y.view_mut(), 1)?;
    /// assert_eq!((y[0] * 1e4).round() / 1e4, 0.0901);
    /// assert_eq!(y[1], 2f64.ln());
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Softmax::softmax_array`].
    pub fn entropy_array<T: Element, D: Dimension>(
        &self,
        x: ArrayView<T, D>,
        y: ArrayViewMut<T, D::Smaller>,
        axis: isize,
    ) -> Result<(), Error>
    where
        D::Smaller: Dimension<Larger = D>,
    {
        self.array_to_one(Work::Entropy, x, y, axis)
    }

    fn array_to_one<T: Element, D: Dimension>(
        &self,
        work: Work,
        mut x: ArrayView<T, D>,
        y: ArrayViewMut<T, D::Smaller>,
        axis: isize,
    ) -> Result<(), Error>
    where
        D::Smaller: Dimension<Larger = D>,
    {
        let index = index_of(axis, x.ndim())?;
        check("output", x.shape(), y.shape(), index, None)?;
        if x.is_standard_layout() && y.is_standard_layout() {
            let (shape, y) = (x.raw_dim(), y.into_slice().unwrap_or_default());
            let x = x.to_slice().unwrap_or_default();
            return self.axis_to_one(work, x, y, shape.slice(), axis);
        }
        let mut y = y.insert_axis(Axis(index));
        let Some(mask) = self.mask_of_each(x.len_of(Axis(index)))? else {
            arrange(&mut x, index, |a, b| y.swap_axes(a, b));
            return self.lanes_to_one(work, last(&x), x, y);
        };
        of_any_type!(mask, m => {
            let mut mask = mask_like(m, x.raw_dim())?;
            arrange(&mut x, index, |a, b| {
                y.swap_axes(a, b);
                mask.swap_axes(a, b);
            });
            self.masked_lanes_to_one(work, last(&x), x, y, mask)
        })
    }
}

/// A mask of the shape of a tensor, in C order.
fn mask_like<M, D: Dimension>(mask: &[M], dim: D) -> Result<ArrayView<'_, M, D>, Error> {
    let n = dim.size();
    let view = ArrayView::from_shape(dim, mask).ok().filter(|_| mask.len() == n);
    view.ok_or_else(|| Error::count(MASK, n, mask.len()))
}

/// The number of elements of a lane.
fn last<S: RawData, D: Dimension>(x: &ArrayBase<S, D>) -> usize {
    x.shape().last().copied().unwrap_or(1)
}

/// Operations along an axis of views of any layout (feature `ndarray`).
impl Hardmax<'_> {
    /// [`Hardmax::hardmax`] along an axis of `x`, into `y`.
    ///
    /// ```
    /// use ndarray::{Array2, array};
    /// let x = array![[1.0f32, 5.0, 2.0], [4.0, 5.0, 0.0]];
    /// let mut y = Array2::zeros((3, 2));
    /// softmax::Hardmax::new().hardmax_array(x.t(), y.view_mut(), -1)?;
    /// assert_eq!(y, array![[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Softmax::softmax_array`].
    pub fn hardmax_array<T: Element, D: Dimension>(
        &self,
        mut x: ArrayView<T, D>,
        mut y: ArrayViewMut<T, D>,
        axis: isize,
    ) -> Result<(), Error> {
        let index = index_of(axis, x.ndim())?;
        check("output", x.shape(), y.shape(), index, Some(x.len_of(Axis(index))))?;
        if x.is_standard_layout() && y.is_standard_layout() {
            let (shape, y) = (x.raw_dim(), y.into_slice().unwrap_or_default());
            return self.hardmax_axis(x.to_slice().unwrap_or_default(), y, shape.slice(), axis);
        }
        arrange(&mut x, index, |a, b| y.swap_axes(a, b));
        self.lanes(last(&x), between(Some(x), y))
    }

    /// [`Hardmax::hardmax_array`] in place. The same bits.
    ///
    /// ```
    /// let mut x = ndarray::array![[1.0f32, 5.0], [4.0, 5.0]];
    /// softmax::Hardmax::new().hardmax_array_in_place(x.view_mut().reversed_axes(), 1)?;
    /// assert_eq!(x, ndarray::array![[0.0, 0.5], [1.0, 0.5]]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Softmax::softmax_array`].
    pub fn hardmax_array_in_place<T: Element, D: Dimension>(
        &self,
        mut y: ArrayViewMut<T, D>,
        axis: isize,
    ) -> Result<(), Error> {
        let index = index_of(axis, y.ndim())?;
        if y.is_standard_layout() {
            let shape = y.raw_dim();
            return self.hardmax_axis_in_place(
                y.into_slice().unwrap_or_default(),
                shape.slice(),
                axis,
            );
        }
        let len = y.len_of(Axis(index));
        let dim = y.ndim() - 1;
        y.swap_axes(index, dim);
        self.lanes(len, in_place(y))
    }

    /// [`Hardmax::argmax`] along an axis of `x`: indices in a view that lacks that axis.
    ///
    /// ```
    /// let x = ndarray::array![[1.0f32, 5.0, 2.0], [4.0, 5.0, 0.0]];
    /// let mut indices = ndarray::Array1::zeros(3);
    /// softmax::Hardmax::new().argmax_array(x.view(), indices.view_mut(), 0)?;
    /// assert_eq!(indices, ndarray::array![1, 0, 0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Softmax::softmax_array`]; [`Error::Value`] if lanes have no elements.
    pub fn argmax_array<T: Element, D: Dimension>(
        &self,
        mut x: ArrayView<T, D>,
        indices: ArrayViewMut<usize, D::Smaller>,
        axis: isize,
    ) -> Result<(), Error>
    where
        D::Smaller: Dimension<Larger = D>,
    {
        let index = index_of(axis, x.ndim())?;
        check("array of indices", x.shape(), indices.shape(), index, None)?;
        let mut indices = indices.insert_axis(Axis(index));
        arrange(&mut x, index, |a, b| indices.swap_axes(a, b));
        self.argmax_lanes(last(&x), x, indices)
    }
}

/// Operations along an axis of views of any layout (feature `ndarray`).
impl TopK<'_> {
    /// [`TopK::indices`] along an axis of `x`.
    ///
    /// ```
    /// let x = ndarray::array![[1.0f32, 5.0], [2.0, 4.0], [3.0, 0.0]];
    /// let mut indices = ndarray::Array2::zeros((2, 2));
    /// softmax::TopK::new(2).indices_array(x.view(), indices.view_mut(), 0)?;
    /// assert_eq!(indices, ndarray::array![[2, 0], [1, 1]]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Axis`], [`Error::Shape`] if shapes do not fit, or as [`TopK::indices_axis`].
    pub fn indices_array<T: Element, D: Dimension>(
        &self,
        x: ArrayView<T, D>,
        indices: ArrayViewMut<usize, D>,
        axis: isize,
    ) -> Result<(), Error> {
        self.array(x, None, None, indices, axis)
    }

    /// [`TopK::log_probs`] along an axis of `x`.
    ///
    /// ```
    /// use ndarray::{Array2, array};
    /// let (mut log_probs, mut indices) = (Array2::zeros((1, 2)), Array2::zeros((1, 2)));
    /// let x = array![[1.0f64, 5.0], [1.0, 5.0]];
    /// softmax::TopK::new(1)
    ///     .log_probs_array(x.view(), log_probs.view_mut(), indices.view_mut(), 0)?;
    /// assert_eq!((log_probs, indices), (array![[-std::f64::consts::LN_2; 2]], array![[0, 0]]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`TopK::indices_array`].
    pub fn log_probs_array<T: Element, D: Dimension>(
        &self,
        x: ArrayView<T, D>,
        log_probs: ArrayViewMut<T::Arithmetic, D>,
        indices: ArrayViewMut<usize, D>,
        axis: isize,
    ) -> Result<(), Error> {
        self.array(x, Some(log_probs), None, indices, axis)
    }

    /// [`TopK::probs`] along an axis of `x`.
    ///
    /// ```
    /// use ndarray::{Array2, array};
    /// let (mut probs, mut indices) = (Array2::zeros((1, 2)), Array2::zeros((1, 2)));
    /// let x = array![[1.0f32, 5.0], [1.0, 5.0]];
    /// softmax::TopK::new(1).probs_array(x.view(), probs.view_mut(), indices.view_mut(), 0)?;
    /// assert_eq!((probs, indices), (array![[0.5; 2]], array![[0, 0]]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`TopK::indices_array`].
    pub fn probs_array<T: Element, D: Dimension>(
        &self,
        x: ArrayView<T, D>,
        probs: ArrayViewMut<T::Arithmetic, D>,
        indices: ArrayViewMut<usize, D>,
        axis: isize,
    ) -> Result<(), Error> {
        self.array(x, None, Some(probs), indices, axis)
    }

    /// [`TopK::log_probs_and_probs`] along an axis of `x`.
    ///
    /// ```
    /// use ndarray::Array1;
    /// let (mut log_probs, mut probs) = (Array1::zeros(1), Array1::zeros(1));
    /// let (x, mut indices) = (Array1::from_elem(2, 3.0f64), Array1::zeros(1));
    /// softmax::TopK::new(1).log_probs_and_probs_array(
    ///     x.view(), log_probs.view_mut(), probs.view_mut(), indices.view_mut(), 0)?;
    /// assert_eq!((log_probs[0], probs[0], indices[0]), (-std::f64::consts::LN_2, 0.5, 0));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`TopK::indices_array`].
    pub fn log_probs_and_probs_array<T: Element, D: Dimension>(
        &self,
        x: ArrayView<T, D>,
        log_probs: ArrayViewMut<T::Arithmetic, D>,
        probs: ArrayViewMut<T::Arithmetic, D>,
        indices: ArrayViewMut<usize, D>,
        axis: isize,
    ) -> Result<(), Error> {
        self.array(x, Some(log_probs), Some(probs), indices, axis)
    }

    fn array<T: Element, D: Dimension>(
        &self,
        mut x: ArrayView<T, D>,
        mut log_probs: Option<ArrayViewMut<T::Arithmetic, D>>,
        mut probs: Option<ArrayViewMut<T::Arithmetic, D>>,
        mut indices: ArrayViewMut<usize, D>,
        axis: isize,
    ) -> Result<(), Error> {
        let index = index_of(axis, x.ndim())?;
        self.check(x.len_of(Axis(index)))?;
        for values in [&log_probs, &probs].into_iter().flatten() {
            check("array of values", x.shape(), values.shape(), index, Some(self.k))?;
        }
        check("array of indices", x.shape(), indices.shape(), index, Some(self.k))?;
        arrange(&mut x, index, |a, b| {
            indices.swap_axes(a, b);
            log_probs.iter_mut().for_each(|values| values.swap_axes(a, b));
            probs.iter_mut().for_each(|values| values.swap_axes(a, b));
        });
        self.lanes(last(&x), x, log_probs, probs, indices)
    }
}

/// Log-probabilities along an axis of views of any layout (feature `ndarray`).
impl LogProbs<'_> {
    /// [`LogProbs::log_probs`] along an axis of `x`. `tokens` and `log_probs` have its shape,
    /// except for the number of elements along the axis.
    ///
    /// ```
    /// use ndarray::{Array2, array};
    /// let (x, mut log_probs) = (array![[1.0f64, 5.0], [1.0, 5.0]], Array2::zeros((1, 2)));
    /// let log_probs_of = softmax::LogProbs::new();
    /// log_probs_of.log_probs_array(x.view(), array![[0, 1]].view(), log_probs.view_mut(), 0)?;
    /// assert_eq!(log_probs, array![[-std::f64::consts::LN_2; 2]]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Axis`], [`Error::Shape`] if shapes do not fit, or as [`LogProbs::log_probs_axis`].
    pub fn log_probs_array<T: Element, D: Dimension>(
        &self,
        x: ArrayView<T, D>,
        tokens: ArrayView<usize, D>,
        log_probs: ArrayViewMut<T::Arithmetic, D>,
        axis: isize,
    ) -> Result<(), Error> {
        let index = index_of(axis, x.ndim())?;
        self.array(x, tokens, log_probs, None, index)
    }

    /// [`LogProbs::log_probs_array`], and the log-sum-exp of each lane, in a view that lacks the
    /// axis.
    ///
    /// ```
    /// use ndarray::{Array1, Array2, array};
    /// let (x, tokens) = (array![[2.0f64, 3.0], [2.0, 3.0]], array![[0, 1]]);
    /// let (mut log_probs, mut logsumexp) = (Array2::zeros((1, 2)), Array1::zeros(2));
    /// softmax::LogProbs::new().log_probs_and_logsumexp_array(
    ///     x.view(), tokens.view(), log_probs.view_mut(), logsumexp.view_mut(), 0)?;
    /// assert_eq!(logsumexp, array![2.0, 3.0] - log_probs.row(0));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`LogProbs::log_probs_array`].
    pub fn log_probs_and_logsumexp_array<T: Element, D: Dimension>(
        &self,
        x: ArrayView<T, D>,
        tokens: ArrayView<usize, D>,
        log_probs: ArrayViewMut<T::Arithmetic, D>,
        logsumexp: ArrayViewMut<T::Arithmetic, D::Smaller>,
        axis: isize,
    ) -> Result<(), Error>
    where
        D::Smaller: Dimension<Larger = D>,
    {
        let index = index_of(axis, x.ndim())?;
        check("array of log-sum-exps", x.shape(), logsumexp.shape(), index, None)?;
        self.array(x, tokens, log_probs, Some(logsumexp.insert_axis(Axis(index))), index)
    }

    fn array<T: Element, D: Dimension>(
        &self,
        mut x: ArrayView<T, D>,
        mut tokens: ArrayView<usize, D>,
        mut log_probs: ArrayViewMut<T::Arithmetic, D>,
        mut logsumexp: Option<ArrayViewMut<T::Arithmetic, D>>,
        index: usize,
    ) -> Result<(), Error> {
        let (len, k) = (x.len_of(Axis(index)), tokens.shape().get(index).copied().unwrap_or(0));
        check("array of tokens", x.shape(), tokens.shape(), index, Some(k))?;
        check("array of log-probabilities", x.shape(), log_probs.shape(), index, Some(k))?;
        self.check_scale()?;
        let inner = tokens.shape()[index + 1..].iter().product();
        check_tokens(tokens.iter(), [0, k, inner], len)?;
        arrange(&mut x, index, |a, b| {
            tokens.swap_axes(a, b);
            log_probs.swap_axes(a, b);
            logsumexp.iter_mut().for_each(|logsumexp| logsumexp.swap_axes(a, b));
        });
        self.lanes(len, x, tokens, log_probs, logsumexp)
    }
}

/// The targets of losses along an axis of views: labels, a view without that axis, or
/// probabilities, a view of the logits' shape.
///
/// ```
/// use ndarray::{Array2, array};
/// let (logits, loss) = (array![[1.0f64, 1.0], [2.0, 2.0]], softmax::CrossEntropy::new());
/// let probs = Array2::from_elem((2, 2), 0.5f64);
/// assert_eq!(
///     loss.loss_array(logits.view(), array![0, 1].view(), 1)?,
///     loss.loss_array(logits.view(), probs.view(), 1)?,
/// );
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ArrayTargets<'a, T, D: Dimension> {
    /// The class of each lane.
    Labels(ArrayView<'a, i64, D::Smaller>),
    /// The probabilities of all classes.
    Probs(ArrayView<'a, T, D>),
}

impl<'a, T, D: Dimension> From<ArrayView<'a, i64, D::Smaller>> for ArrayTargets<'a, T, D> {
    fn from(labels: ArrayView<'a, i64, D::Smaller>) -> Self {
        Self::Labels(labels)
    }
}

macro_rules! probs {
    ($($t:ty),*) => {
        $(impl<'a, D: Dimension> From<ArrayView<'a, $t, D>> for ArrayTargets<'a, $t, D> {
            fn from(probs: ArrayView<'a, $t, D>) -> Self {
                Self::Probs(probs)
            }
        })*
    };
}

probs!(f32, f64, half::f16, half::bf16);

/// Losses along an axis of views of any layout (feature `ndarray`): the axis of the classes. Labels
/// and losses are views without that axis; row factors are in the order of these.
impl CrossEntropy<'_> {
    /// [`CrossEntropy::losses`] along an axis of the logits.
    ///
    /// ```
    /// use ndarray::{Array2, array};
    /// // One image of two classes and two pixels.
    /// let (logits, labels) = (array![[[1.0f32, 5.0], [1.0, 5.0]]], array![[0, 1]]);
    /// let mut losses = Array2::zeros((1, 2));
    /// let loss = softmax::CrossEntropy::new();
    /// loss.losses_array(logits.view(), labels.view(), losses.view_mut(), 1)?;
    /// assert!(losses.iter().all(|loss| (loss - std::f64::consts::LN_2).abs() < 1e-7));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Axis`], [`Error::Memory`], or as [`CrossEntropy::losses`].
    pub fn losses_array<'t, T: Element, D: Dimension>(
        &self,
        logits: ArrayView<T, D>,
        targets: impl Into<ArrayTargets<'t, T, D>>,
        losses: ArrayViewMut<f64, D::Smaller>,
        axis: isize,
    ) -> Result<(), Error>
    where
        D::Smaller: Dimension<Larger = D>,
    {
        self.array(Logits::Read(logits), targets.into(), losses, axis).map(drop)
    }

    /// [`CrossEntropy::losses_and_gradient`] along an axis of the logits, whose shape the gradient
    /// has.
    ///
    /// ```
    /// use ndarray::{Array2, Array3, array};
    /// let (logits, labels) = (array![[[1.0f32, 5.0], [1.0, 5.0]]], array![[0, 1]]);
    /// let (mut losses, mut gradient) = (Array2::zeros((1, 2)), Array3::zeros((1, 2, 2)));
    /// softmax::CrossEntropy::new().losses_and_gradient_array(
    ///     logits.view(), labels.view(), losses.view_mut(), gradient.view_mut(), 1)?;
    /// assert_eq!(gradient, array![[[-0.25, 0.25], [0.25, -0.25]]]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`CrossEntropy::losses_array`].
    pub fn losses_and_gradient_array<'t, T: Element, D: Dimension>(
        &self,
        logits: ArrayView<T, D>,
        targets: impl Into<ArrayTargets<'t, T, D>>,
        losses: ArrayViewMut<f64, D::Smaller>,
        gradient: ArrayViewMut<T, D>,
        axis: isize,
    ) -> Result<(), Error>
    where
        D::Smaller: Dimension<Larger = D>,
    {
        self.array(Logits::Gradient(logits, gradient), targets.into(), losses, axis).map(drop)
    }

    /// [`CrossEntropy::losses_and_gradient_array`]; the gradient overwrites the logits. The same
    /// bits.
    ///
    /// ```
    /// use ndarray::{Array1, array};
    /// let (mut logits, mut losses) = (array![[1.0f32, 5.0], [1.0, 5.0]], Array1::zeros(2));
    /// softmax::CrossEntropy::new().losses_and_gradient_array_in_place(
    ///     logits.view_mut(), array![0, 1].view(), losses.view_mut(), 0)?;
    /// assert_eq!(logits, array![[-0.25, 0.25], [0.25, -0.25]]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`CrossEntropy::losses_array`].
    pub fn losses_and_gradient_array_in_place<'t, T: Element, D: Dimension>(
        &self,
        logits: ArrayViewMut<T, D>,
        targets: impl Into<ArrayTargets<'t, T, D>>,
        losses: ArrayViewMut<f64, D::Smaller>,
        axis: isize,
    ) -> Result<(), Error>
    where
        D::Smaller: Dimension<Larger = D>,
    {
        self.array(Logits::InPlace(logits), targets.into(), losses, axis).map(drop)
    }

    /// [`CrossEntropy::loss`] along an axis of the logits.
    ///
    /// ```
    /// use ndarray::array;
    /// let (logits, labels) = (array![[1.0f64, 7.0], [1.0, 7.0]], array![0, 1]);
    /// let loss = softmax::CrossEntropy::new().loss_array(logits.view(), labels.view(), 0)?;
    /// assert_eq!(loss, std::f64::consts::LN_2);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`CrossEntropy::losses_array`].
    pub fn loss_array<'t, T: Element, D: RemoveAxis>(
        &self,
        logits: ArrayView<T, D>,
        targets: impl Into<ArrayTargets<'t, T, D>>,
        axis: isize,
    ) -> Result<f64, Error>
    where
        D::Smaller: Dimension<Larger = D>,
    {
        self.reduced_array(Logits::Read(logits), targets.into(), axis)
    }

    /// [`CrossEntropy::gradient`] along an axis of the logits, whose shape the gradient has.
    ///
    /// ```
    /// use ndarray::{Array2, array};
    /// let (logits, mut gradient) = (array![[1.0f32, 5.0], [1.0, 5.0]], Array2::zeros((2, 2)));
    /// let (loss, labels) = (softmax::CrossEntropy::new(), array![0, 1]);
    /// loss.gradient_array(logits.view(), labels.view(), gradient.view_mut(), 0)?;
    /// assert_eq!(gradient, array![[-0.25, 0.25], [0.25, -0.25]]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`CrossEntropy::losses_array`].
    pub fn gradient_array<'t, T: Element, D: RemoveAxis>(
        &self,
        logits: ArrayView<T, D>,
        targets: impl Into<ArrayTargets<'t, T, D>>,
        gradient: ArrayViewMut<T, D>,
        axis: isize,
    ) -> Result<f64, Error>
    where
        D::Smaller: Dimension<Larger = D>,
    {
        self.reduced_array(Logits::Gradient(logits, gradient), targets.into(), axis)
    }

    /// [`CrossEntropy::gradient_array`]; the gradient overwrites the logits. The same bits.
    ///
    /// ```
    /// use ndarray::array;
    /// let (mut logits, labels) = (array![[1.0f32, 5.0], [1.0, 5.0]], array![0, 1]);
    /// let loss = softmax::CrossEntropy::new();
    /// loss.gradient_array_in_place(logits.view_mut(), labels.view(), 0)?;
    /// assert_eq!(logits, array![[-0.25, 0.25], [0.25, -0.25]]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`CrossEntropy::losses_array`].
    pub fn gradient_array_in_place<'t, T: Element, D: RemoveAxis>(
        &self,
        logits: ArrayViewMut<T, D>,
        targets: impl Into<ArrayTargets<'t, T, D>>,
        axis: isize,
    ) -> Result<f64, Error>
    where
        D::Smaller: Dimension<Larger = D>,
    {
        self.reduced_array(Logits::InPlace(logits), targets.into(), axis)
    }

    fn reduced_array<T: Element, D: RemoveAxis>(
        &self,
        logits: Logits<ArrayView<T, D>, ArrayViewMut<T, D>>,
        targets: ArrayTargets<T, D>,
        axis: isize,
    ) -> Result<f64, Error>
    where
        D::Smaller: Dimension<Larger = D>,
    {
        let dim = logits.dim();
        let shape = dim.remove_axis(Axis(index_of(axis, dim.ndim())?));
        with_losses(shape.size(), |losses| {
            let n = losses.len();
            let view = ArrayViewMut::from_shape(shape, &mut *losses);
            let view = view.map_err(|_| Error::memory(n))?;
            let divisor = self.array(logits, targets, view, axis)?;
            Ok(self.reduce(losses, divisor))
        })
    }

    /// Writes losses and the gradient, and returns the divisor of the sum of the losses.
    fn array<T: Element, D: Dimension>(
        &self,
        logits: Logits<ArrayView<T, D>, ArrayViewMut<T, D>>,
        targets: ArrayTargets<T, D>,
        losses: ArrayViewMut<f64, D::Smaller>,
        axis: isize,
    ) -> Result<f64, Error>
    where
        D::Smaller: Dimension<Larger = D>,
    {
        let dim = logits.dim();
        let index = index_of(axis, dim.ndim())?;
        let (x, n, len) = (dim.slice(), losses.len(), dim[index]);
        match &targets {
            ArrayTargets::Labels(labels) => {
                check("array of labels", x, labels.shape(), index, None)?;
            }
            ArrayTargets::Probs(q) => check("array of targets", x, q.shape(), index, Some(len))?,
        }
        check("array of losses", x, losses.shape(), index, None)?;
        if let Logits::Gradient(_, y) = &logits {
            check("gradient", x, y.shape(), index, Some(len))?;
        }
        let shape = losses.raw_dim();
        let factors = self.factors().map(|factors| {
            let view = ArrayView::from_shape(shape.clone(), factors).ok();
            let view = view.filter(|view| view.len() == factors.len());
            let what = "number of row factors (one for each lane along the axis)";
            view.ok_or_else(|| Error::count(what, n, factors.len()))
        });
        let factors = factors.transpose()?.map(|factors| factors.insert_axis(Axis(index)));
        let losses = losses.insert_axis(Axis(index));
        let gradient = !matches!(logits, Logits::Read(_));
        let mut of_rows = *self;
        let labels = match targets {
            ArrayTargets::Probs(q) => {
                let divisor = of_rows.make_part(None, n, len, gradient)?;
                let targets = (q, probs_of_rows::<T> as OfRows<_, T>);
                of_rows.arranged(logits, targets, factors, losses, index)?;
                return Ok(divisor);
            }
            ArrayTargets::Labels(labels) => labels,
        };
        let in_order = with_room(n, |all: &mut [i64]| {
            labels.iter().zip(&mut *all).for_each(|(label, to)| *to = *label);
            let all = &*all;
            let divisor = of_rows.make_part(Some(all), n, len, gradient)?;
            let labels = ArrayView::from_shape(shape, all);
            let labels = labels.map_err(|_| Error::count("number of labels", n, all.len()))?;
            let labels = labels.insert_axis(Axis(index));
            let targets = (labels, labels_of_rows::<T> as OfRows<_, T>);
            of_rows.arranged(logits, targets, factors, losses, index)?;
            Ok(divisor)
        });
        in_order.unwrap_or(Err(Error::memory(n)))
    }

    /// Computes lanes in the order that suits the logits in memory.
    fn arranged<T: Element, V: Plain + Send + Sync + 'static, D: Dimension>(
        &self,
        mut logits: Logits<ArrayView<T, D>, ArrayViewMut<T, D>>,
        (mut targets, of_rows): (ArrayView<V, D>, OfRows<V, T>),
        mut factors: Option<ArrayView<f64, D>>,
        mut losses: ArrayViewMut<f64, D>,
        index: usize,
    ) -> Result<(), Error> {
        let mut swap = |a, b| {
            targets.swap_axes(a, b);
            losses.swap_axes(a, b);
            factors.iter_mut().for_each(|factors| factors.swap_axes(a, b));
        };
        let len = logits.dim()[index];
        match &mut logits {
            Logits::Read(x) => arrange(x, index, swap),
            Logits::InPlace(y) => arrange(y, index, swap),
            Logits::Gradient(x, y) => arrange(x, index, |a, b| {
                swap(a, b);
                y.swap_axes(a, b);
            }),
        }
        self.lanes(len, (targets, of_rows), factors, losses, logits)
    }
}

impl<T, D: Dimension> Logits<ArrayView<'_, T, D>, ArrayViewMut<'_, T, D>> {
    fn dim(&self) -> D {
        match self {
            Self::Read(x) | Self::Gradient(x, _) => x.raw_dim(),
            Self::InPlace(y) => y.raw_dim(),
        }
    }
}

/// The arrays of a call: from `x` to `y`, or `y` in place. The axes are in the order of those of
/// `y` from the largest stride to the smallest, after axes of one element.
struct Arrays<'a, T, D> {
    x: Option<ArrayView<'a, T, D>>,
    y: ArrayViewMut<'a, T, D>,
    /// The axis of the operation.
    axis: usize,
}

impl<'a, T: Element, D: Dimension> Arrays<'a, T, D> {
    fn new(
        x: Option<ArrayView<'a, T, D>>,
        y: ArrayViewMut<'a, T, D>,
        axis: isize,
    ) -> Result<Self, Error> {
        if let Some(x) = &x
            && x.shape() != y.shape()
        {
            let size = |shape: &[usize]| Size::Tensor(shape.into());
            return Err(Error::shape("output", size(x.shape()), size(y.shape())));
        }
        let dims = y.ndim();
        let index = index_of(axis, dims)?;
        let mut arrays = Self { x, y, axis: index };
        if arrays.is_dense() {
            return Ok(arrays);
        }
        for to in 0..dims {
            // Reversing the axis itself would change the order of the sum.
            if to != index && arrays.y.stride_of(Axis(to)) < 0 {
                arrays.y.invert_axis(Axis(to));
                arrays.x.iter_mut().for_each(|x| x.invert_axis(Axis(to)));
            }
        }
        for to in 0..dims {
            let size = |i: &usize| (arrays.len_of(*i) == 1, arrays.y.strides()[*i].unsigned_abs());
            let from = (to..dims).max_by_key(size).unwrap_or(to);
            arrays.y.swap_axes(from, to);
            arrays.x.iter_mut().for_each(|x| x.swap_axes(from, to));
            arrays.axis = match arrays.axis {
                axis if axis == from => to,
                axis if axis == to => from,
                axis => axis,
            };
        }
        Ok(arrays)
    }

    fn len_of(&self, axis: usize) -> usize {
        self.y.len_of(Axis(axis))
    }

    fn lanes(&self) -> usize {
        self.y.len() / self.len_of(self.axis).max(1)
    }

    /// Whether they can be made slices.
    fn is_dense(&self) -> bool {
        self.y.is_standard_layout() && self.x.as_ref().is_none_or(|x| x.is_standard_layout())
    }

    /// The number of elements of the largest dense arrays into which whole lanes can be split along
    /// the outer axes.
    fn run(&self) -> usize {
        let mut run = 1;
        let mut first = self.y.ndim();
        for axis in (0..first).rev() {
            let dense = |strides: &[isize]| strides[axis] == run as isize;
            let both =
                dense(self.y.strides()) && self.x.as_ref().is_none_or(|x| dense(x.strides()));
            if !both && self.len_of(axis) > 1 {
                break;
            }
            run *= self.len_of(axis);
            first = axis;
        }
        if first <= self.axis { run } else { 0 }
    }

    /// Whether they are small enough to be copied without splitting.
    fn is_tile(&self) -> bool {
        let (bytes, lanes) = (self.y.len() * size_of::<T>(), self.lanes());
        is_tile(TOGETHER, lanes, bytes) && self.run() < RUN
    }

    /// Splits off the first `at` of `of` equal parts.
    fn split(self, at: usize, of: usize) -> (Self, Self) {
        // Among the axes that are long enough it takes those along which neighbours are far apart
        // in both arrays, and among these the longest.
        let far = |strides: &[isize], axis: usize| match strides[axis].unsigned_abs() {
            // It has no neighbours.
            0 => usize::MAX,
            stride => stride,
        };
        let worth = |&axis: &usize| {
            let x = self.x.as_ref().map_or(usize::MAX, |x| far(x.strides(), axis));
            let len = self.len_of(axis);
            (len.min(of), x.min(far(self.y.strides(), axis)), len, Reverse(axis))
        };
        let others = (0..self.y.ndim()).filter(|&axis| axis != self.axis);
        // A single lane is not split.
        let along = others.max_by_key(worth).unwrap_or(self.axis);
        let at = part_of(self.len_of(along), at, of);
        let (x, others_x) = self.x.map(|x| x.split_at(Axis(along), at)).unzip();
        let (y, others_y) = self.y.split_at(Axis(along), at);
        (Self { x, y, axis: self.axis }, Self { x: others_x, y: others_y, axis: self.axis })
    }
}

/// Copies elements, in blocks if the arrays have different orders of axes.
fn copy<T: Copy, D: Dimension>(from: ArrayView<T, D>, mut to: ArrayViewMut<T, D>) {
    let last = Axis(from.ndim() - 1);
    let across = from.stride_of(last).abs().max(to.stride_of(last).abs()) > NEAR;
    if !across || from.len() <= BLOCK {
        return to.assign(&from);
    }
    let longest = (0..from.ndim()).max_by_key(|&axis| from.len_of(Axis(axis))).unwrap_or(0);
    let at = from.len_of(Axis(longest)) / 2;
    let from = from.split_at(Axis(longest), at);
    let to = to.split_at(Axis(longest), at);
    copy(from.0, to.0);
    copy(from.1, to.1);
}
