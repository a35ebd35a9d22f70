//! Everything that can be chosen about a call.

use std::num::NonZeroUsize;

use softmax_kernels::{
    Call, Element, Kernel, Masked, Matrix, MatrixMut, Op, Ready, Scale, Ties,
    in_default_environment,
};

use crate::batch;
use crate::executor::Crew;
use crate::plan::Shape;
use crate::{Caches, Error, Executor, Plan, dispatch};

/// How many threads a call may use. Without the feature `rayon` every call is serial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Threads {
    /// As many of the current rayon pool's threads as pay for the amount of work. A call from
    /// within `pool.install(..)` uses that pool, any other the global one; small calls start none.
    #[default]
    Auto,
    /// The calling thread alone.
    Serial,
    /// As `Auto`, but no more than this many at the same time.
    AtMost(NonZeroUsize),
    /// This many of the current pool's threads, however small the call is: for those who know that
    /// their threads are awake.
    Exactly(NonZeroUsize),
}

/// Softmax and its relatives with options; cheap to make, copy and keep.
///
/// ```
/// use softmax::{Matrix, MatrixMut, Softmax, Threads};
///
/// // Two rows of two, each followed by one element of padding, at temperature 2.
/// let logits = [0.8f32, 0.2, 9.0, 0.2, 0.8, 9.0];
/// let mut probs = [0.0f32; 4];
/// Softmax::new()
///     .temperature(2.0)?
///     .threads(Threads::Serial)
///     .softmax(Matrix::with_stride(&logits, 2, 2, 3)?, MatrixMut::new(&mut probs, 2)?)?;
/// assert_eq!(probs.map(|p| (p * 100.0).round() / 100.0), [0.57, 0.43, 0.43, 0.57]);
/// # Ok::<(), softmax::Error>(())
/// ```
///
/// A pool of one's own:
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
#[derive(Clone, Copy, Debug)]
pub struct Softmax<'a> {
    scale: Scale,
    /// Temperature 0 or infinity, which are no scale.
    limit: Option<Limit>,
    masked: Masked,
    kernel: Option<&'static Kernel>,
    crew: Crew<'a>,
    caches: Option<Caches>,
}

/// The temperatures that are no scale. Not as numbers: a comparison, which the compiler may make
/// before it knows that there is something to compare, might trap in the caller's floating-point
/// environment.
#[derive(Clone, Copy, Debug)]
enum Limit {
    Zero,
    Infinite,
}

impl Limit {
    fn refused(self) -> Error {
        Error::Temperature(match self {
            Self::Zero => 0.0,
            Self::Infinite => f64::INFINITY,
        })
    }
}

/// The constants of a scale, whatever the caller's rounding mode.
pub(crate) fn scale_of(scale: f64) -> Result<Scale, Error> {
    in_default_environment(|| Scale::new(scale).ok_or(Error::Scale(scale)))
}

impl Default for Softmax<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Softmax<'a> {
    /// Scale 1, NaN for fully masked rows, the best kernel, as many threads as pay.
    #[inline]
    pub const fn new() -> Self {
        Self {
            scale: Scale::ONE,
            limit: None,
            masked: Masked::Nan,
            kernel: None,
            crew: Crew { threads: Threads::Auto, executor: None },
            caches: None,
        }
    }

    /// Multiplies every input by `scale`: `exp(scale * x_i) / sum_j exp(scale * x_j)`. Costs
    /// nothing per element and no accuracy: the product is never rounded.
    ///
    /// # Errors
    /// [`Error::Scale`] unless `2^-60 <= scale <= 2^60`.
    #[inline]
    pub fn scale(self, scale: f64) -> Result<Self, Error> {
        let scale = scale_of(scale)?;
        Ok(Self { scale, limit: None, ..self })
    }

    /// Divides every input by `temperature`: the Boltzmann distribution. As [`Softmax::scale`] of
    /// `1 / temperature`, but without rounding that quotient; the later of the two calls counts.
    ///
    /// Softmax and log-softmax of rows have limits: at temperature 0 all the mass is the largest
    /// element's, shared equally by all that are as large ([`Softmax::hardmax`]); at
    /// `f64::INFINITY` all elements but `-inf` have the same. Temperatures between 0 and 2^-100
    /// count as 2^-100, at which logits that are further apart than 1e-27 have reached the first
    /// limit; finite ones above 2^100 count as 2^100, at which logits below 7e13 (in f32 3e22) have
    /// reached the second.
    ///
    /// # Errors
    /// [`Error::Temperature`] if it is NaN or below 0; and, from everything that is not softmax or
    /// log-softmax of rows, if it is 0 or infinite.
    ///
    /// ```
    /// use softmax::{Matrix, MatrixMut, Softmax};
    ///
    /// let x = [1.0f32, 3.0, 3.0, f32::NEG_INFINITY];
    /// let mut y = [0.0f32; 4];
    /// let cold = Softmax::new().temperature(0.0)?;
    /// cold.softmax(Matrix::new(&x, 4)?, MatrixMut::new(&mut y, 4)?)?;
    /// assert_eq!(y, [0.0, 0.5, 0.5, 0.0]);
    /// let hot = Softmax::new().temperature(f64::INFINITY)?;
    /// hot.softmax(Matrix::new(&x, 4)?, MatrixMut::new(&mut y, 4)?)?;
    /// assert_eq!(y, [1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    pub fn temperature(self, temperature: f64) -> Result<Self, Error> {
        in_default_environment(|| {
            let limit = match temperature {
                0.0 => Some(Limit::Zero),
                f64::INFINITY => Some(Limit::Infinite),
                _ => None,
            };
            if limit.is_some() {
                return Ok(Self { scale: Scale::ONE, limit, ..self });
            }
            let scale = Scale::from_temperature(temperature);
            Ok(Self { scale: scale.ok_or(Error::Temperature(temperature))?, limit, ..self })
        })
    }

    /// What a row becomes whose every entry is `-inf`.
    #[inline]
    #[must_use]
    pub const fn masked(self, masked: Masked) -> Self {
        Self { masked, ..self }
    }

    /// Forces a kernel (see [`kernel`](crate::kernel()) and [`kernels`](crate::kernels)). If this
    /// CPU cannot run it, calls return [`Error::UnavailableKernel`].
    #[inline]
    #[must_use]
    pub const fn kernel(self, kernel: &'static Kernel) -> Self {
        Self { kernel: Some(kernel), ..self }
    }

    /// How many threads a call may use.
    #[inline]
    #[must_use]
    pub const fn threads(mut self, threads: Threads) -> Self {
        self.crew.threads = threads;
        self
    }

    /// Whose threads calls use, instead of the current rayon pool's: a `rayon::ThreadPool`, or
    /// those of the caller's own. How many of them is as [`Softmax::threads`] says. The same bits.
    ///
    /// ```
    /// # #[cfg(feature = "rayon")] {
    /// # use softmax::{MatrixMut, Softmax};
    /// let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    /// let mut x = vec![0.0f32; 1 << 20];
    /// Softmax::new().executor(&pool).softmax_in_place(MatrixMut::new(&mut x, 1024)?)?;
    /// assert_eq!(x[0], 1.0 / 1024.0);
    /// # }
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn executor(mut self, executor: &'a dyn Executor) -> Self {
        self.crew.executor = Some(executor);
        self
    }

    /// What the caches hold, instead of what [`Caches::of_this_machine`] says. Speed depends on it,
    /// results do not: with caches of 0 bytes even a small matrix goes the way of one that is
    /// larger than all caches.
    #[inline]
    #[must_use]
    pub const fn caches(self, caches: Caches) -> Self {
        Self { caches: Some(caches), ..self }
    }

    /// The way that a call takes on `rows` rows of `cols` elements, without padding, and why.
    ///
    /// # Errors
    /// A kernel that cannot run; [`Error::Caches`]; [`Error::Temperature`].
    ///
    /// ```
    /// use softmax::{Op, Regime, Softmax, Threads};
    /// let options = Softmax::new().threads(Threads::Serial);
    /// let plan = options.plan::<f32>(Op::Softmax, 1_000_000, 10, false)?;
    /// assert_eq!((plan.regime(), plan.threads()), (Regime::Tiny, 1));
    /// println!("{plan}");
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn plan<T: Element>(
        &self,
        op: crate::Op,
        rows: usize,
        cols: usize,
        in_place: bool,
    ) -> Result<Plan, Error> {
        self.plan_op::<T>(op.into(), rows, cols, in_place)
    }

    /// As [`Softmax::plan`].
    pub(crate) fn plan_op<T: Element>(
        &self,
        op: Op,
        rows: usize,
        cols: usize,
        in_place: bool,
    ) -> Result<Plan, Error> {
        let shape = Shape::new::<T>(self.at_limit(op)?, rows, cols, in_place);
        self.plan_of::<T>(self.kernel_to_use()?, shape)
    }

    /// The softmax of every row of `x`, into the rows of `y`.
    ///
    /// Error: at most 3 ULP in f32 and f64; in f16 at most 0.53 ULP of the type, in bf16 0.51,
    /// where what is below 2^-126 is 0.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the shapes differ, or a kernel that cannot run.
    pub fn softmax<T: Element>(&self, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        self.run(self.call(Op::Softmax, x, y)?)
    }

    /// [`Softmax::softmax`] of every row, in place. The same bits.
    ///
    /// # Errors
    /// A kernel that cannot run.
    pub fn softmax_in_place<T: Element>(&self, x: MatrixMut<T>) -> Result<(), Error> {
        self.run(self.call_in_place(Op::Softmax, x)?)
    }

    /// The log-softmax of every row of `x`, into the rows of `y`: `scale * x_i - ln(sum_j exp(scale
    /// * x_j))`.
    ///
    /// Error: at most 2 ULP or 1e-7 in f32, 3 ULP or 3e-16 in f64, whichever is larger; in f16 and
    /// bf16 at most 0.51 ULP of the type and 1e-7 on top.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the shapes differ, or a kernel that cannot run.
    pub fn log_softmax<T: Element>(&self, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        self.run(self.call(Op::LogSoftmax, x, y)?)
    }

    /// [`Softmax::log_softmax`] of every row, in place. The same bits.
    ///
    /// # Errors
    /// A kernel that cannot run.
    pub fn log_softmax_in_place<T: Element>(&self, x: MatrixMut<T>) -> Result<(), Error> {
        self.run(self.call_in_place(Op::LogSoftmax, x)?)
    }

    /// The log-sum-exp of every row of `x`, one value per row: `ln(sum_j exp(scale * x_j))`. The
    /// logarithm of an empty row's sum is `-inf`.
    ///
    /// Error: as [`Softmax::log_softmax`].
    ///
    /// # Errors
    /// [`Error::Mismatch`] if `y` has not one element per row, or a kernel that cannot run.
    pub fn logsumexp<T: Element>(&self, x: Matrix<T>, y: &mut [T]) -> Result<(), Error> {
        self.at_limit(Op::LogSumExp)?;
        self.run(Call::logsumexp(x, y, self.scale).map_err(mismatch)?)
    }

    /// An operation from rows to rows.
    ///
    /// # Errors
    /// As the operation's own method.
    #[inline]
    pub(crate) fn map<T: Element>(
        &self,
        op: Op,
        x: Matrix<T>,
        y: MatrixMut<T>,
    ) -> Result<(), Error> {
        self.run(self.call(op, x, y)?)
    }

    /// The call of an operation, as these options define it.
    #[inline(always)]
    pub(crate) fn call<'m, T: Element>(
        &self,
        op: Op,
        x: Matrix<'m, T>,
        y: MatrixMut<'m, T>,
    ) -> Result<Call<'m, T>, Error> {
        Call::new(self.at_limit(op)?, x, y, self.scale, self.masked).map_err(mismatch)
    }

    /// As [`Softmax::call`], in place.
    #[inline(always)]
    pub(crate) fn call_in_place<'m, T: Element>(
        &self,
        op: Op,
        y: MatrixMut<'m, T>,
    ) -> Result<Call<'m, T>, Error> {
        Ok(Call::in_place(self.at_limit(op)?, y, self.scale, self.masked))
    }

    /// Does the work. Inlined, as what it calls for small work: a copy of the views waits until
    /// their parts have been stored, 4 ns each time.
    #[inline(always)]
    pub(crate) fn run<T: Element>(&self, call: Call<T>) -> Result<(), Error> {
        let kernel = self.kernel_to_use()?;
        let shape = Shape::of(&call);
        // Making a plan takes as long as a row of 16.
        let exactly = matches!(self.crew.threads, Threads::Exactly(_));
        if shape.is_small() && self.caches.is_none() && !exactly {
            kernel.run(call);
            return Ok(());
        }
        self.run_planned(kernel, shape, call)
    }

    #[inline(never)]
    fn run_planned<T: Element>(
        &self,
        kernel: Ready,
        shape: Shape,
        call: Call<T>,
    ) -> Result<(), Error> {
        batch::run(&self.crew, &self.plan_of::<T>(kernel, shape)?, call)
    }

    /// What defines the results, if the temperature is no limit.
    pub(crate) fn arithmetic(&self) -> Result<(Scale, Masked), Error> {
        match self.limit {
            Some(limit) => Err(limit.refused()),
            None => Ok((self.scale, self.masked)),
        }
    }

    /// What an operation is at the temperature.
    #[inline]
    fn at_limit(&self, op: Op) -> Result<Op, Error> {
        let Some(limit) = self.limit else { return Ok(op) };
        match (op, limit) {
            (Op::Softmax, Limit::Zero) => Ok(Op::Hardmax(Ties::Share)),
            (Op::LogSoftmax, Limit::Zero) => Ok(Op::LogHardmax),
            (Op::Softmax, Limit::Infinite) => Ok(Op::Uniform),
            (Op::LogSoftmax, Limit::Infinite) => Ok(Op::LogUniform),
            (Op::LogSumExp | Op::Sigmoid | Op::LogSigmoid, _) => Err(limit.refused()),
            (op, _) => Ok(op),
        }
    }

    /// Without scale and temperature.
    pub(crate) const fn plain(self) -> Self {
        Self { scale: Scale::ONE, limit: None, ..self }
    }

    pub(crate) fn crew(&self) -> Crew<'a> {
        self.crew
    }

    #[inline]
    pub(crate) fn kernel_to_use(&self) -> Result<Ready, Error> {
        match self.kernel {
            Some(kernel) => dispatch::ready(kernel),
            None => dispatch::ready_default(),
        }
    }

    pub(crate) fn plan_of<T: Element>(&self, kernel: Ready, shape: Shape) -> Result<Plan, Error> {
        Plan::new(kernel, kernel.pieces::<T>(shape.op).is_some(), &self.crew, self.caches, shape)
    }
}

/// Input and output do not fit.
#[cold]
fn mismatch([input, output]: [(usize, usize); 2]) -> Error {
    Error::Mismatch { input, output }
}
