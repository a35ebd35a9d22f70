//! Nothing but the rows is touched: inaccessible pages lie right before and after the matrices, so
//! that a vector load or store that reaches too far ends the process.

use crate::common::guarded::{EDGES, Edge, Guarded, PAGE};
use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{
    Attention, BLOCK, Caches, Error, Kernel, Mask, Masked, Matrix, MatrixMut, Merged, Partial,
    Probs, Threads, Ties,
};

/// The guards themselves work; otherwise every other test would pass.
#[cfg(target_os = "linux")]
#[test]
fn guards_are_inaccessible() {
    let guarded = Guarded::<f32>::new(1);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let rights = |at: usize| {
        let address = guarded.base.addr() + at;
        maps.lines().find_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let start = usize::from_str_radix(start, 16).ok()?;
            let end = usize::from_str_radix(end, 16).ok()?;
            (start..end).contains(&address).then(|| &rest[..4])
        })
    };
    let room = guarded.room;
    for (at, want) in [
        (0, "---p"),
        (PAGE - 1, "---p"),
        (PAGE, "rw-p"),
        (PAGE + room - 1, "rw-p"),
        (PAGE + room, "---p"),
        (2 * PAGE + room - 1, "---p"),
    ] {
        assert_eq!(rights(at), Some(want), "at {at}");
    }
}

/// As [`run`], with an output of the caller's.
fn run_into<T: Bits + Pattern>(
    options: &Options,
    op: Op,
    x: Matrix<T>,
    y: &mut [T],
    stride: usize,
) {
    let (rows, cols) = (x.rows(), x.cols());
    if op == Op::LogSumExp {
        return options.softmax().logsumexp(x, y).unwrap();
    }
    let y = MatrixMut::with_stride(y, rows, cols, stride).unwrap();
    match op {
        Op::Softmax => options.softmax().softmax(x, y),
        _ => options.softmax().log_softmax(x, y),
    }
    .unwrap();
}

/// Lengths with every remainder of the lanes and unrolled loops, and around the blocks of long
/// rows.
fn lengths(kernel: &Kernel) -> Vec<usize> {
    let mut n: Vec<usize> = (1..=67).collect();
    // Not for the reference, which is slow and has no vectors that could reach too far.
    if kernel.name() != "scalar" {
        n.extend([127, 128, 129, 1000, 4095, 4096, 4097]);
    }
    n
}

fn stays_between_the_guards<T: Bits + Pattern>() {
    let mut random = Random(11);
    let (mut input, mut output) = (Guarded::<T>::new(4097), Guarded::<T>::new(4097));
    for kernel in available() {
        let options = on(kernel, 0.7, Masked::Zero);
        for n in lengths(kernel) {
            let row: Vec<T> = row(&mut random, n % KINDS, n);
            for op in OPS {
                let want = run_row(&options, op, &row);
                for from in EDGES {
                    let x = input.copy(from, &row);
                    let what =
                        || format!("{} {op:?} of {n} {} at {from:?}", kernel.name(), T::NAME);
                    for to in EDGES {
                        let y = output.at(to, want.len());
                        // Results of an earlier call must not pass.
                        y.fill(T::from_f64(-77.0));
                        run_into(&options, op, Matrix::new(x, n).unwrap(), y, n);
                        assert_same(y, &want, || format!("{} to {to:?}", what()));
                    }
                    assert_same(x, &row, || format!("input of {}", what()));
                    if op != Op::LogSumExp {
                        run_in_place(&options, op, MatrixMut::new(x, n).unwrap());
                        assert_same(x, &want, || format!("{} in place", what()));
                    }
                }
            }
        }
    }
}

#[test]
fn stays_between_the_guards_f32() {
    stays_between_the_guards::<f32>();
}

#[test]
fn stays_between_the_guards_f64() {
    stays_between_the_guards::<f64>();
}

#[test]
fn stays_between_the_guards_f16() {
    stays_between_the_guards::<f16>();
}

#[test]
fn stays_between_the_guards_bf16() {
    stays_between_the_guards::<bf16>();
}

/// Groups of short rows, streamed rows, and rows in pieces, each at both edges.
fn every_way_stays_between_the_guards<T: Bits + Pattern>() {
    let mut random = Random(12);
    let room = 9001;
    let (mut input, mut output) = (Guarded::<T>::new(room), Guarded::<T>::new(room));
    let mut ways = vec![(usize::MAX, 0), (0, 0), (usize::MAX, usize::MAX), (0, usize::MAX)];
    let mut shapes = vec![
        (8, 1),
        (9, 3),
        (211, 10),
        (77, 17),
        (33, 64),
        (3, 100),
        (2, 1000),
        (2, 4099),
        (1, 9001),
        (2, 5),
        (7, 63),
    ];
    // Under an emulator only the ones that differ the most.
    if quick() {
        ways.truncate(2);
        shapes = vec![(9, 3), (211, 10), (3, 100), (1, 9001), (7, 63)];
    }
    for kernel in exact() {
        for &(core, last) in &ways {
            let options = on(kernel, 0.7, Masked::Zero).caches(Caches::new(core, last));
            for &(rows, cols) in &shapes {
                let data: Vec<T> =
                    (0..rows).flat_map(|r| row::<T>(&mut random, r % 2 * 3, cols)).collect();
                for op in OPS {
                    let want = run(
                        &on(scalar(), 0.7, Masked::Zero),
                        op,
                        Matrix::new(&data, cols).unwrap(),
                    );
                    for edge in EDGES {
                        let x = input.copy(edge, &data);
                        let y = output.at(edge, want.len());
                        y.fill(T::from_f64(-77.0));
                        let what = || {
                            let (kernel, t) = (kernel.name(), T::NAME);
                            format!(
                                "{kernel} {op:?} {rows} x {cols} {t}, caches {core}, {last}, {edge:?}"
                            )
                        };
                        run_into(&options, op, Matrix::new(x, cols).unwrap(), y, cols);
                        assert_same(y, &want, what);
                        if op != Op::LogSumExp {
                            run_in_place(&options, op, MatrixMut::new(x, cols).unwrap());
                            assert_same(x, &want, || format!("{} in place", what()));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_way_stays_between_the_guards_in_every_type() {
    every_way_stays_between_the_guards::<f32>();
    every_way_stays_between_the_guards::<f64>();
    every_way_stays_between_the_guards::<f16>();
    every_way_stays_between_the_guards::<bf16>();
}

/// Rows, columns, and the gaps after rows of input and output.
const PADDED: [(usize, usize, usize, usize); 8] = [
    (2, 1, 1, 2),
    (3, 7, 1, 0),
    (3, 8, 0, 3),
    (4, 17, 5, 2),
    (5, 33, 1, 31),
    (3, 64, 16, 1),
    (2, 1000, 24, 7),
    // Large enough to be shared among threads.
    (3, 50_000, 3, 5),
];

/// Attention with a mask at the edge of its memory, and columns, with the bits of the reference.
fn scores_and_columns_stay_between_the_guards<T: Probs<T> + Bits + Pattern>() {
    let (heads, queries) = (2, 2);
    let mut random = Random(9);
    for keys in [1, 7, 8, 15, 16, 17, 33, 66, 130] {
        let x: Vec<T> = row(&mut random, 3, heads * queries * keys);
        let mask: Vec<f16> = row(&mut random, 3, queries * keys);
        let shape = [heads, queries, keys];
        let (mut from, mut to) = (Guarded::<T>::new(x.len()), Guarded::<T>::new(x.len()));
        let mut masks = Guarded::<f16>::new(mask.len());
        for kernel in exact() {
            for (edge, last) in EDGES.into_iter().flat_map(|edge| [(edge, 0), (edge, usize::MAX)]) {
                let caches = Caches::new(usize::MAX, last);
                let x = from.copy(edge, &x);
                let mask = masks.copy(edge, &mask);
                let y = to.at(edge, x.len());
                let plain = Attention::new(heads, queries).masked(Masked::Zero);
                let added = plain.mask(Mask::new(&*mask, [1, 1, queries]));
                for attention in [plain.causal().window(5), added, added.causal().window(9)] {
                    let scores = Matrix::new(&*x, keys).expect("whole rows");
                    let mut want = vec![T::ZERO; x.len()];
                    for (kernel, y) in [(scalar(), &mut want[..]), (kernel, &mut *y)] {
                        let y = MatrixMut::new(y, keys).expect("whole rows");
                        let attention = attention.exec(by(kernel).caches(caches));
                        attention.softmax(scores, y).expect("a valid call");
                    }
                    assert_same(y, &want, || format!("{} {keys} keys", kernel.name()));
                }
                for axis in 0..2 {
                    let options = Options::new().masked(Masked::Zero).caches(caches);
                    let mut want = vec![T::ZERO; x.len()];
                    for (kernel, y) in [(scalar(), &mut want[..]), (kernel, &mut *y)] {
                        let options = options.kernel(kernel);
                        options.softmax().softmax_axis(x, y, &shape, axis).expect("a valid call");
                    }
                    assert_same(y, &want, || format!("{} axis {axis} of {shape:?}", kernel.name()));
                }
            }
        }
    }
}

fn shards_stay_between_the_guards<T: Bits + Pattern>() {
    let mut random = Random(8);
    for n in [1, 100, BLOCK + 5] {
        let x: Vec<T> = row(&mut random, 0, n);
        let (mut from, mut to) = (Guarded::<T>::new(n), Guarded::<T>::new(n));
        for (kernel, edge) in exact().into_iter().flat_map(|k| EDGES.map(|edge| (k, edge))) {
            let options = Options::new().kernel(kernel);
            let want = run_row(&options, Op::Softmax, &x);
            let shards = options.shards();
            let (x, y) = (from.copy(edge, &x), to.at(edge, n));
            for row_max in [None, Some(20.0)] {
                let mut partials = vec![Partial::NOTHING; Partial::count(n)];
                shards.partials(x, row_max, &mut partials).expect("a valid shard");
                let merged = shards.merge::<T>(&partials).expect("a valid kernel");
                let Merged::Row(row) = merged else { panic!("{merged:?} of ordinary logits") };
                shards.softmax(&row, x, y).expect("a valid shard");
                if row_max.is_none() {
                    assert_same(y, &want, || format!("{} {n} elements", kernel.name()));
                }
                shards.log_softmax_in_place(&row, y).expect("a valid shard");
            }
        }
    }
}

/// Losses with all their inputs, and the gradients through softmax.
fn losses_stay_between_the_guards<T: Bits + Pattern>() {
    let rows = 3;
    let mut random = Random(10);
    for cols in [1, 7, 8, 15, 16, 17, 33, 66, 130] {
        let n = rows * cols;
        let x: Vec<T> = row(&mut random, 0, n);
        let weights: Vec<f32> = row(&mut random, 5, cols).into_iter().map(f32::abs).collect();
        let labels: Vec<i64> = (0..rows).map(|i| ((i * 5 + cols - 1) % cols) as i64).collect();
        let (mut from, mut to) = (Guarded::<T>::new(n), Guarded::<T>::new(n));
        let (mut others, mut of_classes) = (Guarded::<T>::new(n), Guarded::<f32>::new(cols));
        for kernel in exact() {
            for (edge, last) in EDGES.into_iter().flat_map(|edge| [(edge, 0), (edge, usize::MAX)]) {
                let (x, q) = (from.copy(edge, &x), others.copy(edge, &x));
                let weights = of_classes.copy(edge, &weights);
                let (x, q) = (Matrix::new(&*x, cols), Matrix::new(&*q, cols));
                let (x, q) = (x.expect("whole rows"), q.expect("whole rows"));
                let y = to.at(edge, n);
                let options = Options::new().caches(Caches::new(usize::MAX, last));
                for soft in [false, true] {
                    let mut want = vec![T::ZERO; n];
                    for (kernel, y) in [(scalar(), &mut want[..]), (kernel, &mut *y)] {
                        let mut loss = options.kernel(kernel).cross_entropy();
                        let y = MatrixMut::new(y, cols).expect("whole rows");
                        if soft {
                            loss = loss.label_smoothing(0.1).weights(&*weights);
                            loss.gradient(x, q, y).expect("a valid call");
                        } else {
                            loss.gradient(x, &labels, y).expect("a valid call");
                        }
                    }
                    assert_same(y, &want, || format!("{} {cols} columns", kernel.name()));
                }
                let y = MatrixMut::new(y, cols).expect("whole rows");
                options.kernel(kernel).backward().log_softmax(x, q, y).expect("a valid call");
            }
        }
    }
}

#[test]
fn losses_stay_between_the_guards_in_every_type() {
    losses_stay_between_the_guards::<f32>();
    losses_stay_between_the_guards::<f64>();
    losses_stay_between_the_guards::<f16>();
    losses_stay_between_the_guards::<bf16>();
}

#[test]
fn shards_stay_between_the_guards_in_every_type() {
    shards_stay_between_the_guards::<f32>();
    shards_stay_between_the_guards::<f64>();
    shards_stay_between_the_guards::<f16>();
    shards_stay_between_the_guards::<bf16>();
}

#[test]
fn scores_and_columns_stay_between_the_guards_in_every_type() {
    scores_and_columns_stay_between_the_guards::<f32>();
    scores_and_columns_stay_between_the_guards::<f64>();
    scores_and_columns_stay_between_the_guards::<f16>();
    scores_and_columns_stay_between_the_guards::<bf16>();
}

fn padding<T: Bits + Pattern>(kernel: &'static Kernel) {
    let mut random = Random(12);
    let canary = T::from_f64(-77.0);
    for (rows, cols, gap_in, gap_out) in PADDED {
        if cols > 1000 && kernel.name() == "scalar" {
            continue;
        }
        let options = on(kernel, 1.5, Masked::Nan).threads(Threads::AtMost(2.try_into().unwrap()));
        let (from, to) = (cols + gap_in, cols + gap_out);
        // NaN in the gaps, which would make a whole row NaN if read. There is none after the last
        // row, where the guard is.
        let mut data = vec![T::NAN; (rows - 1) * from + cols];
        for r in 0..rows {
            data[r * from..][..cols].copy_from_slice(&row::<T>(&mut random, 0, cols));
        }
        let mut input = Guarded::new(data.len());
        let x = Matrix::with_stride(input.copy(Edge::Upper, &data), rows, cols, from).unwrap();
        for op in OPS {
            let what = || {
                let (kernel, t) = (kernel.name(), T::NAME);
                format!("{kernel} {op:?} {rows} x {cols} {t}, gaps {gap_in} and {gap_out}")
            };
            // The expected result, one row at a time, without gaps.
            let alone = |r: usize| run_row(&options, op, &data[r * from..][..cols]);
            let written = if op == Op::LogSumExp { 1 } else { cols };
            let stride = if op == Op::LogSumExp { 1 } else { to };
            // Canaries also after the last row, where the slice is longer than needed, and before
            // the first.
            let before = 9;
            let mut want = vec![canary; before + rows * stride + 9];
            let mut y = want.clone();
            for r in 0..rows {
                let result = alone(r);
                assert!(result.iter().all(|v| !v.to_f64().is_nan()), "{}", what());
                want[before + r * stride..][..written].copy_from_slice(&result);
            }
            let end = if op == Op::LogSumExp { before + rows } else { y.len() };
            run_into(&options, op, x, &mut y[before..end], stride);
            assert_same(&y, &want, what);
            if op == Op::LogSumExp {
                continue;
            }
            let mut place = data.clone();
            let view = MatrixMut::with_stride(&mut place, rows, cols, from).unwrap();
            run_in_place(&options, op, view);
            let mut want = data.clone();
            for r in 0..rows {
                want[r * from..][..cols].copy_from_slice(&alone(r));
            }
            assert_same(&place, &want, || format!("{} in place", what()));
        }
    }
}

#[test]
fn padding_is_neither_read_nor_written() {
    for kernel in available() {
        padding::<f32>(kernel);
        padding::<f64>(kernel);
        padding::<f16>(kernel);
        padding::<bf16>(kernel);
    }
}

/// Runs a call that must be refused, and checks that its output is unchanged.
fn refused<T: Bits + Pattern>(
    len: usize,
    call: impl FnOnce(&mut [T]) -> Result<(), Error>,
) -> Error {
    let before = vec![T::from_f64(-77.0); len];
    let mut y = before.clone();
    let error = call(&mut y).expect_err("a call to refuse");
    assert_same(&y, &before, || format!("output of a call refused with {error}"));
    error
}

/// A view of that shape of any slice.
fn shape_of<T>(
    rows: usize,
    cols: usize,
    stride: usize,
) -> impl Fn(&mut [T]) -> Result<MatrixMut<'_, T>, Error> {
    move |y| MatrixMut::with_stride(y, rows, cols, stride)
}

fn refusals_write_nothing<T: Bits + Pattern>() {
    let x = vec![T::ZERO; 12];
    let x = x.as_slice();
    let view = || Matrix::new(x, 4).unwrap();
    for kernel in available() {
        let options = Options::new().kernel(kernel);
        // Another number of rows or columns, and the same elements in another shape.
        for (rows, cols) in [(2, 4), (4, 4), (3, 3), (3, 5), (4, 3), (1, 12), (12, 1), (0, 4)] {
            let want = format!("the output must be 3 x 4, got {rows} x {cols}");
            let shaped = shape_of::<T>(rows, cols, cols);
            let got = refused::<T>(rows * cols, |y| options.softmax().softmax(view(), shaped(y)?));
            assert_eq!(got.to_string(), want);
            let got =
                refused::<T>(rows * cols, |y| options.softmax().log_softmax(view(), shaped(y)?));
            assert_eq!(got.to_string(), want);
        }
        for len in [0, 1, 2, 4, 12] {
            let got = refused::<T>(len, |y| options.softmax().logsumexp(view(), y));
            let want =
                format!("the number of log-sum-exps (one for each row) must be 3, got {len}");
            assert_eq!(got.to_string(), want);
        }
    }
    // Slices that are not matrices: too short, overlapping, too large for the address space.
    for (rows, cols, stride) in [(3, 5, 5), (2, 6, 7), (2, 4, 3), (usize::MAX, 2, 4)] {
        let options = Options::new();
        let shaped = shape_of::<T>(rows, cols, stride);
        let shape = |e: Error| {
            let sizes =
                matches!(e, Error::Shape { .. } | Error::Overlap { .. } | Error::Overflow { .. });
            assert!(sizes, "{e:?}");
        };
        shape(refused::<T>(12, |y| options.softmax().softmax(view(), shaped(y)?)));
        shape(refused::<T>(12, |y| options.softmax().log_softmax(view(), shaped(y)?)));
        shape(refused::<T>(12, |y| options.softmax().softmax_in_place(shaped(y)?)));
        shape(refused::<T>(12, |y| options.softmax().log_softmax_in_place(shaped(y)?)));
        let bad = || Matrix::with_stride(x, rows, cols, stride);
        shape(refused::<T>(12, |y| options.softmax().softmax(bad()?, MatrixMut::new(y, 4)?)));
        shape(refused::<T>(3, |y| options.softmax().logsumexp(bad()?, y)));
    }
    // Functions that take only slices: lengths differ, or rows of 5 do not fit 12.
    for len in [0, 11, 13] {
        refused::<T>(len, |y| softmax::softmax(x, y));
        refused::<T>(len, |y| softmax::log_softmax(x, y));
    }
    for cols in [0, 5] {
        refused::<T>(12, |y| softmax::softmax_rows(x, y, cols));
        refused::<T>(12, |y| softmax::softmax_rows_in_place(y, cols));
        refused::<T>(12, |y| softmax::log_softmax_rows(x, y, cols));
        refused::<T>(12, |y| softmax::log_softmax_rows_in_place(y, cols));
        refused::<T>(3, |y| softmax::logsumexp_rows(x, y, cols));
    }
    refused::<T>(2, |y| softmax::logsumexp_rows(x, y, 4));
    // A kernel that this CPU cannot run.
    for kernel in softmax::kernels().iter().filter(|k| !k.is_available()) {
        let options = Options::new().kernel(kernel);
        let unavailable = |e| assert!(matches!(e, Error::UnavailableKernel { .. }), "{e:?}");
        unavailable(refused::<T>(12, |y| options.softmax().softmax(view(), MatrixMut::new(y, 4)?)));
        unavailable(refused::<T>(12, |y| {
            options.softmax().softmax_in_place(MatrixMut::new(y, 4)?)
        }));
        unavailable(refused::<T>(3, |y| options.softmax().logsumexp(view(), y)));
    }
}

#[test]
fn refused_calls_write_nothing() {
    refusals_write_nothing::<f32>();
    refusals_write_nothing::<f64>();
    refusals_write_nothing::<f16>();
    refusals_write_nothing::<bf16>();
}

/// Sigmoid and hardmax write between the guards; picks read between them.
fn decisions_stay_between_the_guards<T: Bits + Pattern>()
where
    T::Arithmetic: Bits,
{
    type Run<T> = fn(&Options, Matrix<T>, MatrixMut<T>) -> Result<(), Error>;
    let maps: [Run<T>; 4] = [
        |options, x, y| options.sigmoid().sigmoid(x, y),
        |options, x, y| options.sigmoid().log_sigmoid(x, y),
        |options, x, y| options.hardmax(Ties::Share).hardmax(x, y),
        |options, x, y| options.hardmax(Ties::First).hardmax(x, y),
    ];
    let mut random = Random(21);
    let (mut input, mut output) = (Guarded::<T>::new(4097), Guarded::<T>::new(4097));
    for kernel in exact() {
        for (n, last) in lengths(kernel).into_iter().flat_map(|n| [(n, 0), (n, usize::MAX)]) {
            let options =
                |kernel| on(kernel, 0.7, Masked::Zero).caches(Caches::new(usize::MAX, last));
            let (options, reference) = (options(kernel), options(scalar()));
            let row: Vec<T> = row(&mut random, n % KINDS, n);
            for edge in EDGES {
                let what = || format!("{} {n} {} at {edge:?}", kernel.name(), T::NAME);
                let x = Matrix::new(&*input.copy(edge, &row), n).unwrap();
                for map in maps {
                    let mut want = vec![T::ZERO; n];
                    map(&reference, x, MatrixMut::new(&mut want, n).unwrap()).unwrap();
                    let y = output.at(edge, n);
                    y.fill(T::from_f64(-77.0));
                    map(&options, x, MatrixMut::new(&mut *y, n).unwrap()).unwrap();
                    assert_same(y, &want, what);
                }
                let pick = |options: &Options| {
                    let k = n.min(3);
                    let (mut index, mut indices) = ([0], vec![0; k]);
                    let mut log_probs = vec![<T::Arithmetic as softmax::Element>::ZERO; k + 1];
                    options.hardmax(Ties::Share).argmax(x, &mut index).unwrap();
                    options.top_k(k).log_probs(x, &mut log_probs[..k], &mut indices).unwrap();
                    options.log_probs().log_probs(x, &[n - 1], &mut log_probs[k..]).unwrap();
                    indices.extend(index);
                    (indices, log_probs)
                };
                let (got, want) = (pick(&options), pick(&reference));
                assert_eq!(got.0, want.0, "{}", what());
                assert_same(&got.1, &want.1, what);
            }
        }
    }
}

#[test]
fn decisions_stay_between_the_guards_of_every_type() {
    decisions_stay_between_the_guards::<f32>();
    decisions_stay_between_the_guards::<f64>();
    decisions_stay_between_the_guards::<f16>();
    decisions_stay_between_the_guards::<bf16>();
}

#[test]
fn by_either_stores() {
    with_the_other_stores(|| {
        every_way_stays_between_the_guards_in_every_type();
        scores_and_columns_stay_between_the_guards_in_every_type();
        losses_stay_between_the_guards_in_every_type();
        decisions_stay_between_the_guards_of_every_type();
    });
}
