//! The caller's floating-point environment changes nothing, and is restored.
//! (capi/tests/c/floating_point.c calls every function.)

use std::arch::asm;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crate::common::Options;
use softmax::{
    Attention, BLOCK, CrossEntropy, Error, Executor, Matrix, MatrixMut, Merged, Partial, Sampler,
};

/// Control and flags, in one word.
#[cfg(target_arch = "x86_64")]
mod word {
    use super::asm;

    pub const USUAL: u64 = 0x1f80;
    /// Flush to zero and subnormals as zeros, with flags; rounding up, with the flag of divisions
    /// by 0; no exception masked.
    pub const UNUSUAL: [u64; 4] = [0x9fc0 | 0x3f, 0x5f84, 0, 0x1f80];

    pub fn get() -> u64 {
        let mut word = 0u32;
        // SAFETY: writes the word.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut word) };
        word.into()
    }

    pub fn set(word: u64) {
        let word = word as u32;
        // SAFETY: one of those above, or one that was read.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const word) };
    }
}

/// Control and flags, in one word.
#[cfg(target_arch = "aarch64")]
mod word {
    use super::asm;

    pub const USUAL: u64 = 0;
    /// Flush to zero, with flags; rounding up, with the flag of divisions by 0; rounding down.
    pub const UNUSUAL: [u64; 4] = [1 << 56 | 0x9f, 1 << 54 | 2, 2 << 54, 0];

    pub fn get() -> u64 {
        let (control, flags): (u64, u64);
        // SAFETY: reads the thread's own registers.
        unsafe { asm!("mrs {}, fpcr", "mrs {}, fpsr", out(reg) control, out(reg) flags) };
        control << 32 | flags
    }

    pub fn set(word: u64) {
        let (control, flags) = (word >> 32, word & 0xffff_ffff);
        // SAFETY: one of those above, or one that was read.
        unsafe { asm!("msr fpcr, {}", "msr fpsr, {}", in(reg) control, in(reg) flags) };
    }
}

/// Calls `f` in an environment, doing nothing else there. Returns whether the environment is
/// unchanged.
fn within<R>(environment: u64, f: &dyn Fn() -> R) -> R {
    word::set(environment);
    let result = black_box(f)();
    let after = word::get();
    word::set(word::USUAL);
    assert_eq!(after, environment, "the environment and its flags");
    result
}

/// An executor whose threads inherit the environment of the caller.
struct Inheriting;

impl Executor for Inheriting {
    fn threads(&self) -> usize {
        2
    }

    fn parallel_for(&self, count: usize, body: &(dyn Fn(usize) + Sync)) {
        let environment = word::get();
        thread::scope(|scope| {
            for i in 0..count {
                scope.spawn(move || {
                    word::set(environment);
                    body(i);
                    let after = word::get();
                    word::set(word::USUAL);
                    assert_eq!(after, environment, "a thread's environment");
                });
            }
        });
        word::set(environment);
    }
}

/// Numbers with subnormal ones among them.
fn numbers(n: usize) -> Vec<f32> {
    let number = |i: usize| match i % 97 {
        7 => f32::from_bits(i as u32 % 1000),
        _ => ((i * 7919 % 6400) as f32 - 3200.0) / 64.0,
    };
    (0..n).map(number).collect()
}

const COLS: usize = 1000;

/// The bits of the results of many functions.
fn results(x: &[f32], shard: &[f32], of_scale: f64) -> Result<Vec<u64>, Error> {
    let mut bits = Vec::new();
    let mut y = vec![0.0f32; x.len()];
    let rows = x.len() / COLS;
    let all = |y: &[f32]| y.iter().map(|y| u64::from(y.to_bits())).collect::<Vec<_>>();
    for options in [
        Options::new().scale(of_scale),
        Options::new().temperature(of_scale).executor(&Inheriting),
        Options::new().temperature(f64::INFINITY),
    ] {
        options.softmax().softmax(Matrix::new(x, COLS)?, MatrixMut::new(&mut y, COLS)?)?;
        bits.extend(all(&y));
        options.softmax().log_softmax(Matrix::new(x, COLS)?, MatrixMut::new(&mut y, COLS)?)?;
        bits.extend(all(&y));
        options.softmax().softmax_axis(x, &mut y, &[rows, COLS], 1)?;
        bits.extend(all(&y));
    }
    softmax::softmax(&x[..10], &mut y[..10])?;
    bits.extend(all(&y[..10]));
    bits.push(softmax::logsumexp(&x[..33])?.to_bits().into());
    bits.push(softmax::perplexity(&x[..33]).to_bits());

    let loss = CrossEntropy::new().label_smoothing(0.1).z_loss(0.01);
    let labels: Vec<i64> = (0..rows as i64).collect();
    let mean = loss.gradient(Matrix::new(x, COLS)?, &labels, MatrixMut::new(&mut y, COLS)?)?;
    bits.extend(all(&y));
    bits.extend([mean, loss.reduce(&[0.1, 0.2, 0.3], 7.0)].map(f64::to_bits));

    let attention = Attention::new(1, rows).causal().scale(of_scale).soft_cap(9.0);
    attention.softmax(Matrix::new(x, COLS)?, MatrixMut::new(&mut y, COLS)?)?;
    bits.extend(all(&y));

    let mut draws = vec![0; rows];
    let sampler = Sampler::new(1).temperature(of_scale).top_p(0.9).typical_p(0.9);
    sampler.sample(Matrix::new(x, COLS)?, &mut draws)?;
    bits.extend(draws.iter().map(|&token| token as u64));

    let shards = Options::new().scale(of_scale).shards();
    let mut partials = [Partial::NOTHING; 2];
    shards.partials(shard, None, &mut partials)?;
    let again = partials.map(|partial| Partial::from_pair(partial.to_pair()));
    let bits_of = |partial: Partial| partial.to_array().map(f64::to_bits);
    assert_eq!(again.map(bits_of), partials.map(bits_of));
    let Merged::Row(row) = shards.merge::<f32>(&again)? else { panic!("the numbers are small") };
    bits.extend(row.to_partial().to_array().map(f64::to_bits));
    bits.push(shards.logsumexp(&row)?.to_bits().into());
    Ok(bits)
}

#[test]
fn results_are_the_same_in_every_environment() {
    let x = numbers(160 * COLS);
    // The largest element of this shard is subnormal.
    let shard: Vec<f32> = x[..BLOCK + 5].iter().map(|x| x.min(1e-40)).collect();
    // The first large call is made in an unusual environment, which the threads that it starts
    // inherit.
    let get = |environment: u64| {
        let get = || within(environment, &|| results(&x, &shard, 1.0 / 3.0)).expect("results");
        thread::scope(|scope| scope.spawn(get).join().expect("no panic"))
    };
    let unusual = word::UNUSUAL.map(get);
    let usual = get(word::USUAL);
    for (environment, unusual) in word::UNUSUAL.into_iter().zip(unusual) {
        let different = usual.iter().zip(&unusual).filter(|(a, b)| a != b).count();
        assert_eq!((usual.len(), different), (unusual.len(), 0), "environment {environment:#x}");
    }
}

/// A panic of an executor leaves the caller's environment, too.
#[test]
fn a_panic_leaves_the_environment() {
    struct Panics;

    impl Executor for Panics {
        fn threads(&self) -> usize {
            2
        }

        fn parallel_for(&self, count: usize, body: &(dyn Fn(usize) + Sync)) {
            (0..count).for_each(body);
            panic!("asked for");
        }
    }

    let x = numbers(200 * COLS);
    for environment in word::UNUSUAL {
        let caught = within(environment, &|| {
            let mut y = x.clone();
            let options = Options::new().executor(&Panics);
            let y = MatrixMut::new(&mut y, COLS).expect("a matrix");
            catch_unwind(AssertUnwindSafe(|| options.softmax().softmax_in_place(y))).is_err()
        });
        assert!(caught);
    }
}
