//! An array within a file.

use std::ops::Range;

use crate::dtype::Dtype;
use crate::stored::Stored;

/// The place of the rows and the type of their elements. The last axis is the row.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name, in formats that have names.
    pub name: Option<String>,
    pub shape: Vec<usize>,
    pub rows: usize,
    pub cols: usize,
    /// The type of its elements in the file, and the type that they are read as.
    pub stored: Stored,
    pub dtype: Dtype,
    /// Its bytes in the file.
    pub data: Range<usize>,
}

impl Tensor {
    /// A tensor whose data starts at the byte `start`, and ends within the address space.
    pub fn new(
        name: Option<String>,
        shape: Vec<usize>,
        stored: Stored,
        start: usize,
    ) -> Result<Self, String> {
        let Some((&cols, outer)) = shape.split_last() else {
            return Err("an array without axes (0-d) has no rows".into());
        };
        let bytes = bytes_of(&shape, stored.size())?;
        let end = bytes.checked_add(start).ok_or_else(|| overflows(&shape))?;
        // No overflow: the sizes that are not 0 have been multiplied.
        let rows = if outer.contains(&0) { 0 } else { outer.iter().product() };
        // In the type that they are read as, they must fit the address space, too.
        let dtype = stored.dtype();
        bytes_of(&shape, dtype.size())?;
        Ok(Self { name, shape, rows, cols, stored, dtype, data: start..end })
    }

    /// The length of an axis, and the number of positions behind it. A negative axis counts from
    /// the end.
    pub fn along(&self, axis: isize) -> Result<(usize, usize), String> {
        let dims = self.shape.len();
        let index = if axis < 0 { axis.checked_add_unsigned(dims) } else { Some(axis) };
        let index = index.and_then(|index| usize::try_from(index).ok()).filter(|&i| i < dims);
        let Some(index) = index else {
            let name = self.name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
            return Err(format!("{name}there is no axis {axis} in {}", self.shape_text()));
        };
        let behind = &self.shape[index + 1..];
        let inner = if behind.contains(&0) { 0 } else { behind.iter().product() };
        Ok((self.shape[index], inner))
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// The description for programs, if it is of this type.
    pub fn json(&self, dtype: Dtype) -> serde_json::Value {
        let (name, shape, from) = (&self.name, &self.shape, self.stored.name());
        let mut json = serde_json::json!({ "name": name, "shape": shape, "dtype": dtype.name() });
        if from != self.dtype.name() {
            json["read_from"] = from.into();
        }
        json
    }

    /// Its shape as people write it.
    pub fn shape_text(&self) -> String {
        shape_text(&self.shape)
    }

    /// The axes before the last, whose product is the number of rows.
    pub fn outer(&self) -> &[usize] {
        self.shape.split_last().map_or(&[], |(_, outer)| outer)
    }
}

/// Something in a file that is not computed.
#[derive(Debug)]
pub struct Other {
    pub name: String,
    /// The format's name of its type.
    pub kind: String,
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    pub data: Range<usize>,
    /// The tensor, if it is an array of numbers with rows.
    pub tensor: Option<Tensor>,
}

impl Other {
    /// The description for programs.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({ "name": self.name, "shape": self.shape, "dtype": self.kind })
    }
}

/// A shape as people write it.
pub fn shape_text(shape: &[usize]) -> String {
    let dims: Vec<_> = shape.iter().map(usize::to_string).collect();
    if dims.is_empty() { "()".into() } else { dims.join(" x ") }
}

/// The bytes of an array of this shape, whose elements have `size`.
///
/// A shape may be too large even without elements, as in NumPy: the product of all sizes other than
/// 0 must not overflow.
pub fn bytes_of(shape: &[usize], size: usize) -> Result<usize, String> {
    let mut dims = shape.iter().filter(|&&dim| dim != 0);
    let bytes = dims.try_fold(size, |n, &dim| n.checked_mul(dim));
    match bytes.filter(|&bytes| isize::try_from(bytes).is_ok()) {
        Some(bytes) => Ok(if shape.contains(&0) { 0 } else { bytes }),
        None => Err(overflows(shape)),
    }
}

fn overflows(shape: &[usize]) -> String {
    format!("the shape {shape:?} overflows the address space")
}
