//! `softmax argmax` and `softmax sample`: one or several columns for each row.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::value_parser;
use serde_json::json;
use softmax::{Error, Hardmax, Matrix, Method, Order, Sampler};

use crate::chunks::{Moved, Source, Walk, with_type};
use crate::dtype::Value;
use crate::failure::Failure;
use crate::input::Format;
use crate::memory::buffer;
use crate::npy;
use crate::output::{Output, Target};
use crate::stdout::{self, Stdout};
use crate::tensor::shape_text;

/// Finds the column of the largest element of every row (the last axis): the first of equals, or
/// the row's first NaN.
#[derive(Debug, clap::Args)]
pub struct Argmax {
    #[command(flatten)]
    pub source: Source,
    #[command(flatten)]
    columns: Columns,
}

impl Argmax {
    /// Runs the subcommand.
    pub fn run(&self) -> Result<(), Failure> {
        self.columns.run(&self.source, None, &By::Largest(Hardmax::new().exec(self.source.exec()?)))
    }
}

/// Draws a column, or some, from every row (the last axis), by the probabilities that are its
/// softmax.
///
/// A draw depends on its row, the options, the seed, the step and the numbers of row and draw
/// alone: not on the CPU, the kernel or the number of threads. -1 stands for rows with nothing to
/// draw: with NaN or +inf, or with nothing but -inf.
#[derive(Debug, clap::Args)]
pub struct Sample {
    #[command(flatten)]
    pub source: Source,
    #[command(flatten)]
    columns: Columns,
    /// The seed of the random numbers.
    #[arg(long, value_name = "S")]
    seed: u64,
    /// Draws N columns from each row; they are the last axis of OUT.
    #[arg(long, value_name = "N")]
    draws: Option<NonZeroUsize>,
    /// The position in the sequence: another step, other draws.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = value_parser!(u64).range(..1 << 48))]
    step: u64,
    /// Divides every input by T; 0 takes the largest.
    #[arg(long, value_name = "T", default_value_t = 1.0, allow_hyphen_values = true)]
    temperature: f64,
    /// Keeps the K most likely columns; 0 keeps all.
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Keeps the fewest of the most likely columns that have P of the probability together.
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_hyphen_values = true)]
    top_p: f64,
    /// Keeps the columns that are at least P times as likely as the most likely one.
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_hyphen_values = true)]
    min_p: f64,
    /// Keeps the fewest columns of the most typical information that have P of the probability
    /// together.
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_hyphen_values = true)]
    typical_p: f64,
    /// The order of filters and temperature.
    #[arg(long, value_enum, default_value_t = Filters::Transformers)]
    order: Filters,
    /// Draws the column with the largest sum of log-probability and Gumbel noise: a column keeps
    /// its noise when the logits of others change.
    #[arg(long)]
    gumbel: bool,
}

/// [`Order`] on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Filters {
    /// Temperature, top-k, top-p, min-p, typical-p
    Transformers,
    /// Top-k, typical-p, top-p, min-p, and then the temperature
    LlamaCpp,
}

impl Sample {
    /// Runs the subcommand.
    pub fn run(&self) -> Result<(), Failure> {
        let plain = Sampler::new(self.seed);
        for (option, sampler) in [
            ("--temperature", plain.temperature(self.temperature)),
            ("--top-p", plain.top_p(self.top_p)),
            ("--min-p", plain.min_p(self.min_p)),
            ("--typical-p", plain.typical_p(self.typical_p)),
        ] {
            // A draw from an empty matrix tells whether all numbers are in their ranges.
            let done = Matrix::<f32>::new(&[], 1);
            let done = done.and_then(|nothing| sampler.sample(nothing, &mut []));
            done.map_err(|e| Failure::new(option, e))?;
        }
        let sampler = plain
            .exec(self.source.exec()?)
            .step(self.step)
            .temperature(self.temperature)
            .top_k(self.top_k)
            .top_p(self.top_p)
            .min_p(self.min_p)
            .typical_p(self.typical_p)
            .order(match self.order {
                Filters::Transformers => Order::Transformers,
                Filters::LlamaCpp => Order::LlamaCpp,
            })
            .method(if self.gumbel { Method::GumbelMax } else { Method::InverseCdf });
        self.columns.run(&self.source, self.draws.map(NonZeroUsize::get), &By::Draw(sampler))
    }
}

/// Where columns are written: to a file, or to standard output.
#[derive(Debug, clap::Args)]
struct Columns {
    /// An .npy file to write, of i64, in the shape of LOGITS without its last axis [default: prints
    /// a line for each row].
    #[arg(value_name = "OUT")]
    output: Option<PathBuf>,
    /// Replaces OUT if it exists. Its permissions stay.
    #[arg(long)]
    force: bool,
    /// Prints one JSON array, or with OUT one JSON object about it.
    #[arg(long)]
    json: bool,
    /// Prints nothing about OUT.
    #[arg(long, short, requires = "output", conflicts_with = "json")]
    quiet: bool,
}

/// How columns are chosen.
#[allow(clippy::large_enum_variant)] // There is one of it.
enum By {
    Largest(Hardmax<'static>),
    Draw(Sampler<'static>),
}

impl By {
    /// Chooses columns of some rows, of which the first is number `first`.
    fn choose<C: Value>(
        &self,
        first: usize,
        logits: Matrix<C>,
        columns: &mut [usize],
    ) -> Result<(), Error> {
        match self {
            Self::Largest(hardmax) => hardmax.argmax(logits, columns),
            Self::Draw(sampler) => sampler.first_row(first as u64).sample(logits, columns),
        }
    }
}

impl Columns {
    /// Chooses `each` columns of each row, which become an axis of the result, or one, which does
    /// not.
    fn run(&self, source: &Source, each: Option<usize>, by: &By) -> Result<(), Failure> {
        let walk = Walk::new(self.output.is_none(), self.quiet);
        let target = Target::wanted(self.output.as_deref(), Format::Npy, self.force)?;
        let input = source.open_one()?;
        let tensor = &input.tensors[0];
        let shape = [tensor.outer(), each.as_slice()].concat();
        let mut sink = match target {
            Some(target) => Sink::File(target.create_npy(&shape, npy::I64)?),
            None if self.json => Sink::Json(Stdout::new()),
            None => Sink::Lines(Stdout::new()),
        };
        let (cols, n) = (tensor.cols, each.unwrap_or(1));
        with_type!(tensor.dtype, C => {
            let beside = n.saturating_mul(size_of::<usize>());
            let (file, stored, bytes) = (&input.file, tensor.stored, tensor.data.clone());
            let mut chunks = walk.chunks::<C>(source, file, stored, bytes, cols, beside);
            let most = chunks.most_units().saturating_mul(n);
            let mut columns = buffer(most).map_err(|e| source.failed(e))?;
            while let Some((first, x)) = chunks.advance()? {
                let logits = Matrix::new(x, cols).map_err(|e| source.failed(e))?;
                let columns = &mut columns[..logits.rows() * n];
                by.choose(first, logits, columns).map_err(|e| source.failed(e))?;
                if !sink.write(columns, each)? {
                    break;
                }
            }
        });
        match sink {
            Sink::File(output) => {
                let path = self.output.as_deref().unwrap_or(Path::new(""));
                let bytes = tensor.data.len() + output.finish()?;
                if self.quiet {
                    walk.finish(source);
                    return Ok(());
                }
                let (moved, kernel) = (Moved { path, bytes }, source.kernel()?);
                if self.json {
                    let mut summary = walk.summary_json(moved, kernel, source);
                    summary["shape"] = json!(shape);
                    summary["dtype"] = json!("i64");
                    return stdout::print_json(&summary);
                }
                let what = format!("{} i64", shape_text(&shape));
                stdout::print(&[walk.summary(moved, &what, kernel, source)])
            }
            Sink::Lines(stdout) => stdout.finish(),
            Sink::Json(mut stdout) => {
                stdout.end_of_items()?;
                stdout.finish()
            }
        }
    }
}

/// See [`Columns`].
enum Sink {
    File(Output),
    Lines(Stdout),
    Json(Stdout),
}

impl Sink {
    /// Writes the columns of some rows. Returns whether more are wanted.
    fn write(&mut self, columns: &[usize], each: Option<usize>) -> Result<bool, Failure> {
        // Rows without a column get -1.
        let number = |&column: &usize| i64::try_from(column).unwrap_or(-1);
        let rows = columns.chunks(each.unwrap_or(1));
        match self {
            Self::File(output) => {
                let numbers: Vec<_> = columns.iter().map(number).collect();
                output.write(bytemuck::cast_slice(&numbers))?;
                Ok(true)
            }
            Self::Lines(stdout) => {
                for row in rows {
                    let numbers: Vec<_> = row.iter().map(|c| number(c).to_string()).collect();
                    stdout.line(&numbers.join(" "))?;
                }
                Ok(!stdout.is_gone())
            }
            Self::Json(stdout) => {
                for row in rows {
                    let numbers: Vec<_> = row.iter().map(number).collect();
                    match (each, &*numbers) {
                        (None, [number]) => stdout.item(&json!(number))?,
                        _ => stdout.item(&json!(numbers))?,
                    }
                }
                Ok(!stdout.is_gone())
            }
        }
    }
}
