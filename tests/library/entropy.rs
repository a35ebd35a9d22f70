//! Entropies of rows and their gradient.

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{BitMask, Element, Error, Kernel, Masked, Matrix, MatrixMut, Softmax, Threads};
use softmax_measure::oracle::{BF16, Dd, F16, F32, F64, Format, ulps};
use std::num::NonZeroUsize;

fn entropies<T: Element>(softmax: Softmax, x: Matrix<T>) -> Vec<T> {
    let mut h = vec![T::from_f64(-77.0); x.rows()];
    softmax.entropy(x, &mut h).expect("a valid call");
    h
}

fn gradient<T: Element>(softmax: Softmax, x: Matrix<T>, upstream: &[T]) -> Vec<T> {
    let (rows, cols) = (x.rows(), x.cols());
    let mut y = vec![T::from_f64(-77.0); rows * cols];
    let view = MatrixMut::with_stride(&mut y, rows, cols, cols).expect("a shape");
    softmax.entropy_backward(x, upstream, view).expect("a valid call");
    y
}

/// Rows of which some have special values, and some are nearly certain.
fn rows<T: Element>(random: &mut Random, kind: usize, rows: usize, cols: usize) -> Vec<T> {
    let mut x = Vec::new();
    for _ in 0..rows {
        let mut row = row::<T>(random, kind, cols);
        let at = random.below(cols);
        match random.below(16) {
            0 => row[at] = T::NAN,
            1 => row[at] = T::INFINITY,
            2 => row[at] = T::NEG_INFINITY,
            3 => row.fill(T::NEG_INFINITY),
            // So far above the others, or so far from 0, that little is left of the sums.
            4 => row[at] = T::from_f64(30.0 + 20.0 * random.signed()),
            5 => row[at] = T::from_f64(3000.0),
            6 => row.iter_mut().for_each(|v| *v = T::from_f64(v.to_f64() + 20_000.0)),
            _ => {}
        }
        x.extend(row);
    }
    x
}

fn same_bits<T: Bits>() {
    let two = Threads::Exactly(NonZeroUsize::new(2).expect("not 0"));
    let mut random = Random(31);
    for cols in [1, 2, 7, 8, 15, 16, 17, 33, 64, 65, 130, 333, 1024, 4096, 4097, 9001] {
        for kind in 0..KINDS {
            if quick() && (kind % 3 != 0 || cols > 333) || cols > 4000 && kind % 3 != 1 {
                continue;
            }
            let n = if cols > 4000 { 3 } else { 2 + 400 / cols + random.below(5) };
            let x = rows::<T>(&mut random, kind, n, cols);
            let upstream: Vec<T> = (0..n).map(|_| T::from_f64(random.signed())).collect();
            let stride = cols + 3;
            let mut padded = vec![T::from_f64(5.5); 1 + n * stride];
            for (r, row) in x.chunks(cols).enumerate() {
                padded[1 + r * stride..][..cols].copy_from_slice(row);
            }
            let dense = Matrix::new(&x, cols).expect("a shape");
            let strided = Matrix::with_stride(&padded[1..], n, cols, stride).expect("a shape");
            let masked = if random.once_in(2) { Masked::Zero } else { Masked::Nan };
            let options = Softmax::new().temperature([1.0, 0.3, 7.0][kind % 3]).masked(masked);
            let want = entropies(options.exec(by(scalar())), dense);
            let slopes = gradient(options.exec(by(scalar())), dense, &upstream);
            for kernel in exact() {
                let what = || format!("{} {} {n} x {cols}, kind {kind}", kernel.name(), T::NAME);
                let options = options.exec(by(kernel).threads(Threads::Serial));
                assert_same(&entropies(options, dense), &want, what);
                assert_same(&gradient(options, strided, &upstream), &slopes, what);
                let shared = options.exec(by(kernel).threads(two));
                assert_same(&entropies(shared, strided), &want, what);
                assert_same(&gradient(shared, dense, &upstream), &slopes, what);
                // Each row alone, by a guess of its own.
                let alone = x
                    .chunks(cols)
                    .flat_map(|row| entropies(options, Matrix::new(row, cols).expect("a row")));
                assert_same(&alone.collect::<Vec<_>>(), &want, what);
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

/// The exact entropy, and for each element its slope, with the larger of the two terms of that.
fn oracle(x: &[f64], scale: f64) -> (Dd, Vec<(Dd, f64)>) {
    let top = (0..x.len()).max_by(|&a, &b| x[a].total_cmp(&x[b])).expect("an element");
    let one = Dd(1.0, 0.0);
    let a = Dd(scale, 0.0);
    let far = |v: f64| if v > -1e300 { Dd::sum(x[top], -v).mul(a) } else { Dd(1e6, 0.0) };
    let d: Vec<Dd> = x.iter().map(|&v| far(v)).collect();
    let e: Vec<Dd> =
        d.iter().map(|&d| if d.0 < 740.0 { d.neg().exp() } else { Dd(0.0, 0.0) }).collect();
    let others = (0..x.len()).filter(|&j| j != top).fold(Dd(0.0, 0.0), |s, j| s.add(e[j]));
    let sum = one.add(others);
    let term = |j: usize| if e[j].0 == 0.0 { Dd(0.0, 0.0) } else { e[j].mul(d[j]) };
    let mean = (0..x.len()).fold(Dd(0.0, 0.0), |s, j| s.add(term(j))).div(sum);
    let slope = |j: usize| {
        if e[j].0 == 0.0 {
            return (Dd(0.0, 0.0), 0.0);
        }
        let p = e[j].div(sum).mul(a);
        (p.mul(d[j].sub(mean)), p.0 * d[j].0.max(mean.0))
    };
    (others.ln_1p().add(mean), (0..x.len()).map(slope).collect())
}

/// Rows from nearly certain to uniform, near 0 and far from it.
fn difficult(random: &mut Random, n: usize) -> Vec<f64> {
    let width = 2f64.powi(random.below(14) as i32 - 7);
    let mut x: Vec<f64> = (0..n).map(|_| random.signed() * width).collect();
    if random.once_in(2) {
        x[random.below(n)] += 60.0 * random.signed().abs();
    }
    if random.once_in(2) {
        let at = 2f64.powi(random.below(16) as i32) * random.signed();
        x.iter_mut().for_each(|x| *x += at);
    }
    if random.once_in(4) {
        let equal = x[0];
        x.iter_mut().skip(n / 2).for_each(|x| *x = equal);
    }
    x
}

fn accurate<T: Bits>(format: Format, allowed: f64, allowed_slope: f64) {
    let mut random = Random(8);
    let (mut worst, mut worst_slope) = (0.0f64, 0.0f64);
    // What elements below the cut would add, at most.
    let flushed = |n: usize| n as f64 * if T::NAME == "f64" { 1e-304 } else { 1e-35 };
    let kernel = exact()[0];
    for turn in 0..if quick() { 60 } else { 1500 } {
        let n = if turn % 50 == 0 { 5000 } else { 1 + random.below(300) };
        let x: Vec<T> = difficult(&mut random, n).into_iter().map(T::from_f64).collect();
        let wide: Vec<f64> = x.iter().map(|x| x.to_f64()).collect();
        let scale = [1.0, 0.25, 2.5, 1.0 / 1024.0][turn % 4];
        let softmax = Softmax::new().scale(scale).exec(by(kernel).threads(Threads::Serial));
        let row = Matrix::new(&x, n).expect("a row");
        let (want, slopes) = oracle(&wide, scale);
        let got = entropies(softmax, row)[0].to_f64();
        assert!(got >= 0.0, "{}: {got:e} of {wide:?}", T::NAME);
        if (got - want.0).abs() > flushed(n) {
            let error = ulps(got, want, format);
            worst = worst.max(error);
            assert!(error <= allowed, "{} {n}: {got:e}, not {:e}: {error} ULP", T::NAME, want.0);
        }
        let got = gradient(softmax, row, &[T::from_f64(1.0)]);
        for (got, (want, size)) in got.iter().zip(slopes) {
            let (got, unit) = (got.to_f64(), Dd(size.max(want.0.abs()), 0.0));
            let error = Dd::sum(got, -want.0).sub(Dd(want.1, 0.0)).0.abs();
            let ulp = softmax_measure::oracle::ulp(0.0, unit, format);
            if error > flushed(n) {
                worst_slope = worst_slope.max(error / ulp);
                assert!(error <= allowed_slope * ulp, "{}: {got:e}, {:e}", T::NAME, want.0);
            }
        }
    }
    println!("{}: {worst:.3} ULP, gradient {worst_slope:.3}", T::NAME);
    assert!(worst > 0.2 && worst_slope > 0.2, "errors are measured");
}

#[test]
fn errors_are_within_the_bounds() {
    accurate::<f32>(F32, 3.0, 6.0);
    accurate::<f64>(F64, 5.0, 14.0);
    accurate::<f16>(F16, 0.51, 0.51);
    accurate::<bf16>(BF16, 0.51, 0.51);
}

fn special<T: Bits>(kernel: &'static Kernel) {
    let (inf, nan) = (T::INFINITY.to_f64(), f64::NAN);
    let options = Softmax::new().exec(by(kernel));
    let of = |options: Softmax, x: &[f64]| {
        let x: Vec<T> = x.iter().map(|&x| T::from_f64(x)).collect();
        let row = Matrix::with_stride(&x, 1, x.len(), x.len()).expect("a row");
        let (h, g) = (entropies(options, row), gradient(options, row, &[T::from_f64(2.0)]));
        (h[0], g)
    };
    let zero = options.masked(Masked::Zero);
    for x in [&[1.0, nan][..], &[-inf, nan], &[inf, 2.0], &[inf, inf, -inf], &[nan, inf]] {
        for options in [options, zero] {
            let (h, g) = of(options, x);
            assert_same(&[h], &[T::NAN], || format!("{} {x:?}", kernel.name()));
            assert_same(&g, &vec![T::NAN; x.len()], || format!("{} {x:?}", kernel.name()));
        }
    }
    for x in [&[][..], &[-inf], &[-inf; 40]] {
        let what = || format!("{} {} of -inf", kernel.name(), x.len());
        assert_same(&[of(options, x).0], &[T::NAN], what);
        assert_same(&[of(zero, x).0], &[T::ZERO], what);
        assert_same(&of(options, x).1, &vec![T::NAN; x.len()], what);
        assert_same(&of(zero, x).1, &vec![T::ZERO; x.len()], what);
    }
    // A single element, whatever it is, and beside others that count nothing.
    for x in [&[0.0][..], &[3.7], &[-5e4], &[-inf, 17.0], &[-6e4, 0.1, -inf]] {
        assert_same(&[of(options, x).0], &[T::ZERO], || format!("{} {x:?}", kernel.name()));
    }
    let (h, g) = of(options, &[0.5, -inf, 0.5, -inf]);
    assert_same(&[h], &[T::from_f64(2f64.ln())], || kernel.name().into());
    assert_same(&g, &[T::ZERO; 4], || kernel.name().into());
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

/// Huge rows, and rows beside them that have another guess.
#[test]
fn huge_rows() {
    let x = [3e30f32, 3e30, 1.0, 1.0, 3e30, -3e30, 0.0, 5.0];
    for kernel in available() {
        let h = entropies(Softmax::new().exec(by(kernel)), Matrix::new(&x, 2).expect("rows"));
        let ln2 = std::f32::consts::LN_2;
        assert_eq!(h[..3], [ln2, ln2, 0.0], "{}", kernel.name());
        assert!((h[3] - 0.040_179_6).abs() < 1e-7, "{} {}", kernel.name(), h[3]);
    }
}

/// Masks, scales below 0 and axes give the bits of rows that were changed by hand.
#[test]
fn changed_rows() {
    let (rows, cols) = (6, 41);
    let mut random = Random(17);
    let x = row::<f32>(&mut random, 0, rows * cols);
    let seen: Vec<bool> = (0..cols).map(|_| random.below(3) > 0).collect();
    let hidden = |x: &[f32], sign: f32| -> Vec<f32> {
        let one = |(i, &x): (usize, &f32)| if seen[i % cols] { sign * x } else { -f32::INFINITY };
        x.iter().enumerate().map(one).collect()
    };
    let words: Vec<u32> = seen
        .chunks(32)
        .map(|seen| seen.iter().enumerate().fold(0, |w, (i, &s)| w | u32::from(s) << i))
        .collect();
    let upstream = [1.0, -0.5, 0.0, 2.0, 1e-3, 1e3];
    fn view(x: &[f32]) -> Matrix<'_, f32> {
        Matrix::new(x, 41).expect("rows")
    }
    for kernel in available() {
        let plain = Softmax::new().exec(by(kernel)).scale(0.7);
        let by_hand = |sign| {
            let x = hidden(&x, sign);
            let g = gradient(plain, view(&x), &upstream);
            let g: Vec<f32> = g.iter().map(|g| if sign < 0.0 { g * sign } else { *g }).collect();
            (entropies(plain, view(&x)), g)
        };
        for (sign, scale) in [(1.0, 0.7), (-1.0, -0.7)] {
            let (h, g) = by_hand(sign);
            let numbers: Vec<f32> =
                seen.iter().map(|s| if *s { 0.0 } else { -f32::INFINITY }).collect();
            let of = plain.scale(scale);
            for of in [of.mask(&seen), of.mask(BitMask::new(&words)), of.mask(&numbers)] {
                assert_same(&entropies(of, view(&x)), &h, || kernel.name().into());
                let got = gradient(of, view(&x), &upstream);
                // 0 of either sign where nothing is seen.
                let positive = |g: Vec<f32>| g.iter().map(|g| g + 0.0).collect::<Vec<_>>();
                assert_same(&positive(got), &positive(g.clone()), || kernel.name().into());
            }
            // Along the first axis of the transposed matrix.
            let t: Vec<f32> = (0..rows * cols).map(|i| x[i % rows * cols + i / rows]).collect();
            let mut along = vec![0.0; rows];
            let of = plain.scale(scale).mask(&seen);
            of.entropy_axis(&t, &mut along, &[cols, rows], 0).expect("a valid call");
            assert_same(&along, &h, || kernel.name().into());
        }
    }
    // Numbers that are added.
    let added: Vec<f32> = (0..cols).map(|i| i as f32 * 0.25).collect();
    let sums: Vec<f64> =
        x.iter().enumerate().map(|(i, x)| f64::from(*x) + f64::from(added[i % cols])).collect();
    let got = entropies(Softmax::new().mask(&added), view(&x));
    let want = entropies(Softmax::new(), Matrix::new(&sums, cols).expect("rows"));
    assert_same(&got, &want.iter().map(|&h| h as f32).collect::<Vec<_>>(), || "added".into());
}

#[test]
fn bad_arguments_are_named_and_nothing_is_written() {
    let (x, mut h, mut g) = ([1.0f32; 6], [7.0f32; 3], [7.0f32; 6]);
    let view = Matrix::new(&x, 3).expect("rows");
    let refused = |result: Result<(), Error>, message: &str| {
        let e = result.expect_err(message).to_string();
        assert!(e.contains(message), "{e}");
    };
    let softmax = Softmax::new();
    refused(
        softmax.entropy(view, &mut h),
        "number of entropies (one for each row) must be 2, got 3",
    );
    refused(softmax.scale(-1.0).entropy(view, &mut h), "number of entropies");
    refused(softmax.scale(f64::NAN).entropy(view, &mut h[..2]), "scale");
    refused(softmax.temperature(0.0).entropy(view, &mut h[..2]), "temperature");
    refused(softmax.mask(&[true; 4]).entropy(view, &mut h[..2]), "mask");
    refused(softmax.entropy_axis(&x, &mut h, &[2, 4], 0), "tensor must be 8, got 6");
    let mut of = |softmax: Softmax, upstream: &[f32], cols| {
        softmax.entropy_backward(view, upstream, MatrixMut::new(&mut g, cols).expect("rows"))
    };
    refused(of(softmax, &[1.0; 3], 3), "number of upstream gradients (one for each row) must be 2");
    refused(of(softmax, &[1.0; 2], 2), "gradient");
    refused(of(softmax.scale(-1.0), &[1.0; 2], 2), "gradient");
    refused(of(softmax.scale(1e30), &[1.0; 2], 3), "scale");
    refused(of(softmax.temperature(f64::INFINITY), &[1.0; 2], 3), "temperature");
    refused(of(softmax.mask(&[0.5f32; 3]), &[1.0; 2], 3), "mask");
    refused(of(softmax.mask(&[true; 2]), &[1.0; 2], 3), "mask");
    assert_eq!((h, g), ([7.0; 3], [7.0; 6]));
    let none: &[f32] = &[];
    let empty = Matrix::with_stride(none, 0, 5, 5).expect("no rows");
    assert_eq!(entropies(softmax, empty), none);
    assert_eq!(gradient(softmax, empty, &[]), none);
}

/// Products with elements next to 0 are subnormal, and rounded: by any shift but the row's own they
/// would be others.
#[test]
fn rows_next_to_0() {
    let mut random = Random(3);
    for cols in [1, 2, 3, 17, 100, 5000] {
        for size in [1e-300, 1e-306, 5e-308, 1e-310] {
            let x: Vec<f64> = (0..9 * cols).map(|_| random.signed() * size).collect();
            let view = Matrix::new(&x, cols).expect("rows");
            let of = |kernel| {
                let softmax = Softmax::new().scale(1.5).exec(by(kernel));
                (entropies(softmax, view), gradient(softmax, view, &[1.0; 9]))
            };
            let want = of(scalar());
            for kernel in exact() {
                let (h, slopes) = of(kernel);
                assert_same(&h, &want.0, || format!("{} {cols} {size}", kernel.name()));
                assert_same(&slopes, &want.1, || format!("{} {cols} {size}", kernel.name()));
            }
            let uniform = (cols as f64).ln();
            assert!(want.0.iter().all(|h| (h - uniform).abs() <= 1e-15 * uniform), "{cols} {size}");
        }
    }
}

/// Products of exponentials and differences, or with the factor, that are far below f64's least
/// number where the result is not.
#[test]
fn nothing_is_lost_to_tiny_products() {
    for kernel in available() {
        // Two probabilities, 1 and e^-700.
        let t = 2f64.powi(-78);
        let (softmax, x) = (Softmax::new().temperature(t).exec(by(kernel)), [0.0, -700.0 * t]);
        let h = entropies(softmax, Matrix::new(&x, 2).expect("a row"))[0];
        let want = (-700f64).exp() * 701.0;
        assert!((h / want - 1.0).abs() < 1e-13, "{}: {h:e}, not {want:e}", kernel.name());

        // p is 1e-287, times the factor and the scale 1e-315, and times its logarithm normal.
        let (scale, up) = (2f64.powi(-60), 1e-10);
        let (softmax, x) = (Softmax::new().scale(scale).exec(by(kernel)), [0.0, -660.0 / scale]);
        let slopes = gradient(softmax, Matrix::new(&x, 2).expect("a row"), &[up]);
        let want = (-660f64).exp() * 660.0 * (scale * up);
        let off = (slopes[1] - want).abs() / f64::from_bits(1);
        assert!(off <= 14.0, "{}: {:e}, not {want:e}", kernel.name(), slopes[1]);
    }
}

/// The same constant on every CPU.
const DIGEST: u64 = 0x4763_31b6_8ecb_1ce9;

#[test]
fn digest_is_the_same_on_every_cpu() {
    fn add_to<T: Bits>(digest: &mut Fnv, kernel: &'static Kernel) {
        let mut random = Random(5);
        for kind in 0..KINDS {
            let x = rows::<T>(&mut random, kind, 7, 321);
            let softmax = Softmax::new().temperature([1.0, 0.1, 3.0][kind % 3]).exec(by(kernel));
            let view = Matrix::new(&x, 321).expect("rows");
            digest.add(&entropies(softmax, view));
            digest.add(&gradient(softmax, view, &[T::from_f64(0.3); 7]));
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
