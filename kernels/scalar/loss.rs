//! The reference of `loss.rs`.

use super::{Double, Reduced, Reference, add_up, element, is_double, plain, reduce};
use crate::element::Element;
use crate::exp2::{BLOCK, Contract, Sum};
use crate::loss::{BackwardCall, LossCall, RowLoss, RowTargets, Soft, SoftSums};
use crate::scale::{Scale, Shift};

/// Terms added as the exponentials of a row are.
fn row_sum<R: Reference>(terms: &[f64]) -> f64 {
    let blocks = terms.chunks(BLOCK).map(|block| R::sum(&mut block.iter().copied()));
    blocks.reduce(add_up::<R>).unwrap_or_default().0
}

/// The weight of a column, and the target without it.
fn target<T: Element>(soft: &Soft<T>, j: usize, own: f64, spread: f64) -> (f64, f64, f64) {
    let q = soft.probs.get(j).map_or(0.0, |q| q.to_f64());
    (soft.weights.map_or(1.0, |w| w[j].into()), q, own.mul_add(q, spread))
}

fn soft_sums<R: Reference, T: Element>(x: &[f64], soft: &Soft<T>, max: f64) -> SoftSums {
    let t: Vec<f64> = (0..x.len())
        .map(|j| {
            let (weight, _, t) = target(soft, j, soft.own, soft.spread);
            weight * t
        })
        .collect();
    let below = |(&x, &t): (&f64, &f64)| if t == 0.0 { 0.0 } else { t * (max - x) };
    let below: Vec<f64> = x.iter().zip(&t).map(below).collect();
    SoftSums { mass: row_sum::<R>(&t), below: row_sum::<R>(&below) }
}

/// `e * factor / sum`
fn scaled_quotient<R: Reference>(e: f64, sum: (f64, f64), factor: f64) -> f64 {
    let (hi, lo) = if R::MIN_EXP == -126 {
        let inverse = 1.0 / sum.0 * factor;
        (R::round(inverse), R::round(inverse - R::round(inverse)))
    } else {
        let hi = 1.0 / sum.0;
        let lo = ((-hi).mul_add(sum.0, 1.0) - hi * sum.1) * hi;
        let p = hi * factor;
        (p, hi.mul_add(factor, -p) + lo * factor)
    };
    R::fma(e, hi, R::round(e * lo))
}

/// The loss of a row, and its gradient.
fn row<R: Reference, T: Element>(
    call: &LossCall<T>,
    targets: &RowTargets<T>,
    x: &[f64],
) -> (f64, Vec<T>) {
    let options = call.options();
    let scale = &options.scale;
    let Ok(reduced) = reduce::<R>(&plain(x), None, scale) else {
        return (f64::NAN, vec![T::NAN; x.len()]);
    };
    let log = R::log_shift(scale, &reduced);
    let Reduced { max, shift, sum } = reduced;
    let sums = targets.soft.as_ref().map(|soft| soft_sums::<R, T>(x, soft, max));
    let loss = RowLoss::new(options, targets, x.len(), &log, sums.unwrap_or_default());
    let mut gradient: Vec<T> = x
        .iter()
        .enumerate()
        .map(|(j, &x)| {
            let p = scaled_quotient::<R>(R::exp(x, 0.0, scale, &shift), sum, loss.of_probs);
            let Some(soft) = &targets.soft else { return element(p) };
            let own = R::round(loss.of_targets * soft.own);
            let spread = R::round(loss.of_targets * soft.spread);
            let (weight, q, _) = target(soft, j, 0.0, 0.0);
            let t = if soft.probs.is_empty() { spread } else { R::fma(q, own, spread) };
            element(R::round(p - R::round(weight * t)))
        })
        .collect();
    if let Some(label) = &targets.label {
        let e = R::exp(label.logit, 0.0, scale, &shift);
        gradient[label.column] = element(loss.at_label(e, Sum { hi: sum.0, lo: sum.1 }));
    }
    (loss.loss, gradient)
}

pub(crate) fn loss<T: Element>(call: &mut LossCall<T>) -> bool {
    for i in 0..call.rows() {
        // SAFETY: there is this row.
        let (x, y, targets) = unsafe { call.row(i) };
        // SAFETY: it has `cols` elements to read.
        let x: Vec<_> = (0..call.cols()).map(|j| unsafe { *x.add(j) }.to_f64()).collect();
        let (loss, gradient) = match &targets {
            None => (0.0, vec![T::ZERO; x.len()]),
            Some(targets) if is_double::<T>() => row::<Double, T>(call, targets, &x),
            Some(targets) => row::<super::Single, T>(call, targets, &x),
        };
        call.set(i, loss);
        if !y.is_null() {
            for (j, v) in gradient.into_iter().enumerate() {
                // SAFETY: it has `cols` elements to write.
                unsafe { *y.add(j) = v };
            }
        }
    }
    true
}

fn backward_row<R: Reference>(y: &[f64], u: &[f64], scale: f64, log: bool) -> Vec<f64> {
    let pairs = || y.iter().zip(u).map(|(&y, &u)| (y, u));
    let terms: Vec<f64> = pairs().map(|(y, u)| if log { u } else { y * u }).collect();
    let sum = row_sum::<R>(&terms);
    let scale = R::round(scale);
    let pair = |x: f64| {
        let lo = x - R::round(x);
        (R::round(x), if lo.is_finite() { R::round(lo) } else { 0.0 })
    };
    if log {
        let single = R::MIN_EXP == -126;
        let c = if single { f32::one_times_c() } else { f64::one_times_c() };
        let (hi, lo) = pair(sum / c);
        let shift = Shift { subtract: 0.0, m: 0, cut: Scale::ONE.cut(0, R::MIN_EXP) };
        pairs()
            .map(|(y, u)| {
                let e = R::exp(y, 0.0, &Scale::ONE, &shift);
                R::round(R::round(u - R::fma(e, hi, R::round(e * lo))) * scale)
            })
            .collect()
    } else {
        let (hi, lo) = pair(sum);
        pairs()
            .map(|(y, u)| {
                let t = R::round(R::round(u - hi) - lo);
                R::round(R::round(y * t) * scale)
            })
            .collect()
    }
}

pub(crate) fn backward<T: Element>(call: &mut BackwardCall<T>) {
    for row in 0..call.output.rows() {
        let wide =
            |m: &crate::Matrix<T>| -> Vec<f64> { m.row(row).iter().map(|v| v.to_f64()).collect() };
        let (y, u) = (wide(&call.output), wide(&call.upstream));
        let v = if is_double::<T>() {
            backward_row::<Double>(&y, &u, call.scale, call.log)
        } else {
            backward_row::<super::Single>(&y, &u, call.scale, call.log)
        };
        let stride = call.gradient.stride();
        let gradient = call.gradient.as_mut_ptr();
        for (j, v) in v.into_iter().enumerate() {
            // SAFETY: the gradient has this row of `cols` elements.
            unsafe { *gradient.add(row * stride + j) = element(v) };
        }
    }
}
