//! Kullback-Leibler divergences of two rows of logits, and their gradients: `call/kl.rs` has the
//! formulas. Both rows are read for their maxima, for their sums, for the divergence, and once more
//! for the gradients, all in f64.

use crate::call::Special;
use crate::call::kl::{KlDivergence, KlRow, KlSums, NEAR, POLY};
use crate::isa::vector::{Io, Vector};
use crate::num::element::Element;
use crate::num::exp2::{Contract, Sum};
use crate::num::scale::Scale;
use crate::op::loss::{halves, load, one_nan, row_sums, store};
use crate::sweep::{Exp, Plain, classify, row_max};

/// The sum of a row's exponentials. A function of its own for all rows.
///
/// # Safety
/// `x` is valid for reads of `n` elements.
#[inline(never)]
#[allow(clippy::needless_range_loop)] // as indices the loops unroll into registers
unsafe fn sums<S, T>(simd: S, x: *const T, n: usize, scale: &Scale) -> Result<KlSums, Special>
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let mut max = 0.0;
    simd.vectorize(
        #[inline(always)]
        // SAFETY: as this function's.
        || max = unsafe { row_max(simd, x, n, &Plain::NEAR) },
    );
    if !max.is_finite() {
        // SAFETY: as this function's.
        return Err(unsafe { classify(simd, x, n, &Plain::NEAR) });
    }
    let own = scale.shift(max, <f64 as Contract>::MIN_EXP);
    let (mut e_max, mut sum) = (0.0, Sum::ZERO);
    simd.vectorize(
        #[inline(always)]
        || {
            let w = simd.wide();
            let exp = Exp::new(w, scale, &own);
            [sum] = row_sums(
                simd,
                n,
                #[inline(always)]
                |i, n| {
                    // SAFETY: n elements are there from i on. The exponential of -inf is 0.
                    let x = unsafe { load(simd, x.add(i), n, f64::NEG_INFINITY) };
                    let x = simd.widen(x);
                    let mut terms = [[w.splat(0.0); 2]];
                    for half in 0..halves::<S>() {
                        terms[0][half] = exp.of(true, true, x[half]);
                    }
                    terms
                },
            );
            e_max = w.first_lane(exp.of(true, true, w.splat(max)));
        },
    );
    if sum.hi.is_nan() { Err(Special::Nan) } else { Ok(KlSums { max, own, e_max, sum }) }
}

/// The constants of two rows, in every lane.
#[derive(Clone, Copy)]
struct Rows<W: Vector> {
    simd: W,
    exps: [Exp<W>; 2],
    max: (W::V, W::V),
    scale: (W::V, W::V),
    log: (W::V, W::V),
    ratio: W::V,
}

/// What is known of two elements: their exponentials, `d` and `g(d)`; the latter in
/// [`NEAR`] alone.
#[derive(Clone, Copy)]
struct Elements<V> {
    e: V,
    f: V,
    d: V,
    near: V,
}

/// `a - b` exactly, as the rounded difference and its error (Knuth).
#[inline(always)]
fn two_difference<W: Vector>(w: W, a: W::V, b: W::V) -> (W::V, W::V) {
    let s = w.sub(a, b);
    let t = w.sub(s, a);
    (s, w.sub(w.sub(a, w.sub(s, t)), w.add(b, t)))
}

#[inline(always)]
fn pair<W: Vector<E = f64>>(w: W, (hi, lo): (f64, f64)) -> (W::V, W::V) {
    (w.splat(hi), w.splat(lo))
}

impl<W: Vector<E = f64>> Rows<W> {
    #[inline(always)]
    fn new(simd: W, scale: &Scale, row: &KlRow, x: &KlSums, y: &KlSums) -> Self {
        Self {
            simd,
            exps: [Exp::new(simd, scale, &x.own), Exp::new(simd, scale, &y.own)],
            max: pair(simd, row.max),
            scale: pair(simd, row.scale),
            log: pair(simd, row.log),
            ratio: simd.splat(row.ratio),
        }
    }

    #[inline(always)]
    fn of(&self, x: W::V, y: W::V) -> Elements<W::V> {
        let w = self.simd;
        let (e, f) = (self.exps[0].of(true, true, x), self.exps[1].of(true, true, y));
        let half = w.splat(0.5);
        let (z, z_lo) = two_difference(w, w.mul(x, half), w.mul(y, half));
        let (z, error) = two_difference(w, z, self.max.0);
        let z_lo = w.add(error, w.sub(z_lo, self.max.1));
        let p = w.mul(z, self.scale.0);
        let p_lo = w.fma(z, self.scale.0, w.sub(w.splat(0.0), p));
        let p_lo = w.fma(z_lo, self.scale.0, w.fma(z, self.scale.1, p_lo));
        let (s, error) = two_difference(w, p, self.log.0);
        let d = w.add(s, w.add(error, w.sub(p_lo, self.log.1)));
        // An infinite difference has no low part, which would be NaN.
        let d = w.select_below(w.splat(f64::MAX), s, s, d);
        let d = w.select_below(s, w.splat(f64::MIN), s, d);
        let mut q = w.splat(POLY[POLY.len() - 1]);
        for &c in POLY[..POLY.len() - 1].iter().rev() {
            q = w.fma(q, d, w.splat(c));
        }
        Elements { e, f, d, near: w.mul(w.mul(d, d), q) }
    }

    /// `near` where `d` is in [`NEAR`], `far` elsewhere, and `nothing` where `e` is 0: there `d`
    /// may be anything.
    #[inline(always)]
    fn select(&self, at: &Elements<W::V>, near: W::V, far: W::V, nothing: W::V) -> W::V {
        let w = self.simd;
        let v = w.select_below(w.splat(NEAR.1), at.d, far, near);
        let v = w.select_below(at.d, w.splat(NEAR.0), far, v);
        w.select_below(at.e, w.splat(f64::MIN_POSITIVE), nothing, v)
    }
}

/// Two rows of logits, as vectors of f64.
///
/// # Safety
/// `x` and `y` are valid for reads of `n` elements from `i` on.
#[inline(always)]
#[allow(clippy::type_complexity)] // two rows, two halves
unsafe fn load_both<S: Io<T>, T>(
    simd: S,
    [x, y]: [*const T; 2],
    i: usize,
    n: usize,
) -> [[<S::Wide as Vector>::V; 2]; 2] {
    // SAFETY: as this function's. Missing elements count nothing.
    unsafe {
        [
            simd.widen(load(simd, x.add(i), n, f64::NEG_INFINITY)),
            simd.widen(load(simd, y.add(i), n, f64::NEG_INFINITY)),
        ]
    }
}

/// The sum of the terms of two rows.
///
/// # Safety
/// `x` is valid for reads of `n` elements in each row.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // as indices the loops unroll into registers
unsafe fn terms<S: Io<T>, T>(simd: S, rows: &Rows<S::Wide>, x: [*const T; 2], n: usize) -> Sum {
    let w = rows.simd;
    let [sum] = row_sums(
        simd,
        n,
        #[inline(always)]
        |i, n| {
            // SAFETY: n elements are there from i on.
            let [x, y] = unsafe { load_both(simd, x, i, n) };
            let mut terms = [[w.splat(0.0); 2]];
            for half in 0..halves::<S>() {
                let at = rows.of(x[half], y[half]);
                let of_q = w.mul(at.f, rows.ratio);
                let far = w.fma(at.e, w.sub(at.d, w.splat(1.0)), of_q);
                terms[0][half] = rows.select(&at, w.mul(at.e, at.near), far, of_q);
            }
            terms
        },
    );
    sum
}

/// Writes the gradients of two rows: where a pointer is null, none.
///
/// # Safety
/// `x` is valid for reads and each of `y` that is not null for writes of `n` elements.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // as indices the loops unroll into registers
unsafe fn gradients<S, T>(
    simd: S,
    rows: &Rows<S::Wide>,
    x: [*const T; 2],
    y: [*mut T; 2],
    n: usize,
    kl: f64,
    factors: [f64; 2],
) where
    S: Io<T>,
    T: Element,
{
    let w = rows.simd;
    let zero = w.splat(0.0);
    let kl = w.splat(kl);
    let factors = [w.splat(factors[0]), w.splat(factors[1])];
    for i in (0..n).step_by(S::LANES) {
        // SAFETY: n - i elements are there from i on.
        let [x, of_y] = unsafe { load_both(simd, x, i, n - i) };
        let mut gradients = [[zero; 2]; 2];
        for half in 0..halves::<S>() {
            let at = rows.of(x[half], of_y[half]);
            let p = w.mul(at.e, factors[0]);
            // The factor last: its product with an exponential may be subnormal.
            let v = w.fma(w.mul(at.e, w.sub(at.d, kl)), factors[0], zero);
            gradients[0][half] = rows.select(&at, v, v, zero);
            // exp(-d) - 1 is g(d) - d.
            let near = w.fma(p, w.sub(at.near, at.d), zero);
            let far = w.fma(at.f, factors[1], w.sub(zero, p));
            let of_q = w.mul(at.f, factors[1]);
            gradients[1][half] = rows.select(&at, near, far, of_q);
        }
        for k in 0..2 {
            if !y[k].is_null() {
                let v = one_nan(simd, simd.narrow(gradients[k]));
                // SAFETY: n - i elements are there from i on.
                unsafe { store(simd, y[k].add(i), n - i, v) };
            }
        }
    }
}

/// The divergence of every row of the call, or its gradients.
#[inline(always)]
pub(crate) fn divergence<S, T>(simd: S, call: &mut KlDivergence<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let (scale, n) = (call.scale, call.cols());
    for row in 0..call.rows() {
        let x = call.row(row).map(<[T]>::as_ptr);
        // SAFETY: both rows have n elements.
        let of_both = x.map(|x| unsafe { sums::<S, T>(simd, x, n, &scale) });
        let (of_x, of_y) = match of_both {
            [Ok(of_x), Ok(of_y)] => (of_x, of_y),
            [of_x, of_y] => {
                let (kl, gradient) = call.special(of_x.err(), of_y.err());
                call.set(row, kl);
                call.gradients(row).into_iter().flatten().for_each(|g| g.fill(gradient));
                continue;
            }
        };
        let constants = KlRow::new::<S::E>(&scale, &of_x, &of_y);
        let rows = Rows::new(simd.wide(), &scale, &constants, &of_x, &of_y);
        let mut kl = 0.0;
        if call.needs_divergence() {
            // SAFETY: both rows have n elements.
            kl = constants.divergence::<S::E>(unsafe { terms(simd, &rows, x, n) });
            call.set(row, T::from_f64(kl));
        }
        if call.has_gradients() {
            let factors = constants.factors::<S::E>(call.upstream(row));
            // No gradient is left of an infinite divergence.
            let kl = if kl.is_finite() { kl } else { f64::NAN };
            let null = std::ptr::null_mut();
            let y = call.gradients(row).map(|g| g.map_or(null, <[T]>::as_mut_ptr));
            // SAFETY: all rows have n elements.
            unsafe { gradients(simd, &rows, x, y, n, kl, factors) };
        }
    }
}
