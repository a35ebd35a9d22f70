//! Kernel, threads and caches of a call.

use softmax_kernels::{Call, Element, Kernel, Op as Work, RaggedCall, Ready};

use crate::executor::Crew;
use crate::plan::Job;
use crate::{Caches, Error, Executor, Op, Plan, Shape, Threads, batch, dispatch};

/// Where calls run: with which kernel, on whose threads and how many of them, and for which sizes
/// of caches. The bits of results never depend on it. Every operation accepts one: `.exec(exec)`.
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
#[derive(Clone, Copy, Debug, Default)]
pub struct Exec<'a> {
    pub(crate) kernel: Option<&'static Kernel>,
    pub(crate) crew: Crew<'a>,
    pub(crate) caches: Option<Caches>,
}

impl<'a> Exec<'a> {
    /// The defaults: the best kernel of this CPU, as many threads as are worthwhile, the caches of
    /// this machine.
    ///
    /// ```
    /// use softmax::{Exec, Op, Shape};
    /// let plan = Exec::new().plan::<f32>(Op::Softmax, Shape::new(10, 1000))?;
    /// assert_eq!(plan.kernel().name(), softmax::default_kernel()?.name());
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    pub const fn new() -> Self {
        let crew = Crew { threads: Threads::Auto, executor: None };
        Self { kernel: None, crew, caches: None }
    }

    /// Forces a kernel (see [`kernel`](crate::kernel()) and [`kernels`](crate::kernels)). If this
    /// CPU cannot run it, calls return [`Error::UnavailableKernel`].
    ///
    /// ```
    /// use softmax::{Exec, Op, Shape};
    /// let exec = Exec::new().kernel(softmax::kernel("portable")?);
    /// let plan = exec.plan::<f32>(Op::Softmax, Shape::new(10, 1000))?;
    /// assert_eq!(plan.kernel().name(), "portable");
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn kernel(mut self, kernel: &'static Kernel) -> Self {
        self.kernel = Some(kernel);
        self
    }

    /// Sets how many threads a call may use.
    ///
    /// ```
    /// use softmax::{Exec, Op, Shape, Threads};
    /// let exec = Exec::new().threads(Threads::Serial);
    /// assert_eq!(exec.plan::<f32>(Op::Softmax, Shape::new(10_000, 1000))?.threads(), 1);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn threads(mut self, threads: Threads) -> Self {
        self.crew.threads = threads;
        self
    }

    /// Sets the threads that calls use instead of the current rayon pool: a `rayon::ThreadPool`, or
    /// threads of the caller. [`Exec::threads`] still sets how many.
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

    /// Sets the sizes of the caches, instead of [`Caches::of_this_machine`]. They only affect
    /// speed: with caches of 0 bytes even a small matrix is computed like one that is larger than
    /// all caches.
    ///
    /// ```
    /// use softmax::{Caches, Exec, Op, Regime, Shape, Threads};
    /// // A row that is larger than a core's cache.
    /// let exec = Exec::new().threads(Threads::Serial).caches(Caches::new(1 << 12, 1 << 20));
    /// let plan = exec.plan::<f32>(Op::Softmax, Shape::new(1, 100_000))?;
    /// assert_eq!(plan.regime(), Regime::Pieces);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn caches(mut self, caches: Caches) -> Self {
        self.caches = Some(caches);
        self
    }

    /// How an operation is computed for a matrix of a shape, and why. (At temperature 0 or infinity
    /// softmax and log-softmax are computed like [`Op::Hardmax`].)
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

    /// The same as [`Exec::plan`], for the internal operations.
    pub(crate) fn plan_work<T: Element>(&self, work: Work, shape: Shape) -> Result<Plan, Error> {
        self.plan_of::<T>(self.ready()?, Job::new::<T>(work, shape))
    }

    pub(crate) fn plan_of<T: Element>(&self, kernel: Ready, job: Job) -> Result<Plan, Error> {
        Plan::new(kernel, kernel.pieces::<T>(job.op).is_some(), &self.crew, self.caches, job)
    }

    /// Does the work. It is inlined, like what it calls for small work, because copying the views
    /// would wait until their fields have been stored, 4 ns each time.
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

    /// Does the work on rows of different lengths.
    pub(crate) fn run_ragged<T: Element>(&self, call: RaggedCall<T>) -> Result<(), Error> {
        let plan = self.plan_ragged::<T>(call.op(), call.rows(), call.elements())?;
        let share = |part: RaggedCall<T>| {
            let parts = plan.parts.min(part.rows());
            self.crew.share(
                plan.threads,
                parts,
                part,
                &|part: RaggedCall<T>, at, of| {
                    let at = part.part(at, of);
                    part.split_rows(at)
                },
                &|part| plan.kernel.run_ragged(part),
                &|(), ()| (),
            );
        };
        let mut rest = call.storing(plan.store);
        // Rows that are worth it are computed by all threads, or in pieces that a cache holds.
        while let Some(row) = rest.first_above(plan.longest()) {
            let (before, others) = rest.split_rows(row);
            if row > 0 {
                share(before);
            }
            let (mut long, others) = others.split_rows(1);
            self.run(long.call_of_row(0))?;
            rest = others;
        }
        if rest.rows() > 0 {
            share(rest);
        }
        Ok(())
    }

    /// The plan of a call on rows of different lengths, of so many elements together.
    pub(crate) fn plan_ragged<T: Element>(
        &self,
        work: Work,
        rows: usize,
        elements: usize,
    ) -> Result<Plan, Error> {
        let shape = Shape::new(rows, elements.div_ceil(rows.max(1)));
        let job = Job { ragged: true, ..Job::new::<T>(work, shape) };
        self.plan_of::<T>(self.ready()?, job)
    }

    /// The same on the calling thread alone.
    pub(crate) fn serial(&self) -> Self {
        Self { crew: Crew { threads: Threads::Serial, executor: None }, ..*self }
    }

    pub(crate) fn crew(&self) -> &Crew<'a> {
        &self.crew
    }

    /// The kernel that calls use.
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
        /// Sets where calls run.
        ///
        /// ```
        /// use softmax::{Exec, MatrixMut, Softmax, Threads};
        /// let exec = Exec::new().threads(Threads::Serial).kernel(softmax::kernel("portable")?);
        /// let mut x = [0.0f32; 4];
        /// Softmax::new().exec(exec).softmax_in_place(MatrixMut::new(&mut x, 4)?)?;
        /// assert_eq!(x, [0.25; 4]);
        /// # Ok::<(), softmax::Error>(())
        /// ```
        #[inline]
        #[must_use]
        pub const fn exec(mut self, exec: crate::Exec<'a>) -> Self {
            self.exec = exec;
            self
        }
    };
}
pub(crate) use exec_setter;
