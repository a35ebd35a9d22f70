//! Verification of drafted tokens.

use ::softmax::{DraftRows, Element, Exec, Matrix, Ragged, SpeculativeSampler, TargetRows};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::array::{Array, tuple, typed};
use crate::attention::usizes;
use crate::options::{Arg, count, exec, flag, number, raised, run_rows};
use crate::reduce::{indices_like, with_rows};
use crate::rows::room;

/// Verifies tokens that a draft proposed (speculative decoding): accepts each with probability
/// min(1, p / q), draws one more for each sequence, and leaves the distribution of the target.
///
/// The same tokens for the same seed, steps and numbers of sequences. temperature: of logits; 0
/// verifies greedily.
#[pyclass(name = "SpeculativeSampler", module = "softmax", frozen)]
pub struct PySpeculativeSampler {
    seed: u64,
    temperature: f64,
    exec: Exec<'static>,
}

/// Some sequences of a batch.
struct Part<'a, T> {
    target: Matrix<'a, T>,
    draft: Option<Matrix<'a, T>>,
    drafted: Ragged<'a, usize>,
    tokens: &'a mut [usize],
    accepted: &'a mut [usize],
    at: usize,
}

impl<T: Copy> Part<'_, T> {
    fn split(self, sequences: usize) -> (Self, Self) {
        let Self { target, draft, drafted, tokens, accepted, at } = self;
        let (drafted, drafted_rest) = drafted.split_rows(sequences);
        let rows = drafted.elements() + sequences;
        let (target, target_rest) = target.split_rows(rows);
        let (draft, draft_rest) = match draft.map(|draft| draft.split_rows(drafted.elements())) {
            Some((draft, rest)) => (Some(draft), Some(rest)),
            None => (None, None),
        };
        let (tokens, tokens_rest) = tokens.split_at_mut(rows);
        let (accepted, accepted_rest) = accepted.split_at_mut(sequences);
        (
            Self { target, draft, drafted, tokens, accepted, at },
            Self {
                target: target_rest,
                draft: draft_rest,
                drafted: drafted_rest,
                tokens: tokens_rest,
                accepted: accepted_rest,
                at: at + sequences,
            },
        )
    }
}

/// Numbers, one for each sequence, if they are given.
fn each<T>(
    x: Arg,
    name: &str,
    sequences: usize,
    read: impl Fn(&Bound<PyAny>) -> PyResult<Vec<T>>,
) -> PyResult<Option<Vec<T>>> {
    let Some(x) = x else { return Ok(None) };
    let all = read(x)?;
    if all.len() != sequences {
        let got = all.len();
        return Err(PyValueError::new_err(format!(
            "{name} must be one for each of {sequences} sequences, got {got}"
        )));
    }
    Ok(Some(all))
}

fn u64s(x: &Bound<PyAny>, name: &str) -> PyResult<Vec<u64>> {
    let mut all = Vec::new();
    for value in x.try_iter()? {
        all.push(count(Some(&value?), name)?.unwrap_or(0) as u64);
    }
    Ok(all)
}

fn f64s(x: &Bound<PyAny>, name: &str) -> PyResult<Vec<f64>> {
    let mut all = Vec::new();
    for value in x.try_iter()? {
        all.extend(number(Some(&value?), name)?);
    }
    Ok(all)
}

#[pymethods]
impl PySpeculativeSampler {
    #[new]
    #[pyo3(signature = (seed=None, *, temperature=None, threads=None, kernel=None),
        text_signature = "(seed=0, *, temperature=1.0, threads=None, kernel=None)")]
    fn new<'py>(
        seed: Arg<'_, 'py>,
        temperature: Arg<'_, 'py>,
        threads: Arg<'_, 'py>,
        kernel: Option<&str>,
    ) -> PyResult<Self> {
        Ok(Self {
            seed: count(seed, "seed")?.unwrap_or(0) as u64,
            temperature: number(temperature, "temperature")?.unwrap_or(1.0),
            exec: exec(threads, kernel)?,
        })
    }

    /// Verifies the drafted tokens of every sequence. Returns the tokens and the number of accepted
    /// ones of each sequence: those, one more token, and -1 in what is left, and where there is
    /// nothing to draw.
    ///
    /// drafted: of shape (.., k), and target of (.., k + 1, vocabulary), draft of (.., k,
    /// vocabulary); or, with offsets, of shape (n,): sequence i has the tokens
    /// drafted[offsets[i]:offsets[i + 1]], target (n + sequences, vocabulary) has a row for each
    /// and one more for each sequence, and draft is (n, vocabulary). draft=None: each drafted token
    /// had probability 1. target_probs, draft_probs: rows are probabilities, not logits.
    ///
    /// step: the position of the first drafted token; first_row: the number of the first sequence.
    /// seeds, steps, temperatures: one for each sequence; with seeds, all have that number.
    #[pyo3(signature = (target, drafted, draft=None, *, offsets=None, target_probs=None, draft_probs=None, step=None, first_row=None, seeds=None, steps=None, temperatures=None),
        text_signature = "($self, target, drafted, draft=None, *, offsets=None, target_probs=False, draft_probs=False, step=0, first_row=0, seeds=None, steps=None, temperatures=None)")]
    #[allow(clippy::too_many_arguments)]
    fn verify<'py>(
        &self,
        target: &Bound<'py, PyAny>,
        drafted: &Bound<'py, PyAny>,
        draft: Arg<'_, 'py>,
        offsets: Arg<'_, 'py>,
        target_probs: Arg<'_, 'py>,
        draft_probs: Arg<'_, 'py>,
        step: Arg<'_, 'py>,
        first_row: Arg<'_, 'py>,
        seeds: Arg<'_, 'py>,
        steps: Arg<'_, 'py>,
        temperatures: Arg<'_, 'py>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let py = target.py();
        let x = Array::input(target, "target")?;
        let q = draft.map(|draft| Array::input(draft, "draft")).transpose()?;
        let shape = Array::labels(drafted, "drafted")?.shape().to_vec();
        let tokens_of = usizes(drafted, "drafted")?;
        let (target_shape, draft_shape) = (x.shape(), q.as_ref().map(Array::shape));
        let differ = |name: &str, needed: &str, got: &[usize]| {
            let (shape, got) = (tuple(&shape), tuple(got));
            Err(PyValueError::new_err(format!(
                "{name} must have {needed} drafted of shape {shape}, got {got}"
            )))
        };
        let Some((&k, lead)) = shape.split_last() else {
            return Err(PyValueError::new_err("drafted must have an axis"));
        };
        let Some((&vocabulary, rows_of)) = target_shape.split_last() else {
            return Err(PyValueError::new_err("target must have an axis"));
        };
        if let Some(got) = draft_shape
            && got != [&shape[..], &[vocabulary]].concat()
        {
            return differ("draft", "a row of the target's length for each token of", got);
        }
        // The shapes of what is returned, too.
        let (offsets, counts) = match offsets {
            Some(offsets) => {
                let offsets = usizes(offsets, "offsets")?;
                if shape.len() != 1 || rows_of.len() != 1 {
                    return differ("target", "two axes, with offsets, and", target_shape);
                }
                if offsets.first() != Some(&0) || offsets.last() != Some(&k) {
                    let range = format!("from 0 to the number of drafted tokens, {k}");
                    return Err(PyValueError::new_err(format!("offsets must go {range}")));
                }
                let counts = vec![offsets.len() - 1];
                (offsets, counts)
            }
            None => {
                if rows_of != [lead, &[k + 1]].concat() {
                    return differ("target", "k + 1 rows for k tokens of", target_shape);
                }
                let sequences: usize = lead.iter().product();
                let total = sequences.checked_mul(k).filter(|&n| n == tokens_of.len());
                debug_assert!(total.is_some(), "its shape");
                ((0..=sequences).map(|i| i * k).collect(), lead.to_vec())
            }
        };
        if q.as_ref().is_some_and(|q| q.dtype() != x.dtype()) {
            let got = q.as_ref().map_or("", |q| q.dtype().name());
            let text = format!("draft must be {}, as target is, got {got}", x.dtype().name());
            return Err(PyTypeError::new_err(text));
        }
        let sequences = offsets.len() - 1;
        let seeds = each(seeds, "seeds", sequences, |x| u64s(x, "a seed"))?;
        let steps = each(steps, "steps", sequences, |x| u64s(x, "a step"))?;
        let read = |x: &Bound<PyAny>| f64s(x, "a temperature");
        let temperatures = each(temperatures, "temperatures", sequences, read)?;
        let (target_probs, draft_probs) =
            (flag(target_probs, "target_probs")?, flag(draft_probs, "draft_probs")?);
        let first = count(first_row, "first_row")?.unwrap_or(0) as u64;
        let op = SpeculativeSampler::new(self.seed)
            .temperature(self.temperature)
            .step(count(step, "step")?.unwrap_or(0) as u64)
            .exec(self.exec);
        let ragged = Ragged::new(&tokens_of, &offsets).map_err(raised)?;
        let rows = rows_of.iter().product::<usize>();
        if rows != tokens_of.len() + sequences {
            return differ("target", "a row for each token and each sequence of", target_shape);
        }
        let mut tokens = room(rows, 0usize)?;
        let mut accepted = room(sequences, 0usize)?;
        let layout = x.layout();
        let last = layout.shape().len() - 1;
        typed!(x.dtype(), T => with_rows::<T, _>(py, &layout, &[last], |x| {
            let mut verify = |draft: Option<Matrix<T>>| {
                let part = Part {
                    target: x,
                    draft,
                    drafted: ragged,
                    tokens: &mut tokens,
                    accepted: &mut accepted,
                    at: 0,
                };
                let of_each = rows.div_ceil(sequences.max(1)).saturating_mul(vocabulary);
                run_rows(py, (sequences, of_each), part, Part::split, |part| {
                    let (at, n) = (part.at, part.accepted.len());
                    let mut op = op.first_row(match &seeds {
                        Some(_) => first,
                        None => first.saturating_add(at as u64),
                    });
                    if let Some(seeds) = &seeds {
                        op = op.seeds(&seeds[at..at + n]);
                    }
                    if let Some(steps) = &steps {
                        op = op.steps(&steps[at..at + n]);
                    }
                    if let Some(temperatures) = &temperatures {
                        op = op.temperatures(&temperatures[at..at + n]);
                    }
                    let target = rows_as(part.target, target_probs);
                    let draft = match (part.draft, draft_probs) {
                        (None, _) => DraftRows::OneHot,
                        (Some(rows), false) => DraftRows::Logits(rows),
                        (Some(rows), true) => DraftRows::Probs(rows),
                    };
                    op.verify(target, draft, part.drafted, part.tokens, part.accepted)
                })
            };
            match &q {
                None => verify(None),
                Some(q) => {
                    let layout = q.layout();
                    let last = layout.shape().len() - 1;
                    with_rows::<T, _>(py, &layout, &[last], |q| verify(Some(q)))
                }
            }
        }))?;
        let of_tokens = indices_like(&x, rows_of, &tokens)?;
        Ok((of_tokens, indices_like(&x, &counts, &accepted)?))
    }
}

fn rows_as<T: Element>(rows: Matrix<T>, probs: bool) -> TargetRows<T> {
    if probs { TargetRows::Probs(rows) } else { TargetRows::Logits(rows) }
}
