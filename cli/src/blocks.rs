//! The way through a file, which all subcommands go: from its start to its end, block by block.

use std::fmt::Display;
use std::io::{IsTerminal, stderr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::slice::Chunks;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use softmax::{Kernel, Softmax, Threads};

use crate::dtype::{Dtype, Value, decode};
use crate::failure::Failure;
use crate::input::Input;

/// Bytes computed at a time, unless a row is longer.
const BLOCK: usize = 16 << 20;

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
    /// A .npy or .safetensors file of f32, f64, f16 or bf16.
    #[arg(value_name = "LOGITS")]
    pub path: PathBuf,
    /// The one tensor of a .safetensors file to use.
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// The kernel to use (see `softmax info`) [default: SOFTMAX_KERNEL, or the fastest].
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// The number of threads [default: one for each CPU].
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

/// What the logits are multiplied by.
#[derive(Debug, clap::Args)]
pub struct Scaling {
    /// Divides every input by T.
    #[arg(long, value_name = "T", allow_hyphen_values = true, conflicts_with = "scale")]
    temperature: Option<f64>,
    /// Multiplies every input by S.
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    scale: Option<f64>,
}

impl Source {
    /// Opens the file, and starts the threads.
    pub fn open(&self) -> Result<Input, Failure> {
        let input = Input::open(&self.path, self.tensor.as_deref())?;
        if let Some(n) = self.threads {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n.get());
            pool.build_global().map_err(|e| Failure::new("--threads", e))?;
        }
        Ok(input)
    }

    /// As [`Source::open`], of a file with one tensor, or one chosen, whose rows have columns.
    pub fn open_one(&self) -> Result<Input, Failure> {
        let input = self.open()?;
        let cause = match &*input.tensors {
            [t] if t.rows == 0 || t.cols > 0 => return Ok(input),
            [t] => format!("the rows of {} have no columns", t.shape_text()),
            [] => "there are no tensors".into(),
            tensors => {
                let names: Vec<_> = tensors.iter().filter_map(|t| t.name.as_deref()).collect();
                format!("choose one tensor with --tensor; there is {}", names.join(", "))
            }
        };
        Err(self.failed(cause))
    }

    /// The kernel that computes.
    pub fn kernel(&self) -> Result<&'static Kernel, Failure> {
        match &self.kernel {
            Some(name) => softmax::kernel(name).map_err(|e| Failure::new("--kernel", e)),
            None => softmax::default_kernel().map_err(|e| Failure::new("SOFTMAX_KERNEL", e)),
        }
    }

    /// How many threads calls may use.
    pub fn threads(&self) -> Threads {
        match self.threads {
            Some(NonZeroUsize::MIN) => Threads::Serial,
            _ => Threads::Auto,
        }
    }

    /// The library's options for these.
    pub fn options(&self) -> Result<Softmax<'static>, Failure> {
        Ok(Softmax::new().kernel(self.kernel()?).threads(self.threads()))
    }

    /// What is wrong with the file.
    pub fn failed(&self, cause: impl Display) -> Failure {
        Failure::new(self.path.display(), cause)
    }
}

impl Scaling {
    /// The options with this scale.
    pub fn of(&self, mut options: Softmax<'static>) -> Result<Softmax<'static>, Failure> {
        if let Some(t) = self.temperature {
            options = options.temperature(t).map_err(|e| Failure::new("--temperature", e))?;
        }
        if let Some(s) = self.scale {
            options = options.scale(s).map_err(|e| Failure::new("--scale", e))?;
        }
        Ok(options)
    }

    /// As [`Scaling::of`], for what has no meaning at temperatures 0 and infinity.
    pub fn finite(&self, options: Softmax<'static>) -> Result<Softmax<'static>, Failure> {
        if let Some(t @ (0.0 | f64::INFINITY)) = self.temperature {
            return Err(Failure::new("--temperature", softmax::Error::Temperature(t)));
        }
        self.of(options)
    }
}

/// A run over a file.
pub struct Walk {
    /// What is named when it is interrupted.
    subject: String,
    interrupted: Arc<AtomicBool>,
    progress: Progress,
}

impl Walk {
    /// Begins a run. Signals from now on do not end the program, but the run.
    pub fn new(subject: &Path) -> Result<Self, Failure> {
        let subject = subject.display().to_string();
        Ok(Self { subject, interrupted: catch_signals()?, progress: Progress::new() })
    }

    /// The elements of these bytes of a tensor, as `C`, some units at a time: that many elements belong together, and `beside` bytes are needed
    /// for the results of a unit, if they are more than the unit itself.
    pub fn blocks<'a, C: Value>(
        &'a self,
        source: &'a Source,
        dtype: Dtype,
        bytes: &'a [u8],
        unit: usize,
        beside: usize,
    ) -> Blocks<'a, C> {
        // There is something in a block even if there is nothing in the tensor.
        let unit = unit.max(1);
        let units = bytes.len() / dtype.size() / unit;
        let each = beside.max(unit.saturating_mul(size_of::<C>()));
        let most = (BLOCK / each).clamp(1, units.max(1)) * unit;
        self.progress.expect(bytes.len());
        let rest = bytes.chunks(most * dtype.size());
        let decoded = Vec::new();
        Blocks { walk: self, source, dtype, rest, unit, most, decoded, next: 0, before: 0 }
    }

    /// What was done to how many bytes, and by whom, in how much time.
    pub fn summary(
        &self,
        path: &Path,
        what: &str,
        kernel: &Kernel,
        source: &Source,
        bytes: usize,
    ) -> String {
        self.progress.finish();
        let seconds = self.progress.started.elapsed().as_secs_f64();
        let threads = match source.threads() {
            Threads::Serial => 1,
            _ => rayon::current_num_threads(),
        };
        format!(
            "{}: {what}, kernel {}, {threads} thread{}, {seconds:.2} s, {:.2} GB/s",
            path.display(),
            kernel.name(),
            if threads == 1 { "" } else { "s" },
            bytes as f64 / 1e9 / seconds.max(1e-9),
        )
    }
}

/// See [`Walk::blocks`].
pub struct Blocks<'a, C> {
    walk: &'a Walk,
    source: &'a Source,
    dtype: Dtype,
    rest: Chunks<'a, u8>,
    unit: usize,
    most: usize,
    /// What is not of the type `C` where it is.
    decoded: Vec<C>,
    /// The number of the next block's first unit.
    next: usize,
    /// Bytes of the block before.
    before: usize,
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

    /// The next block, and the number of its first unit. The one before counts as done.
    pub fn advance(&mut self) -> Result<Option<(usize, &[C])>, Failure> {
        self.walk.progress.add(self.before);
        if self.walk.interrupted.load(Ordering::Relaxed) {
            return Err(Failure::new(&self.walk.subject, "interrupted"));
        }
        let Some(block) = self.rest.next() else { return Ok(None) };
        self.before = block.len();
        let first = self.next;
        let n = block.len() / self.dtype.size();
        self.next += n / self.unit;
        if self.dtype == C::DTYPE
            && let Ok(x) = bytemuck::try_cast_slice(block)
        {
            return Ok(Some((first, x)));
        }
        if self.decoded.is_empty() {
            self.decoded = buffer(self.most).map_err(|e| self.source.failed(e))?;
        }
        decode(self.dtype, block, &mut self.decoded[..n]);
        Ok(Some((first, &self.decoded[..n])))
    }
}

/// A buffer of `len` zeros, or a message if there is no memory for it.
pub fn buffer<T: bytemuck::Zeroable + Clone>(len: usize) -> Result<Vec<T>, String> {
    let mut buffer = Vec::new();
    let bytes = len.saturating_mul(size_of::<T>());
    buffer.try_reserve_exact(len).map_err(|_| format!("no memory for a block of {bytes} bytes"))?;
    buffer.resize(len, T::zeroed());
    Ok(buffer)
}

/// A flag that Ctrl-C and its like set, so that the temporary file is removed before the program ends; a second one ends it.
pub fn catch_signals() -> Result<Arc<AtomicBool>, Failure> {
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
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        let template = "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, started: Instant::now() }
    }

    /// There are so many bytes more.
    fn expect(&self, bytes: usize) {
        self.bar.inc_length(bytes as u64);
    }

    /// So many more are done.
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
