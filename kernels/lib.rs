//! The vector kernels of the crate [`softmax`](https://docs.rs/softmax): everything that knows
//! about instruction sets. Programs use `softmax`; this crate is its engine and has no stable
//! interface of its own.
//!
//! Folders, from the bottom up. Each uses only those before it in this list (`.ci/layers` checks
//! that), and less where it says so:
//!
//! - `num/`: the contract of all kernels: constants, scales, shifts, logarithms, random numbers,
//!   element types;
//! - `mem/`: how this CPU's memory is used best, scratch memory, the floating-point environment;
//! - `call/`: what a kernel is asked for: views, options, checks, and scalar steps done once a row;
//! - `isa/`: the operations that a kernel needs from a CPU (`vector.rs`), and one file for each CPU
//!   that says how it does them; uses `num/` alone;
//! - `sweep/`: the loops over a row, one row after another;
//! - `op/`: operations, one file for each way to compute rows, generic over CPUs and types;
//! - `scalar/`: the bit reference in plain loops; uses `num/` and `call/` alone;
//! - `table.rs`: the list of kernels, and all entry points.
//!
//! The words of the code (block, piece, shard, part, group, tile and so on) are explained in the
//! glossary of the crate `softmax`, in `src/lib.rs`.

mod call;
mod isa;
mod mem;
mod num;
mod op;
mod scalar;
mod sweep;
mod table;

pub use call::bits::BitMask;
pub use call::columns::Columns;
pub use call::entropies::EntropyGradient;
pub use call::error::{Error, Number, Size};
pub use call::excess::{CERTAIN, excess, is_prob, prob_units};
pub use call::factors::Factors;
pub use call::kl::KlDivergence;
pub use call::losses::{BackwardCall, Loss, LossCall, Targets, Weights};
pub use call::masses::{
    Exps, LEAST, LEAST_UNIT, Masses, RESTS, SPAN, Scanned, of_rank, rank, rest, units,
};
pub use call::matrix::{Matrix, MatrixMut};
pub use call::online::{OnlineRow, TileCall, TilePlace, finish_rows, merge_outputs};
pub use call::partials::{MergedPartials, Partial};
pub use call::picks::{Picks, perplexity};
pub use call::pieces::{BlockSum, Extremes, Merged, Piece, PieceOptions, RowShift, Whole};
pub use call::ragged::{Offsets, Ragged, RaggedCall, RaggedMut};
pub use call::routes::{GroupScore, MOST_EXPERTS, RouteCall, Routing, Scoring};
pub use call::scores::{Attend, Mask, MaskData, Scores};
pub use call::{Call, Masked, Op, Store, Ties};
pub use isa::use_bf16_conversions;
pub use mem::fpenv::in_default_environment;
pub use mem::memory::{Large, shortest_row, with_large};
pub use mem::scratch::{lend, release_scratch, room_for, room_for_row, with_lent, with_room};
pub use num::element::{ByType, Element, Family, Plain, arithmetic};
pub use num::exp2::{BLOCK, MOST_LANES};
pub use num::guess::Learned;
pub use num::ln::ln;
pub use num::part_of;
pub use num::philox::{low_first, philox};
pub use num::scale::Scale;
pub use num::weighted::weighted_logsumexp;
pub use op::columns::room_for_columns;
pub use op::route::room_for_routes;
pub use op::tiny::{ROWS_AT_LEAST, TINY, room_for_tiny};
pub use table::{Chosen, Kernel, Limits, Pieces, Probs, Ready, Shards, Weight, all, limits};
