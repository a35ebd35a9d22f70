//! The reference of `op/loss.rs`.

use crate::call::losses::{BackwardCall, LARGER, LossCall, RowTargets, SMALL, Soft};
use crate::call::row_loss::{RowLoss, SoftSums, Sums, backward_sum};
use crate::num::element::Element;
use crate::num::exp2::{BLOCK, Contract, Sum};
use crate::num::scale::{LogShift, Scale, Shift};
use crate::scalar::{Double, Reduced, Reference, UP, add_up, element, is_double, plain, reduce};

/// Adds terms as the exponentials of a row are added.
pub(super) fn row_sum<R: Reference>(terms: &[f64]) -> Sum {
    let blocks = terms.chunks(BLOCK).map(|block| R::sum(&mut block.iter().copied()));
    let (hi, lo) = blocks.reduce(add_up::<R>).unwrap_or_default();
    Sum { hi, lo }
}

/// The weight of a column, and its probability.
fn target<T: Element>(soft: &Soft<T>, j: usize) -> (f64, f64) {
    let q = soft.probs.get(j).map_or(0.0, |q| q.to_f64());
    (soft.weights.map_or(1.0, |w| w.get(j)), q)
}

fn soft_sums<R: Reference, T: Element>(x: &[f64], soft: &Soft<T>, max: f64) -> SoftSums {
    let targets = || (0..x.len()).map(|j| target(soft, j));
    let below = |(&x, (weight, q)): (&f64, (f64, f64))| {
        let t = weight * q.mul_add(soft.own, soft.spread);
        if t == 0.0 { 0.0 } else { t * x.mul_add(-0.5, 0.5 * max) }
    };
    let below: Vec<f64> = x.iter().zip(targets()).map(below).collect();
    let probs: Vec<f64> = targets().map(|(weight, q)| weight * q).collect();
    let weights: Vec<f64> = targets().map(|(weight, _)| weight).collect();
    SoftSums {
        probs: row_sum::<R>(&probs),
        weights: row_sum::<R>(&weights),
        below: row_sum::<R>(&below).hi,
    }
}

/// The constants of the log-softmax of a row of f32, from exponentials in f64.
fn exact_shift<R: Reference>(x: &[f64], scale: &Scale, max: f64) -> LogShift {
    let own = scale.shift(max, <f64 as Contract>::MIN_EXP);
    let exp = |x: f64| Double::exp(x, 0.0, scale, &own);
    let terms: Vec<f64> = x.iter().map(|&x| exp(x)).collect();
    f64::log_shift(scale, max, exp(max), &own, row_sum::<R>(&terms))
}

/// The loss of a row, and its gradient, in the arithmetic `R` of `E`.
fn row<R: Reference, E: Contract, T: Element>(
    call: &LossCall<T>,
    targets: &RowTargets<T>,
    x: &[f64],
) -> (f64, Vec<T>) {
    let options = &call.options;
    let (scale, n) = (&options.scale, x.len());
    let Ok(reduced) = reduce::<R>(&plain(x), None, scale) else {
        return (f64::NAN, vec![T::NAN; n]);
    };
    let Reduced { max, shift, sum: (hi, lo) } = reduced;
    let sum = Sum { hi, lo };
    let exp = |x: f64| R::exp(x, 0.0, scale, &shift);
    let others = || {
        let others: Vec<f64> = x.iter().map(|&x| if x < max { exp(x) } else { 0.0 }).collect();
        row_sum::<R>(&others)
    };
    let sums = Sums::new::<E>(scale, max, shift, sum, exp(max), n, others);
    let soft = targets.soft.as_ref();
    let soft_sums = soft.map_or(SoftSums::ZERO, |soft| soft_sums::<R, T>(x, soft, max));
    let exact = || exact_shift::<R>(x, scale, max);
    let loss = RowLoss::<E>::new(options, targets, n, &sums, soft_sums, exact);
    let (hi, lo) = loss.inverse(sum);
    let (hi, lo) = (hi.widen(), lo.widen());
    let wide = loss.wide_inverse(sum);
    let up = if loss.may_be_small() { UP } else { 1.0 };
    let mut gradient: Vec<T> = x
        .iter()
        .enumerate()
        .map(|(j, &x)| {
            let e = exp(x) * up;
            let Some(soft) = soft else {
                let quotient = R::fma(e, hi, R::round(e * lo));
                return if hi.is_finite() {
                    element(R::round(quotient * (1.0 / up)))
                } else if wide.0.is_finite() {
                    // Factors beyond the type's range are numbers in f64.
                    element(R::round(exp(x) * wide.0))
                } else {
                    // An infinite factor gives NaN.
                    T::NAN
                };
            };
            let p = if R::MIN_EXP == -126 {
                exp(x) * wide.0
            } else {
                e.mul_add(wide.0, e * wide.1) * (1.0 / up)
            };
            let (own, spread) = loss.of_soft(options, !soft.probs.is_empty(), n);
            let (weight, q) = target(soft, j);
            let t = if soft.probs.is_empty() { spread } else { q.mul_add(own, spread) };
            let minus_weight = 0.0 - weight;
            let v = if soft.weights.is_some() { minus_weight.mul_add(t, p) } else { p - t };
            element(R::round(v))
        })
        .collect();
    if let Some(label) = &targets.label {
        gradient[label.column] = element(loss.at_label(label, exp(label.logit), &sums));
    }
    (loss.loss, gradient)
}

pub(crate) fn loss<T: Element>(call: &mut LossCall<T>) -> bool {
    for i in 0..call.rows() {
        // SAFETY: `i` is one of the call's rows.
        let targets = unsafe { call.targets(i) };
        let (_, y) = call.row(i);
        let x: Vec<_> = call.elements(i).map(T::to_f64).collect();
        let (loss, gradient) = match &targets {
            None => (0.0, vec![T::ZERO; x.len()]),
            Some(targets) if is_double::<T>() => row::<Double, f64, T>(call, targets, &x),
            Some(targets) => row::<super::Single, f32, T>(call, targets, &x),
        };
        call.set(i, loss);
        if !y.is_null() {
            for (j, v) in gradient.into_iter().enumerate() {
                // SAFETY: the row has `cols` elements to write.
                unsafe { *y.add(j) = v };
            }
        }
    }
    true
}

fn backward_row<R: Reference, E: Contract>(
    y: &[f64],
    u: &[f64],
    scale: (f64, f64),
    log: bool,
) -> Vec<f64> {
    let single = R::MIN_EXP == -126;
    let pairs = || y.iter().zip(u).map(|(&y, &u)| (y, u));
    let terms: Vec<f64> = pairs().map(|(y, u)| if log { u } else { y * u }).collect();
    let mut sum = row_sum::<R>(&terms);
    if !log {
        let error = |(y, u): (f64, f64)| if single { 0.0 } else { y.mul_add(u, 0.0 - y * u) };
        let errors: Vec<f64> = pairs().map(error).collect();
        sum = E::sum_add(sum, row_sum::<R>(&errors));
    }
    let (sum, sum_lo) = backward_sum::<E>(sum, scale, log);
    let shift = Shift { subtract: 0.0, m: 0, cut: Scale::ONE.cut(0, R::MIN_EXP) };
    let (scale, scale_lo) = scale;
    pairs()
        .map(|(y, u)| {
            let y = if log { R::exp(y, 0.0, &Scale::ONE, &shift) } else { y };
            let small = !single && !log && y < SMALL;
            let a = if log {
                u
            } else if small {
                y * LARGER
            } else {
                y
            };
            let p = a * scale;
            let p_lo = a.mul_add(scale_lo, a.mul_add(scale, 0.0 - p));
            let e = 0.0 - y;
            R::round(match (single, log) {
                (true, true) => (u - y * sum) * scale,
                (true, false) => (y * scale) * (u - sum),
                (false, true) => e.mul_add(sum, p) + e.mul_add(sum_lo, p_lo),
                (false, false) => {
                    let d = (u - sum) - sum_lo;
                    p.mul_add(d, p_lo * d) * if small { 1.0 / LARGER } else { 1.0 }
                }
            })
        })
        .collect()
}

pub(crate) fn backward<T: Element>(call: &mut BackwardCall<T>) {
    let (scale, log) = (call.scale, call.log);
    for row in 0..call.rows() {
        let wide = |row: &[T]| -> Vec<f64> { row.iter().map(|v| v.to_f64()).collect() };
        let (output, upstream, gradient) = call.row(row);
        let (y, u) = (wide(output), wide(upstream));
        let v = if is_double::<T>() {
            backward_row::<Double, f64>(&y, &u, scale, log)
        } else {
            backward_row::<super::Single, f32>(&y, &u, scale, log)
        };
        gradient.iter_mut().zip(v).for_each(|(gradient, v)| *gradient = element(v));
    }
}
