//! Softmax along an axis of the crate `ndarray`'s views, whatever lies where in memory.
//!
//! A slice over a view with gaps cannot be had: what lies in the gaps may be another view's. So
//! what has no gaps, and the same order of axes in input and output, is done where it is, be it all
//! of it or parts along the outer axes; everything else in a small copy, a tile at a time.

use std::any::Any;
use std::cell::Cell;
use std::cmp::Reverse;

use ndarray::{ArrayView, ArrayViewMut, Axis, Dimension};
use softmax_kernels::{Element, Op as Work, part_of};

use crate::axis::index_of;
use crate::{Error, Shape, Size, Softmax, Threads};

/// Bytes of a tile that is copied: it stays in a core's own cache.
const TILE: usize = 1 << 19;

/// Lanes of a tile at least, so that cache lines that several of them share are fetched once ...
const TOGETHER: usize = 16;

/// ... as long as that takes no more bytes than this.
const MOST: usize = 1 << 25;

/// Elements without gaps that are worth a call of their own.
const RUN: usize = 512;

/// Elements of a block in which two orders of axes are copied into each other: both sides stay in
/// the first-level cache.
const BLOCK: usize = 256;

/// Elements from a neighbour to the next at most, for cache lines to be used up in one go.
const NEAR: isize = 4;

/// Along an axis of `ndarray`'s views (feature `ndarray`), of any number of dimensions and any
/// layout: C order, Fortran order, permuted, reversed, sliced with steps; the input may be
/// broadcast. The same bits as [`Softmax::softmax`] of every lane. What lies between the elements
/// of the views is neither read nor written.
///
/// Views without gaps whose axes lie in the same order, whichever that is, are worked on where they
/// are, as by [`Softmax::softmax_axis`]; so are parts of some hundred elements without gaps (long
/// rows with padding between them). Everything else is copied a tile at a time, into memory that
/// each thread keeps for its next call: half a mebibyte, or what a lane needs, or, if neighbouring
/// lanes share cache lines, 16 of them, but not more than 32 MiB.
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
        self.array(Work::Softmax, Arrays::new(Some(x), y, axis)?)
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
        self.array(Work::Softmax, Arrays::new(None, y, axis)?)
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
        self.array(Work::LogSoftmax, Arrays::new(Some(x), y, axis)?)
    }

    /// [`Softmax::log_softmax_array`] in place. The same bits.
    ///
    /// # Errors
    /// As [`Softmax::softmax_array`].
    pub fn log_softmax_array_in_place<T: Element, D: Dimension>(
        &self,
        y: ArrayViewMut<T, D>,
        axis: isize,
    ) -> Result<(), Error> {
        self.array(Work::LogSoftmax, Arrays::new(None, y, axis)?)
    }

    fn array<T: Element, D: Dimension>(&self, op: Work, arrays: Arrays<T, D>) -> Result<(), Error> {
        if arrays.is_dense() {
            return self.dense(op, arrays);
        }
        let (lanes, in_place) = (arrays.lanes(), arrays.x.is_none());
        let shape = Shape::new(lanes, arrays.len_of(arrays.axis)).in_place_if(in_place);
        let plan = self.exec.plan_work::<T>(op, shape)?;
        if lanes < plan.threads() {
            // Few and long: threads share each of them.
            return self.scattered(op, arrays);
        }
        let serial = self.exec.threads(Threads::Serial);
        let one = if plan.threads() > 1 { self.exec(serial) } else { *self };
        let run = |arrays: Arrays<T, D>| one.scattered(op, arrays);
        self.exec
            .crew()
            .share(plan.threads, plan.parts, arrays, &Arrays::split, &run, &|a, b| a.and(b))
    }

    /// Cuts arrays until what is left is dense, or small enough to be copied.
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

    /// Where they are.
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

    /// In a copy without gaps.
    fn copied<T: Element, D: Dimension>(
        &self,
        op: Work,
        Arrays { x, mut y, axis }: Arrays<T, D>,
    ) -> Result<(), Error> {
        let mut spare = Spare::take();
        let tile = spare.room::<T>(y.len());
        let tile = tile.and_then(|tile| ArrayViewMut::from_shape(y.raw_dim(), tile).ok());
        let Some(mut tile) = tile else {
            return Err(Error::memory(y.len_of(Axis(axis))));
        };
        copy(x.unwrap_or(y.view()), tile.view_mut());
        self.dense(op, Arrays { x: None, y: tile.view_mut(), axis })?;
        copy(tile.view(), y.view_mut());
        Ok(())
    }
}

/// What a call works on: `x` to `y`, or `y` in place. The axes are those of `y` from the largest
/// stride to the smallest, behind those of one element.
struct Arrays<'a, T, D> {
    x: Option<ArrayView<'a, T, D>>,
    y: ArrayViewMut<'a, T, D>,
    /// Along which.
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
            // The order along the axis is that of the sum, and matters.
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

    /// Whether they are slices.
    fn is_dense(&self) -> bool {
        self.y.is_standard_layout() && self.x.as_ref().is_none_or(|x| x.is_standard_layout())
    }

    /// Elements of the largest dense arrays that whole lanes can be cut into along the outer axes.
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

    /// Whether they are to be copied, uncut.
    fn is_tile(&self) -> bool {
        let (bytes, lanes) = (self.y.len() * size_of::<T>(), self.lanes());
        let small = bytes <= TILE || lanes == 1 || (lanes <= TOGETHER && bytes <= MOST);
        small && self.run() < RUN
    }

    /// The first `at` of `of` parts, and the others.
    fn split(self, at: usize, of: usize) -> (Self, Self) {
        // Along an axis that is long enough; of those, where neighbours are far from each other in
        // both arrays; of those, the longest.
        let far = |strides: &[isize], axis: usize| match strides[axis].unsigned_abs() {
            // Nobody's neighbour.
            0 => usize::MAX,
            stride => stride,
        };
        let worth = |&axis: &usize| {
            let x = self.x.as_ref().map_or(usize::MAX, |x| far(x.strides(), axis));
            let len = self.len_of(axis);
            (len.min(of), x.min(far(self.y.strides(), axis)), len, Reverse(axis))
        };
        let others = (0..self.y.ndim()).filter(|&axis| axis != self.axis);
        // A single lane is never split.
        let along = others.max_by_key(worth).unwrap_or(self.axis);
        let at = part_of(self.len_of(along), at, of);
        let (x, others_x) = self.x.map(|x| x.split_at(Axis(along), at)).unzip();
        let (y, others_y) = self.y.split_at(Axis(along), at);
        (Self { x, y, axis: self.axis }, Self { x: others_x, y: others_y, axis: self.axis })
    }
}

/// Copies, in blocks if neighbours of the one are not those of the other.
fn copy<T: Element, D: Dimension>(from: ArrayView<T, D>, mut to: ArrayViewMut<T, D>) {
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

/// Memory that is used again by the next call of the same thread.
struct Spare(Option<Box<dyn Any>>);

thread_local! {
    /// What the last call of this thread left: a vector of the elements that it had.
    static SPARE: Cell<Option<Box<dyn Any>>> = const { Cell::new(None) };
}

/// Frees what this thread keeps.
pub(crate) fn release_spare() {
    let _ = SPARE.try_with(Cell::take);
}

impl Spare {
    fn take() -> Self {
        // A thread that is ending has no spare any more.
        Self(SPARE.try_with(Cell::take).ok().flatten())
    }

    /// Room for `n` elements. `None` if there is no memory.
    fn room<T: Element>(&mut self, n: usize) -> Option<&mut [T]> {
        if !self.0.as_ref().is_some_and(|spare| spare.is::<Vec<T>>()) {
            self.0 = Some(Box::new(Vec::<T>::new()));
        }
        let memory: &mut Vec<T> = self.0.as_mut()?.downcast_mut()?;
        if memory.len() < n {
            memory.try_reserve_exact(n - memory.len()).ok()?;
            memory.resize(n, T::ZERO);
        }
        memory.get_mut(..n)
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        let memory = self.0.take();
        // Where that fails the memory is freed.
        let _ = SPARE.try_with(|spare| spare.set(memory));
    }
}
