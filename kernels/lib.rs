//! The vector kernels of the crate [`softmax`](https://docs.rs/softmax): everything that knows
//! about instruction sets. Programs use `softmax`; this crate is its engine and has no stable interface of its own.
//!
//! The map:
//!
//! - the contract: `exp2.rs` the arithmetic and its constants, `scale.rs` what follows from the scale and a row's maximum,
//!   `guess.rs` one shift for many rows, `ln.rs` the logarithm of a sum, `element.rs` the types of elements;
//! - memory: `memory.rs` what this CPU's wants, `scratch.rs` intermediate results;
//! - calls: `matrix.rs` views, `call.rs` rows, `scores.rs` attention and its options;
//! - CPUs: `vector.rs` what one must offer, `avx512.rs`, `avx2.rs`, `neon.rs` and `portable.rs` how each does it;
//! - rows: `rows.rs` the sweep over a row, `pipeline.rs` row after row, `tiny.rs` many short rows at once, `short.rs` few of them,
//!   `blocks.rs` a huge row in pieces, `shards.rs` one that lies in several places, `axis.rs` columns;
//! - relatives: `attend.rs` scores with masks and biases, `loss.rs` cross-entropy and gradients, `row_loss.rs` their scalars, `decide.rs`
//!   sigmoid, hardmax, argmax, top-k and log-probabilities, `sample.rs` masses to draw by;
//! - checks: `scalar.rs` the bit reference, plain loops over scalars, which share with the others the contract, the views and what
//!   is computed once a row in scalars; `limits.rs` loops to measure against;
//! - `table.rs` the list of kernels.

mod attend;
mod axis;
mod blocks;
mod call;
mod decide;
mod element;
mod exp2;
mod fpenv;
mod guess;
mod limits;
mod ln;
mod loss;
mod matrix;
mod memory;
mod pipeline;
mod row_loss;
mod rows;
mod sample;
mod scalar;
mod scale;
mod scores;
mod scratch;
mod shards;
mod short;
mod table;
mod tiny;
mod vector;

#[cfg(all(target_arch = "x86_64", not(softmax_portable)))]
mod avx2;
#[cfg(all(target_arch = "x86_64", not(softmax_portable)))]
mod avx512;
#[cfg(all(target_arch = "aarch64", not(softmax_portable)))]
mod neon;
mod portable;

pub use axis::{Columns, room_for_columns};
pub use blocks::{BlockSum, Extremes, Merged, Piece, PieceOps, PieceOptions, RowShift, Whole};
pub use call::{Call, Masked, Ties};
pub use decide::{PickError, Picks, perplexity};
pub use element::Element;
pub use exp2::BLOCK;
pub use fpenv::in_default_environment;
pub use limits::Limits;
pub use loss::{BackwardCall, Loss, LossCall, LossError, Targets};
pub use matrix::{Matrix, MatrixMut, ShapeError};
pub use memory::streams;
pub use sample::{
    Exps, LEAST, LEAST_UNIT, Learned, Masses, PART, RESTS, Scanned, of_rank, rank, rest, units,
};
pub use scale::Scale;
pub use scores::{Attend, AttendError, Mask, MaskData, Scores};
pub use scratch::{Plain, lend, release_scratch, room_for, room_for_row, with_lent, with_room};
pub use shards::{MergedPartials, Partial};
pub use table::{Kernel, Op, Ops, Pieces, Probs, all};
pub use tiny::{ROWS_AT_LEAST, TINY, room_for_tiny};
pub use vector::MOST_LANES;
