//! An array within a file.

use std::ops::Range;

use crate::dtype::Dtype;

/// Where the rows are and what they are made of. The last axis is the row.
#[derive(Debug)]
pub struct Tensor {
    /// Its name, in formats that have names.
    pub name: Option<String>,
    pub shape: Vec<usize>,
    pub rows: usize,
    pub cols: usize,
    pub dtype: Dtype,
    /// Its bytes in the file.
    pub data: Range<usize>,
}

impl Tensor {
    /// A tensor whose data starts at the byte `start`.
    pub fn new(
        name: Option<String>,
        shape: Vec<usize>,
        dtype: Dtype,
        start: usize,
    ) -> Result<Self, String> {
        let Some((&cols, outer)) = shape.split_last() else {
            return Err("an array without axes (0-d) has no rows".into());
        };
        let product = outer.iter().try_fold(1, |n: usize, &dim| n.checked_mul(dim));
        let rows = if outer.contains(&0) { Some(0) } else { product };
        let end = rows
            .and_then(|rows| rows.checked_mul(cols))
            .and_then(|n| n.checked_mul(dtype.size()))
            .and_then(|bytes| bytes.checked_add(start));
        let (Some(rows), Some(end)) = (rows, end) else {
            return Err(overflows(&shape));
        };
        Ok(Self { name, shape, rows, cols, dtype, data: start..end })
    }

    /// The length of an axis, and the number of positions behind it. A negative axis counts from the end.
    pub fn along(&self, axis: isize) -> Result<(usize, usize), String> {
        let dims = self.shape.len();
        let index = if axis < 0 { axis.checked_add_unsigned(dims) } else { Some(axis) };
        let index = index.and_then(|index| usize::try_from(index).ok()).filter(|&i| i < dims);
        let Some(index) = index else {
            let name = self.name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
            return Err(format!("{name}there is no axis {axis} in {}", self.shape_text()));
        };
        // No overflow, unless a size is 0: there are as many elements.
        let inner = self.shape[index + 1..].iter().fold(1usize, |n, &dim| n.saturating_mul(dim));
        Ok((self.shape[index], inner))
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.rows * self.cols
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

/// A shape as people write it.
pub fn shape_text(shape: &[usize]) -> String {
    let dims: Vec<_> = shape.iter().map(usize::to_string).collect();
    if dims.is_empty() { "()".into() } else { dims.join(" x ") }
}

/// The message about a shape that is too large.
pub fn overflows(shape: &[usize]) -> String {
    format!("the shape {shape:?} overflows the address space")
}
