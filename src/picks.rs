//! The largest elements of rows, and the log-probabilities of some.

use softmax_kernels::{Element, MaskData, Masked, Matrix, Op as Work, Picks, part_of, with_room};

use crate::changed::{Hidden, RowMask, Rows, negated};
use crate::exec::exec_setter;
use crate::factor::{Factor, factor_setters};
use crate::lanes::{tensor, tensor_mut};
use crate::{Error, Exec, Shape};

/// The `k` largest elements of each row, in decreasing order, equal ones in the order of the row:
/// their indices, log-probabilities and probabilities in the whole row. Outputs have `k` elements
/// for each row; as in PyTorch, values come before indices. Each row is read from memory once.
///
/// ```
/// use softmax::{Matrix, TopK};
/// let logits = Matrix::new(&[1.0f32, 4.0, 2.0, 4.0], 4)?;
/// let (mut log_probs, mut indices) = ([0.0f32; 3], [0; 3]);
/// TopK::new(3).log_probs(logits, &mut log_probs, &mut indices)?;
/// assert_eq!(indices, [1, 3, 2]);
/// assert!(log_probs[0] == log_probs[1] && log_probs[1] > log_probs[2]);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TopK<'a> {
    pub(crate) k: usize,
    factor: Factor,
    masked: Masked,
    mask: Option<MaskData<'a>>,
    pub(crate) exec: Exec<'a>,
}

impl<'a> TopK<'a> {
    /// The `k` largest of each row, with the defaults: scale 1, NaN for fully masked rows; calls
    /// choose kernel and threads themselves.
    ///
    /// ```
    /// use softmax::{Matrix, TopK};
    /// let mut indices = [0; 3];
    /// TopK::new(3).indices(Matrix::new(&[1.0f32, 5.0, 4.0, 2.0], 4)?, &mut indices)?;
    /// assert_eq!(indices, [1, 2, 3]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    pub const fn new(k: usize) -> Self {
        Self { k, factor: Factor::One, masked: Masked::Nan, mask: None, exec: Exec::new() }
    }

    factor_setters!(
        "Scales below 0 have the bits of `-x` by the scale without its sign, whose largest elements are\nthe smallest of `x`, and take longer, because rows are copied."
    );

    /// What the probabilities of a row are that is all `-inf`.
    ///
    /// ```
    /// use softmax::{Masked, Matrix, TopK};
    /// let (mut probs, mut indices) = ([1.0f32], [9]);
    /// let row = [f32::NEG_INFINITY; 2];
    /// TopK::new(1).masked(Masked::Zero).probs(Matrix::new(&row, 2)?, &mut probs, &mut indices)?;
    /// assert_eq!(probs, [0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn masked(mut self, masked: Masked) -> Self {
        self.masked = masked;
        self
    }

    /// Hides elements, with the bits of a row that has `-inf` there: bits ([`BitMask`]) or booleans
    /// say which are seen, or numbers are 0 or `-inf` (calls refuse others). The mask has one row
    /// for all rows, or one for each; along an axis other than the last, one for all. If a row
    /// shows fewer than `k` elements, the others follow in the order of the row, with probability
    /// 0.
    ///
    /// Calls take longer, because rows are copied into scratch memory.
    ///
    /// ```
    /// use softmax::{BitMask, Matrix, TopK};
    /// let (mut log_probs, mut indices) = ([1.0f32; 2], [9; 2]);
    /// let logits = Matrix::new(&[5.0f32, 9.0, 5.0, 7.0], 4)?;
    /// // Columns 0 and 2.
    /// let topk = TopK::new(2).mask(BitMask::new(&[0b101]));
    /// topk.log_probs(logits, &mut log_probs, &mut indices)?;
    /// assert_eq!((log_probs, indices), ([-std::f32::consts::LN_2; 2], [0, 2]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// [`BitMask`]: crate::BitMask
    #[must_use]
    pub fn mask(mut self, mask: impl Into<MaskData<'a>>) -> Self {
        self.mask = Some(mask.into());
        self
    }

    exec_setter!();

    /// Only the indices. In rows with NaN they are 0 to `k - 1`.
    ///
    /// # Errors
    /// As [`TopK::log_probs`]; [`Error::Memory`].
    ///
    /// ```
    /// use softmax::{Matrix, TopK};
    /// let mut indices = [0; 2];
    /// TopK::new(2).indices(Matrix::new(&[1.0f32, 4.0, 2.0, 4.0], 4)?, &mut indices)?;
    /// assert_eq!(indices, [1, 3]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn indices<T: Element>(&self, x: Matrix<T>, indices: &mut [usize]) -> Result<(), Error> {
        let n = indices.len();
        self.aside::<T>(n, |log_probs| self.pick(x, log_probs, None, indices))
    }

    /// The log-probabilities and the indices. Log-probabilities are those of
    /// [`LogProbs::log_probs`]. In rows with NaN they are NaN, and the indices are 0 to `k - 1`; in
    /// rows with `+inf` they are NaN, and the indices are those of the largest elements.
    ///
    /// Error: as [`Softmax::log_softmax`](crate::Softmax::log_softmax) in f32 or f64.
    ///
    /// # Errors
    /// [`Error::Value`] if a row has less than `k` elements, or the scale or temperature is out of
    /// range, [`Error::Shape`] if outputs have not `k` elements for each row, or a kernel that
    /// cannot run.
    ///
    /// ```
    /// use softmax::{Matrix, TopK};
    /// let (mut log_probs, mut indices) = ([0.0f64], [9]);
    /// TopK::new(1).log_probs(Matrix::new(&[1.0, 1.0], 2)?, &mut log_probs, &mut indices)?;
    /// assert_eq!((log_probs, indices), ([-std::f64::consts::LN_2], [0]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn log_probs<T: Element>(
        &self,
        x: Matrix<T>,
        log_probs: &mut [T::Arithmetic],
        indices: &mut [usize],
    ) -> Result<(), Error> {
        self.pick(x, log_probs, None, indices)
    }

    /// The probabilities and the indices. Probabilities have the same bits as those of
    /// [`Softmax::softmax`](crate::Softmax::softmax); for f16 and bf16 the bits that it gives for
    /// the same numbers in f32. (The exponential of a log-probability would be less accurate: its
    /// error is as large as the rounding error of the log-probability.)
    ///
    /// Error: as [`Softmax::softmax`](crate::Softmax::softmax) in f32 or f64, at most 3 ULP.
    ///
    /// # Errors
    /// As [`TopK::log_probs`]; [`Error::Memory`].
    ///
    /// ```
    /// use softmax::{Matrix, TopK};
    /// let logits = Matrix::new(&[1.0f32, 1.0, 1.0, 1.0], 4)?;
    /// let (mut probs, mut indices) = ([0.0f32; 2], [0; 2]);
    /// TopK::new(2).probs(logits, &mut probs, &mut indices)?;
    /// assert_eq!((probs, indices), ([0.25; 2], [0, 1]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn probs<T: Element>(
        &self,
        x: Matrix<T>,
        probs: &mut [T::Arithmetic],
        indices: &mut [usize],
    ) -> Result<(), Error> {
        let n = indices.len();
        self.aside::<T>(n, |log_probs| self.pick(x, log_probs, Some(probs), indices))
    }

    /// The log-probabilities of [`TopK::log_probs`], the probabilities of [`TopK::probs`] and the
    /// indices.
    ///
    /// # Errors
    /// As [`TopK::log_probs`].
    ///
    /// ```
    /// use softmax::{Matrix, TopK};
    /// let (mut log_probs, mut probs, mut indices) = ([0.0f64], [0.0], [9]);
    /// let x = Matrix::new(&[1.0, 1.0], 2)?;
    /// TopK::new(1).log_probs_and_probs(x, &mut log_probs, &mut probs, &mut indices)?;
    /// assert_eq!((log_probs, probs), ([-std::f64::consts::LN_2], [0.5]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn log_probs_and_probs<T: Element>(
        &self,
        x: Matrix<T>,
        log_probs: &mut [T::Arithmetic],
        probs: &mut [T::Arithmetic],
        indices: &mut [usize],
    ) -> Result<(), Error> {
        self.pick(x, log_probs, Some(probs), indices)
    }

    /// Whether rows are copied and changed.
    pub(crate) fn is_changed(&self) -> bool {
        self.factor.is_negative() || self.mask.is_some()
    }

    /// Checks that there is no mask, or one that has one row of `cols` elements for all.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Value`].
    pub(crate) fn check_mask(&self, cols: usize) -> Result<(), Error> {
        self.mask.map_or(Ok(()), |mask| mask.rows(1, cols).map(|_| ()))
    }

    /// Checks that rows of `cols` elements have at least `k`, and that the scale is in its range.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub(crate) fn check(&self, cols: usize) -> Result<(), Error> {
        self.factor.check_finite()?;
        Picks::<f32>::check_k(self.k, cols)
    }

    /// Calls a function with memory for log-probabilities that are not wanted.
    fn aside<T: Element>(
        &self,
        n: usize,
        f: impl FnOnce(&mut [T::Arithmetic]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        with_room(n, f).unwrap_or(Err(Error::memory(n)))
    }

    fn pick<T: Element>(
        &self,
        x: Matrix<T>,
        log_probs: &mut [T::Arithmetic],
        probs: Option<&mut [T::Arithmetic]>,
        indices: &mut [usize],
    ) -> Result<(), Error> {
        if self.is_changed() {
            let (k, mut probs) = (self.k, probs);
            Picks::top(x, k, &mut *indices, &mut *log_probs, probs.as_deref_mut())?;
            let picked = [x.rows(), k, 1];
            let values = |values| tensor_mut("number of values", values, picked);
            let indices = tensor_mut("number of indices", indices, picked)?;
            let (log_probs, probs) = (values(log_probs)?, probs.map(values).transpose()?);
            let (factor, negative) = self.factor.unsigned();
            factor.check_finite()?;
            let (plain, cols) = (Self { factor, mask: None, ..*self }, x.cols());
            let Some(mask) = self.mask else {
                return plain.lanes(cols, negated(x), Some(log_probs), probs, indices);
            };
            let mask = RowMask::hiding(mask, x.rows(), cols)?;
            let hidden = Hidden { mask, negative, kernel: self.exec.ready()? };
            let x = Rows::new(x, 0, hidden);
            return plain.lanes(cols, x, Some(log_probs), probs, indices);
        }
        let scale = self.factor.finite()?;
        let picks = Picks::top(x, self.k, indices, log_probs, probs)?;
        run(&self.exec, picks.scaled(scale, self.masked), false)
    }
}

/// The log-probabilities of some elements of each row, such as the tokens of a text. No output is
/// as long as a row, and each row is read once.
///
/// ```
/// use softmax::{LogProbs, Matrix};
/// // Two positions, three tokens in the vocabulary.
/// let logits = Matrix::new(&[1.0f32, 1.0, f32::NEG_INFINITY, 0.0, 9.0, 0.0], 3)?;
/// let mut log_probs = [0.0f32; 2];
/// LogProbs::new().log_probs(logits, &[0, 1], &mut log_probs)?;
/// assert_eq!(log_probs[0], -std::f32::consts::LN_2);
/// assert_eq!(softmax::perplexity(&log_probs[..1]).round(), 2.0);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct LogProbs<'a> {
    factor: Factor,
    masked: Masked,
    mask: Option<MaskData<'a>>,
    exec: Exec<'a>,
}

impl<'a> LogProbs<'a> {
    /// The defaults: scale 1, NaN for fully masked rows; calls choose kernel and threads
    /// themselves.
    ///
    /// ```
    /// use softmax::{LogProbs, Matrix};
    /// let mut log_probs = [1.0f32];
    /// LogProbs::new().log_probs(Matrix::new(&[7.0f32], 1)?, &[0], &mut log_probs)?;
    /// assert_eq!(log_probs, [0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    pub const fn new() -> Self {
        Self { factor: Factor::One, masked: Masked::Nan, mask: None, exec: Exec::new() }
    }

    factor_setters!(
        "Scales below 0 have the bits of `-x` by the scale without its sign, and take longer, because\nrows are copied."
    );

    /// What the log-probabilities of a row are that is all `-inf`.
    ///
    /// ```
    /// use softmax::{LogProbs, Masked, Matrix};
    /// let (row, mut log_probs) = ([f32::NEG_INFINITY; 2], [1.0f32]);
    /// LogProbs::new().masked(Masked::Zero).log_probs(Matrix::new(&row, 2)?, &[1], &mut log_probs)?;
    /// assert_eq!(log_probs, [f32::NEG_INFINITY]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn masked(mut self, masked: Masked) -> Self {
        self.masked = masked;
        self
    }

    /// Hides elements, with the bits of a row that has `-inf` there: bits ([`BitMask`]) or booleans
    /// say which are seen, or numbers are 0 or `-inf` (calls refuse others). The mask has one row
    /// for all rows, or one for each; along an axis other than the last, one for all. A hidden
    /// token has the log-probability `-inf`.
    ///
    /// Calls take longer, because rows are copied into scratch memory.
    ///
    /// ```
    /// use softmax::{BitMask, LogProbs, Matrix};
    /// let mut log_probs = [0.0f32; 2];
    /// let logits = Matrix::new(&[5.0f32, 9.0, 5.0], 3)?;
    /// // Columns 0 and 2.
    /// let log_probs_of = LogProbs::new().mask(BitMask::new(&[0b101]));
    /// log_probs_of.log_probs(logits, &[0, 1], &mut log_probs)?;
    /// assert_eq!(log_probs, [-std::f32::consts::LN_2, f32::NEG_INFINITY]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// [`BitMask`]: crate::BitMask
    #[must_use]
    pub fn mask(mut self, mask: impl Into<MaskData<'a>>) -> Self {
        self.mask = Some(mask.into());
        self
    }

    exec_setter!();

    /// The log-probabilities of some elements of each row. For row `i` and every `j` below `k`,
    /// which is `tokens.len() / rows`, that of element `tokens[i * k + j]`. They have the same bits
    /// as those of [`Softmax::log_softmax`](crate::Softmax::log_softmax); for f16 and bf16 those
    /// before it rounds.
    ///
    /// Rows with NaN or `+inf` give NaN; for rows that are all `-inf` see [`LogProbs::masked`].
    ///
    /// Error: as [`Softmax::log_softmax`](crate::Softmax::log_softmax) in f32 or f64.
    ///
    /// # Errors
    /// [`Error::Shape`] if `tokens` are not as many for each row, or not as many as `log_probs`;
    /// [`Error::Column`] if a token is no column; [`Error::Value`] if the scale or
    /// temperature is out of range; or a kernel that cannot run.
    ///
    /// ```
    /// use softmax::{LogProbs, Matrix};
    /// // Two tokens of each of two rows.
    /// let mut log_probs = [0.0f64; 4];
    /// let logits = Matrix::new(&[2.0, 2.0, 3.0, 3.0], 2)?;
    /// LogProbs::new().log_probs(logits, &[0, 1, 1, 1], &mut log_probs)?;
    /// assert_eq!(log_probs, [-std::f64::consts::LN_2; 4]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn log_probs<T: Element>(
        &self,
        x: Matrix<T>,
        tokens: &[usize],
        log_probs: &mut [T::Arithmetic],
    ) -> Result<(), Error> {
        if self.is_changed() {
            return self.changed(x, tokens, log_probs, None);
        }
        self.pick(Picks::tokens(x, tokens, log_probs, None), false)
    }

    /// [`LogProbs::log_probs`], and the log-sum-exp of each row, in one element of `logsumexp`
    /// each: that of [`Softmax::logsumexp`](crate::Softmax::logsumexp) before it rounds.
    ///
    /// # Errors
    /// As [`LogProbs::log_probs`]; [`Error::Shape`] if `logsumexp` has not one element for each
    /// row.
    ///
    /// ```
    /// use softmax::{LogProbs, Matrix};
    /// let (mut log_probs, mut logsumexp) = ([0.0f64; 1], [0.0; 1]);
    /// let logits = Matrix::new(&[2.0, 2.0], 2)?;
    /// LogProbs::new().log_probs_and_logsumexp(logits, &[0], &mut log_probs, &mut logsumexp)?;
    /// assert_eq!(logsumexp[0], 2.0 - log_probs[0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn log_probs_and_logsumexp<T: Element>(
        &self,
        x: Matrix<T>,
        tokens: &[usize],
        log_probs: &mut [T::Arithmetic],
        logsumexp: &mut [T::Arithmetic],
    ) -> Result<(), Error> {
        if self.is_changed() {
            return self.changed(x, tokens, log_probs, Some(logsumexp));
        }
        self.pick(Picks::tokens(x, tokens, log_probs, Some(logsumexp)), true)
    }

    /// Whether rows are copied and changed.
    fn is_changed(&self) -> bool {
        self.factor.is_negative() || self.mask.is_some()
    }

    /// As [`TopK::check_mask`].
    pub(crate) fn check_mask(&self, cols: usize) -> Result<(), Error> {
        self.mask.map_or(Ok(()), |mask| mask.rows(1, cols).map(|_| ()))
    }

    /// The same with a mask or a scale below 0.
    #[cold]
    fn changed<T: Element>(
        &self,
        x: Matrix<T>,
        tokens: &[usize],
        log_probs: &mut [T::Arithmetic],
        mut logsumexp: Option<&mut [T::Arithmetic]>,
    ) -> Result<(), Error> {
        Picks::tokens(x, tokens, &mut *log_probs, logsumexp.as_deref_mut())?;
        let (rows, cols) = (x.rows(), x.cols());
        let picked = [rows, tokens.len() / rows.max(1), 1];
        let tokens = tensor("number of tokens", tokens, picked)?;
        let log_probs = tensor_mut("number of log-probabilities", log_probs, picked)?;
        let one = |one| tensor_mut("number of log-sum-exps", one, [rows, 1, 1]);
        let logsumexp = logsumexp.map(one).transpose()?;
        let (factor, negative) = self.factor.unsigned();
        factor.check_finite()?;
        let plain = Self { factor, mask: None, ..*self };
        let Some(mask) = self.mask else {
            return plain.lanes(cols, negated(x), tokens, log_probs, logsumexp);
        };
        let mask = RowMask::hiding(mask, rows, cols)?;
        let hidden = Hidden { mask, negative, kernel: self.exec.ready()? };
        plain.lanes(cols, Rows::new(x, 0, hidden), tokens, log_probs, logsumexp)
    }

    pub(crate) fn where_it_runs(&self) -> &Exec<'a> {
        &self.exec
    }

    pub(crate) fn check_scale(&self) -> Result<(), Error> {
        self.factor.check_finite()
    }

    fn pick<T: Element>(
        &self,
        picks: Result<Picks<T>, Error>,
        logsumexp: bool,
    ) -> Result<(), Error> {
        run(&self.exec, picks?.scaled(self.factor.finite()?, self.masked), logsumexp)
    }
}

/// Picks elements of the rows. Threads share the rows.
pub(crate) fn run<T: Element>(exec: &Exec, picks: Picks<T>, logsumexp: bool) -> Result<(), Error> {
    let (rows, cols) = (picks.rows(), picks.cols());
    // It reads memory as log-sum-exp does.
    let plan = exec.plan_work::<T>(Work::LogSumExp, Shape::new(rows, cols))?;
    // There may be any number of rows without elements; nothing can be picked from them.
    if cols == 0 && !logsumexp {
        return Ok(());
    }
    if plan.threads == 1 {
        // Calling the crew would take a third of the time of a short call.
        plan.kernel.pick(picks);
        return Ok(());
    }
    exec.crew().share(
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

/// The perplexity of a text from the log-probabilities of its tokens ([`LogProbs::log_probs`]):
/// `exp(-mean)`. NaN if there are no tokens.
///
/// ```
/// assert_eq!(softmax::perplexity(&[0.25f64.ln(), 0.25f64.ln()]).round(), 4.0);
/// ```
pub fn perplexity<T: Element>(log_probs: &[T]) -> f64 {
    softmax_kernels::perplexity(log_probs)
}
