//! What is read row by row, and of which less than a row is written.

use ::softmax::{Element, Error, Hardmax, LogProbs, Matrix, Softmax, TopK};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::array::{Array, Dtype, Float, Layout, LayoutMut, Output, Typed, tuple, typed};
use crate::options::{
    Along, Arg, Factor, MaskedRows, by_factor, count, exec, one_of, raised, run, run_rows,
};
use crate::rows::{copied, room, store};

/// Calls with the lanes along axes as rows of a matrix: where they are if they lie so, else in a
/// copy in C order.
pub fn with_rows<T: Float, R>(
    py: Python,
    x: &Layout,
    axes: &[usize],
    f: impl FnOnce(Matrix<T>) -> PyResult<R>,
) -> PyResult<R> {
    let n = axes.len();
    let x = x.clone().moved_last(axes);
    if let Some(rows) = x.clone().joined(n).and_then(|x| x.matrix()) {
        return f(rows);
    }
    let (outer, inner) = x.shape().split_at(x.shape().len() - n);
    let (rows, cols) = (outer.iter().product(), inner.iter().product());
    let copy = copied::<T>(py, x.view())?;
    f(Matrix::with_stride(&copy, rows, cols, cols).map_err(raised)?)
}

/// Calls with the elements of an output in C order, and stores them where they do not lie so.
pub fn with_slice<T: Typed, R>(
    py: Python,
    mut y: LayoutMut,
    zero: T,
    f: impl FnOnce(&mut [T]) -> PyResult<R>,
) -> PyResult<R> {
    if let Some(slice) = y.slice() {
        return f(slice);
    }
    let mut copy = room(y.get().len(), zero)?;
    let done = f(&mut copy)?;
    store(py, &copy, y.view())?;
    Ok(done)
}

/// The shape without axes, or with ones in their place.
pub fn reduced(shape: &[usize], axes: &[usize], keepdims: bool) -> Vec<usize> {
    let kept = |(axis, &n): (usize, &usize)| match axes.contains(&axis) {
        false => Some(n),
        true => keepdims.then_some(1),
    };
    shape.iter().enumerate().filter_map(kept).collect()
}

/// Rows, and so many numbers of an output for each.
struct Each<'a, T, U> {
    x: Matrix<'a, T>,
    y: &'a mut [U],
    of_row: usize,
}

impl<T, U> Each<'_, T, U> {
    fn split(self, at: usize) -> (Self, Self) {
        let (x, x_rest) = self.x.split_rows(at);
        let (y, y_rest) = self.y.split_at_mut(at * self.of_row);
        let of_row = self.of_row;
        (Self { x, y, of_row }, Self { x: x_rest, y: y_rest, of_row })
    }
}

fn each_row<T: Float, U: Send>(
    py: Python,
    x: Matrix<T>,
    y: &mut [U],
    of_row: usize,
    f: impl Fn(Matrix<T>, &mut [U]) -> Result<(), Error> + Sync,
) -> PyResult<()> {
    let shape = (x.rows(), x.cols());
    run_rows(py, shape, Each { x, y, of_row }, Each::split, |part| f(part.x, part.y))
}

/// ln(sum(exp(x))) along an axis.
#[pyfunction]
#[pyo3(signature = (x, axis=Along::Last, keepdims=false, *, scale=None, temperature=None, out=None, threads=None, kernel=None),
    text_signature = "(x, axis=-1, keepdims=False, *, scale=None, temperature=None, out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn logsumexp<'py>(
    x: &Bound<'py, PyAny>,
    axis: Along,
    keepdims: bool,
    scale: Arg<'_, 'py>,
    temperature: Arg<'_, 'py>,
    out: Option<&Bound<'py, PyAny>>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = x.py();
    let op =
        by_factor!(Softmax::new().exec(exec(threads, kernel)?), Factor::new(scale, temperature)?);
    let x = Array::input(x, "x")?;
    let axes = axis.of(x.shape().len())?;
    let mut y = Output::of(&x, out, &reduced(x.shape(), &axes, keepdims), x.dtype())?;
    let layout = x.layout().at_least_one_axis();
    typed!(x.dtype(), T => with_rows::<T, _>(py, &layout, &axes, |rows| {
        with_slice::<T, _>(py, y.layout(), num::<T>(0.0), |y| {
            each_row(py, rows, y, 1, |x, y| op.logsumexp(x, y))
        })
    }))?;
    y.finish()
}

fn num<T: Float>(x: f64) -> T {
    T::from_f64(x)
}

/// Where the largest element along an axis is: the first of equals, or of NaNs.
#[pyfunction]
#[pyo3(signature = (x, axis=Along::Last, keepdims=false, *, threads=None, kernel=None),
    text_signature = "(x, axis=-1, keepdims=False, *, threads=None, kernel=None)")]
pub fn argmax<'py>(
    x: &Bound<'py, PyAny>,
    axis: Along,
    keepdims: bool,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = x.py();
    let op = Hardmax::new().exec(exec(threads, kernel)?);
    let x = Array::input(x, "x")?;
    let axes = axis.of(x.shape().len())?;
    let layout = x.layout().at_least_one_axis();
    let indices = typed!(x.dtype(), T => with_rows::<T, _>(py, &layout, &axes, |rows| {
        let mut indices = room(rows.rows(), 0usize)?;
        each_row(py, rows, &mut indices, 1, |x, y| op.argmax(x, y))?;
        Ok(indices)
    }))?;
    indices_like(&x, &reduced(x.shape(), &axes, keepdims), &indices)
}

/// Indices as an array of the same kind as `x`; -1 for none.
pub fn indices_like<'py>(
    x: &Array<'py>,
    shape: &[usize],
    indices: &[usize],
) -> PyResult<Bound<'py, PyAny>> {
    let mut y = Output::new(x, shape, Dtype::I64)?;
    if let Some(y) = y.layout().slice::<i64>() {
        // `usize::MAX`, where there is nothing to draw, is -1.
        y.iter_mut().zip(indices).for_each(|(y, &index)| *y = index as i64);
    }
    y.finish()
}

/// What `top_k` returns beside the indices.
#[derive(Clone, Copy)]
pub enum Values {
    Probs,
    LogProbs,
    Logits,
}

impl<'py> FromPyObject<'_, 'py> for Values {
    type Error = PyErr;

    fn extract(x: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let names =
            [("probs", Self::Probs), ("log_probs", Self::LogProbs), ("logits", Self::Logits)];
        one_of(&x, "values", &names)
    }
}

/// The k largest elements along an axis: their probabilities, and where they are.
#[pyfunction]
#[pyo3(signature = (x, k, axis=Along::Last, *, values=Values::Probs, scale=None, temperature=None, masked=MaskedRows::default(), threads=None, kernel=None),
    text_signature = "(x, k, axis=-1, *, values='probs', scale=None, temperature=None, masked='nan', threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn top_k<'py>(
    x: &Bound<'py, PyAny>,
    k: &Bound<'py, PyAny>,
    axis: Along,
    values: Values,
    scale: Arg<'_, 'py>,
    temperature: Arg<'_, 'py>,
    masked: MaskedRows,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let py = x.py();
    let k = count(Some(k), "k")?.unwrap_or(0);
    let op = TopK::new(k).masked(masked.0).exec(exec(threads, kernel)?);
    let op = by_factor!(op, Factor::new(scale, temperature)?);
    let x = Array::input(x, "x")?;
    let axes = axis.of(x.shape().len())?;
    let [axis] = axes[..] else {
        return Err(PyValueError::new_err("top_k goes along one axis"));
    };
    let layout = x.layout().at_least_one_axis();
    let len = layout.shape()[axis];
    if k > len {
        return Err(PyValueError::new_err(format!("k must be at most {len}, got {k}")));
    }
    // Results have the axis last, and are moved where it was.
    let mut shape = reduced(x.shape(), &axes, false);
    shape.push(k);
    let dtype = match values {
        Values::Logits => x.dtype(),
        _ => x.dtype().arithmetic(),
    };
    let mut y = Output::new(&x, &shape, dtype)?;
    let indices = typed!(x.dtype(), T => with_rows::<T, _>(py, &layout, &axes, |rows| {
        let n = rows.rows() * k;
        let mut indices = room(n, 0usize)?;
        let elements = rows.rows() * rows.cols();
        if let Values::Logits = values {
            run(py, elements, || op.indices(rows, &mut indices))?;
            let mut y = y.layout();
            if let Some(y) = y.slice::<T>() {
                for (i, (y, &column)) in y.iter_mut().zip(&indices).enumerate() {
                    *y = rows.row(i / k)[column];
                }
            }
            return Ok(indices);
        }
        let zero = <T as Float>::Sums::from_f64(0.0);
        with_slice::<<T as Float>::Sums, _>(py, y.layout(), zero, |y| {
            run(py, elements, || match values {
                Values::LogProbs => op.log_probs(rows, y, &mut indices),
                _ => op.probs(rows, y, &mut indices),
            })
        })?;
        Ok(indices)
    }))?;
    let indices = indices_like(&x, &shape, &indices)?;
    let values = y.finish()?;
    let last = shape.len() - 1;
    if axis == last || x.shape().is_empty() {
        return Ok((values, indices));
    }
    let moved = |y: Bound<'py, PyAny>| -> PyResult<Bound<'py, PyAny>> {
        let space = py.import(if y.hasattr("movedim")? { "torch" } else { "numpy" })?;
        let name = if y.hasattr("movedim")? { "movedim" } else { "moveaxis" };
        space.call_method1(name, (y, -1, axis))
    };
    Ok((moved(values)?, moved(indices)?))
}

/// Labels or tokens: what they are, and in C order.
pub fn columns<'a>(tokens: &'a Array, name: &str) -> PyResult<std::borrow::Cow<'a, [i64]>> {
    match tokens.dtype() {
        Dtype::I64 => Ok(tokens.layout().in_order()),
        other => {
            Err(PyTypeError::new_err(format!("{name} must be integers, got {}", other.name())))
        }
    }
}

/// The log-probabilities of some elements of each row.
#[pyfunction]
#[pyo3(signature = (logits, tokens, *, scale=None, temperature=None, masked=MaskedRows::default(), out=None, threads=None, kernel=None),
    text_signature = "(logits, tokens, *, scale=None, temperature=None, masked='nan', out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn log_probs<'py>(
    logits: &Bound<'py, PyAny>,
    tokens: &Bound<'py, PyAny>,
    scale: Arg<'_, 'py>,
    temperature: Arg<'_, 'py>,
    masked: MaskedRows,
    out: Option<&Bound<'py, PyAny>>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = logits.py();
    let op = LogProbs::new().masked(masked.0).exec(exec(threads, kernel)?);
    let op = by_factor!(op, Factor::new(scale, temperature)?);
    let x = Array::input(logits, "logits")?;
    let tokens = Array::labels(tokens, "tokens")?;
    let layout = x.layout().at_least_one_axis();
    let last = layout.shape().len() - 1;
    let outer = &layout.shape()[..last];
    let of_row = match tokens.shape() {
        shape if shape == outer => 1,
        shape if shape.len() == outer.len() + 1 && shape[..outer.len()] == *outer => {
            shape[outer.len()]
        }
        shape => {
            return Err(PyValueError::new_err(format!(
                "tokens must have shape {} or one more axis, got {}",
                tuple(outer),
                tuple(shape)
            )));
        }
    };
    let cols = layout.shape()[last];
    let given = columns(&tokens, "tokens")?;
    let mut indices = room(given.len(), 0usize)?;
    for (i, (to, &token)) in indices.iter_mut().zip(given.iter()).enumerate() {
        *to = usize::try_from(token).ok().filter(|&token| token < cols).ok_or_else(|| {
            let row = i / of_row;
            PyValueError::new_err(format!("row {row}: token {token} is none of {cols} columns"))
        })?;
    }
    let mut y = Output::of(&x, out, tokens.shape(), x.dtype().arithmetic())?;
    y.apart(&tokens, "tokens")?;
    typed!(x.dtype(), T => with_rows::<T, _>(py, &layout, &[last], |rows| {
        let zero = <T as Float>::Sums::from_f64(0.0);
        with_slice::<<T as Float>::Sums, _>(py, y.layout(), zero, |y| {
            let elements = rows.rows() * rows.cols();
            run(py, elements, || op.log_probs(rows, &indices, y))
        })
    }))?;
    y.finish()
}

/// exp(-mean(log_probs)).
#[pyfunction]
pub fn perplexity(log_probs: &Bound<PyAny>) -> PyResult<f64> {
    let x = Array::input(log_probs, "log_probs")?;
    typed!(x.dtype(), T => {
        let values = x.layout().in_order::<T>();
        run(log_probs.py(), values.len(), || Ok(::softmax::perplexity(&values)))
    })
}
