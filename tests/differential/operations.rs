//! The operations: each makes cases of random data and options, and computes any of their rows in
//! any way.

use std::fmt::Debug;

use crate::Way;
use crate::common::{Options, Random};
use crate::place::{Argument, Layout, Place, Word, Wrong, checked};
use crate::values::{Draws, Heat, Number, factor, logits, masked, special};
use softmax::half::{bf16, f16};
use softmax::{
    Attention, BLOCK, BitMask, CrossEntropy, DraftRows, GroupScore, Mask, Masked, Matrix,
    MatrixMut, Merged, MergedRow, Method, OnlineRow, Order, Partial, Probs, Ragged, RaggedMut,
    Reduction, Router, Scoring, SpeculativeSampler, TargetRows, Targets, Ties, Weight,
};

/// The results of rows, each with as many numbers as the others.
pub type Results = Result<Vec<Vec<f64>>, Wrong>;

/// A case: data and options, whose rows can be computed in any way.
pub trait Operation: Debug {
    fn rows(&self) -> usize;

    /// The results of these rows, in one call.
    fn run(&self, rows: &[usize], way: &Way) -> Results;

    /// Whether the rows of a call may have any order; if not, they must be consecutive.
    fn any_order(&self) -> bool {
        true
    }

    /// Whether the row's results are NaN, all or none, by the documentation, where that is simple.
    fn is_nan(&self, _row: usize) -> Option<bool> {
        None
    }

    /// The row's data, printed.
    fn show(&self, row: usize) -> String;
}

fn gather<'a, T>(of: &'a [Vec<T>], rows: &'a [usize]) -> impl Iterator<Item = &'a T> {
    rows.iter().flat_map(|&row| &of[row])
}

/// Values and bits.
fn show<T: Word>(values: &[T]) -> String {
    let most = if std::env::var_os("SOFTMAX_FUZZ_SEED").is_some() { usize::MAX } else { 24 };
    let some: Vec<_> =
        values.iter().take(most).map(|v| format!("{v:?} ({:#x})", v.word())).collect();
    format!("{} x [{}]", values.len(), some.join(", "))
}

/// Rows and columns: mostly few; sometimes a row of several blocks.
fn shape(r: &mut Random) -> (usize, usize) {
    match r.below(48) {
        0 => (r.below(3), r.below(3)),
        1 => (r.size(1, 3), r.size(4000, 14_000)),
        2..18 => (r.size(1, 90), r.size(1, 70)),
        _ => {
            let cols = r.size(1, 700);
            (r.size(1, (3000 / cols).clamp(1, 40)), cols)
        }
    }
}

/// The documentation's table for softmax and its relatives.
fn nan_of_row<T: Number>(x: &[T], infinity_is_nan: bool, masked: Masked) -> Option<bool> {
    let has = |which: fn(f64) -> bool| x.iter().any(|v| which(v.to_f64()));
    if has(f64::is_nan) || (infinity_is_nan && has(|v| v == f64::INFINITY)) {
        return Some(true);
    }
    if x.is_empty() {
        return None;
    }
    Some(!has(|v| v > f64::NEG_INFINITY) && masked == Masked::Nan)
}

/// Operations from rows to rows, and log-sum-exp.
#[derive(Clone, Copy, Debug, PartialEq)]
enum MapOf {
    Softmax,
    LogSoftmax,
    LogSumExp,
    Entropy,
    Sigmoid,
    LogSigmoid,
    Hardmax(Ties),
}

pub struct Map<T> {
    op: MapOf,
    heat: Heat,
    masked: Masked,
    cols: usize,
    x: Vec<Vec<T>>,
    /// The scale is below 0.
    negative: bool,
    /// A mask of booleans, a row for each.
    seen: Option<Vec<Vec<u8>>>,
}

impl<T> Debug for Map<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { op, heat, masked, cols, negative, seen, .. } = self;
        write!(
            f,
            "{op:?}<{}> {heat:?} {masked:?}, negative {negative}, mask {}, {cols} columns",
            std::any::type_name::<T>(),
            seen.is_some(),
        )
    }
}

impl<T: Number> Map<T> {
    fn new(r: &mut Random, (rows, cols): (usize, usize), op: MapOf) -> Self {
        let heat = Heat::any(r);
        let x = logits(r, rows, cols, heat.scale());
        let is_scale = !matches!(heat, Heat::Temperature(_));
        let negative = is_scale && !matches!(op, MapOf::Hardmax(_)) && r.once_in(6);
        let sums =
            matches!(op, MapOf::Softmax | MapOf::LogSoftmax | MapOf::LogSumExp | MapOf::Entropy);
        let seen = (sums && !heat.is_limit() && r.once_in(6)).then(|| {
            let row = |r: &mut Random| (0..cols).map(|_| u8::from(!r.once_in(3))).collect();
            (0..rows).map(|_| row(r)).collect()
        });
        Self { op, heat, masked: masked(r), cols, x, negative, seen }
    }

    /// A row as it counts: with `-inf` where it is masked, negated for scales below 0.
    fn counted(&self, row: usize) -> Vec<T> {
        let seen = |i: usize| self.seen.as_ref().is_none_or(|seen| seen[row][i] != 0);
        let x = self.x[row].iter().enumerate().map(|(i, &x)| match (seen(i), self.negative) {
            (false, _) => T::NEG_INFINITY,
            (true, false) => x,
            (true, true) => T::from_f64(-x.to_f64()),
        });
        x.collect()
    }
}

impl<T: Number> Operation for Map<T> {
    fn rows(&self) -> usize {
        self.x.len()
    }

    fn run(&self, rows: &[usize], way: &Way) -> Results {
        let r = &mut way.random();
        let mut options = self.heat.of(way.options()).masked(self.masked);
        let shape = (rows.len(), self.cols);
        // The reference is given what counts.
        let reference = way.is_reference();
        if self.negative && !reference {
            options = options.scale(-self.heat.scale());
        }
        let of = |&row: &usize| if reference { self.counted(row) } else { self.x[row].clone() };
        let logits: Vec<Vec<T>> = rows.iter().map(of).collect();
        let seen: Option<Vec<u8>> = self
            .seen
            .as_ref()
            .filter(|_| !reference)
            .map(|seen| gather(seen, rows).copied().collect());
        let softmax = || match &seen {
            Some(seen) => options.softmax().mask(seen),
            None => options.softmax(),
        };
        let mut x = Place::filled(way.layout, r, shape, false, logits.iter().flatten());
        if matches!(self.op, MapOf::LogSumExp | MapOf::Entropy) {
            let mut y = Place::<T>::new(way.layout, r, (1, rows.len()), true);
            let done = match self.op {
                MapOf::Entropy => softmax().entropy(x.matrix(), y.slice_mut()),
                _ => softmax().logsumexp(x.matrix(), y.slice_mut()),
            };
            checked(done, &[("logits", &x)], &[("results", &y)])?;
            return Ok(y.slice().iter().map(|v| vec![v.number()]).collect());
        }
        if way.in_place {
            let m = x.matrix_mut();
            let done = match self.op {
                MapOf::Softmax => softmax().softmax_in_place(m),
                MapOf::LogSoftmax => softmax().log_softmax_in_place(m),
                MapOf::Sigmoid => options.sigmoid().sigmoid_in_place(m),
                MapOf::LogSigmoid => options.sigmoid().log_sigmoid_in_place(m),
                MapOf::Hardmax(ties) => options.hardmax(ties).hardmax_in_place(m),
                MapOf::LogSumExp | MapOf::Entropy => unreachable!("it is not in place"),
            };
            checked(done, &[], &[("results", &x)])?;
            return Ok(x.numbers());
        }
        let mut y = Place::<T>::new(way.layout, r, shape, false);
        let (from, to) = (x.matrix(), y.matrix_mut());
        let done = match self.op {
            MapOf::Softmax => softmax().softmax(from, to),
            MapOf::LogSoftmax => softmax().log_softmax(from, to),
            MapOf::Sigmoid => options.sigmoid().sigmoid(from, to),
            MapOf::LogSigmoid => options.sigmoid().log_sigmoid(from, to),
            MapOf::Hardmax(ties) => options.hardmax(ties).hardmax(from, to),
            MapOf::LogSumExp | MapOf::Entropy => unreachable!("it is no map"),
        };
        checked(done, &[("logits", &x)], &[("results", &y)])?;
        Ok(y.numbers())
    }

    fn is_nan(&self, row: usize) -> Option<bool> {
        let x = &self.counted(row);
        let zero = matches!(self.heat, Heat::Temperature(0.0));
        match self.op {
            MapOf::Softmax | MapOf::LogSoftmax => nan_of_row(x, !zero, self.masked),
            MapOf::Entropy => nan_of_row(x, true, self.masked),
            MapOf::Hardmax(_) => nan_of_row(x, false, self.masked),
            MapOf::LogSumExp => Some(x.iter().any(|v| v.to_f64().is_nan())),
            MapOf::Sigmoid | MapOf::LogSigmoid => {
                let any = x.iter().any(|v| v.to_f64().is_nan());
                (!any).then_some(false)
            }
        }
    }

    fn show(&self, row: usize) -> String {
        show(&self.x[row])
    }
}

/// Choices, and the log-probabilities of some tokens.
#[derive(Debug)]
enum Wanted {
    Largest,
    Top { k: usize, probs: bool },
    Tokens { of_row: Vec<Vec<usize>>, lse: bool },
}

pub struct Pick<T> {
    wanted: Wanted,
    heat: Heat,
    masked: Masked,
    cols: usize,
    x: Vec<Vec<T>>,
}

impl<T> Debug for Pick<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { heat, masked, cols, .. } = self;
        let wanted = match &self.wanted {
            Wanted::Tokens { lse, .. } => format!("log_probs, lse {lse}"),
            other => format!("{other:?}"),
        };
        write!(f, "{wanted}<{}> {heat:?} {masked:?}, {cols} columns", std::any::type_name::<T>())
    }
}

impl<T: Number> Pick<T> {
    fn new(r: &mut Random, (rows, cols): (usize, usize)) -> Self {
        let wanted = match r.below(5) {
            0 => Wanted::Largest,
            1 | 2 => {
                let k = if r.once_in(3) { r.below(cols + 1) } else { r.below(6).min(cols) };
                Wanted::Top { k, probs: r.once_in(2) }
            }
            _ => {
                let k = if cols == 0 { 0 } else { r.size(1, 9) };
                let mut row = |_| (0..k).map(|_| r.below(cols)).collect();
                Wanted::Tokens { of_row: (0..rows).map(&mut row).collect(), lse: r.once_in(2) }
            }
        };
        let heat = Heat::any(r);
        let x = logits(r, rows, cols, heat.scale());
        Self { wanted, heat, masked: masked(r), cols, x }
    }
}

impl<T: Number> Operation for Pick<T> {
    fn rows(&self) -> usize {
        self.x.len()
    }

    fn run(&self, rows: &[usize], way: &Way) -> Results {
        let (r, n) = (&mut way.random(), rows.len());
        let options = self.heat.of(way.options()).masked(self.masked);
        let x = Place::filled(way.layout, r, (n, self.cols), false, gather(&self.x, rows));
        let mut place = |k| Place::<T::Arithmetic>::new(way.layout, r, (n, k), true);
        match &self.wanted {
            Wanted::Largest => {
                let mut indices = Place::<usize>::new(way.layout, r, (n, 1), true);
                let done = options.hardmax(Ties::Share).argmax(x.matrix(), indices.slice_mut());
                checked(done, &[("logits", &x)], &[("indices", &indices)])?;
                Ok(indices.numbers())
            }
            &Wanted::Top { k, probs } => {
                let (mut log_probs, mut of_top) = (place(k), place(k));
                let mut indices = Place::<usize>::new(way.layout, r, (n, k), true);
                let (i, l) = (indices.slice_mut(), log_probs.slice_mut());
                let top_k = options.top_k(k);
                let done = match probs {
                    true => top_k.log_probs_and_probs(x.matrix(), l, of_top.slice_mut(), i),
                    false => top_k.log_probs(x.matrix(), l, i),
                };
                let outputs: [(_, &dyn crate::place::Argument); 3] = [
                    ("indices", &indices),
                    ("log-probabilities", &log_probs),
                    ("probabilities", &of_top),
                ];
                checked(done, &[("logits", &x)], &outputs)?;
                let both = indices.numbers().into_iter().zip(log_probs.numbers());
                let all = both.zip(of_top.numbers());
                let row = |((i, l), p)| if probs { [i, l, p].concat() } else { [i, l].concat() };
                Ok(all.map(row).collect())
            }
            Wanted::Tokens { of_row, lse } => {
                let k = of_row.first().map_or(0, Vec::len);
                let (mut log_probs, mut sums) = (place(k), place(1));
                let tokens = Place::filled(way.layout, r, (n, k), true, gather(of_row, rows));
                let (t, l) = (tokens.slice(), log_probs.slice_mut());
                let done = match lse {
                    true => options.log_probs().log_probs_and_logsumexp(
                        x.matrix(),
                        t,
                        l,
                        sums.slice_mut(),
                    ),
                    false => options.log_probs().log_probs(x.matrix(), t, l),
                };
                let inputs: [(_, &dyn crate::place::Argument); 2] =
                    [("logits", &x), ("tokens", &tokens)];
                let outputs: [(_, &dyn crate::place::Argument); 2] =
                    [("log-probabilities", &log_probs), ("log-sum-exps", &sums)];
                checked(done, &inputs, &outputs)?;
                let both = log_probs.numbers().into_iter().zip(sums.numbers());
                Ok(both.map(|(l, s)| if *lse { [l, s].concat() } else { l }).collect())
            }
        }
    }

    fn is_nan(&self, row: usize) -> Option<bool> {
        match self.wanted {
            Wanted::Tokens { lse: false, .. } => nan_of_row(&self.x[row], true, self.masked),
            _ => None,
        }
    }

    fn show(&self, row: usize) -> String {
        let tokens = match &self.wanted {
            Wanted::Tokens { of_row, .. } => format!(" tokens {:?}", of_row[row]),
            _ => String::new(),
        };
        show(&self.x[row]) + &tokens
    }
}

/// Losses and their gradients.
pub struct Loss<T> {
    x: Vec<Vec<T>>,
    cols: usize,
    labels: Option<Vec<i64>>,
    probs: Vec<Vec<T>>,
    heat: Heat,
    smoothing: f64,
    weights: Option<Vec<f32>>,
    z: f64,
    divergence: bool,
    factors: Option<Vec<f64>>,
    factor: f64,
    gradient: bool,
    mean: bool,
}

impl<T> Debug for Loss<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cols, heat, smoothing, weights, z, divergence, factor, gradient, mean, .. } =
            self;
        write!(
            f,
            "{}<{}> of {}, {heat:?}, smoothing {smoothing}, z {z:?}, divergence {divergence}, factor {factor:?}, mean {mean}, {cols} columns, weights {weights:?}",
            if *gradient { "gradient" } else { "losses" },
            std::any::type_name::<T>(),
            if self.labels.is_some() { "labels" } else { "probabilities" },
        )
    }
}

impl<T: Number> Loss<T> {
    fn new(r: &mut Random, (rows, cols): (usize, usize)) -> Self {
        let cols = cols.max(1);
        let heat = Heat::any(r);
        let x = logits(r, rows, cols, heat.scale());
        let labels = (!r.once_in(3)).then(|| {
            let label = |_| if r.once_in(8) { -100 } else { r.below(cols) as i64 };
            (0..rows).map(label).collect()
        });
        let probs = match labels {
            Some(_) => Vec::new(),
            None => (0..rows).map(|_| target(r, cols)).collect(),
        };
        let smoothing = match r.below(6) {
            0 => 0.1,
            1 => r.one(&[1.0, 1e-300, 0.5]),
            _ => 0.0,
        };
        let weights = r.once_in(4).then(|| (0..cols).map(|_| factor(r).abs() as f32).collect());
        let z = match r.below(6) {
            0 => 1e-4,
            1 => factor(r).abs(),
            _ => 0.0,
        };
        let z = if z.is_finite() { z } else { 0.0 };
        let factors = r.once_in(4).then(|| (0..rows).map(|_| factor(r)).collect());
        Self {
            x,
            cols,
            labels,
            probs,
            heat,
            smoothing,
            weights,
            z,
            divergence: r.once_in(4),
            factors,
            factor: if r.once_in(2) { 1.0 } else { factor(r) },
            gradient: !r.once_in(4),
            mean: r.once_in(2),
        }
    }

    fn loss<'a>(
        &self,
        way: &'a Way,
        weights: &'a [f32],
    ) -> Result<CrossEntropy<'a>, softmax::Error> {
        let mut loss = self
            .heat
            .of(way.options())
            .cross_entropy()
            .label_smoothing(self.smoothing)
            .z_loss(self.z)
            .reduction(Reduction::Sum);
        if self.divergence {
            loss = loss.divergence();
        }
        if self.weights.is_some() {
            loss = loss.weights(weights);
        }
        Ok(loss)
    }
}

/// Probabilities, more or less.
fn target<T: Number>(r: &mut Random, cols: usize) -> Vec<T> {
    let kind = r.below(6);
    let one = r.below(cols);
    let element = |i: usize| match kind {
        0 => T::from_f64(f64::from(i == one)),
        1 => T::from_f64(r.power(-150.0, 0.0)),
        2 if r.once_in(4) => special(r),
        _ => T::from_f64((r.unit() + 1.0) / cols as f64),
    };
    (0..cols).map(element).collect()
}

impl<T: Number> Operation for Loss<T> {
    fn rows(&self) -> usize {
        self.x.len()
    }

    fn run(&self, rows: &[usize], way: &Way) -> Results {
        let (r, n) = (&mut way.random(), rows.len());
        let one = |values: Option<&Vec<f64>>| -> Vec<f64> {
            rows.iter().filter_map(|&row| values.map(|v| v[row])).collect()
        };
        let weights: Vec<f32> = self.weights.clone().unwrap_or_default();
        let weights = Place::filled(way.layout, r, (1, weights.len()), true, &weights);
        let factors = one(self.factors.as_ref());
        let factors = Place::filled(way.layout, r, (1, factors.len()), true, &factors);
        let mut loss = self.loss(way, weights.slice())?;
        if self.factors.is_some() {
            loss = loss.row_factors(factors.slice());
        }
        // A mean has the bits of a sum whose gradient is divided by the mean's divisor.
        loss = loss.gradient_factor(self.factor);
        if self.mean {
            let whole = loss.reduction(Reduction::Mean);
            let divisor = match &self.labels {
                Some(labels) => whole.divisor(labels, self.cols)?,
                None => self.x.len() as f64,
            };
            let simple = divisor > 0.0 && divisor.is_finite();
            let all = rows.iter().copied().eq(0..self.rows());
            loss = match simple {
                true if all => whole,
                true => loss.gradient_factor(self.factor / divisor),
                false => loss,
            };
        }
        let labels: Vec<i64> =
            self.labels.iter().flat_map(|labels| rows.iter().map(|&row| labels[row])).collect();
        let labels = Place::filled(way.layout, r, (1, labels.len()), true, &labels);
        let probs = if self.labels.is_some() { (0, 0) } else { (n, self.cols) };
        let of: &[Vec<T>] = if self.labels.is_some() { &[] } else { &self.probs };
        let rows_of: &[usize] = if self.labels.is_some() { &[] } else { rows };
        let probs = Place::filled(way.layout, r, probs, false, gather(of, rows_of));
        let targets = || match self.labels {
            Some(_) => Targets::Labels(labels.slice()),
            None => Targets::Probs(probs.matrix()),
        };
        let shape = (n, self.cols);
        let mut x = Place::filled(way.layout, r, shape, false, gather(&self.x, rows));
        let mut losses = Place::<f64>::new(way.layout, r, (n, 1), true);
        let both = |losses: Vec<Vec<f64>>, gradient: Vec<Vec<f64>>| {
            losses.into_iter().zip(gradient).map(|(l, g)| [l, g].concat()).collect()
        };
        macro_rules! checked {
            ($done:expr, [$($input:ident),*], [$($output:ident),*]) => {
                checked(
                    $done,
                    &[$((stringify!($input), &$input),)* ("weights", &weights), ("factors", &factors),
                      ("labels", &labels), ("targets", &probs)],
                    &[$((stringify!($output), &$output)),*],
                )?
            };
        }
        if !self.gradient {
            let done = loss.losses(x.matrix(), targets(), losses.slice_mut());
            checked!(done, [x], [losses]);
            return Ok(losses.numbers());
        }
        if way.in_place {
            let done =
                loss.losses_and_gradient_in_place(x.matrix_mut(), targets(), losses.slice_mut());
            checked!(done, [], [x, losses]);
            return Ok(both(losses.numbers(), x.numbers()));
        }
        let mut y = Place::<T>::new(way.layout, r, shape, false);
        let (m, g) = (x.matrix(), y.matrix_mut());
        let done = loss.losses_and_gradient(m, targets(), losses.slice_mut(), g);
        checked!(done, [x], [y, losses]);
        Ok(both(losses.numbers(), y.numbers()))
    }

    fn is_nan(&self, row: usize) -> Option<bool> {
        let ignored = self.labels.as_ref().is_some_and(|labels| labels[row] == -100);
        let nan = nan_of_row(&self.x[row], true, Masked::Nan)?;
        if ignored || !self.gradient || self.heat.is_limit() {
            return None;
        }
        if nan {
            return Some(true);
        }
        // Without overflow, only the loss of a label at -inf is not a number.
        let factors =
            [self.factor, self.factors.as_ref().map_or(1.0, |f| f[row]), self.heat.scale()];
        let weights = self.weights.iter().flatten().map(|&w| f64::from(w));
        let probs = self.probs.get(row).into_iter().flatten().map(|q| q.to_f64());
        let plain = factors.into_iter().chain(weights).chain(probs).chain([1.0 + self.z]);
        let plain = plain.map(f64::abs).all(|v| v == 0.0 || (1e-12..1e12).contains(&v));
        let finite = self.x[row].iter().all(|v| v.to_f64().abs() < 1e6);
        (plain && finite && self.labels.is_some()).then_some(false)
    }

    fn show(&self, row: usize) -> String {
        let label = self.labels.as_ref().map(|labels| labels[row]);
        let probs = self.probs.get(row).map(|q| show(q));
        let factor = self.factors.as_ref().map(|f| f[row]);
        format!("{} label {label:?} targets {probs:?} factor {factor:?}", show(&self.x[row]))
    }
}

/// Gradients through softmax and log-softmax.
pub struct Backward<T> {
    log: bool,
    heat: Heat,
    cols: usize,
    output: Vec<Vec<T>>,
    upstream: Vec<Vec<T>>,
}

impl<T> Debug for Backward<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { log, heat, cols, .. } = self;
        write!(f, "backward<{}>, log {log}, {heat:?}, {cols} columns", std::any::type_name::<T>())
    }
}

impl<T: Number> Backward<T> {
    fn new(r: &mut Random, (rows, cols): (usize, usize)) -> Self {
        let (log, heat) = (r.once_in(2), Heat::any(r));
        let output = if r.once_in(4) {
            logits(r, rows, cols, 1.0)
        } else {
            let map = Map {
                op: if log { MapOf::LogSoftmax } else { MapOf::Softmax },
                heat,
                masked: masked(r),
                cols,
                x: logits::<T>(r, rows, cols, heat.scale()),
                negative: false,
                seen: None,
            };
            let all: Vec<usize> = (0..rows).collect();
            let output = map.run(&all, &Way::reference()).unwrap_or_default();
            let row = |row: Vec<f64>| row.into_iter().map(T::from_f64).collect();
            output.into_iter().map(row).collect()
        };
        let mut upstream = logits(r, rows, cols, 1.0);
        if r.once_in(2) {
            let to = |v: &mut T| *v = T::from_f64(factor(r));
            upstream.iter_mut().flatten().for_each(to);
        }
        Self { log, heat, cols, output, upstream }
    }
}

impl<T: Number> Operation for Backward<T> {
    fn rows(&self) -> usize {
        self.output.len()
    }

    fn run(&self, rows: &[usize], way: &Way) -> Results {
        let (r, shape) = (&mut way.random(), (rows.len(), self.cols));
        let options = self.heat.of(way.options());
        let output = Place::filled(way.layout, r, shape, false, gather(&self.output, rows));
        let upstream = gather(&self.upstream, rows);
        let upstream = Place::filled(way.layout, r, shape, false, upstream);
        let mut y = Place::<T>::new(way.layout, r, shape, false);
        let (o, u, g) = (output.matrix(), upstream.matrix(), y.matrix_mut());
        let done = match self.log {
            true => options.backward().log_softmax(o, u, g),
            false => options.backward().softmax(o, u, g),
        };
        checked(done, &[("output", &output), ("upstream", &upstream)], &[("gradient", &y)])?;
        Ok(y.numbers())
    }

    fn show(&self, row: usize) -> String {
        format!("{} upstream {}", show(&self.output[row]), show(&self.upstream[row]))
    }
}

/// The divergence of two rows of logits, then both gradients.
pub struct Diverged<T> {
    heat: Heat,
    masked: Masked,
    cols: usize,
    x: Vec<Vec<T>>,
    y: Vec<Vec<T>>,
    upstream: Vec<T>,
    /// The scale is below 0.
    negative: bool,
}

impl<T> Debug for Diverged<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { heat, masked, cols, negative, .. } = self;
        let of = std::any::type_name::<T>();
        write!(f, "divergence<{of}> {heat:?} {masked:?}, negative {negative}, {cols} columns")
    }
}

impl<T: Number> Diverged<T> {
    fn new(r: &mut Random, (rows, cols): (usize, usize)) -> Self {
        let mut heat = Heat::any(r);
        while heat.is_limit() {
            heat = Heat::any(r);
        }
        let x = logits::<T>(r, rows, cols, heat.scale());
        let mut y = logits::<T>(r, rows, cols, heat.scale());
        for (x, y) in x.iter().zip(&mut y) {
            if r.once_in(2) {
                let near = |x: &T| T::from_f64(x.to_f64() + 1e-3 * factor(r));
                *y = x.iter().map(near).collect();
            }
        }
        let upstream = (0..rows).map(|_| T::from_f64(factor(r))).collect();
        let negative = !matches!(heat, Heat::Temperature(_)) && r.once_in(6);
        Self { heat, masked: masked(r), cols, x, y, upstream, negative }
    }
}

impl<T: Number> Operation for Diverged<T> {
    fn rows(&self) -> usize {
        self.x.len()
    }

    fn run(&self, rows: &[usize], way: &Way) -> Results {
        let (r, shape) = (&mut way.random(), (rows.len(), self.cols));
        let mut options = self.heat.of(way.options()).masked(self.masked);
        // The reference is given what counts: logits that are negated.
        let by_hand = self.negative && way.is_reference();
        if self.negative && !by_hand {
            options = options.scale(-self.heat.scale());
        }
        let sign = |v: &T| if by_hand { T::from_f64(-v.to_f64()) } else { *v };
        let [x, y] = [&self.x, &self.y].map(|x| gather(x, rows).map(sign).collect::<Vec<T>>());
        let x = Place::filled(way.layout, r, shape, false, x.iter());
        let y = Place::filled(way.layout, r, shape, false, y.iter());
        let upstream: Vec<T> = rows.iter().map(|&row| sign(&self.upstream[row])).collect();
        let mut kl = Place::<T>::new(way.layout, r, (1, rows.len()), true);
        let mut of_x = Place::<T>::new(way.layout, r, shape, false);
        let mut of_y = Place::<T>::new(way.layout, r, shape, false);
        let softmax = options.softmax();
        let done = softmax.kl_divergence(x.matrix(), y.matrix(), kl.slice_mut()).and_then(|()| {
            let gradients = (Some(of_x.matrix_mut()), Some(of_y.matrix_mut()));
            let (x, y) = (x.matrix(), y.matrix());
            softmax.kl_divergence_backward(x, y, &upstream, gradients.0, gradients.1)
        });
        checked(
            done,
            &[("x", &x), ("y", &y)],
            &[("divergences", &kl), ("gradients", &of_x), ("gradients", &of_y)],
        )?;
        let slopes = of_x.numbers().into_iter().zip(of_y.numbers());
        let all = kl.slice().iter().zip(slopes).map(|(kl, (of_x, of_y))| {
            let mut row = vec![kl.number()];
            row.extend(of_x.into_iter().chain(of_y));
            row
        });
        Ok(all.collect())
    }

    fn show(&self, row: usize) -> String {
        format!("{} and {}", show(&self.x[row]), show(&self.y[row]))
    }
}

/// Softmax, log-softmax or log-sum-exp of rows of different lengths; the reference computes each
/// alone.
pub struct Uneven<T> {
    op: MapOf,
    heat: Heat,
    masked: Masked,
    x: Vec<Vec<T>>,
}

impl<T> Debug for Uneven<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { op, heat, masked, .. } = self;
        write!(f, "uneven {op:?}<{}> {heat:?} {masked:?}", std::any::type_name::<T>())
    }
}

impl<T: Number> Uneven<T> {
    fn new(r: &mut Random, (rows, cols): (usize, usize)) -> Self {
        let op = r.one(&[MapOf::Softmax, MapOf::Softmax, MapOf::LogSoftmax, MapOf::LogSumExp]);
        let mut heat = Heat::any(r);
        while op == MapOf::LogSumExp && heat.is_limit() {
            heat = Heat::any(r);
        }
        // Many short rows, too.
        let rows = if cols <= 64 && r.once_in(3) { rows * 5 } else { rows };
        let mut x = logits(r, rows, cols, heat.scale());
        x.iter_mut().for_each(|row| row.truncate(r.below(cols + 1)));
        Self { op, heat, masked: masked(r), x }
    }
}

impl<T: Number> Operation for Uneven<T> {
    fn rows(&self) -> usize {
        self.x.len()
    }

    fn run(&self, rows: &[usize], way: &Way) -> Results {
        let r = &mut way.random();
        let options = self.heat.of(way.options()).masked(self.masked);
        let mut offsets = vec![0usize];
        rows.iter().for_each(|&row| offsets.push(offsets[offsets.len() - 1] + self.x[row].len()));
        let shape = (1, offsets[rows.len()]);
        let mut x = Place::filled(way.layout, r, shape, true, gather(&self.x, rows));
        let mut y = Place::<T>::new(way.layout, r, shape, true);
        let mut lse = Place::<T>::new(way.layout, r, (1, rows.len()), true);
        let softmax = options.softmax();
        let in_place = way.in_place && self.op != MapOf::LogSumExp;
        let done = if way.is_reference() {
            (0..rows.len()).try_for_each(|i| {
                let (at, n) = (offsets[i]..offsets[i + 1], offsets[i + 1] - offsets[i]);
                let from = Matrix::with_stride(&x.slice()[at.clone()], 1, n, n)?;
                if self.op == MapOf::LogSumExp {
                    return softmax.logsumexp(from, &mut lse.slice_mut()[i..=i]);
                }
                let to = MatrixMut::with_stride(&mut y.slice_mut()[at], 1, n, n)?;
                match self.op {
                    MapOf::LogSoftmax => softmax.log_softmax(from, to),
                    _ => softmax.softmax(from, to),
                }
            })
        } else if in_place {
            RaggedMut::new(x.slice_mut(), &offsets).and_then(|x| match self.op {
                MapOf::LogSoftmax => softmax.log_softmax_ragged_in_place(x),
                _ => softmax.softmax_ragged_in_place(x),
            })
        } else {
            Ragged::new(x.slice(), &offsets).and_then(|x| match self.op {
                MapOf::LogSumExp => softmax.logsumexp_ragged(x, lse.slice_mut()),
                MapOf::LogSoftmax => softmax.log_softmax_ragged(x, y.slice_mut()),
                _ => softmax.softmax_ragged(x, y.slice_mut()),
            })
        };
        if self.op == MapOf::LogSumExp {
            checked(done, &[("logits", &x)], &[("results", &lse)])?;
            return Ok(lse.slice().iter().map(|v| vec![v.number()]).collect());
        }
        let result = if in_place && !way.is_reference() { &x } else { &y };
        if in_place {
            checked(done, &[], &[("results", result)])?;
        } else {
            checked(done, &[("logits", &x)], &[("results", result)])?;
        }
        let numbers: Vec<f64> = result.slice().iter().map(|v| v.number()).collect();
        Ok(offsets.windows(2).map(|at| numbers[at[0]..at[1]].to_vec()).collect())
    }

    fn show(&self, row: usize) -> String {
        show(&self.x[row])
    }
}

/// Softmax along an axis: its rows are the columns of a tensor.
pub struct Axis<T> {
    log: bool,
    heat: Heat,
    masked: Masked,
    cols: usize,
    x: Vec<Vec<T>>,
}

impl<T> Debug for Axis<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { log, heat, masked, cols, .. } = self;
        write!(
            f,
            "axis<{}>, log {log}, {heat:?} {masked:?}, {cols} along the axis",
            std::any::type_name::<T>()
        )
    }
}

impl<T: Number> Axis<T> {
    fn new(r: &mut Random, (rows, cols): (usize, usize)) -> Self {
        let heat = Heat::any(r);
        let x = logits(r, rows, cols, heat.scale());
        Self { log: r.once_in(2), heat, masked: masked(r), cols, x }
    }
}

impl<T: Number> Operation for Axis<T> {
    fn rows(&self) -> usize {
        self.x.len()
    }

    fn run(&self, rows: &[usize], way: &Way) -> Results {
        let (r, n) = (&mut way.random(), rows.len());
        let options = self.heat.of(way.options()).masked(self.masked);
        if way.is_reference() || self.heat.is_limit() {
            let (op, heat) = (if self.log { MapOf::LogSoftmax } else { MapOf::Softmax }, self.heat);
            let x = rows.iter().map(|&row| self.x[row].clone()).collect();
            let (masked, cols) = (self.masked, self.cols);
            let map = Map { op, heat, masked, cols, x, negative: false, seen: None };
            return map.run(&(0..n).collect::<Vec<_>>(), way);
        }
        // Any split of the rows into those before and those behind the axis.
        let mut inner = r.size(1, n.max(1));
        while n % inner != 0 {
            inner -= 1;
        }
        let (outer, cols) = (n / inner, self.cols);
        let at = |row: usize, i: usize| (row / inner * cols + i) * inner + row % inner;
        let mut tensor = vec![T::ZERO; n * cols];
        for (row, &of) in rows.iter().enumerate() {
            for (i, &v) in self.x[of].iter().enumerate() {
                tensor[at(row, i)] = v;
            }
        }
        let mut x = Place::filled(way.layout, r, (1, n * cols), true, &tensor);
        let mut y = Place::<T>::new(way.layout, r, (1, n * cols), true);
        let (shape, axis) = match r.below(3) {
            0 => (vec![outer, cols, inner], 1),
            1 if outer == 1 => (vec![cols, inner], -2),
            _ => (vec![outer, 1, cols, inner, 1], 2),
        };
        let result = if way.in_place {
            let done = match self.log {
                true => options.softmax().log_softmax_axis_in_place(x.slice_mut(), &shape, axis),
                false => options.softmax().softmax_axis_in_place(x.slice_mut(), &shape, axis),
            };
            checked(done, &[], &[("results", &x)])?;
            x.slice()
        } else {
            let done = match self.log {
                true => options.softmax().log_softmax_axis(x.slice(), y.slice_mut(), &shape, axis),
                false => options.softmax().softmax_axis(x.slice(), y.slice_mut(), &shape, axis),
            };
            checked(done, &[("logits", &x)], &[("results", &y)])?;
            y.slice()
        };
        let row = |row| (0..cols).map(|i| result[at(row, i)].number()).collect();
        Ok((0..n).map(row).collect())
    }

    fn is_nan(&self, row: usize) -> Option<bool> {
        let zero = matches!(self.heat, Heat::Temperature(0.0));
        nan_of_row(&self.x[row], !zero, self.masked)
    }

    fn show(&self, row: usize) -> String {
        show(&self.x[row])
    }
}

/// Rows in shards.
pub struct Sharded<T> {
    log: bool,
    heat: Heat,
    masked: Masked,
    x: Vec<Vec<T>>,
}

impl<T> Debug for Sharded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { log, heat, masked, x } = self;
        let cols = x.first().map_or(0, Vec::len);
        write!(
            f,
            "shards<{}>, log {log}, {heat:?} {masked:?}, {cols} columns",
            std::any::type_name::<T>()
        )
    }
}

impl<T: Number> Sharded<T> {
    fn new(r: &mut Random, (_, cols): (usize, usize)) -> Self {
        // Some rows have several blocks.
        let cols = if r.once_in(3) { r.size(1, 3 * BLOCK) } else { cols.max(1) };
        let heat = Heat::any(r);
        let x = logits(r, 1, cols, heat.scale());
        Self { log: r.once_in(2), heat, masked: masked(r), x }
    }
}

impl<T: Number> Operation for Sharded<T> {
    fn rows(&self) -> usize {
        self.x.len()
    }

    fn run(&self, rows: &[usize], way: &Way) -> Results {
        let r = &mut way.random();
        // Each step may run on another machine.
        let options = |r: &mut Random| {
            let options = self.heat.of(way.options()).masked(self.masked);
            options.kernel(r.one(&way.kernels))
        };
        let mut results = Vec::new();
        for &row in rows {
            let x = &self.x[row];
            if way.is_reference() || self.heat.is_limit() {
                let (op, heat) =
                    (if self.log { MapOf::LogSoftmax } else { MapOf::Softmax }, self.heat);
                let map = |op| Map {
                    op,
                    heat,
                    masked: self.masked,
                    cols: x.len(),
                    x: vec![x.clone()],
                    negative: false,
                    seen: None,
                };
                let mut y = map(op).run(&[0], way)?.remove(0);
                y.extend(map(MapOf::LogSumExp).run(&[0], way)?.remove(0));
                results.push(y);
                continue;
            }
            let blocks = Partial::count(x.len());
            let mut cuts: Vec<usize> =
                (0..r.below(3)).map(|_| r.below(blocks + 1) * BLOCK.min(x.len())).collect();
            cuts.extend([0, x.len()]);
            cuts.iter_mut().for_each(|cut| *cut = (*cut).min(x.len()));
            cuts.sort_unstable();
            let places: Vec<Place<T>> = cuts
                .windows(2)
                .map(|cut| {
                    let part = &x[cut[0]..cut[1]];
                    Place::filled(way.layout, r, (1, part.len()), true, part)
                })
                .collect();
            // A known largest element of the row may be given from the start.
            let finite = x.iter().map(|v| v.to_f64()).filter(|v| v.is_finite());
            let mut row_max = (r.once_in(4) && x.iter().all(|v| v.to_f64() < f64::INFINITY))
                .then(|| finite.fold(f64::NEG_INFINITY, f64::max))
                .filter(|max| max.is_finite());
            let mut turns = 0;
            let whole = loop {
                let mut partials = Vec::new();
                for place in &places {
                    let mut of_place = vec![Partial::NOTHING; Partial::count(place.slice().len())];
                    options(r).shards().partials(place.slice(), row_max, &mut of_place)?;
                    place_same(place)?;
                    partials.extend(of_place);
                }
                // Partials in every form that can be sent: those of f32 as pairs, too.
                match r.below(if T::NAME == "f32" { 3 } else { 1 }) {
                    0 => partials.iter_mut().for_each(|p| *p = Partial::from_array(p.to_array())),
                    1 => partials.iter_mut().for_each(|p| *p = Partial::from_pair(p.to_pair())),
                    _ => {}
                }
                match options(r).shards().merge::<T>(&partials)? {
                    Merged::Row(whole) => break whole,
                    Merged::Again(max) if turns == 0 || row_max.is_none() => row_max = Some(max),
                    Merged::Again(max) => {
                        return Err(Wrong::Harm(format!("again by {max} after {row_max:?}")));
                    }
                }
                turns += 1;
            };
            let whole = if r.once_in(3) {
                match options(r).shards().merge::<T>(&[whole.to_partial()])? {
                    Merged::Row(whole) => whole,
                    Merged::Again(max) => {
                        return Err(Wrong::Harm(format!("a merged row again by {max}")));
                    }
                }
            } else {
                whole
            };
            results.push(self.finish(&places, &whole, r, way, &options)?);
        }
        Ok(results)
    }

    fn is_nan(&self, row: usize) -> Option<bool> {
        let zero = matches!(self.heat, Heat::Temperature(0.0));
        // Log-sum-exp is NaN for a NaN, but not where others are for an infinity or a mask.
        let nan = nan_of_row(&self.x[row], !zero, self.masked)?;
        (!nan).then_some(false)
    }

    fn show(&self, row: usize) -> String {
        show(&self.x[row])
    }
}

fn place_same<T: Word>(place: &Place<T>) -> Result<(), Wrong> {
    checked(Ok(()), &[("shard", place)], &[])
}

impl<T: Number> Sharded<T> {
    fn finish<'a>(
        &self,
        places: &[Place<T>],
        whole: &MergedRow<T>,
        r: &mut Random,
        way: &Way,
        options: &impl Fn(&mut Random) -> Options<'a>,
    ) -> Result<Vec<f64>, Wrong> {
        let mut all = Vec::new();
        for place in places {
            let shape = (1, place.slice().len());
            let shards = options(r).shards();
            if way.in_place {
                let mut y = Place::filled(way.layout, r, shape, true, place.slice());
                let done = match self.log {
                    true => shards.log_softmax_in_place(whole, y.slice_mut()),
                    false => shards.softmax_in_place(whole, y.slice_mut()),
                };
                checked(done, &[], &[("shard", &y)])?;
                all.extend(y.numbers().concat());
            } else {
                let mut y = Place::<T>::new(way.layout, r, shape, true);
                let done = match self.log {
                    true => shards.log_softmax(whole, place.slice(), y.slice_mut()),
                    false => shards.softmax(whole, place.slice(), y.slice_mut()),
                };
                checked(done, &[("shard", place)], &[("results", &y)])?;
                all.extend(y.numbers().concat());
            }
        }
        all.push(options(r).shards().logsumexp(whole)?.number());
        Ok(all)
    }
}

/// A mask by rows, of numbers that its type will round.
#[derive(Debug)]
struct MaskOf {
    kind: usize,
    shape: [usize; 3],
    /// Its columns.
    keys: usize,
    rows: Vec<Vec<f64>>,
}

/// Attention with all its options.
pub struct Attend<T, U> {
    x: Vec<Vec<T>>,
    cols: usize,
    heads: usize,
    queries: usize,
    heat: Heat,
    cap: Option<f64>,
    mask: Option<MaskOf>,
    mask_slopes: Option<Vec<f32>>,
    alibi: Option<Vec<f32>>,
    sinks: Option<Vec<f32>>,
    lengths: Option<Vec<usize>>,
    causal: bool,
    window: Option<usize>,
    ahead: Option<usize>,
    offset: Option<isize>,
    /// Of sequences, or of rows.
    offsets: Option<Vec<isize>>,
    masked: Masked,
    lse: bool,
    to: std::marker::PhantomData<U>,
}

impl<T, U> Debug for Attend<T, U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "attention<{}, {}> {} rows of {} heads, {} queries, {} keys, {:?}, cap {:?}, mask {:?}, slopes {:?}, ALiBi {:?}, sinks {:?}, lengths {:?}, causal {}, window {:?}, ahead {:?}, offset {:?}, offsets {:?}, {:?}, lse {}",
            std::any::type_name::<T>(),
            std::any::type_name::<U>(),
            self.x.len(),
            self.heads,
            self.queries,
            self.cols,
            self.heat,
            self.cap,
            self.mask.as_ref().map(|mask| (mask.kind, mask.shape, mask.keys)),
            self.mask_slopes,
            self.alibi,
            self.sinks,
            self.lengths,
            self.causal,
            self.window,
            self.ahead,
            self.offset,
            self.offsets,
            self.masked,
            self.lse
        )
    }
}

impl<T: Number, U: Number> Attend<T, U> {
    fn new(r: &mut Random, (rows, cols): (usize, usize)) -> Self {
        let (batch, heads) = (r.size(1, 3), r.size(1, 4));
        let queries = (rows / (batch * heads)).clamp(1, 6);
        let rows = batch * heads * queries;
        let heat = Heat::any(r);
        let x = logits(r, rows, cols, heat.scale());
        let per_head =
            |r: &mut Random| r.once_in(4).then(|| (0..heads).map(|_| slope(r)).collect());
        let mask = r.once_in(2).then(|| {
            let one = |r: &mut Random, n| if r.once_in(2) { n } else { 1 };
            let shape = [one(r, batch), one(r, heads), one(r, queries)];
            let count = shape.iter().product();
            let keys = if r.once_in(5) { r.below(cols + 1) } else { cols };
            let cols = keys;
            let rows = match r.below(3) {
                // As large as the logits, or of any size.
                0 => logits::<f32>(r, count, cols, 1.0),
                _ => {
                    let element = |r: &mut Random| match r.below(8) {
                        0..2 => f32::NEG_INFINITY,
                        2 => special(r),
                        _ => r.normal() as f32,
                    };
                    (0..count).map(|_| (0..cols).map(|_| element(r)).collect()).collect()
                }
            };
            let rows = rows.iter().map(|row| row.iter().map(|&v| v.into()).collect()).collect();
            MaskOf { kind: r.below(5), shape, keys, rows }
        });
        let (mask_slopes, alibi, sinks) = (per_head(r), per_head(r), per_head(r));
        let lengths = r.once_in(4).then(|| {
            let n = if r.once_in(2) { batch } else { rows };
            (0..n).map(|_| if r.once_in(8) { usize::MAX } else { r.below(cols + 2) }).collect()
        });
        let cap = r.once_in(5).then(|| if r.once_in(2) { 30.0 } else { r.power(-20.0, 20.0) });
        let position = |r: &mut Random| match r.below(6) {
            0 => r.next() as isize >> r.below(64),
            _ => r.below(cols + 4) as isize - 2,
        };
        let offset = r.once_in(3).then(|| position(r));
        let offsets = r.once_in(4).then(|| {
            let n = if r.once_in(2) { batch } else { rows };
            (0..n).map(|_| position(r)).collect()
        });
        Self {
            x,
            cols,
            heads,
            queries,
            heat,
            cap,
            mask,
            mask_slopes,
            alibi,
            sinks,
            lengths,
            causal: r.once_in(4),
            window: r.once_in(4).then(|| if r.once_in(8) { usize::MAX } else { r.below(cols + 2) }),
            ahead: r.once_in(5).then(|| r.below(cols + 2)),
            offset,
            offsets,
            masked: masked(r),
            lse: r.once_in(2),
            to: std::marker::PhantomData,
        }
    }

    /// Gives the attention of these rows to a function.
    fn with<R>(
        &self,
        rows: &[usize],
        way: &Way,
        r: &mut Random,
        f: impl FnOnce(Attention, &mut Random) -> R,
    ) -> R {
        let n = rows.len();
        // Any rows are a call's heads with one query each.
        let all = rows.iter().copied().eq(0..self.x.len());
        let head = |row: usize| row / self.queries % self.heads;
        let per_head = |values: &Option<Vec<f32>>| -> Option<Vec<f32>> {
            let values = values.as_ref()?;
            match all {
                true => Some(values.clone()),
                false => Some(rows.iter().map(|&row| values[head(row)]).collect()),
            }
        };
        let lengths = self.lengths.as_ref().map(|lengths| {
            let of = |&row: &usize| match lengths.len() == self.x.len() {
                true => lengths[row],
                false => lengths[row / (self.heads * self.queries)],
            };
            if all { lengths.clone() } else { rows.iter().map(of).collect::<Vec<_>>() }
        });
        let mask = self.mask.as_ref().map(|mask| match all {
            true => (PlacedMask::new(mask.kind, way.layout, r, &mask.rows, mask.keys), mask.shape),
            false => {
                let of = |&row: &usize| mask.rows[self.mask_row(mask, row)].clone();
                let rows: Vec<_> = rows.iter().map(of).collect();
                (PlacedMask::new(mask.kind, way.layout, r, &rows, mask.keys), [1, n, 1])
            }
        });
        let [slopes, alibi, sinks] = [&self.mask_slopes, &self.alibi, &self.sinks].map(per_head);
        let (heads, queries) = if all { (self.heads, self.queries) } else { (n, 1) };
        let mut attention =
            self.heat.of(way.options()).masked(self.masked).attention(heads, queries);
        let positions: Vec<isize> = rows.iter().map(|&row| self.position(row)).collect();
        match (self.offset, &self.offsets) {
            _ if !all => attention = attention.offsets(&positions),
            (_, Some(offsets)) => attention = attention.offsets(offsets),
            (Some(offset), None) => attention = attention.offset(offset),
            (None, None) => {}
        }
        if let Some(cap) = self.cap {
            attention = attention.soft_cap(cap);
        }
        if let Some((mask, shape)) = &mask {
            let mask = mask.mask(*shape);
            let keys = self.mask.as_ref().map_or(self.cols, |mask| mask.keys);
            attention =
                attention.mask(if keys == self.cols { mask } else { mask.hidden_from(keys) });
        }
        if let Some(slopes) = &slopes {
            attention = attention.mask_slopes(slopes);
        }
        if let Some(alibi) = &alibi {
            attention = attention.alibi(alibi);
        }
        if let Some(sinks) = &sinks {
            attention = attention.sinks(sinks);
        }
        if let Some(lengths) = &lengths {
            attention = attention.lengths(lengths);
        }
        if self.causal {
            attention = attention.causal();
        }
        if let Some(window) = self.window {
            attention = attention.window(window);
        }
        if let Some(ahead) = self.ahead {
            attention = attention.window_ahead(ahead);
        }
        f(attention, r)
    }

    fn has_positions(&self) -> bool {
        self.causal || self.window.is_some() || self.ahead.is_some() || self.alibi.is_some()
    }

    /// The position of a row's query among the keys.
    fn position(&self, row: usize) -> isize {
        let query = (row % self.queries) as isize;
        let first = match &self.offsets {
            Some(offsets) if offsets.len() == self.x.len() => return offsets[row],
            Some(offsets) => offsets[row / (self.heads * self.queries)],
            None => self.offset.unwrap_or(self.cols as isize - self.queries as isize),
        };
        first.saturating_add(query)
    }

    /// The row of the mask for this row.
    fn mask_row(&self, mask: &MaskOf, row: usize) -> usize {
        let (head, query) = (row / self.queries, row % self.queries);
        let (batch, head) = (head / self.heads, head % self.heads);
        let [batches, heads, queries] = mask.shape;
        let at = |i, n| if n == 1 { 0 } else { i };
        (at(batch, batches) * heads + at(head, heads)) * queries + at(query, queries)
    }
}

/// A slope or a sink.
fn slope(r: &mut Random) -> f32 {
    match r.below(8) {
        0 => special(r),
        1 => factor(r) as f32,
        _ => r.normal() as f32,
    }
}

/// A mask in memory, of any type.
#[derive(Debug)]
enum PlacedMask {
    F32(Place<f32>),
    F16(Place<f16>),
    Bf16(Place<bf16>),
    Bool(Place<u8>),
    Bits(Place<u32>),
}

impl PlacedMask {
    fn new(kind: usize, layout: Layout, r: &mut Random, rows: &[Vec<f64>], cols: usize) -> Self {
        let n = (1, rows.len() * cols);
        let values = || rows.iter().flatten().copied();
        match kind {
            0 => {
                let values: Vec<f32> = values().map(|v| v as f32).collect();
                Self::F32(Place::filled(layout, r, n, true, &values))
            }
            1 => {
                let values: Vec<f16> = values().map(softmax::Element::from_f64).collect();
                Self::F16(Place::filled(layout, r, n, true, &values))
            }
            2 => {
                let values: Vec<bf16> = values().map(softmax::Element::from_f64).collect();
                Self::Bf16(Place::filled(layout, r, n, true, &values))
            }
            3 => {
                let values: Vec<u8> =
                    values().map(|v| v.to_bits() as u8 | u8::from(v > 0.0)).collect();
                Self::Bool(Place::filled(layout, r, n, true, &values))
            }
            _ => {
                let bit = |word, v: &f64| word << 1 | u32::from(*v > 0.0);
                let word = |row: &[f64]| row.iter().rev().fold(0, bit);
                let words: Vec<u32> =
                    rows.iter().flat_map(|row| row[..cols].chunks(32).map(word)).collect();
                Self::Bits(Place::filled(layout, r, (1, words.len()), true, &words))
            }
        }
    }

    fn mask(&self, shape: [usize; 3]) -> Mask<'_> {
        match self {
            Self::F32(place) => Mask::new(place.slice(), shape),
            Self::F16(place) => Mask::new(place.slice(), shape),
            Self::Bf16(place) => Mask::new(place.slice(), shape),
            Self::Bool(place) => Mask::new(place.slice(), shape),
            Self::Bits(place) => Mask::new(BitMask::new(place.slice()), shape),
        }
    }
}

impl<T: Number + Probs<T>, U: Number + Probs<T>> Operation for Attend<T, U> {
    fn rows(&self) -> usize {
        self.x.len()
    }

    fn run(&self, rows: &[usize], way: &Way) -> Results {
        let (r, n) = (&mut way.random(), rows.len());
        self.with(rows, way, r, |attention, r| {
            let shape = (n, self.cols);
            let mut x = Place::filled(way.layout, r, shape, false, gather(&self.x, rows));
            let mut lse = Place::<T::Arithmetic>::new(way.layout, r, (n, 1), true);
            let both = |probs: Vec<Vec<f64>>, lse: &Place<T::Arithmetic>| {
                let both = probs.into_iter().zip(lse.numbers());
                both.map(|(p, l)| if self.lse { [p, l].concat() } else { p }).collect()
            };
            if way.in_place && T::NAME == U::NAME {
                let done = match self.lse {
                    true => {
                        attention.softmax_and_logsumexp_in_place(x.matrix_mut(), lse.slice_mut())
                    }
                    false => attention.softmax_in_place(x.matrix_mut()),
                };
                checked(done, &[], &[("probabilities", &x), ("log-sum-exps", &lse)])?;
                return Ok(both(x.numbers(), &lse));
            }
            let mut y = Place::<U>::new(way.layout, r, shape, false);
            let (from, to) = (x.matrix(), y.matrix_mut());
            let done = match self.lse {
                true => attention.softmax_and_logsumexp(from, to, lse.slice_mut()),
                false => attention.softmax(from, to),
            };
            checked(done, &[("scores", &x)], &[("probabilities", &y), ("log-sum-exps", &lse)])?;
            Ok(both(y.numbers(), &lse))
        })
    }

    fn is_nan(&self, row: usize) -> Option<bool> {
        // Only the simple case: no positions, no biases but a mask.
        let simple = !self.has_positions()
            && (self.mask_slopes.is_none() && self.sinks.is_none() && self.lengths.is_none())
            && !self.heat.is_limit();
        let mask = self.mask.as_ref();
        let mut seen = Vec::new();
        for (key, v) in self.x[row].iter().enumerate() {
            let Some(mask) = mask else {
                seen.push(v.to_f64());
                continue;
            };
            let added = mask.rows[self.mask_row(mask, row)].get(key);
            let added = added.copied().unwrap_or(f64::NEG_INFINITY);
            if mask.kind > 2
                || (!added.is_finite() && added != f64::NEG_INFINITY)
                || added.abs() > 1e4 && added.is_finite()
            {
                return None;
            }
            if added != f64::NEG_INFINITY {
                seen.push(v.to_f64());
            }
        }
        // With an addition, logits far beyond 45,000 are rounded, and may become infinite.
        let scale = if mask.is_some() || self.cap.is_some() { self.heat.scale() } else { 0.0 };
        let finite = seen.iter().all(|v| v.is_finite() && (v * scale).abs() < 4e4);
        let any = !seen.is_empty();
        (simple && any && finite).then_some(false)
    }

    fn show(&self, row: usize) -> String {
        let mask = self.mask.as_ref().map(|mask| {
            let row: Vec<f32> =
                mask.rows[self.mask_row(mask, row)].iter().map(|&v| v as f32).collect();
            show(&row)
        });
        format!(
            "head {}, query {}, scores {}, mask {mask:?}",
            row / self.queries % self.heads,
            row % self.queries,
            show(&self.x[row])
        )
    }
}

/// Attention in tiles, with keys cut at these numbers.
pub struct Tiles<U> {
    whole: Attend<f32, U>,
    cuts: Vec<usize>,
}

impl<U> Debug for Tiles<U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tiles, cut at {:?}, of {:?}", self.cuts, self.whole)
    }
}

impl<U: Number> Tiles<U> {
    fn new(r: &mut Random, (rows, cols): (usize, usize)) -> Self {
        let unit = if r.once_in(2) { 16 } else { 1 };
        let mut cuts: Vec<_> =
            (0..r.below(5)).map(|_| r.below(cols + 1) / unit * unit).chain([0, cols]).collect();
        cuts.sort_unstable();
        Self { whole: Attend::new(r, (rows, cols)), cuts }
    }
}

impl<U: Number + Weight + Probs<f32>> Operation for Tiles<U> {
    fn rows(&self) -> usize {
        self.whole.rows()
    }

    /// The weights of a row, the factors before its tiles, its state and its end.
    fn run(&self, rows: &[usize], way: &Way) -> Results {
        let (r, n, cols) = (&mut way.random(), rows.len(), self.whole.cols);
        let in_place = way.in_place && U::NAME == <f32 as softmax::Element>::NAME;
        let cut = r.below(n + 1);
        self.whole.with(rows, way, r, |attention, r| {
            let online = attention.online(n, cols);
            let shape = (n, cols);
            let mut x = Place::filled(way.layout, r, shape, false, gather(&self.whole.x, rows));
            let mut y = Place::<U>::new(way.layout, r, shape, false);
            let mut ends = [(); 2].map(|()| Place::<f32>::new(way.layout, r, (n, 1), true));
            let (mut states, mut all_factors) = (vec![OnlineRow::NEW; n], vec![Vec::new(); n]);
            let mut done = Ok(());
            for keys in self.cuts.windows(2) {
                for (from, to) in [(0, cut), (cut, n)] {
                    let mut factors = Place::<f32>::new(way.layout, r, (to - from, 1), true);
                    let (states, factors_to) = (&mut states[from..to], factors.slice_mut());
                    let (first, wide) = ((from, keys[0]), keys[1] - keys[0]);
                    let tile = if in_place {
                        let x = x.matrix_mut().split_rows(to).0.split_rows(from).1;
                        let x = x.split_cols(keys[0]).1.split_cols(wide).0;
                        online.tile_in_place(first, x, states, factors_to)
                    } else {
                        let x = x.matrix().split_rows(to).0.split_rows(from).1;
                        let x = x.split_cols(keys[0]).1.split_cols(wide).0;
                        let y = y.matrix_mut().split_rows(to).0.split_rows(from).1;
                        let y = y.split_cols(keys[0]).1.split_cols(wide).0;
                        online.tile(first, x, y, states, factors_to)
                    };
                    done = done.and(checked(tile, &[], &[("factors", &factors)]));
                    for (all, factor) in all_factors[from..to].iter_mut().zip(factors.slice()) {
                        all.push(factor.number());
                    }
                }
            }
            let [reciprocals, lse] = &mut ends;
            let (to, logs) = (reciprocals.slice_mut(), lse.slice_mut());
            let end = online.finish(0, &states, to, Some(logs));
            done = done.and(checked(end, &[], &[("reciprocals", &ends[0]), ("logs", &ends[1])]));
            let refused = match &done {
                Err(Wrong::Refused(error)) => Err(error.clone()),
                _ => Ok(()),
            };
            // Of a refused call nothing is written.
            match in_place {
                true => checked(refused, &[("weights", &y)], &[("scores", &x)])?,
                false => checked(refused, &[("scores", &x)], &[("weights", &y)])?,
            }
            done?;
            let weights = if in_place { x.numbers() } else { y.numbers() };
            let ends = ends[0].numbers().into_iter().zip(ends[1].numbers());
            let all = weights.into_iter().zip(all_factors).zip(&states).zip(ends);
            Ok(all
                .map(|(((weights, factors), state), (reciprocal, log))| {
                    [weights, factors, state.to_array().to_vec(), reciprocal, log].concat()
                })
                .collect())
        })
    }

    fn show(&self, row: usize) -> String {
        self.whole.show(row)
    }
}

/// What a sampler gives.
#[derive(Clone, Copy, Debug)]
enum Gives {
    Draws,
    /// The tokens that are left; the logarithms of their probabilities?
    Kept(bool),
    /// In whole rows.
    Filtered(bool),
}

/// Draws, and what filters leave.
pub struct Sample<T> {
    gives: Gives,
    x: Vec<Vec<T>>,
    cols: usize,
    seed: u64,
    step: u64,
    first_row: u64,
    each: usize,
    temperature: f64,
    order: Order,
    method: Method,
    top_k: usize,
    top_p: f64,
    min_p: f64,
    typical_p: f64,
    min_keep: usize,
    bias: Vec<(usize, f32)>,
    history: Vec<Vec<usize>>,
    repetition: f64,
    presence: f64,
    frequency: f64,
}

impl<T> Debug for Sample<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("sampler")
            .field("type", &std::any::type_name::<T>())
            .field("gives", &self.gives)
            .field("rows, cols", &(self.x.len(), self.cols))
            .field("seed, step, first row", &(self.seed, self.step, self.first_row))
            .field("each", &self.each)
            .field("temperature", &self.temperature)
            .field("order", &(self.order, self.method))
            .field("k, p, min p, typical p", &(self.top_k, self.top_p, self.min_p, self.typical_p))
            .field("min keep", &self.min_keep)
            .field("bias", &self.bias)
            .field("penalties", &(self.repetition, self.presence, self.frequency))
            .field("history", &self.history)
            .finish()
    }
}

impl<T: Number> Sample<T> {
    fn new(r: &mut Random, (rows, cols): (usize, usize)) -> Self {
        let cols = cols.max(1);
        let temperature = match r.below(12) {
            0 => 0.0,
            1 => f64::INFINITY,
            2 => r.power(-110.0, 110.0),
            3..6 => r.power(-3.0, 3.0),
            _ => 1.0,
        };
        let share = |r: &mut Random, none: f64| match r.below(8) {
            0 => r.one(&[0.0, 1.0, 1e-300, 1.0 - 1e-16, 0.5]),
            1..3 => (r.unit() + 1.0) / 2.0,
            _ => none,
        };
        let penalised = r.once_in(3);
        let lists = match r.below(3) {
            _ if !penalised => 0,
            0 => 1,
            _ => rows,
        };
        let list = |r: &mut Random| (0..r.below(12)).map(|_| r.below(cols)).collect();
        let log = r.once_in(2);
        Self {
            gives: r.one(&[Gives::Draws, Gives::Draws, Gives::Kept(log), Gives::Filtered(log)]),
            x: logits(r, rows, cols, 1.0 / temperature),
            cols,
            seed: r.next(),
            step: r.one(&[0, 1, r_step(cols)]),
            first_row: r.one(&[0, 77, (1 << 48) - 200]),
            each: r.size(1, 4),
            temperature,
            order: r.one(&[Order::Transformers, Order::LlamaCpp]),
            method: r.one(&[Method::InverseCdf, Method::InverseCdf, Method::GumbelMax]),
            top_k: if r.once_in(3) { r.size(1, cols + 3) } else { 0 },
            top_p: share(r, 1.0),
            min_p: share(r, 0.0),
            typical_p: share(r, 1.0),
            min_keep: if r.once_in(3) { r.size(1, cols + 3) } else { 0 },
            bias: if r.once_in(4) { bias(r, cols) } else { Vec::new() },
            history: (0..lists).map(|_| list(r)).collect(),
            repetition: penalty(r, 1.0).abs().clamp(1e-300, 1e300),
            presence: penalty(r, 0.0).clamp(-1e300, 1e300),
            frequency: penalty(r, 0.0).clamp(-1e300, 1e300),
        }
    }
}

fn r_step(cols: usize) -> u64 {
    (1 << 47) + cols as u64
}

fn bias(r: &mut Random, cols: usize) -> Vec<(usize, f32)> {
    let value = |r: &mut Random| match r.below(4) {
        0 => f32::NEG_INFINITY,
        1 => factor(r) as f32,
        _ => r.normal() as f32,
    };
    let value = |r: &mut Random| Some(value(r)).filter(|v| *v < f32::INFINITY).unwrap_or(1.0);
    (0..r.size(1, 5)).map(|_| (r.below(cols), value(r))).collect()
}

fn penalty(r: &mut Random, none: f64) -> f64 {
    match r.below(4) {
        0 => Some(factor(r)).filter(|v| !v.is_nan()).unwrap_or(none),
        1 => 1.2,
        _ => none,
    }
}

impl<T: Number> Operation for Sample<T> {
    fn rows(&self) -> usize {
        self.x.len()
    }

    fn any_order(&self) -> bool {
        false
    }

    fn run(&self, rows: &[usize], way: &Way) -> Results {
        let (r, n) = (&mut way.random(), rows.len());
        let first = rows.first().map_or(0, |&row| row as u64);
        let lists: Vec<&[usize]> = match self.history.len() {
            0 | 1 => self.history.iter().map(|list| &list[..]).collect(),
            _ => rows.iter().map(|&row| &self.history[row][..]).collect(),
        };
        let tokens = lists.concat();
        let starts: Vec<usize> = std::iter::once(0)
            .chain(lists.iter().scan(0, |at, list| {
                *at += list.len();
                Some(*at)
            }))
            .collect();
        let sampler = way
            .options()
            .sampler(self.seed)
            .step(self.step)
            .first_row(self.first_row + first)
            .temperature(self.temperature)
            .order(self.order)
            .method(self.method)
            .top_k(self.top_k)
            .top_p(self.top_p)
            .min_p(self.min_p)
            .typical_p(self.typical_p)
            .min_keep(self.min_keep)
            .bias(&self.bias)
            .repetition_penalty(self.repetition)
            .presence_penalty(self.presence)
            .frequency_penalty(self.frequency);
        let sampler = match r.once_in(2) {
            true => sampler.history(&lists),
            false => sampler.packed_history(&tokens, &starts),
        };
        let x = Place::filled(way.layout, r, (n, self.cols), false, gather(&self.x, rows));
        let shape = (n, self.cols);
        match self.gives {
            Gives::Draws => {}
            Gives::Kept(log) => {
                let mut tokens = Place::<usize>::new(way.layout, r, shape, true);
                let mut values = Place::<T::Arithmetic>::new(way.layout, r, shape, true);
                let mut counts = Place::<usize>::new(way.layout, r, (n, 1), true);
                let (t, v, c) = (tokens.slice_mut(), values.slice_mut(), counts.slice_mut());
                let done = match log {
                    false => sampler.kept_probs(x.matrix(), t, v, c),
                    true => sampler.kept_log_probs(x.matrix(), t, v, c),
                };
                let written: [(&str, &dyn Argument); 3] =
                    [("tokens", &tokens), ("values", &values), ("counts", &counts)];
                checked(done, &[("logits", &x)], &written)?;
                let (tokens, values) = (tokens.numbers(), values.numbers());
                let rows = counts.numbers().into_iter().zip(tokens.into_iter().zip(values));
                let row = |(count, (mut tokens, mut values)): (Vec<f64>, (Vec<f64>, Vec<f64>))| {
                    // What follows was not written.
                    let of = count[0] as usize;
                    tokens[of..].fill(0.0);
                    values[of..].fill(0.0);
                    [count, tokens, values].concat()
                };
                return Ok(rows.map(row).collect());
            }
            Gives::Filtered(log) => {
                let mut y = Place::<T::Arithmetic>::new(way.layout, r, shape, false);
                let done = match log {
                    false => sampler.filtered_probs(x.matrix(), y.matrix_mut()),
                    true => sampler.filtered_log_probs(x.matrix(), y.matrix_mut()),
                };
                checked(done, &[("logits", &x)], &[("values", &y)])?;
                return Ok(y.numbers());
            }
        }
        let mut draws = Place::<usize>::new(way.layout, r, (n, self.each), true);
        let done = sampler.sample(x.matrix(), draws.slice_mut());
        checked(done, &[("logits", &x)], &[("draws", &draws)])?;
        Ok(draws.numbers())
    }

    fn show(&self, row: usize) -> String {
        show(&self.x[row])
    }
}

/// A router's experts.
#[derive(Debug)]
pub struct Routed<T> {
    k: usize,
    scoring: Scoring,
    bias: Option<Vec<f32>>,
    groups: Option<(usize, usize)>,
    group_score: GroupScore,
    renormalize: bool,
    factor: f64,
    masked: Masked,
    cols: usize,
    x: Vec<Vec<T>>,
}

impl<T: Number> Routed<T> {
    fn new(r: &mut Random, (rows, cols): (usize, usize)) -> Self {
        let cols = cols.min(4096);
        let divisors: Vec<_> = (1..=cols).filter(|n| cols.is_multiple_of(*n)).collect();
        let groups = (r.once_in(3) && cols > 0).then(|| {
            let groups = r.one(&divisors);
            (groups, 1 + r.below(groups))
        });
        let most = groups.map_or(cols, |(groups, limit)| limit * (cols / groups));
        Self {
            k: if r.once_in(8) { r.below(most + 1) } else { most.min(r.below(9)) },
            scoring: r.one(&[Scoring::Softmax, Scoring::Sigmoid]),
            bias: r.once_in(3).then(|| (0..cols).map(|_| r.signed() as f32).collect()),
            groups,
            group_score: r.one(&[GroupScore::TopTwo, GroupScore::Largest]),
            renormalize: r.once_in(2),
            factor: r.one(&[1.0, 1.0, 2.5]),
            masked: masked(r),
            cols,
            x: logits(r, rows, cols, 1.0),
        }
    }
}

impl<T: Number> Operation for Routed<T> {
    fn rows(&self) -> usize {
        self.x.len()
    }

    fn run(&self, rows: &[usize], way: &Way) -> Results {
        let (r, n) = (&mut way.random(), rows.len());
        let x = Place::filled(way.layout, r, (n, self.cols), false, gather(&self.x, rows));
        let mut weights = Place::<T::Arithmetic>::new(way.layout, r, (n, self.k), true);
        let mut experts = Place::<u32>::new(way.layout, r, (n, self.k), true);
        let mut router = Router::new(self.k)
            .scoring(self.scoring)
            .group_score(self.group_score)
            .renormalize(self.renormalize)
            .scaling_factor(self.factor)
            .masked(self.masked)
            .exec(way.options().exec);
        if let Some(bias) = &self.bias {
            router = router.bias(bias);
        }
        if let Some((groups, limit)) = self.groups {
            router = router.groups(groups, limit);
        }
        let done = router.route(x.matrix(), weights.slice_mut(), experts.slice_mut());
        let outputs: [(_, &dyn Argument); 2] = [("weights", &weights), ("experts", &experts)];
        checked(done, &[("logits", &x)], &outputs)?;
        let both = experts.numbers().into_iter().zip(weights.numbers());
        Ok(both.map(|(e, w)| [e, w].concat()).collect())
    }

    fn show(&self, row: usize) -> String {
        show(&self.x[row])
    }
}

/// A sequence of drafted tokens.
#[derive(Debug)]
struct Sequence<T> {
    drafted: Vec<usize>,
    /// A row for each drafted token and one more, and a row for each.
    target: Vec<Vec<T>>,
    draft: Vec<Vec<T>>,
    seed: u64,
    step: u64,
    temperature: f64,
}

/// Drafted tokens, verified; a row is a sequence.
#[derive(Debug)]
pub struct Verified<T> {
    sequences: Vec<Sequence<T>>,
    cols: usize,
    target_probs: bool,
    /// Logits, probabilities, or one-hot.
    draft_kind: usize,
    first_row: u64,
}

/// The most tokens that a sequence drafts.
const MOST_DRAFTED: usize = 3;

impl<T: Number> Verified<T> {
    fn new(r: &mut Random, (sequences, cols): (usize, usize)) -> Self {
        let (sequences, cols) = (sequences.min(20), cols.max(1));
        let (target_probs, draft_kind) = (r.once_in(3), r.below(3));
        let alike = r.once_in(2);
        let mut sequence = || {
            let k = r.below(MOST_DRAFTED + 1);
            let temperature = match r.below(8) {
                0 => 0.0,
                1 => f64::INFINITY,
                2 => r.power(-20.0, 20.0),
                _ => 1.0,
            };
            let rows = |r: &mut Random, rows, probs: bool| {
                let mut x: Vec<Vec<T>> = logits(r, rows, cols, 1.0 / temperature);
                for x in x.iter_mut().flatten().filter(|_| probs) {
                    // Mostly numbers that are probabilities, but do not add up to 1.
                    let value = x.to_f64();
                    *x = T::from_f64(if value.abs() > 1e4 { value } else { value.abs() % 1.0 });
                }
                x
            };
            let target = rows(r, k + 1, target_probs);
            let mut draft = rows(r, k, draft_kind == 1);
            if alike {
                draft.clone_from_slice(&target[..k]);
            }
            let drafted = (0..k).map(|_| r.below(cols)).collect();
            Sequence { drafted, target, draft, seed: r.next(), step: r.next() >> 17, temperature }
        };
        let sequences = (0..sequences).map(|_| sequence()).collect();
        let first_row = r.one(&[0, 77, (1 << 48) - 200]);
        Self { sequences, cols, target_probs, draft_kind, first_row }
    }
}

impl<T: Number> Operation for Verified<T> {
    fn rows(&self) -> usize {
        self.sequences.len()
    }

    fn run(&self, rows: &[usize], way: &Way) -> Results {
        let (r, n) = (&mut way.random(), rows.len());
        let of: Vec<&Sequence<T>> = rows.iter().map(|&row| &self.sequences[row]).collect();
        let mut offsets = vec![r.below(3)];
        offsets.extend(of.iter().scan(offsets[0], |at, s| {
            *at += s.drafted.len();
            Some(*at)
        }));
        let elements = offsets[n] - offsets[0];
        let mut drafted = vec![usize::MAX; offsets[0]];
        drafted.extend(of.iter().flat_map(|s| &s.drafted));
        let seeds: Vec<u64> = of.iter().map(|s| s.seed).collect();
        let steps: Vec<u64> = of.iter().map(|s| s.step).collect();
        let temperatures: Vec<f64> = of.iter().map(|s| s.temperature).collect();
        let target = of.iter().flat_map(|s| s.target.iter().flatten());
        let target = Place::filled(way.layout, r, (elements + n, self.cols), false, target);
        let draft = of.iter().flat_map(|s| s.draft.iter().flatten());
        let draft = Place::filled(way.layout, r, (elements, self.cols), false, draft);
        let mut tokens = Place::<usize>::new(way.layout, r, (elements + n, 1), true);
        let mut accepted = Place::<usize>::new(way.layout, r, (n, 1), true);
        let (x, q) = (target.matrix(), draft.matrix());
        let done = SpeculativeSampler::new(0)
            .first_row(self.first_row)
            .seeds(&seeds)
            .steps(&steps)
            .temperatures(&temperatures)
            .exec(way.options().exec)
            .verify(
                if self.target_probs { TargetRows::Probs(x) } else { TargetRows::Logits(x) },
                [DraftRows::Logits(q), DraftRows::Probs(q), DraftRows::OneHot][self.draft_kind],
                Ragged::new(&drafted, &offsets).expect("offsets that do not fall"),
                tokens.slice_mut(),
                accepted.slice_mut(),
            );
        let outputs: [(_, &dyn Argument); 2] = [("tokens", &tokens), ("accepted", &accepted)];
        checked(done, &[("target", &target), ("draft", &draft)], &outputs)?;
        let mut tokens = tokens.numbers().into_iter().flatten();
        let sequence = |(count, s): (Vec<f64>, &&Sequence<T>)| {
            let mut all = count;
            all.extend(tokens.by_ref().take(s.drafted.len() + 1));
            // As many numbers for each sequence.
            all.resize(MOST_DRAFTED + 2, 0.0);
            all
        };
        Ok(accepted.numbers().into_iter().zip(&of).map(sequence).collect())
    }

    fn show(&self, row: usize) -> String {
        self.sequences[row].target.iter().map(|x| show(x)).collect::<Vec<_>>().join("\n")
    }
}

/// Kinds of operations.
pub const KINDS: usize = 20;

/// A case of a kind, with the `dtype`th type.
pub fn case(
    r: &mut Random,
    kind: usize,
    dtype: usize,
    shape: (usize, usize),
) -> Box<dyn Operation> {
    macro_rules! of {
        ($case:ident $(, $what:expr)?) => {
            match dtype {
                0 => Box::new($case::<f32>::new(r, shape $(, $what)?)),
                1 => Box::new($case::<f64>::new(r, shape $(, $what)?)),
                2 => Box::new($case::<f16>::new(r, shape $(, $what)?)),
                _ => Box::new($case::<bf16>::new(r, shape $(, $what)?)),
            }
        };
    }
    match kind {
        0 => of!(Map, MapOf::Softmax),
        1 => of!(Map, MapOf::LogSoftmax),
        2 => of!(Map, MapOf::LogSumExp),
        3 => of!(Map, MapOf::Sigmoid),
        4 => of!(Map, MapOf::LogSigmoid),
        5 => of!(Map, MapOf::Hardmax(Ties::Share)),
        6 => of!(Map, MapOf::Hardmax(Ties::First)),
        7 => of!(Pick),
        8 => of!(Loss),
        9 => of!(Backward),
        10 => of!(Axis),
        11 => of!(Sharded),
        12 => of!(Sample),
        13 => of!(Uneven),
        14 => of!(Routed),
        15 => of!(Map, MapOf::Entropy),
        16 => of!(Verified),
        17 => match dtype {
            0 | 1 => Box::new(Tiles::<f32>::new(r, shape)),
            2 => Box::new(Tiles::<f16>::new(r, shape)),
            _ => Box::new(Tiles::<bf16>::new(r, shape)),
        },
        18 => of!(Diverged),
        _ => match (dtype, r.below(3)) {
            (0, 0) => Box::new(Attend::<f32, f32>::new(r, shape)),
            (0, 1) => Box::new(Attend::<f32, f16>::new(r, shape)),
            (0, _) => Box::new(Attend::<f32, bf16>::new(r, shape)),
            (1, _) => Box::new(Attend::<f64, f64>::new(r, shape)),
            (2, 0) => Box::new(Attend::<f16, f32>::new(r, shape)),
            (2, _) => Box::new(Attend::<f16, f16>::new(r, shape)),
            (_, 0) => Box::new(Attend::<bf16, f32>::new(r, shape)),
            _ => Box::new(Attend::<bf16, bf16>::new(r, shape)),
        },
    }
}

/// A case of any operation and shape.
pub fn any(r: &mut Random) -> Box<dyn Operation> {
    let kind = r.one(&[
        0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 7, 7, 8, 8, 8, 8, 8, 8, 9, 9, 10, 10, 11, 12, 12,
        13, 13, 14, 14, 15, 15, 16, 16, 17, 17, 18, 18, 19, 19, 19, 19,
    ]);
    let (dtype, shape) = (r.below(4), shape(r));
    case(r, kind, dtype, shape)
}
