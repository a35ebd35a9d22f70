//! Every kernel that this CPU can run, on one thread: rows from tiny to a whole vocabulary, in all four
//! element types. A case reads and writes about 2^18 elements, 0.5 to 2 MiB each way: it measures the
//! arithmetic, not the memory.
//!
//!     cargo bench --bench kernels                        # everything, some minutes
//!     cargo bench --bench kernels -- softmax/f32/avx2    # one kernel
//!     cargo bench --bench kernels -- --test              # only check the answers

mod common;

use common::Op;
use criterion::{Criterion, criterion_group, criterion_main};
use softmax::half::{bf16, f16};
use softmax::{Element, Kernel, Softmax, Threads};

const COLS: [usize; 6] = [10, 16, 64, 1024, 32_000, 128_256];
const ELEMENTS: usize = 1 << 18;

/// The cases of one operation and type, named `op/type/kernel/rows x cols`.
fn shapes<T: Element>(c: &mut Criterion, name: &str, op: Op, kernels: &[&'static Kernel]) {
    let mut group = c.benchmark_group(format!("{name}/{}", T::NAME));
    for cols in COLS {
        let rows = (ELEMENTS / cols).max(1);
        let x = common::logits::<T>(rows * cols);
        for &kernel in kernels {
            let options = Softmax::new().kernel(kernel).threads(Threads::Serial);
            let id = format!("{}/{rows}x{cols}", kernel.name());
            common::bench(&mut group, &id, op, options, cols, &x);
        }
    }
    group.finish();
}

fn kernels(c: &mut Criterion) {
    let all = common::available_kernels();
    shapes::<f32>(c, "softmax", Op::Softmax, &all);
    shapes::<f64>(c, "softmax", Op::Softmax, &all);
    shapes::<f16>(c, "softmax", Op::Softmax, &all);
    shapes::<bf16>(c, "softmax", Op::Softmax, &all);
    let best = [common::default_kernel()];
    shapes::<f32>(c, "log_softmax", Op::LogSoftmax, &best);
    shapes::<f32>(c, "logsumexp", Op::LogSumExp, &best);
}

criterion_group! { name = benches; config = common::criterion(); targets = kernels }
criterion_main!(benches);
