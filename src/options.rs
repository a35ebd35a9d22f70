//! Everything that can be chosen about a call.

use std::num::NonZeroUsize;

use softmax_kernels::{Element, Kernel, Masked, Matrix, MatrixMut, Op, Scale};

use crate::batch::{Job, Work};
use crate::plan::Shape;
use crate::{Caches, Error, Plan, dispatch};

/// How many threads a call may use. Without the feature `rayon` every call is serial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// As many of the current rayon pool's threads as pay for the amount of work. A call from within
    /// `pool.install(..)` uses that pool, any other the global one; small calls start none.
    #[default]
    Auto,
    /// The calling thread alone.
    Serial,
    /// As `Auto`, but no more than this many at the same time.
    AtMost(NonZeroUsize),
    /// This many of the current pool's threads, however small the call is: for those who know that their threads are awake.
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
pub struct Softmax {
    scale: Scale,
    masked: Masked,
    kernel: Option<&'static Kernel>,
    threads: Threads,
    caches: Option<Caches>,
}

impl Default for Softmax {
    fn default() -> Self {
        Self::new()
    }
}

impl Softmax {
    /// Scale 1, NaN for fully masked rows, the best kernel, as many threads as pay.
    pub const fn new() -> Self {
        Self {
            scale: Scale::ONE,
            masked: Masked::Nan,
            kernel: None,
            threads: Threads::Auto,
            caches: None,
        }
    }

    /// Multiplies every input by `scale`: `exp(scale * x_i) / sum_j exp(scale * x_j)`. Costs nothing per element
    /// and no accuracy: the product is never rounded.
    ///
    /// # Errors
    /// [`Error::Scale`] unless `2^-60 <= scale <= 2^60`.
    pub fn scale(self, scale: f64) -> Result<Self, Error> {
        let scale = Scale::new(scale).ok_or(Error::Scale(scale))?;
        Ok(Self { scale, ..self })
    }

    /// Divides every input by `temperature`: the Boltzmann distribution. As [`Softmax::scale`] of
    /// `1 / temperature`, but without rounding that quotient; the later of the two calls counts.
    ///
    /// # Errors
    /// [`Error::Temperature`] unless `2^-60 <= temperature <= 2^60`. Temperature 0 is a maximum, not
    /// a softmax.
    pub fn temperature(self, temperature: f64) -> Result<Self, Error> {
        let scale = Scale::from_temperature(temperature).ok_or(Error::Temperature(temperature))?;
        Ok(Self { scale, ..self })
    }

    /// What a row becomes whose every entry is `-inf`.
    #[must_use]
    pub const fn masked(self, masked: Masked) -> Self {
        Self { masked, ..self }
    }

    /// Forces a kernel (see [`kernel`](crate::kernel()) and [`kernels`](crate::kernels)). If this CPU cannot run it, calls return
    /// [`Error::UnavailableKernel`].
    #[must_use]
    pub const fn kernel(self, kernel: &'static Kernel) -> Self {
        Self { kernel: Some(kernel), ..self }
    }

    /// How many threads a call may use.
    #[must_use]
    pub const fn threads(self, threads: Threads) -> Self {
        Self { threads, ..self }
    }

    /// What the caches hold, instead of what [`Caches::of_this_machine`] says. Speed depends on it, results do not:
    /// with caches of 0 bytes even a small matrix goes the way of one that is larger than all caches.
    #[must_use]
    pub const fn caches(self, caches: Caches) -> Self {
        Self { caches: Some(caches), ..self }
    }

    /// The way that a call takes on `rows` rows of `cols` elements, without padding, and why.
    ///
    /// # Errors
    /// A kernel that cannot run; [`Error::Caches`].
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
        op: Op,
        rows: usize,
        cols: usize,
        in_place: bool,
    ) -> Result<Plan, Error> {
        self.plan_of::<T>(self.kernel_to_use()?, Shape::new::<T>(op, rows, cols, in_place))
    }

    /// The softmax of every row of `x`, into the rows of `y`.
    ///
    /// Error: at most 3 ULP in f32 and f64; in f16 and bf16 an f32 result within that bound is rounded once,
    /// to at most 0.51 ULP of the type.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the shapes differ, or a kernel that cannot run.
    pub fn softmax<T: Element>(&self, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        self.map(Op::Softmax, x, y)
    }

    /// [`Softmax::softmax`] of every row, in place. The same bits.
    ///
    /// # Errors
    /// A kernel that cannot run.
    pub fn softmax_in_place<T: Element>(&self, x: MatrixMut<T>) -> Result<(), Error> {
        self.run(Op::Softmax, Work::InPlace(x))
    }

    /// The log-softmax of every row of `x`, into the rows of `y`: `scale * x_i - ln(sum_j exp(scale * x_j))`.
    ///
    /// Error: at most 2 ULP or 1e-7, whichever is larger, in f32; in f64 at most 3 ULP or 3e-16.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the shapes differ, or a kernel that cannot run.
    pub fn log_softmax<T: Element>(&self, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        self.map(Op::LogSoftmax, x, y)
    }

    /// [`Softmax::log_softmax`] of every row, in place. The same bits.
    ///
    /// # Errors
    /// A kernel that cannot run.
    pub fn log_softmax_in_place<T: Element>(&self, x: MatrixMut<T>) -> Result<(), Error> {
        self.run(Op::LogSoftmax, Work::InPlace(x))
    }

    /// The log-sum-exp of every row of `x`, one value per row: `ln(sum_j exp(scale * x_j))`. The logarithm of an empty
    /// row's sum is `-inf`.
    ///
    /// Error: as [`Softmax::log_softmax`].
    ///
    /// # Errors
    /// [`Error::Mismatch`] if `y` has not one element per row, or a kernel that cannot run.
    pub fn logsumexp<T: Element>(&self, x: Matrix<T>, y: &mut [T]) -> Result<(), Error> {
        if x.rows() != y.len() {
            return Err(Error::Mismatch { input: (x.rows(), x.cols()), output: (y.len(), 1) });
        }
        self.run(Op::LogSumExp, Work::PerRow(x, y))
    }

    fn map<T: Element>(&self, op: Op, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        let (input, output) = ((x.rows(), x.cols()), (y.rows(), y.cols()));
        if input != output {
            return Err(Error::Mismatch { input, output });
        }
        self.run(op, Work::Map(x, y))
    }

    fn run<T: Element>(&self, op: Op, work: Work<T>) -> Result<(), Error> {
        let kernel = self.kernel_to_use()?;
        let shape = work.shape(op);
        // Making a plan takes as long as a row of 16.
        if shape.is_small() && self.caches.is_none() && !matches!(self.threads, Threads::Exactly(_))
        {
            work.run(kernel, op, self.scale, self.masked, false);
            return Ok(());
        }
        let plan = self.plan_of::<T>(kernel, shape)?;
        Job { op, scale: self.scale, masked: self.masked, plan }.run(work);
        Ok(())
    }

    /// What defines the results.
    pub(crate) fn arithmetic(&self) -> (Scale, Masked) {
        (self.scale, self.masked)
    }

    pub(crate) fn kernel_to_use(&self) -> Result<&'static Kernel, Error> {
        match self.kernel {
            Some(kernel) => dispatch::available(kernel),
            None => dispatch::default_kernel(),
        }
    }

    fn plan_of<T: Element>(&self, kernel: &'static Kernel, shape: Shape) -> Result<Plan, Error> {
        Plan::new(kernel, kernel.pieces::<T>().is_some(), self.threads, self.caches, shape)
    }
}
