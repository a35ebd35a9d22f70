//! Memory between two inaccessible pages: a load or store that reaches too far ends the process.

use std::marker::PhantomData;
use std::ptr;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::Pattern;

/// A multiple of every page size in use (4, 16 and 64 KiB), so that none has to be asked for.
pub const PAGE: usize = 1 << 16;

/// Which inaccessible page a slice touches.
#[derive(Clone, Copy, Debug)]
pub enum Edge {
    /// The slice starts right after the lower guard: elements before it must not be accessed.
    Lower,
    /// The slice ends right before the upper guard: elements after it must not be accessed.
    Upper,
}

pub const EDGES: [Edge; 2] = [Edge::Lower, Edge::Upper];

/// Room for elements between two inaccessible pages.
#[derive(Debug)]
pub struct Guarded<T> {
    /// The start of the mapping, which is the lower guard.
    pub base: *mut u8,
    /// Bytes between the guards.
    pub room: usize,
    elements: PhantomData<T>,
}

impl<T: Pattern> Guarded<T> {
    /// Room for at least `n` elements.
    pub fn new(n: usize) -> Self {
        let room = (n * size_of::<T>()).next_multiple_of(PAGE).max(PAGE);
        let total = room + 2 * PAGE;
        // SAFETY: without MAP_FIXED the system chooses an unused range; no existing memory is
        // affected.
        let base = unsafe {
            mmap_anonymous(ptr::null_mut(), total, ProtFlags::empty(), MapFlags::PRIVATE)
        };
        let base = base.expect("address space").cast::<u8>();
        let guarded = Self { base, room, elements: PhantomData };
        let middle = base.wrapping_add(PAGE).cast();
        // SAFETY: the range lies within the mapping made above, to which nothing refers yet.
        unsafe { mprotect(middle, room, MprotectFlags::READ | MprotectFlags::WRITE) }
            .expect("readable and writable pages");
        guarded
    }

    /// The `n` elements at an edge.
    pub fn at(&mut self, edge: Edge, n: usize) -> &mut [T] {
        let bytes = n * size_of::<T>();
        assert!(bytes <= self.room);
        let start = match edge {
            Edge::Lower => PAGE,
            Edge::Upper => PAGE + self.room - bytes,
        };
        let start = self.base.wrapping_add(start).cast::<T>();
        assert!(start.is_aligned());
        // SAFETY: the elements lie between the guards, in memory that the system zeroed and that
        // stays mapped as long as `self`, which is borrowed for as long as the slice; it is
        // aligned, and any bits are a `T`.
        unsafe { std::slice::from_raw_parts_mut(start, n) }
    }

    /// The `n` elements at an edge, to read.
    pub fn get(&self, edge: Edge, n: usize) -> &[T] {
        let bytes = n * size_of::<T>();
        assert!(bytes <= self.room);
        let start = match edge {
            Edge::Lower => PAGE,
            Edge::Upper => PAGE + self.room - bytes,
        };
        // SAFETY: as in `at`; the borrow of `self` prevents writes meanwhile.
        unsafe { std::slice::from_raw_parts(self.base.wrapping_add(start).cast::<T>(), n) }
    }

    /// A copy of `values` at an edge.
    pub fn copy(&mut self, edge: Edge, values: &[T]) -> &mut [T] {
        let slice = self.at(edge, values.len());
        slice.copy_from_slice(values);
        slice
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the range is the whole of this value's own mapping, and slices of it borrow the
        // value, so that none is left.
        let unmapped = unsafe { munmap(self.base.cast(), self.room + 2 * PAGE) };
        debug_assert!(unmapped.is_ok());
    }
}
