//! Softmax along any axis of a tensor.

use softmax_kernels::{Columns, Element, Matrix, MatrixMut, Op as Work, Scale};

use crate::plan::Job;
use crate::{Error, Shape, Softmax};

/// Which of so many axes that is. A negative one counts from the end.
pub(crate) fn index_of(axis: isize, dims: usize) -> Result<usize, Error> {
    let index = if axis < 0 { axis.checked_add_unsigned(dims) } else { Some(axis) };
    let index = index.and_then(|index| usize::try_from(index).ok()).filter(|&index| index < dims);
    index.ok_or_else(|| Error::axis(axis, dims))
}

/// Positions before the axis, along it, and behind it.
pub(crate) fn around(shape: &[usize], axis: isize) -> Result<[usize; 3], Error> {
    let index = index_of(axis, shape.len())?;
    let product = |sizes: &[usize]| sizes.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
    // An empty tensor may have sizes whose product is too large without the 0.
    if shape.contains(&0) {
        return Ok([0, shape[index], 0]);
    }
    match (product(&shape[..index]), product(&shape[index + 1..])) {
        (Some(outer), Some(inner)) => Ok([outer, shape[index], inner]),
        _ => Err(Error::overflow(usize::MAX, shape[index], 1)),
    }
}

/// Along an axis of a tensor in C order (the last axis without gaps), given by its shape. The same
/// bits as if the axis had been moved to the end first. For the last axis it is the softmax of
/// rows.
impl Softmax<'_> {
    /// The softmax of `x` along an axis, into `y`. Error: as [`Softmax::softmax`].
    ///
    /// ```
    /// use softmax::Softmax;
    ///
    /// // A tensor of 2 x 3, along its first axis: three columns of two.
    /// let x = [1.0f32, 5.0, f32::NEG_INFINITY, 1.0, 5.0, 0.0];
    /// let mut y = [0.0f32; 6];
    /// Softmax::new().softmax_axis(&x, &mut y, &[2, 3], 0)?;
    /// assert_eq!(y, [0.5, 0.5, 0.0, 0.5, 0.5, 1.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Axis`] if there is no such axis (negative ones count from the end),
    /// [`Error::Shape`] if the slices have not as many elements as the shape says, [`Error::Value`]
    /// if the scale or temperature is out of range, which 0 and infinity are unless the axis is the
    /// last, [`Error::Memory`], or a kernel that cannot run.
    pub fn softmax_axis<T: Element>(
        &self,
        x: &[T],
        y: &mut [T],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        self.along(Work::Softmax, x, y, shape, axis)
    }

    /// [`Softmax::softmax_axis`] in place. The same bits.
    ///
    /// # Errors
    /// As [`Softmax::softmax_axis`].
    pub fn softmax_axis_in_place<T: Element>(
        &self,
        x: &mut [T],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        self.along_in_place(Work::Softmax, x, shape, axis)
    }

    /// The log-softmax of `x` along an axis, into `y`. Error: as [`Softmax::log_softmax`]. Axes
    /// that are not the last take several times as long.
    ///
    /// # Errors
    /// As [`Softmax::softmax_axis`].
    pub fn log_softmax_axis<T: Element>(
        &self,
        x: &[T],
        y: &mut [T],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        self.along(Work::LogSoftmax, x, y, shape, axis)
    }

    /// [`Softmax::log_softmax_axis`] in place. The same bits.
    ///
    /// # Errors
    /// As [`Softmax::softmax_axis`].
    pub fn log_softmax_axis_in_place<T: Element>(
        &self,
        x: &mut [T],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        self.along_in_place(Work::LogSoftmax, x, shape, axis)
    }

    fn along<T: Element>(
        &self,
        op: Work,
        x: &[T],
        y: &mut [T],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        let sizes = around(shape, axis)?;
        let (scale, masked) = (self.of_columns(sizes)?, self.masked);
        let columns = Columns::new(x, &mut *y, sizes, scale, masked)?;
        if let [rows, cols, 1] = sizes {
            let x = Matrix::with_stride(x, rows, cols, cols)?;
            let y = MatrixMut::with_stride(y, rows, cols, cols)?;
            return match op {
                Work::LogSoftmax => self.log_softmax(x, y),
                _ => self.softmax(x, y),
            };
        }
        self.columns(op, columns, sizes, false)
    }

    fn along_in_place<T: Element>(
        &self,
        op: Work,
        x: &mut [T],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        let sizes = around(shape, axis)?;
        let (scale, masked) = (self.of_columns(sizes)?, self.masked);
        let columns = Columns::in_place(&mut *x, sizes, scale, masked)?;
        if let [rows, cols, 1] = sizes {
            let x = MatrixMut::with_stride(x, rows, cols, cols)?;
            return match op {
                Work::LogSoftmax => self.log_softmax_in_place(x),
                _ => self.softmax_in_place(x),
            };
        }
        self.columns(op, columns, sizes, true)
    }

    /// The scale of columns; rows know for themselves what temperatures they have.
    fn of_columns(&self, sizes: [usize; 3]) -> Result<Scale, Error> {
        if let [_, _, 1] = sizes { Ok(Scale::ONE) } else { self.factor.finite() }
    }

    fn columns<T: Element>(
        &self,
        op: Work,
        columns: Columns<T>,
        [outer, axis, inner]: [usize; 3],
        in_place: bool,
    ) -> Result<(), Error> {
        // No overflow: there are as many elements.
        let shape = Shape::new(outer * inner, axis).in_place_if(in_place);
        let job = Job { columns: true, ..Job::new::<T>(op, shape) };
        let plan = self.exec.plan_of::<T>(self.exec.ready()?, job)?;
        // Nothing has no parts, however long the axis is.
        if outer * inner == 0 {
            return Ok(());
        }
        let kernel = plan.kernel;
        let done = self.exec.crew().share(
            plan.threads,
            plan.parts,
            columns.storing(plan.store),
            &Columns::split,
            &|columns| kernel.columns(op, columns),
            &|a, b| a && b,
        );
        if done { Ok(()) } else { Err(Error::memory(axis)) }
    }
}
