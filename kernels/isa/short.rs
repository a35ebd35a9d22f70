//! The arithmetic of half types' probabilities, on any CPU's vectors of f32: a shorter polynomial
//! and sums in f32, whose errors vanish in the one rounding to the half type (`docs/accuracy.md`).

use crate::isa::vector::{Io, Vector};
use crate::num::exp2::{ROWS_AT_ONCE, SHORT_POLY, Sum};
use crate::num::scale::LogShift;

/// Vectors of f32 for results that become f16 or bf16.
#[derive(Clone, Copy)]
pub(crate) struct Short<S>(S);

/// Methods that call the inner vector's.
macro_rules! same {
    ($($name:ident($($arg:ident: $ty:ty),*) $(-> $r:ty)?;)+) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) $(-> $r)? {
            self.0.$name($($arg),*)
        }
    )+};
}

impl<S: Vector<E = f32>> Short<S> {
    /// The four sums added as one running sum of the inner vectors: the same in whichever of them
    /// the first vector was.
    #[inline(always)]
    fn within(self, [a, b, c, d]: [S::V; 4]) -> S::Acc {
        self.0.acc_of(self.0.add(self.0.add(a, c), self.0.add(b, d)))
    }
}

impl<S: Vector<E = f32>> Vector for Short<S> {
    type E = f32;
    type V = S::V;
    type Table = S::Table;
    /// Four sums, to which vectors are added in turn, so that each collects the rounding errors of
    /// a quarter of them.
    type Acc = [S::V; 4];
    type Total = S::Total;
    type Sums = S::Sums;
    type Wide = S::Wide;
    const LANES: usize = S::LANES;
    const STREAMS: bool = S::STREAMS;
    const FUSED: bool = S::FUSED;
    const SMALL: bool = S::SMALL;
    const CHAINS: usize = S::CHAINS;
    const ABREAST: bool = S::ABREAST;
    const SHORT: bool = true;
    const POLY: &'static [f32] = SHORT_POLY;

    #[inline(always)]
    unsafe fn assume() -> Self {
        // SAFETY: as this function's.
        Self(unsafe { S::assume() })
    }
    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        self.0.vectorize(f)
    }
    #[inline(always)]
    fn apart<R>(self, f: impl FnOnce() -> R) -> R {
        self.0.apart(f)
    }
    #[inline(always)]
    fn prefetch<T>(self, p: *const T) {
        self.0.prefetch(p);
    }
    #[inline(always)]
    fn prefetch_beside<T>(self, p: *const T, v: S::V) -> S::V {
        self.0.prefetch_beside(p, v)
    }
    #[inline(always)]
    fn prefetch_far<T>(self, p: *const T) {
        self.0.prefetch_far(p);
    }

    same! {
        wide() -> S::Wide;
        splat(x: f32) -> S::V;
        add(a: S::V, b: S::V) -> S::V;
        sub(a: S::V, b: S::V) -> S::V;
        mul(a: S::V, b: S::V) -> S::V;
        div(a: S::V, b: S::V) -> S::V;
        max(a: S::V, b: S::V) -> S::V;
        min(a: S::V, b: S::V) -> S::V;
        fma(a: S::V, b: S::V, c: S::V) -> S::V;
        min_not_below(m: S::V, x: S::V, cut: S::V) -> S::V;
        select_below(x: S::V, cut: S::V, a: S::V, b: S::V) -> S::V;
        select_bits(bits: u32, a: S::V, b: S::V) -> S::V;
        zero_below(x: S::V, cut: S::V, e: S::V) -> S::V;
        first_lane(a: S::V) -> f32;
        max_lane(a: S::V) -> f32;
        min_lane(a: S::V) -> f32;
        table(m: i32) -> S::Table;
        lookup(table: S::Table, t: S::V) -> S::V;
        fence();
        total_plus(a: S::Total, b: S::Total) -> S::Total;
        fold_rows(totals: &[S::Total; ROWS_AT_ONCE]) -> S::Sums;
        are_positive(sums: S::Sums) -> bool;
        reciprocals(sums: S::Sums, hi: &mut [f32; ROWS_AT_ONCE], lo: &mut [f32; ROWS_AT_ONCE]);
        widen(v: S::V) -> [<S::Wide as Vector>::V; 2];
        narrow(v: [<S::Wide as Vector>::V; 2]) -> S::V;
        log_softmax(x: S::V, shift: &LogShift) -> S::V;
    }

    #[inline(always)]
    fn acc_zero(self) -> Self::Acc {
        // Adding -0 changes nothing, so the compiler drops it.
        [self.0.splat(-0.0); 4]
    }
    #[inline(always)]
    fn acc_add(self, [a, b, c, d]: Self::Acc, v: S::V) -> Self::Acc {
        [b, c, d, self.0.add(a, v)]
    }
    #[inline(always)]
    fn total(self, acc: Self::Acc) -> S::Total {
        self.0.total(self.within(acc))
    }
    #[inline(always)]
    unsafe fn total_inverses(self, total: S::Total, hi: *mut f32, lo: *mut f32) -> bool {
        // SAFETY: as this function's.
        unsafe { self.0.total_inverses(total, hi, lo) }
    }
    #[inline(always)]
    fn acc_fold(self, acc: Self::Acc) -> Sum {
        self.0.acc_fold(self.within(acc))
    }
}

// SAFETY: every method calls that of the inner vectors.
unsafe impl<T, S: Io<T> + Vector<E = f32>> Io<T> for Short<S> {
    #[inline(always)]
    unsafe fn load(self, p: *const T) -> S::V {
        // SAFETY: as this function's.
        unsafe { self.0.load(p) }
    }
    #[inline(always)]
    unsafe fn load_part(self, p: *const T, n: usize, fill: f32) -> S::V {
        // SAFETY: as this function's.
        unsafe { self.0.load_part(p, n, fill) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut T, v: S::V) {
        // SAFETY: as this function's.
        unsafe { self.0.store_normal(p, v) };
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut T, n: usize, v: S::V) {
        // SAFETY: as this function's.
        unsafe { self.0.store_part(p, n, v) };
    }
    #[inline(always)]
    unsafe fn stream(self, p: *mut T, v: S::V) {
        // SAFETY: as this function's.
        unsafe { self.0.stream_normal(p, v) };
    }
}
