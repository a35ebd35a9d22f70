//! What is read row by row, and of which less than a row is written.

use ::softmax::ndarray::{ArrayViewD, ArrayViewMutD, Axis};
use ::softmax::{Element, Error, Hardmax, LogProbs, Matrix, Softmax, TopK};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::array::{Array, Dtype, Float, Layout, LayoutMut, Output, Typed, alike, tuple, typed};
use crate::mask::{MaskArray, RowMask, RowWeights};
use crate::options::{
    Along, Arg, Factor, MaskedRows, RowFactors, by_factor, count, exec, flag, one_of, raised, run,
    run_rows,
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

/// Lanes along axes, as rows of a matrix or as the last axis of a view.
pub enum Lanes<'a, T> {
    Rows(Matrix<'a, T>),
    View(ArrayViewD<'a, T>),
}

/// Calls with the lanes where they are, if they are those of one axis in memory and need not be
/// `in_order`; else with rows, if need be in a copy.
pub fn with_lanes<T: Float, R>(
    py: Python,
    x: &Layout,
    axes: &[usize],
    in_order: bool,
    f: impl FnOnce(Lanes<T>) -> PyResult<R>,
) -> PyResult<R> {
    let joined = || x.clone().moved_last(axes).joined(axes.len());
    if let Some(x) = (!in_order).then(joined).flatten() {
        return f(match x.matrix() {
            Some(rows) => Lanes::Rows(rows),
            None => Lanes::View(x.view()),
        });
    }
    with_rows(py, x, axes, |rows| f(Lanes::Rows(rows)))
}

/// Elements in C order as an array of a view's shape, but for its last axis: none, or `k` elements.
pub fn beside<'a, T, U>(
    x: &ArrayViewD<T>,
    y: &'a mut [U],
    k: Option<usize>,
) -> PyResult<ArrayViewMutD<'a, U>> {
    let outer = &x.shape()[..x.ndim() - 1];
    let shape: Vec<_> = outer.iter().copied().chain(k).collect();
    ArrayViewMutD::from_shape(shape, y).map_err(|e| PyValueError::new_err(e.to_string()))
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
    /// The number of the first row.
    at: usize,
}

impl<T, U> Each<'_, T, U> {
    fn split(self, at: usize) -> (Self, Self) {
        let (x, x_rest) = self.x.split_rows(at);
        let (y, y_rest) = self.y.split_at_mut(at * self.of_row);
        let (of_row, next) = (self.of_row, self.at + at);
        (Self { x, y, of_row, at: self.at }, Self { x: x_rest, y: y_rest, of_row, at: next })
    }
}

/// Rows, and the k numbers and indices of each.
pub struct Pairs<'a, T, U, I> {
    pub x: Matrix<'a, T>,
    pub y: &'a mut [U],
    pub indices: &'a mut [I],
    pub k: usize,
    /// The number of the first row.
    pub at: usize,
}

impl<T, U, I> Pairs<'_, T, U, I> {
    pub fn split(self, at: usize) -> (Self, Self) {
        let k = self.k;
        let (x, x_rest) = self.x.split_rows(at);
        let (y, y_rest) = self.y.split_at_mut(at * k);
        let (indices, indices_rest) = self.indices.split_at_mut(at * k);
        let next = self.at + at;
        (
            Self { x, y, indices, k, at: self.at },
            Self { x: x_rest, y: y_rest, indices: indices_rest, k, at: next },
        )
    }
}

fn each_row<T: Float, U: Send>(
    py: Python,
    x: Matrix<T>,
    y: &mut [U],
    of_row: usize,
    f: impl Fn(Matrix<T>, &mut [U], usize) -> Result<(), Error> + Sync,
) -> PyResult<()> {
    let shape = (x.rows(), x.cols());
    let work = Each { x, y, of_row, at: 0 };
    run_rows(py, shape, work, Each::split, |part| f(part.x, part.y, part.at))
}

/// As [`each_row`], of what lies along the last axis of a view. `y` is what is written, which
/// `split` cuts along the same axis.
fn each_lane<'a, T: Float, Y: Send>(
    py: Python,
    x: ArrayViewD<'a, T>,
    y: Y,
    split: impl Fn(Y, Axis, usize) -> (Y, Y),
    f: impl Fn(ArrayViewD<'a, T>, Y) -> Result<(), Error> + Sync,
) -> PyResult<()> {
    let Some(cut) = (0..x.ndim() - 1).max_by_key(|&axis| x.len_of(Axis(axis))).map(Axis) else {
        return run(py, x.len(), || f(x, y));
    };
    let shape = (x.len_of(cut), x.len().checked_div(x.len_of(cut)).unwrap_or(0));
    let split = |(x, y): (ArrayViewD<'a, T>, Y), at| {
        let (x, x_rest) = x.split_at(cut, at);
        let (y, y_rest) = split(y, cut, at);
        ((x, y), (x_rest, y_rest))
    };
    run_rows(py, shape, (x, y), split, |(x, y)| f(x, y))
}

/// Values and indices.
type Both<'a, T, U> = (ArrayViewMutD<'a, T>, ArrayViewMutD<'a, U>);

fn split_both<'a, T, U>(
    (y, to): Both<'a, T, U>,
    cut: Axis,
    at: usize,
) -> (Both<'a, T, U>, Both<'a, T, U>) {
    let ((y, y_rest), (to, to_rest)) = (y.split_at(cut, at), to.split_at(cut, at));
    ((y, to), (y_rest, to_rest))
}

/// ln(sum(exp(x))) along an axis, or ln(sum(weights * exp(x))).
///
/// keepdims: whether reduced axes stay, with one element.
/// weights: numbers that are not negative, broadcast to x.
/// Other arguments as of softmax.
#[pyfunction]
#[pyo3(signature = (x, axis=Along::Last, keepdims=None, *, weights=None, scale=None, temperature=None, mask=None, bitmask=None, hidden_from=None, out=None, threads=None, kernel=None),
    text_signature = "(x, axis=-1, keepdims=False, *, weights=None, scale=None, temperature=None, mask=None, bitmask=None, hidden_from=None, out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn logsumexp<'py>(
    x: &Bound<'py, PyAny>,
    axis: Along,
    keepdims: Arg<'_, 'py>,
    weights: Arg<'_, 'py>,
    scale: Arg<'_, 'py>,
    temperature: Arg<'_, 'py>,
    mask: Arg<'_, 'py>,
    bitmask: Arg<'_, 'py>,
    hidden_from: Arg<'_, 'py>,
    out: Option<&Bound<'py, PyAny>>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = x.py();
    let keepdims = flag(keepdims, "keepdims")?;
    let op = Softmax::new().exec(exec(threads, kernel)?);
    let (factor, each) = RowFactors::new(scale, temperature)?;
    let op = by_factor!(op, factor);
    let x = Array::input(x, "x")?;
    let axes = axis.of(x.shape().len())?;
    let mut y = Output::of(&x, out, &reduced(x.shape(), &axes, keepdims), x.dtype())?;
    let mask = MaskArray::new(mask, bitmask, hidden_from)?;
    let weights = weights.map(|weights| Array::input(weights, "weights")).transpose()?;
    let layout = x.layout().at_least_one_axis();
    if let Some(each) = &each {
        each.check(layout.shape(), &axes)?;
    }
    if weights.is_some() && each.is_some() {
        return Err(PyValueError::new_err("with weights, scale and temperature are one number"));
    }
    if let Some(weights) = &weights {
        y.apart(weights, "weights")?;
    }
    let mask = RowMask::of(&mask, &x, &axes, &[&y])?;
    let weights = weights
        .as_ref()
        .map(|w| RowWeights::new(w, "weights", layout.shape(), &axes))
        .transpose()?;
    typed!(x.dtype(), T => with_slice::<T, _>(py, y.layout(), num::<T>(0.0), |y| {
        if mask.is_none() && weights.is_none() && each.is_none() {
            return with_lanes::<T, _>(py, &layout, &axes, false, |lanes| match lanes {
                Lanes::Rows(rows) => each_row(py, rows, y, 1, |x, y, _| op.logsumexp(x, y)),
                Lanes::View(x) => {
                    let y = beside(&x, y, None)?;
                    each_lane(py, x, y, ArrayViewMutD::split_at, |x, y| op.logsumexp_array(x, y, -1))
                }
            });
        }
        with_rows::<T, _>(py, &layout, &axes, |rows| each_row(py, rows, y, 1, |x, y, first| {
            let (rows, cols) = (x.rows(), x.cols());
            let op = match &mask {
                Some(mask) => op.mask(mask.of_rows(first, rows)),
                None => op,
            };
            match (&weights, &each) {
                (Some(weights), _) => {
                    op.logsumexp_weighted(x, weights.of_rows(first, rows, cols), y)
                }
                (None, Some(each)) => each.of_rows(op, first, rows).logsumexp(x, y),
                (None, None) => op.logsumexp(x, y),
            }
        }))
    }))?;
    y.finish()
}

/// The entropy of softmax(x) along an axis, in nats: -sum(p * ln(p)), where 0 * ln(0) is 0.
///
/// keepdims: whether reduced axes stay, with one element.
/// masked: what rows of nothing but -inf have, "nan" or "zero".
/// Other arguments as of softmax.
#[pyfunction]
#[pyo3(signature = (x, axis=Along::Last, keepdims=None, *, scale=None, temperature=None, mask=None, bitmask=None, hidden_from=None, masked=MaskedRows::default(), out=None, threads=None, kernel=None),
    text_signature = "(x, axis=-1, keepdims=False, *, scale=None, temperature=None, mask=None, bitmask=None, hidden_from=None, masked='nan', out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn entropy<'py>(
    x: &Bound<'py, PyAny>,
    axis: Along,
    keepdims: Arg<'_, 'py>,
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
    let keepdims = flag(keepdims, "keepdims")?;
    let op = Softmax::new().masked(masked.0).exec(exec(threads, kernel)?);
    let (factor, each) = RowFactors::new(scale, temperature)?;
    let op = by_factor!(op, factor);
    let x = Array::input(x, "x")?;
    let axes = axis.of(x.shape().len())?;
    let mut y = Output::of(&x, out, &reduced(x.shape(), &axes, keepdims), x.dtype())?;
    let mask = MaskArray::new(mask, bitmask, hidden_from)?;
    let layout = x.layout().at_least_one_axis();
    if let Some(each) = &each {
        each.check(layout.shape(), &axes)?;
    }
    let mask = RowMask::of(&mask, &x, &axes, &[&y])?;
    typed!(x.dtype(), T => with_slice::<T, _>(py, y.layout(), num::<T>(0.0), |y| {
        if mask.is_none() && each.is_none() {
            return with_lanes::<T, _>(py, &layout, &axes, false, |lanes| match lanes {
                Lanes::Rows(rows) => each_row(py, rows, y, 1, |x, y, _| op.entropy(x, y)),
                Lanes::View(x) => {
                    let y = beside(&x, y, None)?;
                    each_lane(py, x, y, ArrayViewMutD::split_at, |x, y| op.entropy_array(x, y, -1))
                }
            });
        }
        with_rows::<T, _>(py, &layout, &axes, |rows| each_row(py, rows, y, 1, |x, y, first| {
            let rows = x.rows();
            let op = match &mask {
                Some(mask) => op.mask(mask.of_rows(first, rows)),
                None => op,
            };
            match &each {
                Some(each) => each.of_rows(op, first, rows).entropy(x, y),
                None => op.entropy(x, y),
            }
        }))
    }))?;
    y.finish()
}

/// The Kullback-Leibler divergence along an axis, in nats: sum(p * (ln(p) - ln(q))) with
/// p = softmax(p_logits) and q = softmax(q_logits), where 0 * ln(0) is 0. Rows that hardly differ
/// are as precise as others.
///
/// p_logits, q_logits: of one shape and dtype; scale, temperature and masks hold for both.
/// mask: bools (True: seen), or numbers that are 0 or -inf.
/// keepdims: whether reduced axes stay, with one element.
/// masked: what rows of p of nothing but -inf have, "nan" or "zero".
/// Other arguments as of softmax.
#[pyfunction]
#[pyo3(signature = (p_logits, q_logits, axis=Along::Last, keepdims=None, *, scale=None, temperature=None, mask=None, bitmask=None, hidden_from=None, masked=MaskedRows::default(), out=None, threads=None, kernel=None),
    text_signature = "(p_logits, q_logits, axis=-1, keepdims=False, *, scale=None, temperature=None, mask=None, bitmask=None, hidden_from=None, masked='nan', out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn kl_divergence<'py>(
    p_logits: &Bound<'py, PyAny>,
    q_logits: &Bound<'py, PyAny>,
    axis: Along,
    keepdims: Arg<'_, 'py>,
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
    let py = p_logits.py();
    let keepdims = flag(keepdims, "keepdims")?;
    let op = Softmax::new().masked(masked.0).exec(exec(threads, kernel)?);
    let op = by_factor!(op, Factor::new(scale, temperature)?);
    let x = Array::input(p_logits, "p_logits")?;
    let other = Array::input(q_logits, "q_logits")?;
    alike(&x, &other, "q_logits", "p_logits")?;
    let axes = axis.of(x.shape().len())?;
    let mut y = Output::of(&x, out, &reduced(x.shape(), &axes, keepdims), x.dtype())?;
    y.apart(&other, "q_logits")?;
    let mask = MaskArray::new(mask, bitmask, hidden_from)?;
    let mask = RowMask::of(&mask, &x, &axes, &[&y])?;
    let layout = x.layout().at_least_one_axis();
    let of_other = other.layout().at_least_one_axis();
    typed!(x.dtype(), T => with_slice::<T, _>(py, y.layout(), num::<T>(0.0), |kl| {
        with_rows::<T, _>(py, &layout, &axes, |p| with_rows::<T, _>(py, &of_other, &axes, |q| {
            each_row(py, p, kl, 1, |p, kl, first| {
                let rows = p.rows();
                let (_, q) = q.split_rows(first);
                let (q, _) = q.split_rows(rows);
                let op = match &mask {
                    Some(mask) => op.mask(mask.of_rows(first, rows)),
                    None => op,
                };
                op.kl_divergence(p, q, kl)
            })
        }))
    }))?;
    y.finish()
}

fn num<T: Float>(x: f64) -> T {
    T::from_f64(x)
}

/// Where the largest element along an axis is: the first of equals, or of NaNs.
#[pyfunction]
#[pyo3(signature = (x, axis=Along::Last, keepdims=None, *, threads=None, kernel=None),
    text_signature = "(x, axis=-1, keepdims=False, *, threads=None, kernel=None)")]
pub fn argmax<'py>(
    x: &Bound<'py, PyAny>,
    axis: Along,
    keepdims: Arg<'_, 'py>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = x.py();
    let keepdims = flag(keepdims, "keepdims")?;
    let op = Hardmax::new().exec(exec(threads, kernel)?);
    let x = Array::input(x, "x")?;
    let axes = axis.of(x.shape().len())?;
    let layout = x.layout().at_least_one_axis();
    let indices = typed!(x.dtype(), T => with_lanes::<T, _>(py, &layout, &axes, false, |lanes| {
        match lanes {
            Lanes::Rows(rows) => {
                let mut indices = room(rows.rows(), 0usize)?;
                each_row(py, rows, &mut indices, 1, |x, y, _| op.argmax(x, y))?;
                Ok(indices)
            }
            Lanes::View(x) => {
                let n = x.shape()[..x.ndim() - 1].iter().product();
                let mut indices = room(n, 0usize)?;
                let to = beside(&x, &mut indices, None)?;
                each_lane(py, x, to, ArrayViewMutD::split_at, |x, to| op.argmax_array(x, to, -1))?;
                Ok(indices)
            }
        }
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

/// The k largest elements along an axis, the largest first: their probabilities, and places.
///
/// values: "probs", "log_probs" or "logits".
/// mask, bitmask: as of softmax, but masks only hide (numbers are 0 or -inf). Where fewer than k
/// elements are seen, hidden ones follow.
/// Other arguments as of softmax.
#[pyfunction]
#[pyo3(signature = (x, k, axis=Along::Last, *, values=Values::Probs, scale=None, temperature=None, mask=None, bitmask=None, hidden_from=None, masked=MaskedRows::default(), threads=None, kernel=None),
    text_signature = "(x, k, axis=-1, *, values='probs', scale=None, temperature=None, mask=None, bitmask=None, hidden_from=None, masked='nan', threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn top_k<'py>(
    x: &Bound<'py, PyAny>,
    k: &Bound<'py, PyAny>,
    axis: Along,
    values: Values,
    scale: Arg<'_, 'py>,
    temperature: Arg<'_, 'py>,
    mask: Arg<'_, 'py>,
    bitmask: Arg<'_, 'py>,
    hidden_from: Arg<'_, 'py>,
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
    let mask = MaskArray::new(mask, bitmask, hidden_from)?;
    let mask = RowMask::of(&mask, &x, &axes, &[])?;
    let of_rows = |first, rows| match &mask {
        Some(mask) => op.mask(mask.of_rows(first, rows)),
        None => op,
    };
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
    let n = shape.iter().product();
    let mut indices = room(n, 0usize)?;
    typed!(x.dtype(), T => with_lanes::<T, _>(py, &layout, &axes, mask.is_some(), |lanes| {
        if let Values::Logits = values {
            let picked: Vec<T> = match lanes {
                Lanes::Rows(x) => {
                    each_row(py, x, &mut indices, k, |x, to, first| {
                        of_rows(first, x.rows()).indices(x, to)
                    })?;
                    let one = |(i, &column): (usize, &usize)| x.row(i / k)[column];
                    indices.iter().enumerate().map(one).collect()
                }
                Lanes::View(x) => {
                    let to = beside(&x, &mut indices, Some(k))?;
                    each_lane(py, x.view(), to, ArrayViewMutD::split_at, |x, to| {
                        op.indices_array(x, to, -1)
                    })?;
                    let rows = x.rows().into_iter().zip(indices.chunks_exact(k.max(1)));
                    rows.flat_map(|(x, columns)| columns.iter().map(move |&c| x[c])).collect()
                }
            };
            if let Some(y) = y.layout().slice::<T>() {
                y.copy_from_slice(&picked);
            }
            return Ok(());
        }
        let zero = <T as Float>::Sums::from_f64(0.0);
        let log = matches!(values, Values::LogProbs);
        with_slice::<<T as Float>::Sums, _>(py, y.layout(), zero, |y| match lanes {
            Lanes::Rows(x) => {
                let pairs = Pairs { x, y, indices: &mut indices, k, at: 0 };
                run_rows(py, (x.rows(), x.cols()), pairs, Pairs::split, |pairs| {
                    let Pairs { x, y, indices, at, .. } = pairs;
                    let op = of_rows(at, x.rows());
                    match log {
                        true => op.log_probs(x, y, indices),
                        false => op.probs(x, y, indices),
                    }
                })
            }
            Lanes::View(x) => {
                let y = beside(&x, y, Some(k))?;
                let to = beside(&x, &mut indices, Some(k))?;
                each_lane(py, x, (y, to), split_both, |x, (y, to)| match log {
                    true => op.log_probs_array(x, y, to, -1),
                    false => op.probs_array(x, y, to, -1),
                })
            }
        })
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

/// The log-probabilities of some elements of each row, along the last axis.
///
/// tokens: integers, one for each row, or several along one more axis.
/// mask, bitmask: as of softmax, but masks only hide (numbers are 0 or -inf).
/// Other arguments as of softmax.
#[pyfunction]
#[pyo3(signature = (logits, tokens, *, scale=None, temperature=None, mask=None, bitmask=None, hidden_from=None, masked=MaskedRows::default(), out=None, threads=None, kernel=None),
    text_signature = "(logits, tokens, *, scale=None, temperature=None, mask=None, bitmask=None, hidden_from=None, masked='nan', out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn log_probs<'py>(
    logits: &Bound<'py, PyAny>,
    tokens: &Bound<'py, PyAny>,
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
    let mask = MaskArray::new(mask, bitmask, hidden_from)?;
    let mask = RowMask::of(&mask, &x, &[last], &[&y])?;
    typed!(x.dtype(), T => with_rows::<T, _>(py, &layout, &[last], |rows| {
        let zero = <T as Float>::Sums::from_f64(0.0);
        with_slice::<<T as Float>::Sums, _>(py, y.layout(), zero, |y| {
            each_row(py, rows, y, of_row, |x, y, first| {
                let op = match &mask {
                    Some(mask) => op.mask(mask.of_rows(first, x.rows())),
                    None => op,
                };
                op.log_probs(x, &indices[first * of_row..][..y.len()], y)
            })
        })
    }))?;
    y.finish()
}

/// exp(-mean(log_probs)), of all of them.
#[pyfunction]
pub fn perplexity(log_probs: &Bound<PyAny>) -> PyResult<f64> {
    let x = Array::input(log_probs, "log_probs")?;
    typed!(x.dtype(), T => {
        let values = x.layout().in_order::<T>();
        run(log_probs.py(), values.len(), || Ok(::softmax::perplexity(&values)))
    })
}
