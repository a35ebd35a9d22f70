//! Rows of different lengths: each has the bits that it has alone, by every kernel, whatever rows
//! are beside it, on any threads; and wrong offsets are refused before anything is written.

use std::num::NonZeroUsize;

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{
    BLOCK, Backward, BitMask, Caches, CrossEntropy, Element, Error, Exec, Hardmax, Kernel, Masked,
    Matrix, MatrixMut, Offsets, Ragged, RaggedMut, RaggedTargets, Reduction, Softmax, Targets,
    Threads, Ties,
};

/// Elements of the slice before the first row and behind the last.
const MARGIN: usize = 5;

/// Rows of different lengths, as the offsets into one slice say.
struct Rows<T> {
    data: Vec<T>,
    offsets: Vec<usize>,
}

/// Kinds of lengths; see [`length`].
const LENGTHS: usize = 5;

fn length(random: &mut Random, kind: usize) -> usize {
    match kind {
        // A graph: mean 10.
        0 => (random.below(16) * random.below(16)) / 6 + usize::from(random.once_in(4)),
        1 => [0, 1, 2, 15, 16, 17, 31, 32, 33][random.below(9)],
        2 => [0, 1, 8, 16, 63, 64, 65, 130][random.below(8)],
        // Mostly empty.
        3 => random.below(10).saturating_sub(7),
        // Long ones among short ones.
        _ => match random.below(12) {
            0 => [700, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3][random.below(5)],
            1 => 65 + random.below(200),
            _ => random.below(65),
        },
    }
}

impl<T: Element> Rows<T> {
    /// `count` rows, some of them special, if that is wanted.
    fn new(random: &mut Random, lengths: usize, kind: usize, special: bool, count: usize) -> Self {
        let margin = |random: &mut Random| row::<T>(random, 0, MARGIN);
        let mut data = margin(random);
        let mut offsets = vec![data.len()];
        for _ in 0..count {
            let n = length(random, lengths);
            let mut x = row::<T>(random, kind, n);
            if special && random.once_in(9) && n > 0 {
                match random.below(4) {
                    0 => x.fill(T::NEG_INFINITY),
                    1 => x[random.below(n)] = T::INFINITY,
                    2 => x[random.below(n)] = T::NAN,
                    // Far from all other rows.
                    _ => x = row(random, 2, n),
                }
            }
            data.extend(x);
            offsets.push(data.len());
        }
        data.extend(margin(random));
        Self { data, offsets }
    }

    fn view(&self) -> Ragged<'_, T> {
        Ragged::new(&self.data, &self.offsets).expect("rows of the slice")
    }

    fn count(&self) -> usize {
        self.offsets.len() - 1
    }

    fn row(&self, row: usize) -> &[T] {
        &self.data[self.offsets[row]..self.offsets[row + 1]]
    }

    /// The slice with `f` of each row in its place, and with `marker` around the rows.
    fn map(&self, marker: T, f: impl Fn(&[T]) -> Vec<T>) -> Vec<T> {
        let mut y = vec![marker; self.data.len()];
        for row in 0..self.count() {
            if !self.row(row).is_empty() {
                y[self.offsets[row]..self.offsets[row + 1]].copy_from_slice(&f(self.row(row)));
            }
        }
        y
    }
}

fn one<T>(row: &[T]) -> Matrix<'_, T> {
    Matrix::with_stride(row, 1, row.len(), row.len()).expect("one row")
}

fn one_mut<T>(row: &mut [T]) -> MatrixMut<'_, T> {
    let n = row.len();
    MatrixMut::with_stride(row, 1, n, n).expect("one row")
}

/// The ways in which calls run: on one thread, on two and three, past the caches, and with rows in
/// pieces.
fn ways(kernel: &'static Kernel) -> Vec<Exec<'static>> {
    let exec = by(kernel).threads(Threads::Serial);
    let exactly = |n| exec.threads(Threads::Exactly(NonZeroUsize::new(n).expect("threads")));
    let past = exec.caches(Caches::new(1 << 20, 1 << 10));
    let pieces = Caches::new(1 << 10, 1 << 20);
    vec![exec, exactly(2), exactly(3), past, exec.caches(pieces), exactly(2).caches(pieces)]
}

/// Compares all operations on rows with those on each row alone, by the reference.
fn compare<T: Bits>(random: &mut Random, rows: &Rows<T>, options: Options, what: &str) {
    let marker = T::from_f64(-77.0);
    let mut alone = options;
    alone.exec = by(scalar());
    let expected = OPS.map(|op| match op {
        Op::LogSumExp => {
            (0..rows.count()).map(|row| run_row(&alone, op, rows.row(row))[0]).collect()
        }
        _ => rows.map(marker, |x| run_row(&alone, op, x)),
    });
    let indices: Vec<usize> = (0..rows.count())
        .map(|row| {
            let mut index = [usize::MAX];
            if !rows.row(row).is_empty() {
                let hardmax = Hardmax::new().exec(by(scalar()));
                hardmax.argmax(one(rows.row(row)), &mut index).expect("a valid call");
            }
            index[0]
        })
        .collect();
    let hardmax = rows.map(marker, |x| {
        let mut y = vec![marker; x.len()];
        alone.hardmax(Ties::Share).hardmax(one(x), one_mut(&mut y)).expect("a valid call");
        y
    });
    for kernel in available() {
        for (way, exec) in ways(kernel).into_iter().enumerate() {
            let mut options = options;
            options.exec = exec;
            let what = || format!("{what}, {}, way {way}", kernel.name());
            let softmax = options.softmax();
            // In place, markers are what was there.
            let edges = |y: &mut [T], in_place: bool| {
                let (start, end) = (rows.offsets[0], rows.offsets[rows.count()]);
                for i in (0..start).chain(end..y.len()) {
                    let untouched = if in_place { rows.data[i] } else { marker };
                    assert_eq!(y[i].bits(), untouched.bits(), "{}: element {i}", what());
                    y[i] = marker;
                }
            };
            for (op, expected) in OPS.into_iter().zip(&expected) {
                if op == Op::LogSumExp {
                    let mut y = vec![marker; rows.count()];
                    softmax.logsumexp_ragged(rows.view(), &mut y).expect("a valid call");
                    assert_same(&y, expected, || format!("{}, {op:?}", what()));
                    continue;
                }
                let mut y = vec![marker; rows.data.len()];
                let mut z = rows.data.clone();
                let view = RaggedMut::new(&mut z, &rows.offsets).expect("rows of the slice");
                if op == Op::Softmax {
                    softmax.softmax_ragged(rows.view(), &mut y).expect("a valid call");
                    softmax.softmax_ragged_in_place(view).expect("a valid call");
                } else {
                    softmax.log_softmax_ragged(rows.view(), &mut y).expect("a valid call");
                    softmax.log_softmax_ragged_in_place(view).expect("a valid call");
                }
                edges(&mut y, false);
                edges(&mut z, true);
                assert_same(&y, expected, || format!("{}, {op:?}", what()));
                assert_same(&z, expected, || format!("{}, {op:?} in place", what()));
            }
            // The others have no ways of their own.
            if random.once_in(3) {
                let mut y = vec![0; rows.count()];
                let of = Hardmax::new().exec(exec);
                of.argmax_ragged(rows.view(), &mut y).expect("a valid call");
                assert_eq!(y, indices, "{}", what());
                let mut y = vec![marker; rows.data.len()];
                let of = options.hardmax(Ties::Share);
                of.hardmax_ragged(rows.view(), &mut y).expect("a valid call");
                assert_same(&y, &hardmax, what);
                let mut z = rows.data.clone();
                let view = RaggedMut::new(&mut z, &rows.offsets).expect("rows of the slice");
                of.hardmax_ragged_in_place(view).expect("a valid call");
                edges(&mut z, true);
                assert_same(&z, &hardmax, what);
            }
        }
    }
}

fn each_row<T: Bits>(seed: u64) {
    let random = &mut Random(seed);
    let cases = if quick() { 6 } else { 40 };
    for case in 0..cases {
        let (lengths, kind) = (case % LENGTHS, case / LENGTHS % KINDS);
        let count = match lengths {
            _ if random.once_in(5) => random.below(12),
            4 => 40,
            // More rows than a group has, or more elements.
            _ => 100 + random.below(400),
        };
        let special = random.once_in(3);
        let rows = Rows::<T>::new(random, lengths, kind, special, count);
        let masked = if random.once_in(2) { Masked::Zero } else { Masked::Nan };
        let mut options = Options::new().masked(masked);
        match random.below(4) {
            0 => options = options.scale([0.125, -1.0, 3.7][random.below(3)]),
            1 => options = options.temperature(0.7),
            _ => {}
        }
        let what = format!("lengths {lengths}, kind {kind}, special {special}, {options:?}");
        compare(random, &rows, options, &what);
    }
}

#[test]
fn each_row_has_the_bits_that_it_has_alone_f32() {
    each_row::<f32>(1);
    with_the_other_stores(|| {
        let random = &mut Random(2);
        let rows = Rows::<f32>::new(random, 0, 0, false, 900);
        compare(random, &rows, Options::new(), "other stores");
    });
}

#[test]
fn each_row_has_the_bits_that_it_has_alone_f64() {
    each_row::<f64>(3);
}

#[test]
fn each_row_has_the_bits_that_it_has_alone_halves() {
    each_row::<f16>(4);
    each_row::<bf16>(5);
}

#[test]
fn probabilities_are_those_of_f64() {
    let random = &mut Random(6);
    let rows = Rows::<f32>::new(random, 0, 0, false, 2000);
    for kernel in available() {
        let mut y = vec![0.0; rows.data.len()];
        let softmax = Softmax::new().exec(by(kernel));
        softmax.softmax_ragged(rows.view(), &mut y).expect("a valid call");
        for row in 0..rows.count() {
            let x: Vec<f64> = rows.row(row).iter().map(|&x| x.into()).collect();
            let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = x.iter().map(|x| (x - max).exp()).sum();
            for (i, x) in x.iter().enumerate() {
                let (p, got) = ((x - max).exp() / sum, f64::from(y[rows.offsets[row] + i]));
                // 3 ULP, of which one has at most 2^-23 of the value.
                assert!((got - p).abs() <= 3.0 * p * f64::powi(2.0, -23), "{row}: {got} for {p}");
            }
        }
    }
}

#[test]
fn offsets_of_all_types_say_the_same() {
    let random = &mut Random(7);
    let rows = Rows::<f32>::new(random, 0, 0, false, 600);
    let expected = {
        let mut y = vec![0.0; rows.data.len()];
        softmax::Softmax::new().softmax_ragged(rows.view(), &mut y).expect("a valid call");
        y
    };
    let i32s: Vec<i32> = rows.offsets.iter().map(|&o| o as i32).collect();
    let i64s: Vec<i64> = rows.offsets.iter().map(|&o| o as i64).collect();
    for offsets in [Offsets::from(&i32s), Offsets::from(&i64s)] {
        let x = Ragged::new(&rows.data, offsets).expect("rows of the slice");
        let mut y = vec![0.0; rows.data.len()];
        Softmax::new().softmax_ragged(x, &mut y).expect("a valid call");
        assert_same(&y, &expected, || format!("{:?}", std::mem::discriminant(&offsets)));
    }
}

#[test]
fn masks_hide_elements_of_the_slice() {
    let random = &mut Random(8);
    let rows = Rows::<f32>::new(random, 1, 0, false, 60);
    let shown: Vec<bool> = rows.data.iter().map(|_| !random.once_in(3)).collect();
    let mut hidden = Rows { data: rows.data.clone(), offsets: rows.offsets.clone() };
    hidden.data.iter_mut().zip(&shown).filter(|(_, shown)| !**shown).for_each(|(x, _)| {
        *x = f32::NEG_INFINITY;
    });
    for exec in ways(softmax::default_kernel().expect("a kernel")) {
        let plain = Softmax::new().masked(Masked::Zero).exec(exec);
        let masked = plain.mask(&shown);
        let [mut y, mut z] = [(); 2].map(|()| vec![-77.0; rows.data.len()]);
        masked.softmax_ragged(rows.view(), &mut y).expect("a valid call");
        plain.softmax_ragged(hidden.view(), &mut z).expect("a valid call");
        assert_same(&y, &z, || "softmax".to_owned());
        masked.log_softmax_ragged(rows.view(), &mut y).expect("a valid call");
        plain.log_softmax_ragged(hidden.view(), &mut z).expect("a valid call");
        assert_same(&y, &z, || "log-softmax".to_owned());
        let [mut y, mut z] = [(); 2].map(|()| vec![-77.0; rows.count()]);
        masked.logsumexp_ragged(rows.view(), &mut y).expect("a valid call");
        plain.logsumexp_ragged(hidden.view(), &mut z).expect("a valid call");
        assert_same(&y, &z, || "log-sum-exp".to_owned());
    }
    let short = &shown[..rows.offsets[rows.count()] - 1];
    let mut y = vec![-77.0; rows.data.len()];
    let refused = Softmax::new().mask(short).softmax_ragged(rows.view(), &mut y);
    assert!(matches!(refused, Err(Error::Shape { .. })));
    let words = vec![!0; rows.data.len()];
    let refused = Softmax::new().mask(BitMask::new(&words)).softmax_ragged(rows.view(), &mut y);
    assert!(matches!(refused, Err(Error::Value { .. })));
    assert!(y.iter().all(|&y| y == -77.0));
}

/// Losses and gradients of rows beside each other, and of each alone.
fn losses<T: Bits>(seed: u64) {
    let random = &mut Random(seed);
    let marker = T::from_f64(-77.0);
    for case in 0..if quick() { 3 } else { 10 } {
        let rows = Rows::<T>::new(random, case % 3, [0, 3, 6][case % 3], case > 5, 90);
        let labels: Vec<i64> = (0..rows.count())
            .map(|row| match rows.row(row).len() {
                0 => -100,
                _ if random.once_in(7) => -100,
                n => random.below(n) as i64,
            })
            .collect();
        let probs =
            rows.map(T::ZERO, |x| x.iter().map(|_| T::from_f64(random_share(x.len()))).collect());
        let probs = Ragged::new(&probs, &rows.offsets).expect("rows of the slice");
        let weights: Vec<f32> = (0..140).map(|i| 1.0 + (i % 5) as f32).collect();
        let factors: Vec<f64> = (0..rows.count()).map(|_| random.signed()).collect();
        let scale = [1.0, 0.25, -1.5][random.below(3)];
        let mut loss = CrossEntropy::new().scale(scale).gradient_factor(2.0);
        if random.once_in(2) {
            loss = loss.label_smoothing(0.1).z_loss(1e-4);
        }
        let (weighted, with_factors) = (random.once_in(2), random.once_in(2));
        if with_factors {
            loss = loss.row_factors(&factors);
        }
        let against: [RaggedTargets<T>; 2] = [(&labels).into(), probs.into()];
        for targets in against {
            let of_labels = matches!(targets, RaggedTargets::Labels(_));
            let all = if weighted { loss.weights(&weights) } else { loss };
            let divisor = match of_labels {
                true => all.divisor(&labels, 140),
                false => Ok(rows.count() as f64),
            };
            let divisor = divisor.expect("valid labels");
            // Each row alone, by the reference.
            let (mut wanted, mut wanted_y) =
                (vec![0.0; rows.count()], vec![marker; rows.data.len()]);
            for row in 0..rows.count() {
                let n = rows.row(row).len();
                let alone = loss.reduction(Reduction::Sum).gradient_factor(2.0 / divisor);
                let alone = alone.exec(by(scalar()));
                let alone = if weighted { alone.weights(&weights[..n]) } else { alone };
                let factor = [factors[row]];
                let alone = if with_factors { alone.row_factors(&factor) } else { alone };
                let label = [labels[row]];
                let targets: Targets<T> =
                    if of_labels { (&label).into() } else { one(probs.row(row)).into() };
                let y = &mut wanted_y[rows.offsets[row]..rows.offsets[row + 1]];
                let to = &mut wanted[row..=row];
                alone
                    .losses_and_gradient(one(rows.row(row)), targets, to, one_mut(y))
                    .expect("a valid call");
            }
            for kernel in available() {
                for exec in ways(kernel) {
                    let what = || format!("case {case}, {}, labels {of_labels}", kernel.name());
                    let all = all.exec(exec);
                    let (mut l, mut y) = (vec![7.0; rows.count()], vec![marker; rows.data.len()]);
                    all.losses_ragged(rows.view(), targets, &mut l).expect("a valid call");
                    assert_same(&l, &wanted, what);
                    l.fill(7.0);
                    all.losses_and_gradient_ragged(rows.view(), targets, &mut l, &mut y)
                        .expect("a valid call");
                    assert_same(&l, &wanted, what);
                    assert_same(&y, &wanted_y, what);
                    let mean = all.reduce(&wanted, divisor);
                    let got = all.loss_ragged(rows.view(), targets).expect("a valid call");
                    assert_same(&[got], &[mean], what);
                    y.fill(marker);
                    let got = all.gradient_ragged(rows.view(), targets, &mut y);
                    assert_same(&[got.expect("a valid call")], &[mean], what);
                    assert_same(&y, &wanted_y, what);
                    let mut x = rows.data.clone();
                    let view = RaggedMut::new(&mut x, &rows.offsets).expect("rows of the slice");
                    let got = all.gradient_ragged_in_place(view, targets);
                    assert_same(&[got.expect("a valid call")], &[mean], what);
                    for row in 0..rows.count() {
                        let at = rows.offsets[row]..rows.offsets[row + 1];
                        assert_same(&x[at.clone()], &wanted_y[at], what);
                    }
                }
            }
        }
    }
}

/// A share of the mass of a row of `n` elements.
fn random_share(n: usize) -> f64 {
    1.0 / (n.next_power_of_two() as f64)
}

#[test]
fn losses_and_gradients_are_those_of_each_row_alone() {
    losses::<f32>(9);
    losses::<f64>(10);
    losses::<bf16>(11);
}

fn gradients<T: Bits>(seed: u64) {
    let random = &mut Random(seed);
    let marker = T::from_f64(-77.0);
    for lengths in 0..LENGTHS {
        let rows = Rows::<T>::new(random, lengths, 0, false, 50);
        let upstream = row::<T>(random, 0, rows.data.len());
        let of_upstream = Ragged::new(&upstream, &rows.offsets).expect("rows of the slice");
        for log in [false, true] {
            let softmax = Softmax::new().scale(0.5);
            let mut output = vec![T::ZERO; rows.data.len()];
            match log {
                true => softmax.log_softmax_ragged(rows.view(), &mut output),
                false => softmax.softmax_ragged(rows.view(), &mut output),
            }
            .expect("a valid call");
            let output = Ragged::new(&output, &rows.offsets).expect("rows of the slice");
            let call = |of: Backward, output, upstream, y: MatrixMut<T>| match log {
                true => of.log_softmax(output, upstream, y),
                false => of.softmax(output, upstream, y),
            };
            let mut wanted = vec![marker; rows.data.len()];
            for row in 0..rows.count() {
                let y = &mut wanted[rows.offsets[row]..rows.offsets[row + 1]];
                let of = Backward::new().scale(0.5).exec(by(scalar()));
                call(of, one(output.row(row)), one(of_upstream.row(row)), one_mut(y))
                    .expect("a valid call");
            }
            for exec in available().into_iter().flat_map(ways) {
                let of = Backward::new().scale(0.5).exec(exec);
                let mut y = vec![marker; rows.data.len()];
                match log {
                    true => of.log_softmax_ragged(output, &upstream, &mut y),
                    false => of.softmax_ragged(output, &upstream, &mut y),
                }
                .expect("a valid call");
                assert_same(&y, &wanted, || format!("lengths {lengths}, log {log}, {exec:?}"));
            }
        }
    }
}

#[test]
fn gradients_through_softmax_are_those_of_each_row_alone() {
    gradients::<f32>(12);
    gradients::<f64>(13);
    gradients::<f16>(14);
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_written() {
    let x = [1.0f32; 6];
    let good = Ragged::new(&x, &[1usize, 3, 3, 6]).expect("rows of the slice");
    let mut y = [-77.0f32; 6];
    let shape = |result: Result<(), Error>| {
        let error = result.expect_err("it does not fit");
        assert!(matches!(error, Error::Shape { .. }), "{error}");
    };
    shape(Softmax::new().softmax_ragged(good, &mut y[..5]));
    shape(Softmax::new().log_softmax_ragged(good, &mut y[..5]));
    shape(Softmax::new().logsumexp_ragged(good, &mut y[..4]));
    shape(Softmax::new().scale(-1.0).logsumexp_ragged(good, &mut y[..2]));
    shape(Softmax::new().scale(-1.0).softmax_ragged(good, &mut y[..5]));
    shape(Hardmax::new().argmax_ragged(good, &mut [0; 2]));
    shape(Backward::new().softmax_ragged(good, &x[..5], &mut y));
    shape(Backward::new().log_softmax_ragged(good, &x, &mut y[..5]));
    let refused = Softmax::new().temperature(f64::NAN).softmax_ragged(good, &mut y);
    assert!(matches!(refused, Err(Error::Value { .. })));
    let loss = CrossEntropy::new();
    let mut losses = [7.0; 3];
    shape(loss.losses_ragged(good, &[0, -100], &mut losses));
    shape(loss.losses_ragged(good, &[0, -100, 0], &mut losses[..2]));
    shape(loss.weights(&[1.0; 2]).losses_ragged(good, &[0, -100, 0], &mut losses));
    shape(loss.row_factors(&[1.0; 2]).losses_ragged(good, &[0, -100, 0], &mut losses));
    shape(loss.losses_and_gradient_ragged(good, &[0, -100, 0], &mut losses, &mut y[..5]));
    // Row 1 is empty, so no label is one of its columns; rows 0 and 2 have two and three.
    for (labels, row) in [([0, 0, 0], 1), ([2, -100, 0], 0), ([0, -100, -1], 2)] {
        match loss.losses_ragged(good, &labels, &mut losses) {
            Err(Error::Column { row: of, index, .. }) => {
                assert_eq!((of, index), (row, labels[row]))
            }
            other => panic!("{other:?} for {labels:?}"),
        }
    }
    let other = Ragged::new(&x, &[0usize, 2, 3, 6]).expect("rows of the slice");
    let refused = loss.losses_ragged(good, other, &mut losses).expect_err("other rows");
    let message = "the number of target probabilities of row 1 must be that of its logits, got 1";
    assert_eq!(refused.to_string(), message);
    assert_eq!((y, losses), ([-77.0; 6], [7.0; 3]));
}

/// Only the rows are read and written.
#[cfg(unix)]
#[test]
fn nothing_outside_the_rows_is_touched() {
    use crate::common::guarded::{EDGES, Guarded};
    let random = &mut Random(15);
    for n in [1, 7, 16, 17, 33, 64, 65] {
        // The last row, and the first, touch the edge; the others are short.
        let mut offsets: Vec<usize> = vec![0, n];
        (0..300).for_each(|i| offsets.push(offsets[offsets.len() - 1] + [3, 0, 16, 9][i % 4]));
        offsets.push(offsets[offsets.len() - 1] + n);
        let len = offsets[offsets.len() - 1];
        let values = row::<f32>(random, 0, len);
        for edge in EDGES {
            let (mut x, mut y) = (Guarded::new(len), Guarded::new(len));
            let view = Ragged::new(x.copy(edge, &values), &offsets).expect("rows of the slice");
            for kernel in exact() {
                let softmax = Softmax::new().exec(by(kernel));
                softmax.softmax_ragged(view, y.at(edge, len)).expect("a valid call");
                softmax.log_softmax_ragged(view, y.at(edge, len)).expect("a valid call");
            }
        }
    }
}
