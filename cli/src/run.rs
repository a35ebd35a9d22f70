//! `softmax run`: rows of one file to rows of another, block by block.

use std::io::{IsTerminal, stderr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use softmax::{Kernel, Masked, Op, Softmax, Threads};

use crate::dtype::{Dtype, Value, decode, encode, stored};
use crate::failure::Failure;
use crate::input::{Format, Input};
use crate::output::{self, Output};
use crate::tensor::Tensor;

/// Bytes computed and written at a time, unless a row is longer.
const BLOCK: usize = 16 << 20;

/// Computes the softmax of every row (the last axis, or another one) of the arrays in a file.
///
/// Memory holds a few blocks of some 16 MiB, or a few rows if they are longer, however large the
/// file is; along another axis than the last, all from that axis on. IN is mapped: do not change it meanwhile.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// A .npy or .safetensors file of f32, f64, f16 or bf16.
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The file to write, with the same extension. It appears when it is complete.
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Computes log-softmax.
    #[arg(long)]
    log: bool,
    /// The axis; negative ones count from the end.
    #[arg(long, value_name = "N", default_value_t = -1, allow_hyphen_values = true)]
    axis: isize,
    /// Divides every input by T.
    #[arg(long, value_name = "T", allow_hyphen_values = true, conflicts_with = "scale")]
    temperature: Option<f64>,
    /// Multiplies every input by S.
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    scale: Option<f64>,
    /// What a row becomes whose every entry is -inf.
    #[arg(long, value_enum, default_value_t = MaskedRow::Nan)]
    masked: MaskedRow,
    /// The type of OUT [default: that of IN]. Computed in the wider of the two, at least f32 if they differ.
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// The kernel to use (see `softmax info`) [default: SOFTMAX_KERNEL, or the fastest].
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// The number of threads [default: one for each CPU].
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// The one tensor of a .safetensors file to compute [default: all].
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// Prints the most likely column of the first N rows.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "axis")]
    show: usize,
    /// Prints which way the computation takes, and why.
    #[arg(long, short)]
    verbose: bool,
    /// Replaces OUT if it exists; it may be IN.
    #[arg(long)]
    force: bool,
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
    /// Does it all; gives the lines to print.
    pub fn run(&self) -> Result<Vec<String>, Failure> {
        let interrupted = catch_signals()?;
        let (softmax, kernel) = self.softmax()?;
        let format = Format::of(&self.input)?;
        if Format::of(&self.output)? != format {
            let cause = format!("the extension must be that of the input, {}", format.extension());
            return Err(Failure::new(self.output.display(), cause));
        }
        let target = output::target(&self.output, self.force)?;
        let input = Input::open(&self.input, self.tensor.as_deref())?;
        let dtype = |t: &Tensor| self.dtype.unwrap_or(t.dtype);
        for tensor in &input.tensors {
            tensor.along(self.axis).map_err(|e| Failure::new(self.input.display(), e))?;
        }
        let header = input.header(dtype).map_err(|e| Failure::new(self.output.display(), e))?;
        if let Some(n) = self.threads {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n.get());
            pool.build_global().map_err(|e| Failure::new("--threads", e))?;
        }

        let start = Instant::now();
        let mut work = Work {
            run: self,
            softmax,
            interrupted,
            several: input.tensors.len() > 1,
            progress: Progress::new(input.tensors.iter().map(|t| t.data.len()).sum()),
            output: Output::create(&self.output, target, self.force)?,
            written: header.len(),
            shown: Vec::new(),
        };
        work.output.write(&header)?;
        for tensor in &input.tensors {
            let (bytes, to) = (&input.bytes[tensor.data.clone()], dtype(tensor));
            match Dtype::between(tensor.dtype, to) {
                Dtype::F32 => work.tensor::<f32>(tensor, bytes, to)?,
                Dtype::F64 => work.tensor::<f64>(tensor, bytes, to)?,
                Dtype::F16 => work.tensor::<half::f16>(tensor, bytes, to)?,
                Dtype::Bf16 => work.tensor::<half::bf16>(tensor, bytes, to)?,
            }
        }
        work.output.finish()?;
        work.progress.finish();

        let seconds = start.elapsed().as_secs_f64();
        let moved = input.bytes.len() + work.written;
        let threads = if self.is_serial() { 1 } else { rayon::current_num_threads() };
        let summary = format!(
            "{}: {}, kernel {}, {threads} thread{}, {seconds:.2} s, {:.2} GB/s",
            self.output.display(),
            describe(&input.tensors, dtype),
            kernel.name(),
            if threads == 1 { "" } else { "s" },
            moved as f64 / 1e9 / seconds.max(1e-9),
        );
        work.shown.insert(0, summary);
        Ok(work.shown)
    }

    /// What to call, and the kernel that it will use.
    fn softmax(&self) -> Result<(Softmax, &'static Kernel), Failure> {
        let kernel = match &self.kernel {
            Some(name) => softmax::kernel(name).map_err(|e| Failure::new("--kernel", e))?,
            None => softmax::default_kernel().map_err(|e| Failure::new("SOFTMAX_KERNEL", e))?,
        };
        let mut softmax = Softmax::new().kernel(kernel).masked(match self.masked {
            MaskedRow::Nan => Masked::Nan,
            MaskedRow::Zero => Masked::Zero,
        });
        if let Some(t) = self.temperature {
            softmax = softmax.temperature(t).map_err(|e| Failure::new("--temperature", e))?;
        }
        if let Some(s) = self.scale {
            softmax = softmax.scale(s).map_err(|e| Failure::new("--scale", e))?;
        }
        if self.is_serial() {
            softmax = softmax.threads(Threads::Serial);
        }
        Ok((softmax, kernel))
    }

    fn is_serial(&self) -> bool {
        self.threads.is_some_and(|n| n.get() == 1)
    }
}

/// Everything that the blocks share.
struct Work<'a> {
    run: &'a Run,
    softmax: Softmax,
    interrupted: Arc<AtomicBool>,
    several: bool,
    progress: Progress,
    output: Output,
    written: usize,
    shown: Vec<String>,
}

impl Work<'_> {
    /// The softmax of the rows in `bytes`, computed as `C`, stored as `to`.
    fn tensor<C: Value>(
        &mut self,
        tensor: &Tensor,
        bytes: &[u8],
        to: Dtype,
    ) -> Result<(), Failure> {
        let size = tensor.dtype.size();
        if tensor.len() == 0 {
            return Ok(());
        }
        let input_fail = |e: String| Failure::new(self.run.input.display(), e);
        let (axis, inner) = tensor.along(self.run.axis).map_err(input_fail)?;
        // What cannot be cut: a row, or the matrix that has the axis and all behind it.
        let unit = axis * inner;
        let most = (BLOCK / size_of::<C>() / unit).clamp(1, tensor.len() / unit) * unit;
        if self.run.verbose {
            let rows = most / axis;
            self.explain::<C>(tensor, rows, axis).map_err(|e| input_fail(e.to_string()))?;
        }
        // The output, and what of the input and the output is not of the type C where it is.
        let mut y: Vec<C> = buffer(most).map_err(input_fail)?;
        let mut decoded: Vec<C> = Vec::new();
        let mut encoded: Vec<u8> = Vec::new();
        if to != C::DTYPE {
            encoded = buffer(most * to.size()).map_err(input_fail)?;
        }
        for (i, block) in bytes.chunks(most * size).enumerate() {
            let n = block.len() / size;
            let in_place =
                if tensor.dtype == C::DTYPE { bytemuck::try_cast_slice(block).ok() } else { None };
            let x: &[C] = match in_place {
                Some(x) => x,
                None => {
                    if decoded.is_empty() {
                        decoded = buffer(most).map_err(input_fail)?;
                    }
                    decode(tensor.dtype, block, &mut decoded[..n]);
                    &decoded[..n]
                }
            };
            let y = &mut y[..n];
            self.compute(x, y, [n / unit, axis, inner]).map_err(|e| input_fail(e.to_string()))?;
            self.show(tensor, i * (most / unit), y, to);
            let stored = if to == C::DTYPE {
                bytemuck::cast_slice(y)
            } else {
                let encoded = &mut encoded[..n * to.size()];
                encode(y, to, encoded);
                encoded
            };
            self.output.write(stored)?;
            self.written += stored.len();
            self.progress.add(block.len());
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Failure::new(self.run.output.display(), "interrupted"));
            }
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
        let op = if self.run.log { Op::LogSoftmax } else { Op::Softmax };
        let plan = self.softmax.plan::<C>(op, rows, cols, false)?;
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
        if self.run.log {
            self.softmax.log_softmax_axis(x, y, &shape, 1)
        } else {
            self.softmax.softmax_axis(x, y, &shape, 1)
        }
    }

    /// Notes the most likely columns of those of the first rows that are in this block.
    fn show<C: Value>(&mut self, tensor: &Tensor, first: usize, y: &[C], to: Dtype) {
        let name = tensor.name.as_deref().filter(|_| self.several);
        let name = name.map(|n| format!("{n}: ")).unwrap_or_default();
        let p = if self.run.log { "log p" } else { "p" };
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

/// A buffer of `len` zeros, or a message if there is no memory for it.
fn buffer<T: bytemuck::Zeroable + Clone>(len: usize) -> Result<Vec<T>, String> {
    let mut buffer = Vec::new();
    let bytes = len.saturating_mul(size_of::<T>());
    buffer.try_reserve_exact(len).map_err(|_| format!("no memory for a block of {bytes} bytes"))?;
    buffer.resize(len, T::zeroed());
    Ok(buffer)
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

/// A flag that Ctrl-C and its like set, so that the temporary file is removed before the program ends; a second one ends it.
fn catch_signals() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
        use signal_hook::flag::{register, register_conditional_default};
        let catch = || {
            for signal in [SIGINT, SIGTERM, SIGHUP] {
                register_conditional_default(signal, flag.clone())?;
                register(signal, flag.clone())?;
            }
            // A file-size limit then is an error of the write rather than the end of the program.
            register(SIGXFSZ, Arc::default())
        };
        catch().map_err(|e| Failure::new("signals", e))?;
    }
    Ok(flag)
}

/// A bar on a terminal, once the work has lasted a second.
struct Progress {
    bar: ProgressBar,
    started: Instant,
}

impl Progress {
    fn new(bytes: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(bytes as u64), ProgressDrawTarget::hidden());
        let template = "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, started: Instant::now() }
    }

    fn add(&self, bytes: usize) {
        let due = self.bar.is_hidden() && self.started.elapsed() > Duration::from_secs(1);
        if due && stderr().is_terminal() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.inc(bytes as u64);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    /// An error's line is not printed into the bar.
    fn drop(&mut self) {
        self.finish();
    }
}
