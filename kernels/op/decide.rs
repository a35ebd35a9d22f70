//! Decisions: the largest elements of a row, one-hot rows, the log-probabilities of a few tokens,
//! and the two-class case.
//!
//! Sigmoid is a softmax over `x` and 0, by the same exponential with the shift 0. So it is an
//! elementwise map, and uses the loop that finishes rows. Hardmax and the uniform distribution, the
//! limits of softmax, are maps with a threshold that is found first. What is picked from rows (the
//! index of the largest element, some log-probabilities) reads each row once from memory and writes
//! nothing of a row's size.

use crate::call::picks::{ATANH, LOG1P, Limit, POWERS_F32, Picks, Wanted, no_shift};
use crate::call::{Call, Masked, Op, Prefetch, Special, Store, Ties, special_row};
use crate::isa::vector::{Io, Vector};
use crate::num::element::Element;
use crate::num::exp2::{BLOCK, Contract};
use crate::num::scale::{LogShift, Scale};
use crate::sweep::reduce::{Again, Reduced, Reducer, Task};
use crate::sweep::{By, Exp, Finish, Forget, Last, Plain, UNROLL, classify, finish_row};

/// Sigmoid, hardmax or a relative of them, of every row of the call.
///
/// # Safety
/// The call's pointers are valid as [`Call`] says.
#[inline(always)]
pub(crate) unsafe fn map<S, T>(simd: S, call: &Call<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    // SAFETY: as this function's.
    unsafe {
        if let Some(limit) = Limit::of(call.op()) {
            limits(simd, call, limit);
        } else if call.op() == Op::LogSigmoid {
            elements(simd, call, LogSigmoid::new(simd.wide(), &call.scale));
        } else {
            elements(simd, call, Sigmoid::new(simd, &call.scale));
        }
    }
}

/// Sigmoid of every element of the call. A function of its own, for other operations.
///
/// # Safety
/// The call's pointers are valid as [`Call`] says.
#[inline(never)]
pub(crate) unsafe fn sigmoid<S, T>(simd: S, call: &Call<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    simd.vectorize(
        #[inline(always)]
        // SAFETY: as this function's.
        || unsafe { elements(simd, call, Sigmoid::new(simd, &call.scale)) },
    );
}

/// Applies `last` to all elements; rows without gaps are treated as one long row.
///
/// # Safety
/// The call's pointers are valid as [`Call`] says.
#[inline(always)]
unsafe fn elements<S, T>(simd: S, call: &Call<T>, last: impl Last<S>)
where
    S: Io<T>,
    T: Element,
{
    let (rows, cols) =
        if call.is_dense() { (1, call.rows * call.cols) } else { (call.rows, call.cols) };
    for row in 0..rows {
        // SAFETY: `row` is one of the call's rows, or all of them: x and y point to `cols`
        // elements.
        unsafe {
            let (x, y) = call.row(row);
            finish::<S, T>(simd, call.store, x, y, cols, last);
        }
    }
    if S::STREAMS && call.store.is_past() {
        simd.fence();
    }
}

/// Applies `last` to `n` elements.
///
/// # Safety
/// `x` is valid for reads and `y` for writes of `n` elements; `store` is past the caches only if
/// they are not the same.
#[inline(always)]
unsafe fn finish<S: Io<T>, T>(
    simd: S,
    store: Store,
    x: *const T,
    y: *mut T,
    n: usize,
    last: impl Last<S>,
) {
    let mut finish = Finish::new(x, y, n, last);
    // Prefetching helps here even on CPUs that do better without it in rows: nothing else is read
    // or written.
    finish.prefetch =
        if store.prefetch() == Prefetch::Nothing { Prefetch::Pages } else { store.prefetch() };
    // SAFETY: as this function's.
    unsafe {
        if S::STREAMS && store.is_past() {
            finish_row::<S, T, T, true>(simd, &finish);
        } else {
            finish_row::<S, T, T, false>(simd, &finish);
        }
    }
}

/// `1 / (1 + exp(-a x))`, as `e / (C + e)` below 0 and `C / (C + e)` elsewhere, where `e = C exp(-a
/// |x|)` cannot overflow.
///
/// Proof of the bound: the error of `e` is 1.1 u at most (u half an ULP at 1; `exp2.rs`), and less
/// of it reaches the quotient; rounding the sum and the quotient costs 1 u each. Together that is
/// below 3 ULP.
#[derive(Clone, Copy)]
struct Sigmoid<S: Vector> {
    exp: Exp<S>,
    /// C
    one: S::V,
}

impl<S: Vector> Sigmoid<S> {
    #[inline(always)]
    fn new(simd: S, scale: &Scale) -> Self {
        let exp = Exp::new(simd, scale, &no_shift(scale, S::E::MIN_EXP));
        let one = exp.of(false, true, simd.splat(S::E::narrow(0.0)));
        Sigmoid { exp, one }
    }
}

impl<S: Vector> Last<S> for Sigmoid<S> {
    #[inline(always)]
    fn of_each<const N: usize>(&self, s: S, x: [S::V; N]) -> [S::V; N] {
        let mut e = x;
        for e in &mut e {
            *e = minus_abs(s, *e);
        }
        let mut e = self.exp.of_each::<N, false>(false, true, e, e);
        let zero = s.splat(S::E::narrow(0.0));
        for (e, x) in e.iter_mut().zip(x) {
            let y = s.div(s.select_below(x, zero, *e, self.one), s.add(self.one, *e));
            *e = or_top(s, x, y, S::E::narrow(1.0));
        }
        e
    }
}

/// `-|x|`
#[inline(always)]
fn minus_abs<S: Vector>(s: S, x: S::V) -> S::V {
    s.min(x, s.sub(s.splat(S::E::narrow(0.0)), x))
}

/// `y` where `x` is below +inf, `top` where it is +inf, and NaN where it is NaN.
#[inline(always)]
fn or_top<S: Vector>(s: S, x: S::V, y: S::V, top: S::E) -> S::V {
    let splat = |x: f64| s.splat(S::E::narrow(x));
    let special = s.select_below(splat(0.0), x, s.splat(top), splat(NAN));
    s.select_below(x, splat(f64::INFINITY), y, special)
}

/// The one NaN that results carry, in f64 and, narrowed, in f32.
const NAN: f64 = <f64 as Element>::NAN;

/// `-ln(1 + exp(-a x))` in f64 for all types: `min(a x, 0) - log1p(e)`, `e = exp(-a |x|)`.
///
/// In f64, `s = e / (2 + e)` is at most 1/3, `log1p(e) = 2 atanh(s) = 2 s (1 + s^2/3 + ...)`, and
/// the error of the quotient `s` is added. The logarithm has the error of `e`, 1.1 u at most, and
/// one rounding; the result has one or two more: below 3 ULP.
///
/// In f32 the logarithm is a polynomial in `e` with an error of 2^-27.6, and `e` has one of 2^-29:
/// together 0.1 ULP of f32 before the one rounding to f32. Without a division it takes half the
/// time (Zen 5).
#[derive(Clone, Copy)]
struct LogSigmoid<W: Vector> {
    exp: Exp<W>,
    /// 2 C
    two: W::V,
    /// `1 / C`
    inverse: W::V,
    scale: (W::V, W::V),
}

impl<W: Vector<E = f64>> LogSigmoid<W> {
    #[inline(always)]
    fn new(w: W, scale: &Scale) -> Self {
        let exp = Exp::new(w, scale, &no_shift(scale, <f64 as Contract>::MIN_EXP));
        let one = exp.of(false, true, w.splat(0.0));
        let (hi, lo) = scale.pair();
        let (two, inverse) = (w.add(one, one), w.div(w.splat(1.0), one));
        LogSigmoid { exp, two, inverse, scale: (w.splat(hi), w.splat(lo)) }
    }

    /// The result to f32's precision, from `-|x|` and `min(x, 0)`.
    #[inline(always)]
    fn of_f32<const N: usize>(&self, x: [W::V; N], low: [W::V; N]) -> [W::V; N] {
        let w = self.exp.simd;
        let e = self.exp.of_few(POWERS_F32, x);
        let mut square = e;
        for k in 0..N {
            square[k] = w.mul(e[k], e[k]);
        }
        let [even, odd] = LOG1P;
        let (even, odd) = (polynomials(w, even, square), polynomials(w, odd, square));
        let mut y = low;
        for k in 0..N {
            let log1p = w.mul(w.fma(odd[k], e[k], even[k]), e[k]);
            y[k] = w.fma(low[k], self.scale.0, w.sub(w.splat(0.0), log1p));
        }
        y
    }

    #[inline(always)]
    fn of_f64(&self, x: W::V) -> W::V {
        let w = self.exp.simd;
        let zero = w.splat(0.0);
        let e = self.exp.of(false, true, minus_abs(w, x));
        let sum = w.add(self.two, e);
        let s = w.div(e, sum);
        let square = w.mul(s, s);
        let [q] = polynomials(w, ATANH, [square]);
        let twice = w.add(s, s);
        let cube = w.mul(twice, square);
        // 2 (e - s (2 + e)) / (2 + e), with the rounding error of the sum; 2 / (2 + e) is 1 - s.
        let minus_s = w.sub(zero, s);
        let rest = w.fma(minus_s, w.sub(e, w.sub(sum, self.two)), w.fma(minus_s, sum, e));
        let rest = w.mul(w.mul(rest, self.inverse), w.sub(w.splat(1.0), s));
        let log1p = w.add(twice, w.fma(cube, q, rest));
        let low = w.select_below(x, zero, x, zero);
        let y = w.fma(low, self.scale.0, w.sub(zero, log1p));
        // A result of -inf gets no tail, which might be NaN or +inf.
        let tail = w.mul(low, self.scale.1);
        let y = w.add(y, w.zero_below(y, w.splat(f64::MIN), tail));
        or_top(w, x, y, 0.0)
    }
}

impl<S: Vector> Last<S> for LogSigmoid<S::Wide> {
    #[inline(always)]
    fn of_each<const N: usize>(&self, simd: S, mut v: [S::V; N]) -> [S::V; N] {
        if const { S::E::MIN_EXP == <f64 as Contract>::MIN_EXP } {
            for v in &mut v {
                let y = self.of_f64(simd.widen(*v)[0]);
                *v = simd.narrow([y; 2]);
            }
            return v;
        }
        let zero = simd.splat(S::E::narrow(0.0));
        let none = [self.scale.0; N];
        let (mut x, mut low) = ([none; 2], [none; 2]);
        for k in 0..N {
            [x[0][k], x[1][k]] = simd.widen(minus_abs(simd, v[k]));
            [low[0][k], low[1][k]] = simd.widen(simd.min(v[k], zero));
        }
        let y = [self.of_f32(x[0], low[0]), self.of_f32(x[1], low[1])];
        for k in 0..N {
            v[k] = or_top(simd, v[k], simd.narrow([y[0][k], y[1][k]]), S::E::narrow(0.0));
        }
        v
    }
}

/// Evaluates the polynomial with these coefficients, constant term first, at each `x`.
#[inline(always)]
fn polynomials<W: Vector<E = f64>, const N: usize, const TERMS: usize>(
    w: W,
    coefficients: [f64; TERMS],
    x: [W::V; N],
) -> [W::V; N] {
    let mut q = [w.splat(coefficients[TERMS - 1]); N];
    for &c in coefficients[..TERMS - 1].iter().rev() {
        for k in 0..N {
            q[k] = w.fma(q[k], x[k], w.splat(c));
        }
    }
    q
}

/// Writes a limit of softmax for every row.
///
/// # Safety
/// The call's pointers are valid as [`Call`] says.
#[inline(always)]
unsafe fn limits<S, T>(simd: S, call: &Call<T>, limit: Limit)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    for row in 0..call.rows {
        // SAFETY: `row` is one of the call's rows, so x and y point to `cols` elements.
        unsafe {
            let (x, y) = call.row(row);
            limit_row(simd, call, x, y, limit);
        }
    }
    if S::STREAMS && call.store.is_past() {
        simd.fence();
    }
}

/// Writes a limit of softmax for one row.
///
/// # Safety
/// `x` is valid for reads and `y` for writes of `call.cols` elements.
#[inline(always)]
unsafe fn limit_row<S, T>(simd: S, call: &Call<T>, x: *const T, y: *mut T, limit: Limit)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let n = call.cols;
    // SAFETY: as this function's.
    unsafe {
        let (max, special) = top(simd, x, n);
        let special = if special || max.widen() == f64::NEG_INFINITY {
            match classify(simd, x, n, &Plain::NEAR) {
                // Elements of +inf share the mass.
                Special::PlusInf if !limit.hot => None,
                special => Some(special),
            }
        } else {
            None
        };
        if let Some(special) = special {
            let nothing = if limit.log { T::NEG_INFINITY } else { T::ZERO };
            return special_row(&special, y, n, call.masked, nothing);
        }
        // The least element that gets a share.
        let least = simd.splat(if limit.hot { S::E::narrow(S::E::LEAST) } else { max });
        let first = limit.ties == Ties::First;
        let sharing = if first { 1 } else { count::<S, T>(simd, x, n, least) };
        let (share, nothing) = limit.shares(sharing);
        let (share, nothing) = (S::E::narrow(share), simd.splat(S::E::narrow(nothing)));
        if first {
            let i = first_of::<S, T>(simd, x, n, max);
            fill::<S, T>(simd, call.store, x, y, i, nothing);
            *y.add(i) = T::from_f64(share.widen());
            fill::<S, T>(simd, call.store, x.add(i + 1), y.add(i + 1), n - i - 1, nothing);
            return;
        }
        let share = simd.splat(share);
        finish::<S, T>(
            simd,
            call.store,
            x,
            y,
            n,
            By(
                #[inline(always)]
                |v| simd.select_below(v, least, nothing, share),
            ),
        );
    }
}

/// Writes `n` times `value`, whatever `x` holds.
///
/// # Safety
/// As [`finish`].
#[inline(always)]
unsafe fn fill<S: Io<T>, T>(simd: S, store: Store, x: *const T, y: *mut T, n: usize, value: S::V) {
    // SAFETY: as this function's.
    unsafe {
        finish::<S, T>(
            simd,
            store,
            x,
            y,
            n,
            By(
                #[inline(always)]
                |_| value,
            ),
        );
    }
}

/// Calls `f` with every vector of `n` elements and its number among the `UNROLL` vectors of a turn.
/// Missing lanes are -inf.
///
/// Nothing is prefetched: the way of streaming sweeps was slower where nothing is written. One
/// thread of a busy AMD Zen 5, argmax of 1,024 x 128,256 bf16: 12.5 G elements/s without it, which
/// is the speed of reading, and 10 with it; log-sum-exp: the same, but in rows of 1,000 f32 1.2 to
/// 1.5 times slower.
///
/// # Safety
/// `x` is valid for reads of `n` elements.
#[inline(always)]
unsafe fn vectors<S: Io<T>, T>(simd: S, x: *const T, n: usize, mut f: impl FnMut(usize, S::V)) {
    let mut i = 0;
    // SAFETY: at every load that many elements are left; at the last one n - i < LANES.
    unsafe {
        while !S::SMALL && n - i >= UNROLL * S::LANES {
            for k in 0..UNROLL {
                f(k, simd.load(x.add(i + k * S::LANES)));
            }
            i += UNROLL * S::LANES;
        }
        while n - i >= S::LANES {
            f(0, simd.load(x.add(i)));
            i += S::LANES;
        }
        if i < n {
            f(1, simd.load_part(x.add(i), n - i, S::E::narrow(f64::NEG_INFINITY)));
        }
    }
}

/// The largest of `n` elements, -inf if there is none, and whether NaN or +inf is among them. With
/// a NaN the largest may be anything.
///
/// # Safety
/// `x` is valid for reads of `n` elements.
#[inline(always)]
unsafe fn top<S: Io<T>, T>(simd: S, x: *const T, n: usize) -> (S::E, bool) {
    let splat = |x: f64| simd.splat(S::E::narrow(x));
    let (infinity, zero, one) = (splat(f64::INFINITY), splat(0.0), splat(1.0));
    let mut max = [splat(f64::NEG_INFINITY); UNROLL];
    let mut special = [zero; UNROLL];
    // SAFETY: as this function's.
    unsafe {
        vectors(
            simd,
            x,
            n,
            #[inline(always)]
            |k, v| {
                max[k] = simd.max(v, max[k]);
                special[k] = simd.select_below(v, infinity, special[k], one);
            },
        );
    }
    let all = |v: [S::V; UNROLL]| simd.max(simd.max(v[0], v[1]), simd.max(v[2], v[3]));
    (simd.max_lane(all(max)), simd.max_lane(all(special)).widen() > 0.0)
}

/// The number of elements that are not below `least`, among `n` without NaN; `least` is above -inf.
///
/// # Safety
/// `x` is valid for reads of `n` elements.
#[inline(always)]
unsafe fn count<S, T>(simd: S, x: *const T, n: usize, least: S::V) -> usize
where
    S: Io<T> + Io<<S as Vector>::E>,
{
    let zero = S::E::narrow(0.0);
    let one = simd.splat(S::E::narrow(1.0));
    let mut total = 0;
    for start in (0..n).step_by(BLOCK) {
        let mut acc = [simd.splat(zero); UNROLL];
        let mut lanes = [zero; 16];
        // SAFETY: the block lies within the n elements; the array has room for a vector.
        unsafe {
            vectors(
                simd,
                x.add(start),
                BLOCK.min(n - start),
                #[inline(always)]
                |k, v| {
                    acc[k] = simd.add(acc[k], simd.select_below(v, least, simd.splat(zero), one))
                },
            );
            let acc = simd.add(simd.add(acc[0], acc[1]), simd.add(acc[2], acc[3]));
            simd.store(lanes.as_mut_ptr(), acc);
        }
        // A lane counts to 512 at most, which is exact in every type.
        total += lanes.iter().map(|lane| lane.widen() as usize).sum::<usize>();
    }
    total
}

/// The index of the first element that is not below `max`, the largest, among `n` without NaN; 0 if
/// there is none.
///
/// # Safety
/// `x` is valid for reads of `n` elements.
#[inline(always)]
unsafe fn first_of<S, T>(simd: S, x: *const T, n: usize, max: S::E) -> usize
where
    S: Io<T>,
    T: Element,
{
    let turn = UNROLL * S::LANES;
    let mut i = 0;
    // SAFETY: at every load that many elements are left.
    unsafe {
        while n - i >= turn {
            let v = |k: usize| simd.load(x.add(i + k * S::LANES));
            let top = simd.max(simd.max(v(0), v(1)), simd.max(v(2), v(3)));
            if simd.max_lane(top) >= max {
                break;
            }
            i += turn;
        }
        while n - i >= S::LANES && simd.max_lane(simd.load(x.add(i))) < max {
            i += S::LANES;
        }
        let found = (i..n).find(|&i| (*x.add(i)).to_f64() >= max.widen());
        found.unwrap_or(0)
    }
}

/// The index of the largest of `n` elements, the first of equals, or of the first NaN; 0 if there
/// are none.
///
/// # Safety
/// `x` is valid for reads of `n` elements.
#[inline(always)]
unsafe fn largest<S, T>(simd: S, x: *const T, n: usize) -> usize
where
    S: Io<T>,
    T: Element,
{
    let mut max = S::E::narrow(f64::NEG_INFINITY);
    let mut best = 0;
    // SAFETY: blocks lie within the n elements.
    unsafe {
        for start in (0..n).step_by(BLOCK) {
            let block = x.add(start);
            let len = BLOCK.min(n - start);
            let (top, special) = top(simd, block, len);
            if special && let Some(nan) = first_nan(block, len) {
                return start + nan;
            }
            if top > max {
                (max, best) = (top, start);
            }
        }
        best + first_of(simd, x.add(best), BLOCK.min(n - best), max)
    }
}

/// The index of the first NaN among `n` elements.
///
/// # Safety
/// `x` is valid for reads of `n` elements.
#[cold]
#[inline(never)]
unsafe fn first_nan<T: Element>(x: *const T, n: usize) -> Option<usize> {
    // SAFETY: i < n.
    (0..n).find(|&i| unsafe { *x.add(i) }.to_f64().is_nan())
}

/// Picks elements of every row.
#[inline(always)]
pub(crate) fn pick<S, T>(simd: S, picks: &mut Picks<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    if let Wanted::Largest(indices) = &mut picks.wanted {
        // No exponentials are computed, so nothing is prepared for them.
        for (r, index) in indices.iter_mut().enumerate() {
            let row = picks.x.row(r);
            // SAFETY: the slice is valid for reads.
            *index = unsafe { largest(simd, row.as_ptr(), row.len()) };
        }
        return;
    }
    let scale = picks.scale;
    let mut reducer = Reducer::new(simd, &scale);
    for r in 0..picks.x.rows() {
        let row = picks.row(r);
        // SAFETY: the slice is valid for reads; nothing is kept.
        let reduced = unsafe {
            let none = std::ptr::null_mut();
            reducer.reduce_alone::<T, Forget, _>(row.as_ptr(), none, row.len(), &Plain::NEAR)
        };
        let shift = reduced.as_ref().map(|reduced| reduced.log_shift(&scale));
        if let Some(lse) = picks.lse.get_mut(r) {
            *lse = match &shift {
                Ok(shift) => T::Arithmetic::from_f64(shift.logsumexp()),
                Err(special) => special.value(),
            };
        }
        let places = r * picks.k..(r + 1) * picks.k;
        let probs = picks.probs.get_mut(places.clone()).unwrap_or_default();
        let log_probs = &mut picks.log_probs[places.clone()];
        match &mut picks.wanted {
            Wanted::Tokens(tokens) => {
                for (y, &token) in log_probs.iter_mut().zip(&tokens[places]) {
                    *y = T::Arithmetic::from_f64(row[token].to_f64());
                }
            }
            Wanted::Top(indices) => {
                let indices = &mut indices[places];
                if matches!(reduced, Err(Special::Nan)) {
                    indices.iter_mut().enumerate().for_each(|(i, index)| *index = i);
                } else {
                    top_k(simd, row, indices, log_probs);
                }
            }
            Wanted::Largest(_) => {}
        }
        softmax::<S, T>(simd, log_probs, probs, &reduced, &scale, picks.masked);
        log_softmax::<S, T>(simd, log_probs, &shift, picks.masked);
    }
}

/// Turns a row's elements into their log-probabilities.
#[inline(always)]
fn log_softmax<S, T>(
    simd: S,
    log_probs: &mut [T::Arithmetic],
    shift: &Result<LogShift, &Special>,
    masked: Masked,
) where
    S: Vector,
    T: Element,
{
    for y in log_probs {
        *y = match shift {
            Ok(shift) => {
                let x = simd.splat(S::E::narrow(y.to_f64()));
                let y = simd.first_lane(simd.log_softmax(x, shift));
                T::Arithmetic::from_f64(y.widen())
            }
            Err(Special::AllMasked) if masked == Masked::Zero => T::Arithmetic::NEG_INFINITY,
            Err(_) => T::Arithmetic::NAN,
        };
    }
}

/// Writes the probabilities of some of a row's elements, as many as there are places.
#[inline(always)]
fn softmax<S, T>(
    simd: S,
    elements: &[T::Arithmetic],
    probs: &mut [T::Arithmetic],
    reduced: &Result<Reduced<S>, Special>,
    scale: &Scale,
    masked: Masked,
) where
    S: Vector,
    T: Element,
{
    if probs.is_empty() {
        return;
    }
    match reduced {
        Ok(reduced) => {
            let row = <Again as Task<S, T>>::last(scale, reduced);
            for (p, x) in probs.iter_mut().zip(elements) {
                let x = simd.splat(S::E::narrow(x.to_f64()));
                let y = simd.first_lane(row.of(simd, x));
                *p = T::Arithmetic::from_f64(y.widen());
            }
        }
        Err(Special::AllMasked) if masked == Masked::Zero => probs.fill(T::Arithmetic::ZERO),
        Err(_) => probs.fill(T::Arithmetic::NAN),
    }
}

/// [`top_k`] as a function of its own, for other operations.
#[inline(never)]
pub(crate) fn top_k_apart<S, T, V>(simd: S, row: &[T], indices: &mut [usize], values: &mut [V])
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
    V: Element,
{
    simd.vectorize(
        #[inline(always)]
        || top_k(simd, row, indices, values),
    );
}

/// Finds the largest elements of a row without NaN, and their indices, as many as there are places:
/// the largest first, and of equals the first.
#[inline(always)]
fn top_k<S, T, V>(simd: S, row: &[T], indices: &mut [usize], values: &mut [V])
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
    V: Element,
{
    let k = indices.len();
    if k == 0 {
        return;
    }
    let mut heap = Heap { indices, values };
    heap.fill(row);
    let turn = UNROLL * S::LANES;
    let mut i = k;
    while row.len() - i >= turn {
        // SAFETY: that many elements are there.
        let v = |k: usize| unsafe { simd.load(row.as_ptr().add(i + k * S::LANES)) };
        let v = [v(0), v(1), v(2), v(3)];
        let least = heap.least();
        let all = simd.max(simd.max(v[0], v[1]), simd.max(v[2], v[3]));
        if simd.max_lane(all).widen() > least {
            for (k, v) in v.into_iter().enumerate() {
                if simd.max_lane(v).widen() > least {
                    let mut lanes = [S::E::narrow(0.0); 16];
                    // SAFETY: there is room for a vector.
                    unsafe { simd.store(lanes.as_mut_ptr(), v) };
                    let values = lanes[..S::LANES].iter().map(|v| v.widen());
                    heap.offer(i + k * S::LANES, values);
                }
            }
        }
        i += turn;
    }
    heap.offer(i, row[i..].iter().map(|v| v.to_f64()));
    heap.sort();
}

/// A heap of the largest elements so far. On top is the next to be replaced: the smallest, of
/// equals the last.
struct Heap<'a, E> {
    indices: &'a mut [usize],
    values: &'a mut [E],
}

impl<E: Element> Heap<'_, E> {
    /// Fills the heap with the first elements of a row.
    fn fill<T: Element>(&mut self, row: &[T]) {
        for (i, (index, value)) in self.indices.iter_mut().zip(&mut *self.values).enumerate() {
            (*index, *value) = (i, E::from_f64(row[i].to_f64()));
        }
        for at in (0..self.indices.len() / 2).rev() {
            self.sift(at, self.indices.len());
        }
    }

    /// The value that an element must exceed.
    fn least(&self) -> f64 {
        self.values[0].to_f64()
    }

    /// Takes the values that are large enough. The first one has the index `at`, and all of them
    /// come after those offered before.
    #[inline(always)]
    fn offer(&mut self, at: usize, values: impl Iterator<Item = f64>) {
        let mut least = self.least();
        for (i, value) in values.enumerate() {
            if value > least {
                (self.indices[0], self.values[0]) = (at + i, E::from_f64(value));
                self.sift(0, self.indices.len());
                least = self.least();
            }
        }
    }

    /// Whether the element at `a` is replaced before the one at `b`.
    fn goes_first(&self, a: usize, b: usize) -> bool {
        let (x, y) = (self.values[a].to_f64(), self.values[b].to_f64());
        x < y || (x == y && self.indices[a] > self.indices[b])
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.indices.swap(a, b);
        self.values.swap(a, b);
    }

    /// Moves the element at `at` down to its place among the first `n`.
    fn sift(&mut self, mut at: usize, n: usize) {
        loop {
            let mut child = 2 * at + 1;
            if child >= n {
                return;
            }
            if child + 1 < n && self.goes_first(child + 1, child) {
                child += 1;
            }
            if !self.goes_first(child, at) {
                return;
            }
            self.swap(at, child);
            at = child;
        }
    }

    /// Sorts the largest first, which ends the heap.
    fn sort(&mut self) {
        for end in (1..self.indices.len()).rev() {
            self.swap(0, end);
            self.sift(0, end);
        }
    }
}
