//! Signals that end the program.
//!
//! Most runs do not handle them: an output without a name disappears with the program, however that
//! ends. Where something must be done first, a thread waits for signals, does it, and then lets the
//! signal end the program as usual: so a shell sees the signal, and ends its loop. A long
//! computation does not delay this.
//!
//! A signal that was ignored when the program started stays ignored: that is how `nohup` and shells
//! keep programs alive.

use std::path::{Path, PathBuf};

/// The number of a signal.
type Signal = std::ffi::c_int;

/// Removes this file, which is about to be created, if a signal ends the program.
pub fn remove(path: &Path) {
    waiting::with(|state| state.files.push(path.to_owned()));
}

/// Forgets a file: it has its final name, or is gone.
pub fn keep(path: &Path) {
    waiting::with(|state| state.files.retain(|file| file != path));
}

/// From now on the first signal prints a line and does not end the program; [`seen`] tells of it.
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
        // If this returns, the caller ends the program.
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
    #[cfg(not(unix))]
    let _ = signal;
}

/// Makes a write beyond a limit of the file's size an error of that write instead of the end of the
/// program.
pub fn survive_size_limit() {
    #[cfg(unix)]
    // If this fails, such a write ends the program.
    let _ = signal_hook::flag::register(
        signal_hook::consts::SIGXFSZ,
        std::sync::Arc::<std::sync::atomic::AtomicBool>::default(),
    );
}

/// The tasks for when a signal arrives.
#[derive(Debug, Default)]
struct State {
    files: Vec<PathBuf>,
    /// The line to print.
    postponed: Option<&'static str>,
    seen: Option<Signal>,
}

impl State {
    fn clean(&mut self) {
        for file in self.files.drain(..) {
            // The file may have its final name already.
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

    /// Reads or changes the tasks. The first call starts the thread.
    pub fn with<R>(f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        f(state.get_or_insert_with(|| {
            #[cfg(unix)]
            start();
            State::default()
        }))
    }

    /// Without a thread, signals have their usual effect.
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
            // Waits until the thread is ready, or has given up.
            let _ = starts.recv();
        }
    }

    #[cfg(unix)]
    fn arrived(signal: super::Signal) {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        let state = state.get_or_insert_default();
        if let Some(line) = state.postponed.take() {
            state.seen = Some(signal);
            // A failure here cannot be reported.
            let _ = writeln!(std::io::stderr(), "softmax: {line}");
            return;
        }
        // The lock is kept, so that no file is created or renamed meanwhile.
        state.clean();
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
}

/// The signals that end a program by default and can be caught, except those that its own errors
/// raise and those that were ignored at the start.
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

/// One bit for each ignored signal, from 1 on, as Linux tells. Other systems do not tell it to safe
/// code.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
