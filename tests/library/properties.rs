//! Properties of all inputs, tested on random ones: kernels agree, and results are the
//! probabilities of mathematics. The seed is fixed, so that a run fails always or never.

use std::fmt::Debug;

use crate::common::*;
use proptest::collection::vec;
use proptest::prelude::*;
use softmax::{Masked, Matrix};

/// Any finite value; usual ones, equal ones and the ends of the range are more frequent.
fn finite() -> impl Strategy<Value = f32> {
    prop_oneof![
        6 => -100.0f32..100.0,
        3 => prop::num::f32::ANY.prop_filter("finite", |v| v.is_finite()),
        1 => prop::sample::select(vec![
            0.0,
            -0.0,
            1.0,
            f32::MAX,
            f32::MIN,
            f32::MIN_POSITIVE,
            -f32::MIN_POSITIVE,
            f32::from_bits(1),
        ]),
    ]
}

/// A row without masked entries. Half of them have only usual values, because a single huge value
/// leaves nothing of the others.
fn finite_row() -> impl Strategy<Value = Vec<f32>> {
    prop_oneof![vec(-20.0f32..20.0, 1..200), vec(finite(), 1..200)]
}

/// Temperatures, as many below 1 as above.
fn temperature() -> impl Strategy<Value = f64> {
    (-3.0..3.0).prop_map(|e| 10f64.powf(e))
}

/// Rows, columns, stride and the elements of a matrix.
#[derive(Clone, Debug)]
struct Input {
    rows: usize,
    cols: usize,
    stride: usize,
    data: Vec<f32>,
}

fn matrix() -> impl Strategy<Value = Input> {
    // Mostly masked, mostly not, or all of it masked.
    let element = |masked: u32| prop_oneof![masked => Just(f32::NEG_INFINITY), 9 => finite()];
    (0usize..6, 0usize..200, 0usize..5).prop_flat_map(move |(rows, cols, gap)| {
        let stride = cols + gap;
        let len = rows * stride;
        prop_oneof![
            4 => vec(-100.0f32..100.0, len),
            4 => vec(element(1), len),
            2 => vec(element(60), len),
            1 => vec(Just(f32::NEG_INFINITY), len),
        ]
        .prop_map(move |data| Input { rows, cols, stride, data })
    })
}

fn same_as_scalar<T: Bits>(input: &Input, temperature: f64) {
    let data: Vec<T> = input.data.iter().map(|&v| T::from_f64(v.into())).collect();
    let x = Matrix::with_stride(&data, input.rows, input.cols, input.stride).unwrap();
    for masked in [Masked::Nan, Masked::Zero] {
        for op in OPS {
            let want = run(&on(scalar(), temperature, masked), op, x);
            for kernel in exact() {
                let got = run(&on(kernel, temperature, masked), op, x);
                assert_same(&got, &want, || format!("{} {op:?} {}", kernel.name(), T::NAME));
            }
        }
    }
}

/// The largest probability that may be 0 (see the table in the library's documentation): a little
/// more than 2^-126, because of two roundings.
const MAY_VANISH: f32 = 1.18e-38;

/// The number of f32 from `b` up to `a`; negative if `a` is below. Neither is negative.
fn ulps_above(a: f32, b: f32) -> i64 {
    if a < MAY_VANISH && b < MAY_VANISH {
        return 0;
    }
    i64::from(a.to_bits()) - i64::from(b.to_bits())
}

fn assert_near(got: &[f32], want: &[f32], ulps: i64, what: impl Debug) {
    assert_eq!(got.len(), want.len());
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let apart = ulps_above(g, w);
        assert!(apart.abs() <= ulps, "{what:?}: element {i} is {g:e}, {apart} ULP from {w:e}");
    }
}

/// The softmax of one row by every kernel.
fn by_every_kernel(x: &[f32], temperature: f64) -> impl Iterator<Item = (&'static str, Vec<f32>)> {
    available().into_iter().map(move |kernel| {
        (kernel.name(), run_row(&on(kernel, temperature, Masked::Nan), Op::Softmax, x))
    })
}

proptest! {
    #![proptest_config(config(64, 64, 0x50f7_3a8e))]

    #[test]
    fn kernels_agree(input in matrix(), temperature in temperature()) {
        same_as_scalar::<f32>(&input, temperature);
        same_as_scalar::<f64>(&input, temperature);
    }

    #[test]
    fn results_are_probabilities(x in finite_row(), temperature in temperature()) {
        for (kernel, y) in by_every_kernel(&x, temperature) {
            prop_assert!(y.iter().all(|p| (0.0..=1.0).contains(p)), "{kernel}: {y:?}");
            let sum: f64 = y.iter().map(|&p| f64::from(p)).sum();
            prop_assert!((sum - 1.0).abs() <= 1e-5, "{kernel}: the sum is {sum}");
        }
    }

    /// Multiples of 1/64 below 200 have 14 bits, so adding the shift never rounds.
    #[test]
    fn a_shift_changes_nothing(
        x in vec((-6400i16..=6400).prop_map(|k| f32::from(k) / 64.0), 1..200),
        shift in (-100i8..=100).prop_map(f32::from),
        temperature in temperature(),
    ) {
        let shifted: Vec<f32> = x.iter().map(|v| v + shift).collect();
        let both = by_every_kernel(&x, temperature).zip(by_every_kernel(&shifted, temperature));
        for ((kernel, y), (_, z)) in both {
            // Each has an error of at most 3 ULP.
            assert_near(&z, &y, 6, kernel);
        }
    }

    #[test]
    fn order_does_not_matter(x in finite_row(), temperature in temperature()) {
        let reversed: Vec<f32> = x.iter().rev().copied().collect();
        let both = by_every_kernel(&x, temperature).zip(by_every_kernel(&reversed, temperature));
        for ((kernel, y), (_, mut z)) in both {
            z.reverse();
            // Only the sum, in another order, can differ.
            assert_near(&z, &y, 4, kernel);
        }
    }

    #[test]
    fn larger_inputs_have_larger_probabilities(x in finite_row(), temperature in temperature()) {
        for (kernel, y) in by_every_kernel(&x, temperature) {
            let mut pairs: Vec<(f32, f32)> = x.iter().copied().zip(y).collect();
            pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
            // Compared with the largest so far, because many small steps down might add up.
            let mut largest = 0.0f32;
            for (x, p) in pairs {
                let below = ulps_above(largest, p);
                prop_assert!(below <= 3, "{kernel}: {x:e} has {p:e}, a smaller one {largest:e}");
                largest = largest.max(p);
            }
        }
    }
}
