//! Masks on plain rows, and scales below 0, give the bits of rows that the test changed first.

use std::num::NonZeroUsize;

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{
    Attention, Caches, CrossEntropy, Element, Error, Kernel, Mask, MaskData, Masked, Matrix,
    MatrixMut, Partial, Probs, Softmax, Targets, Threads,
};
use softmax_measure::oracle::{BF16, Dd, F16, F32, F64, Format, exact, ulps};

const SHAPES: [[usize; 2]; 9] =
    [[1, 1], [3, 2], [70, 3], [5, 17], [40, 64], [2, 300], [3, 4097], [0, 5], [4, 0]];

/// All options that change the path of a call.
fn ways() -> Vec<Options<'static>> {
    available().into_iter().flat_map(ways_of).collect()
}

fn ways_of(kernel: &'static Kernel) -> [Options<'static>; 2] {
    let two = Threads::Exactly(NonZeroUsize::new(2).expect("not 0"));
    let options = on(kernel, 1.0, Masked::Zero);
    let shared = options.threads(two).caches(Caches::new(1 << 12, 1 << 12));
    [options.threads(Threads::Serial), shared]
}

fn matrix<T: Element>([rows, cols]: [usize; 2]) -> Vec<T> {
    let mut random = Random((rows * 31 + cols) as u64);
    (0..rows).flat_map(|i| row::<T>(&mut random, i % KINDS, cols)).collect()
}

fn view<T>(x: &[T], [rows, cols]: [usize; 2]) -> Matrix<'_, T> {
    Matrix::with_stride(x, rows, cols, cols).expect("a shape")
}

fn view_mut<T>(x: &mut [T], [rows, cols]: [usize; 2]) -> MatrixMut<'_, T> {
    MatrixMut::with_stride(x, rows, cols, cols).expect("a shape")
}

/// Softmax, log-softmax and log-sum-exp, one after the other; in place they must give the same.
fn all<T: Bits>(softmax: Softmax, x: &[T], shape: [usize; 2]) -> Vec<T> {
    let marker = T::from_f64(-77.0);
    let [mut p, mut log, mut lse] = [x.len(), x.len(), shape[0]].map(|n| vec![marker; n]);
    let (mut p2, mut log2) = (x.to_vec(), x.to_vec());
    softmax.softmax(view(x, shape), view_mut(&mut p, shape)).expect("a valid call");
    softmax.softmax_in_place(view_mut(&mut p2, shape)).expect("a valid call");
    softmax.log_softmax(view(x, shape), view_mut(&mut log, shape)).expect("a valid call");
    softmax.log_softmax_in_place(view_mut(&mut log2, shape)).expect("a valid call");
    softmax.logsumexp(view(x, shape), &mut lse).expect("a valid call");
    let what = || format!("in place {shape:?} {softmax:?}");
    assert_same(&p2, &p, what);
    assert_same(&log2, &log, what);
    [p, log, lse].concat()
}

fn hidden<T: Element>(x: &[T], seen: impl Fn(usize) -> bool) -> Vec<T> {
    let x = x.iter().enumerate();
    x.map(|(i, &x)| if seen(i) { x } else { T::NEG_INFINITY }).collect()
}

fn hides<T: Bits + Probs<T>>() {
    for shape @ [rows, cols] in SHAPES {
        let mut x = matrix::<T>(shape);
        let mut random = Random(7);
        let mut seen: Vec<bool> = x.iter().map(|_| !random.once_in(3)).collect();
        // One row has no visible element, and one has all.
        seen.iter_mut().take(cols).for_each(|seen| *seen = false);
        seen.iter_mut().skip(cols).take(cols).for_each(|seen| *seen = true);
        // Hidden elements may have any value.
        x.iter_mut().zip(&seen).filter(|(_, seen)| !**seen).for_each(|(x, _)| *x = T::NAN);
        let added: Vec<f32> =
            seen.iter().map(|seen| if *seen { 0.0 } else { f32::NEG_INFINITY }).collect();
        let one: Vec<u8> = (0..cols).map(|i| u8::from(i % 3 != 1) * 9).collect();
        for options in ways() {
            let what = |op: &'static str| move || format!("{op} {shape:?} {}", T::NAME);
            for scale in [1.0, 0.3, -1.0] {
                let softmax = options.scale(scale).softmax();
                let masked = x.iter().map(|x| T::from_f64(scale.signum() * x.to_f64()));
                let masked: Vec<T> = masked.collect();
                let plain = options.scale(scale.abs()).softmax();
                let want = all(plain, &hidden(&masked, |i| seen[i]), shape);
                assert_same(&all(softmax.mask(&seen), &x, shape), &want, what("bool"));
                assert_same(&all(softmax.mask(&added), &x, shape), &want, what("-inf"));
                let cols = cols.max(1);
                let want = all(plain, &hidden(&masked, |i| i % cols % 3 != 1), shape);
                assert_same(&all(softmax.mask(&one), &x, shape), &want, what("one row"));
            }
        }
        assert_eq!(x.len(), rows * cols);
    }
}

#[test]
fn masks_that_hide_f32() {
    hides::<f32>();
}

#[test]
fn masks_that_hide_f64() {
    hides::<f64>();
}

#[test]
fn masks_that_hide_f16() {
    hides::<f16>();
}

#[test]
fn masks_that_hide_bf16() {
    hides::<bf16>();
}

/// A mask of numbers; some rows only hide, and some also hide.
fn numbers([rows, cols]: [usize; 2]) -> Vec<f64> {
    let mut random = Random(11);
    let number = |random: &mut Random, kind: usize| match (kind % 4, random.below(4)) {
        (0, 0) | (2, 0) => f64::NEG_INFINITY,
        (0, _) => 0.0,
        // These have so few digits that every type can hold them.
        _ => (random.signed() * 64.0).round() / 16.0,
    };
    (0..rows).flat_map(|r| (0..cols).map(move |_| r)).map(|r| number(&mut random, r)).collect()
}

/// Compares with attention and the oracle; `log` is the tolerance for logarithms.
fn adds<T: Bits + Probs<T>>(format: Format, ulp: f64, absolute: f64) {
    for shape @ [rows, cols] in SHAPES {
        let (mut x, mask) = (matrix::<T>(shape), numbers(shape));
        // A row of infinities has no logarithms.
        x.iter_mut().filter(|x| x.to_f64().is_infinite()).for_each(|x| *x = T::ZERO);
        let f32s: Vec<f32> = mask.iter().map(|m| *m as f32).collect();
        let f16s: Vec<f16> = f32s.iter().map(|m| f16::from_f32(*m)).collect();
        let bf16s: Vec<bf16> = f32s.iter().map(|m| bf16::from_f32(*m)).collect();
        let mut masks: Vec<MaskData> = vec![(&f32s).into(), (&f16s).into(), (&bf16s).into()];
        if T::NAME == "f64" {
            masks.push((&mask).into());
        }
        for scale in [1.0, 0.37, -2.0] {
            let mut first = Vec::new();
            for options in ways() {
                let options = options.scale(scale);
                for mask in &masks {
                    let got = all(options.softmax().mask(*mask), &x, shape);
                    if first.is_empty() {
                        first = got.clone();
                    }
                    assert_same(&got, &first, || format!("{mask:?} {shape:?} {options:?}"));
                }
            }
            let sign: f64 = if scale < 0.0 { -1.0 } else { 1.0 };
            let turned: Vec<T> = x.iter().map(|x| T::from_f64(sign * x.to_f64())).collect();
            let mut want = vec![T::ZERO; x.len()];
            let attention = Attention::new(1, rows.max(1)).masked(Masked::Zero).scale(scale.abs());
            if rows > 0 {
                let attention = attention.mask(Mask::new(&f32s, [1, 1, rows]));
                attention.softmax(view(&turned, shape), view_mut(&mut want, shape)).expect("valid");
            }
            let (n, what) = (x.len(), || format!("attention {shape:?} {scale}"));
            assert_same(&first[..n], &want, what);
            for row in 0..rows {
                let at = row * cols..(row + 1) * cols;
                let logits: Vec<f64> = x[at.clone()]
                    .iter()
                    .zip(&mask[at.clone()])
                    .map(|(x, m)| x.to_f64().mul_add(scale, *m))
                    .collect();
                if logits.iter().all(|z| *z == f64::NEG_INFINITY) {
                    continue;
                }
                let want = exact(&logits, 1.0);
                let near = |got: T, want: Dd| {
                    let got = got.to_f64();
                    if !want.0.is_finite() || !got.is_finite() {
                        assert!(got == want.0 || want.0.abs() > 6e4, "{got} for {want:?}");
                        return;
                    }
                    let error = Dd::sum(got, -want.0).add(Dd(-want.1, 0.0)).0.abs();
                    let off = ulps(got, want, format);
                    assert!(off <= ulp || error <= absolute, "{got} for {want:?}: {off} ULP");
                };
                let log = &first[n..2 * n][at];
                log.iter().zip(&want.log_softmax).for_each(|(got, want)| near(*got, *want));
                near(first[2 * n + row], want.logsumexp);
            }
        }
    }
}

#[test]
fn masks_that_add_f32() {
    adds::<f32>(F32, 2.0, 1e-7);
}

#[test]
fn masks_that_add_f64() {
    adds::<f64>(F64, 3.0, 3e-16);
}

#[test]
fn masks_that_add_f16() {
    adds::<f16>(F16, 0.51, 1e-7);
}

#[test]
fn masks_that_add_bf16() {
    adds::<bf16>(BF16, 0.51, 1e-7);
}

/// All three operations refuse it.
#[test]
fn what_is_odd_in_a_masked_row() {
    const INF: f32 = f32::INFINITY;
    let check = |x: [f32; 2], mask: [f32; 2], masked, want: [f32; 5]| {
        let same = |got: f32, want: f32| got.to_bits() == want.to_bits();
        for kernel in available() {
            let softmax = on(kernel, 1.0, masked).softmax().mask(&mask);
            let got = all(softmax, &x, [1, 2]);
            let all = got.iter().zip(want).all(|(got, want)| same(*got, want));
            assert!(all, "{x:?} with {mask:?}: {got:?}, not {want:?}");
        }
    };
    let nan = f32::from_bits(0x7fc0_0000);
    let nothing = [nan, nan, nan, nan, -INF];
    check([1.0, nan], [-INF, -INF], Masked::Nan, nothing);
    check([1.0, INF], [-INF, -INF], Masked::Zero, [0.0, 0.0, -INF, -INF, -INF]);
    check([-INF, -INF], [1.0, 2.0], Masked::Nan, nothing);
    check([-INF, 5.0], [1.0, 2.0], Masked::Nan, [0.0, 1.0, -INF, 0.0, 7.0]);
    check([1.0, 2.0], [0.5, INF], Masked::Zero, [nan, nan, nan, nan, INF]);
    check([1.0, INF], [0.5, 1.0], Masked::Zero, [nan, nan, nan, nan, INF]);
    check([1.0, 2.0], [0.5, nan], Masked::Zero, [nan; 5]);
    check([1.0, nan], [0.5, 1.0], Masked::Zero, [nan; 5]);
    check([1.0, -INF], [0.5, INF], Masked::Zero, [nan; 5]);
    check([1.0, nan], [2.0, -INF], Masked::Nan, [1.0, 0.0, 0.0, -INF, 3.0]);
}

#[test]
fn masks_along_an_axis() {
    let shape = [3usize, 5, 4];
    let [outer, len, inner] = shape;
    let x = matrix::<f32>([outer * len, inner]);
    let each = numbers([outer * len, inner]).iter().map(|m| *m as f32).collect::<Vec<_>>();
    let one: Vec<bool> = (0..len).map(|i| i != 2).collect();
    let turned = |x: &[f32]| -> Vec<f32> {
        let lanes = (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i)));
        lanes.flat_map(|(o, i)| (0..len).map(move |k| x[(o * len + k) * inner + i])).collect()
    };
    let rows = [outer * inner, len];
    let moved = turned(&each);
    let same: [(Softmax, Softmax); 3] = [
        (Softmax::new().mask(&one), Softmax::new().mask(&one)),
        (Softmax::new().mask(&each), Softmax::new().mask(&moved)),
        (Softmax::new().scale(-0.5), Softmax::new().scale(-0.5)),
    ];
    for (along, by_rows) in same {
        let want = all(by_rows, &turned(&x), rows);
        let mut got = Vec::new();
        let mut y = vec![0.0; x.len()];
        along.softmax_axis(&x, &mut y, &shape, 1).expect("a valid call");
        got.extend(turned(&y));
        along.log_softmax_axis(&x, &mut y, &shape, 1).expect("a valid call");
        got.extend(turned(&y));
        let mut lse = vec![0.0; outer * inner];
        along.logsumexp_axis(&x, &mut lse, &shape, 1).expect("a valid call");
        got.extend(&lse);
        assert_same(&got, &want, || format!("{along:?}"));
        // The same tensor with another order of axes.
        let view = ndarray::ArrayView::from_shape(shape, &x).expect("a shape");
        let mut memory = ndarray::Array::zeros([len, inner, outer]);
        memory.assign(&view.permuted_axes([1, 2, 0]));
        let view = memory.view().permuted_axes([2, 0, 1]);
        let mut z = ndarray::Array::zeros(shape);
        along.log_softmax_array(view, z.view_mut(), 1).expect("a valid call");
        assert_same(z.as_slice().expect("C order"), &y, || format!("views {along:?}"));
        let mut z = memory.clone();
        along
            .log_softmax_array_in_place(z.view_mut().permuted_axes([2, 0, 1]), 1)
            .expect("a valid call");
        let z: Vec<f32> = z.view().permuted_axes([2, 0, 1]).iter().copied().collect();
        assert_same(&z, &y, || format!("views in place {along:?}"));
        let mut z = ndarray::Array::zeros([outer, inner]);
        along.logsumexp_array(view, z.view_mut(), 1).expect("a valid call");
        assert_same(z.as_slice().expect("C order"), &lse, || format!("views {along:?}"));
    }
}

#[test]
fn masks_that_do_not_fit_are_named_and_nothing_is_written() {
    let (x, mut y) = ([0.0f32; 6], [-7.0f32; 6]);
    let refused = |result: Result<(), Error>, message: &str| {
        let e = result.expect_err(message);
        assert!(e.to_string().contains(message), "{e}");
    };
    let softmax = Softmax::new();
    for n in [0, 2, 4, 5, 7, 12] {
        let mask = vec![true; n];
        let softmax = softmax.mask(&mask);
        let message = "mask (a row for all, or one for each) must be 2 x 3, got";
        refused(softmax.softmax(view(&x, [2, 3]), view_mut(&mut y, [2, 3])), message);
        refused(softmax.log_softmax(view(&x, [2, 3]), view_mut(&mut y, [2, 3])), message);
        refused(softmax.softmax_in_place(view_mut(&mut y, [2, 3])), message);
        refused(softmax.logsumexp(view(&x, [2, 3]), &mut y[..2]), message);
        if n != 2 {
            refused(softmax.softmax_axis(&x, &mut y, &[2, 3], 0), "must be 6, got");
            refused(softmax.logsumexp_axis(&x, &mut y[..3], &[2, 3], 0), "must be 6, got");
        }
    }
    let wide = softmax.mask(&[0.0f64; 3]);
    let message = "mask's elements must be at most 4, but for rows of f64, got 8";
    refused(wide.softmax(view(&x, [2, 3]), view_mut(&mut y, [2, 3])), message);
    refused(wide.logsumexp(view(&x, [2, 3]), &mut y[..2]), message);
    let mask = Mask::new(&[0.0f64; 3], [1, 1, 1]);
    let attention = Attention::new(1, 2).mask(mask);
    refused(attention.softmax(view(&x, [2, 3]), view_mut(&mut y, [2, 3])), message);
    let some = softmax.mask(&[true; 3]);
    refused(some.softmax(view(&x, [2, 3]), view_mut(&mut y, [3, 2])), "output must be 2 x 3");
    refused(some.logsumexp(view(&x, [2, 3]), &mut y[..1]), "log-sum-exps");
    for t in [0.0, f64::INFINITY, -1.0] {
        let some = some.temperature(t);
        refused(some.softmax(view(&x, [2, 3]), view_mut(&mut y, [2, 3])), "temperature must be");
    }
    for scale in [-0.0, -1e-30, -1e30, f64::NEG_INFINITY, -f64::NAN] {
        let softmax = softmax.scale(scale);
        refused(softmax.softmax(view(&x, [2, 3]), view_mut(&mut y, [2, 3])), "scale must be");
    }
    assert_eq!(y, [-7.0; 6]);
}

/// Every operation with a scale gives the bits of `-x` with its absolute value.
fn negative<T: Bits + Probs<T>>()
where
    T::Arithmetic: Bits,
{
    for shape @ [rows, cols] in SHAPES {
        let x = matrix::<T>(shape);
        let minus: Vec<T> = x.iter().map(|x| T::from_f64(-x.to_f64())).collect();
        let k = cols.min(3);
        let zero = <T::Arithmetic as Element>::ZERO;
        let labels: Vec<i64> =
            (0..rows).map(|i| if i % 5 == 2 { -100 } else { (i % cols.max(1)) as i64 }).collect();
        let probs: Vec<T> = x.iter().map(|_| T::from_f64(1.0 / cols as f64)).collect();
        let tokens: Vec<usize> = (0..rows * k).map(|i| i % cols).collect();
        let factors: Vec<f64> = (0..rows).map(|i| i as f64 - 1.0).collect();
        for options in ways() {
            let run = |scale: f64, x: &[T]| {
                let options = options.scale(scale);
                let mut out = vec![all(options.softmax(), x, shape)];
                let mut y = vec![T::ZERO; x.len()];
                let (sigmoid, mut z) = (options.sigmoid(), x.to_vec());
                sigmoid.sigmoid(view(x, shape), view_mut(&mut y, shape)).expect("valid");
                out.push(y.clone());
                sigmoid.log_sigmoid(view(x, shape), view_mut(&mut y, shape)).expect("valid");
                sigmoid.log_sigmoid_in_place(view_mut(&mut z, shape)).expect("valid");
                assert_same(&z, &y, || "log-sigmoid in place".to_owned());
                out.push(y.clone());
                let (mut values, mut indices) = (vec![zero; rows * k], vec![9; rows * k]);
                let mut lse = vec![zero; rows];
                let mut arithmetic: Vec<T::Arithmetic> = Vec::new();
                options.top_k(k).probs(view(x, shape), &mut values, &mut indices).expect("valid");
                arithmetic.extend(&values);
                options
                    .top_k(k)
                    .log_probs(view(x, shape), &mut values, &mut indices)
                    .expect("valid");
                arithmetic.extend(&values);
                let log_probs = options.log_probs();
                log_probs.log_probs(view(x, shape), &tokens, &mut values).expect("valid");
                arithmetic.extend(&values);
                log_probs
                    .log_probs_and_logsumexp(view(x, shape), &tokens, &mut values, &mut lse)
                    .expect("valid");
                arithmetic.extend(values.iter().chain(&lse));
                (out.concat(), arithmetic, indices)
            };
            let what = || format!("{shape:?} {} {options:?}", T::NAME);
            let (got, want) = (run(-0.3, &x), run(0.3, &minus));
            assert_same(&got.0, &want.0, what);
            assert_same(&got.1, &want.1, what);
            assert_eq!(got.2, want.2);
            // The gradient is with respect to x, not to -x.
            let same = |got: &[T], want: &[T]| {
                let want: Vec<f64> = want.iter().map(|y| -y.to_f64()).collect();
                for (got, want) in got.iter().zip(want) {
                    let got = got.to_f64();
                    assert!(got == want || got.is_nan() && want.is_nan(), "{got}: {}", what());
                }
            };
            let loss = |scale: f64| options.scale(scale).cross_entropy().row_factors(&factors);
            let run = |loss: CrossEntropy, x: &[T], targets: Targets<T>| {
                let (mut losses, mut y) = (vec![9.0; rows], vec![T::ZERO; x.len()]);
                let (mut again, mut z) = (losses.clone(), x.to_vec());
                loss.losses(view(x, shape), targets, &mut again).expect("valid");
                loss.losses_and_gradient(
                    view(x, shape),
                    targets,
                    &mut losses,
                    view_mut(&mut y, shape),
                )
                .expect("valid");
                assert_same(&again, &losses, what);
                loss.losses_and_gradient_in_place(view_mut(&mut z, shape), targets, &mut again)
                    .expect("valid");
                assert_same(&again, &losses, what);
                assert_same(&z, &y, what);
                (losses, y)
            };
            // Rows without columns have no labels.
            let all = [Targets::Probs(view(&probs, shape)), Targets::Labels(&labels)];
            for targets in all.into_iter().take(if cols == 0 { 1 } else { 2 }) {
                let got = run(loss(-0.3), &x, targets);
                let want = run(loss(0.3), &minus, targets);
                assert_same(&got.0, &want.0, what);
                same(&got.1, &want.1);
            }
            for log in [false, true] {
                if cols > 0 {
                    let got = backward(&options.scale(-0.3), log, &probs, &x, cols);
                    same(&got, &backward(&options.scale(0.3), log, &probs, &x, cols));
                }
            }
        }
    }
}

#[test]
fn scales_below_0_f32() {
    negative::<f32>();
}

#[test]
fn scales_below_0_f64() {
    negative::<f64>();
}

#[test]
fn scales_below_0_f16() {
    negative::<f16>();
}

#[test]
fn scales_below_0_bf16() {
    negative::<bf16>();
}

/// The gradient of the mean, and along an axis.
#[test]
fn losses_along_an_axis_with_a_scale_below_0() {
    let x = [1.0f32, 5.0, -2.0, 0.5, 3.0, 4.0];
    let (labels, loss) = ([0, 1, 1], CrossEntropy::new().scale(-0.5));
    let (mut losses, mut gradient) = ([0.0; 3], [0.0f32; 6]);
    loss.losses_and_gradient_axis(&x, &labels, &mut losses, &mut gradient, &[2, 3], 0)
        .expect("valid");
    let turned = [x[0], x[3], x[1], x[4], x[2], x[5]];
    let (mut want, mut by_rows) = ([0.0; 3], [0.0f32; 6]);
    loss.losses_and_gradient(
        view(&turned, [3, 2]),
        &labels,
        &mut want,
        view_mut(&mut by_rows, [3, 2]),
    )
    .expect("valid");
    assert_eq!(losses, want);
    let g = by_rows;
    assert_eq!(gradient, [g[0], g[2], g[4], g[1], g[3], g[5]]);
    let mean = loss.loss(view(&turned, [3, 2]), &labels).expect("valid");
    assert_eq!(mean, losses.iter().sum::<f64>() / 3.0);
}

/// Attention with all options, of scores whose hidden elements may be anything.
fn attention_below_0<T: Bits, U: Bits + Probs<T>>()
where
    T::Arithmetic: Bits,
{
    let (heads, queries) = (2, 3);
    let (slopes, sinks) = ([0.25f32, 0.5], [1.0f32, -2.0]);
    // The longest rows do not fit the memory in which some are negated at a time.
    for keys in [1, 17, 300, if quick() { 500 } else { 60_000 }] {
        let (shape, lengths) = ([2 * heads * queries, keys], [keys, keys / 2]);
        let x = matrix::<T>(shape);
        let minus: Vec<T> = x.iter().map(|x| T::from_f64(-x.to_f64())).collect();
        let added: Vec<f32> = (0..keys).map(|i| [0.5, f32::NEG_INFINITY, -1.0][i % 3]).collect();
        // The reference takes long.
        let kernels = if keys > 1000 { crate::common::exact() } else { available() };
        for options in kernels.into_iter().flat_map(ways_of) {
            let run = |scale: f64, x: &[T], which: usize| {
                let plain = options.scale(scale).attention(heads, queries);
                let attention = match which {
                    0 => plain,
                    1 => plain.causal().lengths(&lengths),
                    _ => plain
                        .soft_cap(30.0)
                        .mask(Mask::new(&added[..], [1, 1, 1]))
                        .mask_slopes(&slopes)
                        .alibi(&slopes)
                        .sinks(&sinks)
                        .window(keys / 2 + 1),
                };
                let (mut y, mut lse) =
                    (vec![U::ZERO; x.len()], vec![<T::Arithmetic>::ZERO; shape[0]]);
                let to = view_mut(&mut y, shape);
                attention.softmax_and_logsumexp(view(x, shape), to, &mut lse).expect("valid");
                (y, lse)
            };
            for which in 0..3 {
                let what = || format!("{shape:?} {} to {} {which} {options:?}", T::NAME, U::NAME);
                let (got, want) = (run(-0.3, &x, which), run(0.3, &minus, which));
                assert_same(&got.0, &want.0, what);
                assert_same(&got.1, &want.1, what);
            }
            let differ = |(a, b): (&U, &U)| a.bits() != b.bits();
            let (plus, minus) = (run(0.3, &x, 0).0, run(-0.3, &x, 0).0);
            assert!(plus.iter().zip(&minus).any(differ) || keys == 1);
        }
    }
}

#[test]
fn attention_with_a_scale_below_0() {
    attention_below_0::<f32, f32>();
    attention_below_0::<f32, bf16>();
    attention_below_0::<f16, f32>();
    attention_below_0::<f16, f16>();
    attention_below_0::<f64, f64>();
}

#[test]
fn attention_in_place_with_a_scale_below_0() {
    let shape = [6, 700];
    let x = matrix::<f32>(shape);
    for options in ways() {
        let attention = options.scale(-0.3).attention(2, 3).causal();
        let (mut y, mut z) = (x.clone(), x.clone());
        attention.softmax(view(&x, shape), view_mut(&mut y, shape)).expect("valid");
        attention.softmax_in_place(view_mut(&mut z, shape)).expect("valid");
        assert_same(&z, &y, || format!("{options:?}"));
    }
}

/// Scales out of range are refused in either sign.
#[test]
fn attention_and_shards_refuse_other_scales() {
    for scale in [-0.0, -1e-30, -1e30, f64::NEG_INFINITY, -f64::NAN] {
        let options = Options::new().scale(scale);
        let (mut x, mut partials) = ([1.0f32; 2], [Partial::NOTHING]);
        let y = MatrixMut::new(&mut x, 2).expect("a shape");
        let e = options.attention(1, 1).softmax_in_place(y).expect_err("out of range");
        assert!(e.to_string().starts_with("the scale must be"), "{e}");
        let e = options.shards().partials(&x, None, &mut partials).expect_err("out of range");
        assert!(e.to_string().starts_with("the scale must be"), "{e}");
        let e = options.shards().merge::<f32>(&partials).expect_err("out of range");
        assert!(e.to_string().starts_with("the scale must be"), "{e}");
        assert_eq!((x, partials), ([1.0; 2], [Partial::NOTHING]));
    }
}
