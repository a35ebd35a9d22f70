//! Rows of different lengths.
//!
//! Softmax has a way of its own for them ([`Exec::run_ragged`]); the others call their kernel row
//! by row. All share rows among threads by what they cost.

use softmax_kernels::{
    BackwardCall, Element, MaskData, Matrix, MatrixMut, Op as Work, Picks, Ragged, RaggedCall,
    RaggedMut, Scale, Size,
};

use crate::{Backward, Error, Exec, Hardmax, Plan, Softmax};

/// The name of an output that ends before the last row.
const OUTPUT: &str = "number of elements of the output";

/// The targets of rows of different lengths, for the losses of
/// [`CrossEntropy`](crate::CrossEntropy).
///
/// ```
/// use softmax::{CrossEntropy, Ragged};
/// let logits = Ragged::new(&[1.0f64, 1.0, 2.0, 2.0, 2.0], &[0usize, 2, 5])?;
/// let mut losses = [0.0; 2];
/// CrossEntropy::new().losses_ragged(logits, &[1, 0], &mut losses)?;
/// // As if each column had the same share: the entropy, and so the same.
/// let third = 1.0 / 3.0;
/// let shares = [0.5, 0.5, third, third, third];
/// let targets = Ragged::new(&shares, &[0usize, 2, 5])?;
/// let mut others = [0.0; 2];
/// CrossEntropy::new().losses_ragged(logits, targets, &mut others)?;
/// assert!((losses[1] - 3f64.ln()).abs() < 1e-15 && (others[1] - losses[1]).abs() < 1e-15);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum RaggedTargets<'a, T> {
    /// Labels: the column, within its row, of each row's class.
    Labels(&'a [i64]),
    /// The probabilities of each row's classes, as many as the row has logits.
    Probs(Ragged<'a, T>),
}

impl<'a, T> From<&'a [i64]> for RaggedTargets<'a, T> {
    fn from(labels: &'a [i64]) -> Self {
        Self::Labels(labels)
    }
}

impl<'a, T, const N: usize> From<&'a [i64; N]> for RaggedTargets<'a, T> {
    fn from(labels: &'a [i64; N]) -> Self {
        Self::Labels(labels)
    }
}

impl<'a, T> From<&'a Vec<i64>> for RaggedTargets<'a, T> {
    fn from(labels: &'a Vec<i64>) -> Self {
        Self::Labels(labels)
    }
}

impl<'a, T> From<Ragged<'a, T>> for RaggedTargets<'a, T> {
    fn from(probs: Ragged<'a, T>) -> Self {
        Self::Probs(probs)
    }
}

/// Does work on rows in parts: `rows(&work, at, of)` is the number of rows of the first `at` of
/// `of` parts, `split(work, rows)` cuts them off.
pub(crate) fn share<W: Send>(
    exec: &Exec,
    plan: &Plan,
    work: W,
    rows: &(impl Fn(&W, usize, usize) -> usize + Sync),
    split: &(impl Fn(W, usize) -> (W, W) + Sync),
    run: &(impl Fn(W) -> Result<(), Error> + Sync),
) -> Result<(), Error> {
    exec.crew().share(
        plan.threads,
        plan.parts,
        work,
        &|work, at, of| {
            let at = rows(&work, at, of);
            split(work, at)
        },
        run,
        &|a, b| a.and(b),
    )
}

/// A row to read as a matrix of one.
pub(crate) fn one<T>(row: &[T]) -> Result<Matrix<'_, T>, Error> {
    Matrix::with_stride(row, 1, row.len(), row.len())
}

/// A row to write as a matrix of one.
pub(crate) fn one_mut<T>(row: &mut [T]) -> Result<MatrixMut<'_, T>, Error> {
    let len = row.len();
    MatrixMut::with_stride(row, 1, len, len)
}

/// Rows of different lengths.
impl Softmax<'_> {
    /// The softmax of every row of `x`, into the same places of `y`: row `i` of `x` is
    /// `x[offsets[i]..offsets[i + 1]]`, and so is its result in `y`, which may be longer. Elements
    /// before the first row and behind the last are not touched. A mask has an element for each of
    /// the slice that `x` is made of.
    ///
    /// Each row has the bits that it has alone, by [`Softmax::softmax`], and its bounds. Many short
    /// rows are computed in groups, as those of one length are; with a mask or a scale below 0 each
    /// row is a call of its own. Threads share elements, not rows.
    ///
    /// # Errors
    /// [`Error::Shape`] if `y` or a mask ends before the last row, [`Error::Value`] if the scale or
    /// temperature is out of range, a mask is of bits, or one is of f64 and the rows are not,
    /// [`Error::Memory`] with a mask, a scale below 0 or rows that are larger than a core's cache,
    /// or a kernel that cannot run. ([`Ragged::new`] has checked the offsets.)
    ///
    /// ```
    /// use softmax::{Ragged, Softmax};
    /// // Rows of two elements, of none, and of three.
    /// let x = [1.0f32, 1.0, 7.0, f32::NEG_INFINITY, 7.0];
    /// let mut y = [0.0f32; 5];
    /// Softmax::new().softmax_ragged(Ragged::new(&x, &[0usize, 2, 2, 5])?, &mut y)?;
    /// assert_eq!(y, [0.5, 0.5, 0.5, 0.0, 0.5]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn softmax_ragged<T: Element>(&self, x: Ragged<T>, y: &mut [T]) -> Result<(), Error> {
        self.map_ragged(Work::Softmax, x, y)
    }

    /// [`Softmax::softmax_ragged`] in place. The same bits.
    ///
    /// # Errors
    /// As [`Softmax::softmax_ragged`].
    ///
    /// ```
    /// use softmax::{RaggedMut, Softmax};
    /// let mut edges = [9.0f32, 3.0, 3.0, 9.0];
    /// // The first and the last element belong to no row.
    /// Softmax::new().softmax_ragged_in_place(RaggedMut::new(&mut edges, &[1i32, 3])?)?;
    /// assert_eq!(edges, [9.0, 0.5, 0.5, 9.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn softmax_ragged_in_place<T: Element>(&self, x: RaggedMut<T>) -> Result<(), Error> {
        self.map_ragged_in_place(Work::Softmax, x)
    }

    /// The log-softmax of every row of `x`, into the same places of `y`, otherwise as
    /// [`Softmax::softmax_ragged`]: each row has the bits and the bounds of
    /// [`Softmax::log_softmax`]. Rows are computed one after another.
    ///
    /// # Errors
    /// As [`Softmax::softmax_ragged`].
    ///
    /// ```
    /// use softmax::{Ragged, Softmax};
    /// let mut y = [0.0f64; 3];
    /// Softmax::new().log_softmax_ragged(Ragged::new(&[5.0, 2.0, 2.0], &[0i64, 1, 3])?, &mut y)?;
    /// assert_eq!(y, [0.0, -std::f64::consts::LN_2, -std::f64::consts::LN_2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn log_softmax_ragged<T: Element>(&self, x: Ragged<T>, y: &mut [T]) -> Result<(), Error> {
        self.map_ragged(Work::LogSoftmax, x, y)
    }

    /// [`Softmax::log_softmax_ragged`] in place. The same bits.
    ///
    /// # Errors
    /// As [`Softmax::softmax_ragged`].
    ///
    /// ```
    /// use softmax::{RaggedMut, Softmax};
    /// let mut x = [7.0f32, 8.0];
    /// Softmax::new().log_softmax_ragged_in_place(RaggedMut::new(&mut x, &[0usize, 1, 2])?)?;
    /// assert_eq!(x, [0.0, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn log_softmax_ragged_in_place<T: Element>(&self, x: RaggedMut<T>) -> Result<(), Error> {
        self.map_ragged_in_place(Work::LogSoftmax, x)
    }

    /// The log-sum-exp of every row of `x`, one element of `y` for each; `-inf` for an empty row.
    /// Each has the bits and the bounds of [`Softmax::logsumexp`].
    ///
    /// # Errors
    /// As [`Softmax::softmax_ragged`]; [`Error::Shape`] if `y` has not one element per row.
    ///
    /// ```
    /// use softmax::{Ragged, Softmax};
    /// let mut y = [0.0f64; 2];
    /// Softmax::new().logsumexp_ragged(Ragged::new(&[-3.0], &[0usize, 1, 1])?, &mut y)?;
    /// assert_eq!(y, [-3.0, f64::NEG_INFINITY]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn logsumexp_ragged<T: Element>(&self, x: Ragged<T>, y: &mut [T]) -> Result<(), Error> {
        if !self.is_changed() {
            return self.exec.run_ragged(RaggedCall::logsumexp(x, y, self.factor.finite()?)?);
        }
        if y.len() != x.rows() {
            let what = "number of log-sum-exps (one for each row)";
            return Err(Error::count(what, x.rows(), y.len()));
        }
        let plan = self.plan_by_row::<T>(Work::LogSumExp, &x)?;
        share(
            &self.exec,
            &plan,
            (x, y),
            &|(x, _), at, of| x.part(at, of),
            &|(x, y), at| {
                let ((x, other_x), (y, other_y)) = (x.split_rows(at), y.split_at_mut(at));
                ((x, y), (other_x, other_y))
            },
            &|(x, y): (Ragged<T>, &mut [T])| {
                y.iter_mut().enumerate().try_for_each(|(row, y)| {
                    let of_row = self.of_row(&x, row);
                    of_row.logsumexp(one(x.row(row))?, std::slice::from_mut(y))
                })
            },
        )
    }

    fn map_ragged<T: Element>(&self, work: Work, x: Ragged<T>, y: &mut [T]) -> Result<(), Error> {
        if self.is_changed() {
            let y = x.places_in(OUTPUT, y)?;
            return self.map_by_row(work, Some(x), y);
        }
        let (work, scale) = self.at(work)?;
        self.exec.run_ragged(RaggedCall::new(work, x, y, scale, self.masked)?)
    }

    fn map_ragged_in_place<T: Element>(&self, work: Work, y: RaggedMut<T>) -> Result<(), Error> {
        if self.is_changed() {
            return self.map_by_row(work, None, y);
        }
        let (work, scale) = self.at(work)?;
        self.exec.run_ragged(RaggedCall::in_place(work, y, scale, self.masked))
    }

    /// Each row by a call of its own, for options that change rows.
    #[cold]
    #[inline(never)]
    fn map_by_row<T: Element>(
        &self,
        work: Work,
        x: Option<Ragged<T>>,
        y: RaggedMut<T>,
    ) -> Result<(), Error> {
        let plan = self.plan_by_row::<T>(work, &y.as_ragged())?;
        share(
            &self.exec,
            &plan,
            (x, y),
            &|(_, y), at, of| y.part(at, of),
            &|(x, y), at| {
                let (x, other_x) = x.map(|x| x.split_rows(at)).unzip();
                let (y, other_y) = y.split_rows(at);
                ((x, y), (other_x, other_y))
            },
            &|(x, mut y): (Option<Ragged<T>>, RaggedMut<T>)| {
                (0..y.rows()).try_for_each(|row| {
                    let of_row = self.of_row(&y.as_ragged(), row);
                    let y = one_mut(y.row_mut(row))?;
                    match x {
                        Some(x) => of_row.map(work, one(x.row(row))?, y),
                        None => of_row.map_in_place(work, y),
                    }
                })
            },
        )
    }

    /// The plan of calls for each row, all of whose arguments are checked here.
    fn plan_by_row<T: Element>(&self, work: Work, x: &Ragged<T>) -> Result<Plan, Error> {
        if let Some(mask) = self.mask {
            mask.check::<T::Arithmetic>()?;
            if let MaskData::Bits(_) = mask {
                let range = "at least 8 for rows of different lengths, which start at no word";
                return Err(Error::value("number of bits of the mask's elements", 1.0, range));
            }
            let (end, len) = (x.end(), mask.len());
            if len < end {
                let what = "number of elements of the mask";
                return Err(Error::shape(what, Size::AtLeast(end), Size::Count(len)));
            }
        }
        self.factor.check_finite()?;
        self.exec.plan_ragged::<T>(work, x.rows(), x.elements())
    }

    /// The options for one row.
    fn of_row<T>(&self, x: &Ragged<T>, row: usize) -> Self {
        let mask = self.mask.map(|mask| mask.part(x.row_range(row)));
        Self { mask, exec: self.exec.serial(), ..*self }
    }
}

/// Rows of different lengths.
impl Hardmax<'_> {
    /// The hardmax of every row of `x`, into the same places of `y`, which may be longer: each has
    /// the bits of [`Hardmax::hardmax`].
    ///
    /// # Errors
    /// [`Error::Shape`] if `y` ends before the last row, or a kernel that cannot run.
    ///
    /// ```
    /// use softmax::{Hardmax, Ragged};
    /// let mut y = [0.0f32; 3];
    /// Hardmax::new().hardmax_ragged(Ragged::new(&[1.0, 2.0, 3.0], &[0usize, 2, 3])?, &mut y)?;
    /// assert_eq!(y, [0.0, 1.0, 1.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn hardmax_ragged<T: Element>(&self, x: Ragged<T>, y: &mut [T]) -> Result<(), Error> {
        let work = Work::Hardmax(self.ties);
        self.exec.run_ragged(RaggedCall::new(work, x, y, Scale::ONE, self.masked)?)
    }

    /// [`Hardmax::hardmax_ragged`] in place. The same bits.
    ///
    /// # Errors
    /// A kernel that cannot run.
    ///
    /// ```
    /// use softmax::{Hardmax, RaggedMut};
    /// let mut x = [1.0f32, 2.0, 3.0];
    /// Hardmax::new().hardmax_ragged_in_place(RaggedMut::new(&mut x, &[0usize, 2, 3])?)?;
    /// assert_eq!(x, [0.0, 1.0, 1.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn hardmax_ragged_in_place<T: Element>(&self, x: RaggedMut<T>) -> Result<(), Error> {
        let work = Work::Hardmax(self.ties);
        self.exec.run_ragged(RaggedCall::in_place(work, x, Scale::ONE, self.masked))
    }

    /// The index, within its row, of the largest element of every row, as [`Hardmax::argmax`] has
    /// it; `usize::MAX` for an empty row, which has none.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one index for each row, or a kernel that cannot run.
    ///
    /// ```
    /// use softmax::{Hardmax, Ragged};
    /// let mut indices = [0; 3];
    /// let x = Ragged::new(&[1.0f32, 3.0, 3.0, -1.0], &[0i32, 3, 3, 4])?;
    /// Hardmax::new().argmax_ragged(x, &mut indices)?;
    /// assert_eq!(indices, [1, usize::MAX, 0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn argmax_ragged<T: Element>(
        &self,
        x: Ragged<T>,
        indices: &mut [usize],
    ) -> Result<(), Error> {
        if indices.len() != x.rows() {
            return Err(Error::count("number of indices", x.rows(), indices.len()));
        }
        let plan = self.exec.plan_ragged::<T>(Work::LogSumExp, x.rows(), x.elements())?;
        let kernel = plan.kernel;
        share(
            &self.exec,
            &plan,
            (x, indices),
            &|(x, _), at, of| x.part(at, of),
            &|(x, indices), at| {
                let ((x, other_x), (y, other_y)) = (x.split_rows(at), indices.split_at_mut(at));
                ((x, y), (other_x, other_y))
            },
            &|(x, indices): (Ragged<T>, &mut [usize])| {
                indices.iter_mut().enumerate().try_for_each(|(row, index)| {
                    *index = usize::MAX;
                    if x.row_len(row) > 0 {
                        let index = std::slice::from_mut(index);
                        kernel.pick(Picks::largest(one(x.row(row))?, index)?);
                    }
                    Ok(())
                })
            },
        )
    }
}

/// Rows of different lengths.
impl Backward<'_> {
    /// The gradient through [`Softmax::softmax_ragged`], otherwise as [`Backward::softmax`]:
    /// `upstream` and `gradient` have the rows of `probs` at the same places, and may be longer.
    ///
    /// # Errors
    /// [`Error::Shape`] if one of them ends before the last row, [`Error::Value`] if the scale or
    /// temperature is out of range, or a kernel that cannot run.
    ///
    /// ```
    /// use softmax::{Backward, Ragged};
    /// let (probs, upstream, mut gradient) = ([0.5f32, 0.5, 1.0], [1.0f32, 0.0, 3.0], [9.0f32; 3]);
    /// let probs = Ragged::new(&probs, &[0usize, 2, 3])?;
    /// Backward::new().softmax_ragged(probs, &upstream, &mut gradient)?;
    /// assert_eq!(gradient, [0.25, -0.25, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn softmax_ragged<T: Element>(
        &self,
        probs: Ragged<T>,
        upstream: &[T],
        gradient: &mut [T],
    ) -> Result<(), Error> {
        self.run_ragged(probs, upstream, gradient, false)
    }

    /// The gradient through [`Softmax::log_softmax_ragged`], otherwise as
    /// [`Backward::log_softmax`].
    ///
    /// # Errors
    /// As [`Backward::softmax_ragged`].
    ///
    /// ```
    /// use softmax::{Backward, Ragged};
    /// let log_probs = [0.5f32.ln(), 0.5f32.ln(), 0.0];
    /// let (upstream, mut gradient) = ([1.0f32, 0.0, 3.0], [9.0f32; 3]);
    /// let log_probs = Ragged::new(&log_probs, &[0usize, 2, 3])?;
    /// Backward::new().log_softmax_ragged(log_probs, &upstream, &mut gradient)?;
    /// assert_eq!(gradient, [0.5, -0.5, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn log_softmax_ragged<T: Element>(
        &self,
        log_probs: Ragged<T>,
        upstream: &[T],
        gradient: &mut [T],
    ) -> Result<(), Error> {
        self.run_ragged(log_probs, upstream, gradient, true)
    }

    fn run_ragged<T: Element>(
        &self,
        output: Ragged<T>,
        upstream: &[T],
        gradient: &mut [T],
        log: bool,
    ) -> Result<(), Error> {
        let (rows, elements) = (output.rows(), output.elements());
        let scale = self.pair()?;
        let call = BackwardCall::ragged(output, upstream, gradient, scale, log)?;
        let plan = self.exec.plan_ragged::<T>(Work::Softmax, rows, elements)?;
        let kernel = plan.kernel;
        share(
            &self.exec,
            &plan,
            call,
            &BackwardCall::part,
            &BackwardCall::split_rows,
            &|call: BackwardCall<T>| {
                kernel.backward(call);
                Ok(())
            },
        )
    }
}
