//! Scratch memory that the caller lends.

use softmax_kernels::{
    BlockSum, Element, Op, ROWS_AT_LEAST, TINY, room_for, room_for_columns, room_for_row,
    room_for_tiny,
};

use crate::axis::around;
use crate::{Attention, CrossEntropy, Error, Plan, Sampler, Softmax};

/// Calls `f`, whose calls of this crate on this thread, and on the threads that they are shared
/// among, take their scratch memory from `memory`. What it is too small for comes from the
/// allocator; with as many bytes as [`Softmax::scratch_size`] and its relatives say nothing does.
/// Without it, calls use memory of their threads' own, which is kept for the next call, and never
/// shrinks: [`release_scratch`] gives it back.
///
/// ```
/// use softmax::{CrossEntropy, Matrix};
/// let logits = Matrix::new(&[0.0f32; 10], 5)?;
/// let loss = CrossEntropy::new();
/// let mut memory = vec![0; loss.scratch_size::<f32>(2, 5)?];
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

impl Softmax<'_> {
    /// The scratch memory that a call with these options needs, in bytes: for
    /// [`with_scratch`](crate::with_scratch).
    ///
    /// # Errors
    /// As [`Softmax::plan`].
    pub fn scratch_size<T: Element>(
        &self,
        op: crate::Op,
        rows: usize,
        cols: usize,
        in_place: bool,
    ) -> Result<usize, Error> {
        let op = Op::from(op);
        let plan = self.plan_op::<T>(op, rows, cols, in_place)?;
        let is_tiny = op == Op::Softmax && cols <= TINY && rows >= ROWS_AT_LEAST;
        let worker =
            if is_tiny { room_for_tiny::<T>().max(row::<T>(cols)) } else { row::<T>(cols) };
        Ok(total(&plan, room_for::<BlockSum>(BlockSum::count(cols)), worker))
    }

    /// As [`Softmax::scratch_size`], along an axis of a tensor.
    ///
    /// # Errors
    /// [`Error::Axis`]; as [`Softmax::plan`].
    pub fn axis_scratch_size<T: Element>(
        &self,
        shape: &[usize],
        axis: isize,
    ) -> Result<usize, Error> {
        let [outer, axis, inner] = around(shape, axis)?;
        if inner == 1 {
            let map = self.scratch_size::<T>(crate::Op::LogSoftmax, outer, axis, false)?;
            return Ok(map.max(self.scratch_size::<T>(crate::Op::Softmax, outer, axis, true)?));
        }
        let plan = self.plan_op::<T>(Op::Softmax, outer.saturating_mul(inner), axis, true)?;
        Ok(total(&plan, 0, room_for_columns::<T>(axis)))
    }
}

impl Attention<'_> {
    /// As [`Softmax::scratch_size`], for scores of type `T` that become probabilities of type `U`.
    ///
    /// # Errors
    /// As [`Softmax::plan`].
    pub fn scratch_size<T: Element, U: Element>(
        &self,
        rows: usize,
        cols: usize,
    ) -> Result<usize, Error> {
        let plan = self.softmax_options().plan_op::<U>(Op::Softmax, rows, cols, false)?;
        Ok(total(&plan, 0, row::<T>(cols)))
    }
}

impl CrossEntropy<'_> {
    /// As [`Softmax::scratch_size`].
    ///
    /// # Errors
    /// As [`Softmax::plan`].
    pub fn scratch_size<T: Element>(&self, rows: usize, cols: usize) -> Result<usize, Error> {
        let plan = self.softmax_options().plan_op::<T>(Op::Softmax, rows, cols, false)?;
        Ok(total(&plan, room_for::<f64>(rows), row::<T>(cols)))
    }
}

impl Sampler<'_> {
    /// As [`Softmax::scratch_size`].
    ///
    /// # Errors
    /// As [`Softmax::plan`].
    pub fn scratch_size<T: Element>(&self, rows: usize, cols: usize) -> Result<usize, Error> {
        let plan = self.softmax_options().plan_op::<T>(Op::LogSumExp, rows, cols, false)?;
        Ok(total(&plan, 0, self.memory::<T::Arithmetic>(cols)))
    }
}
