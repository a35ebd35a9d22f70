//! What the benches share: inputs, a plain reference in f64, and the way one case is checked and timed.

// Each bench is a program of its own and uses a part of this file.
#![allow(dead_code)]

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use softmax::half::{bf16, f16};
use softmax::{Element, Kernel, Matrix, MatrixMut, Softmax};

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    Softmax,
    LogSoftmax,
    LogSumExp,
}

/// Few samples and short ones: the numbers are for comparing shapes and kernels, not for the last percent.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .nresamples(5_000)
        .without_plots()
}

/// The kernels that this CPU can run. Those that it cannot are reported by name, and
/// `SOFTMAX_REQUIRE=name,name` turns their absence into a failure.
pub fn available_kernels() -> Vec<&'static Kernel> {
    let required = std::env::var("SOFTMAX_REQUIRE").unwrap_or_default();
    for name in required.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if let Err(e) = softmax::kernel(name) {
            panic!("SOFTMAX_REQUIRE={required}: {e}");
        }
    }
    let (can, cannot): (Vec<_>, Vec<_>) =
        softmax::kernels().iter().partition(|kernel| kernel.is_available());
    for kernel in cannot {
        eprintln!("not timed: {}, which needs {:?}", kernel.name(), kernel.requires());
    }
    can
}

/// The kernel of calls that choose none.
pub fn default_kernel() -> &'static Kernel {
    softmax::default_kernel().expect("SOFTMAX_KERNEL names an available kernel")
}

/// `n` logits, nearly normal with a standard deviation of 3, the same every time.
pub fn logits<T: Element>(n: usize) -> Vec<T> {
    let mut state = 1u64;
    let mut uniform = || {
        // Knuth's MMIX generator; its high bits are good.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    (0..n)
        .map(|_| {
            // The variance of the sum of four is 4/12.
            let sum = uniform() + uniform() + uniform() + uniform();
            T::from_f64((sum - 2.0) * 27f64.sqrt())
        })
        .collect()
}

/// One call of the public interface.
pub fn run<T: Element>(op: Op, options: Softmax, cols: usize, x: &[T], y: &mut [T]) {
    let x = Matrix::new(x, cols).expect("cols divides the input");
    match op {
        Op::LogSumExp => options.logsumexp(x, y),
        _ => {
            let y = MatrixMut::new(y, cols).expect("cols divides the output");
            if op == Op::Softmax { options.softmax(x, y) } else { options.log_softmax(x, y) }
        }
    }
    .expect("the shapes agree and the kernel is available");
}

/// Times one call as `id` in the group. The first time that criterion asks for it, its answer is checked and the
/// largest error printed; a case that the command line filters out costs nothing.
pub fn bench<T: Element>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: &str,
    op: Op,
    options: Softmax,
    cols: usize,
    x: &[T],
) {
    let mut y = Vec::new();
    group.throughput(Throughput::Elements(x.len() as u64));
    group.bench_function(id, |b| {
        if y.is_empty() {
            y.resize(if op == Op::LogSumExp { x.len() / cols } else { x.len() }, T::NAN);
            run(op, options, cols, x, &mut y);
            check(id, op, cols, x, &y);
        }
        b.iter(|| run(op, options, cols, black_box(x), black_box(&mut y)));
    });
}

/// Compares with a plain f64 computation and prints the largest error.
///
/// # Panics
/// If that is more than the library promises.
pub fn check<T: Element>(id: &str, op: Op, cols: usize, x: &[T], y: &[T]) {
    let limit = Limit::of::<T>(op);
    let mut worst = 0.0;
    let mut compare = |got: T, want: f64| {
        let error = limit.error(op, got.to_f64(), want);
        assert!(error <= limit.ulps, "{op:?} {} {id}: got {got:?}, not {want:e}", T::NAME);
        worst = f64::max(worst, error);
    };
    for (i, row) in x.chunks_exact(cols).enumerate() {
        let max = row.iter().map(|v| v.to_f64()).fold(f64::NEG_INFINITY, f64::max);
        // In parts, so that the rounding errors of a long row's sum stay small.
        let sum: f64 = row
            .chunks(256)
            .map(|part| part.iter().map(|v| (v.to_f64() - max).exp()).sum::<f64>())
            .sum();
        match op {
            Op::LogSumExp => compare(y[i], max + sum.ln()),
            _ => {
                for (v, &got) in row.iter().zip(&y[i * cols..]) {
                    let shifted = v.to_f64() - max;
                    let softmax = op == Op::Softmax;
                    compare(got, if softmax { shifted.exp() / sum } else { shifted - sum.ln() });
                }
            }
        }
    }
    eprintln!("{op:?} {} {id}: at most {worst:.3} ULP off (limit {})", T::NAME, limit.ulps);
}

/// How far a result of a type may be from the reference.
struct Limit {
    ulps: f64,
    /// The absolute error that log-softmax and log-sum-exp may have anyway: near 0 an ULP is nothing.
    absolute: f64,
    epsilon: f64,
    least_normal: f64,
}

impl Limit {
    fn of<T: Element>(op: Op) -> Self {
        let (ulps, absolute, epsilon, least_normal) = match T::NAME {
            "f16" => (0.51, 1e-7, f16::EPSILON.to_f64(), f16::MIN_POSITIVE.to_f64()),
            "bf16" => (0.51, 1e-7, bf16::EPSILON.to_f64(), bf16::MIN_POSITIVE.to_f64()),
            "f32" => (
                if op == Op::Softmax { 3.0 } else { 2.0 },
                1e-7,
                f32::EPSILON.into(),
                f32::MIN_POSITIVE.into(),
            ),
            // Most of this is the reference's own error: it subtracts, and sums plainly.
            "f64" => (64.0, 1e-14, f64::EPSILON, f64::MIN_POSITIVE),
            name => panic!("no limit is known for {name}"),
        };
        Self { ulps, absolute, epsilon, least_normal }
    }

    /// The error of `got`, in ULP.
    fn error(&self, op: Op, got: f64, want: f64) -> f64 {
        let off = (got - want).abs();
        if op != Op::Softmax && off <= self.absolute {
            return 0.0;
        }
        // Without its mantissa a number is the power of two at or below it.
        let power = f64::from_bits(want.to_bits() & f64::INFINITY.to_bits());
        off / (power.max(self.least_normal) * self.epsilon)
    }
}
