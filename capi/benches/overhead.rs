//! What the C ABI costs: a call of `softmax_softmax` beside the call of the Rust function that it
//! ends in, on one row of 16 f32, in nanoseconds; and rows on the caller's threads beside the same
//! rows on rayon's, 131,072 x 1,024 f32.
//!
//!     cargo bench -p softmax-capi --bench overhead

use std::ffi::c_void;
use std::hint::black_box;
use std::sync::{Barrier, Mutex};

use criterion::{Criterion, criterion_group, criterion_main};
use softmax::{Exec, Matrix, MatrixMut, Softmax, Threads};
use softmax_capi::{
    SOFTMAX_F32, softmax_matrix, softmax_options, softmax_parallel, softmax_softmax, softmax_status,
};
use softmax_measure::timing::{Statistics, interleaved, seconds};

const COLS: usize = 16;

fn descriptor(data: *const f32, rows: usize, cols: usize) -> softmax_matrix {
    let (size, dtype, stride) = (size_of::<softmax_matrix>(), SOFTMAX_F32, cols);
    softmax_matrix { size, data: data.cast_mut().cast(), dtype, rows, cols, stride }
}

fn options(threads: usize, parallel: *const softmax_parallel) -> softmax_options {
    softmax_options {
        size: size_of::<softmax_options>(),
        scale: 1.0,
        temperature: 1.0,
        flags: 0,
        kernel: std::ptr::null(),
        threads,
        parallel,
        scratch: std::ptr::null_mut(),
        scratch_size: 0,
        cache_core: 0,
        cache_last: 0,
        message: std::ptr::null_mut(),
        message_size: 0,
    }
}

type Function = unsafe extern "C" fn(
    *const softmax_matrix,
    *const softmax_matrix,
    *const softmax_options,
) -> softmax_status;

/// A call as a C program makes it: through a pointer that the compiler cannot look behind.
fn c_call(x: &[f32], y: &mut [f32], cols: usize, options: *const softmax_options) {
    let function: Function = black_box(softmax_softmax);
    let rows = x.len() / cols;
    let (x, y) = (descriptor(x.as_ptr(), rows, cols), descriptor(y.as_ptr(), rows, cols));
    // SAFETY: the slices are two matrices of this shape.
    let status = unsafe { function(black_box(&x), black_box(&y), options) };
    assert_eq!(status, softmax_status::Ok);
}

fn rust_call(x: &[f32], y: &mut [f32], cols: usize, options: &Softmax) {
    let (x, y) = (Matrix::new(x, cols), MatrixMut::new(y, cols));
    options.softmax(x.expect("a shape"), y.expect("a shape")).expect("a valid call");
}

/// Medians of the times of two things, done in turns.
fn in_turns(rounds: usize, mut a: impl FnMut(), mut b: impl FnMut()) -> (f64, f64) {
    let time = |i| Some(if i == 0 { seconds(1, &mut a) } else { seconds(1, &mut b) });
    let times = interleaved(rounds, 2, time);
    let median = |i: usize| Statistics::of(&times[i]).expect("there are rounds").median;
    (median(0), median(1))
}

fn is_test() -> bool {
    std::env::args().any(|arg| arg == "--test")
}

fn call(c: &mut Criterion) {
    let x: Vec<f32> = (0..COLS).map(|i| i as f32 / 4.0).collect();
    let (mut y, mut z) = (vec![f32::NAN; COLS], vec![f32::NAN; COLS]);
    let (rust, given) =
        (Softmax::new().exec(Exec::new().threads(Threads::Serial)), options(1, std::ptr::null()));
    rust_call(&x, &mut y, COLS, &rust);
    c_call(&x, &mut z, COLS, &given);
    assert_eq!(y, z);
    let mut group = c.benchmark_group("overhead");
    group.bench_function("rust/16", |b| b.iter(|| rust_call(black_box(&x), &mut y, COLS, &rust)));
    group.bench_function("c/16", |b| b.iter(|| c_call(black_box(&x), &mut y, COLS, &given)));
    group.bench_function("c, default options/16", |b| {
        b.iter(|| c_call(black_box(&x), &mut y, COLS, std::ptr::null()));
    });
    group.finish();
    let calls = if is_test() { 10 } else { 100_000 };
    let (rust, c) = in_turns(
        if is_test() { 1 } else { 101 },
        || (0..calls).for_each(|_| rust_call(black_box(&x), &mut y, COLS, &rust)),
        || (0..calls).for_each(|_| c_call(black_box(&x), &mut z, COLS, &given)),
    );
    let nanoseconds = |seconds: f64| seconds * 1e9 / f64::from(calls);
    eprintln!(
        "a row of 16: Rust {:.1} ns, C {:.1} ns, overhead {:.1} ns (medians of rounds in turns)",
        nanoseconds(rust),
        nanoseconds(c),
        nanoseconds(c - rust)
    );
}

/// Threads of an engine, which wait at a barrier for a body to call.
struct Engine {
    threads: usize,
    barrier: Barrier,
    work: Mutex<Option<Work>>,
}

#[derive(Clone, Copy)]
struct Work {
    body: unsafe extern "C" fn(*mut c_void, usize),
    argument: *mut c_void,
    count: usize,
}

// SAFETY: the body may be called by any thread, until the call that it is of returns.
unsafe impl Send for Work {}

impl Engine {
    fn new(threads: usize) -> Self {
        Self { threads, barrier: Barrier::new(threads), work: Mutex::new(None) }
    }

    /// A thread of the engine, until there is no work.
    fn help(&self, index: usize) {
        loop {
            self.barrier.wait();
            let work = *self.work.lock().expect("no panic");
            let Some(work) = work else { return };
            if index < work.count {
                // SAFETY: the call that wants it waits below.
                unsafe { (work.body)(work.argument, index) };
            }
            self.barrier.wait();
        }
    }

    fn set(&self, work: Option<Work>) {
        *self.work.lock().expect("no panic") = work;
    }
}

/// # Safety
/// The context is an [`Engine`].
unsafe extern "C" fn parallel_for(
    context: *mut c_void,
    count: usize,
    body: Option<unsafe extern "C" fn(*mut c_void, usize)>,
    argument: *mut c_void,
) {
    // SAFETY: as this function's.
    let engine = unsafe { &*context.cast::<Engine>() };
    let Some(body) = body else { return };
    engine.set(Some(Work { body, argument, count }));
    engine.barrier.wait();
    // SAFETY: as the library says.
    unsafe { body(argument, 0) };
    engine.barrier.wait();
}

fn callers_threads(_: &mut Criterion) {
    let (rows, cols) = if is_test() { (1024, 1024) } else { (131_072, 1024) };
    let x: Vec<f32> = (0..rows * cols).map(|i| (i % 1000) as f32 / 100.0).collect();
    let (mut y, mut z) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
    let engine = Engine::new(std::thread::available_parallelism().map_or(2, usize::from));
    let parallel = softmax_parallel {
        size: size_of::<softmax_parallel>(),
        context: std::ptr::from_ref(&engine).cast_mut().cast(),
        threads: engine.threads,
        parallel_for: Some(parallel_for),
    };
    let (rayon, own) = (options(0, std::ptr::null()), options(0, &parallel));
    std::thread::scope(|scope| {
        for index in 1..engine.threads {
            let engine = &engine;
            scope.spawn(move || engine.help(index));
        }
        c_call(&x, &mut y, cols, &rayon);
        c_call(&x, &mut z, cols, &own);
        assert_eq!(y, z);
        let (rayon, own) = in_turns(
            if is_test() { 1 } else { 31 },
            || c_call(&x, &mut y, cols, &rayon),
            || c_call(&x, &mut z, cols, &own),
        );
        let ms = |seconds: f64| seconds * 1e3;
        eprintln!(
            "{rows} x {cols} on {} threads: rayon's {:.1} ms, the caller's {:.1} ms, ratio of speeds {:.3}",
            engine.threads,
            ms(rayon),
            ms(own),
            rayon / own
        );
        engine.set(None);
        engine.barrier.wait();
    });
}

criterion_group!(benches, call, callers_threads);
criterion_main!(benches);
