//! Softmax over the rows of matrices, and its relatives log-softmax and log-sum-exp.
//!
//! Three promises:
//!
//! 1. **Speed**: SIMD kernels for AVX-512, AVX2+FMA and NEON, chosen at run time, and a portable
//!    one for every other CPU; rows are spread over rayon's threads when that pays.
//! 2. **Accuracy**: at most 3 ULP of error in every probability, for rows of any length and inputs
//!    of any finite range (`docs/accuracy.md` has the proof and the worst error that was found).
//! 3. **The same bits everywhere**: a row's result depends on that row and its options alone. It
//!    does not depend on the CPU, the number of threads, the batch that the row came in, shards,
//!    its alignment, or whether it was overwritten in place.
//!
//! ```
//! let mut probs = [0.0f32; 3];
//! softmax::softmax(&[8.0, 5.0, 0.0], &mut probs)?;
//! assert_eq!(probs.map(|p| (p * 1e4).round() / 1e4), [0.9523, 0.0474, 0.0003]);
//!
//! // Equal logits share exactly.
//! softmax::softmax(&[1.0, 1.0], &mut probs[..2])?;
//! assert_eq!(probs[..2], [0.5, 0.5]);
//! # Ok::<(), softmax::Error>(())
//! ```
//!
//! Functions at the top level use the defaults. For everything else, make a value that says what is
//! computed. Its setters never fail; its methods take views of matrices, and check everything:
//!
//! - [`Softmax`]: softmax, log-softmax and log-sum-exp of rows, or along any axis of a tensor (with
//!   the feature `ndarray` also of that crate's views); scale or temperature; masks and fully
//!   masked rows; weights of a log-sum-exp;
//! - [`Attention`]: softmax of attention scores, with masks, biases, caps, sinks;
//!   [`OnlineSoftmax`]: the same by tiles, without stored scores;
//! - [`CrossEntropy`]: losses and their gradients; [`Backward`]: gradients through a softmax;
//! - [`Sampler`]: draws of tokens; [`SpeculativeSampler`]: verification of drafted ones; [`TopK`]
//!   and [`LogProbs`]: the largest elements, and the log-probabilities of given ones;
//! - [`Router`]: the experts of tokens;
//! - [`Sigmoid`], and [`Hardmax`] with argmax;
//! - [`Shards`]: rows that lie in several places.
//!
//! An [`Exec`] says where a call runs: kernel, threads, caches. All of these values take one; the
//! default is the fastest way on this machine.
//!
//! # What every input gets
//!
//! | input | softmax | log-softmax | log-sum-exp |
//! |---|---|---|---|
//! | any NaN in the row | NaN everywhere | NaN everywhere | NaN |
//! | `-inf` beside finite entries | exactly 0 there | `-inf` there | as if it were not there |
//! | every entry `-inf` (fully masked) | NaN; 0 with [`Masked::Zero`] | NaN; `-inf` with [`Masked::Zero`] | `-inf` |
//! | `+inf` in the row | NaN everywhere | NaN everywhere | `+inf` |
//! | all entries equal | equal, within 1 ULP of 1/n; exactly 1/n if n is a power of two | | |
//! | one entry | exactly 1 | exactly 0 | that entry, scaled |
//! | no entries, or no rows | nothing is written | nothing is written | `-inf` for each row |
//!
//! | input | sigmoid | log-sigmoid | [hardmax](Hardmax::hardmax), temperature 0 | infinite temperature | [argmax](Hardmax::argmax) |
//! |---|---|---|---|---|---|
//! | NaN | NaN there | NaN there | NaN in the whole row | NaN in the whole row | the first NaN |
//! | `-inf` | exactly 0 | `-inf` | 0 | 0 | smaller than all others |
//! | every entry `-inf` | | | as softmax | as softmax | 0 |
//! | `+inf` | exactly 1 | exactly 0 | the largest | NaN in the whole row | the largest |
//! | 0, of either sign | exactly 0.5 | `-ln 2` | equal | equal | equal |
//! | several largest entries | | | `1/N` each, or the first 1 | | the first |
//!
//! A probability below 2^-126 of its row's largest (f64: 2^-1022) may be 0. Every NaN that is
//! written is the same one: quiet, positive, without payload. Elements between rows (where the
//! stride is larger than the row) and around the matrix are neither read nor written.
//!
//! On x86-64 and AArch64 the caller's floating-point environment makes no difference: a thread that
//! has set flush-to-zero, another rounding mode or traps gets the same bits. Calls, and their parts
//! on other threads, enter the default environment and restore the one that they found, with its
//! sticky flags. (An [`Executor`] is called in its caller's environment.)
//!
//! # Processes and threads
//!
//! Calls use rayon's current pool of threads, or its global pool, which is made when a call first
//! gains by it. If no thread can be made, that call and all later ones run on the thread that
//! calls.
//!
//! So do calls in a process that was forked from one that has used the pool, whatever the pool's
//! threads were doing. To use threads there, make a new pool and call inside `pool.install(..)`, or
//! give an [`Executor`]. (Do not fork inside a job of the pool, nor use an executor in the child
//! whose threads are in the parent: they do not exist there.)
//!
//! # Environment
//!
//! `SOFTMAX_KERNEL=name` forces a kernel for the whole program; see [`kernels`] for the names. With
//! an unknown or unavailable name, every call that does not choose a kernel itself returns an
//! error.
//!
//! `SOFTMAX_CACHES=core,last` overrides the sizes of the caches; see [`Caches`].
//!
//! `SOFTMAX_STREAMS` overrides how outputs that are larger than the caches are written: `0` through
//! the caches, `1` past them, vector by vector, `2` past them in bursts. Results do not depend on
//! it.
//!
//! # Glossary
//!
//! The words that documentation and code use in one meaning only:
//!
//! | word | meaning |
//! |---|---|
//! | row | the elements of one softmax; a matrix has `rows` rows of `cols` columns; along another axis of a tensor a row is called a lane |
//! | special row | a row with NaN or +inf, or of nothing but -inf: its result follows without arithmetic |
//! | block | [`BLOCK`] elements of a row: each is summed on its own, and the sums are added in order |
//! | piece | several blocks of one long row, which one thread computes |
//! | shard | several blocks of a row of which others lie elsewhere: in another buffer, on another machine |
//! | part | what one thread takes of a call at a time: rows, columns or a piece |
//! | group | short rows that are computed together, as if they were one |
//! | tile | columns that are computed or copied together, because they fit in a cache; of attention's scores, some rows and some keys |
//! | shift | the integer `M`: exponentials are scaled by `2^-M`, so that none overflows; guessed from other rows, or a row's own |
//! | sweep | the pass over a row that computes exponentials, their sum, and the row's extremes |
//! | finish | the pass over a row that turns exponentials or elements into results |
//! | abreast | several vectors at a time, each operation done for all of them before the next one |
//! | stream | to write past the caches, an output that is larger than they are |
//! | scratch | memory that a call needs while it runs; the thread keeps it, or the caller lends it |
//! | kernel | all operations for one instruction set, such as AVX2 |
#![forbid(unsafe_code)]
// On docs.rs, items that need a feature are marked.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod attention;
mod axis;
mod backward;
mod batch;
mod caches;
mod changed;
mod dispatch;
mod entropy;
mod exec;
mod executor;
mod factor;
mod functions;
mod hardmax;
#[doc(hidden)]
pub mod internal;
mod kl;
mod lanes;
mod loss;
#[cfg(feature = "ndarray")]
mod ndarray_axis;
mod online;
mod per_row;
mod picks;
mod plan;
mod ragged;
mod router;
mod rows;
mod sample;
mod scratch;
mod shards;
mod sigmoid;
mod threads;

pub use attention::Attention;
pub use backward::Backward;
pub use caches::Caches;
pub use dispatch::{default_kernel, kernel, kernels};
pub use exec::Exec;
pub use executor::Executor;
pub use functions::{
    argmax, argmax_rows, log_probs, log_probs_rows, log_sigmoid, log_sigmoid_in_place, log_softmax,
    log_softmax_in_place, log_softmax_rows, log_softmax_rows_in_place, logsumexp, logsumexp_rows,
    probs, probs_rows, sigmoid, sigmoid_in_place, softmax, softmax_in_place, softmax_rows,
    softmax_rows_in_place,
};
pub use half;
pub use hardmax::Hardmax;
pub use loss::{CrossEntropy, Reduction};
#[cfg(feature = "ndarray")]
pub use ndarray;
#[cfg(feature = "ndarray")]
pub use ndarray_axis::ArrayTargets;
pub use online::OnlineSoftmax;
pub use per_row::PerRow;
pub use picks::{LogProbs, TopK, perplexity};
pub use plan::{Op, Plan, Regime, Shape};
pub use ragged::RaggedTargets;
pub use router::Router;
pub use rows::Softmax;
pub use sample::{DraftRows, Method, Order, Sampler, SpeculativeSampler, TargetRows};
pub use scratch::{release_scratch, with_scratch};
pub use shards::{Merged, MergedRow, Shards};
pub use sigmoid::Sigmoid;
pub use softmax_kernels::{
    BLOCK, BitMask, Element, Error, GroupScore, Kernel, Mask, MaskData, Masked, Matrix, MatrixMut,
    Number, Offsets, OnlineRow, Partial, Probs, Ragged, RaggedMut, Scoring, Size, Targets, Ties,
    Weight, Weights,
};
pub use threads::Threads;

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// The examples of docs/attention.md, likewise.
#[cfg(doctest)]
#[doc = include_str!("../docs/attention.md")]
pub struct AttentionPage;

/// The examples of docs/decisions.md, likewise.
#[cfg(doctest)]
#[doc = include_str!("../docs/decisions.md")]
pub struct DecisionsPage;

/// The examples of docs/tensors.md, likewise.
#[cfg(doctest)]
#[doc = include_str!("../docs/tensors.md")]
pub struct TensorsPage;

/// The examples of docs/sampling.md, likewise.
#[cfg(doctest)]
#[doc = include_str!("../docs/sampling.md")]
pub struct SamplingPage;
