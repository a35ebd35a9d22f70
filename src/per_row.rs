//! Rows with a scale or a temperature each.

use std::ops::Range;

use softmax_kernels::{
    Call, Element, Factors, Matrix, MatrixMut, Op as Work, ROWS_AT_LEAST, Scale, TINY, part_of,
};

use crate::changed::RowMask;
use crate::factor::Factor;
use crate::plan::Regime;
use crate::rows::{mismatch, not_one_a_row};
use crate::{Error, Exec, Shape, Softmax};

/// Softmax, log-softmax, log-sum-exp and entropy of rows with a scale or a temperature each, as in
/// a batch of requests: what [`Softmax::scales`] and [`Softmax::temperatures`] return.
///
/// Every row has the bits that it has alone with its factor. Long rows take no longer than those of
/// one factor; what a change of the factor costs short ones is in `docs/performance.md`. With
/// masks, scales below 0 or temperatures that are limits each change begins a call of its own.
///
/// ```
/// use softmax::{Matrix, MatrixMut, Softmax};
/// let logits = [1.0f32, 2.0, 1.0, 2.0, 1.0, 2.0];
/// let mut probs = [0.0f32; 6];
/// // Greedy, plain, and all alike.
/// let each = Softmax::new().temperatures(&[0.0, 1.0, f64::INFINITY]);
/// each.softmax(Matrix::new(&logits, 2)?, MatrixMut::new(&mut probs, 2)?)?;
/// assert_eq!(probs[..2], [0.0, 1.0]);
/// assert!((probs[3] - 0.7311).abs() < 1e-4);
/// assert_eq!(probs[4..], [0.5, 0.5]);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PerRow<'a> {
    softmax: Softmax<'a>,
    factors: Factors<'a>,
}

/// The factor of a row.
fn factor(factors: Factors, row: usize) -> Factor {
    match factors {
        Factors::Scales(scales) => Factor::scale(scales[row]),
        Factors::Temperatures(temperatures) => Factor::temperature(temperatures[row]),
    }
}

/// Checks that there is a factor for each row, in the range.
fn check(factors: Factors, rows: usize, limits: bool) -> Result<(), Error> {
    if factors.len() != rows {
        return Err(not_one_each(factors, rows));
    }
    let mut first = 0;
    while first < rows {
        let factor = factor(factors, first);
        let checked = if limits { factor.check() } else { factor.check_finite() };
        checked.map_err(|error| of_row(error, first))?;
        first += factors.alike(first, rows);
    }
    Ok(())
}

#[cold]
fn not_one_each(factors: Factors, rows: usize) -> Error {
    let what = match factors {
        Factors::Scales(_) => "number of scales (one for each row)",
        Factors::Temperatures(_) => "number of temperatures (one for each row)",
    };
    Error::count(what, rows, factors.len())
}

/// The error for a number of this row.
#[cold]
fn of_row(mut error: Error, row: usize) -> Error {
    if let Error::Value { index, .. } = &mut error {
        *index = Some(row);
    }
    error
}

impl<'a> Softmax<'a> {
    /// Multiplies each row by its own scale: as [`Softmax::scale`], one for each row of the matrix.
    /// The scale or temperature that was set for all rows does not count.
    ///
    /// ```
    /// use softmax::{Matrix, Softmax};
    /// let mut lse = [0.0f64; 2];
    /// let x = Matrix::new(&[1.0, 1.0, 1.0, 1.0], 2)?;
    /// Softmax::new().scales(&[1.0, -3.0]).logsumexp(x, &mut lse)?;
    /// assert_eq!(lse, [1.0 + std::f64::consts::LN_2, -3.0 + std::f64::consts::LN_2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn scales(self, scales: &'a [f64]) -> PerRow<'a> {
        PerRow { softmax: self, factors: Factors::Scales(scales) }
    }

    /// Divides each row by its own temperature: as [`Softmax::temperature`], one for each row of
    /// the matrix. The scale or temperature that was set for all rows does not count.
    ///
    /// ```
    /// use softmax::{MatrixMut, Softmax};
    /// let mut x = [0.0f32, 1.0, 0.0, 1.0];
    /// let each = Softmax::new().temperatures(&[1.0, 0.5]);
    /// each.log_softmax_in_place(MatrixMut::new(&mut x, 2)?)?;
    /// // The differences of the logits by their temperature.
    /// assert!((x[1] - x[0] - 1.0).abs() < 1e-6 && (x[3] - x[2] - 2.0).abs() < 1e-6);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn temperatures(self, temperatures: &'a [f64]) -> PerRow<'a> {
        PerRow { softmax: self, factors: Factors::Temperatures(temperatures) }
    }
}

impl PerRow<'_> {
    /// [`Softmax::softmax`] of every row with its factor. Error: as there, at most 3 ULP.
    ///
    /// ```
    /// use softmax::{Matrix, MatrixMut, Softmax};
    /// let mut probs = [0.0f32; 2];
    /// let x = Matrix::new(&[5.0f32, 5.0], 2)?;
    /// Softmax::new().scales(&[0.1]).softmax(x, MatrixMut::new(&mut probs, 2)?)?;
    /// assert_eq!(probs, [0.5, 0.5]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one factor for each row; [`Error::Value`] names the first
    /// that is out of range; otherwise as [`Softmax::softmax`]. Nothing is written.
    pub fn softmax<T: Element>(&self, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        self.map(Work::Softmax, x, y)
    }

    /// [`Softmax::softmax_in_place`] of every row with its factor.
    ///
    /// ```
    /// use softmax::{MatrixMut, Softmax};
    /// let mut x = [5.0f32, 5.0];
    /// Softmax::new().scales(&[0.1]).softmax_in_place(MatrixMut::new(&mut x, 2)?)?;
    /// assert_eq!(x, [0.5, 0.5]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`PerRow::softmax`].
    pub fn softmax_in_place<T: Element>(&self, x: MatrixMut<T>) -> Result<(), Error> {
        self.map_in_place(Work::Softmax, x)
    }

    /// [`Softmax::log_softmax`] of every row with its factor. Error: as there.
    ///
    /// ```
    /// use softmax::{Matrix, MatrixMut, Softmax};
    /// let mut y = [0.0f32; 2];
    /// let x = Matrix::new(&[5.0f32, 5.0], 2)?;
    /// Softmax::new().scales(&[0.1]).log_softmax(x, MatrixMut::new(&mut y, 2)?)?;
    /// assert_eq!(y, [-std::f32::consts::LN_2; 2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`PerRow::softmax`].
    pub fn log_softmax<T: Element>(&self, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        self.map(Work::LogSoftmax, x, y)
    }

    /// [`Softmax::log_softmax_in_place`] of every row with its factor.
    ///
    /// ```
    /// use softmax::{MatrixMut, Softmax};
    /// let mut x = [5.0f32, 5.0];
    /// Softmax::new().scales(&[0.1]).log_softmax_in_place(MatrixMut::new(&mut x, 2)?)?;
    /// assert_eq!(x, [-std::f32::consts::LN_2; 2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`PerRow::softmax`].
    pub fn log_softmax_in_place<T: Element>(&self, x: MatrixMut<T>) -> Result<(), Error> {
        self.map_in_place(Work::LogSoftmax, x)
    }

    /// [`Softmax::logsumexp`] of every row with its factor: one element of `y` for each. Error: as
    /// there.
    ///
    /// ```
    /// use softmax::{Matrix, Softmax};
    /// let mut y = [0.0f64];
    /// Softmax::new().scales(&[0.5]).logsumexp(Matrix::new(&[4.0, 4.0], 2)?, &mut y)?;
    /// assert_eq!(y, [2.0 + std::f64::consts::LN_2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`PerRow::softmax`]; temperatures 0 and infinity are out of range.
    pub fn logsumexp<T: Element>(&self, x: Matrix<T>, y: &mut [T]) -> Result<(), Error> {
        self.rows_to_one(Work::LogSumExp, x, y)
    }

    /// [`Softmax::entropy`] of every row with its factor: one element of `h` for each. Error: as
    /// there.
    ///
    /// ```
    /// use softmax::{Matrix, Softmax};
    /// let mut h = [0.0f64];
    /// Softmax::new().scales(&[0.5]).entropy(Matrix::new(&[4.0, 4.0], 2)?, &mut h)?;
    /// assert_eq!(h, [std::f64::consts::LN_2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`PerRow::logsumexp`].
    pub fn entropy<T: Element>(&self, x: Matrix<T>, h: &mut [T]) -> Result<(), Error> {
        self.rows_to_one(Work::Entropy, x, h)
    }

    fn map<T: Element>(&self, work: Work, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        let (shape, of_y) = ((x.rows(), x.cols()), (y.rows(), y.cols()));
        if shape != of_y {
            return Err(mismatch([shape, of_y]));
        }
        self.run::<T, _>(
            work,
            Shape::from(&x),
            (x, y),
            &|(x, y), at| {
                let ((x, other_x), (y, other_y)) = (x.split_rows(at), y.split_rows(at));
                ((x, y), (other_x, other_y))
            },
            &|softmax, (x, y)| softmax.map(work, x, y),
            &|(x, y)| Call::new(work, x, y, Scale::ONE, self.softmax.masked).map_err(mismatch),
        )
    }

    fn map_in_place<T: Element>(&self, work: Work, x: MatrixMut<T>) -> Result<(), Error> {
        let shape = Shape::from(&x).in_place();
        self.run::<T, _>(
            work,
            shape,
            x,
            &MatrixMut::split_rows,
            &|softmax, x| softmax.map_in_place(work, x),
            &|x| Ok(Call::in_place(work, x, Scale::ONE, self.softmax.masked)),
        )
    }

    fn rows_to_one<T: Element>(&self, work: Work, x: Matrix<T>, y: &mut [T]) -> Result<(), Error> {
        if y.len() != x.rows() {
            return Err(not_one_a_row(work, [(x.rows(), x.cols()), (y.len(), 1)]));
        }
        self.run::<T, _>(
            work,
            Shape::from(&x),
            (x, y),
            &|(x, y), at| {
                let ((x, other_x), (y, other_y)) = (x.split_rows(at), y.split_at_mut(at));
                ((x, y), (other_x, other_y))
            },
            &|softmax, (x, y)| softmax.rows_to_one(work, x, y),
            &|(x, y)| {
                let call = match work {
                    Work::Entropy => Call::entropy(x, y, Scale::ONE, self.softmax.masked),
                    _ => Call::logsumexp(x, y, Scale::ONE),
                };
                call.map_err(|shapes| not_one_a_row(work, shapes))
            },
        )
    }

    /// Checks all rows, and then does the work: with calls that `call` makes, whose rows have each
    /// their factor, where a kernel can do that; elsewhere by `f` for the rows of each factor.
    /// `split` cuts rows off.
    fn run<'v, T: Element, V: Send>(
        &self,
        work: Work,
        shape: Shape,
        views: V,
        split: &(impl Fn(V, usize) -> (V, V) + Sync),
        f: &(impl Fn(Softmax, V) -> Result<(), Error> + Sync),
        call: &(impl Fn(V) -> Result<Call<'v, T>, Error> + Sync),
    ) -> Result<(), Error> {
        let Self { softmax, factors } = *self;
        let (rows, cols) = (shape.rows, shape.cols);
        let is_map = matches!(work, Work::Softmax | Work::LogSoftmax);
        check(factors, rows, is_map && softmax.mask.is_none())?;
        let mask = softmax.mask.map(|mask| RowMask::new::<T::Arithmetic>(mask, rows, cols));
        let mask = mask.transpose()?;
        // How many rows from `first` on a kernel can do together: any but many short ones of the
        // same factor, which it has a faster way for.
        let joined = |first, end| {
            let mut row = first;
            while mask.is_none() && row < end {
                let (factor, n) = (factor(factors, row), factors.alike(row, end));
                let groups = cols <= TINY && n >= ROWS_AT_LEAST;
                if factor.is_negative() || factor.limit().is_some() || groups {
                    break;
                }
                row += n;
            }
            row - first
        };
        let together = |exec: Exec, views, rows: Range<usize>| {
            let factors = factors.of(rows);
            let call = call(views)?.with_factors(factors);
            exec.run(call.map_err(|rows| not_one_each(factors, rows))?)
        };
        let mut exec = softmax.exec;
        if joined(0, rows) == rows {
            return together(exec, views, 0..rows);
        }
        let plan = exec.plan_work::<T>(work, shape)?;
        let alike = |row, end| {
            let n = factors.alike(row, end);
            if mask.is_some_and(|mask| mask.is_of_each()) { 1 } else { n }
        };
        // What is larger than the caches together is computed like that row by row, too.
        if let Some(caches) = plan.caches_of_part() {
            exec = exec.caches(caches);
        }
        let part = |exec, views, first: usize, end: usize| -> Result<(), Error> {
            let (mut rest, mut row) = (views, first);
            while row < end {
                let joined = joined(row, end);
                let n = if joined > 0 { joined } else { alike(row, end) };
                let (views, others) = split(rest, n);
                if joined > 0 {
                    together(exec, views, row..row + n)?;
                } else {
                    let mask = mask.map(|mask| mask.row(row));
                    f(Softmax { factor: factor(factors, row), mask, exec, ..softmax }, views)?;
                }
                (rest, row) = (others, row + n);
            }
            Ok(())
        };
        if plan.regime() == Regime::Pieces || plan.threads() == 1 {
            return part(exec, views, 0, rows);
        }
        let serial = exec.serial();
        softmax.exec.crew().share(
            plan.threads(),
            plan.parts.min(rows),
            (views, 0, rows),
            &|(views, first, end), at, of| {
                let at = part_of(end - first, at, of);
                let (views, others) = split(views, at);
                ((views, first, first + at), (others, first + at, end))
            },
            &|(views, first, end)| part(serial, views, first, end),
            &Result::and,
        )
    }
}
