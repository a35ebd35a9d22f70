//! Sampling: one draw from each of 64 rows of 128,256 f32 logits, compared with reading the matrix
//! (its log-sum-exp, and its largest elements). One thread.
//!
//!     cargo bench --bench sampling

mod common;

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use softmax::{Exec, Matrix, Method, Order, Sampler, Softmax, Threads};
use softmax_measure::limits::Loop;

/// Logits with a standard deviation of 3, by Box and Muller.
fn logits(n: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    let mut normal = || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    (0..n).map(|_| (3.0 * normal()) as f32).collect()
}

/// The tokens that top-p keeps of a row, by a full sort in f64.
fn nucleus(x: &[f32], p: f64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[b].total_cmp(&x[a]));
    let e: Vec<f64> = order.iter().map(|&i| f64::from(x[i]).exp()).collect();
    let (total, mut sum) = (e.iter().sum::<f64>(), 0.0);
    let n = e.iter().position(|e| {
        sum += e;
        sum >= p * total
    });
    order.truncate(n.unwrap_or(e.len()) + 1);
    order
}

fn sampling(c: &mut Criterion) {
    // Much less work where only results are checked.
    let quick = std::env::args().any(|a| a == "--test");
    let (rows, cols) = if quick { (2, 20_000) } else { (64, 128_256) };
    let x = logits(rows * cols);
    // As in models: some tokens are far above the others.
    let mut peaked = x.clone();
    for row in peaked.chunks_mut(cols) {
        for k in 0..40 {
            row[k * 997 % cols] = 20.0 - 0.25 * k as f32;
        }
    }
    let read = |x| Matrix::new(x, cols).expect("whole rows");

    let serial = Exec::new().threads(Threads::Serial);
    let plain = Sampler::new(7).exec(serial);
    let cases: [(&str, Sampler); 10] = [
        ("temperature 0.8", plain.temperature(0.8)),
        ("top-p 0.9", plain.top_p(0.9)),
        ("top-k 50", plain.top_k(50)),
        ("min-p 0.05", plain.min_p(0.05)),
        ("top-k 50, top-p 0.9, temperature 0.8", plain.temperature(0.8).top_k(50).top_p(0.9)),
        (
            "llama.cpp's defaults",
            plain.order(Order::LlamaCpp).temperature(0.8).top_k(40).top_p(0.95).min_p(0.05),
        ),
        ("top-p 0.9, biased", plain.top_p(0.9).bias(&[(3, 1.0)])),
        ("Gumbel-max", plain.method(Method::GumbelMax)),
        ("top-p 0.9, Gumbel-max", plain.top_p(0.9).method(Method::GumbelMax)),
        ("typical-p 0.9", plain.typical_p(0.9)),
    ];

    // Many draws have all tokens of the nucleus that are not too rare, and no others.
    let row = &x[..cols];
    let kept = nucleus(row, 0.9);
    let mut draws = vec![0; 20_000];
    let top_p = plain.top_p(0.9);
    top_p.sample(read(row), &mut draws).expect("a valid call");
    let mut is_kept = vec![false; cols];
    kept.iter().for_each(|&i| is_kept[i] = true);
    assert!(draws.iter().all(|&d| is_kept[d]), "drawn from outside of the nucleus");
    assert!(kept[..10].iter().all(|i| draws.contains(i)), "a likely token was not drawn");

    let kernel = common::default_kernel();
    for (name, x) in [("randn x 3", &x), ("peaked", &peaked)] {
        let mut group = c.benchmark_group(format!("sampling/{rows}x{cols}/{name}"));
        group.throughput(Throughput::Elements(x.len() as u64)).sample_size(10);
        group.measurement_time(Duration::from_secs(2));
        group.warm_up_time(Duration::from_millis(500));
        group.bench_function("read: largest element", |b| {
            let mut x = x.clone();
            b.iter(|| Loop::Read.run(kernel, &[], &mut x));
        });
        let mut lse = vec![0.0; rows];
        let softmax = Softmax::new().exec(serial);
        group.bench_function("read: log-sum-exp", |b| {
            b.iter(|| softmax.logsumexp(read(x), &mut lse).expect("a valid call"));
        });
        let mut draws = vec![0; rows];
        for (name, sampler) in &cases {
            group.bench_function(*name, |b| {
                b.iter(|| sampler.sample(read(x), &mut draws).expect("a valid call"));
            });
        }
        group.finish();
    }
}

criterion_group! { name = benches; config = common::criterion(); targets = sampling }
criterion_main!(benches);
