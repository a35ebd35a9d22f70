//! Operations along any axis of a tensor.

use softmax_kernels::{Columns, Element, MaskData, Matrix, MatrixMut, Op as Work, Scale};

use crate::changed::{MASK, of_any_type};
use crate::lanes::{
    self, Operand, Tensor, View, between, in_place, input, output, tensor, tensor_mut,
};
use crate::plan::Job;
use crate::{CrossEntropy, Error, Hardmax, Shape, Softmax, TopK};

/// The index of an axis among `dims` axes. A negative axis counts from the end.
///
/// # Errors
/// [`Error::Axis`] if there is no such axis.
pub fn index_of(axis: isize, dims: usize) -> Result<usize, Error> {
    let index = if axis < 0 { axis.checked_add_unsigned(dims) } else { Some(axis) };
    let index = index.and_then(|index| usize::try_from(index).ok()).filter(|&index| index < dims);
    index.ok_or_else(|| Error::axis(axis, dims))
}

/// As [`lanes::around`], but an axis without elements has no lanes, however many there would be.
pub(crate) fn around(shape: &[usize], axis: isize) -> Result<[usize; 3], Error> {
    let index = index_of(axis, shape.len())?;
    if shape[index] == 0 { Ok([0; 3]) } else { lanes::around(shape, axis) }
}

/// Operations along an axis of a tensor in C order (its last axis without gaps), given by its
/// shape. They give the same bits as if the axis had been moved to the end first. Along the last
/// axis they are the operations on rows.
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
    /// if the scale or temperature is out of range, [`Error::Memory`], or a kernel that cannot run.
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
    ///
    /// ```
    /// let mut x = [1.0f32, 5.0, 1.0, 5.0];
    /// softmax::Softmax::new().softmax_axis_in_place(&mut x, &[2, 2], 0)?;
    /// assert_eq!(x, [0.5; 4]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
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
    ///
    /// ```
    /// let (x, mut y) = ([1.0f64, 5.0, 1.0, 5.0], [0.0; 4]);
    /// softmax::Softmax::new().log_softmax_axis(&x, &mut y, &[2, 2], 0)?;
    /// assert_eq!(y, [-std::f64::consts::LN_2; 4]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
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
    ///
    /// ```
    /// let mut x = [1.0f64, 5.0, 1.0, 5.0];
    /// softmax::Softmax::new().log_softmax_axis_in_place(&mut x, &[2, 2], -2)?;
    /// assert_eq!(x, [-std::f64::consts::LN_2; 4]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
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
        if sizes[2] != 1 && self.is_special() {
            let (from, to) = (tensor(INPUT, x, sizes)?, tensor_mut(OUTPUT, y, sizes)?);
            return self.special(op, sizes, between(Some(from), to));
        }
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
        if sizes[2] != 1 && self.is_special() {
            return self.special(op, sizes, in_place(tensor_mut(INPUT, x, sizes)?));
        }
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

    /// The scale for columns; operations on rows handle the limits of temperature themselves.
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
        // An empty tensor has nothing to share among threads, however long its axis.
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

/// `n` rows of `len` elements; `n` may be 0.
fn rows<T>(rows: &[T], n: usize, len: usize) -> Result<Matrix<'_, T>, Error> {
    Matrix::with_stride(rows, n, len, len)
}

fn rows_mut<T>(rows: &mut [T], n: usize, len: usize) -> Result<MatrixMut<'_, T>, Error> {
    MatrixMut::with_stride(rows, n, len, len)
}

/// The names of the tensors in messages about sizes that do not fit.
const INPUT: &str = "number of elements of the tensor";
const OUTPUT: &str = "number of elements of the output";
const LABELS: &str = "number of labels (one for each lane along the axis)";
const FACTORS: &str = "number of row factors (one for each lane along the axis)";
const LOSSES: &str = "number of losses (one for each lane along the axis)";
const GRADIENT: &str = "number of elements of the gradient";

/// Operations on lanes that are copied.
impl Softmax<'_> {
    /// Softmax or log-softmax.
    pub(crate) fn lanes<T: Element>(
        &self,
        op: Work,
        len: usize,
        through: impl for<'r> Operand<Rows<'r> = &'r mut [T]>,
    ) -> Result<(), Error> {
        lanes::run::<T, _>(&self.exec, op, len, through, &|exec, n, x| {
            let x = rows_mut(x, n, len)?;
            match op {
                Work::LogSoftmax => self.exec(*exec).log_softmax_in_place(x),
                _ => self.exec(*exec).softmax_in_place(x),
            }
        })
    }

    /// The same with a mask for each lane.
    pub(crate) fn masked_lanes<T: Element, M: View>(
        &self,
        op: Work,
        len: usize,
        rows: impl for<'r> Operand<Rows<'r> = &'r mut [T]>,
        mask: M,
    ) -> Result<(), Error>
    where
        for<'r> &'r [M::Item]: Into<MaskData<'r>>,
    {
        lanes::run::<T, _>(&self.exec, op, len, (rows, input(mask)), &|exec, n, (x, mask)| {
            let (x, mask) = (rows_mut(x, n, len)?, Some((&*mask).into()));
            let of_rows = Softmax { mask, exec: *exec, ..*self };
            match op {
                Work::LogSoftmax => of_rows.log_softmax_in_place(x),
                _ => of_rows.softmax_in_place(x),
            }
        })
    }

    /// The same with a mask for each lane.
    pub(crate) fn masked_logsumexp_lanes<T: Element, M: View>(
        &self,
        len: usize,
        x: impl View<Item = T>,
        y: impl View<Item = T>,
        mask: M,
    ) -> Result<(), Error>
    where
        for<'r> &'r [M::Item]: Into<MaskData<'r>>,
    {
        let operands = ((input(x), input(mask)), output(y));
        let work = Work::LogSumExp;
        lanes::run::<T, _>(&self.exec, work, len, operands, &|exec, n, ((x, mask), y)| {
            let mask = Some((&*mask).into());
            Softmax { mask, exec: *exec, ..*self }.logsumexp(rows(x, n, len)?, y)
        })
    }

    /// Softmax or log-softmax with options that the kernels for columns do not have.
    fn special<T: Element>(
        &self,
        op: Work,
        sizes: [usize; 3],
        rows: impl for<'r> Operand<Rows<'r> = &'r mut [T]>,
    ) -> Result<(), Error> {
        let len = sizes[1];
        match self.mask_of_each(len) {
            None => self.lanes(op, len, rows),
            Some(mask) => of_any_type!(mask, m => {
                self.masked_lanes(op, len, rows, tensor(MASK, m, sizes)?)
            }),
        }
    }

    pub(crate) fn logsumexp_lanes<T: Element>(
        &self,
        len: usize,
        x: impl View<Item = T>,
        y: impl View<Item = T>,
    ) -> Result<(), Error> {
        let operands = (input(x), output(y));
        lanes::run::<T, _>(&self.exec, Work::LogSumExp, len, operands, &|exec, n, (x, y)| {
            self.exec(*exec).logsumexp(rows(x, n, len)?, y)
        })
    }

    /// The log-sum-exp of `x` along an axis: one element of `y` for each lane, in the order of the
    /// tensor without the axis. Error: as [`Softmax::logsumexp`]. If the axis is not the last,
    /// lanes are copied to rows in scratch memory, half a mebibyte or 16 lanes at a time.
    ///
    /// ```
    /// use softmax::Softmax;
    ///
    /// // Three columns of two.
    /// let x = [1.0f64, 5.0, f64::NEG_INFINITY, 1.0, 5.0, 0.0];
    /// let mut y = [0.0; 3];
    /// Softmax::new().logsumexp_axis(&x, &mut y, &[2, 3], 0)?;
    /// assert_eq!(y, [1.0 + 2f64.ln(), 5.0 + 2f64.ln(), 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Softmax::softmax_axis`].
    pub fn logsumexp_axis<T: Element>(
        &self,
        x: &[T],
        y: &mut [T],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        let sizes @ [outer, len, inner] = lanes::around(shape, axis)?;
        let from = tensor(INPUT, x, sizes)?;
        if inner == 1 {
            return self.logsumexp(rows(x, outer, len)?, y);
        }
        let to = tensor_mut(OUTPUT, y, [outer, 1, inner])?;
        match self.mask_of_each(len) {
            None => self.logsumexp_lanes(len, from, to),
            Some(mask) => of_any_type!(mask, m => {
                self.masked_logsumexp_lanes(len, from, to, tensor(MASK, m, sizes)?)
            }),
        }
    }
}

/// Operations along an axis of a tensor in C order, given by its shape. If the axis is not the
/// last, lanes are copied to rows in scratch memory, half a mebibyte or 16 lanes at a time. They
/// give the same bits as the operations on rows.
impl Hardmax<'_> {
    pub(crate) fn lanes<T: Element>(
        &self,
        len: usize,
        through: impl for<'r> Operand<Rows<'r> = &'r mut [T]>,
    ) -> Result<(), Error> {
        let work = Work::Hardmax(self.ties);
        lanes::run::<T, _>(&self.exec, work, len, through, &|exec, n, x| {
            self.exec(*exec).hardmax_in_place(rows_mut(x, n, len)?)
        })
    }

    pub(crate) fn argmax_lanes<T: Element>(
        &self,
        len: usize,
        x: impl View<Item = T>,
        indices: impl View<Item = usize>,
    ) -> Result<(), Error> {
        let operands = (input(x), output(indices));
        lanes::run::<T, _>(&self.exec, Work::LogSumExp, len, operands, &|exec, n, (x, indices)| {
            self.exec(*exec).argmax(rows(x, n, len)?, indices)
        })
    }

    /// [`Hardmax::hardmax`] of `x` along an axis, into `y`.
    ///
    /// ```
    /// use softmax::Hardmax;
    /// let mut y = [0.0f32; 6];
    /// // Three columns of two.
    /// Hardmax::new().hardmax_axis(&[1.0, 5.0, 2.0, 4.0, 5.0, 0.0], &mut y, &[2, 3], 0)?;
    /// assert_eq!(y, [0.0, 0.5, 1.0, 1.0, 0.5, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Axis`] if there is no such axis (negative ones count from the end),
    /// [`Error::Shape`] if the slices have not as many elements as the shape says,
    /// [`Error::Memory`], or a kernel that cannot run.
    pub fn hardmax_axis<T: Element>(
        &self,
        x: &[T],
        y: &mut [T],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        let sizes @ [outer, len, inner] = lanes::around(shape, axis)?;
        let from = tensor(INPUT, x, sizes)?;
        let to = tensor_mut(OUTPUT, &mut *y, sizes)?;
        if inner == 1 {
            return self.hardmax(rows(x, outer, len)?, rows_mut(y, outer, len)?);
        }
        self.lanes(len, between(Some(from), to))
    }

    /// [`Hardmax::hardmax_axis`] in place. The same bits.
    ///
    /// ```
    /// let mut x = [1.0f32, 5.0, 2.0, 4.0];
    /// softmax::Hardmax::new().hardmax_axis_in_place(&mut x, &[2, 2], 0)?;
    /// assert_eq!(x, [0.0, 1.0, 1.0, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Hardmax::hardmax_axis`].
    pub fn hardmax_axis_in_place<T: Element>(
        &self,
        x: &mut [T],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        let sizes @ [outer, len, inner] = lanes::around(shape, axis)?;
        let to = tensor_mut(INPUT, &mut *x, sizes)?;
        if inner == 1 {
            return self.hardmax_in_place(rows_mut(x, outer, len)?);
        }
        self.lanes(len, in_place(to))
    }

    /// [`Hardmax::argmax`] along an axis: one index for each lane, in the order of the tensor
    /// without the axis.
    ///
    /// ```
    /// use softmax::Hardmax;
    /// let mut indices = [9; 3];
    /// Hardmax::new().argmax_axis(&[1.0f32, 5.0, 2.0, 4.0, 5.0, 0.0], &mut indices, &[2, 3], 0)?;
    /// assert_eq!(indices, [1, 0, 0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Hardmax::hardmax_axis`]; [`Error::Value`] if lanes have no elements.
    pub fn argmax_axis<T: Element>(
        &self,
        x: &[T],
        indices: &mut [usize],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        let sizes @ [outer, len, inner] = lanes::around(shape, axis)?;
        let from = tensor(INPUT, x, sizes)?;
        if inner == 1 {
            return self.argmax(rows(x, outer, len)?, indices);
        }
        let what = "number of indices (one for each lane along the axis)";
        self.argmax_lanes(len, from, tensor_mut(what, indices, [outer, 1, inner])?)
    }
}

/// Operations along an axis of a tensor in C order, given by its shape. Results are tensors of the
/// same shape, except that they have `k` elements along the axis. If the axis is not the last,
/// lanes are copied to rows in scratch memory, half a mebibyte or 16 lanes at a time. They give the
/// same bits as the operations on rows.
impl TopK<'_> {
    pub(crate) fn lanes<T: Element>(
        &self,
        len: usize,
        x: impl View<Item = T>,
        log_probs: Option<impl View<Item = T::Arithmetic>>,
        probs: Option<impl View<Item = T::Arithmetic>>,
        indices: impl View<Item = usize>,
    ) -> Result<(), Error> {
        let operands = ((input(x), output(indices)), (log_probs.map(output), probs.map(output)));
        let work = Work::LogSumExp;
        lanes::run::<T, _>(&self.exec, work, len, operands, &|exec,
                                                              n,
                                                              (
            (x, indices),
            (log_probs, probs),
        )| {
            self.exec(*exec).of_rows(rows(x, n, len)?, log_probs, probs, indices)
        })
    }

    /// [`TopK::indices`] along an axis.
    ///
    /// ```
    /// use softmax::TopK;
    /// // Two columns of three.
    /// let mut indices = [9; 4];
    /// let x = [1.0f32, 5.0, 2.0, 4.0, 3.0, 0.0];
    /// TopK::new(2).indices_axis(&x, &mut indices, &[3, 2], 0)?;
    /// assert_eq!(indices, [2, 0, 1, 1]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Axis`] if there is no such axis (negative ones count from the end),
    /// [`Error::Shape`] if a slice has not as many elements as the shape and `k` say,
    /// [`Error::Value`] if a lane has less than `k` elements, or the scale or temperature is out of
    /// range, [`Error::Memory`], or a kernel that cannot run.
    pub fn indices_axis<T: Element>(
        &self,
        x: &[T],
        indices: &mut [usize],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        self.along(x, None, None, indices, shape, axis)
    }

    /// [`TopK::log_probs`] along an axis.
    ///
    /// ```
    /// use softmax::TopK;
    /// let (mut log_probs, mut indices) = ([1.0f64; 2], [9; 2]);
    /// TopK::new(1).log_probs_axis(&[1.0, 5.0, 1.0, 5.0], &mut log_probs, &mut indices, &[2, 2], 0)?;
    /// assert_eq!((log_probs, indices), ([-std::f64::consts::LN_2; 2], [0, 0]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`TopK::indices_axis`].
    pub fn log_probs_axis<T: Element>(
        &self,
        x: &[T],
        log_probs: &mut [T::Arithmetic],
        indices: &mut [usize],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        self.along(x, Some(log_probs), None, indices, shape, axis)
    }

    /// [`TopK::probs`] along an axis.
    ///
    /// ```
    /// use softmax::TopK;
    /// let (mut probs, mut indices) = ([1.0f32; 2], [9; 2]);
    /// TopK::new(1).probs_axis(&[1.0f32, 5.0, 1.0, 5.0], &mut probs, &mut indices, &[2, 2], 0)?;
    /// assert_eq!((probs, indices), ([0.5; 2], [0, 0]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`TopK::indices_axis`].
    pub fn probs_axis<T: Element>(
        &self,
        x: &[T],
        probs: &mut [T::Arithmetic],
        indices: &mut [usize],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        self.along(x, None, Some(probs), indices, shape, axis)
    }

    /// [`TopK::log_probs_and_probs`] along an axis.
    ///
    /// ```
    /// use softmax::TopK;
    /// let (mut log_probs, mut probs, mut indices) = ([1.0f64], [1.0], [9]);
    /// TopK::new(1).log_probs_and_probs_axis(
    ///     &[3.0, 3.0], &mut log_probs, &mut probs, &mut indices, &[2, 1], 0)?;
    /// assert_eq!((log_probs, probs, indices), ([-std::f64::consts::LN_2], [0.5], [0]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`TopK::indices_axis`].
    pub fn log_probs_and_probs_axis<T: Element>(
        &self,
        x: &[T],
        log_probs: &mut [T::Arithmetic],
        probs: &mut [T::Arithmetic],
        indices: &mut [usize],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        self.along(x, Some(log_probs), Some(probs), indices, shape, axis)
    }

    fn along<T: Element>(
        &self,
        x: &[T],
        log_probs: Option<&mut [T::Arithmetic]>,
        probs: Option<&mut [T::Arithmetic]>,
        indices: &mut [usize],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        let sizes @ [outer, len, inner] = lanes::around(shape, axis)?;
        self.check(len)?;
        let from = tensor(INPUT, x, sizes)?;
        if inner == 1 {
            return self.of_rows(rows(x, outer, len)?, log_probs, probs, indices);
        }
        let picked = [outer, self.k, inner];
        let values = |values| tensor_mut("number of values (k of each lane)", values, picked);
        let log_probs = log_probs.map(values).transpose()?;
        let probs = probs.map(values).transpose()?;
        let indices = tensor_mut("number of indices (k of each lane)", indices, picked)?;
        self.lanes(len, from, log_probs, probs, indices)
    }

    /// The method for the values that are wanted.
    fn of_rows<T: Element>(
        &self,
        x: Matrix<T>,
        log_probs: Option<&mut [T::Arithmetic]>,
        probs: Option<&mut [T::Arithmetic]>,
        indices: &mut [usize],
    ) -> Result<(), Error> {
        match (log_probs, probs) {
            (None, None) => self.indices(x, indices),
            (Some(log_probs), None) => self.log_probs(x, log_probs, indices),
            (None, Some(probs)) => self.probs(x, probs, indices),
            (Some(log_probs), Some(probs)) => {
                self.log_probs_and_probs(x, log_probs, probs, indices)
            }
        }
    }
}

/// Losses along an axis of a tensor in C order, given by its shape: the axis of the classes, such
/// as the second of PyTorch's `N, C, d1, d2`. There is one label, one loss and one row factor for
/// each lane, in the order of the tensor without the axis. If the axis is not the last, lanes are
/// copied to rows in scratch memory, half a mebibyte or 16 lanes at a time. They give the same bits
/// as the operations on rows.
impl CrossEntropy<'_> {
    pub(crate) fn lanes<T: Element, const GRADIENT: bool>(
        &self,
        len: usize,
        labels: &[i64],
        views: (impl View<Item = i64>, Option<impl View<Item = f64>>, impl View<Item = f64>),
        logits: impl for<'r> Operand<Rows<'r> = &'r mut [T]>,
    ) -> Result<(), Error> {
        let of_rows = self.of_part(labels, len, GRADIENT)?;
        let (labels, factors, losses) = views;
        let operands = ((logits, output(losses)), (input(labels), factors.map(input)));
        let work = if GRADIENT { Work::Softmax } else { Work::LogSumExp };
        let exec = self.where_it_runs();
        lanes::run::<T, _>(
            exec,
            work,
            len,
            operands,
            &|exec, n, ((x, losses), (labels, factors))| {
                let of_rows = of_rows.exec(*exec).with_factors(factors.as_deref());
                if GRADIENT {
                    of_rows.losses_and_gradient_in_place(rows_mut(x, n, len)?, &*labels, losses)
                } else {
                    of_rows.losses(rows(x, n, len)?, &*labels, losses)
                }
            },
        )
    }

    /// [`CrossEntropy::losses`] of logits along an axis.
    ///
    /// ```
    /// use softmax::CrossEntropy;
    /// // One image of two classes and three pixels, the last of which is ignored.
    /// let logits = [1.0f32, 5.0, 0.0, 1.0, 5.0, 9.0];
    /// let (labels, mut losses) = ([0, 1, -100], [0.0; 3]);
    /// let loss = CrossEntropy::new();
    /// loss.losses_axis(&logits, &labels, &mut losses, &[1, 2, 3], 1)?;
    /// let mean = loss.reduce(&losses, loss.divisor(&labels, 2)?);
    /// assert!((mean - std::f64::consts::LN_2).abs() < 1e-7 && losses[2] == 0.0);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Axis`] if there is no such axis (negative ones count from the end),
    /// [`Error::Memory`], or as [`CrossEntropy::losses`].
    pub fn losses_axis<T: Element>(
        &self,
        logits: &[T],
        labels: &[i64],
        losses: &mut [f64],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        let sizes @ [outer, len, inner] = lanes::around(shape, axis)?;
        let from = tensor(INPUT, logits, sizes)?;
        if inner == 1 {
            return self.losses(rows(logits, outer, len)?, labels, losses);
        }
        let views = self.views(labels, losses, [outer, 1, inner])?;
        self.lanes::<T, false>(len, labels, views, input(from))
    }

    /// [`CrossEntropy::losses_and_gradient`] of logits along an axis; the gradient is a tensor of
    /// their shape.
    ///
    /// ```
    /// use softmax::CrossEntropy;
    /// let (logits, labels) = ([1.0f32, 5.0, 1.0, 5.0], [0, 1]);
    /// let (mut losses, mut gradient) = ([0.0; 2], [0.0; 4]);
    /// // The mean over two pixels of two classes.
    /// CrossEntropy::new()
    ///     .losses_and_gradient_axis(&logits, &labels, &mut losses, &mut gradient, &[1, 2, 2], 1)?;
    /// assert_eq!(gradient, [-0.25, 0.25, 0.25, -0.25]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`CrossEntropy::losses_axis`].
    pub fn losses_and_gradient_axis<T: Element>(
        &self,
        logits: &[T],
        labels: &[i64],
        losses: &mut [f64],
        gradient: &mut [T],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        let sizes @ [outer, len, inner] = lanes::around(shape, axis)?;
        let from = tensor(INPUT, logits, sizes)?;
        let to = tensor_mut(GRADIENT, &mut *gradient, sizes)?;
        if inner == 1 {
            let (x, gradient) = (rows(logits, outer, len)?, rows_mut(gradient, outer, len)?);
            return self.losses_and_gradient(x, labels, losses, gradient);
        }
        let views = self.views(labels, losses, [outer, 1, inner])?;
        self.lanes::<T, true>(len, labels, views, between(Some(from), to))
    }

    #[allow(clippy::type_complexity)]
    fn views<'v>(
        &self,
        labels: &'v [i64],
        losses: &'v mut [f64],
        ones: [usize; 3],
    ) -> Result<
        (Tensor<Matrix<'v, i64>>, Option<Tensor<Matrix<'_, f64>>>, Tensor<MatrixMut<'v, f64>>),
        Error,
    > {
        let factors = self.factors().map(|factors| tensor(FACTORS, factors, ones)).transpose()?;
        Ok((tensor(LABELS, labels, ones)?, factors, tensor_mut(LOSSES, losses, ones)?))
    }
}
