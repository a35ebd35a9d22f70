//! The threads that compute.

use std::num::NonZeroUsize;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use crate::failure::Failure;

/// Hardware threads that this program may use.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// The most threads that are ever started: more than a few for each CPU only take turns.
pub fn most() -> usize {
    available().saturating_mul(4)
}

/// Number of threads that are wanted, by the option or by rayon's variable, or else one for each
/// CPU.
fn wanted(asked: Option<NonZeroUsize>) -> usize {
    let variable = || std::env::var("RAYON_NUM_THREADS").ok()?.parse().ok();
    asked.or_else(variable).map_or_else(available, NonZeroUsize::get).min(most())
}

/// Runs `f` on the wanted number of threads, or on this one alone if the system refuses others:
/// results are the same.
pub fn with<R: Send>(
    asked: Option<NonZeroUsize>,
    run: impl FnOnce() -> Result<R, Failure> + Send,
) -> Result<R, Failure> {
    let several = match wanted(asked) {
        1 => None,
        n => ThreadPoolBuilder::new().num_threads(n).build().ok(),
    };
    let pool = several.map_or_else(alone, Ok).map_err(|e| Failure::new("threads", e))?;
    pool.install(run)
}

/// A pool that consists of this thread.
fn alone() -> Result<ThreadPool, ThreadPoolBuildError> {
    ThreadPoolBuilder::new().num_threads(1).use_current_thread().build()
}
