//! `softmax topk`: the most likely columns of rows.

use std::path::PathBuf;

use serde_json::json;
use softmax::{Element, Matrix};

use crate::chunks::{Chunks, Scaling, Source, Walk, scaled, with_type};
use crate::dtype::Value;
use crate::failure::Failure;
use crate::input::Format;
use crate::memory::buffer;
use crate::npy;
use crate::output::{Output, Target, check_distinct};
use crate::stdout::Stdout;

/// Finds the K most likely columns of every row (the last axis), the most likely first, and their
/// probabilities in the whole row.
///
/// Of equals the first comes first. Rows with NaN or +inf have NaN for all probabilities.
#[derive(Debug, clap::Args)]
pub struct TopK {
    #[command(flatten)]
    pub source: Source,
    /// How many columns [default: 5, or all if there are fewer].
    #[arg(short, value_name = "K")]
    k: Option<usize>,
    #[command(flatten)]
    scaling: Scaling,
    /// Prints the first N rows; 0 prints all.
    #[arg(long, value_name = "N", default_value_t = 10, conflicts_with = "json")]
    show: usize,
    /// Writes the columns to this .npy file, of i64, in the shape of LOGITS with a last axis of K.
    #[arg(long, value_name = "OUT")]
    indices: Option<PathBuf>,
    /// Writes the log-probabilities to this .npy file, of f32 (f64 if LOGITS is), in that shape.
    #[arg(long, value_name = "OUT")]
    log_probs: Option<PathBuf>,
    /// Replaces output files that exist. Their permissions stay.
    #[arg(long)]
    force: bool,
    /// Prints one JSON array with an object for every row. NaN is null; so is the logarithm of a
    /// probability that is 0.
    #[arg(long)]
    json: bool,
}

impl TopK {
    /// Runs the subcommand.
    pub fn run(&self) -> Result<(), Failure> {
        let walk = Walk::new(true, false);
        self.scaling.check_finite()?;
        let exec = self.source.exec()?;
        let indices = Target::wanted(self.indices.as_deref(), Format::Npy, self.force)?;
        let log_probs = Target::wanted(self.log_probs.as_deref(), Format::Npy, self.force)?;
        check_distinct([&indices, &log_probs].into_iter().flatten())?;
        let input = self.source.open_one()?;
        let tensor = &input.tensors[0];
        let (rows, cols) = (tensor.rows, tensor.cols);
        let k = self.k.unwrap_or(cols.min(5));
        if k == 0 || k > cols {
            let cause = format!("k must be in 1..={cols}, the columns of a row, got {k}");
            return Err(self.source.failed(cause));
        }
        let shape = [tensor.outer(), &[k]].concat();
        let all = self.json || self.show == 0 || self.indices.is_some() || self.log_probs.is_some();
        // Rows that will not be shown are not computed.
        let seen = if all { rows } else { rows.min(self.show) };
        let start = tensor.data.start;
        let bytes = start..start + seen * cols * tensor.stored.size();

        with_type!(tensor.dtype, C => {
            let descr = npy::descr(<C as Element>::Arithmetic::DTYPE).map_err(|e| self.source.failed(e))?;
            let files = [
                indices.map(|t| t.create_npy(&shape, npy::I64)).transpose()?,
                log_probs.map(|t| t.create_npy(&shape, descr)).transpose()?,
            ];
            let top_k = scaled!(self.scaling, softmax::TopK::new(k)).exec(exec);
            let mut work = Work { run: self, top_k, cols, k, files, stdout: Stdout::new() };
            let beside = k.saturating_mul(3 * size_of::<usize>());
            let (source, file, stored) = (&self.source, &input.file, tensor.stored);
            work.compute(walk.chunks::<C>(source, file, stored, bytes, cols, beside))?;
            let Work { files, mut stdout, .. } = work;
            if self.json {
                stdout.end_of_items()?;
            } else if self.show > 0 && rows > self.show {
                stdout.line(&format!("{} rows more; --show 0 prints all", rows - self.show))?;
            }
            files.into_iter().flatten().try_for_each(|file| file.finish().map(drop))?;
            stdout.finish()
        })
    }
}

/// What all chunks share.
struct Work<'a> {
    run: &'a TopK,
    top_k: softmax::TopK<'static>,
    cols: usize,
    k: usize,
    /// The files of indices and of log-probabilities.
    files: [Option<Output>; 2],
    stdout: Stdout,
}

impl Work<'_> {
    fn compute<C: Value<Arithmetic: Value>>(
        &mut self,
        mut chunks: Chunks<C>,
    ) -> Result<(), Failure> {
        let (source, k) = (&self.run.source, self.k);
        let most = chunks.most_units().saturating_mul(k);
        let mut indices = buffer(most).map_err(|e| source.failed(e))?;
        let mut log_probs: Vec<C::Arithmetic> = buffer(most).map_err(|e| source.failed(e))?;
        let mut probs: Vec<C::Arithmetic> = buffer(most).map_err(|e| source.failed(e))?;
        if !self.run.json {
            self.stdout.line("     row   column         p       log p")?;
        }
        while let Some((first, x)) = chunks.advance()? {
            let logits = Matrix::new(x, self.cols).map_err(|e| source.failed(e))?;
            let n = logits.rows() * k;
            let (indices, log_probs) = (&mut indices[..n], &mut log_probs[..n]);
            let probs = &mut probs[..n];
            let done = self.top_k.log_probs_and_probs(logits, log_probs, probs, indices);
            done.map_err(|e| source.failed(e))?;
            let [indices_file, log_probs_file] = &mut self.files;
            if let Some(file) = indices_file {
                let numbers: Vec<_> = indices.iter().map(|&i| i as i64).collect();
                file.write(bytemuck::cast_slice(&numbers))?;
            }
            if let Some(file) = log_probs_file {
                file.write(bytemuck::cast_slice(log_probs))?;
            }
            let rows = indices.chunks(k).zip(log_probs.chunks(k)).zip(probs.chunks(k));
            for (i, ((indices, log_probs), probs)) in rows.enumerate() {
                self.show(first + i, indices, log_probs, probs)?;
            }
            if self.stdout.is_gone() && self.files.iter().all(Option::is_none) {
                break;
            }
        }
        Ok(())
    }

    fn show<A: Element>(
        &mut self,
        row: usize,
        indices: &[usize],
        log_probs: &[A],
        probs: &[A],
    ) -> Result<(), Failure> {
        if self.run.json {
            let [log_probs, probs] =
                [log_probs, probs].map(|v| v.iter().map(|v| v.to_f64()).collect::<Vec<_>>());
            return self.stdout.item(
                &json!({ "row": row, "indices": indices, "log_probs": log_probs, "probs": probs }),
            );
        }
        if self.run.show > 0 && row >= self.run.show {
            return Ok(());
        }
        for ((column, log_p), p) in indices.iter().zip(log_probs).zip(probs) {
            let (p, log_p) = (p.to_f64(), log_p.to_f64());
            self.stdout.line(&format!("{row:8} {column:8} {p:9.4} {log_p:11.4}"))?;
        }
        Ok(())
    }
}
