//! The bit reference of `op/decide.rs`.

use crate::call::picks::{ATANH, LOG1P, Limit, POWERS_F32, Picks, Wanted, no_shift};
use crate::call::{Call, Masked, Op, Ties};
use crate::num::element::Element;
use crate::num::exp2::Contract;
use crate::num::scale::Scale;
use crate::scalar::{
    Double, Reference, Single, element, for_rows, is_double, plain, reduce, softmax_row,
};

pub(super) fn sigmoid<R: Reference>(x: f64, scale: &Scale) -> f64 {
    if x.is_nan() {
        return x;
    }
    let exp = |x| R::exp(x, 0.0, scale, &no_shift(scale, R::MIN_EXP));
    let (one, e) = (exp(0.0), exp(-x.abs()));
    R::round(if x < 0.0 { e } else { one } / R::round(one + e))
}

fn log_sigmoid<R: Reference>(x: f64, scale: &Scale) -> f64 {
    if x.is_nan() {
        return x;
    }
    let shift = no_shift(scale, Double::MIN_EXP);
    let exp = |x| Double::exp(x, 0.0, scale, &shift);
    let low = if x < 0.0 { x } else { 0.0 };
    let (hi, lo) = scale.pair();
    if R::MIN_EXP != Double::MIN_EXP {
        let e = if -x.abs() < shift.cut { 0.0 } else { exp_f32(-x.abs(), scale) };
        let sum = |terms: [f64; 5]| {
            terms.into_iter().rev().reduce(|q, term| q.mul_add(e * e, term)).unwrap_or(0.0)
        };
        let [even, odd] = LOG1P.map(sum);
        let log1p = odd.mul_add(e, even) * e;
        return R::round(low.mul_add(hi, 0.0 - log1p));
    }
    let (one, e) = (exp(0.0), exp(-x.abs()));
    let sum = 2.0 * one + e;
    let s = e / sum;
    let q = ATANH.iter().rev().copied().reduce(|q, term| q.mul_add(s * s, term));
    let (q, cube) = (q.unwrap_or(0.0), 2.0 * s * (s * s));
    let rest = (-s).mul_add(e - (sum - 2.0 * one), (-s).mul_add(sum, e));
    let log1p = 2.0 * s + cube.mul_add(q, rest * (1.0 / one) * (1.0 - s));
    let y = low.mul_add(hi, 0.0 - log1p);
    let tail = if y >= f64::MIN { low * lo } else { 0.0 };
    R::round(y + tail)
}

/// `C exp(scale x)` in f64, to f32's precision.
fn exp_f32(x: f64, scale: &Scale) -> f64 {
    let l8 = scale.l8_f64.0;
    let t = x.mul_add(l8, f64::MAGIC);
    let r = x.mul_add(l8, f64::MAGIC - t);
    let s = f64::TABLE[(t.to_bits() & 7) as usize].wrapping_add(t.to_bits() << f64::SHIFT);
    let s = f64::from_bits(s);
    let coefficients = f64::POLY[..POWERS_F32].iter().rev().copied();
    s.mul_add(coefficients.reduce(|q, c| q.mul_add(r, c)).unwrap_or(0.0) * r, s)
}

/// A limit of softmax for one row.
fn limit_row<R: Reference>(x: &[f64], limit: Limit, masked: Masked) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (_, nothing) = limit.shares(1);
    if x.iter().any(|x| x.is_nan()) || (limit.hot && max == f64::INFINITY) {
        return vec![f64::NAN; x.len()];
    }
    if max == f64::NEG_INFINITY {
        return vec![if masked == Masked::Zero { nothing } else { f64::NAN }; x.len()];
    }
    let shares = |x: f64| if limit.hot { x > f64::NEG_INFINITY } else { x == max };
    let sharing = x.iter().filter(|&&x| shares(x)).count();
    if limit.ties == Ties::First {
        let mut y = vec![nothing; x.len()];
        y[largest(x)] = 1.0;
        return y;
    }
    let (share, nothing) = limit.shares(sharing);
    x.iter().map(|&x| if shares(x) { R::round(share) } else { nothing }).collect()
}

pub(crate) fn map<T: Element>(call: &mut Call<T>) {
    fn row<R: Reference>(x: &[f64], op: Op, scale: &Scale, masked: Masked) -> Vec<f64> {
        match (Limit::of(op), op) {
            (Some(limit), _) => limit_row::<R>(x, limit, masked),
            (None, Op::LogSigmoid) => x.iter().map(|&x| log_sigmoid::<R>(x, scale)).collect(),
            (None, _) => x.iter().map(|&x| sigmoid::<R>(x, scale)).collect(),
        }
    }
    let (op, masked) = (call.op(), call.masked);
    for_rows(call, |x, scale| {
        if is_double::<T>() {
            row::<Double>(x, op, scale, masked)
        } else {
            row::<Single>(x, op, scale, masked)
        }
    });
}

/// The index of the first NaN, or else of the first of the largest elements.
fn largest(x: &[f64]) -> usize {
    let mut best = 0;
    for (i, &v) in x.iter().enumerate() {
        if v.is_nan() {
            return i;
        }
        if v > x[best] {
            best = i;
        }
    }
    best
}

/// The log-probabilities of some elements of a row, and its log-sum-exp.
fn log_probs<R: Reference>(
    x: &[f64],
    tokens: &[usize],
    scale: &Scale,
    masked: Masked,
) -> (Vec<f64>, f64) {
    match reduce::<R>(&plain(x), None, scale) {
        Ok(row) => {
            let shift = R::log_shift(scale, &row);
            (tokens.iter().map(|&t| R::log_softmax(x[t], &shift)).collect(), shift.logsumexp())
        }
        Err(f64::NEG_INFINITY) if masked == Masked::Zero => {
            (vec![f64::NEG_INFINITY; tokens.len()], f64::NEG_INFINITY)
        }
        Err(value) => (vec![f64::NAN; tokens.len()], value),
    }
}

pub(crate) fn pick<T: Element>(picks: &mut Picks<T>) {
    let k = picks.k;
    for r in 0..picks.x.rows() {
        let x: Vec<_> = picks.row(r).iter().map(|x| x.to_f64()).collect();
        let tokens = match &mut picks.wanted {
            Wanted::Largest(indices) => {
                indices[r] = largest(&x);
                continue;
            }
            Wanted::Tokens(tokens) => tokens[r * k..][..k].to_vec(),
            Wanted::Top(indices) => {
                let mut order: Vec<_> = (0..x.len()).collect();
                if !x.iter().any(|x| x.is_nan()) {
                    // A stable sort: the first of equals stays the first.
                    order.sort_by(|&a, &b| x[b].partial_cmp(&x[a]).expect("no NaN"));
                }
                indices[r * k..][..k].copy_from_slice(&order[..k]);
                order[..k].to_vec()
            }
        };
        let (values, lse) = if is_double::<T>() {
            log_probs::<Double>(&x, &tokens, &picks.scale, picks.masked)
        } else {
            log_probs::<Single>(&x, &tokens, &picks.scale, picks.masked)
        };
        for (place, v) in picks.log_probs[r * k..][..k].iter_mut().zip(values) {
            *place = element(v);
        }
        if let Some(places) = picks.probs.get_mut(r * k..(r + 1) * k) {
            let probs = if is_double::<T>() {
                softmax_row::<Double>(&x, &picks.scale, picks.masked)
            } else {
                softmax_row::<Single>(&x, &picks.scale, picks.masked)
            };
            for (place, &token) in places.iter_mut().zip(&tokens) {
                *place = element(probs[token]);
            }
        }
        if let Some(place) = picks.lse.get_mut(r) {
            *place = element(lse);
        }
    }
}
