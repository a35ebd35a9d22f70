//! The contents of a report: the JSON that `softmax bench` writes and `softmax report` reads.
//! `docs/reports/schema.json` is generated from this.

#[cfg(test)]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of the schema in every report.
pub const SCHEMA: &str = "softmax-report";
/// The version, raised by every change that old readers would misread. Adding fields does not raise
/// it.
pub const VERSION: u32 = 1;

/// One run of `softmax bench` on one machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Report {
    /// Always `softmax-report`.
    pub schema: String,
    /// Version of the schema: 1.
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
    /// The machine.
    pub machine: Machine,
    /// The kernels compiled for this architecture, the fastest first.
    pub kernels: Vec<KernelInfo>,
    /// The machine's own limits, from loops that do nothing else.
    pub limits: Limits,
    /// Seconds of the same arithmetic, once in each round: more when the clock slows down.
    pub clock: Vec<f64>,
    /// The cases that were timed.
    pub cases: Vec<Case>,
    /// Warnings for readers of the numbers.
    pub warnings: Vec<String>,
}

/// A build of the program.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Build {
    /// Version of the crate.
    pub version: String,
    /// The output of `git describe`, or `unknown`.
    pub revision: String,
    /// The output of `rustc --version`.
    pub rustc: String,
    /// The target triple.
    pub target: String,
}

/// A machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Machine {
    /// The name for people: `--label`, or else the CPU's model.
    pub label: String,
    /// The CPU's model.
    pub cpu: String,
    /// `x86_64` or `aarch64`, and others.
    pub architecture: String,
    /// The CPU features that kernels may need and this CPU has, by the names of Rust's
    /// `target_feature`.
    pub features: Vec<String>,
    /// Whether an emulator ran the program: its times say nothing about a CPU.
    pub emulated: bool,
    /// Number of cores, if the system tells.
    pub physical_cores: Option<usize>,
    /// Number of hardware threads that the program may use.
    pub logical_cores: usize,
    /// Caches of the first CPU, the nearest first; empty if the system does not tell.
    pub caches: Vec<Cache>,
    /// Bytes of main memory.
    pub memory_bytes: u64,
    /// The clock in MHz, as the system tells it.
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
    /// The level; 1 is the nearest.
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
    /// Limits of caches and memory.
    pub memory: Vec<MemoryLimit>,
    /// Limits of arithmetic.
    pub arithmetic: Vec<ArithmeticLimit>,
}

/// The speed of a loop over memory that does nothing else.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct MemoryLimit {
    /// `read`, `copy` (memcpy), `copy_nt` (by stores past the caches) or `scale` (in place).
    #[serde(rename = "loop")]
    pub name: String,
    /// Bytes of memory that the loop uses, for all threads together: its input and a separate
    /// output.
    pub bytes: u64,
    /// Number of threads that shared it.
    pub threads: usize,
    /// Bytes read and written in one pass.
    pub traffic: u64,
    /// Statistics of the times.
    pub timing: Timing,
    /// `traffic` per second, in 10^9.
    pub gb_per_second: f64,
}

/// The operations per second of a kernel's vectors.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct ArithmeticLimit {
    /// The kernel.
    pub kernel: String,
    /// Type of the arithmetic: `f32` or `f64`.
    pub dtype: String,
    /// Number of threads that worked at the same time.
    pub threads: usize,
    /// Operations in one pass: fused multiply-adds of one element each (one operation, not two), or
    /// multiplications and additions if the CPU has none.
    pub operations: u64,
    /// Statistics of the times.
    pub timing: Timing,
    /// `operations` per second, in 10^9.
    pub gops_per_second: f64,
}

/// A case that was timed, in interleaved rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Case {
    /// `softmax`, `log_softmax`, `logsumexp`, `cross_entropy` (losses and gradient), `attention`
    /// (causal rows) or `sample` (a draw per row).
    pub operation: String,
    /// `f32`, `f64`, `f16` or `bf16`.
    pub dtype: String,
    /// Size of the matrix.
    pub rows: usize,
    /// Size of the matrix.
    pub cols: usize,
    /// Number of threads that shared the rows.
    pub threads: usize,
    /// The kernel.
    pub kernel: String,
    /// Bytes of memory that a call uses: input and output.
    pub bytes: u64,
    /// The level that holds these bytes on this machine: `L1`, `L2`, `L3` or `memory`; `unknown` if
    /// the system does not tell its caches.
    pub level: String,
    /// Elements of one call: of the rows, or in causal attention those that are seen.
    pub elements: u64,
    /// Bytes that one call must read and write at least.
    pub traffic: u64,
    /// Multiplications per element, fused with an addition or not, counted in the source: the least
    /// arithmetic.
    pub operations: f64,
    /// Check of the result, before it was timed.
    pub check: Check,
    /// Result of the times; absent if the check failed or the run was interrupted before.
    pub result: Option<CaseResult>,
}

/// The check of a case's result.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Check {
    /// The largest error, in units of the last place against f64 or better; absent if results are
    /// compared for equality.
    pub max_ulp: Option<f64>,
    /// The mean error.
    pub mean_ulp: Option<f64>,
    /// The largest error that is promised.
    pub limit_ulp: Option<f64>,
    /// FNV-1a of the result's bits, in hexadecimal.
    pub digest: String,
    /// The digest that every CPU gives.
    pub expected: String,
    /// Whether the digest is as expected, the error within its limit, and repeated rows are equal.
    pub passed: bool,
}

/// The result of a case's times.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct CaseResult {
    /// Statistics of the times.
    pub timing: Timing,
    /// `elements` per second.
    pub elements_per_second: f64,
    /// `traffic` per second, in 10^9.
    pub gb_per_second: f64,
    /// `memory` or `arithmetic`: the one that needs more time at its limit. Absent if the limit was
    /// not measured.
    pub bound_by: Option<String>,
    /// Elements per second at that limit.
    pub limit_elements_per_second: Option<f64>,
    /// `elements_per_second` divided by that limit: 1 is the best that the machine can do.
    pub fraction_of_limit: Option<f64>,
    /// Cycles of a thread per element, if the system counts cycles.
    pub cycles_per_element: Option<f64>,
}

/// Times and their statistics.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Timing {
    /// Seconds of one call, for each round: the mean over the calls of the round.
    pub seconds: Vec<f64>,
    /// Number of calls in a round.
    pub calls: u64,
    /// The median of `seconds`.
    pub median: f64,
    /// The difference of the quartiles, as a share of the median.
    pub spread: f64,
    /// Rounds (counted from 0) that exceeded the upper quartile by more than 1.5 times that
    /// difference, and the median by 2%.
    pub outliers: Vec<usize>,
}
