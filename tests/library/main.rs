//! Everything that a user of the library can notice, each part in a module of its own. (Tests that
//! need their own process or allocator, and the searches, are separate programs.)
//!
//! With `--cfg softmax_emulated`, for emulators, the modules in `natively` are left out: the
//! differential test compares their operations there with the reference, bit by bit, and they say
//! of the reference, on another CPU, that it is right.

#[path = "../common/mod.rs"]
mod common;

mod bits;
mod dispatch;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod environment;
mod paths;
mod special_values;
mod vectors;

#[cfg(not(softmax_emulated))]
#[path = "."]
mod natively {
    mod accuracy;
    mod api;
    mod attention;
    mod axis;
    mod batching;
    mod changed;
    mod decide;
    mod entropy;
    mod kl;
    mod lanes;
    mod loss;
    mod loss_bounds;
    mod masks;
    #[cfg(unix)]
    mod memory;
    // The crate's dev-dependency on itself enables the feature.
    mod ndarray;
    mod online;
    mod per_row;
    mod properties;
    mod ragged;
    mod router;
    mod sampling;
    mod shards;
    mod speculative;
    mod weighted;
}
