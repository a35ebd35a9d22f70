//! Softmax, its logarithm and their relatives that map rows to rows.

use ::softmax::ndarray::{ArrayViewD, ArrayViewMutD, Axis};
use ::softmax::{Error, Hardmax, Matrix, MatrixMut, Sigmoid, Softmax, Ties};
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;

use crate::array::{Array, Float, Layout, LayoutMut, Output, Typed, typed};
use crate::mask::{MaskArray, RowMask};
use crate::options::{
    Along, Arg, Factor, MaskedRows, RowFactors, by_factor, exec, one_of, run, run_rows,
};

/// An operation from rows to rows, with its options.
#[derive(Clone, Copy)]
pub enum Map {
    Softmax(Softmax<'static>),
    LogSoftmax(Softmax<'static>),
    Hardmax(Hardmax<'static>),
    Sigmoid(Sigmoid<'static>),
    LogSigmoid(Sigmoid<'static>),
}

/// Rows to be read, if they are not those to be written, and rows to be written.
struct Matrices<'a, T> {
    x: Option<Matrix<'a, T>>,
    y: MatrixMut<'a, T>,
    /// The first of them.
    at: usize,
}

impl<T> Matrices<'_, T> {
    fn split(self, at: usize) -> (Self, Self) {
        let (x, x_rest) = self.x.map(|x| x.split_rows(at)).unzip();
        let (y, y_rest) = self.y.split_rows(at);
        (Self { x, y, at: self.at }, Self { x: x_rest, y: y_rest, at: self.at + at })
    }
}

/// As [`Matrices`], of any layout.
struct Views<'a, T> {
    x: Option<ArrayViewD<'a, T>>,
    y: ArrayViewMutD<'a, T>,
    axis: usize,
}

impl<T> Views<'_, T> {
    /// The longest axis but that of the operation, where parts are cut.
    fn cut(&self) -> Option<usize> {
        let others = (0..self.y.ndim()).filter(|&axis| axis != self.axis);
        others.max_by_key(|&axis| self.y.len_of(Axis(axis)))
    }

    fn split(self, cut: usize, at: usize) -> (Self, Self) {
        let (x, x_rest) = self.x.map(|x| x.split_at(Axis(cut), at)).unzip();
        let (y, y_rest) = self.y.split_at(Axis(cut), at);
        (Self { x, y, axis: self.axis }, Self { x: x_rest, y: y_rest, axis: self.axis })
    }
}

/// An operation, and the mask and the factors of its rows.
struct Masked<'a> {
    map: Map,
    mask: Option<RowMask<'a>>,
    each: Option<&'a RowFactors>,
}

impl Masked<'_> {
    fn rows<T: Float>(&self, Matrices { x, y, at }: Matrices<T>) -> Result<(), Error> {
        let masked = |op: Softmax<'static>| -> Softmax<'_> {
            match &self.mask {
                Some(mask) => op.mask(mask.of_rows(at, y.rows())),
                None => op,
            }
        };
        if let (Some(each), Map::Softmax(op) | Map::LogSoftmax(op)) = (self.each, self.map) {
            let op = each.of_rows(masked(op), at, y.rows());
            return match (self.map, x) {
                (Map::Softmax(_), Some(x)) => op.softmax(x, y),
                (Map::Softmax(_), None) => op.softmax_in_place(y),
                (_, Some(x)) => op.log_softmax(x, y),
                (_, None) => op.log_softmax_in_place(y),
            };
        }
        match (self.map, x) {
            (Map::Softmax(op), Some(x)) => masked(op).softmax(x, y),
            (Map::Softmax(op), None) => masked(op).softmax_in_place(y),
            (Map::LogSoftmax(op), Some(x)) => masked(op).log_softmax(x, y),
            (Map::LogSoftmax(op), None) => masked(op).log_softmax_in_place(y),
            (Map::Hardmax(op), Some(x)) => op.hardmax(x, y),
            (Map::Hardmax(op), None) => op.hardmax_in_place(y),
            (Map::Sigmoid(op), Some(x)) => op.sigmoid(x, y),
            (Map::Sigmoid(op), None) => op.sigmoid_in_place(y),
            (Map::LogSigmoid(op), Some(x)) => op.log_sigmoid(x, y),
            (Map::LogSigmoid(op), None) => op.log_sigmoid_in_place(y),
        }
    }

    /// Whether the library has it along any axis. Masks and factors are in the order of rows.
    fn has_axes(&self) -> bool {
        self.mask.is_none()
            && self.each.is_none()
            && !matches!(self.map, Map::Sigmoid(_) | Map::LogSigmoid(_))
    }

    fn along<T: Float>(&self, Views { x, y, axis }: Views<T>) -> Result<(), Error> {
        let axis = axis as isize;
        match (self.map, x) {
            (Map::Softmax(op), Some(x)) => op.softmax_array(x, y, axis),
            (Map::Softmax(op), None) => op.softmax_array_in_place(y, axis),
            (Map::LogSoftmax(op), Some(x)) => op.log_softmax_array(x, y, axis),
            (Map::LogSoftmax(op), None) => op.log_softmax_array_in_place(y, axis),
            (Map::Hardmax(op), Some(x)) => op.hardmax_array(x, y, axis),
            (Map::Hardmax(op), None) => op.hardmax_array_in_place(y, axis),
            (Map::Sigmoid(_) | Map::LogSigmoid(_), _) => unreachable!("they have no axes"),
        }
    }

    /// The lanes of `x` along axes, into those of `y`; or those of `y` in place.
    fn lanes<T: Float>(
        &self,
        py: Python,
        x: Option<Layout>,
        y: LayoutMut,
        axes: &[usize],
    ) -> PyResult<()> {
        let n = axes.len();
        let x = x.map(|x| x.moved_last(axes));
        let mut y = y.map(|y| y.moved_last(axes));
        if n == 1 {
            if let Some(done) = self.where_they_are::<T>(py, x.as_ref(), &mut y) {
                return done;
            }
        } else {
            let joined = match &x {
                Some(x) => x.clone().joined(n).map(Some),
                None => Some(None),
            };
            if let (Some(x), Some(mut y)) = (joined, y.copy_of().try_map(|y| y.joined(n)))
                && let Some(done) = self.where_they_are::<T>(py, x.as_ref(), &mut y)
            {
                return done;
            }
        }
        // In a copy in C order.
        let shape = y.get().shape().to_vec();
        let (outer, inner) = shape.split_at(shape.len() - n);
        let (rows, cols) = (outer.iter().product(), inner.iter().product());
        let mut copy = match &x {
            Some(x) => copied(py, x.view::<T>())?,
            None => copied(py, y.get().view::<T>())?,
        };
        let matrix = MatrixMut::with_stride(&mut copy, rows, cols, cols);
        let matrix = matrix.map_err(crate::options::raised)?;
        self.matrices(py, Matrices { x: None, y: matrix, at: 0 })?;
        store(py, &copy, y.view())
    }

    /// The lanes along the last axis, if no copy is needed.
    fn where_they_are<T: Float>(
        &self,
        py: Python,
        x: Option<&Layout>,
        y: &mut LayoutMut,
    ) -> Option<PyResult<()>> {
        let x_rows = x.map(Layout::matrix::<T>);
        if !matches!(x_rows, Some(None))
            && let Some(y) = y.matrix::<T>()
        {
            return Some(self.matrices(py, Matrices { x: x_rows.flatten(), y, at: 0 }));
        }
        if !self.has_axes() {
            return None;
        }
        let axis = y.get().shape().len() - 1;
        Some(self.views(py, Views { x: x.map(Layout::view::<T>), y: y.view(), axis }))
    }

    fn matrices<T: Float>(&self, py: Python, work: Matrices<T>) -> PyResult<()> {
        let shape = (work.y.rows(), work.y.cols());
        run_rows(py, shape, work, Matrices::split, |work| self.rows(work))
    }

    fn views<T: Float>(&self, py: Python, work: Views<T>) -> PyResult<()> {
        let Some(cut) = work.cut() else {
            let elements = work.y.len();
            return run(py, elements, || self.along(work));
        };
        let rows = work.y.len_of(Axis(cut));
        let shape = (rows, work.y.len().checked_div(rows).unwrap_or(0));
        run_rows(py, shape, work, |work, at| work.split(cut, at), |work| self.along(work))
    }

    /// Of what is computed element by element.
    fn elements<T: Float>(&self, py: Python, x: Option<Layout>, mut y: LayoutMut) -> PyResult<()> {
        /// Elements of the rows that threads take.
        const ROW: usize = 1 << 12;
        let slice = x.as_ref().map(Layout::slice::<T>);
        if let (None | Some(Some(_)), Some(y)) = (&slice, y.slice::<T>()) {
            let (at, x) = (y.len() / ROW * ROW, slice.flatten());
            let (x, x_rest) = x.map(|x| x.split_at(at)).unzip();
            let (y, y_rest) = y.split_at_mut(at);
            for (x, y, cols) in [(x, y, ROW), (x_rest, y_rest, usize::MAX)] {
                let cols = cols.min(y.len().max(1));
                let x = x.map(|x| Matrix::new(x, cols)).transpose();
                let work = x.and_then(|x| Ok(Matrices { x, y: MatrixMut::new(y, cols)?, at: 0 }));
                self.matrices(py, work.map_err(crate::options::raised)?)?;
            }
            return Ok(());
        }
        // The last axis may be any.
        let last = y.get().nearest_axis();
        self.lanes::<T>(py, x, y, &[last])
    }
}

/// A copy in C order.
pub fn copied<T: Float>(py: Python, x: ArrayViewD<T>) -> PyResult<Vec<T>> {
    let mut copy = room(x.len(), T::ZERO)?;
    let to = ArrayViewMutD::from_shape(x.raw_dim(), &mut copy);
    assign(py, x, to.map_err(|e| PyMemoryError::new_err(e.to_string()))?)?;
    Ok(copy)
}

/// What is in C order, into an array.
pub fn store<T: Typed>(py: Python, from: &[T], to: ArrayViewMutD<T>) -> PyResult<()> {
    let from = ArrayViewD::from_shape(to.raw_dim(), from);
    assign(py, from.map_err(|e| PyMemoryError::new_err(e.to_string()))?, to)
}

fn assign<'a, T: Typed>(
    py: Python,
    from: ArrayViewD<'a, T>,
    mut to: ArrayViewMutD<'a, T>,
) -> PyResult<()> {
    let Some(cut) = (0..to.ndim()).max_by_key(|&axis| to.len_of(Axis(axis))).map(Axis) else {
        // One element, which has no axis.
        return run(py, 1, || {
            to.assign(&from);
            Ok(())
        });
    };
    let shape = (to.len_of(cut), to.len().checked_div(to.len_of(cut)).unwrap_or(0));
    let split = |(from, to): (ArrayViewD<'a, T>, ArrayViewMutD<'a, T>), at| {
        let ((from, from_rest), (to, to_rest)) = (from.split_at(cut, at), to.split_at(cut, at));
        ((from, to), (from_rest, to_rest))
    };
    run_rows(py, shape, (from, to), split, |(from, mut to)| {
        to.assign(&from);
        Ok(())
    })
}

/// So many elements.
pub fn room<T: Copy>(n: usize, zero: T) -> PyResult<Vec<T>> {
    let mut room = Vec::new();
    if room.try_reserve_exact(n).is_err() {
        return Err(PyMemoryError::new_err(format!("there is no memory for {n} elements")));
    }
    room.resize(n, zero);
    Ok(room)
}

/// A map along axes, from arguments to result.
fn map<'py>(
    x: &Bound<'py, PyAny>,
    axis: &Along,
    mask: Option<MaskArray<'py>>,
    each: Option<&RowFactors>,
    out: Arg<'_, 'py>,
    map: Map,
) -> PyResult<Bound<'py, PyAny>> {
    let py = x.py();
    let x = Array::input(x, "x")?;
    let axes = axis.of(x.shape().len())?;
    let mut y = Output::like(&x, out)?;
    let mask = RowMask::of(&mask, &x, &axes, &[&y])?;
    if let Some(each) = each {
        each.check(x.layout().at_least_one_axis().shape(), &axes)?;
    }
    let op = Masked { map, mask, each };
    let (dtype, in_place) = (x.dtype(), y.in_place);
    let x_layout = (!in_place).then(|| x.layout().at_least_one_axis());
    let y_layout = y.layout().map(Layout::at_least_one_axis);
    typed!(dtype, T => match map {
        Map::Sigmoid(_) | Map::LogSigmoid(_) => op.elements::<T>(py, x_layout, y_layout),
        _ => op.lanes::<T>(py, x_layout, y_layout, &axes),
    })?;
    y.finish()
}

/// exp(x) / sum(exp(x)) along an axis, with at most 3 ULP of error.
///
/// x is an array, a tensor, a list or a number; the result is of the same kind and type.
/// axis: an int, a tuple of them, or None for all.
/// scale, temperature: what x is multiplied or divided by first: a number, or one for each row.
/// mask: bools (True: seen) or numbers that are added, broadcast to x.
/// bitmask: instead of mask, int32 or uint32 as grammar engines make them: bit i % 32 of word
///     i // 32 of a row tells whether its element i is seen; rows are broadcast to those of x.
/// hidden_from: elements from this one on are hidden; the bitmask needs no bits for them.
/// masked: what rows of nothing but -inf become, "nan" or "zero".
/// out: where to write instead of a new array; x itself works in place.
/// threads: 1 for this thread alone, n for at most so many; all that pay by default.
/// kernel: one of kernels(), on which the bits do not depend.
#[pyfunction]
#[pyo3(signature = (x, axis=Along::Last, *, scale=None, temperature=None, mask=None, bitmask=None, hidden_from=None, masked=MaskedRows::default(), out=None, threads=None, kernel=None),
    text_signature = "(x, axis=-1, *, scale=None, temperature=None, mask=None, bitmask=None, hidden_from=None, masked='nan', out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn softmax<'py>(
    x: &Bound<'py, PyAny>,
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
    let op = Softmax::new().masked(masked.0).exec(exec(threads, kernel)?);
    let (factor, each) = RowFactors::new(scale, temperature)?;
    let op = by_factor!(op, factor);
    let mask = MaskArray::new(mask, bitmask, hidden_from)?;
    map(x, &axis, mask, each.as_ref(), out, Map::Softmax(op))
}

/// The logarithm of the softmax of x along an axis. Arguments as of softmax.
#[pyfunction]
#[pyo3(signature = (x, axis=Along::Last, *, scale=None, temperature=None, mask=None, bitmask=None, hidden_from=None, masked=MaskedRows::default(), out=None, threads=None, kernel=None),
    text_signature = "(x, axis=-1, *, scale=None, temperature=None, mask=None, bitmask=None, hidden_from=None, masked='nan', out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn log_softmax<'py>(
    x: &Bound<'py, PyAny>,
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
    let op = Softmax::new().masked(masked.0).exec(exec(threads, kernel)?);
    let (factor, each) = RowFactors::new(scale, temperature)?;
    let op = by_factor!(op, factor);
    let mask = MaskArray::new(mask, bitmask, hidden_from)?;
    map(x, &axis, mask, each.as_ref(), out, Map::LogSoftmax(op))
}

/// 1 / (1 + exp(-x)) of each element. Arguments as of softmax.
#[pyfunction]
#[pyo3(signature = (x, *, scale=None, temperature=None, out=None, threads=None, kernel=None))]
pub fn sigmoid<'py>(
    x: &Bound<'py, PyAny>,
    scale: Arg<'_, 'py>,
    temperature: Arg<'_, 'py>,
    out: Option<&Bound<'py, PyAny>>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let op = Sigmoid::new().exec(exec(threads, kernel)?);
    let op = by_factor!(op, Factor::new(scale, temperature)?);
    map(x, &Along::Last, None, None, out, Map::Sigmoid(op))
}

/// The logarithm of the sigmoid of each element. Arguments as of softmax.
#[pyfunction]
#[pyo3(signature = (x, *, scale=None, temperature=None, out=None, threads=None, kernel=None))]
pub fn log_sigmoid<'py>(
    x: &Bound<'py, PyAny>,
    scale: Arg<'_, 'py>,
    temperature: Arg<'_, 'py>,
    out: Option<&Bound<'py, PyAny>>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let op = Sigmoid::new().exec(exec(threads, kernel)?);
    let op = by_factor!(op, Factor::new(scale, temperature)?);
    map(x, &Along::Last, None, None, out, Map::LogSigmoid(op))
}

/// `ties="share"` or `"first"`.
pub struct TiesOf(Ties);

impl<'py> FromPyObject<'_, 'py> for TiesOf {
    type Error = PyErr;

    fn extract(x: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        one_of(&x, "ties", &[("share", Ties::Share), ("first", Ties::First)]).map(Self)
    }
}

/// 1 for the largest element along an axis, 0 for the others.
///
/// ties: "share" gives equal ones 1/n each, "first" gives 1 to the first of them.
/// Other arguments as of softmax.
#[pyfunction]
#[pyo3(signature = (x, axis=Along::Last, *, ties=TiesOf(Ties::Share), masked=MaskedRows::default(), out=None, threads=None, kernel=None),
    text_signature = "(x, axis=-1, *, ties='share', masked='nan', out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn hardmax<'py>(
    x: &Bound<'py, PyAny>,
    axis: Along,
    ties: TiesOf,
    masked: MaskedRows,
    out: Option<&Bound<'py, PyAny>>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let op = Hardmax::new().ties(ties.0).masked(masked.0).exec(exec(threads, kernel)?);
    map(x, &axis, None, None, out, Map::Hardmax(op))
}
