//! Entropies of rows, and their gradient: `call/entropies.rs` has the formulas. A row is read once
//! for its entropy, as for its log-sum-exp, and once more for its gradient.

use crate::call::entropies::{Apart, EntropyGradient, EntropySums, RowEntropy};
use crate::call::{Call, Masked, Special};
use crate::isa::vector::{Io, Vector};
use crate::num::element::Element;
use crate::num::exp2::{BLOCK, Contract, Sum};
use crate::num::scale::{Scale, Shift};
use crate::op::loss::{fill, halves, load, one_nan, store};
use crate::sweep::reduce::Reducer;
use crate::sweep::weigh::{Running, Weighed, weigh};
use crate::sweep::{Exp, Plain, classify, row_max};

/// The least maximum in rows of f64 whose sums may be found by a guessed shift.
const TINY: f64 = f64::from_bits((1023 - 900) << 52);

/// The entropy of a row, for its gradient if `slopes`; its maximum and its own shift.
///
/// # Safety
/// `x` is valid for reads of `n` elements.
#[inline(always)]
unsafe fn row<S, T>(
    reducer: &mut Reducer<S>,
    x: *const T,
    n: usize,
    slopes: bool,
) -> Result<(RowEntropy, f64, Shift), Special>
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let scale = reducer.scale;
    // SAFETY: as this function's.
    let (sums, exp) = unsafe { sums(reducer, x, n) }?;
    let (max, own) = (sums.max, sums.own);
    let simd = exp.simd;
    // SAFETY: as this function's.
    let apart = || unsafe { apart(simd, x, n, scale, max, own) };
    Ok((RowEntropy::new::<S::E>(scale, &sums, n, slopes, apart), max, own))
}

/// The sums of a row, by its own shift, and the constants by which they were computed.
///
/// # Safety
/// `x` is valid for reads of `n` elements.
#[inline(always)]
unsafe fn sums<S, T>(
    reducer: &mut Reducer<S>,
    x: *const T,
    n: usize,
) -> Result<(EntropySums, Exp<S>), Special>
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let mut max = None;
    if reducer.exact > 0 {
        reducer.exact -= 1;
    } else {
        let exp = reducer.exp;
        // SAFETY: as this function's.
        let found = unsafe {
            if const { S::SMALL } || reducer.cut {
                weigh::<S, T, true, true>(&exp, x, n)
            } else {
                weigh::<S, T, true, false>(&exp, x, n)
            }
        };
        let largest = found.max.widen();
        // Products of f64 with elements next to 0 are rounded where they are subnormal, so that
        // they depend on the shift: only the row's own will do.
        let tiny = halves::<S>() == 1 && largest.abs() < TINY;
        if let Some(own) = reducer.judge(largest, found.min.widen())
            && !tiny
        {
            let factor = reducer.guess.factor(&own);
            return Ok((of_found(found, largest, own, factor, &exp)?, exp));
        }
        max = Some(largest);
    }
    // SAFETY: as this function's.
    unsafe { sums_exactly(reducer, x, n, max) }
}

/// The sums of a row by its own maximum, which is `max` if given and if the row has no NaN. Rare,
/// so a function of its own.
///
/// # Safety
/// `x` is valid for reads of `n` elements.
#[cold]
#[inline(never)]
unsafe fn sums_exactly<S, T>(
    reducer: &Reducer<S>,
    x: *const T,
    n: usize,
    max: Option<f64>,
) -> Result<(EntropySums, Exp<S>), Special>
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let simd = reducer.exp.simd;
    let mut exp = reducer.exp;
    let mut found = Err(Special::Nan);
    simd.vectorize(
        #[inline(always)]
        || {
            // SAFETY: as this function's.
            unsafe {
                let max = max.unwrap_or_else(|| row_max(simd, x, n, &Plain::NEAR));
                if !max.is_finite() {
                    found = Err(classify(simd, x, n, &Plain::NEAR));
                    return;
                }
                let own = reducer.scale.shift(max, S::E::MIN_EXP);
                exp = Exp::new(simd, reducer.scale, &own);
                found = of_found(weigh::<S, T, false, true>(&exp, x, n), max, own, 1.0, &exp);
            }
        },
    );
    found.map(|sums| (sums, exp))
}

/// The sums by a row's own shift, which is `factor` times that of the sweep.
#[inline(always)]
fn of_found<S: Vector>(
    found: Weighed<S::E>,
    max: f64,
    own: Shift,
    factor: f64,
    exp: &Exp<S>,
) -> Result<EntropySums, Special> {
    if found.sum.hi.is_nan() {
        return Err(Special::Nan);
    }
    let simd = exp.simd;
    let top = simd.splat(S::E::narrow(max));
    let e_max = simd.first_lane(exp.of(true, true, top)).widen() * factor;
    let (sum, weighted) = (found.sum.times(factor), found.weighted.times(factor));
    Ok(EntropySums { max, own, e_max, sum, weighted })
}

/// Sums a row that is nearly certain once more, by the differences from its maximum. Rare, so a
/// function of its own.
///
/// # Safety
/// `x` is valid for reads of `n` elements; `max` is the largest.
#[cold]
#[inline(never)]
unsafe fn apart<S, T>(simd: S, x: *const T, n: usize, scale: &Scale, max: f64, own: Shift) -> Apart
where
    S: Io<T>,
    T: Element,
{
    let single = halves::<S>() == 2;
    let mut all = Apart { others: Sum::ZERO, below: Sum::ZERO };
    simd.vectorize(
        #[inline(always)]
        || {
            let (w, exp) = (simd.wide(), Exp::new(simd, scale, &own));
            let zero = simd.splat(S::E::narrow(0.0));
            let largest = simd.splat(S::E::narrow(max));
            let (top, unit) = (w.splat(max - own.subtract), w.splat(Apart::unit(scale)));
            let (mut errors, mut start) = (Sum::ZERO, 0);
            while start < n {
                let end = n.min(start + BLOCK);
                let [mut others, mut below, mut of_errors] = [Running::zero(simd); 3];
                for i in (start..end).step_by(S::LANES) {
                    // SAFETY: the row has these elements. The exponential of -inf is 0.
                    let x = unsafe { load(simd, x.add(i), end - i, f64::NEG_INFINITY) };
                    let e = exp.of(true, true, x);
                    others.add(simd, simd.widen(simd.select_below(x, largest, e, zero)));
                    let (e, mut d) = (simd.widen(e), simd.widen(exp.weight(x)));
                    let mut terms = d;
                    for half in 0..halves::<S>() {
                        let minus = w.sub(w.splat(0.0), d[half]);
                        d[half] = w.add(top, minus);
                        let t = w.sub(d[half], top);
                        let error = w.add(w.sub(top, w.sub(d[half], t)), w.sub(minus, t));
                        d[half] = w.mul(d[half], unit);
                        terms[half] = w.mul(e[half], w.mul(error, unit));
                    }
                    if single {
                        // Differences may have all 53 bits, so that products are rounded: apart
                        // from the additions on every CPU.
                        below.add(simd, [w.mul(e[0], d[0]), w.mul(e[1], d[1])]);
                    } else {
                        below.add_products(simd, e, d);
                        of_errors.add(simd, terms);
                    }
                }
                let add = |total: &mut Sum, block: Running<S>| {
                    let block = block.fold(simd);
                    *total = if start == 0 { block } else { S::E::sum_add(*total, block) };
                };
                add(&mut all.others, others);
                add(&mut all.below, below);
                if !single {
                    add(&mut errors, of_errors);
                }
                start = end;
            }
            if !single {
                all.below = S::E::sum_add(all.below, errors);
            }
        },
    );
    all
}

/// The entropy of every row of the call: one value per row.
///
/// # Safety
/// The call's pointers are valid as [`Call`] says, with outputs of one element a row.
#[inline(always)]
pub(crate) unsafe fn entropy<S, T>(simd: S, call: &Call<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let (mut learned, mut first, mut own) = (None, 0, None);
    while first < call.rows {
        let (end, scale) = call.run(first, &mut own);
        let mut reducer = Reducer::after(learned.as_ref(), simd, scale);
        for index in first..end {
            let (x, y) = call.row(index);
            // SAFETY: `index` is one of the call's rows: x points to `cols` elements, y to one.
            unsafe {
                *y = match row(&mut reducer, x, call.cols, false) {
                    Ok((row, ..)) => T::from_f64(row.entropy),
                    Err(Special::AllMasked) if call.masked == Masked::Zero => T::ZERO,
                    Err(_) => T::NAN,
                };
            }
        }
        first = end;
        if first < call.rows {
            learned = Some(reducer.learned());
        }
    }
}

/// The gradient of the entropy of every row of the call, in f64, rounded once.
///
/// # Safety
/// The call's pointers are valid as [`EntropyGradient`] says.
#[inline(always)]
pub(crate) unsafe fn gradient<S, T>(simd: S, call: &EntropyGradient<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let (w, n) = (simd.wide(), call.cols);
    let (zero, a) = (w.splat(0.0), w.splat(call.scale.get()));
    let mut reducer = Reducer::new(simd, &call.scale);
    for index in 0..call.rows() {
        let (x, y) = call.row(index);
        // SAFETY: `index` is one of the call's rows, x and y point to n elements.
        unsafe {
            let (row, max, own) = match row(&mut reducer, x, n, true) {
                Ok(found) => found,
                Err(special) => {
                    fill(y, n, call.special(matches!(special, Special::AllMasked)));
                    continue;
                }
            };
            // By the row's own shift, so that the bits do not depend on a guess.
            let exp = Exp::new(simd, &call.scale, &own);
            let top = w.splat(max - own.subtract);
            let minus_below = w.splat(0.0 - row.below);
            let factor = w.splat(row.factor * call.upstream(index));
            for i in (0..n).step_by(S::LANES) {
                let x = load(simd, x.add(i), n - i, 0.0);
                let (e, v) = (simd.widen(exp.of(true, true, x)), simd.widen(exp.weight(x)));
                let mut gradient = [zero; 2];
                for half in 0..halves::<S>() {
                    let d = w.fma(w.sub(top, v[half]), a, minus_below);
                    // The factor last: its product with an exponential may be subnormal.
                    gradient[half] = w.fma(w.mul(e[half], d), factor, zero);
                }
                store(simd, y.add(i), n - i, one_nan(simd, simd.narrow(gradient)));
            }
        }
    }
}
