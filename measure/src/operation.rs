//! The operations that are timed.

use std::fmt;

use softmax::{
    Attention, CrossEntropy, Element, Error, Exec, Matrix, MatrixMut, Probs, Reduction, Sampler,
    Softmax,
};

use crate::data::Number;

/// An operation that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// For every row.
    Softmax,
    /// For every row.
    LogSoftmax,
    /// For every row.
    LogSumExp,
    /// The loss of every row, with one of its columns as the label, and the gradient of their sum.
    CrossEntropy,
    /// Causal self-attention; heads are square matrices if there are enough rows.
    Attention,
    /// A draw from every row.
    Sample,
}

impl Operation {
    /// All operations.
    pub const ALL: [Self; 6] = [
        Self::Softmax,
        Self::LogSoftmax,
        Self::LogSumExp,
        Self::CrossEntropy,
        Self::Attention,
        Self::Sample,
    ];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Softmax => "softmax",
            Self::LogSoftmax => "log_softmax",
            Self::LogSumExp => "logsumexp",
            Self::CrossEntropy => "cross_entropy",
            Self::Attention => "attention",
            Self::Sample => "sample",
        }
    }

    /// Whether the output is a matrix of the input's shape; else it is a number for each row.
    pub fn has_matrix(self) -> bool {
        !matches!(self, Self::LogSumExp | Self::Sample)
    }

    /// Number of rows after which results repeat: rows of the input repeat a pattern.
    pub fn period(self, rows: usize, cols: usize) -> usize {
        match self {
            Self::Attention => queries(rows, cols),
            // Each row has its own random number.
            Self::Sample => rows,
            _ => pattern_rows(rows, cols),
        }
    }

    /// Elements of one call; in attention those that are seen.
    pub fn elements(self, rows: usize, cols: usize) -> u64 {
        let (rows, cols) = (rows as u64, cols as u64);
        match self {
            Self::Attention => {
                let queries = queries(rows as usize, cols as usize) as u64;
                // The queries are those of the last tokens: they see cols - queries + 1 keys, and
                // so on to cols.
                rows / queries * (queries * (2 * cols - queries + 1) / 2)
            }
            _ => rows * cols,
        }
    }

    /// Bytes that a call must read and write at least.
    pub fn traffic(self, rows: usize, cols: usize, size: usize) -> u64 {
        let read = self.elements(rows, cols) * size as u64;
        let per_row = match self {
            Self::LogSumExp => size,
            Self::CrossEntropy => 16,
            Self::Sample => 8,
            _ => 0,
        };
        let written = if self.has_matrix() { rows * cols * size } else { 0 };
        read + (written + rows * per_row) as u64
    }

    /// Multiplications per element, fused with an addition or not, as counted in the kernels'
    /// source (`sweep/mod.rs`, `isa/vector.rs`): the least work of a call that never waits for
    /// memory.
    ///
    /// Additions, comparisons, conversions and look-ups are not counted. Some CPUs have other units
    /// for them, others do not and reach at most half of this limit. Per element of f32: 8 for the
    /// exponential, 2 for the quotient, whose divisor is a pair; log-softmax has one in f64. Per
    /// element of f64: 11, 3, and 5.
    pub fn operations(self, dtype: &str) -> f64 {
        let double = usize::from(dtype == f64::NAME);
        let exponential = [8.0, 11.0][double];
        let finish = match self {
            Self::LogSoftmax => [2.0, 5.0],
            Self::LogSumExp | Self::Sample => [0.0, 0.0],
            _ => [2.0, 3.0],
        };
        exponential + finish[double]
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The approximate number of elements of the input's pattern.
const PATTERN: usize = 1 << 16;

/// Rows of the input's pattern.
pub fn pattern_rows(rows: usize, cols: usize) -> usize {
    (PATTERN / cols).clamp(1, rows.max(1))
}

/// Number of queries of a head.
fn queries(rows: usize, cols: usize) -> usize {
    if rows.is_multiple_of(cols) { cols } else { rows }
}

/// Inputs and outputs of an operation besides its matrices.
#[derive(Debug)]
pub struct Side {
    labels: Vec<i64>,
    /// The loss of every row, after cross-entropy.
    pub losses: Vec<f64>,
    /// The draw of every row, after a sample.
    pub draws: Vec<usize>,
}

impl Side {
    /// Makes those of an operation on a matrix.
    pub fn new(operation: Operation, rows: usize, cols: usize) -> Self {
        let pattern = pattern_rows(rows, cols);
        let label = |row: usize| (row % pattern * 7919 % cols) as i64;
        let of = |this: Operation| if operation == this { rows } else { 0 };
        Self {
            labels: (0..of(Operation::CrossEntropy)).map(label).collect(),
            losses: vec![f64::NAN; of(Operation::CrossEntropy)],
            draws: vec![usize::MAX; of(Operation::Sample)],
        }
    }

    /// The label of a row.
    pub fn label(&self, row: usize) -> usize {
        self.labels[row] as usize
    }
}

/// Makes one call: `y` has as many elements as `x`, or one for each row.
///
/// # Errors
/// Those of the call: if the shapes do not fit each other, or the kernel cannot run.
pub fn run<T: Number + Probs<T>>(
    operation: Operation,
    exec: Exec,
    cols: usize,
    x: &[T],
    y: &mut [T],
    side: &mut Side,
) -> Result<(), Error> {
    let (x, softmax) = (Matrix::new(x, cols)?, Softmax::new().exec(exec));
    match operation {
        Operation::Softmax => softmax.softmax(x, MatrixMut::new(y, cols)?),
        Operation::LogSoftmax => softmax.log_softmax(x, MatrixMut::new(y, cols)?),
        Operation::LogSumExp => softmax.logsumexp(x, y),
        Operation::CrossEntropy => CrossEntropy::new()
            .exec(exec)
            .reduction(Reduction::Sum)
            .losses_and_gradient(x, &side.labels, &mut side.losses, MatrixMut::new(y, cols)?),
        Operation::Attention => {
            let queries = queries(x.rows(), cols);
            let attention = Attention::new(x.rows() / queries, queries).causal();
            attention.exec(exec).softmax(x, MatrixMut::new(y, cols)?)
        }
        Operation::Sample => sampler(exec).sample(x, &mut side.draws),
    }
}

/// The sampler for draws.
pub(crate) fn sampler(exec: Exec<'_>) -> Sampler<'_> {
    Sampler::new(7).exec(exec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causal_attention_sees_half() {
        let attention = Operation::Attention;
        assert_eq!(attention.elements(4, 4), 1 + 2 + 3 + 4);
        assert_eq!(attention.elements(8, 4), 20);
        // Two queries at the end of four tokens.
        assert_eq!(attention.elements(2, 4), 3 + 4);
        assert_eq!(attention.traffic(4, 4, 4), 40 + 64);
        assert_eq!(Operation::LogSumExp.traffic(2, 8, 8), 128 + 16);
    }
}
