//! The reference of `op/entropy.rs`.

use crate::call::entropies::{Apart, EntropyGradient, EntropySums, RowEntropy};
use crate::call::{Call, Masked};
use crate::num::element::Element;
use crate::num::exp2::{BLOCK, Contract, LANES_F64, Sum};
use crate::num::scale::Scale;
use crate::scalar::loss::row_sum;
use crate::scalar::{
    Double, Reduced, Reference, Single, add, add_up, element, for_rows, is_double, plain, reduce,
};

/// The sum of the products of pairs, added as the exponentials of a row are added.
fn products<R: Reference>(terms: &[(f64, f64)]) -> Sum {
    if R::MIN_EXP == -126 {
        // Products of f32 are exact in f64; those of differences are rounded.
        let products: Vec<f64> = terms.iter().map(|(a, b)| a * b).collect();
        return row_sum::<R>(&products);
    }
    let blocks = terms.chunks(BLOCK).map(|block| {
        let mut lanes = [(0.0, 0.0); LANES_F64];
        for (i, &(a, b)) in block.iter().enumerate() {
            let (hi, lo) = lanes[i % LANES_F64];
            let p: f64 = a * b;
            let s = hi + p;
            let t = s - hi;
            let lo = lo + ((hi - (s - t)) + (p - t));
            lanes[i % LANES_F64] = (s, lo + a.mul_add(b, 0.0 - p));
        }
        let l = lanes;
        let a = |i: usize| add(l[i], l[i + 4]);
        add(add(a(0), a(2)), add(a(1), a(3)))
    });
    let (hi, lo) = blocks.reduce(add_up::<R>).unwrap_or_default();
    Sum { hi, lo }
}

/// The row's entropy, for its gradient if `slopes`; or what its log-sum-exp would be, if its
/// maximum is not finite.
fn row<R: Reference, E: Contract>(
    x: &[f64],
    scale: &Scale,
    slopes: bool,
) -> Result<(RowEntropy, Reduced), f64> {
    let reduced = reduce::<R>(&plain(x), None, scale)?;
    let Reduced { max, shift, sum: (hi, lo) } = reduced;
    let exp = |x: f64| R::exp(x, 0.0, scale, &shift);
    // Flushed elements count as 0, and so do their exponentials.
    let weight = |x: f64| {
        let x = R::round(x - shift.subtract);
        if x < R::round(shift.cut) { 0.0 } else { x }
    };
    let terms: Vec<_> = x.iter().map(|&x| (exp(x), weight(x))).collect();
    let sums = EntropySums {
        max,
        own: shift,
        e_max: exp(max),
        sum: Sum { hi, lo },
        weighted: products::<R>(&terms),
    };
    let apart = || {
        let others: Vec<f64> = x.iter().map(|&x| if x < max { exp(x) } else { 0.0 }).collect();
        let top = max - shift.subtract;
        let unit = Apart::unit(scale);
        let terms: Vec<_> = x.iter().map(|&x| (exp(x), (top - weight(x)) * unit)).collect();
        let mut sum = products::<R>(&terms);
        if R::MIN_EXP != -126 {
            // Those with the errors of the differences.
            let error = |&x: &f64| {
                let minus = 0.0 - weight(x);
                let d = top + minus;
                let t = d - top;
                exp(x) * (((top - (d - t)) + (minus - t)) * unit)
            };
            let errors: Vec<f64> = x.iter().map(error).collect();
            sum = E::sum_add(sum, row_sum::<R>(&errors));
        }
        Apart { others: row_sum::<R>(&others), below: sum }
    };
    Ok((RowEntropy::new::<E>(scale, &sums, x.len(), slopes, apart), reduced))
}

fn entropy_row<R: Reference, E: Contract>(x: &[f64], scale: &Scale, masked: Masked) -> f64 {
    match row::<R, E>(x, scale, false) {
        Ok((row, _)) => row.entropy,
        Err(f64::NEG_INFINITY) if masked == Masked::Zero => 0.0,
        Err(_) => f64::NAN,
    }
}

pub(crate) fn entropy<T: Element>(call: &mut Call<T>) {
    let masked = call.masked;
    for_rows(call, |x, scale| {
        vec![if is_double::<T>() {
            entropy_row::<Double, f64>(x, scale, masked)
        } else {
            entropy_row::<Single, f32>(x, scale, masked)
        }]
    });
}

/// The gradient of a row; or what its log-sum-exp would be, if its maximum is not finite.
fn gradient_row<R: Reference, E: Contract>(
    x: &[f64],
    upstream: f64,
    scale: &Scale,
) -> Result<Vec<f64>, f64> {
    let (row, Reduced { max, shift, .. }) = row::<R, E>(x, scale, true)?;
    let (top, a) = (max - shift.subtract, scale.get());
    let factor = row.factor * upstream;
    let of = |&x: &f64| {
        let e = R::exp(x, 0.0, scale, &shift);
        let x = R::round(x - shift.subtract);
        let x = if x < R::round(shift.cut) { 0.0 } else { x };
        let d = (top - x).mul_add(a, 0.0 - row.below);
        R::round((e * d).mul_add(factor, 0.0))
    };
    Ok(x.iter().map(of).collect())
}

pub(crate) fn gradient<T: Element>(call: &mut EntropyGradient<T>) {
    for row in 0..call.rows() {
        let x: Vec<_> = call.elements(row).map(T::to_f64).collect();
        let (upstream, scale) = (call.upstream(row), call.scale);
        let gradient = if is_double::<T>() {
            gradient_row::<Double, f64>(&x, upstream, &scale)
        } else {
            gradient_row::<Single, f32>(&x, upstream, &scale)
        };
        for j in 0..call.cols {
            let value = match &gradient {
                Ok(values) => element(values[j]),
                Err(max) => call.special(*max == f64::NEG_INFINITY),
            };
            // SAFETY: the row has `cols` elements to write.
            unsafe { *call.row(row).1.add(j) = value };
        }
    }
}
