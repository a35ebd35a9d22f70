//! The table: each function, its bound, and its exact results.

use crate::common::{Options, Random};
use crate::search::{Entry, Function, Heat, Input, Kind, Type, Worst};
use softmax::half::{bf16, f16};
use softmax::{CrossEntropy, Element, Mask, Matrix, MatrixMut, Probs, Reduction, Targets};
use softmax_measure::oracle::{Dd, F64, Format, Scaled, ldexp, ulps_scaled};

pub fn table() -> Vec<Entry> {
    let mut table = Vec::new();
    macro_rules! entries {
        ($($function:ident),*) => {
            $(table.extend([
                Entry::new::<$function, f32>(),
                Entry::new::<$function, f64>(),
                Entry::new::<$function, f16>(),
                Entry::new::<$function, bf16>(),
            ]);)*
        };
    }
    entries!(
        OfRows,
        LogOfRows,
        SumOfRows,
        Equal,
        LogProbs,
        TopProbs,
        Sigmoid,
        LogSigmoid,
        LabelLoss,
        AnyLoss,
        Divergence,
        LabelGradient,
        AnyGradient,
        Backward,
        LogBackward,
        Scores,
        ScoresSum,
        Perplexity
    );
    table.extend(crate::entropies::table());
    table
}

pub const ONE: Dd = Dd(1.0, 0.0);

/// A product that may be out of range.
pub fn times(a: Dd, b: Dd) -> Dd {
    let product = a.0 * b.0;
    if product.abs() < 1e300 { a.mul(b) } else { Dd(product, 0.0) }
}

/// The error of a rounded result in ULP; results beyond the type's numbers should be infinite.
pub fn error(got: f64, want: Scaled, format: Format, max: f64) -> f64 {
    let value = want.to_dd().0;
    let edge = max * (1.0 - 8.0 * ldexp(1.0, -format.digits));
    if value.abs() > edge && (got == value.signum() * f64::INFINITY || value.is_infinite()) {
        return if got == value.signum() * f64::INFINITY { 0.0 } else { f64::INFINITY };
    }
    ulps_scaled(got, want, format)
}

/// The error relative to `ulps` ULP or `absolute`, whichever allows more.
fn either(got: f64, want: Dd, (ulps, absolute): (f64, f64), format: Format, max: f64) -> f64 {
    let off = Dd::sum(got, -want.0).add(Dd(-want.1, 0.0)).0.abs() / absolute;
    let ulps = error(got, Scaled::of(want), format, max) / ulps;
    if off.is_nan() { ulps } else { ulps.min(off) }
}

/// The spacing of the type's numbers at one of this size.
pub fn ulp(size: f64, format: Format) -> f64 {
    let exponent = Scaled::of(Dd(size, 0.0)).exponent();
    ldexp(1.0, exponent.max(format.min_exp) - format.digits + 1)
}

/// The differences of logits from the largest, and their exponentials, exactly.
pub struct Row {
    pub below: Vec<Dd>,
    pub e: Vec<Scaled>,
    pub copies: Vec<f64>,
    /// The sum, relative to the largest exponential.
    pub sum: Dd,
    /// The largest logit.
    largest: Dd,
}

impl Row {
    fn new(below: Vec<Dd>, copies: Vec<f64>, largest: Dd) -> Self {
        let e: Vec<Scaled> = below.iter().map(|d| d.exp_scaled()).collect();
        let parts = e.iter().zip(&copies);
        let sum = parts.fold(Dd(0.0, 0.0), |s, (e, &n)| s.add(e.to_dd().mul(Dd(n, 0.0))));
        Self { below, e, copies, sum, largest }
    }

    /// The row of the first values of the columns, scaled.
    pub fn of(input: &Input) -> Self {
        Self::nth(input, 0)
    }

    /// The row of the `k`th values.
    pub fn nth(input: &Input, k: usize) -> Self {
        let x = || input.columns.iter().map(|(v, _)| v[k]);
        let copies = input.columns.iter().map(|&(_, n)| n as f64).collect();
        let largest = x().fold(f64::NEG_INFINITY, f64::max);
        let scale = input.heat.exact();
        let below = |x: f64| {
            let d = Dd::sum(x, -largest);
            if d.0.is_finite() && (x.abs().max(largest.abs()) < 1e300) {
                return times(d, scale);
            }
            times(Dd::sum(x / 4.0, -largest / 4.0), scale.scaled(4.0))
        };
        Self::new(x().map(below).collect(), copies, times(Dd(largest, 0.0), scale))
    }

    pub fn p(&self, i: usize) -> Scaled {
        self.e[i].div(self.sum)
    }

    /// The sum without one copy of a column.
    fn others(&self, i: usize) -> Scaled {
        let mut sum = Scaled::ZERO;
        for (j, (&e, &n)) in self.e.iter().zip(&self.copies).enumerate() {
            let n = if i == j { n - 1.0 } else { n };
            sum = sum.add(e.mul(Scaled::of(Dd(n, 0.0))));
        }
        sum
    }

    /// `-ln(p)`, with a small relative error near 0, too.
    pub fn information(&self, i: usize) -> Scaled {
        if self.below[i].0 < 0.0 {
            return Scaled::of(self.sum.ln().sub(self.below[i]));
        }
        let others = self.others(i);
        if others.exponent() < -60 {
            // To the square.
            let square = others.mul(others);
            return others.add(Scaled(square.0.scaled(-0.5), square.1));
        }
        Scaled::of(others.to_dd().ln_1p())
    }

    fn logsumexp(&self) -> Dd {
        self.largest.add(self.sum.ln())
    }

    /// Whether the type may take the exponential for 0.
    pub fn is_flushed<T: Type>(&self, i: usize) -> bool {
        self.e[i].exponent() < T::FLUSHED
    }

    /// Whether the result may be 0 although the probability is not.
    fn may_be_zero<T: Type>(&self, i: usize) -> bool {
        let least = f64::from(f32::MIN_POSITIVE) * (1.0 + 1.2e-5);
        self.is_flushed::<T>(i) || T::by_type(false, false, self.p(i).to_dd().0 < least)
    }

    /// The part of the sum that may be flushed.
    fn flushed<T: Type>(&self) -> Scaled {
        let some = (0..self.e.len()).filter(|&i| self.is_flushed::<T>(i));
        // Not rounded: they are less than f64 has.
        let add =
            |sum: Scaled, i: usize| sum.add(self.e[i].mul(Scaled::of(Dd(self.copies[i], 0.0))));
        some.fold(Scaled::ZERO, add)
    }
}

pub fn one_row<T>(x: &[T]) -> Matrix<'_, T> {
    Matrix::with_stride(x, 1, x.len(), x.len()).expect("one row")
}

pub fn one_row_mut<T>(x: &mut [T]) -> MatrixMut<'_, T> {
    let n = x.len();
    MatrixMut::with_stride(x, 1, n, n).expect("one row")
}

/// The results of the first copies, as f64.
pub fn map<T: Type>(
    input: &Input,
    f: impl FnOnce(Options, Matrix<T>, MatrixMut<T>) -> Result<(), softmax::Error>,
) -> Vec<f64> {
    let x = input.expand::<T>(0);
    let mut y = vec![T::NAN; x.len()];
    f(input.heat.options(), one_row(&x), one_row_mut(&mut y)).expect("a valid call");
    input.firsts().iter().map(|&at| y[at].to_f64()).collect()
}

fn ulps_in_words<T: Type>() -> String {
    format!("{} ULP", ulps::<T>())
}

fn ulps<T: Type>() -> f64 {
    T::by_type(3.0, 3.0, 0.51)
}

/// The bound of probabilities, which is a little larger for f16.
fn ulps_of_probs<T: Type>() -> f64 {
    if matches!(T::KIND, Kind::F16) { 0.53 } else { ulps::<T>() }
}

/// Softmax of rows.
struct OfRows;

impl<T: Type> Function<T> for OfRows {
    const NAME: &'static str = "softmax";
    const KINDS: [Kind; 3] = [T::KIND, Kind::Unused, Kind::Unused];

    fn bound() -> String {
        format!("{} ULP", ulps_of_probs::<T>())
    }

    fn measure(input: &Input) -> Worst {
        let (row, mut worst) = (Row::of(input), Worst::default());
        let got = map::<T>(input, |options, x, y| options.softmax().softmax(x, y));
        for (i, got) in got.into_iter().enumerate() {
            let want = row.p(i);
            if !(got == 0.0 && row.may_be_zero::<T>(i)) {
                let error = error(got, want, T::FORMAT, T::MAX);
                worst.add(error / ulps_of_probs::<T>(), i, got, want.to_dd());
            }
        }
        worst
    }
}

/// The bounds of logarithms, in the type and in its arithmetic type.
fn log_bound<T: Type>() -> (f64, f64) {
    T::by_type((2.0, 1e-7), (3.0, 3e-16), (0.51, 1e-7))
}

fn wide_log_bound<T: Type>() -> (f64, f64) {
    T::by_type((2.0, 1e-7), (3.0, 3e-16), (2.0, 1e-7))
}

/// The error of a logarithm in the type; for f16 and bf16 both bounds are added.
fn log_error<T: Type>(got: f64, want: Dd) -> f64 {
    let (ulps, absolute) = log_bound::<T>();
    if T::by_type(true, true, false) || !got.is_finite() {
        return either(got, want, (ulps, absolute), T::FORMAT, T::MAX);
    }
    let allowed = ulps * ulp(got.abs().max(want.0.abs()), T::FORMAT) + absolute;
    relative_error(got, Scaled::of(want), allowed, 0.0)
}

fn log_in_words<T: Type>() -> String {
    T::by_type("2 ULP or 1e-7", "3 ULP or 3e-16", "0.51 ULP and 1e-7 on top").into()
}

fn in_words((ulps, absolute): (f64, f64)) -> String {
    format!("{ulps} ULP or {absolute:e}")
}

fn wide_max<T: Type>() -> f64 {
    T::by_type(f32::MAX.into(), f64::MAX, f32::MAX.into())
}

/// Log-softmax of rows.
struct LogOfRows;

impl<T: Type> Function<T> for LogOfRows {
    const NAME: &'static str = "log-softmax";
    const KINDS: [Kind; 3] = [T::KIND, Kind::Unused, Kind::Unused];

    fn bound() -> String {
        log_in_words::<T>()
    }

    fn measure(input: &Input) -> Worst {
        let (row, mut worst) = (Row::of(input), Worst::default());
        let got = map::<T>(input, |options, x, y| options.softmax().log_softmax(x, y));
        let ln = row.sum.ln();
        for (i, got) in got.into_iter().enumerate() {
            let want = row.below[i].sub(if row.below[i].0 > -1e300 { ln } else { Dd(0.0, 0.0) });
            worst.add(log_error::<T>(got, want), i, got, want);
        }
        worst
    }
}

/// The log-sum-exp of rows.
struct SumOfRows;

impl<T: Type> Function<T> for SumOfRows {
    const NAME: &'static str = "log-sum-exp";
    const KINDS: [Kind; 3] = [T::KIND, Kind::Unused, Kind::Unused];

    fn bound() -> String {
        log_in_words::<T>()
    }

    fn takes(input: &Input) -> bool {
        Row::of(input).largest.0.abs() < 1e290
    }

    fn measure(input: &Input) -> Worst {
        let (want, mut worst) = (Row::of(input).logsumexp(), Worst::default());
        let (x, mut got) = (input.expand::<T>(0), [T::NAN]);
        input.heat.options().softmax().logsumexp(one_row(&x), &mut got).expect("a valid call");
        let got = got[0].to_f64();
        worst.add(log_error::<T>(got, want), 0, got, want);
        worst
    }
}

/// Equal elements share equally.
struct Equal;

impl<T: Type> Function<T> for Equal {
    const NAME: &'static str = "softmax of equal elements";
    const KINDS: [Kind; 3] = [T::KIND, Kind::Unused, Kind::Unused];
    const MOST_COPIES: usize = 10_000;

    fn bound() -> String {
        "1 ULP; exactly 1/n of powers of two".into()
    }

    fn start(input: &mut Input, _: &mut Random) {
        input.columns.truncate(1);
    }

    fn takes(input: &Input) -> bool {
        input.columns.len() == 1
    }

    fn measure(input: &Input) -> Worst {
        let mut worst = Worst::default();
        let x = input.expand::<T>(0);
        let mut y = vec![T::NAN; x.len()];
        let done = input.heat.options().softmax().softmax(one_row(&x), one_row_mut(&mut y));
        done.expect("a valid call");
        let want = ONE.div(Dd(x.len() as f64, 0.0));
        let exactly = x.len().is_power_of_two();
        for (i, got) in y.iter().map(|y| y.to_f64()).enumerate() {
            let ulps = error(got, Scaled::of(want), T::FORMAT, T::MAX);
            let is_wrong = got.to_bits() != y[0].to_f64().to_bits() || (exactly && got != want.0);
            // A small error still counts: a search that finds nothing but 0 fails.
            worst.add(if is_wrong { f64::INFINITY } else { ulps.max(1e-9) }, i, got, want);
        }
        worst
    }
}

/// The log-probabilities of tokens, and of the largest.
struct LogProbs;

impl<T: Type> Function<T> for LogProbs {
    const NAME: &'static str = "log_probs, top_k";
    const KINDS: [Kind; 3] = [T::KIND, Kind::Unused, Kind::Unused];
    const FLAGS: u32 = 1;

    fn bound() -> String {
        in_words(wide_log_bound::<T>())
    }

    fn measure(input: &Input) -> Worst {
        let (row, mut worst) = (Row::of(input), Worst::default());
        let (x, options) = (input.expand::<T>(0), input.heat.options());
        let (tokens, ln) = (input.firsts(), row.sum.ln());
        let mut add = |i: usize, got: f64| {
            let want = row.below[i].sub(if row.below[i].0 > -1e300 { ln } else { Dd(0.0, 0.0) });
            let (bound, max) = (wide_log_bound::<T>(), wide_max::<T>());
            worst.add(either(got, want, bound, T::WIDE, max), i, got, want);
        };
        if input.has(1) {
            let k = x.len().min(5);
            let (mut indices, mut got) = (vec![0; k], vec![T::Arithmetic::NAN; k]);
            options.top_k(k).log_probs(one_row(&x), &mut got, &mut indices).expect("a valid call");
            for (index, got) in indices.into_iter().zip(got) {
                add(tokens.partition_point(|&first| first <= index) - 1, got.to_f64());
            }
        } else {
            let mut got = vec![T::Arithmetic::NAN; tokens.len()];
            options.log_probs().log_probs(one_row(&x), &tokens, &mut got).expect("a valid call");
            got.iter().enumerate().for_each(|(i, got)| add(i, got.to_f64()));
        }
        worst
    }
}

/// The probabilities of the largest.
struct TopProbs;

impl<T: Type> Function<T> for TopProbs {
    const NAME: &'static str = "probabilities of top_k";
    const KINDS: [Kind; 3] = [T::KIND, Kind::Unused, Kind::Unused];

    fn bound() -> String {
        "3 ULP".into()
    }

    fn measure(input: &Input) -> Worst {
        let (row, mut worst) = (Row::of(input), Worst::default());
        let (x, options, firsts) = (input.expand::<T>(0), input.heat.options(), input.firsts());
        let k = x.len().min(20);
        let (mut indices, mut got) = (vec![0; k], vec![T::Arithmetic::NAN; k]);
        let done = options.top_k(k).probs(one_row(&x), &mut got, &mut indices);
        done.expect("a valid call");
        for (index, got) in indices.into_iter().zip(got) {
            let i = firsts.partition_point(|&first| first <= index) - 1;
            let (got, want) = (got.to_f64(), row.p(i));
            if !(got == 0.0 && row.is_flushed::<T>(i)) {
                let ulps = error(got, want, T::WIDE, wide_max::<T>());
                worst.add(ulps / 3.0, index, got, want.to_dd());
            }
        }
        worst
    }
}

/// The logit of a column by itself.
fn logit(input: &Input, i: usize) -> Dd {
    times(Dd(input.columns[i].0[0], 0.0), input.heat.exact())
}

/// Sigmoid.
struct Sigmoid;

impl<T: Type> Function<T> for Sigmoid {
    const NAME: &'static str = "sigmoid";
    const KINDS: [Kind; 3] = [T::KIND, Kind::Unused, Kind::Unused];
    const MOST_COPIES: usize = 1;

    fn bound() -> String {
        ulps_in_words::<T>()
    }

    fn measure(input: &Input) -> Worst {
        let mut worst = Worst::default();
        let got = map::<T>(input, |options, x, y| options.sigmoid().sigmoid(x, y));
        for (i, got) in got.into_iter().enumerate() {
            let z = logit(input, i);
            let want = match z.0 < 0.0 {
                true => {
                    let e = z.exp_scaled();
                    e.div(e.to_dd().add(ONE))
                }
                false => Scaled::of(ONE.div(z.neg().exp_scaled().to_dd().add(ONE))),
            };
            if !(got == 0.0 && want.exponent() < T::FLUSHED) {
                worst.add(error(got, want, T::FORMAT, T::MAX) / ulps::<T>(), i, got, want.to_dd());
            }
        }
        worst
    }
}

/// The logarithm of the sigmoid.
struct LogSigmoid;

impl<T: Type> Function<T> for LogSigmoid {
    const NAME: &'static str = "log-sigmoid";
    const KINDS: [Kind; 3] = [T::KIND, Kind::Unused, Kind::Unused];
    const MOST_COPIES: usize = 1;

    fn bound() -> String {
        T::by_type("1 ULP", "3 ULP", "0.51 ULP").into()
    }

    fn measure(input: &Input) -> Worst {
        let mut worst = Worst::default();
        let got = map::<T>(input, |options, x, y| options.sigmoid().log_sigmoid(x, y));
        for (i, got) in got.into_iter().enumerate() {
            let z = logit(input, i);
            let small = Dd(-z.0.abs(), if z.0 < 0.0 { z.1 } else { -z.1 }).exp_scaled();
            // ln(1 + e^-|z|)
            let rest = match small.exponent() < -60 {
                true => {
                    let square = small.mul(small);
                    small.add(Scaled(square.0.scaled(-0.5), square.1))
                }
                false => Scaled::of(small.to_dd().ln_1p()),
            };
            let minus = Scaled(rest.0.neg(), rest.1);
            let want = if z.0 < 0.0 { Scaled::of(z).add(minus) } else { minus };
            if !(got == 0.0 && T::KIND == Kind::F64 && want.exponent() < T::FLUSHED) {
                let bound = T::by_type(1.0, 3.0, 0.51);
                worst.add(error(got, want, T::FORMAT, T::MAX) / bound, i, got, want.to_dd());
            }
        }
        worst
    }
}

/// Options of losses, as flags and numbers.
const PROBS: u32 = 1;
const SMOOTH: u32 = 2;
const WEIGHTS: u32 = 4;
const Z: u32 = 8;
const FACTOR: u32 = 16;

/// The targets of a loss, each t_j exactly, and its other factors.
struct Target<T> {
    labels: [i64; 1],
    probs: Vec<T>,
    weights: Vec<f32>,
    smoothing: f64,
    z: f64,
    factor: f64,
    heat: Heat,
    t: Vec<Dd>,
    /// The target of the label's first copy, if there is a label.
    t_label: Option<Dd>,
}

impl<T: Type> Target<T> {
    fn new(input: &Input) -> Self {
        let number = |flag, i: usize, none| if input.has(flag) { input.numbers[i] } else { none };
        let cols: usize = input.columns.iter().map(|&(_, n)| n).sum();
        let smoothing = number(SMOOTH, 0, 0.0).min(1.0);
        let weight = |v: &[f64; 3]| if input.has(WEIGHTS) { v[2].abs() } else { 1.0 };
        let smooth = Dd(smoothing, 0.0).div(Dd(cols as f64, 0.0));
        let sharp = Dd::sum(1.0, -smoothing);
        let t = |v: &[f64; 3], q: f64| sharp.mul(Dd(q, 0.0)).add(smooth).mul(Dd(weight(v), 0.0));
        let q = |v: &[f64; 3]| if input.has(PROBS) { v[1].abs() } else { 0.0 };
        let label = !input.has(PROBS);
        let probs = if label { Vec::new() } else { input.expand::<T>(1) };
        let weights = if input.has(WEIGHTS) { input.expand::<f32>(2) } else { Vec::new() };
        Self {
            labels: [input.firsts()[input.label] as i64],
            probs: probs.into_iter().map(|q| T::from_f64(q.to_f64().abs())).collect(),
            weights: weights.into_iter().map(f32::abs).collect(),
            smoothing,
            z: number(Z, 1, 0.0),
            factor: number(FACTOR, 2, 1.0),
            heat: input.heat,
            t: input.columns.iter().map(|(v, _)| t(v, q(v))).collect(),
            t_label: label.then(|| t(&input.columns[input.label].0, 1.0)),
        }
    }

    fn options(&self) -> CrossEntropy<'_> {
        let options = self
            .heat
            .options()
            .cross_entropy()
            .reduction(Reduction::Sum)
            .label_smoothing(self.smoothing)
            .z_loss(self.z)
            .gradient_factor(self.factor);
        if self.weights.is_empty() { options } else { options.weights(&self.weights) }
    }

    fn targets(&self) -> Targets<'_, T> {
        match self.t_label {
            Some(_) => Targets::Labels(&self.labels),
            None => Targets::Probs(one_row(&self.probs)),
        }
    }

    /// The t of each column, first copies and the others, with the number of copies.
    fn parts<'a>(&'a self, input: &'a Input) -> impl Iterator<Item = (usize, Dd, f64)> + 'a {
        let columns = input.columns.iter().enumerate();
        columns.flat_map(move |(i, &(_, n))| {
            let label = self.t_label.filter(|_| i == input.label);
            let first = (i, label.unwrap_or(self.t[i]), 1.0);
            [first, (i, self.t[i], n as f64 - 1.0)]
        })
    }

    /// The sum of all t.
    fn sum(&self, input: &Input) -> Dd {
        let parts = self.parts(input);
        parts.fold(Dd(0.0, 0.0), |sum, (_, t, n)| sum.add(t.mul(Dd(n, 0.0))))
    }

    /// The cross-entropy without z, and the part of it that may be flushed.
    fn cross_entropy(&self, input: &Input, row: &Row) -> (Scaled, f64) {
        let mut loss = Scaled::ZERO;
        for (i, t, n) in self.parts(input) {
            if n > 0.0 && t.0 != 0.0 {
                loss = loss.add(row.information(i).mul(Scaled::of(t.mul(Dd(n, 0.0)))));
            }
        }
        (loss, row.flushed::<T>().mul(Scaled::of(self.sum(input))).to_dd().0)
    }
}

/// Whether exact losses are within range.
pub fn is_moderate(input: &Input) -> bool {
    let row = Row::of(input);
    // Products of targets and weights must not be subnormal either.
    let is_moderate = |v: f64| v == 0.0 || (1e-140..1e100).contains(&v.abs());
    row.below.iter().all(|d| d.0.abs() < 1e100)
        && row.largest.0.abs() < 1e100
        && input.columns.iter().all(|(v, _)| is_moderate(v[1]) && is_moderate(v[2]))
}

/// Makes targets from the logits, at random, or for one class.
fn start_targets<T: Type>(input: &mut Input, r: &mut Random) {
    let row = Row::of(input);
    let kind = r.below(4);
    let total: f64 = input.columns.iter().map(|&(v, n)| v[1].abs() * n as f64).sum();
    for (i, (v, _)) in input.columns.iter_mut().enumerate() {
        v[1] = T::KIND.round(match kind {
            0 => row.p(i).to_dd().0,
            1 => f64::from(i == input.label),
            _ => v[1].abs() / total.max(1e-30),
        });
        v[2] = v[2].abs();
    }
    input.numbers[0] = input.numbers[0].min(1.0);
}

/// The error relative to `allowed`, without the part that is `excused` because it may be flushed.
pub fn relative_error(got: f64, want: Scaled, allowed: f64, excused: f64) -> f64 {
    let off = Scaled::of(Dd(got, 0.0)).add(Scaled(want.0.neg(), want.1)).to_dd().0.abs();
    let off = (off - excused).max(0.0);
    match got.is_finite() {
        true if off == 0.0 => 0.0,
        true => off / allowed,
        false => f64::INFINITY,
    }
}

fn loss_bound<T: Type>() -> f64 {
    T::by_type(1e-7, 2e-15, 1e-7)
}

/// The bound of log-sum-exps and divergences, relative to their terms.
fn narrow_bound<T: Type>() -> f64 {
    T::by_type(5e-13, 2e-15, 5e-13)
}

/// The error of the z-loss, divided by `2 z`.
fn z_error<T: Type>(lse: Dd) -> f64 {
    narrow_bound::<T>() * (1.0 + lse.0.abs())
}

fn measure_loss<T: Type>(input: &Input, divergence: bool) -> Worst {
    let (row, target, mut worst) = (Row::of(input), Target::<T>::new(input), Worst::default());
    let (x, mut got) = (input.expand::<T>(0), [f64::NAN]);
    let options = target.options();
    let options = if divergence { options.divergence() } else { options };
    options.losses(one_row(&x), target.targets(), &mut got).expect("a valid call");
    let (mut want, flushed) = target.cross_entropy(input, &row);
    // The end of f64's range.
    let mut allowed = 1e-300;
    if divergence {
        let mut size = want.to_dd().0;
        let mut total = Dd(0.0, 0.0);
        // sum of t_j ln q_j, q smoothed.
        let cols: f64 = row.copies.iter().sum();
        let smooth = Dd(target.smoothing, 0.0).div(Dd(cols, 0.0));
        for (i, &(v, n)) in input.columns.iter().enumerate() {
            let q = Dd::sum(1.0, -target.smoothing).mul(Dd(v[1].abs(), 0.0)).add(smooth);
            total = total.add(q.mul(Dd(n as f64, 0.0)));
            if q.0 > 0.0 && target.t[i].0 != 0.0 {
                let part = target.t[i].mul(q.ln()).mul(Dd(n as f64, 0.0));
                want = want.add(Scaled::of(part));
                size += part.0.abs();
            }
        }
        allowed += narrow_bound::<T>() * (size + target.sum(input).0);
        // It must not be negative, as the targets are probabilities.
        if target.weights.is_empty() && total.sub(ONE).0 >= 0.0 && got[0] < 0.0 {
            worst.add(f64::INFINITY, 0, got[0], want.to_dd());
        }
    } else {
        let lse = row.logsumexp();
        let z = Dd(target.z, 0.0);
        want = want.add(Scaled::of(lse.mul(lse).mul(z)));
        allowed += loss_bound::<T>() * want.to_dd().0.abs();
        allowed += 2.0 * target.z * lse.0.abs() * z_error::<T>(lse);
    }
    worst.add(relative_error(got[0], want, allowed, flushed), 0, got[0], want.to_dd());
    worst
}

/// The loss of a label.
struct LabelLoss;

impl<T: Type> Function<T> for LabelLoss {
    const NAME: &'static str = "cross-entropy of a label";
    const KINDS: [Kind; 3] = [T::KIND, Kind::Unused, Kind::Unused];

    fn bound() -> String {
        format!("{:e} of it, and for z", loss_bound::<T>())
    }

    fn takes(input: &Input) -> bool {
        is_moderate(input)
    }

    fn measure(input: &Input) -> Worst {
        measure_loss::<T>(input, false)
    }
}

/// The loss with all options.
struct AnyLoss;

impl<T: Type> Function<T> for AnyLoss {
    const NAME: &'static str = "cross-entropy of probabilities, smoothing, weights, z";
    const KINDS: [Kind; 3] = [T::KIND, T::KIND, Kind::F32];
    const FLAGS: u32 = PROBS | SMOOTH | WEIGHTS | Z;

    fn bound() -> String {
        format!("{:e} of it, and for z", loss_bound::<T>())
    }

    fn start(input: &mut Input, r: &mut Random) {
        start_targets::<T>(input, r);
    }

    fn takes(input: &Input) -> bool {
        is_moderate(input) && input.flags & Self::FLAGS_OF != 0
    }

    fn measure(input: &Input) -> Worst {
        measure_loss::<T>(input, false)
    }
}

impl AnyLoss {
    const FLAGS_OF: u32 = PROBS | SMOOTH | WEIGHTS | Z;
}

/// The Kullback-Leibler divergence.
struct Divergence;

impl<T: Type> Function<T> for Divergence {
    const NAME: &'static str = "divergence";
    const KINDS: [Kind; 3] = [T::KIND, T::KIND, Kind::F32];
    const FLAGS: u32 = SMOOTH | WEIGHTS;

    fn bound() -> String {
        format!("{:e} of cross-entropy, entropy and targets", narrow_bound::<T>())
    }

    fn start(input: &mut Input, r: &mut Random) {
        start_targets::<T>(input, r);
        input.flags |= PROBS;
    }

    fn takes(input: &Input) -> bool {
        is_moderate(input)
    }

    fn measure(input: &Input) -> Worst {
        measure_loss::<T>(input, true)
    }
}

/// The exact gradient in two terms: `a p_j (sum of t + 2 z lse)` and `a t_j`, times the factor.
fn gradient<T: Type>(input: &Input) -> (Vec<f64>, Target<T>) {
    let target = Target::<T>::new(input);
    let x = input.expand::<T>(0);
    let (mut y, mut loss) = (vec![T::NAN; x.len()], [f64::NAN]);
    let done = target.options().losses_and_gradient(
        one_row(&x),
        target.targets(),
        &mut loss,
        one_row_mut(&mut y),
    );
    done.expect("a valid call");
    (input.firsts().iter().map(|&at| y[at].to_f64()).collect(), target)
}

/// The gradient of the loss of a label.
struct LabelGradient;

impl<T: Type> Function<T> for LabelGradient {
    const NAME: &'static str = "gradient of a label";
    const KINDS: [Kind; 3] = [T::KIND, Kind::Unused, Kind::F32];
    const FLAGS: u32 = FACTOR | WEIGHTS;

    fn bound() -> String {
        ulps_in_words::<T>()
    }

    fn measure(input: &Input) -> Worst {
        let (row, mut worst) = (Row::of(input), Worst::default());
        let (got, target) = gradient::<T>(input);
        let weight = target.t_label.unwrap_or(ONE);
        let a = Scaled::of(input.heat.exact().mul(Dd(target.factor, 0.0)).mul(weight));
        for (i, got) in got.into_iter().enumerate() {
            let rest = row.others(i).div(row.sum);
            let want =
                if i == input.label { Scaled(rest.0.neg(), rest.1) } else { row.p(i) }.mul(a);
            let size = want.to_dd().0.abs();
            if size > T::MAX * 0.99 {
                continue;
            }
            let flushed = match i == input.label {
                true => row.flushed::<T>().div(row.sum).mul(a).to_dd().0,
                false if row.is_flushed::<T>(i) => size,
                false => 0.0,
            };
            let allowed = (ulps::<T>() + deep::<T>(size)) * ulp(size.max(got.abs()), T::FORMAT);
            worst.add(relative_error(got, want, allowed, flushed), i, got, want.to_dd());
        }
        worst
    }
}

/// Additional bound of gradients of f64, in ULP, far below 1.
pub fn deep<T: Type>(size: f64) -> f64 {
    if size < 2f64.powi(-960) { T::by_type(0.0, 2.0, 0.0) } else { 0.0 }
}

/// The gradient with all options.
struct AnyGradient;

impl<T: Type> Function<T> for AnyGradient {
    const NAME: &'static str = "gradient of probabilities, smoothing, weights, z";
    const KINDS: [Kind; 3] = [T::KIND, T::KIND, Kind::F32];
    const FLAGS: u32 = PROBS | SMOOTH | WEIGHTS | Z | FACTOR;

    fn bound() -> String {
        T::by_type("3 ULP", "6 ULP", "0.51 ULP").to_string() + " of the largest part, and for z"
    }

    fn start(input: &mut Input, r: &mut Random) {
        start_targets::<T>(input, r);
    }

    fn takes(input: &Input) -> bool {
        is_moderate(input) && input.flags & (PROBS | SMOOTH | WEIGHTS | Z) != 0
    }

    fn measure(input: &Input) -> Worst {
        let (row, mut worst) = (Row::of(input), Worst::default());
        let (got, target) = gradient::<T>(input);
        let a = Scaled::of(input.heat.exact().mul(Dd(target.factor, 0.0)));
        let lse = row.logsumexp();
        let slope = target.sum(input).add(lse.mul(Dd(2.0 * target.z, 0.0)));
        for (i, got) in got.into_iter().enumerate() {
            let t = target.t_label.filter(|_| i == input.label).unwrap_or(target.t[i]);
            let p = row.p(i).mul(Scaled::of(slope)).mul(a);
            let t = Scaled::of(t).mul(a);
            let want = p.add(Scaled(t.0.neg(), t.1));
            let size = p.to_dd().0.abs().max(t.to_dd().0.abs());
            // Near overflow either rounding may be the one that overflows.
            if size > T::MAX * 0.99 {
                continue;
            }
            let flushed = if row.is_flushed::<T>(i) { p.to_dd().0.abs() } else { 0.0 };
            let bound = T::by_type(3.0, 6.0, 0.51) + deep::<T>(size);
            let allowed = bound * ulp(size.max(got.abs()), T::FORMAT);
            let of_z = 2.0 * target.z * z_error::<T>(lse) * row.p(i).mul(a).to_dd().0.abs();
            worst.add(relative_error(got, want, allowed + of_z, flushed), i, got, want.to_dd());
        }
        worst
    }
}

/// The gradient through softmax.
struct Backward;

impl<T: Type> Function<T> for Backward {
    const NAME: &'static str = "softmax backward";
    const KINDS: [Kind; 3] = [T::KIND, T::KIND, Kind::Unused];

    fn bound() -> String {
        T::by_type("0.51 ULP", "3 ULP", "0.51 ULP").to_string() + ", and of the sum"
    }

    fn start(input: &mut Input, r: &mut Random) {
        let row = Row::of(input);
        let spread = (r.signed() * 20.0).exp2();
        for (i, (v, _)) in input.columns.iter_mut().enumerate() {
            v[0] = T::KIND.round(row.p(i).to_dd().0);
            v[1] = T::KIND.round(v[1] * if r.below(4) == 0 { spread } else { 1.0 });
        }
    }

    fn takes(input: &Input) -> bool {
        input.columns.iter().all(|(v, _)| (0.0..=1.0).contains(&v[0]) && v[1].abs() < 1e30)
    }

    fn measure(input: &Input) -> Worst {
        let mut worst = Worst::default();
        let (probs, upstream) = (input.expand::<T>(0), input.expand::<T>(1));
        let mut y = vec![T::NAN; probs.len()];
        let options = input.heat.options();
        options
            .backward()
            .softmax(one_row(&probs), one_row(&upstream), one_row_mut(&mut y))
            .expect("a valid call");
        let part =
            |(v, n): &([f64; 3], usize)| Dd(v[0], 0.0).mul(Dd(v[1], 0.0)).mul(Dd(*n as f64, 0.0));
        let sum = input.columns.iter().map(part).fold(Dd(0.0, 0.0), Dd::add);
        let sizes: f64 = input.columns.iter().map(|column| part(column).0.abs()).sum();
        for (i, at) in input.firsts().into_iter().enumerate() {
            let (p, u) = (input.columns[i].0[0], Dd(input.columns[i].0[1], 0.0));
            let a = Scaled::of(input.heat.exact()).mul(Scaled::of(Dd(p, 0.0)));
            let want = Scaled::of(u.sub(sum)).mul(a);
            let size = a.to_dd().0 * u.0.abs().max(sum.0.abs());
            let got = y[at].to_f64();
            if size < T::MAX * 0.49 {
                let size = want.to_dd().0.abs().max(got.abs());
                let bound = T::by_type(0.51, 3.0, 0.51) + deep::<T>(size);
                let of_sum = T::by_type(5e-13, 1e-24, 5e-13) * a.to_dd().0 * sizes;
                let allowed = bound * ulp(size, T::FORMAT) + of_sum;
                worst.add(relative_error(got, want, allowed, 0.0), i, got, want.to_dd());
            }
        }
        worst
    }
}

/// The gradient through log-softmax.
struct LogBackward;

impl<T: Type> Function<T> for LogBackward {
    const NAME: &'static str = "log-softmax backward";
    const KINDS: [Kind; 3] = [T::KIND, T::KIND, Kind::Unused];

    fn bound() -> String {
        ulps_in_words::<T>() + " of the largest part, and of the sum"
    }

    fn start(input: &mut Input, r: &mut Random) {
        let row = Row::of(input);
        let spread = (r.signed() * 20.0).exp2();
        for (i, (v, _)) in input.columns.iter_mut().enumerate() {
            v[0] = T::KIND.round(-row.information(i).to_dd().0.min(1e4));
            v[1] = T::KIND.round(v[1] * if r.below(4) == 0 { spread } else { 1.0 });
        }
    }

    fn takes(input: &Input) -> bool {
        input.columns.iter().all(|(v, _)| (-1e5..=0.0).contains(&v[0]) && v[1].abs() < 1e30)
    }

    fn measure(input: &Input) -> Worst {
        let mut worst = Worst::default();
        let (log_probs, upstream) = (input.expand::<T>(0), input.expand::<T>(1));
        let mut y = vec![T::NAN; log_probs.len()];
        let options = input.heat.options();
        options
            .backward()
            .log_softmax(one_row(&log_probs), one_row(&upstream), one_row_mut(&mut y))
            .expect("a valid call");
        let part = |(v, n): &([f64; 3], usize)| Dd(v[1], 0.0).mul(Dd(*n as f64, 0.0));
        let sum = input.columns.iter().map(part).fold(Dd(0.0, 0.0), Dd::add);
        let sizes: f64 = input.columns.iter().map(|column| part(column).0.abs()).sum();
        for (i, at) in input.firsts().into_iter().enumerate() {
            let (p, u) = (Dd(input.columns[i].0[0], 0.0).exp_scaled(), input.columns[i].0[1]);
            let p_sum = p.mul(Scaled::of(sum));
            let minus = Scaled(p_sum.0.neg(), p_sum.1);
            let a = Scaled::of(input.heat.exact());
            let want = Scaled::of(Dd(u, 0.0)).add(minus).mul(a);
            let size = a.to_dd().0 * u.abs().max(p_sum.to_dd().0.abs());
            let got = y[at].to_f64();
            if size < T::MAX * 0.49 {
                let flushed =
                    if p.exponent() < T::FLUSHED { p_sum.mul(a).to_dd().0.abs() } else { 0.0 };
                let of_sum = T::by_type(5e-13, 1e-24, 5e-13) * p.mul(a).to_dd().0.abs() * sizes;
                let bound = ulps::<T>() + deep::<T>(size);
                let allowed = bound * ulp(size.max(got.abs()), T::FORMAT) + of_sum;
                worst.add(relative_error(got, want, allowed, flushed), i, got, want.to_dd());
            }
        }
        worst
    }
}

/// Options of attention, as flags; their values are the numbers.
const CAP: u32 = 1;
const MASK: u32 = 2;
const SLOPE: u32 = 4;
const ALIBI: u32 = 8;
const SINK: u32 = 16;
const NEGATIVE: u32 = 32;

/// The common part of attention's functions.
struct Attended {
    /// The logits of each column, or of each key if positions count; the sink's is the last.
    row: Row,
    /// The keys of these columns.
    keys: Vec<usize>,
    cap: Option<f64>,
}

/// The largest exact logits.
const EXACT: f64 = 45_000.0;

fn cap(input: &Input) -> Option<f64> {
    input.has(CAP).then(|| input.numbers[0].clamp(2f64.powi(-20), 2f64.powi(20)))
}

fn position(input: &Input) -> isize {
    input.offset.min((1 << 24) - 1)
}

fn f32_option(input: &Input, flag: u32, i: usize) -> Option<f32> {
    let sign = if input.has(NEGATIVE) { -1.0 } else { 1.0 };
    input.has(flag).then(|| (sign * input.numbers[i]) as f32)
}

fn attended(input: &Input) -> Option<Attended> {
    let scale = input.heat.exact();
    let firsts = input.firsts();
    let (slope, alibi) = (f32_option(input, SLOPE, 1), f32_option(input, ALIBI, 2));
    let (mut z, mut copies, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for ((v, n), first) in input.columns.iter().zip(firsts) {
        let mut logit = times(Dd(v[0], 0.0), scale);
        if let Some(c) = cap(input) {
            logit = Dd(c, 0.0).mul(logit.div(Dd(c, 0.0)).tanh());
        }
        if input.has(MASK) {
            let slope = slope.map_or(1.0, f64::from);
            logit = logit.add(Dd(v[1], 0.0).mul(Dd(slope, 0.0)));
        }
        let Some(alibi) = alibi else {
            z.push(logit);
            copies.push(*n as f64);
            keys.push(first);
            continue;
        };
        for key in first..first + n {
            let distance = (key as isize - position(input)) as f64;
            z.push(logit.add(Dd(alibi.into(), 0.0).mul(Dd(distance, 0.0))));
            copies.push(1.0);
            keys.push(key);
        }
    }
    if let Some(sink) = f32_option(input, SINK, 3) {
        z.push(Dd(sink.into(), 0.0));
        copies.push(1.0);
    }
    let is_exact = |z: &Dd| z.0.abs() < EXACT;
    if !z.iter().all(is_exact) {
        return None;
    }
    let less = |a: &&Dd, b: &&Dd| a.sub(**b).0.total_cmp(&0.0);
    let largest = *z.iter().max_by(less)?;
    let below: Vec<Dd> = z.iter().map(|z| z.sub(largest)).collect();
    Some(Attended { row: Row::new(below, copies, largest), keys, cap: cap(input) })
}

/// The probabilities and the log-sum-exp.
fn attend<T: Type + Probs<T>>(input: &Input) -> (Vec<T>, f64) {
    let x = input.expand::<T>(0);
    let (mask, slope) = (input.expand::<f32>(1), f32_option(input, SLOPE, 1).map(|v| [v]));
    let [alibi, sink] =
        [f32_option(input, ALIBI, 2), f32_option(input, SINK, 3)].map(|v| v.map(|v| [v]));
    let mut attention = input.heat.options().attention(1, 1);
    if let Some(cap) = cap(input) {
        attention = attention.soft_cap(cap);
    }
    if input.has(MASK) {
        attention = attention.mask(Mask::new(&mask[..], [1, 1, 1]));
        if let Some(slope) = &slope {
            attention = attention.mask_slopes(slope);
        }
    }
    if let Some(alibi) = &alibi {
        attention = attention.alibi(alibi).offset(position(input));
    }
    if let Some(sink) = &sink {
        attention = attention.sinks(sink);
    }
    let (mut y, mut lse) = (vec![T::NAN; x.len()], [T::Arithmetic::NAN]);
    let done = attention.softmax_and_logsumexp(one_row(&x), one_row_mut(&mut y), &mut lse);
    done.expect("a valid call");
    (y, lse[0].to_f64())
}

fn takes_scores(input: &Input) -> bool {
    let cols: usize = input.columns.iter().map(|&(_, n)| n).sum();
    cols <= if input.has(ALIBI) { 24 } else { usize::MAX }
}

/// Additional error by soft caps in f64.
fn capped<T: Type>(cap: Option<f64>) -> f64 {
    T::by_type(0.0, 1.25, 0.0) * cap.unwrap_or(0.0)
}

/// Additional error of probabilities of f16 from pairs.
fn pairs<T: Type>() -> f64 {
    if matches!(T::KIND, Kind::F16) { 0.01 } else { 0.0 }
}

/// The probabilities of attention.
struct Scores;

impl<T: Type + Probs<T>> Function<T> for Scores {
    const NAME: &'static str = "attention";
    const KINDS: [Kind; 3] = [T::KIND, Kind::F32, Kind::Unused];
    const FLAGS: u32 = CAP | MASK | SLOPE | ALIBI | SINK | NEGATIVE;
    const MOST_COPIES: usize = 300;

    fn bound() -> String {
        let bound = ulps_of_probs::<T>() + pairs::<T>();
        format!("{bound} ULP") + T::by_type("", ", 1.25 c more by a soft cap", "")
    }

    fn takes(input: &Input) -> bool {
        takes_scores(input)
    }

    fn measure(input: &Input) -> Worst {
        let mut worst = Worst::default();
        let Some(Attended { row, keys, cap }) = attended(input) else { return worst };
        let (got, _) = attend::<T>(input);
        for (i, &key) in keys.iter().enumerate() {
            let (got, want) = (got[key].to_f64(), row.p(i));
            if !(got == 0.0 && row.may_be_zero::<T>(i)) {
                let bound = ulps_of_probs::<T>() + pairs::<T>() + capped::<T>(cap);
                worst.add(error(got, want, T::FORMAT, T::MAX) / bound, key, got, want.to_dd());
            }
        }
        worst
    }
}

fn scores_sum_bound<T: Type>() -> (f64, f64) {
    T::by_type((2.0, 1e-7), (3.0, 3e-16), (2.0, 2e-5))
}

/// The log-sum-exp of attention.
struct ScoresSum;

impl<T: Type + Probs<T>> Function<T> for ScoresSum {
    const NAME: &'static str = "attention's log-sum-exp";
    const KINDS: [Kind; 3] = [T::KIND, Kind::F32, Kind::Unused];
    const FLAGS: u32 = CAP | MASK | SLOPE | ALIBI | SINK | NEGATIVE;
    const MOST_COPIES: usize = 300;

    fn bound() -> String {
        in_words(scores_sum_bound::<T>()) + T::by_type("", ", 0.61 c 2^-53 more by a soft cap", "")
    }

    fn takes(input: &Input) -> bool {
        takes_scores(input)
    }

    fn measure(input: &Input) -> Worst {
        let mut worst = Worst::default();
        let Some(Attended { row, cap, .. }) = attended(input) else { return worst };
        let (_, got) = attend::<T>(input);
        let want = row.logsumexp();
        let (ulps, absolute) = scores_sum_bound::<T>();
        let more = T::by_type(0.0, 0.61, 0.0) * cap.unwrap_or(0.0) * f64::EPSILON / 2.0;
        let size = ulp(want.0.abs().max(got.abs()), T::WIDE);
        let allowed = (ulps * size).max(absolute) + more;
        worst.add(relative_error(got, Scaled::of(want), allowed, 0.0), 0, got, want);
        worst
    }
}

/// Perplexity.
struct Perplexity;

impl<T: Type> Function<T> for Perplexity {
    const NAME: &'static str = "perplexity";
    const KINDS: [Kind; 3] = [T::KIND, Kind::Unused, Kind::Unused];
    const HAS_HEAT: bool = false;

    fn bound() -> String {
        "that of a plain sum in f64 (no bound is stated)".into()
    }

    fn start(input: &mut Input, _: &mut Random) {
        input.columns.iter_mut().for_each(|(v, _)| v[0] = -v[0].abs());
    }

    fn takes(input: &Input) -> bool {
        input.columns.iter().all(|(v, _)| (-700.0..=0.0).contains(&v[0]))
    }

    fn measure(input: &Input) -> Worst {
        let mut worst = Worst::default();
        let log_probs = input.expand::<T>(0);
        let n = log_probs.len() as f64;
        let part = |(v, n): &([f64; 3], usize)| Dd(v[0], 0.0).mul(Dd(*n as f64, 0.0));
        let sum = input.columns.iter().map(part).fold(Dd(0.0, 0.0), Dd::add);
        let mean = sum.div(Dd(-n, 0.0));
        let (got, want) = (softmax::perplexity(&log_probs), mean.exp_scaled());
        let bound = ((n + 1.0) * mean.0 + 2.0) * f64::EPSILON;
        let ulps = ulps_scaled(got, want, F64).max(1e-9);
        let allowed = bound * want.to_dd().0;
        worst.add(relative_error(got, want, allowed, 0.0).max(ulps * 1e-9), 0, got, want.to_dd());
        worst
    }
}
