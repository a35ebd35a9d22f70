//! Gradients of softmax and log-softmax from their outputs.

use ::softmax::{Backward, Error, Matrix, MatrixMut};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::array::{Array, Float, Layout, LayoutMut, Output, alike, typed};
use crate::options::{Along, Arg, Factor, by_factor, exec, flag, raised, run_rows};
use crate::reduce::with_rows;
use crate::rows::{room, store};

struct Part<'a, T> {
    y: Matrix<'a, T>,
    upstream: Matrix<'a, T>,
    gradient: MatrixMut<'a, T>,
}

impl<T> Part<'_, T> {
    fn split(self, at: usize) -> (Self, Self) {
        let (y, y_rest) = self.y.split_rows(at);
        let (upstream, upstream_rest) = self.upstream.split_rows(at);
        let (gradient, gradient_rest) = self.gradient.split_rows(at);
        (
            Self { y, upstream, gradient },
            Self { y: y_rest, upstream: upstream_rest, gradient: gradient_rest },
        )
    }
}

fn rows<T: Float>(
    py: Python,
    axes: &[usize],
    y: &Layout,
    upstream: &Layout,
    to: LayoutMut,
    call: impl Fn(Part<T>) -> Result<(), Error> + Sync,
) -> PyResult<()> {
    let n = axes.len();
    with_rows::<T, _>(py, y, axes, |y| {
        with_rows::<T, _>(py, upstream, axes, |upstream| {
            let shape = (y.rows(), y.cols());
            let mut to = to.map(|to| to.moved_last(axes));
            if let Some(mut to) = to.copy_of().try_map(|to| to.joined(n))
                && let Some(gradient) = to.matrix()
            {
                return run_rows(py, shape, Part { y, upstream, gradient }, Part::split, &call);
            }
            let mut copy = room(y.rows() * y.cols(), T::ZERO)?;
            let gradient = MatrixMut::with_stride(&mut copy, y.rows(), y.cols(), y.cols());
            let gradient = gradient.map_err(raised)?;
            run_rows(py, shape, Part { y, upstream, gradient }, Part::split, &call)?;
            store(py, &copy, to.view())
        })
    })
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
    let mut to = Output::like(&y, out)?;
    if to.in_place {
        return Err(PyValueError::new_err("out must be memory apart from y"));
    }
    to.apart(&grad, "grad")?;
    let layouts = (y.layout().at_least_one_axis(), grad.layout().at_least_one_axis());
    let target = to.layout().map(Layout::at_least_one_axis);
    typed!(y.dtype(), T => rows::<T>(py, &axes, &layouts.0, &layouts.1, target, |part| match log {
        false => op.softmax(part.y, part.upstream, part.gradient),
        true => op.log_softmax(part.y, part.upstream, part.gradient),
    }))?;
    to.finish()
}
