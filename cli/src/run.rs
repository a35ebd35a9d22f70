//! `softmax run`: rows of one file to rows of another, block by block.

use std::path::PathBuf;

use serde_json::{Value as Json, json};
use softmax::{Exec, Hardmax, Masked, MatrixMut, Op, Shape, Sigmoid, Softmax, Ties};

use crate::blocks::{Moved, Scaling, Source, Walk, buffer, scaled, with_type};
use crate::dtype::{Dtype, Value, encode, stored};
use crate::failure::Failure;
use crate::input::{Contents, Format};
use crate::output::{Output, Target};
use crate::stdout;
use crate::tensor::Tensor;

/// Computes the softmax of every row (the last axis, or another one) of the arrays in a file.
///
/// Memory holds some megabytes for each thread, or a row if it is longer, however large the file
/// is; along another axis than the last, all from that axis on; and as much again for another
/// --dtype.
#[derive(Debug, clap::Args)]
pub struct Run {
    #[command(flatten)]
    pub source: Source,
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
    /// The type of OUT [default: that of LOGITS]. Computed in the wider of the two, at least f32 if
    /// they differ.
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Prints the most likely column of the first N rows.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "axis")]
    show: usize,
    /// Prints which way the computation takes, and why.
    #[arg(long, short)]
    verbose: bool,
    /// Replaces OUT if it exists; it may be LOGITS. Its permissions stay.
    #[arg(long)]
    force: bool,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
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
        let walk = Walk::new(false);
        let (exec, kernel) = (self.source.exec()?, self.source.kernel()?);
        self.check_scaling()?;
        let target = Target::new(&self.output, Format::of(&self.source.path)?, self.force)?;
        let input = self.source.open()?;
        let dtype = |t: &Tensor| self.dtype.unwrap_or(t.dtype);
        for tensor in &input.tensors {
            let (_, inner) = tensor.along(self.axis).map_err(|e| self.source.failed(e))?;
            if inner > 1 {
                // Temperatures 0 and infinity have a meaning for rows only.
                self.scaling.check_finite()?;
                if self.op() == Op::Hardmax(Ties::First) {
                    return Err(Failure::new("--axis", "hardmax is along the last axis only"));
                }
            }
        }
        let header = input.header(dtype).map_err(|e| target.failed(e))?;

        let output = target.create(&header)?;
        let mut work =
            Work { run: self, exec, walk: &walk, output, plans: Vec::new(), rows: Vec::new() };
        input.tensors.iter().for_each(|t| walk.expect(t.len() * dtype(t).size()));
        for tensor in &input.tensors {
            let (file, to) = (&input.file, dtype(tensor));
            with_type!(Dtype::between(tensor.dtype, to), C => work.tensor::<C>(tensor, file, to)?);
        }
        let bytes = input.file.len() + work.output.finish()?;
        let moved = Moved { path: &self.output, bytes };

        let (plans, rows) = (&work.plans, &work.rows);
        if self.json {
            let mut summary = walk.summary_json(moved, kernel, &self.source);
            summary["tensors"] = input.tensors.iter().map(|t| t.json(dtype(t))).collect();
            if self.verbose {
                summary["plans"] = plans.iter().map(Plan::json).collect();
            }
            if self.show > 0 {
                summary["rows"] = rows.iter().map(Row::json).collect();
            }
            return stdout::print_json(&summary);
        }
        let what = describe(&input.tensors, dtype);
        let mut lines = vec![walk.summary(moved, &what, kernel, &self.source)];
        lines.extend(plans.iter().flat_map(Plan::lines));
        let several = input.tensors.len() > 1;
        lines.extend(rows.iter().map(|row| row.line(several, self.is_log())));
        stdout::print(&lines)
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

    /// Whether results are logarithms.
    fn is_log(&self) -> bool {
        matches!(self.op(), Op::LogSoftmax | Op::LogSigmoid)
    }

    /// Refuses a scale or temperature that is out of range for the operation.
    fn check_scaling(&self) -> Result<(), Failure> {
        match self.op() {
            Op::Sigmoid | Op::LogSigmoid => self.scaling.check_finite(),
            _ => self.scaling.check(),
        }
    }

    fn masked(&self) -> Masked {
        match self.masked {
            MaskedRow::Nan => Masked::Nan,
            MaskedRow::Zero => Masked::Zero,
        }
    }
}

/// Everything that the blocks share.
struct Work<'a> {
    run: &'a Run,
    exec: Exec<'static>,
    walk: &'a Walk,
    output: Output,
    plans: Vec<Plan>,
    rows: Vec<Row>,
}

/// How a tensor is computed, for --verbose.
struct Plan {
    tensor: Option<String>,
    rows: usize,
    block: usize,
    dtype: &'static str,
    plan: String,
}

impl Plan {
    fn lines(&self) -> Vec<String> {
        let Self { tensor, rows, block, dtype, plan } = self;
        let name = tensor.as_deref().unwrap_or("the array");
        let first = format!("{name}: {rows} rows in blocks of {block}, computed in {dtype}");
        [first].into_iter().chain(plan.lines().map(|line| format!("  {line}"))).collect()
    }

    fn json(&self) -> Json {
        let Self { tensor, rows, block, dtype, plan } = self;
        let plan: Vec<_> = plan.lines().collect();
        json!({
            "name": tensor, "rows": rows, "block_rows": block, "computed_in": dtype, "plan": plan,
        })
    }
}

/// The most likely column of a row and what it has, for --show; none if the row is not a number.
struct Row {
    tensor: Option<String>,
    row: usize,
    best: Option<(usize, f64)>,
}

impl Row {
    fn line(&self, several: bool, log: bool) -> String {
        let name = self.tensor.as_deref().filter(|_| several);
        let name = name.map(|n| format!("{n}: ")).unwrap_or_default();
        let p = if log { "log p" } else { "p" };
        let row = self.row;
        match self.best {
            Some((column, value)) => {
                format!("{name}row {row}: most likely {column} ({p} = {value:.4})")
            }
            None => format!("{name}row {row}: not a number"),
        }
    }

    fn json(&self) -> Json {
        let (column, value) = self.best.unzip();
        json!({ "name": self.tensor, "row": self.row, "column": column, "value": value })
    }
}

impl<'a> Work<'a> {
    /// The results of a tensor, computed as `C`, stored as `to`.
    fn tensor<C: Value>(
        &mut self,
        tensor: &Tensor,
        file: &Contents,
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
        let (dtype, bytes) = (tensor.dtype, tensor.data.clone());
        let mut blocks = self.walk.blocks::<C>(source, file, dtype, bytes, unit, 0);
        if self.run.verbose {
            let rows = blocks.most() / axis;
            self.explain::<C>(tensor, rows, axis).map_err(failed)?;
        }
        // The output, if it is not of the type C.
        let mut encoded: Vec<u8> = Vec::new();
        if to != C::DTYPE {
            encoded = buffer(blocks.most() * to.size()).map_err(|e| source.failed(e))?;
        }
        while let Some((first, x)) = blocks.advance()? {
            let n = x.len();
            self.compute(x, [n / unit, axis, inner]).map_err(failed)?;
            self.show(tensor, first, x, to);
            let stored = if to == C::DTYPE {
                bytemuck::cast_slice(x)
            } else {
                let encoded = &mut encoded[..n * to.size()];
                encode(x, to, encoded);
                encoded
            };
            self.walk.write(&mut self.output, stored)?;
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
        let is_limit = self.run.scaling.is_limit();
        let op = match op {
            Op::Softmax | Op::LogSoftmax if is_limit => Op::Hardmax(Ties::Share),
            op => op,
        };
        let plan = self.exec.plan::<C>(op, Shape::new(shape.0, shape.1).in_place())?;
        self.plans.push(Plan {
            tensor: tensor.name.clone(),
            rows: tensor.len() / cols,
            block: rows,
            dtype: C::NAME,
            plan: plan.to_string(),
        });
        Ok(())
    }

    /// Puts the results of a block where it is.
    fn compute<C: Value>(&self, x: &mut [C], shape: [usize; 3]) -> Result<(), softmax::Error> {
        let [_, axis, inner] = shape;
        let (op, masked, scaling) = (self.run.op(), self.run.masked(), &self.run.scaling);
        let softmax = scaled!(scaling, Softmax::new()).masked(masked).exec(self.exec);
        let sigmoid = scaled!(scaling, Sigmoid::new()).exec(self.exec);
        if inner > 1 && op == Op::Softmax {
            return softmax.softmax_axis_in_place(x, &shape, 1);
        }
        if inner > 1 && op == Op::LogSoftmax {
            return softmax.log_softmax_axis_in_place(x, &shape, 1);
        }
        let x = MatrixMut::new(x, axis)?;
        match op {
            Op::LogSoftmax => softmax.log_softmax_in_place(x),
            Op::Sigmoid => sigmoid.sigmoid_in_place(x),
            Op::LogSigmoid => sigmoid.log_sigmoid_in_place(x),
            Op::Hardmax(ties) => {
                Hardmax::new().ties(ties).masked(masked).exec(self.exec).hardmax_in_place(x)
            }
            _ => softmax.softmax_in_place(x),
        }
    }

    /// Notes the most likely columns of those of the first rows that are in this block.
    fn show<C: Value>(&mut self, tensor: &Tensor, first: usize, y: &[C], to: Dtype) {
        let rows = y.chunks(tensor.cols).enumerate().take(self.run.show.saturating_sub(first));
        for (i, row) in rows {
            let values = row.iter().map(|v| stored(v.to_f64(), to)).enumerate();
            // The first of equals; a row that is not a number is so everywhere.
            let best = values.reduce(|best, v| if v.1 > best.1 { v } else { best });
            let best = best.filter(|(_, value)| !value.is_nan());
            self.rows.push(Row { tensor: tensor.name.clone(), row: first + i, best });
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
