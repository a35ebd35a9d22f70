//! The vector kernels of the crate [`softmax`](https://docs.rs/softmax): everything that knows
//! about instruction sets. Programs use `softmax`; this crate is its engine and has no stable
//! interface of its own.
//!
//! Storeys, each of which uses those above it in this list alone (`.ci/storeys` checks that):
//!
//! - `num/`: the contract of all kernels: constants, scales, shifts, logarithms, random numbers,
//!   types of elements;
//! - `mem/`: what this CPU's memory wants, scratch memory, the floating-point environment;
//! - `call/`: what a call is: views, options, checks, and what is computed once a row in scalars;
//! - `isa/`: what a CPU must offer (`vector.rs`), and how each does it, one file a CPU; uses `num/`
//!   alone;
//! - `sweep/`: the loop over a row, row after row;
//! - `op/`: operations, one file for each way to do rows, generic over CPUs and types;
//! - `scalar/`: the bit reference in plain loops; uses `num/` and `call/` alone;
//! - `table.rs`: the list of kernels, and all entries.

mod call;
mod isa;
mod mem;
mod num;
mod op;
mod scalar;
mod sweep;
mod table;

pub use call::columns::Columns;
pub use call::error::{Error, Number, Size};
pub use call::losses::{BackwardCall, Loss, LossCall, Targets, Weights};
pub use call::masses::{
    Exps, LEAST, LEAST_UNIT, Learned, Masses, PART, RESTS, Scanned, of_rank, rank, rest, units,
};
pub use call::matrix::{Matrix, MatrixMut};
pub use call::partials::{MergedPartials, Partial};
pub use call::picks::{Picks, perplexity};
pub use call::pieces::{BlockSum, Extremes, Merged, Piece, PieceOptions, RowShift, Whole};
pub use call::scores::{Attend, Mask, MaskData, Scores};
pub use call::{Call, Masked, Op, Store, Ties};
pub use isa::use_bf16_conversions;
pub use mem::fpenv::in_default_environment;
pub use mem::memory::{Large, with_large};
pub use mem::scratch::{lend, release_scratch, room_for, room_for_row, with_lent, with_room};
pub use num::element::{ByType, Element, Family, Plain};
pub use num::exp2::{BLOCK, MOST_LANES};
pub use num::ln::ln;
pub use num::part_of;
pub use num::philox::{low_first, philox};
pub use num::scale::Scale;
pub use num::weighted::weighted_logsumexp;
pub use op::columns::room_for_columns;
pub use op::tiny::{ROWS_AT_LEAST, TINY, room_for_tiny};
pub use table::{Chosen, Kernel, Limits, Pieces, Probs, Ready, Shards, all, limits};
