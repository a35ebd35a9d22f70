//! The entropy of the softmax of a row: scalar steps done once a row, the same for every kernel;
//! and the call of its gradient.
//!
//! With the exponentials `e_j`, their sum `s`, the scale `a` and the row's maximum,
//!
//! ```text
//! H = c + a D / s, c = lse - a max, D = sum_j e_j (max - x_j) = max s - W, W = sum_j e_j x_j
//! dH / dx_j = a p_j (a (max - x_j) - a D / s)
//! ```
//!
//! No term of the first form of `D` is negative, so nothing cancels. The sweep adds up the second
//! one, because it does not know the maximum. (In huge rows it is taken off every element first,
//! and `W` is `-D`.) Rows that are so nearly certain that `max s - W` leaves too little are summed
//! once more, by the first form: see [`RowEntropy::new`].

use crate::call::Masked;
use crate::call::error::Error;
use crate::call::matrix::{Matrix, MatrixMut};
use crate::call::row_loss::{Pair, is_single};
use crate::call::rows::{Rows, over_rows};
use crate::num::element::Element;
use crate::num::exp2::{BLOCK, Contract, LANES_F32, Sum};
use crate::num::scale::{Scale, Shift};
use crate::num::two_sum;

/// The sums of a row's exponentials, by the row's own shift.
#[derive(Clone, Copy)]
pub(crate) struct EntropySums {
    pub(crate) max: f64,
    pub(crate) own: Shift,
    /// The largest element's exponential.
    pub(crate) e_max: f64,
    pub(crate) sum: Sum,
    /// `W`
    pub(crate) weighted: Sum,
}

/// Sums of a row that is nearly certain, by the row's own shift.
#[derive(Clone, Copy)]
pub(crate) struct Apart {
    /// The exponentials of all elements below the maximum.
    pub(crate) others: Sum,
    /// `D`, by its terms, times [`Apart::unit`].
    pub(crate) below: Sum,
}

impl Apart {
    /// The power of two in a scale above 1, by which differences are multiplied before they are
    /// weighed: else those of tiny logits by small exponentials would be too small for f64.
    #[inline(always)]
    pub(crate) fn unit(scale: &Scale) -> f64 {
        f64::from_bits(scale.get().max(1.0).to_bits() & 0xfff0_0000_0000_0000)
    }
}

/// A row's entropy, and what its gradient needs.
#[derive(Clone, Copy)]
pub(crate) struct RowEntropy {
    pub(crate) entropy: f64,
    /// `a D / s`
    pub(crate) below: f64,
    /// `a / s`
    pub(crate) factor: f64,
}

/// The relative error of `W` by additions: in rows of f32 for each of those that an element takes
/// part in, in rows of f64 all together.
const ADD_F32: f64 = f64::from_bits((1023 - 53) << 52);

const ADD_F64: f64 = f64::from_bits((1023 - 86) << 52);

/// What additions may change, relative to the entropy.
const MAY_F32: f64 = f64::from_bits((1023 - 30) << 52);

const MAY_F64: f64 = f64::from_bits((1023 - 60) << 52);

/// Below this share of the others, in rows of f64, their sum is the argument of the logarithm.
const FEW: f64 = 0.125;

impl RowEntropy {
    /// The entropy of a row of `n` elements, `n > 0`; for its gradient if `slopes`. `apart` sums it
    /// once more.
    ///
    /// Proof: the additions change `W` by no more than their relative error times `sum_j e_j |x_j|
    /// <= |max| s + D`, and so `a D / s` by that times `|a max|`, and a part of itself. The rest,
    /// `s - e_max`, is changed by that times `s`. Where either may be more than [`MAY_F32`] of
    /// the entropy or of the rest, the row is summed once more. (The largest element is then the
    /// only one of its value, if the rest is lost.) The gradient needs `a D / s` itself, which may
    /// be far less than the entropy. `docs/accuracy.md` adds up all errors.
    #[inline(always)]
    pub(crate) fn new<E: Contract>(
        scale: &Scale,
        sums: &EntropySums,
        n: usize,
        slopes: bool,
        apart: impl FnOnce() -> Apart,
    ) -> Self {
        let EntropySums { max, own, e_max, sum, weighted } = *sums;
        let factors = scale.pair();
        let a = Pair::<E>::new(factors.0, factors.1);
        let total = Pair::<E>::sum(sum);
        let top = max - own.subtract;
        let log = E::log_shift(scale, max, e_max, &own, sum).c;
        let mut c = Pair::<E>::new(log.0, log.1);
        let mut below = Pair::<E>::of(top).times(total).plus(Pair::sum(weighted).minus());
        if below.value() < 0.0 {
            below = Pair::of(0.0);
        }
        let mut share = below.over(total).times(a);
        let (rest, error) = two_sum(sum.hi, -e_max);
        let rest = rest + (error + sum.lo);
        let adds = (n.min(BLOCK) / LANES_F32 + 8 + n / BLOCK) as f64;
        let (add, may) =
            if is_single::<E>() { (adds * ADD_F32, MAY_F32) } else { (ADD_F64, MAY_F64) };
        let lost = rest * may < add * sum.hi;
        let least = if slopes { share.value() } else { c.value() + share.value() };
        if n > 1 && (lost || least * may < add * (factors.0 * top).abs()) {
            let sums = apart();
            let a_in_units = a.times(Pair::of(1.0 / Apart::unit(scale)));
            share = Pair::sum(sums.below).over(total).times(a_in_units);
            if lost {
                let others = sums.others.hi + sums.others.lo;
                if is_single::<E>() || others < FEW * e_max {
                    c = Pair::of(libm::log1p(others / e_max));
                }
            }
        }
        // The first has no sign if it is 0.
        let entropy = share.plus(c).value() + 0.0;
        Self { entropy, below: share.value(), factor: a.over(total).value() }
    }
}

/// The work of one call: the gradient of the sum of the entropies of rows, each times a factor.
#[derive(Debug)]
pub struct EntropyGradient<'a, T> {
    /// Logits and gradients.
    views: Rows<'a, T, T>,
    /// The factor of each row, as many as rows.
    upstream: &'a [T],
    pub(crate) scale: Scale,
    /// Whether the logits were negated, so that gradients have to be, too.
    negative: bool,
    pub(crate) masked: Masked,
}

over_rows!(EntropyGradient<'a, T>, T, T);

impl<'a, T: Element> EntropyGradient<'a, T> {
    /// Reads rows of `x` and writes their gradients.
    ///
    /// # Errors
    /// [`Error::Shape`] if shapes differ, or there is not one factor for each row.
    pub fn new(
        x: Matrix<'a, T>,
        upstream: &'a [T],
        gradient: MatrixMut<'a, T>,
        scale: Scale,
    ) -> Result<Self, Error> {
        Self::check(&x, upstream, &gradient)?;
        let views = Rows::new(x, gradient);
        let views = views.map_err(|[logits, y]| Error::differ("gradient", logits, y))?;
        Ok(Self { views, upstream, scale, negative: false, masked: Masked::Nan })
    }

    /// Reads rows and overwrites them with their gradients.
    ///
    /// # Errors
    /// As [`EntropyGradient::new`].
    pub fn in_place(x: MatrixMut<'a, T>, upstream: &'a [T], scale: Scale) -> Result<Self, Error> {
        length(upstream.len(), x.rows())?;
        let views = Rows::in_place(x);
        Ok(Self { views, upstream, scale, negative: false, masked: Masked::Nan })
    }

    /// Checks the shapes of a call.
    ///
    /// # Errors
    /// As [`EntropyGradient::new`].
    pub fn check(x: &Matrix<T>, upstream: &[T], gradient: &MatrixMut<T>) -> Result<(), Error> {
        let (logits, y) = ((x.rows(), x.cols()), (gradient.rows(), gradient.cols()));
        if logits != y {
            return Err(Error::differ("gradient", logits, y));
        }
        length(upstream.len(), x.rows())
    }

    /// Sets whether logits were negated, and the gradient of rows of nothing but -inf.
    #[must_use]
    pub fn of(self, negative: bool, masked: Masked) -> Self {
        Self { negative, masked, ..self }
    }

    /// The first `at` rows and the others.
    #[must_use]
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        let (views, others) = self.views.split(at);
        let (upstream, other_upstream) = self.upstream.split_at(views.rows());
        let Self { scale, negative, masked, .. } = self;
        let part = |views, upstream| Self { views, upstream, scale, negative, masked };
        (part(views, upstream), part(others, other_upstream))
    }

    /// The factor of a row.
    pub(crate) fn upstream(&self, row: usize) -> f64 {
        let factor = self.upstream[row].to_f64();
        if self.negative { -factor } else { factor }
    }

    /// The gradient of a row that has no entropy.
    pub(crate) fn special(&self, all_masked: bool) -> T {
        if all_masked && self.masked == Masked::Zero { T::ZERO } else { T::NAN }
    }
}

fn length(upstream: usize, rows: usize) -> Result<(), Error> {
    let what = "number of upstream gradients (one for each row)";
    if upstream == rows { Ok(()) } else { Err(Error::count(what, rows, upstream)) }
}
