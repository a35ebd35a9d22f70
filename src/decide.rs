//! Decisions: the largest elements of rows, one-hot rows, the log-probabilities of some tokens, and
//! the two-class case.

use softmax_kernels::{
    Element, Matrix, MatrixMut, Op, Picks, Ties, in_default_environment, part_of,
};

use crate::plan::Shape;
use crate::{Error, Softmax};

impl Softmax<'_> {
    /// The sigmoid of every element of `x`, into `y`: `1 / (1 + exp(-scale * x_i))`, which is
    /// `softmax([x_i, 0])[0]`. Elements that are 0 give exactly 0.5, `-inf` 0, `+inf` 1 and NaN
    /// NaN. Masks have no meaning here.
    ///
    /// Error: at most 3 ULP in f32 and f64 (f16, bf16: 0.51); what is below 2^-126 (f64: 2^-1022)
    /// may be 0.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the shapes differ, [`Error::Temperature`] if it is 0 or infinite, or
    /// a kernel that cannot run.
    ///
    /// ```
    /// use softmax::{Matrix, MatrixMut, Softmax};
    /// let mut y = [0.0f64; 2];
    /// let x = Matrix::new(&[0.0, 3.0], 2)?;
    /// Softmax::new().temperature(2.0)?.sigmoid(x, MatrixMut::new(&mut y, 2)?)?;
    /// assert_eq!(y.map(|y| (y * 1e6).round() / 1e6), [0.5, 0.817574]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn sigmoid<T: Element>(&self, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        self.elements(Op::Sigmoid, x, y)
    }

    /// [`Softmax::sigmoid`] in place. The same bits.
    ///
    /// # Errors
    /// [`Error::Temperature`] if it is 0 or infinite, or a kernel that cannot run.
    pub fn sigmoid_in_place<T: Element>(&self, x: MatrixMut<T>) -> Result<(), Error> {
        self.elements_in_place(Op::Sigmoid, x)
    }

    /// The logarithm of the sigmoid of every element of `x`, into `y`: `-ln(1 + exp(-scale *
    /// x_i))`, without overflow. `-inf` gives `-inf`, `+inf` 0 and NaN NaN.
    ///
    /// Error: at most 1 ULP in f32, 3 ULP in f64 (f16, bf16: 0.51); in f64 what is nearer to 0 than
    /// 2^-1022 may be 0. It is computed in f64 for all types.
    ///
    /// # Errors
    /// As [`Softmax::sigmoid`].
    pub fn log_sigmoid<T: Element>(&self, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        self.elements(Op::LogSigmoid, x, y)
    }

    /// [`Softmax::log_sigmoid`] in place. The same bits.
    ///
    /// # Errors
    /// As [`Softmax::sigmoid_in_place`].
    pub fn log_sigmoid_in_place<T: Element>(&self, x: MatrixMut<T>) -> Result<(), Error> {
        self.elements_in_place(Op::LogSigmoid, x)
    }

    /// The hardmax of every row of `x`, into the rows of `y`: 1 for the largest element, 0 for the
    /// others. `+inf` is the largest; a row with NaN is NaN; what becomes of one that has nothing
    /// but `-inf` says [`Softmax::masked`]. Scale and temperature do not count.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the shapes differ, or a kernel that cannot run.
    ///
    /// ```
    /// use softmax::{Matrix, MatrixMut, Softmax, Ties};
    /// let x = Matrix::new(&[1.0f32, 3.0, 2.0, 3.0], 4)?;
    /// let mut y = [0.0f32; 4];
    /// Softmax::new().hardmax(Ties::Share, x, MatrixMut::new(&mut y, 4)?)?;
    /// assert_eq!(y, [0.0, 0.5, 0.0, 0.5]);
    /// Softmax::new().hardmax(Ties::First, x, MatrixMut::new(&mut y, 4)?)?;
    /// assert_eq!(y, [0.0, 1.0, 0.0, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn hardmax<T: Element>(
        &self,
        ties: Ties,
        x: Matrix<T>,
        y: MatrixMut<T>,
    ) -> Result<(), Error> {
        self.run(self.call(Op::Hardmax(ties), x, y)?)
    }

    /// [`Softmax::hardmax`] in place. The same bits.
    ///
    /// # Errors
    /// A kernel that cannot run.
    pub fn hardmax_in_place<T: Element>(&self, ties: Ties, x: MatrixMut<T>) -> Result<(), Error> {
        self.run(self.call_in_place(Op::Hardmax(ties), x)?)
    }

    /// The index of the largest element of every row: the first of equals, or that of the row's
    /// first NaN, as PyTorch and NumPy have it. The matrix is read once.
    ///
    /// # Errors
    /// [`Error::Length`] if there is not one index for each row, [`Error::Value`] if rows have no
    /// elements, or a kernel that cannot run.
    ///
    /// ```
    /// use softmax::{Matrix, Softmax};
    /// let mut indices = [0; 2];
    /// Softmax::new().argmax(Matrix::new(&[1.0f32, 3.0, 3.0, -1.0, -2.0, -3.0], 3)?, &mut indices)?;
    /// assert_eq!(indices, [1, 0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn argmax<T: Element>(&self, x: Matrix<T>, indices: &mut [usize]) -> Result<(), Error> {
        self.pick(Picks::largest(x, indices)?, false)
    }

    /// The log-probabilities of some elements of each row: element `tokens[i * k + j]` of row `i`
    /// for every `j` below `k`, which is `tokens.len() / rows`. What [`Softmax::log_softmax`] gives
    /// there, to the bit; of f16 and bf16 what it gives before it rounds. Nothing as long as a row
    /// is written, and each row is read once.
    ///
    /// Rows with NaN or `+inf` give NaN; rows of nothing but `-inf` as [`Softmax::masked`] says.
    ///
    /// Error: as [`Softmax::log_softmax`] in f32 or f64.
    ///
    /// # Errors
    /// [`Error::Length`] if `tokens` are not as many for each row, or not as many as `log_probs`;
    /// [`Error::Column`] if a token is no column, in which case nothing is written;
    /// [`Error::Temperature`] if it is 0 or infinite; or a kernel that cannot run.
    ///
    /// ```
    /// use softmax::{Matrix, Softmax};
    /// // Two positions, three tokens in the vocabulary.
    /// let logits = Matrix::new(&[1.0f32, 1.0, f32::NEG_INFINITY, 0.0, 9.0, 0.0], 3)?;
    /// let mut log_probs = [0.0f32; 2];
    /// Softmax::new().log_probs(logits, &[0, 1], &mut log_probs)?;
    /// assert_eq!(log_probs[0], -std::f32::consts::LN_2);
    /// assert_eq!(softmax::perplexity(&log_probs[..1]).round(), 2.0);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn log_probs<T: Element>(
        &self,
        x: Matrix<T>,
        tokens: &[usize],
        log_probs: &mut [T::Arithmetic],
    ) -> Result<(), Error> {
        self.pick(Picks::tokens(x, tokens, log_probs, None)?, false)
    }

    /// [`Softmax::log_probs`], and the log-sum-exp of each row, as [`Softmax::logsumexp`] has it
    /// before it rounds.
    ///
    /// # Errors
    /// As [`Softmax::log_probs`]; [`Error::Length`] if `lse` has not one element for each row.
    pub fn log_probs_and_lse<T: Element>(
        &self,
        x: Matrix<T>,
        tokens: &[usize],
        log_probs: &mut [T::Arithmetic],
        lse: &mut [T::Arithmetic],
    ) -> Result<(), Error> {
        self.pick(Picks::tokens(x, tokens, log_probs, Some(lse))?, true)
    }

    /// The `k` largest elements of each row, the largest first and the first of equals first: their
    /// indices and their log-probabilities in the whole row, `k` of each a row. Each row is read
    /// once from memory.
    ///
    /// Log-probabilities are those of [`Softmax::log_probs`]: NaN in rows with NaN, of which the
    /// indices are 0 to `k`, and in rows with `+inf`, of which they are those of the largest.
    ///
    /// # Errors
    /// [`Error::Value`] if a row has less than `k` elements, [`Error::Length`] if `indices` or
    /// `log_probs` are not `k` for each row, [`Error::Temperature`] if it is 0 or infinite, or a
    /// kernel that cannot run.
    ///
    /// ```
    /// use softmax::{Matrix, Softmax};
    /// let logits = Matrix::new(&[1.0f32, 4.0, 2.0, 4.0], 4)?;
    /// let (mut indices, mut log_probs) = ([0; 3], [0.0f32; 3]);
    /// Softmax::new().top_k(logits, 3, &mut indices, &mut log_probs)?;
    /// assert_eq!(indices, [1, 3, 2]);
    /// assert!(log_probs[0] == log_probs[1] && log_probs[1] > log_probs[2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn top_k<T: Element>(
        &self,
        x: Matrix<T>,
        k: usize,
        indices: &mut [usize],
        log_probs: &mut [T::Arithmetic],
    ) -> Result<(), Error> {
        self.pick_top(x, k, indices, log_probs, None)
    }

    /// [`Softmax::top_k`], and the probabilities of these elements in the whole row: what
    /// [`Softmax::softmax`] gives there, to the bit; of f16 and bf16 what it gives for the same
    /// numbers as f32. (The exponential of a log-probability is off by as much as its last place is
    /// worth.)
    ///
    /// Error: of probabilities as [`Softmax::softmax`] in f32 or f64, at most 3 ULP.
    ///
    /// # Errors
    /// As [`Softmax::top_k`]; [`Error::Length`] if `probs` are not `k` for each row.
    ///
    /// ```
    /// use softmax::{Matrix, Softmax};
    /// let logits = Matrix::new(&[1.0f32, 1.0, 1.0, 1.0], 4)?;
    /// let (mut indices, mut log_probs, mut probs) = ([0; 2], [0.0f32; 2], [0.0f32; 2]);
    /// Softmax::new().top_k_and_probs(logits, 2, &mut indices, &mut log_probs, &mut probs)?;
    /// assert_eq!((indices, probs), ([0, 1], [0.25; 2]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn top_k_and_probs<T: Element>(
        &self,
        x: Matrix<T>,
        k: usize,
        indices: &mut [usize],
        log_probs: &mut [T::Arithmetic],
        probs: &mut [T::Arithmetic],
    ) -> Result<(), Error> {
        self.pick_top(x, k, indices, log_probs, Some(probs))
    }

    fn pick_top<T: Element>(
        &self,
        x: Matrix<T>,
        k: usize,
        indices: &mut [usize],
        log_probs: &mut [T::Arithmetic],
        probs: Option<&mut [T::Arithmetic]>,
    ) -> Result<(), Error> {
        // An error has k as an f64, which it may have to be rounded for.
        let picks = in_default_environment(|| Picks::top(x, k, indices, log_probs, probs))?;
        self.pick(picks, false)
    }

    /// Picks from the rows. Shared among threads row by row.
    fn pick<T: Element>(&self, picks: Picks<T>, lse: bool) -> Result<(), Error> {
        let picks = if picks.needs_scale() {
            let (scale, masked) = self.arithmetic()?;
            picks.scaled(scale, masked)
        } else {
            picks
        };
        let (rows, cols) = (picks.rows(), picks.cols());
        // It reads as log-sum-exp does.
        let shape = Shape::new::<T>(Op::LogSumExp, rows, cols, false);
        let plan = self.plan_of::<T>(self.kernel_to_use()?, shape)?;
        // Of rows of nothing, of which there may be any number, nothing can be picked.
        if cols == 0 && !lse {
            return Ok(());
        }
        if plan.threads == 1 {
            // The way through the crew costs a short call a third of its time.
            plan.kernel.pick(picks);
            return Ok(());
        }
        self.crew().share(
            plan.threads,
            plan.parts.min(rows),
            picks,
            &|picks, at, of| {
                let at = part_of(picks.rows(), at, of);
                picks.split_rows(at)
            },
            &|picks| plan.kernel.pick(picks),
            &|(), ()| (),
        );
        Ok(())
    }

    /// A map of elements: those of a matrix without padding are a column, which may be cut
    /// anywhere.
    fn elements<T: Element>(&self, op: Op, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        if (x.rows(), x.cols()) != (y.rows(), y.cols()) {
            return self.map(op, x, y);
        }
        match (x.into_slice(), y.into_slice()) {
            (Some(x), Ok(y)) => self.map(op, Matrix::new(x, 1)?, MatrixMut::new(y, 1)?),
            (_, Ok(y)) => self.map(op, x, MatrixMut::new(y, x.cols())?),
            (_, Err(y)) => self.map(op, x, y),
        }
    }

    /// As [`Softmax::elements`].
    fn elements_in_place<T: Element>(&self, op: Op, x: MatrixMut<T>) -> Result<(), Error> {
        let x = match x.into_slice() {
            Ok(x) => MatrixMut::new(x, 1)?,
            Err(x) => x,
        };
        self.run(self.call_in_place(op, x)?)
    }
}

/// The perplexity of a text from the log-probabilities of its tokens ([`Softmax::log_probs`]):
/// `exp(-mean)`. NaN if there are none.
///
/// ```
/// assert_eq!(softmax::perplexity(&[0.25f64.ln(), 0.25f64.ln()]).round(), 4.0);
/// ```
pub fn perplexity<T: Element>(log_probs: &[T]) -> f64 {
    softmax_kernels::perplexity(log_probs)
}
