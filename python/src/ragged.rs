//! Rows of different lengths, by offsets into one array.

use std::cell::Cell;
use std::mem;

use ::softmax::{Error, Hardmax, Offsets, Ragged, RaggedMut, Softmax};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::array::{Array, Float, LayoutMut, Output, tuple, typed};
use crate::options::{Arg, Factor, MaskedRows, by_factor, exec, run};
use crate::reduce::{columns, indices_like};
use crate::rows::{room, store};

/// The most numbers of a list that is kept for the next call: 16 MiB.
const KEPT: usize = 1 << 22;

thread_local! {
    /// The list of the call before, since new memory takes longer than filling it.
    static SPARE: Cell<Vec<i32>> = const { Cell::new(Vec::new()) };
}

/// A copy of the offsets of rows, which nobody else writes: of i32 where that is enough, since for
/// short rows reading offsets takes time.
pub enum OffsetList {
    I32(Vec<i32>),
    I64(Vec<i64>),
}

impl Drop for OffsetList {
    fn drop(&mut self) {
        if let Self::I32(list) = self
            && list.capacity() <= KEPT
        {
            SPARE.set(mem::take(list));
        }
    }
}

impl OffsetList {
    fn new(offsets: &[i64]) -> Self {
        let mut list = SPARE.take();
        list.clear();
        list.reserve_exact(offsets.len());
        // All bits that any has.
        let mut bits = 0;
        // The compiler makes vectors of both loops; the second reads what is in the cache.
        for part in offsets.chunks(2048) {
            bits = part.iter().fold(bits, |all, offset| all | offset);
            list.extend(part.iter().map(|&offset| offset as i32));
        }
        if i32::try_from(bits).is_ok_and(|bits| bits >= 0) {
            Self::I32(list)
        } else {
            Self::I64(offsets.to_vec())
        }
    }

    pub fn get(&self) -> Offsets<'_> {
        match self {
            Self::I32(list) => list[..].into(),
            Self::I64(list) => list[..].into(),
        }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        match self {
            Self::I32(list) => list.len().saturating_sub(1),
            Self::I64(list) => list.len().saturating_sub(1),
        }
    }

    /// Where the first row begins, and where the last one ends.
    fn ends(&self) -> [i64; 2] {
        let ends = match self {
            Self::I32(list) => [list.first(), list.last()].map(|end| end.map(|&end| end.into())),
            Self::I64(list) => [list.first(), list.last()].map(|end| end.copied()),
        };
        ends.map(Option::unwrap_or_default)
    }
}

/// Elements, which errors call `name`, and the offsets of their rows.
pub fn inputs<'py>(
    x: &Bound<'py, PyAny>,
    offsets: &Bound<'py, PyAny>,
    name: &str,
) -> PyResult<(Array<'py>, OffsetList)> {
    let (x, offsets) = (Array::input(x, name)?, Array::labels(offsets, "offsets")?);
    for (array, name) in [(&x, name), (&offsets, "offsets")] {
        if array.shape().len() != 1 {
            let shape = tuple(array.shape());
            return Err(PyValueError::new_err(format!("{name} must have one axis, got {shape}")));
        }
    }
    let offsets = OffsetList::new(&columns(&offsets, "offsets")?);
    Ok((x, offsets))
}

/// Softmax or log-softmax of rows.
fn map<'py>(
    x: &Bound<'py, PyAny>,
    offsets: &Bound<'py, PyAny>,
    op: Softmax<'static>,
    log: bool,
    out: Arg<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = x.py();
    let (x, offsets) = inputs(x, offsets, "x")?;
    let mut y = Output::like(&x, out)?;
    let (in_place, fresh) = (y.in_place, out.is_none());
    typed!(x.dtype(), T => {
        let elements = x.layout().len();
        // In place the elements are only borrowed once.
        let source = (!in_place).then(|| x.layout().in_order::<T>());
        let compute = |y: &mut [T]| -> Result<(), Error> {
            let Some(x) = &source else {
                let rows = RaggedMut::new(y, offsets.get())?;
                return match log {
                    true => op.log_softmax_ragged_in_place(rows),
                    false => op.softmax_ragged_in_place(rows),
                };
            };
            let rows = Ragged::new(x, offsets.get())?;
            if fresh {
                outside(y, &offsets);
            }
            if log { op.log_softmax_ragged(rows, y) } else { op.softmax_ragged(rows, y) }
        };
        into_places(py, y.layout(), elements, compute)
    })?;
    y.finish()
}

/// Calls with the elements of an output, of which some may belong to no row: where they are, or in
/// a copy without gaps of what is there.
pub fn into_places<T: Float, R: Send>(
    py: Python,
    mut y: LayoutMut,
    elements: usize,
    f: impl FnOnce(&mut [T]) -> Result<R, Error> + Send,
) -> PyResult<R> {
    if let Some(y) = y.slice::<T>() {
        return run(py, elements, || f(y));
    }
    let mut copy = y.get().in_order::<T>().into_owned();
    let done = run(py, elements, || f(&mut copy))?;
    store(py, &copy, y.view())?;
    Ok(done)
}

/// New elements that belong to no row become 0.
pub fn outside<T: Float>(y: &mut [T], offsets: &OffsetList) {
    let [first, end] = offsets.ends().map(|end| (end as usize).min(y.len()));
    y[..first].fill(T::ZERO);
    y[end..].fill(T::ZERO);
}

/// The softmax of rows of different lengths, one after the other in x, which has one axis: row i
/// is x[offsets[i]:offsets[i + 1]], and may be empty. What is outside of all rows becomes 0.
///
/// offsets: integers that do not fall, one more than there are rows: cu_seqlens of packed
/// sequences, indptr of a matrix in CSR, offsets of a jagged tensor.
/// Other arguments as of softmax.
#[pyfunction]
#[pyo3(signature = (x, offsets, *, scale=None, temperature=None, masked=MaskedRows::default(), out=None, threads=None, kernel=None),
    text_signature = "(x, offsets, *, scale=None, temperature=None, masked='nan', out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn softmax_ragged<'py>(
    x: &Bound<'py, PyAny>,
    offsets: &Bound<'py, PyAny>,
    scale: Arg<'_, 'py>,
    temperature: Arg<'_, 'py>,
    masked: MaskedRows,
    out: Option<&Bound<'py, PyAny>>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let op = Softmax::new().masked(masked.0).exec(exec(threads, kernel)?);
    map(x, offsets, by_factor!(op, Factor::new(scale, temperature)?), false, out)
}

/// The logarithm of softmax_ragged. Arguments as there.
#[pyfunction]
#[pyo3(signature = (x, offsets, *, scale=None, temperature=None, masked=MaskedRows::default(), out=None, threads=None, kernel=None),
    text_signature = "(x, offsets, *, scale=None, temperature=None, masked='nan', out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn log_softmax_ragged<'py>(
    x: &Bound<'py, PyAny>,
    offsets: &Bound<'py, PyAny>,
    scale: Arg<'_, 'py>,
    temperature: Arg<'_, 'py>,
    masked: MaskedRows,
    out: Option<&Bound<'py, PyAny>>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let op = Softmax::new().masked(masked.0).exec(exec(threads, kernel)?);
    map(x, offsets, by_factor!(op, Factor::new(scale, temperature)?), true, out)
}

/// ln(sum(exp(x))) of rows of different lengths: one for each, -inf for an empty one. x and offsets
/// as of softmax_ragged.
#[pyfunction]
#[pyo3(signature = (x, offsets, *, scale=None, temperature=None, threads=None, kernel=None))]
pub fn logsumexp_ragged<'py>(
    x: &Bound<'py, PyAny>,
    offsets: &Bound<'py, PyAny>,
    scale: Arg<'_, 'py>,
    temperature: Arg<'_, 'py>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = x.py();
    let op = Softmax::new().exec(exec(threads, kernel)?);
    let op = by_factor!(op, Factor::new(scale, temperature)?);
    let (x, offsets) = inputs(x, offsets, "x")?;
    let rows = offsets.rows();
    let mut y = Output::new(&x, &[rows], x.dtype())?;
    typed!(x.dtype(), T => {
        let values = x.layout().in_order::<T>();
        let mut layout = y.layout();
        // A new array has no gaps.
        let y = layout.slice::<T>().unwrap_or_default();
        run(py, values.len(), || op.logsumexp_ragged(Ragged::new(&values, offsets.get())?, y))
    })?;
    y.finish()
}

/// The place of the largest element in each of the rows of different lengths; -1 for an empty one.
/// x and offsets as of softmax_ragged.
#[pyfunction]
#[pyo3(signature = (x, offsets, *, threads=None, kernel=None))]
pub fn argmax_ragged<'py>(
    x: &Bound<'py, PyAny>,
    offsets: &Bound<'py, PyAny>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = x.py();
    let op = Hardmax::new().exec(exec(threads, kernel)?);
    let (x, offsets) = inputs(x, offsets, "x")?;
    let mut indices = room(offsets.rows(), 0usize)?;
    typed!(x.dtype(), T => {
        let values = x.layout().in_order::<T>();
        run(py, values.len(), || {
            op.argmax_ragged(Ragged::new(&values, offsets.get())?, &mut indices)
        })
    })?;
    indices_like(&x, &[indices.len()], &indices)
}
