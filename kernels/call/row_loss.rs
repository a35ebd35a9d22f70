//! A row's loss, and the factors of its gradient: scalars in f64, computed once a row, the same for
//! every kernel.

use std::marker::PhantomData;

use crate::call::losses::{Label, Loss, RowTargets};
use crate::num::element::Element;
use crate::num::exp2::{BLOCK, Contract, Sum, power_of_two};
use crate::num::scale::{LogShift, Scale, Shift};
use crate::num::two_sum;

/// Sums over the targets of all columns.
#[derive(Clone, Copy)]
pub(crate) struct SoftSums {
    /// `sum_j w_j q_j`
    pub(crate) probs: Sum,
    /// `sum_j w_j`
    pub(crate) weights: Sum,
    /// `sum_j t_j (max - x_j) / 2`: halved, the difference of two numbers does not overflow.
    pub(crate) below: f64,
}

impl SoftSums {
    /// The sums without such targets.
    pub(crate) const ZERO: Self = Self { probs: Sum::ZERO, weights: Sum::ZERO, below: 0.0 };
}

/// A number that must be more precise than `E`: a pair in rows of f64; an f64 in others, where `lo`
/// is 0.
#[derive(Clone, Copy)]
pub(crate) struct Pair<E> {
    hi: f64,
    lo: f64,
    of: PhantomData<E>,
}

/// Whether rows of `E` are summed in plain f64, which is far more precise than their elements.
pub(crate) const fn is_single<E: Contract>() -> bool {
    E::MIN_EXP == -126
}

impl<E: Contract> Pair<E> {
    /// The low part of a number that is not finite is 0.
    pub(super) fn new(hi: f64, lo: f64) -> Self {
        let lo = if is_single::<E>() || !lo.is_finite() { 0.0 } else { lo };
        Self { hi, lo, of: PhantomData }
    }

    pub(super) fn of(x: f64) -> Self {
        Self::new(x, 0.0)
    }

    pub(super) fn sum(sum: Sum) -> Self {
        Self::new(sum.hi, sum.lo)
    }

    pub(super) fn value(self) -> f64 {
        self.hi + self.lo
    }

    pub(super) fn minus(self) -> Self {
        Self::new(-self.hi, -self.lo)
    }

    pub(super) fn plus(self, b: Self) -> Self {
        if is_single::<E>() {
            return Self::of(self.hi + b.hi);
        }
        let (sum, error) = two_sum(self.hi, b.hi);
        let error = error + (self.lo + b.lo);
        let hi = sum + error;
        Self::new(hi, error - (hi - sum))
    }

    pub(super) fn times(self, b: Self) -> Self {
        let p = self.hi * b.hi;
        if is_single::<E>() {
            return Self::of(p);
        }
        // An FMA, because `two_product` would overflow for the largest factors.
        Self::new(p, self.hi.mul_add(b.hi, -p) + (self.hi * b.lo + self.lo * b.hi))
    }

    pub(super) fn over(self, b: Self) -> Self {
        let q = self.hi / b.hi;
        if is_single::<E>() {
            return Self::of(q);
        }
        Self::new(q, ((-q).mul_add(b.hi, self.hi) + (self.lo - q * b.lo)) / b.hi)
    }
}

/// The sums of a row's exponentials, with the largest apart, by the row's own shift: the same
/// however the exponentials were computed.
#[derive(Clone, Copy)]
pub(crate) struct Sums {
    max: f64,
    own: Shift,
    sum: Sum,
    /// The largest element's exponential, as it is in the sum.
    e_max: f64,
    /// The same, exact to f64 if it is a quarter of the sum or more.
    top: f64,
    /// The sum of all but one element with the largest value.
    others: Sum,
}

/// `C` of f32 divided by that of f64.
const C_RATIO: f64 = 1.0063342898299836;

impl Sums {
    /// The sums of a row of `n` elements; `others` adds the exponentials of all elements below the
    /// maximum.
    ///
    /// Proof: `sum - e_max` has the error of the additions after `e_max` was added. In rows of f32
    /// that is at most 2^-53 of the sum for each of up to 255 additions in its lane, 4 of lanes and
    /// one for each block. Where it is more than 2^-26 of the difference, the others are added
    /// again without `e_max`. (No other element is as large then.) Sums of f64 rows have an error
    /// of 2^-90 at most, which is 2^-58 of the difference.
    #[inline(always)]
    pub(crate) fn new<E: Contract>(
        scale: &Scale,
        max: f64,
        own: Shift,
        sum: Sum,
        e_max: f64,
        n: usize,
        others: impl FnOnce() -> Sum,
    ) -> Self {
        let (difference, error) = two_sum(sum.hi, -e_max);
        let mut rest = Sum { hi: difference, lo: error + sum.lo };
        let adds = (260 + n / BLOCK) as f64;
        let least = if is_single::<E>() { ADD_F32 } else { ADD_F64 };
        if n > 1 && rest.hi + rest.lo < adds * least * sum.hi {
            rest = others();
        }
        let mut top = e_max;
        if is_single::<E>() && 4.0 * e_max >= sum.hi {
            // `Scale::shift` has the same product: the exponent of the maximum is known to 2^-36.
            let power = (max - own.subtract) * (scale.l8_f64.0 * 0.125) - f64::from(own.m);
            top = C_RATIO * power_of_two(power);
        }
        Self { max, own, sum, e_max, top, others: rest }
    }

    /// The constants of the row's log-softmax. `c` has a small relative error: in f32 1.22 u and
    /// 2^-26.
    ///
    /// Proof: let `q` be the share of the other elements. An error `d` of their sum changes `c =
    /// -ln(1 - q) >= q` by `d q`. If the largest element has less than a quarter of the row, `c` is
    /// above 1.38.
    pub(crate) fn log_shift<E: Contract>(&self, scale: &Scale) -> LogShift {
        let lost = self.others.hi < ADD_F64 * self.sum.hi;
        if is_single::<E>() && 4.0 * self.e_max >= self.sum.hi {
            let c = libm::log1p(self.others.hi / self.top);
            // A c of 0 is -0, as in `Scale::log_shift`.
            let (max, scale, c) = (self.max, scale.pair(), (-(0.0 - c), 0.0));
            return LogShift { max, scale, c };
        }
        let log = E::log_shift(scale, self.max, self.e_max, &self.own, self.sum);
        if is_single::<E>() || !lost {
            return log;
        }
        let c = libm::log1p((self.others.hi + self.others.lo) / self.e_max);
        LogShift { c: (-(0.0 - c), 0.0), ..log }
    }
}

/// Bound of the error per addition, relative to the sum, from which on the others are added again:
/// see [`Sums::new`].
const ADD_F32: f64 = f64::from_bits((1023 - 27) << 52);

const ADD_F64: f64 = f64::from_bits((1023 - 40) << 52);

/// A smaller number may become subnormal when it is multiplied by a weight.
const SMALL: f64 = f64::from_bits((1023 - 800) << 52);

/// A row's loss and the factors of its gradient, which are known before the gradient is written:
/// scalars in f64, the same for every kernel.
#[derive(Clone, Copy)]
pub(crate) struct RowLoss<E> {
    pub(crate) loss: f64,
    /// The factor of probabilities.
    of_probs: Pair<E>,
    /// The factor of targets.
    of_targets: Pair<E>,
    /// The gradient of the label's column is `mass * p - target = rest - mass * (1 - p)` times
    /// `of_targets`.
    target: Pair<E>,
    rest: Pair<E>,
    mass: Pair<E>,
}

impl<E: Contract> RowLoss<E> {
    /// `exact` gives the constants of log-softmax from exponentials in f64, for rows of f32.
    #[inline(always)]
    pub(crate) fn new<T: Element>(
        options: &Loss,
        targets: &RowTargets<T>,
        cols: usize,
        sums: &Sums,
        soft: SoftSums,
        exact: impl Fn() -> LogShift,
    ) -> Self {
        let scale = &options.scale;
        let divergence = if options.divergence { targets.soft.as_ref() } else { None };
        // Subtracting the entropy may leave nothing but the errors of both.
        let exactly = is_single::<E>() && divergence.is_some();
        let log = if exactly { exact() } else { sums.log_shift::<E>(scale) };
        let c = log.c.0 + log.c.1;
        let mut of_all = Pair::of(0.0);
        if targets.soft.is_some() {
            let spread = options.spread(cols).times(Pair::sum(soft.weights));
            of_all = options.own::<E>().times(Pair::sum(soft.probs)).plus(spread);
        }
        let mut loss = of_all.value() * c + 2.0 * (scale.get() * soft.below);
        let mut information = 0.0;
        let (mut own, mut of_label) = (Pair::of(0.0), Pair::of(0.0));
        if let Some(label) = &targets.label {
            let weight = Pair::of(label.weight);
            own = options.own::<E>().times(weight);
            // A class of weight 0 does not count, even if its logit is -inf.
            if own.hi != 0.0 {
                information = -log.log_prob(label.logit);
                loss += own.value() * information;
            }
            if targets.soft.is_some() {
                of_label = options.spread(cols).times(weight);
            }
        }
        if let Some(soft) = divergence {
            let entropy = match &targets.label {
                None => soft.negative_entropy(cols),
                // All other columns have the same target.
                Some(label) => {
                    let [own, other] = [1.0 - options.smoothing + soft.spread, soft.spread];
                    let others = of_all.value() - label.weight * other;
                    label.weight * own * libm::log(own) + others * libm::log(other)
                }
            };
            loss += entropy;
            // The least divergence (log-sum inequality) of targets with this sum.
            let sum = if targets.label.is_some() { 1.0 } else { of_all.value() };
            // The sum of rounded targets may be a little less than 1.
            let less = 1.0 - sum > f64::EPSILON * 4.0;
            let least = if sum > 0.0 && (less || sum > 1.0) { sum * libm::log(sum) } else { 0.0 };
            if options.weights.is_none() && loss < least {
                loss = least;
            }
        }
        let mut mass = own.plus(of_all);
        let mut rest = of_all.plus(of_label.minus());
        if options.z != 0.0 {
            let z = Pair::of(2.0 * options.z);
            let mut lse = log.logsumexp();
            // The error from exponentials in f32, and whether it counts: where the mass cancels, or
            // where the loss is little else.
            let error = c.min(1.0) * f64::from_bits((1023 - 23) << 52);
            let with = (mass.hi + z.hi * lse).abs() * f64::from_bits((1023 - 30) << 52);
            let square = (loss + options.z * lse * lse) * f64::from_bits((1023 - 26) << 52);
            let counts = z.hi * error > with || z.hi * lse.abs() * error > square;
            if is_single::<E>() && !exactly && counts {
                lse = exact().logsumexp();
            }
            loss += options.z * lse * lse;
            let of_lse = z.times(Pair::of(lse));
            mass = mass.plus(of_lse);
            rest = rest.plus(of_lse);
        }
        let factors = Pair::of(options.factor).times(Pair::of(targets.factor));
        let (scale, scale_lo) = scale.pair();
        let mut of_targets = factors.times(Pair::new(scale, scale_lo));
        // Where no element counts, the factor of a mean over nothing must not make NaN.
        if mass.hi == 0.0 && options.z == 0.0 && !of_targets.hi.is_finite() {
            of_targets = Pair::of(0.0);
        }
        let mut result = loss * targets.factor;
        if targets.soft.is_none() && options.z == 0.0 && loss.abs() < SMALL {
            // A small weight's product would be subnormal before the factor makes it larger again.
            let of_information = own.value() * targets.factor;
            if of_information.is_finite() {
                result = of_information * information;
            }
        }
        Self {
            loss: result,
            of_probs: of_targets.times(mass),
            of_targets,
            target: own.plus(of_label),
            rest,
            mass,
        }
    }

    /// The factor that turns exponentials with this sum into probabilities of the gradient, as a
    /// pair of `E`.
    pub(crate) fn inverse(&self, sum: Sum) -> (E, E) {
        let (hi, lo) = self.wide_inverse(sum);
        if is_single::<E>() { E::pair(hi) } else { (E::narrow(hi), E::narrow(lo)) }
    }

    /// The same in f64; one number for rows of f32.
    pub(crate) fn wide_inverse(&self, sum: Sum) -> (f64, f64) {
        let inverse = self.of_probs.over(Pair::sum(sum));
        (inverse.hi, inverse.lo)
    }

    /// Whether [`RowLoss::inverse`] has the same bits, but for the exponent, for every sum between
    /// these two that is a power of two times the row's: nothing overflows, and no low part is
    /// subnormal.
    #[inline(always)]
    pub(crate) fn is_safe(&self, sums: [f64; 2]) -> bool {
        let least = f64::from_bits(((1023 + E::MIN_EXP / 4 * 3) as u64) << 52);
        let most = f64::from_bits(((1023 - E::MIN_EXP) as u64) << 52);
        let factor = self.of_probs.hi.abs();
        let safe = |sum: f64| (least * sum..most * sum).contains(&factor);
        factor == 0.0 || safe(sums[0]) && safe(sums[1])
    }

    /// Whether quotients must be computed from `2^64 e`, as [`prob`] does, unless it is known that
    /// no `e lo` is subnormal. (With larger factors no result is small enough to matter.)
    pub(crate) fn may_be_small(&self) -> bool {
        self.of_probs.hi.abs() < f64::from_bits((1023 + 60) << 52)
    }

    /// The same for a row of `n` elements that is known to be wide or not: with a factor of at
    /// least `n` 2^-32 quotients are above 2^-41-32, as [`Scale::is_wide`] requires.
    pub(crate) fn is_wide(&self, wide: bool, n: usize) -> bool {
        let least = n as f64 * f64::from_bits((1023 - 32) << 52);
        self.may_be_small() && (wide || self.of_probs.hi.abs() < least)
    }

    /// The factors, in the gradient, of a target's own share and of the spread share.
    pub(crate) fn of_soft(&self, options: &Loss, soft_own: bool, cols: usize) -> (f64, f64) {
        let own = if soft_own { self.of_targets.times(options.own()).value() } else { 0.0 };
        (own, self.of_targets.times(options.spread(cols)).value())
    }

    /// The gradient of the label's column, from its exponential by the row's own shift.
    pub(crate) fn at_label(&self, label: &Label, e: f64, sums: &Sums) -> f64 {
        // Of the two forms, takes the one whose terms are no larger than the gradient.
        let value = if label.logit == sums.max && 2.0 * sums.e_max >= sums.sum.hi {
            let others = Pair::sum(sums.others);
            let others = if is_single::<E>() { Pair::of(others.value()) } else { others };
            let share = others.over(others.plus(Pair::of(sums.top)));
            if self.rest.hi == 0.0 && share.hi < SMALL {
                // Its product with a small mass would be subnormal before it is made larger again.
                let up = f64::from_bits((1023 + 300) << 52);
                let share = Pair::new(share.hi * up, share.lo * up);
                return self.of_targets.times(self.mass.times(share).minus()).value() / up;
            }
            self.rest.plus(self.mass.times(share).minus())
        } else {
            let p = Pair::of(e).over(Pair::sum(sums.sum));
            self.mass.times(p).plus(self.target.minus())
        };
        self.of_targets.times(value).value()
    }
}

/// Shares of a target: its own, and what every column gets.
impl Loss<'_> {
    /// A target's own share, `1 - smoothing`.
    fn own<E: Contract>(&self) -> Pair<E> {
        let (hi, lo) = two_sum(1.0, -self.smoothing);
        Pair::new(hi, lo)
    }

    /// The share of a target that each of `cols` columns gets.
    fn spread<E: Contract>(&self, cols: usize) -> Pair<E> {
        Pair::of(self.smoothing).over(Pair::of(cols as f64))
    }
}

/// The row's sum as the gradient needs it: for log-softmax without the `C` of the exponentials and,
/// in rows of f64, scaled.
pub(crate) fn backward_sum<E: Contract>(sum: Sum, scale: (f64, f64), log: bool) -> (f64, f64) {
    let mut sum = Pair::<E>::sum(sum);
    if log {
        if !is_single::<E>() {
            sum = sum.times(Pair::new(scale.0, scale.1));
        }
        sum = sum.over(Pair::of(E::one_times_c()));
    }
    (sum.hi, sum.lo)
}
