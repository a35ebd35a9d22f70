//! Functions with the default options. [`Softmax`] and the other types have the options.

use crate::{Element, Error, Hardmax, Matrix, MatrixMut, Sigmoid, Softmax};

/// A slice as one row.
fn row<T>(x: &[T]) -> Result<Matrix<'_, T>, Error> {
    Matrix::with_stride(x, 1, x.len(), x.len())
}

fn row_mut<T>(x: &mut [T]) -> Result<MatrixMut<'_, T>, Error> {
    let n = x.len();
    MatrixMut::with_stride(x, 1, n, n)
}

/// The softmax of one row: `y_i = exp(x_i) / sum_j exp(x_j)`.
///
/// Error: at most 3 ULP (f16: 0.53, bf16: 0.51).
///
/// # Errors
/// [`Error::Shape`] if the lengths differ.
///
/// ```
/// let mut p = [0.0f64; 3];
/// softmax::softmax(&[-0.62, 8.12, 2.53], &mut p)?;
/// assert_eq!(p.map(|p| (p * 1e6).round() / 1e6), [0.000159, 0.99612, 0.003721]);
///
/// // The two-class case is the sigmoid: softmax([x, 0])[0] = 1 / (1 + exp(-x)).
/// softmax::softmax(&[1.5, 0.0], &mut p[..2])?;
/// assert!((p[0] - 1.0 / (1.0 + f64::exp(-1.5))).abs() < 1e-15);
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn softmax<T: Element>(x: &[T], y: &mut [T]) -> Result<(), Error> {
    Softmax::new().softmax(row(x)?, row_mut(y)?)
}

/// [`softmax`] of one row, in place. The same bits.
///
/// # Errors
/// None but those of the environment variable `SOFTMAX_KERNEL`.
///
/// ```
/// let mut x = [1.0f32; 4];
/// softmax::softmax_in_place(&mut x)?;
/// assert!(x.iter().all(|v| *v == x[0]));
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn softmax_in_place<T: Element>(x: &mut [T]) -> Result<(), Error> {
    Softmax::new().softmax_in_place(row_mut(x)?)
}

/// [`softmax`] of every row of a matrix of `cols` columns, without padding, on as many threads as
/// are worthwhile.
///
/// # Errors
/// [`Error::Shape`] if `cols` does not divide the lengths, or they differ.
///
/// ```
/// let mut y = [0.0f32; 6];
/// softmax::softmax_rows(&[1.0, 2.0, 3.0, 3.0, 2.0, 1.0], &mut y, 3)?;
/// assert_eq!(y[0], y[5]);
/// assert!(softmax::softmax_rows(&[1.0; 6], &mut y, 4).is_err());
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn softmax_rows<T: Element>(x: &[T], y: &mut [T], cols: usize) -> Result<(), Error> {
    Softmax::new().softmax(Matrix::new(x, cols)?, MatrixMut::new(y, cols)?)
}

/// [`softmax_rows`] in place. The same bits.
///
/// # Errors
/// [`Error::Shape`] if `cols` does not divide the length.
///
/// ```
/// let mut x = [1.0f32; 4];
/// softmax::softmax_rows_in_place(&mut x, 2)?;
/// assert!(x.iter().all(|v| *v == x[0]));
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn softmax_rows_in_place<T: Element>(x: &mut [T], cols: usize) -> Result<(), Error> {
    Softmax::new().softmax_in_place(MatrixMut::new(x, cols)?)
}

/// The log-softmax of one row: `y_i = x_i - ln(sum_j exp(x_j))`.
///
/// Error: at most 2 ULP or 1e-7 in f32, 3 ULP or 3e-16 in f64, whichever is larger; in f16 and bf16
/// at most 0.51 ULP of the type and 1e-7 on top.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ.
///
/// ```
/// let mut y = [0.0f64; 2];
/// softmax::log_softmax(&[3.0, 3.0], &mut y)?;
/// assert_eq!(y, [-std::f64::consts::LN_2; 2]);
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn log_softmax<T: Element>(x: &[T], y: &mut [T]) -> Result<(), Error> {
    Softmax::new().log_softmax(row(x)?, row_mut(y)?)
}

/// [`log_softmax`] of one row, in place. The same bits.
///
/// # Errors
/// None but those of the environment variable `SOFTMAX_KERNEL`.
///
/// ```
/// let mut x = [1.0f32; 4];
/// softmax::log_softmax_in_place(&mut x)?;
/// assert!(x.iter().all(|v| *v == x[0]));
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn log_softmax_in_place<T: Element>(x: &mut [T]) -> Result<(), Error> {
    Softmax::new().log_softmax_in_place(row_mut(x)?)
}

/// [`log_softmax`] of every row of a matrix of `cols` columns, without padding, on as many threads
/// as are worthwhile.
///
/// # Errors
/// [`Error::Shape`] if `cols` does not divide the lengths, or they differ.
///
/// ```
/// let mut y = [0.0f32; 6];
/// softmax::log_softmax_rows(&[1.0, 2.0, 3.0, 3.0, 2.0, 1.0], &mut y, 3)?;
/// assert_eq!(y[0], y[5]);
/// assert!(softmax::log_softmax_rows(&[1.0; 6], &mut y, 4).is_err());
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn log_softmax_rows<T: Element>(x: &[T], y: &mut [T], cols: usize) -> Result<(), Error> {
    Softmax::new().log_softmax(Matrix::new(x, cols)?, MatrixMut::new(y, cols)?)
}

/// [`log_softmax_rows`] in place. The same bits.
///
/// # Errors
/// [`Error::Shape`] if `cols` does not divide the length.
///
/// ```
/// let mut x = [1.0f32; 4];
/// softmax::log_softmax_rows_in_place(&mut x, 2)?;
/// assert!(x.iter().all(|v| *v == x[0]));
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn log_softmax_rows_in_place<T: Element>(x: &mut [T], cols: usize) -> Result<(), Error> {
    Softmax::new().log_softmax_in_place(MatrixMut::new(x, cols)?)
}

/// The log-sum-exp of one row: `ln(sum_j exp(x_j))`; `-inf` for an empty row.
///
/// Error: at most 2 ULP or 1e-7 in f32, 3 ULP or 3e-16 in f64, whichever is larger; in f16 and bf16
/// at most 0.51 ULP of the type and 1e-7 on top.
///
/// # Errors
/// None but those of the environment variable `SOFTMAX_KERNEL`.
///
/// ```
/// assert_eq!(softmax::logsumexp(&[1000.0f32])?, 1000.0);
/// assert_eq!(softmax::logsumexp(&[0.0f64, 0.0])?, std::f64::consts::LN_2);
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn logsumexp<T: Element>(x: &[T]) -> Result<T, Error> {
    let mut y = [T::ZERO];
    Softmax::new().logsumexp(row(x)?, &mut y)?;
    Ok(y[0])
}

/// The log-sum-exp of every row of a matrix of `cols` columns, one value per row.
///
/// # Errors
/// [`Error::Shape`] if `cols` does not divide the length of `x`, or `y` has not one element per
/// row.
///
/// ```
/// let mut y = [0.0f64; 2];
/// softmax::logsumexp_rows(&[0.0, 0.0, 5.0, f64::NEG_INFINITY], &mut y, 2)?;
/// assert_eq!(y, [std::f64::consts::LN_2, 5.0]);
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn logsumexp_rows<T: Element>(x: &[T], y: &mut [T], cols: usize) -> Result<(), Error> {
    Softmax::new().logsumexp(Matrix::new(x, cols)?, y)
}

/// The sigmoid of every element of a row or of a whole matrix: `y_i = 1 / (1 + exp(-x_i))`.
///
/// Error: at most 3 ULP (f16, bf16: 0.51).
///
/// # Errors
/// [`Error::Shape`] if the lengths differ.
///
/// ```
/// let mut y = [0.0f32; 4];
/// softmax::sigmoid(&[f32::NEG_INFINITY, -1.0, 0.0, 50.0], &mut y)?;
/// assert_eq!(y.map(|y| (y * 1e4).round() / 1e4), [0.0, 0.2689, 0.5, 1.0]);
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn sigmoid<T: Element>(x: &[T], y: &mut [T]) -> Result<(), Error> {
    Sigmoid::new().sigmoid(row(x)?, row_mut(y)?)
}

/// [`sigmoid`] in place. The same bits.
///
/// # Errors
/// None but those of the environment variable `SOFTMAX_KERNEL`.
///
/// ```
/// let mut x = [0.0f64; 3];
/// softmax::sigmoid_in_place(&mut x)?;
/// assert_eq!(x, [0.5; 3]);
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn sigmoid_in_place<T: Element>(x: &mut [T]) -> Result<(), Error> {
    Sigmoid::new().sigmoid_in_place(row_mut(x)?)
}

/// The logarithm of the sigmoid of every element: `y_i = -ln(1 + exp(-x_i))`, without overflow.
///
/// Error: at most 1 ULP in f32, 3 ULP in f64.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ.
///
/// ```
/// let mut y = [0.0f32; 3];
/// softmax::log_sigmoid(&[-1e30, 0.0, 1e30], &mut y)?;
/// assert_eq!(y, [-1e30, -std::f32::consts::LN_2, 0.0]);
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn log_sigmoid<T: Element>(x: &[T], y: &mut [T]) -> Result<(), Error> {
    Sigmoid::new().log_sigmoid(row(x)?, row_mut(y)?)
}

/// [`log_sigmoid`] in place. The same bits.
///
/// # Errors
/// None but those of the environment variable `SOFTMAX_KERNEL`.
///
/// ```
/// let mut x = [0.0f64; 3];
/// softmax::log_sigmoid_in_place(&mut x)?;
/// assert_eq!(x, [-std::f64::consts::LN_2; 3]);
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn log_sigmoid_in_place<T: Element>(x: &mut [T]) -> Result<(), Error> {
    Sigmoid::new().log_sigmoid_in_place(row_mut(x)?)
}

/// The index of the largest element: the first of several equal ones, or the first NaN.
///
/// # Errors
/// [`Error::Value`] if there are no elements.
///
/// ```
/// assert_eq!(softmax::argmax(&[1.0f32, 3.0, 2.0, 3.0])?, 1);
/// assert!(softmax::argmax::<f32>(&[]).is_err());
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn argmax<T: Element>(x: &[T]) -> Result<usize, Error> {
    let mut index = [0];
    Hardmax::new().argmax(row(x)?, &mut index)?;
    Ok(index[0])
}

/// [`argmax`] of every row of a matrix of `cols` columns, without padding: one index per row.
///
/// # Errors
/// [`Error::Shape`] if `cols` does not divide the length of `x`, or there is not one index per row;
/// [`Error::Value`] if rows have no elements.
///
/// ```
/// let mut indices = [0; 2];
/// softmax::argmax_rows(&[1.0f32, 3.0, 2.0, 5.0, 4.0, 5.0], &mut indices, 3)?;
/// assert_eq!(indices, [1, 0]);
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn argmax_rows<T: Element>(x: &[T], indices: &mut [usize], cols: usize) -> Result<(), Error> {
    Hardmax::new().argmax(Matrix::new(x, cols)?, indices)
}

/// The [`softmax()`] of one row, in a new vector.
///
/// # Errors
/// [`Error::Memory`] if there is none.
///
/// ```
/// assert_eq!(softmax::probs(&[1.0f32, 1.0])?, [0.5, 0.5]);
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn probs<T: Element>(x: &[T]) -> Result<Vec<T>, Error> {
    let mut y = buffer(x)?;
    softmax(x, &mut y)?;
    Ok(y)
}

/// [`probs`] of every row of a matrix of `cols` columns, without padding.
///
/// # Errors
/// [`Error::Shape`] if `cols` does not divide the length, [`Error::Memory`].
///
/// ```
/// let probs = softmax::probs_rows(&[1.0f64, 1.0, 3.0, f64::NEG_INFINITY], 2)?;
/// assert_eq!(probs, [0.5, 0.5, 1.0, 0.0]);
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn probs_rows<T: Element>(x: &[T], cols: usize) -> Result<Vec<T>, Error> {
    let mut y = buffer(x)?;
    softmax_rows(x, &mut y, cols)?;
    Ok(y)
}

/// The [`log_softmax`] of one row, in a new vector.
///
/// # Errors
/// [`Error::Memory`] if there is none.
///
/// ```
/// assert_eq!(softmax::log_probs(&[3.0f64, 3.0])?, [-std::f64::consts::LN_2; 2]);
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn log_probs<T: Element>(x: &[T]) -> Result<Vec<T>, Error> {
    let mut y = buffer(x)?;
    log_softmax(x, &mut y)?;
    Ok(y)
}

/// [`log_probs`] of every row of a matrix of `cols` columns, without padding.
///
/// # Errors
/// [`Error::Shape`] if `cols` does not divide the length, [`Error::Memory`].
///
/// ```
/// let log_probs = softmax::log_probs_rows(&[3.0f64, 3.0, 0.0, f64::NEG_INFINITY], 2)?;
/// assert_eq!(log_probs[2..], [0.0, f64::NEG_INFINITY]);
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn log_probs_rows<T: Element>(x: &[T], cols: usize) -> Result<Vec<T>, Error> {
    let mut y = buffer(x)?;
    log_softmax_rows(x, &mut y, cols)?;
    Ok(y)
}

/// A vector for as many elements as `x` has.
fn buffer<T: Element>(x: &[T]) -> Result<Vec<T>, Error> {
    let mut y = Vec::new();
    y.try_reserve_exact(x.len()).map_err(|_| Error::memory(x.len()))?;
    y.resize(x.len(), T::ZERO);
    Ok(y)
}
