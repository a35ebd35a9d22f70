//! Divergences of two rows of logits and their gradients.

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{BitMask, Element, Error, Kernel, Masked, Matrix, MatrixMut, Softmax, Threads};
use softmax_measure::oracle::{BF16, Dd, F16, F32, F64, Format, ulp, ulps};
use std::num::NonZeroUsize;

fn divergences<T: Element>(softmax: Softmax, x: Matrix<T>, y: Matrix<T>) -> Vec<T> {
    let mut kl = vec![T::from_f64(-77.0); x.rows()];
    softmax.kl_divergence(x, y, &mut kl).expect("a valid call");
    kl
}

/// With respect to `x`, then `y`.
fn gradients<T: Element>(
    softmax: Softmax,
    x: Matrix<T>,
    y: Matrix<T>,
    upstream: &[T],
) -> [Vec<T>; 2] {
    let (rows, cols) = (x.rows(), x.cols());
    let mut to = [0, 1].map(|_| vec![T::from_f64(-77.0); rows * cols]);
    let [of_x, of_y] =
        to.each_mut().map(|g| Some(MatrixMut::with_stride(g, rows, cols, cols).expect("a shape")));
    softmax.kl_divergence_backward(x, y, upstream, of_x, of_y).expect("a valid call");
    to
}

fn dense<T>(x: &[T], cols: usize) -> Matrix<'_, T> {
    Matrix::new(x, cols).expect("rows")
}

/// Pairs of rows: equal, near, shifted or apart, and some with special values.
fn pairs<T: Element>(random: &mut Random, kind: usize, rows: usize, cols: usize) -> [Vec<T>; 2] {
    let (mut all_x, mut all_y) = (Vec::new(), Vec::new());
    for _ in 0..rows {
        let mut x = row::<T>(random, kind, cols);
        let mut y: Vec<T> = match random.below(6) {
            0 => x.clone(),
            1 => row(random, kind, cols),
            2 => row(random, 0, cols),
            3 => x.iter().map(|x| T::from_f64(x.to_f64() + 3.0)).collect(),
            _ => {
                let width = 10f64.powi(-(random.below(8) as i32));
                let near = |x: &T| T::from_f64(x.to_f64() + width * random.signed());
                x.iter().map(near).collect()
            }
        };
        let (at, other) = (random.below(cols), random.below(cols));
        match random.below(24) {
            0 => x[at] = T::NAN,
            1 => y[at] = T::NAN,
            2 => x[at] = T::INFINITY,
            3 => y[at] = T::INFINITY,
            4 => x.fill(T::NEG_INFINITY),
            5 => y.fill(T::NEG_INFINITY),
            6 => x[at] = T::NEG_INFINITY,
            7 => y[at] = T::NEG_INFINITY,
            8 => (x[at], y[at]) = (T::NEG_INFINITY, T::NEG_INFINITY),
            // Nearly certain, of the same or of another element.
            9 => (x[at], y[at]) = (T::from_f64(3000.0), T::from_f64(3001.0)),
            10 => (x[at], y[other]) = (T::from_f64(900.0), T::from_f64(60.0)),
            _ => {}
        }
        all_x.extend(x);
        all_y.extend(y);
    }
    [all_x, all_y]
}

fn same_bits<T: Bits>() {
    let two = Threads::Exactly(NonZeroUsize::new(2).expect("not 0"));
    let mut random = Random(47);
    for cols in [1, 2, 7, 8, 15, 16, 17, 33, 65, 130, 1024, 4096, 4097, 9001] {
        for kind in 0..KINDS {
            if quick() && (kind % 3 != 0 || cols > 130) || cols > 1000 && kind % 4 != 1 {
                continue;
            }
            let n = if cols > 4000 { 3 } else { 2 + 300 / cols + random.below(5) };
            let [x, y] = pairs::<T>(&mut random, kind, n, cols);
            let upstream: Vec<T> = (0..n).map(|_| T::from_f64(random.signed())).collect();
            let stride = cols + 3;
            let padded = [&x, &y].map(|x| {
                let mut padded = vec![T::from_f64(5.5); 1 + n * stride];
                for (r, row) in x.chunks(cols).enumerate() {
                    padded[1 + r * stride..][..cols].copy_from_slice(row);
                }
                padded
            });
            let [of_x, of_y] = [&x, &y].map(|x| dense(x, cols));
            let [far_x, far_y] = padded
                .each_ref()
                .map(|x| Matrix::with_stride(&x[1..], n, cols, stride).expect("a shape"));
            let masked = if random.once_in(2) { Masked::Zero } else { Masked::Nan };
            let options = Softmax::new().temperature([1.0, 0.3, 7.0][kind % 3]).masked(masked);
            let want = divergences(options.exec(by(scalar())), of_x, of_y);
            let slopes = gradients(options.exec(by(scalar())), of_x, of_y, &upstream);
            for kernel in exact() {
                let what = || format!("{} {} {n} x {cols}, kind {kind}", kernel.name(), T::NAME);
                let serial = options.exec(by(kernel).threads(Threads::Serial));
                let shared = options.exec(by(kernel).threads(two));
                assert_same(&divergences(serial, of_x, far_y), &want, what);
                assert_same(&divergences(shared, far_x, of_y), &want, what);
                for (options, x, y) in [(serial, far_x, of_y), (shared, of_x, far_y)] {
                    let got = gradients(options, x, y, &upstream);
                    assert_same(&got[0], &slopes[0], what);
                    assert_same(&got[1], &slopes[1], what);
                }
                // Each row alone, and each gradient alone.
                let rows = || x.chunks(cols).zip(y.chunks(cols));
                let alone = rows()
                    .flat_map(|(x, y)| divergences(serial, dense(x, cols), dense(y, cols)))
                    .collect::<Vec<_>>();
                assert_same(&alone, &want, what);
                let mut to = [0, 1].map(|_| vec![T::ZERO; n * cols]);
                let [to_x, to_y] = to.each_mut().map(|g| MatrixMut::new(g, cols).expect("rows"));
                serial
                    .kl_divergence_backward(of_x, of_y, &upstream, Some(to_x), None)
                    .and_then(|()| {
                        serial.kl_divergence_backward(of_x, of_y, &upstream, None, Some(to_y))
                    })
                    .expect("a valid call");
                assert_same(&to[0], &slopes[0], what);
                assert_same(&to[1], &slopes[1], what);
            }
        }
    }
}

#[test]
fn same_bits_f32() {
    same_bits::<f32>();
}

#[test]
fn same_bits_f64() {
    same_bits::<f64>();
}

#[test]
fn same_bits_f16() {
    same_bits::<f16>();
}

#[test]
fn same_bits_bf16() {
    same_bits::<bf16>();
}

const ZERO: Dd = Dd(0.0, 0.0);

/// The exact divergence; for each element `a p`, `d` and `a (q - p)`.
fn oracle(x: &[f64], y: &[f64], scale: f64) -> (Dd, Vec<(Dd, Dd, Dd)>) {
    let a = Dd(scale, 0.0);
    let logs = |x: &[f64]| -> (Vec<Dd>, Dd) {
        let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let z: Vec<Dd> = x.iter().map(|&x| Dd::sum(x, -max).mul(a)).collect();
        let sum = z.iter().fold(ZERO, |s, &z| s.add(exp(z)));
        (z, sum.ln())
    };
    fn exp(z: Dd) -> Dd {
        if z.0 > -740.0 { z.exp() } else { ZERO }
    }
    let ((zx, cx), (zy, cy)) = (logs(x), logs(y));
    let (mut kl, mut slopes) = (ZERO, Vec::new());
    for (zx, zy) in zx.into_iter().zip(zy) {
        let (p, q) = (exp(zx.sub(cx)), exp(zy.sub(cy)));
        let d = zx.sub(zy).sub(cx.sub(cy));
        let (minus, term) = if p.0 == 0.0 {
            (q, q)
        } else if d.0.abs() < 5.0 {
            let minus = d.neg().exp_m1();
            (p.mul(minus), p.mul(minus.add(d)))
        } else {
            (q.sub(p), q.sub(p).add(p.mul(d)))
        };
        kl = kl.add(term);
        slopes.push((p.mul(a), if p.0 == 0.0 { ZERO } else { d }, minus.mul(a)));
    }
    (kl, slopes)
}

/// Rows from nearly certain to uniform, near 0 and far from it; and one that differs from it by
/// anything from the last place to everything.
fn difficult<T: Element>(random: &mut Random, n: usize) -> [Vec<T>; 2] {
    let width = 2f64.powi(random.below(12) as i32 - 7);
    let mut x: Vec<f64> = (0..n).map(|_| random.signed() * width).collect();
    if random.once_in(3) {
        x[random.below(n)] += 60.0 * random.signed().abs();
    }
    if random.once_in(3) {
        let at = 2f64.powi(random.below(12) as i32) * random.signed();
        x.iter_mut().for_each(|x| *x += at);
    }
    let apart = [10.0, 1.0, 0.1, 1e-3, 1e-6, 1e-9][random.below(6)];
    let by = if random.once_in(4) { 100.0 * random.signed() } else { 0.0 };
    let y: Vec<f64> = x.iter().map(|x| x + by + apart * random.signed()).collect();
    [x, y].map(|x| x.into_iter().map(T::from_f64).collect())
}

/// The bounds: ULP and absolute of divergences; ULP of both gradients, and absolute.
fn accurate<T: Bits>(format: Format, allowed: (f64, f64), allowed_slopes: ([f64; 2], f64)) {
    let mut random = Random(8);
    let (mut worst, mut worst_slopes, mut least) = (0.0f64, [0.0f64; 2], f64::INFINITY);
    let kernel = exact()[0];
    for turn in 0..if quick() { 60 } else { 1500 } {
        let n = if turn % 50 == 0 { 5000 } else { 1 + random.below(300) };
        let [x, y] = difficult::<T>(&mut random, n);
        let wide = [&x, &y].map(|x| x.iter().map(|x| x.to_f64()).collect::<Vec<_>>());
        let scale = [1.0, 0.25, 2.5, 1.0 / 1024.0][turn % 4];
        let softmax = Softmax::new().scale(scale).exec(by(kernel).threads(Threads::Serial));
        let [row_x, row_y] = [&x, &y].map(|x| dense(x, n));
        let (want, slopes) = oracle(&wide[0], &wide[1], scale);
        let got = divergences(softmax, row_x, row_y)[0].to_f64();
        assert!(got >= 0.0, "{}: {got:e}", T::NAME);
        if Dd::sum(got, -want.0).sub(Dd(want.1, 0.0)).0.abs() > allowed.1 {
            let error = ulps(got, want, format);
            worst = worst.max(error);
            least = least.min(want.0);
            assert!(
                error <= allowed.0,
                "{} {n} by {scale}: {got:e}, not {:e}: {error} ULP",
                T::NAME,
                want.0
            );
        }
        let got = gradients(softmax, row_x, row_y, &[T::from_f64(1.0)]);
        for (j, (p, d, of_y)) in slopes.into_iter().enumerate() {
            let of_x = p.mul(d.sub(want));
            let largest = p.0 * d.0.abs().max(want.0);
            for (k, (want, largest)) in
                [(of_x, largest), (of_y, of_y.0.abs())].into_iter().enumerate()
            {
                let got = got[k][j].to_f64();
                let unit = ulp(got, Dd(largest.max(want.0.abs()), 0.0), format);
                let error = Dd::sum(got, -want.0).sub(Dd(want.1, 0.0)).0.abs();
                let over = (error - allowed_slopes.1 * p.0) / unit;
                worst_slopes[k] = worst_slopes[k].max(over);
                assert!(
                    over <= allowed_slopes.0[k],
                    "{} of {k}, {n} by {scale}: {got:e}, not {:e}: {over} ULP",
                    T::NAME,
                    want.0
                );
            }
        }
    }
    println!("{}: {worst:.3} ULP (down to {least:e}), gradients {worst_slopes:.3?}", T::NAME);
    assert!(worst > 0.2 && worst_slopes.iter().all(|&worst| worst > 0.2), "errors are measured");
}

#[test]
fn errors_are_within_the_bounds() {
    accurate::<f32>(F32, (0.51, 1e-24), ([0.51; 2], 1e-12));
    accurate::<f64>(F64, (8.0, 1e-31), ([12.0, 8.0], 1e-15));
    accurate::<f16>(F16, (0.51, 1e-24), ([0.51; 2], 1e-12));
    accurate::<bf16>(BF16, (0.51, 1e-24), ([0.51; 2], 1e-12));
}

fn special<T: Bits>(kernel: &'static Kernel) {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let plain = Softmax::new().exec(by(kernel));
    let zero = plain.masked(Masked::Zero);
    let of = |options: Softmax, x: &[f64], y: &[f64]| {
        let [x, y] = [x, y].map(|x| x.iter().map(|&x| T::from_f64(x)).collect::<Vec<_>>());
        let [x, y] = [&x, &y].map(|x| Matrix::with_stride(x, 1, x.len(), x.len()).expect("a row"));
        (divergences(options, x, y)[0], gradients(options, x, y, &[T::from_f64(2.0)]))
    };
    let check = |options, x: &[f64], y: &[f64], kl: f64, of_x: &[f64], of_y: &[f64]| {
        let what = || format!("{} {} {x:?} {y:?}", kernel.name(), T::NAME);
        let (got, gradients) = of(options, x, y);
        let value = |v: &f64| if v.is_nan() { T::NAN } else { T::from_f64(*v) };
        assert_same(&[got], &[value(&kl)], what);
        for (got, want) in gradients.iter().zip([of_x, of_y]) {
            // 0 of either sign.
            let got: Vec<T> = got.iter().map(|g| value(&(g.to_f64() + 0.0))).collect();
            assert_same(&got, &want.iter().map(value).collect::<Vec<_>>(), what);
        }
    };
    for options in [plain, zero] {
        for (x, y) in [
            ([1.0, nan], [1.0, 2.0]),
            ([1.0, 2.0], [nan, 2.0]),
            ([inf, 2.0], [1.0, 2.0]),
            ([1.0, 2.0], [inf, inf]),
            ([nan, inf], [inf, nan]),
            ([-inf, -inf], [1.0, nan]),
            ([-inf, nan], [-inf, -inf]),
            ([-inf, -inf], [inf, 0.0]),
        ] {
            check(options, &x, &y, nan, &[nan; 2], &[nan; 2]);
        }
        // Some of p is where q is 0.
        check(
            options,
            &[5.0, 5.0, -inf],
            &[1.0, -inf, -inf],
            inf,
            &[nan, nan, 0.0],
            &[1.0, -1.0, 0.0],
        );
        check(options, &[5.0, 5.0], &[-inf; 2], inf, &[nan; 2], &[nan; 2]);
        // Where p is 0, q may be anything.
        check(options, &[5.0, -inf], &[1.0, -inf], 0.0, &[0.0; 2], &[0.0; 2]);
        check(options, &[5.0, -inf], &[-7.0, -inf], 0.0, &[0.0; 2], &[0.0; 2]);
        let (kl, [of_x, of_y]) = of(options, &[5.0, -inf], &[3.0, 3.0]);
        assert_eq!(kl.to_f64(), T::from_f64(std::f64::consts::LN_2).to_f64(), "{}", kernel.name());
        assert!(of_x.iter().all(|g| g.to_f64() == 0.0), "{}: {of_x:?}", kernel.name());
        assert_same(&of_y, &[-1.0, 1.0].map(T::from_f64), || kernel.name().into());
        // A single element.
        for (x, y) in [(3.7, 3.7), (0.0, -5e4), (6e4, 1.0)] {
            check(options, &[x], &[y], 0.0, &[0.0], &[0.0]);
            check(options, &[-inf, x], &[-inf, y], 0.0, &[0.0; 2], &[0.0; 2]);
        }
    }
    for n in [0, 1, 40] {
        for y in [-inf, 3.0] {
            let (x, y) = (vec![-inf; n], vec![y; n]);
            check(plain, &x, &y, nan, &vec![nan; n], &vec![nan; n]);
            check(zero, &x, &y, 0.0, &vec![0.0; n], &vec![0.0; n]);
        }
    }
}

#[test]
fn special_values() {
    for kernel in available() {
        special::<f32>(kernel);
        special::<f64>(kernel);
        special::<f16>(kernel);
        special::<bf16>(kernel);
    }
}

/// Rows that are equal, or differ by a number or in the last place.
#[test]
fn rows_that_hardly_differ() {
    fn check<T: Bits>(kernel: &'static Kernel) {
        let mut random = Random(5);
        let softmax = Softmax::new().exec(by(kernel));
        for (kind, cols) in (0..KINDS).flat_map(|kind| [(kind, 3), (kind, 100), (kind, 5000)]) {
            if quick() && cols > 1000 {
                continue;
            }
            // Within the range of f16.
            let x = row::<T>(&mut random, kind, cols);
            let x: Vec<T> = x.iter().map(|x| T::from_f64(x.to_f64().min(6e4))).collect();
            let upstream = [T::from_f64(1.0)];
            let same = [dense(&x, cols); 2];
            assert_eq!(divergences(softmax, same[0], same[1])[0].to_f64(), 0.0);
            for g in gradients(softmax, same[0], same[1], &upstream) {
                assert!(g.iter().all(|g| g.to_f64() == 0.0), "{} {kind}", kernel.name());
            }
            // Multiples of 1/64, to which other ones are added exactly.
            let near = |x: f64| (x.clamp(-2.0, 2.0) * 64.0).round() / 64.0;
            let x: Vec<T> = x.iter().map(|x| T::from_f64(near(x.to_f64()))).collect();
            let y: Vec<T> = x.iter().map(|x| T::from_f64(x.to_f64() - 1.5)).collect();
            let kl = divergences(softmax, dense(&x, cols), dense(&y, cols))[0].to_f64();
            if T::NAME != "bf16" {
                let most = if T::NAME == "f64" { 1e-31 } else { 1e-24 };
                assert!((0.0..=most).contains(&kl), "{} {kind} {cols}: {kl:e}", kernel.name());
            }
        }
    }
    for kernel in available() {
        check::<f32>(kernel);
        check::<f64>(kernel);
        check::<f16>(kernel);
        check::<bf16>(kernel);
    }
}

/// Logits of any size: differences that would overflow, elements that are lost beside others.
#[test]
fn far_rows() {
    let ln2 = std::f64::consts::LN_2;
    for kernel in available() {
        let softmax = Softmax::new().exec(by(kernel));
        let x = [3e38f32, 3e38, 3e38, -3e38, 3e38, -3e38, 100.0, 0.0, 0.0, 1000.0];
        let y = [-3e38f32, -3e38, 0.0, 0.0, -3e38, 3e38, 0.0, 0.0, 0.0, 0.0];
        let kl = divergences(softmax, dense(&x, 2), dense(&y, 2));
        assert_eq!(kl[..2], [0.0, ln2 as f32], "{}", kernel.name());
        assert_eq!(kl[2], f32::INFINITY, "{}", kernel.name());
        assert_eq!(kl[3..], [ln2 as f32; 2], "{}", kernel.name());
        let x = [1.7e308, 1.7e308, 1.7e308, -1.7e308, 0.0, 0.0];
        let y = [-1.7e308, -1.7e308, -1.7e308, -1.7e308, 0.0, -1e300];
        let kl = divergences(softmax, dense(&x, 2), dense(&y, 2));
        assert_eq!(kl[..2], [0.0, ln2], "{}", kernel.name());
        assert!((kl[2] / 5e299 - 1.0).abs() < 1e-15, "{}: {:e}", kernel.name(), kl[2]);
        // Both logits that count are small beside another one, which does not.
        let (x, y) = ([0.0f32, 1e-30, -1e30], [0.0f32, 3e-30, -1e30]);
        let softmax = softmax.scale(2f64.powi(60));
        let got = divergences(softmax, dense(&x, 3), dense(&y, 3))[0];
        let d = 2e-30 * 2f64.powi(60);
        assert!((f64::from(got) / (d * d / 8.0) - 1.0).abs() < 1e-6, "{}: {got:e}", kernel.name());
    }
}

/// Masks and scales below 0 give the bits of rows that were changed by hand.
#[test]
fn changed_rows() {
    let (rows, cols) = (6, 41);
    let mut random = Random(17);
    let x = row::<f32>(&mut random, 0, rows * cols);
    let y: Vec<f32> = x.iter().map(|x| x + random.signed() as f32).collect();
    let seen: Vec<bool> = (0..rows * cols).map(|_| random.below(3) > 0).collect();
    let upstream = [1.0, -0.5, 0.0, 2.0, 1e-3, 1e3];
    let two = Threads::Exactly(NonZeroUsize::new(2).expect("not 0"));
    for kernel in available() {
        let plain = Softmax::new().exec(by(kernel).threads(two)).scale(0.7);
        // One row of the mask for all, or one for each.
        for (of_each, sign) in [(false, 1.0), (false, -1.0), (true, 1.0), (true, -1.0)] {
            let seen = if of_each { &seen[..] } else { &seen[..cols] };
            let hidden = |x: &[f32]| -> Vec<f32> {
                let one = |(i, &x): (usize, &f32)| match seen[i % seen.len()] {
                    true => sign * x,
                    false => -f32::INFINITY,
                };
                x.iter().enumerate().map(one).collect()
            };
            let (by_hand_x, by_hand_y) = (hidden(&x), hidden(&y));
            let by_hand = [dense(&by_hand_x, cols), dense(&by_hand_y, cols)];
            let kl = divergences(plain, by_hand[0], by_hand[1]);
            let slopes = gradients(plain, by_hand[0], by_hand[1], &upstream);
            let slopes = slopes.map(|g| g.iter().map(|g| sign * g + 0.0).collect::<Vec<f32>>());
            let words: Vec<u32> = seen
                .chunks(cols)
                .flat_map(|row| row.chunks(32))
                .map(|seen| seen.iter().enumerate().fold(0, |w, (i, &s)| w | u32::from(s) << i))
                .collect();
            let numbers: Vec<f32> =
                seen.iter().map(|s| if *s { 0.0 } else { -f32::INFINITY }).collect();
            let of = plain.scale(f64::from(sign) * 0.7);
            let bits = of.mask(BitMask::new(&words));
            for of in [of.mask(seen), bits, of.mask(&numbers)] {
                let what = || format!("{} {of_each} {sign}", kernel.name());
                assert_same(&divergences(of, dense(&x, cols), dense(&y, cols)), &kl, what);
                let got = gradients(of, dense(&x, cols), dense(&y, cols), &upstream);
                for (got, want) in got.iter().zip(&slopes) {
                    let got: Vec<f32> = got.iter().map(|g| g + 0.0).collect();
                    assert_same(&got, want, what);
                    let all = got.iter().enumerate();
                    assert!(all.clone().all(|(i, g)| seen[i % seen.len()] || *g == 0.0));
                    assert!(all.clone().any(|(_, g)| *g != 0.0), "{}", what());
                }
            }
        }
        let minus = |x: &[f32]| -> Vec<f32> { x.iter().map(|x| -x).collect() };
        let (minus_x, minus_y) = (minus(&x), minus(&y));
        let want = divergences(plain, dense(&minus_x, cols), dense(&minus_y, cols));
        let got = divergences(plain.scale(-0.7), dense(&x, cols), dense(&y, cols));
        assert_same(&got, &want, || kernel.name().into());
    }
}

#[test]
fn bad_arguments_are_named_and_nothing_is_written() {
    let (x, y, mut kl, mut g) = ([1.0f32; 6], [2.0f32; 8], [7.0f32; 3], [7.0f32; 6]);
    let (of_x, of_y) = (dense(&x, 3), dense(&x, 3));
    let refused = |result: Result<(), Error>, message: &str| {
        let e = result.expect_err(message).to_string();
        assert!(e.contains(message), "{e}");
    };
    let softmax = Softmax::new();
    let count = "number of divergences (one for each row) must be 2, got 3";
    refused(softmax.kl_divergence(of_x, of_y, &mut kl), count);
    refused(softmax.scale(-1.0).kl_divergence(of_x, of_y, &mut kl), count);
    refused(softmax.mask(&[true; 3]).kl_divergence(of_x, of_y, &mut kl), count);
    let kl = &mut kl[..2];
    refused(softmax.kl_divergence(of_x, dense(&y, 4), kl), "logits of q must be 2 x 3, got 2 x 4");
    refused(softmax.kl_divergence(of_x, dense(&x, 2), kl), "logits of q");
    refused(softmax.scale(f64::NAN).kl_divergence(of_x, of_y, kl), "scale");
    refused(softmax.scale(-1e30).kl_divergence(of_x, of_y, kl), "scale");
    refused(softmax.temperature(0.0).kl_divergence(of_x, of_y, kl), "temperature");
    refused(softmax.mask(&[true; 4]).kl_divergence(of_x, of_y, kl), "mask");
    refused(softmax.mask(&[0.5f32; 3]).kl_divergence(of_x, of_y, kl), "mask");
    let mut of = |softmax: Softmax, y, upstream: &[f32], cols, second| {
        let to = Some(MatrixMut::new(&mut g, cols).expect("rows"));
        let (a, b) = if second { (None, to) } else { (to, None) };
        softmax.kl_divergence_backward(of_x, y, upstream, a, b)
    };
    let one = &[1.0; 2];
    refused(of(softmax, of_y, &[1.0; 3], 3, false), "number of upstream gradients (one for each");
    refused(of(softmax, of_y, one, 2, false), "gradient of x must be 2 x 3, got 3 x 2");
    refused(of(softmax.scale(-1.0), of_y, one, 2, true), "gradient of y must be 2 x 3");
    refused(of(softmax, dense(&y, 4), one, 3, true), "logits of q");
    refused(of(softmax.scale(1e30), of_y, one, 3, false), "scale");
    refused(of(softmax.temperature(f64::INFINITY), of_y, one, 3, false), "temperature");
    refused(of(softmax.mask(&[0.5f32; 3]), of_y, one, 3, true), "mask");
    refused(of(softmax.mask(&[true; 2]), of_y, one, 3, true), "mask");
    assert_eq!((kl, g), (&mut [7.0; 2][..], [7.0; 6]));
    let none: &[f32] = &[];
    let empty = Matrix::with_stride(none, 0, 5, 5).expect("no rows");
    assert_eq!(divergences(softmax, empty, empty), none);
    softmax.kl_divergence_backward(empty, empty, &[], None, None).expect("a valid call");
    softmax.kl_divergence_backward(of_x, of_y, one, None, None).expect("a valid call");
}

/// A probability times the factor is far below f64's least normal number, and the gradient is not.
#[test]
fn nothing_is_lost_to_tiny_products() {
    let (scale, up) = (2f64.powi(-60), 1e-10);
    let (x, y) = ([0.0, -660.0 / scale], [0.0, 0.0]);
    let [x, y] = [&x, &y].map(|x| dense(x, 2));
    for kernel in available() {
        let softmax = Softmax::new().scale(scale).exec(by(kernel));
        let [of_x, _] = gradients(softmax, x, y, &[up]);
        // Of the first, p is 1: d and the divergence are ln 2.
        let want = (-660f64).exp() * -660.0 * (scale * up);
        let off = (of_x[1] - want).abs() / f64::from_bits(1);
        assert!(off <= 12.0, "{}: {:e}, not {want:e}", kernel.name(), of_x[1]);
    }
}

/// The same constant on every CPU.
const DIGEST: u64 = 0x7a53_3b1d_c67c_f736;

#[test]
fn digest_is_the_same_on_every_cpu() {
    fn add_to<T: Bits>(digest: &mut Fnv, kernel: &'static Kernel) {
        let mut random = Random(5);
        for kind in 0..KINDS {
            let [x, y] = pairs::<T>(&mut random, kind, 7, 321);
            let softmax = Softmax::new().temperature([1.0, 0.1, 3.0][kind % 3]).exec(by(kernel));
            let [x, y] = [&x, &y].map(|x| dense(x, 321));
            digest.add(&divergences(softmax, x, y));
            let slopes = gradients(softmax, x, y, &[T::from_f64(0.3); 7]);
            slopes.iter().for_each(|slopes| digest.add(slopes));
        }
    }
    for kernel in available() {
        let mut digest = Fnv::default();
        add_to::<f32>(&mut digest, kernel);
        add_to::<f64>(&mut digest, kernel);
        add_to::<f16>(&mut digest, kernel);
        add_to::<bf16>(&mut digest, kernel);
        println!("{} on {}: {:#018x}", kernel.name(), std::env::consts::ARCH, digest.0);
        assert_eq!(digest.0, DIGEST, "{}: {:#018x}", kernel.name(), digest.0);
    }
}
