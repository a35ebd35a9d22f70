//! The walk through a file that all subcommands do: from start to end, chunk by chunk.

use std::fmt::Display;
use std::io::{IsTerminal, stderr, stdout};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value as Json, json};
use softmax::{Exec, Kernel, Softmax, Threads, internal};

use crate::dtype::{Dtype, Value, encode};
use crate::failure::{Failure, list};
use crate::input::{Contents, Format, Input, is_standard};
use crate::memory::buffer;
use crate::stored::Stored;
use crate::writer::Sink;

/// Bytes computed at a time for each thread, unless a row is longer. Little enough to be computed
/// and written from a core's cache: a gigabyte of rows of 1,024 (two threads, in the page cache)
/// took 0.27 s of CPU time, and 0.31 s with 16 MiB for both threads together.
const BYTES_PER_THREAD: usize = 2 << 20;

/// The most bytes computed at a time, unless a row is longer.
const MOST_BYTES: usize = 64 << 20;

/// Bytes read or written between two updates of the bar.
const STEP: usize = 16 << 20;

/// Evaluates the body with `$c` as the type of the elements.
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

/// The input, and how it is computed.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// A file of f32, f64, f16 or bf16 (.npy, .npz, .safetensors) or of text (.csv, .tsv, .txt), or
    /// - for standard input. Integers and text are read as f64.
    #[arg(value_name = "LOGITS")]
    pub path: PathBuf,
    #[command(flatten)]
    pub reading: Reading,
}

/// How input is read, and what computes.
#[derive(Clone, Debug, clap::Args)]
pub struct Reading {
    /// The format of files whose names do not tell it, of standard output [default: text], and of
    /// text from standard input. Standard input in another format is recognised.
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

/// The factor of the logits.
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

    /// As [`Source::open`], for a file with one tensor, or a chosen one, whose rows have columns.
    pub fn open_one(&self) -> Result<Input, Failure> {
        let mut input = self.open()?;
        // Other contents are not used.
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

    /// The threads that calls may use.
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

    /// A failure about the file.
    pub fn failed(&self, cause: impl Display) -> Failure {
        if is_standard(&self.path) {
            return Failure::new("standard input", cause);
        }
        Failure::new(self.path.display(), cause)
    }
}

/// An operation with the given scale or temperature.
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
    /// Refuses values that are out of range.
    pub fn check(&self) -> Result<(), Failure> {
        let option = if self.temperature.is_some() { "--temperature" } else { "--scale" };
        let softmax = scaled!(self, Softmax::new());
        internal::check(&softmax).map_err(|e| Failure::new(option, e))
    }

    /// Whether the temperature is 0 or infinite.
    pub fn is_limit(&self) -> bool {
        matches!(self.temperature, Some(0.0 | f64::INFINITY))
    }

    /// As [`Scaling::check`], for operations without a meaning at temperatures 0 and infinity.
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

/// Bytes that were read and written, and where the results are.
#[derive(Clone, Copy)]
pub struct Moved<'a> {
    /// Where the results are.
    pub path: &'a Path,
    /// Bytes read and written.
    pub bytes: usize,
}

impl Walk {
    /// Begins a run. It shows its progress, unless `quiet` or if the bar would be drawn into what
    /// is `printed` to the same terminal.
    pub fn new(printed: bool, quiet: bool) -> Self {
        Self { progress: Progress::new(!quiet && (!printed || !stdout().is_terminal())) }
    }

    /// Reads a tensor's elements as `C`, chunk by chunk. `bytes` is their place in the file. A
    /// chunk is whole units of `unit` elements each, which are computed together. The results of a
    /// unit need `beside` bytes if that is more than the unit itself.
    pub fn chunks<'a, C: Value>(
        &'a self,
        source: &'a Source,
        file: &'a Contents,
        stored: Stored,
        bytes: Range<usize>,
        unit: usize,
        beside: usize,
    ) -> Chunks<'a, C> {
        // Empty tensors may have empty units.
        let unit = unit.max(1);
        let units = bytes.len() / stored.size() / unit;
        let each = beside.max(unit.saturating_mul(size_of::<C>()));
        let chunk = BYTES_PER_THREAD.saturating_mul(rayon::current_num_threads()).min(MOST_BYTES);
        let most = (chunk / each).max(1).min(units) * unit;
        self.expect(bytes.len());
        let (chunk, raw) = (Vec::new(), Vec::new());
        Chunks { walk: self, source, file, stored, rest: bytes, unit, most, chunk, raw, next: 0 }
    }

    /// Announces bytes that will be read or written.
    pub fn expect(&self, bytes: usize) {
        self.progress.bar.inc_length(bytes as u64);
    }

    /// Writes the results of a chunk in steps.
    pub fn write(&self, output: &mut Sink, bytes: &[u8]) -> Result<(), Failure> {
        bytes.chunks(STEP).try_for_each(|step| {
            output.write(step)?;
            self.progress.add(step.len());
            Ok(())
        })
    }

    /// Copies bytes unchanged.
    pub fn copy(
        &self,
        file: &Contents,
        bytes: Range<usize>,
        output: &mut Sink,
    ) -> Result<(), Failure> {
        let mut step = vec![0; STEP.min(bytes.len())];
        for start in bytes.clone().step_by(STEP) {
            let step = &mut step[..STEP.min(bytes.end - start)];
            file.read(start, step)?;
            self.progress.add(step.len());
            self.write(output, step)?;
        }
        Ok(())
    }

    /// A summary for people: what was done to how many bytes, by which kernel, and how fast.
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

/// An iterator over chunks: see [`Walk::chunks`].
pub struct Chunks<'a, C> {
    walk: &'a Walk,
    source: &'a Source,
    file: &'a Contents,
    stored: Stored,
    /// The bytes that are left to read.
    rest: Range<usize>,
    unit: usize,
    most: usize,
    chunk: Vec<C>,
    /// The raw bytes, if they are not of the type `C`.
    raw: Vec<u8>,
    /// The number of the next chunk's first unit.
    next: usize,
}

impl<C: Value> Chunks<'_, C> {
    /// The most elements of a chunk.
    pub fn most(&self) -> usize {
        self.most
    }

    /// The most units of a chunk.
    pub fn most_units(&self) -> usize {
        self.most / self.unit
    }

    /// The next chunk, a copy that may be overwritten, and the number of its first unit.
    pub fn advance(&mut self) -> Result<Option<(usize, &mut [C])>, Failure> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let size = self.stored.size();
        let n = self.most.min(self.rest.len() / size);
        if self.chunk.is_empty() {
            self.chunk = buffer(self.most).map_err(|e| self.source.failed(e))?;
        }
        let chunk = &mut self.chunk[..n];
        let start = self.rest.start;
        self.rest.start += n * size;
        let progress = &self.walk.progress;
        if self.stored.plain() == Some(C::DTYPE) {
            read(self.file, start, bytemuck::cast_slice_mut(chunk), progress)?;
        } else {
            if self.raw.is_empty() {
                self.raw = buffer(self.most * size).map_err(|e| self.source.failed(e))?;
            }
            let raw = &mut self.raw[..n * size];
            read(self.file, start, raw, progress)?;
            self.stored.decode(raw, chunk);
        }
        let first = self.next;
        self.next += n / self.unit;
        Ok(Some((first, chunk)))
    }
}

/// Writes results that are computed as `C` as elements of another type, or of the same one.
pub struct Results<'a> {
    walk: &'a Walk,
    to: Dtype,
    /// The bytes of a chunk, if `to` is another type.
    encoded: Vec<u8>,
}

impl<'a> Results<'a> {
    /// For chunks of at most `most` elements of type `C`.
    pub fn new<C: Value>(
        walk: &'a Walk,
        source: &Source,
        most: usize,
        to: Dtype,
    ) -> Result<Self, Failure> {
        let bytes = if to == C::DTYPE { 0 } else { most * to.size() };
        Ok(Self { walk, to, encoded: buffer(bytes).map_err(|e| source.failed(e))? })
    }

    /// Writes a chunk, each element rounded once.
    pub fn write<C: Value>(&mut self, sink: &mut Sink, x: &[C]) -> Result<(), Failure> {
        if self.to == C::DTYPE {
            return self.walk.write(sink, bytemuck::cast_slice(x));
        }
        let encoded = &mut self.encoded[..x.len() * self.to.size()];
        encode(x, self.to, encoded);
        self.walk.write(sink, encoded)
    }
}

/// Reads a chunk in steps.
fn read(
    file: &Contents,
    start: usize,
    chunk: &mut [u8],
    progress: &Progress,
) -> Result<(), Failure> {
    chunk.chunks_mut(STEP).enumerate().try_for_each(|(i, step)| {
        file.read(start + i * STEP, step)?;
        progress.add(step.len());
        Ok(())
    })
}

/// A bar on a terminal, shown once the work has taken a second.
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

    /// Counts bytes that are done.
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
    /// Removes the bar, so that no error message is printed into it.
    fn drop(&mut self) {
        self.finish();
    }
}
