//! The command `softmax`, run as its users run it.

mod common;
mod decide;
mod errors;
mod info;
mod loss;
mod run;
