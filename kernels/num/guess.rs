//! One shift for many rows, guessed before their maxima are known.
//!
//! A quotient has the same bits for every `M` (`exp2.rs`), as long as no exponential overflows or
//! is flushed. So a row need not wait for its maximum, nor be read twice: its exponentials are
//! computed with the `M` of the rows before it, its extremes are gathered on the way, and
//! afterwards they tell whether the guess was good. Where it was not, the row is done again by its
//! own maximum.

use crate::num::exp2::Contract;
use crate::num::scale::{Scale, Shift};

/// A row's own `M` may be as much as this above the guess: its exponentials are then below 2^11,
/// and the low half of the reciprocal of the sum of 2^48 elements is a normal number.
const ABOVE: i32 = 8;

/// A row's own `M` may be as much as this below the guess: its exponentials are normal numbers in
/// f32, though only those within 16 octaves of its largest need be, and the reciprocal of its sum
/// does not overflow.
const BELOW: i32 = 110;

/// How much a guess is above the `M` that it is made from: as good for rows with larger maxima
/// as for rows with smaller ones.
const LEAD: i32 = 26;

/// An `M` for the rows to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guess {
    m: i32,
    /// Exponentials of elements from here on are normal numbers.
    least: f64,
    /// Elements below this are flushed in every row for which the guess is good.
    drop: f64,
}

impl Guess {
    /// For the first row: good for maxima between about -34 and 34 octaves, 23 at scale 1.
    pub(crate) fn first<E: Contract>(scale: &Scale) -> Self {
        Self::at::<E>(LEAD, scale)
    }

    /// For rows like one of which the own shift is known.
    pub(crate) fn like<E: Contract>(own: &Shift, scale: &Scale) -> Self {
        Self::at::<E>(own.m + LEAD, scale)
    }

    fn at<E: Contract>(m: i32, scale: &Scale) -> Self {
        let cut = |m: i32| E::narrow(scale.cut(m, E::MIN_EXP)).widen();
        Self { m, least: cut(m), drop: cut(m - BELOW) }
    }

    /// The shift to compute with. Its cut leaves alone what *some* row might need.
    pub(crate) fn shift(&self) -> Shift {
        Shift { subtract: 0.0, m: self.m, cut: self.drop }
    }

    /// Whether the exponentials of a row with this shift of its own are right, its maximum being in
    /// range.
    pub(crate) fn is_near(&self, own: &Shift) -> bool {
        !own.is_huge() && (-BELOW..=ABOVE).contains(&(own.m - self.m))
    }

    /// Whether none of the elements that were not dropped should have been, `least` being the
    /// smallest of them, and all their exponentials are normal numbers.
    pub(crate) fn is_low_enough<E: Contract>(&self, own: &Shift, least: f64) -> bool {
        least >= self.least && least >= E::narrow(own.cut).widen()
    }

    /// `2^(M of the guess - M of the row)`, which turns sums into those of the row's own shift.
    pub(crate) fn factor(&self, own: &Shift) -> f64 {
        f64::from_bits(((1023 + self.m - own.m) as u64) << 52)
    }
}
