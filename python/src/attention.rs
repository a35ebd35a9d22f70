//! The softmax of attention scores.

use ::softmax::half::{bf16, f16};
use ::softmax::{Attention, Error, MatrixMut, Probs};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::array::{Array, Dtype, Float, Layout, Output, tuple};
use crate::loss::floats32;
use crate::mask::AttentionMask;
use crate::options::{Arg, Factor, MaskedRows, by_factor, count, exec, number, run, whole};
use crate::reduce::{columns, with_rows, with_slice};
use crate::rows::{copied, room, store};

fn attend<T: Float, U: Float + Probs<T>>(
    py: Python,
    op: &Attention,
    x: &Layout,
    y: &mut Output,
    mut lse: Option<&mut [T::Sums]>,
) -> PyResult<()> {
    let last = x.shape().len() - 1;
    let mut y = y.layout();
    let elements = x.len();
    with_rows::<T, _>(py, x, &[last], |scores| {
        let mut call = |probs: MatrixMut<U>| match &mut lse {
            Some(lse) => run(py, elements, || op.softmax_and_logsumexp(scores, probs, lse)),
            None => run(py, elements, || op.softmax(scores, probs)),
        };
        if let Some(probs) = y.matrix::<U>() {
            return call(probs);
        }
        let mut copy = room(elements, U::ZERO)?;
        call(
            MatrixMut::with_stride(&mut copy, scores.rows(), scores.cols(), scores.cols())
                .map_err(crate::options::raised)?,
        )?;
        store(py, &copy, y.view())
    })
}

fn attend_in_place<T: Float + Probs<T>>(
    py: Python,
    op: &Attention,
    y: &mut Output,
    lse: Option<&mut [T::Sums]>,
) -> PyResult<()> {
    let mut y = y.layout();
    let elements = y.get().len();
    let call = |probs: MatrixMut<T>| -> Result<(), Error> {
        match lse {
            Some(lse) => op.softmax_and_logsumexp_in_place(probs, lse),
            None => op.softmax_in_place(probs),
        }
    };
    if let Some(probs) = y.matrix::<T>() {
        return run(py, elements, || call(probs));
    }
    let mut copy = copied::<T>(py, y.get().view())?;
    let shape = y.get().shape();
    let cols = shape[shape.len() - 1];
    let rows = shape[..shape.len() - 1].iter().product();
    let probs = MatrixMut::with_stride(&mut copy, rows, cols, cols);
    let probs = probs.map_err(crate::options::raised)?;
    run(py, elements, || call(probs))?;
    store(py, &copy, y.view())
}

/// The softmax of attention scores: `(.., heads, queries, keys)`.
#[pyfunction]
#[pyo3(signature = (scores, *, causal=false, window=None, window_ahead=None, offset=None, mask=None, mask_slopes=None, alibi=None, soft_cap=None, sinks=None, lengths=None, lse=false, scale=None, temperature=None, masked=MaskedRows::default(), dtype=None, out=None, threads=None, kernel=None),
    text_signature = "(scores, *, causal=False, window=None, window_ahead=None, offset=None, mask=None, mask_slopes=None, alibi=None, soft_cap=None, sinks=None, lengths=None, lse=False, scale=None, temperature=None, masked='nan', dtype=None, out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn attention_softmax<'py>(
    scores: &Bound<'py, PyAny>,
    causal: bool,
    window: Arg<'_, 'py>,
    window_ahead: Arg<'_, 'py>,
    offset: Arg<'_, 'py>,
    mask: Option<&Bound<'py, PyAny>>,
    mask_slopes: Option<&Bound<'py, PyAny>>,
    alibi: Option<&Bound<'py, PyAny>>,
    soft_cap: Arg<'_, 'py>,
    sinks: Option<&Bound<'py, PyAny>>,
    lengths: Option<&Bound<'py, PyAny>>,
    lse: bool,
    scale: Arg<'_, 'py>,
    temperature: Arg<'_, 'py>,
    masked: MaskedRows,
    dtype: Option<&Bound<'py, PyAny>>,
    out: Option<&Bound<'py, PyAny>>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = scores.py();
    let x = Array::input(scores, "scores")?;
    let dims = x.shape().len();
    let (queries, keys, heads) = match *x.shape() {
        [queries, keys] => (queries, keys, 1),
        [.., heads, queries, keys] => (queries, keys, heads),
        _ => {
            return Err(PyValueError::new_err(format!(
                "scores must have axes of queries and keys at least, got shape {}",
                tuple(x.shape())
            )));
        }
    };
    let batch = x.shape()[..dims.saturating_sub(3)].iter().product();
    let mask = mask.map(|mask| Array::labels(mask, "mask")).transpose()?;
    let shape = [batch, heads, queries, keys];
    let masking = mask.as_ref().map(|mask| AttentionMask::new(mask, shape, x.dtype()));
    let masking = masking.transpose()?;
    let [mask_slopes, alibi, sinks] = [
        floats32(mask_slopes, "mask_slopes")?,
        floats32(alibi, "alibi")?,
        floats32(sinks, "sinks")?,
    ];
    let lengths = lengths.map(|x| usizes(x, "lengths")).transpose()?;

    let op = Attention::new(heads, queries).masked(masked.0).exec(exec(threads, kernel)?);
    let mut op = by_factor!(op, Factor::new(scale, temperature)?);
    if causal {
        op = op.causal();
    }
    if let Some(n) = count(window, "window")? {
        op = op.window(n);
    }
    if let Some(n) = count(window_ahead, "window_ahead")? {
        op = op.window_ahead(n);
    }
    if let Some(n) = whole(offset, "offset")? {
        op = op.offset(n as isize);
    }
    if let Some(mask) = &masking {
        op = op.mask(mask.get());
    }
    if let Some(slopes) = &mask_slopes {
        op = op.mask_slopes(slopes);
    }
    if let Some(slopes) = &alibi {
        op = op.alibi(slopes);
    }
    if let Some(c) = number(soft_cap, "soft_cap")? {
        op = op.soft_cap(c);
    }
    if let Some(sinks) = &sinks {
        op = op.sinks(sinks);
    }
    if let Some(lengths) = &lengths {
        op = op.lengths(lengths);
    }

    let to = match dtype {
        Some(dtype) => dtype_of(dtype)?,
        None => x.dtype(),
    };
    let mut y =
        if to == x.dtype() { Output::like(&x, out)? } else { Output::of(&x, out, x.shape(), to)? };
    if let Some(mask) = &mask {
        y.apart(mask, "mask")?;
    }
    let layout = x.layout();
    let mut logs = match lse {
        true => Some(Output::new(&x, &x.shape()[..dims - 1], x.dtype().arithmetic())?),
        false => None,
    };
    macro_rules! go {
        ($T:ty, $U:ty, |$logs:ident| $call:expr) => {
            match &mut logs {
                Some(logs) => {
                    with_slice(py, logs.layout(), 0.0, |logs: &mut [<$T as Float>::Sums]| {
                        let $logs = Some(logs);
                        $call
                    })
                }
                None => {
                    let $logs: Option<&mut [<$T as Float>::Sums]> = None;
                    $call
                }
            }
        };
        ($T:ty) => {
            if y.in_place {
                go!($T, $T, |logs| attend_in_place::<$T>(py, &op, &mut y, logs))
            } else {
                go!($T, $T)
            }
        };
        ($T:ty, $U:ty) => {
            go!($T, $U, |logs| attend::<$T, $U>(py, &op, &layout, &mut y, logs))
        };
    }
    match (x.dtype(), to) {
        (Dtype::F32, Dtype::F32) => go!(f32),
        (Dtype::F64, Dtype::F64) => go!(f64),
        (Dtype::F16, Dtype::F16) => go!(f16),
        (Dtype::Bf16, Dtype::Bf16) => go!(bf16),
        (Dtype::F32, Dtype::F16) => go!(f32, f16),
        (Dtype::F32, Dtype::Bf16) => go!(f32, bf16),
        (Dtype::F16, Dtype::F32) => go!(f16, f32),
        (Dtype::Bf16, Dtype::F32) => go!(bf16, f32),
        (from, to) => {
            let (from, to) = (from.name(), to.name());
            let text = format!("scores of {from} cannot become probabilities of {to}");
            Err(PyTypeError::new_err(text))
        }
    }?;
    let y = y.finish()?;
    match logs {
        Some(logs) => Ok((y, logs.finish()?).into_pyobject(py)?.into_any()),
        None => Ok(y),
    }
}

/// Whole numbers that are not negative.
pub fn usizes(x: &Bound<PyAny>, name: &str) -> PyResult<Vec<usize>> {
    let x = Array::labels(x, name)?;
    let all = columns(&x, name)?;
    let one = |&n: &i64| {
        usize::try_from(n)
            .map_err(|_| PyValueError::new_err(format!("{name} must not be negative, got {n}")))
    };
    all.iter().map(one).collect()
}

/// A type by its name, or what NumPy or PyTorch has for it.
pub fn dtype_of(x: &Bound<PyAny>) -> PyResult<Dtype> {
    let name = match x.extract::<String>() {
        Ok(name) => name,
        // torch.float32, numpy.dtype('float32'), numpy.float32.
        Err(_) => match x.getattr("name").or_else(|_| x.getattr("__name__")) {
            Ok(name) => name.extract()?,
            Err(_) => x.str()?.to_string(),
        },
    };
    let short = name.rsplit('.').next().unwrap_or_default();
    let found = Dtype::ALL.into_iter().find(|d| d.is_float() && d.name() == short);
    found.ok_or_else(|| {
        PyTypeError::new_err(format!(
            "dtype must be float32, float64, float16 or bfloat16, got {name}"
        ))
    })
}
