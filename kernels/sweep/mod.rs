//! The building blocks of all operations, written once for all CPUs and element types: the
//! exponential, the sweep that computes a row's exponentials with their sum and the row's extremes,
//! and the loop that finishes a row.

pub(crate) mod reduce;
pub(crate) mod weigh;

use std::hint::cold_path;
use std::marker::PhantomData;

use crate::call::{Prefetch, Special, Store};
use crate::isa::vector::{Io, Vector};
use crate::mem::memory;
use crate::mem::memory::{LINE, PAGE};
use crate::num::exp2::{BLOCK, Contract, MOST_LANES, Sum};
use crate::num::scale::{LogShift, Scale, Shift};

/// The constants of the exponential of one row, in registers.
#[derive(Clone, Copy)]
pub(crate) struct Exp<S: Vector> {
    pub(crate) simd: S,
    l8: (S::V, S::V),
    magic: S::V,
    subtract: S::V,
    /// The factor of the low parts of pairs: 0 in huge rows, else 1.
    low: S::V,
    pub(crate) cut: S::V,
    table: S::Table,
}

impl<S: Vector> Exp<S> {
    #[inline(always)]
    pub(crate) fn new(simd: S, scale: &Scale, shift: &Shift) -> Self {
        let l8 = S::E::l8(scale);
        Exp {
            simd,
            l8: (simd.splat(l8.0), simd.splat(l8.1)),
            magic: simd.splat(S::E::MAGIC),
            subtract: simd.splat(S::E::narrow(shift.subtract)),
            low: simd.splat(S::E::narrow(if shift.is_huge() { 0.0 } else { 1.0 })),
            cut: simd.splat(S::E::narrow(shift.cut)),
            table: simd.table(shift.m),
        }
    }

    /// `C * exp(scale * x) * 2^-M`, as `exp2.rs` defines it, and 0 below the cut if `cut`: 2
    /// operations for n, 2 for r, 3 for s, 4 or 7 for u, 1 for e, and one more each for `huge` (the
    /// subtraction) and `cut`. Both are constants at every call, so nothing is decided per vector.
    #[inline(always)]
    pub(crate) fn of(&self, huge: bool, cut: bool, x: S::V) -> S::V {
        let [e] = self.of_each::<1, false>(huge, cut, [x], [x]);
        e
    }

    /// As [`Exp::of`] with the cut, for `x + lo`: one operation more. In huge rows `lo` does not
    /// count.
    #[inline(always)]
    pub(crate) fn of_pair(&self, huge: bool, x: S::V, lo: S::V) -> S::V {
        let [e] = self.of_each::<1, true>(huge, true, [x], [lo]);
        e
    }

    /// As [`Exp::of`], or [`Exp::of_pair`] if PAIRS, for N vectors, abreast: each operation is done
    /// for all of them before the next one.
    #[inline(always)]
    pub(crate) fn of_each<const N: usize, const PAIRS: bool>(
        &self,
        huge: bool,
        cut: bool,
        mut x: [S::V; N],
        lo: [S::V; N],
    ) -> [S::V; N] {
        let s = self.simd;
        s.apart(
            #[inline(always)]
            || {
                if huge {
                    for x in &mut x {
                        *x = s.sub(*x, self.subtract);
                    }
                }
                let mut t = x;
                for t in &mut t {
                    *t = s.fma(*t, self.l8.0, self.magic);
                }
                let mut r = t;
                for r in &mut r {
                    *r = s.sub(self.magic, *r);
                }
                for k in 0..N {
                    r[k] = s.fma(x[k], self.l8.0, r[k]);
                }
                // Short results leave this out: it changes the scale by 2^-25, which they do not
                // show.
                for k in 0..if S::SHORT { 0 } else { N } {
                    r[k] = s.fma(x[k], self.l8.1, r[k]);
                }
                for k in 0..if PAIRS { N } else { 0 } {
                    let lo = if huge { s.mul(lo[k], self.low) } else { lo[k] };
                    r[k] = s.fma(lo, self.l8.0, r[k]);
                }
                let mut e = self.powers(S::POLY, t, r);
                for k in 0..if cut { N } else { 0 } {
                    e[k] = s.zero_below(x[k], self.cut, e[k]);
                }
                e
            },
        )
    }

    /// The elements as they are weighed: less the row's maximum in huge rows, 0 below the cut.
    #[inline(always)]
    pub(crate) fn weight(&self, x: S::V) -> S::V {
        let s = self.simd;
        let x = s.sub(x, self.subtract);
        s.zero_below(x, self.cut, x)
    }

    /// As [`Exp::of`] with the cut, with only `terms` coefficients and without the low part of L8:
    /// for f64 that are rounded to f32.
    #[inline(always)]
    pub(crate) fn of_few<const N: usize>(&self, terms: usize, x: [S::V; N]) -> [S::V; N] {
        let s = self.simd;
        let (mut t, mut r) = (x, x);
        for k in 0..N {
            t[k] = s.fma(x[k], self.l8.0, self.magic);
        }
        for k in 0..N {
            r[k] = s.fma(x[k], self.l8.0, s.sub(self.magic, t[k]));
        }
        let mut e = self.powers(&S::POLY[..terms], t, r);
        for k in 0..N {
            e[k] = s.zero_below(x[k], self.cut, e[k]);
        }
        e
    }

    /// `C * 2^(n/8 - M) * 2^(r/8)` with these coefficients, where n is the integer in the low bits
    /// of `t`.
    #[inline(always)]
    fn powers<const N: usize>(
        &self,
        coefficients: &[S::E],
        t: [S::V; N],
        r: [S::V; N],
    ) -> [S::V; N] {
        let s = self.simd;
        let mut power = t;
        for power in &mut power {
            *power = s.lookup(self.table, *power);
        }
        let mut coefficients = coefficients.iter().rev();
        let first = s.splat(*coefficients.next().expect("a polynomial has coefficients"));
        let mut q = [first; N];
        for &c in coefficients {
            for k in 0..N {
                q[k] = s.fma(q[k], r[k], s.splat(c));
            }
        }
        for k in 0..N {
            q[k] = s.mul(q[k], r[k]);
        }
        for k in 0..N {
            power[k] = s.fma(power[k], q[k], power[k]);
        }
        power
    }
}

/// The logits of a row: what a sweep makes of the elements that it reads before it takes
/// exponentials.
///
/// # Safety
/// `at` reads only what the value itself vouches for, if the elements belong to the row that it was
/// made for.
pub(crate) unsafe trait Logits<S: Vector>: Copy {
    /// Whether logits are pairs, a value and its correction; if not, the correction is ignored.
    const PAIRS: bool;
    /// Whether rows may differ in length.
    const VARIES: bool;
    /// The logits of the elements `v` from the `i`th on, of which `n <= LANES` exist. If the
    /// missing ones are -inf, so are their logits.
    ///
    /// # Safety
    /// The row has elements `i` to `i + n`.
    unsafe fn at(&self, v: S::V, i: usize, n: usize) -> (S::V, S::V);
    /// The logits of N vectors.
    ///
    /// # Safety
    /// The row has elements up to the end of these vectors.
    #[inline(always)]
    unsafe fn at_each<const N: usize>(&self, mut v: [S::V; N], i: usize) -> ([S::V; N], [S::V; N]) {
        let mut lo = v;
        for k in 0..N {
            // SAFETY: as this function's.
            (v[k], lo[k]) = unsafe { self.at(v[k], i + k * S::LANES, S::LANES) };
        }
        (v, lo)
    }
    /// A logit that counts in the maximum and the sum, and has no place in the row.
    fn sink(&self) -> Option<S::E>;
    /// Distance of the row's first element from the start of a block.
    fn phase(&self) -> usize;
    /// How the call's output is stored, and what is prefetched.
    fn store(&self) -> Store;
    /// Prefetches for a streaming sweep at its `i`th element, which is at `x`.
    fn prefetch_ahead<T>(&self, simd: S, x: *const T, i: usize);
}

/// Logits that are the elements themselves.
#[derive(Clone, Copy)]
pub(crate) struct Plain {
    store: Store,
}

impl Plain {
    /// For a call whose output is stored in this way.
    #[inline(always)]
    pub(crate) fn of(store: Store) -> Self {
        Plain { store }
    }

    /// For a call that writes nothing large.
    pub(crate) const NEAR: Plain = Plain { store: Store::CACHED };
}

// SAFETY: reads nothing.
unsafe impl<S: Vector> Logits<S> for Plain {
    const PAIRS: bool = false;
    const VARIES: bool = false;
    #[inline(always)]
    unsafe fn at(&self, v: S::V, _: usize, _: usize) -> (S::V, S::V) {
        (v, v)
    }
    #[inline(always)]
    fn sink(&self) -> Option<S::E> {
        None
    }
    #[inline(always)]
    fn phase(&self) -> usize {
        0
    }
    #[inline(always)]
    fn store(&self) -> Store {
        self.store
    }
    #[inline(always)]
    fn prefetch_ahead<T>(&self, simd: S, x: *const T, _: usize) {
        prefetch_ahead(simd, x, self.store.prefetch());
    }
}

/// Logits that are the elements where a mask of bits shows them, and -inf elsewhere.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'a, S> {
    simd: S,
    words: &'a [u32],
}

impl<'a, S: Vector> Shown<'a, S> {
    /// For a row of `n` elements; `None` if there are fewer bits.
    #[inline(always)]
    pub(crate) fn new(simd: S, words: &'a [u32], n: usize) -> Option<Self> {
        (words.len() >= n.div_ceil(32)).then_some(Shown { simd, words })
    }
}

// SAFETY: reads the words of the row, which has no more elements than these have bits.
unsafe impl<S: Vector> Logits<S> for Shown<'_, S> {
    const PAIRS: bool = false;
    // Hidden elements need the cut in any case.
    const VARIES: bool = true;
    #[inline(always)]
    unsafe fn at(&self, v: S::V, i: usize, _: usize) -> (S::V, S::V) {
        let simd = self.simd;
        // SAFETY: the row has an element `i`.
        let bits = unsafe { bits_at::<S>(self.words, i) };
        let v = simd.select_bits(bits, v, simd.splat(S::E::narrow(f64::NEG_INFINITY)));
        (v, v)
    }
    #[inline(always)]
    fn sink(&self) -> Option<S::E> {
        None
    }
    #[inline(always)]
    fn phase(&self) -> usize {
        0
    }
    #[inline(always)]
    fn store(&self) -> Store {
        Store::CACHED
    }
    #[inline(always)]
    fn prefetch_ahead<T>(&self, simd: S, x: *const T, _: usize) {
        prefetch_ahead(simd, x, Prefetch::Near);
    }
}

/// The bits of a vector whose first element is in column `at`, a multiple of the number of lanes:
/// so they lie in one word. Bits behind the lanes may be set.
///
/// # Safety
/// There is a bit for that column.
#[inline(always)]
pub(crate) unsafe fn bits_at<S: Vector>(words: &[u32], at: usize) -> u32 {
    debug_assert!(at.is_multiple_of(S::LANES) && at / 32 < words.len());
    // SAFETY: as this function's.
    unsafe { *words.get_unchecked(at / 32) >> (at % 32) }
}

/// The largest of `n` logits; -inf if there is none. With a NaN it may be anything.
///
/// # Safety
/// `x` is valid for reads of `n` elements, for which `logits` was made.
#[inline(always)]
pub(crate) unsafe fn row_max<S, T, L>(simd: S, x: *const T, n: usize, logits: &L) -> f64
where
    S: Io<T>,
    L: Logits<S>,
{
    let least = S::E::narrow(f64::NEG_INFINITY);
    let mut m = [simd.splat(least); 4];
    let mut i = 0;
    while !L::PAIRS && !S::SMALL && n - i >= 4 * S::LANES {
        for (k, m) in m.iter_mut().enumerate() {
            let at = i + k * S::LANES;
            // SAFETY: i + 4 LANES <= n, so this vector lies within the n elements.
            *m = simd.max(unsafe { logits.at(simd.load(x.add(at)), at, S::LANES) }.0, *m);
        }
        i += 4 * S::LANES;
    }
    while i < n {
        let len = (n - i).min(S::LANES);
        // SAFETY: len elements are left.
        let v = unsafe { logits.at(simd.load_upto(x.add(i), len, least), i, len) };
        m[0] = simd.max(v.0, m[0]);
        i += len;
    }
    let m = simd.max(simd.max(m[0], m[1]), simd.max(m[2], m[3]));
    simd.max_lane(m).widen()
}

/// As [`row_max`]. A function of its own, so that its stack frame is gone before the sweep.
///
/// # Safety
/// As there.
#[cold]
#[inline(never)]
pub(crate) unsafe fn row_max_apart<S, T, L>(simd: S, x: *const T, n: usize, logits: &L) -> f64
where
    S: Io<T>,
    L: Logits<S>,
{
    simd.vectorize(
        #[inline(always)]
        // SAFETY: as this function's.
        || unsafe { row_max(simd, x, n, logits) },
    )
}

/// The result of a sweep over a row.
#[derive(Clone, Copy)]
pub(crate) struct Found<E> {
    /// The sum of the exponentials; NaN if the row has one (or an element so large that `max` shows
    /// it).
    pub(crate) sum: Sum,
    /// The largest element, -inf if there is none. With a NaN `max` and `min` may be anything.
    pub(crate) max: E,
    /// The smallest element that was not cut, +inf if there is none.
    pub(crate) min: E,
}

impl<E: Contract> Found<E> {
    /// Adds the sink, as if it were one more block of the row.
    #[inline(always)]
    pub(crate) fn and_sink<S: Vector<E = E>>(
        mut self,
        exp: &Exp<S>,
        huge: bool,
        sink: Option<E>,
    ) -> Self {
        let Some(sink) = sink else { return self };
        let simd = exp.simd;
        let e = simd.first_lane(exp.of(huge, true, simd.splat(sink))).widen();
        self.sum = E::sum_add(self.sum, Sum { hi: e, lo: 0.0 });
        let value = sink.widen();
        if value > self.max.widen() {
            self.max = sink;
        }
        if value >= simd.first_lane(exp.cut).widen() && value < self.min.widen() {
            self.min = sink;
        }
        self
    }
}

/// The last step for a row's vectors, which finishes them.
pub(crate) trait Last<S: Vector>: Copy {
    /// The results of N vectors.
    fn of_each<const N: usize>(&self, simd: S, v: [S::V; N]) -> [S::V; N];
    /// The result of one vector.
    #[inline(always)]
    fn of(&self, simd: S, v: S::V) -> S::V {
        let [v] = self.of_each(simd, [v]);
        v
    }
}

/// Softmax, from exponentials that were kept.
impl<S: Vector> Last<S> for Inverse<S::V> {
    #[inline(always)]
    fn of_each<const N: usize>(&self, simd: S, mut e: [S::V; N]) -> [S::V; N] {
        for e in &mut e {
            *e = prob(simd, *e, *self);
        }
        e
    }
}

/// Softmax, from elements whose exponentials are computed again, with the same bits.
impl<S: Vector> Last<S> for (Exp<S>, Inverse<S::V>) {
    #[inline(always)]
    fn of_each<const N: usize>(&self, simd: S, x: [S::V; N]) -> [S::V; N] {
        // In most rows this subtracts 0, which costs nothing where memory is the limit.
        let mut e = self.0.of_each::<N, false>(true, true, x, x);
        for e in &mut e {
            *e = prob(simd, *e, self.1);
        }
        e
    }
}

/// Log-softmax, from elements.
impl<S: Vector> Last<S> for LogShift {
    #[inline(always)]
    fn of_each<const N: usize>(&self, simd: S, mut x: [S::V; N]) -> [S::V; N] {
        for x in &mut x {
            *x = simd.log_softmax(*x, self);
        }
        x
    }
}

/// No step: what is read are the results.
#[derive(Clone, Copy)]
pub(crate) struct Same;

impl<S: Vector> Last<S> for Same {
    #[inline(always)]
    fn of_each<const N: usize>(&self, _: S, v: [S::V; N]) -> [S::V; N] {
        v
    }
}

/// A function as the last step.
#[derive(Clone, Copy)]
pub(crate) struct By<F>(pub(crate) F);

impl<S: Vector, F: Fn(S::V) -> S::V + Copy> Last<S> for By<F> {
    #[inline(always)]
    fn of_each<const N: usize>(&self, _: S, mut v: [S::V; N]) -> [S::V; N] {
        for v in &mut v {
            *v = (self.0)(*v);
        }
        v
    }
}

/// The rest of the work for a row: `last` of every vector of the `n` elements at `from`, written to
/// `y`.
pub(crate) struct Finish<D, T, R> {
    pub(crate) from: *const D,
    pub(crate) y: *mut T,
    pub(crate) n: usize,
    pub(crate) last: R,
    /// What a streaming finish prefetches, if `from` is the call's input.
    pub(crate) prefetch: Prefetch,
}

impl<D, T, R: Copy> Clone for Finish<D, T, R> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<D, T, R: Copy> Copy for Finish<D, T, R> {}

impl<D, T, R> Finish<D, T, R> {
    #[inline(always)]
    pub(crate) fn new(from: *const D, y: *mut T, n: usize, last: R) -> Self {
        Finish { from, y, n, last, prefetch: Prefetch::Nothing }
    }
}

impl<T> Finish<T, T, Same> {
    /// No row to finish.
    pub(crate) const NOTHING: Self = Finish {
        from: std::ptr::null(),
        y: std::ptr::null_mut(),
        n: 0,
        last: Same,
        prefetch: Prefetch::Nothing,
    };
}

/// What a sweep does: constants that select its code.
pub(crate) trait Mode {
    /// The shift is guessed, and the extremes are found to judge it. Else it is the row's own, and
    /// may need a subtraction; such rows are rare.
    const GUESSED: bool;
    /// Elements below the cut give 0. Without this there must be none, which the caller finds out
    /// afterwards.
    const CUT: bool;
    /// The exponentials are summed.
    const SUM: bool;
    /// The exponentials are kept.
    const KEEP: bool;
    /// The row before is finished in the same loop.
    const FINISH: bool;
    /// The row before is written past the caches, or this one is read from memory.
    const STREAM: bool;
}

/// Whether exponentials are kept: [`Keep`] or [`Forget`].
pub(crate) trait Keeps {
    const KEEP: bool;
}

/// Exponentials are kept.
pub(crate) struct Keep;

impl Keeps for Keep {
    const KEEP: bool = true;
}

/// Exponentials are not kept.
pub(crate) struct Forget;

impl Keeps for Forget {
    const KEEP: bool = false;
}

/// A sweep with a guessed shift.
pub(crate) struct Guessed<K, const CUT: bool, const FINISH: bool, const STREAM: bool>(
    PhantomData<K>,
);

impl<K: Keeps, const CUT: bool, const FINISH: bool, const STREAM: bool> Mode
    for Guessed<K, CUT, FINISH, STREAM>
{
    const GUESSED: bool = true;
    const CUT: bool = CUT;
    const SUM: bool = true;
    const KEEP: bool = K::KEEP;
    const FINISH: bool = FINISH;
    const STREAM: bool = STREAM;
}

/// A sweep with the row's own shift.
pub(crate) struct Exact<K>(PhantomData<K>);

impl<K: Keeps> Mode for Exact<K> {
    const GUESSED: bool = false;
    const CUT: bool = true;
    const SUM: bool = true;
    const KEEP: bool = K::KEEP;
    const FINISH: bool = false;
    const STREAM: bool = false;
}

/// Vectors per turn of a sweep's loop: its counter takes slots on the arithmetic ports, too.
pub(crate) const UNROLL: usize = 4;

/// The first line that a streaming sweep at `x` prefetches in this turn of its loop; the others are
/// a page apart each, as many as a turn uses.
///
/// Memory is prefetched in another order than it is used in: one line from each of the next pages
/// in turn. DRAM and the hardware's prefetchers, which stop at the end of a page, serve several
/// pages at once faster than one. Intel Emerald Rapids, softmax of 131,072 x 1,024 f32 on one
/// thread, in G elements/s: 1.65 without prefetching, 2.0 in order 8 KiB ahead, 2.35 over two
/// pages, 2.43 over four, 2.45 over eight; the limit, a copy by non-temporal stores, is 2.48.
#[inline(always)]
fn line_ahead<S: Vector, T>(x: *const T) -> *const u8 {
    let (turn, pages) = (UNROLL * S::LANES * size_of::<T>(), PAGES * PAGE);
    let within = x.addr() % pages;
    let line = within / turn * (turn / LINE);
    // The address may be anything: it is only prefetched.
    let next = x.cast::<u8>().wrapping_sub(within).wrapping_add(pages);
    next.wrapping_add(line % PAGES * PAGE + line / PAGES * LINE)
}

/// Prefetches for a streaming sweep at `x`.
#[inline(always)]
fn prefetch_ahead<S: Vector, T>(simd: S, x: *const T, prefetch: Prefetch) {
    let lines = UNROLL * S::LANES * size_of::<T>() / LINE;
    match prefetch {
        // Near, too: input may come from memory even where the output fits in the caches.
        Prefetch::Pages | Prefetch::Near => {
            let line = line_ahead::<S, T>(x);
            for k in 0..lines {
                simd.prefetch_far(line.wrapping_add(k * PAGE));
            }
        }
        Prefetch::Ahead => {
            for k in 0..lines {
                simd.prefetch_far(x.wrapping_byte_add(AHEAD + k * LINE));
            }
        }
        Prefetch::Nothing => {}
    }
}

/// Prefetches the lines at both ends of a row that will be streamed. Elements there that do not
/// fill a vector are written by ordinary stores, and all later stores wait for their lines: without
/// this, rows of 1,024 f32 that lie 16 bytes behind a line had 0.65 of the speed (Zen 5).
#[inline(always)]
fn prefetch_ends<S: Vector, T>(simd: S, y: *const T, n: usize) {
    let end = y.wrapping_add(n);
    simd.prefetch(y);
    simd.prefetch(end);
}

/// Prefetches a line of the page after that of `y`, if `y` is in the first `turn` vectors of its
/// page; `turn` is the step of the loop. Stores past the caches wait for the translation of a
/// page's address, which this starts early: 1.4 times as fast with pages of 4 KiB on a virtual
/// machine (Zen 5).
#[inline(always)]
pub(crate) fn prefetch_page<S: Vector, T>(simd: S, y: *const T, turn: usize) {
    if y.addr() % PAGE < turn * S::LANES * size_of::<T>() {
        simd.prefetch_far(y.wrapping_byte_add(PAGE));
    }
}

/// Bytes that input is prefetched ahead, where that is straight ahead.
const AHEAD: usize = 8 << 10;

/// Pages that are prefetched in turn.
const PAGES: usize = 8;

/// Bytes that a sweep in cache prefetches its input and its output ahead.
const NEAR: usize = 4 << 10;

/// Computes one row's exponentials, their sum and the row's extremes; and finishes the row before,
/// so that the memory accesses of one overlap with the arithmetic of the other.
///
/// For every vector the row before is read first, and the exponentials of this row are written
/// afterwards: both may be kept in the same place.
///
/// # Safety
/// `x` is valid for reads of `n` elements, for which `logits` was made, `kept` for writes of as
/// many if `KEEP`; what `finish` points to for reads and writes of its `n` elements, if `FINISH`.
#[inline(always)]
pub(crate) unsafe fn sweep<S, T, U, D, L, M>(
    exp: &Exp<S>,
    x: *const T,
    kept: *mut S::E,
    n: usize,
    logits: &L,
    finish: &Finish<D, U, impl Last<S>>,
) -> Found<S::E>
where
    S: Io<T> + Io<U> + Io<D> + Io<<S as Vector>::E>,
    L: Logits<S>,
    M: Mode,
{
    // Copies, so that the compiler need not assume that a store changes them.
    let (exp, logits, finish) = (*exp, *logits, &{ *finish });
    let simd = exp.simd;
    let store = logits.store();
    let near = store.prefetch() == Prefetch::Near;
    // The row before: `head` elements are finished first, up to an aligned address that does not
    // hinder reading `x`, and `vectors` vectors follow.
    let (mut head, mut vectors) = (0, 0);
    if M::FINISH {
        if M::STREAM {
            head = to_aligned::<S, U>(finish.y).min(finish.n);
            // SAFETY: the first head <= n elements, fewer than LANES.
            unsafe { finish_part::<S, U, D>(simd, finish, 0, head) };
        }
        // Bursts do not hinder reading.
        let lead = if M::STREAM && store.is_in_bursts() {
            0
        } else {
            memory::lead(x, finish.y.wrapping_add(head), S::LANES, finish.n)
        };
        for _ in 0..lead {
            // SAFETY: rows have twice as many vectors at least, and this one is aligned if STREAM.
            unsafe { finish_by::<S, U, D, M>(simd, finish, head, near) };
            head += S::LANES;
        }
        vectors = (finish.n - head) / S::LANES;
    }
    let mut unfinished = M::FINISH;
    let mut total = Sum::ZERO;
    let mut met = Met {
        max: simd.splat(S::E::narrow(f64::NEG_INFINITY)),
        min: simd.splat(S::E::narrow(f64::INFINITY)),
        acc: simd.acc_zero(),
    };
    let mut start = 0;
    let mut end = n.min(BLOCK - logits.phase());
    loop {
        met.acc = simd.acc_zero();
        let mut i = start;
        if M::FINISH {
            let stop = end.min(vectors * S::LANES);
            while !S::SMALL && i + UNROLL * S::LANES <= stop {
                if M::STREAM {
                    logits.prefetch_ahead(simd, x.wrapping_add(i), i);
                    prefetch_page(simd, finish.y.wrapping_add(head + i), UNROLL);
                }
                let burst = if M::STREAM { store.is_in_bursts() } else { S::ABREAST };
                // SAFETY: `i + UNROLL LANES <= stop`, so both rows have these vectors; `y + head`
                // is a multiple of their size if STREAM, by the choice of `head`.
                unsafe {
                    for k in 0..UNROLL {
                        let i = i + k * S::LANES;
                        finish_by::<S, U, D, M>(simd, finish, head + i, near);
                        if !burst {
                            step::<1, S, T, L, M>(&exp, x, kept, i, &logits, &mut met);
                        }
                    }
                    if burst {
                        steps::<S, T, L, M>(&exp, x, kept, i, &logits, &mut met);
                    }
                }
                i += UNROLL * S::LANES;
            }
            while i + S::LANES <= stop {
                // SAFETY: as above, for one vector.
                unsafe {
                    finish_by::<S, U, D, M>(simd, finish, head + i, near);
                    step::<1, S, T, L, M>(&exp, x, kept, i, &logits, &mut met);
                }
                i += S::LANES;
            }
            if unfinished && i == vectors * S::LANES {
                unfinished = false;
                // SAFETY: from head + i to its end fewer than LANES elements are left of the row
                // before.
                unsafe { finish_part::<S, U, D>(simd, finish, head + i, finish.n - head - i) };
            }
            if L::VARIES && unfinished && end == n {
                unfinished = false;
                // SAFETY: the row before is longer. `y + head + i` is aligned if STREAM, as above.
                unsafe {
                    if M::STREAM {
                        finish_from::<S, U, D, true>(simd, finish, head + i);
                    } else {
                        finish_from::<S, U, D, false>(simd, finish, head + i);
                    }
                }
            }
        } else {
            // Not unrolled for exact rows, which are rare, if logits vary, which is much code.
            while (M::GUESSED || !L::VARIES) && !S::SMALL && i + UNROLL * S::LANES <= end {
                if M::STREAM {
                    logits.prefetch_ahead(simd, x.wrapping_add(i), i);
                }
                // SAFETY: UNROLL vectors are there.
                unsafe { steps::<S, T, L, M>(&exp, x, kept, i, &logits, &mut met) };
                i += UNROLL * S::LANES;
            }
        }
        while i + S::LANES <= end {
            // SAFETY: a vector is there.
            unsafe { step::<1, S, T, L, M>(&exp, x, kept, i, &logits, &mut met) };
            i += S::LANES;
        }
        if i < end {
            let n = end - i;
            let fill = |value| S::E::narrow(value);
            // SAFETY: n elements are left, fewer than LANES.
            unsafe {
                let v = simd.load_part(x.add(i), n, fill(f64::NEG_INFINITY));
                let (low, lo) = logits.at(v, i, n);
                // With the cut in any case, so that the missing lanes, -inf, add 0.
                let e = if L::PAIRS {
                    exp.of_pair(!M::GUESSED, low, lo)
                } else {
                    exp.of(!M::GUESSED, true, low)
                };
                if M::GUESSED {
                    met.max = simd.max(low, met.max);
                    met.min = if M::CUT {
                        simd.min_not_below(met.min, low, exp.cut)
                    } else {
                        simd.min(simd.load_part(x.add(i), n, fill(f64::INFINITY)), met.min)
                    };
                }
                if M::KEEP {
                    simd.store_part(kept.add(i), n, e);
                }
                if M::SUM {
                    met.acc = simd.acc_add(met.acc, e);
                }
            }
        }
        let block = if M::SUM { simd.acc_fold(met.acc) } else { Sum::ZERO };
        // A row of one block, the usual case, needs no addition; 0 + block gives the same.
        total = if start == 0 { block } else { S::E::sum_add(total, block) };
        if end == n {
            return Found { sum: total, max: simd.max_lane(met.max), min: simd.min_lane(met.min) };
        }
        start = end;
        end = n.min(start + BLOCK);
    }
}

/// The extremes and the sum so far, lane by lane.
pub(crate) struct Met<S: Vector> {
    pub(crate) max: S::V,
    pub(crate) min: S::V,
    /// The sum of the block.
    pub(crate) acc: S::Acc,
}

impl<S: Vector> Met<S> {
    /// Includes `v` in the extremes; `cut` as in [`Exp::of`].
    #[inline(always)]
    pub(crate) fn see(&mut self, exp: &Exp<S>, cut: bool, v: S::V) {
        let s = exp.simd;
        self.max = s.max(v, self.max);
        self.min = if cut { s.min_not_below(self.min, v, exp.cut) } else { s.min(v, self.min) };
    }
}

/// A sweep's next UNROLL vectors, from the `i`th element on, one after the other or abreast.
///
/// # Safety
/// As [`step`]'s, of UNROLL vectors.
#[inline(always)]
unsafe fn steps<S, T, L, M>(
    exp: &Exp<S>,
    x: *const T,
    kept: *mut S::E,
    i: usize,
    logits: &L,
    met: &mut Met<S>,
) where
    S: Io<T> + Io<<S as Vector>::E>,
    L: Logits<S>,
    M: Mode,
{
    // SAFETY: as this function's.
    unsafe {
        if S::ABREAST && L::PAIRS {
            // Four pairs need more registers than there are.
            for k in (0..UNROLL).step_by(2) {
                step::<2, S, T, L, M>(exp, x, kept, i + k * S::LANES, logits, met);
            }
            return;
        }
        if S::ABREAST {
            return step::<UNROLL, S, T, L, M>(exp, x, kept, i, logits, met);
        }
        for k in 0..UNROLL {
            step::<1, S, T, L, M>(exp, x, kept, i + k * S::LANES, logits, met);
        }
    }
}

/// A sweep's next N vectors, from the `i`th element on, abreast.
///
/// # Safety
/// `x` is valid for reads of `i` elements and N vectors, for which `logits` was made, `kept` for
/// writes of as many if `KEEP`.
#[inline(always)]
unsafe fn step<const N: usize, S, T, L, M>(
    exp: &Exp<S>,
    x: *const T,
    kept: *mut S::E,
    i: usize,
    logits: &L,
    met: &mut Met<S>,
) where
    S: Io<T> + Io<<S as Vector>::E>,
    L: Logits<S>,
    M: Mode,
{
    let simd = exp.simd;
    let near = !M::STREAM && logits.store().prefetch() == Prefetch::Near;
    let ahead = x.wrapping_add(i).wrapping_byte_add(NEAR);
    // Vectors of half types share lines.
    let lines = if near { (N * S::LANES * size_of::<T>()).div_ceil(LINE) } else { 0 };
    for line in 0..if M::KEEP { lines } else { 0 } {
        simd.prefetch(ahead.wrapping_byte_add(line * LINE));
    }
    let mut v = [met.max; N];
    for (k, v) in v.iter_mut().enumerate() {
        // SAFETY: the row has this vector.
        *v = unsafe { simd.load(x.add(i + k * S::LANES)) };
    }
    // SAFETY: likewise.
    let (v, lo) = unsafe { logits.at_each(v, i) };
    if M::GUESSED {
        for v in v {
            met.max = simd.max(v, met.max);
            met.min =
                if M::CUT { simd.min_not_below(met.min, v, exp.cut) } else { simd.min(v, met.min) };
        }
    }
    let e = if L::PAIRS {
        exp.of_each::<N, true>(!M::GUESSED, true, v, lo)
    } else {
        exp.of_each::<N, false>(!M::GUESSED, M::CUT, v, lo)
    };
    for (k, mut e) in e.into_iter().enumerate() {
        if !M::KEEP && k < lines {
            e = simd.prefetch_beside(ahead.wrapping_byte_add(k * LINE), e);
        }
        if M::KEEP {
            // SAFETY: `kept` has this vector.
            unsafe { simd.store(kept.add(i + k * S::LANES), e) };
        }
        if M::SUM {
            met.acc = simd.acc_add(met.acc, e);
        }
    }
}

/// The closure itself: the attribute that compiles a closure for the kernel's instruction set is
/// allowed only on an argument.
#[inline(always)]
pub(crate) fn inlined<A, F: FnMut(A)>(f: F) -> F {
    f
}

/// Number of elements from `y` to the next address that is a multiple of a vector's size in memory.
/// Less than `LANES`.
#[inline(always)]
pub(crate) fn to_aligned<S: Vector, T>(y: *mut T) -> usize {
    let vector = S::LANES * size_of::<T>();
    (y.addr().wrapping_neg() % vector) / size_of::<T>()
}

/// Finishes `n < LANES` elements from `at` on.
///
/// # Safety
/// What `finish` points to is valid for reads and writes of `at + n` elements, `n < LANES`.
#[inline(always)]
unsafe fn finish_part<S: Io<T> + Io<D>, T, D>(
    simd: S,
    finish: &Finish<D, T, impl Last<S>>,
    at: usize,
    n: usize,
) {
    if n == 0 {
        return;
    }
    let zero = S::E::narrow(0.0);
    // SAFETY: as this function's.
    unsafe {
        let v = finish.last.of(simd, simd.load_part(finish.from.add(at), n, zero));
        simd.store_part(finish.y.add(at), n, v);
    }
}

/// Finishes N vectors from the `i`th element on.
///
/// # Safety
/// What `finish` points to is valid for reads and writes of `i` elements and N vectors; if STREAM,
/// `y + i` is a multiple of a vector's size.
#[inline(always)]
unsafe fn finish_vectors<const N: usize, S: Io<T> + Io<D>, T, D, const STREAM: bool>(
    simd: S,
    finish: &Finish<D, T, impl Last<S>>,
    i: usize,
) {
    // SAFETY: as this function's. The loads come before the stores to the same places.
    unsafe {
        let mut v = [simd.load(finish.from.add(i)); N];
        for (k, v) in v.iter_mut().enumerate().skip(1) {
            *v = simd.load(finish.from.add(i + k * S::LANES));
        }
        for (k, v) in finish.last.of_each(simd, v).into_iter().enumerate() {
            let y = finish.y.add(i + k * S::LANES);
            if STREAM {
                simd.stream(y, v);
            } else {
                simd.store(y, v);
            }
        }
    }
}

/// As [`finish_vectors`] for one vector of a sweep; `near` rows prefetch their output.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn finish_by<S: Io<T> + Io<D>, T, D, M: Mode>(
    simd: S,
    finish: &Finish<D, T, impl Last<S>>,
    i: usize,
    near: bool,
) {
    // SAFETY: as this function's.
    unsafe {
        if M::STREAM {
            return finish_vectors::<1, S, T, D, true>(simd, finish, i);
        }
        finish_vectors::<1, S, T, D, false>(simd, finish, i);
    }
    if near {
        simd.prefetch(finish.y.wrapping_add(i + NEAR / size_of::<T>()));
    }
}

/// Finishes a row by itself.
///
/// # Safety
/// What `finish` points to is valid for reads and writes of its `n` elements.
#[inline(always)]
pub(crate) unsafe fn finish_row<S: Io<T> + Io<D>, T, D, const STREAM: bool>(
    simd: S,
    finish: &Finish<D, T, impl Last<S>>,
) {
    if STREAM {
        prefetch_ends(simd, finish.y, finish.n);
    }
    let i = if STREAM { to_aligned::<S, T>(finish.y).min(finish.n) } else { 0 };
    // SAFETY: the first i <= n elements, fewer than LANES; then the others, from an aligned address
    // on.
    unsafe {
        if i > 0 {
            finish_part::<S, T, D>(simd, finish, 0, i);
        }
        finish_from::<S, T, D, STREAM>(simd, finish, i);
    }
}

/// As [`finish_row`], streaming or not. One function of its own for all such callers.
///
/// # Safety
/// As there.
#[inline(never)]
pub(crate) unsafe fn finish_row_by<S: Io<T> + Io<D>, T, D>(
    simd: S,
    finish: &Finish<D, T, impl Last<S>>,
    stream: bool,
) {
    simd.vectorize(
        #[inline(always)]
        || {
            // SAFETY: as this function's.
            unsafe {
                if S::STREAMS && stream {
                    finish_row::<S, T, D, true>(simd, finish);
                } else {
                    finish_row::<S, T, D, false>(simd, finish);
                }
            }
        },
    );
}

/// Finishes a row from its `i`th element on.
///
/// # Safety
/// What `finish` points to is valid for reads and writes of its `n` elements; `i <= n`. If STREAM,
/// `y + i` is a multiple of a vector's size, or fewer than LANES elements are left.
#[inline(always)]
unsafe fn finish_from<S: Io<T> + Io<D>, T, D, const STREAM: bool>(
    simd: S,
    finish: &Finish<D, T, impl Last<S>>,
    mut i: usize,
) {
    // A copy, as in [`sweep`].
    let finish = &{ *finish };
    let n = finish.n;
    while !S::SMALL && n - i >= UNROLL * S::LANES {
        if STREAM {
            prefetch_ahead(simd, finish.from.wrapping_add(i), finish.prefetch);
        }
        prefetch_page(simd, finish.from.wrapping_add(i), UNROLL);
        prefetch_page(simd, finish.y.wrapping_add(i), UNROLL);
        // SAFETY: UNROLL vectors are left, aligned if STREAM.
        unsafe {
            if S::ABREAST {
                finish_vectors::<UNROLL, S, T, D, STREAM>(simd, finish, i);
            } else {
                for k in 0..UNROLL {
                    finish_vectors::<1, S, T, D, STREAM>(simd, finish, i + k * S::LANES);
                }
            }
        }
        i += UNROLL * S::LANES;
    }
    while n - i >= S::LANES {
        // SAFETY: a vector is left, aligned if STREAM.
        unsafe { finish_vectors::<1, S, T, D, STREAM>(simd, finish, i) };
        i += S::LANES;
    }
    if i < n {
        // SAFETY: n - i elements are left, fewer than LANES.
        unsafe { finish_part::<S, T, D>(simd, finish, i, n - i) };
    }
}

/// Classifies a row whose maximum is not finite.
///
/// # Safety
/// `x` is valid for reads of `n` elements, for which `logits` was made.
#[cold]
pub(crate) unsafe fn classify<S, T, L>(simd: S, x: *const T, n: usize, logits: &L) -> Special
where
    S: Io<T> + Io<<S as Vector>::E>,
    L: Logits<S>,
{
    let mut special = Special::AllMasked;
    simd.vectorize(
        #[inline(always)]
        || {
            let least = S::E::narrow(f64::NEG_INFINITY);
            for i in (0..n).step_by(S::LANES) {
                let mut lanes = [least; MOST_LANES];
                let len = (n - i).min(S::LANES);
                // SAFETY: len elements are left; `lanes` has room for a vector.
                unsafe {
                    let v = logits.at(simd.load_upto(x.add(i), len, least), i, len);
                    simd.store(lanes.as_mut_ptr(), v.0);
                }
                special.add(&lanes);
            }
        },
    );
    special.add(logits.sink().as_slice());
    special
}

/// The reciprocal of a row's sum, as a pair.
#[derive(Clone, Copy)]
pub(crate) struct Inverse<V> {
    pub(crate) hi: V,
    pub(crate) lo: V,
    /// Whether the row may have elements whose `e lo` is subnormal: [`Scale::is_wide`].
    pub(crate) wide: bool,
}

/// The factor of a wide row's exponentials, which its quotients are divided by.
pub(crate) const UP: f64 = (1u128 << 64) as f64;

/// The probability `e / sum`. In wide rows it is computed from `2^64 e`: near the least normal
/// number `e lo` would be subnormal, and its rounding would cost half an ULP more. In other rows
/// this would not change a bit.
#[inline(always)]
pub(crate) fn prob<S: Vector>(simd: S, e: S::V, Inverse { hi, lo, wide }: Inverse<S::V>) -> S::V {
    if wide {
        // Rare. In other rows a branch costs nothing that can be measured; the operations would.
        cold_path();
        if S::SHORT {
            // bf16 gets no subnormal probabilities, because the conversions of some CPUs give none.
            let (p, least) = (quotient(simd, e, (hi, lo)), S::E::narrow(f32::MIN_POSITIVE.into()));
            return simd.zero_below(p, simd.splat(least), p);
        }
        let (up, down) = (simd.splat(S::E::narrow(UP)), simd.splat(S::E::narrow(1.0 / UP)));
        return simd.mul(quotient(simd, simd.mul(e, up), (hi, lo)), down);
    }
    quotient(simd, e, (hi, lo))
}

/// `e` times the reciprocal of the sum, which is a pair. The error of half an ULP lets equal
/// elements give exactly `1/n` if that is a power of two. (Results of half types do so with the
/// high part alone.)
#[inline(always)]
pub(crate) fn quotient<S: Vector>(simd: S, e: S::V, (hi, lo): (S::V, S::V)) -> S::V {
    if S::SHORT {
        return simd.mul(e, hi);
    }
    simd.fma(e, hi, simd.mul(e, lo))
}
