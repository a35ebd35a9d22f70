//! Threads that are bound to cores.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use core_affinity::CoreId;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// The hardware threads that this program may use: one of each core before the second of any, as
/// far as the system tells.
fn places() -> Vec<CoreId> {
    let all = core_affinity::get_core_ids().unwrap_or_default();
    let siblings = |core: &CoreId| {
        let path = format!("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", core.id);
        fs::read_to_string(path).ok()
    };
    let mut seen = BTreeSet::new();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for core in all {
        let is_new = siblings(&core).is_none_or(|siblings| seen.insert(siblings));
        if is_new { first.push(core) } else { second.push(core) }
    }
    first.extend(second);
    first
}

/// Numbers of threads to compare: 1, 2, 4 and so on, and as many as the program may use.
pub fn steps() -> Vec<usize> {
    let most = std::thread::available_parallelism().map_or(1, usize::from);
    let doubling = std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|&n| n < most);
    doubling.chain([most]).collect()
}

/// Pools of several sizes.
#[derive(Debug)]
pub struct Pools {
    pools: Vec<ThreadPool>,
    /// Whether every thread could be bound to a core of its own.
    pub pinned: bool,
}

impl Pools {
    /// Makes one pool for each number of threads.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn new(sizes: &[usize]) -> Result<Self, ThreadPoolBuildError> {
        let places = Arc::new(places());
        let pinned = Arc::new(AtomicBool::new(true));
        let pools = sizes.iter().map(|&size| {
            let (places, pinned) = (places.clone(), pinned.clone());
            let bind = move |i: usize| {
                if !places.get(i).is_some_and(|&place| core_affinity::set_for_current(place)) {
                    pinned.store(false, Ordering::Relaxed);
                }
            };
            let pool = ThreadPoolBuilder::new().num_threads(size).start_handler(bind).build()?;
            // Waits until all threads have started and bound themselves.
            pool.broadcast(|_| ());
            Ok(pool)
        });
        let pools = pools.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { pools, pinned: pinned.load(Ordering::Relaxed) })
    }

    /// The pool with this number of threads, or with the nearest.
    pub fn get(&self, threads: usize) -> Option<&ThreadPool> {
        self.pools.iter().min_by_key(|pool| pool.current_num_threads().abs_diff(threads))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_have_their_sizes() {
        let pools = Pools::new(&[1, 2]).expect("threads");
        for n in [1, 2] {
            let pool = pools.get(n).expect("there are pools");
            assert_eq!(pool.install(rayon::current_num_threads), n);
        }
        assert_eq!(steps().first(), Some(&1));
        assert!(steps().is_sorted());
    }
}
