//! Memory between guard pages, of which every byte is accounted for.

use std::ptr::NonNull;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};

const PAGE: usize = 4096;

/// Bytes and number of the slots: the smallest that fits is taken.
const SLOTS: [(usize, usize); 4] = [(PAGE, 40), (4 * PAGE, 16), (16 * PAGE, 16), (128 * PAGE, 14)];

/// The contents of a slot outside of the memory that was taken.
const CANARY: u8 = 0xA5;

/// Usable pages between two guard pages.
#[derive(Debug)]
struct Slot {
    start: NonNull<u8>,
    len: usize,
    used: bool,
    /// The bytes before the call.
    before: Vec<u8>,
}

/// A region that a call may write: `rows` runs of `len` bytes, `stride` bytes apart.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub start: *mut u8,
    pub rows: usize,
    pub len: usize,
    pub stride: usize,
}

impl Written {
    /// A single run; empty if it is longer than possible.
    pub fn of<T>(start: *mut T, n: usize) -> Self {
        let len = n.checked_mul(size_of::<T>()).filter(|&len| len < 1 << 62).unwrap_or(0);
        Self { start: start.cast(), rows: 1, len, stride: len }
    }

    /// The starts of the runs.
    pub fn pieces(&self) -> impl Iterator<Item = usize> + use<> {
        let Self { start, rows, len, stride } = *self;
        let rows = if len == 0 || start.is_null() { 0 } else { rows };
        (0..rows).map(move |row| start.addr() + row * stride)
    }

    /// Whether the two regions share a byte.
    pub fn meets(&self, other: &Self) -> bool {
        self.pieces().any(|a| other.pieces().any(|b| a < b + other.len && b < a + self.len))
    }
}

/// All slots.
#[derive(Debug)]
pub struct Memory {
    slots: Vec<Slot>,
}

impl Memory {
    pub fn new() -> Self {
        let mut slots = Vec::new();
        for (len, count) in SLOTS {
            for _ in 0..count {
                slots.push(Slot { start: map(len), len, used: false, before: Vec::new() });
            }
        }
        Self { slots }
    }

    /// Frees all slots.
    pub fn clear(&mut self) {
        for slot in &mut self.slots {
            slot.used = false;
        }
    }

    /// The largest possible request.
    pub const MOST: usize = SLOTS[SLOTS.len() - 1].0;

    /// Takes `len` bytes, filled with canaries, next to the guard page after them or before them,
    /// or `shift` bytes away from it.
    pub fn take(&mut self, len: usize, at_end: bool, shift: usize) -> *mut u8 {
        let fits = |slot: &&mut Slot| !slot.used && len + shift <= slot.len;
        let Some(slot) = self.slots.iter_mut().find(fits) else {
            panic!("the fuzz target has no slot left for {len} bytes")
        };
        slot.used = true;
        let at = if at_end { slot.len - len - shift } else { shift };
        // SAFETY: the slot is mapped, and nobody else uses it; `at` is in it or its end.
        unsafe {
            slot.start.as_ptr().write_bytes(CANARY, slot.len);
            slot.start.as_ptr().add(at)
        }
    }

    /// Remembers all bytes.
    pub fn remember(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| slot.used) {
            // SAFETY: mapped, and used by no call now.
            let bytes = unsafe { std::slice::from_raw_parts(slot.start.as_ptr(), slot.len) };
            slot.before.clear();
            slot.before.extend_from_slice(bytes);
        }
    }

    /// Restores all bytes.
    pub fn restore(&mut self) {
        for slot in self.slots.iter().filter(|slot| slot.used) {
            // SAFETY: mapped, as long as what was remembered, and used by no call now.
            unsafe {
                slot.start.as_ptr().copy_from_nonoverlapping(slot.before.as_ptr(), slot.len);
            }
        }
    }

    /// The first byte that has changed outside of `written`; bytes inside of it are remembered.
    pub fn changed(&mut self, written: &[Written]) -> Option<String> {
        for slot in self.slots.iter_mut().filter(|slot| slot.used) {
            // SAFETY: mapped, and used by no call now.
            let now = unsafe { std::slice::from_raw_parts(slot.start.as_ptr(), slot.len) };
            let start = slot.start.addr().get();
            let mut expected = std::borrow::Cow::Borrowed(&slot.before[..]);
            for w in written {
                for piece in w.pieces().filter(|p| (start..start + slot.len).contains(p)) {
                    let range = piece - start..piece - start + w.len;
                    expected.to_mut()[range.clone()].copy_from_slice(&now[range]);
                }
            }
            if now != &expected[..] {
                let at = now.iter().zip(&expected[..]).position(|(a, b)| a != b).unwrap_or(0);
                return Some(format!(
                    "byte {at} of {} at {:?} has become {:#x}, was {:#x}; written: {written:?}",
                    slot.len, slot.start, now[at], expected[at]
                ));
            }
        }
        None
    }
}

/// Maps bytes between two inaccessible pages.
fn map(len: usize) -> NonNull<u8> {
    let none = ProtFlags::empty();
    // SAFETY: a mapping of its own; the middle of it, which is there, becomes usable.
    let start = unsafe {
        mmap_anonymous(std::ptr::null_mut(), len + 2 * PAGE, none, MapFlags::PRIVATE).and_then(
            |guard| {
                let start = guard.cast::<u8>().add(PAGE);
                mprotect(start.cast(), len, MprotectFlags::READ | MprotectFlags::WRITE)?;
                Ok(start)
            },
        )
    };
    let start = start.ok().and_then(NonNull::new);
    start.unwrap_or_else(|| panic!("no mapping of {len} bytes"))
}
