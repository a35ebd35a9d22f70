//! Attention: causal rows of 32 heads x 2,048 x 2,048 f32, compared with the same scores without a
//! mask, with a mask as a matrix, and with all other options of a head. One thread.
//!
//!     cargo bench --bench attention

mod common;

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use softmax::{Attention, Exec, Mask, Matrix, MatrixMut, Softmax, Threads};

const TOKENS: usize = 2048;

fn attention(c: &mut Criterion) {
    // Much less work where only results are checked.
    let quick = std::env::args().any(|a| a == "--test");
    let (heads, tokens) = if quick { (1, 128) } else { (32, TOKENS) };
    let x = common::logits::<f32>(heads * tokens * tokens);
    let mut y = vec![f32::NAN; x.len()];
    let seen: Vec<bool> = (0..tokens * tokens).map(|i| i % tokens <= i / tokens).collect();
    let added: Vec<f32> =
        seen.iter().map(|&seen| if seen { 0.0 } else { f32::NEG_INFINITY }).collect();
    let slopes: Vec<f32> = (0..heads).map(|h| 2f32.powf(-8.0 * (h + 1) as f32 / 32.0)).collect();
    let shape = [1, 1, tokens];

    let serial = Exec::new().threads(Threads::Serial);
    let plain = Attention::new(heads, tokens).exec(serial);
    let cases = [
        ("causal", plain.causal()),
        ("mask of f32", plain.mask(Mask::new(&added[..], shape))),
        ("mask of bool", plain.mask(Mask::new(&seen[..], shape))),
        ("causal, window of 512", plain.causal().window(512)),
        ("causal, ALiBi", plain.causal().alibi(&slopes)),
        ("causal, cap", plain.causal().soft_cap(50.0)),
    ];
    let run = |attention: &Attention, y: &mut [f32]| {
        let x = Matrix::new(&x, tokens).expect("whole rows");
        attention.softmax(x, MatrixMut::new(y, tokens).expect("whole rows")).expect("a valid call");
    };

    let mut group = c.benchmark_group(format!("attention/{heads}x{tokens}x{tokens}"));
    group.throughput(Throughput::Elements(x.len() as u64)).sample_size(10);
    group.measurement_time(Duration::from_secs(3));
    let softmax = Softmax::new().exec(serial);
    group.bench_function("no mask", |b| {
        b.iter(|| {
            let x = Matrix::new(&x, tokens).expect("whole rows");
            let y = MatrixMut::new(&mut y, tokens).expect("whole rows");
            softmax.softmax(x, y).expect("a valid call");
        });
    });
    for (name, attention) in cases {
        y.fill(f32::NAN);
        run(&attention, &mut y);
        for (i, row) in y.chunks(tokens).enumerate() {
            let hidden = &row[i % tokens + 1..];
            let sum: f64 = row.iter().map(|&p| f64::from(p)).sum();
            assert!((sum - 1.0).abs() < 1e-5 && hidden.iter().all(|&p| p == 0.0), "{name} row {i}");
        }
        group.bench_function(name, |b| b.iter(|| run(&attention, &mut y)));
    }
    group.finish();
}

criterion_group! { name = benches; config = common::criterion(); targets = attention }
criterion_main!(benches);
