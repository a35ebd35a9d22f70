//! Rows with a scale or a temperature each.

use softmax_kernels::{Element, Matrix, MatrixMut, Op as Work, part_of};

use crate::changed::RowMask;
use crate::factor::Factor;
use crate::plan::Regime;
use crate::rows::{mismatch, not_one_a_row};
use crate::{Error, Shape, Softmax};

/// Softmax, log-softmax, log-sum-exp and entropy of rows with a scale or a temperature each, as in
/// a batch of requests: what [`Softmax::scales`] and [`Softmax::temperatures`] return.
///
/// Every row has the bits that it has alone with its factor. Rows one after the other that have the
/// same factor are computed together; each change of it begins a call of its own, which short rows
/// feel most: `docs/performance.md` has what it costs for long ones.
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

/// One for each row.
#[derive(Clone, Copy, Debug)]
enum Factors<'a> {
    Scales(&'a [f64]),
    Temperatures(&'a [f64]),
}

impl Factors<'_> {
    fn len(&self) -> usize {
        let (Self::Scales(list) | Self::Temperatures(list)) = self;
        list.len()
    }

    fn get(&self, row: usize) -> Factor {
        match self {
            Self::Scales(scales) => Factor::scale(scales[row]),
            Self::Temperatures(temperatures) => Factor::temperature(temperatures[row]),
        }
    }

    /// How many rows from `first` on, before `end`, have the same factor.
    fn alike(&self, first: usize, end: usize) -> usize {
        let (Self::Scales(list) | Self::Temperatures(list)) = self;
        let same = |x: &&f64| x.to_bits() == list[first].to_bits();
        list[first..end].iter().take_while(same).count()
    }

    /// Checks that there is one for each row, in the range.
    fn check(&self, rows: usize, limits: bool) -> Result<(), Error> {
        if self.len() != rows {
            let what = match self {
                Self::Scales(_) => "number of scales (one for each row)",
                Self::Temperatures(_) => "number of temperatures (one for each row)",
            };
            return Err(Error::count(what, rows, self.len()));
        }
        let mut first = 0;
        while first < rows {
            let factor = self.get(first);
            let checked = if limits { factor.check() } else { factor.check_finite() };
            checked.map_err(|error| of_row(error, first))?;
            first += self.alike(first, rows);
        }
        Ok(())
    }
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
        )
    }

    fn map_in_place<T: Element>(&self, work: Work, x: MatrixMut<T>) -> Result<(), Error> {
        let shape = Shape::from(&x).in_place();
        self.run::<T, _>(work, shape, x, &MatrixMut::split_rows, &|softmax, x| {
            softmax.map_in_place(work, x)
        })
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
        )
    }

    /// Checks all rows, and then calls `f` for the rows of each factor, which `split` cuts off.
    fn run<T: Element, V: Send>(
        &self,
        work: Work,
        shape: Shape,
        views: V,
        split: &(impl Fn(V, usize) -> (V, V) + Sync),
        f: &(impl Fn(Softmax, V) -> Result<(), Error> + Sync),
    ) -> Result<(), Error> {
        let Self { softmax, factors } = self;
        let (rows, cols) = (shape.rows, shape.cols);
        let is_map = matches!(work, Work::Softmax | Work::LogSoftmax);
        factors.check(rows, is_map && softmax.mask.is_none())?;
        let mask = softmax.mask.map(|mask| RowMask::new::<T::Arithmetic>(mask, rows, cols));
        let mask = mask.transpose()?;
        let plan = softmax.exec.plan_work::<T>(work, shape)?;
        let alike = |row, end| {
            let n = factors.alike(row, end);
            if mask.is_some_and(|mask| mask.is_of_each()) { 1 } else { n }
        };
        // What is larger than the caches together is computed like that row by row, too.
        let mut exec = softmax.exec;
        if let Some(caches) = plan.caches_of_part() {
            exec = exec.caches(caches);
        }
        let part = |exec, views, first: usize, end: usize| -> Result<(), Error> {
            let (mut rest, mut row) = (views, first);
            while row < end {
                let n = alike(row, end);
                let (views, others) = split(rest, n);
                let mask = mask.map(|mask| mask.row(row));
                f(Softmax { factor: factors.get(row), mask, exec, ..*softmax }, views)?;
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
