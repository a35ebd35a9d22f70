//! Softmax of attention scores in tiles.

use ::softmax::half::{bf16, f16};
use ::softmax::{Attention, Error, Matrix, MatrixMut, OnlineRow, OnlineSoftmax, Weight};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;

use crate::array::{Array, Dtype, Float, Kind, LayoutMut, Output, tuple};
use crate::attention::{Options, dtype_of, scores_shape, usizes};
use crate::loss::floats32;
use crate::mask::{AttentionMask, MaskArray};
use crate::options::{Arg, Factor, MaskedRows, count, exec, flag, number, raised, run, whole};
use crate::reduce::{with_rows, with_slice};
use crate::rows::{copied, room, store};

/// Numbers of a row's state.
const NUMBERS: usize = 5;

/// The softmax of attention scores that are never stored as a whole: a call for each tile of them,
/// as FlashAttention does it.
///
/// shape: that of the whole scores, (.., heads, queries, keys) or (queries, keys). Other arguments
/// are as of attention_softmax; masks are copied.
///
/// >>> import numpy as np, softmax
/// >>> q, k, v = np.ones((3, 4, 64), "float32")
/// >>> online = softmax.OnlineSoftmax((4, 4), scale=64**-0.5, causal=True)
/// >>> output = np.zeros((4, 64), "float32")
/// >>> for key in range(0, 4, 2):
/// ...     weights, factors = online.tile(q @ k[key : key + 2].T, first_key=key)
/// ...     output = output * factors[:, None] + weights @ v[key : key + 2]
/// >>> reciprocals, logsumexp = online.finish()
/// >>> np.allclose(output * reciprocals[:, None], 1.0)
/// True
#[pyclass(name = "OnlineSoftmax", module = "softmax")]
pub struct PyOnlineSoftmax {
    /// Of the whole, as it was given.
    whole: Vec<usize>,
    shape: [usize; 4],
    options: Options<'static>,
    states: Vec<OnlineRow>,
    /// What the last tile was.
    kind: Kind,
}

/// A tile: its first row and key, and the scores, if they are not the weights.
struct Tile<'a, U> {
    first: (usize, usize),
    scores: Option<Matrix<'a, f32>>,
    weights: MatrixMut<'a, U>,
    states: &'a mut [OnlineRow],
    factors: &'a mut [f32],
}

impl<U> Tile<'_, U> {
    /// The first rows, and the others.
    fn split(self, at: usize) -> (Self, Self) {
        let Self { first, scores, weights, states, factors } = self;
        let (scores, scores_rest) = scores.map(|x| x.split_rows(at)).unzip();
        let (weights, weights_rest) = weights.split_rows(at);
        let (factors, factors_rest) = factors.split_at_mut(at);
        (
            Self { first, scores, weights, states: &mut [], factors },
            Self {
                first,
                scores: scores_rest,
                weights: weights_rest,
                states,
                factors: factors_rest,
            },
        )
    }
}

/// Weighs the tile of each head, of which it has some queries from one on.
fn each_head<U: Weight>(
    mut tile: Tile<U>,
    queries: usize,
    heads: usize,
    weigh: impl Fn(Tile<U>) -> Result<(), Error>,
) -> Result<(), Error> {
    let (row, n) = (tile.first.0, tile.weights.rows() / heads.max(1));
    if n == queries {
        return weigh(tile);
    }
    for head in 0..heads {
        let states = std::mem::take(&mut tile.states);
        let (own, rest) = states.split_at_mut(queries);
        let (now, later) = tile.split(n);
        let first = (head * queries + row, now.first.1);
        weigh(Tile { first, states: &mut own[row..row + n], ..now })?;
        tile = Tile { states: rest, ..later };
    }
    Ok(())
}

/// An array of a kind, after which others are made.
fn empty(py: Python, kind: Kind) -> PyResult<Array> {
    let module = py.import(if kind == Kind::Torch { "torch" } else { "numpy" })?;
    let x = module.call_method1(intern!(py, "empty"), (0,))?;
    Array::input(&x, "an empty array")
}

/// Numbers as a new array.
fn filled<'py>(like: &Array<'py>, shape: &[usize], of: &[f32]) -> PyResult<Bound<'py, PyAny>> {
    let mut y = Output::new(like, shape, Dtype::F32)?;
    if let Some(y) = y.layout().slice::<f32>() {
        y.copy_from_slice(of);
    }
    y.finish()
}

impl PyOnlineSoftmax {
    fn online(&self) -> OnlineSoftmax<'_> {
        let [batch, heads, queries, keys] = self.shape;
        let part = [0..batch, 0..heads, 0..queries];
        self.options.of(&part, self.shape, false).online(batch * heads * queries, keys)
    }

    /// The shape of the rows.
    fn rows_shape(&self) -> &[usize] {
        &self.whole[..self.whole.len() - 1]
    }

    /// The shape of the numbers of states.
    fn numbers_shape(&self) -> Vec<usize> {
        [self.rows_shape(), &[NUMBERS]].concat()
    }

    /// Weighs a tile into memory that is not the scores'.
    fn weigh<U: Float + Weight>(
        &self,
        py: Python,
        first: (usize, usize),
        x: &Array,
        mut y: LayoutMut,
        states: &mut [OnlineRow],
        factors: &mut [f32],
    ) -> PyResult<()> {
        let ([batch, heads, queries, _], layout) = (self.shape, x.layout());
        let online = self.online();
        with_rows::<f32, _>(py, &layout, &[layout.shape().len() - 1], |scores| {
            let mut call = |weights: MatrixMut<U>| {
                let tile = Tile { first, scores: Some(scores), weights, states, factors };
                run(py, layout.len(), || {
                    each_head(tile, queries, batch * heads, |tile| match tile.scores {
                        Some(x) => {
                            online.tile(tile.first, x, tile.weights, tile.states, tile.factors)
                        }
                        None => Ok(()),
                    })
                })
            };
            if let Some(weights) = y.matrix::<U>() {
                return call(weights);
            }
            let mut copy = room(layout.len(), U::ZERO)?;
            let (rows, cols) = (scores.rows(), scores.cols());
            call(MatrixMut::with_stride(&mut copy, rows, cols, cols).map_err(raised)?)?;
            store(py, &copy, y.view())
        })
    }

    /// Weighs a tile in place.
    fn weigh_in_place(
        &self,
        py: Python,
        first: (usize, usize),
        mut y: LayoutMut,
        states: &mut [OnlineRow],
        factors: &mut [f32],
    ) -> PyResult<()> {
        let [batch, heads, queries, _] = self.shape;
        let (online, elements) = (self.online(), y.get().len());
        let mut call = |weights: MatrixMut<f32>| {
            let tile = Tile { first, scores: None, weights, states, factors };
            run(py, elements, || {
                each_head(tile, queries, batch * heads, |tile| {
                    online.tile_in_place(tile.first, tile.weights, tile.states, tile.factors)
                })
            })
        };
        if let Some(weights) = y.matrix::<f32>() {
            return call(weights);
        }
        let mut copy = copied::<f32>(py, y.get().view())?;
        let cols = y.get().shape().last().copied().unwrap_or(0);
        let rows = factors_len(y.get().shape());
        call(MatrixMut::with_stride(&mut copy, rows, cols, cols).map_err(raised)?)?;
        store(py, &copy, y.view())
    }
}

/// Rows of a shape.
fn factors_len(shape: &[usize]) -> usize {
    shape[..shape.len() - 1].iter().product()
}

#[pymethods]
impl PyOnlineSoftmax {
    #[new]
    #[pyo3(signature = (shape, *, causal=None, window=None, window_ahead=None, offset=None, mask=None, bitmask=None, hidden_from=None, mask_slopes=None, alibi=None, soft_cap=None, sinks=None, lengths=None, scale=None, temperature=None, masked=MaskedRows::default(), kernel=None),
        text_signature = "(shape, *, causal=False, window=None, window_ahead=None, offset=None, mask=None, bitmask=None, hidden_from=None, mask_slopes=None, alibi=None, soft_cap=None, sinks=None, lengths=None, scale=None, temperature=None, masked='nan', kernel=None)")]
    #[allow(clippy::too_many_arguments)]
    fn new<'py>(
        shape: &Bound<'py, PyAny>,
        causal: Arg<'_, 'py>,
        window: Arg<'_, 'py>,
        window_ahead: Arg<'_, 'py>,
        offset: Arg<'_, 'py>,
        mask: Arg<'_, 'py>,
        bitmask: Arg<'_, 'py>,
        hidden_from: Arg<'_, 'py>,
        mask_slopes: Arg<'_, 'py>,
        alibi: Arg<'_, 'py>,
        soft_cap: Arg<'_, 'py>,
        sinks: Arg<'_, 'py>,
        lengths: Arg<'_, 'py>,
        scale: Arg<'_, 'py>,
        temperature: Arg<'_, 'py>,
        masked: MaskedRows,
        kernel: Option<&str>,
    ) -> PyResult<Self> {
        let mut all = Vec::new();
        for size in shape.try_iter()? {
            all.extend(count(Some(&size?), "a size")?);
        }
        let shape = scores_shape(&all, "shape")?;
        let too_many = || PyValueError::new_err(format!("too many scores: {}", tuple(&all)));
        let rows = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size.max(1)));
        rows.ok_or_else(too_many)?;
        let mask = MaskArray::new(mask, bitmask, hidden_from)?;
        let mask = mask.as_ref().map(|mask| AttentionMask::new(mask, shape, Dtype::F32));
        let options = Options {
            factor: Factor::new(scale, temperature)?,
            exec: exec(None, kernel)?,
            causal: flag(causal, "causal")?,
            window: count(window, "window")?,
            window_ahead: count(window_ahead, "window_ahead")?,
            offset: whole(offset, "offset")?.map(|n| n as isize),
            soft_cap: number(soft_cap, "soft_cap")?,
            mask: mask.transpose()?.map(AttentionMask::into_owned),
            mask_slopes: floats32(mask_slopes, "mask_slopes")?,
            alibi: floats32(alibi, "alibi")?,
            sinks: floats32(sinks, "sinks")?,
            lengths: lengths.map(|x| usizes(x, "lengths")).transpose()?,
            masked,
        };
        let states = room(shape[..3].iter().product(), OnlineRow::NEW)?;
        let online = Self { whole: all, shape, options, states, kind: Kind::Numpy };
        // Refuses options that do not fit.
        online.online().finish(0, &[], &mut [], None).map_err(raised)?;
        Ok(online)
    }

    /// The weights of a tile of scores (float32), and for each of its rows the factor by which what
    /// was accumulated before is to be multiplied: a power of two, mostly 1, and 0 where the row
    /// has seen nothing before.
    ///
    /// scores: (.., heads, q, k): all sequences and heads, q queries from first_query on, k keys
    /// from first_key on. dtype: that of the weights: float32, float16 or bfloat16. out=scores
    /// overwrites the scores. Tiles in the order of keys give the same bits wherever they are cut.
    #[pyo3(signature = (scores, first_query=None, first_key=None, *, dtype=None, out=None),
        text_signature = "($self, scores, first_query=0, first_key=0, *, dtype=None, out=None)")]
    fn tile<'py>(
        &mut self,
        scores: &Bound<'py, PyAny>,
        first_query: Arg<'_, 'py>,
        first_key: Arg<'_, 'py>,
        dtype: Arg<'_, 'py>,
        out: Arg<'_, 'py>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let py = scores.py();
        let x = Array::input(scores, "scores")?;
        if x.dtype() != Dtype::F32 {
            let got = x.dtype().name();
            return Err(PyTypeError::new_err(format!("scores must be float32, got {got}")));
        }
        let query = count(first_query, "first_query")?.unwrap_or(0);
        let key = count(first_key, "first_key")?.unwrap_or(0);
        let (whole, dims) = (&self.whole, self.whole.len());
        let fits = |axis: usize, first: usize| {
            let end = x.shape()[axis].checked_add(first);
            end.is_some_and(|end| end <= whole[axis])
        };
        let same = x.shape().len() == dims && x.shape()[..dims - 2] == whole[..dims - 2];
        if !(same && fits(dims - 2, query) && fits(dims - 1, key)) {
            return Err(PyValueError::new_err(format!(
                "scores of shape {} from query {query} and key {key} on are no tile of {}",
                tuple(x.shape()),
                tuple(whole)
            )));
        }
        let to = match dtype {
            Some(dtype) => dtype_of(dtype)?,
            None => Dtype::F32,
        };
        if to == Dtype::F64 {
            return Err(PyTypeError::new_err(
                "weights must be float32, float16 or bfloat16, got float64",
            ));
        }
        let mut y = match to {
            Dtype::F32 => Output::like(&x, out)?,
            to => Output::of(&x, out, x.shape(), to)?,
        };
        let mut factors = Output::new(&x, &x.shape()[..dims - 1], Dtype::F32)?;
        let first = (query, key);
        let mut states = std::mem::take(&mut self.states);
        let in_place = y.in_place;
        // The options need no states but their number.
        let done = with_slice(py, factors.layout(), 0.0, |factors: &mut [f32]| {
            let (y, states) = (y.layout(), &mut states[..]);
            match to {
                _ if in_place => self.weigh_in_place(py, first, y, states, factors),
                Dtype::F16 => self.weigh::<f16>(py, first, &x, y, states, factors),
                Dtype::Bf16 => self.weigh::<bf16>(py, first, &x, y, states, factors),
                _ => self.weigh::<f32>(py, first, &x, y, states, factors),
            }
        });
        self.states = states;
        done?;
        self.kind = x.kind();
        Ok((y.finish()?, factors.finish()?))
    }

    /// The number by which what each row has accumulated is to be multiplied, one divided by the
    /// sum of its weights and its sink; and the log-sum-exp of its logits with its sink. Both have
    /// the shape (.., heads, queries).
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let n = self.states.len();
        let (mut reciprocals, mut logs) = (room(n, 0.0f32)?, room(n, 0.0f32)?);
        let online = self.online();
        run(py, n, || online.finish(0, &self.states, &mut reciprocals, Some(&mut logs)))?;
        let like = empty(py, self.kind)?;
        let shape = self.rows_shape();
        Ok((filled(&like, shape, &reciprocals)?, filled(&like, shape, &logs)?))
    }

    /// Takes over the states of another one that has seen later keys of the same rows, or what its
    /// to_array gave. Returns the factors of what either has accumulated, powers of two: multiplied
    /// by them, they are added.
    fn merge<'py>(
        &mut self,
        other: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let (py, n) = (other.py(), self.states.len());
        let (mut factors, mut other_factors) = (room(n, 0.0f32)?, room(n, 0.0f32)?);
        let mut merge = |states: &mut [OnlineRow], others: &[OnlineRow]| {
            OnlineSoftmax::merge(states, others, &mut factors, &mut other_factors).map_err(raised)
        };
        if let Ok(online) = other.cast::<Self>() {
            let itself = |_| PyValueError::new_err("an OnlineSoftmax cannot be merged with itself");
            let online = online.try_borrow().map_err(itself)?;
            if online.whole != self.whole {
                let (own, got) = (tuple(&self.whole), tuple(&online.whole));
                return Err(PyValueError::new_err(format!(
                    "the other must be of {own}, got {got}"
                )));
            }
            merge(&mut self.states, &online.states)?;
        } else {
            let x = Array::input(other, "other")?;
            if x.dtype() != Dtype::F64 || x.shape() != self.numbers_shape() {
                return Err(PyValueError::new_err(format!(
                    "the other must have shape {} and type float64, got {} and {}",
                    tuple(&self.numbers_shape()),
                    tuple(x.shape()),
                    x.dtype().name()
                )));
            }
            let numbers = x.layout().in_order::<f64>();
            let (rows, _) = numbers.as_chunks::<NUMBERS>();
            let others: Vec<_> = rows.iter().map(|&row| OnlineRow::from_array(row)).collect();
            merge(&mut self.states, &others)?;
        }
        let (like, shape) = (empty(py, self.kind)?, self.rows_shape());
        Ok((filled(&like, shape, &factors)?, filled(&like, shape, &other_factors)?))
    }

    /// The states as an array of float64 of shape (.., heads, queries, 5), to be sent to another
    /// machine and merged there.
    fn to_array<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let like = empty(py, Kind::Numpy)?;
        let mut y = Output::new(&like, &self.numbers_shape(), Dtype::F64)?;
        if let Some(y) = y.layout().slice::<f64>() {
            let (rows, _) = y.as_chunks_mut::<NUMBERS>();
            rows.iter_mut().zip(&self.states).for_each(|(to, state)| *to = state.to_array());
        }
        y.finish()
    }
}

/// Merges outputs of attention over different keys, of whatever origin, by the log-sum-exps of
/// their rows. Returns the output and log-sum-exp of all keys.
///
/// outputs: (parts, .., size), logsumexps: (parts, ..), both float32. A part whose log-sum-exp is
/// -inf has seen nothing, and its output is not read. masked: of rows whose parts all are so.
///
/// >>> import numpy as np, softmax
/// >>> outputs, lses = np.float32([[[1.0, 0.0]], [[0.0, 1.0]]]), np.log(np.float32([[1], [3]]))
/// >>> softmax.merge_outputs(outputs, lses)[0].round(3)
/// array([[0.25, 0.75]], dtype=float32)
#[pyfunction]
#[pyo3(signature = (outputs, logsumexps, *, masked=MaskedRows::default()),
    text_signature = "(outputs, logsumexps, *, masked='nan')")]
pub fn merge_outputs<'py>(
    outputs: &Bound<'py, PyAny>,
    logsumexps: &Bound<'py, PyAny>,
    masked: MaskedRows,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let py = outputs.py();
    let x = Array::input(outputs, "outputs")?;
    let logs = Array::input(logsumexps, "logsumexps")?;
    if (x.dtype(), logs.dtype()) != (Dtype::F32, Dtype::F32) {
        let (got, of_logs) = (x.dtype().name(), logs.dtype().name());
        let text = format!("outputs and logsumexps must be float32, got {got} and {of_logs}");
        return Err(PyTypeError::new_err(text));
    }
    let dims = x.shape().len();
    if dims < 2 || x.shape()[..dims - 1] != *logs.shape() {
        return Err(PyValueError::new_err(format!(
            "outputs must have the axes of logsumexps, parts first, and one more, got shapes {} and {}",
            tuple(x.shape()),
            tuple(logs.shape())
        )));
    }
    let (n, cols) = (x.shape()[0], x.shape()[dims - 1]);
    let rows: usize = x.shape()[1..dims - 1].iter().product();
    let (values, logs) = (x.layout().in_order::<f32>(), logs.layout().in_order::<f32>());
    let mut parts = Vec::new();
    for i in 0..n {
        let part = &values[i * rows * cols..(i + 1) * rows * cols];
        let part = Matrix::with_stride(part, rows, cols, cols).map_err(raised)?;
        parts.push((part, &logs[i * rows..(i + 1) * rows]));
    }
    let mut y = Output::new(&x, &x.shape()[1..], Dtype::F32)?;
    let mut lse = Output::new(&x, &x.shape()[1..dims - 1], Dtype::F32)?;
    with_slice(py, y.layout(), 0.0, |y: &mut [f32]| {
        let y = MatrixMut::with_stride(y, rows, cols, cols).map_err(raised)?;
        with_slice(py, lse.layout(), 0.0, |lse: &mut [f32]| {
            let online = Attention::new(1, 1).masked(masked.0).online(0, 0);
            run(py, values.len(), || online.merge_outputs(&parts, y, lse))
        })
    })?;
    Ok((y.finish()?, lse.finish()?))
}
