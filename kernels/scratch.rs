//! Memory that is used again by the next call of the same thread.

use std::cell::Cell;
use std::mem::MaybeUninit;

/// A cache line; so scratch memory starts at one.
#[repr(align(64))]
struct Line {
    _bytes: [u8; 64],
}

thread_local! {
    /// What the last call of this thread left.
    static SPARE: Cell<Vec<MaybeUninit<Line>>> = const { Cell::new(Vec::new()) };
}

/// Uninitialised memory, handed back when dropped.
pub(crate) struct Scratch(Vec<MaybeUninit<Line>>);

impl Scratch {
    /// Room for `n` elements of type `E`, which must not need more alignment than a cache line has. `None` if there is no memory.
    pub(crate) fn take<E>(n: usize) -> Option<Self> {
        let lines = n.checked_mul(size_of::<E>())?.div_ceil(size_of::<Line>());
        // A thread that is ending has no spare any more.
        let mut memory = SPARE.try_with(Cell::take).unwrap_or_default();
        if memory.capacity() < lines {
            memory.try_reserve_exact(lines).ok()?;
        }
        Some(Self(memory))
    }

    /// The memory: as many elements as were asked for.
    pub(crate) fn as_mut_ptr<E>(&mut self) -> *mut E {
        self.0.as_mut_ptr().cast()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.0);
        // Where that fails the memory is freed.
        let _ = SPARE.try_with(|spare| spare.set(memory));
    }
}
