//! What draws from a row need: exponentials, integer masses, and sums of the masses above a
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
//! Below 2^-8 the units are `e` rounded down (for odd multiples of 2^-30, one less), and the rest
//! is one unit at most; above, the units are `e` within 2^-21 of it. So units are integers: sums of
//! fewer than 2^20 of them are exact in f64 in any order, and whatever is defined by such sums has
//! one result, however it is computed. Rests are summed only in the rare cases that need them.

/// The number that is added to an exponential and subtracted again, to round it.
pub(crate) const ROUND: f32 = 1.5 / 128.0;

/// Units of mass in 1.
pub(crate) const UNITS: f64 = (1u64 << 30) as f64;

/// Half a unit: subtracted, it turns rounding to nearest into rounding down.
pub(crate) const HALF: f32 = 0.5 / (1u32 << 30) as f32;

/// Elements of a span: the units of each span of a row are summed on their own.
pub const SPAN: usize = 1024;

/// The exponentials of a row.
#[derive(Clone, Copy, Debug)]
pub struct Exps {
    /// The row's largest element.
    pub max: f64,
    /// The largest exponential.
    pub largest: f32,
    /// The approximate sum of the exponentials, with `factor` in it.
    pub sum: f64,
    /// The power of two that the exponentials still have to be multiplied by.
    pub factor: f32,
}

/// A row's masses.
#[derive(Clone, Copy, Debug)]
pub struct Masses<'a> {
    pub(crate) exps: &'a [f32],
    pub(crate) factor: f32,
}

/// The least exponential that has a mass.
pub const LEAST: f32 = 1.0 / (1u64 << 62) as f32;

/// The least exponential that has a whole unit.
pub const LEAST_UNIT: f32 = 1.0 / (1u32 << 30) as f32;

impl<'a> Masses<'a> {
    /// The masses of exponentials that still have to be multiplied by `factor`.
    pub fn new(exps: &'a [f32], factor: f32) -> Self {
        Self { exps, factor }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.exps.len()
    }

    /// Whether there are no elements.
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

    /// The exponential by the row's own shift.
    #[inline(always)]
    pub fn of(&self, e: f32) -> f32 {
        e * self.factor
    }

    /// The index of a span's first element, and the span's exponentials by the row's own shift.
    pub fn span(&self, span: usize) -> (usize, impl Iterator<Item = f32> + 'a) {
        let start = span.saturating_mul(SPAN).min(self.exps.len());
        let end = (start + SPAN).min(self.exps.len());
        let this = *self;
        (start, self.exps[start..end].iter().map(move |&e| this.of(e)))
    }
}

/// The whole units in the mass of an element with this exponential.
#[inline(always)]
pub fn units(e: f32) -> u64 {
    (f64::from(((e - HALF) + ROUND) - ROUND) * UNITS) as u64
}

/// Units of a rest in one unit of mass.
pub const RESTS: u64 = 1 << 32;

/// The rest of the mass of an element with this exponential.
pub fn rest(e: f32) -> u64 {
    if e < 1.0 / 256.0 {
        ((f64::from(e) * UNITS - units(e) as f64) * RESTS as f64) as u64
    } else {
        0
    }
}

/// The rank of an element, a number to be compared: larger exponentials first, of equal ones the
/// lower index first.
#[inline(always)]
pub fn rank(e: f32, index: usize) -> u64 {
    u64::from(!e.to_bits()) << 32 | index as u64
}

/// The exponential and the index of a rank.
#[inline(always)]
pub fn of_rank(rank: u64) -> (f32, usize) {
    (f32::from_bits(!((rank >> 32) as u32)), (rank & 0xffff_ffff) as usize)
}

/// The result of a scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// The units of all elements.
    pub total: u64,
    /// The number of elements in the upper set, and their units.
    pub above: (u64, u64),
    /// The number of elements in the band.
    pub band: usize,
}
