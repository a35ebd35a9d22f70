//! The reference of `op/kl.rs`.

use crate::call::Special;
use crate::call::kl::{KlDivergence, KlRow, KlSums, NEAR, POLY};
use crate::num::element::Element;
use crate::num::exp2::Contract;
use crate::num::scale::Scale;
use crate::scalar::loss::row_sum;
use crate::scalar::{Double, Reference, Single, element, is_double};

/// The sum of a row's exponentials.
fn sums<R: Reference>(x: &[f64], scale: &Scale) -> Result<KlSums, Special> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max.is_infinite() || x.iter().any(|x| x.is_nan()) {
        return Err(Special::of(x.iter().copied()));
    }
    let own = scale.shift(max, <f64 as Contract>::MIN_EXP);
    let exp = |x: f64| Double::exp(x, 0.0, scale, &own);
    let exps: Vec<f64> = x.iter().map(|&x| exp(x)).collect();
    Ok(KlSums { max, own, e_max: exp(max), sum: row_sum::<R>(&exps) })
}

/// `a - b` exactly.
fn two_difference(a: f64, b: f64) -> (f64, f64) {
    let s = a - b;
    let t = s - a;
    (s, (a - (s - t)) - (b + t))
}

/// The difference of the logarithms of two probabilities.
fn difference(row: &KlRow, x: f64, y: f64) -> f64 {
    let (z, z_lo) = two_difference(0.5 * x, 0.5 * y);
    let (z, error) = two_difference(z, row.max.0);
    let z_lo = error + (z_lo - row.max.1);
    let p = z * row.scale.0;
    let p_lo = z.mul_add(row.scale.0, 0.0 - p);
    let p_lo = z_lo.mul_add(row.scale.0, z.mul_add(row.scale.1, p_lo));
    let (s, error) = two_difference(p, row.log.0);
    if s.is_infinite() { s } else { s + (error + (p_lo - row.log.1)) }
}

/// `exp(-d) - 1 + d` for a difference that is near 0.
fn near(d: f64) -> f64 {
    let q = POLY.iter().rev().copied().reduce(|q, c| q.mul_add(d, c)).unwrap_or(0.0);
    (d * d) * q
}

fn is_near(d: f64) -> bool {
    (NEAR.0..=NEAR.1).contains(&d)
}

/// The divergence of a row and its gradients.
type Results = (f64, [Vec<f64>; 2]);

/// The results of a row by its factor in the gradients; an error if one or both are special.
fn row<R: Reference, E: Contract>(
    [x, y]: [&[f64]; 2],
    scale: &Scale,
    upstream: f64,
) -> Result<Results, [Option<Special>; 2]> {
    let (of_x, of_y) = match [sums::<R>(x, scale), sums::<R>(y, scale)] {
        [Ok(of_x), Ok(of_y)] => (of_x, of_y),
        both => return Err(both.map(Result::err)),
    };
    let row = KlRow::new::<E>(scale, &of_x, &of_y);
    let elements: Vec<_> = x
        .iter()
        .zip(y)
        .map(|(&x, &y)| {
            let e = Double::exp(x, 0.0, scale, &of_x.own);
            let f = Double::exp(y, 0.0, scale, &of_y.own);
            (e, f, difference(&row, x, y))
        })
        .collect();
    let term = |&(e, f, d): &(f64, f64, f64)| match e {
        0.0 => f * row.ratio,
        _ if is_near(d) => e * near(d),
        _ => e.mul_add(d - 1.0, f * row.ratio),
    };
    let terms: Vec<f64> = elements.iter().map(term).collect();
    let kl = row.divergence::<E>(row_sum::<R>(&terms));
    let [of_p, of_q] = row.factors::<E>(upstream);
    let slope = if kl.is_finite() { kl } else { f64::NAN };
    let of_x = |&(e, _, d): &(f64, f64, f64)| match e {
        0.0 => 0.0,
        _ => (e * (d - slope)).mul_add(of_p, 0.0),
    };
    let of_y = |&(e, f, d): &(f64, f64, f64)| match e {
        0.0 => f * of_q,
        _ if is_near(d) => (e * of_p).mul_add(near(d) - d, 0.0),
        _ => f.mul_add(of_q, 0.0 - e * of_p),
    };
    Ok((kl, [elements.iter().map(of_x).collect(), elements.iter().map(of_y).collect()]))
}

pub(crate) fn divergence<T: Element>(call: &mut KlDivergence<T>) {
    for index in 0..call.rows() {
        let [x, y] = call.row(index).map(|x| x.iter().map(|x| x.to_f64()).collect::<Vec<_>>());
        let (scale, upstream) = (call.scale, call.upstream(index));
        let results = if is_double::<T>() {
            row::<Double, f64>([&x, &y], &scale, upstream)
        } else {
            row::<Single, f32>([&x, &y], &scale, upstream)
        };
        match results {
            Ok((kl, slopes)) => {
                call.set(index, element(kl));
                for (to, slopes) in call.gradients(index).into_iter().zip(slopes) {
                    for (to, slope) in to.into_iter().flatten().zip(slopes) {
                        *to = element(slope);
                    }
                }
            }
            Err([x, y]) => {
                let (kl, slope) = call.special(x, y);
                call.set(index, kl);
                call.gradients(index).into_iter().flatten().for_each(|to| to.fill(slope));
            }
        }
    }
}
