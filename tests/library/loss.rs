//! Cross-entropy, its gradient, and the gradients through softmax and log-softmax: against exact
//! arithmetic, PyTorch's results and finite differences; every kernel and way against the
//! reference, bit for bit.

use std::num::NonZeroUsize;

use crate::common::*;
use proptest::prelude::*;
use softmax::half::{bf16, f16};
use softmax::{
    Caches, CrossEntropy, Element, Error, Kernel, Masked, Matrix, MatrixMut, Reduction, Targets,
    Threads,
};
use softmax_measure::oracle::{Dd, F32, F64, Format, exact, ulps};

/// A call.
#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    cols: usize,
    /// `None`: the targets are probabilities.
    labels: Option<Vec<i64>>,
    smoothing: f64,
    weights: Option<Vec<f32>>,
    z: f64,
    divergence: bool,
    factors: Option<Vec<f64>>,
    factor: f64,
    temperature: f64,
    mean: bool,
    kind: usize,
    seed: u64,
}

impl Case {
    fn random(seed: u64) -> Self {
        let r = &mut Random(seed);
        let rows = 1 + r.below(5);
        let cols = match r.below(8) {
            0 => 1 + r.below(3),
            1 => 4090 + r.below(20),
            2 => 2 * 4096 + r.below(100),
            _ => 1 + r.below(150),
        };
        let label = |r: &mut Random| if r.below(6) == 0 { -100 } else { r.below(cols) as i64 };
        Self {
            rows,
            cols,
            labels: (r.below(3) > 0).then(|| (0..rows).map(|_| label(r)).collect()),
            smoothing: if r.once_in(3) { [0.1, 0.5, 1.0][r.below(3)] } else { 0.0 },
            weights: r.once_in(3).then(|| (0..cols).map(|_| (r.signed() + 1.0) as f32).collect()),
            z: if r.once_in(4) { 1e-2 } else { 0.0 },
            divergence: r.once_in(4),
            factors: r.once_in(4).then(|| (0..rows).map(|_| r.signed() * 2.0).collect()),
            factor: [1.0, 128.0, -0.3][r.below(3)],
            temperature: [1.0, 1.0, 0.7, 3.0][r.below(4)],
            mean: r.once_in(2),
            kind: [0, 0, 0, 1, 4, 5, 6][r.below(7)],
            seed,
        }
    }

    fn logits<T: Element>(&self) -> Vec<T> {
        let mut random = Random(self.seed ^ 0x10917);
        (0..self.rows).flat_map(|_| row::<T>(&mut random, self.kind, self.cols)).collect()
    }

    /// Probabilities, some of them 0.
    fn probs<T: Element>(&self) -> Vec<T> {
        let mut random = Random(self.seed ^ 0x9806);
        (0..self.rows)
            .flat_map(|_| {
                let q: Vec<f64> = (0..self.cols).map(|_| random.signed().max(0.0)).collect();
                let sum = q.iter().sum::<f64>().max(0.01);
                q.into_iter().map(move |q| T::from_f64(q / sum))
            })
            .collect()
    }

    fn loss(&self, options: Options<'static>) -> CrossEntropy<'_> {
        let options = options.temperature(self.temperature);
        let mut loss = options.cross_entropy().gradient_factor(self.factor);
        loss = loss.label_smoothing(self.smoothing).z_loss(self.z);
        loss = loss.reduction(if self.mean { Reduction::Mean } else { Reduction::Sum });
        if let Some(weights) = &self.weights {
            loss = loss.weights(weights);
        }
        if let Some(factors) = &self.factors {
            loss = loss.row_factors(factors);
        }
        if self.divergence { loss.divergence() } else { loss }
    }

    fn targets<'a, T>(&'a self, probs: &'a [T]) -> Targets<'a, T> {
        match &self.labels {
            Some(labels) => labels.into(),
            None => Matrix::new(probs, self.cols).expect("whole rows").into(),
        }
    }

    /// The divisor of the sum.
    fn divisor(&self) -> f64 {
        let weight = |j: i64| self.weights.as_ref().map_or(1.0, |w| f64::from(w[j as usize]));
        match &self.labels {
            _ if !self.mean => 1.0,
            None => self.rows as f64,
            Some(labels) => labels.iter().filter(|&&j| j != -100).map(|&j| weight(j)).sum(),
        }
    }

    /// The exact loss of a row; and for each gradient its value, and the larger of the two terms
    /// whose difference it is.
    fn model(&self, i: usize, x: &[f64], q: &[f64]) -> (f64, Vec<(Dd, f64)>) {
        let n = x.len() as f64;
        let of = exact(x, self.temperature);
        let weight = |j: usize| self.weights.as_ref().map_or(1.0, |w| f64::from(w[j]));
        let label = self.labels.as_ref().map(|labels| labels[i]);
        if label == Some(-100) {
            return (0.0, vec![(Dd(0.0, 0.0), 0.0); x.len()]);
        }
        let spread = self.smoothing / n;
        let smooth = |j: usize| match label {
            Some(label) => f64::from(u8::from(label == j as i64)),
            None => q[j],
        } * (1.0 - self.smoothing) + spread;
        let t: Vec<f64> = (0..x.len()).map(|j| weight(j) * smooth(j)).collect();
        let mut loss = Dd(0.0, 0.0);
        let mut mass = Dd(0.0, 0.0);
        for (j, &t) in t.iter().enumerate().filter(|t| *t.1 != 0.0) {
            let mut log = of.log_softmax[j].scaled(-1.0);
            // The entropy of a label is 0 unless it is smoothed.
            if self.divergence && (label.is_none() || self.smoothing > 0.0) {
                log = log.add(Dd(smooth(j), 0.0).ln());
            }
            loss = loss.add(log.mul(Dd(t, 0.0)));
            mass = mass.add(Dd(t, 0.0));
        }
        let lse = of.logsumexp;
        loss = loss.add(lse.mul(lse).mul(Dd(self.z, 0.0)));
        let factor = self.factors.as_ref().map_or(1.0, |f| f[i]);
        let outer = Dd(factor * self.factor, 0.0).div(Dd(self.temperature, 0.0));
        let outer = outer.div(Dd(self.divisor(), 0.0));
        let mass = mass.add(lse.mul(Dd(2.0 * self.z, 0.0)));
        let gradient = of.softmax.iter().zip(&t).enumerate().map(|(j, (p, &t))| {
            let (p, q) = (p.mul(mass).mul(outer), Dd(t, 0.0).mul(outer));
            let value = p.add(q.scaled(-1.0));
            // With a label alone, its column's gradient is not a difference.
            let pure = label == Some(j as i64) && self.smoothing == 0.0 && self.z == 0.0;
            (value, if pure { value.0.abs() } else { p.0.abs().max(q.0.abs()) })
        });
        (loss.0 * factor, gradient.collect())
    }
}

/// Loss and gradient.
fn run<T: Element>(case: &Case, options: Options<'static>, x: &[T], q: &[T]) -> (f64, Vec<T>) {
    let mut y = vec![T::from_f64(-77.0); x.len()];
    let x = Matrix::new(x, case.cols).expect("whole rows");
    let y_view = MatrixMut::new(&mut y, case.cols).expect("whole rows");
    let loss = case.loss(options).gradient(x, case.targets(q), y_view).expect("a valid call");
    (loss, y)
}

fn accurate<T: Bits>(case: &Case, format: Format, bound: f64, of_loss: f64) {
    let (x, q): (Vec<T>, Vec<T>) = (case.logits(), case.probs());
    let wide = |v: &[T]| -> Vec<f64> { v.iter().map(|v| v.to_f64()).collect() };
    let (mut want_loss, mut size, mut want) = (0.0, 0.0f64, Vec::new());
    for (i, (x, q)) in x.chunks(case.cols).zip(q.chunks(case.cols)).enumerate() {
        let (loss, gradient) = case.model(i, &wide(x), &wide(q));
        want_loss += loss;
        size += loss.abs();
        want.extend(gradient);
    }
    want_loss /= case.divisor();
    // A divergence is a difference; flushed elements count as nothing.
    size = size / case.divisor() + if case.divergence { 10.0 } else { 1e-30 };
    for kernel in available() {
        let options = Options::new().kernel(kernel).threads(Threads::Serial);
        let (loss, y) = run(case, options, &x, &q);
        for (at, (got, &(want, size))) in y.iter().zip(&want).enumerate() {
            let got = got.to_f64();
            // In ULP of the terms whose difference it is.
            let ulp = 1.0 / ulps(0.0, Dd(size.max(got.abs()), 0.0), format) * size.max(got.abs());
            let error = Dd::sum(got, -want.0).add(Dd(-want.1, 0.0)).0.abs();
            let tiny = size <= 1e-36;
            let divided_by_nothing = case.divisor() == 0.0;
            assert!(
                error <= bound * ulp || tiny || divided_by_nothing,
                "{} row {} column {}: {got} {want:?}, {} ULP of {size}, {case:?}",
                kernel.name(),
                at / case.cols,
                at % case.cols,
                error / ulp
            );
        }
        let near = (loss - want_loss).abs() <= of_loss * size;
        assert!(near || want_loss.is_nan(), "{}: {loss} {want_loss} {case:?}", kernel.name());
    }
}

/// Checks that every kernel has the reference's bits in every way.
fn same_bits<T: Bits>(case: &Case) {
    let (x, q): (Vec<T>, Vec<T>) = (case.logits(), case.probs());
    let want = run(case, Options::new().kernel(scalar()), &x, &q);
    let two = NonZeroUsize::new(2).expect("not 0");
    for kernel in exact_kernels() {
        let options = Options::new().kernel(kernel).threads(Threads::Serial);
        let ways = [
            options,
            options.caches(Caches::new(usize::MAX, 0)),
            options.caches(Caches::new(0, usize::MAX)).threads(Threads::Exactly(two)),
        ];
        for (way, options) in ways.into_iter().enumerate() {
            let what = || format!("{} {} way {way}: {case:?}", kernel.name(), T::NAME);
            let got = run(case, options, &x, &q);
            assert_same(&got.1, &want.1, what);
            assert_same(&[got.0], &[want.0], what);
            let mut y = x.clone();
            let view = MatrixMut::new(&mut y, case.cols).expect("whole rows");
            let loss = case.loss(options).gradient_in_place(view, case.targets(&q));
            assert_same(&y, &want.1, || format!("in place, {}", what()));
            assert_same(&[loss.expect("a valid call")], &[want.0], what);
            let view = Matrix::new(&x, case.cols).expect("whole rows");
            let loss = case.loss(options).loss(view, case.targets(&q)).expect("a valid call");
            assert_same(&[loss], &[want.0], what);
        }
    }
}

fn exact_kernels() -> Vec<&'static Kernel> {
    crate::common::exact()
}

proptest! {
    #![proptest_config(config(400, 48, 0x1055))]

    #[test]
    fn any_options_are_accurate_f32(seed: u64) {
        accurate::<f32>(&Case::random(seed), F32, 3.0, 1e-7);
    }

    #[test]
    fn any_options_are_accurate_f64(seed: u64) {
        accurate::<f64>(&Case::random(seed), F64, 6.0, 1e-14);
    }

    #[test]
    fn any_options_have_the_same_bits(seed: u64) {
        let mut case = Case::random(seed);
        // Any kind of row here, special ones among them.
        case.kind = (seed >> 40) as usize % KINDS;
        match seed % 4 {
            0 => same_bits::<f64>(&case),
            1 => same_bits::<f16>(&case),
            2 => same_bits::<bf16>(&case),
            _ => same_bits::<f32>(&case),
        }
    }
}

/// The sections of the fixture file: its lines by their names.
fn fixtures() -> Vec<Vec<(&'static str, Vec<f64>)>> {
    let text = include_str!("../fixtures/cross_entropy.txt");
    let line = |line: &'static str| {
        let (name, values) = line.split_once(": ").expect("a name");
        (
            name,
            values
                .split(' ')
                .filter(|v| !v.is_empty())
                .map(|v| v.parse().expect("a number"))
                .collect(),
        )
    };
    let blocks = text.split("\n\n").skip(1);
    blocks.map(|block| block.lines().filter(|l| l.contains(": ")).map(line).collect()).collect()
}

#[test]
fn pytorch_agrees() {
    let fixtures = fixtures();
    assert_eq!(fixtures.len(), 25);
    for fixture in fixtures {
        let get = |name: &str| fixture.iter().find(|line| line.0 == name).map(|line| &line.1[..]);
        let cols = get("shape").expect("a shape")[1] as usize;
        let logits = get("logits").expect("logits");
        let weights: Vec<f32> = get("weights").unwrap_or(&[]).iter().map(|&w| w as f32).collect();
        let labels: Option<Vec<i64>> =
            get("labels").map(|labels| labels.iter().map(|&l| l as i64).collect());
        let targets = || match &labels {
            Some(labels) => labels.into(),
            None => {
                Targets::Probs(Matrix::new(get("probs").expect("targets"), cols).expect("rows"))
            }
        };
        let mut loss = CrossEntropy::new().label_smoothing(get("smoothing").expect("one")[0]);
        if !weights.is_empty() {
            loss = loss.weights(&weights);
        }
        loss = loss.reduction(if get("mean").is_some() { Reduction::Mean } else { Reduction::Sum });
        let x = Matrix::new(logits, cols).expect("whole rows");
        let mut gradient = vec![0.0; logits.len()];
        let view = MatrixMut::new(&mut gradient, cols).expect("whole rows");
        let total = loss.gradient(x, targets(), view).expect("a valid call");
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-13 * (1.0 + b.abs());
        if let Some(none) = get("none") {
            let mut losses = vec![0.0; none.len()];
            loss.losses(x, targets(), &mut losses).expect("a valid call");
            assert!(losses.iter().zip(none).all(|(&a, &b)| near(a, b)), "{losses:?} {none:?}");
        } else {
            let want = get("mean").or(get("sum")).expect("a reduction")[0];
            assert!(near(total, want), "{total} {want}");
        }
        for (&a, &b) in gradient.iter().zip(get("gradient").expect("one")) {
            assert!(near(a, b), "{a} {b} {fixture:?}");
        }
    }
}

#[test]
fn gradients_are_finite_differences() {
    for seed in 0..60 {
        let mut case = Case::random(seed);
        (case.kind, case.factor) = (0, 1.0);
        if case.cols > 200
            || case.labels.iter().flatten().all(|&l| l == -100) && case.labels.is_some()
        {
            continue;
        }
        let (mut x, q): (Vec<f64>, Vec<f64>) = (case.logits(), case.probs());
        let (_, gradient) = run(&case, Options::new(), &x, &q);
        let h = 1e-5;
        for i in (0..x.len()).step_by(1 + x.len() / 20) {
            let at = x[i];
            let [a, b] = [at - h, at + h].map(|v| {
                x[i] = v;
                run(&case, Options::new(), &x, &q).0
            });
            x[i] = at;
            let slope = (b - a) / (2.0 * h);
            assert!((gradient[i] - slope).abs() < 1e-6, "{} {slope} {case:?}", gradient[i]);
        }
    }
}

#[test]
fn backward_is_accurate() {
    let mut random = Random(3);
    for (n, kind) in [(1, 0), (7, 0), (100, 0), (100, 1), (5000, 0), (33, 4)] {
        let x: Vec<f64> = row(&mut random, kind, n);
        let u: Vec<f64> = row(&mut random, 0, n);
        for kernel in available() {
            let options = on(kernel, 0.5, Masked::Nan);
            for log in [false, true] {
                let op = if log { Op::LogSoftmax } else { Op::Softmax };
                let y = run_row(&options, op, &x);
                let p: Vec<f64> = if log { y.iter().map(|y| y.exp()).collect() } else { y.clone() };
                let dot: f64 = p.iter().zip(&u).map(|(p, u)| if log { *u } else { p * u }).sum();
                let single = |v: &[f64]| -> Vec<f32> { v.iter().map(|&v| v as f32).collect() };
                let got = backward(&options, log, &y, &u, n);
                let got_f32 = backward(&options, log, &single(&y), &single(&u), n);
                for j in 0..n {
                    let want = 2.0 * if log { u[j] - p[j] * dot } else { p[j] * (u[j] - dot) };
                    let size = u[j].abs().max(if log { p[j] } else { 1.0 } * dot.abs());
                    let size = 2.0 * size * if log { 1.0 } else { p[j] };
                    let off = (got[j] - want).abs();
                    assert!(
                        off <= 1e-13 * size + 1e-300,
                        "{} {log} {} {want}",
                        kernel.name(),
                        got[j]
                    );
                    // PyTorch's inputs were rounded, too.
                    let off = (f64::from(got_f32[j]) - want).abs();
                    assert!(
                        off <= 4e-6 * size + 1e-36,
                        "{} {log} {} {want}",
                        kernel.name(),
                        got_f32[j]
                    );
                }
            }
        }
    }
}

fn backward_same_bits<T: Bits>() {
    let mut random = Random(4);
    for n in [1, 2, 7, 8, 15, 16, 17, 33, 100, 4095, 4097, 8200] {
        for kind in 0..KINDS {
            let x: Vec<T> = row(&mut random, kind, 3 * n);
            let u: Vec<T> = row(&mut random, (kind + n) % KINDS, 3 * n);
            for log in [false, true] {
                let op = if log { Op::LogSoftmax } else { Op::Softmax };
                let y = crate::common::run(
                    &on(scalar(), 3.0, Masked::Nan),
                    op,
                    Matrix::new(&x, n).expect("rows"),
                );
                let want = backward(&on(scalar(), 3.0, Masked::Nan), log, &y, &u, n);
                for kernel in exact_kernels() {
                    let got = backward(&on(kernel, 3.0, Masked::Nan), log, &y, &u, n);
                    assert_same(&got, &want, || {
                        format!("{} {} {n} {kind} {log}", kernel.name(), T::NAME)
                    });
                }
            }
        }
    }
}

#[test]
fn backward_has_the_same_bits_in_every_type() {
    backward_same_bits::<f32>();
    backward_same_bits::<f64>();
    backward_same_bits::<f16>();
    backward_same_bits::<bf16>();
}

/// The one constant for x86-64 and AArch64. It changes only with the arithmetic contract.
const DIGEST: u64 = 0xeb6b_3767_86c9_631c;

#[test]
fn digest_is_the_same_on_every_cpu() {
    fn add_to<T: Bits>(digest: &mut Fnv, kernel: &'static Kernel) {
        for seed in 0..40 {
            let case = Case::random(seed);
            let (x, q): (Vec<T>, Vec<T>) = (case.logits(), case.probs());
            let (loss, y) = run(&case, Options::new().kernel(kernel), &x, &q);
            digest.add(&y);
            digest.add(&[loss]);
            digest.add(&backward(&on(kernel, 1.0, Masked::Nan), seed % 2 == 0, &x, &q, case.cols));
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
fn special_values() {
    const INF: f32 = f32::INFINITY;
    for kernel in available() {
        let loss = Options::new().kernel(kernel).cross_entropy();
        let one = |loss: CrossEntropy, x: &[f32], label: i64| {
            let mut y = x.to_vec();
            let view = MatrixMut::new(&mut y, x.len()).expect("a row");
            (loss.gradient_in_place(view, &[label]).expect("a valid call"), y)
        };
        // Special rows.
        for x in [[f32::NAN, 1.0], [INF, 1.0], [-INF, -INF]] {
            let (l, y) = one(loss, &x, 0);
            assert!(l.is_nan() && y.iter().all(|v| v.to_bits() == 0x7fc0_0000), "{x:?}");
        }
        // The label has probability 0.
        assert_eq!(one(loss, &[-INF, 1.0], 0), (f64::INFINITY, vec![-1.0, 1.0]));
        assert_eq!(one(loss, &[-INF, 1.0], 1), (0.0, vec![0.0, 0.0]));
        // The label has no weight either.
        assert_eq!(
            one(loss.weights(&[0.0, 1.0]).reduction(Reduction::Sum), &[-INF, 1.0], 0).0,
            0.0
        );
        // A row of one.
        assert_eq!(one(loss, &[3.0], 0), (0.0, vec![0.0]));
        // Only ignored rows.
        let (l, y) = one(loss, &[3.0, 4.0], -100);
        assert!(l.is_nan() && y == [0.0, 0.0]);
        assert_eq!(
            one(loss.reduction(Reduction::Sum), &[3.0, f32::NAN], -100),
            (0.0, vec![0.0; 2])
        );
        assert_eq!(one(loss.ignore_index(1).reduction(Reduction::Sum), &[3.0, 1.0], 1).0, 0.0);
        // Factors out of range give the one NaN, whichever one the CPU makes.
        let x = [-120.0, 0.5, 0.5, 1.0];
        for factor in [INF.into(), f64::NAN] {
            let (_, y) = one(loss.gradient_factor(factor), &x, 1);
            assert!(y.iter().all(|v| v.to_bits() == 0x7fc0_0000 || *v == -INF), "{factor}: {y:?}");
            assert!(y[2].is_nan() && y[0].is_nan(), "{factor}: {y:?}");
        }
        // Factors out of f32's range give the rounded result.
        let (_, y) = one(loss.gradient_factor(f64::MAX), &x, 1);
        assert_eq!(y, [0.0, -INF, INF, INF]);
        // Up to that the gradient is right, however exponentials are scaled on the way.
        for (x, factor) in [([121.0f32; 4], 1e38), ([-80.0; 4], -3e38)] {
            let (_, y) = one(loss.gradient_factor(factor), &x, 1);
            assert_eq!(y[3], (factor / 4.0) as f32);
        }
        let mut y = [3.0f64; 2];
        let view = MatrixMut::new(&mut y, 2).expect("a row");
        loss.gradient_factor(1e306).gradient_in_place(view, &[0]).expect("a valid call");
        assert_eq!(y, [-5e305, 5e305]);
        // A nearly certain label: its gradient is not computed as 1 - 1.
        let (l, y) = one(loss, &[0.0, 15.0], 1);
        let want = (-15.0f64).exp() / (1.0 + (-15.0f64).exp());
        assert!(
            (f64::from(-y[1]) / want - 1.0).abs() < 2e-7 && (l / want - 1.0).abs() < 2e-7,
            "{y:?} {l}"
        );
        // Target probabilities of 0 at logits of -inf do not count.
        let q = [1.0f32, 0.0];
        let l = loss
            .loss(Matrix::new(&[1.0, -INF], 2).expect("a row"), Matrix::new(&q, 2).expect("a row"));
        assert_eq!(l, Ok(0.0));
        // The divergence from itself is 0.
        let x = [0.0f64, 1.0, 2.0];
        let mut p = [0.0; 3];
        softmax::softmax(&x, &mut p).expect("a row");
        let l = loss
            .divergence()
            .loss(Matrix::new(&x, 3).expect("a row"), Matrix::new(&p, 3).expect("a row"));
        assert!(l.expect("a valid call").abs() < 1e-15);
        // No rows, and rows without columns.
        let empty = Matrix::<f32>::with_stride(&[], 0, 3, 3).expect("a shape");
        let none: &[i64] = &[];
        assert_eq!(loss.reduction(Reduction::Sum).loss(empty, none), Ok(0.0));
        assert!(loss.loss(empty, none).expect("a valid call").is_nan());
        let narrow = Matrix::<f32>::with_stride(&[], 2, 0, 3).expect("a shape");
        assert_eq!(loss.loss(narrow, narrow), Ok(0.0));
    }
}

/// The sum has the same bits for any number of threads.
#[test]
fn sums_are_in_a_fixed_order() {
    let (rows, cols) = (1000, 50);
    let x: Vec<f32> = row(&mut Random(1), 0, rows * cols);
    let labels: Vec<i64> = (0..rows).map(|i| (i * 7 % cols) as i64).collect();
    let view = Matrix::new(&x, cols).expect("whole rows");
    let with = |threads| Options::new().threads(threads).cross_entropy().loss(view, &labels);
    let want = with(Threads::Serial).expect("a valid call");
    for n in 2..6 {
        let got = with(Threads::Exactly(NonZeroUsize::new(n).expect("not 0")));
        assert_eq!(got.expect("a valid call").to_bits(), want.to_bits());
    }
}

#[test]
fn what_does_not_fit_is_named_and_nothing_is_written() {
    let x = [1.0f32; 6];
    let view = Matrix::new(&x, 3).expect("whole rows");
    let refused = |loss: CrossEntropy, targets: Targets<f32>, message: &str| {
        let mut y = [-7.0f32; 6];
        let to = MatrixMut::new(&mut y, 3).expect("whole rows");
        let e: Error = loss.gradient(view, targets, to).expect_err(message);
        assert!(e.to_string().contains(message), "{e}");
        assert_eq!(y, [-7.0; 6]);
    };
    let loss = CrossEntropy::new();
    refused(loss, (&[0, 3]).into(), "row 1: 3 is not one of its 3 columns");
    refused(loss, (&[-1, 0]).into(), "row 0: -1 is not one of its 3 columns");
    refused(loss, (&[0]).into(), "number of labels (one for each row) must be 2, got 1");
    refused(
        loss.weights(&[1.0; 2]),
        (&[0, 1]).into(),
        "number of weights (one for each class) must be 3, got 2",
    );
    refused(loss.row_factors(&[1.0]), (&[0, 1]).into(), "number of row factors must be 2, got 1");
    let narrow = Matrix::new(&x[..4], 2).expect("whole rows");
    refused(loss, narrow.into(), "the matrix of targets must be 2 x 3, got 2 x 2");
    let mut y = [-7.0f32; 4];
    let to = MatrixMut::new(&mut y, 2).expect("whole rows");
    let e = loss.gradient(view, &[0, 1], to).expect_err("other shapes");
    assert!(e.to_string().contains("gradient must be 2 x 3, got 2 x 2"), "{e}");
    let mut losses = [-7.0; 3];
    let e = loss.losses(view, &[0, 1], &mut losses).expect_err("three of two");
    assert!(e.to_string().contains("number of losses (one for each row) must be 2, got 3"), "{e}");
    for bad in [-0.1, 1.1, f64::NAN] {
        let e =
            loss.label_smoothing(bad).loss(view, &[0, 1]).expect_err("out of range").to_string();
        assert!(e.contains("label smoothing must be in 0..=1, got"), "{e}");
    }
    for bad in [-0.1, f64::INFINITY, f64::NAN] {
        let e = loss.z_loss(bad).loss(view, &[0, 1]).expect_err("out of range").to_string();
        assert!(e.contains("z-loss must be finite and not negative, got"), "{e}");
    }
    let mut y = [0.0f32; 6];
    let to = MatrixMut::new(&mut y, 3).expect("whole rows");
    let e = Options::new().backward().softmax(view, narrow, to).expect_err("other shapes");
    assert!(e.to_string().contains("gradient must be 2 x 3, got 2 x 2"), "{e}");
}

#[test]
fn by_either_stores() {
    with_the_other_stores(any_options_have_the_same_bits);
}
