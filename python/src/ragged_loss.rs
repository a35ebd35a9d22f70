//! Cross-entropy and backward of rows of different lengths, by offsets into one array.

use ::softmax::{Backward, Error, Ragged, RaggedMut, RaggedTargets};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::array::{Array, Dtype, Output, alike, tuple, typed};
use crate::loss::{Asked, Reduce, losses_like};
use crate::options::{Arg, Factor, by_factor, exec, flag, run};
use crate::ragged::{inputs, into_places, outside};
use crate::rows::room;

/// Losses and, if `out` is given, the gradient: where it goes, or a new array.
fn both<'py>(
    logits: &Bound<'py, PyAny>,
    offsets: &Bound<'py, PyAny>,
    target: &Bound<'py, PyAny>,
    asked: &Asked,
    out: Option<Arg<'_, 'py>>,
) -> PyResult<(Bound<'py, PyAny>, Option<Bound<'py, PyAny>>)> {
    let py = logits.py();
    let (x, offsets) = inputs(logits, offsets, "logits")?;
    let t = Array::labels(target, "target")?;
    let is_labels = t.dtype() == Dtype::I64;
    if !is_labels {
        alike(&x, &t, "target, which are probabilities,", "the logits")?;
    } else if t.shape().len() != 1 {
        let text = format!("target must have one axis, got {}", tuple(t.shape()));
        return Err(PyValueError::new_err(text));
    }
    let fresh = matches!(out, Some(None));
    let mut y = out.map(|out| Output::like(&x, out)).transpose()?;
    if let Some(y) = &y {
        y.apart(&t, "target")?;
    }
    let labels = if is_labels { t.layout().in_order::<i64>().into_owned() } else { Vec::new() };
    let op = asked.operation()?;
    let mut losses = room(offsets.rows(), 0.0)?;
    let loss = typed!(x.dtype(), T => {
        let elements = x.layout().len();
        let in_place = y.as_ref().is_some_and(|y| y.in_place);
        // In place the elements are only borrowed once.
        let source = (!in_place).then(|| x.layout().in_order::<T>());
        let probs = (!is_labels).then(|| t.layout().in_order::<T>());
        let mut compute = |gradient: Option<&mut [T]>| -> Result<f64, Error> {
            let targets = match &probs {
                Some(probs) => RaggedTargets::Probs(Ragged::new(probs, offsets.get())?),
                None => RaggedTargets::Labels(&labels),
            };
            let logits = source.as_ref().map(|x| Ragged::new(x, offsets.get())).transpose()?;
            match (asked.reduction, logits, gradient) {
                (Reduce::None, Some(x), None) => op.losses_ragged(x, targets, &mut losses)?,
                (Reduce::None, Some(x), Some(y)) => {
                    op.losses_and_gradient_ragged(x, targets, &mut losses, y)?;
                }
                (Reduce::None, None, Some(y)) => {
                    let x = RaggedMut::new(y, offsets.get())?;
                    op.losses_and_gradient_ragged_in_place(x, targets, &mut losses)?;
                }
                (_, Some(x), None) => return op.loss_ragged(x, targets),
                (_, Some(x), Some(y)) => return op.gradient_ragged(x, targets, y),
                (_, None, Some(y)) => {
                    return op.gradient_ragged_in_place(RaggedMut::new(y, offsets.get())?, targets);
                }
                (_, None, None) => {}
            }
            Ok(0.0)
        };
        match &mut y {
            None => run(py, elements, || compute(None)),
            Some(y) => into_places(py, y.layout(), elements, |y| {
                if fresh {
                    outside(y, &offsets);
                }
                compute(Some(y))
            }),
        }
    })?;
    let loss = match asked.reduction {
        Reduce::None => losses_like(&x, &[losses.len()], &losses)?,
        _ => losses_like(&x, &[], &[loss])?,
    };
    Ok((loss, y.map(Output::finish).transpose()?))
}

/// The cross-entropy of logits in rows of different lengths, by offsets as of softmax_ragged.
///
/// target: one label for each row, a place within it, or probabilities that lie as the logits do.
/// weight: of each place in a row, as many as the longest row has.
/// Empty rows must have the label ignore_index.
/// Other arguments as of cross_entropy.
#[pyfunction]
#[pyo3(signature = (logits, offsets, target, weight=None, ignore_index=None, reduction=Reduce::Mean, label_smoothing=None, z_loss=None, *, divergence=None, scale=None, temperature=None, threads=None, kernel=None),
    text_signature = "(logits, offsets, target, weight=None, ignore_index=-100, reduction='mean', label_smoothing=0.0, z_loss=0.0, *, divergence=False, scale=None, temperature=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn cross_entropy_ragged<'py>(
    logits: &Bound<'py, PyAny>,
    offsets: &Bound<'py, PyAny>,
    target: &Bound<'py, PyAny>,
    weight: Option<&Bound<'py, PyAny>>,
    ignore_index: Arg<'_, 'py>,
    reduction: Reduce,
    label_smoothing: Arg<'_, 'py>,
    z_loss: Arg<'_, 'py>,
    divergence: Arg<'_, 'py>,
    scale: Arg<'_, 'py>,
    temperature: Arg<'_, 'py>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let weight = weight.map(|weight| Array::input(weight, "weight")).transpose()?;
    let (factor, exec) = (Factor::new(scale, temperature)?, exec(threads, kernel)?);
    let asked = Asked::new(
        &weight,
        ignore_index,
        reduction,
        label_smoothing,
        z_loss,
        divergence,
        factor,
        exec,
    )?;
    Ok(both(logits, offsets, target, &asked, None)?.0)
}

/// The cross-entropy, and its gradient with respect to the logits. Arguments as of
/// cross_entropy_ragged and cross_entropy_with_grad.
#[pyfunction]
#[pyo3(signature = (logits, offsets, target, weight=None, ignore_index=None, reduction=Reduce::Mean, label_smoothing=None, z_loss=None, *, divergence=None, scale=None, temperature=None, row_factors=None, gradient_factor=None, out=None, threads=None, kernel=None),
    text_signature = "(logits, offsets, target, weight=None, ignore_index=-100, reduction='mean', label_smoothing=0.0, z_loss=0.0, *, divergence=False, scale=None, temperature=None, row_factors=None, gradient_factor=1.0, out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn cross_entropy_with_grad_ragged<'py>(
    logits: &Bound<'py, PyAny>,
    offsets: &Bound<'py, PyAny>,
    target: &Bound<'py, PyAny>,
    weight: Option<&Bound<'py, PyAny>>,
    ignore_index: Arg<'_, 'py>,
    reduction: Reduce,
    label_smoothing: Arg<'_, 'py>,
    z_loss: Arg<'_, 'py>,
    divergence: Arg<'_, 'py>,
    scale: Arg<'_, 'py>,
    temperature: Arg<'_, 'py>,
    row_factors: Option<&Bound<'py, PyAny>>,
    gradient_factor: Arg<'_, 'py>,
    out: Option<&Bound<'py, PyAny>>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let weight = weight.map(|weight| Array::input(weight, "weight")).transpose()?;
    let (factor, exec) = (Factor::new(scale, temperature)?, exec(threads, kernel)?);
    let asked = Asked::new(
        &weight,
        ignore_index,
        reduction,
        label_smoothing,
        z_loss,
        divergence,
        factor,
        exec,
    )?;
    let asked = asked.with_factors(row_factors, gradient_factor)?;
    let (loss, gradient) = both(logits, offsets, target, &asked, Some(out))?;
    Ok((loss, gradient.unwrap_or_else(|| logits.py().None().into_bound(logits.py()))))
}

/// softmax_backward of rows of different lengths, by offsets as of softmax_ragged. What is outside
/// of all rows becomes 0.
#[pyfunction]
#[pyo3(signature = (y, grad, offsets, *, log=None, scale=None, temperature=None, out=None, threads=None, kernel=None),
    text_signature = "(y, grad, offsets, *, log=False, scale=None, temperature=None, out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn softmax_backward_ragged<'py>(
    y: &Bound<'py, PyAny>,
    grad: &Bound<'py, PyAny>,
    offsets: &Bound<'py, PyAny>,
    log: Arg<'_, 'py>,
    scale: Arg<'_, 'py>,
    temperature: Arg<'_, 'py>,
    out: Option<&Bound<'py, PyAny>>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let (py, log) = (y.py(), flag(log, "log")?);
    let op = Backward::new().exec(exec(threads, kernel)?);
    let op = by_factor!(op, Factor::new(scale, temperature)?);
    let (y, offsets) = inputs(y, offsets, "y")?;
    let grad = Array::input(grad, "grad")?;
    alike(&y, &grad, "grad", "y")?;
    let (fresh, mut to) = (out.is_none(), Output::beside(&y, "y", out)?);
    to.apart(&grad, "grad")?;
    typed!(y.dtype(), T => {
        let (y, grad) = (y.layout().in_order::<T>(), grad.layout().in_order::<T>());
        into_places(py, to.layout(), y.len(), |to| {
            if fresh {
                outside(to, &offsets);
            }
            let y = Ragged::new(&y, offsets.get())?;
            match log {
                false => op.softmax_ragged(y, &grad, to),
                true => op.log_softmax_ragged(y, &grad, to),
            }
        })
    })?;
    to.finish()
}
