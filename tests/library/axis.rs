//! Any axis of a tensor gives the bits of the same axis moved to the end.

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{Caches, Element, Error, Kernel, Masked, Threads};
use std::num::NonZeroUsize;

/// Sizes before, along and behind the axis.
const SHAPES: [[usize; 3]; 20] = [
    [1, 1, 1],
    [2, 3, 1],
    [3, 1, 5],
    [1, 2, 2],
    [5, 7, 3],
    [2, 10, 15],
    [2, 16, 16],
    [3, 17, 17],
    [1, 33, 63],
    [1, 64, 300],
    [2, 15, 128],
    [1, 70, 129],
    [1, 300, 40],
    [1, 4095, 3],
    [1, 4096, 2],
    [1, 4097, 18],
    [1, 9000, 2],
    [3, 0, 5],
    [0, 3, 5],
    [3, 5, 0],
];

fn tensor<T: Element>([outer, axis, inner]: [usize; 3], kind: usize) -> Vec<T> {
    let mut random = Random((outer * 31 + axis * 7 + inner + kind * 1_000_003) as u64);
    let mut x = Vec::new();
    for i in 0..outer * axis {
        // All kinds in turn, or one.
        let kind = if kind == KINDS { i % KINDS } else { kind };
        x.extend(row::<T>(&mut random, kind, inner));
    }
    x
}

/// Computes row by row after moving the axis to the end.
fn moved<T: Element>(options: &Options, op: Op, x: &[T], shape: [usize; 3]) -> Vec<T> {
    let [outer, axis, inner] = shape;
    let mut y = x.to_vec();
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        let at = |k: usize| (o * axis + k) * inner + i;
        let column: Vec<T> = (0..axis).map(|k| x[at(k)]).collect();
        for (k, v) in run_row(options, op, &column).into_iter().enumerate() {
            y[at(k)] = v;
        }
    }
    y
}

fn same_bits<T: Bits>() {
    let way = |core, last| Caches::new(core, last);
    let large = |[outer, axis, inner]: [usize; 3]| outer * axis * inner > 2000;
    for shape in SHAPES {
        let [outer, axis, inner] = shape;
        for kind in 0..=KINDS {
            if quick() && large(shape) && kind != KINDS {
                continue;
            }
            let x = tensor::<T>(shape, kind);
            for op in [Op::Softmax, Op::LogSoftmax] {
                let temperature = [1.0, 0.5, 3.0][kind % 3];
                let want = moved(&on(scalar(), temperature, Masked::Zero), op, &x, shape);
                // The reference is slow, and worth only small tensors here.
                let worth = |k: &&Kernel| k.name() != "scalar" || !large(shape);
                for kernel in available().into_iter().filter(worth) {
                    let options = on(kernel, temperature, Masked::Zero);
                    let two = Threads::Exactly(NonZeroUsize::new(2).expect("not 0"));
                    let ways = [
                        options.threads(Threads::Serial),
                        options.caches(way(usize::MAX, 0)),
                        options.threads(two),
                    ];
                    for options in ways {
                        let (mut y, mut z) = (vec![T::NAN; x.len()], x.clone());
                        let sizes = [outer, axis, inner];
                        match op {
                            Op::Softmax => options
                                .softmax()
                                .softmax_axis(&x, &mut y, &sizes, 1)
                                .and_then(|()| {
                                    options.softmax().softmax_axis_in_place(&mut z, &sizes, -2)
                                }),
                            _ => options
                                .softmax()
                                .log_softmax_axis(&x, &mut y, &sizes, 1)
                                .and_then(|()| {
                                    options.softmax().log_softmax_axis_in_place(&mut z, &sizes, -2)
                                }),
                        }
                        .expect("a valid call");
                        let what = || format!("{} {op:?} {shape:?} kind {kind}", kernel.name());
                        assert_same(&y, &want, what);
                        assert_same(&z, &want, what);
                    }
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

/// Every axis of a tensor of four dimensions is the middle one of three.
#[test]
fn axes_are_counted_from_both_ends() {
    let shape = [2usize, 3, 4, 5];
    let x = tensor::<f32>([6, 4, 5], 0);
    let options = Options::new();
    for axis in 0..4usize {
        let sizes =
            [shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product()];
        let want = moved(&options, Op::Softmax, &x, sizes);
        for axis in [axis as isize, axis as isize - 4] {
            let mut y = vec![0.0; x.len()];
            options.softmax().softmax_axis(&x, &mut y, &shape, axis).expect("a valid call");
            assert_same(&y, &want, || format!("axis {axis}"));
        }
    }
}

/// The one constant for x86-64 and AArch64, for fixed tensors. It changes only with the arithmetic
/// contract.
const DIGEST: u64 = 0xbb29_6b81_f7b3_5c22;

#[test]
fn digest_is_the_same_on_every_cpu() {
    fn add_to<T: Bits>(digest: &mut Fnv, kernel: &'static Kernel) {
        for kind in 0..=KINDS {
            let shape = [2, 100, 37];
            let mut x = tensor::<T>(shape, kind);
            let options = on(kernel, 1.0, Masked::Nan);
            options.softmax().softmax_axis_in_place(&mut x, &shape, 1).expect("a valid call");
            digest.add(&x);
        }
    }
    for kernel in available() {
        let mut digest = Fnv::default();
        add_to::<f32>(&mut digest, kernel);
        add_to::<f64>(&mut digest, kernel);
        add_to::<f16>(&mut digest, kernel);
        println!("{} on {}: {:#018x}", kernel.name(), std::env::consts::ARCH, digest.0);
        assert_eq!(digest.0, DIGEST, "{}: {:#018x}", kernel.name(), digest.0);
    }
}

#[test]
fn what_does_not_fit_is_named_and_nothing_is_written() {
    let (x, mut y) = ([0.0f32; 6], [-7.0f32; 6]);
    let options = Options::new();
    let mut refused = |shape: &[usize], axis, message: &str| {
        let e: Error = options.softmax().softmax_axis(&x, &mut y, shape, axis).expect_err(message);
        assert!(e.to_string().contains(message), "{e}");
        let e = options.softmax().softmax_axis_in_place(&mut y, shape, axis).expect_err(message);
        assert!(e.to_string().contains(message), "{e}");
        assert_eq!(y, [-7.0; 6]);
    };
    refused(&[2, 3], 2, "no axis 2 in a tensor of 2 dimensions");
    refused(&[2, 3], -3, "no axis -3 in a tensor of 2 dimensions");
    refused(&[], 0, "no axis 0 in a tensor of 0 dimensions");
    refused(&[2, 4], 0, "number of elements of the tensor must be 8, got 6");
    refused(&[2, usize::MAX, 3], 0, "overflow");
    refused(&[usize::MAX, 3], 1, "overflow");
}
