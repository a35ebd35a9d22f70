//! One row in shards.

use ::softmax::{Element, Exec, Merged, MergedRow, Partial, Shards};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::array::{Array, Dtype, Output, tuple, typed};
use crate::attention::dtype_of;
use crate::options::{Arg, Factor, MaskedRows, by_factor, exec, number, raised, run};
use crate::rows::{copied, room, store};

/// The softmax of a row whose parts lie in several places.
#[pyclass(name = "Shards", module = "softmax", frozen)]
pub struct PyShards {
    factor: Factor,
    masked: MaskedRows,
    exec: Exec<'static>,
}

/// A row whose sum is known.
#[pyclass(name = "MergedRow", module = "softmax", frozen)]
pub struct PyMergedRow(Row);

#[derive(Clone, Copy)]
enum Row {
    F16(MergedRow<::softmax::half::f16>),
    Bf16(MergedRow<::softmax::half::bf16>),
    F32(MergedRow<f32>),
    F64(MergedRow<f64>),
}

impl Row {
    fn dtype(&self) -> Dtype {
        match self {
            Self::F16(_) => Dtype::F16,
            Self::Bf16(_) => Dtype::Bf16,
            Self::F32(_) => Dtype::F32,
            Self::F64(_) => Dtype::F64,
        }
    }

    fn to_partial(self) -> Partial {
        match self {
            Self::F16(row) => row.to_partial(),
            Self::Bf16(row) => row.to_partial(),
            Self::F32(row) => row.to_partial(),
            Self::F64(row) => row.to_partial(),
        }
    }
}

/// Calls with `$row` as the row of the elements' type `$T`.
macro_rules! with_row {
    ($merged:expr, $row:ident: $T:ident => $e:expr) => {
        match $merged {
            Row::F16($row) => {
                type $T = ::softmax::half::f16;
                $e
            }
            Row::Bf16($row) => {
                type $T = ::softmax::half::bf16;
                $e
            }
            Row::F32($row) => {
                type $T = f32;
                $e
            }
            Row::F64($row) => {
                type $T = f64;
                $e
            }
        }
    };
}

#[pymethods]
impl PyMergedRow {
    /// The row as a partial of shape (1, 4): merging it alone gives the row again.
    fn to_partial<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        array_of(py, &[self.0.to_partial()])
    }
}

/// Partials as an array of f64, four numbers each.
fn array_of<'py>(py: Python<'py>, partials: &[Partial]) -> PyResult<Bound<'py, PyAny>> {
    let numpy = py.import("numpy")?;
    let like = Array::input(&numpy.call_method1("empty", (0,))?, "partials")?;
    let mut y = Output::new(&like, &[partials.len(), 4], Dtype::F64)?;
    if let Some(y) = y.layout().slice::<f64>() {
        for (y, partial) in y.chunks_exact_mut(4).zip(partials) {
            y.copy_from_slice(&partial.to_array());
        }
    }
    y.finish()
}

impl PyShards {
    fn operation(&self) -> Shards<'_> {
        let op = Shards::new().masked(self.masked.0).exec(self.exec);
        by_factor!(op, self.factor)
    }

    fn finish<'py>(
        &self,
        row: &PyMergedRow,
        x: &Bound<'py, PyAny>,
        out: Option<&Bound<'py, PyAny>>,
        log: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = x.py();
        let x = shard(x)?;
        if row.0.dtype() != x.dtype() {
            return Err(PyTypeError::new_err(format!(
                "the shard must be {}, as the row's partials, got {}",
                row.0.dtype().name(),
                x.dtype().name()
            )));
        }
        let op = self.operation();
        let mut y = Output::like(&x, out)?;
        let in_place = y.in_place;
        let elements = x.shape()[0];
        with_row!(row.0, row: T => {
            let mut y = y.layout();
            let from = x.layout();
            let apart = |x: &[T], y: &mut [T]| run(py, elements, || match log {
                false => op.softmax(&row, x, y),
                true => op.log_softmax(&row, x, y),
            });
            let over = |y: &mut [T]| run(py, elements, || match log {
                false => op.softmax_in_place(&row, y),
                true => op.log_softmax_in_place(&row, y),
            });
            match (from.slice::<T>(), y.slice::<T>()) {
                (_, Some(y)) if in_place => over(y),
                (Some(x), Some(y)) => apart(x, y),
                _ => {
                    let mut copy = copied::<T>(py, from.view())?;
                    over(&mut copy)?;
                    store(py, &copy, y.view())
                }
            }
        })?;
        y.finish()
    }
}

fn shard<'py>(x: &Bound<'py, PyAny>) -> PyResult<Array<'py>> {
    let x = Array::input(x, "x")?;
    match x.shape() {
        [_] => Ok(x),
        shape => Err(PyValueError::new_err(format!(
            "a shard is a part of one row, with one axis, got shape {}",
            tuple(shape)
        ))),
    }
}

#[pymethods]
impl PyShards {
    #[new]
    #[pyo3(signature = (*, scale=None, temperature=None, masked=MaskedRows::default(), kernel=None),
        text_signature = "(*, scale=None, temperature=None, masked='nan', kernel=None)")]
    fn new<'py>(
        scale: Arg<'_, 'py>,
        temperature: Arg<'_, 'py>,
        masked: MaskedRows,
        kernel: Option<&str>,
    ) -> PyResult<Self> {
        Ok(Self { factor: Factor::new(scale, temperature)?, masked, exec: exec(None, kernel)? })
    }

    /// The partials of a shard, four numbers for each block of 4,096 elements.
    #[pyo3(signature = (x, row_max=None))]
    fn partials<'py>(
        &self,
        x: &Bound<'py, PyAny>,
        row_max: Arg<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = x.py();
        let x = shard(x)?;
        let row_max = number(row_max, "row_max")?;
        let op = self.operation();
        let mut partials = room(Partial::count(x.shape()[0]), Partial::NOTHING)?;
        typed!(x.dtype(), T => {
            let x = x.layout().in_order::<T>();
            run(py, x.len(), || op.partials(&x, row_max, &mut partials))
        })?;
        array_of(py, &partials)
    }

    /// The row behind the partials of all its shards, in order; or, as a float, the row's largest
    /// element, by which the partials have to be computed again.
    #[pyo3(signature = (partials, dtype=None), text_signature = "($self, partials, dtype='float32')")]
    fn merge<'py>(
        &self,
        partials: &Bound<'py, PyAny>,
        dtype: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = partials.py();
        let x = Array::input(partials, "partials")?;
        let ([_, 4], Dtype::F64) = (x.shape(), x.dtype()) else {
            return Err(PyValueError::new_err(format!(
                "partials must have shape (n, 4) and type float64, got {} and {}",
                tuple(x.shape()),
                x.dtype().name()
            )));
        };
        let numbers = x.layout().in_order::<f64>();
        let all: Vec<_> = numbers
            .chunks_exact(4)
            .map(|p| Partial::from_array([p[0], p[1], p[2], p[3]]))
            .collect();
        let op = self.operation();
        let dtype = dtype.map_or(Ok(Dtype::F32), dtype_of)?;
        macro_rules! merged {
            ($T:ty, $variant:ident) => {
                match run(py, all.len(), || op.merge::<$T>(&all))? {
                    Merged::Row(row) => {
                        Ok(Bound::new(py, PyMergedRow(Row::$variant(row)))?.into_any())
                    }
                    Merged::Again(max) => Ok(max.into_pyobject(py)?.into_any()),
                }
            };
        }
        match dtype {
            Dtype::F16 => merged!(::softmax::half::f16, F16),
            Dtype::Bf16 => merged!(::softmax::half::bf16, Bf16),
            Dtype::F64 => merged!(f64, F64),
            _ => merged!(f32, F32),
        }
    }

    /// The probabilities of a shard.
    #[pyo3(signature = (row, x, *, out=None))]
    fn softmax<'py>(
        &self,
        row: &PyMergedRow,
        x: &Bound<'py, PyAny>,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.finish(row, x, out, false)
    }

    /// The log-probabilities of a shard.
    #[pyo3(signature = (row, x, *, out=None))]
    fn log_softmax<'py>(
        &self,
        row: &PyMergedRow,
        x: &Bound<'py, PyAny>,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.finish(row, x, out, true)
    }

    /// The log-sum-exp of the row.
    fn logsumexp(&self, row: &PyMergedRow) -> PyResult<f64> {
        let op = self.operation();
        with_row!(row.0, row: T => op.logsumexp(&row).map(<T as Element>::to_f64).map_err(raised))
    }
}
