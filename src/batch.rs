//! The work of a call, spread over threads. Threads never change bits: a row is always one thread's, or cut where its sum is cut anyway.

use std::cell::Cell;

use softmax_kernels::{
    BlockSum, Call, Element, Extremes, Kernel, Masked, Matrix, MatrixMut, Merged, Op, Piece,
    PieceOptions, Pieces, Scale, Whole,
};

use crate::Plan;
use crate::plan::{Regime, Shape};

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
    pub(crate) fn shape(&self, op: Op) -> Shape {
        let dense = match self {
            Self::Map(x, y) => x.stride() == x.cols() && y.stride() == y.cols(),
            Self::InPlace(y) => y.stride() == y.cols(),
            Self::PerRow(x, _) => x.stride() == x.cols(),
        };
        let in_place = matches!(self, Self::InPlace(_));
        Shape { dense, ..Shape::new::<T>(op, self.rows(), self.cols(), in_place) }
    }

    /// Does the work on this thread, a row after the other.
    pub(crate) fn run(
        self,
        kernel: &'static Kernel,
        op: Op,
        scale: Scale,
        masked: Masked,
        stream: bool,
    ) {
        let call = match self {
            Self::Map(x, y) => Call::new(x, y, scale, masked),
            Self::InPlace(y) => Some(Call::in_place(y, scale, masked)),
            Self::PerRow(x, y) => Call::per_row(x, y, scale),
        };
        // The shapes were compared before.
        if let Some(call) = call {
            kernel.run(op, call.streaming(stream));
        }
    }
}

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

/// Everything about a call but the matrices.
#[derive(Clone, Copy)]
pub(crate) struct Job {
    pub op: Op,
    pub scale: Scale,
    pub masked: Masked,
    pub plan: Plan,
}

impl Job {
    /// Does the work as planned.
    pub(crate) fn run<T: Element>(&self, work: Work<T>) {
        if self.plan.regime == Regime::Pieces
            && let Some(pieces) = self.plan.kernel.pieces::<T>()
        {
            return self.rows_in_pieces(&pieces, work);
        }
        halves(
            self.plan.parts,
            work,
            &|work, at, of| {
                // rows * at / of without overflow.
                let at = (work.rows() as u128 * at as u128 / of as u128) as usize;
                work.split(at)
            },
            &|work: Work<T>| {
                work.run(self.plan.kernel, self.op, self.scale, self.masked, self.plan.stream);
            },
            &|(), ()| (),
        );
    }

    fn rows_in_pieces<T: Element>(&self, pieces: &Pieces<T>, work: Work<T>) {
        let mut rest = work;
        while rest.rows() > 0 {
            let (first, others) = rest.split(1);
            rest = others;
            match first {
                Work::Map(x, y) => {
                    self.row_in_pieces(pieces, Piece::new(x.into_slice(), y.into_slice()));
                }
                Work::InPlace(y) => {
                    self.row_in_pieces(pieces, Piece::in_place(y.into_slice()));
                }
                Work::PerRow(x, y) => {
                    let value = self.row_in_pieces(pieces, Piece::read(x.into_slice()));
                    y.fill(value);
                }
            }
        }
    }

    /// A row; its log-sum-exp, if that is what is asked for.
    fn row_in_pieces<T: Element>(&self, pieces: &Pieces<T>, row: Piece<T>) -> T {
        let mut sums = SUMS.take();
        sums.clear();
        sums.resize(BlockSum::count(row.len()), BlockSum::ZERO);
        let value = self.row_with_sums(pieces, row, &mut sums);
        SUMS.set(sums);
        value
    }

    /// The same, with a place for the sums of its blocks.
    fn row_with_sums<T: Element>(
        &self,
        pieces: &Pieces<T>,
        mut row: Piece<T>,
        sums: &mut [BlockSum],
    ) -> T {
        let options = PieceOptions {
            keep: self.op == Op::Softmax && !self.plan.stream,
            stream: self.plan.stream,
        };
        let mut shift = pieces.first(&row, &self.scale);
        let whole = loop {
            let extremes = halves(
                self.plan.parts,
                (row.reborrow(), &mut sums[..]),
                &|(piece, sums), at, of| {
                    let at = sums.len() * at / of;
                    let (a, b) = piece.split_blocks(at);
                    let (a_sums, b_sums) = sums.split_at_mut(at);
                    ((a, a_sums), (b, b_sums))
                },
                &|(mut piece, sums): (Piece<T>, &mut [BlockSum])| {
                    pieces.sum(&mut piece, &self.scale, &shift, options, sums)
                },
                &Extremes::and,
            );
            match pieces.merge(&self.scale, &shift, extremes, sums) {
                Merged::Whole(whole) => break whole,
                // By the row's own maximum, which is always right.
                Merged::Again(own) => shift = own,
                Merged::Odd => return pieces.odd(&mut row, self.op, self.masked),
            }
        };
        if self.op == Op::LogSumExp {
            return pieces.logsumexp(&self.scale, &whole);
        }
        self.finish(pieces, row, &whole, options);
        T::ZERO
    }

    fn finish<T: Element>(
        &self,
        pieces: &Pieces<T>,
        row: Piece<T>,
        whole: &Whole,
        options: PieceOptions,
    ) {
        halves(
            self.plan.parts,
            row,
            &|piece, at, of| {
                let blocks = BlockSum::count(piece.len()) * at / of;
                piece.split_blocks(blocks)
            },
            &|mut piece| pieces.finish(&mut piece, self.op, &self.scale, whole, options),
            &|(), ()| (),
        );
    }
}

thread_local! {
    /// The sums of a row's blocks, kept so that no call but a thread's first allocates. A thread that gets a second row while it waits for the pieces
    /// of a first one makes another.
    static SUMS: Cell<Vec<BlockSum>> = const { Cell::new(Vec::new()) };
}

/// Cuts the work in two until it is `parts` parts, does them in parallel, and joins what they give, the first parts first.
/// `split(work, at, of)` cuts off `at` of `of` parts. `rayon::join` allocates nothing.
pub(crate) fn halves<W: Send, R: Send>(
    parts: usize,
    work: W,
    split: &(impl Fn(W, usize, usize) -> (W, W) + Sync),
    run: &(impl Fn(W) -> R + Sync),
    join: &(impl Fn(R, R) -> R + Sync),
) -> R {
    if parts <= 1 {
        return run(work);
    }
    let first = parts / 2;
    let (a, b) = split(work, first, parts);
    let (a, b) =
        both(|| halves(first, a, split, run, join), || halves(parts - first, b, split, run, join));
    join(a, b)
}

/// Both at the same time, if there are threads.
#[cfg(feature = "rayon")]
fn both<A: Send, B: Send>(a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B + Send) -> (A, B) {
    rayon::join(a, b)
}

#[cfg(not(feature = "rayon"))]
fn both<A, B>(a: impl FnOnce() -> A, b: impl FnOnce() -> B) -> (A, B) {
    (a(), b())
}
