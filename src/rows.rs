//! Softmax, log-softmax and log-sum-exp of rows.

use softmax_kernels::{
    Call, Element, MaskData, Masked, Matrix, MatrixMut, Op as Work, Scale, Ties,
};

use crate::exec::exec_setter;
use crate::factor::{Factor, Limit};
use crate::{Error, Exec};

/// Softmax, log-softmax and log-sum-exp, with options. It is cheap to make, copy and keep.
///
/// ```
/// use softmax::{Exec, Matrix, MatrixMut, Softmax, Threads};
///
/// // Two rows of two, each followed by one element of padding, at temperature 2.
/// let logits = [0.8f32, 0.2, 9.0, 0.2, 0.8, 9.0];
/// let mut probs = [0.0f32; 4];
/// Softmax::new()
///     .temperature(2.0)
///     .exec(Exec::new().threads(Threads::Serial))
///     .softmax(Matrix::with_stride(&logits, 2, 2, 3)?, MatrixMut::new(&mut probs, 2)?)?;
/// assert_eq!(probs.map(|p| (p * 100.0).round() / 100.0), [0.57, 0.43, 0.43, 0.57]);
/// # Ok::<(), softmax::Error>(())
/// ```
///
/// In a thread pool of the caller's:
///
/// ```
/// # #[cfg(feature = "rayon")] {
/// # use softmax::{MatrixMut, Softmax};
/// let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
/// let mut x = vec![0.0f64; 1 << 20];
/// pool.install(|| Softmax::new().softmax_in_place(MatrixMut::new(&mut x, 1024)?))?;
/// assert_eq!(x[0], 1.0 / 1024.0);
/// # }
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Softmax<'a> {
    pub(crate) factor: Factor,
    pub(crate) masked: Masked,
    pub(crate) mask: Option<MaskData<'a>>,
    pub(crate) exec: Exec<'a>,
}

impl<'a> Softmax<'a> {
    /// The defaults: scale 1, no mask, NaN for fully masked rows; calls choose kernel and threads
    /// themselves.
    ///
    /// ```
    /// assert_eq!(format!("{:?}", softmax::Softmax::new()), format!("{:?}", softmax::Softmax::default()));
    /// ```
    #[inline]
    pub const fn new() -> Self {
        Self { factor: Factor::One, masked: Masked::Nan, mask: None, exec: Exec::new() }
    }

    /// Multiplies every input by `scale`: `exp(scale * x_i) / sum_j exp(scale * x_j)`. It costs
    /// nothing per element and no accuracy: the product is never rounded. Calls refuse scales with
    /// an absolute value outside `2^-60..=2^60`.
    ///
    /// Scales below 0 (softmin) give the bits of `-x` with the absolute value of the scale. They
    /// take longer, because rows are copied and negated in scratch memory.
    ///
    /// ```
    /// use softmax::{Matrix, MatrixMut, Softmax};
    /// let (x, mut y) = ([1.0f32, 1.0, f32::INFINITY], [0.0f32; 3]);
    /// Softmax::new().scale(-1.0).softmax(Matrix::new(&x, 3)?, MatrixMut::new(&mut y, 3)?)?;
    /// assert_eq!(y, [0.5, 0.5, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn scale(mut self, scale: f64) -> Self {
        self.factor = Factor::scale(scale);
        self
    }

    /// Divides every input by `temperature`, which gives the Boltzmann distribution. Like
    /// [`Softmax::scale`] with `1 / temperature`, but without rounding that quotient. The last call
    /// of the two counts.
    ///
    /// Softmax and log-softmax support the limits. At temperature 0 the largest element has all the
    /// mass; equal largest elements share it ([`Hardmax`](crate::Hardmax)). At `f64::INFINITY` all
    /// elements except `-inf` have the same mass. Temperatures between 0 and 2^-100 count as
    /// 2^-100, where logits that differ by more than 1e-27 have reached the first limit; finite
    /// ones above 2^100 count as 2^100, where logits below 7e13 (in f32 3e22) have reached the
    /// second.
    ///
    /// Calls refuse temperatures that are NaN or below 0 (for a negative temperature use
    /// [`Softmax::scale`] with its inverse). Only softmax and log-softmax without a mask accept 0
    /// and infinity.
    ///
    /// ```
    /// use softmax::{Matrix, MatrixMut, Softmax};
    ///
    /// let x = [1.0f32, 3.0, 3.0, f32::NEG_INFINITY];
    /// let mut y = [0.0f32; 4];
    /// let cold = Softmax::new().temperature(0.0);
    /// cold.softmax(Matrix::new(&x, 4)?, MatrixMut::new(&mut y, 4)?)?;
    /// assert_eq!(y, [0.0, 0.5, 0.5, 0.0]);
    /// let hot = Softmax::new().temperature(f64::INFINITY);
    /// hot.softmax(Matrix::new(&x, 4)?, MatrixMut::new(&mut y, 4)?)?;
    /// assert_eq!(y, [1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn temperature(mut self, temperature: f64) -> Self {
        self.factor = Factor::temperature(temperature);
        self
    }

    /// What the result is for a row that is all `-inf`.
    ///
    /// ```
    /// use softmax::{Masked, MatrixMut, Softmax};
    /// let mut row = [f32::NEG_INFINITY; 2];
    /// Softmax::new().masked(Masked::Zero).softmax_in_place(MatrixMut::new(&mut row, 2)?)?;
    /// assert_eq!(row, [0.0, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn masked(mut self, masked: Masked) -> Self {
        self.masked = masked;
        self
    }

    /// Hides elements or adds numbers to the scaled ones. The mask has one row for all rows, or one
    /// for each, without gaps. Masks of bool or u8 show an element where they are not 0, those of
    /// bits ([`BitMask`](crate::BitMask)) where its bit is set; masks of f32, f16 or bf16 (f64 for
    /// rows of f64) are added, and `-inf` hides. A hidden element counts as `-inf`, whatever its
    /// value: its probability is 0, its log-probability `-inf`.
    ///
    /// Softmax gives the bits of [`Attention`](crate::Attention) with one head, and has the bounds
    /// stated there. With a mask that only hides, all operations give the bits of a row with `-inf`
    /// in place of the hidden elements.
    ///
    /// Log-softmax and log-sum-exp with a mask copy rows into scratch memory; if numbers other than
    /// 0 and `-inf` are added, as f64. So in f32, f16 and bf16 their errors are no larger than
    /// without a mask. In f64 they are those of logits that were rounded first: each twice, by
    /// 2^-52 of it, where its sum with the mask is not exact. Those logits must be in the range of
    /// f64.
    ///
    /// Along an axis the mask has one row for all lanes, or the shape of the tensor; of bits, along
    /// other axes than the last, one row for all.
    ///
    /// ```
    /// use softmax::{Matrix, MatrixMut, Softmax};
    /// let (x, mut y) = ([1.0f32, 7.0, 1.0, 5.0, 5.0, f32::NAN], [0.0f32; 6]);
    /// // One row for each.
    /// let mask = [true, false, true, true, true, false];
    /// let softmax = Softmax::new().mask(&mask);
    /// softmax.softmax(Matrix::new(&x, 3)?, MatrixMut::new(&mut y, 3)?)?;
    /// assert_eq!(y, [0.5, 0.0, 0.5, 0.5, 0.5, 0.0]);
    /// // One for all, of numbers to be added.
    /// let softmax = Softmax::new().mask(&[0.0f32, -6.0, f32::NEG_INFINITY]);
    /// softmax.softmax(Matrix::new(&x[..3], 3)?, MatrixMut::new(&mut y[..3], 3)?)?;
    /// assert_eq!(y[..3], [0.5, 0.5, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn mask(mut self, mask: impl Into<MaskData<'a>>) -> Self {
        self.mask = Some(mask.into());
        self
    }

    exec_setter!();

    /// The softmax of every row of `x`, into the rows of `y`, which have the same shape.
    ///
    /// Error: at most 3 ULP in f32 and f64; in f16 at most 0.53 ULP of the type, in bf16 0.51. In
    /// bf16 results below 2^-126 are 0.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ or a mask has another size, [`Error::Value`] if the
    /// scale or temperature is out of range or a mask is of f64 and the rows are not, with a mask
    /// [`Error::Memory`], or a kernel that cannot run.
    ///
    /// ```
    /// use softmax::{Matrix, MatrixMut, Softmax};
    /// let mut probs = [0.0f32; 4];
    /// let x = Matrix::new(&[5.0, 5.0, 1.0, 1.0], 2)?;
    /// Softmax::new().softmax(x, MatrixMut::new(&mut probs, 2)?)?;
    /// assert_eq!(probs, [0.5; 4]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn softmax<T: Element>(&self, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        self.map(Work::Softmax, x, y)
    }

    /// [`Softmax::softmax`] of every row, in place. The same bits.
    ///
    /// # Errors
    /// As [`Softmax::softmax`].
    ///
    /// ```
    /// use softmax::{MatrixMut, Softmax};
    /// let mut row = [3.0f64; 4];
    /// Softmax::new().softmax_in_place(MatrixMut::new(&mut row, 4)?)?;
    /// assert_eq!(row, [0.25; 4]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn softmax_in_place<T: Element>(&self, x: MatrixMut<T>) -> Result<(), Error> {
        self.map_in_place(Work::Softmax, x)
    }

    /// The log-softmax of every row of `x`, into the rows of `y`, which have the same shape: `scale
    /// * x_i - ln(sum_j exp(scale * x_j))`.
    ///
    /// Error: at most 2 ULP or 1e-7 in f32, 3 ULP or 3e-16 in f64, whichever is larger; in f16 and
    /// bf16 at most 0.51 ULP of the type and 1e-7 on top.
    ///
    /// # Errors
    /// As [`Softmax::softmax`].
    ///
    /// ```
    /// use softmax::{Matrix, MatrixMut, Softmax};
    /// let mut log_probs = [0.0f64; 2];
    /// let x = Matrix::new(&[1000.0, 1000.0], 2)?;
    /// Softmax::new().log_softmax(x, MatrixMut::new(&mut log_probs, 2)?)?;
    /// assert_eq!(log_probs, [-std::f64::consts::LN_2; 2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn log_softmax<T: Element>(&self, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        self.map(Work::LogSoftmax, x, y)
    }

    /// [`Softmax::log_softmax`] of every row, in place. The same bits.
    ///
    /// # Errors
    /// As [`Softmax::softmax`].
    ///
    /// ```
    /// use softmax::{MatrixMut, Softmax};
    /// let mut row = [7.0f32];
    /// Softmax::new().log_softmax_in_place(MatrixMut::new(&mut row, 1)?)?;
    /// assert_eq!(row, [0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn log_softmax_in_place<T: Element>(&self, x: MatrixMut<T>) -> Result<(), Error> {
        self.map_in_place(Work::LogSoftmax, x)
    }

    /// The log-sum-exp of every row of `x`, one element of `y` for each: `ln(sum_j exp(scale *
    /// x_j))`. For an empty row it is `-inf`.
    ///
    /// Error: as [`Softmax::log_softmax`].
    ///
    /// # Errors
    /// As [`Softmax::softmax`]; [`Error::Shape`] if `y` has not one element per row.
    ///
    /// ```
    /// use softmax::{Matrix, Softmax};
    /// let mut y = [0.0f64; 2];
    /// Softmax::new().logsumexp(Matrix::new(&[1.0, 1.0, -3.0, f64::NEG_INFINITY], 2)?, &mut y)?;
    /// assert_eq!(y, [1.0 + 2f64.ln(), -3.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn logsumexp<T: Element>(&self, x: Matrix<T>, y: &mut [T]) -> Result<(), Error> {
        if let (Factor::One, None) = (self.factor, self.mask) {
            return self.logsumexp_by(Scale::ONE, x, y);
        }
        if self.is_changed() {
            return self.changed_to_one(Work::LogSumExp, x, y);
        }
        self.logsumexp_by(self.factor.finite()?, x, y)
    }

    #[inline]
    fn logsumexp_by<T: Element>(
        &self,
        scale: Scale,
        x: Matrix<T>,
        y: &mut [T],
    ) -> Result<(), Error> {
        let call = Call::logsumexp(x, y, scale);
        self.exec.run(call.map_err(|shapes| not_one_a_row(Work::LogSumExp, shapes))?)
    }

    /// Runs an operation from rows to rows.
    #[inline(always)]
    pub(crate) fn map<T: Element>(
        &self,
        work: Work,
        x: Matrix<T>,
        y: MatrixMut<T>,
    ) -> Result<(), Error> {
        if let (Factor::One, None) = (self.factor, self.mask) {
            // Most calls take this path. Passing a scale that may be one of two would cost 2 ns.
            let call = Call::new(work, x, y, Scale::ONE, self.masked).map_err(mismatch)?;
            return self.exec.run(call);
        }
        self.map_scaled(work, x, y)
    }

    #[inline(never)]
    fn map_scaled<T: Element>(
        &self,
        work: Work,
        x: Matrix<T>,
        y: MatrixMut<T>,
    ) -> Result<(), Error> {
        if self.is_changed() {
            return self.changed(work, Some(x), y);
        }
        let (work, scale) = self.at(work)?;
        self.exec.run(Call::new(work, x, y, scale, self.masked).map_err(mismatch)?)
    }

    /// The same as [`Softmax::map`], in place.
    #[inline(always)]
    pub(crate) fn map_in_place<T: Element>(
        &self,
        work: Work,
        y: MatrixMut<T>,
    ) -> Result<(), Error> {
        if let (Factor::One, None) = (self.factor, self.mask) {
            return self.exec.run(Call::in_place(work, y, Scale::ONE, self.masked));
        }
        if self.is_changed() {
            return self.changed(work, None, y);
        }
        let (work, scale) = self.at(work)?;
        self.exec.run(Call::in_place(work, y, scale, self.masked))
    }

    /// Whether rows must be changed before the operation.
    pub(crate) fn is_changed(&self) -> bool {
        self.mask.is_some() || self.factor.is_negative()
    }

    /// Whether the kernels for columns cannot do this.
    pub(crate) fn is_special(&self) -> bool {
        self.is_changed() || self.factor.limit().is_some()
    }

    /// The operation that softmax or log-softmax becomes at the temperature, and its scale.
    #[inline(always)]
    pub(crate) fn at(&self, work: Work) -> Result<(Work, Scale), Error> {
        match self.factor.limit() {
            None => Ok((work, self.factor.finite()?)),
            Some(limit) => Ok((at_limit(work, limit), Scale::ONE)),
        }
    }
}

/// The operation that softmax or log-softmax becomes at a limit of temperature.
#[cold]
fn at_limit(work: Work, limit: Limit) -> Work {
    match (work, limit) {
        (Work::LogSoftmax, Limit::Zero) => Work::LogHardmax,
        (Work::LogSoftmax, Limit::Infinite) => Work::LogUniform,
        (_, Limit::Zero) => Work::Hardmax(Ties::Share),
        (_, Limit::Infinite) => Work::Uniform,
    }
}

/// The error for an output that has not one element for each row of the input.
#[cold]
pub(crate) fn not_one_a_row(work: Work, [(rows, _), (len, _)]: [(usize, usize); 2]) -> Error {
    let what = match work {
        Work::Entropy => "number of entropies (one for each row)",
        _ => "number of log-sum-exps (one for each row)",
    };
    Error::count(what, rows, len)
}

/// The error for shapes of input and output that differ.
#[cold]
pub(crate) fn mismatch([input, output]: [(usize, usize); 2]) -> Error {
    Error::differ("output", input, output)
}
