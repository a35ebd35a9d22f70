//! Views of matrices whose rows are contiguous.

use std::fmt;

/// Why a slice is not a matrix of the shape that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShapeError {
    /// `cols` is 0 or does not divide the number of elements.
    NotDivisible {
        /// Elements in the slice.
        len: usize,
        /// Elements asked for in a row.
        cols: usize,
    },
    /// The slice has not the length that the shape needs.
    Length {
        /// Elements in the slice.
        len: usize,
        /// Rows asked for.
        rows: usize,
        /// Elements asked for in a row.
        cols: usize,
        /// Elements from the start of a row to the start of the next.
        stride: usize,
        /// Elements needed.
        needed: usize,
    },
    /// The slice has not the length that a tensor needs.
    Tensor {
        /// Elements in the slice.
        len: usize,
        /// Positions before the axis.
        outer: usize,
        /// Elements along the axis.
        axis: usize,
        /// Positions behind the axis.
        inner: usize,
        /// Elements needed.
        needed: usize,
    },
    /// Rows would overlap: the stride is smaller than the row.
    Overlap {
        /// Elements asked for in a row.
        cols: usize,
        /// Elements from the start of a row to the start of the next.
        stride: usize,
    },
    /// The number of elements does not fit `usize`.
    Overflow {
        /// Rows asked for.
        rows: usize,
        /// Elements asked for in a row.
        cols: usize,
        /// Elements from the start of a row to the start of the next.
        stride: usize,
    },
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotDivisible { len, cols } => {
                write!(f, "{len} elements cannot be cut into rows of {cols}")
            }
            Self::Length { len, rows, cols, stride, needed } => write!(
                f,
                "{rows} rows of {cols} with stride {stride} need {needed} elements, got {len}"
            ),
            Self::Tensor { len, outer, axis, inner, needed } => {
                write!(
                    f,
                    "a tensor of {outer} x {axis} x {inner} needs {needed} elements, got {len}"
                )
            }
            Self::Overlap { cols, stride } => {
                write!(f, "rows of {cols} elements overlap at stride {stride}")
            }
            Self::Overflow { rows, cols, stride } => {
                write!(f, "{rows} rows of {cols} with stride {stride} overflow the address space")
            }
        }
    }
}

impl std::error::Error for ShapeError {}

/// Elements from the first of row 0 to the last of the last row.
fn extent(rows: usize, cols: usize, stride: usize) -> Result<usize, ShapeError> {
    if rows > 1 && stride < cols {
        return Err(ShapeError::Overlap { cols, stride });
    }
    if rows == 0 || cols == 0 {
        return Ok(0);
    }
    (rows - 1)
        .checked_mul(stride)
        .and_then(|start| start.checked_add(cols))
        .ok_or(ShapeError::Overflow { rows, cols, stride })
}

fn check(len: usize, rows: usize, cols: usize, stride: usize) -> Result<usize, ShapeError> {
    let needed = extent(rows, cols, stride)?;
    if len < needed {
        return Err(ShapeError::Length { len, rows, cols, stride, needed });
    }
    Ok(needed)
}

fn rows_of(len: usize, cols: usize) -> Result<usize, ShapeError> {
    match len.checked_rem(cols) {
        Some(0) => Ok(len / cols),
        None if len == 0 => Ok(0),
        _ => Err(ShapeError::NotDivisible { len, cols }),
    }
}

macro_rules! view {
    ($(#[$doc:meta])* $name:ident, $slice:ty, $get:ident, $split:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<'a, T> {
            /// Exactly from the first element of row 0 to the last of the last row.
            data: $slice,
            rows: usize,
            cols: usize,
            stride: usize,
        }

        impl<'a, T> $name<'a, T> {
            /// Rows of `cols` elements, one behind the other: `data.len() / cols` of them.
            ///
            /// # Errors
            /// [`ShapeError::NotDivisible`] if `cols` does not divide `data.len()`.
            pub fn new(data: $slice, cols: usize) -> Result<Self, ShapeError> {
                let rows = rows_of(data.len(), cols)?;
                Ok(Self { data, rows, cols, stride: cols })
            }

            /// `rows` rows of `cols` elements, each starting `stride` elements after the one before it.
            /// The slice may be longer; what lies between and behind the rows is never touched.
            ///
            /// # Errors
            /// If rows overlap, sizes overflow or the slice is too short.
            pub fn with_stride(
                data: $slice,
                rows: usize,
                cols: usize,
                stride: usize,
            ) -> Result<Self, ShapeError> {
                let needed = check(data.len(), rows, cols, stride)?;
                let data = data.$get(..needed).unwrap_or_default();
                Ok(Self { data, rows, cols, stride })
            }

            /// Number of rows.
            pub fn rows(&self) -> usize {
                self.rows
            }

            /// Elements in a row.
            pub fn cols(&self) -> usize {
                self.cols
            }

            /// Elements from the start of a row to the start of the next.
            pub fn stride(&self) -> usize {
                self.stride
            }

            /// The first `at` rows and the others. All and none if there are fewer than `at`.
            pub fn split_rows(self, at: usize) -> (Self, Self) {
                let at = at.min(self.rows);
                // The rows before `at` end, at the latest, where row `at` starts.
                let cut = at.saturating_mul(self.stride).min(self.data.len());
                let (head, tail) = self.data.$split(cut);
                let view = |data: $slice, rows| {
                    // The head's last stride may be longer than its last row.
                    let len = extent(rows, self.cols, self.stride).unwrap_or(0);
                    let data = data.$get(..len).unwrap_or_default();
                    Self { data, rows, cols: self.cols, stride: self.stride }
                };
                (view(head, at), view(tail, self.rows - at))
            }
        }
    };
}

view! {
    /// A matrix to read: `rows` rows of `cols` contiguous elements, `stride` elements apart.
    ///
    /// ```
    /// use softmax_kernels::Matrix;
    /// // Two rows of three, each followed by one element of padding.
    /// let m = Matrix::with_stride(&[1.0f32, 2.0, 3.0, 0.0, 4.0, 5.0, 6.0, 0.0], 2, 3, 4)?;
    /// assert_eq!((m.rows(), m.cols(), m.stride()), (2, 3, 4));
    /// # Ok::<(), softmax_kernels::ShapeError>(())
    /// ```
    Matrix, &'a [T], get, split_at
}

view! {
    /// A matrix to write, or to work on in place: as [`Matrix`].
    MatrixMut, &'a mut [T], get_mut, split_at_mut
}

impl<T> Clone for Matrix<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Matrix<'_, T> {}

impl<'a, T> Matrix<'a, T> {
    /// From the first element of row 0 to the last of the last row.
    pub fn into_slice(self) -> &'a [T] {
        self.data
    }

    pub(crate) fn as_ptr(&self) -> *const T {
        self.data.as_ptr()
    }
}

impl<'a, T> MatrixMut<'a, T> {
    /// From the first element of row 0 to the last of the last row.
    pub fn into_slice(self) -> &'a mut [T] {
        self.data
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.data.as_mut_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_checked_and_named() {
        let d = [0.0f32; 7];
        assert_eq!(Matrix::new(&d, 3).unwrap_err(), ShapeError::NotDivisible { len: 7, cols: 3 });
        assert_eq!(Matrix::new(&d, 0).unwrap_err(), ShapeError::NotDivisible { len: 7, cols: 0 });
        assert_eq!(Matrix::<f32>::new(&[], 0).unwrap().rows(), 0);
        assert_eq!(
            Matrix::with_stride(&d, 2, 4, 4).unwrap_err().to_string(),
            "2 rows of 4 with stride 4 need 8 elements, got 7"
        );
        assert!(matches!(Matrix::with_stride(&d, 2, 3, 2), Err(ShapeError::Overlap { .. })));
        assert!(matches!(
            Matrix::with_stride(&d, usize::MAX, 2, 4),
            Err(ShapeError::Overflow { .. })
        ));
        // The last row needs no padding behind it.
        assert!(Matrix::with_stride(&d, 2, 3, 4).is_ok());
    }

    #[test]
    fn splitting_keeps_rows_and_drops_padding() {
        let d: Vec<u32> = (0..11).collect();
        let (a, b) = Matrix::with_stride(&d, 3, 3, 4).unwrap().split_rows(2);
        assert_eq!((a.data, a.rows), (&d[..7], 2));
        assert_eq!((b.data, b.rows), (&d[8..], 1));
        let (a, b) = Matrix::with_stride(&d, 3, 3, 4).unwrap().split_rows(9);
        assert_eq!((a.data, a.rows, b.data.len(), b.rows), (&d[..], 3, 0, 0));
        let (a, b) = Matrix::with_stride(&d, 3, 3, 4).unwrap().split_rows(0);
        assert_eq!((a.data.len(), b.data), (0, &d[..]));
    }
}
