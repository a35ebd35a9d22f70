//! The command `softmax`, run as its users run it.

mod bench;
mod common;
mod decide;
mod errors;
mod info;
mod loss;
mod run;
