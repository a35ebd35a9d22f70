//! Signals that end the program.
//!
//! Most runs leave them alone: an output without a name goes away with the program, whatever ends
//! it, at once. Where there is something to do before, a thread waits for them, does it, and lets
//! the signal end the program as if nobody had waited: so a shell knows of it, and ends its loop. A
//! computation that takes long delays none of this.
//!
//! A signal that was ignored when the program started stays ignored: that is how `nohup` and shells
//! keep what they run alive.

use std::path::{Path, PathBuf};

/// The number of a signal.
type Signal = std::ffi::c_int;

/// Removes this file, which is about to be created, if a signal ends the program.
pub fn remove(path: &Path) {
    waiting::with(|state| state.files.push(path.to_owned()));
}

/// The file has its final name, or is gone.
pub fn keep(path: &Path) {
    waiting::with(|state| state.files.retain(|file| file != path));
}

/// From now on the first signal does not end the program, but prints a line, and is told by
/// [`seen`].
pub fn postpone(line: &'static str) {
    waiting::with(|state| state.postponed = Some(line));
}

/// The signal that was postponed, if there was one.
pub fn seen() -> Option<Signal> {
    waiting::with(|state| state.seen)
}

/// Ends the program by a signal.
pub fn die(signal: Signal) {
    #[cfg(unix)]
    {
        waiting::with(State::clean);
        // If this fails the caller ends the program.
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
    #[cfg(not(unix))]
    let _ = signal;
}

/// A write beyond a limit of the file's size is an error of the write then, rather than the end of
/// the program.
pub fn survive_size_limit() {
    #[cfg(unix)]
    // If this fails, such a write ends the program.
    let _ = signal_hook::flag::register(
        signal_hook::consts::SIGXFSZ,
        std::sync::Arc::<std::sync::atomic::AtomicBool>::default(),
    );
}

/// What is to be done when a signal arrives.
#[derive(Debug, Default)]
struct State {
    files: Vec<PathBuf>,
    /// What is printed.
    postponed: Option<&'static str>,
    seen: Option<Signal>,
}

impl State {
    fn clean(&mut self) {
        for file in self.files.drain(..) {
            // It is gone already if it just got its name.
            let _ = std::fs::remove_file(file);
        }
    }
}

mod waiting {
    #[cfg(unix)]
    use std::io::Write;
    use std::sync::{Mutex, PoisonError};

    use super::State;

    static STATE: Mutex<Option<State>> = Mutex::new(None);

    /// Looks at what is to be done, or changes it. The first time starts the thread.
    pub fn with<R>(f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        f(state.get_or_insert_with(|| {
            #[cfg(unix)]
            start();
            State::default()
        }))
    }

    /// If no thread can be had, signals do what they do without it.
    #[cfg(unix)]
    fn start() {
        use std::sync::mpsc;
        let (started, starts) = mpsc::channel();
        let wait = move || {
            let signals = signal_hook::iterator::Signals::new(super::caught());
            let Ok(mut signals) = signals else { return };
            if started.send(()).is_err() {
                return;
            }
            signals.forever().for_each(arrived);
        };
        let thread = std::thread::Builder::new().name("signals".into()).spawn(wait);
        if thread.is_ok() {
            // Nothing is left unprotected once this has been heard, or the thread has given up.
            let _ = starts.recv();
        }
    }

    #[cfg(unix)]
    fn arrived(signal: super::Signal) {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        let state = state.get_or_insert_default();
        if let Some(line) = state.postponed.take() {
            state.seen = Some(signal);
            // Nobody is left to tell if this fails.
            let _ = writeln!(std::io::stderr(), "softmax: {line}");
            return;
        }
        // The lock is kept, so that no file is created or gets its name meanwhile.
        state.clean();
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
}

/// What ends a program by default, but what its own mistakes raise and what cannot be caught;
/// without what was ignored at the start.
#[cfg(unix)]
fn caught() -> Vec<Signal> {
    use signal_hook::consts::*;
    let ends = [
        SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXCPU, SIGALRM, SIGVTALRM, SIGPROF, SIGUSR1, SIGUSR2,
        SIGBUS, SIGSYS, SIGTRAP,
    ];
    let ignored = ignored();
    ends.into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0).collect()
}

/// A bit for each signal that is ignored, from 1 on, as Linux has it. Other systems tell nobody who
/// writes safe code.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
