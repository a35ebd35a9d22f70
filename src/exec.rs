//! Where a call runs.

use softmax_kernels::{Call, Element, Kernel, Op as Work, Ready};

use crate::executor::Crew;
use crate::plan::Job;
use crate::{Caches, Error, Executor, Op, Plan, Shape, Threads, batch, dispatch};

/// Where calls run: by which kernel, on whose threads and how many of them, with caches of which
/// sizes. The bits of results never depend on it. Every operation takes one: `.exec(exec)`.
///
/// ```
/// use softmax::{Exec, Matrix, MatrixMut, Softmax, Threads};
///
/// let exec = Exec::new().threads(Threads::Serial).kernel(softmax::kernel("portable")?);
/// let mut probs = [0.0f32; 2];
/// let logits = Matrix::new(&[1.0, 1.0], 2)?;
/// Softmax::new().exec(exec).softmax(logits, MatrixMut::new(&mut probs, 2)?)?;
/// assert_eq!(probs, [0.5, 0.5]);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Exec<'a> {
    pub(crate) kernel: Option<&'static Kernel>,
    pub(crate) crew: Crew<'a>,
    pub(crate) caches: Option<Caches>,
}

impl Default for Exec<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Exec<'a> {
    /// The best kernel of this CPU, as many threads as pay, the caches of this machine.
    #[inline]
    pub const fn new() -> Self {
        let crew = Crew { threads: Threads::Auto, executor: None };
        Self { kernel: None, crew, caches: None }
    }

    /// Forces a kernel (see [`kernel`](crate::kernel()) and [`kernels`](crate::kernels)). If this
    /// CPU cannot run it, calls return [`Error::UnavailableKernel`].
    #[inline]
    #[must_use]
    pub const fn kernel(mut self, kernel: &'static Kernel) -> Self {
        self.kernel = Some(kernel);
        self
    }

    /// How many threads a call may use.
    #[inline]
    #[must_use]
    pub const fn threads(mut self, threads: Threads) -> Self {
        self.crew.threads = threads;
        self
    }

    /// Whose threads calls use, instead of the current rayon pool's: a `rayon::ThreadPool`, or
    /// those of the caller's own. How many of them is as [`Exec::threads`] says.
    ///
    /// ```
    /// # #[cfg(feature = "rayon")] {
    /// # use softmax::{Exec, MatrixMut, Softmax};
    /// let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    /// let mut x = vec![0.0f32; 1 << 20];
    /// let exec = Exec::new().executor(&pool);
    /// Softmax::new().exec(exec).softmax_in_place(MatrixMut::new(&mut x, 1024)?)?;
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

    /// What the caches hold, instead of what [`Caches::of_this_machine`] says. Speed depends on it:
    /// with caches of 0 bytes even a small matrix goes the way of one that is larger than all
    /// caches.
    #[inline]
    #[must_use]
    pub const fn caches(mut self, caches: Caches) -> Self {
        self.caches = Some(caches);
        self
    }

    /// The way that a call of an operation takes on a matrix of a shape, and why. (At temperature 0
    /// or infinity softmax and log-softmax go the way of [`Op::Hardmax`].)
    ///
    /// # Errors
    /// A kernel that cannot run; [`Error::Caches`].
    ///
    /// ```
    /// use softmax::{Exec, Op, Regime, Shape, Threads};
    /// let exec = Exec::new().threads(Threads::Serial);
    /// let plan = exec.plan::<f32>(Op::Softmax, Shape::new(1_000_000, 10))?;
    /// assert_eq!((plan.regime(), plan.threads()), (Regime::Tiny, 1));
    /// println!("{plan}");
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn plan<T: Element>(&self, op: Op, shape: Shape) -> Result<Plan, Error> {
        self.plan_of::<T>(self.ready()?, Job::new::<T>(op.into(), shape))
    }

    /// As [`Exec::plan`], of the operations that there are within.
    pub(crate) fn plan_work<T: Element>(&self, work: Work, shape: Shape) -> Result<Plan, Error> {
        self.plan_of::<T>(self.ready()?, Job::new::<T>(work, shape))
    }

    pub(crate) fn plan_of<T: Element>(&self, kernel: Ready, job: Job) -> Result<Plan, Error> {
        Plan::new(kernel, kernel.pieces::<T>(job.op).is_some(), &self.crew, self.caches, job)
    }

    /// Does the work. Inlined, as what it calls for small work: a copy of the views waits until
    /// their parts have been stored, 4 ns each time.
    #[inline(always)]
    pub(crate) fn run<T: Element>(&self, call: Call<T>) -> Result<(), Error> {
        let kernel = self.ready()?;
        let job = Job::of(&call);
        // Making a plan takes as long as a row of 16.
        let exactly = matches!(self.crew.threads, Threads::Exactly(_));
        if job.is_small() && self.caches.is_none() && !exactly {
            kernel.run(call);
            return Ok(());
        }
        self.run_planned(kernel, job, call)
    }

    #[inline(never)]
    fn run_planned<T: Element>(&self, kernel: Ready, job: Job, call: Call<T>) -> Result<(), Error> {
        batch::run(&self.crew, &self.plan_of::<T>(kernel, job)?, call)
    }

    pub(crate) fn crew(&self) -> &Crew<'a> {
        &self.crew
    }

    /// The kernel to use.
    #[inline]
    pub(crate) fn ready(&self) -> Result<Ready, Error> {
        match self.kernel {
            Some(kernel) => dispatch::ready(kernel),
            None => dispatch::ready_default(),
        }
    }
}

/// The setter that every operation has.
macro_rules! exec_setter {
    () => {
        /// Where calls run.
        #[inline]
        #[must_use]
        pub const fn exec(mut self, exec: crate::Exec<'a>) -> Self {
            self.exec = exec;
            self
        }
    };
}
pub(crate) use exec_setter;
