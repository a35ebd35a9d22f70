//! `softmax loss`: cross-entropy, and its gradient.

use std::path::{Path, PathBuf};

use serde_json::json;
use softmax::{CrossEntropy, Error, Matrix, MatrixMut, Reduction};

use crate::chunks::{Chunks, Results, Scaling, Source, Walk, scaled, with_type};
use crate::dtype::{Dtype, Value};
use crate::failure::Failure;
use crate::input::{self, Format, Item, Wanted, is_standard};
use crate::memory::buffer;
use crate::output::{Target, check_distinct};
use crate::stored::Number;
use crate::tensor::{Tensor, shape_text};
use crate::writer::{self, Sink, Writer};
use crate::{npy, stdout};

/// Computes the cross-entropy of rows of logits (the last axis) and labels, and its gradient.
///
/// Beside some megabytes for each thread, or a row if it is longer, memory holds 16 bytes for each
/// row.
#[derive(Debug, clap::Args)]
pub struct Loss {
    #[command(flatten)]
    pub source: Source,
    /// A file with the column of each row's class, in the shape of LOGITS without its last axis, in
    /// one axis, or in one with a further axis of 1: of integers, or of other numbers that are
    /// whole.
    #[arg(value_name = "LABELS")]
    labels: PathBuf,
    /// Rows with this label do not count.
    #[arg(long, value_name = "N", default_value_t = -100, allow_hyphen_values = true)]
    ignore_index: i64,
    /// Spreads this share of every label's mass over all classes.
    #[arg(long, value_name = "S", default_value_t = 0.0, allow_hyphen_values = true)]
    label_smoothing: f64,
    /// Adds Z times the square of each row's log-sum-exp.
    #[arg(long, value_name = "Z", default_value_t = 0.0, allow_hyphen_values = true)]
    z_loss: f64,
    /// A file with one number for each class, the factor of its share of the loss: of f64, or of
    /// another type without loss.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    scaling: Scaling,
    /// How the losses of rows are combined.
    #[arg(long, value_enum, default_value_t = Together::Mean)]
    reduction: Together,
    /// Writes the gradient of the loss to this file, in the shape of LOGITS. With - for standard
    /// output, the loss is printed to standard error.
    #[arg(long, value_name = "OUT")]
    gradient: Option<PathBuf>,
    /// The type of the gradient [default: that of LOGITS]. Computed in the wider of the two, at
    /// least f32 if they differ, and rounded once.
    #[arg(long, value_enum, requires = "gradient")]
    dtype: Option<Dtype>,
    /// Writes the loss of each row to this .npy file, as f64.
    #[arg(long, value_name = "OUT")]
    losses: Option<PathBuf>,
    /// Replaces output files that exist. Their permissions stay.
    #[arg(long)]
    force: bool,
    /// Prints one JSON object. A loss that is not finite is null, and "is" tells its kind: finite,
    /// inf, -inf or nan.
    #[arg(long)]
    json: bool,
}

/// [`Reduction`] on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Together {
    /// Their sum divided by that of the rows' weights, which are 1 without --weights
    Mean,
    /// Their sum
    Sum,
}

impl Loss {
    /// Runs the subcommand.
    pub fn run(&self) -> Result<(), Failure> {
        let walk = Walk::new(self.gradient.as_deref().is_some_and(is_standard), false);
        self.scaling.check_finite()?;
        let exec = self.source.exec()?;
        let gradient = self.gradient.as_deref();
        let gradient = gradient.map(|path| Target::standard_or(path, self.force)).transpose()?;
        let rows_losses = Target::wanted(self.losses.as_deref(), Format::Npy, self.force)?;
        check_distinct([&gradient, &rows_losses].into_iter().flatten())?;

        let input = self.source.open_one()?;
        let tensor = &input.tensors[0];
        let labels = self.labels(tensor)?;
        let weights = self.weights.as_deref().map(|path| self.weights(path)).transpose()?;
        let loss = self.loss(weights.as_deref())?.exec(exec);
        let divisor =
            loss.divisor(&labels, tensor.cols).map_err(|e| match (&e, &self.weights) {
                (Error::Shape { .. } | Error::Value { .. }, Some(path)) => {
                    Failure::new(path.display(), e)
                }
                _ => Failure::new(self.labels.display(), e),
            })?;

        let to = self.dtype.unwrap_or(tensor.dtype);
        let mut losses = buffer(tensor.rows).map_err(|e| self.source.failed(e))?;
        let gradient = gradient.map(|target| {
            let path = self.gradient.as_deref().unwrap_or(Path::new(""));
            let asked = self.source.reading.format;
            let format = writer::format_of(path, asked, &input, |e| target.failed(e))?;
            walk.expect(tensor.len() * to.size());
            Writer::create(target, format, &input, |_| to)
        });
        let mut gradient = gradient.transpose()?;
        let rows_losses =
            rows_losses.map(|t| t.create_npy(tensor.outer(), npy::F64)).transpose()?;
        let of_sum = loss.reduction(Reduction::Sum).gradient_factor(1.0 / divisor);
        let mut chunked =
            Chunked { walk: &walk, loss: of_sum, labels: &labels, losses: &mut losses, to };
        let (source, file, cols) = (&self.source, &input.file, tensor.cols);
        let (stored, bytes) = (tensor.stored, tensor.data.clone());
        with_type!(Dtype::between(tensor.dtype, to), C => {
            let chunks = walk.chunks::<C>(source, file, stored, bytes, cols, 0);
            match &mut gradient {
                Some(writer) => writer.item(Item::Tensor(tensor), to, |sink| {
                    chunked.compute(chunks, source, cols, Some(sink))
                })?,
                None => chunked.compute(chunks, source, cols, None)?,
            }
        });
        if let Some(mut output) = rows_losses {
            output.write(bytemuck::cast_slice(&losses))?;
            output.finish()?;
        }
        gradient.map(Writer::finish).transpose()?;

        let ignored = labels.iter().filter(|&&label| label == self.ignore_index).count();
        self.report(loss.reduce(&losses, divisor), tensor, ignored)
    }

    /// The options of the library for those of the command line.
    fn loss<'a>(&self, weights: Option<&'a [f64]>) -> Result<CrossEntropy<'a>, Failure> {
        let plain = CrossEntropy::new();
        for (option, loss) in [
            ("--label-smoothing", plain.label_smoothing(self.label_smoothing)),
            ("--z-loss", plain.z_loss(self.z_loss)),
        ] {
            // Without rows this only checks whether a number is in its range.
            loss.divisor(&[], 0).map_err(|e| Failure::new(option, e))?;
        }
        let loss = scaled!(self.scaling, CrossEntropy::new())
            .ignore_index(self.ignore_index)
            .reduction(match self.reduction {
                Together::Mean => Reduction::Mean,
                Together::Sum => Reduction::Sum,
            })
            .label_smoothing(self.label_smoothing)
            .z_loss(self.z_loss);
        Ok(weights.map_or(loss, |weights| loss.weights(weights)))
    }

    /// The labels, one for each row.
    fn labels(&self, tensor: &Tensor) -> Result<Vec<i64>, Failure> {
        let (shape, labels) = input::numbers(&self.labels, self.source.reading.format, &LABELS)?;
        let (rows, outer) = ([tensor.rows], tensor.outer());
        let fits = |shape: &[usize]| shape == outer || shape == rows;
        if shape == tensor.shape && tensor.cols > 1 {
            let cause = "as many numbers as logits, where one label for each row is needed: if they \
                         are probabilities, np.save(\"labels.npy\", y.argmax(-1)) takes the largest";
            return Err(Failure::new(self.labels.display(), cause));
        }
        // Text has labels in a row or in a column.
        let (row, column) = (shape == [1, tensor.rows], shape.strip_suffix(&[1]));
        if !fits(&shape) && !row && !column.is_some_and(fits) {
            let (found, needed) = (shape_text(&shape), shape_text(tensor.outer()));
            let logits = format!("{}, {}", self.source.path.display(), tensor.shape_text());
            let cause =
                format!("one label for each row of {logits}, is needed: {needed}, got {found}");
            return Err(Failure::new(self.labels.display(), cause));
        }
        Ok(labels)
    }

    /// The weights in a file, along its one axis that is longer than 1.
    fn weights(&self, path: &Path) -> Result<Vec<f64>, Failure> {
        let (shape, weights) = input::numbers(path, self.source.reading.format, &WEIGHTS)?;
        if shape.iter().filter(|&&n| n != 1).count() > 1 {
            let shape = shape_text(&shape);
            let cause = format!("weights must be along one axis, one for each class, got {shape}");
            return Err(Failure::new(path.display(), cause));
        }
        Ok(weights)
    }

    /// Prints the result.
    fn report(&self, loss: f64, tensor: &Tensor, ignored: usize) -> Result<(), Failure> {
        let name = match self.reduction {
            Together::Mean => "mean",
            Together::Sum => "sum",
        };
        let rows = tensor.rows - ignored;
        if self.json {
            let (cols, dtype) = (tensor.cols, tensor.dtype.name());
            // JSON has no other numbers.
            let is = match loss {
                _ if loss.is_finite() => "finite",
                f64::INFINITY => "inf",
                f64::NEG_INFINITY => "-inf",
                _ => "nan",
            };
            let report = json!({
                "loss": loss, "is": is, "reduction": name, "rows": rows, "ignored": ignored,
                "cols": cols, "dtype": dtype,
            });
            return self.print(stdout::json_text(&report));
        }
        let ignored = if ignored == 0 { String::new() } else { format!(" ({ignored} ignored)") };
        self.print(format!("{name} loss {loss} of {rows} rows{ignored}"))
    }

    /// Prints a line to the output that the gradient does not use.
    fn print(&self, line: String) -> Result<(), Failure> {
        match self.gradient.as_deref().is_some_and(is_standard) {
            true => stdout::print_to_stderr(&[line]),
            false => stdout::print(&[line]),
        }
    }
}

/// The type of labels.
const LABELS: Wanted<i64> = Wanted {
    integers: true,
    convert: Number::whole,
    kind: "not an integer of 64 bits",
    python: ".round().astype(\"i8\")",
};

/// The type of weights.
const WEIGHTS: Wanted<f64> = Wanted {
    integers: false,
    convert: Number::double,
    kind: "not an f64",
    python: ".astype(\"f8\")",
};

/// The work for all chunks.
struct Chunked<'a> {
    walk: &'a Walk,
    /// The loss as a sum, with the gradient's factor for all rows.
    loss: CrossEntropy<'a>,
    /// The labels of all rows.
    labels: &'a [i64],
    losses: &'a mut [f64],
    /// The type of the gradient.
    to: Dtype,
}

impl Chunked<'_> {
    fn compute<C: Value>(
        &mut self,
        mut chunks: Chunks<C>,
        source: &Source,
        cols: usize,
        mut gradient: Option<&mut Sink>,
    ) -> Result<(), Failure> {
        let mut results = Results::new::<C>(self.walk, source, chunks.most(), self.to)?;
        while let Some((first, x)) = chunks.advance()? {
            let rows = first..first + x.len() / cols;
            let (labels, losses) = (&self.labels[rows.clone()], &mut self.losses[rows]);
            let failed = |e: Error| source.failed(e);
            let Some(sink) = &mut gradient else {
                let logits = Matrix::new(x, cols).map_err(|e| source.failed(e))?;
                self.loss.losses(logits, labels, losses).map_err(failed)?;
                continue;
            };
            let logits = MatrixMut::new(x, cols).map_err(|e| source.failed(e))?;
            self.loss.losses_and_gradient_in_place(logits, labels, losses).map_err(failed)?;
            results.write(sink, x)?;
        }
        Ok(())
    }
}
