//! Log-sum-exp with weights, and class weights of f64.

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{CrossEntropy, Element, Error, Masked, Matrix, MatrixMut, Softmax, Targets};
use softmax_measure::oracle::{BF16, Dd, F16, F32, F64, Format, exact, ulps};

fn weighted<T: Element>(softmax: Softmax, x: &[T], w: &[f64], cols: usize) -> Vec<T> {
    let x = Matrix::with_stride(x, x.len() / cols, cols, cols).expect("a shape");
    let mut y = vec![T::from_f64(-77.0); x.rows()];
    softmax.logsumexp_weighted(x, w, &mut y).expect("a valid call");
    y
}

/// Integer weights count as that many equal elements; powers of two among them add logarithms.
fn against_copies<T: Bits>(format: Format, allowed_ulp: f64) {
    let ln_2 = Dd(std::f64::consts::LN_2, 2.319_046_813_846_299_6e-17);
    let mut random = Random(3);
    let mut worst = 0.0f64;
    for n in [1, 2, 3, 17, 300, 5000] {
        for kind in 0..KINDS {
            let mut x: Vec<T> = row(&mut random, kind, n);
            x.iter_mut().filter(|x| x.to_f64() == f64::INFINITY).for_each(|x| *x = T::ZERO);
            x[0] = T::from_f64(1.5);
            for power in [0, -3, 200, -1000, 900] {
                let whole: Vec<usize> =
                    (0..n).map(|i| if i == 0 { 3 } else { random.below(5) }).collect();
                let power_of_2 = f64::from_bits(((1023 + power) as u64) << 52);
                let w: Vec<f64> = whole.iter().map(|&w| w as f64 * power_of_2).collect();
                let copies = x.iter().zip(&whole).flat_map(|(x, &w)| vec![x.to_f64(); w]);
                let want = exact(&copies.collect::<Vec<_>>(), 1.0).logsumexp;
                let want = want.add(ln_2.mul(Dd(f64::from(power), 0.0)));
                let mut seen = x.clone();
                // An element without weight may have any value.
                seen.iter_mut().zip(&w).filter(|(_, w)| **w == 0.0).for_each(|(x, _)| *x = T::NAN);
                let got = weighted(Softmax::new(), &seen, &w, n)[0].to_f64();
                let error = Dd::sum(got, -want.0).add(Dd(-want.1, 0.0)).0.abs();
                let ulp = error / ulps(got, want, format).max(1e-300);
                let off = ulps(got, want, format);
                let off = if off > 0.0 { off - 5e-16 / ulp } else { 0.0 };
                assert!(off <= allowed_ulp, "{n} of kind {kind}: {got} for {want:?}, {off} ULP");
                worst = worst.max(off);
            }
        }
    }
    println!("{}: {worst:.3} ULP besides 5e-16", T::NAME);
}

#[test]
fn weights_are_as_copies_f32() {
    against_copies::<f32>(F32, 0.51);
}

#[test]
fn weights_are_as_copies_f64() {
    against_copies::<f64>(F64, 1.0);
}

#[test]
fn weights_are_as_copies_f16() {
    against_copies::<f16>(F16, 0.51);
}

#[test]
fn weights_are_as_copies_bf16() {
    against_copies::<bf16>(BF16, 0.51);
}

#[test]
fn weights_far_apart_and_odd_rows() {
    const INF: f64 = f64::INFINITY;
    let softmax = Softmax::new();
    let of = |x: [f64; 2], w: [f64; 2]| weighted(softmax, &x, &w, 2)[0];
    assert_eq!(of([0.0, 700.0], [1e300, 1e-300]), 1e300f64.ln());
    assert_eq!(of([0.0, 3.0], [5e-324, 0.0]), 5e-324f64.ln());
    assert_eq!(of([1e308, -1e308], [1.0, 1.0]), 1e308);
    assert_eq!(of([-1e308, -1e308], [0.5, 0.5]), -1e308);
    assert_eq!(of([-700.0, -700.0], [1.0, 3.0]), -700.0 + 4f64.ln());
    assert_eq!(of([f64::NAN, 2.0], [0.0, 1.0]), 2.0);
    assert_eq!(of([-INF, 2.0], [1e300, 1.0]), 2.0);
    assert_eq!(of([INF, 2.0], [1e-300, 1.0]), INF);
    assert_eq!(of([INF, 2.0], [0.0, 0.0]), -INF);
    assert_eq!(of([-INF, -INF], [1.0, 2.0]), -INF);
    for x in [[f64::NAN, 1.0], [INF, f64::NAN]] {
        assert_eq!(of(x, [1.0, 1.0]).to_bits(), 0x7ff8 << 48);
    }
    let empty: [f64; 0] = [];
    let x = Matrix::with_stride(&empty, 2, 0, 0).expect("a shape");
    let mut y = [7.0; 2];
    softmax.logsumexp_weighted(x, &empty, &mut y).expect("a valid call");
    assert_eq!(y, [-INF; 2]);
}

/// One row of weights for all, or one for each; scales, masks, types of weights, threads.
#[test]
fn options_beside_weights() {
    let (rows, cols) = (300, 700);
    let mut random = Random(5);
    let x: Vec<f32> = (0..rows).flat_map(|i| row::<f32>(&mut random, i % KINDS, cols)).collect();
    let w: Vec<f32> = (0..rows * cols).map(|_| random.signed().abs() as f32).collect();
    let wide: Vec<f64> = w.iter().map(|w| f64::from(*w)).collect();
    let seen: Vec<bool> = w.iter().map(|w| *w < 0.7).collect();
    let hidden: Vec<f64> =
        wide.iter().map(|w| if *w < f64::from(0.7f32) { *w } else { 0.0 }).collect();
    let two = softmax::Threads::Exactly(2.try_into().expect("not 0"));
    let each: Vec<f32> = (0..rows)
        .map(|i| {
            weighted(Softmax::new(), &x[i * cols..][..cols], &wide[i * cols..][..cols], cols)[0]
        })
        .collect();
    for kernel in available() {
        let options = on(kernel, 1.0, Masked::Nan).threads(two);
        let softmax = options.softmax();
        assert_eq!(weighted(softmax, &x, &wide, cols), each, "{}", kernel.name());
        let mut narrow = vec![0.0f32; rows];
        let view = Matrix::new(&x, cols).expect("a shape");
        softmax.logsumexp_weighted(view, &w, &mut narrow).expect("a valid call");
        assert_eq!(narrow, each);
        let masked = weighted(softmax.mask(&seen), &x, &wide, cols);
        assert_eq!(masked, weighted(softmax, &x, &hidden, cols));
        let minus: Vec<f32> = x.iter().map(|x| -x).collect();
        let want = weighted(options.scale(0.3).softmax(), &minus, &wide[..cols], cols);
        assert_eq!(weighted(options.scale(-0.3).softmax(), &x, &wide[..cols], cols), want);
    }
}

#[test]
fn weights_that_do_not_fit_are_named_and_nothing_is_written() {
    let mut y = [-7.0f32; 2];
    let mut refused = |w: &[f64], y_len: usize, message: &str| {
        let x = Matrix::new(&[0.0f32; 6], 3).expect("a shape");
        let e: Error = Softmax::new().logsumexp_weighted(x, w, &mut y[..y_len]).expect_err(message);
        assert!(e.to_string().contains(message), "{e}");
    };
    refused(&[1.0; 2], 2, "weights (a row for all, or one for each) must be 2 x 3, got 2");
    refused(&[1.0; 3], 1, "log-sum-exps");
    refused(&[1.0, -1.0, 0.0], 2, "weight 1 must be finite and not negative, got -1");
    refused(&[1.0, 1.0, f64::NAN], 2, "weight 2 must be");
    refused(&[f64::INFINITY, 1.0, 1.0], 2, "weight 0 must be");
    let x = Matrix::new(&[0.0f32; 6], 3).expect("a shape");
    let e = Softmax::new().mask(&[true]).logsumexp_weighted(x, &[1.0; 3], &mut y);
    assert!(e.expect_err("a mask").to_string().contains("mask"));
    let e = Softmax::new().scale(0.0).logsumexp_weighted(x, &[1.0; 3], &mut y);
    assert!(e.expect_err("a scale").to_string().contains("scale"));
    assert_eq!(y, [-7.0; 2]);
}

/// Class weights of f64 that f32 can hold give the same bits as those of f32; others give the same
/// bits in all kernels.
fn class_weights<T: Bits>() {
    for cols in [1, 2, 7, 8, 9, 16, 17, 40, 4097] {
        let rows = 3;
        let mut random = Random(cols as u64);
        let x: Vec<T> = (0..rows).flat_map(|_| row::<T>(&mut random, 0, cols)).collect();
        let q: Vec<T> = x.iter().map(|_| T::from_f64(random.signed().abs())).collect();
        let narrow: Vec<f32> = (0..cols).map(|i| (i % 5) as f32 * 0.3).collect();
        let wide: Vec<f64> = narrow.iter().map(|w| f64::from(*w)).collect();
        let fine: Vec<f64> = (0..cols).map(|_| random.signed().abs()).collect();
        let labels: Vec<i64> = (0..rows).map(|i| (i * 3 % cols) as i64).collect();
        let view = |x| Matrix::new(x, cols).expect("a shape");
        let run = |loss: CrossEntropy, targets: Targets<T>| {
            let (mut losses, mut gradient) = (vec![9.0; rows], vec![T::ZERO; x.len()]);
            let to = MatrixMut::new(&mut gradient, cols).expect("a shape");
            loss.losses_and_gradient(view(&x), targets, &mut losses, to).expect("a valid call");
            losses.extend(gradient.iter().map(|g| g.to_f64()));
            losses
        };
        for smoothing in [0.0, 0.1] {
            for targets in [Targets::Labels(&labels), Targets::Probs(view(&q))] {
                let loss = CrossEntropy::new().label_smoothing(smoothing);
                let mut first: Option<[Vec<f64>; 2]> = None;
                for kernel in available() {
                    let loss = loss.exec(by(kernel));
                    let what = || format!("{cols} columns, {} {}", T::NAME, kernel.name());
                    let by_wide = run(loss.weights(&wide), targets);
                    assert_same(&by_wide, &run(loss.weights(&narrow), targets), what);
                    let by_fine = run(loss.weights(&fine), targets);
                    let [same, fine] = first.get_or_insert([by_wide.clone(), by_fine.clone()]);
                    assert_same(&by_wide, same, what);
                    assert_same(&by_fine, fine, what);
                }
            }
        }
    }
}

#[test]
fn class_weights_of_f64() {
    class_weights::<f32>();
    class_weights::<f64>();
    class_weights::<f16>();
    class_weights::<bf16>();
    let loss = CrossEntropy::new().weights(&[1.0, f64::NAN]);
    let mut losses = [-7.0];
    let e = loss.losses(Matrix::new(&[0.0f32; 2], 2).expect("a shape"), &[0], &mut losses);
    let message = "weight of class 1 must be finite and not negative, got NaN";
    assert!(e.expect_err("a NaN").to_string().contains(message));
    assert_eq!(losses, [-7.0]);
    let mean = CrossEntropy::new().weights(&[0.1, 0.7]).divisor(&[0, 1, 1], 2).expect("in range");
    assert_eq!(mean, 0.1 + 0.7 + 0.7);
}
