//! Which way a call takes: decided here, before anything is computed, from sizes alone.

use std::fmt;

use softmax_kernels::{
    BLOCK, Call, Element, Kernel, Matrix, MatrixMut, Op as Work, ROWS_AT_LEAST, Ready, Store, TINY,
    Ties,
};

use crate::executor::Crew;
use crate::{Caches, Error, Threads, threads};

/// An operation on rows, for [`Exec::plan`](crate::Exec::plan).
///
/// ```
/// use softmax::{Exec, Op, Shape, Ties};
/// for op in [Op::Softmax, Op::LogSumExp, Op::Hardmax(Ties::First)] {
///     println!("{op:?}: {}", Exec::new().plan::<f32>(op, Shape::new(10, 1000))?);
/// }
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// `exp(a x_i) / sum_j exp(a x_j)`, `a` being the scale.
    Softmax,
    /// `a x_i - ln(sum_j exp(a x_j))`.
    LogSoftmax,
    /// `ln(sum_j exp(a x_j))`, one value per row.
    LogSumExp,
    /// `1 / (1 + exp(-a x_i))`.
    Sigmoid,
    /// `-ln(1 + exp(-a x_i))`.
    LogSigmoid,
    /// The largest element of each row, or each of them, has all the mass.
    Hardmax(Ties),
}

impl From<Op> for Work {
    #[inline]
    fn from(op: Op) -> Self {
        match op {
            Op::Softmax => Self::Softmax,
            Op::LogSoftmax => Self::LogSoftmax,
            Op::LogSumExp => Self::LogSumExp,
            Op::Sigmoid => Self::Sigmoid,
            Op::LogSigmoid => Self::LogSigmoid,
            Op::Hardmax(ties) => Self::Hardmax(ties),
        }
    }
}

/// How rows are worked on. The bits of the results are the same in all regimes.
///
/// ```
/// use softmax::{Exec, Op, Regime, Shape};
/// let plan = Exec::new().plan::<f32>(Op::Softmax, Shape::new(1000, 10))?;
/// assert_eq!(plan.regime(), Regime::Tiny);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Regime {
    /// Softmax of many rows of up to 64 elements without padding between them: groups of rows at
    /// once.
    Tiny,
    /// A row after the other: the exponentials of one are computed while the one before is
    /// finished.
    Rows,
    /// Rows larger than a core's cache, or shared by threads: each in pieces, which are read twice.
    Pieces,
}

/// The way a call takes, and why: what [`Exec::plan`](crate::Exec::plan) tells. Printed, it
/// is an explanation for people.
///
/// ```
/// use softmax::{Exec, Op, Shape};
/// let plan = Exec::new().plan::<f32>(Op::Softmax, Shape::new(10, 1000))?;
/// assert!(plan.to_string().contains(plan.kernel().name()));
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub(crate) kernel: Ready,
    pub(crate) regime: Regime,
    pub(crate) store: Store,
    pub(crate) parts: usize,
    pub(crate) threads: usize,
    caches: Caches,
    job: Job,
}

/// The shape of the matrices of a call, for plans and sizes of scratch memory: that of a view (a
/// [`Matrix`] or [`MatrixMut`], by `From`), or rows and columns.
///
/// ```
/// use softmax::{Exec, Matrix, Op, Shape};
/// let x = Matrix::new(&[0.0f32; 12], 4)?;
/// let bytes = Exec::new().scratch_size::<f32>(Op::Softmax, Shape::from(&x))?;
/// assert_eq!(bytes, Exec::new().scratch_size::<f32>(Op::Softmax, Shape::new(3, 4))?);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Whether nothing lies between the rows.
    dense: bool,
    /// Whether the output is the input.
    in_place: bool,
}

impl Shape {
    /// So many rows of so many elements, without padding, to rows elsewhere.
    ///
    /// ```
    /// use softmax::{Matrix, Shape};
    /// assert_eq!(Shape::new(3, 4), Shape::from(&Matrix::new(&[0.0f32; 12], 4)?));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub const fn new(rows: usize, cols: usize) -> Self {
        Self { rows, cols, dense: true, in_place: false }
    }

    /// In place: the output is the input.
    ///
    /// ```
    /// use softmax::Shape;
    /// assert_ne!(Shape::new(3, 4).in_place(), Shape::new(3, 4));
    /// ```
    #[must_use]
    pub const fn in_place(mut self) -> Self {
        self.in_place = true;
        self
    }

    #[must_use]
    pub(crate) const fn in_place_if(mut self, in_place: bool) -> Self {
        self.in_place = in_place;
        self
    }

    fn elements(&self) -> usize {
        self.rows.saturating_mul(self.cols)
    }
}

macro_rules! shape_of {
    ($($view:ident),*) => {
        $(impl<T> From<&$view<'_, T>> for Shape {
            fn from(view: &$view<'_, T>) -> Self {
                let (rows, cols) = (view.rows(), view.cols());
                let dense = rows <= 1 || view.stride() == cols;
                Self { rows, cols, dense, in_place: false }
            }
        })*
    };
}

shape_of!(Matrix, MatrixMut);

/// What is decided by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub shape: Shape,
    /// Bytes of an element in memory.
    pub size: usize,
    /// Bytes of an element as it is computed with.
    pub computed: usize,
    /// Whether the rows are columns in memory.
    pub columns: bool,
    pub op: Work,
}

impl Job {
    pub fn new<T: Element>(op: Work, shape: Shape) -> Self {
        let size = size_of::<T>();
        let computed = if T::IS_ARITHMETIC { size } else { 4 };
        Self { shape, size, computed, columns: false, op }
    }

    /// Of a call.
    #[inline(always)]
    pub fn of<T: Element>(call: &Call<T>) -> Self {
        let (rows, cols) = (call.rows(), call.cols());
        let (dense, in_place) = (call.is_dense(), call.is_in_place());
        Self::new::<T>(call.op(), Shape { rows, cols, dense, in_place })
    }

    /// Whether the way is clear from this alone: on the calling thread, through the caches,
    /// whatever their sizes.
    pub fn is_small(&self) -> bool {
        self.shape.elements().saturating_mul(self.size + self.computed) <= SMALL
    }

    /// Bytes of output.
    fn output(&self) -> usize {
        let elements =
            if self.op == Work::LogSumExp { self.shape.rows } else { self.shape.elements() };
        elements.saturating_mul(self.size)
    }
}

/// Elements below which a part of a batch is not worth a thread of its own: some 10 microseconds of
/// work.
const GRAIN: usize = 1 << 15;

/// Matrices and their exponentials up to this many bytes fit any cache that counts: the sizes need
/// not be looked up.
const SMALL: usize = 64 << 10;

impl Plan {
    pub(crate) fn new(
        kernel: Ready,
        has_pieces: bool,
        crew: &Crew,
        caches: Option<Caches>,
        job: Job,
    ) -> Result<Self, Error> {
        let Shape { rows, cols, dense, in_place } = job.shape;
        let caches = match caches {
            Some(caches) => caches,
            None if job.is_small() => Caches::new(SMALL, SMALL),
            None => Caches::of_this_machine()?,
        };
        // A row and its exponentials are to stay in the core's cache.
        let huge = cols.saturating_mul(job.size + job.computed) > caches.core();
        let grain = if matches!(crew.threads, Threads::Exactly(_)) { 1 } else { GRAIN };
        let threads = threads::available(crew, job.shape.elements());
        let by_size = job.shape.elements() / grain;
        let sums = matches!(job.op, Work::Softmax | Work::LogSoftmax | Work::LogSumExp);
        let in_pieces = has_pieces && sums && cols > BLOCK;
        let (regime, parts) = if in_pieces && (huge || (threads > 1 && rows < threads)) {
            // Of each row.
            (Regime::Pieces, (cols / grain.max(BLOCK)).min(threads))
        } else {
            let tiny = has_pieces
                && job.op == Work::Softmax
                && dense
                && cols <= TINY
                && rows >= ROWS_AT_LEAST;
            // A few parts per thread, so that one slow thread does not hold up the rest.
            let parts =
                if threads > 1 { by_size.min(rows).min(threads.saturating_mul(4)) } else { 1 };
            (if tiny { Regime::Tiny } else { Regime::Rows }, parts)
        };
        let parts = parts.max(1);
        // The scalar reference knows one way only.
        let large =
            has_pieces && !in_place && job.op != Work::LogSumExp && job.output() > caches.last();
        // Zen 5: columns past the caches take half the time, maps of elements 0.85 to 1.2 of it.
        let sweeps = regime != Regime::Tiny && !job.columns && sums;
        let store = Store::of(large, !sweeps);
        Ok(Self { kernel, regime, store, parts, threads: threads.min(parts), caches, job })
    }

    /// The kernel.
    ///
    /// ```
    /// use softmax::{Exec, Op, Shape};
    /// let plan = Exec::new().plan::<f32>(Op::Softmax, Shape::new(10, 1000))?;
    /// assert!(plan.kernel().is_available());
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn kernel(&self) -> &'static Kernel {
        self.kernel.kernel()
    }

    /// How rows are worked on.
    ///
    /// ```
    /// use softmax::{Exec, Op, Regime, Shape, Threads};
    /// let exec = Exec::new().threads(Threads::Serial);
    /// let plan = exec.plan::<f32>(Op::Softmax, Shape::new(10, 1000))?;
    /// assert_eq!(plan.regime(), Regime::Rows);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn regime(&self) -> Regime {
        self.regime
    }

    /// Whether the output is written past the caches, which would not hold it: by CPUs that have
    /// such stores and are faster with them.
    ///
    /// ```
    /// use softmax::{Exec, Op, Shape};
    /// // 40 KB fit any cache.
    /// assert!(!Exec::new().plan::<f32>(Op::Softmax, Shape::new(10, 1000))?.streams());
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn streams(&self) -> bool {
        self.store.is_past()
    }

    /// Whether exponentials of rows in pieces are kept in the output, instead of being computed
    /// twice: where it holds them until they are read again.
    pub(crate) fn keeps(&self) -> bool {
        let Job { op, shape, size, .. } = self.job;
        let row = || shape.cols.saturating_mul(size);
        op == Work::Softmax
            && (self.store.is_cached() || !self.store.is_past() && row() <= self.caches.last())
    }

    /// At most how many threads work at the same time.
    ///
    /// ```
    /// use softmax::{Exec, Op, Shape};
    /// // Too little to be shared.
    /// assert_eq!(Exec::new().plan::<f32>(Op::Softmax, Shape::new(10, 1000))?.threads(), 1);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn threads(&self) -> usize {
        self.threads
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Job { shape, size, computed, op, .. } = self.job;
        let Shape { rows, cols, in_place, .. } = shape;
        let row = cols.saturating_mul(size + computed);
        let (core, last) = (self.caches.core(), self.caches.last());
        writeln!(f, "kernel: {}", self.kernel.name())?;
        match self.regime {
            Regime::Tiny => {
                writeln!(f, "rows: in groups, because {rows} rows of {cols} are short")?
            }
            Regime::Rows => writeln!(f, "rows: one after the other")?,
            Regime::Pieces if row > core => writeln!(
                f,
                "rows: in pieces read twice, because a row and its exponentials take {}, more than a core's cache of {}",
                Bytes(row),
                Bytes(core)
            )?,
            Regime::Pieces => {
                writeln!(
                    f,
                    "rows: each in pieces, because there are more threads than the {rows} rows"
                )?;
            }
        }
        let output = Bytes(self.job.output());
        match (op, in_place, self.store.is_past()) {
            (Work::LogSumExp, ..) => writeln!(f, "output: one value per row")?,
            (_, true, _) => writeln!(f, "output: in place")?,
            (_, _, false) if !self.store.is_cached() => writeln!(
                f,
                "output: through the caches, as this CPU does it best, though {output} are more than the {} to count on",
                Bytes(last)
            )?,
            (_, _, true) => writeln!(
                f,
                "output: past the caches{}, because {output} are more than the {} to count on",
                if self.store.is_in_bursts() { ", in bursts" } else { "" },
                Bytes(last)
            )?,
            (_, _, false) => writeln!(f, "output: through the caches, which hold its {output}")?,
        }
        match self.threads {
            1 => write!(f, "threads: 1"),
            n => write!(f, "threads: {n}, in {} parts of at least {GRAIN} elements", self.parts),
        }
    }
}

/// A size for people.
struct Bytes(usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.into_iter().find(|&(shift, _)| self.0 >> shift > 0) {
            Some((shift, unit)) => {
                write!(f, "{:.1} {unit}", self.0 as f64 / (1u64 << shift) as f64)
            }
            None => write!(f, "{} bytes", self.0),
        }
    }
}
