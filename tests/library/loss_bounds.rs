//! The documented errors of losses, their gradients and the gradients through softmax and
//! log-softmax: for difficult rows whose exact values are known to 32 digits, and for rows that a
//! search finds. Every kernel, a row alone and among others.
//!
//! `SOFTMAX_SEARCH=600` searches each bound for 600 seconds, and prints the worst.

use std::time::{Duration, Instant};

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{CrossEntropy, Element, Error, Kernel, Matrix, MatrixMut, Reduction, Threads};
use softmax_measure::oracle::{BF16, Dd, Exact, F16, F32, F64, Format, exact, ulps};

/// A type with its bounds.
trait Stated: Bits {
    const FORMAT: Format;
    /// The relative error of a row's loss.
    const LOSS: f64;
    /// Errors of gradients against labels, in ULP.
    const LABELS: f64;
    /// The same for a mean.
    const MEAN: f64;
    /// Errors of other gradients, in ULP of the largest of the terms and the gradient.
    const SOFT: f64;
    /// Error of the log-sum-exp in the z-loss, and of a divergence relative to its terms.
    const EXACT: f64;
    /// Errors of gradients through softmax, in ULP.
    const SOFTMAX: f64;
    /// The additional error, relative to `a p_j sum_i p_i |u_i|`.
    const SUM: f64;
    /// Errors of gradients through log-softmax, in ULP of the largest of the terms and the
    /// gradient.
    const LOG: f64;
    /// Exponentials below this share of the row's largest may count as 0.
    const FLUSHED: f64;
}

macro_rules! stated {
    ($t:ty, $format:ident: $loss:literal, $labels:literal, $mean:literal, $soft:literal, $exact:literal,
        $softmax:literal, $sum:literal, $log:literal) => {
        impl Stated for $t {
            const FORMAT: Format = $format;
            const LOSS: f64 = $loss;
            const LABELS: f64 = $labels;
            const MEAN: f64 = $mean;
            const SOFT: f64 = $soft;
            const EXACT: f64 = $exact;
            const SOFTMAX: f64 = $softmax;
            const SUM: f64 = $sum;
            const LOG: f64 = $log;
            const FLUSHED: f64 =
                if $format.digits == 53 { f64::MIN_POSITIVE } else { f32::MIN_POSITIVE as f64 };
        }
    };
}
stated!(f32, F32: 1e-7, 3.0, 3.0, 3.0, 5e-13, 0.51, 5e-13, 3.0);
stated!(f64, F64: 2e-15, 3.0, 4.0, 6.0, 2e-15, 3.0, 1e-24, 3.0);
stated!(f16, F16: 1e-7, 0.51, 0.51, 0.51, 5e-13, 0.51, 5e-13, 0.51);
stated!(bf16, BF16: 1e-7, 0.51, 0.51, 0.51, 5e-13, 0.51, 5e-13, 0.51);

/// An ULP of the type at this size.
fn ulp(size: f64, format: Format) -> f64 {
    if size == 0.0 {
        return 2f64.powi(format.min_exp - format.digits + 1);
    }
    size / ulps(0.0, Dd(size, 0.0), format)
}

/// The error relative to its bound.
fn part<T: Stated>(got: T, want: Dd, size: f64, bound: f64, besides: f64) -> f64 {
    let got = got.to_f64();
    let error = Dd::sum(got, -want.0).add(Dd(-want.1, 0.0)).0.abs();
    error / (bound * ulp(size.max(got.abs()), T::FORMAT) + besides)
}

/// A section of the fixture file.
struct Fixture(Vec<(&'static str, &'static str)>);

impl Fixture {
    fn all() -> Vec<Self> {
        let text = include_str!("../fixtures/loss_exact.txt");
        let line =
            |line: &'static str| line.split_once(": ").or(line.split_once(':')).expect("a name");
        let blocks = text.split("\n\n").skip(1);
        blocks.map(|block| Self(block.lines().map(line).collect())).collect()
    }

    fn text(&self, name: &str) -> Option<&'static str> {
        self.0.iter().find(|line| line.0 == name).map(|line| line.1)
    }

    fn values(&self, name: &str) -> Vec<f64> {
        let values = self.text(name).unwrap_or("").split_whitespace();
        values.map(|v| v.parse().expect("a number")).collect()
    }

    fn value(&self, name: &str) -> f64 {
        self.values(name)[0]
    }

    fn exact(&self, name: &str) -> Vec<Dd> {
        self.values(name).chunks(2).map(|v| Dd(v[0], v[1])).collect()
    }

    fn row<T: Element>(&self, name: &str) -> Vec<T> {
        self.values(name).into_iter().map(T::from_f64).collect()
    }

    fn options(&self, kernel: &'static Kernel) -> Options<'static> {
        let options = Options::new().kernel(kernel).threads(Threads::Serial);
        let (scale, temperature) = (self.value("scale"), self.value("temperature"));
        let options = if scale == 0.0 { options } else { options.scale(scale) };
        if temperature == 0.0 { options } else { options.temperature(temperature) }
    }
}

fn rows<T>(v: &[T], cols: usize) -> Matrix<'_, T> {
    Matrix::new(v, cols).expect("whole rows")
}

/// The losses of rows with the same targets, and the gradients.
fn losses<T: Stated>(fixture: &Fixture, kernel: &'static Kernel, x: &[T]) -> (Vec<f64>, Vec<T>) {
    let (weights, probs) = (fixture.row::<f32>("weights"), fixture.row::<T>("probs"));
    let n = fixture.values("logits").len();
    let mut loss = fixture
        .options(kernel)
        .cross_entropy()
        .gradient_factor(fixture.value("factor"))
        .label_smoothing(fixture.value("smoothing"))
        .z_loss(fixture.value("z"));
    if fixture.value("mean") == 0.0 {
        loss = loss.reduction(Reduction::Sum);
    }
    if !weights.is_empty() {
        loss = loss.weights(&weights);
    }
    if fixture.value("divergence") != 0.0 {
        loss = loss.divergence();
    }
    let (mut losses, mut gradient) = (vec![-7.0; x.len() / n], vec![T::ZERO; x.len()]);
    let to = MatrixMut::new(&mut gradient, n).expect("whole rows");
    if probs.is_empty() {
        let labels = vec![fixture.value("label") as i64; x.len() / n];
        loss.losses_and_gradient(rows(x, n), &labels, &mut losses, to)
    } else {
        let probs = probs.repeat(x.len() / n);
        loss.losses_and_gradient(rows(x, n), rows(&probs, n), &mut losses, to)
    }
    .expect("a valid call");
    (losses, gradient)
}

fn check_loss<T: Stated>(fixture: &Fixture) {
    let x: Vec<T> = fixture.row("logits");
    let n = x.len();
    let copies = (fixture.value("mean") as usize).max(1);
    let name = fixture.text("name").expect("a name");
    let alone = losses(fixture, scalar(), &x.repeat(copies));
    for kernel in available() {
        let what = || format!("{} {} {name}: {x:?}", kernel.name(), T::NAME);
        let (loss, gradient) = losses(fixture, kernel, &x.repeat(copies));
        let (want, divergence) = (fixture.exact("loss")[0], fixture.value("divergence") != 0.0);
        let error = Dd::sum(loss[0], -want.0).add(Dd(-want.1, 0.0)).0.abs();
        let size = if divergence { T::EXACT * (want.0.abs() + 10.0) } else { T::LOSS * want.0 };
        let with_lse = T::EXACT * fixture.value("lse_of_loss");
        assert!(error <= size + with_lse, "{}: loss {} {want:?}", what(), loss[0]);
        let pure = fixture.text("label").is_some()
            && fixture.value("smoothing") == 0.0
            && fixture.value("z") == 0.0;
        let bound = match pure {
            true if copies > 1 => T::MEAN,
            true => T::LABELS,
            false => T::SOFT,
        };
        let (want, sizes) = (fixture.exact("gradient"), fixture.values("sizes"));
        for (j, (&got, want)) in gradient[..n].iter().zip(want).enumerate() {
            let besides = T::EXACT * fixture.values("lse")[j];
            let part = part(got, want, sizes[j], bound, besides);
            assert!(part <= 1.0, "{}: column {j}: {got:?} {want:?}, {part}", what());
        }
        // Among rows with shifts far from this one's, where the guess is wrong or barely good.
        for far in [-24.0, 60.0, -70.0, 3e4] {
            let mut among: Vec<T> = x.iter().map(|x| T::from_f64(x.to_f64() + far)).collect();
            among.extend_from_slice(&x.repeat(copies));
            if copies == 1 {
                let (loss, gradient) = losses(fixture, kernel, &among);
                assert_same(&loss[1..], &alone.0, || format!("after {far}, {}", what()));
                assert_same(&gradient[n..], &alone.1, || format!("after {far}, {}", what()));
            }
        }
        assert_same(&gradient, &alone.1, what);
        assert_same(&loss, &alone.0, what);
    }
}

fn check_backward<T: Stated>(fixture: &Fixture, log: bool) {
    let (y, u): (Vec<T>, Vec<T>) = (fixture.row("output"), fixture.row("upstream"));
    for kernel in available() {
        let got = backward(&fixture.options(kernel), log, &y, &u, y.len());
        let sizes = (fixture.values("sizes"), fixture.values("sums"));
        for (j, (&got, want)) in got.iter().zip(fixture.exact("gradient")).enumerate() {
            let bound = if log { T::LOG } else { T::SOFTMAX };
            let part = part(got, want, sizes.0[j], bound, T::SUM * sizes.1[j]);
            let name = fixture.text("name").expect("a name");
            assert!(
                part <= 1.0,
                "{} {} {log} {name}: column {j}: {got:?} {want:?}, {part}",
                kernel.name(),
                T::NAME
            );
        }
    }
}

#[test]
fn hard_rows_are_within_the_stated_errors() {
    fn check<T: Stated>(fixture: &Fixture, kind: &str) {
        match kind {
            "loss" => check_loss::<T>(fixture),
            "softmax" => check_backward::<T>(fixture, false),
            "log_softmax" => check_backward::<T>(fixture, true),
            _ => panic!("no such kind: {kind}"),
        }
    }
    let fixtures = Fixture::all();
    assert!(fixtures.len() > 100, "{}", fixtures.len());
    for fixture in fixtures {
        let (kind, of) = fixture.text("kind").expect("a kind").split_once(' ').expect("and a type");
        match of {
            "f32" => check::<f32>(&fixture, kind),
            "f64" => check::<f64>(&fixture, kind),
            "f16" => check::<f16>(&fixture, kind),
            "bf16" => check::<bf16>(&fixture, kind),
            _ => panic!("no such type: {of}"),
        }
    }
}

/// The gradient of a row depends on that row and the options alone, whatever the factor and the
/// rows before.
#[test]
fn rows_do_not_change_their_neighbours() {
    fn check<T: Stated>(kernel: &'static Kernel) {
        let far = [34.0, -24.0, 70.0, -85.0, 3.0, 1e4, -1e5, 0.0];
        let x: Vec<T> = far
            .iter()
            .flat_map(|far| [0.0, -1.0, 1.0, -3.0].map(|x| T::from_f64(x + far)))
            .collect();
        let labels: Vec<i64> = (0..far.len() as i64).map(|row| row % 4).collect();
        let weights = [1.0, 0.5, 1e-30, 2e30];
        let factors: Vec<f64> = (-14..14).map(|k| 2f64.powi(9 * k)).chain([-1e8, 0.0]).collect();
        for (case, &factor) in factors.iter().enumerate() {
            let options = Options::new().kernel(kernel).threads(Threads::Serial);
            let mut loss =
                options.cross_entropy().reduction(Reduction::Sum).gradient_factor(factor);
            if case % 3 == 1 {
                loss = loss.weights(&weights);
            }
            if case % 4 == 1 {
                loss = loss.label_smoothing(0.1);
            }
            if case % 5 == 1 {
                loss = loss.z_loss(1e-3);
            }
            let mut all = vec![T::ZERO; x.len()];
            let to = MatrixMut::new(&mut all, 4).expect("whole rows");
            loss.gradient(rows(&x, 4), &labels, to).expect("a valid call");
            let alone = loss.exec(options.kernel(scalar()).exec);
            for (row, label) in labels.iter().enumerate() {
                let (mut one, at) = ([T::ZERO; 4], 4 * row..4 * row + 4);
                let to = MatrixMut::new(&mut one, 4).expect("a row");
                alone.gradient(rows(&x[at.clone()], 4), &[*label], to).expect("a valid call");
                assert_same(&all[at], &one, || {
                    format!("{} {} row {row} factor {factor}", kernel.name(), T::NAME)
                });
            }
        }
    }
    for kernel in available() {
        check::<f32>(kernel);
        check::<f64>(kernel);
        check::<f16>(kernel);
        check::<bf16>(kernel);
    }
}

/// The columns of labels are right in streamed rows, in any number of them, some ignored.
#[test]
fn labels_of_many_rows() {
    for kernel in crate::common::exact() {
        for (count, cols) in [(31, 70), (32, 70), (33, 64), (100, 1030), (65, 33)] {
            let x: Vec<f32> = row(&mut Random(9), 0, count * cols);
            let labels: Vec<i64> = (0..count)
                .map(|i| if i % 7 == 3 { -100 } else { (i * 31 % cols) as i64 })
                .collect();
            let gradient = |options: Options<'static>| {
                let mut y = vec![0.0f32; x.len()];
                let to = MatrixMut::new(&mut y, cols).expect("whole rows");
                let loss = options.threads(Threads::Serial).cross_entropy();
                loss.gradient(rows(&x, cols), &labels, to).expect("a valid call");
                y
            };
            let small = softmax::Caches::new(0, 0);
            let got = gradient(Options::new().kernel(kernel).caches(small));
            let want = gradient(Options::new().kernel(scalar()));
            assert_same(&got, &want, || format!("{} {count} x {cols}", kernel.name()));
        }
    }
}

#[test]
fn labels_by_the_other_stores() {
    with_the_other_stores(labels_of_many_rows);
}

#[test]
fn nothing_counted_has_no_gradient() {
    for kernel in available() {
        let x = [0.0f32, 0.0, 3.0, -1.0];
        let options = Options::new().kernel(kernel);
        let mean = options.cross_entropy().weights(&[0.0, 1.0]);
        let mut y = [7.0f32; 4];
        let to = MatrixMut::new(&mut y, 2).expect("two rows");
        let loss = mean.gradient(rows(&x, 2), &[0, 0], to).expect("a valid call");
        assert!(loss.is_nan() && y == [0.0; 4], "{}: {loss} {y:?}", kernel.name());
        // In parts, with the inverse of the mean's divisor.
        let part = mean.reduction(Reduction::Sum);
        let part = part.gradient_factor(1.0 / mean.divisor(&[0, 0], 2).expect("two labels"));
        let to = MatrixMut::new(&mut y, 2).expect("two rows");
        part.gradient(rows(&x, 2), &[0, 0], to).expect("a valid call");
        assert_eq!(y, [0.0; 4], "{}", kernel.name());
        // A row that counts beside an ignored one.
        let to = MatrixMut::new(&mut y, 2).expect("two rows");
        let loss = mean.gradient(rows(&x, 2), &[0, 1], to).expect("a valid call");
        assert!(loss > 4.0 && y[..2] == [0.0; 2] && y[3] < -0.9, "{}: {loss} {y:?}", kernel.name());
    }
}

#[test]
fn weights_that_are_none_are_named() {
    let x = [1.0f32; 6];
    for (weights, message) in [
        ([1.0, -0.5, -2.0], "the weight of class 1 must be finite and not negative, got -0.5"),
        ([1.0, 0.0, f32::NAN], "the weight of class 2 must be finite and not negative, got NaN"),
        (
            [f32::INFINITY, 0.0, 1.0],
            "the weight of class 0 must be finite and not negative, got inf",
        ),
    ] {
        let loss = CrossEntropy::new().weights(&weights);
        let mut y = [-7.0f32; 6];
        let to = MatrixMut::new(&mut y, 3).expect("two rows");
        let e = loss.gradient(rows(&x, 3), &[0, 0], to).expect_err("a bad weight");
        assert!(matches!(e, Error::Value { .. }) && e.to_string() == message, "{e}");
        assert_eq!(y, [-7.0; 6]);
        let e = loss.loss(rows(&x, 3), &[0, 0]).expect_err("a bad weight");
        assert_eq!(e.to_string(), message);
        let e = loss.divisor(&[0, 0], 3).expect_err("a bad weight");
        assert_eq!(e.to_string(), message);
    }
    let loss = CrossEntropy::new().weights(&[1.0, -0.0, 0.0]).loss(rows(&x, 3), &[0, 0]);
    assert!(loss.is_ok());
}

/// A divergence is negative only where the targets add up to less than 1.
#[test]
fn divergences_are_not_negative() {
    fn check<T: Stated>(kernel: &'static Kernel) {
        let random = &mut Random(17);
        for round in 0..200 {
            let n = [2, 3, 4, 16, 17, 100][round % 6];
            let x: Vec<T> = row(random, 0, n);
            let options = Options::new().kernel(kernel).threads(Threads::Serial);
            let q = run_row(&options, Op::Softmax, &x);
            let wide: Vec<f64> = q.iter().map(|q| q.to_f64()).collect();
            let sum = wide.iter().fold(Dd(0.0, 0.0), |s, &q| s.add(Dd(q, 0.0)));
            let loss = options.cross_entropy().divergence();
            let got = loss.loss(rows(&x, n), rows(&q, n)).expect("a valid call");
            let of = exact(&x.iter().map(|x| x.to_f64()).collect::<Vec<_>>(), 1.0);
            let (want, size) = divergence(&wide, &of);
            let error = Dd::sum(got, -want.0).add(Dd(-want.1, 0.0)).0.abs();
            let what = || format!("{} {} {n}: {got} {want:?} {sum:?}", kernel.name(), T::NAME);
            assert!(error <= T::EXACT * size, "{}", what());
            let least = sum.mul(sum.ln()).0;
            assert!(got >= least - 1e-15, "{}", what());
            assert!(sum.0 < 1.0 || got >= 0.0, "{}", what());
            let label = loss.label_smoothing(0.1 * random.signed().abs());
            assert!(label.loss(rows(&x, n), &[1]).expect("a valid call") >= 0.0, "{}", what());
        }
    }
    for kernel in available() {
        check::<f32>(kernel);
        check::<f64>(kernel);
        check::<f16>(kernel);
        check::<bf16>(kernel);
        // Equal targets whose rounded sum is a little less than 1.
        let options = Options::new().kernel(kernel).threads(Threads::Serial);
        let loss = options.cross_entropy().divergence();
        for n in [1618, 49, 98, 103] {
            let x = vec![bf16::ZERO; n];
            let loss = loss.label_smoothing(1.0);
            let got = loss.loss(rows(&x, n), rows(&x, n)).expect("a valid call");
            assert!((0.0..1e-15).contains(&got), "{} {n}: {got:e}", kernel.name());
        }
    }
}

/// The divergence of a row from its targets, and the scale of its error: cross-entropy, entropy and
/// targets, added up.
fn divergence(q: &[f64], of: &Exact) -> (Dd, f64) {
    let (mut sum, mut size) = (Dd(0.0, 0.0), 0.0);
    for (&q, log) in q.iter().zip(&of.log_softmax).filter(|(q, _)| **q > 0.0) {
        let entropy = Dd(q, 0.0).ln();
        sum = sum.add(entropy.add(log.scaled(-1.0)).mul(Dd(q, 0.0)));
        size += q * (1.0 + entropy.0.abs() + log.0.abs());
    }
    (sum, size)
}

/// The largest element's exponential is not added to the others' where these would get lost, in
/// rows of any length.
#[test]
fn tails_of_long_rows_count() {
    fn check<T: Stated>(kernel: &'static Kernel) {
        for n in [17, 4096, 4097, 70_001] {
            for (case, gap) in [5.0, 10.0, 12.5, 13.25, 14.0, 22.0, 35.0].into_iter().enumerate() {
                let random = &mut Random(case as u64);
                let mut x: Vec<T> = (0..n).map(|_| T::from_f64(random.signed())).collect();
                let label = [0, n / 2, n - 1][case % 3];
                x[label] = T::from_f64(gap + (n as f64).ln());
                let of = exact(&x.iter().map(|x| x.to_f64()).collect::<Vec<_>>(), 1.0);
                let others =
                    (0..n).filter(|&j| j != label).fold(Dd(0.0, 0.0), |s, j| s.add(of.softmax[j]));
                let (mut loss, mut gradient) = ([0.0], vec![T::ZERO; n]);
                let to = MatrixMut::new(&mut gradient, n).expect("a row");
                let options = Options::new().kernel(kernel).threads(Threads::Serial);
                let cross_entropy = options.cross_entropy();
                cross_entropy
                    .losses_and_gradient(rows(&x, n), &[label as i64], &mut loss, to)
                    .expect("a valid call");
                let want = of.log_softmax[label].scaled(-1.0);
                let error = Dd::sum(loss[0], -want.0).add(Dd(-want.1, 0.0)).0.abs();
                let part = part(gradient[label], others.scaled(-1.0), 0.0, T::LABELS, 0.0);
                let what =
                    || format!("{} {} {n} {gap}: {loss:?} {want:?} {part}", kernel.name(), T::NAME);
                assert!(error <= T::LOSS * want.0 && part <= 1.0, "{}", what());
            }
        }
    }
    for kernel in available() {
        check::<f32>(kernel);
        check::<f64>(kernel);
    }
}

/// A candidate of the search: numbers whose meaning depends on the function.
#[derive(Clone, Debug)]
struct Try {
    x: Vec<f64>,
    u: Vec<f64>,
    temperature: f64,
    smoothing: f64,
    z: f64,
    factor: f64,
    label: usize,
}

impl Try {
    fn random(random: &mut Random) -> Self {
        let n = [2, 2, 3, 3, 4, 6, 9, 17][random.below(8)];
        let wide = [0.1, 1.0, 3.0, 10.0, 40.0][random.below(5)];
        let power = |random: &mut Random, by: f64| 2f64.powf(by * random.signed());
        Self {
            x: (0..n).map(|_| random.signed() * wide).collect(),
            u: (0..n).map(|_| random.signed() * power(random, 3.0)).collect(),
            temperature: [1.0, power(random, 1.0), power(random, 30.0)][random.below(3)],
            smoothing: [0.0, random.signed().abs()][random.below(2)],
            z: [0.0, 1e-4, 10.0 * random.signed().abs()][random.below(3)],
            factor: [1.0, power(random, 10.0), 0.99 * power(random, 60.0)][random.below(3)],
            label: random.below(n),
        }
    }

    /// A candidate near this one.
    fn beside(&self, random: &mut Random) -> Self {
        let mut new = self.clone();
        let by = 1.0 + random.signed() * 2f64.powi(-3 * random.below(16) as i32);
        match random.below(7) {
            0 | 1 => new.x[random.below(self.x.len())] *= by,
            2 | 3 => new.u[random.below(self.x.len())] *= by,
            4 => new.temperature = (new.temperature * by).abs().clamp(1e-12, 1e12),
            5 => new.factor *= by,
            _ => new.z *= by.abs(),
        }
        new
    }

    fn as_row<T: Element>(v: &[f64]) -> Vec<T> {
        v.iter().map(|&v| T::from_f64(v)).collect()
    }

    /// The logits, as far apart as they are at temperature 1.
    fn logits<T: Element>(&self) -> (Vec<T>, Exact) {
        let x: Vec<T> = self.x.iter().map(|x| T::from_f64(x * self.temperature)).collect();
        let wide: Vec<f64> = x.iter().map(|x| x.to_f64()).collect();
        let of = exact(&wide, self.temperature);
        (x, of)
    }

    fn options(&self) -> Options<'static> {
        let options = Options::new().threads(Threads::Serial);
        options.temperature(self.temperature)
    }

    /// The largest error of loss and gradient relative to its bound, with these targets, or with
    /// labels.
    fn loss<T: Stated>(&self, soft: bool, of_loss: bool) -> f64 {
        let (x, of) = self.logits::<T>();
        let n = x.len();
        let q: Vec<T> = self.u.iter().map(|u| T::from_f64((u.abs() / 8.0).min(1.0))).collect();
        let wide: Vec<f64> = q.iter().map(|q| q.to_f64()).collect();
        let weights: Vec<f64> = self.u.iter().rev().map(|u| u.abs()).collect();
        let (smoothing, z) = if soft { (self.smoothing, self.z) } else { (0.0, 0.0) };
        let (probs, weighted) = (soft && self.label.is_multiple_of(2), soft && self.u[0] > 0.0);
        let mut loss =
            self.options().cross_entropy().reduction(Reduction::Sum).gradient_factor(self.factor);
        loss = loss.label_smoothing(smoothing).z_loss(z);
        if weighted {
            loss = loss.weights(&weights);
        }
        let (mut one, mut gradient) = ([0.0], vec![T::ZERO; n]);
        let to = MatrixMut::new(&mut gradient, n).expect("a row");
        if probs {
            loss.losses_and_gradient(rows(&x, n), rows(&q, n), &mut one, to)
        } else {
            loss.losses_and_gradient(rows(&x, n), &[self.label as i64], &mut one, to)
        }
        .expect("a valid call");
        let smooth = |j: usize| {
            let q = if probs { wide[j] } else { f64::from(u8::from(j == self.label)) };
            let own = Dd::sum(1.0, -smoothing).mul(Dd(q, 0.0));
            let t = own.add(Dd(smoothing, 0.0).div(Dd(n as f64, 0.0)));
            if weighted { t.mul(Dd(weights[j], 0.0)) } else { t }
        };
        let t: Vec<Dd> = (0..n).map(smooth).collect();
        let mass = t.iter().fold(Dd(0.0, 0.0), |s, &t| s.add(t));
        let lse = of.logsumexp;
        let square = lse.mul(lse).mul(Dd(z, 0.0));
        let value = t
            .iter()
            .zip(&of.log_softmax)
            .fold(square, |s, (t, log)| s.add(t.mul(log.scaled(-1.0))));
        let far = 1.0 + lse.0.abs();
        if of_loss {
            let error = Dd::sum(one[0], -value.0).add(Dd(-value.1, 0.0)).0.abs();
            let flushed = mass.0 * n as f64 * 2.0 * T::FLUSHED;
            return error / (T::LOSS * value.0 + T::EXACT * 2.0 * z * lse.0.abs() * far + flushed);
        }
        let outer = Dd(self.factor, 0.0).div(Dd(self.temperature, 0.0));
        let of_lse = mass.add(lse.mul(Dd(2.0 * z, 0.0)));
        let mut worst = 0.0f64;
        for j in 0..n {
            let pure = !probs && smoothing == 0.0 && z == 0.0;
            let (p, t) = (of.softmax[j].mul(of_lse).mul(outer), t[j].mul(outer));
            let mut want = p.add(t.scaled(-1.0));
            if pure && j == self.label {
                let others =
                    (0..n).filter(|&i| i != j).fold(Dd(0.0, 0.0), |s, i| s.add(of.softmax[i]));
                want = others.mul(mass).mul(outer).scaled(-1.0);
            }
            let size = if pure { want.0.abs() } else { p.0.abs().max(t.0.abs()).max(want.0.abs()) };
            let least = if T::FORMAT.digits == 53 { 2f64.powi(-960) } else { 0.0 };
            // Smaller numbers may have lost the last digits of a pair's low part.
            if size < least || size > 1e38 {
                continue;
            }
            let flushed = (of_lse.0 * outer.0).abs() * n as f64 * 2.0 * T::FLUSHED;
            let besides = T::EXACT * (2.0 * z * of.softmax[j].0 * outer.0).abs() * far + flushed;
            let bound = if pure { T::LABELS } else { T::SOFT };
            worst = worst.max(part(gradient[j], want, size, bound, besides));
        }
        worst
    }

    /// The same for a divergence.
    fn divergence<T: Stated>(&self) -> f64 {
        let (x, of) = self.logits::<T>();
        let sum: f64 = self.u.iter().map(|u| u.abs()).sum();
        let q: Vec<T> = if self.label == 0 {
            of.softmax.iter().map(|p| T::from_f64(p.0)).collect()
        } else {
            self.u.iter().map(|u| T::from_f64(u.abs() / sum)).collect()
        };
        let wide: Vec<f64> = q.iter().map(|q| q.to_f64()).collect();
        let loss = self.options().cross_entropy().divergence();
        let got = loss.loss(rows(&x, x.len()), rows(&q, x.len())).expect("a valid call");
        let (want, size) = divergence(&wide, &of);
        Dd::sum(got, -want.0).add(Dd(-want.1, 0.0)).0.abs() / (T::EXACT * size)
    }

    fn backward<T: Stated>(&self, log: bool) -> f64 {
        let (_, of) = self.logits::<T>();
        let y = if log { &of.log_softmax } else { &of.softmax };
        let y: Vec<T> = Self::as_row(&y.iter().map(|y| y.0).collect::<Vec<_>>());
        let u: Vec<T> = Self::as_row(&self.u);
        let got = backward(&self.options(), log, &y, &u, y.len());
        let p: Vec<Dd> =
            y.iter().map(|y| Dd(y.to_f64(), 0.0)).map(|y| if log { y.exp() } else { y }).collect();
        let zero = Dd(0.0, 0.0);
        let dot = p.iter().zip(&u).fold(zero, |s, (p, u)| {
            let u = Dd(u.to_f64(), 0.0);
            s.add(if log { u } else { p.mul(u) })
        });
        let around: f64 = p.iter().zip(&u).map(|(p, u)| p.0 * u.to_f64().abs()).sum();
        let a = Dd(1.0, 0.0).div(Dd(self.temperature, 0.0));
        let mut worst = 0.0f64;
        for j in 0..y.len() {
            let u = Dd(u[j].to_f64(), 0.0);
            let (want, size, besides) = if log {
                let (own, of_sum) = (a.mul(u), a.mul(p[j]).mul(dot));
                let want = own.add(of_sum.scaled(-1.0));
                (want, own.0.abs().max(of_sum.0.abs()).max(want.0.abs()), 0.0)
            } else {
                let want = a.mul(p[j]).mul(u.add(dot.scaled(-1.0)));
                (want, want.0.abs(), T::SUM * (a.0 * p[j].0 * around))
            };
            let least = if T::FORMAT.digits == 53 { 2f64.powi(-960) } else { 0.0 };
            if size < least || size > 1e38 {
                continue;
            }
            let bound = if log { T::LOG } else { T::SOFTMAX };
            worst = worst.max(part(got[j], want, size, bound, besides));
        }
        worst
    }
}

/// Searches for the worst candidate, at random and near the worst so far.
fn search(name: &str, part: impl Fn(&Try) -> f64) {
    let seconds = std::env::var("SOFTMAX_SEARCH").map(|s| s.parse().expect("a number of seconds"));
    let (start, tries) = (Instant::now(), if quick() { 500 } else { 4000 });
    let enough = |tried: usize| match &seconds {
        Ok(seconds) => start.elapsed() >= Duration::from_secs(*seconds),
        Err(_) => tried >= tries,
    };
    let random = &mut Random(0x5ea4c);
    let (mut best, mut most, mut overall) = (Try::random(random), 0.0, 0.0f64);
    let (mut tried, mut since) = (0, 0);
    while !enough(tried) {
        // From a new start, after a while without success.
        let new = if since > 300 || random.below(3) == 0 {
            Try::random(random)
        } else {
            best.beside(random)
        };
        let found = part(&new);
        assert!(found <= 1.0, "{name}: {found} of what is stated: {new:?}");
        if since > 300 {
            (most, since) = (0.0, 0);
        }
        (tried, since) = (tried + 1, since + 1);
        if found > most {
            (best, most, since) = (new, found, 0);
            overall = overall.max(most);
        }
    }
    println!("{name}: {overall:.3} of what is stated after {tried} tries");
    assert!(overall > 1e-4, "{name}: a search that finds nothing");
}

macro_rules! searches {
    ($($name:ident: $part:expr;)*) => {$(
        #[test]
        fn $name() {
            search(stringify!($name), $part);
        }
    )*};
}

searches! {
    search_loss_f32: |t| t.loss::<f32>(false, true);
    search_loss_f64: |t| t.loss::<f64>(false, true);
    search_loss_with_options_f32: |t| t.loss::<f32>(true, true);
    search_loss_with_options_f64: |t| t.loss::<f64>(true, true);
    search_gradient_f32: |t| t.loss::<f32>(false, false);
    search_gradient_f64: |t| t.loss::<f64>(false, false);
    search_gradient_bf16: |t| t.loss::<bf16>(false, false);
    search_gradient_with_options_f32: |t| t.loss::<f32>(true, false);
    search_gradient_with_options_f64: |t| t.loss::<f64>(true, false);
    search_divergence_f32: |t| t.divergence::<f32>();
    search_divergence_f64: |t| t.divergence::<f64>();
    search_softmax_backward_f32: |t| t.backward::<f32>(false);
    search_softmax_backward_f64: |t| t.backward::<f64>(false);
    search_log_softmax_backward_f32: |t| t.backward::<f32>(true);
    search_log_softmax_backward_f64: |t| t.backward::<f64>(true);
}

/// A share near the least normal number is not rounded before the factors make it larger.
#[test]
fn gradients_of_tiny_shares() {
    let (x, weights) = ([0.0f64, -1.6001577280242987e-7], [1e-6f32, 1.0]);
    for kernel in available() {
        let scaled = Options::new().kernel(kernel).scale(4425031914.113122);
        let loss = scaled.cross_entropy().weights(&weights).gradient_factor(1e6);
        let mut y = [f64::NAN; 2];
        let (logits, gradient) = (Matrix::new(&x, 2).unwrap(), MatrixMut::new(&mut y, 2).unwrap());
        let loss = loss.reduction(Reduction::Sum);
        loss.gradient(logits, &[0i64], gradient).unwrap();
        let mut losses = [f64::NAN];
        loss.row_factors(&[1e6]).losses(logits, &[0i64], &mut losses).unwrap();
        let of_loss = 3.0688632845488485e-308;
        assert!((losses[0] / of_loss - 1.0).abs() < 2e-15, "{}: {losses:?}", kernel.name());
        // From 120 digits; the two parts are each other's negative.
        let want = 1.3579817974178675e-298;
        assert!((y[0] / -want - 1.0).abs() < 1.1e-15, "{}: {y:?}", kernel.name());
        assert!((y[1] / want - 1.0).abs() < 1.1e-15, "{}: {y:?}", kernel.name());
    }
}

/// A factor out of f32's range makes no NaN of a probability of 0.
#[test]
fn gradients_of_huge_factors() {
    for kernel in available() {
        let loss = Options::new().kernel(kernel).cross_entropy().gradient_factor(1e39);
        let x = [0.0f32, -500.0, -1.0];
        let mut y = [f32::NAN; 3];
        let (logits, gradient) = (Matrix::new(&x, 3).unwrap(), MatrixMut::new(&mut y, 3).unwrap());
        loss.gradient(logits, &[0i64], gradient).unwrap();
        assert_eq!(y, [-2.6894142e38, 0.0, 2.6894142e38], "{}", kernel.name());
        let x = x.map(f16::from_f32);
        let mut y = [f16::NAN; 3];
        let (logits, gradient) = (Matrix::new(&x, 3).unwrap(), MatrixMut::new(&mut y, 3).unwrap());
        loss.gradient(logits, &[0i64], gradient).unwrap();
        assert_eq!(y, [f16::NEG_INFINITY, f16::ZERO, f16::INFINITY], "{}", kernel.name());
    }
}

/// A subnormal probability times a scale must not be rounded before a large difference multiplies
/// it. Exact values by mpmath: 0x0c4b 2^-1074 and 2^-149 times 15640 times the scale.
#[test]
fn gradients_of_subnormal_probabilities() {
    for kernel in available() {
        let options = Options::new().kernel(kernel).scale(0.27248);
        let p = f64::from_bits(0xc4b);
        let got = backward(&options, false, &[p, 1.0], &[0.0, 15640.0], 2)[0];
        let want = -(3147.0f64 * 15640.0 * 0.27248).round() as i64;
        let units = -((-got).to_bits() as i64);
        assert!((units - want).abs() <= 2, "{}: {units} for {want}", kernel.name());
        let p = f32::from_bits(0xc4b);
        let got = backward(&options, false, &[p, 1.0], &[0.0, 15640.0], 2)[0];
        let want = -f64::from(p) * 15640.0 * 0.27248;
        let error = (f64::from(got) / want - 1.0).abs();
        assert!(error < 2e-7, "{}: {got:e} for {want:e}", kernel.name());
    }
}
