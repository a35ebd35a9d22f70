//! The way through a file, which all subcommands go: from its start to its end, block by block.

use std::fmt::Display;
use std::io::{IsTerminal, stderr, stdout};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value as Json, json};
use softmax::{Exec, Kernel, Softmax, Threads, internal};

use crate::dtype::Value;
use crate::failure::{Failure, list};
use crate::input::{Contents, Format, Input, is_standard};
use crate::memory::buffer;
use crate::stored::Stored;
use crate::writer::Sink;

/// Bytes computed at a time for each thread, unless a row is longer: what was read into a core's
/// cache is computed and written from there. A gigabyte of rows of 1,024 (two threads, in the page
/// cache) took 0.27 s of the CPUs, with 16 MiB for both 0.31 s.
const EACH: usize = 2 << 20;

/// Most bytes computed at a time, unless a row is longer.
const BLOCK: usize = 64 << 20;

/// Bytes read or written between two steps of the bar.
const STEP: usize = 16 << 20;

/// The body with `$c` as the type of the elements.
macro_rules! with_type {
    ($dtype:expr, $c:ident => $body:expr) => {
        match $dtype {
            $crate::dtype::Dtype::F32 => {
                type $c = f32;
                $body
            }
            $crate::dtype::Dtype::F64 => {
                type $c = f64;
                $body
            }
            $crate::dtype::Dtype::F16 => {
                type $c = half::f16;
                $body
            }
            $crate::dtype::Dtype::Bf16 => {
                type $c = half::bf16;
                $body
            }
        }
    };
}
pub(crate) use with_type;

/// What is read, and who computes.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// A file of f32, f64, f16 or bf16 (.npy, .npz, .safetensors) or of text (.csv, .tsv, .txt), or
    /// - for standard input. Integers and text are read as f64.
    #[arg(value_name = "LOGITS")]
    pub path: PathBuf,
    #[command(flatten)]
    pub reading: Reading,
}

/// How it is read, and who computes.
#[derive(Clone, Debug, clap::Args)]
pub struct Reading {
    /// The format of files whose names do not tell, of standard output [default: text], and of text
    /// from standard input. What begins as another format is of that.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// The one tensor of a .safetensors or .npz file to use.
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// The kernel to use (see `softmax info`) [default: SOFTMAX_KERNEL, or the fastest].
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// The number of threads, at most 4 for each CPU [default: one for each CPU].
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
}

/// What the logits are multiplied by.
#[derive(Debug, clap::Args)]
pub struct Scaling {
    /// Divides every input by T.
    #[arg(long, value_name = "T", allow_hyphen_values = true, conflicts_with = "scale")]
    pub temperature: Option<f64>,
    /// Multiplies every input by S.
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    pub scale: Option<f64>,
}

impl Source {
    /// Opens the file.
    pub fn open(&self) -> Result<Input, Failure> {
        let input = Input::open(&self.path, self.reading.tensor.as_deref(), self.reading.format)?;
        input.check_any()?;
        Ok(input)
    }

    /// As [`Source::open`], of a file with one tensor, or one chosen, whose rows have columns.
    pub fn open_one(&self) -> Result<Input, Failure> {
        let mut input = self.open()?;
        // Nothing is done with them.
        input.others.clear();
        let cause = match &*input.tensors {
            [t] if t.rows == 0 || t.cols > 0 => return Ok(input),
            [t] => format!("the rows of {} have no columns", t.shape_text()),
            [] => "there are no tensors".into(),
            tensors => {
                let names = list(tensors.iter().map(|t| t.name.as_deref().unwrap_or_default()));
                format!("choose one tensor with --tensor; there is {names}")
            }
        };
        Err(self.failed(cause))
    }

    /// The kernel that computes.
    pub fn kernel(&self) -> Result<&'static Kernel, Failure> {
        match &self.reading.kernel {
            Some(name) => softmax::kernel(name).map_err(|e| Failure::new("--kernel", e)),
            None => softmax::default_kernel().map_err(|e| Failure::new("SOFTMAX_KERNEL", e)),
        }
    }

    /// How many threads calls may use.
    pub fn threads(&self) -> Threads {
        match self.reading.threads {
            Some(NonZeroUsize::MIN) => Threads::Serial,
            _ => Threads::Auto,
        }
    }

    /// Where the library computes.
    pub fn exec(&self) -> Result<Exec<'static>, Failure> {
        Ok(Exec::new().kernel(self.kernel()?).threads(self.threads()))
    }

    /// What is wrong with the file.
    pub fn failed(&self, cause: impl Display) -> Failure {
        if is_standard(&self.path) {
            return Failure::new("standard input", cause);
        }
        Failure::new(self.path.display(), cause)
    }
}

/// An operation with this scale or temperature.
macro_rules! scaled {
    ($scaling:expr, $operation:expr) => {{
        let operation = $operation;
        match ($scaling.temperature, $scaling.scale) {
            (Some(t), _) => operation.temperature(t),
            (None, Some(scale)) => operation.scale(scale),
            (None, None) => operation,
        }
    }};
}
pub(crate) use scaled;

impl Scaling {
    /// Refuses what is out of range.
    pub fn check(&self) -> Result<(), Failure> {
        let option = if self.temperature.is_some() { "--temperature" } else { "--scale" };
        let softmax = scaled!(self, Softmax::new());
        internal::check(&softmax).map_err(|e| Failure::new(option, e))
    }

    /// Whether the temperature is 0 or infinite.
    pub fn is_limit(&self) -> bool {
        matches!(self.temperature, Some(0.0 | f64::INFINITY))
    }

    /// As [`Scaling::check`], for what has no meaning at temperatures 0 and infinity.
    pub fn check_finite(&self) -> Result<(), Failure> {
        if let Some(t @ (0.0 | f64::INFINITY)) = self.temperature {
            let cause = format!("the temperature must be above 0 and finite here, got {t}");
            return Err(Failure::new("--temperature", cause));
        }
        self.check()
    }
}

/// A run over a file.
pub struct Walk {
    progress: Progress,
}

/// Bytes, and what was done to them.
#[derive(Clone, Copy)]
pub struct Moved<'a> {
    /// Where the results are.
    pub path: &'a Path,
    /// Read and written.
    pub bytes: usize,
}

impl Walk {
    /// Begins a run. Its progress is shown unless it would be drawn into what is `printed` on the
    /// same terminal, or nothing is to be shown.
    pub fn new(printed: bool, quiet: bool) -> Self {
        Self { progress: Progress::new(!quiet && (!printed || !stdout().is_terminal())) }
    }

    /// The elements of a tensor whose bytes these are in a file, as `C`, some units at a time: so
    /// many elements belong together, and `beside` bytes are needed for the results of a unit, if
    /// they are more than the unit itself.
    pub fn blocks<'a, C: Value>(
        &'a self,
        source: &'a Source,
        file: &'a Contents,
        stored: Stored,
        bytes: Range<usize>,
        unit: usize,
        beside: usize,
    ) -> Blocks<'a, C> {
        // There is something in a unit even if there is nothing in the tensor.
        let unit = unit.max(1);
        let units = bytes.len() / stored.size() / unit;
        let each = beside.max(unit.saturating_mul(size_of::<C>()));
        let block = EACH.saturating_mul(rayon::current_num_threads()).min(BLOCK);
        let most = (block / each).max(1).min(units) * unit;
        self.expect(bytes.len());
        let (block, raw) = (Vec::new(), Vec::new());
        Blocks { walk: self, source, file, stored, rest: bytes, unit, most, block, raw, next: 0 }
    }

    /// So many bytes more will be read or written.
    pub fn expect(&self, bytes: usize) {
        self.progress.bar.inc_length(bytes as u64);
    }

    /// Writes the results of a block, a part of it at a time.
    pub fn write(&self, output: &mut Sink, bytes: &[u8]) -> Result<(), Failure> {
        bytes.chunks(STEP).try_for_each(|part| {
            output.write(part)?;
            self.progress.add(part.len());
            Ok(())
        })
    }

    /// Copies bytes as they are.
    pub fn copy(
        &self,
        file: &Contents,
        bytes: Range<usize>,
        output: &mut Sink,
    ) -> Result<(), Failure> {
        let mut part = vec![0; STEP.min(bytes.len())];
        for start in bytes.clone().step_by(STEP) {
            let part = &mut part[..STEP.min(bytes.end - start)];
            file.read(start, part)?;
            self.progress.add(part.len());
            self.write(output, part)?;
        }
        Ok(())
    }

    /// What was done to how many bytes, and by whom, in how much time: for people.
    pub fn summary(&self, moved: Moved, what: &str, kernel: &Kernel, source: &Source) -> String {
        let (seconds, threads) = self.finish(source);
        format!(
            "{}: {what}, kernel {}, {threads} thread{}, {seconds:.2} s, {:.2} GB/s",
            moved.path.display(),
            kernel.name(),
            if threads == 1 { "" } else { "s" },
            moved.bytes as f64 / 1e9 / seconds.max(1e-9),
        )
    }

    /// As [`Walk::summary`], for programs.
    pub fn summary_json(&self, moved: Moved, kernel: &Kernel, source: &Source) -> Json {
        let (seconds, threads) = self.finish(source);
        json!({
            "output": moved.path.to_string_lossy(), "bytes": moved.bytes, "kernel": kernel.name(),
            "threads": threads, "seconds": seconds,
        })
    }

    /// Seconds and threads.
    pub fn finish(&self, source: &Source) -> (f64, usize) {
        self.progress.finish();
        let threads = match source.threads() {
            Threads::Serial => 1,
            _ => rayon::current_num_threads(),
        };
        (self.progress.started.elapsed().as_secs_f64(), threads)
    }
}

/// See [`Walk::blocks`].
pub struct Blocks<'a, C> {
    walk: &'a Walk,
    source: &'a Source,
    file: &'a Contents,
    stored: Stored,
    /// The bytes that are still to be read.
    rest: Range<usize>,
    unit: usize,
    most: usize,
    block: Vec<C>,
    /// What is read, if it is not of the type `C`.
    raw: Vec<u8>,
    /// The number of the next block's first unit.
    next: usize,
}

impl<C: Value> Blocks<'_, C> {
    /// The most elements of a block.
    pub fn most(&self) -> usize {
        self.most
    }

    /// The most units of a block.
    pub fn most_units(&self) -> usize {
        self.most / self.unit
    }

    /// The next block, and the number of its first unit. The block may be written to: it is a copy.
    pub fn advance(&mut self) -> Result<Option<(usize, &mut [C])>, Failure> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let size = self.stored.size();
        let n = self.most.min(self.rest.len() / size);
        if self.block.is_empty() {
            self.block = buffer(self.most).map_err(|e| self.source.failed(e))?;
        }
        let block = &mut self.block[..n];
        let start = self.rest.start;
        self.rest.start += n * size;
        let progress = &self.walk.progress;
        if self.stored.plain() == Some(C::DTYPE) {
            read(self.file, start, bytemuck::cast_slice_mut(block), progress)?;
        } else {
            if self.raw.is_empty() {
                self.raw = buffer(self.most * size).map_err(|e| self.source.failed(e))?;
            }
            let raw = &mut self.raw[..n * size];
            read(self.file, start, raw, progress)?;
            self.stored.decode(raw, block);
        }
        let first = self.next;
        self.next += n / self.unit;
        Ok(Some((first, block)))
    }
}

/// Reads a block, a part of it at a time.
fn read(
    file: &Contents,
    start: usize,
    block: &mut [u8],
    progress: &Progress,
) -> Result<(), Failure> {
    block.chunks_mut(STEP).enumerate().try_for_each(|(i, part)| {
        file.read(start + i * STEP, part)?;
        progress.add(part.len());
        Ok(())
    })
}

/// A bar on a terminal, once the work has lasted a second.
struct Progress {
    bar: ProgressBar,
    started: Instant,
    shown: bool,
}

impl Progress {
    fn new(shown: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        let template = "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, started: Instant::now(), shown: shown && stderr().is_terminal() }
    }

    /// So many more are done.
    fn add(&self, bytes: usize) {
        self.bar.inc(bytes as u64);
        let due = self.bar.is_hidden() && self.started.elapsed() > Duration::from_secs(1);
        if due && self.shown {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
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
