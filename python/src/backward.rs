//! Gradients: of softmax and log-softmax from their outputs, of entropies and divergences.

use ::softmax::{Backward, Error, Matrix, MatrixMut, Softmax};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::array::{Array, Float, LayoutMut, Output, alike, same_type, tuple, typed};
use crate::mask::{MaskArray, RowMask};
use crate::options::{
    Along, Arg, Factor, MaskedRows, RowFactors, by_factor, exec, flag, raised, run_rows,
    two_outputs,
};
use crate::reduce::{reduced, with_rows};
use crate::rows::{room, store};

/// What goes with rows, and is cut as they are.
trait Rows: Sized {
    fn split(self, at: usize) -> (Self, Self);
}

impl<T> Rows for Matrix<'_, T> {
    fn split(self, at: usize) -> (Self, Self) {
        self.split_rows(at)
    }
}

impl<T> Rows for MatrixMut<'_, T> {
    fn split(self, at: usize) -> (Self, Self) {
        self.split_rows(at)
    }
}

/// A number for each row.
impl<T> Rows for &[T] {
    fn split(self, at: usize) -> (Self, Self) {
        self.split_at(at)
    }
}

/// The number of the first row.
impl Rows for usize {
    fn split(self, at: usize) -> (Self, Self) {
        (self, self + at)
    }
}

impl<A: Rows, B: Rows> Rows for (A, B) {
    fn split(self, at: usize) -> (Self, Self) {
        let ((a, other_a), (b, other_b)) = (self.0.split(at), self.1.split(at));
        ((a, b), (other_a, other_b))
    }
}

impl<A: Rows, B: Rows, C: Rows> Rows for (A, B, C) {
    fn split(self, at: usize) -> (Self, Self) {
        let ((a, (b, c)), (other_a, (other_b, other_c))) = (self.0, (self.1, self.2)).split(at);
        ((a, b, c), (other_a, other_b, other_c))
    }
}

/// Calls with the lanes of an output along axes as rows of a matrix: where they are if they lie so
/// and `direct` allows it, else in memory that is stored once the call has succeeded.
fn with_rows_mut<T: Float>(
    py: Python,
    to: LayoutMut,
    axes: &[usize],
    direct: bool,
    f: impl FnOnce(MatrixMut<T>) -> PyResult<()>,
) -> PyResult<()> {
    let n = axes.len();
    let mut to = to.map(|to| to.at_least_one_axis().moved_last(axes));
    if direct
        && let Some(mut to) = to.copy_of().try_map(|to| to.joined(n))
        && let Some(rows) = to.matrix()
    {
        return f(rows);
    }
    let (outer, inner) = to.get().shape().split_at(to.get().shape().len() - n);
    let (rows, cols) = (outer.iter().product(), inner.iter().product());
    let mut copy = room(to.get().len(), T::ZERO)?;
    f(MatrixMut::with_stride(&mut copy, rows, cols, cols).map_err(raised)?)?;
    store(py, &copy, to.view())
}

/// The gradient with respect to x, from y = softmax(x) (or log_softmax(x)) and the gradient with
/// respect to y.
#[pyfunction]
#[pyo3(signature = (y, grad, axis=Along::Last, *, log=None, scale=None, temperature=None, out=None, threads=None, kernel=None),
    text_signature = "(y, grad, axis=-1, *, log=False, scale=None, temperature=None, out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn softmax_backward<'py>(
    y: &Bound<'py, PyAny>,
    grad: &Bound<'py, PyAny>,
    axis: Along,
    log: Arg<'_, 'py>,
    scale: Arg<'_, 'py>,
    temperature: Arg<'_, 'py>,
    out: Option<&Bound<'py, PyAny>>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = y.py();
    let log = flag(log, "log")?;
    let op = Backward::new().exec(exec(threads, kernel)?);
    let op = by_factor!(op, Factor::new(scale, temperature)?);
    let y = Array::input(y, "y")?;
    let grad = Array::input(grad, "grad")?;
    alike(&y, &grad, "grad", "y")?;
    let axes = axis.of(y.shape().len())?;
    let mut to = Output::beside(&y, "y", out)?;
    to.apart(&grad, "grad")?;
    let of_y = y.layout().at_least_one_axis();
    let of_grad = grad.layout().at_least_one_axis();
    typed!(y.dtype(), T => with_rows::<T, _>(py, &of_y, &axes, |y| {
        with_rows::<T, _>(py, &of_grad, &axes, |grad| {
            with_rows_mut::<T>(py, to.layout(), &axes, true, |to| {
                let shape = (y.rows(), y.cols());
                run_rows(py, shape, (y, grad, to), Rows::split, |(y, grad, to)| match log {
                    false => op.softmax(y, grad, to),
                    true => op.log_softmax(y, grad, to),
                })
            })
        })
    }))?;
    to.finish()
}

/// The gradient with respect to what each row of `x` became, which errors call `of`.
fn upstream_of<'py>(
    upstream: &Bound<'py, PyAny>,
    x: &Array,
    axes: &[usize],
    of: &str,
) -> PyResult<Array<'py>> {
    let upstream = Array::input(upstream, "upstream")?;
    same_type(x, &upstream, "upstream", of)?;
    let [shape, kept] = [false, true].map(|keepdims| reduced(x.shape(), axes, keepdims));
    if upstream.shape() != shape && upstream.shape() != kept {
        return Err(PyValueError::new_err(format!(
            "upstream must have shape {}, one for each row of {of}, got {}",
            tuple(&shape),
            tuple(upstream.shape())
        )));
    }
    Ok(upstream)
}

/// The gradient with respect to x, from x and the gradient with respect to its entropies, as
/// entropy gives them. These are not needed: they are computed again.
///
/// upstream: one number for each row, in the shape of the entropies, of the type of x.
/// scale, temperature: one number, or one for each row.
/// mask: bools (True: seen), or numbers that are 0 or -inf.
/// masked: what the gradients of rows of nothing but -inf are, "nan" or "zero".
/// out: where to write instead of a new array, in memory apart from x.
/// Other arguments as of entropy.
#[pyfunction]
#[pyo3(signature = (x, upstream, axis=Along::Last, *, scale=None, temperature=None, mask=None, bitmask=None, hidden_from=None, masked=MaskedRows::default(), out=None, threads=None, kernel=None),
    text_signature = "(x, upstream, axis=-1, *, scale=None, temperature=None, mask=None, bitmask=None, hidden_from=None, masked='nan', out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn entropy_backward<'py>(
    x: &Bound<'py, PyAny>,
    upstream: &Bound<'py, PyAny>,
    axis: Along,
    scale: Arg<'_, 'py>,
    temperature: Arg<'_, 'py>,
    mask: Arg<'_, 'py>,
    bitmask: Arg<'_, 'py>,
    hidden_from: Arg<'_, 'py>,
    masked: MaskedRows,
    out: Option<&Bound<'py, PyAny>>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = x.py();
    let op = Softmax::new().masked(masked.0).exec(exec(threads, kernel)?);
    let (factor, each) = RowFactors::new(scale, temperature)?;
    let op = by_factor!(op, factor);
    let x = Array::input(x, "x")?;
    let axes = axis.of(x.shape().len())?;
    let upstream = upstream_of(upstream, &x, &axes, "x")?;
    let mut to = Output::beside(&x, "x", out)?;
    to.apart(&upstream, "upstream")?;
    let mask = MaskArray::new(mask, bitmask, hidden_from)?;
    let mask = RowMask::of(&mask, &x, &axes, &[&to])?;
    let layout = x.layout().at_least_one_axis();
    if let Some(each) = &each {
        each.check(layout.shape(), &axes)?;
        // Row by row errors would count from the row's own first element.
        mask.as_ref().map_or(Ok(()), RowMask::check_hides)?;
    }
    let masked = |first, rows| match &mask {
        Some(mask) => op.mask(mask.of_rows(first, rows)),
        None => op,
    };
    typed!(x.dtype(), T => with_rows::<T, _>(py, &layout, &axes, |x| {
        let upstream = upstream.layout().in_order::<T>();
        // Of rows with a factor each the last may be wrong when others are done.
        with_rows_mut::<T>(py, to.layout(), &axes, each.is_none(), |to| {
            let work = (0, (x, &*upstream), to);
            run_rows(py, (x.rows(), x.cols()), work, Rows::split, |(first, (x, upstream), to)| {
                let Some(each) = &each else {
                    return masked(first, x.rows()).entropy_backward(x, upstream, to);
                };
                (first..first + x.rows()).try_fold(((x, upstream), to), |rest, row| {
                    let (((x, upstream), to), rest) = rest.split(1);
                    let op = each.of_row(masked(row, 1), row);
                    op.entropy_backward(x, upstream, to).map_err(|error| of_row(error, row))?;
                    Ok(rest)
                })?;
                Ok(())
            })
        })
    }))?;
    to.finish()
}

/// The error for a number of this row.
fn of_row(mut error: Error, row: usize) -> Error {
    if let Error::Value { index, .. } = &mut error {
        *index = Some(row);
    }
    error
}

/// The gradients with respect to p_logits and q_logits, from these and the gradient with respect to
/// their divergences, as kl_divergence gives them. These are not needed: they are computed again.
///
/// upstream: one number for each row, in the shape of the divergences, of the type of p_logits.
/// masked: what the gradients of rows of p of nothing but -inf are, "nan" or "zero".
/// out: two arrays to write instead of new ones, in memory apart from both logits.
/// Other arguments as of kl_divergence.
#[pyfunction]
#[pyo3(signature = (p_logits, q_logits, upstream, axis=Along::Last, *, scale=None, temperature=None, mask=None, bitmask=None, hidden_from=None, masked=MaskedRows::default(), out=None, threads=None, kernel=None),
    text_signature = "(p_logits, q_logits, upstream, axis=-1, *, scale=None, temperature=None, mask=None, bitmask=None, hidden_from=None, masked='nan', out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn kl_divergence_backward<'py>(
    p_logits: &Bound<'py, PyAny>,
    q_logits: &Bound<'py, PyAny>,
    upstream: &Bound<'py, PyAny>,
    axis: Along,
    scale: Arg<'_, 'py>,
    temperature: Arg<'_, 'py>,
    mask: Arg<'_, 'py>,
    bitmask: Arg<'_, 'py>,
    hidden_from: Arg<'_, 'py>,
    masked: MaskedRows,
    out: Arg<'_, 'py>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let py = p_logits.py();
    let op = Softmax::new().masked(masked.0).exec(exec(threads, kernel)?);
    let op = by_factor!(op, Factor::new(scale, temperature)?);
    let p = Array::input(p_logits, "p_logits")?;
    let q = Array::input(q_logits, "q_logits")?;
    alike(&p, &q, "q_logits", "p_logits")?;
    let axes = axis.of(p.shape().len())?;
    let upstream = upstream_of(upstream, &p, &axes, "p_logits")?;
    let out = two_outputs(out)?;
    let (of_p, of_q) = out.as_ref().map(|(of_p, of_q)| (of_p, of_q)).unzip();
    let mut of_p = Output::beside(&p, "p_logits", of_p)?;
    let mut of_q = Output::beside(&q, "q_logits", of_q)?;
    of_p.apart(&q, "q_logits")?;
    of_q.apart(&p, "p_logits")?;
    of_p.apart_from(&of_q, "the gradient of q_logits")?;
    for to in [&of_p, &of_q] {
        to.apart(&upstream, "upstream")?;
    }
    let mask = MaskArray::new(mask, bitmask, hidden_from)?;
    let mask = RowMask::of(&mask, &p, &axes, &[&of_p, &of_q])?;
    let dtype = p.dtype();
    let (p, q) = (p.layout().at_least_one_axis(), q.layout().at_least_one_axis());
    typed!(dtype, T => with_rows::<T, _>(py, &p, &axes, |p| with_rows::<T, _>(py, &q, &axes, |q| {
        let upstream = upstream.layout().in_order::<T>();
        with_rows_mut::<T>(py, of_p.layout(), &axes, true, |of_p| {
            with_rows_mut::<T>(py, of_q.layout(), &axes, true, |of_q| {
                let work = (0, (p, q), (&*upstream, (of_p, of_q)));
                run_rows(py, (p.rows(), p.cols()), work, Rows::split, |(first, (p, q), rest)| {
                    let (upstream, (of_p, of_q)) = rest;
                    let op = match &mask {
                        Some(mask) => op.mask(mask.of_rows(first, p.rows())),
                        None => op,
                    };
                    op.kl_divergence_backward(p, q, upstream, Some(of_p), Some(of_q))
                })
            })
        })
    })))?;
    Ok((of_p.finish()?, of_q.finish()?))
}
