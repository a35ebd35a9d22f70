//! Operations along an axis that are done by rows give the bits of moving the axis to the end
//! first.

use std::num::NonZeroUsize;

use crate::common::*;
use ndarray::{Array, ArrayView, Axis, Ix2, Ix3, s};
use softmax::half::{bf16, f16};
use softmax::{
    ArrayTargets, Caches, CrossEntropy, Element, Error, Masked, Matrix, MatrixMut, Targets,
    Threads, Ties,
};

/// Sizes before, along and after the axis. The last shapes are larger than what is copied at a
/// time.
const SHAPES: [[usize; 3]; 12] = [
    [1, 1, 1],
    [2, 3, 1],
    [3, 1, 5],
    [5, 7, 3],
    [3, 17, 17],
    [1, 64, 300],
    [2, 4097, 18],
    [1, 300, 1001],
    [20_000, 7, 2],
    [0, 3, 5],
    [3, 5, 0],
    [1, 140_000, 3],
];

fn tensor<T: Element>([outer, axis, inner]: [usize; 3], kind: usize) -> Vec<T> {
    let mut random = Random((outer * 31 + axis * 7 + inner + kind * 1_000_003) as u64);
    (0..outer * axis).flat_map(|i| row::<T>(&mut random, (kind + i) % KINDS, inner)).collect()
}

/// The tensor with its axis moved to the end; or, of a tensor that has it there, back to the
/// middle.
fn moved<T: Copy>(x: &[T], [outer, len, inner]: [usize; 3]) -> Vec<T> {
    let at = |o: usize, i: usize, k: usize| (o * len + k) * inner + i;
    let lanes = (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i)));
    lanes.flat_map(|(o, i)| (0..len).map(move |k| x[at(o, i, k)])).collect()
}

fn moved_back<T: Copy>(x: &[T], [outer, len, inner]: [usize; 3]) -> Vec<T> {
    moved(x, [outer, inner, len])
}

fn rows<T>(x: &[T], [outer, len, inner]: [usize; 3]) -> Matrix<'_, T> {
    Matrix::with_stride(x, outer * inner, len, len).expect("rows")
}

fn rows_mut<T>(x: &mut [T], [outer, len, inner]: [usize; 3]) -> MatrixMut<'_, T> {
    MatrixMut::with_stride(x, outer * inner, len, len).expect("rows")
}

/// The expected results of all operations.
struct Expected<T: Element> {
    logsumexp: Vec<T>,
    hardmax: Vec<T>,
    argmax: Vec<usize>,
    top: Vec<usize>,
    log_probs: Vec<T::Arithmetic>,
    probs: Vec<T::Arithmetic>,
    /// Of the tokens of [`tokens`]; and log-sum-exps beside them.
    picked: Vec<T::Arithmetic>,
    lse: Vec<T::Arithmetic>,
    /// Against labels, and against probabilities.
    by_labels: Losses<T>,
    by_probs: Losses<T>,
    limit: Vec<T>,
}

struct Losses<T> {
    each: Vec<f64>,
    reduced: f64,
    gradient: Vec<T>,
}

/// How many elements of a lane are picked.
fn k_of(len: usize) -> usize {
    len.min(3)
}

fn labels(n: usize, len: usize) -> Vec<i64> {
    (0..n).map(|i| if i % 7 == 3 { -100 } else { (i * 5 % len) as i64 }).collect()
}

/// `k` tokens of each of `n` lanes.
fn tokens(n: usize, k: usize, len: usize) -> Vec<usize> {
    (0..n * k).map(|i| i * 11 % len).collect()
}

fn probs<T: Element>(n: usize) -> Vec<T> {
    (0..n).map(|i| T::from_f64((i % 5) as f64 / 8.0)).collect()
}

fn factors(n: usize) -> Vec<f64> {
    (0..n).map(|i| 1.0 + (i % 5) as f64).collect()
}

fn loss<'a>(options: &Options<'a>, factors: &'a [f64]) -> CrossEntropy<'a> {
    options.cross_entropy().label_smoothing(0.1).row_factors(factors)
}

fn expected<T: Element>(options: &Options, x: &[T], shape: [usize; 3]) -> Expected<T> {
    let [outer, len, inner] = shape;
    let (n, k) = (outer * inner, k_of(len));
    let (x, picked) = (moved(x, shape), [outer, k, inner]);
    let zero = <T::Arithmetic as Element>::ZERO;
    let mut e = Expected {
        logsumexp: vec![T::ZERO; n],
        hardmax: vec![T::ZERO; x.len()],
        argmax: vec![0; n],
        top: vec![0; n * k],
        log_probs: vec![zero; n * k],
        probs: vec![zero; n * k],
        picked: vec![zero; n * k],
        lse: vec![zero; n],
        by_labels: Losses { each: vec![0.0; n], reduced: 0.0, gradient: vec![T::ZERO; x.len()] },
        by_probs: Losses { each: vec![0.0; n], reduced: 0.0, gradient: vec![T::ZERO; x.len()] },
        limit: vec![T::ZERO; x.len()],
    };
    let m = rows(&x, shape);
    let hardmax = options.hardmax(Ties::First);
    options.softmax().logsumexp(m, &mut e.logsumexp).expect("a valid call");
    hardmax.hardmax(m, rows_mut(&mut e.hardmax, shape)).expect("a valid call");
    hardmax.argmax(m, &mut e.argmax).expect("a valid call");
    let top = options.top_k(k);
    top.log_probs_and_probs(m, &mut e.log_probs, &mut e.probs, &mut e.top).expect("a valid call");
    let tokens = moved(&tokens(n, k, len), picked);
    let log_probs = options.log_probs();
    log_probs.log_probs_and_logsumexp(m, &tokens, &mut e.picked, &mut e.lse).expect("valid");
    let (labels, factors, probs) = (labels(n, len), factors(n), moved(&probs::<T>(x.len()), shape));
    let loss = loss(options, &factors);
    for (to, targets) in [
        (&mut e.by_labels, Targets::from(&labels)),
        (&mut e.by_probs, Targets::from(rows(&probs, shape))),
    ] {
        let gradient = rows_mut(&mut to.gradient, shape);
        loss.losses_and_gradient(m, targets, &mut to.each, gradient).expect("a valid call");
        to.reduced = loss.loss(m, targets).expect("a valid call");
        to.gradient = moved_back(&to.gradient, shape);
    }
    let cold = options.softmax().temperature(0.0);
    cold.log_softmax(m, rows_mut(&mut e.limit, shape)).expect("a valid call");
    e.top = moved_back(&e.top, picked);
    e.log_probs = moved_back(&e.log_probs, picked);
    e.probs = moved_back(&e.probs, picked);
    e.hardmax = moved_back(&e.hardmax, shape);
    e.picked = moved_back(&e.picked, picked);
    e.limit = moved_back(&e.limit, shape);
    e
}

fn same_f64(got: &[f64], want: &[f64], what: impl Fn() -> String) {
    assert_same(got, want, what);
}

fn slices<T: Bits>(options: &Options, x: &[T], shape: [usize; 3], want: &Expected<T>)
where
    T::Arithmetic: Bits,
{
    let [outer, len, inner] = shape;
    let (n, k) = (outer * inner, k_of(len));
    let what = |op: &'static str| move || format!("{op} {shape:?} {} {options:?}", T::NAME);
    let zero = <T::Arithmetic as Element>::ZERO;
    let mut y = vec![T::ZERO; n];
    options.softmax().logsumexp_axis(x, &mut y, &shape, 1).expect("a valid call");
    assert_same(&y, &want.logsumexp, what("logsumexp"));
    let (mut y, mut z) = (vec![T::ZERO; x.len()], x.to_vec());
    let hardmax = options.hardmax(Ties::First);
    hardmax.hardmax_axis(x, &mut y, &shape, -2).expect("a valid call");
    hardmax.hardmax_axis_in_place(&mut z, &shape, 1).expect("a valid call");
    assert_same(&y, &want.hardmax, what("hardmax"));
    assert_same(&z, &want.hardmax, what("hardmax in place"));
    let cold = options.softmax().temperature(0.0);
    cold.log_softmax_axis(x, &mut y, &shape, 1).expect("a valid call");
    assert_same(&y, &want.limit, what("log-softmax at 0"));
    let mut indices = vec![9; n];
    hardmax.argmax_axis(x, &mut indices, &shape, 1).expect("a valid call");
    assert_eq!(indices, want.argmax, "{}", what("argmax")());
    let (top, mut indices) = (options.top_k(k), vec![9; n * k]);
    top.indices_axis(x, &mut indices, &shape, 1).expect("a valid call");
    assert_eq!(indices, want.top, "{}", what("top k")());
    let mut values = vec![zero; n * k];
    indices.fill(9);
    top.log_probs_axis(x, &mut values, &mut indices, &shape, 1).expect("a valid call");
    assert_same(&values, &want.log_probs, what("top log-probabilities"));
    assert_eq!(indices, want.top, "{}", what("top k")());
    top.probs_axis(x, &mut values, &mut indices, &shape, 1).expect("a valid call");
    assert_same(&values, &want.probs, what("top probabilities"));
    let (log_probs, tokens) = (options.log_probs(), tokens(n, k, len));
    values.fill(zero);
    log_probs.log_probs_axis(x, &tokens, &mut values, &shape, 1).expect("a valid call");
    assert_same(&values, &want.picked, what("log-probabilities"));
    values.fill(zero);
    let mut lse = vec![zero; n];
    log_probs
        .log_probs_and_logsumexp_axis(x, &tokens, &mut values, &mut lse, &shape, -2)
        .expect("a valid call");
    assert_same(&values, &want.picked, what("log-probabilities beside log-sum-exps"));
    assert_same(&lse, &want.lse, what("log-sum-exps"));
    let (labels, factors, probs) = (labels(n, len), factors(n), probs::<T>(x.len()));
    let (loss, mut losses) = (loss(options, &factors), vec![9.0; n]);
    let probs = Matrix::with_stride(&probs, x.len(), 1, 1).expect("a shape");
    for (targets, want) in
        [(Targets::from(&labels), &want.by_labels), (Targets::from(probs), &want.by_probs)]
    {
        let gradient = |y: &mut Vec<T>, op| {
            assert_same(y, &want.gradient, what(op));
            y.copy_from_slice(x);
        };
        losses.fill(9.0);
        loss.losses_axis(x, targets, &mut losses, &shape, 1).expect("a valid call");
        same_f64(&losses, &want.each, what("losses"));
        losses.fill(9.0);
        loss.losses_and_gradient_axis(x, targets, &mut losses, &mut y, &shape, 1).expect("valid");
        same_f64(&losses, &want.each, what("losses beside gradients"));
        gradient(&mut y, "gradient beside losses");
        losses.fill(9.0);
        loss.losses_and_gradient_axis_in_place(&mut y, targets, &mut losses, &shape, 1)
            .expect("a valid call");
        same_f64(&losses, &want.each, what("losses beside gradients in place"));
        gradient(&mut y, "gradient beside losses in place");
        let reduced = [
            loss.loss_axis(x, targets, &shape, 1),
            loss.gradient_axis_in_place(&mut y, targets, &shape, 1),
        ];
        gradient(&mut y, "gradient in place");
        let last = loss.gradient_axis(x, targets, &mut y, &shape, 1);
        gradient(&mut y, "gradient");
        for reduced in reduced.into_iter().chain([last]) {
            same_f64(&[reduced.expect("a valid call")], &[want.reduced], what("reduced loss"));
        }
    }
}

/// Views with the axes in another order, one of them backwards, with gaps in the results.
fn arrays<T: Bits>(options: &Options, x: &[T], shape: [usize; 3], want: &Expected<T>)
where
    T::Arithmetic: Bits,
{
    let [outer, len, inner] = shape;
    let k = k_of(len);
    let what = |op: &'static str| move || format!("{op} of views {shape:?} {}", T::NAME);
    let zero = <T::Arithmetic as Element>::ZERO;
    // In memory the axis is first and the others are in reverse order.
    let view = ArrayView::from_shape((outer, len, inner), x).expect("a shape");
    let mut memory = Array::from_elem((len, inner, outer), T::ZERO);
    memory.slice_mut(s![.., .., ..;-1]).assign(&view.permuted_axes([1, 2, 0]));
    let x = memory.slice(s![.., .., ..;-1]).permuted_axes([2, 0, 1]);
    fn flat<T: Clone>(a: ArrayView<T, Ix3>) -> Vec<T> {
        a.iter().cloned().collect()
    }
    fn flat2<T: Clone>(a: ArrayView<T, Ix2>) -> Vec<T> {
        a.iter().cloned().collect()
    }
    // The results have every other element of a larger array.
    let wide = Array::from_elem((outer, len, 2 * inner), T::ZERO);
    let mut one = Array::from_elem((inner, outer), T::ZERO);
    options.softmax().logsumexp_array(x, one.view_mut().reversed_axes(), 1).expect("valid");
    assert_same(&flat2(one.t()), &want.logsumexp, what("logsumexp"));
    let hardmax = options.hardmax(Ties::First);
    let mut y = wide.clone();
    hardmax.hardmax_array(x, y.slice_mut(s![.., .., ..;2]), 1).expect("valid");
    assert_same(&flat(y.slice(s![.., .., ..;2])), &want.hardmax, what("hardmax"));
    assert!(y.slice(s![.., .., 1..;2]).iter().all(|y| y.bits() == T::ZERO.bits()));
    let mut z = wide.clone();
    z.slice_mut(s![.., .., ..;2]).assign(&x);
    hardmax.hardmax_array_in_place(z.slice_mut(s![.., .., ..;2]), 1).expect("valid");
    assert_same(&flat(z.slice(s![.., .., ..;2])), &want.hardmax, what("hardmax in place"));
    let mut indices = Array::from_elem((outer, inner), 9);
    hardmax.argmax_array(x, indices.view_mut(), 1).expect("valid");
    assert_eq!(flat2(indices.view()), want.argmax);
    let mut indices = Array::from_elem((outer, inner, k), 9);
    let mut values = Array::from_elem((outer, k, inner), zero);
    let top = options.top_k(k);
    let order = [0, 2, 1];
    top.indices_array(x, indices.view_mut().permuted_axes(order), 1).expect("valid");
    assert_eq!(flat(indices.view().permuted_axes(order)), want.top);
    let to = indices.view_mut().permuted_axes(order);
    top.log_probs_array(x, values.view_mut(), to, 1).expect("valid");
    assert_same(&flat(values.view()), &want.log_probs, what("log-probabilities"));
    top.probs_array(x, values.view_mut(), indices.view_mut().permuted_axes(order), 1)
        .expect("valid");
    assert_same(&flat(values.view()), &want.probs, what("probabilities"));
    let n = outer * inner;
    let mut lse = Array::from_elem((inner, outer), zero);
    let tokens = Array::from_shape_vec((outer, k, inner), tokens(n, k, len)).expect("a shape");
    let log_probs = options.log_probs();
    values.fill(zero);
    log_probs.log_probs_array(x, tokens.view(), values.view_mut(), 1).expect("valid");
    assert_same(&flat(values.view()), &want.picked, what("log-probabilities of tokens"));
    values.fill(zero);
    let to = lse.view_mut().reversed_axes();
    log_probs
        .log_probs_and_logsumexp_array(x, tokens.view(), values.view_mut(), to, -2)
        .expect("valid");
    assert_same(&flat(values.view()), &want.picked, what("log-probabilities of tokens"));
    assert_same(&flat2(lse.t()), &want.lse, what("log-sum-exps"));
    let (labels, factors, probs) = (labels(n, len), factors(n), probs::<T>(outer * len * inner));
    let labels = ArrayView::from_shape((outer, inner), &labels).expect("a shape");
    let probs = ArrayView::from_shape((outer, len, inner), &probs).expect("a shape");
    let loss = loss(options, &factors);
    let by_labels = ArrayTargets::<T, _>::from(labels);
    for (targets, want) in
        [(by_labels, &want.by_labels), (ArrayTargets::Probs(probs), &want.by_probs)]
    {
        let (mut losses, mut y) = (Array::from_elem((inner, outer), 9.0), wide.clone());
        let mut wide_x = wide.clone();
        wide_x.slice_mut(s![.., .., ..;2]).assign(&x);
        loss.losses_array(x, targets.clone(), losses.view_mut().reversed_axes(), 1).expect("valid");
        same_f64(&flat2(losses.t()), &want.each, what("losses"));
        losses.fill(9.0);
        let (to, part) = (losses.view_mut().reversed_axes(), y.slice_mut(s![.., .., ..;2]));
        loss.losses_and_gradient_array(x, targets.clone(), to, part, 1).expect("valid");
        same_f64(&flat2(losses.t()), &want.each, what("losses"));
        assert_same(&flat(y.slice(s![.., .., ..;2])), &want.gradient, what("gradient"));
        y.assign(&wide_x);
        losses.fill(9.0);
        let (to, part) = (losses.view_mut().reversed_axes(), y.slice_mut(s![.., .., ..;2]));
        loss.losses_and_gradient_array_in_place(part, targets.clone(), to, 1).expect("valid");
        same_f64(&flat2(losses.t()), &want.each, what("losses"));
        assert_same(&flat(y.slice(s![.., .., ..;2])), &want.gradient, what("gradient in place"));
        let loss_alone = loss.loss_array(x, targets.clone(), 1);
        y.assign(&wide_x);
        let part = y.slice_mut(s![.., .., ..;2]);
        let in_place = loss.gradient_array_in_place(part, targets.clone(), 1);
        assert_same(&flat(y.slice(s![.., .., ..;2])), &want.gradient, what("gradient in place"));
        y.fill(T::ZERO);
        let with_gradient = loss.gradient_array(x, targets, y.slice_mut(s![.., .., ..;2]), 1);
        assert_same(&flat(y.slice(s![.., .., ..;2])), &want.gradient, what("gradient"));
        for reduced in [loss_alone, in_place, with_gradient] {
            same_f64(&[reduced.expect("valid")], &[want.reduced], what("reduced loss"));
        }
    }
}

fn same_bits<T: Bits>()
where
    T::Arithmetic: Bits,
{
    for (i, shape) in SHAPES.into_iter().enumerate() {
        if quick() && shape.iter().product::<usize>() > 50_000 {
            continue;
        }
        let x = tensor::<T>(shape, i);
        for (j, kernel) in available().into_iter().enumerate() {
            // How lanes are cut and copied depends on no kernel.
            if j > 0 && x.len() > 50_000 {
                continue;
            }
            let options = on(kernel, [1.0, 0.5][i % 2], Masked::Zero);
            let want = expected(&options, &x, shape);
            let two = Threads::Exactly(NonZeroUsize::new(2).expect("not 0"));
            let serial = options.threads(Threads::Serial);
            for options in [serial, options.threads(two).caches(Caches::new(1 << 15, 1 << 20))] {
                slices(&options, &x, shape, &want);
                if j == 0 && shape[2] > 0 {
                    arrays(&options, &x, shape, &want);
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

/// The shape also counts lanes without elements, which a number of rows cannot.
#[test]
fn lanes_without_elements() {
    for axis in [1, -2] {
        let mut y = [7.0f32; 6];
        Options::new().softmax().logsumexp_axis(&[], &mut y, &[2, 0, 3], axis).expect("valid");
        assert_eq!(y, [f32::NEG_INFINITY; 6]);
        let e = Options::new()
            .hardmax(Ties::First)
            .argmax_axis::<f32>(&[], &mut [0; 6], &[2, 0, 3], axis)
            .expect_err("nothing is the largest");
        assert!(e.to_string().contains("columns"), "{e}");
    }
}

#[test]
fn what_does_not_fit_is_named_and_nothing_is_written() {
    let x = [0.0f32; 6];
    let options = Options::new();
    let refused = |result: Result<(), Error>, message: &str| {
        let e = result.expect_err(message);
        assert!(e.to_string().contains(message), "{e}");
    };
    let (mut y, mut indices) = ([-7.0f32; 3], [9; 3]);
    let softmax = options.softmax();
    refused(softmax.logsumexp_axis(&x, &mut y, &[2, 3], 2), "no axis 2 in a tensor of 2");
    refused(softmax.logsumexp_axis(&x, &mut y, &[2, 4], 0), "tensor must be 8, got 6");
    refused(softmax.logsumexp_axis(&x, &mut y[..2], &[2, 3], 0), "output must be 3, got 2");
    refused(softmax.logsumexp_axis(&x, &mut y, &[2, 3], 1), "must be 2, got 3");
    refused(softmax.logsumexp_axis(&x, &mut y, &[2, usize::MAX, 3], 0), "overflow");
    refused(softmax.scale(0.0).logsumexp_axis(&x, &mut y, &[2, 3], 0), "scale must be");
    refused(options.top_k(3).indices_axis(&x, &mut indices, &[2, 3], 0), "at most the number");
    refused(options.top_k(1).probs_axis(&x, &mut y[..1], &mut indices, &[2, 3], 0), "(k of each");
    let hardmax = options.hardmax(Ties::First);
    refused(hardmax.argmax_axis(&x, &mut indices[..1], &[2, 3], 0), "must be 3, got 1");
    let (loss, mut losses, mut gradient) = (options.cross_entropy(), [-7.0; 3], [-7.0f32; 6]);
    let mut both = |loss: CrossEntropy, labels: &[i64], message: &str| {
        refused(loss.losses_axis(&x, labels, &mut losses, &[2, 3], 0), message);
        let result =
            loss.losses_and_gradient_axis(&x, labels, &mut losses, &mut gradient, &[2, 3], 0);
        refused(result, message);
    };
    both(loss, &[0, 1, 2], "row 2: 2 is not one of its 2 columns");
    both(loss, &[0, 1], "number of labels (one for each lane along the axis) must be 3, got 2");
    both(loss.row_factors(&[1.0]), &[0, 1, 0], "row factors");
    both(loss.weights(&[1.0]), &[0, 1, 0], "number of weights");
    both(loss.label_smoothing(2.0), &[0, 1, 0], "label smoothing");
    both(loss.scale(f64::NAN), &[0, 1, 0], "scale");
    let probs = [0.5f32; 8];
    let gaps = Matrix::with_stride(&probs, 2, 3, 4).expect("a shape");
    let result = loss.losses_axis(&x, gaps, &mut losses, &[2, 3], 0);
    refused(result, "elements of the targets, without gaps");
    let result = loss.gradient_axis(&x, gaps, &mut gradient, &[2, 3], 1).map(drop);
    refused(result, "elements of the targets, without gaps");
    let result = loss.loss_axis(&x, &[0, 1, 0], &[2, usize::MAX / 8], 0).map(drop);
    refused(result, "number of elements of the tensor must be");
    assert_eq!((losses, gradient), ([-7.0; 3], [-7.0; 6]));
    let log_probs = options.log_probs();
    let mut lse = [-7.0; 2];
    refused(log_probs.log_probs_axis(&x, &[0, 1, 2], &mut y, &[2, 3], 0), "row 2: 2 is not one");
    refused(log_probs.log_probs_axis(&x, &[0, 1], &mut y, &[2, 3], 0), "must be 3, got 2");
    refused(log_probs.log_probs_axis(&x, &[0; 6], &mut y, &[2, 3], 0), "one for each token");
    let result = log_probs.log_probs_and_logsumexp_axis(&x, &[0; 3], &mut y, &mut lse, &[2, 3], 0);
    refused(result, "one for each lane along the axis");
    assert_eq!((y, lse), ([-7.0; 3], [-7.0; 2]));
    // Of two tokens a lane, the second of the lane in the middle.
    let mut two = [-7.0f32; 6];
    let result = log_probs.log_probs_axis(&x, &[0, 0, 0, 0, 9, 0], &mut two, &[2, 3], 0);
    refused(result, "row 1: 9 is not one");
    assert_eq!(two, [-7.0; 6]);
    let a = Array::from_elem((2, 3), 0.0f32);
    let mut one = Array::from_elem(2, -7.0f32);
    refused(softmax.logsumexp_array(a.view(), one.view_mut(), 0), "output must be [3], got [2]");
    let mut top = Array::from_elem((2, 3), 9);
    refused(options.top_k(1).indices_array(a.view(), top.view_mut(), 1), "must be [2, 1]");
    let (labels, mut losses) = (Array::from_elem(3, 0), Array::from_elem(3, -7.0));
    let (labels, of) = (labels.view(), [1.0; 4]);
    let with_four = loss.row_factors(&of);
    refused(with_four.losses_array(a.view(), labels, losses.view_mut(), 0), "must be 3, got 4");
    let e = loss.losses_array(a.view(), labels, losses.view_mut(), 5);
    refused(e, "no axis 5");
    let tokens = Array::from_elem((1, 2), 0);
    let mut values = Array::from_elem((1, 3), -7.0f32);
    let e = options.log_probs().log_probs_array(a.view(), tokens.view(), values.view_mut(), 0);
    refused(e, "array of tokens must be [1, 3], got [1, 2]");
    let dynamic = Array::from_elem(vec![3], 0);
    let (all, values) = (a.view().into_dyn(), values.view_mut().into_dyn());
    let e = options.log_probs().log_probs_array(all, dynamic.view(), values, 1);
    refused(e, "array of tokens must be [2, 0], got [3]");
    let targets = Array::from_elem((3, 2), 0.5f32);
    refused(loss.losses_array(a.view(), targets.view(), losses.view_mut(), 0), "array of targets");
    assert_eq!((y, indices, one.len_of(Axis(0))), ([-7.0; 3], [9; 3], 2));
    assert!(one.iter().all(|y| *y == -7.0) && losses.iter().all(|y| *y == -7.0));
}
