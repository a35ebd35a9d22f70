//! `softmax run`: rows of one file to rows of another, chunk by chunk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use softmax::{Exec, Hardmax, Masked, MatrixMut, Op, Shape, Sigmoid, Softmax, Ties};

use crate::chunks::{Moved, Reading, Results, Scaling, Source, Walk, scaled, with_type};
use crate::dtype::{Dtype, Value, stored};
use crate::failure::{Failure, clip};
use crate::input::{Contents, Format, Input, Item, is_standard};
use crate::output::{Target, check_distinct};
use crate::stdout;
use crate::tensor::{Other, Tensor};
use crate::writer::{self, Sink, Writer};

/// Computes the softmax of every row (the last axis, or another one) of the arrays in a file.
///
/// Memory holds some megabytes for each thread, or a row if it is longer, however large the file
/// is; for an axis other than the last, everything from that axis on; and as much again for another
/// --dtype. Text, standard input, compressed arrays of .npz files and arrays in Fortran order are
/// in memory as a whole.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// Files of f32, f64, f16 or bf16 (.npy, .npz, .safetensors) or of text (.csv, .tsv, .txt), or
    /// - for standard input. Integers and text are read as f64.
    #[arg(value_name = "LOGITS", required = true, num_args = 1..)]
    inputs: Vec<PathBuf>,
    /// The file to write, which appears when it is complete; or a folder, for files of the same
    /// names as LOGITS; or - for standard output.
    ///
    /// A .npz or .safetensors file is copied with its tensors of floats replaced; a single array
    /// may also be written as .npy or text.
    #[arg(value_name = "OUT", required = true)]
    output: PathBuf,
    #[command(flatten)]
    pub reading: Reading,
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
    /// The result of a row whose every entry is -inf.
    #[arg(long, value_enum, default_value_t = MaskedRow::Nan)]
    masked: MaskedRow,
    /// The type of OUT [default: that of LOGITS]. Computed in the wider of the two, at least f32 if
    /// they differ, and rounded once.
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Prints the most likely column of the first N rows.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "axis")]
    show: usize,
    /// Prints how the result is computed, and why.
    #[arg(long, short)]
    verbose: bool,
    /// Replaces OUT if it exists; it may be LOGITS. Its permissions stay.
    #[arg(long)]
    force: bool,
    /// Prints one JSON object for each of LOGITS.
    #[arg(long)]
    json: bool,
    /// Prints nothing but errors.
    #[arg(long, short, conflicts_with_all = ["json", "verbose", "show"])]
    quiet: bool,
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
    /// Runs the subcommand.
    pub fn run(&self) -> Result<(), Failure> {
        let outputs = self.outputs()?;
        let target = |output: &PathBuf| Target::standard_or(output, self.force);
        let targets: Vec<_> = outputs.iter().map(target).collect::<Result<_, _>>()?;
        check_distinct(targets.iter())?;
        for ((input, output), target) in self.inputs.iter().zip(&outputs).zip(targets) {
            let source = Source { path: input.clone(), reading: self.reading.clone() };
            self.one(&source, output, target)?;
        }
        Ok(())
    }

    /// The output path of each input.
    fn outputs(&self) -> Result<Vec<PathBuf>, Failure> {
        let out = &self.output;
        let failed = |cause| Failure::new(out.display(), cause);
        if self.inputs.len() == 1 && (!out.is_dir() || Format::of_name(out).is_some()) {
            return Ok(vec![out.clone()]);
        }
        if !out.is_dir() {
            let cause = "no folder, which the results of several files need";
            return Err(failed(cause));
        }
        let name = |input: &PathBuf| match input.file_name() {
            Some(name) if !is_standard(input) => Ok(out.join(name)),
            _ => Err(failed("a folder, in which standard input has no name")),
        };
        self.inputs.iter().map(name).collect()
    }

    /// Computes one file.
    fn one(&self, source: &Source, path: &Path, target: Target) -> Result<(), Failure> {
        let walk = Walk::new(is_standard(path), self.quiet);
        let (exec, kernel) = (source.exec()?, source.kernel()?);
        self.check_scaling()?;
        let input = source.open()?;
        let dtype = |t: &Tensor| self.dtype.unwrap_or(t.dtype);
        for tensor in &input.tensors {
            let (_, inner) = tensor.along(self.axis).map_err(|e| source.failed(e))?;
            if inner > 1 {
                // Temperatures 0 and infinity have a meaning for rows only.
                self.scaling.check_finite()?;
                if self.op() == Op::Hardmax(Ties::First) {
                    return Err(Failure::new("--axis", "hardmax is along the last axis only"));
                }
            }
        }
        let format = writer::format_of(path, self.reading.format, &input, |e| target.failed(e))?;
        let mut output = Writer::create(target, format, &input, dtype)?;
        let (plans, rows) = (Vec::new(), Vec::new());
        let mut work = Work { run: self, source, exec, walk: &walk, plans, rows };
        input.tensors.iter().for_each(|t| walk.expect(t.len() * dtype(t).size()));
        input.others.iter().for_each(|other| walk.expect(2 * other.data.len()));
        for item in input.items() {
            let file = &input.file;
            match item {
                Item::Tensor(tensor) => {
                    let to = dtype(tensor);
                    with_type!(Dtype::between(tensor.dtype, to), C => {
                        output.item(item, to, |sink| work.tensor::<C>(tensor, file, to, sink))?;
                    });
                }
                Item::Other(other) => {
                    let copy = |sink: &mut Sink| walk.copy(file, other.data.clone(), sink);
                    output.item(item, Dtype::F64, copy)?;
                }
            }
        }
        let bytes = input.file.len() + output.finish()?;
        let moved = Moved { path, bytes };

        let (plans, rows) = (&work.plans, &work.rows);
        // If standard output has the results, standard error gets what was asked for.
        let asked = self.json || self.verbose || self.show > 0;
        if self.quiet || is_standard(path) && !asked {
            walk.finish(source);
            return Ok(());
        }
        let print = |lines: &[String]| match is_standard(path) {
            true => stdout::print_to_stderr(lines),
            false => stdout::print(lines),
        };
        if self.json {
            let mut summary = walk.summary_json(moved, kernel, source);
            summary["tensors"] = input.tensors.iter().map(|t| t.json(dtype(t))).collect();
            if !input.others.is_empty() {
                summary["copied"] = input.others.iter().map(Other::json).collect();
            }
            if self.verbose {
                summary["plans"] = plans.iter().map(Plan::json).collect();
            }
            if self.show > 0 {
                summary["rows"] = rows.iter().map(Row::json).collect();
            }
            return print(&[stdout::json_text(&summary)]);
        }
        let what = describe(&input, dtype);
        let mut lines = vec![walk.summary(moved, &what, kernel, source)];
        lines.extend(plans.iter().flat_map(Plan::lines));
        let several = input.tensors.len() > 1;
        lines.extend(rows.iter().map(|row| row.line(several, self.is_log())));
        print(&lines)
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

/// What all chunks share.
struct Work<'a> {
    run: &'a Run,
    source: &'a Source,
    exec: Exec<'static>,
    walk: &'a Walk,
    plans: Vec<Plan>,
    rows: Vec<Row>,
}

/// How a tensor is computed, for --verbose.
struct Plan {
    tensor: Option<String>,
    rows: usize,
    chunk: usize,
    dtype: &'static str,
    plan: String,
}

impl Plan {
    fn lines(&self) -> Vec<String> {
        let Self { tensor, rows, chunk, dtype, plan } = self;
        let name = tensor.as_deref().unwrap_or("the array");
        let first = format!("{name}: {rows} rows in chunks of {chunk}, computed in {dtype}");
        [first].into_iter().chain(plan.lines().map(|line| format!("  {line}"))).collect()
    }

    fn json(&self) -> Json {
        let Self { tensor, rows, chunk, dtype, plan } = self;
        let plan: Vec<_> = plan.lines().collect();
        json!({
            "name": tensor, "rows": rows, "chunk_rows": chunk, "computed_in": dtype, "plan": plan,
        })
    }
}

/// The most likely column of a row and its probability, for --show; none if the row is NaN.
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
    /// Computes a tensor as `C`, and stores the results as `to`.
    fn tensor<C: Value>(
        &mut self,
        tensor: &Tensor,
        file: &Contents,
        to: Dtype,
        sink: &mut Sink,
    ) -> Result<(), Failure> {
        if tensor.len() == 0 {
            return Ok(());
        }
        let source = self.source;
        let failed = |e: softmax::Error| source.failed(e);
        let (axis, inner) = tensor.along(self.run.axis).map_err(|e| source.failed(e))?;
        // Elements that cannot be cut apart: a row, or the matrix from the axis on.
        let unit = axis * inner;
        let (stored, bytes) = (tensor.stored, tensor.data.clone());
        let mut chunks = self.walk.chunks::<C>(source, file, stored, bytes, unit, 0);
        if self.run.verbose {
            let rows = chunks.most() / axis;
            self.explain::<C>(tensor, rows, axis).map_err(failed)?;
        }
        let mut results = Results::new::<C>(self.walk, source, chunks.most(), to)?;
        while let Some((first, x)) = chunks.advance()? {
            let n = x.len();
            self.compute(x, [n / unit, axis, inner]).map_err(failed)?;
            self.show(tensor, first, x, to);
            results.write(sink, x)?;
            if sink.is_gone() {
                break;
            }
        }
        Ok(())
    }

    /// Notes, for --verbose, how chunks of `rows` rows are computed.
    fn explain<C: Value>(
        &mut self,
        tensor: &Tensor,
        rows: usize,
        cols: usize,
    ) -> Result<(), softmax::Error> {
        let op = self.run.op();
        // Elementwise operations take a matrix as one column.
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
            chunk: rows,
            dtype: C::NAME,
            plan: plan.to_string(),
        });
        Ok(())
    }

    /// Overwrites a chunk with its results.
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

    /// Notes the most likely columns of those of the first rows that are in this chunk.
    fn show<C: Value>(&mut self, tensor: &Tensor, first: usize, y: &[C], to: Dtype) {
        let rows = y.chunks(tensor.cols).enumerate().take(self.run.show.saturating_sub(first));
        for (i, row) in rows {
            let values = row.iter().map(|v| stored(v.to_f64(), to)).enumerate();
            // The first of equals; a row with a NaN has nothing else.
            let best = values.reduce(|best, v| if v.1 > best.1 { v } else { best });
            let best = best.filter(|(_, value)| !value.is_nan());
            self.rows.push(Row { tensor: tensor.name.clone(), row: first + i, best });
        }
    }
}

/// The description of what was computed, for the summary.
fn describe(input: &Input, dtype: impl Fn(&Tensor) -> Dtype) -> String {
    let tensors = &input.tensors;
    let mut what = match &**tensors {
        [tensor] => format!("{} {}", tensor.shape_text(), dtype(tensor).name()),
        _ => {
            let elements: usize = tensors.iter().map(Tensor::len).sum();
            let names = names(tensors.iter().map(|t| dtype(t).name().to_owned()));
            format!("{} tensors, {elements} elements {names}", tensors.len())
        }
    };
    // Types that are read as another one.
    let others = tensors.iter().filter(|t| t.stored.dtype().name() != t.stored.name());
    let others = names(others.map(|t| t.stored.name()));
    if !others.is_empty() {
        what += &format!(" from {others}");
    }
    input.remarks.iter().for_each(|remark| what += &format!(", {remark}"));
    let copied = names(input.others.iter().map(|other| other.kind.clone()));
    match input.others.len() {
        0 => what,
        1 => format!("{what}, 1 other copied as it is ({copied})"),
        n => format!("{what}, {n} others copied as they are ({copied})"),
    }
}

/// Names of types, each once.
fn names(names: impl Iterator<Item = String>) -> String {
    let names: BTreeSet<_> = names.collect();
    // Clipped, because a file may give its types any names.
    clip(&names.into_iter().collect::<Vec<_>>().join("/"), 100).into_owned()
}
