//! Routers: the choice of experts and their weights.

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{Element, Error, GroupScore, Kernel, Masked, Matrix, Router, Scoring, Threads};
use softmax_measure::oracle::{Dd, F32, F64, Format, ulps};
use std::num::NonZeroUsize;

/// The experts and the weights.
fn route<T: Element>(router: Router, x: Matrix<T>, k: usize) -> (Vec<u32>, Vec<T::Arithmetic>) {
    let n = x.rows() * k;
    let (mut experts, mut weights) = (vec![u32::MAX; n], vec![T::Arithmetic::from_f64(-77.0); n]);
    router.route(x, &mut weights, &mut experts).expect("a valid call");
    (experts, weights)
}

/// Any options for so many experts, with this bias or none; and `k`.
fn any<'a>(random: &mut Random, cols: usize, bias: &'a [f32]) -> (Router<'a>, usize) {
    let divisors: Vec<_> = (1..=cols).filter(|n| cols.is_multiple_of(*n)).collect();
    let groups = divisors[random.below(divisors.len())];
    let limit = 1 + random.below(groups);
    let in_groups = random.once_in(3);
    let most = if in_groups { limit * (cols / groups) } else { cols };
    let k = if random.once_in(4) { 1 + random.below(most) } else { most.min(1 + random.below(9)) };
    let scoring = if random.once_in(2) { Scoring::Sigmoid } else { Scoring::Softmax };
    let mut router = Router::new(k)
        .scoring(scoring)
        .renormalize(random.once_in(2))
        .scaling_factor([1.0, 2.5, 1.0, -0.3][random.below(4)])
        .masked(if random.once_in(2) { Masked::Zero } else { Masked::Nan });
    if random.once_in(3) {
        router = router.bias(bias);
    }
    if in_groups {
        let score = if random.once_in(2) { GroupScore::TopTwo } else { GroupScore::Largest };
        router = router.groups(groups, limit).group_score(score);
    }
    (router, k)
}

/// Rows with ties, NaN, infinities; some of nothing but -inf.
fn rows<T: Element>(random: &mut Random, kind: usize, rows: usize, cols: usize) -> Vec<T> {
    let mut x = Vec::new();
    for r in 0..rows {
        let mut row = row::<T>(random, kind, cols);
        let special = [row[0], T::NEG_INFINITY, T::INFINITY, T::NAN, T::from_f64(-f64::NAN)];
        for &v in &special[..if r % 3 == 1 { 1 + random.below(5) } else { 0 }] {
            row[random.below(cols)] = v;
        }
        match random.below(12) {
            0 => row.fill(T::NEG_INFINITY),
            // Equal logits, and fewer than k that are not -inf.
            1 => row.iter_mut().for_each(|v| *v = T::from_f64(random.below(3) as f64)),
            2 => row.iter_mut().skip(random.below(4)).for_each(|v| *v = T::NEG_INFINITY),
            _ => {}
        }
        x.extend(row);
    }
    x
}

fn same_bits<T: Bits>()
where
    T::Arithmetic: Bits,
{
    let two = Threads::Exactly(NonZeroUsize::new(2).expect("not 0"));
    let mut random = Random(22);
    for cols in [1, 2, 7, 8, 16, 17, 31, 64, 65, 128, 256, 300, 520] {
        for kind in 0..KINDS {
            if quick() && (kind % 3 != 0 || cols > 65) {
                continue;
            }
            let n = [1, 3, 4, 15, 16, 17, 33, 150][(kind + cols) % if cols > 65 { 7 } else { 8 }];
            let x = rows::<T>(&mut random, kind, n, cols);
            let bias: Vec<f32> = (0..cols).map(|_| random.signed() as f32).collect();
            // With a stride, at another alignment.
            let stride = cols + 3;
            let mut padded = vec![T::from_f64(5.5); 1 + n * stride];
            for (r, row) in x.chunks(cols).enumerate() {
                padded[1 + r * stride..][..cols].copy_from_slice(row);
            }
            let dense = Matrix::new(&x, cols).expect("a shape");
            let strided = Matrix::with_stride(&padded[1..], n, cols, stride).expect("a shape");
            for _ in 0..if cols > 65 { 1 } else { 3 } {
                let (router, k) = any(&mut random, cols, &bias);
                let want = route(router.exec(by(scalar())), dense, k);
                for kernel in exact() {
                    let what = format!("{} {} {n} x {cols}: {router:?}", kernel.name(), T::NAME);
                    let check = |got: (Vec<u32>, Vec<_>)| {
                        assert_eq!(got.0, want.0, "{what}");
                        assert_same(&got.1, &want.1, || what.clone());
                    };
                    check(route(router.exec(by(kernel).threads(Threads::Serial)), dense, k));
                    check(route(router.exec(by(kernel).threads(two)), strided, k));
                    // Each row alone.
                    let alone = x.chunks(cols).map(|row| {
                        let row = Matrix::new(row, cols).expect("a row");
                        route(router.exec(by(kernel)), row, k)
                    });
                    let (experts, weights): (Vec<_>, Vec<_>) = alone.unzip();
                    check((experts.concat(), weights.concat()));
                }
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

/// Experts of a row in the order of values, the largest first, of equals the first.
fn in_order(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<_> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    order
}

/// Weights without a factor that are not renormalised have the bits of softmax and sigmoid, and
/// renormalised ones of a softmax those of the softmax of the chosen logits.
#[test]
fn weights_are_those_of_the_functions() {
    let (rows, cols, k) = (50, 64, 8);
    let mut random = Random(5);
    let x = row::<f32>(&mut random, 0, rows * cols);
    let matrix = Matrix::new(&x, cols).expect("a shape");
    let mut probs = x.clone();
    softmax::softmax_rows_in_place(&mut probs, cols).expect("a valid call");
    let mut sigmoids = x.clone();
    softmax::sigmoid_in_place(&mut sigmoids).expect("a valid call");
    let check = |router: Router, scores: Option<&[f32]>| {
        let (experts, weights) = route(router, matrix, k);
        for r in 0..rows {
            let row = &x[r * cols..][..cols];
            let wide: Vec<f64> = row.iter().map(|&x| x.into()).collect();
            let experts = &experts[r * k..][..k];
            let want: Vec<u32> = in_order(&wide)[..k].iter().map(|&i| i as u32).collect();
            assert_eq!(experts, want);
            let of = |values: &[f32]| experts.iter().map(|&i| values[i as usize]).collect();
            let want: Vec<f32> = match scores {
                Some(scores) => of(&scores[r * cols..][..cols]),
                None => {
                    let chosen: Vec<f32> = of(row);
                    let mut probs = chosen.clone();
                    softmax::softmax(&chosen, &mut probs).expect("a valid call");
                    probs
                }
            };
            assert_same(&weights[r * k..][..k], &want, || format!("row {r}"));
        }
    };
    check(Router::new(k), Some(&probs));
    check(Router::new(k).scoring(Scoring::Sigmoid), Some(&sigmoids));
    check(Router::new(k).renormalize(true), None);
    // A bias that changes nothing, and groups that leave all experts.
    let zeros = [0.0; 64];
    check(Router::new(k).bias(&zeros), Some(&probs));
    check(Router::new(k).groups(4, 4), Some(&probs));
    let routed = Router::new(k).bias(&zeros).groups(8, 8).renormalize(true);
    check(routed, None);
}

/// The gate of DeepSeek-V3 (its technical report, section 2.1.2), in f64 from the exact sigmoids
/// that are rounded as the library rounds them: experts, and weights by the oracle.
#[test]
fn deepseek_v3() {
    let (rows, cols, k) = (if quick() { 20 } else { 300 }, 256, 8);
    let mut random = Random(3);
    let x = row::<f32>(&mut random, 0, rows * cols);
    let bias: Vec<f32> = (0..cols).map(|_| 0.1 * random.signed() as f32).collect();
    let router = Router::new(k).scoring(Scoring::Sigmoid).bias(&bias).groups(8, 4);
    let router = router.renormalize(true).scaling_factor(2.5);
    let (experts, weights) = route(router, Matrix::new(&x, cols).expect("a shape"), k);
    for (r, row) in x.chunks(cols).enumerate() {
        let mut scores = row.to_vec();
        softmax::sigmoid_in_place(&mut scores).expect("a valid call");
        let mut biased: Vec<f64> = scores.iter().zip(&bias).map(|(s, b)| (s + b).into()).collect();
        let of_group = |group: &[f64]| {
            let order = in_order(group);
            f64::from(group[order[0]] as f32 + group[order[1]] as f32)
        };
        let groups: Vec<f64> = biased.chunks(32).map(of_group).collect();
        for &g in &in_order(&groups)[4..] {
            biased[g * 32..][..32].fill(f64::NEG_INFINITY);
        }
        let want: Vec<u32> = in_order(&biased)[..k].iter().map(|&i| i as u32).collect();
        let experts = &experts[r * k..][..k];
        assert_eq!(experts, want, "row {r}");
        let chosen: Vec<f64> = experts.iter().map(|&i| row[i as usize].into()).collect();
        let exact = renormalised(&chosen);
        for (&got, exact) in weights[r * k..][..k].iter().zip(exact) {
            let error = ulps(got.into(), exact.mul(Dd(2.5, 0.0)), F32);
            assert!(error <= 8.0, "row {r}: {error} ULP");
        }
    }
}

/// The sigmoids of logits divided by their sum.
fn renormalised(x: &[f64]) -> Vec<Dd> {
    let one = Dd(1.0, 0.0);
    let sigmoid = |&x: &f64| one.div(one.add(Dd(-x, 0.0).exp()));
    let s: Vec<Dd> = x.iter().map(sigmoid).collect();
    let sum = s.iter().fold(Dd(0.0, 0.0), |sum, &s| sum.add(s));
    s.iter().map(|s| s.div(sum)).collect()
}

fn worst<T: Bits>(format: Format, factor: f64) -> f64
where
    T::Arithmetic: Bits,
{
    let (rows, cols) = (if quick() { 100 } else { 3000 }, 16);
    let mut random = Random(7);
    let mut worst = 0.0f64;
    for (k, width) in [(1, 1.0), (2, 0.1), (2, 4.0), (5, 10.0), (16, 3.0)] {
        let x: Vec<T> =
            (0..rows * cols).map(|_| T::from_f64(random.signed() * width - width / 2.0)).collect();
        let router = Router::new(k).scoring(Scoring::Sigmoid).renormalize(true);
        let router = router.scaling_factor(factor);
        let (experts, weights) = route(router, Matrix::new(&x, cols).expect("a shape"), k);
        for (r, row) in x.chunks(cols).enumerate() {
            let experts = &experts[r * k..][..k];
            let chosen: Vec<f64> = experts.iter().map(|&i| row[i as usize].to_f64()).collect();
            for (got, exact) in weights[r * k..][..k].iter().zip(renormalised(&chosen)) {
                let exact = exact.mul(Dd(factor, 0.0));
                worst = worst.max(ulps(got.to_f64(), exact, format));
            }
        }
    }
    worst
}

#[test]
fn renormalised_sigmoids_are_as_accurate_as_promised() {
    for factor in [1.0, 2.5, 0.7] {
        let (single, half, double) =
            (worst::<f32>(F32, factor), worst::<bf16>(F32, factor), worst::<f64>(F64, factor));
        println!("factor {factor}: f32 {single:.2}, bf16 {half:.2}, f64 {double:.2} ULP");
        assert!(single <= 8.0 && half <= 8.0 && double <= 10.0, "{single} {half} {double}");
        // A test of rounding errors finds some.
        assert!(single > 0.5 && double > 0.5, "{single} {double}");
    }
}

/// With a factor, softmax has one rounding more.
#[test]
fn a_factor_adds_a_rounding() {
    let (rows, cols, k) = (400, 32, 4);
    let mut random = Random(9);
    let x = row::<f32>(&mut random, 0, rows * cols);
    let matrix = Matrix::new(&x, cols).expect("a shape");
    for renormalize in [false, true] {
        let plain = Router::new(k).renormalize(renormalize);
        let (experts, weights) = route(plain, matrix, k);
        let (same, scaled) = route(plain.scaling_factor(2.5), matrix, k);
        assert_eq!(experts, same);
        let want: Vec<f32> = weights.iter().map(|w| (f64::from(*w) * 2.5) as f32).collect();
        assert_same(&scaled, &want, || "scaled".into());
    }
}

#[test]
fn special_rows() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let one = |router: Router, x: &[f32], k: usize| {
        let (experts, weights) = route(router, Matrix::new(x, x.len()).expect("a row"), k);
        (experts, weights.iter().map(|w| w.to_bits()).collect::<Vec<_>>())
    };
    let bits = |w: [f32; 2]| w.map(f32::to_bits).to_vec();
    let no = bits([nan, nan]);
    // The same alone and among other rows.
    let check = |router: Router, x: [f32; 4], experts: [u32; 2], weights: [f32; 2]| {
        let want = (experts.to_vec(), bits(weights));
        for kernel in available() {
            let router = router.exec(by(kernel));
            assert_eq!(one(router, &x, 2), want, "{}: {router:?} of {x:?}", kernel.name());
            let mut many = [0.0; 4 * 20];
            many[4 * 7..][..4].copy_from_slice(&x);
            let (e, w) = route(router, Matrix::new(&many, 4).expect("rows"), 2);
            let w: Vec<_> = w[14..16].iter().map(|w| w.to_bits()).collect();
            assert_eq!((e[14..16].to_vec(), w), want, "{}: {router:?} of {x:?}", kernel.name());
        }
    };
    let (plain, sigmoid) = (Router::new(2), Router::new(2).scoring(Scoring::Sigmoid));
    for router in [plain, sigmoid, plain.renormalize(true), sigmoid.renormalize(true)] {
        let grouped = router.groups(2, 1);
        for router in [router, grouped, router.bias(&[0.0, 1.0, 0.0, 0.0])] {
            check(router, [1.0, -nan, 3.0, 4.0], [0, 1], [nan; 2]);
            check(router, [inf, -inf, 3.0, nan], [0, 1], [nan; 2]);
        }
    }
    // +inf and -inf in a row are no NaN.
    for router in [plain, plain.renormalize(true)] {
        check(router, [inf, -inf, 3.0, 4.0], [0, 3], [nan; 2]);
        check(router, [-inf, 5.0, inf, -inf], [2, 1], [nan; 2]);
        check(router, [-inf; 4], [0, 1], [nan; 2]);
        check(router.masked(Masked::Zero), [-inf; 4], [0, 1], [0.0; 2]);
        check(router, [-inf, -inf, -inf, 4.0], [3, 0], [1.0, 0.0]);
        let biased = router.bias(&[0.0, 0.0, 1.0, 0.5]);
        check(biased, [inf, -inf, 3.0, 4.0], [0, 1], [nan; 2]);
        check(biased, [-inf; 4], [0, 1], [nan; 2]);
        check(biased.masked(Masked::Zero), [-inf; 4], [2, 3], [0.0; 2]);
    }
    check(sigmoid, [inf, -inf, 0.0, -inf], [0, 2], [1.0, 0.5]);
    check(sigmoid, [-inf; 4], [0, 1], [0.0; 2]);
    check(sigmoid.renormalize(true), [-inf; 4], [0, 1], [0.0; 2]);
    check(sigmoid.renormalize(true), [-inf, 5.0, -inf, -inf], [1, 0], [1.0, 0.0]);
    // The order of logits, where scores are equal after rounding.
    check(sigmoid, [40.0, 50.0, 60.0, 30.0], [2, 1], [1.0; 2]);
    // Sums of large logits overflow, which is no NaN.
    let huge = f32::MAX;
    check(sigmoid, [huge, huge, -inf, -huge], [0, 1], [1.0; 2]);
    assert_eq!(no, bits([f32::from_bits(0x7fc0_0000); 2]));
}

#[test]
fn lower_experts_first_among_equals() {
    for kernel in available() {
        let x = vec![1.0f32; 40 * 70];
        let x = Matrix::new(&x, 70).expect("a shape");
        let first: Vec<u32> = (0..40).flat_map(|_| 0..9).collect();
        for router in [Router::new(9), Router::new(9).groups(7, 2), Router::new(9).bias(&[0.5; 70])]
        {
            assert_eq!(route(router.exec(by(kernel)), x, 9).0, first, "{}", kernel.name());
        }
    }
}

#[test]
fn what_does_not_fit_is_named_and_nothing_is_written() {
    let x = [0.0f32; 24];
    let m = || Matrix::new(&x, 12).expect("a shape");
    let (mut weights, mut experts) = ([7.0f32; 6], [7; 6]);
    let nan = [0.0, f32::NAN, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let router = Router::new(3);
    let mut refused = |router: Router, n: usize, of: usize, message: &str| {
        let e = router.route(m(), &mut weights[..n], &mut experts[..of]).expect_err(message);
        assert!(e.to_string().contains(message), "{e}");
        assert_eq!((weights, experts), ([7.0; 6], [7; 6]));
    };
    refused(router, 5, 6, "number of weights must be 6, got 5");
    refused(router, 6, 5, "number of experts' indices must be 6, got 5");
    refused(Router::new(13), 6, 6, "at most the number of experts, got 13");
    refused(router.bias(&[0.0; 11]), 6, 6, "number of biases must be 12, got 11");
    refused(router.bias(&nan), 6, 6, "bias of expert 1 must be finite, got NaN");
    refused(router.scaling_factor(f64::INFINITY), 6, 6, "scaling factor must be finite, got inf");
    refused(router.groups(5, 1), 6, 6, "divisor of that of experts, got 5");
    refused(router.groups(0, 0), 6, 6, "divisor of that of experts, got 0");
    refused(router.groups(4, 0), 6, 6, "from 1 to the number of groups, got 0");
    refused(router.groups(4, 5), 6, 6, "from 1 to the number of groups, got 5");
    refused(router.groups(6, 1), 6, 6, "as many groups as the limit, got 3");
    let wide = vec![0.0f32; 4097];
    let wide = Matrix::new(&wide, 4097).expect("a shape");
    let e = Router::new(1).route(wide, &mut [0.0], &mut [0]).expect_err("too many experts");
    assert!(matches!(e, Error::Value { what: "number of experts", .. }), "{e}");

    // Nothing to do.
    let empty = Matrix::<f32>::new(&[], 3).expect("a shape");
    router.route(empty, &mut [], &mut []).expect("no rows");
    Router::new(0).route(m(), &mut [], &mut []).expect("no experts wanted");
    let none = Matrix::<f32>::with_stride(&[], 2, 0, 0).expect("a shape");
    Router::new(0).route(none, &mut [], &mut []).expect("no experts");
    Router::new(0).groups(1, 1).route(none, &mut [], &mut []).expect("no experts in a group");
}

#[test]
fn most_experts() {
    let mut random = Random(1);
    let x = row::<f32>(&mut random, 1, 5 * 4096);
    let x = Matrix::new(&x, 4096).expect("a shape");
    for k in [3, if quick() { 20 } else { 500 }] {
        for router in [Router::new(k), Router::new(k).groups(4096, 4096).renormalize(true)] {
            let want = route(router.exec(by(scalar())), x, k);
            for kernel in exact() {
                let got = route(router.exec(by(kernel)), x, k);
                assert_eq!(got.0, want.0, "{}", kernel.name());
                assert_same(&got.1, &want.1, || kernel.name().into());
            }
        }
    }
}

const DIGEST: u64 = 0x654b_cf53_349e_0207;

#[test]
fn digest_is_the_same_on_every_cpu() {
    fn add_to<T: Bits>(digest: &mut Fnv, kernel: &'static Kernel)
    where
        T::Arithmetic: Bits,
    {
        let mut random = Random(78);
        for kind in 0..KINDS {
            let x = rows::<T>(&mut random, kind, 19, 48);
            let bias: Vec<f32> = (0..48).map(|_| random.signed() as f32).collect();
            let (router, k) = any(&mut random, 48, &bias);
            let x = Matrix::new(&x, 48).expect("a shape");
            let (experts, weights) = route(router.exec(by(kernel)), x, k);
            digest.add(&experts.iter().map(|&i| f64::from(i)).collect::<Vec<_>>());
            digest.add(&weights);
        }
    }
    for kernel in available() {
        let mut digest = Fnv::default();
        add_to::<f32>(&mut digest, kernel);
        add_to::<f64>(&mut digest, kernel);
        add_to::<f16>(&mut digest, kernel);
        add_to::<bf16>(&mut digest, kernel);
        assert_eq!(digest.0, DIGEST, "{}: {:#018x}", kernel.name(), digest.0);
    }
}

/// It would take forever to look at each.
#[test]
fn any_number_of_rows_without_experts() {
    let none = Matrix::<f32>::with_stride(&[], 1 << 60, 0, 0).expect("no elements");
    for kernel in available() {
        Router::new(0).exec(by(kernel)).route(none, &mut [], &mut []).expect("a valid call");
    }
}
