//! The command `softmax`, run as its users run it.

mod common;
mod errors;
mod info;
mod run;
