//! What drawing from a row needs: exponentials, integer masses, and sums over those above a
//! threshold.
//!
//! The mass of an element is its exponential, by the row's own shift, in units of 2^-30, and a rest
//! in units of 2^-62:
//!
//! ```text
//! e      as exp2.rs defines it, rounded to f32 where it is f64: below 8, a row's largest 2 or more
//! units  = ((e - 2^-31) + 1.5 * 2^-7) - 1.5 * 2^-7          in f32, and in units of 2^-30
//! rest   = e - units where e is below 2^-8, else 0           in units of 2^-62, rounded down
//! ```
//!
//! Below 2^-8 the units are `e` rounded down (or, of odd multiples of 2^-30, the one below), and
//! the rest is a unit at most; above, they are `e` within 2^-21 of it. So units are integers, their
//! sums over fewer than 2^20 elements are exact in f64 in any order, and whatever is defined by
//! sums of them has one result, however it is computed. Rests are summed in the rare cases that ask
//! for them.

use crate::num::guess::Guess;

/// What is added to an exponential and subtracted again.
pub(crate) const ROUND: f32 = 1.5 / 128.0;

/// Units of mass in 1.
pub(crate) const UNITS: f64 = (1u64 << 30) as f64;

/// Half a unit, which makes rounding to nearest rounding down.
pub(crate) const HALF: f32 = 0.5 / (1u32 << 30) as f32;

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
pub struct Learned(pub(crate) Option<(Guess, bool, u32)>);

/// A row's masses.
#[derive(Clone, Copy, Debug)]
pub struct Masses<'a> {
    pub(crate) exps: &'a [f32],
    pub(crate) factor: f32,
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
