//! The Kullback-Leibler divergence of two rows of logits: the call, and scalar steps done once a
//! row, the same for every kernel.
//!
//! With the exponentials `e_j`, `f_j` of the two rows by their own shifts, their sums `s`, `t`, and
//! `c = lse - a max` of each,
//!
//! ```text
//! KL  = sum_j p_j (ln p_j - ln q_j) = sum_j p_j g(d_j),  g(d) = exp(-d) - 1 + d
//! d_j = ln p_j - ln q_j = a ((x_j - y_j) - (max_x - max_y)) - (c_x - c_y)
//! ```
//!
//! because p and q have the same sum. No term is negative, and an error `h` that all `d_j` have in
//! common counts only `h^2 / 2`: `sum_j p_j g(d_j - h) = KL + exp(h) - 1 - h`.
//!
//! A term times `s` is `e_j d_j^2 P(d_j)` where `d_j` is in [`NEAR`], with a polynomial `P`, and
//! elsewhere `f_j s / t + e_j (d_j - 1)`. All of this is f64, for every type of rows.

use crate::call::error::Error;
use crate::call::matrix::{Matrix, MatrixMut};
use crate::call::row_loss::Pair;
use crate::call::{Masked, Special};
use crate::num::element::Element;
use crate::num::exp2::{Contract, Sum};
use crate::num::scale::{Scale, Shift};
use crate::num::two_sum;

/// The least and the largest difference for which [`POLY`] holds.
pub(crate) const NEAR: (f64, f64) = (-2.0, 1.0);

/// Coefficients of `(exp(-d) - 1 + d) / d^2` on [`NEAR`], constant term first: equal at the zeros
/// of a Chebyshev polynomial (mpmath, 60 digits). The relative error is 2^-55.1.
pub(crate) const POLY: [f64; 16] = [
    0.5,
    -0.1666666666666667,
    0.04166666666666687,
    -0.008333333333332414,
    0.0013888888888870079,
    -0.00019841269841898893,
    2.48015873068507e-05,
    -2.7557319031633147e-06,
    2.755731894710318e-07,
    -2.505213702535241e-08,
    2.0876668381516067e-09,
    -1.6057154837301077e-10,
    1.148394497844099e-11,
    -7.671049957947263e-13,
    4.279385820637104e-14,
    -4.5052184175232455e-15,
];

/// The sum of a row's exponentials of f64, by the row's own shift.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KlSums {
    pub(crate) max: f64,
    pub(crate) own: Shift,
    /// The largest element's exponential.
    pub(crate) e_max: f64,
    pub(crate) sum: Sum,
}

/// The constants of two rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KlRow {
    /// `(max_x - max_y) / 2` as a pair: halved, no difference overflows.
    pub(crate) max: (f64, f64),
    /// Twice the scale.
    pub(crate) scale: (f64, f64),
    /// `c_x - c_y`
    pub(crate) log: (f64, f64),
    /// `s / t`
    pub(crate) ratio: f64,
    sums: [Sum; 2],
}

impl KlRow {
    #[inline(always)]
    pub(crate) fn new<E: Contract>(scale: &Scale, x: &KlSums, y: &KlSums) -> Self {
        let log = |of: &KlSums| f64::log_shift(scale, of.max, of.e_max, &of.own, of.sum).c;
        let (log_x, log_y) = (log(x), log(y));
        let (log, error) = two_sum(log_x.0, -log_y.0);
        let (hi, lo) = scale.pair();
        Self {
            max: two_sum(0.5 * x.max, -0.5 * y.max),
            scale: (2.0 * hi, 2.0 * lo),
            log: (log, error + (log_x.1 - log_y.1)),
            ratio: Pair::<E>::sum(x.sum).over(Pair::sum(y.sum)).value(),
            sums: [x.sum, y.sum],
        }
    }

    /// The divergence, from the sum of the terms. Without a limit, its sum is infinite or NaN.
    pub(crate) fn divergence<E: Contract>(&self, terms: Sum) -> f64 {
        let kl = Pair::<E>::sum(terms).over(Pair::sum(self.sums[0])).value();
        if kl.is_finite() { kl } else { f64::INFINITY }
    }

    /// The factors that turn the exponentials of both rows into terms of the gradient.
    pub(crate) fn factors<E: Contract>(&self, upstream: f64) -> [f64; 2] {
        let factor = Pair::<E>::of(0.5 * self.scale.0).times(Pair::of(upstream));
        self.sums.map(|sum| factor.over(Pair::sum(sum)).value())
    }
}

/// The work of one call: for every row the divergence of two rows of logits, or the gradients of
/// the sum of all, each times a factor.
#[derive(Debug)]
pub struct KlDivergence<'a, T> {
    x: Matrix<'a, T>,
    y: Matrix<'a, T>,
    /// One element for each row.
    kl: Option<&'a mut [T]>,
    /// The factor of each row in the gradients: as many as rows if there is one.
    upstream: &'a [T],
    /// With respect to `x` and `y`.
    gradients: [Option<MatrixMut<'a, T>>; 2],
    pub(crate) scale: Scale,
    /// Whether the logits were negated, so that gradients have to be, too.
    negative: bool,
    masked: Masked,
}

impl<'a, T: Element> KlDivergence<'a, T> {
    /// The divergence of every row.
    ///
    /// # Errors
    /// [`Error::Shape`] if shapes differ, or there is not one element of `kl` for each row.
    pub fn new(
        x: Matrix<'a, T>,
        y: Matrix<'a, T>,
        kl: &'a mut [T],
        scale: Scale,
    ) -> Result<Self, Error> {
        Self::check(&x, &y)?;
        if kl.len() != x.rows() {
            let what = "number of divergences (one for each row)";
            return Err(Error::count(what, x.rows(), kl.len()));
        }
        let (gradients, negative, masked) = ([None, None], false, Masked::Nan);
        Ok(Self { x, y, kl: Some(kl), upstream: &[], gradients, scale, negative, masked })
    }

    /// The gradients of the sum of the divergences, each times its element of `upstream`.
    ///
    /// # Errors
    /// [`Error::Shape`] if shapes differ, or there is not one factor for each row.
    pub fn backward(
        x: Matrix<'a, T>,
        y: Matrix<'a, T>,
        upstream: &'a [T],
        gradients: [Option<MatrixMut<'a, T>>; 2],
        scale: Scale,
    ) -> Result<Self, Error> {
        Self::check(&x, &y)?;
        if upstream.len() != x.rows() {
            let what = "number of upstream gradients (one for each row)";
            return Err(Error::count(what, x.rows(), upstream.len()));
        }
        for (what, gradient) in ["gradient of x", "gradient of y"].into_iter().zip(&gradients) {
            let shape = (x.rows(), x.cols());
            let got = gradient.as_ref().map_or(shape, |g| (g.rows(), g.cols()));
            if got != shape {
                return Err(Error::differ(what, shape, got));
            }
        }
        let (negative, masked) = (false, Masked::Nan);
        Ok(Self { x, y, kl: None, upstream, gradients, scale, negative, masked })
    }

    fn check(x: &Matrix<T>, y: &Matrix<T>) -> Result<(), Error> {
        let (shape, got) = ((x.rows(), x.cols()), (y.rows(), y.cols()));
        if got == shape { Ok(()) } else { Err(Error::differ("logits of q", shape, got)) }
    }

    /// Sets whether logits were negated, and the results of rows of nothing but -inf.
    #[must_use]
    pub fn of(self, negative: bool, masked: Masked) -> Self {
        Self { negative, masked, ..self }
    }

    /// Reads other logits instead.
    ///
    /// # Errors
    /// [`Error::Shape`] if their shape is another one.
    pub fn reading<'b>(
        self,
        x: Matrix<'b, T>,
        y: Matrix<'b, T>,
    ) -> Result<KlDivergence<'b, T>, Error>
    where
        'a: 'b,
    {
        Self::check(&self.x, &x)?;
        Self::check(&x, &y)?;
        Ok(KlDivergence { x, y, ..self })
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.x.rows()
    }

    /// The number of columns.
    pub fn cols(&self) -> usize {
        self.x.cols()
    }

    /// A row of both matrices of logits.
    pub fn row(&self, row: usize) -> [&'a [T]; 2] {
        [self.x.row(row), self.y.row(row)]
    }

    /// Whether something is to be written.
    pub fn writes(&self) -> bool {
        self.rows() > 0
            && (self.kl.is_some() || self.cols() > 0 && self.gradients.iter().any(Option::is_some))
    }

    /// The first `at` rows and the others.
    #[must_use]
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        let Self { upstream, scale, negative, masked, .. } = self;
        let ((x, other_x), (y, other_y)) = (self.x.split_rows(at), self.y.split_rows(at));
        let (kl, other_kl) = self.kl.map(|kl| kl.split_at_mut(x.rows())).unzip();
        let (upstream, other_upstream) = upstream.split_at(upstream.len().min(x.rows()));
        let [of_x, of_y] = self.gradients.map(|g| g.map(|g| g.split_rows(at)).unzip());
        let part = |x, y, kl, upstream, gradients| Self {
            x,
            y,
            kl,
            upstream,
            gradients,
            scale,
            negative,
            masked,
        };
        (
            part(x, y, kl, upstream, [of_x.0, of_y.0]),
            part(other_x, other_y, other_kl, other_upstream, [of_x.1, of_y.1]),
        )
    }

    /// Whether there are gradients to write.
    pub(crate) fn has_gradients(&self) -> bool {
        self.gradients.iter().any(Option::is_some)
    }

    /// Whether the divergence is asked for, or needed: the gradient with respect to `y` is without.
    pub(crate) fn needs_divergence(&self) -> bool {
        self.kl.is_some() || self.gradients[0].is_some()
    }

    /// Where the gradients of a row are written.
    pub(crate) fn gradients(&mut self, row: usize) -> [Option<&mut [T]>; 2] {
        self.gradients.each_mut().map(|g| g.as_mut().map(|g| g.row_mut(row)))
    }

    /// Sets the divergence of a row, if it is asked for.
    pub(crate) fn set(&mut self, row: usize, value: T) {
        if let Some(kl) = &mut self.kl {
            kl[row] = value;
        }
    }

    /// The factor of a row.
    pub(crate) fn upstream(&self, row: usize) -> f64 {
        let factor = self.upstream.get(row).map_or(0.0, |factor| factor.to_f64());
        if self.negative { -factor } else { factor }
    }

    /// The divergence and the gradient of rows of which one or both are special.
    pub(crate) fn special(&self, x: Option<Special>, y: Option<Special>) -> (T, T) {
        match (x, y, self.masked) {
            (Some(Special::AllMasked), None | Some(Special::AllMasked), Masked::Zero) => {
                (T::ZERO, T::ZERO)
            }
            (None, Some(Special::AllMasked), _) => (T::INFINITY, T::NAN),
            _ => (T::NAN, T::NAN),
        }
    }
}
