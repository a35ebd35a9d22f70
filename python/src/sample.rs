//! Draws.

use ::softmax::{Exec, Method, Order, Sampler};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::array::{Array, tuple, typed};
use crate::attention::usizes;
use crate::mask::{MaskArray, RowMask};
use crate::options::{Arg, count, exec, not_one_a_row, number, numbers, one_of, run_rows};
use crate::reduce::{indices_like, with_rows};
use crate::rows::room;

/// Draws tokens from rows of logits: the same for the same seed, step and number of the row.
///
/// seed, temperature, top_k, top_p, min_p, typical_p, and the step of `sample`: a number, or one
/// for each row. Rows with a seed each have the draws that they have alone, wherever they lie.
/// top_k, top_p, min_p, typical_p: filters, none of which is the default. order: in which they are
/// applied, "transformers" or "llama.cpp". method: "inverse_cdf" or "gumbel_max".
/// bias: numbers that are added to tokens' logits. The penalties are those of tokens in `history`.
#[pyclass(name = "Sampler", module = "softmax", frozen)]
pub struct PySampler {
    seed: Setting<u64>,
    temperature: Setting<f64>,
    top_k: Setting<usize>,
    top_p: Setting<f64>,
    min_p: Setting<f64>,
    typical_p: Setting<f64>,
    order: Order,
    method: Method,
    tokens: Vec<usize>,
    bias: Vec<f32>,
    repetition_penalty: f64,
    presence_penalty: f64,
    frequency_penalty: f64,
    exec: Exec<'static>,
}

/// A number for all rows, or one for each.
enum Setting<T> {
    One(T),
    Each(Vec<T>),
}

impl<T: Copy + Default> Setting<T> {
    /// That of all rows.
    fn one(&self) -> T {
        if let Self::One(number) = self { *number } else { T::default() }
    }

    /// Those of some rows, if each has its own.
    fn part(&self, at: usize, rows: usize) -> Option<&[T]> {
        if let Self::Each(list) = self { Some(&list[at..at + rows]) } else { None }
    }

    /// Checks that there is one for each row of `x`.
    fn check(&self, name: &str, rows: usize, shape: &[usize]) -> PyResult<()> {
        match self {
            Self::Each(list) if list.len() != rows => {
                Err(not_one_a_row(name, rows, shape, list.len()))
            }
            _ => Ok(()),
        }
    }
}

/// A setting that is a number.
fn real(x: Arg, name: &str, default: f64) -> PyResult<Setting<f64>> {
    match (number(x, name), x) {
        (Ok(number), _) => Ok(Setting::One(number.unwrap_or(default))),
        (Err(_), Some(x)) => numbers(x, name).map(Setting::Each),
        (Err(error), None) => Err(error),
    }
}

/// A setting that counts something.
fn whole<T: Default>(x: Arg, name: &str, of: fn(usize) -> T) -> PyResult<Setting<T>> {
    let error = match count(x, name) {
        Ok(number) => return Ok(Setting::One(number.map(of).unwrap_or_default())),
        Err(error) => error,
    };
    // What is neither an integer nor has items is told of as if it were to be an integer.
    let Some(Ok(items)) = x.map(|x| x.try_iter()) else { return Err(error) };
    let of_row = |x: PyResult<Bound<PyAny>>| Ok(of(count(Some(&x?), name)?.unwrap_or(0)));
    items.map(of_row).collect::<PyResult<_>>().map(Setting::Each)
}

#[derive(Clone, Copy)]
pub struct OrderOf(Order);

impl<'py> FromPyObject<'_, 'py> for OrderOf {
    type Error = PyErr;

    fn extract(x: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let names = [("transformers", Order::Transformers), ("llama.cpp", Order::LlamaCpp)];
        one_of(&x, "order", &names).map(Self)
    }
}

#[derive(Clone, Copy)]
pub struct MethodOf(Method);

impl<'py> FromPyObject<'_, 'py> for MethodOf {
    type Error = PyErr;

    fn extract(x: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let names = [("inverse_cdf", Method::InverseCdf), ("gumbel_max", Method::GumbelMax)];
        one_of(&x, "method", &names).map(Self)
    }
}

/// Rows, their draws, and the number of the first.
struct Part<'a, T> {
    x: ::softmax::Matrix<'a, T>,
    draws: &'a mut [usize],
    each: usize,
    at: usize,
}

impl<T> Part<'_, T> {
    fn split(self, rows: usize) -> (Self, Self) {
        let (x, x_rest) = self.x.split_rows(rows);
        let (draws, draws_rest) = self.draws.split_at_mut(rows * self.each);
        let (each, at) = (self.each, self.at);
        (Self { x, draws, each, at }, Self { x: x_rest, draws: draws_rest, each, at: at + rows })
    }
}

#[pymethods]
impl PySampler {
    #[new]
    #[pyo3(signature = (seed=None, *, temperature=None, top_k=None, top_p=None, min_p=None, typical_p=None, order=OrderOf(Order::Transformers), method=MethodOf(Method::InverseCdf), bias=None, repetition_penalty=None, presence_penalty=None, frequency_penalty=None, threads=None, kernel=None),
        text_signature = "(seed=0, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0, order='transformers', method='inverse_cdf', bias=None, repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0, threads=None, kernel=None)")]
    #[allow(clippy::too_many_arguments)]
    fn new<'py>(
        seed: Arg<'_, 'py>,
        temperature: Arg<'_, 'py>,
        top_k: Arg<'_, 'py>,
        top_p: Arg<'_, 'py>,
        min_p: Arg<'_, 'py>,
        typical_p: Arg<'_, 'py>,
        order: OrderOf,
        method: MethodOf,
        bias: Option<&Bound<'py, PyDict>>,
        repetition_penalty: Arg<'_, 'py>,
        presence_penalty: Arg<'_, 'py>,
        frequency_penalty: Arg<'_, 'py>,
        threads: Arg<'_, 'py>,
        kernel: Option<&str>,
    ) -> PyResult<Self> {
        let (mut tokens, mut values) = (Vec::new(), Vec::new());
        for (token, value) in bias.into_iter().flat_map(|bias| bias.iter()) {
            tokens.extend(count(Some(&token), "a token of bias")?);
            values.extend(number(Some(&value), "bias")?.map(|value| value as f32));
        }
        let or = |x, name, default| Ok::<_, PyErr>(number(x, name)?.unwrap_or(default));
        Ok(Self {
            seed: whole(seed, "seed", |n| n as u64)?,
            temperature: real(temperature, "temperature", 1.0)?,
            top_k: whole(top_k, "top_k", |n| n)?,
            top_p: real(top_p, "top_p", 1.0)?,
            min_p: real(min_p, "min_p", 0.0)?,
            typical_p: real(typical_p, "typical_p", 1.0)?,
            order: order.0,
            method: method.0,
            tokens,
            bias: values,
            repetition_penalty: or(repetition_penalty, "repetition_penalty", 1.0)?,
            presence_penalty: or(presence_penalty, "presence_penalty", 0.0)?,
            frequency_penalty: or(frequency_penalty, "frequency_penalty", 0.0)?,
            exec: exec(threads, kernel)?,
        })
    }

    /// Draws from every row along the last axis: one token each, or as many as `draws` says. -1
    /// where there is nothing to draw.
    ///
    /// mask: bools (True: may be drawn), broadcast to logits. bitmask: instead of it, int32 or
    /// uint32 as grammar engines make them, one row for each row or for all. hidden_from: tokens
    /// from this one on are hidden; the bitmask needs no bits for them.
    #[pyo3(signature = (logits, draws=None, *, step=None, first_row=None, history=None, mask=None, bitmask=None, hidden_from=None),
        text_signature = "($self, logits, draws=None, *, step=0, first_row=0, history=None, mask=None, bitmask=None, hidden_from=None)")]
    #[allow(clippy::too_many_arguments)]
    fn sample<'py>(
        &self,
        logits: &Bound<'py, PyAny>,
        draws: Arg<'_, 'py>,
        step: Arg<'_, 'py>,
        first_row: Arg<'_, 'py>,
        history: Option<Vec<Bound<'py, PyAny>>>,
        mask: Arg<'_, 'py>,
        bitmask: Arg<'_, 'py>,
        hidden_from: Arg<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = logits.py();
        let x = Array::input(logits, "logits")?;
        let layout = x.layout().at_least_one_axis();
        let last = layout.shape().len() - 1;
        let mut shape = layout.shape()[..last].to_vec();
        let rows: usize = shape.iter().product();
        let draws = count(draws, "draws")?;
        let each = draws.unwrap_or(1);
        shape.extend(draws);

        let mask = MaskArray::new(mask, bitmask, hidden_from)?;
        let mask = RowMask::of(&mask, &x, &[last], &[])?;

        // One list for each row; a list of numbers is that of all.
        let (mut tokens, mut starts) = (Vec::new(), vec![0]);
        if let Some(lists) = history {
            let is_flat =
                lists.first().is_some_and(|list| list.hasattr("__index__").unwrap_or(false));
            if is_flat {
                for token in &lists {
                    tokens.extend(count(Some(token), "a token of history")?);
                }
                starts.push(tokens.len());
            } else {
                for list in &lists {
                    tokens.extend(usizes(list, "history")?);
                    starts.push(tokens.len());
                }
            }
        }
        let histories = starts.len() - 1;
        if histories > 1 && histories != rows {
            return Err(PyValueError::new_err(format!(
                "history must be one list of tokens, or {rows} for logits of shape {}, got {histories}",
                tuple(x.shape())
            )));
        }
        let step = whole(step, "step", |n| n as u64)?;
        self.top_k.check("top_k", rows, x.shape())?;
        self.seed.check("seed", rows, x.shape())?;
        step.check("step", rows, x.shape())?;
        let shares =
            [("top_p", &self.top_p), ("min_p", &self.min_p), ("typical_p", &self.typical_p)];
        for (name, setting) in [("temperature", &self.temperature)].into_iter().chain(shares) {
            setting.check(name, rows, x.shape())?;
        }
        let op = Sampler::new(self.seed.one())
            .temperature(self.temperature.one())
            .top_k(self.top_k.one())
            .top_p(self.top_p.one())
            .min_p(self.min_p.one())
            .typical_p(self.typical_p.one())
            .order(self.order)
            .method(self.method)
            .bias_lists(&self.tokens, &self.bias)
            .repetition_penalty(self.repetition_penalty)
            .presence_penalty(self.presence_penalty)
            .frequency_penalty(self.frequency_penalty)
            .step(step.one())
            .exec(self.exec);
        let first = count(first_row, "first_row")?.unwrap_or(0) as u64;
        let n = rows.checked_mul(each).ok_or_else(|| PyValueError::new_err("too many draws"))?;
        let mut drawn = room(n, 0usize)?;
        typed!(x.dtype(), T => with_rows::<T, _>(py, &layout, &[last], |x| {
            let part = Part { x, draws: &mut drawn, each, at: 0 };
            run_rows(py, (x.rows(), x.cols()), part, Part::split, |part| {
                let (at, n) = (part.at, part.x.rows());
                let mut op = op.first_row(first.saturating_add(at as u64));
                if let Some(seeds) = self.seed.part(at, n) {
                    op = op.seeds(seeds).first_row(first);
                }
                op = self.temperature.part(at, n).map_or(op, |list| op.temperatures(list));
                op = self.top_k.part(at, n).map_or(op, |list| op.top_ks(list));
                op = self.top_p.part(at, n).map_or(op, |list| op.top_ps(list));
                op = self.min_p.part(at, n).map_or(op, |list| op.min_ps(list));
                op = self.typical_p.part(at, n).map_or(op, |list| op.typical_ps(list));
                op = step.part(at, n).map_or(op, |list| op.steps(list));
                if histories == 1 {
                    op = op.packed_history(&tokens, &starts);
                } else if histories > 1 {
                    op = op.packed_history(&tokens, &starts[at..=at + part.x.rows()]);
                }
                if let Some(mask) = &mask {
                    op = op.mask(mask.of_rows(at, part.x.rows()));
                }
                op.sample(part.x, part.draws)
            })
        }))?;
        indices_like(&x, &shape, &drawn)
    }
}
