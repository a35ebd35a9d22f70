//! Helpers of all tests: the kernels to test, inputs that are the same on every platform, a digest.
#![allow(dead_code, unused_imports)] // Each test file uses its own part.

#[cfg(unix)]
pub mod guarded;
mod options;

use std::ffi::OsStr;
use std::process::Command;

pub use options::{Options, by};
use proptest::test_runner::{Config as ProptestConfig, RngSeed};
use softmax::half::{bf16, f16};
use softmax::{Element, Kernel, Masked, Matrix, MatrixMut};
use softmax_kernels::{Large, with_large};
pub use softmax_measure::check::Fnv;
pub use softmax_measure::data::Number as Bits;

/// The kernels that this CPU can run; the others are printed by name. Kernels that the environment
/// variable `SOFTMAX_REQUIRE` lists must be among them; quick tests run these alone.
pub fn available() -> Vec<&'static Kernel> {
    let required = std::env::var("SOFTMAX_REQUIRE").unwrap_or_default();
    for name in required.split(',').filter(|name| !name.is_empty()) {
        if let Err(e) = softmax::kernel(name) {
            panic!("SOFTMAX_REQUIRE={required}: {e}");
        }
    }
    let (have, lack): (Vec<_>, Vec<_>) = softmax::kernels().iter().partition(|k| k.is_available());
    let wanted = |kernel: &&Kernel| {
        !quick() || required.is_empty() || required.split(',').any(|name| name == kernel.name())
    };
    let (have, left_out): (Vec<_>, Vec<_>) = have.into_iter().partition(wanted);
    for kernel in lack {
        eprintln!(
            "NOT TESTED: {} (this CPU lacks {})",
            kernel.name(),
            kernel.requires().join(", ")
        );
    }
    for kernel in left_out {
        eprintln!("NOT TESTED: {} (quick tests run {required} alone)", kernel.name());
    }
    have
}

/// The available kernels without the reference, whose bits all must equal.
pub fn exact() -> Vec<&'static Kernel> {
    available().into_iter().filter(|k| k.name() != "scalar").collect()
}

pub fn scalar() -> &'static Kernel {
    softmax::kernel("scalar").expect("the reference is always there")
}

/// Whether tests should be short (fewer and shorter rows), as under an emulator.
pub fn quick() -> bool {
    std::env::var_os("SOFTMAX_TEST_QUICK").is_some()
}

/// The configuration of a property: `all` random cases, or `few` in quick tests, the same every
/// time.
pub fn config(all: u32, few: u32, seed: u64) -> ProptestConfig {
    ProptestConfig {
        cases: if quick() { few } else { all },
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

/// Asserts that two results are the same bits, and says where they differ.
pub fn assert_same<T: Bits>(got: &[T], want: &[T], what: impl Fn() -> String) {
    assert_eq!(got.len(), want.len(), "{}", what());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(g.bits() == w.bits(), "{}: element {i} is {g:?}, not {w:?}", what());
    }
}

/// A command for this test's own binary in a new process. `SOFTMAX_TEST_RUNNER` is the command that
/// runs it under an emulator.
pub fn itself() -> Command {
    let this = std::env::current_exe().expect("the path of this test");
    let runner = std::env::var_os("SOFTMAX_TEST_RUNNER").unwrap_or_default();
    let runner = runner.into_string().expect("a command of Unicode");
    let mut words = runner.split_whitespace().map(OsStr::new).chain([this.as_os_str()]);
    let mut command = Command::new(words.next().expect("the test itself at least"));
    command.args(words);
    command
}

/// Calls `tests` with each way of writing large outputs that this CPU does not use by itself.
pub fn with_the_other_stores(tests: impl Fn()) {
    let usual = Large::of_this_cpu();
    for large in Large::ALL.into_iter().filter(|&large| large != usual) {
        with_large(large, &tests);
    }
}

/// A type for which every bit pattern is a value.
pub trait Pattern: Copy {}

macro_rules! pattern {
    ($($t:ty),*) => {
        $(impl Pattern for $t {})*
    };
}

pattern!(f32, f64, f16, bf16, u8, u32, i64, usize);

/// SplitMix64: without floating point, so the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A number in [-1, 1).
    pub fn signed(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// Kinds of rows; see [`row`].
pub const KINDS: usize = 8;

/// `n` elements of a kind: bell-shaped, wide enough to reach underflow, huge, masked here and
/// there, constant, tiny, far from 0, of mixed magnitudes.
pub fn row<T: Element>(random: &mut Random, kind: usize, n: usize) -> Vec<T> {
    let constant = random.signed() * 10.0;
    (0..n)
        .map(|_| {
            let u = random.signed();
            T::from_f64(match kind {
                0 => (0..6).map(|_| random.signed()).sum::<f64>() * 3.0,
                1 => u * 200.0,
                2 => u * 60_000.0,
                3 if random.below(4) == 0 => f64::NEG_INFINITY,
                3 => u * 10.0,
                4 => constant,
                5 => u * f64::from(f32::MIN_POSITIVE),
                6 => 3000.0 + u * 20.0,
                _ => u * f64::from_bits((1023 - 40 + random.next() % 80) << 52),
            })
        })
        .collect()
}

/// The three operations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    Softmax,
    LogSoftmax,
    LogSumExp,
}

pub const OPS: [Op; 3] = [Op::Softmax, Op::LogSoftmax, Op::LogSumExp];

/// The result of an operation, one row after another.
pub fn run<T: Element>(options: &Options, op: Op, x: Matrix<T>) -> Vec<T> {
    let (rows, cols) = (x.rows(), x.cols());
    let marker = T::from_f64(-77.0);
    if op == Op::LogSumExp {
        let mut y = vec![marker; rows];
        options.softmax().logsumexp(x, &mut y).expect("a valid call");
        return y;
    }
    let mut y = vec![marker; rows * cols];
    let view = MatrixMut::with_stride(&mut y, rows, cols, cols).expect("a valid shape");
    match op {
        Op::Softmax => options.softmax().softmax(x, view),
        _ => options.softmax().log_softmax(x, view),
    }
    .expect("a valid call");
    y
}

/// Softmax or log-softmax in place.
pub fn run_in_place<T: Element>(options: &Options, op: Op, x: MatrixMut<T>) {
    match op {
        Op::Softmax => options.softmax().softmax_in_place(x),
        Op::LogSoftmax => options.softmax().log_softmax_in_place(x),
        Op::LogSumExp => unreachable!("log-sum-exp is not in place"),
    }
    .expect("a valid call");
}

/// The gradients through softmax or, if `log`, log-softmax, from results `y` and upstream gradients
/// `u`.
pub fn backward<T: Element>(options: &Options, log: bool, y: &[T], u: &[T], cols: usize) -> Vec<T> {
    let mut gradient = vec![T::from_f64(-77.0); y.len()];
    let view = |v| Matrix::new(v, cols).expect("whole rows");
    let to = MatrixMut::new(&mut gradient, cols).expect("whole rows");
    if log {
        options.backward().log_softmax(view(y), view(u), to)
    } else {
        options.backward().softmax(view(y), view(u), to)
    }
    .expect("a valid call");
    gradient
}

/// The result for one row.
pub fn run_row<T: Element>(options: &Options, op: Op, x: &[T]) -> Vec<T> {
    run(options, op, Matrix::with_stride(x, 1, x.len(), x.len()).expect("one row"))
}

/// Options for one kernel.
pub fn on(kernel: &'static Kernel, temperature: f64, masked: Masked) -> Options<'static> {
    let options = Options::new().kernel(kernel).masked(masked);
    options.temperature(temperature)
}
