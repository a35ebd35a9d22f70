//! How this CPU's memory is used best: which stores, what to prefetch, and how to keep loads and
//! stores from hindering each other.

use std::cell::Cell;
use std::sync::atomic::{AtomicU8, Ordering};

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;

/// How outputs that are larger than the caches are written, and their inputs prefetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Large {
    /// Through the caches, by ordinary stores; nothing is prefetched.
    Through,
    /// Past the caches, one vector after each swept vector. Input is prefetched from several pages
    /// in turn.
    Vectors,
    /// Past the caches, several vectors at once before as many are swept. Input is prefetched
    /// straight ahead.
    Bursts,
}

impl Large {
    /// All ways.
    #[doc(hidden)]
    pub const ALL: [Self; 3] = [Self::Through, Self::Vectors, Self::Bursts];

    /// The best way for this CPU, or the one that the environment variable `SOFTMAX_STREAMS` names:
    /// 0, 1 or 2. Found once.
    ///
    /// Stores past the caches wait in the same queue as the stores of the exponentials. On AMD's
    /// CPUs that costs much where the two alternate, and little in bursts; docs/performance.md has
    /// the measurements.
    pub fn of_this_cpu() -> Self {
        if let Some(large) = FOR_TESTS.get() {
            return large;
        }
        // An atomic, not a lock: in a process forked while another thread holds a lock, it is never
        // released.
        static FOUND: AtomicU8 = AtomicU8::new(u8::MAX);
        if let Some(&found) = Self::ALL.get(usize::from(FOUND.load(Ordering::Relaxed))) {
            return found;
        }
        let found = Self::find();
        FOUND.store(found as u8, Ordering::Relaxed);
        found
    }

    /// Bytes of a row for which stores past the caches pay. The ends of rows are written by
    /// ordinary stores, which cost 50 ns a row between bursts (Zen 5; more threads hide half). On
    /// an Intel Xeon 100 columns of f32 run at 0.8 of the caches' way, of f16 at 0.2, 128 at 1.
    fn shortest_row(self, threads: usize) -> usize {
        match self {
            Self::Through => 0,
            Self::Vectors => 512,
            Self::Bursts if threads == 1 => 2048,
            Self::Bursts => 1024,
        }
    }

    #[cold]
    fn find() -> Self {
        match std::env::var("SOFTMAX_STREAMS").as_deref() {
            Ok("0") => Self::Through,
            Ok("1") => Self::Vectors,
            Ok("2") => Self::Bursts,
            _ => Self::usual(),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn usual() -> Self {
        use std::arch::x86_64::__cpuid;

        let leaf = __cpuid(0);
        let vendor = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
        // Hygon's CPUs are of AMD's design.
        if ![*b"AuthenticAMD", *b"HygonGenuine"].iter().any(|name| name == vendor.as_flattened()) {
            return Self::Vectors;
        }
        let signature = __cpuid(1).eax;
        let family = (signature >> 8 & 0xf) + (signature >> 20 & 0xff);
        // Family 0x1a is Zen 5; 0x19 is Zen 3 and Zen 4, of which Zen 4 has AVX-512. Older ones
        // were not measured.
        let zen4 = family == 0x19 && is_x86_feature_detected!("avx512f");
        if zen4 || family > 0x19 { Self::Bursts } else { Self::Through }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn usual() -> Self {
        Self::Vectors
    }
}

/// Bytes of the shortest row that this CPU writes past the caches, on so many threads.
pub fn shortest_row(threads: usize) -> usize {
    Large::of_this_cpu().shortest_row(threads)
}

thread_local! {
    static FOR_TESTS: Cell<Option<Large>> = const { Cell::new(None) };
}

/// Calls `f`, whose calls on this thread see `large` as the best way: tests reach all ways by it.
#[doc(hidden)]
pub fn with_large<R>(large: Large, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<Large>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FOR_TESTS.set(self.0);
        }
    }
    let _restore = Restore(FOR_TESTS.replace(Some(large)));
    f()
}

/// How far behind the latest store a load may still find a store that waits, in bytes.
///
/// Measured on Zen 4, 131,072 x 1,024 f32, loads just behind the latest store (by
/// addresses within a page), at distances of 0, 256, 512 and 1,024 bytes, in G elements/s: past the
/// caches 1.2, 2.04, 2.10 and 2.16; in L2, by ordinary stores, 3.27, 3.75, 3.88 and 3.79.
const WAITING: usize = 512;

/// Vectors of the row at `y` to write first, so that reading at `x` and writing at `y` in step do
/// not hinder each other afterwards. 0 for rows so short that it would be half of them.
///
/// CPUs compare the low 12 bits of addresses first, so a load waits for a store to the same place
/// of another page. Large buffers often start at the same place of a page, and with rows of powers
/// of two each row of both does.
#[inline(always)]
pub(crate) fn lead<T, U>(x: *const T, y: *mut U, lanes: usize, n: usize) -> usize {
    if n * size_of::<U>() < 4 * WAITING {
        return 0;
    }
    let behind = (y.addr() + LINE).wrapping_sub(x.addr()) % PAGE;
    (WAITING + LINE).saturating_sub(behind).div_ceil(lanes * size_of::<U>())
}

/// Offset in bytes into the scratch memory at `kept`, which has a page more than is needed. What is
/// kept there then starts at a cache line, far from reading at `x` and writing at `y`: in the
/// middle of the wider of the two gaps between them (by their places in a page).
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
