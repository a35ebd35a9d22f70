//! The floating-point environment of a call. A call computes in the default one (rounding to
//! nearest, subnormal numbers kept, no traps), whatever the caller's thread has set, and restores
//! the caller's, with the flags that it had raised.
//!
//! The compiler does not know of control words and may move arithmetic across a change of them. It
//! cannot move what it does not see: [`Environment`] is used around indirect calls only, and a
//! function called by [`in_default_environment`] finds its arguments, and leaves its result, behind
//! a pointer that came out of assembly.

/// The control and status word MXCSR.
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod word {
    use std::arch::asm;

    pub(super) type Word = u32;

    /// The control bits: subnormals as zeros on input and output, rounding, masks of exceptions.
    /// All others are flags.
    const CONTROL: u32 = 0xffc0;
    const DEFAULT: u32 = 0x1f80;

    #[inline(always)]
    pub(super) fn read() -> Word {
        let mut word = 0;
        // SAFETY: writes four bytes to where they may be written.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack, preserves_flags)) };
        word
    }

    #[inline(always)]
    pub(super) fn write(word: Word) {
        // SAFETY: the word was read, or made of one that was, so that no reserved bit is set.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const word, options(nostack, preserves_flags)) };
    }

    /// Writes without a look at the present word: on Zen 5 a write costs
    /// nothing, and a read, which waits for the arithmetic before it, 5 ns.
    #[inline(always)]
    pub(super) fn restore(word: Word) {
        write(word);
    }

    #[inline(always)]
    pub(super) fn is_default(word: Word) -> bool {
        word & CONTROL == DEFAULT
    }

    /// The default control bits, and the flags as they are.
    pub(super) fn default_of(word: Word) -> Word {
        word & !CONTROL | DEFAULT
    }
}

/// The control register FPCR and the status register FPSR.
#[cfg(all(target_arch = "aarch64", not(miri)))]
mod word {
    use std::arch::asm;

    pub(super) type Word = [u64; 2];

    #[inline(always)]
    pub(super) fn read() -> Word {
        let (control, status);
        // SAFETY: the registers of the thread's own are read.
        unsafe {
            asm!("mrs {}, fpcr", "mrs {}, fpsr", out(reg) control, out(reg) status,
                 options(nostack, preserves_flags));
        }
        [control, status]
    }

    #[inline(always)]
    pub(super) fn write([control, status]: Word) {
        // SAFETY: what is written was read there, or is the default.
        unsafe {
            asm!("msr fpcr, {}", "msr fpsr, {}", in(reg) control, in(reg) status,
                 options(nostack, preserves_flags));
        }
    }

    /// Writes the flags alone if the caller's control word is the default, which is in force
    /// already.
    #[inline(always)]
    pub(super) fn restore(word @ [control, status]: Word) {
        if control != 0 {
            return write(word);
        }
        // SAFETY: the status was read there.
        unsafe { asm!("msr fpsr, {}", in(reg) status, options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    pub(super) fn is_default([control, _]: Word) -> bool {
        control == 0
    }

    /// The default control bits, and the flags as they are.
    pub(super) fn default_of([_, status]: Word) -> Word {
        [0, status]
    }
}

/// Other CPUs compute in the environment of the caller.
#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod word {
    pub(super) type Word = ();

    pub(super) fn read() -> Word {}

    pub(super) fn write((): Word) {}

    pub(super) fn restore((): Word) {}

    pub(super) fn is_default((): Word) -> bool {
        true
    }

    pub(super) fn default_of((): Word) -> Word {}
}

/// Guard of the default environment. Dropping it, by a panic, too, restores the caller's, with its
/// flags.
#[derive(Debug)]
pub(crate) struct Environment {
    caller: word::Word,
}

impl Environment {
    #[inline(always)]
    pub(crate) fn enter() -> Self {
        let caller = word::read();
        if !word::is_default(caller) {
            set_default(caller);
        }
        Self { caller }
    }
}

impl Drop for Environment {
    #[inline(always)]
    fn drop(&mut self) {
        word::restore(self.caller);
    }
}

#[cold]
#[inline(never)]
fn set_default(caller: word::Word) {
    word::write(word::default_of(caller));
}

/// Calls `f` in the default floating-point environment, and restores the caller's with its flags.
/// Inside another such call it costs about 4 ns.
pub fn in_default_environment<R>(f: impl FnOnce() -> R) -> R {
    let mut call = (Some(f), None);
    {
        let _environment = Environment::enter();
        let call = hidden(&mut call);
        call.1 = call.0.take().map(|f| f());
    }
    call.1.unwrap_or_else(|| unreachable!("it has been called"))
}

/// The same reference, in a way that the compiler cannot see through.
#[inline(always)]
fn hidden<T>(place: &mut T) -> &mut T {
    #[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
    {
        let mut p: *mut T = place;
        // SAFETY: nothing is done, and so the pointer is the reference that it was made of.
        unsafe {
            std::arch::asm!("/* {} */", inout(reg) p, options(nostack, preserves_flags));
            &mut *p
        }
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    place
}
