//! An allocator that counts, for programs of tests that have it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counting the allocations of the current thread.
struct Counting;

thread_local! {
    /// The allocations of this thread so far.
    pub static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every method calls the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending is not counted.
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as this function's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: as this function's.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
