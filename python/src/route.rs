//! Routers of mixtures of experts.

use ::softmax::{Element, GroupScore, Router, Scoring};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::array::{Array, Dtype, Float, Output, typed};
use crate::options::{Arg, MaskedRows, count, exec, flag, number, one_of, run_rows, two_outputs};
use crate::reduce::{Pairs, with_rows, with_slice};

/// `scoring="softmax"` or `"sigmoid"`.
#[derive(Clone, Copy, Default)]
pub struct ScoringOf(Scoring);

impl<'py> FromPyObject<'_, 'py> for ScoringOf {
    type Error = PyErr;

    fn extract(x: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let names = [("softmax", Scoring::Softmax), ("sigmoid", Scoring::Sigmoid)];
        one_of(&x, "scoring", &names).map(Self)
    }
}

/// `group_score="top_two"` or `"largest"`.
#[derive(Clone, Copy, Default)]
pub struct GroupScoreOf(GroupScore);

impl<'py> FromPyObject<'_, 'py> for GroupScoreOf {
    type Error = PyErr;

    fn extract(x: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let names = [("top_two", GroupScore::TopTwo), ("largest", GroupScore::Largest)];
        one_of(&x, "group_score", &names).map(Self)
    }
}

/// The experts of tokens: the k with the largest scores along the last axis, and their weights.
///
/// scoring: "softmax" or "sigmoid". bias: added to scores for the choice alone. groups: into how
/// many experts are divided; group_limit: from how many of them a token takes its own; group_score:
/// "top_two" (their sum) or "largest". renormalize: weights are divided by their sum.
/// scaling_factor: of all weights. out: arrays for weights and experts (int64).
/// Other arguments as of softmax. Returns weights and experts.
#[pyfunction]
#[pyo3(signature = (logits, k, *, scoring=ScoringOf::default(), bias=None, groups=None, group_limit=None, group_score=GroupScoreOf::default(), renormalize=None, scaling_factor=None, masked=MaskedRows::default(), out=None, threads=None, kernel=None),
    text_signature = "(logits, k, *, scoring='softmax', bias=None, groups=None, group_limit=None, group_score='top_two', renormalize=False, scaling_factor=1.0, masked='nan', out=None, threads=None, kernel=None)")]
#[allow(clippy::too_many_arguments)]
pub fn route<'py>(
    logits: &Bound<'py, PyAny>,
    k: &Bound<'py, PyAny>,
    scoring: ScoringOf,
    bias: Arg<'_, 'py>,
    groups: Arg<'_, 'py>,
    group_limit: Arg<'_, 'py>,
    group_score: GroupScoreOf,
    renormalize: Arg<'_, 'py>,
    scaling_factor: Arg<'_, 'py>,
    masked: MaskedRows,
    out: Arg<'_, 'py>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let py = logits.py();
    let k = count(Some(k), "k")?.unwrap_or(0);
    let mut router = Router::new(k)
        .scoring(scoring.0)
        .group_score(group_score.0)
        .renormalize(flag(renormalize, "renormalize")?)
        .scaling_factor(number(scaling_factor, "scaling_factor")?.unwrap_or(1.0))
        .masked(masked.0)
        .exec(exec(threads, kernel)?);
    router = match (count(groups, "groups")?, count(group_limit, "group_limit")?) {
        (None, None) => router,
        (Some(groups), Some(limit)) => router.groups(groups, limit),
        _ => return Err(PyValueError::new_err("give groups and group_limit, or neither")),
    };
    let bias: Option<Vec<f32>> = match bias {
        None => None,
        Some(bias) => {
            let bias = Array::input(bias, "bias")?;
            if bias.shape().len() != 1 {
                return Err(PyValueError::new_err("bias must have one axis"));
            }
            Some(typed!(bias.dtype(), B => {
                let values = bias.layout().in_order::<B>();
                Ok::<_, PyErr>(values.iter().map(|b| b.to_f64() as f32).collect())
            })?)
        }
    };
    if let Some(bias) = &bias {
        router = router.bias(bias);
    }
    let x = Array::input(logits, "logits")?;
    let layout = x.layout().at_least_one_axis();
    let last = layout.shape().len() - 1;
    let cols = layout.shape()[last];
    if k > cols {
        return Err(PyValueError::new_err(format!("k must be at most {cols}, got {k}")));
    }
    let mut shape = layout.shape().to_vec();
    shape[last] = k;
    let out = two_outputs(out)?;
    let (weights, experts) = out.as_ref().map(|(weights, experts)| (weights, experts)).unzip();
    let mut y = Output::of(&x, weights, &shape, x.dtype().arithmetic())?;
    let mut indices = Output::of(&x, experts, &shape, Dtype::I64)?;
    y.apart_from(&indices, "the experts")?;
    typed!(x.dtype(), T => with_rows::<T, _>(py, &layout, &[last], |x| {
        let zero = <T as Float>::Sums::from_f64(0.0);
        with_slice::<<T as Float>::Sums, _>(py, y.layout(), zero, |y| {
            with_slice::<i64, _>(py, indices.layout(), 0, |indices| {
                // The experts of u32 are in the second half of the memory until all are known.
                let n = indices.len();
                let (_, experts) = bytemuck::cast_slice_mut::<i64, u32>(indices).split_at_mut(n);
                let pairs = Pairs { x, y, indices: experts, k, at: 0 };
                run_rows(py, (x.rows(), x.cols()), pairs, Pairs::split, |pairs| {
                    router.route(pairs.x, pairs.y, pairs.indices)
                })?;
                widen(indices);
                Ok(())
            })
        })
    }))?;
    Ok((y.finish()?, indices.finish()?))
}

/// Turns as many numbers of u32 as there are elements, in the second half of their memory, into the
/// elements. Element i begins where number 2 i is, and number n + i is behind its end.
fn widen(elements: &mut [i64]) {
    const SOME: usize = 64;
    let n = elements.len();
    for at in (0..n).step_by(SOME) {
        let (len, mut some) = (SOME.min(n - at), [0u32; SOME]);
        some[..len].copy_from_slice(&bytemuck::cast_slice(elements)[n + at..][..len]);
        let to = elements[at..].iter_mut().zip(&some[..len]);
        to.for_each(|(element, &number)| *element = number.into());
    }
}
