//! The threads that work: rayon's, or the caller's own.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use softmax_kernels::{in_default_environment, lend, with_lent};

use crate::Threads;

/// The caller's own threads: the pool of an engine, or a rayon pool other than the current one.
///
/// Results have the same bits on any threads. With the feature `rayon`, `rayon::ThreadPool` is an
/// executor.
///
/// ```
/// use softmax::{Exec, Executor, MatrixMut, Softmax};
///
/// /// Three threads, made for each call.
/// struct Scoped;
///
/// impl Executor for Scoped {
///     fn threads(&self) -> usize {
///         3
///     }
///
///     fn parallel_for(&self, count: usize, body: &(dyn Fn(usize) + Sync)) {
///         std::thread::scope(|scope| (0..count).for_each(|i| drop(scope.spawn(move || body(i)))));
///     }
/// }
///
/// let mut x = vec![0.0f64; 1 << 20];
/// let exec = Exec::new().executor(&Scoped);
/// Softmax::new().exec(exec).softmax_in_place(MatrixMut::new(&mut x, 1024)?)?;
/// assert_eq!(x[0], 1.0 / 1024.0);
/// # Ok::<(), softmax::Error>(())
/// ```
pub trait Executor: Sync {
    /// Number of threads: the most calls of a body that are useful at the same time.
    fn threads(&self) -> usize;

    /// Calls `body(0)` to `body(count - 1)`, in any order and on any threads, mostly at the same
    /// time, and returns when all of these calls have returned. `count` is at most
    /// [`Executor::threads`]. If it leaves out calls, the calling thread does their work. It must
    /// pass on a panic of a body; if it does not, the call that the body belongs to panics instead.
    fn parallel_for(&self, count: usize, body: &(dyn Fn(usize) + Sync));
}

#[cfg(feature = "rayon")]
impl Executor for rayon::ThreadPool {
    fn threads(&self) -> usize {
        self.current_num_threads()
    }

    fn parallel_for(&self, count: usize, body: &(dyn Fn(usize) + Sync)) {
        self.install(|| spread(0, count, body));
    }
}

/// Calls the body on rayon's threads. `rayon::join` allocates nothing.
#[cfg(feature = "rayon")]
fn spread(from: usize, to: usize, body: &(dyn Fn(usize) + Sync)) {
    match to - from {
        0 => {}
        1 => body(from),
        n => {
            let middle = from + n / 2;
            rayon::join(|| spread(from, middle, body), || spread(middle, to, body));
        }
    }
}

/// The threads of a call, and how many of them it may use.
#[derive(Clone, Copy, Default)]
pub(crate) struct Crew<'a> {
    pub threads: Threads,
    /// The caller's threads; `None` for rayon's.
    pub executor: Option<&'a dyn Executor>,
}

impl fmt::Debug for Crew<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = self.executor.map(Executor::threads);
        f.debug_struct("Crew").field("threads", &self.threads).field("of", &threads).finish()
    }
}

/// The rest of a call's work.
struct Queue<W, R> {
    rest: Option<W>,
    parts: usize,
    /// Number of parts that were taken and are not done.
    begun: usize,
    done: Option<R>,
}

fn lock<T>(queue: &Mutex<T>) -> MutexGuard<'_, T> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crew<'_> {
    /// Does the work in `parts` parts on `threads` threads, each of which takes one part after
    /// another, and joins their results in any order. `split(work, at, of)` cuts off `at` of `of`
    /// parts. Nothing is allocated.
    pub fn share<W: Send, R: Send>(
        &self,
        threads: usize,
        parts: usize,
        work: W,
        split: &(impl Fn(W, usize, usize) -> (W, W) + Sync),
        run: &(impl Fn(W) -> R + Sync),
        join: &(impl Fn(R, R) -> R + Sync),
    ) -> R {
        let threads = threads.min(parts);
        if threads <= 1 {
            return in_default_environment(|| run(work));
        }
        let queue = Mutex::new(Queue { rest: Some(work), parts, begun: 0, done: None });
        let next = || {
            let mut queue = lock(&queue);
            let rest = queue.rest.take()?;
            queue.begun += 1;
            if queue.parts == 1 {
                return Some(rest);
            }
            let (part, rest) = split(rest, 1, queue.parts);
            queue.parts -= 1;
            queue.rest = Some(rest);
            Some(part)
        };
        self.call_on(threads, &|| {
            while let Some(part) = next() {
                let result = run(part);
                let mut queue = lock(&queue);
                queue.begun -= 1;
                queue.done = Some(match queue.done.take() {
                    Some(done) => join(done, result),
                    None => result,
                });
            }
        });
        let queue = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
        assert!(queue.begun == 0, "a part has panicked, and the executor has not said so");
        queue.done.unwrap_or_else(|| unreachable!("there is a part, and it has been done"))
    }

    /// Calls `work` on each of `threads` threads, which have a part each of the scratch memory that
    /// was lent, and then here, for what the executor has left out. It is compiled once: each
    /// operation, type and view has a work of its own.
    fn call_on(&self, threads: usize, work: &(dyn Fn() + Sync)) {
        with_lent(|memory| {
            let each = memory.len() / threads / 64 * 64;
            let memory = Mutex::new(memory);
            let body = |_: usize| {
                let own = {
                    let mut memory = lock(&memory);
                    let all = std::mem::take(&mut *memory);
                    let (own, rest) = all.split_at_mut(each.min(all.len()));
                    *memory = rest;
                    own
                };
                // The thread belongs to somebody else, with an environment of its own. Its own
                // memory is used if no other is given.
                in_default_environment(|| if own.is_empty() { work() } else { lend(own, work) });
            };
            match self.executor {
                Some(executor) => executor.parallel_for(threads, &body),
                #[cfg(feature = "rayon")]
                None => spread(0, threads, &body),
                #[cfg(not(feature = "rayon"))]
                None => {}
            }
            in_default_environment(work);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// Calls all bodies and keeps their panics to itself.
    struct Swallows;

    impl Executor for Swallows {
        fn threads(&self) -> usize {
            3
        }

        fn parallel_for(&self, count: usize, body: &(dyn Fn(usize) + Sync)) {
            for i in 0..count {
                let _ = catch_unwind(AssertUnwindSafe(|| body(i)));
            }
        }
    }

    #[test]
    fn a_swallowed_panic_of_a_part_is_no_success() {
        let crew = Crew { threads: Threads::Auto, executor: Some(&Swallows) };
        let sum_but = |bad: usize| {
            let run = |(from, to): (usize, usize)| {
                assert!(!(from..to).contains(&bad), "asked for");
                (from..to).sum::<usize>()
            };
            let split = |(from, to): (usize, usize), at: usize, of: usize| {
                let middle = from + (to - from) * at / of;
                ((from, middle), (middle, to))
            };
            catch_unwind(AssertUnwindSafe(|| {
                crew.share(3, 5, (0, 100), &split, &run, &|a, b| a + b)
            }))
        };
        assert_eq!(sum_but(100).expect("no panic"), 4950);
        for bad in [0, 50, 99] {
            assert!(sum_but(bad).is_err(), "{bad}");
        }
    }
}
