//! One shift for many rows, guessed before their maxima are known.
//!
//! A quotient has the same bits for every `M` (`exp2.rs`) as long as no exponential overflows or is
//! flushed. So a row need not be read twice, once for its maximum and once for its exponentials:
//! the exponentials are computed with the `M` of the rows before, and the row's extremes, found in
//! the same pass, tell afterwards whether that guess was good. If it was not, the row is computed
//! again with its own maximum.

use crate::num::exp2::Contract;
use crate::num::scale::{Scale, Shift};

/// The most by which a row's own `M` may exceed the guess: exponentials are then below 2^11, and
/// the low half of the reciprocal of the sum of 2^48 of them is a normal number.
const ABOVE: i32 = 8;

/// The most by which a row's own `M` may be below the guess: exponentials within 16 octaves of the
/// largest are then normal numbers in f32, and the reciprocal of their sum does not overflow.
const BELOW: i32 = 110;

/// Distance of a guess above the `M` that it is made from: it leaves the same range for rows with
/// larger maxima as for rows with smaller ones.
const LEAD: i32 = 26;

/// The largest guess of another scale.
const FARTHEST: f64 = 65_536.0;

/// What rows tell about those that follow, which may have another scale.
#[derive(Clone, Copy, Debug)]
pub struct Learned {
    pub(crate) scale: Scale,
    pub(crate) guess: Guess,
    /// Whether they need the cut.
    pub(crate) cut: bool,
    /// How many are not to be guessed.
    pub(crate) exact: u32,
}

/// A guessed `M` for the next rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guess {
    m: i32,
    /// Elements of at least this have exponentials that are normal numbers.
    least: f64,
    /// Elements below this are flushed in every row for which the guess is good.
    drop: f64,
}

impl Guess {
    /// The guess for the first row: good for maxima between about -34 and 34 octaves, which is 23
    /// at scale 1.
    pub(crate) fn first<E: Contract>(scale: &Scale) -> Self {
        Self::at::<E>(LEAD, scale)
    }

    /// The guess for rows like one whose own shift is known.
    pub(crate) fn like<E: Contract>(own: &Shift, scale: &Scale) -> Self {
        Self::at::<E>(own.m + LEAD, scale)
    }

    /// This guess for rows of the same logits with another scale.
    pub(crate) fn with_scale<E: Contract>(&self, from: &Scale, to: &Scale) -> Self {
        if from == to {
            return *self;
        }
        let m = f64::from(self.m - LEAD) * (to.get() / from.get());
        Self::at::<E>(m.clamp(-FARTHEST, FARTHEST) as i32 + LEAD, to)
    }

    fn at<E: Contract>(m: i32, scale: &Scale) -> Self {
        let cut = |m: i32| E::narrow(scale.cut(m, E::MIN_EXP)).widen();
        Self { m, least: cut(m), drop: cut(m - BELOW) }
    }

    /// The shift to compute with. Its cut keeps every element that *some* row with this guess
    /// needs.
    pub(crate) fn shift(&self) -> Shift {
        Shift { subtract: 0.0, m: self.m, cut: self.drop }
    }

    /// Whether the exponentials of a row with the shift `own` are right, as far as its maximum
    /// tells.
    pub(crate) fn is_near(&self, own: &Shift) -> bool {
        !own.is_huge() && (-BELOW..=ABOVE).contains(&(own.m - self.m))
    }

    /// Whether no element was dropped that the row needs, and all exponentials are normal numbers.
    /// `least` is the smallest element that was not dropped.
    pub(crate) fn is_low_enough<E: Contract>(&self, own: &Shift, least: f64) -> bool {
        least >= self.least && least >= E::narrow(own.cut).widen()
    }

    /// `2^(M of the guess - M of the row)`: the factor from sums by the guess to sums by the row's
    /// own shift.
    pub(crate) fn factor(&self, own: &Shift) -> f64 {
        f64::from_bits(((1023 + self.m - own.m) as u64) << 52)
    }
}
