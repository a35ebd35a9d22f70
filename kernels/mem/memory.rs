//! What this CPU's memory wants: which stores, whether to be asked ahead, and loads and stores out
//! of each other's way.

use std::cell::Cell;
use std::sync::atomic::{AtomicU8, Ordering};

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;

/// Whether outputs that are larger than the caches are best written past them, and their inputs
/// asked for ahead by software.
///
/// Not on AMD's CPUs: on Zen 4 (EPYC, two cores of it), 131,072 x 1,024 f32 from and to ordinary
/// allocations, in G elements/s on one thread and on two: past the caches with asking ahead, 2.0
/// and 3.8; without, 2.1 and 4.1; by ordinary stores, asking ahead 4 KiB, 2.35 and 4.7; without
/// asking, 3.0 and 6.2. (memcpy: 3.1 and 6.1; a copy past the caches: 4.6 and 9.1. Stores past the
/// caches wait in the same queue as those of the exponentials, which a copy does not have.) On
/// Intel's it is the other way round: see `sweep/`.
///
/// The environment variable `SOFTMAX_STREAMS` says otherwise by 0 or 1. Read once.
pub(crate) fn streams() -> bool {
    if let Some(streams) = FOR_TESTS.get() {
        return streams;
    }
    // 2: not known yet. No lock: a process that is forked while another thread holds it would wait
    // for ever.
    static STREAMS: AtomicU8 = AtomicU8::new(2);
    match STREAMS.load(Ordering::Relaxed) {
        2 => {
            let streams = find_streams();
            STREAMS.store(streams.into(), Ordering::Relaxed);
            streams
        }
        known => known == 1,
    }
}

thread_local! {
    static FOR_TESTS: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Calls `f`, to which this CPU is one whose large outputs are best written past the caches, or not:
/// so tests see both ways. For calls that are made on this thread.
#[doc(hidden)]
pub fn with_streams<R>(streams: bool, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<bool>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FOR_TESTS.set(self.0);
        }
    }
    let _restore = Restore(FOR_TESTS.replace(Some(streams)));
    f()
}

#[cold]
fn find_streams() -> bool {
    match std::env::var("SOFTMAX_STREAMS").as_deref() {
        Ok("0") => false,
        Ok("1") => true,
        _ => !is_amd(),
    }
}

#[cfg(target_arch = "x86_64")]
fn is_amd() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    let vendor = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
    // Hygon's are AMD's design.
    [*b"AuthenticAMD", *b"HygonGenuine"].iter().any(|name| name == vendor.as_flattened())
}

#[cfg(not(target_arch = "x86_64"))]
fn is_amd() -> bool {
    false
}

/// How far behind the latest store loads may find one that waits, in bytes. Zen 4, 131,072 x 1,024
/// f32 past the caches, reading just behind the latest store (by its address in a page): 1.2 G
/// elements/s without getting out of the way, 2.04 by 256 bytes, 2.10 by 512, 2.16 by 1,024. In its
/// L2, by ordinary stores: 3.27, 3.75, 3.88 and 3.79.
const WAITING: usize = 512;

/// How many vectors of the row at `y` are to be written first, so that then reading at `x` and
/// writing at `y` in step do not hinder each other. None of rows so short that it would be half of
/// them.
///
/// A load that follows a store to the same place of another page waits for it, because CPUs compare
/// the low 12 bits first; and allocations of large buffers begin at the same place of a page, and
/// rows of powers of two at the same place in both.
#[inline(always)]
pub(crate) fn lead<T, U>(x: *const T, y: *mut U, lanes: usize, n: usize) -> usize {
    if n * size_of::<U>() < 4 * WAITING {
        return 0;
    }
    let behind = (y.addr() + LINE).wrapping_sub(x.addr()) % PAGE;
    (WAITING + LINE).saturating_sub(behind).div_ceil(lanes * size_of::<U>())
}

/// By how many bytes memory at `kept`, which has a page more than is needed, is to be offset so
/// that what is kept there starts with a line, and is out of the way of reading at `x` and writing
/// at `y`: in the middle of the wider of the two gaps between them (by their places in a page).
#[inline(always)]
pub(crate) fn offset(kept: usize, x: usize, y: usize) -> usize {
    let gap = x.wrapping_sub(y) % PAGE;
    let middle = if gap > PAGE / 2 { gap / 2 } else { (gap + PAGE) / 2 };
    (y.wrapping_add(middle) / LINE * LINE).wrapping_sub(kept) % PAGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_and_writing_keep_their_distance() {
        let (x, y) = (0x10000 as *const f32, 0x20000 as *mut f32);
        for (x_at, y_at) in
            [(0, 0), (16, 16), (0, 64), (64, 0), (0, 4032), (40, 8), (0, 512), (2048, 0)]
        {
            let (x, y) = (x.wrapping_byte_add(x_at), y.wrapping_byte_add(y_at));
            let lead = lead(x, y, 16, 1024);
            let behind = (y.addr() + 64 * lead + LINE).wrapping_sub(x.addr()) % PAGE;
            assert!(behind >= WAITING + LINE, "{x_at} {y_at}: {lead}");
            assert!(lead <= 9, "{x_at} {y_at}: {lead}");
            for kept in [0x30000, 0x30000 + 196] {
                let offset = offset(kept, x.addr(), y.addr());
                assert!(offset < PAGE && (kept + offset).is_multiple_of(LINE));
                for (a, b) in [(x.addr(), kept + offset), (kept + offset, y.addr())] {
                    let distance = a.wrapping_sub(b) % PAGE;
                    assert!((960..=3136).contains(&distance), "{x_at} {y_at} {kept}: {distance}");
                }
            }
        }
        assert_eq!(lead(x, y, 16, 511), 0);
    }
}
