//! Operations along any axis of a tensor.

use softmax_kernels::{Columns, Element, MaskData, Matrix, MatrixMut, Op as Work, Scale, Targets};

use crate::changed::{MASK, of_any_type};
use crate::lanes::{self, Operand, View, between, in_place, input, output, tensor, tensor_mut};
use crate::loss::with_losses;
use crate::plan::Job;
use crate::{CrossEntropy, Error, Hardmax, LogProbs, Shape, Softmax, TopK};

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
const TARGETS: &str = "number of elements of the targets, without gaps";
const GRADIENT: &str = "number of elements of the gradient";

/// The lanes of a tensor along its last axis.
fn rows_of<'x, T>(
    what: &'static str,
    x: &'x [T],
    sizes: [usize; 3],
) -> Result<Matrix<'x, T>, Error> {
    tensor(what, x, sizes)?;
    rows(x, sizes[0], sizes[1])
}

fn rows_of_mut<'x, T>(
    what: &'static str,
    x: &'x mut [T],
    sizes: [usize; 3],
) -> Result<MatrixMut<'x, T>, Error> {
    tensor_mut(what, &mut *x, sizes)?;
    rows_mut(x, sizes[0], sizes[1])
}

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
    pub(crate) fn masked_lanes_to_one<T: Element, M: View>(
        &self,
        work: Work,
        len: usize,
        x: impl View<Item = T>,
        y: impl View<Item = T>,
        mask: M,
    ) -> Result<(), Error>
    where
        for<'r> &'r [M::Item]: Into<MaskData<'r>>,
    {
        let operands = ((input(x), input(mask)), output(y));
        lanes::run::<T, _>(&self.exec, work, len, operands, &|exec, n, ((x, mask), y)| {
            let mask = Some((&*mask).into());
            Softmax { mask, exec: *exec, ..*self }.rows_to_one(work, rows(x, n, len)?, y)
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
        match self.mask_of_each(len)? {
            None => self.lanes(op, len, rows),
            Some(mask) => of_any_type!(mask, m => {
                self.masked_lanes(op, len, rows, tensor(MASK, m, sizes)?)
            }),
        }
    }

    /// Log-sum-exp or entropy of lanes.
    pub(crate) fn lanes_to_one<T: Element>(
        &self,
        work: Work,
        len: usize,
        x: impl View<Item = T>,
        y: impl View<Item = T>,
    ) -> Result<(), Error> {
        let operands = (input(x), output(y));
        lanes::run::<T, _>(&self.exec, work, len, operands, &|exec, n, (x, y)| {
            self.exec(*exec).rows_to_one(work, rows(x, n, len)?, y)
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
        self.axis_to_one(Work::LogSumExp, x, y, shape, axis)
    }

    /// The entropy of the softmax of `x` along an axis: one element of `y` for each lane, in the
    /// order of the tensor without the axis. Error: as [`Softmax::entropy`]. If the axis is not the
    /// last, lanes are copied to rows in scratch memory, half a mebibyte or 16 lanes at a time.
    ///
    /// ```
    /// use softmax::Softmax;
    ///
    /// // Three columns of two.
    /// let x = [1.0f64, 5.0, f64::NEG_INFINITY, 1.0, 5.0, 0.0];
    /// let mut y = [0.0; 3];
    /// Softmax::new().entropy_axis(&x, &mut y, &[2, 3], 0)?;
    /// assert_eq!(y, [2f64.ln(), 2f64.ln(), 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Softmax::softmax_axis`].
    pub fn entropy_axis<T: Element>(
        &self,
        x: &[T],
        y: &mut [T],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        self.axis_to_one(Work::Entropy, x, y, shape, axis)
    }

    pub(crate) fn axis_to_one<T: Element>(
        &self,
        work: Work,
        x: &[T],
        y: &mut [T],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        let sizes @ [outer, len, inner] = lanes::around(shape, axis)?;
        let from = tensor(INPUT, x, sizes)?;
        if inner == 1 {
            return self.rows_to_one(work, rows(x, outer, len)?, y);
        }
        let to = tensor_mut(OUTPUT, y, [outer, 1, inner])?;
        match self.mask_of_each(len)? {
            None => self.lanes_to_one(work, len, from, to),
            Some(mask) => of_any_type!(mask, m => {
                self.masked_lanes_to_one(work, len, from, to, tensor(MASK, m, sizes)?)
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
        self.check_mask(len)?;
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

/// Log-probabilities along an axis of a tensor in C order, given by its shape. If the axis is not
/// the last, lanes are copied to rows in scratch memory, half a mebibyte or 16 lanes at a time.
/// They give the same bits as the operations on rows.
impl LogProbs<'_> {
    pub(crate) fn lanes<T: Element>(
        &self,
        len: usize,
        x: impl View<Item = T>,
        tokens: impl View<Item = usize>,
        log_probs: impl View<Item = T::Arithmetic>,
        logsumexp: Option<impl View<Item = T::Arithmetic>>,
    ) -> Result<(), Error> {
        self.check_mask(len)?;
        let operands = ((input(x), input(tokens)), (output(log_probs), logsumexp.map(output)));
        let (exec, work) = (self.where_it_runs(), Work::LogSumExp);
        lanes::run::<T, _>(exec, work, len, operands, &|exec, n, ((x, tokens), (y, lse))| {
            let (of_rows, x) = (self.exec(*exec), rows(x, n, len)?);
            match lse {
                None => of_rows.log_probs(x, tokens, y),
                Some(lse) => of_rows.log_probs_and_logsumexp(x, tokens, y, lse),
            }
        })
    }

    /// [`LogProbs::log_probs`] along an axis. `tokens` and `log_probs` are tensors of the shape of
    /// `x`, except that they have another number of elements along the axis: the same number for
    /// each lane. (If it is 1, they are in the order of the tensor without the axis.)
    ///
    /// ```
    /// use softmax::LogProbs;
    /// // One token of each of two columns of three.
    /// let (x, mut log_probs) = ([1.0f64, 5.0, 1.0, f64::NEG_INFINITY, 1.0, 5.0], [0.0; 2]);
    /// LogProbs::new().log_probs_axis(&x, &[2, 0], &mut log_probs, &[3, 2], 0)?;
    /// assert_eq!(log_probs, [-3f64.ln(), -2f64.ln()]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Axis`] if there is no such axis (negative ones count from the end),
    /// [`Error::Memory`], or as [`LogProbs::log_probs`].
    pub fn log_probs_axis<T: Element>(
        &self,
        x: &[T],
        tokens: &[usize],
        log_probs: &mut [T::Arithmetic],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        self.along(x, tokens, log_probs, None, lanes::around(shape, axis)?)
    }

    /// [`LogProbs::log_probs_axis`], and the log-sum-exp of each lane, in one element of
    /// `logsumexp` each.
    ///
    /// ```
    /// use softmax::LogProbs;
    /// let (x, mut log_probs, mut logsumexp) = ([2.0f64, 3.0, 2.0, 3.0], [0.0; 2], [0.0; 2]);
    /// LogProbs::new().log_probs_and_logsumexp_axis(
    ///     &x, &[0, 1], &mut log_probs, &mut logsumexp, &[2, 2], 0)?;
    /// assert_eq!(logsumexp, [2.0 - log_probs[0], 3.0 - log_probs[1]]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`LogProbs::log_probs_axis`]; [`Error::Shape`] if `logsumexp` has not one element for
    /// each lane.
    pub fn log_probs_and_logsumexp_axis<T: Element>(
        &self,
        x: &[T],
        tokens: &[usize],
        log_probs: &mut [T::Arithmetic],
        logsumexp: &mut [T::Arithmetic],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        self.along(x, tokens, log_probs, Some(logsumexp), lanes::around(shape, axis)?)
    }

    fn along<T: Element>(
        &self,
        x: &[T],
        tokens: &[usize],
        log_probs: &mut [T::Arithmetic],
        logsumexp: Option<&mut [T::Arithmetic]>,
        sizes: [usize; 3],
    ) -> Result<(), Error> {
        let [outer, len, inner] = sizes;
        let from = tensor(INPUT, x, sizes)?;
        if inner == 1 {
            let x = rows(x, outer, len)?;
            return match logsumexp {
                None => self.log_probs(x, tokens, log_probs),
                Some(logsumexp) => self.log_probs_and_logsumexp(x, tokens, log_probs, logsumexp),
            };
        }
        let n = outer * inner;
        let picked = [outer, tokens.len().div_ceil(n.max(1)), inner];
        let of_lanes = tensor("number of tokens (as many for each lane)", tokens, picked)?;
        let what = "number of log-probabilities (one for each token)";
        let log_probs = tensor_mut(what, log_probs, picked)?;
        let what = "number of log-sum-exps (one for each lane along the axis)";
        let one = |logsumexp| tensor_mut(what, logsumexp, [outer, 1, inner]);
        let logsumexp = logsumexp.map(one).transpose()?;
        self.check_scale()?;
        check_tokens(tokens.iter(), picked, len)?;
        self.lanes(len, from, of_lanes, log_probs, logsumexp)
    }
}

/// Checks that all tokens are elements of a lane of `len`. They are in the order of a tensor with
/// `k` of them along the axis.
pub(crate) fn check_tokens<'t>(
    mut tokens: impl Iterator<Item = &'t usize> + Clone,
    [_, k, inner]: [usize; 3],
    len: usize,
) -> Result<(), Error> {
    let Some(at) = tokens.clone().position(|&token| token >= len) else { return Ok(()) };
    let lane = at / (k * inner) * inner + at % inner;
    Err(Error::column(lane, tokens.nth(at).copied().unwrap_or(len), len))
}

/// The logits of losses along an axis, and the place of their gradient, if it is wanted.
pub(crate) enum Logits<X, Y> {
    Read(X),
    Gradient(X, Y),
    InPlace(Y),
}

/// Targets that were copied as rows: labels, or else probabilities. The numbers are rows and
/// columns.
pub(crate) type OfRows<V, T> = for<'r> fn(&'r [V], usize, usize) -> Result<Targets<'r, T>, Error>;

pub(crate) fn labels_of_rows<T>(
    labels: &[i64],
    _: usize,
    _: usize,
) -> Result<Targets<'_, T>, Error> {
    Ok(labels.into())
}

pub(crate) fn probs_of_rows<T>(probs: &[T], n: usize, len: usize) -> Result<Targets<'_, T>, Error> {
    Ok(rows(probs, n, len)?.into())
}

/// Losses along an axis of a tensor in C order, given by its shape: the axis of the classes, such
/// as the second of PyTorch's `N, C, d1, d2`. There is one loss, one row factor and one label for
/// each lane, in the order of the tensor without the axis. Target probabilities are a tensor of the
/// logits' shape, given as a matrix of any number of columns without gaps between its rows. If the
/// axis is not the last, lanes are copied to rows in scratch memory, half a mebibyte or 16 lanes at
/// a time. They give the same bits as the operations on rows.
impl CrossEntropy<'_> {
    /// Losses by the options of [`CrossEntropy::make_part`].
    pub(crate) fn lanes<T: Element, V: View>(
        &self,
        len: usize,
        targets: (V, OfRows<V::Item, T>),
        factors: Option<impl View<Item = f64>>,
        losses: impl View<Item = f64>,
        logits: Logits<impl View<Item = T>, impl View<Item = T>>,
    ) -> Result<(), Error> {
        match logits {
            Logits::Read(x) => {
                self.run_lanes::<T, _, false>(len, targets, factors, losses, input(x))
            }
            Logits::Gradient(x, y) => {
                self.run_lanes::<T, _, true>(len, targets, factors, losses, between(Some(x), y))
            }
            Logits::InPlace(y) => {
                self.run_lanes::<T, _, true>(len, targets, factors, losses, in_place(y))
            }
        }
    }

    /// A function of its own, because operands take much of the stack.
    #[inline(never)]
    fn run_lanes<T: Element, V: View, const GRADIENT: bool>(
        &self,
        len: usize,
        (targets, of_rows): (V, OfRows<V::Item, T>),
        factors: Option<impl View<Item = f64>>,
        losses: impl View<Item = f64>,
        logits: impl for<'r> Operand<Rows<'r> = &'r mut [T]>,
    ) -> Result<(), Error> {
        let operands = ((logits, output(losses)), (input(targets), factors.map(input)));
        let work = if GRADIENT { Work::Softmax } else { Work::LogSumExp };
        let exec = self.where_it_runs();
        lanes::run::<T, _>(exec, work, len, operands, &|exec, n, ((x, y), (targets, factors))| {
            let loss = self.of_tile(*exec, factors.as_deref());
            let targets = of_rows(targets, n, len)?;
            if GRADIENT {
                loss.losses_and_gradient_in_place(rows_mut(x, n, len)?, targets, y)
            } else {
                loss.losses(rows(x, n, len)?, targets, y)
            }
        })
    }

    /// [`CrossEntropy::losses`] of logits along an axis.
    ///
    /// ```
    /// use softmax::{CrossEntropy, Matrix};
    /// // One image of two classes and three pixels, the last of which is ignored.
    /// let logits = [1.0f32, 5.0, 0.0, 1.0, 5.0, 9.0];
    /// let (labels, mut losses) = ([0, 1, -100], [0.0; 3]);
    /// let loss = CrossEntropy::new();
    /// loss.losses_axis(&logits, &labels, &mut losses, &[1, 2, 3], 1)?;
    /// assert!((losses[0] - std::f64::consts::LN_2).abs() < 1e-7 && losses[2] == 0.0);
    ///
    /// // Against probabilities: a tensor of the same shape.
    /// let probs = Matrix::new(&[1.0f32, 0.5, 0.0, 0.0, 0.5, 1.0], 3)?;
    /// loss.losses_axis(&logits, probs, &mut losses, &[1, 2, 3], 1)?;
    /// assert!((losses[1] - std::f64::consts::LN_2).abs() < 1e-7 && losses[2] < 1e-3);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Axis`] if there is no such axis (negative ones count from the end),
    /// [`Error::Memory`], or as [`CrossEntropy::losses`].
    pub fn losses_axis<'t, T: Element>(
        &self,
        logits: &[T],
        targets: impl Into<Targets<'t, T>>,
        losses: &mut [f64],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        let sizes = lanes::around(shape, axis)?;
        self.along(Logits::Read(logits), targets.into(), losses, sizes).map(drop)
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
    pub fn losses_and_gradient_axis<'t, T: Element>(
        &self,
        logits: &[T],
        targets: impl Into<Targets<'t, T>>,
        losses: &mut [f64],
        gradient: &mut [T],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        let sizes = lanes::around(shape, axis)?;
        self.along(Logits::Gradient(logits, gradient), targets.into(), losses, sizes).map(drop)
    }

    /// [`CrossEntropy::losses_and_gradient_axis`]; the gradient overwrites the logits. The same
    /// bits.
    ///
    /// ```
    /// use softmax::CrossEntropy;
    /// let (mut logits, mut losses) = ([1.0f32, 5.0, 1.0, 5.0], [0.0; 2]);
    /// CrossEntropy::new().losses_and_gradient_axis_in_place(
    ///     &mut logits, &[0, 1], &mut losses, &[1, 2, 2], 1)?;
    /// assert_eq!(logits, [-0.25, 0.25, 0.25, -0.25]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`CrossEntropy::losses_axis`].
    pub fn losses_and_gradient_axis_in_place<'t, T: Element>(
        &self,
        logits: &mut [T],
        targets: impl Into<Targets<'t, T>>,
        losses: &mut [f64],
        shape: &[usize],
        axis: isize,
    ) -> Result<(), Error> {
        let sizes = lanes::around(shape, axis)?;
        self.along(Logits::InPlace(logits), targets.into(), losses, sizes).map(drop)
    }

    /// [`CrossEntropy::loss`] of logits along an axis.
    ///
    /// ```
    /// use softmax::CrossEntropy;
    /// // The mean over two images of two classes and one pixel.
    /// let logits = [1.0f64, 1.0, 7.0, 7.0];
    /// let loss = CrossEntropy::new().loss_axis(&logits, &[0, 1], &[2, 2, 1], 1)?;
    /// assert_eq!(loss, std::f64::consts::LN_2);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`CrossEntropy::losses_axis`].
    pub fn loss_axis<'t, T: Element>(
        &self,
        logits: &[T],
        targets: impl Into<Targets<'t, T>>,
        shape: &[usize],
        axis: isize,
    ) -> Result<f64, Error> {
        self.reduced(Logits::Read(logits), targets.into(), lanes::around(shape, axis)?)
    }

    /// [`CrossEntropy::gradient`] of logits along an axis; the gradient is a tensor of their shape.
    ///
    /// ```
    /// use softmax::CrossEntropy;
    /// let (logits, mut gradient) = ([1.0f32, 5.0, 1.0, 5.0], [0.0; 4]);
    /// CrossEntropy::new().gradient_axis(&logits, &[0, 1], &mut gradient, &[1, 2, 2], 1)?;
    /// assert_eq!(gradient, [-0.25, 0.25, 0.25, -0.25]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`CrossEntropy::losses_axis`].
    pub fn gradient_axis<'t, T: Element>(
        &self,
        logits: &[T],
        targets: impl Into<Targets<'t, T>>,
        gradient: &mut [T],
        shape: &[usize],
        axis: isize,
    ) -> Result<f64, Error> {
        let sizes = lanes::around(shape, axis)?;
        self.reduced(Logits::Gradient(logits, gradient), targets.into(), sizes)
    }

    /// [`CrossEntropy::gradient_axis`]; the gradient overwrites the logits. The same bits.
    ///
    /// ```
    /// use softmax::CrossEntropy;
    /// let mut logits = [1.0f32, 5.0, 1.0, 5.0];
    /// CrossEntropy::new().gradient_axis_in_place(&mut logits, &[0, 1], &[1, 2, 2], 1)?;
    /// assert_eq!(logits, [-0.25, 0.25, 0.25, -0.25]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`CrossEntropy::losses_axis`].
    pub fn gradient_axis_in_place<'t, T: Element>(
        &self,
        logits: &mut [T],
        targets: impl Into<Targets<'t, T>>,
        shape: &[usize],
        axis: isize,
    ) -> Result<f64, Error> {
        self.reduced(Logits::InPlace(logits), targets.into(), lanes::around(shape, axis)?)
    }

    fn reduced<T: Element>(
        &self,
        logits: Logits<&[T], &mut [T]>,
        targets: Targets<T>,
        sizes: [usize; 3],
    ) -> Result<f64, Error> {
        // Before there is memory for as many losses as the shape says.
        match &logits {
            Logits::Read(x) | Logits::Gradient(x, _) => tensor(INPUT, x, sizes).map(drop)?,
            Logits::InPlace(y) => tensor(INPUT, y, sizes).map(drop)?,
        }
        with_losses(sizes[0] * sizes[2], |losses| {
            let divisor = self.along(logits, targets, &mut *losses, sizes)?;
            Ok(self.reduce(losses, divisor))
        })
    }

    /// Writes losses and the gradient, and returns the divisor of the sum of the losses.
    fn along<T: Element>(
        &self,
        logits: Logits<&[T], &mut [T]>,
        targets: Targets<T>,
        losses: &mut [f64],
        sizes: [usize; 3],
    ) -> Result<f64, Error> {
        match sizes {
            [_, _, 1] => self.along_last(logits, targets, losses, sizes),
            _ => self.turned(logits, targets, losses, sizes),
        }
    }

    /// [`CrossEntropy::along`] the last axis. This and the next function are not inlined, so that
    /// only one of them takes room on the stack.
    #[inline(never)]
    fn along_last<T: Element>(
        &self,
        logits: Logits<&[T], &mut [T]>,
        targets: Targets<T>,
        losses: &mut [f64],
        sizes: [usize; 3],
    ) -> Result<f64, Error> {
        let targets = match targets {
            Targets::Probs(q) => {
                rows_of(TARGETS, q.into_slice().unwrap_or_default(), sizes)?.into()
            }
            labels => labels,
        };
        match logits {
            Logits::Read(x) => self.losses(rows_of(INPUT, x, sizes)?, targets, losses)?,
            Logits::Gradient(x, y) => {
                let (x, y) = (rows_of(INPUT, x, sizes)?, rows_of_mut(GRADIENT, y, sizes)?);
                self.losses_and_gradient(x, targets, losses, y)?;
            }
            Logits::InPlace(y) => {
                let y = rows_of_mut(INPUT, y, sizes)?;
                self.losses_and_gradient_in_place(y, targets, losses)?;
            }
        }
        Ok(self.divides(&targets, sizes[1]))
    }

    /// [`CrossEntropy::along`] another axis.
    #[inline(never)]
    fn turned<T: Element>(
        &self,
        logits: Logits<&[T], &mut [T]>,
        targets: Targets<T>,
        losses: &mut [f64],
        sizes: [usize; 3],
    ) -> Result<f64, Error> {
        let [outer, len, inner] = sizes;
        let (n, ones) = (outer * inner, [outer, 1, inner]);
        let gradient = !matches!(logits, Logits::Read(_));
        let logits = match logits {
            Logits::Read(x) => Logits::Read(tensor(INPUT, x, sizes)?),
            Logits::Gradient(x, y) => {
                Logits::Gradient(tensor(INPUT, x, sizes)?, tensor_mut(GRADIENT, y, sizes)?)
            }
            Logits::InPlace(y) => Logits::InPlace(tensor_mut(INPUT, y, sizes)?),
        };
        let factors = self.factors().map(|factors| tensor(FACTORS, factors, ones)).transpose()?;
        let losses = tensor_mut(LOSSES, losses, ones)?;
        let (labels, probs) = match targets {
            Targets::Labels(labels) => (Some(labels), None),
            Targets::Probs(q) => (None, Some(q.into_slice().unwrap_or_default())),
            _ => unreachable!("a kind of targets"),
        };
        let by_labels = labels.map(|labels| tensor(LABELS, labels, ones)).transpose()?;
        let by_probs = probs.map(|probs| tensor(TARGETS, probs, sizes)).transpose()?;
        let mut of_rows = *self;
        let divisor = of_rows.make_part(labels, n, len, gradient)?;
        if let Some(labels) = by_labels {
            of_rows.lanes(len, (labels, labels_of_rows), factors, losses, logits)?;
        } else if let Some(probs) = by_probs {
            of_rows.lanes(len, (probs, probs_of_rows), factors, losses, logits)?;
        }
        Ok(divisor)
    }
}
