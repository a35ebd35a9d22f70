//! Scratch memory that the caller provides.

use softmax_kernels::{
    BlockSum, Element, Op as Work, ROWS_AT_LEAST, TINY, room_for, room_for_columns,
    room_for_routes, room_for_row, room_for_tiny,
};

use crate::axis::around;
use crate::lanes::{self, most_lanes};
use crate::{
    Attention, CrossEntropy, Error, Exec, Op, Plan, Router, Sampler, Shape, Softmax,
    SpeculativeSampler, TopK,
};

/// Calls `f`. Calls of this crate within `f`, on this thread and on the threads that share their
/// work, take their scratch memory from `memory`. What does not fit comes from the allocator; with
/// the number of bytes of [`Exec::scratch_size`] and similar functions everything fits. Without
/// `with_scratch`, calls use memory that each thread keeps for the next call. It never shrinks;
/// [`release_scratch`] frees it.
///
/// ```
/// use softmax::{CrossEntropy, Matrix, Shape};
/// let logits = Matrix::new(&[0.0f32; 10], 5)?;
/// let loss = CrossEntropy::new();
/// let mut memory = vec![0; loss.scratch_size::<f32>(Shape::from(&logits))?];
/// let loss = softmax::with_scratch(&mut memory, || loss.loss(logits, &[0, 1]))?;
/// assert_eq!((loss * 1e6).round(), 1609438.0);
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn with_scratch<R>(memory: &mut [u8], f: impl FnOnce() -> R) -> R {
    softmax_kernels::lend(memory, f)
}

/// Frees the memory that this thread and the threads of the global pool keep for their next calls,
/// which is as much as the largest call so far has needed. The threads of the pool free it after
/// their current work; other threads free theirs when they end or call this function.
///
/// ```
/// let mut row = vec![0.5f32; 1 << 20];
/// softmax::softmax_in_place(&mut row)?;
/// softmax::release_scratch();
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn release_scratch() {
    crate::threads::everywhere(softmax_kernels::release_scratch);
}

/// The sum of `caller` bytes for the calling thread and `worker` bytes for each thread that works.
/// The memory may start anywhere.
fn total(plan: &Plan, caller: usize, worker: usize) -> usize {
    worker.saturating_mul(plan.threads()).saturating_add(caller).saturating_add(64)
}

/// Bytes of a row in the arithmetic type.
fn row<T: Element>(cols: usize) -> usize {
    room_for_row::<T::Arithmetic>(cols)
}

/// Bytes for a tile of lanes that are copied as rows, for other operands with so many bytes for
/// each lane, and for the operation on the rows.
fn copied<T: Element>(
    exec: &Exec,
    lanes: usize,
    len: usize,
    others: &[usize],
) -> Result<usize, Error> {
    let lanes = most_lanes(lanes::TOGETHER, lanes, len.saturating_mul(size_of::<T>()));
    let of_rows = exec.scratch_size::<T>(Op::Softmax, Shape::new(lanes, len))?;
    let tile = room_for::<T>(lanes.saturating_mul(len));
    let others = others.iter().map(|&bytes| room_for::<u8>(lanes.saturating_mul(bytes)));
    Ok(others.fold(of_rows.saturating_add(tile), usize::saturating_add))
}

impl Exec<'_> {
    /// The scratch memory that a call of an operation needs, in bytes, for
    /// [`with_scratch`](crate::with_scratch). Operations without an [`Op`] have their own function,
    /// or need none. Masks and scales below 0 need more, for copies of rows, which the allocator
    /// provides if it is not lent.
    ///
    /// ```
    /// use softmax::{Exec, MatrixMut, Op, Shape, Softmax};
    /// let mut x = [0.0f32; 1000];
    /// let size = Exec::new().scratch_size::<f32>(Op::Softmax, Shape::new(1, 1000).in_place())?;
    /// let mut memory = vec![0; size];
    /// softmax::with_scratch(&mut memory, || {
    ///     Softmax::new().softmax_in_place(MatrixMut::new(&mut x, 1000)?)
    /// })?;
    /// assert_eq!(x, [1.0 / 1000.0; 1000]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Exec::plan`].
    pub fn scratch_size<T: Element>(&self, op: Op, shape: Shape) -> Result<usize, Error> {
        let plan = self.plan::<T>(op, shape)?;
        let Shape { rows, cols, .. } = shape;
        let is_tiny = op == Op::Softmax && cols <= TINY && rows >= ROWS_AT_LEAST;
        let worker =
            if is_tiny { room_for_tiny::<T>().max(row::<T>(cols)) } else { row::<T>(cols) };
        Ok(total(&plan, room_for::<BlockSum>(BlockSum::count(cols)), worker))
    }

    /// The same as [`Exec::scratch_size`], for softmax, log-softmax, log-sum-exp, hardmax and
    /// argmax along an axis of a tensor in C order.
    ///
    /// ```
    /// use softmax::{Exec, Softmax};
    /// let mut x = [0.0f32; 24];
    /// let mut memory = vec![0; Exec::new().axis_scratch_size::<f32>(&[2, 4, 3], 1)?];
    /// softmax::with_scratch(&mut memory, || {
    ///     Softmax::new().softmax_axis_in_place(&mut x, &[2, 4, 3], 1)
    /// })?;
    /// assert_eq!(x, [0.25; 24]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Axis`]; as [`Exec::plan`].
    pub fn axis_scratch_size<T: Element>(
        &self,
        shape: &[usize],
        axis: isize,
    ) -> Result<usize, Error> {
        let [outer, axis, inner] = around(shape, axis)?;
        if inner == 1 {
            let shape = Shape::new(outer, axis);
            let map = self.scratch_size::<T>(Op::LogSoftmax, shape)?;
            return Ok(map.max(self.scratch_size::<T>(Op::Softmax, shape.in_place())?));
        }
        let shape = Shape::new(outer.saturating_mul(inner), axis).in_place();
        let plan = self.plan::<T>(Op::Softmax, shape)?;
        // A result for each lane.
        let turned = copied::<T>(self, shape.rows, axis, &[size_of::<u64>()])?;
        Ok(total(&plan, 0, room_for_columns::<T>(axis).max(turned)))
    }
}

impl Softmax<'_> {
    /// As [`Exec::scratch_size`], with these options: a scale below 0 needs copies of rows.
    pub(crate) fn scratch_size<T: Element>(&self, op: Op, shape: Shape) -> Result<usize, Error> {
        let size = self.exec.scratch_size::<T>(op, shape)?;
        if !self.is_changed() {
            return Ok(size);
        }
        let plan = self.exec.plan_work::<T>(Work::LogSoftmax, shape.in_place())?;
        let rows = copied::<T>(&self.exec, shape.rows, shape.cols, &[size_of::<T>()])?;
        Ok(size.saturating_add(total(&plan, 0, rows)))
    }

    /// As [`Exec::axis_scratch_size`], with these options.
    pub(crate) fn axis_scratch_size<T: Element>(
        &self,
        shape: &[usize],
        axis: isize,
    ) -> Result<usize, Error> {
        let size = self.exec.axis_scratch_size::<T>(shape, axis)?;
        if !self.is_changed() {
            return Ok(size);
        }
        let [outer, axis, inner] = around(shape, axis)?;
        let rows = Shape::new(outer.saturating_mul(inner), axis);
        // Lanes are copied as rows, and these rows again.
        Ok(size.saturating_add(self.scratch_size::<T>(Op::LogSoftmax, rows)?))
    }
}

impl TopK<'_> {
    /// The bytes of `k` indices, log-probabilities and probabilities.
    fn picked<T: Element>(&self) -> [usize; 3] {
        [size_of::<usize>(), size_of::<T::Arithmetic>(), size_of::<T::Arithmetic>()]
            .map(|size| size.saturating_mul(self.k))
    }

    /// The same as [`Exec::scratch_size`], for all its methods for rows.
    ///
    /// ```
    /// use softmax::{Matrix, Shape, TopK};
    /// let (x, mut indices) = (Matrix::new(&[1.0f32, 3.0, 2.0], 3)?, [0; 2]);
    /// let top = TopK::new(2);
    /// let mut memory = vec![0; top.scratch_size::<f32>(Shape::from(&x))?];
    /// softmax::with_scratch(&mut memory, || top.indices(x, &mut indices))?;
    /// assert_eq!(indices, [1, 2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Exec::plan`].
    pub fn scratch_size<T: Element>(&self, shape: Shape) -> Result<usize, Error> {
        let plan = self.exec.plan::<T>(Op::LogSumExp, shape.in_place())?;
        let picked = room_for::<T::Arithmetic>(shape.rows.saturating_mul(self.k));
        let rows = if self.is_changed() {
            copied::<T>(&self.exec, shape.rows, shape.cols, &self.picked::<T>())?
        } else {
            0
        };
        Ok(total(&plan, picked, rows))
    }

    /// The same as [`TopK::scratch_size`], along an axis of a tensor in C order.
    ///
    /// ```
    /// use softmax::TopK;
    /// let (x, mut indices, top) = ([1.0f32, 5.0, 2.0, 4.0], [9; 2], TopK::new(1));
    /// let mut memory = vec![0; top.axis_scratch_size::<f32>(&[2, 2], 0)?];
    /// softmax::with_scratch(&mut memory, || top.indices_axis(&x, &mut indices, &[2, 2], 0))?;
    /// assert_eq!(indices, [1, 0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Axis`]; as [`Exec::plan`].
    pub fn axis_scratch_size<T: Element>(
        &self,
        shape: &[usize],
        axis: isize,
    ) -> Result<usize, Error> {
        let [outer, len, inner] = lanes::around(shape, axis)?;
        let rows = Shape::new(outer.saturating_mul(inner), len).in_place();
        let of_rows = self.scratch_size::<T>(rows)?;
        if inner == 1 {
            return Ok(of_rows);
        }
        let plan = self.exec.plan::<T>(Op::LogSumExp, rows)?;
        let tile = copied::<T>(&self.exec, rows.rows, len, &self.picked::<T>())?;
        // With a mask or a scale below 0 the rows of a tile are copied again.
        let again = if self.is_changed() { of_rows } else { 0 };
        Ok(total(&plan, again, tile))
    }
}

impl Router<'_> {
    /// The same as [`Exec::scratch_size`].
    ///
    /// ```
    /// use softmax::{Matrix, Router, Shape};
    /// let (x, mut weights, mut experts) = (Matrix::new(&[1.0f32, 1.0], 2)?, [0.0], [9]);
    /// let router = Router::new(1);
    /// let mut memory = vec![0; router.scratch_size::<f32>(Shape::from(&x))?];
    /// softmax::with_scratch(&mut memory, || router.route(x, &mut weights, &mut experts))?;
    /// assert_eq!((weights, experts), ([0.5], [0]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] or [`Error::Shape`] of the options; as [`Exec::plan`].
    pub fn scratch_size<T: Element>(&self, shape: Shape) -> Result<usize, Error> {
        self.routing().check(shape.cols)?;
        let plan = self.exec.plan_work::<T>(Work::LogSumExp, shape)?;
        let softmax = room_for_tiny::<T::Arithmetic>().max(row::<T>(shape.cols));
        let worker = softmax.saturating_add(room_for_routes::<T>(self.routing(), shape.cols));
        Ok(total(&plan, 0, worker))
    }
}

impl Attention<'_> {
    /// The same as [`Exec::scratch_size`], for scores of type `T` and probabilities of type `U`.
    ///
    /// ```
    /// use softmax::{Attention, MatrixMut, Shape};
    /// let (mut x, attention) = ([0.0f32; 4], Attention::new(1, 2).causal());
    /// let mut memory = vec![0; attention.scratch_size::<f32, f32>(Shape::new(2, 2).in_place())?];
    /// softmax::with_scratch(&mut memory, || attention.softmax_in_place(MatrixMut::new(&mut x, 2)?))?;
    /// assert_eq!(x, [1.0, 0.0, 0.5, 0.5]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] if the scale or temperature is out of range; as [`Exec::plan`].
    pub fn scratch_size<T: Element, U: Element>(&self, shape: Shape) -> Result<usize, Error> {
        self.check_scale()?;
        let negated = self.room_for_negated::<T>(shape);
        Ok(total(&self.plan::<U>(shape)?, 0, row::<T>(shape.cols).saturating_add(negated)))
    }
}

impl CrossEntropy<'_> {
    /// The same as [`Exec::scratch_size`].
    ///
    /// ```
    /// use softmax::{CrossEntropy, Matrix, Shape};
    /// let (logits, loss) = (Matrix::new(&[0.0f32; 8], 4)?, CrossEntropy::new());
    /// let mut memory = vec![0; loss.scratch_size::<f32>(Shape::from(&logits))?];
    /// let loss = softmax::with_scratch(&mut memory, || loss.loss(logits, &[0, 3]))?;
    /// assert!((loss - 4f64.ln()).abs() < 1e-7);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] if the scale or temperature is out of range; as [`Exec::plan`].
    pub fn scratch_size<T: Element>(&self, shape: Shape) -> Result<usize, Error> {
        self.check_scale()?;
        let plan = self.plan::<T>(Work::Softmax, shape)?;
        let Shape { rows, cols, .. } = shape;
        let of_rows = if self.is_negative() {
            copied::<T>(self.where_it_runs(), rows, cols, &[])?
        } else {
            row::<T>(cols)
        };
        Ok(total(&plan, room_for::<f64>(rows), of_rows))
    }

    /// The same as [`CrossEntropy::scratch_size`], along an axis of a tensor in C order.
    ///
    /// ```
    /// use softmax::CrossEntropy;
    /// let (x, labels, mut losses) = ([1.0f32, 5.0, 1.0, 5.0], [0, 1], [0.0; 2]);
    /// let loss = CrossEntropy::new();
    /// let mut memory = vec![0; loss.axis_scratch_size::<f32>(&[1, 2, 2], 1)?];
    /// softmax::with_scratch(&mut memory, || {
    ///     loss.losses_axis(&x, &labels, &mut losses, &[1, 2, 2], 1)
    /// })?;
    /// assert!(losses.iter().all(|loss| (loss - std::f64::consts::LN_2).abs() < 1e-7));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Axis`]; as [`CrossEntropy::scratch_size`].
    pub fn axis_scratch_size<T: Element>(
        &self,
        shape: &[usize],
        axis: isize,
    ) -> Result<usize, Error> {
        let [outer, len, inner] = lanes::around(shape, axis)?;
        let rows = Shape::new(outer.saturating_mul(inner), len).in_place();
        let of_rows = self.scratch_size::<T>(rows)?;
        if inner == 1 {
            return Ok(of_rows);
        }
        let plan = self.plan::<T>(Work::Softmax, rows)?;
        // A loss, a factor, and a label or else probabilities for each lane.
        let targets = len.saturating_mul(size_of::<T>()).max(size_of::<i64>());
        let others = [size_of::<f64>(), size_of::<f64>(), targets];
        let tile = copied::<T>(self.where_it_runs(), rows.rows, len, &others)?;
        // With a scale below 0 the rows of a tile are copied again.
        let again = if self.is_negative() { of_rows } else { room_for::<f64>(rows.rows) };
        Ok(total(&plan, again, tile))
    }
}

impl SpeculativeSampler<'_> {
    /// The same as [`Exec::scratch_size`], for target rows of this shape.
    ///
    /// ```
    /// use softmax::{DraftRows, Matrix, Ragged, Shape, SpeculativeSampler, TargetRows};
    /// let (logits, mut tokens) = (Matrix::new(&[0.0f32, f32::NEG_INFINITY], 2)?, [7]);
    /// let sampler = SpeculativeSampler::new(1);
    /// let mut memory = vec![0; sampler.scratch_size::<f32>(Shape::from(&logits))?];
    /// let (target, none) = (TargetRows::Logits(logits), Ragged::new(&[], &[0usize, 0])?);
    /// softmax::with_scratch(&mut memory, || {
    ///     sampler.verify(target, DraftRows::OneHot, none, &mut tokens, &mut [0])
    /// })?;
    /// assert_eq!(tokens, [0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] if a temperature is out of range; as [`Exec::plan`].
    pub fn scratch_size<T: Element>(&self, shape: Shape) -> Result<usize, Error> {
        let memory = self.memory::<T::Arithmetic>(shape.cols)?;
        Ok(total(&self.plan::<T>(shape)?, 0, memory))
    }
}

impl Sampler<'_> {
    /// The same as [`Exec::scratch_size`].
    ///
    /// ```
    /// use softmax::{Matrix, Sampler, Shape};
    /// let (logits, mut draws) = (Matrix::new(&[0.0f32, 9.0], 2)?, [7]);
    /// let sampler = Sampler::new(1).top_k(1);
    /// let mut memory = vec![0; sampler.scratch_size::<f32>(Shape::from(&logits))?];
    /// softmax::with_scratch(&mut memory, || sampler.sample(logits, &mut draws))?;
    /// assert_eq!(draws, [1]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] or [`Error::Shape`] of biases and histories; as [`Exec::plan`].
    pub fn scratch_size<T: Element>(&self, shape: Shape) -> Result<usize, Error> {
        let memory = self.memory::<T::Arithmetic>(shape.cols)?;
        Ok(total(&self.plan::<T>(shape)?, 0, memory))
    }
}
