//! Operations along an axis that are done by rows give the bits of moving the axis to the end
//! first.

use std::num::NonZeroUsize;

use crate::common::*;
use ndarray::{Array, ArrayView, Axis, Ix2, Ix3, s};
use softmax::half::{bf16, f16};
use softmax::{Caches, CrossEntropy, Element, Error, Masked, Matrix, MatrixMut, Threads, Ties};

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
    losses: Vec<f64>,
    gradient: Vec<T>,
    limit: Vec<T>,
}

/// How many elements of a lane are picked.
fn k_of(len: usize) -> usize {
    len.min(3)
}

fn labels(n: usize, len: usize) -> Vec<i64> {
    (0..n).map(|i| if i % 7 == 3 { -100 } else { (i * 5 % len) as i64 }).collect()
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
        losses: vec![0.0; n],
        gradient: vec![T::ZERO; x.len()],
        limit: vec![T::ZERO; x.len()],
    };
    let m = rows(&x, shape);
    let hardmax = options.hardmax(Ties::First);
    options.softmax().logsumexp(m, &mut e.logsumexp).expect("a valid call");
    hardmax.hardmax(m, rows_mut(&mut e.hardmax, shape)).expect("a valid call");
    hardmax.argmax(m, &mut e.argmax).expect("a valid call");
    let top = options.top_k(k);
    top.log_probs_and_probs(m, &mut e.log_probs, &mut e.probs, &mut e.top).expect("a valid call");
    let (labels, factors) = (labels(n, len), factors(n));
    loss(options, &factors)
        .losses_and_gradient(m, &labels, &mut e.losses, rows_mut(&mut e.gradient, shape))
        .expect("a valid call");
    let cold = options.softmax().temperature(0.0);
    cold.log_softmax(m, rows_mut(&mut e.limit, shape)).expect("a valid call");
    e.top = moved_back(&e.top, picked);
    e.log_probs = moved_back(&e.log_probs, picked);
    e.probs = moved_back(&e.probs, picked);
    e.hardmax = moved_back(&e.hardmax, shape);
    e.gradient = moved_back(&e.gradient, shape);
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
    let (labels, factors) = (labels(n, len), factors(n));
    let (loss, mut losses) = (loss(options, &factors), vec![9.0; n]);
    loss.losses_axis(x, &labels, &mut losses, &shape, 1).expect("a valid call");
    same_f64(&losses, &want.losses, what("losses"));
    losses.fill(9.0);
    loss.losses_and_gradient_axis(x, &labels, &mut losses, &mut y, &shape, 1).expect("valid");
    same_f64(&losses, &want.losses, what("losses beside gradients"));
    assert_same(&y, &want.gradient, what("gradient"));
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
    let (labels, factors) = (labels(n, len), factors(n));
    let (loss, mut losses) = (loss(options, &factors), Array::from_elem((inner, outer), 9.0));
    let labels = ArrayView::from_shape((outer, inner), &labels).expect("a shape");
    loss.losses_array(x, labels, losses.view_mut().reversed_axes(), 1).expect("valid");
    same_f64(&flat2(losses.t()), &want.losses, what("losses"));
    let (to, mut y) = (losses.view_mut().reversed_axes(), wide.clone());
    loss.losses_and_gradient_array(x, labels, to, y.slice_mut(s![.., .., ..;2]), 1).expect("valid");
    same_f64(&flat2(losses.t()), &want.losses, what("losses"));
    assert_same(&flat(y.slice(s![.., .., ..;2])), &want.gradient, what("gradient"));
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
            if kernel.name() == "scalar" && x.len() > 50_000 {
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
    assert_eq!((losses, gradient), ([-7.0; 3], [-7.0; 6]));
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
    assert_eq!((y, indices, one.len_of(Axis(0))), ([-7.0; 3], [9; 3], 2));
    assert!(one.iter().all(|y| *y == -7.0) && losses.iter().all(|y| *y == -7.0));
}
