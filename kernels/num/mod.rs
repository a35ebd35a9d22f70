//! Arithmetic: the contract of all kernels. Nothing here knows of vectors, memory or calls.

pub(crate) mod element;
pub(crate) mod exp2;
pub(crate) mod guess;
pub(crate) mod ln;
pub(crate) mod philox;
pub(crate) mod scale;
pub(crate) mod weighted;

/// `a * b` exactly, as the rounded product and its error (Veltkamp and Dekker), unless something
/// overflows or underflows. It uses no FMA, so that it runs in `const` and on every CPU.
pub(crate) const fn two_product(a: f64, b: f64) -> (f64, f64) {
    const SPLIT: f64 = 134_217_729.0;
    let p = a * b;
    let (ta, tb) = (SPLIT * a, SPLIT * b);
    let (ah, bh) = (ta - (ta - a), tb - (tb - b));
    let (al, bl) = (a - ah, b - bh);
    (p, ((ah * bh - p) + ah * bl + al * bh) + al * bl)
}

/// `a + b` exactly, as the rounded sum and its error (Knuth).
pub(crate) const fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let t = s - a;
    (s, (a - (s - t)) + (b - t))
}

/// `n * at / of` without overflow: the end of the first `at` of `of` equal parts of `n` things.
pub fn part_of(n: usize, at: usize, of: usize) -> usize {
    (n as u128 * at as u128 / of.max(1) as u128) as usize
}
