//! The table "What every input gets" of the crate's documentation, row by row, on every kernel and
//! element type.

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{Element, Kernel, Masked, Matrix, MatrixMut};

const LENGTHS: [usize; 11] = [1, 2, 3, 15, 16, 17, 33, 64, 100, 4097, 5000];

/// Ordinary logits.
fn logits<T: Element>(n: usize) -> Vec<T> {
    (0..n).map(|i| T::from_f64((i * 7 % 13) as f64 * 0.5 - 3.0)).collect()
}

/// The first, middle and last place.
fn places(n: usize) -> [usize; 3] {
    [0, n / 2, n - 1]
}

fn assert_all<T: Bits>(y: &[T], want: T, what: &str) {
    assert_same(y, &vec![want; y.len()], || what.into());
}

fn check<T: Bits>(kernel: &'static Kernel) {
    let options = |masked| on(kernel, 1.0, masked);
    let nan_default = options(Masked::Nan);
    for n in LENGTHS {
        let what = |case: &str| format!("{} {} of {n}: {case}", kernel.name(), T::NAME);
        for at in places(n) {
            // A NaN of any sign or payload gives the one NaN, everywhere.
            for nan in [T::NAN, T::from_f64(-f64::NAN)] {
                let mut x = logits::<T>(n);
                x[at] = nan;
                for op in OPS {
                    assert_all(&run_row(&nan_default, op, &x), T::NAN, &what("NaN"));
                }
                // Also beside infinities.
                x[(at + 1) % n] = if n > 1 { T::INFINITY } else { nan };
                for op in OPS {
                    assert_all(&run_row(&nan_default, op, &x), T::NAN, &what("NaN and inf"));
                }
            }

            let mut x = logits::<T>(n);
            x[at] = T::INFINITY;
            assert_all(&run_row(&nan_default, Op::Softmax, &x), T::NAN, &what("+inf"));
            assert_all(&run_row(&nan_default, Op::LogSoftmax, &x), T::NAN, &what("+inf"));
            assert_all(&run_row(&nan_default, Op::LogSumExp, &x), T::INFINITY, &what("+inf"));

            // Masked entries give exactly +0, and the others are as without them. (f16 holds
            // neither -1e9 nor f32::MIN: they are its -inf.)
            for mask in [f64::NEG_INFINITY, -1e9, f64::from(f32::MIN)] {
                if n == 1 {
                    continue;
                }
                let mut x = logits::<T>(n);
                x[at] = T::from_f64(mask);
                let y = run_row(&nan_default, Op::Softmax, &x);
                assert_eq!(y[at].bits(), T::ZERO.bits(), "{}", what("mask"));
                assert!(y.iter().all(|v| !v.to_f64().is_nan()), "{}", what("mask"));
                let sum: f64 = y.iter().map(|v| v.to_f64()).sum();
                assert!((sum - 1.0).abs() < 0.03, "{}: sum {sum}", what("mask"));
                let log = run_row(&nan_default, Op::LogSoftmax, &x);
                assert!(log[at].to_f64() <= -6e4, "{}: {:?}", what("mask"), log[at]);
                assert!(log.iter().all(|v| !v.to_f64().is_nan()), "{}", what("mask"));
            }
        }

        let x = vec![T::NEG_INFINITY; n];
        for (masked, prob, log) in
            [(Masked::Nan, T::NAN, T::NAN), (Masked::Zero, T::ZERO, T::NEG_INFINITY)]
        {
            let options = options(masked);
            assert_all(&run_row(&options, Op::Softmax, &x), prob, &what("fully masked"));
            assert_all(&run_row(&options, Op::LogSoftmax, &x), log, &what("fully masked"));
            let lse = run_row(&options, Op::LogSumExp, &x);
            assert_all(&lse, T::NEG_INFINITY, &what("fully masked"));
        }

        // Equal entries share: within 1 ULP of 1/n, exactly if n is a power of two.
        for value in [0.0, 1.0, -3.5, 1000.0, 6e4, -6e4, 1e-7] {
            let y = run_row(&nan_default, Op::Softmax, &vec![T::from_f64(value); n]);
            assert_all(&y, y[0], &what("equal entries"));
            let share = T::from_f64(1.0 / n as f64);
            let apart = (y[0].bits() as i64 - share.bits() as i64).abs();
            let most = i64::from(!n.is_power_of_two());
            assert!(apart <= most, "{}: {:?} and {share:?}", what("equal entries"), y[0]);
        }
    }

    // One entry: 1, 0, itself.
    for value in [0.0, 5.0, -700.0, 6e4] {
        let x = [T::from_f64(value)];
        let one = |op| run_row(&nan_default, op, &x);
        assert_all(&one(Op::Softmax), T::from_f64(1.0), "one entry");
        assert_eq!(one(Op::LogSoftmax)[0].to_f64(), 0.0, "one entry");
        assert_eq!(one(Op::LogSumExp)[0].to_f64(), x[0].to_f64(), "one entry");
    }

    // No entries, no rows.
    for op in [Op::Softmax, Op::LogSoftmax] {
        assert!(run_row::<T>(&nan_default, op, &[]).is_empty());
    }
    assert_all(&run_row::<T>(&nan_default, Op::LogSumExp, &[]), T::NEG_INFINITY, "no entries");
    let none = softmax::Matrix::<T>::new(&[], 4).unwrap();
    for op in OPS {
        assert!(run(&nan_default, op, none).is_empty());
    }
}

#[test]
fn f32_gets_what_the_table_says() {
    available().into_iter().for_each(check::<f32>);
}

#[test]
fn f64_gets_what_the_table_says() {
    available().into_iter().for_each(check::<f64>);
}

#[test]
fn f16_gets_what_the_table_says() {
    available().into_iter().for_each(check::<f16>);
}

#[test]
fn bf16_gets_what_the_table_says() {
    available().into_iter().for_each(check::<bf16>);
}

/// At the ends of the range nothing overflows on the way.
#[test]
fn extremes_of_the_range() {
    for kernel in available() {
        let options = on(kernel, 1.0, Masked::Nan);
        let max = f32::MAX;
        for (x, want) in [
            ([max, max, -max], [0.5, 0.5, 0.0]),
            ([-max, -max, f32::NEG_INFINITY], [0.5, 0.5, 0.0]),
            ([max, 0.0, f32::MIN_POSITIVE], [1.0, 0.0, 0.0]),
            ([1e-45, -1e-45, 0.0], [1.0 / 3.0; 3]),
        ] {
            assert_same(&run_row(&options, Op::Softmax, &x), &want, || {
                format!("{} {x:?}", kernel.name())
            });
        }
        let x = [f64::MAX, -f64::MAX, f64::MAX, f64::MAX];
        assert_eq!(run_row(&options, Op::LogSumExp, &x), [f64::MAX], "{}", kernel.name());
        let log = run_row(&options, Op::LogSoftmax, &x);
        assert_eq!(log[1], f64::NEG_INFINITY, "{}", kernel.name());
        assert!((log[0] + 3f64.ln()).abs() < 1e-15, "{}: {log:?}", kernel.name());
        // Differences that are finite until they are divided by a low temperature, and so are their
        // errors.
        let x = [1.7e300, 7e283, -7e283, 3.3e299];
        let log = run_row(&on(kernel, 1e-30, Masked::Nan), Op::LogSoftmax, &x);
        let inf = f64::NEG_INFINITY;
        assert_eq!(log, [0.0, inf, inf, inf], "{}", kernel.name());
    }
}

/// A NaN affects its own row and no other.
#[test]
fn neighbours_of_a_bad_row_are_untouched() {
    for kernel in available() {
        let options = on(kernel, 1.0, Masked::Nan);
        let cols = 20;
        let mut x: Vec<f32> = (0..4).flat_map(|_| logits::<f32>(cols)).collect();
        x[cols + 3] = f32::NAN;
        x[2 * cols..3 * cols].fill(f32::NEG_INFINITY);
        let y = run(&options, Op::Softmax, softmax::Matrix::new(&x, cols).unwrap());
        let good = run_row(&options, Op::Softmax, &logits::<f32>(cols));
        for (r, want) in [(0, &good), (3, &good), (1, &vec![f32::NAN; cols])] {
            assert_same(&y[r * cols..][..cols], want, || format!("{} row {r}", kernel.name()));
        }
    }
}

/// Without a second row any stride is allowed: it is neither multiplied nor added.
#[test]
fn single_and_empty_rows_take_any_stride() {
    let x = [0.0f32; 4];
    for kernel in available() {
        let options = Options::new().kernel(kernel);
        for stride in [0, 1, usize::MAX / 2, usize::MAX] {
            let row = Matrix::with_stride(&x, 1, 4, stride).expect("one row");
            for op in OPS {
                let want = if op == Op::LogSumExp { 1 } else { 4 };
                assert_eq!(run(&options, op, row).len(), want, "{}", kernel.name());
            }
            let attention = options.attention(1, 1);
            let mut y = [0.0f32; 4];
            let view = MatrixMut::with_stride(&mut y, 1, 4, stride).expect("one row");
            attention.softmax(row, view).expect("a valid call");
            assert_eq!(y, [0.25; 4], "{}", kernel.name());

            let empty = Matrix::<f32>::with_stride(&[], 3, 0, stride).expect("rows of nothing");
            assert_eq!(run(&options, Op::LogSumExp, empty), [f32::NEG_INFINITY; 3]);
            assert_eq!(run(&options, Op::Softmax, empty), [] as [f32; 0]);
            let view = MatrixMut::<f32>::with_stride(&mut [], 3, 0, stride).expect("no elements");
            let attention = options.attention(1, 3);
            attention.softmax(empty, view).expect("a valid call");
        }
    }
}
