//! The work of a call, spread over threads. Threads never change bits: a row is computed by one
//! thread, or cut between blocks, which are summed separately anyway.

use softmax_kernels::{
    BlockSum, Call, Element, Extremes, Masked, Merged, Op, Piece, PieceOptions, Pieces, Scale,
    in_default_environment, part_of, with_room,
};

use crate::executor::Crew;
use crate::plan::Regime;
use crate::{Error, Plan};

/// Does the work as planned.
///
/// # Errors
/// [`Error::Memory`] if there is no memory for the sums of a row's blocks.
pub(crate) fn run<T: Element>(crew: &Crew, plan: &Plan, call: Call<T>) -> Result<(), Error> {
    // Without rows, no memory for sums is needed.
    if call.rows() == 0 {
        return Ok(());
    }
    if plan.regime == Regime::Pieces
        && let Some(pieces) = plan.kernel.pieces::<T>(call.op())
    {
        let (op, masked) = (call.op(), call.masked());
        return InPieces { crew, plan, pieces, op, masked }.rows(call);
    }
    crew.share(
        plan.threads,
        plan.parts,
        call.storing(plan.store),
        &|call, at, of| {
            let at = part_of(call.rows(), at, of);
            call.split_rows(at)
        },
        &|call: Call<T>| plan.kernel.run(call),
        &|(), ()| (),
    );
    Ok(())
}

/// Everything about a call in pieces except its matrices.
struct InPieces<'a, T: 'static> {
    crew: &'a Crew<'a>,
    plan: &'a Plan,
    pieces: Pieces<T>,
    op: Op,
    masked: Masked,
}

impl<T: Element> InPieces<'_, T> {
    fn rows(&self, mut call: Call<T>) -> Result<(), Error> {
        let elements = call.cols();
        // The same memory serves one row after another.
        let done = with_room(BlockSum::count(elements), |sums: &mut [BlockSum]| {
            sums.fill(BlockSum::ZERO);
            for row in 0..call.rows() {
                let scale = in_default_environment(|| call.scale_of(row));
                let value = self.row(call.piece(row), &scale, sums);
                call.set_logsumexp(row, value);
            }
        });
        done.ok_or(Error::memory(elements))
    }

    /// Computes a row; returns its log-sum-exp, if that is the operation.
    fn row(&self, mut row: Piece<T>, scale: &Scale, sums: &mut [BlockSum]) -> T {
        let pieces = &self.pieces;
        let options = PieceOptions { keep: self.plan.keeps(), store: self.plan.store };
        let mut shift = pieces.first(&row, scale);
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
                    pieces.sum(&mut piece, scale, &shift, options, sums)
                },
                &Extremes::and,
            );
            match pieces.merge(scale, &shift, extremes, sums) {
                Merged::Whole(whole) => break whole,
                // The row's own shift is always right.
                Merged::Again(own) => shift = own,
                Merged::Special => return pieces.special(&mut row, self.op, self.masked),
            }
        };
        if self.op == Op::LogSumExp {
            return pieces.logsumexp(scale, &whole);
        }
        self.crew.share(
            self.plan.threads,
            self.plan.parts,
            row,
            &|piece, at, of| {
                let blocks = BlockSum::count(piece.len()) * at / of;
                piece.split_blocks(blocks)
            },
            &|mut piece| pieces.finish(&mut piece, self.op, scale, &whole, options),
            &|(), ()| (),
        );
        T::ZERO
    }
}
