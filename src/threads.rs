//! The number of threads that is worthwhile for a call.

use std::num::NonZeroUsize;

use crate::executor::Crew;

/// How many threads a call may use. Without the feature `rayon` every call is serial, except those
/// with an [`Executor`](crate::Executor).
///
/// ```
/// use softmax::{Exec, MatrixMut, Softmax, Threads};
/// let mut x = [0.0f32; 64];
/// for threads in [Threads::Serial, Threads::Exactly(2.try_into().unwrap())] {
///     let exec = Exec::new().threads(threads);
///     Softmax::new().exec(exec).softmax_in_place(MatrixMut::new(&mut x, 2)?)?;
///     assert_eq!(x, [0.5; 64]);
/// }
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Threads {
    /// As many threads of the current rayon pool as are worthwhile for the amount of work. A call
    /// from within `pool.install(..)` uses that pool, any other call the global pool; small calls
    /// start no threads.
    #[default]
    Auto,
    /// Only the calling thread.
    Serial,
    /// The same as `Auto`, with at most this many threads at the same time.
    AtMost(NonZeroUsize),
    /// This many threads of the current pool, however small the call is, for callers who know that
    /// their threads are awake.
    Exactly(NonZeroUsize),
}

/// Calls with fewer elements are not shared among threads, for any operation: some 50 microseconds
/// of work.
const LEAST: usize = 1 << 17;

/// How many threads may work on this many elements. It asks rayon, which may start its threads,
/// only if there is much to do.
pub(crate) fn available(crew: &Crew, elements: usize) -> usize {
    let most = match crew.threads {
        Threads::Serial => 1,
        Threads::AtMost(n) => n.get(),
        Threads::Exactly(n) => n.get(),
        Threads::Auto => usize::MAX,
    };
    let exactly = matches!(crew.threads, Threads::Exactly(_));
    if most == 1 || (elements < LEAST && !exactly) {
        return 1;
    }
    match crew.executor {
        // Its threads are assumed to be awake.
        Some(executor) => most.min(executor.threads()).max(1),
        #[cfg(feature = "rayon")]
        None => most.min(pool::available(elements, exactly)),
        #[cfg(not(feature = "rayon"))]
        None => 1,
    }
}

/// Runs `f` on this thread, and on the threads of the pool that shares calls from outside any pool,
/// if there is one.
pub(crate) fn everywhere(f: impl Fn() + Sync) {
    f();
    #[cfg(feature = "rayon")]
    if pool::is_made() {
        rayon::broadcast(|_| f());
    }
}

/// The current rayon pool: that of this thread, or the global one.
#[cfg(feature = "rayon")]
mod pool {
    use std::cell::Cell;
    use std::error::Error;
    use std::panic::catch_unwind;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::sync::{OnceLock, mpsc};
    use std::time::{Duration, Instant};
    use std::{process, thread};

    use softmax_kernels::in_default_environment;

    /// Calls from within a pool are shared from this many elements on: some 70 microseconds of
    /// work. The caller processes the first range, and then every range that no other thread has
    /// taken. At this size two threads were 1.07 times as fast even if the second one slept at
    /// first, and 1.7 times if it was awake; at half the size they lost up to a tenth.
    const IN_POOL: usize = 1 << 18;

    /// The elements that a thread processes in a nanosecond, about.
    const SPEED: f64 = 2.5;

    /// A call from outside the pool is shared if it would take this many times as long on one
    /// thread as waking the threads takes, because its caller sleeps, too, and must be woken.
    /// Measured on a virtual machine with two cores, where waking takes 0.15 to 0.2 milliseconds:
    /// two threads take half the time of one plus 0.2 to 0.8 milliseconds, so they are as fast as
    /// one somewhere between 2 and 4 million elements. `docs/performance.md` has the numbers.
    const WORTH: f64 = 8.0;

    /// How many threads of the pool may work on this many elements.
    pub(super) fn available(elements: usize, exactly: bool) -> usize {
        let in_pool = rayon::current_thread_index().is_some();
        if !(if in_pool { is_at_home() } else { has_global() }) {
            return 1;
        }
        match rayon::current_num_threads() {
            1 => 1,
            n if exactly => n,
            n if in_pool && elements >= IN_POOL => n,
            _ if in_pool => 1,
            n if is_worth_waking(elements) => n,
            _ => 1,
        }
    }

    /// Whether this thread of a pool is in the process in which it first came here. After a fork
    /// the child has only this thread.
    fn is_at_home() -> bool {
        thread_local! {
            static HOME: Cell<u32> = const { Cell::new(0) };
        }
        let here = process::id();
        HOME.try_with(|home| {
            if home.get() == 0 {
                home.set(here);
            }
            home.get() == here
        })
        .unwrap_or(false)
    }

    /// The process that first used rayon's global pool.
    static OWNER: AtomicU32 = AtomicU32::new(0);

    /// Whether its threads have answered.
    static ANSWERED: AtomicBool = AtomicBool::new(false);

    /// Whether rayon's global pool can be used; creates it if necessary. It cannot be used in a
    /// process that was forked from the one that has it: the threads do not exist there, and they
    /// may have held locks. Nor can it if no thread can be started, which is found out once.
    fn has_global() -> bool {
        static ASKED: OnceLock<()> = OnceLock::new();
        let here = process::id();
        let owner = OWNER.compare_exchange(0, here, Ordering::Relaxed, Ordering::Relaxed);
        if owner.is_err_and(|owner| owner != here) {
            return false;
        }
        // No other process waits for this lock.
        ASKED.get_or_init(|| in_default_environment(ask));
        ANSWERED.load(Ordering::Acquire)
    }

    fn ask() {
        match rayon::ThreadPoolBuilder::new().build_global() {
            Ok(()) => ANSWERED.store(true, Ordering::Release),
            // No thread can be started.
            Err(e) if e.source().is_some() => {}
            // Another caller has created it or tried to, maybe in the process that this one was
            // forked from. Threads that are busy answer later.
            Err(_) => {
                let (tell, told) = mpsc::channel();
                let answer = move || {
                    ANSWERED.store(true, Ordering::Release);
                    // The receiver may be gone.
                    let _ = tell.send(());
                };
                if catch_unwind(|| rayon::spawn(answer)).is_ok() {
                    let _ = told.recv_timeout(Duration::from_millis(100));
                }
            }
        }
    }

    /// Whether the global pool's threads exist, without starting any.
    pub(super) fn is_made() -> bool {
        OWNER.load(Ordering::Relaxed) == process::id() && ANSWERED.load(Ordering::Acquire)
    }

    fn is_worth_waking(elements: usize) -> bool {
        let wake = wake();
        in_default_environment(|| elements as f64 / SPEED >= WORTH * wake.as_nanos() as f64)
    }

    /// The time to wake a sleeping thread and get an answer: 10 microseconds on many machines, more
    /// than 100 on virtual ones. It is measured in the first call that may need it, which takes a
    /// millisecond or two, with a new thread: rayon's may be busy, or wait for this very caller.
    fn wake() -> Duration {
        static WAKE: OnceLock<Duration> = OnceLock::new();
        *WAKE.get_or_init(|| measure().unwrap_or(Duration::MAX))
    }

    /// `None` if no thread can be started.
    fn measure() -> Option<Duration> {
        let (ask, asked) = mpsc::channel::<()>();
        let (answer, answered) = mpsc::channel();
        let echo = move || asked.iter().try_for_each(|()| answer.send(()));
        let thread = thread::Builder::new().spawn(echo).ok()?;
        let once = |_| {
            // This is long enough for the other thread to fall asleep.
            thread::sleep(Duration::from_micros(200));
            let start = Instant::now();
            ask.send(()).ok()?;
            answered.recv().ok()?;
            Some(start.elapsed())
        };
        let least = (0..5).filter_map(once).min();
        drop(ask);
        // It returns nothing.
        let _ = thread.join();
        least
    }
}
