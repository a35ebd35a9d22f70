//! How many threads a call is worth.

#[cfg(feature = "rayon")]
pub(crate) use sharing::available;

/// Without rayon every call is serial.
#[cfg(not(feature = "rayon"))]
pub(crate) fn available(_: crate::Threads, _: usize) -> usize {
    1
}

#[cfg(feature = "rayon")]
mod sharing {
    use std::sync::{OnceLock, mpsc};
    use std::thread;
    use std::time::{Duration, Instant};

    use crate::Threads;

    /// Elements below which nothing is shared among threads, whatever they cost: some 50 microseconds of work.
    const LEAST: usize = 1 << 17;

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

    /// How many threads may work on this many elements. Asks rayon, which may start its threads, only if there is much to do.
    pub(crate) fn available(threads: Threads, elements: usize) -> usize {
        let most = match threads {
            Threads::Serial => 1,
            Threads::AtMost(n) => n.get(),
            Threads::Exactly(n) => return n.get().min(rayon::current_num_threads()),
            Threads::Auto => usize::MAX,
        };
        if most == 1 || elements < LEAST {
            return 1;
        }
        match most.min(rayon::current_num_threads()) {
            1 => 1,
            n if elements >= IN_POOL && rayon::current_thread_index().is_some() => n,
            n if elements as f64 / SPEED >= WORTH * wake().as_nanos() as f64 => n,
            _ => 1,
        }
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
