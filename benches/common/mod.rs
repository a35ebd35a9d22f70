//! Functions that benches share: checking and timing one case. Inputs, checks and limits are those
//! of `softmax bench`.

// Each bench is a program of its own and uses only some of this.
#![allow(dead_code, unused_imports)]

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use softmax::{Exec, Kernel, Probs};
use softmax_measure::check::Reference;
use softmax_measure::data::Number;
pub use softmax_measure::data::logits;
use softmax_measure::operation;
pub use softmax_measure::operation::{Operation, Side};

/// Few and short samples: enough to compare shapes and kernels, not for the last percent.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .nresamples(5_000)
        .without_plots()
}

/// The kernels that this CPU can run. The others are printed, and `SOFTMAX_REQUIRE=name,name` turns
/// their absence into a failure.
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

/// The kernel of calls that do not choose one.
pub fn default_kernel() -> &'static Kernel {
    softmax::default_kernel().expect("SOFTMAX_KERNEL names an available kernel")
}

/// One call of the public interface.
pub fn run<T: Number + Probs<T>>(
    (operation, exec, cols): (Operation, Exec, usize),
    x: &[T],
    y: &mut [T],
    side: &mut Side,
) {
    let done = operation::run(operation, exec, cols, x, y, side);
    done.expect("the shapes agree and the kernel is available");
}

/// Times one call as `id` in the group. When criterion first asks for it, its result is checked and
/// the largest error printed; cases that the command line filters out cost nothing.
pub fn bench<T: Number + Probs<T>>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: &str,
    operation: Operation,
    exec: Exec,
    cols: usize,
    x: &[T],
) {
    let rows = x.len() / cols;
    let mut y = Vec::new();
    let mut side = Side::new(operation, rows, cols);
    group.throughput(Throughput::Elements(x.len() as u64));
    group.bench_function(id, |b| {
        if y.is_empty() {
            y.resize(if operation.has_matrix() { x.len() } else { rows }, T::NAN);
            run((operation, exec, cols), x, &mut y, &mut side);
            check(id, operation, cols, x, &y, &side);
        }
        b.iter(|| run((operation, exec, cols), black_box(x), black_box(&mut y), &mut side));
    });
}

/// Compares with the oracle and prints the largest error.
///
/// # Panics
/// The error is larger than the library promises.
pub fn check<T: Number>(
    id: &str,
    operation: Operation,
    cols: usize,
    x: &[T],
    y: &[T],
    side: &Side,
) {
    let Some(reference) = Reference::new(operation, cols, x, side) else { return };
    let errors = reference.errors(y);
    let (name, worst, limit) = (T::NAME, errors.max, errors.limit);
    assert!(worst <= limit, "{operation} {name} {id}: {worst} ULP off, more than {limit}");
    eprintln!("{operation} {name} {id}: at most {worst:.3} ULP off (limit {limit})");
}
