//! C functions by which compare.py runs this library, other crates and the machine's limits in one
//! process. A matrix is `rows` rows of `cols` elements without gaps. A function that returns an
//! `i32` returns 0, or -1 if the call was refused or panicked.

use std::ffi::{CStr, c_char, c_void};
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{LazyLock, OnceLock};
use std::time::Instant;

use candle_core::{Device, Tensor};
use ndarray::{ArrayView2, ArrayViewMut2, Zip};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use rten_simd::SimdOp;
use softmax::half::{bf16, f16};
use softmax::{
    Attention, CrossEntropy, Element, Exec, Kernel, LogProbs, Mask, Matrix, MatrixMut, Sampler,
    Softmax, Threads,
};
use softmax_capi as _; // compare.py calls its functions
use tract_linalg::Func;
use tract_linalg::element_wise::ElementWise;
use tract_linalg::reduce::{MapReduce, Reduce};
use tract_linalg::routines::softmax_rows_f32;

/// The threads of all functions here; one number of threads per process.
static POOL: OnceLock<ThreadPool> = OnceLock::new();

/// The kernel whose loops are the machine's limits: the one with the widest vectors.
static WIDEST: LazyLock<&Kernel> = LazyLock::new(|| {
    let available = softmax::kernels().iter().find(|kernel| kernel.is_available());
    available.expect("the reference is always there")
});

fn guarded(f: impl FnOnce() -> Option<()>) -> i32 {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Some(())) => 0,
        _ => -1,
    }
}

/// Makes the pool. Call this once, first, and everything else from the same thread.
#[unsafe(no_mangle)]
pub extern "C" fn softmax_peers_start(threads: usize) -> i32 {
    guarded(|| {
        let pool = ThreadPoolBuilder::new().num_threads(threads);
        // A pool of one thread is the calling thread, so that no call is handed to another one.
        let pool = if threads == 1 { pool.use_current_thread() } else { pool };
        POOL.set(pool.build().ok()?).ok()
    })
}

/// The pool, and the setting of this library's threads.
fn pool() -> Option<(&'static ThreadPool, Threads)> {
    let pool = POOL.get()?;
    let serial = pool.current_num_threads() == 1;
    Some((pool, if serial { Threads::Serial } else { Threads::Auto }))
}

/// The way in which `softmax_peers_nt_copy` stores.
#[unsafe(no_mangle)]
pub extern "C" fn softmax_peers_nt_stores() -> *const c_char {
    let stores = match WIDEST.name() {
        "avx512" => c"AVX-512 stores",
        "avx2" => c"AVX stores",
        _ => c"ordinary stores: this kernel knows no others",
    };
    stores.as_ptr()
}

/// 1 if this CPU can run the kernel with this name, else 0.
///
/// # Safety
/// `name` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_peers_has_kernel(name: *const c_char) -> i32 {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    name.to_str().is_ok_and(|name| softmax::kernel(name).is_ok()).into()
}

/// This library: the softmax of every row, in place if `x == y`. `element` is 0 for f32, 1 for f16,
/// 2 for bf16, 3 for f64; a NULL `kernel` is the default one.
///
/// # Safety
/// `x` is valid for reads and `y` for writes of the matrix; they are equal or do not overlap.
/// `kernel` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_peers_ours(
    element: u32,
    kernel: *const c_char,
    x: *const c_void,
    y: *mut c_void,
    rows: usize,
    cols: usize,
) -> i32 {
    guarded(|| {
        let mut exec = Exec::new();
        if !kernel.is_null() {
            // SAFETY: the caller's promise.
            let name = unsafe { CStr::from_ptr(kernel) };
            exec = exec.kernel(softmax::kernel(name.to_str().ok()?).ok()?);
        }
        // SAFETY: the caller's promise, for each type.
        unsafe {
            match element {
                0 => ours::<f32>(exec, x.cast(), y.cast(), rows, cols),
                1 => ours::<f16>(exec, x.cast(), y.cast(), rows, cols),
                2 => ours::<bf16>(exec, x.cast(), y.cast(), rows, cols),
                3 => ours::<f64>(exec, x.cast(), y.cast(), rows, cols),
                _ => None,
            }
        }
    })
}

/// # Safety
/// As `softmax_peers_ours`.
unsafe fn ours<T: Element>(
    exec: Exec,
    x: *const T,
    y: *mut T,
    rows: usize,
    cols: usize,
) -> Option<()> {
    let (pool, threads) = pool()?;
    let softmax = Softmax::new().exec(exec.threads(threads));
    let done = if x == y.cast_const() {
        // SAFETY: the caller's promise.
        let y = unsafe { std::slice::from_raw_parts_mut(y, rows.checked_mul(cols)?) };
        let y = MatrixMut::new(y, cols).ok()?;
        pool.install(|| softmax.softmax_in_place(y))
    } else {
        // SAFETY: the caller's promise; not equal, they do not overlap.
        let (x, y) = unsafe { slices(x, y, rows, cols)? };
        let (x, y) = (Matrix::new(x, cols).ok()?, MatrixMut::new(y, cols).ok()?);
        pool.install(|| softmax.softmax(x, y))
    };
    done.ok()
}

/// This library along an axis: the matrix is a tensor of `rows / middle` x `middle` x `cols`.
///
/// # Safety
/// `x` is valid for reads and `y` for writes of the matrix; they do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_peers_axis(
    axis: isize,
    middle: usize,
    x: *const f32,
    y: *mut f32,
    rows: usize,
    cols: usize,
) -> i32 {
    guarded(|| {
        let (pool, threads) = pool()?;
        // SAFETY: the caller's promise.
        let (x, y) = unsafe { slices(x, y, rows, cols)? };
        let shape = [rows.checked_div(middle)?, middle, cols];
        let softmax = Softmax::new().exec(Exec::new().threads(threads));
        pool.install(|| softmax.softmax_axis(x, y, &shape, axis)).ok()
    })
}

/// This library on scores of `rows / queries` heads: causal if `mask` is NULL, else with that mask,
/// of `queries` rows, added for every head.
///
/// # Safety
/// `x` is valid for reads and `y` for writes of the matrix; they do not overlap. `mask` is NULL or
/// valid for reads of `queries * cols` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_peers_attention(
    mask: *const f32,
    queries: usize,
    x: *const f32,
    y: *mut f32,
    rows: usize,
    cols: usize,
) -> i32 {
    guarded(|| {
        let (pool, threads) = pool()?;
        // SAFETY: the caller's promise.
        let (x, y) = unsafe { slices(x, y, rows, cols)? };
        let attention = Attention::new(rows.checked_div(queries)?, queries);
        let attention = attention.exec(Exec::new().threads(threads));
        let attention = if mask.is_null() {
            attention.causal()
        } else {
            // SAFETY: the caller's promise.
            let mask = unsafe { std::slice::from_raw_parts(mask, queries.checked_mul(cols)?) };
            attention.mask(Mask::new(mask, [1, 1, queries]))
        };
        let (x, y) = (Matrix::new(x, cols).ok()?, MatrixMut::new(y, cols).ok()?);
        pool.install(|| attention.softmax(x, y)).ok()
    })
}

/// This library: the mean cross-entropy of rows of f32, whose gradient is written to `y`, or over
/// `x == y`.
///
/// # Safety
/// `x` is valid for reads and `y` for writes of the matrix; they are equal or do not overlap.
/// `labels` has one for each row, and `loss` is valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_peers_cross_entropy(
    labels: *const i64,
    loss: *mut f64,
    x: *const f32,
    y: *mut f32,
    rows: usize,
    cols: usize,
) -> i32 {
    guarded(|| {
        let (pool, threads) = pool()?;
        // SAFETY: the caller's promise.
        let labels = unsafe { std::slice::from_raw_parts(labels, rows) };
        let with = CrossEntropy::new().exec(Exec::new().threads(threads));
        let value = if x == y.cast_const() {
            // SAFETY: the caller's promise.
            let y = unsafe { std::slice::from_raw_parts_mut(y, rows.checked_mul(cols)?) };
            let y = MatrixMut::new(y, cols).ok()?;
            pool.install(|| with.gradient_in_place(y, labels)).ok()?
        } else {
            // SAFETY: the caller's promise; not equal, they do not overlap.
            let (x, y) = unsafe { slices(x, y, rows, cols)? };
            let (x, y) = (Matrix::new(x, cols).ok()?, MatrixMut::new(y, cols).ok()?);
            pool.install(|| with.gradient(x, labels, y)).ok()?
        };
        // SAFETY: the caller's promise.
        unsafe { loss.write(value) };
        Some(())
    })
}

/// This library: a token of each row of f32, by top-p at temperature 1.
///
/// # Safety
/// `x` is valid for reads of the matrix and `tokens` for writes of one for each row.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_peers_sample(
    top_p: f64,
    tokens: *mut usize,
    x: *const f32,
    rows: usize,
    cols: usize,
) -> i32 {
    guarded(|| {
        let (pool, threads) = pool()?;
        // SAFETY: the caller's promise.
        let (x, tokens) = unsafe {
            (
                std::slice::from_raw_parts(x, rows.checked_mul(cols)?),
                std::slice::from_raw_parts_mut(tokens, rows),
            )
        };
        let sampler = Sampler::new(1).top_p(top_p).exec(Exec::new().threads(threads));
        let x = Matrix::new(x, cols).ok()?;
        pool.install(|| sampler.sample(x, tokens)).ok()
    })
}

/// This library: the log-probability of a token of each row of bf16.
///
/// # Safety
/// `x` is valid for reads of the matrix, `tokens` of one for each row, `log_probs` for writes of as
/// many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_peers_log_probs(
    tokens: *const usize,
    log_probs: *mut f32,
    x: *const bf16,
    rows: usize,
    cols: usize,
) -> i32 {
    guarded(|| {
        let (pool, threads) = pool()?;
        // SAFETY: the caller's promise.
        let (x, tokens, log_probs) = unsafe {
            (
                std::slice::from_raw_parts(x, rows.checked_mul(cols)?),
                std::slice::from_raw_parts(tokens, rows),
                std::slice::from_raw_parts_mut(log_probs, rows),
            )
        };
        let x = Matrix::new(x, cols).ok()?;
        let of_tokens = LogProbs::new().exec(Exec::new().threads(threads));
        pool.install(|| of_tokens.log_probs(x, tokens, log_probs)).ok()
    })
}

/// Reads the matrix, whose elements are of `size` bytes, once.
///
/// # Safety
/// `x` is valid for reads of the matrix, and starts at a multiple of 4 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_peers_read(
    size: usize,
    x: *const c_void,
    rows: usize,
    cols: usize,
) -> i32 {
    guarded(|| {
        let words = rows.checked_mul(cols)?.checked_mul(size)? / 4;
        // SAFETY: the caller's promise.
        let x = unsafe { std::slice::from_raw_parts(x.cast::<f32>(), words) };
        let (pool, _) = pool()?;
        let part = words.div_ceil(pool.current_num_threads()).max(1);
        let read = |x: &[f32]| softmax::internal::limits(&WIDEST).read(x);
        black_box(pool.install(|| x.par_chunks(part).map(read).reduce(|| 0.0, f32::max)));
        Some(())
    })
}

/// # Safety
/// `x` is valid for reads and `y` for writes of the matrix; they do not overlap.
unsafe fn slices<'a, T>(
    x: *const T,
    y: *mut T,
    rows: usize,
    cols: usize,
) -> Option<(&'a [T], &'a mut [T])> {
    let len = rows.checked_mul(cols)?;
    // SAFETY: the caller's promise.
    unsafe { Some((std::slice::from_raw_parts(x, len), std::slice::from_raw_parts_mut(y, len))) }
}

/// Runs `f` on equal parts, one for each thread, which are multiples of `unit` elements except the
/// last.
fn in_parts(x: &[f32], y: &mut [f32], unit: usize, f: impl Fn(&[f32], &mut [f32]) + Sync) {
    let pool = POOL.get().expect("softmax_peers_start was called");
    let part = x.len().div_ceil(unit).div_ceil(pool.current_num_threads()) * unit;
    pool.install(|| x.par_chunks(part).zip(y.par_chunks_mut(part)).for_each(|(x, y)| f(x, y)));
}

macro_rules! from_x_to_y {
    ($($(#[$doc:meta])* $name:ident => $f:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// `x` is valid for reads and `y` for writes of the matrix; they do not overlap.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            x: *const f32,
            y: *mut f32,
            rows: usize,
            cols: usize,
        ) -> i32 {
            guarded(|| {
                // SAFETY: the caller's promise.
                let (x, y) = unsafe { slices(x, y, rows, cols)? };
                let run: fn(&[f32], &mut [f32], usize) = $f;
                run(x, y, cols);
                Some(())
            })
        }
    )*};
}

from_x_to_y! {
    /// The C library's memcpy.
    softmax_peers_memcpy => |x, y, _| in_parts(x, y, 16, |x, y| y.copy_from_slice(x));
    /// A copy with non-temporal stores.
    softmax_peers_nt_copy => |x, y, _| in_parts(x, y, 16, |x, y| softmax::internal::limits(&WIDEST).copy(x, y));
    /// rten-vecmath, row by row; equal parts of the rows on each thread.
    softmax_peers_rten => |x, y, cols| in_parts(x, y, cols, |x, y| {
        for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact_mut(cols)) {
            rten(x, y);
        }
    });
    /// ndarray, written as one would write it; equal parts of the rows on each thread.
    softmax_peers_ndarray => |x, y, cols| in_parts(x, y, cols, |x, y| {
        let shape = (x.len() / cols, cols);
        let x = ArrayView2::from_shape(shape, x).expect("whole rows");
        let mut y = ArrayViewMut2::from_shape(shape, y).expect("whole rows");
        Zip::from(x.rows()).and(y.rows_mut()).for_each(|x, mut y| {
            let max = x.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
            Zip::from(&mut y).and(x).for_each(|y, &x| *y = (x - max).exp());
            let sum = y.sum();
            y /= sum;
        });
    });
    /// tract-linalg's kernels, called as by tract's own softmax: the one for whole rows if there is
    /// one (not on x86), or else three. On a copy of the row, because they work in place; equal
    /// parts of the rows on each thread.
    softmax_peers_tract => |x, y, cols| in_parts(x, y, cols, |x, y| {
        let (max, exp_sum, multiply) = &*TRACT;
        let whole_rows = softmax_rows_f32().filter(|_| cols.is_multiple_of(4));
        for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact_mut(cols)) {
            y.copy_from_slice(x);
            if let Some(whole_rows) = whole_rows {
                whole_rows(y, cols);
                continue;
            }
            let max = max.run(y).expect("max");
            let sum = exp_sum.run_with_params(y, max).expect("exp and sum");
            multiply.run_with_params(y, sum.recip()).expect("multiply");
        }
    });
}

/// The maximum; exp(x - max) and its sum; a product with a scalar.
type Tract = (Box<dyn Reduce<f32>>, Box<dyn MapReduce<f32, f32>>, Box<dyn ElementWise<f32, f32>>);
static TRACT: LazyLock<Tract> = LazyLock::new(|| {
    let max = Func::ReduceMax.reduce_f32().expect("every CPU has it");
    let exp_sum = Func::Softmax2.map_reduce_f32().expect("every CPU has it");
    (max, exp_sum, Func::MulByScalar.ew_f32_param().expect("every CPU has it"))
});

/// rten-vecmath out of place, its faster form, because in place would need a copy first. Keep this
/// the only use: with a second one LLVM no longer inlines its loops, and it becomes four times
/// slower.
fn rten(x: &[f32], y: &mut [f32]) {
    // SAFETY: the same elements; rten-vecmath only ever writes initialised ones.
    let y = unsafe { &mut *(std::ptr::from_mut(y) as *mut [MaybeUninit<f32>]) };
    rten_vecmath::Softmax::new(x, y).dispatch();
}

/// The scale in place by a constant.
///
/// # Safety
/// `y` is valid for reads and writes of the matrix.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_peers_scale(y: *mut f32, rows: usize, cols: usize) -> i32 {
    guarded(|| {
        let pool = POOL.get()?;
        // SAFETY: the caller's promise.
        let y = unsafe { std::slice::from_raw_parts_mut(y, rows.checked_mul(cols)?) };
        let part = y.len().div_ceil(pool.current_num_threads());
        pool.install(|| {
            y.par_chunks_mut(part).for_each(|y| softmax::internal::limits(&WIDEST).scale(y, 0.9999))
        });
        Some(())
    })
}

/// A candle tensor with a copy of the matrix, to be freed by `softmax_peers_candle_free`; NULL if
/// that failed.
///
/// # Safety
/// `x` is valid for reads of the matrix.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_peers_candle_new(
    x: *const f32,
    rows: usize,
    cols: usize,
) -> *mut Tensor {
    let new = || {
        // SAFETY: the caller's promise.
        let x = unsafe { std::slice::from_raw_parts(x, rows.checked_mul(cols)?) };
        Tensor::from_slice(x, (rows, cols), &Device::Cpu).ok()
    };
    match catch_unwind(AssertUnwindSafe(new)) {
        Ok(Some(x)) => Box::into_raw(Box::new(x)),
        _ => std::ptr::null_mut(),
    }
}

/// candle's softmax over the last dimension, which allocates its output. Copies that to `y` unless
/// it is NULL.
///
/// # Safety
/// `x` is from `softmax_peers_candle_new`; `y` is NULL or valid for writes of the matrix.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_peers_candle_run(x: *const Tensor, y: *mut f32) -> i32 {
    guarded(|| {
        // SAFETY: the caller's promise.
        let x = unsafe { x.as_ref()? };
        let output = POOL.get()?.install(|| candle_nn::ops::softmax_last_dim(x)).ok()?;
        if !y.is_null() {
            let output = output.flatten_all().ok()?.to_vec1::<f32>().ok()?;
            // SAFETY: `y` is valid for writes of as many elements as `x` has, and the output was
            // just made.
            unsafe { y.copy_from_nonoverlapping(output.as_ptr(), output.len()) };
        }
        Some(())
    })
}

/// Frees the tensor.
///
/// # Safety
/// `x` is from `softmax_peers_candle_new` and not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_peers_candle_free(x: *mut Tensor) -> i32 {
    guarded(|| {
        // SAFETY: `x` came from `Box::into_raw` and is given back once.
        drop(unsafe { Box::from_raw(x) });
        Some(())
    })
}

/// Nanoseconds per call on one row: the mean of `reps` calls of this library (`peer` 0) or
/// rten-vecmath (1). NaN if that failed.
///
/// # Safety
/// `x` is valid for reads and `y` for writes of the row; they do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_peers_latency(
    peer: u32,
    x: *const f32,
    y: *mut f32,
    cols: usize,
    reps: usize,
) -> f64 {
    let mut ns = f64::NAN;
    guarded(|| {
        // SAFETY: the caller's promise.
        let (x, y) = unsafe { slices(x, y, 1, cols)? };
        let serial = Softmax::new().exec(Exec::new().threads(Threads::Serial));
        let start = Instant::now();
        if peer == 0 {
            for _ in 0..reps {
                let (x, y) = (black_box(x), black_box(&mut *y));
                serial.softmax(Matrix::new(x, cols).ok()?, MatrixMut::new(y, cols).ok()?).ok()?;
            }
        } else {
            for _ in 0..reps {
                rten(black_box(x), black_box(&mut *y));
            }
        }
        ns = start.elapsed().as_nanos() as f64 / reps as f64;
        Some(())
    });
    ns
}

/// Nanoseconds per call: the mean of `reps` calls of `softmax_softmax` of some build of this
/// library's C ABI. NaN if one failed.
///
/// # Safety
/// `function` is that function, and the other arguments are as it wants them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_peers_latency_c(
    function: unsafe extern "C" fn(*const c_void, *const c_void, *const c_void) -> i32,
    x: *const c_void,
    y: *const c_void,
    options: *const c_void,
    reps: usize,
) -> f64 {
    let start = Instant::now();
    for _ in 0..reps {
        // SAFETY: the caller's promise.
        if unsafe { function(x, y, options) } != 0 {
            return f64::NAN;
        }
    }
    start.elapsed().as_nanos() as f64 / reps as f64
}
