//! The softmax of attention scores.

use std::ops::Range;

use ::softmax::half::{bf16, f16};
use ::softmax::{Attention, Error, Exec, Matrix, MatrixMut, Probs};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::array::{Array, Dtype, Float, Layout, Output, tuple};
use crate::loss::floats32;
use crate::mask::{AttentionMask, MaskArray};
use crate::options::{
    Arg, CHUNK, Factor, MaskedRows, by_factor, count, exec, flag, number, ranges, run_parts, whole,
};
use crate::reduce::{columns, with_rows, with_slice};
use crate::rows::{copied, room, store};

/// Some of the sequences, of their heads and of their queries, all but one of which are one or all:
/// neighbouring rows.
pub type Part = [Range<usize>; 3];

/// The parts of scores between which signals are looked at.
fn parts(shape: [usize; 3], keys: usize) -> Vec<Part> {
    let [batch, heads, queries] = shape;
    let of_head = queries.saturating_mul(keys);
    let of_sequence = of_head.saturating_mul(heads);
    if of_sequence <= CHUNK {
        let some = ranges(batch, CHUNK / of_sequence.max(1));
        return some.map(|some| [some, 0..heads, 0..queries]).collect();
    }
    let one = |i: usize| i..i + 1;
    if of_head <= CHUNK {
        let some = |b| ranges(heads, CHUNK / of_head).map(move |some| [one(b), some, 0..queries]);
        return (0..batch).flat_map(some).collect();
    }
    let heads = (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h)));
    let some = |(b, h)| ranges(queries, CHUNK / keys).map(move |some| [one(b), one(h), some]);
    heads.flat_map(some).collect()
}

/// Rows of scores, if they are not those of probabilities, and what becomes of them.
struct Work<'a, T, U, S> {
    scores: Option<Matrix<'a, T>>,
    probs: MatrixMut<'a, U>,
    lse: Option<&'a mut [S]>,
}

impl<'a, T, U, S> Work<'a, T, U, S> {
    fn split(self, at: usize) -> (Self, Self) {
        let (scores, scores_rest) = self.scores.map(|x| x.split_rows(at)).unzip();
        let (probs, probs_rest) = self.probs.split_rows(at);
        let (lse, lse_rest) = self.lse.map(|lse| lse.split_at_mut(at)).unzip();
        (
            Self { scores, probs, lse },
            Self { scores: scores_rest, probs: probs_rest, lse: lse_rest },
        )
    }
}

/// Does the rows in the parts, if any.
fn each_part<T: Float, U: Float>(
    py: Python,
    parts: &[Part],
    work: Work<T, U, T::Sums>,
    f: impl Fn(Work<T, U, T::Sums>, &Part) -> Result<(), Error> + Sync,
) -> PyResult<()> {
    let elements = work.probs.rows() * work.probs.cols();
    let parts = parts.iter().map(|part| (part.iter().map(ExactSizeIterator::len).product(), part));
    run_parts(py, elements, parts, work, Work::split, f)
}

fn attend<'o, T: Float, U: Float + Probs<T>>(
    py: Python,
    op: &(impl Fn(&Part) -> Attention<'o> + Sync),
    parts: &[Part],
    x: &Layout,
    y: &mut Output,
    lse: Option<&mut [T::Sums]>,
) -> PyResult<()> {
    let last = x.shape().len() - 1;
    let mut y = y.layout();
    with_rows::<T, _>(py, x, &[last], |scores| {
        let call = |probs: MatrixMut<U>| {
            let work = Work { scores: Some(scores), probs, lse };
            each_part(py, parts, work, |Work { scores, probs, lse }, part| match (scores, lse) {
                (Some(x), Some(lse)) => op(part).softmax_and_logsumexp(x, probs, lse),
                (Some(x), None) => op(part).softmax(x, probs),
                (None, _) => Ok(()),
            })
        };
        if let Some(probs) = y.matrix::<U>() {
            return call(probs);
        }
        let mut copy = room(x.len(), U::ZERO)?;
        call(
            MatrixMut::with_stride(&mut copy, scores.rows(), scores.cols(), scores.cols())
                .map_err(crate::options::raised)?,
        )?;
        store(py, &copy, y.view())
    })
}

fn attend_in_place<'o, T: Float + Probs<T>>(
    py: Python,
    op: &(impl Fn(&Part) -> Attention<'o> + Sync),
    parts: &[Part],
    y: &mut Output,
    lse: Option<&mut [T::Sums]>,
) -> PyResult<()> {
    let mut y = y.layout();
    let call = |probs: MatrixMut<T>| {
        let work = Work::<T, T, _> { scores: None, probs, lse };
        each_part(py, parts, work, |Work { probs, lse, .. }, part| match lse {
            Some(lse) => op(part).softmax_and_logsumexp_in_place(probs, lse),
            None => op(part).softmax_in_place(probs),
        })
    };
    if let Some(probs) = y.matrix::<T>() {
        return call(probs);
    }
    let mut copy = copied::<T>(py, y.get().view())?;
    let shape = y.get().shape();
    let cols = shape[shape.len() - 1];
    let rows = shape[..shape.len() - 1].iter().product();
    let probs = MatrixMut::with_stride(&mut copy, rows, cols, cols);
    call(probs.map_err(crate::options::raised)?)?;
    store(py, &copy, y.view())
}

/// The options of attention but for the shape.
pub struct Options<'a> {
    pub factor: Factor,
    pub exec: Exec<'static>,
    pub causal: bool,
    pub window: Option<usize>,
    pub window_ahead: Option<usize>,
    pub offset: Option<isize>,
    pub soft_cap: Option<f64>,
    pub mask: Option<AttentionMask<'a>>,
    pub mask_slopes: Option<Vec<f32>>,
    pub alibi: Option<Vec<f32>>,
    pub sinks: Option<Vec<f32>>,
    pub lengths: Option<Vec<usize>>,
    pub masked: MaskedRows,
}

impl Options<'_> {
    /// Whether lists have the lengths that they need. What does not fit is refused by the library,
    /// which is to see all of it.
    fn fits(&self, batch: usize, heads: usize, rows: usize) -> bool {
        let mut of_heads = [&self.mask_slopes, &self.alibi, &self.sinks].into_iter();
        of_heads.all(|x| x.as_ref().is_none_or(|x| x.len() == heads))
            && self.lengths.as_ref().is_none_or(|x| x.len() == batch || x.len() == rows)
    }

    /// The attention of a part of scores of batch, heads, queries and keys; `is_cut` if that is not
    /// all of them.
    pub fn of(
        &self,
        part: &Part,
        [batch, heads, queries, keys]: [usize; 4],
        is_cut: bool,
    ) -> Attention<'_> {
        let [of_batch, of_heads, of_queries] = part.clone();
        let op = Attention::new(of_heads.len(), of_queries.len());
        let mut op = by_factor!(op.masked(self.masked.0).exec(self.exec), self.factor);
        if self.causal {
            op = op.causal();
        }
        if let Some(n) = self.window {
            op = op.window(n);
        }
        if let Some(n) = self.window_ahead {
            op = op.window_ahead(n);
        }
        // The first query of the part, where it is not that of the call.
        if of_queries.start > 0 || of_queries.end < queries {
            let first = || (keys as isize).wrapping_sub_unsigned(queries);
            let first = self.offset.unwrap_or_else(first);
            op = op.offset(first.saturating_add_unsigned(of_queries.start));
        } else if let Some(n) = self.offset {
            op = op.offset(n);
        }
        if let Some(mask) = &self.mask {
            op = op.mask(mask.part(part));
        }
        // All of what does not fit is the library's to refuse.
        let of_heads = |x: &'_ [f32]| if is_cut { of_heads.clone() } else { 0..x.len() };
        if let Some(slopes) = &self.mask_slopes {
            op = op.mask_slopes(&slopes[of_heads(slopes)]);
        }
        if let Some(slopes) = &self.alibi {
            op = op.alibi(&slopes[of_heads(slopes)]);
        }
        if let Some(c) = self.soft_cap {
            op = op.soft_cap(c);
        }
        if let Some(sinks) = &self.sinks {
            op = op.sinks(&sinks[of_heads(sinks)]);
        }
        if let Some(lengths) = &self.lengths {
            let row = (of_batch.start * heads + part[1].start) * queries + of_queries.start;
            let n = part.iter().map(ExactSizeIterator::len).product::<usize>();
            op = op.lengths(match lengths.len() {
                _ if !is_cut => lengths,
                len if len == batch => &lengths[of_batch],
                _ => &lengths[row..row + n],
            });
        }
        op
    }
}

/// The batch, heads, queries and keys of scores of a shape.
pub fn scores_shape(shape: &[usize], name: &str) -> PyResult<[usize; 4]> {
    match *shape {
        [queries, keys] => Ok([1, 1, queries, keys]),
        [ref lead @ .., heads, queries, keys] => Ok([lead.iter().product(), heads, queries, keys]),
        _ => Err(PyValueError::new_err(format!(
            "{name} must have axes of queries and keys at least, got shape {}",
            tuple(shape)
        ))),
    }
}

/// The softmax of attention scores of shape (.., heads, queries, keys), or (queries, keys).
///
/// causal: keys after the query's position are hidden; window, window_ahead: so are those farther
/// from it. offset: the position of the first query, by default keys - queries.
/// mask: bools (True: seen) or numbers that are added, times mask_slopes of each head.
/// bitmask, hidden_from: as of softmax, broadcast to batch, heads and queries.
/// alibi: slopes of the distance, one for each head. sinks: a logit of each head without output.
/// soft_cap: c of c * tanh(x / c). lengths: how many keys each sequence has, or each row.
/// lse: whether to give (probabilities, log-sum-exps). dtype: that of the probabilities.
/// Other arguments as of softmax.
#[pyfunction]
#[pyo3(signature = (scores, *, causal=None, window=None, window_ahead=None, offset=None, mask=None, bitmask=None, hidden_from=None, mask_slopes=None, alibi=None, soft_cap=None, sinks=None, lengths=None, lse=None, scale=None, temperature=None, masked=MaskedRows::default(), dtype=None, out=None, threads=None, kernel=None),
    text_signature = "(scores, *, causal=False, window=None, window_ahead=None, offset=None, mask=None, bitmask=None, hidden_from=None, mask_slopes=None, alibi=None, soft_cap=None, sinks=None, lengths=None, lse=False, scale=None, temperature=None, masked='nan', dtype=None, out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn attention_softmax<'py>(
    scores: &Bound<'py, PyAny>,
    causal: Arg<'_, 'py>,
    window: Arg<'_, 'py>,
    window_ahead: Arg<'_, 'py>,
    offset: Arg<'_, 'py>,
    mask: Option<&Bound<'py, PyAny>>,
    bitmask: Option<&Bound<'py, PyAny>>,
    hidden_from: Option<&Bound<'py, PyAny>>,
    mask_slopes: Option<&Bound<'py, PyAny>>,
    alibi: Option<&Bound<'py, PyAny>>,
    soft_cap: Arg<'_, 'py>,
    sinks: Option<&Bound<'py, PyAny>>,
    lengths: Option<&Bound<'py, PyAny>>,
    lse: Arg<'_, 'py>,
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
    let shape = scores_shape(x.shape(), "scores")?;
    let [batch, heads, queries, keys] = shape;
    let mask = MaskArray::new(mask, bitmask, hidden_from)?;
    let masking = mask.as_ref().map(|mask| AttentionMask::new(mask, shape, x.dtype()));
    let masking = masking.transpose()?;
    let options = Options {
        factor: Factor::new(scale, temperature)?,
        exec: exec(threads, kernel)?,
        causal: flag(causal, "causal")?,
        window: count(window, "window")?,
        window_ahead: count(window_ahead, "window_ahead")?,
        offset: whole(offset, "offset")?.map(|n| n as isize),
        soft_cap: number(soft_cap, "soft_cap")?,
        mask: masking,
        mask_slopes: floats32(mask_slopes, "mask_slopes")?,
        alibi: floats32(alibi, "alibi")?,
        sinks: floats32(sinks, "sinks")?,
        lengths: lengths.map(|x| usizes(x, "lengths")).transpose()?,
        masked,
    };
    let lse = flag(lse, "lse")?;
    let rows = batch * heads * queries;
    let fits = options.fits(batch, heads, rows);
    let parts = if fits && rows > 0 {
        parts([batch, heads, queries], keys)
    } else {
        vec![[0..batch, 0..heads, 0..queries]]
    };
    let is_cut = parts.len() > 1;
    let op = |part: &Part| options.of(part, shape, is_cut);

    let to = match dtype {
        Some(dtype) => dtype_of(dtype)?,
        None => x.dtype(),
    };
    let mut y =
        if to == x.dtype() { Output::like(&x, out)? } else { Output::of(&x, out, x.shape(), to)? };
    if let Some(mask) = &mask {
        let (array, name) = mask.named();
        y.apart(array, name)?;
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
                go!($T, $T, |logs| attend_in_place::<$T>(py, &op, &parts, &mut y, logs))
            } else {
                go!($T, $T)
            }
        };
        ($T:ty, $U:ty) => {
            go!($T, $U, |logs| attend::<$T, $U>(py, &op, &parts, &layout, &mut y, logs))
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
