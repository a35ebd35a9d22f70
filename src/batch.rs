//! Whole rows spread over threads. Threads never change bits: a row is always one thread's.

use softmax_kernels::{Call, Element, Kernel, Masked, Matrix, MatrixMut, Op, Scale};

use crate::Threads;

/// Elements below which a part of a batch is not worth a thread of its own: some 20 microseconds
/// of work, several times what handing it over costs.
#[cfg(feature = "rayon")]
const GRAIN: usize = 1 << 16;

/// What a call works on.
pub(crate) enum Work<'a, T> {
    /// From rows to rows of the same shape.
    Map(Matrix<'a, T>, MatrixMut<'a, T>),
    /// Rows to themselves.
    InPlace(MatrixMut<'a, T>),
    /// From each row to one element.
    PerRow(Matrix<'a, T>, &'a mut [T]),
}

impl<'a, T: Element> Work<'a, T> {
    fn call(self, scale: Scale, masked: Masked) -> Option<Call<'a, T>> {
        match self {
            Self::Map(x, y) => Call::new(x, y, scale, masked),
            Self::InPlace(y) => Some(Call::in_place(y, scale, masked)),
            Self::PerRow(x, y) => Call::per_row(x, y, scale),
        }
    }
}

#[cfg(feature = "rayon")]
impl<T: Element> Work<'_, T> {
    fn rows(&self) -> usize {
        match self {
            Self::Map(x, _) | Self::PerRow(x, _) => x.rows(),
            Self::InPlace(y) => y.rows(),
        }
    }

    fn cols(&self) -> usize {
        match self {
            Self::Map(x, _) | Self::PerRow(x, _) => x.cols(),
            Self::InPlace(y) => y.cols(),
        }
    }

    /// The first `at` rows and the others.
    fn split(self, at: usize) -> (Self, Self) {
        match self {
            Self::Map(x, y) => {
                let (x, y) = (x.split_rows(at), y.split_rows(at));
                (Self::Map(x.0, y.0), Self::Map(x.1, y.1))
            }
            Self::InPlace(y) => {
                let y = y.split_rows(at);
                (Self::InPlace(y.0), Self::InPlace(y.1))
            }
            Self::PerRow(x, y) => {
                let at = at.min(y.len());
                let (x, y) = (x.split_rows(at), y.split_at_mut(at));
                (Self::PerRow(x.0, y.0), Self::PerRow(x.1, y.1))
            }
        }
    }
}

/// Does the work, in parts if that pays.
pub(crate) fn run<T: Element>(
    kernel: &'static Kernel,
    op: Op,
    scale: Scale,
    masked: Masked,
    threads: Threads,
    work: Work<T>,
) {
    let serial = |work: Work<T>| {
        // The shapes were compared before.
        if let Some(call) = work.call(scale, masked) {
            kernel.run(op, call);
        }
    };
    #[cfg(feature = "rayon")]
    {
        let parts = parts(&work, threads);
        if parts > 1 {
            return halves(parts, work, &serial);
        }
    }
    #[cfg(not(feature = "rayon"))]
    let _ = threads;
    serial(work);
}

/// Into how many parts the work is cut.
#[cfg(feature = "rayon")]
fn parts<T: Element>(work: &Work<T>, threads: Threads) -> usize {
    // Decide by the amount of work before asking rayon anything, which would start its threads.
    let worth = (work.rows().saturating_mul(work.cols()) / GRAIN).min(work.rows());
    if worth < 2 {
        return 1;
    }
    match threads {
        Threads::Serial => 1,
        // One part per thread: at most that many can run at the same time.
        Threads::AtMost(n) if n.get() == 1 => 1,
        Threads::AtMost(n) => worth.min(n.get()).min(rayon::current_num_threads()),
        // A few parts per thread, so that one slow thread does not hold up the rest.
        Threads::Auto => match rayon::current_num_threads() {
            1 => 1,
            n => worth.min(4 * n),
        },
    }
}

/// Cuts the work in two until it is `parts` parts, and does them in parallel. `rayon::join` allocates nothing.
#[cfg(feature = "rayon")]
fn halves<T: Element>(parts: usize, work: Work<T>, serial: &(impl Fn(Work<T>) + Sync)) {
    if parts <= 1 {
        return serial(work);
    }
    let first = parts / 2;
    // rows * first / parts without overflow.
    let at = (work.rows() as u128 * first as u128 / parts as u128) as usize;
    let (a, b) = work.split(at);
    rayon::join(|| halves(first, a, serial), || halves(parts - first, b, serial));
}
