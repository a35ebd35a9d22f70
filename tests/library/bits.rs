//! The same bits: every kernel against the scalar reference, for every length, stride and
//! alignment, in place or not, alone or in a batch; and one digest for all CPUs.

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{Kernel, Masked, Matrix, MatrixMut, Threads};

/// Lengths around every multiple of the lanes, the unrolled loops and the blocks.
fn lengths() -> Vec<usize> {
    let mut n: Vec<usize> = (0..=70).collect();
    for near in [128, 256, 1024, 4096, 8192] {
        n.extend([near - 1, near, near + 1]);
    }
    n.extend([1000, 12_289, 100_003]);
    n
}

const TEMPERATURES: [f64; 6] = [1.0, 8.0, 3.0, 0.01, 1048576.0, 1.0 / 1048576.0];

fn every_length<T: Bits>() {
    let mut random = Random(1);
    for n in lengths() {
        for kind in 0..KINDS {
            // Long rows are not tested with all kinds at all temperatures; even fewer under an
            // emulator.
            let temperature = TEMPERATURES[(n + kind) % TEMPERATURES.len()];
            if n > if quick() { 100 } else { 5000 } && kind % 3 != 0
                || quick() && n > 50_000 && kind > 0
            {
                continue;
            }
            let offset = (n + kind) % 18;
            let data: Vec<T> = row(&mut random, kind, n + offset);
            let x = &data[offset..];
            for op in OPS {
                let want = run_row(&on(scalar(), temperature, Masked::Zero), op, x);
                for kernel in exact() {
                    let got = run_row(&on(kernel, temperature, Masked::Zero), op, x);
                    assert_same(&got, &want, || {
                        format!("{} {op:?} of {n}, kind {kind}, T {temperature}", kernel.name())
                    });
                }
            }
        }
    }
}

#[test]
fn every_length_f32() {
    every_length::<f32>();
}

#[test]
fn every_length_f64() {
    every_length::<f64>();
}

#[test]
fn every_length_f16() {
    every_length::<f16>();
}

#[test]
fn every_length_bf16() {
    every_length::<bf16>();
}

/// Checks that a row's result does not depend on the rows around it.
fn batches<T: Bits>(kernel: &'static Kernel) {
    let mut random = Random(2);
    for (rows, cols, gap) in [(7, 10, 0), (5, 33, 3), (9, 64, 1), (3, 1000, 24), (4, 5000, 5)] {
        let stride = cols + gap;
        let mut data: Vec<T> = Vec::new();
        for r in 0..rows {
            data.extend(row::<T>(&mut random, r % KINDS, stride));
        }
        let view = || Matrix::with_stride(&data, rows, cols, stride).unwrap();
        let options = on(kernel, 0.7, Masked::Nan).threads(Threads::Serial);
        for op in OPS {
            let alone: Vec<T> = (0..rows)
                .flat_map(|r| run_row(&options, op, &data[r * stride..r * stride + cols]))
                .collect();
            let what = || format!("{} {op:?} {rows} x {cols}", kernel.name());
            assert_same(&run(&options, op, view()), &alone, what);
            for threads in [
                Threads::Auto,
                Threads::AtMost(2.try_into().unwrap()),
                Threads::Exactly(2.try_into().unwrap()),
            ] {
                assert_same(&run(&options.threads(threads), op, view()), &alone, what);
            }
            if op == Op::LogSumExp {
                continue;
            }
            let mut place = data.clone();
            let in_place = MatrixMut::with_stride(&mut place, rows, cols, stride).unwrap();
            run_in_place(&options, op, in_place);
            for r in 0..rows {
                let at = r * stride;
                assert_same(&place[at..at + cols], &alone[r * cols..][..cols], what);
                assert_same(&place[at + cols..at + stride], &data[at + cols..at + stride], what);
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    for kernel in available() {
        batches::<f32>(kernel);
        batches::<f64>(kernel);
        batches::<f16>(kernel);
        batches::<bf16>(kernel);
    }
}

/// A matrix large enough to be cut among threads.
#[test]
fn threads_do_not_change_bits() {
    let cols = 777;
    let x: Vec<f32> = row(&mut Random(3), 0, 600 * cols);
    let mut want = vec![0.0; x.len()];
    let view = || Matrix::new(&x, cols).unwrap();
    let run = |options: Options| {
        let mut y = vec![0.0; x.len()];
        options.softmax().softmax(view(), MatrixMut::new(&mut y, cols).unwrap()).unwrap();
        y
    };
    let serial = Options::new().threads(Threads::Serial);
    serial.softmax().softmax(view(), MatrixMut::new(&mut want, cols).unwrap()).unwrap();
    for n in 1..=4 {
        let threads = Threads::AtMost(n.try_into().unwrap());
        assert_same(&run(Options::new().threads(threads)), &want, || format!("{n} threads"));
        let threads = Threads::Exactly(n.try_into().unwrap());
        assert_same(&run(Options::new().threads(threads)), &want, || format!("exactly {n}"));
    }
    assert_same(&run(Options::new()), &want, || "auto".into());
    #[cfg(feature = "rayon")]
    for n in [1, 2, 3, 8] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        let options = Options::new().threads(Threads::Exactly(n.try_into().unwrap()));
        assert_same(&pool.install(|| run(options)), &want, || format!("a pool of {n}"));
    }
}

fn add_to<T: Bits>(digest: &mut Fnv, kernel: &'static Kernel) {
    for n in [1, 2, 10, 16, 17, 64, 100, 1024, 4097, 9000] {
        for kind in 0..KINDS {
            let mut random = Random((n * KINDS + kind) as u64);
            let x: Vec<T> = row(&mut random, kind, n);
            for op in OPS {
                digest.add(&run_row(&on(kernel, TEMPERATURES[kind % 3], Masked::Zero), op, &x));
            }
        }
    }
}

/// Probabilities are converted to bf16 by an instruction if the CPU has one, else by integer
/// arithmetic.
#[test]
fn conversions_to_bf16_are_the_same_bits() {
    let fastest = exact()[0];
    let digest = || {
        let mut digest = Fnv::default();
        add_to::<bf16>(&mut digest, fastest);
        // Results around the least normal number: the instruction flushes those below.
        for depth in 8600..8800 {
            let x = [0.0, -depth as f32 / 100.0, 0.5, -87.0].map(bf16::from_f32);
            digest.add(&run_row(&on(fastest, 1.0, Masked::Zero), Op::Softmax, &x));
        }
        digest.0
    };
    let usual = digest();
    let by_instruction = softmax_kernels::use_bf16_conversions(false);
    assert_eq!(digest(), usual);
    // The setting must not have changed, or nothing was compared.
    assert!(!softmax_kernels::use_bf16_conversions(by_instruction));
    if !by_instruction {
        eprintln!(
            "NOT TESTED: conversions to bf16 by an instruction (this kernel or CPU lacks it)"
        );
    }
}

/// The one constant for x86-64 and AArch64. It changes only with the arithmetic contract.
const DIGEST: u64 = 0xa697_f9d1_b5ad_ec33;

#[test]
fn digest_is_the_same_on_every_cpu() {
    for kernel in available() {
        let mut digest = Fnv::default();
        add_to::<f32>(&mut digest, kernel);
        add_to::<f64>(&mut digest, kernel);
        add_to::<f16>(&mut digest, kernel);
        add_to::<bf16>(&mut digest, kernel);
        println!("{} on {}: {:#018x}", kernel.name(), std::env::consts::ARCH, digest.0);
        assert_eq!(digest.0, DIGEST, "{}: {:#018x}", kernel.name(), digest.0);
    }
}
