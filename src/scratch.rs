//! Scratch memory that the caller lends.

use softmax_kernels::{
    BlockSum, Element, Op as Work, ROWS_AT_LEAST, TINY, room_for, room_for_columns, room_for_row,
    room_for_tiny,
};

use crate::axis::around;
use crate::lanes::most_lanes;
use crate::{Attention, CrossEntropy, Error, Exec, Op, Plan, Sampler, Shape, TopK};

/// Calls `f`, whose calls of this crate on this thread, and on the threads that they are shared
/// among, take their scratch memory from `memory`. What it is too small for comes from the
/// allocator; with as many bytes as [`Exec::scratch_size`] and its relatives say nothing does.
/// Without it, calls use memory of their threads' own, which is kept for the next call, and never
/// shrinks: [`release_scratch`] gives it back.
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

/// Frees the memory that this thread, and those of the global pool, keep for their next calls: as
/// much as the largest call so far has needed. The threads of the pool do so when they have done
/// what they are doing; other threads free theirs when they end, or by calling this themselves.
///
/// ```
/// let mut row = vec![0.5f32; 1 << 20];
/// softmax::softmax_in_place(&mut row)?;
/// softmax::release_scratch();
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn release_scratch() {
    crate::threads::everywhere(|| {
        softmax_kernels::release_scratch();
        #[cfg(feature = "ndarray")]
        crate::ndarray_axis::release_spare();
    });
}

/// So much for the calling thread and for each that works; the memory may start anywhere.
fn total(plan: &Plan, caller: usize, worker: usize) -> usize {
    worker.saturating_mul(plan.threads()).saturating_add(caller).saturating_add(64)
}

/// A row of what is computed with.
fn row<T: Element>(cols: usize) -> usize {
    room_for_row::<T::Arithmetic>(cols)
}

impl Exec<'_> {
    /// The scratch memory that a call of an operation needs, in bytes: for
    /// [`with_scratch`](crate::with_scratch). Those that are not named by an [`Op`] have a function
    /// of their own, or need none.
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

    /// As [`Exec::scratch_size`], of softmax, log-softmax, log-sum-exp, hardmax and argmax along an
    /// axis of a tensor in C order.
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
        // What is turned round, and a result for each of its lanes.
        let lanes = most_lanes(shape.rows, axis.saturating_mul(size_of::<T>()));
        let turned =
            room_for::<T>(lanes.saturating_mul(axis)).saturating_add(room_for::<u64>(lanes));
        let rows = self.scratch_size::<T>(Op::Softmax, Shape::new(lanes, axis))?;
        let turned = turned.saturating_add(rows);
        Ok(total(&plan, 0, room_for_columns::<T>(axis).max(turned)))
    }
}

impl TopK<'_> {
    /// As [`Exec::scratch_size`]: what indices or probabilities without log-probabilities need.
    ///
    /// # Errors
    /// As [`Exec::plan`].
    pub fn scratch_size<T: Element>(&self, shape: Shape) -> Result<usize, Error> {
        let plan = self.exec.plan::<T>(Op::LogSumExp, shape)?;
        let picked = shape.rows.saturating_mul(self.k);
        Ok(total(&plan, room_for::<T::Arithmetic>(picked), 0))
    }
}

impl Attention<'_> {
    /// As [`Exec::scratch_size`], for scores of type `T` that become probabilities of type `U`.
    ///
    /// # Errors
    /// [`Error::Value`] if the scale or temperature is out of range; as [`Exec::plan`].
    pub fn scratch_size<T: Element, U: Element>(&self, shape: Shape) -> Result<usize, Error> {
        self.check_scale()?;
        Ok(total(&self.plan::<U>(shape)?, 0, row::<T>(shape.cols)))
    }
}

impl CrossEntropy<'_> {
    /// As [`Exec::scratch_size`].
    ///
    /// # Errors
    /// [`Error::Value`] if the scale or temperature is out of range; as [`Exec::plan`].
    pub fn scratch_size<T: Element>(&self, shape: Shape) -> Result<usize, Error> {
        self.check_scale()?;
        let plan = self.plan::<T>(Work::Softmax, shape)?;
        Ok(total(&plan, room_for::<f64>(shape.rows), row::<T>(shape.cols)))
    }
}

impl Sampler<'_> {
    /// As [`Exec::scratch_size`].
    ///
    /// # Errors
    /// [`Error::Value`] or [`Error::Shape`] of biases and histories; as [`Exec::plan`].
    pub fn scratch_size<T: Element>(&self, shape: Shape) -> Result<usize, Error> {
        let memory = self.memory::<T::Arithmetic>(shape.cols)?;
        Ok(total(&self.plan::<T>(shape)?, 0, memory))
    }
}
