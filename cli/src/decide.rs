//! `softmax argmax` and `softmax sample`: one number for each row, or some.

use std::path::{Path, PathBuf};

use serde_json::json;
use softmax::{Error, Matrix, Softmax};

use crate::blocks::{Source, Walk, buffer, with_type};
use crate::dtype::Value;
use crate::failure::Failure;
use crate::input::Format;
use crate::npy;
use crate::output::{Output, Target};
use crate::stdout::{self, Stdout};
use crate::tensor::shape_text;

/// Finds the column of the largest element of every row (the last axis): the first of equals, or the row's first NaN.
#[derive(Debug, clap::Args)]
pub struct Argmax {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    columns: Columns,
}

impl Argmax {
    /// Does it all.
    pub fn run(&self) -> Result<(), Failure> {
        self.columns.run(&self.source, None, &By::Largest(self.source.options()?))
    }
}

/// Where columns go: to a file, or to standard output.
#[derive(Debug, clap::Args)]
struct Columns {
    /// An .npy file to write, of i64, in the shape of LOGITS without its last axis [default: prints a line for each row].
    #[arg(value_name = "OUT")]
    output: Option<PathBuf>,
    /// Replaces OUT if it exists.
    #[arg(long)]
    force: bool,
    /// Prints one JSON array.
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

/// How columns are chosen.
enum By {
    Largest(Softmax),
}

impl By {
    /// Chooses from some rows, of which the first is number `first`.
    fn choose<C: Value>(
        &self,
        _first: usize,
        logits: Matrix<C>,
        columns: &mut [usize],
    ) -> Result<(), Error> {
        match self {
            Self::Largest(options) => options.argmax(logits, columns),
        }
    }
}

impl Columns {
    /// Chooses `each` columns of each row, which are an axis of the result, or one, which is none.
    fn run(&self, source: &Source, each: Option<usize>, by: &By) -> Result<(), Failure> {
        let walk = Walk::new(self.output.as_deref().unwrap_or(&source.path))?;
        let target = Target::wanted(self.output.as_deref(), Format::Npy, self.force)?;
        let input = source.open_one()?;
        let tensor = &input.tensors[0];
        let bytes = &input.bytes[tensor.data.clone()];
        let shape = [tensor.outer(), each.as_slice()].concat();
        let mut sink = match target {
            Some(target) => Sink::File(target.create_npy(&shape, npy::I64)?),
            None if self.json => Sink::Json(Stdout::new()),
            None => Sink::Lines(Stdout::new()),
        };
        let (cols, n) = (tensor.cols, each.unwrap_or(1));
        with_type!(tensor.dtype, C => {
            let beside = n.saturating_mul(size_of::<usize>());
            let mut blocks = walk.blocks::<C>(source, tensor.dtype, bytes, cols, beside);
            let most = blocks.most_units().saturating_mul(n);
            let mut columns = buffer(most).map_err(|e| source.failed(e))?;
            while let Some((first, x)) = blocks.advance()? {
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
                let (path, what) =
                    (self.output.as_deref().unwrap_or(Path::new("")), shape_text(&shape));
                let moved = bytes.len() + output.finish()?;
                let what = format!("{what} i64");
                stdout::print(&[walk.summary(path, &what, source.kernel()?, source, moved)])
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
    /// Takes the columns of some rows; gives whether more are wanted.
    fn write(&mut self, columns: &[usize], each: Option<usize>) -> Result<bool, Failure> {
        // What is no column is -1.
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
