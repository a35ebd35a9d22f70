//! Everything that a user of the library can notice, each part in a module of its own. (Tests that
//! need their own process or allocator, and the searches, are separate programs.)
//!
//! With `--cfg softmax_emulated`, for emulators, there are only the modules that a CPU's own file
//! can break: bits, digests, ways, special values, the environment. The differential test compares
//! all operations there with the reference, whose results the other modules test natively.

#[path = "../common/mod.rs"]
mod common;

#[cfg(not(softmax_emulated))]
mod accuracy;
#[cfg(not(softmax_emulated))]
mod api;
#[cfg(not(softmax_emulated))]
mod attention;
#[cfg(not(softmax_emulated))]
mod axis;
#[cfg(not(softmax_emulated))]
mod batching;
mod bits;
#[cfg(not(softmax_emulated))]
mod changed;
#[cfg(not(softmax_emulated))]
mod decide;
mod dispatch;
#[cfg(not(softmax_emulated))]
mod entropy;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod environment;
#[cfg(not(softmax_emulated))]
mod kl;
#[cfg(not(softmax_emulated))]
mod lanes;
#[cfg(not(softmax_emulated))]
mod loss;
#[cfg(not(softmax_emulated))]
mod loss_bounds;
#[cfg(not(softmax_emulated))]
mod masks;
#[cfg(unix)]
#[cfg(not(softmax_emulated))]
mod memory;
// The crate's dev-dependency on itself enables the feature.
#[cfg(not(softmax_emulated))]
mod ndarray;
#[cfg(not(softmax_emulated))]
mod online;
mod paths;
#[cfg(not(softmax_emulated))]
mod per_row;
#[cfg(not(softmax_emulated))]
mod properties;
#[cfg(not(softmax_emulated))]
mod ragged;
#[cfg(not(softmax_emulated))]
mod router;
#[cfg(not(softmax_emulated))]
mod sampling;
#[cfg(not(softmax_emulated))]
mod shards;
mod special_values;
#[cfg(not(softmax_emulated))]
mod speculative;
mod vectors;
#[cfg(not(softmax_emulated))]
mod weighted;
