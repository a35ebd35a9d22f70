//! Everything that a user of the library can notice, each part in a module of its own. (Tests that
//! need their own process or allocator, and the searches, are separate programs.)
//!
//! With `--cfg softmax_emulated`, for emulators, modules whose results depend on no kernel's own
//! code are left out: views and shapes, and errors of results whose bits are compared there.

#[path = "../common/mod.rs"]
mod common;

#[cfg(not(softmax_emulated))]
mod accuracy;
#[cfg(not(softmax_emulated))]
mod api;
mod attention;
mod axis;
mod batching;
mod bits;
mod changed;
mod decide;
mod dispatch;
mod entropy;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod environment;
mod kl;
#[cfg(not(softmax_emulated))]
mod lanes;
mod loss;
#[cfg(not(softmax_emulated))]
mod loss_bounds;
mod masks;
#[cfg(unix)]
mod memory;
// The crate's dev-dependency on itself enables the feature.
#[cfg(not(softmax_emulated))]
mod ndarray;
mod online;
mod paths;
mod per_row;
mod properties;
mod ragged;
mod router;
mod sampling;
mod shards;
mod special_values;
mod speculative;
mod vectors;
#[cfg(not(softmax_emulated))]
mod weighted;
