//! Checks of results before they are timed: errors against the oracle, and digests that are the
//! same on every CPU.

use softmax::Element;

use crate::data::Number;
use crate::operation::{Operation, Side};
use crate::oracle::{self, BF16, Dd, F16, F32, F64, Format};

/// The approximate number of elements that are compared with the oracle, which takes half a
/// microsecond for each.
const CHECKED: usize = 1 << 16;

/// The expected values of a result.
#[derive(Debug)]
pub struct Reference {
    /// Places in the output, and the exact values there.
    values: Vec<(usize, Dd)>,
    limit: Limit,
}

/// The errors of a result in ULP (`docs/accuracy.md`).
#[derive(Clone, Copy, Debug)]
pub struct Errors {
    /// The largest error.
    pub max: f64,
    /// The mean of the errors.
    pub mean: f64,
    /// The largest error that is promised.
    pub limit: f64,
}

impl Reference {
    /// The expected values for some of the rows in `x`. `None` for operations whose results are
    /// choices and not numbers.
    pub fn new<T: Number>(operation: Operation, cols: usize, x: &[T], side: &Side) -> Option<Self> {
        if operation == Operation::Sample || cols == 0 {
            return None;
        }
        let rows = x.len() / cols;
        let queries = operation.period(rows, cols);
        let step = x.len().div_ceil(CHECKED).clamp(1, rows.max(1));
        let mut values = Vec::new();
        for row in (0..rows).step_by(step) {
            let seen = match operation {
                Operation::Attention => cols - queries + row % queries + 1,
                _ => cols,
            };
            let logits: Vec<f64> = x[row * cols..][..seen].iter().map(|x| x.to_f64()).collect();
            let exact = oracle::exact(&logits, 1.0);
            let at = row * cols;
            match operation {
                Operation::LogSumExp => values.push((row, exact.logsumexp)),
                Operation::LogSoftmax => {
                    values.extend(
                        exact.log_softmax.into_iter().enumerate().map(|(i, v)| (at + i, v)),
                    );
                }
                _ => {
                    values.extend(exact.softmax.into_iter().enumerate().map(|(i, v)| (at + i, v)));
                    values.extend((seen..cols).map(|i| (at + i, Dd(0.0, 0.0))));
                }
            }
            if operation == Operation::CrossEntropy {
                let i = values.len() - cols + side.label(row);
                values[i].1 = values[i].1.add(Dd(-1.0, 0.0));
            }
        }
        Some(Self { values, limit: Limit::of::<T>(operation) })
    }

    /// The errors of a result; infinite if a number is missing.
    pub fn errors<T: Number>(&self, y: &[T]) -> Errors {
        let (mut max, mut sum) = (0.0f64, 0.0);
        for &(i, want) in &self.values {
            let error = self.limit.error(y[i].to_f64(), want);
            let error = if error.is_nan() { f64::INFINITY } else { error };
            max = max.max(error);
            sum += error;
        }
        Errors { max, mean: sum / self.values.len().max(1) as f64, limit: self.limit.ulps }
    }
}

/// The largest error that a result of a type may have: the promise of `docs/accuracy.md`.
#[derive(Debug)]
struct Limit {
    ulps: f64,
    /// The absolute error that logarithms may have in any case: near 0 an ULP is tiny.
    absolute: f64,
    /// Whether the absolute error comes in addition, as for half types, which are rounded once
    /// more.
    both: bool,
    format: Format,
}

impl Limit {
    fn of<T: Element>(operation: Operation) -> Self {
        let log = matches!(operation, Operation::LogSoftmax | Operation::LogSumExp);
        let probs = matches!(operation, Operation::Softmax | Operation::Attention);
        let (ulps, absolute, format) = match T::NAME {
            "f16" => (if probs { 0.53 } else { 0.51 }, 1e-7, F16),
            "bf16" => (0.51, 1e-7, BF16),
            "f32" => (if log { 2.0 } else { 3.0 }, 1e-7, F32),
            _ => (3.0, 3e-16, F64),
        };
        let both = matches!(T::NAME, "f16" | "bf16");
        Self { ulps, absolute: if log { absolute } else { 0.0 }, both, format }
    }

    fn error(&self, got: f64, want: Dd) -> f64 {
        let ulps = oracle::ulps(got, want, self.format);
        if self.both {
            return (ulps - self.absolute / oracle::ulp(got, want, self.format)).max(0.0);
        }
        let near = want.0.abs() < 1.0 && (got - want.0).abs() <= self.absolute;
        if near { 0.0 } else { ulps }
    }
}

/// FNV-1a over the bits of a result: the first `rows` rows of the matrix, or one number for each,
/// and all other outputs.
pub fn digest<T: Number>(
    operation: Operation,
    rows: usize,
    cols: usize,
    y: &[T],
    side: &Side,
) -> u64 {
    let mut fnv = Fnv::default();
    match operation {
        Operation::Sample => {}
        Operation::LogSumExp => fnv.add(&y[..rows]),
        _ => fnv.add(&y[..rows * cols]),
    }
    let first = |n: usize| n.min(rows);
    fnv.add(&side.losses[..first(side.losses.len())]);
    side.draws[..first(side.draws.len())].iter().for_each(|&draw| fnv.word(draw as u64));
    fnv.0
}

/// The digest that every CPU gives for the input of [`crate::data`], for the shapes of
/// [`crate::plan`].
pub fn expected(operation: Operation, dtype: &str, rows: usize, cols: usize) -> Option<u64> {
    let key = key(operation, dtype, rows, cols);
    let line = DIGESTS.lines().find_map(|line| line.strip_prefix(&key))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Written by the reference: `SOFTMAX_WRITE_DIGESTS=1 cargo test -p softmax-measure`.
const DIGESTS: &str = include_str!("digests.txt");

#[cfg(test)]
pub(crate) fn digests() -> &'static str {
    DIGESTS
}

/// Matrices that begin alike have one key in common.
pub(crate) fn key(operation: Operation, dtype: &str, rows: usize, cols: usize) -> String {
    format!("{operation} {dtype} {} x {cols}: ", operation.period(rows, cols))
}

/// FNV-1a over the bytes of numbers' bits.
#[derive(Clone, Debug)]
pub struct Fnv(pub u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Adds the bits of numbers.
    pub fn add<T: Number>(&mut self, values: &[T]) {
        values.iter().for_each(|v| self.word(v.bits()));
    }

    fn word(&mut self, word: u64) {
        for byte in word.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
