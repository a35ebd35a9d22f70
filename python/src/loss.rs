//! Cross-entropy and its gradient.

use ::softmax::ndarray::{ArrayViewD, ArrayViewMutD, Axis};
use ::softmax::{CrossEntropy, Error, Exec, Matrix, MatrixMut, Reduction, Targets};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::array::{Array, Dtype, Float, Kind, Layout, LayoutMut, Output, tuple, typed};
use crate::mask::RowWeights;
use crate::options::{
    Arg, Factor, by_factor, exec, flag, number, one_of, raised, run, run_rows, whole,
};
use crate::reduce::{beside, reduced, with_rows};
use crate::rows::{copied, room, store};

/// PyTorch's `reduction`.
#[derive(Clone, Copy, PartialEq)]
pub enum Reduce {
    Mean,
    Sum,
    None,
}

impl<'py> FromPyObject<'_, 'py> for Reduce {
    type Error = PyErr;

    fn extract(x: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        one_of(&x, "reduction", &[("mean", Self::Mean), ("sum", Self::Sum), ("none", Self::None)])
    }
}

/// What a call is asked, as far as it has no types.
pub struct Asked<'a> {
    weight: Option<RowWeights<'a>>,
    ignore_index: i64,
    pub reduction: Reduce,
    label_smoothing: f64,
    z_loss: f64,
    divergence: bool,
    /// What the gradient of each row is multiplied by.
    row_factors: Option<Vec<f64>>,
    gradient_factor: f64,
    factor: Factor,
    exec: Exec<'a>,
}

impl<'a> Asked<'a> {
    /// What the four functions have; without factors of the gradient.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        weight: &'a Option<Array>,
        ignore_index: Arg,
        reduction: Reduce,
        label_smoothing: Arg,
        z_loss: Arg,
        divergence: Arg,
        factor: Factor,
        exec: Exec<'a>,
    ) -> PyResult<Self> {
        Ok(Self {
            weight: weight.as_ref().map(class_weights).transpose()?,
            ignore_index: whole(ignore_index, "ignore_index")?.unwrap_or(-100),
            reduction,
            label_smoothing: number(label_smoothing, "label_smoothing")?.unwrap_or(0.0),
            z_loss: number(z_loss, "z_loss")?.unwrap_or(0.0),
            divergence: flag(divergence, "divergence")?,
            row_factors: None,
            gradient_factor: 1.0,
            factor,
            exec,
        })
    }

    /// With factors of the gradient.
    pub fn with_factors(self, of_rows: Arg, of_all: Arg) -> PyResult<Self> {
        Ok(Self {
            row_factors: floats64(of_rows, "row_factors")?,
            gradient_factor: number(of_all, "gradient_factor")?.unwrap_or(1.0),
            ..self
        })
    }

    /// The operation on all rows.
    pub fn operation(&self) -> PyResult<CrossEntropy<'_>> {
        let mut op = CrossEntropy::new()
            .ignore_index(self.ignore_index)
            .label_smoothing(self.label_smoothing)
            .z_loss(self.z_loss)
            .gradient_factor(self.gradient_factor)
            .reduction(match self.reduction {
                Reduce::Mean => Reduction::Mean,
                _ => Reduction::Sum,
            })
            .exec(self.exec);
        if let Some(weight) = &self.weight {
            op = op.weights(weight.all());
        }
        if self.divergence {
            op = op.divergence();
        }
        if let Some(factors) = &self.row_factors {
            op = op.row_factors(factors);
        }
        Ok(by_factor!(op, self.factor))
    }

    /// The operation of some of the rows, whose sum of losses is divided by `divisor` at the end.
    fn of_part(&self, divisor: f64) -> PyResult<CrossEntropy<'_>> {
        // Of nothing the gradient is 0, not a multiple of infinity.
        let inverse = if divisor == 0.0 { 0.0 } else { 1.0 / divisor };
        let factor = self.gradient_factor * inverse;
        Ok(self.operation()?.reduction(Reduction::Sum).gradient_factor(factor))
    }
}

/// Labels or probabilities of rows.
enum Wanted<'a, T> {
    Labels(&'a [i64]),
    Probs(Matrix<'a, T>),
}

impl<'a, T: Float> Wanted<'a, T> {
    fn split(self, at: usize) -> (Self, Self) {
        match self {
            Self::Labels(labels) => {
                let (a, b) = labels.split_at(at);
                (Self::Labels(a), Self::Labels(b))
            }
            Self::Probs(q) => {
                let (a, b) = q.split_rows(at);
                (Self::Probs(a), Self::Probs(b))
            }
        }
    }

    fn get(&self) -> Targets<'a, T> {
        match self {
            Self::Labels(labels) => Targets::Labels(labels),
            Self::Probs(q) => Targets::Probs(*q),
        }
    }
}

/// Where the gradient goes.
enum Gradient<'a, T> {
    None,
    Apart(MatrixMut<'a, T>),
    /// Over the logits.
    InPlace(MatrixMut<'a, T>),
}

struct Part<'a, T> {
    /// `None` in place.
    logits: Option<Matrix<'a, T>>,
    targets: Wanted<'a, T>,
    losses: &'a mut [f64],
    gradient: Gradient<'a, T>,
    /// The first row.
    at: usize,
}

impl<T: Float> Part<'_, T> {
    fn shape(&self) -> (usize, usize) {
        match (&self.logits, &self.gradient) {
            (Some(x), _) => (x.rows(), x.cols()),
            (_, Gradient::InPlace(y) | Gradient::Apart(y)) => (y.rows(), y.cols()),
            _ => (0, 0),
        }
    }

    fn split(self, rows: usize) -> (Self, Self) {
        let (logits, logits_rest) = self.logits.map(|x| x.split_rows(rows)).unzip();
        let (targets, targets_rest) = self.targets.split(rows);
        let (losses, losses_rest) = self.losses.split_at_mut(rows);
        let (gradient, gradient_rest) = match self.gradient {
            Gradient::None => (Gradient::None, Gradient::None),
            Gradient::Apart(y) => {
                let (a, b) = y.split_rows(rows);
                (Gradient::Apart(a), Gradient::Apart(b))
            }
            Gradient::InPlace(y) => {
                let (a, b) = y.split_rows(rows);
                (Gradient::InPlace(a), Gradient::InPlace(b))
            }
        };
        let at = self.at;
        (
            Self { logits, targets, losses, gradient, at },
            Self {
                logits: logits_rest,
                targets: targets_rest,
                losses: losses_rest,
                gradient: gradient_rest,
                at: at + rows,
            },
        )
    }

    fn run(self, op: &CrossEntropy, factors: Option<&[f64]>) -> Result<(), Error> {
        // Factors are one for each row of the call, which this may be a part of.
        let op = match factors {
            Some(factors) => op.row_factors(&factors[self.at..][..self.losses.len()]),
            None => *op,
        };
        let (targets, losses) = (self.targets.get(), self.losses);
        match (self.logits, self.gradient) {
            (Some(x), Gradient::Apart(y)) => op.losses_and_gradient(x, targets, losses, y),
            (_, Gradient::InPlace(y)) => op.losses_and_gradient_in_place(y, targets, losses),
            (Some(x), _) => op.losses(x, targets, losses),
            (None, _) => Ok(()),
        }
    }
}

/// The losses of rows, their reduction, and the gradient. Rows may be done in parts: the mean's
/// divisor is known before.
fn compute<T: Float>(
    py: Python,
    asked: &Asked,
    part: Part<T>,
    classes: usize,
) -> PyResult<(f64, Vec<f64>)> {
    let shape @ (rows, _) = part.shape();
    let mut losses = room(rows, 0.0)?;
    let op = asked.operation()?;
    let divisor = match &part.targets {
        Wanted::Labels(labels) => run(py, rows, || op.divisor(labels, classes))?,
        Wanted::Probs(_) if asked.reduction == Reduce::Mean => rows as f64,
        Wanted::Probs(_) => 1.0,
    };
    let each = asked.of_part(divisor)?;
    let part = Part { losses: &mut losses, ..part };
    let factors = asked.row_factors.as_deref();
    run_rows(py, shape, part, Part::split, |part| part.run(&each, factors))?;
    Ok((op.reduce(&losses, divisor), losses))
}

/// A part of a view of any layout, along the last axis of which the classes are.
struct ViewPart<'a, T> {
    x: ArrayViewD<'a, T>,
    labels: ArrayViewD<'a, i64>,
    losses: ArrayViewMutD<'a, f64>,
    gradient: Option<ArrayViewMutD<'a, T>>,
    /// The first row.
    at: usize,
}

impl<T> ViewPart<'_, T> {
    fn split(self, cut: Axis, at: usize) -> (Self, Self) {
        let (x, x_rest) = self.x.split_at(cut, at);
        let (labels, labels_rest) = self.labels.split_at(cut, at);
        let (losses, losses_rest) = self.losses.split_at(cut, at);
        let (gradient, gradient_rest) = self.gradient.map(|y| y.split_at(cut, at)).unzip();
        let next = self.at + losses.len();
        (
            Self { x, labels, losses, gradient, at: self.at },
            Self {
                x: x_rest,
                labels: labels_rest,
                losses: losses_rest,
                gradient: gradient_rest,
                at: next,
            },
        )
    }
}

/// As [`compute`], of labels, along the last axis of views of any layout.
fn along<T: Float>(
    py: Python,
    asked: &Asked,
    x: ArrayViewD<T>,
    labels: &[i64],
    y: Option<ArrayViewMutD<T>>,
) -> PyResult<(f64, Vec<f64>)> {
    let (op, classes) = (asked.operation()?, x.shape()[x.ndim() - 1]);
    let mut losses = room(labels.len(), 0.0)?;
    let of_x = ArrayViewD::from_shape(&x.shape()[..x.ndim() - 1], labels);
    let of_x = of_x.map_err(|e| PyValueError::new_err(e.to_string()))?;
    let divisor = run(py, labels.len(), || op.divisor(labels, classes))?;
    let each = asked.of_part(divisor)?;
    let factors = asked.row_factors.as_deref();
    // The first axis of several, so that the rows of a part are neighbours.
    let cut = x.shape().iter().position(|&n| n > 1).unwrap_or(0).min(x.ndim().saturating_sub(2));
    let (n, elements, cut) = (x.shape()[cut], x.len(), Axis(cut));
    let to = beside(&x, &mut losses, None)?;
    let part = ViewPart { x, labels: of_x, losses: to, gradient: y, at: 0 };
    let call = |part: ViewPart<T>| {
        let op = match factors {
            Some(factors) => each.row_factors(&factors[part.at..][..part.losses.len()]),
            None => each,
        };
        match part.gradient {
            Some(y) => op.losses_and_gradient_array(part.x, part.labels, part.losses, y, -1),
            None => op.losses_array(part.x, part.labels, part.losses, -1),
        }
    };
    match part.x.ndim() {
        1 => run(py, elements, || call(part))?,
        _ => {
            let shape = (n, elements.checked_div(n).unwrap_or(0));
            run_rows(py, shape, part, |part, at| part.split(cut, at), call)?;
        }
    }
    Ok((op.reduce(&losses, divisor), losses))
}

/// The axis of the classes: PyTorch's second of several, or the one that is asked for.
fn class_axis(axis: Option<isize>, dims: usize) -> PyResult<usize> {
    match axis {
        None => Ok(usize::from(dims > 1)),
        Some(axis) => Ok(crate::options::Along::One(axis).of(dims)?[0]),
    }
}

/// The weights of classes, as they are.
fn class_weights<'a>(weight: &'a Array) -> PyResult<RowWeights<'a>> {
    let shape = weight.shape();
    if shape.len() != 1 {
        let text = format!("weight must have one axis, got shape {}", tuple(shape));
        return Err(PyValueError::new_err(text));
    }
    RowWeights::new(weight, "weight", shape, &[0])
}

/// The axis, if it is given.
fn class(axis: Arg) -> PyResult<Option<isize>> {
    Ok(whole(axis, "axis")?.map(|axis| axis as isize))
}

/// One loss, or one for each row.
pub fn losses_like<'py>(
    x: &Array<'py>,
    shape: &[usize],
    losses: &[f64],
) -> PyResult<Bound<'py, PyAny>> {
    // Tensors have PyTorch's type, which is the logits'; elsewhere there is no reason to round.
    let dtype = if x.kind() == Kind::Torch { x.dtype() } else { Dtype::F64 };
    let mut y = Output::new(x, shape, dtype)?;
    typed!(dtype, T => {
        if let Some(y) = y.layout().slice::<T>() {
            for (y, &loss) in y.iter_mut().zip(losses) {
                *y = <T as ::softmax::Element>::from_f64(loss);
            }
        }
        Ok(())
    })?;
    y.finish()
}

fn both<'py>(
    logits: &Bound<'py, PyAny>,
    target: &Bound<'py, PyAny>,
    axis: Option<isize>,
    asked: &Asked,
    gradient: Option<Option<&Bound<'py, PyAny>>>,
) -> PyResult<(Bound<'py, PyAny>, Option<Bound<'py, PyAny>>)> {
    let py = logits.py();
    let x = Array::input(logits, "logits")?;
    let t = Array::labels(target, "target")?;
    let axis = class_axis(axis, x.shape().len())?;
    let layout = x.layout().at_least_one_axis();
    let classes = layout.shape()[axis];
    let outer = reduced(x.shape(), &[axis], false);
    let is_labels = t.dtype() == Dtype::I64;
    let wanted = if is_labels { &outer[..] } else { x.shape() };
    if t.shape() != wanted {
        let what = if is_labels { "labels" } else { "probabilities" };
        return Err(PyValueError::new_err(format!(
            "target, which are {what}, must have shape {}, got {}",
            tuple(wanted),
            tuple(t.shape())
        )));
    }
    if !is_labels && t.dtype() != x.dtype() {
        return Err(PyTypeError::new_err(format!(
            "target must be integers, or probabilities of the logits' type, {}; got {}",
            x.dtype().name(),
            t.dtype().name()
        )));
    }
    let rows: usize = outer.iter().product();
    if let Some(factors) = &asked.row_factors
        && factors.len() != rows
    {
        return Err(PyValueError::new_err(format!(
            "there must be {rows} row_factors, one for each row, got {}",
            factors.len()
        )));
    }
    let mut out = match gradient {
        Some(out) => Some(Output::like(&x, out)?),
        None => None,
    };
    if let Some(out) = &out {
        out.apart(&t, "target")?;
    }
    let labels = if is_labels { t.layout().in_order::<i64>().into_owned() } else { Vec::new() };
    let t_layout = t.layout().at_least_one_axis();
    let x_rows = layout.clone().moved_last(&[axis]);
    let has_rows = |y: &Layout| y.clone().at_least_one_axis().moved_last(&[axis]).rows().is_some();
    let scattered = match &mut out {
        Some(out) if out.in_place => false,
        Some(out) => x_rows.rows().is_none() || !has_rows(out.layout().get()),
        None => x_rows.rows().is_none(),
    };
    let (loss, losses) = typed!(x.dtype(), T => if is_labels && scattered {
        let mut y = out.as_mut().map(|out| {
            out.layout().map(|y| y.at_least_one_axis().moved_last(&[axis]))
        });
        along::<T>(py, asked, x_rows.view(), &labels, y.as_mut().map(LayoutMut::view))
    } else {
        let mut with = |targets: Wanted<T>| {
            let Some(out) = &mut out else {
                return with_rows::<T, _>(py, &layout, &[axis], |logits| {
                    let part = Part {
                        logits: Some(logits), targets, losses: &mut [], gradient: Gradient::None, at: 0,
                    };
                    compute(py, asked, part, classes)
                });
            };
            let in_place = out.in_place;
            let y = out.layout().map(|y| y.at_least_one_axis().moved_last(&[axis]));
            with_gradient::<T>(py, &layout, axis, in_place, y, |logits, gradient| {
                compute(py, asked, Part { logits, targets, losses: &mut [], gradient, at: 0 }, classes)
            })
        };
        if is_labels {
            with(Wanted::Labels(&labels))
        } else {
            with_rows::<T, _>(py, &t_layout, &[axis], |q| with(Wanted::Probs(q)))
        }
    })?;
    let loss = match asked.reduction {
        Reduce::None => losses_like(&x, &outer, &losses)?,
        _ => losses_like(&x, &[], &[loss])?,
    };
    Ok((loss, out.map(Output::finish).transpose()?))
}

/// Calls with rows of logits and of a gradient: where they are if they lie so, else in a copy.
fn with_gradient<T: Float>(
    py: Python,
    x: &Layout,
    axis: usize,
    in_place: bool,
    mut y: LayoutMut,
    f: impl FnOnce(Option<Matrix<T>>, Gradient<T>) -> PyResult<(f64, Vec<f64>)>,
) -> PyResult<(f64, Vec<f64>)> {
    let x = x.clone().moved_last(&[axis]);
    if let Some(rows) = y.matrix::<T>() {
        if in_place {
            return f(None, Gradient::InPlace(rows));
        }
        if let Some(logits) = x.matrix::<T>() {
            return f(Some(logits), Gradient::Apart(rows));
        }
    }
    let mut copy = copied::<T>(py, x.view())?;
    let cols = x.shape()[x.shape().len() - 1];
    let rows = x.shape()[..x.shape().len() - 1].iter().product();
    let matrix = MatrixMut::with_stride(&mut copy, rows, cols, cols).map_err(raised)?;
    let done = f(None, Gradient::InPlace(matrix))?;
    store(py, &copy, y.view())?;
    Ok(done)
}

/// Numbers of f32, as the library takes them.
pub fn floats32(x: Option<&Bound<PyAny>>, name: &str) -> PyResult<Option<Vec<f32>>> {
    let Some(x) = x else { return Ok(None) };
    let x = Array::input(x, name)?;
    typed!(x.dtype(), T => {
        let values = x.layout().in_order::<T>();
        Ok(Some(values.iter().map(|v| ::softmax::Element::to_f64(*v) as f32).collect()))
    })
}

/// Numbers of f64.
fn floats64(x: Option<&Bound<PyAny>>, name: &str) -> PyResult<Option<Vec<f64>>> {
    let Some(x) = x else { return Ok(None) };
    let x = Array::input(x, name)?;
    typed!(x.dtype(), T => {
        let values = x.layout().in_order::<T>();
        Ok(Some(values.iter().map(|v| ::softmax::Element::to_f64(*v)).collect()))
    })
}

/// The cross-entropy of logits against labels or probabilities.
///
/// Classes are along axis 1, or the only axis, as in PyTorch; `axis` is another.
/// target: integers of the logits' shape without the classes, or probabilities of their shape.
/// weight: of each class. ignore_index: the label of rows that do not count.
/// reduction: "mean", "sum" or "none". label_smoothing: from 0 to 1.
/// z_loss: what the square of each row's log-sum-exp is multiplied by and added.
/// divergence: Kullback and Leibler's, less the entropy of the target.
/// The loss is float64 for arrays, of the logits' type for tensors.
/// Other arguments as of softmax.
#[pyfunction]
#[pyo3(signature = (logits, target, weight=None, ignore_index=None, reduction=Reduce::Mean, label_smoothing=None, z_loss=None, *, axis=None, divergence=None, scale=None, temperature=None, threads=None, kernel=None),
    text_signature = "(logits, target, weight=None, ignore_index=-100, reduction='mean', label_smoothing=0.0, z_loss=0.0, *, axis=None, divergence=False, scale=None, temperature=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn cross_entropy<'py>(
    logits: &Bound<'py, PyAny>,
    target: &Bound<'py, PyAny>,
    weight: Option<&Bound<'py, PyAny>>,
    ignore_index: Arg<'_, 'py>,
    reduction: Reduce,
    label_smoothing: Arg<'_, 'py>,
    z_loss: Arg<'_, 'py>,
    axis: Arg<'_, 'py>,
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
    Ok(both(logits, target, class(axis)?, &asked, None)?.0)
}

/// The cross-entropy, and its gradient with respect to the logits. Arguments as of cross_entropy.
///
/// row_factors, gradient_factor: what gradients of each row, and all, are multiplied by.
/// out: where the gradient goes; the logits themselves work in place.
#[pyfunction]
#[pyo3(signature = (logits, target, weight=None, ignore_index=None, reduction=Reduce::Mean, label_smoothing=None, z_loss=None, *, axis=None, divergence=None, scale=None, temperature=None, row_factors=None, gradient_factor=None, out=None, threads=None, kernel=None),
    text_signature = "(logits, target, weight=None, ignore_index=-100, reduction='mean', label_smoothing=0.0, z_loss=0.0, *, axis=None, divergence=False, scale=None, temperature=None, row_factors=None, gradient_factor=1.0, out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn cross_entropy_with_grad<'py>(
    logits: &Bound<'py, PyAny>,
    target: &Bound<'py, PyAny>,
    weight: Option<&Bound<'py, PyAny>>,
    ignore_index: Arg<'_, 'py>,
    reduction: Reduce,
    label_smoothing: Arg<'_, 'py>,
    z_loss: Arg<'_, 'py>,
    axis: Arg<'_, 'py>,
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
    let (loss, gradient) = both(logits, target, class(axis)?, &asked, Some(out))?;
    Ok((loss, gradient.unwrap_or_else(|| logits.py().None().into_bound(logits.py()))))
}
