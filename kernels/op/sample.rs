//! The vector loops that draws need: exponentials, and sums of masses above a threshold.

use crate::call::masses::{Exps, HALF, LEAST, Masses, ROUND, SPAN, Scanned, UNITS, rank};
use crate::isa::vector::{Across, Io, Vector};
use crate::num::element::Element;
use crate::num::exp2::Contract;
use crate::num::guess::{Guess, Learned};
use crate::num::ln::ln;
use crate::num::philox;
use crate::num::scale::Scale;
use crate::sweep::reduce::Reducer;
use crate::sweep::{Exp, Keep, Logits, Plain, Shown, inlined, row_max};

/// Exponentials of rows that are computed in f32: one sweep by a guessed shift.
///
/// # Safety
/// `exps` is as long as `x`, for which `logits` was made, and `S::E` is f32.
#[inline(always)]
unsafe fn exps_of_f32<S, T, L>(
    simd: S,
    x: &[T],
    logits: &L,
    scale: &Scale,
    learned: &mut Option<Learned>,
    exps: &mut [f32],
) -> Option<Exps>
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
    L: Logits<S>,
{
    let mut reducer = Reducer::after(learned.as_ref(), simd, scale);
    if learned.is_none() {
        let n = x.len().min(FIRST);
        // SAFETY: the slice has n elements.
        let max = unsafe { row_max(simd, x.as_ptr(), n, logits) };
        let own = scale.shift(max, S::E::MIN_EXP);
        if max.is_finite() && !own.is_huge() {
            reducer.guess = Guess::like::<S::E>(&own, scale);
            reducer.exp = Exp::new(simd, scale, &reducer.guess.shift());
        }
        // Rows with masked elements are common.
        reducer.cut = true;
    }
    let kept = exps.as_mut_ptr().cast::<S::E>();
    // SAFETY: both slices have as many elements, and those that are written are of f32. They are
    // different slices.
    let reduced = unsafe { reducer.reduce_alone::<T, Keep, L>(x.as_ptr(), kept, x.len(), logits) };
    *learned = Some(reducer.learned());
    let reduced = reduced.ok()?;
    let sum = reduced.sum.hi * reduced.factor;
    let top = reduced.exp.of(true, true, simd.splat(S::E::narrow(reduced.max)));
    let largest = simd.first_lane(top).widen() as f32;
    Some(Exps { max: reduced.max, largest, sum, factor: reduced.factor as f32 })
}

/// Elements of a first row from which its shift is guessed.
const FIRST: usize = 4096;

/// Exponentials of rows that are computed in f64: by the row's own maximum.
///
/// # Safety
/// `exps` is as long as `x`, for which `logits` was made.
#[inline(always)]
unsafe fn exps_of_f64<S, T, L>(
    simd: S,
    x: &[T],
    logits: &L,
    scale: &Scale,
    exps: &mut [f32],
) -> Option<Exps>
where
    S: Io<T> + Io<<S as Vector>::E> + Io<f32>,
    T: Element,
    L: Logits<S>,
{
    let n = x.len();
    // SAFETY: the slice has n elements.
    let max = unsafe { row_max(simd, x.as_ptr(), n, logits) };
    if !max.is_finite() {
        return None;
    }
    let exp = Exp::new(simd, scale, &scale.shift(max, S::E::MIN_EXP));
    let mut acc = simd.acc_zero();
    let mut i = 0;
    while i < n {
        let left = n - i;
        // SAFETY: both slices have `left` more elements.
        unsafe {
            if left >= S::LANES {
                let (v, _) = logits.at(simd.load(x.as_ptr().add(i)), i, S::LANES);
                let e = exp.of(true, true, v);
                simd.store(exps.as_mut_ptr().add(i), e);
                acc = simd.acc_add(acc, e);
            } else {
                let v = simd.load_part(x.as_ptr().add(i), left, S::E::narrow(f64::NEG_INFINITY));
                let e = exp.of(true, true, logits.at(v, i, left).0);
                simd.store_part(exps.as_mut_ptr().add(i), left, e);
                acc = simd.acc_add(acc, e);
            }
        }
        i += S::LANES;
    }
    let sum = simd.acc_fold(acc).hi;
    // The sum of a row with a NaN is not above 0.
    let largest = simd.first_lane(exp.of(true, true, simd.splat(S::E::narrow(max)))).widen() as f32;
    (sum > 0.0).then_some(Exps { max, largest, sum, factor: 1.0 })
}

/// Converts a row to the arithmetic type.
#[inline(always)]
pub(crate) fn widen<S, T>(simd: S, x: &[T], y: &mut [T::Arithmetic])
where
    S: Io<T> + Io<T::Arithmetic>,
    T: Element,
{
    let n = x.len().min(y.len());
    let mut i = 0;
    while i < n {
        // SAFETY: both have n - i more elements.
        unsafe {
            let (x, y) = (x.as_ptr().add(i), y.as_mut_ptr().add(i));
            if n - i >= S::LANES {
                simd.store(y, simd.load(x));
            } else {
                simd.store_part(y, n - i, simd.load_part(x, n - i, S::E::narrow(0.0)));
            }
        }
        i += S::LANES;
    }
}

/// As [`Ready::logs`](crate::Ready::logs). The compiler turns the loop into vectors.
#[inline(always)]
pub(crate) fn logs<S: Vector>(_: S, x: &[f32], logs: &mut [f64]) {
    for (&x, log) in x.iter().zip(logs) {
        *log = ln(x);
    }
}

/// As [`Ready::noise`](crate::Ready::noise). The compiler turns the loop into vectors.
#[inline(always)]
pub(crate) fn noise<S: Vector>(_: S, bits: [u32; 4], pairs: &[u32], noise: &mut [[f64; 2]]) {
    for (&pair, noise) in pairs.iter().zip(noise) {
        *noise = philox::noise(bits, pair);
    }
}

/// As [`Kernel::scan`]. Without `ABOVE` there is no upper set, without `BAND` no band; without
/// both, everything is in the upper set.
#[inline(always)]
fn scan_by<S: Across + Vector<E = f32>, const ABOVE: bool, const BAND: bool>(
    simd: S,
    masses: Masses<'_>,
    low: f32,
    high: f32,
    spans: &mut [u64],
    band: &mut [u64],
) -> Scanned {
    let (factor, round) = (simd.splat(masses.factor), simd.splat(ROUND));
    let minus_half = simd.splat(-HALF);
    // Thresholds by the shift of the exponentials: exact, or below all that are not 0.
    let bound = |x: f32| simd.splat((x / masses.factor).max(f32::MIN_POSITIVE));
    let (lows, highs) = (bound(low), bound(high));
    let mut found = Scanned::default();
    let mut spans = spans.iter_mut();
    for (span, exps) in masses.exps.chunks(SPAN).enumerate() {
        let (mut total, mut above) = (simd.acc_zero(), simd.acc_zero());
        // One bit for each element, 16 for a vector.
        let mut hits = [0u16; SPAN / 16];
        let mut vector = inlined(
            #[inline(always)]
            |(i, e): (usize, S::V)| {
                // The product is exact, so that fused or not gives the same.
                let less = if S::FUSED {
                    simd.fma(e, factor, minus_half)
                } else {
                    simd.add(simd.mul(e, factor), minus_half)
                };
                let units = simd.sub(simd.add(less, round), round);
                total = simd.acc_add(total, units);
                let below = if ABOVE || !BAND { simd.less(e, highs) } else { LANES };
                found.above.0 += u64::from((!below & LANES).count_ones());
                if ABOVE {
                    above = simd.acc_add(above, simd.zero_below(e, highs, units));
                }
                if BAND {
                    // Hits are unpredictable for branches; they are collected here and handled
                    // later, 64 at once.
                    hits[i / S::LANES] = (!simd.less(e, lows) & below) as u16;
                }
            },
        );
        let whole = exps.len() / S::LANES * S::LANES;
        let mut i = 0;
        while i < whole {
            // SAFETY: LANES elements are there.
            vector((i, unsafe { simd.load(exps.as_ptr().add(i)) }));
            i += S::LANES;
        }
        if i < exps.len() {
            // SAFETY: fewer than LANES elements are left. Missing ones become 0, which has no mass.
            let e = unsafe { simd.load_part(exps.as_ptr().add(i), exps.len() - i, 0.0) };
            vector((i, e));
        }
        if BAND {
            for (k, &[a, b, c, d]) in hits.as_chunks::<4>().0.iter().enumerate() {
                let word = [a, b, c, d].map(u64::from);
                let mut word = word[0] | word[1] << 16 | word[2] << 32 | word[3] << 48;
                while word != 0 {
                    let i = 64 * k + word.trailing_zeros() as usize;
                    if let (Some(place), Some(&e)) = (band.get_mut(found.band), exps.get(i)) {
                        *place = rank(masses.of(e), span * SPAN + i);
                    }
                    found.band += 1;
                    word &= word - 1;
                }
            }
        }
        let total = (simd.acc_fold(total).hi * UNITS) as u64;
        let above = match (ABOVE, BAND) {
            (true, _) => (simd.acc_fold(above).hi * UNITS) as u64,
            (false, true) => 0,
            (false, false) => total,
        };
        found.total += total;
        found.above.1 += above;
        if let Some(place) = spans.next() {
            *place = above;
        }
    }
    found
}

/// The bits of all lanes of a vector.
const LANES: u32 = 0xffff;

/// Computes the exponentials of a row, which has as many elements as `exps`. With words of bits,
/// elements are hidden where they are not set.
#[inline(always)]
pub(crate) fn exps<S, T>(
    simd: S,
    x: &[T],
    seen: Option<&[u32]>,
    scale: &Scale,
    learned: &mut Option<Learned>,
    exps: &mut [f32],
) -> Option<Exps>
where
    S: Io<T> + Io<<S as Vector>::E> + Io<f32>,
    T: Element,
{
    if x.len() != exps.len() {
        return None;
    }
    // SAFETY: the lengths were compared above, and the logits are made for the row.
    unsafe {
        match seen {
            None => exps_of(simd, x, &Plain::NEAR, scale, learned, exps),
            Some(seen) => exps_of(simd, x, &Shown::new(simd, seen, x.len())?, scale, learned, exps),
        }
    }
}

/// As [`exps`], for these logits.
///
/// # Safety
/// `exps` is as long as `x`, for which `logits` was made.
#[inline(always)]
unsafe fn exps_of<S, T, L>(
    simd: S,
    x: &[T],
    logits: &L,
    scale: &Scale,
    learned: &mut Option<Learned>,
    exps: &mut [f32],
) -> Option<Exps>
where
    S: Io<T> + Io<<S as Vector>::E> + Io<f32>,
    T: Element,
    L: Logits<S>,
{
    // SAFETY: as this function's.
    unsafe {
        if const { size_of::<S::E>() != size_of::<f32>() } {
            exps_of_f64(simd, x, logits, scale, exps)
        } else {
            exps_of_f32(simd, x, logits, scale, learned, exps)
        }
    }
}

/// Copies a row, with -inf where the bit of an element is not set or missing.
#[inline(always)]
pub(crate) fn hide<S, T>(simd: S, x: &[T], seen: &[u32], y: &mut [T])
where
    S: Io<T>,
    T: Element,
{
    let n = x.len().min(y.len());
    let with_bits = n.min(seen.len().saturating_mul(32));
    y[with_bits..n].fill(T::NEG_INFINITY);
    let hidden = simd.splat(S::E::narrow(f64::NEG_INFINITY));
    let (x, y) = (x.as_ptr(), y.as_mut_ptr());
    let words = seen.iter().zip((0..with_bits).step_by(32));
    for (&word, start) in words {
        let end = with_bits.min(start + 32);
        for i in (start..end).step_by(S::LANES) {
            let len = (end - i).min(S::LANES);
            // SAFETY: both have len more elements.
            unsafe {
                // Grammars allow few tokens: what they hide is not read.
                let v = if word == 0 {
                    hidden
                } else {
                    let v = simd.load_upto(x.add(i), len, S::E::narrow(0.0));
                    simd.select_bits(word >> (i - start), v, hidden)
                };
                if len == S::LANES {
                    simd.store(y.add(i), v);
                } else {
                    simd.store_part(y.add(i), len, v);
                }
            }
        }
    }
}

/// Sums the units of the elements whose exponentials are at least `high`, separately for each span
/// of the row, into `spans`. Collects the others whose exponentials are at least `low`, as ranks in
/// order of index, into `band`.
#[inline(always)]
pub(crate) fn scan<S: Across + Vector<E = f32>>(
    simd: S,
    masses: Masses<'_>,
    low: f32,
    high: f32,
    spans: &mut [u64],
    band: &mut [u64],
) -> Scanned {
    // The most frequent calls need less than the general case.
    if high == f32::INFINITY {
        scan_by::<S, false, true>(simd, masses, low, high, spans, band)
    } else if low < high {
        scan_by::<S, true, true>(simd, masses, low, high, spans, band)
    } else if high > LEAST {
        scan_by::<S, true, false>(simd, masses, low, high, spans, band)
    } else {
        scan_by::<S, false, false>(simd, masses, low, high, spans, band)
    }
}
