//! What is in a report: the JSON that `softmax bench` writes and `softmax report` reads.
//! `docs/reports/schema.json` is made of this.

#[cfg(test)]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a report says of itself.
pub const SCHEMA: &str = "softmax-report";
/// Raised by every change that old readers would misread. Fields may be added without.
pub const VERSION: u32 = 1;

/// One run of `softmax bench` on one machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Report {
    /// Always `softmax-report`.
    pub schema: String,
    /// Of the schema: 1.
    pub version: u32,
    /// When the run began: RFC 3339, UTC.
    pub date: String,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Whether all rounds were done; `false` after Ctrl-C, and then some cases have fewer rounds
    /// than others, or none.
    pub complete: bool,
    /// The program.
    pub build: Build,
    /// Where it ran.
    pub machine: Machine,
    /// The kernels compiled for this architecture, the fastest first.
    pub kernels: Vec<KernelInfo>,
    /// What the machine can do at best, by loops that do nothing else.
    pub limits: Limits,
    /// Seconds of the same arithmetic, once in each round: it takes longer when the clock slows
    /// down.
    pub clock: Vec<f64>,
    /// What was timed.
    pub cases: Vec<Case>,
    /// What a reader should know before they believe the numbers.
    pub warnings: Vec<String>,
}

/// What was built.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Build {
    /// Of the crate.
    pub version: String,
    /// What `git describe` said, or `unknown`.
    pub revision: String,
    /// What `rustc --version` said.
    pub rustc: String,
    /// The target triple.
    pub target: String,
}

/// A machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Machine {
    /// What people call it: `--label`, or else the CPU's model.
    pub label: String,
    /// The CPU's model.
    pub cpu: String,
    /// `x86_64` or `aarch64`, and others.
    pub architecture: String,
    /// What the CPU can do of what kernels may ask for, by the names of Rust's `target_feature`.
    pub features: Vec<String>,
    /// Whether an emulator ran the program: its times say nothing of a CPU.
    pub emulated: bool,
    /// Cores, if the system tells.
    pub physical_cores: Option<usize>,
    /// Hardware threads that the program may use.
    pub logical_cores: usize,
    /// Of the first CPU, the nearest first; empty if the system does not tell.
    pub caches: Vec<Cache>,
    /// Bytes of main memory.
    pub memory_bytes: u64,
    /// The clock as the system tells it, in MHz.
    pub frequency_mhz: Option<u64>,
    /// Name and version of the operating system, and of its kernel.
    pub os: String,
    /// Whether it ran on battery, if the system tells.
    pub on_battery: Option<bool>,
    /// Whether each thread was bound to a core.
    pub pinned: bool,
}

/// A cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Cache {
    /// 1 is the nearest.
    pub level: u32,
    /// `Data`, `Instruction` or `Unified`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes.
    pub size: u64,
}

/// A kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct KernelInfo {
    /// `avx512`, `avx2`, `neon`, `portable` or `scalar`.
    pub name: String,
    /// The CPU features that it needs.
    pub requires: Vec<String>,
    /// Whether this CPU has them.
    pub available: bool,
}

/// The machine's own limits.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Limits {
    /// Of caches and memory.
    pub memory: Vec<MemoryLimit>,
    /// Of arithmetic.
    pub arithmetic: Vec<ArithmeticLimit>,
}

/// How fast a loop goes over memory that does nothing else.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct MemoryLimit {
    /// `read`, `copy` (memcpy), `copy_nt` (by stores past the caches) or `scale` (in place).
    #[serde(rename = "loop")]
    pub name: String,
    /// Bytes of memory that the loop goes over, of all threads together: what it reads and what it
    /// writes elsewhere.
    pub bytes: u64,
    /// How many threads shared it.
    pub threads: usize,
    /// Bytes read and written in one pass.
    pub traffic: u64,
    /// Of the times.
    pub timing: Timing,
    /// `traffic` per second, in 10^9.
    pub gb_per_second: f64,
}

/// How many operations per second a kernel's vectors can do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct ArithmeticLimit {
    /// Whose vectors.
    pub kernel: String,
    /// Of the arithmetic: `f32` or `f64`.
    pub dtype: String,
    /// How many threads did it at once.
    pub threads: usize,
    /// Operations in one pass: fused multiply-adds of one element each (one operation, not two), or
    /// where the CPU has none, multiplications and additions.
    pub operations: u64,
    /// Of the times.
    pub timing: Timing,
    /// `operations` per second, in 10^9.
    pub gops_per_second: f64,
}

/// One thing that was timed, in interleaved rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Case {
    /// `softmax`, `log_softmax`, `logsumexp`, `cross_entropy` (losses and gradient), `attention`
    /// (causal rows) or `sample` (a draw per row).
    pub operation: String,
    /// `f32`, `f64`, `f16` or `bf16`.
    pub dtype: String,
    /// Of the matrix.
    pub rows: usize,
    /// Of the matrix.
    pub cols: usize,
    /// How many threads shared the rows.
    pub threads: usize,
    /// Which kernel.
    pub kernel: String,
    /// Bytes of memory that a call goes over: the input and the output.
    pub bytes: u64,
    /// Where these lie on this machine: `L1`, `L2`, `L3` or `memory`; `unknown` if the system does
    /// not tell its caches.
    pub level: String,
    /// Elements of one call: of the rows, and of causal attention those that are seen.
    pub elements: u64,
    /// Bytes that one call must read and write at least.
    pub traffic: u64,
    /// Multiplications per element, fused with an addition or not, counted in the source: what
    /// arithmetic needs at least.
    pub operations: f64,
    /// Of the answer, before it was timed.
    pub check: Check,
    /// Of the times; absent if the answer was wrong or the run was interrupted before.
    pub result: Option<CaseResult>,
}

/// How a case's answer was checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Check {
    /// The largest error, in units of the last place against f64 or better; absent where there is
    /// no error but equality.
    pub max_ulp: Option<f64>,
    /// The mean error.
    pub mean_ulp: Option<f64>,
    /// The largest error that is promised.
    pub limit_ulp: Option<f64>,
    /// FNV-1a of the answer's bits, in hexadecimal.
    pub digest: String,
    /// What it is on every CPU.
    pub expected: String,
    /// Whether the digest is that, the error within the limit, and every row as the first ones.
    pub passed: bool,
}

/// What a case's times come to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct CaseResult {
    /// Of the times.
    pub timing: Timing,
    /// `elements` per second.
    pub elements_per_second: f64,
    /// `traffic` per second, in 10^9.
    pub gb_per_second: f64,
    /// `memory` or `arithmetic`: what needs more time at its limit. Absent if the limit was not
    /// measured.
    pub bound_by: Option<String>,
    /// Elements per second at that limit.
    pub limit_elements_per_second: Option<f64>,
    /// `elements_per_second` of that limit: 1 is the best that the machine can do.
    pub fraction_of_limit: Option<f64>,
    /// Cycles of a thread for one of its elements, where the system counts cycles.
    pub cycles_per_element: Option<f64>,
}

/// The times of something.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Timing {
    /// Seconds of one call: the mean over the calls of each round, in the order of the rounds.
    pub seconds: Vec<f64>,
    /// How many calls a round had.
    pub calls: u64,
    /// The median of `seconds`.
    pub median: f64,
    /// The difference of the quartiles, as a part of the median.
    pub spread: f64,
    /// Rounds (counted from 0) that took longer than the upper quartile by more than 1.5 times that
    /// difference, and 2% more than the median.
    pub outliers: Vec<usize>,
}
