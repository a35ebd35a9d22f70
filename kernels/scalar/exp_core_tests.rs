//! The error of one exponential, over its whole domain. `docs/accuracy.md` builds the bound on
//! these numbers.

use super::*;
use crate::num::exp2::Contract;

/// Half an ULP at 1, the unit of the errors here.
const U: f64 = 1.0 / (1u64 << 24) as f64;

/// `C` of the table: see `LN_C_F32`.
const C: f64 = 1.087_714_908_591_551;

/// The largest and the smallest error, and where they are.
#[derive(Clone, Copy, Debug)]
struct Extremes {
    most: (f64, f32),
    least: (f64, f32),
}

impl Extremes {
    const NONE: Self = Extremes { most: (f64::MIN, 0.0), least: (f64::MAX, 0.0) };

    fn add(&mut self, error: f64, at: f32) {
        if error > self.most.0 {
            self.most = (error, at);
        }
        if error < self.least.0 {
            self.least = (error, at);
        }
    }

    fn join(mut self, other: Self) -> Self {
        self.add(other.most.0, other.most.1);
        self.add(other.least.0, other.least.1);
        self
    }
}

/// Calls `f` with every `step`th f32 from 0 to `end`, on all threads.
fn scan(end: f32, step: u32, f: impl Fn(f32, &mut Extremes) + Sync) -> Extremes {
    let sign = end.to_bits() & 0x8000_0000;
    let last = end.to_bits() & 0x7fff_ffff;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    std::thread::scope(|scope| {
        let part = |t: u32| {
            let f = &f;
            scope.spawn(move || {
                let mut seen = Extremes::NONE;
                for bits in (t * step..=last).step_by((threads * step) as usize) {
                    f(f32::from_bits(sign | bits), &mut seen);
                }
                seen
            })
        };
        let parts: Vec<_> = (0..threads).map(part).collect();
        parts
            .into_iter()
            .map(|part| part.join().expect("no panic"))
            .fold(Extremes::NONE, Extremes::join)
    })
}

/// `2^(r/8) - 1` by its series, |r| <= 0.52: the last term is below 1e-17 of the first.
fn exact_u(r: f32) -> f64 {
    let t = f64::from(r) * (std::f64::consts::LN_2 / 8.0);
    (1..=9).rev().fold(0.0, |s, k| (s + 1.0) * t / f64::from(k))
}

/// The error of `u = r * POLY(r)` relative to the exponential, in u: alone, and with the most that
/// the two roundings of `r` can add.
fn polynomial(step: u32) -> (Extremes, Extremes) {
    let [c0, c1, c2, c3] = *f32::POLY else { unreachable!("four coefficients") };
    let error = |r: f32| {
        let u = c3.mul_add(r, c2).mul_add(r, c1).mul_add(r, c0) * r;
        (f64::from(u) - exact_u(r)) / (1.0 + exact_u(r)) / U
    };
    // Each rounding is at most half an ULP of r, which is 2^-24 of the power of two below |r|.
    let reduction = |r: f32| {
        let power = f64::from(f32::from_bits(r.to_bits() & 0x7f80_0000));
        2.0 * power * (std::f64::consts::LN_2 / 8.0)
    };
    let both =
        |f: &(dyn Fn(f32, &mut Extremes) + Sync)| scan(0.52, step, f).join(scan(-0.52, step, f));
    let alone = both(&|r, seen| seen.add(error(r), r));
    let with_r = both(&|r, seen| {
        seen.add(error(r) + reduction(r), r);
        seen.add(error(r) - reduction(r), r);
    });
    (alone, with_r)
}

/// The numbers that the proof in docs/accuracy.md uses.
fn check_polynomial(step: u32) {
    let (alone, with_r) = polynomial(step);
    println!("u = r POLY(r): {alone:?} u; with the rounding of r: {with_r:?} u");
    assert!(alone.most.0 < 0.08 && alone.least.0 > -0.08, "{alone:?}");
    assert!(with_r.most.0 < 0.17 && with_r.least.0 > -0.17, "{with_r:?}");
}

#[test]
fn polynomial_over_many_r() {
    check_polynomial(4099);
}

#[test]
#[ignore = "a minute: every f32; run by name for docs/accuracy.md"]
fn polynomial_over_every_r() {
    check_polynomial(1);
}

/// The relative error of half types' polynomial at every `step`th r up to `end`: half the distance
/// between the largest and the smallest, because a common factor does not count.
fn check_short_polynomial(end: f32, step: u32) -> f64 {
    let [c0, c1] = *SHORT_POLY else { unreachable!("two coefficients") };
    let error = |r: f32, seen: &mut Extremes| {
        // As it enters `fma(s, u, s)`, which rounds once more.
        let u = c1.mul_add(r, c0) * r;
        seen.add((f64::from(u) - exact_u(r)) / (1.0 + exact_u(r)), r);
    };
    let seen = scan(end, step, error).join(scan(-end, step, error));
    println!("u = r SHORT_POLY(r), |r| <= {end}: {seen:?}");
    (seen.most.0 - seen.least.0) / 2.0
}

/// The numbers that the proof for half types uses.
fn check_short(step: u32) {
    assert!(check_short_polynomial(0.5, step) < 3.4e-6);
    // Pairs: the low part of a logit below 16,384, or of any logit, adds to r.
    assert!(check_short_polynomial(0.506, step) < 3.8e-6);
    assert!(check_short_polynomial(0.523, step) < 4.9e-6);
}

#[test]
fn short_polynomial_over_many_r() {
    check_short(4099);
}

#[test]
#[ignore = "a minute: every f32; run by name for docs/accuracy.md"]
fn short_polynomial_over_every_r() {
    check_short(1);
}

/// The error of the exponential of every f32 that is not flushed, at scale 1, in rows whose maximum
/// is 0 (arguments from -88 to 0) and 88 (from 0 to 88).
fn check_core(step: u32) {
    for (max, end) in [(0.0, -87.0f32), (88.0, 88.0)] {
        let shift = Scale::ONE.shift(max, f32::MIN_EXP);
        let unit = C * 2f64.powi(-shift.m);
        let seen = scan(end, step, |x, seen| {
            let exact = f64::from(x).exp() * unit;
            let e = Single::exp(f64::from(x), 0.0, &Scale::ONE, &shift);
            seen.add((e - exact) / exact / U, x);
        });
        println!("exp from 0 to {end}, maximum {max}: {seen:?} u");
        assert!(seen.most.0 < 1.22 && seen.least.0 > -1.22, "{seen:?}");
    }
}

#[test]
fn exp_core_over_many_f32() {
    check_core(4099);
}

#[test]
#[ignore = "minutes: every f32; run by name for docs/accuracy.md"]
fn exp_core_over_every_f32() {
    check_core(1);
}
