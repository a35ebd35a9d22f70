//! Log-sum-exp with weights, in f64 and plain steps: the same bits on every CPU.
//!
//! With `w = f 2^k`, `f` from 1 to 2, the term `w exp(z)` is `f exp(z + k ln 2)`. The exponents
//! `v = z + k ln 2` are pairs; the largest of them, `v_max`, is taken off all:
//!
//! ```text
//! ln sum_i w_i exp(z_i) = v_max + ln sum_i f_i exp(v_i - v_max)
//! ```
//!
//! The sum is 1 or more. The errors of a term are those of the exponential, 2^-52 of it, of its low
//! part's factor and of the product with `f`, 2^-53 each: 2^-51 together, and as much absolutely in
//! the logarithm. Pairs lose 2^-104 of `v`, sums 2^-90. The result is rounded once.

use crate::num::exp2::{Contract, Sum};
use crate::num::ln::ln_pair;
use crate::num::two_sum;

/// `ln(2)`: its first 41 bits, whose multiples are exact, and the rest.
const LN_2: (f64, f64) = (0.693147180559663, 2.8235290563031577e-13);

/// Beyond this a low part counts for nothing, and its computation might overflow.
const HUGE: f64 = 1e300;

/// What exponentials are 0 below.
const LEAST: f64 = -1000.0;

/// An element: what is multiplied by the scale, its weight, and what is added to its logit.
pub type Weighted = (f64, f64, f64);

/// The log-sum-exp of `n` elements. Weights are finite and not negative; elements of weight 0, or
/// to which -inf is added, are as if they were not there.
pub fn weighted_logsumexp(n: usize, scale: (f64, f64), at: impl Fn(usize) -> Weighted) -> f64 {
    let exponents = || (0..n).filter_map(|i| exponent(scale, at(i)));
    let mut max = (f64::NEG_INFINITY, 0.0);
    for (v, _) in exponents() {
        if v.0.is_nan() {
            return <f64 as crate::num::element::Element>::NAN;
        }
        if v.0 > max.0 || (v.0 == max.0 && v.1 > max.1) {
            max = v;
        }
    }
    if max.0.is_infinite() {
        return max.0;
    }
    let mut sum = Sum::ZERO;
    for (v, f) in exponents() {
        let (d, d_lo) = two_sum(v.0, -max.0);
        // Of the lowest the difference may overflow.
        if d > LEAST {
            let (d, d_lo) = two_sum(d, d_lo + (v.1 - max.1));
            let e = libm::exp(d);
            sum = f64::sum_add(sum, Sum { hi: f * (e + e * d_lo), lo: 0.0 });
        }
    }
    let (ln, ln_lo) = ln_pair(sum.hi, sum.lo);
    if max.0.abs() > HUGE {
        return max.0;
    }
    let (s, s_lo) = two_sum(max.0, ln);
    s + (s_lo + (max.1 + ln_lo))
}

/// `v` as a pair, and `f`; `None` if the element counts nothing.
fn exponent((hi, lo): (f64, f64), (x, w, added): Weighted) -> Option<((f64, f64), f64)> {
    if w == 0.0 || added == f64::NEG_INFINITY {
        return None;
    }
    let p = x * hi;
    let z = p + added;
    if z == f64::NEG_INFINITY {
        return None;
    }
    let (k, f) = parts(w);
    if z.is_nan() || z.abs() > HUGE || p.abs() > HUGE {
        return Some(((z, 0.0), f));
    }
    let p_lo = x.mul_add(hi, -p) + x * lo;
    let (z, z_lo) = two_sum(p, added);
    let (v, v_lo) = two_sum(z, k * LN_2.0);
    Some((two_sum(v, v_lo + (z_lo + p_lo + k * LN_2.1)), f))
}

/// `k` and `f` of `w = f 2^k`.
fn parts(w: f64) -> (f64, f64) {
    const UP: f64 = (1u64 << 54) as f64;
    let (w, less) = if w < f64::MIN_POSITIVE { (w * UP, 54.0) } else { (w, 0.0) };
    let bits = w.to_bits();
    let f = f64::from_bits(bits & ((1 << 52) - 1) | 1.0f64.to_bits());
    ((bits >> 52) as f64 - 1023.0 - less, f)
}
