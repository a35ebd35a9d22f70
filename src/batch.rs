//! The work of a call, spread over threads. Threads never change bits: a row is always one
//! thread's, or cut where its sum is cut anyway.

use softmax_kernels::{
    BlockSum, Call, Element, Extremes, Masked, Matrix, MatrixMut, Merged, Op, Piece, PieceOptions,
    Pieces, Ready, Scale, Store, Whole, part_of, with_room,
};

use crate::executor::Crew;
use crate::plan::{Regime, Shape};
use crate::{Error, Plan};

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
    #[inline(always)]
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
    #[inline(always)]
    pub(crate) fn run(self, kernel: Ready, op: Op, scale: Scale, masked: Masked, store: Store) {
        let call = match self {
            Self::Map(x, y) => Call::new(x, y, scale, masked),
            Self::InPlace(y) => Some(Call::in_place(y, scale, masked)),
            Self::PerRow(x, y) => Call::per_row(x, y, scale),
        };
        // The shapes were compared before.
        if let Some(call) = call {
            kernel.run(op, call.storing(store));
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
pub(crate) struct Job<'a> {
    pub crew: Crew<'a>,
    pub op: Op,
    pub scale: Scale,
    pub masked: Masked,
    pub plan: Plan,
}

impl Job<'_> {
    /// Does the work as planned.
    ///
    /// # Errors
    /// [`Error::Memory`] if there is none for the sums of a row's blocks.
    pub(crate) fn run<T: Element>(&self, work: Work<T>) -> Result<(), Error> {
        // No rows need no memory for one.
        if work.rows() == 0 {
            return Ok(());
        }
        if self.plan.regime == Regime::Pieces
            && let Some(pieces) = self.plan.kernel.pieces::<T>()
        {
            return self.rows_in_pieces(&pieces, work);
        }
        self.crew.share(
            self.plan.threads,
            self.plan.parts,
            work,
            &|work, at, of| {
                let at = part_of(work.rows(), at, of);
                work.split(at)
            },
            &|work: Work<T>| {
                work.run(self.plan.kernel, self.op, self.scale, self.masked, self.plan.store);
            },
            &|(), ()| (),
        );
        Ok(())
    }

    fn rows_in_pieces<T: Element>(&self, pieces: &Pieces<T>, work: Work<T>) -> Result<(), Error> {
        let elements = work.cols();
        // Those of a row after the other.
        let done = with_room(BlockSum::count(elements), |sums: &mut [BlockSum]| {
            sums.fill(BlockSum::ZERO);
            self.rows_with_sums(pieces, work, sums);
        });
        done.ok_or(Error::Memory { elements })
    }

    fn rows_with_sums<T: Element>(&self, pieces: &Pieces<T>, work: Work<T>, sums: &mut [BlockSum]) {
        let mut rest = work;
        while rest.rows() > 0 {
            let (first, others) = rest.split(1);
            rest = others;
            match first {
                Work::Map(x, y) => {
                    self.row_in_pieces(
                        pieces,
                        Piece::new(x.row(0), y.into_slice().unwrap_or_default()),
                        sums,
                    );
                }
                Work::InPlace(y) => {
                    self.row_in_pieces(
                        pieces,
                        Piece::in_place(y.into_slice().unwrap_or_default()),
                        sums,
                    );
                }
                Work::PerRow(x, y) => {
                    let value = self.row_in_pieces(pieces, Piece::read(x.row(0)), sums);
                    y.fill(value);
                }
            }
        }
    }

    /// A row; its log-sum-exp, if that is what is asked for.
    fn row_in_pieces<T: Element>(
        &self,
        pieces: &Pieces<T>,
        mut row: Piece<T>,
        sums: &mut [BlockSum],
    ) -> T {
        let options = PieceOptions { keep: self.plan.keeps(), store: self.plan.store };
        let mut shift = pieces.first(&row, &self.scale);
        let whole = loop {
            let extremes = self.crew.share(
                self.plan.threads,
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
        self.crew.share(
            self.plan.threads,
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
