//! How many threads a call is worth.

use crate::Threads;
use crate::executor::Crew;

/// Elements below which nothing is shared among threads, whatever they cost: some 50 microseconds of work.
const LEAST: usize = 1 << 17;

/// How many threads may work on this many elements. Asks rayon, which may start its threads, only if there is much to do.
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
        // Its threads are taken to be awake.
        Some(executor) => most.min(executor.threads()).max(1),
        #[cfg(feature = "rayon")]
        None => most.min(pool::available(elements, exactly)),
        #[cfg(not(feature = "rayon"))]
        None => 1,
    }
}

/// The current rayon pool.
#[cfg(feature = "rayon")]
mod pool {
    use std::sync::{OnceLock, mpsc};
    use std::thread;
    use std::time::{Duration, Instant};

    use softmax_kernels::in_default_environment;

    /// Elements from which on a call from within a pool is shared: some 70 microseconds of work. There the caller does the first part
    /// itself, and the others, too, if no other thread has taken them by then: at this size two threads were ahead by 1.07 even when the
    /// second slept at first, and by 1.7 when it was awake; at half of it they lost up to a tenth.
    const IN_POOL: usize = 1 << 18;

    /// Elements that a thread does in a nanosecond, about.
    const SPEED: f64 = 2.5;

    /// How many times longer than waking the threads a call from outside the pool must take on one thread to be shared among them: its
    /// caller sleeps, too, and must be woken. Measured on a virtual
    /// machine with two cores, where waking takes 0.15 to 0.2 milliseconds: two threads take half the time of one and 0.2 to 0.8
    /// milliseconds, so that they draw level between 2 and 4 million elements. `docs/performance.md` has the numbers.
    const WORTH: f64 = 8.0;

    /// How many of its threads may work on this many elements.
    pub(crate) fn available(elements: usize, exactly: bool) -> usize {
        match rayon::current_num_threads() {
            1 => 1,
            n if exactly => n,
            n if elements >= IN_POOL && rayon::current_thread_index().is_some() => n,
            n if is_worth_waking(elements) => n,
            _ => 1,
        }
    }

    fn is_worth_waking(elements: usize) -> bool {
        let wake = wake();
        in_default_environment(|| elements as f64 / SPEED >= WORTH * wake.as_nanos() as f64)
    }

    /// How long it takes to wake a sleeping thread and to hear from it: 10 microseconds on many machines, more than 100 on virtual
    /// ones. Measured at the first call that might want to know, which takes a millisecond or two, with a thread made for
    /// it: rayon's may be busy, or waiting for the very caller.
    fn wake() -> Duration {
        static WAKE: OnceLock<Duration> = OnceLock::new();
        *WAKE.get_or_init(|| measure().unwrap_or(Duration::MAX))
    }

    /// `None` if there can be no thread.
    fn measure() -> Option<Duration> {
        let (ask, asked) = mpsc::channel::<()>();
        let (answer, answered) = mpsc::channel();
        let echo = move || asked.iter().try_for_each(|()| answer.send(()));
        let thread = thread::Builder::new().spawn(echo).ok()?;
        let once = |_| {
            // Long enough for the other thread to fall asleep.
            thread::sleep(Duration::from_micros(200));
            let start = Instant::now();
            ask.send(()).ok()?;
            answered.recv().ok()?;
            Some(start.elapsed())
        };
        let least = (0..5).filter_map(once).min();
        drop(ask);
        // It has nothing to tell but that it is over.
        let _ = thread.join();
        least
    }
}
