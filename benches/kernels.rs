//! Every kernel that this CPU can run, on one thread: rows from tiny ones to a whole vocabulary, in
//! all four element types. A case reads and writes about 2^18 elements, 0.5 to 2 MiB each way, so
//! it measures arithmetic and not memory.
//!
//!     cargo bench --bench kernels                        # everything, some minutes
//!     cargo bench --bench kernels -- softmax/f32/avx2    # one kernel
//!     cargo bench --bench kernels -- --test              # only check the answers

mod common;

use common::Operation;
use criterion::{Criterion, criterion_group, criterion_main};
use softmax::half::{bf16, f16};
use softmax::{Exec, Kernel, Probs, Threads};
use softmax_measure::data::Number;

const COLS: [usize; 6] = [10, 16, 64, 1024, 32_000, 128_256];
const ELEMENTS: usize = 1 << 18;

/// The cases of one operation and type, named `op/type/kernel/rows x cols`.
fn shapes<T: Number + Probs<T>>(
    c: &mut Criterion,
    operation: Operation,
    kernels: &[&'static Kernel],
) {
    let mut group = c.benchmark_group(format!("{operation}/{}", T::NAME));
    for cols in COLS {
        let rows = (ELEMENTS / cols).max(1);
        let x = common::logits::<T>(rows * cols);
        for &kernel in kernels {
            let exec = Exec::new().kernel(kernel).threads(Threads::Serial);
            let id = format!("{}/{rows}x{cols}", kernel.name());
            common::bench(&mut group, &id, operation, exec, cols, &x);
        }
    }
    group.finish();
}

fn kernels(c: &mut Criterion) {
    let all = common::available_kernels();
    shapes::<f32>(c, Operation::Softmax, &all);
    shapes::<f64>(c, Operation::Softmax, &all);
    shapes::<f16>(c, Operation::Softmax, &all);
    shapes::<bf16>(c, Operation::Softmax, &all);
    let best = [common::default_kernel()];
    shapes::<f32>(c, Operation::LogSoftmax, &best);
    shapes::<f32>(c, Operation::LogSumExp, &best);
}

criterion_group! { name = benches; config = common::criterion(); targets = kernels }
criterion_main!(benches);
