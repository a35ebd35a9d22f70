//! Masks and weights: arrays that go with the elements of another, broadcast as NumPy does.

use std::borrow::Cow;
use std::ops::Range;

use ::softmax::half::{bf16, f16};
use ::softmax::{BitMask, Mask, MaskData, Weights};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;

use crate::array::{Array, Dtype, Layout, Output, tuple};
use crate::options::{Arg, count, raised};

/// A mask's elements in C order.
enum Elements<'a> {
    F16(Cow<'a, [f16]>),
    Bf16(Cow<'a, [bf16]>),
    F32(Cow<'a, [f32]>),
    F64(Cow<'a, [f64]>),
    Bool(Cow<'a, [u8]>),
    /// All words, those of a row, and where the bits end.
    Bits {
        words: Vec<u32>,
        stride: usize,
        hidden_from: Option<usize>,
    },
}

impl<'a> Elements<'a> {
    /// Bits are read from an array whose last axis are the words of a row.
    fn of(layout: &Layout<'a>, mask: &MaskArray, of: Dtype) -> PyResult<Self> {
        match mask {
            MaskArray::Elements(mask) => Self::new(layout, mask.dtype(), of),
            MaskArray::Bits(_, hidden_from) => {
                let stride = layout.shape().last().copied().unwrap_or(0);
                let words = layout.in_order::<f32>().iter().map(|word| word.to_bits()).collect();
                Ok(Self::Bits { words, stride, hidden_from: *hidden_from })
            }
        }
    }

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

    /// The same, copied if they lie in an array.
    fn into_owned(self) -> Elements<'static> {
        match self {
            Self::F16(m) => Elements::F16(m.into_owned().into()),
            Self::Bf16(m) => Elements::Bf16(m.into_owned().into()),
            Self::F32(m) => Elements::F32(m.into_owned().into()),
            Self::F64(m) => Elements::F64(m.into_owned().into()),
            Self::Bool(m) => Elements::Bool(m.into_owned().into()),
            Self::Bits { words, stride, hidden_from } => {
                Elements::Bits { words, stride, hidden_from }
            }
        }
    }

    fn part(&self, range: Range<usize>) -> MaskData<'_> {
        match self {
            Self::F16(m) => MaskData::F16(&m[range]),
            Self::Bf16(m) => MaskData::Bf16(&m[range]),
            Self::F32(m) => MaskData::F32(&m[range]),
            Self::F64(m) => MaskData::F64(&m[range]),
            Self::Bool(m) => MaskData::Bool(&m[range]),
            Self::Bits { words, stride, hidden_from } => {
                let bits = BitMask::new(&words[range]).stride(*stride);
                hidden_from.map_or(bits, |cols| bits.hidden_from(cols)).into()
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::F16(m) => m.len(),
            Self::Bf16(m) => m.len(),
            Self::F32(m) => m.len(),
            Self::F64(m) => m.len(),
            Self::Bool(m) => m.len(),
            Self::Bits { words, .. } => words.len(),
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

/// The array that a mask is made of.
pub enum MaskArray<'py> {
    Elements(Array<'py>),
    /// Words of bits, as numbers of f32 with these bits; and where the bits end, if that was said.
    Bits(Array<'py>, Option<usize>),
}

impl<'py> MaskArray<'py> {
    /// Of the arguments `mask`, `bitmask` and `hidden_from`; `None` if there is no mask.
    pub fn new(
        mask: Arg<'_, 'py>,
        bitmask: Arg<'_, 'py>,
        hidden_from: Arg<'_, 'py>,
    ) -> PyResult<Option<Self>> {
        let hidden_from = count(hidden_from, "hidden_from")?;
        match (mask, bitmask) {
            (Some(_), Some(_)) => {
                Err(PyValueError::new_err("one of mask and bitmask must be None"))
            }
            (_, None) if hidden_from.is_some() => {
                Err(PyValueError::new_err("hidden_from needs a bitmask"))
            }
            (None, None) => Ok(None),
            (Some(mask), None) => Array::labels(mask, "mask").map(Self::Elements).map(Some),
            (None, Some(bits)) => Ok(Some(Self::Bits(words(bits)?, hidden_from))),
        }
    }

    /// The words of a row, of bits.
    fn words(&self) -> PyResult<Option<usize>> {
        match self {
            Self::Elements(_) => Ok(None),
            Self::Bits(array, _) => match array.shape().last() {
                Some(&words) => Ok(Some(words)),
                None => Err(PyValueError::new_err("bitmask must have at least one axis")),
            },
        }
    }

    /// The array, and its name.
    pub fn named(&self) -> (&Array<'py>, &'static str) {
        match self {
            Self::Elements(mask) => (mask, "mask"),
            Self::Bits(words, _) => (words, "bitmask"),
        }
    }
}

/// An array or tensor of int32 or uint32 as one of float32 with the same bits, for which there is
/// everything else.
fn words<'py>(bits: &Bound<'py, PyAny>) -> PyResult<Array<'py>> {
    let py = bits.py();
    let name = match bits.getattr(intern!(py, "dtype")) {
        Ok(dtype) => dtype.str()?.to_string(),
        Err(_) => bits.get_type().name()?.to_string(),
    };
    let f32 = match &*name {
        "int32" | "uint32" => "float32".into_pyobject(py)?.into_any(),
        "torch.int32" | "torch.uint32" => py.import("torch")?.getattr("float32")?,
        _ => {
            let message = format!("bitmask must be an array of int32 or uint32, got {name}");
            return Err(PyTypeError::new_err(message));
        }
    };
    Array::input(&bits.call_method1(intern!(py, "view"), (f32,))?, "bitmask")
}

/// The mask of rows.
pub struct RowMask<'a> {
    elements: Elements<'a>,
    /// Elements, or words, of a row.
    of_row: usize,
}

impl<'a> RowMask<'a> {
    /// That of the rows of `x` along axes, if there is one; refused if an output overlaps it.
    pub fn of<'py>(
        mask: &'a Option<MaskArray<'py>>,
        x: &Array,
        axes: &[usize],
        outputs: &[&Output<'py>],
    ) -> PyResult<Option<Self>> {
        let Some(mask) = mask else { return Ok(None) };
        let (array, name) = mask.named();
        outputs.iter().try_for_each(|output| output.apart(array, name))?;
        let layout = x.layout().at_least_one_axis();
        Self::new(mask, layout.shape(), axes, x.dtype()).map(Some)
    }

    /// For an array of a shape and type, along axes.
    fn new(mask: &'a MaskArray, shape: &[usize], axes: &[usize], of: Dtype) -> PyResult<Self> {
        let (array, name) = mask.named();
        let mut shape = shape.to_vec();
        if let Some(words) = mask.words()? {
            let last = shape.len() - 1;
            if axes != [last] {
                return Err(PyValueError::new_err("a bitmask goes along the last axis"));
            }
            shape[last] = words;
        }
        let layout = rows_of(array, name, &shape, axes)?;
        let of_row = axes.iter().map(|&axis| shape[axis]).product();
        Ok(Self { elements: Elements::of(&layout, mask, of)?, of_row })
    }

    /// Refuses a mask that does not only hide.
    pub fn check_hides(&self) -> PyResult<()> {
        self.elements.part(0..self.elements.len()).check_hides().map_err(raised)
    }

    /// That of some of the rows.
    pub fn of_rows(&self, first: usize, rows: usize) -> MaskData<'_> {
        let of_row = self.of_row;
        if self.elements.len() == of_row {
            return self.elements.part(0..of_row);
        }
        self.elements.part(first * of_row..(first + rows) * of_row)
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
    pub fn new(mask: &'a MaskArray, mut shape: [usize; 4], of: Dtype) -> PyResult<Self> {
        shape[3] = mask.words()?.unwrap_or(shape[3]);
        let (array, name) = mask.named();
        let refuse = || no_broadcast(name, &shape, array.shape());
        // Along the keys all of it is needed; elsewhere a 1 stands for all.
        let mut own = [1; 4];
        let at = 4usize.checked_sub(array.shape().len()).ok_or_else(refuse)?;
        own[at..].copy_from_slice(array.shape());
        own[3] = shape[3];
        let layout = array.layout().broadcast(&own).ok_or_else(refuse)?;
        layout.clone().broadcast(&shape).ok_or_else(refuse)?;
        let elements = Elements::of(&layout, mask, of)?;
        Ok(Self { elements, shape: [own[0], own[1], own[2]] })
    }

    /// The same, apart from the array.
    pub fn into_owned(self) -> AttentionMask<'static> {
        AttentionMask { elements: self.elements.into_owned(), shape: self.shape }
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
