//! Scratch memory: what a call needs while it runs. It is the thread's own, which the next call
//! uses again, or lent by the caller.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;
use std::ptr::NonNull;

use crate::mem::memory::{LINE, PAGE, offset};
use crate::num::element::Plain;
use crate::num::exp2::MOST_LANES;

/// Cache lines of initialised memory.
#[derive(Clone, Copy)]
struct Lines {
    base: *mut u8,
    count: usize,
}

impl Lines {
    /// No lines; aligned all the same.
    const NONE: Self = Self { base: ptr::without_provenance_mut(LINE), count: 0 };

    fn layout(count: usize) -> Option<Layout> {
        Layout::from_size_align(count.checked_mul(LINE)?, LINE).ok()
    }

    /// Allocates at least one line.
    fn new(count: usize) -> Option<Self> {
        let count = count.max(1);
        let layout = Self::layout(count)?;
        // SAFETY: the layout is not empty.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { base: base.as_ptr(), count })
    }

    /// Frees lines that [`Lines::new`] gave.
    ///
    /// # Safety
    /// The lines came from there, and nothing uses them any more.
    unsafe fn free(self) {
        if let Some(layout) = Self::layout(self.count).filter(|_| self.count > 0) {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(self.base, layout) };
        }
    }
}

/// The memory that this thread's calls take scratch from.
#[derive(Clone, Copy)]
struct Arena {
    lines: Lines,
    /// Lines in use: the first `used` ones.
    used: usize,
    /// How many [`Scratch`] are in use.
    pieces: usize,
    /// Lines in use that did not fit, and were allocated apart.
    outside: usize,
    /// The most lines that were in use at the same time: the size that the thread's own memory
    /// should have.
    wanted: usize,
    /// How deep [`lend`] is nested.
    depth: usize,
}

impl Arena {
    const EMPTY: Self =
        Self { lines: Lines::NONE, used: 0, pieces: 0, outside: 0, wanted: 0, depth: 0 };

    /// Whether this is the thread's own memory and not in use.
    fn is_free(&self) -> bool {
        self.pieces == 0 && self.depth == 0
    }

    /// Notes that `count` more lines are wanted. Whether [`grow`] should run first.
    fn want(&mut self, count: usize) -> bool {
        let all = self.used.saturating_add(self.outside).saturating_add(count);
        self.wanted = self.wanted.max(all);
        self.is_small()
    }

    /// Whether this memory is free and smaller than it should be.
    fn is_small(&self) -> bool {
        self.is_free() && self.lines.count < self.wanted
    }

    /// Takes `count` lines: their address and the number of the first.
    fn take(&mut self, count: usize) -> Option<(*mut u8, usize)> {
        let start = self.used;
        if self.lines.count - start < count {
            return None;
        }
        self.used += count;
        self.pieces += 1;
        Some((self.lines.base.wrapping_add(start * LINE), start))
    }

    /// Gives lines back. Whether [`grow`] should run, so that the next call finds all that this one
    /// needed.
    fn give_back(&mut self, start: Option<usize>, count: usize) -> bool {
        let Some(start) = start else {
            self.outside -= count;
            return false;
        };
        self.pieces -= 1;
        if self.pieces == 0 {
            self.used = 0;
            return self.is_small();
        }
        if start + count == self.used {
            self.used = start;
        }
        false
    }
}

/// A thread's arena, freed with the thread.
struct Current(Cell<Arena>);

impl Drop for Current {
    fn drop(&mut self) {
        let arena = self.0.get();
        if arena.depth == 0 && arena.pieces == 0 {
            // SAFETY: it is the thread's own, and no scratch of it is in use.
            unsafe { arena.lines.free() };
        }
    }
}

thread_local! {
    static CURRENT: Current = const { Current(Cell::new(Arena::EMPTY)) };
}

/// Calls `f` with the thread's arena. `None` in a thread that is ending.
fn with_arena<R>(f: impl FnOnce(&mut Arena) -> R) -> Option<R> {
    CURRENT
        .try_with(|current| {
            let mut arena = current.0.get();
            let result = f(&mut arena);
            current.0.set(arena);
            result
        })
        .ok()
}

/// Makes the thread's own memory as large as it should be, if it is not in use.
///
/// The allocator may make calls of this library itself. So the old memory leaves the arena before
/// it is freed, and the new memory enters it after it is complete.
#[cold]
fn grow() {
    let small = with_arena(|arena| {
        arena.is_small().then(|| (std::mem::replace(&mut arena.lines, Lines::NONE), arena.wanted))
    });
    let Some((old, wanted)) = small.flatten() else { return };
    // SAFETY: it was the thread's own, and no scratch of it was in use.
    unsafe { old.free() };
    let new = Lines::new(wanted).unwrap_or(Lines::NONE);
    let spare = with_arena(|arena| {
        // An amount that the allocator refuses may never be asked for again.
        arena.wanted = arena.wanted.min(new.count);
        if arena.is_free() { std::mem::replace(&mut arena.lines, new) } else { new }
    });
    // SAFETY: no scratch of it is in use.
    unsafe { spare.unwrap_or(new).free() };
}

/// Frees the scratch memory that this thread keeps for its next call, unless a call is using it.
pub fn release_scratch() {
    let old = with_arena(|arena| {
        let free = arena.is_free();
        free.then(|| std::mem::replace(arena, Arena::EMPTY).lines)
    });
    if let Some(old) = old.flatten() {
        // SAFETY: it was the thread's own, and no scratch of it was in use.
        unsafe { old.free() };
    }
}

/// Scratch memory, given back when dropped. Initialised, with any contents.
pub(crate) struct Scratch {
    lines: Lines,
    /// The depth of [`lend`] at which it was taken.
    depth: Option<usize>,
    /// Its first line in the arena; `None` if it was allocated apart.
    start: Option<usize>,
    /// Not `Send`: the thread that took it drops it.
    here: PhantomData<*mut u8>,
}

impl Scratch {
    /// Takes room for `n` elements of type `E`, whose alignment is at most a cache line. `None` if
    /// there is no memory.
    pub(crate) fn take<E>(n: usize) -> Option<Self> {
        let count = n.checked_mul(size_of::<E>())?.div_ceil(LINE);
        if with_arena(|arena| arena.want(count)) == Some(true) {
            grow();
        }
        let (depth, place) = match with_arena(|arena| (arena.depth, arena.take(count))) {
            Some((depth, place)) => (Some(depth), place),
            None => (None, None),
        };
        if let Some((base, start)) = place {
            let lines = Lines { base, count };
            return Some(Self { lines, depth, start: Some(start), here: PhantomData });
        }
        let lines = Lines::new(count)?;
        with_arena(|arena| arena.outside += lines.count);
        Some(Self { lines, depth, start: None, here: PhantomData })
    }

    /// Takes room for a row of `n` elements and one vector more, at an address that does not hinder
    /// reading at `x` and writing at `y` ([`offset`]).
    pub(crate) fn take_row<E>(n: usize, x: usize, y: usize) -> Option<(Self, *mut E)> {
        let mut scratch = Self::take::<u8>(room_for_row::<E>(n))?;
        let row: *mut u8 = scratch.as_mut_ptr();
        let row = row.wrapping_add(offset(row.addr(), x, y)).cast();
        Some((scratch, row))
    }

    /// The memory, with the number of elements that was asked for.
    pub(crate) fn as_mut_ptr<E>(&mut self) -> *mut E {
        self.lines.base.cast()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Scratch of another depth is not given back: its memory is not used again in any case.
        let is_small = with_arena(|arena| {
            Some(arena.depth) == self.depth && arena.give_back(self.start, self.lines.count)
        });
        if is_small == Some(true) {
            grow();
        }
        if self.start.is_none() {
            // SAFETY: allocated for this scratch alone.
            unsafe { self.lines.free() };
        }
    }
}

/// Calls `f` with room for `n` elements, initialised with any contents. `None` if there is no
/// memory.
#[inline(always)]
pub fn with_room<E: Plain, R>(n: usize, f: impl FnOnce(&mut [E]) -> R) -> Option<R> {
    let mut scratch = Scratch::take::<E>(n)?;
    // SAFETY: there is room for n elements, initialised and aligned, and they are used for the time
    // of the call only.
    Some(f(unsafe { std::slice::from_raw_parts_mut(scratch.as_mut_ptr(), n) }))
}

/// The whole cache lines of a buffer.
fn lines_of(memory: &mut [u8]) -> Lines {
    let skipped = memory.as_ptr().align_offset(LINE);
    match memory.get_mut(skipped..) {
        Some(rest) => Lines { base: rest.as_mut_ptr(), count: rest.len() / LINE },
        None => Lines::NONE,
    }
}

/// The arena before [`lend`], restored when this is dropped, by a panic, too.
struct Before(Arena);

impl Drop for Before {
    fn drop(&mut self) {
        with_arena(|arena| *arena = self.0);
    }
}

/// Calls `f`. Its calls on this thread take their scratch from `memory` while it lasts, then from
/// the allocator.
pub fn lend<R>(memory: &mut [u8], f: impl FnOnce() -> R) -> R {
    let lines = lines_of(memory);
    let before = with_arena(|arena| {
        let depth = arena.depth + 1;
        Before(std::mem::replace(arena, Arena { lines, depth, ..Arena::EMPTY }))
    });
    let result = f();
    drop(before);
    result
}

/// Calls `f` with the rest of the memory that was lent to this thread, or an empty slice if none
/// was.
pub fn with_lent<R>(f: impl FnOnce(&mut [u8]) -> R) -> R {
    let rest = |arena: &Arena| if arena.depth > 0 { arena.lines.count - arena.used } else { 0 };
    let rest = with_arena(|arena| rest(arena)).unwrap_or(0);
    let mut scratch = (rest > 0).then(|| Scratch::take::<[u8; LINE]>(rest)).flatten();
    let Some(scratch) = &mut scratch else { return f(&mut []) };
    // SAFETY: there are so many lines, and they are used for the time of the call only.
    f(unsafe { std::slice::from_raw_parts_mut(scratch.as_mut_ptr(), rest * LINE) })
}

/// Bytes of scratch memory for `n` elements.
pub const fn room_for<E>(n: usize) -> usize {
    n.saturating_mul(size_of::<E>()).saturating_add(LINE - 1) / LINE * LINE
}

/// Bytes of scratch memory for a row of `n` elements: with a vector more, and a page to choose its
/// place in.
pub const fn room_for_row<E>(n: usize) -> usize {
    room_for::<E>(n.saturating_add(MOST_LANES)).saturating_add(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(scratch: &mut Scratch) -> usize {
        scratch.as_mut_ptr::<u8>().addr()
    }

    #[test]
    fn memory_is_used_again_in_any_order() {
        let mut a = Scratch::take::<u64>(100).unwrap();
        let first = address(&mut a);
        // Taken while the first is in use, so elsewhere; the next time there is room for both.
        drop(Scratch::take::<u64>(1100));
        drop(a);
        let mut a = Scratch::take::<u64>(100).unwrap();
        let base = address(&mut a);
        let mut b = Scratch::take::<u64>(1000).unwrap();
        assert_eq!(address(&mut b), base + 832);
        drop(a);
        let mut c = Scratch::take::<u8>(1).unwrap();
        assert_eq!(address(&mut c), base + 832 + 8000);
        drop((b, c));
        assert_eq!(address(&mut Scratch::take::<u64>(1000).unwrap()), base);
        assert!(first.is_multiple_of(LINE) && base.is_multiple_of(LINE));
    }

    #[test]
    fn lent_memory_is_used_while_it_lasts() {
        let mut memory = [0u8; 64 * 5];
        let range = memory.as_ptr_range();
        let inside = |p: usize| (range.start.addr()..range.end.addr()).contains(&p);
        let own = address(&mut Scratch::take::<u8>(1).unwrap());
        lend(&mut memory, || {
            with_room(16, |room: &mut [f32]| {
                room.fill(1.0);
                assert!(inside(room.as_ptr().addr()));
                with_lent(|rest| {
                    // One of five lines is taken; another is lost if the memory does not start at a
                    // line.
                    assert!(matches!(rest.len(), 192 | 256));
                    lend(rest, || {
                        assert!(inside(address(&mut Scratch::take::<u8>(128).unwrap())));
                        assert!(!inside(address(&mut Scratch::take::<u8>(1000).unwrap())));
                    });
                    with_lent(|rest| assert!(rest.is_empty()));
                });
            })
            .unwrap();
        });
        assert_eq!(address(&mut Scratch::take::<u8>(1).unwrap()), own);
        with_lent(|rest| assert!(rest.is_empty()));
        lend(&mut [], || assert!(Scratch::take::<u8>(1).is_some()));
        // In a thread that has no memory yet, an empty scratch has an address, too.
        lend(&mut [], || assert!(address(&mut Scratch::take::<u64>(0).unwrap()) > 0));
        assert!(Scratch::take::<u64>(usize::MAX / 4).is_none());
    }

    #[test]
    fn released_memory_is_made_again() {
        let lines = || with_arena(|arena| (arena.lines.count, arena.wanted)).unwrap();
        drop(Scratch::take::<u8>(64 * 100));
        assert_eq!(lines(), (100, 100));
        release_scratch();
        assert_eq!(lines(), (0, 0));
        // Memory in use stays, and so does lent memory.
        let piece = Scratch::take::<u8>(64 * 3);
        release_scratch();
        assert_eq!(lines(), (3, 3));
        drop(piece);
        lend(&mut [0; 64 * 9], release_scratch);
        assert_eq!(lines(), (3, 3));
    }
}
