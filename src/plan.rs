//! Decides how a call is computed, before anything else, from sizes only.

use std::fmt;

use softmax_kernels::{
    BLOCK, Call, Element, Kernel, Matrix, MatrixMut, Op as Work, ROWS_AT_LEAST, Ready, Store, TINY,
    Ties, shortest_row,
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
    /// `exp(a x_i) / sum_j exp(a x_j)`, where `a` is the scale.
    Softmax,
    /// `a x_i - ln(sum_j exp(a x_j))`.
    LogSoftmax,
    /// `ln(sum_j exp(a x_j))`, one value per row.
    LogSumExp,
    /// `1 / (1 + exp(-a x_i))`.
    Sigmoid,
    /// `-ln(1 + exp(-a x_i))`.
    LogSigmoid,
    /// The largest element of each row, or all that are equal to it, have all the mass.
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

/// How rows are computed. The bits of the results are the same in all regimes.
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
    /// Many rows of up to 64 elements without padding, for softmax: several rows are computed at
    /// once.
    Tiny,
    /// One row after the other: the exponentials of a row are computed while the row before it is
    /// finished.
    Rows,
    /// Rows that are larger than a core's cache or shared by threads: each row is in pieces, which
    /// are read twice.
    Pieces,
}

/// How a call is computed, and why: the result of [`Exec::plan`](crate::Exec::plan). Its `Display`
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
    /// Whether rows are too short to be written past the caches.
    short: bool,
    pub(crate) parts: usize,
    pub(crate) threads: usize,
    caches: Caches,
    job: Job,
}

/// The shape of the matrices of a call, for plans and sizes of scratch memory. It is made from a
/// view (a [`Matrix`] or [`MatrixMut`], by `From`), or from rows and columns.
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
    /// Whether there is no padding between the rows.
    dense: bool,
    /// Whether the output overwrites the input.
    in_place: bool,
}

impl Shape {
    /// `rows` rows of `cols` elements, without padding; the output is elsewhere.
    ///
    /// ```
    /// use softmax::{Matrix, Shape};
    /// assert_eq!(Shape::new(3, 4), Shape::from(&Matrix::new(&[0.0f32; 12], 4)?));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub const fn new(rows: usize, cols: usize) -> Self {
        Self { rows, cols, dense: true, in_place: false }
    }

    /// The same in place: the output overwrites the input.
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

/// The properties of a call that decide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub shape: Shape,
    /// Bytes of an element in memory.
    pub size: usize,
    /// Bytes of an element in the arithmetic type.
    pub computed: usize,
    /// Whether the rows are columns in memory.
    pub columns: bool,
    /// Whether rows differ in length; their columns are a mean.
    pub ragged: bool,
    pub op: Work,
}

impl Job {
    pub fn new<T: Element>(op: Work, shape: Shape) -> Self {
        let size = size_of::<T>();
        let computed = if T::IS_ARITHMETIC { size } else { 4 };
        Self { shape, size, computed, columns: false, ragged: false, op }
    }

    /// The properties of a call.
    #[inline(always)]
    pub fn of<T: Element>(call: &Call<T>) -> Self {
        let (rows, cols) = (call.rows(), call.cols());
        let (dense, in_place) = (call.is_dense(), call.is_in_place());
        Self::new::<T>(call.op(), Shape { rows, cols, dense, in_place })
    }

    /// Whether the call is so small that it runs on the calling thread and through the caches,
    /// whatever their sizes.
    pub fn is_small(&self) -> bool {
        self.shape.elements().saturating_mul(self.size + self.computed) <= SMALL
    }

    /// Whether the output is elsewhere and the caches cannot hold it.
    fn is_large(&self, caches: Caches) -> bool {
        !self.shape.in_place && !self.op.is_one_value() && self.output() > caches.last()
    }

    /// The size of the output in bytes.
    fn output(&self) -> usize {
        let elements = if self.op.is_one_value() { self.shape.rows } else { self.shape.elements() };
        elements.saturating_mul(self.size)
    }
}

/// A thread gets at least this many elements: some 10 microseconds of work.
const GRAIN: usize = 1 << 15;

/// Matrices that need at most this many bytes with their exponentials fit any cache, so the sizes
/// of the caches need not be known.
const SMALL: usize = 64 << 10;

/// The elements of the longest row that stays in the core's cache with its exponentials.
fn longest(job: &Job, caches: Caches) -> usize {
    caches.core() / (job.size + job.computed)
}

impl Plan {
    pub(crate) fn new(
        kernel: Ready,
        has_pieces: bool,
        crew: &Crew,
        caches: Option<Caches>,
        job: Job,
    ) -> Result<Self, Error> {
        let Shape { rows, cols, dense, .. } = job.shape;
        let caches = match caches {
            Some(caches) => caches,
            None if job.is_small() => Caches::new(SMALL, SMALL),
            None => Caches::of_this_machine()?,
        };
        // A row and its exponentials should stay in the core's cache.
        let huge = cols > longest(&job, caches);
        let grain = if matches!(crew.threads, Threads::Exactly(_)) { 1 } else { GRAIN };
        let threads = threads::available(crew, job.shape.elements());
        let by_size = job.shape.elements() / grain;
        let sums = matches!(job.op, Work::Softmax | Work::LogSoftmax | Work::LogSumExp);
        let in_pieces = has_pieces && sums && cols > BLOCK && !job.ragged;
        let (regime, parts) = if in_pieces && (huge || (threads > 1 && rows < threads)) {
            // The chunks of each row.
            (Regime::Pieces, (cols / grain.max(BLOCK)).min(threads))
        } else {
            let tiny = has_pieces
                && job.op == Work::Softmax
                && dense
                && cols <= TINY
                && rows >= ROWS_AT_LEAST;
            // A few chunks per thread, so that one slow thread does not delay the rest.
            let parts =
                if threads > 1 { by_size.min(rows).min(threads.saturating_mul(4)) } else { 1 };
            (if tiny { Regime::Tiny } else { Regime::Rows }, parts)
        };
        let parts = parts.max(1);
        // The scalar reference has only one way.
        let large = has_pieces && job.is_large(caches);
        let threads = threads.min(parts);
        // On Zen 5 columns take half the time with stores past the caches, maps of elements 0.85 to
        // 1.2 of it.
        let sweeps = regime != Regime::Tiny && !job.columns && sums;
        let row = cols.saturating_mul(job.size);
        let short = large && sweeps && row < shortest_row(threads);
        let store = Store::of(large, !sweeps, short);
        Ok(Self { kernel, regime, store, short, parts, threads, caches, job })
    }

    /// The kernel of the call.
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

    /// How rows are computed.
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

    /// Whether the output is written past the caches because they cannot hold it; only on CPUs that
    /// have such stores and are faster with them.
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

    /// The caches for a call on some of the rows, if these must be told that the whole is large.
    pub(crate) fn caches_of_part(&self) -> Option<Caches> {
        self.job.is_large(self.caches).then(|| Caches::new(self.caches.core(), 0))
    }

    /// Whether exponentials of rows in pieces are kept in the output instead of being computed
    /// twice: if a cache holds them until they are read again.
    pub(crate) fn keeps(&self) -> bool {
        let Job { op, shape, size, .. } = self.job;
        let row = || shape.cols.saturating_mul(size);
        op == Work::Softmax
            && (self.store.is_cached() || !self.store.is_past() && row() <= self.caches.last())
    }

    /// The elements of a row above which it is worth computing by itself, in pieces.
    pub(crate) fn longest(&self) -> usize {
        longest(&self.job, self.caches).max(BLOCK)
    }

    /// The largest number of threads that work at the same time.
    ///
    /// ```
    /// use softmax::{Exec, Op, Shape};
    /// // This is too small to be shared.
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
            (Work::LogSumExp | Work::Entropy, ..) => writeln!(f, "output: one value per row")?,
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
            (_, _, false) if self.short => writeln!(
                f,
                "output: through the caches, because rows are short, though {output} are more than the {} to count on",
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

/// A number of bytes with a unit, for people.
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
