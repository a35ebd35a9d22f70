//! The command `softmax`, run as users run it.

mod bench;
mod common;
#[cfg(unix)]
mod completions;
mod decide;
#[cfg(unix)]
mod documentation;
mod errors;
mod formats;
mod info;
mod loss;
mod outputs;
mod readme;
mod run;
#[cfg(target_os = "linux")]
mod signals;
#[cfg(target_os = "linux")]
mod terminal;
mod threads;
