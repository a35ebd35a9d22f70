//! What drawing from a row needs: exponentials, integer masses, and sums over those above a threshold.
//!
//! The mass of an element is its exponential, by the row's own shift, in units of 2^-30, and a rest
//! in units of 2^-62:
//!
//! ```text
//! e      as exp2.rs defines it, rounded to f32 where it is f64: below 8, the largest of a row at least 2
//! units  = ((e - 2^-31) + 1.5 * 2^-7) - 1.5 * 2^-7          in f32, and in units of 2^-30
//! rest   = e - units where e is below 2^-8, else 0           in units of 2^-62, rounded down
//! ```
//!
//! Below 2^-8 the units are `e` rounded down (or, of odd multiples of 2^-30, the one below), and
//! the rest is a unit at most; above, they are `e` within 2^-21 of it. So units are integers, their
//! sums over fewer than 2^20 elements are exact in f64 in any order, and whatever is defined by
//! sums of them has one result, however it is computed. Rests are summed in the rare cases that ask
//! for them.

use crate::element::Element;
use crate::exp2::Contract;
use crate::guess::Guess;
use crate::pipeline::Reducer;
use crate::rows::{Exp, Keep, Plain, inlined, row_max};
use crate::scalar;
use crate::scale::Scale;
use crate::table::{Isa, Kernel};
use crate::vector::{Io, Vector};

/// What is added to an exponential and subtracted again.
const ROUND: f32 = 1.5 / 128.0;

/// Units of mass in 1.
const UNITS: f64 = (1u64 << 30) as f64;

/// Half a unit, which makes rounding to nearest rounding down.
const HALF: f32 = 0.5 / (1u32 << 30) as f32;

/// A row's elements whose masses are summed together.
pub const PART: usize = 1024;

/// The exponentials of a row.
#[derive(Clone, Copy, Debug)]
pub struct Exps {
    /// The row's largest element.
    pub max: f64,
    /// The largest exponential.
    pub largest: f32,
    /// The sum of the exponentials, about: `factor` is in it already.
    pub sum: f64,
    /// What the exponentials are yet to be multiplied by, a power of two.
    pub factor: f32,
}

/// What was learned from a row for the next one of the same type and scale.
#[derive(Clone, Copy, Debug, Default)]
pub struct Learned(Option<(Guess, bool, u32)>);

/// A row's masses.
#[derive(Clone, Copy, Debug)]
pub struct Masses<'a> {
    exps: &'a [f32],
    factor: f32,
}

/// Elements with smaller exponentials have no mass.
pub const LEAST: f32 = 1.0 / (1u64 << 62) as f32;

/// Elements with smaller exponentials have no whole unit.
pub const LEAST_UNIT: f32 = 1.0 / (1u32 << 30) as f32;

impl<'a> Masses<'a> {
    /// Those of exponentials that are yet to be multiplied by `factor`.
    pub fn new(exps: &'a [f32], factor: f32) -> Self {
        Self { exps, factor }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.exps.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.exps.is_empty()
    }

    /// The exponentials themselves.
    pub fn exps(&self) -> &'a [f32] {
        self.exps
    }

    /// The factor.
    pub fn factor(&self) -> f32 {
        self.factor
    }

    /// An exponential by the row's own shift.
    #[inline(always)]
    pub fn of(&self, e: f32) -> f32 {
        e * self.factor
    }

    /// Exponentials by the row's own shift of the elements of a part, and the first one's index.
    pub fn part(&self, part: usize) -> (usize, impl Iterator<Item = f32> + 'a) {
        let start = part.saturating_mul(PART).min(self.exps.len());
        let end = (start + PART).min(self.exps.len());
        let this = *self;
        (start, self.exps[start..end].iter().map(move |&e| this.of(e)))
    }
}

/// The whole units of the mass of an element with this exponential.
#[inline(always)]
pub fn units(e: f32) -> u64 {
    (f64::from(((e - HALF) + ROUND) - ROUND) * UNITS) as u64
}

/// Rests in a unit.
pub const RESTS: u64 = 1 << 32;

/// What the mass of an element with this exponential has besides its units.
pub fn rest(e: f32) -> u64 {
    if e < 1.0 / 256.0 {
        ((f64::from(e) * UNITS - units(e) as f64) * RESTS as f64) as u64
    } else {
        0
    }
}

/// An element by its rank: the larger exponential first, of equal ones the one with the lower
/// index. Compared as a number.
#[inline(always)]
pub fn rank(e: f32, index: usize) -> u64 {
    u64::from(!e.to_bits()) << 32 | index as u64
}

/// The exponential and the index of a rank.
#[inline(always)]
pub fn of_rank(rank: u64) -> (f32, usize) {
    (f32::from_bits(!((rank >> 32) as u32)), (rank & 0xffff_ffff) as usize)
}

/// What a scan found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// The units of all.
    pub total: u64,
    /// How many are in the upper set, and their units.
    pub above: (u64, u64),
    /// How many are in the band.
    pub band: usize,
}

/// Sums the units of elements whose exponentials are not below `high`, for each part of the row in
/// `parts`, and collects those below it that are not below `low`, by rank and in order of index, in
/// `band`.
pub(crate) type Scan =
    fn(masses: Masses<'_>, low: f32, high: f32, parts: &mut [u64], band: &mut [u64]) -> Scanned;

/// The entry points of a kernel for one element type.
#[derive(Debug)]
pub(crate) struct Ops<T: Element> {
    pub(crate) exps: fn(&[T], &Scale, &mut Learned, &mut [f32]) -> Option<Exps>,
    pub(crate) widen: fn(&[T], &mut [T::Arithmetic]),
}

/// Those of an instruction set.
pub(crate) const fn ops<I, S, T>() -> Ops<T>
where
    I: Isa,
    S: From<I> + Io<T> + Io<<S as Vector>::E> + Io<f32> + Io<T::Arithmetic>,
    T: Element,
{
    Ops { exps: entry::exps::<I, S, T>, widen: entry::widen::<I, S, T> }
}

/// Those of the scalar reference.
pub(crate) const fn reference<T: Element>() -> Ops<T> {
    Ops { exps: scalar::exps, widen: scalar::widen }
}

/// The scan of an instruction set.
pub(crate) const fn scan_of<I: Isa, S: From<I> + Bands>() -> Scan {
    entry::scan::<I, S>
}

/// Comparisons that end in bits.
pub(crate) trait Bands: Vector<E = f32> + Io<f32> {
    /// Bit `i` tells whether lane `i` of `a` is less than that of `b`.
    fn less(self, a: Self::V, b: Self::V) -> u32;
}

impl Kernel {
    /// The exponentials of a row, one of `exps` each, those that are yet to be multiplied. `None` if the row has NaN, +inf, or nothing but -inf, or
    /// `exps` is not as long as the row.
    pub fn exps<T: Element>(
        &'static self,
        x: &[T],
        scale: &Scale,
        learned: &mut Learned,
        exps: &mut [f32],
    ) -> Option<Exps> {
        if x.is_empty() || x.len() != exps.len() {
            return None;
        }
        (T::ops(self).sample.exps)(x, scale, learned, exps)
    }

    /// A row in the type that is computed with: as many elements as there are in both.
    pub fn widen<T: Element>(&'static self, x: &[T], y: &mut [T::Arithmetic]) {
        let n = x.len().min(y.len());
        (T::ops(self).sample.widen)(&x[..n], &mut y[..n]);
    }

    /// Sums the units of elements whose exponentials, by the row's own shift, are not below `high`,
    /// for each part of the row in `parts` (those that are there), and collects those below it that
    /// are not below `low`, by rank and in order of index, in `band` (as many as it has room for).
    /// Both bounds are at least [`LEAST`].
    pub fn scan(
        &'static self,
        masses: Masses<'_>,
        low: f32,
        high: f32,
        parts: &mut [u64],
        band: &mut [u64],
    ) -> Scanned {
        (self.scan)(masses, low, high, parts, band)
    }
}

/// The entry points that run the generic algorithms on an instruction set.
mod entry {
    use super::*;

    pub(super) fn exps<I, S, T>(
        x: &[T],
        scale: &Scale,
        learned: &mut Learned,
        exps: &mut [f32],
    ) -> Option<Exps>
    where
        I: Isa,
        S: From<I> + Io<T> + Io<<S as Vector>::E> + Io<f32>,
        T: Element,
    {
        let Some(isa) = I::detect() else {
            return scalar::exps(x, scale, learned, exps);
        };
        let mut found = None;
        isa.vectorize(
            #[inline(always)]
            || {
                let simd = S::from(isa);
                found = if const { size_of::<S::E>() == size_of::<f32>() } {
                    if x.len() == exps.len() {
                        // SAFETY: as was just compared.
                        unsafe { super::exps(simd, x, scale, learned, exps) }
                    } else {
                        None
                    }
                } else {
                    exps_of_f64(simd, x, scale, exps)
                };
            },
        );
        found
    }

    pub(super) fn widen<I, S, T>(x: &[T], y: &mut [T::Arithmetic])
    where
        I: Isa,
        S: From<I> + Io<T> + Io<T::Arithmetic>,
        T: Element,
    {
        let Some(isa) = I::detect() else {
            return scalar::widen(x, y);
        };
        isa.vectorize(
            #[inline(always)]
            || super::widen(S::from(isa), x, y),
        );
    }

    pub(super) fn scan<I: Isa, S: From<I> + Bands>(
        masses: Masses<'_>,
        low: f32,
        high: f32,
        parts: &mut [u64],
        band: &mut [u64],
    ) -> Scanned {
        let Some(isa) = I::detect() else {
            return scalar::scan(masses, low, high, parts, band);
        };
        let mut found = Scanned::default();
        isa.vectorize(
            #[inline(always)]
            || {
                let simd = S::from(isa);
                // Less to do for what is asked for most.
                found = if high == f32::INFINITY {
                    super::scan::<S, false, true>(simd, masses, low, high, parts, band)
                } else if low < high {
                    super::scan::<S, true, true>(simd, masses, low, high, parts, band)
                } else if high > LEAST {
                    super::scan::<S, true, false>(simd, masses, low, high, parts, band)
                } else {
                    super::scan::<S, false, false>(simd, masses, low, high, parts, band)
                };
            },
        );
        found
    }
}

/// Of rows that are computed in f32: one sweep by a guessed shift.
///
/// # Safety
/// `exps` is as long as `x`, and `S::E` is f32.
#[inline(always)]
unsafe fn exps<S, T>(
    simd: S,
    x: &[T],
    scale: &Scale,
    learned: &mut Learned,
    exps: &mut [f32],
) -> Option<Exps>
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let mut reducer = Reducer::new(simd, scale);
    match learned.0 {
        Some((guess, cut, exact)) => {
            reducer.exp = Exp::new(simd, scale, &guess.shift());
            (reducer.guess, reducer.cut, reducer.exact) = (guess, cut, exact);
        }
        None => {
            let n = x.len().min(FIRST);
            // SAFETY: the slice has n elements.
            let max = unsafe { row_max(simd, x.as_ptr(), n, &Plain::NEAR) };
            let own = scale.shift(max, S::E::MIN_EXP);
            if max.is_finite() && !own.is_huge() {
                reducer.guess = Guess::like::<S::E>(&own, scale);
                reducer.exp = Exp::new(simd, scale, &reducer.guess.shift());
            }
            // Masks are common.
            reducer.cut = true;
        }
    }
    let kept = exps.as_mut_ptr().cast::<S::E>();
    // SAFETY: both slices have as many elements, of f32 those that are written. A slice that is
    // written is not the one that is read.
    let reduced =
        unsafe { reducer.reduce_alone::<T, Keep, _>(x.as_ptr(), kept, x.len(), &Plain::NEAR) };
    learned.0 = Some((reducer.guess, reducer.cut, reducer.exact));
    let reduced = reduced.ok()?;
    let sum = reduced.sum.hi * reduced.factor;
    let top = reduced.exp.of(true, true, simd.splat(S::E::narrow(reduced.max)));
    let largest = simd.first_lane(top).widen() as f32;
    Some(Exps { max: reduced.max, largest, sum, factor: reduced.factor as f32 })
}

/// How many of a first row's elements its guess is made from.
const FIRST: usize = 4096;

/// Of rows that are computed in f64: by their own maximum.
#[inline(always)]
fn exps_of_f64<S, T>(simd: S, x: &[T], scale: &Scale, exps: &mut [f32]) -> Option<Exps>
where
    S: Io<T> + Io<<S as Vector>::E> + Io<f32>,
    T: Element,
{
    let n = x.len();
    // SAFETY: the slice has n elements.
    let max = unsafe { row_max(simd, x.as_ptr(), n, &Plain::NEAR) };
    if !max.is_finite() {
        return None;
    }
    let exp = Exp::new(simd, scale, &scale.shift(max, S::E::MIN_EXP));
    let mut acc = simd.acc_zero();
    let mut i = 0;
    while i < n {
        let left = n - i;
        // SAFETY: `left` elements are there in both slices, which the caller has compared.
        unsafe {
            if left >= S::LANES {
                let e = exp.of(true, true, simd.load(x.as_ptr().add(i)));
                simd.store(exps.as_mut_ptr().add(i), e);
                acc = simd.acc_add(acc, e);
            } else {
                let v = simd.load_part(x.as_ptr().add(i), left, S::E::narrow(f64::NEG_INFINITY));
                let e = exp.of(true, true, v);
                simd.store_part(exps.as_mut_ptr().add(i), left, e);
                acc = simd.acc_add(acc, e);
            }
        }
        i += S::LANES;
    }
    let sum = simd.acc_fold(acc).hi;
    // NaN shows here.
    let largest = simd.first_lane(exp.of(true, true, simd.splat(S::E::narrow(max)))).widen() as f32;
    (sum > 0.0).then_some(Exps { max, largest, sum, factor: 1.0 })
}

/// A row in the type that is computed with.
#[inline(always)]
fn widen<S, T>(simd: S, x: &[T], y: &mut [T::Arithmetic])
where
    S: Io<T> + Io<T::Arithmetic>,
    T: Element,
{
    let n = x.len().min(y.len());
    let mut i = 0;
    while i < n {
        // SAFETY: n - i elements are left in both.
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

/// As [`Kernel::scan`]. Without `ABOVE` there is no upper set, without `BAND` no band; without both, everything is in the upper set.
#[inline(always)]
fn scan<S: Bands, const ABOVE: bool, const BAND: bool>(
    simd: S,
    masses: Masses<'_>,
    low: f32,
    high: f32,
    parts: &mut [u64],
    band: &mut [u64],
) -> Scanned {
    let (factor, round) = (simd.splat(masses.factor), simd.splat(ROUND));
    let minus_half = simd.splat(-HALF);
    // By the shift of the exponentials: exact, or below all that are not 0.
    let bound = |x: f32| simd.splat((x / masses.factor).max(f32::MIN_POSITIVE));
    let (lows, highs) = (bound(low), bound(high));
    let mut found = Scanned::default();
    let mut parts = parts.iter_mut();
    for (part, exps) in masses.exps.chunks(PART).enumerate() {
        let (mut total, mut above) = (simd.acc_zero(), simd.acc_zero());
        // A bit for each element, 16 of a vector.
        let mut hits = [0u16; PART / 16];
        let mut vector = inlined(
            #[inline(always)]
            |(i, e): (usize, S::V)| {
                // The product is exact: the same fused or not.
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
                    // No branch could foresee them; they are looked at later, 64 at once.
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
            // SAFETY: fewer than LANES elements are left. Missing ones have no mass.
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
                        *place = rank(masses.of(e), part * PART + i);
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
        if let Some(place) = parts.next() {
            *place = above;
        }
    }
    found
}

/// All lanes of a vector.
const LANES: u32 = 0xffff;
