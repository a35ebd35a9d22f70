//! `softmax run`: rows of one file to rows of another, block by block.

use std::path::PathBuf;

use softmax::{Kernel, Masked, Matrix, MatrixMut, Op, Softmax, Ties};

use crate::blocks::{Scaling, Source, Walk, buffer, with_type};
use crate::dtype::{Dtype, Value, encode, stored};
use crate::failure::Failure;
use crate::input::Format;
use crate::output::{Output, Target};
use crate::stdout;
use crate::tensor::Tensor;

/// Computes the softmax of every row (the last axis, or another one) of the arrays in a file.
///
/// Memory holds a few blocks of some 16 MiB, or a few rows if they are longer, however large the
/// file is; along another axis than the last, all from that axis on. LOGITS is mapped: do not change it meanwhile.
#[derive(Debug, clap::Args)]
pub struct Run {
    #[command(flatten)]
    source: Source,
    /// The file to write, with the same extension. It appears when it is complete.
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// What to compute.
    #[arg(long, value_enum, default_value_t = Name::Softmax)]
    op: Name,
    /// As --op log-softmax.
    #[arg(long, conflicts_with = "op")]
    log: bool,
    /// The axis; negative ones count from the end.
    #[arg(long, value_name = "N", default_value_t = -1, allow_hyphen_values = true)]
    axis: isize,
    #[command(flatten)]
    scaling: Scaling,
    /// What a row becomes whose every entry is -inf.
    #[arg(long, value_enum, default_value_t = MaskedRow::Nan)]
    masked: MaskedRow,
    /// The type of OUT [default: that of LOGITS]. Computed in the wider of the two, at least f32 if they differ.
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Prints the most likely column of the first N rows.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "axis")]
    show: usize,
    /// Prints which way the computation takes, and why.
    #[arg(long, short)]
    verbose: bool,
    /// Replaces OUT if it exists; it may be LOGITS.
    #[arg(long)]
    force: bool,
}

/// What to compute, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    /// exp(x) / sum(exp(x)) of each row
    Softmax,
    /// Its logarithm
    LogSoftmax,
    /// 1 / (1 + exp(-x)) of each element
    Sigmoid,
    /// Its logarithm
    LogSigmoid,
    /// 1 for the largest of each row, the first of equals, and 0 for the others
    Hardmax,
}

/// [`Masked`] on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum MaskedRow {
    /// NaN everywhere
    Nan,
    /// Probability 0 (log-probability -inf) everywhere
    Zero,
}

impl Run {
    /// Does it all.
    pub fn run(&self) -> Result<(), Failure> {
        let walk = Walk::new(&self.output)?;
        let (softmax, kernel) = self.softmax()?;
        let target = Target::new(&self.output, Format::of(&self.source.path)?, self.force)?;
        let input = self.source.open()?;
        let dtype = |t: &Tensor| self.dtype.unwrap_or(t.dtype);
        for tensor in &input.tensors {
            let (_, inner) = tensor.along(self.axis).map_err(|e| self.source.failed(e))?;
            if inner > 1 {
                // Temperatures 0 and infinity have a meaning for rows only.
                self.scaling.finite(softmax)?;
                if self.op() == Op::Hardmax(Ties::First) {
                    return Err(Failure::new("--axis", "hardmax is along the last axis only"));
                }
            }
        }
        let header = input.header(dtype).map_err(|e| target.failed(e))?;

        let (several, shown) = (input.tensors.len() > 1, Vec::new());
        let output = target.create(&header)?;
        let mut work = Work { run: self, softmax, walk: &walk, several, output, shown };
        for tensor in &input.tensors {
            let (bytes, to) = (&input.bytes[tensor.data.clone()], dtype(tensor));
            with_type!(Dtype::between(tensor.dtype, to), C => work.tensor::<C>(tensor, bytes, to)?);
        }
        let moved = input.bytes.len() + work.output.finish()?;

        let what = describe(&input.tensors, dtype);
        let summary = walk.summary(&self.output, &what, kernel, &self.source, moved);
        work.shown.insert(0, summary);
        stdout::print(&work.shown)
    }

    fn op(&self) -> Op {
        match self.op {
            _ if self.log => Op::LogSoftmax,
            Name::Softmax => Op::Softmax,
            Name::LogSoftmax => Op::LogSoftmax,
            Name::Sigmoid => Op::Sigmoid,
            Name::LogSigmoid => Op::LogSigmoid,
            Name::Hardmax => Op::Hardmax(Ties::First),
        }
    }

    /// What to call, and the kernel that it will use.
    fn softmax(&self) -> Result<(Softmax<'static>, &'static Kernel), Failure> {
        let options = self.source.options()?.masked(match self.masked {
            MaskedRow::Nan => Masked::Nan,
            MaskedRow::Zero => Masked::Zero,
        });
        let options = match self.op() {
            Op::Sigmoid | Op::LogSigmoid => self.scaling.finite(options)?,
            _ => self.scaling.of(options)?,
        };
        Ok((options, self.source.kernel()?))
    }
}

/// Everything that the blocks share.
struct Work<'a> {
    run: &'a Run,
    softmax: Softmax<'static>,
    walk: &'a Walk,
    several: bool,
    output: Output,
    shown: Vec<String>,
}

impl<'a> Work<'a> {
    /// The results of `bytes`, computed as `C`, stored as `to`.
    fn tensor<C: Value>(
        &mut self,
        tensor: &Tensor,
        bytes: &[u8],
        to: Dtype,
    ) -> Result<(), Failure> {
        if tensor.len() == 0 {
            return Ok(());
        }
        let source = &self.run.source;
        let failed = |e: softmax::Error| source.failed(e);
        let (axis, inner) = tensor.along(self.run.axis).map_err(|e| source.failed(e))?;
        // What cannot be cut: a row, or the matrix that has the axis and all behind it.
        let unit = axis * inner;
        let mut blocks = self.walk.blocks::<C>(source, tensor.dtype, bytes, unit, 0);
        if self.run.verbose {
            let rows = blocks.most() / axis;
            self.explain::<C>(tensor, rows, axis).map_err(failed)?;
        }
        // The output, and what of it is not of the type C.
        let mut y: Vec<C> = buffer(blocks.most()).map_err(|e| source.failed(e))?;
        let mut encoded: Vec<u8> = Vec::new();
        if to != C::DTYPE {
            encoded = buffer(blocks.most() * to.size()).map_err(|e| source.failed(e))?;
        }
        while let Some((first, x)) = blocks.advance()? {
            let (n, y) = (x.len(), &mut y[..x.len()]);
            self.compute(x, y, [n / unit, axis, inner]).map_err(failed)?;
            self.show(tensor, first, y, to);
            let stored = if to == C::DTYPE {
                bytemuck::cast_slice(y)
            } else {
                let encoded = &mut encoded[..n * to.size()];
                encode(y, to, encoded);
                encoded
            };
            self.output.write(stored)?;
        }
        Ok(())
    }

    /// Notes how blocks of `rows` rows are computed.
    fn explain<C: Value>(
        &mut self,
        tensor: &Tensor,
        rows: usize,
        cols: usize,
    ) -> Result<(), softmax::Error> {
        let op = self.run.op();
        // Maps of elements take a matrix as one column.
        let shape = if matches!(op, Op::Sigmoid | Op::LogSigmoid) {
            (rows * cols, 1)
        } else {
            (rows, cols)
        };
        let plan = self.softmax.plan::<C>(op, shape.0, shape.1, false)?;
        let name = tensor.name.as_deref().unwrap_or("the array");
        let (all, t) = (tensor.len() / cols, C::NAME);
        self.shown.push(format!("{name}: {all} rows in blocks of {rows}, computed in {t}"));
        self.shown.extend(plan.to_string().lines().map(|line| format!("  {line}")));
        Ok(())
    }

    fn compute<C: Value>(
        &self,
        x: &[C],
        y: &mut [C],
        shape: [usize; 3],
    ) -> Result<(), softmax::Error> {
        let (softmax, [_, axis, inner]) = (&self.softmax, shape);
        let op = self.run.op();
        if inner > 1 && op == Op::Softmax {
            return softmax.softmax_axis(x, y, &shape, 1);
        }
        if inner > 1 && op == Op::LogSoftmax {
            return softmax.log_softmax_axis(x, y, &shape, 1);
        }
        let (x, y) = (Matrix::new(x, axis)?, MatrixMut::new(y, axis)?);
        match op {
            Op::LogSoftmax => softmax.log_softmax(x, y),
            Op::Sigmoid => softmax.sigmoid(x, y),
            Op::LogSigmoid => softmax.log_sigmoid(x, y),
            Op::Hardmax(ties) => softmax.hardmax(ties, x, y),
            _ => softmax.softmax(x, y),
        }
    }

    /// Notes the most likely columns of those of the first rows that are in this block.
    fn show<C: Value>(&mut self, tensor: &Tensor, first: usize, y: &[C], to: Dtype) {
        let name = tensor.name.as_deref().filter(|_| self.several);
        let name = name.map(|n| format!("{n}: ")).unwrap_or_default();
        let log = matches!(self.run.op(), Op::LogSoftmax | Op::LogSigmoid);
        let p = if log { "log p" } else { "p" };
        let rows = y.chunks(tensor.cols).enumerate().take(self.run.show.saturating_sub(first));
        for (i, row) in rows {
            let values = row.iter().map(|v| stored(v.to_f64(), to)).enumerate();
            // The first of equals; a row that is not a number is so everywhere.
            let best = values.reduce(|best, v| if v.1 > best.1 { v } else { best });
            self.shown.push(match best {
                Some((col, value)) if !value.is_nan() => {
                    format!("{name}row {}: most likely {col} ({p} = {value:.4})", first + i)
                }
                _ => format!("{name}row {}: not a number", first + i),
            });
        }
    }
}

/// What was computed, for the summary.
fn describe(tensors: &[Tensor], dtype: impl Fn(&Tensor) -> Dtype) -> String {
    if let [tensor] = tensors {
        return format!("{} {}", tensor.shape_text(), dtype(tensor).name());
    }
    let mut names: Vec<_> = tensors.iter().map(|t| dtype(t).name()).collect();
    names.sort_unstable();
    names.dedup();
    let elements: usize = tensors.iter().map(Tensor::len).sum();
    format!("{} tensors, {elements} elements {}", tensors.len(), names.join("/"))
}
