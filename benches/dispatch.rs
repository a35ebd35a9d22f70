//! The cost of a call besides its arithmetic, in nanoseconds: one row of 16 f32 through the public
//! function, the same with kernel and threads chosen in advance, and an empty row, which enters no
//! kernel: only the checks and the choice of a kernel remain.
//!
//!     cargo bench --bench dispatch

mod common;

use std::hint::black_box;

use common::{Operation, Side};
use criterion::{Criterion, criterion_group, criterion_main};
use softmax::{Exec, Threads};

const COLS: usize = 16;

fn dispatch(c: &mut Criterion) {
    let kernel = common::default_kernel();
    eprintln!("kernel: {}", kernel.name());
    let x = common::logits::<f32>(COLS);
    let mut y = [f32::NAN; COLS];
    let mut side = Side::new(Operation::Softmax, 1, COLS);
    let prepared = Exec::new().kernel(kernel).threads(Threads::Serial);

    softmax::softmax(&x, &mut y).expect("the lengths agree");
    common::check("function/16", Operation::Softmax, COLS, &x, &y, &side);
    y.fill(f32::NAN);
    common::run((Operation::Softmax, prepared, COLS), &x, &mut y, &mut side);
    common::check("prepared/16", Operation::Softmax, COLS, &x, &y, &side);

    let mut group = c.benchmark_group("dispatch");
    group.bench_function("function/16", |b| {
        b.iter(|| softmax::softmax(black_box(&x[..]), black_box(&mut y[..])));
    });
    group.bench_function("prepared/16", |b| {
        b.iter(|| {
            let (x, y) = (black_box(&x), black_box(&mut y));
            common::run((Operation::Softmax, prepared, COLS), x, y, &mut side)
        });
    });
    group.bench_function("function/0", |b| {
        b.iter(|| softmax::softmax(black_box(&x[..0]), black_box(&mut y[..0])));
    });
    group.finish();
}

criterion_group! { name = benches; config = common::criterion(); targets = dispatch }
criterion_main!(benches);
