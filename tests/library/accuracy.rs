//! The documented bounds, against the double-double oracle.

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{Kernel, Masked, Matrix};
use softmax_measure::oracle::{BF16, Dd, F16, F32, F64, Format, exact, ulp as oracle_ulp, ulps};

/// The largest errors of a row by the reference, whose bits every kernel must give: softmax in ULP,
/// logarithms relative to their bound.
fn errors<T: Bits>(
    x: &[T],
    temperature: f64,
    format: Format,
    log_allowed: impl Fn(f64, Dd) -> f64,
) -> (f64, f64) {
    let wide: Vec<f64> = x.iter().map(|v| v.to_f64()).collect();
    let want = exact(&wide, temperature);
    let [softmax, log_softmax, logsumexp] = OPS.map(|op| {
        let got = run_row(&on(scalar(), temperature, Masked::Nan), op, x);
        for kernel in crate::common::exact() {
            let same = run_row(&on(kernel, temperature, Masked::Nan), op, x);
            assert_same(&same, &got, || format!("{} {op:?}, T {temperature}", kernel.name()));
        }
        got
    });
    let largest = want.softmax.iter().fold(0.0, |m, p| p.0.max(m));
    // Probabilities below 2^-126 (f64: 2^-1022) of the row's largest may be 0, and in half types
    // those below 2^-126 before rounding.
    let flushed = if T::IS_ARITHMETIC {
        largest * 2f64.powi(format.min_exp.max(-1022)).max(f64::MIN_POSITIVE)
    } else {
        f64::from(f32::MIN_POSITIVE) * (1.0 + 1e-5)
    };
    let mut worst = (0.0f64, 0.0f64);
    for (got, want) in softmax.iter().zip(&want.softmax) {
        let got = got.to_f64();
        if !(got == 0.0 && want.0 <= flushed) {
            worst.0 = worst.0.max(ulps(got, *want, format));
        }
    }
    for (got, want) in log_softmax.iter().zip(&want.log_softmax) {
        let got = got.to_f64();
        if got.is_finite() {
            worst.1 = worst.1.max(log_allowed(got, *want));
        } else {
            assert!(want.0 < -6e4, "{got} for {want:?}");
        }
    }
    let got = logsumexp[0].to_f64();
    if got.is_finite() {
        worst.1 = worst.1.max(log_allowed(got, want.logsumexp));
    }
    worst
}

/// The error relative to `ulp` ULP or `absolute`, whichever allows more.
fn either(ulp: f64, absolute: f64, format: Format) -> impl Fn(f64, Dd) -> f64 + Copy {
    move |got, want| {
        let error = Dd::sum(got, -want.0).add(Dd(-want.1, 0.0)).0.abs();
        (ulps(got, want, format) / ulp).min(error / absolute)
    }
}

/// The error relative to the sum of `ulp` ULP and `absolute`.
fn both(ulp: f64, absolute: f64, format: Format) -> impl Fn(f64, Dd) -> f64 + Copy {
    move |got, want| ulps(got, want, format) / (ulp + absolute / oracle_ulp(got, want, format))
}

fn sweep<T: Bits>(format: Format, bound: f64, log: impl Fn(f64, Dd) -> f64 + Copy) {
    let mut random = Random(5);
    let mut worst = (0.0f64, 0.0f64);
    let lengths: &[usize] = if quick() {
        &[1, 2, 10, 1000]
    } else {
        &[1, 2, 3, 10, 16, 17, 64, 100, 1000, 4096, 4097, 20_000]
    };
    for &n in lengths {
        for kind in 0..KINDS {
            for temperature in [1.0, 8.0, 3.0, 0.7, 0.01, 1048576.0] {
                if n > 1000 && (kind + n) % 3 != 0 {
                    continue;
                }
                let mut x: Vec<T> = row(&mut random, kind, n);
                // A result needs a finite entry, and no +inf (in f16).
                x[0] = T::from_f64(1.5);
                for v in x.iter_mut().filter(|v| v.to_f64() == f64::INFINITY) {
                    *v = T::from_f64(60_000.0);
                }
                let (y, l) = errors(&x, temperature, format, log);
                let what = || format!("{n} of kind {kind}, T {temperature}");
                assert!(y <= bound, "{}: softmax is {y} ULP off", what());
                assert!(l <= 1.0, "{}: {l} of what is allowed for logarithms", what());
                worst = (worst.0.max(y), worst.1.max(l));
            }
        }
    }
    println!("{}: softmax {:.3} ULP, logarithms {:.3} of the bound", T::NAME, worst.0, worst.1);
}

#[test]
fn f32_is_within_3_ulp() {
    sweep::<f32>(F32, 3.0, either(2.0, 1e-7, F32));
}

#[test]
fn f64_is_within_3_ulp() {
    sweep::<f64>(F64, 3.0, either(3.0, 3e-16, F64));
}

#[test]
fn f16_is_rounded_once() {
    sweep::<f16>(F16, 0.53, both(0.51, 1e-7, F16));
}

#[test]
fn bf16_is_rounded_once() {
    sweep::<bf16>(BF16, 0.51, both(0.51, 1e-7, BF16));
}

/// 2^24 entries, where a plain running sum in f32 is at 130 ULP.
#[test]
fn long_rows() {
    let n = if quick() { 1 << 18 } else { 1 << 24 };
    let x: Vec<f32> = row(&mut Random(6), 0, n);
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e = |x: f32| (f64::from(x) - f64::from(max)).exp();
    let sum = x.iter().fold(Dd(0.0, 0.0), |s, &x| s.add(Dd(e(x), 0.0)));
    let by = |kernel| run_row(&on(kernel, 1.0, Masked::Nan), Op::Softmax, &x);
    let y = by(fastest());
    for kernel in crate::common::exact() {
        assert_same(&by(kernel), &y, || kernel.name().to_string());
    }
    let worst = x
        .iter()
        .zip(&y)
        .fold(0.0f64, |worst, (&x, &y)| worst.max(ulps(f64::from(y), Dd(e(x), 0.0).div(sum), F32)));
    println!("{n}: {worst:.3} ULP");
    assert!(worst <= 3.0, "{worst} ULP");
}

/// The oracle's own exponential and logarithm, against 50 digits from mpmath, cut into two f64.
#[test]
fn the_oracle_is_right() {
    for (x, hi, lo) in ORACLE {
        let e = Dd(x, 0.0).exp();
        let relative = e.add(Dd(-hi, 0.0)).add(Dd(-lo, 0.0)).0 / hi;
        assert!(relative.abs() < 1e-29, "exp({x}) = {e:?}: {relative:e}");
        let l = Dd(hi, lo).ln().add(Dd(-x, 0.0)).0 / x.abs().max(1.0);
        assert!(l.abs() < 1e-29, "ln(exp({x})): {l:e}");
    }
}

const ORACLE: [(f64, f64, f64); 5] = [
    (-600.25, 2.0641309109295095e-261, -2.1403995749322006e-280),
    (-1.0, 0.36787944117144233, -1.2428753672788363e-17),
    (0.5, 1.6487212707001282, -4.731568479435833e-17),
    (3.25, 25.790339917193062, -2.0220949927714329e-16),
    (20.0, 485165195.4097903, 4.880277289790406e-10),
];

/// The error of an adversary's row: one entry whose exponential errs upwards, and many that err
/// downwards.
fn adversary(a: f32, b: f32, copies: usize, temperature: f64) -> f64 {
    let mut x = vec![b; copies + 1];
    x[0] = a;
    let ratio = ((f64::from(b) - f64::from(a)) / temperature).exp();
    let want = 1.0 / (1.0 + copies as f64 * ratio);
    let y = run_row(&on(fastest(), temperature, Masked::Nan), Op::Softmax, &x);
    ulps(f64::from(y[0]), Dd(want, 0.0), F32)
}

fn fastest() -> &'static Kernel {
    softmax::kernels().iter().find(|k| k.is_available()).expect("scalar at least")
}

/// The arguments whose exponentials err most, up and down, at scale 1: found by
/// `exp_core_over_every_f32` in kernels/scalar/exp_core_tests.rs.
const EXTREMES: [f32; 4] = [-6.281352, -6.2922735, 18.67465, 2.0298994];

/// The worst of the rows that these arguments make: any two, the second up to 3,000 times.
#[test]
fn adversarial_rows() {
    let most = if quick() { 100 } else { 3000 };
    let mut worst = (0.0, 0.0, 0.0, 0);
    for a in EXTREMES {
        for b in EXTREMES {
            for copies in 1..most {
                let e = adversary(a, b, copies, 1.0);
                if e > worst.0 {
                    worst = (e, a, b, copies);
                }
            }
        }
    }
    println!("{worst:?}");
    assert!(worst.0 <= 3.0, "{worst:?}");
}

/// Searches for the worst row at several temperatures. Minutes; prints what it finds.
#[test]
#[ignore = "minutes: a search, run by name for docs/accuracy.md"]
fn adversarial_search() {
    let mut random = Random(7);
    let mut best = (0.0, 0.0f32, 0.0f32, 0, 1.0);
    for round in 0..200 {
        let temperature = [1.0, 8.0, 3.0, 0.7][round % 4];
        let mut here = (0.0, 0.0f32, 0.0f32, 0);
        for try_ in 0..40_000 {
            let (a, b, copies) = if try_ < 20_000 {
                let b = (random.signed() * 10.0) as f32;
                (b + (random.signed() * 12.0) as f32, b, 1 + random.below(40))
            } else {
                // By changes of single bits and copies from the best so far.
                let reach = 1 << random.below(12);
                let mut near = |v: f32| {
                    let by = random.below(2 * reach + 1) as u32;
                    f32::from_bits(v.to_bits().wrapping_add(by).wrapping_sub(reach as u32))
                };
                let (a, b) = (near(here.1), near(here.2));
                (a, b, (here.3 + random.below(3)).saturating_sub(1).max(1))
            };
            let e = adversary(a, b, copies, temperature);
            if e > here.0 {
                here = (e, a, b, copies);
            }
        }
        if here.0 > best.0 {
            best = (here.0, here.1, here.2, here.3, temperature);
            println!("ULP, a, b, copies of b, temperature: {best:?}");
        }
    }
    assert!(best.0 <= 3.0, "{best:?}");
}

/// Probabilities just above the least normal number, where the low part of a quotient underflows:
/// one far element below many equal ones, which err the other way. The first two rows once had
/// errors of 3.02 and 3.07 ULP.
#[test]
fn the_least_probabilities_are_within_3_ulp() {
    fn row(far: f32, near: f32, copies: usize, temperature: f64, kernel: &'static Kernel) -> f64 {
        let mut x = vec![near; copies + 1];
        x[0] = far;
        let (e, t) = (Dd::sum(f64::from(far), -f64::from(near)), Dd(temperature, 0.0));
        let e = e.div(t).exp();
        let want = e.div(e.add(Dd(copies as f64, 0.0)));
        let got = run_row(&on(kernel, temperature, Masked::Nan), Op::Softmax, &x)[0];
        assert!(got > 0.0, "{}: flushed", kernel.name());
        ulps(f64::from(got), want, F32)
    }
    let mut random = Random(19);
    for kernel in available() {
        for (far, near, copies, scale) in [
            (-87.38519f32, -6.281352f32, 255, 1.0f64),
            (-46.204933, -0.8030665, 504, 1.771313638208325),
        ] {
            let worst = row(far, near, copies, 1.0 / scale, kernel);
            assert!(worst <= 3.0, "{}: {worst} ULP for {far}, {near}", kernel.name());
        }
        let mut worst = 0.0f64;
        for round in 0..if quick() { 200 } else { 4000 } {
            let near = EXTREMES[round % 4];
            let copies = 1 + random.below(600);
            // From subnormal results to the third binade of normal ones.
            let octaves = 123.5 + 3.5 * random.signed() - (copies as f64).log2();
            let far = near - (octaves * std::f64::consts::LN_2) as f32;
            worst = worst.max(row(far, near, copies, 1.0, kernel));
        }
        println!("{}: {worst:.3} ULP", kernel.name());
        assert!(worst <= 3.0, "{}: {worst} ULP", kernel.name());
    }
}

/// Logarithms in f64 near 0 and 1, where the last place of `ln(sum)` counts. The rows once had
/// errors of 3.3 to 3.6 ULP, and the last one 2.7 times its bound. Exact values by mpmath, 180
/// digits.
#[test]
fn logarithms_of_f64_carry_the_sum_as_a_pair() {
    let allowed = either(3.0, 3e-16, F64);
    let rows: [(&[f64], usize, Dd, Dd); 3] = [
        (
            &[-0.04630156037640533, -0.025442606232371334, -1.654807839212103],
            0,
            Dd(0.7517750392214289, 5.525308497190624e-17),
            Dd(-0.7980765995978343, 4.189142968279496e-17),
        ),
        (
            &[-3.52341024773768, 0.42546420786370753, -0.6881950615581259, 0.4040568174029862],
            3,
            Dd(1.2698084508199872, 1.0599302370463447e-16),
            Dd(-0.865751633417001, -5.048187247337664e-17),
        ),
        (
            &[-0.2153893156664069, -0.12698399183462067, -0.0496264030567681],
            0,
            Dd(0.9702333672410649, -3.022680097701665e-17),
            Dd(-1.1856226829074719, 8.573795220827448e-17),
        ),
    ];
    let million = vec![-13.815510561964274; 1_000_000];
    for kernel in available() {
        let options = on(kernel, 1.0, Masked::Nan);
        for (x, j, lse, log) in rows {
            let got = run_row(&options, Op::LogSoftmax, x)[j];
            assert!(allowed(got, log) <= 1.0, "{}: {x:?}: {got}", kernel.name());
            let got = run_row(&options, Op::LogSumExp, x)[0];
            assert!(allowed(got, lse) <= 1.0, "{}: {x:?}: {got}", kernel.name());
        }
        let got = run_row(&options, Op::LogSumExp, &million)[0];
        assert!(
            allowed(got, Dd(-3.999999857058379e-9, 6.487926290245504e-26)) <= 1.0,
            "{}: {got:e}",
            kernel.name()
        );
    }
}

/// Logarithms are finite even where the difference of two logits overflows, if the temperature
/// makes them so.
#[test]
fn logarithms_of_differences_that_overflow() {
    let x = [1.7e308, -1.7e308, 0.0, 1.7e308 * 0.75];
    for kernel in available() {
        let got = run_row(&on(kernel, 4.0, Masked::Nan), Op::LogSoftmax, &x);
        let want = [0.0, -8.5e307, -4.25e307, -1.0625e307];
        for (got, want) in got.iter().zip(want) {
            assert!(ulps(*got, Dd(want, 0.0), F64) <= 3.0, "{}: {got:e}", kernel.name());
        }
        let got = run_row(&on(kernel, 1.0, Masked::Nan), Op::LogSoftmax, &x);
        assert_eq!(got[..2], [0.0, f64::NEG_INFINITY], "{}", kernel.name());
        // The difference is in range, but not times the scale.
        let x = [0.0, -1e279];
        assert_eq!(
            run_row(&on(kernel, 1e-30, Masked::Nan), Op::LogSoftmax, &x)[1],
            f64::NEG_INFINITY
        );
        let loss = on(kernel, 1e-30, Masked::Nan).cross_entropy();
        let loss = loss.loss(Matrix::new(&x, 2).expect("a row"), &[1]).expect("a valid call");
        assert_eq!(loss, f64::INFINITY, "{}", kernel.name());
        // Two equal largest elements have half each.
        let got = run_row(&on(kernel, 4.0, Masked::Nan), Op::LogSoftmax, &[1.7e308, 1.7e308]);
        assert_eq!(got, [-std::f64::consts::LN_2; 2], "{}", kernel.name());
    }
}

/// Log-sum-exps near 0 in half types, which have the error of f32 in addition to their rounding.
/// Exact values by mpmath.
#[test]
fn logarithms_of_half_types_near_0() {
    let f16s = [-0.62744140625, -0.76416015625].map(f16::from_f64);
    let bf16s = [-2.65625, -0.07275390625].map(bf16::from_f64);
    for kernel in available() {
        let options = on(kernel, 1.0, Masked::Nan);
        let got = run_row(&options, Op::LogSumExp, &f16s)[0].to_f64();
        let error = both(0.51, 1e-7, F16)(got, Dd(-0.0003189160977373739, 0.0));
        assert!(error <= 1.0, "{}: {got:e}", kernel.name());
        let got = run_row(&options, Op::LogSumExp, &bf16s)[0].to_f64();
        let error = both(0.51, 1e-7, BF16)(got, Dd(4.0646320586219955e-05, 0.0));
        assert!(error <= 1.0, "{}: {got:e}", kernel.name());
    }
}
