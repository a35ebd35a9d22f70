//! Masks and weights: arrays that go with the elements of another, broadcast as NumPy does.

use std::borrow::Cow;
use std::ops::Range;

use ::softmax::half::{bf16, f16};
use ::softmax::{Mask, MaskData, Weights};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::array::{Array, Dtype, Layout, tuple};

/// A mask's elements in C order.
enum Elements<'a> {
    F16(Cow<'a, [f16]>),
    Bf16(Cow<'a, [bf16]>),
    F32(Cow<'a, [f32]>),
    F64(Cow<'a, [f64]>),
    Bool(Cow<'a, [u8]>),
}

impl<'a> Elements<'a> {
    /// Masks of f64 are rounded for logits that are not.
    fn new(layout: &Layout<'a>, dtype: Dtype, of: Dtype) -> PyResult<Self> {
        Ok(match dtype {
            Dtype::F16 => Self::F16(layout.in_order()),
            Dtype::Bf16 => Self::Bf16(layout.in_order()),
            Dtype::F32 => Self::F32(layout.in_order()),
            Dtype::F64 if of == Dtype::F64 => Self::F64(layout.in_order()),
            Dtype::F64 => Self::F32(layout.in_order::<f64>().iter().map(|&m| m as f32).collect()),
            Dtype::Bool => Self::Bool(layout.in_order()),
            Dtype::I64 => {
                return Err(PyTypeError::new_err(
                    "mask must be bool (True: seen) or floats that are added, got int64",
                ));
            }
        })
    }

    fn part(&self, range: Range<usize>) -> MaskData<'_> {
        match self {
            Self::F16(m) => MaskData::F16(&m[range]),
            Self::Bf16(m) => MaskData::Bf16(&m[range]),
            Self::F32(m) => MaskData::F32(&m[range]),
            Self::F64(m) => MaskData::F64(&m[range]),
            Self::Bool(m) => MaskData::Bool(&m[range]),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::F16(m) => m.len(),
            Self::Bf16(m) => m.len(),
            Self::F32(m) => m.len(),
            Self::F64(m) => m.len(),
            Self::Bool(m) => m.len(),
        }
    }
}

fn no_broadcast(name: &str, to: &[usize], got: &[usize]) -> PyErr {
    PyValueError::new_err(format!(
        "{name} must have a shape that can be broadcast to {}, got {}",
        tuple(to),
        tuple(got)
    ))
}

/// Elements that go with those of rows: one row for all, or one for each.
fn rows_of<'a>(
    array: &'a Array,
    name: &str,
    shape: &[usize],
    axes: &[usize],
) -> PyResult<Layout<'a>> {
    let full = array.layout().broadcast(shape);
    let full = full.ok_or_else(|| no_broadcast(name, shape, array.shape()))?;
    let missing = shape.len() - array.shape().len();
    let same = |axis: usize| axis < missing || array.shape()[axis - missing] == 1;
    let last = full.moved_last(axes);
    if (0..shape.len()).all(|axis| axes.contains(&axis) || same(axis)) {
        return Ok(last.of_first(shape.len() - axes.len()));
    }
    Ok(last)
}

/// The mask of rows.
pub struct RowMask<'a> {
    elements: Elements<'a>,
}

impl<'a> RowMask<'a> {
    /// Of an array of a shape and type, along axes.
    pub fn new(mask: &'a Array, shape: &[usize], axes: &[usize], of: Dtype) -> PyResult<Self> {
        let layout = rows_of(mask, "mask", shape, axes)?;
        Ok(Self { elements: Elements::new(&layout, mask.dtype(), of)? })
    }

    /// That of some of the rows.
    pub fn of_rows(&self, first: usize, rows: usize, cols: usize) -> MaskData<'_> {
        if self.elements.len() == cols {
            return self.elements.part(0..cols);
        }
        self.elements.part(first * cols..(first + rows) * cols)
    }
}

/// The weights of rows.
pub enum RowWeights<'a> {
    F32(Cow<'a, [f32]>),
    F64(Cow<'a, [f64]>),
}

impl<'a> RowWeights<'a> {
    /// Of an array of a shape, along axes.
    pub fn new(weights: &'a Array, name: &str, shape: &[usize], axes: &[usize]) -> PyResult<Self> {
        let layout = rows_of(weights, name, shape, axes)?;
        match weights.dtype() {
            Dtype::F32 => Ok(Self::F32(layout.in_order())),
            Dtype::F64 => Ok(Self::F64(layout.in_order())),
            // Numbers of f32, all of them.
            Dtype::F16 => Ok(Self::F32(layout.view::<f16>().iter().map(|w| w.to_f32()).collect())),
            Dtype::Bf16 => {
                Ok(Self::F32(layout.view::<bf16>().iter().map(|w| w.to_f32()).collect()))
            }
            Dtype::I64 | Dtype::Bool => Err(PyTypeError::new_err(format!(
                "{name} must be floats, got {}",
                weights.dtype().name()
            ))),
        }
    }

    /// All of them.
    pub fn all(&self) -> Weights<'_> {
        match self {
            Self::F32(w) => Weights::F32(w),
            Self::F64(w) => Weights::F64(w),
        }
    }

    /// Those of some of the rows.
    pub fn of_rows(&self, first: usize, rows: usize, cols: usize) -> Weights<'_> {
        let part = |n: usize| if n == cols { 0..cols } else { first * cols..(first + rows) * cols };
        match self {
            Self::F32(w) => Weights::F32(&w[part(w.len())]),
            Self::F64(w) => Weights::F64(&w[part(w.len())]),
        }
    }
}

/// The mask of attention.
pub struct AttentionMask<'a> {
    elements: Elements<'a>,
    /// How many rows there are along batch, heads and queries.
    shape: [usize; 3],
}

impl<'a> AttentionMask<'a> {
    /// For scores of batch, heads, queries and keys, of a type.
    pub fn new(mask: &'a Array, shape: [usize; 4], of: Dtype) -> PyResult<Self> {
        let refuse = || no_broadcast("mask", &shape, mask.shape());
        // Along the keys all of it is needed; elsewhere a 1 stands for all.
        let mut own = [1; 4];
        let at = 4usize.checked_sub(mask.shape().len()).ok_or_else(refuse)?;
        own[at..].copy_from_slice(mask.shape());
        own[3] = shape[3];
        let layout = mask.layout().broadcast(&own).ok_or_else(refuse)?;
        layout.clone().broadcast(&shape).ok_or_else(refuse)?;
        let elements = Elements::new(&layout, mask.dtype(), of)?;
        Ok(Self { elements, shape: [own[0], own[1], own[2]] })
    }

    /// That of some sequences, heads and queries, of which all but one range are of one or all.
    pub fn part(&self, ranges: &[Range<usize>; 3]) -> Mask<'_> {
        let [_, heads, queries] = self.shape;
        let of_row = self.elements.len() / self.shape.iter().product::<usize>().max(1);
        let (mut start, mut shape) = (0, [1; 3]);
        for (axis, size) in [heads * queries, queries, 1].into_iter().enumerate() {
            if self.shape[axis] != 1 {
                start += ranges[axis].start * size;
                shape[axis] = ranges[axis].len();
            }
        }
        let rows = shape.iter().product::<usize>();
        Mask::new(self.elements.part(start * of_row..(start + rows) * of_row), shape)
    }
}
