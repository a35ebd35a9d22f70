//! The reference of `op/sample.rs`.

use crate::call::masses::{Exps, Masses, SPAN, Scanned, rank, units};
use crate::num::element::Element;
use crate::num::guess::Learned;
use crate::num::ln::ln;
use crate::num::philox;
use crate::num::scale::Scale;
use crate::scalar::{Double, Reference, Single, is_double};

/// The exponentials of a row, by its own maximum.
pub(crate) fn exps<T: Element>(
    x: &[T],
    seen: Option<&[u32]>,
    scale: &Scale,
    _: &mut Option<Learned>,
    exps: &mut [f32],
) -> Option<Exps> {
    fn row<R: Reference, T: Element>(
        x: &[T],
        seen: Option<&[u32]>,
        scale: &Scale,
        exps: &mut [f32],
    ) -> Option<Exps> {
        let is_seen = |i: usize| seen.is_none_or(|words| words[i / 32] >> (i % 32) & 1 == 1);
        let value = |(i, x): (usize, &T)| if is_seen(i) { x.to_f64() } else { f64::NEG_INFINITY };
        let values = || x.iter().enumerate().map(value);
        let max = values().fold(f64::NEG_INFINITY, f64::max);
        if !max.is_finite() || values().any(f64::is_nan) {
            return None;
        }
        let shift = scale.shift(max, R::MIN_EXP);
        let mut sum = 0.0;
        for (x, e) in values().zip(exps) {
            *e = R::exp(x, 0.0, scale, &shift) as f32;
            sum += f64::from(*e);
        }
        let largest = R::exp(max, 0.0, scale, &shift) as f32;
        Some(Exps { max, largest, sum, factor: 1.0 })
    }
    if is_double::<T>() {
        row::<Double, T>(x, seen, scale, exps)
    } else {
        row::<Single, T>(x, seen, scale, exps)
    }
}

/// Converts a row to the arithmetic type.
pub(crate) fn widen<T: Element>(x: &[T], y: &mut [T::Arithmetic]) {
    for (x, y) in x.iter().zip(y) {
        *y = <T::Arithmetic as Element>::from_f64(x.to_f64());
    }
}

/// Copies a row, with -inf where the bit of an element is not set or missing.
pub(crate) fn hide<T: Element>(x: &[T], seen: &[u32], y: &mut [T]) {
    for (i, (x, y)) in x.iter().zip(y).enumerate() {
        let word = seen.get(i / 32).copied().unwrap_or(0);
        *y = if word >> (i % 32) & 1 == 1 { *x } else { T::NEG_INFINITY };
    }
}

/// Writes natural logarithms.
pub(crate) fn logs(x: &[f32], logs: &mut [f64]) {
    for (&x, log) in x.iter().zip(logs) {
        *log = ln(x);
    }
}

/// Writes random numbers for pairs of elements.
pub(crate) fn noise(bits: [u32; 4], pairs: &[u32], noise: &mut [[f64; 2]]) {
    for (&pair, noise) in pairs.iter().zip(noise) {
        *noise = philox::noise(bits, pair);
    }
}

/// Sums masses and collects the band.
pub(crate) fn scan(
    masses: Masses<'_>,
    low: f32,
    high: f32,
    spans: &mut [u64],
    band: &mut [u64],
) -> Scanned {
    let mut found = Scanned::default();
    let mut band = band.iter_mut();
    for span in 0..masses.len().div_ceil(SPAN) {
        let (start, exps) = masses.span(span);
        let mut sum = 0;
        for (i, e) in exps.enumerate() {
            found.total += units(e);
            if e >= high {
                sum += units(e);
                found.above.0 += 1;
            } else if e >= low {
                if let Some(place) = band.next() {
                    *place = rank(e, start + i);
                }
                found.band += 1;
            }
        }
        found.above.1 += sum;
        if let Some(place) = spans.get_mut(span) {
            *place = sum;
        }
    }
    found
}

/// Sums the excess of probabilities by spans. Returns whether all numbers are probabilities.
pub(crate) fn excess<A: Element>(p: &[A], q: Option<&[A]>, sums: &mut [u64]) -> bool {
    let units = |p: f64| (p.min(1.0) * (1u64 << 52) as f64).round_ties_even() as u64;
    let mut all = true;
    for sum in sums.iter_mut() {
        *sum = 0;
    }
    for (i, p) in p.iter().enumerate() {
        let (p, q) = (p.to_f64(), q.map_or(0.0, |q| q[i].to_f64()));
        all &= [p, q].iter().all(|p| (0.0..=1.0 + 1.0 / 1024.0).contains(p));
        sums[i / SPAN] += units(p).saturating_sub(units(q));
    }
    all
}
