//! The gain by threads: matrices of f32 from a million tiny rows to a few huge ones, on one thread,
//! on at most 1, 2, 4 .. threads, and as the library chooses. `RAYON_NUM_THREADS` limits rayon's
//! pool.
//!
//!     cargo bench --bench batching
//!     cargo bench --bench batching -- 4096x4096
//!     cargo bench --bench batching -- --test    # only check the answers

mod common;

use common::Operation;
use criterion::{Criterion, criterion_group, criterion_main};
use softmax::{Exec, Threads};

const SHAPES: [(usize, usize); 4] = [(16_384, 1024), (4096, 4096), (64, 128_256), (1_000_000, 10)];

/// The settings to compare, with their names.
fn settings() -> Vec<(String, Threads)> {
    let serial = ("serial".to_owned(), Threads::Serial);
    #[cfg(feature = "rayon")]
    {
        use std::num::NonZero;
        let most = rayon::current_num_threads();
        // Doubled, because a large machine has too many numbers of threads to time them all.
        let doubling = std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|&n| n < most);
        let at_most = doubling.chain([most]).filter_map(NonZero::new);
        std::iter::once(serial)
            .chain(at_most.map(|n| (format!("at_most_{n}"), Threads::AtMost(n))))
            .chain([("auto".to_owned(), Threads::Auto)])
            .collect()
    }
    #[cfg(not(feature = "rayon"))]
    {
        eprintln!(
            "built without the feature rayon: there are no threads to compare, only serial is timed"
        );
        vec![serial]
    }
}

fn batching(c: &mut Criterion) {
    eprintln!("kernel: {}", common::default_kernel().name());
    let settings = settings();
    let mut group = c.benchmark_group("batching");
    for (rows, cols) in SHAPES {
        let x = common::logits::<f32>(rows * cols);
        for (name, threads) in &settings {
            let exec = Exec::new().threads(*threads);
            let id = format!("{rows}x{cols}/{name}");
            common::bench(&mut group, &id, Operation::Softmax, exec, cols, &x);
        }
    }
    group.finish();
}

criterion_group! { name = benches; config = common::criterion(); targets = batching }
criterion_main!(benches);
