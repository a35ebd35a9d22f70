//! Calls that are lent as much scratch memory as the library says allocate nothing, on a thread
//! that has no memory yet.

#[path = "../../tests/common/counting.rs"]
mod counting;

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};

use counting::COUNT;
use softmax_capi::*;

/// The caller's threads are the calling thread, whose allocations are counted.
unsafe extern "C" fn alone(
    _: *mut c_void,
    count: usize,
    body: Option<unsafe extern "C" fn(argument: *mut c_void, index: usize)>,
    argument: *mut c_void,
) {
    let body = body.expect("something to do");
    // SAFETY: the call that this serves has not returned.
    (0..count).for_each(|index| unsafe { body(argument, index) });
}

fn new_options() -> softmax_options {
    let mut options = std::mem::MaybeUninit::<softmax_options>::zeroed();
    // SAFETY: numbers and pointers, for which 0 is a value.
    let options = unsafe { options.assume_init_mut() };
    softmax_options { size: size_of::<softmax_options>(), scale: 1.0, temperature: 1.0, ..*options }
}

/// The names of the kernels that this CPU can run, but for the reference, which allocates.
fn kernels() -> Vec<*const c_char> {
    let mut names = Vec::new();
    for index in 0.. {
        let (mut name, mut available) = (null(), 0);
        // SAFETY: both places are there.
        let status = unsafe { softmax_kernel(index, &raw mut name, &raw mut available) };
        if status != softmax_status::Ok {
            return names;
        }
        // SAFETY: a name is never null.
        if available != 0 && unsafe { CStr::from_ptr(name) } != c"scalar" {
            names.push(name);
        }
    }
    unreachable!("there are not so many kernels");
}

/// Makes a call in scratch memory of the size that another one says, on a new thread.
fn lent(
    what: &str,
    options: &softmax_options,
    size: impl Fn(*mut usize, *const softmax_options) -> softmax_status,
    call: impl Fn(*const softmax_options) -> softmax_status,
) {
    let mut needed = 0;
    assert_eq!(size(&raw mut needed, options), softmax_status::Ok, "{what}: its size");
    // At an odd address; with one byte less it is refused.
    let mut memory = vec![0u8; needed + 1];
    let mut options = *options;
    options.scratch = memory[1..].as_mut_ptr().cast();
    options.scratch_size = needed - 1;
    assert_eq!(call(&raw const options), softmax_status::Scratch, "{what}: one byte less");
    options.scratch_size = needed;
    /// Pointers of a call that outlives the thread.
    struct Parts<F>(F, softmax_options);
    // SAFETY: the thread that has them waits for the one that uses them.
    unsafe impl<F> Send for Parts<F> {}
    let parts = Parts(&call, options);
    let (status, count) = std::thread::scope(|scope| {
        let counted = scope.spawn(|| {
            let parts = parts;
            let Parts(call, options) = parts;
            let before = COUNT.get();
            let status = call(&raw const options);
            (status, COUNT.get() - before)
        });
        counted.join().expect("no panic")
    });
    assert_eq!((status, count), (softmax_status::Ok, 0), "{what}: status and allocations");
}

/// All functions that need memory, for a matrix, or the tensor of two dimensions that it is.
fn calls(options: &softmax_options, dtype: softmax_dtype, rows: usize, cols: usize) {
    let n = rows * cols;
    let bytes = if dtype == SOFTMAX_F64 { 8 } else { 4 };
    // Elements of 0: as many bytes as the largest type has.
    let (x, mut y) = (vec![0.0f64; n], vec![0.0f64; n]);
    let (x, y): (*const c_void, *mut c_void) = (x.as_ptr().cast(), y.as_mut_ptr().cast());
    let size = size_of::<softmax_matrix>();
    let of = |data| softmax_matrix { size, data, dtype, rows, cols, stride: cols };
    let (m, to) = (of(x.cast_mut()), of(y));
    let (m, to, shape) = (&raw const m, &raw const to, [rows, cols]);
    let (shape, dims) = (shape.as_ptr(), 2usize);
    let k = 3.min(rows).min(cols);
    let (mut indices, mut values) = (vec![0usize; n], vec![0.0f64; 2 * n]);
    let (indices, values) = (indices.as_mut_ptr(), values.as_mut_ptr());
    let others = values.cast::<u8>().wrapping_add(bytes * n).cast();
    let values = values.cast::<c_void>();
    let (labels, mut losses) = (vec![0i64; rows.max(cols)], vec![0.0f64; rows.max(cols)]);
    let (labels, losses) = (labels.as_ptr(), losses.as_mut_ptr());
    let what = |name: &str| {
        // SAFETY: a name is never null.
        let kernel = unsafe { CStr::from_ptr(options.kernel) };
        let (scale, threads) = (options.scale, options.threads);
        format!("{name} of {rows} x {cols}, dtype {dtype}, {kernel:?}, {scale}, {threads} threads")
    };
    // SAFETY: the matrices, the tensors and the arrays have as many elements as the calls say.
    unsafe {
        for (name, op, f) in [
            ("softmax", SOFTMAX_OP_SOFTMAX, softmax_softmax as unsafe extern "C" fn(_, _, _) -> _),
            ("log-softmax", SOFTMAX_OP_LOG_SOFTMAX, softmax_log_softmax as _),
        ] {
            let size = |bytes, o| softmax_scratch_size(op, m, bytes, o);
            lent(&what(name), options, size, |o| f(m, to, o));
            lent(&what(name), options, size, |o| f(to, to, o));
        }
        let size = |bytes, o| softmax_scratch_size(SOFTMAX_OP_LOGSUMEXP, m, bytes, o);
        lent(&what("log-sum-exp"), options, size, |o| softmax_logsumexp(m, values, o));
        let top_size = |axis| {
            move |bytes, o| softmax_top_k_scratch_size(dtype, shape, dims, axis, k, bytes, o)
        };
        for (log_probs, probs) in
            [(null_mut(), null_mut()), (values, null_mut()), (null_mut(), values), (values, others)]
        {
            lent(&what("top-k"), options, top_size(1), |o| {
                softmax_top_k(m, k, log_probs, probs, indices, o)
            });
            for axis in [0, 1] {
                lent(&what("top-k along an axis"), options, top_size(axis), |o| {
                    softmax_top_k_axis(x, dtype, shape, dims, axis, k, log_probs, probs, indices, o)
                });
            }
        }
        let none = null();
        let size = |bytes, o| softmax_cross_entropy_scratch_size(m, bytes, o);
        for (losses, gradient) in [(null_mut(), null()), (losses, null()), (losses, to)] {
            lent(&what("loss"), options, size, |o| {
                softmax_cross_entropy_labels(m, labels, losses, null_mut(), gradient, none, o)
            });
        }
        for axis in [0, 1] {
            let size = |bytes, o| softmax_axis_scratch_size(dtype, shape, dims, axis, bytes, o);
            for (name, f) in [
                ("softmax", softmax_softmax_axis as unsafe extern "C" fn(_, _, _, _, _, _, _) -> _),
                ("log-softmax", softmax_log_softmax_axis as _),
                ("log-sum-exp", softmax_logsumexp_axis as _),
            ] {
                let what = what(&format!("{name} along axis {axis}"));
                lent(&what, options, size, |o| f(x, y, dtype, shape, dims, axis, o));
            }
            lent(&what("hardmax along an axis"), options, size, |o| {
                softmax_hardmax_axis(x, y, dtype, shape, dims, axis, SOFTMAX_TIES_SHARE, o)
            });
            lent(&what("argmax along an axis"), options, size, |o| {
                softmax_argmax_axis(x, indices, dtype, shape, dims, axis, o)
            });
            let size = |bytes, o| {
                softmax_cross_entropy_axis_scratch_size(dtype, shape, dims, axis, bytes, o)
            };
            for (losses, gradient) in [(null_mut(), null_mut()), (losses, null_mut()), (losses, y)]
            {
                let loss = null_mut();
                lent(&what("loss along an axis"), options, size, |o| {
                    softmax_cross_entropy_labels_axis(
                        x, dtype, shape, dims, axis, labels, losses, loss, gradient, none, o,
                    )
                });
                lent(&what("loss of probabilities along an axis"), options, size, |o| {
                    softmax_cross_entropy_probs_axis(
                        x, dtype, shape, dims, axis, x, losses, loss, gradient, none, o,
                    )
                });
            }
        }
    }
}

#[test]
fn the_counter_counts() {
    let before = COUNT.get();
    drop(std::hint::black_box(vec![1u8]));
    assert_eq!(COUNT.get(), before + 1);
}

#[test]
fn nothing_is_allocated_in_lent_memory() {
    let quick = std::env::var_os("SOFTMAX_TEST_QUICK").is_some();
    let own = softmax_parallel {
        size: size_of::<softmax_parallel>(),
        context: null_mut(),
        threads: 3,
        parallel_for: Some(alone),
    };
    for kernel in kernels() {
        // SAFETY: a name is never null.
        let slow = unsafe { CStr::from_ptr(kernel) } == c"portable";
        for (scale, threads) in [(1.0, 1), (1.0, 3), (-1.0, 1), (-1.0, 3)] {
            let mut options = new_options();
            (options.kernel, options.scale, options.threads) = (kernel, scale, threads);
            if threads > 1 {
                options.parallel = &raw const own;
                options.flags = SOFTMAX_THREADS_EXACT;
            }
            for (rows, cols) in [(5, 7), (100, 9), (40, 1000), (2, 20_000), (20_000, 2)] {
                // Under an emulator the largest take long; by the portable kernel one is enough.
                if rows * cols > 1000 && (quick || slow && rows != 2) {
                    continue;
                }
                for dtype in [SOFTMAX_F32, SOFTMAX_F64, SOFTMAX_BF16] {
                    calls(&options, dtype, rows, cols);
                }
            }
        }
    }
}
