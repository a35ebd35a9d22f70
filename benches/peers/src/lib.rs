//! One C function, so that a Python script can run the library and its peers in one process.

use softmax::{Matrix, MatrixMut, Softmax, Threads};

/// Softmax of `rows` rows of `cols` f32 on one thread, by the kernel that `SOFTMAX_KERNEL` names or
/// the best. Returns 0, or -1 if the call was refused.
///
/// # Safety
/// `x` is valid for reads and `y` for writes of `rows * cols` elements; they do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_peers_f32(
    x: *const f32,
    y: *mut f32,
    rows: usize,
    cols: usize,
) -> i32 {
    // SAFETY: what the caller vouches for.
    let (x, y) = unsafe {
        (
            std::slice::from_raw_parts(x, rows * cols),
            std::slice::from_raw_parts_mut(y, rows * cols),
        )
    };
    let done = Matrix::new(x, cols).and_then(|x| Ok((x, MatrixMut::new(y, cols)?)));
    match done.map(|(x, y)| Softmax::new().threads(Threads::Serial).softmax(x, y)) {
        Ok(Ok(())) => 0,
        _ => -1,
    }
}
